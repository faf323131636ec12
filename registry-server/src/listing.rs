//! Sorting and paging of lists, as Feast's server does them (`apply_pagination_and_sorting`).
//!
//! Feast sorts Python objects by an attribute, or by a path of attributes with dots between; here the path is looked up in
//! the messages that those objects are made of.

use std::cmp::Ordering;

use feast_registry_core::proto::DESCRIPTORS;
use feast_registry_core::{Feature, Object, Reference, Relation};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind as FieldKind, MapKey, ReflectMessage, Value};

use crate::paging::Paging;
use crate::proto::{PaginationMetadata, PaginationParams, SortingParams};

/// What an item is sorted by: nothing comes first, then numbers, then text without regard to case.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum SortKey {
    Nothing,
    Number(f64),
    Text(String),
}

impl SortKey {
    fn text(text: &str) -> Self {
        SortKey::Text(text.to_lowercase())
    }

    fn compare(&self, other: &Self) -> Ordering {
        match (self, other) {
            (SortKey::Number(one), SortKey::Number(other)) => one.total_cmp(other),
            (SortKey::Text(one), SortKey::Text(other)) => one.cmp(other),
            _ => self.rank().cmp(&other.rank()),
        }
    }

    fn rank(&self) -> u8 {
        match self {
            SortKey::Nothing => 0,
            SortKey::Number(_) => 1,
            SortKey::Text(_) => 2,
        }
    }
}

/// Something that a list can be sorted by parts of.
pub(crate) trait Sortable {
    /// What the item has at a path.
    fn sort_key(&self, path: &str) -> SortKey;
}

/// The types of values.
const VALUE_TYPE: &str = "feast.types.ValueType.Enum";

/// No path of attributes is longer, in bytes: nothing has a longer one, and to look for it in every item takes time.
const LONGEST_PATH: usize = 256;

/// Sorts if that is asked for, takes the page that is asked for, and says which one it is.
///
/// Pages count from 1; a page or a limit that is not positive means the whole list, whose «page» is then 0 of 1.
pub(crate) fn page<T: Sortable>(
    mut items: Vec<T>,
    pagination: Option<PaginationParams>,
    sorting: Option<&SortingParams>,
) -> (Vec<T>, PaginationMetadata) {
    if items.is_empty() {
        return (items, PaginationMetadata::default());
    }
    let sorting =
        sorting.filter(|SortingParams { sort_by, .. }| !sort_by.trim().is_empty() && sort_by.len() <= LONGEST_PATH);
    if let Some(SortingParams { sort_by, sort_order }) = sorting {
        items = sorted(items, sort_by, sort_order.to_lowercase() == "desc");
    }
    match pagination.and_then(Paging::of) {
        Some(paging) => paging.take(items),
        None => {
            let total_count = i32::try_from(items.len()).unwrap_or(i32::MAX);
            (items, PaginationMetadata { total_count, total_pages: 1, ..Default::default() })
        }
    }
}

/// Sorts so that equal items keep their order, in both directions.
fn sorted<T: Sortable>(items: Vec<T>, path: &str, is_descending: bool) -> Vec<T> {
    let mut keyed: Vec<(SortKey, T)> = items.into_iter().map(|item| (item.sort_key(path), item)).collect();
    keyed.sort_by(|(one, _), (other, _)| if is_descending { other.compare(one) } else { one.compare(other) });
    keyed.into_iter().map(|(_, item)| item).collect()
}

impl Sortable for Feature {
    fn sort_key(&self, path: &str) -> SortKey {
        match path {
            "name" => SortKey::text(&self.name),
            "feature_view" => SortKey::text(&self.view),
            "type" => SortKey::text(&self.type_name),
            "description" => SortKey::text(&self.description),
            "owner" => SortKey::text(""),
            "kind" => SortKey::text(if self.is_label { "label" } else { "feature" }),
            _ => SortKey::Nothing,
        }
    }
}

