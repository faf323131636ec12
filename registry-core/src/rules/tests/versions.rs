//! The history of views: every new view is version 0, each change of its schema adds one.

use proptest::prelude::*;

use super::*;
use crate::rules::pin::{Version, pinned};

/// The kinds of view that know their version number and can ask for a version.
const NUMBERED: [Kind; 3] = [Kind::FeatureView, Kind::StreamFeatureView, Kind::OnDemandFeatureView];

fn number(world: &World, of: &Object) -> u64 {
    meta_of(&world.stored(of)).current_version_number
}

fn features(of: &Object) -> Vec<String> {
    crate::Feature::of_view(of).expect("a view").into_iter().map(|feature| feature.name).collect()
}

/// The view with the feature `a`, `ab` and `abc`, applied in that order: v0, v1 and v2.
fn three(kind: Kind) -> (World, [Object; 3]) {
    let views = [&["a"][..], &["a", "b"], &["a", "b", "c"]].map(|features| view(kind, "trips", features));
    (World::with(views.clone()), views)
}

#[test]
fn a_new_view_is_version_0_and_its_history_has_it_as_it_is_stored() {
    for &kind in Kind::VIEWS {
        let mut world = World::new();
        let trips = view(kind, "trips", &["a"]);
        let commit = world.apply(&trips).expect("applied");
        let [version] = &world.versions("trips")[..] else { panic!("{kind}: one version") };
        assert_eq!(version.version_number, 0);
        assert_eq!(version.feature_view_name, "trips");
        assert_eq!(version.project_id, PROJECT);
        assert_eq!(Some(version.feature_view_type.as_str()), kind.version_type());
        assert_eq!(version.feature_view_proto, world.stored(&trips).bytes, "{kind}");
        assert_eq!(version.version_id.len(), 36);
        let whole_seconds = Timestamp { nanos: 0, ..world.last() };
        assert_eq!(version.created_timestamp, Some(whole_seconds), "Feast's table has whole seconds");
        assert_eq!(number(&world, &trips), 0);
        assert_eq!(expected(&commit, &version_key(PROJECT, "trips", 0)), Some(&Expected::Absent));
    }
}

#[test]
fn each_change_of_the_schema_adds_one_version() {
    for &kind in Kind::VIEWS {
        let (world, views) = three(kind);
        let versions = world.versions("trips");
        assert_eq!(world.version_numbers("trips"), [0, 1, 2], "{kind}");
        for (version, view) in versions.iter().zip(&views) {
            let recorded = Object::new(kind, version.feature_view_proto.clone());
            assert_eq!(features(&recorded), features(view), "{kind}: v{}", version.version_number);
            if NUMBERED.contains(&kind) {
                assert_eq!(meta_of(&recorded).current_version_number, version.version_number as u64, "{kind}");
            }
        }
        assert_eq!(versions[2].feature_view_proto, world.stored(&views[2]).bytes, "{kind}: the latest is the active");
        let ids: Vec<_> = versions.iter().map(|version| &version.version_id).collect();
        assert!(ids[0] != ids[1] && ids[1] != ids[2], "{kind}: {ids:?}");
    }
}

#[test]
fn a_schema_that_was_there_before_is_a_new_version_again() {
    let (mut world, views) = three(Kind::FeatureView);
    world.apply(&views[0]).expect("applied");
    assert_eq!(world.version_numbers("trips"), [0, 1, 2, 3]);
    assert_eq!(number(&world, &views[0]), 3);
}

#[test]
fn a_change_of_the_description_alone_keeps_the_version_number() {
    for kind in NUMBERED {
        let (mut world, [.., latest]) = three(kind);
        let described = object(
            kind,
            json!({ "name": "trips", "features": integers(&["a", "b", "c"]), "description": "d" }),
            json!({}),
        );
        let commit = world.apply(&described).expect("applied");
        assert!(written(&commit).contains(&&key_of(&described)), "{kind}: the description is stored");
        assert_eq!(number(&world, &latest), 2, "{kind}");
        assert_eq!(world.version_numbers("trips"), [0, 1, 2], "{kind}");
    }
}

