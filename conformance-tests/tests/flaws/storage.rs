//! Storages whose handles have a flaw.

use std::env;
use std::process::Command;
use std::sync::Arc;

use async_trait::async_trait;
use feast_registry_conformance::{Exception, Factory, Link, Storage, this_program, worker};
use feast_registry_core::config::SchemaMode;
use feast_registry_core::{Backend, MemoryBackend, Result};
use feast_registry_sqlite::SqliteBackend;
use tempfile::TempDir;

use crate::backend::{Flaw, State, flawed};
use crate::link::{Linked, Way};

/// Makes storages in memory, with a flaw.
pub(crate) struct InMemory(pub(crate) Flaw);

#[async_trait]
impl Factory for InMemory {
    async fn create(&self) -> Arc<dyn Storage> {
        let inner: Arc<dyn Backend> = Arc::new(MemoryBackend::new());
        Arc::new(Memory { flaw: self.0, inner, state: Arc::default() })
    }

    fn exceptions(&self) -> Vec<Exception> {
        vec![Exception::new("processes", "it is in memory; `InFile` is for these")]
    }
}

struct Memory {
    flaw: Flaw,
    inner: Arc<dyn Backend>,
    state: Arc<State>,
}

#[async_trait]
impl Storage for Memory {
    async fn open(&self, mode: SchemaMode) -> Result<Arc<dyn Backend>> {
        let is_alone = self.flaw == Flaw::DiesWithItsHandle;
        let inner = if is_alone { Arc::new(MemoryBackend::new()) } else { Arc::clone(&self.inner) };
        Ok(flawed(inner, self.flaw, mode, Arc::clone(&self.state)))
    }

    async fn open_with_link(&self, mode: SchemaMode) -> Result<Option<(Arc<dyn Backend>, Arc<dyn Link>)>> {
        let way = Arc::new(Way::default());
        let flawed = flawed(Arc::clone(&self.inner), self.flaw, mode, Arc::clone(&self.state));
        Ok(Some((Arc::new(Linked::new(flawed, self.flaw, Arc::clone(&way))), way)))
    }

    fn worker(&self) -> Option<Command> {
        None
    }

    async fn remove(&self) {}
}

/// Makes storages in SQLite files; processes that work on them have a flaw.
pub(crate) struct InFile(pub(crate) Flaw);

#[async_trait]
impl Factory for InFile {
    async fn create(&self) -> Arc<dyn Storage> {
        Arc::new(File { flaw: self.0, folder: tempfile::tempdir().expect("a temporary folder") })
    }

    fn exceptions(&self) -> Vec<Exception> {
        Vec::new()
    }
}

struct File {
    flaw: Flaw,
    folder: TempDir,
}

/// Where a worker finds the file, and the name of its flaw.
const FILE: &str = "FLAWED_FILE";
const FLAW: &str = "FLAW";

#[async_trait]
impl Storage for File {
    async fn open(&self, mode: SchemaMode) -> Result<Arc<dyn Backend>> {
        Ok(Arc::new(SqliteBackend::open(self.folder.path().join("registry.db"), mode)?))
    }

    fn worker(&self) -> Option<Command> {
        let mut command = this_program("worker");
        command.env(FILE, self.folder.path().join("registry.db")).env(FLAW, format!("{:?}", self.flaw));
        Some(command)
    }

    async fn remove(&self) {}
}

/// What a worker does.
pub(crate) fn work(flaws: impl IntoIterator<Item = Flaw>) {
    worker(async || {
        let (file, name) = (env::var_os(FILE).unwrap_or_default(), env::var(FLAW).unwrap_or_default());
        let flaw = flaws.into_iter().find(|flaw| format!("{flaw:?}") == name).unwrap_or(Flaw::None);
        let inner = Arc::new(SqliteBackend::open(file, SchemaMode::Auto)?);
        Ok(flawed(inner, flaw, SchemaMode::Auto, Arc::default()))
    });
}
