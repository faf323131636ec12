//! Following what is committed.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use futures_util::stream::unfold;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::cache::Following;
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::journal::{JournalEntry, JournalFilter, JournalQuery, Revision};
use crate::registry::{CallOptions, Registry};

/// After how long without a commit a watcher is told how far it is.
const BOOKMARK_EVERY: Duration = Duration::from_secs(10);
/// How many entries are looked at at once, without their bytes, by a watcher who is behind.
const PAGE: usize = 64;
/// For so long the storage may have been silent while a watcher is told that nothing happens.
const SILENT_FOR: Duration = Duration::from_secs(20);

/// What a watcher is told.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum WatchEvent {
    /// A commit, with those of its changes that the filter lets through: at least one.
    Commit(Arc<JournalEntry>),
    /// Up to this revision there is nothing more to tell: a watcher that is cut off may go on after it.
    Bookmark(Revision),
}

/// A stream of what is committed, see [`Registry::watch`]. It ends after an error.
pub struct Watch {
    events: Pin<Box<dyn Stream<Item = Result<WatchEvent>> + Send>>,
}

impl Stream for Watch {
    type Item = Result<WatchEvent>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.events.as_mut().poll_next(cx)
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

/// How far a watcher is.
struct Watcher {
    registry: Registry,
    filter: JournalFilter,
    /// How far the registry has followed the journal. That somebody looks has it keep the newest entries.
    followed: watch::Receiver<Option<Revision>>,
    after: Option<Revision>,
    told_at: Instant,
    /// Read, and not yet told.
    ready: VecDeque<Arc<JournalEntry>>,
    /// What comes next in the storage, and is read one after the other.
    coming: VecDeque<Revision>,
}

impl Registry {
    /// Watches what is committed to the registry, whichever process commits it: each commit once, in the order of the journal,
    /// from the one that comes after a revision, or for `None` from now on. When nothing happens there is a
    /// [`Bookmark`](WatchEvent::Bookmark) now and then. Changes of those who keep no journal are seen when they are noted in it,
    /// as made by [`OUTSIDE`](crate::OUTSIDE).
    ///
    /// A watcher that is slow holds up nobody: it reads the journal when it gets around to it. It has some entries of 256 KiB
    /// together in memory, or a single larger one, which it shares with others who are as far. It may be left at any await.
    ///
    /// The registry is read into memory for it, as for cached reads: what nobody has journaled is found by comparing with that.
    ///
    /// # Errors
    /// What [`journal`](Self::journal) says. The stream then has the same errors, and ends after one:
    /// [`Compacted`](crate::ErrorKind::Compacted) when the journal no longer has the revision, so that everything has to be
    /// listed before it is watched anew.
    pub async fn watch(&self, after: Option<Revision>, filter: JournalFilter) -> Result<Watch> {
        let cache = &self.inner.cache;
        let followed = cache.recent().watch();
        cache.find_position(&self.deadline()).await?;
        let after = match after {
            Some(after) => {
                self.journal_page(&JournalQuery::after(after, 1).without_images(), &self.deadline()).await?;
                Some(after)
            }
            None => {
                let newest =
                    self.journal_page(&JournalQuery::before(None, 1).without_images(), &self.deadline()).await?;
                newest.first().map(|entry| entry.revision)
            }
        };
        cache.start_following();
        cache.fill_soon();
        let options = CallOptions::new();
        let options = match self.call.access() {
            Some(access) => options.with_access(access.clone()),
            None => options,
        };
        let registry = self.with_call(options);
        let (told_at, ready, coming) = (Instant::now(), VecDeque::new(), VecDeque::new());
        let watcher = Watcher { registry, filter, followed, after, told_at, ready, coming };
        let events = unfold(Some(watcher), |watcher| async {
            let mut watcher = watcher?;
            match watcher.next().await {
                Ok(event) => Some((Ok(event), Some(watcher))),
                Err(error) => Some((Err(error), None)),
            }
        });
        Ok(Watch { events: Box::pin(events) })
    }
}

impl Watcher {
    async fn next(&mut self) -> Result<WatchEvent> {
        loop {
            while let Some(entry) = self.ready.pop_front() {
                self.after = Some(entry.revision);
                let seen = self.registry.seen_of(entry).await?;
                if let Some(entry) = seen.and_then(|entry| self.filter.narrow(entry)) {
                    self.told_at = Instant::now();
                    return Ok(WatchEvent::Commit(entry));
                }
            }
            if let Some(revision) = self.coming.front().copied() {
                let entry = self.read(revision).await?;
                self.coming.pop_front();
                self.ready.push_back(entry);
                continue;
            }
            let next_bookmark = self.told_at + BOOKMARK_EVERY;
            if Instant::now() >= next_bookmark {
                self.check_storage()?;
                self.told_at = Instant::now();
                if let Some(after) = self.after {
                    return Ok(WatchEvent::Bookmark(after));
                }
                continue;
            }
            self.followed.mark_unchanged();
            match self.registry.inner.cache.recent().after(self.after) {
                Following::Entries(entries) if entries.is_empty() => {
                    // The sender is the registry's own, so it is there.
                    drop(tokio::time::timeout_at(next_bookmark, self.followed.changed()).await);
                }
                Following::Entries(entries) => self.ready.extend(entries),
                Following::Behind => self.look(next_bookmark).await?,
            }
        }
    }

    /// Looks what comes next in the storage, or waits for it.
    async fn look(&mut self, next_bookmark: Instant) -> Result<()> {
        let registry = &self.registry;
        let query = JournalQuery::after(self.after, PAGE).without_images();
        let page = {
            let _one_of_few = registry.inner.cache.recent().reads.acquire().await;
            registry.journal_page(&query, &registry.deadline()).await?
        };
        if page.is_empty() {
            registry.inner.cache.start_following();
            registry.inner.reads().wait_for_commit(self.after, &Deadline::at(next_bookmark)).await;
        }
        for entry in page {
            if self.filter.lets_through(&entry) {
                self.coming.push_back(entry.revision);
            } else if self.coming.is_empty() {
                self.after = Some(entry.revision);
            }
        }
        Ok(())
    }

    /// Reads one entry whole, unless another watcher has it.
    async fn read(&self, revision: Revision) -> Result<Arc<JournalEntry>> {
        let recent = self.registry.inner.cache.recent();
        if let Some(entry) = recent.shared(revision) {
            return Ok(entry);
        }
        let _one_of_few = recent.reads.acquire().await;
        if let Some(entry) = recent.shared(revision) {
            return Ok(entry);
        }
        let read = self.registry.journal_page(&JournalQuery::of(revision), &self.registry.deadline()).await?;
        match read.into_iter().next().filter(|entry| entry.revision == revision) {
            Some(entry) => {
                let entry = Arc::new(entry);
                recent.share(&entry);
                Ok(entry)
            }
            None => Err(Error::compacted(&self.registry.location(), self.after.unwrap_or(revision))),
        }
    }

    /// Refuses to say that nothing happens when the storage has not answered for long.
    fn check_storage(&self) -> Result<()> {
        match self.registry.inner.cache.recent().looked() {
            Some(ago) if ago > SILENT_FOR => Err(Error::new(
                ErrorKind::Unavailable,
                format!("{}: the journal could not be read for {} seconds", self.registry.location(), ago.as_secs()),
            )),
            _ => Ok(()),
        }
    }
}
