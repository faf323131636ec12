//! Create or replace; what is unchanged writes nothing.

use super::*;

/// A change of a typical object's definition, for each kind.
fn change(kind: Kind) -> Json {
    match kind {
        Kind::Infra => json!({ "infra_objects": [] }),
        _ => json!({ "tags": { "changed": "yes" } }),
    }
}

fn kinds_with_meta() -> impl Iterator<Item = Kind> {
    Kind::ALL.iter().copied().filter(|kind| kind.layout().meta.is_some())
}

#[test]
fn a_new_object_is_stored_as_it_is_and_with_its_project() {
    check_rows(Kind::ALL.iter().copied(), |kind| {
        let mut world = World::new();
        let commit = world.apply(&thing(kind)).map_err(|error| format!("{kind}: {error}"))?;
        let stored = world.stored(&thing(kind));
        let placed = match kind.layout().project {
            Some(field) => thing(kind).with_spec_text(field, PROJECT).expect("well-formed"),
            None => thing(kind),
        };
        ensure(definition_of(&stored) == definition_of(&placed), || format!("{kind}: its definition has changed"))?;
        let put = commit.writes.iter().find_map(|write| match write {
            Write::Put(record) if record.key == key_of(&thing(kind)) => Some(record.updated),
            _ => None,
        });
        ensure(put == Some(world.last().seconds), || format!("{kind}: its record was updated at {put:?}"))
    });
}

#[test]
fn a_project_that_the_message_names_otherwise_is_replaced_by_the_one_it_is_applied_to() {
    check_rows(Kind::ALL.iter().copied().filter(|kind| kind.layout().project.is_some()), |kind| {
        let elsewhere = object(kind, json!({ "project": "elsewhere" }), json!({}));
        let stored = World::with([elsewhere.clone()]).stored(&elsewhere).project().expect("well-formed");
        ensure(stored == PROJECT, || format!("{kind}: {stored}"))
    });
}

#[test]
fn a_new_object_was_made_and_last_updated_when_it_was_applied_whatever_the_client_says() {
    let said = json!({ "created_timestamp": "2001-01-01T00:00:00Z", "last_updated_timestamp": "2001-01-02T00:00:00Z" });
    check_rows(kinds_with_meta(), |kind| {
        let world = World::with([object(kind, json!({}), said.clone())]);
        let stored = world.stored(&thing(kind));
        let times = (stored.created_timestamp().expect("a time"), stored.last_updated_timestamp().expect("a time"));
        ensure(times == (Some(world.last()), Some(world.last())), || format!("{kind}: {times:?}"))
    });
}

#[test]
fn a_changed_object_is_replaced_and_keeps_when_it_was_made() {
    let said = json!({ "created_timestamp": "2001-01-01T00:00:00Z", "last_updated_timestamp": "2001-01-02T00:00:00Z" });
    check_rows(kinds_with_meta(), |kind| {
        let mut world = World::with([thing(kind)]);
        let made = world.last();
        let changed = object(kind, change(kind), said.clone());
        world.apply(&changed).map_err(|error| format!("{kind}: {error}"))?;
        let stored = world.stored(&changed);
        let times = (stored.created_timestamp().expect("a time"), stored.last_updated_timestamp().expect("a time"));
        ensure(times == (Some(made), Some(world.last())), || format!("{kind}: {times:?}"))?;
        let is_same = definition::is_same(&stored, &changed, Closeness::Exact).expect("well-formed");
        ensure(is_same, || format!("{kind}: the stored definition is not the one that was applied"))
    });
}

/// Fault: a clock that was set back had objects last updated before they were made.
#[test]
fn a_clock_that_is_set_back_updates_nothing_before_it_was_made_or_last_updated() {
    check_rows(kinds_with_meta(), |kind| {
        let mut world = World::with([thing(kind)]);
        let made = world.last();
        world.now.seconds -= 3600;
        let changed = object(kind, change(kind), json!({}));
        world.apply(&changed).map_err(|error| format!("{kind}: {error}"))?;
        let times = |world: &World| {
            let stored = world.stored(&changed);
            (stored.created_timestamp().expect("a time"), stored.last_updated_timestamp().expect("a time"))
        };
        ensure(times(&world) == (Some(made), Some(made)), || format!("{kind}: {:?}", times(&world)))?;
        world.now.seconds += 7200;
        world.apply(&thing(kind)).map_err(|error| format!("{kind}: {error}"))?;
        let (updated, updated_at) = (times(&world), world.last());
        ensure(updated == (Some(made), Some(updated_at)), || format!("{kind}: {updated:?}"))?;
        world.now.seconds -= 60;
        world.apply(&changed).map_err(|error| format!("{kind}: {error}"))?;
        ensure(times(&world) == updated, || format!("{kind}: {:?} after {updated:?}", times(&world)))
    });
}

