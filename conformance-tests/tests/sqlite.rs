//! The suite on SQLite, in a file of its own for each test.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use async_trait::async_trait;
use feast_registry_conformance::{Exception, Factory, Storage, conformance_tests};
use feast_registry_core::config::SchemaMode;
use feast_registry_core::{Backend, Result};
use feast_registry_sqlite::SqliteBackend;

mod folder;

fn open(file: PathBuf, mode: SchemaMode) -> Result<Arc<dyn Backend>> {
    Ok(Arc::new(SqliteBackend::open(file, mode)?))
}

conformance_tests!(folder::InFolder(open, "worker", &[]));

#[test]
fn worker() {
    folder::worker(open);
}

/// The same tests on files that keep their rollback journal.
mod with_rollback_journal {
    use feast_registry_sqlite::{JournalMode, SqliteOptions};

    use super::*;

    fn open(file: PathBuf, mode: SchemaMode) -> Result<Arc<dyn Backend>> {
        let mut options = SqliteOptions::default();
        options.journal_mode = JournalMode::Keep;
        let backend = SqliteBackend::open_with(&file, mode, &options)?;
        assert!(!file.with_file_name("registry.db-wal").exists(), "it was put into WAL mode");
        Ok(Arc::new(backend))
    }

    const EXCEPTIONS: &[(&str, &str)] = &[(
        "waiting",
        "with a rollback journal SQLite lets nobody read while it writes a commit into the file; `Limits::unkept` says so",
    )];

    conformance_tests!(folder::InFolder(open, "with_rollback_journal::worker", EXCEPTIONS));

    #[test]
    fn worker() {
        folder::worker(open);
    }
}

/// The same tests on a database that is gone with its one connection.
mod in_memory {
    use super::*;

    struct InMemory;

    #[async_trait]
    impl Factory for InMemory {
        async fn create(&self) -> Arc<dyn Storage> {
            Arc::new(Database(Arc::new(SqliteBackend::in_memory().expect("a database in memory"))))
        }

        fn exceptions(&self) -> Vec<Exception> {
            vec![
                Exception::new("processes", "a database in memory is one process's own, and nothing outlives it"),
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

        fn worker(&self) -> Option<Command> {
            None
        }

        async fn remove(&self) {}
    }

    conformance_tests!(InMemory);
}
