//! Arbitrary objects, made at the level of bytes from the descriptors: any field may be there, fields that no Feast has
//! yet are among the others at every level, and enumerations have values that no Feast has yet.

use proptest::collection::vec;
use proptest::prelude::*;
use prost::encoding::{WireType, encode_key, encode_varint};
use prost_reflect::{FieldDescriptor, Kind as FieldKind};

use super::*;

/// The name that every arbitrary object has; a project has that of the tests' project.
pub(super) const NAME: &str = "thing";

/// The lowest number of a field that no Feast has yet.
const NEWER: u32 = 1000;

/// Texts in several scripts; that of a long one does not fit in one byte of length.
const TEXTS: [&str; 8] = ["a", "b", "driver", "Driver", "dríver", "運転手", "\0", LONG];
const LONG: &str = "long long long long long long long long long long long long long long long long long long long \
                    long long long long long long long long long long long long long long long long long long";

/// Numbers of every length that a varint may have; the last is −1.
const NUMBERS: [u64; 6] = [1, 2, 4, 300, i32::MAX as u64, u64::MAX];

/// Choices that are made by arbitrary bytes. Once these are used up every choice is 0, which always is the least.
struct Choices(std::vec::IntoIter<u8>);

impl Choices {
    fn next(&mut self) -> usize {
        self.0.next().unwrap_or(0).into()
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.next() % all.len()]
    }

    /// A message with any of its fields, in the order of their numbers, as every library writes them, and one of a
    /// `oneof` at most.
    fn message(&mut self, of: &MessageDescriptor, depth: usize) -> Vec<u8> {
        let mut fields: Vec<FieldDescriptor> = of.fields().collect();
        fields.sort_by_key(FieldDescriptor::number);
        let mut message = Vec::new();
        let mut chosen = Vec::new();
        for field in fields {
            let is_nested = matches!(field.kind(), FieldKind::Message(_));
            let oneof = field.containing_oneof();
            let occurrences = match self.next() {
                0..120 => 0,
                _ if is_nested && depth == 0 || oneof.is_some() && chosen.contains(&oneof) => 0,
                choice if field.is_list() || field.is_map() => 1 + choice % 3,
                _ => 1,
            };
            if occurrences > 0 {
                chosen.push(oneof);
            }
            for _ in 0..occurrences {
                self.field(&field, depth, &mut message);
            }
        }
        self.newer_fields(&mut message);
        message
    }

    fn field(&mut self, field: &FieldDescriptor, depth: usize, message: &mut Vec<u8>) {
        let number = field.number();
        match field.kind() {
            FieldKind::String => wire::put(message, number, self.of(&TEXTS).as_bytes()),
            FieldKind::Bytes => wire::put(message, number, &[self.next() as u8, 0xff]),
            FieldKind::Message(entry) if entry.is_map_entry() => {
                let mut encoded = Vec::new();
                self.field(&entry.map_entry_key_field(), 0, &mut encoded);
                self.field(&entry.map_entry_value_field(), depth.saturating_sub(1), &mut encoded);
                wire::put(message, number, &encoded);
            }
            FieldKind::Message(of) => {
                let encoded = self.message(&of, depth.saturating_sub(1));
                wire::put(message, number, &encoded);
            }
            // Not what is not a number, which equals nothing, itself included.
            FieldKind::Float => {
                encode_key(number, WireType::ThirtyTwoBit, message);
                message.extend(self.of(&[0.5_f32, -1.0, f32::INFINITY]).to_le_bytes());
            }
            FieldKind::Bool => wire::put_varint(message, number, 1),
            FieldKind::Enum(_) | FieldKind::Int32 => wire::put_varint(message, number, self.of(&NUMBERS)),
            FieldKind::Int64 | FieldKind::Uint64 | FieldKind::Uint32 => {
                wire::put_varint(message, number, self.of(&NUMBERS) & 0xffff_ffff);
            }
            other => panic!("{}: arbitrary messages have no {other:?} yet", field.full_name()),
        }
    }

    /// Any of three fields that no Feast has yet, of any wire type, each of them once or twice.
    fn newer_fields(&mut self, message: &mut Vec<u8>) {
        let which = self.next();
        for number in (NEWER..).take(3) {
            if which >> (number - NEWER) & 1 == 0 {
                continue;
            }
            for _ in 0..=self.next() % 2 {
                let wire_type = self.of(&[
                    WireType::Varint,
                    WireType::LengthDelimited,
                    WireType::SixtyFourBit,
                    WireType::ThirtyTwoBit,
                    WireType::StartGroup,
                ]);
                let value = self.next() as u8;
                encode_key(number, wire_type, message);
                match wire_type {
                    WireType::LengthDelimited => message.extend([2, value, 0xff]),
                    WireType::SixtyFourBit => message.extend([value; 8]),
                    WireType::ThirtyTwoBit => message.extend([value; 4]),
                    WireType::StartGroup => {
                        wire::put_varint(message, 1, value.into());
                        encode_key(number, WireType::EndGroup, message);
                    }
                    _ => encode_varint(value.into(), message),
                }
            }
        }
    }

    fn object(&mut self, kind: Kind) -> Object {
        const DEPTH: usize = 3;
        let descriptor = descriptor(kind);
        let layout = kind.layout();
        let mut bytes = Vec::new();
        if layout.spec.is_none() {
            bytes = self.message(&descriptor, DEPTH);
        }
        for number in [layout.spec, layout.meta].into_iter().flatten() {
            if let FieldKind::Message(part) = descriptor.get_field(number).expect("a field").kind() {
                bytes = wire::set(&bytes, number, &self.message(&part, DEPTH)).expect("well-formed");
            }
        }
        if layout.spec.is_some() {
            self.newer_fields(&mut bytes);
        }
        let mut object = Object::new(kind, bytes);
        if let Some(field) = layout.name {
            let name = if kind == Kind::Project { PROJECT } else { NAME };
            object = object.with_spec_text(field, name).expect("well-formed");
        }
        if kind.is_view() && kind != Kind::OnDemandFeatureView {
            const ENTITIES: u32 = 3;
            object = edit_spec(&object, |spec| wire::put(spec, ENTITIES, b"driver"));
        }
        match kind {
            Kind::FeatureView | Kind::StreamFeatureView | Kind::OnDemandFeatureView => pin(&object, ""),
            Kind::FeatureService => self.complete(&object),
            _ => object,
        }
    }

    /// The service with projections that say all that there is to say, so that it needs no views to be applied.
    fn complete(&mut self, service: &Object) -> Object {
        const PROJECTIONS: u32 = 3;
        edit_spec(service, |spec| {
            let (mut complete, old) = (Vec::new(), std::mem::take(spec));
            for field in wire::fields(&old).map(|field| field.expect("well-formed")) {
                if field.number == PROJECTIONS {
                    let mut column = Vec::new();
                    wire::put(&mut column, 1, self.of(&TEXTS).as_bytes());
                    wire::put_varint(&mut column, 2, 4);
                    self.newer_fields(&mut column);
                    let mut projection = wire::retain(field.content, |number| number != 2).expect("well-formed");
                    wire::put(&mut projection, 2, &column);
                    wire::put(&mut complete, PROJECTIONS, &projection);
                } else {
                    complete.extend_from_slice(field.raw);
                }
            }
            *spec = complete;
        })
    }
}

