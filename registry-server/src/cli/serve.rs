//! `feast-registry serve`.

use std::io::IsTerminal;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use feast_registry_server::{DEFAULT_PORT, ServeOptions};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

use super::files;
use super::listen::listen;
use super::location::Location;

/// What is logged unless something else is said.
const DEFAULT_LOG: &str = "info";

/// Serve a registry to Feast's SDK.
///
/// Point Feast at it in feature_store.yaml:
///
///   registry:
///     registry_type: remote
///     path: localhost:6570
///
/// Stop it with Ctrl-C or SIGTERM: requests that are under way are finished first.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, about = "Serve a registry to Feast's SDK")]
pub(crate) struct Serve {
    #[command(flatten)]
    location: Location,

    /// The address to listen on; 0.0.0.0 or :: for all. There is no authentication: mind who can reach it.
    #[arg(long, default_value = "127.0.0.1")]
    host: String,

    /// The port to listen on; 0 takes a free one, which the start-up line names.
    #[arg(long, default_value_t = DEFAULT_PORT)]
    port: u16,

    /// The largest message that is accepted and sent, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = ServeOptions::default().max_message_size)]
    max_message_size: usize,

    /// How long a request may take whose client sets no deadline, in seconds.
    ///
    /// What still waits then ends without effect. A client's own deadline counts instead, if it sets one.
    /// A request must also have come whole within this time.
    #[arg(long, value_name = "SECONDS", default_value_t = ServeOptions::default().request_timeout.as_secs(), value_parser = clap::value_parser!(u64).range(1..=86_400))]
    request_timeout: u64,

    /// How many connections may be open at once; more are closed as they come.
    ///
    /// If the system allows the process fewer open files (`ulimit -n`), there may be fewer.
    #[arg(long, value_name = "NUMBER", default_value_t = ServeOptions::default().max_connections, value_parser = one_or_more)]
    max_connections: usize,

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
    /// So long as a balancer needs to notice.
    #[arg(long, value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=3600))]
    drain: u64,

    /// How many seconds requests that are under way may take after SIGTERM (and after --drain).
    ///
    /// Kubernetes kills a process 30 s after SIGTERM, unless terminationGracePeriodSeconds says otherwise.
    #[arg(long, value_name = "SECONDS", default_value_t = ServeOptions::default().grace.as_secs(), value_parser = clap::value_parser!(u64).range(..=86_400))]
    grace: u64,

    /// Be ready while the storage is away, since reads that allow the cache are answered.
    ///
    /// The health of the service `liveness` never depends on the storage.
    #[arg(long)]
    ready_from_cache: bool,

    /// What to log: error, warn, info, debug (a line per request) or trace; or a filter, as info,feast_registry_core=debug.
    #[arg(long, value_name = "FILTER", env = "RUST_LOG", default_value = DEFAULT_LOG)]
    log: String,
}

impl Serve {
    pub(super) async fn run(self) -> Result<()> {
        let filter =
            EnvFilter::try_new(filter(&self.log)).with_context(|| format!("--log: `{}` is not a filter", self.log))?;
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_span_events(FmtSpan::CLOSE)
            .with_target(false)
            .with_ansi(is_colorful())
            // It would panic where nobody reads the log any more.
            .log_internal_errors(false)
            .init();
        // Signals are caught from before the start-up line on, so that whoever has read it may send one.
        let mut signals = Signals::caught()?;
        let config = self.location.read(|warning| tracing::warn!("{warning}"))?;
        let options = self.options();
        // Before the registry is opened, which may make it: a start that fails leaves nothing behind.
        let listener = listen(&self.host, self.port).await?;
        let registry = feast_registry::open(&config.registry).await?;
        tracing::info!("serving {} on {}", registry.location(), listener.local_addr()?);
        let (stop, is_stopped) = tokio::sync::oneshot::channel();
        let is_stopped = async {
            // The sender is kept until the end.
            drop(is_stopped.await);
        };
        let serving = feast_registry_server::serve(registry.clone(), listener, options, is_stopped);
        let stopping_twice = async {
            signals.next().await;
            stop.send(()).ok();
            signals.next().await;
        };
        tokio::select! {
            served = serving => served?,
            () = stopping_twice => bail!("stopped at once by a second signal; requests that were under way are lost"),
        }
        // What waited has been written by now, or logged.
        drop(registry.close().await);
        tracing::info!("stopped");
        Ok(())
    }

    fn options(&self) -> ServeOptions {
        let unless_zero = |seconds| (seconds > 0).then(|| Duration::from_secs(seconds));
        let mut options = ServeOptions::default();
        options.max_message_size = self.max_message_size;
        options.request_timeout = Duration::from_secs(self.request_timeout);
        options.max_connections = self.max_connections.min(files::room_for_connections());
        options.max_connection_age = unless_zero(self.max_connection_age);
        options.keep_alive = unless_zero(self.keep_alive);
        options.drain = Duration::from_secs(self.drain);
        options.grace = Duration::from_secs(self.grace);
        options.is_ready_from_cache = self.ready_from_cache;
        if options.max_connections < self.max_connections {
            let limit = options.max_connections;
            tracing::warn!("only {limit} connections are taken, since the process may not open more files (ulimit -n)");
        }
        options
    }
}

/// What asks the process to end.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn caught() -> Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("SIGTERM cannot be caught")?,
            interrupt: signal(SignalKind::interrupt()).context("Ctrl-C cannot be caught")?,
        })
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

/// A level alone is about this program: what the libraries below it say of every frame would hide a line per request.
/// `trace`, or a filter that names targets, is taken as it is.
fn filter(log: &str) -> String {
    match log.trim() {
        // An environment variable that is set to nothing says nothing.
        "" => filter(DEFAULT_LOG),
        level @ ("error" | "warn" | "info" | "debug") => {
            let quiet = ["h2", "hyper", "hyper_util", "tower", "tonic", "rustls", "tokio_postgres", "mysql_async"];
            quiet.iter().fold(level.to_owned(), |filter, library| format!("{filter},{library}=warn"))
        }
        _ => log.to_owned(),
    }
}

/// Whether the log may be in colors.
fn is_colorful() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
