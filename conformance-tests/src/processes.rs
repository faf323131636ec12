//! Several OS processes on one storage, and processes that are killed.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::Duration;

use feast_registry_core::{Freshness, Kind, ListFilter, Registry};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::handle::or_fail;
use crate::race::{Rounds, any_overlap};
use crate::registry::contention::{assert_each_once, assert_history, stored_view};
use crate::run::Setup;
use crate::sample::{applied, filler, interval, view};
use crate::store::Store;
use crate::worker::{JOB, Job, Load, PROJECT, Said, VIEW, name_of};

const PROCESSES: usize = 8;
const EACH: usize = 25;

/// The longest that a worker may be silent.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) use crate::history::what_killed_processes_did_has_one_order;

/// A worker in a process of its own. Dropping it kills it.
pub(crate) struct Process {
    child: Child,
    stdin: ChildStdin,
    said: UnboundedReceiver<Said>,
}

impl Process {
    /// Starts a worker, which opens the storage and waits.
    fn start(store: &Store, job: Job) -> Self {
        Self::start_job(store, &job.to_text())
    }

    /// Starts a worker that does the job of a text.
    pub(crate) fn start_job(store: &Store, job: &str) -> Self {
        let command = store.storage.worker().unwrap_or_else(|| {
            panic!(
                "the storage names no command that opens it in another process; a factory whose storages cannot be \
                 opened by other processes lists `processes` among its exceptions, with the reason"
            )
        });
        let mut command = Command::from(command);
        command.env(JOB, job).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?} cannot be started: {error}"));
        let stdin = child.stdin.take().expect("a pipe was asked for");
        let stdout = child.stdout.take().expect("a pipe was asked for");
        let (sender, said) = unbounded_channel();
        tokio::spawn(async move {
            let mut lines = BufReader::new(stdout).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some(said) = Said::parse(&line)
                    && sender.send(said).is_err()
                {
                    break;
                }
            }
        });
        Self { child, stdin, said }
    }

    /// What the worker says next; `None` when it has ended.
    pub(crate) async fn next(&mut self) -> Option<Said> {
        let said = tokio::time::timeout(PATIENCE, self.said.recv()).await;
        match said.unwrap_or_else(|_| panic!("a worker said nothing for {} s", PATIENCE.as_secs())) {
            Some(Said::Failed(error)) => panic!("a worker failed: {error}"),
            said => said,
        }
    }

    /// Waits until the worker has opened the storage.
    pub(crate) async fn ready(&mut self) {
        let said = self.next().await;
        assert_eq!(said, Some(Said::Ready), "a worker first says that it is ready; is its command right?");
    }

    pub(crate) async fn go(&mut self) {
        self.stdin.write_all(b"go\n").await.expect("a worker that is ready listens");
    }

    /// Kills the worker with a signal that it cannot catch, and returns what it had said until then.
    async fn kill(mut self) -> Vec<Said> {
        self.child.start_kill().expect("a worker that is at work can be killed");
        let status = self.child.wait().await.expect("a process that was killed ends");
        assert!(!status.success(), "a worker without an end was killed, and ended by itself: {status}");
        self.rest().await
    }

    /// Kills the worker, unless it is done, and returns what it had said until then.
    pub(crate) async fn kill_or_done(mut self) -> Vec<Said> {
        self.child.start_kill().expect("a worker that has not been waited for can be killed");
        self.child.wait().await.expect("a process that was killed ends");
        self.rest().await
    }

    /// What the worker says until it ends.
    async fn rest(&mut self) -> Vec<Said> {
        let mut said = Vec::new();
        while let Some(more) = self.next().await {
            said.push(more);
        }
        said
    }
}

/// Lets workers write numbers, all at once, each so many of its own; returns whether two of their writes overlapped, and how
/// many commits were refused.
async fn run(store: &Store, load: Load, first: usize) -> (bool, usize) {
    let mut processes: Vec<Process> = (0..PROCESSES)
        .map(|process| Process::start(store, Job { load, first: first + process * EACH, count: EACH }))
        .collect();
    for process in &mut processes {
        process.ready().await;
    }
    for process in &mut processes {
        process.go().await;
    }
    let mut spans = Vec::new();
    let mut conflicts = 0;
    for process in &mut processes {
        let mut written = 0;
        loop {
            match process.next().await {
                Some(Said::Written { began, ended, .. }) => {
                    written += 1;
                    spans.push((began, ended));
                }
                Some(Said::Done { conflicts: refused }) => {
                    conflicts += refused;
                    break;
                }
                said => panic!("a worker that was not told to ended early: {said:?}"),
            }
        }
        assert_eq!(written, EACH, "every write of a worker is acknowledged");
    }
    (any_overlap(spans), conflicts)
}

async fn prepared(setup: &Setup) -> (Store, Registry) {
    let store = setup.store().await;
    let registry = store.registry().await;
    or_fail("an apply", registry.apply(PROJECT, view(Kind::FeatureView, VIEW, &["first"])).await);
    (store, registry)
}

