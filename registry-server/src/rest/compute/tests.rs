use feast_registry_core::proto::DESCRIPTORS;
use feast_registry_core::proto::core::{FeatureView, FeatureViewMeta, FeatureViewSpec};
use proptest::prelude::*;

use super::*;
use crate::rest::golden::{self, number, text};

fn small(query: &Value, name: &str) -> Option<u32> {
    number(query, name).map(|number| u32::try_from(number).expect("a positive number"))
}

#[test]
fn answers_are_those_of_feast() {
    let engine = Engine::new(None);
    for call in golden::calls(golden::COMPUTE) {
        let (path, query, expected) = (text(&call, "path"), &call["query"], &call["body"]);
        let project = golden::project(text(query, "project"));
        let mut expected = expected.clone();
        let body = match path {
            "/compute_engines" => {
                // Feast says of a view that is not served online that it is.
                for view in expected["featureViews"].as_array_mut().into_iter().flatten() {
                    view["online"] = (view["name"] != "driver_fresh").into();
                }
                compute_engine(&engine, &project.name, &project.objects).expect("well-formed")
            }
            "/compute_engines/all" => {
                let registry = golden::registry().0;
                let projects: Vec<_> =
                    registry.iter().map(|project| (&*project.name, project.of(Kind::FeatureView).count())).collect();
                let paging =
                    Paging { page: small(query, "page").unwrap_or(1), limit: small(query, "limit").unwrap_or(50) };
                compute_engines(&engine, &projects, paging)
            }
            _ => {
                let (page, limit) = (small(query, "page"), small(query, "limit"));
                let jobs = Jobs {
                    status: query["status"].as_str(),
                    feature_view: query["feature_view"].as_str(),
                    page,
                    limit,
                };
                let body = materialization_jobs(&project.objects, &jobs).expect("well-formed");
                if page.is_none() || limit.is_none() {
                    // Feast lists no job unless both are given; how many there are it says.
                    assert_eq!(expected["jobs"], json!([]));
                    let all = body["jobs"].as_array().expect("jobs").len() as u64;
                    let total = expected["pagination"]["total"].as_u64().expect("a number");
                    assert_eq!(all, total.min(limit.map_or(u64::MAX, u64::from)), "{query}");
                    assert_eq!(body["pagination"]["total"], total);
                    continue;
                }
                body
            }
        };
        assert_eq!(body, expected, "{path} {query}");
    }
}

#[test]
fn all_jobs_are_listed_unless_pages_are_asked_for() {
    let objects = golden::project("rides").objects;
    let all = materialization_jobs(&objects, &Jobs::default()).expect("well-formed");
    assert_eq!(all["pagination"], json!({ "page": 0, "limit": 0, "total": 3 }));
    let ids: Vec<&str> = all["jobs"].as_array().expect("jobs").iter().map(|job| text(job, "id")).collect();
    assert_eq!(ids, ["driver_stats-1", "driver_fresh-0", "driver_stats-0"]);
    let second = Jobs { page: Some(2), ..Default::default() };
    let second = materialization_jobs(&objects, &second).expect("well-formed");
    assert_eq!(second, json!({ "jobs": [], "pagination": { "page": 2, "limit": 50, "total": 3 } }));
}

#[test]
fn engines_are_described_as_by_feast() {
    for case in golden::calls(golden::ENGINES) {
        let batch_engine = Some(&case["batch_engine"]).filter(|engine| !engine.is_null());
        let engine = Engine::new(batch_engine).body();
        assert_eq!(&Value::Object(engine), &case["engine"], "{batch_engine:?}");
    }
}

#[test]
fn engines_of_others_are_called_by_their_class() {
    let engine = Engine::new(Some(&json!({ "type": "company.engines.FastEngine", "size": 3, "zone": null }))).body();
    let config = json!({ "type": "company.engines.FastEngine", "size": 3 });
    let expected = json!({ "engineType": "company.engines.FastEngine", "engineClass": "FastEngine", "config": config });
    assert_eq!(Value::Object(engine), expected);
}

