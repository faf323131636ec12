//! Making, verifying and removing the tables.

use feast_registry_core::{ErrorKind, Kind};
use feast_registry_sql::{self as sql, Dialect, Statement, Value};

use crate::error::Failure;
use crate::session::{Session, plain};
use crate::{Engine, locks};

/// The names of the tables that are missing from the schema that the session works in.
pub(crate) async fn missing(session: &Session<'_>) -> Result<Vec<&'static str>, Failure> {
    let tables = sql::tables();
    let signs: Vec<String> = (1..=tables.len()).map(|index| format!("(${index})")).collect();
    let wanted = Statement {
        text: format!(
            "SELECT name FROM (VALUES {}) AS wanted (name) WHERE to_regclass(name) IS NULL",
            signs.join(", ")
        ),
        values: tables.iter().map(|table| Value::Text(table.name.to_owned())).collect(),
    };
    let rows = session.run_all(&[wanted]).await?.remove(0);
    let names = rows.iter().map(|row| row.try_get::<_, String>(0)).collect::<Result<Vec<_>, _>>();
    let names = names.map_err(|error| session.failure(error))?;
    Ok(tables.iter().map(|table| table.name).filter(|table| names.iter().any(|name| name == table)).collect())
}

/// The statements that make all tables that are not there, within a transaction that has locked the registry.
pub(crate) fn create() -> Vec<Statement> {
    let create = |table: &sql::Table| sql::create_table(Dialect::PostgreSql, table, "");
    sql::tables().iter().flat_map(create).map(plain).collect()
}

/// Makes the tables that are missing.
pub(crate) async fn make(session: &Session<'_>, engine: Engine) -> Result<(), Failure> {
    let mut statements = vec![plain("BEGIN")];
    if engine.has_advisory_locks() {
        statements.push(locks::of_registry());
    }
    statements.extend(create());
    statements.push(plain("COMMIT"));
    session.run_all(&statements).await.map(drop)
}

/// Removes the tables if no project is left; returns whether it did.
pub(crate) async fn remove_if_empty(session: &Session<'_>, engine: Engine) -> Result<bool, Failure> {
    let projects = sql::object_table(Kind::Project).table;
    let mut statements = vec![plain(engine.begin())];
    if engine.has_advisory_locks() {
        statements.push(locks::of_registry());
    }
    // Nobody writes while this looks and removes, Feast's own registry included. A database without such locks keeps its
    // tables: a removal is no part of what SERIALIZABLE keeps apart.
    statements.push(plain(format!("LOCK TABLE {projects} IN ACCESS EXCLUSIVE MODE")));
    statements.push(plain(format!("SELECT EXISTS (SELECT 1 FROM {projects})")));
    let looked = session.run_all(&statements).await;
    let has_project = looked.as_ref().is_ok_and(|answers| {
        answers.last().and_then(|rows| rows.first()).is_none_or(|row| row.try_get(0).unwrap_or(true))
    });
    if has_project || looked.is_err() {
        session.run_all(&[plain("ROLLBACK")]).await?;
        return match looked {
            Err(Failure::Final(error)) if error.kind() == ErrorKind::Internal => {
                tracing::info!(%error, "the tables stay: this database cannot lock them");
                Ok(false)
            }
            looked => looked.map(|_| false),
        };
    }
    let tables: Vec<&str> = sql::tables().iter().map(|table| table.name).collect();
    let drop_all = plain(format!("DROP TABLE IF EXISTS {}", tables.join(", ")));
    session.run_all(&[drop_all, plain("COMMIT")]).await?;
    Ok(true)
}
