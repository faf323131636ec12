//! `feast-registry permissions` and `tokens`.

use feast_registry::proto::core::policy::PolicyType;
use feast_registry::proto::core::{Policy, RoleBasedPolicy};

use super::*;

/// A permission by which a role may describe everything.
fn readers() -> Permission {
    let policy = PolicyType::RoleBasedPolicy(RoleBasedPolicy { roles: vec!["reader".to_owned()] });
    let spec = PermissionSpec {
        name: "readers".to_owned(),
        actions: vec![1],
        policy: Some(Policy { policy_type: Some(policy), ..Policy::default() }),
        ..PermissionSpec::default()
    };
    Permission { spec: Some(spec), meta: None }
}

#[tokio::test]
async fn it_is_said_who_may_do_what_and_why() {
    let fixture = Fixture::filled().await;
    let registry = fixture.open().await;
    for permission in
        registry.list(Kind::Permission, Some("rides"), &ListFilter::default(), Freshness::Stored).await.expect("a list")
    {
        registry.delete(Kind::Permission, "rides", &permission.name().expect("a name")).await.expect("it is deleted");
    }
    apply(&registry, "rides", &readers()).await;
    let check = |arguments: &[&str]| {
        let ran = fixture.run(&[&["permissions", "check", "--as", "bob"], arguments].concat());
        assert_eq!(ran.stderr, "", "{arguments:?}");
        (ran.code, ran.stdout)
    };
    let driver = ["entity", "driver", "-p", "rides"];
    let (code, page) = check(&[&["--roles", "tester,reader", "describe"], &driver[..]].concat());
    assert_eq!(
        (code, page.as_str()),
        (0, "yes: permission `readers` grants it\n\nPERMISSION  GRANTS IT\nreaders     yes\n")
    );
    let (code, page) = check(&[&["--roles", "tester", "DELETE"], &driver[..]].concat());
    let why = "it does not allow DELETE; it is for the roles reader";
    let expected = format!(
        "no: no permission of the project grants it\n\nPERMISSION  GRANTS IT  WHY NOT\nreaders     no         {why}\n"
    );
    assert_eq!((code, page), (3, expected));
    assert_eq!(check(&["--roles", "reader", "describe", "view", "driver_stats", "-p", "rides"]).0, 0);
    assert_eq!(check(&["describe", "view", "nowhere", "-p", "rides"]).0, 3);

    // What the configuration says of projects without permissions, and of administrators, counts as it does for servers.
    let customer = ["update", "entity", "customer", "-p", "shop"];
    assert_eq!(check(&customer).0, 0);
    assert_eq!(check(&[&customer[..], &["--default", "deny"]].concat()).0, 3);
    let file = feature_store(&fixture, &fixture.url(), "shop");
    let mut content = std::fs::read_to_string(fixture.path(&file)).expect("a file");
    content += "\nregistry_server: {default: deny, create_projects: admins, admins: [\"role:root\"]}\n";
    std::fs::write(fixture.path(&file), content).expect("a file");
    let customer = ["update", "entity", "customer", "-c", &file];
    assert_eq!(check(&customer).0, 3);
    let (code, page) = check(&[&customer[..], &["--roles", "root"]].concat());
    assert!(code == 0 && page.contains("administrator"), "{page}");
    let new = ["create", "project", "new", "-c", &file];
    let (code, page) = check(&new);
    assert!(code == 3 && page.contains("who may make projects"), "{page}");

    let error = fixture.usage_error(&["permissions", "check", "--as", "bob", "read", "entity", "driver"]);
    assert!(error.contains("write-online"), "{error}");
    fixture.usage_error(&["permissions", "check", "describe", "entity", "driver"]);
}

#[test]
fn a_new_token_goes_into_a_file_that_has_others() {
    let fixture = Fixture::empty();
    let new =
        |name| fixture.ok(&["tokens", "new", name, "--role", "reader", "--expires-in", "90d", "--file", "t.yaml"]);
    let token = new("one");
    assert!(token.starts_with("frt_") && token.lines().count() == 1, "{token}");
    let content = std::fs::read_to_string(fixture.path("t.yaml")).expect("a file");
    assert!(!content.contains(token.trim()), "the token is not in it");
    // Somebody's editor has left the last line without an end.
    std::fs::write(fixture.path("t.yaml"), content.trim_end()).expect("a file");
    new("two");
    let entries: Json =
        serde_saphyr::from_str(&std::fs::read_to_string(fixture.path("t.yaml")).expect("a file")).expect("YAML");
    assert_eq!((&entries[0]["name"], &entries[1]["name"]), (&"one".into(), &"two".into()));
    std::fs::write(fixture.path("t.yaml"), "name: x\n").expect("a file");
    assert!(fixture.error(&["tokens", "new", "three", "--file", "t.yaml"]).contains("t.yaml"));
    assert_eq!(std::fs::read_to_string(fixture.path("t.yaml")).expect("a file"), "name: x\n");
    for time in ["0d", "90", "-1d", "40000d"] {
        fixture.usage_error(&["tokens", "new", "x", &format!("--expires-in={time}")]);
    }
}
