//! Backends that each break one promise: about a commit's identity, the journal, deadlines, callers who leave, or pages.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use feast_registry_core::{
    Backend, Commit, CommitId, Deadline, Error, ErrorKind, Image, JournalEntry, JournalQuery, JournalRange, Key,
    Limits, Outcome, Page, Query, Record, Result, Retention, Revision,
};
use tokio::sync::Semaphore;

use crate::backend::{Flaw, patience};

/// A handle on a storage, inside the one of [`crate::backend`].
#[derive(Debug)]
pub(crate) struct Promises {
    flaw: Flaw,
    inner: Arc<dyn Backend>,
    storage: Arc<State>,
    permits: Semaphore,
    /// The next revision that this handle gives out, where each has a block of its own.
    own: AtomicU64,
}

/// What the handles on a storage share.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// The commits that took place, oldest first, and how they were answered.
    done: Mutex<Vec<(CommitId, Outcome)>>,
    /// How many of them are forgotten, because the storage was removed.
    forgotten: AtomicU64,
    refused: Mutex<HashMap<CommitId, Outcome>>,
    not_yet_journaled: Mutex<HashSet<CommitId>>,
    /// The revisions that a flawed backend gives out itself.
    numbers: Mutex<HashMap<CommitId, u64>>,
    next_number: AtomicU64,
    removed_at: Mutex<Option<Revision>>,
    is_preparing: AtomicBool,
}

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().expect("not poisoned")
}

impl Promises {
    pub(crate) fn around(inner: Arc<dyn Backend>, flaw: Flaw, storage: Arc<State>) -> Arc<dyn Backend> {
        let permits = if flaw == Flaw::LeaksPermits { 40 } else { 200 };
        Arc::new(Self { flaw, inner, storage, permits: Semaphore::new(permits), own: AtomicU64::new(0) })
    }

    /// The deadline that a flawed backend goes by.
    fn deadline(&self, deadline: &Deadline) -> Deadline {
        if self.flaw == Flaw::IgnoresDeadlines { patience() } else { deadline.clone() }
    }

    /// Waits as every call does, which may be dropped here; `flaw` is that of this sort of call alone.
    async fn wait(&self, flaw: Flaw) -> Result<()> {
        if self.flaw == Flaw::LeaksPermits || self.flaw == flaw {
            let Ok(permit) = self.permits.try_acquire() else {
                return Err(Error::new(ErrorKind::Overloaded, "no connection is left"));
            };
            permit.forget();
            tokio::task::yield_now().await;
            self.permits.add_permits(1);
        }
        Ok(())
    }

    /// Whether an identity was once known and no longer is.
    fn is_forgotten(&self, id: CommitId) -> bool {
        let done = locked(&self.storage.done);
        let Some(place) = done.iter().position(|(of, _)| *of == id) else { return false };
        match self.flaw {
            Flaw::ForgetsIdentities => true,
            Flaw::RemembersSixteen => place + 16 < done.len(),
            Flaw::ForgetsWhenRemoved => (place as u64) < self.storage.forgotten.load(Ordering::SeqCst),
            _ => false,
        }
    }

    /// A revision in place of the right one.
    fn number(&self, id: CommitId) -> Option<u64> {
        let next = |counter: &AtomicU64| counter.fetch_add(1, Ordering::SeqCst) + 1;
        let number = || match self.flaw {
            Flaw::NumbersEarly => Some(next(&self.storage.next_number)),
            // As a sequence does of which each session takes a block.
            Flaw::NumbersByHandle => {
                let taken = self.own.load(Ordering::SeqCst);
                if taken.is_multiple_of(10) {
                    let block = self.storage.next_number.fetch_add(10, Ordering::SeqCst);
                    self.own.store(block, Ordering::SeqCst);
                }
                Some(next(&self.own))
            }
            _ => None,
        };
        let mut numbers = locked(&self.storage.numbers);
        match numbers.get(&id) {
            Some(number) => Some(*number),
            None => number().inspect(|number| {
                numbers.insert(id, *number);
            }),
        }
    }

