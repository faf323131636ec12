//! The registry in memory, for reads that may be a little old (Feast: `allow_cache`, `cache_ttl_seconds`, `cache_mode`).
//!
//! It holds serialized objects and indexes them by name; a read from it decodes nothing and waits for no storage. What
//! this process writes shows in it at once, one object at a time: nothing is rebuilt. What other processes write shows
//! when it is next refreshed.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use indexmap::IndexMap;
use tokio::sync::Mutex;

use crate::backend::{Backend, Key, Query, Record, Write};
use crate::config::{CacheConfig, CacheMode};
use crate::deadline::Deadline;
use crate::encoded::Object;
use crate::error::Result;
use crate::kind::Kind;

/// How long cached reads leave a storage alone that did not answer.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// How long a refresh may take.
const READ_FOR: Duration = Duration::from_secs(30);

/// The objects of one kind in one project, in the order in which they were first stored.
type Objects = IndexMap<String, Entry>;

#[derive(Debug)]
struct Entry {
    bytes: Bytes,
    updated: i64,
    /// Its place in the order in which the objects of all projects were first stored.
    place: u64,
}

#[derive(Debug, Default)]
struct Contents {
    objects: HashMap<Kind, IndexMap<String, Objects>>,
    metadata: HashMap<String, IndexMap<String, Bytes>>,
    stored_so_far: u64,
}

#[derive(Debug, Default)]
struct State {
    /// `None` until the first refresh.
    contents: Option<Contents>,
    /// When the last refresh began; after one that failed, a moment that makes the next one due soon.
    refreshed: Option<Instant>,
    /// While a refresh is under way: what has been committed since it began, which it may or may not have read.
    committed_meanwhile: Option<Vec<Write>>,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Cache {
    config: CacheConfig,
    /// See [`crate::Limits::keeps_order`].
    keeps_order: bool,
    state: RwLock<State>,
    /// Held by whoever refreshes, so that only one does.
    refreshing: Mutex<()>,
}

impl Cache {
    pub(crate) fn new(config: CacheConfig, keeps_order: bool) -> Self {
        Self { config, keeps_order, state: RwLock::default(), refreshing: Mutex::default() }
    }

