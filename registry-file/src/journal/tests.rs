//! What is kept of commits, for how long, and what it tells.

use std::time::Duration;

use feast_registry_core::{Image, Key, Kind, Target};

use super::*;

const NOW: i64 = 1_800_000_000;
const HOUR: i64 = 3600;

fn at(seconds: i64) -> Timestamp {
    Timestamp { seconds, nanos: 0 }
}

fn id(number: u128) -> CommitId {
    CommitId::from_bytes(number.to_be_bytes())
}

/// Adds a commit of a number that changes one entity, and returns its revision.
fn add(journal: &mut Journal, number: u128, seconds: i64) -> Revision {
    let commit = Commit::new(Vec::new(), Vec::new()).with_id(id(number)).with_time(at(seconds));
    let key = Key::object(Kind::Entity, "p", format!("entity {number}"));
    journal.add(&commit, vec![Change::of_key(key, Image::Absent, Image::NotKept)], History::Keys, &at(seconds))
}

/// The journal as it is read from the file.
fn read_back(journal: &Journal) -> Journal {
    let (mut head, mut entries) = (None, Vec::new());
    for extra in journal.extras() {
        match extra.table() {
            Table::Journal => head = Some(extra.value),
            _ => entries.push(extra.value),
        }
    }
    // Whoever passes them on need not keep their order.
    entries.reverse();
    Journal::parse(head, entries)
}

#[test]
fn an_entry_is_read_as_it_was_added() {
    let (project, view) = ("p".to_owned(), "v\u{e9}".to_owned());
    let kind = Kind::FeatureView;
    let keys = [
        Key::object(kind, "p", "v"),
        Key::project_object("p"),
        Key::Version { project: project.clone(), view: view.clone(), number: 7 },
        Key::UserMetadata { kind, project: project.clone(), view: view.clone() },
        Key::metadata("p", Key::PROJECT_UUID),
    ];
    let images = [(Image::Absent, Image::NotKept), (Image::NotKept, Image::Absent), (Image::NotKept, Image::NotKept)];
    let changes = keys.iter().zip(images.iter().cycle());
    let changes = changes.map(|(key, (before, after))| Change::of_key(key.clone(), before.clone(), after.clone()));
    let removals = [Target::Versions { project: project.clone(), view }, Target::Project { project }];
    let changes: Vec<Change> = changes.chain(removals.map(Change::removal)).collect();
    let moment = Timestamp { seconds: NOW, nanos: 123_456_000 };
    let commit = Commit::new(Vec::new(), Vec::new()).with_time(moment).with_origin(Some("alice".into()), None);
    let mut journal = Journal::default();
    let revision = journal.add(&commit, changes.clone(), History::Keys, &at(NOW));
    let read = read_back(&journal).read(&JournalQuery::after(None, 10), "registry.db").expect("a journal");
    let mut expected = JournalEntry::new(revision, commit.id, moment);
    (expected.author, expected.changes) = (Some("alice".into()), changes);
    assert_eq!(read, [expected]);
}

#[test]
fn revisions_grow_whatever_the_clock_says() {
    let mut journal = Journal::default();
    let revisions: Vec<_> = [NOW, NOW, NOW - HOUR, NOW + 1].map(|now| add(&mut journal, now as u128, now)).into();
    assert!(revisions.is_sorted_by(|one, other| one < other), "{revisions:?}");
    // Of a registry that begins anew, or of an older one in its place, none is a revision that anybody has seen.
    let mut anew = Journal::default();
    assert!(add(&mut anew, 1, NOW + 2) > revisions[3]);
    let gone = anew.read(&JournalQuery::after(Some(revisions[0]), 10), "registry.db").expect_err("it does not have it");
    assert_eq!(gone.kind(), ErrorKind::Compacted);
}

