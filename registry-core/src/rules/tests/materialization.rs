//! What has been materialized is never lost by an apply, and grows by exactly what is recorded.

use proptest::prelude::*;

use super::*;

const MATERIALIZED: [Kind; 2] = [Kind::FeatureView, Kind::StreamFeatureView];

const UNSPECIFIED: u64 = 0;
const CREATED: u64 = 1;
const MATERIALIZING: u64 = 3;
const AVAILABLE_ONLINE: u64 = 4;

fn trips(kind: Kind) -> Object {
    view(kind, "trips", &["a"])
}

fn materialize(world: &mut World, interval: MaterializationInterval) -> Result<Commit> {
    world.run(&Op::Materialize("trips".to_owned(), interval))
}

fn unmaterialize(world: &mut World, interval: MaterializationInterval) -> Result<Commit> {
    world.run(&Op::Unmaterialize("trips".to_owned(), interval))
}

fn moment(seconds: i64, nanos: i32) -> Option<Timestamp> {
    Some(Timestamp { seconds, nanos })
}

/// What is stored, what comes, and what is stored then.
type Union = (&'static str, &'static [i64], &'static [i64], &'static [i64]);

#[test]
fn an_apply_adds_the_intervals_that_are_new_and_loses_none() {
    let rows: [Union; 9] = [
        ("none come", &[1, 2], &[], &[1, 2]),
        ("an older list comes", &[1, 2, 3], &[1, 2], &[1, 2, 3]),
        ("the same come", &[1, 2], &[1, 2], &[1, 2]),
        ("the same come in another order", &[1, 2], &[2, 1], &[1, 2]),
        ("others come", &[1, 2], &[3], &[1, 2, 3]),
        ("some that are there and some that are not come", &[1, 2], &[0, 2, 3], &[1, 2, 0, 3]),
        ("stored duplicates stay", &[1, 1], &[1], &[1, 1]),
        ("stored duplicates stay when none come", &[2, 1, 1], &[], &[2, 1, 1]),
        ("a new one that comes twice is added once", &[1], &[2, 2], &[1, 2]),
    ];
    check_rows(MATERIALIZED.into_iter().flat_map(|kind| rows.map(|row| (kind, row))), |(kind, row)| {
        let (what, stored, incoming, expected) = row;
        // What makes the apply a write, in one of the two runs.
        for patch in [json!({ "name": "trips" }), json!({ "name": "trips", "description": "d" })] {
            let mut world = World::with([materialized(&trips(kind), stored, AVAILABLE_ONLINE)]);
            let applied = materialized(&object(kind, patch, json!({})), incoming, AVAILABLE_ONLINE);
            world.apply(&applied).map_err(|error| format!("{kind}: {what}: {error}"))?;
            let all = intervals(&world.stored(&applied));
            ensure(all == intervals_of(expected), || format!("{kind}: {what}: {all:?}"))?;
        }
        Ok(())
    });
}

#[test]
fn a_new_view_keeps_the_intervals_that_it_comes_with() {
    for kind in MATERIALIZED {
        let world = World::with([materialized(&trips(kind), &[2, 1, 2], MATERIALIZING)]);
        assert_eq!(intervals(&world.stored(&trips(kind))), intervals_of(&[2, 1, 2]), "{kind}");
    }
}

#[test]
fn an_apply_sets_the_state_that_it_brings_and_keeps_the_stored_one_when_it_brings_none() {
    let states = [
        (UNSPECIFIED, AVAILABLE_ONLINE, AVAILABLE_ONLINE),
        (CREATED, AVAILABLE_ONLINE, AVAILABLE_ONLINE),
        (AVAILABLE_ONLINE, UNSPECIFIED, AVAILABLE_ONLINE),
        (AVAILABLE_ONLINE, MATERIALIZING, MATERIALIZING),
        (AVAILABLE_ONLINE, CREATED, CREATED),
        (77, UNSPECIFIED, 77),
        (AVAILABLE_ONLINE, 77, 77),
    ];
    let kinds = [Kind::FeatureView, Kind::StreamFeatureView, Kind::OnDemandFeatureView];
    check_rows(kinds.into_iter().flat_map(|kind| states.map(|states| (kind, states))), |(kind, states)| {
        let (stored, incoming, expected) = states;
        let mut world = World::with([materialized(&trips(kind), &[], stored)]);
        world.apply(&materialized(&trips(kind), &[], incoming)).map_err(|error| format!("{kind}: {error}"))?;
        let state = meta_of(&world.stored(&trips(kind))).state;
        ensure(state == expected, || format!("{kind}: {incoming} applied to {stored} gives {state}"))
    });
}

