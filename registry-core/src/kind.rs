//! The twelve kinds of object that a registry keeps, and where each keeps its name, project, tags and timestamps.
//!
//! All that is different between two kinds, as far as storing them goes, is the row that they have in [`Kind::layout`].

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use prost::{DecodeError, Message};

use crate::error::{Error, Result};
use crate::proto::core;

/// A kind of object in a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A project: the namespace that all other objects live in.
    Project,
    /// An entity: what features describe, with its join key.
    Entity,
    /// A data source: batch, stream, push or request.
    DataSource,
    /// A feature view over a batch source (Feast's `FeatureView` and `BatchFeatureView`).
    FeatureView,
    /// A feature view over a stream source.
    StreamFeatureView,
    /// A feature view computed at request time.
    OnDemandFeatureView,
    /// A view of labels.
    LabelView,
    /// A feature service: a named selection of features.
    FeatureService,
    /// A saved dataset.
    SavedDataset,
    /// A validation reference: a saved dataset with a profiler.
    ValidationReference,
    /// A permission.
    Permission,
    /// The infrastructure of a project; there is one a project and it has no name of its own.
    Infra,
}

/// Field numbers that locate in a message what the registry itself looks at.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    /// The sub-message with the definition; `None` when the definition's fields stand in the message itself.
    pub spec: Option<u32>,
    /// The sub-message that the registry keeps its own facts in.
    pub meta: Option<u32>,
    /// The name, within the spec.
    pub name: Option<u32>,
    /// The project, within the spec.
    pub project: Option<u32>,
    /// The map of tags, within the spec.
    pub tags: Option<u32>,
    /// The description in words, within the spec.
    pub description: Option<u32>,
    /// The specifications of a view's features, within the spec.
    pub features: Option<u32>,
    /// When the object was made, within the meta.
    pub created_timestamp: u32,
    /// When the object was last changed, within the meta.
    pub last_updated_timestamp: u32,
    /// The intervals that were materialized, within the meta of a view that can be.
    pub materialization_intervals: Option<u32>,
    /// The version that a view is at, within the meta.
    pub current_version_number: Option<u32>,
    /// A view's state, within the meta.
    pub state: Option<u32>,
    /// How many fields the meta has, counted from 1: those beyond are a newer Feast's.
    pub known_meta_fields: u32,
}

const fn layout(name: u32, project: Option<u32>, tags: u32) -> Layout {
    Layout {
        spec: Some(1),
        meta: Some(2),
        name: Some(name),
        project,
        tags: Some(tags),
        description: None,
        features: None,
        created_timestamp: 1,
        last_updated_timestamp: 2,
        materialization_intervals: None,
        current_version_number: None,
        state: None,
        known_meta_fields: 2,
    }
}

impl Layout {
    const fn described(self, description: u32) -> Self {
        Self { description: Some(description), ..self }
    }

    const fn with_features(self, features: u32) -> Self {
        Self { features: Some(features), ..self }
    }
}

/// What the meta of feature views and stream feature views has beyond the two timestamps (`FeatureViewMeta`).
const fn materialized(layout: Layout) -> Layout {
    Layout {
        materialization_intervals: Some(3),
        current_version_number: Some(4),
        state: Some(6),
        known_meta_fields: 6,
        ..layout
    }
}

