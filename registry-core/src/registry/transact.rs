//! How a write is done: queue, read, decide, commit; and again, if another writer was there in between.

use std::slice;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::Instrument;

use super::access::policies_of;
use super::later::Overlay;
use super::{Inner, Registry};
use crate::access::{Grounds, Judges};
use crate::backend::{Commit, Key, Outcome, Query, Record, Write};
use crate::deadline::Deadline;
use crate::draft::{Context, Draft, Fetched};
use crate::environment::{fraction, new_uuid};
use crate::error::{Error, ErrorKind, Result};
use crate::journal::{CommitId, Revision};
use crate::kind::Kind;
use crate::locks::{LockScope, QueueGuard};

/// The longest pause between two tries.
const MAX_BACKOFF: Duration = Duration::from_millis(64);
/// A commit that took longer may have been done long before it was answered.
const LATE: Duration = Duration::from_secs(5);
/// For so long a writer who had nothing to write waits until that is shown.
const SHOWN_WITHIN: Duration = Duration::from_millis(500);
/// Within which time a commit of unknown outcome mostly shows up, if it was done.
const SHOWS_UP_WITHIN: Duration = Duration::from_secs(30);

/// Who writes, why, and until when.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) deadline: Deadline,
    pub(super) author: Option<String>,
    pub(super) reason: Option<String>,
    /// Whether what is decided is not committed.
    pub(super) is_dry: bool,
}

impl Call {
    /// A call of the registry itself.
    pub(super) fn of_registry(deadline: Deadline) -> Self {
        Self { deadline, author: None, reason: None, is_dry: false }
    }
}

/// What a write returned, and where the journal has it: nowhere if nothing was to be written.
#[derive(Debug)]
pub(super) struct Done<T> {
    pub(super) value: T,
    pub(super) revision: Option<Revision>,
}

/// What a writer holds on to until its commit shows in the cache, whether its caller is there or not.
struct WriteGuards {
    _permit: Option<OwnedSemaphorePermit>,
    _queues: Vec<QueueGuard>,
}

/// Lets a call in, unless too many are there already.
pub(super) fn admit(semaphore: &Arc<Semaphore>, what: &str) -> Result<OwnedSemaphorePermit> {
    Arc::clone(semaphore).try_acquire_owned().map_err(|_| {
        Error::new(
            ErrorKind::Overloaded,
            format!("too many {what} are under way or waiting in this process; nothing was done: try again later"),
        )
    })
}

impl Registry {
    /// See [`Inner::transact`]. What waits for a commit is written first, since it was there first.
    pub(super) async fn transact<T>(
        &self,
        queries: &[Query],
        scope: LockScope,
        rule: impl FnMut(&mut Draft<'_>, &mut Context<'_>) -> Result<T> + Send,
    ) -> Result<Done<T>> {
        let call = self.write_call();
        // Whoever may do nothing here makes nobody wait.
        let mut queries = queries.to_vec();
        let mut judges = self.judges(&mut queries).await?;
        let permit = self.inner.admit_write()?;
        self.inner.settle(&call.deadline).await?;
        self.inner.transact(&call, &mut judges, Some(permit), &queries, scope, rule).await
    }

    /// The call that a write of this handle makes, beginning now.
    pub(super) fn write_call(&self) -> Call {
        let (author, reason) = (self.call.author(), self.call.reason());
        Call { deadline: self.deadline(), author, reason, is_dry: self.call.is_dry() }
    }
}

impl Inner {
    /// Lets a writer in.
    pub(super) fn admit_write(&self) -> Result<OwnedSemaphorePermit> {
        if self.is_read_only {
            return Err(Error::new(ErrorKind::ReadOnly, "this registry was opened for reading only"));
        }
        admit(&self.writes, "writes")
    }

