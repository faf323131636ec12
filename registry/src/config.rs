//! Reads what a registry is opened with from Feast's `feature_store.yaml`.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::path::{Path, PathBuf};

use feast_registry_core::config::RegistryConfig;
use feast_registry_core::{Error, Result};

mod block;
mod engine;
mod env;
mod findings;
mod place;
mod read;
mod rewrite;
mod security;
mod unset;
mod yaml;

pub use feast_registry_core::config::{KubernetesConfig, OidcConfig};
use findings::{Findings, Problem};
pub use rewrite::{has_remote_stores, with_remote_registry};
pub use security::{AuditConfig, AuthConfig, ServerConfig, TlsConfig};

/// What a registry takes from a `feature_store.yaml`.
///
/// The file is read as Feast reads it: `$NAME` and `${NAME}` stand for environment variables anywhere in its text, and
/// the result is YAML as PyYAML understands it. These settings of it are used:
///
/// - `project`, the name of the project;
/// - `registry`, which is the path or the URL of a file, or a block with `registry_type: sql` or `registry_type: file`
///   and the settings of such a registry;
/// - `auth`, how callers of a server say who they are, and `registry_server`, what else it asks of them, which is ours and which
///   Feast passes over.
///
/// All else configures other parts of Feast and is not looked at. In the block, nothing is passed over: an unknown
/// setting or a value that cannot be is an error, where Feast is often silent. Settings that concern Feast's clients
/// alone are checked and have no effect. What SQLAlchemy or other parts of Feast understand and this registry does not
/// need is a [warning](Self::warnings). A key must not be there twice anywhere in the file.
///
/// An environment variable that does not exist leaves the reference as it is written, as in Feast. In `project` and
/// `registry` that is an error where a variable is meant beyond doubt: for `${NAME}`, and where `$NAME` is all of a value.
/// A `$` within a longer text, or anywhere in `connect_args` and `s3_additional_kwargs`, may as well belong to a password:
/// it stays, with a warning that does not repeat it. A password with `${` in it is written with `%24{` in a URL.
///
/// The path of a file is relative to the folder of the `feature_store.yaml`, as a rule of Feast's. A path in a
/// `sqlite:///` URL is relative to the folder that the process works in, as a rule of SQLAlchemy's.
///
/// ```
/// use feast_registry::config::FeatureStoreConfig;
///
/// let text = "
/// project: driver_ranking
/// registry:
///   registry_type: sql
///   path: postgresql+psycopg://feast:${DB_PASSWORD}@db/feast
///   cache_ttl_seconds: 60
/// ";
/// let env = |name: &str| (name == "DB_PASSWORD").then(|| "secret".to_owned());
/// let config = FeatureStoreConfig::parse(text, "feature_store.yaml", env)?;
/// assert_eq!(config.project.as_deref(), Some("driver_ranking"));
/// assert_eq!(config.registry.url.password(), Some("secret"));
/// assert_eq!(config.registry.cache.ttl.as_secs(), 60);
/// assert_eq!((config.line_of("registry.cache_ttl_seconds"), config.warnings.len()), (Some(6), 0));
/// # Ok::<(), feast_registry_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FeatureStoreConfig {
    /// The project that the file is for, if it names one.
    pub project: Option<String>,
    /// What the registry is opened with.
    pub registry: RegistryConfig,
    /// How callers of a server say who they are.
    pub auth: AuthConfig,
    /// What else a server asks of its callers.
    pub server: ServerConfig,
    /// The block `batch_engine`, or the type that it is short for: the engine that materializes, which Feast's Python runs.
    pub batch_engine: Option<serde_json::Value>,
    /// What the author of the file may not know, to be told once. None of it keeps the registry from being opened.
    pub warnings: Vec<Finding>,
    /// Where settings are in the file.
    lines: BTreeMap<String, usize>,
}

impl FeatureStoreConfig {
    /// What a registry is opened with that no file says anything about.
    pub fn new(registry: RegistryConfig) -> Self {
        Self {
            project: None,
            registry,
            auth: AuthConfig::NoAuth,
            server: ServerConfig::default(),
            batch_engine: None,
            warnings: Vec::new(),
            lines: BTreeMap::new(),
        }
    }

    /// Reads the file at `path`, or the `feature_store.yaml` in the folder there, with the environment variables of this
    /// process.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`](feast_registry_core::ErrorKind::InvalidConfig): the file cannot be read or not be understood. The
    /// error names the file, and all that is wrong: the line, the setting, and what is accepted there. It never repeats a
    /// URL.
    pub fn load(path: &Path) -> Result<Self> {
        Inspection::of_file(path, None).into_config()
    }

    /// Reads the text of a file. `origin` is the path of the file: what is relative in the text is so to its folder,
    /// and errors begin with it. `env` gives the value of an environment variable.
    ///
    /// # Errors
    ///
    /// As those of [`load`](Self::load).
    pub fn parse(text: &str, origin: &str, env: impl Fn(&str) -> Option<String>) -> Result<Self> {
        Inspection::of_text(text, origin, folder_of(Path::new(origin)), env).into_config()
    }

    /// The line of the file that a setting is in, by its full name, as `registry.cache_mode`. `None`: the file does not
    /// say it, so it is at its default.
    pub fn line_of(&self, setting: &str) -> Option<usize> {
        self.lines.get(setting).copied()
    }
}

