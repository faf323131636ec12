//! Bytes that a user attaches to a view (Feast: `SqlRegistry.apply_user_metadata`, `get_user_metadata`).

use bytes::Bytes;

use crate::backend::{Key, Query};
use crate::draft::{Context, Draft};
use crate::error::{Error, Result};
use crate::kind::Kind;

/// What [`apply_user_metadata`] needs to have read.
pub(crate) fn fetch_for_user_metadata(kind: Kind, project: &str, view: &str) -> Vec<Query> {
    vec![Query::Keys(vec![Key::object(kind, project, view), key(kind, project, view)])]
}

/// Where a view's user metadata is stored.
pub(crate) fn key(kind: Kind, project: &str, view: &str) -> Key {
    Key::UserMetadata { kind, project: project.to_owned(), view: view.to_owned() }
}

/// Attaches bytes to a view, or takes them away.
pub(crate) fn apply_user_metadata(
    draft: &mut Draft<'_>,
    ctx: &Context<'_>,
    kind: Kind,
    project: &str,
    view: &str,
    metadata: Option<Bytes>,
) -> Result<()> {
    if !draft.exists(&Key::object(kind, project, view))? {
        return Err(Error::not_found(kind, project, view));
    }
    match metadata {
        Some(bytes) => draft.put(key(kind, project, view), bytes, &ctx.now),
        None => draft.delete(key(kind, project, view)),
    }
    Ok(())
}