    /// Reads, lets a rule decide, commits; and again, with a new identity, if another writer was there in between.
    ///
    /// What the cache holds need not be read before the first try: the commit expects all that the rule has looked at, so
    /// a cache that is old costs a second try. Only a commit that puts an object is such a check. That there is nothing to
    /// write, or that something is wrong, is for the storage to say, and a deletion must not bring back tables that are gone
    /// (`registry/tests/recall.rs` has the proof).
    ///
    /// All of it ends with its caller or at the deadline, but for a commit that has been sent: that is seen through in a
    /// task of its own, which also shows it in the cache.
    pub(super) async fn transact<T>(
        self: &Arc<Self>,
        call: &Call,
        judges: &mut Judges,
        permit: Option<OwnedSemaphorePermit>,
        queries: &[Query],
        scope: LockScope,
        mut rule: impl FnMut(&mut Draft<'_>, &mut Context<'_>) -> Result<T> + Send,
    ) -> Result<Done<T>> {
        let deadline = &call.deadline;
        let keys: Vec<Key> = queries
            .iter()
            .filter_map(|query| if let Query::Keys(keys) = query { Some(keys.as_slice()) } else { None })
            .flatten()
            .cloned()
            .collect();
        let queues = self.locks.enter(&keys, scope);
        let queues = deadline.wait_for("earlier writers of the same objects", queues).await?;
        let mut held = WriteGuards { _permit: permit, _queues: queues };
        // What is not committed is not checked by a commit.
        let mut recalled = if call.is_dry { None } else { self.cache.recall(queries) };
        let mut failed = None;
        for attempt in 0_u32.. {
            let is_recalled = recalled.is_some();
            let answers = match recalled.take() {
                Some(answers) => answers,
                None => {
                    let read = self.backend.read(queries, deadline);
                    // What is read has no effect, so a backend that overlooks the deadline need not be waited for.
                    let read = deadline.wait_for("the storage to be read", read).await.flatten();
                    read.map_err(|error| failed.take().unwrap_or(error))?
                }
            };
            let fetched = Fetched::new(queries, answers, is_recalled);
            let mistaken = judges.mistaken(|key| fetched.record(key).map(|record| record.value.clone()));
            if is_recalled && !mistaken.is_empty() {
                continue;
            }
            self.judge_anew(judges, mistaken, None, deadline).await?;
            judges.take_decided();
            let decided = self.decide(call, judges, &fetched, &mut rule);
            if is_recalled && !matches!(&decided, Ok((_, Some(commit))) if puts_an_object(commit)) {
                continue;
            }
            judges.note(&call.deadline, decided.is_err()).await?;
            let (value, commit) = decided?;
            let Some(mut commit) = commit else {
                self.show_unchanged(&keys, fetched, deadline).await;
                return Ok(Done { value, revision: None });
            };
            if let Some(error) = failed {
                return Err(error);
            }
            if call.is_dry {
                return Ok(Done { value, revision: None });
            }
            self.note_made_after(&mut commit, deadline).await?;
            let (outcome, still_held) = self.commit(commit, deadline, held).await?;
            held = still_held;
            let outcome = match outcome {
                // With what is stored there may be nothing to commit. If there is, it is not for us to try again.
                Err(error) if is_recalled && !error.is_outcome_unknown() && !deadline.is_over() => {
                    failed = Some(error);
                    continue;
                }
                outcome => outcome?,
            };
            match outcome {
                Outcome::Committed { revision } => return Ok(Done { value, revision }),
                Outcome::Conflict(key) if is_recalled => {
                    let recalled = fetched.record(&key);
                    self.cache.doubt(key, recalled);
                }
                Outcome::Conflict(key) => {
                    tracing::debug!(%key, attempt, "another writer was faster; deciding again");
                    let pause = backoff(attempt, fraction(&*self.environment));
                    let has_time = deadline.remaining() > pause;
                    if has_time {
                        tokio::time::sleep(pause).await;
                    }
                    // The pause may have taken longer than it was to.
                    if !has_time || deadline.is_over() {
                        return Err(Error::new(
                            ErrorKind::Conflict,
                            format!(
                                "other writers kept changing {key} until the deadline of the call; nothing was done: try again"
                            ),
                        ));
                    }
                }
            }
        }
        Err(Error::internal("a write ran out of attempts"))
    }

