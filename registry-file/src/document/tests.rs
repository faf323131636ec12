//! What stands in the file, and what becomes of what Feast writes there.

use bytes::Bytes;
use feast_registry_core::config::History;
use feast_registry_core::proto::core::{
    Entity, EntityMeta, EntitySpecV2, Infra, InfraObject, Project, ProjectMetadata, ProjectSpec, Registry,
    ValidationReference,
};
use feast_registry_core::{
    Change, Commit, Environment as _, INFRA_NAME, Image, Key, Kind, Query, Record, System, Write,
};
use prost::Message;
use prost_types::Timestamp;

use super::*;

fn project(name: &str) -> Project {
    Project { spec: Some(ProjectSpec { name: name.to_owned(), ..Default::default() }), meta: None }
}

fn entity(project: &str, name: &str, second: i64) -> Entity {
    let spec = EntitySpecV2 { name: name.to_owned(), project: project.to_owned(), ..Default::default() };
    let at = Some(Timestamp { seconds: second, nanos: 0 });
    Entity { spec: Some(spec), meta: Some(EntityMeta { created_timestamp: at, last_updated_timestamp: at }) }
}

fn infra(name: &str) -> Infra {
    let object = InfraObject { infra_object_class_type: name.to_owned(), ..Default::default() };
    Infra { infra_objects: vec![object] }
}

fn parse(message: &Registry) -> Document {
    Document::parse(&message.encode_to_vec().into()).expect("a registry")
}

/// What Feast does with a file: unknown fields stay as they are.
fn rewritten(file: &Bytes, change: impl Fn(&mut Registry)) -> Bytes {
    let mut message = Registry::decode(&**file).expect("a registry");
    change(&mut message);
    let known = |number: u32| number <= 19;
    let unknown = wire::retain(file, |number| !known(number)).expect("a message");
    [message.encode_to_vec(), unknown].concat().into()
}

fn put(document: &mut Document, key: Key, value: impl Into<Bytes>, updated: i64) {
    let before = Image::from(get(document, &key).map(|(value, _)| value));
    let value = value.into();
    let writes = vec![Write::Put(Record::new(key.clone(), value.clone(), updated))];
    let done = document.commit(&Commit::new(Vec::new(), writes), History::Keys).expect("a commit");
    assert_eq!(done.expect("nothing is expected"), [Change::of_key(key, before, Image::Value(value))]);
}

fn get(document: &Document, key: &Key) -> Option<(Bytes, i64)> {
    let mut found = document.read(&[Query::Keys(vec![key.clone()])]).remove(0);
    found.pop().map(|record| (record.value, record.updated))
}

/// The file after a write.
fn written(document: &mut Document, version_id: &str) -> Bytes {
    document.encode(version_id, &System.now())
}

fn infra_key(project: &str) -> Key {
    Key::object(Kind::Infra, project, INFRA_NAME)
}

#[test]
fn a_file_is_a_message_of_feasts_that_begins_with_its_id() {
    let mut document = Document::new();
    put(&mut document, Key::project_object("p"), project("p").encode_to_vec(), 5);
    put(&mut document, Key::object(Kind::Entity, "p", "e"), entity("p", "e", 7).encode_to_vec(), 7);
    let uuid = uuid::Uuid::new_v4().to_string();
    put(&mut document, Key::metadata("p", Key::PROJECT_UUID), uuid.clone(), 7);
    let id = uuid::Uuid::new_v4().to_string();
    let file = written(&mut document, &id);
    assert_eq!(&file[..2], [0x22, 36], "the local file is recognized by how it begins");
    let message = Registry::decode(&*file).expect("a registry");
    assert_eq!((message.version_id, message.registry_schema_version.as_str()), (id, "1"));
    assert_eq!((message.projects, message.entities), (vec![project("p")], vec![entity("p", "e", 7)]));
    #[allow(deprecated)]
    let metadata = message.project_metadata;
    assert_eq!(metadata, [ProjectMetadata { project: "p".to_owned(), project_uuid: uuid }]);
}

