//! The registry in memory: for tests, and for backend authors to read first.

use std::collections::{HashMap, VecDeque};
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use prost_types::Timestamp;
use tokio::sync::watch;

use crate::backend::{Backend, Commit, Expected, Key, Limits, Outcome, Page, Query, Record, Write};
use crate::deadline::Deadline;
use crate::environment::{Environment as _, System};
use crate::error::{Error, Result};
use crate::journal::{Change, CommitId, Image, JournalEntry, JournalQuery, JournalRange, Retention, Revision, Target};
use crate::kind::Kind;

/// What a call waits for whose deadline is over: nothing here takes longer than a lock is held.
const WAITS_FOR: &str = "its turn";

/// A backend that keeps everything in memory; nothing outlives it.
///
/// A commit takes time in proportion to the number of records, since it makes a new state beside the one that others read.
#[derive(Debug, Default)]
pub struct MemoryBackend {
    /// What is stored. A read goes on in the state with which it began, and a commit puts the next one in its place: so
    /// neither waits for the other. (`waiting::a_read_does_not_wait_for_writers` in `conformance-tests`)
    state: Mutex<Arc<Contents>>,
    /// Whoever holds the journal is the only one who writes. That is what makes commits serializable here.
    journal: Mutex<Journal>,
    /// The newest revision, for those who wait for the next.
    newest: watch::Sender<Option<Revision>>,
}

/// What is stored, and the rules of the contract for it as functions without a side: what holds, what a write changes, and
/// what a query finds. For this backend, and for who checks what other backends answer.
///
/// It is not changed any more once others can see it. What it holds it shares with the states before and after.
#[doc(hidden)]
#[derive(Debug, Clone, Default)]
pub struct Contents {
    /// Each record with its place in the order in which keys were first stored.
    records: HashMap<Arc<Key>, (u64, Arc<Record>)>,
    stored_so_far: u64,
}

#[derive(Debug, Default)]
struct Journal {
    /// What has been committed, oldest first; the numbers of revisions are consecutive.
    entries: VecDeque<JournalEntry>,
    /// Where the journal has each commit that it has.
    revisions: HashMap<CommitId, Revision>,
}

/// Where the data is.
const LOCATION: &str = "memory://";

/// A panic while a lock was held leaves what it guards as it was: a state is put in place whole.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MemoryBackend {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes as those do who keep no journal.
    #[cfg(test)]
    pub(crate) fn write_outside(&self, writes: Vec<Write>) {
        let _only_writer = locked(&self.journal);
        let mut next = Contents::clone(&self.state());
        writes.into_iter().for_each(|write| drop(next.write(write)));
        self.publish(next);
    }

    /// All that is stored.
    #[cfg(test)]
    pub(crate) fn all(&self) -> Vec<Record> {
        self.state().records().into_iter().cloned().collect()
    }

    /// Loses the journal, as a storage does that is restored; revisions go on.
    #[cfg(test)]
    pub(crate) fn forget_journal(&self) {
        let mut journal = locked(&self.journal);
        if let Some(mut last) = journal.entries.pop_back() {
            *journal = Journal::default();
            last.revision = Revision::new(last.revision.number() + 1000);
            journal.entries.push_back(last);
        }
    }

    /// The state at this moment.
    fn state(&self) -> Arc<Contents> {
        Arc::clone(&locked(&self.state))
    }

    /// Lets others see a state. Only for whoever holds the journal.
    fn publish(&self, state: Contents) {
        let before = mem::replace(&mut *locked(&self.state), Arc::new(state));
        // If nobody reads it any more it is freed here, where nobody waits for the lock.
        drop(before);
    }
}

#[async_trait]
impl Backend for MemoryBackend {
    fn location(&self) -> String {
        LOCATION.to_owned()
    }

    fn limits(&self) -> Limits {
        Limits::new(usize::MAX)
    }

    async fn prepare(&self, deadline: &Deadline) -> Result<()> {
        deadline.check(WAITS_FOR)
    }

    async fn read(&self, queries: &[Query], deadline: &Deadline) -> Result<Vec<Vec<Record>>> {
        deadline.check(WAITS_FOR)?;
        let state = self.state();
        Ok(queries.iter().map(|query| state.read(query)).collect())
    }

