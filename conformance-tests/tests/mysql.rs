//! The suite on MariaDB and on MySQL, in a database of its own for each test.

use std::env;
use std::process::Command;
use std::sync::Arc;

use async_trait::async_trait;
use feast_registry_conformance::{Exception, Factory, Link, Storage, conformance_tests, this_program};
use feast_registry_core::config::{RegistryUrl, SchemaMode};
use feast_registry_core::{Backend, Result};
use feast_registry_mysql::MySqlBackend;

mod databases;

use databases::STORAGE;

struct Server(&'static str);

#[async_trait]
impl Factory for Server {
    async fn create(&self) -> Arc<dyn Storage> {
        let database = databases::mysql::Database::create(self.0).await;
        Arc::new(Own(database))
    }

    fn exceptions(&self) -> Vec<Exception> {
        databases::exceptions(self.0)
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

    fn worker(&self) -> Option<Command> {
        let mut command = this_program("worker");
        command.env(STORAGE, &self.0.url);
        Some(command)
    }

    async fn remove(&self) {
        self.0.remove().await;
    }
}

/// What the tests of several processes start. It has nothing to do in an ordinary run.
#[test]
fn worker() {
    feast_registry_conformance::worker(async || open(&env::var(STORAGE).expect("the URL to open"), SchemaMode::Auto));
}

mod mariadb {
    use super::*;

    conformance_tests!(Server("MARIADB"));
}

mod mysql {
    use super::*;

    conformance_tests!(Server("MYSQL"));
}
