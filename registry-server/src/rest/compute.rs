//! The batch engine and what it materialized (Feast: `GET /compute_engines`, `GET /compute_engines/all`, `GET /materialization_jobs`).

use std::cmp::Reverse;

use feast_registry_core::proto::core::MaterializationInterval;
use feast_registry_core::{Error, ErrorKind, Kind, Object, Result, Timestamp, wire, words};
use prost::Message;
use serde_json::{Map, Value, json};

use super::resources::spec;
use crate::paging::Paging;

mod engine;

pub(crate) use engine::Engine;

/// The body of the answer about the engine of a project and the views that it materializes. Other kinds of object are passed over.
///
/// # Errors
/// [`ErrorKind::Corrupt`] when a view cannot be read.
pub(crate) fn compute_engine(engine: &Engine, project: &str, objects: &[Object]) -> Result<Value> {
    let mut views = Vec::new();
    for (kind, view_type) in [(Kind::FeatureView, "Batch"), (Kind::StreamFeatureView, "Stream")] {
        for view in objects.iter().filter(|object| object.kind == kind) {
            views.push(Materialized::read(view)?.body(view_type));
        }
    }
    let mut engine = engine.body();
    engine.insert("featureViewCount".to_owned(), views.len().into());
    engine.insert("project".to_owned(), project.into());
    Ok(json!({ "engine": engine, "featureViews": views }))
}

/// The body of the answer about the engines of all projects, each with how many feature views (not counting stream feature views)
/// it has.
pub(crate) fn compute_engines(engine: &Engine, projects: &[(&str, usize)], paging: Paging) -> Value {
    let on_page = &projects[paging.range(projects.len())];
    let engines: Vec<Value> = on_page
        .iter()
        .map(|(project, views)| {
            let mut engine = engine.body();
            engine.insert("project".to_owned(), (*project).into());
            engine.insert("featureViewCount".to_owned(), (*views).into());
            engine.into()
        })
        .collect();
    json!({ "engines": engines, "pagination": pagination(paging, projects.len()) })
}

/// Which jobs are listed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Jobs<'a> {
    /// Only those in this state, in any case. Only what has succeeded is known.
    pub(crate) status: Option<&'a str>,
    /// Only those of this view.
    pub(crate) feature_view: Option<&'a str>,
    /// If one of these two is given, the other is 1 or 50; if none, all jobs are listed.
    pub(crate) page: Option<u32>,
    pub(crate) limit: Option<u32>,
}

const SUCCEEDED: &str = "SUCCEEDED";

/// The body of the answer about what was materialized of feature views, each interval as one job, newest first. Other kinds of
/// object are passed over.
///
/// # Errors
/// As [`compute_engine`].
pub(crate) fn materialization_jobs(objects: &[Object], jobs: &Jobs<'_>) -> Result<Value> {
    let of_view = jobs.feature_view.filter(|name| !name.is_empty());
    let mut views = Vec::new();
    if jobs.status.is_none_or(|status| status.is_empty() || status.to_uppercase() == SUCCEEDED) {
        for view in objects.iter().filter(|object| object.kind == Kind::FeatureView) {
            let view = Materialized::read(view)?;
            if of_view.is_none_or(|name| name == view.name) {
                views.push(view);
            }
        }
    }
    let mut found: Vec<(&Materialized, (usize, &MaterializationInterval))> = Vec::new();
    for view in &views {
        found.extend(view.intervals.iter().enumerate().map(|interval| (view, interval)));
    }
    found.sort_by_key(|(_, (_, interval))| Reverse(interval.start_time.map(|at| (at.seconds, at.nanos))));
    let (paging, on_page) = match (jobs.page, jobs.limit) {
        (None, None) => (Paging { page: 0, limit: 0 }, 0..found.len()),
        (page, limit) => {
            let paging = Paging { page: page.unwrap_or(1), limit: limit.unwrap_or(50) };
            (paging, paging.range(found.len()))
        }
    };
    let bodies: Vec<Value> = found[on_page]
        .iter()
        .map(|(view, (index, interval))| {
            json!({
                "id": format!("{}-{index}", view.name),
                "featureView": view.name,
                "status": SUCCEEDED,
                "startTime": moment(&interval.start_time),
                "endTime": moment(&interval.end_time),
            })
        })
        .collect();
    Ok(json!({ "jobs": bodies, "pagination": pagination(paging, found.len()) }))
}

fn pagination(paging: Paging, total: usize) -> Value {
    json!({ "page": paging.page, "limit": paging.limit, "total": total })
}

fn moment(at: &Option<Timestamp>) -> Option<String> {
    at.as_ref().map(words::moment)
}

/// A view that can be materialized, and when it was.
struct Materialized {
    name: String,
    is_online: bool,
    intervals: Vec<MaterializationInterval>,
}

impl Materialized {
    fn read(view: &Object) -> Result<Self> {
        let online = online_field(view.kind);
        let mut is_online = false;
        for field in wire::fields(&spec(view)?) {
            let field = field?;
            if Some(field.number) == online {
                is_online = field.varint != 0;
            }
        }
        let layout = view.kind.layout();
        let meta = layout.meta.map(|meta| wire::sub_message(&view.bytes, meta)).transpose()?.flatten();
        let mut intervals = Vec::new();
        for field in wire::fields(&meta.unwrap_or_default()) {
            let field = field?;
            if Some(field.number) == layout.materialization_intervals {
                let interval = MaterializationInterval::decode(field.content).map_err(|error| {
                    Error::new(ErrorKind::Corrupt, "an interval of materialization cannot be decoded")
                        .with_source(error)
                })?;
                intervals.push(interval);
            }
        }
        Ok(Self { name: view.name()?, is_online, intervals })
    }

    fn body(&self, view_type: &str) -> Value {
        let intervals: Vec<Value> = self.intervals.iter().map(interval_body).collect();
        json!({
            "name": self.name,
            "type": view_type,
            "online": self.is_online,
            "lastMaterialized": self.intervals.last().and_then(|interval| moment(&interval.end_time)),
            // Views have no engine of their own in Feast's messages.
            "hasOverride": false,
            "overrides": null,
            "materializationIntervals": intervals,
        })
    }
}

/// The field that says whether a view is served online, in the spec of its kind.
fn online_field(kind: Kind) -> Option<u32> {
    match kind {
        Kind::FeatureView => Some(8),
        Kind::StreamFeatureView => Some(12),
        _ => None,
    }
}

fn interval_body(interval: &MaterializationInterval) -> Value {
    let mut body = Map::new();
    for (name, at) in [("startTime", &interval.start_time), ("endTime", &interval.end_time)] {
        if let Some(at) = moment(at) {
            body.insert(name.to_owned(), at.into());
        }
    }
    body.into()
}

#[cfg(test)]
mod tests;
