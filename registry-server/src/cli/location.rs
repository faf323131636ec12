//! Which registry a command is about, and opening it.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Error, Result};
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use clap::Args;
use feast_registry::config::{FeatureStoreConfig, Finding, Inspection};
use feast_registry::{CacheConfig, ErrorKind, Registry, RegistryConfig, RegistryUrl, Retention, SchemaMode, Schemes};

use super::{Cli, output, text};

/// The file that Feast looks for in a folder.
const FEATURE_STORE: &str = "feature_store.yaml";

/// The registry when nothing says another.
const DEFAULT_URL: &str = "sqlite:///registry.db";

/// The argument with the URL of the registry.
pub(super) const REGISTRY: &str = "registry";

/// The environment variable with the URL of the registry.
const URL_VARIABLE: &str = "FEAST_REGISTRY_URL";

/// Feast's environment variable with the whole of a feature_store.yaml.
pub(super) const YAML_VARIABLE: &str = "FEATURE_STORE_YAML_BASE64";

/// Feast's environment variable with the path of a feature_store.yaml.
pub(super) const PATH_VARIABLE: &str = "FEAST_FS_YAML_FILE_PATH";

// The variables are not left to clap: its help would show a password in them, and exported ones would conflict with `-c`.
/// Which registry a command is about.
#[derive(Debug, Args)]
pub(crate) struct Location {
    /// Read the registry's settings from a feature_store.yaml, as Feast does; of a folder, from the one in it.
    #[arg(short, long, value_name = "FILE", conflicts_with = REGISTRY)]
    config: Option<PathBuf>,

    /// The registry's URL: sqlite:///registry.db is in the working folder, sqlite:////var/lib/feast/registry.db is not.
    ///
    /// Everybody on this machine can read a password that is given here, in the list of processes: give it in the
    /// environment variable FEAST_REGISTRY_URL, or in a feature_store.yaml with `-c`.
    ///
    /// The first of these that is there counts: `-c` or `--registry`; FEAST_REGISTRY_URL; Feast's environment variables
    /// FEATURE_STORE_YAML_BASE64 (a whole feature_store.yaml) and FEAST_FS_YAML_FILE_PATH (the path of one);
    /// sqlite:///registry.db (of `run`: the feature_store.yaml of the folder).
    #[arg(long, id = REGISTRY, value_name = "URL")]
    registry: Option<String>,

    /// What the URL is called where it is not what `--registry` says.
    #[arg(skip)]
    called: Option<&'static str>,

    /// The folder of a repository, where it is looked for as Feast's command does.
    #[arg(skip)]
    repository: Option<PathBuf>,
}

/// A registry that was opened to be looked at.
pub(crate) struct Opened {
    /// The registry.
    pub(crate) registry: Registry,
    /// The project that the feature_store.yaml is for.
    pub(crate) project: Option<String>,
    /// Whether the registry was removed with its last project, and only its journal is left.
    pub(crate) is_removed: bool,
    /// What it is to be opened with for writing.
    config: RegistryConfig,
    schemes: Schemes,
}

impl Location {
    /// The registry of a URL that is an argument of its own, which is called so where something is wrong with it.
    pub(crate) fn of_url(url: String, called: &'static str) -> Self {
        Self { config: None, registry: Some(url), called: Some(called), repository: None }
    }

    /// The registry that Feast's command takes in the folder of a repository, where `-f` names this file: that of
    /// FEATURE_STORE_YAML_BASE64; or of the file, or of FEAST_FS_YAML_FILE_PATH; or of feature_store.yaml in the folder. What is relative
    /// in a file is so to the folder.
    pub(crate) fn of_repository(folder: PathBuf, file: Option<PathBuf>) -> Self {
        Self { config: file, registry: None, called: None, repository: Some(folder) }
    }

    /// The same, but where neither an option nor FEAST_REGISTRY_URL names a registry it is the one that Feast's command takes in this folder.
    pub(crate) fn or_of_repository(self, folder: &Path) -> Self {
        let is_named = self.config.is_some() || self.registry.is_some() || variable(URL_VARIABLE).is_some();
        if is_named { self } else { Self::of_repository(folder.to_owned(), None) }
    }

    /// The text of the feature_store.yaml that Feast would read, in this folder if nothing names another, and what it is from. `None`:
    /// there is none.
    pub(crate) fn feature_store(&self, folder: &Path) -> Result<Option<(String, String)>> {
        let feature_store = match self.source() {
            Some(Source::FeatureStore(named)) => named,
            _ if FeatureStore::is_named() || folder.join(FEATURE_STORE).exists() => {
                FeatureStore::of_repository(folder, None)
            }
            _ => return Ok(None),
        };
        feature_store.text().map(Some)
    }

