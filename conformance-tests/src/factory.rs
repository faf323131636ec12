//! What a backend's author writes: how the tests get storages.

use std::fmt;
use std::process::Command;
use std::sync::Arc;

use async_trait::async_trait;
use feast_registry_core::config::SchemaMode;
use feast_registry_core::{Backend, Result};

use crate::link::Link;

/// Makes storages for the tests of one backend.
///
/// No method has a default: what a backend cannot do, its factory says.
#[async_trait]
pub trait Factory: Send + Sync + 'static {
    /// A new storage with nothing in it, not even what [`Backend::prepare`] makes. Many tests run at the same time and
    /// each gets its own. A factory that cannot make one panics and says why.
    async fn create(&self) -> Arc<dyn Storage>;

    /// The tests that this backend cannot pass by its nature, each with the reason. They are not run; they are printed.
    fn exceptions(&self) -> Vec<Exception>;
}

/// One storage: a database, a folder, a bucket.
#[async_trait]
pub trait Storage: Send + Sync + 'static {
    /// A new handle on this storage, made with this mode, with no state in common with earlier ones: two of them stand for
    /// two processes. It is not prepared yet.
    async fn open(&self, mode: SchemaMode) -> Result<Arc<dyn Backend>>;

    /// The start of a command line that opens this very storage in another OS process, with [`SchemaMode::Auto`], and there
    /// calls [`worker`](crate::worker). `None` if no other process can; the factory then lists the theme `processes` among
    /// its exceptions.
    fn worker(&self) -> Option<Command>;

    /// A new handle on this storage, as [`open`](Self::open) makes one, and the power to interrupt the way from it to the
    /// storage: through a proxy, for one. `None`, which is the default, where there is no such way (a file of this machine)
    /// or no such power; the factory then lists the theme `network` among its exceptions.
    async fn open_with_link(&self, _mode: SchemaMode) -> Result<Option<(Arc<dyn Backend>, Arc<dyn Link>)>> {
        Ok(None)
    }

    /// Removes the storage. Called when the test is over, whether it passed or not.
    async fn remove(&self);
}

/// A test, or a theme of tests, that a backend does not pass, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exception {
    pub(crate) tests: String,
    pub(crate) reason: String,
}

impl Exception {
    /// Excepts one test (`theme::test`) or a whole theme (`theme`); the names are those of [`tests`](crate::tests).
    pub fn new(tests: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { tests: tests.into(), reason: reason.into() }
    }

    /// Whether it excepts the test of this name.
    pub fn covers(&self, test: &str) -> bool {
        test.strip_prefix(self.tests.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    }
}

impl fmt::Display for Exception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.tests, self.reason)
    }
}
