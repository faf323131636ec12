//! What waits to be written.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use feast_registry_core::{Commit, Deadline, Error, Outcome, Result, Retention};
use tokio::sync::oneshot;

/// The most commits that share a write, so that the first of them does not wait long for the last.
const MAX_BATCH: usize = 1024;

/// What is asked of the writer.
#[derive(Debug)]
pub(crate) enum Request {
    Commit(Commit),
    /// Makes a registry if there is none.
    Create,
    RemoveIfEmpty,
    /// Removes what a journal of this size need not keep.
    PruneJournal(Retention),
}

/// What it comes to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Commit(Outcome),
    Create,
    RemoveIfEmpty(bool),
    /// How many entries were removed.
    PruneJournal(u64),
}

/// A request, and who waits for its answer.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) request: Request,
    pub(crate) deadline: Deadline,
    stage: Arc<Stage>,
    reply: oneshot::Sender<Result<Answer>>,
}

/// The other side of a [`Job`]. When it is dropped before the request is sent, the request is not done.
#[derive(Debug)]
pub(crate) struct Waiter {
    pub(crate) answer: oneshot::Receiver<Result<Answer>>,
    stage: Arc<Stage>,
}

/// Whether a request may have been done.
#[derive(Debug, Default)]
struct Stage(AtomicU8);

const WAITING: u8 = 0;
/// It is a part of what was sent to the store, whose fate is not known yet.
const SENT: u8 = 1;
/// Nobody waits for it any more, and it will not be done.
const WITHDRAWN: u8 = 2;

impl Stage {
    /// Returns whether it is in the second stage now.
    fn pass(&self, from: u8, to: u8) -> bool {
        let passed = self.0.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst);
        passed.is_ok() || passed == Err(to)
    }
}

impl Job {
    pub(crate) fn new(request: Request, deadline: Deadline) -> (Self, Waiter) {
        let (reply, answer) = oneshot::channel();
        let stage = Arc::new(Stage::default());
        (Self { request, deadline, stage: Arc::clone(&stage), reply }, Waiter { answer, stage })
    }

    /// Takes the request for sent. Returns `false` when it was withdrawn.
    pub(crate) fn send(&self) -> bool {
        self.stage.pass(WAITING, SENT)
    }

    /// The opposite: it was certainly not done.
    pub(crate) fn take_back(&self) {
        self.stage.pass(SENT, WAITING);
    }

    /// Whether nobody waits for it. Asked only of a request that is not sent.
    pub(crate) fn is_over(&self) -> bool {
        self.reply.is_closed() || self.deadline.is_over()
    }

    /// Whoever no longer waits for the answer gets none.
    pub(crate) fn answer(self, answer: Result<Answer>) {
        drop(self.reply.send(answer));
    }
}

impl Waiter {
    /// Takes the request back. Returns `false` when it may have been done.
    pub(crate) fn withdraw(&self) -> bool {
        self.stage.pass(WAITING, WITHDRAWN)
    }
}

/// What waits, in the order in which it came.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    pub(crate) jobs: Vec<Job>,
    /// Whether a task is at work that will see what is added.
    pub(crate) is_served: bool,
    pub(crate) is_closed: bool,
}

impl Queue {
    /// The next jobs that can share a write. The removal of a registry is alone: what it removes is decided by what is
    /// stored, not by what is about to be.
    pub(crate) fn next_batch(&mut self) -> Vec<Job> {
        let is_removal = |job: &Job| matches!(job.request, Request::RemoveIfEmpty);
        let before = self.jobs.iter().take(MAX_BATCH).position(is_removal);
        let count = before.map_or(self.jobs.len().min(MAX_BATCH), |before| before.max(1));
        self.jobs.drain(..count).collect()
    }
}

/// The latest deadline of those who wait.
pub(crate) fn latest(batch: &[Job]) -> Option<Deadline> {
    batch.iter().map(|job| job.deadline.instant()).max().map(Deadline::at)
}

/// An answer of another kind than was asked for.
pub(crate) fn strange(answer: &Answer) -> Error {
    Error::internal(format!("the writer of a registry file answered {answer:?} to something else"))
}
