//! The schemes of URLs, and what serves them.

use feast_registry_core::Error;
use feast_registry_core::config::RegistryUrl;

/// The URL schemes that Feast users have, each with the Cargo feature of this crate that serves it.
const SCHEMES: [(&str, &str); 10] = [
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

/// What to write for a scheme that others use.
pub(crate) fn usual_scheme(scheme: &str) -> Option<&'static str> {
    OTHER_NAMES.iter().find(|(other, _)| *other == scheme).map(|(_, usual)| *usual)
}

/// That nothing here serves a URL, with the remedy.
pub(crate) fn missing_backend(url: &RegistryUrl) -> Error {
    let backends = [
        ("file", cfg!(feature = "file")),
        ("s3", cfg!(feature = "s3")),
        ("gs", cfg!(feature = "gcs")),
        ("az, abfss", cfg!(feature = "azure")),
        ("sqlite", cfg!(feature = "sqlite")),
        ("postgresql", cfg!(feature = "postgres")),
        ("mysql, mariadb", cfg!(feature = "mysql")),
        ("memory", true),
    ];
    let scheme = url.scheme();
    let compiled_in: Vec<&str> = backends.iter().filter(|(_, is_in)| *is_in).map(|(scheme, _)| *scheme).collect();
    let compiled_in = compiled_in.join(", ");
    let remedy = match (usual_scheme(scheme), SCHEMES.iter().find(|(known, _)| *known == scheme)) {
        (Some(usual), _) => format!("write `{usual}://` instead of `{scheme}://`"),
        (None, Some((_, feature))) => format!("add the Cargo feature `{feature}` of the crate `feast-registry`"),
        (None, None) => "there is no such kind of registry".to_owned(),
    };
    Error::config(format!("the registry `{url}` cannot be opened: {remedy}. Compiled in are: {compiled_in}"))
}
