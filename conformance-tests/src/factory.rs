//! What a backend's author writes: how the tests get storages.

use std::fmt;
use std::process::Command;
use std::sync::Arc;

use async_trait::async_trait;
use feast_registry_core::config::SchemaMode;
use feast_registry_core::{Backend, Error, ErrorKind, Result};

use crate::link::Link;

/// Makes storages for the tests of one backend.
///
/// A factory is made in every process of a test program, also in those that only list the tests and in those that tests
/// start as workers: what takes long to start, as a server, it starts when the first storage is made.
#[async_trait]
pub trait Factory: Send + Sync + 'static {
    /// A new storage with nothing in it, not even what [`Backend::prepare`] makes. Many tests run at the same time and
    /// each gets its own. A factory that cannot make one panics and says why.
    async fn create(&self) -> Arc<dyn Storage>;

    /// The tests that this backend cannot pass by its nature, each with the reason. They are not run; every run names them,
    /// with the promises that stay unproven.
    fn exceptions(&self) -> Vec<Exception>;

    /// Opens, with [`SchemaMode::Auto`], the storage whose [`Storage::address`] this is, in a process that did not make it: a
    /// worker. The default fails, as is right where no storage has an address.
    async fn open_at(&self, address: &str) -> Result<Arc<dyn Backend>> {
        Err(Error::new(ErrorKind::Unsupported, format!("the factory does not say how `{address}` is opened")))
    }

    /// The program that is a worker of this factory's storages. The default is this program itself, which is right where its
    /// `main` is [`run`](crate::run). Whoever runs the tests in another way names a program that calls
    /// [`worker`](crate::worker).
    fn worker(&self) -> Command {
        Command::new(std::env::current_exe().expect("the path of the program that is running"))
    }
}

/// One storage: a database, a folder, a bucket.
#[async_trait]
pub trait Storage: Send + Sync + 'static {
    /// A new handle on this storage, made with this mode, with no state in common with earlier ones: two of them stand for
    /// two processes. It is not prepared yet.
    ///
    /// A store that can be open only once has no second handle: while one is in use, this returns the same one again. Such a
    /// storage keeps no more than a [`Weak`](std::sync::Weak) reference to it, so that a handle that the tests have closed and
    /// dropped is gone, and with it the lock that keeps workers out; the next one then has the mode that is asked for. This
    /// crate's `tests/flaws/alone.rs` has such a store, whose exceptions are `processes` and `network` and no others.
    async fn open(&self, mode: SchemaMode) -> Result<Arc<dyn Backend>>;

    /// What [`Factory::open_at`] has to know in another process to open this very storage: a path, a URL. `None`, which is the
    /// default, if no other process can; the factory then lists the themes `durability` and `processes` among its exceptions.
    /// The tests of `durability` let one process at a time have the storage open, those of `processes` several.
    fn address(&self) -> Option<String> {
        None
    }

    /// A new handle on this storage, as [`open`](Self::open) makes one, and the power to interrupt the way from it to the
    /// storage: through a proxy, for one. `None`, which is the default, where there is no such way (a file of this machine)
    /// or no such power; the factory then lists the theme `network` among its exceptions.
    async fn open_with_link(&self, _mode: SchemaMode) -> Result<Option<(Arc<dyn Backend>, Arc<dyn Link>)>> {
        Ok(None)
    }

    /// Removes the storage. Called when the test is over, whether it passed or not.
    async fn remove(&self);
}

/// A test, or a theme of tests, that a backend does not pass, and why. What these tests would prove stays unproven: their
/// [promises](crate::Test::promise) are told wherever an exception is.
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

    /// Why the tests are not run.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

/// The tests, the reason, and every promise that stays unproven, each once.
impl fmt::Display for Exception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.tests, self.reason)?;
        let mut told = Vec::new();
        for test in crate::tests().into_iter().filter(|test| self.covers(test.name)) {
            if !told.contains(&test.promise) {
                write!(f, "{}{}", if told.is_empty() { " — unproven: " } else { " | " }, test.promise)?;
                told.push(test.promise);
            }
        }
        Ok(())
    }
}
