//! Servers: in this process, over a registry in memory that can be looked at.

use std::net::SocketAddr;
use std::sync::Arc;

use feast_registry_core::proto::core::{
    DataSource, Entity, EntitySpecV2, FeatureSpecV2, FeatureView, FeatureViewSpec, data_source,
};
use feast_registry_core::{Backend, Freshness, JournalQuery, Kind, MemoryBackend, Object, Registry, RegistryOptions};
use feast_registry_server::{Ports, RestOptions, ServeOptions, serve};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::client::{Ask, Reply};

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    /// Past all that the server asks of its callers.
    pub(crate) registry: Registry,
    stop: oneshot::Sender<()>,
    pub(crate) task: JoinHandle<feast_registry_core::Result<()>>,
}

/// A server of both on one port.
pub(crate) async fn start() -> Server {
    start_with(ServeOptions::default(), RestOptions::default()).await
}

pub(crate) async fn start_with(options: ServeOptions, rest: RestOptions) -> Server {
    start_on(options, |listener| Ports::Shared(listener, rest)).await
}

pub(crate) async fn start_on(options: ServeOptions, ports: impl FnOnce(TcpListener) -> Ports) -> Server {
    let backend = Arc::new(MemoryBackend::new()) as Arc<dyn Backend>;
    start_over(backend, options, ports).await
}

pub(crate) async fn start_over(
    backend: Arc<dyn Backend>,
    options: ServeOptions,
    ports: impl FnOnce(TcpListener) -> Ports,
) -> Server {
    let registry = Registry::open(backend, RegistryOptions::default()).await.expect("a registry");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (stop, stopped) = oneshot::channel();
    let stopped = async move { drop(stopped.await) };
    let task = tokio::spawn(serve(registry.clone(), ports(listener), options, stopped));
    Server { address, registry, stop, task }
}

impl Server {
    pub(crate) fn ask(&self, method: &str, path: &str) -> Ask {
        Ask::new(self.address, method, path)
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        let reply = self.ask("GET", path).send().await;
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
        reply
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Reply {
        self.ask("PUT", path).json(body).send().await
    }

    pub(crate) async fn apply(&self, project: &str, object: Object) {
        self.registry.apply(project, object).await.expect("an apply");
    }

    /// How many commits there were.
    pub(crate) async fn commits(&self) -> usize {
        self.registry.journal(&JournalQuery::after(None, 10_000)).await.expect("the journal").len()
    }

    pub(crate) async fn stored(&self, kind: Kind, name: &str) -> Option<Object> {
        self.registry.get(kind, "rides", name, Freshness::Stored).await.ok()
    }

    /// Tells it to stop, and hands on what becomes of it.
    pub(crate) fn stop(self) -> JoinHandle<feast_registry_core::Result<()>> {
        drop(self.stop);
        self.task
    }
}

pub(crate) fn entity(name: &str, description: &str) -> Object {
    let spec = EntitySpecV2 { name: name.to_owned(), description: description.to_owned(), ..Default::default() };
    Object::encode(&Entity { spec: Some(spec), meta: None })
}

pub(crate) fn source(name: &str) -> DataSource {
    let options = data_source::FileOptions { uri: "file:///data".to_owned(), ..Default::default() };
    let (file, batch) = (data_source::Options::FileOptions(options), data_source::SourceType::BatchFile);
    DataSource { name: name.to_owned(), r#type: batch.into(), options: Some(file), ..Default::default() }
}

/// A view of an entity, made of a source.
pub(crate) fn view(name: &str, of: &str, features: &[&str]) -> Object {
    let feature = |name: &&str| FeatureSpecV2 { name: (*name).to_owned(), value_type: 4, ..Default::default() };
    let spec = FeatureViewSpec {
        name: name.to_owned(),
        entities: vec![of.to_owned()],
        features: features.iter().map(feature).collect(),
        batch_source: Some(source(&format!("{name}_source"))),
        ..Default::default()
    };
    Object::encode(&FeatureView { spec: Some(spec), meta: None })
}
