//! A Feast feature registry in MySQL, MariaDB and what is compatible with them, in exactly the tables of Feast's own SQL
//! registry: Feast's `SqlRegistry` may read and write the same database at the same time.
//!
//! A read is one statement: one round trip, and one state of the database. A commit is two round trips. MySQL's protocol
//! has no pipelining, but one request may hold several statements; the first begins the transaction, locks the rows that
//! the commit depends on and returns what is in them, the second writes and commits. So an apply of one entity is three
//! round trips: a read and a commit.
//!
//! Every commit locks the rows of its projects first: commits of one project wait for one another there, and do not
//! deadlock. What is expected to be absent is kept so by InnoDB's locks of gaps, or by the primary key when it is
//! inserted. Deadlocks of commits of different projects are resolved by trying again.
//!
//! Tables made here have a collation that tells all names apart. Those that Feast made mostly take `driver` and `Driver`
//! for one; they work, what cannot be stored in them is refused, and [`MySqlBackend::migrate`] mends them.
//!
//! ```no_run
//! use std::sync::Arc;
//! use feast_registry_core::config::PoolConfig;
//! use feast_registry_core::{Registry, RegistryOptions};
//! use feast_registry_mysql::MySqlBackend;
//!
//! # async fn open() -> feast_registry_core::Result<()> {
//! let url = "mysql://feast:secret@db/feast".parse()?;
//! let backend = MySqlBackend::new(&url, &PoolConfig::default())?;
//! let registry = Registry::open(Arc::new(backend), RegistryOptions::default()).await?;
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod commit;
mod error;
mod options;
mod pool;
mod schema;
mod session;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use feast_registry_core::config::{PoolConfig, RegistryUrl, SchemaMode};
use feast_registry_core::{Backend, Commit, Error, Limits, Outcome, Query, Record, Result};
use feast_registry_sql::{self as sql, Database, Dialect, Read, attempts};

use crate::commit::Prepared;
use crate::error::Failure;
use crate::options::Options;
use crate::pool::Pool;
use crate::schema::State;
use crate::session::{Session, plain};

/// How long a table may take to be mended.
const MIGRATE_FOR: Duration = Duration::from_secs(6 * 3600);

/// A registry in a database of MySQL or MariaDB.
#[derive(Debug)]
pub struct MySqlBackend {
    pool: Pool,
    makes_tables: AtomicBool,
    /// The one that tables are made with, once it is known.
    collation: OnceLock<String>,
    /// Whether what is wrong with the tables was said.
    has_warned: AtomicBool,
}

impl MySqlBackend {
    /// A registry in the database of a URL, with the options that SQLAlchemy and PyMySQL have. Nothing is connected yet.
    ///
    /// # Errors
    /// `InvalidConfig` for options that are not known or not valid, and for certificates that cannot be read.
    pub fn new(url: &RegistryUrl, pool: &PoolConfig) -> Result<Self> {
        let options = Options::new(url)?;
        Ok(Self {
            pool: Pool::new(url.to_string(), options, *pool)?,
            makes_tables: AtomicBool::new(false),
            collation: OnceLock::new(),
            has_warned: AtomicBool::new(false),
        })
    }

    /// What is wrong with the tables, in words: what [`migrate`](Self::migrate) would mend.
    ///
    /// # Errors
    /// `Unavailable` when the database does not answer.
    pub async fn problems(&self) -> Result<Vec<String>> {
        Ok(self.state().await.map_err(Failure::into_error)?.problems())
    }

    /// Mends tables that an older registry made, Feast's own included: gives them a collation that tells all names apart,
    /// columns that hold any object, and an engine with transactions. Tables that are as they should be are left alone.
    /// Each table is mended wholly or not at all; writers wait meanwhile. Returns what was mended, in words.
    ///
    /// # Errors
    /// What the database says if it cannot mend a table, and which are mended already. Nothing is lost.
    pub async fn migrate(&self) -> Result<Vec<String>> {
        let state = self.state().await.map_err(Failure::into_error)?;
        let mut mended: Vec<String> = Vec::new();
        for (table, problems, statement) in state.mend() {
            let connection = self.pool.get().await.map_err(Failure::into_error)?;
            let alter = async |mut session: Session<'_>| session.run_all(&[statement]).await.map(drop);
            self.pool.within_time(MIGRATE_FOR, connection, alter).await.map_err(Failure::into_error).map_err(
                |error| {
                    let done = if mended.is_empty() { "nothing was changed".to_owned() } else { mended.join("; ") };
                    let kind = error.kind();
                    let text =
                        format!("table `{table}` cannot be mended, and is as it was: {error}. Before that: {done}");
                    Error::new(kind, text).with_source(error)
                },
            )?;
            mended.extend(problems.into_iter().map(|problem| format!("{problem}: mended")));
        }
        Ok(mended)
    }

    fn location(&self) -> &str {
        &self.pool.location
    }

