//! The tables of Feast's SQL registry: names, columns, types, keys and indexes are its own.

use crate::Dialect;
use feast_registry_core::Kind;

/// The type of a column, to be spelled in the dialect of a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnType {
    /// Text of at most so many characters.
    String(u32),
    /// Text; in MySQL of at most 65,535 bytes.
    Text,
    /// Text of any length.
    LongText,
    /// A 32-bit integer.
    Integer,
    /// A 64-bit integer.
    BigInteger,
    /// Bytes of any length.
    Bytes,
}

/// A column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub column_type: ColumnType,
    /// Whether it is part of the primary key.
    pub is_key: bool,
    /// Whether it may be NULL.
    pub is_nullable: bool,
}

/// A table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// Its columns, in order.
    pub columns: Vec<Column>,
    /// Its index besides the primary key.
    pub index: Option<Index>,
    /// Whether SQLite keeps the rows themselves in the order of the primary key (`WITHOUT ROWID`), instead of an index of
    /// them.
    pub is_clustered: bool,
}

/// An index of a table besides its primary key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Index {
    /// Its name.
    pub name: &'static str,
    /// The column that it is on: `project_id` in all of Feast's tables.
    pub column: &'static str,
    /// If it is of some rows alone, which: among them, a value occurs once.
    pub unique_where: Option<&'static str>,
}

impl Index {
    /// An index of all rows.
    pub const fn new(name: &'static str, column: &'static str) -> Self {
        Self { name, column, unique_where: None }
    }
}

/// Where the objects of a kind are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectTable {
    /// The table.
    pub table: &'static str,
    /// The column with an object's name.
    pub name: &'static str,
    /// The column with the serialized message.
    pub proto: &'static str,
}

/// The column of every table that names the project.
pub const PROJECT: &str = "project_id";
/// The column that says when a row was written: whole seconds since 1970 (UTC).
pub const UPDATED: &str = "last_updated_timestamp";
/// The column with the bytes that a user attached to a view.
pub const USER_METADATA: &str = "user_metadata";
/// The table of the versions of views.
pub const VERSIONS: &str = "feature_view_version_history";
/// The table of the journal, which is no table of Feast's.
pub const JOURNAL: &str = "feast_registry_journal";
/// The table of one row that says which revision the journal was given last, in databases that need one.
pub const JOURNAL_HEAD: &str = "feast_registry_journal_head";
/// The table of facts about projects.
pub const METADATA: &str = "feast_metadata";

/// Where the objects of a kind are.
pub const fn object_table(kind: Kind) -> ObjectTable {
    let (table, name, proto) = match kind {
        Kind::Project => ("projects", "project_name", "project_proto"),
        Kind::Entity => ("entities", "entity_name", "entity_proto"),
        Kind::DataSource => ("data_sources", "data_source_name", "data_source_proto"),
        Kind::FeatureView => ("feature_views", "feature_view_name", "feature_view_proto"),
        Kind::StreamFeatureView => ("stream_feature_views", "feature_view_name", "feature_view_proto"),
        Kind::OnDemandFeatureView => ("on_demand_feature_views", "feature_view_name", "feature_view_proto"),
        Kind::LabelView => ("label_views", "feature_view_name", "feature_view_proto"),
        Kind::FeatureService => ("feature_services", "feature_service_name", "feature_service_proto"),
        Kind::SavedDataset => ("saved_datasets", "saved_dataset_name", "saved_dataset_proto"),
        Kind::ValidationReference => {
            ("validation_references", "validation_reference_name", "validation_reference_proto")
        }
        Kind::Permission => ("permissions", "permission_name", "permission_proto"),
        Kind::Infra => ("managed_infra", "infra_name", "infra_proto"),
    };
    ObjectTable { table, name, proto }
}

const fn key(name: &'static str, column_type: ColumnType) -> Column {
    Column { name, column_type, is_key: true, is_nullable: false }
}

const fn required(name: &'static str, column_type: ColumnType) -> Column {
    Column { name, column_type, is_key: false, is_nullable: false }
}

const fn optional(name: &'static str, column_type: ColumnType) -> Column {
    Column { name, column_type, is_key: false, is_nullable: true }
}

/// The width of names and projects.
pub const NAME: ColumnType = ColumnType::String(255);

