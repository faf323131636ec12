//! What is asked across kinds of object: search, counts, tags, visits, and what was materialized with what.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use feast_registry_core::access::Access;
use feast_registry_core::proto::core::Project;
use feast_registry_core::{Kind, ListFilter, Object, Timestamp};
use serde_json::Value;
use tonic::codegen::http::StatusCode;

use super::answer::Answer;
use super::call::Call;
use super::error::{RestError, Result};
use super::resources::Resources;
use super::search::{self, Search};
use super::visits::{Listing, Visit};
use super::{compute, resource_metrics};
use crate::lists::Wanted;

/// Whose visits are those of callers that nobody is asked about, as in Feast.
const ANYBODY: &str = "anonymous";
/// The kinds of object that are searched and counted.
const KINDS: [Kind; 8] = [
    Kind::Entity,
    Kind::DataSource,
    Kind::FeatureView,
    Kind::StreamFeatureView,
    Kind::OnDemandFeatureView,
    Kind::LabelView,
    Kind::FeatureService,
    Kind::SavedDataset,
];

impl Call {
    /// What a project holds; nothing if it is not there.
    async fn resources(&self, name: &str, description: String) -> Result<Resources> {
        let mut objects = Vec::new();
        for kind in KINDS {
            objects.extend(self.registry.list(kind, Some(name), &ListFilter::all(), self.freshness()).await?);
        }
        Ok(Resources { name: name.to_owned(), description, objects })
    }

    /// The same of all projects but those that are protected.
    async fn all_resources(&self) -> Result<Vec<Resources>> {
        let mut all = Vec::new();
        for project in self.lists().projects(BTreeMap::new(), self.given.allow_cache()).await? {
            let spec = project.decode::<Project>()?.spec.unwrap_or_default();
            all.push(self.resources(&spec.name, spec.description).await?);
        }
        Ok(all)
    }

    /// Those of one project, if one is named, or else of all.
    async fn resources_asked_for(&self) -> Result<Vec<Resources>> {
        match self.given.project() {
            "" => self.all_resources().await,
            project => Ok(vec![self.resources(project, String::new()).await?]),
        }
    }

    /// Makes an answer of many objects, where that holds up nobody.
    async fn told(
        &self,
        objects: usize,
        tell: impl FnOnce() -> feast_registry_core::Result<Value> + Send + 'static,
    ) -> Result<Answer> {
        Ok(Answer::json(&self.registry.compute(objects, tell).await?))
    }

    /// `GET /search`.
    pub(crate) async fn search(self) -> Result<Answer> {
        let given = search::Given {
            sort_by: self.given.text("sort_by"),
            sort_order: self.given.text("sort_order"),
            page: self.given.number("page"),
            limit: self.given.number("limit"),
        };
        let query = self.given.text_or_empty("query").to_owned();
        let search =
            Search::new(query, self.given.tags(), given).map_err(|why| RestError::new(StatusCode::BAD_REQUEST, why))?;
        let known: Vec<String> = self.project_names().await?.iter().map(ToString::to_string).collect();
        let asked: Vec<String> = self.given.texts("projects").map(str::to_owned).collect();
        let (names, errors) = search::projects_to_search(&known, &asked);
        let mut projects = Vec::with_capacity(names.len());
        for name in names {
            projects.push(self.resources(&name, String::new()).await?);
        }
        let objects = projects.iter().map(|project| project.objects.len()).sum();
        self.told(objects, move || Ok(search::body(&search, &projects, errors))).await
    }

    /// `GET /metrics/resource_counts`.
    pub(crate) async fn resource_counts(self) -> Result<Answer> {
        let projects = self.resources_asked_for().await?;
        let updated = self.last_updated().await?;
        let objects = projects.iter().map(|project| project.objects.len()).sum();
        let is_one = !self.given.project().is_empty();
        let tell = move || match projects.first() {
            Some(project) if is_one => resource_metrics::resource_counts(project, updated.as_ref()),
            _ => resource_metrics::all_resource_counts(&projects, updated.as_ref()),
        };
        self.told(objects, tell).await
    }

    /// When any project was last changed, as far as the caller may see it.
    async fn last_updated(&self) -> Result<Option<Timestamp>> {
        let projects = self.registry.list(Kind::Project, None, &ListFilter::all(), self.freshness()).await?;
        let mut latest: Option<Timestamp> = None;
        for project in projects {
            let updated = project.last_updated_timestamp()?;
            latest = latest.into_iter().chain(updated).max_by_key(|moment| (moment.seconds, moment.nanos));
        }
        Ok(latest)
    }

