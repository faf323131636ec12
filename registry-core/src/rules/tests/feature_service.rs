//! The projections of a feature service are completed from the views that they are of.

use proptest::prelude::*;

use super::*;
use crate::proto::core::{FeatureService, FeatureViewProjection};

/// A service with these projections.
fn service(projections: Json) -> Object {
    object(Kind::FeatureService, json!({ "features": projections }), json!({}))
}

/// The projection of `trips` with these members, which say nothing of its features' types.
fn names_only(members: Json) -> Json {
    let mut projection = json!({ "feature_view_name": "trips" });
    merge(&mut projection, &members);
    projection
}

/// A view with two features that say all that a feature can.
fn trips(kind: Kind) -> Object {
    let features = json!([
        { "name": "a", "value_type": "INT64", "description": "the a", "tags": { "unit": "m" } },
        { "name": "b", "value_type": "FLOAT_LIST", "vector_index": true, "vector_length": 3 },
    ]);
    object(kind, json!({ "name": "trips", "features": features }), json!({}))
}

fn apply_over(views: &[Object], service: &Object) -> Result<Vec<FeatureViewProjection>> {
    let mut world = World::with(views.iter().cloned());
    world.apply(service)?;
    let stored: FeatureService = world.stored(service).decode()?;
    Ok(stored.spec.expect("a spec").features)
}

fn names(projection: &FeatureViewProjection) -> Vec<&str> {
    projection.feature_columns.iter().map(|feature| feature.name.as_str()).collect()
}

#[test]
fn a_projection_without_features_has_all_of_its_views() {
    for &kind in Kind::VIEWS {
        let projections = apply_over(&[trips(kind)], &service(json!([names_only(json!({}))]))).expect("applied");
        let [projection] = &projections[..] else { panic!("{kind}: one projection") };
        assert_eq!(names(projection), ["a", "b"], "{kind}");
        assert_eq!(projection.feature_columns[0].description, "the a", "{kind}");
        assert_eq!(projection.feature_columns[1].vector_length, 3, "{kind}");
    }
}

#[test]
fn a_projection_of_names_has_the_features_of_its_view_in_the_order_of_the_names() {
    for &kind in Kind::VIEWS {
        for wanted in [&["b", "a"][..], &["b"], &["a"]] {
            let columns: Json = wanted.iter().map(|name| json!({ "name": name })).collect();
            let named = names_only(json!({ "feature_columns": columns }));
            let projections = apply_over(&[trips(kind)], &service(json!([named]))).expect("applied");
            assert_eq!(names(&projections[0]), wanted, "{kind}");
            let is_typed = projections[0].feature_columns.iter().all(|feature| feature.value_type != 0);
            assert!(is_typed, "{kind}: {:?}", projections[0]);
        }
    }
}

#[test]
fn a_feature_of_another_type_becomes_that_of_the_view_when_the_service_has_to_be_completed() {
    let other = names_only(json!({ "feature_columns": [{ "name": "a", "value_type": "BOOL" }] }));
    let both = service(json!([other.clone(), names_only(json!({ "feature_view_name_alias": "again" }))]));
    let completed = apply_over(&[trips(Kind::FeatureView)], &both).expect("applied");
    assert_eq!(completed[0].feature_columns[0].description, "the a");
    let alone = apply_over(&[trips(Kind::FeatureView)], &service(json!([other]))).expect("applied");
    assert_eq!(alone[0].feature_columns[0].description, "", "one that is complete is taken as it is");
}

#[test]
fn a_projection_takes_its_source_from_the_view() {
    check_rows(Kind::VIEWS.iter().copied(), |kind| {
        let projections = apply_over(&[trips(kind)], &service(json!([names_only(json!({}))]))).expect("applied");
        let of = &projections[0];
        let source = of.batch_source.as_ref().map(|source| source.name.as_str());
        // Feast takes the timestamp field from the created timestamp column.
        let found = (source, &*of.timestamp_field, &*of.created_timestamp_column, &*of.date_partition_column);
        let expected = match kind {
            Kind::OnDemandFeatureView => (None, "", "", ""),
            _ => (Some("trips"), "made", "made", "day"),
        };
        ensure(found == expected, || format!("{kind}: {found:?}"))
    });
}

