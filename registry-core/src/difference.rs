//! What differs between two states of one thing that is stored, field by field, in words.

mod compare;
#[cfg(test)]
mod tests;
mod values;

use prost_reflect::{DynamicMessage, MessageDescriptor};

use self::compare::Comparison;
use crate::backend::Key;
use crate::kind::Layout;
use crate::proto::DESCRIPTORS;

/// How many changes of fields are told of one difference.
const MOST: usize = 1000;

/// What differs between two states of one thing that is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Difference {
    /// The fields that differ, in the order of the message: at most 1000. Empty when no field does.
    pub changes: Vec<FieldChange>,
    /// How many more fields differ.
    pub left_out: usize,
    /// The bytes differ, and no field does: the same fields, encoded otherwise.
    pub encoding_only: bool,
}

/// One field that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FieldChange {
    /// Which field, as `spec.tags[team]` or `spec.features[trips_today].value_type`: elements that have a name are called by it,
    /// others by their place (from 0). A field of a newer Feast is called `unknown field 77`. Empty for what is stored as a whole:
    /// bytes that cannot be decoded, user metadata, facts.
    pub path: String,
    /// What it was, in words; `None` when it was not set. The text of strings is whole; messages are summarized.
    pub before: Option<String>,
    /// What it is, in words; `None` when it is not set.
    pub after: Option<String>,
    /// Whether it is of the definition. What the registry or Feast keeps beside that is not: timestamps, materialization
    /// intervals, a view's state and version, the project's name within the message, facts about a project, and an order that
    /// means nothing.
    pub in_definition: bool,
}

impl Difference {
    /// Compares two states of what is stored under a key: an object, a version of a view, user metadata, or a fact. `None` is
    /// nothing stored. Never fails: bytes that cannot be decoded are said to be that.
    pub fn between(key: &Key, before: Option<&[u8]>, after: Option<&[u8]>) -> Self {
        if before == after {
            return Self::default();
        }
        let mut comparison = Comparison::new(before.is_some() && after.is_some());
        match message_of(key) {
            Some((descriptor, layout)) => {
                let decode =
                    |bytes: Option<&[u8]>| DynamicMessage::decode(descriptor.clone(), bytes.unwrap_or_default());
                match (decode(before), decode(after)) {
                    (Ok(one), Ok(other)) => match layout {
                        Some(layout) => comparison.object("", &layout, &one, &other),
                        None => comparison.version(&one, &other),
                    },
                    (one, other) => {
                        let words = |bytes: Option<&[u8]>, is_sound: bool| {
                            let remark = if is_sound { "" } else { ", which cannot be decoded" };
                            bytes.map(|bytes| values::bytes_by_hash(bytes) + remark)
                        };
                        comparison.note(String::new(), words(before, one.is_ok()), words(after, other.is_ok()), true);
                    }
                }
            }
            None => {
                let words = |bytes: Option<&[u8]>| bytes.map(values::bytes_in_words);
                let is_fact = matches!(key, Key::Metadata { .. });
                comparison.note(String::new(), words(before), words(after), !is_fact);
            }
        }
        let mut difference = comparison.into_difference();
        // An object without a field is still there or not.
        difference.encoding_only = difference.changes.is_empty() && before.is_some() && after.is_some();
        difference
    }

    /// Whether the bytes are the same.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && !self.encoding_only
    }

    /// Whether a field of the definition differs.
    pub fn is_of_definition(&self) -> bool {
        self.left_out > 0 || self.changes.iter().any(|change| change.in_definition)
    }
}

/// The message that is stored under a key, and for an object where what the registry looks at stands in it.
fn message_of(key: &Key) -> Option<(MessageDescriptor, Option<Layout>)> {
    match key {
        Key::Object { kind, .. } => Some((descriptor(kind.message_name())?, Some(kind.layout()))),
        Key::Version { .. } => Some((descriptor("FeatureViewVersionRecord")?, None)),
        Key::UserMetadata { .. } | Key::Metadata { .. } => None,
    }
}

/// A message of package `feast.core`.
fn descriptor(name: &str) -> Option<MessageDescriptor> {
    DESCRIPTORS.get_message_by_name(&format!("feast.core.{name}"))
}
