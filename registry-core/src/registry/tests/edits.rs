//! What an edit does and says of it.

use super::*;
use crate::rules::ApplyOptions;

#[tokio::test]
async fn one_commit_applies_and_deletes() {
    let (registry, storage) = open().await;
    registry.apply("p", entity("old", "")).await.expect("an apply");
    let commits = storage.commits().len();
    let edits = vec![
        Edit::apply(entity("new", "")),
        Edit::delete(Kind::Entity, "old"),
        Edit::apply(view("stats", &["a"])),
        Edit::apply(entity("new", "")),
    ];
    let edited = registry.edit("p", edits, ApplyOptions::default()).await.expect("an edit");
    assert_eq!(storage.commits().len() - commits, 1);
    let changed: Vec<_> = edited.iter().map(|edited| (edited.has_changed, edited.version)).collect();
    assert_eq!(changed, [(true, None), (true, None), (true, Some(0)), (false, None)]);
    let revision =
        registry.journal(&JournalQuery::after(None, 10)).await.expect("the journal").last().map(|entry| entry.revision);
    assert_eq!(edited[0].revision, revision);
    assert_eq!(edited[3].revision, None, "it changed nothing");
    assert_eq!(storage.stored(Kind::Entity, "old").await, None);
    // All or nothing.
    let edits = vec![Edit::apply(entity("more", "")), Edit::delete(Kind::Entity, "nobody")];
    let refused = registry.edit("p", edits, ApplyOptions::default()).await.expect_err("there is no such entity");
    assert_eq!(refused.kind(), ErrorKind::NotFound(Kind::Entity));
    assert_eq!(storage.stored(Kind::Entity, "more").await, None);
    let project = registry.edit("p", vec![Edit::delete(Kind::Project, "p")], ApplyOptions::default()).await;
    assert_eq!(project.expect_err("a project is deleted alone").kind(), ErrorKind::InvalidArgument);
}

#[tokio::test]
async fn an_apply_says_which_version_a_view_is() {
    let (registry, _) = open().await;
    let mut label = crate::proto::core::LabelView::default();
    label.spec.get_or_insert_default().name = "labels".to_owned();
    label.spec.get_or_insert_default().entities = vec!["driver".to_owned()];
    let label = Object::encode(&label);
    let apply = async |object: &Object, no_promote| {
        let edited = registry.apply_all("p", vec![object.clone()], ApplyOptions { no_promote }).await;
        let edited = edited.expect("an apply").remove(0);
        assert_eq!(edited.revision.is_some(), edited.has_changed);
        (edited.has_changed, edited.version)
    };
    assert_eq!(apply(&view("stats", &["a"]), false).await, (true, Some(0)));
    assert_eq!(apply(&view("stats", &["a"]), false).await, (false, Some(0)));
    assert_eq!(apply(&view("stats", &["a", "b"]), false).await, (true, Some(1)));
    assert_eq!(apply(&view("stats", &["c"]), true).await, (true, Some(2)), "recorded and not promoted");
    assert_eq!(apply(&view("stats", &["a", "b"]), false).await, (false, Some(1)), "the active one is as it was");
    assert_eq!(apply(&label, false).await, (true, Some(0)));
    assert_eq!(apply(&label, false).await, (false, Some(0)));
    assert_eq!(apply(&entity("driver", ""), false).await, (true, None));
}

#[tokio::test]
async fn a_view_that_is_deleted_and_applied_in_one_commit_begins_anew() {
    let (registry, _) = open().await;
    registry.apply("p", view("stats", &["a"])).await.expect("an apply");
    registry.apply("p", view("stats", &["b"])).await.expect("an apply");
    let edits = vec![Edit::delete(Kind::FeatureView, "stats"), Edit::apply(view("stats", &["c"]))];
    let edited = registry.edit("p", edits, ApplyOptions::default()).await.expect("an edit");
    assert_eq!(edited[1].version, Some(0));
    let versions = registry.list_versions("p", "stats").await.expect("the history");
    assert_eq!(versions.iter().map(|version| version.number).collect::<Vec<_>>(), [0]);
}

/// Faults: a project was deleted that had been protected, or made anew, while somebody was asked whether to delete it.
#[tokio::test]
async fn a_project_is_deleted_as_it_was_seen_or_not_at_all() {
    let (registry, storage) = open().await;
    registry.apply("p", entity("driver", "")).await.expect("an apply");
    let seen = registry.get(Kind::Project, "p", "p", Freshness::Stored).await.expect("a project");
    storage.plant(Key::project_object("p"), [seen.bytes.as_ref(), b"\x0a\x00"].concat()).await;
    let error = registry.delete_project_as_seen(&seen).await.expect_err("it was changed");
    assert_eq!(error.kind(), ErrorKind::Changed, "{error}");
    assert!(storage.stored(Kind::Entity, "driver").await.is_some());
    let seen = registry.get(Kind::Project, "p", "p", Freshness::Stored).await.expect("a project");
    let removal = registry.delete_project_as_seen(&seen).await.expect("a deletion");
    assert!(matches!(removal, StorageRemoval::Removed), "{removal:?}");
    let error = registry.delete_project_as_seen(&seen).await.expect_err("it is gone");
    assert_eq!(error.kind(), ErrorKind::NotFound(Kind::Project), "{error}");
    let driver = entity("driver", "");
    assert_eq!(
        registry.delete_project_as_seen(&driver).await.expect_err("no project").kind(),
        ErrorKind::InvalidArgument
    );
}

#[tokio::test]
async fn tables_stay_when_they_are_to() {
    for keep_tables in [false, true] {
        let options = RegistryOptions { keep_tables, ..Default::default() };
        let (registry, storage) = open_with(options).await;
        registry.apply("p", entity("driver", "")).await.expect("an apply");
        registry.delete_project("p").await.expect("a deletion");
        assert_eq!(storage.removals.load(Ordering::SeqCst), usize::from(!keep_tables), "keep_tables: {keep_tables}");
    }
}
