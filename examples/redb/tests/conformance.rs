//! The proof that the backend keeps the contract.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, Weak};

use feast_registry_conformance::{Exception, Factory, Storage, Suite, run};
use feast_registry_core::config::SchemaMode;
use feast_registry_core::{Backend, Result, async_trait};
use feast_registry_redb::{RedbBackend, RedbFile};
use tempfile::TempDir;

fn main() -> ExitCode {
    run([Suite::new("redb", Redb)])
}

/// Makes files, each in a folder of its own.
struct Redb;

#[async_trait]
impl Factory for Redb {
    async fn create(&self) -> Arc<dyn Storage> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Arc::new(File { folder, open: Mutex::default() })
    }

    fn exceptions(&self) -> Vec<Exception> {
        vec![
            Exception::new("processes", "one process at a time has a redb file open"),
            Exception::new("network", "a file of this machine: no answer to a system call is lost on its way"),
        ]
    }

    async fn open_at(&self, address: &str) -> Result<Arc<dyn Backend>> {
        Ok(Arc::new(RedbBackend::open(address, SchemaMode::Auto)?))
    }
}

struct File {
    folder: TempDir,
    /// The file, while a handle has it open. The handles of one process share it.
    open: Mutex<Weak<RedbFile>>,
}

impl File {
    fn path(&self) -> PathBuf {
        self.folder.path().join("registry.redb")
    }
}

#[async_trait]
impl Storage for File {
    async fn open(&self, mode: SchemaMode) -> Result<Arc<dyn Backend>> {
        let mut open = self.open.lock().expect("no test panics while it opens a file");
        let file = match open.upgrade() {
            Some(file) => file,
            None => Arc::new(RedbFile::open(self.path())?),
        };
        *open = Arc::downgrade(&file);
        Ok(Arc::new(RedbBackend::on(file, mode)))
    }

    fn address(&self) -> Option<String> {
        Some(self.path().display().to_string())
    }

    async fn remove(&self) {}
}
