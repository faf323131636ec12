//! Processes that share a storage, in a time and with a luck that are simulated: a run of the same seed is the same run.
//!
//! The storage is in memory; between it and each process, calls are delayed, fail, and lose their answers, before and after
//! they take effect. What was acknowledged, what was read, and when, is then held against the journal.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use feast_registry_core::config::{CacheConfig, CacheMode};
use feast_registry_core::{
    Backend, CallOptions, Commit, Deadline, Environment, Error, ErrorKind, Freshness, Image, JournalEntry,
    JournalQuery, Key, Kind, Limits, ListFilter, MemoryBackend, Outcome, Query, Record, Registry, RegistryOptions,
    Result, Revision, Target,
};
use prost_types::Timestamp;
use tokio::time::{Instant, sleep};

use crate::handle::{Handle, chain, or_fail, patience};
use crate::race::joined_all;
use crate::registry::contention::stored_view;
use crate::replay::assert_replayed;
use crate::sample::{AT, applied, filler, interval, view};

const PROCESSES: usize = 2;
const CLIENTS: usize = 3;
const CALLS: usize = 12;
const PROJECTS: [&str; 2] = ["kept", "deleted now and then"];
const VIEW: &str = "view";

/// A sequence of random numbers (splitmix64).
#[derive(Debug)]
struct Dice(Mutex<u64>);

impl Dice {
    fn next(&self) -> u64 {
        let mut state = locked(&self.0);
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut number = *state;
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        number ^ (number >> 31)
    }

    fn below(&self, end: u64) -> u64 {
        self.next() % end
    }

    /// Mostly milliseconds, now and then more than anybody waits.
    fn delay(&self) -> Duration {
        let most = [5, 100, 3_000, 60_000][(self.below(10) as usize).saturating_sub(6)];
        Duration::from_millis(1 + self.below(most))
    }
}

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The time and the luck of a run.
#[derive(Debug)]
struct Simulated {
    dice: Dice,
    began: Instant,
    /// When each commit took place.
    placed: Mutex<BTreeMap<Revision, Instant>>,
}

impl Environment for Simulated {
    fn now(&self) -> Timestamp {
        let elapsed = self.began.elapsed();
        Timestamp { seconds: AT + elapsed.as_secs() as i64, nanos: (elapsed.subsec_micros() * 1000) as i32 }
    }

    fn random(&self) -> u128 {
        u128::from(self.dice.next()) << 64 | u128::from(self.dice.next())
    }
}

/// The way from one process to the storage.
#[derive(Debug)]
struct Unreliable {
    storage: Arc<MemoryBackend>,
    world: Arc<Simulated>,
}

impl Unreliable {
    async fn late(&self, deadline: &Deadline) -> Result<()> {
        deadline.wait_for("a slow storage", sleep(self.world.dice.delay())).await
    }

    /// What a call may meet that has no effect.
    async fn unaffected(&self, deadline: &Deadline) -> Result<()> {
        match self.world.dice.below(10) {
            0..=6 => Ok(()),
            7 => Err(Error::new(ErrorKind::Unavailable, "simulated: the storage does not answer")),
            _ => self.late(deadline).await,
        }
    }
}

/// Does a commit at this very moment, and notes it.
async fn place(storage: &MemoryBackend, world: &Simulated, commit: Commit) -> Result<Outcome> {
    let outcome = storage.commit(commit, &patience()).await?;
    if let Outcome::Committed { revision: Some(revision) } = &outcome {
        locked(&world.placed).entry(*revision).or_insert_with(Instant::now);
    }
    Ok(outcome)
}

fn unknown() -> Error {
    Error::new(ErrorKind::UnknownOutcome, "simulated: the answer is lost")
}

#[async_trait]
impl Backend for Unreliable {
    fn location(&self) -> String {
        "simulated".to_owned()
    }

    fn limits(&self) -> Limits {
        self.storage.limits()
    }

    async fn prepare(&self, deadline: &Deadline) -> Result<()> {
        self.storage.prepare(deadline).await
    }

    async fn read(&self, queries: &[Query], deadline: &Deadline) -> Result<Vec<Vec<Record>>> {
        self.unaffected(deadline).await?;
        let answers = self.storage.read(queries, deadline).await?;
        if self.world.dice.below(4) == 0 {
            self.late(deadline).await?;
        }
        Ok(answers)
    }

