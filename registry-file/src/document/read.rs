//! Answering queries from memory.

use feast_registry_core::{Key, Query, Record};

use super::{Document, Entry};

impl Document {
    /// Answers queries, in their order.
    pub(crate) fn read(&self, queries: &[Query]) -> Vec<Vec<Record>> {
        queries.iter().map(|query| self.answer(query)).collect()
    }

    fn answer(&self, query: &Query) -> Vec<Record> {
        let is_of = |wanted: &Option<String>, key: &Key| wanted.as_deref().is_none_or(|of| of == key.project());
        match query {
            Query::Keys(keys) => keys.iter().filter_map(|key| self.get(key).map(|entry| record(key, entry))).collect(),
            Query::Objects { kind, project, updated_since } => self
                .of_kind(*kind)
                .iter()
                .filter(|(key, entry)| is_of(project, key) && updated_since.is_none_or(|since| entry.updated >= since))
                .map(|(key, entry)| record(key, entry))
                .collect(),
            Query::Versions { project, view, latest_only } => {
                let key = |number| Key::Version { project: project.clone(), view: view.clone(), number };
                let mut found = self.versions.range(key(i32::MIN)..=key(i32::MAX));
                let all = found.clone().map(|(key, entry)| record(key, entry));
                if *latest_only {
                    found.next_back().map(|(key, entry)| record(key, entry)).into_iter().collect()
                } else {
                    all.collect()
                }
            }
            Query::Metadata { project } => self
                .facts
                .iter()
                .filter(|(key, _)| is_of(project, key))
                .map(|(key, entry)| record(key, entry))
                .collect(),
        }
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Entry> {
        match key {
            Key::Object { kind, .. } => self.of_kind(*kind).get(key),
            Key::Version { .. } => self.versions.get(key),
            Key::UserMetadata { .. } => self.user_metadata.get(key),
            Key::Metadata { .. } => self.facts.get(key),
        }
    }
}

fn record(key: &Key, entry: &Entry) -> Record {
    Record { key: key.clone(), value: entry.value.clone(), updated: entry.updated }
}