#[test]
fn the_second_of_a_write_is_kept_until_feast_changes_the_object() {
    let key = Key::object(Kind::ValidationReference, "p", "v");
    let reference = |profiler: &str| ValidationReference {
        name: "v".to_owned(),
        project: "p".to_owned(),
        reference_dataset_name: profiler.to_owned(),
        ..Default::default()
    };
    let mut document = Document::new();
    put(&mut document, key.clone(), reference("a").encode_to_vec(), 1234);
    let file = written(&mut document, "first");
    assert_eq!(get(&Document::parse(&file).expect("a registry"), &key).expect("stored").1, 1234);
    let untouched = rewritten(&file, |message| message.entities.push(entity("p", "e", 1)));
    assert_eq!(get(&Document::parse(&untouched).expect("a registry"), &key).expect("stored").1, 1234);
    let changed = rewritten(&file, |message| message.validation_references = vec![reference("b")]);
    assert_eq!(get(&Document::parse(&changed).expect("a registry"), &key).expect("stored").1, 0, "nobody knows");
}

#[test]
fn user_metadata_goes_when_feast_deletes_the_view() {
    let view = feast_registry_core::proto::core::FeatureView {
        spec: Some(feast_registry_core::proto::core::FeatureViewSpec {
            name: "v".to_owned(),
            project: "p".to_owned(),
            ..Default::default()
        }),
        meta: None,
    };
    let note = Key::UserMetadata { kind: Kind::FeatureView, project: "p".to_owned(), view: "v".to_owned() };
    let mut document = Document::new();
    put(&mut document, Key::object(Kind::FeatureView, "p", "v"), view.encode_to_vec(), 1);
    put(&mut document, note.clone(), "note", 2);
    let file = written(&mut document, "first");
    let kept = rewritten(&file, |message| message.entities.push(entity("p", "e", 1)));
    assert_eq!(get(&Document::parse(&kept).expect("a registry"), &note), Some((Bytes::from("note"), 2)));
    let deleted = rewritten(&file, |message| message.feature_views.clear());
    assert_eq!(get(&Document::parse(&deleted).expect("a registry"), &note), None);
}

#[test]
fn feasts_infrastructure_is_that_of_the_projects_it_can_be_of() {
    let theirs = infra("theirs").encode_to_vec();
    // Of one project, it is that project's, whatever was known of it.
    let mut one = parse(&Registry { projects: vec![project("p")], ..Default::default() });
    put(&mut one, infra_key("p"), infra("ours").encode_to_vec(), 9);
    let file = written(&mut one, "first");
    assert_eq!(Registry::decode(&*file).expect("a registry").infra, Some(infra("ours")));
    assert_eq!(get(&Document::parse(&file).expect("a registry"), &infra_key("p")).expect("stored").1, 9);
    let changed = rewritten(&file, |message| message.infra = Some(infra("theirs")));
    let changed = Document::parse(&changed).expect("a registry");
    assert_eq!(get(&changed, &infra_key("p")).expect("stored").0, theirs);
    // Of several, it is that of those of which nothing is known.
    let mut two = parse(&Registry { projects: vec![project("p"), project("q")], ..Default::default() });
    put(&mut two, infra_key("p"), infra("ours").encode_to_vec(), 9);
    let changed = rewritten(&written(&mut two, "first"), |message| message.infra = Some(infra("theirs")));
    let changed = Document::parse(&changed).expect("a registry");
    assert_eq!(get(&changed, &infra_key("p")).expect("stored").0, infra("ours").encode_to_vec());
    assert_eq!(get(&changed, &infra_key("q")).expect("stored").0, theirs);
    assert_eq!(get(&changed, &infra_key("r")), None);
}

#[test]
fn the_last_writes_are_known_by_their_ids() {
    let mut document = Document::new();
    let mut file = written(&mut document, "0");
    for number in 1..=LINEAGE {
        file = written(&mut document, &number.to_string());
    }
    let read = Document::parse(&file).expect("a registry");
    let has = |read: &Document, id: &str| read.lineage.iter().any(|of| of == id);
    assert!(!has(&read, "0") && (1..=LINEAGE).all(|number| has(&read, &number.to_string())));
    let theirs = rewritten(&file, |message| message.version_id = "theirs".to_owned());
    let read = Document::parse(&theirs).expect("a registry");
    assert!(has(&read, "theirs") && has(&read, "2"));
}

