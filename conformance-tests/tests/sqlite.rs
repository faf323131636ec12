//! The suite on SQLite, in a file of its own for each test.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use async_trait::async_trait;
use conformance_tests::{Exception, Factory, Storage, conformance_tests, this_program};
use registry_core::{Backend, Result};
use registry_sqlite::SqliteBackend;
use tempfile::TempDir;

/// Where a worker finds the file.
const FILE: &str = "SQLITE_FILE";

struct Sqlite;

#[async_trait]
impl Factory for Sqlite {
    async fn create(&self) -> Arc<dyn Storage> {
        Arc::new(Folder(tempfile::tempdir().expect("a temporary folder for the database")))
    }

    fn exceptions(&self) -> Vec<Exception> {
        Vec::new()
    }
}

/// The folder with the database and what SQLite puts beside it. It is removed when it is dropped.
struct Folder(TempDir);

impl Folder {
    fn file(&self) -> PathBuf {
        self.0.path().join("registry.db")
    }
}

fn open(file: impl Into<OsString>) -> Result<Arc<dyn Backend>> {
    Ok(Arc::new(SqliteBackend::open(file.into())?))
}

#[async_trait]
impl Storage for Folder {
    async fn open(&self) -> Result<Arc<dyn Backend>> {
        open(self.file())
    }

    fn worker(&self) -> Option<Command> {
        let mut command = this_program("worker");
        command.env(FILE, self.file());
        Some(command)
    }

    async fn remove(&self) {}
}

conformance_tests!(Sqlite);

/// What the tests of several processes start. It has nothing to do in an ordinary run.
#[test]
fn worker() {
    conformance_tests::worker(async || open(env::var_os(FILE).expect("the file to open")));
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
                Exception::new("storage::only_auto_removes", "its one handle is prepared anew by every mode that asks"),
                Exception::new("storage::verify_creates_nothing", "the same"),
            ]
        }
    }

    struct Database(Arc<SqliteBackend>);

    #[async_trait]
    impl Storage for Database {
        async fn open(&self) -> Result<Arc<dyn Backend>> {
            Ok(Arc::clone(&self.0) as Arc<dyn Backend>)
        }

        fn worker(&self) -> Option<Command> {
            None
        }

        async fn remove(&self) {}
    }

    conformance_tests!(InMemory);
}
