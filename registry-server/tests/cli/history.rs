//! `feast-registry history`.

use super::log::written;
use super::*;

/// What happened, without revisions and times.
fn told(page: &str) -> Vec<&str> {
    page.lines().take_while(|line| !line.is_empty()).map(|line| line.splitn(3, "  ").last().expect("a line")).collect()
}

#[tokio::test]
async fn the_life_of_a_view_is_told_with_its_versions() {
    let fixture = written().await;
    let page = fixture.ok(&["history", "feature-view", "driver_stats"]);
    assert_eq!(
        told(&page),
        [
            "10.0.0.7 grpc-python/1.85.0  user metadata created",
            "10.0.0.7 grpc-python/1.85.0  materialized 2023-11-14T22:13:20Z to 2023-11-14T23:13:20Z",
            "alice@laptop  changed: spec.features[rating] added, spec.tags[tier] removed, spec.ttl 1d 12h -> 1d; version v1 \
             created: ratings are \\u{1b}in",
            "alice@laptop  created; version v0 created",
        ]
    );
    let versions: Vec<&str> = page.lines().skip_while(|line| *line != "Versions").collect();
    assert_eq!(versions.len(), 4, "{page}");
    assert!(versions[2].starts_with("  v0       20") && versions[3].starts_with("  v1       20"), "{page}");
    let ran = fixture.run(&["history", "view", "driver_stats", "-n", "1"]);
    assert_eq!((told(&ran.stdout).len(), ran.code), (1, 0));
    assert_eq!(ran.stderr, "note: these are the newest 1 commits; `-n` shows more\n");
    let json = fixture.json(&["history", "view", "driver_stats", "-o", "json"]);
    assert_eq!(json["versions"].as_array().map(Vec::len), Some(2));
    assert_eq!(json["commits"][2]["changes"][0]["fields"][0]["path"], "spec.features[rating]");
}

#[test]
fn no_commits_are_not_asked_for() {
    let fixture = Fixture::empty();
    for arguments in [&["log", "-n", "0"][..], &["history", "entity", "driver", "-n", "0"]] {
        assert!(fixture.usage_error(arguments).contains("at least 1"));
    }
}

#[tokio::test]
async fn what_is_gone_has_a_history_still() {
    let fixture = written().await;
    let registry = fixture.open().await;
    registry.delete(Kind::FeatureView, "rides", "driver_stats").await.expect("it is deleted");
    let page = fixture.ok(&["history", "view", "driver_stats"]);
    assert_eq!(told(&page)[0], "-  deleted");
    assert_eq!(told(&page).len(), 5, "{page}");
    assert!(fixture.ok(&["history", "project", "rides"]).ends_with("  created\n"));
    apply(&registry, "shop", &entity("customer", "")).await;
    registry.delete_project("rides").await.expect("it is deleted");
    let page = fixture.ok(&["history", "entity", "driver", "--project", "rides"]);
    assert_eq!(told(&page), ["-  deleted with its project", "alice@laptop  created"]);
    assert_eq!(told(&fixture.ok(&["history", "project", "rides"]))[0], "-  deleted with its project");
    let error = fixture.error(&["history", "entity", "nobody", "--project", "shop"]);
    assert!(error.contains("has nothing of this, and there is no entity `nobody` in project `shop`"), "{error}");
    assert!(fixture.usage_error(&["history", "entity"]).contains("NAME"));
}
