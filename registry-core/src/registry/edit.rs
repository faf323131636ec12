//! What is changed in one commit, and what became of it.

use std::borrow::Cow;
use std::sync::Arc;
use std::{fmt, slice};

use crate::access::Action;
use crate::backend::{Key, Query, Write};
use crate::draft::{Context, Draft};
use crate::encoded::Object;
use crate::error::{Error, Result};
use crate::journal::Revision;
use crate::kind::Kind;
use crate::locks::LockScope;
use crate::rules::{self, ApplyOptions};
use crate::wire;

/// One of the changes of [`Registry::edit`](crate::Registry::edit).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Edit {
    /// Creates or replaces an object.
    Apply(Object),
    /// Creates or replaces an object that was said in words which have no others than this version's fields, as JSON: fields of what is
    /// stored that this version does not know stay.
    ApplyKnown(Object),
    /// Deletes an object; with a view goes its history.
    Delete {
        /// The kind of object; not a project.
        kind: Kind,
        /// Its name.
        name: String,
    },
    /// Deletes a view, of whichever kind it is, with its history.
    DeleteView {
        /// Its name.
        name: String,
    },
    /// Does an edit if something is so of the object that it is about; else none of the edits is done.
    When {
        /// What must be so.
        condition: Condition,
        /// What is done.
        edit: Box<Edit>,
    },
}

type Holds = dyn Fn(Option<&Object>) -> bool + Send + Sync;

/// What must be so of a stored object for an [`Edit`] to be done. It is asked about what the commit finds, so it holds at the
/// moment of the commit; of what an earlier edit of the same commit has changed, about what that has made of it.
#[derive(Clone)]
pub struct Condition {
    holds: Arc<Holds>,
    otherwise: Arc<str>,
}

impl Condition {
    /// A condition on the object, `None` if there is none; and what is so otherwise, as the error says it of the object: `has changed
    /// since it was read`. It may be asked more than once, and must not block.
    pub fn new(otherwise: impl AsRef<str>, holds: impl Fn(Option<&Object>) -> bool + Send + Sync + 'static) -> Self {
        Self { holds: Arc::new(holds), otherwise: otherwise.as_ref().into() }
    }

    /// There is no such object yet.
    pub fn absent() -> Self {
        Self::new("exists already", |object| object.is_none())
    }

    /// There is such an object.
    pub fn present() -> Self {
        Self::new("does not exist", |object| object.is_some())
    }

    /// Whether it holds of the object of one of these kinds. A name that views of several kinds have is that of the first.
    fn check(&self, draft: &mut Draft<'_>, (kinds, project, name): (&[Kind], &str, &str)) -> Result<()> {
        let mut object = None;
        for kind in kinds {
            if object.is_none() {
                object = draft.object(*kind, project, name)?;
            }
        }
        if (self.holds)(object.as_ref()) {
            return Ok(());
        }
        let otherwise = &self.otherwise;
        let kind = object.map(|object| object.kind).or(kinds.first().copied()).map_or("object", Kind::label);
        Err(Error::changed(format!("the {kind} `{name}` of project `{project}` {otherwise}; nothing was done")))
    }
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Condition").field(&self.otherwise).finish()
    }
}

/// Two are the same if one is the other's clone: what they ask cannot be compared.
impl PartialEq for Condition {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.holds, &other.holds)
    }
}

impl Eq for Condition {}

impl Edit {
    /// Creates or replaces an object.
    pub fn apply(object: impl Into<Object>) -> Self {
        Edit::Apply(object.into())
    }

    /// Creates or replaces an object that was said in words which have no others than this version's fields, as JSON.
    pub fn apply_known(object: impl Into<Object>) -> Self {
        Edit::ApplyKnown(object.into())
    }

    /// Deletes an object.
    pub fn delete(kind: Kind, name: impl Into<String>) -> Self {
        Edit::Delete { kind, name: name.into() }
    }

    /// Deletes a view, of whichever kind it is.
    pub fn delete_view(name: impl Into<String>) -> Self {
        Edit::DeleteView { name: name.into() }
    }

    /// The same, done only if a condition holds.
    #[must_use]
    pub fn when(self, condition: Condition) -> Self {
        Edit::When { condition, edit: Box::new(self) }
    }

    /// What it applies.
    pub(super) fn applied(&self) -> Option<&Object> {
        match self {
            Edit::Apply(object) | Edit::ApplyKnown(object) => Some(object),
            Edit::Delete { .. } | Edit::DeleteView { .. } => None,
            Edit::When { edit, .. } => edit.applied(),
        }
    }

    /// The kind, or the kinds one of which it may be, and the name that it is stored under.
    pub(super) fn target(&self) -> Result<(&[Kind], String)> {
        match self {
            Edit::Apply(object) | Edit::ApplyKnown(object) => {
                Ok((slice::from_ref(&object.kind), rules::stored_name(object)?))
            }
            Edit::Delete { kind, name } => Ok((slice::from_ref(kind), name.clone())),
            Edit::DeleteView { name } => Ok((Kind::VIEWS, name.clone())),
            Edit::When { edit, .. } => edit.target(),
        }
    }
}

