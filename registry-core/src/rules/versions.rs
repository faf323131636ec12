//! Views and their versions (Feast: `SqlRegistry.apply_feature_view`, `feast.version_utils`,
//! `BaseRegistry._ensure_feature_view_name_is_unique`).
//!
//! Every new view is version 0; each change of its schema adds one. A view may ask for a version: one that is in the
//! history is brought back, one that is not is made.

use bytes::Bytes;
use prost::Message;
use prost_types::Timestamp;

use crate::backend::Key;
use crate::draft::{Context, Draft};
use crate::encoded::Object;
use crate::error::{Error, ErrorKind, Result};
use crate::kind::Kind;
use crate::proto::core::FeatureViewVersionRecord;
use crate::rules::definition::{self, Closeness};
use crate::rules::pin::{HIGHEST_NEW_PIN, key, pinned, version_field};
use crate::rules::replace::{replace, replacement};
use crate::rules::stored::unreadable;
use crate::wire;

/// How objects are applied. Made with `default()`, and changed by the `with_` methods.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ApplyOptions {
    /// Records a view whose schema changed as a new version and leaves the active one as it is (Feast: `no_promote`).
    pub no_promote: bool,
}

impl ApplyOptions {
    /// The same with this for [`no_promote`](Self::no_promote).
    #[must_use]
    pub const fn with_no_promote(mut self, no_promote: bool) -> Self {
        self.no_promote = no_promote;
        self
    }
}

/// The field of a view's spec that lists its entities; on demand views need none.
fn entities_field(kind: Kind) -> Option<u32> {
    (kind != Kind::OnDemandFeatureView).then_some(3)
}

/// Applies a view of any of the four kinds.
pub(crate) fn apply_view(
    draft: &mut Draft<'_>,
    ctx: &mut Context<'_>,
    project: &str,
    view: &Object,
    options: ApplyOptions,
) -> Result<()> {
    let name = view.name()?;
    for other in Kind::VIEWS.iter().copied().filter(|kind| *kind != view.kind) {
        if draft.exists(&Key::object(other, project, &name))? {
            return Err(Error::new(
                ErrorKind::ConflictingFeatureViewNames,
                format!(
                    "project `{project}` already has a {other} named `{name}`, so it cannot have a {} of that name",
                    view.kind
                ),
            ));
        }
    }
    if let Some(field) = entities_field(view.kind)
        && wire::content(&view.spec()?, field)?.is_none()
    {
        return Err(Error::invalid(format!(
            "the {} `{name}` has no entities; a view of none has Feast's placeholder, `__dummy`",
            view.kind
        )));
    }
    match pinned(view)? {
        None => apply_latest(draft, ctx, project, &name, view, options),
        Some(number) => apply_pinned(draft, ctx, project, &name, view, number),
    }
}

fn apply_latest(
    draft: &mut Draft<'_>,
    ctx: &mut Context<'_>,
    project: &str,
    name: &str,
    view: &Object,
    options: ApplyOptions,
) -> Result<()> {
    let latest = draft.latest_version(project, name)?;
    // An active view that cannot be decoded is replaced as if there were none.
    let Some(active) = draft.object(view.kind, project, name)?.filter(|active| active.check().is_ok()) else {
        // A history may have outlived its view, if Feast deleted it; its numbers are not given twice.
        let number = latest.map_or(Ok(0), |latest| next(view.kind, project, name, latest))?;
        let stored = replace(draft, ctx, project, view, Some(number))?;
        record(draft, ctx, project, name, number, &stored);
        return Ok(());
    };
    if !definition::schema_changed(&active, view)? {
        replace(draft, ctx, project, view, None)?;
        return Ok(());
    }
    let number = match latest {
        Some(latest) => next(view.kind, project, name, latest)?,
        None => {
            record(draft, ctx, project, name, 0, &active);
            1
        }
    };
    if options.no_promote {
        let (_, version, _) = replacement(draft, ctx, project, view, Some(number))?;
        if !is_recorded(draft, project, name, latest, &version)? {
            record(draft, ctx, project, name, number, &version);
        } else {
            // It is to be the latest one still when what else is applied is committed.
            draft.expect_absent(key(project, name, number));
        }
    } else {
        let stored = replace(draft, ctx, project, view, Some(number))?;
        record(draft, ctx, project, name, number, &stored);
    }
    Ok(())
}

