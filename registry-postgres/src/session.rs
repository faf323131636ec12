//! Running statements on one connection, many of them in one round trip.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use feast_registry_sql::journal::JournalRow;
use feast_registry_sql::{Row, Statement, Value};
use tokio::task::JoinHandle;
use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use crate::engine::Engine;
use crate::error::{Failure, failure};
use crate::locks;

/// What a statement returns.
pub(crate) type Answer = Result<Vec<tokio_postgres::Row>, tokio_postgres::Error>;

/// Prepared statements that a connection keeps. There are a few for each kind of object and shape of commit.
const MAX_PREPARED: usize = 512;

/// Statements with more values than this come in too many shapes to be worth preparing.
const MAX_VALUES: usize = 64;

/// How much longer than its caller a statement waits for a lock.
const LOCK_TIMEOUT_MARGIN: Duration = Duration::from_millis(20);

const COMMIT: &str = "COMMIT";

/// What keeps the statements of a transaction from being run one by one if its BEGIN fails, as when it is cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begin {
    /// The session is read-only by default, and only a transaction that is begun to write may write: all is sent at once.
    Pipelined,
    /// Nothing does, since the session is not ours alone: the rest is sent when BEGIN has been answered.
    Awaited,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) client: Client,
    /// What reads from the server; it ends with the client, when all is answered.
    pub(crate) task: JoinHandle<()>,
    pub(crate) engine: Engine,
    /// What a read begins its transaction with, if one statement is not to be one by itself.
    pub(crate) read_level: Option<&'static str>,
    begin: Begin,
    /// How long the user or an administrator lets a lock be waited for.
    lock_timeout: Option<Duration>,
    /// Whether all but the answer to COMMIT is there.
    pub(crate) is_committing: Arc<AtomicBool>,
    /// What has been prepared on it, by its text. `None` where nothing may be: behind a pooler.
    prepared: Option<Mutex<HashMap<String, tokio_postgres::Statement>>>,
}

impl Link {
    pub(crate) fn new(
        client: Client,
        task: JoinHandle<()>,
        engine: Engine,
        read_level: Option<&'static str>,
        begin: Begin,
        lock_timeout: Option<Duration>,
        prepares: bool,
    ) -> Self {
        let prepared = prepares.then(Mutex::default);
        Self { client, task, engine, read_level, begin, lock_timeout, is_committing: Arc::default(), prepared }
    }

    /// Whether its session on the server is its own, and stays so.
    pub(crate) fn has_own_session(&self) -> bool {
        self.prepared.is_some()
    }

    /// How long a lock may be waited for, in milliseconds, where the caller waits so long.
    pub(crate) fn lock_timeout(&self, patience: Duration) -> i64 {
        // So that it is over when the caller's time is: an error of locks is then told as that.
        let patience = patience.saturating_add(LOCK_TIMEOUT_MARGIN);
        let timeout = self.lock_timeout.map_or(patience, |timeout| timeout.min(patience));
        i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX).clamp(1, i64::from(i32::MAX))
    }

    /// The prepared form of each statement that has one. What has none yet is prepared first: one more round trip, once
    /// for each connection. What cannot be prepared is left to fail when it is run.
    async fn prepared(&self, statements: &[Statement]) -> Vec<Option<tokio_postgres::Statement>> {
        let Some(prepared) = &self.prepared else { return vec![None; statements.len()] };
        let known = || prepared.lock().unwrap_or_else(PoisonError::into_inner);
        let is_worth_it = |statement: &&Statement| !statement.values.is_empty() && statement.values.len() <= MAX_VALUES;
        let mut missing: Vec<&Statement> = statements.iter().filter(is_worth_it).collect();
        missing.retain(|statement| !known().contains_key(&statement.text));
        missing.sort_by_key(|statement| &statement.text);
        missing.dedup_by_key(|statement| &statement.text);
        if !missing.is_empty() {
            if known().len() + missing.len() > MAX_PREPARED {
                known().clear();
            }
            let prepare = |statement: &&Statement| {
                let types: Vec<Type> = statement.values.iter().map(|value| parameter(value).1).collect();
                let text = statement.text.clone();
                Box::pin(async move { self.client.prepare_typed(&text, &types).await.map(|done| (text, done)) }) as _
            };
            let done = pipelined(missing.iter().map(prepare).collect(), |_| {}).await;
            known().extend(done.into_iter().flatten());
        }
        statements.iter().map(|statement| known().get(&statement.text).cloned()).collect()
    }
}

