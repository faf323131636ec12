//! The registry over a backend that misbehaves: it tries again as long as that can help and no longer, says what is wrong,
//! and its cache is never ahead of the storage, nor behind what this process was told is done.

use std::sync::Arc;
use std::time::{Duration, Instant};

use feast_registry_conformance::{Calls, Fault, FaultyBackend, Gate, Operation};
use feast_registry_core::config::{CacheConfig, CacheMode};
use feast_registry_core::proto::core::{Entity, EntitySpecV2, FeatureView, FeatureViewSpec, Project, ProjectSpec};
use feast_registry_core::{
    Backend, Error, ErrorKind, Freshness, Kind, Limits, ListFilter, MemoryBackend, Object, Registry, RegistryOptions,
};

const FOREVER: Duration = Duration::from_secs(3600);

/// A registry whose cache is filled and lives for so long, and the backend that can be told to misbehave.
async fn registry_with(ttl: Duration, backend: FaultyBackend) -> (Registry, Arc<FaultyBackend>) {
    let backend = Arc::new(backend);
    let options = RegistryOptions::default().with_cache(CacheConfig::new(CacheMode::Sync, ttl));
    let registry = Registry::open(Arc::clone(&backend) as Arc<dyn Backend>, options).await.expect("it opens");
    registry.refresh().await.expect("the cache is filled");
    (registry, backend)
}

/// One that has yet to read the storage, so that each write does.
async fn cold_registry() -> (Registry, Arc<FaultyBackend>) {
    let backend = Arc::new(FaultyBackend::new(Arc::new(MemoryBackend::new())));
    let registry = Registry::open(Arc::clone(&backend) as Arc<dyn Backend>, RegistryOptions::default()).await;
    (registry.expect("it opens"), backend)
}

async fn registry() -> (Registry, Arc<FaultyBackend>) {
    registry_with(FOREVER, FaultyBackend::new(Arc::new(MemoryBackend::new()))).await
}

fn entity(name: &str, description: &str) -> Object {
    let spec = EntitySpecV2 { name: name.to_owned(), description: description.to_owned(), ..Default::default() };
    Object::encode(&Entity { spec: Some(spec), meta: None })
}

fn project(description: &str) -> Object {
    let spec = ProjectSpec { name: "p".to_owned(), description: description.to_owned(), ..Default::default() };
    Object::encode(&Project { spec: Some(spec), meta: None })
}

async fn with_view(registry: &Registry) {
    let spec = FeatureViewSpec { name: "view".to_owned(), entities: vec!["driver".to_owned()], ..Default::default() };
    registry.apply("p", &FeatureView { spec: Some(spec), meta: None }).await.expect("an apply");
}

fn at(seconds: i64) -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp { seconds, nanos: 0 })
}

async fn intervals(registry: &Registry) -> usize {
    let view: FeatureView = registry.get_message("p", "view", Freshness::Stored).await.expect("the view is there");
    view.meta.unwrap_or_default().materialization_intervals.len()
}

/// The description of an entity; `None` when there is none.
async fn read(registry: &Registry, name: &str, freshness: Freshness) -> Option<String> {
    match registry.get_message::<Entity>("p", name, freshness).await {
        Ok(entity) => Some(entity.spec.unwrap_or_default().description),
        Err(error) if error.kind() == ErrorKind::NotFound(Kind::Entity) => None,
        Err(error) => panic!("a read ({freshness:?}): {error}"),
    }
}

fn assert_kind<T: std::fmt::Debug>(property: &str, outcome: Result<T, Error>, kind: ErrorKind) {
    let error = outcome.expect_err(property);
    assert_eq!(error.kind(), kind, "{property}: {error}");
    let is_retryable = matches!(kind, ErrorKind::Unavailable | ErrorKind::Conflict);
    assert_eq!(error.is_retryable(), is_retryable, "{property}: whether trying again can help");
}

