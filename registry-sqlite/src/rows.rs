//! Records as rows: reading, checking and writing them, within whatever transaction the connection is in.

use bytes::Bytes;
use prost::Message;
use prost_types::Timestamp;
use registry_core::proto::core::FeatureViewVersionRecord;
use registry_core::sql::{self, ObjectTable, PROJECT, UPDATED, USER_METADATA};
use registry_core::{Commit, Expected, Key, Kind, Outcome, Query, Record, Write};
use rusqlite::{Connection, OptionalExtension, Result, Row, ToSql, params};

use crate::error::sqlite_error;

/// Answers queries from one state of the database.
pub(crate) fn read(connection: &Connection, queries: &[Query]) -> registry_core::Result<Vec<Vec<Record>>> {
    let answers = || {
        // One statement sees one state of its own accord.
        if let [query] = queries
            && is_one_statement(query)
        {
            return Ok(vec![answer(connection, query)?]);
        }
        // Between BEGIN and COMMIT all statements see the same state.
        connection.execute_batch("BEGIN")?;
        let answers = queries.iter().map(|query| answer(connection, query)).collect::<Result<Vec<_>>>();
        connection.execute_batch(if answers.is_ok() { "COMMIT" } else { "ROLLBACK" })?;
        answers
    };
    answers()
        .map_err(|error| sqlite_error(error, connection.path().filter(|path| !path.is_empty()).unwrap_or(":memory:")))
}

fn is_one_statement(query: &Query) -> bool {
    if let Query::Keys(keys) = query { keys.len() <= 1 } else { true }
}

fn answer(connection: &Connection, query: &Query) -> Result<Vec<Record>> {
    match query {
        Query::Keys(keys) => keys.iter().filter_map(|key| find(connection, key).transpose()).collect(),
        Query::Objects { kind, project, updated_since } => list(connection, *kind, project.as_deref(), *updated_since),
        Query::Versions { project, view, latest_only } => versions(connection, project, view, *latest_only),
        Query::Metadata { project } => metadata(connection, project.as_deref()),
    }
}

/// What is stored under a key.
fn find(connection: &Connection, key: &Key) -> Result<Option<Record>> {
    let record = |value: Vec<u8>, updated| Record { key: key.clone(), value: value.into(), updated };
    match key {
        Key::Object { kind, project, name } => {
            let ObjectTable { table, name: name_column, proto } = sql::object_table(*kind);
            let select = format!("SELECT {proto}, {UPDATED} FROM {table} WHERE {name_column} = ?1 AND {PROJECT} = ?2");
            let row = |row: &Row<'_>| Ok(record(row.get(0)?, row.get(1)?));
            connection.prepare_cached(&select)?.query_row(params![name, project], row).optional()
        }
        Key::UserMetadata { kind, project, view } => {
            let ObjectTable { table, name: name_column, .. } = sql::object_table(*kind);
            let select = format!(
                "SELECT {USER_METADATA}, {UPDATED} FROM {table} \
                 WHERE {name_column} = ?1 AND {PROJECT} = ?2 AND {USER_METADATA} IS NOT NULL"
            );
            let row = |row: &Row<'_>| Ok(record(row.get(0)?, row.get(1)?));
            connection.prepare_cached(&select)?.query_row(params![view, project], row).optional()
        }
        Key::Version { project, view, number } => {
            let select = format!("{SELECT_VERSIONS} AND version_number = ?3");
            connection.prepare_cached(&select)?.query_row(params![view, project, number], version).optional()
        }
        Key::Metadata { project, name } => {
            let select = format!("{SELECT_METADATA} WHERE {PROJECT} = ?1 AND metadata_key = ?2");
            connection.prepare_cached(&select)?.query_row(params![project, name], fact).optional()
        }
    }
}

/// The objects of a kind, in the order in which their rows were inserted.
fn list(connection: &Connection, kind: Kind, project: Option<&str>, since: Option<i64>) -> Result<Vec<Record>> {
    let ObjectTable { table, name, proto } = sql::object_table(kind);
    let mut select = format!("SELECT {PROJECT}, {name}, {proto}, {UPDATED} FROM {table} WHERE true");
    let mut values: Vec<&dyn ToSql> = Vec::new();
    if let Some(project) = &project {
        values.push(project);
        select += &format!(" AND {PROJECT} = ?{}", values.len());
    }
    if let Some(since) = &since {
        values.push(since);
        select += &format!(" AND {UPDATED} >= ?{}", values.len());
    }
    select += " ORDER BY rowid";
    let row = |row: &Row<'_>| {
        let key = Key::Object { kind, project: row.get(0)?, name: row.get(1)? };
        Ok(Record { key, value: row.get::<_, Vec<u8>>(2)?.into(), updated: row.get(3)? })
    };
    connection.prepare_cached(&select)?.query_map(values.as_slice(), row)?.collect()
}

