//! The rows of a commit: one for each change, and for what a whole history or project loses one each.

use bytes::Bytes;
use feast_registry_core::proto::core::FeatureViewVersionRecord;
use feast_registry_core::{Change, Commit, Image, Key, Kind, Result, Target, images};

use super::{ALL_VERSIONS, FACT, OF_USER, Revisions, VERSION, WHOLE_PROJECT, id_bytes, micros};
use crate::dialect::Builder;
use crate::read::{FACT_VALUE, NUMBER, Place, VIEW};
use crate::tables::{ColumnType, JOURNAL, METADATA, PROJECT, USER_METADATA, VERSIONS};
use crate::{self as sql, Dialect, Statement, Value};

/// The same for what one write removes from one table.
const NUMBERS_PER_TABLE: i64 = 1 << 31;

/// The most rows of changes that a statement inserts, and about the most bytes, unless one change has more.
const MOST_ROWS: usize = 32;
const MOST_BYTES: usize = 256 * 1024;

/// The columns that every row fills.
const HEAD: &str =
    "commit_id, change_number, revision, committed_at, stored_at, author, reason, target, project_id, name, number";
pub(super) const IMAGES: &str = "value_before, value_after";
/// The column that rows fill besides in which `value_before` is packed.
pub(super) const BEFORE_LENGTH: &str = ", before_length";
/// The columns that rows of versions fill besides.
const VERSION_COLUMNS: &str = ", version_type, version_created, version_description, version_id";

/// A value that is put, and what was stored under its key before.
pub(super) struct Put<'a> {
    pub(super) number: i64,
    pub(super) key: &'a Key,
    pub(super) value: &'a Bytes,
    /// Of a key that is known to be absent this is nothing: to look would only lock the place where it is to be, in MySQL.
    pub(super) before: Option<&'a Bytes>,
}

/// A row of a [`Put`].
struct PutRow<'a> {
    put: Put<'a>,
    version: Option<FeatureViewVersionRecord>,
    /// What was before, and how long it was if it is packed.
    before: Option<(Bytes, Option<i32>)>,
}

impl<'a> PutRow<'a> {
    fn of(put: Put<'a>) -> Result<Self> {
        let version = match put.key {
            Key::Version { .. } => Some(sql::decode_version(put.key, put.value)?),
            _ => None,
        };
        let before = match (put.before, &version) {
            (None, _) => None,
            (Some(before), Some(_)) => Some((sql::decode_version(put.key, before)?.feature_view_proto, None)),
            (Some(before), None) => Some(match images::pack(before, put.value) {
                Some((packed, length)) => (packed, Some(length)),
                None => (before.clone(), None),
            }),
        };
        Ok(Self { put, version, before })
    }

    fn bytes(&self) -> usize {
        self.put.value.len() + self.before.as_ref().map_or(0, |(before, _)| before.len())
    }
}

/// What the rows of a table are that are removed together.
#[derive(Clone, Copy)]
pub(super) enum Stored {
    Object(Kind),
    UserMetadata(Kind),
    Versions,
    Fact,
}

/// All that a project may have.
pub(super) fn all_stored() -> impl Iterator<Item = Stored> {
    let objects = Kind::ALL.iter().copied().map(Stored::Object);
    let user_metadata = Kind::VIEWS.iter().copied().map(Stored::UserMetadata);
    objects.chain(user_metadata).chain([Stored::Versions, Stored::Fact])
}

impl Stored {
    pub(super) fn table(self) -> &'static str {
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
pub(super) struct Rows<'a> {
    pub(super) dialect: Dialect,
    pub(super) commit: &'a Commit,
    pub(super) revisions: Revisions,
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
    pub(super) fn scope(&self, number: i64, target: &str, project: Option<&str>, name: Option<&str>) -> Statement {
        let mut builder = self.insert("");
        builder.push("VALUES (");
        self.head(&mut builder, |builder| builder.bind(Value::BigInteger(number)));
        builder.push(", ");
        builder.bind_all([Value::Text(target.to_owned()), text(project), text(name)]);
        builder.push(", NULL, NULL, NULL)");
        builder.build()
    }

    /// The rows of values that are put, of which it is known what was there before: as many as fit into a statement.
    pub(super) fn puts(&self, puts: Vec<Put<'_>>) -> Result<Vec<Statement>> {
        let mut statements = Vec::new();
        let mut together: Vec<PutRow<'_>> = Vec::new();
        for put in puts {
            let row = PutRow::of(put)?;
            let bytes: usize = together.iter().map(PutRow::bytes).sum();
            if together.len() >= MOST_ROWS || (!together.is_empty() && bytes + row.bytes() > MOST_BYTES) {
                statements.push(self.insert_together(&together));
                together.clear();
            }
            together.push(row);
        }
        if !together.is_empty() {
            statements.push(self.insert_together(&together));
        }
        Ok(statements)
    }