pub(crate) async fn every_interval_is_recorded_once(setup: Setup) {
    let (store, registry) = prepared(&setup).await;
    let mut rounds = Rounds::new("materializations of one view by several processes", 1);
    while let Some(round) = rounds.next() {
        let (overlapped, conflicts) = run(&store, Load::Intervals, round * PROCESSES * EACH).await;
        rounds.saw(overlapped && conflicts > 0);
        let stored = stored_view(&registry, PROJECT, VIEW).await.meta.unwrap_or_default();
        let property = format!("{PROCESSES} processes record {EACH} intervals each of one view");
        assert_each_once(&property, (round + 1) * PROCESSES * EACH, &stored.materialization_intervals);
    }
}

async fn entities(registry: &Registry) -> Vec<(String, Vec<u8>)> {
    let list = registry.list(Kind::Entity, Some(PROJECT), &ListFilter::default(), Freshness::Stored).await;
    let objects = or_fail("a list of the entities", list);
    objects.iter().map(|object| (or_fail("a name", object.name()), filler(&object.bytes))).collect()
}

pub(crate) async fn every_entity_is_there(setup: Setup) {
    let (store, registry) = prepared(&setup).await;
    let mut rounds = Rounds::new("entities applied by several processes", 1);
    while let Some(round) = rounds.next() {
        let (overlapped, _) = run(&store, Load::Entities, round * PROCESSES * EACH).await;
        rounds.saw(overlapped);
        let found: BTreeSet<_> = entities(&registry).await.into_iter().collect();
        let expected =
            (0..(round + 1) * PROCESSES * EACH).map(|number| (name_of(number), name_of(number).into_bytes()));
        let lost: Vec<_> = expected.clone().filter(|entity| !found.contains(entity)).map(|entity| entity.0).collect();
        assert!(
            lost.is_empty(),
            "{PROCESSES} processes apply {EACH} entities each; acknowledged and lost are {lost:?}"
        );
        assert_eq!(found.len(), expected.count(), "{PROCESSES} processes apply {EACH} entities each, and no others");
    }
}

pub(crate) async fn versions_have_no_holes(setup: Setup) {
    let (store, registry) = prepared(&setup).await;
    let mut rounds = Rounds::new("changes of one view's schema by several processes", 1);
    while let Some(round) = rounds.next() {
        let (overlapped, conflicts) = run(&store, Load::Schemas, round * PROCESSES * EACH).await;
        rounds.saw(overlapped && conflicts > 0);
        let features = (0..(round + 1) * PROCESSES * EACH).map(name_of);
        let property = format!("{PROCESSES} processes change one view's schema {EACH} times each");
        let features = std::iter::once("first".to_owned()).chain(features).collect();
        assert_history(&property, &registry, (PROJECT, VIEW), features).await;
    }
}

pub(crate) async fn a_killed_writer_loses_nothing_that_was_acknowledged(setup: Setup) {
    const KILLS: usize = 20;
    const WRITERS: usize = 2;
    /// More numbers than any writer comes to.
    const APART: usize = 100_000;
    let (store, registry) = prepared(&setup).await;
    let mut acknowledged = BTreeSet::new();
    for kill in 0..KILLS {
        let mut writers: Vec<Process> = (0..WRITERS)
            .map(|writer| {
                let first = (kill * WRITERS + writer) * APART;
                Process::start(&store, Job { load: Load::Mixed, first, count: APART })
            })
            .collect();
        for writer in &mut writers {
            writer.ready().await;
        }
        for writer in &mut writers {
            writer.go().await;
        }
        let mut said = Vec::new();
        for writer in &mut writers {
            for _ in 0..4 {
                said.extend(writer.next().await);
            }
        }
        // In mid-load, at another moment of a write each time.
        tokio::time::sleep(Duration::from_micros(700 * (kill as u64 * 7 % KILLS as u64))).await;
        for writer in writers {
            said.extend(writer.kill().await);
        }
        for said in said {
            match said {
                Said::Written { number, .. } => assert!(acknowledged.insert(number), "number {number} written twice"),
                said => panic!("a writer without an end said {said:?}"),
            }
        }
        // As a process sees it that was there all along, and one that comes after.
        for registry in [&registry, &store.registry().await] {
            check(&format!("after kill {kill}"), registry, &acknowledged, (kill + 1) * WRITERS).await;
        }
    }
    or_fail("an apply after all kills", registry.apply(PROJECT, applied(Kind::Entity, "after all kills", "")).await);
}

/// Checks that every number that was acknowledged is there, and nothing but what killed writers had begun besides.
async fn check(property: &str, registry: &Registry, acknowledged: &BTreeSet<usize>, killed: usize) {
    let entities: BTreeSet<_> = entities(registry).await.into_iter().collect();
    let intervals = stored_view(registry, PROJECT, VIEW).await.meta.unwrap_or_default().materialization_intervals;
    let is_there = |number: usize| match Load::Mixed.of(number) {
        Load::Intervals => intervals.iter().filter(|stored| **stored == interval(number)).count() == 1,
        _ => entities.contains(&(name_of(number), name_of(number).into_bytes())),
    };
    let lost: Vec<usize> = acknowledged.iter().copied().filter(|number| !is_there(*number)).collect();
    assert!(
        lost.is_empty(),
        "{property}: {} writes were acknowledged, and of these {} are not there: {lost:?}",
        acknowledged.len(),
        lost.len()
    );
    let found = entities.len() + intervals.len();
    let most = acknowledged.len() + killed;
    assert!(found <= most, "{property}: {found} writes are there, and only {most} can have been begun");
}
