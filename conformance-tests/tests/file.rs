//! The suite on a local file, in a folder of its own for each test.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use feast_registry_conformance::{Suite, run};
use feast_registry_core::config::{History, SchemaMode};
use feast_registry_core::{Backend, Result};
use feast_registry_file::FileBackend;

mod folder;

fn main() -> ExitCode {
    run([
        Suite::new("file", folder::InFolder(open, &[])),
        Suite::new("file_with_full_history", folder::InFolder(open_full, &[])),
    ])
}

fn open(file: PathBuf, mode: SchemaMode) -> Result<Arc<dyn Backend>> {
    Ok(Arc::new(FileBackend::local(file, mode)))
}

fn open_full(file: PathBuf, mode: SchemaMode) -> Result<Arc<dyn Backend>> {
    Ok(Arc::new(FileBackend::local(file, mode).with_history(History::Full)))
}
