//! A Feast feature registry in a SQLite file, in exactly the tables of Feast's own SQL registry: Feast's `SqlRegistry`
//! may read and write the same file at the same time.
//!
//! The file is kept in SQLite's WAL mode, so that readers never wait for a writer, and synced, so that a
//! commit is on the disk when it is acknowledged. All commits of a process go through one thread, which takes those that
//! are waiting into one transaction: many writers share one sync of the disk. Between processes SQLite's write lock
//! decides; it is taken before anything is checked (`BEGIN IMMEDIATE`), which is what makes commits serializable.
//!
//! That is the default; [`JournalMode::Keep`] leaves the mode of the file as it is. A file that this process may not write, or
//! whose folder it may not, is read, and writes are refused.
//!
//! A file that is removed, or over which another is moved, while it is open is neither read nor written any more: that would be
//! lost. The error says so.
//!
//! ```no_run
//! use std::sync::Arc;
//! use feast_registry_core::config::SchemaMode;
//! use feast_registry_core::{Registry, RegistryOptions};
//! use feast_registry_sqlite::SqliteBackend;
//!
//! # async fn open() -> feast_registry_core::Result<()> {
//! let backend = SqliteBackend::open("registry.db", SchemaMode::Auto)?;
//! let registry = Registry::open(Arc::new(backend), RegistryOptions::default()).await?;
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod access;
mod connection;
mod database;
mod error;
mod files;
mod header;
mod options;
mod queue;
mod readers;
mod rows;
mod schema;
mod scheme;
mod session;
mod untouched;
mod writer;

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use feast_registry_core::config::SchemaMode;
use feast_registry_core::{
    Backend, Commit, Deadline, Error, ErrorKind, JournalEntry, JournalQuery, Limits, Outcome, Query, Record, Result,
    Retention, Revision,
};
use feast_registry_sql::{Dialect, Failure, JournalState, attempts};

use crate::connection::Location;
use crate::files::Files;
pub use crate::options::{JournalMode, SqliteOptions};
use crate::readers::Readers;
pub use crate::scheme::SqliteScheme;
use crate::session::Session;
use crate::writer::Writer;

/// SQLite's own limit for one row (`SQLITE_MAX_LENGTH`) is a billion bytes; a row of the journal has a value as it was and
/// as it is.
const VALUE_BYTES: usize = 499_000_000;

/// Why reads of a file wait for writers that may have a rollback journal.
const WAITS_IN_FILE: &str = "reads wait for writers, and writers for reads, while a commit is written into a file with a \
                             rollback journal: SQLite does not do both at once. Leave out `journal_mode=keep`, and the file is \
                             put into WAL mode, in which nobody waits";
/// Why reads of a database in memory do.
const WAITS_IN_MEMORY: &str =
    "reads wait for writers: a database in memory has one connection for all. A file has more";

/// A registry in a SQLite file.
///
/// Dropping it, as [`Backend::close`], ends what has begun and waits for it; what still waits for the lock of another process
/// waits no longer than its caller does.
#[derive(Debug)]
pub struct SqliteBackend {
    location: Location,
    mode: SchemaMode,
    journal: JournalState,
    readers: Arc<Readers>,
    /// Or why nothing can be written.
    writer: Result<Writer, String>,
    /// Why reads wait for writers, if they do.
    reads_wait: Option<&'static str>,
}

impl SqliteBackend {
    /// Opens a file, or makes it. Its tables are made by [`Backend::prepare`], if `mode` says so.
    ///
    /// A relative path is taken from the working folder, as SQLAlchemy does.
    ///
    /// # Errors
    /// When the file cannot be opened or made, or is not a SQLite database.
    pub fn open(path: impl AsRef<Path>, mode: SchemaMode) -> Result<Self> {
        Self::open_with(path, mode, &SqliteOptions::default())
    }

