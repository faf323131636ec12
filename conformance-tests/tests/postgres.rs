//! The suite on PostgreSQL, in a schema of its own for each test; through PgBouncer, in a database of its own.

use std::env;
use std::process::ExitCode;
use std::sync::Arc;

use async_trait::async_trait;
use feast_registry_conformance::{Exception, Factory, Link, Storage, Suite, run};
use feast_registry_core::config::{RegistryUrl, SchemaMode};
use feast_registry_core::{Backend, Result};
use feast_registry_postgres::PostgresBackend;

mod databases;

/// PgBouncer in its mode `transaction`: each transaction may have another session of the server.
const PGBOUNCER: &str = "PGBOUNCER";

fn main() -> ExitCode {
    let suite = |name: &str, service, serializable| {
        Suite::new(name, Postgres { service, serializable }).left_out(databases::without(service))
    };
    run([
        suite("postgres", "POSTGRES", false),
        // As databases without advisory locks run them.
        suite("postgres_serializable", "POSTGRES", true),
        suite("pgbouncer", PGBOUNCER, false),
    ])
}

struct Postgres {
    service: &'static str,
    /// Whether commits are kept apart by SERIALIZABLE alone.
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
        let order = "the order that SERIALIZABLE gives to commits that overlap, PostgreSQL tells nobody; `Limits::unkept` says so";
        let of_journal = Exception::new("journal::its_order_is_one_of_the_commits", order);
        if self.serializable { vec![of_journal] } else { Vec::new() }
    }

    async fn open_at(&self, address: &str) -> Result<Arc<dyn Backend>> {
        open(address, self.serializable, SchemaMode::Auto)
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

    fn address(&self) -> Option<String> {
        Some(self.url.clone())
    }

    async fn remove(&self) {
        databases::postgres(&self.remove).await;
    }
}
