//! The OpenAPI document of the REST API, made from its one table of routes; and the pages that are made from the document.

mod answers;
mod bodies;
mod forms;
mod messages;
mod page;

use std::sync::OnceLock;

use serde_json::{Map, Value, json};
use tonic::codegen::http::header::{ACCEPT, HeaderMap, HeaderName, HeaderValue, VARY};

use self::forms::reference;
use self::messages::Schemas;
use super::answer::Answer;
use super::call::Call;
use super::error::Result;
use super::parameters::{Holds, Parameter, Place};
use super::route::{PREFIX, Route, Verb};
use super::table;
use super::tag::Tag;

/// What an answer without content is said to have.
const NOTHING: &str = "Nothing";
/// What is a page for people.
const PAGE: &str = "Page";
/// What tells of each change of a batch.
const BATCH_APPLIED: &str = "BatchApplied";
/// What is either, as the client prefers.
const WELCOME: &str = "Welcome";

/// The document.
fn document() -> &'static Value {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    DOCUMENT.get_or_init(|| {
        let mut tags: Vec<&str> = Vec::new();
        let mut paths = Map::new();
        for route in documented() {
            if !tags.contains(&route.tag) {
                tags.push(route.tag);
            }
            let path = paths.entry(route.path).or_insert_with(|| json!({}));
            path[route.method.name().to_ascii_lowercase()] = operation(route);
        }
        json!({
            "openapi": "3.1.0",
            "info": {
                "title": "Feast registry",
                "version": env!("CARGO_PKG_VERSION"),
                "description": "The REST API of a registry of Feast, the feature store: that of Feast's own registry server, and \
                    beside it entity tags, conditions, whole objects, dry runs and batches.",
                "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
            },
            "servers": [{ "url": PREFIX }],
            // Whether tokens are asked for is the server's configuration.
            "security": [{ "BearerAuth": [] }, {}],
            "tags": tags.iter().map(|tag| json!({ "name": tag })).collect::<Vec<_>>(),
            "paths": paths,
            "components": {
                "securitySchemes": {
                    "BearerAuth": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT" },
                },
                "headers": headers(),
                "responses": errors(),
                "schemas": schemas(),
            },
        })
    })
}

/// The routes that the document has. A path with any number of parts cannot be told; what has one answers that it is not served.
fn documented() -> impl Iterator<Item = &'static Route> {
    table::routes().filter(|route| !route.path.contains("{*"))
}

fn schemas() -> Schemas {
    let mut schemas = Schemas::new();
    answers::add(&mut schemas);
    bodies::add(&mut schemas);
    schemas
}

fn headers() -> Value {
    let text = |about: &str| json!({ "description": about, "schema": { "type": "string" } });
    json!({
        "ETag": text("The tag of this state, for `If-None-Match`; of one object, for `If-Match` too."),
        "X-Registry-Revision": text("The revision that the registry's journal has the change under. It is missing if nothing was written."),
        "Retry-After": text("After how many seconds to try again."),
        "WWW-Authenticate": text("How to authenticate."),
    })
}

/// What may go wrong: a status, its name among the components, and what it says.
const ERRORS: [(u16, &str, &str); 15] = [
    (400, "BadRequest", "A value is not allowed."),
    (401, "Unauthorized", "The token is missing, or is not valid."),
    (
        403,
        "Forbidden",
        "The caller, or the site whose page a browser shows, may not do this; or the registry is read-only.",
    ),
    (404, "NotFound", "It does not exist."),
    (409, "Conflict", "It contradicts what is stored."),
    (412, "PreconditionFailed", "The condition of the request does not hold."),
    (413, "TooLarge", "The request is too large."),
    (415, "UnsupportedEncoding", "The body is compressed, and only plain bodies are accepted."),
    (421, "Misdirected", "The request is for another host (its `Host` header) than this server."),
    (422, "Invalid", "The request is malformed, or its values contradict each other."),
    (429, "TooManyRequests", "The server, or what it keeps for this caller, has no room. Nothing was done."),
    (500, "InternalError", "The server failed."),
    (501, "NotImplemented", "This server does not do that."),
    (503, "Unavailable", "The storage cannot be reached, or is not set up."),
    (504, "Timeout", "The request was not done in time."),
];

fn errors() -> Value {
    let error = |(status, name, about): (u16, &str, &str)| {
        let mut response = json!({
            "description": about,
            "content": { "application/json": { "schema": reference("Error") } },
            // A component has none of its own.
            "x-status": status,
        });
        let header = match status {
            401 => Some("WWW-Authenticate"),
            429 | 503 => Some("Retry-After"),
            _ => None,
        };
        if let Some(header) = header {
            response["headers"] = json!({ header: { "$ref": format!("#/components/headers/{header}") } });
        }
        (name.to_owned(), response)
    };
    Value::Object(ERRORS.into_iter().map(error).collect())
}

