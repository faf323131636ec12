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
    let name = stored_name(incoming)?;
    let (stored, kept) = match draft.object(incoming.kind, project, &name)? {
        None => (None, None),
        Some(stored) => match stored.check().and_then(|()| Meta::of(&stored)) {
            Ok(meta) => (Some(stored), Some(meta)),
            Err(error) => (None, Some(salvage(&stored, project, &name, &error))),
        },
    };
    let has_changed_meta = |meta: &Meta| kept.as_ref().map_or(Ok(true), |kept| Ok::<_, Error>(!meta.is_same(kept)?));
    let mut meta = Meta::merged(kept.clone(), incoming, &ctx.now)?;
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
            (!has_meta || !has_changed_meta(&meta)?) && definition::is_same(stored, incoming, Closeness::Exact)?
        }
        None => false,
    };
    let object = meta.put_into(&placed)?;
    check_depth(&object, project)?;
    Ok((stored, object, is_same))
}

/// What the registry kept about an object that cannot be decoded, as far as it can be read. The apply replaces all else.
fn salvage(stored: &Object, project: &str, name: &str, error: &Error) -> Meta {
    let meta = Meta::salvaged(stored);
    tracing::warn!(
        kind = stored.kind.label(),
        project,
        name,
        %error,
        materialization_intervals = meta.intervals.len(),
        is_creation_known = meta.created_timestamp.is_some(),
        "what was stored cannot be decoded and is replaced; of what the registry kept about it, this much could be read"
    );
    meta
}