    async fn commit(&self, commit: Commit, deadline: &Deadline) -> Result<Outcome> {
        deadline.check(WAITS_FOR)?;
        let mut journal = locked(&self.journal);
        if let Some(revision) = journal.revisions.get(&commit.id) {
            return Ok(Outcome::Committed { revision: Some(*revision) });
        }
        let state = self.state();
        for (key, expected) in &commit.expectations {
            if !state.is_as(key, expected) {
                return Ok(Outcome::Conflict(key.clone()));
            }
        }
        let mut next = Contents::clone(&state);
        let revision = journal.next_revision();
        let mut entry = JournalEntry::new(revision, commit.id, commit.at);
        (entry.author, entry.reason) = (commit.author, commit.reason);
        for write in commit.writes {
            let changes = next.write(write);
            entry.changes.extend(changes);
        }
        entry.changes.extend(commit.observed);
        self.publish(next);
        journal.note(entry);
        self.newest.send_replace(Some(revision));
        Ok(Outcome::Committed { revision: Some(revision) })
    }

    async fn journal(&self, query: &JournalQuery, deadline: &Deadline) -> Result<Vec<JournalEntry>> {
        deadline.check(WAITS_FOR)?;
        let journal = locked(&self.journal);
        let whole = |entry: &JournalEntry| entry.clone();
        let bare = |entry: &JournalEntry| entry.clone().without_images();
        let show = if query.images { whole } else { bare };
        let place = |revision: Revision| journal.entries.partition_point(|entry| entry.revision < revision);
        Ok(match query.range {
            JournalRange::After(None) => journal.entries.iter().take(query.limit).map(show).collect(),
            JournalRange::After(Some(after)) => {
                let start = place(after);
                if journal.entries.get(start).is_none_or(|entry| entry.revision != after) {
                    return Err(Error::compacted(LOCATION, after));
                }
                journal.entries.iter().skip(start + 1).take(query.limit).map(show).collect()
            }
            JournalRange::Before(before) => {
                let end = before.map_or(journal.entries.len(), place);
                journal.entries.iter().take(end).rev().take(query.limit).map(show).collect()
            }
        })
    }

    /// Returns as soon as there is something.
    async fn wait_for_commit(&self, after: Option<Revision>, deadline: &Deadline) {
        let mut newest = self.newest.subscribe();
        let grown = newest.wait_for(|newest| *newest > after);
        drop(tokio::time::timeout(deadline.remaining(), grown).await);
    }

    async fn prune_journal(&self, retention: &Retention, deadline: &Deadline) -> Result<u64> {
        deadline.check(WAITS_FOR)?;
        Ok(locked(&self.journal).prune(retention, &System.now()))
    }

    async fn remove_if_empty(&self, deadline: &Deadline) -> Result<bool> {
        deadline.check(WAITS_FOR)?;
        let _only_writer = locked(&self.journal);
        let state = self.state();
        let has_project = state.records.keys().any(|key| matches!(**key, Key::Object { kind: Kind::Project, .. }));
        if !has_project {
            self.publish(Contents { stored_so_far: state.stored_so_far, ..Contents::default() });
        }
        Ok(!has_project)
    }
}

impl Journal {
    fn next_revision(&self) -> Revision {
        Revision::new(self.entries.back().map_or(0, |last| last.revision.number()) + 1)
    }

    /// Adds an entry, and removes those that need not be kept.
    fn note(&mut self, entry: JournalEntry) {
        let at = entry.at;
        self.revisions.insert(entry.id, entry.revision);
        self.entries.push_back(entry);
        self.prune(&Retention::default(), &at);
    }

    /// Removes the entries that need not be kept at a moment; returns how many. The newest always is.
    fn prune(&mut self, retention: &Retention, now: &Timestamp) -> u64 {
        let (too_old, old_enough) = retention.bounds(now);
        let before = self.entries.len();
        while self.entries.len() > 1
            && let Some(oldest) = self.entries.front()
            && (oldest.at.seconds < too_old
                || (oldest.at.seconds < old_enough && self.entries.len() as u64 > retention.commits))
        {
            self.revisions.remove(&oldest.id);
            self.entries.pop_front();
        }
        (before - self.entries.len()) as u64
    }
}

impl Contents {
    /// Whether a key is as it is expected to be.
    pub fn is_as(&self, key: &Key, expected: &Expected) -> bool {
        match (self.records.get(key), expected) {
            (None, Expected::Absent) | (Some(_), Expected::Present) => true,
            (Some((_, record)), Expected::Value(value)) => record.value == value,
            _ => false,
        }
    }

