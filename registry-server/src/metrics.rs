//! What the server measures, for Prometheus.
//!
//! The names of what is measured of calls are those of the gRPC ecosystem (`grpc_server_handled_total` and its like, as of
//! go-grpc-middleware), so that dashboards which know them show this server too.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use feast_registry_core::metrics::Metric;
use feast_registry_core::proto::FILE_DESCRIPTOR_SET;
use feast_registry_core::{Error, ErrorKind, Result};
use metrics::{Counter, Gauge, Histogram, SharedString};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use prost::Message;
use prost_types::FileDescriptorSet;
use tonic::Code;

use crate::complaints::Complaint;
use crate::process;
use crate::proto::history;
use crate::rest;

const STARTED: Metric = Metric::counter("grpc_server_started_total", "Calls that have begun, by service and method");
const HANDLED: Metric =
    Metric::counter("grpc_server_handled_total", "Calls that have ended, by service, method and code");
const HANDLING: Metric = Metric::seconds(
    "grpc_server_handling_seconds",
    "How long calls took, from the head of the request to the end of the answer, by service and method",
);
const IN_FLIGHT: Metric = Metric::gauge("grpc_server_in_flight_calls", "Calls that are under way");
const RECEIVED: Metric =
    Metric::counter("grpc_server_received_bytes_total", "Bytes of requests as they came, by service and method");
const SENT: Metric =
    Metric::counter("grpc_server_sent_bytes_total", "Bytes of answers as they went, by service and method");
const CONNECTIONS: Metric = Metric::gauge("feast_registry_connections", "Connections that are open");
const CONNECTED: Metric = Metric::counter("feast_registry_connections_total", "Connections that were taken");
const REFUSED: Metric = Metric::counter(
    "feast_registry_connections_refused_total",
    "Connections that were not taken, by reason (limit: as many are open as there may be; system: it has no file for another)",
);
const READY: Metric = Metric::gauge("feast_registry_ready", "Whether the server says that it is ready (1) or not (0)");
const BUILD: Metric = Metric::gauge("feast_registry_build_info", "1, with the version of the server");

const CERTIFICATE: Metric = Metric::gauge(
    "feast_registry_tls_certificate_not_after_timestamp_seconds",
    "When the certificate that clients are shown ends, in seconds since 1970",
);

const WATCHERS: Metric = Metric::gauge("feast_registry_watchers", "Streams that follow what is committed");

const AUDIT_LOST: Metric =
    Metric::counter("feast_registry_audit_events_lost_total", "Events that could not be written to the audit log");
const UNAUTHENTICATED: Metric = Metric::counter(
    "feast_registry_unauthenticated_calls_total",
    "Calls that were refused since their callers did not say who they are, or could not prove it",
);

/// What the routes of the REST API are methods of.
const REST: &str = "rest";

const ALL: &[Metric] = &[
    STARTED,
    HANDLED,
    HANDLING,
    IN_FLIGHT,
    RECEIVED,
    SENT,
    CONNECTIONS,
    CONNECTED,
    REFUSED,
    READY,
    BUILD,
    WATCHERS,
    AUDIT_LOST,
    UNAUTHENTICATED,
    CERTIFICATE,
];

/// The upper bounds that times are sorted by, in seconds: from what a cached read takes to what nobody waits for.
const BUCKETS: [f64; 14] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0, 30.0];

/// How often what was measured is put in order. Until then each measured time takes some bytes.
pub(crate) const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// The metrics of the process: those of the server, those of its registry ([`feast_registry_core::metrics`]), and
/// Prometheus's usual ones of a process.
#[derive(Clone)]
pub struct Metrics {
    prometheus: PrometheusHandle,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Has all be measured from now on that this process's registries and servers do. To be called before they are opened;
    /// what was opened before is not measured whole.
    ///
    /// # Errors
    /// When the process has a recorder of the crate `metrics` already.
    pub fn install() -> Result<Self> {
        let failed =
            |error: BuildError| Error::new(ErrorKind::Unsupported, "metrics cannot be recorded").with_source(error);
        let builder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &BUCKETS)
            .map_err(failed)?;
        let prometheus = builder.install_recorder().map_err(failed)?;
        feast_registry_core::metrics::ALL.iter().chain(ALL).for_each(Metric::describe);
        metrics::gauge!(BUILD.name, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        metrics::gauge!(WATCHERS.name).increment(0);
        // Whoever is to be alarmed by the first needs a series that begins before it.
        audit_events_lost(0);
        unauthenticated_calls(0);
        Ok(Self { prometheus })
    }