    pub(crate) fn config(&self) -> &CacheConfig {
        &self.config
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn state_mut(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_fresh(&self) -> bool {
        let state = self.state();
        let Some(refreshed) = state.refreshed else { return false };
        self.config.ttl == Duration::ZERO
            || self.config.mode == CacheMode::Thread
            || refreshed.elapsed() < self.config.ttl
    }

    /// Makes sure that what is read next is not older than `cache_ttl_seconds`. If the storage does not answer, what is
    /// there stays good: as in Feast, an outage of the storage is no outage of cached reads.
    pub(crate) async fn ensure_fresh(&self, backend: &dyn Backend) -> Result<()> {
        if self.is_fresh() {
            return Ok(());
        }
        let _only_one = self.refreshing.lock().await;
        if self.is_fresh() {
            return Ok(());
        }
        let Err(error) = self.refresh_alone(backend).await else { return Ok(()) };
        let mut state = self.state_mut();
        if state.contents.is_none() {
            return Err(error);
        }
        tracing::warn!(%error, "the cached registry could not be refreshed and is older than cache_ttl_seconds");
        state.refreshed = (Instant::now() + RETRY_AFTER).checked_sub(self.config.ttl).or(state.refreshed);
        Ok(())
    }

    /// Reads everything anew.
    pub(crate) async fn refresh(&self, backend: &dyn Backend) -> Result<()> {
        let _only_one = self.refreshing.lock().await;
        self.refresh_alone(backend).await
    }

    async fn refresh_alone(&self, backend: &dyn Backend) -> Result<()> {
        self.state_mut().committed_meanwhile = Some(Vec::new());
        let mut queries: Vec<Query> = Kind::ALL.into_iter().map(|kind| Query::objects(kind, None)).collect();
        queries.push(Query::Metadata { project: None });
        let began = Instant::now();
        let answers = backend.read(&queries, &Deadline::after(READ_FOR)).await;
        let mut state = self.state_mut();
        let meanwhile = state.committed_meanwhile.take().unwrap_or_default();
        let mut contents = Contents::default();
        contents.apply(answers?.into_iter().flatten().map(Write::Put));
        contents.apply(meanwhile);
        state.contents = Some(contents);
        state.refreshed = Some(began);
        Ok(())
    }

    /// Shows what this process has committed.
    pub(crate) fn apply(&self, writes: Vec<Write>) {
        let mut state = self.state_mut();
        if let Some(meanwhile) = &mut state.committed_meanwhile {
            meanwhile.extend(writes.iter().cloned());
        }
        if let Some(contents) = &mut state.contents {
            contents.apply(writes);
        }
    }

    /// An object.
    pub(crate) fn get(&self, kind: Kind, project: &str, name: &str) -> Option<Object> {
        let state = self.state();
        let entry = state.contents.as_ref()?.objects.get(&kind)?.get(project)?.get(name)?;
        Some(Object { kind, bytes: entry.bytes.clone() })
    }

    /// The objects of a kind in a project, or in all, with the second (since 1970, UTC) that each was written in; in the
    /// order of the storage's own lists.
    pub(crate) fn list(&self, kind: Kind, project: Option<&str>) -> Vec<(Object, i64)> {
        let state = self.state();
        let Some(by_project) = state.contents.as_ref().and_then(|contents| contents.objects.get(&kind)) else {
            return Vec::new();
        };
        let projects: Vec<(&String, &Objects)> = match project {
            Some(project) => by_project.get_key_value(project).into_iter().collect(),
            None => by_project.iter().collect(),
        };
        let mut found: Vec<(&String, &String, &Entry)> = Vec::new();
        for (project, objects) in projects {
            found.extend(objects.iter().map(|(name, entry)| (project, name, entry)));
        }
        if !self.keeps_order {
            found.sort_unstable_by_key(|(project, name, _)| (*project, *name));
        } else if project.is_none() {
            found.sort_unstable_by_key(|(_, _, entry)| entry.place);
        }
        found.into_iter().map(|(_, _, entry)| (Object { kind, bytes: entry.bytes.clone() }, entry.updated)).collect()
    }

    /// The facts about a project.
    pub(crate) fn metadata(&self, project: &str) -> Vec<(String, Bytes)> {
        let state = self.state();
        let facts = state.contents.as_ref().and_then(|contents| contents.metadata.get(project));
        facts.into_iter().flatten().map(|(name, text)| (name.clone(), text.clone())).collect()
    }
}

impl Contents {
    fn apply(&mut self, writes: impl IntoIterator<Item = Write>) {
        for write in writes {
            match write {
                Write::Put(Record { key: Key::Object { kind, project, name }, value, updated }) => {
                    let objects = self.objects.entry(kind).or_default().entry(project).or_default();
                    self.stored_so_far += 1;
                    let place = objects.get(&name).map_or(self.stored_so_far, |entry| entry.place);
                    objects.insert(name, Entry { bytes: value, updated, place });
                }
                Write::Put(Record { key: Key::Metadata { project, name }, value, .. }) => {
                    self.metadata.entry(project).or_default().insert(name, value);
                }
                Write::Delete(Key::Object { kind, project, name }) => {
                    if let Some(objects) = self.objects.get_mut(&kind).and_then(|kinds| kinds.get_mut(&project)) {
                        objects.shift_remove(&name);
                    }
                }
                Write::Delete(Key::Metadata { project, name }) => {
                    if let Some(facts) = self.metadata.get_mut(&project) {
                        facts.shift_remove(&name);
                    }
                }
                Write::DeleteProject { project } => {
                    self.objects.values_mut().for_each(|kinds| drop(kinds.shift_remove(&project)));
                    self.metadata.remove(&project);
                }
                // History and user metadata are always read from the storage.
                Write::Put(_) | Write::Delete(_) | Write::DeleteVersions { .. } => {}
            }
        }
    }
}
