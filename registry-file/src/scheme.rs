//! How a registry in one file is opened by its path or URL.

use std::sync::Arc;

#[cfg(any(feature = "local", not(feature = "cloud")))]
use feast_registry_core::Error;
use feast_registry_core::config::RegistryConfig;
use feast_registry_core::{Backend, Result, Scheme};

use crate::FileBackend;

/// Opens a path, or `file:///path`; and with the Cargo features `s3`, `gcs` and `azure` objects in these stores.
#[derive(Debug, Clone, Copy, Default)]
pub struct FileScheme;

impl Scheme for FileScheme {
    fn names(&self) -> &'static [&'static str] {
        &[
            #[cfg(feature = "local")]
            "file",
            #[cfg(feature = "s3")]
            "s3",
            #[cfg(feature = "gcs")]
            "gs",
            #[cfg(feature = "azure")]
            "az",
            #[cfg(feature = "azure")]
            "abfss",
            #[cfg(feature = "azure")]
            "https",
        ]
    }

    fn example(&self) -> &'static str {
        if cfg!(feature = "local") { "data/registry.db" } else { "s3://bucket/registry.db" }
    }

    fn check(&self, config: &RegistryConfig) -> Result<()> {
        config.refuse_replica()?;
        // It opens nothing, and sends no request.
        self.open(config).map(drop)
    }

    fn open(&self, config: &RegistryConfig) -> Result<Arc<dyn Backend>> {
        let backend = match config.url.scheme() {
            #[cfg(feature = "local")]
            "file" => {
                let path = config.url.path().ok_or_else(|| Error::config("the path of the registry file is empty"))?;
                FileBackend::local(path, config.schema_mode)
            }
            #[cfg(feature = "cloud")]
            _ => FileBackend::in_object_store(&config.url, &config.object_store, config.schema_mode)?,
            #[cfg(not(feature = "cloud"))]
            scheme => return Err(Error::config(format!("`{scheme}://` is no URL of a file"))),
        };
        Ok(Arc::new(backend.with_retention(config.journal).with_history(config.history)))
    }
}