    /// What to open, and the project that the feature_store.yaml is for. What its author may not know is told with `warn`.
    pub(crate) fn read(&self, cli: &Cli, warn: impl Fn(&str)) -> Result<FeatureStoreConfig> {
        let config = self.inspect(cli).into_config()?;
        config.warnings.iter().for_each(|warning| warn(&text::clean(&warning.to_string())));
        Ok(config)
    }

    /// What the first source says that there is, with all that is odd about it.
    pub(crate) fn inspect(&self, cli: &Cli) -> Inspection {
        match self.source() {
            Some(Source::FeatureStore(feature_store)) => feature_store.inspect(),
            Some(Source::Url(url, called)) => of_value(&url, called, of_url),
            None if has_default(&cli.schemes) => of_url(DEFAULT_URL, "the built-in default"),
            None => {
                let example = cli.schemes.examples().next().unwrap_or_default();
                let problem = format!("name the registry with `--registry`, as {example}");
                Inspection::of_error(Finding::new("the command line", problem))
            }
        }
    }

    /// The first source that there is.
    fn source(&self) -> Option<Source> {
        if let Some(folder) = &self.repository {
            Some(Source::FeatureStore(FeatureStore::of_repository(folder, self.config.clone())))
        } else if let Some(path) = &self.config {
            Some(Source::FeatureStore(FeatureStore::File(path.clone(), None)))
        } else if let Some(url) = &self.registry {
            Some(Source::Url(url.into(), self.called.unwrap_or("--registry")))
        } else if let Some(url) = variable(URL_VARIABLE) {
            Some(Source::Url(url, URL_VARIABLE))
        } else {
            FeatureStore::is_named().then(|| Source::FeatureStore(FeatureStore::of_repository(Path::new(""), None)))
        }
    }

    /// Opens the registry to look at it: no file and no table is made.
    pub(crate) async fn open(&self, cli: &Cli) -> Result<Opened> {
        let unopened = self.unopened(cli)?;
        match cli.schemes.open_read_only(&unopened.config).await {
            Ok(registry) => Ok(unopened.with(registry)),
            Err(error) => Err(unopened.explain(error)),
        }
    }

    /// Opens the registry to look at its history, which outlives its last project: if nothing but the journal is left, there is
    /// nothing else to be seen. Nothing is made.
    pub(crate) async fn open_history(&self, cli: &Cli) -> Result<Opened> {
        let unopened = self.unopened(cli)?;
        let error = match cli.schemes.open_read_only(&unopened.config).await {
            Ok(registry) => return Ok(unopened.with(registry)),
            Err(error) => error,
        };
        if error.kind() != ErrorKind::SchemaMissing {
            return Err(unopened.explain(error));
        }
        let mut config = unopened.config.clone();
        config.schema_mode = SchemaMode::Skip;
        let left = async {
            let registry = cli.schemes.open_read_only(&config).await?;
            Ok::<_, feast_registry::Error>((registry.journal_span().await?.is_some(), registry))
        };
        match left.await {
            Ok((true, registry)) => Ok(Opened { is_removed: true, ..unopened.with(registry) }),
            _ => Err(unopened.explain(error)),
        }
    }

    fn unopened(&self, cli: &Cli) -> Result<Unopened> {
        let FeatureStoreConfig { project, registry: mut config, .. } = self.read(cli, output::warn)?;
        // A command looks once, at what is stored: nothing is to be read for it in the background.
        config.cache = CacheConfig::default();
        Ok(Unopened { project, config, schemes: cli.schemes.clone() })
    }
}

/// What says which registry it is.
enum Source {
    FeatureStore(FeatureStore),
    /// A URL, and what it is called.
    Url(OsString, &'static str),
}

/// Where a feature_store.yaml is.
enum FeatureStore {
    /// In a file, or in this folder; and what paths in it are relative to, if it is another folder than its own.
    File(PathBuf, Option<PathBuf>),
    /// In the value of FEATURE_STORE_YAML_BASE64.
    Encoded(OsString),
}

impl FeatureStore {
    /// Whether one of Feast's variables names one.
    fn is_named() -> bool {
        variable(YAML_VARIABLE).is_some() || variable(PATH_VARIABLE).is_some()
    }

    /// The one that Feast's command reads in the folder of a repository, where `-f` names this file.
    fn of_repository(folder: &Path, file: Option<PathBuf>) -> Self {
        if let Some(encoded) = variable(YAML_VARIABLE) {
            return Self::Encoded(encoded);
        }
        let path = file.or_else(|| variable(PATH_VARIABLE).map(PathBuf::from));
        // To Feast, what is relative in it is so to the folder that it works in, wherever the file is.
        Self::File(path.unwrap_or_else(|| folder.join(FEATURE_STORE)), Some(folder.to_owned()))
    }

