//! Group commit: all commits that wait go out in one write of the file.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use feast_registry_core::{Commit, Error, ErrorKind, Outcome, Result};
use tokio::sync::oneshot;

use crate::document::Document;
use crate::known::{File, Known};
use crate::store::{Failure, Removal, Swapped};
use crate::{Statistics, copy_of};

/// The most commits that share a write, so that the first of them does not wait long for the last.
const MAX_BATCH: usize = 1024;

/// How long a write goes on trying against other processes, or a store that does not answer.
const RETRY_FOR: Duration = Duration::from_secs(30);

/// The longest pause between two tries, and that as so many times what a try takes.
const MAX_BACKOFF: Duration = Duration::from_secs(2);
const MAX_TRIES_MISSED: u32 = 8;

/// How long a process that met another one makes room for it, where a lock orders them.
const STEP_BACK: Duration = Duration::from_millis(2);

/// For how long a process remembers that there is another one.
const REMEMBERED: Duration = Duration::from_secs(60);

type Reply<T> = oneshot::Sender<Result<T>>;

enum Job {
    Commit(Commit, Reply<Outcome>),
    /// Makes a registry if there is none.
    Create(Reply<()>),
    RemoveIfEmpty(Reply<bool>),
}

/// What a job comes to.
enum Answer {
    Commit(Result<Outcome>),
    Create(Result<()>),
    RemoveIfEmpty(Result<bool>),
}

#[derive(Default)]
struct Queue {
    jobs: Vec<Job>,
    /// Whether a task is at work that will see what is added.
    is_served: bool,
}

#[derive(Default)]
struct Counters {
    commits: AtomicU64,
    writes: AtomicU64,
    conflicts: AtomicU64,
    recovered: AtomicU64,
}

/// Takes commits, and has a task do them as long as there are any.
pub(crate) struct Writer {
    shared: Arc<Shared>,
}

struct Shared {
    file: Arc<File>,
    queue: Mutex<Queue>,
    counters: Counters,
    /// When this process last found that another one had written.
    has_met_others: Mutex<Option<Instant>>,
}

impl Writer {
    pub(crate) fn new(file: Arc<File>) -> Self {
        Self {
            shared: Arc::new(Shared {
                file,
                queue: Mutex::default(),
                counters: Counters::default(),
                has_met_others: Mutex::default(),
            }),
        }
    }

    pub(crate) async fn commit(&self, commit: Commit) -> Result<Outcome> {
        self.ask(|reply| Job::Commit(commit, reply)).await
    }

    pub(crate) async fn create(&self) -> Result<()> {
        self.ask(Job::Create).await
    }

    pub(crate) async fn remove_if_empty(&self) -> Result<bool> {
        if !self.shared.file.makes() {
            return Ok(false);
        }
        self.ask(Job::RemoveIfEmpty).await
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
    async fn ask<T>(&self, job: impl FnOnce(Reply<T>) -> Job) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        if self.shared.add(job(reply)) {
            let mut served = Served(Some(Arc::clone(&self.shared)));
            tokio::spawn(async move {
                if let Some(shared) = &served.0 {
                    shared.serve().await;
                }
                // From the moment at which it found no more jobs, another task may be at work.
                drop(served.0.take());
            });
        }
        answer.await.map_err(|_| Error::internal("the writing of the registry was aborted"))?
    }
}

/// That a task is at work. If it is dropped half way (its runtime ends), the next commit starts another.
struct Served(Option<Arc<Shared>>);

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(shared) = &self.0 {
            let mut queue = shared.queue();
            queue.is_served = false;
            // Whoever waits for it is told.
            queue.jobs.clear();
        }
    }
}

/// How one try at a batch ended.
enum Try {
    Finished(Vec<Answer>),
    /// The file has changed; all is to be decided again, from the file as it is now.
    Again,
    Failed(Failure),
}

