//! Projects, what is kept beside their objects, and what users attach to views.

use super::*;
use crate::proto::core::Project;

fn project_of(world: &World, name: &str) -> Project {
    let bytes = world.value(Key::project_object(name)).unwrap_or_else(|| panic!("project {name} is there"));
    Object::new(Kind::Project, bytes).decode().expect("a project")
}

fn metadata_keys(commit: &Commit) -> Vec<&Key> {
    written(commit).into_iter().filter(|key| matches!(key, Key::Metadata { .. })).collect()
}

#[test]
fn a_project_is_made_at_first_use_by_an_object_of_any_kind() {
    check_rows(Kind::ALL.iter().copied().filter(|kind| *kind != Kind::Project), |kind| {
        let mut world = World::new();
        let commit = world.apply(&thing(kind)).map_err(|error| format!("{kind}: {error}"))?;
        let project = project_of(&world, PROJECT);
        let meta = project.meta.unwrap_or_default();
        let times = (meta.created_timestamp, meta.last_updated_timestamp);
        ensure(times == (Some(world.last()), Some(world.last())), || format!("{kind}: {times:?}"))?;
        ensure(project.spec.unwrap_or_default().name == PROJECT, || format!("{kind}: another name"))?;
        let uuid = world.fact(Key::PROJECT_UUID).unwrap_or_default();
        ensure(uuid.len() == 36, || format!("{kind}: the project's UUID is `{uuid}`"))?;
        let noted = world.fact(Key::LAST_UPDATED);
        ensure(noted == Some(world.last().seconds.to_string()), || format!("{kind}: last updated at {noted:?}"))?;
        for key in [Key::project_object(PROJECT), Key::metadata(PROJECT, Key::PROJECT_UUID)] {
            let rests_on = expected(&commit, &key);
            ensure(rests_on == Some(&Expected::Absent), || format!("{kind}: {key}: {rests_on:?}"))?;
        }
        Ok(())
    });
}

#[test]
fn a_project_that_is_there_stays_as_it_is_and_is_expected_to_be_there() {
    let described = object(Kind::Project, json!({ "description": "mine" }), json!({}));
    check_rows(Kind::ALL.iter().copied().filter(|kind| *kind != Kind::Project), |kind| {
        let mut world = World::with([described.clone()]);
        let (project, uuid) = (world.stored(&described), world.fact(Key::PROJECT_UUID));
        let commit = world.apply(&thing(kind)).map_err(|error| format!("{kind}: {error}"))?;
        ensure(world.stored(&described) == project, || format!("{kind}: the project was written"))?;
        ensure(world.fact(Key::PROJECT_UUID) == uuid, || format!("{kind}: another UUID"))?;
        let rests_on = expected(&commit, &Key::project_object(PROJECT));
        ensure(rests_on == Some(&Expected::Present), || format!("{kind}: {rests_on:?}"))
    });
}

#[test]
fn a_project_that_is_applied_has_an_identity_too() {
    let mut world = World::new();
    world.apply(&thing(Kind::Project)).expect("applied");
    let uuid = world.fact(Key::PROJECT_UUID).expect("a UUID");
    assert_eq!(world.fact(Key::LAST_UPDATED), Some(world.last().seconds.to_string()));
    world.apply(&object(Kind::Project, json!({ "description": "mine" }), json!({}))).expect("applied");
    assert_eq!(world.fact(Key::PROJECT_UUID), Some(uuid), "an identity stays");
    assert_eq!(project_of(&world, PROJECT).spec.unwrap_or_default().description, "mine");
}

#[test]
fn a_project_without_an_identity_is_given_one_though_nothing_else_changed() {
    let mut world = World::new();
    world.plant_object(&thing(Kind::Project));
    world.plant_object(&thing(Kind::Entity));
    let stored = World::with([thing(Kind::Entity)]).stored(&thing(Kind::Entity));
    world.plant_object(&stored);
    world.apply(&thing(Kind::Entity)).expect("applied");
    assert_eq!(world.fact(Key::PROJECT_UUID).map(|uuid| uuid.len()), Some(36));
    assert_eq!(world.stored(&thing(Kind::Entity)), stored);
}

