//! Running the statements that all SQL backends share, within whatever transaction the connection is in.

use feast_registry_core::{Commit, Outcome, Query, Record};
use feast_registry_sql::{self as sql, Dialect, Read, Row, Statement, Value};
use rusqlite::{Connection, Result, params_from_iter};

use crate::error::sqlite_error;

/// Answers queries from one state of the database.
pub(crate) fn read(connection: &Connection, queries: &[Query]) -> feast_registry_core::Result<Vec<Vec<Record>>> {
    let answers = || {
        let read = Read::new(Dialect::Sqlite, queries);
        // One statement sees one state of its own accord; between BEGIN and COMMIT all do.
        let is_transaction = read.statements.len() > 1;
        if is_transaction {
            connection.execute_batch("BEGIN")?;
        }
        let rows = rows(connection, &read.statements);
        if is_transaction {
            connection.execute_batch(if rows.is_ok() { "COMMIT" } else { "ROLLBACK" })?;
        }
        Ok(read.answers(queries, rows?))
    };
    answers()
        .map_err(|error| sqlite_error(error, connection.path().filter(|path| !path.is_empty()).unwrap_or(":memory:")))
}

/// Checks and writes a commit. An error leaves the transaction to be rolled back.
pub(crate) fn commit(connection: &Connection, commit: &Commit) -> Result<Outcome> {
    let keys = commit.expectations.iter().map(|(key, _)| key.clone()).collect();
    let queries = [Query::Keys(keys)];
    let read = Read::new(Dialect::Sqlite, &queries);
    let found = read.answers(&queries, rows(connection, &read.statements)?).remove(0);
    if let Some(key) = sql::conflict(&commit.expectations, &found) {
        return Ok(Outcome::Conflict(key));
    }
    let writes = sql::writes(Dialect::Sqlite, commit)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    for Statement { text, values } in &writes {
        connection.prepare_cached(text)?.execute(params_from_iter(values.iter().map(parameter)))?;
    }
    Ok(Outcome::Committed)
}

fn rows(connection: &Connection, statements: &[Statement]) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for Statement { text, values } in statements {
        let mut statement = connection.prepare_cached(text)?;
        let found = statement.query_map(params_from_iter(values.iter().map(parameter)), row)?;
        for row in found {
            rows.push(row?);
        }
    }
    Ok(rows)
}

fn parameter(value: &Value) -> rusqlite::types::ToSqlOutput<'_> {
    use rusqlite::types::{ToSqlOutput, Value as Owned, ValueRef};
    match value {
        Value::Text(text) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
        Value::Bytes(bytes) => ToSqlOutput::Borrowed(ValueRef::Blob(bytes)),
        Value::Integer(number) => ToSqlOutput::Owned(Owned::from(*number)),
        Value::BigInteger(number) => ToSqlOutput::Owned(Owned::from(*number)),
    }
}

fn row(row: &rusqlite::Row<'_>) -> Result<Row> {
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
