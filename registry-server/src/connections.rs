//! The connections of a server: how many there may be, how long they live, and how they end.
//!
//! A connection costs memory and a file descriptor, whoever made it and whatever for. So each must say something soon, is
//! asked now and then whether its client is still there, and is told after a while to make way for a new one: behind a
//! balancer that deals out connections, a server that was added later would get no traffic otherwise.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use feast_registry_core::access::Identity;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tonic::body::Body;
use tonic::codegen::{Service, http};

use crate::authority::Authorities;
use crate::complaints::Complaint;
use crate::metrics::{ConnectionMetrics, OpenConnection};
use crate::parts::READ_WITHIN;
use crate::peer::Peer;
use crate::serve::Listener;
use crate::tls::{self, Speaks, Tls};

/// What a client sends in any case: the preface of HTTP/2 and the head of its settings.
const GREETING: usize = 24 + 9;
/// The same of HTTP/1.1: the shortest request.
const HTTP1_GREETING: usize = "GET / HTTP/1.1\r\n\r\n".len();
/// How many bytes the head of a request may have, and an answer before its client has taken them.
const HTTP1_BUFFER: usize = 128 * 1024;
/// How long a connection of HTTP/1.1 is kept without a request, where clients are never asked whether they are there.
const IDLE_FOR: Duration = Duration::from_secs(60);
/// How long the answer to a ping may take.
const PONG_WITHIN: Duration = Duration::from_secs(20);
/// How long a connection that was told to go may finish what is under way on it.
const GOES_WITHIN: Duration = Duration::from_secs(300);
/// How long a connection without calls may take to end in good order when the server stops.
const LINGERS_FOR: Duration = Duration::from_millis(500);
/// How many streams of one connection may be open. It is what gRPC's other servers allow.
const MAX_STREAMS: u32 = 128;
/// How many of them may follow what is committed: the others are left for calls.
const WATCHERS: usize = 64;
/// How many streams may be reset by a client before they were looked at. A client that was stopped for a while may reset many
/// at once and mean no harm.
const MAX_RESETS: usize = 1024;
/// How many bytes of an answer are handed to a stream before its client has taken them.
const SEND_BUFFER: usize = 128 * 1024;
/// How long to wait before the next connection is taken, when the system had nothing left for one.
pub(crate) const PAUSES_FOR: Duration = Duration::from_millis(250);

/// What connections may cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConnectionLimits {
    /// How many there may be; more are closed at once.
    pub(crate) connections: usize,
    /// After which time a client is told to make a new one; each takes up to a tenth less, so that they do not come together.
    /// `None`: never.
    pub(crate) age: Option<Duration>,
    /// After which time without a frame a client is asked whether it is there. `None`: never.
    pub(crate) keep_alive: Option<Duration>,
    /// How long calls that are under way may take when the server stops.
    pub(crate) grace: Duration,
    /// Within which time a client must have begun to speak HTTP/2; and before that, if the connection is encrypted, have agreed on
    /// how.
    pub(crate) greeting: Duration,
}

/// What happens on a connection.
#[derive(Debug)]
pub(crate) struct Activity {
    bytes_received: AtomicUsize,
    /// How many calls are under way, whose requests have come whole and whose answers have not gone whole.
    calls: watch::Sender<usize>,
    /// How many answers have begun and have not gone whole, of calls and of conversations, which are no calls under way.
    answers: AtomicUsize,
    conversations: AtomicUsize,
    /// How many parts of answers have gone, or were let go.
    progress: AtomicUsize,
    peer: Peer,
    /// Who its client is by the certificate, known before its first call.
    certificate: OnceLock<Arc<Identity>>,
    is_encrypted: AtomicBool,
    /// Why its streams that go on for as long as their clients like are to end, if they are.
    goes: watch::Sender<Option<Goes>>,
    watchers: Arc<Semaphore>,
}

/// Why a connection takes no more calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goes {
    /// It was open for as long as any may be.
    Old,
    /// The server stops.
    Stopping,
}

/// Tells when a connection goes.
#[derive(Debug, Clone)]
pub(crate) struct Going(watch::Receiver<Option<Goes>>);

impl Going {
    /// Completes when the connection goes, with why. Cancel-safe.
    pub(crate) async fn goes(&mut self) -> Goes {
        match self.0.wait_for(Option::is_some).await {
            Ok(goes) => (*goes).unwrap_or(Goes::Stopping),
            // The connection is gone.
            Err(_) => Goes::Stopping,
        }
    }
}

/// An answer on its way, until this is dropped.
#[derive(Debug)]
pub(crate) struct AnswerUnderWay {
    activity: Arc<Activity>,
    is_conversation: bool,
}

