//! Definitions of views.

use std::collections::{BTreeMap, HashSet};

use feast_registry_core::proto::core::{
    DataSource, FeatureSpecV2, FeatureViewSpec, LabelViewSpec, OnDemandFeatureViewSpec, StreamFeatureViewSpec,
};
use feast_registry_core::proto::types::value_type::Enum as ValueType;
use feast_registry_core::value_type_name;
use prost_types::Duration;

use super::or;

/// What a view without a name is called.
const UNNAMED: &str = "example";

pub(super) fn feature_view(spec: &FeatureViewSpec) -> String {
    let source = if spec.source_views.is_empty() {
        source_name(spec.batch_source.as_ref(), "driver_stats_source").to_owned()
    } else {
        let views: Vec<&str> = spec.source_views.iter().map(|view| or(&view.name, "source_view")).collect();
        format!("[{}]", views.join(", "))
    };
    View {
        class: "FeatureView",
        name: &spec.name,
        entities: &spec.entities,
        features: &spec.features,
        ttl: spec.ttl.as_ref(),
        source: &source,
        tags: &spec.tags,
    }
    .definition()
}

pub(super) fn stream_feature_view(spec: &StreamFeatureViewSpec) -> String {
    View {
        class: "StreamFeatureView",
        name: &spec.name,
        entities: &spec.entities,
        features: &spec.features,
        ttl: spec.ttl.as_ref(),
        source: source_name(spec.stream_source.as_ref(), "stream_source"),
        tags: &spec.tags,
    }
    .definition()
}

/// Feast has no template for label views and prints them as feature views.
pub(super) fn label_view(spec: &LabelViewSpec) -> String {
    View {
        class: "FeatureView",
        name: &spec.name,
        entities: &spec.entities,
        features: &spec.features,
        ttl: spec.ttl.as_ref(),
        source: source_name(spec.source.as_ref(), "driver_stats_source"),
        tags: &spec.tags,
    }
    .definition()
}

pub(super) fn on_demand_feature_view(spec: &OnDemandFeatureViewSpec) -> String {
    let name = or(&spec.name, UNNAMED);
    let entities = spec.entities.join(", ");
    let source = if spec.sources.is_empty() {
        "source_feature_view".to_owned()
    } else {
        let sources: Vec<String> = spec.sources.keys().map(|source| format!("\"{source}\": {source}")).collect();
        format!("{{{}}}", sources.join(", "))
    };
    let Schema { types, lines } = Schema::of(&spec.features);
    format!(
        "from feast import Field\nfrom feast.on_demand_feature_view import on_demand_feature_view\n\
         import pandas as pd\nfrom feast.types import {types}\n\n\
         # Assumes {entities} and {source} are defined elsewhere in your repo\n@on_demand_feature_view(\n    \
         sources={source},\n    schema=[\n{lines}    ],\n)\ndef {name}(inputs: pd.DataFrame) -> pd.DataFrame:\n    \
         df = pd.DataFrame()\n    # Your transformation logic here\n    \
         # Example: df[\"feature_name\"] = inputs[\"source_column\"]\n    return df\n "
    )
}

fn source_name<'a>(source: Option<&'a DataSource>, otherwise: &'a str) -> &'a str {
    source.map_or(otherwise, |source| or(&source.name, otherwise))
}

/// What the definition of a view that is not on demand says.
struct View<'a> {
    class: &'a str,
    name: &'a str,
    entities: &'a [String],
    features: &'a [FeatureSpecV2],
    ttl: Option<&'a Duration>,
    source: &'a str,
    tags: &'a BTreeMap<String, String>,
}

impl View<'_> {
    /// It says that the view is online whether or not it is: in the JSON that Feast reads, an unset field is not there, and
    /// what is not there counts as set.
    fn definition(&self) -> String {
        let (class, name, source) = (self.class, or(self.name, UNNAMED), self.source);
        let entities = self.entities.join(", ");
        let ttl = ttl(self.ttl);
        let tags = super::tags("tags", self.tags);
        let Schema { types, lines } = Schema::of(self.features);
        format!(
            "from feast import Field, {class}\nfrom feast.types import {types}\n\n\
             # Assumes {entities} and {source} are defined elsewhere in your repo\n{name}_feature_view = {class}(\n    \
             name=\"{name}\",\n    entities=[{entities}],\n    ttl={ttl},\n    schema=[\n{lines}    ],\n    online=True,\n    \
             source={source},\n    {tags}\n)\n "
        )
    }
}

/// A view that says nothing of it lives for 0 seconds, which is what Feast's registry makes of it. Feast's REST server reads
/// whole seconds alone, and says a day where there is anything else.
fn ttl(ttl: Option<&Duration>) -> String {
    match ttl.copied().unwrap_or_default() {
        Duration { seconds: seconds @ 0.., nanos: 0 } => format!("timedelta(seconds={seconds})"),
        _ => "timedelta(days=1)".to_owned(),
    }
}

/// Fields, and what has to be imported for them.
pub(super) struct Schema {
    /// The types, each once, in the order of the fields.
    pub(super) types: String,
    /// A line for each field.
    pub(super) lines: String,
}

impl Schema {
    pub(super) fn of(fields: &[FeatureSpecV2]) -> Self {
        Self::from_fields(fields.iter().map(|field| (field, field.description.as_str())))
    }

    /// The same for fields whose descriptions Feast does not print.
    pub(super) fn without_descriptions(fields: &[FeatureSpecV2]) -> Self {
        Self::from_fields(fields.iter().map(|field| (field, "")))
    }

    fn from_fields<'a>(fields: impl Iterator<Item = (&'a FeatureSpecV2, &'a str)>) -> Self {
        let (mut types, mut seen, mut lines) = (Vec::new(), HashSet::new(), String::new());
        for (field, description) in fields {
            // A field whose type is not set is a string to Feast.
            let value_type = if field.value_type == 0 { ValueType::String as i32 } else { field.value_type };
            let dtype = value_type_name(value_type);
            lines += &format!("        Field(name=\"{}\", dtype={dtype}", field.name);
            if !description.is_empty() {
                lines += &format!(", description=\"{description}\"");
            }
            lines += "),\n";
            if seen.insert(value_type) {
                types.push(dtype);
            }
        }
        Self { types: types.join(", "), lines }
    }
}
