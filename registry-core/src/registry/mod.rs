//! The registry: typed verbs over a backend, with Feast's rules, retries and a cache.

mod later;
mod read;
mod write;

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use prost_types::Timestamp;

use crate::backend::{Backend, Commit, Key, Limits, Outcome, Query, Record, Write};
use crate::cache::Cache;
use crate::config::{CacheConfig, CacheMode};
use crate::deadline::Deadline;
use crate::draft::{Context, Draft, Fetched};
use crate::error::{Error, ErrorKind, Result};
use crate::locks::{Locks, Reach};
use crate::rules;

pub use read::{FeatureViewVersion, ListFilter};

/// How long a write goes on trying against other writers of the same objects.
const RETRY_FOR: Duration = Duration::from_secs(30);
/// The longest pause between two tries.
const MAX_BACKOFF: Duration = Duration::from_millis(64);

/// How a registry behaves, whatever stores it.
#[derive(Debug, Clone, Default)]
pub struct RegistryOptions {
    /// How cached reads are kept fresh.
    pub cache: CacheConfig,
    /// Removes Feast's old `feast_metadata` and writes none (Feast: `purge_feast_metadata`).
    pub purge_feast_metadata: bool,
    /// Objects of [`Registry::apply_later`] wait for a commit, as suits storages that are written whole. Else they are
    /// written at once.
    pub defers: bool,
    /// Only reads: opening changes nothing, and writes are refused. The backend is to be one that makes nothing.
    pub read_only: bool,
}

/// How old an answer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// It may come from memory: this process's own writes show at once, those of others within `cache_ttl_seconds`
    /// (Feast: `allow_cache=True`).
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

/// A feature registry.
///
/// Cloning gives another handle on the same one. Its methods want a tokio runtime. Every write is atomic, durable when
/// it returns, and completes even if the future that waits for it is dropped. Writers may race, within this process and
/// between processes: each write decides again from what another has left, until it is done or half a minute is over.
#[derive(Clone)]
pub struct Registry {
    inner: Arc<Inner>,
}

struct Inner {
    backend: Arc<dyn Backend>,
    /// Where reads go that do not decide a write, if not to the backend itself.
    replica: Option<Arc<dyn Backend>>,
    limits: Limits,
    cache: Cache,
    locks: Locks,
    keeps_metadata: bool,
    is_read_only: bool,
    defers: bool,
    later: later::Later,
}

impl Registry {
    /// Opens a registry: makes the storage ready as `schema_mode` says, and takes in what older Feast versions left.
    ///
    /// # Errors
    /// What [`Backend::prepare`] says, and what a first read and write may.
    pub async fn open(backend: Arc<dyn Backend>, options: RegistryOptions) -> Result<Self> {
        Self::open_with_replica(backend, None, options).await
    }

    /// Opens a registry whose reads go to a replica of its storage (Feast: `read_path`): those of callers, and those that
    /// fill the cache. What is read to decide a write is read from the storage itself, so a replica that lags behind
    /// costs no correctness; but a caller may not see at once what was just written, and a refresh of the cache may take
    /// it back to what the replica has.
    ///
    /// # Errors
    /// As [`open`](Self::open). The replica is to be a backend that makes nothing.
    pub async fn open_with_replica(
        backend: Arc<dyn Backend>,
        replica: Option<Arc<dyn Backend>>,
        options: RegistryOptions,
    ) -> Result<Self> {
        let deadline = Deadline::after(RETRY_FOR);
        backend.prepare(&deadline).await?;
        if let Some(replica) = &replica {
            replica.prepare(&deadline).await?;
        }
        let limits = backend.limits();
        let inner = Inner {
            cache: Cache::new(options.cache, limits.keeps_order),
            limits,
            backend,
            replica,
            locks: Locks::new(),
            keeps_metadata: !options.purge_feast_metadata,
            is_read_only: options.read_only,
            defers: options.defers && !options.read_only,
            later: later::Later::default(),
        };
        let registry = Self { inner: Arc::new(inner) };
        if !options.read_only {
            registry.adopt_old_projects().await?;
        }
        let CacheConfig { mode, ttl } = registry.inner.cache.config();
        if *mode == CacheMode::Thread && *ttl > Duration::ZERO {
            tokio::spawn(refresh_forever(Arc::downgrade(&registry.inner), *ttl));
        }
        Ok(registry)
    }

    /// Where the registry is stored, without secrets.
    pub fn location(&self) -> String {
        self.inner.backend.location()
    }

    /// Reads everything anew for cached reads (Feast: `refresh`).
    pub async fn refresh(&self) -> Result<()> {
        self.inner.settle().await;
        self.inner.cache.refresh(self.inner.reads()).await
    }

