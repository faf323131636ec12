//! Deleting objects and whole projects (Feast: `SqlRegistry._delete_object`, `delete_feature_view`, `delete_project`).

use bytes::Bytes;

use crate::backend::{Key, Query};
use crate::draft::{Context, Draft};
use crate::error::{Error, Result};
use crate::kind::Kind;
use crate::rules::project;

/// What the rules of this file need to have read.
pub(crate) fn fetch_for_delete(project: &str, name: &str, kinds: &[Kind]) -> Vec<Query> {
    let mut keys = project::fetch_for_project(project);
    keys.extend(kinds.iter().map(|kind| Key::object(*kind, project, name)));
    vec![Query::Keys(keys)]
}

/// Deletes one object; with a view goes its history.
pub(crate) fn delete(draft: &mut Draft<'_>, ctx: &Context<'_>, kind: Kind, project: &str, name: &str) -> Result<()> {
    let key = Key::object(kind, project, name);
    if !draft.exists(&key)? {
        return Err(Error::not_found(kind, project, name));
    }
    draft.delete(key);
    if kind.is_view() {
        draft.delete_versions(project, name);
    }
    project::touch(draft, ctx, project)
}

/// Deletes a view, of whichever kind it is.
pub(crate) fn delete_view(draft: &mut Draft<'_>, ctx: &Context<'_>, project: &str, name: &str) -> Result<()> {
    let mut is_there = false;
    for &kind in Kind::VIEWS {
        if draft.exists(&Key::object(kind, project, name))? {
            delete(draft, ctx, kind, project, name)?;
            is_there = true;
        }
    }
    if is_there { Ok(()) } else { Err(Error::view_not_found(project, name)) }
}

/// Deletes a project with all that is in it, and nothing of any other project.
///
/// Feast leaves the history of the project's views behind, which a later project of the same name then finds; this does
/// not. `seen` is the object that the project must still have, if that matters.
pub(crate) fn delete_project(draft: &mut Draft<'_>, project: &str, seen: Option<&Bytes>) -> Result<()> {
    let key = Key::project_object(project);
    let is_there = match seen {
        None => draft.exists(&key)?,
        Some(seen) => match draft.get(&key)? {
            Some(stored) if stored != *seen => return Err(Error::changed_since_seen(&key)),
            stored => stored.is_some(),
        },
    };
    if !is_there {
        return Err(Error::not_found(Kind::Project, project, project));
    }
    draft.delete_project(project);
    Ok(())
}
