//! Comparing two decoded messages.
//!
//! It recurses once for each message within a message, of which decoding allows a hundred.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind as FieldKind, MapKey, ReflectMessage, Value};

use super::values::{self, element_name, shortened, summary, unknown_in_words, value_in_words};
use super::{Difference, FieldChange, MOST, descriptor};
use crate::kind::{Kind, Layout};
use crate::rules::{is_beside, is_unordered};

/// What of a name stands in a path, in characters.
const NAME: usize = 100;

/// A comparison, with what it has found.
pub(super) struct Comparison {
    found: Difference,
    /// Whether there are two states: a field that is not set is then its default to a reader, and else it is not there.
    are_two: bool,
}

/// The field that is looked at.
struct Place<'a> {
    field: &'a FieldDescriptor,
    path: String,
    in_definition: bool,
}

impl Comparison {
    pub(super) fn new(are_two: bool) -> Self {
        Self { found: Difference::default(), are_two }
    }

    pub(super) fn into_difference(self) -> Difference {
        self.found
    }

    /// Notes that a field differs.
    pub(super) fn note(&mut self, path: String, before: Option<String>, after: Option<String>, in_definition: bool) {
        if self.found.changes.len() < MOST {
            self.found.changes.push(FieldChange { path, before, after, in_definition });
        } else {
            self.found.left_out += 1;
        }
    }

    /// Compares objects of a kind. Definition and meta are told field by field also if there is only one of them.
    pub(super) fn object(&mut self, prefix: &str, layout: &Layout, before: &DynamicMessage, after: &DynamicMessage) {
        let parts = [layout.spec, layout.meta];
        for field in before.descriptor().fields() {
            let in_definition = Some(field.number()) != layout.meta && !is_beside(&field);
            let place = Place { path: format!("{prefix}{}", field.name()), field: &field, in_definition };
            let (had, has) = (before.has_field(&field), after.has_field(&field));
            let kind = field.kind();
            match kind.as_message() {
                Some(part) if had != has && parts.contains(&Some(field.number())) => {
                    let empty = Value::Message(DynamicMessage::new(part.clone()));
                    let value = if had { before.get_field(&field) } else { after.get_field(&field) };
                    let (one, other) = if had { (&*value, &empty) } else { (&empty, &*value) };
                    let told = self.told();
                    self.at(&place, &place.path, one, other);
                    if self.told() == told {
                        self.one_sided(&place, place.path.clone(), &value, had);
                    }
                }
                _ => self.field(&place, before, after),
            }
        }
        self.unknown_fields(prefix, before, after, true);
    }

    /// Compares records of versions, and the views in them where both are of one kind.
    pub(super) fn version(&mut self, before: &DynamicMessage, after: &DynamicMessage) {
        let views = view_of(before).zip(view_of(after)).filter(|((one, _), (other, _))| one == other);
        if let Some(((kind, one), (_, other))) = &views {
            self.object("feature_view.", &kind.layout(), one, other);
        }
        for field in before.descriptor().fields() {
            if field.name() != VIEW || views.is_none() {
                let in_definition = !BESIDE_VERSION.contains(&field.name());
                let place = Place { path: field.name().to_owned(), field: &field, in_definition };
                self.field(&place, before, after);
            }
        }
        self.unknown_fields("", before, after, true);
    }

    fn told(&self) -> usize {
        self.found.changes.len() + self.found.left_out
    }

    fn message(&mut self, path: &str, before: &DynamicMessage, after: &DynamicMessage, in_definition: bool) {
        if before == after {
            return;
        }
        for field in before.descriptor().fields() {
            let in_definition = in_definition && !is_beside(&field);
            let place = Place { path: format!("{path}.{}", field.name()), field: &field, in_definition };
            self.field(&place, before, after);
        }
        self.unknown_fields(&format!("{path}."), before, after, in_definition);
    }

