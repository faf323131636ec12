//! The binary `feast-registry`, run as people and scripts run it, on registries that were filled through the library.

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
        for variable in ["FEAST_REGISTRY_URL", "RUST_LOG", "NO_COLOR"] {
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

// --- the command line as a whole ---

#[test]
fn help_teaches_the_commands() {
    let fixture = Fixture::empty();
    let help = fixture.ok(&["--help"]);
    for word in ["serve", "list", "get", "describe", "teardown", "completions", "Examples:", "Exit codes:"] {
        assert!(help.contains(word), "{word}: {help}");
    }
    for command in ["serve", "list", "get", "describe", "teardown", "completions"] {
        let help = fixture.ok(&[command, "--help"]);
        assert!(help.contains("Usage: feast-registry"), "{help}");
        assert!(!help.contains('\u{1b}'), "{help}");
    }
    assert!(fixture.ok(&["--version"]).starts_with("feast-registry "));
    assert!(fixture.usage_error(&[]).contains("Commands:"));
}

#[test]
fn what_cannot_be_understood_is_a_usage_error() {
    let fixture = Fixture::empty();
    let error = fixture.usage_error(&["list", "featureviews"]);
    assert!(error.contains("on-demand-feature-views") && error.contains("tip: "), "{error}");
    let error = fixture.usage_error(&["get", "entity"]);
    assert!(error.contains("NAME"), "{error}");
    assert!(fixture.usage_error(&["get", "all", "x"]).contains("possible values"));
    assert!(fixture.usage_error(&["list", "entities", "--tag", "team"]).contains("KEY=VALUE"));
    assert!(fixture.usage_error(&["list", "entities", "-c", "x.yaml", "--registry", "memory://"]).contains("--config"));
    assert!(fixture.usage_error(&["teardown", "--all", "--project", "rides"]).contains("--project"));
}

#[test]
fn nothing_is_made_by_looking() {
    let fixture = Fixture::empty();
    for arguments in [
        &["list", "entities"][..],
        &["get", "entity", "driver"],
        &["describe", "entity", "driver"],
        &["teardown", "--all", "--yes"],
    ] {
        let error = fixture.error(arguments);
        assert!(error.contains("no registry file `registry.db`"), "{error}");
    }
    assert!(!fixture.path("registry.db").exists());

    std::fs::write(fixture.path("registry.db"), "").expect("a file");
    let error = fixture.error(&["list", "entities"]);
    assert!(error.contains("no registry in sqlite:///registry.db") && error.contains("entities"), "{error}");
    std::fs::write(fixture.path("registry.db"), "this is no database".repeat(100)).expect("a file");
    let error = fixture.error(&["list", "entities"]);
    assert!(error.contains("not a SQLite database"), "{error}");
}

#[test]
fn a_password_is_never_shown() {
    let fixture = Fixture::empty();
    let url = "postgresql://me:geheim@db/feast";
    let ran = Ran::of(fixture.command(&["list", "all"]).env("FEAST_REGISTRY_URL", url).output().expect("it runs"));
    assert!(ran.code == 1 && ran.stderr.contains("me:***@db") && !ran.stderr.contains("geheim"), "{}", ran.stderr);
    let help = fixture.command(&["list", "--help"]).env("FEAST_REGISTRY_URL", url).output().expect("it runs");
    assert!(!Ran::of(help).stdout.contains("geheim"));
    let error = fixture.error(&["serve", "--registry", "postgresql://me:geheim@db:x/feast"]);
    assert!(error.contains("--registry") && !error.contains("geheim"), "{error}");
}

#[tokio::test]
async fn the_registry_is_found_by_variable_option_and_file() {
    let fixture = Fixture::filled().await;
    let elsewhere = Fixture::empty();
    let url = fixture.url();
    let by_variable =
        elsewhere.command(&["list", "projects"]).env("FEAST_REGISTRY_URL", &url).output().expect("it runs");
    assert!(Ran::of(by_variable).stdout.contains("rides"));
    assert!(elsewhere.ok(&["list", "projects", "--registry", &url]).contains("rides"));
    let file = feature_store(&elsewhere, &url, "shop");
    // The variable gives way to the file.
    let mut command = elsewhere.command(&["list", "entities", "-c", &file]);
    let by_file = Ran::of(command.env("FEAST_REGISTRY_URL", "memory://").output().expect("it runs"));
    assert!(by_file.stdout.contains("customer") && !by_file.stdout.contains("driver"), "{}", by_file.stdout);
    let error = elsewhere.error(&["list", "entities", "-c", "missing.yaml"]);
    assert!(error.contains("missing.yaml"), "{error}");
}

/// A feature_store.yaml for a project of a registry; its name.
fn feature_store(fixture: &Fixture, url: &str, project: &str) -> String {
    let text = format!("project: {project}\nregistry:\n  registry_type: sql\n  path: {url}\n");
    std::fs::write(fixture.path("feature_store.yaml"), text).expect("a file");
    "feature_store.yaml".to_owned()
}

// --- list ---

#[tokio::test]
async fn a_list_is_a_table() {
    let fixture = Fixture::filled().await;
    let table = fixture.ok(&["list", "feature-views"]);
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines.len(), 2, "{table}");
    assert_eq!(
        lines[0],
        [
            "NAME",
            "PROJECT",
            "ENTITIES",
            "FEATURES",
            "TTL",
            "ONLINE",
            "STATE",
            "VERSION",
            "UPDATED",
            "TAGS",
            "DESCRIPTION",
            "OWNER"
        ]
    );
    assert_eq!(lines[1][..9], ["driver_stats", "rides", "driver", "2", "1d", "12h", "yes", "AVAILABLE_ONLINE", "v1"]);
    for part in ["team=ml, tier=1", "How drivers drive and \\u{1b}[31mhow often", "fleet@example.com"] {
        assert!(table.contains(part), "{part}: {table}");
    }

    let entities = fixture.ok(&["list", "ENTITY"]);
    for part in [
        "NAME      PROJECT  JOIN KEY",
        "driver    rides    driver_id    INT64",
        "customer  shop     customer_id  INT64",
    ] {
        assert!(entities.contains(part), "{entities}");
    }
    let of_one = fixture.ok(&["list", "entities", "--project", "shop"]);
    assert!(of_one.lines().count() == 2 && !of_one.contains("PROJECT"), "{of_one}");
    let views = fixture.ok(&["list", "views"]);
    assert!(
        views.contains("driver_stats  feature view") && views.contains("trip_price    on demand feature view"),
        "{views}"
    );
    assert_eq!(fixture.ok(&["list", "all"]).lines().count(), 11);
    for (kind, part) in [
        ("projects", "shop"),
        ("data-sources", "BATCH_FILE"),
        ("on-demand-feature-views", "trip_price"),
        ("feature-services", "driver_stats"),
        ("permissions", "FEATURE_VIEW  DESCRIBE"),
    ] {
        assert!(fixture.ok(&["list", kind]).contains(part), "{kind}");
    }
}

