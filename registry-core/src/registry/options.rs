//! How a registry behaves, and how a single call does.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::access::Access;
use crate::config::{CacheConfig, RegistryConfig};
use crate::deadline::Deadline;
use crate::environment::{Environment, System};
use crate::waits::Waits;

/// How a registry behaves, whatever stores it. Made with `default()`, and changed field by field or by the `with_` methods.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RegistryOptions {
    /// How cached reads are kept fresh.
    pub cache: CacheConfig,
    /// Removes Feast's old `feast_metadata` and writes none (Feast: `purge_feast_metadata`).
    pub purge_feast_metadata: bool,
    /// Objects of [`Registry::apply_later`](crate::Registry::apply_later) wait for a commit, as suits storages that are
    /// written whole. Else they are written at once.
    pub defers: bool,
    /// Only reads: opening changes nothing, and writes are refused. The backend is to be one that makes nothing.
    pub read_only: bool,
    /// The tables or the file of the registry stay when its last project is deleted.
    pub keep_tables: bool,
    /// How long a call may take that says nothing of it ([`CallOptions`]). Default: 30 seconds.
    pub call_timeout: Duration,
    /// How many writes may be under way or waiting at once in this process; beyond that, a call fails at once with
    /// [`ErrorKind::Overloaded`](crate::ErrorKind::Overloaded). Default: 1024.
    pub max_writes: usize,
    /// How many reads from the storage may be under way or waiting at once in this process; beyond that, a call fails at
    /// once with [`ErrorKind::Overloaded`](crate::ErrorKind::Overloaded). Cached reads are not counted, but for those that
    /// wait for the cache to be filled. Default: 1024.
    pub max_stored_reads: usize,
    /// Where the time and randomness come from.
    pub environment: Arc<dyn Environment>,
}

impl Default for RegistryOptions {
    fn default() -> Self {
        Self {
            cache: CacheConfig::default(),
            purge_feast_metadata: false,
            defers: false,
            read_only: false,
            keep_tables: false,
            call_timeout: Duration::from_secs(30),
            max_writes: 1024,
            max_stored_reads: 1024,
            environment: Arc::new(System),
        }
    }
}

/// What a configuration says of it. A URL may make the registry read-only too; its scheme tells
/// ([`Scheme::is_read_only`](crate::Scheme::is_read_only)).
impl From<&RegistryConfig> for RegistryOptions {
    fn from(config: &RegistryConfig) -> Self {
        let options = Self {
            cache: config.cache,
            purge_feast_metadata: config.purge_feast_metadata,
            // A file is written whole, a row is not.
            defers: config.url.is_file(),
            keep_tables: config.keep_tables,
            ..Self::default()
        };
        if config.read_only { options.for_reading() } else { options }
    }
}

impl RegistryOptions {
    /// The same with another cache.
    #[must_use]
    pub fn with_cache(mut self, cache: CacheConfig) -> Self {
        self.cache = cache;
        self
    }

    /// The same, with objects that may wait for a commit, or without.
    #[must_use]
    pub fn with_defers(mut self, defers: bool) -> Self {
        self.defers = defers;
        self
    }

    /// The same, to read from only. Nothing is purged then.
    #[must_use]
    pub fn for_reading(mut self) -> Self {
        self.read_only = true;
        self.purge_feast_metadata = false;
        self
    }

    /// The same with another time for calls that say nothing of it.
    #[must_use]
    pub fn with_call_timeout(mut self, timeout: Duration) -> Self {
        self.call_timeout = timeout;
        self
    }

    /// The same with another clock and other randomness.
    #[must_use]
    pub fn with_environment(mut self, environment: Arc<dyn Environment>) -> Self {
        self.environment = environment;
        self
    }
}

/// How a call is made: how long it may take, and what the journal is to say of it. See
/// [`Registry::with_call`](crate::Registry::with_call).
#[derive(Debug, Clone, Default)]
pub struct CallOptions {
    end: End,
    author: Option<Arc<str>>,
    reason: Option<Arc<str>>,
    waits: Option<Waits>,
    access: Option<Access>,
    is_dry: bool,
}

/// When a call is to be over.
#[derive(Debug, Clone, Copy, Default)]
enum End {
    /// As the registry's options say.
    #[default]
    Usual,
    After(Duration),
    At(Instant),
}

impl CallOptions {
    /// A call that may take as long as [`RegistryOptions::call_timeout`] says, of nobody and for no reason.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same, over so much after it begins: each call anew.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.end = End::After(timeout);
        self
    }

    /// The same, over at a moment: for all calls together.
    #[must_use]
    pub fn with_deadline(mut self, at: Instant) -> Self {
        self.end = End::At(at);
        self
    }

    /// The same with who makes the call, for the journal.
    #[must_use]
    pub fn with_author(mut self, author: impl AsRef<str>) -> Self {
        self.author = Some(author.as_ref().into());
        self
    }

    /// The same with why it is made, for the journal.
    #[must_use]
    pub fn with_reason(mut self, reason: impl AsRef<str>) -> Self {
        self.reason = Some(reason.as_ref().into());
        self
    }

    /// The same, noting what it waits for.
    #[must_use]
    pub fn with_waits(mut self, waits: Waits) -> Self {
        self.waits = Some(waits);
        self
    }

    /// The same on behalf of somebody, who may do what the registry's permissions grant; without, everything is allowed.
    #[must_use]
    pub fn with_access(mut self, access: Access) -> Self {
        self.access = Some(access);
        self
    }

    /// The same that decides what would be written, with all errors that this may have, and writes nothing. It is about what changes
    /// objects, from [`apply`](crate::Registry::apply) to [`delete_project`](crate::Registry::delete_project) and
    /// [`undo`](crate::Registry::undo). What waits for a commit is still written first, and another writer may change what was
    /// decided from as soon as it is.
    #[must_use]
    pub fn dry(mut self) -> Self {
        self.is_dry = true;
        self
    }

    pub(super) fn is_dry(&self) -> bool {
        self.is_dry
    }

    pub(super) fn without_access(mut self) -> Self {
        self.access = None;
        self
    }

    /// On whose behalf it is made, if that was said.
    pub fn access(&self) -> Option<&Access> {
        self.access.as_ref()
    }

    /// When a call is over that begins now.
    pub(super) fn deadline(&self, usual: Duration) -> Deadline {
        let deadline = match self.end {
            End::Usual => Deadline::after(usual),
            End::After(timeout) => Deadline::after(timeout),
            End::At(at) => Deadline::at(at),
        };
        match &self.waits {
            Some(waits) => deadline.with_waits(waits.clone()),
            None => deadline,
        }
    }

    pub(super) fn author(&self) -> Option<String> {
        self.author.as_deref().map(str::to_owned)
    }

    pub(super) fn reason(&self) -> Option<String> {
        self.reason.as_deref().map(str::to_owned)
    }
}

/// How old an answer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// It may come from memory: this process's own writes show at once, those of others within a second where the storage has a
    /// journal; and else, those of others within `cache_ttl_seconds` and the time that a refresh takes (Feast: `allow_cache=True`).
    Cached,
    /// It is read from the storage (Feast: `allow_cache=False`).
    Stored,
}

impl Freshness {
    /// What Feast's `allow_cache` means.
    pub fn allow_cache(allow: bool) -> Self {
        if allow { Freshness::Cached } else { Freshness::Stored }
    }
}