impl Sortable for Relation {
    fn sort_key(&self, path: &str) -> SortKey {
        let end = |end: &Reference, attribute: &str| match attribute {
            "name" => SortKey::text(&end.name),
            "type" | "type.value" => SortKey::text(&end.object_type.to_string()),
            _ => SortKey::Nothing,
        };
        match path.split_once('.') {
            Some(("source", attribute)) => end(&self.source, attribute),
            Some(("target", attribute)) => end(&self.target, attribute),
            _ => SortKey::Nothing,
        }
    }
}

impl Sortable for Object {
    fn sort_key(&self, path: &str) -> SortKey {
        let name = format!("feast.core.{}", self.kind.message_name());
        let descriptor = DESCRIPTORS.get_message_by_name(&name);
        let message = descriptor.and_then(|of| DynamicMessage::decode(of, self.bytes.clone()).ok());
        let Some(message) = message else { return SortKey::Nothing };
        let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
        // An attribute of a Python object is a field of the message's spec or of its meta.
        let parts = ["spec", "meta"].map(|part| sub_message(&message, part));
        if parts.iter().all(Option::is_none) || self.kind.layout().spec.is_none() {
            let found = attribute(&message, first, rest);
            return found
                .or_else(|| attribute(&sub_message(&message, "meta")?, first, rest))
                .unwrap_or(SortKey::Nothing);
        }
        parts.into_iter().flatten().find_map(|part| attribute(&part, first, rest)).unwrap_or(SortKey::Nothing)
    }
}

fn sub_message(message: &DynamicMessage, name: &str) -> Option<DynamicMessage> {
    message.get_field_by_name(name)?.as_message().cloned()
}

/// What a message has under a name, and further down a path; `None` when it has no such field.
fn attribute(message: &DynamicMessage, name: &str, rest: Option<&str>) -> Option<SortKey> {
    // Two attributes of Feast's Python objects that have another name in the messages.
    match (message.descriptor().name(), name, rest) {
        (_, "enabled", None) => {
            let SortKey::Number(disabled) = attribute(message, "disabled", None)? else { return None };
            return Some(SortKey::Number(1.0 - disabled));
        }
        ("DataSource", "path", None) => return attribute(message, "file_options", Some("uri")),
        _ => {}
    }
    let field = message.descriptor().get_field_by_name(name)?;
    if field.supports_presence() && !message.has_field(&field) {
        return Some(SortKey::Nothing);
    }
    let value = message.get_field(&field);
    Some(match (value.as_ref(), rest) {
        (value, None) => key_of(value, &field),
        (Value::Message(inner), Some(rest)) => {
            let (first, rest) = rest.split_once('.').map_or((rest, None), |(first, rest)| (first, Some(rest)));
            attribute(inner, first, rest).unwrap_or(SortKey::Nothing)
        }
        (Value::Map(entries), Some(key)) => match entries.get(&MapKey::String(key.to_owned())) {
            Some(Value::String(text)) => SortKey::text(text),
            _ => SortKey::Nothing,
        },
        _ => SortKey::Nothing,
    })
}

fn key_of(value: &Value, field: &FieldDescriptor) -> SortKey {
    match value {
        Value::Bool(value) => SortKey::Number(f64::from(u8::from(*value))),
        Value::I32(value) => SortKey::Number(f64::from(*value)),
        Value::U32(value) => SortKey::Number(f64::from(*value)),
        Value::I64(value) => SortKey::Number(*value as f64),
        Value::U64(value) => SortKey::Number(*value as f64),
        Value::F32(value) => SortKey::Number(f64::from(*value)),
        Value::F64(value) => SortKey::Number(*value),
        Value::String(text) => SortKey::text(text),
        // A view's state is the one of Feast's enumerations that is a number in Python too.
        Value::EnumNumber(number) if field.name() == "state" => SortKey::Number(f64::from(*number)),
        Value::EnumNumber(number) => match field.kind() {
            // What its messages call invalid, Feast's Python calls unknown.
            FieldKind::Enum(of) if *number == 0 && of.full_name() == VALUE_TYPE => SortKey::text("unknown"),
            FieldKind::Enum(of) => of.get_value(*number).map_or(SortKey::Nothing, |value| SortKey::text(value.name())),
            _ => SortKey::Nothing,
        },
        // Timestamps and durations are two numbers; as text of one width they sort like the moments that they are.
        Value::Message(message) if message.descriptor().full_name().starts_with("google.protobuf.") => {
            let number = |name: &str| {
                let value = message.get_field_by_name(name);
                value.as_deref().and_then(|value| value.as_i64().or(value.as_i32().map(i64::from))).unwrap_or_default()
            };
            SortKey::Text(format!("{:020}.{:09}", i128::from(number("seconds")) + (1 << 40), number("nanos")))
        }
        other => SortKey::text(&text_of(other)),
    }
}

