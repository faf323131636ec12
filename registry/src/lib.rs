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
//! A backend of your own needs no feature: implement [`Backend`] and hand it to [`Registry::open`].

#![forbid(unsafe_code)]

pub mod config;

use std::sync::Arc;

pub use feast_registry_core::config::{
    CacheConfig, CacheMode, ObjectStoreConfig, PoolConfig, RegistryConfig, RegistryUrl, SchemaMode,
};
pub use feast_registry_core::*;
#[cfg(any(feature = "file", feature = "s3", feature = "gcs", feature = "azure"))]
pub use feast_registry_file::FileBackend;
#[cfg(feature = "mysql")]
pub use feast_registry_mysql::MySqlBackend;
#[cfg(feature = "postgres")]
pub use feast_registry_postgres::PostgresBackend;
#[cfg(feature = "sqlite")]
pub use feast_registry_sqlite::SqliteBackend;

/// Opens the registry that a configuration names.
///
/// # Errors
/// `InvalidConfig` when no backend for the URL is compiled in; else what [`Registry::open`] says.
pub async fn open(config: &RegistryConfig) -> Result<Registry> {
    open_with(config, config.schema_mode, RegistryOptions::from(config)).await
}

/// Opens the registry that a configuration names, to read from it: nothing is made or changed, and writes are refused.
///
/// # Errors
/// As [`open`]; `SchemaMissing` when there is no registry, `InvalidConfig` when there is no such file.
pub async fn open_read_only(config: &RegistryConfig) -> Result<Registry> {
    #[cfg(feature = "sqlite")]
    if config.url.scheme() == "sqlite"
        && let Some(path) = config.url.database().filter(|path| *path != ":memory:")
        && !std::path::Path::new(path).exists()
    {
        return Err(Error::config(format!("there is no registry file `{path}`")));
    }
    open_with(config, looking_at(config.schema_mode), RegistryOptions::from(config).for_reading()).await
}

async fn open_with(config: &RegistryConfig, mode: SchemaMode, options: RegistryOptions) -> Result<Registry> {
    let replica = config.read_url.as_ref().filter(|replica| **replica != config.url);
    let replica = replica.map(|url| open_backend(url, config, looking_at(config.schema_mode))).transpose()?;
    Registry::open_with_replica(open_backend(&config.url, config, mode)?, replica, options).await
}

/// The same, but that nothing is made.
fn looking_at(mode: SchemaMode) -> SchemaMode {
    if mode == SchemaMode::Auto { SchemaMode::Verify } else { mode }
}

/// What [`migrate`] would change, in words.
///
/// # Errors
/// As [`open`], when the storage cannot be read.
pub async fn problems(config: &RegistryConfig) -> Result<Vec<String>> {
    match config.url.scheme() {
        #[cfg(feature = "mysql")]
        "mysql" | "mariadb" => MySqlBackend::new(&config.url, &config.pool, SchemaMode::Verify)?.problems().await,
        // It is opened for its errors alone.
        _ => open_read_only(config).await.map(|_| Vec::new()),
    }
}

/// Brings old tables up to date: in MySQL and MariaDB those that an older Feast made, which keep 64 KB of an object and
/// cannot tell names apart that differ in case or accents. Returns what was changed, in words. What is stored stays as it
/// is, and doing it again changes nothing.
///
/// # Errors
/// When the storage cannot be changed, or what is in it does not allow it.
pub async fn migrate(config: &RegistryConfig) -> Result<Vec<String>> {
    match config.url.scheme() {
        #[cfg(feature = "mysql")]
        "mysql" | "mariadb" => MySqlBackend::new(&config.url, &config.pool, SchemaMode::Verify)?.migrate().await,
        _ => problems(config).await,
    }
}

/// The URL schemes that Feast users have, each with the Cargo feature of this crate that serves it.
const SCHEMES: [(&str, Option<&str>); 10] = [
    ("sqlite", Some("sqlite")),
    ("postgresql", Some("postgres")),
    ("mysql", Some("mysql")),
    ("mariadb", Some("mysql")),
    ("file", Some("file")),
    ("s3", Some("s3")),
    ("gs", Some("gcs")),
    ("az", Some("azure")),
    ("abfss", Some("azure")),
    ("https", Some("azure")),
];

/// What the URL names; of the configuration, the rest.
fn open_backend(url: &RegistryUrl, config: &RegistryConfig, mode: SchemaMode) -> Result<Arc<dyn Backend>> {
    match url.scheme() {
        "memory" => Ok(Arc::new(MemoryBackend::new())),
        #[cfg(feature = "sqlite")]
        "sqlite" => open_sqlite(url, config, mode),
        #[cfg(feature = "postgres")]
        "postgresql" => Ok(Arc::new(PostgresBackend::new(url, &config.pool, mode)?.with_retention(config.journal))),
        #[cfg(feature = "mysql")]
        "mysql" | "mariadb" => Ok(Arc::new(MySqlBackend::new(url, &config.pool, mode)?.with_retention(config.journal))),
        #[cfg(feature = "file")]
        "file" => {
            let path = url.database().ok_or_else(|| Error::config("the path of the registry file is empty"))?;
            Ok(Arc::new(FileBackend::local(path, mode).with_retention(config.journal)))
        }
        #[cfg(feature = "s3")]
        "s3" => open_in_object_store(url, config, mode),
        #[cfg(feature = "gcs")]
        "gs" => open_in_object_store(url, config, mode),
        #[cfg(feature = "azure")]
        "az" | "abfss" | "https" => open_in_object_store(url, config, mode),
        scheme => Err(missing_backend(scheme, url)),
    }
}

