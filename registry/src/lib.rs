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

#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

pub mod config;
mod mistaken;
mod schemes;

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
pub use feast_registry_sqlite::{JournalMode, SqliteBackend, SqliteOptions};

use schemes::missing_backend;

/// Opens the registry that a configuration names. One whose URL says that it is only to be read, as `mode=ro` of SQLite,
/// is opened by [`open_read_only`].
///
/// # Errors
/// `InvalidConfig` when no backend for the URL is compiled in, or when it names a file of another kind; else what
/// [`Registry::open`] says.
pub async fn open(config: &RegistryConfig) -> Result<Registry> {
    #[cfg(feature = "sqlite")]
    if config.url.scheme() == "sqlite" && SqliteOptions::of_url(&config.url)?.read_only {
        return open_read_only(config).await;
    }
    open_with(config, config.schema_mode, RegistryOptions::from(config)).await
}

/// Opens the registry that a configuration names, to read from it: nothing is made or changed, and writes are refused.
///
/// # Errors
/// As [`open`]; `SchemaMissing` when there is no registry.
pub async fn open_read_only(config: &RegistryConfig) -> Result<Registry> {
    #[cfg(feature = "sqlite")]
    if config.url.scheme() == "sqlite"
        && let Some(path) = config.url.database().filter(|path| *path != ":memory:")
        && !std::path::Path::new(path).exists()
    {
        return Err(Error::new(ErrorKind::SchemaMissing, format!("there is no registry file `{path}`")));
    }
    open_with(config, looking_at(config.schema_mode), RegistryOptions::from(config).for_reading()).await
}

async fn open_with(config: &RegistryConfig, mode: SchemaMode, options: RegistryOptions) -> Result<Registry> {
    if is_in_memory(&config.url) {
        tracing::warn!(
            "the registry is in memory: all of it is lost when this process ends; to keep it, give it a file, as \
             sqlite:///registry.db"
        );
    }
    let replica = config.read_url.as_ref().filter(|replica| **replica != config.url);
    let replica = replica.map(|url| open_backend(url, config, looking_at(config.schema_mode))).transpose()?;
    let opened =
        async { Registry::open_with_replica(open_backend(&config.url, config, mode)?, replica, options).await };
    opened.await.map_err(|error| mistaken::explain(error, &config.url))
}

/// Whether what a URL names is gone with the process.
fn is_in_memory(url: &RegistryUrl) -> bool {
    match url.scheme() {
        "memory" => true,
        "sqlite" => matches!(url.database(), None | Some(":memory:")),
        _ => false,
    }
}

/// Whether the URLs of a configuration can be, with their options. Nothing is opened, and no server is asked.
///
/// # Errors
/// `InvalidConfig`, as from [`open`]. It names the option that is not known, or has a value that cannot be.
pub fn check(config: &RegistryConfig) -> Result<()> {
    for url in [Some(&config.url), config.read_url.as_ref()].into_iter().flatten() {
        match url.scheme() {
            #[cfg(feature = "sqlite")]
            "sqlite" => SqliteOptions::of_url(url).map(|_| ())?,
            // These connect to nothing before they are asked for something.
            _ => open_backend(url, config, SchemaMode::Verify).map(|_| ())?,
        }
    }
    #[cfg(feature = "sqlite")]
    if config.url.scheme() == "sqlite" {
        refuse_replica(config)?;
    }
    Ok(())
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
        _ => Err(missing_backend(url)),
    }
}

#[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
fn open_in_object_store(url: &RegistryUrl, config: &RegistryConfig, mode: SchemaMode) -> Result<Arc<dyn Backend>> {
    let backend = FileBackend::in_object_store(url, &config.object_store, mode)?;
    Ok(Arc::new(backend.with_retention(config.journal)))
}

#[cfg(feature = "sqlite")]
fn open_sqlite(url: &RegistryUrl, config: &RegistryConfig, mode: SchemaMode) -> Result<Arc<dyn Backend>> {
    refuse_replica(config)?;
    let options = SqliteOptions::of_url(url)?;
    let backend = match url.database().filter(|_| !is_in_memory(url)) {
        None => SqliteBackend::in_memory()?,
        Some(path) => SqliteBackend::open_with(path, mode, &options)?,
    };
    Ok(Arc::new(backend.with_retention(config.journal)))
}

