//! Running the server: what it serves, and an orderly end.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use feast_registry_core::proto::FILE_DESCRIPTOR_SET;
use feast_registry_core::{Error, ErrorKind, Registry, Result};
use futures_util::FutureExt as _;
use futures_util::future::join_all;
use tokio::net::{TcpListener, TcpSocket};
use tonic::codec::CompressionEncoding;
use tonic::service::Routes;

use crate::answers::Answers;
use crate::callers::{Callers, Security};
use crate::connections::{self, Activity, ConnectionLimits, Port};
use crate::guard::{CallLimits, Guarded};
use crate::health::ServerHealth;
use crate::history::History;
use crate::monitoring::Monitoring;
use crate::proto::history;
use crate::proto::history::history_server::HistoryServer;
use crate::proto::registry_server_server::RegistryServerServer;
use crate::record::Recorder;
use crate::request::RequestLimits;
use crate::rest::{Rest, RestOptions, Ui};
use crate::service::Service;
use crate::services::Services;
use crate::socket::{BACKLOG, UnixSocket};
use crate::tls::{Speaks, Tls};

/// The port of Feast's registry server.
pub const DEFAULT_PORT: u16 = 6570;

/// How long the end of a server waits for its audit log.
const AUDIT_ENDS_WITHIN: Duration = Duration::from_secs(5);
/// Within which time a client must have begun to speak HTTP/2.
const GREETS_WITHIN: Duration = Duration::from_secs(10);

/// How a server serves. Made with `default()`, and changed field by field.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ServeOptions {
    /// The largest message that is accepted and sent, in bytes. Default: 128 MiB. (gRPC's own limit is 4 MiB, which a list of
    /// a few thousand views exceeds.)
    pub max_message_size: usize,
    /// How long a request may take whose client sets no deadline, and how long any request may take to come. Default: 30 s.
    pub request_timeout: Duration,
    /// How many connections may be open; more are closed at once. Default: 10,000.
    pub max_connections: usize,
    /// How many streams may follow what is committed (`feast_registry.v1.History/Watch`); more are refused. Default: 1000. One
    /// connection may have 64 of them.
    pub max_watchers: usize,
    /// After which time a client is told to make a new connection. Calls that are under way are finished on the old one.
    /// Default: half an hour. `None`: never.
    pub max_connection_age: Option<Duration>,
    /// After which time of silence a client is asked whether it is still there; it has 20 s to answer. Default: a minute.
    /// `None`: never.
    pub keep_alive: Option<Duration>,
    /// How long the server goes on taking calls after it was told to stop, while it says that it is not ready: so long as a
    /// balancer needs to notice. Default: not at all.
    pub drain: Duration,
    /// How long calls that are under way may take after that. Default: 25 s, since Kubernetes kills after 30 s.
    pub grace: Duration,
    /// Whether the server is ready while its storage is away, since it answers reads from its cache. Default: no.
    pub is_ready_from_cache: bool,
    /// Larger answers are compressed with gzip for clients that offer it, in bytes. Default: none are, since Feast's clients offer
    /// it wherever they are, and beside the server they have larger answers sooner as they are.
    pub compress_above: Option<usize>,
    /// The log says of calls that take so long what they waited for. Default: a second. `None`: it does not.
    pub slow_call: Option<Duration>,
    /// Spans of calls have what OpenTelemetry's semantic conventions ask for. Default: no, since a log shows it too.
    pub is_traced: bool,
    /// What is asked of callers. Default: nothing, so everybody who can connect may do everything.
    pub security: Option<Security>,
    /// Where it is told whether the server is ready, besides gRPC. Default: nowhere.
    pub monitoring: Option<Monitoring>,
    /// What connections are encrypted with. Its files are read anew when they change. Default: they are not encrypted.
    pub tls: Option<Tls>,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            max_message_size: 128 << 20,
            request_timeout: Duration::from_secs(30),
            max_connections: 10_000,
            max_watchers: 1000,
            max_connection_age: Some(Duration::from_secs(1800)),
            keep_alive: Some(Duration::from_secs(60)),
            drain: Duration::ZERO,
            grace: Duration::from_secs(25),
            is_ready_from_cache: false,
            compress_above: None,
            slow_call: Some(Duration::from_secs(1)),
            is_traced: false,
            security: None,
            monitoring: None,
            tls: None,
        }
    }
}

