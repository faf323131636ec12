//! The JSON is held against the one of `prost-reflect`, which decodes into trees, for arbitrary objects of all kinds.

use bytes::Bytes;
use feast_registry_core::proto::DESCRIPTORS;
use feast_registry_core::proto::core::{DataSource, FeatureView, FeatureViewMeta, FeatureViewSpec, data_source};
use feast_registry_core::{Kind, wire};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, encode_key, encode_varint, skip_field};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind as Type, MessageDescriptor};
use prost_types::{Duration, Timestamp};
use serde_json::json;

use super::plan::{Form, Value as Plan};
use super::*;

/// The object as `prost-reflect` decodes it; `None` where it does not.
fn decoded(object: &Object) -> Option<DynamicMessage> {
    DynamicMessage::decode(descriptor(object.kind), Bytes::clone(&object.bytes)).ok()
}

fn descriptor(kind: Kind) -> MessageDescriptor {
    DESCRIPTORS.get_message_by_name(&format!("feast.core.{}", kind.message_name())).expect("a message of Feast")
}

/// What is written, which is checked to be JSON without a name that is there twice.
fn written(object: &Object) -> Option<Value> {
    let mut text = b"[".to_vec();
    let result = write(object, &mut text);
    if result.is_err() {
        assert_eq!(text, b"[", "what cannot be written leaves nothing behind");
        return None;
    }
    let text = std::str::from_utf8(&text[1..]).expect("it is text");
    let value: Value = serde_json::from_str(text).expect("it is JSON");
    assert_eq!(value.to_string(), with_numbers_of_64_bits(text));
    Some(value)
}

/// JSON in which numbers with a point or an exponent are written as numbers of 64 bits are, which may have an exponent where the same
/// number of 32 bits has none.
fn with_numbers_of_64_bits(json: &str) -> String {
    let (mut out, mut rest) = (String::new(), json);
    while let Some(next) = rest.chars().next() {
        let length = match next {
            '"' => {
                let mut is_escaped = false;
                let ends = |of: char| {
                    let is_end = of == '"' && !is_escaped;
                    is_escaped = of == '\\' && !is_escaped;
                    is_end
                };
                2 + rest[1..].find(ends).expect("the end of a string")
            }
            '-' | '0'..='9' => rest.find(|of: char| !of.is_ascii_digit() && !"+-.e".contains(of)).unwrap_or(rest.len()),
            _ => next.len_utf8(),
        };
        let (token, after) = rest.split_at(length);
        match token.parse::<f64>() {
            Ok(number) if token.contains(['.', 'e']) => out.push_str(&json!(number).to_string()),
            _ => out.push_str(token),
        }
        rest = after;
    }
    out
}

/// Whether something else stands in place of a map's entry. prost takes what follows for the length of one then, whatever it is.
fn has_no_entry_in_a_map(of: &MessageDescriptor, mut message: &[u8]) -> bool {
    while !message.is_empty() {
        let Ok((number, wire_type)) = decode_key(&mut message) else { return false };
        let field = of.get_field(number);
        if field.as_ref().is_some_and(FieldDescriptor::is_map) && wire_type != WireType::LengthDelimited {
            return true;
        }
        let before = message;
        if skip_field(wire_type, number, &mut message, DecodeContext::default()).is_err() {
            return false;
        }
        if let (WireType::LengthDelimited, Some(Type::Message(inner))) = (wire_type, field.map(|field| field.kind())) {
            let mut content = &before[..before.len() - message.len()];
            decode_varint(&mut content).expect("it was skipped");
            if has_no_entry_in_a_map(&inner, content) {
                return true;
            }
        }
    }
    false
}

/// Python's protobuf says a zero with a sign, which is 0 to `prost-reflect` and so not there.
fn without_signed_zeros(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.as_f64().is_some_and(|number| number == 0.0 && number.is_sign_negative()));
            fields.values_mut().for_each(without_signed_zeros);
        }
        Value::Array(values) => values.iter_mut().for_each(without_signed_zeros),
        _ => {}
    }
}

fn assert_is_as_expected(object: &Object) {
    let mut written = written(object);
    written.iter_mut().for_each(without_signed_zeros);
    let decoded = decoded(object).filter(|_| !has_no_entry_in_a_map(&descriptor(object.kind), &object.bytes));
    assert_eq!(written.is_some(), decoded.is_some(), "{:?}", object.bytes);
    // As text, in which a number of 32 bits has no more digits than it needs. A moment or a duration may be beyond what it says.
    let expected = decoded.and_then(|message| serde_json::to_string(&message).ok());
    if let Some(expected) = expected {
        let expected: Value = serde_json::from_str(&expected).expect("it is JSON");
        assert_eq!(written, Some(expected), "{:?}", object.bytes);
    }
}

