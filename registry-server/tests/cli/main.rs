//! The binary `feast-registry`, run as people and scripts run it, on registries that were filled through the library.

mod config;
mod describe;
mod diff;
mod get;
mod history;
mod list;
mod log;
mod permissions;
mod refused;
mod run;
mod serve;
mod status;
mod teardown;
mod ui;
mod undo;
mod watch;
mod whole;

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use feast_registry::proto::DESCRIPTORS;
use feast_registry::proto::core::{
    self, DataSource, Entity, EntitySpecV2, FeatureService, FeatureServiceSpec, FeatureSpecV2, FeatureTransformationV2,
    FeatureView, FeatureViewProjection, FeatureViewSpec, OnDemandFeatureView, OnDemandFeatureViewSpec, Permission,
    PermissionSpec, Project, ProjectSpec, UserDefinedFunctionV2, feature_transformation_v2::Transformation,
};
use feast_registry::{FeastObject, Freshness, Kind, ListFilter, Object, Registry, RegistryConfig};
use prost::Message;
use prost_reflect::DynamicMessage;
use serde_json::Value as Json;
use tempfile::TempDir;

const START: i64 = 1_700_000_000;

/// The environment variables that commands look at.
const VARIABLES: [&str; 6] = [
    "FEAST_REGISTRY_URL",
    "FEATURE_STORE_YAML_BASE64",
    "FEAST_FS_YAML_FILE_PATH",
    "RUST_LOG",
    "NO_COLOR",
    "FEAST_PROTECTED_PROJECT",
];

/// A folder with or without a registry in it, and the command line run there.
struct Fixture {
    folder: TempDir,
}

impl Fixture {
    fn empty() -> Self {
        Self { folder: TempDir::new().expect("a folder") }
    }

    /// A registry in `registry.db` with the projects `rides` and `shop`.
    async fn filled() -> Self {
        let fixture = Self::empty();
        let registry = fixture.open().await;
        fill_rides(&registry).await;
        apply(&registry, "shop", &entity("customer", "Who buys")).await;
        fixture
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn url(&self) -> String {
        format!("sqlite:///{}", self.path("registry.db").display())
    }

    async fn open(&self) -> Registry {
        feast_registry::open(&RegistryConfig::new(self.url().parse().expect("a URL"))).await.expect("a registry")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_feast-registry"));
        command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null());
        for variable in VARIABLES {
            command.env_remove(variable);
        }
        command
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(self.command(arguments).output().expect("the command runs"))
    }

    /// Runs what must work; what it printed.
    fn ok(&self, arguments: &[&str]) -> String {
        let ran = self.run(arguments);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{arguments:?}");
        ran.stdout
    }

    /// Runs what must fail, with one line on stderr; that line.
    fn error(&self, arguments: &[&str]) -> String {
        let ran = self.run(arguments);
        assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{arguments:?}: {}", ran.stderr);
        assert!(ran.stderr.starts_with("error: ") && ran.stderr.lines().count() == 1, "{}", ran.stderr);
        ran.stderr
    }

    /// Runs what clap must refuse; what it said.
    fn usage_error(&self, arguments: &[&str]) -> String {
        let ran = self.run(arguments);
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{arguments:?}: {}", ran.stderr);
        ran.stderr
    }

    fn json(&self, arguments: &[&str]) -> Json {
        serde_json::from_str(&self.ok(arguments)).expect("JSON")
    }

    fn bytes(&self, arguments: &[&str]) -> Vec<u8> {
        let output = self.command(arguments).output().expect("the command runs");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }
}

struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Ran {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code().expect("it exits"),
            stdout: String::from_utf8(output.stdout).expect("text"),
            stderr: String::from_utf8(output.stderr).expect("text"),
        }
    }
}

async fn apply(registry: &Registry, project: &str, object: impl Into<Object>) {
    registry.apply(project, object).await.expect("it is applied");
}

async fn stored(registry: &Registry, kind: Kind, project: &str, name: &str) -> Object {
    registry.get(kind, project, name, Freshness::Stored).await.expect("it is there")
}

fn entity(name: &str, description: &str) -> Entity {
    let spec = EntitySpecV2 {
        name: name.into(),
        join_key: format!("{name}_id"),
        value_type: 4,
        description: description.into(),
        ..Default::default()
    };
    Entity { spec: Some(spec), meta: None }
}

