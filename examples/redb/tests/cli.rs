//! The program: every command of `feast-registry` knows the URLs of this backend, wherever a registry is named.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use feast_registry::config::FeatureStoreConfig;
use feast_registry::proto::core::{Entity, EntitySpecV2};
use feast_registry::{CacheConfig, CacheMode, Freshness, Kind, Registry, Schemes};
use feast_registry_redb::RedbScheme;

/// Runs the program in a folder, with these environment variables and no others of the registry's.
fn run(folder: &Path, variables: &[(&str, &str)], arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_feast-registry-redb"));
    for name in ["FEAST_REGISTRY_URL", "FEATURE_STORE_YAML_BASE64", "FEAST_FS_YAML_FILE_PATH"] {
        command.env_remove(name);
    }
    command.envs(variables.iter().copied()).args(arguments).current_dir(folder).output().expect("the program runs")
}

fn stdout(output: &Output) -> String {
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}{stderr}");
    stdout.into_owned()
}

fn stderr(output: &Output) -> String {
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A folder with a registry, in which there is an entity.
async fn with_a_registry() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let url = format!("redb://{}", folder.path().join("registry.redb").display());
    let config = feast_registry::RegistryConfig::new(url.parse().expect("a URL"));
    let registry: Registry = Schemes::default().with(RedbScheme).open(&config).await.expect("a registry");
    let driver = Entity { spec: Some(EntitySpecV2 { name: "driver".to_owned(), ..Default::default() }), meta: None };
    registry.apply("rides", &driver).await.expect("an entity");
    registry.close().await.expect("nothing is left to write");
    folder
}

#[tokio::test]
async fn every_way_to_name_a_registry_names_one_in_redb() {
    let folder = with_a_registry().await;
    let file = folder.path().join("registry.redb");
    let url = format!("redb://{}", file.display());
    let yaml = |name: &str, registry: String| {
        std::fs::write(folder.path().join(name), format!("project: rides\nregistry:{registry}\n")).expect("a file");
    };
    yaml("plain.yaml", format!(" {url}"));
    yaml("sql.yaml", format!("\n  registry_type: sql\n  path: {url}"));
    yaml("file.yaml", format!("\n  registry_type: file\n  path: {url}"));
    let list = |variables: &[(&str, &str)], options: &[&str]| {
        stdout(&run(folder.path(), variables, &[&["list", "entities", "-o", "json"], options].concat()))
    };
    for listed in [
        list(&[], &["--registry", &url]),
        list(&[], &["--registry", "redb://registry.redb"]),
        list(&[("FEAST_REGISTRY_URL", &url)], &[]),
        list(&[("FEAST_FS_YAML_FILE_PATH", "sql.yaml")], &[]),
        list(&[], &["-c", "plain.yaml"]),
        list(&[], &["-c", "sql.yaml"]),
        list(&[], &["-c", "file.yaml"]),
    ] {
        assert!(listed.contains("\"driver\""), "{listed}");
    }
    let config = FeatureStoreConfig::load(&folder.path().join("sql.yaml")).expect("a configuration");
    assert_eq!(config.registry.url.path().as_deref(), file.to_str());
    let checked = stdout(&run(folder.path(), &[], &["config", "check", "--connect", "-c", "file.yaml"]));
    assert!(checked.contains("no errors, no warnings; the registry is there"), "{checked}");
}

#[tokio::test]
async fn a_project_is_deleted_though_the_file_is_open_only_once() {
    let folder = with_a_registry().await;
    let teardown = ["teardown", "--project", "rides", "--yes", "--registry", "redb://registry.redb"];
    let deleted = stdout(&run(folder.path(), &[], &teardown));
    assert!(deleted.contains("Deleted project `rides`") && deleted.contains("No project is left"), "{deleted}");
    let gone = stderr(&run(folder.path(), &[], &["list", "entities", "--registry", "redb://registry.redb"]));
    assert!(gone.contains("there is no registry in redb://registry.redb"), "{gone}");
}

/// Fault: a refresh in the background had the file open while it was to be opened anew.
#[tokio::test]
async fn a_registry_is_closed_while_it_is_refreshed() {
    let folder = with_a_registry().await;
    let url = format!("redb://{}", folder.path().join("registry.redb").display());
    let mut config = feast_registry::RegistryConfig::new(url.parse().expect("a URL"));
    config.cache = CacheConfig::new(CacheMode::Thread, Duration::from_millis(1));
    let schemes = Schemes::default().with(RedbScheme);
    for _ in 0..20 {
        let registry = schemes.open(&config).await.expect("nobody has it open any more");
        registry.get(Kind::Entity, "rides", "driver", Freshness::Stored).await.expect("an entity");
        registry.close().await.expect("nothing is left to write");
    }
}

#[tokio::test]
async fn what_is_only_looked_at_is_not_changed() {
    let folder = with_a_registry().await;
    let bytes = || std::fs::read(folder.path().join("registry.redb")).expect("the file");
    let before = bytes();
    stdout(&run(folder.path(), &[], &["list", "all", "--registry", "redb://registry.redb"]));
    assert_eq!(bytes(), before);
    std::fs::write(folder.path().join("empty.redb"), b"").expect("an empty file");
    stderr(&run(folder.path(), &[], &["list", "all", "--registry", "redb://empty.redb"]));
    assert_eq!(std::fs::read(folder.path().join("empty.redb")).expect("the file"), b"");
}

#[tokio::test]
async fn what_cannot_be_is_told_with_the_remedy_and_makes_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let list = |url: &str| stderr(&run(folder.path(), &[], &["list", "all", "--registry", url]));
    for (url, expected) in [
        ("redb://", "write `redb:///var/lib/feast/registry.redb`"),
        ("redb://x.redb?cache=1", "there is no option `cache`; there are none"),
        ("redb://x.redb", "there is no registry in redb://x.redb"),
        ("rocks:///x", "no backend for `rocks://`"),
        ("rocks:///x", "It opens redb://, sqlite://"),
    ] {
        let error = list(url);
        assert!(error.contains(expected), "{error}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).expect("the folder").count(), 0);
}

#[tokio::test]
async fn a_file_that_another_process_has_open_is_named() {
    let folder = with_a_registry().await;
    let config = feast_registry::RegistryConfig::new(
        format!("redb://{}", folder.path().join("registry.redb").display()).parse().expect("a URL"),
    );
    let open = Arc::new(Schemes::default().with(RedbScheme).open(&config).await.expect("a registry"));
    let error = stderr(&run(folder.path(), &[], &["list", "all", "--registry", "redb://registry.redb"]));
    assert!(error.contains("another process has this file open"), "{error}");
    drop(open);
}

#[test]
fn help_and_completions_have_the_program_and_its_scheme() {
    let folder = std::env::temp_dir();
    let help = stdout(&run(&folder, &[], &["list", "--help"]));
    assert!(help.contains("feast-registry-redb list projects"), "{help}");
    assert!(help.contains("redb:///var/lib/feast/registry.redb"), "{help}");
    for shell in ["bash", "zsh", "fish"] {
        let script = stdout(&run(&folder, &[], &["completions", shell]));
        assert!(script.contains("feast-registry-redb"), "{script}");
        let has_url = script.contains("redb:///var/lib/feast/registry.redb")
            || script.contains("redb\\:///var/lib/feast/registry.redb");
        assert!(has_url, "{shell}: {script}");
    }
    let version = stdout(&run(&folder, &[], &["--version"]));
    assert_eq!(version.lines().next(), Some(concat!("feast-registry-redb ", env!("CARGO_PKG_VERSION"))));
    assert!(version.contains("\nschemes: redb "), "{version}");
}
