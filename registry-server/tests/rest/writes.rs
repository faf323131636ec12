//! What is changed: conditions, batches and dry runs.

use feast_registry_core::{Freshness, Kind};
use serde_json::{Value, json};

use crate::client::BOTH;
use crate::server::{Server, entity, start, view};

const DRIVER: &str = "/entities/driver?project=rides";

async fn with_driver() -> Server {
    let server = start().await;
    server.apply("rides", entity("driver", "before")).await;
    server
}

fn driver(description: &str) -> Value {
    json!({"spec": {"name": "driver", "description": description}})
}

async fn description(server: &Server) -> Value {
    server.get(DRIVER).await.json()["spec"]["description"].clone()
}

#[tokio::test]
async fn a_change_is_done_if_what_is_stored_is_what_the_client_has_seen() {
    let server = with_driver().await;
    for version in BOTH {
        let seen = server.get(DRIVER).await.tag();
        let put =
            |tag: &str, text: &str| server.ask("PUT", DRIVER).over(version).header("if-match", tag).json(&driver(text));
        let done = put(&seen, &format!("over {version:?}")).send().await;
        assert_eq!(done.status, 200, "{done:?}");
        assert!(done.header("x-registry-revision").parse::<u64>().is_ok(), "{done:?}");
        let commits = server.commits().await;
        for tag in [seen.as_str(), "\"other\"", "\"\"", "other", "W/\"other\", \"another\""] {
            put(tag, "late").send().await.assert_error(412, "PreconditionFailed");
            let delete = server.ask("DELETE", DRIVER).over(version).header("if-match", tag);
            delete.send().await.assert_error(412, "PreconditionFailed");
        }
        assert_eq!(server.commits().await, commits);
        // One of several, of whatever else is told of it, and as it comes when it was compressed.
        for path in [DRIVER, "/entities/driver?project=rides&include_relationships=true"] {
            let seen = server.get(path).await.tag();
            let several = format!("\"other\", W/{seen}");
            assert_eq!(put(&several, &format!("{path} over {version:?}")).send().await.status, 200, "{path}");
        }
        assert_eq!(put("*", "there is one").send().await.status, 200);
    }
    assert_eq!(description(&server).await, "there is one");
    let post = json!({"name": "driver", "project": "rides", "description": "posted"});
    let seen = server.get(DRIVER).await.tag();
    let ask = |tag: &str| server.ask("POST", "/entities").header("if-match", tag).json(&post);
    ask("\"other\"").send().await.assert_error(412, "PreconditionFailed");
    assert_eq!(ask(&seen).send().await.status, 201);
    let seen = server.get(DRIVER).await.tag();
    assert_eq!(server.ask("DELETE", DRIVER).header("if-match", &seen).send().await.status, 200);
    // What is not there has no state to have been seen; that it is not there comes first.
    server
        .ask("DELETE", DRIVER)
        .header("if-match", &seen)
        .send()
        .await
        .assert_error(404, "FeastObjectNotFoundException");
    let gone = server.ask("PUT", DRIVER).header("if-match", "*").json(&driver(""));
    gone.send().await.assert_error(412, "PreconditionFailed");
}

#[tokio::test]
async fn what_is_to_be_new_replaces_nothing() {
    let server = with_driver().await;
    let new = |path: &'static str, body| server.ask("PUT", path).header("if-none-match", "*").json(&body);
    new(DRIVER, driver("late")).send().await.assert_error(412, "PreconditionFailed");
    assert_eq!(description(&server).await, "before");
    let rider = || new("/entities/rider?project=rides", json!({"spec": {"description": "new"}}));
    let done = rider().send().await;
    assert_eq!((done.status, done.json()["name"].clone()), (200, json!("rider")));
    rider().send().await.assert_error(412, "PreconditionFailed");
    // Of a change it can mean nothing else.
    let other = server.ask("PUT", DRIVER).header("if-none-match", "\"other\"").json(&driver("late"));
    other.send().await.assert_error(422, "RequestValidationError");
    let both = server.ask("PUT", DRIVER).header("if-none-match", "*").header("if-match", "*").json(&driver("late"));
    both.send().await.assert_error(412, "PreconditionFailed");

    let dataset = |more: Value| {
        let mut body = json!({"name": "past", "project": "rides", "storage_path": "/data"});
        body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        body
    };
    let post = |more| server.ask("POST", "/saved_datasets").json(&dataset(more));
    assert_eq!(post(json!({})).header("if-none-match", "*").send().await.status, 200);
    post(json!({})).send().await.assert_error(409, "HTTPException");
    // Fault: who had said what must be so was told of something else.
    post(json!({})).header("if-none-match", "*").send().await.assert_error(412, "PreconditionFailed");
    post(json!({"allow_override": true}))
        .header("if-match", "\"other\"")
        .send()
        .await
        .assert_error(412, "PreconditionFailed");
    let seen = server.get("/saved_datasets/past?project=rides").await.tag();
    assert_eq!(post(json!({"description": "seen"})).header("if-match", &seen).send().await.status, 200);
}

