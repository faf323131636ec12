//! Saved datasets, made of what Feast's API takes; and what only Feast's Python can do with them.

use std::collections::{BTreeMap, HashSet};

use feast_registry_core::proto::core::data_source::{
    AthenaOptions, BigQueryOptions, CustomSourceOptions, FileOptions, RedshiftOptions, SnowflakeOptions, SparkOptions,
    TrinoOptions,
};
use feast_registry_core::proto::core::saved_dataset_storage::Kind as Storage;
use feast_registry_core::proto::core::{
    Entity, FeatureService, SavedDataset, SavedDatasetMeta, SavedDatasetSpec, SavedDatasetStorage,
};
use feast_registry_core::{Condition, Edit, ErrorKind, Freshness, Kind, Object};
use serde::Deserialize;
use serde_json::json;
use tonic::codegen::http::StatusCode;

use super::super::answer::Answer;
use super::super::call::Call;
use super::super::error::{RestError, Result};
use super::lax;

fn file() -> String {
    "file".to_owned()
}

#[derive(Debug, Deserialize)]
struct SavedDatasetBody {
    name: String,
    project: String,
    #[serde(default)]
    features: Vec<String>,
    #[serde(default)]
    join_keys: Vec<String>,
    #[serde(default, deserialize_with = "lax::nothing")]
    storage_path: String,
    #[serde(default = "file")]
    storage_type: String,
    #[serde(default, deserialize_with = "lax::nothing")]
    storage_file_format: String,
    #[serde(default)]
    tags: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "lax::flag")]
    full_feature_names: Option<bool>,
    #[serde(default, deserialize_with = "lax::nothing")]
    feature_service_name: String,
    #[serde(default, deserialize_with = "lax::flag")]
    allow_override: Option<bool>,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    collection: String,
    #[serde(default)]
    description: String,
}

impl Call {
    /// `POST /saved_datasets`.
    pub(crate) async fn apply_saved_dataset(self) -> Result<Answer> {
        let mut body: SavedDatasetBody = self.body().await?;
        for (field, value) in [("name", &body.name), ("project", &body.project), ("storage_path", &body.storage_path)] {
            if value.trim().is_empty() {
                return Err(RestError::new(StatusCode::BAD_REQUEST, format!("`{field}` is missing or empty")));
            }
        }
        if !body.feature_service_name.is_empty() && (body.features.is_empty() || body.join_keys.is_empty()) {
            self.fill_from_service(&mut body).await?;
        }
        let spec = SavedDatasetSpec {
            storage: Some(SavedDatasetStorage { kind: Some(body.storage()) }),
            name: body.name.clone(),
            features: body.features,
            join_keys: body.join_keys,
            full_feature_names: body.full_feature_names.unwrap_or_default(),
            tags: body.tags,
            feature_service_name: body.feature_service_name,
            namespace: body.namespace,
            collection: body.collection,
            description: body.description,
            ..Default::default()
        };
        let dataset = SavedDataset { spec: Some(spec), meta: Some(SavedDatasetMeta::default()) };
        let conditions = self.conditions()?;
        // Who says what must be so of what is there knows of it.
        let may_replace = body.allow_override.unwrap_or_default() || !conditions.are_none();
        let mut edit = conditions.on(Edit::apply(Object::encode(&dataset)));
        if !may_replace {
            edit = edit.when(Condition::absent());
        }
        let edited = match self.registry.edit(&body.project, vec![edit], Default::default()).await {
            Err(error) if error.kind() == ErrorKind::Changed && !may_replace => {
                return Err(RestError::new(
                    StatusCode::CONFLICT,
                    format!(
                        "project `{}` has a saved dataset `{}` already; `allow_override` replaces it",
                        body.project, body.name
                    ),
                ));
            }
            edited => edited?.into_iter().next(),
        };
        let told = json!({ "status": "ok", "name": body.name, "project": body.project });
        self.done(told, edited.as_ref(), StatusCode::OK)
    }

