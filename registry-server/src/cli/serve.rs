//! `feast-registry serve`.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Error, Result, bail};
use clap::Args;
use feast_registry::config::ServerConfig;
use feast_registry::{ErrorKind, Registry, RegistryConfig};
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Cli;
use super::files;
use super::listen::{SocketArgs, listen};
use super::location::Location;
use super::protect;
use super::rest::RestArgs;
use super::security::{self, SecurityArgs};
use super::telemetry::Telemetry;
use super::unused;
use crate::{DEFAULT_PORT, Listener, Metrics, Monitoring, Ports, Security, ServeOptions, Tls, TlsFiles, Ui};

/// How long to wait before a storage that did not answer at start is tried again: at first, and at the most.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Serve a registry to Feast's SDK, and over HTTP.
///
/// Point Feast at it in feature_store.yaml:
///
///   registry:
///     registry_type: remote
///     path: localhost:6570
///
/// With --listen unix:/run/feast/registry.sock it is on a socket of this machine instead: `path: unix:///run/feast/registry.sock`.
///
/// With --rest-api, Feast's REST API is served too: http://localhost:6572/api/v1; its routes are listed at http://localhost:6572/docs.
///
/// With FEAST_PROTECTED_PROJECT=true in the environment, the project of the feature_store.yaml is protected against deletion, and left out of
/// lists; with any other value it is no longer.
///
/// Stop it with Ctrl-C or SIGTERM: requests that are under way are finished first. SIGHUP has it read the files of --cert, --key
/// and --client-ca anew, which it does by itself too when they change.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, about = "Serve a registry to Feast's SDK, and over HTTP")]
pub(crate) struct Serve {
    #[command(flatten)]
    pub(super) location: Location,

    /// The address to listen on; 0.0.0.0 or :: for all. Mind who can reach it, unless callers have to say who they are.
    #[arg(long, default_value = "127.0.0.1")]
    host: String,

    /// The port to listen on for gRPC; 0 takes a free one, which the start-up line names.
    #[arg(long, default_value_t = DEFAULT_PORT, conflicts_with = "listen")]
    port: u16,

    #[command(flatten)]
    socket: SocketArgs,

    #[command(flatten)]
    rest: RestArgs,

    /// Encrypt with TLS: the server's certificate, in PEM, and after it those of its issuers that clients do not have.
    ///
    /// --metrics-addr is encrypted with it too. The files are read anew when they change, as when cert-manager renews them, and
    /// at SIGHUP; connections go on meanwhile. What cannot be used is told in the log, and what was there before stays.
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,

    /// The private key of the certificate, in PEM, not encrypted.
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,

    /// Take only clients with a certificate that one of this file has signed (mutual TLS), in PEM.
    ///
    /// No certificate is asked for on the port of --metrics-addr, since kubelets and Prometheus have none.
    #[arg(long, value_name = "FILE", requires = "cert")]
    client_ca: Option<PathBuf>,

    /// Take who a client is from its certificate: the common name (CN) is the user, the organizations (O) are the groups.
    ///
    /// As in Kubernetes. A certificate without a common name, or with several, names nobody.
    #[arg(long, requires = "client_ca")]
    client_cert_identity: bool,

    /// The largest message that is accepted and sent, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = ServeOptions::default().max_message_size)]
    max_message_size: usize,

    /// Compress answers of more than so many bytes with gzip, for clients that offer it; 0 means none.
    ///
    /// It pays where the network to the clients is slow: a list of 250 KB becomes one of 31 KB, for 0.4 ms more of the server's
    /// processor and as much of the client's. Answers of less than 32 KiB are never compressed.
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    compress_above: usize,

    /// The time limit for requests whose clients set no deadline, in seconds.
    ///
    /// What still waits when it is over is given up, and nothing of it is done. A client's own deadline counts instead, if it
    /// sets one. A request must also have arrived completely within this time.
    #[arg(long, value_name = "SECONDS", default_value_t = ServeOptions::default().request_timeout.as_secs(), value_parser = clap::value_parser!(u64).range(1..=86_400))]
    request_timeout: u64,