/// Waits for what happens by itself within moments.
async fn eventually(property: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !is_so().await {
        assert!(began.elapsed() < Duration::from_secs(10), "never: {property}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_refused_commit_is_decided_again() {
    let (registry, backend) = cold_registry().await;
    with_view(&registry).await;
    let Calls { reads, commits, committed, .. } = backend.calls();
    backend.inject(Operation::Commit, Fault::Conflict, 7);
    registry.apply_materialization("p", "view", at(1), at(2)).await.expect("the eighth try is accepted");
    let calls = backend.calls();
    assert_eq!(calls.commits - commits, 8, "tries");
    assert_eq!(calls.reads - reads, 8, "each try reads anew what it decides from");
    assert_eq!(calls.committed - committed, 1, "commits that the storage accepted");
    assert_eq!(intervals(&registry).await, 1, "the interval is there once");
}

/// This takes as long as the bound is.
#[tokio::test]
async fn tries_come_to_an_end() {
    let (registry, backend) = registry().await;
    backend.inject(Operation::Commit, Fault::Conflict, usize::MAX);
    let began = Instant::now();
    let outcome = registry.apply("p", entity("driver", "never")).await;
    let took = began.elapsed();
    assert_kind("an apply against writers who are always faster", outcome, ErrorKind::Conflict);
    let bound = Duration::from_secs(25)..Duration::from_secs(45);
    assert!(bound.contains(&took), "half a minute is the bound, and it took {took:?}");
    let tries = backend.calls().commits;
    assert!((100..20_000).contains(&tries), "tries are spread out, and there were {tries} within {took:?}");
    assert_eq!(read(&registry, "driver", Freshness::Stored).await, None, "what was given up is not stored");
    assert_eq!(read(&registry, "driver", Freshness::Cached).await, None, "what was given up does not show");
    backend.heal();
    registry.apply("p", entity("driver", "now")).await.expect("the queue for the object is free again");
}

#[tokio::test]
async fn failures_of_the_storage_are_reported_and_not_repeated() {
    use ErrorKind::{Corrupt, Internal, ReadOnly, SchemaMissing, Unavailable};
    for kind in [Unavailable, ReadOnly, Corrupt, SchemaMissing, Internal] {
        for operation in [Operation::Read, Operation::Commit] {
            let property = format!("an apply while {operation:?} fails with {kind:?}");
            let (registry, backend) = cold_registry().await;
            registry.apply("p", entity("driver", "before")).await.expect("an apply");
            let Calls { reads, commits, .. } = backend.calls();
            backend.inject(operation, Fault::FailBefore(kind), 1);
            assert_kind(&property, registry.apply("p", entity("driver", "after")).await, kind);
            let calls = backend.calls();
            // Whether the storage has done it is not known in general, so it is the caller's to decide.
            let tried = (calls.reads - reads, calls.commits - commits);
            assert_eq!(tried, (1, usize::from(operation == Operation::Commit)), "{property}: reads and commits");
            for freshness in [Freshness::Cached, Freshness::Stored] {
                let found = read(&registry, "driver", freshness).await;
                assert_eq!(
                    found.as_deref(),
                    Some("before"),
                    "{property}: a failed apply changes nothing, {freshness:?}"
                );
            }
            registry.apply("p", entity("driver", "after")).await.expect("the next apply");
            let found = read(&registry, "driver", Freshness::Cached).await;
            assert_eq!(found.as_deref(), Some("after"), "{property}: and then succeeds");
        }
    }
}

#[tokio::test]
async fn a_storage_that_cannot_be_prepared_or_read_is_not_opened() {
    for (operation, kind) in [
        (Operation::Prepare, ErrorKind::SchemaMissing),
        (Operation::Prepare, ErrorKind::Unavailable),
        (Operation::Read, ErrorKind::Unavailable),
    ] {
        let backend = FaultyBackend::new(Arc::new(MemoryBackend::new()));
        backend.inject(operation, Fault::FailBefore(kind), 1);
        let opened = Registry::open(Arc::new(backend), RegistryOptions::default()).await;
        assert_kind(&format!("opening while {operation:?} fails"), opened.map(drop), kind);
    }
}

#[tokio::test]
async fn a_lost_answer_is_an_error_that_can_be_retried() {
    let (registry, backend) = cold_registry().await;
    backend.inject(Operation::Commit, Fault::FailAfter(ErrorKind::Unavailable), 1);
    let outcome = registry.apply("p", entity("driver", "written")).await;
    assert_kind("an apply whose answer is lost", outcome, ErrorKind::Unavailable);
    assert_eq!(read(&registry, "driver", Freshness::Stored).await.as_deref(), Some("written"), "it took effect");
    let commits = backend.calls().commits;
    registry.apply("p", entity("driver", "written")).await.expect("the same apply again");
    assert_eq!(backend.calls().commits, commits, "an apply that is there already writes nothing");
    registry.refresh().await.expect("a refresh");
    assert_eq!(read(&registry, "driver", Freshness::Cached).await.as_deref(), Some("written"), "after a refresh");
}

#[tokio::test]
async fn a_write_that_was_sent_is_finished_though_nobody_waits_for_it() {
    let (registry, backend) = registry().await;
    for fault in [Fault::HoldBefore, Fault::HoldAfter] {
        let (gate, name) =
            (Gate::new(), format!("{:?}", fault(Gate::new())).split('(').next().unwrap_or_default().to_owned());
        backend.inject(Operation::Commit, fault(gate.clone()), 1);
        let caller = tokio::spawn({
            let (registry, entity) = (registry.clone(), entity(&name, "written"));
            async move { registry.apply("p", entity).await }
        });
        gate.arrival().await;
        caller.abort();
        assert!(caller.await.is_err_and(|error| error.is_cancelled()), "the caller has gone away");
        gate.open();
        if name == "HoldBefore" {
            // What has not reached the storage when its caller leaves never does: whoever gave up may have written anew.
            registry.apply("p", entity("later", "written")).await.expect("an apply after it");
            for freshness in [Freshness::Cached, Freshness::Stored] {
                assert_eq!(read(&registry, &name, freshness).await, None, "a write that ended with its caller");
            }
            assert_eq!(backend.calls().conflicts, 0);
            continue;
        }
        eventually("the write that nobody waits for shows, cached", async || {
            read(&registry, &name, Freshness::Cached).await.as_deref() == Some("written")
        })
        .await;
        assert_eq!(
            read(&registry, &name, Freshness::Stored).await.as_deref(),
            Some("written"),
            "{name}: and is stored"
        );
    }
}

#[tokio::test]
async fn writers_of_one_process_queue() {
    const WRITERS: i64 = 40;
    let (registry, backend) = registry().await;
    with_view(&registry).await;
    backend.inject(Operation::Read, Fault::DelayAfter(Duration::from_millis(1)), usize::MAX);
    let before = backend.calls();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let registry = registry.clone();
            tokio::spawn(async move { registry.apply_materialization("p", "view", at(writer), at(writer + 1)).await })
        })
        .collect();
    for writer in writers {
        writer.await.expect("a task").expect("a materialization");
    }
    let calls = backend.calls();
    assert_eq!(calls.conflicts - before.conflicts, 0, "writers of one process do not get in each other's way");
    assert_eq!(calls.commits - before.commits, WRITERS as usize, "each commits once");
    backend.heal();
    assert_eq!(intervals(&registry).await, WRITERS as usize, "each interval is there");
}

