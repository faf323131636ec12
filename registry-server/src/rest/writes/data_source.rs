//! Data sources, made of what Feast's API takes.

use feast_registry_core::Object;
use feast_registry_core::proto::core::data_source::{
    AthenaOptions, BigQueryOptions, CustomSourceOptions, FileOptions, KafkaOptions, KinesisOptions, Options,
    RedshiftOptions, RequestDataOptions, SnowflakeOptions, SourceType, SparkOptions, TrinoOptions,
};
use feast_registry_core::proto::core::{DataSource, StreamFormat, stream_format};
use serde::Deserialize;

use super::super::answer::Answer;
use super::super::call::Call;
use super::super::error::{RestError, Result};
use super::bodies::{Common, class_of};
use super::lax;

/// Where Redshift looks for a table that says no schema.
const REDSHIFT_SCHEMA: &str = "public";

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct File {
    uri: String,
    #[serde(deserialize_with = "lax::nothing")]
    s3_endpoint_override: String,
}

/// A table or a query, of a warehouse.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Table {
    table: String,
    #[serde(deserialize_with = "lax::nothing")]
    query: String,
    database: String,
    schema_: String,
    #[serde(deserialize_with = "lax::nothing")]
    data_source: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Spark {
    table: String,
    path: String,
    #[serde(deserialize_with = "lax::nothing")]
    query: String,
    #[serde(deserialize_with = "lax::nothing")]
    file_format: String,
    #[serde(deserialize_with = "lax::nothing")]
    date_partition_column_format: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Kafka {
    kafka_bootstrap_servers: String,
    topic: String,
    #[serde(deserialize_with = "lax::nothing")]
    message_format: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Kinesis {
    region: String,
    stream_name: String,
    #[serde(deserialize_with = "lax::nothing")]
    record_format: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Custom {
    #[serde(deserialize_with = "lax::nothing")]
    configuration: String,
}

#[derive(Debug, Deserialize)]
struct DataSourceBody {
    #[serde(flatten)]
    common: Common,
    #[serde(default, rename = "type", deserialize_with = "lax::number")]
    source_type: Option<i64>,
    #[serde(default, deserialize_with = "lax::nothing")]
    timestamp_field: String,
    #[serde(default, deserialize_with = "lax::nothing")]
    created_timestamp_column: String,
    #[serde(default, deserialize_with = "lax::nothing")]
    date_partition_column: String,
    #[serde(default, deserialize_with = "lax::nothing")]
    data_source_class_type: String,
    file_options: Option<File>,
    bigquery_options: Option<Table>,
    snowflake_options: Option<Table>,
    redshift_options: Option<Table>,
    kafka_options: Option<Kafka>,
    spark_options: Option<Spark>,
    trino_options: Option<Table>,
    athena_options: Option<Table>,
    kinesis_options: Option<Kinesis>,
    custom_options: Option<Custom>,
}

impl Call {
    /// `POST /data_sources`.
    pub(crate) async fn apply_data_source(self) -> Result<Answer> {
        let mut body: DataSourceBody = self.body().await?;
        let source_type = body.source_type.and_then(|number| i32::try_from(number).ok());
        let source_type = source_type.and_then(|number| SourceType::try_from(number).ok());
        let source_type = source_type.filter(|of| *of != SourceType::Invalid).ok_or_else(|| {
            RestError::invalid_value(format!(
                "`type`: the type of data source `{}` is missing or unknown: give its number, as 1 for a file",
                body.common.name
            ))
        })?;
        let options = body.options(source_type)?;
        let is_spark = source_type == SourceType::BatchSpark;
        let source = DataSource {
            name: body.common.name,
            r#type: source_type as i32,
            timestamp_field: body.timestamp_field,
            created_timestamp_column: body.created_timestamp_column,
            // Feast keeps it for Spark alone.
            date_partition_column: if is_spark { body.date_partition_column } else { String::new() },
            description: body.common.description,
            tags: body.common.tags,
            owner: body.common.owner,
            data_source_class_type: match source_type {
                SourceType::CustomSource => body.data_source_class_type,
                // Of Spark's alone Feast stores it, whatever was given.
                SourceType::BatchSpark => class_of(source_type).to_owned(),
                _ => String::new(),
            },
            options,
            ..Default::default()
        };
        self.apply(&body.common.project, Object::encode(&source)).await
    }
}

impl DataSourceBody {
    /// The options of the type, which Feast's SDK reads without asking whether they are there.
    ///
    /// # Errors
    /// 422 when those are given that are of another type, or contradict each other.
    fn options(&mut self, source_type: SourceType) -> Result<Option<Options>> {
        let options = match source_type {
            SourceType::BatchFile if !self.has_options() || self.file_options.is_some() => {
                let File { uri, s3_endpoint_override } = self.file_options.take().unwrap_or_default();
                Some(Options::FileOptions(FileOptions { uri, s3_endpoint_override, file_format: None }))
            }
            SourceType::RequestSource => Some(Options::RequestDataOptions(RequestDataOptions::default())),
            SourceType::BatchBigquery => self
                .bigquery_options
                .take()
                .map(|of| Options::BigqueryOptions(BigQueryOptions { table: of.table, query: of.query })),
            SourceType::BatchSnowflake => match self.snowflake_options.take() {
                Some(of) if !of.table.is_empty() && !of.query.is_empty() => {
                    return Err(RestError::invalid_value("`snowflake_options`: give a `table` or a `query`, not both"));
                }
                options => options.map(|of| {
                    Options::SnowflakeOptions(SnowflakeOptions {
                        table: of.table,
                        query: of.query,
                        schema: of.schema_,
                        database: of.database,
                    })
                }),
            },
            SourceType::BatchRedshift => self.redshift_options.take().map(|of| {
                let schema = match of.schema_ {
                    schema if schema.is_empty() && !of.table.is_empty() => REDSHIFT_SCHEMA.to_owned(),
                    schema => schema,
                };
                Options::RedshiftOptions(RedshiftOptions {
                    table: of.table,
                    query: of.query,
                    schema,
                    database: of.database,
                })
            }),
            SourceType::BatchTrino => self
                .trino_options
                .take()
                .map(|of| Options::TrinoOptions(TrinoOptions { table: of.table, query: of.query })),
            SourceType::BatchAthena => self.athena_options.take().map(|of| {
                Options::AthenaOptions(AthenaOptions {
                    table: of.table,
                    query: of.query,
                    database: of.database,
                    data_source: of.data_source,
                })
            }),
            SourceType::BatchSpark => match self.spark_options.take() {
                Some(of) if !of.table.is_empty() && (!of.query.is_empty() || !of.path.is_empty()) => {
                    return Err(RestError::invalid_value(
                        "`spark_options`: give a `table`, or a `query` or a `path`, not both",
                    ));
                }
                options => options.map(|of| {
                    Options::SparkOptions(SparkOptions {
                        table: of.table,
                        query: of.query,
                        path: of.path,
                        file_format: of.file_format,
                        date_partition_column_format: of.date_partition_column_format,
                        table_format: None,
                    })
                }),
            },
            SourceType::StreamKafka => {
                let of = self.kafka_options.take();
                let of = of.ok_or_else(|| missing("kafka_options", "kafka_bootstrap_servers` and a `topic"))?;
                Some(Options::KafkaOptions(KafkaOptions {
                    message_format: Some(format("kafka_options.message_format", &of.message_format)?),
                    kafka_bootstrap_servers: of.kafka_bootstrap_servers,
                    topic: of.topic,
                    watermark_delay_threshold: None,
                }))
            }
            SourceType::StreamKinesis => {
                let of = self.kinesis_options.take();
                let of = of.ok_or_else(|| missing("kinesis_options", "region` and a `stream_name"))?;
                Some(Options::KinesisOptions(KinesisOptions {
                    record_format: Some(format("kinesis_options.record_format", &of.record_format)?),
                    region: of.region,
                    stream_name: of.stream_name,
                }))
            }
            SourceType::CustomSource => {
                if !self.data_source_class_type.contains('.') {
                    return Err(RestError::invalid_value(
                        "`data_source_class_type`: name the Python class of the source, with its module",
                    ));
                }
                let configuration = self.custom_options.take().unwrap_or_default().configuration;
                Some(Options::CustomOptions(CustomSourceOptions { configuration: configuration.into_bytes().into() }))
            }
            _ => None,
        };
        let type_name = source_type.as_str_name();
        match options {
            None if self.has_options() => {
                Err(RestError::invalid_value(format!("the options are of another type than `type` says ({type_name})")))
            }
            None if source_type != SourceType::PushSource => {
                Err(RestError::invalid_value(format!("the options of the type ({type_name}) are missing")))
            }
            options => Ok(options),
        }
    }

    /// Whether any options are left that were not taken.
    fn has_options(&self) -> bool {
        self.file_options.is_some()
            || self.kafka_options.is_some()
            || self.spark_options.is_some()
            || self.kinesis_options.is_some()
            || self.custom_options.is_some()
            || [&self.bigquery_options, &self.snowflake_options, &self.redshift_options]
                .into_iter()
                .chain([&self.trino_options, &self.athena_options])
                .any(Option::is_some)
    }
}

fn missing(options: &str, what: &str) -> RestError {
    RestError::invalid_value(format!("`{options}` is missing: give its `{what}`"))
}

/// The format of a stream's messages. Feast's server drops it, and then fails on what it has made; with one, its SDK reads the source.
fn format(field: &str, name: &str) -> Result<StreamFormat> {
    use stream_format::{AvroFormat, Format, JsonFormat, ProtoFormat};
    let format = match name.to_lowercase().as_str() {
        "" | "json" => Format::JsonFormat(JsonFormat::default()),
        "avro" => Format::AvroFormat(AvroFormat::default()),
        "proto" | "protobuf" => Format::ProtoFormat(ProtoFormat::default()),
        _ => {
            return Err(RestError::invalid_value(format!("`{field}`: `{name}` is none of json, avro and proto")));
        }
    };
    Ok(StreamFormat { format: Some(format) })
}
