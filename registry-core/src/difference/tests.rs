use bytes::Bytes;
use proptest::prelude::*;
use prost::Message;
use prost_types::{Duration, Timestamp};

use super::*;
use crate::encoded::Object;
use crate::kind::{FeastObject, Kind};
use crate::proto::core::{
    DataSource, Entity, EntityMeta, EntitySpecV2, FeatureSpecV2, FeatureView, FeatureViewMeta, FeatureViewProjection,
    FeatureViewSpec, FeatureViewVersionRecord, MaterializationInterval,
};
use crate::rules::tests::{objects, pairs};
use crate::wire;

fn key<T: FeastObject>() -> Key {
    Key::object(T::KIND, "rides", "thing")
}

/// The changes, each in a line: `path: before -> after`, with a `~` before what is not of the definition.
fn lines(difference: &Difference) -> Vec<String> {
    let side = |words: &Option<String>| words.clone().unwrap_or_else(|| "-".to_owned());
    let line = |change: &FieldChange| {
        let mark = if change.in_definition { "" } else { "~" };
        format!("{mark}{}: {} -> {}", change.path, side(&change.before), side(&change.after))
    };
    difference.changes.iter().map(line).collect()
}

fn compare<T: FeastObject>(before: &T, after: &T) -> Vec<String> {
    let (before, after) = (before.encode_to_vec(), after.encode_to_vec());
    lines(&Difference::between(&key::<T>(), Some(&before), Some(&after)))
}

fn feature(name: &str, value_type: i32) -> FeatureSpecV2 {
    FeatureSpecV2 { name: name.into(), value_type, ..Default::default() }
}

