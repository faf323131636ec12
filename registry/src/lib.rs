//! A Feast feature registry, opened from Feast's own configuration.
//!
//! This crate puts [`registry_core`] and the storage backends together. Which backends are compiled in is a matter of
//! its Cargo features:
//!
//! | feature | URLs | backend |
//! |---|---|---|
//! | `sqlite` (default) | `sqlite:///file.db` | `registry-sqlite` |
//! | always | `memory://` | [`MemoryBackend`] |
//!
//! ```no_run
//! # async fn example() -> registry::Result<()> {
//! use registry::proto::core::FeatureView;
//! use registry::{Freshness, RegistryConfig};
//!
//! let config = RegistryConfig::new("sqlite:///registry.db".parse()?);
//! let registry = registry::open(&config).await?;
//! let view: FeatureView = registry.get_message("rides", "driver_stats", Freshness::Cached).await?;
//! # Ok(())
//! # }
//! ```
//!
//! A backend of your own needs no feature: implement [`Backend`] and hand it to [`Registry::open`].

#![forbid(unsafe_code)]

pub mod config;

use std::sync::Arc;

pub use registry_core::config::{CacheConfig, CacheMode, PoolConfig, RegistryConfig, RegistryUrl, SchemaMode};
pub use registry_core::*;
#[cfg(feature = "sqlite")]
pub use registry_sqlite::SqliteBackend;

/// Opens the registry that a configuration names.
///
/// # Errors
/// `InvalidConfig` when no backend for the URL is compiled in; else what [`Registry::open`] says.
pub async fn open(config: &RegistryConfig) -> Result<Registry> {
    let options = RegistryOptions {
        schema_mode: config.schema_mode,
        cache: config.cache,
        purge_feast_metadata: config.purge_feast_metadata,
    };
    Registry::open(open_backend(config)?, options).await
}

/// The URL schemes that Feast users have, each with the Cargo feature of this crate that serves it.
const SCHEMES: [(&str, Option<&str>); 9] = [
    ("sqlite", Some("sqlite")),
    ("postgresql", None),
    ("mysql", None),
    ("mariadb", None),
    ("file", None),
    ("s3", None),
    ("gs", None),
    ("az", None),
    ("abfss", None),
];

fn open_backend(config: &RegistryConfig) -> Result<Arc<dyn Backend>> {
    match config.url.scheme() {
        "memory" => Ok(Arc::new(MemoryBackend::new())),
        #[cfg(feature = "sqlite")]
        "sqlite" => open_sqlite(config),
        scheme => Err(missing_backend(scheme, &config.url)),
    }
}

#[cfg(feature = "sqlite")]
fn open_sqlite(config: &RegistryConfig) -> Result<Arc<dyn Backend>> {
    if let Some(replica) = config.read_url.as_ref().filter(|replica| **replica != config.url) {
        return Err(Error::config(format!(
            "`read_path` is `{replica}`, but a SQLite registry has no replicas; leave it out"
        )));
    }
    Ok(Arc::new(match config.url.database() {
        None | Some(":memory:") => SqliteBackend::in_memory()?,
        Some(path) => SqliteBackend::open(path)?,
    }))
}

fn missing_backend(scheme: &str, url: &RegistryUrl) -> Error {
    let compiled_in = if cfg!(feature = "sqlite") { "sqlite, memory" } else { "memory" };
    let remedy = match SCHEMES.iter().find(|(known, _)| *known == scheme) {
        Some((_, Some(feature))) => format!("add the Cargo feature `{feature}` of the crate `registry`"),
        Some((_, None)) => "this version has no backend for it yet".to_owned(),
        None => "this is not a kind of URL that Feast knows".to_owned(),
    };
    Error::config(format!("the registry `{url}` cannot be opened: {remedy}. Compiled in are: {compiled_in}"))
}

#[cfg(test)]
mod open_tests {
    use super::*;

    #[tokio::test]
    async fn a_registry_is_opened_by_its_url() {
        let config = RegistryConfig::new("memory://".parse().expect("a URL"));
        assert_eq!(open(&config).await.expect("a registry").location(), "memory://");
    }

    #[tokio::test]
    async fn a_missing_backend_is_named_with_the_remedy_and_without_the_password() {
        let config = RegistryConfig::new("postgresql://me:secret@db/feast".parse().expect("a URL"));
        let error = open(&config).await.err().expect("no backend").to_string();
        assert!(error.contains("postgresql://me:***@db/feast") && error.contains("Compiled in are"), "{error}");
    }

    #[cfg(not(feature = "sqlite"))]
    #[tokio::test]
    async fn a_backend_that_was_left_out_names_its_feature() {
        let config = RegistryConfig::new("sqlite:///registry.db".parse().expect("a URL"));
        let error = open(&config).await.err().expect("no backend").to_string();
        assert!(error.contains("Cargo feature `sqlite`"), "{error}");
    }
}
