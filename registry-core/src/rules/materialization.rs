//! What has been materialized (Feast: `SqlRegistry.apply_materialization`).

use prost::Message;
use prost_types::Timestamp;

use crate::backend::{Key, Query};
use crate::draft::{Context, Draft};
use crate::error::{Error, Result};
use crate::kind::Kind;
use crate::proto::core::{FeatureViewState, MaterializationInterval};
use crate::rules::meta::{self, Meta};
use crate::rules::project;
use crate::rules::stored::readable;

/// The kinds of view that can be materialized.
const MATERIALIZED: [Kind; 2] = [Kind::FeatureView, Kind::StreamFeatureView];

/// What [`apply_materialization`] needs to have read.
pub(crate) fn fetch_for_materialization(project: &str, view: &str) -> Vec<Query> {
    let mut keys = project::fetch_for_project(project);
    keys.extend(Kind::VIEWS.iter().copied().map(|kind| Key::object(kind, project, view)));
    vec![Query::Keys(keys)]
}

/// Adds an interval to what has been materialized of a view, exactly as it is, and sets the view's state to
/// `AVAILABLE_ONLINE`.
///
/// The name decides what kind of view it is: Feast's request carries a `FeatureView` for a stream feature view too. As in
/// Feast an interval may occur twice and may end before it starts. Unlike Feast, nanoseconds are kept (Feast rounds them
/// through a float), and intervals that others recorded meanwhile are.
pub(crate) fn apply_materialization(
    draft: &mut Draft<'_>,
    ctx: &Context<'_>,
    project: &str,
    view: &str,
    interval: MaterializationInterval,
) -> Result<()> {
    change_meta(draft, ctx, project, view, |meta| {
        meta.intervals.push(interval.encode_to_vec());
        meta.state = FeatureViewState::AvailableOnline as u64;
        Ok(())
    })
}

/// Removes every interval that is equal to `interval`: the explicit operation that an apply never is.
///
/// # Errors
/// `InvalidArgument` when the view has no such interval.
pub(crate) fn remove_materialization(
    draft: &mut Draft<'_>,
    ctx: &Context<'_>,
    project: &str,
    view: &str,
    interval: &MaterializationInterval,
) -> Result<()> {
    change_meta(draft, ctx, project, view, |meta| {
        let decoded: Vec<_> = meta.intervals.iter().map(|stored| meta::decode(stored)).collect::<Result<_>>()?;
        if !decoded.contains(interval) {
            return Err(Error::invalid(format!(
                "view `{view}` of project `{project}` has no such materialization interval"
            )));
        }
        let mut is_kept = decoded.iter().map(|stored| stored != interval);
        meta.intervals.retain(|_| is_kept.next().unwrap_or(true));
        Ok(())
    })
}

fn change_meta(
    draft: &mut Draft<'_>,
    ctx: &Context<'_>,
    project: &str,
    name: &str,
    change: impl FnOnce(&mut Meta) -> Result<()>,
) -> Result<()> {
    for kind in MATERIALIZED {
        if let Some(view) = readable(draft, kind, project, name)? {
            let mut meta = Meta::of(&view)?;
            change(&mut meta)?;
            meta.touch(&ctx.now);
            draft.put(Key::object(kind, project, name), meta.put_into(&view)?.bytes, &ctx.now);
            return project::touch(draft, ctx, project);
        }
    }
    for &kind in Kind::VIEWS {
        if draft.exists(&Key::object(kind, project, name))? {
            return Err(Error::invalid(format!(
                "`{name}` of project `{project}` is a {kind}, which is not materialized"
            )));
        }
    }
    Err(Error::not_found(Kind::FeatureView, project, name))
}

/// Whether an interval ends before it starts.
pub(crate) fn is_backwards(interval: &MaterializationInterval) -> bool {
    let moment = |moment: Option<Timestamp>| moment.map(|moment| (moment.seconds, moment.nanos));
    moment(interval.end_time) < moment(interval.start_time)
}

/// An interval of two moments that protobuf allows.
///
/// # Errors
/// `InvalidArgument` when a moment is missing or is not between the years 1 and 9999.
pub(crate) fn interval(start: Option<Timestamp>, end: Option<Timestamp>) -> Result<MaterializationInterval> {
    let check = |moment: Option<Timestamp>, which: &str| match moment {
        None => Err(Error::invalid(format!("the {which} of the materialization interval is missing"))),
        Some(timestamp) if meta::is_moment(&timestamp) => Ok(moment),
        Some(Timestamp { seconds, nanos }) => Err(Error::invalid(format!(
            "the {which} of the materialization interval is not a moment between the years 1 and 9999: {seconds} s and {nanos} ns"
        ))),
    };
    Ok(MaterializationInterval { start_time: check(start, "start")?, end_time: check(end, "end")? })
}
