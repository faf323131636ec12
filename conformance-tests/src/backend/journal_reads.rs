//! Reading the journal: from either end, without bytes, waiting for it to grow; and what it has of the changes of others.

use std::time::{Duration, Instant};

use feast_registry_core::{
    Change, Commit, Deadline, ErrorKind, Expected, Image, JournalEntry, JournalQuery, Key, Kind, Outcome, Record,
    Revision, Target, Write,
};

use crate::handle::{Handle, assert_unchanged, or_fail, patience};
use crate::race::joined;
use crate::replay::agree;
use crate::run::Setup;
use crate::sample::{AT, identity, last_updated, object, user_metadata, version, whole_project};
use crate::shown::shown;

/// What is told late is found within half of this; the rest is for a machine that has more to do than this.
const NOTICED_WITHIN: Duration = Duration::from_secs(4);

async fn look(handle: &Handle, query: &JournalQuery) -> Vec<JournalEntry> {
    or_fail("a look at the journal", handle.0.journal(query, &patience()).await)
}

fn revisions(entries: &[JournalEntry]) -> Vec<Revision> {
    entries.iter().map(|entry| entry.revision).collect()
}

#[track_caller]
fn assert_entries(property: &str, expected: &[JournalEntry], found: &[JournalEntry]) {
    assert!(
        expected == found,
        "{property}: the revisions {:?} should be told, with what was changed, and {:?} are",
        revisions(expected),
        revisions(found)
    );
}

pub(crate) async fn backwards_it_is_the_same_entries(setup: Setup) {
    let store = setup.store().await;
    let handles = store.handles(2).await;
    let nothing = look(&handles[0], &JournalQuery::before(None, 10)).await;
    assert_eq!(nothing, [], "the journal of a storage that nobody has written to, from its end");
    let unknown = look(&handles[0], &JournalQuery::before(Revision::new(7), 10)).await;
    assert_eq!(unknown, [], "what comes before a revision in the journal of a storage that nobody has written to");
    for number in 0..25 {
        // Some entries have many changes, and some none.
        let writes = match number % 5 {
            0 => whole_project("p", &number.to_string()).into_iter().map(Write::Put).collect(),
            1 => Vec::new(),
            2 => vec![Write::DeleteProject { project: "p".to_owned() }],
            _ => vec![Write::Put(object(Kind::Entity, "p", "driver", number.to_string()))],
        };
        handles[number % 2].write(writes).await;
    }
    let mut whole = handles[0].whole_journal().await;
    assert_eq!(whole.len(), 25, "the journal after 25 commits");
    whole.reverse();
    for limit in [1, 2, 7, 24, 25, 26, usize::MAX] {
        let mut read: Vec<JournalEntry> = Vec::new();
        loop {
            let before = read.last().map(|entry| entry.revision);
            let more = look(&handles[1], &JournalQuery::before(before, limit)).await;
            let expected = limit.min(whole.len() - read.len());
            assert_eq!(more.len(), expected, "entries before {before:?}, {limit} at the most");
            if more.is_empty() {
                break;
            }
            read.extend(more);
        }
        assert_entries(&format!("pages of {limit}, from the newest back"), &whole, &read);
    }
    // It need not be there: what came before it is known all the same.
    let near = |entry: &JournalEntry| {
        let number = entry.revision.number();
        [number.saturating_sub(1), number, number + 1]
    };
    for number in whole.iter().flat_map(near).chain([0, 1, u64::MAX]) {
        let before = Revision::new(number);
        let expected: Vec<JournalEntry> =
            whole.iter().filter(|entry| entry.revision < before).take(3).cloned().collect();
        let found = look(&handles[0], &JournalQuery::before(before, 3)).await;
        assert_entries(&format!("three entries before {before}"), &expected, &found);
    }
}

