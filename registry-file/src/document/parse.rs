//! Taking in a file.

use std::collections::{BTreeMap, btree_map};
use std::sync::Arc;

use bytes::Bytes;
use feast_registry_core::{Error, ErrorKind, INFRA_NAME, Key, Kind, Object, Result, wire};
use prost::Message;
use prost_types::Timestamp;

use super::{Document, Entry, Objects, Sorted, field, own_second, place};
use crate::extra::{self, Extra, Table};
use crate::journal::Journal;

impl Document {
    /// Takes in the bytes of a file; objects share them.
    ///
    /// # Errors
    /// `Corrupt` when they are not a `Registry` message, or when there are none: an empty file is what a writer leaves that
    /// truncates the file and dies.
    pub(crate) fn parse(file: &Bytes) -> Result<Self> {
        let mut parts = Parts::default();
        for field in wire::fields(file) {
            parts.take(file, field?)?;
        }
        if !parts.has_known {
            let what = if file.is_empty() { "it is empty" } else { "it has no field of a `feast.core.Registry`" };
            return Err(Error::new(ErrorKind::Corrupt, what));
        }
        Ok(parts.into_document(file.len()))
    }
}

#[derive(Default)]
struct Parts {
    has_known: bool,
    objects: [Objects; 12],
    versions: Sorted,
    facts: Sorted,
    infra: Option<Bytes>,
    unknown_metadata: BTreeMap<String, Bytes>,
    unknown_history: Vec<u8>,
    unknown: Vec<u8>,
    schema_version: String,
    version_id: String,
    last_updated: Timestamp,
    extras: Vec<Extra>,
}

