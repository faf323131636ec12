//! What is read: entity tags, compression, requests without a body, and what no route has.

use std::io::Read as _;

use feast_registry_core::Object;
use feast_registry_core::proto::core::FeatureService;
use feast_registry_server::{RestOptions, ServeOptions};

use crate::client::{BOTH, Version};
use crate::server::{Server, entity, source, start, start_with, view};

async fn with_driver() -> Server {
    let server = start().await;
    server.apply("rides", entity("driver", "who drives")).await;
    server
}

#[tokio::test]
async fn what_a_client_has_already_is_not_sent_again() {
    let server = with_driver().await;
    server.apply("rides", view("stats", "driver", &["trips"])).await;
    for path in [
        "/api/v1/entities/driver?project=rides",
        "/entities?project=rides",
        "/entities/all",
        "/features?project=rides",
        "/features/stats/trips?project=rides",
        "/projects",
        "/projects/rides",
        "/feature_views/stats?project=rides&include_relationships=true",
        "/lineage/registry?project=rides",
        "/lineage/complete?project=rides",
    ] {
        let tag = server.get(path).await.tag();
        assert!(tag.starts_with('"'), "{path}: it is not compressed: {tag}");
        assert_eq!(server.get(path).await.tag(), tag, "{path}");
        for version in BOTH {
            for method in ["GET", "HEAD"] {
                for known in [tag.clone(), format!("W/{tag}"), format!("\"other\", {tag}"), "*".to_owned()] {
                    let ask = server.ask(method, path).over(version).header("if-none-match", &known);
                    let reply = ask.send().await;
                    assert_eq!((reply.status, reply.body.len()), (304, 0), "{method} {path} {known}: {reply:?}");
                    assert_eq!(reply.tag(), tag);
                    assert!(reply.header("vary").contains("authorization"), "{reply:?}");
                    assert_eq!(reply.header("cache-control"), "private, no-cache");
                }
            }
            let ask = server
                .ask("GET", path)
                .over(version)
                .header("if-none-match", "\"other\"")
                .header("if-none-match", &tag);
            assert_eq!(ask.send().await.status, 304, "{path}: in a second header");
            let other = server.ask("GET", path).over(version).header("if-none-match", "\"other\"").send().await;
            assert_eq!((other.status, other.tag()), (200, tag.clone()), "{path}");
        }
    }
    // What is not there has no state that a client could have.
    let reply = server.ask("GET", "/entities/nobody?project=rides").header("if-none-match", "*").send().await;
    reply.assert_error(404, "FeastObjectNotFoundException");
}

#[tokio::test]
async fn a_tag_changes_if_what_is_shown_does_and_not_else() {
    let server = with_driver().await;
    let (one, list, all) = ("/entities/driver?project=rides", "/entities?project=rides", "/entities/all");
    let tags = async || [server.get(one).await.tag(), server.get(list).await.tag(), server.get(all).await.tag()];
    // Of an object, the first part is about what is stored.
    let of_object = |tag: &str| tag.split('.').next().expect("a part").to_owned();
    let first = tags().await;
    server.apply("rides", entity("driver", "who drives")).await;
    server.apply("rides", Object::encode(&source("beside"))).await;
    assert_eq!(tags().await, first, "nothing of it has changed");
    server.apply("elsewhere", entity("driver", "")).await;
    let second = tags().await;
    assert_eq!(second[..2], first[..2], "it was in another project");
    assert_ne!(second[2], first[2]);
    server.apply("rides", entity("driver", "changed")).await;
    let third = tags().await;
    assert!((0..3).all(|which| third[which] != second[which]), "{third:?}");
    server.apply("rides", entity("rider", "")).await;
    let fourth = tags().await;
    assert!(fourth[0] == third[0] && fourth[1] != third[1] && fourth[2] != third[2], "{fourth:?}");

    // What is told besides it is no part of its state.
    let before = server.get(one).await;
    server.apply("rides", Object::encode(&source("stats_source"))).await;
    server.apply("rides", view("stats", "driver", &["trips"])).await;
    let after = server.get(one).await;
    assert_eq!(after.json()["dataSources"].as_array().map(Vec::len), Some(1), "{:?}", after.json());
    assert_ne!(after.tag(), before.tag());
    assert_eq!(of_object(&after.tag()), of_object(&before.tag()));
    let related = server.get(&format!("{one}&include_relationships=true")).await;
    assert_ne!(related.tag(), after.tag());
    assert_eq!(of_object(&related.tag()), of_object(&after.tag()));
    // Of pages, and of what they are sorted by.
    let pages: Vec<String> = [
        server.get(list).await.tag(),
        server.get(&format!("{list}&page=1&limit=1")).await.tag(),
        server.get(&format!("{list}&page=2&limit=1")).await.tag(),
        server.get(&format!("{list}&sort_by=name&sort_order=desc")).await.tag(),
    ]
    .into();
    let mut distinct = pages.clone();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), pages.len(), "{pages:?}");
}

