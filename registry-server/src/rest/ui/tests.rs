//! The UI over a folder that looks like Feast's bundle.

use std::fs;
use std::io::Read;

use feast_registry_core::ErrorKind;
use http_body_util::BodyExt as _;
use tempfile::TempDir;

use super::*;

const PAGE: &str = "<!doctype html><html><head><title>Feast</title></head><body></body></html>";
const SCRIPT: &str = "console.log('feast');";

struct Bundle {
    folder: TempDir,
    ui: Ui,
}

struct Got {
    status: StatusCode,
    headers: HeaderMap,
    content: Vec<u8>,
}

impl Got {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.content).expect("text")
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }
}

impl Bundle {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let build = folder.path().join("build");
        fs::create_dir_all(build.join("static/js")).expect("a folder");
        for (name, content) in [
            ("index.html", PAGE),
            ("manifest.json", "{}"),
            ("projects-list.json", "a sample of the bundle"),
            (".hidden", "secret"),
            ("static/js/main.9605e968.js", SCRIPT),
            ("static/js/main.9605e968.js.map", "{}"),
        ] {
            fs::write(build.join(name), content).expect("a file");
        }
        fs::write(build.join("static/large.js"), SCRIPT.repeat(5000)).expect("a file");
        fs::write(folder.path().join("outside.json"), "secret").expect("a file");
        let ui = Ui::open(&build).expect("it has a page");
        Self { folder, ui }
    }

    async fn ask(&self, method: Method, path: &str, headers: &[(&'static str, &str)]) -> Option<Got> {
        let mut given = HeaderMap::new();
        for (name, value) in headers {
            given.append(*name, value.parse().expect("a value"));
        }
        let page = Ui::page(&method, path)?;
        let projects = async || Ok::<_, ()>(projects_list([], Some("rides")));
        let response = self.ui.answer(page, &method, &given, projects).await.expect("the registry answers")?;
        let (parts, body) = response.into_parts();
        let content = body.collect().await.expect("the whole body").to_bytes().to_vec();
        Some(Got { status: parts.status, headers: parts.headers, content })
    }

    async fn get(&self, path: &str) -> Option<Got> {
        self.ask(Method::GET, path, &[]).await
    }
}

#[tokio::test]
async fn every_address_of_the_pages_is_the_page_with_how_people_log_in() {
    let bundle = Bundle::new();
    for path in ["/", "/index.html", "/p/rides", "/p/rides/feature-view/a.b/..", "/p/"] {
        let got = bundle.get(path).await.expect(path);
        let script = r#"<script id="feast-auth-config" type="application/json">{"auth_type":"no_auth"}</script>"#;
        assert_eq!(got.text(), PAGE.replace("</head>", &format!("{script}\n</head>")), "{path}");
        assert_eq!(got.header("content-type"), "text/html; charset=utf-8");
        assert_eq!(got.header("cache-control"), "no-cache");
        assert_eq!(got.header("x-frame-options"), "DENY");
        assert!(got.header("content-security-policy").contains("script-src 'self';"));
    }
}

#[tokio::test]
async fn files_say_what_they_are_and_how_long_they_are_good() {
    let bundle = Bundle::new();
    let script = bundle.get("/static/js/main.9605e968.js").await.expect("it is there");
    assert_eq!((script.status, script.text()), (StatusCode::OK, SCRIPT));
    assert_eq!(script.header("content-type"), "text/javascript; charset=utf-8");
    assert_eq!(script.header("cache-control"), "public, max-age=31536000, immutable");
    assert_eq!(script.header("content-length"), SCRIPT.len().to_string());
    assert_eq!(script.header("x-content-type-options"), "nosniff");
    let manifest = bundle.get("/manifest.json").await.expect("it is there");
    assert_eq!((manifest.header("content-type"), manifest.header("cache-control")), ("application/json", "no-cache"));
    assert!(bundle.get("/static/js/main.9605e968.js.map").await.is_some());
}

#[tokio::test]
async fn the_list_of_projects_is_the_registrys_and_not_the_bundles_sample() {
    let got = Bundle::new().get("/projects-list.json").await.expect("it is there");
    assert!(got.text().contains(r#""id":"rides""#), "{}", got.text());
    assert_eq!((got.header("content-type"), got.header("cache-control")), ("application/json", "no-cache"));
}

#[tokio::test]
async fn nothing_beside_the_files_of_the_folder_is_served() {
    let bundle = Bundle::new();
    for path in [
        "/nothing",
        "/static",
        "/static/",
        "/static/js",
        "/../outside.json",
        "/%2e%2e/outside.json",
        "/..%2foutside.json",
        "/static/..%2f..%2foutside.json",
        "/static/%2e%2e/manifest.json",
        "/..%5coutside.json",
        "/%2fetc/passwd",
        "//etc/passwd",
        "/.hidden",
        "/manifest.json%00",
        "/manifest.json/",
        "/%ff",
        "",
    ] {
        assert!(bundle.get(path).await.is_none(), "{path}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn links_are_followed_within_the_folder_alone() {
    use std::os::unix::fs::symlink;

    let bundle = Bundle::new();
    let build = bundle.folder.path().join("build");
    symlink(bundle.folder.path().join("outside.json"), build.join("out.json")).expect("a link");
    symlink(bundle.folder.path(), build.join("up")).expect("a link");
    symlink("manifest.json", build.join("within.json")).expect("a link");
    assert!(bundle.get("/out.json").await.is_none());
    assert!(bundle.get("/up/outside.json").await.is_none());
    assert_eq!(bundle.get("/within.json").await.expect("it is there").text(), "{}");
}

#[tokio::test]
async fn other_methods_and_the_api_are_left_to_others() {
    let bundle = Bundle::new();
    assert!(bundle.ask(Method::POST, "/", &[]).await.is_none());
    assert!(bundle.ask(Method::DELETE, "/manifest.json", &[]).await.is_none());
    assert!(bundle.get("/api/v1/entities").await.is_none());
}

#[tokio::test]
async fn what_a_client_has_is_not_sent_again() {
    let bundle = Bundle::new();
    for path in ["/", "/projects-list.json", "/manifest.json", "/static/js/main.9605e968.js", "/api/mlflow-runs"] {
        let first = bundle.get(path).await.expect(path);
        let tag = first.header("etag").to_owned();
        assert!(tag.starts_with('"') && tag.len() > 4, "{path}: {tag}");
        let again =
            bundle.ask(Method::GET, path, &[("if-none-match", &format!("\"other\", W/{tag}"))]).await.expect(path);
        assert_eq!((again.status, again.content.len()), (StatusCode::NOT_MODIFIED, 0), "{path}");
        assert_eq!(
            (again.header("etag"), again.header("cache-control")),
            (tag.as_str(), first.header("cache-control"))
        );
        let other = bundle.ask(Method::GET, path, &[("if-none-match", "\"other\"")]).await.expect(path);
        assert_eq!((other.status, other.content), (StatusCode::OK, first.content), "{path}");
    }
}

#[tokio::test]
async fn a_file_that_changes_is_another() {
    let bundle = Bundle::new();
    let first = bundle.get("/manifest.json").await.expect("it is there");
    fs::write(bundle.folder.path().join("build/manifest.json"), "{\"name\": 1}").expect("a file");
    let known = [("if-none-match", first.header("etag"))];
    let second = bundle.ask(Method::GET, "/manifest.json", &known).await.expect("it is there");
    assert_eq!(second.text(), "{\"name\": 1}");
}

#[tokio::test]
async fn to_head_all_is_told_but_the_content() {
    let bundle = Bundle::new();
    for path in ["/", "/p/rides", "/static/large.js", "/manifest.json", "/projects-list.json"] {
        let whole = bundle.get(path).await.expect(path);
        let head = bundle.ask(Method::HEAD, path, &[]).await.expect(path);
        assert_eq!((head.status, head.content.len()), (StatusCode::OK, 0), "{path}");
        assert_eq!(head.header("content-length"), whole.content.len().to_string(), "{path}");
        assert_eq!(head.header("etag"), whole.header("etag"), "{path}");
    }
}

#[tokio::test]
async fn large_files_are_compressed_for_who_takes_that() {
    let bundle = Bundle::new();
    let plain = bundle.get("/static/large.js").await.expect("it is there");
    assert_eq!((plain.header("content-encoding"), plain.content.len()), ("", SCRIPT.len() * 5000));
    // The second is what the first has left; then the file is another.
    for content in [plain.text(), plain.text(), "let x = 1;".repeat(2000).as_str()] {
        fs::write(bundle.folder.path().join("build/static/large.js"), content).expect("a file");
        let packed =
            bundle.ask(Method::GET, "/static/large.js", &[("accept-encoding", "br, gzip")]).await.expect("there");
        assert_eq!((packed.header("content-encoding"), packed.header("vary")), ("gzip", "accept-encoding"));
        assert!(packed.header("etag").starts_with("W/"));
        assert_eq!(packed.header("content-length"), packed.content.len().to_string());
        let mut text = String::new();
        flate2::read::GzDecoder::new(&packed.content[..]).read_to_string(&mut text).expect("it is gzip");
        assert!(text == content && packed.content.len() < content.len() / 10);
    }
    let small = bundle.ask(Method::GET, "/manifest.json", &[("accept-encoding", "gzip")]).await.expect("there");
    assert_eq!(small.header("content-encoding"), "");
}

#[tokio::test]
async fn mlflow_is_off_as_the_pages_understand_it() {
    let bundle = Bundle::new();
    for (path, told) in [
        ("/api/mlflow-runs", json!({ "runs": [], "mlflow_uri": null })),
        ("/api/mlflow-feature-usage", json!({ "feature_usage": {}, "mlflow_enabled": false })),
        ("/api/mlflow-feature-models", json!({ "feature_models": {} })),
    ] {
        let got = bundle.get(path).await.expect(path);
        assert_eq!(serde_json::from_str::<Value>(got.text()).expect("JSON"), told, "{path}");
    }
}

#[tokio::test]
async fn health_is_that_of_the_registry() {
    let bundle = Bundle::new();
    assert_eq!(bundle.get("/health").await.expect("it is there").status, StatusCode::OK);
    let fails = async || Err("it does not answer");
    let health = bundle.ui.answer(Page::Health, &Method::GET, &HeaderMap::new(), fails).await;
    assert_eq!(health.expect("an answer").expect("an answer").status(), StatusCode::SERVICE_UNAVAILABLE);
    let list = bundle.ui.answer(Page::Projects, &Method::GET, &HeaderMap::new(), fails).await;
    assert_eq!(list.expect_err("the registry's error"), "it does not answer");
}

/// Those of Keycloak are told apart, since the pages want them so.
#[test]
fn the_pages_are_told_how_people_log_in() {
    let oidc = |discovery: &str| Login::Oidc { discovery: discovery.to_owned(), client: "ui".to_owned() };
    assert_eq!(Login::None.told(), json!({ "auth_type": "no_auth" }));
    assert_eq!(Login::Kubernetes.told(), json!({ "auth_type": "kubernetes" }));
    let discovery = "https://id.example:8443/auth/realms/feast/.well-known/openid-configuration";
    assert_eq!(
        oidc(discovery).told(),
        json!({
            "auth_type": "oidc", "auth_discovery_url": discovery, "client_id": "ui",
            "url": "https://id.example:8443/auth", "realm": "feast",
        })
    );
    let other = "https://id.example/.well-known/openid-configuration";
    assert_eq!(oidc(other).told(), json!({ "auth_type": "oidc", "auth_discovery_url": other, "client_id": "ui" }));
}

/// What the configuration holds cannot become a part of the page, nor of what the page may do.
#[tokio::test]
async fn a_login_cannot_leave_its_script_or_widen_the_policy() {
    let mut bundle = Bundle::new();
    let discovery = "https://id.example; script-src */realms/x</script><script>alert(1)</script>".to_owned();
    bundle.ui = bundle.ui.with_login(&Login::Oidc { discovery: discovery.clone(), client: "a&b".to_owned() });
    let got = bundle.get("/").await.expect("a page");
    assert_eq!(got.text().matches("</script>").count(), 1, "{}", got.text());
    let told = got.text().split("json\">").nth(1).and_then(|rest| rest.split("</script>").next()).expect("a script");
    let told: Value = serde_json::from_str(told).expect("JSON");
    assert_eq!((&told["auth_discovery_url"], &told["client_id"]), (&json!(discovery), &json!("a&b")));
    assert!(got.header("content-security-policy").contains("connect-src 'self';"));
}

#[tokio::test]
async fn pages_may_ask_the_identity_provider() {
    let mut bundle = Bundle::new();
    let discovery = "https://id.example:8443/realms/feast/.well-known/openid-configuration".to_owned();
    bundle.ui = bundle.ui.with_login(&Login::Oidc { discovery, client: String::new() });
    let got = bundle.get("/").await.expect("a page");
    assert!(got.header("content-security-policy").contains("connect-src 'self' https://id.example:8443;"));
}

#[test]
fn a_folder_without_the_bundle_is_refused_with_advice() {
    let folder = tempfile::tempdir().expect("a folder");
    for (place, why) in
        [(folder.path().to_owned(), "has no index.html"), (folder.path().join("no"), "cannot be opened")]
    {
        let error = Ui::open(&place).expect_err("there is no bundle");
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        let text = error.to_string();
        assert!(text.contains("--ui") && text.contains(why) && text.contains("`auto`"), "{text}");
    }
    #[cfg(unix)]
    {
        let outside = tempfile::NamedTempFile::new().expect("a file");
        std::os::unix::fs::symlink(outside.path(), folder.path().join("index.html")).expect("a link");
        assert!(Ui::open(folder.path()).expect_err("it leads out").to_string().contains("link out of it"));
    }
}
