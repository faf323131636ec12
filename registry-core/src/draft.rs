//! The commit that a rule is drafting: what the rule looked at becomes what the commit expects.
//!
//! Rules are pure functions: they read from what was fetched for them beforehand ([`Fetched`]) and write into a
//! [`Draft`]. Because every look is noted as an expectation, a rule cannot rest on something that another writer has
//! changed meanwhile, and cannot forget to say so.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;
use prost_types::Timestamp;

use crate::access::Judges;
use crate::backend::{Expected, Key, Query, Record, Write};
use crate::encoded::Object;
use crate::error::{Error, Result};
use crate::kind::Kind;

/// What a rule takes from outside: the time, and fresh identifiers.
pub(crate) struct Context<'a> {
    /// Now (UTC), in whole microseconds, which is as fine as Feast's Python keeps time.
    pub(crate) now: Timestamp,
    /// Gives a new UUID, 36 characters, at each call.
    pub(crate) new_uuid: &'a mut (dyn FnMut() -> String + Send),
    /// Whether the facts of `feast_metadata` are kept (`purge_feast_metadata: false`).
    pub(crate) keeps_metadata: bool,
    /// Who decides what the caller may do.
    pub(crate) judges: &'a mut Judges,
}

/// What was read for a rule to decide from.
#[derive(Debug, Default)]
pub(crate) struct Fetched {
    records: HashMap<Key, Option<Record>>,
    latest_versions: HashMap<(String, String), Option<i32>>,
    /// Whether it comes from a cache, which may be old.
    is_recalled: bool,
}

impl Fetched {
    /// Puts the answers of a backend together with what was asked.
    pub(crate) fn new(queries: &[Query], answers: Vec<Vec<Record>>, is_recalled: bool) -> Self {
        let mut fetched = Self { is_recalled, ..Self::default() };
        for (query, answer) in queries.iter().zip(answers) {
            match query {
                Query::Keys(keys) => fetched.records.extend(keys.iter().map(|key| (key.clone(), None))),
                Query::Versions { project, view, .. } => {
                    let latest = answer.iter().filter_map(|record| match &record.key {
                        Key::Version { number, .. } => Some(*number),
                        _ => None,
                    });
                    fetched.latest_versions.insert((project.clone(), view.clone()), latest.max());
                }
                Query::Objects { .. } | Query::Metadata { .. } => {}
            }
            fetched.records.extend(answer.into_iter().map(|record| (record.key.clone(), Some(record))));
        }
        fetched
    }

    /// What was fetched under a key.
    pub(crate) fn record(&self, key: &Key) -> Option<&Record> {
        self.records.get(key)?.as_ref()
    }

    /// What is stored under those of the keys that were fetched.
    pub(crate) fn into_records(mut self, keys: &[Key]) -> Vec<(Key, Option<Record>)> {
        keys.iter().filter_map(|key| self.records.remove_entry(key)).collect()
    }
}

/// A commit in the making.
pub(crate) struct Draft<'a> {
    fetched: &'a Fetched,
    expectations: BTreeMap<Key, Expected>,
    /// What has been written so far, for later looks to see.
    overlay: HashMap<Key, Option<Bytes>>,
    /// The histories that have been removed, each with its project.
    removed_histories: HashSet<(String, String)>,
    writes: Vec<Write>,
}

impl<'a> Draft<'a> {
    pub(crate) fn new(fetched: &'a Fetched) -> Self {
        Self {
            fetched,
            expectations: BTreeMap::new(),
            overlay: HashMap::new(),
            removed_histories: HashSet::new(),
            writes: Vec::new(),
        }
    }

    /// What is stored under a key; the commit will expect that this is still so.
    pub(crate) fn get(&mut self, key: &Key) -> Result<Option<Bytes>> {
        if let Some(written) = self.overlay.get(key) {
            return Ok(written.clone());
        }
        let value = self.peek(key)?;
        let expected = value.clone().map_or(Expected::Absent, Expected::Value);
        self.expectations.insert(key.clone(), expected);
        Ok(value)
    }

    /// Whether anything is stored under a key; the commit will expect that this is still so, but not that the value is
    /// the same. Of what is recalled it expects that too: it may have been removed and made anew since.
    pub(crate) fn exists(&mut self, key: &Key) -> Result<bool> {
        if let Some(written) = self.overlay.get(key) {
            return Ok(written.is_some());
        }
        let value = self.peek(key)?;
        let is_there = value.is_some();
        let expected = match value {
            Some(value) if self.is_recalled() => Expected::Value(value),
            Some(_) => Expected::Present,
            None => Expected::Absent,
        };
        self.expectations.entry(key.clone()).or_insert(expected);
        Ok(is_there)
    }

    /// Whether what was fetched may be old.
    pub(crate) fn is_recalled(&self) -> bool {
        self.fetched.is_recalled
    }

    /// What was stored under a key when it was read; the commit does not depend on it.
    pub(crate) fn peek(&self, key: &Key) -> Result<Option<Bytes>> {
        match self.fetched.records.get(key) {
            Some(record) => Ok(record.as_ref().map(|record| record.value.clone())),
            None => Err(Error::internal(format!("{key} was not fetched before a rule asked for it"))),
        }
    }

