//! What a backend over a database server does besides its statements: trying again when another transaction was in the
//! way, finding out what became of a commit whose answer was lost, making tables that are missing. It is the same for all
//! of them, so it stands here; a [`Database`] makes single attempts.
//!
//! A commit whose answer was lost is simply sent again: the journal lets its identity in once, and the second
//! attempt waits for a transaction of the first that is still under way. When there is no time left for that, a fence takes
//! the identity, so that what is then said of the commit stays true.

use std::time::Duration;

use async_trait::async_trait;
use feast_registry_core::config::SchemaMode;
use feast_registry_core::metrics::{LOST_ANSWERS, STORAGE_RETRIES};
use feast_registry_core::{
    Backend, Commit, CommitId, Deadline, Error, ErrorKind, JournalEntry, JournalQuery, Key, Outcome, Query, Record,
    Result, Retention, Revision,
};

use crate::state::JournalState;
use crate::{self as sql, JOURNAL};

/// How long to go on beyond its deadline to learn what became of a commit.
const SETTLE_FOR: Duration = Duration::from_secs(5);
/// What a call waits for that is tried again because of others.
const OTHERS: &str = "other transactions that were in the way";
/// The longest pause between two tries.
const MAX_BACKOFF: Duration = Duration::from_millis(250);
/// How often a call is tried when its connection fails: one that was idle may have died long ago.
const CONNECTION_TRIES: u32 = 3;

/// Why an attempt failed, as far as it matters for what is done next.
#[derive(Debug)]
pub enum Failure {
    /// The connection is gone, or the server did not answer in time: it is not known what it did.
    Lost(Error),
    /// There is no connection, or the session cannot do this any more, as after a failover; nothing was done. Another one
    /// may serve.
    Unusable(Error),
    /// Something was in the way, as another transaction, and nothing was done: the same may succeed.
    Serialization(Error),
    /// A row is there that was expected to be absent, or what was expected is not so. Nothing was done.
    Unexpected(Error),
    /// The journal has the identity of this commit: it has taken place, or was fenced off.
    Repeated(Error),
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
        Failure::Unusable(Error::new(
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
            | Failure::Unusable(error)
            | Failure::Serialization(error)
            | Failure::Unexpected(error)
            | Failure::Repeated(error)
            | Failure::Final(error) => error,
        }
    }

    /// Whether a table of the registry is missing.
    pub fn is_missing_table(&self) -> bool {
        matches!(self, Failure::Final(error) if error.kind() == ErrorKind::SchemaMissing)
    }
}

/// What the journal says of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// It has taken place.
    Committed(Revision),
    /// It has not, and never will.
    Fenced,
}

/// A database server, and single attempts at what a backend does.
///
/// What waits (for a connection, for a lock, for an answer) does so until the deadline at the most. When a deadline is over
/// before anything was sent, the failure is [`Failure::Final`] with [`ErrorKind::DeadlineExceeded`].
#[async_trait]
pub trait Database: Backend {
    /// The mode that this was made with.
    fn schema_mode(&self) -> SchemaMode;

    /// Whether there is a journal.
    fn journal_state(&self) -> &JournalState;

    /// Answers queries, all from one state of the database.
    async fn try_read(&self, queries: &[Query], deadline: &Deadline) -> Result<Vec<Vec<Record>>, Failure>;

    /// Commits, with its journal if there is one. With `makes_tables`, makes tables that are missing before, in such a way
    /// that the commit finds them.
    ///
    /// [`Failure::Lost`] is for commits that may have taken place or may yet. One whose connection was lost before it was
    /// told to write is a [`Failure::Serialization`]. A commit that the journal has is a [`Failure::Repeated`], or a commit.
    async fn try_commit(&self, commit: &Commit, makes_tables: bool, deadline: &Deadline) -> Result<Outcome, Failure>;

    /// What the journal has of a commit ([`sql::journal::find`]).
    async fn try_find(&self, id: CommitId, deadline: &Deadline) -> Result<Option<Found>, Failure>;

    /// Takes the identity of a commit ([`sql::journal::fence`]); [`Failure::Repeated`] if the journal has it.
    async fn try_fence(&self, commit: &Commit, deadline: &Deadline) -> Result<(), Failure>;

    /// Reads the journal ([`sql::journal::read`]); [`ErrorKind::Compacted`] if it does not have the revision to go on after.
    async fn try_journal(&self, query: &JournalQuery, deadline: &Deadline) -> Result<Vec<JournalEntry>, Failure>;