/// A connection in use.
pub(crate) struct Session<'a> {
    pub(crate) link: &'a Link,
    /// Where the database is, without secrets.
    pub(crate) location: &'a str,
    /// Whether every statement is logged.
    pub(crate) echo: bool,
}

impl Session<'_> {
    /// Runs statements in one round trip: each is sent before any is answered. The answers are those of all of them, in
    /// order; after one that fails within a transaction, the others fail too.
    pub(crate) async fn run(&self, statements: &[Statement]) -> Vec<Answer> {
        if self.echo {
            statements.iter().for_each(|statement| tracing::info!(location = self.location, "{}", statement.text));
        }
        let prepared = self.link.prepared(statements).await;
        let client = &self.link.client;
        let requests = statements.iter().zip(prepared);
        let requests = requests.map(|(statement, prepared)| Box::pin(query(client, statement, prepared)) as _);
        let last =
            if statements.last().is_some_and(|last| last.text == COMMIT) { statements.len() } else { usize::MAX };
        let is_committing = &self.link.is_committing;
        let note = |number: usize| is_committing.store(number == last, Ordering::Release);
        let answers = pipelined(requests.collect(), note).await;
        is_committing.store(false, Ordering::Release);
        answers
    }

    /// Runs statements in one round trip; what they return, or what went wrong first.
    pub(crate) async fn run_all(&self, statements: &[Statement]) -> Result<Vec<Vec<tokio_postgres::Row>>, Failure> {
        let answers = self.run(statements).await;
        answers.into_iter().collect::<Result<_, _>>().map_err(|error| self.failure(error))
    }

    /// Runs statements in a transaction that writes, and commits it; what they return, or what went wrong first. It is one
    /// round trip, or two where BEGIN is awaited.
    ///
    /// If BEGIN fails, or an earlier statement does, none of the others has an effect.
    pub(crate) async fn transaction(
        &self,
        mut statements: Vec<Statement>,
    ) -> Result<Vec<Vec<tokio_postgres::Row>>, Failure> {
        let begin = plain(self.begin());
        match self.link.begin {
            Begin::Pipelined => {
                statements.insert(0, begin);
                let mut answers = self.rest(statements).await?;
                answers.remove(0);
                Ok(answers)
            }
            Begin::Awaited => {
                self.run_all(&[begin]).await?;
                self.rest(statements).await
            }
        }
    }

    /// Runs the rest of a transaction, and commits it, or undoes all of it if one fails.
    pub(crate) async fn rest(&self, mut statements: Vec<Statement>) -> Result<Vec<Vec<tokio_postgres::Row>>, Failure> {
        statements.push(plain(COMMIT));
        self.run_all(&statements).await
    }

    /// Locks, where there are any, and how long they are waited for.
    pub(crate) fn locks(&self, locks: impl FnOnce(i64) -> Statement, timeout: i64) -> Vec<Statement> {
        let has_locks = self.link.engine.has_advisory_locks();
        vec![if has_locks { locks(timeout) } else { locks::only_timeout(timeout) }]
    }

    /// What begins a transaction that writes.
    pub(crate) fn begin(&self) -> String {
        let write = if self.link.begin == Begin::Pipelined { " READ WRITE" } else { "" };
        format!("BEGIN {}{write}", self.link.engine.level())
    }

    /// Runs the statements of a [`feast_registry_sql::Read`], with others around them that return nothing to read.
    pub(crate) async fn rows(
        &self,
        before: Vec<Statement>,
        read: &[Statement],
        after: Vec<Statement>,
    ) -> Result<Vec<Row>, Failure> {
        let range = before.len()..before.len() + read.len();
        let statements: Vec<Statement> = before.into_iter().chain(read.iter().cloned()).chain(after).collect();
        let answers = self.run_all(&statements).await?;
        let rows = answers[range].iter().flatten().map(row);
        rows.collect::<Result<_, _>>().map_err(|error| self.failure(error))
    }

    pub(crate) fn failure(&self, error: tokio_postgres::Error) -> Failure {
        failure(error, self.location)
    }
}