/// What another program has stored there must not stay for good.
#[test]
fn what_is_no_moment_is_not_kept_as_the_last_update() {
    let mut world = World::new();
    let impossible = Timestamp { seconds: i64::MAX, nanos: -7 };
    let mut meta = meta_of(&thing(Kind::Entity));
    meta.last_updated_timestamp = Some(impossible.encode_to_vec());
    world.plant_object(&meta.put_into(&thing(Kind::Entity)).expect("well-formed"));
    let changed = object(Kind::Entity, change(Kind::Entity), json!({}));
    world.apply(&changed).expect("applied");
    assert_eq!(world.stored(&changed).last_updated_timestamp().expect("a time"), Some(world.last()));
}

#[test]
fn what_was_there_before_created_timestamps_keeps_the_one_that_a_client_sends() {
    let mut world = World::new();
    world.plant_object(&thing(Kind::Entity));
    let said = json!({ "created_timestamp": "2001-01-01T00:00:00Z" });
    world.apply(&object(Kind::Entity, json!({}), said)).expect("applied");
    let made = world.stored(&thing(Kind::Entity)).created_timestamp().expect("a time");
    assert_eq!(made.map(|made| made.seconds), Some(978_307_200));
}

#[test]
fn an_object_without_a_meta_is_replaced_as_well() {
    for kind in [Kind::ValidationReference, Kind::Infra] {
        let mut world = World::with([thing(kind)]);
        let changed = object(kind, change(kind), json!({}));
        world.apply(&changed).expect("applied");
        assert!(
            definition::is_same(&world.stored(&changed), &changed, Closeness::Exact).expect("well-formed"),
            "{kind}"
        );
    }
}

#[test]
fn an_unchanged_object_writes_nothing() {
    check_rows(Kind::ALL.iter().copied(), |kind| {
        let mut world = World::with([thing(kind)]);
        let commit = world.apply(&thing(kind)).map_err(|error| format!("{kind}: {error}"))?;
        ensure(commit.writes.is_empty(), || format!("{kind}: {:?}", written(&commit)))
    });
}