fn operation(route: &Route) -> Value {
    let mut operation = json!({
        "tags": [route.tag],
        "summary": route.summary,
        "operationId": operation_id(route),
        "parameters": route.parameters.iter().copied().flatten().map(parameter).chain(headers_of(route)).collect::<Vec<_>>(),
        "responses": responses(route),
    });
    if let Some(body) = route.body {
        operation["requestBody"] =
            json!({ "required": true, "content": { "application/json": { "schema": reference(body) } } });
    }
    if route.is_open {
        operation["security"] = json!([]);
    }
    operation
}

/// `GET /entities/{name}` is `get_entities_name`.
fn operation_id(route: &Route) -> String {
    let words = route.path.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let words: Vec<&str> = words.collect();
    let words = if words.is_empty() { "root".to_owned() } else { words.join("_") };
    format!("{}_{words}", route.method.name().to_ascii_lowercase())
}

fn parameter(of: &Parameter) -> Value {
    let mut schema = match of.holds {
        Holds::Text => json!({ "type": "string" }),
        Holds::Texts => json!({ "type": "array", "items": { "type": "string" } }),
        Holds::Flag => json!({ "type": "boolean" }),
        Holds::Number { least, most: i32::MAX } => json!({ "type": "integer", "minimum": least, "format": "int32" }),
        Holds::Number { least, most } => json!({ "type": "integer", "minimum": least, "maximum": most }),
        Holds::AnyNumber => json!({ "type": "integer", "format": "int32" }),
        Holds::OneOf(values) => json!({ "type": "string", "enum": values }),
    };
    let place = match of.place {
        Place::Path => "path",
        Place::Query => "query",
    };
    if of.place == Place::Path {
        schema["minLength"] = json!(1);
    }
    if let Some(default) = of.default {
        // Flags and numbers are JSON, texts are not.
        let is_text = matches!(of.holds, Holds::Text | Holds::OneOf(_));
        let value = if is_text { None } else { serde_json::from_str(default).ok() };
        schema["default"] = value.unwrap_or_else(|| json!(default));
    }
    json!({ "name": of.name, "in": place, "required": of.is_required, "description": of.about, "schema": schema })
}

/// The headers of a request: on which condition it is to be done, and why.
fn headers_of(route: &Route) -> Vec<Value> {
    let header = |name: &str, about: &str, schema: Value| json!({ "name": name, "in": "header", "description": about, "schema": schema });
    if has_tag(route) {
        let about = "Tags of answers that the client has: an answer with one of these is not sent again.";
        return vec![header("If-None-Match", about, json!({ "type": "string" }))];
    }
    let mut headers = Vec::new();
    if is_conditional(route) {
        let about = "Change the object only if its tag is one of these (`*`: only if it exists).";
        headers.push(header("If-Match", about, json!({ "type": "string" })));
    }
    if is_conditional(route) && route.method != Verb::Delete {
        let about = "`*`: only make it, if it does not exist.";
        headers.push(header("If-None-Match", about, json!({ "enum": ["*"] })));
    }
    if is_change(route) {
        let about = "Why, for the registry's journal: at most 1,024 characters.";
        headers.push(header("X-Registry-Reason", about, json!({ "type": "string" })));
    }
    headers
}

/// Whether it ever succeeds: some routes are there to say that this server does not do that.
fn succeeds(route: &Route) -> bool {
    route.answers.0 < 400
}

/// Whether what is answered has a tag.
fn has_tag(route: &Route) -> bool {
    route.is_read() && succeeds(route)
}

/// Whether it writes into the registry.
fn is_change(route: &Route) -> bool {
    is_conditional(route) || route.answers.1 == BATCH_APPLIED
}

/// Whether what is changed may be changed on a condition.
fn is_conditional(route: &Route) -> bool {
    !route.is_read() && route.answers.1 == "Applied"
}