    /// Has what was decided about projects by what the cache had of them decided by what is stored instead.
    pub(super) async fn judge_anew(
        &self,
        judges: &mut Judges,
        mistaken: Vec<(String, Grounds)>,
        overlay: Option<&Overlay>,
        deadline: &Deadline,
    ) -> Result<()> {
        for (project, grounds) in mistaken {
            let query = Query::objects(Kind::Permission, Some(&project));
            let read = self.backend.read(slice::from_ref(&query), deadline);
            let read = deadline.wait_for("the storage to be read", read).await.flatten()?;
            let mut permissions = read.into_iter().next().unwrap_or_default();
            if let Some(overlay) = overlay {
                overlay.show(&query, &mut permissions, true);
            }
            judges.go_by(&project, policies_of(permissions), grounds);
        }
        Ok(())
    }

    /// With a project that is somebody's goes where its part of the journal begins. The project was not there when this was read,
    /// nor is it when the commit is done, so what was in an earlier one of its name is older.
    async fn note_made_after(&self, commit: &mut Commit, deadline: &Deadline) -> Result<()> {
        let of_creator = |write: &Write| match write {
            Write::Put(Record { key: Key::Metadata { project, name }, .. }) if name == Key::CREATOR => {
                Some(project.clone())
            }
            _ => None,
        };
        let made: Vec<String> = commit.writes.iter().filter_map(of_creator).collect();
        if made.is_empty() {
            return Ok(());
        }
        let newest = self.backend.newest_revision(deadline);
        let newest = match deadline.wait_for("the journal to be read", newest).await.flatten() {
            Ok(newest) => newest.map_or(0, Revision::number).to_string(),
            // Without a journal there is nothing of an earlier project.
            Err(error) if error.kind() == ErrorKind::Unsupported => return Ok(()),
            Err(error) => return Err(error),
        };
        let note = |project| {
            Write::Put(Record::new(Key::metadata(project, Key::MADE_AFTER), newest.clone(), commit.at.seconds))
        };
        commit.writes.extend(made.into_iter().map(note).collect::<Vec<_>>());
        Ok(())
    }

    /// What a rule makes of what was read, and the commit of it if there is anything to write.
    fn decide<T>(
        &self,
        call: &Call,
        judges: &mut Judges,
        fetched: &Fetched,
        rule: &mut impl FnMut(&mut Draft<'_>, &mut Context<'_>) -> Result<T>,
    ) -> Result<(T, Option<Commit>)> {
        let environment = &*self.environment;
        let now = environment.now();
        let mut draft = Draft::new(fetched);
        let value = rule(&mut draft, &mut self.context(now, &mut || new_uuid(environment), judges))?;
        if draft.is_empty() {
            return Ok((value, None));
        }
        let (mut expectations, writes) = draft.into_parts();
        judges.check_writes(fetched, &writes)?;
        for (key, expected) in judges.expectations() {
            if expectations.iter().all(|(other, _)| *other != key) {
                expectations.push((key, expected));
            }
        }
        self.check_sizes(&writes)?;
        let commit = Commit {
            id: CommitId::new(&now, environment.random()),
            at: now,
            author: call.author.clone(),
            reason: call.reason.clone(),
            expectations,
            writes,
            observed: Vec::new(),
        };
        Ok((value, Some(commit)))
    }

