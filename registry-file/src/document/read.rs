//! Answering queries from memory.

use std::sync::Arc;

use feast_registry_core::{Key, Page, Query, Record};

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
            Query::Objects { kind, project, updated_since, page } => {
                let is_wanted = |(key, entry): &(&Arc<Key>, &Entry)| {
                    is_of(project, key) && updated_since.is_none_or(|since| entry.updated >= since)
                };
                let found = self.of_kind(*kind).iter().filter(is_wanted);
                match page {
                    None => found.map(|(key, entry)| record(key, entry)).collect(),
                    Some(page) => on_page(found, page),
                }
            }
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
    Record::new(key.clone(), entry.value.clone(), entry.updated)
}

/// Those that a page has of objects of one kind: by project and name.
fn on_page<'a>(found: impl Iterator<Item = (&'a Arc<Key>, &'a Entry)>, page: &Page) -> Vec<Record> {
    let place = |key: &'a Key| match key {
        Key::Object { project, name, .. } => (project.as_str(), name.as_str()),
        other => (other.project(), ""),
    };
    let after = page.after.as_ref().map(|(project, name)| (project.as_str(), name.as_str()));
    let mut found: Vec<_> = found.filter(|(key, _)| after.is_none_or(|after| place(key) > after)).collect();
    if page.limit < found.len() {
        // The rest need not be sorted.
        found.select_nth_unstable_by(page.limit, |(one, _), (other, _)| one.cmp(other));
        found.truncate(page.limit);
    }
    found.sort_unstable_by_key(|(key, _)| *key);
    found.into_iter().map(|(key, entry)| record(key, entry)).collect()
}
