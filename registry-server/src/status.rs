//! Errors of the registry as gRPC statuses that Feast's client understands.
//!
//! Where Feast has an exception for an error, the status has its gRPC code and, as its message, a JSON object with the
//! exception's `module` and `class`: Feast's client then raises that class (`feast.errors.FeastError.from_error_detail`).

use std::error::Error as _;

use feast_registry_core::{Error, ErrorKind, Kind};
use serde_json::json;
use tonic::{Code, Status};

use crate::complaints::Complaint;
use crate::record;

/// Messages end up in an HTTP/2 header, where what is not ASCII takes three bytes for one, and which gRPC clients limit to
/// 8 KiB in all; a name alone may be longer.
const MAX_ENCODED_BYTES: usize = 2000;

/// What the schemes of database servers' URLs begin with.
const DATABASES: [&str; 4] = ["postgres", "mysql", "mariadb", "cockroachdb"];

/// The schemes of registries in files and object stores, whose places clients may know.
const FILES: [&str; 7] = ["sqlite", "file", "s3", "gs", "az", "abfss", "https"];

/// The status for an error of a call, which is logged if [`told`] does so.
pub(crate) fn status(call: &str, error: Error) -> Status {
    let (code, class) = code_and_class(error.kind());
    let message = told(call, &error);
    match class {
        Some(class) => {
            let detail = json!({ "module": "feast.errors", "class": class, "message": message });
            Status::new(code, detail.to_string())
        }
        None => Status::new(code, message),
    }
}

/// What its caller is told of an error of a call. What points to a defect, or has to be looked after by somebody else than the
/// caller, is logged.
pub(crate) fn told(call: &str, error: &Error) -> String {
    let (code, class) = code_and_class(error.kind());
    let is_defect = code == Code::Internal && class.is_none();
    if is_defect || matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::UnknownOutcome) {
        record::in_span(|| {
            let cause = error.source().map(ToString::to_string);
            tracing::error!(call, %error, cause, "a request failed");
        });
    } else if let Some(complaint) = of_storage(error.kind()) {
        complaint.say(|more| {
            record::in_span(|| {
                let cause = error.source().map(ToString::to_string);
                tracing::warn!(call, %error, cause, "a request failed, since the storage did{more}");
            });
        });
    }
    let message = error.to_string();
    shortened(&if is_of_rules(error.kind()) { message } else { for_clients(&message) })
}

/// What is said, now and then, of calls that failed since the storage does not do what it should. Nobody but who runs it can
/// mend that.
fn of_storage(kind: ErrorKind) -> Option<&'static Complaint> {
    static AWAY: Complaint = Complaint::new();
    static READ_ONLY: Complaint = Complaint::new();
    static SCHEMA_MISSING: Complaint = Complaint::new();
    match kind {
        ErrorKind::Unavailable => Some(&AWAY),
        ErrorKind::ReadOnly => Some(&READ_ONLY),
        ErrorKind::SchemaMissing => Some(&SCHEMA_MISSING),
        _ => None,
    }
}

fn code_and_class(kind: ErrorKind) -> (Code, Option<&'static str>) {
    match kind {
        ErrorKind::NotFound(kind) => (Code::NotFound, Some(not_found_class(kind))),
        ErrorKind::ViewNotFound => (Code::NotFound, Some(not_found_class(Kind::FeatureView))),
        ErrorKind::VersionNotFound => (Code::NotFound, Some("FeatureViewVersionNotFound")),
        ErrorKind::FeatureNotFound => (Code::NotFound, Some("FeastObjectNotFoundException")),
        ErrorKind::ConflictingFeatureViewNames => (Code::Internal, Some("ConflictingFeatureViewNames")),
        ErrorKind::FeatureViewPinConflict => (Code::Internal, Some("FeatureViewPinConflict")),
        ErrorKind::PermissionDenied => (Code::PermissionDenied, Some("FeastPermissionError")),
        ErrorKind::Protected => (Code::FailedPrecondition, Some("FeastError")),
        // Feast answers these with a Python traceback's last line; its client raises at least a FeastError here.
        ErrorKind::InvalidArgument => (Code::InvalidArgument, Some("FeastError")),
        ErrorKind::ReadOnly => (Code::FailedPrecondition, Some("ReadOnlyRegistryException")),
        ErrorKind::InvalidConfig | ErrorKind::SchemaMissing | ErrorKind::Changed => (Code::FailedPrecondition, None),
        ErrorKind::Conflict => (Code::Aborted, None),
        ErrorKind::Unavailable => (Code::Unavailable, None),
        ErrorKind::Overloaded => (Code::ResourceExhausted, None),
        ErrorKind::DeadlineExceeded => (Code::DeadlineExceeded, None),
        ErrorKind::UnknownOutcome => (Code::Unknown, None),
        ErrorKind::Compacted => (Code::OutOfRange, None),
        ErrorKind::Corrupt => (Code::DataLoss, None),
        ErrorKind::Unsupported => (Code::Unimplemented, None),
        _ => (Code::Internal, None),
    }
}

