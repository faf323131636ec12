//! Feast's web UI: its bundle of pages from a folder, as `feast ui` serves it.
//!
//! The bundle is not ours, and not in this binary: it comes from an installed `feast` ([`Ui::find`]), or from a folder that somebody
//! has built. Its pages ask the REST API for everything but what is here: the list of projects, how people log in, and what MLflow
//! knows.

mod files;
mod find;
mod listing;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use feast_registry_core::{Error, Result};
use http_body_util::Full;
use serde_json::{Value, json};
use tonic::body::Body;
use tonic::codegen::http::header::{
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue,
    IF_NONE_MATCH, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use tonic::codegen::http::{Method, Response, StatusCode};

use self::files::Files;
pub(crate) use self::listing::{Listed, projects_list};

const INDEX: &str = "index.html";
const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";

/// Where the pages have the REST API.
const API: &str = "/api/v1";

/// The pages of Feast's web UI. Cloning gives another handle on the same.
#[derive(Debug, Clone)]
pub struct Ui(Arc<Pages>);

#[derive(Debug)]
struct Pages {
    files: Files,
    login: Login,
    /// What pages may load, and from where.
    policy: HeaderValue,
}

/// How people who look at the pages say who they are. Default: not at all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Login {
    /// Not at all.
    #[default]
    None,
    /// With tokens of Kubernetes, which the pages do not have: the REST API then refuses what they ask for, unless something before
    /// the server adds the tokens.
    Kubernetes,
    /// At an identity provider, which has to be Keycloak: the pages know no other.
    Oidc {
        /// Where its configuration is, as `https://keycloak/realms/feast/.well-known/openid-configuration`.
        discovery: String,
        /// The name under which the provider knows the pages.
        client: String,
    },
}

/// What the UI answers by itself, or needs others for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Page<'a> {
    /// The page that all addresses of the UI begin with.
    Index,
    /// The list of projects, which the registry has.
    Projects,
    /// Whether the registry answers, if only from its cache.
    Health,
    /// What MLflow knows, which is nothing.
    Mlflow(&'static str),
    /// A file of the bundle, unless there is none.
    File(&'a str),
}

impl Ui {
    /// From a folder, which has to have the bundle's `index.html`. Files are read when they are asked for. Waits for the disk.
    ///
    /// # Errors
    ///
    /// The folder has none, or it leads out of the folder.
    pub fn open(folder: &Path) -> Result<Self> {
        Ok(Self::with_files(Files::open(folder)?, &Login::None))
    }

    /// The folder with the bundle in the installed `feast` package: that of the active virtual environment, of the `feast` in `PATH`, or
    /// of `python3`. Python is asked, and imports nothing. Waits for it.
    ///
    /// # Errors
    ///
    /// None of them has it; the message names whom it asked.
    pub fn find() -> Result<PathBuf> {
        find::bundle()
    }

    /// The same pages for people who log in.
    #[must_use]
    pub fn with_login(&self, login: &Login) -> Self {
        Self::with_files(self.0.files.clone(), login)
    }

    fn with_files(files: Files, login: &Login) -> Self {
        let policy = policy(login.provider());
        Self(Arc::new(Pages { files, login: login.clone(), policy }))
    }

    /// Whether people log in to it.
    pub(crate) fn has_login(&self) -> bool {
        self.lacks_login().is_none()
    }

    /// Why nobody can log in to it, if that is so.
    pub(crate) fn lacks_login(&self) -> Option<&'static str> {
        match &self.0.login {
            Login::None => Some("it takes no tokens of a file; have a proxy before the server add one"),
            Login::Kubernetes => Some("it takes no tokens of Kubernetes; have a proxy before the server add one"),
            Login::Oidc { client, .. } if client.is_empty() => {
                Some("`auth` of the feature_store.yaml names no `ui_client_id`, nor a `client_id`")
            }
            Login::Oidc { discovery, .. } if keycloak(discovery).is_none() => {
                Some("it knows Keycloak alone, whose `auth_discovery_url` has `/realms/` in it")
            }
            Login::Oidc { .. } => None,
        }
    }

    /// The folder it is from.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.0.files.folder()
    }

    /// What a request of these asks for, if the UI has anything to do with it.
    pub(crate) fn page<'a>(method: &Method, path: &'a str) -> Option<Page<'a>> {
        if *method != Method::GET && *method != Method::HEAD {
            return None;
        }
        let mlflow = match path {
            "/" | "/index.html" => return Some(Page::Index),
            "/projects-list.json" => return Some(Page::Projects),
            "/health" => return Some(Page::Health),
            "/api/mlflow-runs" => r#"{"runs":[],"mlflow_uri":null}"#,
            "/api/mlflow-feature-usage" => r#"{"feature_usage":{},"mlflow_enabled":false}"#,
            "/api/mlflow-feature-models" => r#"{"feature_models":{}}"#,
            _ if path.starts_with("/p/") => return Some(Page::Index),
            _ if path.starts_with("/api/") => return None,
            _ => return Some(Page::File(path)),
        };
        Some(Page::Mlflow(mlflow))
    }

    /// The answer to a request for a page; none is a file that there is not. `projects` are asked for where the page needs them; without
    /// them the registry does not answer.
    pub(crate) async fn answer<E>(
        &self,
        page: Page<'_>,
        method: &Method,
        headers: &HeaderMap,
        projects: impl AsyncFnOnce() -> std::result::Result<Value, E>,
    ) -> std::result::Result<Option<Response<Body>>, E> {
        let response = match page {
            Page::Index => self.index().await.map(|index| told(HTML, index, headers)),
            Page::Mlflow(known) => Some(told(JSON, Bytes::from_static(known.as_bytes()), headers)),
            Page::Projects => Some(told(JSON, projects().await?.to_string().into(), headers)),
            Page::Health => {
                let status = if projects().await.is_ok() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
                let mut response = Response::new(Body::empty());
                *response.status_mut() = status;
                Some(response)
            }
            Page::File(path) => self.0.files.answer(path, method, headers).await,
        };
        Ok(response.map(|response| self.finish(method, response)))
    }

    /// The page as it is now, with how people log in.
    async fn index(&self) -> Option<Bytes> {
        let index = self.0.files.read(INDEX).await?;
        let text = String::from_utf8_lossy(&index);
        let login = in_script(&self.0.login.told());
        let script = format!(r#"<script id="feast-auth-config" type="application/json">{login}</script>"#);
        Some(text.replacen("</head>", &format!("{script}\n</head>"), 1).into())
    }

    /// Adds what browsers are told of every page, and has an answer to HEAD be without its content.
    fn finish(&self, method: &Method, response: Response<Body>) -> Response<Body> {
        let (mut parts, body) = response.into_parts();
        let headers = &mut parts.headers;
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
        headers.insert(CONTENT_SECURITY_POLICY, self.0.policy.clone());
        headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache"));
        if *method == Method::HEAD {
            let exact = http_body::Body::size_hint(&body).exact();
            if let Some(exact) = exact.filter(|_| parts.status == StatusCode::OK) {
                headers.entry(CONTENT_LENGTH).or_insert(exact.into());
            }
            return Response::from_parts(parts, Body::empty());
        }
        Response::from_parts(parts, body)
    }
}