impl Parts {
    fn take(&mut self, file: &Bytes, found: wire::Field<'_>) -> Result<()> {
        let kind = Kind::ALL.iter().copied().find(|kind| kind.registry_field() == found.number);
        let is_known = kind.is_some()
            || matches!(
                found.number,
                field::SCHEMA_VERSION
                    | field::VERSION_ID
                    | field::LAST_UPDATED
                    | field::PROJECT_METADATA
                    | field::VERSION_HISTORY
                    | extra::FIELD
            );
        if is_known && !found.is_length_delimited() {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!("its field {} is not what a `feast.core.Registry` has there", found.number),
            ));
        }
        self.has_known |= is_known;
        let content = file.slice_ref(found.content);
        match (found.number, kind) {
            (_, Some(Kind::Infra)) => {
                self.infra = Some(match self.infra.take() {
                    None => content,
                    // Occurrences of a sub-message merge.
                    Some(earlier) => [earlier, content].concat().into(),
                });
            }
            (_, Some(kind)) => self.object(kind, content)?,
            (field::SCHEMA_VERSION, _) => self.schema_version = text(&content)?,
            (field::VERSION_ID, _) => self.version_id = text(&content)?,
            // It matters no more than that: one that cannot be read is no reason not to open a registry.
            (field::LAST_UPDATED, _) => self.last_updated = Timestamp::decode(content).unwrap_or_default(),
            (field::PROJECT_METADATA, _) => self.project_metadata(&content)?,
            (field::VERSION_HISTORY, _) => self.history(&content)?,
            (extra::FIELD, _) => match Extra::decode(content) {
                // `table()` of a number that it does not know is `Unknown` too.
                Ok(extra) if extra.table() != Table::Unknown => self.extras.push(extra),
                _ => self.unknown.extend_from_slice(found.raw),
            },
            _ => self.unknown.extend_from_slice(found.raw),
        }
        Ok(())
    }

    fn object(&mut self, kind: Kind, bytes: Bytes) -> Result<()> {
        let object = Object::new(kind, bytes);
        let name = object.name()?;
        let key =
            if kind == Kind::Project { Key::project_object(&name) } else { Key::object(kind, object.project()?, name) };
        // Of two of one name Feast finds the first.
        match self.objects[place(kind)].entry(Arc::new(key)) {
            indexmap::map::Entry::Occupied(first) => {
                tracing::warn!(key = %first.key(), "the registry has it twice; only the first counts");
            }
            indexmap::map::Entry::Vacant(vacant) => {
                let entry = entry(vacant.key(), object.bytes);
                vacant.insert(entry);
            }
        }
        Ok(())
    }

    fn project_metadata(&mut self, message: &Bytes) -> Result<()> {
        let project = wire::text(message, 1)?;
        let uuid = message.slice_ref(wire::content(message, 2)?.unwrap_or_default());
        let unknown = wire::retain(message, |number| number > 2)?;
        let key = Arc::new(Key::metadata(project, Key::PROJECT_UUID));
        if let btree_map::Entry::Vacant(vacant) = self.facts.entry(key) {
            let value = entry(vacant.key(), uuid);
            vacant.insert(value);
            if !unknown.is_empty() {
                self.unknown_metadata.insert(project.to_owned(), unknown.into());
            }
        }
        Ok(())
    }

    fn history(&mut self, message: &Bytes) -> Result<()> {
        for found in wire::fields(message) {
            let found = found?;
            if found.number != field::RECORDS || !found.is_length_delimited() {
                self.unknown_history.extend_from_slice(found.raw);
                continue;
            }
            let record = message.slice_ref(found.content);
            let key = Arc::new(version_key(&record)?);
            // Feast finds the first of two.
            if let btree_map::Entry::Vacant(vacant) = self.versions.entry(key) {
                let value = entry(vacant.key(), record);
                vacant.insert(value);
            }
        }
        Ok(())
    }

    fn into_document(mut self, loaded: usize) -> Document {
        let mut document = Document {
            unknown_metadata: Arc::new(self.unknown_metadata),
            unknown_history: self.unknown_history.into(),
            unknown: self.unknown.into(),
            schema_version: self.schema_version,
            size: loaded,
            loaded,
            ..Document::default()
        };
        let mut user_metadata = Sorted::new();
        let mut mark = None;
        let (mut journal, mut entries) = (None, Vec::new());
        for extra in self.extras {
            let table = extra.table();
            match table {
                Table::InfraMark => mark = Some(extra.of),
                Table::Removed => document.is_removed = true,
                Table::Lineage => {
                    document.lineage = String::from_utf8_lossy(&extra.value).split(' ').map(str::to_owned).collect();
                }
                Table::Updated => {
                    let entry = match key_of(&extra) {
                        Some(key @ Key::Object { kind, .. }) => self.objects[place(kind)].get_mut(&key),
                        Some(key @ Key::Version { .. }) => self.versions.get_mut(&key),
                        Some(key @ Key::Metadata { .. }) => self.facts.get_mut(&key),
                        _ => None,
                    };
                    if let Some(entry) = entry.filter(|entry| extra::hash(&entry.value) == extra.of) {
                        (entry.updated, entry.is_stamped) = (extra.updated, true);
                    }
                }
                Table::Infra | Table::UserMetadata | Table::Fact => {
                    let Some(key) = key_of(&extra) else { continue };
                    let entry = Entry { value: extra.value.clone(), updated: extra.updated, is_stamped: true };
                    match &key {
                        Key::Object { .. } => drop(self.objects[place(Kind::Infra)].insert(Arc::new(key), entry)),
                        Key::UserMetadata { kind, project, view } => {
                            // Feast, which knows nothing of it, may have deleted the view.
                            let of = Key::object(*kind, project, view);
                            if self.objects[place(*kind)].contains_key(&of) {
                                user_metadata.insert(Arc::new(key), entry);
                            }
                        }
                        _ => drop(self.facts.insert(Arc::new(key), entry)),
                    }
                }
                Table::Journal => journal = Some(extra.value),
                Table::Entry => entries.push(extra.value),
                Table::Unknown => {}
            }
        }
        if document.lineage.last().is_none_or(|last| *last != self.version_id) && !self.version_id.is_empty() {
            document.lineage.push(self.version_id);
            note_outside_write(&mut self.facts, &self.last_updated);
        }
        if let Some(infra) = self.infra.as_ref().filter(|infra| mark != Some(extra::hash(infra))) {
            adopt_infra(&mut self.objects, &self.facts, infra);
        }
        document.infra = self.infra;
        document.objects = self.objects.map(Arc::new);
        document.versions = Arc::new(self.versions);
        document.facts = Arc::new(self.facts);
        document.user_metadata = Arc::new(user_metadata);
        document.journal = Arc::new(Journal::parse(journal, entries));
        document
    }
}

