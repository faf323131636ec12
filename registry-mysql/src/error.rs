//! What MySQL says, as errors of the registry.

use feast_registry_core::{Error, ErrorKind};
pub(crate) use feast_registry_sql::Failure;
use mysql_async::{DriverError, ServerError};

/// A value is longer than its column, or a number does not fit.
pub(crate) const DATA_TOO_LONG: [u16; 2] = [1406, 1264];
/// A text has characters that its column's character set lacks: when it is written, and when it is compared.
pub(crate) const WRONG_CHARACTER: [u16; 4] = [1366, 1267, 1270, 3854];

/// A value that may not be NULL is.
pub(crate) const NULL: u16 = 1048;
/// A row with this key is there.
pub(crate) const DUPLICATE: u16 = 1062;

/// What it means that the server does not know the database.
pub(crate) const GONE: &str = "there is no such database: it was dropped, or never made; make it or restore it, and open the \
                               registry again";

/// The server's number of an error, if it is one of its answers.
pub(crate) fn code(error: &mysql_async::Error) -> Option<u16> {
    match error {
        mysql_async::Error::Server(answer) => Some(answer.code),
        _ => None,
    }
}

/// What an error in answer to `COMMIT` means. All but those that say that nothing was committed leave that open.
pub(crate) fn uncommitted(error: mysql_async::Error, location: &str) -> Failure {
    const NOT_COMMITTED: [u16; 4] = [1213, 3101, 8022, 9007];
    match code(&error) {
        Some(code) if !NOT_COMMITTED.contains(&code) => Failure::Lost(failure(error, location).into_error()),
        _ => failure(error, location),
    }
}

/// What an error of the driver means.
pub(crate) fn failure(error: mysql_async::Error, location: &str) -> Failure {
    match error {
        mysql_async::Error::Server(answer) => answered(answer, location),
        mysql_async::Error::Driver(DriverError::UnknownAuthPlugin { name }) => Failure::Final(Error::new(
            ErrorKind::InvalidConfig,
            format!(
                "{location}: the server asks for the authentication plugin `{name}`, which this registry does not know; \
                 give the user one with caching_sha2_password or mysql_native_password"
            ),
        )),
        mysql_async::Error::Driver(DriverError::NoClientSslFlagFromServer) => Failure::Final(Error::new(
            ErrorKind::InvalidConfig,
            format!("{location}: TLS is asked for and the server has none"),
        )),
        mysql_async::Error::Driver(error @ DriverError::PacketTooLarge) => Failure::Final(
            Error::invalid(format!("{location}: what is written is larger than the server's max_allowed_packet"))
                .with_source(error),
        ),
        error => {
            let said = innermost(&error);
            match said.downcast_ref::<rustls::Error>() {
                Some(refusal @ rustls::Error::InvalidCertificate(_)) => {
                    let text = format!("{location}: the server's certificate is not accepted ({refusal})");
                    Failure::Final(Error::new(ErrorKind::InvalidConfig, text).with_source(error))
                }
                _ => {
                    let text = format!("{location}: the connection failed ({error})");
                    Failure::Lost(Error::new(ErrorKind::Unavailable, text).with_source(error))
                }
            }
        }
    }
}