/// A value in words, for an order of lists and messages, which have none of their own. (Their `Debug` is of no use: it
/// prints descriptors, which refer to themselves, without end.)
fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::List(items) => items.iter().map(text_of).collect::<Vec<_>>().join(", "),
        Value::Map(entries) => {
            let mut entries: Vec<String> =
                entries.iter().map(|(key, value)| format!("{}: {}", key_text(key), text_of(value))).collect();
            entries.sort();
            entries.join(", ")
        }
        Value::Message(message) => serde_json::to_string(message).unwrap_or_default(),
        Value::Bool(value) => value.to_string(),
        Value::I32(value) | Value::EnumNumber(value) => value.to_string(),
        Value::I64(value) => value.to_string(),
        Value::U32(value) => value.to_string(),
        Value::U64(value) => value.to_string(),
        Value::F32(value) => value.to_string(),
        Value::F64(value) => value.to_string(),
        Value::Bytes(_) => String::new(),
    }
}

fn key_text(key: &MapKey) -> String {
    key.as_str().map_or_else(String::new, str::to_owned)
}

#[cfg(test)]
mod tests {
    use feast_registry_core::ObjectType;
    use feast_registry_core::proto::core::{DataSource, FeatureView, FeatureViewMeta, FeatureViewSpec};
    use proptest::prelude::*;

    use super::*;

    fn view(name: &str, owner: &str, source: Option<&str>, created: Option<i64>) -> Object {
        Object::encode(&FeatureView {
            spec: Some(FeatureViewSpec {
                name: name.into(),
                owner: owner.into(),
                online: name == "b",
                batch_source: source.map(|name| DataSource { name: name.into(), ..Default::default() }),
                tags: [("team".to_owned(), owner.to_owned())].into(),
                ..Default::default()
            }),
            meta: Some(FeatureViewMeta {
                created_timestamp: created.map(|seconds| prost_types::Timestamp { seconds, nanos: 0 }),
                ..Default::default()
            }),
        })
    }

    fn names(sort_by: &str, sort_order: &str) -> String {
        let views = vec![
            view("b", "Zoe", Some("x"), Some(9)),
            view("A", "amy", None, None),
            view("c", "amy", Some("Y"), Some(10)),
        ];
        let sorting = SortingParams { sort_by: sort_by.into(), sort_order: sort_order.into() };
        let (sorted, _) = page(views, None, Some(&sorting));
        sorted.iter().map(|view| view.name().expect("a name")).collect()
    }

    #[test]
    fn lists_are_sorted_by_paths_of_attributes() {
        for (path, ascending, descending) in [
            ("name", "Abc", "cbA"),
            ("owner", "Acb", "bAc"),
            ("batch_source.name", "Abc", "cbA"),
            ("created_timestamp", "Abc", "cbA"),
            ("tags.team", "Acb", "bAc"),
            ("online", "Acb", "bAc"),
            ("enabled", "bAc", "bAc"),
            ("state", "bAc", "bAc"),
            ("nonsense", "bAc", "bAc"),
            ("spec.name", "bAc", "bAc"),
            ("  ", "bAc", "bAc"),
        ] {
            assert_eq!(names(path, "asc"), ascending, "{path}");
            assert_eq!(names(path, "DESC"), descending, "{path}");
        }
    }

