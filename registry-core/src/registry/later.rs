//! Applies that may wait for the caller's commit (Feast: `commit=False`), so that many of them become one.
//!
//! What waits has passed the rules, after what waits before it. It is written with the next commit, before any read or
//! other write of this process, when there is much of it, or after a moment: so nobody here sees a registry without it.
//! Until then it is not durable.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::{Mutex, OwnedMutexGuard};

use super::{Inner, Registry, new_uuid, now};
use crate::deadline::Deadline;
use crate::draft::{Context, Draft, Fetched};
use crate::encoded::Object;
use crate::error::{Error, Result};
use crate::rules::{self, ApplyOptions};

/// How many objects wait at the most. Each that is added is tried out after all that wait.
const MOST: usize = 128;

/// How long they wait at the most.
const LONGEST: Duration = Duration::from_secs(1);

/// What waits.
#[derive(Debug, Default)]
pub(super) struct Later {
    waiting: Arc<Mutex<Waiting>>,
    /// Whether anything may wait: most of the time, nobody has to look.
    is_used: AtomicBool,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Each with its project.
    objects: Vec<(String, Object)>,
    /// Why something that waited could not be written: for the next commit to say.
    failed: Option<Error>,
}

impl Registry {
    /// As [`apply`](Self::apply), but where the registry is set to (`RegistryOptions::defers`) the object need not be
    /// durable before [`commit`](Self::commit) returns. This process sees it at once.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub async fn apply_later(&self, project: &str, object: impl Into<Object>) -> Result<()> {
        let object = object.into();
        if !self.inner.defers {
            return self.apply(project, object).await;
        }
        self.check_object(project, &object)?;
        let mut waiting = Arc::clone(&self.inner.later.waiting).lock_owned().await;
        let before = waiting.objects.iter().filter(|(of, _)| of == project).map(|(_, object)| object.clone());
        let together: Vec<Object> = before.chain([object.clone()]).collect();
        self.inner.try_out(project, &together).await?;
        waiting.objects.push((project.to_owned(), object));
        self.inner.later.is_used.store(true, Ordering::SeqCst);
        if waiting.objects.len() >= MOST {
            self.inner.write_waiting(waiting).await?;
        } else if waiting.objects.len() == 1 {
            tokio::spawn(settle_after(Arc::downgrade(&self.inner), LONGEST));
        }
        Ok(())
    }

    /// Returns when everything that was applied before is durable (Feast: `commit`).
    ///
    /// # Errors
    /// Why something that waited could not be written; the rest is.
    pub async fn commit(&self) -> Result<()> {
        self.inner.settle().await;
        match self.inner.later.waiting.lock().await.failed.take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

impl Inner {
    /// Writes what waits, if anything does.
    pub(super) async fn settle(self: &Arc<Self>) {
        if !self.later.is_used.load(Ordering::SeqCst) {
            return;
        }
        let waiting = Arc::clone(&self.later.waiting).lock_owned().await;
        if let Err(error) = self.write_waiting(waiting).await {
            tracing::error!(%error, "what waited for a commit was not written");
        }
    }

    /// A task of its own: a caller who goes away takes nothing along.
    async fn write_waiting(self: &Arc<Self>, mut waiting: OwnedMutexGuard<Waiting>) -> Result<()> {
        let inner = Arc::clone(self);
        let task = tokio::spawn(async move {
            let mut objects = std::mem::take(&mut waiting.objects);
            while let Some(project) = objects.first().map(|(project, _)| project.clone()) {
                let (of_project, others) = objects.into_iter().partition(|(of, _)| *of == project);
                objects = others;
                let of_project: Vec<(String, Object)> = of_project;
                let of_project: Vec<Object> = of_project.into_iter().map(|(_, object)| object).collect();
                if inner.apply_all(&project, of_project.clone(), ApplyOptions::default()).await.is_ok() {
                    continue;
                }
                // One that fails is not to be the end of the others.
                for object in of_project {
                    if let Err(error) = inner.apply_all(&project, vec![object], ApplyOptions::default()).await {
                        tracing::error!(%error, project, "an object that waited for a commit was not written");
                        waiting.failed.get_or_insert(error);
                    }
                }
            }
            inner.later.is_used.store(false, Ordering::SeqCst);
        });
        task.await.map_err(|error| Error::internal("the writing of what waited was aborted").with_source(error))
    }

    /// What the rules say of objects, one after the other; nothing is written.
    async fn try_out(&self, project: &str, objects: &[Object]) -> Result<()> {
        let queries = rules::fetch_for_apply(project, objects)?;
        let fetched = Fetched::new(&queries, self.backend.read(&queries, &Deadline::after(LONGEST)).await?);
        let mut draft = Draft::new(&fetched);
        let mut ctx = Context { now: now(), new_uuid: &mut new_uuid, keeps_metadata: self.keeps_metadata };
        for object in objects {
            rules::apply(&mut draft, &mut ctx, project, object, ApplyOptions::default())?;
        }
        self.check_sizes(&draft.into_commit())
    }
}

async fn settle_after(registry: Weak<Inner>, delay: Duration) {
    tokio::time::sleep(delay).await;
    if let Some(inner) = registry.upgrade() {
        inner.settle().await;
    }
}
