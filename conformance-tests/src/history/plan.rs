//! What clients do: a function of the seed, but for the values that they expect, which are those that they saw last.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use feast_registry_core::{Expected, Key, Kind, Page, Query, Write};

use super::operation::{Answer, Call, Operation, Sent, record};
use crate::sample::{user_metadata_key, version_key};

/// The keys of all histories: few, so that clients meet.
pub(crate) static UNIVERSE: LazyLock<Vec<Key>> = LazyLock::new(|| {
    let view = Kind::FeatureView;
    vec![
        Key::object(Kind::Entity, "p", "a"),
        Key::object(Kind::Entity, "p", "b"),
        Key::object(Kind::Entity, "q", "a"),
        Key::object(view, "p", "v"),
        user_metadata_key(view, "p", "v"),
        version_key("p", "v", 0),
        version_key("p", "v", 1),
        Key::metadata("p", Key::PROJECT_UUID),
        Key::metadata("p", Key::LAST_UPDATED),
        Key::metadata("q", Key::LAST_UPDATED),
        Key::project_object("q"),
    ]
});

/// What finds everything.
pub(crate) fn everything() -> Vec<Query> {
    vec![
        Query::Keys(UNIVERSE.clone()),
        Query::objects(Kind::Entity, None),
        Query::Versions { project: "p".to_owned(), view: "v".to_owned(), latest_only: false },
        Query::Metadata { project: None },
    ]
}

/// What a client is to do next.
#[derive(Debug)]
pub(crate) enum Step {
    Read(Vec<Query>),
    Commit(Sent, Patience),
}

/// How long a client waits for a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// As long as it takes.
    Long,
    /// So long, says its deadline.
    Deadline(Duration),
    /// So long, and then it leaves.
    Leaves(Duration),
}

/// The last commit of each client, for whoever sends it again.
pub(crate) type Board = Arc<Mutex<HashMap<u32, Sent>>>;

/// The plan of one client.
#[derive(Debug)]
pub(crate) struct Plan {
    seed: u64,
    client: u32,
    /// How many commits it has made.
    commits: u32,
    rng: Rng,
    /// What most steps of the round are about.
    hot: Vec<Key>,
    /// What the client saw last.
    known: HashMap<Key, Option<Bytes>>,
    /// What comes after the read that is to find out what to expect.
    intent: Option<Intent>,
    board: Board,
}

/// What a commit expects, and what it does.
#[derive(Debug)]
struct Intent {
    expects: Vec<Key>,
    writes: Vec<Change>,
}

#[derive(Debug)]
enum Change {
    Put(Key),
    Other(Write),
}

/// Clients have numbers of one digit or two, the last ones of their commits' numbers.
const CLIENTS: u32 = 100;

impl Plan {
    /// The plan of a client. The numbers of its commits come after those of so many that it, or one before it of its number,
    /// has made.
    pub(crate) fn new(seed: u64, client: u32, commits: u32, board: Board) -> Self {
        let rng = Rng::with_seed(seed);
        Self { seed, client, commits, rng, hot: Vec::new(), known: HashMap::new(), intent: None, board }
    }