#[test]
fn what_is_twice_counts_once_and_what_does_not_say_its_name_is_refused() {
    let twice = Registry { entities: vec![entity("p", "e", 1), entity("p", "e", 2)], ..Default::default() };
    let key = Key::object(Kind::Entity, "p", "e");
    let mut document = parse(&twice);
    assert_eq!(get(&document, &key).expect("stored").1, 1, "Feast finds the first");
    let wrong = Record::new(key, entity("p", "other", 1).encode_to_vec(), 1);
    assert!(document.commit(&Commit::new(Vec::new(), vec![Write::Put(wrong)]), History::Keys).is_err());
}

#[test]
fn a_document_that_was_changed_over_and_over_is_known_for_it() {
    let mut document = parse(&Registry { entities: vec![entity("p", "e", 1)], ..Default::default() });
    assert!(!document.is_loose());
    for second in 0..60_000 {
        put(&mut document, Key::object(Kind::Entity, "p", "e"), entity("p", "e", second).encode_to_vec(), second);
    }
    // What was replaced is not counted less: at worst it is taken in anew too early.
    assert!(document.is_loose() && written(&mut document, "id").len() < 1000);
}

#[test]
fn a_write_of_feasts_shows_in_when_projects_were_last_changed() {
    const NOW: i64 = 1_800_000_000;
    let fact = |project: &str| Key::metadata(project, Key::LAST_UPDATED);
    let noted = |document: &Document, project: &str| get(document, &fact(project)).map(|(text, _)| text);
    let seconds = |seconds: i64| Some(Bytes::from(seconds.to_string()));
    let written_by_feast = |file: &Bytes, id: &str, seconds: i64, nanos: i32| {
        let written = rewritten(file, |message| {
            message.version_id = id.to_owned();
            message.last_updated = Some(Timestamp { seconds, nanos });
        });
        Document::parse(&written).expect("a registry")
    };
    let mut document = Document::new();
    put(&mut document, fact("p"), NOW.to_string(), NOW);
    put(&mut document, fact("q"), (NOW + 100).to_string(), NOW);
    put(&mut document, Key::metadata("r", Key::PROJECT_UUID), "uuid", NOW);
    put(&mut document, Key::project_object("s"), project("s").encode_to_vec(), NOW);
    let ours = document.encode("ours", &Timestamp { seconds: NOW, nanos: 5 });
    let read = Document::parse(&ours).expect("a registry");
    let all = |document: &Document| ["p", "q", "r", "s"].map(|project| noted(document, project));
    assert_eq!(all(&read), [seconds(NOW), seconds(NOW + 100), None, None], "what we wrote is as we wrote it");

    // In the same second, in a later one, and by a clock that is slow.
    let same = written_by_feast(&ours, "feast-1", NOW, 7);
    assert_eq!(all(&same), [seconds(NOW + 1), seconds(NOW + 101), seconds(NOW + 1), None]);
    let later = written_by_feast(&ours, "feast-2", NOW + 500, 7);
    assert_eq!(all(&later), [seconds(NOW + 501), seconds(NOW + 501), seconds(NOW + 501), None]);
    let slow = written_by_feast(&ours, "feast-3", NOW - 500, 7);
    assert_eq!(noted(&slow, "p"), seconds(NOW + 1));
    let nothing = written_by_feast(&ours, "feast-4", i64::MAX, i32::MAX);
    assert_eq!(noted(&nothing, "p"), seconds(i64::MAX));

    // It stays when we write next, and goes no further.
    let mut next = later;
    put(&mut next, Key::metadata("p", "another"), "fact", NOW);
    let ours = next.encode("ours-again", &Timestamp { seconds: NOW + 501, nanos: 0 });
    let read = Document::parse(&ours).expect("a registry");
    assert_eq!(all(&read), all(&next));
}
