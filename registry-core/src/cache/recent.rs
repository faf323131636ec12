//! The newest entries of the journal in memory, for those who watch: the storage is asked once for all of them.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use crate::journal::{Image, JournalEntry, Revision};

/// How many bytes of entries are kept, about, and how many entries; the newest one always, however large it is.
const MOST_BYTES: usize = 8 << 20;
const MOST_ENTRIES: usize = 8192;
/// About so many bytes of entries a watcher is given at once, or a single entry: it may keep them for long.
const AT_ONCE: usize = 256 << 10;
/// So many entries at a time are read from the storage for watchers who are further behind.
const READS: usize = 2;
/// What an entry and a change take besides their bytes, about.
const OVERHEAD: usize = 200;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Recent {
    kept: Mutex<Kept>,
    /// How far the journal has been followed, for those who wait for more.
    moved: watch::Sender<Option<Revision>>,
    /// Entries that were read for watchers who are further behind, for as long as one of them has it: they share it.
    read: Mutex<HashMap<Revision, Weak<JournalEntry>>>,
    pub(crate) reads: Semaphore,
}

#[derive(Debug, Default)]
struct Kept {
    /// All entries that come after this are kept, as far as the journal has been followed. `None` where it is not followed.
    after: Option<Option<Revision>>,
    entries: VecDeque<(Arc<JournalEntry>, usize)>,
    bytes: usize,
    followed_to: Option<Revision>,
    /// When the journal was last looked into.
    looked: Option<Instant>,
}

/// What is kept after a revision.
#[derive(Debug)]
pub(crate) enum Following {
    /// These, and when they are all, nothing more as yet.
    Entries(Vec<Arc<JournalEntry>>),
    /// The revision is older than what is kept: the storage has it.
    Behind,
}

impl Default for Recent {
    fn default() -> Self {
        Self {
            kept: Mutex::default(),
            moved: watch::Sender::new(None),
            read: Mutex::default(),
            reads: Semaphore::new(READS),
        }
    }
}

impl Recent {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The journal is followed from here on.
    pub(super) fn begin(&self, position: Option<Revision>) {
        let looked = Some(Instant::now());
        *self.kept() = Kept { after: Some(position), followed_to: position, looked, ..Kept::default() };
        self.moved.send_replace(position);
    }

    /// The journal is not followed any more.
    pub(super) fn end(&self) {
        *self.kept() = Kept::default();
        self.moved.send_modify(|_| {});
    }

    /// Keeps entries that come after all that are kept; not for nobody.
    pub(super) fn push(&self, entries: Vec<JournalEntry>) {
        let is_watched = self.moved.receiver_count() > 0;
        let mut kept = self.kept();
        if kept.after.is_none() {
            return;
        }
        for entry in entries {
            // Entries come again when what followed them could not be done.
            let newest = kept.entries.back().map(|(newest, _)| newest.revision);
            if newest.max(kept.after.flatten()) >= Some(entry.revision) {
                continue;
            }
            let size = size(&entry);
            kept.bytes += size;
            kept.entries.push_back((Arc::new(entry), size));
        }
        while let Some((oldest, size)) = kept.entries.front().map(|(entry, size)| (entry.revision, *size))
            && (!is_watched || (kept.entries.len() > 1 && kept.bytes > MOST_BYTES) || kept.entries.len() > MOST_ENTRIES)
        {
            kept.entries.pop_front();
            kept.bytes -= size;
            kept.after = Some(Some(oldest));
        }
    }

    /// Notes that the storage has answered.
    pub(super) fn note_look(&self) {
        self.kept().looked = Some(Instant::now());
    }

    /// How long ago the journal was last looked into; `None` if it is not followed.
    pub(crate) fn looked(&self) -> Option<Duration> {
        self.kept().looked.map(|looked| looked.elapsed())
    }

    /// An entry that another watcher has, who is as far behind.
    pub(crate) fn shared(&self, revision: Revision) -> Option<Arc<JournalEntry>> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner).get(&revision)?.upgrade()
    }

    /// Lets others have an entry that was read.
    pub(crate) fn share(&self, entry: &Arc<JournalEntry>) {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        read.retain(|_, entry| entry.strong_count() > 0);
        read.insert(entry.revision, Arc::downgrade(entry));
    }

    /// Says to those who wait that the contents are so far.
    pub(super) fn moved_to(&self, position: Revision) {
        self.kept().followed_to = Some(position);
        self.moved.send_replace(Some(position));
    }

    /// Watches how far the journal is followed. While somebody does, entries are kept.
    pub(crate) fn watch(&self) -> watch::Receiver<Option<Revision>> {
        self.moved.subscribe()
    }

    /// The entries that come after a revision, as far as they are kept and the contents have them; not many at once.
    pub(crate) fn after(&self, revision: Option<Revision>) -> Following {
        let kept = self.kept();
        if kept.after.is_none_or(|after| revision < after) {
            return Following::Behind;
        }
        let start = kept.entries.partition_point(|(entry, _)| Some(entry.revision) <= revision);
        let mut bytes = 0;
        let entries = kept.entries.iter().skip(start).take_while(|(entry, size)| {
            let is_first = bytes == 0;
            bytes += size;
            Some(entry.revision) <= kept.followed_to && (is_first || bytes <= AT_ONCE)
        });
        Following::Entries(entries.map(|(entry, _)| Arc::clone(entry)).collect())
    }
}

