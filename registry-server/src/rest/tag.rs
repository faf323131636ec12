//! Entity tags (RFC 9110): what tells one state of something from another.

use feast_registry_core::Object;
use tonic::codegen::http::header::HeaderValue;

use super::document::Identifier;

/// The tag of an answer. That of one object begins with what tells the object itself, as it is stored, which is what conditions of
/// writes are about; the rest is about what is told besides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tag {
    object: Option<String>,
    rest: String,
}

impl Tag {
    /// Of something made of what an [`Identifier`] was given.
    pub(crate) fn of_document(identity: String) -> Self {
        Self { object: None, rest: identity }
    }

    /// Of a text.
    pub(crate) fn of_text(text: &[u8]) -> Self {
        let mut identifier = Identifier::new();
        identifier.add(text);
        Self::of_document(identifier.finish())
    }

    /// Of an answer with one object, and what is told besides.
    pub(crate) fn of_object(object: &Object, besides: Identifier) -> Self {
        Self { object: Some(object_tag(object)), rest: besides.finish() }
    }

    fn text(&self) -> String {
        match &self.object {
            Some(object) => format!("{object}.{}", self.rest),
            None => self.rest.clone(),
        }
    }

    /// As a header. Of what is compressed it is weak: it says what is told, not which bytes are sent.
    pub(crate) fn header(&self, is_compressed: bool) -> HeaderValue {
        let weak = if is_compressed { "W/" } else { "" };
        let text = format!("{weak}\"{}\"", self.text());
        HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("\"\""))
    }

    /// Whether it is among those of a header `If-None-Match`.
    pub(crate) fn is_in(&self, header: &HeaderValue) -> bool {
        let own = self.text();
        header.to_str().is_ok_and(|header| header.trim() == ANY || tags(header).any(|tag| tag == own))
    }
}

/// What stands for whatever there is.
pub(crate) const ANY: &str = "*";

/// What tells one state of an object, as it is stored, from another.
pub(crate) fn object_tag(object: &Object) -> String {
    let mut identifier = Identifier::new();
    identifier.add(&object.bytes);
    identifier.finish()
}

/// The tags of a header, without quotes, weak or not: they say what is stored, not how it is sent.
pub(crate) fn tags(header: &str) -> impl Iterator<Item = &str> {
    header.split(',').map(|tag| {
        let tag = tag.trim();
        tag.strip_prefix("W/").unwrap_or(tag).trim_matches('"')
    })
}

/// The part of a tag that tells the object.
pub(crate) fn object_part(tag: &str) -> &str {
    tag.split('.').next().unwrap_or_default()
}