fn answered(answer: ServerError, location: &str) -> Failure {
    let code = answer.code;
    // As its source says it, which is then not said twice.
    let said = answer.to_string();
    let new = |kind: ErrorKind, meaning: &str| {
        Error::new(kind, format!("{location}: {meaning} ({said})")).with_source(answer)
    };
    match code {
        // Deadlock; the row changed since the snapshot; certification failed (Galera). Of TiDB: 8002, 8022, 9007; of
        // MySQL's group replication: 3101.
        1213 | 1020 | 1180 | 3101 | 8002 | 8022 | 8028 | 9007 => Failure::Serialization(new(
            ErrorKind::Conflict,
            "other transactions were in the way, again and again; try again",
        )),
        // A table was made anew since the snapshot, or since a statement was prepared.
        1412 | 1615 => {
            Failure::Serialization(new(ErrorKind::Unavailable, "the definition of a table just changed; try again"))
        }
        // A lock was not had in time.
        1205 | 3572 => {
            Failure::Serialization(new(ErrorKind::Unavailable, "another transaction holds a lock for long; try again"))
        }
        1062 => Failure::Unexpected(new(ErrorKind::Conflict, "another writer was faster")),
        // Shutting down, offline or not yet in its cluster, killed, interrupted; errors of the network. An answer that says
        // so comes instead of a commit, but after it the session is not to be trusted.
        1047 | 1053 | 1077..=1080 | 1152 | 1154..=1161 | 1184 | 1927 | 3032 | 3169 | 4031 => {
            Failure::Unusable(new(ErrorKind::Unavailable, "the server ended the call or the session; try again"))
        }
        // The session works in no database: the one that it worked in was dropped.
        1046 => Failure::Unusable(new(ErrorKind::InvalidConfig, GONE)),
        // By somebody's `KILL QUERY`, which may be ours, once the deadline is over.
        1317 => Failure::Final(new(ErrorKind::Unavailable, "the call was ended on the server; try again")),
        1969 | 3024 => Failure::Final(new(
            ErrorKind::Unavailable,
            "the call took longer than the server lets one take; try again, or raise its max_statement_time or \
             max_execution_time",
        )),
        // TiDB: its storage or its scheduler did not answer it in time.
        9001..=9006 => {
            Failure::Final(new(ErrorKind::Unavailable, "parts of the database do not answer each other; try again"))
        }
        1040 | 1129 | 1135 | 1203 | 1226 => Failure::Final(new(
            ErrorKind::Unavailable,
            "the server takes no more connections; try again, or raise its max_connections",
        )),
        1146 => Failure::Final(new(
            ErrorKind::SchemaMissing,
            "tables of the registry are missing; open it with schema_mode `auto` to create them",
        )),
        // A server that was the primary when the session began may be a replica now: a new session may lead elsewhere.
        1290 | 1792 | 1836 | 3100 => {
            Failure::Unusable(new(ErrorKind::ReadOnly, "the database is read-only: is this a replica?"))
        }
        // Rights that are granted reach new sessions only.
        1044 | 1142 | 1143 | 1227 | 1370 => Failure::Unusable(new(
            ErrorKind::ReadOnly,
            "the user may not do this; GRANT it what it needs on the registry's tables",
        )),
        1045 | 1130 | 1251 | 1698 | 1820 | 1862 | 3118 | 3159 | 4151 => {
            let meaning = "the server refused the user's name or password; the password is that of the URL";
            Failure::Final(new(ErrorKind::InvalidConfig, meaning))
        }
        1049 => Failure::Final(new(ErrorKind::InvalidConfig, GONE)),
        1021 | 1028 | 1037 | 1038 | 1041 | 1114 | 1206 | 1461 | 1637 => Failure::Final(new(
            ErrorKind::Unavailable,
            "the server is short of memory, disk or room for more work; try again",
        )),
        1118 | 1153 | 1301 => {
            Failure::Final(new(ErrorKind::InvalidArgument, "what is written is larger than the server takes at once"))
        }
        code if DATA_TOO_LONG.contains(&code) => {
            Failure::Final(new(ErrorKind::InvalidArgument, "a value is longer than its column"))
        }
        code if WRONG_CHARACTER.contains(&code) => Failure::Final(new(
            ErrorKind::InvalidArgument,
            "a text has characters that the tables cannot hold; `feast-registry migrate` gives them utf8mb4",
        )),
        _ => Failure::Final(new(ErrorKind::Internal, "the database failed")),
    }
}

/// A failure before anything was to be written: a connection that is lost then has done nothing.
pub(crate) fn not_sent(failure: Failure) -> Failure {
    match failure {
        Failure::Lost(error) => Failure::Unusable(error),
        failure => failure,
    }
}

/// What caused an error at first. Those around it say the same once more.
fn innermost<'a>(error: &'a (dyn std::error::Error + 'static)) -> &'a (dyn std::error::Error + 'static) {
    let mut innermost = error;
    loop {
        // What is inside an error of I/O is not among its sources.
        let inside = innermost.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        innermost = match inside.map(|inside| inside as &(dyn std::error::Error + 'static)).or(innermost.source()) {
            Some(cause) => cause,
            None => return innermost,
        };
    }
}