    /// Begins a round: what is done in it does not depend on what became of the ones before.
    pub(crate) fn begin(&mut self, round: u64) {
        let mut shared = Rng::with_seed(self.seed ^ round.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        self.hot = shared.choose_multiple(UNIVERSE.iter().cloned(), 4);
        self.rng = Rng::with_seed(shared.u64(..) ^ u64::from(self.client).wrapping_mul(0xbf58_476d_1ce4_e5b9));
        self.intent = None;
    }

    /// How long the client waits before its next step; `None` if it does not.
    pub(crate) fn pause(&mut self) -> Option<Duration> {
        match self.rng.u8(..8) {
            0 => Some(Duration::from_micros(self.rng.u64(..1000))),
            1 | 2 => Some(Duration::from_micros(self.rng.u64(..20))),
            _ => None,
        }
    }

    /// What it does next.
    pub(crate) fn step(&mut self) -> Step {
        if let Some(intent) = self.intent.take() {
            return self.commit(intent, Patience::Long);
        }
        match self.rng.u8(..100) {
            0..30 => Step::Read(self.queries()),
            // Compares and swaps.
            30..48 => {
                let key = self.key();
                self.intend(vec![key.clone()], vec![Change::Put(key)])
            }
            // Decides about one key by two.
            48..64 => {
                let keys = self.keys(2);
                self.intend(keys.clone(), vec![Change::Put(keys[0].clone())])
            }
            64..76 => {
                let guards = usize::from(self.rng.bool());
                let expects = self.keys(guards);
                let count = self.rng.usize(2..5);
                let writes = self.keys(count).into_iter().map(Change::Put).collect();
                self.commit(Intent { expects, writes }, Patience::Long)
            }
            // Moves what is there from one key to another.
            76..80 => {
                let keys = self.keys(2);
                let writes = vec![Change::Other(Write::Delete(keys[0].clone())), Change::Put(keys[1].clone())];
                self.intend(keys, writes)
            }
            80..86 => {
                let key = self.key();
                let expects = if self.rng.bool() { vec![key.clone()] } else { Vec::new() };
                let write = self.deletion(key);
                self.commit(Intent { expects, writes: vec![Change::Other(write)] }, Patience::Long)
            }
            // Asks whether what it knows still holds.
            86..89 => {
                let expects = self.keys(2);
                self.commit(Intent { expects, writes: Vec::new() }, Patience::Long)
            }
            89..96 => self.again(),
            _ => {
                let (expects, writes) = (self.keys(1), self.keys(2).into_iter().map(Change::Put).collect());
                let time = Duration::from_micros(self.rng.u64(..3000));
                let patience = if self.rng.bool() { Patience::Deadline(time) } else { Patience::Leaves(time) };
                self.commit(Intent { expects, writes }, patience)
            }
        }
    }

    fn key(&mut self) -> Key {
        let keys = if self.rng.u8(..10) == 0 { &UNIVERSE } else { &self.hot };
        keys[self.rng.usize(..keys.len())].clone()
    }

    /// So many keys, each once.
    fn keys(&mut self, count: usize) -> Vec<Key> {
        let mut keys = Vec::new();
        while keys.len() < count {
            let key = self.key();
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        keys
    }

    fn queries(&mut self) -> Vec<Query> {
        let count = self.rng.usize(2..5);
        let (project, view) = ("p".to_owned(), "v".to_owned());
        let query = |plan: &mut Self| match plan.rng.u8(..10) {
            0..5 => {
                let count = plan.rng.usize(1..4);
                Query::Keys(plan.keys(count))
            }
            5 => Query::objects(Kind::Entity, None),
            6 => Query::objects(Kind::Entity, Some("p")),
            7 => Query::Objects {
                kind: Kind::Entity,
                project: None,
                updated_since: None,
                page: Some(if plan.rng.bool() { Page::first(2) } else { Page::after("p", "a", 2) }),
            },
            8 => Query::Versions { project: project.clone(), view: view.clone(), latest_only: plan.rng.bool() },
            _ => Query::Metadata { project: plan.rng.bool().then(|| "p".to_owned()) },
        };
        (0..count).map(|_| query(self)).collect()
    }

    fn deletion(&mut self, key: Key) -> Write {
        match key {
            Key::Object { kind: Kind::Project, name, .. } => Write::DeleteProject { project: name },
            Key::Version { project, view, .. } if self.rng.bool() => Write::DeleteVersions { project, view },
            key => Write::Delete(key),
        }
    }

    /// Plans a commit that expects what is there; mostly after a look.
    fn intend(&mut self, expects: Vec<Key>, writes: Vec<Change>) -> Step {
        let intent = Intent { expects, writes };
        if self.rng.u8(..4) == 0 {
            return self.commit(intent, Patience::Long);
        }
        let mut queries = vec![Query::Keys(intent.expects.clone())];
        if self.rng.bool() {
            queries.push(Query::objects(Kind::Entity, None));
        }
        self.intent = Some(intent);
        Step::Read(queries)
    }

    fn commit(&mut self, intent: Intent, patience: Patience) -> Step {
        self.commits += 1;
        let number = self.commits * CLIENTS + self.client;
        let expected = |key: Key| {
            let expected = match self.known.get(&key).cloned().flatten() {
                None => Expected::Absent,
                Some(_) if (number / CLIENTS).is_multiple_of(8) => Expected::Present,
                Some(value) => Expected::Value(value),
            };
            (key, expected)
        };
        let expectations = intent.expects.into_iter().map(expected).collect();
        let write = |change| match change {
            Change::Put(key) => Write::Put(record(&key, number)),
            Change::Other(write) => write,
        };
        let sent = Sent { number, expectations, writes: intent.writes.into_iter().map(write).collect() };
        self.board.lock().unwrap_or_else(PoisonError::into_inner).insert(self.client, sent.clone());
        Step::Commit(sent, patience)
    }

    /// Sends the last commit again: its own or another client's, who may be waiting for its answer.
    fn again(&mut self) -> Step {
        let wanted = self.rng.u32(..);
        let sent = {
            let board = self.board.lock().unwrap_or_else(PoisonError::into_inner);
            let mut clients: Vec<&u32> = board.keys().collect();
            clients.sort();
            let client = if wanted.is_multiple_of(2) {
                self.client
            } else {
                **clients.get(wanted as usize % clients.len().max(1)).unwrap_or(&&self.client)
            };
            board.get(&client).cloned()
        };
        match sent {
            Some(sent) => Step::Commit(sent, Patience::Long),
            None => Step::Read(everything()),
        }
    }

    /// Learns what is stored from an answer.
    pub(crate) fn learn(&mut self, operation: &Operation) {
        match &operation.call {
            Call::Read(queries) => {
                for (query, found) in queries {
                    if let Query::Keys(keys) = query {
                        self.known.extend(keys.iter().map(|key| (key.clone(), None)));
                    }
                    self.known.extend(found.iter().map(|(key, value)| (key.clone(), Some(value.clone()))));
                }
            }
            Call::Commit(sent, Answer::Committed(_)) => {
                for write in &sent.writes {
                    match write {
                        Write::Put(put) => drop(self.known.insert(put.key.clone(), Some(put.value.clone()))),
                        Write::Delete(key) => drop(self.known.insert(key.clone(), None)),
                        _ => {}
                    }
                }
            }
            Call::Commit(..) => {}
        }
    }
}
