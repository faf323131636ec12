//! Commits that race on several handles: atomic, serializable, and nothing that was acknowledged is lost.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use feast_registry_core::{Expected, Key, Kind, Query, Record, Write};

use crate::handle::{Handle, Verdict, assert_records, assert_value, or_fail, patience};
use crate::race::{RACERS, Rounds, joined, joined_all, race};
use crate::run::Setup;
use crate::sample::{AT, filler, identity, last_updated, object, refilled, user_metadata, user_metadata_key, version};
use crate::shown::shown;

/// A record under each sort of key, of its own in every round.
fn records(round: usize, note: impl std::fmt::Display) -> [Record; 4] {
    let (project, note) = (format!("p{round}"), note.to_string());
    [
        object(Kind::FeatureView, &project, "view", &note),
        object(Kind::Project, &project, &project, &note),
        version(&project, "view", 1, &note),
        Record::new(identity(&project, 1).key, note, AT),
    ]
}

pub(crate) async fn one_creator_wins(setup: Setup) {
    let store = setup.store().await;
    let handles = store.handles(3).await;
    let mut rounds = Rounds::new("creators of one key", 12);
    while let Some(round) = rounds.next() {
        let sort = round % 4;
        let racers = (0..RACERS).map(|racer| {
            let handle = handles[racer % handles.len()].clone();
            let record = records(round, format_args!("racer {racer}"))[sort].clone();
            async move { handle.commit(vec![(record.key.clone(), Expected::Absent)], vec![Write::Put(record)]).await }
        });
        let (outcomes, raced) = race(racers).await;
        rounds.saw(raced);
        let key = records(round, "")[sort].key.clone();
        let (won, lost): (Vec<_>, Vec<_>) =
            outcomes.iter().enumerate().partition(|(_, outcome)| **outcome == Verdict::Committed);
        assert_eq!(
            won.len(),
            1,
            "of {RACERS} creators of {}, exactly one wins; the outcomes were {outcomes:?}",
            shown(&key)
        );
        for (racer, outcome) in lost {
            assert_eq!(*outcome, Verdict::Conflict(key.clone()), "what loser {racer} of {} is told", shown(&key));
        }
        let value = records(round, format_args!("racer {}", won[0].0))[sort].value.clone();
        for handle in &handles {
            let found = handle.get(&key).await;
            assert_value("what the one winner stored is there", &key, Some(&value), found.as_deref());
        }
    }
}

pub(crate) async fn one_deleter_wins(setup: Setup) {
    let store = setup.store().await;
    let handles = store.handles(3).await;
    let mut rounds = Rounds::new("deleters of one key", 12);
    while let Some(round) = rounds.next() {
        let record = records(round, "note")[round % 4].clone();
        handles[0].put([record.clone()]).await;
        let racers = (0..RACERS).map(|racer| {
            let (handle, record) = (handles[racer % handles.len()].clone(), record.clone());
            let expected = if racer % 2 == 0 { Expected::Present } else { Expected::Value(record.value) };
            async move { handle.commit(vec![(record.key.clone(), expected)], vec![Write::Delete(record.key)]).await }
        });
        let (outcomes, raced) = race(racers).await;
        rounds.saw(raced);
        let won = outcomes.iter().filter(|outcome| **outcome == Verdict::Committed).count();
        assert_eq!(
            won,
            1,
            "of {RACERS} deleters of {}, exactly one wins; the outcomes were {outcomes:?}",
            shown(&record.key)
        );
        let found = handles[1].get(&record.key).await;
        assert_value("what one of many deleted", &record.key, None, found.as_deref());
    }
}

fn count_of(value: &[u8]) -> usize {
    let text = filler(value);
    let count = std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok());
    count.unwrap_or_else(|| panic!("a counter holds `{}`, which nobody stored", text.escape_ascii()))
}

