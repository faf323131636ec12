//! What the server tells of itself: its log, and traces.

use std::io::IsTerminal;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, ValueEnum};
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

use super::log_filter::{DEFAULT_LOG, LogFilter};

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// Lines for people.
    Text,
    /// A JSON object in each line.
    Json,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Log and traces")]
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

/// How long the rest of the log may take to be written when the server ends. What hands it over waits a second for it.
const LOG_ENDS_WITHIN: Duration = Duration::from_secs(2);

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
        let LogFilter { filter, targets } = LogFilter::parse(&self.log)?;
        let (writer, log) =
            NonBlockingBuilder::default().buffered_lines_limit(WAITING_LINES).lossy(true).finish(std::io::stderr());
        if !targets.is_empty() {
            self.warn_of(&targets, writer.clone());
        }
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

    /// Warns of words that were taken for the names of targets. Past the filter, in which there may be nothing but they.
    fn warn_of(&self, targets: &[String], writer: NonBlocking) {
        let unfiltered = tracing_subscriber::registry().with(self.log_layer(writer));
        tracing::subscriber::with_default(unfiltered, || {
            for target in targets {
                tracing::warn!(
                    "--log: `{target}` is no level and is taken for the name of a target, as `{target}=trace` says more \
                     clearly; of others only that is logged to which a level is given too, as in `info,{target}=trace`"
                );
            }
        });
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
    /// Sends what has not been sent of traces. It may take some seconds, if nobody answers.
    #[cfg_attr(not(feature = "otlp"), expect(clippy::unused_async, reason = "there are no traces"))]
    pub(super) async fn end_traces(&mut self) {
        #[cfg(feature = "otlp")]
        if let Some(traces) = self.traces.take() {
            // The time for the thread is no more than what is to be sent has.
            let limit = otlp::ENDS_WITHIN + Duration::from_secs(1);
            if let Some(Err(error)) = within(limit, move || traces.shutdown_with_timeout(otlp::ENDS_WITHIN)).await {
                tracing::warn!(%error, "the last traces may not have been sent");
            }
        }
    }

    /// Writes what has not been written of the log, and after it why the server has failed, if it has. If nobody reads, it is
    /// given up after a while: see `serve_ends_when_its_log_is_stuck`.
    pub(super) async fn end_log(self, failure: Option<anyhow::Error>) {
        let log = self.log;
        let ended = move || {
            // May wait for the reader for ever, as it has something to say on stdout.
            drop(log);
            if let Some(error) = failure {
                super::fail(&error);
            }
        };
        within(LOG_ENDS_WITHIN, ended).await;
    }
}

/// Does what may never end on a thread of its own, which ends with the process at the latest; `None` if it takes longer than it
/// may. The threads of the runtime are of no use for it: their end is waited for.
async fn within<T: Send + 'static>(limit: Duration, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    // When there can be no thread, the sender is dropped.
    drop(std::thread::Builder::new().spawn(move || sender.send(work()).is_ok()));
    tokio::time::timeout(limit, receiver).await.ok()?.ok()
}

#[cfg(feature = "otlp")]
mod otlp {
    use std::time::Duration;

