//! What a call may take, whoever makes it: a place among those that are under way, time, and memory for its request.
//!
//! A request that is not sent to its end costs its client nothing. So a call has one place among so many, and is begun when its
//! request has come ([`request`](crate::request)).

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Bytes, Service, http};
use tracing::Instrument;

use crate::call::{self, Began};
use crate::complaints::Complaint;
use crate::connections::{Activity, AnswerUnderWay, CallUnderWay};
use crate::record::{CallRecord, Recorder};
use crate::request::{Conversation, RequestLimits};

/// How many calls may be under way.
const CALLS: usize = 4096;
/// How much longer than its deadline a call is let be, to say what became of a write.
const SETTLES_WITHIN: Duration = Duration::from_secs(10);
/// Its calls are answered however many others are under way: else a supervisor would take a busy server for a dead one.
const HEALTH: &str = "/grpc.health.";
/// The largest request for health: they have no place, so what each of them takes is little.
const HEALTH_REQUEST: usize = 1024;
/// The calls of this service are conversations.
const REFLECTION: &str = "/grpc.reflection.";

/// What all calls of a server share.
#[derive(Clone)]
pub(crate) struct CallLimits {
    calls: Arc<Semaphore>,
    requests: RequestLimits,
    /// How long a call may take whose client sets no deadline.
    timeout: Duration,
    recorder: Arc<Recorder>,
}

impl CallLimits {
    pub(crate) fn new(requests: RequestLimits, timeout: Duration, recorder: Arc<Recorder>) -> Self {
        Self { calls: Arc::new(Semaphore::new(CALLS)), requests, timeout, recorder }
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
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Incoming>) -> Self::Future {
        let began = Instant::now();
        let path = request.uri().path();
        let (is_health, is_conversation) = (path.starts_with(HEALTH), path.starts_with(REFLECTION));
        // These go on for as long as their clients like, so nothing waits for their end.
        let is_endless = is_health || is_conversation;
        let mut record = self.limits.recorder.begin(path, request.headers(), is_endless);
        let place = (!is_health).then(|| Arc::clone(&self.limits.calls).try_acquire_owned()).transpose();
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
        let timeout = call::timeout_of(request.headers(), self.limits.timeout);
        let activity = (!is_endless).then(|| Arc::clone(&self.activity));
        let requests = self.limits.requests.clone();
        let comes_until = began + timeout.min(requests.arrives_within);
        // The one that was asked whether it is ready.
        let ready = self.service.clone();
        let mut service = std::mem::replace(&mut self.service, ready);
        let identity = record.identity();
        let waits = record.waits().clone();
        let receiving = Arc::clone(&identity);
        let call_activity = activity.clone();
        let done = async move {
            // What the request takes is given back when its answer is there.
            let (mut request, _room) = if is_conversation {
                (request.map(|body| Body::new(Conversation::new(body, receiving, comes_until))), None)
            } else {
                let most = if is_health { HEALTH_REQUEST } else { usize::MAX };
                match requests.receive(request, most, began, comes_until, &receiving).await {
                    Ok((request, room)) => (request.map(Body::new), Some(room)),
                    Err(status) => return (Ok(status.into_http()), None),
                }
            };
            let call = call_activity.map(|activity| activity.begin_call());
            request.extensions_mut().insert(Began(began));
            request.extensions_mut().insert(waits);
            (service.call(request).await, call)
        };
        let span = record.span();
        let guarded = async move {
            // It is for calls that are being done. What an answer takes that is large is counted elsewhere.
            let _place = place;
            let until = began.checked_add(timeout.saturating_add(SETTLES_WITHIN));
            let answered = match until {
                Some(until) => timeout_at(until, done).await.ok(),
                None => Some(done.await),
            };
            let (mut answer, call) = match answered {
                Some((answer, call)) => (answer?, call),
                None => {
                    let text = "the call has not ended within its deadline; what became of it is not known";
                    (Status::deadline_exceeded(text).into_http(), None)
                }
            };
            record.answers(answer.headers_mut());
            // The answer of a call that was not begun is one too.
            let call = call.or_else(|| activity.as_ref().map(Activity::begin_call));
            let under_way = activity.map(|activity| activity.begin_answer());
            Ok(answer.map(|body| Body::new(AnswerBody { body, record, under_way, _call: call })))
        };
        Box::pin(identity.of_call(guarded.instrument(span)))
    }
}

/// An answer on its way out.
struct AnswerBody {
    body: Body,
    record: CallRecord,
    /// None of an answer that has no end.
    under_way: Option<AnswerUnderWay>,
    /// The call has come to its end when its answer has gone.
    _call: Option<CallUnderWay>,
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
