//! A commit: what follows from the rows that it has locked, and what it writes.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};

use feast_registry_core::{Commit, Deadline, Key, Outcome, Record, Revision, Write};
use feast_registry_sql::journal::{self, Revisions};
use feast_registry_sql::{self as sql, Dialect, Found, Read, Statement};
use mysql_async::Row;

use crate::error::{DATA_TOO_LONG, DUPLICATE, Failure, NULL, code, failure, uncommitted};
use crate::schema;
use crate::session::{Session, column, plain, unreadable};

/// Commits, in two round trips: the first locks and returns what the commit depends on, the second writes. `is_kept`: there
/// is a journal. `is_writing` is set before the second is sent: until then a lost connection has written nothing.
pub(crate) async fn run(
    session: &mut Session<'_>,
    commit: &Commit,
    is_kept: bool,
    deadline: &Deadline,
    is_writing: &AtomicBool,
) -> Result<Outcome, Failure> {
    let keys = sql::keys_to_lock(commit);
    let read = Read::locking(Dialect::MySql, &keys);
    let begin = begin(session, deadline);
    let rows = session.rows(begin, &read.statements, Vec::new()).await;
    let found = read.records(undo_if_failed(session, rows).await?);
    let prepared = prepare(commit, &keys, &found, is_kept, session);
    // The server may have been told to stop, and had just stopped by itself.
    match prepared.and_then(|prepared| deadline.check("a lock").map(|()| prepared).map_err(Failure::Final)) {
        Ok(Prepared::Writes(writes)) => {
            is_writing.store(true, Ordering::Relaxed);
            let revision = write(session, commit, is_kept, writes).await?;
            Ok(Outcome::Committed { revision })
        }
        Ok(Prepared::Conflict(key)) => refuse(session, commit, is_kept, Ok(Outcome::Conflict(key))).await,
        Err(failure) => refuse(session, commit, is_kept, Err(failure)).await,
    }
}

/// What begins a transaction that waits for locks until a deadline.
pub(crate) fn begin(session: &mut Session<'_>, deadline: &Deadline) -> Vec<Statement> {
    let lock_waits = session.connection.lock_waits(deadline);
    lock_waits.into_iter().chain([plain("START TRANSACTION")]).collect()
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
    is_kept: bool,
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
    let writes = if is_kept {
        journal::journaled_writes(Dialect::MySql, commit, absent, Revisions::PENDING)
    } else {
        sql::writes_beside(Dialect::MySql, commit, absent)
    };
    let writes = writes.map_err(Failure::Final)?;
    session.fits(&writes)?;
    Ok(Prepared::Writes(writes))
}

/// Ends the transaction of a commit that does not take place as things are. Unless it has: an earlier attempt at it whose
/// answer was lost is done by now, since the locks are had that it held.
async fn refuse(
    session: &mut Session<'_>,
    commit: &Commit,
    is_kept: bool,
    refusal: Result<Outcome, Failure>,
) -> Result<Outcome, Failure> {
    let find = is_kept.then(|| journal::find(Dialect::MySql, commit.id));
    let statements: Vec<Statement> = find.into_iter().chain([plain("ROLLBACK")]).collect();
    let looked = session.run_all(&statements).await;
    let mut answers = undo_if_failed(session, looked).await?;
    match found(answers.swap_remove(0), session.location)? {
        Some(Found::Committed(revision)) => Ok(Outcome::Committed { revision: Some(revision) }),
        Some(Found::Fenced) | None => refusal,
    }
}

/// What the rows of [`journal::find`] say.
pub(crate) fn found(mut rows: Vec<Row>, location: &str) -> Result<Option<Found>, Failure> {
    let Some(mut row) = rows.pop() else { return Ok(None) };
    let found = |row: &mut Row| {
        let (revision, target) = (column::<i64>(row, 0)?, column::<String>(row, 1)?);
        Ok(journal::found(revision, &target))
    };
    found(&mut row).map(Some).map_err(|error| Failure::Final(unreadable(location, error)))
}

