//! Objects of all kinds through the registry.

use bytes::Bytes;
use feast_registry_core::config::CacheConfig;
use feast_registry_core::proto::core::{FeatureService, FeatureServiceSpec, FeatureViewProjection};
use feast_registry_core::{ApplyOptions, ErrorKind, Freshness, INFRA_NAME, Kind, ListFilter, Object, Registry};

use crate::handle::{assert_unchanged, chain, or_fail};
use crate::run::Setup;
use crate::sample::{LOOKALIKES, applied, filler, view};

/// The name under which an object of the tests is asked for.
fn stored_name<'a>(kind: Kind, project: &'a str, name: &'a str) -> &'a str {
    match kind {
        Kind::Project => project,
        Kind::Infra => INFRA_NAME,
        _ => name,
    }
}

/// Checks that an object is what was applied with this filler.
#[track_caller]
fn assert_applied(property: &str, kind: Kind, project: &str, name: &str, note: &str, object: &Object) {
    assert_eq!(object.kind, kind, "{property}: the kind");
    if kind != Kind::Infra {
        assert_eq!(or_fail(property, object.name()), stored_name(kind, project, name), "{property}: the name");
    }
    if kind.layout().project.is_some() {
        assert_eq!(or_fail(property, object.project()), project, "{property}: the project inside the message");
    }
    assert_eq!(filler(&object.bytes), note.as_bytes(), "{property}: what was applied");
    if kind.layout().meta.is_some() {
        let created = or_fail(property, object.created_timestamp()).expect("a created timestamp is set");
        let updated = or_fail(property, object.last_updated_timestamp()).expect("a last updated timestamp is set");
        let order = |moment: prost_types::Timestamp| (moment.seconds, moment.nanos);
        assert!(
            order(created) <= order(updated),
            "{property}: made at {created:?}, last updated before, at {updated:?}"
        );
    }
}

/// Checks an object of a kind in every way of reading it; `None` is that it is not there.
async fn reads(property: &str, registry: &Registry, kind: Kind, project: &str, name: &str, note: Option<&str>) {
    let name = stored_name(kind, project, name);
    for freshness in [Freshness::Stored, Freshness::Cached] {
        let property = format!("{property}: {kind} `{name}` of `{project}`, {freshness:?}");
        let listed = registry.list(kind, Some(project), &ListFilter::default(), freshness).await;
        let listed = or_fail(&property, listed);
        match (registry.get(kind, project, name, freshness).await, note) {
            (Ok(object), Some(note)) => {
                assert_applied(&property, kind, project, name, note, &object);
                assert_eq!(listed, [object], "{property}: the list has what the get has");
            }
            (Err(error), None) => {
                assert_eq!(error.kind(), ErrorKind::NotFound(kind), "{property}: {}", chain(&error));
                assert_eq!(listed, [], "{property}: a list of nothing");
            }
            (Ok(_), None) => panic!("{property}: it is there and should not be"),
            (Err(error), Some(_)) => panic!("{property}: it should be there: {}", chain(&error)),
        }
        if kind == Kind::Infra {
            let infra = or_fail(&property, registry.get_infra(project, freshness).await);
            assert_eq!(filler(&infra.bytes), note.unwrap_or_default().as_bytes(), "{property}: get_infra");
        }
        if kind.is_view() {
            let found = registry.get_any_view(project, name, freshness).await;
            assert_eq!(found.is_ok(), note.is_some(), "{property}: get_any_view");
        }
    }
}

pub(crate) async fn every_kind_is_applied_read_listed_and_deleted(setup: Setup) {
    let store = setup.store().await;
    let (registry, other) = (store.registry().await, store.registry().await);
    for &kind in Kind::ALL {
        let project = format!("project of {}", kind.plural());
        let project = project.as_str();
        let name = if kind == Kind::Project { project } else { "name" };
        for note in ["first", "second, and longer"] {
            or_fail("an apply", registry.apply(project, applied(kind, name, note)).await);
            reads("after an apply", &registry, kind, project, name, Some(note)).await;
            or_fail("a refresh", other.refresh().await);
            reads("after an apply by another", &other, kind, project, name, Some(note)).await;
        }
        let made = registry.get(Kind::Project, project, project, Freshness::Stored).await;
        or_fail("the project is made at first use", made);
        let identity = or_fail("project metadata", registry.list_project_metadata(project, Freshness::Stored).await);
        assert_eq!(identity.len(), 1, "a project has an identity once it is made");
        assert_eq!(identity[0].project_uuid.len(), 36, "a project's identity is a UUID");
        let stored = stored_name(kind, project, name);
        or_fail("a deletion", registry.delete(kind, project, stored).await);
        reads("after a deletion", &registry, kind, project, name, None).await;
        or_fail("a refresh", other.refresh().await);
        reads("after a deletion by another", &other, kind, project, name, None).await;
        let again = registry.delete(kind, project, stored).await.expect_err("what is deleted cannot be deleted again");
        assert_eq!(again.kind(), ErrorKind::NotFound(kind), "the deletion of what is not there: {}", chain(&again));
    }
}