    /// `GET /metrics/popular_tags`.
    pub(crate) async fn popular_tags(self) -> Result<Answer> {
        let projects = self.resources_asked_for().await?;
        let limit = self.given.number("limit").unwrap_or(4);
        let objects = projects.iter().map(|project| project.objects.len()).sum();
        self.told(objects, move || resource_metrics::popular_tags(&projects, limit)).await
    }

    /// `GET /metrics/recently_visited`.
    pub(crate) async fn recently_visited(self) -> Result<Answer> {
        let positive = |name| self.given.number(name).and_then(|number| u32::try_from(number).ok());
        let listing = Listing {
            object: self.given.text("object"),
            sort_by: self.given.text("sort_by"),
            is_descending: self.given.text("sort_order") == Some("desc"),
            page: positive("page"),
            limit: positive("limit"),
        };
        let (visits, user) = (&self.served.visits, self.user());
        Ok(Answer::json(&match self.given.project() {
            "" => {
                let projects = self.project_names().await?;
                let names: Vec<String> = projects.iter().map(ToString::to_string).collect();
                visits.of_projects(user, &names, &listing)
            }
            project => visits.of_project(user, project, &listing),
        }))
    }

    /// Notes that the caller has looked at what this request has answered.
    pub(crate) fn note_visit(&self, path: &str) {
        let path = percent_encoding::percent_decode_str(path).decode_utf8_lossy();
        let Some((object, object_name)) = super::visits::visited(&path) else { return };
        let configured = || self.served.options.project.clone().unwrap_or_default();
        let visit = Visit {
            project: self.given.text("project").map_or_else(configured, str::to_owned),
            path: path.to_string(),
            object: object.to_owned(),
            object_name: object_name.to_owned(),
            method: "GET".to_owned(),
            at: SystemTime::now().into(),
        };
        self.served.visits.note(self.user(), visit);
    }

    fn user(&self) -> &str {
        self.access.as_ref().map_or(ANYBODY, |access: &Access| access.identity().username.as_str())
    }

    async fn views_of(&self, project: &str) -> Result<Vec<Object>> {
        let wanted = Wanted::of(project, self.given.allow_cache());
        let mut views = self.lists().of_kind(Kind::FeatureView, &wanted).await?;
        views.extend(self.lists().of_kind(Kind::StreamFeatureView, &wanted).await?);
        Ok(views)
    }

    /// `GET /compute_engines`.
    pub(crate) async fn compute_engine(self) -> Result<Answer> {
        let views = self.views_of(self.given.project()).await?;
        let (served, project) = (Arc::clone(&self.served), self.given.project().to_owned());
        self.told(views.len(), move || compute::compute_engine(&served.engine, &project, &views)).await
    }

    /// `GET /compute_engines/all`.
    pub(crate) async fn compute_engines(self) -> Result<Answer> {
        let mut counted = Vec::new();
        for project in self.project_names().await? {
            let views =
                self.lists().of_kind(Kind::FeatureView, &Wanted::of(&*project, self.given.allow_cache())).await?;
            counted.push((project, views.len()));
        }
        let counted: Vec<(&str, usize)> = counted.iter().map(|(name, views)| (&**name, *views)).collect();
        Ok(Answer::json(&compute::compute_engines(&self.served.engine, &counted, self.given.paging())))
    }

    /// `GET /materialization_jobs`.
    pub(crate) async fn materialization_jobs(self) -> Result<Answer> {
        let views = self.views_of(self.given.project()).await?;
        let count = views.len();
        let given = Arc::clone(&self.given);
        let tell = move || {
            let positive = |name| given.number(name).and_then(|number| u32::try_from(number).ok());
            let jobs = compute::Jobs {
                status: given.text("status"),
                feature_view: given.text("feature_view"),
                page: positive("page"),
                limit: positive("limit"),
            };
            compute::materialization_jobs(&views, &jobs)
        };
        self.told(count, tell).await
    }

    /// The routes below `/monitoring`: as Feast answers while the feature is off.
    pub(crate) async fn no_monitoring(self) -> Result<Answer> {
        Err(RestError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "Monitoring is not enabled: this server has the registry alone; quality metrics need Feast's own server, with \
             `data_quality_monitoring` in its feature_store.yaml",
        ))
    }
}