#[test]
fn a_view_goes_back_to_a_version_that_it_pins() {
    for kind in NUMBERED {
        let (mut world, [first, _, latest]) = three(kind);
        let history = world.versions("trips");
        world.apply(&pin(&latest, "Version0")).expect("applied");
        let stored = world.stored(&latest);
        assert_eq!(features(&stored), features(&first), "{kind}");
        assert_eq!(number(&world, &latest), 0, "{kind}");
        assert_eq!(pinned(&stored).expect("a version"), Some(0), "{kind}: it stays pinned");
        assert_eq!(stored.last_updated_timestamp().expect("a time"), Some(world.last()), "{kind}");
        assert_eq!(world.versions("trips"), history, "{kind}: going back adds nothing to the history");
    }
}

#[test]
fn going_back_keeps_what_was_materialized_since_and_when_the_view_was_made() {
    for kind in [Kind::FeatureView, Kind::StreamFeatureView] {
        let (mut world, [.., latest]) = three(kind);
        let made = world.stored(&latest).created_timestamp().expect("a time");
        for number in [1, 2] {
            world.run(&Op::Materialize("trips".to_owned(), interval_of(number))).expect("materialized");
        }
        world.apply(&pin(&latest, "v0")).expect("applied");
        let stored = world.stored(&latest);
        assert_eq!(intervals(&stored), intervals_of(&[1, 2]), "{kind}");
        assert_eq!(meta_of(&stored).state, 4, "{kind}: it is still online");
        assert_eq!(stored.created_timestamp().expect("a time"), made, "{kind}");
    }
}

#[test]
fn what_a_client_says_of_materialization_counts_when_it_goes_back_too() {
    for kind in [Kind::FeatureView, Kind::StreamFeatureView] {
        let (mut world, [.., latest]) = three(kind);
        world.run(&Op::Materialize("trips".to_owned(), interval_of(1))).expect("materialized");
        world.apply(&materialized(&pin(&latest, "v0"), &[1, 7], 3)).expect("applied");
        let stored = world.stored(&latest);
        assert_eq!(intervals(&stored), intervals_of(&[1, 7]), "{kind}");
        assert_eq!(meta_of(&stored).state, 3, "{kind}");
    }
}

#[test]
fn what_comes_after_going_back_has_the_next_number() {
    for kind in NUMBERED {
        let (mut world, [.., latest]) = three(kind);
        world.apply(&pin(&latest, "v0")).expect("applied");
        world.apply(&view(kind, "trips", &["z"])).expect("applied");
        assert_eq!(world.version_numbers("trips"), [0, 1, 2, 3], "{kind}");
        assert_eq!(number(&world, &latest), 3, "{kind}");
    }
}

/// Checked with Feast 0.67: the definition of a file that pins is compared with what it brought back the last time.
#[test]
fn pinning_again_wants_the_definition_that_was_brought_back() {
    let (mut world, [first, _, latest]) = three(Kind::FeatureView);
    world.apply(&pin(&latest, "v0")).expect("applied");
    assert_refused(world.apply(&pin(&latest, "v0")), ErrorKind::FeatureViewPinConflict, &["trips", "v0"]);
    assert!(world.apply(&pin(&first, "v0")).expect("applied").writes.is_empty(), "this says what is stored");
    assert!(world.apply(&pin(&first, "version0")).expect("applied").writes.is_empty(), "and so does this");
}

#[test]
fn a_version_that_is_not_there_yet_is_made() {
    for kind in NUMBERED {
        let (mut world, [.., latest]) = three(kind);
        let next = pin(&view(kind, "trips", &["x"]), "v9");
        let commit = world.apply(&next).expect("applied");
        assert_eq!(world.version_numbers("trips"), [0, 1, 2, 9], "{kind}");
        assert_eq!(features(&world.stored(&latest)), ["x"], "{kind}: and is active");
        assert_eq!(number(&world, &latest), 9, "{kind}");
        assert_eq!(expected(&commit, &version_key(PROJECT, "trips", 9)), Some(&Expected::Absent), "{kind}");
        assert!(world.apply(&next).expect("applied").writes.is_empty(), "{kind}: the same again is unchanged");
        world.apply(&view(kind, "trips", &["y"])).expect("applied");
        assert_eq!(number(&world, &latest), 10, "{kind}: the next one counts from the highest");
    }
}