    /// The highest revision that is visible ([`sql::journal::newest_revision`]).
    async fn try_newest_revision(&self, deadline: &Deadline) -> Result<Option<Revision>, Failure>;

    /// Removes a part of what a journal of this size need not keep ([`sql::journal::prune`]); returns how many commits that were.
    async fn try_prune(&self, retention: Retention, deadline: &Deadline) -> Result<u64, Failure>;

    /// Removes what the journal need not keep ([`sql::journal::prune`]), in a task of its own. What fails is tried again with
    /// the next.
    fn prune_in_background(&self);

    /// The names of the tables that are missing, Feast's and the journal's.
    async fn missing_tables(&self, deadline: &Deadline) -> Result<Vec<&'static str>, Failure>;

    /// Makes the tables that are missing.
    async fn make_tables(&self, deadline: &Deadline) -> Result<(), Failure>;

    /// Removes Feast's tables if no project is left; returns whether it did.
    async fn try_remove(&self, deadline: &Deadline) -> Result<bool, Failure>;
}

/// Whether tables that are missing may be made.
fn may_make_tables(database: &impl Database) -> bool {
    database.schema_mode() == SchemaMode::Auto
}

/// Of the tables that are missing, Feast's.
fn of_feast(missing: &[&'static str]) -> Vec<&'static str> {
    missing.iter().copied().filter(|table| *table != JOURNAL).collect()
}

/// [`Backend::prepare`].
///
/// # Errors
/// See [`Backend::prepare`].
pub async fn prepare(database: &impl Database, deadline: &Deadline) -> Result<()> {
    let mode = database.schema_mode();
    if mode == SchemaMode::Skip {
        return Ok(());
    }
    for attempt in 0.. {
        let missing = database.missing_tables(deadline).await.map_err(Failure::into_error)?;
        if missing.is_empty() {
            database.journal_state().is_there();
            return Ok(());
        }
        let of_feast = of_feast(&missing);
        if mode == SchemaMode::Verify {
            if of_feast.is_empty() {
                database.journal_state().is_missing(&database.location(), "schema_mode is `verify`");
                return Ok(());
            }
            return Err(Error::new(
                ErrorKind::SchemaMissing,
                format!(
                    "{}: the registry lacks the tables {}; open it with schema_mode `auto` to create them",
                    database.location(),
                    of_feast.join(", ")
                ),
            ));
        }
        match database.make_tables(deadline).await {
            // Another process, Feast's own registry perhaps, is making them too.
            Err(Failure::Serialization(_) | Failure::Unexpected(_)) if !deadline.is_over() => {
                pause(attempt, Retry::Serialization).await
            }
            Err(Failure::Final(error) | Failure::Unusable(error))
                if of_feast.is_empty() && error.kind() == ErrorKind::ReadOnly =>
            {
                database.journal_state().is_missing(&database.location(), &error.to_string());
                return Ok(());
            }
            Err(Failure::Unusable(_)) if attempt + 1 < CONNECTION_TRIES && !deadline.is_over() => {
                pause(attempt, Retry::Connection).await
            }
            made => {
                made.map_err(Failure::into_error)?;
                if attempt > 0 {
                    deadline.check("tables that others keep removing")?;
                    pause(attempt, Retry::Tables).await;
                }
            }
        }
    }
    Ok(())
}

/// [`Backend::read`].
///
/// # Errors
/// See [`Backend::read`].
pub async fn read(database: &impl Database, queries: &[Query], deadline: &Deadline) -> Result<Vec<Vec<Record>>> {
    for attempt in 0.. {
        match database.try_read(queries, deadline).await {
            Ok(answers) => return Ok(answers),
            Err(failure) if failure.is_missing_table() && database.schema_mode() != SchemaMode::Verify => {
                // The tables are gone because the last project is: then there is nothing, and nothing is made for a
                // reader. Or another process is just making them again.
                let missing = database.missing_tables(deadline).await.map_err(Failure::into_error)?;
                let (missing, has_journal) = (of_feast(&missing), !missing.contains(&JOURNAL));
                let is_all = missing.len() == sql::tables().len();
                if is_all && (may_make_tables(database) || has_journal) {
                    return Ok(vec![Vec::new(); queries.len()]);
                }
                if !may_make_tables(database) {
                    return Err(failure.into_error());
                }
                if !missing.is_empty() {
                    prepare(database, deadline).await?;
                }
                if deadline.is_over() {
                    return Err(failure.into_error());
                }
                pause(attempt, Retry::Tables).await;
            }
            Err(Failure::Lost(error) | Failure::Unusable(error)) => {
                if attempt + 1 >= CONNECTION_TRIES || deadline.is_over() {
                    return Err(error);
                }
                pause(attempt, Retry::Connection).await;
            }
            Err(Failure::Serialization(_)) if !deadline.is_over() => pause(attempt, Retry::Serialization).await,
            Err(Failure::Serialization(error)) => return Err(deadline.exceeded(OTHERS).with_source(error)),
            Err(failure) => return Err(failure.into_error()),
        }
    }
    Err(Error::internal("a read ran out of attempts"))
}

/// [`Backend::commit`].
///
/// # Errors
/// See [`Backend::commit`].
pub async fn commit(database: &impl Database, commit: Commit, deadline: &Deadline) -> Result<Outcome> {
    let outcome = attempt_all(database, &commit, deadline).await;
    if outcome.as_ref().is_ok_and(Outcome::is_committed) && database.journal_state().is_pruning_due() {
        database.prune_in_background();
    }
    outcome
}

async fn attempt_all(database: &impl Database, commit: &Commit, deadline: &Deadline) -> Result<Outcome> {
    let mut lost = None;
    let result = attempt_until_answered(database, commit, deadline, &mut lost).await;
    match (result, lost) {
        (Ok(outcome), _) if outcome.is_committed() => Ok(outcome),
        // Whatever was said of the last attempt, one before it may yet take place, unless it is fenced off.
        (result, Some(lost)) if !result.as_ref().is_err_and(Error::is_outcome_unknown) => {
            settle(database, commit, Some(lost), false, result).await
        }
        (result, _) => result,
    }
}

/// Tries until an answer is had that is no reason to try again. `lost` is then the error of the last attempt that may have
/// taken place, or may yet.
async fn attempt_until_answered(
    database: &impl Database,
    commit: &Commit,
    deadline: &Deadline,
    lost: &mut Option<Error>,
) -> Result<Outcome> {
    let mut makes_tables = false;
    let mut without_connection = 0;
    for attempt in 0.. {
        let failure = match database.try_commit(commit, makes_tables, deadline).await {
            Ok(outcome) => {
                if makes_tables && outcome.is_committed() {
                    tracing::warn!(
                        "{}: the tables of the registry were gone, and were made again for a write; after the last project was \
                         deleted that is as it should be",
                        database.location()
                    );
                }
                return Ok(outcome);
            }
            Err(failure) => failure,
        };
        let is_late = deadline.is_over();
        match failure {
            Failure::Repeated(_) => {
                let lost = lost.take();
                let fenced = was_fenced(database, lost.clone());
                return settle(database, commit, lost, true, Err(fenced)).await;
            }
            Failure::Unexpected(error) => match conflict(database, commit, deadline).await? {
                Some(key) => return Ok(Outcome::Conflict(key)),
                // It holds again, or what others were making too was a table.
                None if is_late => return Err(error),
                None => pause(attempt, Retry::Serialization).await,
            },
            Failure::Lost(error) => {
                metrics::counter!(LOST_ANSWERS.name).increment(1);
                if !database.journal_state().is_kept() {
                    return Err(Error::unknown_outcome(&database.location()).with_source(error));
                }
                tracing::warn!(%error, commit = %commit.id, "the answer to a commit was lost; looking what became of it");
                *lost = Some(error.clone());
                if is_late {
                    return Err(was_fenced(database, Some(error)));
                }
                pause(attempt, Retry::Connection).await;
            }
            Failure::Serialization(_) if !is_late => pause(attempt, Retry::Serialization).await,
            Failure::Serialization(error) => return Err(deadline.exceeded(OTHERS).with_source(error)),
            Failure::Unusable(error) => {
                without_connection += 1;
                if is_late || (lost.is_none() && without_connection >= CONNECTION_TRIES) {
                    return Err(error);
                }
                pause(attempt, Retry::Connection).await;
            }
            failure if failure.is_missing_table() && !is_late => match without_table(database, deadline).await? {
                // The tables may be gone because the last project is. They are made again together with what is written,
                // so that another process is unlikely to remove them in between; if it does, this is tried again.
                Remedy::MakeTables if attempt < 100 => makes_tables = true,
                // Without its identity it could be done twice.
                Remedy::DoWithoutJournal if lost.is_none() => {}
                _ => return Err(failure.into_error()),
            },
            Failure::Final(error)
                if makes_tables && error.kind() == ErrorKind::ReadOnly && database.journal_state().is_kept() =>
            {
                let missing = database.missing_tables(deadline).await.map_err(Failure::into_error)?;
                if missing != [JOURNAL] || lost.is_some() {
                    return Err(error);
                }
                database.journal_state().is_missing(&database.location(), &error.to_string());
                makes_tables = false;
            }
            failure => return Err(failure.into_error()),
        }
    }
    Err(Error::internal("a commit ran out of attempts"))
}

/// What helps a commit that met a table that is not there.
enum Remedy {
    MakeTables,
    DoWithoutJournal,
    None,
}

async fn without_table(database: &impl Database, deadline: &Deadline) -> Result<Remedy> {
    if may_make_tables(database) {
        return Ok(Remedy::MakeTables);
    }
    let missing = database.missing_tables(deadline).await.map_err(Failure::into_error)?;
    if missing != [JOURNAL] {
        return Ok(Remedy::None);
    }
    database.journal_state().is_missing(&database.location(), "schema_mode is `verify` or `skip`");
    Ok(Remedy::DoWithoutJournal)
}

/// Learns what became of a commit that may have taken place, or may yet; one that has not, no longer can, and `otherwise`
/// is what is said of it. One that the journal `has` is only looked up.
async fn settle(
    database: &impl Database,
    commit: &Commit,
    lost: Option<Error>,
    mut has: bool,
    otherwise: Result<Outcome>,
) -> Result<Outcome> {
    let deadline = Deadline::after(SETTLE_FOR);
    let unknown = |error: Error| {
        // What stands in the way of an answer now says more than what lost the first.
        // That nothing was done is true of the question, and would be taken for true of the commit.
        let why = match error.kind() {
            ErrorKind::DeadlineExceeded => "the database did not answer in time".to_owned(),
            _ => error.to_string(),
        };
        tracing::warn!(why, commit = %commit.id, "cannot learn what became of a commit");
        Error::unknown_outcome(&database.location()).with_source(lost.clone().unwrap_or(error))
    };
    for attempt in 0.. {
        let found = if has {
            database.try_find(commit.id, &deadline).await
        } else {
            match database.try_fence(commit, &deadline).await {
                Err(Failure::Repeated(_)) => {
                    has = true;
                    continue;
                }
                fenced => fenced.map(|()| Some(Found::Fenced)),
            }
        };
        let error = match found {
            Ok(Some(Found::Committed(revision))) => return Ok(Outcome::Committed { revision: Some(revision) }),
            Ok(Some(Found::Fenced)) => return otherwise,
            // It was there just now: somebody emptied the journal.
            Ok(None) => {
                has = false;
                Error::new(ErrorKind::Conflict, format!("{}: others empty the journal", database.location()))
            }
            Err(Failure::Final(error)) if !error.is_retryable() => return Err(unknown(error)),
            Err(failure) => failure.into_error(),
        };
        if deadline.is_over() {
            return Err(unknown(error));
        }
        pause(attempt, Retry::Outcome).await;
    }
    Err(Error::internal("a commit could not be settled"))
}

/// The error of a commit that may have been under way, and can no longer take place.
fn was_fenced(database: &impl Database, lost: Option<Error>) -> Error {
    let text = format!("{}: a write was lost on its way and was not done; try again", database.location());
    let error = Error::new(ErrorKind::Unavailable, text);
    match lost {
        Some(lost) => error.with_source(lost),
        None => error,
    }
}

/// [`Backend::journal`].
///
/// # Errors
/// See [`Backend::journal`].
pub async fn journal(database: &impl Database, query: &JournalQuery, deadline: &Deadline) -> Result<Vec<JournalEntry>> {
    for attempt in 0.. {
        check_that_journal_is_kept(database)?;
        match database.try_journal(query, deadline).await {
            Ok(entries) => return Ok(entries),
            Err(failure) => {
                if !may_look_again(database, attempt, failure, deadline).await? {
                    break;
                }
            }
        }
    }
    match query.cursor() {
        None => Ok(Vec::new()),
        Some(after) => Err(Error::compacted(&database.location(), after)),
    }
}

/// [`Backend::newest_revision`].
///
/// # Errors
/// See [`Backend::newest_revision`].
pub async fn newest_revision(database: &impl Database, deadline: &Deadline) -> Result<Option<Revision>> {
    for attempt in 0.. {
        check_that_journal_is_kept(database)?;
        match database.try_newest_revision(deadline).await {
            Ok(newest) => return Ok(newest),
            Err(failure) => {
                if !may_look_again(database, attempt, failure, deadline).await? {
                    break;
                }
            }
        }
    }
    Ok(None)
}

/// [`Backend::prune_journal`].
///
/// # Errors
/// See [`Backend::prune_journal`].
pub async fn prune_journal(database: &impl Database, retention: Retention, deadline: &Deadline) -> Result<u64> {
    for attempt in 0.. {
        check_that_journal_is_kept(database)?;
        match database.try_prune(retention, deadline).await {
            Ok(removed) => return Ok(removed),
            Err(failure) => {
                // To do it again does no harm.
                if !may_look_again(database, attempt, failure, deadline).await? {
                    break;
                }
            }
        }
    }
    Ok(0)
}

fn check_that_journal_is_kept(database: &impl Database) -> Result<()> {
    if database.journal_state().is_kept() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Unsupported, format!("{} has no journal", database.location())))
}

