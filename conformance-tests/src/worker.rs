//! What other OS processes run that tests start, and the lines in which it talks to the test.

use std::io::{BufRead as _, Write as _};
use std::process::exit;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use feast_registry_core::{Backend, Kind, Registry, RegistryOptions, Result};

use crate::factory::Factory;
use crate::faulty::FaultyBackend;
use crate::handle::chain;
use crate::history::Part;
use crate::sample::{applied, interval, view};

/// How long a call of a worker may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(120);

/// The environment variables that tell a worker what to do, of which suite of its program it is, and which storage to open.
pub(crate) const JOB: &str = "FEAST_REGISTRY_CONFORMANCE_JOB";
pub(crate) const SUITE: &str = "FEAST_REGISTRY_CONFORMANCE_SUITE";
pub(crate) const STORAGE: &str = "FEAST_REGISTRY_CONFORMANCE_STORAGE";

/// What every line of a worker begins with, since test runners write lines of their own; and what it ends with, so that a
/// line cut short by a kill is no line.
const BEGIN: &str = "conformance worker: ";
const END: &str = " .";

/// The project and the view that all workers share.
pub(crate) const PROJECT: &str = "shared";
pub(crate) const VIEW: &str = "view";

/// What a worker writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Load {
    /// Materialization intervals of the shared view.
    Intervals,
    /// Entities.
    Entities,
    /// Changes of the shared view's schema.
    Schemas,
    /// Intervals and entities in turn.
    Mixed,
}

impl Load {
    const ALL: [(Load, &'static str); 4] = [
        (Load::Intervals, "intervals"),
        (Load::Entities, "entities"),
        (Load::Schemas, "schemas"),
        (Load::Mixed, "mixed"),
    ];

    /// What becomes of a number that is written: for a mixed load, one of the others.
    pub(crate) fn of(self, number: usize) -> Load {
        match self {
            Load::Mixed if number.is_multiple_of(2) => Load::Entities,
            Load::Mixed => Load::Intervals,
            load => load,
        }
    }
}

/// The name that stands for a number, where the load needs one.
pub(crate) fn name_of(number: usize) -> String {
    format!("number {number}")
}

/// A job: the load, the numbers that are written, each once, and whether the worker stays afterwards, with the storage
/// open, until it is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Job {
    pub(crate) load: Load,
    pub(crate) first: usize,
    pub(crate) count: usize,
    pub(crate) stays: bool,
}

impl Job {
    pub(crate) fn to_text(self) -> String {
        let load = Load::ALL.iter().find(|(load, _)| *load == self.load).map_or("", |(_, name)| name);
        format!("{load} {} {} {}", self.first, self.count, self.stays)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let name = words.next()?;
        let load = Load::ALL.iter().find(|(_, of)| *of == name)?.0;
        let (first, count) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        Some(Self { load, first, count, stays: words.next()?.parse().ok()? })
    }
}

/// What a worker says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said {
    /// It has opened the registry and waits for the start.
    Ready,
    /// A number is written and was acknowledged; when it began and ended, in microseconds since 1970.
    Written { number: usize, began: u128, ended: u128 },
    /// An operation of a history was begun, or answered.
    Operation(String),
    /// All is written; so many commits were refused on the way.
    Done { conflicts: usize },
    /// It cannot go on.
    Failed(String),
}

impl Said {
    /// Reads what a line says; `None` for the lines of others.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let text = line.strip_prefix(BEGIN)?.strip_suffix(END)?;
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        let mut numbers = rest.split(' ').map(|number| number.parse::<u128>().ok());
        let mut next = || numbers.next().flatten();
        Some(match word {
            "ready" => Said::Ready,
            "written" => Said::Written { number: next()? as usize, began: next()?, ended: next()? },
            "operation" => Said::Operation(rest.to_owned()),
            "done" => Said::Done { conflicts: next()? as usize },
            "failed" => Said::Failed(rest.to_owned()),
            _ => return None,
        })
    }

    /// Writes the line, past whatever captures the output of tests.
    pub(crate) fn say(&self) {
        let text = match self {
            Said::Ready => "ready".to_owned(),
            Said::Written { number, began, ended } => format!("written {number} {began} {ended}"),
            Said::Operation(line) => format!("operation {line}"),
            Said::Done { conflicts } => format!("done {conflicts}"),
            Said::Failed(error) => format!("failed {}", error.replace('\n', " ")),
        };
        // The test runner may have left a line unfinished. One call, so that the line is written whole or not at all.
        let line = format!("\n{BEGIN}{text}{END}\n");
        let mut stdout = std::io::stdout().lock();
        if stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush()).is_err() {
            // Whoever listened is gone.
            exit(3);
        }
    }
}

