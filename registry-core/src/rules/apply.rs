//! Create or replace: what becomes of an object that is applied (Feast: `SqlRegistry._apply_object`).

use crate::backend::{Key, Query};
use crate::draft::{Context, Draft};
use crate::encoded::Object;
use crate::error::Result;
use crate::kind::Kind;
use crate::rules::replace::{replace, stored_name};
use crate::rules::versions::ApplyOptions;
use crate::rules::{feature_service, pin, project, versions};

/// What [`apply`] needs to have read for these objects.
pub(crate) fn fetch_for_apply(project: &str, objects: &[Object]) -> Result<Vec<Query>> {
    let mut keys = project::fetch_for_project(project);
    let mut histories = Vec::new();
    for object in objects {
        let name = stored_name(object)?;
        if object.kind.is_view() {
            keys.extend(Kind::VIEWS.iter().copied().map(|kind| Key::object(kind, project, &name)));
            keys.extend(pin::pinned(object)?.map(|number| pin::key(project, &name, number)));
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
                let resolved = feature_service::resolve(draft, ctx.judges, project, object)?;
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
