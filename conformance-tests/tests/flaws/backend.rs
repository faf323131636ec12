//! Backends that are each wrong in one way, around one that is right.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use feast_registry_core::config::SchemaMode;
use feast_registry_core::proto::core::{Entity, FeatureView, FeatureViewVersionRecord};
use feast_registry_core::{
    Backend, Commit, Deadline, Error, ErrorKind, Expected, JournalEntry, JournalQuery, Key, Kind, Limits, Outcome,
    Query, Record, Result, Retention, Write,
};
use prost::Message;

use crate::promises::{self, Promises};
use crate::words::{self, Words};

/// What is wrong with a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// Nothing is.
    None,
    // Names.
    IgnoresCase,
    TrimsNames,
    CutsNames,
    DeletesProjectsByPrefix,
    // Values.
    CutsValues,
    TakesValuesForText,
    TakesEmptyForAbsent,
    DropsUnknownFields,
    ForgetsDescriptions,
    ForgetsTheSecond,
    // Reads.
    SortsKeys,
    SortsByName,
    MovesWhatIsWritten,
    SinceIsExclusive,
    SortsVersionsAsText,
    MixesProjects,
    AnswersRepeatedKeysOnce,
    ReadsOneByOne,
    ListsLater,
    ReadsOldStates,
    // Commits.
    ChecksThenWrites,
    ChecksEarlyWhatItOnlyReads,
    WritesOneByOne,
    WritesThenChecks,
    ForgetsAbsence,
    TakesPresenceForValue,
    ReversesWrites,
    LosesEveryTenth,
    AnswersBeforeItWrites,
    NamesAnotherKey,
    RefusesCommitsOfNothing,
    LimitsKeys,
    // Views.
    MakesViewsForMetadata,
    KeepsMetadata,
    LosesMetadata,
    DeletesHistoriesByProject,
    // Storage.
    PreparingEmpties,
    PreparingTwiceFails,
    VerifyingMakes,
    ReadingMakes,
    RemovesAlways,
    RemovesNever,
    RemovesForAnybody,
    IsGoneOnceRemoved,
    DiesWithItsHandle,
    KeepsTheLastInMemory,
    StaysOpenWhenClosed,
    // Identities.
    ForgetsIdentities,
    RemembersSixteen,
    ForgetsWhenRemoved,
    NotesIdentitiesLate,
    RemembersRefusals,
    // The journal.
    JournalsRefusals,
    JournalsLate,
    JournalsNoRemovals,
    ForgetsOrigins,
    RoundsTimes,
    ForgetsWhatWasBefore,
    ForgetsTheJournalWhenRemoved,
    JournalRepeatsTheLast,
    NeverCompacts,
    NumbersEarly,
    NumbersByHandle,
    PrunesWhatIsYoung,
    // Readers of the journal.
    BackwardsItRepeats,
    BackwardsItWantsItsPlace,
    BackwardsPagesAreOldestFirst,
    ForgetsAbsenceWithoutImages,
    LeavesRemovalsOutWithoutImages,
    NewestIsItsOwn,
    NewestIsZeroAtFirst,
    WaitsForItself,
    WaitsBeyondItsDeadline,
    ForgetsWhatOthersDid,
    JournalsNoRemovalsByOthers,
    WritesWhatOthersDid,
    TakesWhatOthersDidUnchecked,
    TakesWhatOthersDidAnew,
    // Deadlines and callers who leave.
    IgnoresDeadlines,
    DoesItLater,
    SaysExceededWhenDone,
    LeaksPermits,
    TornByDrops,
    LocksWhilePreparing,
    // The way to the storage.
    GuessesFromExpectations,
    TakesLostForDone,
    TakesSilenceForNotDone,
    HangsWithItsServer,
    KeepsDeadSessions,
    // Pages.
    PagesIgnoreCase,
    PagesIncludeTheirStart,
    PagesLoseTheirPlace,
    PagesCountTooMuch,
    // Writers, threads, limits, and the ends of a handle.
    TakesTheWriteLockToRead,
    BlocksWhileCommitting,
    BlocksWhileReading,
    BlocksOtherwise,
    BlocksInATask,
    RefusesLargeValues,
    RefusesLongNames,
    LimitsChange,
    LeaksPermitsOfReads,
    LeaksPermitsOfCommits,
    RefusesUnprepared,
    FailsOddlyOnceClosed,
    DoesWhatItRefuses,
}