/// Whether a look into the journal that failed is worth another, after a pause; `false` when there is no table of it yet.
async fn may_look_again(database: &impl Database, attempt: u32, failure: Failure, deadline: &Deadline) -> Result<bool> {
    match failure {
        failure if failure.is_missing_table() => {
            // Or the database itself is.
            database.missing_tables(deadline).await.map_err(Failure::into_error)?;
            return Ok(false);
        }
        Failure::Lost(_) | Failure::Unusable(_) if attempt + 1 < CONNECTION_TRIES && !deadline.is_over() => {
            pause(attempt, Retry::Connection).await;
        }
        Failure::Serialization(_) if !deadline.is_over() => pause(attempt, Retry::Serialization).await,
        failure => return Err(failure.into_error()),
    }
    Ok(true)
}

/// [`Backend::remove_if_empty`].
///
/// # Errors
/// See [`Backend::remove_if_empty`].
pub async fn remove_if_empty(database: &impl Database, deadline: &Deadline) -> Result<bool> {
    if !may_make_tables(database) {
        return Ok(false);
    }
    for attempt in 0.. {
        match database.try_remove(deadline).await {
            Ok(removed) => return Ok(removed),
            // Another process was faster, unless the database itself is gone.
            Err(failure) if failure.is_missing_table() => {
                return database.missing_tables(deadline).await.map(|_| true).map_err(Failure::into_error);
            }
            Err(Failure::Serialization(_)) if !deadline.is_over() => pause(attempt, Retry::Serialization).await,
            Err(Failure::Unusable(_)) if attempt + 1 < CONNECTION_TRIES && !deadline.is_over() => {
                pause(attempt, Retry::Connection).await
            }
            Err(failure) => return Err(failure.into_error()),
        }
    }
    Err(Error::internal("a removal ran out of attempts"))
}