#[test]
fn a_new_view_may_begin_with_the_version_that_it_asks_for() {
    for kind in NUMBERED {
        let trips = pin(&view(kind, "trips", &["a"]), "v3");
        let world = World::with([trips.clone()]);
        assert_eq!(world.version_numbers("trips"), [3], "{kind}");
        assert_eq!(number(&world, &trips), 3, "{kind}");
    }
}

#[test]
fn pinning_and_changing_at_once_is_a_conflict() {
    for kind in NUMBERED {
        let (mut world, [.., latest]) = three(kind);
        let before = world.dump(&["trips"]);
        for patch in [json!({ "tags": { "new": "tag" } }), json!({ "description": "d" }), json!({ "disabled": true })] {
            let mut changed = json!({ "name": "trips", "features": integers(&["a", "b", "c"]) });
            merge(&mut changed, &patch);
            let changed = pin(&object(kind, changed, json!({})), "v0");
            assert_refused(world.apply(&changed), ErrorKind::FeatureViewPinConflict, &["trips", "v0", "latest"]);
        }
        assert_eq!(world.dump(&["trips"]), before, "{kind}");
        world.apply(&pin(&latest, "v1")).expect("the version alone may change");
    }
}

#[test]
fn a_function_that_was_pickled_anew_does_not_hinder_pinning() {
    for (kind, field) in [(Kind::OnDemandFeatureView, "feature_transformation"), (Kind::StreamFeatureView, "")] {
        let (mut world, _) = three(kind);
        let function = json!({ "user_defined_function": { "body": "BwgJ" } });
        let function = if field.is_empty() { function } else { json!({ field: function }) };
        let mut pickled = json!({ "name": "trips", "features": integers(&["a", "b", "c"]) });
        merge(&mut pickled, &function);
        world.apply(&pin(&object(kind, pickled, json!({})), "v0")).expect("the source is the same");
    }
}

#[test]
fn a_view_cannot_go_back_to_a_version_of_another_kind() {
    for kind in NUMBERED {
        for other in Kind::VIEWS.iter().copied().filter(|other| *other != kind) {
            let mut world = World::with([view(other, "trips", &["a"])]);
            let history = world.value(version_key(PROJECT, "trips", 0)).expect("v0");
            world.run(&Op::DeleteView("trips".to_owned())).expect("deleted");
            world.plant(version_key(PROJECT, "trips", 0), history);
            let pinned = pin(&view(kind, "trips", &["a"]), "v0");
            assert_refused(world.apply(&pinned), ErrorKind::InvalidArgument, &["v0", kind.label(), other.label()]);
        }
    }
}

#[test]
fn a_view_that_is_not_promoted_leaves_the_active_one_and_is_recorded_once() {
    for &kind in Kind::VIEWS {
        let (mut world, [.., latest]) = three(kind);
        let active = world.stored(&latest);
        let next = view(kind, "trips", &["x"]);
        let commit = world.apply_unpromoted(std::slice::from_ref(&next)).expect("applied");
        assert_eq!(world.stored(&latest), active, "{kind}: the active one stays as it is");
        assert!(!written(&commit).contains(&&key_of(&next)), "{kind}");
        let versions = world.versions("trips");
        assert_eq!(world.version_numbers("trips"), [0, 1, 2, 3], "{kind}");
        let recorded = Object::new(kind, versions[3].feature_view_proto.clone());
        assert_eq!(features(&recorded), ["x"], "{kind}");
        assert_eq!(recorded.project().expect("well-formed"), PROJECT, "{kind}");
        if NUMBERED.contains(&kind) {
            assert_eq!(meta_of(&recorded).current_version_number, 3, "{kind}");
        }
        let commit = world.apply_unpromoted(&[next]).expect("applied");
        assert!(commit.writes.is_empty(), "{kind}: nothing is added twice, but {:?}", written(&commit));
    }
}

