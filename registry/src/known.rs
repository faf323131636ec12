//! The URL schemes that Feast's users have, whether or not what serves them is compiled in.

/// Those of our own backends, each with the Cargo feature that serves it.
const KNOWN: [(&str, &str); 10] = [
    ("sqlite", "sqlite"),
    ("postgresql", "postgres"),
    ("mysql", "mysql"),
    ("mariadb", "mysql"),
    ("file", "file"),
    ("s3", "s3"),
    ("gs", "gcs"),
    ("az", "azure"),
    ("abfss", "azure"),
    ("https", "azure"),
];

/// Other tools' names for them.
const OTHER_NAMES: [(&str, &str); 7] = [
    ("postgres", "postgresql"),
    ("cockroachdb", "postgresql"),
    ("cockroach", "postgresql"),
    ("sqlite3", "sqlite"),
    ("s3a", "s3"),
    ("gcs", "gs"),
    ("abfs", "abfss"),
];

/// Schemes of SQLAlchemy's databases that no backend of ours serves, and of stores that Feast has files in.
const OTHERS: [&str; 9] = ["oracle", "mssql", "snowflake", "bigquery", "redshift", "duckdb", "http", "hdfs", "adl"];

/// What to write for a scheme that others use.
pub(crate) fn usual_scheme(scheme: &str) -> Option<&'static str> {
    OTHER_NAMES.iter().find(|(other, _)| *other == scheme).map(|(_, usual)| *usual)
}

/// The Cargo feature of this crate that serves a scheme.
pub(crate) fn feature_of(scheme: &str) -> Option<&'static str> {
    KNOWN.iter().find(|(known, _)| *known == scheme).map(|(_, feature)| *feature)
}

/// Whether a scheme may be that of a backend of another crate: none that means something else to Feast's users.
pub(crate) fn may_be_foreign(scheme: &str) -> bool {
    feature_of(scheme).is_none() && usual_scheme(scheme).is_none() && !OTHERS.contains(&scheme) && scheme != "memory"
}
