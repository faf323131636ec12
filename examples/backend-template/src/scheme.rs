//! `mystore:///path`.

use std::sync::Arc;

use feast_registry_core::config::RegistryConfig;
use feast_registry_core::{Backend, Error, Result, Scheme};

use crate::MyBackend;

/// Opens `mystore:///var/lib/feast/registry`.
#[derive(Debug, Clone, Copy, Default)]
pub struct MyScheme;

impl Scheme for MyScheme {
    fn names(&self) -> &'static [&'static str] {
        &["mystore"]
    }

    fn example(&self) -> &'static str {
        "mystore:///var/lib/feast/registry"
    }

    fn check(&self, config: &RegistryConfig) -> Result<()> {
        config.url.refuse_options_but(&[])?;
        config.refuse_replica()?;
        path(config).map(drop)
    }

    fn open(&self, config: &RegistryConfig) -> Result<Arc<dyn Backend>> {
        // If `config.read_only`, make nothing: where there is no registry, that is `ErrorKind::SchemaMissing`.
        let backend = MyBackend::open(path(config)?, config.schema_mode)?;
        Ok(Arc::new(backend.with_retention(config.journal)))
    }
}

fn path(config: &RegistryConfig) -> Result<String> {
    let missing = || Error::config(format!("`{}` has no path; write {}", config.url, MyScheme.example()));
    config.url.path().ok_or_else(missing)
}