    /// How many connections may be open at once; more are closed as they come.
    ///
    /// If the system allows the process fewer open files (`ulimit -n`), there may be fewer.
    #[arg(long, value_name = "NUMBER", default_value_t = ServeOptions::default().max_connections, value_parser = one_or_more)]
    max_connections: usize,

    /// How many streams may follow what is committed at once (feast_registry.v1.History/Watch); more are refused.
    #[arg(long, value_name = "NUMBER", default_value_t = ServeOptions::default().max_watchers)]
    max_watchers: usize,

    /// After how many seconds a client is told to connect anew; 0 means never.
    ///
    /// Behind a balancer that deals out connections, a server that is added later gets no calls until clients connect
    /// anew. Calls that are under way are finished first.
    #[arg(long, value_name = "SECONDS", default_value_t = seconds(ServeOptions::default().max_connection_age), value_parser = clap::value_parser!(u64).range(..=31_536_000))]
    max_connection_age: u64,

    /// After how many seconds of silence a client is asked whether it is still there; 0 means never.
    #[arg(long, value_name = "SECONDS", default_value_t = seconds(ServeOptions::default().keep_alive), value_parser = clap::value_parser!(u64).range(..=86_400))]
    keep_alive: u64,

    /// How many seconds to go on taking calls after SIGTERM, while health says NOT_SERVING.
    ///
    /// Set it to the time that your load balancer needs to notice.
    #[arg(long, value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=3600))]
    drain: u64,

    /// How many seconds to wait after SIGTERM (and after --drain) for calls that are under way.
    ///
    /// Kubernetes kills a process 30 s after SIGTERM, unless terminationGracePeriodSeconds says otherwise.
    #[arg(long, value_name = "SECONDS", default_value_t = ServeOptions::default().grace.as_secs(), value_parser = clap::value_parser!(u64).range(..=86_400))]
    grace: u64,

    /// Be ready while the storage is away, since reads that allow the cache are answered.
    ///
    /// The health of the service `liveness` never depends on the storage.
    #[arg(long)]
    ready_from_cache: bool,

    /// How many seconds to wait, at start, for a storage that does not answer; 0 means not at all.
    ///
    /// Without it, a server that starts before its database exits with an error, and has to be started again.
    #[arg(long, value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=31_536_000))]
    wait_for_storage: u64,

    /// Serve /metrics (for Prometheus), /livez and /readyz over HTTP on this address, as 127.0.0.1:9570; with --cert over HTTPS.
    ///
    /// There is no authentication: mind who can reach it.
    #[arg(long, value_name = "HOST:PORT", value_parser = host_and_port)]
    metrics_addr: Option<(String, u16)>,

    /// Log calls that take so many seconds, with what they waited for; 0 means none.
    #[arg(long, value_name = "SECONDS", default_value_t = ServeOptions::default().slow_call.map_or(0.0, |time| time.as_secs_f64()), value_parser = some_seconds)]
    slow_call: f64,

    #[command(flatten)]
    security: SecurityArgs,

    #[command(flatten)]
    telemetry: Telemetry,
}

impl Serve {
    pub(super) async fn run(self, cli: &Cli) -> Result<ExitCode> {
        // Signals are caught from before the start-up line on, so that whoever has read it may send one.
        let mut signals = Signals::caught()?;
        let mut telemetry = self.telemetry.start()?;
        let (code, failure) = match self.serve(cli, &mut signals).await {
            Ok(Ended::InOrder) => {
                tracing::info!("stopped");
                (ExitCode::SUCCESS, None)
            }
            Ok(Ended::BeforeItWasOpen) => {
                tracing::info!("stopped before the registry was open");
                (ExitCode::SUCCESS, None)
            }
            Ok(Ended::AtOnce) => {
                // Not returned as an error: that is written to stderr, which may have nobody who reads it.
                tracing::error!("stopped at once by a second signal; requests that were under way are lost");
                telemetry.end_log(None).await;
                return Ok(ExitCode::FAILURE);
            }
            Err(error) => (ExitCode::FAILURE, Some(error)),
        };
        // Whoever sends another signal does not want to wait for a collector, or for who reads the log.
        let ending = async {
            telemetry.end_traces().await;
            telemetry.end_log(failure).await;
        };
        tokio::select! {
            () = ending => Ok(code),
            () = signals.next() => Ok(ExitCode::FAILURE),
        }
    }

