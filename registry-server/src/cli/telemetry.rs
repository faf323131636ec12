//! What the server tells of itself: its log, and traces.

use std::io::IsTerminal;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use feast_registry_core::STORAGE_SPANS;
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

/// What is logged unless something else is said.
const DEFAULT_LOG: &str = "info";

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// Lines for people.
    Text,
    /// A JSON object in each line.
    Json,
}

#[derive(Debug, Args)]
pub(super) struct Telemetry {
    /// What to log: error, warn, info, debug (a line per request) or trace; or a filter, as info,feast_registry_core=debug.
    #[arg(long, value_name = "FILTER", env = "RUST_LOG", default_value = DEFAULT_LOG)]
    log: String,

    /// How to write the log, which goes to stderr.
    #[arg(long, value_name = "FORMAT", value_enum, default_value = "text")]
    log_format: LogFormat,

    /// Send traces to the OpenTelemetry collector at this URL, as http://localhost:4318 (OTLP over HTTP).
    ///
    /// One span for each call and one for each call to the storage; the trace of a client (`traceparent`) goes on in them.
    /// OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, OTEL_TRACES_SAMPLER, OTEL_EXPORTER_OTLP_HEADERS and OTEL_BSP_… count too;
    /// with OTEL_SDK_DISABLED=true nothing is sent.
    #[cfg(feature = "otlp")]
    #[arg(long, value_name = "URL", env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    otlp_endpoint: Option<String>,
}

/// How many lines wait until they are written. Where nobody reads the log, those beyond are lost: to wait for a reader would
/// stop the server.
const WAITING_LINES: usize = 8192;

/// What has to be ended before the process ends, so that nothing of it is lost.
#[must_use]
pub(super) struct Running {
    log: WorkerGuard,
    #[cfg(feature = "otlp")]
    traces: Option<opentelemetry_sdk::trace::SdkTracerProvider>,
}

impl Telemetry {
    /// Begins to log and to trace.
    pub(super) fn start(&self) -> Result<Running> {
        if let Some(level) = mistaken_level(&self.log) {
            bail!("--log: there is no level `{level}`; there are error, warn, info, debug and trace");
        }
        let filter =
            EnvFilter::try_new(filter(&self.log)).with_context(|| format!("--log: `{}` is not a filter", self.log))?;
        let (writer, log) =
            NonBlockingBuilder::default().buffered_lines_limit(WAITING_LINES).lossy(true).finish(std::io::stderr());
        let registry = tracing_subscriber::registry().with(self.log_layer(writer).with_filter(filter));
        #[cfg(feature = "otlp")]
        {
            let traces = self.endpoint().map(otlp::provider).transpose()?;
            registry.with(traces.as_ref().map(otlp::layer)).init();
            if let Some(url) = self.endpoint() {
                tracing::info!("traces are sent to {}", otlp::shown(url));
            }
            Ok(Running { log, traces })
        }
        #[cfg(not(feature = "otlp"))]
        {
            registry.init();
            Ok(Running { log })
        }
    }

    /// Whether traces are sent.
    pub(super) fn is_tracing(&self) -> bool {
        self.endpoint().is_some()
    }

    fn endpoint(&self) -> Option<&str> {
        #[cfg(feature = "otlp")]
        {
            let is_disabled = std::env::var("OTEL_SDK_DISABLED").is_ok_and(|value| value.eq_ignore_ascii_case("true"));
            self.otlp_endpoint.as_deref().filter(|url| !url.is_empty() && !is_disabled)
        }
        #[cfg(not(feature = "otlp"))]
        None
    }

    fn log_layer(&self, writer: NonBlocking) -> Box<dyn Layer<Registry> + Send + Sync> {
        let layer = tracing_subscriber::fmt::layer()
            .with_writer(writer)
            .with_target(false)
            .with_ansi(is_colorful())
            // It would panic where nobody reads the log any more.
            .log_internal_errors(false);
        match self.log_format {
            LogFormat::Text => layer.boxed(),
            LogFormat::Json => layer.json().flatten_event(true).with_current_span(true).with_span_list(false).boxed(),
        }
    }
}

impl Running {
    /// Sends what has not been sent of traces, and writes what has not been written of the log. It may take some seconds, if
    /// nobody answers or reads.
    pub(super) async fn end(self) {
        #[cfg(feature = "otlp")]
        if let Some(traces) = self.traces {
            let ended = tokio::task::spawn_blocking(move || traces.shutdown_with_timeout(otlp::ENDS_WITHIN)).await;
            if let Ok(Err(error)) = ended {
                tracing::warn!(%error, "the last traces may not have been sent");
            }
        }
        drop(self.log);
    }
}

#[cfg(feature = "otlp")]
mod otlp {
    use std::time::Duration;