pub(crate) async fn without_images_it_says_what_was_there_and_what_was_not(setup: Setup) {
    let handle = setup.store().await.handle().await;
    let view = object(Kind::FeatureView, "p", "view", "one");
    let commits = [
        whole_project("p", "note").into_iter().map(Write::Put).collect(),
        vec![Write::Put(view.clone())],
        vec![Write::Put(object(Kind::FeatureView, "p", "view", "two"))],
        vec![Write::Put(version("p", "view", 0, "old")), Write::Put(user_metadata(Kind::FeatureView, "p", "view", ""))],
        vec![Write::DeleteVersions { project: "p".to_owned(), view: "view".to_owned() }],
        vec![Write::Delete(view.key)],
        Vec::new(),
        vec![Write::DeleteProject { project: "p".to_owned() }],
    ];
    for (number, writes) in commits.into_iter().enumerate() {
        let author = (number % 2 == 0).then(|| "alice".to_owned());
        handle.send(Commit::new(Vec::new(), writes).with_origin(author, Some(number.to_string()))).await;
    }
    for query in [JournalQuery::after(None, 100), JournalQuery::before(None, 100)] {
        let whole = look(&handle, &query).await;
        let expected: Vec<JournalEntry> = whole.into_iter().map(JournalEntry::without_images).collect();
        let bare = look(&handle, &query.without_images()).await;
        assert_eq!(bare.len(), expected.len(), "as many entries as with images");
        for (expected, found) in expected.iter().zip(&bare) {
            let differs: Vec<&Change> = expected
                .changes
                .iter()
                .zip(&found.changes)
                .filter(|(one, other)| one != other)
                .map(|(_, is)| is)
                .collect();
            assert!(
                expected == found,
                "without images, revision {} is not what it is with them; these changes differ: {}",
                expected.revision,
                shown(&differs)
            );
        }
    }
}

/// What `newest_revision` says; `None` where the storage has no journal, as it then has to say.
async fn newest(handle: &Handle) -> Option<Option<Revision>> {
    match handle.0.newest_revision(&patience()).await {
        Err(error) if error.kind() == ErrorKind::Unsupported => {
            assert!(!handle.0.limits().unkept.is_empty(), "a storage without a journal says so in `Limits::unkept`");
            None
        }
        answer => Some(or_fail("the newest revision", answer)),
    }
}

pub(crate) async fn the_newest_revision_is_that_of_the_last_commit(setup: Setup) {
    let store = setup.store().await;
    let handles = store.handles(2).await;
    let Some(none) = newest(&handles[0]).await else { return };
    assert_eq!(none, None, "the newest revision of a storage that nobody has written to");
    let mut last = None;
    for number in 0..20 {
        let writes = match number {
            18 => vec![Write::DeleteProject { project: "p".to_owned() }],
            19 => Vec::new(),
            _ => vec![Write::Put(object(Kind::Entity, "p", "driver", number.to_string()))],
        };
        match handles[number % 2].send(Commit::new(Vec::new(), writes)).await {
            Outcome::Committed { revision } => last = revision,
            other => panic!("a commit that expects nothing: {other:?}"),
        }
        for handle in &handles {
            let newest = newest(handle).await.flatten();
            assert_eq!(newest, last, "the newest revision after commit {number}, which nobody has followed");
        }
    }
    let journal = handles[0].whole_journal().await;
    assert_eq!(journal.last().map(|entry| entry.revision), last, "the last revision of the journal");
}

pub(crate) async fn waiting_ends_when_somebody_commits(setup: Setup) {
    let store = setup.store().await;
    let handles = store.handles(3).await;
    let mut last = None;
    for number in 0..6 {
        let waiters = [&handles[0], &handles[1]].map(|handle| {
            let handle = handle.clone();
            tokio::spawn(async move {
                let mut times = 0;
                // It may return for no reason; whoever waits looks into the journal.
                while handle.journal(last, 10).await.is_empty() {
                    times += 1;
                    handle.0.wait_for_commit(last, &patience()).await;
                }
                (Instant::now(), times)
            })
        });
        // Sometimes they wait already, and sometimes they are about to.
        tokio::time::sleep(Duration::from_millis(number * 20)).await;
        let committer = &handles[if number % 2 == 0 { 2 } else { 0 }];
        let commit = Commit::new(Vec::new(), vec![Write::Put(object(Kind::Entity, "p", "driver", number.to_string()))]);
        let outcome = committer.send(commit).await;
        let Outcome::Committed { revision } = outcome else { panic!("a commit that expects nothing: {outcome:?}") };
        let acknowledged = Instant::now();
        for waiter in waiters {
            let Ok(noticed) = tokio::time::timeout(NOTICED_WITHIN, waiter).await else {
                panic!("who waits for a commit has not noticed commit {number} after {NOTICED_WITHIN:?}");
            };
            let (noticed, times) = noticed.unwrap_or_else(|error| panic!("who waits for a commit failed: {error}"));
            let late = noticed.saturating_duration_since(acknowledged);
            assert!(late < NOTICED_WITHIN, "commit {number} was noticed after {late:?}");
            // Who is told at once, again and again, does not wait.
            assert!(times < 10_000, "who waits for commit {number} was told {times} times that there may be one");
        }
        last = revision;
    }
}

