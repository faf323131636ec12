//! The registry in memory, for reads that may be a little old (Feast: `allow_cache`, `cache_ttl_seconds`, `cache_mode`).
//!
//! A read from it decodes nothing and, once it is filled, waits for no storage. What this process writes shows in it at
//! once, one object at a time: nothing is rebuilt. What other processes write shows a moment later, since a task of its own
//! follows the journal ([`follow`]); and what those write who keep no journal is looked for now and then ([`outside`]). Where
//! there is no journal, everything is read anew once per time to live ([`refresh`]).

mod contents;
mod follow;
mod outside;
mod recent;
mod refresh;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::backend::{Backend, Key, Query, Record, Write};
use crate::config::CacheConfig;
use crate::encoded::Object;
use crate::error::{Error, Result};
use crate::journal::Revision;
use crate::metrics::{CACHE_REFRESHES, JOURNAL_FOLLOWED, OUTSIDE_CHANGES, UNDECODABLE};
use crate::soundness::UndecodableObjects;

use self::follow::{Ahead, Followed, Position, Written};
use self::outside::Outside;
use self::recent::PageSize;

pub(crate) use self::contents::Contents;
pub(crate) use self::recent::{Following, Recent};

/// How many writes may be committed during one refresh; with more, what it has read is of no use any more.
const MOST_MEANWHILE: usize = 65_536;
/// With so many keys that were not as the contents have them, nothing of the contents is worth relying on.
const MOST_DOUBTED: usize = 1024;

#[derive(Debug, Default)]
struct State {
    /// `None` until the first refresh.
    contents: Option<Contents>,
    /// From when on a reader starts a refresh; `None` when none ever does.
    due: Option<Instant>,
    /// When the refresh began that the contents are of.
    refreshed: Option<Instant>,
    meanwhile: Meanwhile,
    /// What others write too: a commit that relied on the contents found it stored otherwise, at this moment.
    doubted: HashMap<Key, Instant>,
    /// How often everything was read anew.
    generation: u64,
    /// Up to where the journal's entries are in the contents.
    position: Position,
    /// The same, but for the keys that are still to be read.
    taken_in: Position,
    /// Whether something of the journal has not come to what is held, since its place there was lost. Everything has to be read
    /// anew, and nothing is known of who made the differences that this brings.
    has_gap: bool,
    page: PageSize,
    ahead: Ahead,
    /// Keys that are not as the journal says that they were, until they have been read from the storage.
    unexplained: HashSet<Key>,
    /// While such keys are read: those that this process has written meanwhile.
    touched: Option<HashSet<Key>>,
    /// While what is held is compared with what is stored: what has come meanwhile.
    written: Option<Written>,
}

/// What has been committed since a refresh began, which it may or may not have read.
#[derive(Debug, Default)]
enum Meanwhile {
    /// No refresh is under way.
    #[default]
    Unneeded,
    Steps(Vec<Step>),
    /// More than is worth keeping.
    TooMany,
}

/// Something that came to the contents.
#[derive(Debug)]
enum Step {
    /// This process has committed it.
    Own(Write),
    /// It came by in the journal.
    Followed(Arc<Followed>),
}

impl State {
    /// Notes what comes to the contents for a refresh that is under way.
    fn note_meanwhile(&mut self, step: Step) {
        match &mut self.meanwhile {
            Meanwhile::Steps(steps) if steps.len() >= MOST_MEANWHILE => self.meanwhile = Meanwhile::TooMany,
            Meanwhile::Steps(steps) => steps.push(step),
            Meanwhile::Unneeded | Meanwhile::TooMany => {}
        }
    }