/// A handle on a storage.
#[derive(Debug)]
struct Handle {
    flaw: Flaw,
    inner: Arc<dyn Backend>,
    mode: SchemaMode,
    storage: Arc<State>,
    seen: Mutex<HashMap<Key, Option<Record>>>,
}

/// What the handles on a storage share.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// Whether it has been made, as tables are.
    exists: AtomicBool,
    was_removed: AtomicBool,
    prepared: AtomicUsize,
    commits: AtomicUsize,
    promises: Arc<promises::State>,
    words: Arc<words::State>,
}

impl Handle {
    async fn find(&self, key: &Key) -> Result<Option<Record>> {
        Ok(self.inner.read(&[Query::Keys(vec![key.clone()])], &patience()).await?.remove(0).pop())
    }

    async fn done(&self, expectations: Vec<(Key, Expected)>, writes: Vec<Write>) -> Result<Outcome> {
        self.inner.commit(Commit::new(expectations, writes), &patience()).await
    }

    async fn empty(&self) -> Result<()> {
        for &kind in Kind::ALL {
            for record in self.inner.read(&[Query::objects(kind, None)], &patience()).await?.remove(0) {
                self.done(Vec::new(), vec![Write::DeleteProject { project: record.key.project().to_owned() }]).await?;
            }
        }
        Ok(())
    }

    /// The key under which a flawed backend looks.
    fn key(&self, key: &Key) -> Key {
        let change = |name: &str| match self.flaw {
            Flaw::IgnoresCase => name.to_lowercase(),
            Flaw::TrimsNames => name.trim_end().to_owned(),
            Flaw::CutsNames => name.chars().take(200).collect(),
            _ => name.to_owned(),
        };
        let mut key = key.clone();
        match &mut key {
            Key::Object { project, name, .. } => (*project, *name) = (change(project), change(name)),
            Key::Version { project, view, .. } | Key::UserMetadata { project, view, .. } => {
                (*project, *view) = (change(project), change(view));
            }
            Key::Metadata { project, .. } => *project = change(project),
        }
        key
    }

    fn query(&self, query: &Query) -> Query {
        let name = |name: &String| match self.key(&Key::metadata(name.clone(), "")) {
            Key::Metadata { project, .. } => project,
            _ => unreachable!("a fact's key stays one"),
        };
        match query {
            Query::Keys(keys) => {
                let mut keys: Vec<Key> = keys.iter().map(|key| self.key(key)).collect();
                if self.flaw == Flaw::SortsKeys {
                    keys.sort();
                }
                if self.flaw == Flaw::AnswersRepeatedKeysOnce {
                    let mut seen = std::collections::HashSet::new();
                    keys.retain(|key| seen.insert(key.clone()));
                }
                Query::Keys(keys)
            }
            Query::Objects { kind, project, updated_since, page } => Query::Objects {
                kind: *kind,
                project: project.as_ref().map(name).filter(|_| self.flaw != Flaw::MixesProjects),
                updated_since: updated_since
                    .map(|since| if self.flaw == Flaw::SinceIsExclusive { since.saturating_add(1) } else { since }),
                page: page.clone(),
            },
            Query::Versions { project, view, latest_only } => Query::Versions {
                project: name(project),
                view: name(view),
                latest_only: *latest_only && self.flaw != Flaw::SortsVersionsAsText,
            },
            Query::Metadata { project } => {
                Query::Metadata { project: project.as_ref().map(name).filter(|_| self.flaw != Flaw::MixesProjects) }
            }
        }
    }