#[cfg(feature = "sqlite")]
fn refuse_replica(config: &RegistryConfig) -> Result<()> {
    match config.read_url.as_ref().filter(|replica| **replica != config.url) {
        None => Ok(()),
        Some(replica) => Err(Error::config(format!(
            "`read_path` is `{replica}`, but a SQLite registry has no replicas; leave it out"
        ))),
    }
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
        let config = RegistryConfig::new("postgres://me:secret@db/feast".parse().expect("a URL"));
        let error = open(&config).await.expect_err("no backend").to_string();
        assert!(error.contains("write `postgresql://` instead") && !error.contains("secret"), "{error}");
    }

    #[cfg(feature = "sqlite")]
    #[tokio::test]
    async fn opening_to_read_makes_nothing_and_changes_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("registry.db");
        let config = RegistryConfig::new(format!("sqlite:///{}", file.display()).parse().expect("a URL"));
        let missing = open_read_only(&config).await.expect_err("no file");
        assert_eq!(missing.kind(), ErrorKind::SchemaMissing, "{missing}");
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

    #[cfg(all(feature = "sqlite", feature = "file"))]
    #[tokio::test]
    async fn a_file_of_another_kind_is_named_with_what_to_write() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name).display().to_string();
        let config = |url: String| RegistryConfig::new(url.parse().expect("a URL"));
        drop(open(&config(format!("sqlite:///{}", path("sqlite.db")))).await.expect("a registry"));
        let registry = open(&config(path("file.db"))).await.expect("a registry");
        let project = proto::core::Project {
            spec: Some(proto::core::ProjectSpec { name: "rides".to_owned(), ..Default::default() }),
            meta: None,
        };
        registry.apply("rides", &project).await.expect("a project");
        drop(registry);
        std::fs::write(path("noise.db"), [0xff; 5000]).expect("a file");
        for (url, expected) in [
            (
                path("sqlite.db"),
                format!("is opened with `registry_type: sql` and `path: sqlite:///{}`", path("sqlite.db")),
            ),
            (
                format!("sqlite:///{}", path("file.db")),
                format!("`registry_type: file` and `path: {}`", path("file.db")),
            ),
            (format!("sqlite:///{}", path("noise.db")), "is not a SQLite database".to_owned()),
        ] {
            let config = config(url);
            for error in
                [open(&config).await.expect_err("another kind"), open_read_only(&config).await.expect_err("too")]
            {
                assert!(error.to_string().contains(&expected), "{error}");
            }
        }
        let kept = std::fs::read(path("sqlite.db")).expect("the file");
        assert!(kept.starts_with(b"SQLite format 3"), "it was written over");
    }

    #[cfg(feature = "sqlite")]
    #[tokio::test]
    async fn options_of_a_sqlite_url_count_or_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let config = |query: &str| {
            let url = format!("sqlite:///{}{query}", folder.path().join("registry.db").display());
            RegistryConfig::new(url.parse().expect("a URL"))
        };
        let project = proto::core::Project {
            spec: Some(proto::core::ProjectSpec { name: "rides".to_owned(), ..Default::default() }),
            meta: None,
        };
        // To be read only: nothing is made, and nothing is written.
        assert_eq!(open(&config("?mode=ro")).await.expect_err("no file").kind(), ErrorKind::SchemaMissing);
        let registry = open(&config("?check_same_thread=false&timeout=1")).await.expect("a registry");
        let reader = open(&config("?mode=ro")).await.expect("a registry");
        assert_eq!(reader.apply("rides", &project).await.expect_err("a write").kind(), ErrorKind::ReadOnly);
        registry.apply("rides", &project).await.expect("a write");
        for wrong in ["?moed=ro", "?mode=memory"] {
            let error = open(&config(wrong)).await.expect_err(wrong);
            assert_eq!(check(&config(wrong)).expect_err(wrong).to_string(), error.to_string());
        }
        check(&config("?mode=ro")).expect("a configuration that can be");
    }

    #[cfg(not(feature = "sqlite"))]
    #[tokio::test]
    async fn a_backend_that_was_left_out_names_its_feature() {
        let config = RegistryConfig::new("sqlite:///registry.db".parse().expect("a URL"));
        let error = open(&config).await.expect_err("no backend").to_string();
        assert!(error.contains("Cargo feature `sqlite`"), "{error}");
    }
}