    /// An object; the commit will expect that it is still the same.
    pub(crate) fn object(&mut self, kind: Kind, project: &str, name: &str) -> Result<Option<Object>> {
        Ok(self.get(&Key::object(kind, project, name))?.map(|bytes| Object::new(kind, bytes)))
    }

    /// The keys of a project's objects that were found when its objects were fetched, by name or as lists.
    pub(crate) fn objects_of(&self, project: &str) -> Vec<Key> {
        let stored = self.fetched.records.iter().filter_map(|(key, record)| record.as_ref().map(|_| key));
        stored.filter(|key| matches!(key, Key::Object { .. }) && key.project() == project).cloned().collect()
    }

    /// The highest version in the history of a view. Whoever creates the next one expects that it is not there.
    pub(crate) fn latest_version(&self, project: &str, view: &str) -> Result<Option<i32>> {
        let written = self.overlay.iter().filter_map(|(key, value)| match key {
            Key::Version { number, .. } if is_version_of(key, project, view) && value.is_some() => Some(*number),
            _ => None,
        });
        let history = (project.to_owned(), view.to_owned());
        if self.removed_histories.contains(&history) {
            return Ok(written.max());
        }
        match self.fetched.latest_versions.get(&history) {
            Some(stored) => Ok(written.max().max(*stored)),
            None => {
                Err(Error::internal(format!("the history of view `{view}` was not fetched before a rule asked for it")))
            }
        }
    }

    /// Stores a value, whatever is stored under the key.
    pub(crate) fn put(&mut self, key: Key, value: impl Into<Bytes>, now: &Timestamp) {
        let value = value.into();
        self.overlay.insert(key.clone(), Some(value.clone()));
        self.writes.push(Write::Put(Record::new(key, value, now.seconds)));
    }

    /// Stores a value where nothing may be stored yet.
    pub(crate) fn create(&mut self, key: Key, value: impl Into<Bytes>, now: &Timestamp) {
        // Of a history that this commit removes, whatever is there is gone by then.
        let is_removed = matches!(&key, Key::Version { project, view, .. }
            if self.removed_histories.contains(&(project.clone(), view.clone())));
        if !is_removed && !self.overlay.contains_key(&key) {
            self.expect_absent(key.clone());
        }
        self.put(key, value, now);
    }

    /// Has the commit expect that nothing is stored under a key, which need not have been fetched.
    pub(crate) fn expect_absent(&mut self, key: Key) {
        self.expectations.insert(key, Expected::Absent);
    }

    /// Removes what is stored under a key.
    pub(crate) fn delete(&mut self, key: Key) {
        self.overlay.insert(key.clone(), None);
        self.writes.push(Write::Delete(key));
    }

    /// Removes the history of a view.
    pub(crate) fn delete_versions(&mut self, project: &str, view: &str) {
        let known = self.fetched.records.keys().chain(self.overlay.keys());
        let removed: Vec<Key> = known.filter(|key| is_version_of(key, project, view)).cloned().collect();
        self.overlay.extend(removed.into_iter().map(|key| (key, None)));
        self.removed_histories.insert((project.to_owned(), view.to_owned()));
        self.writes.push(Write::DeleteVersions { project: project.to_owned(), view: view.to_owned() });
    }

    /// Removes everything that has this project.
    pub(crate) fn delete_project(&mut self, project: &str) {
        self.writes.push(Write::DeleteProject { project: project.to_owned() });
    }

    /// Whether something has been drafted for a key.
    pub(crate) fn has_written(&self, key: &Key) -> bool {
        self.overlay.contains_key(key)
    }

    /// Whether anything is to be written.
    pub(crate) fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// How much has been drafted: what is drafted next comes after it.
    pub(crate) fn mark(&self) -> usize {
        self.writes.len()
    }

    /// What has been drafted since a [`mark`](Self::mark).
    pub(crate) fn writes_since(&self, mark: usize) -> &[Write] {
        &self.writes[mark.min(self.writes.len())..]
    }

    /// What will be stored under a key that was fetched or written; nothing is expected of it.
    pub(crate) fn final_value(&self, key: &Key) -> Option<Bytes> {
        match self.overlay.get(key) {
            Some(written) => written.clone(),
            None => self.fetched.records.get(key)?.as_ref().map(|record| record.value.clone()),
        }
    }

    /// What a commit of this expects and writes; one without writes need not be committed.
    pub(crate) fn into_parts(self) -> (Vec<(Key, Expected)>, Vec<Write>) {
        (self.expectations.into_iter().collect(), self.writes)
    }

    /// The commit, of a random identity.
    #[cfg(test)]
    pub(crate) fn into_commit(self) -> crate::backend::Commit {
        let (expectations, writes) = self.into_parts();
        crate::backend::Commit::new(expectations, writes)
    }
}

fn is_version_of(key: &Key, project: &str, view: &str) -> bool {
    matches!(key, Key::Version { project: p, view: v, .. } if p == project && v == view)
}
