//! Attempts at a database that does as the test says.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use feast_registry_core::{Expected, Limits, Write};

/// A registry in memory behind attempts that fail as scripted.
struct Scripted {
    memory: feast_registry_core::MemoryBackend,
    /// What becomes of the next attempts to commit; after these, all succeed.
    commits: Mutex<VecDeque<Step>>,
    attempts: AtomicUsize,
    is_missing: Mutex<bool>,
}

enum Step {
    /// It takes place, and the answer is lost.
    DoneAndLost,
    /// It does not take place, and nothing says so.
    Lost,
    /// A deadlock.
    Serialization,
    /// Another writer stores this first.
    After(Record),
    /// Nothing is in the way, and the database says there is.
    Unexpected,
}

impl Scripted {
    fn new(commits: impl IntoIterator<Item = Step>) -> Self {
        Self {
            memory: feast_registry_core::MemoryBackend::default(),
            commits: Mutex::new(commits.into_iter().collect()),
            attempts: AtomicUsize::new(0),
            is_missing: Mutex::new(false),
        }
    }

    fn missing(&self) -> Result<(), Failure> {
        match *self.is_missing.lock().expect("a test") {
            true => Err(Failure::Final(Error::new(ErrorKind::SchemaMissing, "no tables"))),
            false => Ok(()),
        }
    }
}

fn unavailable() -> Error {
    Error::new(ErrorKind::Unavailable, "scripted")
}

#[async_trait]
impl Backend for Scripted {
    fn location(&self) -> String {
        "a script".to_owned()
    }

    fn limits(&self) -> Limits {
        self.memory.limits()
    }

    async fn prepare(&self, mode: SchemaMode) -> Result<()> {
        prepare(self, mode).await
    }

    async fn read(&self, queries: &[Query]) -> Result<Vec<Vec<Record>>> {
        read(self, queries).await
    }

    async fn commit(&self, commit: Commit) -> Result<Outcome> {
        super::commit(self, commit).await
    }

    async fn remove_if_empty(&self) -> Result<bool> {
        remove_if_empty(self).await
    }
}

#[async_trait]
impl Database for Scripted {
    fn may_make_tables(&self) -> bool {
        true
    }

    async fn try_read(&self, queries: &[Query]) -> Result<Vec<Vec<Record>>, Failure> {
        self.missing()?;
        self.memory.read(queries).await.map_err(Failure::Final)
    }

    async fn try_commit(&self, commit: &Commit, makes_tables: bool) -> Result<Outcome, Failure> {
        self.attempts.fetch_add(1, Ordering::Relaxed);
        if makes_tables {
            self.make_tables().await?;
        }
        self.missing()?;
        let step = self.commits.lock().expect("a test").pop_front();
        match step {
            Some(Step::Serialization) => return Err(Failure::Serialization(unavailable())),
            Some(Step::Unexpected) => return Err(Failure::Unexpected(unavailable())),
            Some(Step::Lost) => return Err(Failure::Lost(unavailable())),
            Some(Step::After(record)) => {
                let first = Commit { expectations: Vec::new(), writes: vec![Write::Put(record)] };
                self.memory.commit(first).await.map_err(Failure::Final)?;
                return Err(Failure::Unexpected(unavailable()));
            }
            Some(Step::DoneAndLost) | None => {}
        }
        let outcome = self.memory.commit(commit.clone()).await.map_err(Failure::Final)?;
        if matches!(step, Some(Step::DoneAndLost)) { Err(Failure::Lost(unavailable())) } else { Ok(outcome) }
    }

    async fn look_up(&self, commit: &Commit) -> Result<Vec<Record>, Failure> {
        self.missing()?;
        let queries = [Query::Keys(sql::keys_of(commit))];
        Ok(self.memory.read(&queries).await.map_err(Failure::Final)?.remove(0))
    }

