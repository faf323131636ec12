//! Answers in JSON, of which the long parts are made while they are sent.
//!
//! A list of 10,000 views is 20 MB of JSON. The views themselves are shared with the cache, so the answer holds references to
//! them, and each piece of it is made when its client has read the one before. What an answer is told apart by (its `ETag`) is
//! made of what it is made of, so a client who has it already costs no JSON.

use std::fmt;

use bytes::Bytes;
use ring::digest;
use serde::Serialize;

/// About how many bytes a piece has, unless one item has more.
const PIECE: usize = 64 * 1024;

/// What stands in an array of an answer.
pub(crate) trait Item: Send + 'static {
    /// Writes it as JSON. What cannot be written leaves nothing behind.
    fn write(&self, out: &mut Vec<u8>);

    /// Says what it is made of: where that is the same, so is what it writes.
    fn identify(&self, to: &mut Identifier);

    /// About how many bytes it has in memory that nothing else has.
    fn own_size(&self) -> usize;

    /// About how many bytes it writes.
    fn size(&self) -> usize;
}

/// What something is made of, in a few bytes: an `ETag` in the making.
pub(crate) struct Identifier(digest::Context);

impl Identifier {
    pub(crate) fn new() -> Self {
        Self(digest::Context::new(&digest::SHA256))
    }

    /// Adds something, so that no two ways to divide the same bytes are one.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    /// 128 bits of it, in hexadecimal.
    pub(crate) fn finish(self) -> String {
        let digest = self.0.finish();
        digest.as_ref()[..16].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

type Pieces = Box<dyn Iterator<Item = Vec<u8>> + Send>;

/// A JSON object in the making.
pub(crate) struct Document {
    /// What has been written since the last long part.
    text: Vec<u8>,
    parts: Vec<Part>,
    /// Whether the object that is being written has a field already, one for each that is open.
    has_fields: Vec<bool>,
    /// How many items its long parts have.
    items: usize,
    own_size: usize,
    size: usize,
}

enum Part {
    Text(Vec<u8>),
    Items(Box<dyn Items>),
}

/// The items of a long part.
trait Items: Send {
    fn identify(&self, to: &mut Identifier);

    /// Them as JSON, with commas between them, some at a time.
    fn pieces(self: Box<Self>) -> Pieces;
}

impl<T: Item> Items for Vec<T> {
    fn identify(&self, to: &mut Identifier) {
        to.add(&(self.len() as u64).to_le_bytes());
        self.iter().for_each(|item| item.identify(to));
    }

    fn pieces(self: Box<Self>) -> Pieces {
        Box::new(pieces(*self))
    }
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Document").field("size", &self.size).finish_non_exhaustive()
    }
}

impl Document {
    /// An object without fields.
    pub(crate) fn new() -> Self {
        Self { text: b"{".to_vec(), parts: Vec::new(), has_fields: vec![false], items: 0, own_size: 0, size: 0 }
    }

    /// Adds a field with a value that is small.
    pub(crate) fn field(&mut self, name: &str, value: &impl Serialize) {
        self.name(name);
        let start = self.text.len();
        // To memory it is written always; what cannot be JSON is none of what is given here.
        if serde_json::to_writer(&mut self.text, value).is_err() {
            self.text.truncate(start);
            self.text.extend_from_slice(b"null");
        }
    }

    /// Adds the fields of a JSON object, which is text.
    pub(crate) fn fields_of(&mut self, object: &[u8]) {
        let inner = object.strip_prefix(b"{").and_then(|inner| inner.strip_suffix(b"}")).unwrap_or_default();
        if !inner.is_empty() {
            self.comma();
            self.text.extend_from_slice(inner);
        }
    }

    /// Adds a field with an array, which is made while it is sent.
    pub(crate) fn array<T: Item>(&mut self, name: &str, items: Vec<T>) {
        self.name(name);
        self.items(b'[', items, b']');
    }

    /// Adds a field with an object, whose fields are these items: each writes a name and a value.
    pub(crate) fn map<T: Item>(&mut self, name: &str, items: Vec<T>) {
        self.name(name);
        self.items(b'{', items, b'}');
    }

    /// Adds a field with an object, which `fill` fills.
    pub(crate) fn object(&mut self, name: &str, fill: impl FnOnce(&mut Self)) {
        self.name(name);
        self.text.push(b'{');
        self.has_fields.push(false);
        fill(self);
        self.has_fields.pop();
        self.text.push(b'}');
    }

    /// Adds a field with an array of objects, each of which `fill` fills.
    pub(crate) fn objects<T>(&mut self, name: &str, all: Vec<T>, fill: impl Fn(T, &mut Self)) {
        self.name(name);
        self.text.push(b'[');
        for (index, of) in all.into_iter().enumerate() {
            if index > 0 {
                self.text.push(b',');
            }
            self.text.push(b'{');
            self.has_fields.push(false);
            fill(of, self);
            self.has_fields.pop();
            self.text.push(b'}');
        }
        self.text.push(b']');
    }

    fn items<T: Item>(&mut self, opening: u8, items: Vec<T>, closing: u8) {
        self.text.push(opening);
        self.items += items.len();
        for item in &items {
            self.own_size += item.own_size() + size_of::<T>();
            self.size += item.size();
        }
        let text = std::mem::take(&mut self.text);
        self.size += text.len();
        self.own_size += text.len();
        self.parts.push(Part::Text(text));
        self.parts.push(Part::Items(Box::new(items)));
        self.text.push(closing);
    }