/// A call under way on a connection, until this is dropped.
#[derive(Debug)]
pub(crate) struct CallUnderWay(Arc<Activity>);

impl Activity {
    pub(crate) fn new(peer: Peer) -> Arc<Self> {
        Arc::new(Self {
            bytes_received: AtomicUsize::new(0),
            calls: watch::Sender::new(0),
            answers: AtomicUsize::new(0),
            conversations: AtomicUsize::new(0),
            progress: AtomicUsize::new(0),
            peer,
            certificate: OnceLock::new(),
            is_encrypted: AtomicBool::new(false),
            goes: watch::Sender::new(None),
            watchers: Arc::new(Semaphore::new(WATCHERS)),
        })
    }

    /// Where it comes from.
    pub(crate) fn peer(&self) -> Peer {
        self.peer
    }

    /// Who its client is by the certificate, if that is to say so (`--client-cert-identity`) and names somebody.
    pub(crate) fn certificate(&self) -> Option<&Arc<Identity>> {
        self.certificate.get()
    }

    /// Whether it is TLS.
    pub(crate) fn is_encrypted(&self) -> bool {
        self.is_encrypted.load(Ordering::Relaxed)
    }

    /// Tells when it goes.
    pub(crate) fn going(&self) -> Going {
        Going(self.goes.subscribe())
    }

    /// A place for a stream that goes on for as long as its client likes; none if the connection has as many as it may.
    pub(crate) fn watcher(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.watchers).try_acquire_owned().ok()
    }

    /// Counts a call.
    pub(crate) fn begin_call(self: &Arc<Self>) -> CallUnderWay {
        self.calls.send_modify(|calls| *calls += 1);
        CallUnderWay(Arc::clone(self))
    }

    /// Counts an answer of a call.
    pub(crate) fn begin_answer(self: &Arc<Self>) -> AnswerUnderWay {
        self.answers.fetch_add(1, Ordering::Relaxed);
        AnswerUnderWay { activity: Arc::clone(self), is_conversation: false }
    }

    /// Counts the answers of a conversation.
    pub(crate) fn begin_conversation(self: &Arc<Self>) -> AnswerUnderWay {
        self.conversations.fetch_add(1, Ordering::Relaxed);
        AnswerUnderWay { activity: Arc::clone(self), is_conversation: true }
    }

    /// Completes when answers have been under way for a while of which the client reads nothing, and no other call is being
    /// done, which may be another client's behind the same proxy. HTTP/2 takes no part of an answer that its client has no room
    /// for, so nothing else would notice.
    async fn is_unread(&self) {
        let mut before = None;
        loop {
            sleep(READ_WITHIN).await;
            let answers = self.answers.load(Ordering::Relaxed);
            let conversations = self.conversations.load(Ordering::Relaxed);
            let all_are_answered = *self.calls.borrow() <= answers;
            let now = (answers + conversations > 0 && all_are_answered).then(|| self.progress.load(Ordering::Relaxed));
            if now.is_some() && now == before {
                return;
            }
            before = now;
        }
    }

    async fn no_call(&self) {
        // It fails when the sender is gone, which is here.
        drop(self.calls.subscribe().wait_for(|calls| *calls == 0).await);
    }

    fn has_greeted(&self, speaks: Speaks) -> bool {
        let greeting = if speaks == Speaks::Http2 { GREETING } else { HTTP1_GREETING };
        self.bytes_received.load(Ordering::Relaxed) >= greeting
    }
}

impl Drop for CallUnderWay {
    fn drop(&mut self) {
        self.0.calls.send_modify(|calls| *calls -= 1);
    }
}

