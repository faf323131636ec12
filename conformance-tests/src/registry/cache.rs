//! Cached reads: without the storage, and never without what this process has written.

use std::time::{Duration, Instant};

use feast_registry_core::config::{CacheConfig, CacheMode};
use feast_registry_core::{ErrorKind, Freshness, Image, JournalQuery, Kind, ListFilter, Object, Registry};

use crate::handle::{or_fail, patience};
use crate::race::{RACERS, Rounds, race};
use crate::run::Setup;
use crate::sample::{applied, at, filler, interval, view};
use crate::store::cache;

/// Longer than any test.
const FOREVER: Duration = Duration::from_secs(3600);

/// What a cached read of an entity has; `None` when it is not there.
async fn cached(registry: &Registry, project: &str, name: &str) -> Option<String> {
    match registry.get(Kind::Entity, project, name, Freshness::Cached).await {
        Ok(object) => Some(String::from_utf8_lossy(&filler(&object.bytes)).into_owned()),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound(_)) => None,
        Err(error) => or_fail("a cached read", Err(error)),
    }
}

async fn apply(registry: &Registry, project: &str, object: Object) {
    or_fail("an apply", registry.apply(project, object).await);
}

pub(crate) async fn own_writes_show_at_once(setup: Setup) {
    let store = setup.store().await;
    let (registry, counted) = store.counted_registry(cache(CacheMode::Sync, FOREVER)).await;
    // The first cached read fills the cache; none after it reads from the storage.
    assert_eq!(cached(&registry, "p", "driver").await, None, "an empty registry");
    let mut reads_of_writes = 0;
    let mut reads = counted.calls().reads;
    for round in 0..5 {
        let note = format!("round {round}");
        apply(&registry, "p", applied(Kind::Entity, "driver", &note)).await;
        apply(&registry, "p", view(Kind::FeatureView, "view", &["a"])).await;
        let of = interval(round);
        let outcome = registry.apply_materialization("p", "view", of.start_time, of.end_time).await;
        or_fail("a materialization", outcome);
        reads_of_writes += counted.calls().reads - reads;
        reads = counted.calls().reads;
        assert_eq!(cached(&registry, "p", "driver").await, Some(note), "an entity that was just applied");
        let listed = registry.list(Kind::Entity, Some("p"), &ListFilter::default(), Freshness::Cached).await;
        assert_eq!(or_fail("a cached list", listed).len(), 1, "a list of what was just applied");
        let materialized: feast_registry_core::proto::core::FeatureView =
            or_fail("a cached read", registry.get_message("p", "view", Freshness::Cached).await);
        let intervals = materialized.meta.unwrap_or_default().materialization_intervals.len();
        assert_eq!(intervals, round + 1, "the intervals of a view that was just materialized");
        let identity = or_fail("a cached read", registry.list_project_metadata("p", Freshness::Cached).await);
        assert_eq!(identity.len(), 1, "the identity of a project that was just made");
        assert_eq!(counted.calls().reads, reads, "a cached read reads nothing from the storage");
    }
    assert!(reads_of_writes > 0, "writes do read: the counter counts");
    or_fail("a deletion", registry.delete(Kind::Entity, "p", "driver").await);
    assert_eq!(cached(&registry, "p", "driver").await, None, "an entity that was just deleted");
    apply(&registry, "q", applied(Kind::Entity, "driver", "of q")).await;
    or_fail("a deletion", registry.delete_project("p").await);
    let reads = counted.calls().reads;
    assert!(registry.get_any_view("p", "view", Freshness::Cached).await.is_err(), "a view of a deleted project");
    let projects = registry.list(Kind::Project, None, &ListFilter::default(), Freshness::Cached).await;
    assert_eq!(or_fail("a cached list", projects).len(), 1, "the projects after one was just deleted");
    assert_eq!(cached(&registry, "q", "driver").await.as_deref(), Some("of q"), "an entity of another project");
    assert_eq!(counted.calls().reads, reads, "a cached read reads nothing from the storage");
}

pub(crate) async fn writes_of_others_show_after_a_refresh(setup: Setup) {
    let store = setup.store().await;
    let writer = store.registry().await;
    // Zero: never expires.
    for ttl in [FOREVER, Duration::ZERO] {
        let (reader, _) = store.counted_registry(cache(CacheMode::Sync, ttl)).await;
        let (name, of) = (format!("driver {ttl:?}"), format!("cached for {ttl:?}"));
        assert_eq!(cached(&reader, "p", &name).await, None, "{of}: before it is made");
        for round in 0..3 {
            let note = format!("round {round}");
            apply(&writer, "p", applied(Kind::Entity, &name, &note)).await;
            or_fail("a refresh", reader.refresh().await);
            assert_eq!(cached(&reader, "p", &name).await, Some(note), "{of}: a write of another after a refresh");
        }
        or_fail("a deletion", writer.delete(Kind::Entity, "p", &name).await);
        or_fail("a refresh", reader.refresh().await);
        assert_eq!(cached(&reader, "p", &name).await, None, "{of}: a deletion by another after a refresh");
    }
}

