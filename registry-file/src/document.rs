//! The `Registry` message in memory: its objects as they are serialized, with an index on top.
//!
//! Nothing of an object is decoded but its name, its project and when it was last updated. A change replaces one object's
//! bytes; writing the file concatenates what is there. What is not understood is kept.

mod commit;
mod parse;
mod read;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use feast_registry_core::{Key, Kind, Object, wire};
use indexmap::IndexMap;
use prost::Message;
use prost_types::Timestamp;

use crate::extra::{self, Extra, LINEAGE, Table};
use crate::journal::Journal;

/// Fields of `feast.core.Registry` that are not objects of a kind.
mod field {
    pub(super) const SCHEMA_VERSION: u32 = 3;
    pub(super) const VERSION_ID: u32 = 4;
    pub(super) const LAST_UPDATED: u32 = 5;
    pub(super) const PROJECT_METADATA: u32 = 15;
    pub(super) const VERSION_HISTORY: u32 = 18;
    /// Within the version history.
    pub(super) const RECORDS: u32 = 1;
}

/// What Feast calls the form of the file (`REGISTRY_SCHEMA_VERSION`).
const SCHEMA_VERSION: &str = "1";

/// Bytes that differ from those that were loaded are kept apart from them, up to this much more than half as many.
const LOOSE: usize = 1 << 20;

/// A value and when it was written.
#[derive(Debug, Clone)]
struct Entry {
    value: Bytes,
    updated: i64,
    /// The second does not follow from the value.
    is_stamped: bool,
}

/// In the order in which they stand in the file. Shared with earlier states until changed.
type Objects = IndexMap<Arc<Key>, Entry>;
type Sorted = BTreeMap<Arc<Key>, Entry>;

/// One state of a registry. Cloning is cheap: the parts are shared until they are changed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Document {
    /// By the place of their kind in [`Kind::ALL`]. The infrastructures here are those of the projects.
    objects: [Arc<Objects>; 12],
    versions: Arc<Sorted>,
    user_metadata: Arc<Sorted>,
    facts: Arc<Sorted>,
    /// The one infrastructure that the message has room for.
    infra: Option<Bytes>,
    /// Fields of project metadata, by the project, and of the history, that are not understood.
    unknown_metadata: Arc<BTreeMap<String, Bytes>>,
    unknown_history: Bytes,
    /// Fields of the message that are not understood, or deprecated.
    unknown: Bytes,
    schema_version: String,
    /// The `version_id`s of the last writes, newest last.
    lineage: Vec<String>,
    pub(crate) journal: Arc<Journal>,
    /// Whether the object only says that there is no registry.
    pub(crate) is_removed: bool,
    /// How many bytes the file has.
    size: usize,
    /// How many bytes were loaded, and how many that replaced some of them are kept apart.
    loaded: usize,
    loose: usize,
}

fn place(kind: Kind) -> usize {
    Kind::ALL.iter().position(|of| *of == kind).unwrap_or_default()
}

impl Document {
    /// A registry with nothing in it.
    pub(crate) fn new() -> Self {
        Self { schema_version: SCHEMA_VERSION.to_owned(), ..Self::default() }
    }

    /// A registry with nothing in it, whose journal goes on from this one.
    pub(crate) fn blank(&self) -> Self {
        Self { lineage: self.lineage.clone(), journal: Arc::clone(&self.journal), ..Self::new() }
    }

    /// What stands in place of this registry when it was removed.
    pub(crate) fn removed(&self) -> Self {
        Self { is_removed: true, ..self.blank() }
    }

    fn of_kind(&self, kind: Kind) -> &Objects {
        &self.objects[place(kind)]
    }

    pub(crate) fn has_project(&self) -> bool {
        !self.of_kind(Kind::Project).is_empty()
    }

    /// Whether two documents are the same state of the file: each write gives it another `version_id`.
    pub(crate) fn is_same_state(&self, other: &Self) -> bool {
        self.lineage.last() == other.lineage.last()
    }

    /// How many bytes the file has, before the changes that are not written yet.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Whether so much was changed since the file was loaded that it had better be taken in anew from the bytes that were
    /// written: an object that was replaced still takes its place in the bytes that were loaded.
    pub(crate) fn is_loose(&self) -> bool {
        self.loose > self.loaded / 2 + LOOSE
    }

