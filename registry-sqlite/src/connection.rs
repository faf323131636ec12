//! Opening connections, each set up the same way.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use feast_registry_core::{Error, ErrorKind, Result};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, Row};

use crate::error::Problem;

/// Prepared statements that a connection keeps: a few for each of the tables.
const STATEMENTS: usize = 128;

/// How long opening waits for another process that is just making the file or recovering it, which takes it milliseconds.
const OPENING: Duration = Duration::from_secs(5);

/// Where a registry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Location {
    /// A file.
    File(PathBuf),
    /// Memory, behind a single connection.
    Memory,
}

impl Location {
    /// A file, by its absolute path, so that a change of the working folder does not move it.
    pub(crate) fn file(path: &Path) -> Self {
        Location::File(std::path::absolute(path).unwrap_or_else(|_| path.to_owned()))
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::File(path) => write!(f, "sqlite:///{}", path.display()),
            Location::Memory => f.write_str("sqlite:///:memory:"),
        }
    }
}

/// The connection that writes, and makes the file if there is none. Once it is open it does not wait for locks: see
/// [`Session`](crate::session::Session).
pub(crate) fn open_writer(location: &Location) -> Result<Connection> {
    check_path(location)?;
    let open = || {
        let connection = open(location, OpenFlags::SQLITE_OPEN_CREATE)?;
        connection.busy_timeout(OPENING)?;
        // What is committed is on the disk before it is acknowledged, also if the power fails. To WAL mode this is the same
        // as FULL; with a rollback journal a commit is done when that is removed, and so its folder has to be synced too.
        connection.pragma_update(None, "synchronous", "EXTRA")?;
        connection.busy_timeout(Duration::ZERO)?;
        Ok(connection)
    };
    open().map_err(|error| Problem::of(error, location).into())
}

/// A connection that only reads. It does not wait for locks unless told to.
pub(crate) fn open_reader(location: &Location) -> rusqlite::Result<Connection> {
    let connection = open(location, OpenFlags::empty())?;
    connection.pragma_update(None, "query_only", "ON")?;
    Ok(connection)
}

/// A connection that reads a file and makes none beside it, opened with a parameter of SQLite's own URLs. It does not wait for
/// locks unless told to.
pub(crate) fn open_untouched(path: &Path, parameter: &str) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let url = format!("file://{}?{parameter}", encoded(path));
    set_up(Connection::open_with_flags(url, flags)?)
}

/// An absolute path as it stands in a URL.
fn encoded(path: &Path) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte);
    let bytes = path.as_os_str().as_encoded_bytes().iter();
    bytes.map(|&byte| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

fn open(location: &Location, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let flags = flags | OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    set_up(match location {
        Location::Memory => Connection::open_in_memory_with_flags(flags | OpenFlags::SQLITE_OPEN_CREATE),
        Location::File(path) => Connection::open_with_flags(path, flags),
    }?)
}

fn set_up(connection: Connection) -> rusqlite::Result<Connection> {
    connection.busy_timeout(Duration::ZERO)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    // Else SQLite plans some statements anew whenever other values are bound, which takes longer than to run them.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(connection)
}

/// SQLite says «unable to open database file» to all of these.
fn check_path(location: &Location) -> Result<()> {
    let Location::File(path) = location else { return Ok(()) };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
        return Err(Error::config(format!(
            "the registry file `{}` cannot be made: there is no folder `{}`; create it first",
            path.display(),
            folder.display()
        )));
    }
    if path.is_dir() {
        return Err(Error::config(format!("`{}` is a folder; the registry needs a file", path.display())));
    }
    Ok(())
}

/// Puts the file into WAL mode, once for all its users, and says so if it had been in another one.
pub(crate) fn use_wal(connection: &Connection, location: &Location) -> Result<(), Problem> {
    let text = |row: &Row<'_>| row.get::<_, String>(0);
    let before = || -> rusqlite::Result<_> {
        let pages: i64 = connection.pragma_query_value(None, "page_count", |row| row.get(0))?;
        Ok((pages, connection.pragma_query_value(None, "journal_mode", text)?))
    };
    let changed = before()
        .and_then(|before| Ok((before, connection.pragma_update_and_check(None, "journal_mode", "WAL", text)?)))
        .map_err(|error| Problem::of(error, location))?;
    match changed {
        ((pages, before), now) if now == "wal" => {
            if pages > 0 && before != now {
                tracing::warn!(
                    "{location}: SQLite kept this file in journal mode `{before}`, and keeps it in WAL mode from now on. What \
                     is committed is then also in the files `-wal` and `-shm` beside it: copy it with `.backup` of sqlite3 or \
                     with VACUUM INTO, and not with cp. All its users, Feast too, need write access to its folder. \
                     `?journal_mode=keep` in its URL leaves the mode as it is"
                );
            }
            Ok(())
        }
        (_, now) => Err(Problem::new(
            ErrorKind::Unsupported,
            format!(
                "{location} stays in journal mode `{now}`: its file system does not support SQLite's WAL; \
                 `?journal_mode=keep` in its URL does without"
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_path_can_stand_in_a_url() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for name in ["plain.db", "a b?c=1#d%2e&é.db"] {
            let path = folder.path().join(name);
            Connection::open(&path).and_then(|made| made.execute_batch("CREATE TABLE t (c)")).expect(name);
            let opened = open_untouched(&path, "immutable=1").expect(name);
            assert!(opened.table_exists(None, "t").expect(name), "{name}");
        }
        assert_eq!(std::fs::read_dir(folder.path()).expect("the folder").count(), 2);
    }
}
