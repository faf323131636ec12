//! The storage itself: made ready, kept, removed, made again.

use std::sync::Arc;

use feast_registry_core::config::SchemaMode;
use feast_registry_core::{Backend, ErrorKind, Key, Kind, Query, Write};

use crate::handle::{Handle, assert_records, assert_unchanged, chain, or_fail, patience};
use crate::race::{RACERS, race};
use crate::run::Setup;
use crate::sample::{object, whole_project};

pub(crate) async fn preparing_again_keeps_everything(setup: Setup) {
    let store = setup.store().await;
    let handle = store.handle().await;
    handle.put(whole_project("p", "note")).await;
    let before = handle.everything(&[]).await;
    for mode in [SchemaMode::Auto, SchemaMode::Verify, SchemaMode::Skip, SchemaMode::Auto] {
        let other = Handle(store.backend_in(mode).await);
        for handle in [&handle, &other] {
            or_fail(&format!("preparing again ({mode})"), handle.0.prepare(&patience()).await);
            assert_unchanged(&format!("preparing again ({mode})"), &before, &handle.everything(&[]).await);
        }
        let entity = object(Kind::Entity, "p", "entities", "note");
        other.put([entity]).await;
    }
    assert!(!handle.0.location().is_empty(), "a backend says where its data is");
}

pub(crate) async fn many_prepare_at_once(setup: Setup) {
    for round in 0..5 {
        let store = setup.store().await;
        let mut backends = Vec::new();
        for _ in 0..RACERS {
            backends.push(store.backend().await);
        }
        let racers = backends.iter().cloned().enumerate().map(|(index, backend)| async move {
            or_fail("preparing an empty storage while others do", backend.prepare(&patience()).await);
            // Whoever is ready writes, while others may still be at it.
            Handle(backend).put(whole_project(&format!("p{index}"), "note")).await;
        });
        race(racers).await;
        let whole = whole_project("p", "note").len() * RACERS;
        for backend in backends {
            let found = Handle(backend).everything(&[]).await.len();
            assert_eq!(found, whole, "round {round}: after {RACERS} prepared and wrote at once, each sees all of it");
        }
    }
}

pub(crate) async fn verify_creates_nothing(setup: Setup) {
    let store = setup.store().await;
    let verify = async || store.backend_in(SchemaMode::Verify).await.prepare(&patience()).await;
    // A storage that needs nothing made may be ready at once; one that does must say so, each time, and make nothing.
    let first = verify().await;
    let second = verify().await;
    for outcome in [&first, &second] {
        if let Err(error) = outcome {
            assert_eq!(
                error.kind(),
                ErrorKind::SchemaMissing,
                "verifying a new storage finds it ready or its schema missing, and not: {}",
                chain(error)
            );
        }
    }
    assert_eq!(first.is_ok(), second.is_ok(), "verifying a new storage twice finds the same");
    store.handle().await.put(whole_project("p", "note")).await;
    or_fail("verifying a storage that another handle made", verify().await);
    let verified = store.backend_in(SchemaMode::Verify).await;
    or_fail("verifying a storage that another handle made", verified.prepare(&patience()).await);
    let found = Handle(verified).objects(Kind::Entity, Some("p")).await;
    assert_eq!(found.len(), 1, "a handle that only verified reads what is there");
}

async fn remove(backend: &Arc<dyn Backend>) -> bool {
    or_fail("remove_if_empty", backend.remove_if_empty(&patience()).await)
}

pub(crate) async fn only_a_storage_without_projects_is_removed(setup: Setup) {
    let store = setup.store().await;
    let (handle, other) = (store.handle().await, store.handle().await);
    for project in ["p", "q"] {
        handle.put(whole_project(project, "note")).await;
    }
    for project in ["p", "q"] {
        let before = handle.everything(&[]).await;
        for handle in [&handle, &other] {
            assert!(!remove(&handle.0).await, "a storage with a project in it is not removed");
            assert_unchanged("a removal that is refused", &before, &handle.everything(&[]).await);
        }
        handle.write(vec![Write::DeleteProject { project: project.to_owned() }]).await;
    }
    assert!(remove(&other.0).await, "a storage without a project is removed");
    for handle in [&handle, &other] {
        assert!(handle.everything(&[]).await.is_empty(), "what is left of a removed storage");
    }
}

pub(crate) async fn a_removed_storage_is_usable(setup: Setup) {
    let store = setup.store().await;
    let handles = store.handles(3).await;
    for round in 0..9 {
        let project = format!("p{round}");
        // Each in turn is the one who writes, who removes, and who was not told.
        let turn = |step: usize| &handles[(round + step) % handles.len()];
        let records = whole_project(&project, "note");
        turn(0).put(records.clone()).await;
        let keys = || Query::Keys(records.iter().map(|record| record.key.clone()).collect());
        for handle in &handles {
            assert_records(
                "what was written to a storage that was removed before",
                &records,
                &handle.ask(keys()).await,
            );
        }
        turn(1).write(vec![Write::DeleteProject { project }]).await;
        assert!(remove(&turn(1).0).await, "round {round}: a storage without a project is removed");
        let found = turn(2).read(&[keys(), Query::Metadata { project: None }]).await.concat();
        assert_records("a read of a removed storage, by a handle that was not told", &[], &found);
        if round % 2 == 0 {
            remove(&turn(0).0).await;
            turn(2).write(vec![Write::Delete(Key::project_object("absent"))]).await;
        }
    }
}

pub(crate) async fn reading_a_removed_storage_makes_nothing(setup: Setup) {
    let store = setup.store().await;
    // How a storage is found of which nothing has been made yet.
    let is_ready = async || store.backend_in(SchemaMode::Verify).await.prepare(&patience()).await.is_ok();
    let at_first = is_ready().await;
    let handles = store.handles(2).await;
    let records = whole_project("p", "note");
    handles[0].put(records.clone()).await;
    handles[0].write(vec![Write::DeleteProject { project: "p".to_owned() }]).await;
    assert!(remove(&handles[0].0).await, "a storage without a project is removed");
    for handle in &handles {
        assert!(handle.everything(&[("p", "feature_views")]).await.is_empty(), "all queries of a removed storage");
        let keys = records.iter().map(|record| record.key.clone()).collect();
        assert_records("a query for keys of a removed storage", &[], &handle.ask(Query::Keys(keys)).await);
    }
    // A store that can be open only once now has the mode that is asked for.
    drop(handles);
    assert_eq!(is_ready().await, at_first, "after it was removed and read, the storage is found as it was at first");
}

pub(crate) async fn only_auto_removes(setup: Setup) {
    let store = setup.store().await;
    drop(store.handle().await);
    for mode in [SchemaMode::Verify, SchemaMode::Skip] {
        let backend = store.backend_in(mode).await;
        or_fail(&format!("preparing ({mode}) what another handle made"), backend.prepare(&patience()).await);
        assert!(!remove(&backend).await, "a storage that was opened with `{mode}` belongs to somebody else and stays");
        let verify = store.backend_in(SchemaMode::Verify).await;
        or_fail("verifying the storage that was not removed", verify.prepare(&patience()).await);
    }
}

pub(crate) async fn everything_outlives_its_handle(setup: Setup) {
    let store = setup.store().await;
    let records = whole_project("p", "note");
    let before = {
        let handle = store.handle().await;
        handle.put(records).await;
        handle.everything(&[]).await
    };
    for _ in 0..3 {
        let after = store.handle().await.everything(&[]).await;
        assert_unchanged("what a handle wrote that is no longer open", &before, &after);
    }
}
