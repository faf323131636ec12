//! What SQLite says, as errors of the registry.

use std::fmt;

use feast_registry_core::{Error, ErrorKind};
use rusqlite::ErrorCode;

/// The registry's error for an error of SQLite at a location.
pub(crate) fn sqlite_error(error: rusqlite::Error, location: impl fmt::Display) -> Error {
    let (kind, meaning) = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            (ErrorKind::Unavailable, "another process held the write lock for too long; try again")
        }
        Some(ErrorCode::DiskFull) => (ErrorKind::Unavailable, "the disk is full; make room and try again"),
        Some(ErrorCode::ReadOnly) => (ErrorKind::ReadOnly, "the file or its folder cannot be written to"),
        Some(ErrorCode::CannotOpen) => {
            (ErrorKind::Unavailable, "the file cannot be opened; look at its permissions and those of its folder")
        }
        Some(ErrorCode::NotADatabase) => (ErrorKind::Corrupt, "the file is not a SQLite database"),
        Some(ErrorCode::DatabaseCorrupt) => (ErrorKind::Corrupt, "the file is damaged"),
        Some(ErrorCode::SystemIoFailure) => (ErrorKind::Unavailable, "the disk failed to read or write"),
        _ if error.to_string().contains("no such table") => (
            ErrorKind::SchemaMissing,
            "tables of the registry are missing; open it with schema_mode `auto` to create them",
        ),
        _ => (ErrorKind::Internal, "SQLite failed"),
    };
    Error::new(kind, format!("{location}: {meaning} ({error})")).with_source(error)
}