    async fn commit(&self, commit: Commit, deadline: &Deadline) -> Result<Outcome> {
        self.unaffected(deadline).await?;
        deadline.check("a simulated storage")?;
        match self.world.dice.below(20) {
            0 => match commit.expectations.first() {
                Some((key, _)) => Ok(Outcome::Conflict(key.clone())),
                None => place(&self.storage, &self.world, commit).await,
            },
            1..=3 => {
                let outcome = place(&self.storage, &self.world, commit).await?;
                self.late(deadline).await.map_err(|_| unknown())?;
                Ok(outcome)
            }
            4 => {
                place(&self.storage, &self.world, commit).await?;
                Err(unknown())
            }
            5 => Err(unknown()),
            6 => {
                let (storage, world) = (Arc::clone(&self.storage), Arc::clone(&self.world));
                let delay = world.dice.delay();
                tokio::spawn(async move {
                    sleep(delay).await;
                    place(&storage, &world, commit).await
                });
                Err(unknown())
            }
            _ => place(&self.storage, &self.world, commit).await,
        }
    }

    async fn journal(&self, query: &JournalQuery, deadline: &Deadline) -> Result<Vec<JournalEntry>> {
        self.unaffected(deadline).await?;
        self.storage.journal(query, deadline).await
    }

    async fn remove_if_empty(&self, _: &Deadline) -> Result<bool> {
        Ok(false)
    }
}

/// What a caller was told of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answered {
    Done(Option<Revision>),
    NotDone,
    Nothing,
}

/// Something that a client did or saw.
#[derive(Debug)]
struct Event {
    process: usize,
    began: Instant,
    ended: Instant,
    what: What,
}

#[derive(Debug)]
enum What {
    Applied {
        key: Key,
        note: String,
        told: Answered,
    },
    Materialized {
        number: usize,
        told: Answered,
    },
    /// What a cached read found, and since when the cache had not been read anew.
    Cached {
        key: Key,
        note: Option<String>,
        read: Instant,
    },
    /// The entities of all projects, all from the storage.
    Listed(BTreeMap<Key, String>),
}

fn note_of(message: &[u8]) -> String {
    String::from_utf8_lossy(&filler(message)).into_owned()
}

fn told<T>(outcome: Option<Result<T>>, revision: impl Fn(&T) -> Option<Revision>) -> Answered {
    match outcome {
        None => Answered::Nothing,
        Some(Ok(value)) => Answered::Done(revision(&value)),
        Some(Err(error)) if error.is_outcome_unknown() => Answered::Nothing,
        Some(Err(error)) if error.is_retryable() => Answered::NotDone,
        Some(Err(error)) => panic!("a write failed with what was not simulated: {}", chain(&error)),
    }
}

/// The value of a call, or nothing if its caller leaves before.
async fn unless_left<T>(world: &Simulated, call: impl Future<Output = T>) -> Option<T> {
    let stays = if world.dice.below(6) == 0 { world.dice.delay() } else { Duration::from_secs(3600) };
    tokio::time::timeout(stays, call).await.ok()
}

/// One call of a client.
async fn call(world: &Simulated, registry: &Registry, number: usize) -> Option<What> {
    let timeout = [50, 1_000, 30_000][world.dice.below(3) as usize];
    let registry = registry.with_call(CallOptions::new().with_timeout(Duration::from_millis(timeout)));
    let project = PROJECTS[world.dice.below(2) as usize];
    let name = format!("entity {}", world.dice.below(3));
    let key = Key::object(Kind::Entity, project, &name);
    match world.dice.below(12) {
        0..=3 => {
            let note = format!("note {number}");
            let apply = registry.apply(project, applied(Kind::Entity, &name, &note));
            let told = told(unless_left(world, apply).await, |edited| edited.revision);
            Some(What::Applied { key, note, told })
        }
        4 | 5 => {
            let of = interval(number);
            let call = registry.apply_materialization(PROJECTS[0], VIEW, of.start_time, of.end_time);
            Some(What::Materialized { number, told: told(unless_left(world, call).await, |_| None) })
        }
        6 => {
            // Whether it was there is not known, and what became of it is seen by the others.
            let _ = unless_left(world, registry.delete(Kind::Entity, project, &name)).await;
            None
        }
        7 if world.dice.below(3) == 0 => {
            let _ = unless_left(world, registry.delete_project(PROJECTS[1])).await;
            None
        }
        7 | 8 => {
            let filter = ListFilter::default();
            let list = registry.list(Kind::Entity, None, &filter, Freshness::Stored);
            let objects = unless_left(world, list).await?.ok()?;
            let projects = objects.iter().map(|object| or_fail("a project", object.project()));
            let names = objects.iter().map(|object| or_fail("a name", object.name()));
            let keys = projects.zip(names).map(|(project, name)| Key::object(Kind::Entity, project, name));
            Some(What::Listed(keys.zip(objects.iter().map(|object| note_of(&object.bytes))).collect()))
        }
        _ => {
            let refreshed = || registry.cache_age().and_then(|age| Instant::now().checked_sub(age));
            let before = refreshed();
            let get = registry.get(Kind::Entity, project, &name, Freshness::Cached);
            let note = match unless_left(world, get).await? {
                Ok(object) => Some(note_of(&object.bytes)),
                Err(error) if matches!(error.kind(), ErrorKind::NotFound(_)) => None,
                Err(_) => return None,
            };
            // Who finds a cold cache shares the read that fills it, which may have begun before.
            let read = before.or_else(refreshed).expect("a cache that answers was filled");
            Some(What::Cached { key, note, read })
        }
    }
}

