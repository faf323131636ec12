//! What views have in common: their names, and what of them is their schema.

use super::*;

#[test]
fn a_name_is_taken_by_one_view_of_a_project_whatever_its_kind() {
    let pairs = Kind::VIEWS.iter().copied().flat_map(|one| Kind::VIEWS.iter().copied().map(move |other| (one, other)));
    check_rows(pairs.filter(|(one, other)| one != other), |(first, second)| {
        let mut world = World::with([view(first, "trips", &["a"])]);
        let before = world.dump(&["trips"]);
        let error = world.apply(&view(second, "trips", &["a"])).map(|_| ()).expect_err("the name is taken");
        ensure(error.kind() == ErrorKind::ConflictingFeatureViewNames, || format!("{first}, {second}: {error}"))?;
        for word in ["trips", PROJECT, first.label(), second.label()] {
            ensure(error.to_string().contains(word), || format!("{first}, {second}: no `{word}` in: {error}"))?;
        }
        ensure(world.dump(&["trips"]) == before, || format!("{first}, {second}: something was written"))
    });
}

#[test]
fn a_name_is_free_in_another_project_in_another_case_for_other_kinds_and_when_its_view_is_gone() {
    let mut world = World::with([view(Kind::FeatureView, "trips", &["a"])]);
    let stream = view(Kind::StreamFeatureView, "trips", &["a"]);
    world.run_in("other", &Op::Apply(vec![stream.clone()], ApplyOptions::default())).expect("another project");
    world.apply(&view(Kind::StreamFeatureView, "Trips", &["a"])).expect("another case");
    world.apply(&object(Kind::Entity, json!({ "name": "trips" }), json!({}))).expect("not a view");
    world.run(&Op::DeleteView("trips".to_owned())).expect("deleted");
    world.apply(&stream).expect("the name is free again");
}

/// Of two racing creators the second then decides anew, and is refused.
#[test]
fn a_view_expects_that_no_view_of_another_kind_has_its_name() {
    for &kind in Kind::VIEWS {
        let mut world = World::new();
        let created = world.apply(&view(kind, "trips", &["a"])).expect("applied");
        let changed = world.apply(&view(kind, "trips", &["b"])).expect("applied");
        for (commit, other) in
            [created, changed].iter().flat_map(|commit| Kind::VIEWS.iter().copied().map(move |other| (commit, other)))
        {
            if other != kind {
                let rests_on = expected(commit, &Key::object(other, PROJECT, "trips"));
                assert_eq!(rests_on, Some(&Expected::Absent), "{kind} against {other}");
            }
        }
    }
}

/// A view of each kind with everything in it that a rule about schemas could look at.
fn full(kind: Kind, patch: &Json) -> Object {
    let mut spec = typical(kind);
    if kind == Kind::FeatureView {
        let base = json!({ "name": "base", "features": integers(&["x", "y"]), "batch_source": { "name": "s" } });
        let function = json!({ "user_defined_function": { "body_text": "def f(x): return x" } });
        merge(&mut spec, &json!({ "source_views": [base], "feature_transformation": function }));
    }
    merge(&mut spec, patch);
    encode(kind, &json!({ "spec": spec }))
}

struct Row {
    what: &'static str,
    kind: Kind,
    old: Json,
    new: Json,
    is_new_version: bool,
}

fn row(what: &'static str, kind: Kind, new: Json, is_new_version: bool) -> Row {
    Row { what, kind, old: json!({}), new, is_new_version }
}