const SELECT_VERSIONS: &str = "SELECT feature_view_name, project_id, version_number, feature_view_type, \
     feature_view_proto, created_timestamp, description, version_id FROM feature_view_version_history \
     WHERE feature_view_name = ?1 AND project_id = ?2";

fn versions(connection: &Connection, project: &str, view: &str, latest_only: bool) -> Result<Vec<Record>> {
    let order = if latest_only { " ORDER BY version_number DESC LIMIT 1" } else { " ORDER BY version_number" };
    let mut statement = connection.prepare_cached(&format!("{SELECT_VERSIONS}{order}"))?;
    statement.query_map(params![view, project], version)?.collect()
}

/// A row of the history as the message that it is elsewhere.
fn version(row: &Row<'_>) -> Result<Record> {
    let created: i64 = row.get(5)?;
    let record = FeatureViewVersionRecord {
        feature_view_name: row.get(0)?,
        project_id: row.get(1)?,
        version_number: row.get(2)?,
        feature_view_type: row.get(3)?,
        feature_view_proto: row.get::<_, Vec<u8>>(4)?.into(),
        created_timestamp: Some(Timestamp { seconds: created, nanos: 0 }),
        description: row.get::<_, Option<String>>(6)?.unwrap_or_default(),
        version_id: row.get(7)?,
    };
    let key = Key::Version {
        project: record.project_id.clone(),
        view: record.feature_view_name.clone(),
        number: record.version_number,
    };
    Ok(Record { key, value: record.encode_to_vec().into(), updated: created })
}

const SELECT_METADATA: &str =
    "SELECT project_id, metadata_key, metadata_value, last_updated_timestamp FROM feast_metadata";

fn metadata(connection: &Connection, project: Option<&str>) -> Result<Vec<Record>> {
    match project {
        Some(project) => {
            let select = format!("{SELECT_METADATA} WHERE {PROJECT} = ?1 ORDER BY rowid");
            connection.prepare_cached(&select)?.query_map([project], fact)?.collect()
        }
        None => {
            let select = format!("{SELECT_METADATA} ORDER BY rowid");
            connection.prepare_cached(&select)?.query_map((), fact)?.collect()
        }
    }
}

fn fact(row: &Row<'_>) -> Result<Record> {
    let key = Key::Metadata { project: row.get(0)?, name: row.get(1)? };
    Ok(Record { key, value: row.get::<_, String>(2)?.into(), updated: row.get(3)? })
}

/// Checks and writes a commit. An error leaves the transaction to be rolled back.
pub(crate) fn commit(connection: &Connection, commit: &Commit) -> Result<Outcome> {
    for (key, expected) in &commit.expectations {
        if !is_as(connection, key, expected)? {
            return Ok(Outcome::Conflict(key.clone()));
        }
    }
    for write in &commit.writes {
        apply(connection, write)?;
    }
    Ok(Outcome::Committed)
}

fn is_as(connection: &Connection, key: &Key, expected: &Expected) -> Result<bool> {
    let stored = find(connection, key)?;
    Ok(match expected {
        Expected::Absent => stored.is_none(),
        Expected::Present => stored.is_some(),
        Expected::Value(value) => stored.is_some_and(|record| record.value == value),
    })
}

fn apply(connection: &Connection, write: &Write) -> Result<()> {
    match write {
        Write::Put(record) => put(connection, record),
        Write::Delete(key) => delete(connection, key),
        Write::DeleteVersions { project, view } => {
            let delete = format!("DELETE FROM {} WHERE feature_view_name = ?1 AND {PROJECT} = ?2", sql::VERSIONS);
            execute(connection, &delete, params![view, project])
        }
        Write::DeleteProject { project } => sql::tables().iter().try_for_each(|table| {
            execute(connection, &format!("DELETE FROM {} WHERE {PROJECT} = ?1", table.name), params![project])
        }),
    }
}

