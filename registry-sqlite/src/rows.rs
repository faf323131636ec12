//! Running the statements that all SQL backends share, within whatever transaction the connection is in.

use std::ops::{Deref, DerefMut};

use std::collections::BTreeSet;

use feast_registry_core::{
    Commit, CommitId, Environment as _, Error, ErrorKind, JournalQuery, Key, Outcome, Query, Record, Retention,
    Revision, System,
};
use feast_registry_sql::journal::{self, JournalRow, Revisions};
use feast_registry_sql::{self as sql, Dialect, Found, JOURNAL, Read, Row, Statement, Value};
use rusqlite::types::{ToSqlOutput, Type, Value as Owned, ValueRef};
use rusqlite::{CachedStatement, Connection, OptionalExtension as _, Result, params_from_iter};

/// Statements with more values are not kept prepared: they are lists of keys, of which nearly every length is another
/// statement, and of a size that grows with it.
const MAX_CACHED_VALUES: usize = 32;

/// Answers queries from one state of the database.
pub(crate) fn read(connection: &Connection, queries: &[Query]) -> Result<Vec<Vec<Record>>> {
    let read = Read::new(Dialect::Sqlite, queries);
    // One statement sees one state of its own accord.
    if read.statements.len() > 1 {
        at_once(connection, || answers(connection, &read, queries))
    } else {
        answers(connection, &read, queries)
    }
}

/// Reads entries of the journal; `None` if it does not have the revision that they are to come after.
pub(crate) fn read_journal(connection: &Connection, query: &JournalQuery) -> Result<Option<Vec<JournalRow>>> {
    let (known, read) = journal::read(Dialect::Sqlite, query, None);
    at_once(connection, || {
        if let Some(known) = known
            && !prepared(connection, &known)?.exists(params(&known))?
        {
            return Ok(None);
        }
        let mut statement = prepared(connection, &read)?;
        let rows = statement.query_map(params(&read), journal_row)?;
        rows.collect::<Result<_>>().map(Some)
    })
}

/// The highest revision of the journal.
pub(crate) fn newest_revision(connection: &Connection) -> Result<Option<Revision>> {
    let Statement { text, .. } = journal::newest_revision();
    let newest: Option<i64> = connection.prepare_cached(&text)?.query_row((), |row| row.get(0)).optional()?;
    Ok(newest.map(|newest| Revision::new(newest as u64)))
}

/// Runs statements that only read, all on one state of the database.
fn at_once<T>(connection: &Connection, run: impl FnOnce() -> Result<T>) -> Result<T> {
    connection.execute_batch("BEGIN")?;
    let done = run();
    connection.execute_batch(if done.is_ok() { "COMMIT" } else { "ROLLBACK" })?;
    done
}

/// The key of an expectation of a commit that does not hold.
pub(crate) fn conflict(connection: &Connection, commit: &Commit) -> Result<Option<Key>> {
    let keys = commit.expectations.iter().map(|(key, _)| key.clone()).collect();
    let queries = [Query::Keys(keys)];
    let read = Read::new(Dialect::Sqlite, &queries);
    let found = answers(connection, &read, &queries)?.remove(0);
    Ok(sql::conflict(&commit.expectations, &found))
}

/// The statements that write a commit whose expectations hold, with its journal if that has a `revision`.
///
/// # Errors
/// `Corrupt` when the value of a version is no record of a version.
pub(crate) fn writes(commit: &Commit, revision: Option<i64>) -> Result<Vec<Statement>, Error> {
    match revision {
        Some(revision) => {
            journal::journaled_writes(Dialect::Sqlite, commit, sql::absent(commit), Revisions::Number(revision))
        }
        None => sql::writes(Dialect::Sqlite, commit),
    }
}

/// Runs statements that write.
pub(crate) fn execute(connection: &Connection, statements: &[Statement]) -> Result<()> {
    statements.iter().try_for_each(|statement| prepared(connection, statement)?.execute(params(statement)).map(drop))
}

/// The outcome that a commit has had, if the journal has it and it was not fenced off.
pub(crate) fn find(connection: &Connection, id: CommitId) -> Result<Option<Found>> {
    let find = journal::find(Dialect::Sqlite, id);
    let mut statement = prepared(connection, &find)?;
    let mut found =
        statement.query_map(params(&find), |row| Ok(journal::found(row.get(0)?, &row.get::<_, String>(1)?)))?;
    found.next().transpose()
}

