//! `feast-registry status`.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use feast_registry::config::FeatureStoreConfig;
use feast_registry::{ErrorKind, Kind, Registry, RegistryConfig};
use serde_json::{Value as Json, json};

use super::location::{Location, Opened};
use super::output::{self, TextFormat};
use super::{Cli, one_line, text};

/// Say how the registry is: where it is and whether it can be read, what is in it, and how far its journal reaches back.
///
/// What a journal keeps is limited by days and by commits, as its configuration says; in a registry file also by the room that there
/// is in the file.
///
/// All of the registry is read once for it. Exit code 1 when it cannot be read, with why.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  feast-registry status -c feature_store.yaml
  feast-registry status -o json | jq .journal.oldest.at")]
pub(crate) struct Status {
    /// The output format.
    #[arg(short, long, value_enum, default_value_t = TextFormat::Text)]
    output: TextFormat,

    #[command(flatten)]
    location: Location,
}

impl Status {
    pub(super) async fn run(self, cli: &Cli) -> Result<ExitCode> {
        // What is odd about it is told when it is opened.
        let FeatureStoreConfig { registry: config, .. } = self.location.read(cli, |_| {})?;
        let mut status = beginning(cli, &config);
        let looked = match self.location.open_history(cli).await {
            Ok(opened) => look(&opened, &mut status).await,
            Err(error) => Err(error),
        };
        status["reachable"] = looked.is_ok().into();
        if let Err(error) = &looked {
            status["problem"] = one_line(error).into();
        }
        match self.output.of_program() {
            Some(format) => output::print_json(&status, format)?,
            None => output::print(in_words(&status).as_bytes())?,
        }
        Ok(if looked.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// What is known before the registry is opened.
fn beginning(cli: &Cli, config: &RegistryConfig) -> Json {
    json!({
        "program": cli.name,
        "version": cli.version,
        "location": config.url.to_string(),
        "backend": config.url.scheme(),
        "schemaMode": config.schema_mode.as_str(),
        "retention": {
            "days": config.journal.age.as_secs() / 86_400,
            "commits": config.journal.commits,
            // Only as many as fit, however young they are.
            "limitedByFile": config.url.is_file(),
        },
    })
}

async fn look(opened: &Opened, status: &mut Json) -> Result<()> {
    let registry = &opened.registry;
    status["location"] = registry.location().into();
    status["removed"] = opened.is_removed.into();
    status["projects"] = projects(registry).await?;
    status["undecodable"] = registry.undecodable().iter().map(ToString::to_string).collect();
    status["journal"] = journal(registry).await?;
    let limits = registry.limits();
    status["unkept"] = limits.unkept.into();
    Ok(())
}

/// How many objects of each kind every project has, and how large they are as they are stored.
async fn projects(registry: &Registry) -> Result<Json> {
    let inventory = registry.inventory().await?;
    let projects = inventory.into_iter().map(|(name, kinds)| {
        let bytes: u64 = kinds.values().map(|holding| holding.bytes).sum();
        let of_project = kinds.iter().filter(|(kind, _)| **kind != Kind::Project);
        let objects: BTreeMap<&str, u64> = of_project.map(|(kind, holding)| (kind.plural(), holding.objects)).collect();
        json!({ "name": name, "objects": objects, "bytes": bytes })
    });
    Ok(projects.collect())
}

/// How far the journal reaches back; `null` where the storage has none.
async fn journal(registry: &Registry) -> Result<Json> {
    let span = match registry.journal_span().await {
        Ok(span) => span,
        Err(error) if error.kind() == ErrorKind::Unsupported => return Ok(Json::Null),
        Err(error) => return Err(error.into()),
    };
    let Some(span) = span else { return Ok(json!({})) };
    let end = |entry: &feast_registry::JournalEntry| json!({ "revision": entry.revision.to_string(), "at": text::moment(&entry.at) });
    Ok(json!({ "oldest": end(&span.oldest), "newest": end(&span.newest) }))
}

fn in_words(status: &Json) -> String {
    let text = |name: &str| text::clean(status[name].as_str().unwrap_or_default());
    let mut words = String::new();
    let mut line = |title: &str, content: &str| words += &format!("{title:<11}{content}\n");
    line("Registry", &text("location"));
    line("Backend", &text("backend"));
    line("Program", &format!("{} {}", text("program"), text("version")));
    if status["reachable"] == false {
        line("Reachable", &format!("no: {}", text("problem")));
        return words;
    }
    line("Reachable", "yes");
    let tables = if status["removed"] == true { "removed with the last project" } else { "there" };
    line("Tables", &format!("{tables} (schema_mode: {})", text("schemaMode")));
    line("Journal", &journal_in_words(status));
    for promise in status["unkept"].as_array().into_iter().flatten() {
        line("Not kept", &text::clean(promise.as_str().unwrap_or_default()));
    }
    for object in status["undecodable"].as_array().into_iter().flatten() {
        line("Damaged", &text::clean(object.as_str().unwrap_or_default()));
    }
    let projects = status["projects"].as_array().map(Vec::as_slice).unwrap_or_default();
    if projects.is_empty() {
        line("Projects", "none");
        return words;
    }
    let mut table = output::Table::new(["PROJECT", "BYTES", "OBJECTS"]);
    for project in projects {
        let count = |kind: &Kind| {
            let count = usize::try_from(project["objects"][kind.plural()].as_u64()?).ok()?;
            Some(text::count(count, *kind))
        };
        let counts = Kind::ALL.iter().filter_map(count);
        let name = text::clean(project["name"].as_str().unwrap_or_default());
        table.push([name, project["bytes"].to_string(), counts.collect::<Vec<_>>().join(", ")]);
    }
    words + "\n" + &table.render("")
}

fn journal_in_words(status: &Json) -> String {
    let kept = &status["retention"];
    let fitting = if kept["limitedByFile"] == true { ", and as many as fit into the file" } else { "" };
    let kept = format!("kept for {} days, at most {} commits{fitting}", kept["days"], kept["commits"]);
    let end = |name: &str| {
        let end = &status["journal"][name];
        Some(format!("revision {} of {}", end["revision"].as_str()?, end["at"].as_str()?))
    };
    match (end("oldest"), end("newest")) {
        (Some(oldest), Some(newest)) => format!("from {oldest} to {newest}; {kept}"),
        _ if status["journal"].is_null() => "none: this storage keeps none".to_owned(),
        _ => format!("empty; {kept}"),
    }
}