#[tokio::test]
async fn a_list_is_of_a_project_and_of_tags() {
    let fixture = Fixture::filled().await;
    let file = feature_store(&fixture, &fixture.url(), "shop");
    assert!(!fixture.ok(&["list", "entities", "-c", &file]).contains("driver"));
    assert!(fixture.ok(&["list", "entities", "-c", &file, "-A"]).contains("driver"));
    assert!(fixture.ok(&["list", "entities", "-c", &file, "-p", "rides"]).contains("driver"));
    assert!(fixture.ok(&["list", "projects", "-c", &file]).contains("rides"));

    let tagged = ["list", "views", "--tag", "team=ml", "--tag", "tier=1"];
    assert_eq!(fixture.ok(&tagged).lines().count(), 2);
    let none = fixture.run(&["list", "views", "--tag", "team=ml", "--tag", "tier=2"]);
    assert_eq!((none.code, none.stdout.as_str()), (0, ""));
    assert!(none.stderr.starts_with("There are no views with these tags in sqlite:///"), "{}", none.stderr);
    let none = fixture.run(&["list", "label-views", "-p", "shop"]);
    assert_eq!((none.code, none.stderr.as_str()), (0, "There are no label views in project `shop`.\n"));
    assert_eq!(fixture.ok(&["list", "label-views", "-o", "json"]), "[]\n");
    assert_eq!(fixture.ok(&["list", "label-views", "-o", "yaml"]), "[]\n");
    assert_eq!(fixture.bytes(&["list", "label-views", "-o", "proto"]), b"");

    let error = fixture.error(&["list", "entities", "--project", "Rides"]);
    assert!(error.contains("no project `Rides`") && error.contains("did you mean `rides`?"), "{error}");
    let error = fixture.error(&["list", "entities", "--project", "payments"]);
    assert!(error.contains("there are `rides`, `shop`"), "{error}");
}

