//! What a SQLite file can do to a registry: be locked, be replaced, be too large for a caller's patience.

use std::path::{Path, PathBuf};
use std::time::Duration;

use feast_registry_core::config::SchemaMode;
use feast_registry_core::{
    Backend, Commit, Deadline, Error, Expected, Key, Kind, Outcome, Query, Record, Result, Write,
};
use feast_registry_sqlite::SqliteBackend;
use rusqlite::Connection;
use tempfile::TempDir;

mod abandoned;
mod journal;
mod locked;
mod replaced;

/// A folder with a registry in it.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn file(&self) -> PathBuf {
        self.path("registry.db")
    }

    async fn open(&self) -> SqliteBackend {
        open(&self.file()).await
    }

    /// Another process, as far as SQLite can tell.
    fn stranger(&self) -> Connection {
        Connection::open(self.file()).expect("another connection")
    }
}

async fn open(file: &Path) -> SqliteBackend {
    let backend = SqliteBackend::open(file, SchemaMode::Auto).expect("the file opens");
    backend.prepare(&patient()).await.expect("the tables are made");
    backend
}

/// The deadline of a caller who waits as long as it takes.
fn patient() -> Deadline {
    Deadline::after(Duration::from_secs(120))
}

fn entity(name: &str) -> Key {
    Key::object(Kind::Entity, "p", name)
}

/// A commit of a new entity.
fn adds(name: &str) -> Commit {
    Commit::new(
        vec![(entity(name), Expected::Absent)],
        vec![Write::Put(Record::new(entity(name), name.as_bytes().to_vec(), 7))],
    )
}

async fn add(backend: &SqliteBackend, name: &str) -> Result<Outcome> {
    backend.commit(adds(name), &patient()).await
}

/// The names of the entities.
async fn names(backend: &SqliteBackend) -> Vec<String> {
    let answers = backend.read(&[Query::objects(Kind::Entity, None)], &patient()).await.expect("the list is read");
    let name = |record: &Record| match &record.key {
        Key::Object { name, .. } => name.clone(),
        other => panic!("{other}"),
    };
    answers[0].iter().map(name).collect()
}

fn added(outcome: Result<Outcome>) {
    assert!(matches!(outcome, Ok(Outcome::Committed { revision: Some(_) })), "{outcome:?}");
}

fn error(outcome: Result<Outcome>) -> Error {
    outcome.expect_err("a commit that is refused")
}