#[tokio::test]
async fn what_is_large_is_compressed_for_who_takes_that() {
    let server = with_driver().await;
    for number in 0..300 {
        server.apply("rides", entity(&format!("entity_{number}"), "long and dull ")).await;
    }
    let list = "/entities?project=rides";
    let plain = server.get(list).await;
    assert_eq!(plain.header("content-encoding"), "");
    for version in BOTH {
        let packed = server.ask("GET", list).over(version).header("accept-encoding", "br, gzip").send().await;
        assert_eq!((packed.header("content-encoding"), packed.header("content-type")), ("gzip", "application/json"));
        assert!(packed.header("vary").contains("accept-encoding"), "{:?}", packed.headers);
        assert!(packed.body.len() * 3 < plain.body.len(), "{} of {}", packed.body.len(), plain.body.len());
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(&packed.body[..]).read_to_end(&mut unpacked).expect("gzip");
        assert_eq!(unpacked, plain.body);
        assert_eq!(packed.tag(), format!("W/{}", plain.tag()), "other bytes, that say the same");
        for known in [packed.tag(), plain.tag()] {
            let ask =
                server.ask("GET", list).over(version).header("accept-encoding", "gzip").header("if-none-match", &known);
            let reply = ask.send().await;
            assert_eq!((reply.status, reply.body.len(), reply.header("content-encoding")), (304, 0, ""), "{known}");
        }
        let small = "/entities/driver?project=rides";
        let small = server.ask("GET", small).over(version).header("accept-encoding", "gzip").send().await;
        assert_eq!((small.header("content-encoding"), &small.tag()[..1]), ("", "\""));
        let refused = server.ask("GET", list).over(version).header("accept-encoding", "gzip;q=0").send().await;
        assert_eq!(refused.body, plain.body);
    }
}

/// Fault: over HTTP/2 the body came all the same, which clients take for a broken connection.
#[tokio::test]
async fn head_is_answered_as_get_without_its_body() {
    let server = with_driver().await;
    for number in 0..500 {
        server.apply("rides", entity(&format!("entity_{number}"), "long and dull ")).await;
    }
    for path in [
        "/entities/driver?project=rides",
        "/entities?project=rides",
        "/version",
        "/entities/nobody?project=rides",
        "/nothing",
    ] {
        for version in BOTH {
            let get = server.ask("GET", path).over(version).send().await;
            let head = server.ask("HEAD", path).over(version).send().await;
            assert_eq!((head.status, head.body.len()), (get.status, 0), "{path} over {version:?}");
            let shown = |reply: &crate::client::Reply| {
                let mut headers = reply.headers.clone();
                ["date", "x-request-id", "transfer-encoding"].iter().for_each(|name| drop(headers.remove(*name)));
                headers
            };
            let (mut of_get, of_head) = (shown(&get), shown(&head));
            if !of_head.contains_key("content-length") {
                // A long one is made while it is sent.
                assert!(get.body.len() > 64 * 1024, "{path} over {version:?}: {head:?}");
                of_get.remove("content-length");
            }
            assert_eq!(of_head, of_get, "{path} over {version:?}");
        }
    }
}

