//! What a call may take, whoever makes it: a place among those that are under way, time, and memory for its request.
//!
//! A request that is not sent to its end, or is announced and never sent, or is a megabyte that unpacks to a gigabyte, costs
//! its client nothing. So a request must come whole within a certain time, and large ones share budgets: one of bytes that have
//! come, where what finds no room is refused, since it could not wait without keeping from the rest of its connection what
//! that needs; and one of what they unpack to, where they wait once they have come.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
use crate::connections::{Activity, AnswerUnderWay, CallUnderWay};
use crate::record::{CallRecord, Identity, Recorder};

/// Requests of up to so many bytes are not counted.
const SMALL: usize = 64 * 1024;
/// How many bytes of requests that have come, whole or in part, may wait for their answers.
const ARRIVED: usize = 256 * 1024 * 1024;
/// How many bytes of memory compressed requests may unpack to at once. One that takes more goes alone.
const UNPACKED: usize = 128 * 1024 * 1024;
/// What the budgets are counted in.
const UNIT: usize = 1024;
/// How many times larger a compressed message may become, which is about what deflate can do.
const MOST_UNPACKED: usize = 1024;
/// How many calls may be under way.
const CALLS: usize = 4096;
/// How much longer than its deadline a call is let be, to say what became of a write.
const SETTLES_WITHIN: Duration = Duration::from_secs(10);
/// What a message begins with: whether it is compressed, and its length.
const PREFIX: usize = 5;
/// Its calls are answered however many others are under way: else a supervisor would take a busy server for a dead one.
const HEALTH: &str = "/grpc.health.";
/// Calls of these services go on for as long as their clients like, so nothing waits for their end.
const ENDLESS: [&str; 2] = [HEALTH, "/grpc.reflection."];

/// What all calls of a server share.
#[derive(Clone)]
pub(crate) struct CallLimits {
    calls: Arc<Semaphore>,
    arrived: Arc<Semaphore>,
    unpacked: Arc<Semaphore>,
    /// The largest message that is accepted.
    max_message_size: usize,
    /// How long a call may take whose client sets no deadline, and how long any request may take to come.
    request_timeout: Duration,
    recorder: Arc<Recorder>,
}

impl CallLimits {
    pub(crate) fn new(max_message_size: usize, request_timeout: Duration, recorder: Arc<Recorder>) -> Self {
        let calls = Arc::new(Semaphore::new(CALLS));
        // The largest has room, if nothing else has.
        let arrived = Arc::new(Semaphore::new(ARRIVED.max(max_message_size + SMALL).div_ceil(UNIT)));
        let unpacked = Arc::new(Semaphore::new(UNPACKED.div_ceil(UNIT)));
        Self { calls, arrived, unpacked, max_message_size, request_timeout, recorder }
    }

