//! Whether two definitions of one object are the same, and whether a view's schema changed so that it is a new version
//! (Feast: the `__eq__` and `_schema_or_udf_changed` of `FeatureView`, `StreamFeatureView`, `OnDemandFeatureView`, …).
//!
//! The comparison is on the messages themselves, so it sees every field, those of a newer Feast included. It looks past
//! what Feast looks past: the order of entities, timestamps, the project's name inside the message, and
//! spellings of the version. Feast also looks past more than that by accident (the tags and features of an on demand
//! feature view, a disabled view), and then silently ignores an apply that changes only those; this does not.

use bytes::Bytes;
use prost_reflect::{DynamicMessage, FieldDescriptor, ReflectMessage, Value};

use crate::encoded::Object;
use crate::error::{Error, ErrorKind, Result};
use crate::kind::Kind;
use crate::proto::DESCRIPTORS;
use crate::proto::core::{OnDemandFeatureView, StreamFeatureView, feature_transformation_v2::Transformation};
use crate::rules::pin::Version;
use crate::wire;

/// How closely definitions are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Closeness {
    /// All of the definition.
    Exact,
    /// The definition but for the version that is asked for, and for the pickled bytes of a function whose source is
    /// known: pickling the same function twice need not give the same bytes.
    Pinning,
    /// As for pinning, and without regard to the order of features, which is no matter of the schema.
    Schema,
}

/// Whether two objects of one kind have the same definition.
pub(crate) fn is_same(one: &Object, other: &Object, closeness: Closeness) -> Result<bool> {
    if one.bytes == other.bytes {
        return Ok(true);
    }
    Ok(comparable(one, closeness)? == comparable(other, closeness)?)
}

/// Whether two objects of one kind are the same to an apply.
#[cfg(test)]
pub(crate) fn is_same_definition(one: &Object, other: &Object) -> Result<bool> {
    is_same(one, other, Closeness::Exact)
}

/// The definition in a form in which the same definition is equal.
fn comparable(object: &Object, closeness: Closeness) -> Result<DynamicMessage> {
    let name = format!("feast.core.{}", object.kind.message_name());
    let descriptor = DESCRIPTORS
        .get_message_by_name(&name)
        .ok_or_else(|| Error::internal(format!("{name} is missing from the descriptors")))?;
    // What the registry keeps about the object may be much more than its definition.
    let meta = object.kind.layout().meta;
    let definition = wire::retain(&object.bytes, |field| Some(field) != meta)?;
    let mut message = DynamicMessage::decode(descriptor, definition.as_slice()).map_err(|error| {
        Error::new(ErrorKind::Corrupt, format!("a {} cannot be decoded", object.kind)).with_source(error)
    })?;
    normalize(&mut message, closeness);
    Ok(message)
}

/// Repeated fields whose order means nothing, by message. For the schema of a view, that of its features does not either.
const UNORDERED: [(&str, &[&str]); 7] = [
    ("feast.core.FeatureViewSpec", &["entities", "entity_columns"]),
    // Feast's client lists the features of a stream view in the order of a Python set: another one in each process.
    ("feast.core.StreamFeatureViewSpec", &["entities", "entity_columns", "features"]),
    ("feast.core.OnDemandFeatureViewSpec", &["entities", "entity_columns"]),
    ("feast.core.LabelViewSpec", &["entities", "entity_columns"]),
    ("feast.core.FeatureServiceSpec", &["features"]),
    ("feast.core.SavedDatasetSpec", &["features", "join_keys"]),
    ("feast.core.PermissionSpec", &["types"]),
];

/// Whether a field says nothing of what its message defines: the project is where an object is, not what it is; and a source
/// inside a view carries the timestamps that the source had when the client last saw it.
pub(crate) fn is_beside(field: &FieldDescriptor) -> bool {
    field.name() == "project" || field.name() == "meta" && field.parent_message().full_name() == "feast.core.DataSource"
}

/// Whether the order of what a repeated field has means nothing.
pub(crate) fn is_unordered(field: &FieldDescriptor) -> bool {
    let message = field.parent_message();
    UNORDERED.iter().any(|(of, fields)| *of == message.full_name() && fields.contains(&field.name()))
}

