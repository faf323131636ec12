//! The journal as a table: one row for each change, written in the transaction of its commit.
//!
//! The first row of a commit (`change_number` 0) holds its identity. A unique index lets no second commit of that identity
//! in, whatever became of the first; that is what makes a commit happen once. Where the fate of a commit must be known and
//! its transaction may still be under way, a row of [`fence`] takes the identity for itself: from then on the commit can no
//! longer take place.
//!
//! A row has two times: `committed_at` is what its commit says, by the clock of whoever made it, and `stored_at` is the
//! database's own, by which rows grow old.

mod entries;
mod images;
mod prune;

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use feast_registry_core::{Commit, CommitId, Expected, Key, Kind, Record, Result, Revision, Write};
use prost_types::Timestamp;

pub use self::entries::{JournalRow, entries, read};
pub use self::prune::{prunable, prune, remove};
use crate::attempts::Found;
use crate::dialect::Builder;
use crate::read::{FACT_VALUE, NUMBER, Place, VIEW};
use crate::tables::{
    Column, ColumnType, Index, JOURNAL, JOURNAL_HEAD, METADATA, NAME, PROJECT, Table, USER_METADATA, VERSIONS,
};
use crate::write::write_one;
use crate::{self as sql, Dialect, Statement, Value};

/// Room for the changes of one write among the numbers of a commit's changes.
const NUMBERS_PER_WRITE: i64 = 1 << 36;
/// The same for what one write removes from one table.
const NUMBERS_PER_TABLE: i64 = 1 << 31;

/// The index of revisions.
const INDEX: &str = "idx_feast_registry_journal_revision";
/// In SQLite, that of identities.
const ID_INDEX: &str = "idx_feast_registry_journal_commit_id";

/// The target of a row that is no change: of a commit that changed nothing, or that only has its identity here.
const NOTHING: &str = "nothing";
/// The target of a row that keeps a commit from taking place.
const FENCE: &str = "fence";
const VERSION: &str = "version";
const FACT: &str = "metadata";
const ALL_VERSIONS: &str = "all_versions";
const WHOLE_PROJECT: &str = "whole_project";
/// Before the plural of a kind of view.
const OF_USER: &str = "user_metadata:";

/// Where revisions come from, as the database writes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revisions {
    /// An expression that has the same value in all statements of a transaction, and a higher one in each later transaction
    /// that could have met it.
    Expression(&'static str),
    /// This number, which is known since nobody else is writing.
    Number(i64),
}

impl Revisions {
    /// None yet: it comes with [`give_revision`], in the same transaction. Until then a row lies beyond all others in the
    /// index, out of the way of who removes the oldest.
    pub const PENDING: Self = Self::Number(i64::MAX);

    /// What [`take_revision`] has taken in the same transaction. It is NULL, which no revision is, if there was none.
    pub const TAKEN: Self = Self::Expression(Self::TAKEN_EXPRESSION);

    const TAKEN_EXPRESSION: &str = "NULLIF(LAST_INSERT_ID(), 0)";
}

const fn column(name: &'static str, column_type: ColumnType, is_key: bool, is_nullable: bool) -> Column {
    Column { name, column_type, is_key, is_nullable }
}

/// The table of the journal. In SQLite, whose writers queue, revisions are known when a row is written, so the rows lie in
/// their order and there is one entry of an index for each commit; elsewhere they lie by the identity.
///
/// Feast knows nothing of it, and it is not removed with Feast's tables: it says what became of the last commits, the removal
/// of the last project among them.
pub fn table(dialect: Dialect) -> Table {
    let optional = |name, column_type| column(name, column_type, false, true);
    let required = |name, column_type| column(name, column_type, false, false);
    let is_clustered = dialect == Dialect::Sqlite;
    // As bytes it takes half the room in the index, which is written with each commit.
    let id_type = if is_clustered { ColumnType::Bytes } else { ColumnType::String(36) };
    let id = column("commit_id", id_type, !is_clustered, false);
    let change_number = column("change_number", ColumnType::BigInteger, true, false);
    let revision = column("revision", ColumnType::BigInteger, is_clustered, false);
    let [first, second, third] =
        if is_clustered { [revision, change_number, id] } else { [id, change_number, revision] };
    Table {
        name: JOURNAL,
        columns: vec![
            first,
            second,
            third,
            // Microseconds since 1970 (UTC).
            required("committed_at", ColumnType::BigInteger),
            // Seconds since 1970 (UTC), by the clock of the database.
            required("stored_at", ColumnType::BigInteger),
            optional("author", ColumnType::LongText),
            optional("reason", ColumnType::LongText),
            required("target", ColumnType::String(50)),
            optional(PROJECT, NAME),
            optional("name", NAME),
            optional("number", ColumnType::Integer),
            optional("value_before", ColumnType::Bytes),
            optional("value_after", ColumnType::Bytes),
            // What a version has besides its view.
            optional("version_type", ColumnType::String(50)),
            optional("version_created", ColumnType::BigInteger),
            optional("version_description", ColumnType::LongText),
            optional("version_id", ColumnType::String(36)),
            // Where `value_before` is packed ([`images`]): how long it was.
            optional("before_length", ColumnType::Integer),
        ],
        index: Some(if is_clustered {
            Index { name: ID_INDEX, column: "commit_id", unique_where: Some("change_number = 0") }
        } else {
            Index::new(INDEX, "revision")
        }),
        is_clustered,
    }
}

