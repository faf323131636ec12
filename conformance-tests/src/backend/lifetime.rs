//! A handle before it is prepared, and when it is closed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use feast_registry_core::config::SchemaMode;
use feast_registry_core::{
    Commit, ErrorKind, Expected, JournalQuery, Key, Kind, Outcome, Query, Record, Result, Write,
};

use crate::handle::{Handle, Verdict, assert_records, chain, or_fail, patience};
use crate::race::{RACERS, Rounds, race};
use crate::run::Setup;
use crate::sample::{AT, last_updated, object, version};
use crate::store::Store;

/// What a commit of these tests writes in a project of its own.
fn records(project: &str) -> [Record; 3] {
    [object(Kind::FeatureView, project, "view", ""), version(project, "view", 0, ""), last_updated(project, AT)]
}

fn writing(project: &str) -> Commit {
    let records = records(project);
    Commit::new(vec![(records[0].key.clone(), Expected::Absent)], records.map(Write::Put).into())
}

fn keys_of(project: &str) -> Query {
    Query::Keys(records(project).map(|record| record.key).into())
}

/// A value, or an error of one of these kinds.
#[track_caller]
fn is_either<T>(call: &str, answer: Result<T>, kinds: &[ErrorKind]) -> Option<T> {
    answer.map_or_else(
        |error| {
            assert!(kinds.contains(&error.kind()), "{call} may fail as {kinds:?}, and not so: {}", chain(&error));
            None
        },
        Some,
    )
}

/// Checks that what was answered is so: all of a commit is there, or nothing.
async fn assert_done(store: &Store, call: &str, project: &str, outcome: Option<Outcome>) {
    let is_done = outcome.is_some_and(|outcome| outcome.is_committed());
    let expected: &[Record] = if is_done { &records(project) } else { &[] };
    let answer = if is_done { "was acknowledged" } else { "failed, so that nothing was done" };
    assert_records(&format!("{call} that {answer}"), expected, &store.handle().await.ask(keys_of(project)).await);
}

pub(crate) async fn calls_before_a_preparation(setup: Setup) {
    // On a storage that nobody has prepared: it is made when it is needed, or missing for those who make none.
    for mode in [SchemaMode::Auto, SchemaMode::Verify, SchemaMode::Skip] {
        let kinds: &[ErrorKind] = if mode == SchemaMode::Auto { &[] } else { &[ErrorKind::SchemaMissing] };
        let call = |what: &str| format!("{what} before anybody prepared the storage ({mode})");
        let store = setup.store().await;
        let backend = store.backend_in(mode).await;
        let queries = [keys_of("p"), Query::objects(Kind::Entity, None), Query::Metadata { project: None }];
        let read = is_either(&call("a read"), backend.read(&queries, &patience()).await, kinds);
        assert!(read.is_none_or(|answers| answers == vec![Vec::new(); 3]), "{} finds nothing", call("a read"));
        let kinds_of_journal = [kinds, &[ErrorKind::Unsupported]].concat();
        let journal = backend.journal(&JournalQuery::after(None, 10), &patience()).await;
        let journal = is_either(&call("a look at the journal"), journal, &kinds_of_journal);
        assert!(journal.is_none_or(|entries| entries.is_empty()), "{} finds nothing", call("a look at the journal"));
        is_either(&call("a removal"), backend.remove_if_empty(&patience()).await, kinds);
        let outcome = is_either(&call("a commit"), backend.commit(writing("p"), &patience()).await, kinds);
        // A store that is open only once has no other handle as long as there is this one, whose mode may make nothing.
        drop(backend);
        assert_done(&store, &call("a commit"), "p", outcome).await;
    }
    // On one that another handle prepared: as any other.
    let store = setup.store().await;
    let other = store.handle().await;
    for mode in [SchemaMode::Auto, SchemaMode::Verify, SchemaMode::Skip] {
        let project = mode.to_string();
        let handle = Handle(store.backend_in(mode).await);
        let before = other.ask(Query::objects(Kind::FeatureView, None)).await;
        let property = "what another handle wrote, read by one that is not prepared";
        assert_records(property, &before, &handle.ask(Query::objects(Kind::FeatureView, None)).await);
        let Commit { expectations, writes, .. } = writing(&project);
        let outcome = handle.commit(expectations.clone(), writes.clone()).await;
        assert_eq!(outcome, Verdict::Committed, "a commit of a handle that is not prepared ({mode})");
        let found = other.ask(keys_of(&project)).await;
        assert_records("what a handle wrote that is not prepared", &records(&project), &found);
        let outcome = handle.commit(expectations, writes).await;
        let key: Key = records(&project)[0].key.clone();
        assert_eq!(outcome, Verdict::Conflict(key), "a handle that is not prepared checks what is expected ({mode})");
    }
}

