//! Tests of the rules, each named for its rule in plain words.
//!
//! A [`World`] is a registry in memory that runs one [`Op`] after another as `Registry` does: read what the rule asks
//! for, let it decide, commit what it drafted. Objects are built from protobuf's JSON, by [`object`] and [`view`].

mod apply;
mod arbitrary;
mod delete;
mod depth;
mod feature_service;
mod materialization;
mod names;
mod project;
mod properties;
mod simulation;
mod stored;
mod structure;
mod undo;
mod versions;
mod views;

pub(crate) use self::arbitrary::{objects, pairs};
use std::collections::BTreeMap;
use std::pin::pin;
use std::task::{Context as TaskContext, Poll, Waker};

use bytes::Bytes;
use prost::Message;
use prost_reflect::{DynamicMessage, MessageDescriptor};
use prost_types::Timestamp;
use serde_json::{Value as Json, json};

use super::definition::{self, Closeness};
use super::meta::Meta;
use super::pin::key as version_key;
use super::*;
use crate::access::Judges;
use crate::backend::{Backend, Commit, Expected, INFRA_NAME, Key, Outcome, Query, Record, Write};
use crate::deadline::Deadline;
use crate::draft::{Context, Draft, Fetched};
use crate::encoded::Object;
use crate::error::{ErrorKind, Result};
use crate::kind::{FeastObject, Kind};
use crate::memory::MemoryBackend;
use crate::proto::DESCRIPTORS;
use crate::proto::core::{self, FeatureViewVersionRecord, MaterializationInterval};
use crate::wire;

/// The project that the tests are in.
const PROJECT: &str = "rides";
/// When a world begins, in seconds.
const START: i64 = 1_700_000_000;
/// Microseconds, since that is how fine the registry's clock is.
const START_NANOS: i32 = 123_456_000;

/// Memory does not let anybody wait.
fn deadline() -> Deadline {
    Deadline::after(std::time::Duration::from_secs(1))
}

/// One call of the registry.
#[derive(Debug, Clone)]
enum Op {
    Apply(Vec<Object>, ApplyOptions),
    Materialize(String, MaterializationInterval),
    Unmaterialize(String, MaterializationInterval),
    Delete(Kind, String),
    DeleteView(String),
    DeleteProject,
    UserMetadata(Kind, String, Option<Bytes>),
    Adopt(Vec<(String, i64)>),
}

impl Op {
    fn queries(&self, project: &str) -> Result<Vec<Query>> {
        Ok(match self {
            Op::Apply(objects, _) => fetch_for_apply(project, objects)?,
            Op::Materialize(view, _) | Op::Unmaterialize(view, _) => fetch_for_materialization(project, view),
            Op::Delete(kind, name) => fetch_for_delete(project, name, &[*kind]),
            Op::DeleteView(name) => fetch_for_delete(project, name, Kind::VIEWS),
            Op::DeleteProject => vec![Query::Keys(vec![Key::project_object(project)])],
            Op::UserMetadata(kind, view, _) => fetch_for_user_metadata(*kind, project, view),
            Op::Adopt(identities) => {
                vec![Query::Keys(identities.iter().map(|(project, _)| Key::project_object(project)).collect())]
            }
        })
    }

    fn rule(&self, draft: &mut Draft<'_>, ctx: &mut Context<'_>, project: &str) -> Result<()> {
        match self {
            Op::Apply(objects, options) => {
                objects.iter().try_for_each(|object| super::apply(draft, ctx, project, object, *options))
            }
            Op::Materialize(view, interval) => apply_materialization(draft, ctx, project, view, *interval),
            Op::Unmaterialize(view, interval) => remove_materialization(draft, ctx, project, view, interval),
            Op::Delete(kind, name) => super::delete(draft, ctx, &[*kind], project, name),
            Op::DeleteView(name) => super::delete(draft, ctx, Kind::VIEWS, project, name),
            Op::DeleteProject => delete_project(draft, project, None),
            Op::UserMetadata(kind, view, bytes) => apply_user_metadata(draft, ctx, *kind, project, view, bytes.clone()),
            Op::Adopt(identities) => adopt(draft, ctx, identities),
        }
    }
}

/// The circumstances in which a rule decides.
#[derive(Debug, Clone, Copy)]
struct Step {
    now: Timestamp,
    /// What the UUIDs that the rule asks for are made of.
    seed: u64,
    keeps_metadata: bool,
}

