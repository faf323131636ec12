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
//! Each commit has its rows in the table `feast_registry_journal`, beside Feast's, by which it happens once. Its transaction
//! id, which it gets when it has its locks, is its revision; readers of the journal see those below which none is under way.
//! Whoever waits for a commit is told by a notification (`LISTEN`), on one connection beside the pool that is opened for the
//! first who waits; behind a pooler, on a standby, and in databases that are not PostgreSQL the journal is polled instead.
//!
//! What is given up, since its deadline is over or its caller is gone, is cancelled on the server, and its session there
//! ends. Locks are waited for no longer than the deadline.
//!
//! Statements are prepared once for each connection. Behind a pooler that may give each transaction another session, as
//! PgBouncer does, that would be wrong; it is recognized when connecting, and then nothing is prepared. No setting is needed
//! for that.
//!
//! ```no_run
//! use std::sync::Arc;
//! use feast_registry_core::config::{PoolConfig, SchemaMode};
//! use feast_registry_core::{Registry, RegistryOptions};
//! use feast_registry_postgres::PostgresBackend;
//!
//! # async fn open() -> feast_registry_core::Result<()> {
//! let url = "postgresql://feast:secret@db/feast?options=-csearch_path%3Dregistry".parse()?;
//! let backend = PostgresBackend::new(&url, &PoolConfig::default(), SchemaMode::Auto)?;
//! let registry = Registry::open(Arc::new(backend), RegistryOptions::default()).await?;
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod connect;
mod engine;
mod error;
mod journal;
mod locks;
mod notify;
mod options;
mod schema;
mod scheme;
mod session;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use feast_registry_core::config::{PoolConfig, RegistryUrl, SchemaMode};
use feast_registry_core::{
    Backend, Commit, CommitId, Deadline, JournalEntry, JournalQuery, Limits, Outcome, Query, Record, Result, Retention,
    Revision,
};
use feast_registry_sql::journal::{Revisions, journaled_writes};
use feast_registry_sql::pool::{Pool, Purpose};
use feast_registry_sql::{self as sql, Database, Dialect, Found, JournalState, Read, Statement, attempts};

use crate::connect::Connect;
use crate::error::Failure;
use crate::notify::Notifications;
use crate::options::Options;
pub use crate::scheme::PostgresScheme;
use crate::session::{Link, Session, plain};

/// PostgreSQL's own limit for one value, less some room for the rest of the message.
const VALUE_BYTES: usize = 1_000_000_000;

/// SERIALIZABLE has an order of its own for commits that overlap, and tells nobody which. (the conformance suite's
/// `journal::its_order_is_one_of_the_commits`)
const JOURNAL_AT_SERIALIZABLE: &str = "with `isolation_level: SERIALIZABLE` the journal has commits that overlapped in the \
    order in which they began to write, in which what one of them expected may not hold; without that setting it keeps the \
    order in which they took place";

/// How long pruning the journal may wait for a lock.
const PRUNES_WITHIN: Duration = Duration::from_secs(20);

/// A registry in a PostgreSQL database.
#[derive(Debug)]
pub struct PostgresBackend {
    pool: Arc<Pool<Connect>>,
    /// How long an answer may take.
    patience: Duration,
    echo: bool,
    is_serializable: bool,
    mode: SchemaMode,
    journal: JournalState,
    notifications: Notifications,
}

impl PostgresBackend {
    /// A registry in the database of a URL, with libpq's options. Nothing is connected yet.
    ///
    /// For what the URL does not say, libpq's environment variables are looked at (`PGPASSWORD`, `PGSSLMODE`, …).
    ///
    /// # Errors
    /// `InvalidConfig` for options that are not known or not valid, and for certificates that cannot be read.
    pub fn new(url: &RegistryUrl, pool: &PoolConfig, mode: SchemaMode) -> Result<Self> {
        let options = Options::new(url, |name| std::env::var(name).ok())?;
        let patience = options.answer_timeout;
        // A server that is paused takes connections and then says nothing: the driver's own limit is for the former alone.
        let hosts = options.config.get_hosts().len().max(1) as u32;
        let create = options.config.get_connect_timeout().map(|each| *each * hosts);
        let connect = Connect::new(url.to_string(), options, pool)?;
        let (echo, is_serializable) = (pool.echo, pool.serializable);
        let pool = Arc::new(Pool::new(connect, url.to_string(), *pool, create, patience)?);
        Ok(Self {
            notifications: Notifications::new(Arc::clone(&pool)),
            pool,
            patience,
            echo,
            is_serializable,
            mode,
            journal: JournalState::new(Dialect::PostgreSql),
        })
    }

    /// The same with a journal that keeps so much.
    #[must_use]
    pub fn with_retention(mut self, retention: Retention) -> Self {
        self.journal.set_retention(retention);
        self
    }

