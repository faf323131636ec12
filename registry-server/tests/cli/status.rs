//! `feast-registry status` and `feast-registry journal`.

use std::sync::Arc;

use feast_registry::{Environment, RegistryOptions, SchemaMode, SqliteBackend, System, Timestamp};

use super::*;

/// A clock that is two months slow.
#[derive(Debug)]
struct Slow;

impl Environment for Slow {
    fn now(&self) -> Timestamp {
        Timestamp { seconds: System.now().seconds - 60 * 24 * 3600, nanos: 0 }
    }

    fn random(&self) -> u128 {
        System.random()
    }
}

#[tokio::test]
async fn a_status_says_what_is_there() {
    let fixture = Fixture::filled().await;
    let status = fixture.json(&["status", "-o", "json"]);
    assert_eq!(status["reachable"], true);
    assert_eq!((&status["backend"], &status["schemaMode"]), (&"sqlite".into(), &"auto".into()));
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    let names: Vec<_> = status["projects"].as_array().expect("a list").iter().map(|one| one["name"].clone()).collect();
    assert_eq!(names, ["rides", "shop"]);
    assert_eq!(status["projects"][1]["objects"]["entities"], 1);
    assert!(status["projects"][0]["bytes"].as_u64() > status["projects"][1]["bytes"].as_u64(), "{status}");
    let revision = |end: &str| status["journal"][end]["revision"].as_str().and_then(|text| text.parse::<u64>().ok());
    assert!(revision("oldest").is_some() && revision("oldest") < revision("newest"), "{status}");
    assert_eq!((&status["retention"]["days"], &status["retention"]["commits"]), (&30.into(), &100_000.into()));
    let text = fixture.ok(&["status"]);
    assert!(text.contains("Reachable  yes") && text.contains("kept for 30 days"), "{text}");
    assert!(text.lines().any(|line| line.starts_with("shop") && line.ends_with("1 entity")), "{text}");
}

#[tokio::test]
async fn a_status_of_a_registry_file_says_that_its_journal_has_to_fit() {
    let fixture = Fixture::empty();
    let url = format!("file://{}", fixture.path("file.db").display());
    let config = feast_registry::RegistryConfig::new(url.parse().expect("a URL"));
    apply(&feast_registry::open(&config).await.expect("a registry"), "shop", &entity("customer", "")).await;
    let text = fixture.run(&["status", "--registry", &url]).stdout;
    assert!(text.contains("at most 100000 commits, and as many as fit into the file\n"), "{text}");
}

#[test]
fn a_status_says_why_there_is_nothing() {
    let fixture = Fixture::empty();
    let ran = fixture.run(&["status", "-o", "json"]);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    let status: Json = serde_json::from_str(&ran.stdout).expect("JSON");
    assert_eq!(status["reachable"], false);
    assert!(status["problem"].as_str().is_some_and(|problem| problem.contains("there is no registry in")), "{status}");
    let ran = fixture.run(&["status"]);
    assert_eq!(ran.code, 1);
    assert!(ran.stdout.contains("Reachable  no: "), "{}", ran.stdout);
    assert!(!fixture.path("registry.db").exists(), "to look makes nothing");
}

#[tokio::test]
async fn what_is_young_is_not_pruned() {
    let fixture = Fixture::filled().await;
    let before = fixture.json(&["log", "-n", "1000", "-o", "json"]);
    for arguments in [&["--keep-age", "1d", "--keep-commits", "1", "--yes"][..], &["--dry-run"], &[]] {
        let said = fixture.ok(&[&["journal", "prune"], arguments].concat());
        assert!(said.starts_with("There is nothing to remove"), "{said}");
    }
    assert_eq!(fixture.json(&["log", "-n", "1000", "-o", "json"]), before);
    assert!(fixture.usage_error(&["journal", "prune", "--keep-age", "1h"]).contains("1d at the least"));
    fixture.usage_error(&["journal", "prune", "--dry-run", "--yes"]);
}

#[tokio::test]
async fn what_is_old_is_shown_and_asked_for() {
    let fixture = Fixture::empty();
    let backend = SqliteBackend::open(fixture.path("registry.db"), SchemaMode::Auto).expect("a file");
    let options = RegistryOptions::default().with_environment(Arc::new(Slow));
    let registry = Registry::open(Arc::new(backend), options).await.expect("a registry");
    for name in ["customer", "cashier", "cleaner"] {
        apply(&registry, "shop", &entity(name, "")).await;
    }
    registry.close().await.expect("it is closed");
    let count = fixture.json(&["log", "-n", "1000", "-o", "json"]).as_array().expect("a list").len();
    let shown = fixture.ok(&["journal", "prune", "--dry-run"]);
    assert!(shown.contains(&format!("about {} of {count} entries, from revision ", count - 1)), "{shown}");
    let ran = fixture.run(&["journal", "prune"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
    assert!(ran.stderr.contains("--yes") && ran.stderr.ends_with("Nothing was removed\n"), "{}", ran.stderr);
    // A database goes by its own clock, by which all of it is young.
    let ran = fixture.run(&["journal", "prune", "--yes"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stdout.starts_with("Removed 0 entries from the journal of sqlite:///"), "{}", ran.stdout);
}
