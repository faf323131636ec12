//! The suite on PostgreSQL, in a schema of its own for each test.

use std::env;
use std::process::Command;
use std::sync::Arc;

use async_trait::async_trait;
use conformance_tests::{Exception, Factory, Storage, conformance_tests, this_program};
use registry_core::config::{PoolConfig, RegistryUrl};
use registry_core::{Backend, Result};
use registry_postgres::PostgresBackend;

mod databases;

use databases::STORAGE;

/// Tells a worker that commits are to be kept apart by SERIALIZABLE alone.
const SERIALIZABLE: &str = "CONFORMANCE_SERIALIZABLE";

struct Postgres {
    service: &'static str,
    serializable: bool,
}

#[async_trait]
impl Factory for Postgres {
    async fn create(&self) -> Arc<dyn Storage> {
        let schema = databases::fresh_name();
        // Through a pooler too: what makes the schema need not go the way that the tests go.
        databases::postgres(&format!("DROP SCHEMA IF EXISTS {schema} CASCADE; CREATE SCHEMA {schema}")).await;
        let url = databases::service(self.service);
        let link = if url.query().is_empty() { '?' } else { '&' };
        let text = env::var(format!("FEAST_REGISTRY_TEST_{}_URL", self.service)).expect("the URL was there just now");
        Arc::new(Schema {
            url: format!("{text}{link}options=-csearch_path%3D{schema}"),
            schema,
            serializable: self.serializable,
        })
    }

    fn exceptions(&self) -> Vec<Exception> {
        databases::exceptions(self.service)
    }
}

struct Schema {
    url: String,
    schema: String,
    serializable: bool,
}

fn open(url: &str, serializable: bool) -> Result<Arc<dyn Backend>> {
    let url: RegistryUrl = url.parse()?;
    let pool = PoolConfig { serializable, ..databases::pool() };
    Ok(Arc::new(PostgresBackend::new(&url, &pool)?))
}

#[async_trait]
impl Storage for Schema {
    async fn open(&self) -> Result<Arc<dyn Backend>> {
        open(&self.url, self.serializable)
    }

    fn worker(&self) -> Option<Command> {
        let mut command = this_program("worker");
        command.env(STORAGE, &self.url).env(SERIALIZABLE, self.serializable.to_string());
        Some(command)
    }

    async fn remove(&self) {
        databases::postgres(&format!("DROP SCHEMA {} CASCADE", self.schema)).await;
    }
}

conformance_tests!(Postgres { service: "POSTGRES", serializable: false });

/// What the tests of several processes start. It has nothing to do in an ordinary run.
#[test]
fn worker() {
    conformance_tests::worker(async || {
        let serializable = env::var(SERIALIZABLE).is_ok_and(|value| value == "true");
        open(&env::var(STORAGE).expect("the URL to open"), serializable)
    });
}

/// The same tests as databases without advisory locks run them.
mod serializable {
    use super::*;

    conformance_tests!(Postgres { service: "POSTGRES", serializable: true });
}
