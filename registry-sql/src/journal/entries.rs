//! Reading the journal.

use feast_registry_core::{
    Change, Error, ErrorKind, Image, JournalEntry, JournalQuery, JournalRange, Key, Kind, Result, Revision, Target,
    images,
};
use prost_types::Timestamp;

use super::{ALL_VERSIONS, BEFORE_LENGTH, FACT, FENCE, IMAGES, NOTHING, OF_USER, VERSION, WHOLE_PROJECT};
use crate::dialect::Builder;
use crate::read::VersionColumns;
use crate::tables::{ColumnType, JOURNAL, PROJECT};
use crate::{Dialect, Statement, Value};

/// The statements that read the journal: the first has a row if the revision that the query goes on after is in it (it is left
/// out where there is none), the second the rows of at most as many commits as the query's limit, in its order. `seen_by_all`
/// is a condition on the column `revision`, for databases in which a lower one may still be committed.
pub fn read(dialect: Dialect, query: &JournalQuery, seen_by_all: Option<&str>) -> (Option<Statement>, Statement) {
    let number = |revision: Revision| Value::BigInteger(i64::try_from(revision.number()).unwrap_or(i64::MAX));
    let known = query.cursor().map(|after| {
        let mut builder = Builder::new(dialect);
        builder.push(&format!("SELECT revision FROM {JOURNAL} WHERE target <> '{FENCE}' AND revision = "));
        builder.bind(number(after));
        builder.push(" LIMIT 1");
        builder.build()
    });
    let seen = seen_by_all.map(|condition| format!(" AND {condition}")).unwrap_or_default();
    let mut builder = Builder::new(dialect);
    let text = |column: &str| dialect.text(column);
    let images = if query.images {
        format!(
            "{IMAGES}, {version_type}, version_created, {description}, {version_id}{BEFORE_LENGTH}",
            version_type = text("version_type"),
            description = text("version_description"),
            version_id = text("version_id"),
        )
    } else {
        let [bytes, long_text, big_integer, integer] =
            [ColumnType::Bytes, ColumnType::LongText, ColumnType::BigInteger, ColumnType::Integer]
                .map(|column_type| dialect.null(column_type));
        let is_there = |column| format!("CASE WHEN {column} IS NULL THEN {bytes} ELSE {} END", dialect.no_bytes());
        format!(
            "{before}, {after}, {long_text}, {big_integer}, {long_text}, {long_text}, {integer}",
            before = is_there("value_before"),
            after = is_there("value_after"),
        )
    };
    builder.push(&format!(
        "SELECT revision, {id}, change_number, committed_at, {author}, {reason}, {target}, {project}, {name}, number, \
         {images} FROM {JOURNAL} WHERE target <> '{FENCE}' AND revision IN (SELECT revision FROM \
         (SELECT DISTINCT revision FROM {JOURNAL} WHERE target <> '{FENCE}'{seen} AND revision ",
        id = match dialect {
            Dialect::Sqlite => "lower(hex(commit_id))".to_owned(),
            Dialect::PostgreSql | Dialect::MySql => text("commit_id"),
        },
        author = text("author"),
        reason = text("reason"),
        target = text("target"),
        project = text(PROJECT),
        name = text("name"),
    ));
    // Revisions are not negative.
    let (beyond, bound, order) = match query.range {
        JournalRange::After(after) => ('>', after.map_or(Value::BigInteger(-1), number), ""),
        JournalRange::Before(before) => ('<', before.map_or(Value::BigInteger(i64::MAX), number), " DESC"),
    };
    builder.push(&format!("{beyond} "));
    builder.bind(bound);
    builder.push(&format!(" ORDER BY revision{order} LIMIT "));
    builder.bind(Value::BigInteger(i64::try_from(query.limit).unwrap_or(i64::MAX)));
    builder.push(&format!(") AS page) ORDER BY revision{order}, change_number"));
    (known, builder.build())
}

/// A row of [`read`], in the order of its columns. Text is UTF-8; in MySQL all text comes as bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "they are the columns of `table`")]
pub struct JournalRow {
    pub revision: i64,
    pub commit_id: String,
    pub change_number: i64,
    pub committed_at: i64,
    pub author: Option<String>,
    pub reason: Option<String>,
    pub target: String,
    pub project: Option<String>,
    pub name: Option<String>,
    pub number: Option<i32>,
    pub value_before: Option<bytes::Bytes>,
    pub value_after: Option<bytes::Bytes>,
    pub version_type: Option<String>,
    pub version_created: Option<i64>,
    pub version_description: Option<String>,
    pub version_id: Option<String>,
    pub before_length: Option<i32>,
}

