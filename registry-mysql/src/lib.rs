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
//! A commit has its journal in the same transaction, and with it its identity: what was sent again because its answer was
//! lost is done once. The last thing before `COMMIT` is to take a revision from a row that all commits share. Its lock
//! orders them, and is held until the commit is visible; since nothing is waited for in between, it is held for that long
//! and no longer. Where nobody waits for an answer any more, the server is told to stop (`KILL`).
//!
//! Tables made here have a collation that tells all names apart. Those that Feast made mostly take `driver` and `Driver`
//! for one; they work, what cannot be stored in them is refused, and [`MySqlBackend::migrate`] mends them.
//!
//! ```no_run
//! use std::sync::Arc;
//! use feast_registry_core::config::{PoolConfig, SchemaMode};
//! use feast_registry_core::{Registry, RegistryOptions};
//! use feast_registry_mysql::MySqlBackend;
//!
//! # async fn open() -> feast_registry_core::Result<()> {
//! let url = "mysql://feast:secret@db/feast".parse()?;
//! let backend = MySqlBackend::new(&url, &PoolConfig::default(), SchemaMode::Auto)?;
//! let registry = Registry::open(Arc::new(backend), RegistryOptions::default()).await?;
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod commit;
mod connector;
mod error;
mod journal;
mod options;
mod schema;
mod scheme;
mod session;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use feast_registry_core::config::{PoolConfig, RegistryUrl, SchemaMode};
use feast_registry_core::{
    Backend, Commit, CommitId, Deadline, Error, JournalEntry, JournalQuery, Limits, Outcome, Query, Record, Result,
    Retention, Revision,
};
use feast_registry_sql::pool::{Connector as _, Pool, Purpose};
use feast_registry_sql::{Database, Dialect, Found, JournalState, Read, attempts};

use crate::connector::{Connection, MySql};
use crate::error::{Failure, not_sent};
use crate::options::Options;
use crate::schema::State;
pub use crate::scheme::MySqlScheme;
use crate::session::plain;

/// How long a table may take to be mended.
const MIGRATE_FOR: Duration = Duration::from_secs(6 * 3600);
/// How long a migration waits for those who use a table. Everyone else waits behind it.
const MIGRATE_WAITS_FOR: Duration = Duration::from_secs(30);
/// How long to wait for a look at the tables that no caller sets a deadline for.
const LOOK_FOR: Duration = Duration::from_secs(30);
/// The longest that a pruning of the journal takes.
const PRUNE_FOR: Duration = Duration::from_secs(60);

/// A registry in a database of MySQL or MariaDB.
#[derive(Debug)]
pub struct MySqlBackend {
    pool: Arc<Pool<MySql>>,
    mode: SchemaMode,
    journal: JournalState,
    /// The one that tables are made with, once it is known.
    collation: OnceLock<String>,
    /// Whether what is wrong with the tables was said.
    has_warned: AtomicBool,
    /// Which promises the tables cannot keep, as they were last seen.
    unkept: Mutex<Vec<String>>,
}

impl MySqlBackend {
    /// A registry in the database of a URL, with the options that SQLAlchemy and PyMySQL have; `mode` says what
    /// [`Backend::prepare`] does. Nothing is connected yet.
    ///
    /// # Errors
    /// `InvalidConfig` for options that are not known or not valid, and for certificates that cannot be read.
    pub fn new(url: &RegistryUrl, pool: &PoolConfig, mode: SchemaMode) -> Result<Self> {
        let options = Options::new(url)?;
        let (connect, answer) = (options.connect_timeout, options.answer_timeout);
        let connector = MySql::new(url.to_string(), options, *pool)?;
        Ok(Self {
            pool: Arc::new(Pool::new(connector, url.to_string(), *pool, Some(connect), answer)?),
            mode,
            journal: JournalState::new(Dialect::MySql),
            collation: OnceLock::new(),
            has_warned: AtomicBool::new(false),
            unkept: Mutex::default(),
        })
    }

