//! The one thread of a process that writes: it takes the commits that are waiting into one transaction.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use feast_registry_core::{Commit, Deadline, Error, ErrorKind, Outcome, Result, Retention};
use feast_registry_sql::Failure;
use tokio::sync::{oneshot, watch};

use crate::error::Problem;
use crate::queue::{self, Job, Next, Refusal, Ticket};
use crate::session::Session;

/// The most commits that share a transaction, so that the first of them does not wait long for the last.
const MAX_BATCH: usize = 256;

/// How long a caller goes on beyond its deadline to learn what became of what has begun.
const SEEN_THROUGH_FOR: Duration = Duration::from_secs(5);

/// What a caller waits for before its work begins, as an error says it.
const WAITS_FOR: &str = "a turn to write to the SQLite file, or for the lock of another process on it";

/// A commit to be done.
pub(crate) struct QueuedCommit {
    pub(crate) commit: Commit,
    /// Whether tables that are missing are made before.
    pub(crate) makes_tables: bool,
    /// Whether there is a journal.
    pub(crate) is_journaled: bool,
    deadline: Deadline,
    reply: oneshot::Sender<Result<Outcome, Problem>>,
}

impl QueuedCommit {
    pub(crate) fn new(
        commit: Commit,
        makes_tables: bool,
        is_journaled: bool,
        deadline: Deadline,
        reply: oneshot::Sender<Result<Outcome, Problem>>,
    ) -> Self {
        Self { commit, makes_tables, is_journaled, deadline, reply }
    }

    /// Whether its caller still waits for it; who does not never does again.
    pub(crate) fn is_awaited(&self) -> bool {
        !self.reply.is_closed() && !self.deadline.is_over()
    }

    /// Whoever no longer waits for an answer gets none.
    fn answer(self, outcome: Result<Outcome, Problem>) {
        drop(self.reply.send(outcome));
    }
}

/// Something else to be done with the connection.
type Task = Box<dyn FnOnce(&mut Session) + Send>;

type Queue = queue::Queue<QueuedCommit, Task>;

/// The handle of the writing thread. Dropping it waits until what has begun is done.
pub(crate) struct Writer {
    location: String,
    queue: Arc<Queue>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Its sender is dropped when the thread has ended.
    ended: watch::Receiver<()>,
}

impl Writer {
    pub(crate) fn start(session: Session, location: String) -> Result<Self> {
        let queue = Arc::new(Queue::new());
        let (running, ended) = watch::channel(());
        let of_thread = Arc::clone(&queue);
        let thread = thread::Builder::new()
            .name("registry-sqlite".to_owned())
            .spawn(move || {
                run(session, &of_thread);
                drop(running);
            })
            .map_err(|error| Error::internal("the writing thread cannot be started").with_source(error))?;
        Ok(Self { location, queue, thread: Mutex::new(Some(thread)), ended })
    }

    /// Commits, together with others that are waiting.
    pub(crate) async fn commit(
        &self,
        commit: Commit,
        makes_tables: bool,
        is_journaled: bool,
        deadline: &Deadline,
    ) -> Result<Outcome, Failure> {
        let of_work = deadline.clone();
        let work = |reply| QueuedCommit::new(commit, makes_tables, is_journaled, of_work, reply);
        self.ask(deadline, work, Job::Commit).await
    }

    /// Does something with the connection. What it does for a long time it does while its argument says that somebody waits.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        deadline: &Deadline,
        task: impl FnOnce(&mut Session, &dyn Fn() -> bool) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Failure> {
        let of_task = deadline.clone();
        let boxed = |reply: oneshot::Sender<Result<T, Problem>>| -> Task {
            Box::new(move |session| {
                let done = task(session, &|| !of_task.is_over() && !reply.is_closed());
                // Whoever no longer waits for an answer gets none.
                drop(reply.send(done));
            })
        };
        self.ask(deadline, boxed, Job::Task).await
    }

    async fn ask<T, W>(
        &self,
        deadline: &Deadline,
        work: impl FnOnce(oneshot::Sender<Result<T, Problem>>) -> W,
        job: impl FnOnce(Arc<Ticket<W>>) -> Job<QueuedCommit, Task>,
    ) -> Result<T, Failure> {
        deadline.check(WAITS_FOR).map_err(Failure::Final)?;
        let (reply, mut answer) = oneshot::channel();
        let ticket = Arc::new(Ticket::new(work(reply), deadline.clone()));
        self.queue.push(job(Arc::clone(&ticket))).map_err(|refusal| Failure::Final(self.refused(refusal)))?;
        // A caller who leaves takes its work along, unless that has begun.
        let ticket = Withdrawn(ticket);
        let answered = match deadline.wait_for(WAITS_FOR, &mut answer).await {
            Ok(answered) => Some(answered),
            Err(exceeded) if ticket.0.withdraw() => return Err(Failure::Final(exceeded)),
            Err(_) => tokio::time::timeout(SEEN_THROUGH_FOR, answer).await.ok(),
        };
        match answered {
            Some(Ok(answer)) => answer.map_err(Failure::from),
            Some(Err(_)) => Err(self.lost("was ended by a defect of this library, which the log has")),
            None => Err(self.lost("is still under way")),
        }
    }

