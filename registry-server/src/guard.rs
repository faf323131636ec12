//! What a call may take, whoever makes it: a place among those that are under way, time, and memory for its request.
//!
//! A request that is not sent to its end, or is announced and never sent, or is a megabyte that unpacks to a gigabyte, costs
//! its client nothing. So a request must come whole within a certain time, and large ones share a budget.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Bytes, Service, http};
use tracing::Instrument;

use crate::call;
use crate::complaints::Complaint;
use crate::connections::{Activity, CallUnderWay};
use crate::record::{CallRecord, Recorder};

/// Requests of up to so many bytes are not counted.
const SMALL: usize = 64 * 1024;
/// How many bytes of memory requests may take that are being received or done. One that takes more goes alone.
const BUDGET: usize = 128 * 1024 * 1024;
/// What the budget is counted in.
const UNIT: usize = 1024;
/// How many times larger a compressed message may become, which is about what deflate can do.
const MOST_UNPACKED: usize = 1024;
/// How many calls may be under way.
const CALLS: usize = 4096;
/// How much longer than its deadline a call is let be, to say what became of a write.
const SETTLES_WITHIN: Duration = Duration::from_secs(10);
/// What a message begins with: whether it is compressed, and its length.
const PREFIX: usize = 5;
/// Calls of these services go on for as long as their clients like, so nothing waits for their end.
const ENDLESS: [&str; 2] = ["/grpc.health.", "/grpc.reflection."];

/// What all calls of a server share.
#[derive(Clone)]
pub(crate) struct CallLimits {
    calls: Arc<Semaphore>,
    memory: Arc<Semaphore>,
    /// The largest message that is accepted.
    max_message_size: usize,
    /// How long a call may take whose client sets no deadline, and how long any request may take to come.
    request_timeout: Duration,
    recorder: Arc<Recorder>,
    complaint: Arc<Complaint>,
}

impl CallLimits {
    pub(crate) fn new(max_message_size: usize, request_timeout: Duration, recorder: Arc<Recorder>) -> Self {
        let memory = Arc::new(Semaphore::new(BUDGET.div_ceil(UNIT)));
        let calls = Arc::new(Semaphore::new(CALLS));
        Self { calls, memory, max_message_size, request_timeout, recorder, complaint: Arc::default() }
    }

    /// What a message needs, in units of the budget, by what it begins with.
    fn needed(&self, prefix: [u8; PREFIX]) -> Option<u32> {
        let [compressed, length @ ..] = prefix;
        let length = u32::from_be_bytes(length) as usize;
        let size = if compressed == 0 { length } else { length.saturating_mul(MOST_UNPACKED) };
        let size = size.min(self.max_message_size).min(BUDGET);
        // What is too large is refused as soon as its length is read.
        let is_counted = size > SMALL && length <= self.max_message_size;
        is_counted.then(|| u32::try_from(size.div_ceil(UNIT)).unwrap_or(u32::MAX))
    }
}

/// The services of one connection, whose calls keep to the limits.
#[derive(Clone)]
pub(crate) struct Guarded<S> {
    pub(crate) service: S,
    pub(crate) limits: CallLimits,
    pub(crate) activity: Arc<Activity>,
}

impl<S> Service<http::Request<Incoming>> for Guarded<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Incoming>) -> Self::Future {
        let path = request.uri().path();
        let is_endless = ENDLESS.iter().any(|prefix| path.starts_with(prefix));
        let mut record = self.limits.recorder.begin(path, request.headers(), is_endless);
        let Ok(place) = Arc::clone(&self.limits.calls).try_acquire_owned() else {
            self.limits.complaint.say(|unsaid| {
                tracing::warn!(unsaid, "a call was refused, since as many are under way as there may be ({CALLS})");
            });
            let status = Status::resource_exhausted(format!(
                "this server has {CALLS} calls under way, which is all that it takes; nothing was done: try again later"
            ));
            let mut refusal = status.into_http();
            record.answers(refusal.headers_mut());
            return Box::pin(std::future::ready(Ok(refusal)));
        };
        let timeout = call::timeout_of(request.headers(), self.limits.request_timeout);
        let held = Held::default();
        let mut request = request.map(|body| {
            Body::new(RequestBody {
                body,
                prefix: Prefix::default(),
                room: None,
                arrives_until: Instant::now() + self.limits.request_timeout,
                is_late: None,
                activity: (!is_endless).then(|| Arc::clone(&self.activity)),
                held: held.clone(),
                received: record.received(),
                limits: self.limits.clone(),
            })
        });
        request.extensions_mut().insert(record.waits().clone());
        let span = record.span();
        let answer = self.service.call(request);
        let guarded = async move {
            let _place = place;
            let answer = tokio::time::timeout(timeout.saturating_add(SETTLES_WITHIN), answer).await;
            let mut answer = match answer {
                Ok(answer) => answer?,
                Err(_) => Status::deadline_exceeded("the deadline of the call is over").into_http(),
            };
            record.answers(answer.headers_mut());
            // The place is for calls that are being done. What an answer takes that is large is counted elsewhere.
            Ok(answer.map(|body| Body::new(AnswerBody { body, record, _held: held })))
        };
        Box::pin(guarded.instrument(span))
    }
}

