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
//! use registry_core::config::PoolConfig;
//! use registry_core::{Registry, RegistryOptions};
//! use registry_mysql::MySqlBackend;
//!
//! # async fn open() -> registry_core::Result<()> {
//! let url = "mysql://feast:secret@db/feast".parse()?;
//! let backend = MySqlBackend::new(&url, &PoolConfig::default())?;
//! let registry = Registry::open(Arc::new(backend), RegistryOptions::default()).await?;
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod error;
mod options;
mod pool;
mod schema;
mod session;

use std::collections::HashSet;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use registry_core::config::{PoolConfig, RegistryUrl, SchemaMode};
use registry_core::sql::{self, Dialect, Fate, Read, Statement};
use registry_core::{Backend, Commit, Error, ErrorKind, Key, Limits, Outcome, Query, Record, Result, Write};

use crate::error::{DATA_TOO_LONG, Failure, failure};
use crate::options::Options;
use crate::pool::Pool;
use crate::schema::State;
use crate::session::{Session, plain};

/// How long a call goes on trying: against other transactions, and to learn what became of a commit.
const RETRY_FOR: Duration = Duration::from_secs(30);
/// The longest pause between two tries.
const MAX_BACKOFF: Duration = Duration::from_millis(250);
/// How often a read is tried when its connection fails: one that was idle may have died long ago.
const READ_TRIES: u32 = 3;
/// How long a table may take to be mended.
const MIGRATE_FOR: Duration = Duration::from_secs(6 * 3600);

/// A registry in a database of MySQL or MariaDB.
#[derive(Debug)]
pub struct MySqlBackend {
    pool: Pool,
    makes_tables: AtomicBool,
    /// The one that tables are made with, once it is known.
    collation: OnceLock<String>,
}

/// How far a commit came.
enum Progress {
    /// Nothing can have been written.
    Looking(Failure),
    /// It was told to write and to commit.
    Writing(Failure),
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