/// How many entries are worth reading at once: as many as have about a mebibyte, as far as earlier ones tell.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PageSize(usize);

impl Default for PageSize {
    fn default() -> Self {
        Self(2)
    }
}

impl PageSize {
    const BYTES: usize = 1 << 20;
    const MOST: usize = 64;

    /// So many.
    pub(crate) fn entries(self) -> usize {
        self.0
    }

    /// What is learned from entries that were read.
    pub(crate) fn learn<'a>(&mut self, read: impl Iterator<Item = &'a JournalEntry>) {
        let bytes: usize = read.map(size).sum();
        self.0 = match bytes {
            _ if bytes > Self::BYTES => (self.0 / 2).max(1),
            _ if bytes < Self::BYTES / 4 => (self.0 * 2).min(Self::MOST),
            _ => self.0,
        };
    }
}

/// What an entry takes in memory, about.
fn size(entry: &JournalEntry) -> usize {
    let bytes_of = |image: &Image| if let Image::Value(bytes) = image { bytes.len() } else { 0 };
    let changes = entry.changes.iter().map(|change| bytes_of(&change.before) + bytes_of(&change.after) + OVERHEAD);
    OVERHEAD + changes.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{Change, CommitId, Target};
    use crate::{Key, Timestamp};

    fn entry(revision: u64, bytes: usize) -> JournalEntry {
        let mut entry = JournalEntry::new(Revision::new(revision), CommitId::random(), Timestamp::default());
        let key = Target::Key(Key::metadata("p", "name"));
        let after = Image::Value(vec![0; bytes].into());
        entry.changes.push(Change { target: key, before: Image::Absent, after });
        entry
    }

    fn shown(recent: &Recent, after: u64) -> Option<Vec<u64>> {
        match recent.after(Some(Revision::new(after))) {
            Following::Entries(entries) => Some(entries.iter().map(|entry| entry.revision.number()).collect()),
            Following::Behind => None,
        }
    }

    #[test]
    fn who_is_not_behind_what_is_kept_has_all_that_comes_after() {
        let recent = Recent::default();
        assert_eq!(shown(&recent, 5), None, "nothing is followed yet");
        let _watcher = recent.watch();
        recent.begin(Some(Revision::new(5)));
        recent.push([6, 8, 9].map(|revision| entry(revision, 10)).into());
        assert_eq!(shown(&recent, 5), Some(vec![]), "the contents do not have them yet");
        recent.moved_to(Revision::new(8));
        assert_eq!(shown(&recent, 5), Some(vec![6, 8]));
        recent.push([8, 9].map(|revision| entry(revision, 10)).into());
        recent.moved_to(Revision::new(9));
        assert_eq!(shown(&recent, 5), Some(vec![6, 8, 9]), "what comes again is told once");
        assert_eq!(shown(&recent, 8), Some(vec![9]));
        assert_eq!(shown(&recent, 9), Some(vec![]));
        assert_eq!(shown(&recent, 4), None);
    }

    #[test]
    fn what_is_kept_is_bounded_in_bytes_and_is_nothing_for_nobody() {
        let recent = Recent::default();
        recent.begin(None);
        recent.push(vec![entry(1, 10)]);
        recent.moved_to(Revision::new(1));
        assert_eq!(shown(&recent, 0), None, "it is not kept for nobody");
        let _watcher = recent.watch();
        for revision in 2..12 {
            recent.push(vec![entry(revision, MOST_BYTES / 4)]);
            recent.moved_to(Revision::new(revision));
        }
        assert!(recent.kept().bytes <= MOST_BYTES);
        assert_eq!(shown(&recent, 2), None);
        assert_eq!(shown(&recent, 9), Some(vec![10]), "one large entry at once");
        assert_eq!(shown(&recent, 10), Some(vec![11]));
        recent.push(vec![entry(12, 2 * MOST_BYTES)]);
        recent.moved_to(Revision::new(12));
        assert_eq!(shown(&recent, 11), Some(vec![12]), "the newest is shared, however large it is");
    }
}
