//! Objects as bytes: what the registry stores, hands out and takes in.

use std::borrow::Cow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;

use bytes::{Bytes, BytesMut};
use prost::Message;
use prost::bytes::{Buf, BufMut};
use prost::encoding::{DecodeContext, WireType};
use prost_types::Timestamp;

use crate::error::{Error, ErrorKind, Result};
use crate::kind::{FeastObject, Kind};
use crate::wire;

/// The tag of a project that is protected (Feast: `feast.constants.PROTECTED_PROJECT_TAG`).
pub const PROTECTED_PROJECT_TAG: &str = "feast.dev/protected-project";

/// A message of type `T` in its serialized form, decoded only when somebody asks.
///
/// It takes the place of `T` in other messages: encoding it writes its bytes, decoding it takes the bytes in, so that an
/// object passes through a server unread and unchanged, fields of a newer Feast included. Cloning is cheap (the bytes
/// are shared).
pub struct Encoded<T> {
    bytes: Bytes,
    message: PhantomData<fn() -> T>,
}

impl<T: Message + Default> Encoded<T> {
    /// Serializes a message.
    pub fn new(message: &T) -> Self {
        Self::from_bytes(message.encode_to_vec().into())
    }

    /// Decodes the message.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] when the bytes are not a message of this type.
    pub fn to_message(&self) -> Result<T> {
        T::decode(self.bytes.clone()).map_err(|error| {
            Error::new(ErrorKind::Corrupt, "the serialized object cannot be decoded").with_source(error)
        })
    }
}

impl<T> Encoded<T> {
    /// Takes bytes for a serialized message; nothing is checked.
    pub fn from_bytes(bytes: Bytes) -> Self {
        Self { bytes, message: PhantomData }
    }

    /// The serialized message.
    pub fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The serialized message.
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }
}

impl<T> Clone for Encoded<T> {
    fn clone(&self) -> Self {
        Self::from_bytes(self.bytes.clone())
    }
}

impl<T> Default for Encoded<T> {
    fn default() -> Self {
        Self::from_bytes(Bytes::new())
    }
}

/// Equal bytes; two encodings of one message may differ.
impl<T> PartialEq for Encoded<T> {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl<T> Eq for Encoded<T> {}

impl<T> Hash for Encoded<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.bytes.hash(state);
    }
}

impl<T> fmt::Debug for Encoded<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Encoded({} bytes)", self.bytes.len())
    }
}

impl<T> Message for Encoded<T> {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        buf.put_slice(&self.bytes);
    }

    /// Appends the field. Adding to bytes that nobody shares is amortized, so a message of many fields costs its length.
    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        _: DecodeContext,
    ) -> Result<(), prost::DecodeError> {
        let mut bytes =
            std::mem::take(&mut self.bytes).try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        if bytes.capacity() == 0 {
            bytes.reserve(buf.remaining() + 16);
        }
        wire::copy_field(tag, wire_type, buf, &mut bytes)?;
        self.bytes = bytes.freeze();
        Ok(())
    }

    fn encoded_len(&self) -> usize {
        self.bytes.len()
    }

    fn clear(&mut self) {
        self.bytes.clear();
    }
}

/// An object of the registry: its kind, and its serialized protobuf message.
///
/// What the registry itself has to know of it (name, project, tags, timestamps) is read straight from the bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Object {
    /// The kind of object.
    pub kind: Kind,
    /// The serialized message of that kind.
    pub bytes: Bytes,
}

impl Object {
    /// Takes bytes for an object of a kind; nothing is checked.
    pub fn new(kind: Kind, bytes: impl Into<Bytes>) -> Self {
        Self { kind, bytes: bytes.into() }
    }

    /// Serializes a message.
    pub fn encode<T: FeastObject>(message: &T) -> Self {
        Self::new(T::KIND, message.encode_to_vec())
    }

    /// Decodes the message.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] when the bytes are not a message of the kind; [`ErrorKind::Internal`] when `T` is not the
    /// message of this object's kind.
    pub fn decode<T: FeastObject>(&self) -> Result<T> {
        if T::KIND != self.kind {
            return Err(Error::internal(format!("a {} was to be decoded as a {}", self.kind, T::KIND)));
        }
        T::decode(self.bytes.clone()).map_err(|error| self.undecodable(error))
    }

    /// Checks that the bytes are a message of the kind.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] when they are not.
    pub(crate) fn check(&self) -> Result<()> {
        self.kind.check(&self.bytes).map_err(|error| self.undecodable(error))
    }

    /// That the object cannot be decoded: which one it is, as far as its bytes say, and why.
    fn undecodable(&self, source: impl std::error::Error + Send + Sync + 'static) -> Error {
        let mut object = format!("{}", self.kind);
        for (label, field) in [("", self.kind.layout().name), ("of project ", self.kind.layout().project)] {
            if let Some(text) = field.and_then(|field| self.legible_text(field)) {
                object += &format!(" {label}`{text}`");
            }
        }
        Error::new(ErrorKind::Corrupt, format!("the {object} cannot be decoded: {source}")).with_source(source)
    }