/// What changes a project, each with what it needs.
fn changes() -> Vec<(&'static str, Op)> {
    let trips = || "trips".to_owned();
    vec![
        ("apply", Op::Apply(vec![thing(Kind::Entity)], ApplyOptions::default())),
        (
            "apply without promoting",
            Op::Apply(vec![view(Kind::FeatureView, "trips", &["x"])], ApplyOptions { no_promote: true }),
        ),
        ("materialize", Op::Materialize(trips(), interval_of(1))),
        ("take back what was materialized", Op::Unmaterialize(trips(), interval_of(0))),
        ("delete", Op::Delete(Kind::FeatureView, trips())),
        ("delete a view of any kind", Op::DeleteView(trips())),
    ]
}

fn world_to_change(mut world: World) -> World {
    world.apply(&materialized(&view(Kind::FeatureView, "trips", &["a"]), &[0], 1)).expect("applied");
    world
}

#[test]
fn every_change_notes_its_second() {
    check_rows(changes(), |(what, op)| {
        let mut world = world_to_change(World::new());
        world.run(&op).map_err(|error| format!("{what}: {error}"))?;
        let noted = world.fact(Key::LAST_UPDATED);
        ensure(noted == Some(world.last().seconds.to_string()), || format!("{what}: {noted:?}"))
    });
}

#[test]
fn the_second_of_the_last_change_is_noted_once_and_does_not_go_back() {
    check_rows(changes(), |(what, op)| {
        for (ago, why) in [(1, "in the same second"), (60, "with a clock that is behind")] {
            let mut world = world_to_change(World::new());
            let noted = world.fact(Key::LAST_UPDATED);
            world.now.seconds -= ago;
            let commit = world.run(&op).map_err(|error| format!("{what}: {error}"))?;
            ensure(metadata_keys(&commit).is_empty(), || format!("{what} {why}: {:?}", metadata_keys(&commit)))?;
            ensure(world.fact(Key::LAST_UPDATED) == noted, || format!("{what} {why}: another second"))?;
        }
        Ok(())
    });
}

#[test]
fn a_note_of_the_last_change_that_is_no_number_is_replaced() {
    let mut world = World::with([thing(Kind::Entity)]);
    world.plant(Key::metadata(PROJECT, Key::LAST_UPDATED), &b"\xffyesterday"[..]);
    world.apply(&object(Kind::Entity, json!({ "owner": "me" }), json!({}))).expect("applied");
    assert_eq!(world.fact(Key::LAST_UPDATED), Some(world.last().seconds.to_string()));
}

/// Two writers that read the same, of whom the one with the later clock commits first.
#[test]
fn the_note_of_the_last_change_does_not_go_back_when_two_writers_race() {
    let mut world = World::with([thing(Kind::Project)]);
    let apply = |name: &str| {
        let entity = object(Kind::Entity, json!({ "name": name }), json!({}));
        Op::Apply(vec![entity], ApplyOptions::default())
    };
    let earlier = Step { now: world.now, seed: 100, keeps_metadata: true };
    let later = Step { now: Timestamp { seconds: world.now.seconds + 5, nanos: 0 }, seed: 101, ..earlier };
    let (first, second) = (apply("first"), apply("second"));
    let slow = decide(&world.backend, earlier, PROJECT, &first).expect("decided");
    let quick = decide(&world.backend, later, PROJECT, &second).expect("decided");
    assert!(ready(world.backend.commit(quick, &deadline())).expect("memory does not fail").is_committed());
    if let Outcome::Conflict(_) = ready(world.backend.commit(slow, &deadline())).expect("memory does not fail") {
        world.now = earlier.now;
        world.run(&first).expect("decided again");
    }
    assert_eq!(world.fact(Key::LAST_UPDATED), Some(later.now.seconds.to_string()));
}

#[test]
fn without_metadata_none_is_written_and_projects_are_made_all_the_same() {
    let first_use =
        Kind::ALL.iter().copied().map(|kind| ("first use", Op::Apply(vec![thing(kind)], ApplyOptions::default())));
    check_rows(
        changes().into_iter().map(|change| (true, change)).chain(first_use.map(|first| (false, first))),
        |row| {
            let (is_prepared, (what, op)) = row;
            let mut world = World::purging();
            if is_prepared {
                world = world_to_change(world);
            }
            let commit = world.run(&op).map_err(|error| format!("{what}: {error}"))?;
            ensure(metadata_keys(&commit).is_empty(), || format!("{what}: {:?}", metadata_keys(&commit)))?;
            ensure(world.fact(Key::PROJECT_UUID).is_none(), || format!("{what}: {op:?}: a UUID was written before"))?;
            ensure(world.value(Key::project_object(PROJECT)).is_some(), || format!("{what}: {op:?}: no project"))
        },
    );
}