    /// The same with so much of a journal. Default: [`Retention::default`].
    #[must_use]
    pub fn with_retention(mut self, retention: Retention) -> Self {
        self.journal.set_retention(retention);
        self
    }

    /// What is wrong with the tables, in words: what [`migrate`](Self::migrate) would mend.
    ///
    /// # Errors
    /// `Unavailable` when the database does not answer.
    pub async fn problems(&self) -> Result<Vec<String>> {
        Ok(self.state(&Deadline::after(LOOK_FOR)).await.map_err(Failure::into_error)?.problems())
    }

    /// Mends tables that an older registry made, Feast's own included: gives them a collation that tells all names apart,
    /// columns that hold any object, and an engine with transactions. Tables that are as they should be are left alone.
    /// Each table is mended wholly or not at all; writers wait meanwhile. Returns what was mended, in words.
    ///
    /// # Errors
    /// What the database says if it cannot mend a table, and which are mended already. Nothing is lost.
    pub async fn migrate(&self) -> Result<Vec<String>> {
        let state = self.state(&Deadline::after(LOOK_FOR)).await.map_err(Failure::into_error)?;
        let mut mended: Vec<String> = Vec::new();
        for (table, problems, statement) in state.mend() {
            let deadline = Deadline::after(MIGRATE_FOR);
            let connection = self.pool.get(Purpose::Write, &deadline).await.map_err(Failure::into_error)?;
            let alter = async |connection: &mut Connection| {
                let lock_waits = connection.lock_waits(&deadline.at_most(MIGRATE_WAITS_FOR));
                let statements: Vec<_> = lock_waits.into_iter().chain([statement]).collect();
                self.pool.connector().session(connection).run_all(&statements).await.map(drop)
            };
            let altered = self.pool.within_time(MIGRATE_FOR, connection, &deadline, alter).await;
            altered.map_err(Failure::into_error).map_err(|error| {
                let done = if mended.is_empty() { "nothing was changed".to_owned() } else { mended.join("; ") };
                let kind = error.kind();
                let text = format!("table `{table}` cannot be mended, and is as it was: {error}. Before that: {done}");
                Error::new(kind, text).with_source(error)
            })?;
            mended.extend(problems.into_iter().map(|problem| format!("{problem}: mended")));
        }
        Ok(mended)
    }

    async fn state(&self, deadline: &Deadline) -> Result<State, Failure> {
        let look =
            async |connection: &mut Connection| schema::look(&mut self.pool.connector().session(connection)).await;
        let state = self.call(Purpose::Read, deadline, look).await?;
        self.collation.get_or_init(|| state.collation.clone());
        self.journal.set_table_options(|| schema::table_options(&state.collation));
        Ok(state)
    }

    /// Runs a call on a connection of the pool.
    async fn call<T>(
        &self,
        purpose: Purpose,
        deadline: &Deadline,
        call: impl AsyncFnOnce(&mut Connection) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let connection = self.pool.get(purpose, deadline).await?;
        self.pool.within(connection, deadline, call).await
    }
}

/// What a failure means of a call that has changed nothing: when its deadline is over, that is why.
fn unchanged(failure: Failure, deadline: &Deadline) -> Failure {
    match not_sent(failure) {
        Failure::Unusable(_) | Failure::Serialization(_) if deadline.is_over() => {
            Failure::Final(deadline.exceeded("a lock or an answer of the database"))
        }
        failure => failure,
    }
}

#[async_trait]
impl Backend for MySqlBackend {
    fn location(&self) -> String {
        self.pool.location().to_owned()
    }

    fn limits(&self) -> Limits {
        let mut unkept = self.journal.unkept();
        unkept.extend_from_slice(&self.unkept.lock().unwrap_or_else(PoisonError::into_inner));
        Limits::new(self.pool.connector().value_bytes()).with_name_chars(255).without_order().with_unkept(unkept)
    }