#[tokio::test]
async fn writers_of_other_objects_do_not_queue() {
    let (registry, backend) = registry().await;
    registry.apply("p", entity("first", "")).await.expect("an apply");
    let gate = Gate::new();
    backend.inject(Operation::Commit, Fault::HoldBefore(gate.clone()), 1);
    let held = tokio::spawn({
        let registry = registry.clone();
        async move { registry.apply("p", entity("held", "")).await }
    });
    gate.arrival().await;
    for number in 0..20 {
        let apply = registry.apply("p", entity(&format!("other {number}"), ""));
        let outcome = tokio::time::timeout(Duration::from_secs(5), apply).await;
        // Two of 1,024 queues may be the same: then this one object waits.
        if outcome.is_ok() {
            gate.open();
            held.await.expect("a task").expect("the apply that was held up");
            return;
        }
    }
    panic!("writers of other objects wait for one that the storage holds up");
}

#[tokio::test]
async fn an_outage_is_none_for_cached_reads() {
    let (registry, backend) =
        registry_with(Duration::from_millis(20), FaultyBackend::new(Arc::new(MemoryBackend::new()))).await;
    registry.apply("p", entity("driver", "before")).await.expect("an apply");
    backend.inject(Operation::Read, Fault::FailBefore(ErrorKind::Unavailable), usize::MAX);
    let reads = backend.calls().reads;
    for _ in 0..50 {
        // Older than the time to live, many times over.
        tokio::time::sleep(Duration::from_millis(5)).await;
        let found = read(&registry, "driver", Freshness::Cached).await;
        assert_eq!(found.as_deref(), Some("before"), "a cached read while the storage does not answer");
        let listed = registry.list(Kind::Entity, None, &ListFilter::default(), Freshness::Cached).await;
        assert_eq!(listed.expect("a cached list while the storage does not answer").len(), 1);
    }
    let tried = backend.calls().reads - reads;
    assert!(tried <= 5, "a storage that does not answer is not asked by every reader, but was {tried} times");
    let stored = registry.get(Kind::Entity, "p", "driver", Freshness::Stored).await;
    assert_kind("a read from the storage while it does not answer", stored.map(drop), ErrorKind::Unavailable);
    assert_kind("a refresh while the storage does not answer", registry.refresh().await, ErrorKind::Unavailable);
    assert_kind("a ping while the storage does not answer", registry.ping().await, ErrorKind::Unavailable);
    let found = read(&registry, "driver", Freshness::Cached).await;
    assert_eq!(found.as_deref(), Some("before"), "a refresh that fails leaves the cache as it is");
    backend.heal();
    registry.apply("p", entity("driver", "after")).await.expect("an apply after the outage");
    assert_eq!(read(&registry, "driver", Freshness::Cached).await.as_deref(), Some("after"), "own writes show at once");
    registry.refresh().await.expect("a refresh after the outage");
}