/// Where clients of gRPC come in.
#[derive(Debug)]
#[non_exhaustive]
pub enum Listener {
    /// A port.
    Tcp(TcpListener),
    /// A socket of this machine. What goes over it is never encrypted, since it does not leave the machine.
    Unix(UnixSocket),
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self::Tcp(listener)
    }
}

impl From<UnixSocket> for Listener {
    fn from(socket: UnixSocket) -> Self {
        Self::Unix(socket)
    }
}

/// Where a server is reached.
#[derive(Debug)]
#[non_exhaustive]
pub enum Ports {
    /// gRPC alone, as Feast's SDK speaks it.
    Grpc(Listener),
    /// The REST API alone.
    Rest(TcpListener, RestOptions),
    /// Each on a port of its own.
    Each {
        /// For gRPC.
        grpc: Listener,
        /// For the REST API.
        rest: TcpListener,
        /// How the REST API is served.
        options: RestOptions,
    },
    /// Both on one port: what has the content type of gRPC is for that.
    Shared(TcpListener, RestOptions),
}

impl<L: Into<Listener>> From<L> for Ports {
    fn from(listener: L) -> Self {
        Self::Grpc(listener.into())
    }
}

/// Listens on an address, so that many clients may connect at once.
///
/// # Errors
/// When the address cannot be had.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A server that was just stopped leaves connections behind that keep the port for a minute.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG.into())
}

