//! The batch engine of `feature_store.yaml`, as Feast describes it.

use serde_json::{Map, Value, json};

/// What stands for a secret.
const HIDDEN: &str = "***";

/// Texts under a name with one of these in it are not shown.
const SECRETS: [&str; 7] = ["pass", "pwd", "secret", "token", "key", "cred", "signature"];

/// A batch engine: what it is called, and how it is configured, with Feast's defaults and without secrets.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Engine {
    engine_type: String,
    class: String,
    config: Map<String, Value>,
}

/// A type of engine that Feast has: the module of its class under `feast.infra.compute_engines`, and its class.
struct Known {
    engine_type: &'static str,
    module: &'static str,
    class: &'static str,
}

const fn known(engine_type: &'static str, module: &'static str, class: &'static str) -> Known {
    Known { engine_type, module, class }
}

static KNOWN: [Known; 10] = [
    known("local", "local.compute", "LocalComputeEngine"),
    known("snowflake.engine", "snowflake.snowflake_engine", "SnowflakeComputeEngine"),
    known("lambda", "aws_lambda.lambda_engine", "LambdaComputeEngine"),
    known("k8s", "kubernetes.k8s_engine", "KubernetesComputeEngine"),
    known("spark.engine", "spark.compute", "SparkComputeEngine"),
    known("ray.engine", "ray.compute", "RayComputeEngine"),
    known("flink.engine", "flink.compute", "FlinkComputeEngine"),
    known("spark_application", "spark_application.compute", "SparkApplicationComputeEngine"),
    known("trino.engine", "trino.compute", "TrinoComputeEngine"),
    known("trino", "trino.compute", "TrinoComputeEngine"),
];

impl Engine {
    /// Reads `batch_engine` of `feature_store.yaml`: a type, or a mapping with one. Without it, it is the local engine.
    pub(crate) fn new(batch_engine: Option<&Value>) -> Self {
        let nothing = Map::new();
        let (given_type, given) = match batch_engine {
            Some(Value::String(engine_type)) => (engine_type.as_str(), &nothing),
            Some(Value::Object(given)) => (given.get("type").and_then(Value::as_str).unwrap_or("local"), given),
            _ => ("local", &nothing),
        };
        let known = KNOWN.iter().find(|known| known.engine_type == given_type || known.is_class(given_type));
        let Some(known) = known else {
            let class = given_type.rsplit('.').next().unwrap_or(given_type).to_owned();
            let mut config = Map::from_iter([("type".to_owned(), given_type.into())]);
            merge(&mut config, given);
            return Self { engine_type: given_type.to_owned(), class, config };
        };
        let mut config = Map::from_iter([("type".to_owned(), known.engine_type.into())]);
        if let Value::Object(defaults) = defaults(known.engine_type) {
            config.extend(defaults);
        }
        merge(&mut config, given);
        config.insert("type".to_owned(), known.engine_type.into());
        Self { engine_type: known.engine_type.to_owned(), class: known.class.to_owned(), config }
    }

    /// What answers begin with.
    pub(super) fn body(&self) -> Map<String, Value> {
        Map::from_iter([
            ("engineType".to_owned(), self.engine_type.as_str().into()),
            ("engineClass".to_owned(), self.class.as_str().into()),
            ("config".to_owned(), self.config.clone().into()),
        ])
    }
}

impl Known {
    /// Whether it is the class of this path.
    fn is_class(&self, path: &str) -> bool {
        let rest = path.strip_prefix("feast.infra.compute_engines.").and_then(|path| path.strip_prefix(self.module));
        rest.and_then(|rest| rest.strip_prefix('.')) == Some(self.class)
    }
}

/// Puts what was given in the place of what it is by default. What is null is as if it were not given.
fn merge(config: &mut Map<String, Value>, given: &Map<String, Value>) {
    for (name, value) in given.iter().filter(|(_, value)| !value.is_null()) {
        // Two options that Feast's classes call otherwise than its files do.
        let name = match name.as_str() {
            "schema" if config.contains_key("schema_") => "schema_",
            "http-scheme" if config.contains_key("http_scheme") => "http_scheme",
            name => name,
        };
        config.insert(name.to_owned(), shown(name, value));
    }
}

/// A value without the secrets that it has.
fn shown(name: &str, value: &Value) -> Value {
    match value {
        Value::String(_) if is_secret(name) => HIDDEN.into(),
        Value::Array(items) => {
            items.iter().map(|item| if item.is_string() { item.clone() } else { shown(name, item) }).collect()
        }
        Value::Object(fields) => {
            // An environment variable, whose name stands beside its value.
            let variable = fields.get("name").and_then(Value::as_str).is_some_and(is_secret);
            let fields = fields.iter().map(|(name, value)| {
                let is_hidden = variable && name == "value";
                (name.clone(), if is_hidden { HIDDEN.into() } else { shown(name, value) })
            });
            Value::Object(fields.collect())
        }
        other => other.clone(),
    }
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRETS.iter().any(|secret| name.contains(secret))
}

/// What a type of engine is configured with if nothing is given (Feast: the classes `…ComputeEngineConfig`).
fn defaults(engine_type: &str) -> Value {
    match engine_type {
        "snowflake.engine" => json!({ "schema_": "PUBLIC", "python_udf_runtime_version": "3.10" }),
        "k8s" => json!({
            "namespace": "default",
            "image": "feast/feast-k8s-materialization:latest",
            "env": [],
            "image_pull_secrets": [],
            "resources": {},
            "service_account_name": "",
            "annotations": {},
            "include_security_context_capabilities": true,
            "labels": {},
            "max_parallelism": 10,
            "synchronous": false,
            "retry_limit": 2,
            "mini_batch_size": 1000,
            "active_deadline_seconds": 86400,
            "job_batch_size": 100,
            "print_pod_logs_on_failure": true,
        }),
        "spark.engine" => json!({ "partitions": 0 }),
        "ray.engine" => json!({
            "broadcast_join_threshold_mb": 100,
            "enable_distributed_joins": true,
            "max_parallelism_multiplier": 2,
            "target_partition_size_mb": 64,
            "window_size_for_joins": "1H",
            "enable_optimization": true,
            "gpu_batch_format": "pandas",
            "enable_ray_logging": false,
        }),
        "flink.engine" => json!({ "execution_mode": "batch", "pandas_split_num": 1 }),
        "spark_application" => json!({
            "image_pull_secrets": [],
            "namespace": "default",
            "service_account": "",
            "driver_cores": 1,
            "driver_memory": "1g",
            "executor_instances": 1,
            "executor_cores": 1,
            "executor_memory": "1g",
            "spark_version": "4.0.1",
            "env": [],
            "env_from": [],
            "job_timeout_seconds": 3600,
            "poll_interval_seconds": 10,
            "ttl_seconds_after_finished": 3600,
            "restart_policy": "Never",
            "max_retries": 3,
            "concurrency": 1,
            "labels": {},
            "volumes": [],
            "volume_mounts": [],
            "py_files": [],
            "tolerations": [],
        }),
        "trino" | "trino.engine" => json!({
            "port": 8080,
            "dataset": "feast",
            "source": "trino-python-client",
            "http_scheme": "http",
            "verify": true,
            "batch_size": 10000,
            "write_concurrency": 4,
            "offline_write_mode": "append",
        }),
        _ => json!({}),
    }
}
