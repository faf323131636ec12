//! Where a registry is: the URLs and paths that Feast's users have in their configuration.

use std::fmt;
use std::str::FromStr;

use crate::{Error, Result};

/// Schemes whose path is the name of an object, taken as it is written: there `%20` is three characters, as it is for
/// Feast.
const OBJECT_STORES: [&str; 12] =
    ["s3", "s3a", "gs", "gcs", "az", "azure", "adl", "abfs", "abfss", "http", "https", "hdfs"];

/// Options whose value is not shown: those with one of these in their name.
const SECRET_OPTIONS: [&str; 8] = ["pass", "pwd", "secret", "token", "key", "cred", "signature", "auth"];

/// Where a registry is: a database, a file, or an object in an object store.
///
/// It is parsed from what Feast's configuration has there: a URL as SQLAlchemy writes it for a database, a path or a
/// URL for a file.
///
/// | text | is |
/// |---|---|
/// | `sqlite:///registry.db` | a SQLite file, relative to the folder that the process works in |
/// | `sqlite:////var/registry.db` | a SQLite file by its full path: four slashes |
/// | `sqlite://`, `sqlite:///:memory:` | a SQLite database in memory |
/// | `postgresql+psycopg://user:pass@host:5432/db` | a database on a server; the part after `+` names a Python driver |
/// | `data/registry.db`, `file:///var/registry.db` | a file |
/// | `s3://bucket/path/registry.db` | an object in an object store |
/// | `redb:///var/registry.redb` | what the backend of that scheme takes it for: a [path](Self::path), or a database on a server |
///
/// In the URL of a database, the user name, the password, the database and the options may be percent-encoded. A
/// password may hold any character but `@` as it is, and `@` too as long as no `/` or `?` follows in it; in a URL with
/// a password, an `@` in the database or the options must be encoded. An option may be repeated; one without a value
/// is left out, as SQLAlchemy does.
///
/// Neither `Display` nor `Debug` shows a password, or an option whose name says that it is a secret: `***` stands for
/// it. The same holds for the errors of parsing.
///
/// ```
/// use feast_registry_core::config::RegistryUrl;
///
/// let url: RegistryUrl = "postgresql+psycopg://feast:p%40ss@[::1]:5432/features?sslmode=require".parse()?;
/// assert_eq!((url.scheme(), url.driver()), ("postgresql", Some("psycopg")));
/// assert_eq!((url.host(), url.port()), (Some("::1"), Some(5432)));
/// assert_eq!((url.password(), url.database()), (Some("p@ss"), Some("features")));
/// assert_eq!(url.to_string(), "postgresql+psycopg://feast:***@[::1]:5432/features?sslmode=require");
/// # Ok::<(), feast_registry_core::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct RegistryUrl {
    scheme: String,
    driver: Option<String>,
    username: Option<String>,
    password: Option<String>,
    host: Option<String>,
    port: Option<u16>,
    database: Option<String>,
    query: Vec<(String, String)>,
}

impl RegistryUrl {
    /// The file at `path`, which is taken as it is: a `%` or a `://` in it has no meaning.
    pub fn from_path(path: impl Into<String>) -> Self {
        Self {
            scheme: "file".to_owned(),
            driver: None,
            username: None,
            password: None,
            host: None,
            port: None,
            database: Some(path.into()).filter(|path| !path.is_empty()),
            query: Vec::new(),
        }
    }

    /// What kind of storage it is, without the driver: `sqlite`, `postgresql`, `file` for a path, … Always lower case.
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// Whether the registry is kept as Feast's file registry keeps it: in one file, in a folder or in an object store.
    pub fn is_file(&self) -> bool {
        matches!(self.scheme(), "file" | "s3" | "gs" | "az" | "abfss" | "https")
    }

    /// The Python driver that is named after a `+`, as `psycopg2` in `postgresql+psycopg2://`.
    pub fn driver(&self) -> Option<&str> {
        self.driver.as_deref()
    }

    /// The user to connect as. `None` when absent or empty. For Azure's `abfss://`, the container.
    pub fn username(&self) -> Option<&str> {
        self.username.as_deref()
    }

    /// The password in the clear. `None` when absent or empty.
    pub fn password(&self) -> Option<&str> {
        self.password.as_deref()
    }

