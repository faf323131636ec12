//! What holds of any objects, in any order of calls.

use proptest::collection::vec;
use proptest::prelude::*;

use super::arbitrary::{NAME, damaged, in_another_order, materializable, objects, objects_of, pairs, text};
use super::*;

/// Failures are shown, not kept in files beside the sources.
fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// The object with the project that it is applied to.
fn placed(object: &Object) -> Object {
    match object.kind.layout().project {
        Some(field) => object.with_spec_text(field, PROJECT).expect("well-formed"),
        None => object.clone(),
    }
}

/// The fields of the meta that no Feast has yet, whole, in the order of their numbers.
fn newer_meta(object: &Object) -> Vec<(u32, Vec<u8>)> {
    let meta = object.meta().expect("well-formed");
    let fields = wire::fields(&meta).map(|field| field.expect("well-formed"));
    let mut newer: Vec<_> = fields
        .filter(|field| field.number > object.kind.layout().known_meta_fields)
        .map(|field| (field.number, field.raw.to_vec()))
        .collect();
    newer.sort_by_key(|(number, _)| *number);
    newer
}

proptest! {
    #![proptest_config(config(256))]

    #[test]
    fn a_new_object_is_stored_with_every_field_that_it_came_with(object in objects()) {
        let world = World::with([object.clone()]);
        let stored = world.stored(&object);
        prop_assert_eq!(definition_of(&stored), definition_of(&placed(&object)), "{}", text(&object));
        if object.kind.layout().meta.is_some() {
            let mut meta = meta_of(&object);
            meta.created_timestamp = Some(world.last().encode_to_vec());
            meta.last_updated_timestamp = Some(world.last().encode_to_vec());
            meta.current_version_number = 0;
            prop_assert_eq!(meta_of(&stored), meta, "{}", text(&object));
        }
    }

    #[test]
    fn a_replaced_object_is_the_new_definition_with_the_meta_fields_of_newer_feasts((old, new) in pairs()) {
        let mut world = World::with([old.clone()]);
        world.apply(&new).expect("applied");
        let stored = world.stored(&new);
        let is_same = definition::is_same(&stored, &new, Closeness::Exact).expect("well-formed");
        prop_assert!(is_same, "{}\n  in place of {}\n  is {}", text(&new), text(&old), text(&stored));
        if new.kind.layout().meta.is_some() {
            let (brought, had) = (newer_meta(&new), newer_meta(&old));
            let is_brought = |number: u32| brought.iter().any(|(brought, _)| *brought == number);
            let mut expected: Vec<_> = had.into_iter().filter(|(number, _)| !is_brought(*number)).collect();
            expected.extend(brought.iter().cloned());
            expected.sort_by_key(|(number, _)| *number);
            prop_assert_eq!(newer_meta(&stored), expected, "{}\n  in place of {}", text(&new), text(&old));
        }
    }

    /// It sends what it knows. The definition is replaced by that; what the registry keeps about the object is not.
    #[test]
    fn an_older_client_takes_no_meta_field_of_a_newer_one_away(object in objects()) {
        let mut world = World::with([object.clone()]);
        let older = known(&object).expect("well-formed");
        world.apply(&older).expect("applied");
        let stored = world.stored(&object);
        prop_assert!(definition::is_same(&stored, &older, Closeness::Exact).expect("well-formed"), "{}", text(&object));
        if object.kind.layout().meta.is_some() {
            prop_assert_eq!(newer_meta(&stored), newer_meta(&object), "{}", text(&object));
        }
    }

    #[test]
    fn materialization_changes_no_field_but_its_own(view in materializable(), number in 0..9_i64) {
        let mut world = World::with([view.clone()]);
        let before = world.stored(&view);
        world.run(&Op::Materialize(NAME.to_owned(), interval_of(number))).expect("materialized");
        let after = world.stored(&view);
        prop_assert_eq!(definition_of(&after), definition_of(&before), "{}", text(&view));
        let mut meta = meta_of(&before);
        meta.intervals.push(interval_of(number).encode_to_vec());
        meta.state = 4;
        meta.last_updated_timestamp = Some(world.last().encode_to_vec());
        prop_assert_eq!(meta_of(&after), meta, "{}", text(&view));
    }

    #[test]
    fn applying_twice_writes_nothing_the_second_time(
        (old, new) in pairs(),
        version in prop::sample::select(vec!["", "latest", "v0", "v3"]),
        unpromoted: bool,
    ) {
        let is_pinnable = new.kind.is_view() && new.kind != Kind::LabelView;
        let new = if is_pinnable { pin(&new, version) } else { new };
        let mut world = World::with([old.clone()]);
        let op = Op::Apply(vec![new.clone()], ApplyOptions { no_promote: unpromoted });
        match world.run(&op) {
            Ok(_) => {}
            // It pins what is there, and changes it at once.
            Err(error) if error.kind() == ErrorKind::FeatureViewPinConflict => return Ok(()),
            Err(error) => return Err(TestCaseError::fail(error.to_string())),
        }
        let stored = world.stored(&new);
        let commit = world.run(&op).expect("applied again");
        let shown = (text(&old), text(&new), text(&stored));
        prop_assert!(commit.writes.is_empty(), "{:?}\n  {}\n  {}\n  {}", written(&commit), shown.0, shown.1, shown.2);
    }

    #[test]
    fn the_order_of_fields_makes_no_difference(object in objects(), order: u64) {
        let scrambled = Object::new(object.kind, in_another_order(&object.bytes, order));
        let scrambled = edit_spec(&scrambled, |spec| *spec = in_another_order(spec, order));
        let scrambled = edit_meta(&scrambled, |meta| *meta = in_another_order(meta, order));
        let mut world = World::with([object.clone()]);
        let commit = world.apply(&scrambled).expect("applied");
        prop_assert!(commit.writes.is_empty(), "{:?}: {}", written(&commit), text(&object));
    }

    #[test]
    fn what_is_read_of_a_meta_is_what_is_written_to_it(object in objects(), order: u64) {
        if object.kind.layout().meta.is_none() {
            return Ok(());
        }
        let object = edit_meta(&object, |meta| *meta = in_another_order(meta, order));
        let meta = meta_of(&object);
        let again = meta.put_into(&object).expect("well-formed");
        prop_assert_eq!(meta_of(&again), meta.clone(), "{}", text(&object));
        prop_assert_eq!(meta.put_into(&again).expect("well-formed"), again, "equal meta has equal bytes");
    }

    #[test]
    fn being_the_same_is_mutual_and_everything_is_the_same_as_itself(
        (one, other) in pairs(),
        order: u64,
        is_pinning: bool,
    ) {
        let closeness = if is_pinning { Closeness::Pinning } else { Closeness::Exact };
        let same = |one: &Object, other: &Object| definition::is_same(one, other, closeness).expect("well-formed");
        prop_assert_eq!(same(&one, &other), same(&other, &one), "{}\n  {}", text(&one), text(&other));
        let itself = Object::new(one.kind, in_another_order(&one.bytes, order));
        let itself = edit_spec(&itself, |spec| *spec = in_another_order(spec, order));
        prop_assert!(same(&one, &itself) && same(&itself, &one), "{}", text(&one));
        if definition::is_same(&one, &other, Closeness::Exact).expect("well-formed") {
            prop_assert!(definition::is_same(&one, &other, Closeness::Pinning).expect("well-formed"));
        }
    }

    #[test]
    fn a_definition_that_is_the_same_is_no_new_version(object in objects(), order: u64) {
        let itself = edit_spec(&object, |spec| *spec = in_another_order(spec, order));
        prop_assert!(!definition::schema_changed(&object, &itself).expect("well-formed"), "{}", text(&object));
    }

    /// The versions of a view are numbered without a gap, and the latest is as many as its schema changed.
    #[test]
    fn versions_have_consecutive_numbers(
        views in prop::sample::select(Kind::VIEWS).prop_flat_map(|kind| vec(objects_of(kind), 1..5)),
    ) {
        let mut world = World::new();
        let mut changes = 0;
        for view in &views {
            if let Some(active) = world.find(view.kind, NAME) {
                changes += i32::from(definition::schema_changed(&active, view).expect("well-formed"));
            }
            world.apply(view).expect("applied");
            prop_assert_eq!(world.version_numbers(NAME), (0..=changes).collect::<Vec<_>>(), "{}", text(view));
        }
    }
}