/// What Feast 0.67 says of the same pairs (`_schema_or_udf_changed`, asked in Python). One difference is meant: Feast
/// forgets the description and tags of an on demand view's features when it reads them, and so never sees them change.
fn rows() -> Vec<Row> {
    use Kind::{FeatureView, LabelView, OnDemandFeatureView, StreamFeatureView};
    let mut rows = Vec::new();
    let feature = |change: Json| {
        let mut feature = json!({ "name": "a", "value_type": "INT64" });
        merge(&mut feature, &change);
        json!({ "features": [feature, { "name": "b", "value_type": "INT64" }] })
    };
    for &kind in Kind::VIEWS {
        let mut all = |what, new, is_new_version| rows.push(row(what, kind, new, is_new_version));
        all("nothing", json!({}), false);
        all("one feature more", json!({ "features": integers(&["a", "b", "c"]) }), true);
        all("one feature less", json!({ "features": integers(&["a"]) }), true);
        all("a feature's name", feature(json!({ "name": "c" })), true);
        all("a feature's type", feature(json!({ "value_type": "DOUBLE" })), true);
        all("a feature's description", feature(json!({ "description": "d" })), true);
        all("a feature's tags", feature(json!({ "tags": { "pii": "yes" } })), true);
        all("a feature's vector index", feature(json!({ "vector_index": true, "vector_length": 3 })), true);
        all("the order of features", json!({ "features": integers(&["b", "a"]) }), false);
        all("the description", json!({ "description": "d" }), false);
        all("the owner", json!({ "owner": "me" }), false);
        all("the tags", json!({ "tags": { "team": "other" } }), false);
        all("the project", json!({ "project": PROJECT }), false);
        if kind != LabelView {
            all("the entity columns", json!({ "entity_columns": integers(&["driver_id"]) }), true);
            all("the order of entity columns", json!({ "entity_columns": integers(&["driver_id", "car_id"]) }), false);
            all("the organization", json!({ "org": "ads" }), false);
            all("whether it is disabled", json!({ "disabled": true }), false);
            all("the version", json!({ "version": "v3" }), false);
        }
        if matches!(kind, FeatureView | StreamFeatureView) {
            all("the entities", json!({ "entities": ["driver"] }), true);
            all("the order of entities", json!({ "entities": ["car", "driver"] }), false);
            all("the batch source", json!({ "batch_source": { "file_options": { "uri": "other.parquet" } } }), false);
            all("the stream source", json!({ "stream_source": { "name": "other" } }), false);
            all("validation", json!({ "enable_validation": true }), false);
        } else {
            all("the entities", json!({ "entities": ["driver"] }), false);
        }
        if kind != OnDemandFeatureView {
            all("the ttl", json!({ "ttl": "60s" }), false);
            all("whether it is online", json!({ "online": kind != FeatureView }), false);
        }
    }
    rows.extend(label_rows());
    rows.extend(feature_view_rows());
    rows.extend(stream_rows());
    rows.extend(on_demand_rows());
    rows
}

fn label_rows() -> Vec<Row> {
    let label = |what, new| row(what, Kind::LabelView, new, false);
    vec![
        label("the entity columns", json!({ "entity_columns": integers(&["driver_id"]) })),
        label("the source", json!({ "source": { "file_options": { "uri": "other.parquet" } } })),
        label("the labeler field", json!({ "labeler_field": "who" })),
        label("the conflict policy", json!({ "conflict_policy": "MAJORITY_VOTE" })),
        label("the view it is about", json!({ "reference_feature_view": "trips" })),
    ]
}

fn feature_view_rows() -> Vec<Row> {
    let base = |change: Json| {
        let mut base = json!({ "name": "base", "features": integers(&["x", "y"]), "batch_source": { "name": "s" } });
        merge(&mut base, &change);
        json!({ "source_views": [base] })
    };
    let batch = |what, new, is_new_version| row(what, Kind::FeatureView, new, is_new_version);
    let seen = json!({ "batch_source": { "meta": { "created_timestamp": "2001-01-01T00:00:00Z" } } });
    vec![
        batch("the mode", json!({ "mode": "python" }), false),
        batch("whether it is offline", json!({ "offline": true }), false),
        batch("the transformation", json!({ "feature_transformation": null }), false),
        batch("one view less to derive from", json!({ "source_views": [] }), true),
        batch("a feature of a view to derive from", base(json!({ "features": integers(&["x"]) })), true),
        batch("the description of a view to derive from", base(json!({ "description": "d" })), true),
        batch("when the source of a view to derive from was made", base(seen), false),
        batch("a ttl of zero for none of a view to derive from", base(json!({ "ttl": "0s" })), false),
        batch("the project of a view to derive from", base(json!({ "project": PROJECT })), false),
        batch(
            "the order of features of a view to derive from",
            base(json!({ "features": integers(&["y", "x"]) })),
            false,
        ),
    ]
}

fn stream_rows() -> Vec<Row> {
    let stream = |what, new, is_new_version| row(what, Kind::StreamFeatureView, new, is_new_version);
    let udf = |change: Json| json!({ "user_defined_function": change });
    let unsourced = |body: &str| json!({ "user_defined_function": { "body_text": "", "body": body } });
    let aggregation = |change: Json| {
        let mut of = json!({ "column": "a", "function": "sum", "time_window": "60s", "slide_interval": "60s" });
        merge(&mut of, &change);
        json!({ "aggregations": [of] })
    };
    vec![
        stream("the source of the function", udf(json!({ "body_text": "def f(x): return 2 * x" })), true),
        stream("the name of the function", udf(json!({ "name": "g" })), false),
        stream("the pickled bytes of a function with a source", udf(json!({ "body": "BAUG" })), false),
        stream("no function", json!({ "user_defined_function": null }), true),
        stream("the mode", json!({ "mode": "pandas" }), true),
        stream("the timestamp field", json!({ "timestamp_field": "then" }), true),
        stream("the function of an aggregation", aggregation(json!({ "function": "max" })), true),
        stream("the window of an aggregation", aggregation(json!({ "time_window": "90s" })), true),
        stream("no aggregation", json!({ "aggregations": [] }), true),
        stream("tiling", json!({ "enable_tiling": true, "tiling_hop_size": "5s" }), false),
        Row { old: unsourced("AQID"), ..stream("the bytes of a function without a source", unsourced("BAUG"), true) },
    ]
}

