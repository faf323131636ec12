//! What requests may take: bytes, time, and a share of what others need.

use std::time::{Duration, Instant};

use feast_registry_server::{RestOptions, ServeOptions};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::client::{BOTH, Version};
use crate::connections::gated;
use crate::server::{Server, entity, start_with};

const MEGABYTE: usize = 1 << 20;
const SOON: Duration = Duration::from_secs(10);

async fn small() -> Server {
    let mut options = ServeOptions::default();
    options.max_message_size = MEGABYTE;
    let server = start_with(options, RestOptions::default()).await;
    server.apply("rides", entity("driver", "before")).await;
    server
}

fn described(length: usize) -> String {
    json!({"spec": {"name": "driver", "description": "x".repeat(length)}}).to_string()
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused() {
    let server = small().await;
    let commits = server.commits().await;
    for version in BOTH {
        let path = "/entities/driver?project=rides";
        let ask = |method, path, body: String| {
            server.ask(method, path).over(version).header("content-type", "application/json").bytes(body)
        };
        ask("PUT", path, described(MEGABYTE)).send().await.assert_error(413, "PayloadTooLarge");
        // What takes none may send a small one.
        assert_eq!(ask("GET", path, described(1000)).send().await.status, 200);
        ask("GET", path, described(MEGABYTE / 2)).send().await.assert_error(413, "PayloadTooLarge");
        ask("DELETE", path, described(MEGABYTE / 2)).send().await.assert_error(413, "PayloadTooLarge");
        // Fault: what nobody takes was received whole, from whoever sent it.
        ask("POST", "/nothing", described(MEGABYTE / 2)).send().await.assert_error(413, "PayloadTooLarge");
        ask("PATCH", path, described(MEGABYTE / 2)).send().await.assert_error(413, "PayloadTooLarge");
        assert_eq!(ask("POST", "/nothing", described(1000)).send().await.status, 404);
    }
    assert_eq!(server.commits().await, commits);
    let large = server.ask("PUT", "/entities/driver?project=rides").header("content-type", "application/json");
    assert_eq!(large.bytes(described(MEGABYTE / 2)).send().await.status, 200, "what may be stored is");
}

/// Fault: a body that could never have room was told to come again in a second, and one of arrays took 147 times its size.
#[tokio::test]
async fn a_body_that_never_has_room_is_not_told_to_come_again() {
    let server = start_with(ServeOptions::default(), RestOptions::default()).await;
    let ask = |body: String| {
        server.ask("POST", "/batch?project=rides").header("content-type", "application/json").bytes(body).send()
    };
    let arrays = ask(format!(r#"{{"edits":[{}0]}}"#, "[[[[[[[[0]]]]]]]],".repeat(400_000))).await;
    arrays.assert_error(413, "PayloadTooLarge");
    assert_eq!(arrays.header("retry-after"), "");
    // As large as the largest, and of one value.
    let large =
        ask(json!({"edits": [{"kind": "entity", "name": "x".repeat(30 * MEGABYTE), "delete": true}]}).to_string());
    assert_eq!(large.await.status, 404);
    let off = server.ask("GET", "/monitoring/metrics").send().await;
    assert_eq!((off.status, off.header("retry-after")), (503, ""));
    let packed = server.ask("PUT", "/entities/driver?project=rides").header("content-encoding", "gzip");
    assert_eq!(packed.json(&json!({})).send().await.status, 415);
}

/// Sends the beginning of a request, and reads until the server ends the connection.
async fn unfinished(server: &Server, begins: &str) -> String {
    let mut connection = TcpStream::connect(server.address).await.expect("a connection");
    connection.write_all(begins.as_bytes()).await.expect("it is sent");
    let mut answer = Vec::new();
    drop(timeout(SOON, connection.read_to_end(&mut answer)).await.expect("it ends"));
    String::from_utf8(answer).expect("text")
}

#[tokio::test]
async fn a_body_must_come_in_time() {
    let mut options = ServeOptions::default();
    options.request_timeout = Duration::from_millis(300);
    let server = start_with(options, RestOptions::default()).await;
    let began = Instant::now();
    let head = "PUT /entities/driver?project=rides HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
    for body in
        ["Content-Length: 100\r\n\r\n", "Content-Length: 100\r\n\r\n{", "Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"]
    {
        let answer = unfinished(&server, &format!("{head}{body}")).await;
        assert!(answer.starts_with("HTTP/1.1 504 ") && answer.contains("\"DeadlineExceeded\""), "{answer}");
    }
    // A client may have less time than others.
    let mut options = ServeOptions::default();
    options.request_timeout = Duration::from_secs(60);
    let patient = start_with(options, RestOptions::default()).await;
    let answer = unfinished(&patient, &format!("{head}grpc-timeout: 200m\r\nContent-Length: 9\r\n\r\n{{")).await;
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_request_that_is_broken_off_is_not_done() {
    let server = small().await;
    let commits = server.commits().await;
    for number in 0..20 {
        let mut connection = TcpStream::connect(server.address).await.expect("a connection");
        let body = described(number);
        let head = format!(
            "PUT /entities/driver?project=rides HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len() + 1,
        );
        connection.write_all(format!("{head}{body}").as_bytes()).await.expect("it is sent");
        drop(connection);
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(server.commits().await, commits);
}

#[tokio::test]
async fn a_request_ends_at_its_deadline() {
    let (server, storage) = gated(ServeOptions::default()).await;
    server.get("/entities/driver?project=rides").await;
    storage.close_gate();
    let began = Instant::now();
    for version in [Version::One, Version::Two] {
        let ask = |method, path| server.ask(method, path).over(version).header("grpc-timeout", "300m");
        let stored = "/entities/driver?project=rides&allow_cache=false";
        ask("GET", stored).send().await.assert_error(504, "DeadlineExceeded");
        let put = ask("PUT", "/entities/driver?project=rides").json(&json!({"spec": {"name": "driver"}})).send().await;
        assert!([500, 504].contains(&put.status), "what became of it may not be known: {put:?}");
        // What can be told from memory is.
        assert_eq!(ask("GET", "/entities/driver?project=rides").send().await.status, 200);
    }
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}
