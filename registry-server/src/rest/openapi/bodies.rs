//! Schemas of what is sent: what Feast's API makes objects of, and batches. Whole objects are sent as they are answered.

use feast_registry_core::Kind;
use serde_json::{Map, Value, json};

use super::forms::{closed, flag, list, one_of, optional_text, reference, tags, text};
use super::messages::{Schemas, properties};
use crate::rest::writes::kind_name;

/// Adds all of them.
pub(super) fn add(schemas: &mut Schemas) {
    let named = [
        ("ApplyEntity", entity()),
        ("ApplyDataSource", data_source()),
        ("ApplyFeatureView", feature_view()),
        ("ApplyFeatureService", feature_service()),
        ("ApplyPermission", permission()),
        ("ApplySavedDataset", saved_dataset()),
        ("Batch", batch()),
        ("Edit", edit()),
        ("ValidationReference", closed(&[], properties("feast.core.ValidationReference", schemas))),
    ];
    schemas.extend(named.map(|(name, schema)| (name.to_owned(), schema)));
}

/// A name or a text that must be there, and say something.
fn name() -> Value {
    json!({ "type": "string", "minLength": 1 })
}

fn optional(schema: Value) -> Value {
    json!({ "anyOf": [schema, { "type": "null" }] })
}

/// The number of a type of values, as of `feast.types.ValueType`, in a field that may hold these types of JSON.
fn value_type(types: &Value) -> Value {
    json!({
        "type": types, "minimum": 0, "maximum": 48, "default": 2,
        "description": "The number of a type of values, as in Feast's `ValueType`: 2 is a string, 4 an int64.",
    })
}

/// An object of which fields that it does not have are passed over, as by Feast's server.
fn open<const N: usize>(required: &[&str], properties: [(&str, Value); N], example: Value) -> Value {
    let properties: Map<String, Value> = properties.map(|(name, of)| (name.to_owned(), of)).into_iter().collect();
    json!({ "type": "object", "required": required, "properties": properties, "examples": [example] })
}

fn entity() -> Value {
    let fields = [
        ("name", name()),
        ("project", name()),
        ("join_key", optional_text()),
        // `null` says that it is not known, which a feature may not say.
        ("value_type", value_type(&json!(["integer", "null"]))),
        ("description", optional_text()),
        ("tags", optional(tags())),
        ("owner", optional_text()),
    ];
    open(&["name", "project"], fields, json!({ "name": "driver", "project": "rides", "join_key": "driver_id" }))
}

fn table() -> Value {
    let fields = ["table", "database", "schema_"].map(|field| (field.to_owned(), text()));
    let optional = ["query", "data_source"].map(|field| (field.to_owned(), optional_text()));
    let properties: Map<String, Value> = fields.into_iter().chain(optional).collect();
    json!({ "type": "object", "properties": properties })
}

/// A type of data source: its number, what it is, and the field that has its options.
type SourceForm = (i32, &'static str, Option<(&'static str, Value)>);

fn sources() -> Vec<SourceForm> {
    let of = |texts: &[&str], optional: &[&str]| {
        let texts = texts.iter().map(|field| ((*field).to_owned(), text()));
        let optional = optional.iter().map(|field| ((*field).to_owned(), optional_text()));
        let properties: Map<String, Value> = texts.chain(optional).collect();
        json!({ "type": "object", "properties": properties })
    };
    vec![
        (1, "A file", Some(("file_options", of(&["uri"], &["s3_endpoint_override"])))),
        (2, "BigQuery", Some(("bigquery_options", table()))),
        (3, "Kafka", Some(("kafka_options", of(&["kafka_bootstrap_servers", "topic"], &["message_format"])))),
        (4, "Kinesis", Some(("kinesis_options", of(&["region", "stream_name"], &["record_format"])))),
        (5, "Redshift", Some(("redshift_options", table()))),
        (6, "A class of its own", Some(("custom_options", of(&[], &["configuration"])))),
        (7, "A request", None),
        (8, "Snowflake", Some(("snowflake_options", table()))),
        (9, "What is pushed", None),
        (10, "Trino", Some(("trino_options", table()))),
        (
            11,
            "Spark",
            Some(("spark_options", of(&["table", "path"], &["query", "file_format", "date_partition_column_format"]))),
        ),
        (12, "Athena", Some(("athena_options", table()))),
    ]
}

