//! `feast-registry config`.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Subcommand, ValueEnum};
use feast_registry::config::{FeatureStoreConfig, Finding};
use feast_registry::{ErrorKind, Freshness, Kind, ListFilter, RegistryConfig, SchemaMode};
use serde_json::{Map, Value as Json, json};

use super::location::Location;
use super::{Cli, output, security, settings, text};

/// Look at the configuration of the registry: what is odd about it, and what is in force.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  feast-registry config check -c feature_store.yaml          what is wrong with it, without opening anything
  feast-registry config check -c feature_store.yaml --connect
  feast-registry config show                                 what the other commands would use here
  feast-registry config show -c feature_store.yaml -o json | jq .registry.path")]
pub(crate) struct Config {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Check(Check),
    Show(Show),
}

/// Say all that is wrong or odd about the configuration, each with its line.
///
/// Of what a server asks of its callers, the files that are named are looked into. The registry is not opened, and no server is
/// asked, unless with `--connect`. Exit code 1 if the registry could not be used, or served, like that; warnings do not count.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  feast-registry config check -c feature_store.yaml && feast-registry serve -c feature_store.yaml
  feast-registry config check --registry 'postgresql://feast@db/feast?sslmode=verify-full' --connect")]
struct Check {
    #[command(flatten)]
    location: Location,

    /// Also open the registry for reading, and say whether it is there and all in order. Nothing is made or changed.
    #[arg(long)]
    connect: bool,
}

/// Print what is in force, with where each setting is from, and without secrets.
///
/// Settings have the names that they have in a feature_store.yaml; the options of a database's driver are in the URL.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  feast-registry config show -c feature_store.yaml
  feast-registry config show -o json | jq -r .source")]
struct Show {
    #[command(flatten)]
    location: Location,