/// Serves a registry on listening sockets until `stop` completes; then finishes the calls that are under way, for as long as
/// [`ServeOptions`] say, and returns. What waits for a commit (`commit: false`) is written before and after that.
///
/// Besides Feast's service it answers our own, `feast_registry.v1.History`, server reflection (v1 and v1alpha) and `grpc.health.v1.Health`: the server as a whole (the
/// service without a name) and both services are healthy while the storage answers, which is asked every five seconds; the
/// service `liveness` always is. The REST API is Feast's, below `/api/v1` and bare, with the same limits, authentication and log.
///
/// # Errors
/// When reflection cannot be served.
pub async fn serve(
    registry: Registry,
    ports: impl Into<Ports>,
    options: ServeOptions,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let failed = |error: tonic_reflection::server::Error| {
        Error::new(ErrorKind::Unavailable, "reflection cannot be served").with_source(error)
    };
    let monitoring = options.monitoring.unwrap_or_else(|| Monitoring::new(None));
    let (health, health_service) = ServerHealth::new(options.is_ready_from_cache, monitoring).await;
    let watch = tokio::spawn(health.clone().watch(registry.clone()));
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(history::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let answers = Answers::new(options.max_message_size).with_compression(options.compress_above);
    let service = Service::new(registry.clone())
        .with_request_timeout(options.request_timeout)
        .with_divided_answers(answers.clone());
    let history = History::new(registry.clone(), options.request_timeout, options.max_message_size);
    let history = HistoryServer::new(history).max_encoding_message_size(options.max_message_size);
    let encodings = [CompressionEncoding::Gzip, CompressionEncoding::Deflate, CompressionEncoding::Zstd];
    let history = encodings.into_iter().fold(history, HistoryServer::accept_compressed);
    let service = encodings
        .into_iter()
        .fold(RegistryServerServer::new(service), RegistryServerServer::accept_compressed)
        .max_decoding_message_size(options.max_message_size)
        .max_encoding_message_size(options.max_message_size);
    let grpc = Routes::new(service)
        .add_service(history)
        .add_service(health_service)
        .add_service(reflection().build_v1().map_err(failed)?)
        .add_service(reflection().build_v1alpha().map_err(failed)?)
        .prepare();
    let is_guarded = options.security.is_some();
    let rest = |listener: &TcpListener, of: RestOptions| {
        // To whom a name leads that is another's, a certificate does not show.
        let is_local = options.tls.is_none()
            && listener.local_addr().is_ok_and(|address| address.ip().to_canonical().is_loopback());
        if let Some(why) = of.ui.as_ref().filter(|_| is_guarded).and_then(Ui::lacks_login) {
            tracing::warn!("nobody can log in to the web UI: {why}");
        }
        Rest::new(registry.clone(), options.request_timeout, answers.clone(), (is_guarded, is_local), of)
    };
    let ports: Vec<(Listener, Services)> = match ports.into() {
        Ports::Grpc(listener) => vec![(listener, Services::Grpc(grpc))],
        Ports::Rest(listener, of) => {
            let rest = rest(&listener, of);
            vec![(listener.into(), Services::Rest(rest))]
        }
        Ports::Each { grpc: for_grpc, rest: for_rest, options: of } => {
            let rest = rest(&for_rest, of);
            vec![(for_grpc, Services::Grpc(grpc)), (for_rest.into(), Services::Rest(rest))]
        }
        Ports::Shared(listener, of) => {
            let rest = rest(&listener, of);
            vec![(listener.into(), Services::Both(grpc, rest))]
        }
    };

    let recorder = Recorder::new(options.slow_call, options.is_traced);
    let requests = RequestLimits::new(options.max_message_size, registry.clone());
    let audit = options.security.as_ref().and_then(|security| security.audit.clone());
    let callers = options.security.map(Callers::new);
    let calls = CallLimits::new(requests, options.request_timeout, options.max_watchers, recorder, callers);
    let stop = async {
        stop.await;
        watch.abort();
        // Or it might say that the server is ready after all.
        drop(watch.await);
        health.is_stopping().await;
        if !options.drain.is_zero() {
            tracing::info!("stopping in {} s; health says so already", options.drain.as_secs_f64());
            tokio::time::sleep(options.drain).await;
        }
        tracing::info!("stopping: finishing the requests that are under way");
        // What was applied with `commit: false` and never committed. Clients may take all the time of grace.
        let registry = registry.clone();
        tokio::spawn(async move { commit(&registry).await });
    };
    let limits = ConnectionLimits {
        connections: options.max_connections,
        age: options.max_connection_age,
        keep_alive: options.keep_alive,
        grace: options.grace,
        greeting: GREETS_WITHIN,
    };
    let permits = Port::permits(options.max_connections);
    let has_stopped = stop.shared();
    let serving = join_all(ports.into_iter().map(|(listener, services)| {
        let speaks = if services.takes_http1() { Speaks::Either } else { Speaks::Http2 };
        let port = Port { listener, speaks, tls: options.tls.clone(), permits: Arc::clone(&permits) };
        let calls = Arc::clone(&calls);
        let on_connection =
            move |activity: Arc<Activity>| Guarded { services: services.clone(), limits: Arc::clone(&calls), activity };
        connections::serve(port, limits, on_connection, has_stopped.clone())
    }));
    let serving = async { serving.await.into_iter().sum::<usize>() };
    let unfinished = match &options.tls {
        None => serving.await,
        Some(tls) => tokio::select! {
            unfinished = serving => unfinished,
            never = tls.keep_fresh() => match never {},
        },
    };
    if unfinished > 0 {
        let seconds = options.grace.as_secs_f64();
        tracing::warn!(connections = unfinished, "some requests were not finished within {seconds} s");
    }
    commit(&registry).await;
    if let Some(audit) = audit {
        // Nobody may read it.
        if tokio::time::timeout(AUDIT_ENDS_WITHIN, audit.flush()).await.is_err() {
            tracing::error!("the audit log cannot be written, and events that wait for that are lost");
        }
    }
    Ok(())
}

async fn commit(registry: &Registry) {
    if let Err(error) = registry.commit().await {
        tracing::error!(%error, "not everything that waited for a commit was written");
    }
}
