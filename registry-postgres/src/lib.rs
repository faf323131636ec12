//! A Feast feature registry in PostgreSQL, in exactly the tables of Feast's own SQL registry: Feast's `SqlRegistry` may
//! read and write the same database at the same time.
//!
//! A read is one statement: one round trip, and one state of the database. A commit is one round trip too: its
//! transaction is sent whole, with checks that make the database refuse the rest if an expectation does not hold.
//! Commits of several processes wait for one another at advisory locks of the keys they depend on, which hold for keys
//! that are absent too; so no two of them fail for each other's sake. Databases that are compatible with PostgreSQL but
//! have no such locks run commits at the isolation level SERIALIZABLE instead, as PostgreSQL does when
//! `isolation_level` says so.
//!
//! Statements are prepared once for each connection. Behind a pooler that may give each transaction another session, as
//! PgBouncer does, that would be wrong; it is recognized when connecting, and then nothing is prepared. No setting is needed
//! for that.
//!
//! ```no_run
//! use std::sync::Arc;
//! use feast_registry_core::config::PoolConfig;
//! use feast_registry_core::{Registry, RegistryOptions};
//! use feast_registry_postgres::PostgresBackend;
//!
//! # async fn open() -> feast_registry_core::Result<()> {
//! let url = "postgresql://feast:secret@db/feast?options=-csearch_path%3Dregistry".parse()?;
//! let backend = PostgresBackend::new(&url, &PoolConfig::default())?;
//! let registry = Registry::open(Arc::new(backend), RegistryOptions::default()).await?;
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod error;
mod locks;
mod options;
mod pool;
mod schema;
mod session;
mod tls;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use feast_registry_core::config::{PoolConfig, RegistryUrl, SchemaMode};
use feast_registry_core::{Backend, Commit, Limits, Outcome, Query, Record, Result};
use feast_registry_sql::{self as sql, Database, Dialect, Read, attempts};

use crate::error::Failure;
use crate::options::Options;
use crate::pool::{Connection, Pool};
use crate::session::{Session, plain};

/// PostgreSQL's own limit for one value, less some room for the rest of the message.
const VALUE_BYTES: usize = 1_000_000_000;

/// A registry in a PostgreSQL database.
#[derive(Debug)]
pub struct PostgresBackend {
    pool: Pool,
    is_serializable: bool,
    makes_tables: AtomicBool,
    engine: OnceLock<Engine>,
}

/// What a database that speaks PostgreSQL's protocol can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engine {
    /// Commits wait for one another at advisory locks.
    AdvisoryLocks,
    /// Commits run at SERIALIZABLE, and those that met are run again.
    Serializable,
}

impl Engine {
    pub(crate) fn has_advisory_locks(self) -> bool {
        self == Engine::AdvisoryLocks
    }

    /// How a transaction begins. With locks, each statement must see what was committed before it got them.
    pub(crate) fn begin(self) -> &'static str {
        match self {
            Engine::AdvisoryLocks => "BEGIN ISOLATION LEVEL READ COMMITTED",
            Engine::Serializable => "BEGIN ISOLATION LEVEL SERIALIZABLE",
        }
    }
}

impl PostgresBackend {
    /// A registry in the database of a URL, with libpq's options. Nothing is connected yet.
    ///
    /// For what the URL does not say, libpq's environment variables are looked at (`PGPASSWORD`, `PGSSLMODE`, …).
    ///
    /// # Errors
    /// `InvalidConfig` for options that are not known or not valid, and for certificates that cannot be read.
    pub fn new(url: &RegistryUrl, pool: &PoolConfig) -> Result<Self> {
        let options = Options::new(url, |name| std::env::var(name).ok())?;
        Ok(Self {
            pool: Pool::new(url.to_string(), options, *pool)?,
            is_serializable: pool.serializable,
            makes_tables: AtomicBool::new(false),
            engine: OnceLock::new(),
        })
    }

    fn location(&self) -> &str {
        &self.pool.location
    }

    /// A connection, and what the database behind it can do.
    async fn connection(&self) -> Result<(Connection, Engine), Failure> {
        let connection = self.pool.get().await?;
        if let Some(engine) = self.engine.get() {
            return Ok((connection, *engine));
        }
        if self.is_serializable {
            return Ok((connection, *self.engine.get_or_init(|| Engine::Serializable)));
        }
        let version = async |session: Session<'_>| {
            let rows = session.run_all(&[plain("SELECT version()")]).await?.remove(0);
            let version = rows.first().map(|row| row.try_get::<_, String>(0)).transpose();
            version.map(Option::unwrap_or_default).map_err(|error| session.failure(error))
        };
        let version = self.pool.within(connection, version).await?;
        // Aurora and AlloyDB are PostgreSQL in this.
        let lacks_locks = ["CockroachDB", "-YB-", "Yugabyte"].iter().any(|engine| version.contains(engine));
        tracing::debug!(version, lacks_locks, "connected to {}", self.location());
        let engine = if lacks_locks { Engine::Serializable } else { Engine::AdvisoryLocks };
        Ok((self.pool.get().await?, *self.engine.get_or_init(|| engine)))
    }
}

