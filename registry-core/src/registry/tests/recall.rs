//! Writes that decide from what the cache holds: fewer reads, and never a word that the storage has not confirmed.

use prost_types::Timestamp;

use super::*;

async fn open_cached() -> (Registry, Arc<Moody>) {
    let (registry, storage) = open().await;
    registry.apply("p", entity("driver", "before")).await.expect("an apply");
    registry.apply("p", view("stats", &["trips"])).await.expect("an apply");
    registry.refresh().await.expect("a refresh");
    (registry, storage)
}

/// How many reads and commits a call made.
async fn cost<T>(storage: &Moody, call: impl Future<Output = Result<T>>) -> (usize, usize) {
    let before = (storage.reads(), storage.commits().len());
    call.await.expect("a write");
    (storage.reads() - before.0, storage.commits().len() - before.1)
}

fn second(number: i64) -> Option<Timestamp> {
    Some(Timestamp { seconds: number, nanos: 0 })
}

#[tokio::test(start_paused = true)]
async fn who_writes_what_is_held_reads_nothing_before() {
    let (registry, storage) = open_cached().await;
    assert_eq!(cost(&storage, registry.apply("p", entity("rider", "new"))).await, (0, 1));
    assert_eq!(cost(&storage, registry.apply("p", entity("driver", "after"))).await, (0, 1));
    let materialize = registry.apply_materialization("p", "stats", second(1), second(2));
    assert_eq!(cost(&storage, materialize).await, (0, 1));
    // A deletion is no reason to make tables that are gone, and a history is not held.
    assert_eq!(cost(&storage, registry.delete(Kind::Entity, "p", "driver")).await, (1, 1));
    assert_eq!(cost(&storage, registry.apply("p", view("stats", &["trips", "rating"]))).await, (1, 1));
}

/// Another process has changed each of these meanwhile, and the cache does not know.
#[tokio::test(start_paused = true)]
async fn what_is_held_and_no_longer_so_has_no_effect() {
    let (registry, storage) = open_cached().await;
    let key = |name: &str| Key::object(Kind::Entity, "p", name);
    storage.plant(key("driver"), entity("driver", "theirs").bytes).await;
    storage.plant(key("rider"), entity("rider", "theirs").bytes).await;
    // As it is held: there would be nothing to write.
    registry.apply("p", entity("driver", "before")).await.expect("an apply");
    let stored = read(&registry, "driver", Freshness::Stored).await;
    assert_eq!(stored.as_deref(), Some("before"), "acknowledged and not stored");
    // Of what is held it is not there.
    registry.delete(Kind::Entity, "p", "rider").await.expect("a deletion");
    assert_eq!(storage.stored(Kind::Entity, "rider").await, None);
    // What they have recorded stays.
    let other = Registry::open(Arc::clone(&storage) as Arc<dyn Backend>, RegistryOptions::default()).await;
    let other = other.expect("another process");
    other.apply_materialization("p", "stats", second(1), second(2)).await.expect("theirs");
    let materialize = registry.apply_materialization("p", "stats", second(3), second(4));
    assert_eq!(cost(&storage, materialize).await, (1, 2), "the first commit must not be done");
    let view: FeatureView = registry.get_message("p", "stats", Freshness::Stored).await.expect("the view");
    let starts = view.meta.unwrap_or_default().materialization_intervals.into_iter();
    assert_eq!(starts.map(|interval| interval.start_time).collect::<Vec<_>>(), [second(1), second(3)]);
}

/// Each write in a project that is held wrong would else be tried twice.
#[tokio::test(start_paused = true)]
async fn what_was_found_wrong_is_relied_on_no_more() {
    let (registry, storage) = open_cached().await;
    let other = Registry::open(Arc::clone(&storage) as Arc<dyn Backend>, RegistryOptions::default()).await;
    other.expect("another process").apply("q", entity("theirs", "")).await.expect("a project");
    assert_eq!(cost(&storage, registry.apply("q", entity("first", "own"))).await, (1, 2));
    assert_eq!(cost(&storage, registry.apply("q", entity("second", "own"))).await, (1, 1));
    registry.refresh().await.expect("a refresh");
    assert_eq!(cost(&storage, registry.apply("q", entity("third", "own"))).await, (0, 1));
}

/// The error of a commit that need not be is not told.
#[tokio::test(start_paused = true)]
async fn what_is_stored_already_is_applied_where_nothing_can_be_written() {
    let (registry, storage) = open_cached().await;
    let other = Registry::open(Arc::clone(&storage) as Arc<dyn Backend>, RegistryOptions::default()).await;
    other.expect("another process").apply("p", entity("driver", "after")).await.expect("theirs");
    for kind in [ErrorKind::ReadOnly, ErrorKind::Unavailable] {
        storage.committing(Mood::Fail(kind));
        let edited = registry.apply("p", entity("driver", "after")).await.expect("there is nothing to do");
        assert!(!edited.has_changed);
        let refused = registry.apply("p", entity("driver", "other")).await.expect_err("it cannot be written");
        assert_eq!(refused.kind(), kind);
    }
}

/// A project that was deleted and made anew is another one, with other facts.
#[tokio::test(start_paused = true)]
async fn a_project_that_was_made_anew_is_not_taken_for_the_one_that_is_held() {
    let (registry, storage) = open_cached().await;
    let options = RegistryOptions { purge_feast_metadata: true, ..RegistryOptions::default() };
    let other = Registry::open(Arc::clone(&storage) as Arc<dyn Backend>, options).await.expect("another process");
    other.delete_project("p").await.expect("deleted");
    tokio::time::sleep(Duration::from_secs(1)).await;
    other.apply("p", entity("theirs", "")).await.expect("made anew, without an identity");
    registry.apply("p", entity("own", "")).await.expect("an apply");
    let facts = registry.list_project_metadata("p", Freshness::Stored).await.expect("facts");
    assert!(facts.iter().any(|facts| !facts.project_uuid.is_empty()), "{facts:?}");
}

/// Of writers that meet, the slower one finds that the cache has caught up: it was not wrong.
#[tokio::test(start_paused = true)]
async fn what_was_written_here_meanwhile_is_not_doubted() {
    let (registry, storage) = open_cached().await;
    let cache = &registry.inner.cache;
    let key = Key::object(Kind::Entity, "p", "driver");
    let queries = [Query::Keys(vec![key.clone()])];
    let recalled = cache.recall(&queries).expect("it is held").remove(0).remove(0);
    registry.apply("p", entity("driver", "meanwhile")).await.expect("a faster writer");
    cache.doubt(key.clone(), Some(&recalled));
    let recalled = cache.recall(&queries).expect("it is still relied on").remove(0).remove(0);
    assert_eq!(Some(&recalled.value), storage.stored(Kind::Entity, "driver").await.as_ref());
    cache.doubt(key, Some(&recalled));
    assert!(cache.recall(&queries).is_none());
}

/// What cannot be decoded is for the storage to tell, in its words.
#[tokio::test(start_paused = true)]
async fn an_object_that_is_not_sound_is_read() {
    let (registry, storage) = open_cached().await;
    storage.plant(Key::object(Kind::Entity, "p", "broken"), &b"\xff\xff"[..]).await;
    registry.refresh().await.expect("a refresh");
    assert_eq!(cost(&storage, registry.apply("p", entity("broken", "mended"))).await, (1, 1));
    assert_eq!(cost(&storage, registry.apply("p", entity("broken", "again"))).await, (0, 1));
}
