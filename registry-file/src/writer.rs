//! Group commit: all commits that wait go out in one write of the file.
//!
//! What becomes of a write whose answer is lost is read from the file, which says what number the last write of this process
//! has ([`Journal::tells_of`](crate::journal::Journal::tells_of)). Until that is known, the same batch is decided and sent
//! again and again, with a number of its own each time. It is done once at the most: each of these writes is only done on
//! the state of the file that it was decided from, and whichever comes first makes another state. So once the file is found
//! in another state, what does not stand in it has not been done and will not be. Then, or after [`GRACE`], others have their
//! turn.

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use feast_registry_core::{Commit, Deadline, Environment as _, Error, ErrorKind, Outcome, Result, Retention, System};
use tokio::sync::watch;

use crate::document::Document;
use crate::file::{File, Snapshot};
use crate::journal::{Keeps, WriteStatus, WriterId};
use crate::queue::{Answer, Job, Queue, Request, latest, strange};
use crate::staged::{Decided, Staged};
use crate::store::{Failure, Removal, Swapped, WriteLock};
use crate::{Statistics, copy_of};

/// For how long after the deadline of a call it is tried to learn what became of a write.
const GRACE: Duration = Duration::from_secs(5);

/// The longest pause between two attempts, and that as so many times what an attempt takes.
const MAX_BACKOFF: Duration = Duration::from_secs(2);
const MAX_ATTEMPTS_MISSED: u32 = 8;
/// How long a store that has too much to do is taken to need.
const OVERLOADED_FOR: Duration = Duration::from_millis(100);

/// How long a process that met another one makes room for it, where a lock orders them.
const STEP_BACK: Duration = Duration::from_millis(2);

/// For how long a process remembers that there is another one.
const REMEMBERED: Duration = Duration::from_secs(60);

/// So many jobs may wait in vain before those are cleared away that nobody waits for any more.
const CLEARED_EVERY: usize = 256;

#[derive(Debug, Default)]
struct Counters {
    commits: AtomicU64,
    writes: AtomicU64,
    conflicts: AtomicU64,
    recovered: AtomicU64,
}

/// Takes commits, and has a task do them as long as there are any.
#[derive(Debug)]
pub(crate) struct Writer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    file: Arc<File>,
    keeps: Keeps,
    /// Who this is in the file.
    id: WriterId,
    /// How many writes have been sent.
    sent: AtomicU64,
    queue: Mutex<Queue>,
    /// Whether a task is at work; for whoever waits until none is.
    is_idle: watch::Sender<bool>,
    counters: Counters,
    /// What the task waits for, as one of [`WAITS`].
    waits: AtomicU8,
    /// When this process last found that another one had written.
    has_met_others: Mutex<Option<Instant>>,
}

/// What a call that has not been sent yet may be waiting for.
const WAITS: [&str; 4] = [
    "its turn to write",
    "the lock, which another process holds, of",
    "a moment in which no other process writes",
    "the object store, which is overloaded, to take",
];
const FOR_QUEUE: u8 = 0;
const FOR_LOCK: u8 = 1;
const FOR_OTHERS: u8 = 2;
const FOR_STORE: u8 = 3;

impl Writer {
    pub(crate) fn new(file: Arc<File>, keeps: Keeps) -> Self {
        Self {
            shared: Arc::new(Shared {
                file,
                keeps,
                id: *uuid::Uuid::new_v4().as_bytes(),
                sent: AtomicU64::new(0),
                queue: Mutex::default(),
                is_idle: watch::Sender::new(true),
                counters: Counters::default(),
                waits: AtomicU8::new(FOR_QUEUE),
                has_met_others: Mutex::default(),
            }),
        }
    }

    pub(crate) fn keeps(&self) -> Keeps {
        self.shared.keeps
    }

    pub(crate) async fn commit(&self, commit: Commit, deadline: &Deadline) -> Result<Outcome> {
        match self.ask(Request::Commit(commit), deadline).await? {
            Answer::Commit(outcome) => Ok(outcome),
            other => Err(strange(&other)),
        }
    }