fn put(connection: &Connection, record: &Record) -> Result<()> {
    let Record { key, value, updated } = record;
    let value_bytes: &[u8] = value;
    match key {
        Key::Object { kind, project, name } => {
            let ObjectTable { table, name: name_column, proto } = sql::object_table(*kind);
            let key = if *kind == Kind::Project { PROJECT.to_owned() } else { format!("{name_column}, {PROJECT}") };
            let upsert = format!(
                "INSERT INTO {table} ({name_column}, {PROJECT}, {UPDATED}, {proto}) VALUES (?1, ?2, ?3, ?4) \
                 ON CONFLICT ({key}) DO UPDATE SET {UPDATED} = excluded.{UPDATED}, {proto} = excluded.{proto}"
            );
            execute(connection, &upsert, params![name, project, updated, value_bytes])
        }
        Key::UserMetadata { kind, project, view } => {
            set_user_metadata(connection, *kind, project, view, Some((value_bytes, *updated)))
        }
        Key::Version { project, view, number } => put_version(connection, project, view, *number, value),
        Key::Metadata { project, name } => {
            let upsert = format!(
                "INSERT INTO {} ({PROJECT}, metadata_key, metadata_value, {UPDATED}) VALUES (?1, ?2, ?3, ?4) \
                 ON CONFLICT ({PROJECT}, metadata_key) \
                 DO UPDATE SET metadata_value = excluded.metadata_value, {UPDATED} = excluded.{UPDATED}",
                sql::METADATA
            );
            let text = String::from_utf8_lossy(value);
            execute(connection, &upsert, params![project, name, text, updated])
        }
    }
}

fn put_version(connection: &Connection, project: &str, view: &str, number: i32, record: &Bytes) -> Result<()> {
    let record = FeatureViewVersionRecord::decode(record.clone())
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    let upsert = format!(
        "INSERT INTO {} (feature_view_name, {PROJECT}, version_number, feature_view_type, feature_view_proto, \
         created_timestamp, description, version_id) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) \
         ON CONFLICT (feature_view_name, {PROJECT}, version_number) DO UPDATE SET \
         feature_view_type = excluded.feature_view_type, feature_view_proto = excluded.feature_view_proto, \
         created_timestamp = excluded.created_timestamp, description = excluded.description, \
         version_id = excluded.version_id",
        sql::VERSIONS
    );
    let created = record.created_timestamp.unwrap_or_default().seconds;
    let proto: &[u8] = &record.feature_view_proto;
    let values =
        params![view, project, number, record.feature_view_type, proto, created, record.description, record.version_id];
    execute(connection, &upsert, values)
}

fn delete(connection: &Connection, key: &Key) -> Result<()> {
    match key {
        Key::Object { kind, project, name } => {
            let ObjectTable { table, name: name_column, .. } = sql::object_table(*kind);
            let delete = format!("DELETE FROM {table} WHERE {name_column} = ?1 AND {PROJECT} = ?2");
            execute(connection, &delete, params![name, project])
        }
        Key::UserMetadata { kind, project, view } => set_user_metadata(connection, *kind, project, view, None),
        Key::Version { project, view, number } => {
            let delete = format!(
                "DELETE FROM {} WHERE feature_view_name = ?1 AND {PROJECT} = ?2 AND version_number = ?3",
                sql::VERSIONS
            );
            execute(connection, &delete, params![view, project, number])
        }
        Key::Metadata { project, name } => {
            let delete = format!("DELETE FROM {} WHERE {PROJECT} = ?1 AND metadata_key = ?2", sql::METADATA);
            execute(connection, &delete, params![project, name])
        }
    }
}

/// User metadata is a column of its view's row: where there is no row, nothing is set.
fn set_user_metadata(
    connection: &Connection,
    kind: Kind,
    project: &str,
    view: &str,
    metadata: Option<(&[u8], i64)>,
) -> Result<()> {
    let ObjectTable { table, name, .. } = sql::object_table(kind);
    let update = format!(
        "UPDATE {table} SET {USER_METADATA} = ?3, {UPDATED} = coalesce(?4, {UPDATED}) \
         WHERE {name} = ?1 AND {PROJECT} = ?2"
    );
    let (bytes, updated) = metadata.unzip();
    execute(connection, &update, params![view, project, bytes, updated])
}

fn execute(connection: &Connection, statement: &str, values: &[&dyn ToSql]) -> Result<()> {
    connection.prepare_cached(statement)?.execute(values).map(drop)
}