    async fn serve(&self, cli: &Cli, signals: &mut Signals) -> Result<Ended> {
        let config = self.location.read(cli, |warning| tracing::warn!("{warning}"))?;
        let socket = self.socket.listen()?;
        let mut options = self.options();
        let tls = self.tls_files(&config.server);
        let has_identities = tls.as_ref().is_some_and(|files| files.client_certificate_is_identity);
        options.security = self.security.of(&config, has_identities)?;
        options.tls = open_tls(tls).await?;
        if socket.is_some() && options.tls.as_ref().is_some_and(Tls::is_mutual) {
            bail!(
                "--listen: clients of a socket show no certificate, and a client CA (--client-ca, `registry_server.tls.client_ca`) asks \
                 for one; leave it out, or listen on a port"
            );
        }
        let _read_anew = signals.read_anew(options.tls.clone(), options.security.clone());
        // Before the registry is opened, which may make it: a start that fails leaves nothing behind.
        let unused = self.socket.until_unused().transpose()?;
        let grpc = socket.map(Listener::from);
        let ports = self.rest.listen(&self.host, grpc.ok_or(self.port), &config).await?;
        if let Some(security) = &options.security {
            tokio::spawn(security.authentication.clone().follow_files());
        }
        options.monitoring = self.monitoring(options.tls.clone()).await?;
        let registry = tokio::select! {
            opened = self.open(cli, &config.registry, options.monitoring.as_ref()) => opened?,
            () = signals.next() => return Ok(Ended::BeforeItWasOpen),
        };
        protect::by_environment(&registry, config.project.as_deref()).await?;
        say_what_is_served(&registry.location(), &ports, &options)?;
        notify(NotifyState::Ready);
        let (stop, is_stopped) = tokio::sync::oneshot::channel();
        let is_stopped = async {
            // The sender is kept until the end.
            drop(is_stopped.await);
        };
        let serving = async {
            crate::serve(registry.clone(), ports, options, is_stopped).await?;
            // What waited has been written by now, or logged.
            drop(registry.close().await);
            Ok(Ended::InOrder)
        };
        let mut last_user = None;
        let stopping_twice = async {
            tokio::select! {
                () = signals.next() => {}
                // Whoever comes from now on waits for this process to end.
                held = unused::or_never(unused) => {
                    tracing::info!("nobody has used it for as long as --until-unused says");
                    last_user = Some(held);
                }
            }
            notify(NotifyState::Stopping);
            stop.send(()).ok();
            signals.next().await;
        };
        let ended = tokio::select! {
            ended = serving => ended,
            () = stopping_twice => Ok(Ended::AtOnce),
        };
        drop(last_user);
        ended
    }

