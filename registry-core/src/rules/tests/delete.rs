//! Deleting objects, views with their history, and projects with all that is theirs.

use super::*;

fn named_kinds() -> impl Iterator<Item = Kind> {
    Kind::ALL.iter().copied().filter(|kind| *kind != Kind::Project)
}

fn name_of(object: &Object) -> String {
    match key_of(object) {
        Key::Object { name, .. } => name,
        key => panic!("{key} is no object's"),
    }
}

/// One object of every kind but the views, which share their names and have others here.
fn everything() -> Vec<Object> {
    let named = |kind: Kind| match kind.is_view() {
        true => view(kind, kind.plural(), &["a"]),
        false => thing(kind),
    };
    Kind::ALL.iter().copied().map(named).collect()
}

/// The names of the views of [`everything`], and one more.
const VIEWS: [&str; 5] = ["feature_views", "stream_feature_views", "on_demand_feature_views", "label_views", "trips"];

fn full_world() -> World {
    let mut world = World::with(everything());
    for &kind in Kind::VIEWS {
        let metadata = Op::UserMetadata(kind, kind.plural().to_owned(), Some(Bytes::from_static(b"mine")));
        world.run(&metadata).expect("attached");
    }
    world
}

#[test]
fn an_object_is_deleted_and_no_other() {
    check_rows(everything().into_iter().filter(|object| object.kind != Kind::Project), |object| {
        let mut world = full_world();
        let mut left = world.dump(&VIEWS);
        world.run(&Op::Delete(object.kind, name_of(&object))).map_err(|error| format!("{object:?}: {error}"))?;
        left.remove(&key_of(&object));
        if object.kind.is_view() {
            left.remove(&version_key(PROJECT, &name_of(&object), 0)).expect("the history goes with the view");
            left.remove(&user_metadata_key(object.kind, PROJECT, &name_of(&object)))
                .expect("so does what users attached");
        }
        left.insert(Key::metadata(PROJECT, Key::LAST_UPDATED), Bytes::from(world.last().seconds.to_string()));
        ensure(world.dump(&VIEWS) == left, || format!("{object:?}: more or less is left than should be"))
    });
}

#[test]
fn deleting_what_is_not_there_is_not_found_by_its_kind() {
    check_rows(named_kinds(), |kind| {
        let mut world = full_world();
        let before = world.dump(&VIEWS);
        let names = ["none", "Thing", ""];
        for name in names {
            let error = world.run(&Op::Delete(kind, name.to_owned())).map(|_| ()).expect_err("nothing of that name");
            ensure(error.kind() == ErrorKind::NotFound(kind), || format!("{kind}: {:?}", error.kind()))?;
            ensure(error.to_string().contains(&format!("`{name}`")), || format!("{kind}: {error}"))?;
        }
        let elsewhere = world.run_in("elsewhere", &Op::Delete(kind, "thing".to_owned()));
        ensure(elsewhere.is_err(), || format!("{kind}: it is in another project"))?;
        ensure(world.dump(&VIEWS) == before, || format!("{kind}: something was written"))
    });
}

#[test]
fn a_view_is_deleted_by_its_own_kind_only_unless_any_kind_is_meant() {
    for &kind in Kind::VIEWS {
        let mut world = World::with([view(kind, "trips", &["a"]), view(kind, "trips", &["a", "b"])]);
        for other in Kind::VIEWS.iter().copied().filter(|other| *other != kind) {
            let deleted = world.run(&Op::Delete(other, "trips".to_owned()));
            assert_refused(deleted, ErrorKind::NotFound(other), &["trips"]);
        }
        assert_eq!(world.version_numbers("trips"), [0, 1], "{kind}");
        world.run(&Op::DeleteView("trips".to_owned())).expect("deleted");
        assert_eq!(world.find(kind, "trips"), None, "{kind}");
        assert!(world.versions("trips").is_empty(), "{kind}: its history goes with it");
        assert_refused(world.run(&Op::DeleteView("trips".to_owned())), ErrorKind::ViewNotFound, &["trips", PROJECT]);
    }
}

