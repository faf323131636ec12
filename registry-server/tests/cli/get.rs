//! `feast-registry get`.

use super::*;

#[tokio::test]
async fn get_prints_what_is_stored_in_each_form() {
    let fixture = Fixture::filled().await;
    let registry = fixture.open().await;
    let view = stored(&registry, Kind::FeatureView, "rides", "driver_stats").await;
    let get = ["get", "feature-view", "driver_stats", "-p", "rides"];

    let json = fixture.json(&[&get[..], &["-o", "json"]].concat());
    assert_eq!(from_json::<FeatureView>("FeatureView", &json), decoded(&view));
    let yaml: Json = serde_saphyr::from_str(&fixture.ok(&get)).expect("YAML");
    assert_eq!(yaml, json);
    assert_eq!(fixture.bytes(&[&get[..], &["-o", "proto"]].concat()), view.bytes);
    assert_eq!(fixture.json(&["get", "view", "driver_stats", "-p", "rides", "-o", "json"]), json);

    let driver = stored(&registry, Kind::Entity, "rides", "driver").await;
    assert_eq!(fixture.bytes(&["get", "entity", "driver", "-p", "rides", "-o", "proto"]), driver.bytes);
    let ran = fixture.run(&["get", "entity", "driver", "-p", "rides", "-o", "json"]);
    assert!(ran.code == 0 && ran.stderr.starts_with("note: 2 fields"), "{}", ran.stderr);
    let json: Json = serde_json::from_str(&ran.stdout).expect("JSON");
    assert_eq!(from_json::<Entity>("Entity", &json), decoded(&driver));

    assert_eq!(fixture.json(&["get", "project", "rides", "-o", "json"])["spec"]["name"], "rides");
    assert_eq!(fixture.json(&["get", "infra", "-p", "rides", "-o", "json"]), serde_json::json!({}));
}

#[tokio::test]
async fn the_project_is_the_configured_one_or_the_only_one() {
    let fixture = Fixture::filled().await;
    let error = fixture.error(&["get", "entity", "customer"]);
    assert!(error.contains("--project") && error.contains("`rides`, `shop`"), "{error}");
    let file = feature_store(&fixture, &fixture.url(), "shop");
    assert!(fixture.ok(&["get", "entity", "customer", "-c", &file]).contains("name: customer"));
    assert!(fixture.ok(&["get", "project", "-c", &file]).contains("name: shop"));
    let file = feature_store(&fixture, &fixture.url(), "unknown");
    assert!(fixture.error(&["get", "entity", "customer", "-c", &file]).contains("no project `unknown`"));

    fixture.open().await.delete_project("rides").await.expect("it is deleted");
    assert!(fixture.ok(&["get", "entity", "customer"]).contains("name: customer"));
}

#[tokio::test]
async fn a_missing_object_names_what_may_have_been_meant() {
    let fixture = Fixture::filled().await;
    let get = |kind, name| fixture.error(&["get", kind, name, "-p", "rides"]);
    let error = get("feature-view", "Driver-stat");
    assert!(
        error.contains("no feature view `Driver-stat`") && error.contains("did you mean `driver_stats`?"),
        "{error}"
    );
    assert!(get("view", "trip_prise").contains("did you mean `trip_price`?"));
    assert!(get("feature-view", "trip_price").contains("`trip_price` is an on demand feature view"));
    let error = get("entity", "something_else");
    assert!(error.ends_with("in project `rides`\n"), "{error}");
    let error = get("entity", "\u{1b}[2Jx");
    assert!(!error.contains('\u{1b}'), "{error}");
}
