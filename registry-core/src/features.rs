//! Features as a list of their own (Feast: `RegistryServer.ListFeatures`, `feast.types`, `feast.field`).

use std::collections::BTreeMap;

use crate::encoded::Object;
use crate::error::Result;
use crate::kind::Kind;
use crate::proto::core::{FeatureSpecV2, FeatureView, LabelView, OnDemandFeatureView, StreamFeatureView};
use crate::proto::types::value_type::Enum as ValueType;

/// A feature, or a label, of a view.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Feature {
    /// Its name.
    pub name: String,
    /// The view that it is of.
    pub view: String,
    /// Its type as Feast's Python prints it: `Int64`, `Array(Float32)`.
    pub type_name: String,
    /// What it is, in words.
    pub description: String,
    /// Its tags, without those that Feast keeps a type's details in.
    pub tags: BTreeMap<String, String>,
    /// Whether it is of a label view.
    pub is_label: bool,
}

/// The tag that holds the fields of a struct type, as JSON.
const STRUCT_SCHEMA: &str = "feast:struct_schema";
/// The tag that holds the whole type of a collection of collections.
const NESTED_TYPE: &str = "feast:nested_inner_type";

impl Feature {
    /// The tags of a feature's specification that say more about its type, and are not among its [`tags`](Self::tags).
    pub const TYPE_TAGS: [&str; 2] = [STRUCT_SCHEMA, NESTED_TYPE];

    /// The features of a view, in their order; none for an object that is no view.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when the view cannot be decoded.
    pub fn of_view(view: &Object) -> Result<Vec<Self>> {
        let features = match view.kind {
            Kind::FeatureView => view.decode::<FeatureView>()?.spec.unwrap_or_default().features,
            Kind::StreamFeatureView => view.decode::<StreamFeatureView>()?.spec.unwrap_or_default().features,
            Kind::OnDemandFeatureView => view.decode::<OnDemandFeatureView>()?.spec.unwrap_or_default().features,
            Kind::LabelView => view.decode::<LabelView>()?.spec.unwrap_or_default().features,
            _ => Vec::new(),
        };
        let name = view.name()?;
        let feature = |mut spec: FeatureSpecV2| {
            let type_name = type_name(&spec);
            spec.tags.retain(|tag, _| !Feature::TYPE_TAGS.contains(&tag.as_str()));
            Self {
                name: spec.name,
                view: name.clone(),
                type_name,
                description: spec.description,
                tags: spec.tags,
                is_label: view.kind == Kind::LabelView,
            }
        };
        Ok(features.into_iter().map(feature).collect())
    }
}

/// The type of a feature as Feast's Python prints it.
fn type_name(feature: &FeatureSpecV2) -> String {
    let Ok(value_type) = ValueType::try_from(feature.value_type) else {
        // Two types are in Feast's Python (`feast.value_type`) and not in its messages.
        return match feature.value_type {
            30 => "PdfBytes".to_owned(),
            31 => "ImageBytes".to_owned(),
            other => format!("ValueType({other})"),
        };
    };
    let described = match value_type {
        ValueType::Struct => feature.tags.get(STRUCT_SCHEMA).and_then(|schema| struct_type(schema)),
        ValueType::StructList => {
            feature.tags.get(STRUCT_SCHEMA).and_then(|schema| Some(format!("Array({})", struct_type(schema)?)))
        }
        ValueType::ValueList | ValueType::ValueSet => {
            feature.tags.get(NESTED_TYPE).map(|inner| described_type(inner, 0))
        }
        _ => None,
    };
    described.unwrap_or_else(|| plain_type(value_type))
}

/// The type that a value type stands for when nothing more is said about it.
fn plain_type(value_type: ValueType) -> String {
    match value_type {
        ValueType::Struct => return "Struct({_value: String})".to_owned(),
        ValueType::StructList => return "Array(Struct({_value: String}))".to_owned(),
        ValueType::ValueList => return "Array(Array(String))".to_owned(),
        ValueType::ValueSet => return "Set(Array(String))".to_owned(),
        _ => {}
    }
    let name = value_type.as_str_name();
    if let Some(element) = name.strip_suffix("_LIST") {
        format!("Array({})", primitive(element))
    } else if let Some(element) = name.strip_suffix("_SET") {
        format!("Set({})", primitive(element))
    } else {
        primitive(name)
    }
}

/// A primitive type, from its name as a value type or as a Feast type.
fn primitive(name: &str) -> String {
    match name {
        "DOUBLE" => "Float64".to_owned(),
        "FLOAT" => "Float32".to_owned(),
        _ => name.split('_').map(capitalized).collect(),
    }
}