    /// The host, or the bucket of an object store. `None` when absent. An IPv6 address is without its brackets.
    pub fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }

    /// The port, from 1 to 65535.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The database on a server; for `sqlite` and `file` the path of the file; in an object store the object's name,
    /// without a slash before it. `None` when absent or empty.
    ///
    /// A SQLite database in memory has `None` or `:memory:` here.
    pub fn database(&self) -> Option<&str> {
        self.database.as_deref()
    }

    /// The path of the file or folder, for storages that are one: `/var/registry.redb` for `redb:///var/registry.redb`, and
    /// `data/registry.redb`, which is relative to the folder that the process works in, for `redb://data/registry.redb`. For
    /// `sqlite` and `file` it is the [`database`](Self::database), by their own rules.
    ///
    /// `None` when there is none, and when the URL names a user or a port, which a path has not.
    ///
    /// ```
    /// use feast_registry_core::config::RegistryUrl;
    ///
    /// for (url, path) in [
    ///     ("redb:///var/registry.redb", Some("/var/registry.redb")),
    ///     ("redb:////var/registry.redb", Some("//var/registry.redb")), // as Unix has it: the same file
    ///     ("redb://my%20data/my%20registry.redb?cache=1", Some("my data/my registry.redb")),
    ///     ("redb://registry.redb", Some("registry.redb")),
    ///     ("redb://", None),
    ///     ("redb://me@data/registry.redb", None),
    ///     ("sqlite:///registry.db", Some("registry.db")),
    /// ] {
    ///     assert_eq!(url.parse::<RegistryUrl>()?.path().as_deref(), path, "{url}");
    /// }
    /// # Ok::<(), feast_registry_core::Error>(())
    /// ```
    pub fn path(&self) -> Option<String> {
        if matches!(self.scheme(), "file" | "sqlite") {
            return self.database.clone();
        }
        if self.username.is_some() || self.password.is_some() || self.port.is_some() {
            return None;
        }
        // A host is not decoded, since of a server it has nothing to be decoded.
        let first = self.host.as_deref().map(|first| decode(first).unwrap_or_else(|_| first.to_owned()));
        match (first, &self.database) {
            (None, None) => None,
            (Some(first), None) => Some(first),
            (first, Some(rest)) => Some(format!("{}/{rest}", first.unwrap_or_default())),
        }
    }

    /// For storages that have these options and no others.
    ///
    /// # Errors
    /// `InvalidConfig`, which names an option that is not known, and those that are. It does not show the options, which
    /// may be secret.
    pub fn refuse_options_but(&self, known: &[&str]) -> Result<()> {
        let Some((name, _)) = self.query.iter().find(|(name, _)| !known.contains(&name.as_str())) else {
            return Ok(());
        };
        let there_are = match known {
            [] => "there are none".to_owned(),
            known => format!("there are {}", known.join(", ")),
        };
        let url = self.without_options();
        Err(Error::config(format!("the registry's URL `{url}`: there is no option `{name}`; {there_are}")))
    }

    /// The same without its options: for the error about one that is not known, whose value may be a secret all the same.
    #[must_use]
    pub fn without_options(&self) -> Self {
        Self { query: Vec::new(), ..self.clone() }
    }

    /// The options after the `?`, decoded, in the order in which they are written.
    pub fn query(&self) -> &[(String, String)] {
        &self.query
    }

    /// The URL with an option, unless it has that one already.
    #[must_use]
    pub fn with_option(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let name = name.into();
        if self.query.iter().all(|(of, _)| *of != name) {
            self.query.push((name, value.into()));
        }
        self
    }
}

impl FromStr for RegistryUrl {
    type Err = Error;

    /// # Errors
    ///
    /// The text is no such URL or path. The error says why, and repeats nothing of the text but its scheme.
    fn from_str(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Err(Error::config("the path or URL of the registry is empty"));
        }
        if text.chars().any(char::is_control) {
            return Err(Error::config(
                "the path or URL of the registry holds a line break or another control character; in a URL, one that \
                 belongs there is percent-encoded",
            ));
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            // Feast takes what is before the colon for a scheme, and refuses it. To take it for a path would also show
            // a password wherever a path is shown.
            return match text.strip_prefix("//").unwrap_or(text).split_once(':') {
                Some((before, after)) if is_broken_url(before, after) => Err(Error::config(
                    "the registry is given by a text with a `:` that is no URL; a URL begins with a scheme and `://`, as \
                     `postgresql://user:password@host/database`, and a path with a colon begins with `./` or `/`",
                )),
                _ => Ok(Self::from_path(text)),
            };
        };
        if !is_scheme(scheme) {
            return Err(Error::config(
                "what is before the `://` of the registry's URL is no scheme: a letter, then letters, digits and `+`, \
                 as in `sqlite` or `postgresql+psycopg`",
            ));
        }
        let scheme = scheme.to_ascii_lowercase();
        let (scheme, driver) = match scheme.split_once('+') {
            None => (scheme, None),
            Some((dialect, driver)) if !dialect.is_empty() && !driver.is_empty() && !driver.contains('+') => {
                (dialect.to_owned(), Some(driver.to_owned()))
            }
            Some(_) => {
                return Err(Error::config(
                    "the scheme of the registry's URL has a `+` that does not join a database and a driver, as in \
                     `postgresql+psycopg`",
                ));
            }
        };
        let wrong = |problem: &str| Error::config(format!("the registry's URL `{scheme}://…` {problem}"));