    #[test]
    fn pages_count_from_one() {
        let views = || (0..5).map(|i| view(&i.to_string(), "", None, None)).collect::<Vec<_>>();
        let page_of = |number, limit| {
            let (page, metadata) = page(views(), Some(PaginationParams { page: number, limit }), None);
            (page.iter().map(|view| view.name().expect("a name")).collect::<String>(), metadata)
        };
        let metadata = |page, limit, total_pages, has_next, has_previous| PaginationMetadata {
            page,
            limit,
            total_count: 5,
            total_pages,
            has_next,
            has_previous,
        };
        assert_eq!(page_of(1, 2), ("01".to_owned(), metadata(1, 2, 3, true, false)));
        assert_eq!(page_of(3, 2), ("4".to_owned(), metadata(3, 2, 3, false, true)));
        assert_eq!(page_of(9, 2), (String::new(), metadata(9, 2, 3, false, true)));
        assert_eq!(page_of(i32::MAX, i32::MAX).0, "");
        for whole in [(0, 2), (1, 0), (-1, 2)] {
            assert_eq!(page_of(whole.0, whole.1), ("01234".to_owned(), metadata(0, 0, 1, false, false)));
        }
        assert_eq!(page(Vec::<Object>::new(), None, None).1, PaginationMetadata::default());
    }
    #[test]
    fn every_attribute_can_be_asked_for() {
        let view = view("b", "Zoe", Some("x"), Some(9));
        for path in [
            "batch_source",
            "stream_source",
            "tags",
            "features",
            "ttl",
            "meta",
            "batch_source.path",
            "batch_source.meta",
        ] {
            view.sort_key(path);
        }
    }

    /// A source of a push source of a push source …, as deep as any message can be.
    fn deep() -> Object {
        let mut source = DataSource { name: "deep".into(), ..Default::default() };
        for _ in 0..90 {
            source = DataSource { batch_source: Some(Box::new(source)), ..Default::default() };
        }
        Object::encode(&source)
    }

    #[test]
    fn a_path_goes_as_deep_as_a_message_does_and_no_further() {
        let below = |levels: usize| format!("{}name", "batch_source.".repeat(levels));
        assert_eq!(deep().sort_key(&below(90)), SortKey::text("deep"));
        assert_eq!(deep().sort_key(&below(91)), SortKey::Nothing);
        assert_eq!(deep().sort_key(&below(1_000_000)), SortKey::Nothing);
        assert_eq!(deep().sort_key(&".".repeat(1_000_000)), SortKey::Nothing);
        deep().sort_key("batch_source");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_path_and_no_object_panics(
            path in prop_oneof![
                prop::collection::vec(prop::sample::select(&SEGMENTS[..]), 0..8).prop_map(|all| all.join(".")),
                ".*",
            ],
            bytes in prop::collection::vec(any::<u8>(), 0..40),
            kind in prop::sample::select(feast_registry_core::Kind::ALL),
            number in any::<i32>(),
            limit in any::<i32>(),
        ) {
            let view = view("b", "Zoe", Some("x"), Some(i64::MAX));
            let objects = vec![view, deep(), Object::new(kind, bytes), Object::new(kind, Vec::new())];
            let sorting = SortingParams { sort_by: path.clone(), sort_order: "desc".into() };
            let (objects, metadata) = page(objects, Some(PaginationParams { page: number, limit }), Some(&sorting));
            prop_assert!(objects.len() <= 4 && metadata.total_count == 4, "{path}");
            let end = Reference { object_type: ObjectType::Entity, name: String::new() };
            Relation { source: end.clone(), target: end }.sort_key(&path);
        }
    }

    const SEGMENTS: [&str; 16] = [
        "",
        " ",
        "name",
        "meta",
        "spec",
        "batch_source",
        "tags",
        "team",
        "features",
        "enabled",
        "path",
        "state",
        "source",
        "target",
        "type",
        "运",
    ];
}