type Request<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Sends all requests before any is answered: a request is sent when it is first polled. `waiting_for` is told of each
/// answer, from 1 on, that those before it are there.
async fn pipelined<T>(mut requests: Vec<Request<'_, T>>, waiting_for: impl Fn(usize)) -> Vec<T> {
    let mut answers: Vec<Option<T>> = poll_fn(|context| {
        let first = requests.iter_mut().map(|request| match request.as_mut().poll(context) {
            Poll::Ready(answer) => Some(answer),
            Poll::Pending => None,
        });
        Poll::Ready(first.collect())
    })
    .await;
    let mut all = Vec::with_capacity(requests.len());
    for (request, answer) in requests.into_iter().zip(&mut answers) {
        waiting_for(all.len() + 1);
        all.push(match answer.take() {
            Some(answer) => answer,
            None => request.await,
        });
    }
    all
}

async fn query(
    client: &Client,
    Statement { text, values }: &Statement,
    prepared: Option<tokio_postgres::Statement>,
) -> Answer {
    if values.is_empty() {
        // BEGIN and COMMIT are understood by poolers only in the simple form, and DDL needs no other.
        if !text.starts_with("SELECT") {
            return client.batch_execute(text).await.map(|()| Vec::new());
        }
        return client.query_typed(text, &[]).await;
    }
    let values: Vec<(Parameter<'_>, Type)> = values.iter().map(parameter).collect();
    match prepared {
        Some(prepared) => {
            let values: Vec<&(dyn ToSql + Sync)> = values.iter().map(|(value, _)| value.as_sql()).collect();
            client.query(&prepared, &values).await
        }
        // Parsed and run in one round trip, and nothing is left behind on the server.
        None => {
            let values: Vec<(&(dyn ToSql + Sync), Type)> =
                values.iter().map(|(value, kind)| (value.as_sql(), kind.clone())).collect();
            client.query_typed(text, &values).await
        }
    }
}

/// A statement without parameters.
pub(crate) fn plain(text: impl Into<String>) -> Statement {
    Statement { text: text.into(), values: Vec::new() }
}

enum Parameter<'a> {
    Text(&'a str),
    Bytes(&'a [u8]),
    Integer(i32),
    BigInteger(i64),
    NoText(Option<&'a str>),
}

impl Parameter<'_> {
    fn as_sql(&self) -> &(dyn ToSql + Sync) {
        match self {
            Parameter::Text(value) => value,
            Parameter::Bytes(value) => value,
            Parameter::Integer(value) => value,
            Parameter::BigInteger(value) => value,
            Parameter::NoText(value) => value,
        }
    }
}

fn parameter(value: &Value) -> (Parameter<'_>, Type) {
    match value {
        Value::Text(text) => (Parameter::Text(text), Type::TEXT),
        Value::Bytes(bytes) => (Parameter::Bytes(bytes), Type::BYTEA),
        Value::Integer(number) => (Parameter::Integer(*number), Type::INT4),
        Value::BigInteger(number) => (Parameter::BigInteger(*number), Type::INT8),
        Value::NoText => (Parameter::NoText(None), Type::TEXT),
    }
}

/// A row of a [`feast_registry_sql::Read`].
fn row(row: &tokio_postgres::Row) -> Result<Row, tokio_postgres::Error> {
    Ok(Row {
        term: row.try_get(0)?,
        project: row.try_get(1)?,
        name: row.try_get(2)?,
        number: row.try_get(3)?,
        value: row.try_get::<_, Vec<u8>>(4)?.into(),
        updated: row.try_get(5)?,
        position: row.try_get(6)?,
        view_type: row.try_get(7)?,
        description: row.try_get(8)?,
        version_id: row.try_get(9)?,
    })
}

/// A row of [`feast_registry_sql::journal::read`].
pub(crate) fn journal_row(row: &tokio_postgres::Row) -> Result<JournalRow, tokio_postgres::Error> {
    let bytes = |index: usize| row.try_get::<_, Option<Vec<u8>>>(index).map(|value| value.map(Into::into));
    Ok(JournalRow {
        revision: row.try_get(0)?,
        commit_id: row.try_get(1)?,
        change_number: row.try_get(2)?,
        committed_at: row.try_get(3)?,
        author: row.try_get(4)?,
        reason: row.try_get(5)?,
        target: row.try_get(6)?,
        project: row.try_get(7)?,
        name: row.try_get(8)?,
        number: row.try_get(9)?,
        value_before: bytes(10)?,
        value_after: bytes(11)?,
        version_type: row.try_get(12)?,
        version_created: row.try_get(13)?,
        version_description: row.try_get(14)?,
        version_id: row.try_get(15)?,
        before_length: row.try_get(16)?,
    })
}