    pub(crate) async fn create(&self, deadline: &Deadline) -> Result<()> {
        self.ask(Request::Create, deadline).await.map(drop)
    }

    pub(crate) async fn remove_if_empty(&self, deadline: &Deadline) -> Result<bool> {
        if !self.shared.file.makes() {
            return Ok(false);
        }
        match self.ask(Request::RemoveIfEmpty, deadline).await? {
            Answer::RemoveIfEmpty(is_removed) => Ok(is_removed),
            other => Err(strange(&other)),
        }
    }

    pub(crate) async fn prune_journal(&self, retention: Retention, deadline: &Deadline) -> Result<u64> {
        match self.ask(Request::PruneJournal(retention), deadline).await? {
            Answer::PruneJournal(removed) => Ok(removed),
            other => Err(strange(&other)),
        }
    }

    /// Takes nothing more, and waits until what was taken is done.
    pub(crate) async fn close(&self) {
        self.shared.queue().is_closed = true;
        // It does not end before `self` does.
        let _ = self.shared.is_idle.subscribe().wait_for(|is_idle| *is_idle).await;
    }

    pub(crate) fn statistics(&self) -> Statistics {
        let Counters { commits, writes, conflicts, recovered } = &self.shared.counters;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Statistics {
            commits: count(commits),
            writes: count(writes),
            conflicts: count(conflicts),
            recovered: count(recovered),
        }
    }

    /// The work is a task of its own: a caller that goes away leaves nothing half done for those who share its write.
    async fn ask(&self, request: Request, deadline: &Deadline) -> Result<Answer> {
        let shared = &self.shared;
        deadline.check(&shared.waits_for())?;
        let (job, mut waiter) = Job::new(request, deadline.clone());
        if shared.add(job)? {
            let served = ServingGuard(Some(Arc::clone(shared)));
            tokio::spawn(served.serve());
        }
        let answer = tokio::select! {
            biased;
            answer = &mut waiter.answer => Some(answer),
            () = deadline.over() => None,
        };
        let answer = match answer {
            None if !waiter.withdraw() => tokio::time::timeout(GRACE, &mut waiter.answer).await.ok(),
            answer => answer,
        };
        match answer {
            Some(Ok(answer)) => answer,
            // What was not sent will not be.
            _ if !waiter.withdraw() => Err(shared.unknown(None)),
            _ if deadline.is_over() => Err(deadline.exceeded(&shared.waits_for())),
            _ => {
                let text =
                    format!("the writing of the registry {} was aborted; nothing was done", shared.file.location());
                Err(Error::new(ErrorKind::Unavailable, text))
            }
        }
    }
}

/// That a task is at work. If it is dropped half way (its runtime ends), the next commit starts another.
struct ServingGuard(Option<Arc<Shared>>);

impl ServingGuard {
    async fn serve(mut self) {
        if let Some(shared) = &self.0 {
            shared.serve().await;
        }
        // From the moment at which it found no more jobs, another task may be at work.
        self.0 = None;
    }
}

impl Drop for ServingGuard {
    fn drop(&mut self) {
        if let Some(shared) = &self.0 {
            let mut queue = shared.queue();
            queue.is_served = false;
            shared.is_idle.send_replace(true);
            // Whoever waits for it is told.
            queue.jobs.clear();
        }
    }
}

/// A write that was sent, and whose fate may not be known.
struct Sent {
    number: u64,
    /// The state of the file that it was decided from: it is done on no other.
    base: Arc<Snapshot>,
    /// What its batch is answered if it was done.
    answers: Vec<Result<Answer>>,
}

/// How an attempt at a batch ended.
enum Attempted {
    /// These are the answers.
    Done(Vec<Result<Answer>>),
    /// The file has changed; all is to be decided again, from the file as it is now.
    Changed,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether a task must be started.
    fn add(&self, job: Job) -> Result<bool> {
        let mut queue = self.queue();
        if queue.is_closed {
            let text = format!("the registry {} has been closed by this process", self.file.location());
            return Err(Error::new(ErrorKind::Unavailable, text));
        }
        if queue.jobs.len().is_multiple_of(CLEARED_EVERY) {
            queue.jobs.retain(|job| !job.is_over());
        }
        queue.jobs.push(job);
        self.is_idle.send_replace(false);
        Ok(!std::mem::replace(&mut queue.is_served, true))
    }