fn capitalized(word: &str) -> String {
    let mut chars = word.chars();
    let Some(first) = chars.next() else { return String::new() };
    first.to_uppercase().chain(chars.as_str().to_lowercase().chars()).collect()
}

/// How deep structs may be in each other: deeper than any that Feast's Python could make, since each level is JSON in a
/// string of the level above and so doubles the backslashes before a quote.
const MAX_STRUCT_DEPTH: usize = 32;

/// What stands for a struct that is too deep within others.
const TOO_DEEP: &str = "Struct(…)";

/// A type as Feast spells it in a tag, `Array(INT64)`, printed.
///
/// Collections are taken off in a loop and structs are counted by `depth`, so no text makes this recurse without a bound:
/// `no_text_in_a_tag_ends_the_process`.
fn described_type(text: &str, depth: usize) -> String {
    let (mut inner, mut levels) = (text, 0);
    while let Some(element) = element_of(inner) {
        (inner, levels) = (element, levels + 1);
    }
    let of_struct = || -> Option<String> {
        let nested: serde_json::Value = serde_json::from_str(inner).ok()?;
        Some(struct_of(nested.get("__struct__")?.as_object()?, depth))
    };
    let printed = of_struct().unwrap_or_else(|| primitive(inner));
    // What was taken off is printed as it is spelled: names and opening brackets before, as many closing ones behind.
    let opening = text.len() - inner.len() - levels;
    format!("{}{printed}{}", &text[..opening], ")".repeat(levels))
}

/// The type of the elements, if a type is spelled as that of a collection.
fn element_of(text: &str) -> Option<&str> {
    let rest = text.strip_prefix("Array").or_else(|| text.strip_prefix("Set"))?;
    rest.strip_prefix('(')?.strip_suffix(')')
}

fn struct_type(schema: &str) -> Option<String> {
    Some(struct_of(serde_json::from_str::<serde_json::Value>(schema).ok()?.as_object()?, 0))
}

