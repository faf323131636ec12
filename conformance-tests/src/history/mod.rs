//! Histories: clients read and commit at random, all at once, and what they were answered must have one order.
//!
//! # What is checked
//!
//! Six clients on three handles do what a seed says on a storage that was empty: they compare and swap, decide about one
//! key by the value of another, write several keys at once, delete keys, histories and projects, send commits again (their
//! own and those of others), leave while a commit is done, and read keys and lists, several queries at a time. The keys are
//! few, of every sort, so that they meet. Each call is written down with its answer and with the moments at which it began
//! and ended.
//!
//! Such a history is right if it is *strictly serializable*: there is an order of its operations in which each takes place
//! at one moment between its beginning and its end, and in which a simple model (a map, and the rules of the contract, the
//! same as those of [`MemoryBackend`](feast_registry_core::MemoryBackend)) gives every answer that was given. That is what
//! [`Backend`](feast_registry_core::Backend) promises: expectations hold at one moment, for keys that are absent too; at
//! that moment everything is written; a read is of one state and sees every commit that was acknowledged before; a commit
//! happens once. A commit of which nobody knows what became (its caller left, its process was killed) may have taken place
//! at any time since it began, or never. Where there is a journal, every commit that was acknowledged is in it once; and
//! (`journal::its_order_is_one_of_the_commits`) its order is such an order of the commits, and leads to what is read while
//! nothing is written.
//!
//! # When it fails
//!
//! The failure names the promise, and shows the smallest set of operations that could be found for which there is no order:
//!
//! ```text
//! a commit is serializable: all that it expects holds at the moment at which it is written: these 2 operations have no order
//! stored before them: Entity:p:a=201
//!   client  from (µs)  to       operation                                        answer
//!   c1      0.000      310.417  commit #301 if Entity:p:a=201 do put:Entity:p:a=301  committed@7
//!   c2      12.082     402.730  commit #402 if Entity:p:a=201 do put:Entity:p:a=402  committed@8
//! ```
//!
//! `#301` is a commit, and `301` is the value of whatever it puts; `=-` expects that nothing is there, `=*` that anything
//! is. Parts of reads that the failure does not need are left out. The whole history is kept in a file.
//!
//! # Variables
//!
//! - `FEAST_REGISTRY_HISTORY_SEED=N`: every history is that of the seed N, whose operations and pauses are the same each time
//!   (what is expected is what was seen, and how threads interleave nobody can say).
//! - `FEAST_REGISTRY_HISTORY_SECONDS=N`: goes on for so many seconds, with other seeds; two by default.
//! - `FEAST_REGISTRY_HISTORY_FILE=F`: checks the history in a file again, and nothing else; the test fails either way, and says
//!   what was found.
//!
//! A run in which no calls overlapped, no commit was refused, or no read saw a commit that was under way proves nothing, and
//! fails.

mod check;
mod clients;
mod explain;
mod operation;
mod plan;
mod processes;
mod text;
mod verdict;

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

pub(crate) use processes::{Part, what_killed_processes_did_has_one_order};

use operation::{Answer, Call, History, NEVER, Operation, number_of};
use plan::{Board, Plan, everything};
use verdict::Order;

use crate::handle::Handle;
use crate::race::race;
use crate::run::Setup;

const CLIENTS: u32 = 6;
const HANDLES: usize = 3;
/// The client that reads everything while all others are idle.
const OBSERVER: u32 = 0;
/// A history has so many rounds of so many operations of each client, or fewer where the storage is slow.
const ROUNDS: u64 = 30;
const EACH: usize = 8;
const TIME_OF_ONE: Duration = Duration::from_millis(1200);

/// How long histories go on by default. What the last one takes, and its check, comes on top.
const TIME: Duration = Duration::from_secs(2);
/// How long they go on until calls have met.
const LIMIT: Duration = Duration::from_secs(60);

fn variable<T: FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}: `{text}` is no value of it")))
}

/// How long histories go on, if a run asks for more than the default.
pub(crate) fn soak() -> Option<Duration> {
    variable("FEAST_REGISTRY_HISTORY_SECONDS").map(Duration::from_secs)
}

/// What histories have shown so far.
#[derive(Debug, Default)]
struct Shown {
    histories: usize,
    operations: usize,
    /// Operations that overlapped one of another client.
    overlapping: usize,
    conflicts: usize,
    /// Commits that were sent again, and those of which nobody knows what became.
    again: usize,
    pending: usize,
    /// Reads that saw what a commit wrote that was under way.
    reads_of_commits: usize,
    checking: Duration,
}

