//! What SQLite says, as failures of an attempt.

use std::fmt;
use std::sync::Arc;

use feast_registry_core::{Error, ErrorKind};
use feast_registry_sql::{Failure, JOURNAL};
use rusqlite::{ErrorCode, ffi};

/// Why something failed. It can be cloned, because all commits that share a transaction fail with it.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    kind: ErrorKind,
    text: String,
    effect: Effect,
    source: Option<Arc<rusqlite::Error>>,
}

/// What a failure says of the transaction that it met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// One statement had no effect; the transaction can go on without it.
    StatementFailed,
    /// A row is there that was not expected.
    RowExists,
    /// The journal has the identity of the commit.
    Repeated,
    /// Another connection has the lock.
    Busy,
    /// The transaction cannot go on. Nothing of it was done.
    TransactionFailed,
    /// It was given up, because one of those who waited for it waits no longer. Nothing of it was done.
    GivenUp,
    /// The transaction may have been committed.
    Unknown,
}

impl Problem {
    /// A failure of the whole transaction, of which nothing was done.
    pub(crate) fn new(kind: ErrorKind, text: String) -> Self {
        Self { kind, text, effect: Effect::TransactionFailed, source: None }
    }

    /// What a statement other than `COMMIT` failed with.
    pub(crate) fn of(error: rusqlite::Error, location: impl fmt::Display) -> Self {
        let (kind, effect, meaning) = classify(&error);
        Self { kind, effect, text: format!("{location}: {meaning} ({error})"), source: Some(Arc::new(error)) }
    }

    /// What `COMMIT` failed with.
    ///
    /// With a rollback journal, a commit is done when that is removed; whatever fails before is undone, by this connection or by
    /// the next one. In WAL mode it appends pages to the `-wal` file, of which the last one makes them count, and syncs that file. When a
    /// write fails, the last page is not there. When the sync fails, all pages are in the file and may reach the disk: this
    /// connection rolls back and writes over them, but if the process ends before it does, whoever opens the file next finds a
    /// transaction that was committed.
    pub(crate) fn of_commit(error: rusqlite::Error, location: impl fmt::Display) -> Self {
        let is_certain = match error.sqlite_error() {
            Some(ffi::Error { code: ErrorCode::DiskFull | ErrorCode::DatabaseBusy, .. }) => true,
            Some(ffi::Error { extended_code, .. }) => *extended_code == ffi::SQLITE_IOERR_WRITE,
            None => false,
        };
        let problem = Self::of(error, location);
        if is_certain { Self { effect: Effect::TransactionFailed, ..problem } } else { problem.unknown() }
    }

    /// A transaction that could go on only as long as all waited for it.
    pub(crate) fn given_up(text: String) -> Self {
        Self { effect: Effect::GivenUp, ..Self::new(ErrorKind::DeadlineExceeded, text) }
    }

    /// The same when it is not known whether the transaction was committed.
    pub(crate) fn unknown(self) -> Self {
        Self { effect: Effect::Unknown, ..self }
    }

    /// Whether another connection has the lock that was asked for.
    pub(crate) fn is_busy(&self) -> bool {
        self.effect == Effect::Busy
    }

    /// Whether the same may be tried again for those who still wait.
    pub(crate) fn is_given_up(&self) -> bool {
        self.effect == Effect::GivenUp
    }

    /// Whether the journal has the identity of the commit.
    pub(crate) fn is_repeated(&self) -> bool {
        self.effect == Effect::Repeated
    }

    /// Whether it only concerns the statement that failed, so that other commits of the same transaction may succeed.
    pub(crate) fn is_of_one_commit(&self) -> bool {
        matches!(self.effect, Effect::StatementFailed | Effect::RowExists | Effect::Repeated)
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        let error = Error::new(problem.kind, problem.text);
        match problem.source {
            Some(source) => error.with_source(source),
            None => error,
        }
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        match problem.effect {
            Effect::RowExists => Failure::Unexpected(problem.into()),
            Effect::Repeated => Failure::Repeated(problem.into()),
            Effect::Unknown => Failure::Lost(problem.into()),
            Effect::Busy | Effect::StatementFailed | Effect::TransactionFailed | Effect::GivenUp => {
                Failure::Final(problem.into())
            }
        }
    }
}

impl From<Error> for Problem {
    /// An error of one commit.
    fn from(error: Error) -> Self {
        Self { kind: error.kind(), text: error.to_string(), effect: Effect::StatementFailed, source: None }
    }
}

