//! `feast-registry revert` and `feast-registry restore`.

use feast_registry::{JournalEntry, JournalQuery};

use super::*;

async fn newest(fixture: &Fixture) -> JournalEntry {
    let mut entries = fixture.open().await.journal(&JournalQuery::before(None, 1)).await.expect("the journal");
    entries.pop().expect("an entry")
}

async fn newest_revision(fixture: &Fixture) -> String {
    newest(fixture).await.revision.to_string()
}

#[tokio::test]
async fn a_revert_shows_what_it_changes_wants_yes_and_is_journaled() {
    let fixture = Fixture::filled().await;
    let registry = fixture.open().await;
    let before = stored(&registry, Kind::FeatureView, "rides", "driver_stats").await;
    let versions = registry.list_versions("rides", "driver_stats").await.expect("a history").len();
    registry.delete(Kind::FeatureView, "rides", "driver_stats").await.expect("a deletion");
    registry.close().await.expect("closed");
    let revision = newest_revision(&fixture).await;

    let shown = fixture.ok(&["revert", &revision, "--dry-run"]);
    assert!(shown.starts_with(&format!("Revert of revision {revision} changes in sqlite://")), "{shown}");
    assert!(shown.contains("put back: 1 feature view of project `rides`: `driver_stats`\n"), "{shown}");
    assert!(shown.contains("added: 2 versions in the history of `driver_stats`\n"), "{shown}");
    let ran = fixture.run(&["revert", &revision]);
    assert!(ran.code == 1 && ran.stdout.is_empty(), "{}", ran.stdout);
    assert!(ran.stderr.contains("put back") && ran.stderr.contains("--yes"), "{}", ran.stderr);
    assert_eq!(newest_revision(&fixture).await, revision, "nothing was changed");

    let ran = fixture.run(&["revert", &revision, "--yes", "--reason", "it was needed"]);
    assert!(ran.code == 0 && ran.stderr.contains("put back"), "{}", ran.stderr);
    let entry = newest(&fixture).await;
    assert_eq!(ran.stdout, format!("Done: revert of revision {revision}, as revision {}.\n", entry.revision));
    assert_eq!(entry.reason.as_deref(), Some("it was needed"));
    assert!(entry.author.is_some());
    let registry = fixture.open().await;
    assert_eq!(stored(&registry, Kind::FeatureView, "rides", "driver_stats").await, before);
    assert_eq!(registry.list_versions("rides", "driver_stats").await.expect("a history").len(), versions);

    let again = fixture.ok(&["revert", &revision, "--yes"]);
    assert!(again.contains("has nothing to change.\n") && again.contains("as it was already"), "{again}");
}

#[tokio::test]
async fn a_revert_of_what_was_changed_since_names_it_and_wants_force() {
    let fixture = Fixture::filled().await;
    let registry = fixture.open().await;
    apply(&registry, "shop", &entity("customer", "Who pays")).await;
    let revision = newest_revision(&fixture).await;
    apply(&registry, "shop", &entity("customer", "Who pays much")).await;
    for arguments in [&["revert", &revision, "--yes"][..], &["revert", &revision, "--dry-run"]] {
        let ran = fixture.run(arguments);
        assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{arguments:?}");
        assert!(
            ran.stderr.starts_with("entity `customer` of project `shop` has been changed since\nerror: "),
            "{}",
            ran.stderr
        );
        assert!(ran.stderr.contains("--force") && ran.stderr.ends_with("Nothing was changed\n"), "{}", ran.stderr);
    }
    let ran = fixture.run(&["revert", &revision, "--yes", "--force"]);
    assert!(ran.code == 0 && ran.stderr.contains("changed: 1 entity of project `shop`: `customer`"), "{}", ran.stderr);
    let customer = stored(&fixture.open().await, Kind::Entity, "shop", "customer").await;
    assert_eq!(decoded::<Entity>(&customer).spec.expect("a spec").description, "Who buys");
    let later = (newest(&fixture).await.revision.number() + 1000).to_string();
    let error = fixture.error(&["revert", &later, "--yes"]);
    assert!(error.contains(&format!("has no revision {later}")), "{error}");
    assert!(fixture.usage_error(&["revert", "latest"]).contains("REV"));
}

