//! What becomes of a write whose answer is lost, on a store that does exactly what a test says.

use std::collections::VecDeque;

use async_trait::async_trait;
use bytes::Bytes;
use feast_registry_core::config::SchemaMode;
use feast_registry_core::proto::core::{Project, ProjectSpec};
use feast_registry_core::{Backend as _, CommitId, Expected, JournalQuery, Key, Record, Revision, Write};
use prost::Message as _;
use tokio::sync::Notify;

use super::*;
use crate::FileBackend;
use crate::store::{Loaded, Store, Tag, tag_of};

/// What a store does wrong with its next write.
#[derive(Debug)]
enum Fault {
    /// It is done, and answered as if it had failed once the other side says so.
    AnswerLost(Arc<Notify>),
    /// It is not done, but will be later, when the other side says so; and it is answered as if it had failed.
    Late(Arc<Notify>),
    /// It takes until the other side says so.
    Slow(Arc<Notify>),
    /// It is not done, and that is certain.
    Refused,
}

/// An object in memory; its state is a number.
#[derive(Debug, Default)]
struct Object {
    bytes: Option<Bytes>,
    state: u64,
}

#[derive(Debug, Default)]
struct Shared {
    object: Mutex<Object>,
    faults: Mutex<VecDeque<Fault>>,
    /// Whether nothing is answered any more.
    is_silent: std::sync::atomic::AtomicBool,
    loads: AtomicU64,
    swaps: AtomicU64,
    /// How many writes have come too late.
    late: AtomicU64,
}

#[derive(Debug, Clone, Default)]
struct Memory(Arc<Shared>);

impl Memory {
    fn backend(&self) -> FileBackend {
        FileBackend::on(self.clone(), SchemaMode::Auto)
    }

    fn next_write(&self, fault: Fault) {
        self.0.faults.lock().expect("no panic").push_back(fault);
    }

    fn replace(&self, expected: Option<u64>, bytes: Bytes) -> Option<u64> {
        let mut object = self.0.object.lock().expect("no panic");
        if object.bytes.as_ref().map(|_| object.state) != expected {
            return None;
        }
        *object = Object { bytes: Some(bytes), state: object.state + 1 };
        Some(object.state)
    }

    async fn answer(&self, deadline: &Deadline) -> Result<()> {
        if self.0.is_silent.load(Ordering::SeqCst) {
            return deadline.wait_for("the store", std::future::pending()).await;
        }
        Ok(())
    }
}

#[async_trait]
impl Store for Memory {
    fn location(&self) -> String {
        "memory".to_owned()
    }

    async fn check(&self, _: &Deadline) -> Result<()> {
        Ok(())
    }

    fn keeps_others_out(&self) -> bool {
        false
    }

    async fn lock(&self, _: &Deadline) -> Result<WriteLock> {
        Ok(None)
    }

    async fn load(&self, known: Option<&Tag>, deadline: &Deadline) -> Result<Loaded> {
        self.answer(deadline).await?;
        self.0.loads.fetch_add(1, Ordering::SeqCst);
        let object = self.0.object.lock().expect("no panic");
        Ok(match &object.bytes {
            None => Loaded::Absent(None),
            Some(_) if known.and_then(tag_of) == Some(&object.state) => Loaded::Unchanged,
            Some(bytes) => Loaded::Changed(bytes.clone(), Arc::new(object.state)),
        })
    }