    /// Opens the registry; waits for its storage, if that was asked for.
    async fn open(&self, cli: &Cli, config: &RegistryConfig, monitoring: Option<&Monitoring>) -> Result<Registry> {
        let until = Instant::now() + Duration::from_secs(self.wait_for_storage);
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match cli.schemes.open(config).await {
                Ok(registry) => return Ok(registry),
                Err(error) => error,
            };
            let may_come = matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::DeadlineExceeded);
            let left = until.saturating_duration_since(Instant::now());
            if !may_come || left.is_zero() {
                return Err(match may_come {
                    true => Error::new(error)
                        .context("the storage does not answer; --wait-for-storage waits for it at start"),
                    false => error.into(),
                });
            }
            if let Some(monitoring) = monitoring {
                monitoring.is_waiting("it is starting, and the storage does not answer");
            }
            tracing::warn!(
                %error,
                "the storage does not answer; trying again, for {} s more (--wait-for-storage)",
                left.as_secs()
            );
            tokio::time::sleep(pause.min(left)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// What answers supervisors and Prometheus, from before the registry is opened until the process ends.
    async fn monitoring(&self, tls: Option<Tls>) -> Result<Option<Monitoring>> {
        let Some((host, port)) = &self.metrics_addr else { return Ok(None) };
        let listener = listen(["--metrics-addr"; 2], host, *port).await?;
        let over = if tls.is_some() { "HTTPS" } else { "HTTP" };
        tracing::info!("metrics and health over {over} on {}", listener.local_addr()?);
        let monitoring = Monitoring::new(Some(Metrics::install()?));
        let monitoring = match tls {
            Some(tls) => monitoring.with_tls(tls),
            None => monitoring,
        };
        tokio::spawn(monitoring.clone().serve(listener));
        Ok(Some(monitoring))
    }

    /// What connections are to be encrypted with: what the command line says, or else the configuration.
    fn tls_files(&self, server: &ServerConfig) -> Option<TlsFiles> {
        let (Some(certificate), Some(key)) = (&self.cert, &self.key) else {
            return server.tls.as_ref().map(security::tls_files);
        };
        let mut files = TlsFiles::new(certificate, key);
        files.client_ca.clone_from(&self.client_ca);
        files.client_certificate_is_identity = self.client_cert_identity;
        Some(files)
    }

    fn options(&self) -> ServeOptions {
        let unless_zero = |seconds| (seconds > 0).then(|| Duration::from_secs(seconds));
        let options = ServeOptions {
            max_message_size: self.max_message_size,
            compress_above: (self.compress_above > 0).then_some(self.compress_above),
            request_timeout: Duration::from_secs(self.request_timeout),
            max_connections: self.max_connections.min(files::room_for_connections()),
            max_connection_age: unless_zero(self.max_connection_age),
            keep_alive: unless_zero(self.keep_alive),
            drain: Duration::from_secs(self.drain),
            grace: Duration::from_secs(self.grace),
            is_ready_from_cache: self.ready_from_cache,
            is_traced: self.telemetry.is_tracing(),
            slow_call: (self.slow_call > 0.0).then(|| Duration::from_secs_f64(self.slow_call)),
            ..ServeOptions::default()
        };
        if options.max_connections < self.max_connections {
            let limit = options.max_connections;
            tracing::warn!("only {limit} connections are taken, since the process may not open more files (ulimit -n)");
        }
        options
    }
}

async fn open_tls(files: Option<TlsFiles>) -> Result<Option<Tls>> {
    let Some(files) = files else { return Ok(None) };
    // A network file system may take its time.
    Ok(Some(tokio::task::spawn_blocking(move || Tls::open(files)).await??))
}

/// The start-up lines, and before them what whoever reads them should know: this is the place for both.
fn say_what_is_served(location: &str, ports: &Ports, options: &ServeOptions) -> Result<()> {
    let [grpc, rest] = match ports {
        Ports::Grpc(listener) => [Some(Place::of(listener)?), None],
        Ports::Rest(listener, _) => [None, Some(Place::Address(listener.local_addr()?))],
        Ports::Each { grpc, rest, .. } => [Some(Place::of(grpc)?), Some(Place::Address(rest.local_addr()?))],
        Ports::Shared(listener, _) => {
            let place = Place::Address(listener.local_addr()?);
            [Some(place.clone()), Some(place)]
        }
    };
    let for_others = [&grpc, &rest].into_iter().flatten().find_map(Place::for_others);
    let how = match (&options.tls, &grpc) {
        (_, Some(Place::Socket(_))) => "over a socket",
        (Some(tls), _) if tls.is_mutual() => "with TLS, to clients with a certificate,",
        (Some(_), _) => "with TLS",
        (None, _) => "without TLS",
    };
    if options.tls.is_none() && for_others.is_some() {
        tracing::warn!(
            "calls from other machines are not encrypted: whoever is on the way can read and change them. Encrypt them with \
             --cert and --key, or listen on 127.0.0.1 behind a proxy that does"
        );
    }
    let who = match &options.security {
        Some(_) => "and with authentication",
        None => "and without authentication",
    };
    if let (None, Some(address)) = (&options.security, for_others) {
        tracing::warn!(
            "whoever can reach {address} may do everything, since nobody is asked who they are: set `auth` in the feature_store.yaml, \
             or give --tokens"
        );
    }
    // The address is the last word, for scripts that look for it.
    if let Some(address) = rest {
        let over = if options.tls.is_some() { "HTTPS" } else { "HTTP" };
        if let Some(ui) = ui_of(ports) {
            tracing::info!("web UI from {} over {over} on {address}", ui.folder().display());
        }
        tracing::info!("REST API over {over} on {address}");
    }
    match grpc {
        Some(place) => tracing::info!("serving {location} {how} {who} on {place}"),
        None => tracing::info!("serving {location} {how} {who}, REST alone"),
    }
    Ok(())
}

/// Where something is served, as clients name it.
#[derive(Debug, Clone)]
enum Place {
    Address(SocketAddr),
    Socket(String),
}

impl Place {
    fn of(listener: &Listener) -> Result<Self> {
        Ok(match listener {
            Listener::Tcp(listener) => Self::Address(listener.local_addr()?),
            Listener::Unix(socket) => Self::Socket(socket.address()),
        })
    }

