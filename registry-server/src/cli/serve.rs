//! `feast-registry serve`.

use std::io::IsTerminal;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use feast_registry_server::{DEFAULT_MAX_MESSAGE_SIZE, DEFAULT_PORT, DEFAULT_REQUEST_TIMEOUT, ServeOptions};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

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
    #[arg(long, value_name = "BYTES", default_value_t = DEFAULT_MAX_MESSAGE_SIZE)]
    max_message_size: usize,

    /// How long a request may take whose client sets no deadline, in seconds.
    ///
    /// What still waits then ends without effect. A client's own deadline counts instead, if it sets one.
    #[arg(long, value_name = "SECONDS", default_value_t = DEFAULT_REQUEST_TIMEOUT.as_secs(), value_parser = clap::value_parser!(u64).range(1..=86_400))]
    request_timeout: u64,

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
        let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be caught")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("Ctrl-C cannot be caught")?;
        let config = self.location.read(|warning| tracing::warn!("{warning}"))?;
        let registry = feast_registry::open(&config.registry).await?;
        let listener = listen(&self.host, self.port).await?;
        tracing::info!("serving {} on {}", registry.location(), listener.local_addr()?);
        let stop = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        let mut options = ServeOptions::default();
        options.max_message_size = self.max_message_size;
        options.request_timeout = Duration::from_secs(self.request_timeout);
        feast_registry_server::serve(registry.clone(), listener, options, stop).await?;
        // What waited has been written by now, or logged.
        drop(registry.close().await);
        tracing::info!("stopped");
        Ok(())
    }
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
