//! Looking back, and comparing registries, over the journal of the memory.

use prost_types::Timestamp;

use super::*;
use crate::backend::INFRA_NAME;
use crate::journal::{Change, Image, JournalFilter, OUTSIDE, Revision, Target};
use crate::registry::{LogQuery, StoredDifference};

const PROJECT: &str = "rides";

async fn registry() -> (Arc<MemoryBackend>, Registry) {
    let backend = Arc::new(MemoryBackend::new());
    let registry = Registry::open(Arc::clone(&backend) as Arc<dyn Backend>, RegistryOptions::default()).await;
    (backend, registry.expect("memory does not fail"))
}

fn at(seconds: i64) -> Timestamp {
    Timestamp { seconds, nanos: 0 }
}

fn put(key: &Key, value: &str) -> Write {
    Write::Put(Record::new(key.clone(), value.as_bytes().to_vec(), 1))
}

async fn commit(backend: &MemoryBackend, seconds: i64, author: &str, writes: Vec<Write>) -> Revision {
    let commit = Commit::new(vec![], writes).with_time(at(seconds)).with_origin(Some(author.to_owned()), None);
    let outcome = backend.commit(commit, &Deadline::after(Duration::from_secs(1))).await.expect("memory does not fail");
    let Outcome::Committed { revision: Some(revision) } = outcome else { panic!("{outcome:?}") };
    revision
}

fn entity_key(name: &str) -> Key {
    Key::object(Kind::Entity, PROJECT, name)
}

fn version_key(view: &str, number: i32) -> Key {
    Key::Version { project: PROJECT.into(), view: view.into(), number }
}

fn value(text: &str) -> Image {
    Image::Value(text.as_bytes().to_vec().into())
}

fn numbers(entries: &[JournalEntry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.revision.number()).collect()
}

#[tokio::test]
async fn a_log_is_newest_first_filtered_and_without_images() {
    let (backend, registry) = registry().await;
    for number in 1..=600 {
        let author = if number % 200 == 0 { "bob" } else { "alice" };
        commit(&backend, number, author, vec![put(&entity_key("driver"), &number.to_string())]).await;
    }
    let log = async |query: LogQuery| registry.log(&query).await.expect("a log");
    let newest = log(LogQuery::new(JournalFilter::new(), 2)).await;
    assert_eq!(numbers(&newest), [600, 599]);
    assert_eq!((&newest[0].changes[0].before, &newest[0].changes[0].after), (&Image::NotKept, &Image::NotKept));
    let by_bob = JournalFilter::new().with_author("BOB");
    assert_eq!(numbers(&log(LogQuery::new(by_bob.clone(), 9)).await), [600, 400, 200]);
    assert_eq!(numbers(&log(LogQuery::new(by_bob, 9).before(Revision::new(400))).await), [200]);
    let all = || LogQuery::new(JournalFilter::new(), 9);
    assert_eq!(numbers(&log(all().since(at(598)).until(at(599))).await), [599, 598]);
    assert!(log(LogQuery::new(JournalFilter::new().with_project("shop"), 9)).await.is_empty());
    assert!(log(LogQuery::new(JournalFilter::new(), 0)).await.is_empty());
}

#[tokio::test]
async fn a_log_looks_past_clocks_that_are_behind() {
    let (backend, registry) = registry().await;
    for seconds in [10_000, 20_000, 16_500, 20_001] {
        commit(&backend, seconds, "alice", vec![put(&entity_key("driver"), "x")]).await;
    }
    let since = |seconds| LogQuery::new(JournalFilter::new(), 9).since(at(seconds));
    assert_eq!(numbers(&registry.log(&since(20_000)).await.expect("a log")), [4, 2]);
    // Whether revision 2 was there then, the clocks do not tell.
    let error = registry.revision_at(&at(19_999)).await.expect_err("the clocks differ");
    assert!(error.to_string().contains("name a revision"), "{error}");
    assert_eq!(registry.revision_at(&at(20_000)).await.expect("a log"), Some(Revision::new(3)));
    assert_eq!(registry.revision_at(&at(9_999)).await.expect("a log"), None);
}