    fn is_due(&self) -> bool {
        self.due.is_some_and(|due| Instant::now() >= due)
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Cache {
    config: CacheConfig,
    /// See [`crate::Limits::keeps_order`].
    keeps_order: bool,
    source: Arc<dyn Backend>,
    state: RwLock<State>,
    refreshes: Mutex<refresh::Refreshes>,
    /// The number of the last refresh that has ended.
    ended: watch::Sender<u64>,
    unsound: UndecodableObjects,
    /// Whoever follows the journal or looks for outside changes has it locked: one at a time.
    following: tokio::sync::Mutex<Outside>,
    recent: Recent,
    /// Where outside changes are journaled; nowhere in a registry that only reads.
    notes: Option<Arc<dyn Backend>>,
}

impl Cache {
    /// An empty cache of what `source` stores. Changes that are found to be in no journal are noted in that of `notes`.
    pub(crate) fn new(
        config: CacheConfig,
        keeps_order: bool,
        source: Arc<dyn Backend>,
        notes: Option<Arc<dyn Backend>>,
    ) -> Arc<Self> {
        // Whoever is to be alarmed by the first needs a series that begins before it.
        metrics::gauge!(UNDECODABLE.name).set(0.0);
        metrics::counter!(CACHE_REFRESHES.name, "outcome" => "error").increment(0);
        metrics::counter!(JOURNAL_FOLLOWED.name).increment(0);
        metrics::counter!(OUTSIDE_CHANGES.name).increment(0);
        Arc::new(Self {
            config,
            keeps_order,
            source,
            state: RwLock::default(),
            refreshes: Mutex::default(),
            ended: watch::Sender::new(0),
            unsound: UndecodableObjects::default(),
            following: tokio::sync::Mutex::default(),
            recent: Recent::default(),
            notes,
        })
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn state_mut(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at one state, under one lock, so that what several kinds are read from is never two states. Others wait while
    /// a reader looks, so `look` is to copy what it needs and do its work afterwards.
    ///
    /// It is given back when the cache is to be [`freshen`](Self::freshen)ed first.
    pub(crate) fn read_if_fresh<T, L: FnOnce(&Contents) -> T>(&self, look: L) -> Result<T, L> {
        let state = self.state();
        match &state.contents {
            Some(contents) if !state.is_due() => Ok(look(contents)),
            _ => Err(look),
        }
    }

    /// Looks at one state, however old it is.
    ///
    /// # Errors
    /// When the cache has never been filled.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&Contents) -> T) -> Result<T> {
        match &self.state().contents {
            Some(contents) => Ok(look(contents)),
            None => Err(Error::internal("the cache was read before it was filled")),
        }
    }

    /// Whether something can be read without waiting for the storage.
    pub(crate) fn is_warm(&self) -> bool {
        self.state().contents.is_some()
    }

    /// How long ago the refresh began that the contents are of; `None` when there was none.
    pub(crate) fn age(&self) -> Option<Duration> {
        self.state().refreshed.map(|refreshed| refreshed.elapsed())
    }

    /// Shows what this process has committed, and where the journal has it if there is one.
    pub(crate) fn apply(&self, writes: Vec<Write>, revision: Option<Revision>) {
        self.unsound.forget(&writes);
        self.state_mut().apply_own(writes, revision);
    }

    /// The newest entries of the journal, for those who watch.
    pub(crate) fn recent(&self) -> &Recent {
        &self.recent
    }

    /// The answers to queries for keys, as far as they are held, however old: for a write to decide from, whose commit then
    /// expects that they are still so. `None` if something of it is not held, or was found wrong.
    pub(crate) fn recall(&self, queries: &[Query]) -> Option<Vec<Vec<Record>>> {
        let state = self.state();
        let contents = state.contents.as_ref()?;
        if state.doubted.len() >= MOST_DOUBTED {
            return None;
        }
        let held = |key: &Key| if state.doubted.contains_key(key) { None } else { contents.held(key) };
        let answer = |query: &Query| match query {
            Query::Keys(keys) => {
                let found = keys.iter().map(held).collect::<Option<Vec<Option<Record>>>>()?;
                Some(found.into_iter().flatten().collect())
            }
            Query::Objects { .. } | Query::Versions { .. } | Query::Metadata { .. } => None,
        };
        queries.iter().map(answer).collect()
    }

    /// Recalls a key no more until all is read anew, since what was recalled was not what is stored: others write it too. Not
    /// if something else is held by now, as after a commit of this process.
    pub(crate) fn doubt(&self, key: Key, recalled: Option<&Record>) {
        let mut state = self.state_mut();
        let held = state.contents.as_ref().and_then(|contents| contents.held(&key)).flatten();
        if held.as_ref().map(|record| &record.value) == recalled.map(|record| &record.value) {
            state.doubted.insert(key, Instant::now());
        }
    }

    /// Whether an object is held as it is stored, or nothing is held at all.
    pub(crate) fn shows(&self, key: &Key, stored: Option<&Record>) -> bool {
        let state = self.state();
        let (Some(contents), Key::Object { kind, project, name }) = (&state.contents, key) else { return true };
        contents.entry(*kind, project, name).map(|entry| &entry.bytes) == stored.map(|record| &record.value)
    }

    /// Leaves out the objects whose bytes are not a message of their kind, and has them logged. What is held already need
    /// not be checked again.
    pub(crate) fn keep_sound(&self, records: &mut Vec<Record>) {
        records.retain(|record| self.check(record).is_ok());
    }

    /// Whether a record, if it is of an object, is a message of the object's kind. One that is not is logged.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt), naming kind, project and name.
    pub(crate) fn check(&self, record: &Record) -> Result<()> {
        let Key::Object { kind, project, name } = &record.key else { return Ok(()) };
        {
            let state = self.state();
            let held = state.contents.as_ref().and_then(|contents| contents.entry(*kind, project, name));
            if held.is_some_and(|held| held.is_sound && held.bytes == record.value) {
                return Ok(());
            }
        }
        self.unsound.check(&record.key, &Object { kind: *kind, bytes: record.value.clone() })
    }

    /// The objects that were found not to be messages of their kind.
    pub(crate) fn unsound(&self) -> &UndecodableObjects {
        &self.unsound
    }

    /// How many writes are noted for the refresh that is under way.
    #[cfg(test)]
    pub(crate) fn noted_meanwhile(&self) -> usize {
        match &self.state().meanwhile {
            Meanwhile::Steps(steps) => steps.len(),
            Meanwhile::Unneeded | Meanwhile::TooMany => 0,
        }
    }
}
