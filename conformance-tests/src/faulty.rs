//! A backend that misbehaves when told to.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use feast_registry_core::{
    Backend, Commit, Deadline, Error, ErrorKind, JournalEntry, JournalQuery, Key, Limits, Outcome, Query, Record,
    Result, Retention, Write,
};
use tokio::sync::Semaphore;

/// The calls of a [`Backend`] that can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// [`Backend::prepare`].
    Prepare,
    /// [`Backend::read`].
    Read,
    /// [`Backend::commit`].
    Commit,
    /// [`Backend::journal`].
    Journal,
    /// [`Backend::remove_if_empty`].
    RemoveIfEmpty,
}

/// What happens to a call.
#[derive(Debug, Clone)]
pub enum Fault {
    /// It fails and never reaches the storage.
    FailBefore(ErrorKind),
    /// It takes effect, and then fails: the answer is lost.
    FailAfter(ErrorKind),
    /// A commit is refused without reaching the storage, as if another writer had been faster.
    Conflict,
    /// It waits before it reaches the storage.
    DelayBefore(Duration),
    /// It takes effect, and the answer is late.
    DelayAfter(Duration),
    /// It waits at a gate before it reaches the storage.
    HoldBefore(Gate),
    /// It takes effect, and the answer waits at a gate.
    HoldAfter(Gate),
}

/// A gate at which calls wait until it is opened.
#[derive(Debug, Clone)]
pub struct Gate {
    arrived: Arc<Semaphore>,
    open: Arc<Semaphore>,
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

impl Gate {
    /// A closed gate.
    pub fn new() -> Self {
        let closed = || Arc::new(Semaphore::new(0));
        Self { arrived: closed(), open: closed() }
    }

    /// Waits until a call has arrived at the gate. Each arrival is reported once.
    pub async fn arrival(&self) {
        self.arrived.acquire().await.expect("never closed").forget();
    }

    /// Opens the gate for good.
    pub fn open(&self) {
        self.open.close();
    }

    async fn pass(&self) {
        self.arrived.add_permits(1);
        // An error says that the gate is open.
        let _ = self.open.acquire().await;
    }
}

/// How often a backend was called, and how commits ended. What a fault kept from the storage counts as a call alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Calls {
    /// Calls of [`Backend::read`].
    pub reads: usize,
    /// Calls of [`Backend::commit`].
    pub commits: usize,
    /// Commits that the storage accepted.
    pub committed: usize,
    /// Commits that the storage refused since an expectation did not hold.
    pub conflicts: usize,
}

/// Wraps any backend, counts the calls, and lets them go wrong as it is told. What waits ends with the deadline of its call,
/// as in any backend.
///
/// ```
/// use std::sync::Arc;
/// use feast_registry_conformance::{Fault, FaultyBackend, Operation};
/// use std::time::Duration;
/// use feast_registry_core::{Backend, Commit, Deadline, ErrorKind, MemoryBackend};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let backend = FaultyBackend::new(Arc::new(MemoryBackend::new()));
/// let (commit, deadline) = (Commit::new(Vec::new(), Vec::new()), Deadline::after(Duration::from_secs(5)));
/// backend.inject(Operation::Commit, Fault::FailAfter(ErrorKind::UnknownOutcome), 1);
/// let lost = backend.commit(commit.clone(), &deadline).await.unwrap_err();
/// assert!(lost.is_outcome_unknown());
/// assert!(backend.commit(commit, &deadline).await.is_ok());
/// assert_eq!(backend.calls().commits, 2);
/// # }
/// ```
#[derive(Debug)]
pub struct FaultyBackend {
    inner: Arc<dyn Backend>,
    limits: Option<Limits>,
    /// For each operation the faults that wait for its calls, each with the number of calls that it is for.
    faults: Mutex<HashMap<Operation, Vec<(Fault, usize)>>>,
    counters: Counters,
}

#[derive(Debug, Default)]
struct Counters {
    reads: AtomicUsize,
    commits: AtomicUsize,
    committed: AtomicUsize,
    conflicts: AtomicUsize,
}

impl FaultyBackend {
    /// Wraps a backend. Until faults are injected, calls pass unchanged.
    pub fn new(inner: Arc<dyn Backend>) -> Self {
        Self { inner, limits: None, faults: Mutex::default(), counters: Counters::default() }
    }

