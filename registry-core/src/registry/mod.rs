//! The registry: typed verbs over a backend, with Feast's rules, retries and a cache.

mod access;
mod adopt;
mod contrast;
mod edit;
mod later;
mod log;
mod options;
mod prune;
mod read;
#[cfg(test)]
mod tests;
mod transact;
mod undo;
mod watch;
mod write;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;

use crate::access::Action;
use crate::backend::{Backend, Key, Limits};
use crate::cache::Cache;
use crate::compute::Compute;
use crate::config::{CacheConfig, CacheMode};
use crate::deadline::Deadline;
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::journal::{JournalEntry, JournalQuery};
use crate::kind::Kind;
use crate::locks::Locks;
use crate::observed::Observed;

pub use contrast::{Contrast, StoredDifference};
pub use edit::{Condition, Edit, Edited};
pub use log::{JournalSpan, LogQuery};
pub use options::{CallOptions, Freshness, RegistryOptions};
pub use read::{FeatureViewVersion, Holding, ListFilter};
pub use undo::{AsOf, PlannedChange, Undo, UndoPlan};
pub use watch::{Watch, WatchEvent};
pub use write::StorageRemoval;

/// A feature registry.
///
/// Cloning gives another handle on the same one, and so does [`with_call`](Self::with_call), whose calls have a deadline,
/// an author and a reason. The methods want a tokio runtime.
///
/// Every write is atomic, and durable when it returns. Writers may race, within this process and between processes: each
/// write decides again from what another has left, until it is done or its deadline is over. A write may be dropped at any
/// await: what has not been sent to the storage then ends without effect, and a commit that has been sent is seen through
/// (`a_write_that_was_sent_is_finished_though_nobody_waits_for_it`, `a_write_that_still_queues_ends_with_its_caller`).
///
/// Any call may fail with [`DeadlineExceeded`](crate::ErrorKind::DeadlineExceeded) and
/// [`Overloaded`](crate::ErrorKind::Overloaded), which say that nothing was done, and with what the storage says. Only
/// writes fail with [`UnknownOutcome`](crate::ErrorKind::UnknownOutcome).
#[derive(Clone)]
#[doc(alias("BaseRegistry", "SqlRegistry", "FileRegistry"))]
pub struct Registry {
    inner: Arc<Inner>,
    call: CallOptions,
}

struct Inner {
    backend: Arc<dyn Backend>,
    /// Where reads go that do not decide a write, if not to the backend itself.
    replica: Option<Arc<dyn Backend>>,
    limits: Limits,
    cache: Arc<Cache>,
    locks: Locks,
    writes: Arc<Semaphore>,
    stored_reads: Arc<Semaphore>,
    compute: Compute,
    call_timeout: Duration,
    environment: Arc<dyn Environment>,
    keeps_metadata: bool,
    keeps_tables: bool,
    is_read_only: bool,
    defers: bool,
    later: later::Later,
}

impl Registry {
    /// Opens a registry: makes the storage ready as its backend was told to, and takes in what older Feast versions left.
    /// May take as long as [`RegistryOptions::call_timeout`] says.
    ///
    /// # Errors
    /// What [`Backend::prepare`] says, and what a first read and write may.
    pub async fn open(backend: Arc<dyn Backend>, options: RegistryOptions) -> Result<Self> {
        Self::open_with_replica(backend, None, options).await
    }

    /// Opens a registry whose reads go to a replica of its storage (Feast: `read_path`): those of callers, and those that
    /// fill the cache. What a write is decided from is read from the storage itself, or checked there by its commit, so a
    /// replica that lags behind costs no correctness; but a caller may not see at once what was just written, and a refresh of the cache may take
    /// it back to what the replica has.
    ///
    /// # Errors
    /// As [`open`](Self::open). The replica is to be a backend that makes nothing.
    pub async fn open_with_replica(
        backend: Arc<dyn Backend>,
        replica: Option<Arc<dyn Backend>>,
        options: RegistryOptions,
    ) -> Result<Self> {
        let backend: Arc<dyn Backend> = Arc::new(Observed::new(backend, "primary"));
        let replica = replica.map(|replica| Arc::new(Observed::new(replica, "replica")) as Arc<dyn Backend>);
        let deadline = Deadline::after(options.call_timeout);
        backend.prepare(&deadline).await?;
        if let Some(replica) = &replica {
            replica.prepare(&deadline).await?;
        }
        let limits = backend.limits();
        // A storage that lacks something which could be mended has said so itself.
        for promise in &limits.unkept {
            tracing::debug!("not kept by this storage: {promise}");
        }
        let CacheConfig { mode, ttl } = options.cache;
        let permits = |number: usize| Arc::new(Semaphore::new(number.min(Semaphore::MAX_PERMITS)));
        let source = Arc::clone(replica.as_ref().unwrap_or(&backend));
        let inner = Inner {
            cache: Cache::new(
                options.cache,
                limits.keeps_order,
                source,
                (!options.read_only).then(|| Arc::clone(&backend)),
            ),
            limits,
            backend,
            replica,
            locks: Locks::new(),
            writes: permits(options.max_writes),
            stored_reads: permits(options.max_stored_reads),
            compute: Compute::new(),
            call_timeout: options.call_timeout,
            environment: options.environment,
            keeps_metadata: !options.purge_feast_metadata,
            keeps_tables: options.keep_tables,
            is_read_only: options.read_only,
            defers: options.defers && !options.read_only,
            later: later::Later::default(),
        };
        let registry = Self { inner: Arc::new(inner), call: CallOptions::default() };
        if !options.read_only {
            registry.adopt_old_projects(deadline).await?;
        }
        if mode == CacheMode::Thread && ttl > Duration::ZERO {
            tokio::spawn(Cache::refresh_forever(Arc::downgrade(&registry.inner.cache)));
        }
        Ok(registry)
    }

