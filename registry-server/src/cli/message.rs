//! Objects by the names of their fields, whatever their kind: as protobuf's JSON, and in words.

use std::borrow::Cow;

use anyhow::{Context, Result};
use feast_registry::proto::DESCRIPTORS;
use feast_registry::{Kind, Object};
use prost_reflect::{
    DynamicMessage, FieldDescriptor, Kind as FieldKind, MapKey, MessageDescriptor, ReflectMessage, Value,
};
use prost_types::{Duration, Timestamp};
use serde_json::Value as Json;

use super::text;

/// The message of an object.
pub(super) struct Fields {
    kind: Kind,
    message: DynamicMessage,
}

impl Fields {
    /// Decodes an object.
    pub(super) fn of(object: &Object) -> Result<Self> {
        let message = decode(object.kind.message_name(), &object.bytes)?;
        Ok(Self { kind: object.kind, message })
    }

    /// The whole message.
    pub(super) fn message(&self) -> &DynamicMessage {
        &self.message
    }

    /// The definition: the sub-message `spec`, or the message itself where there is none.
    pub(super) fn spec(&self) -> Cow<'_, DynamicMessage> {
        match self.kind.layout().spec {
            Some(number) => sub_message(&self.message, number),
            None => Cow::Borrowed(&self.message),
        }
    }

    /// What the registry keeps about the object.
    pub(super) fn meta(&self) -> Option<Cow<'_, DynamicMessage>> {
        self.kind.layout().meta.map(|number| sub_message(&self.message, number))
    }

    /// The number of the field that is the meta, where it stands beside the fields of the definition.
    pub(super) fn meta_in_spec(&self) -> Option<u32> {
        self.kind.layout().meta.filter(|_| self.kind.layout().spec.is_none())
    }
}

fn sub_message(message: &DynamicMessage, number: u32) -> Cow<'_, DynamicMessage> {
    match message.get_field_by_number(number) {
        Some(Cow::Borrowed(Value::Message(sub))) => Cow::Borrowed(sub),
        Some(Cow::Owned(Value::Message(sub))) => Cow::Owned(sub),
        _ => Cow::Borrowed(message),
    }
}

/// Decodes a message of package `feast.core`.
pub(super) fn decode(name: &str, bytes: &[u8]) -> Result<DynamicMessage> {
    let name = format!("feast.core.{name}");
    let descriptor = DESCRIPTORS.get_message_by_name(&name).with_context(|| format!("there is no message {name}"))?;
    DynamicMessage::decode(descriptor, bytes).with_context(|| format!("what is stored is not a {name}"))
}

/// A field's value; nothing when the message has no such field, or when it is not set.
pub(super) fn field(message: &DynamicMessage, name: &str) -> Option<Value> {
    let field = message.descriptor().get_field_by_name(name)?;
    message.has_field(&field).then(|| message.get_field(&field).into_owned())
}

/// The messages of a repeated field.
pub(super) fn messages(message: &DynamicMessage, name: &str) -> Vec<DynamicMessage> {
    let Some(Value::List(items)) = field(message, name) else { return Vec::new() };
    items.into_iter().filter_map(|item| if let Value::Message(message) = item { Some(message) } else { None }).collect()
}

/// A field in words; empty when it is not set.
pub(super) fn words(message: &DynamicMessage, name: &str) -> String {
    match message.descriptor().get_field_by_name(name) {
        Some(field) if message.has_field(&field) => field_in_words(message, &field),
        _ => String::new(),
    }
}

/// A field in words, also one that is not set.
pub(super) fn field_in_words(message: &DynamicMessage, field: &FieldDescriptor) -> String {
    let words = value_in_words(&message.get_field(field), &field.kind());
    // To Feast, no time to live is no end of it.
    if field.name() == "ttl" && words == "0s" { "unlimited".to_owned() } else { words }
}

