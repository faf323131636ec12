//! `feast-registry log` and `show`.

use feast_registry::CallOptions;

use super::*;

/// A registry with a few commits of alice's and bob's in the project `rides`.
pub(super) async fn written() -> Fixture {
    let fixture = Fixture::empty();
    let registry = fixture.open().await;
    let by = |author: &str| registry.with_call(CallOptions::new().with_author(author));
    let (alice, bob) = (by("alice@laptop"), by("10.0.0.7 grpc-python/1.85.0"));
    apply(&alice, "rides", &entity("driver", "Who drives")).await;
    apply(&alice, "rides", &trips_source()).await;
    apply(&alice, "rides", &driver_stats(&["trips"])).await;
    let mut wider = driver_stats(&["trips", "rating"]);
    let spec = wider.spec.get_or_insert_default();
    spec.ttl = Some(prost_types::Duration { seconds: 86_400, nanos: 0 });
    spec.tags.remove("tier");
    let because =
        registry.with_call(CallOptions::new().with_author("alice@laptop").with_reason("ratings\nare \u{1b}in"));
    apply(&because, "rides", &wider).await;
    let at = |hour: i64| Some(prost_types::Timestamp { seconds: START + hour * 3600, nanos: 0 });
    bob.apply_materialization("rides", "driver_stats", at(0), at(1)).await.expect("it is recorded");
    bob.apply_user_metadata(Kind::FeatureView, "rides", "driver_stats", Some(b"mine"[..].into()))
        .await
        .expect("it is set");
    fixture
}

/// The revisions that a log lists, newest first.
pub(super) fn revisions(fixture: &Fixture) -> Vec<String> {
    let log = fixture.json(&["log", "-o", "json", "-n", "1000"]);
    let entries = log.as_array().expect("an array");
    entries.iter().map(|entry| entry["revision"].as_str().expect("a revision").to_owned()).collect()
}

/// A log without its revisions and times, which are another each time.
fn told(log: &str) -> Vec<String> {
    let rest = |line: &str| {
        let fields: Vec<&str> = line.splitn(3, "  ").collect();
        assert!(fields[0].bytes().all(|byte| byte.is_ascii_digit()), "{line}");
        assert!(fields[1].len() == 20 && fields[1].ends_with('Z') && fields[1].as_bytes()[10] == b' ', "{line}");
        fields[2].to_owned()
    };
    log.lines().map(rest).collect()
}

#[tokio::test]
async fn a_log_has_a_line_for_each_commit_newest_first() {
    let fixture = written().await;
    assert_eq!(
        told(&fixture.ok(&["log"])),
        [
            "10.0.0.7 grpc-python/1.85.0  user metadata of feature view driver_stats created (project rides)",
            "10.0.0.7 grpc-python/1.85.0  materialized driver_stats (project rides)",
            "alice@laptop                 feature view driver_stats changed (version v1) (project rides): ratings are \\u{1b}in",
            "alice@laptop                 feature view driver_stats created (version v0) (project rides)",
            "alice@laptop                 data source trips created (project rides)",
            "alice@laptop                 entity driver created, project rides created",
        ]
    );
    assert_eq!(fixture.ok(&["log", "-n", "2"]).lines().count(), 2);
    let lines = |arguments: &[&str]| fixture.ok(&[&["log"], arguments].concat()).lines().count();
    assert_eq!(lines(&["--by", "ALICE"]), 4);
    assert_eq!(lines(&["--kind", "view"]), 4);
    assert_eq!(lines(&["--kind", "entities", "--name", "driver"]), 1);
    assert_eq!(lines(&["--since", "1h"]), 6);
    assert_eq!(lines(&["--before", &revisions(&fixture)[3]]), 2);
    for arguments in [&["--until", "1h"][..], &["--since", "2d", "--project", "shop"], &["--name", "nobody"]] {
        let ran = fixture.run(&[&["log"], arguments].concat());
        assert_eq!((ran.code, ran.stdout.as_str()), (0, ""), "{arguments:?}");
        assert!(ran.stderr.starts_with("There is nothing of this in the journal of sqlite:///"), "{}", ran.stderr);
    }
    let error = fixture.usage_error(&["log", "--since", "yesterday"]);
    assert!(error.contains("`yesterday` is no moment; it is one as 2026-11-30T08:00:00Z"), "{error}");
}

#[tokio::test]
async fn a_log_is_for_programs_too() {
    let fixture = written().await;
    let log = fixture.json(&["log", "-o", "json"]);
    let changed = &log[2];
    assert_eq!((&changed["author"], &changed["reason"]), (&"alice@laptop".into(), &"ratings\nare \u{1b}in".into()));
    let change = &changed["changes"][0];
    let of = |key: &str| change[key].as_str().expect("a text");
    assert_eq!(
        (of("what"), of("kind"), of("project"), of("name"), of("action")),
        ("object", "feature_views", "rides", "driver_stats", "changed")
    );
    assert!(change.get("fields").is_none(), "{change}");
    assert_eq!(log[1]["changes"][0]["action"], "materialized");
    assert!(fixture.ok(&["log", "-o", "yaml", "-n", "1"]).starts_with("- revision: "));
    assert_eq!(fixture.ok(&["log", "-o", "json", "-N", "nobody"]), "[]\n");
}