/// Reads what an operation asks for and lets it decide.
fn decide(backend: &MemoryBackend, step: Step, project: &str, op: &Op) -> Result<Commit> {
    let queries = op.queries(project)?;
    decide_with(backend, step, &queries, |draft, ctx| op.rule(draft, ctx, project)).map(|(commit, ())| commit)
}

/// Reads these queries and lets a rule decide.
fn decide_with<T>(
    backend: &MemoryBackend,
    step: Step,
    queries: &[Query],
    rule: impl FnOnce(&mut Draft<'_>, &mut Context<'_>) -> Result<T>,
) -> Result<(Commit, T)> {
    let answers = ready(backend.read(queries, &deadline()))?;
    let fetched = Fetched::new(queries, answers, false);
    let mut draft = Draft::new(&fetched);
    let mut asked = 0;
    let mut new_uuid = || {
        asked += 1;
        format!("{:08x}-0000-4000-8000-{asked:012x}", step.seed)
    };
    let mut ctx = Context {
        now: step.now,
        new_uuid: &mut new_uuid,
        keeps_metadata: step.keeps_metadata,
        judges: &mut Judges::default(),
    };
    let said = rule(&mut draft, &mut ctx)?;
    Ok((draft.into_commit(), said))
}

/// The memory backend never waits.
fn ready<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut TaskContext::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("the memory backend waits for something"),
    }
}

/// A registry in memory whose clock goes on by a second at each step.
struct World {
    backend: MemoryBackend,
    now: Timestamp,
    steps: u64,
    keeps_metadata: bool,
}

impl World {
    fn new() -> Self {
        let now = Timestamp { seconds: START, nanos: START_NANOS };
        Self { backend: MemoryBackend::new(), now, steps: 0, keeps_metadata: true }
    }

    /// A registry with `purge_feast_metadata`.
    fn purging() -> Self {
        Self { keeps_metadata: false, ..Self::new() }
    }

    /// A world in which these objects have been applied, one by one.
    fn with(objects: impl IntoIterator<Item = Object>) -> Self {
        let mut world = Self::new();
        for object in objects {
            world.apply(&object).expect("an object that can be applied");
        }
        world
    }

    /// Runs an operation in a project, and commits what it drafted. The clock goes on.
    fn run_in(&mut self, project: &str, op: &Op) -> Result<Commit> {
        let step = Step { now: self.now, seed: self.steps, keeps_metadata: self.keeps_metadata };
        self.steps += 1;
        self.now.seconds += 1;
        let commit = decide(&self.backend, step, project, op)?;
        let outcome = ready(self.backend.commit(commit.clone(), &deadline()))?;
        assert!(outcome.is_committed(), "{op:?}: nobody else writes here");
        Ok(commit)
    }

    fn run(&mut self, op: &Op) -> Result<Commit> {
        self.run_in(PROJECT, op)
    }

    fn apply(&mut self, object: &Object) -> Result<Commit> {
        self.apply_all(std::slice::from_ref(object))
    }

    fn apply_all(&mut self, objects: &[Object]) -> Result<Commit> {
        self.run(&Op::Apply(objects.to_vec(), ApplyOptions::default()))
    }

    fn apply_unpromoted(&mut self, objects: &[Object]) -> Result<Commit> {
        self.run(&Op::Apply(objects.to_vec(), ApplyOptions { no_promote: true }))
    }

    /// When the last step was.
    fn last(&self) -> Timestamp {
        Timestamp { seconds: self.now.seconds - 1, ..self.now }
    }

    /// Stores bytes past all rules, as another program may.
    fn plant(&self, key: Key, value: impl Into<Bytes>) {
        let put = Write::Put(Record::new(key, value, START));
        ready(self.backend.commit(Commit::new(vec![], vec![put]), &deadline())).expect("memory does not fail");
    }

    fn plant_object(&self, object: &Object) {
        self.plant(key_of(object), object.bytes.clone());
    }

    fn read(&self, query: Query) -> Vec<Record> {
        ready(self.backend.read(&[query], &deadline())).expect("memory does not fail").remove(0)
    }

    fn value(&self, key: Key) -> Option<Bytes> {
        self.read(Query::Keys(vec![key])).pop().map(|record| record.value)
    }

    fn find(&self, kind: Kind, name: &str) -> Option<Object> {
        self.value(Key::object(kind, PROJECT, name)).map(|bytes| Object::new(kind, bytes))
    }

    /// What is stored in place of an object.
    fn stored(&self, object: &Object) -> Object {
        let bytes = self.value(key_of(object)).unwrap_or_else(|| panic!("{object:?} should be stored"));
        Object::new(object.kind, bytes)
    }

