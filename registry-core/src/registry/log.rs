//! Looking back: who changed what and when, and what that came to.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use prost_types::Timestamp;

use crate::backend::Key;
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::journal::{Change, Image, JournalEntry, JournalFilter, JournalQuery, OUTSIDE, Revision, Target};
use crate::registry::Registry;
use crate::words;

/// How many entries without images are read at once.
const PAGE: usize = 256;
/// How many entries with images are read at once: each may have many large ones.
const PAGE_WITH_IMAGES: usize = 16;
/// How far the clocks of those who commit may be apart. Entries are in the order of their commits, and their moments need not be.
const CLOCKS_APART: i64 = 3600;
/// Of so many commits before a moment it is checked that they say that they are older.
pub(super) const CLOCK_CHECK: usize = 64;

/// Which commits to look back on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogQuery {
    /// Which commits, and which of their changes.
    pub filter: JournalFilter,
    /// Only commits that were made at this moment (UTC) or later, by the clock of who made them. The log ends where many commits in
    /// a row are more than an hour older than that, since those clocks may differ.
    pub since: Option<Timestamp>,
    /// Only commits that were made at this moment (UTC) or earlier.
    pub until: Option<Timestamp>,
    /// Only what comes before this revision.
    pub before: Option<Revision>,
    /// At most so many commits.
    pub limit: usize,
    /// Also what programs without a journal are seen to have done when nothing but a fact about a project changed: they write
    /// `last_updated_timestamp` at each of their applies, whether that changes anything or not.
    pub with_outside_facts: bool,
}

impl LogQuery {
    /// The newest commits that a filter lets through, at most so many.
    pub fn new(filter: JournalFilter, limit: usize) -> Self {
        Self { filter, limit, ..Self::default() }
    }

    /// Of those, only the ones that were made at this moment (UTC) or later.
    #[must_use]
    pub fn since(mut self, moment: impl Into<Option<Timestamp>>) -> Self {
        self.since = moment.into();
        self
    }

    /// Of those, only the ones that were made at this moment (UTC) or earlier.
    #[must_use]
    pub fn until(mut self, moment: impl Into<Option<Timestamp>>) -> Self {
        self.until = moment.into();
        self
    }

    /// Of those, only the ones that come before a revision: what follows a page.
    #[must_use]
    pub fn before(mut self, revision: impl Into<Option<Revision>>) -> Self {
        self.before = revision.into();
        self
    }

    /// The same, with or without commits from outside that changed nothing but facts.
    #[must_use]
    pub fn with_outside_facts(mut self, with: bool) -> Self {
        self.with_outside_facts = with;
        self
    }

    fn is_within(&self, at: &Timestamp) -> bool {
        self.since.is_none_or(|since| order(at) >= order(&since))
            && self.until.is_none_or(|until| order(at) <= order(&until))
    }

    fn is_over_at(&self, at: &Timestamp) -> bool {
        self.since.is_some_and(|since| at.seconds < since.seconds.saturating_sub(CLOCKS_APART))
    }

    fn is_worth_telling(&self, entry: &JournalEntry) -> bool {
        self.with_outside_facts
            || entry.author.as_deref() != Some(OUTSIDE)
            || entry.changes.iter().any(|change| !matches!(change.target, Target::Key(Key::Metadata { .. })))
    }
}

/// The oldest and the newest entry of a journal, without images.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct JournalSpan {
    /// The oldest entry that is kept.
    pub oldest: JournalEntry,
    /// The newest.
    pub newest: JournalEntry,
}

impl Registry {
    /// Commits, newest first, each with those of its changes that the filter lets through and without images. The journal is
    /// read page by page, and no more of it is held than what is answered.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) where the storage has no journal.
    pub async fn log(&self, query: &LogQuery) -> Result<Vec<JournalEntry>> {
        let deadline = self.deadline();
        let mut found = Vec::new();
        let mut before = query.before;
        while found.len() < query.limit {
            let page = self.journal_page(&JournalQuery::before(before, PAGE).without_images(), &deadline).await?;
            let Some(last) = page.last() else { break };
            before = Some(last.revision);
            // A single clock that is wrong does not end the log.
            if page.iter().all(|entry| query.is_over_at(&entry.at)) {
                return Ok(found);
            }
            for entry in page {
                if found.len() == query.limit {
                    return Ok(found);
                }
                if query.is_within(&entry.at)
                    && query.is_worth_telling(&entry)
                    && let Some(entry) = self.seen_of(Arc::new(entry)).await?
                {
                    found.extend(query.filter.narrow(entry).map(Arc::unwrap_or_clone));
                }
            }
        }
        Ok(found)
    }

