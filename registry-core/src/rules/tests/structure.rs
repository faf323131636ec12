//! Objects that take too much memory when they are decoded are refused before they are.

use std::mem::size_of;

use super::*;
use crate::proto::core;
use crate::rules::structure::{MAX_STRUCTURE, SMALL, check_structure, size};

/// A message that has a field so many times, with this in it.
fn repeated(field: u32, content: &[u8], times: usize) -> Vec<u8> {
    let mut one = Vec::new();
    wire::put(&mut one, field, content);
    one.repeat(times)
}

/// Of this kind, with a spec.
fn of_spec(kind: Kind, spec: &[u8]) -> Object {
    let mut bytes = Vec::new();
    wire::put(&mut bytes, 1, spec);
    Object::new(kind, bytes)
}

#[test]
fn what_messages_take_is_not_underestimated() {
    let of = |name: &str| size(&DESCRIPTORS.get_message_by_name(name).expect("a message"));
    macro_rules! sizes {
        ($($message:ident),*) => { [$((stringify!($message), size_of::<core::$message>())),*] };
    }
    for (name, really) in sizes![
        FeatureSpecV2,
        FeatureViewProjection,
        MaterializationInterval,
        DataSource,
        FeatureViewMeta,
        FeatureViewSpec,
        FeatureServiceSpec,
        SavedDatasetSpec,
        PermissionSpec,
        EntitySpecV2,
        OnDemandSource,
        InfraObject
    ] {
        let reckoned = of(&format!("feast.core.{name}"));
        assert!(reckoned >= really && reckoned < really * 6 + 200, "{name}: {reckoned}, and really {really}");
    }
}

/// Fault: 128 KB that unpacked to 126 MB of empty features took 7 GB.
#[test]
fn what_would_take_too_much_memory_is_refused() {
    let times = 4 << 20;
    let refused = [
        ("features of a view", of_spec(Kind::FeatureView, &repeated(4, b"", times))),
        ("views of a service", of_spec(Kind::FeatureService, &repeated(3, b"", times))),
        ("types of a permission", of_spec(Kind::Permission, &repeated(3, &vec![1; 16 << 20], 1))),
        ("fields that nobody knows", of_spec(Kind::Entity, &[0x78, 0x00].repeat(8 << 20))),
    ];
    for (what, object) in refused {
        let error = check_structure(&object, PROJECT).expect_err(what);
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{what}: {error}");
        assert!(error.to_string().contains(PROJECT) && error.to_string().contains(object.kind.label()), "{error}");
    }
}

#[test]
fn large_objects_are_as_large_as_anybody_needs() {
    let mut feature = Vec::new();
    wire::put(&mut feature, 1, b"a feature with a long name");
    for tag in 0..5 {
        let mut entry = Vec::new();
        wire::put(&mut entry, 1, format!("tag {tag}").as_bytes());
        wire::put(&mut entry, 2, b"value");
        wire::put(&mut feature, 3, &entry);
    }
    let mut interval = Vec::new();
    for end in [1, 2] {
        wire::put(&mut interval, end, &[0x08, 0x80, 0x94, 0xeb, 0xdc, 0x03, 0x10, 0x01]);
    }
    let mut intervals = Vec::new();
    wire::put(&mut intervals, 2, &repeated(3, &interval, 200_000));
    let large = [
        ("100,000 features with tags", of_spec(Kind::FeatureView, &repeated(4, &feature, 100_000))),
        ("200,000 intervals", Object::new(Kind::FeatureView, intervals)),
        ("10,000 views of a service", of_spec(Kind::FeatureService, &repeated(3, b"\x0a\x04view", 10_000))),
        (
            "a service with all of 1,000 views",
            of_spec(Kind::FeatureService, &repeated(3, &repeated(2, &feature, 100), 1000)),
        ),
        ("100 MB of code", of_spec(Kind::OnDemandFeatureView, &repeated(1, &vec![b'x'; 100 << 20], 1))),
    ];
    for (what, object) in large {
        check_structure(&object, PROJECT).unwrap_or_else(|error| panic!("{what}: {error}"));
    }
}

#[test]
fn small_objects_need_not_be_looked_through() {
    let largest = DESCRIPTORS.all_messages().filter(|of| of.package_name() == "feast.core").map(|of| size(&of)).max();
    // Two bytes are the least that a message within another takes.
    assert!(SMALL / 2 * largest.expect("messages") < MAX_STRUCTURE, "{largest:?}");
}

/// Fault: a service of 500 bytes became one that took 600 MB at each look, by what its views have.
#[test]
fn a_service_does_not_take_more_than_that_by_its_views() {
    let projections: Vec<_> = (0..200).map(|_| json!({ "feature_view_name": "wide" })).collect();
    let service = object(Kind::FeatureService, json!({ "name": "model", "features": projections }), json!({}));
    let wide = edit_spec(&view(Kind::FeatureView, "wide", &["a"]), |spec| {
        spec.extend(repeated(4, b"", 50_000));
    });
    let mut world = World::with([wide]);
    assert_refused(world.apply(&service), ErrorKind::InvalidArgument, &["feature service", "too many parts", PROJECT]);
}
