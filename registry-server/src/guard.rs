//! What a call may take, whoever makes it: a place among those that are under way, time, and memory for its request.
//!
//! A request that is not sent to its end costs its client nothing. So a call has one place among so many, and is begun when its
//! request has come ([`request`](crate::request)).

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use feast_registry_core::{CallOptions, Deadline, Waits};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Bytes, Service, http};
use tracing::Instrument;

use crate::call::{self, Began};
use crate::callers::{Caller, Callers};
use crate::complaints::Complaint;
use crate::connections::{Activity, AnswerUnderWay, CallUnderWay};
use crate::heavy;
use crate::metrics::OpenWatch;
use crate::panics::Isolated;
use crate::parts::READ_WITHIN;
use crate::protocol::Protocol;
use crate::record::{CallRecord, Identity, Recorder};
use crate::request::{Allowance, Arrivals, Conversation, RequestLimits, Room};
use crate::rest;
use crate::services::Services;
use crate::status::status;
use crate::tenants::Share;

/// How many calls may be under way.
const CALLS: usize = 4096;
/// How much longer than its deadline a call is let be, to say what became of a write.
const SETTLES_WITHIN: Duration = Duration::from_secs(10);
/// The largest request for health: these have no place, so what each of them takes is little.
const HEALTH_REQUEST: usize = 1024;
/// How many streams of server reflection may be open.
const CONVERSATIONS: usize = 64;
/// The call that follows what is committed.
const WATCH: &str = "/feast_registry.v1.History/Watch";
/// Within which time a request that makes way for another has done so.
const MAKES_WAY_WITHIN: Duration = Duration::from_secs(1);

/// What all calls of a server share.
pub(crate) struct CallLimits {
    calls: Arc<Semaphore>,
    conversations: Arc<Semaphore>,
    watchers: Arc<Semaphore>,
    max_watchers: usize,
    requests: RequestLimits,
    arrivals: Arrivals,
    /// How long a call may take whose client sets no deadline, and how long any request may take to come.
    timeout: Duration,
    recorder: Arc<Recorder>,
    /// `None`: everybody may do everything, and nobody is asked who they are.
    callers: Option<Callers>,
}

/// A place among the calls that are under way; none is needed for health.
#[derive(Default)]
struct Place {
    _permit: Option<OwnedSemaphorePermit>,
    /// Of a watcher, its place on its connection too.
    _watch: Option<(OwnedSemaphorePermit, OpenWatch)>,
}

impl CallLimits {
    pub(crate) fn new(
        requests: RequestLimits,
        timeout: Duration,
        max_watchers: usize,
        recorder: Arc<Recorder>,
        callers: Option<Callers>,
    ) -> Arc<Self> {
        let places = |number: usize| Arc::new(Semaphore::new(number.min(Semaphore::MAX_PERMITS)));
        let (calls, conversations, watchers) = (places(CALLS), places(CONVERSATIONS), places(max_watchers));
        let arrivals = Arrivals::default();
        Arc::new(Self { calls, conversations, watchers, max_watchers, requests, arrivals, timeout, recorder, callers })
    }

    async fn place(&self, service: Called, connection: &Activity) -> Result<Place, Status> {
        let (places, number) = match service {
            Called::Health => return Ok(Place::default()),
            Called::Watch => return self.watcher(connection),
            Called::Reflection => (&self.conversations, CONVERSATIONS),
            Called::Registry => (&self.calls, CALLS),
        };
        if let Ok(place) = Arc::clone(places).try_acquire_owned() {
            return Ok(Place { _permit: Some(place), _watch: None });
        }
        if service == Called::Registry
            && self.arrivals.end_oldest()
            && let Ok(Ok(place)) = timeout(MAKES_WAY_WITHIN, Arc::clone(places).acquire_owned()).await
        {
            return Ok(Place { _permit: Some(place), _watch: None });
        }
        static REFUSED: Complaint = Complaint::new();
        REFUSED.say(|more| {
            tracing::warn!("a call was refused, since as many are under way as there may be ({number}){more}");
        });
        Err(Status::resource_exhausted(format!(
            "this server has {number} calls under way, which is all that it takes; nothing was done: try again later"
        )))
    }

    fn watcher(&self, connection: &Activity) -> Result<Place, Status> {
        let Some(of_connection) = connection.watcher() else {
            return Err(Status::resource_exhausted(
                "this connection has as many watchers as it takes: watch on another connection",
            ));
        };
        let Ok(permit) = Arc::clone(&self.watchers).try_acquire_owned() else {
            static REFUSED: Complaint = Complaint::new();
            let number = self.max_watchers;
            REFUSED.say(|more| {
                tracing::warn!("a watcher was refused, since there are as many as there may be ({number}){more}");
            });
            return Err(Status::resource_exhausted(format!(
                "this server has {number} watchers, which is all that it takes (--max-watchers): try again later"
            )));
        };
        Ok(Place { _permit: Some(permit), _watch: Some((of_connection, OpenWatch::begin())) })
    }
}

