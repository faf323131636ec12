//! `featureDefinition`: the Python code that Feast's REST server puts into its answer about one object (Feast: the
//! routers and the templates of `feast.api.registry.rest`).
//!
//! The texts are Feast's to the byte, with all that is odd in them: nothing is escaped in names and descriptions, some
//! lines are joined, some names are not imported. So a client sees no difference, whatever it does with them. Two things
//! cannot be the same. Where Feast's order is that of a hash table, which is another one in each of its processes, ours is
//! fixed: tags and sources are sorted, imported types come in the order of their fields. And where Feast answers with an
//! error, since it cannot print a type or a length of time, or a field has no name, there is a text all the same.

mod python;
mod sources;
#[cfg(test)]
mod tests;
mod views;

use std::collections::BTreeMap;

use feast_registry_core::proto::core::logging_config::Destination;
use feast_registry_core::proto::core::{
    Entity, EntitySpecV2, FeatureService, FeatureServiceSpec, FeatureView, FeatureViewProjection, LabelView,
    LoggingConfig, OnDemandFeatureView, SavedDataset, SavedDatasetSpec, StreamFeatureView,
};
use feast_registry_core::{Feature, Kind, Object, Result};

/// The definition of an object; `None` for a kind that has none, and for a view without a spec.
pub(crate) fn of_object(object: &Object) -> Result<Option<String>> {
    Ok(match object.kind {
        Kind::Entity => Some(entity(&object.decode::<Entity>()?.spec.unwrap_or_default())),
        Kind::DataSource => Some(sources::definition(&object.decode()?)),
        Kind::FeatureView => object.decode::<FeatureView>()?.spec.as_ref().map(views::feature_view),
        Kind::StreamFeatureView => object.decode::<StreamFeatureView>()?.spec.as_ref().map(views::stream_feature_view),
        Kind::OnDemandFeatureView => {
            object.decode::<OnDemandFeatureView>()?.spec.as_ref().map(views::on_demand_feature_view)
        }
        Kind::LabelView => object.decode::<LabelView>()?.spec.as_ref().map(views::label_view),
        Kind::FeatureService => Some(feature_service(&object.decode::<FeatureService>()?.spec.unwrap_or_default())),
        Kind::SavedDataset => Some(saved_dataset(&object.decode::<SavedDataset>()?.spec.unwrap_or_default())),
        Kind::Project | Kind::ValidationReference | Kind::Permission | Kind::Infra => None,
    })
}

/// The definition of one feature of a view.
///
/// It says `dtype=String` whatever the feature's type is, as Feast's does: Feast looks for a name that its types do not have.
pub(crate) fn of_feature(feature: &Feature) -> String {
    let name = &feature.name;
    let details = description(&feature.description) + &tags("labels", &feature.tags);
    format!("from feast import Feature\n\n{name} = Feature(\n    name=\"{name}\",\n    dtype=String,\n{details}) ")
}

fn entity(spec: &EntitySpecV2) -> String {
    let name = or(&spec.name, "default_entity");
    let join_keys = python::list((!spec.join_key.is_empty()).then_some(&spec.join_key));
    let mut details = String::new();
    if !spec.description.is_empty() {
        details += &format!(",\n    description=\"{}\"", spec.description);
    }
    if !spec.tags.is_empty() {
        details += &format!(",\n    tags={}", python::dict(&spec.tags));
    }
    format!("from feast import Entity\n\n{name} = Entity(\n    name=\"{name}\",\n    join_keys={join_keys}{details}) ")
}

fn feature_service(spec: &FeatureServiceSpec) -> String {
    let name = or(&spec.name, "default_feature_service");
    let features = spec.features.iter().filter_map(projection).collect::<Vec<_>>().join(", ");
    let logging = spec.logging_config.as_ref().map(logging_config).filter(|config| !config.is_empty());
    let details = tags("tags", &spec.tags)
        + &description(&spec.description)
        + &logging.map_or_else(String::new, |config| format!("logging_config={config},"));
    format!(
        "from feast import FeatureService\n\n{name} = FeatureService(\n    name=\"{name}\",\n    features=[{features}],\n\
         {details}) "
    )
}

/// What a feature service takes of a view; `None` when it does not say of which.
fn projection(projection: &FeatureViewProjection) -> Option<String> {
    let view = &projection.feature_view_name;
    let mut columns =
        projection.feature_columns.iter().map(|column| &column.name).filter(|name| !name.is_empty()).peekable();
    match (view.is_empty(), columns.peek()) {
        (true, _) => None,
        (false, None) => Some(view.clone()),
        (false, Some(_)) => Some(format!("{view}[{}]", python::list(columns))),
    }
}

/// How a service logs, as the dictionary that Feast prints: protobuf's JSON, which omits what is empty.
fn logging_config(config: &LoggingConfig) -> python::Dict {
    let mut dict = python::Dict::default();
    // A negative zero is a value, as it is for protobuf.
    if config.sample_rate.to_bits() != 0 {
        dict.insert("sampleRate", &python::float(config.sample_rate));
    }
    if let Some(destination) = &config.destination {
        let (kind, destination) = log_destination(destination);
        dict.insert(kind, &destination.to_string());
    }
    dict
}

fn log_destination(destination: &Destination) -> (&'static str, python::Dict) {
    let mut dict = python::Dict::default();
    let kind = match destination {
        Destination::FileDestination(file) => {
            dict.insert_text("path", &file.path).insert_text("s3EndpointOverride", &file.s3_endpoint_override);
            if !file.partition_by.is_empty() {
                dict.insert("partitionBy", &python::list(&file.partition_by));
            }
            "fileDestination"
        }
        Destination::BigqueryDestination(table) => {
            dict.insert_text("tableRef", &table.table_ref);
            "bigqueryDestination"
        }
        Destination::RedshiftDestination(table) => {
            dict.insert_text("tableName", &table.table_name);
            "redshiftDestination"
        }
        Destination::SnowflakeDestination(table) => {
            dict.insert_text("tableName", &table.table_name);
            "snowflakeDestination"
        }
        Destination::CustomDestination(custom) => {
            dict.insert_text("kind", &custom.kind);
            if !custom.config.is_empty() {
                dict.insert("config", &python::dict(&custom.config));
            }
            "customDestination"
        }
        Destination::AthenaDestination(table) => {
            dict.insert_text("tableName", &table.table_name);
            "athenaDestination"
        }
        Destination::CouchbaseColumnarDestination(place) => {
            dict.insert_text("database", &place.database)
                .insert_text("scope", &place.scope)
                .insert_text("collection", &place.collection);
            "couchbaseColumnarDestination"
        }
    };
    (kind, dict)
}

fn saved_dataset(spec: &SavedDatasetSpec) -> String {
    let (name, features, tags) = (&spec.name, spec.features.join(", "), tags("tags", &spec.tags));
    format!(
        "from feast import SavedDataset\n\n{name} = SavedDataset(\n    name=\"{name}\",\n    features=[{features}],\n{tags}) "
    )
}

/// The argument that says what something is, if anything does.
fn description(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("description=\"{text}\",") }
}

/// The argument that tags are passed in, if there are any.
fn tags(argument: &str, tags: &BTreeMap<String, String>) -> String {
    if tags.is_empty() { String::new() } else { format!("{argument}={},", python::dict(tags)) }
}

fn or<'a>(text: &'a str, otherwise: &'a str) -> &'a str {
    if text.is_empty() { otherwise } else { text }
}