#[tokio::test]
async fn a_list_for_programs_says_what_is_stored() {
    let fixture = Fixture::filled().await;
    let registry = fixture.open().await;
    let view = stored(&registry, Kind::FeatureView, "rides", "driver_stats").await;

    let json = fixture.json(&["list", "feature-views", "-o", "json"]);
    let items = json.as_array().expect("an array");
    assert_eq!(items.len(), 1);
    assert_eq!(from_json::<FeatureView>("FeatureView", &items[0]), decoded(&view));
    assert_eq!(json[0]["meta"]["state"], "AVAILABLE_ONLINE");
    let yaml: Json = serde_saphyr::from_str(&fixture.ok(&["list", "feature-views", "-o", "yaml"])).expect("YAML");
    assert_eq!(yaml, json);

    let entities = fixture.bytes(&["list", "entities", "-o", "proto"]);
    let mut expected = Vec::new();
    for (project, name) in [("rides", "driver"), ("rides", "__dummy"), ("shop", "customer")] {
        prost::encoding::bytes::encode(1, &stored(&registry, Kind::Entity, project, name).await.bytes, &mut expected);
    }
    assert_eq!(entities, expected);

    let all = fixture.bytes(&["list", "all", "-o", "proto"]);
    let all = core::Registry::decode(&*all).expect("a registry");
    let mut whole =
        core::Registry::decode(&**registry.proto(Freshness::Stored).await.expect("all").as_bytes()).expect("all");
    whole.last_updated = None;
    assert_eq!(all, whole);
    let ran = fixture.run(&["list", "all", "-o", "json"]);
    assert!(ran.code == 0 && ran.stderr.contains("2 fields") && ran.stderr.contains("`-o proto`"), "{}", ran.stderr);
    let json: Json = serde_json::from_str(&ran.stdout).expect("JSON");
    assert_eq!(from_json::<core::Registry>("Registry", &json), whole);
    assert_eq!(fixture.json(&["list", "views", "-o", "json"])["onDemandFeatureViews"][0]["spec"]["name"], "trip_price");
}

