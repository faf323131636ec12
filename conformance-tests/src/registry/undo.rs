//! What was done is taken back from the journal.

use std::collections::BTreeMap;

use bytes::Bytes;
use feast_registry_core::{
    AsOf, ErrorKind, FeastObject, Freshness, Image, JournalEntry, JournalQuery, Key, Kind, ListFilter, Registry,
    Revision, Target, Undo, UndoOptions, UndoPlan, proto::core::FeatureView,
};

use crate::handle::{Everything, Handle, assert_unchanged, chain, not_of_project, of_project, or_fail, patience};
use crate::registry::projects::make;
use crate::run::Setup;
use crate::sample::{applied, interval, view, view_name};
use crate::shown::shown;

/// The newest entry of the journal, and whether the storage keeps what it changed.
async fn newest(handle: &Handle) -> JournalEntry {
    let newest = handle.0.journal(&JournalQuery::before(None, 1), &patience()).await;
    or_fail("a look at the newest entry", newest).pop().expect("the journal has what was just committed")
}

/// Whether a storage keeps what was stored: a file keeps only which keys were changed.
fn keeps_bytes(entry: &JournalEntry) -> bool {
    entry.changes.iter().any(|change| matches!(change.after, Image::Value(_)))
}

/// Whether a commit says of an object that it was changed.
fn is_told_of(entry: &JournalEntry, key: &Key) -> bool {
    matches!(key, Key::Object { .. }) && entry.changes.iter().any(|change| change.target == Target::Key(key.clone()))
}

/// What is stored, but for when it was written.
fn values(everything: &Everything) -> BTreeMap<Key, Bytes> {
    let lasting =
        everything.iter().filter(|(key, _)| !matches!(key, Key::Metadata { name, .. } if name == Key::LAST_UPDATED));
    lasting.map(|(key, record)| (key.clone(), record.value.clone())).collect()
}

#[track_caller]
fn assert_as_it_was(property: &str, before: &Everything, after: &Everything) {
    let (before, after) = (values(before), values(after));
    for key in before.keys().chain(after.keys().filter(|key| !before.contains_key(key))) {
        let (was, is) = (before.get(key), after.get(key));
        assert!(was == is, "{property}: {} was {}, and is {}", shown(key), shown(&was), shown(&is));
    }
}

/// Plans with one handle and does it with another.
async fn undo(planner: &Registry, doer: &Registry, undo: Undo) -> (UndoPlan, Option<Revision>) {
    let plan = or_fail("a plan", planner.plan_undo(&undo, UndoOptions::default()).await);
    let revision = or_fail("an undo", doer.undo(&plan).await);
    (plan, revision)
}

pub(crate) async fn a_deleted_project_comes_back_byte_for_byte(setup: Setup) {
    let store = setup.store().await;
    let handle = store.handle().await;
    let (registry, other) = (store.registry().await, store.registry().await);
    for project in ["p", "q"] {
        make(&registry, project).await;
    }
    let keeps = keeps_bytes(&newest(&handle).await);
    let before = handle.everything(&[]).await;
    or_fail("the deletion of a project", registry.delete_project("p").await);
    let deletion = newest(&handle).await.revision;
    let deleted = handle.everything(&[]).await;
    if !keeps {
        // Then it says what it lacks, and leaves all as it is.
        let plan = or_fail("a plan", registry.plan_undo(&Undo::Revert(deletion), UndoOptions::default()).await);
        let error = registry.undo(&plan).await.expect_err("what is not kept cannot come back");
        assert_eq!(error.kind(), ErrorKind::Unsupported, "an undo without bytes: {}", chain(&error));
        let entry = newest(&handle).await;
        let named = |key: &&Key| matches!(key, Key::Object { kind: Kind::Project, .. }) || is_told_of(&entry, key);
        for key in of_project(&before, "p").keys().filter(named) {
            assert!(error.to_string().contains(&key.to_string()), "{} is to be named: {error}", shown(key));
        }
        assert_unchanged("an undo that is refused", &deleted, &handle.everything(&[]).await);
        return;
    }
    let (plan, revision) = undo(&registry, &other, Undo::Revert(deletion)).await;
    let after = handle.everything(&[]).await;
    assert_as_it_was("a project that was deleted and put back", &of_project(&before, "p"), &of_project(&after, "p"));
    let untouched = (not_of_project(&before, "p"), not_of_project(&after, "p"));
    assert_unchanged("another project is put back", &untouched.0, &untouched.1);
    let entry = newest(&handle).await;
    assert_eq!(revision, Some(entry.revision), "an undo is one commit");
    assert_eq!(entry.reason, Some(format!("revert of revision {deletion}")));
    let expected = of_project(&after, "p").into_keys().filter(|key| *key != Key::metadata("p", Key::LAST_UPDATED));
    let planned: Vec<&Key> = plan.changes.iter().map(|change| &change.key).collect();
    assert_eq!(planned, expected.collect::<Vec<_>>().iter().collect::<Vec<_>>(), "the plan names all that is put back");
    // The one who did it sees it at once.
    let listed = other.list(Kind::Project, None, &ListFilter::default(), Freshness::Cached).await;
    assert_eq!(or_fail("a list", listed).len(), 2, "the cached projects");
    // Once is enough.
    let (plan, revision) = undo(&other, &registry, Undo::Revert(deletion)).await;
    assert!(plan.is_empty() && revision.is_none(), "what has been put back is not put back again: {revision:?}");
}

