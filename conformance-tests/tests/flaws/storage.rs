//! Storages whose handles have a flaw.

use std::process::Command;
use std::sync::Arc;

use async_trait::async_trait;
use feast_registry_conformance::{Exception, Factory, Link, Storage};
use feast_registry_core::config::SchemaMode;
use feast_registry_core::{Backend, MemoryBackend, Result};
use feast_registry_sqlite::SqliteBackend;
use tempfile::TempDir;

use crate::backend::{Flaw, State, flawed};
use crate::link::{Linked, Way};
use crate::this_program::this_program;

/// Makes storages in memory, with a flaw.
pub(crate) struct InMemory(pub(crate) Flaw);

#[async_trait]
impl Factory for InMemory {
    async fn create(&self) -> Arc<dyn Storage> {
        let inner: Arc<dyn Backend> = Arc::new(MemoryBackend::new());
        Arc::new(Memory { flaw: self.0, inner, state: Arc::default() })
    }

    fn exceptions(&self) -> Vec<Exception> {
        vec![
            Exception::new("durability", "it is in memory; `InOwnFile` is for these"),
            Exception::new("processes", "it is in memory; `InFile` is for these"),
        ]
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

    async fn remove(&self) {}
}

/// Makes storages in SQLite files; processes that work on them have a flaw.
pub(crate) struct InFile(pub(crate) Flaw);

#[async_trait]
impl Factory for InFile {
    async fn create(&self) -> Arc<dyn Storage> {
        Arc::new(File { folder: tempfile::tempdir().expect("a temporary folder") })
    }

    fn exceptions(&self) -> Vec<Exception> {
        Vec::new()
    }

    async fn open_at(&self, address: &str) -> Result<Arc<dyn Backend>> {
        Ok(flawed(Arc::new(SqliteBackend::open(address, SchemaMode::Auto)?), self.0, SchemaMode::Auto, Arc::default()))
    }

    fn worker(&self) -> Command {
        worker(self.0, false)
    }
}

/// Which flaw a worker of this program has, and whether its storage is open nowhere else.
const FLAW: &str = "FLAW";
pub(crate) const ALONE: &str = "FLAWED_ALONE";

/// A worker that has a flaw: this program has a runner of another sort, which finds it by the name of a test.
pub(crate) fn worker(flaw: Flaw, is_alone: bool) -> Command {
    let mut command = this_program("worker");
    command.env(FLAW, format!("{flaw:?}")).envs(is_alone.then_some((ALONE, "1")));
    command
}

/// The flaw that this process was started with, if it is a worker.
pub(crate) fn flaw_of_worker(flaws: impl IntoIterator<Item = Flaw>) -> Flaw {
    let name = std::env::var(FLAW).unwrap_or_default();
    flaws.into_iter().find(|flaw| format!("{flaw:?}") == name).unwrap_or(Flaw::None)
}

struct File {
    folder: TempDir,
}

#[async_trait]
impl Storage for File {
    async fn open(&self, mode: SchemaMode) -> Result<Arc<dyn Backend>> {
        Ok(Arc::new(SqliteBackend::open(self.folder.path().join("registry.db"), mode)?))
    }

    fn address(&self) -> Option<String> {
        Some(self.folder.path().join("registry.db").display().to_string())
    }

    async fn remove(&self) {}
}
