//! What is changed in one commit, and what became of it.

use crate::access::Action;
use crate::backend::{INFRA_NAME, Key, Query, Write};
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
    /// Deletes an object; with a view goes its history.
    Delete {
        /// The kind of object; not a project.
        kind: Kind,
        /// Its name.
        name: String,
    },
}

impl Edit {
    /// Creates or replaces an object.
    pub fn apply(object: impl Into<Object>) -> Self {
        Edit::Apply(object.into())
    }

    /// Deletes an object.
    pub fn delete(kind: Kind, name: impl Into<String>) -> Self {
        Edit::Delete { kind, name: name.into() }
    }

    /// What it applies.
    pub(super) fn applied(&self) -> Option<&Object> {
        match self {
            Edit::Apply(object) => Some(object),
            Edit::Delete { .. } => None,
        }
    }

    /// The kind and the name that it is stored under.
    pub(super) fn target(&self) -> Result<(Kind, String)> {
        match self {
            Edit::Apply(object) if object.kind == Kind::Infra => Ok((Kind::Infra, INFRA_NAME.to_owned())),
            Edit::Apply(object) => Ok((object.kind, object.name()?)),
            Edit::Delete { kind, name } => Ok((*kind, name.clone())),
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
    let is_project = |edit: &Edit| matches!(edit, Edit::Apply(object) if object.kind == Kind::Project);
    if edits.iter().any(is_project) { LockScope::Projects } else { LockScope::Objects }
}

/// What [`run`] needs to have read.
pub(super) fn fetch(project: &str, edits: &[Edit]) -> Result<Vec<Query>> {
    let mut objects = Vec::new();
    let mut queries = Vec::new();
    for edit in edits {
        match edit {
            Edit::Apply(object) => objects.push(object.clone()),
            Edit::Delete { kind, name } => queries.extend(rules::fetch_for_delete(project, name, &[*kind])),
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
    edits.iter().map(|edit| run_one(draft, ctx, project, edit, options)).collect()
}

fn run_one(
    draft: &mut Draft<'_>,
    ctx: &mut Context<'_>,
    project: &str,
    edit: &Edit,
    options: ApplyOptions,
) -> Result<Edited> {
    let mark = draft.mark();
    let version = match edit {
        Edit::Apply(object) => {
            ctx.judges.check_apply(draft, project, object)?;
            rules::apply(draft, ctx, project, object, options)?;
            version_of(draft, mark, project, object)?
        }
        Edit::Delete { kind, name } => {
            if !ctx.judges.check_stored(draft, Action::Delete.into(), (project, &[*kind], name))? {
                return Err(Error::not_found(*kind, project, name));
            }
            rules::delete(draft, ctx, *kind, project, name)?;
            None
        }
    };
    Ok(Edited { has_changed: !draft.writes_since(mark).is_empty(), version, revision: None })
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
