//! The suite on a local file, in a folder of its own for each test.

use std::path::PathBuf;
use std::sync::Arc;

use feast_registry_conformance::conformance_tests;
use feast_registry_core::config::SchemaMode;
use feast_registry_core::{Backend, Result};
use feast_registry_file::FileBackend;

mod folder;

fn open(file: PathBuf, mode: SchemaMode) -> Result<Arc<dyn Backend>> {
    Ok(Arc::new(FileBackend::local(file, mode)))
}

conformance_tests!(folder::InFolder(open, "worker", &[]));

#[test]
fn worker() {
    folder::worker(open);
}