    fn insert_together(&self, rows: &[PutRow<'_>]) -> Statement {
        let has_versions = rows.iter().any(|row| row.version.is_some());
        let has_packed = rows.iter().any(|row| matches!(row.before, Some((_, Some(_)))));
        let versions = if has_versions { VERSION_COLUMNS } else { "" };
        let lengths = if has_packed { BEFORE_LENGTH } else { "" };
        let mut builder = self.insert(&format!("{versions}{lengths}"));
        for (index, PutRow { put: Put { number, key, value, .. }, version, before }) in rows.iter().enumerate() {
            builder.push(if index == 0 { "VALUES (" } else { ", (" });
            self.head(&mut builder, |builder| builder.bind(Value::BigInteger(*number)));
            builder.push(", ");
            builder.bind(Value::Text(Stored::of(key).target()));
            builder.push(", ");
            self.name(&mut builder, key);
            builder.push(", ");
            match before {
                Some((before, _)) => builder.bind(Value::Bytes(before.clone())),
                None => builder.push(&self.dialect.null(ColumnType::Bytes)),
            }
            builder.push(", ");
            self.after(&mut builder, value, version.as_ref(), has_versions);
            if has_packed {
                builder.push(", ");
                match before {
                    Some((_, Some(length))) => builder.bind(Value::Integer(*length)),
                    _ => builder.push(&self.dialect.null(ColumnType::Integer)),
                }
            }
            builder.push(")");
        }
        builder.build()
    }

    /// The value after a change, and the columns of a version, if rows have them.
    fn after(
        &self,
        builder: &mut Builder,
        value: &Bytes,
        version: Option<&FeatureViewVersionRecord>,
        has_versions: bool,
    ) {
        match version {
            Some(version) => {
                builder.bind(Value::Bytes(version.feature_view_proto.clone()));
                builder.push(", ");
                builder.bind_all(version_columns(version));
            }
            None => {
                builder.bind(Value::Bytes(value.clone()));
                let text = self.dialect.null(ColumnType::LongText);
                if has_versions {
                    builder.push(&format!(", {text}, {}, {text}, {text}", self.dialect.null(ColumnType::BigInteger)));
                }
            }
        }
    }

    /// The row of a value that is put, with what is stored when it is inserted.
    pub(super) fn put(&self, number: i64, key: &Key, value: &Bytes) -> Result<Statement> {
        let stored = Stored::of(key);
        let place = Place::of(key);
        let (_, _, column) = stored.columns(self.dialect);
        let version = match key {
            Key::Version { .. } => Some(sql::decode_version(key, value)?),
            _ => None,
        };
        let mut builder = self.insert(if version.is_some() { VERSION_COLUMNS } else { "" });
        let only_where_view_is = matches!(key, Key::UserMetadata { .. });
        builder.push(if only_where_view_is { "SELECT " } else { "VALUES (" });
        self.head(&mut builder, |builder| builder.bind(Value::BigInteger(number)));
        builder.push(", ");
        builder.bind(Value::Text(stored.target()));
        builder.push(", ");
        self.name(&mut builder, key);
        builder.push(", ");
        if only_where_view_is {
            builder.push(&column);
        } else {
            builder.push(&format!("(SELECT {column} FROM {} WHERE ", place.table));
            place.matches(&mut builder);
            builder.push(self.lock());
            builder.push(")");
        }
        builder.push(", ");
        self.after(&mut builder, value, version.as_ref(), version.is_some());
        if only_where_view_is {
            builder.push(&format!(" FROM {} WHERE ", place.table));
            place.matches(&mut builder);
            builder.push(self.lock());
        } else {
            builder.push(")");
        }
        Ok(builder.build())
    }

    /// The row of a change that others have made.
    ///
    /// # Errors
    /// `Corrupt` when the value of a version is no record of a version.
    pub(super) fn observed(&self, number: i64, change: &Change) -> Result<Statement> {
        let key = match &change.target {
            Target::Key(key) => key,
            Target::Versions { project, view } => {
                return Ok(self.scope(number, ALL_VERSIONS, Some(project), Some(view)));
            }
            Target::Project { project } => return Ok(self.scope(number, WHOLE_PROJECT, Some(project), None)),
        };
        let bytes_of = |image: &Image| match (image, key) {
            (Image::Value(value), Key::Version { .. }) => sql::decode_version(key, value).map(Some),
            _ => Ok(None),
        };
        let (before, after) = (bytes_of(&change.before)?, bytes_of(&change.after)?);
        let version = after.as_ref().or(before.as_ref());
        let mut builder = self.insert(if version.is_some() { VERSION_COLUMNS } else { "" });
        builder.push("VALUES (");
        self.head(&mut builder, |builder| builder.bind(Value::BigInteger(number)));
        builder.push(", ");
        builder.bind(Value::Text(Stored::of(key).target()));
        builder.push(", ");
        self.name(&mut builder, key);
        for (image, of_version) in [(&change.before, &before), (&change.after, &after)] {
            builder.push(", ");
            match (image, of_version) {
                (_, Some(version)) => builder.bind(Value::Bytes(version.feature_view_proto.clone())),
                (Image::Value(value), None) => builder.bind(Value::Bytes(value.clone())),
                (Image::Absent | Image::NotKept, None) => builder.push(&self.dialect.null(ColumnType::Bytes)),
            }
        }
        if let Some(version) = version {
            builder.push(", ");
            builder.bind_all(version_columns(version));
        }
        builder.push(")");
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
    pub(super) fn removed_key(&self, number: i64, key: &Key) -> Statement {
        let lock = self.lock();
        self.select_removed(Place::of(key), Stored::of(key), lock, |builder| builder.bind(Value::BigInteger(number)))
    }

    /// The rows of all that is removed from a table, the `table`th of its write.
    pub(super) fn removed(&self, number: i64, table: i64, place: Place<'_>, stored: Stored) -> Statement {
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

/// The values of [`VERSION_COLUMNS`].
fn version_columns(version: &FeatureViewVersionRecord) -> [Value; 4] {
    [
        Value::Text(version.feature_view_type.clone()),
        Value::BigInteger(version.created_timestamp.unwrap_or_default().seconds),
        Value::Text(version.description.clone()),
        Value::Text(version.version_id.clone()),
    ]
}

fn text(text: Option<&str>) -> Value {
    text.map_or(Value::NoText, |text| Value::Text(text.to_owned()))
}