    /// The entry of one revision, with images as far as the storage keeps them.
    ///
    /// # Errors
    /// [`Compacted`](crate::ErrorKind::Compacted) when the journal has removed it, and
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) when it never had it; both say what the journal has.
    /// [`Unsupported`](crate::ErrorKind::Unsupported) where the storage has no journal.
    pub async fn journal_entry(&self, revision: Revision) -> Result<JournalEntry> {
        let deadline = self.deadline();
        let entry = self.entry(revision, true, &deadline).await?;
        match self.seen_of(Arc::new(entry)).await? {
            Some(seen) => Ok(Arc::unwrap_or_clone(seen)),
            None => Err(self.no_such_revision(revision, &deadline).await?),
        }
    }

    async fn entry(&self, revision: Revision, images: bool, deadline: &Deadline) -> Result<JournalEntry> {
        let query = JournalQuery { images, ..JournalQuery::of(revision) };
        let found = self.journal_page(&query, deadline).await?.into_iter().next();
        match found.filter(|entry| entry.revision == revision) {
            Some(entry) => Ok(entry),
            None => Err(self.no_such_revision(revision, deadline).await?),
        }
    }

    /// The oldest and the newest entry of the journal; `None` when it is empty.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) where the storage has no journal.
    pub async fn journal_span(&self) -> Result<Option<JournalSpan>> {
        self.span(&self.deadline()).await
    }

    async fn span(&self, deadline: &Deadline) -> Result<Option<JournalSpan>> {
        let oldest = self.journal_page(&JournalQuery::after(None, 1).without_images(), deadline).await?;
        let newest = self.journal_page(&JournalQuery::before(None, 1).without_images(), deadline).await?;
        let ends = oldest.into_iter().next().zip(newest.into_iter().next());
        Ok(ends.map(|(oldest, newest)| JournalSpan { oldest, newest }))
    }

    async fn no_such_revision(&self, revision: Revision, deadline: &Deadline) -> Result<Error> {
        let missing = format!("the journal of {} has no revision {revision}", self.location());
        let Some(JournalSpan { oldest, newest }) = self.span(deadline).await? else {
            return Ok(Error::invalid(format!("{missing}: it is empty")));
        };
        let end = |entry: &JournalEntry| format!("{} ({})", entry.revision, words::second(&entry.at));
        let kind = if revision < oldest.revision { ErrorKind::Compacted } else { ErrorKind::InvalidArgument };
        Ok(Error::new(kind, format!("{missing}: it has those from {} to {}", end(&oldest), end(&newest))))
    }

    /// The last revision that was made at this moment (UTC) or earlier, by the clock of who made it; `None` when the journal has
    /// none.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) where the storage has no journal.
    /// `InvalidArgument` when the clocks of those who committed around then differ so much that it cannot be told.
    pub async fn revision_at(&self, moment: &Timestamp) -> Result<Option<Revision>> {
        let query = LogQuery::new(JournalFilter::new(), 1).until(*moment).with_outside_facts(true);
        let Some(found) = self.log(&query).await?.into_iter().next() else { return Ok(None) };
        let earlier = JournalQuery::before(found.revision, CLOCK_CHECK).without_images();
        check_clocks(moment, &found, &self.journal_page(&earlier, &self.deadline()).await?)?;
        Ok(Some(found.revision))
    }

    /// What the commits after one revision, or from the oldest on, up to another, or to the newest, came to: for each key that is
    /// not as it was, what it was and what it is, in the order of keys. Before them, the removals of whole histories and projects
    /// of which the storage does not keep what went with them. The journal is read page by page; what is held is bounded by the keys
    /// that were changed.
    ///
    /// # Errors
    /// As [`journal_entry`](Self::journal_entry), for either revision. `InvalidArgument` when `until` comes before `after`.
    pub async fn changes_between(
        &self,
        after: Option<Revision>,
        until: Option<Revision>,
        filter: &JournalFilter,
    ) -> Result<Vec<Change>> {
        if let (Some(after), Some(until)) = (after, until)
            && until < after
        {
            return Err(Error::invalid(format!("revision {until} comes before revision {after}")));
        }
        let deadline = self.deadline();
        for revision in [after, until].into_iter().flatten() {
            self.entry(revision, false, &deadline).await?;
        }
        let mut net = Net::default();
        let mut cursor = after;
        loop {
            let page = self.journal_page(&JournalQuery::after(cursor, PAGE_WITH_IMAGES), &deadline).await?;
            let Some(last) = page.last() else { return Ok(net.into_changes()) };
            cursor = Some(last.revision);
            for entry in page {
                if until.is_some_and(|until| entry.revision > until) {
                    return Ok(net.into_changes());
                }
                if let Some(entry) = self.seen_of(Arc::new(entry)).await? {
                    net.add(Arc::unwrap_or_clone(entry), filter);
                }
            }
        }
    }

    pub(super) async fn journal_page(&self, query: &JournalQuery, deadline: &Deadline) -> Result<Vec<JournalEntry>> {
        let _permit = self.inner.admit_read()?;
        let journal = self.inner.reads().journal(query, deadline);
        deadline.wait_for("the journal to be read", journal).await?
    }
}