fn data_source() -> Value {
    let of_type = |(number, title, options): SourceForm| {
        let mut required = vec!["name", "project", "type"];
        let mut properties = Map::from_iter([
            ("name".to_owned(), name()),
            ("project".to_owned(), name()),
            ("type".to_owned(), json!({ "const": number })),
        ]);
        for field in ["timestamp_field", "created_timestamp_column", "date_partition_column", "description", "owner"] {
            properties.insert(field.to_owned(), optional_text());
        }
        properties.insert("tags".to_owned(), optional(tags()));
        if number == 6 {
            let class = json!({ "type": "string", "pattern": r"^\w+(\.\w+)+$" });
            properties.insert("data_source_class_type".to_owned(), class);
            required.push("data_source_class_type");
        }
        if let Some((field, options)) = options {
            properties.insert(field.to_owned(), options);
            required.push(field);
        }
        json!({ "title": title, "type": "object", "required": required, "properties": properties })
    };
    let example = json!({
        "name": "trips", "project": "rides", "type": 1, "timestamp_field": "event_timestamp",
        "file_options": { "uri": "s3://bucket/trips.parquet" },
    });
    json!({ "anyOf": sources().into_iter().map(of_type).collect::<Vec<_>>(), "examples": [example] })
}

fn feature_view() -> Value {
    let feature = open(
        &["name"],
        [("name", name()), ("value_type", value_type(&json!("integer"))), ("description", optional_text())],
        json!({ "name": "rating", "value_type": 6 }),
    );
    let fields = [
        ("name", name()),
        ("project", name()),
        ("entities", json!({ "type": "array", "items": text(), "minItems": 1 })),
        ("features", optional(list(feature))),
        ("batch_source", optional_text()),
        ("ttl_seconds", json!({ "type": ["integer", "null"], "minimum": 0, "maximum": 315_576_000_000_i64 })),
        ("online", json!({ "type": ["boolean", "null"], "default": true })),
        ("description", optional_text()),
        ("tags", optional(tags())),
        ("owner", optional_text()),
    ];
    let example = json!({
        "name": "driver_ratings", "project": "rides", "entities": ["driver"], "batch_source": "trips",
        "features": [{ "name": "rating", "value_type": 6 }], "ttl_seconds": 86_400,
    });
    open(&["name", "project", "entities"], fields, example)
}

fn feature_service() -> Value {
    let of_view = open(
        &["feature_view_name"],
        [("feature_view_name", name()), ("feature_names", optional(list(text())))],
        json!({ "feature_view_name": "driver_ratings", "feature_names": ["rating"] }),
    );
    let fields = [
        ("name", name()),
        ("project", name()),
        ("features", list(of_view)),
        ("description", optional_text()),
        ("tags", optional(tags())),
        ("owner", optional_text()),
    ];
    let example = json!({
        "name": "ranking", "project": "rides",
        "features": [{ "feature_view_name": "driver_ratings", "feature_names": ["rating"] }],
    });
    open(&["name", "project", "features"], fields, example)
}

/// What a permission may be for.
const TYPES: [&str; 12] = [
    "PROJECT",
    "FEATURE_VIEW",
    "ON_DEMAND_FEATURE_VIEW",
    "BATCH_FEATURE_VIEW",
    "STREAM_FEATURE_VIEW",
    "LABEL_VIEW",
    "ENTITY",
    "FEATURE_SERVICE",
    "DATA_SOURCE",
    "VALIDATION_REFERENCE",
    "SAVED_DATASET",
    "PERMISSION",
];
const ACTIONS: [&str; 8] =
    ["CREATE", "DESCRIBE", "UPDATE", "DELETE", "READ_ONLINE", "READ_OFFLINE", "WRITE_ONLINE", "WRITE_OFFLINE"];

fn permission() -> Value {
    let names = |fields: &[&str]| {
        let properties: Map<String, Value> = fields.iter().map(|of| ((*of).to_owned(), list(text()))).collect();
        json!({ "type": "object", "required": fields, "properties": properties })
    };
    let policies = [
        ("role_based_policy", names(&["roles"])),
        ("group_based_policy", names(&["groups"])),
        ("namespace_based_policy", names(&["namespaces"])),
        ("combined_group_namespace_policy", names(&["groups", "namespaces"])),
    ];
    let policies = policies
        .map(|(field, policy)| json!({ "type": "object", "required": [field], "properties": { field: policy } }));
    let actions = json!({ "type": "array", "items": one_of(&ACTIONS), "minItems": 1 });
    let fields = [
        ("name", name()),
        ("project", name()),
        ("types", list(one_of(&TYPES))),
        ("name_patterns", list(text())),
        ("actions", actions),
        ("policy", json!({ "anyOf": policies })),
        ("tags", optional(tags())),
        ("required_tags", optional(tags())),
    ];
    let example = json!({
        "name": "readers", "project": "rides", "types": ["FEATURE_VIEW"], "actions": ["DESCRIBE"],
        "policy": { "role_based_policy": { "roles": ["reader"] } },
    });
    open(&["name", "project", "actions", "policy"], fields, example)
}

