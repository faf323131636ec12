//! What becomes of the object that is stored when another one is applied in its place.

use crate::backend::{INFRA_NAME, Key};
use crate::draft::{Context, Draft};
use crate::encoded::Object;
use crate::error::{Error, Result};
use crate::kind::Kind;
use crate::rules::definition::{self, Closeness};
use crate::rules::depth::check_depth;
use crate::rules::meta::Meta;

/// The name that an object is stored under.
pub(crate) fn stored_name(object: &Object) -> Result<String> {
    if object.kind == Kind::Infra { Ok(INFRA_NAME.to_owned()) } else { object.name() }
}

/// Stores an object in place of what is stored, unless it says the same. Returns the bytes that are then stored.
///
/// A `version` is what a view's version number becomes; without one it stays. The project goes into the message, since
/// in a file it is only there.
pub(crate) fn replace(
    draft: &mut Draft<'_>,
    ctx: &Context<'_>,
    project: &str,
    incoming: &Object,
    version: Option<i32>,
) -> Result<Object> {
    let (stored, object, is_same) = replacement(draft, ctx, project, incoming, version)?;
    match stored {
        Some(stored) if is_same => Ok(stored),
        _ => {
            let key = Key::object(incoming.kind, project, stored_name(incoming)?);
            draft.put(key, object.bytes.clone(), &ctx.now);
            Ok(object)
        }
    }
}

/// What is stored, what an apply makes of it, and whether that is the same.
pub(crate) fn replacement(
    draft: &mut Draft<'_>,
    ctx: &Context<'_>,
    project: &str,
    incoming: &Object,
    version: Option<i32>,
) -> Result<(Option<Object>, Object, bool)> {
    let stored = draft.object(incoming.kind, project, &stored_name(incoming)?)?;
    let mut meta = Meta::merged(stored.as_ref(), incoming, &ctx.now)?;
    if let Some(version) = version {
        meta.current_version_number =
            u64::try_from(version).map_err(|_| Error::internal("version numbers are not negative"))?;
    }
    let placed = match incoming.kind.layout().project {
        Some(field) => incoming.with_spec_text(field, project)?,
        None => incoming.clone(),
    };
    let is_same = match &stored {
        Some(stored) => {
            let has_meta = incoming.kind.layout().meta.is_some();
            (!has_meta || meta.is_same(&Meta::of(stored)?)?) && definition::is_same(stored, incoming, Closeness::Exact)?
        }
        None => false,
    };
    let object = meta.put_into(&placed)?;
    check_depth(&object, project)?;
    Ok((stored, object, is_same))
}
