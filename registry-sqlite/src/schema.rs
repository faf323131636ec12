//! Making, finding and removing the tables.

use feast_registry_core::Kind;
use feast_registry_sql::{self as sql, Dialect, Table, journal};
use rusqlite::{Connection, Result};

/// Makes the tables that are missing, within a transaction; returns their names.
pub(crate) fn create_missing(connection: &Connection) -> Result<Vec<&'static str>> {
    let missing = missing(connection)?;
    let statements = missing.iter().flat_map(|table| sql::create_table(Dialect::Sqlite, table, ""));
    statements.into_iter().try_for_each(|statement| connection.execute_batch(&statement))?;
    Ok(missing.into_iter().map(|table| table.name).collect())
}

/// The tables that are missing, Feast's and the journal's.
pub(crate) fn missing(connection: &Connection) -> Result<Vec<Table>> {
    let mut tables = sql::tables();
    tables.extend(journal::tables(Dialect::Sqlite));
    let mut statement = connection.prepare_cached("SELECT name FROM sqlite_master WHERE type = 'table'")?;
    let present: Vec<String> = statement.query_map((), |row| row.get(0))?.collect::<Result<_>>()?;
    tables.retain(|table| present.iter().all(|name| name != table.name));
    Ok(tables)
}

/// Removes Feast's tables if no project is left, within a transaction; returns whether it did.
pub(crate) fn remove_if_empty(connection: &Connection) -> Result<bool> {
    let projects = sql::object_table(Kind::Project).table;
    if connection.query_row(&format!("SELECT EXISTS (SELECT 1 FROM {projects})"), (), |row| row.get(0))? {
        return Ok(false);
    }
    for table in sql::tables() {
        connection.execute_batch(&format!("DROP TABLE IF EXISTS {}", table.name))?;
    }
    Ok(true)
}