fn responses(route: &Route) -> Value {
    let (status, schema) = route.answers;
    let mut success = json!({ "description": "Success." });
    match schema {
        NOTHING => {}
        PAGE => success["content"] = json!({ "text/html": { "schema": { "type": "string" } } }),
        WELCOME => {
            success["content"] = json!({
                "text/html": { "schema": { "type": "string" } },
                "application/json": { "schema": reference(schema) },
            });
        }
        _ => success["content"] = json!({ "application/json": { "schema": reference(schema) } }),
    }
    let header = if has_tag(route) { Some("ETag") } else { is_change(route).then_some("X-Registry-Revision") };
    if let Some(header) = header {
        success["headers"] = json!({ header: { "$ref": format!("#/components/headers/{header}") } });
    }
    let mut responses = Map::new();
    if status == 201 {
        // A dry run has made nothing.
        let told = json!({ "application/json": { "schema": reference(schema) } });
        let dry = json!({ "description": "The outcome of a dry run.", "content": told });
        responses.insert("200".to_owned(), dry);
    }
    if succeeds(route) {
        responses.insert(status.to_string(), success);
    }
    if has_tag(route) {
        let etag = json!({ "ETag": { "$ref": "#/components/headers/ETag" } });
        responses.insert("304".to_owned(), json!({ "description": "The client has it already.", "headers": etag }));
    }
    for (status, name, _) in ERRORS {
        let may_be = match status {
            409 | 413 | 415 => !route.is_read(),
            412 => is_change(route),
            421 | 429 | 503 => true,
            501 => route.answers.0 == status,
            _ => !route.is_open,
        };
        if may_be {
            let name = json!({ "$ref": format!("#/components/responses/{name}") });
            responses.insert(status.to_string(), name);
        }
    }
    Value::Object(responses)
}

/// What is the same for as long as the server runs.
struct Fixed {
    text: String,
    tag: Tag,
}

impl Fixed {
    fn new(text: String) -> Self {
        let tag = Tag::of_text(text.as_bytes());
        Self { text, tag }
    }

    fn answer(&self, content_type: &'static str) -> Answer {
        Answer::text(self.text.as_str(), content_type).with_tag(self.tag.clone())
    }
}

/// What browsers may do with a page of ours: show it, with its own style.
const POLICY: HeaderName = HeaderName::from_static("content-security-policy");
const HTML: &str = "text/html; charset=utf-8";

fn html(page: &Fixed) -> Answer {
    let answer = page.answer(HTML);
    match HeaderValue::from_str(page::policy()) {
        Ok(policy) => answer.with_header(POLICY, policy),
        Err(_) => answer,
    }
}

impl Call {
    /// `GET /openapi.json`.
    pub(crate) async fn openapi(self) -> Result<Answer> {
        static TEXT: OnceLock<Fixed> = OnceLock::new();
        Ok(TEXT.get_or_init(|| Fixed::new(document().to_string())).answer("application/json"))
    }

    /// `GET /docs`.
    pub(crate) async fn docs(self) -> Result<Answer> {
        static TEXT: OnceLock<Fixed> = OnceLock::new();
        Ok(html(TEXT.get_or_init(|| Fixed::new(page::docs(document())))))
    }

    /// `GET /`.
    pub(crate) async fn welcome(self) -> Result<Answer> {
        static TEXT: OnceLock<Fixed> = OnceLock::new();
        let answer = if prefers_json(&self.headers) {
            let version = env!("CARGO_PKG_VERSION");
            Answer::json(
                &json!({ "name": "feast-registry", "version": version, "docs": "/docs", "openapi": "/openapi.json" }),
            )
        } else {
            html(TEXT.get_or_init(|| Fixed::new(page::welcome())))
        };
        Ok(answer.with_header(VARY, HeaderValue::from_static("accept")))
    }
}

/// Whether a client would have JSON rather than a page (RFC 9110).
fn prefers_json(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect::<Vec<_>>().join(",");
    weight(&accepted, "application/json") > weight(&accepted, "text/html")
}

/// How much a client would like something of a media type, in thousandths, and how exactly it says so: what is said of the type itself
/// counts, rather than what is said of all like it.
fn weight(accepted: &str, media_type: &str) -> (u16, u8) {
    let class = media_type.split('/').next().unwrap_or_default();
    let ranges = accepted.split(',').filter_map(|range| {
        let mut parts = range.split(';').map(str::trim);
        let range = parts.next()?.to_ascii_lowercase();
        let exactness = match range.as_str() {
            "*/*" => 0,
            range if range.strip_suffix("/*") == Some(class) => 1,
            range if range == media_type => 2,
            _ => return None,
        };
        let weight = parts.find_map(|part| part.to_ascii_lowercase().strip_prefix("q=")?.parse::<f32>().ok());
        Some((exactness, (weight.unwrap_or(1.0).clamp(0.0, 1.0) * 1000.0) as u16))
    });
    ranges.max().map_or((0, 0), |(exactness, weight)| (weight, exactness))
}

#[cfg(test)]
mod tests;