/// [`find`] as an outcome.
pub(crate) fn outcome(connection: &Connection, id: CommitId) -> Result<Option<Outcome>> {
    Ok(match find(connection, id)? {
        Some(Found::Committed(revision)) => Some(Outcome::Committed { revision: Some(revision) }),
        Some(Found::Fenced) | None => None,
    })
}

/// Takes the identity of a commit for good.
pub(crate) fn fence(connection: &Connection, commit: &Commit) -> Result<()> {
    let revision = Revisions::Number(next_revision(connection)?);
    execute(connection, &[journal::fence(Dialect::Sqlite, commit, revision)])
}

/// The revision of the next commit: the moment in microseconds, or the one after the newest if that is later. So, unless the
/// clock was set back, it is not given again when an older state of the file is restored, and a reader who was beyond that is
/// told to begin anew.
///
/// It is read in each transaction, since other processes write too.
pub(crate) fn next_revision(connection: &Connection) -> Result<i64> {
    let newest = connection
        .prepare_cached(&format!("SELECT max(revision) FROM {JOURNAL}"))?
        .query_row((), |row| row.get::<_, Option<i64>>(0))?;
    let now = System.now();
    let moment = now.seconds.saturating_mul(1_000_000).saturating_add(i64::from(now.nanos / 1000));
    Ok(newest.map_or(moment, |newest| newest.saturating_add(1).max(moment)))
}

/// Removes some of what the journal need not keep; returns how many commits that were.
pub(crate) fn prune(connection: &Connection, retention: Retention) -> Result<u64> {
    let mut prune = journal::prune(Dialect::Sqlite, retention);
    prune.text.push_str(" RETURNING revision");
    let mut prepared = prepared(connection, &prune)?;
    let revisions = prepared.query_map(params(&prune), |row| row.get::<_, i64>(0))?;
    Ok(revisions.collect::<Result<BTreeSet<_>>>()?.len() as u64)
}

fn answers(connection: &Connection, read: &Read, queries: &[Query]) -> Result<Vec<Vec<Record>>> {
    let mut answers = read.begin_answers(queries);
    for statement in &read.statements {
        let mut prepared = prepared(connection, statement)?;
        for row in prepared.query_map(params(statement), row)? {
            answers.add(row?);
        }
    }
    Ok(answers.finish())
}

/// A statement that goes back to the cache of its connection, if it is one that comes again.
enum Prepared<'a> {
    Kept(CachedStatement<'a>),
    Once(rusqlite::Statement<'a>),
}

fn prepared<'a>(connection: &'a Connection, statement: &Statement) -> Result<Prepared<'a>> {
    Ok(if statement.values.len() <= MAX_CACHED_VALUES {
        Prepared::Kept(connection.prepare_cached(&statement.text)?)
    } else {
        Prepared::Once(connection.prepare(&statement.text)?)
    })
}

impl<'a> Deref for Prepared<'a> {
    type Target = rusqlite::Statement<'a>;

    fn deref(&self) -> &Self::Target {
        match self {
            Prepared::Kept(statement) => statement,
            Prepared::Once(statement) => statement,
        }
    }
}

impl DerefMut for Prepared<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        match self {
            Prepared::Kept(statement) => statement,
            Prepared::Once(statement) => statement,
        }
    }
}

fn params(statement: &Statement) -> impl rusqlite::Params {
    params_from_iter(statement.values.iter().map(parameter))
}

fn parameter(value: &Value) -> ToSqlOutput<'_> {
    match value {
        Value::Text(text) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
        Value::Bytes(bytes) => ToSqlOutput::Borrowed(ValueRef::Blob(bytes)),
        Value::Integer(number) => ToSqlOutput::Owned(Owned::from(*number)),
        Value::BigInteger(number) => ToSqlOutput::Owned(Owned::from(*number)),
        Value::NoText => ToSqlOutput::Owned(Owned::Null),
    }
}

fn row(row: &rusqlite::Row<'_>) -> Result<Row> {
    read_row(row).map_err(|error| unreadable(row, &error))
}

