//! Applies that may wait for the caller's commit (Feast: `commit=False`), so that many of them become one.
//!
//! What waits has passed the rules, after what waits before it. It is written with the next commit or the next other
//! write of this process, when there is much of it, or after a moment; until then it is not durable. Reads of this
//! process see it at once, laid over what is stored ([`Overlay`]), and never wait for it to be written.
//!
//! Each apply that is acknowledged has a number. A commit answers for all numbers up to the last one when it begins: it
//! returns when they are written, and fails if some of them still wait or were lost. What cannot be written *now* (an
//! error that a retry may mend) goes on waiting and is tried again. What can never be written is lost; every commit that
//! answers for it says so, whoever makes it, until the object is applied or deleted again or [`LOST_FOR`] is over. Who has
//! applied what is not known here: a caller's applies and its commit may come over different connections.

mod overlay;
mod queue;

use std::slice;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::transact::Call;
use super::{CallOptions, Inner, Registry};
use crate::access::{Access, Grounds, Judges};
use crate::backend::{Query, Write};
use crate::deadline::Deadline;
use crate::draft::{Draft, Fetched};
use crate::encoded::Object;
use crate::environment::new_uuid;
use crate::error::{Error, Result};
use crate::registry::edit::{self, Edit};
use crate::rules::{self, ApplyOptions};

pub(super) use overlay::Overlay;
pub(super) use queue::Later;
use queue::Waiting;

/// How many objects wait before they are written without being asked for. Each that is added is tried out after all that
/// wait.
const MANY: usize = 128;

/// How many objects wait at the most; who would add more waits until there is room.
const MOST: usize = 2 * MANY;

/// How long they wait at the most, if the storage lets them be written.
const LONGEST: Duration = Duration::from_secs(1);

/// The longest pause before they are tried to be written again.
const MAX_PAUSE: Duration = Duration::from_secs(10);

/// How long commits tell of an object that was lost.
const LOST_FOR: Duration = Duration::from_secs(600);

impl Registry {
    /// As [`apply`](Self::apply), but where the registry is set to ([`RegistryOptions::defers`](crate::RegistryOptions::defers))
    /// the object need not be durable before [`commit`](Self::commit) returns. This process sees it at once.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    #[doc(alias("commit"))]
    pub async fn apply_later(&self, project: &str, object: impl Into<Object>) -> Result<()> {
        let object = object.into();
        // Nothing of a dry run may wait to be written.
        if !self.inner.defers || self.call.is_dry() {
            return self.apply(project, object).await.map(drop);
        }
        self.check_edit(project, &Edit::Apply(object.clone()))?;
        self.check_room_for_permissions(project, std::iter::once(&object)).await?;
        let _permit = self.inner.admit_write()?;
        let call = self.write_call();
        let later = &self.inner.later;
        let _append = call.deadline.wait_for("earlier applies that wait for a commit", later.append_lock()).await?;
        if later.len() >= MOST {
            self.inner.settle(&call.deadline).await?;
        }
        let mut judges = self.judges(&mut rules::fetch_for_apply(project, slice::from_ref(&object))?).await?;
        let writes = self.inner.try_out(project, &object, &call.deadline, &mut judges).await;
        judges.note(&call.deadline, writes.is_err()).await?;
        let writes = writes?;
        if writes.is_empty() {
            return Ok(());
        }
        let access = self.call.access().map(Access::unnoted);
        let is_first = later.add(project, object, writes, call, access);
        if is_first {
            tokio::spawn(settle_after(Arc::downgrade(&self.inner), LONGEST));
        } else if later.len() >= MANY {
            self.inner.write_soon();
        }
        Ok(())
    }

    /// Returns when everything that was applied before is durable (Feast: `commit`).
    ///
    /// # Errors
    /// Why something that was acknowledged before this call began is not written: it still waits and is tried again by
    /// itself (the error is then one that can be retried), or it is lost and has to be applied again. Everything else is
    /// durable.
    pub async fn commit(&self) -> Result<()> {
        let answers_for = self.inner.later.acknowledged();
        self.inner.settle(&self.deadline()).await.map_err(|error| {
            let told = "what was applied before is not durable yet; it goes on waiting, and a later commit tells";
            Error::new(error.kind(), format!("{told}: {error}")).with_source(error)
        })?;
        self.inner.later.lost(answers_for).map_or(Ok(()), |lost| Err(self.told_of(lost)))
    }
}

impl Registry {
    /// Who is not an administrator is not told which object of whom it was.
    fn told_of(&self, lost: Error) -> Error {
        match self.call.access() {
            Some(access) if !access.is_admin() => Error::new(
                lost.kind(),
                "something that was applied with `commit: false` since can never be written; apply again what you have applied",
            ),
            _ => lost,
        }
    }
}

impl Inner {
    /// What waits, for a read that begins now; `None` when nothing does.
    pub(super) fn overlay(&self) -> Option<Arc<Overlay>> {
        self.later.overlay()
    }

    /// Returns when what waits now is written or lost.
    ///
    /// # Errors
    /// Why some of it still waits.
    pub(super) async fn settle(self: &Arc<Self>, deadline: &Deadline) -> Result<()> {
        if !self.later.is_any() {
            return Ok(());
        }
        let answers_for = self.later.acknowledged();
        let Some((number, is_new)) = self.later.request(Some(answers_for)) else { return Ok(()) };
        if is_new {
            tokio::spawn(Arc::clone(self).write_waiting());
        }
        deadline.wait_for("what was applied before to be written", self.later.has_ended(number)).await?;
        self.later.waits(answers_for).map_or(Ok(()), Err)
    }