    /// Writes, and says what that changed.
    pub fn write(&mut self, write: Write) -> Vec<Change> {
        match write {
            Write::Put(record) => {
                if let Key::UserMetadata { kind, project, view } = &record.key
                    && !self.records.contains_key(&Key::object(*kind, project, view))
                {
                    return Vec::new();
                }
                self.stored_so_far += 1;
                let (key, after) = (record.key.clone(), Image::Value(record.value.clone()));
                let place = self.records.get(&key).map_or(self.stored_so_far, |(place, _)| *place);
                let before = self.records.insert(Arc::new(key.clone()), (place, Arc::new(record)));
                vec![Change::of_key(key, before.map(|(_, before)| before.value.clone()).into(), after)]
            }
            Write::Delete(key) => {
                let mut keys = vec![key.clone()];
                if let Key::Object { kind, project, name } = key {
                    keys.push(Key::UserMetadata { kind, project, view: name });
                }
                self.remove(keys)
            }
            Write::DeleteVersions { project, view } => {
                let is_of =
                    |key: &Key| matches!(key, Key::Version { project: p, view: v, .. } if *p == project && *v == view);
                let removed = self.remove(self.keys(is_of));
                [Change::removal(Target::Versions { project, view })].into_iter().chain(removed).collect()
            }
            Write::DeleteProject { project } => {
                let removed = self.remove(self.keys(|key| key.project() == project));
                [Change::removal(Target::Project { project })].into_iter().chain(removed).collect()
            }
        }
    }

    /// The keys that are stored and of which `is_of` holds, in a fixed order.
    fn keys(&self, is_of: impl Fn(&Key) -> bool) -> Vec<Key> {
        let mut keys: Vec<Key> = self.records.keys().filter(|key| is_of(key)).map(|key| Key::clone(key)).collect();
        keys.sort_unstable();
        keys
    }

    fn remove(&mut self, keys: Vec<Key>) -> Vec<Change> {
        let removed = keys.into_iter().filter_map(|key| {
            let (_, before) = self.records.remove(&key)?;
            Some(Change::of_key(key, Image::Value(before.value.clone()), Image::Absent))
        });
        removed.collect()
    }

    /// All records, in the order in which their keys were first stored.
    pub fn records(&self) -> Vec<&Record> {
        let mut records: Vec<_> = self.records.values().collect();
        records.sort_unstable_by_key(|(place, _)| *place);
        records.into_iter().map(|(_, record)| &**record).collect()
    }

    /// What a query finds.
    pub fn read(&self, query: &Query) -> Vec<Record> {
        if let Query::Keys(keys) = query {
            return keys
                .iter()
                .filter_map(|key| self.records.get(key))
                .map(|(_, record)| Record::clone(record))
                .collect();
        }
        let mut found: Vec<_> = self.records.values().filter(|(_, record)| matches(query, record)).collect();
        found.sort_by_key(|(place, record)| match record.key {
            Key::Version { number, .. } => number as u64,
            _ => *place,
        });
        match query {
            Query::Versions { latest_only: true, .. } => drop(found.drain(..found.len().saturating_sub(1))),
            Query::Objects { page: Some(Page { after, limit }), .. } => {
                found.sort_by(|(_, one), (_, other)| one.key.cmp(&other.key));
                let after = after.as_ref().map(|(project, name)| (project.as_str(), name.as_str()));
                found.retain(|(_, record)| after.is_none_or(|after| place_of(&record.key) > after));
                found.truncate(*limit);
            }
            _ => {}
        }
        found.into_iter().map(|(_, record)| Record::clone(record)).collect()
    }
}

/// What a page goes on after.
fn place_of(key: &Key) -> (&str, &str) {
    match key {
        Key::Object { project, name, .. } => (project, name),
        other => (other.project(), ""),
    }
}

fn matches(query: &Query, record: &Record) -> bool {
    let is_of = |wanted: &Option<String>| wanted.as_deref().is_none_or(|project| project == record.key.project());
    match (query, &record.key) {
        (Query::Objects { kind, project, updated_since, .. }, Key::Object { kind: stored, .. }) => {
            kind == stored && is_of(project) && updated_since.is_none_or(|since| record.updated >= since)
        }
        (Query::Versions { project, view, .. }, Key::Version { project: p, view: v, .. }) => project == p && view == v,
        (Query::Metadata { project }, Key::Metadata { .. }) => is_of(project),
        _ => false,
    }
}
