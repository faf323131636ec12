//! Running statements on one connection, many of them in one round trip.
//!
//! MySQL's protocol has no pipelining: one statement is answered before the next is sent. But one request may hold
//! several statements, which the server runs in order until one fails, and answers together. So statements are sent as
//! text, with their values written out as hexadecimal digits, which no setting of a session can read in another way;
//! only what is large goes alone and in binary form, prepared, where its size does not double.

use std::fmt::Write as _;

use feast_registry_core::{Error, Result};
use feast_registry_sql::{self as sql, Statement, Value};
use mysql_async::prelude::Queryable;
use mysql_async::{FromValueError, Row, from_value_opt};

use crate::connector::Connection;
use crate::error::{Failure, failure};

/// The most bytes of values that are sent as text.
const MAX_AS_TEXT: usize = 32 * 1024;
/// About the most bytes that are sent in one request.
const MAX_REQUEST: usize = 512 * 1024;

/// A connection in use.
pub(crate) struct Session<'a> {
    pub(crate) connection: &'a mut Connection,
    /// Where the database is, without secrets.
    pub(crate) location: &'a str,
    /// The most bytes of values that the server takes in one request.
    pub(crate) max_packet: usize,
    /// Whether rows can be locked so that others may do the same.
    pub(crate) has_shared_locks: bool,
    /// Whether every statement is logged.
    pub(crate) echo: bool,
}

/// What the server says to a statement.
pub(crate) struct Answer {
    pub(crate) rows: Vec<Row>,
    /// The number that it says was inserted; 0 is none.
    pub(crate) inserted: u64,
}

/// A statement that failed: which one it was, and why.
pub(crate) type Failed = (usize, mysql_async::Error);

impl Session<'_> {
    /// Runs statements in order, in as few round trips as possible: what each returns, or what went wrong first. Those
    /// after one that fails are not run.
    pub(crate) async fn run(&mut self, statements: &[Statement]) -> Result<Vec<Answer>, Failed> {
        // It stays so when this is dropped, and when the connection fails.
        self.connection.is_at_work = true;
        let answers = self.run_in_order(statements).await;
        self.connection.is_at_work = !matches!(answers, Ok(_) | Err((_, mysql_async::Error::Server(_))));
        answers
    }

    async fn run_in_order(&mut self, statements: &[Statement]) -> Result<Vec<Answer>, Failed> {
        if self.echo {
            statements.iter().for_each(|statement| tracing::info!(location = self.location, "{}", statement.text));
        }
        let mut answers = Vec::with_capacity(statements.len());
        let mut rest = statements;
        while let Some(first) = rest.first() {
            let done = answers.len();
            if size(first) > MAX_AS_TEXT {
                let rows = self.execute(first).await.map_err(|error| (done, error))?;
                answers.push(Answer { rows, inserted: 0 });
                rest = &rest[1..];
                continue;
            }
            let mut request = String::new();
            let mut count = 0;
            for statement in rest.iter().take_while(|statement| size(statement) <= MAX_AS_TEXT) {
                if count > 0 {
                    if request.len() > MAX_REQUEST {
                        break;
                    }
                    request.push_str("; ");
                }
                write_out(&mut request, statement);
                count += 1;
            }
            self.request(request, count, &mut answers).await?;
            rest = &rest[count..];
        }
        Ok(answers)
    }

    async fn request(&mut self, text: String, count: usize, answers: &mut Vec<Answer>) -> Result<(), Failed> {
        let mut result = self.connection.conn.query_iter(text).await.map_err(|error| (answers.len(), error))?;
        for _ in 0..count {
            let inserted = result.last_insert_id().unwrap_or_default();
            let rows = result.collect::<Row>().await.map_err(|error| (answers.len(), error))?;
            answers.push(Answer { rows, inserted });
        }
        result.drop_result().await.map_err(|error| (answers.len(), error))
    }

    /// Runs a statement with large values.
    async fn execute(&mut self, statement: &Statement) -> Result<Vec<Row>, mysql_async::Error> {
        let values: Vec<mysql_async::Value> = statement
            .values
            .iter()
            .map(|value| match value {
                Value::Text(text) => mysql_async::Value::Bytes(text.as_bytes().to_vec()),
                Value::Bytes(bytes) => mysql_async::Value::Bytes(bytes.to_vec()),
                Value::Integer(number) => mysql_async::Value::Int((*number).into()),
                Value::BigInteger(number) => mysql_async::Value::Int(*number),
                Value::NoText => mysql_async::Value::NULL,
            })
            .collect();
        self.connection.conn.exec(statement.text.as_str(), values).await
    }

    /// Runs statements; what they return, or what went wrong first.
    pub(crate) async fn run_all(&mut self, statements: &[Statement]) -> Result<Vec<Vec<Row>>, Failure> {
        let location = self.location;
        self.run(statements).await.map(rows).map_err(|(_, error)| failure(error, location))
    }

    /// Runs the statements of a [`feast_registry_sql::Read`], with others around them that return nothing to read.
    pub(crate) async fn rows(
        &mut self,
        before: Vec<Statement>,
        read: &[Statement],
        after: Vec<Statement>,
    ) -> Result<Vec<sql::Row>, Failure> {
        let range = before.len()..before.len() + read.len();
        let statements: Vec<Statement> = before.into_iter().chain(read.iter().cloned()).chain(after).collect();
        let mut answers = self.run_all(&statements).await?;
        let rows = answers.drain(range).flatten().map(row);
        rows.collect::<Result<_, _>>().map_err(|error| Failure::Final(unreadable(self.location, error)))
    }

    /// Refuses what the server would not take: it would close the connection, and the caller could not tell that from
    /// an accident.
    pub(crate) fn fits(&self, statements: &[Statement]) -> Result<(), Failure> {
        match statements.iter().map(size).max() {
            Some(largest) if largest > self.max_packet => Err(Failure::Final(Error::invalid(format!(
                "{}: something to be stored has {largest} bytes, and the server takes at most {} at once; raise its \
                 max_allowed_packet",
                self.location, self.max_packet
            )))),
            _ => Ok(()),
        }
    }
}

