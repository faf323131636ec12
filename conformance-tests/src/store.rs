//! The storage that a test works on, and the ways to open it.

use std::sync::Arc;
use std::time::Duration;

use feast_registry_core::config::{CacheConfig, CacheMode, SchemaMode};
use feast_registry_core::{Backend, Registry, RegistryOptions};

use crate::factory::{Factory, Storage};
use crate::faulty::FaultyBackend;
use crate::handle::{Handle, or_fail, patience};

/// One storage of a test's own.
#[derive(Clone)]
pub(crate) struct Store {
    pub(crate) storage: Arc<dyn Storage>,
    /// What made it, and the name of the suite: for workers.
    pub(crate) factory: Arc<dyn Factory>,
    pub(crate) suite: Arc<str>,
}

impl Store {
    pub(crate) fn new(storage: Arc<dyn Storage>, factory: Arc<dyn Factory>, suite: Arc<str>) -> Self {
        Self { storage, factory, suite }
    }

    /// By which another process opens the storage.
    pub(crate) fn address(&self) -> String {
        self.storage.address().unwrap_or_else(|| {
            panic!(
                "the storage has no address by which another process opens it; a factory whose storages no other process \
                 can open lists `durability` and `processes` among its exceptions, with the reason"
            )
        })
    }

    /// A backend of its own on the storage, which makes what is missing when it is prepared.
    pub(crate) async fn backend(&self) -> Arc<dyn Backend> {
        self.backend_in(SchemaMode::Auto).await
    }

    /// A backend of its own on the storage, not prepared.
    pub(crate) async fn backend_in(&self, mode: SchemaMode) -> Arc<dyn Backend> {
        or_fail("opening a new handle on the storage", self.storage.open(mode).await)
    }

    /// A handle on the storage, prepared.
    pub(crate) async fn handle(&self) -> Handle {
        let backend = self.backend().await;
        or_fail("preparing the storage (auto)", backend.prepare(&patience()).await);
        Handle(backend)
    }

    /// Several handles on the storage, each a process of its own as far as the backend can tell.
    pub(crate) async fn handles(&self, count: usize) -> Vec<Handle> {
        let mut handles = Vec::with_capacity(count);
        for _ in 0..count {
            handles.push(self.handle().await);
        }
        handles
    }

    /// A registry on a handle of its own.
    pub(crate) async fn registry(&self) -> Registry {
        self.counted_registry(CacheConfig::default()).await.0
    }

    /// A registry on a handle of its own, and the wrapper around that handle, which counts what is asked of it.
    pub(crate) async fn counted_registry(&self, cache: CacheConfig) -> (Registry, Arc<FaultyBackend>) {
        let counted = Arc::new(FaultyBackend::new(self.backend().await));
        let options = RegistryOptions::default().with_cache(cache);
        let opened = Registry::open(Arc::clone(&counted) as Arc<dyn Backend>, options).await;
        (or_fail("opening a registry on the storage", opened), counted)
    }
}

/// A cache that reads anew after this long.
pub(crate) fn cache(mode: CacheMode, ttl: Duration) -> CacheConfig {
    CacheConfig::new(mode, ttl)
}
