//! Create or replace: what becomes of an object that is applied (Feast: `SqlRegistry._apply_object`).

use crate::backend::{INFRA_NAME, Key, Query};
use crate::draft::{Context, Draft};
use crate::encoded::Object;
use crate::error::{Error, Result};
use crate::kind::Kind;
use crate::rules::definition::{self, Closeness};
use crate::rules::meta::Meta;
use crate::rules::{feature_service, project, versions};

/// How objects are applied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ApplyOptions {
    /// Records a view whose schema changed as a new version and leaves the active one as it is (Feast: `no_promote`).
    pub no_promote: bool,
}

/// The name that an object is stored under.
pub(crate) fn stored_name(object: &Object) -> Result<String> {
    if object.kind == Kind::Infra { Ok(INFRA_NAME.to_owned()) } else { object.name() }
}

/// What [`apply`] needs to have read for these objects.
pub(crate) fn fetch_for_apply(project: &str, objects: &[Object]) -> Result<Vec<Query>> {
    let mut keys = project::fetch_for_project(project);
    let mut histories = Vec::new();
    for object in objects {
        let name = stored_name(object)?;
        if object.kind.is_view() {
            keys.extend(Kind::VIEWS.map(|kind| Key::object(kind, project, &name)));
            keys.extend(versions::pinned(object)?.map(|number| versions::key(project, &name, number)));
            histories.push(Query::Versions { project: project.to_owned(), view: name, latest_only: true });
        } else {
            keys.push(Key::object(object.kind, project, name));
        }
        if object.kind == Kind::FeatureService {
            keys.extend(feature_service::unresolved_views(project, object)?);
        }
    }
    let mut queries = vec![Query::Keys(keys)];
    queries.extend(histories);
    Ok(queries)
}

/// Applies one object.
///
/// # Errors
/// `InvalidArgument` for what cannot be an object of its kind; what the rules of views and of feature services say.
pub(crate) fn apply(
    draft: &mut Draft<'_>,
    ctx: &mut Context<'_>,
    project: &str,
    object: &Object,
    options: ApplyOptions,
) -> Result<()> {
    if object.kind == Kind::Project {
        replace(draft, ctx, project, object, None)?;
        project::ensure_identity(draft, ctx, project)?;
    } else {
        project::ensure(draft, ctx, project)?;
        match object.kind {
            Kind::FeatureService => {
                let resolved = feature_service::resolve(draft, project, object)?;
                replace(draft, ctx, project, &resolved, None)?;
            }
            kind if kind.is_view() => versions::apply_view(draft, ctx, project, object, options)?,
            _ => drop(replace(draft, ctx, project, object, None)?),
        }
    }
    if !draft.is_empty() {
        project::touch(draft, ctx, project)?;
    }
    Ok(())
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
    Ok((stored, object, is_same))
}