        let parts = Parts::split(rest);
        let (host, port) = host_and_port(parts.address).map_err(wrong)?;
        let username = parts.username.map(decode).transpose().map_err(wrong)?;
        let password = parts.password.map(decode).transpose().map_err(wrong)?;
        let query = parts.query.map(options).transpose().map_err(wrong)?.unwrap_or_default();
        // Were it a part of the password after all, it would be shown as a part of the rest.
        if password.is_some() && [parts.path, parts.query].iter().flatten().any(|text| text.contains('@')) {
            return Err(wrong(
                "has an `@` after its host, so where its password ends is unclear; write `%40` for an `@` there, and \
                 in a password also `%2F` for `/` and `%3F` for `?`",
            ));
        }

        let database = match scheme.as_str() {
            "file" => {
                if !parts.address.is_empty() && parts.address != "localhost" || username.is_some() {
                    return Err(wrong("names a host; the full path of a file comes after three slashes, `file:///…`"));
                }
                // Here the slash belongs to the path.
                decode(parts.path.unwrap_or_default()).map_err(wrong)?
            }
            "sqlite" => {
                if !parts.address.is_empty() || username.is_some() {
                    return Err(wrong(
                        "names a host; a path comes after three slashes, so `sqlite:///registry.db` is relative and \
                         `sqlite:////var/registry.db` is not",
                    ));
                }
                decode(parts.database()).map_err(wrong)?
            }
            other if OBJECT_STORES.contains(&other) => {
                if parts.path.is_some_and(|path| path.contains('#')) {
                    return Err(wrong("has a `#`, and Feast leaves out what comes after one"));
                }
                parts.database().trim_start_matches('/').to_owned()
            }
            _ => decode(parts.database()).map_err(wrong)?,
        };
        if database.contains('\0') {
            return Err(wrong("has a zero byte, `%00`, in its path"));
        }
        if scheme == "file" && database.is_empty() {
            return Err(wrong("has no path"));
        }
        // SQLAlchemy connects with what is not empty; an empty part is as if it were absent.
        let present = |part: Option<String>| part.filter(|part| !part.is_empty());
        Ok(Self {
            driver,
            username: present(username),
            password: present(password),
            host: present(host).filter(|_| scheme != "file"),
            port,
            database: present(Some(database)),
            query,
            scheme,
        })
    }
}

/// The text after `://`, cut up and not yet decoded.
struct Parts<'a> {
    username: Option<&'a str>,
    password: Option<&'a str>,
    /// Host and port.
    address: &'a str,
    /// With the slash before it.
    path: Option<&'a str>,
    /// Without the `?`.
    query: Option<&'a str>,
}

impl<'a> Parts<'a> {
    fn split(rest: &'a str) -> Self {
        // As SQLAlchemy has it: a user name holds no `:` and no `/`, and a password may hold everything up to an `@`.
        // So a `/` or `?` before that `@` belongs to the password.
        let name_end = rest.find([':', '/']).unwrap_or(rest.len());
        let (name, after) = rest.split_at(name_end);
        let (username, password, rest) = match after.strip_prefix(':').and_then(|after| Some((after, after.find('@')?)))
        {
            Some((after, first)) => {
                // It takes the first `@`; the host would then have the others in it, which no host has. They are the
                // password's, so the last one ends it.
                let host = &after[first..];
                let host = &host[..host.find(['/', '?']).unwrap_or(host.len())];
                let end = first + host.rfind('@').unwrap_or(0);
                (Some(name), Some(&after[..end]), &after[end + 1..])
            }
            None => match name.rfind('@') {
                Some(end) => (Some(&name[..end]), None, &rest[end + 1..]),
                None => (None, None, rest),
            },
        };
        let (rest, query) = match rest.split_once('?') {
            Some((rest, query)) => (rest, Some(query)),
            None => (rest, None),
        };
        let (address, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        Self { username, password, address, path: Some(path).filter(|path| !path.is_empty()), query }
    }

    /// The path without the slash that parts it from the host.
    fn database(&self) -> &'a str {
        self.path.map_or("", |path| path.strip_prefix('/').unwrap_or(path))
    }
}

/// Whether a text with a colon, without the `://` of a URL, is one that has lost a part: it begins with a scheme, or with
/// `user:password@host`. One letter and a slash are a drive of Windows.
fn is_broken_url(before: &str, after: &str) -> bool {
    let is_drive = before.len() == 1 && after.starts_with(['/', '\\']);
    let is_path = before.contains(['/', '\\']);
    !is_drive && !is_path && (after.contains('@') || before.len() > 1 && is_scheme(before))
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.' | '_'))
}