pub(crate) async fn waiting_ends_with_its_deadline(setup: Setup) {
    let store = setup.store().await;
    let handle = store.handle().await;
    handle.put([object(Kind::Entity, "p", "driver", "")]).await;
    let last = handle.whole_journal().await.last().map(|entry| entry.revision);
    for (property, after, time) in [
        ("after the last revision", last, Duration::from_millis(50)),
        ("with a deadline that is over", last, Duration::ZERO),
        ("after a revision that is yet to come", last.map(|last| Revision::new(last.number() + 10)), Duration::ZERO),
    ] {
        let waiting = tokio::spawn({
            let handle = handle.clone();
            async move { handle.0.wait_for_commit(after, &Deadline::after(time)).await }
        });
        let waited = tokio::time::timeout(time + NOTICED_WITHIN, joined(waiting)).await;
        assert!(waited.is_ok(), "{property}: waiting goes on {NOTICED_WITHIN:?} after its deadline of {time:?}");
    }
    // Nor does anything else end for it: neither for who leaves early nor for who comes next.
    drop(tokio::time::timeout(Duration::from_millis(5), handle.0.wait_for_commit(last, &patience())).await);
    handle.put([object(Kind::Entity, "p", "driver", "next")]).await;
    let waited = tokio::time::timeout(NOTICED_WITHIN, handle.0.wait_for_commit(last, &patience())).await;
    assert!(waited.is_ok(), "who waits for what is there already is told so");
}

/// Changes of everything that can be changed, each of a key of its own.
fn changes_of_others() -> Vec<Change> {
    let is = |record: &Record| Image::Value(record.value.clone());
    let mut changes = Vec::new();
    for &kind in Kind::ALL {
        let name = |state: &str| if kind == Kind::Project { "q".to_owned() } else { format!("{kind} {state}") };
        let record = |state: &str, filler: &str| object(kind, "q", &name(state), filler);
        // Of a project and of its infrastructure there is one.
        if !matches!(kind, Kind::Project | Kind::Infra) {
            let (made, removed) = (record("made", "new"), record("removed", "old"));
            changes.push(Change::of_key(made.key.clone(), Image::Absent, is(&made)));
            changes.push(Change::of_key(removed.key.clone(), is(&removed), Image::Absent));
        }
        let (old, new) = (record("changed", "old"), record("changed", "new"));
        changes.push(Change::of_key(old.key.clone(), is(&old), is(&new)));
        if kind.is_view() {
            let note = |bytes: &str| user_metadata(kind, "q", &name("changed"), bytes);
            changes.push(Change::of_key(note("").key, is(&note("old")), is(&note(""))));
        }
    }
    let (first, second) = (version("q", "view", 0, "first"), version("q", "view", 1, "second"));
    changes.push(Change::of_key(first.key.clone(), is(&first), Image::Absent));
    changes.push(Change::of_key(second.key.clone(), Image::Absent, is(&second)));
    changes.push(Change::of_key(
        version("q", "view", 2, "").key,
        is(&version("q", "view", 2, "a")),
        is(&version("q", "view", 2, "b")),
    ));
    let fact = last_updated("q", AT);
    changes.push(Change::of_key(fact.key.clone(), is(&fact), is(&last_updated("q", AT + 1))));
    changes.push(Change::of_key(identity("q", 1).key, Image::Absent, is(&identity("q", 1))));
    let (project, view) = ("q".to_owned(), "view".to_owned());
    changes.push(Change::removal(Target::Versions { project: project.clone(), view }));
    changes.push(Change::removal(Target::Project { project }));
    changes
}