#[test]
fn a_version_that_was_not_promoted_is_promoted_by_pinning_it() {
    for kind in NUMBERED {
        let (mut world, [.., latest]) = three(kind);
        world.apply_unpromoted(&[view(kind, "trips", &["x"])]).expect("applied");
        world.apply(&pin(&latest, "v3")).expect("applied");
        assert_eq!(features(&world.stored(&latest)), ["x"], "{kind}");
        assert_eq!(number(&world, &latest), 3, "{kind}");
    }
}

#[test]
fn not_promoting_makes_no_difference_to_a_new_view_and_to_one_with_the_same_schema() {
    for &kind in Kind::VIEWS {
        let mut world = World::new();
        let trips = view(kind, "trips", &["a"]);
        world.apply_unpromoted(std::slice::from_ref(&trips)).expect("applied");
        assert_eq!(features(&world.stored(&trips)), ["a"], "{kind}");
        assert_eq!(world.version_numbers("trips"), [0], "{kind}");
        let described =
            object(kind, json!({ "name": "trips", "features": integers(&["a"]), "description": "d" }), json!({}));
        world.apply_unpromoted(std::slice::from_ref(&described)).expect("applied");
        let is_same = definition::is_same(&world.stored(&trips), &described, Closeness::Exact);
        assert!(is_same.expect("well-formed"), "{kind}: the description is stored");
        assert_eq!(world.version_numbers("trips"), [0], "{kind}");
    }
}

#[test]
fn one_apply_may_hold_the_same_view_twice_without_promoting_it() {
    for &kind in Kind::VIEWS {
        let (mut world, [.., latest]) = three(kind);
        let active = world.stored(&latest);
        let next = view(kind, "trips", &["x"]);
        world.apply_unpromoted(&[next.clone(), next]).expect("later objects of an apply see earlier ones");
        assert_eq!(world.version_numbers("trips"), [0, 1, 2, 3], "{kind}: recorded once");
        assert_eq!(world.stored(&latest), active, "{kind}");
    }
}

#[test]
fn each_change_within_one_apply_is_a_version() {
    for &kind in Kind::VIEWS {
        let (mut world, [.., latest]) = three(kind);
        world.apply_all(&[view(kind, "trips", &["x"]), view(kind, "trips", &["y"])]).expect("applied");
        let versions = world.versions("trips");
        assert_eq!(world.version_numbers("trips"), [0, 1, 2, 3, 4], "{kind}");
        let recorded = |number: usize| features(&Object::new(kind, versions[number].feature_view_proto.clone()));
        assert_eq!((recorded(3), recorded(4)), (vec!["x".to_owned()], vec!["y".to_owned()]), "{kind}");
        assert_eq!(features(&world.stored(&latest)), ["y"], "{kind}");
    }
}

#[test]
fn a_version_of_another_kind_with_the_same_features_is_not_the_same_version() {
    for &kind in Kind::VIEWS {
        for other in Kind::VIEWS.iter().copied().filter(|other| *other != kind) {
            // As it is when another program left a history behind.
            let world = World::with([view(other, "trips", &["x"])]);
            let history = world.value(version_key(PROJECT, "trips", 0)).expect("v0");
            let mut world = World::new();
            world.plant(version_key(PROJECT, "trips", 0), history);
            world.plant_object(&view(kind, "trips", &["a"]));
            world.apply_unpromoted(&[view(kind, "trips", &["x"])]).expect("applied");
            assert_eq!(world.version_numbers("trips"), [0, 1], "{kind} over {other}");
        }
    }
}

#[test]
fn a_view_from_before_there_were_versions_becomes_version_0_when_its_schema_changes() {
    for &kind in Kind::VIEWS {
        let mut world = World::new();
        let old = view(kind, "trips", &["a"]);
        world.plant_object(&old);
        world.apply(&view(kind, "trips", &["a", "b"])).expect("applied");
        let versions = world.versions("trips");
        assert_eq!(world.version_numbers("trips"), [0, 1], "{kind}");
        assert_eq!(versions[0].feature_view_proto, old.bytes, "{kind}: as it was stored");
        assert_eq!(features(&Object::new(kind, versions[1].feature_view_proto.clone())), ["a", "b"], "{kind}");
    }
}