    /// Says these limits in place of the backend's own. It is for the callers to keep them.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = Some(limits);
        self
    }

    /// Lets the next so many calls of an operation go wrong, after what was injected for it before. `usize::MAX`: all of
    /// them, until [`heal`](Self::heal).
    ///
    /// # Panics
    /// For [`Fault::Conflict`] of another operation than a commit.
    pub fn inject(&self, operation: Operation, fault: Fault, calls: usize) {
        let is_possible = operation == Operation::Commit || !matches!(fault, Fault::Conflict);
        assert!(is_possible, "only a commit can be refused as a conflict");
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        faults.entry(operation).or_default().push((fault, calls));
    }

    /// Takes back all faults that have not been used up.
    pub fn heal(&self) {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// How often the backend has been called.
    pub fn calls(&self) -> Calls {
        let count = |counter: &AtomicUsize| counter.load(Ordering::SeqCst);
        Calls {
            reads: count(&self.counters.reads),
            commits: count(&self.counters.commits),
            committed: count(&self.counters.committed),
            conflicts: count(&self.counters.conflicts),
        }
    }

    fn next_fault(&self, operation: Operation) -> Option<Fault> {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = faults.get_mut(&operation)?;
        waiting.retain(|(_, calls)| *calls > 0);
        let (fault, calls) = waiting.first_mut()?;
        if *calls != usize::MAX {
            *calls -= 1;
        }
        Some(fault.clone())
    }

    /// What happens before a call; returns what is to happen after it.
    async fn before(&self, operation: Operation, deadline: &Deadline) -> Result<Option<Fault>> {
        match self.next_fault(operation) {
            Some(Fault::FailBefore(kind)) => return Err(injected(operation, kind)),
            Some(Fault::DelayBefore(delay)) => deadline.wait_for("a storage", tokio::time::sleep(delay)).await?,
            Some(Fault::HoldBefore(gate)) => deadline.wait_for("a gate", gate.pass()).await?,
            later => return Ok(later),
        }
        Ok(None)
    }

    async fn around<T>(
        &self,
        operation: Operation,
        deadline: &Deadline,
        call: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let later = self.before(operation, deadline).await?;
        after(operation, deadline, later, call.await).await
    }
}

async fn after<T>(operation: Operation, deadline: &Deadline, fault: Option<Fault>, answer: Result<T>) -> Result<T> {
    let waited = match fault {
        Some(Fault::FailAfter(kind)) => return Err(injected(operation, kind)),
        Some(Fault::DelayAfter(delay)) => deadline.wait_for("an answer", tokio::time::sleep(delay)).await,
        Some(Fault::HoldAfter(gate)) => deadline.wait_for("an answer", gate.pass()).await,
        _ => Ok(()),
    };
    match waited {
        Err(_) if operation == Operation::Commit => Err(injected(operation, ErrorKind::UnknownOutcome)),
        Err(exceeded) => Err(exceeded),
        Ok(()) => answer,
    }
}

fn injected(operation: Operation, kind: ErrorKind) -> Error {
    Error::new(kind, format!("injected: {operation:?} fails"))
}

/// A key that a refused commit may name.
fn any_key(commit: &Commit) -> Key {
    let expected = commit.expectations.first().map(|(key, _)| key.clone());
    let written = commit.writes.first().map(|write| match write {
        Write::Put(record) => record.key.clone(),
        Write::Delete(key) => key.clone(),
        Write::DeleteVersions { project, .. } | Write::DeleteProject { project } => Key::project_object(project),
    });
    expected.or(written).unwrap_or_else(|| Key::project_object("nothing"))
}

#[async_trait]
impl Backend for FaultyBackend {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn limits(&self) -> Limits {
        self.limits.clone().unwrap_or_else(|| self.inner.limits())
    }

    async fn prepare(&self, deadline: &Deadline) -> Result<()> {
        self.around(Operation::Prepare, deadline, self.inner.prepare(deadline)).await
    }

    async fn read(&self, queries: &[Query], deadline: &Deadline) -> Result<Vec<Vec<Record>>> {
        // A registry looks by itself, now and then, when projects were last changed.
        if queries != [Query::Metadata { project: None }] {
            self.counters.reads.fetch_add(1, Ordering::SeqCst);
        }
        self.around(Operation::Read, deadline, self.inner.read(queries, deadline)).await
    }

    async fn commit(&self, commit: Commit, deadline: &Deadline) -> Result<Outcome> {
        self.counters.commits.fetch_add(1, Ordering::SeqCst);
        let later = self.before(Operation::Commit, deadline).await?;
        if matches!(later, Some(Fault::Conflict)) {
            return Ok(Outcome::Conflict(any_key(&commit)));
        }
        let answer = self.inner.commit(commit, deadline).await;
        match &answer {
            Ok(Outcome::Committed { .. }) => self.counters.committed.fetch_add(1, Ordering::SeqCst),
            Ok(Outcome::Conflict(_)) => self.counters.conflicts.fetch_add(1, Ordering::SeqCst),
            _ => 0,
        };
        after(Operation::Commit, deadline, later, answer).await
    }

    async fn journal(&self, query: &JournalQuery, deadline: &Deadline) -> Result<Vec<JournalEntry>> {
        self.around(Operation::Journal, deadline, self.inner.journal(query, deadline)).await
    }

    async fn prune_journal(&self, retention: &Retention, deadline: &Deadline) -> Result<u64> {
        self.around(Operation::Journal, deadline, self.inner.prune_journal(retention, deadline)).await
    }

    async fn remove_if_empty(&self, deadline: &Deadline) -> Result<bool> {
        self.around(Operation::RemoveIfEmpty, deadline, self.inner.remove_if_empty(deadline)).await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}