pub(crate) async fn an_unchanged_apply_writes_nothing(setup: Setup) {
    let store = setup.store().await;
    let handle = store.handle().await;
    let (registry, counted) = store.counted_registry(CacheConfig::default()).await;
    let objects: Vec<Object> =
        Kind::ALL.iter().copied().map(|kind| applied(kind, project_or(kind, "name"), "note")).collect();
    let apply_all = async |objects: Vec<Object>| {
        or_fail("an apply", registry.apply_all("p", objects, ApplyOptions::default()).await);
    };
    apply_all(objects.clone()).await;
    let interval = crate::sample::interval(0);
    or_fail(
        "a materialization",
        registry.apply_materialization("p", "name of feature view", interval.start_time, interval.end_time).await,
    );
    let before = handle.everything(&[]).await;
    let commits = counted.calls().commits;
    for object in &objects {
        or_fail("an apply", registry.apply("p", object.clone()).await);
        let stored_name = match object.kind {
            Kind::Infra => INFRA_NAME.to_owned(),
            _ => or_fail("a name", object.name()),
        };
        // A client may also send back what it read, with all that the registry has put into it.
        let read = registry.get(object.kind, "p", &stored_name, Freshness::Stored).await;
        or_fail("an apply", registry.apply("p", or_fail("a get", read)).await);
        let property = format!("a {} that is applied unchanged writes nothing", object.kind);
        assert_unchanged(&property, &before, &handle.everything(&[]).await);
        assert_eq!(counted.calls().commits, commits, "{property}: commits since all was applied");
    }
    apply_all(objects).await;
    assert_eq!(counted.calls().commits, commits, "all objects applied unchanged at once write nothing");
}

/// Views of one project may not share a name, so each object is named after its kind; the project is `p`.
fn project_or(kind: Kind, name: &str) -> &str {
    match kind {
        Kind::Project => "p",
        Kind::FeatureView => "name of feature view",
        Kind::StreamFeatureView => "name of stream feature view",
        Kind::OnDemandFeatureView => "name of on demand feature view",
        Kind::LabelView => "name of label view",
        _ => name,
    }
}

pub(crate) async fn names_up_to_the_limit(setup: Setup) {
    let store = setup.store().await;
    let limit = store.backend().await.limits().name_chars;
    let registry = store.registry().await;
    let refuse = async |project: &str, name: &str| {
        let property =
            format!("a name of {} characters in a project of {}", name.chars().count(), project.chars().count());
        let refused = registry.apply(project, applied(Kind::Entity, name, "")).await;
        let error = refused.expect_err(&format!("{property} is beyond what can be stored"));
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{property}: {}", chain(&error));
    };
    for character in ["x", "\u{1f697}"] {
        let longest = character.repeat(limit.unwrap_or(10_000));
        for (project, name) in [("p", longest.as_str()), (&longest, "name"), (&longest, &longest)] {
            or_fail("an apply of the longest name", registry.apply(project, applied(Kind::Entity, name, "note")).await);
            let object = registry.get(Kind::Entity, project, name, Freshness::Stored).await;
            assert_applied("the longest name", Kind::Entity, project, name, "note", &or_fail("a get", object));
        }
        if limit.is_some() {
            // Refused by the registry, never cut short by the storage.
            let longer = format!("{longest}x");
            refuse("p", &longer).await;
            refuse(&longer, "name").await;
        }
    }
    for (project, name) in [("p", ""), ("", "name"), ("p", "a\0b"), ("a\0b", "name")] {
        refuse(project, name).await;
    }
}

pub(crate) async fn names_that_look_alike(setup: Setup) {
    let store = setup.store().await;
    let (registry, other) = (store.registry().await, store.registry().await);
    let is_viewable = |name: &&&str| !name.contains(['@', ':']);
    let views: Vec<&str> = LOOKALIKES.iter().filter(is_viewable).copied().collect();
    let kind_of = |name: &str| Kind::VIEWS[name.len() % 4];
    for name in LOOKALIKES {
        or_fail("an apply", registry.apply("p", applied(Kind::Entity, name, name)).await);
    }
    for name in &views {
        or_fail("an apply", registry.apply("p", view(kind_of(name), name, &["a"])).await);
    }
    or_fail("a refresh", other.refresh().await);
    let expected = store.handle().await.in_order(LOOKALIKES.to_vec(), |name| *name);
    for (registry, freshness) in
        [(&registry, Freshness::Stored), (&registry, Freshness::Cached), (&other, Freshness::Cached)]
    {
        let list = registry.list(Kind::Entity, Some("p"), &ListFilter::default(), freshness).await;
        let names: Vec<String> =
            or_fail("a list", list).iter().map(|object| or_fail("a name", object.name())).collect();
        assert_eq!(names, expected, "a list of names that look alike, {freshness:?}");
        for name in LOOKALIKES {
            let object = or_fail("a get", registry.get(Kind::Entity, "p", name, freshness).await);
            assert_applied("names that look alike", Kind::Entity, "p", name, name, &object);
        }
        for name in &views {
            let found = or_fail("a view", registry.get_any_view("p", name, freshness).await);
            assert_eq!((found.kind, or_fail("a name", found.name())), (kind_of(name), (*name).to_owned()));
            let versions = or_fail("a history", registry.list_versions("p", name).await);
            assert_eq!(versions.len(), 1, "the history of view {name:?} has one version");
        }
    }
}

