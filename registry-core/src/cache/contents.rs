//! One state of the registry in memory: serialized objects, indexed by name.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use indexmap::IndexMap;

use crate::access::{Grounds, Policies};
use crate::backend::{Key, Record, Write};
use crate::encoded::Object;
use crate::kind::Kind;

/// The objects of one kind in one project, in the order in which they were first stored.
type Objects = IndexMap<String, Entry>;

/// An object as it is held.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) bytes: Bytes,
    /// The second (since 1970, UTC) that it was written in.
    pub(crate) updated: i64,
    /// Its place in the order in which the objects of all projects were first stored.
    place: u64,
    /// Whether the bytes are a message of the kind.
    pub(crate) is_sound: bool,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    objects: HashMap<Kind, IndexMap<String, Objects>>,
    metadata: HashMap<String, IndexMap<String, Bytes>>,
    /// The permissions of those projects that have some, once somebody has asked for them.
    policies: HashMap<String, OnceLock<Arc<Policies>>>,
    stored_so_far: u64,
    /// The last place that was given to something that another process has stored.
    last_of_others: u64,
    /// See [`crate::Limits::keeps_order`].
    keeps_order: bool,
}

impl Contents {
    pub(super) fn new(keeps_order: bool) -> Self {
        Self { keeps_order, ..Self::default() }
    }

    /// How many objects it has, and how many bytes they have.
    pub(super) fn size(&self) -> (usize, usize) {
        let objects = || self.objects.values().flat_map(IndexMap::values).flat_map(IndexMap::values);
        (objects().count(), objects().map(|entry| entry.bytes.len()).sum())
    }

    /// An object.
    pub(crate) fn entry(&self, kind: Kind, project: &str, name: &str) -> Option<&Entry> {
        self.objects.get(&kind)?.get(project)?.get(name)
    }

    /// What decisions about a project go by. Each cached read asks for it.
    pub(crate) fn grounds(&self, project: &str) -> Grounds {
        let facts = self.metadata.get(project);
        let fact = |name: &str| facts.and_then(|facts| facts.get(name)).cloned();
        let is_there = self.entry(Kind::Project, project, project).is_some();
        Grounds::new(is_there, fact(Key::PROJECT_UUID), fact(Key::CREATOR))
    }

    /// Whether an object of a project is held.
    pub(crate) fn has_objects_of(&self, project: &str) -> bool {
        self.objects.values().any(|kinds| kinds.get(project).is_some_and(|of| !of.is_empty()))
    }

    /// The permissions of a project, made ready.
    pub(crate) fn policies(&self, project: &str) -> Arc<Policies> {
        let Some(policies) = self.policies.get(project) else { return Arc::default() };
        let policies = policies.get_or_init(|| {
            let mut permissions = Vec::new();
            self.list(Kind::Permission, Some(project), None, &mut permissions);
            Arc::new(Policies::new(permissions.iter()))
        });
        Arc::clone(policies)
    }

    /// Has the permissions of a project made ready anew, once somebody asks for them.
    fn forget_policies(&mut self, project: &str) {
        self.policies.insert(project.to_owned(), OnceLock::new());
    }

    /// Adds the objects of a kind in a project, or in all, that are sound and were not last written before a second (since 1970,
    /// UTC); in the order of the storage's own lists.
    pub(crate) fn list(&self, kind: Kind, project: Option<&str>, since: Option<i64>, to: &mut Vec<Object>) {
        if let (None, Some(project)) = (since, project) {
            to.reserve(self.objects.get(&kind).and_then(|kinds| kinds.get(project)).map_or(0, Objects::len));
        }
        self.visit(kind, project, |_, _, entry| {
            if since.is_none_or(|since| entry.updated >= since) {
                to.push(Object { kind, bytes: entry.bytes.clone() });
            }
        });
    }

    /// The same, all of them with the keys that they are stored under.
    pub(crate) fn records(&self, kind: Kind, project: Option<&str>) -> Vec<Record> {
        let mut records = Vec::new();
        self.visit(kind, project, |project, name, entry| {
            records.push(Record::new(Key::object(kind, project, name), entry.bytes.clone(), entry.updated));
        });
        records
    }

    /// Visits the objects of [`list`](Self::list), with project and name.
    fn visit<'a>(&'a self, kind: Kind, project: Option<&str>, mut visit: impl FnMut(&'a str, &'a str, &'a Entry)) {
        let Some(by_project) = self.objects.get(&kind) else { return };
        let sound = |(project, objects): (&'a String, &'a Objects)| {
            let sound = objects.iter().filter(|(_, entry)| entry.is_sound);
            sound.map(|(name, entry)| (project.as_str(), name.as_str(), entry))
        };
        let of_project = project.and_then(|project| by_project.get_key_value(project)).into_iter().flat_map(sound);
        let of_all = by_project.iter().filter(|_| project.is_none()).flat_map(sound);
        if self.keeps_order && project.is_some() {
            return of_project.for_each(|(project, name, entry)| visit(project, name, entry));
        }
        let mut found: Vec<(&str, &str, &Entry)> = of_project.chain(of_all).collect();
        if self.keeps_order {
            found.sort_unstable_by_key(|(_, _, entry)| entry.place);
        } else {
            found.sort_unstable_by_key(|(project, name, _)| (*project, *name));
        }
        found.into_iter().for_each(|(project, name, entry)| visit(project, name, entry));
    }

    /// What is stored under these keys of objects, sound or not.
    pub(crate) fn records_of(&self, keys: &[Key]) -> Vec<Record> {
        let record = |key: &Key| match key {
            Key::Object { kind, project, name } => {
                let entry = self.entry(*kind, project, name)?;
                Some(Record::new(key.clone(), entry.bytes.clone(), entry.updated))
            }
            _ => None,
        };
        keys.iter().filter_map(record).collect()
    }