    async fn committed(&self, mut commit: Commit, deadline: &Deadline) -> Result<Outcome> {
        let id = commit.id;
        if self.is_forgotten(id) {
            commit.id = CommitId::random();
        }
        match self.flaw {
            Flaw::RemembersRefusals => {
                if let Some(refused) = locked(&self.storage.refused).get(&id) {
                    return Ok(refused.clone());
                }
            }
            Flaw::NotesIdentitiesLate => {
                let known = locked(&self.storage.done).iter().find(|(of, _)| *of == id).cloned();
                if let Some((_, outcome)) = known {
                    return Ok(outcome);
                }
                crate::backend::dawdle();
                commit.id = CommitId::random();
            }
            Flaw::ForgetsOrigins => (commit.author, commit.reason) = (None, None),
            Flaw::RoundsTimes => commit.at.nanos = 0,
            Flaw::TornByDrops => {
                let writes = std::mem::take(&mut commit.writes);
                for write in writes {
                    self.inner.commit(Commit::new(Vec::new(), vec![write]), &patience()).await?;
                    tokio::task::yield_now().await;
                }
            }
            Flaw::DoesItLater if deadline.is_over() => {
                let inner = Arc::clone(&self.inner);
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    inner.commit(commit, &patience()).await
                });
                return Err(deadline.exceeded("its turn"));
            }
            Flaw::JournalsLate => {
                locked(&self.storage.not_yet_journaled).insert(id);
                let storage = Arc::clone(&self.storage);
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    locked(&storage.not_yet_journaled).remove(&id);
                });
            }
            _ => {}
        }
        let number = self.number(id);
        if self.flaw == Flaw::NumbersEarly {
            // What is large takes longer from here on.
            tokio::time::sleep(Duration::from_micros(10 * commit.writes.len() as u64)).await;
        }
        let outcome = self.inner.commit(commit, &self.deadline(deadline)).await?;
        match &outcome {
            Outcome::Committed { revision } => {
                let revision = number.map(Revision::new).or(*revision);
                let outcome = Outcome::Committed { revision };
                locked(&self.storage.done).push((id, outcome.clone()));
                if self.flaw == Flaw::SaysExceededWhenDone {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    deadline.check("its answer")?;
                }
                return Ok(outcome);
            }
            _ if self.flaw == Flaw::RemembersRefusals => {
                locked(&self.storage.refused).insert(id, outcome.clone());
            }
            _ if self.flaw == Flaw::JournalsRefusals => {
                self.inner.commit(Commit::new(Vec::new(), Vec::new()), deadline).await?;
            }
            _ => {}
        }
        Ok(outcome)
    }

    fn as_journaled(&self, mut entry: JournalEntry) -> JournalEntry {
        if let Some(number) = locked(&self.storage.numbers).get(&entry.id) {
            entry.revision = Revision::new(*number);
        }
        match self.flaw {
            Flaw::ForgetsWhatWasBefore => {
                entry.changes.iter_mut().for_each(|change| change.before = Image::Absent);
            }
            Flaw::JournalsNoRemovals => {
                entry.changes.retain(|change| change.after != Image::Absent || change.before == Image::NotKept);
            }
            _ => {}
        }
        entry
    }

    /// The page of a list, as a flawed backend cuts it.
    fn page(&self, mut list: Vec<Record>, since: Option<i64>, page: &Page) -> Vec<Record> {
        let place = |record: &Record| match &record.key {
            Key::Object { project, name, .. } => (project.clone(), name.clone()),
            other => (other.project().to_owned(), String::new()),
        };
        let is_young = |record: &Record| since.is_none_or(|since| record.updated >= since);
        match self.flaw {
            Flaw::PagesIgnoreCase => list.sort_by_key(|record| {
                let (project, name) = place(record);
                (project.to_lowercase(), name.to_lowercase())
            }),
            _ => list.sort_by_key(place),
        }
        if let Some(after) = &page.after {
            match self.flaw {
                Flaw::PagesLoseTheirPlace => {
                    let found = list.iter().position(|record| place(record) == *after);
                    list.drain(..found.map_or(0, |index| index + 1));
                }
                Flaw::PagesIncludeTheirStart => list.retain(|record| place(record) >= *after),
                _ => list.retain(|record| place(record) > *after),
            }
        }
        if self.flaw == Flaw::PagesCountTooMuch {
            list.truncate(page.limit);
        }
        list.retain(is_young);
        list.truncate(page.limit);
        list
    }

    fn cuts_pages(&self) -> bool {
        use Flaw::{PagesCountTooMuch, PagesIgnoreCase, PagesIncludeTheirStart, PagesLoseTheirPlace};
        matches!(self.flaw, PagesCountTooMuch | PagesIgnoreCase | PagesIncludeTheirStart | PagesLoseTheirPlace)
    }
}

