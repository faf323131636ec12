//! Registries that race for the same objects: each write is there once, and decided from what the others left.

use std::sync::Arc;

use feast_registry_core::config::CacheConfig;
use feast_registry_core::proto::core::{FeatureView, FeatureViewState, MaterializationInterval};
use feast_registry_core::{
    ApplyOptions, Condition, Edit, ErrorKind, Freshness, Key, Kind, ListFilter, Object, Registry,
};
use prost_types::Timestamp;

use crate::faulty::FaultyBackend;
use crate::handle::{chain, or_fail};
use crate::race::{Rounds, race};
use crate::run::Setup;
use crate::sample::{applied, filler, interval, view};
use crate::shown::shown;
use crate::store::Store;

/// Registries on handles of their own. Writers of one of them queue; between them, commits are refused and decided again.
struct Rivals {
    registries: Vec<(Registry, Arc<FaultyBackend>)>,
}

impl Rivals {
    async fn new(store: &Store, count: usize) -> Self {
        let mut registries = Vec::new();
        for _ in 0..count {
            registries.push(store.counted_registry(CacheConfig::default()).await);
        }
        Self { registries }
    }

    /// The registry that a racer works with.
    fn of(&self, racer: usize) -> Registry {
        self.registries[racer % self.registries.len()].0.clone()
    }

    /// How many commits the storage has refused.
    fn conflicts(&self) -> usize {
        self.registries.iter().map(|(_, counted)| counted.calls().conflicts).sum()
    }
}

/// Checks that these are the intervals of the numbers `0..count`, each once, in whatever order.
#[track_caller]
pub(crate) fn assert_each_once(property: &str, count: usize, stored: &[MaterializationInterval]) {
    let order = |of: &MaterializationInterval| of.start_time.map(|Timestamp { seconds, nanos }| (seconds, nanos));
    let mut found = stored.to_vec();
    found.sort_by_key(order);
    let lost: Vec<usize> = (0..count).filter(|number| !found.contains(&interval(*number))).collect();
    let twice = found.windows(2).filter(|pair| pair[0] == pair[1]).count();
    assert!(
        lost.is_empty() && twice == 0 && found.len() == count,
        "{property}: of {count} intervals that were acknowledged, {} are stored, {twice} of them twice; lost are {}",
        found.len(),
        shown(&lost),
    );
}

/// A feature view as it is stored.
pub(crate) async fn stored_view(registry: &Registry, project: &str, name: &str) -> FeatureView {
    or_fail("a get of the view", registry.get_message(project, name, Freshness::Stored).await)
}

pub(crate) async fn every_interval_is_recorded_once(setup: Setup) {
    const TASKS: usize = 16;
    const EACH: usize = 6;
    let store = setup.store().await;
    let rivals = Rivals::new(&store, 2).await;
    let mut rounds = Rounds::new("materializations of one view", 2);
    while let Some(round) = rounds.next() {
        let name = format!("view {round}");
        or_fail("an apply", rivals.of(0).apply("p", view(Kind::FeatureView, &name, &["a"])).await);
        let before = rivals.conflicts();
        let racers = (0..TASKS).map(|racer| {
            let (registry, name) = (rivals.of(racer), name.clone());
            async move {
                for step in 0..EACH {
                    let of = interval(racer * EACH + step);
                    let outcome = registry.apply_materialization("p", &name, of.start_time, of.end_time).await;
                    or_fail("a materialization that races with others", outcome);
                }
                // Feast applies the whole view again with the intervals that it has read: it must not undo others'.
                let read = or_fail("a get", registry.get(Kind::FeatureView, "p", &name, Freshness::Stored).await);
                or_fail("an apply of what was read", registry.apply("p", read).await);
            }
        });
        race(racers).await;
        rounds.saw(rivals.conflicts() > before);
        let stored = stored_view(&rivals.of(1), "p", &name).await;
        let meta = stored.meta.unwrap_or_default();
        let property = format!("round {round}: {TASKS} tasks on 2 registries materialize one view");
        assert_each_once(&property, TASKS * EACH, &meta.materialization_intervals);
        assert_eq!(meta.state, FeatureViewState::AvailableOnline as i32, "{property}: the state of the view");
    }
}

