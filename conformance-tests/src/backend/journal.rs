//! The journal: every commit is in it once and in order, and it tells the state.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use feast_registry_core::{
    Change, Commit, CommitId, Environment as _, ErrorKind, Expected, IDENTITY_KEPT_FOR, Image, JournalEntry,
    JournalQuery, Kind, Outcome, Record, Retention, Revision, System, Target, Write,
};
use prost_types::Timestamp;

use crate::backend::expectations::writes_of_every_sort;
use crate::handle::{Handle, chain, or_fail, patience};
pub(crate) use crate::history::its_order_is_one_of_the_commits;
use crate::race::{Rounds, any_overlap, joined, joined_all};
use crate::replay::{agree, assert_replayed};
use crate::run::Setup;
use crate::sample::{AT, key, object, object_at, user_metadata, version, whole_project};
use crate::shown::shown;

/// The revision of a commit that is committed.
#[track_caller]
fn placed(outcome: &Outcome) -> Revision {
    match outcome {
        Outcome::Committed { revision: Some(revision) } => *revision,
        other => panic!("a commit without a place in the journal: {other:?}"),
    }
}

fn put(record: &Record) -> Vec<Write> {
    vec![Write::Put(record.clone())]
}

pub(crate) async fn every_commit_has_one_entry(setup: Setup) {
    let store = setup.store().await;
    let handles = store.handles(2).await;
    assert_eq!(handles[0].journal(None, 1000).await, [], "the journal of a storage that nobody has written to");
    let entity = object(Kind::Entity, "p", "driver", "");
    let refused = vec![(key(Kind::Entity, "p", "absent"), Expected::Present)];
    let commits = [
        Commit::new(vec![(entity.key.clone(), Expected::Absent)], put(&entity)),
        Commit::new(Vec::new(), put(&entity)),
        Commit::new(refused.clone(), vec![Write::Delete(entity.key.clone())]),
        Commit::new(vec![(entity.key.clone(), Expected::Present)], Vec::new()),
        Commit::new(Vec::new(), Vec::new()),
        Commit::new(Vec::new(), vec![Write::Delete(key(Kind::Entity, "p", "absent"))]),
        Commit::new(refused, Vec::new()),
        Commit::new(Vec::new(), vec![Write::Delete(entity.key.clone())]),
    ];
    let longest = "\u{1f697}".repeat(255);
    let origins = [
        (None, None),
        (Some("alice"), None),
        (None, Some("feast apply")),
        (Some("bob \u{e9}'\"\\"), Some("two\nlines")),
        (Some(longest.as_str()), Some(longest.as_str())),
    ];
    // Whole microseconds are what is kept of a time; what is too old need not be kept at all.
    let now = System.now().seconds;
    let times = [(now, 0), (now + 1, 1000), (now + 1, 999_999_000), (now - 3600, 123_456_000)];
    let mut expected = Vec::new();
    for (index, commit) in commits.into_iter().enumerate() {
        let (author, reason) = origins[index % origins.len()];
        let (seconds, nanos) = times[index % times.len()];
        let commit = commit
            .with_time(Timestamp { seconds, nanos })
            .with_origin(author.map(str::to_owned), reason.map(str::to_owned));
        let outcome = handles[index % 2].send(commit.clone()).await;
        if outcome.is_committed() {
            expected.push((placed(&outcome), commit));
        }
        // The answer is not earlier than the entry.
        let journal = handles[(index + 1) % 2].journal(None, 1000).await;
        assert_eq!(journal.len(), expected.len(), "commits that took place, and entries of the journal, at {index}");
    }
    assert_eq!(expected.len(), 6, "commits whose expectations hold");
    for handle in [&handles[0], &handles[1], &store.handle().await] {
        for (entry, (revision, commit)) in handle.journal(None, 1000).await.iter().zip(&expected) {
            let found = (entry.revision, entry.id, &entry.at, &entry.author, &entry.reason);
            let expected = (*revision, commit.id, &commit.at, &commit.author, &commit.reason);
            assert_eq!(found, expected, "what an entry says of its commit");
        }
    }
}

