//! Fields of a newer Feast, which nothing here knows, are kept.

use bytes::Bytes;
use feast_registry_core::config::CacheConfig;
use feast_registry_core::{Freshness, INFRA_NAME, Kind, ListFilter, Object, Registry};
use prost::encoding::{WireType, encode_key};

use crate::handle::or_fail;
use crate::run::Setup;
use crate::sample::{interval, view};
use crate::shown::shown;
use crate::wire;

/// From here on, field numbers are unknown.
const UNKNOWN: u32 = 5000;

/// Unknown fields of every wire type, one of them twice.
fn unknown(note: &str) -> Vec<u8> {
    let mut fields = Vec::new();
    wire::put(&mut fields, UNKNOWN, note.as_bytes());
    wire::put_varint(&mut fields, UNKNOWN + 1, u64::MAX);
    encode_key(UNKNOWN + 2, WireType::SixtyFourBit, &mut fields);
    fields.extend([0xff; 8]);
    encode_key(UNKNOWN + 3, WireType::ThirtyTwoBit, &mut fields);
    fields.extend([0x80; 4]);
    encode_key(UNKNOWN + 4, WireType::StartGroup, &mut fields);
    wire::put(&mut fields, 1, b"inside a group");
    encode_key(UNKNOWN + 4, WireType::EndGroup, &mut fields);
    wire::put(&mut fields, UNKNOWN, b"again");
    fields
}

/// Where in a message unknown fields are put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Top,
    Spec,
    Meta,
}

const PLACES: [Place; 3] = [Place::Top, Place::Spec, Place::Meta];

/// The field of the sub-message that is the place; `None` for a place that the kind does not have.
fn field_of(kind: Kind, place: Place) -> Option<Option<u32>> {
    match place {
        Place::Top => Some(None),
        Place::Spec => kind.layout().spec.map(Some),
        Place::Meta => kind.layout().meta.map(Some),
    }
}

/// The object with unknown fields in these places.
fn with_unknown(object: &Object, note: &str, places: &[Place]) -> Object {
    let mut message = object.bytes.to_vec();
    for place in places {
        match field_of(object.kind, *place) {
            None => {}
            Some(None) => message.extend(unknown(note)),
            Some(Some(field)) => {
                let mut inner = wire::content(&message, field);
                inner.extend(unknown(note));
                let mut changed = Vec::new();
                wire::put(&mut changed, field, &inner);
                changed.extend(wire::raw(&message, |number| number != field));
                message = changed;
            }
        }
    }
    Object::new(object.kind, message)
}

/// Checks that the unknown fields in these places are those of a note.
#[track_caller]
fn assert_kept(property: &str, object: &Object, note: &str, places: &[Place]) {
    for place in places {
        let found = match field_of(object.kind, *place) {
            None => continue,
            Some(None) => wire::raw(&object.bytes, |number| number >= UNKNOWN),
            Some(Some(field)) => wire::raw(&wire::content(&object.bytes, field), |number| number >= UNKNOWN),
        };
        let expected = unknown(note);
        assert!(
            found == expected,
            "{property}: the unknown fields of a {} ({place:?}) should be {}, and are {}",
            object.kind,
            shown(&expected),
            shown(&found),
        );
    }
}

/// An object of a kind as a client of the future applies it.
fn future(kind: Kind, name: &str, features: &[&str], note: &str, places: &[Place]) -> Object {
    let object = if kind.is_view() { view(kind, name, features) } else { crate::sample::applied(kind, name, "") };
    with_unknown(&object, note, places)
}

async fn get(registry: &Registry, kind: Kind, name: &str, freshness: Freshness) -> Object {
    let name = if kind == Kind::Infra { INFRA_NAME } else { name };
    or_fail("a get", registry.get(kind, "p", name, freshness).await)
}

fn name_of(kind: Kind) -> &'static str {
    if kind == Kind::Project { "p" } else { kind.plural() }
}

pub(crate) async fn they_survive_apply_get_and_list(setup: Setup) {
    let store = setup.store().await;
    let (registry, other) = (store.registry().await, store.registry().await);
    for &kind in Kind::ALL {
        let object = future(kind, name_of(kind), &["a"], "note", &PLACES);
        or_fail("an apply of unknown fields", registry.apply("p", object).await);
    }
    or_fail("a refresh", other.refresh().await);
    for registry in [&registry, &other] {
        for freshness in [Freshness::Stored, Freshness::Cached] {
            for &kind in Kind::ALL {
                let object = get(registry, kind, name_of(kind), freshness).await;
                assert_kept(&format!("a get, {freshness:?}"), &object, "note", &PLACES);
                let list = registry.list(kind, Some("p"), &ListFilter::default(), freshness).await;
                for object in or_fail("a list", list) {
                    assert_kept(&format!("a list, {freshness:?}"), &object, "note", &PLACES);
                }
            }
            let proto = or_fail("the whole registry", registry.proto(freshness).await).into_bytes();
            for kind in Kind::ALL.iter().copied().filter(|kind| *kind != Kind::Infra) {
                let object = Object::new(kind, wire::content(&proto, kind.registry_field()));
                assert_kept("the whole registry as one message", &object, "note", &PLACES);
            }
        }
    }
}

