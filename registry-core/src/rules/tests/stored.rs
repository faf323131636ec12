//! What is stored and cannot be decoded: an apply replaces it, and whatever has to read it says which object it is.

use super::*;

/// A field of the definition that has another wire type than it should: the fields around it can be read, the message
/// cannot be decoded.
const WRONG_TYPE: [u8; 2] = [0x08, 0x01];

/// Damages to an object, each with whether what the registry keeps about the object can still be read.
fn damages(object: &Object) -> Vec<(&'static str, Object, bool)> {
    let damaged = |bytes: Vec<u8>| Object::new(object.kind, bytes);
    let mut rows = vec![("no message at all", damaged(vec![0xff; 9]), false)];
    let mut cut_off = object.bytes.to_vec();
    cut_off.push(0x0a);
    rows.push(("cut off behind its end", damaged(cut_off), true));
    if object.kind.layout().spec.is_some() {
        let spec = wire::set(&object.bytes, 1, &WRONG_TYPE).expect("well-formed");
        rows.push(("a definition of wrong types", damaged(spec), true));
        let spec = wire::set(&object.bytes, 1, &[0x0a, 0x02, 0xff, 0xfe]).expect("well-formed");
        rows.push(("a name that is not UTF-8", damaged(spec), true));
    }
    for (what, object, _) in &rows {
        assert!(object.check().is_err(), "{}: {what}: it can be decoded", object.kind);
    }
    rows
}

#[test]
fn an_apply_replaces_what_cannot_be_decoded() {
    check_rows(Kind::ALL.iter().copied(), |kind| {
        let before = materialized_if_it_can_be(&thing(kind));
        for (what, damaged, _) in damages(&before) {
            let mut world = World::new();
            world.plant(key_of(&before), damaged.bytes.clone());
            world.apply(&thing(kind)).map_err(|error| format!("{kind}: {what}: {error}"))?;
            let stored = world.stored(&before);
            let is_same = definition::is_same(&stored, &thing(kind), Closeness::Exact);
            ensure(is_same.is_ok_and(|is_same| is_same), || format!("{kind}: {what}: {}", arbitrary::text(&stored)))?;
        }
        Ok(())
    });
}

fn materialized_if_it_can_be(object: &Object) -> Object {
    let stored = World::with([object.clone()]).stored(object);
    if stored.kind.layout().materialization_intervals.is_none() { stored } else { materialized(&stored, &[1, 2], 4) }
}

#[test]
fn what_can_be_read_of_what_the_registry_kept_stays() {
    for kind in Kind::ALL.iter().copied().filter(|kind| kind.layout().meta.is_some()) {
        let before = materialized_if_it_can_be(&thing(kind));
        for (what, damaged, is_legible) in damages(&before) {
            let mut world = World::new();
            world.plant(key_of(&before), damaged.bytes);
            world.now.seconds += 1000;
            world.apply(&thing(kind)).expect("replaced");
            let (had, has) = (meta_of(&before), meta_of(&world.stored(&before)));
            let kept = (has.created_timestamp == had.created_timestamp, has.intervals == had.intervals);
            let is_materialized = !had.intervals.is_empty();
            assert_eq!(kept, (is_legible, is_legible || !is_materialized), "{kind}: {what}");
        }
    }
}

#[test]
fn of_a_damaged_meta_the_parts_that_are_whole_stay() {
    let before = materialized_if_it_can_be(&thing(Kind::FeatureView));
    // An interval that is none, and what comes after the damage.
    let damaged = edit_meta(&before, |meta| {
        let after = wire::retain(&before.meta().expect("well-formed"), |number| number == 3).expect("well-formed");
        *meta = [&meta[..], &[0x1a, 0x01, 0xff], &after[..after.len() / 2], &[0x18, 0x07], &[0xff]].concat();
    });
    let mut world = World::new();
    world.plant_object(&damaged);
    world.apply(&thing(Kind::FeatureView)).expect("replaced");
    let stored = world.stored(&before);
    assert_eq!(meta_of(&stored).created_timestamp, meta_of(&before).created_timestamp);
    assert_eq!(intervals(&stored), intervals_of(&[1, 2, 1]));
}

#[test]
fn a_view_that_cannot_be_decoded_is_replaced_by_a_new_version() {
    for &kind in Kind::VIEWS {
        for no_promote in [false, true] {
            let mut world = World::with([view(kind, "trips", &["a"])]);
            world.plant(Key::object(kind, PROJECT, "trips"), vec![0xff; 9]);
            let new = view(kind, "trips", &["b"]);
            world.run(&Op::Apply(vec![new.clone()], ApplyOptions { no_promote })).expect("replaced");
            assert_eq!(world.version_numbers("trips"), [0, 1], "{kind}");
            assert_eq!(world.versions("trips")[1].feature_view_proto, world.stored(&new).bytes, "{kind}");
        }
    }
}

#[test]
fn a_version_that_cannot_be_decoded_is_not_brought_back_and_named() {
    let mut world = World::with([view(Kind::FeatureView, "trips", &["a"])]);
    let first = &world.versions("trips")[0];
    let broken = FeatureViewVersionRecord { feature_view_proto: vec![0x0a, 0x02, 0x08, 0x01].into(), ..first.clone() };
    let trips = pin(&view(Kind::FeatureView, "trips", &["a"]), "v0");
    for value in [broken.encode_to_vec(), vec![0xff; 9]] {
        world.plant(version_key(PROJECT, "trips", 0), value);
        assert_refused(world.apply(&trips), ErrorKind::Corrupt, &["v0", "`trips`", PROJECT]);
    }
}

#[test]
fn whatever_has_to_read_it_says_which_object_it_is() {
    for kind in [Kind::FeatureView, Kind::StreamFeatureView] {
        let before = materialized_if_it_can_be(&thing(kind));
        for (what, damaged, _) in damages(&before) {
            let mut world = World::new();
            world.plant(key_of(&before), damaged.bytes.clone());
            let words = [kind.label(), "`thing`", PROJECT, "apply it again"];
            let name = "thing".to_owned();
            assert_refused(world.run(&Op::Materialize(name.clone(), interval_of(7))), ErrorKind::Corrupt, &words);
            assert_refused(world.run(&Op::Unmaterialize(name, interval_of(1))), ErrorKind::Corrupt, &words);
            let projections = json!({ "name": "model", "features": [{ "feature_view_name": "thing" }] });
            let service = object(Kind::FeatureService, projections, json!({}));
            assert_refused(world.apply(&service), ErrorKind::Corrupt, &words);
            assert_eq!(world.stored(&before), damaged, "{kind}: {what}");
        }
    }
}

#[test]
fn an_object_says_which_one_it_is_as_far_as_its_bytes_do() {
    let entity = World::with([thing(Kind::Entity)]).stored(&thing(Kind::Entity));
    let broken = edit_spec(&entity, |spec| spec.extend([0x42, 0x01, 0xff])); // a tag
    let tags: BTreeMap<String, String> = [("a".to_owned(), "b".to_owned())].into();
    let words = ["entity", "`thing`", "of project `rides`"];
    assert_refused(broken.decode::<core::Entity>(), ErrorKind::Corrupt, &words);
    assert_refused(broken.has_tags(&tags), ErrorKind::Corrupt, &words);
    let cut_off = Object::new(Kind::Entity, entity.bytes.slice(..entity.bytes.len() - 1));
    assert_refused(cut_off.created_timestamp(), ErrorKind::Corrupt, &words);
    assert_refused(Object::new(Kind::Entity, vec![0xff]).name(), ErrorKind::Corrupt, &["the entity cannot"]);
}