#[test]
fn a_commit_is_known_by_its_identity_when_its_entry_is_gone() {
    let mut journal = Journal::default();
    journal.sign(&[7; 16], 1, &at(NOW));
    // More than there is room for entries of that size, and less than there is for those and identities.
    let first = (ENTRY_BYTES / 60 + 2000) as u128;
    let revisions: Vec<Revision> = (0..first).map(|number| add(&mut journal, number, NOW)).collect();
    journal.prune(&Keeps::default(), 0, &at(NOW));
    let mut journal = read_back(&journal);
    let kept = journal.read(&JournalQuery::after(None, usize::MAX), "registry.db").expect("a journal");
    let room = ENTRY_BYTES - 100..=ENTRY_BYTES;
    assert!(room.contains(&journal.entry_bytes), "{} entries in {} bytes", kept.len(), journal.entry_bytes);
    assert_eq!(kept.last().map(|entry| entry.revision), revisions.last().copied());
    for (number, revision) in revisions.iter().enumerate() {
        assert_eq!(journal.revision_of(&id(number as u128)), Some(*revision), "commit {number}");
    }
    assert!(journal.read(&JournalQuery::after(Some(revisions[0]), 10), "registry.db").is_err(), "its entry is gone");
    // However much is written, that is how many are known; and the file has no more for them than it should.
    let last = first + 2 * IDENTITIES as u128;
    for number in first..=last {
        add(&mut journal, number, NOW);
        journal.prune(&Keeps::default(), 0, &at(NOW));
    }
    let known = (0..=last).filter(|number| journal.revision_of(&id(*number)).is_some()).count();
    assert_eq!(known, IDENTITIES + journal.entries.len());
    assert!(journal.revision_of(&id(last - IDENTITIES as u128)).is_some());
    let bytes: usize = journal.extras().map(|extra| extra.encoded_len()).sum();
    assert!(bytes <= ENTRY_BYTES + IDENTITIES * IDENTITY_BYTES + 100, "{bytes} bytes");
    // After a day they are forgotten; the newest entry never is.
    add(&mut journal, last + 1, NOW + 24 * HOUR);
    journal.prune(&Keeps::default(), 0, &at(NOW + 24 * HOUR));
    assert!(journal.revision_of(&id(last - IDENTITIES as u128)).is_some(), "clocks differ");
    journal.prune(&Keeps { retention: Retention::new(Duration::ZERO, 1), ..Keeps::default() }, 0, &at(NOW + 26 * HOUR));
    assert_eq!((journal.entries.len(), journal.identities.len(), journal.revisions.len()), (1, 0, 1));
}

#[test]
fn who_prunes_takes_what_is_old_whatever_room_there_is_and_no_identity() {
    let mut journal = Journal::default();
    for (number, age) in [(0, 72), (1, 48), (2, 30), (3, 1), (4, 0)] {
        add(&mut journal, number, NOW - age * HOUR);
    }
    let (now, day) = (at(NOW), Duration::from_secs(24 * 3600));
    for (retention, removed) in [
        (Retention::new(day * 30, 100), 0),
        (Retention::new(day * 30, 4), 1),
        (Retention::new(Duration::ZERO, 100), 2),
        (Retention::new(Duration::ZERO, 0), 0),
    ] {
        assert_eq!(journal.has_more_than(&retention, &now), removed > 0, "{retention:?}");
        assert_eq!(journal.prune_entries(&retention, usize::MAX, &now), removed, "{retention:?}");
    }
    assert_eq!(journal.entries.len(), 2);
    assert!((0..5).all(|number| journal.revision_of(&id(number)).is_some()));
    assert_eq!(journal.prune_entries(&Retention::new(Duration::ZERO, 0), usize::MAX, &at(NOW + 90 * HOUR)), 1);
    assert_eq!(journal.entries.len(), 1, "the newest stays");
}