    /// Has a connection for a call, and waits for its answer.
    async fn call<T>(
        &self,
        purpose: Purpose,
        deadline: &Deadline,
        call: impl AsyncFnOnce(Session<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let connection = self.pool.get(purpose, deadline).await?;
        let location = self.pool.location();
        let call = async |link: &mut Link| call(Session { link, location, echo: self.echo }).await;
        self.pool.within(connection, deadline, call).await
    }

    /// How long a call of this deadline lets a lock be waited for, in milliseconds.
    fn lock_timeout(&self, session: &Session<'_>, deadline: &Deadline) -> i64 {
        session.link.lock_timeout(deadline.at_most(self.patience).remaining())
    }

    /// Puts the journal in order if it came from another server. What fails is not needed to write: it is said, and tried
    /// again when the registry is opened the next time.
    async fn put_journal_in_order(&self, deadline: &Deadline) {
        let call = async |session: Session<'_>| match session.link.engine.revisions() {
            Some(_) => journal::put_in_order(&session, self.lock_timeout(&session, deadline)).await,
            None => Ok(()),
        };
        if let Err(failure) = self.call(Purpose::Write, deadline, call).await {
            let error = failure.into_error();
            tracing::warn!(%error, "cannot check whether the journal comes from another server");
        }
    }
}

#[async_trait]
impl Backend for PostgresBackend {
    fn location(&self) -> String {
        self.pool.location().to_owned()
    }

    fn limits(&self) -> Limits {
        let order = self.is_serializable.then(|| JOURNAL_AT_SERIALIZABLE.to_owned());
        let unkept = self.journal.unkept().into_iter().chain(order).collect();
        Limits::new(VALUE_BYTES).with_name_chars(255).without_order().with_unkept(unkept)
    }

    async fn prepare(&self, deadline: &Deadline) -> Result<()> {
        attempts::prepare(self, deadline).await?;
        if self.mode == SchemaMode::Auto && self.journal.is_kept() {
            self.put_journal_in_order(deadline).await;
        }
        Ok(())
    }

    async fn read(&self, queries: &[Query], deadline: &Deadline) -> Result<Vec<Vec<Record>>> {
        attempts::read(self, queries, deadline).await
    }

    async fn commit(&self, commit: Commit, deadline: &Deadline) -> Result<Outcome> {
        let outcome = attempts::commit(self, commit, deadline).await;
        if let Ok(Outcome::Committed { revision: Some(_) }) = &outcome {
            self.notifications.send();
        }
        outcome
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

    async fn wait_for_commit(&self, after: Option<Revision>, deadline: &Deadline) {
        notify::wait_for_commit(self, after, deadline).await;
    }

    async fn remove_if_empty(&self, deadline: &Deadline) -> Result<bool> {
        attempts::remove_if_empty(self, deadline).await
    }

    async fn close(&self) {
        self.notifications.close();
        self.pool.close();
    }
}

#[async_trait]
impl Database for PostgresBackend {
    fn schema_mode(&self) -> SchemaMode {
        self.mode
    }

    fn journal_state(&self) -> &JournalState {
        &self.journal
    }

    async fn try_read(&self, queries: &[Query], deadline: &Deadline) -> Result<Vec<Vec<Record>>, Failure> {
        let mut read = Read::new(Dialect::PostgreSql, queries);
        // One statement sees one state of its own accord.
        let snapshot = (read.statements.len() > 1).then_some("ISOLATION LEVEL REPEATABLE READ");
        let statements = std::mem::take(&mut read.statements);
        let (pool, echo) = (Arc::clone(&self.pool), self.echo);
        let rows = self.pool.read(deadline, move |link| {
            Box::pin(async move {
                let level = link.read_level.or(snapshot);
                let begin = level.map(|level| plain(format!("BEGIN {level} READ ONLY"))).into_iter().collect();
                let end = level.map(|_| plain("COMMIT")).into_iter().collect();
                let session = Session { link, location: pool.location(), echo };
                session.rows(begin, &statements, end).await
            })
        });
        let rows = rows.await?;
        Ok(read.answers(queries, rows))
    }