    /// Registries of Feast before 0.40 had no project objects; with `purge_feast_metadata`, their old form then goes.
    async fn adopt_old_projects(&self) -> Result<()> {
        let queries = rules::fetch_for_adoption();
        let answers = match self.inner.backend.read(&queries, &Deadline::after(RETRY_FOR)).await {
            // With `schema_mode: skip` the tables may be made later: there is nothing old in those.
            Err(error) if error.kind() == ErrorKind::SchemaMissing => return Ok(()),
            answers => answers?,
        };
        let metadata = answers.into_iter().next().unwrap_or_default();
        let identities: Vec<(String, i64)> = metadata
            .iter()
            .filter_map(|record| match &record.key {
                Key::Metadata { project, name } if name == Key::PROJECT_UUID => Some((project.clone(), record.updated)),
                _ => None,
            })
            .collect();
        if identities.is_empty() {
            return Ok(());
        }
        let purged: Vec<Key> = if self.inner.keeps_metadata {
            Vec::new()
        } else {
            metadata.into_iter().map(|record| record.key).collect()
        };
        let projects = identities.iter().map(|(project, _)| Key::project_object(project)).collect();
        self.transact(vec![Query::Keys(projects)], Reach::Projects, move |draft, ctx| {
            purged.iter().cloned().for_each(|key| draft.delete(key));
            rules::adopt(draft, ctx, &identities)
        })
        .await
    }

    /// Reads, lets a rule decide, commits; and again, if another writer was there in between.
    ///
    /// It runs as a task of its own, so that a caller who goes away cannot leave a commit whose result the cache misses.
    async fn transact<T: Send + 'static>(
        &self,
        queries: Vec<Query>,
        reach: Reach,
        rule: impl FnMut(&mut Draft<'_>, &mut Context<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.inner.settle().await;
        let inner = Arc::clone(&self.inner);
        let task = tokio::spawn(async move { inner.transact(&queries, reach, rule).await });
        task.await.map_err(|error| Error::internal("a write of the registry was aborted").with_source(error))?
    }
}

impl Inner {
    /// Where reads go that do not decide a write.
    fn reads(&self) -> &dyn Backend {
        &**self.replica.as_ref().unwrap_or(&self.backend)
    }

    async fn transact<T>(
        &self,
        queries: &[Query],
        reach: Reach,
        mut rule: impl FnMut(&mut Draft<'_>, &mut Context<'_>) -> Result<T>,
    ) -> Result<T> {
        if self.is_read_only {
            return Err(Error::new(ErrorKind::ReadOnly, "this registry was opened for reading only"));
        }
        let keys: Vec<Key> = queries
            .iter()
            .filter_map(|query| if let Query::Keys(keys) = query { Some(keys.as_slice()) } else { None })
            .flatten()
            .cloned()
            .collect();
        let _places = self.locks.enter(&keys, reach).await;
        let began = Instant::now();
        let deadline = Deadline::after(RETRY_FOR);
        for attempt in 0_u32.. {
            let fetched = Fetched::new(queries, self.backend.read(queries, &deadline).await?);
            let mut draft = Draft::new(&fetched);
            let mut ctx = Context { now: now(), new_uuid: &mut new_uuid, keeps_metadata: self.keeps_metadata };
            let value = rule(&mut draft, &mut ctx)?;
            if draft.is_empty() {
                return Ok(value);
            }
            let commit = draft.into_commit();
            self.check_sizes(&commit)?;
            let writes = commit.writes.clone();
            match self.backend.commit(commit, &deadline).await? {
                Outcome::Committed { .. } => {
                    self.cache.apply(writes);
                    return Ok(value);
                }
                Outcome::Conflict(key) if began.elapsed() > RETRY_FOR => {
                    return Err(Error::new(
                        ErrorKind::Conflict,
                        format!("other writers kept changing {key} for {} s; try again", RETRY_FOR.as_secs()),
                    ));
                }
                Outcome::Conflict(key) => {
                    tracing::debug!(%key, attempt, "another writer was faster; deciding again");
                    tokio::time::sleep(backoff(attempt)).await;
                }
            }
        }
        Err(Error::internal("a write ran out of attempts"))
    }

    fn check_sizes(&self, commit: &Commit) -> Result<()> {
        for write in &commit.writes {
            if let Write::Put(Record { key, value, .. }) = write
                && value.len() > self.limits.value_bytes
            {
                let (size, limit) = (value.len(), self.limits.value_bytes);
                return Err(Error::invalid(format!(
                    "{key} has {size} bytes, and this registry stores at most {limit}"
                )));
            }
        }
        Ok(())
    }
}

/// A random pause of up to 1, 2, 4, … ms, so that writers who met once do not meet again.
fn backoff(attempt: u32) -> Duration {
    let longest = MAX_BACKOFF.min(Duration::from_millis(1 << attempt.min(10)));
    longest.mul_f64(fastrand::f64())
}

/// Now (UTC), in whole microseconds. A clock before 1970 counts as 1970.
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp { seconds: since.as_secs() as i64, nanos: (since.subsec_micros() * 1000) as i32 }
}

/// Refreshes the cache every `ttl` until the registry is gone (Feast: `cache_mode: thread`).
async fn refresh_forever(registry: Weak<Inner>, ttl: Duration) {
    loop {
        let Some(inner) = registry.upgrade() else { return };
        if let Err(error) = inner.cache.refresh(inner.reads()).await {
            tracing::warn!(%error, "the cached registry could not be refreshed");
        }
        drop(inner);
        tokio::time::sleep(ttl).await;
    }
}

fn new_uuid() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// The text of a fact.
fn fact(text: &Bytes) -> String {
    String::from_utf8_lossy(text).into_owned()
}
