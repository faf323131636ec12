//! How much there is of what, and which tags views have most (Feast: `GET /metrics/resource_counts`, `GET /metrics/popular_tags`).

use std::collections::HashMap;

use feast_registry_core::{Kind, Object, Result, Timestamp, wire, words};
use serde_json::{Map, Value, json};

use super::resources::{Described, FEATURE_VIEWS, Fields, Resources, spec};

/// The body of the answer about one project, whether or not there is such a project.
///
/// # Errors
/// `ErrorKind::Corrupt` when an object cannot be read.
pub(crate) fn resource_counts(project: &Resources, last_updated: Option<&Timestamp>) -> Result<Value> {
    let Inventory { counts, feature_services, feature_views } = Inventory::of(project)?;
    Ok(json!({
        "project": project.name,
        "counts": counts.body(),
        "featureServices": feature_services,
        "featureViews": feature_views,
        "projects": [{ "name": project.name }],
        "registryLastUpdated": last_updated.map(words::moment),
    }))
}

/// The body of the answer about all projects.
///
/// # Errors
/// As [`resource_counts`].
pub(crate) fn all_resource_counts(projects: &[Resources], last_updated: Option<&Timestamp>) -> Result<Value> {
    let mut total = Counts::default();
    let mut per_project = Map::new();
    let (mut feature_services, mut feature_views) = (Vec::new(), Vec::new());
    for project in projects {
        let inventory = Inventory::of(project)?;
        total.add(&inventory.counts);
        per_project.insert(project.name.clone(), inventory.counts.body());
        feature_services.extend(inventory.feature_services);
        feature_views.extend(inventory.feature_views);
    }
    let projects: Vec<Value> =
        projects.iter().map(|project| json!({ "name": project.name, "description": project.description })).collect();
    Ok(json!({
        "total": total.body(),
        "perProject": per_project,
        "featureServices": feature_services,
        "featureViews": feature_views,
        "projects": projects,
        "registryLastUpdated": last_updated.map(words::moment),
    }))
}

/// How many objects of which kinds there are.
#[derive(Debug, Default)]
struct Counts {
    entities: usize,
    data_sources: usize,
    saved_datasets: usize,
    /// Those of all views, labels included.
    features: usize,
    /// All but label views.
    feature_views: usize,
    feature_services: usize,
}

impl Counts {
    fn add(&mut self, other: &Self) {
        self.entities += other.entities;
        self.data_sources += other.data_sources;
        self.saved_datasets += other.saved_datasets;
        self.features += other.features;
        self.feature_views += other.feature_views;
        self.feature_services += other.feature_services;
    }

    fn body(&self) -> Value {
        json!({
            "entities": self.entities,
            "dataSources": self.data_sources,
            "savedDatasets": self.saved_datasets,
            "features": self.features,
            "featureViews": self.feature_views,
            "featureServices": self.feature_services,
        })
    }
}

/// What a project holds, with a line for each service and each view.
struct Inventory {
    counts: Counts,
    feature_services: Vec<Value>,
    feature_views: Vec<Value>,
}

impl Inventory {
    fn of(project: &Resources) -> Result<Self> {
        let mut features = 0;
        let mut feature_views = Vec::new();
        for &kind in Kind::VIEWS {
            for view in project.of(kind) {
                let count = feature_count(view)?;
                features += count;
                if let Some(view_type) = view_type(kind) {
                    feature_views.push(json!({
                        "name": view.name()?,
                        "project": project.name,
                        "type": view_type,
                        "featureCount": count,
                    }));
                }
            }
        }
        let service = |service: &Object| Ok(json!({ "name": service.name()?, "project": project.name }));
        let feature_services: Vec<Value> = project.of(Kind::FeatureService).map(service).collect::<Result<_>>()?;
        let counts = Counts {
            entities: project.of(Kind::Entity).count(),
            data_sources: project.of(Kind::DataSource).count(),
            saved_datasets: project.of(Kind::SavedDataset).count(),
            features,
            feature_views: feature_views.len(),
            feature_services: feature_services.len(),
        };
        Ok(Self { counts, feature_services, feature_views })
    }
}

/// What Feast calls a kind of feature view; `None` for what it does not list as one.
fn view_type(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::FeatureView => Some("featureView"),
        Kind::StreamFeatureView => Some("streamFeatureView"),
        Kind::OnDemandFeatureView => Some("onDemandFeatureView"),
        _ => None,
    }
}

fn feature_count(view: &Object) -> Result<usize> {
    let number = view.kind.layout().features;
    let mut count = 0;
    for field in wire::fields(&spec(view)?) {
        count += usize::from(Some(field?.number) == number);
    }
    Ok(count)
}

/// A tag with a value, and the views that have it: name and project of each.
struct Popular<'a> {
    key: &'a str,
    value: &'a str,
    views: Vec<(&'a str, &'a str)>,
}

/// The body of the answer about the tags of the feature views of some projects. As in Python, a negative `limit` leaves out so
/// many at the end.
///
/// # Errors
/// As [`resource_counts`].
pub(crate) fn popular_tags(projects: &[Resources], limit: i32) -> Result<Value> {
    let mut views = Vec::new();
    for project in projects {
        for view in FEATURE_VIEWS.iter().flat_map(|&kind| project.of(kind)) {
            views.push((project.name.as_str(), view.kind, spec(view)?));
        }
    }
    let mut tags: Vec<Popular<'_>> = Vec::new();
    let mut places = HashMap::new();
    let mut described = Described::default();
    for (project, kind, spec) in &views {
        described.read(spec, Fields::of(*kind))?;
        for &(key, value) in &described.tags {
            let place = *places.entry((key, value)).or_insert(tags.len());
            if place == tags.len() {
                tags.push(Popular { key, value, views: Vec::new() });
            }
            tags[place].views.push((described.name, project));
        }
    }
    // Tags that are equal here have one key; they keep the order in which they were found first.
    tags.sort_by(|one, other| (other.views.len(), other.key).cmp(&(one.views.len(), one.key)));
    let count = match usize::try_from(limit) {
        Ok(limit) => limit,
        Err(_) => tags.len().saturating_sub(limit.unsigned_abs() as usize),
    };
    let popular: Vec<Value> = tags.iter().take(count).map(Popular::body).collect();
    Ok(json!({
        "popular_tags": popular,
        "metadata": { "totalFeatureViews": views.len(), "totalTags": tags.len(), "limit": limit },
    }))
}

impl Popular<'_> {
    fn body(&self) -> Value {
        let views: Vec<Value> =
            self.views.iter().map(|(name, project)| json!({ "name": name, "project": project })).collect();
        json!({
            "tag_key": self.key,
            "tag_value": self.value,
            "feature_views": views,
            "total_feature_views": self.views.len(),
        })
    }
}

#[cfg(test)]
mod tests;
