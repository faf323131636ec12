//! A Feast feature registry in one file: the protobuf message `feast.core.Registry`, which Feast's own file registry reads
//! and writes.
//!
//! The file is replaced whole, and only if it is still the one that a change was made from. On a disk that takes a lock
//! file, a temporary file and a rename; in an object store it is a conditional write. All commits that wait in a process
//! go out in one write. In memory the objects stay serialized, with an index on top.
//!
//! ```no_run
//! use std::sync::Arc;
//! use feast_registry_core::config::SchemaMode;
//! use feast_registry_core::{Registry, RegistryOptions};
//! use feast_registry_file::FileBackend;
//!
//! # async fn open() -> feast_registry_core::Result<()> {
//! # #[cfg(feature = "local")] {
//! let backend = FileBackend::local("data/registry.db", SchemaMode::Auto);
//! let registry = Registry::open(Arc::new(backend), RegistryOptions::default()).await?;
//! # }
//! # Ok(())
//! # }
//! ```
//!
//! What Feast's message has no field for (user metadata of views, an infrastructure for each project, when a project was
//! last changed, the journal) is in a field that Feast does not know and that its protobuf library passes on.
//!
//! The journal has what this library has written. It says which keys a commit changed, not what was stored there; and it has
//! as many of the newest commits as fit into a sixteenth of the file, or into 256 KiB if that is more. With
//! [`History::Full`] it has the bytes too, and up to half of the file, or 4 MiB.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

#[cfg(feature = "cloud")]
mod cloud;
mod document;
mod extra;
mod file;
mod journal;
#[cfg(feature = "local")]
mod local;
mod queue;
#[cfg(any(feature = "local", feature = "cloud"))]
mod scheme;
mod staged;
mod store;
mod writer;

use std::sync::Arc;

use async_trait::async_trait;
use feast_registry_core::config::{History, SchemaMode};
use feast_registry_core::{
    Backend, Commit, Deadline, Error, JournalEntry, JournalQuery, Limits, Outcome, Query, Record, Result, Retention,
};

use crate::file::File;
use crate::journal::Keeps;
#[cfg(any(feature = "local", feature = "cloud"))]
pub use crate::scheme::FileScheme;
use crate::writer::Writer;

/// protobuf's own limit for a message is 2 GiB, and all of the registry is one: this much is for one object of it.
const VALUE_BYTES: usize = 1 << 30;

/// A registry in a file.
#[derive(Debug)]
pub struct FileBackend {
    file: Arc<File>,
    writer: Writer,
}

impl FileBackend {
    /// A registry in a local file. Nothing is opened yet; a relative path is taken from the working folder.
    ///
    /// Beside the file there is a hidden lock file, which stays, and while it is written a temporary one.
    #[cfg(feature = "local")]
    pub fn local(path: impl Into<std::path::PathBuf>, mode: SchemaMode) -> Self {
        Self::on(local::LocalFile::new(path.into()), mode)
    }

    /// The registry in an object store that a URL names: `s3://bucket/path`, `gs://bucket/path`, `az://container/path`,
    /// `abfss://container@account.dfs.core.windows.net/path`. No request is sent yet.
    ///
    /// Credentials, region and endpoint are found as the tools of the store find them: in the environment (`AWS_…`,
    /// `GOOGLE_…`, `AZURE_…`) and from the machine's own identity. `FEAST_S3_ENDPOINT_URL`, `STORAGE_EMULATOR_HOST` and
    /// `REGISTRY_BLOB_KEY` mean what they mean to Feast.
    ///
    /// # Errors
    /// `InvalidConfig` when the URL or a setting cannot be, or when the store is not compiled in.
    #[cfg(feature = "cloud")]
    pub fn in_object_store(
        url: &feast_registry_core::config::RegistryUrl,
        config: &feast_registry_core::config::ObjectStoreConfig,
        mode: SchemaMode,
    ) -> Result<Self> {
        Ok(Self::on(cloud::CloudObject::open(url, config)?, mode))
    }

    fn on(store: impl store::Store, mode: SchemaMode) -> Self {
        let file = Arc::new(File::new(store, mode));
        Self { writer: Writer::new(Arc::clone(&file), Keeps::default()), file }
    }

