//! `feast-registry describe`.

use super::*;

#[tokio::test]
async fn a_view_is_described_for_people() {
    let fixture = Fixture::filled().await;
    let page = fixture.ok(&["describe", "view", "driver_stats", "--project", "rides"]);
    assert!(page.starts_with("feature view `driver_stats` of project `rides`\n"), "{page}");
    let has = |part: &str| assert!(page.contains(part), "{part}: {page}");
    for fact in [
        "batch source  ",
        "trips (BATCH_FILE)",
        "ttl                ",
        "1d 12h\n",
        "team=ml, tier=1\n",
        "How drivers drive and \\u{1b}[31mhow often\n",
        "state              AVAILABLE_ONLINE\n",
        "version            v1\n",
        "disabled           no\n",
    ] {
        has(fact);
    }
    has("\nSchema\n  NAME       TYPE   ROLE\n  driver_id  INT64  join key\n  trips      INT64  feature\n");
    has(
        "\nMaterialized\n  FROM                  TO                    LENGTH\n  2023-11-14T23:13:20Z  2023-11-15T00:13:20Z  1h\n",
    );
    let versions: Vec<&str> = page.lines().skip_while(|line| *line != "Versions").skip(2).take(2).collect();
    assert!(versions[0].starts_with("  v0  ") && !versions[0].contains("current"), "{page}");
    assert!(versions[1].starts_with("  v1       current  "), "{page}");
    has("\nUsed by\n  NAME   KIND\n  model  feature service\n");
}

#[tokio::test]
async fn other_kinds_are_described_too() {
    let fixture = Fixture::filled().await;
    let describe = |arguments: &[&str]| fixture.ok(&[&["describe"], arguments, &["-p", "rides"]].concat());
    let page = describe(&["on-demand-feature-view", "trip_price"]);
    assert!(page.contains("\nTransformation\n  def trip_price(inputs):\n      return inputs\n"), "{page}");
    let page = describe(&["feature-service", "model"]);
    assert!(page.contains("\nFeatures\n  VIEW          FEATURES\n  driver_stats  trips\n"), "{page}");
    let page = describe(&["entity", "driver"]);
    assert!(page.contains("  driver_stats  feature view\n  model         feature service  indirectly\n"), "{page}");
    assert!(describe(&["data-source", "trips"]).contains("BATCH_FILE"));
    assert!(describe(&["permission", "readers"]).contains("FEATURE_VIEW"));
    assert!(describe(&["infra"]).starts_with("infrastructure of project `rides`"));
    let page = describe(&["project"]);
    assert!(page.contains("uuid") && page.contains("  entity                  2\n"), "{page}");
    assert!(fixture.error(&["describe", "entity", "drivr", "-p", "rides"]).contains("`driver`"));
}

#[tokio::test]
async fn a_view_that_uses_an_object_is_named_by_its_own_kind() {
    let fixture = Fixture::filled().await;
    let mut view = trip_price();
    view.spec.get_or_insert_default().entities = vec!["driver".into()];
    fixture.open().await.apply("rides", &view).await.expect("it is applied");
    let page = fixture.ok(&["describe", "entity", "driver", "-p", "rides"]);
    assert!(page.contains("  driver_stats  feature view\n"), "{page}");
    assert!(page.contains("  trip_price    on demand feature view\n"), "{page}");
}

#[tokio::test]
async fn of_many_intervals_the_latest_are_described() {
    let fixture = Fixture::filled().await;
    let registry = fixture.open().await;
    for hour in 100..130 {
        let at = |hour: i64| Some(prost_types::Timestamp { seconds: START + hour * 3600, nanos: 0 });
        registry.apply_materialization("rides", "driver_stats", at(hour), at(hour + 1)).await.expect("it is recorded");
    }
    let page = fixture.ok(&["describe", "view", "driver_stats", "-p", "rides"]);
    assert!(page.contains("Materialized (the latest 20 of 32 intervals"), "{page}");
    assert_eq!(page.lines().filter(|line| line.ends_with("  1h")).count(), 20, "{page}");
}
