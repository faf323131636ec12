//! Which pages of other sites may use the API from a browser (CORS).

use tonic::body::Body;
use tonic::codegen::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderValue,
    ORIGIN, VARY,
};
use tonic::codegen::http::{Method, Response, StatusCode};

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
}

impl Cors {
    pub(crate) fn new(origins: &[String]) -> Self {
        let are_all = origins.iter().any(|origin| origin == "*");
        let origins = origins.iter().map(|origin| origin.trim_end_matches('/'));
        Self { origins: origins.filter_map(|origin| HeaderValue::from_str(origin).ok()).collect(), are_all }
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

/// Whether a browser asks on behalf of a page whether it may ask. It says nothing of who asks.
fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::OPTIONS && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

#[cfg(test)]
mod tests {
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
        let none = Cors::new(&[]);
        assert_eq!(asked(&none, "https://a.example"), (None, None));
        let one = Cors::new(&["https://a.example/".to_owned()]);
        assert_eq!(asked(&one, "https://a.example"), (Some(204), Some(HeaderValue::from_static("https://a.example"))));
        assert_eq!(asked(&one, "https://b.example"), (None, None));
        let all = Cors::new(&["*".to_owned()]);
        assert_eq!(asked(&all, "https://b.example"), (Some(204), Some(HeaderValue::from_static("*"))));
    }
}