    fn fact(&self, name: &str) -> Option<String> {
        self.value(Key::metadata(PROJECT, name)).map(|text| String::from_utf8(text.to_vec()).expect("UTF-8"))
    }

    /// The history of a view, oldest version first.
    fn versions(&self, view: &str) -> Vec<FeatureViewVersionRecord> {
        let query = Query::Versions { project: PROJECT.to_owned(), view: view.to_owned(), latest_only: false };
        self.read(query).iter().map(|record| decode_record(&record.value).expect("a record")).collect()
    }

    fn version_numbers(&self, view: &str) -> Vec<i32> {
        self.versions(view).iter().map(|version| version.version_number).collect()
    }

    /// Everything that is stored, of all projects; of histories and user metadata that of views of these names.
    fn dump(&self, views: &[&str]) -> BTreeMap<Key, Bytes> {
        dump(&self.backend, views)
    }
}

fn dump(backend: &MemoryBackend, views: &[&str]) -> BTreeMap<Key, Bytes> {
    let mut queries = vec![Query::Metadata { project: None }];
    queries.extend(Kind::ALL.iter().copied().map(|kind| Query::objects(kind, None)));
    for view in views {
        queries.push(Query::Keys(
            Kind::VIEWS.iter().copied().map(|kind| user_metadata_key(kind, PROJECT, view)).collect(),
        ));
        let (project, view) = (PROJECT.to_owned(), (*view).to_owned());
        queries.push(Query::Versions { project, view, latest_only: false });
    }
    let answers = ready(backend.read(&queries, &deadline())).expect("memory does not fail");
    answers.into_iter().flatten().map(|record| (record.key, record.value)).collect()
}

fn key_of(object: &Object) -> Key {
    match object.kind {
        Kind::Infra => Key::object(Kind::Infra, PROJECT, INFRA_NAME),
        kind => Key::object(kind, PROJECT, object.name().expect("a name")),
    }
}

fn descriptor(kind: Kind) -> MessageDescriptor {
    DESCRIPTORS.get_message_by_name(&format!("feast.core.{}", kind.message_name())).expect("a message of feast.core")
}

/// An object from its message in protobuf's JSON.
fn encode(kind: Kind, message: &Json) -> Object {
    let decoded = DynamicMessage::deserialize(descriptor(kind), message);
    let bytes = decoded.unwrap_or_else(|error| panic!("{message} is a {kind}: {error}")).encode_to_vec();
    known(&Object::new(kind, bytes)).expect("well-formed")
}

/// The object as a client writes it that knows no more fields than this Feast: the others are gone, maps are in order.
///
/// # Errors
/// `Corrupt` for bytes that are not a message of the kind.
fn known(object: &Object) -> Result<Object> {
    fn again<T: FeastObject>(object: &Object) -> Result<Object> {
        object.decode::<T>().map(|message| Object::encode(&message))
    }
    match object.kind {
        Kind::Project => again::<core::Project>(object),
        Kind::Entity => again::<core::Entity>(object),
        Kind::DataSource => again::<core::DataSource>(object),
        Kind::FeatureView => again::<core::FeatureView>(object),
        Kind::StreamFeatureView => again::<core::StreamFeatureView>(object),
        Kind::OnDemandFeatureView => again::<core::OnDemandFeatureView>(object),
        Kind::LabelView => again::<core::LabelView>(object),
        Kind::FeatureService => again::<core::FeatureService>(object),
        Kind::SavedDataset => again::<core::SavedDataset>(object),
        Kind::ValidationReference => again::<core::ValidationReference>(object),
        Kind::Permission => again::<core::Permission>(object),
        Kind::Infra => again::<core::Infra>(object),
    }
}

/// Changes JSON as RFC 7386 has it: members replace, members of objects merge, null removes.
fn merge(into: &mut Json, patch: &Json) {
    match (into, patch) {
        (Json::Object(members), Json::Object(changes)) => {
            for (name, change) in changes {
                if change.is_null() {
                    members.remove(name);
                } else {
                    merge(members.entry(name).or_insert(Json::Null), change);
                }
            }
        }
        (into, patch) => *into = patch.clone(),
    }
}

/// A typical object of a kind, its spec and its meta changed by these patches; it is named `thing` if the patch does
/// not name it, and a project as the tests' project.
fn object(kind: Kind, spec: Json, meta: Json) -> Object {
    let mut definition = typical(kind);
    merge(&mut definition, &spec);
    let mut message = if kind.layout().spec.is_some() { json!({ "spec": definition }) } else { definition };
    if meta != json!({}) {
        merge(&mut message, &json!({ "meta": meta }));
    }
    encode(kind, &message)
}

