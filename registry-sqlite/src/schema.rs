//! Making, verifying and removing the tables.

use feast_registry_core::config::SchemaMode;
use feast_registry_core::{Error, ErrorKind, Kind};
use feast_registry_sql::{self as sql, Dialect, Table};
use rusqlite::{Connection, Result, Transaction, TransactionBehavior};

/// Makes the tables that are missing, or says which are. If none is, nothing is locked.
pub(crate) fn prepare(connection: &mut Connection, mode: SchemaMode) -> Result<Result<(), Error>> {
    if mode == SchemaMode::Skip {
        return Ok(Ok(()));
    }
    let missing = missing_tables(connection)?;
    if missing.is_empty() {
        return Ok(Ok(()));
    }
    if mode == SchemaMode::Verify {
        let names: Vec<_> = missing.iter().map(|table| table.name).collect();
        return Ok(Err(Error::new(
            ErrorKind::SchemaMissing,
            format!(
                "the registry lacks the tables {}; open it with schema_mode `auto` to create them",
                names.join(", ")
            ),
        )));
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    create_missing(&transaction)?;
    transaction.commit()?;
    Ok(Ok(()))
}

/// Makes the tables that are missing.
pub(crate) fn create_missing(transaction: &Transaction<'_>) -> Result<()> {
    let missing = missing_tables(transaction)?;
    let statements = missing.iter().flat_map(|table| sql::create_table(Dialect::Sqlite, table, ""));
    statements.into_iter().try_for_each(|statement| transaction.execute_batch(&statement))
}

/// Whether there are no tables at all.
pub(crate) fn is_empty(connection: &Connection) -> Result<bool> {
    Ok(missing_tables(connection)?.len() == sql::tables().len())
}

fn missing_tables(connection: &Connection) -> Result<Vec<Table>> {
    let mut tables = sql::tables();
    let mut statement = connection.prepare_cached("SELECT name FROM sqlite_master WHERE type = 'table'")?;
    let present: Vec<String> = statement.query_map((), |row| row.get(0))?.collect::<Result<_>>()?;
    tables.retain(|table| present.iter().all(|name| name != table.name));
    Ok(tables)
}

/// Removes the tables if no project is left; returns whether it did.
pub(crate) fn remove_if_empty(connection: &mut Connection) -> Result<bool> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let projects = sql::object_table(Kind::Project).table;
    if transaction.query_row(&format!("SELECT EXISTS (SELECT 1 FROM {projects})"), (), |row| row.get(0))? {
        return Ok(false);
    }
    for table in sql::tables() {
        transaction.execute_batch(&format!("DROP TABLE IF EXISTS {}", table.name))?;
    }
    transaction.commit()?;
    Ok(true)
}
