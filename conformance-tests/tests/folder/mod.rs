//! Storages that are one file, in a temporary folder of its own for each test.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use feast_registry_conformance::{Exception, Factory, Storage};
use feast_registry_core::config::SchemaMode;
use feast_registry_core::{Backend, Result};
use tempfile::TempDir;

/// What opens the file.
type Open = fn(PathBuf, SchemaMode) -> Result<Arc<dyn Backend>>;

/// Makes folders for a backend that keeps one file; and what this backend cannot do, with the reasons.
pub(crate) struct InFolder(pub(crate) Open, pub(crate) &'static [(&'static str, &'static str)]);

#[async_trait]
impl Factory for InFolder {
    async fn create(&self) -> Arc<dyn Storage> {
        let folder = tempfile::tempdir().expect("a temporary folder for the file");
        Arc::new(Folder { folder, open: self.0 })
    }

    fn exceptions(&self) -> Vec<Exception> {
        let network = ("network", "a file of this machine: no answer to a system call is lost on its way");
        [network].iter().chain(self.1).map(|(tests, reason)| Exception::new(*tests, *reason)).collect()
    }

    async fn open_at(&self, address: &str) -> Result<Arc<dyn Backend>> {
        (self.0)(address.into(), SchemaMode::Auto)
    }
}

/// The folder with the file and what is beside it. It is removed when it is dropped.
struct Folder {
    folder: TempDir,
    open: Open,
}

impl Folder {
    fn file(&self) -> PathBuf {
        self.folder.path().join("registry.db")
    }
}

#[async_trait]
impl Storage for Folder {
    async fn open(&self, mode: SchemaMode) -> Result<Arc<dyn Backend>> {
        (self.open)(self.file(), mode)
    }

    fn address(&self) -> Option<String> {
        Some(self.file().to_str().expect("a path of plain characters").to_owned())
    }

    async fn remove(&self) {}
}
