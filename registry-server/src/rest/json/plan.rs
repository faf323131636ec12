//! What is to be known of a message to write it as JSON: its fields by number, with their names as JSON has them.
//!
//! It is read from the descriptors once, for all messages that an object can hold, so that nothing is looked up by name after.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

use feast_registry_core::Kind;
use feast_registry_core::proto::DESCRIPTORS;
use prost_reflect::{EnumDescriptor, FieldDescriptor, Kind as Type, MessageDescriptor};

/// The plans of all messages that objects hold.
pub(super) struct Plans {
    objects: HashMap<Kind, usize>,
    pub(super) messages: Vec<Message>,
}

/// A type of message.
pub(super) struct Message {
    pub(super) form: Form,
    /// In the order of their numbers.
    pub(super) fields: Vec<Field>,
    /// Which of the fields has a number.
    by_number: Vec<Option<u16>>,
    /// How many oneofs it has.
    pub(super) oneofs: usize,
}

impl Message {
    /// Which of the fields has this number.
    pub(super) fn field(&self, number: u32) -> Option<usize> {
        self.by_number.get(usize::try_from(number).ok()?).copied().flatten().map(usize::from)
    }
}

/// How a message stands in JSON.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Form {
    Object,
    /// A moment, as text.
    Timestamp,
    /// So many seconds, as text.
    Duration,
    /// As the value of its only field.
    Wrapper,
    /// As protobuf says it, which is not known here.
    Unknown,
}

/// A field of a message.
pub(super) struct Field {
    number: u32,
    pub(super) name: String,
    /// The name as JSON with the colon.
    pub(super) opening: String,
    pub(super) shape: Shape,
    /// Whether it is there even if it has the value of one that is not.
    pub(super) has_presence: bool,
    pub(super) oneof: Option<usize>,
    pub(super) value: Value,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Shape {
    One,
    List,
    Map,
}

/// The types of values that the fields of Feast's messages have.
pub(super) enum Value {
    Bool,
    Int32,
    Int64,
    Uint64,
    Float,
    Text,
    Bytes,
    /// The names of its numbers, as JSON.
    Enum(BTreeMap<i32, String>),
    /// Which plan it has. That of a map is the one of its entries.
    Message(usize),
    /// Of a type that no field of Feast's messages has (`all_fields_can_be_said`).
    Unknown,
}

impl Value {
    /// Whether a list of them may stand in one field, as numbers of variable length.
    pub(super) fn is_packable(&self) -> bool {
        matches!(self, Self::Bool | Self::Int32 | Self::Int64 | Self::Uint64 | Self::Enum(_))
    }
}

impl Plans {
    pub(super) fn get() -> &'static Self {
        static PLANS: LazyLock<Plans> = LazyLock::new(Plans::of_objects);
        &PLANS
    }

    /// Which plan the objects of a kind have.
    pub(super) fn of(&self, kind: Kind) -> Option<usize> {
        self.objects.get(&kind).copied()
    }

    fn of_objects() -> Self {
        let (mut plans, mut known) = (Self { objects: HashMap::new(), messages: Vec::new() }, HashMap::new());
        for kind in Kind::ALL {
            if let Some(message) = DESCRIPTORS.get_message_by_name(&format!("feast.core.{}", kind.message_name())) {
                let index = plans.add(&message, &mut known);
                plans.objects.insert(*kind, index);
            }
        }
        plans
    }

    /// Adds a message and those within it, which may be the same again.
    fn add(&mut self, message: &MessageDescriptor, known: &mut HashMap<String, usize>) -> usize {
        if let Some(index) = known.get(message.full_name()) {
            return *index;
        }
        let index = self.messages.len();
        known.insert(message.full_name().to_owned(), index);
        let form = match message.full_name() {
            "google.protobuf.Timestamp" => Form::Timestamp,
            "google.protobuf.Duration" => Form::Duration,
            "google.protobuf.StringValue" => Form::Wrapper,
            name if name.starts_with("google.protobuf.") => Form::Unknown,
            _ => Form::Object,
        };
        let oneofs: Vec<String> = message.oneofs().map(|oneof| oneof.name().to_owned()).collect();
        self.messages.push(Message { form, fields: Vec::new(), by_number: Vec::new(), oneofs: oneofs.len() });
        let mut fields: Vec<Field> = message
            .fields()
            .map(|field| {
                let name = field.json_name().to_owned();
                let shape = match () {
                    () if field.is_map() => Shape::Map,
                    () if field.is_list() => Shape::List,
                    () => Shape::One,
                };
                Field {
                    number: field.number(),
                    opening: format!("{}:", json(&name)),
                    name,
                    shape,
                    has_presence: field.supports_presence(),
                    oneof: field.containing_oneof().and_then(|of| oneofs.iter().position(|name| name == of.name())),
                    value: self.value(&field, known),
                }
            })
            .collect();
        fields.sort_by_key(|field| field.number);
        let mut by_number = vec![None; fields.last().map_or(0, |last| last.number as usize + 1)];
        for (index, field) in (0..).zip(&fields) {
            by_number[field.number as usize] = Some(index);
        }
        let message = &mut self.messages[index];
        (message.fields, message.by_number) = (fields, by_number);
        index
    }

    fn value(&mut self, field: &FieldDescriptor, known: &mut HashMap<String, usize>) -> Value {
        let names = |of: &EnumDescriptor| {
            // Of two names of one number, the first is its name.
            of.values().filter_map(|value| Some((value.number(), json(of.get_value(value.number())?.name())))).collect()
        };
        match field.kind() {
            Type::Bool => Value::Bool,
            Type::Int32 => Value::Int32,
            Type::Int64 => Value::Int64,
            Type::Uint64 => Value::Uint64,
            Type::Float if !field.is_list() => Value::Float,
            Type::String => Value::Text,
            Type::Bytes => Value::Bytes,
            Type::Enum(of) => Value::Enum(names(&of)),
            Type::Message(entry) if field.is_map() && entry.map_entry_key_field().kind() != Type::String => {
                Value::Unknown
            }
            Type::Message(message) => Value::Message(self.add(&message, known)),
            _ => Value::Unknown,
        }
    }
}

fn json(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