/// The changes that differ from nothing happening, by what they are of and in their order.
fn by_target(changes: &[Change]) -> BTreeMap<String, Vec<(Image, Image)>> {
    let mut by_target: BTreeMap<String, Vec<(Image, Image)>> = BTreeMap::new();
    for change in changes {
        if (&change.before, &change.after) != (&Image::Absent, &Image::Absent) {
            let images = (change.before.clone(), change.after.clone());
            by_target.entry(shown(&change.target)).or_default().push(images);
        }
    }
    by_target
}

pub(crate) async fn an_entry_says_what_was_there_before_and_after(setup: Setup) {
    let handle = setup.store().await.handle().await;
    let kind = Kind::OnDemandFeatureView;
    let (one, two) = (object(kind, "p", "view", "one"), object_at(kind, "p", "view", "two", AT + 1));
    let note = user_metadata(kind, "p", "view", "note");
    let (old, new) = (version("p", "view", 0, "old"), version("p", "view", 1, "new"));
    let is = |record: &Record| Image::Value(record.value.clone());
    let change = |record: &Record, before, after| Change::of_key(record.key.clone(), before, after);
    let removed = |record: &Record| change(record, is(record), Image::Absent);
    let (project, view) = ("p".to_owned(), "view".to_owned());
    let history = Target::Versions { project: project.clone(), view: view.clone() };
    let whole = Target::Project { project: project.clone() };
    let delete_history = || Write::DeleteVersions { project: project.clone(), view: view.clone() };
    let delete_project = || Write::DeleteProject { project: project.clone() };
    let all = |records: &[&Record]| records.iter().map(|record| Write::Put((*record).clone())).collect::<Vec<_>>();
    let steps = [
        ("metadata without its view", put(&note), vec![]),
        ("a new view", put(&one), vec![change(&one, Image::Absent, is(&one))]),
        ("a changed view", put(&two), vec![change(&one, is(&one), is(&two))]),
        ("its metadata", put(&note), vec![change(&note, Image::Absent, is(&note))]),
        (
            "two changes of one view",
            all(&[&one, &two]),
            vec![change(&one, is(&two), is(&one)), change(&one, is(&one), is(&two))],
        ),
        (
            "a history",
            all(&[&old, &new]),
            vec![change(&old, Image::Absent, is(&old)), change(&new, Image::Absent, is(&new))],
        ),
        ("its deletion", vec![delete_history()], vec![Change::removal(history.clone()), removed(&old), removed(&new)]),
        ("the deletion of the view", vec![Write::Delete(one.key.clone())], vec![removed(&two), removed(&note)]),
        (
            "all of it",
            all(&[&one, &note, &old]),
            [&one, &note, &old].map(|record| change(record, Image::Absent, is(record))).into(),
        ),
        (
            "the deletion of the project",
            vec![delete_project()],
            vec![Change::removal(whole.clone()), removed(&one), removed(&note), removed(&old)],
        ),
        (
            "a creation after a deletion",
            [vec![delete_project()], put(&one)].concat(),
            vec![Change::removal(whole.clone()), change(&one, Image::Absent, is(&one))],
        ),
        (
            "a deletion after a creation",
            [put(&old), vec![delete_project()]].concat(),
            vec![change(&old, Image::Absent, is(&old)), Change::removal(whole), removed(&one), removed(&old)],
        ),
    ];
    for (property, writes, expected) in steps {
        let revision = placed(&handle.send(Commit::new(Vec::new(), writes)).await);
        let journal = handle.whole_journal().await;
        let entry = journal.iter().find(|entry| entry.revision == revision).expect(property);
        let keeps = entry.changes.iter().any(|change| matches!(change.after, Image::Value(_)));
        let (found, expected) = (by_target(&entry.changes), by_target(&expected));
        for (target, expected) in &expected {
            let images = found.get(target).cloned().unwrap_or_default();
            // A storage that does not keep values need not name what a removal took.
            let is_named = !images.is_empty() || (!keeps && expected.iter().all(|(_, after)| *after == Image::Absent));
            let is_right =
                images.iter().zip(expected).all(|(one, other)| agree(&one.0, &other.0) && agree(&one.1, &other.1));
            let is_whole = images.len() == expected.len()
                || images.is_empty()
                || (!keeps && expected.iter().skip(images.len()).all(|(_, after)| *after == Image::Absent));
            assert!(
                is_named && is_right && is_whole,
                "{property}: the changes of {target} should be {}, and are {}",
                shown(expected),
                shown(&images)
            );
        }
        let others: Vec<&String> = found.keys().filter(|target| !expected.contains_key(*target)).collect();
        assert!(others.is_empty(), "{property}: the entry has changes of {others:?} too");
    }
}

