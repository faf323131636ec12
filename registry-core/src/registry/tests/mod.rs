//! Tests of the registry over a storage that does as it is told, with a clock that stands still unless all wait.

mod access;
mod backwards;
mod cache;
mod calls;
mod conditions;
mod dry;
mod edits;
mod follow;
mod later;
mod log;
mod recall;
mod undo;
mod unsound;

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Semaphore;

use super::*;
use crate::backend::{Commit, Outcome, Query, Record, Write};
use crate::encoded::Object;
use crate::error::ErrorKind;
use crate::journal::{CommitId, JournalEntry, JournalQuery, Revision};
use crate::kind::Kind;
use crate::memory::MemoryBackend;
use crate::proto::core::{Entity, EntitySpecV2, FeatureSpecV2, FeatureView, FeatureViewSpec};

/// What the storage does with calls.
#[derive(Debug, Clone, Default)]
enum Mood {
    #[default]
    Answer,
    /// Never answers, and overlooks deadlines.
    Silence,
    Fail(ErrorKind),
    /// Queues the call until a permit is given, as a pool does; ends at the deadline.
    Queue(Arc<Semaphore>),
    /// Does what it is told and answers when a permit is given.
    AnswerLate(Arc<Semaphore>),
    /// Answers after a while.
    Slow(Duration),
    Conflict,
    Panic,
}

/// A storage in memory with a mood.
#[derive(Debug, Default)]
struct Moody {
    inner: MemoryBackend,
    reading: Mutex<Mood>,
    committing: Mutex<Mood>,
    reads: AtomicUsize,
    commits: Mutex<Vec<CommitId>>,
    removals: AtomicUsize,
    closed: AtomicUsize,
    has_no_journal: AtomicBool,
    /// Looks into the journal fail.
    has_no_answer: AtomicBool,
    queried: Mutex<Vec<Query>>,
}

impl Moody {
    fn reading(&self, mood: Mood) {
        *self.reading.lock().expect("not poisoned") = mood;
    }

    fn committing(&self, mood: Mood) {
        *self.committing.lock().expect("not poisoned") = mood;
    }

    fn reads(&self) -> usize {
        self.reads.load(Ordering::SeqCst)
    }

    fn commits(&self) -> Vec<CommitId> {
        self.commits.lock().expect("not poisoned").clone()
    }

    /// Stores bytes past the registry, as another process does.
    async fn plant(&self, key: Key, value: impl Into<Bytes>) {
        let commit = Commit::new(vec![], vec![Write::Put(Record::new(key, value, 1))]);
        self.inner.commit(commit, &Deadline::after(Duration::from_secs(1))).await.expect("memory does not fail");
    }

    async fn stored(&self, kind: Kind, name: &str) -> Option<Bytes> {
        let query = [Query::Keys(vec![Key::object(kind, "p", name)])];
        let answers =
            self.inner.read(&query, &Deadline::after(Duration::from_secs(1))).await.expect("memory does not fail");
        answers.into_iter().flatten().next().map(|record| record.value)
    }

    async fn around<T>(&self, mood: Mood, deadline: &Deadline, call: impl Future<Output = Result<T>>) -> Result<T> {
        match mood {
            Mood::Answer | Mood::Conflict => call.await,
            Mood::Silence => std::future::pending().await,
            Mood::Fail(kind) => Err(Error::new(kind, "the storage is in a bad mood")),
            Mood::Queue(gate) => {
                deadline.wait_for("a connection", gate.acquire()).await?.expect("never closed").forget();
                call.await
            }
            Mood::AnswerLate(gate) => {
                let answer = call.await;
                gate.acquire().await.expect("never closed").forget();
                answer
            }
            Mood::Slow(time) => {
                tokio::time::sleep(time).await;
                call.await
            }
            Mood::Panic => panic!("the storage panics, as it was told to"),
        }
    }
}

#[async_trait]
impl Backend for Moody {
    fn location(&self) -> String {
        "moody://".to_owned()
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    async fn prepare(&self, deadline: &Deadline) -> Result<()> {
        self.inner.prepare(deadline).await
    }

    async fn read(&self, queries: &[Query], deadline: &Deadline) -> Result<Vec<Vec<Record>>> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.queried.lock().expect("not poisoned").extend(queries.iter().cloned());
        let mood = self.reading.lock().expect("not poisoned").clone();
        self.around(mood, deadline, self.inner.read(queries, deadline)).await
    }

    async fn commit(&self, commit: Commit, deadline: &Deadline) -> Result<Outcome> {
        self.commits.lock().expect("not poisoned").push(commit.id);
        let mood = self.committing.lock().expect("not poisoned").clone();
        if matches!(mood, Mood::Conflict) {
            return Ok(Outcome::Conflict(Key::project_object("p")));
        }
        self.around(mood, deadline, self.inner.commit(commit, deadline)).await
    }

    async fn journal(&self, query: &JournalQuery, deadline: &Deadline) -> Result<Vec<JournalEntry>> {
        if self.has_no_journal.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Unsupported, "it has no journal"));
        }
        if self.has_no_answer.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Unavailable, "it is away"));
        }
        self.inner.journal(query, deadline).await
    }

    async fn wait_for_commit(&self, after: Option<Revision>, deadline: &Deadline) {
        self.inner.wait_for_commit(after, deadline).await;
    }

    async fn remove_if_empty(&self, deadline: &Deadline) -> Result<bool> {
        self.removals.fetch_add(1, Ordering::SeqCst);
        self.inner.remove_if_empty(deadline).await
    }

    async fn close(&self) {
        self.closed.fetch_add(1, Ordering::SeqCst);
    }
}

async fn open_with(options: RegistryOptions) -> (Registry, Arc<Moody>) {
    let storage = Arc::new(Moody::default());
    let registry = Registry::open(Arc::clone(&storage) as Arc<dyn Backend>, options).await.expect("a registry");
    (registry, storage)
}

async fn open() -> (Registry, Arc<Moody>) {
    open_with(RegistryOptions::default()).await
}

fn entity(name: &str, description: &str) -> Object {
    let spec = EntitySpecV2 { name: name.to_owned(), description: description.to_owned(), ..Default::default() };
    Object::encode(&Entity { spec: Some(spec), meta: None })
}

fn view(name: &str, features: &[&str]) -> Object {
    let features = features.iter().map(|name| FeatureSpecV2 { name: (*name).to_owned(), ..Default::default() });
    let spec = FeatureViewSpec {
        name: name.to_owned(),
        entities: vec!["driver".to_owned()],
        features: features.collect(),
        ..Default::default()
    };
    Object::encode(&FeatureView { spec: Some(spec), meta: None })
}

/// The description of an entity; `None` when there is none.
async fn read(registry: &Registry, name: &str, freshness: Freshness) -> Option<String> {
    match registry.get_message::<Entity>("p", name, freshness).await {
        Ok(entity) => Some(entity.spec.unwrap_or_default().description),
        Err(error) if error.kind() == ErrorKind::NotFound(Kind::Entity) => None,
        Err(error) => panic!("a read ({freshness:?}): {error}"),
    }
}

fn seconds(number: u64) -> CallOptions {
    CallOptions::new().with_timeout(Duration::from_secs(number))
}

/// Lets all tasks go on until they wait for something else than each other.
async fn settled() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}