/// Something to say about a configuration: an error or a warning. Its text form is one line, with where it is from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// The file, or what else the configuration is from.
    pub origin: String,
    /// The line in it, counted from 1. `None` for what is missing, or about the whole.
    pub line: Option<usize>,
    /// What there is to say. It names the setting and the remedy, and shows no secret.
    pub text: String,
}

impl Finding {
    /// Something about the whole of a configuration.
    pub fn new(origin: impl Into<String>, text: impl Into<String>) -> Self {
        Self { origin: origin.into(), line: None, text: text.into() }
    }

    /// The same about one line, if it is known.
    #[must_use]
    pub fn at(self, line: Option<usize>) -> Self {
        Self { line, ..self }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}, line {line}: {}", self.origin, self.text),
            None => write!(f, "{}: {}", self.origin, self.text),
        }
    }
}

/// A configuration with all that is odd about it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Inspection {
    /// The file, or what else the configuration is from.
    pub origin: String,
    /// What it says. `None` when there are errors.
    pub config: Option<FeatureStoreConfig>,
    /// Why it cannot be used, by line.
    pub errors: Vec<Finding>,
    /// What its author may not know, by line.
    pub warnings: Vec<Finding>,
}

impl Inspection {
    /// Of a configuration from `origin`, with the warnings that it has.
    pub fn of_config(config: FeatureStoreConfig, origin: impl Into<String>) -> Self {
        Self { origin: origin.into(), warnings: config.warnings.clone(), config: Some(config), errors: Vec::new() }
    }

    /// Of a configuration that cannot be used.
    pub fn of_error(error: Finding) -> Self {
        Self { origin: error.origin.clone(), config: None, errors: vec![error], warnings: Vec::new() }
    }

    /// Of the file at `path`, or of the `feature_store.yaml` in the folder there, with the environment variables of this
    /// process. What is relative in it is so to `folder`, or without one to the folder that the file is in.
    pub fn of_file(path: &Path, folder: Option<&Path>) -> Self {
        let path = if path.is_dir() { path.join("feature_store.yaml") } else { path.to_owned() };
        let origin = path.display().to_string();
        let unreadable =
            |why: &dyn Display| Self::of_error(Finding::new(&*origin, format!("the file cannot be read: {why}")));
        if path.to_str().is_none() {
            return unreadable(&"its path is not UTF-8 text");
        }
        let text = match std::fs::read(&path).map(String::from_utf8) {
            Ok(Ok(text)) => text,
            Ok(Err(_)) => return unreadable(&"it is not UTF-8 text"),
            Err(error) => return unreadable(&error),
        };
        let folder = folder.map_or_else(|| folder_of(&path), Path::to_owned);
        Self::of_text_with_variables(&text, &origin, folder)
    }

    /// Of a text, with the environment variables of this process; else as [`of_text`](Self::of_text).
    pub fn of_text_with_variables(text: &str, origin: &str, folder: PathBuf) -> Self {
        // To `of_text`, a variable whose value is not text does not exist, and its name stays where the value should be.
        let not_text = Cell::new(None);
        let inspection = Self::of_text(text, origin, folder, |name| match std::env::var(name) {
            Ok(value) => Some(value),
            Err(std::env::VarError::NotPresent) => None,
            Err(std::env::VarError::NotUnicode(_)) => {
                not_text.set(Some(name.to_owned()));
                None
            }
        });
        match not_text.into_inner() {
            Some(name) => {
                let text = format!("the environment variable `{name}` is not UTF-8 text");
                Self { errors: vec![Finding::new(origin, text)], config: None, ..inspection }
            }
            None => inspection,
        }
    }

    /// Of a text from `origin`, with the environment variables that `env` knows. The path of a registry file is relative to
    /// `folder`.
    pub fn of_text(text: &str, origin: &str, folder: PathBuf, env: impl Fn(&str) -> Option<String>) -> Self {
        let expanded = env::expand(text, env);
        let findings = Findings::default();
        let config = match yaml::load(&expanded.text, &expanded.unset) {
            Ok(document) => read::document(&document, &folder, &findings),
            Err(problem) => {
                findings.error(unset::explain(problem, &expanded));
                None
            }
        };
        let (errors, warnings) = findings.into_sorted();
        let in_file = |line: usize| expanded.line_in_file(line);
        let told = |problems: Vec<Problem>| -> Vec<Finding> {
            let finding = |Problem { line, message }| Finding {
                origin: origin.to_owned(),
                line: line.map(in_file),
                text: message,
            };
            problems.into_iter().map(finding).collect()
        };
        let (errors, warnings) = (told(errors), told(warnings));
        let config = config.filter(|_| errors.is_empty()).map(|mut config| {
            config.lines.values_mut().for_each(|line| *line = in_file(*line));
            FeatureStoreConfig { warnings: warnings.clone(), ..config }
        });
        Self { origin: origin.to_owned(), config, errors, warnings }
    }

    /// What can be used.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`](feast_registry_core::ErrorKind::InvalidConfig), with all that is wrong.
    pub fn into_config(self) -> Result<FeatureStoreConfig> {
        if let (Some(config), []) = (self.config, &*self.errors) {
            return Ok(config);
        }
        let mut message = String::new();
        for error in &self.errors {
            match (message.is_empty(), error.line) {
                (true, _) => message = error.to_string(),
                (false, Some(line)) => message += &format!("; also, line {line}: {}", error.text),
                (false, None) => message += &format!("; also: {}", error.text),
            }
        }
        Err(Error::config(message))
    }
}

fn folder_of(path: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new("")).to_owned()
}

#[cfg(test)]
mod odd_tests;
#[cfg(test)]
mod tests;