/// The tables of the journal: [`table`], and in MySQL the row that revisions come from ([`take_revision`]).
pub fn tables(dialect: Dialect) -> Vec<Table> {
    let head = Table {
        name: JOURNAL_HEAD,
        columns: vec![
            column("id", ColumnType::Integer, true, false),
            column("revision", ColumnType::BigInteger, false, false),
        ],
        index: None,
        is_clustered: false,
    };
    let has_head = dialect == Dialect::MySql;
    [table(dialect)].into_iter().chain(has_head.then_some(head)).collect()
}

/// The statement that makes the row of [`JOURNAL_HEAD`], unless it is there. It goes on from the journal's last revision.
pub fn make_head() -> Statement {
    let text = format!(
        "INSERT INTO {JOURNAL_HEAD} (id, revision) SELECT 1, COALESCE(MAX(revision), 0) FROM {JOURNAL} \
         HAVING NOT EXISTS (SELECT 1 FROM {JOURNAL_HEAD} WHERE id = 1)"
    );
    Statement { text, values: Vec::new() }
}

/// The statement that takes the revision of a commit in MySQL. The answer says which it is, as the identity of what was
/// inserted last. If there is no row to take it from ([`make_head`]) it is 0, provided that [`forget_revision`] was run in this
/// transaction or just before it, and what follows is then refused.
///
/// It comes after what the commit writes of objects: from it on, the row that it locks orders all commits, and since nothing
/// that follows waits for another lock, no commit waits longer for it than the others take to commit.
///
/// A revision is the moment in microseconds, or the one after the newest if that is later: so, unless a clock was
/// set back, it is not given again when an older state of the database is restored, and a reader who was beyond that is told
/// to begin anew.
///
/// It goes from one statement to the next as MySQL's own `LAST_INSERT_ID()`, so that no other table has to be opened for it,
/// and replicas that run statements do the same.
pub fn take_revision() -> Statement {
    let text = format!(
        "UPDATE {JOURNAL_HEAD} SET revision = LAST_INSERT_ID(GREATEST(revision + 1, UNIX_TIMESTAMP() * 1000000)) \
         WHERE id = 1"
    );
    Statement { text, values: Vec::new() }
}

/// The statement after which a session knows of no revision that was taken.
pub fn forget_revision() -> Statement {
    Statement { text: "DO LAST_INSERT_ID(0)".to_owned(), values: Vec::new() }
}

/// The statement that gives the revision that was taken to the rows of a commit that were written with
/// [`Revisions::PENDING`].
pub fn give_revision(id: CommitId) -> Statement {
    // An identity is the same in every collation.
    let text = format!("UPDATE {JOURNAL} SET revision = {} WHERE commit_id = ?", Revisions::TAKEN_EXPRESSION);
    Statement { text, values: vec![Value::Text(id.to_string())] }
}

/// The columns that every row fills.
const HEAD: &str =
    "commit_id, change_number, revision, committed_at, stored_at, author, reason, target, project_id, name, number";
const IMAGES: &str = "value_before, value_after";
/// The column that rows fill besides in which `value_before` is packed.
const BEFORE_LENGTH: &str = ", before_length";
/// The columns that rows of versions fill besides.
const VERSION_COLUMNS: &str = ", version_type, version_created, version_description, version_id";

