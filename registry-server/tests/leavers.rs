//! Clients who ask for large lists and leave before they are answered, and the memory that this takes.

#![cfg(target_os = "linux")]

mod common;

use std::time::{Duration, Instant};

use common::Server;

use feast_registry::proto::core::{Entity, EntitySpecV2};
use feast_registry::{ApplyOptions, Edit, Object, RegistryConfig};
use feast_registry_server::proto::ListEntitiesRequest;
use feast_registry_server::proto::registry_server_client::RegistryServerClient;
use tonic::Status;
use tonic::transport::Channel;

const ENTITIES: usize = 20_000;
const CLIENTS: usize = 40;
const LEAVES_AFTER: Duration = Duration::from_millis(20);
const FOR: Duration = Duration::from_secs(3);

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
