//! `feast-registry run`: a command gets the registry on a socket, its signals and nothing else of ours.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;

use super::serve::Server;
use super::*;

const YAML: &str =
    "project: rides\nregistry:\n  registry_type: sql\n  path: sqlite:///registry.db # ours\nprovider: local\n";

/// A folder with a feature_store.yaml, and another one for what the command makes.
struct Place {
    fixture: Fixture,
    runtime: TempDir,
}

impl Place {
    fn new(yaml: &str) -> Self {
        let place = Self { fixture: Fixture::empty(), runtime: TempDir::new().expect("a folder") };
        std::fs::write(place.fixture.path("feature_store.yaml"), yaml).expect("written");
        place
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.fixture.command(&[&["run"], arguments].concat());
        command.env("XDG_RUNTIME_DIR", self.runtime.path());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(self.command(arguments).output().expect("the command runs"))
    }

    /// What it has made and not removed.
    fn left(&self) -> Vec<PathBuf> {
        std::fs::read_dir(self.runtime.path()).expect("a folder").map(|entry| entry.expect("an entry").path()).collect()
    }
}

#[test]
fn a_command_has_the_registry_on_a_socket_for_as_long_as_it_runs() {
    let place = Place::new(YAML);
    let program = env!("CARGO_BIN_EXE_feast-registry");
    let script = format!(
        "cat \"$FEAST_FS_YAML_FILE_PATH\"; {program} health \"$FEAST_REGISTRY_PATH\"; echo \"$FEAST_REGISTRY_PATH\" \
         \"${{FEATURE_STORE_YAML_BASE64-unset}}\"; echo \"$1\"; exit 7"
    );
    let ran = place.run(&["--", "sh", "-c", &script, "sh", "an argument --help"]);
    assert_eq!(ran.code, 7, "{}", ran.stderr);
    let lines: Vec<&str> = ran.stdout.lines().collect();
    let [project, registry, remote, provider, serving, path, argument] = lines[..] else { panic!("{}", ran.stdout) };
    let (path, base64) = path.split_once(' ').expect("two words");
    assert_eq!([project, registry, provider, serving], ["project: rides", "registry:", "provider: local", "SERVING"]);
    assert_eq!(remote.trim(), format!(r#"{{"registry_type":"remote","path":"{path}"}}"#));
    assert_eq!((base64, argument), ("unset", "an argument --help"));
    assert!(path.starts_with(&format!("unix://{}/feast-registry-run-", place.runtime.path().display())), "{path}");
    assert_eq!(place.left(), [""; 0].map(PathBuf::from));
    assert_eq!(std::fs::read_to_string(place.fixture.path("feature_store.yaml")).expect("it is there"), YAML);
    assert!(place.fixture.path("registry.db").exists());
}

#[test]
fn nobody_else_may_enter_and_nothing_of_a_url_is_told() {
    let place = Place::new(&YAML.replace("sqlite:///registry.db # ours", "${URL}"));
    let script = "stat -c %a \"${FEAST_REGISTRY_PATH#unix://}\" \"$(dirname \"${FEAST_REGISTRY_PATH#unix://}\")\"";
    let ran =
        Ran::of(place.command(&["--", "sh", "-c", script]).env("URL", place.fixture.url()).output().expect("it runs"));
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "600\n700\n"), "{}", ran.stderr);
}

/// Or clients would wait for a server that was killed, for as long as its command lives.
#[test]
fn a_command_inherits_nothing_but_what_is_its_own() {
    let place = Place::new(YAML);
    let ran = place.run(&["--", "sh", "-c", "ls -l /proc/$$/fd | grep -c 'socket:\\|\\.lock\\|registry.db'"]);
    assert_eq!(ran.stdout.trim(), "0", "{}", ran.stderr);
}