/// Waits until cached reads show what another wrote; fails when they never do.
async fn shows(property: &str, reader: &Registry, name: &str, note: Option<&str>) {
    let began = Instant::now();
    while cached(reader, "p", name).await.as_deref() != note {
        assert!(began.elapsed() < Duration::from_secs(10), "{property}: cached reads never showed {note:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) async fn writes_of_others_come_with_the_journal(setup: Setup) {
    let store = setup.store().await;
    let (writer, handle) = (store.registry().await, store.handle().await);
    if let Err(error) = handle.0.newest_revision(&patience()).await
        && error.kind() == ErrorKind::Unsupported
    {
        assert!(!handle.0.limits().unkept.is_empty(), "a storage without a journal says so in `Limits::unkept`");
        return;
    }
    let (reader, counted) = store.counted_registry(cache(CacheMode::Sync, FOREVER)).await;
    shows("before it is made", &reader, "driver", None).await;
    let reads = counted.calls().reads;
    for note in [Some("first"), Some("second"), None, Some("third")] {
        match note {
            Some(note) => apply(&writer, "p", applied(Kind::Entity, "driver", note)).await,
            None => or_fail("a deletion", writer.delete(Kind::Entity, "p", "driver").await),
        }
        shows("a write of another", &reader, "driver", note).await;
    }
    or_fail("a deletion", writer.delete_project("p").await);
    shows("the deletion of a project by another", &reader, "driver", None).await;
    // Where the journal does not keep bytes, the objects that it names are read.
    let newest = or_fail("the journal", handle.0.journal(&JournalQuery::before(None, 10), &patience()).await);
    let mut changes = newest.iter().flat_map(|entry| &entry.changes);
    let most = if changes.any(|change| matches!(change.after, Image::Value(_))) { 2 } else { 3 * 5 };
    let read = counted.calls().reads - reads;
    assert!(read <= most, "{read} reads of the storage for five writes of others, where {most} are enough");
}

pub(crate) async fn writes_of_others_show_within_the_time_to_live(setup: Setup) {
    let store = setup.store().await;
    let writer = store.registry().await;
    let ttl = Duration::from_millis(150);
    let (reader, counted) = store.counted_registry(cache(CacheMode::Sync, ttl)).await;
    shows("before it is made", &reader, "driver", None).await;
    for note in ["first", "second"] {
        apply(&writer, "p", applied(Kind::Entity, "driver", note)).await;
        // Older than the time to live, so the next read must look.
        tokio::time::sleep(ttl).await;
        let property = "a write of another, read after the time to live";
        assert_eq!(cached(&reader, "p", "driver").await.as_deref(), Some(note), "{property}");
    }
    // Many who find the cache too old share one refresh.
    tokio::time::sleep(ttl).await;
    let (reads, began) = (counted.calls().reads, Instant::now());
    let readers = (0..RACERS).map(|_| {
        let reader = reader.clone();
        async move { cached(&reader, "p", "driver").await }
    });
    let (found, _) = race(readers).await;
    assert_eq!(found, vec![Some("second".to_owned()); RACERS], "what those who came at once have read");
    let refreshes = counted.calls().reads - reads;
    // On a machine so slow that the time to live passes again, there may be more.
    let allowed = 1 + began.elapsed().as_millis() as usize / ttl.as_millis() as usize;
    assert!(refreshes <= allowed, "{RACERS} readers of an expired cache caused {refreshes} refreshes");
}

pub(crate) async fn writes_of_others_show_through_the_background_refresh(setup: Setup) {
    let store = setup.store().await;
    let writer = store.registry().await;
    let (reader, counted) = store.counted_registry(cache(CacheMode::Thread, Duration::from_millis(50))).await;
    for note in [Some("first"), Some("second"), None] {
        match note {
            Some(note) => apply(&writer, "p", applied(Kind::Entity, "driver", note)).await,
            None => or_fail("a deletion", writer.delete(Kind::Entity, "p", "driver").await),
        }
        shows("in the background", &reader, "driver", note).await;
    }
    // When the registry is gone, so is what refreshed it.
    drop(reader);
    let began = Instant::now();
    loop {
        let reads = counted.calls().reads;
        tokio::time::sleep(Duration::from_millis(200)).await;
        if counted.calls().reads == reads {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(10), "the refresh goes on after its registry was dropped");
    }
}

/// Checks every list, cached and stored.
async fn lists_agree(property: &str, registry: &Registry, projects: &[&str]) {
    let filters = [
        ListFilter::default(),
        ListFilter::all().updated_since(at(0)),
        ListFilter::all().updated_since(at(i64::MAX)),
        ListFilter::all().with_tags([("team".to_owned(), "none".to_owned())].into()),
    ];
    for &kind in Kind::ALL {
        for project in projects.iter().map(|project| Some(*project)).chain([None]) {
            for filter in &filters {
                let stored = or_fail("a list", registry.list(kind, project, filter, Freshness::Stored).await);
                let cached = or_fail("a cached list", registry.list(kind, project, filter, Freshness::Cached).await);
                let property = format!("{property}: the {} of {project:?}, {filter:?}", kind.plural());
                let names = |objects: &[Object]| -> Vec<String> {
                    objects.iter().map(|object| or_fail("a name", object.name())).collect()
                };
                assert_eq!(names(&cached), names(&stored), "{property}: names, cached and stored");
                assert!(cached == stored, "{property}: the same names have other bytes");
            }
        }
    }
    for project in projects {
        let stored = or_fail("project metadata", registry.list_project_metadata(project, Freshness::Stored).await);
        let cached = or_fail("project metadata", registry.list_project_metadata(project, Freshness::Cached).await);
        assert_eq!(cached, stored, "{property}: the identity of {project:?}, cached and stored");
    }
}

pub(crate) async fn cached_lists_are_those_of_the_storage(setup: Setup) {
    let store = setup.store().await;
    let (registry, other) = (store.registry().await, store.registry().await);
    or_fail("a refresh", registry.refresh().await);
    let projects = ["p", "q", "r"];
    // Interleaved, so that no two objects of a project were stored one after the other.
    for note in ["first", "second"] {
        for name in ["m", "z", "a"] {
            for project in projects {
                for &kind in Kind::ALL {
                    let own_name = match kind {
                        Kind::Project => project.to_owned(),
                        _ => format!("{name} {kind}"),
                    };
                    apply(&registry, project, applied(kind, &own_name, note)).await;
                }
            }
        }
    }
    let lists_are = async |property: &str| {
        lists_agree(property, &registry, &projects).await;
        or_fail("a refresh", other.refresh().await);
        lists_agree(&format!("{property}, by another"), &other, &projects).await;
    };
    lists_are("after applies").await;
    or_fail("a deletion", registry.delete(Kind::Entity, "p", "z entity").await);
    or_fail("a deletion", registry.delete_view("q", "m feature view").await);
    or_fail("a deletion", registry.delete_project("r").await);
    lists_are("after deletions").await;
    apply(&registry, "r", applied(Kind::Entity, "again", "")).await;
    apply(&registry, "p", applied(Kind::Entity, "z entity", "again")).await;
    lists_are("after what was deleted is applied again").await;
}

pub(crate) async fn racing_writers_leave_the_cache_as_the_storage(setup: Setup) {
    let store = setup.store().await;
    let (registry, _) = store.counted_registry(CacheConfig::new(CacheMode::Sync, FOREVER)).await;
    or_fail("a refresh", registry.refresh().await);
    let mut rounds = Rounds::new("writers of one process, and its cache", 12);
    while let Some(round) = rounds.next() {
        apply(&registry, "p", applied(Kind::Entity, "base", format!("round {round}"))).await;
        let racers = (0..RACERS).map(|racer| {
            let registry = registry.clone();
            async move {
                for step in 0..4 {
                    let note = format!("round {round}, racer {racer}, step {step}");
                    let outcome = match (racer + step) % 6 {
                        0 => registry.apply("p", applied(Kind::Entity, "shared", note)).await.map(drop),
                        1 => registry.delete(Kind::Entity, "p", "shared").await,
                        2 => registry.apply("p", applied(Kind::Project, "p", note)).await.map(drop),
                        3 => registry.apply("p", view(Kind::FeatureView, "view", &[&note])).await.map(drop),
                        4 => registry.delete_project("p").await,
                        _ => registry.refresh().await,
                    };
                    match outcome {
                        Err(error) if matches!(error.kind(), ErrorKind::NotFound(_)) => {}
                        outcome => or_fail("a write that races with others", outcome),
                    }
                }
            }
        });
        let (_, raced) = race(racers).await;
        rounds.saw(raced);
        lists_agree(&format!("round {round}: after writers of one process raced"), &registry, &["p"]).await;
    }
}
