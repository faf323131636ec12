//! Readers who do not wait: reads begin and end one after the other while a commit is under way.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use feast_registry_core::{Kind, Query, Record, Write};
use tokio::task::JoinHandle;

use crate::handle::Handle;
use crate::race::joined;
use crate::run::Setup;
use crate::sample::{object, object_at};

/// A commit is made of so many writes at first, and of more until it takes long enough.
const WRITES: usize = 256;
const MOST_WRITES: usize = WRITES << 6;

/// A commit takes as long as so many reads do while nobody writes.
const READS_PER_COMMIT: u32 = 16;

/// So many reads of each reader must lie wholly within a commit.
const WITHIN: usize = 3;

/// So many commits must have been such as every reader must find them.
const ENOUGH: usize = 3;

/// Moments of a call, from one to the other.
type Span = (Instant, Instant);

/// Reads again and again, with pauses in which who waits for a lock gets it: it is not to be starved, but to hold.
struct Reader {
    what: &'static str,
    spans: Arc<Mutex<Vec<Span>>>,
    stop: Stop,
    task: JoinHandle<()>,
}

/// Ends a reader when it is dropped, also by a test that fails.
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Reader {
    const PAUSE: Duration = Duration::from_micros(200);

    /// On a thread of its own: neither does it wait for the writer's, nor the writer for it.
    fn start(what: &'static str, handle: Handle, queries: [Query; 2]) -> Self {
        let (spans, is_over) = (Arc::<Mutex<Vec<Span>>>::default(), Arc::<AtomicBool>::default());
        let runtime = tokio::runtime::Handle::current();
        let task = tokio::task::spawn_blocking({
            let (spans, is_over) = (Arc::clone(&spans), Arc::clone(&is_over));
            move || {
                while !is_over.load(Ordering::SeqCst) {
                    let began = Instant::now();
                    runtime.block_on(handle.read(&queries));
                    spans.lock().unwrap_or_else(PoisonError::into_inner).push((began, Instant::now()));
                    std::thread::sleep(Self::PAUSE);
                }
            }
        });
        Self { what, spans, stop: Stop(is_over), task }
    }

    /// The reads that have ended since this was last asked, once there are so many that began after now.
    async fn reads(&self, count: usize) -> Vec<Span> {
        let now = Instant::now();
        loop {
            {
                let mut spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
                if spans.iter().filter(|(began, _)| *began > now).count() >= count {
                    return std::mem::take(&mut *spans);
                }
            }
            assert!(!self.task.is_finished(), "a read failed");
            tokio::time::sleep(Self::PAUSE).await;
        }
    }

    async fn end(self) {
        drop(self.stop);
        joined(self.task).await;
    }
}

/// How reads lay to a commit: how many were wholly within it, and the longest part of it that one of them took.
#[derive(Debug, Clone, Copy)]
struct Met {
    within: usize,
    longest: f64,
}

impl Met {
    fn of(commit: Span, reads: &[Span]) -> Self {
        let (began, ended) = commit;
        let within = reads.iter().filter(|read| read.0 > began && read.1 < ended).count();
        let common = |read: &Span| read.1.min(ended).saturating_duration_since(read.0.max(began));
        let longest = reads.iter().map(common).max().unwrap_or_default();
        Self { within, longest: longest.as_secs_f64() / (ended - began).as_secs_f64() }
    }

    /// Of reads that wait for a writer, one takes a large part of a commit.
    fn is_free(self) -> bool {
        self.within >= WITHIN && self.longest < 0.3
    }
}

/// Commits all of it anew.
async fn commit(handle: &Handle, count: usize, round: i64) -> Span {
    let entity = |number| object_at(Kind::Entity, "p", &format!("entity {number}"), "", crate::sample::AT + round);
    let writes: Vec<Write> = (0..count).map(entity).map(Write::Put).collect();
    let began = Instant::now();
    handle.write(writes).await;
    (began, Instant::now())
}

/// While nobody wrote, a read took so long with its pause.
async fn pace(readers: &[Reader]) -> Duration {
    let mut slowest = Duration::ZERO;
    for reader in readers {
        reader.reads(2).await;
        let began = Instant::now();
        let reads = reader.reads(9).await;
        slowest = slowest.max(began.elapsed() / reads.len().max(1) as u32);
    }
    slowest
}

pub(crate) async fn a_read_does_not_wait_for_writers(setup: Setup) {
    /// A race is called off after as many commits as this, if they took as long as this.
    const COMMITS: usize = 40;
    const PATIENCE: Duration = Duration::from_secs(6);
    let store = setup.store().await;
    let (handle, other) = (store.handle().await, store.handle().await);
    let untouched: Record = object(Kind::Entity, "p", "untouched", "");
    handle.put([untouched.clone()]).await;
    commit(&handle, WRITES, 0).await;
    // What is being written is read, and what is not.
    let keys = [&object(Kind::Entity, "p", "entity 0", ""), &object(Kind::Entity, "p", "entity 255", ""), &untouched];
    let queries = [Query::Keys(keys.map(|record| record.key.clone()).into()), Query::Metadata { project: None }];
    let readers = [
        Reader::start("on the handle that commits", handle.clone(), queries.clone()),
        Reader::start("on another handle", other, queries),
    ];
    let pace = pace(&readers).await;
    let mut count = WRITES;
    let (mut free, mut best) = ([0; 2], [None::<Met>; 2]);
    let (mut commits, began) = (0, Instant::now());
    while free.iter().any(|free| *free < ENOUGH) {
        // What the last commit left to do is done by now: a file, for one, is read anew.
        for reader in &readers {
            reader.reads(2).await;
        }
        commits += 1;
        let span = commit(&handle, count, commits as i64).await;
        let mut met = Vec::new();
        for reader in &readers {
            met.push(Met::of(span, &reader.reads(2).await));
        }
        if span.1 - span.0 < pace * READS_PER_COMMIT && count < MOST_WRITES {
            count *= 2;
            continue;
        }
        for (index, met) in met.into_iter().enumerate() {
            free[index] += usize::from(met.is_free());
            best[index] =
                best[index].into_iter().chain([met]).min_by(|one, other| one.longest.total_cmp(&other.longest));
        }
        let Some(waiting) = (0..2).find(|reader| free[*reader] < ENOUGH) else { break };
        assert!(
            commits < COMMITS || began.elapsed() < PATIENCE,
            "a read waits for writers: in {commits} commits of {count} writes, reads {} went on beside {}; at best, {:?}",
            readers[waiting].what,
            free[waiting],
            best[waiting],
        );
    }
    for reader in readers {
        reader.end().await;
    }
}