#[test]
fn projects_of_old_feasts_that_are_an_identity_only_are_adopted() {
    let mut world = World::with([object(Kind::Project, json!({ "description": "mine" }), json!({}))]);
    world.plant(Key::metadata("old", Key::PROJECT_UUID), "0".repeat(36));
    let before = world.stored(&thing(Kind::Project));
    let op = Op::Adopt(vec![("old".to_owned(), 1_600_000_000), (PROJECT.to_owned(), 1_600_000_000)]);
    let commit = world.run(&op).expect("adopted");
    let old = project_of(&world, "old");
    assert_eq!(old.spec.unwrap_or_default().name, "old");
    let meta = old.meta.unwrap_or_default();
    assert_eq!(meta.created_timestamp, Some(Timestamp { seconds: 1_600_000_000, nanos: 0 }));
    assert_eq!(meta.last_updated_timestamp, Some(world.last()));
    assert_eq!(world.stored(&thing(Kind::Project)), before, "one that is there stays as it is");
    assert_eq!(expected(&commit, &Key::project_object("old")), Some(&Expected::Absent));
    let ahead = Timestamp { seconds: world.now.seconds + 60, nanos: 0 };
    world.run(&Op::Adopt(vec![("ahead".to_owned(), ahead.seconds)])).expect("adopted");
    let meta = project_of(&world, "ahead").meta.unwrap_or_default();
    assert_eq!((meta.created_timestamp, meta.last_updated_timestamp), (Some(ahead), Some(ahead)));
    assert!(world.run(&op).expect("adopted").writes.is_empty(), "they are adopted once");
}

#[test]
fn identities_and_projects_are_what_adoption_asks_for() {
    let world = World::with([thing(Kind::Project), thing(Kind::Entity)]);
    let answers = ready(world.backend.read(&fetch_for_adoption(), &deadline())).expect("memory does not fail");
    let keys: Vec<_> = answers.iter().flatten().map(|record| record.key.clone()).collect();
    assert!(keys.contains(&Key::metadata(PROJECT, Key::PROJECT_UUID)) && keys.contains(&Key::project_object(PROJECT)));
    assert!(!keys.contains(&key_of(&thing(Kind::Entity))));
}

#[test]
fn users_attach_bytes_to_views_replace_them_and_take_them_away() {
    for &kind in Kind::VIEWS {
        let mut world = World::with([view(kind, "trips", &["a"])]);
        let trips = world.stored(&view(kind, "trips", &["a"]));
        let key = user_metadata_key(kind, PROJECT, "trips");
        for bytes in [Some(&b"one"[..]), Some(b""), Some(b"\0\xff"), None] {
            let bytes = bytes.map(Bytes::from_static);
            let commit = world.run(&Op::UserMetadata(kind, "trips".to_owned(), bytes.clone())).expect("attached");
            assert_eq!(world.value(key.clone()), bytes, "{kind}");
            assert_eq!(
                expected(&commit, &key_of(&trips)),
                Some(&Expected::Present),
                "{kind}: only put where a view is"
            );
        }
        assert_eq!(world.stored(&trips), trips, "{kind}: the view stays as it is");
    }
}

#[test]
fn what_users_attached_stays_when_the_view_is_applied_and_materialized() {
    let mut world = World::with([view(Kind::FeatureView, "trips", &["a"])]);
    let bytes = Some(Bytes::from_static(b"mine"));
    world.run(&Op::UserMetadata(Kind::FeatureView, "trips".to_owned(), bytes.clone())).expect("attached");
    world.apply(&view(Kind::FeatureView, "trips", &["a", "b"])).expect("applied");
    world.run(&Op::Materialize("trips".to_owned(), interval_of(1))).expect("materialized");
    assert_eq!(world.value(user_metadata_key(Kind::FeatureView, PROJECT, "trips")), bytes);
}

#[test]
fn nothing_is_attached_to_a_view_that_is_not_there() {
    for &kind in Kind::VIEWS {
        let other = Kind::VIEWS.iter().copied().find(|other| *other != kind).expect("another kind");
        let mut world = World::with([view(other, "trips", &["a"])]);
        for bytes in [Some(Bytes::from_static(b"mine")), None] {
            let attached = world.run(&Op::UserMetadata(kind, "trips".to_owned(), bytes));
            assert_refused(attached, ErrorKind::NotFound(kind), &["trips", PROJECT]);
        }
    }
}