    async fn swap(&self, expected: Option<&Tag>, bytes: Bytes, deadline: &Deadline) -> Result<Swapped, Failure> {
        let failed = |is_in_doubt| {
            Err(Failure { error: Error::new(ErrorKind::Unavailable, "the store has failed"), is_in_doubt })
        };
        self.0.swaps.fetch_add(1, Ordering::SeqCst);
        let expected = expected.and_then(tag_of).copied();
        let fault = self.0.faults.lock().expect("no panic").pop_front();
        self.answer(deadline).await.map_err(|error| Failure { error, is_in_doubt: true })?;
        match &fault {
            Some(Fault::Refused) => return failed(false),
            Some(Fault::Slow(go_on)) => go_on.notified().await,
            Some(Fault::Late(arrives)) => {
                let (this, arrives) = (self.clone(), Arc::clone(arrives));
                tokio::spawn(async move {
                    arrives.notified().await;
                    if this.replace(expected, bytes).is_none() {
                        this.0.late.fetch_add(1, Ordering::SeqCst);
                    }
                    arrives.notify_one();
                });
                return failed(true);
            }
            _ => {}
        }
        let Some(state) = self.replace(expected, bytes) else { return Ok(Swapped::Changed) };
        if let Some(Fault::AnswerLost(go_on)) = fault {
            go_on.notified().await;
            return failed(true);
        }
        Ok(Swapped::Done(Arc::new(state)))
    }

    async fn remove(&self, _: &Tag, _: Bytes) -> Result<Removal> {
        Ok(Removal::Impossible)
    }
}

fn seconds(seconds: u64) -> Deadline {
    Deadline::after(Duration::from_secs(seconds))
}

fn put(project: &str) -> Write {
    let spec = ProjectSpec { name: project.to_owned(), ..Default::default() };
    let project_bytes = Project { spec: Some(spec), meta: None }.encode_to_vec();
    Write::Put(Record::new(Key::project_object(project), project_bytes, 1))
}

fn commit(project: &str) -> Commit {
    Commit::new(vec![(Key::project_object(project), Expected::Absent)], vec![put(project)])
}

fn revision(outcome: &Outcome) -> Revision {
    match outcome {
        Outcome::Committed { revision: Some(revision) } => *revision,
        other => panic!("{other:?}"),
    }
}

async fn times_in_journal(backend: &FileBackend, id: CommitId) -> usize {
    let journal = backend.journal(&JournalQuery::after(None, usize::MAX), &seconds(30)).await.expect("the journal");
    journal.iter().filter(|entry| entry.id == id).count()
}

/// Commits that are deleted again at once, so that what they expected holds again.
async fn others_write(store: &Memory, commits: usize) {
    let other = store.backend();
    for number in 0..commits {
        let project = format!("other {number}");
        let done = other.commit(commit(&project), &seconds(30)).await.expect("a commit");
        assert!(done.is_committed());
    }
}