#[test]
fn a_history_that_outlived_its_view_goes_on_counting() {
    for &kind in Kind::VIEWS {
        let (mut world, [.., latest]) = three(kind);
        let history: Vec<_> = (0..3).map(|number| version_key(PROJECT, "trips", number)).collect();
        let records: Vec<_> = history.iter().map(|key| world.value(key.clone()).expect("a version")).collect();
        world.run(&Op::DeleteView("trips".to_owned())).expect("deleted");
        history.into_iter().zip(records).for_each(|(key, record)| world.plant(key, record));
        world.apply(&view(kind, "trips", &["y"])).expect("applied");
        assert_eq!(world.version_numbers("trips"), [0, 1, 2, 3], "{kind}: no number is given twice");
        if NUMBERED.contains(&kind) {
            assert_eq!(number(&world, &latest), 3, "{kind}");
        }
    }
}

#[test]
fn a_view_that_is_gone_comes_back_by_pinning_a_version_of_the_history_it_left() {
    for kind in NUMBERED {
        let (mut world, [first, _, latest]) = three(kind);
        let key = version_key(PROJECT, "trips", 0);
        let record = world.value(key.clone()).expect("v0");
        world.run(&Op::DeleteView("trips".to_owned())).expect("deleted");
        world.plant(key, record);
        world.apply(&pin(&latest, "v0")).expect("applied");
        assert_eq!(features(&world.stored(&latest)), features(&first), "{kind}");
        assert_eq!(world.version_numbers("trips"), [0], "{kind}");
    }
}

#[test]
fn versions_are_read_as_feast_reads_them() {
    check_rows(
        [
            ("", Some(Version::Latest)),
            ("latest", Some(Version::Latest)),
            ("LATEST", Some(Version::Latest)),
            ("v0", Some(Version::Pinned(0))),
            ("V2", Some(Version::Pinned(2))),
            ("v01", Some(Version::Pinned(1))),
            ("version12", Some(Version::Pinned(12))),
            ("Version3", Some(Version::Pinned(3))),
            ("v2147483647", Some(Version::Pinned(i32::MAX))),
            // Feast reads this one, and then cannot store it in its column.
            ("v2147483648", None),
            ("v", None),
            ("version", None),
            ("v-1", None),
            ("v+1", None),
            ("v1.0", None),
            ("v 1", None),
            (" v1", None),
            ("1", None),
            ("latest ", None),
            ("newest", None),
        ],
        |(text, expected)| {
            let version = Version::parse(text).ok();
            ensure(version == expected, || format!("`{text}` was read as {version:?}"))
        },
    );
}

#[test]
fn a_version_that_is_none_is_refused_and_the_answer_says_what_is_one() {
    for kind in NUMBERED {
        let asked = pin(&view(kind, "trips", &["a"]), "newest");
        let result = World::new().apply(&asked);
        assert_refused(result, ErrorKind::InvalidArgument, &["newest", "latest", "v2"]);
    }
}

#[test]
fn a_history_that_cannot_be_read_is_said_to_be_corrupt() {
    let (mut world, [.., latest]) = three(Kind::FeatureView);
    world.plant(version_key(PROJECT, "trips", 0), &b"\xff"[..]);
    assert_refused(world.apply(&pin(&latest, "v0")), ErrorKind::Corrupt, &["history"]);
}

#[test]
fn the_history_of_one_view_is_not_that_of_another() {
    let mut world = World::with([view(Kind::FeatureView, "trips", &["a"])]);
    world.apply(&view(Kind::FeatureView, "Trips", &["a"])).expect("applied");
    world.apply(&view(Kind::FeatureView, "Trips", &["a", "b"])).expect("applied");
    world
        .run_in("other", &Op::Apply(vec![view(Kind::LabelView, "trips", &["z"])], ApplyOptions::default()))
        .expect("applied");
    assert_eq!(world.version_numbers("trips"), [0]);
    assert_eq!(world.version_numbers("Trips"), [0, 1]);
}

