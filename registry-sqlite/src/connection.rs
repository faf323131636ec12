//! Opening connections, each set up the same way.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use feast_registry_core::{Error, ErrorKind, Result};
use rusqlite::{Connection, OpenFlags};

use crate::error::sqlite_error;

/// How long to wait for another process's lock. Writers of a registry hold it for milliseconds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// Prepared statements that a connection keeps: a few for each of the 14 tables.
const STATEMENTS: usize = 128;

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

/// The connection that writes, and makes the file if there is none.
pub(crate) fn open_writer(location: &Location) -> Result<Connection> {
    let connection = open(location, OpenFlags::SQLITE_OPEN_CREATE)?;
    // What is committed is on the disk before it is acknowledged, also if the power fails.
    connection.pragma_update(None, "synchronous", "FULL").map_err(|error| sqlite_error(error, location))?;
    Ok(connection)
}

/// A connection that only reads.
pub(crate) fn open_reader(location: &Location) -> Result<Connection> {
    let connection = open(location, OpenFlags::empty())?;
    connection.pragma_update(None, "query_only", "ON").map_err(|error| sqlite_error(error, location))?;
    Ok(connection)
}

fn open(location: &Location, flags: OpenFlags) -> Result<Connection> {
    let flags = flags | OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let opened = match location {
        Location::Memory => Connection::open_in_memory_with_flags(flags | OpenFlags::SQLITE_OPEN_CREATE),
        Location::File(path) => {
            check_path(path)?;
            Connection::open_with_flags(path, flags)
        }
    };
    let connection = opened.map_err(|error| sqlite_error(error, location))?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(|error| sqlite_error(error, location))?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(connection)
}

/// SQLite says «unable to open database file» to all of these.
fn check_path(path: &Path) -> Result<()> {
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

/// Puts the file into WAL mode, once for all its users. SQLite does not wait for locks when it does that, so this does.
pub(crate) fn use_wal(connection: &Connection, location: &Location) -> Result<()> {
    let deadline = Instant::now() + BUSY_TIMEOUT;
    loop {
        match connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0)) {
            Ok(mode) if mode == "wal" => return Ok(()),
            Ok(mode) => {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    format!("{location} stays in journal mode `{mode}`: its file system does not support SQLite's WAL"),
                ));
            }
            Err(error) if is_busy(&error) && Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
            Err(error) => return Err(sqlite_error(error, location)),
        }
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy)
}