fn feature(name: &str, value_type: i32) -> FeatureSpecV2 {
    FeatureSpecV2 { name: name.into(), value_type, ..Default::default() }
}

fn trips_source() -> DataSource {
    DataSource { name: "trips".into(), r#type: 1, timestamp_field: "at".into(), ..Default::default() }
}

fn driver_stats(features: &[&str]) -> FeatureView {
    let spec = FeatureViewSpec {
        name: "driver_stats".into(),
        entities: vec!["driver".into()],
        features: features.iter().map(|name| feature(name, 4)).collect(),
        entity_columns: vec![feature("driver_id", 4)],
        tags: [("team".to_owned(), "ml".to_owned()), ("tier".to_owned(), "1".to_owned())].into(),
        ttl: Some(prost_types::Duration { seconds: 129_600, nanos: 0 }),
        batch_source: Some(trips_source()),
        online: true,
        description: "How drivers drive\nand \u{1b}[31mhow often".into(),
        owner: "fleet@example.com".into(),
        ..Default::default()
    };
    FeatureView { spec: Some(spec), meta: None }
}

fn trip_price() -> OnDemandFeatureView {
    let function = UserDefinedFunctionV2 {
        name: "trip_price".into(),
        body: vec![0x80, 0x05].into(),
        body_text: "def trip_price(inputs):\n    return inputs\n".into(),
        ..Default::default()
    };
    let spec = OnDemandFeatureViewSpec {
        name: "trip_price".into(),
        features: vec![feature("price", 5)],
        feature_transformation: Some(FeatureTransformationV2 {
            transformation: Some(Transformation::UserDefinedFunction(function)),
        }),
        mode: "pandas".into(),
        ..Default::default()
    };
    OnDemandFeatureView { spec: Some(spec), meta: None }
}

fn model() -> FeatureService {
    let projection = FeatureViewProjection {
        feature_view_name: "driver_stats".into(),
        feature_columns: vec![feature("trips", 4)],
        ..Default::default()
    };
    let spec = FeatureServiceSpec { name: "model".into(), features: vec![projection], ..Default::default() };
    FeatureService { spec: Some(spec), meta: None }
}

async fn fill_rides(registry: &Registry) {
    // Two fields of a newer Feast: one in the message, one in its spec.
    let mut spec = entity("driver", "Who drives").spec.expect("a spec").encode_to_vec();
    spec.extend([0x82, 0x7d, 0x01, b'x']);
    let mut driver = vec![0x0a, spec.len() as u8];
    driver.extend(spec);
    driver.extend([0x82, 0x7d, 0x01, b'y']);
    apply(registry, "rides", Object::new(Kind::Entity, driver)).await;
    apply(registry, "rides", &entity("__dummy", "")).await;
    apply(registry, "rides", &trips_source()).await;
    apply(registry, "rides", &driver_stats(&["trips"])).await;
    apply(registry, "rides", &driver_stats(&["trips", "rating"])).await;
    apply(registry, "rides", &trip_price()).await;
    apply(registry, "rides", &model()).await;
    let spec = PermissionSpec { name: "readers".into(), types: vec![0], actions: vec![1], ..Default::default() };
    apply(registry, "rides", &Permission { spec: Some(spec), meta: None }).await;
    for hour in [2, 1] {
        let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
        let (start, end) = (at(START + hour * 3600), at(START + (hour + 1) * 3600));
        registry.apply_materialization("rides", "driver_stats", start, end).await.expect("it is recorded");
    }
}

/// The message that protobuf's JSON stands for.
fn from_json<T: Message + Default>(message: &str, json: &Json) -> T {
    let descriptor = DESCRIPTORS.get_message_by_name(&format!("feast.core.{message}")).expect("a message");
    let dynamic = DynamicMessage::deserialize(descriptor, json.clone()).expect("protobuf's JSON");
    T::decode(&*dynamic.encode_to_vec()).expect("a message")
}

fn decoded<T: FeastObject>(object: &Object) -> T {
    object.decode().expect("a message")
}

/// A feature_store.yaml for a project of a registry; its name.
fn feature_store(fixture: &Fixture, url: &str, project: &str) -> String {
    let text = format!("project: {project}\nregistry:\n  registry_type: sql\n  path: {url}\n");
    std::fs::write(fixture.path("feature_store.yaml"), text).expect("a file");
    "feature_store.yaml".to_owned()
}