#[test]
fn the_source_of_a_label_view_is_the_batch_source_behind_a_push_source() {
    let batch = json!({ "name": "behind", "type": "BATCH_FILE", "created_timestamp_column": "made" });
    let push = json!({ "source": { "type": "PUSH_SOURCE", "batch_source": batch }, "name": "trips" });
    let labels = object(Kind::LabelView, push, json!({}));
    let projections = apply_over(&[labels], &service(json!([names_only(json!({}))]))).expect("applied");
    assert_eq!(projections[0].batch_source.as_ref().map(|source| source.name.as_str()), Some("behind"));
    assert_eq!(projections[0].created_timestamp_column, "made");
}

#[test]
fn a_projection_says_whether_it_is_of_a_label_view() {
    for &kind in Kind::VIEWS {
        let projections = apply_over(&[trips(kind)], &service(json!([names_only(json!({}))]))).expect("applied");
        let expected = if kind == Kind::LabelView { "labelView" } else { "featureView" };
        assert_eq!(projections[0].view_type, expected, "{kind}");
    }
}

#[test]
fn alias_and_join_keys_of_a_projection_stay() {
    let own = json!({ "feature_view_name_alias": "origin", "join_key_map": { "place_id": "origin_id" } });
    for columns in [json!([]), json!([{ "name": "a" }])] {
        let mut members = own.clone();
        merge(&mut members, &json!({ "feature_columns": columns }));
        let projections =
            apply_over(&[trips(Kind::FeatureView)], &service(json!([names_only(members)]))).expect("applied");
        assert_eq!(projections[0].feature_view_name_alias, "origin");
        assert_eq!(projections[0].join_key_map.get("place_id").map(String::as_str), Some("origin_id"));
    }
}

#[test]
fn a_projection_of_a_pinned_view_has_its_version_unless_it_has_one() {
    // The other projection of the service is not complete, so that all of them are looked at.
    let typed = json!([{ "name": "a", "value_type": "INT64" }]);
    let rows = [
        ("without features", json!({}), Some(2)),
        ("of names", json!({ "feature_columns": [{ "name": "a" }] }), Some(2)),
        ("complete, in a service that is not", json!({ "feature_columns": typed }), Some(2)),
        ("of a version", json!({ "version_tag": 0 }), Some(0)),
        ("of names and of a version", json!({ "feature_columns": [{ "name": "a" }], "version_tag": 5 }), Some(5)),
    ];
    for kind in [Kind::FeatureView, Kind::StreamFeatureView, Kind::OnDemandFeatureView] {
        check_rows(rows.clone(), |(what, members, expected)| {
            let pinned = pin(&view(kind, "trips", &["a"]), "v2");
            let latest = view(Kind::FeatureView, "cars", &["c"]);
            let both = service(json!([names_only(members), { "feature_view_name": "cars" }]));
            let projections = apply_over(&[pinned, latest], &both).expect("applied");
            ensure(projections[0].version_tag == expected, || {
                format!("{kind}: {what}: {:?}", projections[0].version_tag)
            })?;
            ensure(projections[1].version_tag.is_none(), || format!("{kind}: {what}: the other is of a version"))
        });
    }
}

#[test]
fn a_service_over_a_view_that_is_not_there_is_refused() {
    for columns in [json!([]), json!([{ "name": "a" }])] {
        let incomplete = service(json!([names_only(json!({ "feature_columns": columns }))]));
        assert_refused(apply_over(&[], &incomplete), ErrorKind::FeatureNotFound, &["trips", PROJECT]);
    }
    // One in another project does not count, nor one in another case.
    let mut world = World::with([view(Kind::FeatureView, "Trips", &["a"])]);
    world.run_in("other", &Op::Apply(vec![trips(Kind::FeatureView)], ApplyOptions::default())).expect("applied");
    let result = world.apply(&service(json!([names_only(json!({}))])));
    assert_refused(result, ErrorKind::FeatureNotFound, &["trips", PROJECT]);
}

#[test]
fn a_service_that_asks_for_a_feature_that_its_view_has_not_is_refused() {
    for &kind in Kind::VIEWS {
        let columns = json!([{ "name": "a" }, { "name": "missing" }]);
        let incomplete = service(json!([names_only(json!({ "feature_columns": columns }))]));
        assert_refused(apply_over(&[trips(kind)], &incomplete), ErrorKind::InvalidArgument, &["trips:missing"]);
    }
}