/// The number of the version that follows the latest one.
///
/// # Errors
/// `InvalidArgument` when there is none: an older registry let views ask for any number that an `i32` can be.
fn next(kind: Kind, project: &str, name: &str, latest: i32) -> Result<i32> {
    latest.checked_add(1).ok_or_else(|| {
        Error::invalid(format!(
            "the history of `{name}` of project `{project}` has v{latest}, and no number follows that: have the {kind} ask \
             for a version that is free, as `v{HIGHEST_NEW_PIN}`, or delete it and apply it again, which begins its history \
             anew"
        ))
    })
}

fn apply_pinned(
    draft: &mut Draft<'_>,
    ctx: &mut Context<'_>,
    project: &str,
    name: &str,
    view: &Object,
    number: i32,
) -> Result<()> {
    let Some(version) = draft.get(&key(project, name, number))? else {
        if number > HIGHEST_NEW_PIN {
            return Err(Error::invalid(format!(
                "{} `{name}` of project `{project}` asks for v{number}, which is not in its history; the highest version \
                 that can be made is v{HIGHEST_NEW_PIN}, so that later changes find a number",
                view.kind
            )));
        }
        let stored = replace(draft, ctx, project, view, Some(number))?;
        record(draft, ctx, project, name, number, &stored);
        return Ok(());
    };
    if let Some(active) = draft.object(view.kind, project, name)?.filter(|active| active.check().is_ok())
        && !definition::is_same(&active, view, Closeness::Pinning)?
    {
        return Err(Error::new(
            ErrorKind::FeatureViewPinConflict,
            format!(
                "{} `{name}` cannot go back to v{number} and change in the same apply: change its version alone, or \
                 apply the new definition with version `latest`",
                view.kind
            ),
        ));
    }
    let restored =
        restore(view, name, number, &version).map_err(|error| unreadable(&key(project, name, number), error))?;
    replace(draft, ctx, project, &restored, Some(number))?;
    Ok(())
}

/// The recorded definition, asking for the version in the words of `view`, with what `view` says of its meta.
fn restore(view: &Object, name: &str, number: i32, version: &Bytes) -> Result<Object> {
    let record = decode_record(version)?;
    if Kind::from_version_type(&record.feature_view_type) != Some(view.kind) {
        return Err(Error::invalid(format!(
            "v{number} of `{name}` is a {}, and a {} cannot go back to it",
            record.feature_view_type.replace('_', " "),
            view.kind
        )));
    }
    let recorded = Object::new(view.kind, record.feature_view_proto).with_meta(&view.meta()?)?;
    recorded.check()?;
    match version_field(view.kind) {
        Some(field) => recorded.with_spec_text(field, wire::text(&view.spec()?, field)?),
        None => Ok(recorded),
    }
}

/// Adds a version to the history of a view.
fn record(draft: &mut Draft<'_>, ctx: &mut Context<'_>, project: &str, name: &str, number: i32, view: &Object) {
    let record = FeatureViewVersionRecord {
        feature_view_name: name.to_owned(),
        project_id: project.to_owned(),
        version_number: number,
        feature_view_type: view.kind.version_type().unwrap_or_default().to_owned(),
        feature_view_proto: view.bytes.clone(),
        // Whole seconds, as the column of Feast's table has them.
        created_timestamp: Some(Timestamp { seconds: ctx.now.seconds, nanos: 0 }),
        description: String::new(),
        version_id: (ctx.new_uuid)(),
    };
    draft.create(key(project, name, number), record.encode_to_vec(), &ctx.now);
}

/// Whether the latest version has this very schema, so that applying it again without promoting it adds nothing.
fn is_recorded(draft: &mut Draft<'_>, project: &str, name: &str, latest: Option<i32>, view: &Object) -> Result<bool> {
    let Some(latest) = latest else { return Ok(false) };
    let Some(version) = draft.get(&key(project, name, latest))? else { return Ok(false) };
    // A version that cannot be decoded is another one.
    let Ok(record) = decode_record(&version) else { return Ok(false) };
    let recorded = Object::new(view.kind, record.feature_view_proto);
    if Kind::from_version_type(&record.feature_view_type) != Some(view.kind) || recorded.check().is_err() {
        return Ok(false);
    }
    Ok(!definition::schema_changed(&recorded, view)?)
}

/// Reads a record of the history.
pub(crate) fn decode_record(version: &Bytes) -> Result<FeatureViewVersionRecord> {
    FeatureViewVersionRecord::decode(version.clone()).map_err(|error| {
        Error::new(ErrorKind::Corrupt, "a record of the version history cannot be decoded").with_source(error)
    })
}