/// Makes the facts of when projects were last changed say that somebody has written the file who does not know them, as Feast
/// does: such a write gives the file another `version_id` and leaves them as they are. Which of the projects it changed, nothing
/// tells.
///
/// It says when it was made, by another clock. A fact is in whole seconds: the next one then tells the write from ours of the
/// same second, and one more than is noted tells it from ours if that clock is slow.
fn note_outside_write(facts: &mut Sorted, at: &Timestamp) {
    let second = at.seconds.saturating_add(i64::from(at.nanos > 0));
    let mut projects: Vec<String> = facts.keys().map(|key| key.project().to_owned()).collect();
    projects.dedup();
    for project in projects {
        let key = Arc::new(Key::metadata(project, Key::LAST_UPDATED));
        let noted = facts.get(&key).and_then(|entry| std::str::from_utf8(&entry.value).ok()?.parse::<i64>().ok());
        let updated = noted.map_or(second, |noted| second.max(noted.saturating_add(1)));
        facts.insert(key, Entry { value: updated.to_string().into(), updated, is_stamped: true });
    }
}

/// Gives an infrastructure that Feast wrote to the projects that it can be of.
///
/// Feast's file has one for all projects, of the last that was applied. In a file of one project it is that project's.
/// Among several it goes to those of which this library has stored none: to replace what is known of a project by what may
/// be another's would have the next plan remove the tables of the other.
fn adopt_infra(objects: &mut [Objects; 12], facts: &Sorted, infra: &Bytes) {
    let mut projects: Vec<&str> = objects[place(Kind::Project)].keys().map(|key| key.project()).collect();
    // Before there were project objects, there was project metadata.
    projects.extend(facts.keys().filter_map(|key| super::of_uuid(key)));
    projects.sort_unstable();
    projects.dedup();
    let keys: Vec<Key> = projects.iter().map(|project| Key::object(Kind::Infra, *project, INFRA_NAME)).collect();
    let is_only = keys.len() == 1;
    let of_projects = &mut objects[place(Kind::Infra)];
    for key in keys {
        if is_only || !of_projects.contains_key(&key) {
            of_projects.insert(Arc::new(key), Entry { value: infra.clone(), updated: 0, is_stamped: true });
        }
    }
}

/// An entry as the message tells of it: where it does not say when it was last written, 0.
fn entry(key: &Key, value: Bytes) -> Entry {
    let own = own_second(key, &value);
    Entry { value, updated: own.unwrap_or_default(), is_stamped: false }
}

fn text(content: &Bytes) -> Result<String> {
    String::from_utf8(content.to_vec())
        .map_err(|error| Error::new(ErrorKind::Corrupt, "a text in it is not UTF-8").with_source(error))
}

/// The key that a version of a view says.
pub(super) fn version_key(record: &[u8]) -> Result<Key> {
    let mut number = 0;
    for field in wire::fields(record) {
        let field = field?;
        // `FeatureViewVersionRecord.version_number`, an `int32`
        if field.number == 3 {
            number = field.varint as i32;
        }
    }
    let (view, project) = (wire::text(record, 1)?.to_owned(), wire::text(record, 2)?.to_owned());
    Ok(Key::Version { project, view, number })
}

/// The key that an extra is about; `None` for a kind that is not known.
fn key_of(extra: &Extra) -> Option<Key> {
    let (project, name) = (extra.project.clone(), extra.name.clone());
    Some(match extra.field {
        field::VERSION_HISTORY => Key::Version { project, view: name, number: extra.number },
        field::PROJECT_METADATA => Key::Metadata { project, name },
        number => {
            let kind = Kind::ALL.iter().copied().find(|kind| kind.registry_field() == number)?;
            match extra.table() {
                Table::UserMetadata => Key::UserMetadata { kind, project, view: name },
                _ => Key::Object { kind, project, name },
            }
        }
    })
}
