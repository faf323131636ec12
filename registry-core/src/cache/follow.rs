//! Following the journal: what other processes commit is taken in as their entries come, without reading everything anew.
//!
//! The contents are some state of the storage, and every entry after the position that they were read at comes by once, in
//! order. An entry says what was there before and what is since, so a key is as it was before, is as it is since already (what
//! this process has committed shows at once, and a refresh may have read it), or is something that the journal does not
//! explain: such keys are read from the storage.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Cache, Contents, Meanwhile, State, Step};
use crate::backend::{Key, Query, Record, Write};
use crate::deadline::Deadline;
use crate::encoded::Object;
use crate::error::{Error, ErrorKind, Result};
use crate::journal::{Change, Image, JournalEntry, JournalQuery, Revision, Target};
use crate::metrics::JOURNAL_FOLLOWED;

/// How many keys are read at once that the journal does not explain.
const KEYS: usize = 256;
/// How long one look at the storage may take.
const LOOK_FOR: Duration = Duration::from_secs(30);

/// Where in the journal the contents are.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Position {
    /// They do not follow it: nothing is held, or there is no journal.
    #[default]
    Unknown,
    /// All entries up to this one are in them; `None` is before the first.
    At(Option<Revision>),
}

impl Position {
    /// Whether an entry is in the contents.
    pub(super) fn is_past(self, revision: Revision) -> bool {
        matches!(self, Position::At(Some(position)) if revision <= position)
    }
}

/// What this process has committed and the journal has not come to yet. Entries before it say nothing of these keys any more.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    keys: HashMap<Key, Revision>,
    projects: HashMap<String, Revision>,
}

impl Ahead {
    pub(super) fn note(&mut self, writes: &[Write], revision: Revision) {
        for write in writes {
            match write {
                Write::Put(Record { key, .. }) | Write::Delete(key) => drop(self.keys.insert(key.clone(), revision)),
                Write::DeleteProject { project } => drop(self.projects.insert(project.clone(), revision)),
                Write::DeleteVersions { .. } => {}
            }
        }
    }

    fn is_ahead_of(&self, key: &Key, revision: Revision) -> bool {
        let is_ahead = |own: Option<&Revision>| own.is_some_and(|own| *own >= revision);
        is_ahead(self.keys.get(key)) || (!self.projects.is_empty() && is_ahead(self.projects.get(key.project())))
    }

    /// Whether this process has written it, and the journal has not come to it yet.
    pub(super) fn has(&self, key: &Key) -> bool {
        self.keys.contains_key(key) || self.projects.contains_key(key.project())
    }

    /// Whether this process has written it after what came by up to a position.
    fn is_beyond(&self, key: &Key, position: Position) -> bool {
        let mut own = self.keys.get(key).into_iter().chain(self.projects.get(key.project()));
        own.any(|own| !position.is_past(*own))
    }

    fn forget_up_to(&mut self, position: Revision) {
        self.keys.retain(|_, revision| *revision > position);
        self.projects.retain(|_, revision| *revision > position);
    }
}

/// What has come to the contents of a project, or of all, since they are being compared with the storage: by this process or in
/// the journal.
#[derive(Debug)]
pub(super) struct Written {
    project: Option<String>,
    keys: HashSet<Key>,
    /// Projects of which everything was removed.
    projects: HashSet<String>,
}

impl Written {
    pub(super) fn of(project: Option<&str>) -> Self {
        Self { project: project.map(str::to_owned), keys: HashSet::new(), projects: HashSet::new() }
    }

    pub(super) fn has(&self, key: &Key) -> bool {
        self.keys.contains(key) || self.projects.contains(key.project())
    }

    fn note_own(&mut self, write: &Write) {
        match write {
            Write::Put(Record { key, .. }) | Write::Delete(key) => self.note(key),
            Write::DeleteProject { project } => drop(self.projects.insert(project.clone())),
            Write::DeleteVersions { .. } => {}
        }
    }

    fn note_followed(&mut self, followed: &Followed) {
        for FollowedChange { change, .. } in &followed.changes {
            match &change.target {
                Target::Key(key) => self.note(key),
                Target::Project { project } => drop(self.projects.insert(project.clone())),
                Target::Versions { .. } => {}
            }
        }
    }

    fn note(&mut self, key: &Key) {
        if self.project.as_deref().is_none_or(|project| project == key.project()) {
            self.keys.insert(key.clone());
        }
    }
}

/// An entry of the journal, as far as it is of what is held.
#[derive(Debug)]
pub(super) struct Followed {
    revision: Revision,
    /// The second (since 1970, UTC) that it was made in, which is when it wrote what it wrote.
    updated: i64,
    changes: Vec<FollowedChange>,
}

#[derive(Debug)]
struct FollowedChange {
    change: Change,
    /// Whether what it puts is a message of its kind.
    is_sound: bool,
}