#[tokio::test]
async fn a_log_says_what_a_teardown_took_who_ran_it_and_why() {
    let fixture = Fixture::filled().await;
    let mut teardown = fixture.command(&["teardown", "--project", "rides", "--yes", "--reason", "moved to shop"]);
    let ran = Ran::of(teardown.env("LOGNAME", "carol").output().expect("it runs"));
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let log = told(&fixture.ok(&["log", "-n", "1"]));
    assert!(
        log[0].starts_with("carol@") && log[0].ends_with("  project rides deleted with 7 objects: moved to shop"),
        "{log:?}"
    );
    // The project is gone, and its journal is not.
    assert_eq!(told(&fixture.ok(&["log", "-n", "1", "-p", "rides"])), log);
    let page = fixture.ok(&["show", &revisions(&fixture)[0]]);
    assert!(
        page.contains("\n\nproject rides deleted\n") && page.contains("\nentity driver of project rides deleted\n"),
        "{page}"
    );
    assert!(!page.contains("join_key"), "{page}");
    assert!(fixture.usage_error(&["teardown", "--yes", "--reason", " "]).contains("a reason has some text"));
}

#[tokio::test]
async fn a_commit_is_shown_field_by_field() {
    let fixture = written().await;
    let revisions = revisions(&fixture);
    let page = fixture.ok(&["show", &revisions[2]]);
    assert!(page.starts_with(&format!("revision {}\n  time    20", revisions[2])), "{page}");
    let has = |part: &str| assert!(page.contains(part), "{part}: {page}");
    has("\n  author  alice@laptop\n  reason  ratings are \\u{1b}in\n");
    has("\n\nfeature view driver_stats of project rides changed\n");
    has("\n  + spec.features[rating]: value_type=INT64\n");
    has("\n  ~ spec.ttl: 1d 12h -> 1d\n");
    has("\n  - spec.tags[tier]: 1\n");
    has("\n  ~ meta.current_version_number: 0 -> 1\n");
    has("\n\nversion v1 of view driver_stats of project rides created\n");
    let page = fixture.ok(&["show", &revisions[1]]);
    let interval = "start_time=2023-11-14T22:13:20Z, end_time=2023-11-14T23:13:20Z";
    assert!(page.contains(&format!("\n  + meta.materialization_intervals: {interval}\n")), "{page}");
    let page = fixture.ok(&["show", &revisions[0]]);
    assert!(
        page.contains("user metadata of feature view driver_stats of project rides created\n  + content: mine\n"),
        "{page}"
    );

    let json = fixture.json(&["show", &revisions[2], "-o", "json"]);
    let fields = json["changes"][0]["fields"].as_array().expect("fields");
    let ttl = fields.iter().find(|field| field["path"] == "spec.ttl").expect("the field");
    assert_eq!(ttl.to_string(), r#"{"path":"spec.ttl","before":"1d 12h","after":"1d","inDefinition":true}"#);

    let error = fixture.error(&["show", "1"]);
    assert!(error.contains("has no revision 1: it has those from ") && error.contains(&revisions[0]), "{error}");
    assert!(fixture.usage_error(&["show", "x"]).contains("`x` is no revision"));
}

#[tokio::test]
async fn a_log_of_a_reader_that_has_seen_enough_is_no_error() {
    let fixture = Fixture::empty();
    let registry = fixture.open().await;
    for number in 0..60 {
        apply(&registry, "rides", &entity("driver", &format!("{}{number}", "x".repeat(4000)))).await;
    }
    let newest = &revisions(&fixture)[0];
    for arguments in [
        &["log", "-n", "1000", "-o", "json"][..],
        &["history", "entity", "driver", "-n", "1000", "-o", "json"],
        &["show", newest],
    ] {
        let mut child =
            fixture.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
        let mut first = [0; 1];
        child.stdout.take().expect("stdout").read_exact(&mut first).expect("a byte");
        let ran = Ran::of(child.wait_with_output().expect("it ends"));
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{arguments:?}");
    }
}

#[tokio::test]
async fn a_file_without_bytes_says_so_once_and_shows_what_there_is() {
    let fixture = Fixture::empty();
    let url = format!("file:///{}", fixture.path("registry.pb").display());
    let registry = feast_registry::open(&RegistryConfig::new(url.parse().expect("a URL"))).await.expect("a registry");
    apply(&registry, "rides", &entity("driver", "Who drives")).await;
    apply(&registry, "rides", &entity("driver", "Who drives well")).await;
    drop(registry);
    let log = fixture.json(&["log", "--registry", &url, "-o", "json"]);
    let revision = log[0]["revision"].as_str().expect("a revision");
    let note = |ran: &Ran| {
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        assert_eq!(ran.stderr.matches("does not have what was stored").count(), 1, "{}", ran.stderr);
        assert!(ran.stderr.contains("`history: full`"), "{}", ran.stderr);
    };
    assert_eq!(told(&fixture.ok(&["log", "--registry", &url]))[0], "-  entity driver changed (project rides)");
    let ran = fixture.run(&["show", revision, "--registry", &url]);
    note(&ran);
    assert!(ran.stdout.contains("\nentity driver of project rides changed\n"), "{}", ran.stdout);
    let ran = fixture.run(&["history", "entity", "driver", "--registry", &url]);
    note(&ran);
    assert!(ran.stdout.lines().next().is_some_and(|line| line.ends_with("  -  changed")), "{}", ran.stdout);
    let ran = fixture.run(&["diff", &format!("..{revision}"), "--registry", &url]);
    note(&ran);
    assert_eq!(ran.stdout, "project rides created\nentity driver of project rides created\n");
}
