//! `feast-registry serve --ui`.

use std::fs;
use std::io::Write;
use std::net::TcpStream;

use super::serve::Server;
use super::*;

/// What is answered to a request without a body, headers and all.
fn get(address: &str, path: &str) -> String {
    get_with(address, path, "")
}

/// The same with a header, and the end of its line.
fn get_with(address: &str, path: &str, header: &str) -> String {
    let mut connection = TcpStream::connect(address).expect("it listens");
    write!(connection, "GET {path} HTTP/1.1\r\nHost: {address}\r\n{header}Connection: close\r\n\r\n")
        .expect("a request");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).expect("an answer");
    answer
}

/// A folder with a page, as Feast's package has one.
fn bundle(fixture: &Fixture) -> PathBuf {
    let folder = fixture.path("site/feast/ui/build");
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(folder.join("index.html"), "<html><head></head><body>Feast</body></html>").expect("a page");
    folder
}

/// The address of the REST API, as the log names it before the start-up line.
fn rest_address(server: &Server) -> String {
    let line = server.before.lines().find(|line| line.contains("REST API over HTTP on")).expect("a line");
    line.rsplit(' ').next().expect("an address").to_owned()
}

const REST: [&str; 3] = ["--rest-api", "--rest-port", "0"];

/// A registry with a project of which more is known than its name.
async fn filled() -> Fixture {
    let fixture = Fixture::filled().await;
    let spec = ProjectSpec { name: "shop".into(), description: "What we sell".into(), ..Default::default() };
    apply(&fixture.open().await, "shop", &Project { spec: Some(spec), meta: None }).await;
    fixture
}

#[tokio::test]
async fn the_pages_are_served_beside_the_api() {
    let fixture = filled().await;
    let folder = bundle(&fixture);
    let server = Server::start(&fixture, &[&REST[..], &["--ui", folder.to_str().expect("text")]].concat());
    assert!(server.before.contains(&format!("web UI from {}", folder.canonicalize().expect("a folder").display())));
    let address = rest_address(&server);
    let page = get(&address, "/p/anything");
    assert!(page.starts_with("HTTP/1.1 200 ") && page.contains(r#"{"auth_type":"no_auth"}"#), "{page}");
    let projects = get(&address, "/projects-list.json");
    for part in [r#""name":"All Projects""#, r#""registryPath":"/api/v1""#, "What we sell"] {
        assert!(projects.contains(part), "{projects}");
    }
    assert!(get(&address, "/api/v1/projects").contains(r#"{"projects":["#));
    for path in ["/nothing.js", "/api/v1/nothing", "/..%2f..%2f..%2fregistry.db"] {
        assert!(get(&address, path).starts_with("HTTP/1.1 404 "), "{path}");
    }
    assert_eq!(server.stop().0, Some(0));
}

/// Fault: whoever could reach the server was told the names of all projects, although nobody could log in to the pages.
#[tokio::test]
async fn where_nobody_can_log_in_the_list_of_projects_is_for_those_who_have_a_token() {
    let fixture = filled().await;
    let folder = bundle(&fixture);
    let token = fixture.ok(&["tokens", "new", "ann", "--role", "reader", "--file", "tokens.yaml"]);
    let token = token.split_whitespace().find(|word| word.starts_with("frt_")).unwrap_or_else(|| panic!("{token}"));
    let ui = ["--ui", folder.to_str().expect("text"), "--tokens", "tokens.yaml"];
    let server = Server::start(&fixture, &[&REST[..], &ui].concat());
    let address = rest_address(&server);
    assert!(get(&address, "/").starts_with("HTTP/1.1 200 "));
    let refused = get(&address, "/projects-list.json");
    assert!(refused.starts_with("HTTP/1.1 401 ") && !refused.contains("shop"), "{refused}");
    let told = get_with(&address, "/projects-list.json", &format!("Authorization: Bearer {token}\r\n"));
    assert!(told.starts_with("HTTP/1.1 200 ") && told.contains("What we sell"), "{told}");
    let (code, log) = server.stop();
    assert_eq!(code, Some(0));
    assert!(log.contains("nobody can log in to the web UI: it takes no tokens of a file"), "{log}");
}

/// Pages ask for the list before anybody has logged in.
#[tokio::test]
async fn where_people_log_in_the_list_of_projects_has_their_names_alone() {
    let fixture = filled().await;
    let folder = bundle(&fixture);
    let registry = format!("{{registry_type: sql, path: '{}'}}", fixture.url());
    let auth =
        "{type: oidc, auth_discovery_url: 'http://127.0.0.1:1/realms/feast/d', client_id: a, ui_client_id: pages}";
    let configuration = format!("project: rides\nregistry: {registry}\nauth: {auth}\n");
    fs::write(fixture.path("feature_store.yaml"), configuration).expect("a file");
    let ui = ["--ui", folder.to_str().expect("text"), "-c", "feature_store.yaml"];
    let server = Server::start(&fixture, &[&REST[..], &ui].concat());
    let address = rest_address(&server);
    let page = get(&address, "/");
    for part in [r#""client_id":"pages""#, r#""url":"http://127.0.0.1:1""#, "connect-src 'self' http://127.0.0.1:1;"] {
        assert!(page.contains(part), "{page}");
    }
    let projects = get(&address, "/projects-list.json");
    assert!(projects.starts_with("HTTP/1.1 200 ") && projects.contains(r#""id":"shop""#), "{projects}");
    assert!(!projects.contains("What we sell"), "{projects}");
    assert!(get(&address, "/api/v1/projects").starts_with("HTTP/1.1 401 "));
}

/// What `--ui auto` finds is what the active environment's Python says.
#[cfg(unix)]
#[tokio::test]
async fn auto_finds_the_installed_package() {
    use std::os::unix::fs::PermissionsExt;

    let fixture = Fixture::filled().await;
    let folder = bundle(&fixture);
    let python = fixture.path("venv/bin/python");
    fs::create_dir_all(python.parent().expect("a folder")).expect("a folder");
    fs::write(&python, format!("#!/bin/sh\necho {}\n", fixture.path("site/feast").display())).expect("a script");
    fs::set_permissions(&python, fs::Permissions::from_mode(0o755)).expect("it can be run");
    let mut serve = fixture.command(&[&["serve", "--port", "0"], &REST[..], &["--ui", "auto"]].concat());
    let server = Server::run(serve.env("VIRTUAL_ENV", fixture.path("venv")));
    assert!(server.before.contains(&format!("web UI from {}", folder.canonicalize().expect("a folder").display())));
}

#[test]
fn without_pages_it_does_not_start_and_says_what_to_do() {
    let fixture = Fixture::empty();
    let serve = ["serve", "--port", "0"];
    let ran = fixture.run(&[&serve[..], &REST, &["--ui", "."]].concat());
    assert!(ran.code == 1 && ran.stderr.contains("--ui: . has no index.html: name the folder"), "{}", ran.stderr);
    let mut nobody = fixture.command(&[&serve[..], &REST, &["--ui", "auto"]].concat());
    let ran = Ran::of(nobody.env("PATH", fixture.path("")).env_remove("VIRTUAL_ENV").output().expect("it runs"));
    assert!(ran.code == 1 && ran.stderr.contains("there is no Python in PATH"), "{}", ran.stderr);
    let ran = fixture.run(&[&serve[..], &["--ui", "auto"]].concat());
    assert!(ran.code == 2 && ran.stderr.contains("--rest-api"), "{}", ran.stderr);
    assert!(!fixture.path("registry.db").exists());
}