#[tokio::test]
async fn a_cache_that_was_never_filled_has_nothing_to_serve() {
    let backend = Arc::new(FaultyBackend::new(Arc::new(MemoryBackend::new())));
    let registry = Registry::open(Arc::clone(&backend) as Arc<dyn Backend>, RegistryOptions::default()).await;
    let registry = registry.expect("it opens");
    backend.inject(Operation::Read, Fault::FailBefore(ErrorKind::Unavailable), 1);
    let first = registry.get(Kind::Entity, "p", "driver", Freshness::Cached).await;
    assert_kind("the first cached read, while the storage does not answer", first.map(drop), ErrorKind::Unavailable);
    assert_eq!(read(&registry, "driver", Freshness::Cached).await, None, "the next cached read asks again");
}

/// A refresh reads a state, and while it is on its way this process commits another: the refresh must not hide it.
#[tokio::test]
async fn a_refresh_does_not_undo_what_was_committed_meanwhile() {
    let (registry, backend) = registry().await;
    registry.apply("p", entity("changed", "before")).await.expect("an apply");
    registry.apply("p", entity("deleted", "before")).await.expect("an apply");
    let gate = Gate::new();
    backend.inject(Operation::Read, Fault::HoldAfter(gate.clone()), 1);
    let refresh = tokio::spawn({
        let registry = registry.clone();
        async move { registry.refresh().await }
    });
    gate.arrival().await;
    registry.apply("p", entity("changed", "after")).await.expect("an apply during a refresh");
    registry.delete(Kind::Entity, "p", "deleted").await.expect("a deletion during a refresh");
    for when in ["during", "after"] {
        let found = read(&registry, "changed", Freshness::Cached).await;
        assert_eq!(found.as_deref(), Some("after"), "own write, {when} the refresh that began before it");
        let found = read(&registry, "deleted", Freshness::Cached).await;
        assert_eq!(found, None, "own deletion, {when} the refresh that began before it");
        gate.open();
        eventually("the refresh ends", async || refresh.is_finished()).await;
    }
    refresh.await.expect("a task").expect("the refresh");
}