#[test]
fn a_service_that_is_complete_is_stored_as_it_is_though_its_views_are_not_there() {
    for projections in [typical(Kind::FeatureService)["features"].clone(), json!([])] {
        let complete = edit_spec(&service(projections), |spec| spec.extend(unknown(1000, "new")));
        let world = World::with([complete.clone()]);
        let placed = complete.with_spec_text(2, PROJECT).expect("well-formed");
        assert_eq!(definition_of(&world.stored(&complete)), definition_of(&placed));
    }
}

#[test]
fn an_incomplete_service_that_was_completed_before_is_unchanged() {
    let incomplete = service(json!([names_only(json!({ "feature_columns": [{ "name": "b" }] }))]));
    let mut world = World::with([trips(Kind::FeatureView), incomplete.clone()]);
    assert!(world.apply(&incomplete).expect("applied").writes.is_empty());
    let mut world = World::with([trips(Kind::FeatureView), incomplete.clone()]);
    let completed = world.stored(&incomplete);
    assert!(world.apply(&completed).expect("applied").writes.is_empty(), "and so is the completed one");
}

#[test]
fn a_service_is_completed_anew_when_its_view_has_changed() {
    let incomplete = service(json!([names_only(json!({}))]));
    let mut world = World::with([view(Kind::FeatureView, "trips", &["a"]), incomplete.clone()]);
    world.apply(&view(Kind::FeatureView, "trips", &["a", "b"])).expect("applied");
    world.apply(&incomplete).expect("applied");
    let stored: FeatureService = world.stored(&incomplete).decode().expect("a service");
    assert_eq!(names(&stored.spec.expect("a spec").features[0]), ["a", "b"]);
}

#[test]
fn a_completed_service_rests_on_the_views_that_it_was_completed_from() {
    let mut world = World::with([trips(Kind::StreamFeatureView)]);
    let trips = world.stored(&trips(Kind::StreamFeatureView));
    let commit = world.apply(&service(json!([names_only(json!({}))]))).expect("applied");
    assert_eq!(expected(&commit, &key_of(&trips)), Some(&Expected::Value(trips.bytes.clone())));
    let other = Key::object(Kind::FeatureView, PROJECT, "trips");
    assert_eq!(expected(&commit, &other), Some(&Expected::Absent), "a view of a kind that comes first");
}

/// The projections of the service, each as bytes.
fn raw_projections(service: &Object) -> Vec<Vec<u8>> {
    let spec = service.spec().expect("well-formed");
    let fields: Vec<_> = wire::fields(&spec).collect::<Result<_>>().expect("well-formed");
    fields.iter().filter(|field| field.number == 3).map(|field| field.content.to_vec()).collect()
}

#[test]
fn fields_that_are_not_known_stay_when_a_service_is_completed() {
    let new = || unknown(1000, "new");
    let incomplete = edit_spec(&service(json!([])), |spec| {
        let mut projection = Vec::new();
        wire::put(&mut projection, 1, b"trips");
        projection.extend(new());
        wire::put(spec, 3, &projection);
        spec.extend(new());
    });
    // In the view: in a feature (4) and in the batch source (7).
    let trips = edit_spec(&view(Kind::FeatureView, "trips", &["a"]), |spec| {
        for number in [4, 7] {
            let content = [wire::content(spec, number).expect("well-formed").expect("present"), &new()].concat();
            *spec = wire::set(spec, number, &content).expect("well-formed");
        }
    });
    let stored = World::with([trips, incomplete.clone()]).stored(&incomplete);
    let projection = raw_projections(&stored).pop().expect("a projection");
    let is_new = |message: &[u8]| wire::content(message, 1000).expect("well-formed") == Some(b"new");
    let inner = |number| wire::content(&projection, number).expect("well-formed").unwrap_or_default();
    check_rows(
        [
            ("of the service", is_new(&stored.spec().expect("well-formed"))),
            ("of the projection", is_new(&projection)),
            ("of the view's feature", is_new(inner(2))),
            ("of the view's source", is_new(inner(8))),
        ],
        |(which, is_kept)| ensure(is_kept, || format!("a field that is not known was lost: {which}")),
    );
}

