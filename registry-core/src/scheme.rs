//! How a backend is opened by the URL of a registry.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::backend::Backend;
use crate::config::{RegistryConfig, RegistryUrl};
use crate::error::Result;
use crate::memory::MemoryBackend;

/// What opens the registries of one kind of storage, by the scheme of their URLs.
///
/// The crate of each backend has one. Once it is registered (`feast_registry::Schemes`), its URLs stand wherever a registry
/// is named: in `feature_store.yaml`, with `registry_type: sql` or `file`, in `FEAST_REGISTRY_URL`, and on the command line.
///
/// A storage without options, kept in one file, whose backend here is the one in memory:
///
/// ```
/// use std::sync::Arc;
/// use feast_registry_core::config::RegistryConfig;
/// use feast_registry_core::{Backend, Error, MemoryBackend, Result, Scheme};
///
/// #[derive(Debug)]
/// struct Leaf;
///
/// impl Scheme for Leaf {
///     fn names(&self) -> &'static [&'static str] {
///         &["leaf"]
///     }
///
///     fn example(&self) -> &'static str {
///         "leaf:///var/lib/feast/registry.leaf"
///     }
///
///     fn check(&self, config: &RegistryConfig) -> Result<()> {
///         config.url.refuse_options_but(&[])?;
///         config.refuse_replica()?;
///         config.url.path().map(drop).ok_or_else(|| Error::config("a `leaf://` URL has the path of a file"))
///     }
///
///     fn open(&self, config: &RegistryConfig) -> Result<Arc<dyn Backend>> {
///         let path = config.url.path().unwrap_or_default();
/// #       let _ = path;
///         // `LeafBackend::open(path, config.schema_mode)`, in earnest.
///         Ok(Arc::new(MemoryBackend::new()))
///     }
/// }
///
/// let config = RegistryConfig::new("leaf:///var/lib/feast/registry.leaf?cache=1".parse()?);
/// assert!(Leaf.check(&config).unwrap_err().to_string().contains("there is no option `cache`"));
/// # Ok::<(), Error>(())
/// ```
#[async_trait]
pub trait Scheme: fmt::Debug + Send + Sync + 'static {
    /// The names of the scheme, as `["redb"]`: what stands before `://`, in lower case and without `+`. The first is the one
    /// that messages have.
    fn names(&self) -> &'static [&'static str];

    /// A URL to show users: in help, in completions and in errors.
    fn example(&self) -> &'static str;

    /// Whether what the configuration says of the storage can be: its URL with the options, whether it may have a replica.
    /// Opens nothing and asks no server. It comes before [`open`](Self::open), so that need not look again.
    ///
    /// # Errors
    /// [`InvalidConfig`](crate::ErrorKind::InvalidConfig), which names what cannot be and what can. It shows no secret:
    /// [`RegistryUrl`] prints itself without.
    fn check(&self, config: &RegistryConfig) -> Result<()>;

    /// A backend on the storage at [`url`](RegistryConfig::url), to be prepared as
    /// [`schema_mode`](RegistryConfig::schema_mode) says. It may look at a disk, and does not wait for a network:
    /// [`Backend::prepare`] does.
    ///
    /// A replica is opened by itself, with its own URL in a configuration that is [`read_only`](RegistryConfig::read_only).
    ///
    /// # Errors
    /// When the storage cannot be opened. [`SchemaMissing`](crate::ErrorKind::SchemaMissing) when it is only to be read and
    /// is not there.
    fn open(&self, config: &RegistryConfig) -> Result<Arc<dyn Backend>>;

    /// Whether what a URL names is gone when the process ends. Default: no.
    fn is_in_memory(&self, _url: &RegistryUrl) -> bool {
        false
    }

    /// Whether a URL itself says that the registry is only to be read, as `mode=ro` of SQLite does. Default: no.
    fn is_read_only(&self, _url: &RegistryUrl) -> bool {
        false
    }

    /// What [`migrate`](Self::migrate) would change, in words. Default: nothing, and nothing is asked.
    ///
    /// # Errors
    /// When the storage cannot be read.
    async fn problems(&self, _config: &RegistryConfig) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    /// Brings up to date what an older version stored, and returns what was changed, in words. What is stored stays as it is,
    /// and doing it again changes nothing. Default: there is nothing to change.
    ///
    /// # Errors
    /// When the storage cannot be changed, or what is in it does not allow it.
    async fn migrate(&self, _config: &RegistryConfig) -> Result<Vec<String>> {
        Ok(Vec::new())
    }
}

/// Opens `memory://`: a new, empty [`MemoryBackend`] each time.
#[derive(Debug, Clone, Copy, Default)]
pub struct MemoryScheme;

impl Scheme for MemoryScheme {
    fn names(&self) -> &'static [&'static str] {
        &["memory"]
    }

    fn example(&self) -> &'static str {
        "memory://"
    }

    fn check(&self, config: &RegistryConfig) -> Result<()> {
        config.refuse_replica()
    }

    fn open(&self, _: &RegistryConfig) -> Result<Arc<dyn Backend>> {
        Ok(Arc::new(MemoryBackend::new()))
    }

    fn is_in_memory(&self, _: &RegistryUrl) -> bool {
        true
    }
}
