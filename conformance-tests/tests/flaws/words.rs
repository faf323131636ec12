//! Backends that each break one word of the contract: about writers and readers, threads, limits, or a handle's beginning
//! and end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use feast_registry_core::{
    Backend, Commit, Deadline, Error, ErrorKind, JournalEntry, JournalQuery, Key, Limits, Outcome, Query, Record,
    Result, Retention, Write,
};
use tokio::sync::Mutex;

use crate::backend::Flaw;

/// As long as a sync of a disk may take.
const SYNC: Duration = Duration::from_millis(1);

/// A handle on a storage, inside the one of [`crate::backend`].
#[derive(Debug)]
pub(crate) struct Words {
    flaw: Flaw,
    inner: Arc<dyn Backend>,
    storage: Arc<State>,
    is_prepared: AtomicBool,
    has_committed: AtomicBool,
    is_closed: AtomicBool,
}

/// What the handles on a storage share.
#[derive(Debug, Default)]
pub(crate) struct State {
    write_lock: Mutex<()>,
}

impl Words {
    pub(crate) fn around(inner: Arc<dyn Backend>, flaw: Flaw, storage: Arc<State>) -> Arc<dyn Backend> {
        let no = || AtomicBool::new(false);
        Arc::new(Self { flaw, inner, storage, is_prepared: no(), has_committed: no(), is_closed: no() })
    }

    /// What may go wrong in any call.
    fn check(&self) -> Result<()> {
        if self.flaw == Flaw::RefusesUnprepared && !self.is_prepared.load(Ordering::SeqCst) {
            return Err(Error::internal("the storage is to be prepared first"));
        }
        if self.flaw == Flaw::FailsOddlyOnceClosed && self.is_closed.load(Ordering::SeqCst) {
            return Err(Error::internal("the channel is closed"));
        }
        Ok(())
    }

    fn blocks_with(&self, flaw: Flaw) {
        if self.flaw == flaw {
            thread::sleep(SYNC);
        }
    }

    /// Whether a commit is too much for what was said to be no limit.
    fn refuses(&self, commit: &Commit) -> bool {
        let is_long = |name: &str| name.chars().count() > 255;
        commit.writes.iter().any(|write| match (self.flaw, write) {
            (Flaw::RefusesLargeValues, Write::Put(record)) => record.value.len() > 16 << 20,
            (Flaw::RefusesLongNames, Write::Put(Record { key: Key::Object { name, .. }, .. })) => is_long(name),
            _ => false,
        })
    }
}

#[async_trait]
impl Backend for Words {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn limits(&self) -> Limits {
        let mut limits = self.inner.limits();
        if self.flaw == Flaw::LimitsChange && self.has_committed.load(Ordering::SeqCst) {
            limits.value_bytes /= 2;
        }
        limits
    }

    async fn prepare(&self, deadline: &Deadline) -> Result<()> {
        self.is_prepared.store(true, Ordering::SeqCst);
        self.check()?;
        self.blocks_with(Flaw::BlocksOtherwise);
        self.inner.prepare(deadline).await
    }

    async fn read(&self, queries: &[Query], deadline: &Deadline) -> Result<Vec<Vec<Record>>> {
        self.check()?;
        self.blocks_with(Flaw::BlocksWhileReading);
        let _lock = match self.flaw {
            Flaw::TakesTheWriteLockToRead => Some(self.storage.write_lock.lock().await),
            _ => None,
        };
        self.inner.read(queries, deadline).await
    }

    async fn commit(&self, commit: Commit, deadline: &Deadline) -> Result<Outcome> {
        self.check()?;
        self.blocks_with(Flaw::BlocksWhileCommitting);
        if self.refuses(&commit) {
            return Err(Error::internal("too long"));
        }
        let _lock = match self.flaw {
            Flaw::TakesTheWriteLockToRead => {
                let lock = self.storage.write_lock.lock().await;
                tokio::time::sleep(Duration::from_micros(10 * commit.writes.len() as u64)).await;
                Some(lock)
            }
            _ => None,
        };
        if self.flaw == Flaw::BlocksInATask {
            tokio::spawn(async { thread::sleep(SYNC) }).await.expect("it only sleeps");
        }
        if self.flaw == Flaw::DoesWhatItRefuses {
            tokio::time::sleep(SYNC).await;
        }
        let outcome = self.inner.commit(commit, deadline).await;
        self.has_committed.store(true, Ordering::SeqCst);
        if self.flaw == Flaw::DoesWhatItRefuses && self.is_closed.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Unavailable, "the registry is closed"));
        }
        outcome
    }

    async fn journal(&self, query: &JournalQuery, deadline: &Deadline) -> Result<Vec<JournalEntry>> {
        self.check()?;
        self.blocks_with(Flaw::BlocksOtherwise);
        self.inner.journal(query, deadline).await
    }

    async fn prune_journal(&self, retention: &Retention, deadline: &Deadline) -> Result<u64> {
        self.inner.prune_journal(retention, deadline).await
    }

    async fn remove_if_empty(&self, deadline: &Deadline) -> Result<bool> {
        self.check()?;
        self.inner.remove_if_empty(deadline).await
    }

    async fn close(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
        self.inner.close().await;
    }
}