    /// What is held under a key, so that a commit can expect it. `None` of what is not held whole: history, user metadata, and
    /// objects that are not sound.
    pub(super) fn held(&self, key: &Key) -> Option<Option<Record>> {
        match key {
            Key::Object { kind, project, name } => match self.entry(*kind, project, name) {
                Some(entry) if !entry.is_sound => None,
                entry => Some(entry.map(|entry| Record::new(key.clone(), entry.bytes.clone(), entry.updated))),
            },
            Key::Metadata { project, name } => {
                let text = self.metadata.get(project).and_then(|facts| facts.get(name));
                Some(text.map(|text| Record::new(key.clone(), text.clone(), 0)))
            }
            Key::Version { .. } | Key::UserMetadata { .. } => None,
        }
    }

    /// The facts about a project. When they were written is not known here.
    pub(crate) fn metadata_of(&self, project: &str) -> Vec<Record> {
        let facts = self.metadata.get(project).into_iter().flatten();
        facts.map(|(name, text)| Record::new(Key::metadata(project, name), text.clone(), 0)).collect()
    }

    /// Takes in what was read from the storage.
    pub(super) fn take_in(&mut self, record: Record, is_sound: bool) {
        match record.key {
            Key::Object { kind, project, name } => {
                self.put(kind, project, name, record.value, record.updated, is_sound);
            }
            key => self.apply([Write::Put(Record { key, ..record })]),
        }
    }

    /// What is held under a key, sound or not; nothing of history and user metadata.
    pub(crate) fn stored(&self, key: &Key) -> Option<&Bytes> {
        match key {
            Key::Object { kind, project, name } => self.entry(*kind, project, name).map(|entry| &entry.bytes),
            Key::Metadata { project, name } => self.metadata.get(project)?.get(name),
            Key::Version { .. } | Key::UserMetadata { .. } => None,
        }
    }

    /// The same as it is stored, and whether it is sound. When a fact was written is not known.
    pub(super) fn record(&self, key: &Key) -> Option<(Record, bool)> {
        match key {
            Key::Object { kind, project, name } => {
                let entry = self.entry(*kind, project, name)?;
                Some((Record::new(key.clone(), entry.bytes.clone(), entry.updated), entry.is_sound))
            }
            _ => Some((Record::new(key.clone(), self.stored(key)?.clone(), 0), true)),
        }
    }

    /// The keys of all that is held of a project.
    pub(super) fn keys_of(&self, project: &str) -> Vec<Key> {
        let objects = self.objects.iter().flat_map(|(kind, by_project)| {
            let names = by_project.get(project).into_iter().flat_map(IndexMap::keys);
            names.map(|name| Key::object(*kind, project, name))
        });
        let facts = self.metadata.get(project).into_iter().flat_map(IndexMap::keys);
        objects.chain(facts.map(|name| Key::metadata(project, name))).collect()
    }

    /// The projects of which something is held.
    pub(super) fn projects(&self) -> BTreeSet<String> {
        self.objects.values().flat_map(IndexMap::keys).chain(self.metadata.keys()).cloned().collect()
    }

    /// Puts what is stored under a key, or removes it.
    pub(super) fn set(&mut self, key: Key, record: Option<Record>, is_sound: bool) {
        match (key, record) {
            (_, Some(record)) => self.take_in(record, is_sound),
            (key, None) => self.apply([Write::Delete(key)]),
        }
    }

    /// Notes that what was put last was stored by another process.
    pub(super) fn note_place_of_others(&mut self) {
        self.last_of_others = self.stored_so_far;
    }

    /// Gives an object that this process has stored first the last place, if it has been shown before what others stored earlier.
    pub(super) fn put_in_order(&mut self, key: &Key) {
        let Key::Object { kind, project, name } = key else { return };
        let Some(objects) = self.objects.get_mut(kind).and_then(|kinds| kinds.get_mut(project)) else { return };
        if !self.keeps_order || objects.get(name).is_none_or(|entry| entry.place > self.last_of_others) {
            return;
        }
        if let Some((name, mut entry)) = objects.shift_remove_entry(name) {
            self.stored_so_far += 1;
            entry.place = self.stored_so_far;
            objects.insert(name, entry);
        }
    }

    fn put(&mut self, kind: Kind, project: String, name: String, bytes: Bytes, updated: i64, is_sound: bool) {
        if kind == Kind::Permission {
            self.forget_policies(&project);
        }
        let objects = self.objects.entry(kind).or_default().entry(project).or_default();
        self.stored_so_far += 1;
        let place = objects.get(&name).map_or(self.stored_so_far, |entry| entry.place);
        objects.insert(name, Entry { bytes, updated, place, is_sound });
    }

    /// Takes in what was committed, in the order in which it was. What a registry commits is sound: it has checked it.
    pub(super) fn apply(&mut self, writes: impl IntoIterator<Item = Write>) {
        for write in writes {
            match write {
                Write::Put(Record { key: Key::Object { kind, project, name }, value, updated }) => {
                    self.put(kind, project, name, value, updated, true);
                }
                Write::Put(Record { key: Key::Metadata { project, name }, value, .. }) => {
                    self.metadata.entry(project).or_default().insert(name, value);
                }
                Write::Delete(Key::Object { kind, project, name }) => {
                    if kind == Kind::Permission {
                        self.forget_policies(&project);
                    }
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
                    self.policies.remove(&project);
                }
                // History and user metadata are always read from the storage.
                Write::Put(_) | Write::Delete(_) | Write::DeleteVersions { .. } => {}
            }
        }
    }
}