pub(crate) async fn a_project_goes_back_and_what_was_materialized_stays(setup: Setup) {
    let store = setup.store().await;
    let handle = store.handle().await;
    let (registry, other) = (store.registry().await, store.registry().await);
    make(&registry, "p").await;
    let then = newest(&handle).await;
    let before = handle.everything(&[]).await;
    let viewed = view_name(Kind::FeatureView);
    or_fail("an apply", other.apply("p", view(Kind::FeatureView, &viewed, &["c"])).await);
    let of = interval(1);
    let outcome = registry.apply_materialization("p", &viewed, of.start_time, of.end_time).await;
    or_fail("a materialization", outcome);
    let label = view_name(Kind::LabelView);
    or_fail("a deletion", other.delete(Kind::LabelView, "p", &label).await);
    or_fail("an apply", registry.apply("p", applied(Kind::Entity, "new", "")).await);
    let metadata = Some(Bytes::from_static(b"newer"));
    or_fail("user metadata", registry.apply_user_metadata(Kind::FeatureView, "p", &viewed, metadata).await);
    let restore = Undo::RestoreProject { project: "p".to_owned(), at: AsOf::Revision(then.revision) };
    if !keeps_bytes(&then) {
        let changed = handle.everything(&[]).await;
        let plan = or_fail("a plan", registry.plan_undo(&restore, UndoOptions::default()).await);
        let error = registry.undo(&plan).await.expect_err("what is not kept cannot come back");
        assert_eq!(error.kind(), ErrorKind::Unsupported, "an undo without bytes: {}", chain(&error));
        assert_unchanged("an undo that is refused", &changed, &handle.everything(&[]).await);
        return;
    }
    undo(&registry, &other, restore).await;
    let after = handle.everything(&[]).await;
    let key = Key::object(Kind::FeatureView, "p", viewed.as_str());
    let is_of_view = |of: &Key| *of == key || matches!(of, Key::Version { view, .. } if *view == viewed);
    let without = |all: &Everything| all.clone().into_iter().filter(|(key, _)| !is_of_view(key)).collect();
    assert_as_it_was("a project goes back", &without(&before), &without(&after));
    let decoded = |all: &Everything| -> FeatureView {
        or_fail("a stored view", feast_registry_core::Object::new(FeatureView::KIND, all[&key].value.clone()).decode())
    };
    let (was, is) = (decoded(&before), decoded(&after));
    assert_eq!(is.spec, was.spec, "the definition of a view goes back");
    let (was, is) = (was.meta.unwrap_or_default(), is.meta.unwrap_or_default());
    let intervals = [was.materialization_intervals.clone(), vec![of]].concat();
    assert_eq!(is.materialization_intervals, intervals, "what has been materialized stays");
    assert_eq!(is.created_timestamp, was.created_timestamp, "when the view was made stays");
    let numbers =
        |all: &Everything| all.keys().filter(|key| matches!(key, Key::Version { .. }) && is_of_view(key)).count();
    assert_eq!(numbers(&after), numbers(&before) + 2, "the view's history has grown by each definition");
}

pub(crate) async fn the_last_project_comes_back_though_the_storage_was_removed(setup: Setup) {
    let store = setup.store().await;
    let handle = store.handle().await;
    let (registry, other) = (store.registry().await, store.registry().await);
    make(&registry, "p").await;
    let then = newest(&handle).await;
    let before = handle.everything(&[]).await;
    or_fail("the deletion of the last project", registry.delete_project("p").await);
    let restore = Undo::RestoreProject { project: "p".to_owned(), at: AsOf::Revision(then.revision) };
    if !keeps_bytes(&then) {
        let refused = match other.plan_undo(&restore, UndoOptions::default()).await {
            Ok(plan) => other.undo(&plan).await.map(drop),
            // With a file goes its journal.
            Err(error) => Err(error),
        };
        refused.expect_err("what is not kept cannot come back");
        assert!(handle.everything(&[]).await.is_empty(), "an undo that is refused makes nothing");
        return;
    }
    undo(&other, &registry, restore).await;
    let after = handle.everything(&[]).await;
    assert_as_it_was("the last project, put back", &before, &after);
}
