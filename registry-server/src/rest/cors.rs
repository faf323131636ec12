//! Which pages of other sites may use the API from a browser: those of the origins that are named (CORS), and no others.
//!
//! A browser sends what pages of any site have it send, and keeps but the answers from them. So a change that a page of another site
//! asks for is refused; and where nobody is asked who they are, since the server can only be reached from its own machine, so is
//! what a name is asked for that is not this machine's: a site can have its name lead here (DNS rebinding). With TLS it cannot.

use std::net::IpAddr;

use tonic::body::Body;
use tonic::codegen::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, HOST, HeaderMap, HeaderName,
    HeaderValue, ORIGIN, VARY,
};
use tonic::codegen::http::request::Parts;
use tonic::codegen::http::uri::Authority;
use tonic::codegen::http::{Method, Response, StatusCode};

use super::error::{RestError, Result};

/// What a browser says of whom a request is of.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, DELETE");
const HEADERS: HeaderValue =
    HeaderValue::from_static("authorization, content-type, if-match, if-none-match, x-registry-reason, x-request-id");
const EXPOSED: HeaderValue =
    HeaderValue::from_static("etag, x-registry-revision, x-request-id, allow, retry-after, www-authenticate");
/// How long a browser need not ask again, in seconds.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

/// The origins whose pages may.
#[derive(Debug)]
pub(crate) struct Cors {
    origins: Vec<HeaderValue>,
    are_all: bool,
    /// Whether the server is for callers of its own machine alone, and asks nobody who they are.
    is_of_this_machine: bool,
}

impl Cors {
    pub(crate) fn new(origins: &[String], is_of_this_machine: bool) -> Self {
        let are_all = origins.iter().any(|origin| origin == "*");
        let origins = origins.iter().map(|origin| origin.trim_end_matches('/'));
        let origins = origins.filter_map(|origin| HeaderValue::from_str(origin).ok()).collect();
        Self { origins, are_all, is_of_this_machine }
    }

    /// Whether a request may be made.
    ///
    /// # Errors
    /// 421 when it is for a name that is not this machine's, 403 when it is a change that a page of another site asks for.
    pub(crate) fn check(&self, request: &Parts) -> Result<()> {
        let headers = &request.headers;
        let of_header = || headers.get(HOST).and_then(|host| host.to_str().ok());
        let authority = request.uri.authority().map(Authority::as_str).or_else(of_header).unwrap_or_default();
        if self.is_of_this_machine && !is_this_machine(authority) && !self.names(authority) {
            return Err(RestError::new(
                StatusCode::MISDIRECTED_REQUEST,
                format!(
                    "this server is for its own machine, and asks nobody who they are, so it answers only to `localhost` and to IP \
                     addresses, not to `{authority}`: have a proxy send one of these as `Host`, name its origin (--cors-origin), or let callers \
                     say who they are"
                ),
            ));
        }
        let is_read = matches!(request.method, Method::GET | Method::HEAD | Method::OPTIONS);
        let Some(origin) = headers.get(ORIGIN).filter(|_| !is_read) else { return Ok(()) };
        // What a browser says of itself holds behind a proxy too, that may pass another name.
        let is_own = match headers.get(SEC_FETCH_SITE).map(HeaderValue::as_bytes) {
            Some(site) => site == b"same-origin" || site == b"none",
            None => origin.to_str().is_ok_and(|origin| is_at(origin, authority)),
        };
        if is_own || self.allowed(origin).is_some() {
            return Ok(());
        }
        let detail = format!("pages of {origin:?} may not change anything here: --cors-origin names those that may");
        Err(RestError::new(StatusCode::FORBIDDEN, detail))
    }

    /// Whether this is the host of an origin that is named.
    fn names(&self, authority: &str) -> bool {
        self.origins.iter().any(|origin| origin.to_str().is_ok_and(|origin| is_at(origin, authority)))
    }

    fn allowed(&self, origin: &HeaderValue) -> Option<HeaderValue> {
        // No cookies are taken, so a page that may not say who it is gets no more than anybody.
        if self.are_all {
            return Some(HeaderValue::from_static("*"));
        }
        self.origins.contains(origin).then(|| origin.clone())
    }

    /// The answer to a browser that asks whether a page may make a request.
    pub(crate) fn preflight(&self, method: &Method, headers: &HeaderMap) -> Option<Response<Body>> {
        if !is_preflight(method, headers) {
            return None;
        }
        self.allowed(headers.get(ORIGIN)?)?;
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let to = response.headers_mut();
        to.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        to.insert(ACCESS_CONTROL_ALLOW_HEADERS, HEADERS);
        to.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
        Some(response)
    }

    /// Lets a page of this origin read an answer, if it may.
    pub(crate) fn allow(&self, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
        if self.origins.is_empty() && !self.are_all {
            return;
        }
        headers.append(VARY, HeaderValue::from_static("origin"));
        if let Some(allowed) = origin.and_then(|origin| self.allowed(origin)) {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        }
    }
}

/// Whether an origin is at a host, whose port may be left out where it is the scheme's own.
fn is_at(origin: &str, authority: &str) -> bool {
    let Some((scheme, own)) = origin.split_once("://") else { return false };
    let usual = if scheme == "https" { "443" } else { "80" };
    let [own, asked] = [own, authority].map(|of| {
        let (host, port) = host_and_port(of);
        (host, port.unwrap_or(usual).to_owned())
    });
    own == asked
}