fn value_in_words(value: &Value, kind: &FieldKind) -> String {
    match value {
        Value::Bool(value) => if *value { "yes" } else { "no" }.to_owned(),
        Value::I32(value) => value.to_string(),
        Value::I64(value) => value.to_string(),
        Value::U32(value) => value.to_string(),
        Value::U64(value) => value.to_string(),
        Value::F32(value) => value.to_string(),
        Value::F64(value) => value.to_string(),
        Value::String(value) => text::clean(value),
        Value::Bytes(bytes) => bytes_in_words(bytes),
        Value::EnumNumber(number) => match kind {
            FieldKind::Enum(known) => {
                known.get_value(*number).map_or(number.to_string(), |value| value.name().to_owned())
            }
            _ => number.to_string(),
        },
        Value::Message(message) => message_in_words(message),
        Value::List(items) => items.iter().map(|item| value_in_words(item, kind)).collect::<Vec<_>>().join(", "),
        Value::Map(entries) => {
            let FieldKind::Message(entry) = kind else { return String::new() };
            let kind = entry.map_entry_value_field().kind();
            let mut words: Vec<String> = entries.iter().map(|(key, value)| entry_in_words(key, value, &kind)).collect();
            words.sort();
            words.join(", ")
        }
    }
}

/// Of a map of messages, the keys say enough.
fn entry_in_words(key: &MapKey, value: &Value, kind: &FieldKind) -> String {
    let key = match key {
        MapKey::String(key) => text::clean(key),
        MapKey::Bool(key) => key.to_string(),
        MapKey::I32(key) => key.to_string(),
        MapKey::I64(key) => key.to_string(),
        MapKey::U32(key) => key.to_string(),
        MapKey::U64(key) => key.to_string(),
    };
    match value {
        Value::Message(_) => key,
        value => format!("{key}={}", value_in_words(value, kind)),
    }
}

/// Bytes are often text, as the configuration of a custom source.
fn bytes_in_words(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.len() <= 1000 && !text.chars().any(|c| c.is_control() && !c.is_whitespace()) => {
            text::clean(text)
        }
        _ => format!("{} bytes", bytes.len()),
    }
}

/// A message that has a name is shown by it.
fn message_in_words(message: &DynamicMessage) -> String {
    match message.descriptor().full_name() {
        "google.protobuf.Timestamp" => {
            return message.transcode_to::<Timestamp>().map(|moment| text::moment(&moment)).unwrap_or_default();
        }
        "google.protobuf.Duration" => {
            return message.transcode_to::<Duration>().map(|duration| text::duration(&duration)).unwrap_or_default();
        }
        "feast.core.FeatureViewProjection" => {
            let alias = words(message, "feature_view_name_alias");
            let alias = if alias.is_empty() { alias } else { format!(" as {alias}") };
            return words(message, "feature_view_name") + &alias;
        }
        "feast.core.DataSource" => return format!("{} ({})", words(message, "name"), words(message, "type")),
        _ => {}
    }
    for name in ["name", "infra_object_class_type"] {
        let name = words(message, name);
        if !name.is_empty() {
            return name;
        }
    }
    let fields = message.fields().map(|(field, value)| (field.name().to_owned(), value_in_words(value, &field.kind())));
    match fields.collect::<Vec<_>>().as_slice() {
        [(name, value)] if name == "value" => value.clone(),
        fields => fields.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" "),
    }
}

/// Whether a message is shown in words as a whole, and not field by field.
pub(super) fn is_simple(message: &DynamicMessage) -> bool {
    let descriptor = message.descriptor();
    descriptor.full_name() == "feast.core.DataSource" || descriptor.package_name() == "google.protobuf"
}

/// A message in protobuf's canonical JSON, as Feast's own `describe` shows it. Maps, which have no order, are sorted.
pub(super) fn to_json(message: &DynamicMessage) -> Result<Json> {
    // By way of text, since it keeps 32 bit floats as short as they are.
    let text = serde_json::to_vec(message).context("this has no JSON form; `-o proto` shows it as it is stored")?;
    let mut json = serde_json::from_slice(&text)?;
    sort_maps(&message.descriptor(), &mut json);
    Ok(json)
}