    /// The same with another bound for the journal. What does not fit into the file is not kept in any case.
    #[must_use]
    pub fn with_retention(self, retention: Retention) -> Self {
        let keeps = Keeps { retention, ..self.writer.keeps() };
        Self { writer: Writer::new(Arc::clone(&self.file), keeps), file: self.file }
    }

    /// The same with a journal that keeps this of each change.
    ///
    /// With [`History::Full`] entries take up to half of the file, or 4 MiB if that is more, instead of a sixteenth or 256 KiB.
    /// All of that is read when the file has changed and written with each commit: about a byte for each byte that is written
    /// or removed, since of an object that changes little what was there before takes next to nothing. All who write the file
    /// are to be set the same: who keeps keys leaves the bytes of earlier entries where they are, but only as long as they fit
    /// into the room that there is for keys.
    #[must_use]
    pub fn with_history(self, history: History) -> Self {
        let keeps = Keeps { history, ..self.writer.keeps() };
        Self { writer: Writer::new(Arc::clone(&self.file), keeps), file: self.file }
    }

    /// How often the file was written, and how often a write found that another process had been faster. For tests and
    /// figures.
    pub fn statistics(&self) -> Statistics {
        self.writer.statistics()
    }
}

/// What the writing of a file took, since the backend was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Commits that were done.
    pub commits: u64,
    /// Times that the file was written for them.
    pub writes: u64,
    /// Times that the file had been changed by another process when it was to be written.
    pub conflicts: u64,
    /// Writes whose answer was lost and that were then found to be done.
    pub recovered: u64,
}

#[async_trait]
impl Backend for FileBackend {
    fn location(&self) -> String {
        self.file.location()
    }

    fn limits(&self) -> Limits {
        let identities = format!(
            "the identity of a commit is kept for 24 hours unless more than {} commits are made in that time (or, in a file \
             of more than 3 MB, as many as fit into a thirty-second of it): all of it is written with each commit",
            journal::IDENTITIES
        );
        Limits::new(VALUE_BYTES).with_unkept([identities].into_iter().chain(self.file.unkept()).collect())
    }

    async fn prepare(&self, deadline: &Deadline) -> Result<()> {
        match self.file.mode() {
            SchemaMode::Skip => Ok(()),
            SchemaMode::Verify => match self.file.fresh(deadline).await?.document {
                Some(_) => Ok(()),
                None => Err(self.file.missing()),
            },
            SchemaMode::Auto => {
                self.file.check(deadline).await?;
                match self.file.fresh(deadline).await?.document {
                    Some(_) => Ok(()),
                    None => {
                        self.writer.create(deadline).await?;
                        let location = self.file.location();
                        tracing::warn!(
                            "made a new registry at {location}, since there was none; is that the place you meant?"
                        );
                        Ok(())
                    }
                }
            }
        }
    }

    async fn read(&self, queries: &[Query], deadline: &Deadline) -> Result<Vec<Vec<Record>>> {
        let snapshot = self.file.fresh(deadline).await?;
        let is_removed = || self.file.mode() == SchemaMode::Skip && snapshot.is_removed();
        match &snapshot.document {
            Some(document) => Ok(document.read(queries)),
            None if self.file.makes() || is_removed() => Ok(vec![Vec::new(); queries.len()]),
            None => Err(self.file.missing()),
        }
    }

    async fn commit(&self, commit: Commit, deadline: &Deadline) -> Result<Outcome> {
        self.writer.commit(commit, deadline).await
    }

    async fn journal(&self, query: &JournalQuery, deadline: &Deadline) -> Result<Vec<JournalEntry>> {
        self.file.fresh(deadline).await?.journal().read(query, &self.file.location())
    }

    async fn prune_journal(&self, retention: &Retention, deadline: &Deadline) -> Result<u64> {
        self.writer.prune_journal(*retention, deadline).await
    }

    async fn remove_if_empty(&self, deadline: &Deadline) -> Result<bool> {
        self.writer.remove_if_empty(deadline).await
    }

    /// Takes no more commits, and waits for those that it has taken.
    async fn close(&self) {
        self.writer.close().await;
    }
}

/// The same error for another who waits for the same.
fn copy_of(error: &Error) -> Error {
    Error::new(error.kind(), error.to_string())
}

/// The examples of the README are compiled with those of the documentation.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
