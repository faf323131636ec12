//! What MySQL says, as errors of the registry.

use deadpool::managed::{PoolError, TimeoutType};
use feast_registry_core::{Error, ErrorKind};
pub(crate) use feast_registry_sql::Failure;
use mysql_async::{DriverError, ServerError};

/// A value is longer than its column, or a number does not fit.
pub(crate) const DATA_TOO_LONG: [u16; 2] = [1406, 1264];
/// A text has characters that its column's character set lacks: when it is written, and when it is compared.
pub(crate) const WRONG_CHARACTER: [u16; 4] = [1366, 1267, 1270, 3854];

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
                    let text = format!("{location}: the connection failed ({said})");
                    Failure::Lost(Error::new(ErrorKind::Unavailable, text).with_source(error))
                }
            }
        }
    }
}

fn answered(answer: ServerError, location: &str) -> Failure {
    let code = answer.code;
    let said = answer.message.clone();
    let new = |kind: ErrorKind, meaning: &str| {
        Error::new(kind, format!("{location}: {meaning} ({code}: {said})")).with_source(answer)
    };
    match code {
        // Deadlock; the row changed since the snapshot; certification failed (Galera). Of TiDB: 8002, 8022, 9007; of
        // MySQL's group replication: 3101.
        1213 | 1020 | 1180 | 3101 | 8002 | 8022 | 8028 | 9007 => Failure::Serialization(new(
            ErrorKind::Conflict,
            "other transactions were in the way, again and again; try again",
        )),
        // A lock was not had in time.
        1205 | 3572 => {
            Failure::Serialization(new(ErrorKind::Unavailable, "another transaction holds a lock for long; try again"))
        }
        1062 => Failure::Unexpected(new(ErrorKind::Conflict, "another writer was faster")),
        // Shutting down, killed, interrupted, timed out; errors of the network. After them the connection is not to be
        // trusted.
        1053 | 1077..=1080 | 1152 | 1154..=1161 | 1184 | 1317 | 1927 | 1969 | 3024 | 3169 | 4031 => {
            Failure::Lost(new(ErrorKind::Unavailable, "the server ended the call or the session; try again"))
        }
        1040 | 1129 | 1203 | 1226 => Failure::Final(new(
            ErrorKind::Unavailable,
            "the server takes no more connections; try again, or raise its max_connections",
        )),
        1146 => Failure::Final(new(
            ErrorKind::SchemaMissing,
            "tables of the registry are missing; open it with schema_mode `auto` to create them",
        )),
        1290 | 1792 | 1836 | 3100 => {
            Failure::Final(new(ErrorKind::ReadOnly, "the database is read-only: is this a replica?"))
        }
        1044 | 1142 | 1143 | 1227 | 1370 => Failure::Final(new(
            ErrorKind::ReadOnly,
            "the user may not do this; GRANT it what it needs on the registry's tables",
        )),
        1045 | 1251 | 1698 | 1862 | 3118 => {
            Failure::Final(new(ErrorKind::InvalidConfig, "the user or the password is not accepted"))
        }
        1049 => Failure::Final(new(ErrorKind::InvalidConfig, "there is no such database")),
        1021 | 1028 | 1037 | 1038 | 1041 | 1114 | 1206 => {
            Failure::Final(new(ErrorKind::Unavailable, "the server is short of memory or disk; try again"))
        }
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

/// What it means that no connection was to be had.
pub(crate) fn no_connection(error: PoolError<Failure>, location: &str) -> Failure {
    match error {
        PoolError::Timeout(TimeoutType::Wait) => Failure::no_free_connection(location),
        PoolError::Backend(failure) => failure,
        _ => Failure::not_connected(location),
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