#[test]
fn the_configuration_is_that_which_is_named() {
    let place = Place::new(YAML);
    let other = place.fixture.path("other");
    std::fs::create_dir(&other).expect("made");
    std::fs::write(other.join("feature_store.yaml"), YAML.replace("rides", "other").replace("registry.db", "other.db"))
        .expect("written");
    let first = ["--", "sh", "-c", "head -1 \"${FEAST_FS_YAML_FILE_PATH:-/dev/null}\""];
    let project = |arguments: &[&str], variable: Option<(&str, &str)>| {
        let mut command = place.command(&[arguments, &first].concat());
        command.envs(variable);
        let ran = Ran::of(command.output().expect("it runs"));
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        ran.stdout.trim().to_owned()
    };
    let base64 = "cHJvamVjdDogYmFzZQpyZWdpc3RyeTogYmFzZS5kYgo=";
    assert_eq!(project(&[], None), "project: rides");
    assert_eq!(project(&["-c", "other"], None), "project: other");
    assert_eq!(project(&["-c", "other"], Some(("FEATURE_STORE_YAML_BASE64", base64))), "project: other");
    assert_eq!(project(&[], Some(("FEATURE_STORE_YAML_BASE64", base64))), "project: base");
    assert_eq!(project(&[], Some(("FEAST_FS_YAML_FILE_PATH", "other/feature_store.yaml"))), "project: other");
    // A registry that is named apart is for the configuration that is there.
    assert_eq!(project(&["--registry", "sqlite:///third.db"], None), "project: rides");
    for file in ["registry.db", "other.db", "base.db", "third.db"] {
        assert!(place.fixture.path(file).exists(), "{file}");
    }
    // What is relative is so to the repository of Feast's command, whatever file it reads.
    let third = YAML.replace("sqlite:///registry.db # ours", "fourth.db").replace("sql\n", "file\n");
    std::fs::write(place.fixture.path("fs.yaml"), third).expect("written");
    let feast = feast_that_shows(&place.fixture);
    let mut command = place.command(&["--", feast.to_str().expect("text"), "-c", "other", "apply"]);
    let ran = Ran::of(command.env("FEAST_FS_YAML_FILE_PATH", "fs.yaml").output().expect("it runs"));
    assert!(ran.code == 0 && other.join("fourth.db").exists(), "{} {}", ran.code, ran.stderr);
    // Feast's own way to name the folder of the repository.
    let ran = place.run(&["--", "./feast", "-c", "other", "apply"]);
    assert_eq!((ran.code, ran.stdout.trim()), (0, "project: other"), "{}", ran.stderr);
    let ran = place.run(&["--", "./feast", "-f", "other/feature_store.yaml", "apply"]);
    assert!(ran.code == 1 && ran.stderr.contains("`feast-registry run -c`"), "{} {}", ran.code, ran.stderr);
}

/// A program in place of Feast's command, which shows the project of its configuration.
fn feast_that_shows(fixture: &Fixture) -> PathBuf {
    let feast = fixture.path("feast");
    std::fs::write(&feast, "#!/bin/sh\nhead -1 \"$FEAST_FS_YAML_FILE_PATH\"\n").expect("written");
    std::fs::set_permissions(&feast, std::fs::Permissions::from_mode(0o755)).expect("set");
    feast
}

#[test]
fn without_a_configuration_a_program_has_the_path_alone() {
    let place = Place::new(YAML);
    std::fs::remove_file(place.fixture.path("feature_store.yaml")).expect("removed");
    let script = "echo \"${FEAST_FS_YAML_FILE_PATH-none}\" \"${FEAST_REGISTRY_PATH%%:*}\"";
    let ran = place.run(&["--registry", "sqlite:///registry.db", "--", "sh", "-c", script]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "none unix\n"), "{}", ran.stderr);
    // One that is named is to be there, also where it is in its usual place.
    let mut command = place.command(&["--registry", "sqlite:///registry.db", "--", "true"]);
    let ran = Ran::of(command.env("FEAST_FS_YAML_FILE_PATH", "feature_store.yaml").output().expect("it runs"));
    assert!(ran.code == 1 && ran.stderr.contains("feature_store.yaml cannot be read"), "{} {}", ran.code, ran.stderr);
    let ran = place.run(&["--", "true"]);
    assert!(ran.code == 1 && ran.stderr.contains("feature_store.yaml: the file cannot be read"), "{}", ran.stderr);
}

#[test]
fn what_cannot_be_served_or_run_says_so() {
    let place = Place::new("project: rides\nregistry: {registry_type: remote, path: 'localhost:6570'}\n");
    let ran = place.run(&["--", "true"]);
    assert!(ran.code == 1 && ran.stderr.contains("client of another server"), "{}", ran.stderr);
    let place = Place::new(YAML);
    for (command, code, problem) in [("no-such-command", 127, "No such file"), ("./feature_store.yaml", 126, "denied")]
    {
        let ran = place.run(&["--", command]);
        assert_eq!(ran.code, code, "{}", ran.stderr);
        assert!(
            ran.stderr.contains(&format!("cannot run `{command}`")) && ran.stderr.contains(problem),
            "{}",
            ran.stderr
        );
    }
    let ran = place.run(&["--", "sh", "-c", "kill -KILL $$"]);
    assert_eq!(ran.code, 128 + 9);
    // Whoever leaves `--` out means the same.
    assert_eq!(place.run(&["sh", "-c", "exit 9"]).code, 9);
    assert!(place.fixture.usage_error(&["run"]).contains("COMMAND"));
    assert_eq!(place.left(), [""; 0].map(PathBuf::from));
}