#[test]
fn secrets_are_not_shown() {
    let engine = Engine::new(Some(&json!({
        "type": "k8s",
        "env": [
            { "name": "DB_PASSWORD", "value": "hush" },
            { "name": "ZONE", "value": "eu" },
            { "name": "OTHER", "valueFrom": { "secretKeyRef": { "name": "s" } } },
        ],
        "image_pull_secrets": [{ "name": "registry" }],
        "spark_conf": { "spark.hadoop.fs.s3a.secret.key": "hush", "spark.ui.port": "1" },
        "auth": { "type": "basic", "config": { "username": "me", "password": "hush" } },
        "auth_token": "hush",
        "private_key_content": "hush",
    })));
    let body = Value::Object(engine.body());
    assert!(!body.to_string().contains("hush"), "{body}");
    let config = &body["config"];
    assert_eq!(config["env"][0], json!({ "name": "DB_PASSWORD", "value": "***" }));
    assert_eq!(config["env"][1], json!({ "name": "ZONE", "value": "eu" }));
    assert_eq!(config["image_pull_secrets"], json!([{ "name": "registry" }]));
    assert_eq!(config["spark_conf"]["spark.ui.port"], "1");
    assert_eq!(config["auth"]["config"], json!({ "username": "me", "password": "***" }));
}

#[test]
fn whether_a_view_is_online_stands_where_its_message_says() {
    for kind in [Kind::FeatureView, Kind::StreamFeatureView] {
        let spec =
            DESCRIPTORS.get_message_by_name(&format!("feast.core.{}Spec", kind.message_name())).expect("a message");
        assert_eq!(online_field(kind), spec.get_field_by_name("online").map(|field| field.number()), "{kind}");
    }
}

proptest! {
    #[test]
    fn jobs_come_newest_first_and_in_pages(
        views in prop::collection::vec(prop::collection::vec(prop::option::of(0_i64..5), 0..5), 0..5),
        limit in 1_u32..6,
    ) {
        let interval = |start: &Option<i64>| MaterializationInterval {
            start_time: start.map(|seconds| Timestamp { seconds, nanos: 0 }),
            end_time: None,
        };
        let view = |(number, starts): (usize, &Vec<Option<i64>>)| Object::encode(&FeatureView {
            spec: Some(FeatureViewSpec { name: format!("v{number}"), ..Default::default() }),
            meta: Some(FeatureViewMeta { materialization_intervals: starts.iter().map(interval).collect(), ..Default::default() }),
        });
        let objects: Vec<Object> = views.iter().enumerate().map(view).collect();
        let list = |jobs: Jobs<'_>| materialization_jobs(&objects, &jobs).expect("well-formed")["jobs"].as_array().expect("jobs").clone();
        let all = list(Jobs::default());
        prop_assert_eq!(all.len(), views.iter().map(Vec::len).sum::<usize>());
        prop_assert!(all.is_sorted_by(|one, next| one["startTime"].as_str() >= next["startTime"].as_str()));
        let pages: Vec<Value> = (1..).map(|page| list(Jobs { page: Some(page), limit: Some(limit), ..Default::default() }))
            .take_while(|page| !page.is_empty()).flatten().collect();
        prop_assert_eq!(&pages, &all);
        let of_first: Vec<Value> = list(Jobs { feature_view: Some("v0"), ..Default::default() });
        let expected: Vec<Value> = all.into_iter().filter(|job| job["featureView"] == "v0").collect();
        prop_assert_eq!(of_first, expected);
    }

    #[test]
    fn no_bytes_panic(spec: Vec<u8>, meta: Vec<u8>, kind in prop::sample::select(Kind::ALL.to_vec()), seconds: i64, nanos: i32) {
        let mut interval = Vec::new();
        wire::put(&mut interval, 1, &Timestamp { seconds, nanos }.encode_to_vec());
        let mut intervals = meta;
        wire::put(&mut intervals, 3, &interval);
        let mut bytes = Vec::new();
        wire::put(&mut bytes, 1, &spec);
        wire::put(&mut bytes, 2, &intervals);
        let objects = [Object::new(kind, bytes), Object::new(kind, spec)];
        drop((compute_engine(&Engine::new(None), "p", &objects[..1]), compute_engine(&Engine::new(None), "p", &objects)));
        drop(materialization_jobs(&objects[..1], &Jobs::default()));
    }
}