    fn lost(&self, what: &str) -> Failure {
        Failure::Lost(Error::new(ErrorKind::Unavailable, format!("{}: a write {what}", self.location)))
    }

    fn refused(&self, refusal: Refusal) -> Error {
        match refusal {
            Refusal::Full => Error::new(
                ErrorKind::Overloaded,
                format!("{}: too many calls wait to write; nothing was done: try again later", self.location),
            ),
            Refusal::Closed => closed(&self.location),
        }
    }

    /// Prunes the journal when nobody waits.
    pub(crate) fn prune(&self, retention: Retention) {
        self.queue.prune(retention);
    }

    /// Lets nothing in any more, and waits until what is in line is done. Cancel-safe.
    pub(crate) async fn close(&self) {
        self.queue.close();
        // Nothing is ever sent.
        while self.ended.clone().changed().await.is_ok() {}
        self.join();
    }

    fn join(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!(location = self.location, "the thread that writes the registry has panicked");
        }
    }
}

/// The error of a backend that was closed.
pub(crate) fn closed(location: &str) -> Error {
    Error::new(ErrorKind::Unavailable, format!("{location}: the registry was closed"))
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue.close();
        self.join();
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("location", &self.location).finish_non_exhaustive()
    }
}

/// Withdraws a ticket when it is dropped.
struct Withdrawn<W>(Arc<Ticket<W>>);

impl<W> Drop for Withdrawn<W> {
    fn drop(&mut self) {
        self.0.withdraw();
    }
}

fn run(mut session: Session, queue: &Queue) {
    loop {
        let next = queue.next(MAX_BATCH);
        if matches!(next, Next::End) {
            return;
        }
        // A panic ends what it was in, whose callers are told; the thread goes on for the others.
        if catch_unwind(AssertUnwindSafe(|| step(&mut session, queue, next))).is_err() {
            tracing::error!("a write to the registry panicked");
        }
    }
}

fn step(session: &mut Session, queue: &Queue, next: Next<QueuedCommit, Task>) {
    match next {
        Next::Commits(commits) => commit(session, queue, commits),
        Next::Task(ticket) => {
            if let Some(task) = ticket.claim() {
                task(session);
            }
        }
        Next::Prune(retention) => match session.prune(retention) {
            Ok(0) => {}
            Ok(_) => queue.prune(retention),
            // It is tried again after the next commits.
            Err(problem) => tracing::debug!(error = %Error::from(problem), "the journal was not pruned"),
        },
        Next::End => {}
    }
}

/// Commits all in one transaction, and those that come while the lock is waited for.
fn commit(session: &mut Session, queue: &Queue, mut waiting: Vec<Arc<Ticket<QueuedCommit>>>) {
    let mut begun = session.begin(|| {
        waiting.retain(|ticket| ticket.is_waiting());
        queue.add_commits(&mut waiting, MAX_BATCH);
        !waiting.is_empty()
    });
    let mut claimed: Vec<QueuedCommit> = waiting.iter().filter_map(|ticket| ticket.claim()).collect();
    let mut since = Instant::now();
    while !claimed.is_empty() {
        let problem = match begun.and_then(|()| session.commit(&claimed, since)) {
            Ok(outcomes) => {
                return claimed.into_iter().zip(outcomes).for_each(|(work, outcome)| work.answer(outcome));
            }
            Err(problem) => problem,
        };
        if !problem.is_given_up() {
            return claimed.into_iter().for_each(|work| work.answer(Err(problem.clone())));
        }
        // Those whose time is over learn that nothing was done; the others are tried again without them.
        // (`readers_who_keep_commits_out_cost_each_caller_its_own_time`)
        let mut any_is_awaited = || {
            for given_up in claimed.extract_if(.., |work| !work.is_awaited()) {
                given_up.answer(Err(problem.clone()));
            }
            !claimed.is_empty()
        };
        if !any_is_awaited() {
            return;
        }
        // To wait for the lock is not to wait for readers.
        let waits_since = Instant::now();
        begun = session.begin(any_is_awaited);
        since += waits_since.elapsed();
    }
    session.roll_back();
}
