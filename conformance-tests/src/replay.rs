//! What a journal says is stored, found out by doing its changes one after the other.

use std::collections::{BTreeMap, BTreeSet};

use feast_registry_core::{Change, Image, JournalEntry, Key, Record, Revision, Target};

use crate::handle::{Everything, Handle};
use crate::shown::shown;

/// Checks that the journal of a storage, which nobody writes to meanwhile, leads to what is stored.
pub(crate) async fn assert_replayed(property: &str, handle: &Handle) {
    let journal = handle.whole_journal().await;
    let histories: BTreeSet<(&str, &str)> = journal
        .iter()
        .flat_map(|entry| &entry.changes)
        .filter_map(|change| match &change.target {
            Target::Key(Key::Version { project, view, .. }) => Some((project.as_str(), view.as_str())),
            _ => None,
        })
        .collect();
    let stored = handle.everything(&histories.into_iter().collect::<Vec<_>>()).await;
    Replay::of(&journal).assert_is(property, &stored);
}

/// The state that a journal leads to. A value is [`Image::NotKept`] where the storage does not keep what is written.
#[derive(Debug, Default)]
struct Replay {
    state: BTreeMap<Key, Image>,
    /// What a removal took that the journal has not yet named.
    removed: BTreeMap<Key, Image>,
    /// Whether a value was ever kept: then all of them are.
    keeps_values: bool,
    last: Option<Revision>,
}

impl Replay {
    /// The state after all of a journal.
    fn of(journal: &[JournalEntry]) -> Self {
        let mut replay = Self { keeps_values: keeps_values(journal), ..Self::default() };
        for entry in journal {
            replay.entry(entry);
        }
        replay
    }

    fn entry(&mut self, entry: &JournalEntry) {
        let revision = entry.revision;
        assert!(self.last < Some(revision), "revision {revision} of the journal comes after {:?}", self.last);
        self.last = Some(revision);
        for change in &entry.changes {
            self.change(revision, change);
        }
        // A storage that keeps what was there names each key that a removal took.
        let unnamed: Vec<&Key> = self.removed.keys().collect();
        assert!(
            unnamed.is_empty() || !self.keeps_values,
            "revision {revision} removes {}, and has no change of each that says what was there",
            shown(&unnamed)
        );
        self.removed.clear();
    }

    fn change(&mut self, revision: Revision, change: &Change) {
        let key = match &change.target {
            Target::Key(key) => key,
            removal => {
                let is_of = |key: &Key| match (removal, key) {
                    (Target::Project { project }, key) => key.project() == project,
                    (Target::Versions { project, view }, Key::Version { project: p, view: v, .. }) => {
                        p == project && v == view
                    }
                    _ => false,
                };
                let taken: Vec<Key> = self.state.keys().filter(|key| is_of(key)).cloned().collect();
                for key in taken {
                    let image = self.state.remove(&key).unwrap_or(Image::NotKept);
                    self.removed.insert(key, image);
                }
                return;
            }
        };
        let before = self.removed.remove(key).or_else(|| self.state.get(key).cloned()).unwrap_or(Image::Absent);
        assert!(
            agree(&before, &change.before),
            "revision {revision}: before it, {} was {}, and the journal says {}",
            shown(key),
            shown(&before),
            shown(&change.before)
        );
        match &change.after {
            Image::Absent => self.state.remove(key),
            after => self.state.insert(key.clone(), after.clone()),
        };
    }

    /// Checks that this is what is stored.
    #[track_caller]
    fn assert_is(&self, property: &str, stored: &Everything) {
        let mut wrong = String::new();
        for key in self.state.keys().chain(stored.keys().filter(|key| !self.state.contains_key(key))) {
            let journaled = self.state.get(key).cloned().unwrap_or(Image::Absent);
            let found = image_of(stored.get(key));
            if !agree(&found, &journaled) {
                let (journaled, found) = (shown(&journaled), shown(&found));
                wrong.push_str(&format!("\n- {} is {found}, and by the journal {journaled}", shown(key)));
            }
        }
        assert!(wrong.is_empty(), "{property}: the journal leads to another state:{wrong}");
    }
}

fn keeps_values(journal: &[JournalEntry]) -> bool {
    let mut images = journal.iter().flat_map(|entry| &entry.changes).flat_map(|change| [&change.before, &change.after]);
    images.any(|image| matches!(image, Image::Value(_)))
}

fn image_of(record: Option<&Record>) -> Image {
    record.map_or(Image::Absent, |record| Image::Value(record.value.clone()))
}

/// Whether two images may be of the same: of what is not kept, nothing but that it is there is known.
pub(crate) fn agree(one: &Image, other: &Image) -> bool {
    match (one, other) {
        (Image::NotKept, Image::NotKept | Image::Value(_)) | (Image::Value(_), Image::NotKept) => true,
        _ => one == other,
    }
}