/// The name of the suite whose worker this process is, if a test has started it as one.
pub(crate) fn suite_of_worker() -> Option<String> {
    std::env::var_os(JOB)?;
    Some(std::env::var(SUITE).unwrap_or_default())
}

/// What a worker process does: it opens the storage, says so, waits for the start, writes, and ends the process.
///
/// Called in a process that no test has started as a worker, it does nothing and returns. A program whose `main` is
/// [`run`](crate::run) does this by itself; it is for programs that [`Factory::worker`] names, which call it first. It takes
/// its orders from environment variables and its standard input, and answers on its standard output.
pub fn worker(factory: impl Factory) {
    if suite_of_worker().is_some() {
        work(&factory);
    }
}

/// Ends a worker that cannot go on.
pub(crate) fn fail(error: String, status: i32) -> ! {
    Said::Failed(error).say();
    exit(status);
}

/// Does the job of this process, and ends it.
pub(crate) fn work(factory: &dyn Factory) -> ! {
    let text = std::env::var(JOB).unwrap_or_default();
    let address = std::env::var(STORAGE).unwrap_or_default();
    if let Some(part) = Part::parse(&text) {
        let start = listen();
        end(crate::run::runtime().block_on(async move {
            let started = move || {
                if start.recv().is_err() {
                    exit(3)
                }
            };
            part.play(factory.open_at(&address).await?, started).await.map(|()| 0)
        }));
    }
    let Some(job) = Job::parse(&text) else { fail(format!("`{text}` is no job"), 2) };
    let start = listen();
    let outcome = crate::run::runtime().block_on(async move {
        let counted = Arc::new(FaultyBackend::new(factory.open_at(&address).await?));
        let backend = Arc::clone(&counted) as Arc<dyn Backend>;
        // What is tested is that nothing is lost, and not how soon many writers of a slow storage have all had their turn.
        let options = RegistryOptions::default().with_call_timeout(CALL_TIMEOUT);
        let registry = Registry::open(backend, options).await?;
        Said::Ready.say();
        if start.recv().is_err() {
            exit(3);
        }
        for number in job.first..job.first.saturating_add(job.count) {
            let began = micros();
            write(&registry, job.load.of(number), number).await?;
            Said::Written { number, began, ended: micros() }.say();
        }
        if job.stays {
            // Whoever listens to the standard input ends the process when that is closed.
            std::future::pending::<()>().await;
        }
        registry.close().await?;
        Ok::<usize, feast_registry_core::Error>(counted.calls().conflicts)
    });
    end(outcome)
}

/// Says what became of the job, with the number of commits that were refused, and ends the process.
fn end(outcome: Result<usize>) -> ! {
    match outcome {
        Ok(conflicts) => {
            Said::Done { conflicts }.say();
            exit(0);
        }
        Err(error) => fail(chain(&error), 1),
    }
}

async fn write(registry: &Registry, load: Load, number: usize) -> Result<()> {
    match load {
        Load::Intervals => {
            let of = interval(number);
            registry.apply_materialization(PROJECT, VIEW, of.start_time, of.end_time).await
        }
        Load::Schemas => registry.apply(PROJECT, view(Kind::FeatureView, VIEW, &[&name_of(number)])).await.map(drop),
        Load::Entities | Load::Mixed => {
            registry.apply(PROJECT, applied(Kind::Entity, &name_of(number), name_of(number))).await.map(drop)
        }
    }
}

fn micros() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros()
}

/// Waits for the start on the standard input. When that is closed, the test is gone, and so is the worker.
fn listen() -> mpsc::Receiver<()> {
    let (started, start) = mpsc::channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            if line.is_err() || started.send(()).is_err() {
                break;
            }
        }
        exit(3);
    });
    start
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_and_lines_are_read_back_as_they_are_written() {
        for (load, _) in Load::ALL {
            for stays in [false, true] {
                let job = Job { load, first: 7, count: usize::MAX, stays };
                assert_eq!(Job::parse(&job.to_text()), Some(job));
            }
        }
        assert_eq!(
            Said::parse(&format!("{BEGIN}written 12 3 4{END}")),
            Some(Said::Written { number: 12, began: 3, ended: 4 })
        );
        assert_eq!(Said::parse(&format!("{BEGIN}done 5{END}")), Some(Said::Done { conflicts: 5 }));
        // Cut short by a kill, or somebody else's.
        for line in [format!("{BEGIN}written 12 3 4"), format!("{BEGIN}written 12 3{END}"), "running 1 test".to_owned()]
        {
            assert_eq!(Said::parse(&line), None, "{line}");
        }
    }
}