    /// All of it, in Prometheus's text format.
    pub fn render(&self) -> String {
        self.prometheus.render() + &process::render()
    }

    /// Puts what was measured in order, which [`render`](Self::render) does too.
    pub(crate) fn upkeep(&self) {
        self.prometheus.run_upkeep();
    }
}

/// Counts events that the audit log does not have.
pub(crate) fn audit_events_lost(events: u64) {
    metrics::counter!(AUDIT_LOST.name).increment(events);
}

/// Counts calls whose callers are not known.
pub(crate) fn unauthenticated_calls(calls: u64) {
    metrics::counter!(UNAUTHENTICATED.name).increment(calls);
}

/// Measures whether the server is ready.
pub(crate) fn measure_readiness(is_ready: bool) {
    metrics::gauge!(READY.name).set(if is_ready { 1.0 } else { 0.0 });
}

/// Measures when the certificate ends that clients are shown, in seconds since 1970.
pub(crate) fn measure_certificate(not_after: f64) {
    metrics::gauge!(CERTIFICATE.name).set(not_after);
}

/// What is measured of connections.
pub(crate) struct ConnectionMetrics {
    open: Gauge,
    taken: Counter,
    beyond_limit: Counter,
    without_file: Counter,
}

/// An open connection, until this is dropped.
pub(crate) struct OpenConnection(Gauge);

impl ConnectionMetrics {
    pub(crate) fn new() -> Self {
        Self {
            open: metrics::gauge!(CONNECTIONS.name),
            taken: metrics::counter!(CONNECTED.name),
            beyond_limit: metrics::counter!(REFUSED.name, "reason" => "limit"),
            without_file: metrics::counter!(REFUSED.name, "reason" => "system"),
        }
    }

    pub(crate) fn opened(&self) -> OpenConnection {
        self.taken.increment(1);
        self.open.increment(1);
        OpenConnection(self.open.clone())
    }

    pub(crate) fn was_beyond_limit(&self) {
        self.beyond_limit.increment(1);
    }

    pub(crate) fn had_no_file(&self) {
        self.without_file.increment(1);
    }
}

/// A stream that follows what is committed, until this is dropped.
pub(crate) struct OpenWatch(Gauge);

impl OpenWatch {
    /// Counts it.
    pub(crate) fn begin() -> Self {
        let gauge = metrics::gauge!(WATCHERS.name);
        gauge.increment(1);
        Self(gauge)
    }
}

impl Drop for OpenWatch {
    fn drop(&mut self) {
        self.0.decrement(1);
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.decrement(1);
    }
}

/// What is measured of the calls of each method, by the path of the method.
pub(crate) struct CallMetrics {
    methods: HashMap<String, Arc<Method>>,
    /// All that this server does not have: their paths are the clients' own, and there may be any number of them.
    unknown: Arc<Method>,
    in_flight: Gauge,
}

/// A method of a service. What is measured of it appears with its first call.
pub(crate) struct Method {
    pub(crate) service: SharedString,
    pub(crate) name: SharedString,
    /// What traces say that it is called with.
    pub(crate) system: &'static str,
    /// Whether its calls change nothing, by its name.
    pub(crate) is_read: bool,
    /// That its calls are slow.
    pub(crate) slow: Complaint,
    measured: OnceLock<Measured>,
}

struct Measured {
    started: Counter,
    handling: Histogram,
    received: Counter,
    sent: Counter,
    /// By code.
    handled: [OnceLock<Counter>; 17],
}

