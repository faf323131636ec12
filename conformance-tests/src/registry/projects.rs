//! Projects are made and deleted whole, and apart from each other.

use bytes::Bytes;
use feast_registry_core::{ApplyOptions, ErrorKind, Freshness, Key, Kind, ListFilter, Object, Registry};

use crate::handle::{assert_unchanged, chain, not_of_project, of_project, or_fail};
use crate::race::{RACERS, Rounds, race};
use crate::run::Setup;
use crate::sample::{applied, interval, view, view_name};
use crate::shown::shown;

/// A project with objects of all kinds, histories, intervals and user metadata.
pub(crate) async fn make(registry: &Registry, project: &str) {
    let name = |kind: Kind| if kind == Kind::Project { project.to_owned() } else { view_name(kind) };
    let objects: Vec<Object> = Kind::ALL.iter().copied().map(|kind| applied(kind, &name(kind), project)).collect();
    or_fail("an apply", registry.apply_all(project, objects, ApplyOptions::default()).await);
    for &kind in Kind::VIEWS {
        or_fail("an apply", registry.apply(project, view(kind, &name(kind), &["a", "b"])).await);
        let metadata = Some(Bytes::copy_from_slice(project.as_bytes()));
        or_fail("user metadata", registry.apply_user_metadata(kind, project, &name(kind), metadata).await);
    }
    for kind in [Kind::FeatureView, Kind::StreamFeatureView] {
        let of = interval(0);
        let outcome = registry.apply_materialization(project, &name(kind), of.start_time, of.end_time).await;
        or_fail("a materialization", outcome);
    }
}

/// Rows of a project: 12 objects, 2 facts, and for each of 4 views two versions and user metadata.
const ROWS: usize = 12 + 2 + 4 * 3;

pub(crate) async fn deleting_one_leaves_the_others_byte_for_byte(setup: Setup) {
    let store = setup.store().await;
    let handle = store.handle().await;
    let (registry, other) = (store.registry().await, store.registry().await);
    let projects = ["p", "P", "pp", "p ", " p", "p_", "p%", "%", "_", "p/p", "p'", "p\u{301}", "\u{1f697}"];
    for (index, project) in projects.into_iter().enumerate() {
        make(if index % 2 == 0 { &registry } else { &other }, project).await;
    }
    let mut before = handle.everything(&[]).await;
    let names = projects.map(str::to_owned);
    let names = || names.iter();
    for (done, project) in projects.into_iter().enumerate() {
        assert_eq!(of_project(&before, project).len(), ROWS, "the rows of project {project:?} before its turn");
        let deleter = if done % 2 == 0 { &other } else { &registry };
        or_fail("the deletion of a project", deleter.delete_project(project).await);
        before = not_of_project(&before, project);
        let histories: Vec<(&str, String)> =
            Kind::VIEWS.iter().copied().map(|kind| (project, view_name(kind))).collect();
        let histories: Vec<(&str, &str)> = histories.iter().map(|(project, view)| (*project, view.as_str())).collect();
        let property = format!("the deletion of project {project:?}: all of it, and nothing of another");
        assert_unchanged(&property, &before, &handle.everything(&histories).await);
        // The same in the memory of the one who deleted, and of another once it looks.
        or_fail("a refresh", registry.refresh().await);
        or_fail("a refresh", other.refresh().await);
        for registry in [&registry, &other] {
            let listed = registry.list(Kind::Project, None, &ListFilter::default(), Freshness::Cached).await;
            let listed: Vec<String> =
                or_fail("a list", listed).iter().map(|object| or_fail("a name", object.name())).collect();
            let left = handle.in_order(names().skip(done + 1).cloned().collect(), String::clone);
            assert_eq!(listed, left, "{property}: the cached projects");
        }
        let again = deleter.delete_project(project).await.expect_err("a deleted project cannot be deleted again");
        assert_eq!(again.kind(), ErrorKind::NotFound(Kind::Project), "{property}, again: {}", chain(&again));
    }
}