impl Login {
    /// As the pages read it.
    fn told(&self) -> Value {
        match self {
            Self::None => json!({ "auth_type": "no_auth" }),
            Self::Kubernetes => json!({ "auth_type": "kubernetes" }),
            Self::Oidc { discovery, client } => {
                let mut told = json!({ "auth_type": "oidc", "auth_discovery_url": discovery, "client_id": client });
                if let Some((keycloak, realm)) = keycloak(discovery) {
                    told["url"] = keycloak.into();
                    told["realm"] = realm.into();
                }
                told
            }
        }
    }

    /// The origin of the identity provider, which the pages ask for tokens.
    fn provider(&self) -> Option<&str> {
        let Self::Oidc { discovery, .. } = self else { return None };
        let host = discovery.find("://")? + "://".len();
        let end = discovery[host..].find(['/', '?', '#']).map_or(discovery.len(), |length| host + length);
        // What is none would be more than an origin in the policy.
        let is_origin = |byte: u8| byte.is_ascii_alphanumeric() || b".:-[]".contains(&byte);
        discovery[host..end].bytes().all(is_origin).then_some(&discovery[..end])
    }
}

/// Where Keycloak is, and which of its realms this is about.
fn keycloak(discovery: &str) -> Option<(&str, &str)> {
    let (keycloak, rest) = discovery.split_once("/realms/")?;
    Some((keycloak, rest.split('/').next().unwrap_or_default()))
}

/// JSON that nothing in it can end a `<script>` element.
fn in_script(value: &Value) -> String {
    let text = value.to_string();
    // Only strings have these, and in them an escape is the same.
    text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

/// What Feast's bundle needs, and nothing else: its own files, and styles that its components make while they run.
fn policy(provider: Option<&str>) -> HeaderValue {
    let provider = provider.map_or(Cow::Borrowed(""), |origin| Cow::Owned(format!(" {origin}")));
    let policy = format!(
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:; \
         connect-src 'self'{provider}; manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    );
    HeaderValue::from_str(&policy).unwrap_or_else(|_| HeaderValue::from_static("default-src 'none'"))
}

/// What is made for each request, unless its client has it.
fn told(content_type: &'static str, content: Bytes, headers: &HeaderMap) -> Response<Body> {
    let digest = ring::digest::digest(&ring::digest::SHA256, &content);
    let tag: String = digest.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let quoted = format!("\"{tag}\"");
    if is_known(&tag, headers) {
        return unchanged(&quoted);
    }
    let mut response = Response::new(Body::new(Full::new(content)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    insert(response.headers_mut(), ETAG, &quoted);
    response
}

/// Whether a client has what this tag tells.
fn is_known(tag: &str, headers: &HeaderMap) -> bool {
    let known = headers.get_all(IF_NONE_MATCH).iter().filter_map(|known| known.to_str().ok());
    known.flat_map(super::tag::tags).any(|known| known == tag || known == super::tag::ANY)
}

fn unchanged(tag: &str) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    insert(response.headers_mut(), ETAG, tag);
    response
}

/// Of what is made here, all of which can be a header.
fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// The folder that somebody named, or that was found, is not one.
fn unusable(folder: &Path, why: impl std::fmt::Display) -> Error {
    Error::config(format!(
        "--ui: {} {why}: name the folder `feast/ui/build` of an installed feast, or `auto`, which finds it",
        folder.display()
    ))
}
