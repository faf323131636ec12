//! `feast-registry config`, and where a configuration is from.

use super::*;

const ODD: &str = "\
project: rides
registry:
  registry_type: sql
  path: sqlite:///registry.db?moed=ro
  sqlalchemy_config_kwargs:
    echo_pool: true
    pool_use_lifo: true
";

/// Runs `config check`; its exit code and what it printed.
fn check(fixture: &Fixture, arguments: &[&str]) -> (i32, String) {
    let ran = fixture.run(&[&["config", "check"], arguments].concat());
    assert_eq!(ran.stderr, "", "{arguments:?}");
    (ran.code, ran.stdout)
}

#[test]
fn check_tells_all_that_is_odd_and_opens_nothing() {
    let fixture = Fixture::empty();
    std::fs::write(fixture.path("feature_store.yaml"), ODD).expect("a file");
    let (code, text) = check(&fixture, &["-c", "."]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((code, lines.len()), (1, 4), "{text}");
    assert!(lines[0].starts_with("error: ./feature_store.yaml, line 4: "), "{text}");
    assert!(lines[0].contains("there is no option `moed`; there are timeout"), "{text}");
    for (line, name) in [(1, "echo_pool"), (2, "pool_use_lifo")] {
        assert!(lines[line].starts_with("warning: ") && lines[line].contains(&format!("line {}", line + 5)), "{text}");
        assert!(lines[line].contains(name), "{text}");
    }
    assert_eq!(lines[3], "./feature_store.yaml: 1 error, 2 warnings.");

    std::fs::write(fixture.path("feature_store.yaml"), ODD.replace("?moed=ro", "")).expect("a file");
    let (code, text) = check(&fixture, &["-c", "feature_store.yaml"]);
    assert!(code == 0 && text.ends_with("feature_store.yaml: no errors, 2 warnings.\n"), "{text}");
    std::fs::write(fixture.path("feature_store.yaml"), "registry: {cache_mode: a, colour: b}\nproject: _a")
        .expect("a file");
    let (code, text) = check(&fixture, &["-c", "feature_store.yaml"]);
    assert!(code == 1 && text.ends_with("feature_store.yaml: 4 errors, no warnings.\n"), "{text}");
    let (code, text) = check(&fixture, &["-c", "nothing.yaml"]);
    assert!(code == 1 && text.starts_with("error: nothing.yaml: the file cannot be read"), "{text}");
    let (code, text) = check(&fixture, &["--registry", "u:hunter2@host/feast"]);
    assert!(code == 1 && text.contains("`://`") && !text.contains("hunter2"), "{text}");
    assert!(!fixture.path("registry.db").exists());
}

/// What would keep `serve` from starting is an error, with its line.
#[test]
fn check_tells_what_keeps_a_server_from_starting() {
    let fixture = Fixture::empty();
    std::fs::write(fixture.path("rubbish"), "rubbish").expect("a file");
    let check = |blocks: &str| {
        let text =
            format!("project: rides\nregistry: {{registry_type: sql, path: 'sqlite:///registry.db'}}\n{blocks}\n");
        std::fs::write(fixture.path("feature_store.yaml"), text).expect("a file");
        check(&fixture, &["-c", "feature_store.yaml"])
    };
    for (blocks, line, part) in [
        ("registry_server: {tokens: nowhere.yaml}", 3, "nowhere.yaml"),
        ("registry_server: {tokens: rubbish}", 3, "`sha256`"),
        ("registry_server: {default: deny}", 3, "`default: deny`"),
        ("registry_server: {limits: {calls: 3}}", 3, "`limits`"),
        ("registry_server:\n  tls: {cert: nowhere.pem, key: rubbish}", 4, "nowhere.pem"),
        ("auth: {type: oidc, auth_discovery_url: 'https://i', audience: a, ca_cert_path: rubbish}", 3, "ca_cert_path"),
        ("auth: {type: kubernetes, api_server: 'https://k', service_account_dir: nowhere}", 3, "service_account_dir"),
        (
            "auth: {type: oidc, auth_discovery_url: 'https://i', audience: a}\nregistry_server: {audit: {path: no/where}}",
            4,
            "no/where",
        ),
    ] {
        let (code, text) = check(blocks);
        let told = format!("error: feature_store.yaml, line {line}: ");
        assert!(code == 1 && text.starts_with(&told) && text.contains(part), "{blocks}: {text}");
    }
    let (code, text) = check(
        "auth: {type: oidc, auth_discovery_url: 'https://i', audience: a}\nregistry_server: {default: deny, audit: {path: a.jsonl}}",
    );
    assert!(code == 0 && text.ends_with("no errors, no warnings.\n") && !fixture.path("a.jsonl").exists(), "{text}");
}

/// Whoever reads it sees whether the server is closed.
#[test]
fn show_prints_what_a_server_asks_of_its_callers() {
    let fixture = Fixture::empty();
    let text = "\
project: rides
registry: {registry_type: sql, path: 'sqlite:///registry.db'}
auth:
  type: oidc
  auth_discovery_url: https://idp/d
  client_secret: hunter2
  audience: feast
registry_server:
  default: deny
  admins: [alice, 'role:root']
";
    std::fs::write(fixture.path("feature_store.yaml"), text).expect("a file");
    let yaml = fixture.ok(&["config", "show", "-c", "feature_store.yaml"]);
    for line in [
        "  type: oidc  # line 4",
        "  audience: feast  # line 7",
        "  verify_ssl: true  # default",
        "  default: deny  # line 9",
        "  create_projects: anyone  # default",
        "  admins: [\"alice\",\"role:root\"]  # line 10",
        "    calls: 512  # default",
    ] {
        assert!(yaml.lines().any(|found| found == line), "{line}\n{yaml}");
    }
    assert!(!yaml.contains("hunter2"), "{yaml}");
}

#[tokio::test]
async fn check_looks_at_the_registry_if_it_is_told_to() {
    let fixture = Fixture::empty();
    let (code, text) = check(&fixture, &["--connect"]);
    assert!(code == 0 && text.contains("warning: ") && text.contains("`feast-registry serve` makes"), "{text}");
    assert!(text.contains("is not there, or not all of it") && !fixture.path("registry.db").exists(), "{text}");
    std::fs::write(
        fixture.path("store.yaml"),
        "registry:\n  registry_type: sql\n  path: sqlite:///registry.db\n  schema_mode: verify",
    )
    .expect("a file");
    let (code, text) = check(&fixture, &["-c", "store.yaml", "--connect"]);
    assert!(code == 1 && text.contains("error: store.yaml, line 3: there is no registry file"), "{text}");

    let fixture = Fixture::filled().await;
    let (code, text) = check(&fixture, &["--connect"]);
    assert!(code == 0 && text.contains("no errors, no warnings; the registry is there, in sqlite:///"), "{text}");
    assert!(text.ends_with("with 2 projects.\n"), "{text}");
    // The file of a registry that is not of this type.
    let (code, text) = check(&fixture, &["--registry", "registry.db", "--connect"]);
    assert!(code == 1 && text.contains("is a SQLite database") && text.contains("sqlite:///"), "{text}");
}

#[test]
fn show_prints_what_is_in_force_without_secrets_and_where_it_is_from() {
    let fixture = Fixture::empty();
    let text = "\
project: rides
registry:
  registry_type: sql
  path: postgresql://feast:${PASSWORD}@db/feast?sslmode=require
  cache_ttl_seconds: 60
  sqlalchemy_config_kwargs:
    pool_size: 7
    connect_args: {password: hunter3}
";
    std::fs::write(fixture.path("store.yaml"), text).expect("a file");
    let show = |arguments: &[&str]| {
        let mut command = fixture.command(&[&["config", "show", "-c", "store.yaml"], arguments].concat());
        let ran = Ran::of(command.env("PASSWORD", "hunter2").output().expect("it runs"));
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
        assert!(!ran.stdout.contains("hunter"), "{}", ran.stdout);
        ran.stdout
    };
    let yaml = show(&[]);
    for line in [
        "project: rides  # line 1",
        "  path: \"postgresql://feast:***@db/feast?sslmode=require&password=***\"  # line 4",
        "  cache_ttl_seconds: 60  # line 5",
        "  schema_mode: auto  # default",
        "  sqlalchemy_config_kwargs:",
        "    pool_size: 7  # line 7",
        "    max_overflow: 10  # default",
    ] {
        assert!(yaml.lines().any(|found| found == line), "{line}\n{yaml}");
    }
    let json: Json = serde_json::from_str(&show(&["-o", "json"])).expect("JSON");
    let mut of_yaml: Json = serde_saphyr::from_str(&yaml).expect("YAML");
    of_yaml["source"] = "store.yaml".into();
    of_yaml["lines"] = json["lines"].clone();
    assert_eq!(of_yaml, json);
    assert_eq!(json["lines"]["registry.sqlalchemy_config_kwargs.pool_size"], 7);
    assert_eq!(json["lines"]["registry.schema_mode"], Json::Null);
}

#[test]
fn the_first_source_that_is_there_counts() {
    let fixture = Fixture::empty();
    let folder = fixture.path("repo");
    std::fs::create_dir(&folder).expect("a folder");
    std::fs::write(folder.join("feature_store.yaml"), "project: of_path\nregistry: data/registry.db").expect("a file");
    let path = folder.join("feature_store.yaml").display().to_string();
    // `project: of_base64`, and `registry: data/registry.db`, with a line break.
    let base64 = "cHJvamVjdDogb2ZfYmFzZTY0CnJlZ2lzdHJ5OiBk\nYXRhL3JlZ2lzdHJ5LmRi";
    let shown = |arguments: &[&str], variables: &[(&str, &str)]| {
        let mut command = fixture.command(&[&["config", "show", "-o", "json"], arguments].concat());
        let ran = Ran::of(command.envs(variables.iter().copied()).output().expect("it runs"));
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
        let json: Json = serde_json::from_str(&ran.stdout).expect("JSON");
        let text = |value: &Json| value.as_str().unwrap_or_default().to_owned();
        (text(&json["source"]), text(&json["project"]), text(&json["registry"]["path"]))
    };
    let expect = |source: &str, project: &str, path: &str| (source.to_owned(), project.to_owned(), path.to_owned());
    let variables = [
        ("FEAST_REGISTRY_URL", "sqlite:///url.db"),
        ("FEATURE_STORE_YAML_BASE64", base64),
        ("FEAST_FS_YAML_FILE_PATH", &*path),
    ];
    assert_eq!(
        shown(&["-c", "repo"], &variables),
        expect("repo/feature_store.yaml", "of_path", "repo/data/registry.db")
    );
    assert_eq!(shown(&["--registry", "sqlite:///a.db"], &variables), expect("--registry", "", "sqlite:///a.db"));
    assert_eq!(shown(&[], &variables), expect("FEAST_REGISTRY_URL", "", "sqlite:///url.db"));
    let of_feast = expect("FEATURE_STORE_YAML_BASE64", "of_base64", "data/registry.db");
    assert_eq!(shown(&[], &variables[1..]), of_feast);
    // As to Feast, whose folder is then the one it works in.
    assert_eq!(shown(&[], &variables[2..]), expect(&path, "of_path", "data/registry.db"));
    let nothing = variables.map(|(name, _)| (name, ""));
    assert_eq!(shown(&[], &nothing), expect("the built-in default", "", "sqlite:///registry.db"));

    let mut command = fixture.command(&["list", "projects"]);
    let ran = Ran::of(command.env("FEATURE_STORE_YAML_BASE64", "???").output().expect("it runs"));
    assert!(
        ran.code == 1 && ran.stderr.contains("FEATURE_STORE_YAML_BASE64: it is not the base64 form"),
        "{}",
        ran.stderr
    );
}

#[tokio::test]
async fn other_commands_warn_on_stderr_and_go_on() {
    let fixture = Fixture::filled().await;
    std::fs::write(fixture.path("feature_store.yaml"), ODD.replace("?moed=ro", "")).expect("a file");
    let ran = fixture.run(&["list", "entities", "-c", "feature_store.yaml"]);
    assert!(ran.code == 0 && ran.stdout.contains("driver"), "{}", ran.stdout);
    let lines: Vec<&str> = ran.stderr.lines().collect();
    assert!(lines.len() == 2 && lines[0].starts_with("warning: feature_store.yaml, line 6: "), "{lines:?}");
}
