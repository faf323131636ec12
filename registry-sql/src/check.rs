//! Whether what a commit expects is so: found out after reading, or within the database.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use prost::Message;
use prost_types::Timestamp;

use crate::dialect::Builder;
use crate::read::{FACT_VALUE, Place, written};
use crate::{self as sql, Dialect, Statement, USER_METADATA, Value};
use feast_registry_core::proto::core::FeatureViewVersionRecord;
use feast_registry_core::{Commit, Expected, Key, Record};

/// The most expectations that one statement checks.
const MAX_CONDITIONS: usize = 50;

/// The first key of which something else is expected than what was found.
pub fn conflict(expectations: &[(Key, Expected)], found: &[Record]) -> Option<Key> {
    let found: HashMap<&Key, &Bytes> = found.iter().map(|record| (&record.key, &record.value)).collect();
    let is_so = |(key, expected): &&(Key, Expected)| match (expected, found.get(key)) {
        (Expected::Absent, None) | (Expected::Present, Some(_)) => true,
        (Expected::Value(value), Some(stored)) => value == *stored,
        _ => false,
    };
    expectations.iter().find(|expectation| !is_so(expectation)).map(|(key, _)| key.clone())
}

/// Statements that fail with a division by zero unless everything is as a commit expects, so that they can be sent
/// together with its writes. Rows that are to be there are locked: those that the commit goes on to write for itself alone,
/// the others so that they stay as they are expected until it is done, whoever else writes, Feast's own registry too.
pub fn checks(dialect: Dialect, commit: &Commit) -> Vec<Statement> {
    let written: HashSet<&Key> = written(commit).collect();
    let check = |expectations: &[(Key, Expected)]| {
        let mut builder = Builder::new(dialect);
        for (index, (key, expected)) in expectations.iter().enumerate() {
            builder.push(if index == 0 { "SELECT 1 / CASE WHEN " } else { " AND " });
            condition(&mut builder, key, expected, written.contains(key));
        }
        builder.push(" THEN 1 ELSE 0 END");
        builder.build()
    };
    commit.expectations.chunks(MAX_CONDITIONS).map(check).collect()
}

fn condition(builder: &mut Builder, key: &Key, expected: &Expected, is_written: bool) {
    let place = Place::of(key);
    if *expected == Expected::Absent {
        builder.push("NOT ");
    }
    builder.push(&format!("EXISTS (SELECT 1 FROM {} WHERE ", place.table));
    place.matches(builder);
    if let Key::UserMetadata { .. } = key {
        builder.push(&format!(" AND {USER_METADATA} IS NOT NULL"));
    }
    if let Expected::Value(value) = expected {
        match columns_of(key, value) {
            Some(columns) => {
                for (column, value) in columns {
                    builder.push(&format!(" AND {column} = "));
                    builder.bind(value);
                }
            }
            // No row can be this.
            None => builder.push(" AND 1 = 0"),
        }
    }
    builder.push(match (expected, is_written) {
        // There is nothing to lock: an insertion meets another's in the primary key.
        (Expected::Absent, _) => "",
        (Expected::Present | Expected::Value(_), true) => " FOR UPDATE",
        (Expected::Value(_), false) => " FOR SHARE",
        // What a deletion waits for. What is attached to a row is in a column of it.
        (Expected::Present, false) if matches!(key, Key::UserMetadata { .. }) => " FOR SHARE",
        (Expected::Present, false) => " FOR KEY SHARE",
    });
    builder.push(")");
}

/// The columns that hold a value. `None` for what a row cannot hold.
fn columns_of(key: &Key, value: &Bytes) -> Option<Vec<(&'static str, Value)>> {
    match key {
        Key::Object { kind, .. } => Some(vec![(sql::object_table(*kind).proto, Value::Bytes(value.clone()))]),
        Key::UserMetadata { .. } => Some(vec![(USER_METADATA, Value::Bytes(value.clone()))]),
        Key::Metadata { .. } => Some(vec![(FACT_VALUE, Value::Text(String::from_utf8(value.to_vec()).ok()?))]),
        Key::Version { project, view, number } => {
            let version = FeatureViewVersionRecord::decode(value.clone()).ok()?;
            let seconds = version.created_timestamp.unwrap_or_default().seconds;
            let as_stored = FeatureViewVersionRecord {
                feature_view_name: view.clone(),
                project_id: project.clone(),
                version_number: *number,
                created_timestamp: Some(Timestamp { seconds, nanos: 0 }),
                ..version
            };
            (as_stored.encode_to_vec() == *value).then(|| {
                vec![
                    ("feature_view_type", Value::Text(as_stored.feature_view_type)),
                    ("feature_view_proto", Value::Bytes(as_stored.feature_view_proto)),
                    ("created_timestamp", Value::BigInteger(seconds)),
                    ("coalesce(description, '')", Value::Text(as_stored.description)),
                    ("version_id", Value::Text(as_stored.version_id)),
                ]
            })
        }
    }
}
