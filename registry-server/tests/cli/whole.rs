//! The command line as a whole: help, errors, and how the registry is found.

use super::*;

#[test]
fn help_teaches_the_commands() {
    let fixture = Fixture::empty();
    let help = fixture.ok(&["--help"]);
    for word in [
        "serve",
        "list",
        "get",
        "describe",
        "log",
        "show",
        "diff",
        "history",
        "teardown",
        "config",
        "completions",
        "Examples:",
        "Exit codes:",
    ] {
        assert!(help.contains(word), "{word}: {help}");
    }
    // In the order in which they count.
    let sources = ["--registry URL", "FEAST_REGISTRY_URL", "FEATURE_STORE_YAML_BASE64", "FEAST_FS_YAML_FILE_PATH"];
    assert!(sources.map(|source| help.find(source).expect(source)).is_sorted(), "{help}");
    assert!(fixture.ok(&["serve", "--help"]).contains("in the list of processes"));
    for command in
        ["serve", "list", "get", "describe", "log", "show", "diff", "history", "teardown", "config", "completions"]
    {
        let help = fixture.ok(&[command, "--help"]);
        assert!(help.contains("Usage: feast-registry"), "{help}");
        assert!(!help.contains('\u{1b}'), "{help}");
    }
    assert!(fixture.ok(&["--version"]).starts_with("feast-registry "));
    assert!(fixture.usage_error(&[]).contains("Commands:"));
}

#[test]
fn what_cannot_be_understood_is_a_usage_error() {
    let fixture = Fixture::empty();
    let error = fixture.usage_error(&["list", "featureviews"]);
    assert!(error.contains("on-demand-feature-views") && error.contains("tip: "), "{error}");
    let error = fixture.usage_error(&["get", "entity"]);
    assert!(error.contains("NAME"), "{error}");
    assert!(fixture.usage_error(&["get", "all", "x"]).contains("possible values"));
    assert!(fixture.usage_error(&["list", "entities", "--tag", "team"]).contains("KEY=VALUE"));
    assert!(fixture.usage_error(&["list", "entities", "-c", "x.yaml", "--registry", "memory://"]).contains("--config"));
    assert!(fixture.usage_error(&["teardown", "--all", "--project", "rides"]).contains("--project"));
}

#[test]
fn nothing_is_made_by_looking() {
    let fixture = Fixture::empty();
    for arguments in [
        &["list", "entities"][..],
        &["get", "entity", "driver"],
        &["describe", "entity", "driver"],
        &["log"],
        &["show", "1"],
        &["diff", "1..2"],
        &["history", "entity", "driver"],
        &["teardown", "--all", "--yes"],
    ] {
        let error = fixture.error(arguments);
        assert!(error.contains("no registry file `registry.db`"), "{error}");
    }
    assert!(!fixture.path("registry.db").exists());

    std::fs::write(fixture.path("registry.db"), "").expect("a file");
    let error = fixture.error(&["list", "entities"]);
    assert!(error.contains("no registry in sqlite:///registry.db") && error.contains("entities"), "{error}");
    std::fs::write(fixture.path("registry.db"), "this is no database".repeat(100)).expect("a file");
    let error = fixture.error(&["list", "entities"]);
    assert!(error.contains("not a SQLite database"), "{error}");
}

#[test]
fn a_password_is_never_shown() {
    let fixture = Fixture::empty();
    let url = "postgresql://me:geheim@db/feast";
    let ran = Ran::of(fixture.command(&["list", "all"]).env("FEAST_REGISTRY_URL", url).output().expect("it runs"));
    assert!(ran.code == 1 && ran.stderr.contains("me:***@db") && !ran.stderr.contains("geheim"), "{}", ran.stderr);
    let help = fixture.command(&["list", "--help"]).env("FEAST_REGISTRY_URL", url).output().expect("it runs");
    assert!(!Ran::of(help).stdout.contains("geheim"));
    let error = fixture.error(&["serve", "--registry", "postgresql://me:geheim@db:x/feast"]);
    assert!(error.contains("--registry") && !error.contains("geheim"), "{error}");
}

#[tokio::test]
async fn the_registry_is_found_by_variable_option_and_file() {
    let fixture = Fixture::filled().await;
    let elsewhere = Fixture::empty();
    let url = fixture.url();
    let by_variable =
        elsewhere.command(&["list", "projects"]).env("FEAST_REGISTRY_URL", &url).output().expect("it runs");
    assert!(Ran::of(by_variable).stdout.contains("rides"));
    assert!(elsewhere.ok(&["list", "projects", "--registry", &url]).contains("rides"));
    let file = feature_store(&elsewhere, &url, "shop");
    // The variable gives way to the file.
    let mut command = elsewhere.command(&["list", "entities", "-c", &file]);
    let by_file = Ran::of(command.env("FEAST_REGISTRY_URL", "memory://").output().expect("it runs"));
    assert!(by_file.stdout.contains("customer") && !by_file.stdout.contains("driver"), "{}", by_file.stdout);
    let error = elsewhere.error(&["list", "entities", "-c", "missing.yaml"]);
    assert!(error.contains("missing.yaml"), "{error}");
}

#[test]
fn completions_are_for_every_shell() {
    let fixture = Fixture::empty();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = fixture.ok(&["completions", shell]);
        assert!(script.contains("feast-registry") && script.contains("describe"), "{shell}");
    }
    assert!(fixture.ok(&["completions", "bash"]).contains("on-demand-feature-views"));
    assert!(fixture.usage_error(&["completions", "sh"]).contains("possible values"));
}