/// Which service is called, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Called {
    /// Its calls are answered however many others are under way: else a supervisor would take a busy server for a dead one. Some
    /// go on for as long as their clients like.
    Health,
    /// Its calls are conversations.
    Reflection,
    /// A stream that goes on for as long as its client likes, and has nothing to say for most of it.
    Watch,
    Registry,
}

impl Called {
    /// Whether who calls has to say who they are. Supervisors have no credentials, and what there is to call is no secret.
    fn is_for_callers(self) -> bool {
        matches!(self, Self::Registry | Self::Watch)
    }

    fn by(path: &str) -> Self {
        if path.starts_with("/grpc.health.") {
            Self::Health
        } else if path.starts_with("/grpc.reflection.") {
            Self::Reflection
        } else if path == WATCH {
            Self::Watch
        } else {
            Self::Registry
        }
    }
}

/// The services of one connection, whose calls keep to the limits.
#[derive(Clone)]
pub(crate) struct Guarded {
    pub(crate) services: Services,
    pub(crate) limits: Arc<CallLimits>,
    pub(crate) activity: Arc<Activity>,
}

/// What a request asks for, as far as it matters here.
#[derive(Clone, Copy)]
struct Asked {
    protocol: Protocol,
    called: Called,
    /// Whether who calls has to say who they are.
    is_for_callers: bool,
}

impl Asked {
    /// With what the request is called in metrics and in the log: the path of a call, or the name of a route.
    fn by(services: &Services, request: &mut http::Request<Incoming>) -> (Self, String) {
        let protocol = services.protocol(request);
        if let (Protocol::Rest, Some(rest)) = (protocol, services.rest()) {
            let rest::Asked { name, is_for_callers } = rest.find(request);
            return (Self { protocol, called: Called::Registry, is_for_callers }, name);
        }
        let path = request.uri().path();
        let called = Called::by(path);
        (Self { protocol, called, is_for_callers: called.is_for_callers() }, path.to_owned())
    }
}

impl Service<http::Request<Incoming>> for Guarded {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.services.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Incoming>) -> Self::Future {
        let began = Instant::now();
        let (asked, name) = Asked::by(&self.services, &mut request);
        let Asked { protocol, called, .. } = asked;
        let mut record = self.limits.recorder.begin(&name, request.headers(), called != Called::Registry);
        let timeout = call::timeout_of(request.headers(), self.limits.timeout);
        let limits = Arc::clone(&self.limits);
        let activity = Arc::clone(&self.activity);
        let services = self.services.clone();
        let service = Isolated { service: services.clone(), protocol };
        let asking = rest::Asking::of(&request);
        let identity = record.identity();
        let call = Call {
            asked,
            comes_until: Deadline::after(timeout.min(limits.timeout)).instant(),
            began,
            identity: Arc::clone(&identity),
            waits: record.waits().clone(),
            activity: Arc::clone(&activity),
            limits,
        };
        let span = record.span();
        let guarded = async move {
            let until = began.checked_add(timeout.saturating_add(SETTLES_WITHIN));
            let done = call.done_by(service, request);
            let answered = match until {
                Some(until) => timeout_at(until, done).await.ok(),
                None => Some(done.await),
            };
            let (answer, under_way) = answered.unwrap_or_else(|| {
                let text = "the call has not ended within its deadline; what became of it is not known";
                (Ok(protocol.refusal(Status::deadline_exceeded(text))), UnderWay::default())
            });
            let mut answer = answer?;
            services.finish(protocol, &asking, &mut answer);
            record.answers(protocol, &mut answer);
            let share = under_way.share;
            let (of_call, place) = match called {
                // What its client does not read may be all that there is.
                Called::Health => (None, Place::default()),
                Called::Reflection | Called::Watch => (None, under_way.place),
                // The place is for calls that are being done; what a large answer takes is counted elsewhere. The answer of a call that
                // was not begun is one too.
                Called::Registry => (under_way.call.or_else(|| Some(activity.begin_call())), Place::default()),
            };
            let goes = match called {
                // A watcher that takes its time holds up nobody, and has no more in memory than what it is told next.
                Called::Health | Called::Watch => None,
                Called::Reflection => Some(activity.begin_conversation()),
                Called::Registry => Some(activity.begin_answer()),
            };
            let held = (of_call, place, share);
            Ok(answer.map(|body| Body::new(AnswerBody { body, record, goes, _held: held })))
        };
        Box::pin(identity.of_call(guarded.instrument(span)))
    }
}

/// What a call is done with.
struct Call {
    asked: Asked,
    began: Instant,
    /// By when its request must have come.
    comes_until: Instant,
    identity: Arc<Identity>,
    waits: Waits,
    /// Of its connection.
    activity: Arc<Activity>,
    limits: Arc<CallLimits>,
}

