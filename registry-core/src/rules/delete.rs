//! Deleting objects and whole projects (Feast: `SqlRegistry._delete_object`, `delete_feature_view`, `delete_project`).

use bytes::Bytes;

use crate::backend::{Key, Query};
use crate::draft::{Context, Draft};
use crate::encoded::{Object, PROTECTED_PROJECT_TAG};
use crate::error::{Error, ErrorKind, Result};
use crate::kind::Kind;
use crate::rules::project;

/// What the rules of this file need to have read.
pub(crate) fn fetch_for_delete(project: &str, name: &str, kinds: &[Kind]) -> Vec<Query> {
    let mut keys = project::fetch_for_project(project);
    keys.extend(kinds.iter().map(|kind| Key::object(*kind, project, name)));
    vec![Query::Keys(keys)]
}

/// Deletes what has a name, of each of these kinds; with a view goes its history.
pub(crate) fn delete(
    draft: &mut Draft<'_>,
    ctx: &Context<'_>,
    kinds: &[Kind],
    project: &str,
    name: &str,
) -> Result<()> {
    check_there(draft, true, kinds, project, name)?;
    for &kind in kinds {
        let key = Key::object(kind, project, name);
        if !draft.exists(&key)? {
            continue;
        }
        draft.delete(key);
        if kind.is_view() {
            draft.delete_versions(project, name);
        }
        project::touch(draft, ctx, project)?;
    }
    Ok(())
}

/// Says that nothing of these kinds has a name, if that is so, or is so for the caller, who may not see it.
///
/// # Errors
/// `NotFound`, or `ViewNotFound` where it might have been a view of any kind.
pub(crate) fn check_there(
    draft: &mut Draft<'_>,
    may_see: bool,
    kinds: &[Kind],
    project: &str,
    name: &str,
) -> Result<()> {
    if may_see {
        for &kind in kinds {
            if draft.exists(&Key::object(kind, project, name))? {
                return Ok(());
            }
        }
    }
    Err(match kinds {
        [kind] => Error::not_found(*kind, project, name),
        _ => Error::view_not_found(project, name),
    })
}

/// Deletes a project with all that is in it, and nothing of any other project.
///
/// Feast leaves the history of the project's views behind, which a later project of the same name then finds; this does
/// not. `seen` is the object that the project must still have, if that matters.
pub(crate) fn delete_project(draft: &mut Draft<'_>, project: &str, seen: Option<&Bytes>) -> Result<()> {
    let key = Key::project_object(project);
    let Some(stored) = draft.get(&key)? else {
        return Err(Error::not_found(Kind::Project, project, project));
    };
    if seen.is_some_and(|seen| stored != *seen) {
        return Err(Error::changed_since_seen(&key));
    }
    check_unprotected(project, stored)?;
    draft.delete_project(project);
    Ok(())
}

/// Refuses to delete a project that is protected. (Feast's SDK does so itself before it asks.)
///
/// # Errors
/// `Protected`.
pub(crate) fn check_unprotected(project: &str, stored: Bytes) -> Result<()> {
    // One that cannot be decoded can be deleted, or nobody could ever get rid of it.
    if !Object::new(Kind::Project, stored).is_protected().unwrap_or_default() {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Protected,
        format!(
            "project `{project}` is protected by its tag `{PROTECTED_PROJECT_TAG}`, so it cannot be deleted; apply it without the tag first"
        ),
    ))
}