#[test]
fn a_view_has_entities_or_the_placeholder_for_none_but_for_an_on_demand_view() {
    for &kind in Kind::VIEWS {
        let without = edit_spec(&thing(kind), |spec| {
            const ON_DEMAND_ENTITIES: u32 = 13;
            let entities = if kind == Kind::OnDemandFeatureView { ON_DEMAND_ENTITIES } else { 3 };
            *spec = wire::retain(spec, |field| field != entities).expect("well-formed");
        });
        let applied = World::new().apply(&without);
        match kind {
            Kind::OnDemandFeatureView => assert!(applied.is_ok(), "{kind}"),
            _ => assert_refused(applied.map(drop), ErrorKind::InvalidArgument, &["entities", "__dummy"]),
        }
    }
}

#[test]
fn a_version_that_would_leave_no_room_for_the_next_is_not_made() {
    for kind in NUMBERED {
        let (mut world, [_, _, latest]) = three(kind);
        for text in ["v1000000001", "v2147483646", "version2147483647", "v2147483648", "v99999999999999999999"] {
            let refused = world.apply(&pin(&latest, text));
            assert_refused(refused, ErrorKind::InvalidArgument, &[&text.replace("version", "v"), "v1000000000"]);
        }
        assert_eq!(world.version_numbers("trips"), [0, 1, 2], "{kind}");
        world.apply(&pin(&latest, "v1000000000")).expect("the highest that can be made");
        world.apply(&view(kind, "trips", &["z"])).expect("room for the next");
        assert_eq!(world.version_numbers("trips"), [0, 1, 2, 1_000_000_000, 1_000_000_001], "{kind}");
    }
}

/// What an older registry accepted.
#[test]
fn a_history_without_a_number_left_says_what_to_do_and_that_helps() {
    for kind in NUMBERED {
        let with_the_last_number = || {
            let (world, [first, _, latest]) = three(kind);
            let record = FeatureViewVersionRecord { version_number: i32::MAX, ..world.versions("trips")[0].clone() };
            world.plant(version_key(PROJECT, "trips", i32::MAX), record.encode_to_vec());
            (world, first, latest)
        };
        let changed = view(kind, "trips", &["z"]);
        let (mut world, first, latest) = with_the_last_number();
        let words = ["`trips`", PROJECT, "v2147483647", "ask for a version that is free", "delete"];
        assert_refused(world.apply(&changed), ErrorKind::InvalidArgument, &words);
        assert_refused(world.apply_unpromoted(std::slice::from_ref(&changed)), ErrorKind::InvalidArgument, &words);
        // What needs no new number goes on.
        let description = edit_spec(&latest, |spec| wire::put(spec, 900, b"newer"));
        world.apply(&description).expect("the same schema");
        world.apply(&pin(&description, "v2147483647")).expect("a version of the history");
        assert_eq!(features(&world.stored(&first)), ["a"], "{kind}");
        // And so do the remedies.
        world.apply(&pin(&changed, "v3")).expect("a version that is free");
        assert_eq!(number(&world, &changed), 3, "{kind}");
        world.run(&Op::DeleteView("trips".to_owned())).expect("deleted");
        world.apply(&changed).expect("applied");
        assert_eq!(world.version_numbers("trips"), [0], "{kind}");
    }
}

proptest! {
    #[test]
    fn a_version_is_read_in_any_case_and_with_any_zeros(number in 0..=i32::MAX, zeros in 0..3_usize, word in "[vV]([eE][rR][sS][iI][oO][nN])?") {
        let text = format!("{word}{}{number}", "0".repeat(zeros));
        prop_assert_eq!(Version::parse(&text).expect("a version"), Version::Pinned(number));
    }

    /// Of other texts nothing is a number but what says one: no sign, no space, no digits of other scripts.
    #[test]
    fn no_text_of_a_version_panics(text in prop_oneof!["[vV]?(ersion)?[-+ _0-9٣²e.é]{0,12}", ".*"]) {
        if let Ok(Version::Pinned(number)) = Version::parse(&text) {
            let digits = text.trim_start_matches(|c: char| !c.is_ascii_digit()).trim_start_matches('0');
            prop_assert!(digits == number.to_string() || number == 0 && digits.is_empty(), "{}", text);
        }
    }
}
