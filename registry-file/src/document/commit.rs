//! Checking and doing a commit in memory.

use std::sync::Arc;

use bytes::Bytes;
use feast_registry_core::config::History;
use feast_registry_core::{Change, Commit, Error, Expected, Image, Key, Kind, Object, Record, Result, Target, Write};

use super::parse::version_key;
use super::{Document, Entry, place};

impl Document {
    /// Checks the expectations and, if all hold, does the writes. Returns what that changed, or the first key that is not
    /// as expected. Each key that went with a history or a project is a change too where a whole `history` is kept.
    ///
    /// # Errors
    /// `InvalidArgument` for an object or a version that does not say the name that it is to be stored under: in a file,
    /// that is the only place where the name is. The document is then partly changed, and not to be used.
    pub(crate) fn commit(&mut self, commit: &Commit, history: History) -> Result<Result<Vec<Change>, Key>> {
        if let Some((key, _)) = commit.expectations.iter().find(|(key, expected)| !self.is_as(key, expected)) {
            return Ok(Err(key.clone()));
        }
        let mut changes = Vec::new();
        for write in &commit.writes {
            match write {
                Write::Put(record) => self.put(record, &mut changes)?,
                Write::Delete(key) => self.delete(key, &mut changes),
                Write::DeleteVersions { project, view } => {
                    let target = Target::Versions { project: project.clone(), view: view.clone() };
                    changes.push(Change::removal(target));
                    let is_of = |key: &Key| matches!(key, Key::Version { project: p, view: v, .. } if p == project && v == view);
                    if history == History::Full {
                        changes.extend(removals(self.versions.iter(), is_of));
                    }
                    self.delete_versions(is_of);
                }
                Write::DeleteProject { project } => {
                    changes.push(Change::removal(Target::Project { project: project.clone() }));
                    if history == History::Full {
                        let all = self.objects.iter().flat_map(|objects| objects.iter()).chain(self.versions.iter());
                        let all = all.chain(self.user_metadata.iter()).chain(self.facts.iter());
                        changes.extend(removals(all, |key| key.project() == project));
                    }
                    self.delete_project(project);
                }
            }
        }
        changes.extend(commit.observed.iter().cloned());
        Ok(Ok(changes))
    }

    fn is_as(&self, key: &Key, expected: &Expected) -> bool {
        match (self.get(key), expected) {
            (None, Expected::Absent) | (Some(_), Expected::Present) => true,
            (Some(entry), Expected::Value(value)) => entry.value == value,
            _ => false,
        }
    }

    fn put(&mut self, record: &Record, changes: &mut Vec<Change>) -> Result<()> {
        let Record { key, value, updated, .. } = record;
        check_key(key, value)?;
        if let Key::UserMetadata { kind, project, view } = key
            && !self.of_kind(*kind).contains_key(&Key::object(*kind, project, view))
        {
            return Ok(());
        }
        changes.push(Change::of_key(key.clone(), self.image(key), Image::Value(value.clone())));
        let entry = Entry::new(key, value.clone(), *updated);
        self.loose += value.len();
        match key {
            Key::Object { kind, .. } => {
                if *kind == Kind::Infra {
                    self.infra = Some(value.clone());
                }
                replace(Arc::make_mut(&mut self.objects[place(*kind)]).entry(Arc::new(key.clone())), entry);
            }
            Key::UserMetadata { .. } => {
                Arc::make_mut(&mut self.user_metadata).insert(Arc::new(key.clone()), entry);
            }
            Key::Version { .. } => drop(Arc::make_mut(&mut self.versions).insert(Arc::new(key.clone()), entry)),
            Key::Metadata { .. } => drop(Arc::make_mut(&mut self.facts).insert(Arc::new(key.clone()), entry)),
        }
        Ok(())
    }

    /// What is there before a change.
    fn image(&self, key: &Key) -> Image {
        self.get(key).map(|entry| entry.value.clone()).into()
    }

