//! A request under way: what it gives, and the registry as its caller may see it.

use std::sync::Arc;

use bytes::Bytes;
use feast_registry_core::access::Access;
use feast_registry_core::{Freshness, Registry};
use serde::de::DeserializeOwned;
use tonic::codegen::http::header::{CONTENT_ENCODING, CONTENT_TYPE, IF_NONE_MATCH};
use tonic::codegen::http::{HeaderMap, StatusCode};

use super::Served;
use super::error::{RestError, Result};
use super::parameters::Given;
use super::route::Route;
use super::tag::Tag;
use crate::lists::{Lists, Wanted};

/// What some editors put before a text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// About how many bytes of JSON take as long as an object of a list.
const BYTES_OF_AN_OBJECT: usize = 128;

/// A request of a route, which may be done more than once if it is a read.
#[derive(Clone)]
pub(crate) struct Call {
    pub(super) registry: Registry,
    pub(super) served: Arc<Served>,
    pub(super) route: &'static Route,
    pub(super) given: Arc<Given>,
    pub(super) headers: Arc<HeaderMap>,
    /// On whose behalf, if callers are known.
    pub(super) access: Option<Access>,
    pub(super) body: Bytes,
}

impl Call {
    pub(super) fn lists(&self) -> Lists<'_> {
        Lists(&self.registry)
    }

    pub(super) fn freshness(&self) -> Freshness {
        Freshness::allow_cache(self.given.allow_cache())
    }

    /// What is wanted of the project that is named, without regard to tags.
    pub(super) fn wanted(&self) -> Wanted {
        Wanted::of(self.given.project(), self.given.allow_cache())
    }

    /// The same with the tags that are asked for.
    pub(super) fn wanted_with_tags(&self) -> Wanted {
        Wanted { tags: self.given.tags(), ..self.wanted() }
    }

    /// Does work on so many bytes, where it holds up nobody if they are many.
    ///
    /// # Errors
    /// Those of the work; 504 when the deadline is over first, and 429 when too much waits already.
    pub(super) async fn work<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.registry.compute(bytes / BYTES_OF_AN_OBJECT, move || Ok(work())).await?
    }

    /// What was sent, as JSON. Only what says that it is JSON is taken for it: a page of another site can have a browser send anything
    /// else without asking.
    ///
    /// # Errors
    /// 422 when it is not, or is not what the route takes.
    pub(super) async fn body<T: DeserializeOwned + Send + 'static>(&self) -> Result<T> {
        self.read(Ok).await
    }

    /// The same, and what is made of it.
    ///
    /// # Errors
    /// As [`body`](Self::body), and those of `make`.
    pub(super) async fn read<B: DeserializeOwned, T: Send + 'static>(
        &self,
        make: impl FnOnce(B) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let content_type = self.headers.get(CONTENT_TYPE).and_then(|of| of.to_str().ok()).unwrap_or_default();
        let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if media_type != "application/json" && !media_type.ends_with("+json") {
            return Err(RestError::invalid_request("the body must be JSON, with `Content-Type: application/json`"));
        }
        if let Some(encoding) = self.headers.get(CONTENT_ENCODING).filter(|encoding| *encoding != "identity") {
            let detail = format!("the body has the encoding {encoding:?}: send it as it is");
            return Err(RestError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
        }
        let body = self.body.clone();
        self.work(body.len(), move || make(parsed(&body)?)).await
    }

    /// Whether the client has what this is the tag of.
    pub(super) fn has(&self, tag: &Tag) -> bool {
        self.headers.get_all(IF_NONE_MATCH).iter().any(|known| tag.is_in(known))
    }
}

fn parsed<T: DeserializeOwned>(body: &[u8]) -> Result<T> {
    let invalid = |error: serde_json::Error| RestError::invalid_request(format!("the body: {error}"));
    let text = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
    // By way of a value, so that of two fields of a name the last counts, as for Feast's server.
    let value: serde_json::Value = serde_json::from_slice(text).map_err(invalid)?;
    if !value.is_object() {
        return Err(RestError::invalid_request("the body must be a JSON object"));
    }
    serde_json::from_value(value).map_err(invalid)
}
