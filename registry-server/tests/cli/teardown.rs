//! `feast-registry teardown`.

use super::*;

async fn projects(fixture: &Fixture) -> Vec<String> {
    let projects = fixture.open().await.list(Kind::Project, None, &ListFilter::default(), Freshness::Stored).await;
    projects.expect("a list").iter().map(|project| project.name().expect("a name")).collect()
}

#[tokio::test]
async fn a_teardown_without_a_terminal_wants_yes() {
    let fixture = Fixture::filled().await;
    let ran = fixture.run(&["teardown", "--project", "rides"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
    assert!(ran.stderr.contains("`rides`: 2 entities, 1 data source, 1 feature view"), "{}", ran.stderr);
    assert!(ran.stderr.contains("--yes") && ran.stderr.ends_with("Nothing was deleted\n"), "{}", ran.stderr);
    let mut piped = fixture.command(&["teardown", "--project", "rides"]);
    let mut child = piped.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    std::io::Write::write_all(&mut child.stdin.take().expect("stdin"), b"rides\n").ok();
    assert_eq!(Ran::of(child.wait_with_output().expect("it ends")).code, 1);
    assert!(fixture.error(&["teardown", "--yes"]).contains("say which project"));
    assert!(fixture.error(&["teardown", "--yes", "-p", "rides", "-p", "shopp"]).contains("did you mean `shop`?"));
    assert_eq!(projects(&fixture).await, ["rides", "shop"]);
}

#[tokio::test]
async fn a_teardown_deletes_its_projects_and_at_last_the_tables() {
    let fixture = Fixture::filled().await;
    let ran = fixture.run(&["teardown", "--project", "rides", "--yes"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "Deleted project `rides`.\n"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("the tables"), "{}", ran.stderr);
    assert_eq!(projects(&fixture).await, ["shop"]);
    assert!(fixture.ok(&["list", "entities"]).contains("customer"));

    let ran = fixture.run(&["teardown", "--yes"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("and the registry's tables, since no project"), "{}", ran.stderr);
    assert!(ran.stdout.starts_with("Deleted project `shop`.\nNo project is left"), "{}", ran.stdout);
    assert!(fixture.error(&["list", "projects"]).contains("there is no registry in"));

    let fixture = Fixture::filled().await;
    assert_eq!(fixture.run(&["teardown", "--all", "-y"]).code, 0);
    assert!(fixture.error(&["list", "projects"]).contains("there is no registry in"));
    fixture.open().await;
    let ran = fixture.run(&["teardown", "--all", "--yes"]);
    assert!(ran.code == 0 && ran.stderr.starts_with("There are no projects in"), "{}", ran.stderr);
}

#[tokio::test]
async fn with_schema_mode_verify_a_teardown_leaves_the_tables() {
    let fixture = Fixture::filled().await;
    let file = feature_store(&fixture, &format!("{}\n  schema_mode: verify", fixture.url()), "shop");
    let ran = fixture.run(&["teardown", "--all", "--yes", "-c", &file]);
    assert!(ran.code == 0 && !ran.stderr.contains("the tables"), "{}", ran.stderr);
    assert_eq!(fixture.ok(&["list", "projects", "-o", "json"]), "[]\n");
}

#[tokio::test]
async fn a_protected_project_is_not_torn_down() {
    let fixture = Fixture::filled().await;
    let tags = [("feast.dev/protected-project".to_owned(), "true".to_owned())].into();
    let spec = ProjectSpec { name: "shop".into(), tags, ..Default::default() };
    apply(&fixture.open().await, "shop", &Project { spec: Some(spec), meta: None }).await;
    for arguments in [&["teardown", "--project", "shop", "--yes"][..], &["teardown", "--all", "--yes"]] {
        let error = fixture.error(arguments);
        assert!(error.contains("`shop` is protected") && error.contains("feast.dev/protected-project"), "{error}");
    }
    assert_eq!(projects(&fixture).await, ["rides", "shop"]);
}