    /// What a call waits for, for its error.
    fn waits_for(&self) -> String {
        let what = WAITS[usize::from(self.waits.load(Ordering::Relaxed)) % WAITS.len()];
        format!("{what} the registry {}", self.file.location())
    }

    fn unknown(&self, cause: Option<&Error>) -> Error {
        let unknown = Error::unknown_outcome(&self.file.location());
        match cause {
            Some(cause) if !cause.is_outcome_unknown() => unknown.with_source(cause.clone()),
            _ => unknown,
        }
    }

    async fn serve(&self) {
        loop {
            let batch: Vec<Job> = {
                let mut queue = self.queue();
                queue.jobs.retain(|job| !job.is_over());
                if queue.jobs.is_empty() {
                    queue.is_served = false;
                    self.is_idle.send_replace(true);
                    return;
                }
                queue.next_batch()
            };
            let began = Instant::now();
            self.process(batch).await;
            let pause = self.pause(began.elapsed());
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
        }
    }

    /// How long to make room for other processes after a batch that took so long: or one with much to write would keep the
    /// others out. Where no lock orders them, they need the time of a read and a write without one of ours in between, and
    /// they cannot say that they are there.
    fn pause(&self, took: Duration) -> Duration {
        let met = *self.has_met_others.lock().unwrap_or_else(PoisonError::into_inner);
        let longest = match met.map(|met| met.elapsed()) {
            Some(since) if self.file.keeps_others_out() => {
                if since <= took {
                    STEP_BACK
                } else {
                    Duration::ZERO
                }
            }
            None if self.file.keeps_others_out() => Duration::ZERO,
            Some(since) if since < REMEMBERED => took * 2,
            _ => took / 2,
        };
        longest.min(MAX_BACKOFF).mul_f64(fastrand::f64())
    }

    /// Does a batch, whatever that takes, and answers all of it.
    async fn process(&self, mut batch: Vec<Job>) {
        let mut sent: Vec<Sent> = Vec::new();
        self.waits.store(FOR_QUEUE, Ordering::Relaxed);
        for attempt in 0_u32.. {
            if sent.is_empty() {
                self.drop_over(&mut batch);
            }
            let Some(latest) = latest(&batch) else { return };
            let deadline = if sent.is_empty() { latest } else { Deadline::at(latest.instant() + GRACE) };
            let began = Instant::now();
            let error = match self.attempt(&mut batch, attempt, &mut sent, &deadline).await {
                Ok(Attempted::Done(answers)) => {
                    batch.into_iter().zip(answers).for_each(|(job, answer)| job.answer(answer));
                    return;
                }
                Ok(Attempted::Changed) => None,
                Err(error) => Some(error),
            };
            let mut is_overloaded = false;
            match error {
                // Each is told its own, once it is over.
                Some(error) if sent.is_empty() && error.kind() == ErrorKind::DeadlineExceeded => {}
                // A store that has too much to do says so at once.
                Some(error) if sent.is_empty() && error.kind() == ErrorKind::Overloaded => {
                    tracing::debug!(%error, attempt, "trying again after a pause");
                    self.waits.store(FOR_STORE, Ordering::Relaxed);
                    is_overloaded = true;
                }
                Some(error) if sent.is_empty() => {
                    return batch.into_iter().for_each(|job| job.answer(Err(copy_of(&error))));
                }
                // Nothing that is tried again would tell.
                Some(error) if !error.is_retryable() || deadline.is_over() => {
                    tracing::warn!(%error, attempt, "whether the registry was written will not be known");
                    return batch.into_iter().for_each(|job| job.answer(Err(self.unknown(Some(&error)))));
                }
                Some(error) => {
                    tracing::warn!(%error, attempt, "whether the registry was written is not known; looking");
                }
                None if deadline.is_over() && !sent.is_empty() => {
                    return batch.into_iter().for_each(|job| job.answer(Err(self.unknown(None))));
                }
                None => {}
            }
            let took = began.elapsed();
            let pause = backoff(attempt, if is_overloaded { took.max(OVERLOADED_FOR) } else { took });
            // What is over ends the pause, and the batch.
            let _ = deadline.wait_for("the next attempt", tokio::time::sleep(pause)).await;
        }
    }

