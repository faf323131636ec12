//! What a request says of how it is to be done: its deadline, and why something is changed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use feast_registry::{
    Backend, Commit, Deadline, JournalEntry, JournalQuery, Limits, MemoryBackend, Outcome, Query, Record, Registry,
    RegistryOptions, Result, Retention, async_trait,
};
use feast_registry_core::Encoded;
use feast_registry_core::proto::core::{Entity, EntitySpecV2};
use feast_registry_server::proto::registry_server_client::RegistryServerClient;
use feast_registry_server::proto::{ApplyEntityRequest, GetEntityRequest};
use feast_registry_server::{ServeOptions, serve};
use tokio::net::TcpListener;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};

/// A storage that can fall silent.
#[derive(Debug, Default)]
struct Silenced {
    inner: MemoryBackend,
    is_silent: AtomicBool,
}

#[async_trait]
impl Backend for Silenced {
    fn location(&self) -> String {
        "silenced://".to_owned()
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    async fn prepare(&self, deadline: &Deadline) -> Result<()> {
        self.inner.prepare(deadline).await
    }

    async fn read(&self, queries: &[Query], deadline: &Deadline) -> Result<Vec<Vec<Record>>> {
        if self.is_silent.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        self.inner.read(queries, deadline).await
    }

    async fn commit(&self, commit: Commit, deadline: &Deadline) -> Result<Outcome> {
        self.inner.commit(commit, deadline).await
    }

    async fn journal(&self, query: &JournalQuery, deadline: &Deadline) -> Result<Vec<JournalEntry>> {
        self.inner.journal(query, deadline).await
    }

    async fn prune_journal(&self, retention: &Retention, deadline: &Deadline) -> Result<u64> {
        self.inner.prune_journal(retention, deadline).await
    }

    async fn remove_if_empty(&self, deadline: &Deadline) -> Result<bool> {
        self.inner.remove_if_empty(deadline).await
    }
}

async fn served(options: ServeOptions) -> (RegistryServerClient<Channel>, Registry, Arc<Silenced>) {
    let storage = Arc::new(Silenced::default());
    let registry = Registry::open(Arc::clone(&storage) as Arc<dyn Backend>, RegistryOptions::default()).await;
    let registry = registry.expect("a registry");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(serve(registry.clone(), listener, options, std::future::pending()));
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("a URL");
    (RegistryServerClient::new(endpoint.connect().await.expect("a connection")), registry, storage)
}

fn get() -> GetEntityRequest {
    GetEntityRequest { project: "p".to_owned(), name: "driver".to_owned(), allow_cache: false }
}

#[tokio::test]
async fn a_call_ends_at_its_clients_deadline_or_the_servers_own() {
    let mut options = ServeOptions::default();
    options.request_timeout = Duration::from_secs(1);
    let (mut client, _, storage) = served(options).await;
    storage.is_silent.store(true, Ordering::SeqCst);
    for client_timeout in [None, Some(Duration::from_secs(3))] {
        let mut request = Request::new(get());
        if let Some(timeout) = client_timeout {
            // As another client says it; tonic's own would give up by itself.
            let timeout = format!("{}m", timeout.as_millis());
            request.metadata_mut().insert("grpc-timeout", timeout.parse().expect("a value"));
        }
        let began = Instant::now();
        let status = client.get_entity(request).await.expect_err("a silent storage");
        let took = began.elapsed();
        assert_eq!(status.code(), Code::DeadlineExceeded, "{client_timeout:?}: {status:?}");
        assert!(status.message().contains("nothing was done"), "{status:?}");
        let expected = client_timeout.unwrap_or(Duration::from_secs(1));
        assert!(took >= expected.mul_f64(0.9) && took < expected + Duration::from_secs(10), "{took:?}");
    }
}

#[tokio::test]
async fn the_reason_of_a_change_is_in_the_journal() {
    let (mut client, registry, _) = served(ServeOptions::default()).await;
    let spec = EntitySpecV2 { name: "driver".to_owned(), ..Default::default() };
    let entity = Encoded::new(&Entity { spec: Some(spec), meta: None });
    let mut request = Request::new(ApplyEntityRequest { project: "p".to_owned(), entity: Some(entity), commit: true });
    request.metadata_mut().insert("x-registry-reason", "release 7".parse().expect("a value"));
    client.apply_entity(request).await.expect("an apply");
    let entries = registry.journal(&JournalQuery::after(None, 10)).await.expect("the journal");
    assert_eq!(entries.last().and_then(|entry| entry.reason.as_deref()), Some("release 7"));
}