    use anyhow::{Context, Result, ensure};
    use opentelemetry::trace::TracerProvider;
    use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
    use opentelemetry_sdk::Resource;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tracing_subscriber::Layer;
    use tracing_subscriber::filter::Targets;
    use tracing_subscriber::registry::LookupSpan;

    /// The target of all spans that are for traces.
    const SPANS: &str = "feast_registry::trace";

    /// How long the last traces may take to be sent when the server ends.
    pub(super) const ENDS_WITHIN: Duration = Duration::from_secs(3);

    /// What collects spans and sends them to a collector, in a thread of its own.
    pub(super) fn provider(url: &str) -> Result<SdkTracerProvider> {
        ensure!(
            url.starts_with("http://") || url.starts_with("https://"),
            "--otlp-endpoint: `{}` is no http:// or https:// URL",
            shown(url)
        );
        // If one has been chosen, so be it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let endpoint = format!("{}/v1/traces", url.trim_end_matches('/'));
        let exporter = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(endpoint)
            .build()
            .with_context(|| format!("--otlp-endpoint: no traces can be sent to `{}`", shown(url)))?;
        let resource = Resource::builder();
        let resource = match std::env::var_os("OTEL_SERVICE_NAME") {
            Some(_) => resource,
            None => resource.with_service_name("feast-registry"),
        };
        Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build()).build())
    }

    /// A URL without what may be secret in it.
    pub(super) fn shown(url: &str) -> String {
        let url = url.split(['?', '#']).next().unwrap_or_default();
        match url.rsplit_once('@') {
            Some((before, host)) => match before.split_once("://") {
                Some((scheme, _)) => format!("{scheme}://{host}"),
                None => host.to_owned(),
            },
            None => url.to_owned(),
        }
    }

    /// What hands spans that are meant for traces to the provider.
    pub(super) fn layer<S>(provider: &SdkTracerProvider) -> impl Layer<S> + use<S>
    where
        S: tracing::Subscriber + for<'span> LookupSpan<'span>,
    {
        let tracer = provider.tracer("feast-registry");
        tracing_opentelemetry::layer()
            .with_tracer(tracer)
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_filter(Targets::new().with_target(SPANS, tracing::Level::INFO))
    }
}

/// A level alone is about this program: what the libraries below it say of every frame would hide a line per request.
/// `trace`, or a filter that names targets, is taken as it is, but for the spans that are for traces alone.
fn filter(log: &str) -> String {
    let filter = match log.trim() {
        // An environment variable that is set to nothing says nothing.
        "" => return filter(DEFAULT_LOG),
        level @ ("error" | "warn" | "info" | "debug") => {
            let quiet = [
                "hyper",
                "hyper_util",
                "tower",
                "tonic",
                "rustls",
                "tokio_postgres",
                "mysql_async",
                "reqwest",
                "opentelemetry",
                "opentelemetry_sdk",
                "opentelemetry-otlp",
            ];
            // What it warns of are clients who reset many calls; they would fill the log.
            quiet.iter().fold(format!("{level},h2=error"), |filter, library| format!("{filter},{library}=warn"))
        }
        _ => log.to_owned(),
    };
    format!("{filter},{STORAGE_SPANS}=off")
}

/// A word that is neither a level nor, as `TARGET=LEVEL`, about one target. It would be taken for the name of a target, and all
/// others would be silent.
fn mistaken_level(log: &str) -> Option<&str> {
    const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
    let is_level = |word: &str| LEVELS.iter().any(|level| word.eq_ignore_ascii_case(level));
    let mut words = log.split(',').map(str::trim);
    words.find(|word| !word.is_empty() && !is_level(word) && !word.contains(['=', '[', ':', '_']))
}

/// Whether the log may be in colors.
fn is_colorful() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "otlp")]
    #[test]
    fn what_is_secret_in_the_url_of_a_collector_is_not_shown() {
        for (url, shown) in [
            ("http://user:s3cret@collector:4318/a?token=s3cret", "http://collector:4318/a"),
            ("htp://user:s3c@ret@x", "htp://x"),
            ("user:s3cret@x", "x"),
            ("http://localhost:4318", "http://localhost:4318"),
        ] {
            assert_eq!(otlp::shown(url), shown);
        }
    }

    #[test]
    fn a_level_that_is_none_is_not_taken_for_a_target() {
        for log in
            ["", "info", "WARN", "off", "info,hyper=debug", "feast_registry_core=debug", "warn, feast_registry::x"]
        {
            assert_eq!(mistaken_level(log), None, "{log}");
        }
        for (log, level) in [("debgu", "debgu"), ("info,debgu", "debgu"), ("verbose", "verbose")] {
            assert_eq!(mistaken_level(log), Some(level));
        }
    }
}
