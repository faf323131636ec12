//! The command line: what can be said on it, and the commands.

mod serve;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use registry::config::FeatureStoreConfig;
use registry::{RegistryConfig, RegistryUrl};

/// A registry for the Feast feature store that loses nothing.
#[derive(Debug, Parser)]
#[command(name = "feast-registry", version, arg_required_else_help = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Serve),
}

/// Which registry a command is about.
#[derive(Debug, Args)]
pub(crate) struct Location {
    /// Read the registry's settings from a feature_store.yaml, as Feast does.
    #[arg(short, long, value_name = "FILE", conflicts_with = "registry")]
    config: Option<PathBuf>,

    /// The registry's URL, as sqlite:///registry.db (relative) or sqlite:////var/lib/feast/registry.db (absolute).
    #[arg(long, value_name = "URL", env = "FEAST_REGISTRY_URL", default_value = "sqlite:///registry.db")]
    registry: String,
}

impl Location {
    /// What to open, and the project that the feature_store.yaml is for.
    fn read(&self) -> Result<FeatureStoreConfig> {
        match &self.config {
            Some(path) => Ok(FeatureStoreConfig::load(path)?),
            None => {
                let url: RegistryUrl = self.registry.parse().context("--registry")?;
                Ok(FeatureStoreConfig { project: None, registry: RegistryConfig::new(url) })
            }
        }
    }
}

/// Runs a command.
pub(crate) fn run(arguments: Arguments) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start")?;
    runtime.block_on(async {
        match arguments.command {
            Command::Serve(serve) => serve.run().await,
        }
    })
}
