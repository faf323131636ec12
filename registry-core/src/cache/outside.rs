//! Changes of those who keep no journal: Feast's own registries.
//!
//! Feast notes with each write when a project was last changed, in whole seconds. A note that the journal does not explain
//! gives such a writer away at once. One that falls into a second in which a journaled write was made as well does not, so
//! what was changed in a project since its last check, by whomever, is checked once per time to live. Who changes rows by hand
//! and makes no such note is only found out when everything is read anew.
//!
//! Only that project is then read anew. What differs from the contents, once they have all that the journal has, was made
//! outside. It is journaled, so that everybody sees it in the same place, whichever process finds it; each change once, since the
//! commit that notes it has an identity that is made of the change.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use tokio::time::Instant;

use super::follow::{Position, Written};
use super::refresh::measure_age;
use super::{Cache, Contents, State};
use crate::backend::{Backend, Commit, Expected, Key, Outcome, Query, Record};
use crate::deadline::Deadline;
use crate::encoded::Object;
use crate::error::{Error, Result};
use crate::journal::{Change, CommitId, Image, OUTSIDE, Revision, Target};
use crate::kind::Kind;
use crate::metrics::OUTSIDE_CHANGES;
use crate::rules::Meta;

/// How often the notes of when projects were changed are looked at; less often where that takes long, so that it takes no more
/// than a part of the time.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(1);
const LOOKS_PART: u32 = 50;
/// Everything is read anew so often, whatever the journal and the notes say, or once per time to live if that is longer.
const WHOLE_EVERY: Duration = Duration::from_secs(600);
/// For so long after a note was first seen, more may be written in the second that it names.
const SECOND_IS_OVER: Duration = Duration::from_millis(1200);
/// A project is not read anew before so many times as long has gone by as that took.
const REST: u32 = 10;
/// The same for projects whose notes the journal explains: nothing says that there is anything to find. Never longer than the
/// time to live.
const SWEEP_REST: u32 = 500;
/// A project that is written to without a pause is checked all the same, so often.
const SWEEP_BUSY_EVERY: Duration = Duration::from_secs(10);
/// How long a look may take.
const LOOK_FOR: Duration = Duration::from_secs(60);
/// How long what others have committed before is waited for, which the journal may hold back while others write.
const CATCH_UP_FOR: Duration = Duration::from_secs(5);
/// How long it may take to note a change, and how many are noted at once.
const NOTE_FOR: Duration = Duration::from_secs(10);
const NOTES_AT_ONCE: usize = 8;
/// How often the very same change of an object may have been made, and noted, within the time that the journal keeps.
const MOST_REPEATS: u32 = 4096;
/// How often noting a change is tried, and the pause before it is tried again.
const TRIES: u32 = 4;
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(500);
/// Doubts about keys are settled by following the journal for so long.
const DOUBT_FOR: Duration = Duration::from_secs(5);

/// What is known of writers who keep no journal.
#[derive(Debug, Default)]
pub(super) struct Outside {
    /// The [`State::generation`] that this is of.
    generation: u64,
    projects: HashMap<String, Checked>,
    looked: Option<Instant>,
    /// How long it took.
    look_took: Duration,
    /// Not before then are projects checked whose notes the journal explains.
    sweep_at: Option<Instant>,
    read_whole: Option<Instant>,
    not_before: Option<Instant>,
}

/// How a project was last checked.
#[derive(Debug)]
struct Checked {
    /// The note of when it was last changed, as last seen, and since when it says so.
    note: Option<Bytes>,
    since: Instant,
    /// The same as it was when the project was last read, and when that was.
    read_note: Option<Bytes>,
    read: Instant,
    /// It is to be checked again when the second is over that its note names.
    is_open: bool,
}

/// What a check of a project found.
#[derive(Debug, Clone, Copy)]
struct Found {
    is_any: bool,
    /// Something was written meanwhile, so that it has to be checked again.
    is_unclear: bool,
}

/// A difference between what is stored and what the journal and the contents say.
#[derive(Debug)]
pub(super) struct Difference {
    key: Key,
    before: Option<Bytes>,
    after: Option<Record>,
}