/// Fault: a condition that could not be read was taken for none.
#[tokio::test]
async fn a_condition_that_cannot_be_read_is_refused() {
    let server = with_driver().await;
    for name in ["if-match", "if-none-match"] {
        let ask = server.ask("PUT", DRIVER).header(name, b"\"\xff\"").json(&driver("late"));
        ask.send().await.assert_error(422, "RequestValidationError");
        server.ask("DELETE", DRIVER).header(name, b"\"\xff\"").send().await.assert_error(422, "RequestValidationError");
        // It would be about none of the objects.
        let batch = server.ask("POST", "/batch?project=rides").header(name, "*").json(&json!({"edits": []}));
        batch.send().await.assert_error(422, "RequestValidationError");
    }
    assert_eq!(description(&server).await, "before");
}

#[tokio::test]
async fn of_clients_who_saw_the_same_one_writes() {
    let server = with_driver().await;
    let seen = server.get(DRIVER).await.tag();
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..8 {
        let body = driver(&format!("of {number}"));
        clients.spawn(server.ask("PUT", DRIVER).over(BOTH[number % 2]).header("if-match", &seen).json(&body).send());
    }
    let mut statuses: Vec<u16> = clients.join_all().await.into_iter().map(|reply| reply.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 412, 412, 412, 412, 412, 412, 412]);
}

#[tokio::test]
async fn a_batch_is_done_as_a_whole_or_not_at_all() {
    let server = with_driver().await;
    let batch = |edits: Value| server.ask("POST", "/batch?project=rides").json(&json!({"edits": edits})).send();
    let seen = server.get(DRIVER).await.tag();
    let view = json!({"spec": {"name": "stats", "entities": ["driver"], "features": [{"name": "trips", "valueType": "INT64"}]}});
    let commits = server.commits().await;
    let done = batch(json!([
        {"kind": "entity", "apply": driver("after"), "if_match": seen},
        {"kind": "entities", "name": "rider", "apply": {"spec": {}}, "if_none_match": "*"},
        {"kind": "feature_view", "apply": view},
        {"kind": "entity", "name": "rider", "delete": true},
        {"kind": "entity", "apply": driver("after")},
    ]))
    .await;
    assert_eq!(done.status, 200, "{done:?}");
    assert_eq!(server.commits().await, commits + 1);
    let told = done.json();
    let changed: Vec<_> = told["edits"].as_array().expect("edits").iter().map(|edit| edit["changed"].clone()).collect();
    assert_eq!(changed, [true, true, true, true, false]);
    assert_eq!(told["edits"][2], json!({"kind": "feature_view", "name": "stats", "changed": true, "version": 0}));
    assert!(!done.header("x-registry-revision").is_empty());

    let commits = server.commits().await;
    let more = json!({"kind": "entity", "apply": {"spec": {"name": "more"}}});
    for (bad, status, error_type) in [
        (json!({"kind": "entity", "name": "nobody", "delete": true}), 404, "FeastObjectNotFoundException"),
        (json!({"kind": "entity", "apply": driver("late"), "if_match": seen}), 412, "PreconditionFailed"),
        (json!({"kind": "entity", "apply": driver("late"), "if_none_match": "*"}), 412, "PreconditionFailed"),
        (json!({"kind": "entity", "apply": {"spec": {"name": "x", "nothing": 1}}}), 422, "RequestValidationError"),
        (json!({"kind": "entity", "apply": driver("x"), "delete": true}), 422, "RequestValidationError"),
        (json!({"kind": "entity", "name": "driver"}), 422, "RequestValidationError"),
        (json!({"kind": "entity", "delete": true}), 422, "RequestValidationError"),
        (json!({"kind": "entity", "apply": driver("x"), "delte": true}), 422, "RequestValidationError"),
        (json!({"kind": "entity", "name": "other", "apply": driver("x")}), 422, "ValueError"),
        (json!({"kind": "planet", "name": "x", "delete": true}), 422, "ValueError"),
        (json!({"kind": "project", "name": "rides", "delete": true}), 422, "ValueError"),
        (
            json!({"kind": "on_demand_feature_view", "apply": {"spec": {"name": "stats"}}}),
            409,
            "ConflictingFeatureViewNames",
        ),
    ] {
        let reply = batch(json!([more, bad])).await;
        assert_eq!((reply.status, &reply.json()["error_type"]), (status, &json!(error_type)), "{bad}: {reply:?}");
    }
    assert_eq!(server.commits().await, commits);
    assert!(server.stored(Kind::Entity, "more").await.is_none());
    // The project itself, and its infrastructure, which has no name.
    let done = batch(json!([
        {"kind": "project", "apply": {"spec": {"name": "rides", "description": "described"}}},
        {"kind": "infra", "apply": {"infraObjects": [{"infraObjectClassType": "table"}]}},
    ]));
    assert_eq!(done.await.status, 200);
    assert_eq!(batch(json!([])).await.status, 422, "it asks for nothing");
    let many: Vec<Value> =
        (0..1001).map(|number| json!({"kind": "entity", "name": format!("{number}"), "apply": {}})).collect();
    batch(json!(many)).await.assert_error(422, "RequestValidationError");
    let most = batch(json!(
        many[..1000].iter().map(|_| json!({"kind": "entity", "apply": driver("after")})).collect::<Vec<_>>()
    ));
    assert_eq!(most.await.status, 200);
}