#[test]
fn a_larger_file_has_room_for_more() {
    let mut journal = Journal::default();
    for number in 0..20_000 {
        add(&mut journal, number, NOW);
    }
    journal.prune(&Keeps::default(), 5_000_000, &at(NOW));
    let bytes: usize = journal.extras().map(|extra| extra.encoded_len()).sum();
    assert!((300_000..500_000).contains(&bytes), "a tenth of the file at the most: {bytes}");
    assert!(journal.entries.len() > 3000 && journal.identities.len() > 6000);
}

#[test]
fn a_process_knows_its_last_write_however_many_others_wrote() {
    let writer = |number: u64| -> WriterId { u128::from(number).to_be_bytes() };
    let base = Journal::default();
    let mut journal = Journal::default();
    journal.sign(&writer(0), 7, &at(NOW));
    for number in 1..4000 {
        journal.sign(&writer(number % 500), number, &at(NOW));
        if number % 500 == 499 {
            journal.sign(&writer(0), 7, &at(NOW));
        }
    }
    for number in 1..400 {
        journal.sign(&writer(number), number, &at(NOW + HOUR));
        journal.prune(&Keeps::default(), 0, &at(NOW + HOUR));
    }
    let journal = read_back(&journal);
    assert_eq!(journal.tells_of(&writer(0), 7, &base), WriteStatus::Done);
    assert_eq!(journal.tells_of(&writer(0), 8, &base), WriteStatus::NotDone);
    assert_eq!(journal.tells_of(&writer(9999), 1, &base), WriteStatus::NotDone);
    // A file that does not go on from the one that a write was made from tells nothing.
    let mut other = Journal::default();
    assert_eq!(other.tells_of(&writer(0), 8, &journal), WriteStatus::Nothing);
    other.sign(&writer(1), 1, &at(NOW));
    assert_eq!(other.tells_of(&writer(0), 8, &journal), WriteStatus::Nothing);
    // One that this library has not written before has nothing to go on from.
    assert_eq!(other.tells_of(&writer(0), 1, &base), WriteStatus::NotDone);
}

#[test]
fn writers_of_days_ago_are_forgotten_but_not_the_last() {
    let mut journal = Journal::default();
    for number in 0..1000_u128 {
        journal.sign(&number.to_be_bytes(), 1, &at(NOW));
    }
    journal.prune(&Keeps::default(), 0, &at(NOW + 24 * HOUR));
    assert_eq!(journal.writers.len(), 1000);
    // A clock that is wrong by years does not make a process forget itself.
    journal.prune(&Keeps::default(), 0, &at(NOW + 100_000 * HOUR));
    assert_eq!(journal.writers.len(), WRITERS_KEPT);
    assert_eq!(journal.tells_of(&999_u128.to_be_bytes(), 1, &Journal::default()), WriteStatus::Done);
    for number in 0..5000_u128 {
        journal.sign(&number.to_be_bytes(), 2, &at(NOW + 100_000 * HOUR));
    }
    journal.prune(&Keeps::default(), 0, &at(NOW + 100_000 * HOUR));
    assert_eq!(journal.writers.len(), MAX_WRITERS);
}

#[test]
fn what_cannot_be_read_of_a_journal_is_left_out() {
    let mut journal = Journal::default();
    let revision = add(&mut journal, 1, NOW);
    let whole = journal.entries[0].bytes.clone();
    let torn = [Bytes::new(), Bytes::from_static(b"\xff\xff"), whole.slice(..12), whole.clone(), whole.clone()];
    let read = Journal::parse(Some(Bytes::from_static(b"\x0a\xff")), torn.into());
    let revisions: Vec<_> = read
        .read(&JournalQuery::after(None, 10), "registry.db")
        .expect("a journal")
        .iter()
        .map(|entry| entry.revision)
        .collect();
    assert_eq!(revisions, [revision]);
}