impl Cache {
    /// Brings the contents up to date: takes in what has come to the journal, and looks for what is in none. Returns whether the
    /// journal is followed at all; otherwise nothing is done.
    ///
    /// # Errors
    /// What the storage says; `Compacted` when everything has to be read anew.
    pub(super) async fn catch_up(self: &Arc<Self>) -> Result<bool> {
        let mut outside = self.following.lock().await;
        let began = Instant::now();
        if !self.follow().await? {
            return Ok(false);
        }
        let is_warm = self.is_warm() && !self.state().has_gap;
        let look_every = LOOK_EVERY.max(outside.look_took * LOOKS_PART);
        if is_warm && outside.looked.is_none_or(|looked| looked.elapsed() >= look_every) {
            outside.looked = Some(began);
            self.look_outside(&mut outside).await?;
        }
        let mut state = self.state_mut();
        if is_warm && let Some(before) = began.checked_sub(DOUBT_FOR) {
            state.settle_doubts(before);
        }
        // With what was looked for less than a second ago it is as fresh as anybody can expect.
        if is_warm {
            self.note_fresh(&mut state, began);
            measure_age(began);
        }
        Ok(true)
    }

    async fn look_outside(self: &Arc<Self>, outside: &mut Outside) -> Result<()> {
        let deadline = Deadline::after(LOOK_FOR);
        let now = Instant::now();
        self.begin_anew_if_all_was_read(outside, now);
        let whole_every = WHOLE_EVERY.max(self.config.ttl);
        if !self.config.ttl.is_zero() && outside.read_whole.is_some_and(|read| now.duration_since(read) >= whole_every)
        {
            // Another task does it, and what is known is then made anew.
            outside.read_whole = Some(now);
            self.refresh_soon();
            return Ok(());
        }
        let held_before = self.notes_held();
        let read = self.source.read(&[Query::Metadata { project: None }], &deadline);
        let facts = deadline.wait_for("the storage to be read", read).await??;
        outside.look_took = now.elapsed();
        // What the journal has by now explains what was read.
        self.follow().await?;
        let held = self.notes_held();
        let mut notes: HashMap<String, Option<Bytes>> = held.keys().map(|project| (project.clone(), None)).collect();
        for record in facts.into_iter().flatten() {
            if let Key::Metadata { project, name } = record.key
                && name == Key::LAST_UPDATED
            {
                notes.insert(project, Some(record.value));
            }
        }
        let sweeps = outside.sweep_at.is_none_or(|sweep_at| now >= sweep_at);
        outside.projects.retain(|project, _| notes.contains_key(project));
        let mut to_check = Vec::new();
        for (project, note) in notes {
            let explained = [held_before.get(&project), held.get(&project)];
            let is_explained = explained.into_iter().any(|held| held.cloned().flatten() == note)
                || self.state().ahead.has(&Key::metadata(&project, Key::LAST_UPDATED));
            let checked = outside.projects.entry(project.clone()).or_insert_with(|| Checked {
                note: None,
                since: now,
                read_note: None,
                read: now,
                is_open: false,
            });
            if checked.note != note {
                (checked.note, checked.since) = (note.clone(), now);
            }
            let is_over = now >= checked.since + SECOND_IS_OVER;
            let since_read = now.duration_since(checked.read);
            let is_to_sweep = match &note {
                // Nothing tells when it was last changed.
                None => !self.config.ttl.is_zero() && since_read >= self.config.ttl,
                Some(_) => {
                    let was_read_since = checked.read >= checked.since + SECOND_IS_OVER;
                    let is_unchecked = checked.read_note != note || !was_read_since;
                    is_unchecked && (is_over || since_read >= SWEEP_BUSY_EVERY)
                }
            };
            if !is_explained || (checked.is_open && is_over) || (sweeps && is_to_sweep) {
                to_check.push((project, note, is_explained));
            }
        }
        let is_resting = outside.not_before.is_some_and(|not_before| now < not_before);
        if to_check.is_empty() || is_resting || !self.has_all_that_is_journaled(&deadline).await? {
            return Ok(());
        }
        // What the journal held back before explains some of it.
        let held = self.notes_held();
        to_check.retain(|(project, note, was_explained)| *was_explained || held.get(project) != Some(note));
        let mut sweeping = Duration::ZERO;
        for (project, note, is_explained) in to_check {
            let began = Instant::now();
            let Some(found) = self.check_project(&project, &deadline).await? else { continue };
            let took = began.elapsed();
            outside.not_before = Some(Instant::now() + took * REST);
            if is_explained {
                sweeping += took;
            }
            if let Some(checked) = outside.projects.get_mut(&project) {
                let may_be_more = found.is_any && began < checked.since + SECOND_IS_OVER;
                (checked.read_note, checked.read, checked.is_open) = (note, began, may_be_more || found.is_unclear);
            }
        }
        if !sweeping.is_zero() {
            let rest = sweeping * SWEEP_REST;
            let longest = if self.config.ttl.is_zero() { rest } else { self.config.ttl };
            outside.sweep_at = Some(Instant::now() + rest.min(longest));
        }
        Ok(())
    }

