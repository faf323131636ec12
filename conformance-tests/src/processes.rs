//! Several OS processes at once on one storage, and some of them killed.

use std::collections::BTreeSet;
use std::time::Duration;

use feast_registry_core::{Kind, Registry};

use crate::handle::or_fail;
pub(crate) use crate::history::what_killed_processes_did_has_one_order;
use crate::process::Process;
use crate::race::{Rounds, any_overlap};
use crate::registry::contention::{assert_each_once, assert_history, stored_view};
use crate::run::Setup;
use crate::sample::{applied, view};
use crate::shown::shown;
use crate::store::Store;
use crate::worker::{Job, Load, PROJECT, Said, VIEW, name_of};
use crate::written::Written;

const PROCESSES: usize = 8;
const EACH: usize = 25;

/// Lets workers write numbers, all at once, each so many of its own; returns whether two of their writes overlapped, and how
/// many commits were refused.
async fn run(store: &Store, load: Load, first: usize) -> (bool, usize) {
    let mut processes: Vec<Process> = (0..PROCESSES)
        .map(|process| Process::start(store, Job { load, first: first + process * EACH, count: EACH, stays: false }))
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

pub(crate) async fn every_entity_is_there(setup: Setup) {
    let (store, registry) = prepared(&setup).await;
    let mut rounds = Rounds::new("entities applied by several processes", 1);
    while let Some(round) = rounds.next() {
        let (overlapped, _) = run(&store, Load::Entities, round * PROCESSES * EACH).await;
        rounds.saw(overlapped);
        let found = Written::seen_by(&registry).await.entities;
        let expected =
            (0..(round + 1) * PROCESSES * EACH).map(|number| (name_of(number), name_of(number).into_bytes()));
        let lost: Vec<_> = expected.clone().filter(|entity| !found.contains(entity)).map(|entity| entity.0).collect();
        assert!(
            lost.is_empty(),
            "{PROCESSES} processes apply {EACH} entities each; acknowledged and lost are {}",
            shown(&lost)
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
                Process::start(&store, Job { load: Load::Mixed, first, count: APART, stays: false })
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
            let written = Written::seen_by(registry).await;
            written.assert_is(&format!("after kill {kill}"), &acknowledged, (kill + 1) * WRITERS);
        }
    }
    or_fail("an apply after all kills", registry.apply(PROJECT, applied(Kind::Entity, "after all kills", "")).await);
}