fn sort_maps(descriptor: &MessageDescriptor, json: &mut Json) {
    for field in descriptor.fields() {
        let FieldKind::Message(inner) = field.kind() else { continue };
        let Some(value) = json.get_mut(field.json_name()) else { continue };
        match value {
            Json::Object(entries) if field.is_map() => {
                entries.sort_keys();
                if let FieldKind::Message(inner) = inner.map_entry_value_field().kind() {
                    entries.values_mut().for_each(|entry| sort_maps(&inner, entry));
                }
            }
            Json::Array(items) => items.iter_mut().for_each(|item| sort_maps(&inner, item)),
            value => sort_maps(&inner, value),
        }
    }
}

/// How many fields a message has that this build does not know, in it and below.
pub(super) fn unknown_fields(message: &DynamicMessage) -> usize {
    let below: usize = message.fields().map(|(_, value)| unknown_below(value)).sum();
    message.unknown_fields().count() + below
}

fn unknown_below(value: &Value) -> usize {
    match value {
        Value::Message(message) => unknown_fields(message),
        Value::List(items) => items.iter().map(unknown_below).sum(),
        Value::Map(entries) => entries.values().map(unknown_below).sum(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use feast_registry::proto::core::{
        DataSource, Entity, EntityMeta, EntitySpecV2, FeatureService, FeatureServiceSpec, LoggingConfig,
    };

    use super::*;

    #[test]
    fn json_is_canonical_with_sorted_maps_and_short_floats() {
        let tags = (0..20).map(|i| (format!("t{i:02}"), "x".to_owned())).collect();
        let logging_config = Some(LoggingConfig { sample_rate: 0.1, ..Default::default() });
        let spec = FeatureServiceSpec { name: "model".into(), tags, logging_config, ..Default::default() };
        let service = Object::encode(&FeatureService { spec: Some(spec), meta: None });
        let json = to_json(Fields::of(&service).expect("a service").message()).expect("JSON");
        let keys: Vec<_> = json["spec"]["tags"].as_object().expect("tags").keys().collect();
        assert!(keys.is_sorted() && keys.len() == 20, "{keys:?}");
        assert_eq!(json["spec"]["loggingConfig"]["sampleRate"].to_string(), "0.1");
    }

    #[test]
    fn unknown_fields_are_counted_wherever_they_are() {
        let mut spec = prost::Message::encode_to_vec(&EntitySpecV2 { name: "driver".into(), ..Default::default() });
        spec.extend([0x82, 0x7d, 0x01, b'x']); // field 2000
        let mut entity = vec![0x0a, spec.len() as u8];
        entity.extend(&spec);
        entity.extend([0x80, 0x7d, 0x01]); // field 2000
        let fields = Fields::of(&Object::new(Kind::Entity, entity)).expect("an entity");
        assert_eq!(unknown_fields(fields.message()), 2);
        let plain = Object::encode(&Entity::default());
        assert_eq!(unknown_fields(Fields::of(&plain).expect("an entity").message()), 0);
    }

    #[test]
    fn what_has_no_json_form_says_so_and_is_still_put_in_words() {
        let moment = Timestamp { seconds: i64::MIN, nanos: -1 };
        let meta = EntityMeta { created_timestamp: Some(moment), last_updated_timestamp: None };
        let fields = Fields::of(&Object::encode(&Entity { spec: None, meta: Some(meta) })).expect("an entity");
        let error = to_json(fields.message()).expect_err("no such moment");
        assert!(error.to_string().contains("`-o proto`"), "{error}");
        let meta = fields.meta().expect("a meta");
        assert!(words(&meta, "created_timestamp").starts_with("-9223372036854775808 s"));
    }

    #[test]
    fn a_source_is_its_own_spec() {
        let source = DataSource { name: "table".into(), r#type: 1, ..Default::default() };
        let fields = Fields::of(&Object::encode(&source)).expect("a source");
        assert_eq!(words(&fields.spec(), "name"), "table");
        assert_eq!(words(&fields.spec(), "nonsense"), "");
        assert_eq!(message_in_words(fields.message()), "table (BATCH_FILE)");
    }
}