impl Shown {
    fn add(&mut self, history: &History) {
        let mut operations: Vec<&Operation> = history.operations.iter().collect();
        operations.sort_by_key(|operation| operation.began);
        self.histories += 1;
        self.operations += operations.len();
        let mut last: (u64, u32) = (0, OBSERVER);
        let mut commits: HashMap<u32, &Operation> = HashMap::new();
        for operation in &operations {
            self.overlapping += usize::from(operation.began <= last.0 && operation.client != last.1);
            if operation.ended != NEVER {
                last = last.max((operation.ended, operation.client));
            }
            if let Call::Commit(sent, answer) = &operation.call {
                self.conflicts += usize::from(matches!(answer, Answer::Conflict(_)));
                self.pending += usize::from(*answer == Answer::Unknown);
                self.again += usize::from(commits.contains_key(&sent.number));
                commits.entry(sent.number).or_insert(operation);
            }
        }
        let is_met = |read: &Operation| {
            let Call::Read(queries) = &read.call else { return false };
            let seen = queries.iter().flat_map(|(_, found)| found);
            let numbers: HashSet<u32> = seen.filter_map(|(key, value)| number_of(key, value)).collect();
            let mut writers = numbers.iter().filter_map(|number| commits.get(number));
            writers.any(|commit| commit.client != read.client && !commit.is_before(read) && !read.is_before(commit))
        };
        self.reads_of_commits += operations.iter().filter(|operation| is_met(operation)).count();
    }

    fn is_enough(&self) -> bool {
        self.overlapping > 0 && self.conflicts > 0 && self.reads_of_commits > 0
    }
}

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} operations in {} histories: {} overlapped others, {} commits were refused, {} sent again, {} left pending, \
             {} reads saw commits that were under way; checking took {} ms",
            self.operations,
            self.histories,
            self.overlapping,
            self.conflicts,
            self.again,
            self.pending,
            self.reads_of_commits,
            self.checking.as_millis()
        )
    }
}

pub(crate) async fn all_operations_have_one_order(setup: Setup) {
    have_order(setup, Order::Any).await;
}

/// The same clients, on a storage that has a journal.
pub(crate) async fn its_order_is_one_of_the_commits(setup: Setup) {
    have_order(setup, Order::OfJournal).await;
}

async fn have_order(setup: Setup, order: Order) {
    if let Some(file) = variable::<PathBuf>("FEAST_REGISTRY_HISTORY_FILE") {
        return check_file(&file, order);
    }
    let replayed = variable::<u64>("FEAST_REGISTRY_HISTORY_SEED");
    let mut seed = replayed.unwrap_or_else(|| fastrand::u64(..1 << 32));
    let time = soak().unwrap_or(TIME);
    let (began, mut shown) = (Instant::now(), Shown::default());
    eprintln!("histories from the seed {seed} on");
    while began.elapsed() < time || !shown.is_enough() {
        assert!(
            began.elapsed() < time.max(LIMIT),
            "clients did not meet, so on this machine the test proves nothing: {shown}"
        );
        let history = record(&setup, seed).await;
        shown.add(&history);
        let checking = Instant::now();
        assert!(
            history.journal.is_some() || order == Order::Any,
            "there is no journal, so nothing is proved of its order"
        );
        check(&history, order);
        shown.checking += checking.elapsed();
        seed += u64::from(replayed.is_none());
    }
    eprintln!("{shown}");
}

/// Checks a history. The failure has everything that is known.
fn check(history: &History, order: Order) {
    let Err(fault) = verdict::check(history, order) else { return };
    let text = fault.explained();
    let seed = history.seed;
    let file = std::env::temp_dir().join(format!("feast-registry-history-{seed}-{}.txt", std::process::id()));
    let kept = match std::fs::write(&file, history.to_string()) {
        Ok(()) => format!("The whole history: FEAST_REGISTRY_HISTORY_FILE={} checks it again.", file.display()),
        Err(error) => format!("The whole history could not be written to {}: {error}.", file.display()),
    };
    panic!("{text}\n{kept}\nFEAST_REGISTRY_HISTORY_SEED={seed} does the same operations again.");
}

fn check_file(file: &Path, order: Order) {
    let text = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let history = text::parse(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    if let Err(fault) = verdict::check(&history, order) {
        panic!("{}: {}", file.display(), fault.explained());
    }
    // Passed, it would be taken for a test of the backend.
    panic!(
        "{}: its {} operations have an order. The backend was asked nothing: FEAST_REGISTRY_HISTORY_FILE is set",
        file.display(),
        history.operations.len()
    );
}

/// Lets clients do what a seed says, on a storage of their own.
async fn record(setup: &Setup, seed: u64) -> History {
    let store = setup.store().await;
    let handles = store.handles(HANDLES).await;
    let board = Board::default();
    let mut plans: Vec<Plan> =
        (1..=CLIENTS).map(|client| Plan::new(seed, client, 0, std::sync::Arc::clone(&board))).collect();
    let mut operations = Vec::new();
    let began = Instant::now();
    for round in 0..ROUNDS {
        let clients = plans.into_iter().zip(1..).map(|(mut plan, client)| {
            let handle = handle_of(&handles, client);
            async move {
                plan.begin(round);
                let done = clients::play(&mut plan, client, &handle, EACH, |_| ()).await;
                (plan, done)
            }
        });
        let (ended, _) = race(clients).await;
        let done: Vec<Vec<Operation>>;
        (plans, done) = ended.into_iter().unzip();
        operations.extend(done.into_iter().flatten());
        operations.push(clients::read(OBSERVER, &handle_of(&handles, round as u32), everything()).await);
        if began.elapsed() > TIME_OF_ONE {
            break;
        }
    }
    let journal = clients::journal(&handles[0], &operations).await;
    History { seed, keeps_order: handles[0].0.limits().keeps_order, operations, journal }
}

fn handle_of(handles: &[Handle], client: u32) -> Handle {
    handles[client as usize % handles.len()].clone()
}