#[test]
fn a_view_that_comes_again_begins_at_version_0() {
    for &kind in Kind::VIEWS {
        let mut world = World::with([view(kind, "trips", &["a"]), view(kind, "trips", &["a", "b"])]);
        world.run(&Op::DeleteView("trips".to_owned())).expect("deleted");
        world.apply(&view(kind, "trips", &["c"])).expect("applied");
        assert_eq!(world.version_numbers("trips"), [0], "{kind}");
        assert_eq!(world.stored(&view(kind, "trips", &[])).created_timestamp().expect("a time"), Some(world.last()));
    }
}

/// Two of one name cannot come from our rules, but from another program's.
#[test]
fn deleting_a_view_of_any_kind_deletes_all_of_its_name() {
    let mut world = World::with([view(Kind::FeatureView, "trips", &["a"])]);
    world.plant_object(&view(Kind::LabelView, "trips", &["a"]));
    world.run(&Op::DeleteView("trips".to_owned())).expect("deleted");
    assert!(Kind::VIEWS.iter().copied().all(|kind| world.find(kind, "trips").is_none()));
}

#[test]
fn an_entity_of_a_views_name_goes_without_the_views_history() {
    let entity = object(Kind::Entity, json!({ "name": "trips" }), json!({}));
    let mut world = World::with([view(Kind::FeatureView, "trips", &["a"]), entity]);
    world.run(&Op::Delete(Kind::Entity, "trips".to_owned())).expect("deleted");
    assert_eq!(world.version_numbers("trips"), [0]);
}

#[test]
fn a_delete_expects_that_what_it_deletes_is_there() {
    check_rows(everything().into_iter().filter(|object| object.kind != Kind::Project), |object| {
        let commit = full_world().run(&Op::Delete(object.kind, name_of(&object))).expect("deleted");
        let rests_on = expected(&commit, &key_of(&object));
        let is_there = matches!(rests_on, Some(Expected::Present | Expected::Value(_)));
        ensure(is_there, || format!("{object:?}: {rests_on:?}"))
    });
}

#[test]
fn a_deleted_project_goes_with_everything_in_it_and_nothing_of_another() {
    let mut world = full_world();
    let other = "ride"; // Its name begins the other's.
    let mut objects = everything();
    objects.retain(|object| object.kind != Kind::Project);
    objects.push(view(Kind::FeatureView, "trips", &["a"]));
    world.run_in(other, &Op::Apply(objects, ApplyOptions::default())).expect("applied");
    world.apply(&view(Kind::FeatureView, "trips", &["a"])).expect("applied");
    let theirs: BTreeMap<_, _> = world.dump(&VIEWS).into_iter().filter(|(key, _)| key.project() == other).collect();
    assert!(theirs.len() > 12, "{theirs:?}");
    let their_version = world.value(version_key(other, "trips", 0));
    let commit = world.run(&Op::DeleteProject).expect("deleted");
    assert_eq!(world.dump(&VIEWS), theirs);
    assert!(their_version.is_some() && world.value(version_key(other, "trips", 0)) == their_version);
    // A project that is protected meanwhile is not deleted.
    assert!(matches!(expected(&commit, &Key::project_object(PROJECT)), Some(Expected::Value(_))));
}

#[test]
fn deleting_a_project_that_is_not_there_is_not_found() {
    let mut world = full_world();
    let before = world.dump(&VIEWS);
    let not_found = ErrorKind::NotFound(Kind::Project);
    assert_refused(world.run_in("none", &Op::DeleteProject), not_found, &["none"]);
    assert_eq!(world.dump(&VIEWS), before);
}

#[test]
fn a_project_that_comes_again_is_another_one() {
    let mut world = full_world();
    let uuid = world.fact(Key::PROJECT_UUID).expect("a UUID");
    world.run(&Op::DeleteProject).expect("deleted");
    world.apply(&view(Kind::FeatureView, "feature_views", &["z"])).expect("applied");
    assert_ne!(world.fact(Key::PROJECT_UUID), Some(uuid));
    assert_eq!(world.version_numbers("feature_views"), [0], "no history is left of the former one");
}
