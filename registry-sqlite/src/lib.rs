//! A Feast feature registry in a SQLite file, in exactly the tables of Feast's own SQL registry: Feast's `SqlRegistry`
//! may read and write the same file at the same time.
//!
//! The file is kept in SQLite's WAL mode, so that readers never wait for a writer, with `synchronous=FULL`, so that a
//! commit is on the disk when it is acknowledged. All commits of a process go through one thread, which takes those that
//! are waiting into one transaction: many writers share one sync of the disk. Between processes SQLite's write lock
//! decides; it is taken before anything is checked (`BEGIN IMMEDIATE`), which is what makes commits serializable.
//!
//! ```no_run
//! use std::sync::Arc;
//! use feast_registry_core::{Registry, RegistryOptions};
//! use feast_registry_sqlite::SqliteBackend;
//!
//! # async fn open() -> feast_registry_core::Result<()> {
//! let backend = SqliteBackend::open("registry.db")?;
//! let registry = Registry::open(Arc::new(backend), RegistryOptions::default()).await?;
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod connection;
mod error;
mod rows;
mod schema;
mod writer;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use feast_registry_core::config::SchemaMode;
use feast_registry_core::{Backend, Commit, Error, ErrorKind, Limits, Outcome, Query, Record, Result};
use rusqlite::Connection;
use tokio::sync::Semaphore;

use crate::connection::Location;
use crate::writer::Writer;

/// How many connections read at the same time; more readers wait.
const READERS: usize = 16;

/// How often a read is tried while other processes remove the tables and make them again.
const READ_TRIES: usize = 10;

/// SQLite's own limit for one value (`SQLITE_MAX_LENGTH`), less some room for the rest of the row.
const VALUE_BYTES: usize = 999_000_000;

/// A registry in a SQLite file.
#[derive(Debug)]
pub struct SqliteBackend {
    readers: Arc<Readers>,
    writer: Writer,
}

/// Connections for reading; a registry in memory has none, since another connection would see another database.
#[derive(Debug)]
struct Readers {
    location: Location,
    idle: Mutex<Vec<Connection>>,
    permits: Semaphore,
}

impl SqliteBackend {
    /// Opens a file, or makes it. Its tables are made by [`Backend::prepare`].
    ///
    /// A relative path is taken from the working folder, as SQLAlchemy does.
    ///
    /// # Errors
    /// When the file cannot be opened or made, or is not a SQLite database.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::at(Location::file(path.as_ref()))
    }

    /// A registry in memory, gone when it is dropped.
    ///
    /// # Errors
    /// When SQLite has no memory for it.
    pub fn in_memory() -> Result<Self> {
        Self::at(Location::Memory)
    }

    fn at(location: Location) -> Result<Self> {
        let writer = Writer::start(&location)?;
        let readers = Readers { location, idle: Mutex::default(), permits: Semaphore::new(READERS) };
        Ok(Self { readers: Arc::new(readers), writer })
    }

    async fn read_once(&self, queries: &[Query]) -> Result<Vec<Vec<Record>>> {
        if self.readers.location == Location::Memory {
            return self.writer.read(queries.to_vec()).await;
        }
        let readers = Arc::clone(&self.readers);
        let queries = queries.to_vec();
        let _permit = self.readers.permits.acquire().await.map_err(|_| Error::internal("the readers are closed"))?;
        let task = tokio::task::spawn_blocking(move || readers.read(&queries));
        task.await.map_err(|error| Error::internal("a read of the registry was aborted").with_source(error))?
    }
}

impl Readers {
    fn read(&self, queries: &[Query]) -> Result<Vec<Vec<Record>>> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => connection::open_reader(&self.location)?,
        };
        let answers = rows::read(&connection, queries)?;
        // A connection that failed is not used again.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        Ok(answers)
    }
}

#[async_trait]
impl Backend for SqliteBackend {
    fn location(&self) -> String {
        self.readers.location.to_string()
    }

    /// SQLite does not hold columns to their width, and neither does Feast on it.
    fn limits(&self) -> Limits {
        Limits { name_chars: None, value_bytes: VALUE_BYTES, keeps_order: true }
    }

    async fn prepare(&self, mode: SchemaMode) -> Result<()> {
        self.writer.prepare(mode).await
    }

    async fn read(&self, queries: &[Query]) -> Result<Vec<Vec<Record>>> {
        let mut answers = self.read_once(queries).await;
        for _ in 0..READ_TRIES {
            match &answers {
                Err(error) if error.kind() == ErrorKind::SchemaMissing && self.writer.makes_tables() => {}
                _ => break,
            }
            // The tables are gone because the last project is: then there is nothing, and nothing is made for a reader.
            if self.writer.is_empty().await? {
                return Ok(vec![Vec::new(); queries.len()]);
            }
            // Some are missing, or another process has just made them again.
            self.writer.prepare(SchemaMode::Auto).await?;
            answers = self.read_once(queries).await;
        }
        answers
    }

    async fn commit(&self, commit: Commit) -> Result<Outcome> {
        self.writer.commit(commit).await
    }

    async fn remove_if_empty(&self) -> Result<bool> {
        self.writer.remove_if_empty().await
    }
}