    /// The features and join keys that a feature service says, where none are said. A service that is not there says nothing.
    async fn fill_from_service(&self, body: &mut SavedDatasetBody) -> Result<()> {
        let (project, service) = (body.project.trim(), body.feature_service_name.trim());
        let service = match self.registry.get(Kind::FeatureService, project, service, Freshness::Stored).await {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound(_)) => return Ok(()),
            service => service?.decode::<FeatureService>()?.spec.unwrap_or_default(),
        };
        let (mut features, mut join_keys) = (Vec::new(), Vec::new());
        let mut seen = HashSet::new();
        for projection in service.features {
            let view = &projection.feature_view_name;
            features.extend(projection.feature_columns.iter().map(|feature| format!("{view}:{}", feature.name)));
            let view = match self.registry.get_any_view(project, view, Freshness::Stored).await {
                Err(error) if error.kind() == ErrorKind::ViewNotFound => continue,
                view => view?,
            };
            for entity in crate::lists::entities_of(&view)? {
                let found = self.registry.get(Kind::Entity, project, &entity, Freshness::Stored).await;
                let join_key = match found {
                    Err(error) if matches!(error.kind(), ErrorKind::NotFound(_)) => continue,
                    found => found?.decode::<Entity>()?.spec.unwrap_or_default().join_key,
                };
                if !join_key.is_empty() && seen.insert(join_key.clone()) {
                    join_keys.push(join_key);
                }
            }
        }
        if body.features.is_empty() {
            body.features = features;
        }
        if body.join_keys.is_empty() {
            body.join_keys = join_keys;
        }
        Ok(())
    }

    /// What only Feast's Python can do.
    pub(crate) async fn needs_python(self) -> Result<Answer> {
        Err(RestError::new(
            StatusCode::NOT_IMPLEMENTED,
            "data of a dataset is read and made with Feast's offline store, which runs in Python: use a FeatureStore \
             (`get_saved_dataset`, `create_saved_dataset`)",
        ))
    }

    /// `GET /saved_datasets/jobs`: there are none here.
    pub(crate) async fn dataset_jobs(self) -> Result<Answer> {
        Ok(Answer::json(&json!({ "jobs": [] })))
    }

    /// `GET /saved_datasets/jobs/{job_id}`.
    pub(crate) async fn dataset_job(self) -> Result<Answer> {
        let job = self.given.text_or_empty("job_id");
        Err(RestError::not_found(format!("there is no dataset job `{job}`: this server runs none")))
    }
}

impl SavedDatasetBody {
    /// Where the dataset is.
    fn storage(&self) -> Storage {
        let path = self.storage_path.trim().to_owned();
        let custom = |configuration: String| {
            Storage::CustomStorage(CustomSourceOptions { configuration: configuration.into_bytes().into() })
        };
        match self.storage_type.as_str() {
            "bigquery" => Storage::BigqueryStorage(BigQueryOptions { table: path, ..Default::default() }),
            "redshift" => Storage::RedshiftStorage(RedshiftOptions { table: path, ..Default::default() }),
            "snowflake" => Storage::SnowflakeStorage(SnowflakeOptions { table: path, ..Default::default() }),
            "trino" => Storage::TrinoStorage(TrinoOptions { table: path, ..Default::default() }),
            "athena" => Storage::AthenaStorage(AthenaOptions { table: path, ..Default::default() }),
            "spark" => {
                let file_format = match self.storage_file_format.as_str() {
                    "" => "parquet",
                    format => format,
                };
                Storage::SparkStorage(SparkOptions { path, file_format: file_format.to_owned(), ..Default::default() })
            }
            "postgres" | "clickhouse" => custom(json!({ "name": null, "query": null, "table": path }).to_string()),
            "couchbase" => {
                let mut parts = path.splitn(3, '.');
                let mut part = || parts.next().unwrap_or_default();
                let (database, scope, collection) = (part(), part(), part());
                let configuration = json!({
                    "name": null, "query": null, "database": database, "scope": scope, "collection": collection
                });
                custom(configuration.to_string())
            }
            "custom" => custom(path),
            _ => Storage::FileStorage(FileOptions { uri: path, ..Default::default() }),
        }
    }
}