#[tokio::test]
async fn facts_alone_that_others_wrote_are_left_out_unless_asked_for() {
    let (backend, registry) = registry().await;
    let fact = Key::metadata(PROJECT, Key::LAST_UPDATED);
    commit(&backend, 1, OUTSIDE, vec![put(&fact, "1")]).await;
    commit(&backend, 2, OUTSIDE, vec![put(&fact, "2"), put(&entity_key("driver"), "x")]).await;
    commit(&backend, 3, "alice", vec![put(&fact, "3")]).await;
    let query = LogQuery::new(JournalFilter::new(), 9);
    assert_eq!(numbers(&registry.log(&query).await.expect("a log")), [3, 2]);
    assert_eq!(numbers(&registry.log(&query.with_outside_facts(true)).await.expect("a log")), [3, 2, 1]);
}

#[tokio::test]
async fn an_entry_is_there_with_images_or_the_span_is_told() {
    let (backend, registry) = registry().await;
    let missing = async |number| registry.journal_entry(Revision::new(number)).await.expect_err("it is not there");
    let error = missing(1).await;
    assert!(error.kind() == ErrorKind::InvalidArgument && error.to_string().contains("it is empty"), "{error}");
    commit(&backend, 1, "alice", vec![put(&entity_key("driver"), "x")]).await;
    let second = commit(&backend, 2, "alice", vec![put(&entity_key("driver"), "y")]).await;
    let entry = registry.journal_entry(second).await.expect("an entry");
    assert_eq!(entry.changes, [Change::of_key(entity_key("driver"), value("x"), value("y"))]);
    let error = missing(7).await.to_string();
    assert!(
        error.ends_with("has no revision 7: it has those from 1 (1970-01-01T00:00:01Z) to 2 (1970-01-01T00:00:02Z)"),
        "{error}"
    );
    assert_eq!(missing(0).await.kind(), ErrorKind::Compacted);
    assert!(missing(u64::MAX).await.to_string().contains("to 2 ("));
}

#[tokio::test]
async fn many_changes_come_to_one_for_each_key() {
    let (backend, registry) = registry().await;
    let (driver, rider, gone) = (entity_key("driver"), entity_key("rider"), entity_key("gone"));
    let first =
        commit(&backend, 1, "a", vec![put(&driver, "1"), put(&gone, "g"), put(&version_key("v", 0), "v")]).await;
    commit(&backend, 2, "a", vec![put(&driver, "2"), put(&rider, "r")]).await;
    let third = commit(&backend, 3, "a", vec![put(&driver, "3"), put(&entity_key("passing"), "p")]).await;
    commit(&backend, 4, "a", vec![Write::Delete(entity_key("passing")), put(&rider, "r")]).await;
    commit(&backend, 5, "a", vec![Write::DeleteVersions { project: PROJECT.into(), view: "v".into() }]).await;
    commit(&backend, 6, "a", vec![Write::DeleteProject { project: PROJECT.into() }, put(&driver, "1")]).await;
    let between = async |after: Option<Revision>, until: Option<Revision>| {
        registry.changes_between(after, until, &JournalFilter::new()).await.expect("changes")
    };
    // What was removed whole is told key by key, and what came back as it was is not told.
    assert_eq!(
        between(Some(first), None).await,
        [
            Change::of_key(gone.clone(), value("g"), Image::Absent),
            Change::of_key(version_key("v", 0), value("v"), Image::Absent)
        ]
    );
    assert_eq!(
        between(Some(first), Some(third)).await,
        [
            Change::of_key(driver.clone(), value("1"), value("3")),
            Change::of_key(entity_key("passing"), Image::Absent, value("p")),
            Change::of_key(rider.clone(), Image::Absent, value("r"))
        ]
    );
    assert_eq!(between(None, None).await, [Change::of_key(driver.clone(), Image::Absent, value("1"))]);
    assert!(between(Some(first), Some(first)).await.is_empty());
    let of_rider = JournalFilter::new().with_names(["rider"]);
    let changes = registry.changes_between(Some(first), Some(third), &of_rider).await.expect("changes");
    assert_eq!(changes, [Change::of_key(rider, Image::Absent, value("r"))]);
    let backwards = registry.changes_between(Some(third), Some(first), &JournalFilter::new()).await;
    assert!(backwards.expect_err("backwards").to_string().contains("comes before"));
    let beyond = registry.changes_between(Some(Revision::new(99)), None, &JournalFilter::new()).await;
    assert!(beyond.expect_err("beyond").to_string().contains("has no revision 99"));
}

