//! The registry in memory: for tests, and for backend authors to read first.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;

use crate::backend::{Backend, Commit, Expected, Key, Limits, Outcome, Query, Record, Write};
use crate::config::SchemaMode;
use crate::error::Result;
use crate::kind::Kind;

/// A backend that keeps everything in memory; nothing outlives it.
#[derive(Debug, Default)]
pub struct MemoryBackend {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Each record with its place in the order in which keys were first stored.
    records: HashMap<Key, (u64, Record)>,
    stored_so_far: u64,
}

impl MemoryBackend {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// One lock around everything is what makes a commit atomic here, and serializable. A panic while it was held
    /// leaves the state as it was, because a commit checks before it changes.
    fn with_state<T>(&self, then: impl FnOnce(&mut State) -> T) -> T {
        then(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl Backend for MemoryBackend {
    fn location(&self) -> String {
        "memory://".to_owned()
    }

    fn limits(&self) -> Limits {
        Limits { name_chars: None, value_bytes: usize::MAX, keeps_order: true }
    }

    async fn prepare(&self, _: SchemaMode) -> Result<()> {
        Ok(())
    }

    async fn read(&self, queries: &[Query]) -> Result<Vec<Vec<Record>>> {
        Ok(self.with_state(|state| queries.iter().map(|query| state.read(query)).collect()))
    }

    async fn commit(&self, commit: Commit) -> Result<Outcome> {
        Ok(self.with_state(|state| {
            for (key, expected) in &commit.expectations {
                if !state.is_as(key, expected) {
                    return Outcome::Conflict(key.clone());
                }
            }
            for write in commit.writes {
                state.write(write);
            }
            Outcome::Committed
        }))
    }

    async fn remove_if_empty(&self) -> Result<bool> {
        Ok(self.with_state(|state| {
            let has_project = state.records.keys().any(|key| matches!(key, Key::Object { kind: Kind::Project, .. }));
            if !has_project {
                state.records.clear();
            }
            !has_project
        }))
    }
}

impl State {
    fn is_as(&self, key: &Key, expected: &Expected) -> bool {
        match (self.records.get(key), expected) {
            (None, Expected::Absent) | (Some(_), Expected::Present) => true,
            (Some((_, record)), Expected::Value(value)) => record.value == value,
            _ => false,
        }
    }

    fn write(&mut self, write: Write) {
        match write {
            Write::Put(record) => {
                if let Key::UserMetadata { kind, project, view } = &record.key
                    && !self.records.contains_key(&Key::object(*kind, project, view))
                {
                    return;
                }
                self.stored_so_far += 1;
                let place = self.records.get(&record.key).map_or(self.stored_so_far, |(place, _)| *place);
                self.records.insert(record.key.clone(), (place, record));
            }
            Write::Delete(key) => {
                self.records.remove(&key);
                if let Key::Object { kind, project, name } = key {
                    self.records.remove(&Key::UserMetadata { kind, project, view: name });
                }
            }
            Write::DeleteVersions { project, view } => self.records.retain(
                |key, _| !matches!(key, Key::Version { project: p, view: v, .. } if *p == project && *v == view),
            ),
            Write::DeleteProject { project } => self.records.retain(|key, _| key.project() != project),
        }
    }

    fn read(&self, query: &Query) -> Vec<Record> {
        if let Query::Keys(keys) = query {
            return keys.iter().filter_map(|key| self.records.get(key)).map(|(_, record)| record.clone()).collect();
        }
        let mut found: Vec<_> = self.records.values().filter(|(_, record)| matches(query, record)).collect();
        found.sort_by_key(|(place, record)| match record.key {
            Key::Version { number, .. } => number as u64,
            _ => *place,
        });
        if matches!(query, Query::Versions { latest_only: true, .. }) {
            found.drain(..found.len().saturating_sub(1));
        }
        found.into_iter().map(|(_, record)| record.clone()).collect()
    }
}

fn matches(query: &Query, record: &Record) -> bool {
    let is_of = |wanted: &Option<String>| wanted.as_deref().is_none_or(|project| project == record.key.project());
    match (query, &record.key) {
        (Query::Objects { kind, project, updated_since }, Key::Object { kind: stored, .. }) => {
            kind == stored && is_of(project) && updated_since.is_none_or(|since| record.updated >= since)
        }
        (Query::Versions { project, view, .. }, Key::Version { project: p, view: v, .. }) => project == p && view == v,
        (Query::Metadata { project }, Key::Metadata { .. }) => is_of(project),
        _ => false,
    }
}