    fn field(&mut self, place: &Place<'_>, before: &DynamicMessage, after: &DynamicMessage) {
        let field = place.field;
        let (had, has) = (before.has_field(field), after.has_field(field));
        if !had && !has {
            return;
        }
        let (one, other) = (before.get_field(field), after.get_field(field));
        match (&*one, &*other) {
            (Value::Map(one), Value::Map(other)) => self.map(place, one, other),
            (Value::List(one), Value::List(other)) => self.list(place, one, other),
            (Value::Message(_), _) if had != has => {
                let value = if had { &one } else { &other };
                self.one_sided(place, place.path.clone(), value, had);
            }
            (Value::Message(_), _) => self.at(place, &place.path, &one, &other),
            (one, other) if had == has && is_same(one, other) => {}
            (one, other) => {
                let shows_default = self.are_two && !field.supports_presence() && has_telling_default(&field.kind());
                let words = |value: &Value, is_set: bool| {
                    (is_set || shows_default).then(|| value_in_words(value, &field.kind()))
                };
                self.note(place.path.clone(), words(one, had), words(other, has), place.in_definition);
            }
        }
    }

    /// Two values that are both there, of the field or of one of its elements.
    fn at(&mut self, place: &Place<'_>, path: &str, before: &Value, after: &Value) {
        if is_same(before, after) {
            return;
        }
        let kind = element_kind(place.field);
        let leaf = |value: &Value| values::leaf_in_words(value, &kind);
        match (before, after) {
            (Value::Message(one), Value::Message(other)) => match (leaf(before), leaf(after)) {
                (Some(before), Some(after)) if before != after => {
                    self.note(path.to_owned(), Some(before), Some(after), place.in_definition);
                }
                _ => self.message(path, one, other, place.in_definition),
            },
            _ => self.note(path.to_owned(), leaf(before), leaf(after), place.in_definition),
        }
    }

    /// A value that is only there before or after.
    fn one_sided(&mut self, place: &Place<'_>, path: String, value: &Value, is_before: bool) {
        let words = summary(value, &element_kind(place.field));
        let (before, after) = if is_before { (Some(words), None) } else { (None, Some(words)) };
        self.note(path, before, after, place.in_definition);
    }

    fn map(&mut self, place: &Place<'_>, before: &HashMap<MapKey, Value>, after: &HashMap<MapKey, Value>) {
        let keys: BTreeSet<&MapKey> = before.keys().chain(after.keys()).collect();
        for key in keys {
            let path = format!("{}[{}]", place.path, shortened(&values::key_in_words(key), NAME));
            match (before.get(key), after.get(key)) {
                (Some(one), Some(other)) => self.at(place, &path, one, other),
                (Some(value), None) => self.one_sided(place, path, value, true),
                (None, Some(value)) => self.one_sided(place, path, value, false),
                (None, None) => {}
            }
        }
    }

    /// Elements are the same if they have the same name, or without names if they say the same; of those that are left over, the
    /// first on one side is taken for the first on the other if there are as many.
    fn list(&mut self, place: &Place<'_>, before: &[Value], after: &[Value]) {
        let kind = element_kind(place.field);
        let identity = |value: &Value| match element_name(value) {
            Some(name) => (true, name),
            None => (false, summary(value, &kind)),
        };
        let mut waiting: HashMap<(bool, String), VecDeque<usize>> = HashMap::new();
        for (index, value) in before.iter().enumerate() {
            waiting.entry(identity(value)).or_default().push_back(index);
        }
        let mut added = Vec::new();
        let mut is_reordered = false;
        let mut furthest = 0;
        let mut is_left = vec![true; before.len()];
        for (index, value) in after.iter().enumerate() {
            let identity = identity(value);
            let Some(earlier) = waiting.get_mut(&identity).and_then(VecDeque::pop_front) else {
                added.push(index);
                continue;
            };
            is_left[earlier] = false;
            is_reordered |= earlier < furthest;
            furthest = furthest.max(earlier);
            let path = element_path(&place.path, index, &identity);
            self.at(place, &path, &before[earlier], value);
        }
        let removed: Vec<usize> = (0..before.len()).filter(|index| is_left[*index]).collect();
        self.left_over(place, (before, &removed), (after, &added));
        if is_reordered {
            let in_definition = place.in_definition && !is_unordered(place.field);
            let order = |values: &[Value]| Some(format!("in the order {}", values::order(values, &kind)));
            self.note(place.path.clone(), order(before), order(after), in_definition);
        }
    }

