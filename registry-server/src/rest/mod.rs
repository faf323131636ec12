//! Feast's REST API over a registry, with what it lacks: entity tags, conditions, replacements and batches.
//!
//! [`table`] has all routes. A request is found its route ([`route`]), its parameters are checked as that declares them
//! ([`parameters`]), and the route's method of [`Call`](call::Call) does it over the registry as its caller may see it. Objects of an
//! answer stay as they are stored until they are sent ([`document`]).

mod answer;
mod call;
mod compute;
mod cors;
mod definition;
mod document;
mod entry;
mod error;
mod features;
#[cfg(test)]
mod golden;
mod json;
mod labels;
mod lineage;
mod moment;
mod objects;
mod openapi;
mod overview;
mod pages;
mod parameters;
mod projects;
mod relations;
mod resource_metrics;
mod resources;
mod route;
mod search;
mod table;
mod tag;
mod ui;
mod visits;
mod writes;

use std::sync::Arc;
use std::time::Duration;

use feast_registry_core::Registry;
use feast_registry_core::access::Access;
use http_body_util::BodyExt as _;
use tonic::body::Body;
use tonic::codegen::http::header::{ALLOW, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, LOCATION, ORIGIN};
use tonic::codegen::http::{Method, Request, Response, StatusCode};
use tonic::metadata::MetadataMap;

use self::answer::Answer;
use self::call::Call;
use self::compute::Engine;
use self::cors::Cors;
pub(crate) use self::error::RestError;
use self::parameters::Given;
use self::route::{Found, Route, Verb};
pub use self::ui::{Login, Ui};
use self::visits::Visits;
use self::writes::DRY_RUN;
use crate::answers::Answers;
use crate::call as calls;
use crate::tenants::Memory;

/// The port of Feast's REST registry server.
pub const DEFAULT_REST_PORT: u16 = 6572;

/// How the REST API is served. Made with `default()`, and changed field by field.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct RestOptions {
    /// The project of the server's configuration, which `POST /registry/refresh` asks for permission, and which visits without a project
    /// are of. Default: none.
    pub project: Option<String>,
    /// The block `batch_engine` of the server's configuration, as `/compute_engines` tells it. Default: none.
    pub batch_engine: Option<serde_json::Value>,
    /// The origins whose pages may use the API from a browser, as `https://catalog.example.com`; `*` is all. Default: none but its own.
    pub cors_origins: Vec<String>,
    /// Feast's web UI, which is then served beside the API: at `/`. Default: none.
    pub ui: Option<Ui>,
}

/// The REST API of a server. Cloning gives another handle on the same.
#[derive(Clone)]
pub(crate) struct Rest(Arc<Served>);

/// What all requests share.
pub(crate) struct Served {
    registry: Registry,
    request_timeout: Duration,
    answers: Answers,
    cors: Cors,
    /// Whether callers have to say who they are.
    is_guarded: bool,
    options: RestOptions,
    /// What `/compute_engines` tells of.
    engine: Engine,
    visits: Visits,
}

impl Rest {
    /// Over a registry, whose answers share the budget of all that the server sends; with whether callers have to say who they are, and
    /// whether they can only be of this machine.
    pub(crate) fn new(
        registry: Registry,
        request_timeout: Duration,
        answers: Answers,
        (is_guarded, is_local): (bool, bool),
        options: RestOptions,
    ) -> Self {
        let cors = Cors::new(&options.cors_origins, is_local && !is_guarded);
        let engine = Engine::new(options.batch_engine.as_ref());
        let visits = Visits::new(visits::DEFAULT_LIMIT);
        Self(Arc::new(Served { registry, request_timeout, answers, cors, is_guarded, options, engine, visits }))
    }

    /// Finds what a request asks for, and keeps it with the request for [`answer`](Self::answer).
    pub(crate) fn find<B>(&self, request: &mut Request<B>) -> Asked {
        let found = route::find(request.method(), request.uri().path());
        let asked = match &found {
            Found::Route(route, _) | Found::Unreadable(route) => {
                Asked { name: route.name(), is_for_callers: !route.is_open }
            }
            Found::OtherMethod(_) | Found::Nothing => {
                Asked { name: String::new(), is_for_callers: self.is_page_for_callers(request) }
            }
        };
        request.extensions_mut().insert(found);
        asked
    }

    /// Adds to an answer, whoever made it, what browsers go by; and leaves out what was not asked for.
    pub(crate) fn finish(&self, to: &Asking, answer: &mut Response<Body>) {
        if to.is_head {
            let body = std::mem::take(answer.body_mut());
            let length = http_body::Body::size_hint(&body).exact().filter(|_| !http_body::Body::is_end_stream(&body));
            if let Some(length) = length {
                answer.headers_mut().insert(CONTENT_LENGTH, length.into());
            }
        }
        let headers = answer.headers_mut();
        for (name, value) in [("x-content-type-options", "nosniff"), ("cache-control", "private, no-cache")] {
            let name = HeaderName::from_static(name);
            if !headers.contains_key(&name) {
                headers.insert(name, HeaderValue::from_static(value));
            }
        }
        self.0.cors.allow(to.origin.as_ref(), headers);
    }

