//! Who may ask for what, and what is noted of it. All that each caller is told is in the tests of permissions.

use std::fs;
use std::time::Duration;

use feast_registry_core::access::{AccessRules, Admins, Unprotected};
use feast_registry_server::{
    AuditLog, Authentication, Metrics, RestOptions, Security, ServeOptions, TokenEntry, new_token,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::{BOTH, Reply};
use crate::connections::gated;
use crate::server::{Server, entity, start_with};

struct Secured {
    server: Server,
    folder: TempDir,
    admin: String,
    other: String,
    audit: AuditLog,
}

fn security(folder: &TempDir) -> (Security, String, String) {
    let token = || new_token().expect("a token");
    let (admin, other) = (token(), token());
    let entries = [TokenEntry::new("root", &admin), TokenEntry::new("eve", &other)];
    let file = folder.path().join("tokens.yaml");
    fs::write(&file, serde_json::to_string(&entries).expect("it is encoded")).expect("a file");
    let mut security = Security::new(Authentication::builder().tokens(&file).expect("tokens").build());
    let mut admins = Admins::default();
    admins.users.insert("root".to_owned());
    security.rules = AccessRules::default().with_unprotected(Unprotected::Deny).with_admins(admins);
    (security, admin, other)
}

async fn secured() -> Secured {
    let folder = TempDir::new().expect("a folder");
    let (mut security, admin, other) = security(&folder);
    let audit = AuditLog::open(&folder.path().join("audit.jsonl"), true).expect("a log");
    security.audit = Some(audit.clone());
    let mut options = ServeOptions::default();
    options.security = Some(security);
    let mut rest = RestOptions::default();
    rest.cors_origins = vec!["https://catalog.example".to_owned()];
    let server = start_with(options, rest).await;
    server.apply("rides", entity("driver", "before")).await;
    Secured { server, folder, admin, other, audit }
}

impl Secured {
    async fn ask(&self, token: &str, method: &str, path: &str) -> Reply {
        self.server.ask(method, path).header("authorization", format!("Bearer {token}")).send().await
    }

    async fn events(&self) -> Vec<Value> {
        self.audit.flush().await;
        let log = fs::read_to_string(self.folder.path().join("audit.jsonl")).expect("a log");
        log.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }
}

#[tokio::test]
async fn who_does_not_say_who_they_are_is_told_so_before_anything_else() {
    let secured = secured().await;
    let commits = secured.server.commits().await;
    for version in BOTH {
        for credentials in [None, Some("Bearer nothing"), Some("Basic cm9vdDpyb290"), Some("Bearer "), Some("")] {
            for (method, path) in [
                ("GET", "/api/v1/entities?project=rides"),
                // Nor what is wrong with the request.
                ("GET", "/entities"),
                ("GET", "/entities/nobody?project=rides"),
                ("HEAD", "/entities/driver?project=rides"),
                ("GET", "/version"),
                ("PUT", "/entities/driver?project=rides"),
                ("DELETE", "/entities/driver?project=rides"),
                ("POST", "/batch?project=rides"),
                ("POST", "/registry/refresh"),
                ("GET", "/saved_datasets/data/x?project=rides"),
            ] {
                let ask = secured.server.ask(method, path).over(version).header("if-match", "*");
                let ask = credentials.map_or(ask.clone(), |credentials| ask.header("authorization", credentials));
                let reply = ask.header("origin", "https://catalog.example").send().await;
                assert_eq!(
                    (reply.status, reply.header("www-authenticate")),
                    (401, "Bearer"),
                    "{method} {path}: {reply:?}"
                );
                // The page is to be told too.
                assert_eq!(reply.header("access-control-allow-origin"), "https://catalog.example");
                match method {
                    "HEAD" => assert!(reply.body.is_empty()),
                    _ => reply.assert_error(401, "HTTPException"),
                }
            }
            // What there is not is no secret.
            for (method, path, status) in
                [("GET", "/nothing", 404), ("PATCH", "/entities", 405), ("GET", "/entities/", 307)]
            {
                let ask = secured.server.ask(method, path).over(version);
                let ask = credentials.map_or(ask.clone(), |credentials| ask.header("authorization", credentials));
                assert_eq!(ask.send().await.status, status, "{method} {path}");
            }
            // A browser asks for a page whether it may ask, and has no token to do so.
            let preflight = secured.server.ask("OPTIONS", "/entities/driver").over(version);
            let preflight =
                preflight.header("origin", "https://catalog.example").header("access-control-request-method", "PUT");
            assert_eq!(preflight.send().await.status, 204);
        }
    }
    assert_eq!(secured.server.commits().await, commits);
    let events = secured.events().await;
    let refused = events.iter().find(|event| event["event_type"] == "registry.authentication").expect("it is noted");
    assert_eq!((&refused["source"]["transport"], &refused["outcome"]), (&json!("http"), &json!("denied")));
}

#[tokio::test]
async fn what_is_done_over_http_is_noted_as_that() {
    let secured = secured().await;
    let put = |token: &str, path: &str, description: &str| {
        let ask = secured.server.ask("PUT", path).header("authorization", format!("Bearer {token}"));
        ask.header("x-request-id", "audited")
            .json(&json!({"spec": {"name": "driver", "description": description}}))
            .send()
    };
    let path = "/api/v1/entities/driver?project=rides";
    put(&secured.other, path, "late").await.assert_error(403, "FeastPermissionError");
    assert_eq!(put(&secured.admin, &format!("{path}&dry_run=true"), "dry").await.status, 200);
    assert_eq!(put(&secured.admin, path, "after").await.status, 200);
    let events = secured.events().await;
    let told: Vec<_> = events
        .iter()
        .map(|event| {
            (event["principal"]["username"].clone(), event["outcome"].clone(), event["action"]["dry_run"].clone())
        })
        .collect();
    let (granted, denied) = (json!("granted"), json!("denied"));
    let expected = [
        (json!("eve"), denied, Value::Null),
        (json!("root"), granted.clone(), json!(true)),
        (json!("root"), granted, Value::Null),
    ];
    assert_eq!(told, expected, "{events:?}");
    for event in &events {
        assert_eq!(event["source"], json!({"ip": "127.0.0.1", "transport": "http"}));
        assert_eq!(event["request_id"], "audited");
        assert_eq!(event["action"]["path"], "/api/v1/entities/driver");
        assert_eq!(event["resource"]["name"], "driver");
    }
    // Reads are not, unless they are refused.
    assert_eq!(secured.ask(&secured.admin, "GET", path).await.status, 200);
    secured.ask(&secured.other, "GET", path).await.assert_error(403, "FeastPermissionError");
    assert_eq!(secured.events().await.len(), 4);
}

#[tokio::test]
async fn a_caller_may_have_so_much_under_way() {
    let folder = TempDir::new().expect("a folder");
    let (mut security, admin, other) = security(&folder);
    security.limits.calls = 2;
    let mut options = ServeOptions::default();
    options.security = Some(security);
    let (server, storage) = gated(options).await;
    storage.close_gate();
    let ask = |token: &str| {
        let path = "/entities/driver?project=rides&allow_cache=false";
        server.ask("GET", path).header("authorization", format!("Bearer {token}"))
    };
    let under_way: Vec<_> = (0..2).map(|_| tokio::spawn(ask(&admin).send())).collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    for version in BOTH {
        let reply = ask(&admin).over(version).send().await;
        reply.assert_error(429, "ResourceExhausted");
        assert_eq!(reply.header("retry-after"), "1");
    }
    let of_other = tokio::spawn(ask(&other).send());
    storage.gate.add_permits(1000);
    for reply in under_way {
        assert_eq!(reply.await.expect("no panic").status, 200);
    }
    assert_eq!(of_other.await.expect("no panic").status, 403, "they are not held up by others");
    assert_eq!(ask(&admin).send().await.status, 200);
}

/// Fault: what was asked for without its body counted as broken off.
#[tokio::test]
async fn requests_are_counted_by_their_routes() {
    let metrics = Metrics::install().expect("no other test of this process does");
    let server = start_with(ServeOptions::default(), RestOptions::default()).await;
    server.apply("measured", entity("driver", "")).await;
    for number in 0..400 {
        server.apply("measured", entity(&format!("entity_{number}"), "long and dull")).await;
    }
    for version in BOTH {
        for method in ["GET", "HEAD"] {
            for (path, status) in [
                ("/api/v1/entities/driver?project=measured", 200),
                ("/entities/nobody?project=measured", 404),
                ("/lineage/complete?project=measured", 200),
                ("/measured/and/not/there", 404),
            ] {
                assert_eq!(server.ask(method, path).over(version).send().await.status, status);
            }
            let known = server.ask(method, "/entities?project=measured").over(version).header("if-none-match", "*");
            assert_eq!(known.send().await.status, 304);
        }
        let body = json!({"spec": {"name": "driver"}});
        let late = server
            .ask("PUT", "/entities/driver?project=measured")
            .over(version)
            .header("if-match", "\"x\"")
            .json(&body);
        assert_eq!(late.send().await.status, 412);
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let text = metrics.render();
    let handled = |method: &str, code: &str| {
        let labels =
            [format!("grpc_method=\"{method}\""), "grpc_service=\"rest\"".to_owned(), format!("grpc_code=\"{code}\"")];
        let mut lines = text.lines().filter(|line| line.starts_with("grpc_server_handled_total{"));
        let line = lines.find(|line| labels.iter().all(|label| line.contains(label.as_str())));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).unwrap_or_default()
    };
    assert_eq!(handled("GET /entities/{name}", "OK"), 4, "{text}");
    assert_eq!(handled("GET /entities/{name}", "NotFound"), 4);
    assert_eq!(handled("GET /lineage/complete", "OK"), 4);
    assert_eq!(handled("GET /entities", "OK"), 4);
    assert_eq!(handled("PUT /entities/{name}", "FailedPrecondition"), 2);
    let of_rest = |line: &&str| line.starts_with("grpc_server_handled_total{") && line.contains("\"rest\"");
    let broken: Vec<&str> =
        text.lines().filter(of_rest).filter(|line| line.contains("Canceled") && !line.ends_with(" 0")).collect();
    assert!(broken.is_empty(), "{broken:?}");
    assert!(!text.contains("measured/and"), "what anybody asks for is no label");
}
