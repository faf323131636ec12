//! Which registry a command is about, and opening it.

use std::env::{self, VarError};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use feast_registry::config::FeatureStoreConfig;
use feast_registry::{ErrorKind, Registry, RegistryConfig, RegistryUrl, SchemaMode};

/// The registry when nothing says another.
const DEFAULT_URL: &str = "sqlite:///registry.db";

/// The environment variable with the URL of the registry.
const URL_VARIABLE: &str = "FEAST_REGISTRY_URL";

// The variable is not left to clap: its help would show a password in it, and an exported one would conflict with `-c`.
/// Which registry a command is about.
#[derive(Debug, Args)]
pub(crate) struct Location {
    /// Read the registry's settings from a feature_store.yaml, as Feast does.
    #[arg(short, long, value_name = "FILE", conflicts_with = "registry")]
    config: Option<PathBuf>,

    /// The registry's URL: sqlite:///registry.db is in the working folder, sqlite:////var/lib/feast/registry.db is not.
    ///
    /// Without it and without `-c`, the environment variable FEAST_REGISTRY_URL counts, and without that,
    /// sqlite:///registry.db.
    #[arg(long, value_name = "URL")]
    registry: Option<String>,
}

/// A registry that was opened to be looked at.
pub(crate) struct Opened {
    /// The registry.
    pub(crate) registry: Registry,
    /// The project that the feature_store.yaml is for.
    pub(crate) project: Option<String>,
    /// What it is to be opened with for writing.
    config: RegistryConfig,
}

impl Location {
    /// What to open, and the project that the feature_store.yaml is for.
    pub(crate) fn read(&self) -> Result<FeatureStoreConfig> {
        match &self.config {
            Some(path) => Ok(FeatureStoreConfig::load(path)?),
            None => Ok(FeatureStoreConfig { project: None, registry: RegistryConfig::new(self.url()?) }),
        }
    }

    fn url(&self) -> Result<RegistryUrl> {
        if let Some(url) = &self.registry {
            return url.parse().context("--registry");
        }
        match env::var(URL_VARIABLE) {
            Ok(url) if !url.is_empty() => url.parse().context(URL_VARIABLE),
            Err(VarError::NotUnicode(_)) => bail!("{URL_VARIABLE}: it is not UTF-8 text"),
            _ => Ok(DEFAULT_URL.parse()?),
        }
    }

    /// Opens the registry to look at it: no file and no table is made.
    pub(crate) async fn open(&self) -> Result<Opened> {
        let FeatureStoreConfig { project, registry: config } = self.read()?;
        let registry = feast_registry::open_read_only(&config).await.map_err(|error| match error.kind() {
            ErrorKind::SchemaMissing => anyhow::Error::new(error).context(format!(
                "there is no registry in {}, or not all of it; `feast-registry serve` makes what is missing",
                config.url
            )),
            ErrorKind::InvalidConfig if error.to_string().starts_with("there is no registry file") => {
                anyhow::anyhow!("{error}; `feast-registry serve` makes one, and `--registry` names another")
            }
            _ => error.into(),
        })?;
        Ok(Opened { registry, project, config })
    }
}

impl Opened {
    /// Opens it again, to write to it, as its configuration says.
    pub(crate) async fn to_write(&self) -> Result<Registry> {
        Ok(feast_registry::open(&self.config).await?)
    }

    /// Whether deleting the last project removes the storage too.
    pub(crate) fn removes_storage(&self) -> bool {
        self.config.schema_mode == SchemaMode::Auto && !self.config.keep_tables
    }
}