/// A typical object of a kind.
fn thing(kind: Kind) -> Object {
    object(kind, json!({}), json!({}))
}

/// A view with these features, each a 64-bit integer.
fn view(kind: Kind, name: &str, features: &[&str]) -> Object {
    object(kind, json!({ "name": name, "features": integers(features) }), json!({}))
}

/// The view, asking for a version.
fn pin(view: &Object, version: &str) -> Object {
    let field = descriptor(view.kind).get_field_by_name("spec").expect("a spec");
    let spec = field.kind().as_message().expect("a message").clone();
    let number = spec.get_field_by_name("version").expect("a view that can be pinned").number();
    view.with_spec_text(number, version).expect("well-formed")
}

fn integers(names: &[&str]) -> Json {
    names.iter().map(|name| json!({ "name": name, "value_type": "INT64" })).collect()
}

fn typical(kind: Kind) -> Json {
    let source = json!({
        "name": "trips", "type": "BATCH_FILE", "timestamp_field": "at", "created_timestamp_column": "made",
        "date_partition_column": "day", "file_options": { "uri": "trips.parquet" },
    });
    let view = json!({
        "name": "thing", "entities": ["driver", "car"], "features": integers(&["a", "b"]),
        "entity_columns": integers(&["car_id", "driver_id"]), "tags": { "team": "rides" },
    });
    let function = json!({ "name": "f", "body": "AQID", "body_text": "def f(x): return x" });
    let (own, base) = match kind {
        Kind::Project => (json!({ "name": PROJECT, "tags": { "team": "rides" } }), json!({})),
        Kind::Entity => (json!({ "name": "thing", "join_key": "id", "value_type": "INT64" }), json!({})),
        Kind::DataSource => (json!({ "name": "thing" }), source),
        Kind::FeatureView => (json!({ "batch_source": source, "ttl": "3600s", "online": true }), view),
        Kind::StreamFeatureView => {
            let stream = json!({ "name": "queue", "type": "PUSH_SOURCE", "batch_source": source, "push_options": {} });
            let own = json!({
                "batch_source": source, "stream_source": stream, "ttl": "3600s", "mode": "python",
                "timestamp_field": "at", "user_defined_function": function,
                "feature_transformation": { "user_defined_function": function },
                "aggregations": [{ "column": "a", "function": "sum", "time_window": "60s", "slide_interval": "60s" }],
            });
            (own, view)
        }
        Kind::OnDemandFeatureView => {
            let projection = json!({
                "feature_view_name": "trips", "feature_columns": integers(&["a"]), "batch_source": source,
                "view_type": "featureView",
            });
            let request = json!({ "name": "now", "type": "REQUEST_SOURCE", "request_data_options": {} });
            let sources = json!({
                "trips": { "feature_view_projection": projection }, "now": { "request_data_source": request },
            });
            let own = json!({
                "sources": sources,
                "mode": "pandas", "feature_transformation": { "user_defined_function": function },
            });
            (own, view)
        }
        Kind::LabelView => (json!({ "source": source, "ttl": "3600s", "labeler_field": "labeler" }), view),
        Kind::FeatureService => {
            let projections = json!([
                { "feature_view_name": "trips", "feature_columns": integers(&["a", "b"]), "batch_source": source },
                { "feature_view_name": "cars", "feature_columns": integers(&["c"]), "join_key_map": { "id": "car" } },
            ]);
            (json!({ "name": "thing", "features": projections }), json!({}))
        }
        Kind::SavedDataset => {
            let storage = json!({ "file_storage": { "uri": "saved.parquet" } });
            let columns = json!({ "features": ["trips:a", "cars:c"], "join_keys": ["driver_id", "car_id"] });
            (json!({ "name": "thing", "storage": storage }), columns)
        }
        Kind::ValidationReference => (json!({ "name": "thing", "reference_dataset_name": "saved" }), json!({})),
        Kind::Permission => {
            let policy = json!({ "role_based_policy": { "roles": ["reader"] } });
            let types = json!(["FEATURE_VIEW", "ENTITY"]);
            (json!({ "name": "thing", "types": types, "actions": ["DESCRIBE"], "policy": policy }), json!({}))
        }
        Kind::Infra => {
            let table = json!({ "path": "online.db", "name": "rides_thing" });
            let class = "feast.infra.online_stores.sqlite.SqliteTable";
            (json!({ "infra_objects": [{ "infra_object_class_type": class, "sqlite_table": table }] }), json!({}))
        }
    };
    let mut typical = base;
    merge(&mut typical, &own);
    typical
}