/// Choices that are made by arbitrary bytes, and then always the first.
struct Choices(std::vec::IntoIter<u8>);

impl Choices {
    fn next(&mut self) -> usize {
        self.0.next().unwrap_or(0).into()
    }

    fn number(&mut self) -> u64 {
        const NUMBERS: [u64; 14] = [
            0,
            1,
            2,
            300,
            500_000_000,
            1_700_000_000,
            1 << 32,
            i32::MAX as u64,
            i32::MIN as u64,
            u64::MAX,
            (-1_500i64) as u64,
            i64::MAX as u64,
            i64::MIN as u64,
            (i64::MIN + 1) as u64,
        ];
        match self.next() {
            choice if choice < 200 => NUMBERS[choice % NUMBERS.len()],
            choice => (choice as u64) << (self.next() % 57),
        }
    }

    /// A message with fields in any order, in pieces, several of a oneof, and some that no Feast has yet.
    fn message(&mut self, of: &MessageDescriptor, depth: usize) -> Vec<u8> {
        let fields: Vec<FieldDescriptor> = of.fields().collect();
        let mut message = Vec::new();
        for _ in 0..self.next() % 12 {
            match self.next() {
                0..=240 if !fields.is_empty() => {
                    let field = &fields[self.next() % fields.len()];
                    self.field(field, depth, &mut message);
                }
                241 => wire::put(&mut message, 1000, b"new"),
                242 => message.extend([0x8b, 0x7d, 0x08, 0x01, 0x8c, 0x7d]),
                // A value of a type that the field does not have, for most.
                243 => wire::put_varint(&mut message, 1 + self.next() as u32 % 20, self.number()),
                _ => {}
            }
        }
        message
    }