#[test]
fn what_is_ignored_stays_so() {
    let place = Place::new(YAML);
    let nohup = format!(
        "trap '' HUP; {} run -- sh -c 'echo up; sleep 1; echo survived' > out & \
         while ! grep -q up out; do sleep 0.05; done; kill -HUP $!; wait $!; cat out",
        env!("CARGO_BIN_EXE_feast-registry")
    );
    let mut command = Command::new("sh");
    command.args(["-c", &nohup]).current_dir(place.fixture.folder.path());
    command.env("XDG_RUNTIME_DIR", place.runtime.path());
    let ran = Ran::of(command.output().expect("it runs"));
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "up\nsurvived\n"), "{}", ran.stderr);
}

/// Waits until a command has said so, and returns it.
fn started(place: &Place, script: &str) -> Child {
    let mut command = place.command(&["--", "sh", "-c", script]);
    // Not of the terminal that these tests may have.
    let mut child = command.process_group(0).spawn().expect("it starts");
    let mut line = String::new();
    let mut reader = BufReader::with_capacity(1, child.stdout.as_mut().expect("stdout"));
    reader.read_line(&mut line).expect("a line");
    assert_eq!(line, "up\n");
    child
}

#[test]
fn signals_are_for_the_command_and_each_comes_once() {
    for signal in ["HUP", "INT", "QUIT", "TERM", "USR1", "USR2"] {
        let place = Place::new(YAML);
        let script = format!(
            "trap 'echo {signal}' {signal}; echo up; n=0; while [ $n -lt 2 ]; do n=$((n+1)); sleep 1 & wait; done; exit 3"
        );
        let child = started(&place, &script);
        let sent = Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status();
        assert!(sent.expect("kill runs").success());
        let ran = Ran::of(child.wait_with_output().expect("it ends"));
        assert_eq!((ran.code, ran.stdout.trim()), (3, signal), "{}", ran.stderr);
        assert_eq!(place.left(), [""; 0].map(PathBuf::from));
    }
}

#[test]
fn what_a_killed_one_has_left_is_removed_by_the_next() {
    let place = Place::new(YAML);
    let mut child = started(&place, "echo up; exec sleep 60");
    let mut other = started(&place, "echo up; exec sleep 60");
    child.kill().expect("killed");
    child.wait().expect("it is gone");
    let left = place.left();
    assert_eq!(left.len(), 2);
    // A younger one may be in the making.
    assert_eq!(place.run(&["--", "true"]).code, 0);
    assert_eq!(place.left().len(), 2);
    for folder in &left {
        let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(120);
        std::fs::File::open(folder).expect("a folder").set_modified(long_ago).expect("set");
    }
    let ran = place.run(&["--", "ls", &place.runtime.path().display().to_string()]);
    assert_eq!((ran.code, ran.stdout.lines().count()), (0, 2), "the other's, and its own: {}", ran.stdout);
    Command::new("kill").arg(other.id().to_string()).status().expect("kill runs");
    other.wait().expect("it ends");
    assert_eq!(place.left(), [""; 0].map(PathBuf::from));
}

#[test]
fn a_server_is_at_a_socket_and_goes_when_it_is_unused() {
    let fixture = Fixture::empty();
    let start = |arguments: &[&str]| {
        Server::run(&mut fixture.command(&[&["serve", "--listen", "unix:registry.sock"], arguments].concat()))
    };
    let server = start(&[]);
    let path = format!("unix://{}", fixture.path("registry.sock").display());
    assert_eq!(fixture.ok(&["health", &path]), "SERVING\n");
    assert_eq!(fixture.ok(&["health", "--live", "unix:registry.sock"]), "SERVING\n");
    let error = fixture.error(&["serve", "--listen", "unix:registry.sock"]);
    assert!(error.contains("another server listens on"), "{error}");
    drop(server);
    assert!(Path::new(&fixture.path("registry.sock")).exists(), "it was killed");
    assert!(fixture.error(&["health", &path]).contains("there is no server at unix://"));
    let server = start(&["--until-unused", "0.3"]);
    assert_eq!(fixture.ok(&["health", &path]), "SERVING\n");
    let (code, log) = server.wait();
    assert!(code == Some(0) && log.contains("--until-unused") && log.contains("stopped"), "{code:?} {log}");
    assert!(!fixture.path("registry.sock").exists());

    for (arguments, problem) in [
        (&["--listen", "/run/x.sock"][..], "unix:PATH"),
        (&["--listen", "unix:x", "--port", "6570"], "cannot be used with"),
        (&["--listen", "unix:x", "--listen-mode", "999"], "octal permissions"),
        (&["--listen", "unix:x", "--listen-mode", "060"], "octal permissions"),
        (&["--until-unused", "3"], "--listen"),
    ] {
        let error = fixture.usage_error(&[&["serve"], arguments].concat());
        assert!(error.contains(problem), "{arguments:?}: {error}");
    }
    let long = format!("unix:{}", "x".repeat(200));
    assert!(fixture.error(&["serve", "--listen", &long]).contains("at most"));
}

