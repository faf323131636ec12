//! The suite on SQLite: on a file of its own for each test, on such a file that keeps its rollback journal, and on a database
//! in memory.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use async_trait::async_trait;
use feast_registry_conformance::{Exception, Factory, Storage, Suite, run};
use feast_registry_core::config::SchemaMode;
use feast_registry_core::{Backend, Result};
use feast_registry_sqlite::{JournalMode, SqliteBackend, SqliteOptions};

mod folder;

fn main() -> ExitCode {
    run([
        Suite::new("sqlite", folder::InFolder(open, &[])),
        Suite::new("sqlite_with_rollback_journal", folder::InFolder(open_with_rollback_journal, WITH_ROLLBACK_JOURNAL)),
        Suite::new("sqlite_in_memory", InMemory),
    ])
}

fn open(file: PathBuf, mode: SchemaMode) -> Result<Arc<dyn Backend>> {
    Ok(Arc::new(SqliteBackend::open(file, mode)?))
}

fn open_with_rollback_journal(file: PathBuf, mode: SchemaMode) -> Result<Arc<dyn Backend>> {
    let mut options = SqliteOptions::default();
    options.journal_mode = JournalMode::Keep;
    let backend = SqliteBackend::open_with(&file, mode, &options)?;
    assert!(!file.with_file_name("registry.db-wal").exists(), "it was put into WAL mode");
    Ok(Arc::new(backend))
}

const WITH_ROLLBACK_JOURNAL: &[(&str, &str)] = &[(
    "waiting",
    "with a rollback journal SQLite lets nobody read while it writes a commit into the file; `Limits::unkept` says so",
)];

/// Makes databases that are gone with their one connection.
struct InMemory;

#[async_trait]
impl Factory for InMemory {
    async fn create(&self) -> Arc<dyn Storage> {
        Arc::new(Database(Arc::new(SqliteBackend::in_memory().expect("a database in memory"))))
    }

    fn exceptions(&self) -> Vec<Exception> {
        vec![
            Exception::new("durability", "a database in memory is gone with its process"),
            Exception::new("processes", "a database in memory is one process's own"),
            Exception::new("journal::it_outlives_its_handle", "its one handle is the storage itself"),
            Exception::new("network", "nothing lies between memory and who uses it"),
            Exception::new("storage::only_auto_removes", "its one handle is prepared anew by every mode that asks"),
            Exception::new("storage::verify_creates_nothing", "the same"),
            Exception::new("waiting", "its one connection writes and reads; `Limits::unkept` says so"),
            Exception::new("lifetime::calls_after_closing", "what its one handle wrote is gone when it is closed"),
            Exception::new("lifetime::closing_cuts_off_no_commit", "the same"),
        ]
    }
}

struct Database(Arc<SqliteBackend>);

#[async_trait]
impl Storage for Database {
    async fn open(&self, _: SchemaMode) -> Result<Arc<dyn Backend>> {
        Ok(Arc::clone(&self.0) as Arc<dyn Backend>)
    }

    async fn remove(&self) {}
}