/// Writes within a transaction and commits it; returns where the journal has it.
async fn write(
    session: &mut Session<'_>,
    commit: &Commit,
    is_kept: bool,
    writes: Vec<Statement>,
) -> Result<Option<Revision>, Failure> {
    if !is_kept {
        let statements: Vec<Statement> = writes.into_iter().chain([plain("COMMIT")]).collect();
        return match session.run(&statements).await {
            Ok(_) => Ok(None),
            Err((index, error)) if index + 1 == statements.len() => {
                undo_if_failed(session, Err(uncommitted(error, session.location))).await
            }
            Err((index, error)) => explain(session, commit, statements.get(index), error).await,
        };
    }
    match write_journaled(session, commit, Vec::new(), &writes).await {
        Ok(revision) => Ok(Some(revision)),
        Err(Unwritten::Explained(failure)) => Err(failure),
        Err(Unwritten::Refused(index, error)) => explain(session, commit, writes.get(index), error).await,
    }
}

/// Why a commit with its journal was not written.
pub(crate) enum Unwritten {
    /// The statement of this index failed, and the transaction is still open.
    Refused(usize, mysql_async::Error),
    /// This is what it means.
    Explained(Failure),
}

/// Runs `before`, the writes of a commit, whose first inserts its identity, and all that commits them.
pub(crate) async fn write_journaled(
    session: &mut Session<'_>,
    commit: &Commit,
    before: Vec<Statement>,
    writes: &[Statement],
) -> Result<Revision, Unwritten> {
    let location = session.location;
    let first = before.len();
    let take_revision = first + writes.len();
    let statements = before.into_iter().chain(writes.iter().cloned());
    let ends = journal::take_revision(commit.id).into_iter().chain([plain("COMMIT")]);
    let statements: Vec<Statement> = statements.chain(ends).collect();
    let (index, error) = match session.run(&statements).await {
        Ok(mut answers) => {
            let row = answers.get_mut(statements.len() - 2).and_then(|rows| rows.pop());
            let revision = row.map(|mut row| column::<i64>(&mut row, 0)).transpose();
            return match revision {
                Ok(Some(revision)) => Ok(Revision::new(revision as u64)),
                // It is committed: the journal will say where.
                Ok(None) | Err(_) => Err(Unwritten::Explained(Failure::Lost(feast_registry_core::Error::internal(
                    format!("{location}: a commit has no revision"),
                )))),
            };
        }
        Err(failed) => failed,
    };
    let failure = if index + 1 == statements.len() {
        uncommitted(error, location)
    } else if index == first && code(&error) == Some(DUPLICATE) {
        Failure::Repeated(failure(error, location).into_error())
    } else if index >= take_revision && code(&error) == Some(NULL) {
        let failure = Failure::Serialization(failure(error, location).into_error());
        return match undo_if_failed(session, Err::<(), _>(failure)).await {
            Err(failure @ Failure::Serialization(_)) => {
                tracing::warn!(location, "the journal has lost its last revision; going on from what it has");
                let made = session.run_all(&[journal::make_head()]).await;
                Err(Unwritten::Explained(made.map_or_else(|failure| failure, |_| failure)))
            }
            Err(failure) => Err(Unwritten::Explained(failure)),
            Ok(()) => Err(Unwritten::Explained(Failure::silence(location, std::time::Duration::ZERO))),
        };
    } else {
        return Err(Unwritten::Refused(index.saturating_sub(first), error));
    };
    match undo_if_failed(session, Err(failure)).await {
        Err(failure) => Err(Unwritten::Explained(failure)),
        Ok(revision) => Ok(revision),
    }
}

/// Ends the transaction of a statement that failed before anything was committed, and says what that means.
async fn explain<T>(
    session: &mut Session<'_>,
    commit: &Commit,
    statement: Option<&Statement>,
    error: mysql_async::Error,
) -> Result<T, Failure> {
    let too_long = match &error {
        mysql_async::Error::Server(answer) if DATA_TOO_LONG.contains(&answer.code) => Some(answer.message.clone()),
        _ => None,
    };
    let failed = Err(failure(error, session.location));
    let failed = undo_if_failed(session, failed).await;
    let Some(statement) = statement else { return failed };
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

/// Ends the transaction of what failed, so that the connection can be used again; one that is lost or of no use never is.
pub(crate) async fn undo_if_failed<T>(session: &mut Session<'_>, outcome: Result<T, Failure>) -> Result<T, Failure> {
    if !matches!(outcome, Ok(_) | Err(Failure::Lost(_) | Failure::Unusable(_))) {
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
