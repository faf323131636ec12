//! The suite on PostgreSQL, in a schema of its own for each test; through PgBouncer, in a database of its own.

use std::env;
use std::process::Command;
use std::sync::Arc;

use async_trait::async_trait;
use feast_registry_conformance::{Exception, Factory, Link, Storage, conformance_tests, this_program};
use feast_registry_core::config::{RegistryUrl, SchemaMode};
use feast_registry_core::{Backend, Result};
use feast_registry_postgres::PostgresBackend;

mod databases;

use databases::STORAGE;

/// Tells a worker that commits are to be kept apart by SERIALIZABLE alone.
const SERIALIZABLE: &str = "CONFORMANCE_SERIALIZABLE";

/// PgBouncer in its mode `transaction`: each transaction may have another session of the server.
const PGBOUNCER: &str = "PGBOUNCER";

struct Postgres {
    service: &'static str,
    serializable: bool,
}

#[async_trait]
impl Factory for Postgres {
    async fn create(&self) -> Arc<dyn Storage> {
        let name = databases::fresh_name();
        let url = env::var(format!("FEAST_REGISTRY_TEST_{}_URL", self.service)).unwrap_or_default();
        let of_service = databases::service(self.service);
        let (url, remove) = if self.service == PGBOUNCER {
            // It lets no client choose the schema.
            databases::postgres(&format!("CREATE DATABASE {name}")).await;
            let (server, _) = url.rsplit_once('/').expect("a URL with a database");
            (format!("{server}/{name}"), format!("DROP DATABASE {name} WITH (FORCE)"))
        } else {
            databases::postgres(&format!("DROP SCHEMA IF EXISTS {name} CASCADE; CREATE SCHEMA {name}")).await;
            let link = if of_service.query().is_empty() { '?' } else { '&' };
            (format!("{url}{link}options=-csearch_path%3D{name}"), format!("DROP SCHEMA {name} CASCADE"))
        };
        Arc::new(Place { url, remove, serializable: self.serializable })
    }

    fn exceptions(&self) -> Vec<Exception> {
        databases::exceptions(self.service)
    }
}

/// A schema, or a database.
struct Place {
    url: String,
    /// What removes it.
    remove: String,
    serializable: bool,
}

fn open(url: &str, serializable: bool, mode: SchemaMode) -> Result<Arc<dyn Backend>> {
    let url: RegistryUrl = url.parse()?;
    let mut pool = databases::pool();
    pool.serializable = serializable;
    Ok(Arc::new(PostgresBackend::new(&url, &pool, mode)?))
}

#[async_trait]
impl Storage for Place {
    async fn open(&self, mode: SchemaMode) -> Result<Arc<dyn Backend>> {
        open(&self.url, self.serializable, mode)
    }

    async fn open_with_link(&self, mode: SchemaMode) -> Result<Option<(Arc<dyn Backend>, Arc<dyn Link>)>> {
        let (proxy, url) = databases::through_proxy(&self.url).await;
        Ok(Some((open(&url, self.serializable, mode)?, Arc::new(proxy))))
    }

    fn worker(&self) -> Option<Command> {
        let mut command = this_program("worker");
        command.env(STORAGE, &self.url).env(SERIALIZABLE, self.serializable.to_string());
        Some(command)
    }

    async fn remove(&self) {
        databases::postgres(&self.remove).await;
    }
}

conformance_tests!(Postgres { service: "POSTGRES", serializable: false });

/// What the tests of several processes start. It has nothing to do in an ordinary run.
#[test]
fn worker() {
    feast_registry_conformance::worker(async || {
        let serializable = env::var(SERIALIZABLE).is_ok_and(|value| value == "true");
        open(&env::var(STORAGE).expect("the URL to open"), serializable, SchemaMode::Auto)
    });
}

/// The same tests as databases without advisory locks run them.
mod serializable {
    use super::*;

    conformance_tests!(Postgres { service: "POSTGRES", serializable: true });
}

mod pgbouncer {
    use super::*;

    conformance_tests!(Postgres { service: PGBOUNCER, serializable: false });
}