/// `feast materialize` applies the whole view as it read it, with another state, and then records the interval.
#[test]
fn what_others_record_while_a_client_materializes_stays() {
    for kind in MATERIALIZED {
        let mut world = World::with([trips(kind)]);
        materialize(&mut world, interval_of(1)).expect("materialized");
        let read = world.stored(&trips(kind));
        materialize(&mut world, interval_of(2)).expect("another client");
        world.apply(&materialized(&read, &[1], MATERIALIZING)).expect("applied");
        materialize(&mut world, interval_of(3)).expect("materialized");
        let stored = world.stored(&trips(kind));
        assert_eq!(intervals(&stored), intervals_of(&[1, 2, 3]), "{kind}");
        assert_eq!(meta_of(&stored).state, AVAILABLE_ONLINE, "{kind}");
    }
}

#[test]
fn materialization_adds_exactly_its_interval() {
    let odd = [
        ("to the nanosecond", moment(1, 123_456_789), moment(2, 1)),
        ("the same twice", moment(1, 123_456_789), moment(2, 1)),
        ("with an end before its start", moment(9, 0), moment(8, 999_999_999)),
        ("of no length", moment(5, 5), moment(5, 5)),
        ("that begins at 1970", moment(0, 0), moment(1, 0)),
        ("before 1970", moment(-62_135_596_800, 0), moment(-1, 1)),
        ("far away", moment(0, 0), moment(253_402_300_799, 999_999_999)),
    ];
    for kind in MATERIALIZED {
        let mut world = World::with([trips(kind)]);
        let mut all = Vec::new();
        for (what, start, end) in odd {
            let interval = super::super::interval(start, end).expect("moments");
            materialize(&mut world, interval).expect("materialized");
            all.push(interval);
            let stored = world.stored(&trips(kind));
            assert_eq!(intervals(&stored), all, "{kind}: {what}");
            assert_eq!(meta_of(&stored).state, AVAILABLE_ONLINE, "{kind}: {what}");
        }
    }
}

#[test]
fn materialization_changes_nothing_but_interval_state_and_time() {
    for kind in MATERIALIZED {
        let newer = edit_meta(&trips(kind), |meta| meta.extend(unknown(1000, "new")));
        let newer = edit_spec(&newer, |spec| spec.extend(unknown(1000, "new")));
        let newer = Object::new(kind, [&newer.bytes[..], &unknown(1000, "new")].concat());
        let mut world = World::with([newer.clone(), view(kind, "trips", &["a", "b"]), newer]);
        let (before, history) = (world.stored(&trips(kind)), world.versions("trips"));
        let commit = materialize(&mut world, interval_of(1)).expect("materialized");
        let after = world.stored(&trips(kind));
        assert_eq!(definition_of(&after), definition_of(&before), "{kind}");
        let mut meta = meta_of(&before);
        meta.intervals.push(interval_of(1).encode_to_vec());
        meta.state = AVAILABLE_ONLINE;
        meta.last_updated_timestamp = Some(world.last().encode_to_vec());
        assert_eq!(meta_of(&after), meta, "{kind}");
        assert_eq!(world.versions("trips"), history, "{kind}: no version is added");
        let rests_on = expected(&commit, &key_of(&before));
        assert_eq!(rests_on, Some(&Expected::Value(before.bytes.clone())), "{kind}: rests on all it read");
    }
}

#[test]
fn materialization_is_refused_for_views_that_are_computed_or_labelled() {
    for kind in [Kind::OnDemandFeatureView, Kind::LabelView] {
        let mut world = World::with([trips(kind)]);
        let before = world.dump(&["trips"]);
        let words = ["trips", PROJECT, kind.label()];
        assert_refused(materialize(&mut world, interval_of(1)), ErrorKind::InvalidArgument, &words);
        assert_refused(unmaterialize(&mut world, interval_of(1)), ErrorKind::InvalidArgument, &words);
        assert_eq!(world.dump(&["trips"]), before, "{kind}");
    }
}

#[test]
fn materialization_of_a_view_that_is_not_there_is_not_found() {
    let mut world = World::with([
        view(Kind::FeatureView, "Trips", &["a"]),
        object(Kind::Entity, json!({ "name": "trips" }), json!({})),
    ]);
    world.run_in("other", &Op::Apply(vec![trips(Kind::FeatureView)], ApplyOptions::default())).expect("applied");
    let not_found = ErrorKind::NotFound(Kind::FeatureView);
    assert_refused(materialize(&mut world, interval_of(1)), not_found, &["trips", PROJECT]);
    assert_refused(unmaterialize(&mut world, interval_of(1)), not_found, &["trips", PROJECT]);
}

#[test]
fn an_interval_is_of_two_moments_that_protobuf_allows() {
    let fine = moment(0, 0);
    check_rows(
        [
            ("no moment", None),
            ("before the year 1", moment(-62_135_596_801, 0)),
            ("after the year 9999", moment(253_402_300_800, 0)),
            ("the least", moment(i64::MIN, 0)),
            ("the greatest", moment(i64::MAX, 0)),
            ("negative nanoseconds", moment(1, -1)),
            ("a whole second of nanoseconds", moment(1, 1_000_000_000)),
            ("the least nanoseconds", moment(1, i32::MIN)),
        ],
        |(what, wrong)| {
            for (start, end, which) in [(wrong, fine, "start"), (fine, wrong, "end")] {
                let error = super::super::interval(start, end).map(|_| ()).expect_err(what);
                ensure(error.kind() == ErrorKind::InvalidArgument, || format!("{what}: {:?}", error.kind()))?;
                ensure(error.to_string().contains(which), || format!("{what}: `{which}` is not in: {error}"))?;
            }
            Ok(())
        },
    );
}