/// The entities after each commit, and when that was.
struct History(Vec<(Instant, BTreeMap<Key, String>)>);

impl History {
    fn of(began: Instant, journal: &[JournalEntry], placed: &BTreeMap<Revision, Instant>) -> Self {
        let mut states = vec![(began, BTreeMap::new())];
        for entry in journal {
            let mut state = states.last().map(|(_, state)| state.clone()).unwrap_or_default();
            for change in &entry.changes {
                let Target::Key(key @ Key::Object { kind: Kind::Entity, .. }) = &change.target else { continue };
                match &change.after {
                    Image::Value(value) => state.insert(key.clone(), note_of(value)),
                    _ => state.remove(key),
                };
            }
            states.push((placed[&entry.revision], state));
        }
        Self(states)
    }

    /// Whether a state of which something holds was the last at some moment from one to another.
    fn held(&self, from: Instant, to: Instant, holds: impl Fn(&BTreeMap<Key, String>) -> bool) -> bool {
        self.0.iter().enumerate().any(|(index, (since, state))| {
            let until = self.0.get(index + 1).map_or(to, |(until, _)| *until);
            *since <= to && until >= from && holds(state)
        })
    }
}

/// One run. It wants a runtime of one thread whose clock is paused; the same seed is the same run.
///
/// # Panics
/// When what was acknowledged or read does not fit the journal.
pub async fn simulate(seed: u64) {
    let (dice, placed) = (Dice(Mutex::new(seed)), Mutex::default());
    let world = Arc::new(Simulated { dice, began: Instant::now(), placed });
    let storage = Arc::new(MemoryBackend::new());
    let mut registries = Vec::new();
    // Made while nothing goes wrong yet.
    let options = RegistryOptions::default().with_environment(Arc::clone(&world) as Arc<dyn Environment>);
    let reliable = Registry::open(Arc::clone(&storage) as Arc<dyn Backend>, options).await;
    or_fail("an apply", or_fail("a registry", reliable).apply(PROJECTS[0], view(Kind::FeatureView, VIEW, &[])).await);
    let made = or_fail("the journal", storage.journal(&JournalQuery::after(None, usize::MAX), &patience()).await);
    locked(&world.placed).extend(made.iter().map(|entry| (entry.revision, world.began)));
    for _ in 0..PROCESSES {
        let cache = CacheConfig::new(CacheMode::Sync, Duration::from_secs(1 + world.dice.below(10)));
        let environment = Arc::clone(&world) as Arc<dyn Environment>;
        let options = RegistryOptions::default().with_cache(cache).with_environment(environment);
        let backend = Arc::new(Unreliable { storage: Arc::clone(&storage), world: Arc::clone(&world) });
        // Opening looks for what older versions left, which may fail here like any call.
        let registry = loop {
            match Registry::open(Arc::clone(&backend) as Arc<dyn Backend>, options.clone()).await {
                Ok(registry) => break registry,
                Err(error) => assert!(error.is_retryable() || error.is_outcome_unknown(), "{}", chain(&error)),
            }
        };
        registries.push(registry);
    }
    let clients = (0..PROCESSES * CLIENTS).map(|client| {
        let (world, registry, process) =
            (Arc::clone(&world), registries[client % PROCESSES].clone(), client % PROCESSES);
        tokio::spawn(async move {
            let mut events = Vec::new();
            for of in 0..CALLS {
                sleep(Duration::from_millis(world.dice.below(500))).await;
                let began = Instant::now();
                let what = call(&world, &registry, client * CALLS + of).await;
                let ended = Instant::now();
                events.extend(what.map(|what| Event { process, began, ended, what }));
            }
            events
        })
    });
    let events: Vec<Event> = joined_all(clients.collect::<Vec<_>>()).await.into_iter().flatten().collect();
    // Until what is late has come.
    sleep(Duration::from_secs(600)).await;
    check(&world, &storage, &events).await;
}