/// What a call holds until its answer has gone.
#[derive(Debug, Clone, Default)]
struct Held(Arc<Mutex<(Option<OwnedSemaphorePermit>, Option<CallUnderWay>)>>);

impl Held {
    fn room(&self, permit: OwnedSemaphorePermit) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0 = Some(permit);
    }

    fn call(&self, call: CallUnderWay) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1 = Some(call);
    }
}

type Waiting = Pin<Box<dyn Future<Output = Option<OwnedSemaphorePermit>> + Send>>;

/// A request on its way in.
struct RequestBody {
    body: Incoming,
    prefix: Prefix,
    /// The wait for room.
    room: Option<Waiting>,
    arrives_until: Instant,
    /// The wait until then; most requests have come whole before it begins.
    is_late: Option<Pin<Box<Sleep>>>,
    activity: Option<Arc<Activity>>,
    held: Held,
    /// How many bytes have come.
    received: Arc<AtomicU64>,
    limits: CallLimits,
}

/// The first bytes of a message, as far as they have come.
#[derive(Debug, Default)]
struct Prefix {
    bytes: [u8; PREFIX],
    length: usize,
}

impl Prefix {
    /// Takes what is missing of it; returns all of it when it becomes complete.
    fn add(&mut self, data: &[u8]) -> Option<[u8; PREFIX]> {
        let missing = data.len().min(PREFIX - self.length);
        if missing == 0 {
            return None;
        }
        self.bytes[self.length..self.length + missing].copy_from_slice(&data[..missing]);
        self.length += missing;
        (self.length == PREFIX).then_some(self.bytes)
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let polled = self.poll_arrival(cx);
        if polled.is_pending() {
            let until = self.arrives_until;
            let is_late = self.is_late.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
            ready!(is_late.as_mut().poll(cx));
            let seconds = self.limits.request_timeout.as_secs_f64();
            let text = format!("the request did not come whole within {seconds} s; nothing was done");
            return Poll::Ready(Some(Err(Status::deadline_exceeded(text))));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.room.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl RequestBody {
    /// The next frame, once there is room for it.
    fn poll_arrival(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(room) = self.room.as_mut() {
            let permit = ready!(room.as_mut().poll(cx));
            self.room = None;
            if let Some(permit) = permit {
                self.held.room(permit);
            }
        }
        let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Some(Err(Status::from_error(error.into())))),
            None => {
                self.has_arrived();
                return Poll::Ready(None);
            }
        };
        let arrived = frame.data_ref().map_or(0, Bytes::len);
        self.received.fetch_add(arrived as u64, Ordering::Relaxed);
        if let Some(data) = frame.data_ref()
            && let Some(prefix) = self.prefix.add(data)
            && let Some(needed) = self.limits.needed(prefix)
        {
            // What comes next waits, and HTTP/2 has the client wait for it.
            let memory = Arc::clone(&self.limits.memory);
            self.room = Some(Box::pin(async move { memory.acquire_many_owned(needed).await.ok() }));
        }
        if self.body.is_end_stream() {
            self.has_arrived();
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn has_arrived(&mut self) {
        if let Some(activity) = self.activity.take() {
            self.held.call(activity.begin_call());
        }
    }
}

/// An answer on its way out.
struct AnswerBody {
    body: Body,
    record: CallRecord,
    _held: Held,
}

impl http_body::Body for AnswerBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            match (frame.data_ref(), frame.trailers_ref()) {
                (Some(data), _) => self.record.sends(data.len()),
                (None, Some(trailers)) => self.record.note_code(trailers),
                (None, None) => {}
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_counted_by_what_it_takes_unpacked() {
        let limits = CallLimits::new(16 << 20, Duration::from_secs(30), Recorder::new(None, false));
        let prefix = |compressed: u8, length: u32| {
            let [a, b, c, d] = length.to_be_bytes();
            [compressed, a, b, c, d]
        };
        for (compressed, length, needed) in [
            (0, 0, None),
            (0, SMALL as u32, None),
            (0, SMALL as u32 + 1, Some(65)),
            (0, 16 << 20, Some(16 << 10)),
            (0, (16 << 20) + 1, None),
            (1, 64, None),
            (1, 65, Some(65)),
            (1, 1 << 20, Some(16 << 10)),
        ] {
            assert_eq!(limits.needed(prefix(compressed, length)), needed, "{compressed} {length}");
        }
    }

    #[test]
    fn a_prefix_may_come_in_pieces() {
        for pieces in [vec![&b"\0\0\0\x01\x02rest"[..]], vec![b"\0", b"", b"\0\0\x01", b"\x02r", b"est"]] {
            let mut prefix = Prefix::default();
            let complete: Vec<_> = pieces.into_iter().filter_map(|piece| prefix.add(piece)).collect();
            assert_eq!(complete, [[0, 0, 0, 1, 2]]);
        }
    }
}