    /// Leaves out the jobs for which nobody waits. None of them may have been sent.
    fn drop_over(&self, batch: &mut Vec<Job>) {
        for job in batch.extract_if(.., |job| job.is_over()) {
            let error = job.deadline.exceeded(&self.waits_for());
            job.answer(Err(error));
        }
    }

    async fn lock(&self, deadline: &Deadline) -> Result<WriteLock> {
        let before = self.waits.swap(FOR_LOCK, Ordering::Relaxed);
        let lock = self.file.lock(deadline).await;
        self.waits.store(before, Ordering::Relaxed);
        lock
    }

    /// Tries a batch once. `sent` are the earlier writes of it whose fate is not known; while there are any, the batch stays
    /// as it is.
    async fn attempt(
        &self,
        batch: &mut Vec<Job>,
        attempt: u32,
        sent: &mut Vec<Sent>,
        deadline: &Deadline,
    ) -> Result<Attempted> {
        let _lock = self.lock(deadline).await?;
        let known = if self.file.keeps_others_out() || attempt > 0 { None } else { self.file.known() };
        let (mut snapshot, mut is_fresh) = match known {
            Some(known) => (known, false),
            None => (self.look(deadline).await?, true),
        };
        if let Some(answers) = self.resolve(&snapshot, batch, sent)? {
            return Ok(Attempted::Done(self.count(answers)));
        }
        if sent.is_empty() {
            self.drop_over(batch);
        }
        if batch.is_empty() {
            return Ok(Attempted::Done(Vec::new()));
        }
        let (answers, decided) = loop {
            let mut staged = Staged::on(&snapshot, self.file.makes(), self.keeps.history, System.now());
            let answers = staged.decide(batch, || self.file.missing());
            // What is known without a look may be old: it can be written on, since that then fails, but it decides nothing
            // else.
            if !is_fresh && (!staged.has_changed() || answers.iter().any(is_refusal)) {
                (snapshot, is_fresh) = (self.look(deadline).await?, true);
                continue;
            }
            let decided = staged.into_decided();
            if matches!(decided, Decided::Nothing) {
                return Ok(Attempted::Done(self.count(answers)));
            }
            // From here on nobody can withdraw. Whoever has is left out, and the rest is decided without them.
            let count = batch.len();
            batch.retain(Job::send);
            match batch.len() {
                0 => return Ok(Attempted::Done(Vec::new())),
                left if left == count => break (answers, decided),
                _ => {}
            }
        };
        let attempted = self.write(decided, answers, snapshot, sent, deadline).await;
        if sent.is_empty() && !matches!(attempted, Ok(Attempted::Done(_))) {
            batch.iter().for_each(Job::take_back);
        }
        attempted
    }

    /// Looks up what became of the writes that were sent. Returns the answers of the one that was done, if one was.
    ///
    /// # Errors
    /// `UnknownOutcome` when that can no longer be told.
    fn resolve(&self, snapshot: &Snapshot, batch: &[Job], sent: &mut Vec<Sent>) -> Result<Option<Vec<Result<Answer>>>> {
        let journal = snapshot.journal();
        let tells = |sent: &Sent| journal.tells_of(&self.id, sent.number, &sent.base.journal());
        if let Some(index) = sent.iter().position(|sent| tells(sent) == WriteStatus::Done) {
            self.counters.recovered.fetch_add(1, Ordering::Relaxed);
            return Ok(Some(sent.swap_remove(index).answers));
        }
        if sent.iter().any(|sent| sent.base.is_same_state(snapshot)) {
            return Ok(None);
        }
        if sent.iter().any(|sent| tells(sent) == WriteStatus::Nothing) {
            return Err(self.unknown(None));
        }
        if !sent.is_empty() {
            sent.clear();
            batch.iter().for_each(Job::take_back);
        }
        Ok(None)
    }