    /// What a message may unpack to, in units of the budget, by what it begins with; `None` if that is little.
    fn unpacks_to(&self, Prefix { is_compressed, length }: Prefix) -> Option<u32> {
        let size = length.saturating_mul(MOST_UNPACKED).min(self.max_message_size).min(UNPACKED);
        // What is too large is refused as soon as its length is read.
        let is_counted = is_compressed && size > SMALL && length <= self.max_message_size;
        is_counted.then(|| units(size))
    }
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX)
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
        let needs_place = !path.starts_with(HEALTH);
        let place = needs_place.then(|| Arc::clone(&self.limits.calls).try_acquire_owned()).transpose();
        let Ok(place) = place else {
            static REFUSED: Complaint = Complaint::new();
            REFUSED.say(|more| {
                tracing::warn!("a call was refused, since as many are under way as there may be ({CALLS}){more}");
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
        let activity = (!is_endless).then(|| Arc::clone(&self.activity));
        let mut request = request.map(|body| {
            Body::new(RequestBody {
                body,
                beginning: Beginning::default(),
                message: None,
                charged: 0,
                unpacking: None,
                pending: None,
                arrives_until: Instant::now() + self.limits.request_timeout,
                is_late: None,
                activity: activity.clone(),
                held: held.clone(),
                identity: record.identity(),
                limits: self.limits.clone(),
            })
        });
        request.extensions_mut().insert(record.waits().clone());
        let answer = self.service.call(request);
        let this = record.identity();
        let span = record.span();
        let guarded = async move {
            let _place = place;
            let answer = tokio::time::timeout(timeout.saturating_add(SETTLES_WITHIN), answer).await;
            let mut answer = match answer {
                Ok(answer) => answer?,
                Err(_) => Status::deadline_exceeded("the deadline of the call is over").into_http(),
            };
            record.answers(answer.headers_mut());
            held.let_go_of_request();
            // The place is for calls that are being done. What an answer takes that is large is counted elsewhere.
            let under_way = activity.map(|activity| activity.begin_answer());
            Ok(answer.map(|body| Body::new(AnswerBody { body, record, under_way, _held: held })))
        };
        Box::pin(this.of_call(guarded.instrument(span)))
    }
}

/// What a call holds: room for its request until that is done, and its part in the activity of the connection until its
/// answer has gone.
#[derive(Debug, Clone, Default)]
struct Held(Arc<Mutex<Holding>>);

#[derive(Debug, Default)]
struct Holding {
    arrived: Option<OwnedSemaphorePermit>,
    unpacked: Option<OwnedSemaphorePermit>,
    call: Option<CallUnderWay>,
}

impl Held {
    fn holding(&self) -> MutexGuard<'_, Holding> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add_arrived(&self, permit: OwnedSemaphorePermit) {
        match &mut self.holding().arrived {
            Some(arrived) => arrived.merge(permit),
            arrived => *arrived = Some(permit),
        }
    }

    fn let_go_of_request(&self) {
        let mut holding = self.holding();
        (holding.arrived, holding.unpacked) = (None, None);
    }
}

type Waiting = Pin<Box<dyn Future<Output = Option<OwnedSemaphorePermit>> + Send>>;
type Arriving = Poll<Option<Result<Frame<Bytes>, Status>>>;

/// A request on its way in.
struct RequestBody {
    body: Incoming,
    beginning: Beginning,
    /// What its message begins with, once that has come.
    message: Option<Prefix>,
    /// How many units of the bytes that have come it has room for.
    charged: u32,
    /// The wait for room to unpack, and what has come before it.
    unpacking: Option<Waiting>,
    pending: Option<Frame<Bytes>>,
    arrives_until: Instant,
    /// The wait until then; most requests have come whole before it begins.
    is_late: Option<Pin<Box<Sleep>>>,
    activity: Option<Arc<Activity>>,
    held: Held,
    identity: Arc<Identity>,
    limits: CallLimits,
}

/// The first bytes of a message, as far as they have come.
#[derive(Debug, Default)]
struct Beginning {
    bytes: [u8; PREFIX],
    length: usize,
}

/// What a message begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Prefix {
    is_compressed: bool,
    length: usize,
}