fn view() -> FeatureView {
    let spec = FeatureViewSpec {
        name: "driver_stats".into(),
        project: "rides".into(),
        entities: vec!["driver".into()],
        features: vec![feature("trips", 3), feature("rating", 5)],
        tags: [("team".to_owned(), "ml".to_owned()), ("tier".to_owned(), "1".to_owned())].into(),
        ttl: Some(Duration { seconds: 86_400, nanos: 0 }),
        batch_source: Some(DataSource { name: "trips".into(), r#type: 1, ..Default::default() }),
        ..Default::default()
    };
    FeatureView { spec: Some(spec), meta: None }
}

fn changed(change: impl FnOnce(&mut FeatureViewSpec, &mut FeatureViewMeta)) -> Vec<String> {
    let before = FeatureView { meta: Some(FeatureViewMeta::default()), ..view() };
    let mut after = before.clone();
    change(after.spec.get_or_insert_default(), after.meta.get_or_insert_default());
    compare(&before, &after)
}

#[test]
fn fields_are_named_by_their_path_and_said_in_words() {
    let lines = changed(|spec, _| {
        spec.tags = [("team".to_owned(), "fleet".to_owned()), ("new".to_owned(), String::new())].into();
        spec.features[0].value_type = 4;
        spec.features[1].name = "stars".into();
        spec.ttl = Some(Duration { seconds: 129_600, nanos: 0 });
        spec.online = true;
        spec.description = "How drivers drive".into();
        spec.entities = vec!["rider".into()];
        spec.batch_source.get_or_insert_default().r#type = 2;
    });
    let expected = [
        "spec.entities: driver -> rider",
        "spec.features[trips].value_type: INT32 -> INT64",
        "spec.features[rating]: value_type=DOUBLE -> -",
        "spec.features[stars]: - -> value_type=DOUBLE",
        "spec.tags[new]: - -> ",
        "spec.tags[team]: ml -> fleet",
        "spec.tags[tier]: 1 -> -",
        "spec.ttl: 1d -> 1d 12h",
        "spec.batch_source.type: BATCH_FILE -> BATCH_BIGQUERY",
        "spec.online: false -> true",
        "spec.description: - -> How drivers drive",
    ];
    let (mut lines, mut expected) = (lines, expected.to_vec());
    lines.sort();
    expected.sort_unstable();
    assert_eq!(lines, expected);
}

#[test]
fn what_is_kept_beside_a_definition_is_marked() {
    let at = |seconds: i64| Some(Timestamp { seconds: 1_700_000_000 + seconds, nanos: 0 });
    let lines = changed(|spec, meta| {
        spec.project.clear();
        spec.batch_source.get_or_insert_default().meta = Some(Default::default());
        meta.last_updated_timestamp = at(0);
        meta.materialization_intervals.push(MaterializationInterval { start_time: at(0), end_time: at(3600) });
        meta.current_version_number = 1;
    });
    assert_eq!(lines.len(), 5, "{lines:?}");
    assert!(lines.iter().all(|line| line.starts_with('~')), "{lines:?}");
    for line in [
        "~meta.last_updated_timestamp: - -> 2023-11-14T22:13:20Z",
        "~meta.materialization_intervals: - -> start_time=2023-11-14T22:13:20Z, end_time=2023-11-14T23:13:20Z",
        "~meta.current_version_number: 0 -> 1",
    ] {
        assert!(lines.iter().any(|other| other == line), "{line}: {lines:?}");
    }
}

#[test]
fn of_one_more_interval_only_that_one_is_told_wherever_it_stands() {
    let interval = |hour: i64| {
        let at = |hour: i64| Some(Timestamp { seconds: hour * 3600, nanos: 0 });
        MaterializationInterval { start_time: at(hour), end_time: at(hour + 1) }
    };
    let of = |hours: &[i64]| {
        let materialization_intervals = hours.iter().map(|hour| interval(*hour)).collect();
        FeatureView { spec: None, meta: Some(FeatureViewMeta { materialization_intervals, ..Default::default() }) }
    };
    let lines = compare(&of(&[1, 2, 2, 5]), &of(&[0, 1, 2, 2, 5]));
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("- -> start_time=1970-01-01T00:00:00Z, end_time=1970-01-01T01:00:00Z"), "{lines:?}");
    assert_eq!(compare(&of(&[2, 2]), &of(&[2])).len(), 1);
}

#[test]
fn another_order_is_told_and_marked_where_it_means_nothing() {
    let lines = changed(|spec, _| spec.features.reverse());
    assert_eq!(lines, ["spec.features: in the order trips, rating -> in the order rating, trips"]);
    let of = |entities: [&str; 2]| {
        let mut view = view();
        view.spec.get_or_insert_default().entities = entities.map(str::to_owned).to_vec();
        view
    };
    let lines = compare(&of(["driver", "rider"]), &of(["rider", "driver"]));
    assert_eq!(lines, ["~spec.entities: in the order driver, rider -> in the order rider, driver"]);
}

#[test]
fn what_is_made_or_removed_is_told_field_by_field() {
    let bytes = Entity {
        spec: Some(EntitySpecV2 { name: "driver".into(), value_type: 4, ..Default::default() }),
        meta: Some(EntityMeta::default()),
    }
    .encode_to_vec();
    let made = Difference::between(&key::<Entity>(), None, Some(&bytes));
    assert_eq!(lines(&made), ["spec.name: - -> driver", "spec.value_type: - -> INT64", "~meta: - -> nothing set"]);
    let removed = Difference::between(&key::<Entity>(), Some(&bytes), None);
    assert_eq!(lines(&removed)[1], "spec.value_type: INT64 -> -");
    let empty = Difference::between(&key::<Entity>(), None, Some(b""));
    assert!(empty.changes.is_empty() && !empty.encoding_only, "{empty:?}");
}

#[test]
fn fields_of_a_newer_feast_are_named_as_unknown() {
    let of = |number: u64, text: &[u8]| {
        let mut spec = EntitySpecV2 { name: "driver".into(), ..Default::default() }.encode_to_vec();
        wire::put_varint(&mut spec, 77, number);
        wire::put(&mut spec, 78, text);
        let mut bytes = Vec::new();
        wire::put(&mut bytes, 1, &spec);
        bytes
    };
    let difference = Difference::between(&key::<Entity>(), Some(&of(1, b"x")), Some(&of(2, &[0xff, 0xfe])));
    let lines = lines(&difference);
    assert_eq!(lines[0], "spec.unknown field 77: 1 -> 2");
    assert!(lines[1].starts_with("spec.unknown field 78: x -> 2 bytes ("), "{lines:?}");
}

#[test]
fn the_same_fields_in_another_encoding_are_said_to_be_that() {
    let entity = Entity { spec: Some(EntitySpecV2::default()), meta: Some(EntityMeta::default()) };
    let (before, after) = (entity.encode_to_vec(), [0x12, 0, 0x0a, 0]);
    let difference = Difference::between(&key::<Entity>(), Some(&before), Some(&after));
    assert!(difference.changes.is_empty() && difference.encoding_only && !difference.is_empty(), "{difference:?}");
}

#[test]
fn bytes_that_cannot_be_decoded_and_opaque_ones_are_told_as_a_whole() {
    let difference = Difference::between(&key::<Entity>(), Some(&[0xff]), Some(b""));
    let line = &lines(&difference)[0];
    assert!(line.starts_with(": 1 byte (") && line.contains("), which cannot be decoded -> 0 bytes ("), "{line}");
    let metadata = Key::UserMetadata { kind: Kind::FeatureView, project: "rides".into(), view: "v".into() };
    let difference = Difference::between(&metadata, Some(b"one"), Some(&[0, 1]));
    assert!(lines(&difference)[0].starts_with(": one -> 2 bytes ("), "{difference:?}");
    let fact = |name| Difference::between(&Key::metadata("rides", name), Some(b"1"), Some(b"2"));
    assert_eq!(lines(&fact(Key::LAST_UPDATED)), ["~: 1 -> 2"]);
    assert_eq!(lines(&fact(Key::PROJECT_UUID)), ["~: 1 -> 2"]);
}

#[test]
fn a_version_is_compared_too_and_so_is_the_view_in_it() {
    let key = Key::Version { project: "rides".into(), view: "v".into(), number: 0 };
    let of = |id: &str, view: &[u8]| {
        let feature_view_proto = Bytes::copy_from_slice(view);
        let (version_id, feature_view_type) = (id.to_owned(), "feature_view".to_owned());
        FeatureViewVersionRecord { feature_view_proto, version_id, feature_view_type, ..Default::default() }
            .encode_to_vec()
    };
    let compare =
        |one: &[u8], other: &[u8]| lines(&Difference::between(&key, Some(&of("1", one)), Some(&of("2", other))));
    let (one, mut two) = (view(), view());
    two.spec.get_or_insert_default().owner = "me".into();
    two.meta = Some(FeatureViewMeta::default());
    assert_eq!(
        compare(&one.encode_to_vec(), &two.encode_to_vec()),
        ["feature_view.spec.owner: - -> me", "~feature_view.meta: - -> nothing set", "~version_id: 1 -> 2"]
    );
    let lines = compare(&one.encode_to_vec(), &[0xff]);
    assert!(lines[0].starts_with("feature_view_proto: ") && lines[0].contains("-> 1 byte ("), "{lines:?}");
}

#[test]
fn what_is_told_is_bounded() {
    let name = "n".repeat(100_000);
    let mut after = view();
    let spec = after.spec.get_or_insert_default();
    spec.tags = (0..1500).map(|number| (format!("{name}{number}"), "x".to_owned())).collect();
    let (before, after) = (view().encode_to_vec(), after.encode_to_vec());
    let difference = Difference::between(&key::<FeatureView>(), Some(&before), Some(&after));
    assert_eq!((difference.changes.len(), difference.left_out), (MOST, 502));
    assert!(difference.changes.iter().all(|change| change.path.len() < 200));
    // A service with a projection of very much is summarized in a line.
    let columns = (0..10_000).map(|number| feature(&format!("f{number}"), 4)).collect();
    let projection = FeatureViewProjection { feature_columns: columns, ..Default::default() };
    let spec = crate::proto::core::FeatureServiceSpec { features: vec![projection], ..Default::default() };
    let service = Object::encode(&crate::proto::core::FeatureService { spec: Some(spec), meta: None });
    let made = Difference::between(&key::<crate::proto::core::FeatureService>(), None, Some(&service.bytes));
    assert!(made.changes[0].after.as_ref().is_some_and(|words| words.chars().count() < 200), "{made:?}");
}

fn key_of(object: &Object) -> Key {
    Key::object(object.kind, "rides", "thing")
}

fn decoded(object: &Object) -> DynamicMessage {
    let (descriptor, _) = message_of(&key_of(object)).expect("a message");
    DynamicMessage::decode(descriptor, object.bytes.clone()).expect("a message")
}

proptest! {
    #[test]
    fn nothing_differs_from_itself(object in objects()) {
        let difference = Difference::between(&key_of(&object), Some(&object.bytes), Some(&object.bytes));
        prop_assert!(difference.is_empty(), "{:?}", difference);
        // In another encoding, with what maps hold in another order.
        let again = decoded(&object).encode_to_vec();
        let difference = Difference::between(&key_of(&object), Some(&object.bytes), Some(&again));
        prop_assert!(difference.changes.is_empty(), "{:?}", difference);
        prop_assert_eq!(difference.is_empty(), object.bytes == again);
    }

    #[test]
    fn different_messages_have_fields_that_differ((before, after) in pairs()) {
        let difference = Difference::between(&key_of(&before), Some(&before.bytes), Some(&after.bytes));
        prop_assert_eq!(difference.changes.is_empty(), decoded(&before) == decoded(&after), "{:?}", difference);
        // What is another definition to the rules is shown as one.
        if !crate::rules::is_same_definition(&before, &after).expect("they are compared") {
            prop_assert!(difference.is_of_definition(), "{:?}", difference);
        }
    }

    #[test]
    fn whatever_is_stored_can_be_compared(before: Vec<u8>, after: Vec<u8>, object in objects()) {
        for (before, after) in [(&before[..], &after[..]), (&before[..], &object.bytes[..])] {
            let difference = Difference::between(&key_of(&object), Some(before), Some(after));
            prop_assert_eq!(difference.is_empty(), before == after);
        }
    }
}