/// The rows of each answer.
pub(crate) fn rows(answers: Vec<Answer>) -> Vec<Vec<Row>> {
    answers.into_iter().map(|answer| answer.rows).collect()
}

/// Whether statements go in one request.
pub(crate) fn is_one_request(statements: &[Statement]) -> bool {
    let sizes = || statements.iter().map(size);
    // What is no plain text takes twice its size, see `write_out`.
    let text: usize = statements.iter().map(|statement| statement.text.len()).sum();
    sizes().all(|size| size <= MAX_AS_TEXT) && text + 2 * sizes().sum::<usize>() <= MAX_REQUEST
}

/// A statement without parameters.
pub(crate) fn plain(text: impl Into<String>) -> Statement {
    Statement { text: text.into(), values: Vec::new() }
}

/// What a statement takes in a request of its own.
fn size(statement: &Statement) -> usize {
    let values = statement.values.iter().map(|value| match value {
        Value::Text(text) => text.len() + 16,
        Value::Bytes(bytes) => bytes.len() + 16,
        Value::Integer(_) | Value::BigInteger(_) | Value::NoText => 16,
    });
    values.sum()
}

/// Writes a statement with its values in their places. The statements of the registry have no `?` but for parameters.
fn write_out(request: &mut String, statement: &Statement) {
    let mut values = statement.values.iter();
    let mut parts = statement.text.split('?');
    request.push_str(parts.next().unwrap_or_default());
    for part in parts {
        if let Some(value) = values.next() {
            write_value(request, value);
        }
        request.push_str(part);
    }
}

fn write_value(request: &mut String, value: &Value) {
    let hexadecimal = |request: &mut String, bytes: &[u8]| {
        request.push_str("x'");
        let digit = |half: u8| char::from(b"0123456789abcdef"[usize::from(half)]);
        request.extend(bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]));
        request.push('\'');
    };
    match value {
        // What people look for in the server's own logs.
        Value::Text(text) if text.bytes().all(is_plain) => drop(write!(request, "'{text}'")),
        Value::Text(text) => {
            request.push_str("_utf8mb4 ");
            hexadecimal(request, text.as_bytes());
        }
        Value::Bytes(bytes) => hexadecimal(request, bytes),
        Value::Integer(number) => drop(write!(request, "{number}")),
        Value::BigInteger(number) => drop(write!(request, "{number}")),
        Value::NoText => request.push_str("NULL"),
    }
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_-. ".contains(&byte)
}

/// A column of a row.
pub(crate) fn column<T: mysql_async::prelude::FromValue>(row: &mut Row, index: usize) -> Result<T, FromValueError> {
    from_value_opt(row.take(index).unwrap_or(mysql_async::Value::NULL))
}

/// A row of a [`feast_registry_sql::Read`].
fn row(mut row: Row) -> Result<sql::Row, FromValueError> {
    let row = &mut row;
    Ok(sql::Row {
        term: column(row, 0)?,
        project: column(row, 1)?,
        name: column(row, 2)?,
        number: column(row, 3)?,
        value: column::<Vec<u8>>(row, 4)?.into(),
        updated: column(row, 5)?,
        position: column(row, 6)?,
        view_type: column(row, 7)?,
        description: column(row, 8)?,
        version_id: column(row, 9)?,
    })
}

/// A row does not have what was selected.
pub(crate) fn unreadable(location: &str, error: FromValueError) -> Error {
    Error::new(feast_registry_core::ErrorKind::Corrupt, format!("{location}: a row cannot be read ({error})"))
        .with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_where_they_belong() {
        let statement = Statement {
            text: "INSERT INTO t VALUES (?, ?, ?, ?, ?) -- end".to_owned(),
            values: vec![
                Value::Text("driver_stats v1.2".to_owned()),
                Value::Text("o'\\é?".to_owned()),
                Value::Bytes(vec![0, 0x27, 0xff].into()),
                Value::BigInteger(-7),
                Value::NoText,
            ],
        };
        let mut text = String::new();
        write_out(&mut text, &statement);
        assert_eq!(
            text,
            "INSERT INTO t VALUES ('driver_stats v1.2', _utf8mb4 x'6f275cc3a93f', x'0027ff', -7, NULL) -- end"
        );
    }
}