fn not_found_class(kind: Kind) -> &'static str {
    match kind {
        Kind::Project => "ProjectObjectNotFoundException",
        Kind::Entity => "EntityNotFoundException",
        Kind::DataSource => "DataSourceObjectNotFoundException",
        Kind::FeatureView | Kind::StreamFeatureView | Kind::OnDemandFeatureView | Kind::LabelView => {
            "FeatureViewNotFoundException"
        }
        Kind::FeatureService => "FeatureServiceNotFoundException",
        Kind::SavedDataset => "SavedDatasetNotFound",
        Kind::ValidationReference => "ValidationReferenceNotFound",
        Kind::Permission => "PermissionObjectNotFoundException",
        Kind::Infra => "FeastObjectNotFoundException",
    }
}

/// Whether an error is of a kind that only rules make, and no storage: so it says nothing of where that is, and what looks like
/// a URL in it is a name.
fn is_of_rules(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::NotFound(_)
            | ErrorKind::ViewNotFound
            | ErrorKind::VersionNotFound
            | ErrorKind::FeatureNotFound
            | ErrorKind::ConflictingFeatureViewNames
            | ErrorKind::FeatureViewPinConflict
            | ErrorKind::PermissionDenied
            | ErrorKind::Protected
            | ErrorKind::Changed
    )
}

/// A message of the storage without where the database is and as whom it is used, which is for the log. What it says is as
/// before.
fn for_clients(message: &str) -> String {
    let mut text = String::with_capacity(message.len());
    let mut rest = message;
    while let Some(colon) = rest.find("://") {
        let is_of_scheme = |char: &char| char.is_ascii_alphanumeric() || matches!(char, '+' | '-' | '.' | '_');
        let start = colon - rest[..colon].chars().rev().take_while(is_of_scheme).count();
        let scheme = &rest[start..colon];
        let is_of_database = DATABASES.iter().any(|name| scheme.starts_with(name));
        // Where another crate's backend is, its errors begin with, blanks and all; elsewhere, a URL may be what somebody stored.
        let is_begin = text.is_empty() && start == 0 && !scheme.is_empty() && !FILES.contains(&scheme);
        let whole = if is_begin && !is_of_database { rest[colon..].find(": ") } else { None };
        let length = whole.or_else(|| rest[colon..].find([' ', '`', '"', ')', ',', ';'])).unwrap_or(rest.len() - colon);
        let end = start + rest[start..colon + length].trim_end_matches(':').len();
        let is_of_foreign = is_begin || (!FILES.contains(&scheme) && rest[start..end].contains('@'));
        text.push_str(&rest[..start]);
        text.push_str(if is_of_database || is_of_foreign { "the database" } else { &rest[start..end] });
        rest = &rest[end..];
    }
    text.push_str(rest);
    for (what, quote) in [("user", '"'), ("user", '\''), ("role", '"'), ("database", '"'), ("database", '\'')] {
        let named = format!(" {what} {quote}");
        while let Some(start) = text.find(&named) {
            let name = start + named.len();
            let Some(length) = text[name..].find(quote) else { break };
            let mut end = name + length + quote.len_utf8();
            // MySQL's users have a host.
            if let Some(host) = text[end..].strip_prefix("@'") {
                end += 2 + host.find('\'').map_or(host.len(), |length| length + 1);
            }
            text.replace_range(start..end, &format!(" {what}"));
        }
    }
    text
}