    /// A string field of the spec, from bytes that are damaged elsewhere.
    fn legible_text(&self, number: u32) -> Option<&str> {
        let within = |message, number: u32| {
            let fields = wire::fields(message).map_while(Result::ok);
            fields.filter(|field| field.number == number).last().map(|field| field.content)
        };
        let spec = self.kind.layout().spec.map_or(Some(&self.bytes[..]), |spec| within(&self.bytes, spec))?;
        std::str::from_utf8(within(spec, number)?).ok().filter(|text| !text.is_empty())
    }

    /// The object's name; empty when it has none.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`], as from every method that reads the bytes, when they are not an encoded message.
    pub fn name(&self) -> Result<String> {
        self.spec_text(self.kind.layout().name)
    }

    /// The project that the message says it is of; empty in what Feast's own SQL registry wrote.
    pub fn project(&self) -> Result<String> {
        self.spec_text(self.kind.layout().project)
    }

    /// Whether the object has every one of these tags (Feast: `utils.has_all_tags`).
    pub fn has_tags<'a>(&self, tags: impl IntoIterator<Item = (&'a String, &'a String)>) -> Result<bool> {
        let mut wanted: Vec<(&str, &str)> =
            tags.into_iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        if wanted.is_empty() {
            return Ok(true);
        }
        let Some(field) = self.kind.layout().tags else { return Ok(false) };
        wanted.sort_unstable();
        wanted.dedup();
        if wanted.windows(2).any(|two| two[0].0 == two[1].0) {
            return Ok(false);
        }
        let spec = self.spec().map_err(|error| self.undecodable(error))?;
        let mut is_there = vec![false; wanted.len()];
        // Of a key that is there twice, the later value counts.
        for (key, value) in wire::string_map(&spec, field).map_err(|error| self.undecodable(error))? {
            if let Ok(index) = wanted.binary_search_by_key(&key, |(key, _)| key) {
                is_there[index] = wanted[index].1 == value;
            }
        }
        Ok(is_there.into_iter().all(|is_there| is_there))
    }

    /// Whether it is a project that lists leave out and that is not to be deleted: one with the tag `feast.dev/protected-project: "true"`.
    pub fn is_protected(&self) -> Result<bool> {
        let (tag, value) = (PROTECTED_PROJECT_TAG.to_owned(), "true".to_owned());
        self.has_tags([(&tag, &value)])
    }

    /// When the object was made (UTC); `None` when the message does not say.
    pub fn created_timestamp(&self) -> Result<Option<Timestamp>> {
        self.timestamp(self.kind.layout().created_timestamp)
    }

    /// When the object was last changed (UTC); `None` when the message does not say.
    pub fn last_updated_timestamp(&self) -> Result<Option<Timestamp>> {
        self.timestamp(self.kind.layout().last_updated_timestamp)
    }

    /// The definition: the sub-message `spec`, or the message itself where there is none.
    pub(crate) fn spec(&self) -> Result<Cow<'_, [u8]>> {
        match self.kind.layout().spec {
            None => Ok(self.bytes.as_ref().into()),
            Some(spec) => Ok(wire::sub_message(&self.bytes, spec)?.unwrap_or_default()),
        }
    }

    /// What the registry keeps about the object; empty where there is nothing.
    pub(crate) fn meta(&self) -> Result<Cow<'_, [u8]>> {
        match self.kind.layout().meta {
            None => Ok(Default::default()),
            Some(meta) => Ok(wire::sub_message(&self.bytes, meta)?.unwrap_or_default()),
        }
    }

    /// The object with another meta; itself for a kind that has none.
    pub(crate) fn with_meta(&self, meta: &[u8]) -> Result<Self> {
        match self.kind.layout().meta {
            None => Ok(self.clone()),
            Some(field) => Ok(Self::new(self.kind, wire::set(&self.bytes, field, meta)?)),
        }
    }

    /// The object with a string field of its spec set.
    pub(crate) fn with_spec_text(&self, field: u32, text: &str) -> Result<Self> {
        let spec = wire::set(&self.spec()?, field, text.as_bytes())?;
        match self.kind.layout().spec {
            None => Ok(Self::new(self.kind, spec)),
            Some(number) => Ok(Self::new(self.kind, wire::set(&self.bytes, number, &spec)?)),
        }
    }

    fn spec_text(&self, field: Option<u32>) -> Result<String> {
        let Some(field) = field else { return Ok(String::new()) };
        let text = self.spec().and_then(|spec| Ok(wire::text(&spec, field)?.to_owned()));
        text.map_err(|error| self.undecodable(error))
    }

    fn timestamp(&self, field: u32) -> Result<Option<Timestamp>> {
        let encoded = self.meta().and_then(|meta| Ok(wire::sub_message(&meta, field)?.map(Cow::into_owned)));
        let encoded = encoded.map_err(|error| self.undecodable(error))?;
        let decoded = encoded.map(|encoded| Timestamp::decode(&*encoded)).transpose();
        decoded.map_err(|error| self.undecodable(error))
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name().unwrap_or_else(|_| "?".to_owned());
        write!(f, "{} `{name}` ({} bytes)", self.kind, self.bytes.len())
    }
}