#[async_trait]
impl Backend for Promises {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    async fn prepare(&self, deadline: &Deadline) -> Result<()> {
        if self.flaw == Flaw::LocksWhilePreparing {
            if self.storage.is_preparing.swap(true, Ordering::SeqCst) {
                return Err(Error::new(ErrorKind::Unavailable, "another process makes the tables"));
            }
            tokio::task::yield_now().await;
            self.storage.is_preparing.store(false, Ordering::SeqCst);
        }
        self.inner.prepare(&self.deadline(deadline)).await
    }

    async fn read(&self, queries: &[Query], deadline: &Deadline) -> Result<Vec<Vec<Record>>> {
        self.wait(Flaw::LeaksPermitsOfReads).await?;
        if !self.cuts_pages() {
            return self.inner.read(queries, &self.deadline(deadline)).await;
        }
        let mut whole = queries.to_vec();
        for query in &mut whole {
            if let Query::Objects { page, updated_since, .. } = query
                && page.take().is_some()
            {
                *updated_since = None;
            }
        }
        let mut answers = self.inner.read(&whole, deadline).await?;
        for (query, answer) in queries.iter().zip(&mut answers) {
            if let Query::Objects { page: Some(page), updated_since, .. } = query {
                *answer = self.page(std::mem::take(answer), *updated_since, page);
            }
        }
        Ok(answers)
    }

    async fn commit(&self, commit: Commit, deadline: &Deadline) -> Result<Outcome> {
        self.wait(Flaw::LeaksPermitsOfCommits).await?;
        self.committed(commit, deadline).await
    }

    async fn journal(&self, query: &JournalQuery, deadline: &Deadline) -> Result<Vec<JournalEntry>> {
        self.wait(Flaw::LeaksPermits).await?;
        let entries = self.inner.journal(&JournalQuery::after(None, usize::MAX), &self.deadline(deadline)).await?;
        let mut entries: Vec<JournalEntry> = entries.into_iter().map(|entry| self.as_journaled(entry)).collect();
        entries.sort_by_key(|entry| entry.revision);
        let late = locked(&self.storage.not_yet_journaled).clone();
        let removed_at = *locked(&self.storage.removed_at);
        entries.retain(|entry| !late.contains(&entry.id) && removed_at < Some(entry.revision));
        if !query.images {
            entries = entries.into_iter().map(JournalEntry::without_images).collect();
        }
        let after = match query.range {
            JournalRange::After(after) => after,
            JournalRange::Before(before) => {
                entries.retain(|entry| before.is_none_or(|before| entry.revision < before));
                return Ok(entries.into_iter().rev().take(query.limit).collect());
            }
        };
        let is_known = after.is_none_or(|after| entries.iter().any(|entry| entry.revision == after));
        if !is_known && self.flaw != Flaw::NeverCompacts && self.flaw != Flaw::ForgetsTheJournalWhenRemoved {
            return Err(Error::new(ErrorKind::Compacted, "the journal does not have that place"));
        }
        let first = entries.partition_point(|entry| match self.flaw {
            Flaw::JournalRepeatsTheLast => Some(entry.revision) < after,
            _ => Some(entry.revision) <= after,
        });
        Ok(entries.drain(first..).take(query.limit).collect())
    }

    async fn prune_journal(&self, retention: &Retention, deadline: &Deadline) -> Result<u64> {
        if self.flaw == Flaw::PrunesWhatIsYoung && locked(&self.storage.removed_at).is_none() {
            let entries = self.inner.journal(&JournalQuery::before(None, usize::MAX), deadline).await?;
            *locked(&self.storage.removed_at) = entries.get(1).map(|second| second.revision);
            return Ok(entries.len().saturating_sub(1) as u64);
        }
        self.inner.prune_journal(retention, deadline).await
    }

    async fn remove_if_empty(&self, deadline: &Deadline) -> Result<bool> {
        let is_removed = self.inner.remove_if_empty(&self.deadline(deadline)).await?;
        if is_removed {
            self.storage.forgotten.store(locked(&self.storage.done).len() as u64, Ordering::SeqCst);
            if self.flaw == Flaw::ForgetsTheJournalWhenRemoved {
                let last = self
                    .inner
                    .journal(&JournalQuery::after(None, usize::MAX), deadline)
                    .await?
                    .last()
                    .map(|entry| entry.revision);
                *locked(&self.storage.removed_at) = last;
            }
        }
        Ok(is_removed)
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}