/// Every table of Feast's registry; those of [`journal::tables`](crate::journal::tables) are ours.
pub fn tables() -> Vec<Table> {
    let mut tables: Vec<Table> = Kind::ALL.iter().copied().map(table_of).collect();
    tables.push(Table {
        name: VERSIONS,
        columns: vec![
            key("feature_view_name", NAME),
            key(PROJECT, NAME),
            key("version_number", ColumnType::Integer),
            required("feature_view_type", ColumnType::String(50)),
            required("feature_view_proto", ColumnType::Bytes),
            required("created_timestamp", ColumnType::BigInteger),
            // In MySQL, Feast's column holds 65,535 bytes; a view may have a longer description.
            optional("description", ColumnType::Text),
            required("version_id", ColumnType::String(36)),
        ],
        index: Some(Index::new("idx_fv_version_history_project_id", PROJECT)),
        is_clustered: false,
    });
    tables.push(Table {
        name: METADATA,
        columns: vec![
            key(PROJECT, NAME),
            key("metadata_key", ColumnType::String(50)),
            required("metadata_value", ColumnType::Text),
            required(UPDATED, ColumnType::BigInteger),
        ],
        index: Some(Index::new("idx_feast_metadata_project_id", PROJECT)),
        is_clustered: false,
    });
    tables
}

fn table_of(kind: Kind) -> Table {
    let ObjectTable { table, name, proto } = object_table(kind);
    let mut columns = match kind {
        // Here, and only here, the project is the key alone.
        Kind::Project => vec![key(PROJECT, NAME), required(name, NAME)],
        _ => vec![key(name, NAME), key(PROJECT, NAME)],
    };
    columns.push(required(UPDATED, ColumnType::BigInteger));
    if kind == Kind::FeatureView {
        // Feast has this column and leaves it empty; so does this registry.
        columns.push(optional("materialized_intervals", ColumnType::Bytes));
    }
    columns.push(required(proto, ColumnType::Bytes));
    if kind.is_view() {
        columns.push(optional(USER_METADATA, ColumnType::Bytes));
    }
    let index = match kind {
        Kind::Project => "idx_projects_project_id",
        Kind::Entity => "idx_entities_project_id",
        Kind::DataSource => "idx_data_sources_project_id",
        Kind::FeatureView => "idx_feature_views_project_id",
        Kind::StreamFeatureView => "idx_stream_feature_views_project_id",
        Kind::OnDemandFeatureView => "idx_on_demand_feature_views_project_id",
        Kind::LabelView => "idx_label_views_project_id",
        Kind::FeatureService => "idx_feature_services_project_id",
        Kind::SavedDataset => "idx_saved_datasets_project_id",
        Kind::ValidationReference => "idx_validation_references_project_id",
        Kind::Permission => "idx_permissions_project_id",
        Kind::Infra => "idx_managed_infra_project_id",
    };
    Table { name: table, columns, index: Some(Index::new(index, PROJECT)), is_clustered: false }
}

/// The statements that make a table as SQLAlchemy does for Feast, and its index, unless another process just did.
/// `options` are put at the end of `CREATE TABLE`.
pub fn create_table(dialect: Dialect, table: &Table, options: &str) -> Vec<String> {
    let mut lines: Vec<String> = table.columns.iter().map(|column| column_line(dialect, column)).collect();
    let key: Vec<_> = table.columns.iter().filter(|column| column.is_key).map(|column| column.name).collect();
    lines.push(format!("PRIMARY KEY ({})", key.join(", ")));
    let Table { name, index, is_clustered, .. } = table;
    let create =
        |lines: &[String]| format!("CREATE TABLE IF NOT EXISTS {name} (\n\t{}\n){options}", lines.join(", \n\t"));
    match dialect {
        Dialect::Sqlite | Dialect::PostgreSql => {
            let create_index = |Index { name: index, column, unique_where }: Index| match unique_where {
                None => format!("CREATE INDEX IF NOT EXISTS {index} ON {name} ({column})"),
                Some(rows) => format!("CREATE UNIQUE INDEX IF NOT EXISTS {index} ON {name} ({column}) WHERE {rows}"),
            };
            let clustered = if *is_clustered && dialect == Dialect::Sqlite { " WITHOUT ROWID" } else { "" };
            [create(&lines) + clustered].into_iter().chain(index.map(create_index)).collect()
        }
        // It has no IF NOT EXISTS for indexes.
        Dialect::MySql => {
            lines.extend(index.map(|Index { name: index, column, .. }| format!("KEY {index} ({column})")));
            vec![create(&lines)]
        }
    }
}

fn column_line(dialect: Dialect, column: &Column) -> String {
    let null = if column.is_nullable { "" } else { " NOT NULL" };
    format!("{} {}{null}", column.name, dialect.column_type(column.column_type))
}
