//! The proof that the backend keeps the contract.
//!
//! - `cargo test --test conformance` runs all of it; `-- races` after it, the tests with that in their names.

use std::process::ExitCode;
use std::sync::Arc;

use feast_registry_conformance::{Exception, Factory, Storage, Suite, run};
use feast_registry_core::config::SchemaMode;
use feast_registry_core::{Backend, Result, async_trait};
use feast_registry_mystore::MyBackend;

fn main() -> ExitCode {
    run([Suite::new("mystore", MyStore)])
}

/// Makes storages, each with nothing in it.
struct MyStore;

#[async_trait]
impl Factory for MyStore {
    async fn create(&self) -> Arc<dyn Storage> {
        // A folder, a database, a bucket of its own. Here, what is in memory is the storage itself.
        let backend = MyBackend::open("/in/memory", SchemaMode::Auto).expect("a backend");
        Arc::new(Place(Arc::new(backend)))
    }

    /// What the backend cannot do by its nature. Every run names these, and the promises that stay unproven.
    fn exceptions(&self) -> Vec<Exception> {
        vec![
            Exception::new("durability", "it is in memory, and gone with its process"),
            Exception::new("processes", "it is in memory: no other process can open it"),
            Exception::new("network", "nothing lies between memory and who uses it"),
            Exception::new("storage::only_auto_removes", "its one handle has one mode"),
        ]
    }

    // For `durability` and `processes`: `open_at` opens in another process what `Storage::address` names.
}

/// A storage of one test.
struct Place(Arc<MyBackend>);

#[async_trait]
impl Storage for Place {
    /// A new handle, with no state in common with earlier ones. Here, there is but the one.
    async fn open(&self, _: SchemaMode) -> Result<Arc<dyn Backend>> {
        Ok(Arc::clone(&self.0) as Arc<dyn Backend>)
    }

    async fn remove(&self) {}
}
