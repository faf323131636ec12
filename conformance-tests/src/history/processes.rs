//! Histories of clients in several processes, of which some are killed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use feast_registry_core::{Backend, Result};
use tokio::runtime::Handle as Runtime;

use super::operation::{History, Operation};
use super::plan::{Board, Plan, everything};
use super::{LIMIT, OBSERVER, Order, Shown, check, clients, text, variable};
use crate::handle::{Handle, patience};
use crate::process::Process;
use crate::race::joined_all;
use crate::run::Setup;
use crate::worker::Said;

/// Processes that are at work at one time, and the clients of each.
const PROCESSES: u32 = 3;
const CLIENTS: u32 = 2;
/// Times that processes are started anew, at the least.
const GENERATIONS: u64 = 6;
/// What a client does that is not killed.
const ROUNDS: u64 = 4;
const EACH: usize = 8;
/// More commits than any client makes before it is killed, or done.
const COMMITS: u32 = 1000;

/// What a worker does of a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    seed: u64,
    generation: u64,
    process: u32,
}

impl Part {
    const WORD: &str = "history";

    /// The job of a worker, as text.
    pub(crate) fn to_text(self) -> String {
        format!("{} {} {} {}", Self::WORD, self.seed, self.generation, self.process)
    }

    /// Reads the job of a worker; `None` for other jobs.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut words = text.strip_prefix(Self::WORD)?.strip_prefix(' ')?.split(' ');
        let [seed, generation, process] = [words.next()?, words.next()?, words.next()?];
        Some(Self { seed: seed.parse().ok()?, generation: generation.parse().ok()?, process: process.parse().ok()? })
    }

    /// Lets the clients of this process do what the seed says. Each commit is said before it is sent, and each operation
    /// when it is answered.
    pub(crate) async fn play(self, backend: Arc<dyn Backend>, start: impl FnOnce()) -> Result<()> {
        backend.prepare(&patience()).await?;
        Said::Ready.say();
        start();
        let board = Board::default();
        let clients = (0..CLIENTS).map(|number| {
            let client = 1 + self.process * CLIENTS + number;
            let (handle, board, runtime) = (Handle(Arc::clone(&backend)), Arc::clone(&board), Runtime::current());
            let commits = self.generation as u32 * COMMITS;
            let mut plan = Plan::new(self.seed, client, commits, board);
            tokio::task::spawn_blocking(move || {
                runtime.block_on(async move {
                    for round in 0..ROUNDS {
                        plan.begin(self.generation * ROUNDS + round);
                        clients::play(&mut plan, client, &handle, EACH, say).await;
                    }
                });
            })
        });
        joined_all(clients).await;
        Ok(())
    }
}

fn say(operation: &Operation) {
    Said::Operation(operation.to_string()).say();
}

/// What workers said that they began and did: an operation that is said twice was begun and then answered.
#[derive(Debug, Default)]
struct Gathered(HashMap<(u32, u64), Operation>);

impl Gathered {
    fn add(&mut self, said: &Said) {
        if let Said::Operation(line) = said {
            let operation = text::parse_operation(line).unwrap_or_else(|| panic!("a worker did `{line}`"));
            self.0.insert((operation.client, operation.began), operation);
        }
    }
}

/// Clients in processes, of which some are killed: what was acknowledged has an order, and what the killed had begun is
/// done whole or not at all.
pub(crate) async fn what_killed_processes_did_has_one_order(setup: Setup) {
    let seed = variable::<u64>("FEAST_REGISTRY_HISTORY_SEED").unwrap_or_else(|| fastrand::u64(..1 << 32));
    eprintln!("the history of the seed {seed}");
    let mut rng = Rng::with_seed(seed);
    let store = setup.store().await;
    let handle = store.handle().await;
    let mut gathered = Gathered::default();
    let mut shown = Shown::default();
    let began = Instant::now();
    let mut generation = 0;
    while generation < GENERATIONS || !(shown.is_enough() && shown.pending > 0) {
        assert!(began.elapsed() < LIMIT, "clients did not meet, so on this machine the test proves nothing: {shown}");
        let mut processes: Vec<Process> = (0..PROCESSES)
            .map(|process| Process::start_job(&store, &Part { seed, generation, process }.to_text()))
            .collect();
        for process in &mut processes {
            process.ready().await;
        }
        for process in &mut processes {
            process.go().await;
        }
        // One goes on to its end.
        let victims = rng.usize(1..processes.len());
        let survivors = processes.split_off(victims);
        for mut victim in processes {
            for _ in 0..rng.usize(..20) {
                match victim.next().await {
                    Some(said) => gathered.add(&said),
                    None => break,
                }
            }
            tokio::time::sleep(Duration::from_micros(rng.u64(..3000))).await;
            for said in victim.kill_or_done().await {
                gathered.add(&said);
            }
        }
        for mut survivor in survivors {
            loop {
                match survivor.next().await {
                    Some(Said::Done { .. }) => break,
                    Some(said) => gathered.add(&said),
                    None => panic!("a worker that nobody killed ended before it had done everything"),
                }
            }
        }
        // As one sees it that was there all along, and one that comes after.
        for handle in [&handle, &store.handle().await] {
            let operation = clients::read(OBSERVER, handle, everything()).await;
            gathered.0.insert((operation.client, operation.began), operation);
        }
        generation += 1;
        let mut operations: Vec<Operation> = gathered.0.values().cloned().collect();
        operations.sort_by_key(|operation| (operation.began, operation.client));
        let journal = clients::journal(&handle, &operations).await;
        let history = History { seed, keeps_order: handle.0.limits().keeps_order, operations, journal };
        check(&history, Order::Any);
        shown = Shown::default();
        shown.add(&history);
    }
    eprintln!("{generation} generations of {PROCESSES} processes: {shown}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_read_back_as_it_was_written() {
        let part = Part { seed: u64::MAX, generation: 7, process: 2 };
        assert_eq!(Part::parse(&part.to_text()), Some(part));
        assert_eq!(Part::parse("intervals 0 25"), None);
    }
}
