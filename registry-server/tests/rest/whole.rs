//! Whole objects: what is read can be changed and put back, for each kind, and is not changed by being put back.

use std::collections::BTreeMap;

use feast_registry_core::proto::core::data_source::{FileOptions, KafkaOptions, Options, SourceType};
use feast_registry_core::proto::core::permission_spec::AuthzedAction;
use feast_registry_core::proto::core::policy::PolicyType;
use feast_registry_core::proto::core::saved_dataset_storage::Kind as Storage;
use feast_registry_core::proto::core::{
    DataSource, FeatureService, FeatureSpecV2, FeatureViewProjection, LabelView, OnDemandFeatureView, Permission,
    Policy, Project, RoleBasedPolicy, SavedDataset, SavedDatasetStorage, StreamFeatureView,
};
use feast_registry_core::{Kind, Object, Timestamp, wire};
use serde_json::{Value, json};

use crate::server::{Server, entity, source, start, view};

fn tags() -> BTreeMap<String, String> {
    (0..6).map(|number| (format!("tag {number}"), format!("\"{number}\" 運転手"))).collect()
}

fn features(names: &[&str]) -> Vec<FeatureSpecV2> {
    let feature =
        |name: &&str| FeatureSpecV2 { name: (*name).to_owned(), value_type: 4, tags: tags(), ..Default::default() };
    names.iter().map(feature).collect()
}

/// One object of each kind, with much in it, and where it is.
fn objects() -> Vec<(&'static str, Object)> {
    let kafka = KafkaOptions { kafka_bootstrap_servers: "k:9092".into(), topic: "trips".into(), ..Default::default() };
    let stream_source = DataSource {
        name: "stream_source".into(),
        r#type: SourceType::StreamKafka.into(),
        options: Some(Options::KafkaOptions(kafka)),
        batch_source: Some(Box::new(source("stream_batch"))),
        tags: tags(),
        field_mapping: tags(),
        ..Default::default()
    };
    let mut stream = StreamFeatureView::default();
    let spec = stream.spec.get_or_insert_default();
    (spec.name, spec.entities, spec.features) = ("stream".into(), vec!["driver".into()], features(&["x", "y"]));
    (spec.stream_source, spec.tags) = (Some(stream_source.clone()), tags());
    spec.ttl = Some(prost_types::Duration { seconds: 86_400, nanos: 5_000_000 });
    let mut demand = OnDemandFeatureView::default();
    let spec = demand.spec.get_or_insert_default();
    (spec.name, spec.features, spec.tags) = ("demand".into(), features(&["x"]), tags());
    let mut label = LabelView::default();
    let spec = label.spec.get_or_insert_default();
    (spec.name, spec.entities, spec.features) = ("label".into(), vec!["driver".into()], features(&["x"]));
    let mut service = FeatureService::default();
    let spec = service.spec.get_or_insert_default();
    (spec.name, spec.tags) = ("service".into(), tags());
    spec.features = vec![FeatureViewProjection { feature_view_name: "stats".into(), ..Default::default() }];
    let mut dataset = SavedDataset::default();
    let spec = dataset.spec.get_or_insert_default();
    (spec.name, spec.tags, spec.features) = ("past".into(), tags(), vec!["stats:x".into()]);
    let file = Storage::FileStorage(FileOptions { uri: "file:///past".into(), ..Default::default() });
    spec.storage = Some(SavedDatasetStorage { kind: Some(file) });
    let mut permission = Permission::default();
    let spec = permission.spec.get_or_insert_default();
    (spec.name, spec.tags, spec.actions) = ("readers".into(), tags(), vec![AuthzedAction::Describe.into()]);
    let policy = PolicyType::RoleBasedPolicy(RoleBasedPolicy { roles: vec!["reader".into()] });
    spec.policy = Some(Policy { policy_type: Some(policy), ..Default::default() });
    let mut project = Project::default();
    let spec = project.spec.get_or_insert_default();
    (spec.name, spec.tags, spec.description) = ("rides".into(), tags(), "all \"rides\"".into());
    vec![
        ("/projects/rides", Object::encode(&project)),
        ("/entities/driver", entity("driver", "who drives")),
        ("/data_sources/stream_source", Object::encode(&stream_source)),
        ("/feature_views/stats", view("stats", "driver", &["x", "y"])),
        ("/feature_views/stream", Object::encode(&stream)),
        ("/feature_views/demand", Object::encode(&demand)),
        ("/feature_views/label", Object::encode(&label)),
        ("/feature_services/service", Object::encode(&service)),
        ("/saved_datasets/past", Object::encode(&dataset)),
        ("/permissions/readers", Object::encode(&permission)),
    ]
}

async fn filled() -> Server {
    let server = start().await;
    server.apply("rides", Object::encode(&source("stats_source"))).await;
    for (_, object) in objects() {
        server.apply("rides", object).await;
    }
    let (start, end) = (Timestamp { seconds: 1, nanos: 500 }, Timestamp { seconds: 2, nanos: 0 });
    server.registry.apply_materialization("rides", "stats", Some(start), Some(end)).await.expect("it is recorded");
    server
}

fn of_project(path: &str) -> String {
    if path.starts_with("/projects") {
        path.to_owned()
    } else {
        format!("{path}?project=rides&include_relationships=true")
    }
}

/// Where its tags are, and nothing else.
fn tags_of<'a>(kind: Kind, object: &'a mut Value) -> &'a mut Value {
    if kind == Kind::DataSource { &mut object["tags"] } else { &mut object["spec"]["tags"] }
}

