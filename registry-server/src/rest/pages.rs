//! What the web UI needs of the server.

use feast_registry_core::access::Access;
use feast_registry_core::proto::core::Project;
use feast_registry_core::{CallOptions, Freshness, Kind, ListFilter, Result};
use serde_json::Value;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::codegen::http::request::Parts;
use tonic::codegen::http::{Request, Response};

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
        let projects = async || self.0.projects_list(request).await;
        match ui.answer(page, method, &request.headers, projects).await {
            Ok(response) => response,
            Err(error) => Some(RestError::from(error).into_response()),
        }
    }

    /// Whether what is no route is a page for those who have said who they are: the list of projects, unless people log in to the pages,
    /// which ask for it before that.
    pub(super) fn is_page_for_callers<B>(&self, request: &Request<B>) -> bool {
        let is_hidden = |ui: &Ui| self.0.is_guarded && !ui.has_login();
        self.0.options.ui.as_ref().is_some_and(is_hidden)
            && matches!(Ui::page(request.method(), request.uri().path()), Some(Page::Projects))
    }
}

impl Served {
    /// The projects, as the web UI lists them, that the caller may see. Where nobody is known yet, as before they log in, they are told
    /// what all are called, and no more.
    async fn projects_list(&self, request: &Parts) -> Result<Value> {
        let access = request.extensions.get::<Access>();
        let options = CallOptions::default().with_deadline(Instant::now() + self.request_timeout);
        let options = access.cloned().into_iter().fold(options, CallOptions::with_access);
        let registry = self.registry.with_call(options);
        let tells_all = access.is_some() || !self.is_guarded;
        // All, like Feast: a project that is not in the list has no page.
        let projects = registry.list(Kind::Project, None, &ListFilter::all(), Freshness::Cached).await?;
        let told = projects.iter().filter_map(|project| {
            let spec = project.decode::<Project>().ok()?.spec?;
            Some(Listed { description: if tells_all { spec.description } else { String::new() }, name: spec.name })
        });
        Ok(ui::projects_list(told, self.options.project.as_deref()))
    }
}