pub(crate) async fn calls_after_closing(setup: Setup) {
    let closed: &[ErrorKind] = &[ErrorKind::Unavailable];
    let store = setup.store().await;
    let handle = store.handle().await;
    let records = records("before");
    handle.put(records.clone()).await;
    // With a project in it the storage is not removed.
    handle.put([object(Kind::Project, "before", "before", "")]).await;
    let backend = handle.0;
    let mut commits = Vec::new();
    for time in ["closed", "closed twice"] {
        backend.close().await;
        let call = |what: &str| format!("{what} after the handle was {time}");
        let read = is_either(&call("a read"), backend.read(&[keys_of("before")], &patience()).await, closed);
        let found = read.unwrap_or_else(|| vec![records.to_vec()]);
        assert_records(&call("what is read, if anything,"), &records, &found.concat());
        let commit = is_either(&call("a commit"), backend.commit(writing(time), &patience()).await, closed);
        let kinds_of_journal = [closed, &[ErrorKind::Unsupported]].concat();
        is_either(
            &call("a look at the journal"),
            backend.journal(&JournalQuery::after(None, 10), &patience()).await,
            &kinds_of_journal,
        );
        is_either(&call("a preparation"), backend.prepare(&patience()).await, closed);
        is_either(&call("a removal"), backend.remove_if_empty(&patience()).await, closed);
        assert!(!backend.location().is_empty(), "a handle that was {time} says where its data is");
        assert_eq!(backend.limits(), backend.limits(), "a handle that was {time} has limits");
        commits.push((call("a commit"), time, commit));
    }
    // A store that is open only once has no other handle before.
    drop(backend);
    for (call, project, outcome) in commits {
        assert_done(&store, &call, project, outcome).await;
    }
}

/// A handle is closed while others commit on it. Each commit is done and acknowledged, or it is refused and never done.
pub(crate) async fn closing_cuts_off_no_commit(setup: Setup) {
    const EACH: usize = 8;
    let mut rounds = Rounds::new("commits, and the closing of their handle", 8);
    let store = setup.store().await;
    while let Some(round) = rounds.next() {
        let handle = store.handle().await;
        let done = Arc::new(AtomicUsize::new(0));
        // Sooner or later, but before the last of them.
        let after = (round % EACH) * (RACERS - 2);
        let project = move |racer: usize, step: usize| format!("p{round}-{racer}-{step}");
        let racers = (0..RACERS).map(|racer| {
            let (handle, done) = (handle.clone(), Arc::clone(&done));
            async move {
                let mut outcomes = Vec::new();
                if racer == 0 {
                    let waits = Instant::now();
                    while done.load(Ordering::SeqCst) < after && waits.elapsed() < Duration::from_secs(10) {
                        tokio::task::yield_now().await;
                    }
                    let began = Instant::now();
                    handle.0.close().await;
                    outcomes.push((String::new(), None, (began, Instant::now())));
                    return outcomes;
                }
                for step in 0..EACH {
                    let (project, began) = (project(racer, step), Instant::now());
                    let outcome = handle.0.commit(writing(&project), &patience()).await;
                    done.fetch_add(1, Ordering::SeqCst);
                    let call = "a commit on a handle that is being closed";
                    let outcome = is_either(call, outcome, &[ErrorKind::Unavailable]);
                    outcomes.push((project, outcome, (began, Instant::now())));
                }
                outcomes
            }
        });
        let (mut outcomes, _) = race(racers).await;
        let closing = outcomes.remove(0)[0].2;
        let outcomes = outcomes.concat();
        // It came between commits, or in the middle of one.
        let is_begun_before = outcomes.iter().any(|(.., (began, _))| *began < closing.0);
        rounds.saw(is_begun_before && outcomes.iter().any(|(.., (_, ended))| *ended > closing.0));
        drop(handle);
        let other = Handle(or_fail("opening a handle", store.storage.open(SchemaMode::Auto).await));
        let queries: Vec<Query> = outcomes.iter().map(|(project, ..)| keys_of(project)).collect();
        let found = other.read(&queries).await;
        for ((project, outcome, _), found) in outcomes.iter().zip(found) {
            let expected: &[Record] = if outcome.is_some() { &records(project) } else { &[] };
            let answer = if outcome.is_some() { "acknowledged" } else { "refused, as its handle was closed" };
            assert_records(&format!("a commit that was {answer}"), expected, &found);
        }
    }
}
