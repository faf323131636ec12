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
//! use registry_core::config::PoolConfig;
//! use registry_core::{Registry, RegistryOptions};
//! use registry_postgres::PostgresBackend;
//!
//! # async fn open() -> registry_core::Result<()> {
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
use std::time::{Duration, Instant};

use async_trait::async_trait;
use registry_core::config::{PoolConfig, RegistryUrl, SchemaMode};
use registry_core::sql::{self, Dialect, Fate, Read};
use registry_core::{Backend, Commit, Error, ErrorKind, Key, Limits, Outcome, Query, Record, Result};

use crate::error::Failure;
use crate::options::Options;
use crate::pool::{Connection, Pool};
use crate::session::{Session, plain};

/// How long a call goes on trying: against other transactions, and to learn what became of a commit.
const RETRY_FOR: Duration = Duration::from_secs(30);
/// The longest pause between two tries.
const MAX_BACKOFF: Duration = Duration::from_millis(250);
/// How often a read is tried when its connection fails: one that was idle may have died long ago.
const READ_TRIES: u32 = 3;
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

    async fn read_once(&self, queries: &[Query]) -> Result<Vec<Vec<Record>>, Failure> {
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

    async fn try_commit(&self, commit: &Commit, creates_tables: bool) -> Result<(), Failure> {
        let (connection, engine) = self.connection().await?;
        let mut statements = vec![plain(engine.begin())];
        if engine.has_advisory_locks() {
            statements.push(if creates_tables { locks::of_registry() } else { locks::of_commit(commit) });
        }
        if creates_tables {
            statements.extend(schema::create());
        }
        statements.extend(sql::checks(Dialect::PostgreSql, commit));
        statements.extend(sql::writes(Dialect::PostgreSql, commit).map_err(Failure::Final)?);
        statements.push(plain("COMMIT"));
        self.pool.within(connection, async |session| session.run_all(&statements).await.map(drop)).await
    }

    /// What is stored under the keys of a commit, once no other commit is at work on them.
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

    /// Learns what became of a commit whose answer was lost.
    async fn fate(&self, commit: &Commit, lost: &Error, deadline: Instant) -> Result<Fate> {
        let mut attempt = 0;
        loop {
            match self.look_up(commit).await {
                Ok(found) => return Ok(sql::fate(commit, &found)),
                // Without tables nothing is stored.
                Err(failure) if failure.is_missing_table() => return Ok(sql::fate(commit, &[])),
                Err(Failure::Lost(_) | Failure::Serialization(_)) if Instant::now() < deadline => {
                    tokio::time::sleep(backoff(attempt)).await;
                    attempt += 1;
                }
                Err(_) => return Err(unknown_fate(self.location(), lost)),
            }
        }
    }

    /// The key of an expectation that does not hold, if there still is one.
    async fn conflict(&self, commit: &Commit) -> Result<Option<Key>> {
        let keys = commit.expectations.iter().map(|(key, _)| key.clone()).collect();
        let found = match self.read(&[Query::Keys(keys)]).await {
            Ok(mut answers) => answers.remove(0),
            Err(error) if error.kind() == ErrorKind::SchemaMissing => Vec::new(),
            Err(error) => return Err(error),
        };
        Ok(sql::conflict(&commit.expectations, &found))
    }

    async fn missing_tables(&self) -> Result<Vec<&'static str>, Failure> {
        let connection = self.pool.get().await?;
        self.pool.within(connection, async |session| schema::missing(&session).await).await
    }

    async fn make_tables(&self) -> Result<(), Failure> {
        let (connection, engine) = self.connection().await?;
        self.pool.within(connection, async |session| schema::make(&session, engine).await).await
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
        if mode == SchemaMode::Skip {
            return Ok(());
        }
        let deadline = Instant::now() + RETRY_FOR;
        for attempt in 0.. {
            let missing = self.missing_tables().await.map_err(Failure::into_error)?;
            if missing.is_empty() {
                return Ok(());
            }
            if mode == SchemaMode::Verify {
                return Err(schema::missing_error(self.location(), &missing));
            }
            match self.make_tables().await {
                // Another process, Feast's own registry perhaps, is making them too.
                Err(Failure::Serialization(_) | Failure::Unexpected(_)) if Instant::now() < deadline => {
                    tokio::time::sleep(backoff(attempt)).await;
                }
                made => made.map_err(Failure::into_error)?,
            }
        }
        Ok(())
    }

    async fn read(&self, queries: &[Query]) -> Result<Vec<Vec<Record>>> {
        let deadline = Instant::now() + RETRY_FOR;
        for attempt in 0.. {
            match self.read_once(queries).await {
                Ok(answers) => return Ok(answers),
                Err(failure) if failure.is_missing_table() && self.makes_tables.load(Ordering::Relaxed) => {
                    // The tables are gone because the last project is: then there is nothing, and nothing is made for a
                    // reader. Or another process is just making them again.
                    let missing = self.missing_tables().await.map_err(Failure::into_error)?;
                    if missing.len() == sql::tables().len() {
                        return Ok(vec![Vec::new(); queries.len()]);
                    }
                    if !missing.is_empty() {
                        self.prepare(SchemaMode::Auto).await?;
                    }
                    if Instant::now() > deadline {
                        return Err(failure.into_error());
                    }
                }
                Err(Failure::Lost(error)) => {
                    if attempt + 1 >= READ_TRIES || Instant::now() > deadline {
                        return Err(error);
                    }
                    tokio::time::sleep(backoff(attempt)).await;
                }
                Err(Failure::Serialization(_)) if Instant::now() < deadline => {
                    tokio::time::sleep(backoff(attempt)).await;
                }
                Err(failure) => return Err(failure.into_error()),
            }
        }
        Err(Error::internal("a read ran out of attempts"))
    }

    async fn commit(&self, commit: Commit) -> Result<Outcome> {
        let deadline = Instant::now() + RETRY_FOR;
        let mut creates_tables = false;
        let mut was_lost = false;
        for attempt in 0.. {
            let failure = match self.try_commit(&commit, creates_tables).await {
                Ok(()) => return Ok(Outcome::Committed),
                Err(failure) => failure,
            };
            let is_late = Instant::now() > deadline;
            match failure {
                Failure::Unexpected(error) => {
                    // What came in between may have been this very commit, when the server had it longer than we waited.
                    if was_lost && self.fate(&commit, &error, deadline).await? == Fate::Committed {
                        return Ok(Outcome::Committed);
                    }
                    match self.conflict(&commit).await? {
                        Some(key) => return Ok(Outcome::Conflict(key)),
                        None if is_late => return Err(error),
                        // It holds again, or what others were making too was a table.
                        None => tokio::time::sleep(backoff(attempt)).await,
                    }
                }
                Failure::Lost(error) if is_late => return Err(unknown_fate(self.location(), &error)),
                Failure::Lost(error) => {
                    tracing::warn!(%error, "the answer to a commit was lost; looking up what became of it");
                    was_lost = true;
                    match self.fate(&commit, &error, deadline).await? {
                        Fate::Committed => return Ok(Outcome::Committed),
                        Fate::NotCommitted => tokio::time::sleep(backoff(attempt)).await,
                        Fate::Unknown => return Err(unknown_fate(self.location(), &error)),
                    }
                }
                Failure::Serialization(error) if is_late => return Err(error),
                Failure::Serialization(_) => tokio::time::sleep(backoff(attempt)).await,
                // The tables may be gone because the last project is. They are made again in the very transaction that
                // writes, so that another process cannot remove them in between.
                failure if failure.is_missing_table() && self.makes_tables.load(Ordering::Relaxed) && !is_late => {
                    creates_tables = true;
                }
                failure => return Err(failure.into_error()),
            }
        }
        Err(Error::internal("a commit ran out of attempts"))
    }

    async fn remove_if_empty(&self) -> Result<bool> {
        if !self.makes_tables.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let deadline = Instant::now() + RETRY_FOR;
        for attempt in 0.. {
            let (connection, engine) = self.connection().await.map_err(Failure::into_error)?;
            let remove = async |session: Session<'_>| schema::remove_if_empty(&session, engine).await;
            match self.pool.within(connection, remove).await {
                Ok(removed) => return Ok(removed),
                // Another process was faster.
                Err(failure) if failure.is_missing_table() => return Ok(true),
                Err(Failure::Serialization(_)) if Instant::now() < deadline => {
                    tokio::time::sleep(backoff(attempt)).await;
                }
                Err(failure) => return Err(failure.into_error()),
            }
        }
        Err(Error::internal("a removal ran out of attempts"))
    }
}

fn unknown_fate(location: &str, lost: &Error) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        format!(
            "{location}: the answer to a write was lost, and it is not known whether it was stored; look, and try again \
             ({lost})"
        ),
    )
}

/// A random pause of up to 2, 4, 8, … ms, so that those who met once do not meet again.
fn backoff(attempt: u32) -> Duration {
    let longest = MAX_BACKOFF.min(Duration::from_millis(2 << attempt.min(10)));
    longest.mul_f64(fastrand::f64())
}

#[cfg(test)]
mod tests {
    use registry_core::sql::Statement;

    use super::*;

    #[test]
    fn one_statement_needs_no_transaction() {
        let queries = [Query::Keys(vec![registry_core::Key::project_object("p")])];
        let Read { statements, .. } = &Read::new(Dialect::PostgreSql, &queries);
        let [Statement { text, values }] = statements.as_slice() else { panic!("{statements:?}") };
        assert!(text.ends_with("FROM projects WHERE project_name = $1 AND project_id = $2"), "{text}");
        assert_eq!(values.len(), 2);
    }
}