impl Shared {
    fn queue(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether a task must be started.
    fn add(&self, job: Job) -> bool {
        let mut queue = self.queue();
        queue.jobs.push(job);
        !std::mem::replace(&mut queue.is_served, true)
    }

    async fn serve(&self) {
        loop {
            let batch: Vec<Job> = {
                let mut queue = self.queue();
                if queue.jobs.is_empty() {
                    queue.is_served = false;
                    return;
                }
                let count = queue.jobs.len().min(MAX_BATCH);
                queue.jobs.drain(..count).collect()
            };
            let began = Instant::now();
            let answers = self.process(&batch).await;
            for (job, answer) in batch.into_iter().zip(answers) {
                // Whoever no longer waits for an answer gets none.
                match (job, answer) {
                    (Job::Commit(_, reply), Answer::Commit(answer)) => drop(reply.send(answer)),
                    (Job::Create(reply), Answer::Create(answer)) => drop(reply.send(answer)),
                    (Job::RemoveIfEmpty(reply), Answer::RemoveIfEmpty(answer)) => drop(reply.send(answer)),
                    _ => {}
                }
            }
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

    /// Does a batch, whatever that takes.
    async fn process(&self, batch: &[Job]) -> Vec<Answer> {
        let began = Instant::now();
        let mut tried = Vec::new();
        for attempt in 0_u32.. {
            let tried_at = Instant::now();
            let failure = match self.attempt(batch, attempt, &mut tried).await {
                Ok(Try::Finished(answers)) => return answers,
                Ok(Try::Again) => None,
                Ok(Try::Failed(failure)) if failure.is_in_doubt => Some(failure.error),
                Ok(Try::Failed(failure)) => return fail(batch, &failure.error),
                // Whether an earlier try was written cannot be looked up either.
                Err(error) if error.is_retryable() && !tried.is_empty() => Some(error),
                Err(error) => return fail(batch, &error),
            };
            if began.elapsed() > RETRY_FOR {
                let error = failure.unwrap_or_else(|| {
                    let location = self.file.location();
                    let seconds = RETRY_FOR.as_secs();
                    let text = format!("other processes kept changing {location} for {seconds} s; try again");
                    Error::new(ErrorKind::Conflict, text)
                });
                return fail(batch, &error);
            }
            if let Some(error) = &failure {
                tracing::warn!(%error, attempt, "whether the registry was written is not known; looking");
            }
            tokio::time::sleep(backoff(attempt, tried_at.elapsed())).await;
        }
        fail(batch, &Error::internal("a write ran out of attempts"))
    }

    /// Tries a batch once. `tried` are the earlier tries of it whose fate may not be known: their `version_id` and what
    /// they would have answered.
    async fn attempt(&self, batch: &[Job], attempt: u32, tried: &mut Vec<(String, Vec<Answer>)>) -> Result<Try> {
        let _turn = self.file.turn().await?;
        let known = if self.file.keeps_others_out() || attempt > 0 { None } else { self.file.known() };
        let (mut known, is_fresh) = match known {
            Some(known) => (known, false),
            None => (self.look().await?, true),
        };
        if let Some(index) = tried.iter().position(|(version_id, _)| known.was_written_as(version_id)) {
            self.counters.recovered.fetch_add(1, Ordering::Relaxed);
            let (_, answers) = tried.swap_remove(index);
            return Ok(Try::Finished(self.count(answers)));
        }
        let mut work = Work::on(&known, self.file.makes());
        let mut answers = self.decide(batch, &mut work);
        // What is known without a look may be old: it can be written on, since that then fails, but it decides nothing
        // else.
        if !is_fresh && (!work.has_changed || answers.iter().any(is_refusal)) {
            known = self.look().await?;
            work = Work::on(&known, self.file.makes());
            answers = self.decide(batch, &mut work);
        }
        // What is made and removed within one batch is not made at all.
        if !work.has_changed || (known.tag.is_none() && work.document.is_none()) {
            return Ok(Try::Finished(self.count(answers)));
        }
        if let (None, Some(tag)) = (&work.document, &known.tag) {
            match self.file.remove(tag).await? {
                Removal::Done => {
                    self.file.set_known(Arc::new(Known::default()));
                    return Ok(Try::Finished(self.count(answers)));
                }
                Removal::Changed => return Ok(Try::Again),
                Removal::Impossible => {}
            }
        }
        let mut document = match work.document {
            Some(document) => document,
            // Not every store can remove an object on a condition; a note that there is nothing, it can write on one.
            None => known.document.as_ref().map_or_else(|| known.blank().removed(), Document::removed),
        };
        let version_id = uuid::Uuid::new_v4().to_string();
        let bytes = document.encode(&version_id);
        match self.file.swap(known.tag.as_ref(), bytes.clone()).await {
            Ok(Swapped::Done(tag)) => {
                self.counters.writes.fetch_add(1, Ordering::Relaxed);
                if document.is_loose() {
                    document = self.file.parse(bytes).await?;
                }
                self.file.set_known(Arc::new(Known::new(document, tag)));
                Ok(Try::Finished(self.count(answers)))
            }
            Ok(Swapped::Changed) => {
                self.counters.conflicts.fetch_add(1, Ordering::Relaxed);
                tried.push((version_id, answers));
                Ok(Try::Again)
            }
            Err(failure) => {
                tried.push((version_id, answers));
                Ok(Try::Failed(failure))
            }
        }
    }

    async fn look(&self) -> Result<Arc<Known>> {
        let before = self.file.known();
        let found = self.file.look().await?;
        if before.is_some_and(|before| !Arc::ptr_eq(&before, &found)) {
            *self.has_met_others.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
        Ok(found)
    }

    fn decide(&self, batch: &[Job], work: &mut Work) -> Vec<Answer> {
        let decide = |job: &Job| match job {
            Job::Commit(commit, _) => Answer::Commit(work.commit(commit).ok_or_else(|| self.file.missing()).flatten()),
            Job::Create(_) => Answer::Create(work.create().map(drop).ok_or_else(|| self.file.missing())),
            Job::RemoveIfEmpty(_) => Answer::RemoveIfEmpty(Ok(work.remove_if_empty())),
        };
        batch.iter().map(decide).collect()
    }

    fn count(&self, answers: Vec<Answer>) -> Vec<Answer> {
        let is_done = |answer: &&Answer| matches!(answer, Answer::Commit(Ok(Outcome::Committed)));
        let done = answers.iter().filter(is_done).count();
        self.counters.commits.fetch_add(done as u64, Ordering::Relaxed);
        answers
    }
}

fn is_refusal(answer: &Answer) -> bool {
    !matches!(answer, Answer::Commit(Ok(Outcome::Committed)) | Answer::Create(Ok(())) | Answer::RemoveIfEmpty(Ok(true)))
}

fn fail(batch: &[Job], error: &Error) -> Vec<Answer> {
    let answer = |job: &Job| match job {
        Job::Commit(..) => Answer::Commit(Err(copy_of(error))),
        Job::Create(_) => Answer::Create(Err(copy_of(error))),
        Job::RemoveIfEmpty(_) => Answer::RemoveIfEmpty(Err(copy_of(error))),
    };
    batch.iter().map(answer).collect()
}

/// A random pause of up to 1, 2, 4, … times what a try takes: that is for how long another writer may be at it. Longer, and
/// a writer that never pauses would always be first.
fn backoff(attempt: u32, try_took: Duration) -> Duration {
    MAX_BACKOFF.min(try_took * (1 << attempt.min(10)).min(MAX_TRIES_MISSED)).mul_f64(fastrand::f64())
}

/// The registry as it becomes while a batch is done in memory.
struct Work {
    /// `None` where there is none.
    document: Option<Document>,
    /// What one begins from that is made.
    blank: Option<Document>,
    has_changed: bool,
}

impl Work {
    /// Where `makes`, a registry that is missing is made.
    fn on(known: &Known, makes: bool) -> Self {
        Self { document: known.document.clone(), blank: makes.then(|| known.blank()), has_changed: false }
    }

    /// The registry, made if it is missing; `None` if it may not be.
    fn create(&mut self) -> Option<&mut Document> {
        if self.document.is_none() {
            self.document = Some(self.blank.clone()?);
            self.has_changed = true;
        }
        self.document.as_mut()
    }

    /// `None` when there is no registry, nor may be. A commit that is refused or does not change anything makes none.
    fn commit(&mut self, commit: &Commit) -> Option<Result<Outcome>> {
        let mut document = self.document.as_ref().or(self.blank.as_ref())?.clone();
        Some(document.commit(commit).map(|(outcome, has_changed)| {
            if has_changed {
                self.document = Some(document);
                self.has_changed = true;
            }
            outcome
        }))
    }

    fn remove_if_empty(&mut self) -> bool {
        match &self.document {
            Some(document) if document.has_project() => false,
            Some(_) => {
                self.document = None;
                self.has_changed = true;
                true
            }
            // Another process was faster.
            None => true,
        }
    }
}