    /// When everything was read anew, each project was checked then.
    fn begin_anew_if_all_was_read(&self, outside: &mut Outside, now: Instant) {
        let (generation, refreshed) = {
            let state = self.state();
            (state.generation, state.refreshed.unwrap_or(now))
        };
        if outside.generation == generation && outside.read_whole.is_some() {
            return;
        }
        let checked = |note: Option<Bytes>| Checked {
            read_note: note.clone(),
            note,
            since: now,
            read: refreshed,
            is_open: false,
        };
        let projects = self.notes_held().into_iter().map(|(project, note)| (project, checked(note))).collect();
        let Outside { looked, look_took, sweep_at, .. } = *outside;
        *outside =
            Outside { generation, projects, looked, look_took, sweep_at, read_whole: Some(now), not_before: None };
    }

    /// When the projects that are held were last changed, as far as the contents say.
    fn notes_held(&self) -> HashMap<String, Option<Bytes>> {
        let state = self.state();
        let Some(contents) = &state.contents else { return HashMap::new() };
        let note = |project: String| {
            let note = contents.stored(&Key::metadata(&project, Key::LAST_UPDATED)).cloned();
            (project, note)
        };
        contents.projects().into_iter().map(note).collect()
    }

    /// Whether all commits that are visible by now are in the contents. If not, the journal holds some back while others write, and
    /// what they did cannot be told from what is in no journal.
    pub(super) async fn has_all_that_is_journaled(&self, deadline: &Deadline) -> Result<bool> {
        let newest = self.source.newest_revision(deadline);
        let newest = deadline.wait_for("the journal to be read", newest).await??;
        let until = Instant::now() + CATCH_UP_FOR;
        loop {
            self.follow().await?;
            if newest.is_none_or(|newest| self.has_followed(newest)) {
                return Ok(true);
            }
            if Instant::now() >= until {
                return Ok(false);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Reads a project anew and takes in what nobody has journaled. Says nothing if that cannot be told now.
    async fn check_project(self: &Arc<Self>, project: &str, deadline: &Deadline) -> Result<Option<Found>> {
        let mut queries: Vec<Query> = Kind::ALL.iter().map(|kind| Query::objects(*kind, Some(project))).collect();
        queries.push(Query::Metadata { project: Some(project.to_owned()) });
        let generation = {
            let mut state = self.state_mut();
            state.written = Some(Written::of(Some(project)));
            state.generation
        };
        let compared = self.read_and_compare(project, &queries, generation, deadline).await;
        self.state_mut().written = None;
        let Some((differences, is_unclear)) = compared? else { return Ok(None) };
        let found = Found { is_any: !differences.is_empty(), is_unclear };
        self.note_soon(differences);
        Ok(Some(found))
    }

    async fn read_and_compare(
        &self,
        project: &str,
        queries: &[Query],
        generation: u64,
        deadline: &Deadline,
    ) -> Result<Option<(Vec<Difference>, bool)>> {
        let read = self.source.read(queries, deadline);
        let answers = deadline.wait_for("the storage to be read", read).await??;
        // All that was journaled before that read is to be in the contents.
        if !self.has_all_that_is_journaled(deadline).await? {
            return Ok(None);
        }
        let mut stored: HashMap<Key, Record> = HashMap::new();
        for record in answers.into_iter().flatten() {
            stored.insert(record.key.clone(), record);
        }
        let is_sound: HashSet<Key> =
            stored.values().filter(|record| self.check(record).is_ok()).map(|record| record.key.clone()).collect();
        let mut state = self.state_mut();
        let State { contents, written, generation: now, ahead, unexplained, .. } = &mut *state;
        let (Some(contents), Some(written)) = (contents, written) else { return Ok(None) };
        if generation != *now {
            return Ok(None);
        }
        let keys: HashSet<Key> = contents.keys_of(project).into_iter().chain(stored.keys().cloned()).collect();
        let (mut differences, mut is_unclear) = (Vec::new(), false);
        for key in keys {
            let before = contents.stored(&key).cloned();
            let after = stored.remove(&key);
            if before.as_ref() == after.as_ref().map(|record| &record.value) {
                continue;
            }
            if written.has(&key) || ahead.has(&key) || unexplained.contains(&key) {
                is_unclear = true;
                continue;
            }
            contents.set(key.clone(), after.clone(), is_sound.contains(&key));
            differences.push(Difference { key, before, after });
        }
        differences.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        Ok(Some((differences, is_unclear)))
    }

    /// How what was read anew differs from what was held before: as far as the journal has all that was read, what was made
    /// outside. Both have all that came meanwhile.
    pub(super) fn compare_with(&self, before: Option<&Contents>) -> Vec<Difference> {
        let mut state = self.state_mut();
        let written = state.written.take();
        let State { contents: Some(contents), ahead, unexplained, .. } = &*state else { return Vec::new() };
        let Some(before) = before else { return Vec::new() };
        let projects: BTreeSet<String> = before.projects().union(&contents.projects()).cloned().collect();
        let mut differences = Vec::new();
        for project in projects {
            let keys: BTreeSet<Key> = before.keys_of(&project).into_iter().chain(contents.keys_of(&project)).collect();
            for key in keys {
                let (was, is) = (before.stored(&key), contents.stored(&key));
                let is_open = ahead.has(&key) || unexplained.contains(&key);
                if was == is || is_open || written.as_ref().is_some_and(|written| written.has(&key)) {
                    continue;
                }
                let after = is.map(|value| Record::new(key.clone(), value.clone(), 0));
                differences.push(Difference { before: was.cloned(), after, key });
            }
        }
        differences
    }

    /// Has changes journaled that others have made, in a task of its own: whoever follows the journal does not wait for it. What
    /// cannot be noted is lost for the journal, which the log says, and shown in cached reads all the same. A registry that
    /// only reads notes nothing.
    pub(super) fn note_soon(&self, differences: Vec<Difference>) {
        if differences.is_empty() {
            return;
        }
        metrics::counter!(OUTSIDE_CHANGES.name).increment(differences.len() as u64);
        let mut by_project: BTreeMap<String, Vec<Difference>> = BTreeMap::new();
        for difference in differences {
            by_project.entry(difference.key.project().to_owned()).or_default().push(difference);
        }
        for (project, differences) in &by_project {
            tracing::info!(
                project,
                changes = differences.len(),
                "changes were made outside of this registry's journal"
            );
        }
        let Some(notes) = self.notes.clone() else { return };
        let mut refreshes = self.refreshes();
        if refreshes.is_closed {
            return;
        }
        let noting =
            Noting { notes, source: Arc::clone(&self.source), position: self.position(), left: AtomicUsize::new(0) };
        refreshes.notes.retain(|task| !task.is_finished());
        refreshes.notes.push(tokio::spawn(noting.note_all(by_project)));
    }

    fn has_followed(&self, revision: Revision) -> bool {
        self.position().is_past(revision)
    }
}

/// Changes on their way into the journal.
struct Noting {
    notes: Arc<dyn Backend>,
    source: Arc<dyn Backend>,
    /// How far the journal had been followed when they were found: what it has of the same change up to there was another one,
    /// which was taken back.
    position: Position,
    /// How many are not noted yet.
    left: AtomicUsize,
}

/// A task that is broken off says what is lost.
impl Drop for Noting {
    fn drop(&mut self) {
        let left = self.left.load(Ordering::Relaxed);
        if left > 0 {
            tracing::warn!(changes = left, "changes that were made outside of the journal are not noted there");
        }
    }
}

impl Noting {
    async fn note_all(self, by_project: BTreeMap<String, Vec<Difference>>) {
        self.left.store(by_project.values().map(Vec::len).sum(), Ordering::Relaxed);
        for (project, differences) in by_project {
            if is_removal(&project, &differences) {
                let count = differences.len();
                let removal = Change::removal(Target::Project { project: project.clone() });
                let removed = differences.into_iter();
                let removed =
                    removed.map(|Difference { key, before, .. }| Change::of_key(key, before.into(), Image::Absent));
                let observed = [removal].into_iter().chain(removed).collect();
                self.note(Key::project_object(&project), Expected::Absent, observed, count).await;
                continue;
            }
            let each = stream::iter(differences).for_each_concurrent(NOTES_AT_ONCE, async |difference| {
                let (key, expected, observed) = self.change_of(difference).await;
                self.note(key, expected, observed, 1).await;
            });
            each.await;
        }
    }

    /// Journals a change, if it is still so. A passing failure is none.
    async fn note(&self, key: Key, expected: Expected, observed: Vec<Change>, count: usize) {
        for attempt in 1.. {
            match self.try_note(&key, &expected, &observed).await {
                Ok(()) => {
                    self.left.fetch_sub(count, Ordering::Relaxed);
                    return;
                }
                Err(error) if attempt < TRIES && (error.is_retryable() || error.is_outcome_unknown()) => {
                    tracing::debug!(%error, %key, "a change that was made outside is noted later");
                    tokio::time::sleep(TRY_AGAIN_AFTER * attempt).await;
                }
                Err(error) => {
                    tracing::debug!(%error, %key, "a change that was made outside of the journal cannot be noted there");
                    return;
                }
            }
        }
    }

    async fn try_note(&self, key: &Key, expected: &Expected, observed: &[Change]) -> Result<()> {
        for repeat in 0..MOST_REPEATS {
            let commit = Commit::new(vec![(key.clone(), expected.clone())], Vec::new())
                .with_id(identity(observed, repeat))
                .with_origin(Some(OUTSIDE.to_owned()), None)
                .with_observed(observed.to_vec());
            match self.notes.commit(commit, &Deadline::after(NOTE_FOR)).await? {
                Outcome::Committed { revision: Some(revision) } if self.position.is_past(revision) => {}
                Outcome::Committed { .. } => return Ok(()),
                Outcome::Conflict(_) => {
                    tracing::debug!(%key, "it was changed again before its change could be journaled");
                    return Ok(());
                }
            }
        }
        Err(Error::internal(format!("{key} was changed to and fro too often to be noted")))
    }

    /// What is to be journaled of a difference, and what must still be so. With a view come the versions that were made with
    /// it, as far as its number of the current version tells them.
    async fn change_of(&self, difference: Difference) -> (Key, Expected, Vec<Change>) {
        let Difference { key, before, after } = difference;
        let expected = match &after {
            Some(record) => Expected::Value(record.value.clone()),
            None => Expected::Absent,
        };
        let mut changes = Vec::new();
        if let Key::Object { kind, project, name } = &key
            && kind.is_view()
        {
            if after.is_none() {
                changes.push(Change::removal(Target::Versions { project: project.clone(), view: name.clone() }));
            } else {
                let current = |bytes: &Bytes| Meta::current_version(&Object::new(*kind, bytes.clone()));
                let known = before.as_ref().map_or(-1, current);
                let query = Query::Versions { project: project.clone(), view: name.clone(), latest_only: false };
                let versions = self.source.read(&[query], &Deadline::after(NOTE_FOR)).await.unwrap_or_default();
                for record in versions.into_iter().flatten() {
                    if let Key::Version { number, .. } = &record.key
                        && *number > known
                    {
                        changes.push(Change::of_key(record.key, Image::Absent, Image::Value(record.value)));
                    }
                }
            }
        }
        let after = after.map(|record| record.value);
        changes.insert(0, Change::of_key(key.clone(), before.into(), after.into()));
        (key, expected, changes)
    }
}

/// Whether changes are that all of a project went.
fn is_removal(project: &str, differences: &[Difference]) -> bool {
    differences.iter().all(|difference| difference.after.is_none())
        && differences.iter().any(|difference| difference.key == Key::project_object(project))
}

/// The identity of the commit that notes a change: the same for whoever finds the change. A change that is made again, after it
/// was taken back, is another one by `repeat`.
fn identity(changes: &[Change], repeat: u32) -> CommitId {
    let mut described = repeat.to_be_bytes().to_vec();
    if let Some(Change { target, before, after }) = changes.first() {
        described.extend(format!("{target:?}").into_bytes());
        for image in [before, after] {
            let bytes: &[u8] = if let Image::Value(bytes) = image { bytes } else { &[] };
            described.push(u8::from(*image == Image::Absent));
            described.extend((bytes.len() as u64).to_be_bytes());
            described.extend(bytes);
        }
    }
    if let Some(Change { target: Target::Project { .. }, .. }) = changes.first() {
        // Of a project that was removed it is what it had that tells which removal this is.
        for change in &changes[1..] {
            described.extend(format!("{change:?}").into_bytes());
        }
    }
    CommitId::from_bytes(uuid::Uuid::new_v5(&NAMESPACE, &described).into_bytes())
}

/// Random, of these identities.
const NAMESPACE: uuid::Uuid = uuid::Uuid::from_u128(0x6b0f_5c1e_93d2_4a57_8e44_d1f7_02c9_b3aa);