impl Kind {
    /// Every kind, in the order in which a repository is applied: what is referred to comes first.
    pub const ALL: &'static [Kind] = &[
        Kind::Project,
        Kind::Entity,
        Kind::DataSource,
        Kind::FeatureView,
        Kind::StreamFeatureView,
        Kind::OnDemandFeatureView,
        Kind::LabelView,
        Kind::FeatureService,
        Kind::SavedDataset,
        Kind::ValidationReference,
        Kind::Permission,
        Kind::Infra,
    ];

    /// The four kinds of view, which share one space of names in a project. Listed in the order of Feast's listings
    /// (`list_all_feature_views`).
    pub const VIEWS: &'static [Kind] =
        &[Kind::FeatureView, Kind::StreamFeatureView, Kind::OnDemandFeatureView, Kind::LabelView];

    /// Whether this is one of the four kinds of view.
    pub fn is_view(self) -> bool {
        Self::VIEWS.contains(&self)
    }

    /// Where a message of this kind keeps what the registry looks at. Field numbers are Feast's.
    pub const fn layout(self) -> Layout {
        match self {
            Kind::Project => layout(1, None, 3).described(2),
            Kind::Entity => layout(1, Some(9), 8).described(3),
            Kind::FeatureView => materialized(layout(1, Some(2), 5)).described(10).with_features(4),
            Kind::StreamFeatureView => materialized(layout(1, Some(2), 7)).described(6).with_features(4),
            Kind::OnDemandFeatureView => Layout {
                current_version_number: Some(3),
                state: Some(5),
                known_meta_fields: 5,
                ..layout(1, Some(2), 7).described(6).with_features(3)
            },
            Kind::LabelView => layout(1, Some(2), 5).described(9).with_features(4),
            Kind::FeatureService => layout(1, Some(2), 4).described(5),
            Kind::SavedDataset => Layout { known_meta_fields: 4, ..layout(1, Some(2), 7).described(11) },
            Kind::Permission => layout(1, Some(2), 8),
            Kind::DataSource => Layout {
                spec: None,
                meta: Some(50),
                created_timestamp: 3,
                last_updated_timestamp: 4,
                known_meta_fields: 4,
                ..layout(20, Some(21), 24).described(23)
            },
            Kind::ValidationReference => Layout { spec: None, meta: None, ..layout(1, Some(3), 5).described(4) },
            Kind::Infra => Layout { spec: None, meta: None, name: None, tags: None, ..layout(1, None, 1) },
        }
    }

    /// The name of the protobuf message in package `feast.core`, which is also the name of Feast's Python class.
    pub const fn message_name(self) -> &'static str {
        match self {
            Kind::Project => "Project",
            Kind::Entity => "Entity",
            Kind::DataSource => "DataSource",
            Kind::FeatureView => "FeatureView",
            Kind::StreamFeatureView => "StreamFeatureView",
            Kind::OnDemandFeatureView => "OnDemandFeatureView",
            Kind::LabelView => "LabelView",
            Kind::FeatureService => "FeatureService",
            Kind::SavedDataset => "SavedDataset",
            Kind::ValidationReference => "ValidationReference",
            Kind::Permission => "Permission",
            Kind::Infra => "Infra",
        }
    }

    /// The kind in words, in the singular: `feature view`.
    pub const fn label(self) -> &'static str {
        match self {
            Kind::Project => "project",
            Kind::Entity => "entity",
            Kind::DataSource => "data source",
            Kind::FeatureView => "feature view",
            Kind::StreamFeatureView => "stream feature view",
            Kind::OnDemandFeatureView => "on demand feature view",
            Kind::LabelView => "label view",
            Kind::FeatureService => "feature service",
            Kind::SavedDataset => "saved dataset",
            Kind::ValidationReference => "validation reference",
            Kind::Permission => "permission",
            Kind::Infra => "infrastructure",
        }
    }

    /// The kind as commands and the fields of Feast's `Registry` message spell it, in the plural: `feature_views`.
    ///
    /// It never changes, so it may be stored and sent: what one version writes, every other reads
    /// (`plurals_are_a_stable_encoding`).
    pub const fn plural(self) -> &'static str {
        match self {
            Kind::Project => "projects",
            Kind::Entity => "entities",
            Kind::DataSource => "data_sources",
            Kind::FeatureView => "feature_views",
            Kind::StreamFeatureView => "stream_feature_views",
            Kind::OnDemandFeatureView => "on_demand_feature_views",
            Kind::LabelView => "label_views",
            Kind::FeatureService => "feature_services",
            Kind::SavedDataset => "saved_datasets",
            Kind::ValidationReference => "validation_references",
            Kind::Permission => "permissions",
            Kind::Infra => "infra",
        }
    }

    /// The field of Feast's `Registry` message that holds the objects of this kind (`Registry.proto`).
    pub const fn registry_field(self) -> u32 {
        match self {
            Kind::Project => 17,
            Kind::Entity => 1,
            Kind::DataSource => 12,
            Kind::FeatureView => 6,
            Kind::StreamFeatureView => 14,
            Kind::OnDemandFeatureView => 8,
            Kind::LabelView => 19,
            Kind::FeatureService => 7,
            Kind::SavedDataset => 11,
            Kind::ValidationReference => 13,
            Kind::Permission => 16,
            Kind::Infra => 10,
        }
    }

    /// What the version history calls a kind of view (`feature_view_type`); `None` for kinds without a history.
    pub const fn version_type(self) -> Option<&'static str> {
        match self {
            Kind::FeatureView => Some("feature_view"),
            Kind::StreamFeatureView => Some("stream_feature_view"),
            Kind::OnDemandFeatureView => Some("on_demand_feature_view"),
            Kind::LabelView => Some("label_view"),
            _ => None,
        }
    }

    /// The kind of view that the version history calls by this name.
    pub fn from_version_type(name: &str) -> Option<Self> {
        Self::VIEWS.iter().copied().find(|kind| kind.version_type() == Some(name))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

impl FromStr for Kind {
    type Err = Error;

    /// Reads a kind as a person writes it: singular or plural, with spaces, hyphens or underscores, in any case.
    fn from_str(text: &str) -> Result<Self> {
        let wanted = text.to_lowercase().replace(['-', ' '], "_");
        Self::ALL
            .iter()
            .copied()
            .find(|kind| kind.plural() == wanted || kind.label().replace(' ', "_") == wanted)
            .ok_or_else(|| {
                let known: Vec<_> = Self::ALL.iter().map(|kind| kind.plural().replace('_', "-")).collect();
                let known = known.join(", ");
                Error::invalid(format!("`{text}` is not a kind of object; the kinds are {known}"))
            })
    }
}

/// A protobuf message that is an object of the registry.
pub trait FeastObject: prost::Message + Default + Clone + PartialEq {
    /// The kind of object that the message is.
    const KIND: Kind;
}

macro_rules! feast_objects {
    ($($message:ident),* $(,)?) => {
        $(impl FeastObject for core::$message {
            const KIND: Kind = Kind::$message;
        })*

        impl Kind {
            /// Decodes a message of this kind, for the errors that this may have.
            pub(crate) fn check(self, message: &Bytes) -> Result<(), DecodeError> {
                match self {
                    $(Kind::$message => core::$message::decode(message.clone()).map(drop),)*
                }
            }
        }
    };
}

feast_objects!(
    Project,
    Entity,
    DataSource,
    FeatureView,
    StreamFeatureView,
    OnDemandFeatureView,
    LabelView,
    FeatureService,
    SavedDataset,
    ValidationReference,
    Permission,
    Infra,
);

#[cfg(test)]
mod tests {
    use prost_reflect::MessageDescriptor;

    use super::*;
    use crate::proto::DESCRIPTORS;

    fn message(name: &str) -> MessageDescriptor {
        DESCRIPTORS.get_message_by_name(&format!("feast.core.{name}")).expect("a message of feast.core")
    }

    /// The field numbers above are held against the descriptors, by name.
    #[test]
    fn layouts_are_those_of_the_descriptors() {
        for &kind in Kind::ALL {
            let layout = kind.layout();
            let object = message(kind.message_name());
            let sub = |number: Option<u32>, name: &str| match number {
                None => object.clone(),
                Some(number) => {
                    let field = object.get_field(number).expect("a sub-message");
                    assert_eq!(field.name(), name, "{kind}");
                    field.kind().as_message().expect("a message").clone()
                }
            };
            let spec = sub(layout.spec, "spec");
            let named = |number: Option<u32>| number.map(|n| spec.get_field(n).expect("a field").name().to_owned());
            let has = |name: &str| spec.get_field_by_name(name).map(|field| field.name().to_owned());
            assert_eq!(named(layout.name), has("name"), "{kind}");
            assert_eq!(named(layout.project), has("project"), "{kind}");
            assert_eq!(named(layout.tags), has("tags"), "{kind}");
            assert_eq!(named(layout.description), has("description"), "{kind}");
            assert_eq!(named(layout.features), has("features").filter(|_| kind.is_view()), "{kind}");
            if layout.meta.is_some() {
                let meta = sub(layout.meta, "meta");
                for (number, name) in [
                    (Some(layout.created_timestamp), "created_timestamp"),
                    (Some(layout.last_updated_timestamp), "last_updated_timestamp"),
                    (layout.materialization_intervals, "materialization_intervals"),
                    (layout.current_version_number, "current_version_number"),
                    (layout.state, "state"),
                ] {
                    assert_eq!(number, meta.get_field_by_name(name).map(|field| field.number()), "{kind}: {name}");
                }
                assert_eq!(meta.fields().map(|field| field.number()).max(), Some(layout.known_meta_fields), "{kind}");
            } else {
                assert!(object.get_field_by_name("meta").is_none(), "{kind}");
            }
            let field = message("Registry").get_field(kind.registry_field()).expect("a field of Registry");
            assert_eq!(field.name(), kind.plural());
        }
    }

    /// Stored in journals and sent between versions: a test that is only ever added to.
    #[test]
    fn plurals_are_a_stable_encoding() {
        let encoded = [
            (Kind::Project, "projects"),
            (Kind::Entity, "entities"),
            (Kind::DataSource, "data_sources"),
            (Kind::FeatureView, "feature_views"),
            (Kind::StreamFeatureView, "stream_feature_views"),
            (Kind::OnDemandFeatureView, "on_demand_feature_views"),
            (Kind::LabelView, "label_views"),
            (Kind::FeatureService, "feature_services"),
            (Kind::SavedDataset, "saved_datasets"),
            (Kind::ValidationReference, "validation_references"),
            (Kind::Permission, "permissions"),
            (Kind::Infra, "infra"),
        ];
        assert_eq!(encoded.len(), Kind::ALL.len());
        for (kind, plural) in encoded {
            assert_eq!(kind.plural(), plural);
            assert_eq!(plural.parse::<Kind>().expect("a kind"), kind);
        }
    }

    #[test]
    fn kinds_are_read_as_people_write_them() {
        for text in ["feature-views", "feature_view", "Feature View", "FEATURE-VIEWS"] {
            assert_eq!(text.parse::<Kind>().expect("a kind"), Kind::FeatureView);
        }
        let error = "featureview".parse::<Kind>().expect_err("not a kind").to_string();
        assert!(error.contains("`featureview`") && error.contains("on-demand-feature-views"), "{error}");
    }
}
