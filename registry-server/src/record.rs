//! What is known of a call while it is done, and what is said of it at its end: metrics, a line in the log, a span of a trace.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use feast_registry_core::Waits;
use http_body::Body as _;
use tokio::time::Instant;
use tonic::Code;
use tonic::body::Body;
use tonic::codegen::http::{self, HeaderMap, HeaderValue, StatusCode};
use tracing::Span;
use tracing::field::Empty;

use crate::metrics::{CallMetrics, Method, name_of};
use crate::protocol::Protocol;

/// What a call is named by in the log of whoever made it. A client may name it; the answer says its name.
pub(crate) const REQUEST_ID: &str = "x-request-id";
/// The target of the spans of calls, which are for the log and for traces.
const CALL_SPANS: &str = "feast_registry::trace::call";
/// The longest name that a client may give.
const MAX_ID: usize = 64;
/// Where gRPC has the code of a call, in headers or trailers.
const GRPC_STATUS: &str = "grpc-status";

tokio::task_local! {
    /// The call that a task is about.
    static CALL: Arc<Identity>;
}

/// What records calls, for a whole server.
pub(crate) struct Recorder {
    metrics: CallMetrics,
    /// A call that takes longer is told in the log. `None`: never.
    slow: Option<Duration>,
    /// Whether spans are given what traces have of a call.
    is_traced: bool,
}

/// What a call is, for all that have to do with it.
pub(crate) struct Identity {
    method: Arc<Method>,
    /// What names it. Most reads are over before anybody has asked for their name.
    id: OnceLock<HeaderValue>,
    /// How many bytes of its request have come.
    received: AtomicUsize,
}

/// A call under way. It has ended when this is dropped.
pub(crate) struct CallRecord {
    recorder: Arc<Recorder>,
    identity: Arc<Identity>,
    began: Instant,
    /// When the head of the answer was there.
    answered: Option<Instant>,
    sent: u64,
    /// None as long as the answer has not come to its end.
    code: Option<Code>,
    /// What the code is then, if its head has told.
    code_at_end: Option<Code>,
    waits: Waits,
    /// It goes on for as long as its client likes.
    is_endless: bool,
    /// For the log, and for traces.
    span: Span,
}

impl Recorder {
    pub(crate) fn new(slow: Option<Duration>, is_traced: bool) -> Arc<Self> {
        Arc::new(Self { metrics: CallMetrics::new(), slow, is_traced })
    }

    /// Notes that a call has begun.
    pub(crate) fn begin(self: &Arc<Self>, path: &str, headers: &HeaderMap, is_endless: bool) -> CallRecord {
        let method = self.metrics.method(path);
        self.metrics.started(&method);
        let id = given_id(headers).map(OnceLock::from).unwrap_or_default();
        let identity = Arc::new(Identity { method, id, received: AtomicUsize::new(0) });
        let span = self.span(&identity);
        #[cfg(feature = "otlp")]
        crate::trace_context::adopt(&span, headers);
        CallRecord {
            recorder: Arc::clone(self),
            identity,
            began: Instant::now(),
            answered: None,
            sent: 0,
            code: None,
            code_at_end: None,
            waits: Waits::new(),
            is_endless,
            span,
        }
    }

    /// The span that a call is done in. A read has one only if that is asked for: it would take a tenth of the read's time, and
    /// lines that are about one make their own ([`in_span`]).
    fn span(&self, identity: &Identity) -> Span {
        let method = &identity.method;
        if self.is_traced {
            tracing::info_span!(
                target: CALL_SPANS,
                "request",
                method = &*method.name,
                id = identity.id(),
                otel.name = format!("{}/{}", method.service, method.name),
                otel.kind = "server",
                otel.status_code = Empty,
                rpc.system = method.system,
                rpc.service = &*method.service,
                rpc.method = &*method.name,
                rpc.grpc.status_code = Empty,
            )
        } else if method.is_read {
            tracing::debug_span!(target: CALL_SPANS, "request", method = &*method.name, id = identity.id())
        } else {
            identity.span()
        }
    }
}

impl Identity {
    pub(crate) fn id(&self) -> &str {
        self.header().to_str().unwrap_or_default()
    }

    fn header(&self) -> &HeaderValue {
        self.id.get_or_init(new_id)
    }

    fn span(&self) -> Span {
        tracing::info_span!(target: CALL_SPANS, "request", method = &*self.method.name, id = self.id())
    }

    /// Counts bytes of its request, and returns how many have come.
    pub(crate) fn receives(&self, bytes: usize) -> usize {
        self.received.fetch_add(bytes, Ordering::Relaxed) + bytes
    }

    /// Work that is known to be about this call.
    pub(crate) fn of_call<F: Future>(self: Arc<Self>, work: F) -> impl Future<Output = F::Output> {
        CALL.scope(self, work)
    }
}

