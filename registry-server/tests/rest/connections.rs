//! Connections of a port with the REST API: both protocols on one, more than one request on one, and how they end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use feast_registry_core::{
    Backend, Commit, Deadline, JournalEntry, JournalQuery, Limits, MemoryBackend, Outcome, Query, Record, Result,
    Revision, async_trait,
};
use feast_registry_server::proto::GetEntityRequest;
use feast_registry_server::proto::registry_server_client::RegistryServerClient;
use feast_registry_server::{Ports, RestOptions, ServeOptions};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use crate::client::{Ask, BOTH, Version};
use crate::server::{Server, entity, start, start_on, start_over, start_with};

const SOON: Duration = Duration::from_secs(10);
const DRIVER: &str = "/entities/driver?project=rides";

/// A storage in memory that does nothing before it is let.
#[derive(Debug)]
pub(crate) struct Gated {
    inner: MemoryBackend,
    pub(crate) gate: Semaphore,
}

impl Gated {
    pub(crate) fn open() -> Arc<Self> {
        Arc::new(Self { inner: MemoryBackend::new(), gate: Semaphore::new(Semaphore::MAX_PERMITS) })
    }

    /// Lets nothing be done until there are permits again.
    pub(crate) fn close_gate(&self) {
        self.gate.forget_permits(Semaphore::MAX_PERMITS);
    }

    async fn wait(&self, deadline: &Deadline) -> Result<()> {
        drop(deadline.wait_for("the gate", self.gate.acquire()).await?.expect("never closed"));
        Ok(())
    }
}

#[async_trait]
impl Backend for Gated {
    fn location(&self) -> String {
        "gated://".to_owned()
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    async fn prepare(&self, deadline: &Deadline) -> Result<()> {
        self.inner.prepare(deadline).await
    }

    async fn read(&self, queries: &[Query], deadline: &Deadline) -> Result<Vec<Vec<Record>>> {
        self.wait(deadline).await?;
        self.inner.read(queries, deadline).await
    }

    async fn commit(&self, commit: Commit, deadline: &Deadline) -> Result<Outcome> {
        self.wait(deadline).await?;
        self.inner.commit(commit, deadline).await
    }

    async fn journal(&self, query: &JournalQuery, deadline: &Deadline) -> Result<Vec<JournalEntry>> {
        self.inner.journal(query, deadline).await
    }

    async fn wait_for_commit(&self, after: Option<Revision>, deadline: &Deadline) {
        self.inner.wait_for_commit(after, deadline).await;
    }

    async fn remove_if_empty(&self, deadline: &Deadline) -> Result<bool> {
        self.inner.remove_if_empty(deadline).await
    }
}

/// A server whose storage can be held up.
pub(crate) async fn gated(options: ServeOptions) -> (Server, Arc<Gated>) {
    let storage = Gated::open();
    let backend = Arc::clone(&storage) as Arc<dyn Backend>;
    let server = start_over(backend, options, |listener| Ports::Rest(listener, RestOptions::default())).await;
    server.apply("rides", entity("driver", "before")).await;
    (server, storage)
}

async fn grpc_client(server: &Server) -> RegistryServerClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{}", server.address)).expect("a URL");
    RegistryServerClient::new(endpoint.connect().await.expect("a connection"))
}