    /// The address, if other machines may reach it.
    fn for_others(&self) -> Option<SocketAddr> {
        match self {
            Self::Address(address) if !address.ip().to_canonical().is_loopback() => Some(*address),
            Self::Address(_) | Self::Socket(_) => None,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Socket(address) => address.fmt(f),
        }
    }
}

fn ui_of(ports: &Ports) -> Option<&Ui> {
    match ports {
        Ports::Grpc(_) => None,
        Ports::Rest(_, rest) | Ports::Shared(_, rest) | Ports::Each { options: rest, .. } => rest.ui.as_ref(),
    }
}

/// How serving has come to an end.
enum Ended {
    InOrder,
    BeforeItWasOpen,
    /// By a second signal.
    AtOnce,
}

/// What asks the process to end, or to read its files anew.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// None once somebody waits for it.
    hangup: Option<Signal>,
}

impl Signals {
    fn caught() -> Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("SIGTERM cannot be caught")?,
            interrupt: signal(SignalKind::interrupt()).context("Ctrl-C cannot be caught")?,
            // It would end the process.
            hangup: Some(signal(SignalKind::hangup()).context("SIGHUP cannot be caught")?),
        })
    }

    /// Has files be read anew at each SIGHUP, until what is returned is dropped.
    fn read_anew(&mut self, tls: Option<Tls>, security: Option<Security>) -> JoinSet<()> {
        let mut task = JoinSet::new();
        let Some(mut hangup) = self.hangup.take() else { return task };
        task.spawn(async move {
            while hangup.recv().await.is_some() {
                if tls.is_none() && security.is_none() {
                    tracing::info!("SIGHUP: there is nothing to read anew");
                }
                // The log says what came of it.
                if let Some(tls) = &tls {
                    drop(tls.reload().await);
                }
                if let Some(security) = security.clone() {
                    drop(tokio::task::spawn_blocking(move || security.read_anew()));
                }
            }
        });
        task
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// A time in whole seconds, or 0 for none.
fn seconds(time: Option<Duration>) -> u64 {
    time.map_or(0, |time| time.as_secs())
}

fn one_or_more(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|number| *number > 0).ok_or_else(|| "it must be a whole number, 1 or more".to_owned())
}

/// A time in seconds, which may have a fraction.
pub(super) fn some_seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.0..=86_400.0).contains(seconds));
    seconds.ok_or_else(|| "it must be a number of seconds, from 0 to 86400".to_owned())
}

/// An address to listen on. An IPv6 address has brackets, as in `[::1]:9570`.
fn host_and_port(text: &str) -> Result<(String, u16), String> {
    let parts = text.rsplit_once(':').and_then(|(host, port)| Some((host.to_owned(), port.parse().ok()?)));
    parts.filter(|(host, _)| !host.is_empty()).ok_or_else(|| "it must be HOST:PORT, as 127.0.0.1:9570".to_owned())
}

/// Tells the service manager, if it is systemd and asked to be told (`Type=notify`).
fn notify(state: NotifyState<'_>) {
    let is_asked_for = std::env::var_os("NOTIFY_SOCKET").is_some_and(|socket| !socket.is_empty());
    let stops = matches!(state, NotifyState::Stopping);
    if is_asked_for && let Err(error) = sd_notify::notify(&[state]) {
        // Who waits only for it to be ready listens no longer when it stops.
        match stops {
            true => tracing::debug!(%error, "systemd could not be told"),
            false => tracing::warn!(%error, "systemd could not be told"),
        }
    }
}