#[tokio::test]
async fn a_dry_run_tells_what_would_be_and_does_nothing() {
    let server = with_driver().await;
    server.apply("rides", view("stats", "driver", &["trips"])).await;
    let commits = server.commits().await;
    let seen = server.get(DRIVER).await.tag();
    let apply = json!({"name": "driver", "project": "rides", "description": "after"});
    let stats = "/feature_views/stats?project=rides&dry_run=true";
    let edits = json!({"edits": [{"kind": "entity", "name": "driver", "delete": true}, {"kind": "entity", "apply": driver("anew")}]});
    for (method, path, body, changes) in [
        ("PUT", "/entities/driver?project=rides&dry_run=true", driver("after"), true),
        ("PUT", "/entities/driver?project=rides&dry_run=1", driver("before"), false),
        ("PUT", "/projects/other?dry_run=yes", json!({"spec": {"name": "other"}}), true),
        ("POST", "/entities?dry_run=true", apply, true),
        ("POST", "/entities?dry_run=true", json!({"name": "x", "project": "other"}), true),
        ("POST", "/batch?project=rides&dry_run=true", edits, true),
        ("DELETE", "/entities/driver?project=rides&dry_run=true", Value::Null, true),
        ("DELETE", stats, Value::Null, true),
    ] {
        let ask = server.ask(method, path);
        let reply = if body.is_null() { ask.send().await } else { ask.json(&body).send().await };
        assert_eq!(reply.status, 200, "{method} {path}: {reply:?}");
        let told = reply.json();
        assert_eq!((&told["dry_run"], &told["changed"]), (&json!(true), &json!(changes)), "{method} {path}: {told}");
        assert_eq!(reply.header("x-registry-revision"), "");
    }
    let late = server.ask("DELETE", "/entities/driver?project=rides&dry_run=true").header("if-match", "\"other\"");
    late.send().await.assert_error(412, "PreconditionFailed");
    let nobody = server.ask("DELETE", "/entities/nobody?project=rides&dry_run=true");
    nobody.send().await.assert_error(404, "FeastObjectNotFoundException");
    let unclear = server.ask("DELETE", "/entities/driver?project=rides&dry_run=perhaps");
    unclear.send().await.assert_error(422, "RequestValidationError");
    assert_eq!((server.commits().await, server.get(DRIVER).await.tag()), (commits, seen));
    assert!(server.registry.get(Kind::Project, "other", "other", Freshness::Stored).await.is_err());
}

#[tokio::test]
async fn only_what_says_that_it_is_json_is_taken_for_it() {
    let server = with_driver().await;
    for (content_type, is_taken) in [
        ("application/json", true),
        ("Application/JSON; charset=utf-8", true),
        ("application/merge-patch+json", true),
        ("text/plain", false),
        ("application/x-www-form-urlencoded", false),
        ("multipart/form-data", false),
    ] {
        let ask =
            server.ask("PUT", DRIVER).header("content-type", content_type).bytes(driver(content_type).to_string());
        assert_eq!(ask.send().await.status == 200, is_taken, "{content_type}");
    }
    for body in ["", "{", "[]", "null", "\u{feff}", "{\"spec\": 1}", "{\"spec\": {\"valueType\": \"NOTHING\"}}"] {
        let ask = server.ask("PUT", DRIVER).header("content-type", "application/json").bytes(body);
        assert_eq!(ask.send().await.status, 422, "{body}");
    }
    let deep = format!("{{\"spec\": {}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let ask = server.ask("PUT", DRIVER).header("content-type", "application/json").bytes(deep);
    assert_eq!(ask.send().await.status, 422);
}
