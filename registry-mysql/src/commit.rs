//! The two halves of a commit: what follows from the rows that it has locked, and what it writes.

use std::collections::HashSet;

use feast_registry_core::{Commit, Key, Record, Write};
use feast_registry_sql::{self as sql, Dialect, Read, Statement};

use crate::error::{DATA_TOO_LONG, Failure, failure};
use crate::schema;
use crate::session::{Session, plain};

/// What follows from what a commit has found.
pub(crate) enum Prepared {
    /// It does not take place: something else is expected under this key.
    Conflict(Key),
    /// It writes this.
    Writes(Vec<Statement>),
}

/// Holds a commit against what it found under the keys that it locked, each with the index of its key.
pub(crate) fn prepare(
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
pub(crate) async fn write(
    session: &mut Session<'_>,
    commit: &Commit,
    mut statements: Vec<Statement>,
) -> Result<(), Failure> {
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
pub(crate) async fn undo_if_failed<T>(session: &mut Session<'_>, outcome: Result<T, Failure>) -> Result<T, Failure> {
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