/// The key of an expectation that does not hold, if there still is one.
async fn conflict(database: &impl Database, commit: &Commit, deadline: &Deadline) -> Result<Option<Key>> {
    let keys = commit.expectations.iter().map(|(key, _)| key.clone()).collect();
    let found = match read(database, &[Query::Keys(keys)], deadline).await {
        Ok(mut answers) => answers.remove(0),
        Err(error) if error.kind() == ErrorKind::SchemaMissing => Vec::new(),
        Err(error) => return Err(error),
    };
    Ok(sql::conflict(&commit.expectations, &found))
}

/// Begins to count what is rare, so that the first of it shows.
pub(crate) fn begin_counting() {
    metrics::counter!(LOST_ANSWERS.name).increment(0);
    for reason in [Retry::Connection, Retry::Serialization, Retry::Tables, Retry::Outcome] {
        metrics::counter!(STORAGE_RETRIES.name, "reason" => reason.name()).increment(0);
    }
}

/// Why something is tried again.
#[derive(Debug, Clone, Copy)]
enum Retry {
    /// The connection was of no use.
    Connection,
    /// Others were in the way.
    Serialization,
    /// Tables were missing.
    Tables,
    /// It is not yet known what became of a commit.
    Outcome,
}

impl Retry {
    fn name(self) -> &'static str {
        match self {
            Retry::Connection => "connection",
            Retry::Serialization => "serialization",
            Retry::Tables => "tables",
            Retry::Outcome => "outcome",
        }
    }
}

/// A random pause of up to 2, 4, 8, … ms, so that those who met once do not meet again.
async fn pause(attempt: u32, reason: Retry) {
    metrics::counter!(STORAGE_RETRIES.name, "reason" => reason.name()).increment(1);
    let longest = MAX_BACKOFF.min(Duration::from_millis(2 << attempt.min(10)));
    tokio::time::sleep(longest.mul_f64(fastrand::f64())).await;
}

#[cfg(test)]
mod tests;