impl<T: FeastObject> From<Encoded<T>> for Object {
    fn from(encoded: Encoded<T>) -> Self {
        Self { kind: T::KIND, bytes: encoded.bytes }
    }
}

impl<T: FeastObject> From<&T> for Object {
    fn from(message: &T) -> Self {
        Self::encode(message)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proto::core::{Entity, EntitySpecV2};

    fn entity() -> Entity {
        let tags = [("team".to_owned(), "a".to_owned()), ("tier".to_owned(), "1".to_owned())].into();
        Entity { spec: Some(EntitySpecV2 { name: "driver".into(), tags, ..Default::default() }), meta: None }
    }

    #[test]
    fn unknown_fields_pass_through_inside_another_message() {
        #[derive(Clone, PartialEq, Message)]
        struct Request {
            #[prost(message, optional, tag = "1")]
            entity: Option<Encoded<Entity>>,
        }
        let mut bytes = entity().encode_to_vec();
        wire::put(&mut bytes, 4000, b"from the future");
        bytes.extend([0x0b, 0x08, 0x01, 0x0c]); // an unknown group
        let mut request = Vec::new();
        wire::put(&mut request, 1, &bytes);
        let decoded = Request::decode(&*request).expect("a request");
        assert_eq!(decoded.entity.as_ref().expect("present").as_bytes(), &bytes);
        assert_eq!(decoded.encode_to_vec(), request);
    }

    #[test]
    fn a_message_of_very_many_fields_costs_its_length() {
        let many: Vec<u8> = std::iter::repeat_n([0x18, 0x01], 2_000_000).flatten().collect();
        let encoded = <Encoded<Entity> as Message>::decode(&*many).expect("well-formed");
        assert_eq!(encoded.as_bytes(), &many);
    }

    #[test]
    fn tags_must_all_be_there() {
        let object = Object::encode(&entity());
        let has = |tags: &[(&str, &str)]| {
            let tags: Vec<(String, String)> = tags.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            object.has_tags(tags.iter().map(|(k, v)| (k, v))).expect("well-formed")
        };
        assert!(has(&[]) && has(&[("team", "a")]) && has(&[("team", "a"), ("tier", "1")]));
        assert!(!has(&[("team", "b")]) && !has(&[("team", "a"), ("owner", "")]));
    }
    /// As this was before it had an index: every wanted tag against every tag of the object.
    fn has_tags_by_search(present: &[(String, String)], wanted: &[(String, String)]) -> bool {
        wanted.iter().all(|(key, value)| {
            present.iter().rev().find(|(present, _)| present == key).is_some_and(|(_, stored)| stored == value)
        })
    }

    /// An entity whose tags are encoded one after the other, also those of a key that was there before.
    fn tagged(tags: &[(String, String)]) -> Object {
        let mut spec = Vec::new();
        for (key, value) in tags {
            let mut entry = Vec::new();
            wire::put(&mut entry, 1, key.as_bytes());
            wire::put(&mut entry, 2, value.as_bytes());
            wire::put(&mut spec, 8, &entry);
        }
        let mut bytes = Vec::new();
        wire::put(&mut bytes, 1, &spec);
        Object::new(Kind::Entity, bytes)
    }

    proptest! {
        #[test]
        fn tags_are_found_as_by_a_search_from_the_back(
            present in prop::collection::vec(("[a-e]?", "[xy]?"), 0..8),
            wanted in prop::collection::vec(("[a-e]?", "[xy]?"), 0..4),
        ) {
            let found = tagged(&present).has_tags(wanted.iter().map(|(key, value)| (key, value))).expect("well-formed");
            prop_assert_eq!(found, has_tags_by_search(&present, &wanted));
        }
    }

    /// 40,000 tags against 40,000 are more than a billion comparisons.
    #[test]
    fn very_many_tags_cost_their_number() {
        let tags: Vec<_> = (0..40_000).map(|i| (format!("k{i}"), i.to_string())).collect();
        let object = tagged(&tags);
        assert!(object.has_tags(tags.iter().rev().map(|(key, value)| (key, value))).expect("well-formed"));
        let other = ("k7".to_owned(), "8".to_owned());
        assert!(!object.has_tags(tags.iter().skip(8).chain([&other]).map(|(key, value)| (key, value))).expect("tags"));
    }
}