    async fn missing_tables(&self) -> Result<Vec<&'static str>, Failure> {
        let is_missing = *self.is_missing.lock().expect("a test");
        Ok(if is_missing { sql::tables().iter().map(|table| table.name).collect() } else { Vec::new() })
    }

    async fn make_tables(&self) -> Result<(), Failure> {
        *self.is_missing.lock().expect("a test") = false;
        Ok(())
    }

    async fn try_remove(&self) -> Result<bool, Failure> {
        self.missing().map(|()| true)
    }
}

fn record(value: &'static str) -> Record {
    Record { key: Key::project_object("p"), value: value.into(), updated: 1 }
}

fn creation() -> Commit {
    let record = record("ours");
    Commit { expectations: vec![(record.key.clone(), Expected::Absent)], writes: vec![Write::Put(record)] }
}

async fn outcome(steps: impl IntoIterator<Item = Step>) -> (Result<Outcome>, usize) {
    let database = Scripted::new(steps);
    let outcome = database.commit(creation()).await;
    (outcome, database.attempts.load(Ordering::Relaxed))
}

#[tokio::test]
async fn what_was_in_the_way_is_tried_again() {
    let (outcome, attempts) = outcome([Step::Serialization, Step::Unexpected, Step::Serialization]).await;
    assert_eq!((outcome.expect("a commit"), attempts), (Outcome::Committed, 4));
}

#[tokio::test]
async fn a_commit_whose_answer_was_lost_is_not_made_twice() {
    let (outcome, attempts) = outcome([Step::DoneAndLost]).await;
    assert_eq!((outcome.expect("a commit"), attempts), (Outcome::Committed, 1));
}

#[tokio::test]
async fn a_commit_that_was_lost_on_the_way_is_made() {
    let (outcome, attempts) = outcome([Step::Lost, Step::Lost]).await;
    assert_eq!((outcome.expect("a commit"), attempts), (Outcome::Committed, 3));
}

#[tokio::test]
async fn another_writer_s_row_is_a_conflict() {
    let (found, attempts) = outcome([Step::After(record("theirs"))]).await;
    assert_eq!((found.expect("an outcome"), attempts), (Outcome::Conflict(Key::project_object("p")), 1));
    // Also where the database itself has compared.
    let database = Scripted::new([]);
    database.commit(creation()).await.expect("a commit");
    let second = database.commit(creation()).await.expect("an outcome");
    assert_eq!(second, Outcome::Conflict(Key::project_object("p")));
}

#[tokio::test]
async fn a_row_that_took_longer_than_we_waited_may_be_our_own() {
    // Looked up too soon, then met again.
    let (found, attempts) = outcome([Step::Lost, Step::After(record("ours"))]).await;
    assert_eq!((found.expect("an outcome"), attempts), (Outcome::Committed, 2));
}

#[tokio::test]
async fn whose_row_it_is_may_be_unknown() {
    let database = Scripted::new([]);
    database.commit(creation()).await.expect("a commit");
    database.commits.lock().expect("a test").push_back(Step::Lost);
    let commit = Commit { expectations: creation().expectations, writes: vec![Write::Put(record("later"))] };
    let error = database.commit(commit).await.expect_err("nobody knows");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("not known whether it was stored"), "{error}");
}

#[tokio::test]
async fn tables_that_are_gone_hold_nothing_and_are_made_by_the_next_writer() {
    let database = Scripted::new([]);
    *database.is_missing.lock().expect("a test") = true;
    let error = database.prepare(SchemaMode::Verify).await.expect_err("they are missing");
    assert_eq!(error.kind(), ErrorKind::SchemaMissing);
    assert!(error.to_string().contains("feast_metadata"), "{error}");
    let queries = [Query::Keys(vec![Key::project_object("p")])];
    assert_eq!(database.read(&queries).await.expect("nothing"), [Vec::new()]);
    assert!(*database.is_missing.lock().expect("a test"), "nothing is made for a reader");
    assert!(database.remove_if_empty().await.expect("they are gone"));
    assert_eq!(database.commit(creation()).await.expect("a commit"), Outcome::Committed);
    assert_eq!(database.attempts.load(Ordering::Relaxed), 2);
    assert_eq!(database.read(&queries).await.expect("it"), [vec![record("ours")]]);
}