#[tokio::test]
async fn what_is_put_back_as_it_was_read_changes_nothing() {
    let server = filled().await;
    for (path, object) in objects() {
        let path = of_project(path);
        let read = server.get(&path).await;
        let commits = server.commits().await;
        let stored = server.stored(object.kind, &object.name().expect("a name")).await;
        let reply = server.ask("PUT", &path).header("if-match", read.tag()).json(&read.json()).send().await;
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
        assert_eq!(
            (server.commits().await, reply.header("x-registry-revision")),
            (commits, ""),
            "{path}: {}",
            read.json()
        );
        assert_eq!(server.get(&path).await.tag(), read.tag());
        assert_eq!(server.stored(object.kind, &object.name().expect("a name")).await, stored);
        let dry = server
            .put(&format!("{path}{}dry_run=true", if path.contains('?') { '&' } else { '?' }), &read.json())
            .await;
        assert_eq!(dry.json()["changed"], json!(false), "{path}");
    }
}

#[tokio::test]
async fn what_is_changed_in_what_was_read_is_changed_and_nothing_else() {
    let server = filled().await;
    for (path, object) in objects() {
        let path = of_project(path);
        let read = server.get(&path).await;
        let mut changed = read.json();
        *tags_of(object.kind, &mut changed) = json!({"tag": "changed"});
        let put = |tag: &str, body: &Value| server.ask("PUT", &path).header("if-match", tag).json(body);
        let reply = put(&read.tag(), &changed).send().await;
        assert_eq!((reply.status, reply.header("x-registry-revision").is_empty()), (200, false), "{path}: {reply:?}");
        put(&read.tag(), &read.json()).send().await.assert_error(412, "PreconditionFailed");
        let mut now = server.get(&path).await.json();
        for part in [&mut now, &mut changed] {
            if let Some(meta) = part["meta"].as_object_mut() {
                meta.remove("lastUpdatedTimestamp");
            }
            // It is Python code that has the tags in it.
            part.as_object_mut().expect("an object").remove("featureDefinition");
        }
        assert_eq!(now, changed, "{path}");
    }
}

#[tokio::test]
async fn what_is_not_of_the_kind_or_of_another_name_is_refused() {
    let server = filled().await;
    let commits = server.commits().await;
    for (path, object) in objects() {
        let path = of_project(path);
        let mut unknown = server.get(&path).await.json();
        unknown["nothing"] = json!(1);
        server.put(&path, &unknown).await.assert_error(422, "RequestValidationError");
        let mut renamed = server.get(&path).await.json();
        match object.kind {
            Kind::DataSource => renamed["name"] = json!("other"),
            _ => renamed["spec"]["name"] = json!("other"),
        }
        server.put(&path, &renamed).await.assert_error(422, "ValueError");
    }
    let view = server.get("/feature_views/stats?project=rides").await.json();
    let mut other = view.clone();
    other["type"] = json!("planet");
    server.put("/feature_views/stats?project=rides", &other).await.assert_error(422, "ValueError");
    let mut other = view;
    other["type"] = json!("onDemandFeatureView");
    assert_eq!(server.put("/feature_views/stats?project=rides", &other).await.status, 422);
    assert_eq!(server.commits().await, commits);
}

/// Fault: fields that a newer version had stored were lost when an object was put back.
#[tokio::test]
async fn what_only_a_newer_version_knows_stays() {
    const NEWER: u32 = 5000;
    let server = filled().await;
    for (path, object) in objects() {
        let (path, layout, name) = (of_project(path), object.kind.layout(), object.name().expect("a name"));
        let mut bytes = server.stored(object.kind, &name).await.expect("it is stored").bytes.to_vec();
        for part in [layout.spec, layout.meta].into_iter().flatten() {
            let mut inner = wire::sub_message(&bytes, part).expect("a message").unwrap_or_default().into_owned();
            wire::put(&mut inner, NEWER, b"newer");
            bytes = wire::set(&bytes, part, &inner).expect("a message");
        }
        wire::put(&mut bytes, NEWER, b"newer");
        server.apply("rides", Object::new(object.kind, bytes)).await;
        let commits = server.commits().await;
        let mut read = server.get(&path).await.json();
        assert_eq!(server.put(&path, &read).await.status, 200, "{path}");
        assert_eq!(server.commits().await, commits, "{path}: it says what is stored");
        *tags_of(object.kind, &mut read) = json!({"tag": "changed"});
        assert_eq!(server.put(&path, &read).await.status, 200, "{path}");
        let stored = server.stored(object.kind, &name).await.expect("it is stored");
        let newer = |message: &[u8]| wire::content(message, NEWER).expect("a message").map(<[u8]>::to_vec);
        assert_eq!(newer(&stored.bytes).as_deref(), Some(&b"newer"[..]), "{path}");
        for part in [layout.spec, layout.meta].into_iter().flatten() {
            let inner = wire::sub_message(&stored.bytes, part).expect("a message").unwrap_or_default();
            assert_eq!(newer(&inner).as_deref(), Some(&b"newer"[..]), "{path}: {part}");
        }
        // In a batch too.
        *tags_of(object.kind, &mut read) = json!({"tag": "changed again"});
        let kind = object.kind.label().replace(' ', "_");
        let body = json!({"edits": [{"kind": kind, "apply": read}]});
        let reply = server.ask("POST", "/batch?project=rides").json(&body).send().await;
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
        let stored = server.stored(object.kind, &name).await.expect("it is stored");
        assert_eq!(newer(&stored.bytes).as_deref(), Some(&b"newer"[..]), "{path}");
    }
}
