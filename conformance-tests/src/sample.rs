//! What the tests store: well-formed records of every kind, with room for any bytes.

use bytes::Bytes;
use feast_registry_core::proto::core::{
    FeatureSpecV2, FeatureView, FeatureViewSpec, FeatureViewVersionRecord, LabelView, LabelViewSpec,
    MaterializationInterval, OnDemandFeatureView, OnDemandFeatureViewSpec, StreamFeatureView, StreamFeatureViewSpec,
};
use feast_registry_core::{INFRA_NAME, Key, Kind, Object, Record};
use prost::Message;
use prost_types::Timestamp;

use crate::wire;

/// When records are written, unless a test says otherwise: whole seconds since 1970 (UTC).
pub(crate) const AT: i64 = 1_700_000_000;

/// A field that no kind of message has, for bytes of the tests' own.
const FILLER: u32 = 4000;

/// Where an object is stored: a project under its own name, an infra under the name of all infras.
pub(crate) fn key(kind: Kind, project: &str, name: &str) -> Key {
    match kind {
        Kind::Project => Key::project_object(name),
        Kind::Infra => Key::object(kind, project, INFRA_NAME),
        _ => Key::object(kind, project, name),
    }
}

/// An object with a filler, written at [`AT`].
pub(crate) fn object(kind: Kind, project: &str, name: &str, filler: impl AsRef<[u8]>) -> Record {
    object_at(kind, project, name, filler, AT)
}

/// An object with a filler. Its message says the name, the project and the time that its key and record say.
pub(crate) fn object_at(kind: Kind, project: &str, name: &str, filler: impl AsRef<[u8]>, updated: i64) -> Record {
    let key = key(kind, project, name);
    let value = message(kind, key.project(), name, filler, updated);
    Record::new(key, value, updated)
}

/// The message of an object, with a filler.
pub(crate) fn message(kind: Kind, project: &str, name: &str, filler: impl AsRef<[u8]>, updated: i64) -> Bytes {
    let layout = kind.layout();
    let mut spec = Vec::new();
    for (field, text) in [(layout.name, name), (layout.project, project)] {
        if let Some(number) = field {
            wire::put(&mut spec, number, text.as_bytes());
        }
    }
    if kind.is_view() && kind != Kind::OnDemandFeatureView {
        // Feast refuses other views without an entity.
        const ENTITIES: u32 = 3;
        wire::put(&mut spec, ENTITIES, b"driver");
    }
    let mut message = match layout.spec {
        None => spec,
        Some(number) => {
            let mut message = Vec::new();
            wire::put(&mut message, number, &spec);
            message
        }
    };
    if let Some(number) = layout.meta {
        let moment = at(updated).encode_to_vec();
        let mut meta = Vec::new();
        wire::put(&mut meta, layout.created_timestamp, &moment);
        wire::put(&mut meta, layout.last_updated_timestamp, &moment);
        wire::put(&mut message, number, &meta);
    }
    if !filler.as_ref().is_empty() {
        wire::put(&mut message, FILLER, filler.as_ref());
    }
    message.into()
}

/// The filler of a message.
pub(crate) fn filler(message: &[u8]) -> Vec<u8> {
    wire::content(message, FILLER)
}

/// A message with this filler in place of its own.
pub(crate) fn refilled(message: &[u8], filler: impl AsRef<[u8]>) -> Bytes {
    let mut changed = wire::raw(message, |number| number != FILLER);
    wire::put(&mut changed, FILLER, filler.as_ref());
    changed.into()
}

/// A moment, to the second.
pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp { seconds, nanos: 0 }
}

/// The key of a version.
pub(crate) fn version_key(project: &str, view: &str, number: i32) -> Key {
    Key::Version { project: project.to_owned(), view: view.to_owned(), number }
}

/// A version of a feature view, with this for the view.
pub(crate) fn version(project: &str, view: &str, number: i32, body: impl AsRef<[u8]>) -> Record {
    version_of(FeatureViewVersionRecord {
        feature_view_name: view.to_owned(),
        project_id: project.to_owned(),
        version_number: number,
        feature_view_type: "feature_view".to_owned(),
        feature_view_proto: Bytes::copy_from_slice(body.as_ref()),
        created_timestamp: Some(at(AT)),
        description: format!("version {number}"),
        version_id: uuid(number),
    })
}

/// The record of a version.
pub(crate) fn version_of(version: FeatureViewVersionRecord) -> Record {
    let key = version_key(&version.project_id, &version.feature_view_name, version.version_number);
    Record::new(key, version.encode_to_vec(), version.created_timestamp.map_or(AT, |created| created.seconds))
}

/// Text of the form of a UUID.
pub(crate) fn uuid(number: i32) -> String {
    format!("00000000-0000-4000-8000-{number:012}")
}

/// The key of a view's user metadata.
pub(crate) fn user_metadata_key(kind: Kind, project: &str, view: &str) -> Key {
    Key::UserMetadata { kind, project: project.to_owned(), view: view.to_owned() }
}

/// User metadata of a view.
pub(crate) fn user_metadata(kind: Kind, project: &str, view: &str, bytes: impl AsRef<[u8]>) -> Record {
    Record::new(user_metadata_key(kind, project, view), Bytes::copy_from_slice(bytes.as_ref()), AT)
}

/// The fact that is a project's identity.
pub(crate) fn identity(project: &str, number: i32) -> Record {
    Record::new(Key::metadata(project, Key::PROJECT_UUID), uuid(number), AT)
}