/// Says something of the call that this task is about, which the line then names.
pub(crate) fn in_span(say: impl FnOnce()) {
    let span = if Span::current().is_disabled() { CALL.try_with(|call| call.span()).ok() } else { None };
    match span {
        Some(span) => span.in_scope(say),
        None => say(),
    }
}

impl CallRecord {
    /// Where what the call waits for is noted.
    pub(crate) fn waits(&self) -> &Waits {
        &self.waits
    }

    pub(crate) fn identity(&self) -> Arc<Identity> {
        Arc::clone(&self.identity)
    }

    /// The span that the call is done in.
    pub(crate) fn span(&self) -> Span {
        self.span.clone()
    }

    /// Notes the head of the answer. It is given the name of the call if somebody may look for it in the log.
    pub(crate) fn answers(&mut self, protocol: Protocol, answer: &mut http::Response<Body>) {
        self.answered = Some(Instant::now());
        match protocol {
            Protocol::Grpc => self.note_code(answer.headers()),
            Protocol::Rest => {
                let code = code_of(answer.status());
                self.code_at_end = Some(code);
                if answer.body().is_end_stream() || code != Code::Ok {
                    self.has_sent_all();
                }
            }
        }
        let headers = answer.headers_mut();
        if self.identity.id.get().is_some() || self.code.is_some_and(|code| code != Code::Ok) {
            headers.insert(REQUEST_ID, self.identity.header().clone());
        }
    }

    pub(crate) fn sends(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }

    /// Notes that the answer has come to its end, where nothing in it says so.
    pub(crate) fn has_sent_all(&mut self) {
        self.code = self.code.or(self.code_at_end);
    }

    /// Notes the code, if there is one in these headers or trailers.
    pub(crate) fn note_code(&mut self, headers: &HeaderMap) {
        if let Some(code) = headers.get(GRPC_STATUS) {
            self.code = Some(Code::from_bytes(code.as_bytes()));
        }
    }

    fn say_that_it_was_slow(&self, code: Code, time: Duration) {
        self.identity.method.slow.say(|more| {
            let sending = self.answered.map_or(0.0, |answered| answered.elapsed().as_secs_f64());
            let waited_for = &self.waits;
            tracing::warn!(
                code = name_of(code),
                "a call took {:.3} s, of which {sending:.3} s to send its answer; it waited for: {waited_for}{more}",
                time.as_secs_f64(),
            );
        });
    }
}

impl Drop for CallRecord {
    /// Without a code its client has left.
    fn drop(&mut self) {
        let code = self.code.unwrap_or(Code::Cancelled);
        let time = self.began.elapsed();
        let Identity { method, received, .. } = &*self.identity;
        self.recorder.metrics.ended(method, code, time, received.load(Ordering::Relaxed) as u64, self.sent);
        if self.recorder.is_traced {
            self.span.record("rpc.grpc.status_code", code as i32);
            if is_fault_of_server(code) {
                self.span.record("otel.status_code", "ERROR");
            }
        }
        self.span.in_scope(|| {
            tracing::debug!(code = name_of(code), seconds = time.as_secs_f64(), "a call has ended");
        });
        if !self.is_endless && self.recorder.slow.is_some_and(|slow| time >= slow) {
            let span = if self.span.is_disabled() { self.identity.span() } else { self.span.clone() };
            span.in_scope(|| self.say_that_it_was_slow(code, time));
        }
    }
}

/// The code that gRPC has for a status of HTTP, so that both are counted alike.
fn code_of(status: StatusCode) -> Code {
    match status.as_u16() {
        200..=399 => Code::Ok,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 | 405 => Code::NotFound,
        409 => Code::Aborted,
        410 | 413 => Code::OutOfRange,
        412 => Code::FailedPrecondition,
        429 => Code::ResourceExhausted,
        400..=499 => Code::InvalidArgument,
        501 => Code::Unimplemented,
        503 => Code::Unavailable,
        504 => Code::DeadlineExceeded,
        _ => Code::Internal,
    }
}

/// Which codes are an error of a server's span (OpenTelemetry's semantic conventions for gRPC).
fn is_fault_of_server(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}

/// The name that the client gives, if a log can show it.
fn given_id(headers: &HeaderMap) -> Option<HeaderValue> {
    let is_usable = |id: &&HeaderValue| {
        let bytes = id.as_bytes();
        (1..=MAX_ID).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
    };
    headers.get(REQUEST_ID).filter(is_usable).cloned()
}

fn new_id() -> HeaderValue {
    let new = format!("{:016x}", fastrand::u64(..));
    HeaderValue::from_str(&new).unwrap_or_else(|_| HeaderValue::from_static("0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_may_name_its_call_in_a_way_that_a_log_can_show() {
        let id = |given: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_bytes(given).expect("a value"));
            given_id(&headers)
        };
        assert_eq!(id(b"deploy-7/a").expect("it is usable"), "deploy-7/a");
        let long = [b'x'; MAX_ID + 1];
        for given in [&b""[..], b"two words", b"\xfc", &long] {
            assert_eq!(id(given), None);
        }
    }
}
