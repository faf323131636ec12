//! A storage backend of the feature registry: a template.
//!
//! It works as it is, since every method hands on to a backend in memory, and the suite passes:
//!
//! ```sh
//! cargo test                       # tests/conformance.rs
//! cargo run -- serve --registry mystore:///tmp/registry
//! ```
//!
//! Replace one method after the other by what your storage does, beginning with `prepare`, `read` and `commit`, and remove the
//! exceptions in `tests/conformance.rs` that are no longer true.

#![forbid(unsafe_code)]

mod scheme;

use std::path::{Path, PathBuf};

use feast_registry_core::config::SchemaMode;
use feast_registry_core::{
    Backend, Commit, Deadline, JournalEntry, JournalQuery, Limits, MemoryBackend, Outcome, Query, Record, Result,
    Retention, Revision, async_trait,
};

pub use crate::scheme::MyScheme;

/// A registry in my store.
#[derive(Debug)]
pub struct MyBackend {
    path: PathBuf,
    mode: SchemaMode,
    /// How much of the journal to keep. What is in memory keeps as much as by default.
    #[expect(dead_code, reason = "for what takes the place of memory")]
    retention: Retention,
    /// What is to be replaced.
    inner: MemoryBackend,
}

impl MyBackend {
    /// The registry at a path.
    ///
    /// # Errors
    /// When the storage cannot be opened.
    pub fn open(path: impl AsRef<Path>, mode: SchemaMode) -> Result<Self> {
        Ok(Self { path: path.as_ref().to_owned(), mode, retention: Retention::default(), inner: MemoryBackend::new() })
    }

    /// The same with a journal of another size.
    #[must_use]
    pub fn with_retention(self, retention: Retention) -> Self {
        Self { retention, ..self }
    }
}

#[async_trait]
impl Backend for MyBackend {
    /// For people to read, without secrets.
    fn location(&self) -> String {
        format!("mystore://{}", self.path.display())
    }

    /// The longest name and the largest object that come back whole, and whether lists keep the order of first storing.
    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    async fn prepare(&self, deadline: &Deadline) -> Result<()> {
        match self.mode {
            // Make what is missing; others may be doing the same.
            SchemaMode::Auto => self.inner.prepare(deadline).await,
            // Fail with `ErrorKind::SchemaMissing` if something is missing, and make nothing.
            SchemaMode::Verify => self.inner.prepare(deadline).await,
            SchemaMode::Skip => Ok(()),
        }
    }

    /// All answers from one snapshot, which has every commit that was acknowledged before. Waits for no writer.
    async fn read(&self, queries: &[Query], deadline: &Deadline) -> Result<Vec<Vec<Record>>> {
        self.inner.read(queries, deadline).await
    }

    /// In one transaction: has this identity been done; do all expectations hold; the writes; the entry of the journal. Durable
    /// when it returns `Committed`.
    async fn commit(&self, commit: Commit, deadline: &Deadline) -> Result<Outcome> {
        self.inner.commit(commit, deadline).await
    }

    /// What came after a revision in the order of commits, or what came before one in the order from the newest back.
    async fn journal(&self, query: &JournalQuery, deadline: &Deadline) -> Result<Vec<JournalEntry>> {
        self.inner.journal(query, deadline).await
    }

    /// Returns when the journal may have more, sooner than the default if the storage can tell. Leave it out otherwise.
    async fn wait_for_commit(&self, after: Option<Revision>, deadline: &Deadline) {
        self.inner.wait_for_commit(after, deadline).await;
    }

    /// The oldest entries beyond the retention, some of them at a time; neither the newest nor those of the last day.
    async fn prune_journal(&self, retention: &Retention, deadline: &Deadline) -> Result<u64> {
        self.inner.prune_journal(retention, deadline).await
    }

    /// Only where no project is left, and the mode is `Auto`; the journal stays.
    async fn remove_if_empty(&self, deadline: &Deadline) -> Result<bool> {
        Ok(self.mode == SchemaMode::Auto && self.inner.remove_if_empty(deadline).await?)
    }
}