    /// The output format.
    #[arg(short, long, value_enum, default_value_t = ShowFormat::Yaml)]
    output: ShowFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ShowFormat {
    /// YAML, with the line of each setting as a comment.
    Yaml,
    /// JSON, with the lines in an object of their own, `lines`.
    Json,
}

impl Config {
    pub(super) async fn run(self, cli: &Cli) -> Result<ExitCode> {
        match self.command {
            Command::Check(check) => check.run(cli).await,
            Command::Show(show) => show.run(cli).map(|()| ExitCode::SUCCESS),
        }
    }
}

impl Check {
    async fn run(self, cli: &Cli) -> Result<ExitCode> {
        let inspection = self.location.inspect(cli);
        let source = inspection.origin;
        let (mut errors, mut warnings) = (inspection.errors, inspection.warnings);
        let mut state = None;
        if let Some(config) = &inspection.config {
            let about = |text: String| Finding::new(&*source, text).at(config.line_of("registry.path"));
            match cli.schemes.check(&config.registry) {
                Err(error) => errors.push(about(error.to_string())),
                Ok(()) if self.connect => match look(&config.registry, cli).await {
                    Ok(found) => {
                        warnings.extend(found.odd.into_iter().map(about));
                        state = Some(found.state);
                    }
                    Err(error) => errors.push(about(error.to_string())),
                },
                Ok(()) => {}
            }
            for (setting, problem) in security::problems(config) {
                errors.push(Finding::new(&*source, format!("{problem:#}")).at(config.line_of(setting)));
            }
        }
        let mut lines = String::new();
        for (label, findings) in [("error", &errors), ("warning", &warnings)] {
            for finding in findings {
                lines += &format!("{label}: {}\n", text::clean(&finding.to_string()));
            }
        }
        let count = |number: usize, what: &str| match number {
            0 => format!("no {what}s"),
            1 => format!("1 {what}"),
            _ => format!("{number} {what}s"),
        };
        lines += &format!(
            "{}: {}, {}",
            text::clean(&source),
            count(errors.len(), "error"),
            count(warnings.len(), "warning")
        );
        lines += &state.map_or_else(|| ".\n".to_owned(), |state| format!("; {}.\n", text::clean(&state)));
        output::print(lines.as_bytes())?;
        Ok(if errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// What there is of a registry.
struct Found {
    /// In words.
    state: String,
    /// What its owner may want to change.
    odd: Vec<String>,
}

/// Opens a registry for reading, and reads all of it.
async fn look(config: &RegistryConfig, cli: &Cli) -> feast_registry::Result<Found> {
    let registry = match cli.schemes.open_read_only(config).await {
        Ok(registry) => registry,
        // Nothing is wrong with a registry that is still to be made.
        Err(error) if error.kind() == ErrorKind::SchemaMissing && config.schema_mode == SchemaMode::Auto => {
            let odd = vec![format!("{error}; `{} serve` makes what is missing", cli.name)];
            return Ok(Found { state: format!("the registry in {} is not there, or not all of it", config.url), odd });
        }
        Err(error) => return Err(error),
    };
    let mut odd: Vec<String> = Vec::new();
    // This also finds what cannot be decoded.
    registry.refresh().await?;
    let projects = registry.list(Kind::Project, None, &ListFilter::default(), Freshness::Cached).await?.len();
    odd.extend(
        registry.undecodable().iter().map(|key| format!("{key} cannot be decoded; apply it again, or delete it")),
    );
    let projects = text::count(projects, Kind::Project);
    let state = format!("the registry is there, in {}, with {projects}", registry.location());
    // A store that is open only once is not to be open when it is looked at in another way.
    registry.close().await?;
    drop(registry);
    let problems = cli.schemes.problems(config).await?;
    odd.splice(0..0, problems.into_iter().map(|problem| format!("{problem}; `{} migrate` mends it", cli.name)));
    Ok(Found { state, odd })
}

impl Show {
    fn run(self, cli: &Cli) -> Result<()> {
        let inspection = self.location.inspect(cli);
        let source = inspection.origin.clone();
        let config = inspection.into_config()?;
        config.warnings.iter().for_each(|warning| output::warn(&text::clean(&warning.to_string())));
        let settings = settings::all(&config);
        let text = match self.output {
            ShowFormat::Yaml => yaml(&source, &config, &settings)?,
            ShowFormat::Json => format!("{:#}\n", to_json(&source, &config, &settings)),
        };
        output::print(text.as_bytes())
    }
}

/// A mapping for each part of a name, with the place of the setting behind it.
fn yaml(source: &str, config: &FeatureStoreConfig, settings: &[(&'static str, Json)]) -> Result<String> {
    let mut lines = format!("# from {}\n", text::clean(source));
    let mut open: Vec<&str> = Vec::new();
    for (name, value) in settings {
        let parts: Vec<&str> = name.split('.').collect();
        let (last, blocks) = parts.split_last().context("a setting has a name")?;
        let shared = open.iter().zip(blocks).take_while(|(open, block)| open == block).count();
        for (depth, block) in blocks.iter().enumerate().skip(shared) {
            lines += &format!("{}{block}:\n", "  ".repeat(depth));
        }
        open = blocks.to_vec();
        let from = match config.line_of(name) {
            Some(line) => format!("line {line}"),
            None if *name == "registry.path" => source.to_owned(),
            None => "default".to_owned(),
        };
        // JSON is YAML too, and always of one line.
        let value = match value {
            Json::String(text) if is_plain(text) => text.clone(),
            other => other.to_string(),
        };
        lines += &format!("{}{last}: {value}  # {}\n", "  ".repeat(blocks.len()), text::clean(&from));
    }
    Ok(lines)
}

/// Whether a text needs no quotes in YAML.
fn is_plain(text: &str) -> bool {
    let harmless = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | '+' | '@' | '=' | '?');
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.replace("://", "/").chars().all(harmless)
        && !["true", "false", "null", "yes", "no", "on", "off", "y", "n"].contains(&text.to_ascii_lowercase().as_str())
}

fn to_json(source: &str, config: &FeatureStoreConfig, settings: &[(&'static str, Json)]) -> Json {
    let mut root = Map::new();
    root.insert("source".to_owned(), json!(source));
    let mut lines = Map::new();
    for (name, value) in settings {
        let mut parts = name.split('.').peekable();
        let mut at = &mut root;
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                at.insert(part.to_owned(), value.clone());
                break;
            }
            let block = at.entry(part).or_insert_with(|| json!({}));
            match block {
                Json::Object(block) => at = block,
                // No setting is a block and a value at once.
                _ => break,
            }
        }
        lines.extend(config.line_of(name).map(|line| ((*name).to_owned(), json!(line))));
    }
    root.insert("lines".to_owned(), Json::Object(lines));
    Json::Object(root)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_needs_no_quotes_has_none() {
        for text in ["rides", "sqlite:///r.db", "/var/r.db", "postgresql://u:***@h/d"] {
            assert_eq!(is_plain(text), !text.contains('*'), "{text}");
        }
        for text in ["", "yes", "1e3", "a: b", "a #b", "- a", "*a", "a\nb"] {
            assert!(!is_plain(text), "{text}");
        }
    }
}