#[tokio::test]
async fn what_no_route_has_is_told_as_by_feasts_server() {
    let server = with_driver().await;
    for version in BOTH {
        for path in
            ["/nothing", "/api/v1/nothing", "/api/v2/entities", "/api/v1", "/entities/driver/more", "//entities"]
        {
            let reply = server.ask("GET", path).over(version).send().await;
            assert_eq!((reply.status, reply.json()), (404, serde_json::json!({"detail": "Not Found"})), "{path}");
        }
        for (path, location) in [
            ("/entities/?project=rides", "/entities?project=rides"),
            ("/api/v1/entities/driver/", "/api/v1/entities/driver"),
            ("/api/v1/entities///", "/api/v1/entities"),
        ] {
            let reply = server.ask("GET", path).over(version).send().await;
            assert_eq!((reply.status, reply.header("location"), reply.body.len()), (307, location, 0), "{path}");
        }
        for (method, path, allowed) in [
            ("PATCH", "/entities", "GET, HEAD, POST"),
            ("DELETE", "/entities", "GET, HEAD, POST"),
            ("POST", "/entities/driver", "DELETE, GET, HEAD, PUT"),
            ("GET", "/batch", "POST"),
            ("OPTIONS", "/version", "GET, HEAD"),
        ] {
            let reply = server.ask(method, path).over(version).send().await;
            assert_eq!((reply.status, reply.header("allow")), (405, allowed), "{method} {path}");
            assert_eq!(reply.json(), serde_json::json!({"detail": "Method Not Allowed"}));
        }
    }
    // Nobody is sent to another site.
    for path in ["//evil.example/entities/", "/%2f%2fevil.example/", "//evil.example//api/v1/entities/"] {
        assert_eq!(server.ask("GET", path).send().await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn requests_must_be_as_their_routes_declare() {
    let server = with_driver().await;
    for path in [
        "/entities",
        "/entities?project=rides&page=0",
        "/entities?project=rides&limit=101",
        "/entities?project=rides&sort_order=up",
        "/entities?project=rides&allow_cache=maybe",
        "/entities/driver",
    ] {
        server.ask("GET", path).send().await.assert_error(422, "RequestValidationError");
    }
    let escaped = "/entities/a%2Fb%20c?project=rides";
    server.apply("rides", entity("a/b c", "")).await;
    assert_eq!(server.get(escaped).await.json()["spec"]["name"], "a/b c");
}

/// What refers to what is not there is shown as it is.
#[tokio::test]
async fn a_service_whose_view_is_gone_is_shown() {
    let server = with_driver().await;
    server.apply("rides", view("stats", "driver", &["trips"])).await;
    let mut service = FeatureService::default();
    let spec = service.spec.get_or_insert_default();
    spec.name = "both".to_owned();
    spec.features.push(feast_registry_core::proto::core::FeatureViewProjection {
        feature_view_name: "stats".to_owned(),
        ..Default::default()
    });
    server.apply("rides", Object::encode(&service)).await;
    server.registry.delete_view("rides", "stats").await.expect("a deletion");
    let reply = server.get("/feature_services/both?project=rides&include_relationships=true").await;
    assert_eq!(reply.json()["spec"]["features"][0]["featureViewName"], "stats");
}

#[tokio::test]
async fn pages_of_other_sites_may_read_what_they_are_let() {
    let mut options = RestOptions::default();
    options.cors_origins = vec!["https://catalog.example".to_owned()];
    let server = start_with(ServeOptions::default(), options).await;
    server.apply("rides", entity("driver", "")).await;
    let allowed = |reply: &crate::client::Reply| reply.header("access-control-allow-origin").to_owned();
    for version in [Version::One, Version::Two] {
        for (origin, lets) in [
            (None, ""),
            (Some("https://catalog.example"), "https://catalog.example"),
            (Some("https://evil.example"), ""),
        ] {
            let ask = |method, path| {
                let ask = server.ask(method, path).over(version);
                origin.map_or(ask.clone(), |origin| ask.header("origin", origin))
            };
            for path in ["/entities?project=rides", "/entities/nobody?project=rides", "/nothing"] {
                let reply = ask("GET", path).send().await;
                assert_eq!(allowed(&reply), lets, "{path}: {reply:?}");
                let vary: Vec<&str> =
                    reply.headers.get_all("vary").iter().map(|value| value.to_str().expect("text")).collect();
                assert!(vary.join(", ").contains("origin"), "{path}: {vary:?}");
                assert_eq!(
                    reply.header("access-control-expose-headers").contains("x-registry-revision"),
                    !lets.is_empty()
                );
                assert_eq!(reply.header("x-content-type-options"), "nosniff");
            }
            let preflight =
                ask("OPTIONS", "/entities/driver").header("access-control-request-method", "PUT").send().await;
            assert_eq!(
                (preflight.status, allowed(&preflight)),
                (if lets.is_empty() { 405 } else { 204 }, lets.to_owned())
            );
            assert_eq!(preflight.header("access-control-allow-methods").contains("PUT"), !lets.is_empty());
            assert_eq!(preflight.header("access-control-allow-headers").contains("if-match"), !lets.is_empty());
        }
    }
    let closed = start().await;
    let reply = closed.ask("GET", "/version").header("origin", "https://catalog.example").send().await;
    assert_eq!((reply.status, allowed(&reply).as_str()), (200, ""));
}