#[test]
fn a_self_test_says_that_it_works_and_leaves_nothing() {
    let fixture = Fixture::empty();
    // A URI of it is not what a file system takes for one.
    let odd = fixture.path("a%41 b?#ü");
    std::fs::create_dir(&odd).expect("made");
    let output = fixture.command(&["self-test"]).env("TMPDIR", &odd).env_remove("XDG_RUNTIME_DIR").output();
    let ran = Ran::of(output.expect("it runs"));
    std::fs::remove_dir(&odd).expect("it is empty");
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    assert_eq!(ran.stdout.lines().filter(|line| line.contains(": ok, ")).count(), 2, "{}", ran.stdout);
    assert!(ran.stdout.contains("works"), "{}", ran.stdout);
    assert_eq!(std::fs::read_dir(fixture.folder.path()).expect("a folder").count(), 0);
    let version = fixture.ok(&["--version"]);
    let mut lines = version.lines();
    assert_eq!(lines.next(), Some(&*format!("feast-registry {} (development build)", env!("CARGO_PKG_VERSION"))));
    assert!(lines.next().is_some_and(|line| line.starts_with("features: ") && line.contains("sqlite")), "{version}");
}

/// Under the name of Feast's command: what it serves itself, and what it leaves to the next in PATH.
#[test]
fn under_feasts_name_it_serves_and_leaves_the_rest_to_feast() {
    let fixture = Fixture::empty();
    for folder in ["first", "second", "repo"] {
        std::fs::create_dir(fixture.path(folder)).expect("made");
    }
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_feast-registry"), fixture.path("first/feast")).expect("a link");
    let feasts = fixture.path("second/feast");
    std::fs::write(&feasts, "#!/bin/sh\necho \"$0\" \"$@\"\nexit 5\n").expect("written");
    std::fs::set_permissions(&feasts, std::fs::Permissions::from_mode(0o755)).expect("set");
    std::fs::write(fixture.path("repo/feature_store.yaml"), "project: rides\nregistry: data/registry.db\n")
        .expect("written");
    let path = |folders: &[&str]| std::env::join_paths(folders.iter().map(|name| fixture.path(name))).expect("a path");
    let feast = |arguments: &[&str], folders: &[&str]| {
        let mut command = fixture.command(&[]);
        // The name by which a program is called is what it goes by.
        command.arg0(fixture.path("first/feast")).args(arguments).env("PATH", path(folders));
        command
    };

    for arguments in
        [&["apply"][..], &["-c", "repo", "materialize-incremental", "2026-01-01"], &["serve", "--help"], &[]]
    {
        let ran = Ran::of(feast(arguments, &["first", "second"]).output().expect("it runs"));
        let expected = [&[feasts.to_str().expect("text")], arguments].concat().join(" ");
        assert_eq!((ran.code, ran.stdout.trim()), (5, &*expected), "{}", ran.stderr);
    }
    let ran = Ran::of(feast(&["apply"], &["first"]).output().expect("it runs"));
    assert!(ran.code == 127 && ran.stderr.contains("no other `feast` in PATH"), "{} {}", ran.code, ran.stderr);
    // A copy is another program, and leads back to this one.
    std::fs::create_dir(fixture.path("copy")).expect("made");
    std::fs::copy(env!("CARGO_BIN_EXE_feast-registry"), fixture.path("copy/feast")).expect("copied");
    let ran = Ran::of(feast(&["apply"], &["copy", "first"]).output().expect("it runs"));
    assert!(ran.code == 127 && ran.stderr.contains("leads back to feast-registry"), "{} {}", ran.code, ran.stderr);
    let ran = Ran::of(feast(&["serve_registry", "--help"], &["first", "second"]).output().expect("it runs"));
    assert!(ran.code == 0 && ran.stdout.contains("--rest-port"), "{} {}", ran.code, ran.stdout);
    let ran = Ran::of(feast(&["serve_registry", "--nonsense"], &["first", "second"]).output().expect("it runs"));
    assert!(ran.code == 2 && ran.stderr.contains("--nonsense"), "{} {}", ran.code, ran.stderr);

    let server = Server::run(&mut feast(
        &["--log-level", "info", "-c", "repo", "serve_registry", "-p", "0"],
        &["first", "second"],
    ));
    assert!(server.address().starts_with("[::]:"), "{}", server.address());
    let port = server.address().rsplit(':').next().expect("a port");
    assert_eq!(fixture.ok(&["health", &format!("127.0.0.1:{port}")]), "SERVING\n");
    assert_eq!(server.stop().0, Some(0));
    assert!(fixture.path("repo/data/registry.db").exists(), "what is relative is so to the repository");
}