/// Refuses a moment at which the clocks of those who commit disagree about what came before it: what the journal has earlier is to
/// be older.
///
/// # Errors
/// `InvalidArgument`, which says which revision to name.
pub(super) fn check_clocks(moment: &Timestamp, found: &JournalEntry, earlier: &[JournalEntry]) -> Result<()> {
    match earlier.iter().find(|entry| order(&entry.at) > order(moment)) {
        None => Ok(()),
        Some(later) => Err(Error::invalid(format!(
            "the clocks of those who committed around {} differ: revision {} says {}, and revision {}, which came before it, {}; name a \
             revision instead of a moment",
            words::second(moment),
            found.revision,
            words::second(&found.at),
            later.revision,
            words::second(&later.at),
        ))),
    }
}

/// What many changes come to.
#[derive(Default)]
pub(super) struct Net {
    /// What each key was before the first of them, and is after the last.
    keys: BTreeMap<Key, (Image, Image)>,
    /// Removals of which nothing says what went with them.
    removals: HashSet<Target>,
}

impl Net {
    pub(super) fn add(&mut self, entry: JournalEntry, filter: &JournalFilter) {
        // A storage that keeps images has a change of each key that a removal took with it.
        let mut of_keys = entry.changes.iter().filter(|change| matches!(change.target, Target::Key(_))).peekable();
        let is_whole = of_keys.peek().is_some()
            && of_keys.all(|change| change.before != Image::NotKept && change.after != Image::NotKept);
        let Some(entry) = filter.narrow(Arc::new(entry)) else { return };
        for Change { target, before, after } in Arc::unwrap_or_clone(entry).changes {
            match target {
                Target::Key(key) => self.add_key(key, before, after),
                _ if is_whole => {}
                removal => self.add_removal(removal),
            }
        }
    }

    fn add_key(&mut self, key: Key, before: Image, after: Image) {
        if let Some((_, last)) = self.keys.get_mut(&key) {
            *last = after;
            return;
        }
        // What was made anew after such a removal was something before it, or nothing.
        let is_anew = self.removals.iter().any(|removal| covers(removal, &key));
        self.keys.insert(key, (if is_anew { Image::NotKept } else { before }, after));
    }

    fn add_removal(&mut self, removal: Target) {
        for (key, (_, after)) in &mut self.keys {
            if covers(&removal, key) {
                *after = Image::Absent;
            }
        }
        self.removals.insert(removal);
    }

    pub(super) fn into_changes(self) -> Vec<Change> {
        let mut removals: Vec<Target> = self.removals.into_iter().collect();
        removals.sort_by_cached_key(|target| format!("{target:?}"));
        let is_change = |(_, (before, after)): &(Key, (Image, Image))| before != after || *before == Image::NotKept;
        let keys = self.keys.into_iter().filter(is_change);
        let of_keys = keys.map(|(key, (before, after))| Change::of_key(key, before, after));
        removals.into_iter().map(Change::removal).chain(of_keys).collect()
    }
}

/// Whether a removal takes a key with it.
fn covers(removal: &Target, key: &Key) -> bool {
    match (removal, key) {
        (Target::Project { project }, key) => key.project() == project,
        (Target::Versions { project, view }, Key::Version { project: of, view: version_of, .. }) => {
            project == of && view == version_of
        }
        _ => false,
    }
}

fn order(moment: &Timestamp) -> (i64, i32) {
    (moment.seconds, moment.nanos)
}