/// Any object of a kind that can be applied as it is.
pub(super) fn objects_of(kind: Kind) -> impl Strategy<Value = Object> {
    vec(any::<u8>(), 0..500).prop_map(move |choices| Choices(choices.into_iter()).object(kind))
}

pub(super) fn kinds() -> impl Strategy<Value = Kind> {
    prop::sample::select(Kind::ALL)
}

/// Any object.
pub(crate) fn objects() -> impl Strategy<Value = Object> {
    kinds().prop_flat_map(objects_of)
}

/// Two objects of one kind and name.
pub(crate) fn pairs() -> impl Strategy<Value = (Object, Object)> {
    kinds().prop_flat_map(|kind| (objects_of(kind), objects_of(kind)))
}

/// Any view that can be materialized.
pub(super) fn materializable() -> impl Strategy<Value = Object> {
    prop::sample::select(vec![Kind::FeatureView, Kind::StreamFeatureView]).prop_flat_map(objects_of)
}

/// The object with some of its bytes changed, cut off or doubled, so that it may be anything.
pub(super) fn damaged(object: Object) -> impl Strategy<Value = Object> {
    let places = vec((any::<prop::sample::Index>(), any::<u8>(), 0..4_u8), 0..4);
    places.prop_map(move |places| {
        let mut bytes = object.bytes.to_vec();
        for (place, byte, how) in places.into_iter().filter(|_| !object.bytes.is_empty()) {
            let place = place.index(bytes.len().max(1));
            match how {
                0 => bytes.truncate(place),
                1 => bytes.insert(place, byte),
                2 => bytes.extend_from_within(place..),
                _ => bytes.iter_mut().skip(place).take(1).for_each(|changed| *changed = byte),
            }
        }
        Object::new(object.kind, bytes)
    })
}

/// The message with its fields in any order in which it still is the same message: those of one number keep theirs.
pub(super) fn in_another_order(message: &[u8], order: u64) -> Vec<u8> {
    let scrambled = |number: u32| (u64::from(number) + 1).wrapping_mul(order | 1) >> 7 & 0xffff;
    reorder(message, |fields| fields.sort_by_key(|field| (scrambled(field.number), field.number)))
}

/// The object as text, for failures to show.
pub(super) fn text(object: &Object) -> String {
    match DynamicMessage::decode(descriptor(object.kind), object.bytes.clone()) {
        Ok(message) => format!("{} {{ {message} }}", object.kind),
        Err(error) => format!("{} that cannot be decoded ({error}): {:?}", object.kind, object.bytes),
    }
}
