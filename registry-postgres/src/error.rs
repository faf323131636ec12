//! What PostgreSQL says, as errors of the registry.

use feast_registry_core::{Error, ErrorKind};
pub(crate) use feast_registry_sql::Failure;
use feast_registry_sql::JOURNAL;
use tokio_postgres::error::SqlState;

/// What an error of the driver means.
pub(crate) fn failure(error: tokio_postgres::Error, location: &str) -> Failure {
    let Some(answer) = error.as_db_error() else {
        // The driver has no other way of telling; `registry-server/tests/cli/refused.rs` has the proof.
        if std::error::Error::source(&error).is_some_and(|source| source.to_string() == "password missing") {
            let meaning = "the server asks for a password, and there is none in the URL, nor in PGPASSWORD";
            let missing = Error::new(ErrorKind::InvalidConfig, format!("{location}: {meaning}"));
            return Failure::Final(missing.with_source(error));
        }
        let lost = Error::new(ErrorKind::Unavailable, format!("{location}: the connection failed ({})", chain(&error)));
        return Failure::Lost(lost.with_source(error));
    };
    let state = answer.code().clone();
    let said = answer.message().to_owned();
    // What the server says is in the language of its administrator; what its own functions and our tables are called is not.
    let routine = answer.routine().unwrap_or_default().to_owned();
    let is_of_journal =
        answer.table() == Some(JOURNAL) || answer.constraint().is_some_and(|name| name.starts_with(JOURNAL));
    let answer = answer.clone();
    // As the source says it, which is then not said twice.
    let new = |kind: ErrorKind, meaning: &str| {
        Error::new(kind, format!("{location}: {meaning} ({answer})")).with_source(answer.clone())
    };
    let class = state.code().get(..2).unwrap_or_default();
    match () {
        () if [SqlState::T_R_SERIALIZATION_FAILURE, SqlState::T_R_DEADLOCK_DETECTED].contains(&state) => {
            let meaning = "other transactions were in the way, again and again; try again";
            Failure::Serialization(new(ErrorKind::Conflict, meaning))
        }
        () if state == SqlState::UNIQUE_VIOLATION && is_of_journal => {
            Failure::Repeated(new(ErrorKind::Conflict, "this commit has been here before"))
        }
        () if [SqlState::DIVISION_BY_ZERO, SqlState::UNIQUE_VIOLATION].contains(&state) => {
            Failure::Unexpected(new(ErrorKind::Conflict, "another writer was faster"))
        }
        // A plan was made for another table than there is now: the next connection makes it anew.
        () if state == SqlState::FEATURE_NOT_SUPPORTED
            && (routine == "RevalidateCachedQuery" || said.contains("cached plan")) =>
        {
            Failure::Unusable(new(ErrorKind::Unavailable, "a table was changed meanwhile; try again"))
        }
        // The server became a replica, or an administrator made its sessions read-only: a new one may be another's. The
        // former refuses a transaction that is to write (`check_transaction_read_only`, before 17 `check_XactReadOnly`).
        () if state == SqlState::READ_ONLY_SQL_TRANSACTION
            || (state == SqlState::FEATURE_NOT_SUPPORTED
                && ["check_transaction_read_only", "check_XactReadOnly"].contains(&routine.as_str())) =>
        {
            let meaning = "the database is read-only: is this a replica?";
            Failure::Unusable(new(ErrorKind::ReadOnly, meaning))
        }
        // The server ends this session, or starts or stops: 57P01 to 57P05; class 08 is the connection itself.
        // 40003 says that it is not known whether a statement was completed.
        () if class == "08"
            || state.code().starts_with("57P")
            || state == SqlState::T_R_STATEMENT_COMPLETION_UNKNOWN =>
        {
            Failure::Lost(new(ErrorKind::Unavailable, "the database is not available; try again"))
        }
        () => {
            let (kind, meaning) = match state {
                SqlState::UNDEFINED_TABLE => (
                    ErrorKind::SchemaMissing,
                    "tables of the registry are missing; open it with schema_mode `auto` to create them",
                ),
                SqlState::INVALID_SCHEMA_NAME => (
                    ErrorKind::InvalidConfig,
                    "there is no schema to make the tables in: search_path names none that is there; create it first",
                ),
                SqlState::INSUFFICIENT_PRIVILEGE => {
                    (ErrorKind::ReadOnly, "the user may not do this; GRANT it what it needs on the registry's tables")
                }
                SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE => {
                    (ErrorKind::Unavailable, "the database takes no connections just now; nothing was done: try again")
                }
                SqlState::QUERY_CANCELED => {
                    (ErrorKind::Unavailable, "a statement was cancelled, by statement_timeout or a person; try again")
                }
                SqlState::LOCK_NOT_AVAILABLE => {
                    (ErrorKind::Unavailable, "another transaction holds a lock for long; nothing was done: try again")
                }
                SqlState::CHARACTER_NOT_IN_REPERTOIRE | SqlState::UNTRANSLATABLE_CHARACTER => {
                    (ErrorKind::InvalidArgument, "a text holds a character that the database cannot store")
                }
                SqlState::STRING_DATA_RIGHT_TRUNCATION => {
                    (ErrorKind::InvalidArgument, "a text is longer than its column")
                }
                SqlState::PROGRAM_LIMIT_EXCEEDED => {
                    (ErrorKind::InvalidArgument, "a name takes more bytes than an index of the database holds")
                }
                SqlState::INVALID_CATALOG_NAME => (ErrorKind::InvalidConfig, "there is no such database"),
                _ if class == "28" => (
                    ErrorKind::InvalidConfig,
                    "the user or the password is not accepted; the password is that of the URL, else that of PGPASSWORD",
                ),
                // Insufficient resources: connections, memory, disk.
                _ if class == "53" => (ErrorKind::Unavailable, "the database is short of resources; try again"),
                _ => (ErrorKind::Internal, "PostgreSQL failed"),
            };
            Failure::Final(new(kind, meaning))
        }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