    fn name(&mut self, name: &str) {
        self.comma();
        // A name is a string, which JSON always has.
        drop(serde_json::to_writer(&mut self.text, name));
        self.text.push(b':');
    }

    fn comma(&mut self) {
        if let Some(has_fields) = self.has_fields.last_mut() {
            if *has_fields {
                self.text.push(b',');
            }
            *has_fields = true;
        }
    }

    /// About how many bytes it has in memory that nothing else has.
    pub(crate) fn own_size(&self) -> usize {
        self.own_size + self.text.len()
    }

    /// About how many bytes it has when it is written.
    pub(crate) fn size(&self) -> usize {
        self.size + self.text.len()
    }

    /// How many items it has whose JSON is not made yet.
    pub(crate) fn len(&self) -> usize {
        self.items
    }

    /// What tells it from others, as this version writes them. It reads all that the document is made of.
    pub(crate) fn identity(&self) -> String {
        let mut identifier = Identifier::new();
        identifier.add(env!("CARGO_PKG_VERSION").as_bytes());
        for part in &self.parts {
            match part {
                Part::Text(text) => identifier.add(text),
                Part::Items(items) => items.identify(&mut identifier),
            }
        }
        identifier.add(&self.text);
        identifier.finish()
    }

    /// It as JSON, in pieces.
    pub(crate) fn pieces(mut self) -> impl Iterator<Item = Bytes> + Send + 'static {
        self.text.push(b'}');
        self.parts.push(Part::Text(self.text));
        let pieces = self.parts.into_iter().flat_map(|part| -> Pieces {
            match part {
                Part::Text(text) => Box::new(std::iter::once(text)),
                Part::Items(items) => items.pieces(),
            }
        });
        joined(pieces).map(Bytes::from)
    }
}

/// Items with commas between them, some at a time.
fn pieces<T: Item>(items: Vec<T>) -> impl Iterator<Item = Vec<u8>> + Send {
    let (mut items, mut is_first) = (items.into_iter(), true);
    std::iter::from_fn(move || {
        let mut piece = Vec::new();
        while piece.len() < PIECE
            && let Some(item) = items.next()
        {
            let before = piece.len();
            if !is_first {
                piece.push(b',');
            }
            let start = piece.len();
            item.write(&mut piece);
            if piece.len() == start {
                piece.truncate(before);
            } else {
                is_first = false;
            }
        }
        (!piece.is_empty()).then_some(piece)
    })
}

/// Small pieces put together.
fn joined(pieces: impl Iterator<Item = Vec<u8>> + Send) -> impl Iterator<Item = Vec<u8>> + Send {
    let mut pieces = pieces;
    std::iter::from_fn(move || {
        let mut joined = pieces.next()?;
        while joined.len() < PIECE
            && let Some(more) = pieces.next()
        {
            joined.extend_from_slice(&more);
        }
        Some(joined)
    })
}

/// A value that is written as it is.
impl Item for serde_json::Value {
    fn write(&self, out: &mut Vec<u8>) {
        // To memory it is written always.
        drop(serde_json::to_writer(out, self));
    }

    fn identify(&self, to: &mut Identifier) {
        to.add(&serde_json::to_vec(self).unwrap_or_default());
    }

    fn own_size(&self) -> usize {
        self.size()
    }

    fn size(&self) -> usize {
        256
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn text(document: Document) -> (String, String) {
        let tag = document.identity();
        let text: Vec<u8> = document.pieces().flat_map(|piece| piece.to_vec()).collect();
        (tag, String::from_utf8(text).expect("text"))
    }

    /// What writes nothing.
    struct Nothing;

    impl Item for Nothing {
        fn write(&self, _: &mut Vec<u8>) {}
        fn identify(&self, _: &mut Identifier) {}
        fn own_size(&self) -> usize {
            0
        }
        fn size(&self) -> usize {
            0
        }
    }

    #[test]
    fn what_is_made_in_pieces_is_json() {
        let many: Vec<Value> = (0..30_000).map(|number| json!({ "number": number })).collect();
        let mut document = Document::new();
        document.field("project", &"ri\"des");
        document.array("none", Vec::<Value>::new());
        document.array("nothing", vec![Nothing, Nothing]);
        document.object("objects", |objects| {
            objects.array("many", many.clone());
            objects.field("one", &1);
        });
        document.fields_of(b"{}");
        document.fields_of(br#"{"a":1,"b":2}"#);
        let (_, text) = text(document);
        let parsed: Value = serde_json::from_str(&text).expect("JSON");
        let expected = json!({
            "project": "ri\"des", "none": [], "nothing": [], "objects": { "many": many, "one": 1 }, "a": 1, "b": 2
        });
        assert_eq!(parsed, expected);
    }

    #[test]
    fn the_tag_tells_documents_apart_by_what_they_are_made_of() {
        let of = |names: &[&str], page: i32| {
            let mut document = Document::new();
            document.array("entities", names.iter().map(|name| json!(name)).collect());
            document.field("page", &page);
            text(document).0
        };
        assert_eq!(of(&["a", "b"], 1), of(&["a", "b"], 1));
        let others = [of(&["ab"], 1), of(&["b", "a"], 1), of(&["a", "b"], 2), of(&[], 1)];
        assert!(!others.contains(&of(&["a", "b"], 1)));
    }
}
