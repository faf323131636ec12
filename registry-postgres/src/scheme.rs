//! How a PostgreSQL registry is opened by its URL.

use std::sync::Arc;

use feast_registry_core::config::RegistryConfig;
use feast_registry_core::{Backend, Result, Scheme};

use crate::PostgresBackend;

/// Opens `postgresql://user:password@host/database`, with libpq's options.
#[derive(Debug, Clone, Copy, Default)]
pub struct PostgresScheme;

impl Scheme for PostgresScheme {
    fn names(&self) -> &'static [&'static str] {
        &["postgresql"]
    }

    fn example(&self) -> &'static str {
        "postgresql://user@host/database"
    }

    fn check(&self, config: &RegistryConfig) -> Result<()> {
        // It connects to nothing.
        self.open(config).map(drop)
    }

    fn open(&self, config: &RegistryConfig) -> Result<Arc<dyn Backend>> {
        let backend = PostgresBackend::new(&config.url, &config.pool, config.schema_mode)?;
        Ok(Arc::new(backend.with_retention(config.journal)))
    }
}