pub(crate) async fn the_last_one_takes_the_storage_along(setup: Setup) {
    let store = setup.store().await;
    let handle = store.handle().await;
    let registries = [store.registry().await, store.registry().await];
    for round in 0..4 {
        let (one, other) = (&registries[round % 2], &registries[(round + 1) % 2]);
        for project in ["p", "q"] {
            make(one, project).await;
        }
        let found = other.list(Kind::Entity, None, &ListFilter::default(), Freshness::Stored).await;
        assert_eq!(or_fail("a list", found).len(), 2, "round {round}: another registry sees what was made anew");
        for (registry, project) in [(one, "p"), (other, "q")] {
            or_fail("the deletion of a project", registry.delete_project(project).await);
        }
        assert!(handle.everything(&[]).await.is_empty(), "round {round}: nothing is left after the last project");
        for registry in &registries {
            or_fail("a ping of a registry whose storage was removed", registry.ping().await);
            or_fail("a refresh of a registry whose storage was removed", registry.refresh().await);
            let left = registry.list(Kind::Project, None, &ListFilter::default(), Freshness::Cached).await;
            assert_eq!(or_fail("a list", left), [], "round {round}: the cached projects after the last was deleted");
        }
    }
}

pub(crate) async fn an_apply_and_a_deletion_leave_all_or_nothing(setup: Setup) {
    let store = setup.store().await;
    let handle = store.handle().await;
    let registries = [store.registry().await, store.registry().await, store.registry().await];
    let mut rounds = Rounds::new("applies to a project, and its deletion", 25);
    while let Some(round) = rounds.next() {
        let project = format!("p{round}");
        or_fail("an apply", registries[0].apply(&project, applied(Kind::Entity, "before", "")).await);
        // What each of them applies in one call; it is all there or none of it.
        let objects = |racer: usize| -> Vec<Object> {
            let name = format!("of {racer}");
            vec![
                applied(Kind::Entity, &name, ""),
                view(Kind::VIEWS[racer % 4], &name, &["a"]),
                applied(Kind::DataSource, &name, ""),
            ]
        };
        let racers = (0..RACERS).map(|racer| {
            let (registry, project, objects) = (registries[racer % 3].clone(), project.clone(), objects(racer));
            async move {
                if racer == round % RACERS {
                    return registry.delete_project(&project).await;
                }
                registry.apply_all(&project, objects, ApplyOptions::default()).await.map(drop)
            }
        });
        let (outcomes, raced) = race(racers).await;
        for outcome in outcomes {
            or_fail("an apply to a project that is being deleted, or its deletion", outcome);
        }
        let views: Vec<String> = (0..RACERS).map(|racer| format!("of {racer}")).collect();
        let histories: Vec<(&str, &str)> = views.iter().map(|view| (project.as_str(), view.as_str())).collect();
        let left = of_project(&handle.everything(&histories).await, &project);
        let has = |key: &Key| left.contains_key(key);
        let keys: Vec<&Key> = left.keys().collect();
        assert!(
            !has(&Key::object(Kind::Entity, &project, "before")),
            "round {round}: what was there before the deletion is gone; there is {}",
            shown(&keys)
        );
        // Of those rounds in which all applies came before the deletion, any number would prove nothing.
        rounds.saw(raced && !left.is_empty());
        if left.is_empty() {
            continue;
        }
        for key in [Key::project_object(&project), Key::metadata(&project, Key::PROJECT_UUID)] {
            assert!(
                has(&key),
                "round {round}: rows without their project are orphans: {} is missing in {}",
                shown(&key),
                shown(&keys)
            );
        }
        let applied: Vec<usize> =
            (0..RACERS).filter(|racer| has(&Key::object(Kind::Entity, &project, format!("of {racer}")))).collect();
        let expected = 3 + 4 * applied.len();
        assert_eq!(
            left.len(),
            expected,
            "round {round}: 3 rows of the project and 4 of each apply that came after the deletion ({applied:?}); \
             there is {}",
            shown(&keys)
        );
    }
}
