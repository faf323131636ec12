//! Storages that are one file, in a temporary folder of its own for each test.

use std::env;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use async_trait::async_trait;
use feast_registry_conformance::{Exception, Factory, Storage, this_program};
use feast_registry_core::config::SchemaMode;
use feast_registry_core::{Backend, Result};
use tempfile::TempDir;

/// Where a worker finds the file.
const FILE: &str = "CONFORMANCE_FILE";

/// What opens the file.
type Open = fn(PathBuf, SchemaMode) -> Result<Arc<dyn Backend>>;

/// Makes folders for a backend that keeps one file; the name of the test that other processes run; and what this backend
/// cannot do, with the reasons.
pub(crate) struct InFolder(
    pub(crate) Open,
    pub(crate) &'static str,
    pub(crate) &'static [(&'static str, &'static str)],
);

#[async_trait]
impl Factory for InFolder {
    async fn create(&self) -> Arc<dyn Storage> {
        let folder = tempfile::tempdir().expect("a temporary folder for the file");
        Arc::new(Folder { folder, open: self.0, worker: self.1 })
    }

    fn exceptions(&self) -> Vec<Exception> {
        let network = ("network", "a file of this machine: no answer to a system call is lost on its way");
        [network].iter().chain(self.2).map(|(tests, reason)| Exception::new(*tests, *reason)).collect()
    }
}

/// The folder with the file and what is beside it. It is removed when it is dropped.
struct Folder {
    folder: TempDir,
    open: Open,
    worker: &'static str,
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

    fn worker(&self) -> Option<Command> {
        let mut command = this_program(self.worker);
        command.env(FILE, self.file());
        Some(command)
    }

    async fn remove(&self) {}
}

/// What the tests of several processes start. It has nothing to do in an ordinary run.
pub(crate) fn worker(open: Open) {
    feast_registry_conformance::worker(async || {
        open(env::var_os(FILE).expect("the file to open").into(), SchemaMode::Auto)
    });
}