/// Commits that say what was there, of objects that change little, wholly, and in length.
pub(crate) async fn an_entry_says_what_was_there_of_objects_of_any_size(setup: Setup) {
    let handle = setup.store().await.handle().await;
    let noise = |seed: u32, length: u32| -> Vec<u8> {
        (0..length).map(|number| (number.wrapping_add(seed).wrapping_mul(2_654_435_761) >> 11) as u8).collect()
    };
    let grown = |by: u32| [noise(1, 3_000), noise(7, by)].concat();
    let fillers = [
        grown(0),
        grown(8),
        grown(16),
        noise(9, 3_000),
        Vec::new(),
        vec![7; 3_000],
        vec![7; 100_000],
        grown(100_000),
        grown(100_001),
        noise(3, 100),
    ];
    let record = |kind: Kind, filler: &Vec<u8>| object(kind, "p", "name", filler);
    for kind in [Kind::Entity, Kind::FeatureView] {
        let mut stored: Option<Record> = None;
        for (number, filler) in fillers.iter().enumerate() {
            let (next, last) = (record(kind, filler), record(kind, &fillers[(number + 3) % fillers.len()]));
            let key = next.key.clone();
            let before = stored.as_ref().map_or(Image::Absent, |record| Image::Value(record.value.clone()));
            let expected = stored.map_or(Expected::Absent, |record| Expected::Value(record.value));
            let is = |record: &Record| Image::Value(record.value.clone());
            // Once, twice, and after a deletion.
            let writes = match number % 3 {
                0 => put(&next),
                1 => [put(&last), put(&next)].concat(),
                _ => [vec![Write::Delete(key.clone())], put(&next)].concat(),
            };
            let images = match number % 3 {
                0 => vec![(before, is(&next))],
                1 => vec![(before, is(&last)), (is(&last), is(&next))],
                _ => vec![(before, Image::Absent), (Image::Absent, is(&next))],
            };
            placed(&handle.send(Commit::new(vec![(key, expected)], writes)).await);
            let journal = handle.whole_journal().await;
            let found = by_target(&journal.last().expect("the entry of the commit").changes);
            let found = found.into_values().next().expect("a change");
            let is_right = found.len() == images.len()
                && found.iter().zip(&images).all(|(one, other)| agree(&one.0, &other.0) && agree(&one.1, &other.1));
            assert!(is_right, "change {number} of a {kind} of {} bytes: what was there is another", filler.len());
            stored = Some(next);
        }
    }
    assert_replayed("objects of any size", &handle).await;
}

pub(crate) async fn its_replay_is_the_state(setup: Setup) {
    let store = setup.store().await;
    let handles = store.handles(2).await;
    let check = async |property: &str| assert_replayed(property, &handles[1]).await;
    check("a storage that nobody has written to").await;
    for (number, project) in ["p", "q", "p/q", "P"].into_iter().enumerate() {
        handles[number % 2].put(whole_project(project, "first")).await;
        handles[number % 2].put([version(project, "gone", 1, project)]).await;
    }
    check("whole projects").await;
    handles[0].write(writes_of_every_sort()).await;
    check("writes of every sort").await;
    let bad = vec![(key(Kind::Entity, "p", "absent"), Expected::Present)];
    handles[0].commit(bad, vec![Write::DeleteProject { project: "p".to_owned() }]).await;
    check("a commit that was refused").await;
    for (number, write) in writes_of_every_sort().into_iter().enumerate() {
        handles[number % 2].write(vec![write]).await;
    }
    check("the same writes, in a commit each").await;
    for project in ["p", "p/q", "P", "new", "absent"] {
        handles[0].write(vec![Write::DeleteProject { project: project.to_owned() }]).await;
        check(&format!("the deletion of `{project}`")).await;
    }
}