    fn field(&mut self, field: &FieldDescriptor, depth: usize, message: &mut Vec<u8>) {
        const TEXTS: [&[u8]; 9] = [
            b"",
            b"a",
            b"b",
            "dr\u{ed}ver".as_bytes(),
            "運転手".as_bytes(),
            b"\0\"\\/\x1f\x7f",
            b"long ".as_slice(),
            b"\t\n",
            b"\xff",
        ];
        let number = field.number();
        match field.kind() {
            Type::String | Type::Bytes => {
                // Text that is none is seldom: it makes the whole object one that cannot be decoded.
                let text = TEXTS[match self.next() {
                    0 => TEXTS.len() - 1,
                    other => other % (TEXTS.len() - 1),
                }];
                wire::put(message, number, text);
            }
            Type::Message(of) => {
                let inner = if depth == 0 { Vec::new() } else { self.message(&of, depth - 1) };
                wire::put(message, number, &inner);
            }
            Type::Float => {
                const NUMBERS: [f32; 8] = [0.0, 0.1, 1.0, 3.4e38, 1e-7, f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
                encode_key(number, WireType::ThirtyTwoBit, message);
                message.extend(NUMBERS[self.next() % NUMBERS.len()].to_le_bytes());
            }
            _ if field.is_list() && self.next().is_multiple_of(2) => {
                let mut packed = Vec::new();
                (0..self.next() % 4).for_each(|_| encode_varint(self.number(), &mut packed));
                wire::put(message, number, &packed);
            }
            _ => {
                encode_key(number, WireType::Varint, message);
                encode_varint(self.number(), message);
            }
        }
    }
}

fn objects() -> impl Strategy<Value = Object> {
    let choices = vec(any::<u8>(), 0..600);
    (prop::sample::select(Kind::ALL), choices).prop_map(|(kind, choices)| {
        let mut choices = Choices(choices.into_iter());
        Object::new(kind, choices.message(&descriptor(kind), 6))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_objects_are_written_as_by_prost_reflect(object in objects()) {
        assert_is_as_expected(&object);
    }

    #[test]
    fn damaged_objects_are_refused_where_prost_reflect_refuses_them(
        object in objects(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = object.bytes.to_vec();
        for (index, byte) in damage.iter().filter(|_| !object.bytes.is_empty()) {
            bytes[index.index(object.bytes.len())] = *byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len() + 1));
        }
        assert_is_as_expected(&Object::new(object.kind, bytes));
    }

    #[test]
    fn bytes_that_are_no_message_are_refused(kind in prop::sample::select(Kind::ALL), bytes in vec(any::<u8>(), 0..60)) {
        assert_is_as_expected(&Object::new(kind, bytes));
    }

    #[test]
    fn one_field_is_told_as_in_the_whole(object in objects(), index in any::<prop::sample::Index>()) {
        let Ok(whole) = value(&object) else { return Ok(()) };
        let fields: Vec<FieldDescriptor> = descriptor(object.kind).fields().collect();
        let name = fields[index.index(fields.len())].json_name().to_owned();
        prop_assert_eq!(field(&object, &name).expect("it is well-formed"), whole.get(&name).cloned());
    }
}

/// That two refuse the same says little: enough is to be written by both.
#[test]
fn most_arbitrary_objects_have_json() {
    let mut runner = TestRunner::deterministic();
    let sizes: Vec<usize> = (0..400)
        .map(|_| {
            let object = objects().new_tree(&mut runner).expect("an object").current();
            written(&object).map_or(0, |json| json.to_string().len())
        })
        .collect();
    assert!(sizes.iter().filter(|size| **size > 100).count() > 150, "{sizes:?}");
}

#[test]
fn all_fields_can_be_said() {
    let plans = Plans::get();
    for message in &plans.messages {
        assert_ne!(message.form, Form::Unknown);
        assert!(message.form != Form::Wrapper || message.fields.len() == 1);
        for field in &message.fields {
            assert!(!matches!(field.value, Plan::Unknown), "no form of `{}` is known", field.name);
        }
    }
    assert!(Kind::ALL.iter().all(|kind| plans.of(*kind).is_some()));
}

/// Held against Python's `MessageToDict`.
#[test]
fn a_view_is_written_as_python_writes_it() {
    let moment = |seconds, nanos| Some(Timestamp { seconds, nanos });
    let kafka = data_source::KafkaOptions {
        watermark_delay_threshold: Some(Duration { seconds: -1, nanos: -500_000_000 }),
        ..Default::default()
    };
    let source = DataSource {
        name: "ri\"des".into(),
        r#type: 99,
        options: Some(data_source::Options::KafkaOptions(kafka)),
        ..Default::default()
    };
    let spec = FeatureViewSpec { name: "stats".into(), online: true, batch_source: Some(source), ..Default::default() };
    let meta = FeatureViewMeta {
        created_timestamp: moment(0, 0),
        last_updated_timestamp: moment(1_700_000_000, 120_000_000),
        ..Default::default()
    };
    let view = Object::encode(&FeatureView { spec: Some(spec), meta: Some(meta) });
    let source = json!({
        "type": 99, "kafkaOptions": { "watermarkDelayThreshold": "-1.500s" }, "name": "ri\"des",
    });
    let expected = json!({
        "spec": { "name": "stats", "batchSource": source, "online": true },
        "meta": { "createdTimestamp": "1970-01-01T00:00:00Z", "lastUpdatedTimestamp": "2023-11-14T22:13:20.120Z" },
    });
    assert_eq!(written(&view), Some(expected.clone()));
    assert_eq!(value(&view).ok(), expected.as_object().cloned());
    // Encoded by hand: what encodes a struct leaves out a zero, with and without a sign.
    let rate = |sample_rate: f32| {
        let [mut logging_config, mut spec, mut bytes] = [const { Vec::new() }; 3];
        encode_key(1, WireType::ThirtyTwoBit, &mut logging_config);
        logging_config.extend(sample_rate.to_le_bytes());
        wire::put(&mut spec, 7, &logging_config);
        wire::put(&mut bytes, 1, &spec);
        let service = Object::new(Kind::FeatureService, bytes);
        let mut text = Vec::new();
        write(&service, &mut text).expect("JSON");
        let text = String::from_utf8(text).expect("text");
        assert_eq!(json!(value(&service).expect("JSON")).to_string(), text);
        text
    };
    // A number that a parser is tempted to get wrong in its last place.
    assert_eq!(rate(2.45e-43), r#"{"spec":{"loggingConfig":{"sampleRate":2.45e-43}}}"#);
    assert_eq!(rate(0.1), r#"{"spec":{"loggingConfig":{"sampleRate":0.1}}}"#);
    assert_eq!(rate(-0.0), r#"{"spec":{"loggingConfig":{"sampleRate":-0.0}}}"#);
    assert_eq!(rate(0.0), r#"{"spec":{"loggingConfig":{}}}"#);
}

/// Fault: a view that was to live for 30,000 years was counted in the list of views, and not in it.
#[test]
fn a_moment_that_json_has_no_room_for_is_told_all_the_same() {
    let with_meta = |seconds| {
        let created_timestamp = Some(Timestamp { seconds, nanos: 0 });
        Object::encode(&FeatureView {
            spec: None,
            meta: Some(FeatureViewMeta { created_timestamp, ..Default::default() }),
        })
    };
    for (seconds, told) in [
        (-62_135_596_800, "0001-01-01T00:00:00Z"),
        (-62_135_596_801, "0000-12-31T23:59:59Z"),
        (253_402_300_799, "9999-12-31T23:59:59Z"),
        (253_402_300_800, "+10000-01-01T00:00:00Z"),
    ] {
        let view = with_meta(seconds);
        assert_eq!(written(&view).expect("JSON")["meta"]["createdTimestamp"], told);
        assert_is_as_expected(&view);
    }
    // Fault: the list with such a view in it was broken off.
    for seconds in [i64::MIN, i64::MIN + 1, i64::MAX] {
        for nanos in [0, 1, -1, i32::MIN, i32::MAX] {
            let created_timestamp = Some(Timestamp { seconds, nanos });
            let meta = Some(FeatureViewMeta { created_timestamp, ..Default::default() });
            let spec = Some(FeatureViewSpec { ttl: Some(Duration { seconds, nanos }), ..Default::default() });
            assert!(written(&Object::encode(&FeatureView { spec, meta })).is_some(), "{seconds} {nanos}");
        }
    }
    let ttl = Some(Duration { seconds: 1_000_000_000_000, nanos: 0 });
    let view = Object::encode(&FeatureView { spec: Some(FeatureViewSpec { ttl, ..Default::default() }), meta: None });
    assert_eq!(written(&view), Some(json!({ "spec": { "ttl": "1000000000000s" } })));
}

/// A source of a source of a source …
#[test]
fn messages_are_written_as_deep_as_they_are_decoded() {
    let deep = |levels: usize| {
        let batch_source = DESCRIPTORS.get_message_by_name("feast.core.DataSource").expect("a message");
        let number = batch_source.get_field_by_name("batch_source").expect("a field").number();
        let mut bytes = Vec::new();
        for _ in 0..levels {
            let inner = std::mem::take(&mut bytes);
            wire::put(&mut bytes, number, &inner);
        }
        Object::new(Kind::DataSource, bytes)
    };
    for (levels, is_written) in [(100, true), (101, false), (20_000, false)] {
        assert_eq!(written(&deep(levels)).is_some(), is_written, "{levels}");
        assert_eq!(decoded(&deep(levels)).is_some(), is_written, "{levels}");
    }
}

/// Each key once is 40,000 of them; compared with each other they would be more than a billion.
#[test]
fn very_many_fields_cost_their_number() {
    let mut spec = Vec::new();
    for number in (0..80_000).rev() {
        let mut entry = Vec::new();
        wire::put(&mut entry, 1, format!("k{}", number % 40_000).as_bytes());
        wire::put(&mut entry, 2, number.to_string().as_bytes());
        // Tags of an entity, and pieces of what stands before and behind them.
        wire::put(&mut spec, 8, &entry);
        wire::put(&mut spec, 1, b"name");
    }
    let mut bytes = Vec::new();
    wire::put(&mut bytes, 1, &spec);
    let written = written(&Object::new(Kind::Entity, bytes)).expect("JSON");
    let tags = written["spec"]["tags"].as_object().expect("tags");
    assert_eq!((tags.len(), &tags["k7"]), (40_000, &json!("7")));
}

/// `damaged_objects_are_refused_where_prost_reflect_refuses_them` once took such objects for ones that must have JSON.
#[test]
fn a_map_with_anything_else_for_an_entry_is_refused() {
    let types =
        [WireType::Varint, WireType::SixtyFourBit, WireType::StartGroup, WireType::EndGroup, WireType::ThirtyTwoBit];
    for wire_type in types {
        // Field 7 is `tags`. prost reads what follows as an entry of two bytes, with a key that is empty.
        let [mut spec, mut bytes] = [const { Vec::new() }; 2];
        encode_key(7, wire_type, &mut spec);
        encode_varint(2, &mut spec);
        wire::put(&mut spec, 1, b"");
        wire::put(&mut bytes, 1, &spec);
        let dataset = Object::new(Kind::SavedDataset, bytes);
        assert!(decoded(&dataset).is_some(), "{wire_type:?}");
        assert_eq!(written(&dataset), None, "{wire_type:?}");
        assert_is_as_expected(&dataset);
    }
}
