//! The suite on the backend in memory.

use std::process::ExitCode;
use std::sync::Arc;

use async_trait::async_trait;
use feast_registry_conformance::{Exception, Factory, Storage, Suite, run};
use feast_registry_core::config::SchemaMode;
use feast_registry_core::{Backend, MemoryBackend, Result};

fn main() -> ExitCode {
    run([Suite::new("memory", Memory)])
}

struct Memory;

#[async_trait]
impl Factory for Memory {
    async fn create(&self) -> Arc<dyn Storage> {
        Arc::new(InMemory(Arc::new(MemoryBackend::new())))
    }

    fn exceptions(&self) -> Vec<Exception> {
        vec![
            Exception::new("durability", "memory is gone with its process"),
            Exception::new("processes", "memory is one process's own: no other can open it"),
            Exception::new("network", "nothing lies between memory and who uses it"),
            Exception::new("storage::only_auto_removes", "no mode makes memory, so none of them keeps what is in it"),
        ]
    }
}

struct InMemory(Arc<MemoryBackend>);

#[async_trait]
impl Storage for InMemory {
    /// What holds the data is the backend itself here, so a second handle is the same one.
    async fn open(&self, _: SchemaMode) -> Result<Arc<dyn Backend>> {
        Ok(Arc::clone(&self.0) as Arc<dyn Backend>)
    }

    async fn remove(&self) {}
}
