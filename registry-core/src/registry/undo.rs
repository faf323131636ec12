//! Taking back what was done: planned and shown first, then done in one commit.

use std::collections::BTreeSet;
use std::fmt;

use bytes::Bytes;
use prost_types::Timestamp;

use crate::access::{Actions, Decided, Decision, Reason};
use crate::backend::{INFRA_NAME, Key, Query, Write};
use crate::deadline::Deadline;
use crate::draft::{Draft, Fetched};
use crate::environment::new_uuid;
use crate::error::{Error, ErrorKind, Result};
use crate::journal::{Image, JournalEntry, JournalQuery, Revision};
use crate::kind::Kind;
use crate::locks::LockScope;
use crate::registry::Registry;
use crate::registry::log::{CLOCK_CHECK, check_clocks};
use crate::rules::{self, Goals, Refusal, UndoOptions};

/// How many entries are read at once.
const PAGE: usize = 64;
/// How many refusals an error has in words; a plan has all.
const MOST_TOLD: usize = 100;

/// What is to be taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Undo {
    /// One commit.
    Revert(Revision),
    /// All that was done to one object since a moment. With a view come its history and its user metadata. For a project, that
    /// is the project's own object.
    RestoreObject {
        /// The kind of object.
        kind: Kind,
        /// The project that it is of; of a project its own name.
        project: String,
        /// The object's name.
        name: String,
        /// As of when.
        at: AsOf,
    },
    /// All that was done to a project and everything in it since a moment.
    RestoreProject {
        /// The project.
        project: String,
        /// As of when.
        at: AsOf,
    },
}

/// A state of the registry: what is stored after a commit and before the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AsOf {
    /// After this revision.
    Revision(Revision),
    /// After the last commit that was made at this moment (UTC) or earlier, by the clock of who made it.
    Time(Timestamp),
}

/// What an undo would change, see [`Registry::plan_undo`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct UndoPlan {
    /// What is to be taken back.
    pub undo: Undo,
    /// How.
    pub options: UndoOptions,
    /// The revision that is reverted, or after which everything is to be as it was.
    pub revision: Revision,
    /// What is changed, by key. When something is refused, nothing.
    pub changes: Vec<PlannedChange>,
    /// What is not changed or not as one may expect, each with its key.
    pub remarks: Vec<(Key, String)>,
    /// Why it cannot be done. Nothing is done unless all can be.
    pub refusals: Vec<Refusal>,
    goals: Goals,
    /// What was stored when this was planned, under the keys of the goals.
    seen: Vec<(Key, Option<Bytes>)>,
}

/// One change of an [`UndoPlan`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PlannedChange {
    /// What is changed.
    pub key: Key,
    /// What is stored now.
    pub before: Option<Bytes>,
    /// What will be stored. Moments and identities in it are made anew when it is done.
    pub after: Option<Bytes>,
}

impl Undo {
    /// What is to be as it was; nothing if a commit is reverted.
    fn restored(&self) -> Option<Key> {
        match self {
            Undo::Revert(_) => None,
            Undo::RestoreObject { kind, project, name, .. } => Some(object_key(*kind, project, name)),
            Undo::RestoreProject { project, .. } => Some(Key::project_object(project)),
        }
    }
}

impl fmt::Display for Undo {
    /// What the journal has as the reason, but for the revision: `restore of entity `driver` of project `rides``.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Undo::Revert(_) => f.write_str("revert"),
            Undo::RestoreObject { kind, project, name, .. } => {
                write!(f, "restore of {}", object_key(*kind, project, name))
            }
            Undo::RestoreProject { project, .. } => write!(f, "restore of {}", Key::project_object(project)),
        }
    }
}

impl UndoPlan {
    /// What the journal says is the reason, unless the caller gives another.
    pub fn reason(&self) -> String {
        match &self.undo {
            Undo::Revert(revision) => format!("revert of revision {revision}"),
            restore => format!("{restore} as of revision {}", self.revision),
        }
    }

    /// Whether nothing is to be changed.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Whether it can be done.
    ///
    /// # Errors
    /// [`Changed`](ErrorKind::Changed) when others have changed something since, and else the first refusal's kind. The words
    /// name everything that is refused, up to a hundred.
    pub fn check(&self) -> Result<()> {
        refused(&self.refusals)
    }
}

/// The error that refusals are together.
fn refused(refusals: &[Refusal]) -> Result<()> {
    let Some(first) = refusals.first() else { return Ok(()) };
    let is_changed = refusals.iter().any(|refusal| refusal.kind == ErrorKind::Changed);
    let kind = if is_changed { ErrorKind::Changed } else { first.kind };
    let mut told: Vec<&str> = refusals.iter().map(|refusal| refusal.reason.as_str()).take(MOST_TOLD).collect();
    let more = format!("and {} more", refusals.len().saturating_sub(MOST_TOLD));
    if refusals.len() > MOST_TOLD {
        told.push(&more);
    }
    Err(Error::new(kind, format!("this cannot be undone: {}; nothing was done", told.join("; "))))
}

