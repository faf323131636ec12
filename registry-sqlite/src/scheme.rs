//! How a SQLite registry is opened by its URL.

use std::path::Path;
use std::sync::Arc;

use feast_registry_core::config::{RegistryConfig, RegistryUrl};
use feast_registry_core::{Backend, Error, ErrorKind, Result, Scheme};

use crate::{SqliteBackend, SqliteOptions};

/// Opens `sqlite:///registry.db`, with the options of [`SqliteOptions`]; without a path, or with `:memory:` for it, a database
/// in memory.
#[derive(Debug, Clone, Copy, Default)]
pub struct SqliteScheme;

impl Scheme for SqliteScheme {
    fn names(&self) -> &'static [&'static str] {
        &["sqlite"]
    }

    fn example(&self) -> &'static str {
        "sqlite:///registry.db"
    }

    fn check(&self, config: &RegistryConfig) -> Result<()> {
        SqliteOptions::of_url(&config.url)?;
        config.refuse_replica()
    }

    fn open(&self, config: &RegistryConfig) -> Result<Arc<dyn Backend>> {
        let mut options = SqliteOptions::of_url(&config.url)?;
        options.read_only |= config.read_only;
        let backend = match file(&config.url) {
            None => SqliteBackend::in_memory()?,
            Some(path) if config.read_only && !Path::new(path).exists() => {
                return Err(Error::new(ErrorKind::SchemaMissing, format!("there is no registry file `{path}`")));
            }
            Some(path) => SqliteBackend::open_with(path, config.schema_mode, &options)?,
        };
        Ok(Arc::new(backend.with_retention(config.journal)))
    }

    fn is_in_memory(&self, url: &RegistryUrl) -> bool {
        file(url).is_none()
    }

    fn is_read_only(&self, url: &RegistryUrl) -> bool {
        SqliteOptions::of_url(url).is_ok_and(|options| options.read_only)
    }
}

/// The path of the file, unless the database is in memory.
fn file(url: &RegistryUrl) -> Option<&str> {
    url.database().filter(|path| *path != ":memory:")
}