    async fn write(
        &self,
        decided: Decided,
        answers: Vec<Result<Answer>>,
        base: Arc<Snapshot>,
        sent: &mut Vec<Sent>,
        deadline: &Deadline,
    ) -> Result<Attempted> {
        let number = self.sent.fetch_add(1, Ordering::SeqCst) + 1;
        let mut document = match decided {
            Decided::Write(document) => *document,
            Decided::Remove => {
                let left = base.document.as_ref().map(Document::removed).unwrap_or_default();
                if let Some(tag) = &base.tag {
                    let bytes = self.encode(&mut left.clone(), number);
                    match self.file.remove(tag, bytes.clone()).await? {
                        Removal::Done => {
                            self.file.set_known(Arc::new(Snapshot::absent(Some(bytes))));
                            return Ok(Attempted::Done(answers));
                        }
                        Removal::Changed => return Ok(Attempted::Changed),
                        // Not every store can remove an object on a condition; a note that there is nothing, it can write
                        // on one.
                        Removal::Impossible => {}
                    }
                }
                left
            }
            Decided::Nothing => return Ok(Attempted::Done(answers)),
        };
        let bytes = self.encode(&mut document, number);
        let expected = base.tag.clone();
        sent.push(Sent { number, base, answers });
        match self.file.swap(expected.as_ref(), bytes.clone(), deadline).await {
            Ok(Swapped::Done(tag)) => {
                self.counters.writes.fetch_add(1, Ordering::Relaxed);
                if document.is_loose() {
                    // It is written, whatever becomes of this.
                    document = self.file.parse(bytes).await.unwrap_or(document);
                }
                self.file.set_known(Arc::new(Snapshot::new(document, tag)));
                let answers = sent.pop().map(|sent| sent.answers).unwrap_or_default();
                Ok(Attempted::Done(self.count(answers)))
            }
            Ok(swapped) => {
                if matches!(swapped, Swapped::Changed) {
                    sent.pop();
                }
                self.waits.store(FOR_OTHERS, Ordering::Relaxed);
                self.counters.conflicts.fetch_add(1, Ordering::Relaxed);
                Ok(Attempted::Changed)
            }
            Err(Failure { error, is_in_doubt }) => {
                if !is_in_doubt {
                    sent.pop();
                }
                Err(error)
            }
        }
    }

    /// The file, with what says that this process has written it.
    fn encode(&self, document: &mut Document, number: u64) -> bytes::Bytes {
        let now = System.now();
        let size = document.size();
        let journal = Arc::make_mut(&mut document.journal);
        journal.sign(&self.id, number, &now);
        journal.prune(&self.keeps, size, &now);
        document.encode(&uuid::Uuid::new_v4().to_string(), &now)
    }

    async fn look(&self, deadline: &Deadline) -> Result<Arc<Snapshot>> {
        let before = self.file.known();
        let found = self.file.look(deadline).await?;
        if before.is_some_and(|before| !Arc::ptr_eq(&before, &found)) {
            *self.has_met_others.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
        Ok(found)
    }

    fn count(&self, answers: Vec<Result<Answer>>) -> Vec<Result<Answer>> {
        let is_done = |answer: &&Result<Answer>| matches!(answer, Ok(Answer::Commit(Outcome::Committed { .. })));
        let done = answers.iter().filter(is_done).count();
        self.counters.commits.fetch_add(done as u64, Ordering::Relaxed);
        answers
    }
}

fn is_refusal(answer: &Result<Answer>) -> bool {
    match answer {
        Ok(Answer::Commit(outcome)) => !outcome.is_committed(),
        Ok(Answer::RemoveIfEmpty(is_removed)) => !is_removed,
        Ok(Answer::PruneJournal(removed)) => *removed == 0,
        Ok(Answer::Create) => false,
        Err(_) => true,
    }
}

/// A random pause of up to 1, 2, 4, … times what an attempt takes: that is for how long another writer may be at it. Longer,
/// and a writer that never pauses would always be first.
fn backoff(attempt: u32, took: Duration) -> Duration {
    MAX_BACKOFF.min(took * (1 << attempt.min(10)).min(MAX_ATTEMPTS_MISSED)).mul_f64(fastrand::f64())
}