    /// Answers a request whose route was [found](Self::find).
    pub(crate) async fn answer(self, request: Request<Body>) -> Response<Body> {
        let (mut parts, body) = request.into_parts();
        if let Some(preflight) = self.0.cors.preflight(&parts.method, &parts.headers) {
            return preflight;
        }
        if let Err(refused) = self.0.cors.check(&parts) {
            return refused.into_response();
        }
        let found = parts.extensions.remove().unwrap_or(Found::Nothing);
        if let Some(page) = self.page(&parts, &found).await {
            return page;
        }
        let path = parts.uri.path();
        let (route, in_path) = match found {
            Found::Route(route, in_path) => (route, in_path),
            Found::Unreadable(_) => return RestError::invalid_request("the path is not UTF-8").into_response(),
            Found::OtherMethod(allowed) => return not_allowed(&allowed),
            Found::Nothing => return not_found(&parts.method, path, parts.uri.query()),
        };
        let head = (parts.headers, parts.extensions);
        let asked = (path, parts.uri.query().unwrap_or_default(), parts.method == Method::HEAD);
        match self.answer_of(route, in_path, asked, head, body).await {
            Ok(response) => response,
            Err(error) => error.into_response(),
        }
    }

    async fn answer_of(
        self,
        route: &'static Route,
        in_path: Vec<(&'static str, String)>,
        (path, query, is_head): (&str, &str, bool),
        (headers, extensions): (HeaderMap, tonic::codegen::http::Extensions),
        body: Body,
    ) -> error::Result<Response<Body>> {
        let given = Given::of(route.parameters, in_path, query)?;
        if !route.is_read() {
            given.refuse_near_misses(route.parameters)?;
            if given.text(DRY_RUN).is_some() && !route.has(DRY_RUN) {
                return Err(RestError::invalid_request(format!("this cannot be tried: it has no `{DRY_RUN}`")));
            }
        }
        let body = body.collect().await.map_err(RestError::from)?.to_bytes();
        let request = tonic::Request::from_parts(MetadataMap::from_headers(headers), extensions, ());
        let options = calls::options(&request, self.0.request_timeout);
        let is_dry = !route.is_read() && given.flag_or(DRY_RUN, false);
        let options = if is_dry { options.dry() } else { options };
        let access: Option<Access> = request.extensions().get::<Access>().cloned();
        let memory: Option<Memory> = calls::memory(&request);
        let headers = Arc::new(request.into_parts().0.into_headers());
        let call = Call {
            registry: self.0.registry.with_call(options),
            served: Arc::clone(&self.0),
            route,
            given: Arc::new(given),
            headers: Arc::clone(&headers),
            access,
            body,
        };
        let make = || (route.handler)(call.clone());
        let (answer, room) = match route.is_read() {
            true => {
                let (answer, room) = self.0.answers.with_room(memory.as_ref(), Answer::size, make).await?;
                let identified = call.registry.compute(answer.unidentified(), move || Ok(answer.identified()));
                (identified.await?, room)
            }
            // It is small, and what was done is not done again.
            false => (make().await?, None),
        };
        if route.is_read() && !is_head {
            call.note_visit(path);
        }
        Ok(answer.into_response(&headers, room))
    }
}

/// What of a request each answer to it depends on.
pub(crate) struct Asking {
    origin: Option<HeaderValue>,
    /// Whether it asks for no body. HTTP/1.1 would leave that out by itself; of HTTP/2 a client takes it for an error.
    is_head: bool,
}

impl Asking {
    pub(crate) fn of<B>(request: &Request<B>) -> Self {
        Self { origin: request.headers().get(ORIGIN).cloned(), is_head: request.method() == Method::HEAD }
    }
}

/// What a request asks for, as far as it matters before it is done.
pub(crate) struct Asked {
    /// What it is called in metrics and in the log.
    pub(crate) name: String,
    /// Whether its caller has to say who they are: not to learn that there is no such route.
    pub(crate) is_for_callers: bool,
}

/// What all routes are called in metrics.
pub(crate) fn route_names() -> impl Iterator<Item = (String, bool)> {
    table::routes().map(|route| (route.name(), route.is_read()))
}

fn not_allowed(allowed: &[Verb]) -> Response<Body> {
    let mut response = plain_error(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    let mut names: Vec<&str> = allowed.iter().map(|verb| verb.name()).collect();
    if allowed.contains(&Verb::Get) {
        names.push("HEAD");
    }
    names.sort_unstable();
    if let Ok(names) = HeaderValue::from_str(&names.join(", ")) {
        response.headers_mut().insert(ALLOW, names);
    }
    response
}

/// A path with a slash too many is told without it, as Feast's server does.
fn not_found(method: &Method, path: &str, query: Option<&str>) -> Response<Body> {
    let trimmed = path.trim_end_matches('/');
    let is_other = trimmed.len() < path.len() && !trimmed.is_empty() && !trimmed.starts_with("//");
    if is_other && matches!(route::find(method, trimmed), Found::Route(..)) {
        let query = query.map(|query| format!("?{query}")).unwrap_or_default();
        if let Ok(location) = HeaderValue::from_str(&format!("{trimmed}{query}")) {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
            response.headers_mut().insert(LOCATION, location);
            return response;
        }
    }
    plain_error(StatusCode::NOT_FOUND, "Not Found")
}

/// As Feast's web framework tells what no route has.
fn plain_error(status: StatusCode, detail: &str) -> Response<Body> {
    Answer::json(&serde_json::json!({ "detail": detail })).with_status(status).into_response(&HeaderMap::new(), None)
}