    fn inspect(self) -> Inspection {
        match self {
            Self::File(path, base) => Inspection::of_file(&path, base.as_deref()),
            Self::Encoded(encoded) => of_value(&encoded, YAML_VARIABLE, of_base64),
        }
    }

    /// Its text, and what it is from.
    fn text(self) -> Result<(String, String)> {
        match self {
            Self::File(path, _) => {
                let path = if path.is_dir() { path.join(FEATURE_STORE) } else { path };
                let origin = path.display().to_string();
                let text = std::fs::read_to_string(&path).with_context(|| format!("{origin} cannot be read"))?;
                Ok((text, origin))
            }
            Self::Encoded(encoded) => {
                let text = encoded.to_str().and_then(decoded);
                Ok((text.with_context(|| format!("{YAML_VARIABLE}: {NOT_BASE64}"))?, YAML_VARIABLE.to_owned()))
            }
        }
    }
}

/// What is to be opened.
struct Unopened {
    project: Option<String>,
    config: RegistryConfig,
    schemes: Schemes,
}

impl Unopened {
    fn with(self, registry: Registry) -> Opened {
        let Self { project, config, schemes } = self;
        Opened { registry, project, is_removed: false, config, schemes }
    }

    /// Why a registry cannot be opened, with a remedy.
    fn explain(&self, error: feast_registry::Error) -> Error {
        match error.kind() {
            // Only of this kind is it that there is no registry; any other error has its own remedy.
            ErrorKind::SchemaMissing => Error::new(error).context(format!(
                "there is no registry in {}, or not all of it: it was never made, or its tables went with its last project. A \
                 server makes what is missing, when it starts or at the next write; {}",
                self.config.url,
                remedy()
            )),
            _ => error.into(),
        }
    }
}

/// How another registry is named.
fn remedy() -> &'static str {
    match Path::new(FEATURE_STORE).exists() {
        true => "`-c .` names the one of the feature_store.yaml in this folder",
        false => "`--registry` or `-c` names another",
    }
}

/// Whether this program has a registry when nothing says which.
pub(super) fn has_default(schemes: &Schemes) -> bool {
    schemes.names().any(|name| name == "sqlite")
}

/// The value of an environment variable, if it has one.
fn variable(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

/// What the value of an environment variable says.
fn of_value(value: &OsStr, name: &str, read: fn(&str, &str) -> Inspection) -> Inspection {
    match value.to_str() {
        Some(value) => read(value, name),
        None => Inspection::of_error(Finding::new(name, "it is not UTF-8 text")),
    }
}

fn of_url(url: &str, origin: &str) -> Inspection {
    match url.parse::<RegistryUrl>() {
        Ok(url) => Inspection::of_config(FeatureStoreConfig::new(RegistryConfig::new(url)), origin),
        Err(error) => Inspection::of_error(Finding::new(origin, error.to_string())),
    }
}

const NOT_BASE64: &str = "it is not the base64 form of a feature_store.yaml";

fn of_base64(encoded: &str, origin: &str) -> Inspection {
    match decoded(encoded) {
        // Feast would take it for relative to a folder that it makes anew each time.
        Some(text) => Inspection::of_text_with_variables(&text, origin, PathBuf::new()),
        None => Inspection::of_error(Finding::new(origin, NOT_BASE64)),
    }
}

/// As Python's decoder, this takes line breaks; unlike it, no other characters that do not belong there.
fn decoded(encoded: &str) -> Option<String> {
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let encoded: String = encoded.split_whitespace().collect();
    GeneralPurpose::new(&STANDARD, config).decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok())
}

impl Opened {
    /// Opens it again, to look at what there is by now: files and tables may be gone that are still open here.
    pub(crate) async fn look_again(self) -> Result<Self> {
        self.registry.close().await?;
        Ok(Self { registry: self.schemes.open_read_only(&self.config).await?, ..self })
    }

    /// Opens it again, to write to it, as its configuration says but for the cache, which no command needs.
    pub(crate) async fn into_writable(self) -> Result<Registry> {
        // A store that is open only once is not to be open any more.
        self.registry.close().await?;
        drop(self.registry);
        Ok(self.schemes.open(&self.config).await?)
    }

    /// Whether it is only to be read, as its configuration says.
    pub(crate) fn is_read_only(&self) -> Result<bool> {
        Ok(self.schemes.is_read_only(&self.config)?)
    }

    /// How much of a journal is to be kept, as its configuration says.
    pub(crate) fn retention(&self) -> Retention {
        self.config.journal
    }

    /// Whether deleting the last project removes the storage too.
    pub(crate) fn removes_storage(&self) -> bool {
        self.config.schema_mode == SchemaMode::Auto && !self.config.keep_tables
    }
}