pub(crate) async fn revisions_grow_in_the_order_of_commits(setup: Setup) {
    let store = setup.store().await;
    let handles = store.handles(4).await;
    let mut last = None;
    for number in 0..40 {
        // Who commits, and in which project, is all the same.
        let handle = &handles[number * 7 % handles.len()];
        let record = object(Kind::Entity, &format!("p{}", number % 3), &format!("driver {number}"), "");
        let revision = placed(&handle.send(Commit::new(Vec::new(), put(&record))).await);
        assert!(
            last < Some(revision),
            "commit {number} began after one was acknowledged with {last:?}, and has the revision {revision}"
        );
        last = Some(revision);
    }
}

fn ids(entries: &[JournalEntry]) -> Vec<(Revision, CommitId)> {
    entries.iter().map(|entry| (entry.revision, entry.id)).collect()
}

pub(crate) async fn a_reader_goes_on_where_it_was(setup: Setup) {
    let store = setup.store().await;
    let handles = store.handles(2).await;
    for number in 0..25 {
        handles[number % 2]
            .put([object(Kind::Entity, "p", &format!("driver {}", number % 4), number.to_string())])
            .await;
    }
    let whole = handles[0].journal(None, usize::MAX).await;
    assert_eq!(whole.len(), 25, "the journal after 25 commits");
    for limit in [1, 2, 7, 24, 25, 26] {
        let mut read = Vec::new();
        loop {
            let after = read.last().map(|entry: &JournalEntry| entry.revision);
            let more = handles[1].journal(after, limit).await;
            let expected = limit.min(whole.len() - read.len());
            assert_eq!(more.len(), expected, "entries after {after:?}, {limit} at the most");
            if more.is_empty() {
                break;
            }
            read.extend(more);
        }
        assert!(read == whole, "pages of {limit} are the whole journal, and not {:?}", ids(&read));
    }
    // What was answered once never changes.
    let last = whole.last().map(|entry| entry.revision);
    handles[0].put([object(Kind::Entity, "p", "late", "")]).await;
    let grown = handles[1].journal(None, usize::MAX).await;
    assert!(grown[..whole.len()] == whole[..], "a commit leaves the journal before it as it was");
    assert_eq!(
        handles[1].journal(last, usize::MAX).await,
        grown[whole.len()..],
        "what is new comes after what was last"
    );
}

pub(crate) async fn an_unknown_place_is_said_to_be_compacted(setup: Setup) {
    let store = setup.store().await;
    let handle = store.handle().await;
    let check = async |property: &str, after: u64| {
        let answer = handle.0.journal(&JournalQuery::after(Some(Revision::new(after)), 10), &patience()).await;
        let error = answer.map(|entries| ids(&entries)).expect_err(property);
        assert_eq!(error.kind(), ErrorKind::Compacted, "{property} ({after}): {}", chain(&error));
    };
    check("a place in the journal of a storage that nobody has written to", 7).await;
    for number in 0..3 {
        handle.put([object(Kind::Entity, "p", "driver", number.to_string())]).await;
    }
    let journal = handle.whole_journal().await;
    let (first, last) = (journal[0].revision.number(), journal[2].revision.number());
    for (property, after) in [
        ("a place before the first", first.checked_sub(1)),
        ("a place after the last", last.checked_add(1)),
        ("a place far after the last, as of another storage", last.checked_add(1000)),
        ("a place that no database can count to", Some(u64::MAX)),
    ] {
        if let Some(after) = after {
            check(property, after).await;
        }
    }
    assert_eq!(handle.journal(Some(Revision::new(last)), 10).await, [], "after the last there is nothing yet");
}

/// One commit that took place: when it began and was acknowledged, and its place.
struct Acknowledged {
    id: CommitId,
    began: Instant,
    ended: Instant,
    revision: Revision,
}

async fn acknowledged(handle: &Handle, writes: Vec<Write>) -> Acknowledged {
    let commit = Commit::new(Vec::new(), writes);
    let (id, began) = (commit.id, Instant::now());
    let revision = placed(&handle.send(commit).await);
    Acknowledged { id, began, ended: Instant::now(), revision }
}

