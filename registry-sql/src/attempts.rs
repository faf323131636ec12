//! What a backend over a database server does besides its statements: trying again when another transaction was in the
//! way, finding out what became of a commit whose answer was lost, making tables that are missing. It is the same for all
//! of them, so it stands here; a [`Database`] makes single attempts.

use std::time::{Duration, Instant};

use async_trait::async_trait;

use crate::{self as sql, Fate};
use feast_registry_core::config::SchemaMode;
use feast_registry_core::{Backend, Commit, Key, Outcome, Query, Record};
use feast_registry_core::{Error, ErrorKind, Result};

/// How long a call goes on trying: against other transactions, and to learn what became of a commit.
const RETRY_FOR: Duration = Duration::from_secs(30);
/// The longest pause between two tries.
const MAX_BACKOFF: Duration = Duration::from_millis(250);
/// How often a read is tried when its connection fails: one that was idle may have died long ago.
const READ_TRIES: u32 = 3;

/// Why an attempt failed, as far as it matters for what is done next.
#[derive(Debug)]
pub enum Failure {
    /// The connection is gone, or the server did not answer in time: it is not known what it did.
    Lost(Error),
    /// Something was in the way, as another transaction, and nothing was done: the same may succeed.
    Serialization(Error),
    /// A row is there that was expected to be absent, or what was expected is not so. Nothing was done.
    Unexpected(Error),
    /// All else, which trying again does not help. Nothing was done.
    Final(Error),
}

impl Failure {
    /// All connections that there may be are in use, and none became free in time.
    pub fn no_free_connection(location: &str) -> Self {
        Failure::Final(Error::new(
            ErrorKind::Unavailable,
            format!(
                "{location}: all connections of the pool are in use; try again, or raise pool_size or max_overflow"
            ),
        ))
    }

    /// The server did not take a connection in time.
    pub fn not_connected(location: &str) -> Self {
        Failure::Lost(Error::new(
            ErrorKind::Unavailable,
            format!(
                "{location}: the database did not take a connection within the time that connect_timeout allows; try again"
            ),
        ))
    }

    /// The server did not answer in so much time.
    pub fn silence(location: &str, waited: Duration) -> Self {
        Failure::Lost(Error::new(
            ErrorKind::Unavailable,
            format!("{location}: the database did not answer within {} s; try again", waited.as_secs_f64()),
        ))
    }

    /// What to tell the caller.
    pub fn into_error(self) -> Error {
        match self {
            Failure::Lost(error)
            | Failure::Serialization(error)
            | Failure::Unexpected(error)
            | Failure::Final(error) => error,
        }
    }

    /// Whether a table of the registry is missing.
    pub fn is_missing_table(&self) -> bool {
        matches!(self, Failure::Final(error) if error.kind() == ErrorKind::SchemaMissing)
    }
}

/// A database server, and single attempts at what a backend does.
#[async_trait]
pub trait Database: Backend {
    /// Whether tables that are missing may be made: whether [`SchemaMode::Auto`] prepared this.
    fn may_make_tables(&self) -> bool;

    /// Answers queries, all from one state of the database.
    async fn try_read(&self, queries: &[Query]) -> Result<Vec<Vec<Record>>, Failure>;

    /// Commits. With `makes_tables`, makes tables that are missing before, in such a way that the commit finds them.
    ///
    /// [`Failure::Lost`] is for commits that may have taken place. One whose connection was lost before it was told to
    /// write is a [`Failure::Serialization`].
    async fn try_commit(&self, commit: &Commit, makes_tables: bool) -> Result<Outcome, Failure>;

    /// What is stored under the keys of a commit, once no other commit is at work on them.
    async fn look_up(&self, commit: &Commit) -> Result<Vec<Record>, Failure>;

    /// The names of the tables that are missing.
    async fn missing_tables(&self) -> Result<Vec<&'static str>, Failure>;

    /// Makes the tables that are missing.
    async fn make_tables(&self) -> Result<(), Failure>;

    /// Removes the tables if no project is left; returns whether it did.
    async fn try_remove(&self) -> Result<bool, Failure>;
}

/// [`Backend::prepare`], for a database that remembers the mode itself.
///
/// # Errors
/// See [`Backend::prepare`].
pub async fn prepare(database: &impl Database, mode: SchemaMode) -> Result<()> {
    if mode == SchemaMode::Skip {
        return Ok(());
    }
    let deadline = Instant::now() + RETRY_FOR;
    for attempt in 0.. {
        let missing = database.missing_tables().await.map_err(Failure::into_error)?;
        if missing.is_empty() {
            return Ok(());
        }
        if mode == SchemaMode::Verify {
            return Err(Error::new(
                ErrorKind::SchemaMissing,
                format!(
                    "{}: the registry lacks the tables {}; open it with schema_mode `auto` to create them",
                    database.location(),
                    missing.join(", ")
                ),
            ));
        }
        match database.make_tables().await {
            // Another process, Feast's own registry perhaps, is making them too.
            Err(Failure::Serialization(_) | Failure::Unexpected(_)) if Instant::now() < deadline => {
                pause(attempt).await;
            }
            made => made.map_err(Failure::into_error)?,
        }
    }
    Ok(())
}

