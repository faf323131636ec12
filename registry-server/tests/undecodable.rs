//! One stored row that cannot be decoded, and the commands that list the others.

use std::process::{Command, Stdio};
use std::time::Duration;

use feast_registry::proto::core::{Entity, EntitySpecV2};
use feast_registry::{
    Backend as _, Commit, Deadline, Key, Kind, Record, Registry, RegistryOptions, SchemaMode, SqliteBackend, Write,
};

#[tokio::test]
async fn the_others_are_listed_and_a_warning_names_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("registry.db");
    let backend = std::sync::Arc::new(SqliteBackend::open(&file, SchemaMode::Auto).expect("a backend"));
    let registry = Registry::open(backend.clone(), RegistryOptions::default()).await.expect("a registry");
    let spec = EntitySpecV2 { name: "driver".to_owned(), ..Default::default() };
    registry.apply("rides", &Entity { spec: Some(spec), meta: None }).await.expect("an apply");
    let broken = Record::new(Key::object(Kind::Entity, "rides", "broken"), &b"\xff\xff\xff"[..], 1);
    let commit = Commit::new(vec![], vec![Write::Put(broken)]);
    backend.commit(commit, &Deadline::after(Duration::from_secs(30))).await.expect("it is stored");

    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_feast-registry"));
        command.args(arguments).current_dir(folder.path()).stdin(Stdio::null()).env_remove("FEAST_REGISTRY_URL");
        command.output().expect("it runs")
    };
    for arguments in [&["list", "entities"][..], &["list", "entities", "-o", "json"], &["list", "all", "-o", "yaml"]] {
        let output = run(arguments);
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {stderr}");
        assert!(stdout.contains("driver"), "{arguments:?}: {stdout}");
        let warning = "warning: entity `broken` of project `rides` cannot be decoded, and is left out";
        assert!(stderr.contains(warning), "{arguments:?}: {stderr}");
    }
    let output = run(&["get", "entity", "broken", "--project", "rides"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && stderr.contains("entity `broken` of project `rides`"), "{stderr}");
}