#[tokio::test]
async fn a_materialization_is_reverted_only_if_that_is_asked_for() {
    let fixture = Fixture::filled().await;
    let registry = fixture.open().await;
    let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
    registry.apply_materialization("rides", "driver_stats", at(START), at(START + 60)).await.expect("recorded");
    let revision = newest_revision(&fixture).await;
    let count = async || {
        let view = stored(&fixture.open().await, Kind::FeatureView, "rides", "driver_stats").await;
        decoded::<FeatureView>(&view).meta.expect("a meta").materialization_intervals.len()
    };
    let before = count().await;
    let text = fixture.ok(&["revert", &revision, "--yes"]);
    assert!(text.contains("nothing to change") && text.contains("materialization stays"), "{text}");
    assert_eq!(count().await, before);
    assert_eq!(fixture.run(&["revert", &revision, "--yes", "--with-materializations"]).code, 0);
    assert_eq!(count().await, before - 1);
}

#[tokio::test]
async fn an_object_is_restored_to_a_revision_or_a_time() {
    let fixture = Fixture::filled().await;
    let registry = fixture.open().await;
    let then = newest(&fixture).await;
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    let description = async || {
        let customer = stored(&fixture.open().await, Kind::Entity, "shop", "customer").await;
        decoded::<Entity>(&customer).spec.expect("a spec").description
    };
    for at in [then.revision.to_string(), then.at.to_string()] {
        apply(&registry, "shop", &entity("customer", "Who pays")).await;
        let ran = fixture.run(&["restore", "entity", "customer", "--project", "shop", "--at", &at, "--yes"]);
        assert!(ran.code == 0 && ran.stdout.contains("Done: restore of entity `customer`"), "{}", ran.stderr);
        assert_eq!(description().await, "Who buys", "{at}");
    }
    registry.delete_view("rides", "trip_price").await.expect("a deletion");
    let at = then.revision.to_string();
    let ran = fixture.run(&["restore", "view", "trip_price", "-p", "rides", "--at", &at, "-y"]);
    assert!(ran.code == 0, "of whichever kind it was: {}", ran.stderr);
    assert!(
        fixture
            .error(&["restore", "entity", "nobody", "-p", "rides", "--at", &at, "-y"])
            .contains("there is no entity")
    );
    assert!(fixture.error(&["restore", "entity", "driver", "--at", &at, "-y"]).contains("say which project"));
    assert!(fixture.error(&["restore", "-p", "rides", "--at", "2000-01-01", "-y"]).contains("does not reach back"));
    for arguments in [
        &["restore", "--at", "1"][..],
        &["restore", "entity", "--at", "1"],
        &["restore", "entity", "driver"],
        &["restore", "-p", "rides", "--at", "yesterday"],
        &["restore", "-p", "rides", "--at", "1", "--yes", "--dry-run"],
    ] {
        fixture.usage_error(arguments);
    }
}

#[tokio::test]
async fn projects_come_back_after_a_teardown_that_took_the_tables_along() {
    let fixture = Fixture::filled().await;
    let list = |fixture: &Fixture| fixture.run(&["list", "all", "-p", "rides", "-o", "json"]).stdout;
    let (before, then) = (list(&fixture), newest(&fixture).await);
    assert_eq!(fixture.run(&["teardown", "--all", "--yes"]).code, 0);
    let at = then.at.to_string();
    let dry = fixture.ok(&["restore", "--project", "rides", "--at", &at, "--dry-run"]);
    assert!(dry.contains("put back: project `rides`"), "what is left of it is looked at: {dry}");
    assert!(fixture.error(&["list", "projects"]).contains("there is no registry in"), "it makes nothing");
    let ran = fixture.run(&["restore", "--project", "rides", "--at", &at, "--yes"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("put back: project `rides`"), "{}", ran.stderr);
    assert!(ran.stderr.contains("put back: 2 entities of project `rides`: `__dummy`, `driver`"), "{}", ran.stderr);
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(|line| line.trim_end_matches(',').to_owned()).collect();
        lines.sort_unstable();
        lines
    };
    assert_eq!(sorted(&list(&fixture)), sorted(&before));
    assert_eq!(fixture.json(&["list", "projects", "-o", "json"]).as_array().map(Vec::len), Some(1), "and no other");
    // A file that is not there is not made.
    let fixture = Fixture::empty();
    assert!(fixture.error(&["restore", "-p", "rides", "--at", "1", "-y"]).contains("there is no registry in"));
    assert!(!fixture.path("registry.db").exists());
}