impl Cache {
    /// Where the contents are in the journal.
    pub(super) fn position(&self) -> Position {
        self.state().position
    }

    /// Whether what is committed comes to the contents by itself.
    pub(crate) fn follows(&self) -> bool {
        self.position() != Position::Unknown
    }

    /// Begins to follow the journal from its end, unless it is followed already: before everything is read, so that what is read
    /// has all that comes before. Nothing happens where there is no journal.
    pub(crate) async fn find_position(&self, deadline: &Deadline) -> Result<()> {
        let _alone = self.following.lock().await;
        if self.position() != Position::Unknown {
            return Ok(());
        }
        let query = JournalQuery::before(None, 1).without_images();
        let newest = self.source.journal(&query, deadline);
        match deadline.wait_for("the journal to be read", newest).await? {
            Ok(newest) => {
                let position = newest.first().map(|entry| entry.revision);
                self.state_mut().position = Position::At(position);
                self.recent.begin(position);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::Unsupported => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Takes in all entries that the journal has by now; returns whether it is followed at all. Only one task does so at a time:
    /// `following` is locked.
    ///
    /// # Errors
    /// `Compacted` when the journal no longer has where the contents are: then nothing is followed any more.
    pub(super) async fn follow(&self) -> Result<bool> {
        let deadline = Deadline::after(LOOK_FOR);
        loop {
            let Position::At(position) = self.position() else { return Ok(false) };
            let page = self.state().page.entries();
            let query = JournalQuery::after(position, page);
            let read = self.source.journal(&query, &deadline);
            let entries = match deadline.wait_for("the journal to be read", read).await? {
                Ok(entries) => entries,
                Err(error) => {
                    if error.kind() == ErrorKind::Compacted {
                        self.lose_position();
                    }
                    return Err(error);
                }
            };
            self.recent.note_look();
            let Some(last) = entries.last().map(|entry| entry.revision) else {
                self.read_unexplained(&deadline).await?;
                return Ok(true);
            };
            let is_all = entries.len() < page;
            self.state_mut().page.learn(entries.iter());
            metrics::counter!(JOURNAL_FOLLOWED.name).increment(entries.len() as u64);
            self.take_in_entries(entries, last);
            self.read_unexplained(&deadline).await?;
            {
                let mut state = self.state_mut();
                if let Position::At(_) = state.position {
                    state.position = Position::At(Some(last));
                }
                state.ahead.forget_up_to(last);
            }
            self.recent.moved_to(last);
            if is_all {
                return Ok(true);
            }
        }
    }

    /// Follows the journal as far as it is now.
    #[cfg(test)]
    pub(crate) async fn follow_once(&self) -> Result<bool> {
        let _alone = self.following.lock().await;
        self.follow().await
    }

    /// Follows the journal no more, until everything is read anew.
    pub(super) fn lose_position(&self) {
        let mut state = self.state_mut();
        state.position = Position::Unknown;
        state.taken_in = Position::Unknown;
        state.has_gap = state.contents.is_some();
        state.ahead = Ahead::default();
        state.unexplained.clear();
        drop(state);
        self.recent.end();
    }

    fn take_in_entries(&self, entries: Vec<JournalEntry>, last: Revision) {
        let is_wanted = {
            let state = self.state();
            state.contents.is_some() || matches!(state.meanwhile, Meanwhile::Steps(_))
        };
        let followed: Vec<Arc<Followed>> = if is_wanted {
            entries.iter().filter_map(|entry| self.followed(entry)).map(Arc::new).collect()
        } else {
            Vec::new()
        };
        for entry in &entries {
            self.unsound.forget_keys(entry.changes.iter().filter_map(|change| match &change.target {
                Target::Key(key) => Some(key),
                Target::Versions { .. } | Target::Project { .. } => None,
            }));
        }
        for followed in &followed {
            for FollowedChange { change, is_sound } in &followed.changes {
                if let (false, Target::Key(key), Image::Value(value)) = (is_sound, &change.target, &change.after) {
                    drop(self.check(&Record::new(key.clone(), value.clone(), followed.updated)));
                }
            }
        }
        {
            let mut state = self.state_mut();
            state.taken_in = Position::At(Some(last));
            for followed in followed {
                state.note_meanwhile(Step::Followed(Arc::clone(&followed)));
                let State { contents, ahead, unexplained, written, .. } = &mut *state;
                if let Some(written) = written {
                    written.note_followed(&followed);
                }
                if let Some(contents) = contents {
                    contents.follow(&followed, ahead, unexplained);
                }
            }
        }
        self.recent.push(entries);
    }

    /// What an entry says of what is held; nothing if it says nothing of it.
    fn followed(&self, entry: &JournalEntry) -> Option<Followed> {
        let is_held = |change: &&Change| {
            matches!(&change.target, Target::Project { .. } | Target::Key(Key::Object { .. } | Key::Metadata { .. }))
        };
        let changes = entry.changes.iter().filter(is_held).map(|change| {
            let is_sound = match (&change.target, &change.after) {
                (Target::Key(Key::Object { kind, .. }), Image::Value(value)) => {
                    crate::soundness::check(&Object::new(*kind, value.clone())).is_ok()
                }
                _ => true,
            };
            FollowedChange { change: change.clone(), is_sound }
        });
        let changes: Vec<FollowedChange> = changes.collect();
        let followed = Followed { revision: entry.revision, updated: entry.at.seconds, changes };
        (!followed.changes.is_empty()).then_some(followed)
    }

    /// Takes in what the journal has by now, and reads these keys besides: for who was told that something is stored that is not
    /// shown. That goes on in a task of its own, which is waited for so long and no longer.
    pub(crate) async fn look_at(self: &Arc<Self>, keys: Vec<Key>, wait: Duration) {
        self.state_mut().unexplained.extend(keys);
        let this = Arc::clone(self);
        let looking = tokio::spawn(async move {
            let _alone = this.following.lock().await;
            if let Err(error) = this.follow().await {
                tracing::debug!(%error, "what is shown is not up to date yet");
            }
        });
        drop(tokio::time::timeout(wait, looking).await);
    }

    /// Reads the keys from the storage that are not as the journal says that they were. What this process commits meanwhile
    /// stays, and when everything was read anew meanwhile it begins again.
    async fn read_unexplained(&self, deadline: &Deadline) -> Result<()> {
        loop {
            let (keys, generation) = {
                let mut state = self.state_mut();
                let keys: Vec<Key> = state.unexplained.iter().take(KEYS).cloned().collect();
                if keys.is_empty() {
                    return Ok(());
                }
                state.touched = Some(HashSet::new());
                (keys, state.generation)
            };
            let queries = [Query::Keys(keys.clone())];
            let read = self.source.read(&queries, deadline);
            let answers = match deadline.wait_for("the storage to be read", read).await.flatten() {
                Ok(answers) => answers,
                Err(error) => {
                    self.state_mut().touched = None;
                    return Err(error);
                }
            };
            let mut found: HashMap<Key, Record> = HashMap::new();
            for record in answers.into_iter().flatten() {
                found.insert(record.key.clone(), record);
            }
            let sound: HashSet<Key> =
                found.values().filter(|record| self.check(record).is_ok()).map(|record| record.key.clone()).collect();
            let mut state = self.state_mut();
            let touched = state.touched.take().unwrap_or_default();
            if state.generation != generation {
                continue;
            }
            for key in keys {
                state.unexplained.remove(&key);
                // A replica may lag behind what this process has written after all that came by.
                if touched.contains(&key) || state.ahead.is_beyond(&key, state.taken_in) {
                    continue;
                }
                let is_sound = sound.contains(&key);
                let record = found.remove(&key);
                if let Some(contents) = &mut state.contents {
                    contents.set(key, record, is_sound);
                }
            }
        }
    }
}

impl State {
    /// Shows what this process has committed, and where the journal has it.
    pub(super) fn apply_own(&mut self, writes: Vec<Write>, revision: Option<Revision>) {
        if let Some(written) = &mut self.written {
            writes.iter().for_each(|write| written.note_own(write));
        }
        let writes = match revision {
            Some(revision) if self.taken_in.is_past(revision) => {
                // Its entry has come by, and others may have come on top of it. Only what is still to be read is shown as far
                // as it is known, since its writer expects to see it.
                let is_open = |write: &Write| match write {
                    Write::Put(Record { key, .. }) | Write::Delete(key) => self.unexplained.contains(key),
                    Write::DeleteVersions { .. } | Write::DeleteProject { .. } => false,
                };
                writes.into_iter().filter(is_open).collect()
            }
            revision => {
                if let (Position::At(_), Some(revision)) = (self.position, revision) {
                    self.ahead.note(&writes, revision);
                }
                if let Some(touched) = &mut self.touched {
                    for write in &writes {
                        match write {
                            Write::Put(Record { key, .. }) | Write::Delete(key) => drop(touched.insert(key.clone())),
                            Write::DeleteProject { project } => {
                                let of_project = self.unexplained.iter().filter(|key| key.project() == project);
                                touched.extend(of_project.cloned());
                            }
                            Write::DeleteVersions { .. } => {}
                        }
                    }
                }
                writes
            }
        };
        for write in &writes {
            self.note_meanwhile(Step::Own(write.clone()));
        }
        if let Some(contents) = &mut self.contents {
            contents.apply(writes);
        }
    }

    /// Forgets the doubts that are older: by now the contents are what is stored.
    pub(super) fn settle_doubts(&mut self, older_than: Instant) {
        self.doubted.retain(|_, since| *since >= older_than);
    }
}

impl Contents {
    /// Takes in something that came since a refresh began.
    pub(super) fn take_in_step(&mut self, step: Step, ahead: &Ahead, unexplained: &mut HashSet<Key>) {
        match step {
            Step::Own(write) => self.apply([write]),
            Step::Followed(followed) => self.follow(&followed, ahead, unexplained),
        }
    }

    /// Takes in an entry of the journal; adds the keys that are not as it says that they were.
    pub(super) fn follow(&mut self, followed: &Followed, ahead: &Ahead, unexplained: &mut HashSet<Key>) {
        let Followed { revision, updated, changes } = followed;
        let removed = self.remove_projects(followed, ahead, unexplained);
        for FollowedChange { change: Change { target, before, after }, is_sound } in changes {
            let key = match target {
                Target::Key(key) => key,
                Target::Versions { .. } => continue,
                Target::Project { project } if removed.contains(project.as_str()) => continue,
                Target::Project { project } => {
                    // Changes of the single keys follow if the storage keeps them.
                    let is_listed: HashSet<&Key> = changes
                        .iter()
                        .filter_map(|change| match &change.change.target {
                            Target::Key(key) => Some(key),
                            Target::Versions { .. } | Target::Project { .. } => None,
                        })
                        .collect();
                    let keys = self.keys_of(project).into_iter().filter(|key| !is_listed.contains(key));
                    unexplained.extend(keys.filter(|key| !ahead.is_ahead_of(key, *revision)));
                    continue;
                }
            };
            if *after == Image::Absent && removed.contains(key.project()) {
                continue;
            }
            if ahead.is_ahead_of(key, *revision) {
                if *before == Image::Absent {
                    self.put_in_order(key);
                }
                continue;
            }
            if unexplained.contains(key) {
                continue;
            }
            let held = self.stored(key);
            match (before, after) {
                (_, Image::Absent) if held.is_none() => {}
                (_, Image::Value(value)) if held == Some(value) => {}
                (Image::Absent, Image::Value(value)) if held.is_none() => {
                    self.set(key.clone(), Some(Record::new(key.clone(), value.clone(), *updated)), *is_sound);
                    self.note_place_of_others();
                }
                (Image::Value(before), Image::Value(value)) if held == Some(before) => {
                    self.set(key.clone(), Some(Record::new(key.clone(), value.clone(), *updated)), *is_sound);
                }
                (Image::Value(before), Image::Absent) if held == Some(before) => self.set(key.clone(), None, false),
                _ => drop(unexplained.insert(key.clone())),
            }
        }
    }
}

impl Contents {
    /// Removes at once the projects of which an entry says that all went, if what is held of them is just that.
    fn remove_projects<'a>(
        &mut self,
        Followed { revision, changes, .. }: &'a Followed,
        ahead: &Ahead,
        unexplained: &HashSet<Key>,
    ) -> HashSet<&'a str> {
        let mut removed = HashSet::new();
        for FollowedChange { change, .. } in changes {
            let Target::Project { project } = &change.target else { continue };
            let went: HashMap<&Key, &Image> = changes
                .iter()
                .filter_map(|FollowedChange { change, .. }| match &change.target {
                    Target::Key(key) if change.after == Image::Absent => Some((key, &change.before)),
                    _ => None,
                })
                .collect();
            let is_just_that = self.keys_of(project).iter().all(|key| {
                let was =
                    went.get(key).and_then(|image| if let Image::Value(value) = image { Some(value) } else { None });
                was.is_some()
                    && was == self.stored(key)
                    && !ahead.is_ahead_of(key, *revision)
                    && !unexplained.contains(key)
            });
            if is_just_that {
                self.apply([Write::DeleteProject { project: project.clone() }]);
                removed.insert(project.as_str());
            }
        }
        removed
    }

    /// Takes over from what was held before what this process has written and the journal has not come to: what was read may be
    /// that of a replica, which lags behind.
    pub(super) fn keep_what_is_ahead(&mut self, before: &Contents, ahead: &Ahead) {
        let of_projects = ahead.projects.keys().flat_map(|project| {
            let both: HashSet<Key> = before.keys_of(project).into_iter().chain(self.keys_of(project)).collect();
            both.into_iter().collect::<Vec<Key>>()
        });
        let keys: HashSet<Key> = ahead.keys.keys().cloned().chain(of_projects).collect();
        for key in keys {
            if before.stored(&key) != self.stored(&key) {
                let (record, is_sound) = match before.record(&key) {
                    Some((record, is_sound)) => (Some(record), is_sound),
                    None => (None, false),
                };
                self.set(key, record, is_sound);
            }
        }
    }
}

/// Whether an error says that the journal has to be followed from a new position.
pub(super) fn is_lost(error: &Error) -> bool {
    error.kind() == ErrorKind::Compacted
}