    /// What rules take from outside.
    pub(super) fn context<'a>(
        &self,
        now: prost_types::Timestamp,
        new_uuid: &'a mut (dyn FnMut() -> String + Send),
        judges: &'a mut Judges,
    ) -> Context<'a> {
        Context { now, new_uuid, keeps_metadata: self.keeps_metadata, judges }
    }

    /// Commits in a task of its own, so that a caller who leaves cannot leave a commit whose result the cache misses. What
    /// has not been sent when the caller leaves ends there.
    async fn commit(
        self: &Arc<Self>,
        commit: Commit,
        deadline: &Deadline,
        held: WriteGuards,
    ) -> Result<(Result<Outcome>, WriteGuards)> {
        let _waiting = deadline.waiting("its commit");
        let (tied, caller) = deadline.tied_to_caller();
        let inner = Arc::clone(self);
        let commit = async move {
            let began = tokio::time::Instant::now();
            let writes = commit.writes.clone();
            // The caller may have left before this task was first polled.
            let outcome = match tied.check("its commit to begin") {
                Ok(()) => inner.backend.commit(commit, &tied).await,
                Err(error) => Err(error),
            };
            match &outcome {
                Ok(Outcome::Committed { revision }) => {
                    inner.cache.apply(writes, *revision);
                    if began.elapsed() > LATE && !inner.cache.follows() {
                        // It may have been done long ago, with others on top of it.
                        inner.cache.refresh_soon();
                    }
                }
                // The journal tells as soon as it is known.
                Err(error) if error.is_outcome_unknown() && !inner.cache.follows() => {
                    inner.cache.refresh_soon();
                    // It may show up any time.
                    let cache = Arc::downgrade(&inner.cache);
                    tokio::spawn(async move {
                        tokio::time::sleep(SHOWS_UP_WITHIN).await;
                        if let Some(cache) = cache.upgrade() {
                            cache.refresh_soon();
                        }
                    });
                }
                _ => {}
            }
            (outcome, held)
        };
        let done = tokio::spawn(commit.in_current_span()).await.map_err(|error| {
            tracing::error!(%error, "the task of a commit was broken off");
            Error::unknown_outcome(&self.backend.location()).with_source(error)
        });
        drop(caller);
        done
    }

    /// Whoever is told that an object is stored as it was sent sees it at once, whoever has stored it: an earlier try of
    /// the same caller whose outcome it did not learn, for example.
    async fn show_unchanged(&self, keys: &[Key], fetched: Fetched, deadline: &Deadline) {
        let records: Vec<(Key, Option<Record>)> = fetched.into_records(keys);
        // Facts and projects are written by many at once, so what was read of them may be old by now.
        let of_own = records
            .into_iter()
            .filter(|(key, _)| matches!(key, Key::Object { kind, .. } if *kind != crate::Kind::Project));
        let changes = of_own.filter(|(key, record)| !self.cache.shows(key, record.as_ref()));
        if self.cache.follows() {
            // What was read may be older by now than what came by in the journal.
            let keys: Vec<Key> = changes.map(|(key, _)| key).collect();
            if !keys.is_empty() {
                self.cache.look_at(keys, SHOWN_WITHIN.min(deadline.remaining())).await;
            }
            return;
        }
        let writes: Vec<Write> = changes.map(|(key, record)| record.map_or(Write::Delete(key), Write::Put)).collect();
        if !writes.is_empty() {
            self.cache.apply(writes, None);
        }
    }

    /// Refuses what the storage cannot hold.
    pub(super) fn check_sizes(&self, writes: &[Write]) -> Result<()> {
        for write in writes {
            if let Write::Put(Record { key, value, .. }) = write
                && value.len() > self.limits.value_bytes
            {
                let (size, limit) = (value.len(), self.limits.value_bytes);
                return Err(Error::invalid(format!(
                    "{key} has {size} bytes, and this registry stores at most {limit}"
                )));
            }
        }
        Ok(())
    }
}

fn puts_an_object(commit: &Commit) -> bool {
    commit.writes.iter().any(|write| matches!(write, Write::Put(Record { key: Key::Object { .. }, .. })))
}

/// A random pause of up to 1, 2, 4, … ms, so that writers who met once do not meet again.
fn backoff(attempt: u32, fraction: f64) -> Duration {
    let longest = MAX_BACKOFF.min(Duration::from_millis(1 << attempt.min(10)));
    longest.mul_f64(fraction)
}