    fn left_over(&mut self, place: &Place<'_>, removed: (&[Value], &[usize]), added: (&[Value], &[usize])) {
        let ((before, removed), (after, added)) = (removed, added);
        let has_names = removed.iter().any(|index| element_name(&before[*index]).is_some())
            || added.iter().any(|index| element_name(&after[*index]).is_some());
        if !has_names && removed.len() == added.len() {
            for (old, new) in removed.iter().zip(added) {
                let is_message = matches!(before[*old], Value::Message(_));
                // The place of a word in a list says less than the word.
                let path = if is_message { format!("{}[{new}]", place.path) } else { place.path.clone() };
                self.at(place, &path, &before[*old], &after[*new]);
            }
            return;
        }
        for (values, indices, is_before) in [(before, removed, true), (after, added, false)] {
            for index in indices {
                let value = &values[*index];
                let path = match element_name(value) {
                    Some(name) => element_path(&place.path, *index, &(true, name)),
                    None => place.path.clone(),
                };
                self.one_sided(place, path, value, is_before);
            }
        }
    }

    fn unknown_fields(&mut self, prefix: &str, before: &DynamicMessage, after: &DynamicMessage, in_definition: bool) {
        let (one, other) = (unknown(before), unknown(after));
        let numbers: BTreeSet<u32> = one.keys().chain(other.keys()).copied().collect();
        for number in numbers {
            let (one, other) = (one.get(&number), other.get(&number));
            if one != other {
                let words = |bytes: Option<&Vec<u8>>| bytes.map(|bytes| unknown_in_words(bytes));
                let path = format!("{prefix}unknown field {number}");
                self.note(path, words(one), words(other), in_definition);
            }
        }
    }
}

/// The field of a version with the view as it was.
const VIEW: &str = "feature_view_proto";
/// What a version has that says nothing of the view.
const BESIDE_VERSION: [&str; 3] = ["project_id", "created_timestamp", "version_id"];

/// The view that a record of a version has, if it can be decoded.
fn view_of(record: &DynamicMessage) -> Option<(Kind, DynamicMessage)> {
    let kind = Kind::from_version_type(record.get_field_by_name("feature_view_type")?.as_str()?)?;
    let view = record.get_field_by_name(VIEW)?.as_bytes()?.clone();
    Some((kind, DynamicMessage::decode(descriptor(kind.message_name())?, view).ok()?))
}

/// The fields of a message that are not known, by number, as they are encoded.
fn unknown(message: &DynamicMessage) -> BTreeMap<u32, Vec<u8>> {
    let mut fields: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
    for field in message.unknown_fields() {
        field.encode(fields.entry(field.number()).or_default());
    }
    fields
}

fn element_path(path: &str, index: usize, (is_name, name): &(bool, String)) -> String {
    if *is_name { format!("{path}[{}]", shortened(name, NAME)) } else { format!("{path}[{index}]") }
}

/// The kind of a field's elements.
fn element_kind(field: &FieldDescriptor) -> FieldKind {
    match field.kind() {
        FieldKind::Message(entry) if field.is_map() => entry.map_entry_value_field().kind(),
        kind => kind,
    }
}

/// Numbers by their bits: what is not a number is the same as itself.
fn is_same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::F32(one), Value::F32(other)) => one.to_bits() == other.to_bits(),
        (Value::F64(one), Value::F64(other)) => one.to_bits() == other.to_bits(),
        (one, other) => one == other,
    }
}

/// Whether the default says something: `false` or 0 does, no text does not.
fn has_telling_default(kind: &FieldKind) -> bool {
    !matches!(kind, FieldKind::String | FieldKind::Bytes)
}