fn saved_dataset() -> Value {
    let fields = [
        ("name", name()),
        ("project", name()),
        ("storage_path", name()),
        ("storage_type", json!({ "type": "string", "default": "file" })),
        ("storage_file_format", optional_text()),
        ("features", list(text())),
        ("join_keys", list(text())),
        ("feature_service_name", optional_text()),
        ("full_feature_names", optional(flag())),
        ("allow_override", optional(flag())),
        ("tags", tags()),
        ("namespace", text()),
        ("collection", text()),
        ("description", text()),
    ];
    let example = json!({
        "name": "training", "project": "rides", "storage_path": "s3://bucket/training.parquet",
        "features": ["driver_ratings:rating"], "join_keys": ["driver_id"],
    });
    open(&["name", "project", "storage_path"], fields, example)
}

/// Many changes, which are one commit.
fn batch() -> Value {
    let edits = json!({
        "type": "array", "minItems": 1, "maxItems": 1000, "items": reference("Edit"),
        "description": "1 to 1,000 changes, in their order: later ones see earlier ones.",
    });
    let mut batch = closed(&["edits"], [("edits", edits)]);
    batch["examples"] = json!([{ "edits": [
        { "kind": "entity", "apply": { "spec": { "name": "driver", "joinKey": "driver_id" } } },
        { "kind": "feature_view", "name": "retired", "delete": true },
    ] }]);
    batch
}

/// The kinds of object that a batch changes, and the schemas of their objects.
const APPLIED: [(Kind, &str); 11] = [
    (Kind::Entity, "Entity"),
    (Kind::DataSource, "DataSource"),
    (Kind::FeatureView, "FeatureViewObject"),
    (Kind::StreamFeatureView, "StreamFeatureViewObject"),
    (Kind::OnDemandFeatureView, "OnDemandFeatureViewObject"),
    (Kind::LabelView, "LabelViewObject"),
    (Kind::FeatureService, "FeatureService"),
    (Kind::SavedDataset, "SavedDataset"),
    (Kind::ValidationReference, "ValidationReference"),
    (Kind::Permission, "Permission"),
    (Kind::Project, "Project"),
];

/// It applies an object of a kind, or deletes one.
fn edit() -> Value {
    let kinds = APPLIED.map(|(kind, _)| kind_name(kind));
    let about = |mut of: Value, about: &str| {
        of["description"] = json!(about);
        of
    };
    let named = "The name of what is deleted; with `apply` it may be left to the object.";
    let whole = "The whole object, as `GET` returns it, and as `PUT` takes it.";
    let if_match = "Change the object only if its tag is one of these (`*`: only if it exists).";
    let mut edit = closed(
        &["kind"],
        [
            ("kind", json!({ "enum": kinds, "description": "The kind of object." })),
            ("name", about(text(), named)),
            ("apply", json!({ "type": "object", "description": whole })),
            ("delete", json!({ "type": "boolean", "description": "`true` deletes the object." })),
            ("if_match", about(optional_text(), if_match)),
            (
                "if_none_match",
                json!({ "enum": ["*", null], "description": "`*`: only make it, if it does not exist." }),
            ),
        ],
    );
    // Which fields go together, and what an object of each kind is.
    let deleted = json!({
        "type": "object", "required": ["name", "delete"],
        "properties": { "delete": { "const": true }, "name": name(), "apply": false },
    });
    let applied = kinds.iter().zip(APPLIED).map(|(kind, (_, schema))| {
        json!({
            "type": "object", "required": ["apply"],
            "properties": { "kind": { "const": kind }, "apply": reference(schema), "delete": { "const": false } },
        })
    });
    edit["anyOf"] = applied.chain([deleted]).collect();
    edit["description"] = json!("One change: either `apply` with an object, or `delete`.");
    edit
}
