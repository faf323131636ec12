//! How the databases spell what they share.

use std::fmt::Write as _;

use bytes::Bytes;

use crate::ColumnType;

/// The SQL of a kind of database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// SQLite.
    Sqlite,
    /// PostgreSQL and what is compatible with it.
    PostgreSql,
    /// MySQL, MariaDB and what is compatible with them. Sessions must have the character set `utf8mb4`.
    MySql,
}

/// A value that is bound to a parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Bytes),
    /// A 32-bit integer.
    Integer(i32),
    /// A 64-bit integer.
    BigInteger(i64),
    /// NULL, where text could stand.
    NoText,
}

/// A statement with the values of its parameters, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// The text, with the dialect's own sign for each parameter.
    pub text: String,
    /// The values of the parameters.
    pub values: Vec<Value>,
}

/// A statement in the making.
pub(crate) struct Builder {
    pub(crate) dialect: Dialect,
    pub(crate) text: String,
    /// Whether text is compared to the byte whatever the collation of the database.
    pub(crate) is_exact: bool,
    /// How much text is bound.
    pub(crate) text_bytes: usize,
    values: Vec<Value>,
}

impl Builder {
    pub(crate) fn new(dialect: Dialect) -> Self {
        Self { dialect, text: String::new(), is_exact: true, text_bytes: 0, values: Vec::new() }
    }

    pub(crate) fn push(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// Binds a value, and writes the sign of its parameter.
    pub(crate) fn bind(&mut self, value: Value) {
        if let Value::Text(text) = &value {
            self.text_bytes += text.len();
        }
        self.values.push(value);
        match self.dialect {
            Dialect::PostgreSql => drop(write!(self.text, "${}", self.values.len())),
            Dialect::Sqlite | Dialect::MySql => self.text.push('?'),
        }
    }

    /// Binds values, with commas between.
    pub(crate) fn bind_all(&mut self, values: impl IntoIterator<Item = Value>) {
        for (index, value) in values.into_iter().enumerate() {
            if index > 0 {
                self.push(", ");
            }
            self.bind(value);
        }
    }

    /// That a column has this text, to the byte unless told otherwise.
    ///
    /// In MySQL, a table that Feast made takes `driver`, `Driver` and `dríver` for one: the first comparison is what
    /// finds the row by its index, the second is exact.
    pub(crate) fn equals(&mut self, column: &str, text: &str) {
        self.push(column);
        self.push(" = ");
        self.bind(Value::Text(text.to_owned()));
        if self.dialect == Dialect::MySql && self.is_exact {
            self.push(&format!(" AND {} = CAST(", self.dialect.text(column)));
            self.bind(Value::Text(text.to_owned()));
            self.push(" AS BINARY)");
        }
    }

    /// Binds text to be compared with a column of [`Dialect::as_sorted`].
    pub(crate) fn bind_sorted(&mut self, text: &str) {
        let value = Value::Text(text.to_owned());
        if self.dialect == Dialect::MySql {
            self.push("CAST(");
            self.bind(value);
            self.push(" AS BINARY)");
        } else {
            self.bind(value);
        }
    }

    pub(crate) fn values(&self) -> usize {
        self.values.len()
    }

    pub(crate) fn build(self) -> Statement {
        Statement { text: self.text, values: self.values }
    }
}

impl Dialect {
    /// A column of text, to be selected. In MySQL as bytes in UTF-8: columns of different collations could not meet in
    /// one `UNION`.
    pub(crate) fn text(self, column: &str) -> String {
        match self {
            Dialect::Sqlite | Dialect::PostgreSql => column.to_owned(),
            Dialect::MySql => format!("CAST(CONVERT({column} USING utf8mb4) AS BINARY)"),
        }
    }

    /// A column of text, to be sorted by its bytes whatever the collation of the database.
    pub(crate) fn as_sorted(self, column: &str) -> String {
        match self {
            Dialect::Sqlite | Dialect::MySql => self.text(column),
            Dialect::PostgreSql => format!("{column} COLLATE \"C\""),
        }
    }

    /// A column of text as bytes in UTF-8.
    pub(crate) fn text_as_bytes(self, column: &str) -> String {
        match self {
            Dialect::Sqlite => format!("CAST({column} AS BLOB)"),
            Dialect::PostgreSql => format!("convert_to({column}, 'UTF8')"),
            Dialect::MySql => self.text(column),
        }
    }

    /// NULL where a value of this type could stand.
    pub(crate) fn null(self, column_type: ColumnType) -> String {
        match self {
            Dialect::Sqlite | Dialect::MySql => "NULL".to_owned(),
            Dialect::PostgreSql => format!("NULL::{}", self.column_type(column_type)),
        }
    }

    /// Bytes, none of them.
    pub(crate) fn no_bytes(self) -> &'static str {
        match self {
            Dialect::Sqlite | Dialect::MySql => "x''",
            Dialect::PostgreSql => "''::BYTEA",
        }
    }

    /// The database's own time, in whole seconds since 1970 (UTC).
    pub(crate) fn now(self) -> &'static str {
        match self {
            Dialect::Sqlite => "unixepoch()",
            Dialect::PostgreSql => "CAST(extract(epoch FROM now()) AS BIGINT)",
            Dialect::MySql => "UNIX_TIMESTAMP()",
        }
    }

    /// A row's place in the order in which rows were inserted, where the database knows it.
    pub(crate) fn position(self) -> String {
        match self {
            Dialect::Sqlite => "rowid".to_owned(),
            Dialect::PostgreSql | Dialect::MySql => self.null(ColumnType::BigInteger),
        }
    }

    /// The type of a column, as SQLAlchemy spells it for Feast.
    pub(crate) fn column_type(self, column_type: ColumnType) -> String {
        match (column_type, self) {
            (ColumnType::String(width), _) => format!("VARCHAR({width})"),
            (ColumnType::LongText, Dialect::MySql) => "LONGTEXT".to_owned(),
            (ColumnType::Text | ColumnType::LongText, _) => "TEXT".to_owned(),
            (ColumnType::Integer, _) => "INTEGER".to_owned(),
            (ColumnType::BigInteger, _) => "BIGINT".to_owned(),
            (ColumnType::Bytes, Dialect::Sqlite) => "BLOB".to_owned(),
            (ColumnType::Bytes, Dialect::PostgreSql) => "BYTEA".to_owned(),
            (ColumnType::Bytes, Dialect::MySql) => "LONGBLOB".to_owned(),
        }
    }
}
