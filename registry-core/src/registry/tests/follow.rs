//! Cached reads and watchers of a storage with a journal: what others commit comes by itself.

use futures_util::StreamExt as _;
use proptest::prelude::*;

use super::*;
use crate::cache::Cache;
use crate::journal::{Image, JournalFilter, Target};
use crate::registry::WatchEvent;
use crate::{Commit, Expected, OUTSIDE, Outcome};

/// For ever, so that nothing is read anew by itself.
const NEVER: CacheConfig = CacheConfig { mode: CacheMode::Sync, ttl: Duration::ZERO };

/// Two registries on one storage, as of two processes.
async fn two() -> (Registry, Registry, Arc<Moody>) {
    let storage = Arc::new(Moody::default());
    let open = || async {
        let storage = Arc::clone(&storage) as Arc<dyn Backend>;
        Registry::open(storage, RegistryOptions::default().with_cache(NEVER)).await.expect("a registry")
    };
    (open().await, open().await, storage)
}

#[tokio::test(start_paused = true)]
async fn what_another_process_commits_shows_within_a_second_and_not_everything_is_read() {
    let (here, there, storage) = two().await;
    for number in 0..10 {
        here.apply("p", entity(&format!("driver {number}"), "before")).await.expect("an apply");
    }
    assert_eq!(read(&there, "driver 3", Freshness::Cached).await.as_deref(), Some("before"));
    tokio::time::sleep(Duration::from_secs(5)).await;
    storage.queried.lock().expect("not poisoned").clear();
    here.apply("p", entity("driver 3", "after")).await.expect("an apply");
    here.apply("q", entity("rider", "new")).await.expect("an apply");
    here.delete(Kind::Entity, "p", "driver 4").await.expect("a deletion");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(read(&there, "driver 3", Freshness::Cached).await.as_deref(), Some("after"));
    assert_eq!(read(&there, "driver 4", Freshness::Cached).await, None);
    assert_eq!(
        there.list(Kind::Entity, Some("q"), &ListFilter::default(), Freshness::Cached).await.expect("a list").len(),
        1
    );
    let queried = storage.queried.lock().expect("not poisoned").clone();
    assert!(!queried.iter().any(|query| matches!(query, Query::Objects { .. })), "{queried:?}");
    here.delete_project("p").await.expect("a deletion");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(read(&there, "driver 3", Freshness::Cached).await, None);
}

#[tokio::test(start_paused = true)]
async fn what_is_in_no_journal_is_found_and_journaled_once_whoever_finds_it() {
    let (here, there, storage) = two().await;
    here.apply("p", entity("driver", "before")).await.expect("an apply");
    here.apply("p", view("trips", &["fare"])).await.expect("an apply");
    for registry in [&here, &there] {
        assert_eq!(read(registry, "driver", Freshness::Cached).await.as_deref(), Some("before"));
    }
    let mut watch = there.watch(None, JournalFilter::new()).await.expect("a watch");
    tokio::time::sleep(Duration::from_secs(5)).await;
    let write = |key: Key, value: Bytes| Write::Put(Record::new(key, value, 1));
    let note = |second: &str| write(Key::metadata("p", Key::LAST_UPDATED), Bytes::copy_from_slice(second.as_bytes()));
    let mut seconds = 4_000_000_000_u64..;
    let mut note_now = || note(&seconds.next().expect("a second").to_string());
    let driver =
        |description: &str| write(Key::object(Kind::Entity, "p", "driver"), entity("driver", description).bytes);
    // There, back, and there again; each is one change.
    for description in ["outside", "before", "outside"] {
        storage.inner.write_outside(vec![driver(description), note_now()]);
        tokio::time::sleep(Duration::from_secs(15)).await;
        for registry in [&here, &there] {
            assert_eq!(read(registry, "driver", Freshness::Cached).await.as_deref(), Some(description));
        }
    }
    // In a second that is noted already.
    let same = note_now();
    storage.inner.write_outside(vec![driver("early"), same.clone()]);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    storage.inner.write_outside(vec![driver("late"), same]);
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert_eq!(read(&here, "driver", Freshness::Cached).await.as_deref(), Some("late"));
    storage.inner.write_outside(vec![Write::DeleteProject { project: "p".to_owned() }]);
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert_eq!(read(&there, "driver", Freshness::Cached).await, None);

    let (mut of_driver, mut removals) = (Vec::new(), 0);
    while let Ok(Some(event)) = tokio::time::timeout(Duration::from_secs(1), watch.next()).await {
        let WatchEvent::Commit(entry) = event.expect("an event") else { continue };
        assert_eq!(entry.author.as_deref(), Some(OUTSIDE));
        for change in &entry.changes {
            match &change.target {
                Target::Key(Key::Object { name, .. }) if name == "driver" => {
                    let Image::Value(after) = &change.after else { continue };
                    let shown = Object::new(Kind::Entity, after.clone());
                    of_driver.push(shown.decode::<Entity>().expect("an entity").spec.unwrap_or_default().description);
                }
                Target::Project { .. } => removals += 1,
                _ => {}
            }
        }
    }
    assert_eq!(of_driver, ["outside", "before", "outside", "early", "late"]);
    assert_eq!(removals, 1);
    let journal = here.journal(&JournalQuery::after(None, 1000)).await.expect("the journal");
    let of_outside = journal.iter().filter(|entry| entry.author.as_deref() == Some(OUTSIDE));
    let notes: Vec<_> = of_outside.flat_map(|entry| entry.changes.clone()).collect();
    assert!(!notes.is_empty());
    assert_replays(&journal, &storage).await;
}