pub(crate) async fn one_kind_of_view_gets_the_name(setup: Setup) {
    let store = setup.store().await;
    let rivals = Rivals::new(&store, 3).await;
    let mut rounds = Rounds::new("creators of one name in four kinds of view", 12);
    while let Some(round) = rounds.next() {
        let name = format!("view {round}");
        let before = rivals.conflicts();
        let racers = (0..8).map(|racer| {
            let (registry, kind) = (rivals.of(racer), Kind::VIEWS[(racer + round) % 4]);
            let object = view(kind, &name, &["a"]);
            async move { (kind, registry.apply("p", object).await) }
        });
        let (outcomes, _) = race(racers).await;
        rounds.saw(rivals.conflicts() > before);
        let mut there = Vec::new();
        for &kind in Kind::VIEWS {
            if rivals.of(round).get(kind, "p", &name, Freshness::Stored).await.is_ok() {
                there.push(kind);
            }
        }
        assert_eq!(there.len(), 1, "of four kinds of view racing for a name, one gets it; there are {there:?}");
        for (kind, outcome) in outcomes {
            match outcome {
                Ok(_) => assert_eq!(kind, there[0], "the kind whose apply was acknowledged"),
                Err(error) => {
                    let property = "the kind whose apply was refused";
                    assert_ne!(kind, there[0], "{property}: {}", chain(&error));
                    assert_eq!(error.kind(), ErrorKind::ConflictingFeatureViewNames, "{property}: {}", chain(&error));
                }
            }
        }
        let history = or_fail("a history", rivals.of(0).list_versions("p", &name).await);
        assert_eq!(history.len(), 1, "the one view of the name has one version");
        assert_eq!(history[0].view.kind, there[0], "the kind in the history");
    }
}

/// Checks that a history has the numbers from 0 on without a hole, and each of these schemas once.
pub(crate) async fn assert_history(
    property: &str,
    registry: &Registry,
    (project, view): (&str, &str),
    mut features: Vec<String>,
) {
    let history = or_fail("a history", registry.list_versions(project, view).await);
    let numbers: Vec<i32> = history.iter().map(|version| version.number).collect();
    let expected: Vec<i32> = (0..features.len() as i32).collect();
    assert_eq!(numbers, expected, "{property}: {} schemas were acknowledged, the versions are", features.len());
    let mut found = Vec::new();
    for version in &history {
        found.push(feature_of(&or_fail("a version", version.view.decode::<FeatureView>())));
    }
    let last = found.last().cloned();
    found.sort();
    features.sort();
    assert_eq!(found, features, "{property}: each schema that was acknowledged is one version");
    let active = stored_view(registry, project, view).await;
    assert_eq!(Some(feature_of(&active)), last, "{property}: the active view is the latest version");
    let number = active.meta.unwrap_or_default().current_version_number;
    assert_eq!(Some(number), numbers.last().copied(), "{property}: the number of the active version");
}

fn feature_of(view: &FeatureView) -> String {
    let features = view.spec.as_ref().map(|spec| spec.features.as_slice()).unwrap_or_default();
    features.iter().map(|feature| feature.name.as_str()).collect::<Vec<_>>().join(", ")
}

pub(crate) async fn versions_have_no_holes(setup: Setup) {
    const TASKS: usize = 8;
    const EACH: usize = 4;
    let store = setup.store().await;
    let rivals = Rivals::new(&store, 3).await;
    let mut rounds = Rounds::new("changes of one view's schema", 2);
    while let Some(round) = rounds.next() {
        let name = format!("view {round}");
        let feature = |racer: usize, step: usize| format!("feature {racer}-{step}");
        let before = rivals.conflicts();
        let racers = (0..TASKS).map(|racer| {
            let (registry, name) = (rivals.of(racer), name.clone());
            async move {
                for step in 0..EACH {
                    let object = view(Kind::FeatureView, &name, &[&feature(racer, step)]);
                    or_fail("a change of a schema that races with others", registry.apply("p", object).await);
                }
            }
        });
        race(racers).await;
        rounds.saw(rivals.conflicts() > before);
        let features = (0..TASKS).flat_map(|racer| (0..EACH).map(move |step| feature(racer, step))).collect();
        let property = format!("round {round}: {TASKS} tasks on 3 registries change one view's schema");
        assert_history(&property, &rivals.of(round), ("p", &name), features).await;
    }
}