pub(crate) async fn they_survive_materialization(setup: Setup) {
    let store = setup.store().await;
    let registry = store.registry().await;
    for kind in [Kind::FeatureView, Kind::StreamFeatureView] {
        let name = name_of(kind);
        or_fail("an apply", registry.apply("p", future(kind, name, &["a"], "note", &PLACES)).await);
        for number in 0..3 {
            let of = interval(number);
            let outcome = registry.apply_materialization("p", name, of.start_time, of.end_time).await;
            or_fail("a materialization", outcome);
            for freshness in [Freshness::Stored, Freshness::Cached] {
                let property = format!("materialization {number}, {freshness:?}");
                assert_kept(&property, &get(&registry, kind, name, freshness).await, "note", &PLACES);
            }
        }
        let of = interval(1);
        let (start, end) = (of.start_time.unwrap_or_default(), of.end_time.unwrap_or_default());
        or_fail("the removal of an interval", registry.remove_materialization("p", name, start, end).await);
        let object = get(&registry, kind, name, Freshness::Stored).await;
        assert_kept("the removal of an interval", &object, "note", &PLACES);
        let metadata = Some(Bytes::from_static(b"metadata"));
        or_fail("user metadata", registry.apply_user_metadata(kind, "p", name, metadata).await);
        assert_eq!(
            get(&registry, kind, name, Freshness::Stored).await,
            object,
            "user metadata leaves its {kind} as it is"
        );
    }
}

pub(crate) async fn they_survive_being_applied_again(setup: Setup) {
    let store = setup.store().await;
    let (registry, counted) = store.counted_registry(CacheConfig::default()).await;
    for &kind in Kind::ALL {
        let name = name_of(kind);
        let apply = async |object: Object| or_fail("an apply", registry.apply("p", object).await);
        apply(future(kind, name, &["a"], "first", &PLACES)).await;
        let stored = get(&registry, kind, name, Freshness::Stored).await;
        // Unchanged, as a client sends it and as it reads it back.
        let commits = counted.calls().commits;
        apply(future(kind, name, &["a"], "first", &PLACES)).await;
        apply(stored.clone()).await;
        assert_eq!(get(&registry, kind, name, Freshness::Stored).await, stored, "a {kind} that is applied unchanged");
        assert_eq!(counted.calls().commits, commits, "a {kind} with unknown fields, applied unchanged, writes nothing");
        // An unknown field is part of the definition: changing it alone is a change.
        let definition = [Place::Top, Place::Spec];
        apply(future(kind, name, &["a"], "second", &definition)).await;
        let stored = get(&registry, kind, name, Freshness::Stored).await;
        assert_kept("an apply that changes nothing but unknown fields", &stored, "second", &definition);
        // The meta is the registry's: what an apply does not bring there is kept, also from an older client.
        assert_kept("an apply that brings no meta", &stored, "first", &[Place::Meta]);
        apply(future(kind, name, &["a"], "", &[])).await;
        let stored = get(&registry, kind, name, Freshness::Stored).await;
        assert_kept("an apply by a client without unknown fields", &stored, "first", &[Place::Meta]);
        apply(future(kind, name, &["a"], "third", &PLACES)).await;
        let stored = get(&registry, kind, name, Freshness::Stored).await;
        assert_kept("an apply that brings all anew", &stored, "third", &PLACES);
    }
}

pub(crate) async fn they_survive_in_the_history(setup: Setup) {
    let store = setup.store().await;
    let (registry, other) = (store.registry().await, store.registry().await);
    let apply = async |object: Object| or_fail("an apply", registry.apply("p", object).await);
    for &kind in Kind::VIEWS {
        let name = name_of(kind);
        apply(future(kind, name, &["a"], "first", &PLACES)).await;
        apply(future(kind, name, &["a", "b"], "second", &PLACES)).await;
        let versions = or_fail("a history", other.list_versions("p", name).await);
        assert_eq!(versions.len(), 2, "a {kind} with one change of its schema has two versions");
        for (version, note) in versions.iter().zip(["first", "second"]) {
            assert_kept(&format!("version {} in the history", version.number), &version.view, note, &PLACES);
        }
        // The field that asks for a version; label views have none.
        let field = match kind {
            Kind::FeatureView => 18,
            Kind::StreamFeatureView => 21,
            Kind::OnDemandFeatureView => 17,
            _ => continue,
        };
        let mut pinned = future(kind, name, &["a", "b"], "second", &PLACES).bytes.to_vec();
        let mut version = Vec::new();
        wire::put(&mut version, field, b"v0");
        // A second occurrence of the spec is merged with the first.
        wire::put(&mut pinned, 1, &version);
        apply(Object::new(kind, pinned)).await;
        let restored = get(&registry, kind, name, Freshness::Stored).await;
        assert_kept("a version that was brought back", &restored, "first", &[Place::Top, Place::Spec]);
        let spec = wire::content(&restored.bytes, 1);
        assert_eq!(wire::content(&spec, field), b"v0", "a {kind} that was brought back says which version it is");
        let features = |object: &Object| {
            let field = if kind == Kind::OnDemandFeatureView { 3 } else { 4 };
            shown(&wire::raw(&wire::content(&object.bytes, 1), |number| number == field))
        };
        let expected = features(&view(kind, name, &["a"]));
        assert_eq!(features(&restored), expected, "a {kind} that was brought back has the features of v0");
    }
}
