//! Answers of routes: what is said, and how it is sent.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http_body_util::Full;
use serde::Serialize;
use tonic::body::Body;
use tonic::codegen::http::header::{
    CONTENT_ENCODING, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_NONE_MATCH, VARY,
};
use tonic::codegen::http::{Response, StatusCode};

use super::document::Document;
use super::error::JSON;
use super::tag::Tag;
use crate::parts::{self, Room};

/// Smaller answers are not compressed: they fit in a packet or two.
const COMPRESSED_ABOVE: usize = 4 * 1024;

/// What a route answers.
#[derive(Debug)]
pub(crate) struct Answer {
    status: StatusCode,
    content: Content,
    tag: Option<Tag>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

#[derive(Debug)]
enum Content {
    Empty,
    Document(Box<Document>),
    Text(Vec<u8>, HeaderValue),
}

impl Answer {
    fn new(content: Content) -> Self {
        Self { status: StatusCode::OK, content, tag: None, headers: Vec::new() }
    }

    pub(crate) fn empty() -> Self {
        Self::new(Content::Empty)
    }

    /// JSON, made while it is sent.
    pub(crate) fn document(document: Document) -> Self {
        Self::new(Content::Document(Box::new(document)))
    }

    /// JSON that is small.
    pub(crate) fn json(value: &impl Serialize) -> Self {
        // To memory it is written always.
        Self::new(Content::Text(serde_json::to_vec(value).unwrap_or_default(), JSON))
    }

    pub(crate) fn text(text: impl Into<Vec<u8>>, content_type: &'static str) -> Self {
        Self::new(Content::Text(text.into(), HeaderValue::from_static(content_type)))
    }

    pub(crate) fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    /// The same with what tells it from others, where that is known.
    pub(crate) fn with_tag(self, tag: Tag) -> Self {
        Self { tag: Some(tag), ..self }
    }

    /// How many objects are read to tell it from others.
    pub(crate) fn unidentified(&self) -> usize {
        match &self.content {
            Content::Document(document) if self.tag.is_none() => document.len(),
            _ => 0,
        }
    }

    /// The same with what tells it from others.
    pub(crate) fn identified(self) -> Self {
        match &self.content {
            Content::Document(document) if self.tag.is_none() => {
                let tag = Tag::of_document(document.identity());
                self.with_tag(tag)
            }
            Content::Text(text, _) if self.tag.is_none() => {
                let tag = Tag::of_text(text);
                self.with_tag(tag)
            }
            _ => self,
        }
    }

    pub(crate) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// About how many bytes are sent, and how many of memory nothing else has.
    pub(crate) fn size(&self) -> (usize, usize) {
        match &self.content {
            Content::Empty => (0, 0),
            Content::Document(document) => (document.size(), document.own_size()),
            Content::Text(text, _) => (text.len(), text.len()),
        }
    }

    /// The answer to a request with these headers. What is large takes its room until it is sent.
    pub(crate) fn into_response(self, headers: &HeaderMap, room: Option<Room>) -> Response<Body> {
        let (size, _) = self.size();
        let Self { status, content, tag, headers: own } = self;
        let compresses = size > COMPRESSED_ABOVE && takes_gzip(headers);
        let (content_type, body) = match content {
            Content::Empty => (None, None),
            Content::Text(text, content_type) => {
                let pieces: Box<dyn Iterator<Item = Bytes> + Send> = Box::new(std::iter::once(Bytes::from(text)));
                (Some(content_type), Some(pieces))
            }
            Content::Document(document) => {
                let pieces: Box<dyn Iterator<Item = Bytes> + Send> = Box::new(document.pieces());
                (Some(JSON), Some(pieces))
            }
        };
        let is_known = |tag: &Tag| headers.get_all(IF_NONE_MATCH).iter().any(|known| tag.is_in(known));
        let mut response = Response::new(Body::empty());
        *response.status_mut() = status;
        if status == StatusCode::OK && tag.as_ref().is_some_and(is_known) {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        } else if let Some(pieces) = body {
            let pieces = if compresses { Box::new(compressed(pieces)) } else { pieces };
            *response.body_mut() = match room {
                Some(room) => parts::body_of(pieces, room),
                None => {
                    let whole: Vec<u8> = pieces.flat_map(|piece| piece.to_vec()).collect();
                    Body::new(Full::from(whole))
                }
            };
            if compresses {
                response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static(parts::GZIP));
            }
            if let Some(content_type) = content_type {
                response.headers_mut().insert(CONTENT_TYPE, content_type);
            }
        }
        let to = response.headers_mut();
        if let Some(tag) = tag {
            to.insert(ETAG, tag.header(compresses));
        }
        to.append(VARY, HeaderValue::from_static("accept-encoding, authorization"));
        to.extend(own);
        response
    }
}

/// Whether who asks takes what is compressed.
pub(super) fn takes_gzip(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(tonic::codegen::http::header::ACCEPT_ENCODING);
    accepted.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).any(|encoding| {
        let mut parts = encoding.split(';').map(str::trim);
        let is_gzip = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(parts::GZIP) || name == "*");
        is_gzip && !parts.any(|weight| weight.replace(' ', "").trim_end_matches(['0', '.']) == "q=")
    })
}

/// The same pieces, compressed one by one.
fn compressed(pieces: impl Iterator<Item = Bytes> + Send) -> impl Iterator<Item = Bytes> + Send {
    let mut encoder = Some(GzEncoder::new(Vec::new(), Compression::fast()));
    let mut pieces = pieces;
    std::iter::from_fn(move || {
        loop {
            let writer = encoder.as_mut()?;
            match pieces.next() {
                // To memory it is written always.
                Some(piece) => drop(writer.write_all(&piece)),
                None => return encoder.take().and_then(|encoder| encoder.finish().ok()).map(Bytes::from),
            }
            if !writer.get_ref().is_empty() {
                return Some(Bytes::from(std::mem::take(writer.get_mut())));
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn what_is_compressed_in_pieces_unpacks_to_what_it_was() {
        let pieces: Vec<Bytes> = (0..50).map(|number| Bytes::from(format!("{number} ").repeat(10_000))).collect();
        let packed: Vec<u8> = compressed(pieces.clone().into_iter()).flat_map(|piece| piece.to_vec()).collect();
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut unpacked).expect("it is gzip");
        assert_eq!(unpacked, pieces.concat());
        assert!(packed.len() < unpacked.len() / 10);
    }

    #[test]
    fn who_takes_gzip_says_so() {
        for (accepted, takes) in [
            ("gzip", true),
            ("br, GZIP;q=0.5", true),
            ("*", true),
            ("gzip;q=0", false),
            ("gzip; q=0.0", false),
            ("deflate", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("accept-encoding", accepted.parse().expect("a value"));
            assert_eq!(takes_gzip(&headers), takes, "{accepted}");
        }
    }
}
