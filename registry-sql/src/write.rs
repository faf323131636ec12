//! Commits as statements.

use std::collections::HashSet;

use bytes::Bytes;
use prost::Message;

use crate::dialect::Builder;
use crate::read::{FACT, FACT_VALUE, NUMBER, Place, VIEW};
use crate::{self as sql, Dialect, PROJECT, Statement, Table, UPDATED, USER_METADATA, Value};
use feast_registry_core::Kind;
use feast_registry_core::proto::core::FeatureViewVersionRecord;
use feast_registry_core::{Commit, Expected, Key, Record, Write};
use feast_registry_core::{Error, ErrorKind, Result};

/// The statements that write a commit, in their order.
///
/// What the commit expects to be absent is inserted, and the database refuses that if it is there after all: then the
/// expectation does not hold. All else is put in place of what may be there.
///
/// # Errors
/// `Corrupt` when the value of a version is no record of a version.
pub fn writes(dialect: Dialect, commit: &Commit) -> Result<Vec<Statement>> {
    writes_beside(dialect, commit, absent(commit))
}

/// What a commit expects to be absent.
pub fn absent(commit: &Commit) -> HashSet<&Key> {
    let absent = commit.expectations.iter().filter(|(_, expected)| *expected == Expected::Absent);
    absent.map(|(key, _)| key).collect()
}

/// [`writes`] of a commit by one who knows what is absent.
///
/// # Errors
/// `Corrupt` when the value of a version is no record of a version.
pub fn writes_beside(dialect: Dialect, commit: &Commit, mut absent: HashSet<&Key>) -> Result<Vec<Statement>> {
    let mut statements = Vec::new();
    for write in &commit.writes {
        statements.extend(write_one(dialect, write, &mut absent)?);
    }
    Ok(statements)
}

/// The statements of one write of a commit, by one who knows what is absent. What is written is not absent any more.
///
/// # Errors
/// `Corrupt` when the value of a version is no record of a version.
pub(crate) fn write_one(dialect: Dialect, write: &Write, absent: &mut HashSet<&Key>) -> Result<Vec<Statement>> {
    Ok(match write {
        Write::Put(record) => vec![put(dialect, record, absent.remove(&record.key))?],
        Write::Delete(key) => vec![delete(dialect, key)],
        Write::DeleteVersions { project, view } => {
            vec![delete_where(dialect, Place::of_history(project, view))]
        }
        Write::DeleteProject { project } => {
            let delete = |table: &Table| delete_where(dialect, Place::of_project(table.name, project));
            sql::tables().iter().map(delete).collect()
        }
    })
}

/// The record of a version.
///
/// # Errors
/// `Corrupt` when the value is none.
pub(crate) fn decode_version(key: &Key, value: &Bytes) -> Result<FeatureViewVersionRecord> {
    FeatureViewVersionRecord::decode(value.clone())
        .map_err(|error| Error::new(ErrorKind::Corrupt, format!("{key} is no record of a version")).with_source(error))
}

fn put(dialect: Dialect, record: &Record, is_new: bool) -> Result<Statement> {
    let Record { key, value, updated, .. } = record;
    let updated = Value::BigInteger(*updated);
    let text = |text: &str| Value::Text(text.to_owned());
    Ok(match key {
        Key::Object { kind, project, name } => {
            let table = sql::object_table(*kind);
            let keys: &[&str] = if *kind == Kind::Project { &[PROJECT] } else { &[table.name, PROJECT] };
            let row = vec![
                (table.name, text(name)),
                (PROJECT, text(project)),
                (UPDATED, updated),
                (table.proto, Value::Bytes(value.clone())),
            ];
            insert(dialect, table.table, keys, row, is_new)
        }
        Key::UserMetadata { .. } => {
            let mut builder = set_user_metadata(dialect, key);
            builder.bind(Value::Bytes(value.clone()));
            builder.push(&format!(", {UPDATED} = "));
            builder.bind(updated);
            at(builder, key)
        }
        Key::Version { project, view, number } => {
            let version = decode_version(key, value)?;
            let row = vec![
                (VIEW, text(view)),
                (PROJECT, text(project)),
                (NUMBER, Value::Integer(*number)),
                ("feature_view_type", Value::Text(version.feature_view_type)),
                ("feature_view_proto", Value::Bytes(version.feature_view_proto)),
                ("created_timestamp", Value::BigInteger(version.created_timestamp.unwrap_or_default().seconds)),
                ("description", Value::Text(version.description)),
                ("version_id", Value::Text(version.version_id)),
            ];
            insert(dialect, sql::VERSIONS, &[VIEW, PROJECT, NUMBER], row, is_new)
        }
        Key::Metadata { project, name } => {
            let row = vec![
                (PROJECT, text(project)),
                (FACT, text(name)),
                (FACT_VALUE, Value::Text(String::from_utf8_lossy(value).into_owned())),
                (UPDATED, updated),
            ];
            insert(dialect, sql::METADATA, &[PROJECT, FACT], row, is_new)
        }
    })
}

/// Inserts a row; one that is not `is_new` takes the place of what may be there.
fn insert(dialect: Dialect, table: &str, keys: &[&str], row: Vec<(&'static str, Value)>, is_new: bool) -> Statement {
    let (columns, values): (Vec<&str>, Vec<Value>) = row.into_iter().unzip();
    let mut builder = Builder::new(dialect);
    builder.push(&format!("INSERT INTO {table} ({}) VALUES (", columns.join(", ")));
    builder.bind_all(values);
    builder.push(")");
    if !is_new {
        let changed = columns.iter().filter(|column| !keys.contains(column));
        let set = |spell: fn(&str) -> String| changed.map(|column| spell(column)).collect::<Vec<_>>().join(", ");
        builder.push(&match dialect {
            Dialect::Sqlite | Dialect::PostgreSql => {
                let set = set(|column| format!("{column} = excluded.{column}"));
                format!(" ON CONFLICT ({}) DO UPDATE SET {set}", keys.join(", "))
            }
            Dialect::MySql => {
                format!(" ON DUPLICATE KEY UPDATE {}", set(|column| format!("{column} = VALUES({column})")))
            }
        });
    }
    builder.build()
}

fn delete(dialect: Dialect, key: &Key) -> Statement {
    let builder = match key {
        Key::UserMetadata { .. } => {
            let mut builder = set_user_metadata(dialect, key);
            builder.push("NULL");
            builder
        }
        _ => {
            let mut builder = Builder::new(dialect);
            builder.push(&format!("DELETE FROM {}", Place::of(key).table));
            builder
        }
    };
    at(builder, key)
}

fn delete_where(dialect: Dialect, place: Place<'_>) -> Statement {
    let mut builder = Builder::new(dialect);
    builder.push(&format!("DELETE FROM {} WHERE ", place.table));
    place.matches(&mut builder);
    builder.build()
}

/// User metadata is a column of its view's row: where there is no row, nothing is set.
fn set_user_metadata(dialect: Dialect, key: &Key) -> Builder {
    let mut builder = Builder::new(dialect);
    builder.push(&format!("UPDATE {} SET {USER_METADATA} = ", Place::of(key).table));
    builder
}

fn at(mut builder: Builder, key: &Key) -> Statement {
    builder.push(" WHERE ");
    Place::of(key).matches(&mut builder);
    builder.build()
}
