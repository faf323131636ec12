//! Objects that are deeper than Feast's clients read are refused.

use super::*;
use crate::rules::depth::MAX_DEPTH;

/// A source within sources, so many of them; the innermost has this field last.
fn source(levels: usize, innermost: &[u8]) -> Vec<u8> {
    const NAME: u32 = 20;
    const BATCH_SOURCE: u32 = 26;
    let mut source = innermost.to_vec();
    for _ in 0..levels {
        let mut outer = Vec::new();
        wire::put(&mut outer, NAME, b"deep");
        wire::put(&mut outer, BATCH_SOURCE, &source);
        source = outer;
    }
    source
}

/// A tag: an entry of a map is a message of its own.
fn tag() -> Vec<u8> {
    let mut entry = Vec::new();
    wire::put(&mut entry, 1, b"team");
    let mut tag = Vec::new();
    wire::put(&mut tag, 24, &entry);
    tag
}

/// Groups within each other, in a field that no Feast has.
fn groups(levels: usize) -> Vec<u8> {
    [[0xdb, 0x07].repeat(levels), [0xdc, 0x07].repeat(levels)].concat()
}

#[test]
fn objects_are_as_deep_as_feasts_clients_read_and_no_deeper() {
    let view = |kind, source_field, source: &[u8]| {
        edit_spec(&view(kind, "deep", &["a"]), |spec| {
            *spec = wire::set(spec, source_field, source).expect("well-formed");
        })
    };
    let service = |source: &[u8]| {
        edit_spec(&object(Kind::FeatureService, json!({ "name": "deep" }), json!({})), |spec| {
            let projection = wire::content(spec, 3).expect("well-formed").expect("a projection").to_vec();
            let projection = wire::set(&projection, 8, source).expect("well-formed");
            wire::put(spec, 3, &projection);
        })
    };
    // What an object is, and how it is made of a source so deep that the object has this many levels.
    type Made<'a> = (&'a str, &'a dyn Fn(usize) -> Object);
    let rows: [Made<'_>; 7] = [
        ("a source", &|levels| Object::new(Kind::DataSource, source(levels, b""))),
        ("a source, a tag innermost", &|levels| Object::new(Kind::DataSource, source(levels - 1, &tag()))),
        ("a source, groups innermost", &|levels| Object::new(Kind::DataSource, source(levels - 9, &groups(9)))),
        ("a feature view", &|levels| view(Kind::FeatureView, 7, &source(levels - 2, b""))),
        ("a stream feature view", &|levels| view(Kind::StreamFeatureView, 11, &source(levels - 2, b""))),
        ("a label view", &|levels| view(Kind::LabelView, 7, &source(levels - 2, b""))),
        ("a feature service", &|levels| service(&source(levels - 3, b""))),
    ];
    check_rows(rows, |(what, made)| {
        let mut world = World::new();
        world.apply(&made(MAX_DEPTH)).map_err(|error| format!("{what}: {error}"))?;
        let deeper = made(MAX_DEPTH + 1);
        let Err(error) = world.apply(&deeper) else { return Err(format!("{what}: was not refused")) };
        ensure(error.kind() == ErrorKind::InvalidArgument, || format!("{what}: {error}"))?;
        for word in [deeper.kind.label(), "`deep`", PROJECT] {
            ensure(error.to_string().contains(word), || format!("{what}: {error}"))?;
        }
        Ok(())
    });
}

/// A service that is put together from names takes the sources of its views, which are then a level deeper.
#[test]
fn a_service_does_not_become_deeper_than_that_by_its_views() {
    let spec = json!({ "name": "model", "features": [{ "feature_view_name": "deep" }] });
    let service = object(Kind::FeatureService, spec, json!({}));
    let deep = edit_spec(&view(Kind::FeatureView, "deep", &["a"]), |spec| {
        *spec = wire::set(spec, 7, &source(MAX_DEPTH - 2, b"")).expect("well-formed");
    });
    let mut world = World::with([deep]);
    assert_refused(world.apply(&service), ErrorKind::InvalidArgument, &["feature service", "`model`", PROJECT]);
}