/// The statements that write a commit together with its journal, in their order. The first one inserts the commit's identity:
/// it fails with a violation of a unique index of the journal's if the commit has taken place, or was fenced off.
///
/// `absent` are keys of which nothing is stored, see [`sql::writes_beside`].
///
/// # Errors
/// `Corrupt` when the value of a version is no record of a version.
pub fn journaled_writes(
    dialect: Dialect,
    commit: &Commit,
    mut absent: HashSet<&Key>,
    revisions: Revisions,
) -> Result<Vec<Statement>> {
    let rows = Rows { dialect, commit, revisions };
    let mut known = known(commit);
    let mut statements = Vec::with_capacity(2 * commit.writes.len() + 1);
    match commit.writes.first() {
        // The row of the first change is always written, so it holds the identity as well.
        Some(Write::Put(record)) if !matches!(record.key, Key::UserMetadata { .. }) => {}
        _ => statements.push(rows.scope(0, NOTHING, None, None)),
    }
    for (index, write) in commit.writes.iter().enumerate() {
        let number = index as i64 * NUMBERS_PER_WRITE + i64::from(!statements.is_empty());
        match write {
            Write::Put(record) => {
                let before = match known.remove(&record.key) {
                    Some(value) => Before::Known(Some(value)),
                    None if absent.contains(&record.key) => Before::Known(None),
                    None => Before::Stored,
                };
                statements.push(rows.put(number, &record.key, &record.value, before)?);
            }
            Write::Delete(key) => {
                known.remove(key);
                statements.push(rows.removed_key(number, key));
                if let Key::Object { kind, project, name } = key
                    && kind.is_view()
                {
                    let attached = Key::UserMetadata { kind: *kind, project: project.clone(), view: name.clone() };
                    statements.push(rows.removed_key(number + 1, &attached));
                }
            }
            Write::DeleteVersions { project, view } => {
                statements.push(rows.scope(number, ALL_VERSIONS, Some(project), Some(view)));
                statements.push(rows.removed(number, 0, Place::of_history(project, view), Stored::Versions));
            }
            Write::DeleteProject { project } => {
                known.clear();
                statements.push(rows.scope(number, WHOLE_PROJECT, Some(project), None));
                let removed = all_stored().enumerate().map(|(table, stored)| {
                    rows.removed(number, table as i64, Place::of_project(stored.table(), project), stored)
                });
                statements.extend(removed);
            }
        }
        statements.extend(write_one(dialect, write, &mut absent)?);
    }
    Ok(statements)
}

/// What is stored before a commit, as far as the commit itself says so and is refused if it is not so.
fn known(commit: &Commit) -> HashMap<&Key, &Bytes> {
    let value = |(key, expected): &'_ (Key, Expected)| match (key, expected) {
        // What else a row has counts too, so the row is for the database to copy.
        (Key::Version { .. } | Key::UserMetadata { .. }, _) => false,
        (_, expected) => matches!(expected, Expected::Value(_)),
    };
    commit
        .expectations
        .iter()
        .filter(|expectation| value(expectation))
        .filter_map(|(key, expected)| match expected {
            Expected::Value(value) => Some((key, value)),
            Expected::Absent | Expected::Present => None,
        })
        .collect()
}

/// The rows of a commit that does nothing but put, which may be inserted after it has. `None` for every other. `stored`
/// is what the commit has found, and locked, under its keys.
///
/// The first row inserts the identity, see [`journaled_writes`].
///
/// # Errors
/// `Corrupt` when the value of a version is no record of a version.
pub fn rows_of_puts(
    dialect: Dialect,
    commit: &Commit,
    stored: &[Record],
    revisions: Revisions,
) -> Result<Option<Vec<Statement>>> {
    let put = |write| match write {
        // What is put into the row of a view is not stored where there is no such row.
        &Write::Put(Record { key: Key::UserMetadata { .. }, .. }) => None,
        Write::Put(record) => Some(record),
        Write::Delete(_) | Write::DeleteVersions { .. } | Write::DeleteProject { .. } => None,
    };
    let Some(puts) = commit.writes.iter().map(put).collect::<Option<Vec<&Record>>>() else { return Ok(None) };
    let rows = Rows { dialect, commit, revisions };
    if puts.is_empty() {
        return Ok(Some(vec![rows.scope(0, NOTHING, None, None)]));
    }
    let mut values: HashMap<&Key, &Bytes> = stored.iter().map(|record| (&record.key, &record.value)).collect();
    let mut statements = Vec::with_capacity(puts.len());
    for (index, Record { key, value, .. }) in puts.into_iter().enumerate() {
        let number = index as i64 * NUMBERS_PER_WRITE + i64::from(index > 0);
        statements.push(rows.put(number, key, value, Before::Known(values.insert(key, value)))?);
    }
    Ok(Some(statements))
}