/// The error must not repeat what is there: without an `@`, a password stands where the port would.
fn host_and_port(address: &str) -> Result<(Option<String>, Option<u16>), &'static str> {
    let (host, port) = match address.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or("has a `[` without the `]` that ends an IPv6 address")?;
            let port = match after.strip_prefix(':') {
                Some(port) => Some(port),
                None if after.is_empty() => None,
                None => return Err("has something other than `:` and a port after the `]` of an IPv6 address"),
            };
            if host.is_empty() {
                return Err("has nothing in the brackets of its IPv6 address");
            }
            (host, port)
        }
        None => match address.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (address, None),
        },
    };
    if host.contains(|c: char| c.is_whitespace() || matches!(c, '[' | ']')) {
        return Err("has a host with a space or a bracket in it");
    }
    // `u16::from_str` would allow a plus sign.
    let digits = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let port = match port.map(|port| (port, port.parse())) {
        None => None,
        Some((port, Ok(number @ 1..))) if digits(port) => Some(number),
        Some(_) => {
            return Err(
                "has a port that is no number from 1 to 65535; an IPv6 address needs brackets, and a password \
                        needs `@` after it",
            );
        }
    };
    Ok((Some(host.to_owned()), port))
}

fn options(query: &str) -> Result<Vec<(String, String)>, &'static str> {
    let mut options = Vec::new();
    for option in query.split('&') {
        if let Some((name, value)) = option.split_once('=').filter(|(_, value)| !value.is_empty()) {
            options.push((decode(&name.replace('+', " "))?, decode(&value.replace('+', " "))?));
        }
    }
    Ok(options)
}

/// A `%` that no two hexadecimal digits follow stands for itself, as everywhere in Python.
fn decode(text: &str) -> Result<String, &'static str> {
    let digit = |byte: Option<&u8>| byte.and_then(|&byte| char::from(byte).to_digit(16));
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match (byte, digit(bytes.get(at + 1)), digit(bytes.get(at + 2))) {
            // Two digits are below 256.
            (b'%', Some(high), Some(low)) => {
                decoded.push((high * 16 + low) as u8);
                at += 3;
            }
            _ => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8(decoded).map_err(|_| "has percent-encoded bytes that are not UTF-8")
}

/// Writes `text` so that it reads back the same: `reserved` has a meaning where it is written.
fn encode(f: &mut fmt::Formatter<'_>, text: &str, reserved: &str) -> fmt::Result {
    for c in text.chars() {
        if c == '%' || c.is_control() || reserved.contains(c) {
            for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                write!(f, "%{byte:02X}")?;
            }
        } else {
            write!(f, "{c}")?;
        }
    }
    Ok(())
}

fn is_secret(option: &str) -> bool {
    let option = option.to_ascii_lowercase();
    // `sig` is the signature of an Azure access token.
    option == "sig" || SECRET_OPTIONS.iter().any(|secret| option.contains(secret))
}

/// The URL, or the path for a file, with `***` for every secret.
impl fmt::Display for RegistryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.scheme == "file" {
            f.write_str(self.database().unwrap_or_default())?;
        } else {
            f.write_str(&self.scheme)?;
            if let Some(driver) = &self.driver {
                write!(f, "+{driver}")?;
            }
            f.write_str("://")?;
            if self.username.is_some() || self.password.is_some() {
                encode(f, self.username().unwrap_or_default(), ":/@?")?;
                f.write_str(if self.password.is_some() { ":***@" } else { "@" })?;
            }
            match &self.host {
                Some(host) if host.contains(':') => write!(f, "[{host}]")?,
                Some(host) => f.write_str(host)?,
                None => {}
            }
            if let Some(port) = self.port {
                write!(f, ":{port}")?;
            }
            if let Some(database) = &self.database {
                f.write_str("/")?;
                if OBJECT_STORES.contains(&self.scheme.as_str()) {
                    f.write_str(database)?;
                } else {
                    encode(f, database, "?@")?;
                }
            }
        }
        for (index, (name, value)) in self.query.iter().enumerate() {
            f.write_str(if index == 0 { "?" } else { "&" })?;
            encode(f, name, "&=+ @")?;
            f.write_str("=")?;
            if is_secret(name) {
                f.write_str("***")?;
            } else {
                encode(f, value, "&+ @")?;
            }
        }
        Ok(())
    }
}

/// As `Display`: no secret is shown.
impl fmt::Debug for RegistryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RegistryUrl({self})")
    }
}

#[cfg(test)]
mod tests;