/// What became of an [`Edit`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Edited {
    /// Whether anything was written. It was not if what was applied says what was stored already.
    pub has_changed: bool,
    /// Of a view that was applied, the version that it is now: with [`ApplyOptions::no_promote`], the one that was recorded.
    /// `None` for all else.
    pub version: Option<i32>,
    /// Where the journal has the commit. `None` if nothing was written by it, or the storage has no journal.
    pub revision: Option<Revision>,
}

impl Edited {
    /// The same with the revision of the commit, if it was changed by it.
    pub(super) fn with_revision(mut self, revision: Option<Revision>) -> Self {
        self.revision = revision.filter(|_| self.has_changed);
        self
    }
}

/// What these edits want for themselves.
pub(super) fn scope(edits: &[Edit]) -> LockScope {
    let is_project = |edit: &Edit| edit.applied().is_some_and(|object| object.kind == Kind::Project);
    if edits.iter().any(is_project) { LockScope::Projects } else { LockScope::Objects }
}

/// What [`run`] needs to have read.
pub(super) fn fetch(project: &str, edits: &[Edit]) -> Result<Vec<Query>> {
    let mut objects = Vec::new();
    let mut queries = Vec::new();
    for edit in edits {
        match edit.applied() {
            Some(object) => objects.push(object.clone()),
            None => {
                let (kinds, name) = edit.target()?;
                queries.extend(rules::fetch_for_delete(project, &name, kinds));
            }
        }
    }
    if !objects.is_empty() || queries.is_empty() {
        queries.extend(rules::fetch_for_apply(project, &objects)?);
    }
    Ok(queries)
}

/// Runs the rules of all edits, one after the other: later ones see earlier ones.
pub(super) fn run(
    draft: &mut Draft<'_>,
    ctx: &mut Context<'_>,
    project: &str,
    edits: &[Edit],
    options: ApplyOptions,
) -> Result<Vec<Edited>> {
    edits.iter().map(|edit| run_one(draft, ctx, project, (edit, None), options)).collect()
}

fn run_one(
    draft: &mut Draft<'_>,
    ctx: &mut Context<'_>,
    project: &str,
    (edit, condition): (&Edit, Option<&Condition>),
    options: ApplyOptions,
) -> Result<Edited> {
    let mark = draft.mark();
    // After it was judged whether its caller may look.
    let check = |draft: &mut Draft<'_>| {
        let Some(condition) = condition else { return Ok(()) };
        let (kinds, name) = edit.target()?;
        condition.check(draft, (kinds, project, &name))
    };
    let version = match edit {
        Edit::When { condition: inner, edit } => {
            check(draft)?;
            return run_one(draft, ctx, project, (edit, Some(inner)), options);
        }
        Edit::Apply(object) | Edit::ApplyKnown(object) => {
            ctx.judges.check_apply(draft, project, object)?;
            check(draft)?;
            let object = match edit {
                Edit::ApplyKnown(_) => Cow::Owned(with_unknown_of_stored(draft, project, object)?),
                _ => Cow::Borrowed(object),
            };
            rules::apply(draft, ctx, project, &object, options)?;
            version_of(draft, mark, project, &object)?
        }
        Edit::Delete { .. } | Edit::DeleteView { .. } => {
            let (kinds, name) = edit.target()?;
            let is_there = ctx.judges.check_stored(draft, Action::Delete.into(), (project, kinds, &name))?;
            // Conditions are about what could be done without them (RFC 9110, 13.2.1).
            rules::check_there(draft, is_there, kinds, project, &name)?;
            check(draft)?;
            rules::delete(draft, ctx, kinds, project, &name)?;
            None
        }
    };
    Ok(Edited { has_changed: !draft.writes_since(mark).is_empty(), version, revision: None })
}

fn with_unknown_of_stored(draft: &mut Draft<'_>, project: &str, object: &Object) -> Result<Object> {
    match draft.object(object.kind, project, &rules::stored_name(object)?)? {
        Some(stored) => rules::with_unknown_of(&stored, object),
        None => Ok(object.clone()),
    }
}

/// The version that an apply has made of a view, or found it at.
fn version_of(draft: &Draft<'_>, mark: usize, project: &str, object: &Object) -> Result<Option<i32>> {
    if !object.kind.is_view() {
        return Ok(None);
    }
    let recorded = draft.writes_since(mark).iter().rev().find_map(|write| match write {
        Write::Put(record) => match &record.key {
            Key::Version { number, .. } => Some(*number),
            _ => None,
        },
        _ => None,
    });
    let name = object.name()?;
    if recorded.is_some() {
        return Ok(recorded);
    }
    let Some(field) = object.kind.layout().current_version_number else {
        // Label views do not say which version they are, and no version of one is ever brought back.
        return draft.latest_version(project, &name);
    };
    let Some(bytes) = draft.final_value(&Key::object(object.kind, project, name)) else { return Ok(None) };
    let mut version = 0;
    for found in wire::fields(&Object::new(object.kind, bytes).meta()?) {
        let found = found?;
        if found.number == field {
            version = found.varint;
        }
    }
    Ok(i32::try_from(version).ok())
}