pub(crate) async fn an_apply_of_many_is_all_or_nothing(setup: Setup) {
    let store = setup.store().await;
    let handle = store.handle().await;
    let registry = store.registry().await;
    let service = |view: &str| {
        let features = vec![FeatureViewProjection { feature_view_name: view.to_owned(), ..Default::default() }];
        let spec = FeatureServiceSpec { name: "service".to_owned(), features, ..Default::default() };
        Object::encode(&FeatureService { spec: Some(spec), meta: None })
    };
    or_fail("an apply", registry.apply("p", view(Kind::LabelView, "taken", &["a"])).await);
    or_fail("an apply", registry.apply("p", applied(Kind::Entity, "entity 7", "before")).await);
    let before = handle.everything(&[]).await;
    let many = |last: Object| -> Vec<Object> {
        let entities = (0..50).map(|number| applied(Kind::Entity, &format!("entity {number}"), "after"));
        let views = (0..50).map(|number| view(Kind::VIEWS[number % 4], &format!("view {number}"), &["a"]));
        entities.chain(views).chain([last]).collect()
    };
    let bad = [
        (view(Kind::FeatureView, "taken", &["a"]), ErrorKind::ConflictingFeatureViewNames),
        (service("absent"), ErrorKind::FeatureNotFound),
        (view(Kind::FeatureView, "a@b", &["a"]), ErrorKind::InvalidArgument),
        (Object::new(Kind::Entity, Bytes::from_static(b"\x0a\xff")), ErrorKind::InvalidArgument),
    ];
    for (last, kind) in bad {
        // The bad one last, and first.
        let mut objects = many(last);
        for _ in 0..2 {
            for project in ["p", "new"] {
                let mut objects = objects.clone();
                if project == "new" && kind == ErrorKind::ConflictingFeatureViewNames {
                    objects.push(view(Kind::LabelView, "taken", &["a"]));
                }
                let outcome = registry.apply_all(project, objects, ApplyOptions::default()).await;
                let error = outcome.expect_err("one of the objects cannot be applied");
                assert_eq!(error.kind(), kind, "an apply of many, one of them bad: {}", chain(&error));
                let property = format!("an apply of 101 objects to `{project}`, one of them bad ({kind:?})");
                assert_unchanged(&property, &before, &handle.everything(&[]).await);
            }
            objects.rotate_right(1);
        }
    }
    // Later ones see earlier ones.
    let outcome = registry.apply_all("p", many(service("view 49")), ApplyOptions::default()).await;
    or_fail("an apply of many that are all good", outcome);
    let after = handle.everything(&[]).await;
    let expected = before.len() + 49 + 2 * 50 + 1;
    assert_eq!(after.len(), expected, "an apply of many is done whole: 49 entities, 50 views and versions, a service");
}

pub(crate) async fn user_metadata_and_history_go_with_their_view(setup: Setup) {
    let store = setup.store().await;
    let handle = store.handle().await;
    let registry = store.registry().await;
    for &kind in Kind::VIEWS {
        for other in ["view", "View"] {
            for features in [&["a"][..], &["a", "b"], &["c"]] {
                or_fail("an apply", registry.apply("p", view(kind, other, features)).await);
            }
            let note = Some(Bytes::from(format!("note of {other}")));
            or_fail("user metadata", registry.apply_user_metadata(kind, "p", other, note).await);
        }
        let attached = async |name: &str| or_fail("user metadata", registry.get_user_metadata(kind, "p", name).await);
        let versions = async |name: &str| {
            let history = or_fail("a history", registry.list_versions("p", name).await);
            history.into_iter().map(|version| version.number).collect::<Vec<_>>()
        };
        assert_eq!(versions("view").await, [0, 1, 2], "a {kind} with two changes of its schema has three versions");
        assert_eq!(attached("view").await.as_deref(), Some(&b"note of view"[..]), "the user metadata of a {kind}");
        or_fail("a deletion", registry.delete(kind, "p", "view").await);
        let left = handle.everything(&[("p", "view")]).await;
        let left: Vec<_> = left.into_keys().filter(|key| format!("{key:?}").contains("\"view\"")).collect();
        assert_eq!(left, [], "what is left of a deleted {kind}");
        or_fail("an apply", registry.apply("p", view(kind, "view", &["d"])).await);
        assert_eq!(versions("view").await, [0], "a new {kind} of an old name begins a new history");
        assert_eq!(attached("view").await, None, "a new {kind} of an old name has no user metadata");
        assert_eq!(versions("View").await, [0, 1, 2], "a {kind} whose name differs in case keeps its history");
        assert_eq!(attached("View").await.as_deref(), Some(&b"note of View"[..]), "and its user metadata");
        or_fail("a deletion", registry.delete_view("p", "view").await);
        or_fail("a deletion", registry.delete_view("p", "View").await);
    }
}
