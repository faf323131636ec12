//! Making, verifying and removing the tables.

use feast_registry_core::{ErrorKind, Kind};
use feast_registry_sql::{self as sql, Dialect, JOURNAL, Statement, Value};

use crate::error::Failure;
use crate::locks;
use crate::session::{Session, plain};

/// How long a removal of the tables waits for a lock, in milliseconds. Who waits for a table has all who come after it wait,
/// readers too; and a reader may hold one table and wait for the next, which this has already.
const LOCKS_WITHIN_MS: i64 = 100;

/// The names of the tables that are missing from the schemas that the session works in, Feast's and the journal's. A journal
/// further down in the search path, which is not beside Feast's tables, is another registry's.
pub(crate) async fn missing(session: &Session<'_>) -> Result<Vec<&'static str>, Failure> {
    let tables: Vec<&'static str> = sql::tables().iter().map(|table| table.name).chain([JOURNAL]).collect();
    let signs: Vec<String> = (1..=tables.len()).map(|index| format!("(${index})")).collect();
    let wanted = Statement {
        text: format!(
            "SELECT name FROM (VALUES {}) AS wanted (name) WHERE to_regclass(name) IS NULL OR (name = '{JOURNAL}' AND \
             (SELECT relnamespace FROM pg_class WHERE oid = to_regclass(name)) NOT IN (SELECT relnamespace FROM pg_class \
             WHERE oid = to_regclass('{}') UNION ALL SELECT oid FROM pg_namespace WHERE nspname = current_schema()))",
            signs.join(", "),
            sql::object_table(Kind::Project).table
        ),
        values: tables.iter().map(|table| Value::Text((*table).to_owned())).collect(),
    };
    let rows = session.run_all(&[wanted]).await?.remove(0);
    let names = rows.iter().map(|row| row.try_get::<_, String>(0)).collect::<Result<Vec<_>, _>>();
    let names = names.map_err(|error| session.failure(error))?;
    Ok(tables.into_iter().filter(|table| names.iter().any(|name| name == table)).collect())
}

/// The statements that make all tables that are not there, within a transaction that has locked the registry.
pub(crate) fn create(with_journal: bool) -> Vec<Statement> {
    let mut tables = sql::tables();
    tables.extend(with_journal.then(|| sql::journal::table(Dialect::PostgreSql)));
    tables.iter().flat_map(|table| sql::create_table(Dialect::PostgreSql, table, "")).map(plain).collect()
}

/// Removes Feast's tables if no project is left; returns whether it did. The journal stays.
pub(crate) async fn remove_if_empty(session: &Session<'_>, timeout: i64) -> Result<bool, Failure> {
    let projects = sql::object_table(Kind::Project).table;
    let exists = plain(format!("SELECT EXISTS (SELECT 1 FROM {projects})"));
    let has_project = |rows: Option<&Vec<tokio_postgres::Row>>| {
        rows.and_then(|rows| rows.first()).is_none_or(|row| row.try_get(0).unwrap_or(true))
    };
    // Mostly a project is left: then nobody is made to wait.
    if has_project(session.run_all(std::slice::from_ref(&exists)).await?.last()) {
        return Ok(false);
    }
    let timeout = timeout.min(LOCKS_WITHIN_MS);
    // Nobody writes while this looks and removes, Feast's own registry included. A database without such locks keeps its
    // tables: a removal is no part of what SERIALIZABLE keeps apart.
    let mut look = session.locks(locks::of_registry, timeout);
    look.push(plain(format!("LOCK TABLE {projects} IN ACCESS EXCLUSIVE MODE")));
    look.push(exists);
    look.insert(0, plain(session.begin()));
    let looked = session.run_all(&look).await;
    if looked.as_ref().map_or(true, |answers| has_project(answers.last())) {
        session.run_all(&[plain("ROLLBACK")]).await?;
        return match looked {
            Err(Failure::Final(error)) if error.kind() == ErrorKind::Internal => {
                tracing::info!(%error, "the tables stay: this database cannot lock them");
                Ok(false)
            }
            looked => looked.map(|_| false).map_err(makes_room),
        };
    }
    let tables: Vec<&str> = sql::tables().iter().map(|table| table.name).collect();
    let drop_all = plain(format!("DROP TABLE IF EXISTS {}", tables.join(", ")));
    session.run_all(&[drop_all, plain("COMMIT")]).await.map_err(makes_room)?;
    tracing::info!(
        location = session.location,
        "no project is left, so the registry's tables were dropped, and the rights on them with them; {JOURNAL} stays. The \
         next write makes them again"
    );
    Ok(true)
}

/// A lock that was not to be had in time is tried for again, after those who wait.
fn makes_room(failure: Failure) -> Failure {
    match failure {
        Failure::Final(error) if error.kind() == ErrorKind::Unavailable => Failure::Serialization(error),
        failure => failure,
    }
}