pub(crate) async fn no_increment_is_lost(setup: Setup) {
    const EACH: usize = 20;
    let store = setup.store().await;
    let handles = store.handles(3).await;
    let conflicts = Arc::new(AtomicUsize::new(0));
    let mut rounds = Rounds::new("increments by compare-and-swap", 2);
    while let Some(round) = rounds.next() {
        let counter = object(Kind::Entity, "p", &format!("counter {round}"), "0");
        handles[0].put([counter.clone()]).await;
        let before = conflicts.load(Ordering::SeqCst);
        let racers = (0..RACERS).map(|racer| {
            let handle = handles[racer % handles.len()].clone();
            let (key, conflicts) = (counter.key.clone(), Arc::clone(&conflicts));
            async move {
                let mut done = 0;
                while done < EACH {
                    let value = handle.get(&key).await.expect("the counter is never deleted");
                    tokio::task::yield_now().await;
                    let next = refilled(&value, (count_of(&value) + 1).to_string());
                    let write = Write::Put(Record::new(key.clone(), next, AT));
                    match handle.commit(vec![(key.clone(), Expected::Value(value))], vec![write]).await {
                        Verdict::Committed => done += 1,
                        Verdict::Conflict(of) => {
                            assert_eq!(of, key, "the key of a conflict");
                            conflicts.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                }
            }
        });
        race(racers).await;
        // Not that calls overlapped counts here, but that commits were refused since others had been faster.
        rounds.saw(conflicts.load(Ordering::SeqCst) > before);
        for handle in &handles {
            let value = handle.get(&counter.key).await.expect("the counter is never deleted");
            let expected = RACERS * EACH;
            assert_eq!(count_of(&value), expected, "round {round}: {expected} increments were acknowledged");
        }
    }
}

/// The expectations and the writes of one of two commits.
type Rival = (Vec<(Key, Expected)>, Vec<Write>);

/// Lets two commits race, of which each expects what the other changes: exactly one may be done.
async fn only_one_of_two(handles: &[Handle], commits: [Rival; 2]) -> bool {
    let described = commits.each_ref().map(|(expectations, writes)| {
        let expected = expectations.iter().map(|(key, expected)| format!("{} is {}", shown(key), shown(expected)));
        format!("if {}: {}", expected.collect::<Vec<_>>().join(", "), shown(writes))
    });
    let racers = commits.into_iter().enumerate().map(|(racer, (expectations, writes))| {
        let handle = handles[racer % handles.len()].clone();
        async move { handle.commit(expectations, writes).await }
    });
    let (outcomes, raced) = race(racers).await;
    let done = outcomes.iter().filter(|outcome| **outcome == Verdict::Committed).count();
    assert_eq!(
        done,
        1,
        "write skew: two commits, each expecting what the other changes, are done one after the other or not at all, so \
         exactly one is; the outcomes were {outcomes:?} of {}",
        described.join(" and ")
    );
    raced
}

pub(crate) async fn no_write_skew_between_absent_keys(setup: Setup) {
    let store = setup.store().await;
    let handles = store.handles(2).await;
    let mut rounds = Rounds::new("commits that each expect the other's key to be absent", 32);
    while let Some(round) = rounds.next() {
        let project = format!("p{round}");
        let [view, of_project, history, fact] = records(round, "note");
        let pairs = [
            // The rule that a name is unique among the kinds of view rests on this one.
            (view.clone(), object(Kind::StreamFeatureView, &project, "view", "")),
            (object(Kind::Entity, &project, "a", ""), object(Kind::Entity, &project, "b", "")),
            (object(Kind::Entity, &project, "a", ""), object(Kind::Entity, &format!("{project}/other"), "a", "")),
            (history.clone(), version(&project, "view", 2, "note")),
            (view.clone(), history),
            (fact.clone(), last_updated(&project, AT)),
            (of_project.clone(), view),
            (of_project, fact),
        ];
        let (one, other) = &pairs[round % pairs.len()];
        let commit = |expects: &Record, writes: &Record| {
            (vec![(expects.key.clone(), Expected::Absent)], vec![Write::Put(writes.clone())])
        };
        rounds.saw(only_one_of_two(&handles, [commit(one, other), commit(other, one)]).await);
        let found = handles[0].ask(Query::Keys(vec![one.key.clone(), other.key.clone()])).await;
        assert_eq!(found.len(), 1, "of {} and {}, one is there", shown(&one.key), shown(&other.key));
    }
}

pub(crate) async fn no_write_skew_between_values(setup: Setup) {
    let store = setup.store().await;
    let handles = store.handles(2).await;
    let mut rounds = Rounds::new("commits that each expect the other's old value", 16);
    while let Some(round) = rounds.next() {
        let old = |name: &str| object(Kind::FeatureService, &format!("p{round}"), name, "old");
        let new = |name: &str| object(Kind::FeatureService, &format!("p{round}"), name, "new");
        handles[0].put([old("a"), old("b")]).await;
        let change = |expects: &str, writes: &str| {
            let old = old(expects);
            (vec![(old.key, Expected::Value(old.value))], vec![Write::Put(new(writes))])
        };
        let delete = |expects: &str, deletes: &str| {
            (vec![(old(expects).key, Expected::Present)], vec![Write::Delete(old(deletes).key)])
        };
        let commits = match round % 2 {
            0 => [change("a", "b"), change("b", "a")],
            _ => [delete("a", "b"), delete("b", "a")],
        };
        rounds.saw(only_one_of_two(&handles, commits).await);
    }
}

pub(crate) async fn nothing_is_left_in_a_deleted_project(setup: Setup) {
    let store = setup.store().await;
    let handles = store.handles(3).await;
    let mut rounds = Rounds::new("writers in a project, and its deletion", 12);
    let mut written = 0;
    while let Some(round) = rounds.next() {
        let name = format!("p{round}");
        let project = object(Kind::Project, &name, &name, "");
        handles[0].put([project.clone()]).await;
        let racers = (0..RACERS).map(|racer| {
            let (handle, project, name) = (handles[racer % handles.len()].clone(), project.clone(), name.clone());
            async move {
                let expectation = vec![(project.key, Expected::Present)];
                // The one who deletes is not always the one who was started first.
                if racer == round % RACERS {
                    return handle.commit(expectation, vec![Write::DeleteProject { project: name }]).await;
                }
                let view = format!("view {racer}");
                let writes = [
                    object(Kind::FeatureView, &name, &view, ""),
                    version(&name, &view, 0, ""),
                    identity(&name, racer as i32),
                ];
                handle.commit(expectation, writes.map(Write::Put).into()).await
            }
        });
        let (outcomes, raced) = race(racers).await;
        rounds.saw(raced);
        assert_eq!(outcomes[round % RACERS], Verdict::Committed, "the deletion of a project that is there");
        written += outcomes.iter().filter(|outcome| **outcome == Verdict::Committed).count() - 1;
        let views: Vec<String> = (0..RACERS).map(|racer| format!("view {racer}")).collect();
        let histories: Vec<(&str, &str)> = views.iter().map(|view| (name.as_str(), view.as_str())).collect();
        let left = handles[1].everything(&histories).await;
        let left: Vec<&Key> = left.keys().collect();
        assert!(
            left.is_empty(),
            "who expects a project writes before its deletion or not at all; left is {}",
            shown(&left)
        );
    }
    assert!(written > 0, "no writer ever came before the deletion: the race did not race");
}

pub(crate) async fn a_removal_of_the_storage_loses_no_commit(setup: Setup) {
    const STEPS: usize = 16;
    let store = setup.store().await;
    let handles = store.handles(4).await;
    let mut rounds = Rounds::new("writers and readers, and removals of the empty storage", 12);
    let removed = Arc::new(AtomicUsize::new(0));
    while let Some(round) = rounds.next() {
        let before = removed.load(Ordering::SeqCst);
        let racers = (0..RACERS).map(|racer| {
            let (handle, removed) = (handles[racer % handles.len()].clone(), Arc::clone(&removed));
            async move {
                for step in 0..STEPS {
                    let name = format!("p{round}-{racer}-{step}");
                    let records = [object(Kind::Project, &name, &name, ""), object(Kind::Entity, &name, "driver", "")];
                    let keys = Query::Keys(records.iter().map(|record| record.key.clone()).collect());
                    // Most remove; what two of them write must not be removed with the rest; one only reads.
                    match racer {
                        0..=4 => {
                            let outcome = or_fail(
                                "remove_if_empty while others write",
                                handle.0.remove_if_empty(&patience()).await,
                            );
                            removed.fetch_add(usize::from(outcome), Ordering::SeqCst);
                        }
                        5 => {
                            let found = handle.read(&[keys, Query::Metadata { project: None }]).await.concat();
                            assert_records("what nobody has written", &[], &found);
                        }
                        _ => {
                            handle.put(records.clone()).await;
                            let property = "what was acknowledged while others removed the storage";
                            assert_records(property, &records, &handle.ask(keys).await);
                            handle.write(vec![Write::DeleteProject { project: name }]).await;
                        }
                    }
                }
            }
        });
        let (_, raced) = race(racers).await;
        rounds.saw(raced && removed.load(Ordering::SeqCst) > before);
    }
}

/// What a reader of [`a_read_is_one_snapshot`] sees: the same count everywhere.
fn counts(answers: &[Vec<Record>]) -> BTreeSet<String> {
    let count = |record: &Record| {
        let text = match &record.key {
            Key::Object { .. } => filler(&record.value),
            Key::Version { number, .. } => number.to_string().into(),
            Key::UserMetadata { .. } | Key::Metadata { .. } => record.value.to_vec(),
        };
        String::from_utf8_lossy(&text).into_owned()
    };
    answers.iter().flatten().map(count).collect()
}

pub(crate) async fn a_read_is_one_snapshot(setup: Setup) {
    /// So many different states must have been seen by each reader.
    const STATES: usize = 20;
    const READERS: usize = 4;
    let store = setup.store().await;
    let handles = store.handles(3).await;
    let state = |count: usize| {
        let note = count.to_string();
        vec![
            Write::Put(object(Kind::Entity, "p", "a", &note)),
            Write::Put(object(Kind::LabelView, "q", "b", &note)),
            Write::Put(user_metadata(Kind::LabelView, "q", "b", &note)),
            Write::DeleteVersions { project: "q".to_owned(), view: "b".to_owned() },
            Write::Put(version("q", "b", count as i32, "")),
            Write::Put(last_updated("p", count as i64)),
            Write::Put(last_updated("q", count as i64)),
            Write::Put(object(Kind::Entity, "q", "a", &note)),
        ]
    };
    let queries = [
        Query::Keys(vec![Key::object(Kind::Entity, "p", "a"), Key::metadata("q", Key::LAST_UPDATED)]),
        Query::objects(Kind::Entity, None),
        Query::Versions { project: "q".to_owned(), view: "b".to_owned(), latest_only: false },
        Query::Metadata { project: Some("p".to_owned()) },
        Query::Keys(vec![
            Key::object(Kind::LabelView, "q", "b"),
            user_metadata_key(Kind::LabelView, "q", "b"),
            Key::object(Kind::Entity, "q", "a"),
        ]),
    ];
    handles[0].write(state(0)).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn({
        let (handle, is_over) = (handles[0].clone(), Arc::clone(&is_over));
        async move {
            let mut count = 0;
            while !is_over.load(Ordering::SeqCst) {
                count += 1;
                handle.write(state(count)).await;
                // A backend that never waits would keep the readers from running at all.
                tokio::task::yield_now().await;
            }
        }
    });
    let readers = (0..READERS).map(|reader| {
        let (handle, queries) = (handles[reader % handles.len()].clone(), queries.clone());
        tokio::spawn(async move {
            let began = Instant::now();
            let mut seen = BTreeSet::new();
            while seen.len() < STATES && began.elapsed() < Duration::from_secs(60) {
                let answers = handle.read(&queries).await;
                let records: usize = answers.iter().map(Vec::len).sum();
                assert_eq!(records, 9, "a read sees every part of a state that is always written whole");
                let found = counts(&answers);
                assert_eq!(found.len(), 1, "a read is of one state, and this one saw parts of several: {found:?}");
                seen.extend(found);
                tokio::task::yield_now().await;
            }
            seen.len()
        })
    });
    let seen = joined_all(readers).await;
    is_over.store(true, Ordering::SeqCst);
    joined(writer).await;
    let is_enough = seen.iter().all(|states| *states >= STATES);
    assert!(is_enough, "the readers did not race with the writer: within 60 s they saw {seen:?} states of {STATES}");
}
