//! Entities, feature views, feature services and permissions, made of what Feast's API takes.

use std::collections::BTreeMap;

use feast_registry_core::proto::core::{
    CombinedGroupNamespacePolicy, DataSource, Entity, EntitySpecV2, FeatureService, FeatureServiceSpec, FeatureSpecV2,
    FeatureView, FeatureViewProjection, FeatureViewSpec, GroupBasedPolicy, NamespaceBasedPolicy, Permission,
    PermissionSpec, Policy, RoleBasedPolicy, data_source::SourceType, permission_spec, policy::PolicyType,
};
use feast_registry_core::proto::types::value_type::Enum as ValueType;
use feast_registry_core::{Freshness, Kind, Object};
use serde::Deserialize;
use tonic::codegen::http::StatusCode;

use super::super::answer::Answer;
use super::super::call::Call;
use super::super::error::{RestError, Result};
use super::lax;

/// What a value is of if nothing is said: a text.
const STRING: i64 = 2;
/// Two types of Feast's Python that its messages have no name for.
const BEYOND: [i32; 2] = [30, 31];
/// The longest time that protobuf has, in seconds.
const LONGEST_DURATION: i64 = 315_576_000_000;

fn string() -> Option<i64> {
    Some(STRING)
}

fn yes() -> Option<bool> {
    Some(true)
}

/// A number that may say what type a value is of. `null`, which is no type of a value, is none.
fn value_type_of(number: i64) -> Result<i32> {
    let is_known = |of: &i32| BEYOND.contains(of) || ValueType::try_from(*of).is_ok_and(|of| of != ValueType::Null);
    let known = i32::try_from(number).ok().filter(is_known);
    known.ok_or_else(|| RestError::invalid_value(format!("`value_type`: {number} is no type of value")))
}

/// What most kinds of object are given.
#[derive(Debug, Deserialize)]
pub(super) struct Common {
    pub(super) name: String,
    pub(super) project: String,
    #[serde(default, deserialize_with = "lax::nothing")]
    pub(super) description: String,
    #[serde(default, deserialize_with = "lax::nothing")]
    pub(super) tags: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "lax::nothing")]
    pub(super) owner: String,
}

#[derive(Debug, Deserialize)]
struct EntityBody {
    #[serde(flatten)]
    common: Common,
    #[serde(default, deserialize_with = "lax::nothing")]
    join_key: String,
    #[serde(default = "string", deserialize_with = "lax::number")]
    value_type: Option<i64>,
}

#[derive(Debug, Deserialize)]
struct FeatureBody {
    name: String,
    #[serde(default = "string", deserialize_with = "lax::number")]
    value_type: Option<i64>,
    #[serde(default, deserialize_with = "lax::nothing")]
    description: String,
}

