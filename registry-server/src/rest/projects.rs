//! Projects, and what is told of the server itself.

use std::collections::BTreeMap;

use feast_registry_core::Kind;
use prost_types::Timestamp;
use serde_json::json;
use tonic::codegen::http::StatusCode;

use super::answer::Answer;
use super::call::Call;
use super::document::{Document, Identifier};
use super::entry::Entry;
use super::error::{RestError, Result};
use super::tag::Tag;
use crate::paging;

/// The version of Feast whose API this is.
const FEAST_VERSION: &str = "0.67.0";

impl Call {
    /// `GET /version`.
    pub(crate) async fn version(self) -> Result<Answer> {
        let server = concat!("feast-registry ", env!("CARGO_PKG_VERSION"));
        Ok(Answer::json(&json!({ "version": FEAST_VERSION, "server": server })))
    }

    /// `GET /projects`.
    pub(crate) async fn list_projects(self) -> Result<Answer> {
        let (pagination, sorting) = (self.given.pagination(), self.given.sorting());
        let projects = self.lists().projects(BTreeMap::new(), self.given.allow_cache()).await?;
        let (projects, page) = self.lists().page(projects, pagination, sorting.as_ref()).await?;
        let mut document = Document::new();
        document.array("projects", projects.into_iter().map(Entry::new).collect());
        document.field("pagination", &paging::to_json(&page));
        Ok(Answer::document(document))
    }

    /// `GET /projects/{name}`.
    pub(crate) async fn get_project(self) -> Result<Answer> {
        let name = self.given.text_or_empty("name");
        let project = Entry::new(self.registry.get(Kind::Project, name, name, self.freshness()).await?);
        let tag = Tag::of_object(&project.object, Identifier::new());
        if self.has(&tag) {
            return Ok(Answer::empty().with_tag(tag));
        }
        let mut document = Document::new();
        document.fields_of(&project.json()?);
        Ok(Answer::document(document).with_tag(tag))
    }

    /// Since when views are wanted, if that is asked for.
    pub(crate) fn updated_since(&self) -> Result<Option<Timestamp>> {
        let Some(text) = self.given.text("updated_since") else { return Ok(None) };
        let moment = super::moment::read(text).ok_or_else(|| {
            let advice = "give an ISO 8601 moment, as 2024-01-01T00:00:00Z";
            RestError::new(
                StatusCode::BAD_REQUEST,
                format!("parameter `updated_since`: `{text}` is no moment: {advice}"),
            )
        })?;
        Ok(Some(moment))
    }
}