#[tokio::test]
async fn both_protocols_are_spoken_on_one_port() {
    let server = start().await;
    server.apply("rides", entity("driver", "who drives")).await;
    let mut grpc = grpc_client(&server).await;
    let wanted = |name: &str| GetEntityRequest { project: "rides".into(), name: name.into(), allow_cache: true };
    grpc.get_entity(wanted("driver")).await.expect("an entity");
    assert_eq!(grpc.get_entity(wanted("nobody")).await.expect_err("there is none").code(), Code::NotFound);
    for version in BOTH {
        let reply = server.ask("GET", &format!("/api/v1{DRIVER}")).over(version).send().await;
        assert_eq!((reply.status, reply.json()["spec"]["name"].clone()), (200, json!("driver")));
        let body = json!({"spec": {"name": "driver", "description": format!("{version:?}")}});
        assert_eq!(server.ask("PUT", DRIVER).over(version).json(&body).send().await.status, 200);
    }
    grpc.get_entity(wanted("driver")).await.expect("an entity");
    // The content type decides, whatever the path is.
    let path = "/feast.registry.RegistryServer/GetEntity";
    assert_eq!(server.ask("POST", path).over(Version::Two).send().await.status, 404);
    let call = server.ask("POST", DRIVER).over(Version::Two).header("content-type", "application/grpc").send().await;
    assert_eq!((call.status, call.header("grpc-status")), (200, "12"), "{call:?}");
}

#[tokio::test]
async fn a_port_of_one_protocol_speaks_no_other() {
    let grpc = start_on(ServeOptions::default(), Ports::from).await;
    assert!(grpc.ask("GET", "/version").try_send().await.is_err(), "HTTP/1.1 is not spoken");
    let rest = start_on(ServeOptions::default(), |listener| Ports::Rest(listener, RestOptions::default())).await;
    let mut client = grpc_client(&rest).await;
    let wanted = GetEntityRequest { project: "rides".into(), name: "driver".into(), allow_cache: true };
    let status = client.get_entity(wanted).await.expect_err("no gRPC is spoken");
    assert!(status.message().contains("404"), "{status:?}");
}