/// As the rule was before it had an index: every wanted feature against every feature of the view.
fn complete_by_search(
    view: &[core::FeatureSpecV2],
    wanted: &[core::FeatureSpecV2],
) -> Option<Vec<core::FeatureSpecV2>> {
    if wanted.is_empty() {
        return Some(view.to_vec());
    }
    if wanted.iter().all(|feature| view.contains(feature)) {
        return Some(wanted.to_vec());
    }
    wanted.iter().map(|wanted| view.iter().find(|feature| feature.name == wanted.name).cloned()).collect()
}

fn feature() -> impl Strategy<Value = core::FeatureSpecV2> {
    let tags = prop::collection::btree_map("[ab]", "[ab]", 0..2);
    ("[abc]", 1..3_i32, "[x]?", tags).prop_map(|(name, value_type, description, tags)| core::FeatureSpecV2 {
        name,
        value_type,
        description,
        tags,
        ..Default::default()
    })
}

proptest! {
    #[test]
    fn features_are_found_as_by_a_search_from_the_front(
        of_view in prop::collection::vec(feature(), 1..6),
        wanted in prop::collection::vec((feature(), any::<prop::sample::Index>(), any::<bool>()), 0..4),
    ) {
        let wanted: Vec<_> = wanted
            .into_iter()
            .map(|(other, index, is_there)| if is_there { index.get(&of_view).clone() } else { other })
            .collect();
        let view = core::FeatureView {
            spec: Some(core::FeatureViewSpec {
                name: "trips".into(),
                entities: vec!["driver".into()],
                features: of_view.clone(),
                ..Default::default()
            }),
            meta: None,
        };
        // The second projection says nothing of types, so that both are looked up.
        let projection = |feature_columns| FeatureViewProjection {
            feature_view_name: "trips".into(),
            feature_columns,
            ..Default::default()
        };
        let spec = core::FeatureServiceSpec {
            name: "model".into(),
            features: vec![projection(wanted.clone()), projection(Vec::new())],
            ..Default::default()
        };
        let service = Object::encode(&FeatureService { spec: Some(spec), meta: None });
        match (apply_over(&[Object::encode(&view)], &service), complete_by_search(&of_view, &wanted)) {
            (Ok(projections), Some(expected)) => {
                prop_assert_eq!(&projections[0].feature_columns, &expected);
                prop_assert_eq!(&projections[1].feature_columns, &of_view);
            }
            (Err(error), None) => prop_assert_eq!(error.kind(), ErrorKind::InvalidArgument),
            (applied, expected) => prop_assert!(false, "{applied:?} is not {expected:?}"),
        }
    }
}

/// 20,000 features against 20,000 are 400 million comparisons, and 2,000 projections of that view decode it 2,000 times.
#[test]
fn very_many_features_and_projections_cost_their_number() {
    const MANY: usize = 20_000;
    let features: Vec<_> =
        (0..MANY).map(|i| core::FeatureSpecV2 { name: format!("f{i}"), value_type: 2, ..Default::default() }).collect();
    let spec = core::FeatureViewSpec {
        name: "trips".into(),
        entities: vec!["driver".into()],
        features: features.clone(),
        ..Default::default()
    };
    let view = Object::encode(&core::FeatureView { spec: Some(spec), meta: None });
    let projection = |columns: &[core::FeatureSpecV2]| FeatureViewProjection {
        feature_view_name: "trips".into(),
        feature_columns: columns.iter().map(|of| core::FeatureSpecV2 { value_type: 0, ..of.clone() }).collect(),
        ..Default::default()
    };
    let mut projections = vec![projection(&features)];
    projections.extend(features.iter().take(2000).map(|feature| projection(std::slice::from_ref(feature))));
    let spec = core::FeatureServiceSpec { name: "model".into(), features: projections, ..Default::default() };
    let stored =
        apply_over(&[view], &Object::encode(&FeatureService { spec: Some(spec), meta: None })).expect("applied");
    assert_eq!(stored[0].feature_columns, features);
    assert_eq!(stored.len(), 2001);
}

#[test]
fn a_service_that_would_fill_the_memory_is_refused_before_it_does() {
    let description = "d".repeat(1 << 20);
    let spec =
        json!({ "name": "trips", "features": [{ "name": "a", "value_type": "INT64", "description": description }] });
    let many: Json = (0..1000).map(|_| names_only(json!({}))).collect();
    let refused = apply_over(&[object(Kind::FeatureView, spec, json!({}))], &service(many));
    assert_refused(refused, ErrorKind::InvalidArgument, &["`thing`", PROJECT, "134217728 bytes"]);
}