fn shortened(message: &str) -> String {
    let mut encoded = 0;
    let end = message.char_indices().find_map(|(start, char)| {
        encoded += if char.is_ascii() { 1 } else { 3 * char.len_utf8() };
        (encoded > MAX_ENCODED_BYTES).then_some(start)
    });
    match end {
        None => message.to_owned(),
        Some(end) => format!("{}… ({} characters more)", &message[..end], message[end..].chars().count()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn feasts_client_can_tell_the_class() {
        let status = status("get_entity", Error::not_found(Kind::Entity, "rides", "driver \"x\""));
        assert_eq!(status.code(), Code::NotFound);
        let detail: serde_json::Value = serde_json::from_str(status.message()).expect("JSON");
        assert_eq!(detail["module"], "feast.errors");
        assert_eq!(detail["class"], "EntityNotFoundException");
        assert!(detail["message"].as_str().is_some_and(|message| message.contains("driver \"x\"")));
    }

    /// Fault: clients were told the database's user, host and port.
    #[test]
    fn clients_are_not_told_where_the_database_is() {
        for (message, told) in [
            (
                "postgresql+psycopg://feast@db.internal:5432/feast: the connection failed (timed out); try again",
                "the database: the connection failed (timed out); try again",
            ),
            (
                "mysql://feast@10.0.0.7:3306/feast: refused (ERROR 28000 (1045): Access denied for user 'feast'@'10.0.0.9' \
                 (using password: YES))",
                "the database: refused (ERROR 28000 (1045): Access denied for user (using password: YES))",
            ),
            ("mysql://[::1]:3306/feast and postgresql://feast@db/x, both", "the database and the database, both"),
            (
                "not accepted (FATAL: password authentication failed for user \"feast\")",
                "not accepted (FATAL: password authentication failed for user)",
            ),
            ("(FATAL: role \"feast\" does not exist)", "(FATAL: role does not exist)"),
            ("(FATAL: database \"feast\" does not exist)", "(FATAL: database does not exist)"),
            ("Unknown database 'feast'", "Unknown database"),
            ("sqlite:///registry.db: is away", "sqlite:///registry.db: is away"),
            ("etcd-3://feast@10.0.0.7:2379/x: no answer", "the database: no answer"),
            ("redb:///var/r.redb: I/O error", "the database: I/O error"),
            ("redb:///a folder/r.redb: I/O error", "the database: I/O error"),
            ("there is no data source `kafka://topic` in it", "there is no data source `kafka://topic` in it"),
            ("://", "://"),
            ("mysql://", "the database"),
            ("a user 'left open", "a user 'left open"),
            ("there is no entity `user` in project `a`", "there is no entity `user` in project `a`"),
        ] {
            assert_eq!(for_clients(message), told);
        }
    }

    /// Fault: what somebody had called a topic was taken for a database.
    #[test]
    fn names_that_look_like_urls_stay_as_they_are() {
        for name in ["kafka://user@topic", "postgresql://me@db/x", "snowflake://me@acc/db"] {
            let told = status("get_data_source", Error::not_found(Kind::DataSource, "rides", name));
            assert!(told.message().contains(name), "{}", told.message());
        }
        // Storages refuse what is too large for them, too.
        for kind in [ErrorKind::InvalidArgument, ErrorKind::Conflict] {
            let told = status("apply_entity", Error::new(kind, "mysql://feast@10.0.0.7:3306/feast: it is too large"));
            assert!(told.message().contains("the database: it is") && !told.message().contains("10.0.0.7"), "{told:?}");
        }
    }

    #[test]
    fn errors_say_what_is_certain() {
        for (kind, code) in [
            (ErrorKind::Overloaded, Code::ResourceExhausted),
            (ErrorKind::DeadlineExceeded, Code::DeadlineExceeded),
            (ErrorKind::Compacted, Code::OutOfRange),
            (ErrorKind::Corrupt, Code::DataLoss),
            (ErrorKind::Unavailable, Code::Unavailable),
            (ErrorKind::Conflict, Code::Aborted),
        ] {
            let status = status("apply_entity", Error::new(kind, "it"));
            assert_eq!((status.code(), status.message()), (code, "it"), "{kind:?}");
        }
        let lost = Error::new(ErrorKind::Unavailable, "sqlite:///a.db: the connection failed; try again");
        let unknown = status("apply_entity", Error::unknown_outcome("sqlite:///a.db").with_source(lost));
        assert_eq!(unknown.code(), Code::Unknown);
        // Whoever is told this twice, or to try again, does not know what to do.
        assert_eq!(unknown.message().matches("not known").count(), 1, "{}", unknown.message());
        assert_eq!(unknown.message().matches("sqlite:").count(), 1, "{}", unknown.message());
        assert_eq!(unknown.message().matches("try again").count(), 1, "{}", unknown.message());
    }

    #[test]
    fn a_long_name_does_not_make_the_header_too_long() {
        for char in ["n", "ü", "𝔫"] {
            let status = status("get_entity", Error::not_found(Kind::Entity, "rides", &char.repeat(10_000)));
            let encoded: usize =
                status.message().chars().map(|c| if c.is_ascii() { 1 } else { 3 * c.len_utf8() }).sum();
            assert!(encoded < 2500, "{encoded}");
            assert!(status.message().contains("characters more"));
        }
    }
}