    fn delete(&mut self, key: &Key, changes: &mut Vec<Change>) {
        if self.get(key).is_none() {
            return;
        }
        changes.push(Change::of_key(key.clone(), self.image(key), Image::Absent));
        match key {
            Key::Object { kind, project, name } => {
                Arc::make_mut(&mut self.objects[place(*kind)]).shift_remove(key);
                if *kind == Kind::Infra {
                    self.choose_infra();
                }
                let attached = Key::UserMetadata { kind: *kind, project: project.clone(), view: name.clone() };
                if self.user_metadata.contains_key(&attached) {
                    changes.push(Change::of_key(attached.clone(), self.image(&attached), Image::Absent));
                    Arc::make_mut(&mut self.user_metadata).remove(&attached);
                }
            }
            Key::UserMetadata { .. } => drop(Arc::make_mut(&mut self.user_metadata).remove(key)),
            Key::Version { .. } => drop(Arc::make_mut(&mut self.versions).remove(key)),
            Key::Metadata { project, .. } => {
                Arc::make_mut(&mut self.facts).remove(key);
                if super::of_uuid(key).is_some() {
                    Arc::make_mut(&mut self.unknown_metadata).remove(project);
                }
            }
        }
    }

    /// Returns whether there were any.
    fn delete_versions(&mut self, is_of: impl Fn(&Key) -> bool) -> bool {
        let is_there = self.versions.keys().any(|key| is_of(key));
        if is_there {
            Arc::make_mut(&mut self.versions).retain(|key, _| !is_of(key));
        }
        is_there
    }

    fn delete_project(&mut self, project: &str) {
        let is_of = |key: &Key| key.project() == project;
        let mut has_changed = self.delete_versions(is_of);
        for objects in &mut self.objects {
            if objects.keys().any(|key| is_of(key)) {
                Arc::make_mut(objects).retain(|key, _| !is_of(key));
                has_changed = true;
            }
        }
        for sorted in [&mut self.user_metadata, &mut self.facts] {
            if sorted.keys().any(|key| is_of(key)) {
                Arc::make_mut(sorted).retain(|key, _| !is_of(key));
                has_changed = true;
            }
        }
        if has_changed {
            Arc::make_mut(&mut self.unknown_metadata).remove(project);
            self.choose_infra();
        }
    }

    /// The message's one infrastructure is that of the last project that still has one.
    fn choose_infra(&mut self) {
        let of_projects = self.of_kind(Kind::Infra);
        if of_projects.values().all(|entry| Some(&entry.value) != self.infra.as_ref()) {
            self.infra = of_projects.values().next_back().map(|entry| entry.value.clone());
        }
    }
}

/// The changes that a removal of the keys of which `is_of` holds is.
fn removals<'a>(
    all: impl Iterator<Item = (&'a Arc<Key>, &'a Entry)>,
    is_of: impl Fn(&Key) -> bool,
) -> impl Iterator<Item = Change> {
    let taken = all.filter(move |(key, _)| is_of(key));
    taken.map(|(key, entry)| Change::of_key(Key::clone(key), Image::Value(entry.value.clone()), Image::Absent))
}

/// An object keeps its place in the order.
fn replace(place: indexmap::map::Entry<'_, Arc<Key>, Entry>, entry: Entry) {
    match place {
        indexmap::map::Entry::Occupied(mut occupied) => drop(occupied.insert(entry)),
        indexmap::map::Entry::Vacant(vacant) => drop(vacant.insert(entry)),
    }
}

fn check_key(key: &Key, value: &Bytes) -> Result<()> {
    let is_said = match key {
        Key::Object { kind: Kind::Infra, name, .. } => name == feast_registry_core::INFRA_NAME,
        Key::Object { kind, project, name } => {
            let object = Object::new(*kind, value.clone());
            let is_of = if *kind == Kind::Project { project == name } else { object.project()? == *project };
            is_of && object.name()? == *name
        }
        Key::Version { .. } => version_key(value)? == *key,
        // Of text, since the message has a string there.
        Key::Metadata { .. } => std::str::from_utf8(value).is_ok(),
        Key::UserMetadata { .. } => true,
    };
    if is_said {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "what is to be stored as {key} does not say so itself, and a file has no other place for it"
    )))
}