    /// Has what waits be written by a task of its own, if none is at it.
    fn write_soon(self: &Arc<Self>) {
        if let Some((_, true)) = self.later.request(None) {
            tokio::spawn(Arc::clone(self).write_waiting());
        }
    }

    /// Writes what waits, for as long as somebody wants it to be tried again.
    async fn write_waiting(self: Arc<Self>) {
        let mut attempts = self.later.attempts();
        loop {
            let failed = self.attempt().await;
            let outcome = attempts.ended(failed);
            if let Some(pause) = outcome.try_again_after {
                tokio::spawn(settle_after(Arc::downgrade(&self), pause));
            }
            if !outcome.goes_on {
                return;
            }
        }
    }

    /// Tries to write all that waits now. Returns why some of it has to go on waiting, if so.
    async fn attempt(self: &Arc<Self>) -> Option<Error> {
        let mut rest = self.later.all();
        while let Some(project) = rest.first().map(|waiting| waiting.project.clone()) {
            let (of_project, others): (Vec<Waiting>, _) =
                rest.into_iter().partition(|waiting| waiting.project == project);
            rest = others;
            for batch in of_project.chunk_by(Waiting::is_of_same) {
                if let Some(error) = self.attempt_batch(batch).await {
                    return Some(error);
                }
            }
        }
        None
    }

    /// Tries to write what one caller has waiting in a project. Returns why some of it has to go on waiting, if so.
    async fn attempt_batch(self: &Arc<Self>, batch: &[Waiting]) -> Option<Error> {
        let mut failed = match self.write_batch(batch).await {
            Ok(()) => return None,
            Err(error) => error,
        };
        // One that can never be written is not to be the end of the others.
        for waiting in batch {
            if batch.len() > 1 && !failed.is_retryable() && !failed.is_outcome_unknown() {
                match self.write_batch(std::slice::from_ref(waiting)).await {
                    Ok(()) => continue,
                    Err(error) if error.is_retryable() => failed = error,
                    Err(error) => {
                        self.later.lose(waiting, error);
                        continue;
                    }
                }
            }
            if failed.is_retryable() {
                return Some(failed);
            }
            self.later.lose(waiting, failed.clone());
        }
        None
    }

    /// Writes objects of one project in one commit.
    async fn write_batch(self: &Arc<Self>, batch: &[Waiting]) -> Result<()> {
        let Some(first) = batch.first() else { return Ok(()) };
        let is_same = |other: &Waiting| (&other.author, &other.reason) == (&first.author, &first.reason);
        let mut call = Call::of_registry(Deadline::after(self.call_timeout));
        if batch.iter().all(is_same) {
            (call.author, call.reason) = (first.author.clone(), first.reason.clone());
        }
        let edits: Vec<Edit> = batch.iter().map(|waiting| Edit::Apply(waiting.object.clone())).collect();
        let mut queries = edit::fetch(&first.project, &edits)?;
        // It was judged when it came, by what there was then; the project may be another one's by now.
        let access = first.access.clone();
        let call_of = access.map_or_else(CallOptions::new, |access| CallOptions::new().with_access(access));
        let of_caller = Registry { inner: Arc::clone(self), call: call_of };
        let mut judges = of_caller.judges(&mut queries).await?;
        let done = self.transact(&call, &mut judges, None, &queries, edit::scope(&edits), |draft, ctx| {
            edit::run(draft, ctx, &first.project, &edits, ApplyOptions::default())
        });
        done.await?;
        self.later.forgive(&first.project, &edits);
        self.later.remove(batch);
        Ok(())
    }

    /// What the rules write for an object after all that waits in its project.
    async fn try_out(
        &self,
        project: &str,
        object: &Object,
        deadline: &Deadline,
        judges: &mut Judges,
    ) -> Result<Vec<Write>> {
        let mut objects = self.later.objects_of(project);
        objects.push(object.clone());
        let mut queries = rules::fetch_for_apply(project, &objects)?;
        queries.push(Query::Keys(Grounds::keys(project).into()));
        let answers = deadline.wait_for("the storage to be read", self.backend.read(&queries, deadline)).await??;
        let fetched = Fetched::new(&queries, answers, false);
        let overlay = self.overlay().unwrap_or_default();
        let mistaken = judges.mistaken(|key| overlay.over(key, fetched.record(key).map(|record| &record.value)));
        self.judge_anew(judges, mistaken, Some(&overlay), deadline).await?;
        let mut draft = Draft::new(&fetched);
        let environment = &*self.environment;
        let mut new_uuid = || new_uuid(environment);
        let now = environment.now();
        objects.pop();
        for before in &objects {
            // Whether one that waits can still be written is not this one's concern, and it was judged when it came.
            let mut judged = Judges::default();
            let mut ctx = self.context(now, &mut new_uuid, &mut judged);
            drop(rules::apply(&mut draft, &mut ctx, project, before, ApplyOptions::default()));
        }
        let mark = draft.mark();
        let mut ctx = self.context(now, &mut new_uuid, judges);
        ctx.judges.check_apply(&mut draft, project, object)?;
        rules::apply(&mut draft, &mut ctx, project, object, ApplyOptions::default())?;
        let writes = draft.writes_since(mark).to_vec();
        judges.check_writes(&fetched, &writes)?;
        self.check_sizes(&writes)?;
        Ok(writes)
    }
}

async fn settle_after(registry: Weak<Inner>, delay: Duration) {
    tokio::time::sleep(delay).await;
    if let Some(inner) = registry.upgrade() {
        inner.write_soon();
    }
}
