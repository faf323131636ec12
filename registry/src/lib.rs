//! A Feast feature registry, opened from Feast's own configuration.
//!
//! This crate puts [`feast_registry_core`] and the storage backends together. Which backends are compiled in is a matter of
//! its Cargo features:
//!
//! | feature | URLs | backend |
//! |---|---|---|
//! | `file` (default) | a path, `file:///path` | `registry-file` |
//! | `s3`, `gcs`, `azure` | `s3://bucket/path`, `gs://bucket/path`, `az://container/path`, `abfss://…` | the same |
//! | `sqlite` (default) | `sqlite:///file.db` | `registry-sqlite` |
//! | `postgres` | `postgresql://user:password@host/database` | `registry-postgres` |
//! | `mysql` | `mysql://user:password@host/database` | `registry-mysql` |
//! | always | `memory://` | [`MemoryBackend`] |
//!
//! ```no_run
//! # async fn example() -> feast_registry::Result<()> {
//! use feast_registry::proto::core::FeatureView;
//! use feast_registry::{Freshness, RegistryConfig};
//!
//! let config = RegistryConfig::new("sqlite:///registry.db".parse()?);
//! let registry = feast_registry::open(&config).await?;
//! let view: FeatureView = registry.get_message("rides", "driver_stats", Freshness::Cached).await?;
//! # Ok(())
//! # }
//! ```
//!
//! A backend of another crate needs no feature: its [`Scheme`] is added to [`Schemes`], and its URLs then stand where these do.
//!
//! ```
//! use feast_registry::{MemoryScheme, RegistryConfig, Schemes};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> feast_registry::Result<()> {
//! let schemes = Schemes::default().with(MemoryScheme); // here the other crate's
//! let registry = schemes.open(&RegistryConfig::new("memory://".parse()?)).await?;
//! assert_eq!(registry.location(), "memory://");
//! # Ok(())
//! # }
//! ```
//!
//! Without any configuration, a [`Backend`] is handed to [`Registry::open`].

#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

pub mod config;
mod known;
mod mistaken;
mod schemes;

pub use feast_registry_core::config::{
    CacheConfig, CacheMode, ObjectStoreConfig, PoolConfig, RegistryConfig, RegistryUrl, SchemaMode,
};
pub use feast_registry_core::*;
#[cfg(any(feature = "file", feature = "s3", feature = "gcs", feature = "azure"))]
pub use feast_registry_file::{FileBackend, FileScheme};
#[cfg(feature = "mysql")]
pub use feast_registry_mysql::{MySqlBackend, MySqlScheme};
#[cfg(feature = "postgres")]
pub use feast_registry_postgres::{PostgresBackend, PostgresScheme};
#[cfg(feature = "sqlite")]
pub use feast_registry_sqlite::{JournalMode, SqliteBackend, SqliteOptions, SqliteScheme};
pub use schemes::Schemes;

/// Opens the registry that a configuration names with the backends that are compiled in: [`Schemes::open`].
///
/// # Errors
/// As [`Schemes::open`].
pub async fn open(config: &RegistryConfig) -> Result<Registry> {
    Schemes::default().open(config).await
}

/// Opens the registry that a configuration names, to read from it: [`Schemes::open_read_only`].
///
/// # Errors
/// As [`Schemes::open_read_only`].
pub async fn open_read_only(config: &RegistryConfig) -> Result<Registry> {
    Schemes::default().open_read_only(config).await
}

/// The examples of the README are compiled with those of the documentation.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