    async fn prepare(&self, deadline: &Deadline) -> Result<()> {
        attempts::prepare(self, deadline).await
    }

    async fn read(&self, queries: &[Query], deadline: &Deadline) -> Result<Vec<Vec<Record>>> {
        attempts::read(self, queries, deadline).await
    }

    async fn commit(&self, commit: Commit, deadline: &Deadline) -> Result<Outcome> {
        attempts::commit(self, commit, deadline).await
    }

    async fn journal(&self, query: &JournalQuery, deadline: &Deadline) -> Result<Vec<JournalEntry>> {
        attempts::journal(self, query, deadline).await
    }

    async fn newest_revision(&self, deadline: &Deadline) -> Result<Option<Revision>> {
        attempts::newest_revision(self, deadline).await
    }

    async fn prune_journal(&self, retention: &Retention, deadline: &Deadline) -> Result<u64> {
        attempts::prune_journal(self, *retention, deadline).await
    }

    async fn remove_if_empty(&self, deadline: &Deadline) -> Result<bool> {
        attempts::remove_if_empty(self, deadline).await
    }

    async fn close(&self) {
        self.pool.close();
    }
}

#[async_trait]
impl Database for MySqlBackend {
    fn schema_mode(&self) -> SchemaMode {
        self.mode
    }

    fn journal_state(&self) -> &JournalState {
        &self.journal
    }

    async fn try_read(&self, queries: &[Query], deadline: &Deadline) -> Result<Vec<Vec<Record>>, Failure> {
        let mut read = Read::new(Dialect::MySql, queries);
        // One statement sees one state of its own accord.
        let is_transaction = read.statements.len() > 1;
        let begin = is_transaction.then(|| plain("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"));
        let end = is_transaction.then(|| plain("COMMIT"));
        let (begin, end) = (begin.into_iter().collect(), end.into_iter().collect());
        let statements = std::mem::take(&mut read.statements);
        let pool = Arc::clone(&self.pool);
        let rows = self.pool.read(deadline, move |connection| {
            Box::pin(async move {
                let mut session = pool.connector().session(connection);
                let rows = session.rows(begin, &statements, end).await;
                if is_transaction { commit::undo_if_failed(&mut session, rows).await } else { rows }
            })
        });
        let rows = rows.await?;
        Ok(read.answers(queries, rows))
    }

    async fn try_commit(&self, commit: &Commit, makes_tables: bool, deadline: &Deadline) -> Result<Outcome, Failure> {
        if makes_tables {
            self.make_tables(deadline).await.map_err(not_sent)?;
        }
        let is_kept = self.journal.is_kept();
        let is_writing = AtomicBool::new(false);
        let call = async |connection: &mut Connection| {
            let mut session = self.pool.connector().session(connection);
            commit::run(&mut session, commit, is_kept, deadline, &is_writing).await
        };
        let outcome = self.call(Purpose::Write, deadline, call).await;
        match outcome {
            Err(failure @ Failure::Lost(_)) if is_writing.load(Ordering::Relaxed) => Err(failure),
            outcome => outcome.map_err(|failure| unchanged(failure, deadline)),
        }
    }

    async fn try_find(&self, id: CommitId, deadline: &Deadline) -> Result<Option<Found>, Failure> {
        let find =
            async |connection: &mut Connection| journal::find(&mut self.pool.connector().session(connection), id).await;
        self.call(Purpose::Read, deadline, find).await
    }

    async fn try_fence(&self, commit: &Commit, deadline: &Deadline) -> Result<(), Failure> {
        let fence = async |connection: &mut Connection| {
            journal::fence(&mut self.pool.connector().session(connection), commit, deadline).await
        };
        // It waits for nobody but the commit itself, and writers may have all the connections that are theirs.
        self.call(Purpose::Read, deadline, fence).await
    }