    use anyhow::{Result, anyhow, ensure};
    use base64::Engine as _;
    use base64::prelude::BASE64_STANDARD;
    use hyper::Uri;
    use opentelemetry::trace::TracerProvider;
    use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
    use opentelemetry_sdk::Resource;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use percent_encoding::percent_decode_str;
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
        // Before the exporter sees it: what that says of a URL repeats it whole, its password included.
        let endpoint = match format!("{}/v1/traces", url.trim_end_matches('/')).parse::<Uri>() {
            Ok(endpoint) if !hides_host(url) => Ok(endpoint),
            Ok(_) => Err("it is not clear where its host begins".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        let endpoint = endpoint.map_err(|problem| {
            anyhow!(
                "--otlp-endpoint: `{}` cannot be read as a URL: {problem}; what is no letter or digit in a name, a password or \
                 a path is to be written as `%` and two digits, as %40 for @",
                shown(url)
            )
        })?;
        let (endpoint, authorization) = without_credentials(&endpoint);
        let exporter = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(endpoint)
            .with_headers(authorization.map(|value| ("authorization".to_owned(), value)).into_iter().collect())
            .build()
            .map_err(|error| {
                anyhow!("--otlp-endpoint: no traces can be sent to `{}`{}", shown(url), reason(&error.to_string()))
            })?;
        let resource = Resource::builder();
        let resource = match std::env::var_os("OTEL_SERVICE_NAME") {
            Some(_) => resource,
            None => resource.with_service_name("feast-registry"),
        };
        Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build()).build())
    }

    /// A URL without its name and password, and the header that says them. What sends the traces logs URLs as they are, on levels
    /// that are for those who look for an error: see `no_log_tells_the_password_of_a_collector`.
    fn without_credentials(url: &Uri) -> (String, Option<String>) {
        let parts = url.scheme_str().zip(url.authority()).zip(url.path_and_query());
        match parts.map(|((scheme, authority), path)| (scheme, authority.as_str().rsplit_once('@'), path)) {
            Some((scheme, Some((credentials, host)), path)) => {
                let (name, password) = credentials.split_once(':').unwrap_or((credentials, ""));
                let both: Vec<u8> =
                    percent_decode_str(name).chain([b':']).chain(percent_decode_str(password)).collect();
                (format!("{scheme}://{host}{path}"), Some(format!("Basic {}", BASE64_STANDARD.encode(both))))
            }
            _ => (url.to_string(), None),
        }
    }

    /// What an error says, unless there may be a URL in it: that of the collector, or of a proxy.
    fn reason(said: &str) -> String {
        if said.contains("://") || said.contains('@') { String::new() } else { format!(": {said}") }
    }

    /// What stands for what may be a secret, or not.
    const HIDDEN: &str = "…";

    /// A URL without what may be secret in it. Where it is not clear what of it is the host, nothing but its scheme is left: what
    /// seems to be a path may be the rest of a password.
    pub(super) fn shown(url: &str) -> String {
        let (scheme, rest) = match url.split_once("://") {
            Some((scheme, rest)) if is_scheme(scheme) => (format!("{scheme}://"), rest),
            Some(_) => return HIDDEN.to_owned(),
            None => (String::new(), url),
        };
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len()));
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        if path.contains('@') || !is_host(host) {
            return format!("{scheme}{HIDDEN}");
        }
        let path = path.split(['?', '#']).next().unwrap_or_default();
        format!("{scheme}{host}{path}")
    }

    /// Whether it is not clear what of a URL is the host.
    fn hides_host(url: &str) -> bool {
        shown(url).ends_with(HIDDEN)
    }

    fn is_scheme(text: &str) -> bool {
        text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    }

    /// Whether it is certainly a host, perhaps with a port. A name with a password would have letters for a port.
    fn is_host(text: &str) -> bool {
        let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((address, port)) => {
                (address.replace(':', ""), port.strip_prefix(':').or(port.is_empty().then_some("")))
            }
            None => match text.split_once(':') {
                Some((host, port)) => (host.to_owned(), Some(port)),
                None => (text.to_owned(), Some("")),
            },
        };
        !host.is_empty()
            && host.chars().all(|c| c.is_alphanumeric() || "-._".contains(c))
            && port.is_some_and(|port| port.len() <= 5 && port.chars().all(|c| c.is_ascii_digit()))
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

/// Whether the log may be in colors.
fn is_colorful() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fault: `#` and `?` in a password were taken for the end of what is before the path.
    #[cfg(feature = "otlp")]
    #[test]
    fn what_is_secret_in_the_url_of_a_collector_is_not_shown() {
        for (url, shown) in [
            ("http://user:s3cret@collector:4318/a?token=s3cret", "http://collector:4318/a"),
            ("http://collector/a#s3cret", "http://collector/a"),
            ("htp://user:s3c@ret@x", "htp://x"),
            ("user:s3cret@x", "x"),
            ("http://localhost:4318", "http://localhost:4318"),
            ("https://[::1]:4318/v1", "https://[::1]:4318/v1"),
            ("http://u:s3cret@[::1]", "http://[::1]"),
            ("collector:4318", "collector:4318"),
            ("htp://user:s3c#ret@c:4318", "htp://…"),
            ("http://user:s3c?ret@c:4318", "http://…"),
            ("http://user:s3c/ret@c:4318", "http://…"),
            ("http://user:1234/s3cret@c:4318", "http://…"),
            ("http://user:s3c\\ret@c", "http://…"),
            ("http://user:s3cret@c/?token=s3@cret", "http://…"),
            ("http://user:s3cret", "http://…"),
            ("http://user:s3cret%40c:4318", "http://…"),
            ("http://user:s3cret@", "http://…"),
            ("http:/user:s3cret@c", "…"),
            ("user:s3cret/x", "…"),
            ("user:s3c://ret@c", "…"),
            ("", "…"),
        ] {
            assert_eq!(otlp::shown(url), shown, "{url}");
        }
    }

    /// Fault: what an error was due to repeated the URL, its password included.
    #[cfg(feature = "otlp")]
    #[test]
    fn why_a_collector_cannot_be_had_does_not_tell_its_password() {
        for url in [
            "http://user:s3c^ret@c:4318",
            "http://user:s3c ret@c:4318",
            "http://user:s3c#ret@c:4318",
            "http://user:1/s3c/ret@c:4318",
            "http://user:s3cret",
            "http://user:s3c{ret}@c:4318",
            "http://user:s3c%ret@[c:4318",
            "htp://user:s3c#ret@c:4318",
            "http://user:s3c\u{e9}ret@c:x",
        ] {
            let Err(error) = otlp::provider(url) else { panic!("{url} is taken") };
            for said in error.chain().map(ToString::to_string).chain([format!("{error:?}")]) {
                assert!(said.contains("--otlp-endpoint") && !said.contains("s3c"), "{url}: {said}");
            }
        }
    }
}
