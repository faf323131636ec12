//! What is acknowledged outlives the process that wrote it, also where one process at a time has the storage open.
//!
//! No process has it open while another has: neither the test itself while a worker is at work, nor a worker while the test
//! looks at what is there. What needs several at once is in [`crate::processes`].

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use feast_registry_core::{Kind, Query, Record};

use crate::handle::{Handle, assert_records, or_fail, patience};
use crate::process::Process;
use crate::run::Setup;
use crate::sample::object;
use crate::store::Store;
use crate::worker::{Job, Load, Said};
use crate::written::Written;

/// A storage with the view that workers write intervals of; a worker has made it and has ended by itself.
async fn prepared(setup: &Setup) -> Store {
    let store = setup.store().await;
    let mut worker = started(&store, Job { load: Load::Schemas, first: 0, count: 1, stays: false }).await;
    assert!(matches!(worker.next().await, Some(Said::Written { .. })), "a worker makes the view");
    worker.end().await;
    store
}

/// A worker that has the storage open, alone, and has begun to write.
async fn started(store: &Store, job: Job) -> Process {
    let mut worker = Process::start(store, job);
    worker.ready().await;
    worker.go().await;
    worker
}

/// Opens the storage, looks what is there, and closes it.
async fn check(property: &str, store: &Store, acknowledged: &BTreeSet<usize>, begun: usize) {
    let handle = store.handle().await;
    let written = Written::seen_by_handle(&handle).await;
    handle.0.close().await;
    drop(handle);
    written.assert_is(property, acknowledged, begun);
}

/// A storage that can be open only once is opened by the next as soon as the last has closed it, whoever still has that handle
/// and whatever it was reading when its callers left.
pub(crate) async fn what_is_closed_can_be_opened_anew(setup: Setup) {
    const ROUNDS: usize = 8;
    let store = setup.store().await;
    let opened = async |round: usize| {
        let opening = format!("opening a storage anew that was closed {round} times");
        let handle = Handle(or_fail(&opening, store.factory.open_at(&store.address()).await));
        or_fail(&format!("preparing it, after {opening}"), handle.0.prepare(&patience()).await);
        handle
    };
    // In the order of their names, which some storages list them in.
    let records: Vec<Record> = (0..500).map(|number| object(Kind::Entity, "p", &format!("{number:03}"), "")).collect();
    let all = Query::objects(Kind::Entity, Some("p"));
    let mut handle = opened(0).await;
    handle.put(records.clone()).await;
    for round in 1..=ROUNDS {
        for _ in 0..round {
            let (queries, deadline) = (vec![all.clone(); 8], patience());
            let mut left = handle.0.read(&queries, &deadline);
            // Its caller leaves when it has begun.
            poll_fn(|context| Poll::Ready(left.as_mut().poll(context).is_ready())).await;
        }
        handle.0.close().await;
        let next = opened(round).await;
        let found = next.ask(all.clone()).await;
        assert_records("what a storage has that was closed and opened anew", &records, &found);
        handle = next;
    }
}

fn note(acknowledged: &mut BTreeSet<usize>, said: impl IntoIterator<Item = Said>) {
    for said in said {
        match said {
            Said::Written { number, .. } => assert!(acknowledged.insert(number), "number {number} written twice"),
            said => panic!("a worker that was to be killed said {said:?}"),
        }
    }
}

/// Nothing is under way when these workers are killed, so nothing but what they had acknowledged may be there; and nothing
/// that they would do a moment later, or when they end by themselves, is done any more.
pub(crate) async fn what_was_acknowledged_right_before_a_kill_is_there(setup: Setup) {
    const KILLS: usize = 10;
    let store = prepared(&setup).await;
    let mut acknowledged = BTreeSet::new();
    for kill in 0..KILLS {
        let (first, count) = (acknowledged.len(), kill % 3 + 1);
        let mut worker = started(&store, Job { load: Load::Mixed, first, count, stays: true }).await;
        for _ in 0..count {
            note(&mut acknowledged, worker.next().await);
        }
        note(&mut acknowledged, worker.kill().await);
        assert_eq!(acknowledged.len(), first + count, "a worker acknowledges what it was told to write");
        let property = format!("after kill {kill}, right after the last of {count} writes was acknowledged");
        check(&property, &store, &acknowledged, 0).await;
    }
}

pub(crate) async fn a_kill_in_mid_load_loses_nothing_that_was_acknowledged(setup: Setup) {
    const KILLS: usize = 12;
    /// More numbers than any worker comes to.
    const APART: usize = 100_000;
    let store = prepared(&setup).await;
    let mut acknowledged = BTreeSet::new();
    for kill in 0..KILLS {
        let job = Job { load: Load::Mixed, first: kill * APART, count: APART, stays: false };
        let mut worker = started(&store, job).await;
        for _ in 0..4 {
            note(&mut acknowledged, worker.next().await);
        }
        // At another moment of a write each time.
        tokio::time::sleep(Duration::from_micros(900 * (kill as u64 * 5 % KILLS as u64))).await;
        note(&mut acknowledged, worker.kill().await);
        // A writer is in one write when it is killed.
        check(&format!("after kill {kill}, in mid-load"), &store, &acknowledged, kill + 1).await;
    }
}