    fn value(&self, record: &Record) -> Vec<u8> {
        let value = record.value.to_vec();
        match (self.flaw, &record.key) {
            (Flaw::CutsValues, _) => value[..value.len().min(65_535)].to_vec(),
            (Flaw::TakesValuesForText, _) => String::from_utf8_lossy(&value).into_owned().into_bytes(),
            (Flaw::DropsUnknownFields, Key::Object { kind: Kind::Entity, .. }) => {
                Entity::decode(&*value).map_or(value, |entity| entity.encode_to_vec())
            }
            (Flaw::DropsUnknownFields, Key::Object { kind: Kind::FeatureView, .. }) => {
                FeatureView::decode(&*value).map_or(value, |view| view.encode_to_vec())
            }
            (Flaw::ForgetsDescriptions, Key::Version { .. }) => {
                let version = FeatureViewVersionRecord::decode(&*value);
                version.map_or(value, |mut version| {
                    version.description.clear();
                    version.encode_to_vec()
                })
            }
            _ => value,
        }
    }

    async fn writes(&self, writes: Vec<Write>) -> Result<Vec<Write>> {
        let mut changed = Vec::new();
        for write in writes {
            match (self.flaw, write) {
                (flaw, Write::Put(record)) => {
                    let key = self.key(&record.key);
                    if flaw == Flaw::TakesEmptyForAbsent && record.value.is_empty() {
                        changed.push(Write::Delete(key));
                        continue;
                    }
                    let is_object = matches!(key, Key::Object { .. });
                    if flaw == Flaw::MovesWhatIsWritten && is_object {
                        // As a database would that replaces rows; user metadata is saved.
                        let attached = self.attached(&key).await?;
                        changed.push(Write::Delete(key.clone()));
                        changed.push(Write::Put(record));
                        changed.extend(attached.map(Write::Put));
                        continue;
                    }
                    if flaw == Flaw::LosesMetadata && is_object && self.attached(&key).await?.is_some() {
                        changed.extend(metadata_key(&key).map(Write::Delete));
                    }
                    if flaw == Flaw::MakesViewsForMetadata
                        && let Key::UserMetadata { kind, project, view } = &key
                        && self.find(&Key::object(*kind, project, view)).await?.is_none()
                    {
                        let view = Key::object(*kind, project, view);
                        changed.push(Write::Put(Record::new(view, Bytes::new(), 0)));
                    }
                    let updated = if flaw == Flaw::ForgetsTheSecond { 0 } else { record.updated };
                    changed.push(Write::Put(Record::new(key, self.value(&record), updated)));
                }
                (Flaw::KeepsMetadata, Write::Delete(key)) if self.attached(&key).await?.is_some() => {
                    // The row goes, and what was attached is found by the next one of its name.
                    let attached = self.attached(&key).await?;
                    changed.push(Write::Put(Record::new(key.clone(), Bytes::new(), 0)));
                    changed.extend(attached.map(Write::Put));
                }
                (_, Write::Delete(key)) => changed.push(Write::Delete(self.key(&key))),
                (Flaw::DeletesProjectsByPrefix, Write::DeleteProject { project }) => {
                    let query = Query::objects(Kind::Project, None);
                    for record in self.inner.read(&[query], &patience()).await?.remove(0) {
                        let found = record.key.project();
                        if found.starts_with(&project) {
                            changed.push(Write::DeleteProject { project: found.to_owned() });
                        }
                    }
                    changed.push(Write::DeleteProject { project });
                }
                (Flaw::DeletesHistoriesByProject, Write::DeleteVersions { project, .. }) => {
                    let query = Query::objects(Kind::FeatureView, Some(&project));
                    for record in self.inner.read(&[query], &patience()).await?.remove(0) {
                        if let Key::Object { name, .. } = record.key {
                            changed.push(Write::DeleteVersions { project: project.clone(), view: name });
                        }
                    }
                }
                (_, write) => changed.push(write),
            }
        }
        if self.flaw == Flaw::ReversesWrites {
            changed.reverse();
        }
        Ok(changed)
    }

    async fn attached(&self, view: &Key) -> Result<Option<Record>> {
        match metadata_key(view) {
            Some(key) => self.find(&key).await,
            None => Ok(None),
        }
    }
}