async fn check(world: &Simulated, storage: &Arc<MemoryBackend>, events: &[Event]) {
    let handle = Handle(Arc::clone(storage) as Arc<dyn Backend>);
    assert_replayed("after the run", &handle).await;
    let journal = handle.whole_journal().await;
    let placed = locked(&world.placed).clone();
    let history = History::of(world.began, &journal, &placed);
    let reliable = or_fail("a registry", Registry::open(Arc::clone(&handle.0), RegistryOptions::default()).await);
    let stored = stored_view(&reliable, PROJECTS[0], VIEW).await.meta.unwrap_or_default().materialization_intervals;
    let mut acknowledged = Vec::new();
    for event in events {
        match &event.what {
            What::Applied { key, note, told } => {
                let is_it = |entry: &&JournalEntry| {
                    entry.changes.iter().any(|change| {
                        change.target == Target::Key(key.clone())
                            && matches!(&change.after, Image::Value(value) if note_of(value) == *note)
                    })
                };
                let found: Vec<Revision> = journal.iter().filter(is_it).map(|entry| entry.revision).collect();
                let is_right = match told {
                    Answered::Done(revision) => found.len() == 1 && (revision.is_none() || *revision == Some(found[0])),
                    Answered::NotDone => found.is_empty(),
                    Answered::Nothing => found.len() <= 1,
                };
                assert!(is_right, "a write was told {told:?}, and the journal has it at {found:?}: {event:?}");
                if let Answered::Done(_) = told {
                    acknowledged.push((event, key, found[0]));
                }
            }
            What::Materialized { number, told } => {
                let found = stored.iter().filter(|stored| **stored == interval(*number)).count();
                let is_right = match told {
                    Answered::Done(_) => found == 1,
                    Answered::NotDone => found == 0,
                    Answered::Nothing => found <= 1,
                };
                assert!(is_right, "an interval was told {told:?}, and is there {found} times: {event:?}");
            }
            What::Listed(entities) => {
                let is_a_state = history.held(event.began, event.ended, |state| state == entities);
                assert!(is_a_state, "a stored list fits no state between its beginning and its end: {event:?}");
            }
            What::Cached { .. } => {}
        }
    }
    for (earlier, _, first) in &acknowledged {
        let late = acknowledged.iter().find(|(later, _, second)| later.began > earlier.ended && second < first);
        assert!(
            late.is_none(),
            "{late:?} began after {earlier:?} was acknowledged, which comes after it in the journal"
        );
    }
    for event in events {
        let What::Cached { key, note, read } = &event.what else { continue };
        let is_own = |(own, of, _): &&(&Event, &Key, Revision)| {
            own.process == event.process && own.ended <= event.began && *of == key
        };
        let own = acknowledged.iter().filter(is_own).map(|(_, _, revision)| placed[revision]).max();
        let since = own.map_or(*read, |own| own.max(*read));
        let was_so = history.held(since, event.ended, |state| state.get(key) == note.as_ref());
        // What its own process wrote is laid over what was read meanwhile, which may have what another wrote on top of it:
        // until the next refresh, which begins at once, as after any commit that took long.
        let is_own_late = events.iter().any(|own| {
            own.process == event.process
                && own.ended > *read
                && own.ended <= event.ended
                && matches!(&own.what, What::Applied { key: of, note: wrote, told: Answered::Done(_) }
                    if of == key && Some(wrote) == note.as_ref())
        });
        assert!(
            was_so || is_own_late,
            "a cached read is older than its cache, or than what its own process wrote: {event:?}"
        );
    }
}