#[tokio::test]
async fn a_reader_who_has_seen_enough_is_no_error() {
    let fixture = Fixture::empty();
    let registry = fixture.open().await;
    for i in 0..20 {
        apply(&registry, "rides", &entity(&format!("e{i}"), &"long ".repeat(10_000))).await;
    }
    for format in ["table", "json", "yaml", "proto"] {
        let mut command = fixture.command(&["list", "entities", "-o", format]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
        let mut first = [0; 1];
        child.stdout.take().expect("stdout").read_exact(&mut first).expect("a byte");
        let ran = Ran::of(child.wait_with_output().expect("it ends"));
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{format}");
    }
}

// --- get ---

#[tokio::test]
async fn get_prints_what_is_stored_in_each_form() {
    let fixture = Fixture::filled().await;
    let registry = fixture.open().await;
    let view = stored(&registry, Kind::FeatureView, "rides", "driver_stats").await;
    let get = ["get", "feature-view", "driver_stats", "-p", "rides"];

    let json = fixture.json(&[&get[..], &["-o", "json"]].concat());
    assert_eq!(from_json::<FeatureView>("FeatureView", &json), decoded(&view));
    let yaml: Json = serde_saphyr::from_str(&fixture.ok(&get)).expect("YAML");
    assert_eq!(yaml, json);
    assert_eq!(fixture.bytes(&[&get[..], &["-o", "proto"]].concat()), view.bytes);
    assert_eq!(fixture.json(&["get", "view", "driver_stats", "-p", "rides", "-o", "json"]), json);

    let driver = stored(&registry, Kind::Entity, "rides", "driver").await;
    assert_eq!(fixture.bytes(&["get", "entity", "driver", "-p", "rides", "-o", "proto"]), driver.bytes);
    let ran = fixture.run(&["get", "entity", "driver", "-p", "rides", "-o", "json"]);
    assert!(ran.code == 0 && ran.stderr.starts_with("note: 2 fields"), "{}", ran.stderr);
    let json: Json = serde_json::from_str(&ran.stdout).expect("JSON");
    assert_eq!(from_json::<Entity>("Entity", &json), decoded(&driver));

    assert_eq!(fixture.json(&["get", "project", "rides", "-o", "json"])["spec"]["name"], "rides");
    assert_eq!(fixture.json(&["get", "infra", "-p", "rides", "-o", "json"]), serde_json::json!({}));
}

#[tokio::test]
async fn the_project_is_the_configured_one_or_the_only_one() {
    let fixture = Fixture::filled().await;
    let error = fixture.error(&["get", "entity", "customer"]);
    assert!(error.contains("--project") && error.contains("`rides`, `shop`"), "{error}");
    let file = feature_store(&fixture, &fixture.url(), "shop");
    assert!(fixture.ok(&["get", "entity", "customer", "-c", &file]).contains("name: customer"));
    assert!(fixture.ok(&["get", "project", "-c", &file]).contains("name: shop"));
    let file = feature_store(&fixture, &fixture.url(), "unknown");
    assert!(fixture.error(&["get", "entity", "customer", "-c", &file]).contains("no project `unknown`"));

    fixture.open().await.delete_project("rides").await.expect("it is deleted");
    assert!(fixture.ok(&["get", "entity", "customer"]).contains("name: customer"));
}

#[tokio::test]
async fn a_missing_object_names_what_may_have_been_meant() {
    let fixture = Fixture::filled().await;
    let get = |kind, name| fixture.error(&["get", kind, name, "-p", "rides"]);
    let error = get("feature-view", "Driver-stat");
    assert!(
        error.contains("no feature view `Driver-stat`") && error.contains("did you mean `driver_stats`?"),
        "{error}"
    );
    assert!(get("view", "trip_prise").contains("did you mean `trip_price`?"));
    assert!(get("feature-view", "trip_price").contains("`trip_price` is an on demand feature view"));
    let error = get("entity", "something_else");
    assert!(error.ends_with("in project `rides`\n"), "{error}");
    let error = get("entity", "\u{1b}[2Jx");
    assert!(!error.contains('\u{1b}'), "{error}");
}

// --- describe ---

#[tokio::test]
async fn a_view_is_described_for_people() {
    let fixture = Fixture::filled().await;
    let page = fixture.ok(&["describe", "view", "driver_stats", "--project", "rides"]);
    assert!(page.starts_with("feature view `driver_stats` of project `rides`\n"), "{page}");
    let has = |part: &str| assert!(page.contains(part), "{part}: {page}");
    for fact in [
        "batch source  ",
        "trips (BATCH_FILE)",
        "ttl                ",
        "1d 12h\n",
        "team=ml, tier=1\n",
        "How drivers drive and \\u{1b}[31mhow often\n",
        "state              AVAILABLE_ONLINE\n",
        "version            v1\n",
        "disabled           no\n",
    ] {
        has(fact);
    }
    has("\nSchema\n  NAME       TYPE   ROLE\n  driver_id  INT64  join key\n  trips      INT64  feature\n");
    has(
        "\nMaterialized\n  FROM                  TO                    LENGTH\n  2023-11-14T23:13:20Z  2023-11-15T00:13:20Z  1h\n",
    );
    let versions: Vec<&str> = page.lines().skip_while(|line| *line != "Versions").skip(2).take(2).collect();
    assert!(versions[0].starts_with("  v0  ") && !versions[0].contains("current"), "{page}");
    assert!(versions[1].starts_with("  v1       current  "), "{page}");
    has("\nUsed by\n  NAME   KIND\n  model  feature service\n");
}

#[tokio::test]
async fn other_kinds_are_described_too() {
    let fixture = Fixture::filled().await;
    let describe = |arguments: &[&str]| fixture.ok(&[&["describe"], arguments, &["-p", "rides"]].concat());
    let page = describe(&["on-demand-feature-view", "trip_price"]);
    assert!(page.contains("\nTransformation\n  def trip_price(inputs):\n      return inputs\n"), "{page}");
    let page = describe(&["feature-service", "model"]);
    assert!(page.contains("\nFeatures\n  VIEW          FEATURES\n  driver_stats  trips\n"), "{page}");
    let page = describe(&["entity", "driver"]);
    assert!(page.contains("  driver_stats  feature view\n  model         feature service  indirectly\n"), "{page}");
    assert!(describe(&["data-source", "trips"]).contains("BATCH_FILE"));
    assert!(describe(&["permission", "readers"]).contains("FEATURE_VIEW"));
    assert!(describe(&["infra"]).starts_with("infrastructure of project `rides`"));
    let page = describe(&["project"]);
    assert!(page.contains("uuid") && page.contains("  entity                  2\n"), "{page}");
    assert!(fixture.error(&["describe", "entity", "drivr", "-p", "rides"]).contains("`driver`"));
}

#[tokio::test]
async fn of_many_intervals_the_latest_are_described() {
    let fixture = Fixture::filled().await;
    let registry = fixture.open().await;
    for hour in 100..130 {
        let at = |hour: i64| Some(prost_types::Timestamp { seconds: START + hour * 3600, nanos: 0 });
        registry.apply_materialization("rides", "driver_stats", at(hour), at(hour + 1)).await.expect("it is recorded");
    }
    let page = fixture.ok(&["describe", "view", "driver_stats", "-p", "rides"]);
    assert!(page.contains("Materialized (the latest 20 of 32 intervals"), "{page}");
    assert_eq!(page.lines().filter(|line| line.ends_with("  1h")).count(), 20, "{page}");
}

// --- teardown ---

async fn projects(fixture: &Fixture) -> Vec<String> {
    let projects = fixture.open().await.list(Kind::Project, None, &ListFilter::default(), Freshness::Stored).await;
    projects.expect("a list").iter().map(|project| project.name().expect("a name")).collect()
}

#[tokio::test]
async fn a_teardown_without_a_terminal_wants_yes() {
    let fixture = Fixture::filled().await;
    let ran = fixture.run(&["teardown", "--project", "rides"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
    assert!(ran.stderr.contains("`rides`: 2 entities, 1 data source, 1 feature view"), "{}", ran.stderr);
    assert!(ran.stderr.contains("--yes") && ran.stderr.ends_with("Nothing is deleted\n"), "{}", ran.stderr);
    let mut piped = fixture.command(&["teardown", "--project", "rides"]);
    let mut child = piped.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    std::io::Write::write_all(&mut child.stdin.take().expect("stdin"), b"rides\n").ok();
    assert_eq!(Ran::of(child.wait_with_output().expect("it ends")).code, 1);
    assert!(fixture.error(&["teardown", "--yes"]).contains("say which project"));
    assert!(fixture.error(&["teardown", "--yes", "-p", "rides", "-p", "shopp"]).contains("did you mean `shop`?"));
    assert_eq!(projects(&fixture).await, ["rides", "shop"]);
}

#[tokio::test]
async fn a_teardown_deletes_its_projects_and_at_last_the_tables() {
    let fixture = Fixture::filled().await;
    let ran = fixture.run(&["teardown", "--project", "rides", "--yes"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "Deleted project `rides`.\n"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("the tables"), "{}", ran.stderr);
    assert_eq!(projects(&fixture).await, ["shop"]);
    assert!(fixture.ok(&["list", "entities"]).contains("customer"));

    let ran = fixture.run(&["teardown", "--yes"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("and, as no project is left then, the tables"), "{}", ran.stderr);
    assert!(ran.stdout.starts_with("Deleted project `shop`.\nNo project is left"), "{}", ran.stdout);
    assert!(fixture.error(&["list", "projects"]).contains("there is no registry in"));

    let fixture = Fixture::filled().await;
    assert_eq!(fixture.run(&["teardown", "--all", "-y"]).code, 0);
    assert!(fixture.error(&["list", "projects"]).contains("there is no registry in"));
    fixture.open().await;
    let ran = fixture.run(&["teardown", "--all", "--yes"]);
    assert!(ran.code == 0 && ran.stderr.starts_with("There are no projects in"), "{}", ran.stderr);
}

#[tokio::test]
async fn with_schema_mode_verify_a_teardown_leaves_the_tables() {
    let fixture = Fixture::filled().await;
    let file = feature_store(&fixture, &format!("{}\n  schema_mode: verify", fixture.url()), "shop");
    let ran = fixture.run(&["teardown", "--all", "--yes", "-c", &file]);
    assert!(ran.code == 0 && !ran.stderr.contains("the tables"), "{}", ran.stderr);
    assert_eq!(fixture.ok(&["list", "projects", "-o", "json"]), "[]\n");
}

#[tokio::test]
async fn a_protected_project_is_not_torn_down() {
    let fixture = Fixture::filled().await;
    let tags = [("feast.dev/protected-project".to_owned(), "true".to_owned())].into();
    let spec = ProjectSpec { name: "shop".into(), tags, ..Default::default() };
    apply(&fixture.open().await, "shop", &Project { spec: Some(spec), meta: None }).await;
    for arguments in [&["teardown", "--project", "shop", "--yes"][..], &["teardown", "--all", "--yes"]] {
        let error = fixture.error(arguments);
        assert!(error.contains("`shop` is protected") && error.contains("feast.dev/protected-project"), "{error}");
    }
    assert_eq!(projects(&fixture).await, ["rides", "shop"]);
}

// --- completions ---

#[test]
fn completions_are_for_every_shell() {
    let fixture = Fixture::empty();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = fixture.ok(&["completions", shell]);
        assert!(script.contains("feast-registry") && script.contains("describe"), "{shell}");
    }
    assert!(fixture.ok(&["completions", "bash"]).contains("on-demand-feature-views"));
    assert!(fixture.usage_error(&["completions", "sh"]).contains("possible values"));
}

// --- serve ---

/// A running server; it is killed if the test fails.
struct Server {
    child: Child,
    log: BufReader<std::process::ChildStderr>,
    started: String,
}

impl Server {
    fn start(fixture: &Fixture, arguments: &[&str]) -> Self {
        let mut command = fixture.command(&[&["serve", "--port", "0"], arguments].concat());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let mut log = BufReader::new(child.stderr.take().expect("stderr"));
        let mut started = String::new();
        log.read_line(&mut started).expect("a line");
        Self { child, log, started }
    }

    /// The address that the start-up line names.
    fn address(&self) -> &str {
        self.started.trim_end().rsplit(' ').next().expect("an address")
    }

    /// Stops it as a supervisor does; its exit code and the rest of its log.
    fn stop(mut self) -> (Option<i32>, String) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs").success());
        let mut rest = String::new();
        self.log.read_to_string(&mut rest).expect("the log ends");
        (self.child.wait().expect("it ends").code(), rest)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn serve_says_what_it_serves_and_ends_in_order() {
    let fixture = Fixture::empty();
    let server = Server::start(&fixture, &[]);
    assert!(server.started.contains("serving sqlite:///") && server.started.contains("registry.db on 127.0.0.1:"));
    assert!(!server.started.contains('\u{1b}'), "{}", server.started);
    std::net::TcpStream::connect(server.address()).expect("it listens");
    assert!(fixture.path("registry.db").exists());
    // What looks into the registry may do so while it is served.
    assert!(fixture.run(&["list", "projects"]).stderr.starts_with("There are no projects"));
    let (code, log) = server.stop();
    assert!(code == Some(0) && log.contains("stopped"), "{code:?} {log}");
}

#[test]
fn serve_takes_a_feature_store_yaml() {
    let fixture = Fixture::empty();
    let url = format!("sqlite:///{}", fixture.path("other.db").display());
    let file = feature_store(&fixture, &url, "rides");
    let server = Server::start(&fixture, &["-c", &file, "--host", "[::1]"]);
    assert!(server.started.contains("other.db on [::1]:"), "{}", server.started);
    assert_eq!(server.stop().0, Some(0));
    assert!(fixture.path("other.db").exists() && !fixture.path("registry.db").exists());
}

#[test]
fn serve_says_why_it_cannot() {
    let fixture = Fixture::empty();
    let server = Server::start(&fixture, &[]);
    let port = server.address().rsplit(':').next().expect("a port");
    let error = fixture.error(&["serve", "--port", port]);
    assert!(error.contains(&format!("127.0.0.1:{port}")) && error.contains("another server"), "{error}");
    assert_eq!(server.stop().0, Some(0));

    let error = fixture.error(&["serve", "--log", "a=b=c"]);
    assert!(error.contains("--log: `a=b=c` is not a filter"), "{error}");
    let error = fixture.error(&["serve", "--registry", "sqlite:///no/such/folder.db"]);
    assert!(error.contains("no folder"), "{error}");
    std::fs::write(fixture.path("bad.yaml"), "registry:\n  registry_type: sql\n  pfad: x\n").expect("a file");
    let error = fixture.error(&["serve", "-c", "bad.yaml"]);
    assert!(error.contains("bad.yaml, line 3") && error.contains("pfad"), "{error}");
}