/// A large commit is slow, so small ones overtake it: one whose number was given out when it began would come late.
pub(crate) async fn a_reader_misses_nothing_while_others_write(setup: Setup) {
    const LARGE: usize = 400;
    let store = setup.store().await;
    let handles = store.handles(4).await;
    let mut rounds = Rounds::new("large and small commits, and a reader of the journal", 2);
    while let Some(round) = rounds.next() {
        let (slow_is_over, is_over) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let slow = tokio::spawn({
            let (handle, slow_is_over) = (handles[0].clone(), Arc::clone(&slow_is_over));
            async move {
                let mut done = Vec::new();
                for number in 0..3 {
                    let records = (0..LARGE).map(|of| object(Kind::DataSource, "large", &format!("{of}"), ""));
                    let project = object(Kind::Project, "large", "large", number.to_string());
                    done.push(
                        acknowledged(&handle, [project].into_iter().chain(records).map(Write::Put).collect()).await,
                    );
                }
                slow_is_over.store(true, Ordering::SeqCst);
                done
            }
        });
        let fast = (0..2).map(|writer| {
            let (handle, slow_is_over) = (handles[1 + writer].clone(), Arc::clone(&slow_is_over));
            tokio::spawn(async move {
                let mut done = Vec::new();
                while done.len() < 10 || !slow_is_over.load(Ordering::SeqCst) {
                    let project = format!("small {writer}");
                    let record = object(Kind::Entity, &project, "driver", format!("{round} {}", done.len()));
                    done.push(acknowledged(&handle, put(&record)).await);
                    tokio::task::yield_now().await;
                }
                done
            })
        });
        let (fast, seen_before) = (fast.collect::<Vec<_>>(), handles[3].whole_journal().await);
        let reader = tokio::spawn({
            let (handle, is_over) = (handles[3].clone(), Arc::clone(&is_over));
            let mut last = seen_before.last().map(|entry| entry.revision);
            async move {
                let (mut seen, mut looks) = (ids(&seen_before), 0);
                loop {
                    // Read before the journal, so that the last look is after the last commit.
                    let was_over = is_over.load(Ordering::SeqCst);
                    let more = ids(&handle.journal(last, 50).await);
                    for (revision, _) in &more {
                        assert!(last < Some(*revision), "after {last:?}, the journal has {revision}");
                        last = Some(*revision);
                    }
                    if more.is_empty() && was_over {
                        return (seen, looks);
                    }
                    looks += usize::from(!more.is_empty());
                    seen.extend(more);
                    tokio::task::yield_now().await;
                }
            }
        });
        let mut done = joined(slow).await;
        let spans = done.iter().map(|one| (one.began, one.ended)).collect::<Vec<_>>();
        done.extend(joined_all(fast).await.into_iter().flatten());
        is_over.store(true, Ordering::SeqCst);
        let (seen, looks) = joined(reader).await;
        let overtook =
            done[spans.len()..].iter().any(|small| any_overlap([&spans[..], &[(small.began, small.ended)]].concat()));
        rounds.saw(overtook && looks > 1);

        assert_eq!(seen, ids(&handles[0].whole_journal().await), "what a reader saw in {looks} looks, and the journal");
        let journaled: BTreeMap<CommitId, Revision> = seen.iter().map(|(revision, id)| (*id, *revision)).collect();
        assert_eq!(journaled.len(), seen.len(), "every commit is in the journal once");
        for one in &done {
            assert_eq!(
                journaled.get(&one.id),
                Some(&one.revision),
                "an acknowledged commit is where it was said to be"
            );
        }
        assert_real_time_order(done);
    }
    assert_replayed("after large and small commits raced", &handles[1]).await;
}

/// Checks that whatever began after another was acknowledged has a higher revision.
fn assert_real_time_order(mut done: Vec<Acknowledged>) {
    done.sort_by_key(|one| one.began);
    for (index, earlier) in done.iter().enumerate() {
        let later = done[index..].iter().find(|later| later.began > earlier.ended && later.revision < earlier.revision);
        assert!(
            later.is_none(),
            "a commit was acknowledged with revision {}, and one that began after that has {:?}",
            earlier.revision,
            later.map(|later| later.revision)
        );
    }
}

pub(crate) async fn it_outlives_its_handle(setup: Setup) {
    let store = setup.store().await;
    let journal = {
        let handle = store.handle().await;
        for number in 0..5 {
            handle.put(whole_project("p", &number.to_string())).await;
        }
        let journal = handle.whole_journal().await;
        handle.0.close().await;
        journal
    };
    assert_eq!(journal.len(), 5, "the journal after five commits");
    for _ in 0..2 {
        let handle = store.handle().await;
        let found = handle.whole_journal().await;
        assert!(found == journal, "the journal that a handle left: {:?} and not {:?}", ids(&found), ids(&journal));
    }
}

