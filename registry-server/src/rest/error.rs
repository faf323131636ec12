//! Errors as Feast's REST server tells them: a status, and `{"status_code", "detail", "error_type"}`.

use feast_registry_core::{Error, ErrorKind};
use serde_json::json;
use tonic::body::Body;
use tonic::codegen::http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use tonic::codegen::http::{Response, StatusCode};
use tonic::{Code, Status};

use crate::status;

/// What an answer that is not JSON of its own is said to be.
pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// An error of a request.
#[derive(Debug)]
pub(crate) struct RestError {
    status: StatusCode,
    detail: String,
    /// What Feast calls it, where Feast has it: clients may go by that.
    error_type: &'static str,
    /// Whether the same request may be answered otherwise in a second.
    is_transient: bool,
}

pub(crate) type Result<T> = std::result::Result<T, RestError>;

impl RestError {
    /// An error that a route of Feast's makes itself.
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), error_type: "HTTPException", is_transient: false }
    }

    /// The request is not as the route declares it.
    pub(crate) fn invalid_request(detail: impl Into<String>) -> Self {
        Self { error_type: "RequestValidationError", ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail) }
    }

    /// What is asked for cannot be, for a reason that only the values show.
    pub(crate) fn invalid_value(detail: impl Into<String>) -> Self {
        Self { error_type: "ValueError", ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail) }
    }

    /// An error of the registry, to a request of this route. It is logged if somebody has to look after it.
    pub(crate) fn of(route: &str, error: &Error) -> Self {
        let (status, error_type) = status_and_type(error.kind());
        Self { error_type, is_transient: is_transient(status), ..Self::new(status, status::told(route, error)) }
    }

    /// What a route of Feast's looks for by itself is not there.
    pub(crate) fn not_found(detail: impl Into<String>) -> Self {
        Self { error_type: "FeastObjectNotFoundException", ..Self::new(StatusCode::NOT_FOUND, detail) }
    }

    /// The same of a part of the request.
    pub(crate) fn within(mut self, part: &str) -> Self {
        self.detail = format!("{part}: {}", self.detail);
        self
    }

    pub(crate) fn into_response(self) -> Response<Body> {
        let Self { status, detail, error_type, is_transient } = self;
        let told = json!({ "status_code": status.as_u16(), "detail": detail, "error_type": error_type });
        let mut response = Response::new(Body::new(http_body_util::Full::from(told.to_string())));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, JSON);
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if is_transient {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

impl From<Error> for RestError {
    fn from(error: Error) -> Self {
        Self::of("rest", &error)
    }
}

/// What the guard says of a call that was not done.
impl From<Status> for RestError {
    fn from(status: Status) -> Self {
        let (code, error_type) = match status.code() {
            Code::Unauthenticated => (StatusCode::UNAUTHORIZED, "HTTPException"),
            Code::PermissionDenied => (StatusCode::FORBIDDEN, "FeastPermissionError"),
            Code::ResourceExhausted => (StatusCode::TOO_MANY_REQUESTS, "ResourceExhausted"),
            Code::OutOfRange => (StatusCode::PAYLOAD_TOO_LARGE, "PayloadTooLarge"),
            Code::DeadlineExceeded => (StatusCode::GATEWAY_TIMEOUT, "DeadlineExceeded"),
            Code::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "Unavailable"),
            Code::InvalidArgument | Code::Cancelled => (StatusCode::BAD_REQUEST, "HTTPException"),
            Code::Unimplemented => (StatusCode::NOT_IMPLEMENTED, "HTTPException"),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError"),
        };
        Self { error_type, is_transient: is_transient(code), ..Self::new(code, status.message()) }
    }
}

/// Of what the registry or the guard says with this status. A route's own is for good.
fn is_transient(status: StatusCode) -> bool {
    matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS)
}

fn status_and_type(kind: ErrorKind) -> (StatusCode, &'static str) {
    match kind {
        // Feast has one name for all of them here.
        ErrorKind::NotFound(_) | ErrorKind::ViewNotFound | ErrorKind::VersionNotFound | ErrorKind::FeatureNotFound => {
            (StatusCode::NOT_FOUND, "FeastObjectNotFoundException")
        }
        ErrorKind::PermissionDenied => (StatusCode::FORBIDDEN, "FeastPermissionError"),
        ErrorKind::InvalidArgument => (StatusCode::UNPROCESSABLE_ENTITY, "ValueError"),
        ErrorKind::ConflictingFeatureViewNames => (StatusCode::CONFLICT, "ConflictingFeatureViewNames"),
        ErrorKind::FeatureViewPinConflict => (StatusCode::CONFLICT, "FeatureViewPinConflict"),
        ErrorKind::Protected => (StatusCode::CONFLICT, "FeastError"),
        ErrorKind::ReadOnly => (StatusCode::FORBIDDEN, "ReadOnlyRegistryException"),
        ErrorKind::Changed => (StatusCode::PRECONDITION_FAILED, "PreconditionFailed"),
        ErrorKind::Conflict => (StatusCode::CONFLICT, "Conflict"),
        // A database that was dropped while the server runs is as good as away.
        ErrorKind::Unavailable | ErrorKind::SchemaMissing | ErrorKind::InvalidConfig => {
            (StatusCode::SERVICE_UNAVAILABLE, "Unavailable")
        }
        ErrorKind::Overloaded => (StatusCode::TOO_MANY_REQUESTS, "ResourceExhausted"),
        ErrorKind::DeadlineExceeded => (StatusCode::GATEWAY_TIMEOUT, "DeadlineExceeded"),
        ErrorKind::UnknownOutcome => (StatusCode::INTERNAL_SERVER_ERROR, "UnknownOutcome"),
        ErrorKind::Compacted => (StatusCode::GONE, "Compacted"),
        ErrorKind::Unsupported => (StatusCode::NOT_IMPLEMENTED, "HTTPException"),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError"),
    }
}