    async fn try_commit(&self, commit: &Commit, makes_tables: bool, deadline: &Deadline) -> Result<Outcome, Failure> {
        let has_journal = self.journal.is_kept();
        let call = async |session: Session<'_>| {
            let timeout = self.lock_timeout(&session, deadline);
            let lock = |timeout| match makes_tables {
                true => locks::of_registry(timeout),
                false => locks::of_commit(commit, timeout),
            };
            let mut statements = session.locks(lock, timeout);
            if makes_tables {
                statements.extend(schema::create(has_journal));
            }
            let checks = sql::checks(Dialect::PostgreSql, commit);
            if !has_journal {
                statements.extend(checks);
                statements.extend(sql::writes(Dialect::PostgreSql, commit).map_err(Failure::Final)?);
                session.transaction(statements).await?;
                return Ok(Outcome::Committed { revision: None });
            }
            let (revisions, begun) = match session.link.engine.revisions() {
                Some(revisions) => (revisions, false),
                None => (Revisions::Number(journal::begin(&session, statements.split_off(0)).await?), true),
            };
            // The identity comes first: a commit that has taken place is to be told by that, and not by what it expects.
            let mut writes = journaled_writes(Dialect::PostgreSql, commit, sql::absent(commit), revisions)
                .map_err(Failure::Final)?
                .into_iter();
            let identity = statements.len();
            statements.extend(writes.next().map(|Statement { text, values }| {
                let text = format!("{text} RETURNING revision");
                Statement { text, values }
            }));
            statements.extend(checks);
            statements.extend(writes);
            let mut answers =
                if begun { session.rest(statements).await? } else { session.transaction(statements).await? };
            let row = answers.get_mut(identity).and_then(Vec::pop);
            let revision =
                row.map(|row| row.try_get::<_, i64>(0)).transpose().map_err(|error| session.failure(error))?;
            Ok(Outcome::Committed { revision: revision.map(|revision| Revision::new(revision as u64)) })
        };
        self.call(Purpose::Write, deadline, call).await
    }

    async fn try_find(&self, id: CommitId, deadline: &Deadline) -> Result<Option<Found>, Failure> {
        self.call(Purpose::Read, deadline, async |session| journal::find(&session, id).await).await
    }

    async fn try_fence(&self, commit: &Commit, deadline: &Deadline) -> Result<(), Failure> {
        // It waits for nobody but the commit itself, and writers may have all the connections that are theirs.
        let fence = async |session: Session<'_>| {
            let timeout = self.lock_timeout(&session, deadline);
            journal::fence(&session, commit, timeout).await
        };
        self.call(Purpose::Read, deadline, fence).await
    }

    async fn try_journal(&self, query: &JournalQuery, deadline: &Deadline) -> Result<Vec<JournalEntry>, Failure> {
        self.call(Purpose::Read, deadline, async |session| journal::read(&session, query).await).await
    }

    async fn try_newest_revision(&self, deadline: &Deadline) -> Result<Option<Revision>, Failure> {
        self.call(Purpose::Read, deadline, async |session| journal::newest_revision(&session).await).await
    }

    async fn try_prune(&self, retention: Retention, deadline: &Deadline) -> Result<u64, Failure> {
        let prune = async |session: Session<'_>| {
            let timeout = self.lock_timeout(&session, deadline);
            journal::prune(&session, retention, timeout).await
        };
        self.call(Purpose::Write, deadline, prune).await
    }

    fn prune_in_background(&self) {
        let Some(pruning) = self.journal.begin_pruning() else { return };
        let (pool, retention, echo) = (Arc::clone(&self.pool), self.journal.retention(), self.echo);
        tokio::spawn(async move {
            let _pruning = pruning;
            let pruned = async {
                let link = pool.connect_beside().await?;
                let session = Session { link: &link, location: pool.location(), echo };
                while journal::prune(&session, retention, link.lock_timeout(PRUNES_WITHIN)).await? > 0 {}
                Ok::<(), Failure>(())
            };
            if let Ok(Err(failure)) = tokio::time::timeout(PRUNES_WITHIN, pruned).await {
                let error = failure.into_error();
                tracing::warn!(%error, location = pool.location(), "the journal was not pruned; trying again later");
            }
        });
    }

    async fn missing_tables(&self, deadline: &Deadline) -> Result<Vec<&'static str>, Failure> {
        self.call(Purpose::Read, deadline, async |session| schema::missing(&session).await).await
    }

    async fn make_tables(&self, deadline: &Deadline) -> Result<(), Failure> {
        let missing = self.missing_tables(deadline).await?;
        let make = async |session: Session<'_>| {
            let mut statements = session.locks(locks::of_registry, self.lock_timeout(&session, deadline));
            statements.extend(schema::create(true));
            session.transaction(statements).await.map(drop)
        };
        self.call(Purpose::Write, deadline, make).await?;
        feast_registry_sql::tell_if_new(&self.location(), &missing);
        Ok(())
    }

    async fn try_remove(&self, deadline: &Deadline) -> Result<bool, Failure> {
        let remove = async |session: Session<'_>| {
            let timeout = self.lock_timeout(&session, deadline);
            schema::remove_if_empty(&session, timeout).await
        };
        self.call(Purpose::Write, deadline, remove).await
    }
}

#[cfg(test)]
mod tests {
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

/// The examples of the README are compiled with those of the documentation.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