fn classify(error: &rusqlite::Error) -> (ErrorKind, Effect, &'static str) {
    use Effect::{Busy, Repeated, RowExists, StatementFailed, TransactionFailed};
    use ErrorKind::{Corrupt, DeadlineExceeded, Internal, InvalidArgument, ReadOnly, SchemaMissing, Unavailable};
    if let rusqlite::Error::FromSqlConversionFailure(..) | rusqlite::Error::InvalidColumnType(..) = error {
        return (Corrupt, StatementFailed, "what is stored cannot be read");
    }
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            (Unavailable, Busy, "another process holds its lock; try again")
        }
        Some(ErrorCode::DiskFull) => (
            Unavailable,
            TransactionFailed,
            "there is no room for it: the file system of this file is full; make room there and try again",
        ),
        Some(ErrorCode::ReadOnly) => (ReadOnly, TransactionFailed, "the file or its folder cannot be written to"),
        Some(ErrorCode::CannotOpen) => (
            Unavailable,
            TransactionFailed,
            "the file, or one that SQLite makes beside it, cannot be opened; look at its permissions, those of its folder, the \
             limit of open files, and whether its file system is full",
        ),
        Some(ErrorCode::NotADatabase) => (Corrupt, TransactionFailed, "the file is not a SQLite database"),
        Some(ErrorCode::DatabaseCorrupt) => (Corrupt, StatementFailed, "the file is damaged"),
        Some(ErrorCode::SystemIoFailure) if is_growth(error) => (
            Unavailable,
            TransactionFailed,
            "the file, or the `-wal` or `-shm` beside it, could not be written: its file system may be full, or a quota or a \
             limit of the size of files (`ulimit -f`) may be reached; make room and try again",
        ),
        Some(ErrorCode::SystemIoFailure) => {
            (Unavailable, TransactionFailed, "the disk failed to read or write; see the log of the system")
        }
        Some(ErrorCode::OutOfMemory) => (Unavailable, TransactionFailed, "there is no memory for it; try again"),
        Some(ErrorCode::OperationInterrupted) => {
            (DeadlineExceeded, TransactionFailed, "it was given up, because nobody waited for it any more")
        }
        Some(ErrorCode::TooBig) => (InvalidArgument, StatementFailed, "it is larger than SQLite can store"),
        Some(ErrorCode::ConstraintViolation) if is_duplicate(error) && error.to_string().contains(JOURNAL) => {
            (Internal, Repeated, "the journal has this commit already")
        }
        Some(ErrorCode::ConstraintViolation) => (Internal, RowExists, "a row is there that was expected to be absent"),
        _ if error.to_string().contains("no such table") => (
            SchemaMissing,
            StatementFailed,
            "tables of the registry are missing; open it with schema_mode `auto` to create them",
        ),
        _ => (Internal, StatementFailed, "SQLite failed"),
    }
}

/// Whether a file could not be written or made larger. A full file system is an error of its own to SQLite when it writes into
/// the file or the WAL, but not when it makes room in the `-shm`, and neither is a quota or a limit of the process.
fn is_growth(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error().map(|error| error.extended_code);
    let of_growth = [
        ffi::SQLITE_IOERR_WRITE,
        ffi::SQLITE_IOERR_SHMSIZE,
        ffi::SQLITE_IOERR_SHMMAP,
        ffi::SQLITE_IOERR_SHMOPEN,
        ffi::SQLITE_IOERR_FSYNC,
        ffi::SQLITE_IOERR_DIR_FSYNC,
        ffi::SQLITE_IOERR_TRUNCATE,
    ];
    code.is_some_and(|code| of_growth.contains(&code))
}

/// Whether a row of this key is there, and not another rule of the table that was broken.
fn is_duplicate(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error().map(|error| error.extended_code);
    matches!(code, Some(ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_commit(code: i32) -> Failure {
        Problem::of_commit(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None), "registry.db").into()
    }

    #[test]
    fn only_a_commit_that_was_written_and_not_synced_is_unknown() {
        for code in [ffi::SQLITE_IOERR_FSYNC, ffi::SQLITE_IOERR, ffi::SQLITE_IOERR_SHMMAP] {
            assert!(matches!(of_commit(code), Failure::Lost(_)), "{code}");
        }
        for code in [ffi::SQLITE_FULL, ffi::SQLITE_IOERR_WRITE, ffi::SQLITE_BUSY] {
            let Failure::Final(error) = of_commit(code) else { panic!("{code}") };
            assert!(error.is_retryable(), "{error}");
        }
    }

    /// Fault: «disk I/O error» was all that was said of a full file system when SQLite made the `-shm` larger.
    #[test]
    fn what_cannot_grow_is_told_to_be_full_perhaps() {
        let text = |code| {
            Error::from(Problem::of(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None), "/x/registry.db"))
                .to_string()
        };
        for code in [ffi::SQLITE_FULL, ffi::SQLITE_IOERR_SHMSIZE, ffi::SQLITE_IOERR_WRITE, ffi::SQLITE_IOERR_FSYNC] {
            for part in ["/x/registry.db", "full", "make room"] {
                assert!(text(code).contains(part), "{}", text(code));
            }
        }
        assert!(!text(ffi::SQLITE_IOERR_READ).contains("full"));
    }

    #[test]
    fn what_ails_the_disk_or_the_lock_is_no_matter_of_one_commit() {
        let of = |code| Problem::of(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None), "registry.db");
        for code in
            [ffi::SQLITE_BUSY, ffi::SQLITE_FULL, ffi::SQLITE_IOERR_READ, ffi::SQLITE_READONLY, ffi::SQLITE_NOMEM]
        {
            assert!(!of(code).is_of_one_commit(), "{code}");
        }
        for code in [ffi::SQLITE_TOOBIG, ffi::SQLITE_CONSTRAINT_PRIMARYKEY] {
            assert!(of(code).is_of_one_commit(), "{code}");
        }
    }
}
