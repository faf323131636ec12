//! Stores that one process at a time has open, and in it once, as embedded stores are; and one that keeps what it has
//! acknowledged in its own memory.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use feast_registry_conformance::{Exception, Factory, Storage};
use feast_registry_core::config::SchemaMode;
use feast_registry_core::{
    Backend, Commit, Deadline, Error, ErrorKind, JournalEntry, JournalQuery, Key, Kind, Limits, MemoryBackend, Outcome,
    Query, Result, Retention, Write,
};
use feast_registry_sqlite::SqliteBackend;
use tempfile::TempDir;
use tokio::sync::Mutex;

use crate::backend::{Flaw, flawed, patience};
use crate::storage;

/// Makes such stores, in SQLite files; processes that work on them have a flaw.
pub(crate) struct InOwnFile(pub(crate) Flaw);

#[async_trait]
impl Factory for InOwnFile {
    async fn create(&self) -> Arc<dyn Storage> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Arc::new(OwnFile { folder, opened: Mutex::new(Weak::<Alone>::new()) })
    }

    fn exceptions(&self) -> Vec<Exception> {
        vec![
            Exception::new("processes", "one process at a time has it open"),
            Exception::new("network", "it is a file of this machine"),
        ]
    }

    async fn open_at(&self, address: &str) -> Result<Arc<dyn Backend>> {
        let stays_open = self.0 == Flaw::StaysOpenWhenClosed;
        let mut inner: Arc<dyn Backend> = Arc::new(Alone::open(Path::new(address), SchemaMode::Auto, stays_open)?);
        if self.0 == Flaw::KeepsTheLastInMemory {
            inner = Arc::new(WriteBehind { file: inner, memory: MemoryBackend::new(), kept: Mutex::default() });
        }
        Ok(flawed(inner, self.0, SchemaMode::Auto, Arc::default()))
    }

    fn worker(&self) -> Command {
        storage::worker(self.0, true)
    }
}

struct OwnFile {
    folder: TempDir,
    /// The one handle, as long as somebody uses it.
    opened: Mutex<Weak<Alone>>,
}

#[async_trait]
impl Storage for OwnFile {
    async fn open(&self, mode: SchemaMode) -> Result<Arc<dyn Backend>> {
        let mut opened = self.opened.lock().await;
        if let Some(backend) = opened.upgrade() {
            return Ok(backend);
        }
        let backend = Arc::new(Alone::open(self.folder.path(), mode, false)?);
        *opened = Arc::downgrade(&backend);
        Ok(backend)
    }

    fn address(&self) -> Option<String> {
        Some(self.folder.path().display().to_string())
    }

    async fn remove(&self) {}
}

/// A handle that nobody has another one beside.
#[derive(Debug)]
struct Alone {
    inner: SqliteBackend,
    /// Locked as long as this is there.
    lock: std::sync::Mutex<Option<fs::File>>,
    /// Whether it keeps the lock when it is closed, until it is dropped.
    stays_open: bool,
}

impl Alone {
    fn open(folder: &Path, mode: SchemaMode, stays_open: bool) -> Result<Self> {
        let lock = fs::File::create(folder.join("lock")).expect("a file to lock");
        lock.try_lock().map_err(|error| Error::new(ErrorKind::Unavailable, format!("it is open already: {error}")))?;
        let inner = SqliteBackend::open(folder.join("registry.db"), mode)?;
        Ok(Self { inner, lock: Some(lock).into(), stays_open })
    }
}

#[async_trait]
impl Backend for Alone {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    async fn prepare(&self, deadline: &Deadline) -> Result<()> {
        self.inner.prepare(deadline).await
    }

    async fn read(&self, queries: &[Query], deadline: &Deadline) -> Result<Vec<Vec<feast_registry_core::Record>>> {
        self.inner.read(queries, deadline).await
    }

    async fn commit(&self, commit: Commit, deadline: &Deadline) -> Result<Outcome> {
        self.inner.commit(commit, deadline).await
    }

    async fn journal(&self, query: &JournalQuery, deadline: &Deadline) -> Result<Vec<JournalEntry>> {
        self.inner.journal(query, deadline).await
    }

    async fn prune_journal(&self, retention: &Retention, deadline: &Deadline) -> Result<u64> {
        self.inner.prune_journal(retention, deadline).await
    }

    async fn remove_if_empty(&self, deadline: &Deadline) -> Result<bool> {
        self.inner.remove_if_empty(deadline).await
    }

    async fn close(&self) {
        self.inner.close().await;
        if !self.stays_open {
            drop(self.lock.lock().expect("nobody panics with it").take());
        }
    }
}

/// Answers from its memory, and writes behind: when there is enough, and when it is closed.
#[derive(Debug)]
struct WriteBehind {
    file: Arc<dyn Backend>,
    memory: MemoryBackend,
    kept: Mutex<Vec<Commit>>,
}

impl WriteBehind {
    /// As many commits are kept.
    const KEPT: usize = 8;

    async fn flush(&self, kept: &mut Vec<Commit>) -> Result<()> {
        for commit in kept.drain(..) {
            self.file.commit(commit, &patience()).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Backend for WriteBehind {
    fn location(&self) -> String {
        self.file.location()
    }

    fn limits(&self) -> Limits {
        self.file.limits()
    }

    async fn prepare(&self, deadline: &Deadline) -> Result<()> {
        self.file.prepare(deadline).await?;
        let mut queries: Vec<Query> = Kind::ALL.iter().map(|kind| Query::objects(*kind, None)).collect();
        queries.push(Query::Metadata { project: None });
        let mut stored = self.file.read(&queries, deadline).await?.concat();
        for &kind in Kind::VIEWS {
            for view in self.file.read(&[Query::objects(kind, None)], deadline).await?.concat() {
                let Key::Object { project, name, .. } = view.key else { continue };
                let history = Query::Versions { project, view: name, latest_only: false };
                stored.extend(self.file.read(&[history], deadline).await?.concat());
            }
        }
        let stored = stored.into_iter().map(Write::Put).collect();
        self.memory.commit(Commit::new(Vec::new(), stored), deadline).await.map(drop)
    }

    async fn read(&self, queries: &[Query], deadline: &Deadline) -> Result<Vec<Vec<feast_registry_core::Record>>> {
        self.memory.read(queries, deadline).await
    }

    async fn commit(&self, commit: Commit, deadline: &Deadline) -> Result<Outcome> {
        let mut kept = self.kept.lock().await;
        let outcome = self.memory.commit(commit.clone(), deadline).await?;
        if outcome.is_committed() {
            kept.push(commit);
            if kept.len() >= Self::KEPT {
                self.flush(&mut kept).await?;
            }
        }
        Ok(outcome)
    }

    async fn journal(&self, query: &JournalQuery, deadline: &Deadline) -> Result<Vec<JournalEntry>> {
        self.memory.journal(query, deadline).await
    }

    async fn remove_if_empty(&self, _: &Deadline) -> Result<bool> {
        Ok(false)
    }

    async fn close(&self) {
        let mut kept = self.kept.lock().await;
        self.flush(&mut kept).await.expect("the file is there");
        self.file.close().await;
    }
}