/// What was stored under a key that is put.
enum Before<'a> {
    /// This. Of a key that is known to be absent this is nothing: to look would only lock the place where it is to be, in
    /// MySQL.
    Known(Option<&'a Bytes>),
    /// What is stored when the row is inserted.
    Stored,
}

/// What the rows of a table are that are removed together.
#[derive(Clone, Copy)]
enum Stored {
    Object(Kind),
    UserMetadata(Kind),
    Versions,
    Fact,
}

/// All that a project may have.
fn all_stored() -> impl Iterator<Item = Stored> {
    let objects = Kind::ALL.iter().copied().map(Stored::Object);
    let user_metadata = Kind::VIEWS.iter().copied().map(Stored::UserMetadata);
    objects.chain(user_metadata).chain([Stored::Versions, Stored::Fact])
}

impl Stored {
    fn table(self) -> &'static str {
        match self {
            Stored::Object(kind) | Stored::UserMetadata(kind) => sql::object_table(kind).table,
            Stored::Versions => VERSIONS,
            Stored::Fact => METADATA,
        }
    }

    fn of(key: &Key) -> Self {
        match key {
            Key::Object { kind, .. } => Stored::Object(*kind),
            Key::UserMetadata { kind, .. } => Stored::UserMetadata(*kind),
            Key::Version { .. } => Stored::Versions,
            Key::Metadata { .. } => Stored::Fact,
        }
    }

    fn target(self) -> String {
        match self {
            Stored::Object(kind) => kind.plural().to_owned(),
            Stored::UserMetadata(kind) => format!("{OF_USER}{}", kind.plural()),
            Stored::Versions => VERSION.to_owned(),
            Stored::Fact => FACT.to_owned(),
        }
    }

    /// The columns of its name, its number and its value.
    fn columns(self, dialect: Dialect) -> (&'static str, String, String) {
        let no_number = dialect.null(ColumnType::Integer);
        match self {
            Stored::Object(kind) => {
                let table = sql::object_table(kind);
                (table.name, no_number, table.proto.to_owned())
            }
            Stored::UserMetadata(kind) => (sql::object_table(kind).name, no_number, USER_METADATA.to_owned()),
            Stored::Versions => (VIEW, NUMBER.to_owned(), "feature_view_proto".to_owned()),
            Stored::Fact => (crate::read::FACT, no_number, dialect.text_as_bytes(FACT_VALUE)),
        }
    }
}

/// The rows of a commit.
struct Rows<'a> {
    dialect: Dialect,
    commit: &'a Commit,
    revisions: Revisions,
}

