//! `redb:///path`.

use std::path::Path;
use std::sync::Arc;

use feast_registry_core::config::RegistryConfig;
use feast_registry_core::{Backend, Error, ErrorKind, Result, Scheme};

use crate::{RedbBackend, RedbFile};

/// Opens `redb:///var/lib/feast/registry.redb`, and `redb://registry.redb` in the working folder.
#[derive(Debug, Clone, Copy, Default)]
pub struct RedbScheme;

impl Scheme for RedbScheme {
    fn names(&self) -> &'static [&'static str] {
        &["redb"]
    }

    fn example(&self) -> &'static str {
        "redb:///var/lib/feast/registry.redb"
    }

    fn check(&self, config: &RegistryConfig) -> Result<()> {
        config.url.refuse_options_but(&[])?;
        config.refuse_replica()?;
        path(config).map(drop)
    }

    fn open(&self, config: &RegistryConfig) -> Result<Arc<dyn Backend>> {
        let path = path(config)?;
        if config.read_only && !Path::new(&path).exists() {
            return Err(Error::new(ErrorKind::SchemaMissing, format!("there is no registry file `{path}`")));
        }
        let file = if config.read_only { RedbFile::open_read_only(path)? } else { RedbFile::open(path)? };
        Ok(Arc::new(RedbBackend::on(Arc::new(file), config.schema_mode).with_retention(config.journal)))
    }
}

fn path(config: &RegistryConfig) -> Result<String> {
    config.url.path().ok_or_else(|| {
        Error::config(format!(
            "`{}` names no file; write `redb:///var/lib/feast/registry.redb`, or `redb://registry.redb` for one in the \
             working folder",
            config.url
        ))
    })
}