/// The object with its definition changed as bytes.
fn edit_spec(object: &Object, edit: impl FnOnce(&mut Vec<u8>)) -> Object {
    let mut spec = object.spec().expect("well-formed").into_owned();
    edit(&mut spec);
    let bytes = match object.kind.layout().spec {
        None => spec,
        Some(field) => wire::set(&object.bytes, field, &spec).expect("well-formed"),
    };
    Object::new(object.kind, bytes)
}

/// The object with its meta changed as bytes.
fn edit_meta(object: &Object, edit: impl FnOnce(&mut Vec<u8>)) -> Object {
    let mut meta = object.meta().expect("well-formed").into_owned();
    edit(&mut meta);
    object.with_meta(&meta).expect("well-formed")
}

/// An encoded field that no Feast has yet.
fn unknown(number: u32, value: &str) -> Vec<u8> {
    let mut field = Vec::new();
    wire::put(&mut field, number, value.as_bytes());
    field
}

/// The message with its fields in this order of their places.
fn reorder(message: &[u8], order: impl FnOnce(&mut Vec<wire::Field<'_>>)) -> Vec<u8> {
    let mut fields: Vec<_> = wire::fields(message).collect::<Result<_>>().expect("well-formed");
    order(&mut fields);
    fields.iter().flat_map(|field| field.raw.iter().copied()).collect()
}

/// The interval of this number; equal numbers are equal intervals.
fn interval_of(number: i64) -> MaterializationInterval {
    let moment = |seconds| Some(Timestamp { seconds, nanos: 123_456_789 });
    MaterializationInterval { start_time: moment(number), end_time: moment(number + 100) }
}

fn intervals_of(numbers: &[i64]) -> Vec<MaterializationInterval> {
    numbers.iter().copied().map(interval_of).collect()
}

/// The object with these intervals and this state in its meta, as a client sends them.
fn materialized(object: &Object, intervals: &[i64], state: u64) -> Object {
    let mut meta = Meta::of(object).expect("well-formed");
    meta.intervals = intervals.iter().map(|number| interval_of(*number).encode_to_vec()).collect();
    meta.state = state;
    meta.put_into(object).expect("well-formed")
}

fn meta_of(object: &Object) -> Meta {
    Meta::of(object).expect("well-formed")
}

fn intervals(object: &Object) -> Vec<MaterializationInterval> {
    let meta = meta_of(object);
    meta.intervals.iter().map(|interval| super::meta::decode(interval).expect("an interval")).collect()
}

/// The object without its meta, to compare definitions byte by byte.
fn definition_of(object: &Object) -> Object {
    let meta = object.kind.layout().meta;
    let bytes = wire::retain(&object.bytes, |field| Some(field) != meta).expect("well-formed");
    Object::new(object.kind, bytes)
}

fn written(commit: &Commit) -> Vec<&Key> {
    let keys = commit.writes.iter().filter_map(|write| match write {
        Write::Put(record) => Some(&record.key),
        Write::Delete(key) => Some(key),
        _ => None,
    });
    keys.collect()
}

fn expected<'a>(commit: &'a Commit, key: &Key) -> Option<&'a Expected> {
    commit.expectations.iter().find(|(of, _)| of == key).map(|(_, expected)| expected)
}

/// Checks that a rule refused, and that the error's words help.
fn assert_refused<T: std::fmt::Debug>(result: Result<T>, kind: ErrorKind, words: &[&str]) {
    let error = result.expect_err("this is to be refused");
    assert_eq!(error.kind(), kind, "{error}");
    for word in words {
        assert!(error.to_string().contains(word), "`{word}` is missing from: {error}");
    }
}

/// Checks every row of a table, and fails with all that fail.
fn check_rows<R>(rows: impl IntoIterator<Item = R>, check: impl Fn(R) -> Result<(), String>) {
    let mut checked = 0;
    let failures: Vec<String> = rows.into_iter().inspect(|_| checked += 1).filter_map(|row| check(row).err()).collect();
    assert!(checked > 0, "the table has no rows");
    assert!(failures.is_empty(), "{} of {checked} rows fail:\n  {}", failures.len(), failures.join("\n  "));
}

/// `Err` with a message, unless something holds.
fn ensure(holds: bool, message: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(message()) }
}
