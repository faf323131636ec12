//! The registry as it becomes while a batch is done in memory.

use std::sync::Arc;

use feast_registry_core::config::History;
use feast_registry_core::{Commit, Error, Outcome, Result, Retention};
use prost_types::Timestamp;

use crate::document::Document;
use crate::file::Snapshot;
use crate::journal::Journal;
use crate::queue::{Answer, Job, Request};

/// A registry with changes that are not written yet.
pub(crate) struct Staged {
    /// `None` where there is none.
    document: Option<Document>,
    /// What one begins from that is made; `None` where none may be.
    blank: Option<Document>,
    /// The journal of either. Apart from it, so that a batch copies it once.
    journal: Arc<Journal>,
    history: History,
    now: Timestamp,
    has_changed: bool,
}

/// What a batch comes to.
pub(crate) enum Decided {
    /// Nothing has to be written.
    Nothing,
    /// This is the registry now.
    Write(Box<Document>),
    /// There is no registry any more.
    Remove,
}

impl Staged {
    /// Where `makes`, a registry that is missing is made.
    pub(crate) fn on(snapshot: &Snapshot, makes: bool, history: History, now: Timestamp) -> Self {
        Self {
            document: snapshot.document.clone(),
            blank: makes.then(|| snapshot.blank()),
            journal: snapshot.journal(),
            history,
            now,
            has_changed: false,
        }
    }

    /// Does what is asked, in order. `missing` is the error where there is no registry, nor may be.
    pub(crate) fn decide(&mut self, batch: &[Job], missing: impl Fn() -> Error) -> Vec<Result<Answer>> {
        let decide = |job: &Job| match &job.request {
            Request::Commit(commit) => self.commit(commit).ok_or_else(&missing)?.map(Answer::Commit),
            Request::Create => self.create().map(|()| Answer::Create).ok_or_else(&missing),
            Request::RemoveIfEmpty => Ok(Answer::RemoveIfEmpty(self.remove_if_empty())),
            Request::PruneJournal(retention) => Ok(Answer::PruneJournal(self.prune_journal(retention))),
        };
        batch.iter().map(decide).collect()
    }

    /// What that comes to.
    pub(crate) fn into_decided(self) -> Decided {
        match (self.has_changed, self.document) {
            (false, _) => Decided::Nothing,
            (true, Some(mut document)) => {
                document.journal = self.journal;
                Decided::Write(Box::new(document))
            }
            (true, None) => Decided::Remove,
        }
    }

    pub(crate) fn has_changed(&self) -> bool {
        self.has_changed
    }

    /// The registry, made if it is missing; `None` if it may not be.
    fn create(&mut self) -> Option<()> {
        if self.document.is_none() {
            self.document = Some(self.blank.clone()?);
            self.has_changed = true;
        }
        Some(())
    }

    /// `None` when there is no registry, nor may be. A commit that is refused makes none.
    fn commit(&mut self, commit: &Commit) -> Option<Result<Outcome>> {
        let mut document = self.document.as_ref().or(self.blank.as_ref())?.clone();
        if let Some(revision) = self.journal.revision_of(&commit.id) {
            return Some(Ok(Outcome::Committed { revision: Some(revision) }));
        }
        Some(document.commit(commit, self.history).map(|done| match done {
            Ok(changes) => {
                let revision = Arc::make_mut(&mut self.journal).add(commit, changes, self.history, &self.now);
                self.document = Some(document);
                self.has_changed = true;
                Outcome::Committed { revision: Some(revision) }
            }
            Err(key) => Outcome::Conflict(key),
        }))
    }

    /// How many entries went. Where there is no registry, its journal stays as it is.
    fn prune_journal(&mut self, retention: &Retention) -> u64 {
        if self.document.is_none() || !self.journal.has_more_than(retention, &self.now) {
            return 0;
        }
        self.has_changed = true;
        Arc::make_mut(&mut self.journal).prune_entries(retention, usize::MAX, &self.now)
    }

    fn remove_if_empty(&mut self) -> bool {
        match &self.document {
            Some(document) if document.has_project() => false,
            Some(_) => {
                self.document = None;
                self.has_changed = true;
                true
            }
            // Another process was faster.
            None => true,
        }
    }
}
