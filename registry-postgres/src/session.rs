//! Running statements on one connection, many of them in one round trip.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use registry_core::sql::{Row, Statement, Value};
use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use crate::error::{Failure, failure};

/// What a statement returns.
pub(crate) type Answer = Result<Vec<tokio_postgres::Row>, tokio_postgres::Error>;

/// A connection in use.
pub(crate) struct Session<'a> {
    pub(crate) client: &'a Client,
    /// Where the database is, without secrets.
    pub(crate) location: &'a str,
    /// Whether every statement is logged.
    pub(crate) echo: bool,
}

impl Session<'_> {
    /// Runs statements in one round trip: each is sent before any is answered. The answers are those of all of them, in
    /// order; after one that fails within a transaction, the others fail too.
    ///
    /// None is prepared by name. That leaves nothing behind on the server, which is what lets a pooler give each
    /// transaction another server connection, and no plan can grow stale when tables are made anew.
    pub(crate) async fn run(&self, statements: &[Statement]) -> Vec<Answer> {
        if self.echo {
            statements.iter().for_each(|statement| tracing::info!(location = self.location, "{}", statement.text));
        }
        let mut requests: Vec<Pin<Box<dyn Future<Output = Answer> + Send + '_>>> =
            statements.iter().map(|statement| Box::pin(query(self.client, statement)) as _).collect();
        // A request is sent when it is first polled.
        let mut answers: Vec<Option<Answer>> = poll_fn(|context| {
            let first = requests.iter_mut().map(|request| match request.as_mut().poll(context) {
                Poll::Ready(answer) => Some(answer),
                Poll::Pending => None,
            });
            Poll::Ready(first.collect())
        })
        .await;
        let mut all = Vec::with_capacity(requests.len());
        for (request, answer) in requests.into_iter().zip(&mut answers) {
            all.push(match answer.take() {
                Some(answer) => answer,
                None => request.await,
            });
        }
        all
    }

    /// Runs statements in one round trip; what they return, or what went wrong first.
    pub(crate) async fn run_all(&self, statements: &[Statement]) -> Result<Vec<Vec<tokio_postgres::Row>>, Failure> {
        let answers = self.run(statements).await;
        answers.into_iter().collect::<Result<_, _>>().map_err(|error| self.failure(error))
    }

    /// Runs the statements of a [`registry_core::sql::Read`], with others around them that return nothing to read.
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

async fn query(client: &Client, Statement { text, values }: &Statement) -> Answer {
    if values.is_empty() {
        // BEGIN and COMMIT are understood by poolers only in the simple form, and DDL needs no other.
        if !text.starts_with("SELECT") {
            return client.batch_execute(text).await.map(|()| Vec::new());
        }
        return client.query_typed(text, &[]).await;
    }
    let values: Vec<(Parameter<'_>, Type)> = values.iter().map(parameter).collect();
    let values: Vec<(&(dyn ToSql + Sync), Type)> =
        values.iter().map(|(value, kind)| (value.as_sql(), kind.clone())).collect();
    client.query_typed(text, &values).await
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
}

impl Parameter<'_> {
    fn as_sql(&self) -> &(dyn ToSql + Sync) {
        match self {
            Parameter::Text(value) => value,
            Parameter::Bytes(value) => value,
            Parameter::Integer(value) => value,
            Parameter::BigInteger(value) => value,
        }
    }
}

fn parameter(value: &Value) -> (Parameter<'_>, Type) {
    match value {
        Value::Text(text) => (Parameter::Text(text), Type::TEXT),
        Value::Bytes(bytes) => (Parameter::Bytes(bytes), Type::BYTEA),
        Value::Integer(number) => (Parameter::Integer(*number), Type::INT4),
        Value::BigInteger(number) => (Parameter::BigInteger(*number), Type::INT8),
    }
}

/// A row of a [`registry_core::sql::Read`].
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