pub(crate) async fn it_outlives_the_removal_of_the_storage(setup: Setup) {
    let store = setup.store().await;
    let handles = store.handles(2).await;
    let mut journal = Vec::new();
    for round in 0..3 {
        handles[0].put(whole_project("p", &round.to_string())).await;
        handles[1].write(vec![Write::DeleteProject { project: "p".to_owned() }]).await;
        let before = handles[0].whole_journal().await;
        assert_eq!(before.len(), 2 * (round + 1), "round {round}: the journal before the storage is removed");
        assert!(before.starts_with(&journal), "round {round}: what was in the journal stays in it");
        let is_removed = or_fail("remove_if_empty", handles[1].0.remove_if_empty(&patience()).await);
        assert!(is_removed, "round {round}: a storage without a project is removed");
        for handle in &handles {
            assert!(handle.whole_journal().await == before, "round {round}: the journal of a storage that was removed");
        }
        journal = before;
    }
}

pub(crate) async fn pruning_keeps_what_is_young_and_takes_the_oldest(setup: Setup) {
    let store = setup.store().await;
    let handles = store.handles(2).await;
    // A clock that is slow makes some old, where a storage goes by the times of commits.
    let now = System.now().seconds;
    let day = i64::try_from(IDENTITY_KEPT_FOR.as_secs()).expect("it is a day");
    let ages = [3 * day, 3 * day, 2 * day, 60, 0];
    let mut commits = Vec::new();
    for (index, age) in ages.iter().enumerate() {
        let entity = object(Kind::Entity, "p", &format!("e{index}"), "");
        let commit = Commit::new(vec![(entity.key.clone(), Expected::Absent)], put(&entity));
        let commit = commit.with_time(Timestamp { seconds: now - age, nanos: 0 });
        commits.push((placed(&handles[0].send(commit.clone()).await), commit));
    }
    let before = handles[1].journal(None, 1000).await;
    let state = handles[1].objects(Kind::Entity, None).await;
    let retention = Retention::new(Duration::ZERO, 0);
    let mut removed = 0;
    loop {
        match handles[0].0.prune_journal(&retention, &patience()).await {
            Ok(0) => break,
            Ok(more) => removed += more,
            // It need not be able to.
            Err(error) if error.kind() == ErrorKind::Unsupported => return,
            Err(error) => panic!("a pruning failed: {}", chain(&error)),
        }
        assert!(removed < before.len() as u64, "the newest entry stays, and no entry is removed twice");
    }
    let after = handles[1].journal(None, 1000).await;
    assert_eq!(
        after.len() as u64 + removed,
        before.len() as u64,
        "entries that are there, and those that were removed"
    );
    assert_eq!(after, before[before.len() - after.len()..], "what was removed is the oldest");
    let young = commits.iter().zip(ages).filter(|(_, age)| *age < day).map(|(commit, _)| commit);
    for (revision, commit) in young {
        assert!(after.iter().any(|entry| entry.revision == *revision), "an entry that is younger than a day is gone");
        let again = handles[1].send(commit.clone()).await;
        assert_eq!(placed(&again), *revision, "where a commit is that is sent again, after a pruning");
    }
    if let Some(gone) = before.iter().take(before.len() - after.len()).next_back() {
        let read = handles[1].0.journal(&JournalQuery::after(gone.revision, 1), &patience()).await;
        let error = read.expect_err("a place that was removed is not there");
        assert_eq!(error.kind(), ErrorKind::Compacted, "{}", chain(&error));
    }
    assert_eq!(handles[1].objects(Kind::Entity, None).await, state, "what is stored, after a pruning");
    let entity = object(Kind::Entity, "p", "later", "");
    let later = placed(&handles[1].send(Commit::new(Vec::new(), put(&entity))).await);
    assert!(later > commits.last().expect("there are some").0, "revisions grow on after a pruning");
    // A handle that is new finds the same.
    assert_eq!(store.handle().await.journal(None, 1000).await.len(), after.len() + 1);
}