/// [`Backend::read`].
///
/// # Errors
/// See [`Backend::read`].
pub async fn read(database: &impl Database, queries: &[Query]) -> Result<Vec<Vec<Record>>> {
    let deadline = Instant::now() + RETRY_FOR;
    for attempt in 0.. {
        match database.try_read(queries).await {
            Ok(answers) => return Ok(answers),
            Err(failure) if failure.is_missing_table() && database.may_make_tables() => {
                // The tables are gone because the last project is: then there is nothing, and nothing is made for a
                // reader. Or another process is just making them again.
                let missing = database.missing_tables().await.map_err(Failure::into_error)?;
                if missing.len() == sql::tables().len() {
                    return Ok(vec![Vec::new(); queries.len()]);
                }
                if !missing.is_empty() {
                    prepare(database, SchemaMode::Auto).await?;
                }
                if Instant::now() > deadline {
                    return Err(failure.into_error());
                }
            }
            Err(Failure::Lost(error)) => {
                if attempt + 1 >= READ_TRIES || Instant::now() > deadline {
                    return Err(error);
                }
                pause(attempt).await;
            }
            Err(Failure::Serialization(_)) if Instant::now() < deadline => pause(attempt).await,
            Err(failure) => return Err(failure.into_error()),
        }
    }
    Err(Error::internal("a read ran out of attempts"))
}

/// [`Backend::commit`].
///
/// # Errors
/// See [`Backend::commit`].
pub async fn commit(database: &impl Database, commit: Commit) -> Result<Outcome> {
    let deadline = Instant::now() + RETRY_FOR;
    let mut makes_tables = false;
    // The error of the last attempt that may have taken place.
    let mut lost = None;
    for attempt in 0.. {
        let failure = match database.try_commit(&commit, makes_tables).await {
            Ok(Outcome::Committed) => return Ok(Outcome::Committed),
            Ok(Outcome::Conflict(key)) => {
                // What is there instead may be this very commit, when the server had it longer than we waited.
                return match &lost {
                    Some(error) if fate(database, &commit, error, deadline).await? == Fate::Committed => {
                        Ok(Outcome::Committed)
                    }
                    _ => Ok(Outcome::Conflict(key)),
                };
            }
            Err(failure) => failure,
        };
        let is_late = Instant::now() > deadline;
        match failure {
            Failure::Unexpected(error) => {
                if let Some(error) = &lost
                    && fate(database, &commit, error, deadline).await? == Fate::Committed
                {
                    return Ok(Outcome::Committed);
                }
                match conflict(database, &commit).await? {
                    Some(key) => return Ok(Outcome::Conflict(key)),
                    None if is_late => return Err(error),
                    // It holds again, or what others were making too was a table.
                    None => pause(attempt).await,
                }
            }
            Failure::Lost(error) if is_late => return Err(unknown_fate(database, &error)),
            Failure::Lost(error) => {
                tracing::warn!(%error, "the answer to a commit was lost; looking up what became of it");
                match fate(database, &commit, &error, deadline).await? {
                    Fate::Committed => return Ok(Outcome::Committed),
                    Fate::NotCommitted => pause(attempt).await,
                    Fate::Unknown => return Err(unknown_fate(database, &error)),
                }
                lost = Some(error);
            }
            Failure::Serialization(error) if is_late => return Err(error),
            Failure::Serialization(_) => pause(attempt).await,
            // The tables may be gone because the last project is. They are made again together with what is written, so
            // that another process is unlikely to remove them in between; if it does, this is tried again.
            failure if failure.is_missing_table() && database.may_make_tables() && !is_late => makes_tables = true,
            failure => return Err(failure.into_error()),
        }
    }
    Err(Error::internal("a commit ran out of attempts"))
}

/// [`Backend::remove_if_empty`].
///
/// # Errors
/// See [`Backend::remove_if_empty`].
pub async fn remove_if_empty(database: &impl Database) -> Result<bool> {
    if !database.may_make_tables() {
        return Ok(false);
    }
    let deadline = Instant::now() + RETRY_FOR;
    for attempt in 0.. {
        match database.try_remove().await {
            Ok(removed) => return Ok(removed),
            // Another process was faster.
            Err(failure) if failure.is_missing_table() => return Ok(true),
            Err(Failure::Serialization(_)) if Instant::now() < deadline => pause(attempt).await,
            Err(failure) => return Err(failure.into_error()),
        }
    }
    Err(Error::internal("a removal ran out of attempts"))
}

/// Learns what became of a commit whose answer was lost.
async fn fate(database: &impl Database, commit: &Commit, lost: &Error, deadline: Instant) -> Result<Fate> {
    let mut attempt = 0;
    loop {
        match database.look_up(commit).await {
            Ok(found) => return Ok(sql::fate(commit, &found)),
            // Without tables nothing is stored.
            Err(failure) if failure.is_missing_table() => return Ok(sql::fate(commit, &[])),
            Err(Failure::Lost(_) | Failure::Serialization(_)) if Instant::now() < deadline => {
                pause(attempt).await;
                attempt += 1;
            }
            Err(_) => return Err(unknown_fate(database, lost)),
        }
    }
}

/// The key of an expectation that does not hold, if there still is one.
async fn conflict(database: &impl Database, commit: &Commit) -> Result<Option<Key>> {
    let keys = commit.expectations.iter().map(|(key, _)| key.clone()).collect();
    let found = match read(database, &[Query::Keys(keys)]).await {
        Ok(mut answers) => answers.remove(0),
        Err(error) if error.kind() == ErrorKind::SchemaMissing => Vec::new(),
        Err(error) => return Err(error),
    };
    Ok(sql::conflict(&commit.expectations, &found))
}

fn unknown_fate(database: &impl Database, lost: &Error) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        format!(
            "{}: the answer to a write was lost, and it is not known whether it was stored; look, and try again ({lost})",
            database.location()
        ),
    )
}

/// A random pause of up to 2, 4, 8, … ms, so that those who met once do not meet again.
async fn pause(attempt: u32) {
    let longest = MAX_BACKOFF.min(Duration::from_millis(2 << attempt.min(10)));
    tokio::time::sleep(longest.mul_f64(fastrand::f64())).await;
}

#[cfg(test)]
mod tests;
