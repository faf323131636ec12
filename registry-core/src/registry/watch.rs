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

use crate::cache::{Following, PageSize};
use crate::deadline::Deadline;
use crate::error::Result;
use crate::journal::{JournalEntry, JournalFilter, JournalQuery, Revision};
use crate::registry::{CallOptions, Registry};

/// After how long without a commit a watcher is told how far it is.
const BOOKMARK_EVERY: Duration = Duration::from_secs(10);
/// How many entries are taken at once of those that are in memory anyway.
const MOST_AT_ONCE: usize = 64;

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
    /// How many entries are read from the storage at once.
    page: PageSize,
}

impl Registry {
    /// Watches what is committed to the registry, whichever process commits it: each commit once, in the order of the journal,
    /// from the one that comes after a revision, or for `None` from now on. When nothing happens there is a
    /// [`Bookmark`](WatchEvent::Bookmark) now and then. Changes of those who keep no journal are seen when they are noted in it,
    /// as made by [`OUTSIDE`](crate::OUTSIDE).
    ///
    /// A watcher that is slow holds up nobody and keeps little in memory: it reads the journal when it gets around to it. As long
    /// as it is dropped or polled at some time, it may be left at any await.
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
                self.journal(&JournalQuery::after(after, 1).without_images()).await?;
                Some(after)
            }
            None => {
                let newest = self.journal(&JournalQuery::before(None, 1).without_images()).await?;
                newest.first().map(|entry| entry.revision)
            }
        };
        cache.start_following();
        let registry = self.with_call(CallOptions::new());
        let (told_at, ready) = (Instant::now(), VecDeque::new());
        let watcher = Watcher { registry, filter, followed, after, told_at, ready, page: PageSize::default() };
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
                if let Some(entry) = self.filter.narrow(entry) {
                    self.told_at = Instant::now();
                    return Ok(WatchEvent::Commit(entry));
                }
            }
            let next_bookmark = self.told_at + BOOKMARK_EVERY;
            if Instant::now() >= next_bookmark
                && let Some(after) = self.after
            {
                self.told_at = Instant::now();
                return Ok(WatchEvent::Bookmark(after));
            }
            self.followed.mark_unchanged();
            match self.registry.inner.cache.recent().after(self.after, MOST_AT_ONCE) {
                Following::Entries(entries) if entries.is_empty() => {
                    // The sender is the registry's own, so it is there.
                    drop(tokio::time::timeout_at(next_bookmark, self.followed.changed()).await);
                }
                Following::Entries(entries) => self.ready.extend(entries),
                Following::Behind => self.read(next_bookmark).await?,
            }
        }
    }

    /// Reads from the storage what comes next, or waits for it.
    async fn read(&mut self, next_bookmark: Instant) -> Result<()> {
        let registry = &self.registry;
        let read = registry.journal(&JournalQuery::after(self.after, self.page.entries())).await?;
        if read.is_empty() {
            registry.inner.cache.start_following();
            registry.inner.reads().wait_for_commit(self.after, &Deadline::at(next_bookmark)).await;
        }
        self.page.learn(read.iter());
        self.ready.extend(read.into_iter().map(Arc::new));
        Ok(())
    }
}