#[async_trait]
impl Backend for PostgresBackend {
    fn location(&self) -> String {
        self.pool.location.clone()
    }

    fn limits(&self) -> Limits {
        Limits { name_chars: Some(255), value_bytes: VALUE_BYTES, keeps_order: false }
    }

    async fn prepare(&self, mode: SchemaMode) -> Result<()> {
        self.makes_tables.store(mode == SchemaMode::Auto, Ordering::Relaxed);
        attempts::prepare(self, mode).await
    }

    async fn read(&self, queries: &[Query]) -> Result<Vec<Vec<Record>>> {
        attempts::read(self, queries).await
    }

    async fn commit(&self, commit: Commit) -> Result<Outcome> {
        attempts::commit(self, commit).await
    }

    async fn remove_if_empty(&self) -> Result<bool> {
        attempts::remove_if_empty(self).await
    }
}

#[async_trait]
impl Database for PostgresBackend {
    fn may_make_tables(&self) -> bool {
        self.makes_tables.load(Ordering::Relaxed)
    }

    async fn try_read(&self, queries: &[Query]) -> Result<Vec<Vec<Record>>, Failure> {
        let connection = self.pool.get().await?;
        let read = Read::new(Dialect::PostgreSql, queries);
        // One statement sees one state of its own accord.
        let is_transaction = read.statements.len() > 1;
        let begin = is_transaction.then(|| plain("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"));
        let end = is_transaction.then(|| plain("COMMIT"));
        let (begin, end) = (begin.into_iter().collect(), end.into_iter().collect());
        let rows =
            self.pool.within(connection, async |session| session.rows(begin, &read.statements, end).await).await?;
        Ok(read.answers(queries, rows))
    }

    async fn try_commit(&self, commit: &Commit, makes_tables: bool) -> Result<Outcome, Failure> {
        let (connection, engine) = self.connection().await?;
        let mut statements = vec![plain(engine.begin())];
        if engine.has_advisory_locks() {
            statements.push(if makes_tables { locks::of_registry() } else { locks::of_commit(commit) });
        }
        if makes_tables {
            statements.extend(schema::create());
        }
        statements.extend(sql::checks(Dialect::PostgreSql, commit));
        statements.extend(sql::writes(Dialect::PostgreSql, commit).map_err(Failure::Final)?);
        statements.push(plain("COMMIT"));
        self.pool
            .within(connection, async |session| session.run_all(&statements).await.map(|_| Outcome::Committed))
            .await
    }

    async fn look_up(&self, commit: &Commit) -> Result<Vec<Record>, Failure> {
        let (connection, engine) = self.connection().await?;
        let queries = [Query::Keys(sql::keys_of(commit))];
        let read = Read::new(Dialect::PostgreSql, &queries);
        let mut before = vec![plain(engine.begin())];
        if engine.has_advisory_locks() {
            before.push(locks::of_commit(commit));
        }
        let rows = async |session: Session<'_>| session.rows(before, &read.statements, vec![plain("COMMIT")]).await;
        let rows = self.pool.within(connection, rows).await?;
        Ok(read.answers(&queries, rows).remove(0))
    }

    async fn missing_tables(&self) -> Result<Vec<&'static str>, Failure> {
        let connection = self.pool.get().await?;
        self.pool.within(connection, async |session| schema::missing(&session).await).await
    }

    async fn make_tables(&self) -> Result<(), Failure> {
        let (connection, engine) = self.connection().await?;
        self.pool.within(connection, async |session| schema::make(&session, engine).await).await
    }

    async fn try_remove(&self) -> Result<bool, Failure> {
        let (connection, engine) = self.connection().await?;
        self.pool.within(connection, async |session| schema::remove_if_empty(&session, engine).await).await
    }
}

#[cfg(test)]
mod tests {
    use feast_registry_sql::Statement;

    use super::*;

    #[test]
    fn one_statement_needs_no_transaction() {
        let queries = [Query::Keys(vec![feast_registry_core::Key::project_object("p")])];
        let Read { statements, .. } = &Read::new(Dialect::PostgreSql, &queries);
        let [Statement { text, values }] = statements.as_slice() else { panic!("{statements:?}") };
        assert!(text.ends_with("FROM projects WHERE project_name = $1 AND project_id = $2"), "{text}");
        assert_eq!(values.len(), 2);
    }
}
