//! Opening connections, each set up the same way.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use feast_registry_core::{Error, ErrorKind, Result};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

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
        // What is committed is on the disk before it is acknowledged, also if the power fails.
        connection.pragma_update(None, "synchronous", "FULL")?;
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

fn open(location: &Location, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let flags = flags | OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = match location {
        Location::Memory => Connection::open_in_memory_with_flags(flags | OpenFlags::SQLITE_OPEN_CREATE),
        Location::File(path) => Connection::open_with_flags(path, flags),
    }?;
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

/// Puts the file into WAL mode, once for all its users.
pub(crate) fn use_wal(connection: &Connection, location: &Location) -> Result<(), Problem> {
    match connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0)) {
        Ok(mode) if mode == "wal" => Ok(()),
        Ok(mode) => Err(Problem::new(
            ErrorKind::Unsupported,
            format!("{location} stays in journal mode `{mode}`: its file system does not support SQLite's WAL"),
        )),
        Err(error) => Err(Problem::of(error, location)),
    }
}
