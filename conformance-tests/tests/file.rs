//! The suite on a local file, in a folder of its own for each test.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use async_trait::async_trait;
use conformance_tests::{Exception, Factory, Storage, conformance_tests, this_program};
use registry_core::{Backend, Result};
use registry_file::FileBackend;
use tempfile::TempDir;

/// Where a worker finds the file.
const FILE: &str = "REGISTRY_FILE";

struct Local;

#[async_trait]
impl Factory for Local {
    async fn create(&self) -> Arc<dyn Storage> {
        Arc::new(Folder(tempfile::tempdir().expect("a temporary folder for the file")))
    }

    fn exceptions(&self) -> Vec<Exception> {
        Vec::new()
    }
}

/// The folder with the file and what is beside it. It is removed when it is dropped.
struct Folder(TempDir);

impl Folder {
    fn file(&self) -> PathBuf {
        self.0.path().join("registry.db")
    }
}

fn open(file: impl Into<OsString>) -> Result<Arc<dyn Backend>> {
    Ok(Arc::new(FileBackend::local(PathBuf::from(file.into()))))
}

#[async_trait]
impl Storage for Folder {
    async fn open(&self) -> Result<Arc<dyn Backend>> {
        open(self.file())
    }

    fn worker(&self) -> Option<Command> {
        let mut command = this_program("worker");
        command.env(FILE, self.file());
        Some(command)
    }

    async fn remove(&self) {}
}

conformance_tests!(Local);

/// What the tests of several processes start. It has nothing to do in an ordinary run.
#[test]
fn worker() {
    conformance_tests::worker(async || open(env::var_os(FILE).expect("the file to open")));
}