impl Registry {
    /// What taking something back would change, decided from what is stored and what the journal keeps. Nothing is written.
    ///
    /// - What is gone comes back byte for byte; with a view come its history and user metadata, with a project everything in it.
    /// - What is there gets the definition that it had, as if that were applied: a view whose schema differs gets a new version.
    ///   What has been materialized stays, unless [`UndoOptions::with_materializations`] asks for that too.
    /// - What was not there goes; a project only if nothing is left in it.
    ///
    /// A plan may have nothing to change, with remarks that say why; or refusals, with which it cannot be done: others have
    /// changed an object since ([`UndoOptions::force`] goes over that), the journal does not keep what it was, or rules of an
    /// apply are against it.
    ///
    /// # Errors
    /// `InvalidArgument` when the journal has no such revision; [`Compacted`](ErrorKind::Compacted) when it does not reach back
    /// that far; `NotFound` when what is to be restored was not there then; [`Unsupported`](ErrorKind::Unsupported) where the
    /// storage has no journal.
    pub async fn plan_undo(&self, undo: &Undo, options: UndoOptions) -> Result<UndoPlan> {
        let planned = self.plan_undo_unnoted(undo, options).await;
        if let (Err(error), Some(access)) = (&planned, self.call.access())
            && error.kind() == ErrorKind::PermissionDenied
        {
            let (kind, project, name) = match undo {
                Undo::Revert(revision) => (Kind::Project, String::new(), format!("revision {revision}")),
                Undo::RestoreObject { kind, project, name, .. } => (*kind, project.clone(), name.clone()),
                Undo::RestoreProject { project, .. } => (Kind::Project, project.clone(), project.clone()),
            };
            let decision = Decision { is_allowed: false, reason: Reason::NoneGrants };
            let is_dry = self.call.is_dry();
            let refused = Decided { actions: Actions::REPLACE, kind, project, name, decision, is_dry };
            // It is refused whether that could be noted or not.
            drop(access.note(&[refused]).await);
        }
        planned
    }

    async fn plan_undo_unnoted(&self, undo: &Undo, options: UndoOptions) -> Result<UndoPlan> {
        let _permit = self.inner.admit_read()?;
        let deadline = self.deadline();
        self.inner.settle(&deadline).await?;
        let found = self.goals(undo, &deadline).await;
        let (revision, goals) = match undo.restored() {
            Some(key) => self.shown_to_restore(&key, found).await?,
            None => found?,
        };
        let mut queries = rules::fetch_for_undo(&goals);
        let mut judges = self.judges(&mut queries).await?;
        let read = self.inner.backend.read(&queries, &deadline);
        let answers = deadline.wait_for("the storage to be read", read).await.flatten()?;
        let fetched = Fetched::new(&queries, answers, false);
        let mistaken = judges.mistaken(|key| fetched.record(key).map(|record| record.value.clone()));
        self.inner.judge_anew(&mut judges, mistaken, None, &deadline).await?;
        self.check_undo(&mut judges, &goals, &fetched)?;
        let mut draft = Draft::new(&fetched);
        let environment = &*self.inner.environment;
        let undone = {
            let mut uuid = || new_uuid(environment);
            let mut ctx = self.inner.context(environment.now(), &mut uuid, &mut judges);
            rules::undo(&mut draft, &mut ctx, &goals, options)?
        };
        let changes = if undone.refusals.is_empty() { changes(&draft, &fetched, &goals) } else { Vec::new() };
        let seen = goals.iter().filter(|(key, _)| is_compared(key));
        let seen = seen.map(|(key, _)| (key.clone(), fetched.record(key).map(|record| record.value.clone()))).collect();
        let (undo, rules::Undone { remarks, refusals }) = (undo.clone(), undone);
        Ok(UndoPlan { undo, options, revision, changes, remarks, refusals, goals, seen })
    }