impl Rows<'_> {
    /// `INSERT INTO … (…) `, with room for the columns beyond those of every row.
    fn insert(&self, more: &str) -> Builder {
        let mut builder = Builder::new(self.dialect);
        builder.push(&format!("INSERT INTO {JOURNAL} ({HEAD}, {IMAGES}{more}) "));
        builder
    }

    /// The values of the columns up to `reason`. `number` is a literal or an expression.
    fn head(&self, builder: &mut Builder, number: impl FnOnce(&mut Builder)) {
        let Commit { id, at, author, reason, .. } = self.commit;
        builder.bind(match self.dialect {
            Dialect::Sqlite => id_bytes(*id),
            Dialect::PostgreSql | Dialect::MySql => Value::Text(id.to_string()),
        });
        builder.push(", ");
        number(builder);
        builder.push(", ");
        match self.revisions {
            Revisions::Expression(expression) => builder.push(expression),
            Revisions::Number(number) => builder.bind(Value::BigInteger(number)),
        }
        builder.push(", ");
        builder.bind(Value::BigInteger(micros(at)));
        builder.push(&format!(", {}, ", self.dialect.now()));
        builder.bind_all([text(author.as_deref()), text(reason.as_deref())]);
    }

    /// What keeps a row that is read to be journaled as it is until it is written, against those who know no journal. In
    /// SQLite nobody else writes meanwhile, in MySQL the rows are locked before.
    fn lock(&self) -> &'static str {
        if self.dialect == Dialect::PostgreSql { " FOR UPDATE" } else { "" }
    }

    /// A row without images.
    fn scope(&self, number: i64, target: &str, project: Option<&str>, name: Option<&str>) -> Statement {
        let mut builder = self.insert("");
        builder.push("VALUES (");
        self.head(&mut builder, |builder| builder.bind(Value::BigInteger(number)));
        builder.push(", ");
        builder.bind_all([Value::Text(target.to_owned()), text(project), text(name)]);
        builder.push(", NULL, NULL, NULL)");
        builder.build()
    }

    /// The row of a value that is put.
    fn put(&self, number: i64, key: &Key, value: &Bytes, before: Before<'_>) -> Result<Statement> {
        let stored = Stored::of(key);
        let place = Place::of(key);
        let (_, _, column) = stored.columns(self.dialect);
        let version = match key {
            Key::Version { .. } => Some(sql::decode_version(key, value)?),
            _ => None,
        };
        let packed = match before {
            Before::Known(Some(before)) if version.is_none() => images::pack(before, value),
            _ => None,
        };
        let mut builder = self.insert(match (&version, &packed) {
            (Some(_), _) => VERSION_COLUMNS,
            (None, Some(_)) => BEFORE_LENGTH,
            (None, None) => "",
        });
        let only_where_view_is = matches!(key, Key::UserMetadata { .. });
        builder.push(if only_where_view_is { "SELECT " } else { "VALUES (" });
        self.head(&mut builder, |builder| builder.bind(Value::BigInteger(number)));
        builder.push(", ");
        builder.bind(Value::Text(stored.target()));
        builder.push(", ");
        self.name(&mut builder, key);
        builder.push(", ");
        match before {
            Before::Stored if only_where_view_is => builder.push(&column),
            Before::Stored => {
                builder.push(&format!("(SELECT {column} FROM {} WHERE ", place.table));
                place.matches(&mut builder);
                builder.push(self.lock());
                builder.push(")");
            }
            Before::Known(None) => builder.push(&self.dialect.null(ColumnType::Bytes)),
            Before::Known(Some(_)) if packed.is_some() => {
                builder.bind_all(packed.iter().map(|(packed, _)| Value::Bytes(packed.clone())));
            }
            Before::Known(Some(value)) => builder.bind(Value::Bytes(match key {
                Key::Version { .. } => sql::decode_version(key, value)?.feature_view_proto,
                _ => value.clone(),
            })),
        }
        builder.push(", ");
        match version {
            None => builder.bind(Value::Bytes(value.clone())),
            Some(version) => {
                let seconds = version.created_timestamp.unwrap_or_default().seconds;
                builder.bind_all([
                    Value::Bytes(version.feature_view_proto),
                    Value::Text(version.feature_view_type),
                    Value::BigInteger(seconds),
                    Value::Text(version.description),
                    Value::Text(version.version_id),
                ]);
            }
        }
        if let Some((_, length)) = packed {
            builder.push(", ");
            builder.bind(Value::Integer(length));
        }
        if only_where_view_is {
            builder.push(&format!(" FROM {} WHERE ", place.table));
            place.matches(&mut builder);
            builder.push(self.lock());
        } else {
            builder.push(")");
        }
        Ok(builder.build())
    }

    /// The columns `project_id`, `name` and `number` of a key.
    fn name(&self, builder: &mut Builder, key: &Key) {
        let (name, number) = match key {
            Key::Object { name, .. } | Key::Metadata { name, .. } => (name, None),
            Key::UserMetadata { view, .. } => (view, None),
            Key::Version { view, number, .. } => (view, Some(*number)),
        };
        builder.bind_all([Value::Text(key.project().to_owned()), Value::Text(name.clone())]);
        match number {
            Some(number) => {
                builder.push(", ");
                builder.bind(Value::Integer(number));
            }
            None => builder.push(&format!(", {}", self.dialect.null(ColumnType::Integer))),
        }
    }

    /// The row of a key that is removed, if anything is stored there.
    fn removed_key(&self, number: i64, key: &Key) -> Statement {
        let lock = self.lock();
        self.select_removed(Place::of(key), Stored::of(key), lock, |builder| builder.bind(Value::BigInteger(number)))
    }

    /// The rows of all that is removed from a table, the `table`th of its write.
    fn removed(&self, number: i64, table: i64, place: Place<'_>, stored: Stored) -> Statement {
        let first = number + 1 + table * NUMBERS_PER_TABLE;
        let (name, order, _) = stored.columns(self.dialect);
        let order = if matches!(stored, Stored::Versions) { format!("{name}, {order}") } else { name.to_owned() };
        // No database locks what it numbers.
        self.select_removed(place, stored, "", |builder| {
            builder.bind(Value::BigInteger(first));
            builder.push(&format!(" + row_number() OVER (ORDER BY {order})"));
        })
    }

    fn select_removed(
        &self,
        place: Place<'_>,
        stored: Stored,
        lock: &str,
        number: impl FnOnce(&mut Builder),
    ) -> Statement {
        let is_version = matches!(stored, Stored::Versions);
        let mut builder = self.insert(if is_version { VERSION_COLUMNS } else { "" });
        builder.push("SELECT ");
        self.head(&mut builder, number);
        builder.push(", ");
        builder.bind(Value::Text(stored.target()));
        let (name, row_number, value) = stored.columns(self.dialect);
        let no_bytes = self.dialect.null(ColumnType::Bytes);
        builder.push(&format!(", {PROJECT}, {name}, {row_number}, {value}, {no_bytes}"));
        if is_version {
            builder.push(", feature_view_type, created_timestamp, description, version_id");
        }
        builder.push(&format!(" FROM {} WHERE ", place.table));
        place.matches(&mut builder);
        if let Stored::UserMetadata(_) = stored {
            builder.push(&format!(" AND {USER_METADATA} IS NOT NULL"));
        }
        builder.push(lock);
        builder.build()
    }
}