#[test]
fn an_interval_is_removed_in_all_its_occurrences_and_no_other_is() {
    for kind in MATERIALIZED {
        let mut world = World::with([materialized(&trips(kind), &[1, 2, 1, 3], AVAILABLE_ONLINE)]);
        let before = world.stored(&trips(kind));
        unmaterialize(&mut world, interval_of(1)).expect("removed");
        let after = world.stored(&trips(kind));
        assert_eq!(intervals(&after), intervals_of(&[2, 3]), "{kind}");
        assert_eq!(definition_of(&after), definition_of(&before), "{kind}");
        assert_eq!(meta_of(&after).state, AVAILABLE_ONLINE, "{kind}");
        assert_eq!(after.last_updated_timestamp().expect("a time"), Some(world.last()), "{kind}");
        assert_eq!(after.created_timestamp().ok(), before.created_timestamp().ok(), "{kind}");
    }
}

#[test]
fn removing_an_interval_that_is_not_there_is_refused() {
    for kind in MATERIALIZED {
        let mut world = World::with([materialized(&trips(kind), &[1], AVAILABLE_ONLINE)]);
        let mut near = interval_of(1);
        near.end_time.as_mut().expect("an end").nanos += 1;
        assert_refused(unmaterialize(&mut world, near), ErrorKind::InvalidArgument, &["trips", PROJECT]);
        assert_eq!(intervals(&world.stored(&trips(kind))), intervals_of(&[1]), "{kind}");
    }
}

#[test]
fn a_stored_interval_that_cannot_be_read_is_said_to_be_corrupt() {
    for kind in MATERIALIZED {
        let mut world = World::with([trips(kind)]);
        let broken = edit_meta(&world.stored(&trips(kind)), |meta| meta.extend([0x1a, 0x01, 0xff]));
        world.plant_object(&broken);
        let words = [kind.label(), "`trips`", PROJECT, "decoded", "apply it again"];
        assert_refused(unmaterialize(&mut world, interval_of(1)), ErrorKind::Corrupt, &words);
        assert_refused(materialize(&mut world, interval_of(1)), ErrorKind::Corrupt, &words);
        assert_eq!(world.stored(&trips(kind)), broken, "{kind}");
    }
}

/// As the rule was before it had an index: every interval that comes against every one that is there.
fn union_by_search(stored: &[i64], incoming: &[i64]) -> Vec<i64> {
    let mut all = stored.to_vec();
    for interval in incoming {
        if !all.contains(interval) {
            all.push(*interval);
        }
    }
    all
}

proptest! {
    #[test]
    fn the_union_of_intervals_is_what_a_search_from_the_front_finds(
        stored in prop::collection::vec(0..12_i64, 0..12),
        incoming in prop::collection::vec(0..12_i64, 0..12),
    ) {
        let before = materialized(&trips(Kind::FeatureView), &stored, AVAILABLE_ONLINE);
        let mut world = World::new();
        world.plant_object(&before);
        world.apply(&materialized(&trips(Kind::FeatureView), &incoming, AVAILABLE_ONLINE)).expect("applied");
        prop_assert_eq!(intervals(&world.stored(&before)), intervals_of(&union_by_search(&stored, &incoming)));
    }
}

/// 100,000 intervals against 100,000 others are ten billion comparisons.
#[test]
fn very_many_intervals_cost_their_number() {
    let with = |numbers: std::ops::Range<i64>| {
        materialized(&trips(Kind::FeatureView), &numbers.collect::<Vec<_>>(), AVAILABLE_ONLINE)
    };
    let stored = meta_of(&with(0..100_000));
    let now = Timestamp { seconds: START, nanos: 0 };
    let merged = Meta::merged(Some(stored), &with(50_000..150_000), &now).expect("well-formed");
    assert_eq!(merged.intervals, meta_of(&with(0..150_000)).intervals);
}

/// Fault: a clock that was set back had views last updated before they were made.
#[test]
fn a_clock_that_is_set_back_materializes_nothing_before_the_last_update() {
    let trips = view(Kind::FeatureView, "trips", &["a"]);
    let mut world = World::with([trips.clone()]);
    let made = world.last();
    world.now.seconds -= 3600;
    world.run(&Op::Materialize("trips".to_owned(), interval_of(1))).expect("recorded");
    let stored = world.stored(&trips);
    assert_eq!(intervals(&stored), intervals_of(&[1]));
    assert_eq!(stored.last_updated_timestamp().expect("a time"), Some(made));
}