    async fn read_once(&self, queries: &[Query]) -> Result<Vec<Vec<Record>>, Failure> {
        let connection = self.pool.get().await?;
        let read = Read::new(Dialect::MySql, queries);
        // One statement sees one state of its own accord.
        let is_transaction = read.statements.len() > 1;
        let begin = is_transaction.then(|| plain("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"));
        let end = is_transaction.then(|| plain("COMMIT"));
        let (begin, end) = (begin.into_iter().collect(), end.into_iter().collect());
        let rows = async |mut session: Session<'_>| {
            let rows = session.rows(begin, &read.statements, end).await;
            if is_transaction { undo_if_failed(&mut session, rows).await } else { rows }
        };
        let rows = self.pool.within(connection, rows).await?;
        Ok(read.answers(queries, rows))
    }

    async fn try_commit(&self, commit: &Commit) -> Result<Outcome, Progress> {
        let connection = self.pool.get().await.map_err(Progress::Looking)?;
        let keys = sql::keys_to_lock(commit);
        let read = Read::locking(Dialect::MySql, &keys);
        let is_writing = AtomicBool::new(false);
        let call = async |mut session: Session<'_>| {
            let rows = session.rows(vec![plain("START TRANSACTION")], &read.statements, Vec::new()).await;
            let found = read.records(undo_if_failed(&mut session, rows).await?);
            let writes = match prepare(commit, &keys, &found, &session) {
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
            write(&mut session, commit, writes).await.map(|()| Outcome::Committed)
        };
        let outcome = self.pool.within(connection, call).await;
        outcome.map_err(if is_writing.load(Ordering::Relaxed) { Progress::Writing } else { Progress::Looking })
    }

    /// What is stored under the keys of a commit, once no other commit is at work on them.
    async fn look_up(&self, commit: &Commit) -> Result<Vec<Record>, Failure> {
        let connection = self.pool.get().await?;
        let mut keys = sql::keys_to_lock(commit);
        keys.extend(sql::keys_of(commit));
        let read = Read::locking(Dialect::MySql, &keys);
        let rows = async |mut session: Session<'_>| {
            let rows = session.rows(vec![plain("START TRANSACTION")], &read.statements, vec![plain("ROLLBACK")]).await;
            undo_if_failed(&mut session, rows).await
        };
        let rows = self.pool.within(connection, rows).await?;
        Ok(read.records(rows).into_iter().map(|(_, record)| record).collect())
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

    /// Whether an earlier try of a commit took place after all.
    async fn is_committed(&self, commit: &Commit, deadline: Instant) -> Result<bool> {
        let lost = Error::new(ErrorKind::Unavailable, "an earlier answer was lost");
        Ok(self.fate(commit, &lost, deadline).await? == Fate::Committed)
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

    /// Makes the tables that are missing.
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

/// What follows from what a commit has found.
enum Prepared {
    /// It does not take place: something else is expected under this key.
    Conflict(Key),
    /// It writes this.
    Writes(Vec<Statement>),
}

/// Holds a commit against what it found under the keys that it locked, each with the index of its key.
fn prepare(
    commit: &Commit,
    keys: &[Key],
    found: &[(usize, Record)],
    session: &Session<'_>,
) -> Result<Prepared, Failure> {
    if let Some(refusal) = lookalike(commit, keys, found, session.location) {
        return Err(refusal);
    }
    let records: Vec<Record> = found.iter().map(|(_, record)| record.clone()).collect();
    // The others are those that it inserts: the database itself sees to them.
    let locked: HashSet<&Key> = keys.iter().collect();
    let looked_at: Vec<_> = commit.expectations.iter().filter(|(key, _)| locked.contains(key)).cloned().collect();
    if let Some(key) = sql::conflict(&looked_at, &records) {
        return Ok(Prepared::Conflict(key));
    }
    // What is not there is inserted: an upsert could hit a row of another name, that this very commit has written.
    let is_there: HashSet<&Key> = records.iter().map(|record| &record.key).collect();
    let written = commit.writes.iter().filter_map(|write| match write {
        Write::Put(record) => Some(&record.key),
        Write::Delete(_) | Write::DeleteVersions { .. } | Write::DeleteProject { .. } => None,
    });
    let absent = written.filter(|key| !is_there.contains(key)).collect();
    let writes = sql::writes_beside(Dialect::MySql, commit, absent).map_err(Failure::Final)?;
    session.fits(&writes)?;
    Ok(Prepared::Writes(writes))
}

/// Writes within a transaction and commits it.
async fn write(session: &mut Session<'_>, commit: &Commit, mut statements: Vec<Statement>) -> Result<(), Failure> {
    statements.push(plain("COMMIT"));
    let Err((index, error)) = session.run(&statements).await else { return Ok(()) };
    let too_long = match &error {
        mysql_async::Error::Server(answer) if DATA_TOO_LONG.contains(&answer.code) => Some(answer.message.clone()),
        _ => None,
    };
    let failed = Err(failure(error, session.location));
    let failed = undo_if_failed(session, failed).await;
    let Some(statement) = statements.get(index) else { return failed };
    match (too_long, failed) {
        (Some(said), _) => Err(Failure::Final(schema::too_long(session, table_of(&statement.text), &said).await)),
        // It may be another name that is there, which the database takes for this one.
        (_, Err(failure @ Failure::Unexpected(_))) => {
            Err(look_alike(session, commit, statement).await?.unwrap_or(failure))
        }
        (_, failed) => failed,
    }
}

/// The table that a statement writes to.
fn table_of(statement: &str) -> &str {
    let words = statement.split_whitespace();
    words.skip_while(|word| !["INTO", "FROM", "UPDATE"].contains(word)).nth(1).unwrap_or_default()
}

/// Ends the transaction of what failed, so that the connection can be used again; one that is lost never is.
async fn undo_if_failed<T>(session: &mut Session<'_>, outcome: Result<T, Failure>) -> Result<T, Failure> {
    if !matches!(outcome, Ok(_) | Err(Failure::Lost(_))) {
        session.run_all(&[plain("ROLLBACK")]).await?;
    }
    outcome
}

/// The refusal of a commit that stores a key beside one that the database takes for the same. `found` are rows, each with
/// the index of the key that it was found by.
fn lookalike(commit: &Commit, keys: &[Key], found: &[(usize, Record)], location: &str) -> Option<Failure> {
    let is_stored =
        |key: &Key| commit.writes.iter().any(|write| matches!(write, Write::Put(record) if record.key == *key));
    let mut pairs = found.iter().filter_map(|(index, record)| Some((keys.get(*index)?, &record.key)));
    let (asked, found) = pairs.find(|(asked, found)| asked != found && is_stored(asked))?;
    Some(Failure::Final(schema::lookalike(location, asked, found)))
}

/// [`lookalike`], after an insertion found a row in its way: one that was stored before, or by the same commit.
async fn look_alike(
    session: &mut Session<'_>,
    commit: &Commit,
    insertion: &Statement,
) -> Result<Option<Failure>, Failure> {
    let keys = sql::keys_of(commit);
    let read = Read::locking(Dialect::MySql, &keys);
    let begin = plain("START TRANSACTION");
    for before in [vec![begin.clone(), insertion.clone()], vec![begin]] {
        let rows = session.rows(before, &read.statements, vec![plain("ROLLBACK")]).await;
        match undo_if_failed(session, rows).await {
            Ok(rows) => {
                let found = read.records(rows);
                if let Some(refusal) = lookalike(commit, &keys, &found, session.location) {
                    return Ok(Some(refusal));
                }
            }
            Err(Failure::Unexpected(_)) => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok(None)
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
        if mode == SchemaMode::Skip {
            return Ok(());
        }
        let deadline = Instant::now() + RETRY_FOR;
        for attempt in 0.. {
            let state = self.state().await.map_err(Failure::into_error)?;
            let missing = state.missing();
            if missing.is_empty() {
                schema::warn(self.location(), &state);
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
                    let missing = self.state().await.map_err(Failure::into_error)?.missing();
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
        let mut was_lost = false;
        for attempt in 0.. {
            let (failure, is_writing) = match self.try_commit(&commit).await {
                // What is there by now may be this very commit, when the server had it longer than we waited.
                Ok(Outcome::Conflict(_)) if was_lost && self.is_committed(&commit, deadline).await? => {
                    return Ok(Outcome::Committed);
                }
                Ok(outcome) => return Ok(outcome),
                Err(Progress::Looking(failure)) => (failure, false),
                Err(Progress::Writing(failure)) => (failure, true),
            };
            let is_late = Instant::now() > deadline;
            match failure {
                Failure::Unexpected(error) => {
                    if was_lost && self.is_committed(&commit, deadline).await? {
                        return Ok(Outcome::Committed);
                    }
                    match self.conflict(&commit).await? {
                        Some(key) => return Ok(Outcome::Conflict(key)),
                        None if is_late => return Err(error),
                        // It holds again.
                        None => tokio::time::sleep(backoff(attempt)).await,
                    }
                }
                Failure::Lost(error) if is_writing => {
                    if is_late {
                        return Err(unknown_fate(self.location(), &error));
                    }
                    tracing::warn!(%error, "the answer to a commit was lost; looking up what became of it");
                    was_lost = true;
                    match self.fate(&commit, &error, deadline).await? {
                        Fate::Committed => return Ok(Outcome::Committed),
                        Fate::NotCommitted => tokio::time::sleep(backoff(attempt)).await,
                        Fate::Unknown => return Err(unknown_fate(self.location(), &error)),
                    }
                }
                Failure::Lost(error) | Failure::Serialization(error) if is_late => return Err(error),
                Failure::Lost(_) | Failure::Serialization(_) => tokio::time::sleep(backoff(attempt)).await,
                // The tables may be gone because the last project is. They are made again, and if another process
                // removes them once more before this one writes, again.
                failure if failure.is_missing_table() && self.makes_tables.load(Ordering::Relaxed) && !is_late => {
                    match self.make_tables().await {
                        Err(failure @ Failure::Final(_)) => return Err(failure.into_error()),
                        Err(_) => tokio::time::sleep(backoff(attempt)).await,
                        Ok(()) => {}
                    }
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
            match self.try_remove().await {
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
