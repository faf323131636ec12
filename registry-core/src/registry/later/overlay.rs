//! What waits to be written, laid over what is stored: so reads see it without waiting for it to be written.

use std::collections::HashMap;

use bytes::Bytes;
use indexmap::IndexMap;

use crate::backend::{Key, Query, Record, Write};

/// What will be stored under the keys that waiting objects change; `None` where nothing will be.
#[derive(Debug, Default)]
pub(crate) struct Overlay {
    records: IndexMap<Key, Option<Record>>,
}

impl Overlay {
    /// What these writes leave behind. Applies, which are all that waits, write single keys only.
    pub(super) fn of<'a>(writes: impl Iterator<Item = &'a Write>) -> Self {
        let mut records = IndexMap::new();
        for write in writes {
            match write {
                Write::Put(record) => drop(records.insert(record.key.clone(), Some(record.clone()))),
                Write::Delete(key) => drop(records.insert(key.clone(), None)),
                Write::DeleteVersions { .. } | Write::DeleteProject { .. } => {}
            }
        }
        Self { records }
    }

    /// What will be stored under a key; `None` if that is not changed.
    pub(crate) fn get(&self, key: &Key) -> Option<Option<&Record>> {
        self.records.get(key).map(Option::as_ref)
    }

    /// What will be under a key that has this now.
    pub(crate) fn over(&self, key: &Key, stored: Option<&Bytes>) -> Option<Bytes> {
        match self.get(key) {
            Some(waiting) => waiting.map(|record| record.value.clone()),
            None => stored.cloned(),
        }
    }

    /// Whether anything waits in a project.
    pub(crate) fn is_about(&self, project: &str) -> bool {
        self.records.keys().any(|key| key.project() == project)
    }

    /// Changes the storage's answer to a query into what it will be. What is new in a list comes last, or where it belongs
    /// in one by project and name.
    pub(crate) fn show(&self, query: &Query, answer: &mut Vec<Record>, keeps_order: bool) {
        if let Query::Keys(keys) = query {
            let mut stored: HashMap<Key, Record> =
                answer.drain(..).map(|record| (record.key.clone(), record)).collect();
            answer.extend(keys.iter().filter_map(|key| match self.get(key) {
                Some(waiting) => waiting.cloned(),
                None => stored.remove(key),
            }));
            return;
        }
        let mut waiting: IndexMap<&Key, Option<&Record>> = self
            .records
            .iter()
            .filter(|(key, record)| is_asked_for(query, key, record.as_ref()))
            .map(|(key, record)| (key, record.as_ref()))
            .collect();
        if waiting.is_empty() {
            return;
        }
        answer.retain_mut(|record| match waiting.shift_remove(&record.key) {
            Some(Some(changed)) => {
                *record = changed.clone();
                true
            }
            Some(None) => false,
            None => true,
        });
        answer.extend(waiting.into_values().flatten().cloned());
        match query {
            Query::Versions { latest_only, .. } => {
                answer.sort_by(|one, other| one.key.cmp(&other.key));
                if *latest_only {
                    answer.drain(..answer.len().saturating_sub(1));
                }
            }
            Query::Objects { page, .. } if page.is_some() || !keeps_order => {
                answer.sort_by(|one, other| one.key.cmp(&other.key));
                if let Some(page) = page {
                    answer.truncate(page.limit);
                }
            }
            _ => {}
        }
    }
}

/// Whether what is stored under a key is part of the answer to a query for more than single keys.
fn is_asked_for(query: &Query, key: &Key, record: Option<&Record>) -> bool {
    let is_of = |wanted: &Option<String>| wanted.as_deref().is_none_or(|project| project == key.project());
    match (query, key) {
        (Query::Objects { kind, project, updated_since, page }, Key::Object { kind: stored, project: of, name }) => {
            kind == stored
                && is_of(project)
                && record.is_none_or(|record| updated_since.is_none_or(|since| record.updated >= since))
                && page
                    .as_ref()
                    .and_then(|page| page.after.as_ref())
                    .is_none_or(|after| (of, name) > (&after.0, &after.1))
        }
        (Query::Versions { project, view, .. }, Key::Version { project: p, view: v, .. }) => project == p && view == v,
        (Query::Metadata { project }, Key::Metadata { .. }) => is_of(project),
        _ => false,
    }
}