fn struct_of(fields: &serde_json::Map<String, serde_json::Value>, depth: usize) -> String {
    if depth == MAX_STRUCT_DEPTH {
        return TOO_DEEP.to_owned();
    }
    let field = |(name, of): (&String, &serde_json::Value)| {
        format!("{name}: {}", described_type(of.as_str().unwrap_or_default(), depth + 1))
    };
    format!("Struct({{{}}})", fields.iter().map(field).collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn feature(value_type: ValueType, tags: &[(&str, &str)]) -> FeatureSpecV2 {
        FeatureSpecV2 {
            value_type: value_type as i32,
            tags: tags.iter().map(|(tag, value)| ((*tag).to_owned(), (*value).to_owned())).collect(),
            ..Default::default()
        }
    }

    #[test]
    fn types_are_printed_as_python_prints_them() {
        for (value_type, printed) in [
            (ValueType::Int64, "Int64"),
            (ValueType::Double, "Float64"),
            (ValueType::UnixTimestampList, "Array(UnixTimestamp)"),
            (ValueType::FloatSet, "Set(Float32)"),
            (ValueType::TimeUuid, "TimeUuid"),
            (ValueType::Struct, "Struct({_value: String})"),
        ] {
            assert_eq!(type_name(&feature(value_type, &[])), printed);
        }
        let schema = r#"{"z": "INT32", "a": "Array(STRING)"}"#;
        assert_eq!(
            type_name(&feature(ValueType::Struct, &[(STRUCT_SCHEMA, schema)])),
            "Struct({z: Int32, a: Array(String)})"
        );
        let nested = feature(ValueType::ValueList, &[(NESTED_TYPE, "Array(Set(INT64))")]);
        assert_eq!(type_name(&nested), "Array(Set(Int64))");
    }
    #[test]
    fn nested_structs_are_printed_level_by_level() {
        let inner = serde_json::json!({ "__struct__": { "x": "DOUBLE" } }).to_string();
        let outer = serde_json::json!({ "__struct__": { "points": format!("Array({inner})") } }).to_string();
        let nested = feature(ValueType::ValueList, &[(NESTED_TYPE, &format!("Array(Set({outer}))"))]);
        assert_eq!(type_name(&nested), "Array(Set(Struct({points: Array(Struct({x: Float64}))})))");
    }

    /// A stack of 256 KB is an eighth of what a worker of the server has.
    #[test]
    fn no_text_in_a_tag_ends_the_process() {
        let collections = |depth| format!("{}INT64{}", "Array(".repeat(depth), ")".repeat(depth));
        let mut structs = "INT64".to_owned();
        for _ in 0..14 {
            structs = serde_json::json!({ "__struct__": { "a": structs } }).to_string();
        }
        let texts = [
            ("é".to_owned(), "É".to_owned()),
            ("ß_É_INT64".to_owned(), "SSÉInt64".to_owned()),
            (String::new(), String::new()),
            ("Array(".repeat(20_000), "Array(".to_owned() + &"array(".repeat(19_999)),
            (collections(200_000), collections(200_000).replace("INT64", "Int64")),
            (structs, format!("{}Int64{}", "Struct({a: ".repeat(14), "})".repeat(14))),
        ];
        let print = move || {
            for (text, printed) in texts {
                for value_type in [ValueType::ValueList, ValueType::ValueSet] {
                    assert_eq!(type_name(&feature(value_type, &[(NESTED_TYPE, &text)])), printed);
                }
            }
            for json in ["[".repeat(100_000), "{\"a\":".repeat(100_000), r#"{"__struct__": 1}"#.to_owned()] {
                type_name(&feature(ValueType::ValueList, &[(NESTED_TYPE, &json)]));
                type_name(&feature(ValueType::Struct, &[(STRUCT_SCHEMA, &json)]));
            }
        };
        std::thread::Builder::new().stack_size(256 << 10).spawn(print).expect("a thread").join().expect("no panic");
    }

    #[test]
    fn structs_that_are_too_deep_are_cut() {
        let fields = serde_json::json!({ "a": "INT64" });
        assert_eq!(struct_of(fields.as_object().expect("an object"), MAX_STRUCT_DEPTH), TOO_DEEP);
    }
    /// A type, as Feast spells it in a tag and as it prints it.
    fn types() -> impl Strategy<Value = (String, String)> {
        let primitive = prop::sample::select(vec![
            ("INT64", "Int64"),
            ("FLOAT32", "Float32"),
            ("DOUBLE", "Float64"),
            ("UNIX_TIMESTAMP", "UnixTimestamp"),
            ("STRING", "String"),
        ]);
        let primitive = primitive.prop_map(|(spelled, printed)| (spelled.to_owned(), printed.to_owned()));
        primitive.prop_recursive(5, 24, 3, |inner| {
            let collection = (prop::sample::select(vec!["Array", "Set"]), inner.clone())
                .prop_map(|(of, (spelled, printed))| (format!("{of}({spelled})"), format!("{of}({printed})")));
            let fields = prop::collection::vec(("[a-z\"é:(),]{1,3}", inner), 1..3);
            let structs = fields.prop_map(|fields| {
                let mut names = std::collections::HashSet::new();
                let fields: Vec<_> = fields.into_iter().filter(|(name, _)| names.insert(name.clone())).collect();
                let spelled: serde_json::Map<String, serde_json::Value> =
                    fields.iter().map(|(name, (spelled, _))| (name.clone(), spelled.as_str().into())).collect();
                let printed: Vec<_> = fields.iter().map(|(name, (_, printed))| format!("{name}: {printed}")).collect();
                (
                    serde_json::json!({ "__struct__": spelled }).to_string(),
                    format!("Struct({{{}}})", printed.join(", ")),
                )
            });
            prop_oneof![collection, structs]
        })
    }

    /// What a tag may hold: pieces of types in any order, and anything.
    fn texts() -> impl Strategy<Value = String> {
        const PIECES: [&str; 28] = [
            "Array(",
            "Set(",
            ")",
            "Array",
            "Set",
            "(",
            "{",
            "}",
            "[",
            "]",
            "\"",
            "\\",
            ":",
            ",",
            "_",
            "__struct__",
            "INT64",
            "é",
            "ß",
            "İ",
            "ǆ",
            "運",
            "\u{301}",
            "\0",
            "\n",
            "1e999",
            "null",
            "{\"__struct__\":{\"a\":\"",
        ];
        prop_oneof![prop::collection::vec(prop::sample::select(&PIECES[..]), 0..40).prop_map(|all| all.concat()), ".*"]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn types_that_feast_makes_are_printed_as_it_does((spelled, printed) in types()) {
            prop_assert_eq!(described_type(&spelled, 0), printed);
        }

        #[test]
        fn no_text_in_a_tag_panics(text in texts()) {
            for value_type in [ValueType::ValueList, ValueType::ValueSet, ValueType::Struct, ValueType::StructList] {
                type_name(&feature(value_type, &[(NESTED_TYPE, &text), (STRUCT_SCHEMA, &text)]));
            }
        }
    }
}