    /// Does what was planned, in one commit: all of it or nothing. Returns where the journal has the commit: nowhere if there was
    /// nothing to change, or the storage has no journal. Unless the call has a reason, it is the plan's
    /// ([`UndoPlan::reason`]). When all that is in the registry goes, its tables stay.
    ///
    /// # Errors
    /// [`Changed`](ErrorKind::Changed) when what the plan was made from has been changed meanwhile, but for what has been
    /// materialized; what [`UndoPlan::check`] says.
    pub async fn undo(&self, plan: &UndoPlan) -> Result<Option<Revision>> {
        plan.check()?;
        let scope = if plan.seen.iter().any(|(key, _)| matches!(key, Key::Object { kind: Kind::Project, .. })) {
            LockScope::Projects
        } else {
            LockScope::Objects
        };
        let queries = rules::fetch_for_undo(&plan.goals);
        let reason = self.call.reason().unwrap_or_else(|| plan.reason());
        let registry = self.with_call(self.call.clone().with_reason(reason));
        let done = registry
            .transact(&queries, scope, |draft, ctx| {
                for (key, seen) in &plan.seen {
                    let stored = draft.get(key)?;
                    if !rules::is_as_seen(key, stored.as_ref(), seen.as_ref()) {
                        return Err(Error::changed_since_seen(key));
                    }
                }
                let undone = rules::undo(draft, ctx, &plan.goals, plan.options)?;
                refused(&undone.refusals)
            })
            .await?;
        Ok(done.revision)
    }

    /// What the journal says that keys have to go back to, and the revision that this is about.
    async fn goals(&self, undo: &Undo, deadline: &Deadline) -> Result<(Revision, Goals)> {
        let mut goals = Goals::default();
        match undo {
            Undo::Revert(revision) => {
                let entry = self.entry_to_undo(*revision, deadline).await?;
                self.check_sees_all(&entry, |_| true).await?;
                goals.take_back(&entry.changes, |_| true);
                Ok((*revision, goals))
            }
            Undo::RestoreProject { project, at } => {
                goals = Goals::of_projects();
                let is_wanted = |key: &Key| key.project() == project;
                let revision = self.take_back_since(*at, &mut goals, is_wanted, is_wanted, deadline).await?;
                self.check_was_there(&goals, &Key::project_object(project), revision, deadline).await?;
                Ok((revision, goals))
            }
            Undo::RestoreObject { kind, project, name, at } => {
                let key = object_key(*kind, project, name);
                let project = key.project().to_owned();
                let own_project = [
                    Key::project_object(&project),
                    Key::metadata(&project, Key::PROJECT_UUID),
                    Key::metadata(&project, Key::CREATOR),
                    Key::metadata(&project, Key::MADE_AFTER),
                ];
                let is_wanted = |wanted: &Key| match wanted {
                    Key::Version { project: of, view, .. } => kind.is_view() && *of == project && view == name,
                    Key::UserMetadata { kind: of_kind, project: of, view } => {
                        of_kind == kind && *of == project && view == name
                    }
                    other => *other == key || own_project.contains(other),
                };
                // A project that is there stays as it is, so it need not be seen.
                let is_shown = |wanted: &Key| is_wanted(wanted) && (*wanted == key || !own_project.contains(wanted));
                let revision = self.take_back_since(*at, &mut goals, &is_wanted, is_shown, deadline).await?;
                self.check_was_there(&goals, &key, revision, deadline).await?;
                // A project that is gone comes back with its object; one that is there stays as it is.
                if key != own_project[0] && self.is_stored(&own_project[0], deadline).await? {
                    goals.retain(|key| !own_project.contains(key));
                }
                Ok((revision, goals))
            }
        }
    }

    /// Refuses to restore what was not there.
    async fn check_was_there(&self, goals: &Goals, key: &Key, revision: Revision, deadline: &Deadline) -> Result<()> {
        let was_there = match goals.get(key) {
            Some(goal) => goal.to != Image::Absent,
            None => self.is_stored(key, deadline).await?,
        };
        let Key::Object { kind, project, name } = key else { return Ok(()) };
        if was_there {
            return Ok(());
        }
        if goals.get(key).is_none()
            && goals.get(&Key::project_object(project)).is_some_and(|goal| goal.to == Image::NotKept)
        {
            let text = format!("the journal does not keep what was in project `{project}`, so not what {key} was");
            return Err(Error::new(ErrorKind::Unsupported, text));
        }
        Err(Error::not_found(*kind, project, name).with_context(format_args!("at revision {revision}")))
    }

    async fn is_stored(&self, key: &Key, deadline: &Deadline) -> Result<bool> {
        let queries = [Query::Keys(vec![key.clone()])];
        let read = self.inner.backend.read(&queries, deadline);
        let answers = deadline.wait_for("the storage to be read", read).await.flatten()?;
        Ok(answers.iter().any(|answer| !answer.is_empty()))
    }