impl AnswerUnderWay {
    /// Notes that a part of it goes.
    pub(crate) fn goes_on(&self) {
        self.activity.progress.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for AnswerUnderWay {
    fn drop(&mut self) {
        self.goes_on();
        let counted = if self.is_conversation { &self.activity.conversations } else { &self.activity.answers };
        counted.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Where connections come in.
pub(crate) struct Port {
    pub(crate) listener: Listener,
    pub(crate) speaks: Speaks,
    pub(crate) tls: Option<Tls>,
    /// As many as there may be connections, which the ports of a server share.
    pub(crate) permits: Arc<Semaphore>,
}

impl Port {
    /// A place for each of so many connections.
    pub(crate) fn permits(connections: usize) -> Arc<Semaphore> {
        Arc::new(Semaphore::new(connections.min(Semaphore::MAX_PERMITS)))
    }
}

/// Takes connections until `stop` completes; then has all of them end, in the time of grace. `service` makes what answers on
/// a connection, before anything is known of its client but the address. Returns how many had not ended, which are cut.
pub(crate) async fn serve<S>(
    Port { listener, speaks, tls, permits }: Port,
    limits: ConnectionLimits,
    service: impl Fn(Arc<Activity>) -> S,
    stop: impl Future<Output = ()>,
) -> usize
where
    S: Service<http::Request<Incoming>, Response = http::Response<Body>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send + Sync,
{
    let stopping = watch::Sender::new(false);
    let mut connections = JoinSet::new();
    let (no_file, too_many) = (Complaint::new(), Complaint::new());
    let metrics = ConnectionMetrics::new();
    let mut stop = pin!(stop);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut stop => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener) => accepted,
        };
        let (connection, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if is_of_one_connection(&error) => continue,
            Err(error) => {
                metrics.had_no_file();
                no_file.say(|more| {
                    tracing::warn!(
                        %error,
                        "no connection can be taken; if it is the number of open files, raise its limit (ulimit -n) or \
                         lower --max-connections{more}"
                    );
                });
                tokio::select! {
                    () = &mut stop => break,
                    () = sleep(PAUSES_FOR) => continue,
                }
            }
        };
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
            let limit = limits.connections;
            metrics.was_beyond_limit();
            too_many.say(|more| {
                tracing::warn!(limit, "a connection was closed, since as many are open as there may be{more}");
            });
            continue;
        };
        let activity = Activity::new(peer);
        let service = service(Arc::clone(&activity));
        let held = (permit, metrics.opened());
        let stopping = stopping.subscribe();
        match (connection, &tls) {
            (Connection::Tcp(tcp), Some(tls)) => {
                let (tls, limits) = (tls.clone(), (limits, speaks));
                connections.spawn(serve_encrypted(tcp, tls, limits, service, activity, stopping, held))
            }
            (Connection::Tcp(tcp), None) => {
                let tcp = Counted { inner: tcp, activity, is_plain: true, speaks, authorities: None };
                connections.spawn(serve_on(tcp, limits, service, stopping, held))
            }
            // What goes over it does not leave the machine.
            (Connection::Unix(unix), _) => {
                let authorities = Some(Authorities::new());
                let unix = Counted { inner: unix, activity, is_plain: true, speaks, authorities };
                connections.spawn(serve_on(unix, limits, service, stopping, held))
            }
        };
    }
    // Whoever connects from now on is told so at once, and may find another server.
    drop(listener);
    stopping.send_replace(true);
    let all = async { while connections.join_next().await.is_some() {} };
    drop(timeout(limits.grace, all).await);
    connections.len()
}

/// Serves on a connection that is encrypted first. Until then it is one of those that there may be, and has as much time as for
/// its first words.
async fn serve_encrypted<S>(
    connection: TcpStream,
    tls: Tls,
    (limits, speaks): (ConnectionLimits, Speaks),
    service: S,
    activity: Arc<Activity>,
    mut stopping: watch::Receiver<bool>,
    held: (OwnedSemaphorePermit, OpenConnection),
) where
    S: Service<http::Request<Incoming>, Response = http::Response<Body>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send + Sync,
{
    let peer = activity.peer;
    let encrypted = tokio::select! {
        encrypted = tls.accept(connection, peer, speaks, limits.greeting) => encrypted,
        // Nothing was asked for yet.
        _ = stopping.wait_for(|is_stopping| *is_stopping) => None,
    };
    let Some(inner) = encrypted else { return };
    activity.is_encrypted.store(true, Ordering::Relaxed);
    if let Some(identity) = tls.identity(&inner, peer) {
        activity.certificate.get_or_init(|| identity);
    }
    let connection = Counted { inner, activity, is_plain: false, speaks, authorities: None };
    serve_on(connection, limits, service, stopping, held).await;
}