/// Feast notes changes in whole seconds: what it writes in the second of a journaled write, or before one, is given away by nothing.
#[tokio::test(start_paused = true)]
async fn what_is_written_in_the_second_of_a_journaled_write_is_found_soon() {
    let (here, there, storage) = two().await;
    here.apply("p", entity("driver", "before")).await.expect("an apply");
    for registry in [&here, &there] {
        assert_eq!(read(registry, "driver", Freshness::Cached).await.as_deref(), Some("before"));
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    let put = |name: &str, description: &str| {
        Write::Put(Record::new(Key::object(Kind::Entity, "p", name), entity(name, description).bytes, 1))
    };
    let journaled = async |second: u64, description: &str| {
        let note = Record::new(Key::metadata("p", Key::LAST_UPDATED), Bytes::from(second.to_string()), 1);
        let commit = Commit::new(Vec::new(), vec![put("rider", description), Write::Put(note)]);
        let deadline = Deadline::after(Duration::from_secs(60));
        let outcome = storage.inner.commit(commit, &deadline).await.expect("a commit");
        assert!(matches!(outcome, Outcome::Committed { .. }));
    };
    // The note is that of a journaled write in each case; a busy project is no exception.
    let mut seconds = 4_000_000_000_u64..;
    for (description, busy) in [("with it", 0), ("without a pause", 30)] {
        journaled(seconds.next().expect("a second"), description).await;
        storage.inner.write_outside(vec![put("driver", description)]);
        for round in 0..busy {
            tokio::time::sleep(Duration::from_secs(1)).await;
            journaled(seconds.next().expect("a second"), &format!("{round}")).await;
        }
        tokio::time::sleep(if busy == 0 { Duration::from_secs(4) } else { Duration::ZERO }).await;
        for registry in [&here, &there] {
            assert_eq!(read(registry, "driver", Freshness::Cached).await.as_deref(), Some(description));
        }
    }
    let journal = here.journal(&JournalQuery::after(None, 1000)).await.expect("the journal");
    assert_eq!(journal.iter().filter(|entry| entry.author.as_deref() == Some(OUTSIDE)).count(), 2);
    // Then there is rest.
    tokio::time::sleep(Duration::from_secs(30)).await;
    storage.queried.lock().expect("not poisoned").clear();
    tokio::time::sleep(Duration::from_secs(30)).await;
    let queried = storage.queried.lock().expect("not poisoned").clone();
    assert!(!queried.iter().any(|query| matches!(query, Query::Objects { .. })), "{queried:?}");
}

/// Clients ask for a refresh when they please, and it must not hide what it finds.
#[tokio::test(start_paused = true)]
async fn what_a_refresh_finds_is_journaled_too() {
    let (here, there, storage) = two().await;
    here.apply("p", entity("driver", "before")).await.expect("an apply");
    for registry in [&here, &there] {
        assert_eq!(read(registry, "driver", Freshness::Cached).await.as_deref(), Some("before"));
    }
    for (round, description) in ["first", "second", "first"].into_iter().enumerate() {
        let value = entity("driver", description).bytes;
        storage.inner.write_outside(vec![Write::Put(Record::new(Key::object(Kind::Entity, "p", "driver"), value, 1))]);
        // What this process writes meanwhile was not made outside.
        here.apply("p", entity("rider", description)).await.expect("an apply");
        here.refresh().await.expect("a refresh");
        there.refresh().await.expect("a refresh");
        // It is journaled in the background.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let journal = here.journal(&JournalQuery::after(None, 100)).await.expect("the journal");
        let outside: Vec<_> = journal.iter().filter(|entry| entry.author.as_deref() == Some(OUTSIDE)).collect();
        assert_eq!(outside.len(), round + 1, "{outside:?}");
        assert_replays(&journal, &storage).await;
    }
}

/// The journal from its beginning is what is stored, byte for byte.
async fn assert_replays(journal: &[JournalEntry], storage: &Moody) {
    let mut replayed = std::collections::BTreeMap::new();
    for change in journal.iter().flat_map(|entry| &entry.changes) {
        match (&change.target, &change.after) {
            (Target::Key(key), Image::Value(value)) => drop(replayed.insert(key.clone(), value.clone())),
            (Target::Key(key), _) => drop(replayed.remove(key)),
            (Target::Project { project }, _) => replayed.retain(|key, _| key.project() != project),
            (Target::Versions { project, view }, _) => replayed
                .retain(|key, _| !matches!(key, Key::Version { project: p, view: v, .. } if p == project && v == view)),
        }
    }
    let stored: std::collections::BTreeMap<Key, Bytes> =
        storage.inner.all().into_iter().map(|record| (record.key, record.value)).collect();
    assert_eq!(replayed, stored);
}

/// What is done to a storage, and when a cache hears of it.
#[derive(Debug, Clone)]
enum Step {
    /// Another process writes a key, or removes it.
    Other(u8, Option<u8>),
    /// This process commits, and shows it after so many more steps.
    Own(u8, Option<u8>, u8),
    /// This process deletes the project.
    OwnRemoval(u8),
    OtherRemoval,
    /// Somebody writes without a journal.
    Outside(u8, Option<u8>),
    Follow,
    Refresh,
}

fn step() -> impl Strategy<Value = Step> {
    let key = || 0_u8..4;
    let value = || proptest::option::weighted(0.8, 0_u8..3);
    prop_oneof![
        4 => (key(), value()).prop_map(|(key, value)| Step::Other(key, value)),
        4 => (key(), value(), 0_u8..5).prop_map(|(key, value, late)| Step::Own(key, value, late)),
        1 => (0_u8..5).prop_map(Step::OwnRemoval),
        1 => Just(Step::OtherRemoval),
        1 => (key(), value()).prop_map(|(key, value)| Step::Outside(key, value)),
        4 => Just(Step::Follow),
        1 => Just(Step::Refresh),
    ]
}

fn write(key: u8, value: Option<u8>) -> Write {
    let key = Key::object(Kind::Entity, "p", format!("{key}"));
    match value {
        Some(value) => Write::Put(Record::new(key, entity("driver", &value.to_string()).bytes, 1)),
        None => Write::Delete(key),
    }
}

/// Does the steps; in the end, when all is known to the cache, it has what is stored. What this process has committed is
/// shown at once, or what was committed of it later.
async fn run(steps: Vec<Step>) {
    let storage = Arc::new(MemoryBackend::new());
    let cache = Cache::new(NEVER, true, Arc::clone(&storage) as Arc<dyn Backend>, None);
    let deadline = Deadline::after(Duration::from_secs(60));
    cache.refresh(&deadline).await.expect("a refresh");
    let mut late: Vec<(u8, Vec<Write>, Option<Revision>)> = Vec::new();
    let commit = |writes: Vec<Write>| {
        let (storage, deadline) = (Arc::clone(&storage), deadline.clone());
        async move {
            match storage.commit(Commit::new(Vec::<(Key, Expected)>::new(), writes), &deadline).await {
                Ok(Outcome::Committed { revision }) => revision,
                other => panic!("{other:?}"),
            }
        }
    };
    let mut is_outside = false;
    for step in steps {
        match step {
            Step::Other(key, value) => drop(commit(vec![write(key, value)]).await),
            Step::OtherRemoval => drop(commit(vec![Write::DeleteProject { project: "p".to_owned() }]).await),
            Step::Own(..) | Step::OwnRemoval(_) => {
                let (writes, after) = match step {
                    Step::Own(key, value, after) => (vec![write(key, value)], after),
                    Step::OwnRemoval(after) => (vec![Write::DeleteProject { project: "p".to_owned() }], after),
                    _ => unreachable!(),
                };
                // Writers of one object queue in a process, and hold their place until it shows.
                late.drain(..).for_each(|(_, writes, revision)| cache.apply(writes, revision));
                let revision = commit(writes.clone()).await;
                late.push((after, writes, revision));
            }
            Step::Outside(key, value) => {
                is_outside = true;
                storage.write_outside(vec![write(key, value)]);
            }
            Step::Follow => drop(cache.follow_once().await),
            Step::Refresh => cache.refresh(&deadline).await.expect("a refresh"),
        }
        for (after, writes, revision) in std::mem::take(&mut late) {
            if after > 0 {
                late.push((after - 1, writes, revision));
                continue;
            }
            cache.apply(writes.clone(), revision);
            if is_outside {
                continue;
            }
            let after = JournalQuery::after(revision, 1000);
            let later = storage.journal(&after, &deadline).await.expect("the journal");
            for write in &writes {
                let (key, own) = match write {
                    Write::Put(record) => (&record.key, Some(record.value.clone())),
                    Write::Delete(key) => (key, None),
                    _ => continue,
                };
                let since = later.iter().flat_map(|entry| &entry.changes).filter_map(|change| match &change.after {
                    Image::Value(value) if change.target == Target::Key(key.clone()) => Some(Some(value.clone())),
                    _ if change.target == Target::Key(key.clone()) => Some(None),
                    _ => None,
                });
                let right: Vec<Option<Bytes>> = [own].into_iter().chain(since).collect();
                let shown =
                    cache.read(|contents| contents.records_of(std::slice::from_ref(key))).expect("it is filled");
                let shown = shown.into_iter().next().map(|record| record.value);
                assert!(right.contains(&shown), "{key}: {shown:?} is none of {right:?}");
            }
        }
    }
    late.drain(..).for_each(|(_, writes, revision)| cache.apply(writes, revision));
    cache.follow_once().await.expect("it is followed");
    if is_outside {
        cache.refresh(&deadline).await.expect("a refresh");
    }
    let stored: std::collections::BTreeMap<Key, Bytes> =
        storage.all().into_iter().map(|record| (record.key, record.value)).collect();
    let shown = cache.read(|contents| contents.records(Kind::Entity, None)).expect("it is filled");
    let shown: std::collections::BTreeMap<Key, Bytes> =
        shown.into_iter().map(|record| (record.key, record.value)).collect();
    assert_eq!(shown, stored);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn whatever_comes_in_whatever_order_the_cache_ends_with_what_is_stored(steps in proptest::collection::vec(step(), 0..30)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(run(steps));
    }
}

#[tokio::test(start_paused = true)]
async fn when_the_journal_is_lost_everything_is_read_anew() {
    let (here, there, storage) = two().await;
    here.apply("p", entity("driver", "before")).await.expect("an apply");
    assert_eq!(read(&there, "driver", Freshness::Cached).await.as_deref(), Some("before"));
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut watch = there.watch(None, JournalFilter::new()).await.expect("a watch");
    storage.inner.forget_journal();
    storage.plant(Key::object(Kind::Entity, "p", "driver"), entity("driver", "after").bytes).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(read(&there, "driver", Freshness::Cached).await.as_deref(), Some("after"));
    let told = loop {
        match watch.next().await {
            Some(Ok(WatchEvent::Bookmark(_))) => {}
            told => break told,
        }
    };
    let error = told.expect("it is told").expect_err("what came meanwhile cannot be told");
    assert_eq!(error.kind(), ErrorKind::Compacted);
    assert!(watch.next().await.is_none(), "a watch ends with an error");
    storage.plant(Key::object(Kind::Entity, "p", "driver"), entity("driver", "later").bytes).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(read(&there, "driver", Freshness::Cached).await.as_deref(), Some("later"), "it is followed again");
}

/// Fault: commits of others that came in a gap of the journal were journaled a second time, as made outside.
#[tokio::test(start_paused = true)]
async fn what_came_in_a_gap_of_the_journal_is_not_said_to_be_made_outside() {
    let (here, there, storage) = two().await;
    here.apply("p", entity("driver", "before")).await.expect("an apply");
    assert_eq!(read(&there, "driver", Freshness::Cached).await.as_deref(), Some("before"));
    tokio::time::sleep(Duration::from_secs(2)).await;
    storage.plant(Key::object(Kind::Entity, "p", "rider"), entity("rider", "in the gap").bytes).await;
    storage.inner.forget_journal();
    tokio::time::sleep(Duration::from_secs(5)).await;
    for registry in [&here, &there] {
        assert_eq!(read(registry, "rider", Freshness::Cached).await.as_deref(), Some("in the gap"));
    }
    let journal = here.journal(&JournalQuery::after(None, 100)).await.expect("the journal");
    let outside = journal.iter().filter(|entry| entry.author.as_deref() == Some(OUTSIDE));
    assert_eq!(outside.count(), 0, "{journal:?}");
}

/// Fault: a watcher of a registry that nobody had read from was told of nothing that was made outside.
#[tokio::test(start_paused = true)]
async fn who_only_watches_is_told_of_what_is_made_outside() {
    let (here, there, storage) = two().await;
    here.apply("p", entity("driver", "before")).await.expect("an apply");
    let mut watch = there.watch(None, JournalFilter::new()).await.expect("a watch");
    tokio::time::sleep(Duration::from_secs(5)).await;
    let driver = Record::new(Key::object(Kind::Entity, "p", "driver"), entity("driver", "outside").bytes, 1);
    let note = Record::new(Key::metadata("p", Key::LAST_UPDATED), &b"4000000000"[..], 1);
    storage.inner.write_outside(vec![Write::Put(driver), Write::Put(note)]);
    let told = tokio::time::timeout(Duration::from_secs(8), watch.next()).await.expect("it is told");
    let WatchEvent::Commit(entry) = told.expect("it goes on").expect("an event") else { panic!("a bookmark") };
    assert_eq!(entry.author.as_deref(), Some(OUTSIDE));
}

/// Fault: a watcher was told that nothing happened while the storage was away.
#[tokio::test(start_paused = true)]
async fn a_watch_ends_when_the_storage_is_silent_for_long() {
    let (_, there, storage) = two().await;
    there.apply("p", entity("driver", "before")).await.expect("an apply");
    let mut watch = there.watch(None, JournalFilter::new()).await.expect("a watch");
    tokio::time::sleep(Duration::from_secs(5)).await;
    storage.has_no_answer.store(true, Ordering::SeqCst);
    let ended = tokio::time::timeout(Duration::from_secs(120), async {
        loop {
            match watch.next().await {
                Some(Ok(WatchEvent::Bookmark(_))) => {}
                other => break other,
            }
        }
    });
    let error = ended.await.expect("it ends").expect("it is told").expect_err("the storage is away");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn each_commit_is_told_once_to_who_comes_early_late_or_goes_on() {
    let (here, there, _storage) = two().await;
    let revisions = |entries: &[JournalEntry]| entries.iter().map(|entry| entry.revision).collect::<Vec<_>>();
    for number in 0..300 {
        here.apply("p", entity(&format!("{number}"), "")).await.expect("an apply");
    }
    let whole = here.journal(&JournalQuery::after(None, 1000)).await.expect("the journal");
    let start = whole[10].revision;
    let mut early = there.watch(Some(start), JournalFilter::new()).await.expect("a watch");
    let mut now = there.watch(None, JournalFilter::new()).await.expect("a watch");
    let mut seen = Vec::new();
    let next = async |watch: &mut crate::registry::Watch| loop {
        if let WatchEvent::Commit(entry) = watch.next().await.expect("it goes on").expect("an event") {
            return entry.revision;
        }
    };
    for _ in 0..100 {
        seen.push(next(&mut early).await);
    }
    // It is cut off, and another goes on.
    drop(early);
    let mut resumed = here.watch(seen.last().copied(), JournalFilter::new()).await.expect("a watch");
    for number in 0..200 {
        there.apply("p", entity(&format!("later {number}"), "")).await.expect("an apply");
    }
    let whole = revisions(&here.journal(&JournalQuery::after(None, 1000)).await.expect("the journal"));
    while seen.len() < whole.len() - 11 {
        seen.push(next(&mut resumed).await);
    }
    assert_eq!(seen, whole[11..]);
    let mut of_now = Vec::new();
    for _ in 0..200 {
        of_now.push(next(&mut now).await);
    }
    assert_eq!(of_now, whole[whole.len() - 200..]);
    let bookmark = tokio::time::timeout(Duration::from_secs(20), now.next()).await.expect("in time");
    assert_eq!(bookmark.expect("it goes on").expect("an event"), WatchEvent::Bookmark(*whole.last().expect("some")));
}