    /// A handle on the same registry whose calls are made in this way. It costs next to nothing.
    #[must_use]
    pub fn with_call(&self, call: CallOptions) -> Self {
        Self { inner: Arc::clone(&self.inner), call }
    }

    /// Where the registry is stored, without secrets.
    pub fn location(&self) -> String {
        self.inner.backend.location()
    }

    /// Reads everything anew for cached reads (Feast: `refresh`), with a read that begins after this call; callers who
    /// come at the same time share one. It goes on when its callers are gone.
    ///
    /// # Errors
    /// Why the storage could not be read: cached reads then have what they had before.
    pub async fn refresh(&self) -> Result<()> {
        self.inner.cache.refresh(&self.deadline()).await
    }

    /// How long ago what cached reads have was read from the storage; `None` when it never was.
    pub fn cache_age(&self) -> Option<Duration> {
        self.inner.cache.age()
    }

    /// Objects that are stored and cannot be decoded, as far as reads have met them. They are left out of lists, each is
    /// logged once for each state that it is in, and a call that asks for one fails with
    /// [`Corrupt`](crate::ErrorKind::Corrupt). Applying the whole object again, or deleting it, mends it.
    pub fn undecodable(&self) -> Vec<Key> {
        self.inner.cache.unsound().keys()
    }

    /// The same, asked for by somebody who works with a project: they must be allowed to see it, or to make it.
    ///
    /// # Errors
    /// `PermissionDenied`; those of the storage.
    pub async fn refresh_for(&self, project: &str) -> Result<()> {
        if let Some(mut judge) = self.judge(project).await?
            && !judge.may_make_project()
        {
            let object = self.find_any(&[Kind::Project], project, project, Freshness::Cached).await?;
            judge.check(Action::Describe.into(), Kind::Project, project, object.as_ref())?;
        }
        self.refresh().await
    }

    /// Entries of the journal ([`Backend::journal`]). What the caller may not see of them is not in them; of what they may see nothing
    /// of, there is an entry without changes, author and reason.
    ///
    /// # Errors
    /// [`Compacted`](crate::ErrorKind::Compacted) when the journal no longer has the revision that it is to go on after;
    /// [`Unsupported`](crate::ErrorKind::Unsupported) where the storage has no journal.
    pub async fn journal(&self, query: &JournalQuery) -> Result<Vec<JournalEntry>> {
        let entries = self.journal_page(query, &self.deadline()).await?;
        if self.call.access().is_none() {
            return Ok(entries);
        }
        let mut seen = Vec::with_capacity(entries.len());
        for entry in entries {
            let hidden = JournalEntry::new(entry.revision, entry.id, entry.at);
            seen.push(self.seen_of(Arc::new(entry)).await?.map_or(hidden, Arc::unwrap_or_clone));
        }
        Ok(seen)
    }

    /// Ends what the registry keeps up: what waits for a commit is written, the cache is no longer refreshed, and the
    /// storage is let go of. Other handles are of no use afterwards.
    ///
    /// # Errors
    /// As [`commit`](Self::commit): what waited and could not be written is lost. The rest is done all the same.
    pub async fn close(&self) -> Result<()> {
        let written = self.commit().await;
        self.inner.cache.close().await;
        self.inner.backend.close().await;
        if let Some(replica) = &self.inner.replica {
            replica.close().await;
        }
        written
    }

    /// When a call of this handle is over that begins now.
    fn deadline(&self) -> Deadline {
        self.call.deadline(self.inner.call_timeout)
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("location", &self.location()).field("call", &self.call).finish_non_exhaustive()
    }
}

impl Inner {
    /// Where reads go that do not decide a write.
    fn reads(&self) -> &dyn Backend {
        &**self.replica.as_ref().unwrap_or(&self.backend)
    }

    /// Lets a reader of the storage in.
    fn admit_read(&self) -> Result<tokio::sync::OwnedSemaphorePermit, Error> {
        transact::admit(&self.stored_reads, "reads from the storage")
    }
}

/// The text of a fact.
fn fact(text: &Bytes) -> String {
    String::from_utf8_lossy(text).into_owned()
}