/// A call that may add intervals or change a state.
#[derive(Debug, Clone)]
enum Call {
    /// An apply with some intervals that its client last saw, or none, and a state.
    Apply(Vec<i64>, u64),
    Materialize(i64),
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let apply = (vec(0..6_i64, 0..5), 0..6_u64).prop_map(|(intervals, state)| Call::Apply(intervals, state));
    vec(prop_oneof![apply, (0..6_i64).prop_map(Call::Materialize)], 1..12)
}

/// One thing that a rule may do with its draft.
#[derive(Debug, Clone)]
enum Step {
    Get(usize),
    Exists(usize),
    Peek(usize),
    Put(usize),
    Create(usize),
    Delete(usize),
}

const KEYS: usize = 4;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0..KEYS, 0..6_u8).prop_map(|(key, how)| match how {
        0 => Step::Get(key),
        1 => Step::Exists(key),
        2 => Step::Peek(key),
        3 => Step::Put(key),
        4 => Step::Create(key),
        _ => Step::Delete(key),
    });
    vec(step, 0..12)
}

proptest! {
    #![proptest_config(config(256))]

    #[test]
    fn no_interval_that_was_acknowledged_is_ever_lost(view in materializable(), calls in calls()) {
        let view = materialized(&view, &[], 0);
        let mut world = World::with([view.clone()]);
        let (mut all, mut state): (Vec<i64>, u64) = (Vec::new(), 0);
        for call in calls {
            match &call {
                Call::Apply(seen, brought) => {
                    world.apply(&materialized(&view, seen, *brought)).expect("applied");
                    for number in seen {
                        if !all.contains(number) {
                            all.push(*number);
                        }
                    }
                    state = if *brought == 0 { state } else { *brought };
                }
                Call::Materialize(number) => {
                    world.run(&Op::Materialize(NAME.to_owned(), interval_of(*number))).expect("materialized");
                    all.push(*number);
                    state = 4;
                }
            }
            let stored = world.stored(&view);
            prop_assert_eq!(intervals(&stored), intervals_of(&all), "after {:?}", call);
            prop_assert_eq!(meta_of(&stored).state, state, "after {:?}", call);
        }
    }

    /// What a rule read of the storage is what its commit expects; what it only peeked at is not.
    #[test]
    fn a_draft_expects_all_that_was_read_through_it(steps in steps(), present in vec(any::<bool>(), KEYS)) {
        let key = |number: usize| Key::metadata(PROJECT, number.to_string());
        let now = Timestamp::default();
        let records = (0..KEYS).filter(|number| present[*number]);
        let record = |number| Record { key: key(number), value: Bytes::from_static(b"stored"), updated: 0 };
        let fetched = Fetched::new(&[Query::Keys((0..KEYS).map(key).collect())], vec![records.map(record).collect()], false);
        let mut draft = Draft::new(&fetched);
        let mut model = present.clone();
        let (mut expectations, mut writes) = (BTreeMap::new(), Vec::new());
        let mut is_drafted = [false; KEYS];
        for step in steps {
            match step {
                Step::Get(number) => {
                    let value = draft.get(&key(number)).expect("fetched");
                    prop_assert_eq!(value.is_some(), model[number], "what was drafted is what is read");
                    if !is_drafted[number] {
                        let stored = Expected::Value(Bytes::from_static(b"stored"));
                        expectations.insert(key(number), if present[number] { stored } else { Expected::Absent });
                    }
                }
                Step::Exists(number) => {
                    prop_assert_eq!(draft.exists(&key(number)).expect("fetched"), model[number]);
                    if !is_drafted[number] {
                        let stored = if present[number] { Expected::Present } else { Expected::Absent };
                        expectations.entry(key(number)).or_insert(stored);
                    }
                }
                Step::Peek(number) => drop(draft.peek(&key(number)).expect("fetched")),
                Step::Put(number) | Step::Create(number) => {
                    if matches!(step, Step::Create(_)) {
                        if !is_drafted[number] {
                            expectations.insert(key(number), Expected::Absent);
                        }
                        draft.create(key(number), &b"drafted"[..], &now);
                    } else {
                        draft.put(key(number), &b"drafted"[..], &now);
                    }
                    writes.push(key(number));
                    (is_drafted[number], model[number]) = (true, true);
                }
                Step::Delete(number) => {
                    draft.delete(key(number));
                    writes.push(key(number));
                    (is_drafted[number], model[number]) = (true, false);
                }
            }
            prop_assert_eq!(draft.is_empty(), writes.is_empty());
        }
        prop_assert!((0..KEYS).all(|number| draft.has_written(&key(number)) == is_drafted[number]));
        let commit = draft.into_commit();
        prop_assert_eq!(commit.expectations.iter().cloned().collect::<BTreeMap<_, _>>(), expectations.clone());
        prop_assert_eq!(commit.expectations.len(), expectations.len(), "each key occurs once");
        prop_assert_eq!(written(&commit), writes.iter().collect::<Vec<_>>(), "in the order in which they were drafted");
    }

    #[test]
    fn a_draft_does_not_answer_what_was_not_fetched(number in 0..9_i32) {
        let fetched = Fetched::default();
        let mut draft = Draft::new(&fetched);
        let key = version_key(PROJECT, NAME, number);
        prop_assert_eq!(draft.get(&key).map_err(|error| error.kind()), Err(ErrorKind::Internal));
        prop_assert_eq!(draft.exists(&key).map_err(|error| error.kind()), Err(ErrorKind::Internal));
        prop_assert_eq!(draft.latest_version(PROJECT, NAME).map_err(|error| error.kind()), Err(ErrorKind::Internal));
    }

    #[test]
    fn every_object_and_version_that_is_written_is_expected_to_be_as_it_was((old, new) in pairs(), unpromoted: bool) {
        let mut world = World::with([old]);
        let op = Op::Apply(vec![new.clone()], ApplyOptions { no_promote: unpromoted });
        let commit = world.run(&op).expect("applied");
        for key in written(&commit).into_iter().filter(|key| !matches!(key, Key::Metadata { .. })) {
            prop_assert!(expected(&commit, key).is_some(), "{} is written and nothing is expected of it", key);
        }
        let project = expected(&commit, &Key::project_object(PROJECT));
        prop_assert!(commit.writes.is_empty() || project.is_some(), "{}: its project may go meanwhile", text(&new));
    }
}

