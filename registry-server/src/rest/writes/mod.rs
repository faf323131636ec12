//! Changes: objects made of what Feast's API takes (`POST`), whole objects (`PUT`), deletions, and many changes as one commit.

mod batch;
mod bodies;
mod conditions;
mod data_source;
mod lax;
mod replace;
mod saved_dataset;

use feast_registry_core::{ApplyOptions, Edit, Edited, Kind, Object};
use serde_json::{Value, json};
use tonic::codegen::http::StatusCode;
use tonic::codegen::http::header::{HeaderName, HeaderValue};

pub(super) use self::batch::kind_name;
use super::answer::Answer;
use super::call::Call;
use super::error::{RestError, Result};

/// The parameter that says that nothing is to be done.
pub(super) const DRY_RUN: &str = "dry_run";

/// Where the journal has what was done.
const REVISION: HeaderName = HeaderName::from_static("x-registry-revision");

impl Call {
    /// Whether nothing is to be done, but told what would be.
    pub(super) fn is_dry(&self) -> bool {
        !self.route.is_read() && self.given.flag_or(DRY_RUN, false)
    }

    /// Applies an object of a project, if the conditions of the request hold, and answers as Feast does.
    async fn apply(&self, project: &str, object: Object) -> Result<Answer> {
        let name = object.name()?;
        if name.is_empty() {
            return Err(RestError::invalid_value(format!("the {} has no name: give it a `name`", object.kind)));
        }
        if project.is_empty() {
            return Err(RestError::invalid_value("it says no project: give a `project`"));
        }
        let edit = self.conditions()?.on(Edit::apply(object));
        let edited = self.edit(project, vec![edit]).await?.into_iter().next();
        let told = json!({ "name": name, "project": project, "status": "applied" });
        self.done(told, edited.as_ref(), StatusCode::CREATED)
    }

    async fn edit(&self, project: &str, edits: Vec<Edit>) -> Result<Vec<Edited>> {
        Ok(self.registry.edit(project, edits, ApplyOptions::default()).await?)
    }

    /// What is told of something that was done, or would be.
    fn done(&self, mut told: Value, edited: Option<&Edited>, status: StatusCode) -> Result<Answer> {
        if self.is_dry() {
            told["status"] = json!("dry run");
            told["dry_run"] = json!(true);
            told["changed"] = json!(edited.is_some_and(|edited| edited.has_changed));
            return Ok(Answer::json(&told));
        }
        let answer = Answer::json(&told).with_status(status);
        let revision = edited.and_then(|edited| edited.revision);
        let revision = revision.and_then(|revision| HeaderValue::from_str(&revision.number().to_string()).ok());
        Ok(match revision {
            Some(revision) => answer.with_header(REVISION, revision),
            None => answer,
        })
    }

    /// `DELETE /RESOURCE/{name}` of a kind.
    pub(crate) async fn delete(self, kind: Kind) -> Result<Answer> {
        // That is how Feast tells the two apart.
        let status = if kind == Kind::SavedDataset { "ok" } else { "deleted" };
        self.deleted(Edit::delete(kind, self.given.text_or_empty("name")), status).await
    }

    /// `DELETE /feature_views/{name}`, of any kind of view.
    pub(crate) async fn delete_view(self) -> Result<Answer> {
        self.deleted(Edit::delete_view(self.given.text_or_empty("name")), "deleted").await
    }

    async fn deleted(&self, edit: Edit, status: &str) -> Result<Answer> {
        let (project, name) = (self.given.project(), self.given.text_or_empty("name"));
        let edited = self.edit(project, vec![self.conditions()?.on(edit)]).await?.into_iter().next();
        let told = json!({ "name": name, "project": project, "status": status });
        self.done(told, edited.as_ref(), StatusCode::OK)
    }

    /// `POST /registry/refresh`.
    pub(crate) async fn refresh(self) -> Result<Answer> {
        let project = self.served.options.project.as_deref().unwrap_or_default();
        self.registry.refresh_for(project).await?;
        Ok(Answer::empty())
    }
}
