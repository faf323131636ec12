//! The suite on MariaDB and on MySQL, in a database of its own for each test.

use std::process::ExitCode;
use std::sync::Arc;

use async_trait::async_trait;
use feast_registry_conformance::{Exception, Factory, Link, Storage, Suite, run};
use feast_registry_core::config::{RegistryUrl, SchemaMode};
use feast_registry_core::{Backend, Result};
use feast_registry_mysql::MySqlBackend;

mod databases;

fn main() -> ExitCode {
    let suite = |name: &str, service| Suite::new(name, Server(service)).left_out(databases::without(service));
    run([suite("mariadb", "MARIADB"), suite("mysql", "MYSQL")])
}

struct Server(&'static str);

#[async_trait]
impl Factory for Server {
    async fn create(&self) -> Arc<dyn Storage> {
        let database = databases::mysql::Database::create(self.0).await;
        Arc::new(Own(database))
    }

    fn exceptions(&self) -> Vec<Exception> {
        Vec::new()
    }

    async fn open_at(&self, address: &str) -> Result<Arc<dyn Backend>> {
        open(address, SchemaMode::Auto)
    }
}

struct Own(databases::mysql::Database);

fn open(url: &str, mode: SchemaMode) -> Result<Arc<dyn Backend>> {
    let url: RegistryUrl = url.parse()?;
    Ok(Arc::new(MySqlBackend::new(&url, &databases::pool(), mode)?))
}

#[async_trait]
impl Storage for Own {
    async fn open(&self, mode: SchemaMode) -> Result<Arc<dyn Backend>> {
        open(&self.0.url, mode)
    }

    async fn open_with_link(&self, mode: SchemaMode) -> Result<Option<(Arc<dyn Backend>, Arc<dyn Link>)>> {
        let (proxy, url) = databases::through_proxy(&self.0.url).await;
        Ok(Some((open(&url, mode)?, Arc::new(proxy))))
    }

    fn address(&self) -> Option<String> {
        Some(self.0.url.clone())
    }

    async fn remove(&self) {
        self.0.remove().await;
    }
}
