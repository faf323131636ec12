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
mod prune;
mod rows;

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use feast_registry_core::{Commit, CommitId, Expected, Key, Record, Result, Revision, Write};
use prost_types::Timestamp;

pub use self::entries::{JournalRow, entries, read};
pub use self::prune::{prunable, prune, remove};
use self::rows::{BEFORE_LENGTH, IMAGES, Put, Rows, Stored, all_stored};
use crate::attempts::Found;
use crate::dialect::Builder;
use crate::read::Place;
use crate::tables::{Column, ColumnType, Index, JOURNAL, JOURNAL_HEAD, NAME, PROJECT, Table};
use crate::write::write_one;
use crate::{Dialect, Statement, Value};

/// Room for the changes of one write among the numbers of a commit's changes.
const NUMBERS_PER_WRITE: i64 = 1 << 36;

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

/// The statements that write a commit together with its journal, in their order. The first one inserts the commit's identity:
/// it fails with a violation of a unique index of the journal's if the commit has taken place, or was fenced off.
///
/// `absent` are keys of which nothing is stored, see [`writes_beside`](crate::writes_beside).
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
    known.extend(absent.iter().map(|key| (*key, None)));
    if let Some(puts) = puts(commit, known.clone()).filter(|puts| !puts.is_empty()) {
        let mut statements = rows.puts(puts)?;
        for write in &commit.writes {
            statements.extend(write_one(dialect, write, &mut absent)?);
        }
        return Ok(statements);
    }
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
                let Record { key, value, .. } = record;
                match known.remove(key).filter(|_| !matches!(key, Key::UserMetadata { .. })) {
                    Some(before) => statements.extend(rows.puts(vec![Put { number, key, value, before }])?),
                    None => statements.push(rows.put(number, key, value)?),
                }
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
    for (change, number) in commit.observed.iter().zip(commit.writes.len() as i64 * NUMBERS_PER_WRITE + 1..) {
        statements.push(rows.observed(number, change)?);
    }
    Ok(statements)
}

/// What was there before and is longer is copied by the database itself. It would go over the network once more, and need
/// not fit into one request together with what takes its place. (`limits::an_object_as_large_as_promised` in `conformance-tests`)
const MOST_SENT_AGAIN: usize = 1 << 20;

/// What is stored before a commit, as far as the commit itself says so and is refused if it is not so.
fn known(commit: &Commit) -> HashMap<&Key, Option<&Bytes>> {
    let mut known = HashMap::new();
    for (key, expected) in &commit.expectations {
        match (key, expected) {
            // What else a row has counts too, so the row is for the database to copy.
            (Key::Version { .. } | Key::UserMetadata { .. }, _) => {}
            (_, Expected::Value(value)) if value.len() <= MOST_SENT_AGAIN => drop(known.insert(key, Some(value))),
            (_, Expected::Value(_) | Expected::Absent | Expected::Present) => {}
        }
    }
    known
}

/// The changes of a commit that does nothing but put, if all that was stored before is known and is not too long to be sent
/// again. `None` for every other.
fn puts<'a>(commit: &'a Commit, mut known: HashMap<&'a Key, Option<&'a Bytes>>) -> Option<Vec<Put<'a>>> {
    if !commit.observed.is_empty() {
        return None;
    }
    let put = |(index, write): (usize, &'a Write)| match write {
        // What is put into the row of a view is not stored where there is no such row.
        Write::Put(Record { key: Key::UserMetadata { .. }, .. }) => None,
        Write::Put(Record { key, value, .. }) => {
            let before = known.insert(key, Some(value))?;
            if before.is_some_and(|before| before.len() > MOST_SENT_AGAIN) {
                return None;
            }
            Some(Put { number: index as i64 * NUMBERS_PER_WRITE + i64::from(index > 0), key, value, before })
        }
        Write::Delete(_) | Write::DeleteVersions { .. } | Write::DeleteProject { .. } => None,
    };
    commit.writes.iter().enumerate().map(put).collect()
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
    let written = commit.writes.iter().filter_map(|write| match write {
        Write::Put(record) => Some((&record.key, None)),
        Write::Delete(_) | Write::DeleteVersions { .. } | Write::DeleteProject { .. } => None,
    });
    let mut known: HashMap<&Key, Option<&Bytes>> = written.collect();
    known.extend(stored.iter().map(|record| (&record.key, Some(&record.value))));
    let rows = Rows { dialect, commit, revisions };
    match puts(commit, known) {
        Some(puts) if puts.is_empty() => Ok(Some(vec![rows.scope(0, NOTHING, None, None)])),
        Some(puts) => rows.puts(puts).map(Some),
        None => Ok(None),
    }
}

/// The statement that finds the highest revision that is visible: a row, or none.
pub fn newest_revision() -> Statement {
    // By the index, which MariaDB does not use for a MAX with a condition.
    let text = format!("SELECT revision FROM {JOURNAL} WHERE target <> '{FENCE}' ORDER BY revision DESC LIMIT 1");
    Statement { text, values: Vec::new() }
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

/// Microseconds since 1970 (UTC).
fn micros(at: &Timestamp) -> i64 {
    at.seconds.saturating_mul(1_000_000).saturating_add(i64::from(at.nanos / 1000))
}

#[cfg(test)]
mod tests {
    use feast_registry_core::Kind;

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
    fn changes_of_which_all_is_known_are_one_statement_unless_they_are_large() {
        let key = |number: usize| Key::object(Kind::Entity, "p", number.to_string());
        let put = |number: usize, bytes: usize| Write::Put(Record::new(key(number), vec![7; bytes], 7));
        let rows = |writes: Vec<Write>, expects: usize| {
            let expected = |number: usize| match number % 2 {
                0 => (key(number), Expected::Absent),
                _ => (key(number), Expected::Value(Bytes::from_static(b"before"))),
            };
            let commit = Commit::new((0..expects).map(expected).collect(), writes);
            let absent = commit.expectations.iter().filter(|(_, expected)| *expected == Expected::Absent);
            let absent = absent.map(|(key, _)| key).collect();
            let statements = journaled_writes(Dialect::PostgreSql, &commit, absent, Revisions::Number(3));
            let is_row = |statement: &Statement| statement.text.starts_with("INSERT INTO feast_registry_journal");
            statements.expect("statements").iter().filter(|statement| is_row(statement)).count()
        };
        assert_eq!(rows((0..10).map(|number| put(number, 100)).collect(), 10), 1);
        assert_eq!(rows((0..100).map(|number| put(number, 100)).collect(), 100), 4);
        assert_eq!(rows((0..3).map(|number| put(number, 300_000)).collect(), 3), 3);
        // Of one that is not known the database is asked, between the writes.
        assert_eq!(rows((0..10).map(|number| put(number, 100)).collect(), 9), 10);
        // What is put twice is known the second time.
        assert_eq!(rows(vec![put(0, 100), put(0, 200)], 1), 1);
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
