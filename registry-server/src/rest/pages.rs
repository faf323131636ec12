//! What the web UI needs of the server.

use feast_registry_core::proto::core::Project;
use feast_registry_core::{CallOptions, Freshness, Kind, ListFilter, Result};
use serde_json::Value;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::codegen::http::Response;
use tonic::codegen::http::request::Parts;

use super::error::RestError;
use super::route::Found;
use super::ui::{self, Listed, Page, Ui};
use super::{Rest, Served};

impl Rest {
    /// What the web UI answers, if there is one and it is the one to answer: the API has whatever is a route of it.
    pub(super) async fn page(&self, request: &Parts, found: &Found) -> Option<Response<Body>> {
        let ui = self.0.options.ui.as_ref()?;
        let method = &request.method;
        let page = Ui::page(method, request.uri.path())?;
        if matches!(page, Page::File(_)) && !matches!(found, Found::Nothing) {
            return None;
        }
        let projects = async || self.0.projects_list().await;
        match ui.answer(page, method, &request.headers, projects).await {
            Ok(response) => response,
            Err(error) => Some(RestError::from(error).into_response()),
        }
    }
}

impl Served {
    /// The projects, as the web UI lists them. Its pages ask before anybody has logged in: so where people do, they are told no more than
    /// what the projects are called.
    async fn projects_list(&self) -> Result<Value> {
        let until = Instant::now() + self.request_timeout;
        let registry = self.registry.with_call(CallOptions::default().with_deadline(until));
        // All, like Feast: a project that is not in the list has no page.
        let projects = registry.list(Kind::Project, None, &ListFilter::all(), Freshness::Cached).await?;
        let told = projects.iter().filter_map(|project| {
            let spec = project.decode::<Project>().ok()?.spec?;
            Some(Listed {
                description: if self.is_guarded { String::new() } else { spec.description },
                name: spec.name,
            })
        });
        Ok(ui::projects_list(told, self.options.project.as_deref()))
    }
}