    async fn try_journal(&self, query: &JournalQuery, deadline: &Deadline) -> Result<Vec<JournalEntry>, Failure> {
        let read = async |connection: &mut Connection| {
            journal::read(&mut self.pool.connector().session(connection), query).await
        };
        self.call(Purpose::Read, deadline, read).await
    }

    async fn try_newest_revision(&self, deadline: &Deadline) -> Result<Option<Revision>, Failure> {
        let read = async |connection: &mut Connection| {
            journal::newest_revision(&mut self.pool.connector().session(connection)).await
        };
        self.call(Purpose::Read, deadline, read).await
    }

    async fn try_prune(&self, retention: Retention, deadline: &Deadline) -> Result<u64, Failure> {
        let prune = async |connection: &mut Connection| {
            journal::prune(&mut self.pool.connector().session(connection), retention).await
        };
        self.call(Purpose::Write, deadline, prune).await
    }

    fn prune_in_background(&self) {
        let Some(pruning) = self.journal.begin_pruning() else { return };
        let (pool, retention) = (Arc::clone(&self.pool), self.journal.retention());
        tokio::spawn(async move {
            let _pruning = pruning;
            if let Err(failure) = prune(&pool, retention).await {
                let error = failure.into_error();
                tracing::warn!(%error, location = pool.location(), "the journal was not pruned; trying again later");
            }
        });
    }

    async fn missing_tables(&self, deadline: &Deadline) -> Result<Vec<&'static str>, Failure> {
        let state = self.state(deadline).await?;
        if !self.has_warned.swap(true, Ordering::Relaxed) {
            schema::warn(self.pool.location(), &state);
        }
        *self.unkept.lock().unwrap_or_else(PoisonError::into_inner) = state.unkept();
        Ok(state.missing())
    }

    async fn make_tables(&self, deadline: &Deadline) -> Result<(), Failure> {
        let state = self.state(deadline).await?;
        let (missing, collation) = (state.missing(), self.collation.get().cloned().unwrap_or(state.collation));
        let make = async |connection: &mut Connection| {
            let lock_waits = connection.lock_waits(deadline);
            let statements: Vec<_> = lock_waits.into_iter().chain(schema::create(&collation)).collect();
            self.pool.connector().session(connection).run_all(&statements).await.map(drop)
        };
        self.call(Purpose::Write, deadline, make).await.map_err(|failure| unchanged(failure, deadline))?;
        feast_registry_sql::tell_if_new(self.pool.location(), &missing);
        Ok(())
    }

    async fn try_remove(&self, deadline: &Deadline) -> Result<bool, Failure> {
        let remove = async |connection: &mut Connection| {
            // Their locks of tables are none.
            let cannot_lock = |version: &str| ["TiDB", "Vitess"].iter().any(|engine| version.contains(engine));
            let connector = self.pool.connector();
            if connector.server().is_some_and(|server| cannot_lock(&server.version)) {
                tracing::info!(location = self.pool.location(), "the tables stay: this database cannot lock them");
                return Ok(false);
            }
            schema::remove_if_empty(&mut connector.session(connection), deadline).await
        };
        self.call(Purpose::Write, deadline, remove).await
    }
}

/// Prunes the journal on a connection beside those of the pool.
async fn prune(pool: &Pool<MySql>, retention: Retention) -> Result<(), Failure> {
    let mut connection = pool.connect_beside().await?;
    let mut session = pool.connector().session(&mut connection);
    let prune = async {
        while journal::prune(&mut session, retention).await? > 0 {}
        Ok::<(), Failure>(())
    };
    let pruned = tokio::time::timeout(PRUNE_FOR, prune).await;
    pool.connector().end(connection).await;
    match pruned {
        // The tables are gone, and the journal with them.
        Ok(Err(failure)) if failure.is_missing_table() => Ok(()),
        // The rest has time.
        pruned => pruned.unwrap_or(Ok(())),
    }
}

/// The examples of the README are compiled with those of the documentation.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