fn metadata_key(view: &Key) -> Option<Key> {
    match view {
        Key::Object { kind, project, name } if kind.is_view() => {
            Some(Key::UserMetadata { kind: *kind, project: project.clone(), view: name.clone() })
        }
        _ => None,
    }
}

/// The deadline of what a flawed backend does by itself.
pub(crate) fn patience() -> Deadline {
    Deadline::after(Duration::from_secs(60))
}

/// Long enough for others to come between.
pub(crate) fn dawdle() {
    std::thread::sleep(Duration::from_micros(100));
}

#[async_trait]
impl Backend for Handle {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    async fn prepare(&self, deadline: &Deadline) -> Result<()> {
        if self.flaw == Flaw::PreparingEmpties {
            self.empty().await?;
        }
        if self.flaw == Flaw::PreparingTwiceFails && self.storage.prepared.fetch_add(1, Ordering::SeqCst) > 0 {
            return Err(Error::internal("the table exists already"));
        }
        let existed = self.storage.exists.load(Ordering::SeqCst);
        if self.mode == SchemaMode::Auto || self.flaw == Flaw::VerifyingMakes {
            self.storage.exists.store(true, Ordering::SeqCst);
        }
        if self.mode == SchemaMode::Verify && !existed {
            return Err(Error::new(ErrorKind::SchemaMissing, "there are no tables"));
        }
        self.inner.prepare(deadline).await
    }

    async fn read(&self, queries: &[Query], deadline: &Deadline) -> Result<Vec<Vec<Record>>> {
        if self.flaw == Flaw::IsGoneOnceRemoved && self.storage.was_removed.load(Ordering::SeqCst) {
            return Err(Error::internal("there is no such table"));
        }
        if self.flaw == Flaw::ReadingMakes {
            self.storage.exists.store(true, Ordering::SeqCst);
        }
        let queries: Vec<Query> = queries.iter().map(|query| self.query(query)).collect();
        let mut answers = Vec::new();
        if self.flaw == Flaw::ReadsOneByOne {
            for query in &queries {
                answers.extend(self.inner.read(std::slice::from_ref(query), deadline).await?);
                dawdle();
            }
        } else {
            answers = self.inner.read(&queries, deadline).await?;
        }
        if self.flaw == Flaw::ListsLater {
            dawdle();
            let later = self.inner.read(&queries, deadline).await?;
            for ((query, answer), later) in queries.iter().zip(&mut answers).zip(later) {
                if !matches!(query, Query::Keys(_)) {
                    *answer = later;
                }
            }
        }
        for (query, answer) in queries.iter().zip(&mut answers) {
            match (self.flaw, query) {
                (Flaw::SortsByName, Query::Objects { .. }) => answer.sort_by(|one, other| one.key.cmp(&other.key)),
                (Flaw::SortsVersionsAsText, Query::Versions { .. }) => answer.sort_by_key(|record| match record.key {
                    Key::Version { number, .. } => number.to_string(),
                    _ => String::new(),
                }),
                (Flaw::ReadsOldStates, Query::Keys(keys)) => {
                    let mut seen = self.seen.lock().expect("not poisoned");
                    for key in keys {
                        let found = answer.iter().find(|record| record.key == *key).cloned();
                        seen.entry(key.clone()).or_insert(found);
                    }
                    *answer = keys.iter().filter_map(|key| seen[key].clone()).collect();
                }
                _ => {}
            }
        }
        Ok(answers)
    }

