//! Definitions of data sources.

use feast_registry_core::proto::core::DataSource;
use feast_registry_core::proto::core::data_source::{Options, SourceType};

use super::or;
use super::views::Schema;

/// The definition of a source. Whatever is neither for requests nor for pushes is a file to Feast, without a path where it is none.
pub(super) fn definition(source: &DataSource) -> String {
    let name = or(&source.name, "default_source");
    match (SourceType::try_from(source.r#type), &source.batch_source) {
        (Ok(SourceType::RequestSource), _) => request_source(name, source),
        (Ok(SourceType::PushSource), Some(batch)) => push_source(name, batch),
        _ => file_source(name, source),
    }
}

fn request_source(name: &str, source: &DataSource) -> String {
    let fields = match &source.options {
        Some(Options::RequestDataOptions(options)) => options.schema.as_slice(),
        _ => &[],
    };
    let Schema { types, lines } = Schema::without_descriptions(fields);
    format!(
        "from feast import RequestSource, Field\nfrom feast.types import {types}\n\n{name} = RequestSource(\n    \
         name=\"{name}\",\n    schema=[\n{lines}    ],\n) "
    )
}

fn push_source(name: &str, batch: &DataSource) -> String {
    let batch = or(&batch.name, "batch_source");
    format!("from feast import PushSource\n\n{name} = PushSource(\n    name=\"{name}\",\n    batch_source={batch},\n) ")
}

fn file_source(name: &str, source: &DataSource) -> String {
    let path = match &source.options {
        Some(Options::FileOptions(options)) => options.uri.as_str(),
        _ => "",
    };
    let timestamp = or(&source.timestamp_field, "event_timestamp");
    let created = match source.created_timestamp_column.as_str() {
        "" => String::new(),
        column => format!("created_timestamp_column=\"{column}\","),
    };
    format!(
        "from feast import FileSource\n\n{name} = FileSource(\n    name=\"{name}\",\n    path=\"{path}\",\n    \
         timestamp_field=\"{timestamp}\",\n{created}) "
    )
}