#[test]
fn a_full_history_has_the_bytes_and_little_of_what_hardly_changed() {
    let view = |number: u32| -> Bytes {
        let spec = (0..3000_u32).map(|place| (place.wrapping_mul(2_654_435_761) >> 13) as u8);
        spec.chain(number.to_be_bytes()).collect()
    };
    let key = Key::object(Kind::FeatureView, "p", "v");
    let mut journal = Journal::default();
    let mut last = Image::Absent;
    let mut expected = Vec::new();
    for number in 0..100 {
        let next = if number == 50 { Image::Absent } else { Image::Value(view(number)) };
        let change = Change::of_key(key.clone(), std::mem::replace(&mut last, next.clone()), next);
        journal.add(&Commit::new(Vec::new(), Vec::new()), vec![change.clone()], History::Full, &at(NOW));
        expected.push(change);
    }
    let empty = Change::of_key(Key::metadata("p", "f"), Image::Value(Bytes::new()), Image::Absent);
    journal.add(&Commit::new(Vec::new(), Vec::new()), vec![empty.clone()], History::Full, &at(NOW));
    expected.push(empty);
    assert!(journal.entry_bytes < 100 * 3400, "{} bytes for a hundred changes of 3000", journal.entry_bytes);
    let changes = |journal: &Journal, query: JournalQuery| -> Vec<Change> {
        let entries = journal.read(&query, "registry.db").expect("a journal");
        entries.into_iter().flat_map(|entry| entry.changes).collect()
    };
    let mut journal = read_back(&journal);
    assert_eq!(changes(&journal, JournalQuery::after(None, 1000)), expected);
    let bare = changes(&journal, JournalQuery::after(None, 1000).without_images());
    let without = |change: &Change| (change.before != Image::Absent, change.after != Image::Absent);
    assert!(bare.iter().all(|change| !matches!(change.before, Image::Value(_))));
    assert_eq!(bare.iter().map(without).collect::<Vec<_>>(), expected.iter().map(without).collect::<Vec<_>>());
    // Who keeps keys leaves the bytes of the others, as far as there is room for them.
    let full = Keeps { history: History::Full, ..Keeps::default() };
    journal.prune(&full, 0, &at(NOW));
    assert_eq!(journal.entries.len(), 101);
    add(&mut journal, 7, NOW);
    journal.prune(&Keeps::default(), 0, &at(NOW));
    assert!(journal.entry_bytes <= ENTRY_BYTES && journal.entries.len() > 70, "{}", journal.entries.len());
    let kept = changes(&journal, JournalQuery::before(None, 2));
    assert_eq!((&kept[0].after, &kept[1]), (&Image::NotKept, &expected[100]));
}

#[test]
fn a_full_history_takes_no_more_room_than_it_may() {
    let full = Keeps { history: History::Full, ..Keeps::default() };
    let mut journal = Journal::default();
    for number in 0..200_u8 {
        let change =
            Change::of_key(Key::project_object("p"), Image::Absent, Image::Value(vec![number; 100_000].into()));
        journal.add(&Commit::new(Vec::new(), Vec::new()), vec![change], History::Full, &at(NOW));
    }
    journal.prune(&full, 12 << 20, &at(NOW));
    assert!((5 << 20..=6 << 20).contains(&journal.entry_bytes), "half of the file: {} bytes", journal.entry_bytes);
    journal.prune(&full, 0, &at(NOW));
    assert!((3 << 20..=4 << 20).contains(&journal.entry_bytes), "{} bytes", journal.entry_bytes);
}

#[test]
fn bytes_that_were_packed_with_others_are_an_error_and_no_panic() {
    let mut record = JournalRecord::new(
        7,
        &Commit::new(Vec::new(), Vec::new()),
        vec![Change::of_key(
            Key::project_object("p"),
            Image::Value(vec![7; 900].into()),
            Image::Value(vec![7; 901].into()),
        )],
        History::Full,
    );
    assert!(JournalRecord::entry(&record.encode_to_vec(), true).is_ok());
    record.spoil();
    let error = JournalRecord::entry(&record.encode_to_vec(), true).expect_err("it cannot be unpacked");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(JournalRecord::entry(&record.encode_to_vec(), false).is_ok());
}