/// A host as names are compared, and its port if one is given.
fn host_and_port(authority: &str) -> (String, Option<&str>) {
    let port = authority.rsplit_once(':').filter(|(_, port)| port.bytes().all(|digit| digit.is_ascii_digit()));
    let host = port.map_or(authority, |(host, _)| host);
    (host.trim_end_matches('.').to_ascii_lowercase(), port.map(|(_, port)| port))
}

/// Whether a name, with a port or without, is this machine's by itself. A request without a name is of no browser.
fn is_this_machine(authority: &str) -> bool {
    let (host, _) = host_and_port(authority);
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host.is_empty() || host == "localhost" || host.ends_with(".localhost") || address.parse::<IpAddr>().is_ok()
}

/// Whether a browser asks on behalf of a page whether it may ask. It says nothing of who asks.
fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::OPTIONS && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

#[cfg(test)]
mod tests {
    use tonic::codegen::http::Request;

    use super::*;

    fn asked(cors: &Cors, origin: &'static str) -> (Option<u16>, Option<HeaderValue>) {
        let origin = HeaderValue::from_static(origin);
        let headers = HeaderMap::from_iter([
            (ORIGIN, origin.clone()),
            (ACCESS_CONTROL_REQUEST_METHOD, HeaderValue::from_static("PUT")),
        ]);
        let preflight = cors.preflight(&Method::OPTIONS, &headers).map(|response| response.status().as_u16());
        let mut answer = HeaderMap::new();
        cors.allow(Some(&origin), &mut answer);
        (preflight, answer.get(ACCESS_CONTROL_ALLOW_ORIGIN).cloned())
    }

    #[test]
    fn pages_of_other_sites_may_if_their_site_is_named() {
        let none = Cors::new(&[], false);
        assert_eq!(asked(&none, "https://a.example"), (None, None));
        let one = Cors::new(&["https://a.example/".to_owned()], false);
        assert_eq!(asked(&one, "https://a.example"), (Some(204), Some(HeaderValue::from_static("https://a.example"))));
        assert_eq!(asked(&one, "https://b.example"), (None, None));
        let all = Cors::new(&["*".to_owned()], false);
        assert_eq!(asked(&all, "https://b.example"), (Some(204), Some(HeaderValue::from_static("*"))));
    }

    fn status(cors: &Cors, method: &str, host: &str, headers: &[(&str, &str)]) -> u16 {
        let mut request = Request::builder().method(method).uri("/entities/driver");
        for (name, value) in [("host", host)].iter().chain(headers) {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).expect("a request").into_parts();
        cors.check(&parts).err().map_or(200, |refused| refused.into_response().status().as_u16())
    }

    #[test]
    fn a_page_of_another_site_changes_nothing() {
        let (none, one) = (Cors::new(&[], false), Cors::new(&["https://a.example".to_owned()], false));
        let of = |origin| [("origin", origin)];
        assert_eq!(status(&none, "PUT", "here:6572", &[]), 200, "it is no browser's");
        assert_eq!(status(&none, "PUT", "here:6572", &of("http://here:6572")), 200);
        assert_eq!(status(&none, "PUT", "here:6572", &of("http://here:80")), 403);
        assert_eq!(status(&none, "PUT", "here:443", &of("https://here")), 200, "which is the port of the scheme");
        assert_eq!(status(&none, "PUT", "HERE.:6572", &of("http://here:6572")), 200);
        assert_eq!(status(&none, "POST", "here:6572", &of("null")), 403);
        assert_eq!(status(&none, "GET", "here:6572", &of("https://a.example")), 200);
        assert_eq!(status(&none, "DELETE", "here:6572", &of("https://a.example")), 403);
        assert_eq!(status(&one, "DELETE", "here:6572", &of("https://a.example")), 200);
        let proxied = |site| [("origin", "https://catalog.example"), ("sec-fetch-site", site)];
        assert_eq!(status(&none, "PUT", "127.0.0.1:6572", &proxied("same-origin")), 200);
        assert_eq!(status(&none, "PUT", "127.0.0.1:6572", &proxied("cross-site")), 403);
    }

    #[test]
    fn what_is_for_this_machine_alone_does_not_answer_to_names_of_others() {
        let (here, anywhere) = (Cors::new(&[], true), Cors::new(&[], false));
        for host in ["localhost", "LOCALHOST:6572", "ui.localhost:80", "127.0.0.1:6572", "[::1]:6572", "[::1]", ""] {
            assert_eq!(status(&here, "GET", host, &[]), 200, "{host}");
        }
        let named = Cors::new(&["http://host.docker.internal:6572".to_owned()], true);
        assert_eq!(status(&named, "GET", "host.docker.internal:6572", &[]), 200);
        assert_eq!(status(&named, "GET", "evil.example:6572", &[]), 421);
        for host in ["evil.example", "evil.example:6572", "localhost.evil.example", "127.0.0.1.evil.example:80"] {
            assert_eq!(status(&here, "GET", host, &[]), 421, "{host}");
            assert_eq!(status(&anywhere, "GET", host, &[]), 200, "{host}");
        }
    }
}