fn normalize(message: &mut DynamicMessage, closeness: Closeness) {
    let descriptor = message.descriptor();
    let name = descriptor.full_name();
    descriptor.fields().filter(is_beside).for_each(|field| message.clear_field(&field));
    if let Some(Value::Message(ttl)) = message.get_field_by_name("ttl").as_deref()
        && ttl.fields().next().is_none()
    {
        message.clear_field_by_name("ttl");
    }
    if let Some(Value::String(version)) = message.get_field_by_name("version").as_deref() {
        let version = match (closeness, Version::parse(version)) {
            (Closeness::Exact, Ok(Version::Pinned(number))) => Some(format!("v{number}")),
            (Closeness::Exact, Err(_)) => Some(version.clone()),
            _ => None,
        };
        match version {
            Some(version) => message.set_field_by_name("version", Value::String(version)),
            None => message.clear_field_by_name("version"),
        }
    }
    let has_source =
        matches!(message.get_field_by_name("body_text").as_deref(), Some(Value::String(text)) if !text.is_empty());
    if closeness != Closeness::Exact && has_source {
        message.clear_field_by_name("body");
    }
    for (_, value) in message.fields_mut() {
        match value {
            Value::Message(inner) => normalize(inner, closeness),
            Value::List(items) => {
                items.iter_mut().filter_map(Value::as_message_mut).for_each(|m| normalize(m, closeness))
            }
            Value::Map(entries) => {
                entries.values_mut().filter_map(Value::as_message_mut).for_each(|m| normalize(m, closeness))
            }
            _ => {}
        }
    }
    let unordered = UNORDERED.iter().filter(|(of, _)| *of == name).flat_map(|(_, fields)| *fields);
    let of_schema = closeness == Closeness::Schema && name.ends_with("ViewSpec");
    for field in unordered.chain(of_schema.then_some(&"features")) {
        if message.has_field_by_name(field)
            && let Some(Value::List(items)) = message.get_field_by_name_mut(field)
        {
            items.sort_by_cached_key(order);
            if *field == "types" {
                items.dedup();
            }
        }
    }
}

/// A key to sort the items of an unordered field by.
fn order(item: &Value) -> (String, i32) {
    match item {
        Value::String(text) => (text.clone(), 0),
        Value::EnumNumber(number) => (String::new(), *number),
        Value::Message(message) => {
            let text = |field| {
                let value = message.get_field_by_name(field);
                value.and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
            };
            (format!("{}\0{}\0{}", text("name"), text("feature_view_name"), text("feature_view_name_alias")), 0)
        }
        _ => (String::new(), 0),
    }
}

/// Whether the schema of a view, or the function that computes it, changed so that it is a new version.
///
/// What a view is called, who owns it, its tags, sources and time to live are not of its schema. Functions are compared
/// by their source, and by their pickled bytes only where no source is known; nothing is ever unpickled.
pub(crate) fn schema_changed(old: &Object, new: &Object) -> Result<bool> {
    Ok(schema(old)? != schema(new)? || function_of(old)? != function_of(new)?)
}

/// The fields of a view's spec that make a version, but for its function.
fn schema_fields(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::FeatureView => &["features", "entities", "entity_columns", "source_views"],
        Kind::StreamFeatureView => {
            &["features", "entities", "entity_columns", "aggregations", "timestamp_field", "mode"]
        }
        Kind::OnDemandFeatureView => &["features", "entity_columns", "aggregations", "sources"],
        Kind::LabelView => &["features"],
        _ => &[],
    }
}

fn schema(view: &Object) -> Result<Vec<Option<Value>>> {
    let message = comparable(view, Closeness::Schema)?;
    let Some(Value::Message(spec)) = message.get_field_by_name("spec").map(std::borrow::Cow::into_owned) else {
        return Ok(Vec::new());
    };
    let field = |name: &&str| spec.get_field_by_name(name).map(std::borrow::Cow::into_owned);
    Ok(schema_fields(view.kind).iter().map(field).collect())
}

/// What computes a view: in which mode, by which form of transformation, and its source, else its bytes.
type Function = (String, &'static str, String, Bytes);

#[allow(deprecated)] // Feast writes the field `user_defined_function` still, and before 0.36 wrote no other.
fn function_of(view: &Object) -> Result<Option<Function>> {
    let function = |mode: &str, source: String, body: Bytes| {
        let body = if source.is_empty() { body } else { Bytes::new() };
        (mode.to_owned(), "function", source, body)
    };
    match view.kind {
        Kind::StreamFeatureView => {
            let spec = view.decode::<StreamFeatureView>()?.spec.unwrap_or_default();
            Ok(spec.user_defined_function.map(|udf| function(&spec.mode, udf.body_text, udf.body)))
        }
        Kind::OnDemandFeatureView => {
            let spec = view.decode::<OnDemandFeatureView>()?.spec.unwrap_or_default();
            // The mode that Feast takes for none.
            let mode = if spec.mode.is_empty() { "pandas".to_owned() } else { spec.mode };
            Ok(Some(match (spec.feature_transformation.and_then(|of| of.transformation), spec.user_defined_function) {
                (Some(Transformation::UserDefinedFunction(udf)), None) => function(&mode, udf.body_text, udf.body),
                (Some(Transformation::UserDefinedFunction(udf)), _) if !udf.body_text.is_empty() => {
                    function(&mode, udf.body_text, udf.body)
                }
                (Some(Transformation::SubstraitTransformation(plan)), _) => {
                    (mode, "substrait", String::new(), plan.substrait_plan)
                }
                (_, Some(udf)) => function(&mode, udf.body_text, udf.body),
                (None, None) => (mode, "none", String::new(), Bytes::new()),
            }))
        }
        _ => Ok(None),
    }
}
