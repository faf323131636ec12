//! Backends that each break one promise about reading the journal: from either end, without bytes, waiting for it, or of what
//! it has of the changes of others.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use feast_registry_core::{
    Backend, Commit, Deadline, Error, ErrorKind, Image, JournalEntry, JournalQuery, JournalRange, Limits, Outcome,
    Query, Record, Result, Retention, Revision, Target, Write,
};

use crate::backend::Flaw;

/// A handle on a storage, around the one of [`crate::backend`].
#[derive(Debug)]
struct Feed {
    flaw: Flaw,
    inner: Arc<dyn Backend>,
    /// The last revision that this handle has committed.
    own: AtomicU64,
}

/// The handle itself, unless the flaw is one of these.
pub(crate) fn around(inner: Arc<dyn Backend>, flaw: Flaw) -> Arc<dyn Backend> {
    Arc::new(Feed { flaw, inner, own: AtomicU64::new(0) })
}

impl Feed {
    /// What is committed in place of a commit.
    fn commit_of(&self, mut commit: Commit) -> Commit {
        let is_bare = commit.writes.is_empty();
        match self.flaw {
            Flaw::ForgetsWhatOthersDid => commit.observed.clear(),
            Flaw::JournalsNoRemovalsByOthers => {
                commit.observed.retain(|change| matches!(change.target, Target::Key(_)));
            }
            Flaw::WritesWhatOthersDid => {
                let put = |(target, after): (&Target, &Image)| match (target, after) {
                    (Target::Key(key), Image::Value(value)) => {
                        Some(Write::Put(Record::new(key.clone(), value.clone(), 7)))
                    }
                    _ => None,
                };
                let puts = commit.observed.iter().filter_map(|change| put((&change.target, &change.after)));
                commit.writes.extend(puts.collect::<Vec<_>>());
            }
            Flaw::TakesWhatOthersDidUnchecked if is_bare && !commit.observed.is_empty() => commit.expectations.clear(),
            Flaw::TakesWhatOthersDidAnew if is_bare && !commit.observed.is_empty() => {
                commit.id = feast_registry_core::CommitId::random();
            }
            _ => {}
        }
        commit
    }
}

#[async_trait]
impl Backend for Feed {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    async fn prepare(&self, deadline: &Deadline) -> Result<()> {
        self.inner.prepare(deadline).await
    }

    async fn read(&self, queries: &[Query], deadline: &Deadline) -> Result<Vec<Vec<Record>>> {
        self.inner.read(queries, deadline).await
    }

    async fn commit(&self, commit: Commit, deadline: &Deadline) -> Result<Outcome> {
        let outcome = self.inner.commit(self.commit_of(commit), deadline).await?;
        if let Outcome::Committed { revision: Some(revision) } = &outcome {
            self.own.fetch_max(revision.number(), Ordering::SeqCst);
        }
        Ok(outcome)
    }

    async fn journal(&self, query: &JournalQuery, deadline: &Deadline) -> Result<Vec<JournalEntry>> {
        let mut query = query.clone();
        let images = query.images;
        if self.flaw == Flaw::ForgetsAbsenceWithoutImages || self.flaw == Flaw::LeavesRemovalsOutWithoutImages {
            query.images = true;
        }
        if let JournalRange::Before(Some(before)) = query.range {
            match self.flaw {
                Flaw::BackwardsItRepeats => {
                    query.range = JournalRange::Before(Some(Revision::new(before.number() + 1)))
                }
                Flaw::BackwardsItWantsItsPlace => {
                    let all = self.inner.journal(&JournalQuery::after(None, usize::MAX), deadline).await?;
                    if all.iter().all(|entry| entry.revision != before) {
                        return Err(Error::new(ErrorKind::Compacted, "the journal does not have that place"));
                    }
                }
                _ => {}
            }
        }
        let mut entries = self.inner.journal(&query, deadline).await?;
        if self.flaw == Flaw::BackwardsPagesAreOldestFirst && matches!(query.range, JournalRange::Before(_)) {
            entries.reverse();
        }
        for entry in entries.iter_mut().filter(|_| !images) {
            match self.flaw {
                Flaw::ForgetsAbsenceWithoutImages => {
                    for change in &mut entry.changes {
                        (change.before, change.after) = (Image::NotKept, Image::NotKept);
                    }
                }
                Flaw::LeavesRemovalsOutWithoutImages => {
                    *entry = entry.clone().without_images();
                    entry.changes.retain(|change| matches!(change.target, Target::Key(_)));
                }
                _ => {}
            }
        }
        Ok(entries)
    }

    async fn newest_revision(&self, deadline: &Deadline) -> Result<Option<Revision>> {
        match self.flaw {
            // As of a counter in memory, which knows nothing of others.
            Flaw::NewestIsItsOwn => {
                let own = self.own.load(Ordering::SeqCst);
                Ok((own > 0).then(|| Revision::new(own)))
            }
            Flaw::NewestIsZeroAtFirst => {
                let newest = self.inner.newest_revision(deadline).await?;
                Ok(newest.or(Some(Revision::new(0))))
            }
            _ => self.inner.newest_revision(deadline).await,
        }
    }

    async fn wait_for_commit(&self, after: Option<Revision>, deadline: &Deadline) {
        match self.flaw {
            Flaw::WaitsForItself => {
                while self.own.load(Ordering::SeqCst) <= after.map_or(0, Revision::number) && !deadline.is_over() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
            Flaw::WaitsBeyondItsDeadline => {
                while self.inner.newest_revision(&crate::backend::patience()).await.is_ok_and(|newest| newest <= after)
                {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
            _ => self.inner.wait_for_commit(after, deadline).await,
        }
    }

    async fn prune_journal(&self, retention: &Retention, deadline: &Deadline) -> Result<u64> {
        self.inner.prune_journal(retention, deadline).await
    }

    async fn remove_if_empty(&self, deadline: &Deadline) -> Result<bool> {
        self.inner.remove_if_empty(deadline).await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}