    /// The file, as it is after a write with this `version_id`. It begins with that.
    pub(crate) fn encode(&mut self, version_id: &str, now: &Timestamp) -> Bytes {
        self.lineage.push(version_id.to_owned());
        self.lineage.drain(..self.lineage.len().saturating_sub(LINEAGE));
        let mut file = Vec::with_capacity(self.loaded + self.loose + (1 << 12));
        wire::put(&mut file, field::VERSION_ID, version_id.as_bytes());
        wire::put(&mut file, field::SCHEMA_VERSION, self.schema_version.as_bytes());
        wire::put(&mut file, field::LAST_UPDATED, &now.encode_to_vec());
        for kind in Kind::ALL.iter().copied().filter(|kind| *kind != Kind::Infra) {
            for entry in self.of_kind(kind).values() {
                wire::put(&mut file, kind.registry_field(), &entry.value);
            }
        }
        if let Some(infra) = &self.infra {
            wire::put(&mut file, Kind::Infra.registry_field(), infra);
        }
        self.encode_metadata(&mut file);
        self.encode_history(&mut file);
        file.extend_from_slice(&self.unknown);
        for extra in self.extras() {
            wire::put(&mut file, extra::FIELD, &extra.encode_to_vec());
        }
        self.size = file.len();
        file.into()
    }

    fn encode_metadata(&self, file: &mut Vec<u8>) {
        for (key, entry) in self.facts.iter() {
            if let Some(project) = of_uuid(key) {
                let mut metadata = Vec::new();
                wire::put(&mut metadata, 1, project.as_bytes());
                wire::put(&mut metadata, 2, &entry.value);
                metadata.extend_from_slice(self.unknown_metadata.get(project).map_or(&[], |bytes| bytes));
                wire::put(file, field::PROJECT_METADATA, &metadata);
            }
        }
    }

    fn encode_history(&self, file: &mut Vec<u8>) {
        if self.versions.is_empty() && self.unknown_history.is_empty() {
            return;
        }
        // Occurrences of one sub-message merge: each record may as well stand in one of its own, and nothing has to be
        // measured or copied twice.
        let mut history = Vec::new();
        for entry in self.versions.values() {
            history.clear();
            wire::put(&mut history, field::RECORDS, &entry.value);
            wire::put(file, field::VERSION_HISTORY, &history);
        }
        if !self.unknown_history.is_empty() {
            wire::put(file, field::VERSION_HISTORY, &self.unknown_history);
        }
    }

    fn extras(&self) -> impl Iterator<Item = Extra> {
        let lineage = Extra { value: self.lineage.join(" ").into(), ..Extra::of_table(Table::Lineage) };
        let mark =
            self.infra.as_ref().map(|infra| Extra { of: extra::hash(infra), ..Extra::of_table(Table::InfraMark) });
        let removed = self.is_removed.then(|| Extra::of_table(Table::Removed));
        let all = self.objects.iter().flat_map(|objects| objects.iter());
        let all = all.chain(self.versions.iter()).chain(self.user_metadata.iter()).chain(self.facts.iter());
        let kept = all.filter_map(|(key, entry)| kept_apart(key, entry));
        [lineage].into_iter().chain(mark).chain(removed).chain(kept).chain(self.journal.extras())
    }
}

/// What is kept of an entry beside the message's own fields.
fn kept_apart(key: &Key, entry: &Entry) -> Option<Extra> {
    let table = match key {
        Key::Object { kind: Kind::Infra, .. } => Table::Infra,
        Key::UserMetadata { .. } => Table::UserMetadata,
        Key::Metadata { .. } if of_uuid(key).is_none() => Table::Fact,
        _ if entry.is_stamped => Table::Updated,
        _ => return None,
    };
    let (field, name, number) = match key {
        Key::Object { kind, name, .. } | Key::UserMetadata { kind, view: name, .. } => (kind.registry_field(), name, 0),
        Key::Version { view, number, .. } => (field::VERSION_HISTORY, view, *number),
        Key::Metadata { name, .. } => (field::PROJECT_METADATA, name, 0),
    };
    let (value, of) = match table {
        Table::Updated => (Bytes::new(), extra::hash(&entry.value)),
        _ => (entry.value.clone(), 0),
    };
    let (project, name, updated) = (key.project().to_owned(), name.clone(), entry.updated);
    Some(Extra { table: table.into(), field, project, name, number, value, updated, of })
}

/// The project whose UUID is under a key: that one has a field of its own (`ProjectMetadata`).
fn of_uuid(key: &Key) -> Option<&str> {
    match key {
        Key::Metadata { project, name } if name == Key::PROJECT_UUID => Some(project),
        _ => None,
    }
}

/// The second in which a value says that it was last written; `None` where it does not.
fn own_second(key: &Key, value: &Bytes) -> Option<i64> {
    match key {
        Key::Object { kind, .. } => {
            let timestamp = Object::new(*kind, value.clone()).last_updated_timestamp().ok()??;
            Some(timestamp.seconds)
        }
        Key::Version { .. } => {
            // `FeatureViewVersionRecord.created_timestamp`
            let bytes = wire::sub_message(value, 6).ok()??;
            Some(Timestamp::decode(&*bytes).ok()?.seconds)
        }
        Key::UserMetadata { .. } | Key::Metadata { .. } => None,
    }
}

impl Entry {
    fn new(key: &Key, value: Bytes, updated: i64) -> Self {
        let is_stamped = own_second(key, &value) != Some(updated);
        Self { value, updated, is_stamped }
    }
}