/// The fact that says when a project was last changed.
pub(crate) fn last_updated(project: &str, seconds: i64) -> Record {
    Record::new(Key::metadata(project, Key::LAST_UPDATED), seconds.to_string(), AT)
}

/// The view that a whole project has of a kind.
pub(crate) fn view_name(kind: Kind) -> String {
    kind.plural().to_owned()
}

/// A project with everything: its facts, an object of every kind, and for every view three versions and user metadata.
/// `note` is in all values, so that no two projects have equal ones.
pub(crate) fn whole_project(project: &str, note: &str) -> Vec<Record> {
    let mut records = vec![identity(project, note.len() as i32), last_updated(project, AT)];
    records.extend(Kind::ALL.iter().copied().map(|kind| match kind {
        Kind::Project => object(kind, project, project, note),
        _ => object(kind, project, &view_name(kind), note),
    }));
    for &kind in Kind::VIEWS {
        let view = view_name(kind);
        records.extend((0..3).map(|number| version(project, &view, number, note)));
        records.push(user_metadata(kind, project, &view, note));
    }
    records
}

/// Names of which no two are the same, though a collation, a pattern, a normal form, a trim or a quotation might think
/// so.
pub(crate) const LOOKALIKES: &[&str] = &[
    // Case, also where folding changes the length or depends on the language.
    "driver",
    "Driver",
    "DRIVER",
    "dr\u{131}ver",
    "DR\u{130}VER",
    "stra\u{df}e",
    "strasse",
    "STRA\u{1e9e}E",
    // Accents, composed and not; compatibility forms; other alphabets' twins; characters that cannot be seen.
    "dr\u{ed}ver",
    "dri\u{301}ver",
    "dr\u{456}ver",
    "\u{ff44}river",
    "\u{c5}",
    "A\u{30a}",
    "\u{212b}",
    "\u{fb01}t",
    "fit",
    "dri\u{200b}ver",
    "dri\u{ad}ver",
    "\u{feff}driver",
    "\u{202e}driver",
    // Blanks at the ends, and nothing but blanks.
    "driver ",
    "driver  ",
    " driver",
    "driver\t",
    "driver\n",
    "driver\r\n",
    "driver\u{a0}",
    " ",
    "  ",
    "\t",
    "\u{a0}",
    "\u{3000}",
    // Patterns, quotations, separators, and what shells, SQL, paths and URLs read into them.
    "drive_",
    "drive%",
    "%",
    "_",
    "%river",
    "driver*",
    "driver?",
    "[d]river",
    "dr'iver",
    "dr''iver",
    "dr\"iver",
    "dr`iver",
    "dr\\iver",
    "dr\\\\iver",
    "dr/iver",
    "../driver",
    ".",
    "..",
    "driver%20",
    "driver+",
    "$1",
    "?1",
    ":name",
    "@name",
    "'; DROP TABLE entities; --",
    "{driver}",
    "a,b",
    "a;b",
    "a\u{1f}b",
    "\u{1}",
    "\u{7f}",
    // What looks like another type.
    "null",
    "NULL",
    "None",
    "true",
    "0",
    "00",
    "0.0",
    "0e0",
    "-0",
    // Beyond the first 65,536 characters of Unicode: old collations take them all for the same.
    "\u{1f697}",
    "\u{1f698}",
    "\u{1f468}\u{200d}\u{1f4bb}",
    "\u{10ffff}",
    "\u{fffd}",
    "\u{e000}",
    // Right to left, and ideographs.
    "\u{5e0}\u{5d4}\u{5d2}",
    "\u{53f8}\u{673a}",
    // Prefixes of each other.
    "d",
    "dr",
    "driverdriver",
];

/// A view of one of the four kinds with these features, as a user applies it.
pub(crate) fn view(kind: Kind, name: &str, features: &[&str]) -> Object {
    let name = name.to_owned();
    let features = features
        .iter()
        .map(|feature| FeatureSpecV2 { name: (*feature).to_owned(), value_type: 3, ..Default::default() })
        .collect();
    let entities = vec!["driver".to_owned()];
    match kind {
        Kind::FeatureView => Object::encode(&FeatureView {
            spec: Some(FeatureViewSpec { name, features, entities, ..Default::default() }),
            meta: None,
        }),
        Kind::StreamFeatureView => Object::encode(&StreamFeatureView {
            spec: Some(StreamFeatureViewSpec { name, features, entities, ..Default::default() }),
            meta: None,
        }),
        Kind::OnDemandFeatureView => Object::encode(&OnDemandFeatureView {
            spec: Some(OnDemandFeatureViewSpec { name, features, ..Default::default() }),
            meta: None,
        }),
        Kind::LabelView => Object::encode(&LabelView {
            spec: Some(LabelViewSpec { name, features, entities, ..Default::default() }),
            meta: None,
        }),
        _ => panic!("a {kind} is no view"),
    }
}

/// What a user applies as an object of a kind: the message, with a filler.
pub(crate) fn applied(kind: Kind, name: &str, filler: impl AsRef<[u8]>) -> Object {
    let layout = kind.layout();
    let message = message(kind, "", name, filler, AT);
    // Clients send no meta of their own.
    Object::new(kind, wire::raw(&message, |number| layout.meta != Some(number)))
}

/// The materialization interval of a number: no two have the same.
pub(crate) fn interval(number: usize) -> MaterializationInterval {
    let start = AT + 3600 * number as i64;
    MaterializationInterval { start_time: Some(at(start)), end_time: Some(at(start + 3600)) }
}