#[tokio::test]
async fn where_nothing_says_what_a_removal_took_it_is_told_itself() {
    let mut net = super::super::log::Net::default();
    let entry = |changes: Vec<Change>| {
        let mut entry = JournalEntry::new(Revision::new(1), CommitId::from_bytes([0; 16]), at(1));
        entry.changes = changes;
        entry
    };
    let removal = Target::Project { project: PROJECT.into() };
    let changed = |name| Change::of_key(entity_key(name), Image::NotKept, Image::NotKept);
    net.add(entry(vec![changed("driver"), changed("rider")]), &JournalFilter::new());
    net.add(entry(vec![Change::removal(removal.clone())]), &JournalFilter::new());
    let made = |name| Change::of_key(entity_key(name), Image::Absent, Image::NotKept);
    net.add(entry(vec![made("rider"), made("new")]), &JournalFilter::new());
    assert_eq!(
        net.into_changes(),
        [
            Change::removal(removal),
            Change::of_key(entity_key("driver"), Image::NotKept, Image::Absent),
            changed("new"),
            changed("rider"),
        ]
    );
}

async fn differences(one: &Registry, other: &Registry, project: Option<&str>) -> Vec<StoredDifference> {
    let mut contrast = one.contrast(other, project);
    let mut found = Vec::new();
    while let Some(difference) = contrast.next().await.expect("both answer") {
        found.push(difference);
    }
    found
}

#[tokio::test]
async fn two_registries_are_compared_key_by_key_across_pages() {
    let ((one_backend, one), (other_backend, other)) = (registry().await, registry().await);
    let metadata =
        |view: &str| Key::UserMetadata { kind: Kind::FeatureView, project: PROJECT.into(), view: view.into() };
    let view = |name: &str| Key::object(Kind::FeatureView, PROJECT, name);
    let mut common = vec![put(&Key::object(Kind::Infra, PROJECT, INFRA_NAME), "i")];
    for number in 0..600 {
        common.push(put(&entity_key(&format!("e{number:03}")), "same"));
        if number < 80 {
            let name = format!("v{number:02}");
            common.extend([put(&view(&name), "view"), put(&metadata(&name), "m"), put(&version_key(&name, 0), "v0")]);
        }
    }
    for backend in [&one_backend, &other_backend] {
        commit(backend, 1, "a", common.clone()).await;
    }
    assert!(differences(&one, &other, None).await.is_empty());
    let uuid = Key::metadata(PROJECT, Key::PROJECT_UUID);
    let updated = Key::metadata(PROJECT, Key::LAST_UPDATED);
    let here = vec![
        put(&entity_key("e599"), "here"),
        put(&entity_key("a"), "only here"),
        put(&metadata("v79"), "mine"),
        put(&version_key("v40", 1), "v1"),
        put(&uuid, "1"),
        put(&updated, "1"),
    ];
    commit(&one_backend, 2, "a", here).await;
    let there = vec![
        put(&entity_key("z"), "only there"),
        put(&Key::object(Kind::Entity, "shop", "customer"), "c"),
        put(&uuid, "2"),
        put(&updated, "2"),
    ];
    commit(&other_backend, 2, "a", there).await;
    let bytes = |text: Option<&str>| text.map(|text| Bytes::copy_from_slice(text.as_bytes()));
    let of = |key: Key, here: Option<&str>, there: Option<&str>| StoredDifference {
        key,
        one: bytes(here),
        other: bytes(there),
    };
    let in_project = [
        of(entity_key("a"), Some("only here"), None),
        of(entity_key("e599"), Some("here"), Some("same")),
        of(entity_key("z"), None, Some("only there")),
        of(version_key("v40", 1), Some("v1"), None),
        of(metadata("v79"), Some("mine"), Some("m")),
        of(uuid, Some("1"), Some("2")),
    ];
    let shop = of(Key::object(Kind::Entity, "shop", "customer"), None, Some("c"));
    assert_eq!(differences(&one, &other, Some(PROJECT)).await, in_project);
    let all = differences(&one, &other, None).await;
    assert_eq!(all.len(), 7);
    assert!(all.contains(&shop));
}