#[derive(Debug, Deserialize)]
struct FeatureViewBody {
    #[serde(flatten)]
    common: Common,
    #[serde(default, deserialize_with = "lax::nothing")]
    entities: Vec<String>,
    #[serde(default, deserialize_with = "lax::nothing")]
    features: Vec<FeatureBody>,
    #[serde(default, deserialize_with = "lax::nothing")]
    batch_source: String,
    #[serde(default, deserialize_with = "lax::number")]
    ttl_seconds: Option<i64>,
    #[serde(default = "yes", deserialize_with = "lax::flag")]
    online: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct ServiceFeatureBody {
    feature_view_name: String,
    #[serde(default, deserialize_with = "lax::nothing")]
    feature_names: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct FeatureServiceBody {
    #[serde(flatten)]
    common: Common,
    features: Vec<ServiceFeatureBody>,
}

#[derive(Debug, Deserialize)]
struct Roles {
    roles: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Groups {
    groups: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Namespaces {
    namespaces: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct GroupsAndNamespaces {
    groups: Vec<String>,
    namespaces: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct PolicyBody {
    role_based_policy: Option<Roles>,
    group_based_policy: Option<Groups>,
    namespace_based_policy: Option<Namespaces>,
    combined_group_namespace_policy: Option<GroupsAndNamespaces>,
}

#[derive(Debug, Deserialize)]
struct PermissionBody {
    name: String,
    project: String,
    #[serde(default)]
    types: Vec<String>,
    #[serde(default)]
    name_patterns: Vec<String>,
    #[serde(default)]
    actions: Vec<String>,
    policy: PolicyBody,
    #[serde(default, deserialize_with = "lax::nothing")]
    tags: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "lax::nothing")]
    required_tags: BTreeMap<String, String>,
}

impl Call {
    /// `POST /entities`.
    pub(crate) async fn apply_entity(self) -> Result<Answer> {
        let body: EntityBody = self.body().await?;
        let join_key = if body.join_key.is_empty() { body.common.name.clone() } else { body.join_key };
        let spec = EntitySpecV2 {
            name: body.common.name,
            // `null` says that it is not known.
            value_type: value_type_of(body.value_type.unwrap_or_default())?,
            join_key,
            description: body.common.description,
            tags: body.common.tags,
            owner: body.common.owner,
            ..Default::default()
        };
        self.apply(&body.common.project, Object::encode(&Entity { spec: Some(spec), meta: None })).await
    }

    /// `POST /feature_views`.
    pub(crate) async fn apply_feature_view(self) -> Result<Answer> {
        let body: FeatureViewBody = self.body().await?;
        if body.entities.is_empty() {
            return Err(RestError::invalid_value(format!(
                "feature view `{}` has no entities: name those that its features describe",
                body.common.name
            )));
        }
        let source = match body.batch_source.as_str() {
            "" => None,
            name => Some(self.source_of_view(&body.common.project, name).await?),
        };
        // A source that is written to goes beside the one that it is stored in.
        let (batch_source, stream_source) = match source {
            Some(source) if is_stream(&source) => (source.batch_source.clone().map(|batch| *batch), Some(source)),
            source => (source, None),
        };
        let ttl = body.ttl_seconds.unwrap_or_default();
        if ttl.abs() > LONGEST_DURATION {
            return Err(RestError::invalid_value(format!("`ttl_seconds`: {ttl} s is longer than any time may be")));
        }
        let feature = |feature: FeatureBody| {
            if feature.name.is_empty() {
                return Err(RestError::invalid_value("a feature has no name"));
            }
            let value_type = feature.value_type.ok_or_else(|| {
                RestError::invalid_request(format!("`value_type` of feature `{}` is null", feature.name))
            })?;
            let value_type = value_type_of(value_type)?;
            Ok(FeatureSpecV2 { name: feature.name, value_type, description: feature.description, ..Default::default() })
        };
        let spec = FeatureViewSpec {
            name: body.common.name,
            entities: body.entities,
            features: body.features.into_iter().map(feature).collect::<Result<_>>()?,
            batch_source,
            stream_source,
            ttl: Some(prost_types::Duration { seconds: ttl, nanos: 0 }),
            online: body.online.unwrap_or(true),
            description: body.common.description,
            tags: body.common.tags,
            owner: body.common.owner,
            version: "latest".to_owned(),
            ..Default::default()
        };
        self.apply(&body.common.project, Object::encode(&FeatureView { spec: Some(spec), meta: None })).await
    }

    /// A data source as a view has it: whole, with the class that reads it.
    async fn source_of_view(&self, project: &str, name: &str) -> Result<DataSource> {
        let source = self.registry.get(Kind::DataSource, project, name, Freshness::Stored).await?;
        let mut source: DataSource = source.decode()?;
        fill_class(&mut source);
        if let Some(batch) = &mut source.batch_source {
            fill_class(batch);
        }
        Ok(source)
    }

    /// `POST /feature_services`.
    pub(crate) async fn apply_feature_service(self) -> Result<Answer> {
        let body: FeatureServiceBody = self.body().await?;
        let column = |name: String| FeatureSpecV2 { name, ..Default::default() };
        let projection = |of: ServiceFeatureBody| FeatureViewProjection {
            feature_view_name: of.feature_view_name,
            feature_columns: of.feature_names.into_iter().map(column).collect(),
            ..Default::default()
        };
        let spec = FeatureServiceSpec {
            name: body.common.name,
            features: body.features.into_iter().map(projection).collect(),
            description: body.common.description,
            tags: body.common.tags,
            owner: body.common.owner,
            ..Default::default()
        };
        self.apply(&body.common.project, Object::encode(&FeatureService { spec: Some(spec), meta: None })).await
    }

    /// `POST /permissions`.
    pub(crate) async fn apply_permission(self) -> Result<Answer> {
        let body: PermissionBody = self.body().await?;
        let mut types =
            numbers("types", &body.types, |name| permission_spec::Type::from_str_name(name).map(|of| of as i32))?;
        if types.is_empty() {
            types = ALL_TYPES.iter().map(|of| *of as i32).collect();
        }
        let actions = numbers("actions", &body.actions, |name| {
            permission_spec::AuthzedAction::from_str_name(name).map(|of| of as i32)
        })?;
        if actions.is_empty() {
            return Err(RestError::invalid_value("`actions` is empty: name the actions that the permission is for"));
        }
        let policy = policy_of(body.policy).ok_or_else(|| {
            RestError::invalid_value("`policy` is empty: name roles, groups or namespaces that the permission is for")
        })?;
        let spec = PermissionSpec {
            name: body.name,
            types,
            name_patterns: body.name_patterns,
            actions,
            policy: Some(Policy { policy_type: Some(policy), ..Default::default() }),
            tags: body.tags,
            required_tags: body.required_tags,
            ..Default::default()
        };
        self.apply(&body.project, Object::encode(&Permission { spec: Some(spec), meta: None })).await
    }
}

/// What a permission is for that names no types, in Feast's order.
const ALL_TYPES: [permission_spec::Type; 12] = {
    use permission_spec::Type::*;
    [
        Project,
        FeatureView,
        OnDemandFeatureView,
        BatchFeatureView,
        StreamFeatureView,
        LabelView,
        Entity,
        FeatureService,
        DataSource,
        ValidationReference,
        SavedDataset,
        Permission,
    ]
};

/// Names of an enumeration as its numbers.
fn numbers(field: &str, names: &[String], number: impl Fn(&str) -> Option<i32>) -> Result<Vec<i32>> {
    let unknown: Vec<&str> = names.iter().map(String::as_str).filter(|name| number(name).is_none()).collect();
    if !unknown.is_empty() {
        let unknown = unknown.join(", ");
        return Err(RestError::new(StatusCode::BAD_REQUEST, format!("`{field}`: there is no {unknown}")));
    }
    Ok(names.iter().filter_map(|name| number(name)).collect())
}

/// The first that is given, in Feast's order.
fn policy_of(body: PolicyBody) -> Option<PolicyType> {
    let PolicyBody { role_based_policy, group_based_policy, namespace_based_policy, combined_group_namespace_policy } =
        body;
    role_based_policy
        .map(|of| PolicyType::RoleBasedPolicy(RoleBasedPolicy { roles: of.roles }))
        .or_else(|| group_based_policy.map(|of| PolicyType::GroupBasedPolicy(GroupBasedPolicy { groups: of.groups })))
        .or_else(|| {
            let policy =
                |of: Namespaces| PolicyType::NamespaceBasedPolicy(NamespaceBasedPolicy { namespaces: of.namespaces });
            namespace_based_policy.map(policy)
        })
        .or_else(|| {
            combined_group_namespace_policy.map(|GroupsAndNamespaces { groups, namespaces }| {
                PolicyType::CombinedGroupNamespacePolicy(CombinedGroupNamespacePolicy { groups, namespaces })
            })
        })
}

fn is_stream(source: &DataSource) -> bool {
    matches!(source.r#type(), SourceType::PushSource | SourceType::StreamKafka | SourceType::StreamKinesis)
}

/// A source of a view says by which class of Feast's Python it is read.
fn fill_class(source: &mut DataSource) {
    if source.data_source_class_type.is_empty() {
        source.data_source_class_type = class_of(source.r#type()).to_owned();
    }
}

/// The class of Feast's Python that reads a source of a type; nothing if that does not say it.
pub(super) fn class_of(source_type: SourceType) -> &'static str {
    match source_type {
        SourceType::BatchFile => "feast.infra.offline_stores.file_source.FileSource",
        SourceType::BatchBigquery => "feast.infra.offline_stores.bigquery_source.BigQuerySource",
        SourceType::BatchRedshift => "feast.infra.offline_stores.redshift_source.RedshiftSource",
        SourceType::BatchSnowflake => "feast.infra.offline_stores.snowflake_source.SnowflakeSource",
        SourceType::BatchSpark => "feast.infra.offline_stores.contrib.spark_offline_store.spark_source.SparkSource",
        SourceType::BatchTrino => "feast.infra.offline_stores.contrib.trino_offline_store.trino_source.TrinoSource",
        SourceType::BatchAthena => "feast.infra.offline_stores.contrib.athena_offline_store.athena_source.AthenaSource",
        SourceType::PushSource => "feast.data_source.PushSource",
        SourceType::StreamKafka => "feast.data_source.KafkaSource",
        SourceType::StreamKinesis => "feast.data_source.KinesisSource",
        SourceType::RequestSource => "feast.data_source.RequestSource",
        _ => "",
    }
}
