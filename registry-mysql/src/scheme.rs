//! How a registry in MySQL or MariaDB is opened by its URL.

use std::sync::Arc;

use async_trait::async_trait;
use feast_registry_core::config::{RegistryConfig, SchemaMode};
use feast_registry_core::{Backend, Result, Scheme};

use crate::MySqlBackend;

/// Opens `mysql://user:password@host/database` and `mariadb://…`, with the options that SQLAlchemy and PyMySQL have.
#[derive(Debug, Clone, Copy, Default)]
pub struct MySqlScheme;

#[async_trait]
impl Scheme for MySqlScheme {
    fn names(&self) -> &'static [&'static str] {
        &["mysql", "mariadb"]
    }

    fn example(&self) -> &'static str {
        "mysql://user@host/database"
    }

    fn check(&self, config: &RegistryConfig) -> Result<()> {
        // It connects to nothing.
        self.open(config).map(drop)
    }

    fn open(&self, config: &RegistryConfig) -> Result<Arc<dyn Backend>> {
        let backend = MySqlBackend::new(&config.url, &config.pool, config.schema_mode)?;
        Ok(Arc::new(backend.with_retention(config.journal)))
    }

    async fn problems(&self, config: &RegistryConfig) -> Result<Vec<String>> {
        tables(config)?.problems().await
    }

    async fn migrate(&self, config: &RegistryConfig) -> Result<Vec<String>> {
        tables(config)?.migrate().await
    }
}

/// To look at the tables that there are.
fn tables(config: &RegistryConfig) -> Result<MySqlBackend> {
    MySqlBackend::new(&config.url, &config.pool, SchemaMode::Verify)
}