/// What a call has while it is under way.
#[derive(Default)]
struct UnderWay {
    place: Place,
    call: Option<CallUnderWay>,
    /// Of its caller's, until its answer has gone.
    share: Option<Share>,
}

impl Call {
    async fn done_by<S>(
        self,
        mut service: S,
        request: http::Request<Incoming>,
    ) -> (Result<http::Response<Body>, Infallible>, UnderWay)
    where
        S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    {
        let mut under_way = UnderWay::default();
        let protocol = self.asked.protocol;
        match self.received(request, &mut under_way).await {
            // What the request takes is given back when its answer is there.
            Ok((request, _room)) => {
                let bytes = http_body::Body::size_hint(request.body()).lower();
                (heavy::call(bytes, service.call(request)).await, under_way)
            }
            Err(status) => (Ok(protocol.refusal(status)), under_way),
        }
    }

    /// The request, as the services take it.
    async fn received(
        &self,
        request: http::Request<Incoming>,
        under_way: &mut UnderWay,
    ) -> Result<(http::Request<Body>, Room), Status> {
        let Self { asked: Asked { protocol, called, is_for_callers }, began, comes_until, .. } = self;
        let CallLimits { requests, arrivals, .. } = &*self.limits;
        under_way.place = self.limits.place(*called, &self.activity).await?;
        let (mut parts, body) = request.into_parts();
        parts.extensions.insert(Began(*began));
        parts.extensions.insert(self.waits.clone());
        parts.extensions.insert(self.activity.peer());
        let memory = match &self.limits.callers {
            Some(callers) if *is_for_callers => {
                let deadline = Deadline::at(*comes_until).with_waits(self.waits.clone());
                let path = parts.uri.path().to_owned();
                let call = || (self.identity.id().to_owned(), path.clone());
                let identified = callers.identify(&mut parts.headers, &self.activity, *protocol, call);
                let identified = deadline.wait_for("who calls to be found out", identified).await;
                let Caller { access, credentials, share } = identified.map_err(|error| status(&path, error))??;
                parts.extensions.insert(access);
                if *called == Called::Watch {
                    parts.extensions.insert(credentials);
                }
                let memory = share.memory().clone();
                parts.extensions.insert(memory.clone());
                under_way.share = Some(share);
                Some(memory)
            }
            _ => None,
        };
        if *called == Called::Reflection {
            // One that says nothing for longer would be taken for one that reads nothing.
            let until = (*comes_until).min(*began + READ_WITHIN);
            let body = Body::new(Conversation::new(body, Arc::clone(&self.identity), until));
            return Ok((http::Request::from_parts(parts, body), Room::default()));
        }
        let path = parts.uri.path().to_owned();
        let allowance = match called {
            Called::Health => Allowance::of_up_to(HEALTH_REQUEST),
            _ if *protocol == Protocol::Rest => requests.allowance_of_rest(is_for_callers.then_some(&parts.method)),
            _ => requests.allowance(&path),
        };
        let deadline = Deadline::at(*comes_until).with_waits(self.waits.clone());
        // Only who has a place that a call needs can make way.
        let arriving = (*called == Called::Registry).then(|| arrivals.begin());
        let makes_way = async {
            match &arriving {
                Some(arriving) => arriving.makes_way().await,
                None => std::future::pending().await,
            }
        };
        let arrival = async {
            tokio::select! {
                arrived = requests.arrival(body, *protocol, allowance, &self.identity, memory) => arrived,
                () = makes_way => Err(Status::resource_exhausted(
                    "the request has been coming for longer than all others, and the server has no place left; nothing was done"
                )),
            }
        };
        let arrived = deadline.wait_for("the request to come whole", arrival).await;
        let (received, room) = arrived.map_err(|error| status(&path, error))??;
        drop(arriving);
        match called {
            // The connection does not end before the call has.
            Called::Registry => under_way.call = Some(self.activity.begin_call()),
            // Nothing waits for the end of what goes on for as long as its client likes.
            Called::Watch => drop(parts.extensions.insert(self.activity.going())),
            Called::Health | Called::Reflection => {}
        }
        let options = CallOptions::new().with_deadline(*comes_until).with_waits(self.waits.clone());
        let (received, room) =
            requests.unpacked(received, *protocol, room, &mut parts.headers, allowance, (&path, options)).await?;
        Ok((http::Request::from_parts(parts, Body::new(received)), room))
    }
}

/// An answer on its way out.
struct AnswerBody {
    body: Body,
    record: CallRecord,
    /// None of an answer that may have nothing to say for long.
    goes: Option<AnswerUnderWay>,
    /// The call has come to its end when its answer has gone, and is among its caller's until then; a conversation has its place
    /// until its end.
    _held: (Option<CallUnderWay>, Place, Option<Share>),
}

impl http_body::Body for AnswerBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if matches!(polled, Poll::Ready(None)) || self.body.is_end_stream() {
            self.record.has_sent_all();
        }
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            self.goes.iter().for_each(AnswerUnderWay::goes_on);
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