    /// The same as the options of a URL say.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(path: impl AsRef<Path>, mode: SchemaMode, options: &SqliteOptions) -> Result<Self> {
        Self::at(Location::file(path.as_ref()), mode, options)
    }

    /// A registry in memory, gone when it is dropped.
    ///
    /// # Errors
    /// When SQLite has no memory for it.
    pub fn in_memory() -> Result<Self> {
        Self::at(Location::Memory, SchemaMode::Auto, &SqliteOptions::default())
    }

    /// The same with a journal of another size.
    #[must_use]
    pub fn with_retention(mut self, retention: Retention) -> Self {
        self.journal.set_retention(retention);
        self
    }

    fn at(location: Location, mode: SchemaMode, options: &SqliteOptions) -> Result<Self> {
        let journal = JournalState::new(Dialect::Sqlite);
        let reads_wait = match (&location, options.journal_mode) {
            (Location::Memory, _) => Some(WAITS_IN_MEMORY),
            (_, JournalMode::Keep) => Some(WAITS_IN_FILE),
            (_, JournalMode::Wal) => None,
        };
        if let Location::File(path) = &location
            && let Some(absence) = access::absence(path)
        {
            return Err(Error::config(format!("{location}: {absence}")));
        }
        if let Location::File(path) = &location
            && let Some(refusal) = access::refusal(path)
        {
            if let Some(separation) = access::separation(path) {
                return Err(Error::config(format!("{location}: {separation}")));
            }
            // Who is only going to read need not be warned.
            if !options.read_only {
                tracing::warn!("{location} can be read only: {refusal}; writes are refused");
            }
            let readers = Readers::of_untouched(location.clone(), path.clone());
            return Ok(Self { mode, journal, readers: Arc::new(readers), writer: Err(refusal), reads_wait, location });
        }
        let connection = connection::open_writer(&location)?;
        let files = Files::of(&connection, &location)?.map(Arc::new);
        let session = Session::new(connection, location.clone(), files.clone())
            .with_patience(options.timeout)
            .with_journal_mode(options.journal_mode);
        Ok(Self {
            mode,
            journal,
            readers: Arc::new(Readers::new(location.clone(), files)),
            writer: Ok(Writer::start(session, location.to_string())?),
            reads_wait,
            location,
        })
    }

    /// What takes commits.
    ///
    /// # Errors
    /// `ReadOnly` when the file could not be written when it was opened.
    fn writer(&self) -> Result<&Writer, Failure> {
        self.writer.as_ref().map_err(|refusal| {
            let text = format!(
                "{}: {refusal}; nothing was written. Give write access to the file and to its folder, and start again",
                self.location
            );
            Failure::Final(Error::new(ErrorKind::ReadOnly, text))
        })
    }
}

impl Drop for SqliteBackend {
    /// The thread that writes closes its connection last, so that it is the one that tidies up.
    fn drop(&mut self) {
        self.readers.close();
    }
}

#[async_trait]
impl Backend for SqliteBackend {
    fn location(&self) -> String {
        self.location.to_string()
    }

    /// SQLite does not hold columns to their width, and neither does Feast on it.
    fn limits(&self) -> Limits {
        let waits = self.reads_wait.iter().map(|promise| (*promise).to_owned());
        Limits::new(VALUE_BYTES).with_unkept(self.journal.unkept().into_iter().chain(waits).collect())
    }

    async fn prepare(&self, deadline: &Deadline) -> Result<()> {
        attempts::prepare(self, deadline).await
    }

    async fn read(&self, queries: &[Query], deadline: &Deadline) -> Result<Vec<Vec<Record>>> {
        attempts::read(self, queries, deadline).await
    }

    async fn commit(&self, commit: Commit, deadline: &Deadline) -> Result<Outcome> {
        attempts::commit(self, commit, deadline).await
    }

    async fn journal(&self, query: &JournalQuery, deadline: &Deadline) -> Result<Vec<JournalEntry>> {
        attempts::journal(self, query, deadline).await
    }

    async fn newest_revision(&self, deadline: &Deadline) -> Result<Option<Revision>> {
        attempts::newest_revision(self, deadline).await
    }

    async fn prune_journal(&self, retention: &Retention, deadline: &Deadline) -> Result<u64> {
        attempts::prune_journal(self, *retention, deadline).await
    }

    async fn remove_if_empty(&self, deadline: &Deadline) -> Result<bool> {
        attempts::remove_if_empty(self, deadline).await
    }

    async fn close(&self) {
        self.readers.close();
        if let Ok(writer) = &self.writer {
            writer.close().await;
        }
    }
}

/// The examples of the README are compiled with those of the documentation.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