pub(crate) async fn a_project_is_made_once(setup: Setup) {
    let store = setup.store().await;
    let rivals = Rivals::new(&store, 3).await;
    let handle = store.handle().await;
    let mut rounds = Rounds::new("first applies to one project", 8);
    while let Some(round) = rounds.next() {
        let project = format!("p{round}");
        let before = rivals.conflicts();
        let racers = (0..9).map(|racer| {
            let (registry, project) = (rivals.of(racer), project.clone());
            async move {
                let entity = applied(Kind::Entity, &format!("entity {racer}"), "");
                or_fail("a first apply that races with others", registry.apply(&project, entity).await);
                or_fail("project metadata", registry.list_project_metadata(&project, Freshness::Stored).await)
            }
        });
        let (identities, _) = race(racers).await;
        rounds.saw(rivals.conflicts() > before);
        for identity in &identities {
            assert_eq!(identity, &identities[0], "a project has one identity, whoever made it");
        }
        let (registry, filter) = (rivals.of(round), ListFilter::default());
        let entities = registry.list(Kind::Entity, Some(&project), &filter, Freshness::Stored).await;
        assert_eq!(or_fail("a list", entities).len(), 9, "every first apply was acknowledged and is there");
        let key = Key::project_object(&project);
        assert!(handle.get(&key).await.is_some(), "{} is made at the first apply", shown(&key));
    }
}

pub(crate) async fn applies_of_many_do_not_mix(setup: Setup) {
    let store = setup.store().await;
    let rivals = Rivals::new(&store, 3).await;
    let objects = |note: &str| -> Vec<Object> {
        (0..10).map(|number| applied(Kind::ALL[1 + number % 2], &format!("object {number}"), note)).collect()
    };
    or_fail("an apply", rivals.of(0).apply_all("p", objects("first"), ApplyOptions::default()).await);
    let mut rounds = Rounds::new("applies of the same many objects", 8);
    while let Some(round) = rounds.next() {
        let before = rivals.conflicts();
        let racers = (0..6).map(|racer| {
            let registry = rivals.of(racer);
            let mut objects = objects(&format!("round {round}, racer {racer}"));
            // In another order each, as two repositories would.
            objects.rotate_left(racer);
            async move {
                let outcome = registry.apply_all("p", objects, ApplyOptions::default()).await;
                or_fail("an apply of many that races with others", outcome);
            }
        });
        race(racers).await;
        rounds.saw(rivals.conflicts() > before);
        let mut notes = Vec::new();
        for kind in [Kind::ALL[1], Kind::ALL[2]] {
            let list = rivals.of(round).list(kind, Some("p"), &ListFilter::default(), Freshness::Stored).await;
            notes.extend(or_fail("a list", list).iter().map(|object| filler(&object.bytes)));
        }
        assert_eq!(notes.len(), 10, "the objects that were applied again and again");
        let is_one = notes.iter().all(|note| *note == notes[0]);
        let notes: Vec<String> = notes.iter().map(|note| String::from_utf8_lossy(note).into_owned()).collect();
        assert!(is_one, "round {round}: the last apply of many is there whole, and here is {notes:?}");
    }
}

pub(crate) async fn a_condition_lets_one_writer_write(setup: Setup) {
    let store = setup.store().await;
    let rivals = Rivals::new(&store, 3).await;
    or_fail("an apply", rivals.of(0).apply("p", applied(Kind::Entity, "seen", "first")).await);
    let mut rounds = Rounds::new("edits under the same condition", 8);
    while let Some(round) = rounds.next() {
        let is_new = round % 2 == 1;
        let (name, condition) = if is_new {
            (format!("new in {round}"), Condition::absent())
        } else {
            let seen = or_fail("a get", rivals.of(round).get(Kind::Entity, "p", "seen", Freshness::Stored).await).bytes;
            let is_as_seen = move |object: Option<&Object>| object.is_some_and(|object| object.bytes == seen);
            ("seen".to_owned(), Condition::new("it is as it was seen", is_as_seen))
        };
        let note = |racer: usize| format!("round {round}, racer {racer}");
        let before = rivals.conflicts();
        let racers = (0..6).map(|racer| {
            let registry = rivals.of(racer);
            let edit = Edit::apply(applied(Kind::Entity, &name, &note(racer))).when(condition.clone());
            async move { registry.edit("p", vec![edit], ApplyOptions::default()).await }
        });
        let (outcomes, _) = race(racers).await;
        rounds.saw(rivals.conflicts() > before);
        let stored = or_fail("a get", rivals.of(round).get(Kind::Entity, "p", &name, Freshness::Stored).await);
        let mut writers = Vec::new();
        for (racer, outcome) in outcomes.into_iter().enumerate() {
            match outcome {
                Ok(_) => writers.push(racer),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Changed, "a writer who came too late: {}", chain(&error))
                }
            }
        }
        let property = format!("round {round}: of six writers under one condition, one writes; those who did are");
        assert_eq!(writers.len(), 1, "{property} {writers:?}");
        assert_eq!(
            filler(&stored.bytes),
            note(writers[0]).as_bytes(),
            "round {round}: what the one has written is there"
        );
    }
}