    async fn state(&self) -> Result<State, Failure> {
        let connection = self.pool.get().await?;
        let state = self.pool.within(connection, async |mut session| schema::look(&mut session).await).await?;
        self.collation.get_or_init(|| state.collation.clone());
        Ok(state)
    }
}

/// A failure before anything was to be written: a connection that is lost then has done nothing.
fn not_written(failure: Failure) -> Failure {
    match failure {
        Failure::Lost(error) => Failure::Serialization(error),
        failure => failure,
    }
}

#[async_trait]
impl Backend for MySqlBackend {
    fn location(&self) -> String {
        self.pool.location.clone()
    }

    fn limits(&self) -> Limits {
        Limits { name_chars: Some(255), value_bytes: self.pool.value_bytes(), keeps_order: false }
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
impl Database for MySqlBackend {
    fn may_make_tables(&self) -> bool {
        self.makes_tables.load(Ordering::Relaxed)
    }

    async fn try_read(&self, queries: &[Query]) -> Result<Vec<Vec<Record>>, Failure> {
        let connection = self.pool.get().await?;
        let read = Read::new(Dialect::MySql, queries);
        // One statement sees one state of its own accord.
        let is_transaction = read.statements.len() > 1;
        let begin = is_transaction.then(|| plain("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"));
        let end = is_transaction.then(|| plain("COMMIT"));
        let (begin, end) = (begin.into_iter().collect(), end.into_iter().collect());
        let rows = async |mut session: Session<'_>| {
            let rows = session.rows(begin, &read.statements, end).await;
            if is_transaction { commit::undo_if_failed(&mut session, rows).await } else { rows }
        };
        let rows = self.pool.within(connection, rows).await?;
        Ok(read.answers(queries, rows))
    }

    async fn try_commit(&self, commit: &Commit, makes_tables: bool) -> Result<Outcome, Failure> {
        if makes_tables {
            self.make_tables().await.map_err(not_written)?;
        }
        let connection = self.pool.get().await.map_err(not_written)?;
        let keys = sql::keys_to_lock(commit);
        let read = Read::locking(Dialect::MySql, &keys);
        let is_writing = AtomicBool::new(false);
        let call = async |mut session: Session<'_>| {
            let rows = session.rows(vec![plain("START TRANSACTION")], &read.statements, Vec::new()).await;
            let found = read.records(commit::undo_if_failed(&mut session, rows).await?);
            let writes = match commit::prepare(commit, &keys, &found, &session) {
                Ok(Prepared::Writes(writes)) => writes,
                refused => {
                    session.run_all(&[plain("ROLLBACK")]).await?;
                    return refused.map(|prepared| match prepared {
                        Prepared::Conflict(key) => Outcome::Conflict(key),
                        Prepared::Writes(_) => Outcome::Committed,
                    });
                }
            };
            is_writing.store(true, Ordering::Relaxed);
            commit::write(&mut session, commit, writes).await.map(|()| Outcome::Committed)
        };
        let outcome = self.pool.within(connection, call).await;
        if is_writing.load(Ordering::Relaxed) { outcome } else { outcome.map_err(not_written) }
    }

    async fn look_up(&self, commit: &Commit) -> Result<Vec<Record>, Failure> {
        let connection = self.pool.get().await?;
        let mut keys = sql::keys_to_lock(commit);
        keys.extend(sql::keys_of(commit));
        let read = Read::locking(Dialect::MySql, &keys);
        let rows = async |mut session: Session<'_>| {
            let rows = session.rows(vec![plain("START TRANSACTION")], &read.statements, vec![plain("ROLLBACK")]).await;
            commit::undo_if_failed(&mut session, rows).await
        };
        let rows = self.pool.within(connection, rows).await?;
        Ok(read.records(rows).into_iter().map(|(_, record)| record).collect())
    }

    async fn missing_tables(&self) -> Result<Vec<&'static str>, Failure> {
        let state = self.state().await?;
        if !self.has_warned.swap(true, Ordering::Relaxed) {
            schema::warn(self.location(), &state);
        }
        Ok(state.missing())
    }

    async fn make_tables(&self) -> Result<(), Failure> {
        let collation = match self.collation.get() {
            Some(collation) => collation.clone(),
            None => self.state().await?.collation,
        };
        let connection = self.pool.get().await?;
        let statements = schema::create(&collation);
        self.pool.within(connection, async |mut session| session.run_all(&statements).await.map(drop)).await
    }

    async fn try_remove(&self) -> Result<bool, Failure> {
        let connection = self.pool.get().await?;
        // Their locks of tables are none.
        let cannot_lock = |version: &str| ["TiDB", "Vitess"].iter().any(|engine| version.contains(engine));
        if self.pool.server().is_some_and(|server| cannot_lock(&server.version)) {
            tracing::info!(location = self.location(), "the tables stay: this database cannot lock them");
            return Ok(false);
        }
        self.pool.within(connection, async |mut session| schema::remove_if_empty(&mut session).await).await
    }
}