/// The error of a row with a value that cannot be what it should be, which names the row.
fn unreadable(row: &rusqlite::Row<'_>, error: &rusqlite::Error) -> rusqlite::Error {
    let text = |column| match row.get_ref(column) {
        Ok(ValueRef::Text(text) | ValueRef::Blob(text)) => String::from_utf8_lossy(text).into_owned(),
        _ => "?".to_owned(),
    };
    let text = format!("the row of `{}` of project `{}`: {error}", text(2), text(1));
    rusqlite::Error::FromSqlConversionFailure(4, Type::Blob, Error::new(ErrorKind::Corrupt, text).into())
}

fn read_row(row: &rusqlite::Row<'_>) -> Result<Row> {
    Ok(Row {
        term: row.get(0)?,
        project: row.get(1)?,
        name: row.get(2)?,
        number: row.get(3)?,
        value: row.get::<_, Vec<u8>>(4)?.into(),
        updated: row.get(5)?,
        position: row.get(6)?,
        view_type: row.get(7)?,
        description: row.get(8)?,
        version_id: row.get(9)?,
    })
}

fn journal_row(row: &rusqlite::Row<'_>) -> Result<JournalRow> {
    Ok(JournalRow {
        revision: row.get(0)?,
        commit_id: row.get(1)?,
        change_number: row.get(2)?,
        committed_at: row.get(3)?,
        author: row.get(4)?,
        reason: row.get(5)?,
        target: row.get(6)?,
        project: row.get(7)?,
        name: row.get(8)?,
        number: row.get(9)?,
        value_before: row.get::<_, Option<Vec<u8>>>(10)?.map(Into::into),
        value_after: row.get::<_, Option<Vec<u8>>>(11)?.map(Into::into),
        version_type: row.get(12)?,
        version_created: row.get(13)?,
        version_description: row.get(14)?,
        version_id: row.get(15)?,
        before_length: row.get(16)?,
    })
}

#[cfg(test)]
mod tests {
    use feast_registry_core::{Kind, Write};
    use rusqlite::StatementStatus;

    use super::*;
    use crate::connection::{self, Location};
    use crate::schema;

    fn database() -> Connection {
        let connection = Connection::open_in_memory().expect("a database in memory");
        schema::create_missing(&connection).expect("the tables are made");
        connection
    }

    #[test]
    fn a_row_that_cannot_be_read_is_named() {
        let connection = database();
        connection.execute_batch("INSERT INTO entities VALUES ('driver', 'taxi', 7, 12)").expect("a number is stored");
        let error = read(&connection, &[Query::objects(Kind::Entity, None)]).expect_err("a number is no message");
        let error = Error::from(crate::error::Problem::of(error, "registry.db"));
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(error.to_string().contains("`driver` of project `taxi`"), "{error}");
    }

    #[test]
    fn a_statement_that_is_kept_is_planned_once() {
        let connection = connection::open_writer(&Location::Memory).expect("a database in memory");
        schema::create_missing(&connection).expect("the tables are made");
        for number in 0..3 {
            let view = format!("view {number}");
            let keys = Kind::VIEWS.iter().map(|kind| Key::object(*kind, "p", &view)).collect();
            let versions = Query::Versions { project: "p".to_owned(), view, latest_only: true };
            let queries = [Query::Keys(keys), versions];
            read(&connection, &queries).expect("a read");
            let puts = vec![Write::Put(Record::new(Key::object(Kind::FeatureView, "p", "view"), "a view", number))];
            let commit = Commit::new(vec![], puts);
            let writes = writes(&commit, Some(number + 1)).expect("statements");
            execute(&connection, &writes).expect("a commit");
            for statement in Read::new(Dialect::Sqlite, &queries).statements.iter().chain(&writes) {
                let prepared = prepared(&connection, statement).expect("it is prepared");
                let planned_anew = prepared.get_status(StatementStatus::RePrepare);
                assert_eq!(planned_anew, 0, "round {number}: {}", statement.text);
            }
        }
    }

    #[test]
    fn lists_of_keys_of_every_length_are_not_kept_prepared() {
        let connection = database();
        let keys = |count: usize| (0..count).map(|number| Key::object(Kind::Entity, "p", number.to_string())).collect();
        for (count, is_kept) in [(1, true), (16, true), (17, false), (500, false)] {
            let read = Read::new(Dialect::Sqlite, &[Query::Keys(keys(count))]);
            let statement = prepared(&connection, &read.statements[0]).expect("it is prepared");
            assert_eq!(matches!(statement, Prepared::Kept(_)), is_kept, "{count} keys");
        }
    }
}