/// Any bytes in place of what is stored, and any bytes that are still a message in place of what is applied.
fn damages() -> impl Strategy<Value = (Object, Object, Object)> {
    let damaged_pair = |(one, other): (Object, Object)| (damaged(one.clone()), damaged(other), Just(one));
    pairs().prop_flat_map(damaged_pair)
}

proptest! {
    #![proptest_config(config(512))]

    #[test]
    fn no_rule_panics_whatever_is_stored_and_whatever_is_applied(
        (stored, applied, whole) in damages(),
        garbage in vec(any::<u8>(), 0..40),
        version in prop::sample::select(vec!["", "v0", "v1", "v2", "v"]),
    ) {
        let name = if stored.kind == Kind::Infra { INFRA_NAME } else { NAME };
        let key = Key::object(stored.kind, PROJECT, name);
        let applied = if known(&applied).is_ok() { applied } else { whole.clone() };
        let is_pinnable = applied.kind.is_view() && applied.kind != Kind::LabelView;
        let applied = if is_pinnable { pin(&applied, version) } else { applied };
        for bytes in [stored.bytes, garbage.into()] {
            let world = || {
                let world = World::new();
                world.plant(key.clone(), bytes.clone());
                for number in 0..3 {
                    world.plant(version_key(PROJECT, NAME, number), bytes.slice(..bytes.len() / 2));
                }
                world
            };
            for no_promote in [false, true] {
                let outcome = world().run(&Op::Apply(vec![applied.clone()], ApplyOptions { no_promote }));
                // Only a version that is to be brought back has to be read.
                let reads_nothing = !is_pinnable || version.is_empty();
                let kind = outcome.err().map(|error| error.kind());
                prop_assert!(!(reads_nothing && kind == Some(ErrorKind::Corrupt)), "{}", text(&applied));
            }
            drop(world().run(&Op::Materialize(NAME.to_owned(), interval_of(1))));
            drop(world().run(&Op::Unmaterialize(NAME.to_owned(), interval_of(1))));
            drop(world().run(&Op::DeleteView(NAME.to_owned())));
            let service = json!({ "name": "service", "features": [{ "feature_view_name": NAME }] });
            drop(world().apply(&object(Kind::FeatureService, service, json!({}))));
        }
    }

    #[test]
    fn nothing_that_looks_at_an_object_panics_whatever_its_bytes((one, other, whole) in damages()) {
        let limits = crate::backend::Limits::new(usize::MAX).with_name_chars(255);
        drop(check_names(&one, PROJECT, &limits));
        drop(fetch_for_apply(PROJECT, std::slice::from_ref(&one)));
        drop(Meta::of(&one));
        for (one, other) in [(&one, &other), (&one, &whole), (&whole, &other)] {
            drop(definition::is_same(one, other, Closeness::Exact));
            drop(definition::is_same(one, other, Closeness::Pinning));
            drop(definition::schema_changed(one, other));
        }
    }
}