/// The entries that rows of [`read`] are. A change that cannot be read, as one that a newer version has written, is left out and
/// logged.
///
/// # Errors
/// `Corrupt` when a row has no identity of a commit.
pub fn entries(query: &JournalQuery, rows: Vec<JournalRow>) -> Result<Vec<JournalEntry>> {
    let mut entries: Vec<JournalEntry> = Vec::new();
    for row in rows {
        let revision = Revision::new(row.revision as u64);
        let is_new = entries.last().is_none_or(|entry| entry.revision != revision);
        if is_new {
            let id = row.commit_id.parse().map_err(|error: Error| unreadable(revision).with_source(error))?;
            let mut entry = JournalEntry::new(revision, id, timestamp(row.committed_at));
            (entry.author, entry.reason) = (row.author.clone(), row.reason.clone());
            entries.push(entry);
        }
        match change(row, revision) {
            Ok(change) => {
                if let (Some(entry), Some(change)) = (entries.last_mut(), change) {
                    entry.changes.push(change);
                }
            }
            // It is no reason not to tell of all the others.
            Err(error) => tracing::warn!(%error, "a change in the journal cannot be read, and is left out"),
        }
    }
    if !query.images {
        return Ok(entries.into_iter().map(JournalEntry::without_images).collect());
    }
    Ok(entries)
}

fn change(row: JournalRow, revision: Revision) -> Result<Option<Change>> {
    let JournalRow { target, project, name, number, mut value_before, value_after, .. } = row;
    if let Some(length) = row.before_length {
        let unpacked =
            images::unpack(&value_before.unwrap_or_default(), length, value_after.as_deref().unwrap_or_default());
        value_before = Some(unpacked.ok_or_else(|| unreadable(revision))?);
    }
    let of_version = VersionColumns {
        view_type: row.version_type,
        created: row.version_created,
        description: row.version_description,
        version_id: row.version_id,
    };
    let (project, name) = (project.unwrap_or_default(), name.unwrap_or_default());
    let kind = |plural: &str| {
        Kind::ALL.iter().copied().find(|kind| kind.plural() == plural).ok_or_else(|| unreadable(revision))
    };
    let key = match target.as_str() {
        NOTHING => return Ok(None),
        ALL_VERSIONS => return Ok(Some(Change::removal(Target::Versions { project, view: name }))),
        WHOLE_PROJECT => return Ok(Some(Change::removal(Target::Project { project }))),
        VERSION => Key::Version { project, view: name, number: number.ok_or_else(|| unreadable(revision))? },
        FACT => Key::Metadata { project, name },
        target => match target.strip_prefix(OF_USER) {
            Some(plural) => Key::UserMetadata { kind: kind(plural)?, project, view: name },
            None => Key::Object { kind: kind(target)?, project, name },
        },
    };
    let image = |value: Option<bytes::Bytes>| match (value, &key) {
        (Some(proto), Key::Version { project, view, number }) => {
            Image::Value(of_version.clone().record(project, view, *number, proto))
        }
        (value, _) => value.into(),
    };
    let (before, after) = (image(value_before), image(value_after));
    Ok(Some(Change::of_key(key, before, after)))
}

fn unreadable(revision: Revision) -> Error {
    Error::new(ErrorKind::Corrupt, format!("revision {revision} of the table {JOURNAL} is no entry of a journal"))
}

/// The moment of so many microseconds since 1970 (UTC).
fn timestamp(micros: i64) -> Timestamp {
    Timestamp { seconds: micros.div_euclid(1_000_000), nanos: (micros.rem_euclid(1_000_000) * 1000) as i32 }
}

#[cfg(test)]
mod tests {
    use super::super::micros;
    use super::*;

    #[test]
    fn times_before_1970_come_back() {
        for at in [Timestamp { seconds: -2, nanos: 999_999_000 }, Timestamp { seconds: 1_700_000_000, nanos: 1000 }] {
            assert_eq!(timestamp(micros(&at)), at);
        }
    }
}