fn on_demand_rows() -> Vec<Row> {
    let on_demand = |what, new, is_new_version| row(what, Kind::OnDemandFeatureView, new, is_new_version);
    let udf = |change: Json| json!({ "feature_transformation": { "user_defined_function": change } });
    let unsourced = |body: &str| udf(json!({ "body_text": "", "body": body }));
    let substrait = |plan: &str| {
        let plan = json!({ "substrait_plan": plan, "ibis_function": "AQID" });
        json!({ "feature_transformation": { "user_defined_function": null, "substrait_transformation": plan } })
    };
    let projection = |change: Json| json!({ "sources": { "trips": { "feature_view_projection": change } } });
    let seen = json!({ "batch_source": { "meta": { "created_timestamp": "2001-01-01T00:00:00Z" } } });
    // Old Feasts wrote the function to a field of its own, some of them without a mode, and some to both fields, the
    // source to the old one only. 0.67 reads each as the same view (`_handle_backward_compatible_udf`).
    let old = |source: &str| {
        let function = json!({ "name": "f", "body": "AQID", "body_text": source });
        json!({ "feature_transformation": null, "user_defined_function": function })
    };
    let (source, other) = ("def f(x): return x", "def f(x): return 2 * x");
    let mut old_without_mode = old(source);
    old_without_mode["mode"] = Json::Null;
    let both = |source: &str| {
        let mut both = old(source);
        both["feature_transformation"] = json!({ "user_defined_function": { "body_text": "" } });
        both
    };
    vec![
        on_demand("the source of the function", udf(json!({ "body_text": other })), true),
        on_demand("the name of the function", udf(json!({ "name": "g" })), false),
        on_demand("the pickled bytes of a function with a source", udf(json!({ "body": "BAUG" })), false),
        on_demand("a plan for a function", substrait("AQID"), true),
        on_demand("no function", json!({ "feature_transformation": null }), true),
        on_demand("the mode", json!({ "mode": "python" }), true),
        on_demand("aggregations", json!({ "aggregations": [{ "column": "a", "function": "sum" }] }), true),
        on_demand(
            "the features that it is computed from",
            projection(json!({ "feature_columns": integers(&["z"]) })),
            true,
        ),
        on_demand("the alias of what it is computed from", projection(json!({ "feature_view_name_alias": "z" })), true),
        on_demand("one source less", json!({ "sources": { "now": null } }), true),
        on_demand(
            "the request that it is computed from",
            json!({ "sources": { "now": { "request_data_source": { "owner": "me" } } } }),
            true,
        ),
        on_demand("when the source of its source was made", projection(seen), false),
        on_demand(
            "the project of the source of its source",
            projection(json!({ "batch_source": { "project": PROJECT } })),
            false,
        ),
        on_demand("whether it is written to the online store", json!({ "write_to_online_store": true }), false),
        on_demand("whether it is computed for one row at a time", json!({ "singleton": true }), false),
        Row { old: substrait("AQID"), ..on_demand("the plan", substrait("BAUG"), true) },
        Row {
            old: unsourced("AQID"),
            ..on_demand("the bytes of a function without a source", unsourced("BAUG"), true)
        },
        Row { old: old(source), ..on_demand("nothing, written by an old Feast", old(source), false) },
        Row { old: old(source), ..on_demand("the source, written by an old Feast", old(other), true) },
        Row { old: old(source), ..on_demand("who wrote it, an old Feast before", json!({}), false) },
        Row { old: both(source), ..on_demand("the source, written to the old field only", both(other), true) },
        Row { old: both(source), ..on_demand("where the source is written", json!({}), false) },
        Row { old: old_without_mode, ..on_demand("who wrote it, an even older Feast before", json!({}), false) },
    ]
}

#[test]
fn the_schema_of_a_view_is_what_feast_takes_for_it() {
    check_rows(rows(), |Row { what, kind, old, new, is_new_version }| {
        let (old, new) = (full(kind, &old), full(kind, &new));
        for (old, new, way) in [(&old, &new, "there"), (&new, &old, "back")] {
            let changed = definition::schema_changed(old, new).expect("well-formed");
            ensure(changed == is_new_version, || format!("{kind}: {what}, {way}: a new version: {changed}"))?;
        }
        Ok(())
    });
}

#[test]
fn a_view_has_as_many_versions_as_its_schema_changed() {
    check_rows(rows(), |Row { what, kind, old, new, is_new_version }| {
        if new.get("version").is_some() {
            return Ok(()); // That asks for a version.
        }
        let mut world = World::with([full(kind, &old)]);
        world.apply(&full(kind, &new)).map_err(|error| format!("{kind}: {what}: {error}"))?;
        let versions = world.version_numbers("thing");
        let expected = if is_new_version { &[0, 1][..] } else { &[0] };
        ensure(versions == expected, || format!("{kind}: {what}: the versions are {versions:?}"))
    });
}