impl CallMetrics {
    pub(crate) fn new() -> Self {
        let sets = [
            FILE_DESCRIPTOR_SET,
            history::FILE_DESCRIPTOR_SET,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
        ];
        // They are compiled in, and read by reflection as well.
        let files = sets.into_iter().filter_map(|set| FileDescriptorSet::decode(set).ok()).flat_map(|set| set.file);
        let methods = files.flat_map(|file| {
            let package = file.package().to_owned();
            file.service.into_iter().flat_map(move |service| {
                let service_name = format!("{package}.{}", service.name());
                let method = move |method: prost_types::MethodDescriptorProto| {
                    let path = format!("/{service_name}/{}", method.name());
                    (path, Arc::new(Method::new(service_name.clone(), method.name().to_owned())))
                };
                service.method.into_iter().map(method)
            })
        });
        let rest = rest::route_names().map(|(name, is_read)| {
            let method = Method { is_read, system: "http", ..Method::new(REST.to_owned(), name.clone()) };
            (name, Arc::new(method))
        });
        let unknown = Arc::new(Method::new("unknown".to_owned(), "unknown".to_owned()));
        Self { methods: methods.chain(rest).collect(), unknown, in_flight: metrics::gauge!(IN_FLIGHT.name) }
    }

    pub(crate) fn method(&self, path: &str) -> Arc<Method> {
        Arc::clone(self.methods.get(path).unwrap_or(&self.unknown))
    }

    pub(crate) fn started(&self, method: &Method) {
        method.measured().started.increment(1);
        self.in_flight.increment(1);
    }

    pub(crate) fn ended(&self, method: &Method, code: Code, time: Duration, received: u64, sent: u64) {
        let measured = method.measured();
        measured.handling.record(time);
        measured.received.increment(received);
        measured.sent.increment(sent);
        if let Some(handled) = measured.handled.get(code as usize) {
            let handled = handled.get_or_init(|| {
                let (service, name) = (method.service.clone(), method.name.clone());
                let code = name_of(code);
                metrics::counter!(HANDLED.name, "grpc_service" => service, "grpc_method" => name, "grpc_code" => code)
            });
            handled.increment(1);
        }
        self.in_flight.decrement(1);
    }
}

impl Method {
    fn new(service: String, name: String) -> Self {
        let is_read =
            ["Get", "List", "Log", "Diff", "Check", "Watch", "Proto"].iter().any(|verb| name.starts_with(verb));
        let (service, name) = (service.into(), name.into());
        Self { service, name, system: "grpc", is_read, slow: Complaint::new(), measured: OnceLock::new() }
    }

    fn measured(&self) -> &Measured {
        self.measured.get_or_init(|| {
            let labels = || {
                let label = |name: &'static str, value: &SharedString| metrics::Label::new(name, value.clone());
                vec![label("grpc_service", &self.service), label("grpc_method", &self.name)]
            };
            Measured {
                started: metrics::counter!(STARTED.name, labels()),
                handling: metrics::histogram!(HANDLING.name, labels()),
                received: metrics::counter!(RECEIVED.name, labels()),
                sent: metrics::counter!(SENT.name, labels()),
                handled: Default::default(),
            }
        })
    }
}

/// A code as the gRPC ecosystem writes it in labels.
pub(crate) fn name_of(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a client makes up costs no memory.
    #[test]
    fn labels_are_bounded_by_the_methods_that_there_are() {
        let calls = CallMetrics::new();
        let method = |path: &str| {
            let method = calls.method(path);
            format!("{}/{}", method.service, method.name)
        };
        assert_eq!(method("/feast.registry.RegistryServer/GetEntity"), "feast.registry.RegistryServer/GetEntity");
        assert_eq!(method("/feast_registry.v1.History/Watch"), "feast_registry.v1.History/Watch");
        assert_eq!(method("/grpc.health.v1.Health/Check"), "grpc.health.v1.Health/Check");
        assert_eq!(
            method("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"),
            "grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
        );
        for path in ["/feast.registry.RegistryServer/getentity", "/", "", "/x/y"] {
            assert_eq!(method(path), "unknown/unknown", "{path}");
        }
        assert!(calls.methods.len() > 55, "{}", calls.methods.len());
    }
}