/// The statement that finds a commit in the journal: a row with its revision and its target, or none.
pub fn find(dialect: Dialect, id: CommitId) -> Statement {
    let mut builder = Builder::new(dialect);
    builder.push(&format!("SELECT revision, {} FROM {JOURNAL} WHERE change_number = 0 AND ", dialect.text("target")));
    match dialect {
        Dialect::Sqlite => {
            builder.push("commit_id = ");
            builder.bind(id_bytes(id));
        }
        Dialect::PostgreSql | Dialect::MySql => builder.equals("commit_id", &id.to_string()),
    }
    builder.build()
}

fn id_bytes(id: CommitId) -> Value {
    Value::Bytes(Bytes::copy_from_slice(id.as_bytes()))
}

/// What a row of [`find`] says.
pub fn found(revision: i64, target: &str) -> Found {
    if target == FENCE { Found::Fenced } else { Found::Committed(Revision::new(revision as u64)) }
}

/// The statement that takes the identity of a commit, so that it can no longer take place. It fails with a violation of the
/// unique index of the journal's if the commit has taken place, and waits while its transaction is under way.
pub fn fence(dialect: Dialect, commit: &Commit, revisions: Revisions) -> Statement {
    Rows { dialect, commit, revisions }.scope(0, FENCE, None, None)
}

fn text(text: Option<&str>) -> Value {
    text.map_or(Value::NoText, |text| Value::Text(text.to_owned()))
}

/// Microseconds since 1970 (UTC).
fn micros(at: &Timestamp) -> i64 {
    at.seconds.saturating_mul(1_000_000).saturating_add(i64::from(at.nanos / 1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entity() -> Key {
        Key::object(Kind::Entity, "p", "driver")
    }

    #[test]
    fn one_object_is_one_row_which_is_the_identity_too() {
        let commit =
            Commit::new(vec![(entity(), Expected::Absent)], vec![Write::Put(Record::new(entity(), &b"new"[..], 7))]);
        let statements =
            journaled_writes(Dialect::PostgreSql, &commit, HashSet::new(), Revisions::Expression("txid_current()"))
                .expect("statements");
        let [row, write] = statements.as_slice() else { panic!("{statements:?}") };
        assert!(row.text.starts_with("INSERT INTO feast_registry_journal"), "{}", row.text);
        assert!(row.values.contains(&Value::BigInteger(0)) && row.values.contains(&Value::Text(commit.id.to_string())));
        assert!(write.text.starts_with("INSERT INTO entities"), "{}", write.text);
    }

    #[test]
    fn a_commit_without_rows_of_its_own_still_has_an_identity() {
        for writes in [vec![], vec![Write::Delete(entity())], vec![Write::DeleteProject { project: "p".to_owned() }]] {
            let commit = Commit::new(vec![], writes);
            let statements = journaled_writes(Dialect::Sqlite, &commit, HashSet::new(), Revisions::Number(3));
            let first = statements.expect("statements").remove(0);
            assert!(first.values.contains(&Value::Text(NOTHING.to_owned())), "{first:?}");
        }
    }
}
