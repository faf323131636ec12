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
    assert_eq!(cost(&storage, registry.delete(Kind::Entity, "p", "driver")).await, (0, 1));
    assert_eq!(storage.stored(Kind::Entity, "driver").await, None);
    // A history is not held.
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

/// What cannot be decoded is for the storage to tell, in its words.
#[tokio::test(start_paused = true)]
async fn an_object_that_is_not_sound_is_read() {
    let (registry, storage) = open_cached().await;
    storage.plant(Key::object(Kind::Entity, "p", "broken"), &b"\xff\xff"[..]).await;
    registry.refresh().await.expect("a refresh");
    assert_eq!(cost(&storage, registry.apply("p", entity("broken", "mended"))).await, (1, 1));
    assert_eq!(cost(&storage, registry.apply("p", entity("broken", "again"))).await, (0, 1));
}