    /// The entry of a commit, with what it changed.
    async fn entry_to_undo(&self, revision: Revision, deadline: &Deadline) -> Result<JournalEntry> {
        let next = Revision::new(revision.number().saturating_add(1));
        let found = self.journal_before(Some(next), 1, deadline).await?.pop();
        match found {
            Some(entry) if entry.revision == revision => Ok(entry),
            Some(_) => Err(self.no_such(revision)),
            None if self.journal_before(None, 1, deadline).await?.is_empty() => Err(self.no_such(revision)),
            None => Err(self.too_old(&format!("revision {revision}"))),
        }
    }

    /// Takes back what was done to keys since a moment, newest commit first. Returns the newest revision that stays. What is shown of
    /// it the caller must be allowed to see.
    async fn take_back_since(
        &self,
        at: AsOf,
        goals: &mut Goals,
        is_wanted: impl Fn(&Key) -> bool,
        is_shown: impl Fn(&Key) -> bool,
        deadline: &Deadline,
    ) -> Result<Revision> {
        let is_until = |entry: &JournalEntry| match at {
            AsOf::Revision(revision) => entry.revision <= revision,
            AsOf::Time(time) => (entry.at.seconds, entry.at.nanos) <= (time.seconds, time.nanos),
        };
        let mut before = None;
        loop {
            let page = self.journal_before(before, PAGE, deadline).await?;
            for entry in &page {
                if is_until(entry) {
                    if let AsOf::Time(time) = at {
                        let earlier = self.journal_before(Some(entry.revision), CLOCK_CHECK, deadline).await?;
                        check_clocks(&time, entry, &earlier)?;
                    }
                    return match at {
                        AsOf::Revision(revision) if before.is_none() && entry.revision < revision => {
                            Err(Error::invalid(format!(
                                "there is no revision {revision} yet: the newest is {}",
                                entry.revision
                            )))
                        }
                        _ => Ok(entry.revision),
                    };
                }
                self.check_sees_all(entry, &is_shown).await?;
                goals.take_back(&entry.changes, &is_wanted);
                before = Some(entry.revision);
            }
            if page.is_empty() {
                return Err(self.too_old(&match at {
                    AsOf::Revision(revision) => format!("revision {revision}"),
                    AsOf::Time(time) => time.to_string(),
                }));
            }
        }
    }

    async fn journal_before(
        &self,
        before: Option<Revision>,
        limit: usize,
        deadline: &Deadline,
    ) -> Result<Vec<JournalEntry>> {
        let query = JournalQuery::before(before, limit);
        // Not of a replica: what is missing there would not be taken back.
        let journal = self.inner.backend.journal(&query, deadline);
        deadline.wait_for("the journal to be read", journal).await?
    }

    fn no_such(&self, revision: Revision) -> Error {
        Error::invalid(format!("the journal of {} has no revision {revision}", self.location()))
    }

    fn too_old(&self, what: &str) -> Error {
        let location = self.location();
        Error::new(ErrorKind::Compacted, format!("{location}: the journal does not reach back to {what}"))
    }
}

/// Where an object is stored.
fn object_key(kind: Kind, project: &str, name: &str) -> Key {
    match kind {
        Kind::Project => Key::project_object(name),
        Kind::Infra => Key::object(kind, project, INFRA_NAME),
        _ => Key::object(kind, project, name),
    }
}

/// Whether a plan rests on what is stored under a key. When a project was last changed is noted by every write.
fn is_compared(key: &Key) -> bool {
    !matches!(key, Key::Metadata { .. })
}

/// What a draft changes, by key.
fn changes(draft: &Draft<'_>, fetched: &Fetched, goals: &Goals) -> Vec<PlannedChange> {
    let (mut keys, mut projects) = (BTreeSet::new(), BTreeSet::new());
    for write in draft.writes_since(0) {
        match write {
            Write::Put(record) => drop(keys.insert(record.key.clone())),
            Write::Delete(key) => drop(keys.insert(key.clone())),
            Write::DeleteVersions { .. } => {}
            Write::DeleteProject { project } => drop(projects.insert(project.as_str())),
        }
    }
    keys.extend(goals.iter().map(|(key, _)| key.clone()));
    let after = |key: &Key| {
        let view = match key {
            Key::UserMetadata { kind, project, view } => Some(Key::object(*kind, project, view)),
            _ => None,
        };
        let goes_with_other =
            projects.contains(key.project()) || view.is_some_and(|view| draft.final_value(&view).is_none());
        if goes_with_other { None } else { draft.final_value(key) }
    };
    let last_updated = |key: &Key| matches!(key, Key::Metadata { name, .. } if name == Key::LAST_UPDATED);
    let changes = keys.into_iter().filter(|key| !last_updated(key)).map(|key| {
        let before = fetched.record(&key).map(|record| record.value.clone());
        PlannedChange { before, after: after(&key), key }
    });
    changes.filter(|change| change.before != change.after).collect()
}