    async fn commit(&self, mut commit: Commit, deadline: &Deadline) -> Result<Outcome> {
        let number = self.storage.commits.fetch_add(1, Ordering::SeqCst);
        self.storage.exists.store(true, Ordering::SeqCst);
        self.seen.lock().expect("not poisoned").clear();
        let is_empty = commit.expectations.is_empty() && commit.writes.is_empty();
        let is_large = commit.expectations.len() + commit.writes.len() > 999;
        if self.flaw == Flaw::RefusesCommitsOfNothing && is_empty || self.flaw == Flaw::LimitsKeys && is_large {
            return Err(Error::internal("too few or too many parameters"));
        }
        for (key, _) in &mut commit.expectations {
            *key = self.key(key);
        }
        commit.writes = self.writes(commit.writes).await?;
        let expectations = commit.expectations.clone();
        match self.flaw {
            Flaw::AnswersBeforeItWrites => {
                let inner = Arc::clone(&self.inner);
                commit.expectations.clear();
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    inner.commit(commit, &patience()).await
                });
                return Ok(Outcome::Committed { revision: None });
            }
            Flaw::LosesEveryTenth if number % 10 == 9 => commit.writes.clear(),
            Flaw::ChecksThenWrites => {
                let checked = self.done(expectations, Vec::new()).await?;
                dawdle();
                if !checked.is_committed() {
                    return Ok(checked);
                }
                commit.expectations.clear();
            }
            // As a snapshot does that only what is written is locked in.
            Flaw::ChecksEarlyWhatItOnlyReads => {
                let puts =
                    |key: &Key| commit.writes.iter().any(|write| matches!(write, Write::Put(put) if put.key == *key));
                let (written, read): (Vec<_>, Vec<_>) = expectations.into_iter().partition(|(key, _)| puts(key));
                let checked = self.done(read, Vec::new()).await?;
                dawdle();
                if !checked.is_committed() {
                    return Ok(checked);
                }
                commit.expectations = written;
            }
            Flaw::WritesOneByOne => {
                let checked = self.done(expectations, Vec::new()).await?;
                if !checked.is_committed() {
                    return Ok(checked);
                }
                for write in commit.writes {
                    self.done(Vec::new(), vec![write]).await?;
                    // Longer than others take to get through their check, and not on a thread that they need.
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                return Ok(checked);
            }
            Flaw::WritesThenChecks => {
                let last = commit.expectations.pop();
                let checked = self.done(last.into_iter().collect(), Vec::new()).await?;
                if !checked.is_committed() {
                    return Ok(checked);
                }
                self.done(Vec::new(), std::mem::take(&mut commit.writes)).await?;
            }
            Flaw::ForgetsAbsence => commit.expectations.retain(|(_, expected)| *expected != Expected::Absent),
            Flaw::TakesPresenceForValue => {
                for (_, expected) in &mut commit.expectations {
                    if matches!(expected, Expected::Value(_)) {
                        *expected = Expected::Present;
                    }
                }
            }
            _ => {}
        }
        match self.inner.commit(commit, deadline).await? {
            Outcome::Conflict(_) if self.flaw == Flaw::NamesAnotherKey => {
                Ok(Outcome::Conflict(Key::project_object("another")))
            }
            outcome => Ok(outcome),
        }
    }

    async fn journal(&self, query: &JournalQuery, deadline: &Deadline) -> Result<Vec<JournalEntry>> {
        self.inner.journal(query, deadline).await
    }

    async fn prune_journal(&self, retention: &Retention, deadline: &Deadline) -> Result<u64> {
        self.inner.prune_journal(retention, deadline).await
    }

    async fn remove_if_empty(&self, deadline: &Deadline) -> Result<bool> {
        match self.flaw {
            Flaw::RemovesAlways => return self.empty().await.map(|()| true),
            Flaw::RemovesNever => return Ok(false),
            Flaw::RemovesForAnybody => {}
            _ if self.mode != SchemaMode::Auto => return Ok(false),
            _ => {}
        }
        let is_removed = self.inner.remove_if_empty(deadline).await?;
        if is_removed {
            self.storage.exists.store(false, Ordering::SeqCst);
            self.storage.was_removed.store(true, Ordering::SeqCst);
        }
        Ok(is_removed)
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

/// A handle with a flaw around one that has none.
pub(crate) fn flawed(inner: Arc<dyn Backend>, flaw: Flaw, mode: SchemaMode, storage: Arc<State>) -> Arc<dyn Backend> {
    let inner = Promises::around(inner, flaw, Arc::clone(&storage.promises));
    let inner = Words::around(inner, flaw, Arc::clone(&storage.words));
    crate::feed::around(Arc::new(Handle { flaw, inner, mode, storage, seen: Mutex::default() }), flaw)
}