async fn serve_on<C, S>(
    connection: Counted<C>,
    limits: ConnectionLimits,
    service: S,
    mut stopping: watch::Receiver<bool>,
    _held: (OwnedSemaphorePermit, OpenConnection),
) where
    C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<http::Request<Incoming>, Response = http::Response<Body>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send + Sync,
{
    let activity = Arc::clone(&connection.activity);
    let speaks = connection.speaks;
    let io = TokioIo::new(connection);
    let mut http = auto::Builder::new(TokioExecutor::new());
    if speaks == Speaks::Http2 {
        http = http.http2_only();
    }
    http.http1()
        .timer(TokioTimer::new())
        // Between two requests too: a client that has no more to ask makes way.
        .header_read_timeout(limits.keep_alive.unwrap_or(IDLE_FOR).max(limits.greeting))
        .max_buf_size(HTTP1_BUFFER);
    http.http2()
        .timer(TokioTimer::new())
        // Lists are large; the default window of 64 KiB would have them wait for the client every few views.
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .max_concurrent_streams(MAX_STREAMS)
        .max_pending_accept_reset_streams(MAX_RESETS)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(limits.keep_alive)
        .keep_alive_timeout(PONG_WITHIN);
    let mut connection = pin!(http.serve_connection(io, TowerToHyperService::new(service)));

    let mut has_stopped = stopping.clone();
    let mut has_nothing_to_do = pin!(async {
        drop(has_stopped.wait_for(|is_stopping| *is_stopping).await);
        // Calls that have been sent before may come yet, and the last answer has to reach the client.
        sleep(LINGERS_FOR).await;
        activity.no_call().await;
        sleep(LINGERS_FOR).await;
        activity.no_call().await;
    });
    let mut is_unread = pin!(activity.is_unread());
    let mut greeting = pin!(sleep(limits.greeting));
    let mut age = pin!(sleep(limits.age.map_or(Duration::MAX, |age| age.mul_f64(1.0 - fastrand::f64() / 10.0))));
    let (mut has_greeted, mut is_old, mut is_stopping) = (false, false, false);
    loop {
        tokio::select! {
            ended = &mut connection => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection ended");
                }
                return;
            }
            () = &mut greeting, if !has_greeted => {
                has_greeted = activity.has_greeted(speaks);
                if !has_greeted {
                    tracing::debug!("a connection on which nothing was said was closed");
                    return;
                }
            }
            () = &mut age => {
                if is_old {
                    tracing::debug!("a connection was cut that should have ended long ago");
                    return;
                }
                is_old = true;
                activity.goes.send_replace(Some(Goes::Old));
                connection.as_mut().graceful_shutdown();
                age.as_mut().reset(Instant::now() + GOES_WITHIN);
            }
            _ = stopping.wait_for(|is_stopping| *is_stopping), if !is_stopping => {
                is_stopping = true;
                activity.goes.send_replace(Some(Goes::Stopping));
                connection.as_mut().graceful_shutdown();
            }
            () = &mut is_unread => {
                static UNREAD: Complaint = Complaint::new();
                UNREAD.say(|more| {
                    let seconds = READ_WITHIN.as_secs();
                    tracing::warn!("a connection was closed, since its client read nothing of its answers for {seconds} s{more}");
                });
                return;
            }
            () = &mut has_nothing_to_do => return,
        }
    }
}

/// A connection that has come in.
enum Connection {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Takes the next connection. Cancel-safe.
async fn accept(listener: &Listener) -> io::Result<(Connection, Peer)> {
    match listener {
        Listener::Tcp(listener) => {
            let (connection, address) = listener.accept().await?;
            // Without it an answer of more than one segment waits 40 ms for the client's acknowledgement of the first. A
            // connection for which it cannot be set is gone.
            connection.set_nodelay(true).map_err(|_| io::ErrorKind::ConnectionAborted)?;
            Ok((Connection::Tcp(connection), Peer::Address(address.ip())))
        }
        Listener::Unix(socket) => {
            let (connection, _) = socket.listener().accept().await?;
            let user = connection.peer_cred().map_err(|_| io::ErrorKind::ConnectionAborted)?.uid();
            Ok((Connection::Unix(connection), Peer::User(user)))
        }
    }
}

/// Whether a connection failed before it was taken, which says nothing of others.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

/// A connection whose bytes are counted as they come.
struct Counted<C> {
    inner: C,
    activity: Arc<Activity>,
    /// Whether it is not encrypted.
    is_plain: bool,
    speaks: Speaks,
    /// Where clients may send authorities that h2 does not take.
    authorities: Option<Authorities>,
}

impl<C: AsyncRead + Unpin> AsyncRead for Counted<C> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { inner, authorities, .. } = &mut *self;
        let (inner, before) = (Pin::new(inner), buffer.filled().len());
        let polled = match authorities {
            Some(authorities) => authorities.poll_read(inner, cx, buffer),
            None => inner.poll_read(cx, buffer),
        };
        let received = &buffer.filled()[before..];
        let earlier = self.activity.bytes_received.fetch_add(received.len(), Ordering::Relaxed);
        if earlier == 0 && self.is_plain && received.first() == Some(&tls::FIRST_BYTE) {
            tls::complain_of_tls_without_it(self.activity.peer, self.speaks);
        }
        polled
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Counted<C> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
