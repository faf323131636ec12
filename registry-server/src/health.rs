//! What the server says of itself: whether it lives, and whether it is ready.
//!
//! These are two questions. Who restarts a server that does not live must not be told so because its database is away: all
//! servers would be restarted, and would lose the caches that answer reads meanwhile. Who deals out calls wants to know
//! whether they can be answered.

use std::time::Duration;

use feast_registry_core::{Error, Registry};
use tokio::time::Instant;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::server::HealthReporter;

use crate::monitoring::Monitoring;
use crate::panics::caught;

/// The service whose health is whether the process lives: it always serves while there is a process to ask.
pub(crate) const LIVENESS: &str = "liveness";

/// Whose health is whether calls can be answered: the server's as a whole, and the registry's services.
const READINESS: [&str; 3] = ["", "feast.registry.RegistryServer", "feast_registry.v1.History"];

/// How often the storage is asked whether it answers, and how long it may take to.
const INTERVAL: Duration = Duration::from_secs(5);

/// The health of a server.
#[derive(Debug, Clone)]
pub(crate) struct ServerHealth {
    reporter: HealthReporter,
    /// Where readiness is told too.
    monitoring: Monitoring,
    is_ready_from_cache: bool,
}

impl ServerHealth {
    /// The health of a server that is ready, and what answers when it is asked for. With `is_ready_from_cache` it stays ready
    /// while the storage is away.
    pub(crate) async fn new(is_ready_from_cache: bool, monitoring: Monitoring) -> (Self, HealthServer<impl Health>) {
        let (reporter, service) = tonic_health::server::health_reporter();
        let health = Self { reporter, monitoring, is_ready_from_cache };
        health.reporter.set_service_status(LIVENESS, ServingStatus::Serving).await;
        health.set_ready(Ok(())).await;
        (health, service)
    }

    async fn set_ready(&self, ready: Result<(), &'static str>) {
        self.monitoring.set_ready(ready);
        let status = if ready.is_ok() { ServingStatus::Serving } else { ServingStatus::NotServing };
        for service in READINESS {
            self.reporter.set_service_status(service, status).await;
        }
    }

    /// Says that no more calls should be sent here. It must not be watching any more.
    pub(crate) async fn is_stopping(&self) {
        self.set_ready(Err("it is stopping")).await;
    }

    /// Keeps health that of the storage, and says in the log when that goes and comes. It never ends.
    pub(crate) async fn watch(self, registry: Registry) {
        let mut away_since = None;
        loop {
            // A panic here must not be the end of the watch: health would stay what it last was.
            let answer = tokio::time::timeout(INTERVAL, caught(registry.ping())).await;
            let answer = answer.map(|answer| answer.unwrap_or_else(|panic| Err(Error::internal(panic))));
            match (answer, away_since) {
                (Ok(Ok(())), None) | (Ok(Err(_)) | Err(_), Some(_)) => {}
                (Ok(Ok(())), Some(since)) => {
                    away_since = None;
                    let seconds = Instant::now().duration_since(since).as_secs();
                    tracing::info!("the storage answers again, after {seconds} s");
                    self.set_ready(Ok(())).await;
                }
                (answer, None) => {
                    away_since = Some(Instant::now());
                    match answer {
                        Ok(Err(error)) => tracing::error!(%error, "the storage does not answer"),
                        _ => tracing::error!("the storage does not answer within {} s", INTERVAL.as_secs()),
                    }
                    let ready = if self.is_ready_from_cache { Ok(()) } else { Err("the storage does not answer") };
                    self.set_ready(ready).await;
                }
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use feast_registry_core::{
        Backend, Commit, Deadline, ErrorKind, JournalEntry, JournalQuery, Limits, MemoryBackend, Outcome, Query,
        Record, RegistryOptions, Result, async_trait,
    };
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_client::HealthClient;

    use super::*;

    /// A storage that can go away.
    #[derive(Debug, Default)]
    struct Leaving {
        inner: MemoryBackend,
        is_away: AtomicBool,
    }

    #[async_trait]
    impl Backend for Leaving {
        fn location(&self) -> String {
            "leaving://".to_owned()
        }

        fn limits(&self) -> Limits {
            self.inner.limits()
        }

        async fn prepare(&self, deadline: &Deadline) -> Result<()> {
            self.inner.prepare(deadline).await
        }

        async fn read(&self, queries: &[Query], deadline: &Deadline) -> Result<Vec<Vec<Record>>> {
            if self.is_away.load(Ordering::SeqCst) {
                return Err(Error::new(ErrorKind::Unavailable, "it is away"));
            }
            self.inner.read(queries, deadline).await
        }

        async fn commit(&self, commit: Commit, deadline: &Deadline) -> Result<Outcome> {
            self.inner.commit(commit, deadline).await
        }

        async fn journal(&self, query: &JournalQuery, deadline: &Deadline) -> Result<Vec<JournalEntry>> {
            self.inner.journal(query, deadline).await
        }

        async fn remove_if_empty(&self, deadline: &Deadline) -> Result<bool> {
            self.inner.remove_if_empty(deadline).await
        }
    }

    /// Fault: an outage of the database had supervisors restart servers that lived.
    #[tokio::test(start_paused = true)]
    async fn the_storage_has_to_do_with_readiness_and_not_with_life() {
        use tonic_health::pb::health_check_response::ServingStatus::{NotServing, Serving};
        for is_ready_from_cache in [false, true] {
            let storage = Arc::new(Leaving::default());
            let registry = Registry::open(Arc::clone(&storage) as Arc<dyn Backend>, RegistryOptions::default()).await;
            let (health, service) = ServerHealth::new(is_ready_from_cache, Monitoring::new(None)).await;
            let watch = tokio::spawn(health.clone().watch(registry.expect("a registry")));
            let client = HealthClient::new(service);
            let statuses = async || {
                let mut statuses = Vec::new();
                for service in [LIVENESS, READINESS[0], READINESS[1]] {
                    let request = HealthCheckRequest { service: service.to_owned() };
                    statuses.push(client.clone().check(request).await.expect("a status").into_inner().status());
                }
                statuses
            };
            assert_eq!(statuses().await, [Serving; 3]);
            storage.is_away.store(true, Ordering::SeqCst);
            tokio::time::sleep(2 * INTERVAL).await;
            let ready = if is_ready_from_cache { Serving } else { NotServing };
            assert_eq!(statuses().await, [Serving, ready, ready]);
            storage.is_away.store(false, Ordering::SeqCst);
            tokio::time::sleep(2 * INTERVAL).await;
            assert_eq!(statuses().await, [Serving; 3]);
            watch.abort();
            health.is_stopping().await;
            assert_eq!(statuses().await, [Serving, NotServing, NotServing]);
        }
    }
}
