//! What is known of a call while it is done, and what is said of it at its end: metrics, a line in the log, a span of a trace.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use feast_registry_core::Waits;
use tokio::time::Instant;
use tonic::Code;
use tonic::codegen::http::{HeaderMap, HeaderValue};
use tracing::Span;
use tracing::field::Empty;

use crate::metrics::{CallMetrics, Method, name_of};

/// What a call is named by in the log of whoever made it. A client may name it; the answer says its name.
pub(crate) const REQUEST_ID: &str = "x-request-id";
/// The target of the spans of calls, which are for the log and for traces.
const CALL_SPANS: &str = "feast_registry::trace::call";
/// The longest name that a client may give.
const MAX_ID: usize = 64;
/// Where gRPC has the code of a call, in headers or trailers.
const GRPC_STATUS: &str = "grpc-status";

/// What records calls, for a whole server.
pub(crate) struct Recorder {
    metrics: CallMetrics,
    /// A call that takes longer is told in the log. `None`: never.
    slow: Option<Duration>,
    /// Whether spans are given what traces have of a call.
    is_traced: bool,
}

/// A call under way. It has ended when this is dropped.
pub(crate) struct CallRecord {
    recorder: Arc<Recorder>,
    method: Arc<Method>,
    id: HeaderValue,
    began: Instant,
    /// When the head of the answer was there.
    answered: Option<Instant>,
    received: Arc<AtomicU64>,
    sent: u64,
    /// None as long as the answer has not come to its end.
    code: Option<Code>,
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
        let id = id_of(headers);
        let shown_id = id.to_str().unwrap_or_default();
        let span = if self.is_traced {
            tracing::info_span!(
                target: CALL_SPANS,
                "request",
                method = &*method.name,
                id = shown_id,
                otel.name = format!("{}/{}", method.service, method.name),
                otel.kind = "server",
                otel.status_code = Empty,
                rpc.system = "grpc",
                rpc.service = &*method.service,
                rpc.method = &*method.name,
                rpc.grpc.status_code = Empty,
            )
        } else {
            tracing::info_span!(target: CALL_SPANS, "request", method = &*method.name, id = shown_id)
        };
        #[cfg(feature = "otlp")]
        crate::trace_context::adopt(&span, headers);
        CallRecord {
            recorder: Arc::clone(self),
            method,
            id,
            began: Instant::now(),
            answered: None,
            received: Arc::default(),
            sent: 0,
            code: None,
            waits: Waits::new(),
            is_endless,
            span,
        }
    }
}

impl CallRecord {
    /// Where what the call waits for is noted.
    pub(crate) fn waits(&self) -> &Waits {
        &self.waits
    }

    /// Where the bytes of its request are counted.
    pub(crate) fn received(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.received)
    }

    /// The span that the call is done in.
    pub(crate) fn span(&self) -> Span {
        self.span.clone()
    }

    /// Notes the head of the answer, which is given the name of the call.
    pub(crate) fn answers(&mut self, headers: &mut HeaderMap) {
        self.answered = Some(Instant::now());
        self.note_code(headers);
        headers.insert(REQUEST_ID, self.id.clone());
    }

    pub(crate) fn sends(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }

    /// Notes the code, if there is one in these headers or trailers.
    pub(crate) fn note_code(&mut self, headers: &HeaderMap) {
        if let Some(code) = headers.get(GRPC_STATUS) {
            self.code = Some(Code::from_bytes(code.as_bytes()));
        }
    }

    fn say_that_it_was_slow(&self, code: Code, time: Duration) {
        self.method.slow.say(|unsaid| {
            let sending = self.answered.map_or(0.0, |answered| answered.elapsed().as_secs_f64());
            let waited_for = &self.waits;
            let others = match unsaid {
                0 => String::new(),
                unsaid => format!("; {unsaid} others of this method were slow since the last such line"),
            };
            tracing::warn!(
                code = name_of(code),
                "a call took {:.3} s, of which {sending:.3} s to send its answer; it waited for: {waited_for}{others}",
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
        let received = self.received.load(Ordering::Relaxed);
        self.recorder.metrics.ended(&self.method, code, time, received, self.sent);
        if self.recorder.is_traced {
            self.span.record("rpc.grpc.status_code", code as i32);
            if is_fault_of_server(code) {
                self.span.record("otel.status_code", "ERROR");
            }
        }
        self.span.in_scope(|| {
            tracing::debug!(code = name_of(code), seconds = time.as_secs_f64(), "a call has ended");
            if !self.is_endless && self.recorder.slow.is_some_and(|slow| time >= slow) {
                self.say_that_it_was_slow(code, time);
            }
        });
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

/// The name that the client gives, or a new one.
fn id_of(headers: &HeaderMap) -> HeaderValue {
    let is_usable = |id: &&HeaderValue| {
        let bytes = id.as_bytes();
        (1..=MAX_ID).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
    };
    let given = headers.get(REQUEST_ID).filter(is_usable).cloned();
    given.unwrap_or_else(|| {
        let new = format!("{:016x}", fastrand::u64(..));
        HeaderValue::from_str(&new).unwrap_or_else(|_| HeaderValue::from_static("0"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_may_name_its_call_in_a_way_that_a_log_can_show() {
        let id = |given: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_bytes(given).expect("a value"));
            id_of(&headers).to_str().expect("text").to_owned()
        };
        assert_eq!(id(b"deploy-7/a"), "deploy-7/a");
        let long = [b'x'; MAX_ID + 1];
        for given in [&b""[..], b"two words", b"\xfc", &long] {
            let made = id(given);
            assert!(made.len() == 16 && made.bytes().all(|byte| byte.is_ascii_hexdigit()), "{made}");
            assert_ne!(made, id(given));
        }
    }
}
