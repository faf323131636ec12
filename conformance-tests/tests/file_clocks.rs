//! A registry file whose time comes from another clock: of a machine that is wrong, of a restore, of a tool that sets it.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use feast_registry_core::config::SchemaMode;
use feast_registry_core::proto::core::{Entity, EntitySpecV2, Registry as RegistryMessage};
use feast_registry_core::{Freshness, Kind, ListFilter, Registry, RegistryOptions};
use feast_registry_file::FileBackend;
use prost::Message as _;

const HOUR: Duration = Duration::from_secs(3600);

/// Less than it took to believe that a file from the future is not being written; much more than a read or a write takes.
const AT_ONCE: Duration = Duration::from_millis(700);

fn set_time(file: &Path, time: SystemTime) {
    let file = File::options().write(true).open(file).expect("the file");
    file.set_modified(time).expect("its time can be set");
}

fn entity(name: &str) -> Entity {
    let spec = EntitySpecV2 {
        name: name.to_owned(),
        join_key: name.to_owned(),
        project: "p".to_owned(),
        ..Default::default()
    };
    Entity { spec: Some(spec), meta: None }
}

async fn count(registry: &Registry) -> usize {
    let entities = registry.list(Kind::Entity, Some("p"), &ListFilter::default(), Freshness::Stored).await;
    entities.expect("a list").len()
}

#[test]
fn a_file_from_the_future_is_read_and_written_as_fast_as_any_other() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let now = SystemTime::now();
        for (when, time) in
            [("now", now), ("future", now + HOUR), ("far future", now + HOUR * 100_000), ("past", now - HOUR)]
        {
            let folder = tempfile::tempdir().expect("a folder");
            let file = folder.path().join("registry.db");
            let open =
                || Registry::open(Arc::new(FileBackend::local(&file, SchemaMode::Auto)), RegistryOptions::default());
            open().await.expect("a registry").apply("p", &entity("0")).await.expect("an apply");
            set_time(&file, time);
            let began = Instant::now();
            let registry = open().await.expect("a registry");
            assert_eq!(count(&registry).await, 1, "ours, {when}");
            registry.apply("p", &entity("1")).await.expect("a write over ours");
            assert!(began.elapsed() < AT_ONCE, "ours, {when}: {:?}", began.elapsed());

            // Feast writes in place; its message begins with the entities.
            let mut message = RegistryMessage::decode(&*fs::read(&file).expect("a file")).expect("a registry");
            message.entities.push(entity("2"));
            message.version_id = "00000000-0000-4000-8000-000000000000".to_owned();
            fs::write(&file, message.encode_to_vec()).expect("a write in place");
            set_time(&file, time);
            let began = Instant::now();
            assert_eq!(count(&registry).await, 3, "Feast's, {when}");
            registry.apply("p", &entity("3")).await.expect("a write over Feast's");
            assert_eq!(count(&registry).await, 4, "Feast's, {when}");
            assert!(began.elapsed() < AT_ONCE, "Feast's, {when}: {:?}", began.elapsed());
        }
    });
}