/// Until the store has been asked to write so often.
async fn swaps(store: &Memory, count: u64) {
    while store.0.swaps.load(Ordering::SeqCst) < count {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A ring of the last 16 writes had forgotten this one.
#[tokio::test]
async fn a_write_is_known_to_be_done_however_many_others_wrote_since() {
    let store = Memory::default();
    let backend = Arc::new(store.backend());
    backend.prepare(&seconds(30)).await.expect("a registry");
    let go_on = Arc::new(Notify::new());
    store.next_write(Fault::AnswerLost(Arc::clone(&go_on)));
    let (commit, before) = (commit("p"), store.0.swaps.load(Ordering::SeqCst));
    let task = tokio::spawn({
        let (backend, commit) = (Arc::clone(&backend), commit.clone());
        async move { backend.commit(commit, &seconds(30)).await }
    });
    swaps(&store, before + 1).await;
    others_write(&store, 40).await;
    // What it expects holds again: only its identity tells.
    let deletion = Commit::new(Vec::new(), vec![Write::Delete(Key::project_object("p"))]);
    store.backend().commit(deletion, &seconds(30)).await.expect("a commit");
    go_on.notify_one();
    let outcome = task.await.expect("a task").expect("it was done");
    let journal = backend.journal(&JournalQuery::after(None, usize::MAX), &seconds(30)).await.expect("the journal");
    let place = journal.iter().find(|entry| entry.id == commit.id).map(|entry| entry.revision);
    assert_eq!(Some(revision(&outcome)), place, "it is answered where it is");
    assert_eq!(times_in_journal(&backend, commit.id).await, 1);
    assert_eq!(backend.statistics().recovered, 1);
    let queries = [feast_registry_core::Query::Keys(vec![Key::project_object("p")])];
    let found = backend.read(&queries, &seconds(30)).await.expect("a read");
    assert!(found[0].is_empty(), "what another one deleted is not made again");
}

#[tokio::test]
async fn a_write_that_arrives_late_is_done_once_or_never() {
    // It arrives before it is tried again, or after.
    for is_first in [true, false] {
        let store = Memory::default();
        let backend = Arc::new(store.backend());
        backend.prepare(&seconds(30)).await.expect("a registry");
        let (arrives, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        store.next_write(Fault::Late(Arc::clone(&arrives)));
        store.next_write(Fault::Slow(Arc::clone(&go_on)));
        let (commit, before) = (commit("p"), store.0.swaps.load(Ordering::SeqCst));
        let task = tokio::spawn({
            let (backend, commit) = (Arc::clone(&backend), commit.clone());
            async move { backend.commit(commit, &seconds(30)).await }
        });
        swaps(&store, before + 2).await;
        let arrive = async || {
            arrives.notify_one();
            tokio::task::yield_now().await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        if is_first {
            arrive().await;
        }
        go_on.notify_one();
        let outcome = task.await.expect("a task").expect("it was done");
        if !is_first {
            arrive().await;
            assert_eq!(store.0.late.load(Ordering::SeqCst), 1, "the first was too late");
        }
        assert_eq!(times_in_journal(&backend, commit.id).await, 1, "first: {is_first}");
        let again = backend.commit(commit, &seconds(30)).await.expect("it was done");
        assert_eq!(again, outcome, "first: {is_first}");
        assert_eq!(backend.statistics().recovered, u64::from(is_first));
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_silent_store_does_not_tell_is_unknown() {
    let store = Memory::default();
    let backend = store.backend();
    backend.prepare(&seconds(30)).await.expect("a registry");
    let go_on = Arc::new(Notify::new());
    store.next_write(Fault::AnswerLost(Arc::clone(&go_on)));
    let commit = commit("p");
    let began = tokio::time::Instant::now();
    let silent = async {
        swaps(&store, store.0.swaps.load(Ordering::SeqCst) + 1).await;
        store.0.is_silent.store(true, Ordering::SeqCst);
        go_on.notify_one();
    };
    let (asked, ()) = tokio::join!(async { backend.commit(commit.clone(), &seconds(3)).await }, silent);
    let error = asked.expect_err("nobody knows");
    assert_eq!(error.kind(), ErrorKind::UnknownOutcome, "{error}");
    assert!(error.to_string().contains("memory") && !error.is_retryable(), "{error}");
    let waited = began.elapsed();
    assert!(waited >= Duration::from_secs(3) && waited <= Duration::from_secs(3) + GRACE * 2, "{waited:?}");
    // What is certainly not sent is said to be: here the store does not even answer a look.
    let other = store.backend();
    let error = other.commit(self::commit("q"), &seconds(3)).await.expect_err("no answer");
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{error}");
    store.0.is_silent.store(false, Ordering::SeqCst);
    store.next_write(Fault::Refused);
    let error = other.commit(self::commit("q"), &seconds(3)).await.expect_err("it is refused");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    // And whoever asks again learns that it was done.
    assert!(backend.commit(commit.clone(), &seconds(3)).await.expect("an answer").is_committed());
    assert_eq!(times_in_journal(&backend, commit.id).await, 1);
}

#[tokio::test]
async fn a_file_that_was_put_in_place_of_another_tells_nothing() {
    let store = Memory::default();
    let backend = Arc::new(store.backend());
    backend.prepare(&seconds(30)).await.expect("a registry");
    let go_on = Arc::new(Notify::new());
    store.next_write(Fault::AnswerLost(Arc::clone(&go_on)));
    let before = store.0.swaps.load(Ordering::SeqCst);
    let task = tokio::spawn({
        let backend = Arc::clone(&backend);
        async move { backend.commit(commit("p"), &seconds(30)).await }
    });
    swaps(&store, before + 1).await;
    // As after `feast teardown` and `feast apply`.
    let theirs = feast_registry_core::proto::core::Registry {
        registry_schema_version: "1".to_owned(),
        version_id: uuid::Uuid::new_v4().to_string(),
        ..Default::default()
    };
    let state = store.0.object.lock().expect("no panic").state;
    store.replace(Some(state), theirs.encode_to_vec().into()).expect("it is replaced");
    go_on.notify_one();
    let error = task.await.expect("a task").expect_err("nobody knows");
    assert_eq!(error.kind(), ErrorKind::UnknownOutcome, "{error}");
}

#[tokio::test(start_paused = true)]
async fn whoever_does_not_wait_any_more_is_not_written() {
    let store = Memory::default();
    let backend = Arc::new(store.backend());
    backend.prepare(&seconds(30)).await.expect("a registry");
    let go_on = Arc::new(Notify::new());
    store.next_write(Fault::Slow(Arc::clone(&go_on)));
    let before = store.0.swaps.load(Ordering::SeqCst);
    let first = tokio::spawn({
        let backend = Arc::clone(&backend);
        async move { backend.commit(commit("first"), &seconds(60)).await }
    });
    swaps(&store, before + 1).await;
    // The queue is held up. One whose deadline is over is told so at once, and one who leaves is forgotten.
    let began = tokio::time::Instant::now();
    let error = backend.commit(commit("impatient"), &seconds(2)).await.expect_err("it is held up");
    assert_eq!((error.kind(), began.elapsed().as_secs()), (ErrorKind::DeadlineExceeded, 2), "{error}");
    assert!(error.to_string().contains("its turn to write the registry memory"), "{error}");
    let left = tokio::time::timeout(Duration::from_secs(1), backend.commit(commit("left"), &seconds(60))).await;
    left.expect_err("it is held up");
    let (deadline, caller) = seconds(60).tied_to_caller();
    let tied = tokio::spawn({
        let backend = Arc::clone(&backend);
        async move { backend.commit(commit("tied"), &deadline).await }
    });
    tokio::time::sleep(Duration::from_millis(1)).await;
    drop(caller);
    let error = tied.await.expect("a task").expect_err("its caller is gone");
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{error}");
    let patient = tokio::spawn({
        let backend = Arc::clone(&backend);
        async move { backend.commit(commit("patient"), &seconds(60)).await }
    });
    tokio::time::sleep(Duration::from_millis(1)).await;
    go_on.notify_one();
    assert!(first.await.expect("a task").expect("an answer").is_committed());
    assert!(patient.await.expect("a task").expect("an answer").is_committed());
    backend.close().await;
    let projects = feast_registry_core::Query::objects(feast_registry_core::Kind::Project, None);
    let found = backend.read(&[projects], &seconds(30)).await.expect("a read").remove(0);
    let found: Vec<&str> = found.iter().map(|record| record.key.project()).collect();
    assert_eq!(found, ["first", "patient"]);
    let error = backend.commit(commit("late"), &seconds(30)).await.expect_err("it is closed");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_look_goes_on_when_whoever_asked_for_it_leaves() {
    let store = Memory::default();
    store.backend().prepare(&seconds(30)).await.expect("a registry");
    let backend = Arc::new(store.backend());
    store.0.is_silent.store(true, Ordering::SeqCst);
    for _ in 0..20 {
        let error = backend.read(&[], &Deadline::after(Duration::from_millis(20))).await.expect_err("no answer");
        assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{error}");
    }
    assert_eq!(backend.file.looks_waiting(), 19, "one look, for which the first has waited, and the rest after it");
    store.0.is_silent.store(false, Ordering::SeqCst);
    let loads = store.0.loads.load(Ordering::SeqCst);
    backend.read(&[], &seconds(30)).await.expect("an answer");
    assert_eq!(store.0.loads.load(Ordering::SeqCst), loads + 1, "nobody looks for those who have left");
}