/// What is stored, and what is applied.
type Pair = (&'static str, Object, Object);

fn spec_pair(what: &'static str, kind: Kind, stored: Json, applied: Json) -> Pair {
    (what, object(kind, stored, json!({})), object(kind, applied, json!({})))
}

fn meta_pair(what: &'static str, kind: Kind, stored: Json, applied: Json) -> Pair {
    (what, object(kind, json!({}), stored), object(kind, json!({}), applied))
}

/// A data source as a client has it inside a view, with the timestamps that it had when the client last saw it.
fn seen_source(seconds: &str) -> Json {
    let meta = json!({ "created_timestamp": seconds, "last_updated_timestamp": seconds });
    json!({ "name": "trips", "type": "BATCH_FILE", "file_options": { "uri": "trips.parquet" }, "meta": meta })
}

/// Where a source is embedded, by kind.
fn embedded(kind: Kind, source: Json) -> Json {
    let projection =
        json!({ "feature_view_name": "trips", "feature_columns": integers(&["a"]), "batch_source": source });
    match kind {
        Kind::LabelView => json!({ "source": source }),
        Kind::OnDemandFeatureView => json!({ "sources": { "trips": { "feature_view_projection": projection } } }),
        Kind::FeatureService => json!({ "features": [projection] }),
        _ => json!({ "batch_source": source }),
    }
}

fn derived(source_view: Json) -> Json {
    let source = seen_source("2001-01-01T00:00:00Z");
    let mut of = json!({ "name": "base", "features": integers(&["x", "y"]), "batch_source": source });
    merge(&mut of, &source_view);
    json!({ "source_views": [of] })
}

fn same_in_other_words() -> Vec<Pair> {
    use Kind::{
        FeatureService, FeatureView, LabelView, OnDemandFeatureView, Permission, SavedDataset, StreamFeatureView,
    };
    let mut rows = Vec::new();
    let reversed = json!({ "entities": ["car", "driver"], "entity_columns": integers(&["driver_id", "car_id"]) });
    let (one, two) = ("2001-01-01T00:00:00Z", "2002-02-02T00:00:00.5Z");
    for &kind in Kind::VIEWS {
        rows.push(spec_pair("entities in another order", kind, json!({}), reversed.clone()));
    }
    for kind in [FeatureView, StreamFeatureView, LabelView] {
        rows.push(spec_pair("no ttl for a ttl of zero", kind, json!({ "ttl": "0s" }), json!({ "ttl": null })));
        rows.push(spec_pair("a ttl of zero for no ttl", kind, json!({ "ttl": null }), json!({ "ttl": "0s" })));
    }
    for kind in [FeatureView, StreamFeatureView, OnDemandFeatureView] {
        for (stored, applied) in
            [("", "latest"), ("latest", ""), ("LATEST", "latest"), ("v2", "version2"), ("v2", "V02")]
        {
            let version = |version: &str| json!({ "version": version });
            rows.push(spec_pair("a version in other words", kind, version(stored), version(applied)));
        }
        rows.push(meta_pair(
            "the version number that the client last saw",
            kind,
            json!({ "current_version_number": 0 }),
            json!({ "current_version_number": 7 }),
        ));
        rows.push(meta_pair("no state", kind, json!({ "state": "GENERATED" }), json!({})));
    }
    for kind in [FeatureView, StreamFeatureView, LabelView, OnDemandFeatureView, FeatureService] {
        for (stored, applied) in [(seen_source(one), seen_source(two)), (seen_source(one), json!({ "meta": null }))] {
            let mut source = seen_source(one);
            merge(&mut source, &applied);
            let what = "an embedded source as it was at another time";
            rows.push(spec_pair(what, kind, embedded(kind, stored), embedded(kind, source)));
        }
    }
    for (what, patch) in [
        ("the source of an embedded view as it was at another time", json!({ "batch_source": seen_source(two) })),
        ("an embedded view with a ttl of zero for none", json!({ "ttl": "0s" })),
        ("an embedded view with its project", json!({ "project": PROJECT })),
    ] {
        rows.push(spec_pair(what, FeatureView, derived(json!({})), derived(patch)));
    }
    let types = json!({ "types": ["ENTITY", "FEATURE_VIEW", "ENTITY"] });
    rows.push(spec_pair("types in another order and twice", Permission, json!({}), types));
    let columns = json!({ "features": ["cars:c", "trips:a"], "join_keys": ["car_id", "driver_id"] });
    rows.push(spec_pair("columns in another order", SavedDataset, json!({}), columns));
    let projections = |names: [&str; 2]| {
        let projection = |name| json!({ "feature_view_name": name, "feature_columns": integers(&["a"]) });
        json!({ "features": names.map(projection) })
    };
    let (there, back) = (projections(["trips", "cars"]), projections(["cars", "trips"]));
    rows.push(spec_pair("projections in another order", FeatureService, there, back));
    for kind in Kind::ALL.iter().copied().filter(|kind| kind.layout().tags.is_some()) {
        let tags = object(kind, json!({ "tags": { "a": "1", "b": "2", "c": "3" } }), json!({}));
        let reversed = edit_spec(&tags, |spec| {
            *spec = reorder(spec, |fields| {
                let is_tag = |field: &wire::Field<'_>| Some(field.number) == kind.layout().tags;
                fields.sort_by_key(|field| !is_tag(field));
                let count = fields.iter().filter(|field| is_tag(field)).count();
                fields[..count].reverse();
            });
        });
        rows.push(("tags in another order, before all other fields", tags, reversed));
    }
    rows
}

#[test]
fn what_says_the_same_in_other_words_writes_nothing() {
    check_rows(same_in_other_words(), |(what, stored, applied)| {
        let mut world = World::with([stored]);
        let commit = world.apply(&applied).map_err(|error| format!("{applied:?}: {what}: {error}"))?;
        ensure(commit.writes.is_empty(), || format!("{applied:?}: {what}: writes {:?}", written(&commit)))
    });
}

#[test]
fn an_object_without_its_project_as_feasts_sql_registry_writes_them_is_unchanged() {
    check_rows(Kind::ALL.iter().copied().filter(|kind| kind.layout().project.is_some()), |kind| {
        let mut world = World::with([thing(kind)]);
        let stored = world.stored(&thing(kind));
        let without = stored.with_spec_text(kind.layout().project.unwrap_or_default(), "").expect("well-formed");
        world.plant_object(&without);
        let commit = world.apply(&thing(kind)).map_err(|error| format!("{kind}: {error}"))?;
        ensure(commit.writes.is_empty(), || format!("{kind}: {:?}", written(&commit)))
    });
}

/// Fields of newer Feasts, in whatever order the bytes have them, are no reason to write again and again.
#[test]
fn meta_fields_that_are_not_known_are_unchanged_in_any_order() {
    let newer = |numbers: &[u32]| {
        edit_meta(&thing(Kind::Entity), |meta| numbers.iter().for_each(|number| meta.extend(unknown(*number, "new"))))
    };
    check_rows(
        [
            ("both, in falling order", newer(&[1000, 1001]), newer(&[1001, 1000])),
            ("both, stored in falling order", newer(&[1001, 1000]), newer(&[1000, 1001])),
            ("the second only", newer(&[1000, 1001]), newer(&[1001])),
            ("the first only", newer(&[1000, 1001]), newer(&[1000])),
            ("none of them", newer(&[1000, 1001]), newer(&[])),
        ],
        |(what, stored, applied)| {
            let mut world = World::with([stored]);
            let commit = world.apply(&applied).expect("applied");
            ensure(commit.writes.is_empty(), || format!("{what}: {:?}", written(&commit)))
        },
    );
}

/// What is known is the client's to say, as in Feast; only what is not known may be meant by another client.
#[test]
fn meta_fields_of_the_client_are_replaced_also_by_none() {
    let moment = "2001-01-01T00:00:00Z";
    check_rows(
        [
            (Kind::SavedDataset, json!({ "min_event_timestamp": moment, "max_event_timestamp": moment })),
            (Kind::DataSource, json!({ "earliestEventTimestamp": moment, "latestEventTimestamp": moment })),
            (Kind::FeatureView, json!({ "version_id": "some" })),
            (Kind::StreamFeatureView, json!({ "version_id": "some" })),
            (Kind::OnDemandFeatureView, json!({ "version_id": "some" })),
        ],
        |(kind, meta)| {
            let said = object(kind, json!({}), meta);
            let mut world = World::with([said.clone()]);
            let before = meta_of(&world.stored(&said));
            world.apply(&thing(kind)).map_err(|error| format!("{kind}: {error}"))?;
            let unsaid = meta_of(&world.stored(&said));
            ensure(unsaid != before, || format!("{kind}: it is still there"))?;
            world.apply(&said).map_err(|error| format!("{kind}: {error}"))?;
            let mut again = meta_of(&world.stored(&said));
            again.last_updated_timestamp = before.last_updated_timestamp.clone();
            ensure(again == before, || format!("{kind}: {again:?} after {before:?}"))
        },
    );
}

fn changes() -> Vec<Pair> {
    use Kind::{DataSource, Entity, FeatureService, FeatureView, OnDemandFeatureView, Permission, StreamFeatureView};
    let spec = |what, kind, applied| spec_pair(what, kind, json!({}), applied);
    let function = json!({ "user_defined_function": { "body": "BAUG" } });
    let columns =
        |names: &[&str]| json!({ "features": [{ "feature_view_name": "trips", "feature_columns": integers(names) }] });
    let mut rows = vec![
        spec("the features", FeatureView, json!({ "features": integers(&["a", "b", "c"]) })),
        spec("the features", OnDemandFeatureView, json!({ "features": integers(&["a", "b", "c"]) })),
        spec("the entities", FeatureView, json!({ "entities": ["driver"] })),
        spec(
            "a feature's description",
            OnDemandFeatureView,
            json!({ "features": [{ "name": "a", "description": "d" }] }),
        ),
        spec("the ttl", FeatureView, json!({ "ttl": "60s" })),
        spec("whether it is online", FeatureView, json!({ "online": null })),
        spec("the source", FeatureView, json!({ "batch_source": { "file_options": { "uri": "other.parquet" } } })),
        spec("the source's owner", FeatureView, json!({ "batch_source": { "owner": "me" } })),
        spec("the version", FeatureView, json!({ "version": "v3" })),
        spec(
            "the bytes of a function with the same source",
            OnDemandFeatureView,
            json!({ "feature_transformation": function }),
        ),
        spec("the bytes of a function with the same source", StreamFeatureView, function.clone()),
        spec("the file", DataSource, json!({ "file_options": { "uri": "other.parquet" } })),
        spec("the join key", Entity, json!({ "join_key": "other_id" })),
        spec("the actions", Permission, json!({ "actions": ["DESCRIBE", "UPDATE"] })),
        spec("the sample rate", FeatureService, json!({ "logging_config": { "sample_rate": 0.5 } })),
        spec("the order of features", FeatureView, json!({ "features": integers(&["b", "a"]) })),
        spec_pair("the order of features in a projection", FeatureService, columns(&["a", "b"]), columns(&["b", "a"])),
        meta_pair(
            "the state",
            FeatureView,
            json!({ "state": "AVAILABLE_ONLINE" }),
            json!({ "state": "MATERIALIZING" }),
        ),
        meta_pair("the state", OnDemandFeatureView, json!({ "state": "GENERATED" }), json!({ "state": "CREATED" })),
    ];
    for kind in [FeatureView, StreamFeatureView, OnDemandFeatureView] {
        rows.push(spec("that it is disabled", kind, json!({ "disabled": true })));
    }
    for kind in Kind::ALL.iter().copied().filter(|kind| kind.layout().tags.is_some()) {
        rows.push(spec("the tags", kind, json!({ "tags": { "team": "other" } })));
    }
    for &kind in Kind::ALL {
        let with = |value| edit_spec(&thing(kind), |spec| spec.extend(unknown(1000, value)));
        rows.push(("the value of an unknown field", with("one"), with("two")));
        rows.push(("a new unknown field", thing(kind), with("one")));
        rows.push(("an unknown field that is gone", with("one"), thing(kind)));
        if kind.layout().meta.is_some() {
            let with = |value| edit_meta(&thing(kind), |meta| meta.extend(unknown(1000, value)));
            rows.push(("the value of an unknown field of the meta", with("one"), with("two")));
        }
    }
    rows
}

#[test]
fn a_change_is_written() {
    check_rows(changes(), |(what, stored, applied)| {
        let mut world = World::with([stored]);
        let before = world.stored(&applied);
        let commit = world.apply(&applied).map_err(|error| format!("{applied:?}: {what}: {error}"))?;
        ensure(written(&commit).contains(&&key_of(&applied)), || format!("{applied:?}: {what}: is not written"))?;
        let after = world.stored(&applied);
        let is_same = definition::is_same(&after, &applied, Closeness::Exact).expect("well-formed");
        ensure(is_same, || format!("{applied:?}: {what}: is not what is stored"))?;
        ensure(after.created_timestamp().ok() == before.created_timestamp().ok(), || {
            format!("{applied:?}: {what}: when it was made has changed")
        })
    });
}

#[test]
fn what_is_applied_expects_what_it_was_decided_from() {
    check_rows(Kind::ALL.iter().copied(), |kind| {
        let mut world = World::new();
        let commit = world.apply(&thing(kind)).expect("applied");
        let is_new = expected(&commit, &key_of(&thing(kind))) == Some(&Expected::Absent);
        ensure(is_new, || format!("{kind}: a new one should expect that there is none"))?;
        let before = world.stored(&thing(kind)).bytes;
        let commit = world.apply(&object(kind, change(kind), json!({}))).expect("applied");
        let rests_on = expected(&commit, &key_of(&thing(kind)));
        ensure(rests_on == Some(&Expected::Value(before)), || format!("{kind}: a changed one expects {rests_on:?}"))
    });
}

#[test]
fn later_objects_of_one_apply_see_earlier_ones() {
    let mut world = World::new();
    let (first, second) = (view(Kind::FeatureView, "trips", &["a"]), view(Kind::FeatureView, "trips", &["a", "b"]));
    let service = object(Kind::FeatureService, json!({ "features": [{ "feature_view_name": "trips" }] }), json!({}));
    world.apply_all(&[thing(Kind::Project), first, second.clone(), service.clone(), second.clone()]).expect("applied");
    assert_eq!(world.version_numbers("trips"), [0, 1], "the schema changed once within the apply");
    let service: crate::proto::core::FeatureService = world.stored(&service).decode().expect("a service");
    assert_eq!(service.spec.expect("a spec").features[0].feature_columns.len(), 2, "those of the second view");
    assert!(world.apply_all(&[second]).expect("applied").writes.is_empty());
}

#[test]
fn one_apply_of_two_views_of_one_name_is_refused() {
    let mut world = World::new();
    let views = [view(Kind::FeatureView, "trips", &["a"]), view(Kind::LabelView, "trips", &["a"])];
    assert_refused(world.apply_all(&views), ErrorKind::ConflictingFeatureViewNames, &["trips"]);
    assert!(world.dump(&["trips"]).is_empty(), "all of an apply or nothing");
}