/// Commits whose answers arrive in another order than the storage did them.
#[tokio::test]
async fn the_cache_ends_as_the_storage_whatever_order_answers_come_in() {
    type Act = fn(Registry) -> std::pin::Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;
    let apply: Act = |registry| Box::pin(async move { registry.apply("p", entity("driver", "late")).await.map(drop) });
    let describe: Act = |registry| Box::pin(async move { registry.apply("p", project("late")).await.map(drop) });
    let describe_again: Act = |registry| Box::pin(async move { registry.apply("p", project("later")).await.map(drop) });
    let delete_project: Act = |registry| Box::pin(async move { registry.delete_project("p").await });
    let pairs = [
        ("an apply, then the deletion of its project", apply, delete_project),
        ("the deletion of a project, then an apply that makes it anew", delete_project, apply),
        ("two applies of a project", describe, describe_again),
        ("an apply of a project, then its deletion", describe, delete_project),
    ];
    let mut wrong = Vec::new();
    for (property, first, second) in pairs {
        let (registry, backend) = registry().await;
        registry.apply("p", entity("before", "")).await.expect("an apply");
        let gate = Gate::new();
        backend.inject(Operation::Commit, Fault::HoldAfter(gate.clone()), 1);
        let held = tokio::spawn(first(registry.clone()));
        gate.arrival().await;
        // The first commit is done, and its answer on its way. If the second waits for the first, that is as good.
        let second = tokio::spawn(second(registry.clone()));
        tokio::time::sleep(Duration::from_millis(50)).await;
        gate.open();
        for task in [held, second] {
            task.await.expect("a task").unwrap_or_else(|error| panic!("{property}: {error}"));
        }
        for kind in [Kind::Project, Kind::Entity] {
            let list = async |freshness| {
                let listed = registry.list(kind, None, &ListFilter::default(), freshness).await.expect("a list");
                listed.into_iter().map(|object| object.bytes).collect::<Vec<_>>()
            };
            let (cached, stored) = (list(Freshness::Cached).await, list(Freshness::Stored).await);
            if cached != stored {
                let (cached, stored) = (cached.len(), stored.len());
                wrong.push(format!("{property}: {} cached ({cached}) are not those stored ({stored})", kind.plural()));
            }
        }
    }
    assert!(wrong.is_empty(), "cached reads are wrong until the next refresh:\n{}", wrong.join("\n"));
}

#[tokio::test]
async fn what_is_beyond_the_limits_is_refused_before_it_reaches_the_storage() {
    let limits = Limits::new(1000).with_name_chars(10);
    let (registry, backend) =
        registry_with(FOREVER, FaultyBackend::new(Arc::new(MemoryBackend::new())).with_limits(limits)).await;
    registry.apply("p", entity("\u{1f697}".repeat(10).as_str(), "")).await.expect("ten characters, forty bytes");
    let commits = backend.calls().commits;
    let cases = [("p", "elevenchars", ""), ("elevenchars", "name", ""), ("p", "large", &*"x".repeat(1000))];
    for (project, name, description) in cases {
        let property = format!("a name or value beyond the limits: {name} in {project}, {} bytes", description.len());
        assert_kind(&property, registry.apply(project, entity(name, description)).await, ErrorKind::InvalidArgument);
    }
    assert_eq!(backend.calls().commits, commits, "what is refused does not reach the storage");
    // Together with what is fine, and when it grows in small steps.
    let many = vec![entity("fine", ""), entity("large", &"x".repeat(1000))];
    assert_kind(
        "one of many is too large",
        registry.apply_all("p", many, Default::default()).await,
        ErrorKind::InvalidArgument,
    );
    assert_eq!(read(&registry, "fine", Freshness::Stored).await, None, "nothing of an apply with something too large");
    with_view(&registry).await;
    let mut recorded = 0;
    let refused: Result<(), Error> = loop {
        match registry.apply_materialization("p", "view", at(recorded), at(recorded + 1)).await {
            Ok(_) => recorded += 1,
            Err(error) => break Err(error),
        }
        assert!(recorded < 1000, "a view grows beyond the limit, one interval at a time");
    };
    assert_kind("the interval with which a view would be too large", refused, ErrorKind::InvalidArgument);
    assert_eq!(intervals(&registry).await, recorded as usize, "the view as it was before");
}
