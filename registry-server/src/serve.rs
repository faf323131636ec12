//! Running the server: listening, health, reflection, and an orderly end.

use std::future::Future;
use std::time::Duration;

use feast_registry_core::proto::FILE_DESCRIPTOR_SET;
use feast_registry_core::{Error, ErrorKind, Registry, Result};
use tokio::net::TcpListener;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::panics::{Isolated, caught};
use crate::proto::registry_server_server::RegistryServerServer;
use crate::service::Service;

/// The port of Feast's registry server.
pub const DEFAULT_PORT: u16 = 6570;

/// The largest message that is accepted and sent, in bytes, unless told otherwise. gRPC's own limit is 4 MiB, which a
/// list of a few thousand views exceeds.
pub const DEFAULT_MAX_MESSAGE_SIZE: usize = 128 << 20;

/// How long requests that are under way may take after the server was told to stop.
const GRACE_PERIOD: Duration = Duration::from_secs(30);

/// How often the storage is asked whether it answers, and how long it may take to.
const HEALTH_INTERVAL: Duration = Duration::from_secs(5);

/// How long a request may take whose client sets no deadline, unless told otherwise.
pub const DEFAULT_REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// How a server serves. Made with `default()`, and changed field by field.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct ServeOptions {
    /// The largest message that is accepted and sent, in bytes.
    pub max_message_size: usize,
    /// How long a request may take whose client sets no deadline.
    pub request_timeout: Duration,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self { max_message_size: DEFAULT_MAX_MESSAGE_SIZE, request_timeout: DEFAULT_REQUEST_TIMEOUT }
    }
}

/// Serves a registry on a listening socket until `stop` completes; then finishes the requests that are under way, for up
/// to half a minute, and returns.
///
/// Besides Feast's service it answers `grpc.health.v1.Health`, for which the storage is asked every five seconds, and
/// server reflection (v1 and v1alpha).
///
/// # Errors
/// When the socket fails.
pub async fn serve(
    registry: Registry,
    listener: TcpListener,
    options: ServeOptions,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let failed = |what: &'static str| {
        move |error: Box<dyn std::error::Error + Send + Sync>| {
            Error::new(ErrorKind::Unavailable, what).with_source(error)
        }
    };
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<RegistryServerServer<Service>>().await;
    let watch = tokio::spawn(watch_storage(registry.clone(), health));
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let reflection_v1 = reflection().build_v1().map_err(|error| failed("reflection cannot be served")(error.into()))?;
    let reflection_v1alpha =
        reflection().build_v1alpha().map_err(|error| failed("reflection cannot be served")(error.into()))?;
    let service = Service::new(registry.clone())
        .with_request_timeout(options.request_timeout)
        .with_divided_answers(options.max_message_size);
    let service = RegistryServerServer::new(service)
        .max_decoding_message_size(options.max_message_size)
        .max_encoding_message_size(options.max_message_size);

    // Small answers go out at once. (The setting of tonic's builder is for sockets that it opens itself.) Without it an
    // answer of more than one segment waits 40 ms for the client's acknowledgement of the first.
    let connections = TcpListenerStream::new(listener).map(|connection| {
        let connection = connection?;
        connection.set_nodelay(true)?;
        Ok::<_, std::io::Error>(connection)
    });
    let (stopped, has_stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = Server::builder()
        // Lists are large; the default window of 64 KiB would have them wait for the client every few views.
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .trace_fn(|request| tracing::debug_span!("request", path = %request.uri().path()))
        .add_service(Isolated(health_service))
        .add_service(Isolated(reflection_v1))
        .add_service(Isolated(reflection_v1alpha))
        .add_service(Isolated(service))
        .serve_with_incoming_shutdown(connections, async move {
            stop.await;
            tracing::info!("stopping: finishing the requests that are under way");
            let _ = stopped.send(());
        });
    let grace = async {
        // If the server fails before it is told to stop, the sender is dropped and there is nothing to wait for.
        if has_stopped.await.is_ok() {
            tokio::time::sleep(GRACE_PERIOD).await;
        } else {
            std::future::pending::<()>().await;
        }
    };
    let outcome = tokio::select! {
        outcome = serving => outcome.map_err(|error| failed("the server failed")(error.into())),
        () = grace => {
            tracing::warn!("some requests were not finished within {} s", GRACE_PERIOD.as_secs());
            Ok(())
        }
    };
    watch.abort();
    // What was applied with `commit: false` and never committed.
    if let Err(error) = registry.commit().await {
        tracing::error!(%error, "not everything that waited for a commit was written");
    }
    outcome
}

/// Keeps the health of the service that of its storage.
async fn watch_storage(registry: Registry, health: HealthReporter) {
    let mut is_serving = true;
    loop {
        // A panic here must not be the end of the watch: health would stay what it last was.
        let answer = tokio::time::timeout(HEALTH_INTERVAL, caught(registry.ping())).await;
        let answer = answer.map(|answer| answer.unwrap_or_else(|panic| Err(Error::internal(panic))));
        let answers = matches!(answer, Ok(Ok(())));
        if answers != is_serving {
            is_serving = answers;
            match answer {
                Ok(Err(error)) => tracing::error!(%error, "the storage does not answer"),
                Err(_) => tracing::error!("the storage does not answer within {} s", HEALTH_INTERVAL.as_secs()),
                Ok(Ok(())) => tracing::info!("the storage answers again"),
            }
            let status = if answers { ServingStatus::Serving } else { ServingStatus::NotServing };
            health.set_service_status("", status).await;
            health.set_service_status(SERVICE_NAME, status).await;
        }
        tokio::time::sleep(HEALTH_INTERVAL).await;
    }
}

const SERVICE_NAME: &str = "feast.registry.RegistryServer";