impl Beginning {
    /// Takes what is missing of it; returns what it says when it becomes complete.
    fn add(&mut self, data: &[u8]) -> Option<Prefix> {
        let missing = data.len().min(PREFIX - self.length);
        if missing == 0 {
            return None;
        }
        self.bytes[self.length..self.length + missing].copy_from_slice(&data[..missing]);
        self.length += missing;
        let [compressed, length @ ..] = self.bytes;
        let prefix = Prefix { is_compressed: compressed != 0, length: u32::from_be_bytes(length) as usize };
        (self.length == PREFIX).then_some(prefix)
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Arriving {
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
        self.pending.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.pending.is_none() { self.body.size_hint() } else { SizeHint::default() }
    }
}

impl RequestBody {
    /// The next frame; that with the end of a message, once there is room to unpack it.
    fn poll_arrival(&mut self, cx: &mut Context<'_>) -> Arriving {
        if self.unpacking.is_none() {
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => {
                    let text = format!("the request was broken off ({error}); nothing was done");
                    return Poll::Ready(Some(Err(Status::cancelled(text))));
                }
                None => {
                    self.has_arrived();
                    return Poll::Ready(None);
                }
            };
            if let Some(data) = frame.data_ref()
                && let Err(status) = self.take_in(data)
            {
                return Poll::Ready(Some(Err(status)));
            }
            if self.body.is_end_stream() {
                self.has_arrived();
            }
            if self.unpacking.is_none() {
                return Poll::Ready(Some(Ok(frame)));
            }
            self.pending = Some(frame);
        }
        if let Some(unpacking) = self.unpacking.as_mut() {
            let permit = ready!(unpacking.as_mut().poll(cx));
            self.unpacking = None;
            self.held.holding().unpacked = permit;
        }
        Poll::Ready(self.pending.take().map(Ok))
    }

    /// Takes room for bytes that have come; when the message is whole, begins to wait for room to unpack it.
    fn take_in(&mut self, data: &[u8]) -> Result<(), Status> {
        let arrived = self.identity.receives(data.len());
        let charge = if arrived > SMALL { units(arrived) } else { 0 };
        let missing = charge.saturating_sub(self.charged);
        if missing > 0 {
            let permit = Arc::clone(&self.limits.arrived).try_acquire_many_owned(missing);
            self.held.add_arrived(permit.map_err(|_| no_room())?);
            self.charged = charge;
        }
        self.message = self.message.or(self.beginning.add(data));
        if let Some(message) = self.message
            && arrived >= PREFIX.saturating_add(message.length)
        {
            // Once.
            self.message = Some(Prefix { is_compressed: false, ..message });
            self.unpacking = self.limits.unpacks_to(message).map(|needed| {
                let unpacked = Arc::clone(&self.limits.unpacked);
                Box::pin(async move { unpacked.acquire_many_owned(needed).await.ok() }) as Waiting
            });
        }
        Ok(())
    }

    fn has_arrived(&mut self) {
        if let Some(activity) = self.activity.take() {
            self.held.holding().call = Some(activity.begin_call());
        }
    }
}

fn no_room() -> Status {
    static REFUSED: Complaint = Complaint::new();
    REFUSED.say(|more| tracing::warn!("a large request was refused: others take all the memory for them{more}"));
    Status::resource_exhausted(
        "this server has no memory left for large requests, since others are coming or being done; nothing was done: try again later",
    )
}

/// An answer on its way out.
struct AnswerBody {
    body: Body,
    record: CallRecord,
    /// None of an answer that has no end.
    under_way: Option<AnswerUnderWay>,
    _held: Held,
}

impl http_body::Body for AnswerBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            self.under_way.iter().for_each(AnswerUnderWay::goes_on);
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
    fn a_compressed_message_is_counted_by_what_it_may_unpack_to() {
        let limits = CallLimits::new(16 << 20, Duration::from_secs(30), Recorder::new(None, false));
        for (is_compressed, length, needed) in [
            (false, 0, None),
            (false, 16 << 20, None),
            (true, 64, None),
            (true, 65, Some(65)),
            (true, 1 << 20, Some(16 << 10)),
            (true, (16 << 20) + 1, None),
        ] {
            assert_eq!(limits.unpacks_to(Prefix { is_compressed, length }), needed, "{is_compressed} {length}");
        }
    }

    #[test]
    fn a_prefix_may_come_in_pieces() {
        for pieces in [vec![&b"\x01\0\0\x01\x02rest"[..]], vec![b"\x01", b"", b"\0\0\x01", b"\x02r", b"est"]] {
            let mut beginning = Beginning::default();
            let complete: Vec<_> = pieces.into_iter().filter_map(|piece| beginning.add(piece)).collect();
            assert_eq!(complete, [Prefix { is_compressed: true, length: 0x102 }]);
        }
    }
}
