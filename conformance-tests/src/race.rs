//! Races: several calls let go at one moment, repeated until they have truly met.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// How many calls race, where the number does not matter.
pub(crate) const RACERS: usize = 8;

/// The value of a task; its panic is the test's.
pub(crate) async fn joined<T>(task: JoinHandle<T>) -> T {
    task.await.unwrap_or_else(|error| resume_unwind(error.into_panic()))
}

/// The values of tasks, in their order.
pub(crate) async fn joined_all<T>(tasks: impl IntoIterator<Item = JoinHandle<T>>) -> Vec<T> {
    let tasks: Vec<_> = tasks.into_iter().collect();
    let mut values = Vec::with_capacity(tasks.len());
    for task in tasks {
        values.push(joined(task).await);
    }
    values
}

/// The start of a race: a moment shortly after the last racer has come, for which all of them wait without giving up their
/// processors. Calls that take a microsecond meet only if they begin within one.
struct Start {
    missing: AtomicUsize,
    moment: OnceLock<Instant>,
}

impl Start {
    const AFTER: Duration = Duration::from_micros(100);

    fn of(racers: usize) -> Self {
        Self { missing: AtomicUsize::new(racers), moment: OnceLock::new() }
    }

    fn wait(&self) {
        if self.missing.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.moment.get_or_init(|| Instant::now() + Self::AFTER);
        }
        let moment = loop {
            match self.moment.get() {
                Some(moment) => break *moment,
                // Where there are fewer processors than racers, those that are missing need this one.
                None => std::thread::yield_now(),
            }
        };
        while Instant::now() < moment {
            std::hint::spin_loop();
        }
    }
}

/// Lets all racers go at one moment, each on a thread of its own. Returns their values in their order, and whether any two
/// overlapped in time.
pub(crate) async fn race<F>(racers: impl IntoIterator<Item = F>) -> (Vec<F::Output>, bool)
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    let racers: Vec<F> = racers.into_iter().collect();
    let start = Arc::new(Start::of(racers.len()));
    let tasks: Vec<_> = racers
        .into_iter()
        .map(|racer| {
            let (start, runtime) = (Arc::clone(&start), Handle::current());
            tokio::task::spawn_blocking(move || {
                start.wait();
                let began = Instant::now();
                let value = runtime.block_on(racer);
                (value, began, Instant::now())
            })
        })
        .collect();
    let mut values = Vec::new();
    let mut times = Vec::new();
    for (value, began, ended) in joined_all(tasks).await {
        values.push(value);
        times.push((began, ended));
    }
    (values, any_overlap(times))
}

/// Whether any two of these spans of time overlap.
pub(crate) fn any_overlap<T: Ord + Copy>(mut spans: Vec<(T, T)>) -> bool {
    spans.sort_unstable();
    spans.windows(2).any(|pair| pair[1].0 < pair[0].1)
}

/// The rounds of a race: at least as many as asked for, and on until enough of them have raced.
pub(crate) struct Rounds {
    what: &'static str,
    least: usize,
    done: usize,
    raced: usize,
    began: Instant,
}

impl Rounds {
    /// So many rounds must have raced, or all of them if they are fewer.
    const ENOUGH: usize = 3;
    /// After this long, rounds that have raced are enough, however few they are.
    const PATIENCE: Duration = Duration::from_secs(20);
    /// After this long without enough of them, the race is called off.
    const LIMIT: Duration = Duration::from_secs(60);

    pub(crate) fn new(what: &'static str, least: usize) -> Self {
        Self { what, least, done: 0, raced: 0, began: Instant::now() }
    }

    /// The number of the next round, if there is to be one.
    pub(crate) fn next(&mut self) -> Option<usize> {
        let is_long_enough = self.done >= self.least || self.began.elapsed() > Self::PATIENCE;
        if is_long_enough && self.raced >= Self::ENOUGH.min(self.least) {
            return None;
        }
        assert!(
            self.began.elapsed() < Self::LIMIT,
            "{}: the race did not race: in {} rounds, calls met in {}; on this machine the test proves nothing",
            self.what,
            self.done,
            self.raced,
        );
        self.done += 1;
        Some(self.done - 1)
    }

    /// Notes whether the round's calls met.
    pub(crate) fn saw(&mut self, raced: bool) {
        self.raced += usize::from(raced);
    }
}