#[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
fn open_in_object_store(url: &RegistryUrl, config: &RegistryConfig, mode: SchemaMode) -> Result<Arc<dyn Backend>> {
    let backend = FileBackend::in_object_store(url, &config.object_store, mode)?;
    Ok(Arc::new(backend.with_retention(config.journal)))
}

#[cfg(feature = "sqlite")]
fn open_sqlite(url: &RegistryUrl, config: &RegistryConfig, mode: SchemaMode) -> Result<Arc<dyn Backend>> {
    if let Some(replica) = config.read_url.as_ref().filter(|replica| **replica != config.url) {
        return Err(Error::config(format!(
            "`read_path` is `{replica}`, but a SQLite registry has no replicas; leave it out"
        )));
    }
    let backend = match url.database() {
        None | Some(":memory:") => SqliteBackend::in_memory()?,
        Some(path) => SqliteBackend::open(path, mode)?,
    };
    Ok(Arc::new(backend.with_retention(config.journal)))
}

fn missing_backend(scheme: &str, url: &RegistryUrl) -> Error {
    let backends = [
        ("file", cfg!(feature = "file")),
        ("s3", cfg!(feature = "s3")),
        ("gs", cfg!(feature = "gcs")),
        ("az, abfss", cfg!(feature = "azure")),
        ("sqlite", cfg!(feature = "sqlite")),
        ("postgresql", cfg!(feature = "postgres")),
        ("mysql, mariadb", cfg!(feature = "mysql")),
        ("memory", true),
    ];
    let compiled_in: Vec<&str> = backends.iter().filter(|(_, is_in)| *is_in).map(|(scheme, _)| *scheme).collect();
    let compiled_in = compiled_in.join(", ");
    let remedy = match SCHEMES.iter().find(|(known, _)| *known == scheme) {
        Some((_, Some(feature))) => format!("add the Cargo feature `{feature}` of the crate `feast-registry`"),
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
        let config = RegistryConfig::new("oracle://me:secret@db/feast".parse().expect("a URL"));
        let error = open(&config).await.expect_err("no backend").to_string();
        assert!(error.contains("oracle://me:***@db/feast") && error.contains("Compiled in are"), "{error}");
    }

    #[cfg(feature = "sqlite")]
    #[tokio::test]
    async fn opening_to_read_makes_nothing_and_changes_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("registry.db");
        let config = RegistryConfig::new(format!("sqlite:///{}", file.display()).parse().expect("a URL"));
        let missing = open_read_only(&config).await.expect_err("no file");
        assert_eq!(missing.kind(), ErrorKind::InvalidConfig, "{missing}");
        std::fs::write(&file, b"").expect("an empty file");
        assert_eq!(open_read_only(&config).await.expect_err("no tables").kind(), ErrorKind::SchemaMissing);
        assert_eq!(std::fs::read(&file).expect("the file"), b"");
        drop(open(&config).await.expect("a registry"));
        let before = std::fs::read(&file).expect("the file");
        let registry = open_read_only(&config).await.expect("a registry");
        let project = proto::core::Project {
            spec: Some(proto::core::ProjectSpec { name: "rides".to_owned(), ..Default::default() }),
            meta: None,
        };
        assert_eq!(registry.apply("rides", &project).await.expect_err("a write").kind(), ErrorKind::ReadOnly);
        assert_eq!(std::fs::read(&file).expect("the file"), before);
    }

    #[cfg(feature = "sqlite")]
    #[tokio::test]
    async fn tables_that_are_made_later_are_not_asked_for_when_opening() {
        let folder = tempfile::tempdir().expect("a folder");
        let url = format!("sqlite:///{}", folder.path().join("registry.db").display());
        let mut config = RegistryConfig::new(url.parse().expect("a URL"));
        config.schema_mode = SchemaMode::Skip;
        let early = open(&config).await.expect("a registry without tables");
        assert_eq!(early.ping().await.expect_err("no tables").kind(), ErrorKind::SchemaMissing);
        config.schema_mode = SchemaMode::Auto;
        drop(open(&config).await.expect("a registry"));
        early.ping().await.expect("the tables are there now");
    }

    #[cfg(not(feature = "sqlite"))]
    #[tokio::test]
    async fn a_backend_that_was_left_out_names_its_feature() {
        let config = RegistryConfig::new("sqlite:///registry.db".parse().expect("a URL"));
        let error = open(&config).await.expect_err("no backend").to_string();
        assert!(error.contains("Cargo feature `sqlite`"), "{error}");
    }
}
