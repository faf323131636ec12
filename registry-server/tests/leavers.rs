//! Clients who ask for large lists and leave before they are answered, and the memory that this takes.

#![cfg(target_os = "linux")]

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use feast_registry::proto::core::{Entity, EntitySpecV2};
use feast_registry::{ApplyOptions, Edit, Object, RegistryConfig};
use feast_registry_server::proto::ListEntitiesRequest;
use feast_registry_server::proto::registry_server_client::RegistryServerClient;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

const ENTITIES: usize = 20_000;
const CLIENTS: usize = 40;
const LEAVES_AFTER: Duration = Duration::from_millis(20);
const FOR: Duration = Duration::from_secs(3);

/// A running server; it is killed when this is dropped.
struct Server {
    child: Child,
    address: String,
    _log: BufReader<ChildStderr>,
}

impl Server {
    fn start(url: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_feast-registry"));
        command.args(["serve", "--port", "0", "--registry", url]).env_remove("RUST_LOG");
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts");
        let mut log = BufReader::new(child.stderr.take().expect("stderr"));
        let mut started = String::new();
        log.read_line(&mut started).expect("a line");
        let address = started.trim_end().rsplit(' ').next().expect("an address").to_owned();
        Self { child, address, _log: log }
    }

    async fn client(&self) -> RegistryServerClient<Channel> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).expect("a URL");
        let channel = endpoint.connect().await.expect("a connection");
        RegistryServerClient::new(channel).max_decoding_message_size(usize::MAX)
    }

    /// The most memory that it ever had, in bytes.
    fn peak(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("a peak");
        let kilobytes: usize = line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number");
        kilobytes * 1024
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn entity(number: usize) -> Object {
    let spec = EntitySpecV2 {
        name: format!("entity {number:06}"),
        description: format!("{number:06}").repeat(400),
        ..Default::default()
    };
    Object::encode(&Entity { spec: Some(spec), meta: None })
}

async fn list(client: &mut RegistryServerClient<Channel>) -> Result<usize, Status> {
    let request =
        ListEntitiesRequest { project: "rides".to_owned(), allow_cache: true, ..ListEntitiesRequest::default() };
    client.list_entities(request).await.map(|answer| answer.into_inner().entities.len())
}

/// Fault: with such clients a server had 2.6 GB for a registry of 34 MB.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_who_leave_take_little_memory_and_no_list_from_who_stays() {
    let folder = tempfile::TempDir::new().expect("a folder");
    let url = format!("sqlite:///{}", folder.path().join("registry.db").display());
    let registry = feast_registry::open(&RegistryConfig::new(url.parse().expect("a URL"))).await.expect("a registry");
    let entities: Vec<Object> = (0..ENTITIES).map(entity).collect();
    let serialized: usize = entities.iter().map(|entity| entity.bytes.len()).sum();
    let edits = entities.into_iter().map(Edit::Apply).collect();
    registry.edit("rides", edits, ApplyOptions::default()).await.expect("one commit");
    registry.close().await.expect("all is written");

    let server = Server::start(&url);
    let mut patient = server.client().await;
    assert_eq!(list(&mut patient).await.expect("a list"), ENTITIES);
    let until = Instant::now() + FOR;
    let mut leavers = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = server.client().await;
        leavers.push(tokio::spawn(async move {
            let mut left = 0;
            while Instant::now() < until {
                match tokio::time::timeout(LEAVES_AFTER, list(&mut client)).await {
                    Ok(Ok(listed)) => assert_eq!(listed, ENTITIES),
                    Err(_) => left += 1,
                    // The server ends a connection of which too many requests were withdrawn.
                    Ok(Err(_)) => tokio::time::sleep(LEAVES_AFTER).await,
                }
            }
            left
        }));
    }
    let mut left = 0;
    for leaver in leavers {
        left += leaver.await.expect("a client");
    }
    assert!(left > CLIENTS, "only {left} calls were left");
    assert_eq!(list(&mut patient).await.expect("a list"), ENTITIES);
    let (peak, limit) = (server.peak(), 3 * serialized + 100_000_000);
    assert!(peak <= limit, "{peak} bytes for {serialized} serialized, the limit is {limit}; {left} calls were left");
}