/// Sends a request and reads its answer, which is no longer than one read.
async fn exchange(connection: &mut TcpStream, request: &str) -> String {
    connection.write_all(request.as_bytes()).await.expect("it is sent");
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while !answer.windows(4).any(|window| window == b"\r\n\r\n") || !answer.ends_with(b"}") {
        let read = timeout(SOON, connection.read(&mut buffer)).await.expect("an answer").expect("it is open");
        assert!(read > 0, "it ended: {}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&buffer[..read]);
    }
    String::from_utf8(answer).expect("text")
}

#[tokio::test]
async fn one_connection_has_one_request_after_the_other() {
    let server = start().await;
    let mut connection = TcpStream::connect(server.address).await.expect("a connection");
    for _ in 0..3 {
        for path in ["/version", "/entities/nobody?project=rides", "/nothing"] {
            let answer = exchange(&mut connection, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
            assert!(answer.starts_with("HTTP/1.1 ") && !answer.contains("connection: close"), "{answer}");
        }
        let body = json!({"name": "driver", "project": "rides"}).to_string();
        let head = format!(
            "POST /entities HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let answer = exchange(&mut connection, &(head + &body)).await;
        assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
        // In pieces of any size, whose length is not told before.
        let chunked = format!(
            "POST /entities HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n\
             5\r\n{}\r\n{:x}\r\n{}\r\n0\r\n\r\n",
            &body[..5],
            body.len() - 5,
            &body[5..],
        );
        let answer = exchange(&mut connection, &chunked).await;
        assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    }
}

/// Nor is anything done for whoever closes only the half of a connection: what has left looks the same.
#[tokio::test]
async fn nothing_is_done_for_who_has_left_before_it_was_begun() {
    let (server, storage) = gated(ServeOptions::default()).await;
    storage.close_gate();
    let body = json!({"name": "left", "project": "rides"}).to_string();
    let head = format!(
        "POST /entities HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut connection = TcpStream::connect(server.address).await.expect("a connection");
    connection.write_all((head + &body).as_bytes()).await.expect("it is sent");
    sleep(Duration::from_millis(300)).await;
    drop(connection);
    sleep(Duration::from_millis(300)).await;
    storage.gate.add_permits(1000);
    let stays =
        server.ask("PUT", DRIVER).json(&json!({"spec": {"name": "driver", "description": "after"}})).send().await;
    assert_eq!(stays.status, 200, "{stays:?}");
    assert_eq!(server.ask("GET", "/entities/left?project=rides&allow_cache=false").send().await.status, 404);
}

#[tokio::test]
async fn what_is_under_way_is_finished_when_the_server_stops() {
    for version in BOTH {
        let (server, storage) = gated(ServeOptions::default()).await;
        let address = server.address;
        let mut idle = TcpStream::connect(address).await.expect("a connection");
        exchange(&mut idle, "GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        storage.close_gate();
        let body = json!({"spec": {"name": "driver", "description": "after"}});
        let under_way = tokio::spawn(server.ask("PUT", DRIVER).over(version).json(&body).try_send());
        sleep(Duration::from_millis(300)).await;
        let registry = server.registry.clone();
        let stopped = server.stop();
        let until = Instant::now() + SOON;
        while TcpStream::connect(address).await.is_ok() {
            assert!(Instant::now() < until, "it goes on taking connections");
            sleep(Duration::from_millis(20)).await;
        }
        let mut rest = Vec::new();
        timeout(SOON, idle.read_to_end(&mut rest)).await.expect("an idle connection ends").expect("in order");
        assert!(!stopped.is_finished() && !under_way.is_finished());
        storage.gate.add_permits(1000);
        let reply = under_way.await.expect("no panic").expect("an answer");
        assert_eq!(reply.status, 200, "{reply:?}");
        timeout(SOON, stopped).await.expect("it ends").expect("no panic").expect("in order");
        let stored =
            registry.get(feast_registry_core::Kind::Entity, "rides", "driver", feast_registry_core::Freshness::Stored);
        let stored: feast_registry_core::proto::core::Entity =
            stored.await.expect("it is stored").decode().expect("an entity");
        assert_eq!(stored.spec.unwrap_or_default().description, "after");
    }
}

#[tokio::test]
async fn the_ports_share_the_connections_that_there_may_be() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let rest = listener.local_addr().expect("an address");
    let mut options = ServeOptions::default();
    options.max_connections = 2;
    let server =
        start_on(options, |grpc| Ports::Each { grpc: grpc.into(), rest: listener, options: RestOptions::default() })
            .await;
    let mut first = TcpStream::connect(rest).await.expect("a connection");
    exchange(&mut first, "GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let wanted = GetEntityRequest { project: "rides".into(), name: "driver".into(), allow_cache: true };
    let mut second = grpc_client(&server).await;
    assert_eq!(second.get_entity(wanted.clone()).await.expect_err("there is none").code(), Code::NotFound);
    for address in [rest, server.address] {
        let mut third = TcpStream::connect(address).await.expect("it is taken by the system");
        let mut nothing = Vec::new();
        drop(timeout(SOON, third.read_to_end(&mut nothing)).await.expect("it is closed"));
        assert!(nothing.is_empty());
    }
    drop(first);
    let until = Instant::now() + SOON;
    while Ask::new(rest, "GET", "/version").try_send().await.is_err() {
        assert!(Instant::now() < until, "there is room again");
        sleep(Duration::from_millis(20)).await;
    }
    second.get_entity(wanted).await.expect_err("it is still open");
}

#[tokio::test]
async fn requests_have_names_that_the_log_has_too() {
    let server = start_with(ServeOptions::default(), RestOptions::default()).await;
    server.apply("rides", entity("driver", "")).await;
    let too_long = "x".repeat(65);
    for version in BOTH {
        for path in [DRIVER, "/entities/nobody?project=rides", "/nothing"] {
            let given = server.ask("GET", path).over(version).header("x-request-id", "call-7").send().await;
            assert_eq!(given.header("x-request-id"), "call-7", "{path}");
            let unusable = server.ask("GET", path).over(version).header("x-request-id", &too_long).send().await;
            assert_ne!(unusable.header("x-request-id"), too_long);
        }
        // Who is told of an error may ask about it.
        let missing = server.ask("GET", "/entities/nobody?project=rides").over(version).send().await;
        assert!(missing.header("x-request-id").len() >= 8, "{missing:?}");
    }
}