#[track_caller]
fn assert_changes(property: &str, expected: &[Change], found: &[Change]) {
    let is_same = |(one, other): (&Change, &Change)| {
        one.target == other.target && agree(&one.before, &other.before) && agree(&one.after, &other.after)
    };
    if let Some(index) = expected.iter().zip(found).position(|pair| !is_same(pair)) {
        let (expected, found) = (shown(&expected[index]), shown(&found[index]));
        panic!("{property}: change {index} should be {expected}, and is {found}");
    }
    assert_eq!(expected.len(), found.len(), "{property}: the number of changes");
}

pub(crate) async fn what_others_did_is_journaled_and_not_written(setup: Setup) {
    let store = setup.store().await;
    let handles = store.handles(2).await;
    handles[0].put(whole_project("p", "note")).await;
    // Some of it happens to be stored otherwise.
    handles[0].put([object(Kind::Entity, "q", "entity changed", "as it is stored"), last_updated("q", 7)]).await;
    let observed = changes_of_others();
    let entity = object(Kind::Entity, "p", "driver", "");
    let written = Change::of_key(entity.key.clone(), Image::Absent, Image::Value(entity.value.clone()));
    for (property, writes, own) in [
        ("changes of others alone", Vec::new(), Vec::new()),
        ("changes of others after a write", vec![Write::Put(entity.clone())], vec![written]),
        (
            "changes of others after a deletion",
            vec![Write::Delete(entity.key.clone())],
            vec![Change::of_key(entity.key.clone(), Image::Value(entity.value.clone()), Image::Absent)],
        ),
    ] {
        let before = handles[0].everything(&[("q", "view")]).await;
        let commit = Commit::new(Vec::new(), writes)
            .with_origin(Some("outside".to_owned()), None)
            .with_observed(observed.clone());
        let id = commit.id;
        handles[0].send(commit).await;
        let after = handles[1].everything(&[("q", "view")]).await;
        let without = |mut everything: crate::handle::Everything| {
            everything.remove(&entity.key);
            everything
        };
        assert_unchanged(property, &without(before), &without(after));
        let journal = handles[1].whole_journal().await;
        let entry = journal.last().filter(|entry| entry.id == id);
        let entry = entry.unwrap_or_else(|| panic!("{property}: the journal ends with the entry of the commit"));
        assert_eq!(entry.author.as_deref(), Some("outside"), "{property}: who made it");
        assert_changes(property, &[own, observed.clone()].concat(), &entry.changes);
    }
}

pub(crate) async fn what_others_did_is_journaled_once_and_only_if_all_is_as_expected(setup: Setup) {
    let store = setup.store().await;
    let handles = store.handles(2).await;
    let entity = object(Kind::Entity, "p", "driver", "");
    handles[0].put([entity.clone()]).await;
    let observed =
        vec![Change::of_key(Key::object(Kind::Entity, "q", "made"), Image::Absent, Image::Value("x".into()))];
    let commit = |expected: Expected| {
        Commit::new(vec![(entity.key.clone(), expected)], Vec::new()).with_observed(observed.clone())
    };
    let refused = commit(Expected::Absent);
    let outcome = handles[0].send(refused).await;
    assert_eq!(outcome, Outcome::Conflict(entity.key.clone()), "changes of others with what does not hold");
    assert_eq!(handles[1].whole_journal().await.len(), 1, "the journal after a commit that was refused");
    let taken = commit(Expected::Value(entity.value.clone()));
    let first = handles[0].send(taken.clone()).await;
    assert!(first.is_committed(), "changes of others with what holds: {first:?}");
    handles[1].write(vec![Write::Delete(entity.key.clone())]).await;
    for handle in &handles {
        assert_eq!(handle.send(taken.clone()).await, first, "the same commit once more");
    }
    let journal = handles[1].whole_journal().await;
    let of_others = journal.iter().filter(|entry| entry.id == taken.id).collect::<Vec<_>>();
    assert_eq!((journal.len(), of_others.len()), (3, 1), "all entries of the journal, and those of the commit");
    assert_changes("changes of others, sent three times", &observed, &of_others[0].changes);
}
