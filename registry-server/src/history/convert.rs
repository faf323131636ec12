//! The journal as messages.

use std::sync::Arc;

use feast_registry_core::{
    self as core, Error, JournalEntry, JournalFilter, Key, PlannedChange, Result, Revision, Target, Undo,
};
use prost::Message;

use crate::proto::history::change::Target as ToldTarget;
use crate::proto::history::image::State;
use crate::proto::history::omitted::Why;
use crate::proto::history::restore_request::{AsOf, Target as Restored};
use crate::proto::history::{
    Absent, Change, Commit, FactTarget, Filter, Image, Kind, ObjectTarget, Omitted, ProjectTarget, Remark,
    RestoreRequest, UserMetadataTarget, VersionTarget, VersionsTarget,
};

/// About what a message takes besides the two images of a change.
const FRAME: usize = 64 * 1024;
/// How many bytes an image has at the most for a client that asks for nothing else: a message with two of them is one that any
/// client of gRPC takes.
const IMAGE: usize = 1536 * 1024;
/// How many names a filter has at the most: a watcher has all of them for as long as it watches, and each change is compared with
/// them.
const MOST_NAMES: usize = 1000;
/// How many bytes a text of a filter has at the most.
const LONGEST_TEXT: usize = 1024;

/// How many bytes a change is told with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    /// The larger of its images, at the most.
    image: usize,
    /// Both together, at the most.
    both: usize,
}

impl Room {
    /// What a client asks for, in messages of so many bytes.
    pub(super) fn of_request(max_image_bytes: Option<u64>, max_message_size: usize) -> Self {
        let image = max_image_bytes.map_or(IMAGE, |most| usize::try_from(most).unwrap_or(usize::MAX));
        Self { image, both: max_message_size.saturating_sub(FRAME) }
    }

    /// So many bytes, of whichever image.
    fn of_both(bytes: usize) -> Self {
        Self { image: bytes, both: bytes }
    }
}

/// A filter as the registry has it.
///
/// # Errors
/// `InvalidArgument` for a kind that there is not, and for more than a filter may have.
pub(super) fn filter(filter: Option<Filter>) -> Result<JournalFilter> {
    let Filter { project, kinds, names, author } = filter.unwrap_or_default();
    bounded("names", names.len(), MOST_NAMES)?;
    bounded("kinds", kinds.len(), core::Kind::ALL.len())?;
    let one = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let longest_name = names.iter().map(String::len).max().unwrap_or_default();
    for (what, length) in [("a project", one(&project)), ("an author", one(&author)), ("a name", longest_name)] {
        bounded(&format!("bytes in {what}"), length, LONGEST_TEXT)?;
    }
    let kinds: Vec<_> = kinds.into_iter().map(kind_of).collect::<Result<_>>()?;
    let mut filter = JournalFilter::new().with_kinds(kinds).with_names(names);
    (filter.project, filter.author) = (project, author);
    Ok(filter)
}

fn bounded(what: &str, number: usize, most: usize) -> Result<()> {
    if number > most {
        return Err(Error::invalid(format!("the filter has {number} {what}, and {most} is the limit")));
    }
    Ok(())
}

fn kind_of(number: i32) -> Result<core::Kind> {
    Ok(match Kind::try_from(number) {
        Ok(Kind::Project) => core::Kind::Project,
        Ok(Kind::Entity) => core::Kind::Entity,
        Ok(Kind::DataSource) => core::Kind::DataSource,
        Ok(Kind::FeatureView) => core::Kind::FeatureView,
        Ok(Kind::StreamFeatureView) => core::Kind::StreamFeatureView,
        Ok(Kind::OnDemandFeatureView) => core::Kind::OnDemandFeatureView,
        Ok(Kind::LabelView) => core::Kind::LabelView,
        Ok(Kind::FeatureService) => core::Kind::FeatureService,
        Ok(Kind::SavedDataset) => core::Kind::SavedDataset,
        Ok(Kind::ValidationReference) => core::Kind::ValidationReference,
        Ok(Kind::Permission) => core::Kind::Permission,
        Ok(Kind::Infra) => core::Kind::Infra,
        Ok(Kind::Unspecified) | Err(_) => {
            return Err(Error::invalid(format!("the request has a kind that this server does not know ({number})")));
        }
    })
}

/// A kind as messages have it.
pub(super) fn kind(kind: core::Kind) -> Kind {
    match kind {
        core::Kind::Project => Kind::Project,
        core::Kind::Entity => Kind::Entity,
        core::Kind::DataSource => Kind::DataSource,
        core::Kind::FeatureView => Kind::FeatureView,
        core::Kind::StreamFeatureView => Kind::StreamFeatureView,
        core::Kind::OnDemandFeatureView => Kind::OnDemandFeatureView,
        core::Kind::LabelView => Kind::LabelView,
        core::Kind::FeatureService => Kind::FeatureService,
        core::Kind::SavedDataset => Kind::SavedDataset,
        core::Kind::ValidationReference => Kind::ValidationReference,
        core::Kind::Permission => Kind::Permission,
        core::Kind::Infra => Kind::Infra,
    }
}

/// A commit, divided into messages of about so many bytes; images for which a change has no room are left out. The last of them says
/// that there is no more. `skipped` of its changes are left out.
pub(super) fn in_pieces(
    entry: Arc<JournalEntry>,
    skipped: usize,
    bytes: usize,
    room: Room,
) -> impl Iterator<Item = Commit> + Send {
    let mut next = Some(skipped.min(entry.changes.len()));
    std::iter::from_fn(move || {
        let begin = next?;
        let (changes, has_more) = piece(&entry.changes[begin..], bytes, room);
        next = has_more.then_some(begin + changes.len());
        Some(Commit { changes, has_more, ..head(&entry) })
    })
}

/// The first of some changes, of about so many bytes together, and whether there are more. Images for which a change has no room
/// are left out.
pub(super) fn piece(of: &[core::Change], bytes: usize, room: Room) -> (Vec<Change>, bool) {
    let (mut changes, mut size) = (Vec::new(), 0);
    for change in of {
        let change = told(change, room);
        size += size_of(&change);
        if size > bytes && !changes.is_empty() {
            return (changes, true);
        }
        changes.push(change);
    }
    (changes, false)
}

/// What an undo changes, in so many bytes, and how many changes it has besides. So many bytes of that are for images; what is more
/// is told without.
pub(super) fn planned(changes: &[PlannedChange], images: usize, bytes: usize) -> (Vec<Change>, u64) {
    let mut left = images;
    let planned = changes.iter().map(|PlannedChange { key, before, after, .. }| {
        let change = core::Change::of_key(key.clone(), before.clone().into(), after.clone().into());
        let change = told(&change, Room::of_both(left));
        let images = [&change.before, &change.after].into_iter().flatten();
        left = left.saturating_sub(images.map(size_of).sum());
        change
    });
    first(planned, bytes)
}

/// Texts as remarks, in so many bytes, and how many there are besides.
pub(super) fn remarks<'a>(texts: impl ExactSizeIterator<Item = &'a String>, bytes: usize) -> (Vec<Remark>, u64) {
    first(texts.map(|text| Remark { text: text.clone() }), bytes)
}

/// The first of some messages, as many as a field of so many bytes has, and how many there are besides.
fn first<T: Message>(mut messages: impl ExactSizeIterator<Item = T>, bytes: usize) -> (Vec<T>, u64) {
    let (mut told, mut left) = (Vec::new(), bytes);
    while let Some(message) = messages.next() {
        // Each has a tag of one byte before it, and its length.
        let length = size_of(&message);
        let size = length + 1 + prost::length_delimiter_len(length);
        if size > left {
            return (told, 1 + messages.len() as u64);
        }
        left -= size;
        told.push(message);
    }
    (told, 0)
}

/// What is to be restored.
///
/// # Errors
/// `InvalidArgument` when the request does not say what, or as of when.
pub(super) fn restoration(request: RestoreRequest) -> Result<Undo> {
    let at = match request.as_of {
        Some(AsOf::Revision(revision)) => core::AsOf::Revision(Revision::new(revision)),
        Some(AsOf::Time(time)) => core::AsOf::Time(time),
        None => {
            return Err(Error::invalid(
                "the request does not say as of when to restore: neither `revision` nor `time`",
            ));
        }
    };
    match request.target {
        Some(Restored::Object(ObjectTarget { project, kind, name })) => {
            Ok(Undo::RestoreObject { kind: kind_of(kind)?, project, name, at })
        }
        Some(Restored::WholeProject(ProjectTarget { project })) => Ok(Undo::RestoreProject { project, at }),
        None => Err(Error::invalid("the request does not say what to restore: neither `object` nor `whole_project`")),
    }
}

/// A commit without the bytes of objects, and with no more changes than have about so many bytes.
pub(super) fn without_bytes(entry: &JournalEntry, most: usize) -> Commit {
    let (mut commit, mut bytes) = (head(entry), 0);
    for change in &entry.changes {
        let change = told(change, Room::of_both(usize::MAX));
        bytes += size_of(&change);
        if bytes > most {
            commit.has_more = true;
            break;
        }
        commit.changes.push(change);
    }
    commit
}

/// How many bytes a message has on the wire, without its frame.
pub(super) fn size_of(message: &impl Message) -> usize {
    message.encoded_len()
}

fn head(entry: &JournalEntry) -> Commit {
    Commit {
        revision: entry.revision.number(),
        id: entry.id.to_string(),
        time: Some(entry.at),
        author: entry.author.clone(),
        reason: entry.reason.clone(),
        changes: Vec::new(),
        has_more: false,
    }
}

fn told(change: &core::Change, room: Room) -> Change {
    let before = image(&change.before, room.image.min(room.both));
    let left = room.both.saturating_sub(size_of(&before));
    let after = image(&change.after, room.image.min(left));
    Change { target: Some(target(&change.target)), before: Some(before), after: Some(after) }
}

fn image(image: &core::Image, most: usize) -> Image {
    let omitted = |why: Why| State::Omitted(Omitted { why: why.into() });
    let state = match image {
        core::Image::Absent => State::Absent(Absent {}),
        core::Image::Value(value) if value.len() > most => omitted(Why::TooLarge),
        core::Image::Value(value) => State::Value(value.clone()),
        core::Image::NotKept => omitted(Why::NotKept),
    };
    Image { state: Some(state) }
}

fn target(target: &Target) -> ToldTarget {
    match target.clone() {
        Target::Key(Key::Object { kind: of, project, name }) => {
            ToldTarget::Object(ObjectTarget { project, kind: kind(of).into(), name })
        }
        Target::Key(Key::Version { project, view, number }) => {
            ToldTarget::Version(VersionTarget { project, view, number })
        }
        Target::Key(Key::UserMetadata { kind: of, project, view }) => {
            ToldTarget::UserMetadata(UserMetadataTarget { project, kind: kind(of).into(), view })
        }
        Target::Key(Key::Metadata { project, name }) => ToldTarget::Fact(FactTarget { project, name }),
        Target::Versions { project, view } => ToldTarget::Versions(VersionsTarget { project, view }),
        Target::Project { project } => ToldTarget::WholeProject(ProjectTarget { project }),
    }
}

#[cfg(test)]
mod tests {
    use feast_registry_core::{CommitId, Revision, Timestamp};

    use super::*;

    fn entry(sizes: &[usize]) -> Arc<JournalEntry> {
        let mut entry = JournalEntry::new(Revision::new(7), CommitId::random(), Timestamp::default());
        let change = |(number, size): (usize, &usize)| {
            let key = Key::object(core::Kind::Entity, "p", number.to_string());
            core::Change::of_key(key, core::Image::Absent, core::Image::Value(vec![1; *size].into()))
        };
        entry.changes = sizes.iter().enumerate().map(change).collect();
        Arc::new(entry)
    }

    fn lengths(sizes: &[usize], skipped: usize) -> Vec<(usize, bool)> {
        let pieces = in_pieces(entry(sizes), skipped, 1000, Room::of_both(usize::MAX));
        pieces.map(|commit| (commit.changes.len(), commit.has_more)).collect()
    }

    #[test]
    fn a_large_commit_is_divided_and_the_last_piece_says_that_there_is_no_more() {
        assert_eq!(lengths(&[], 0), [(0, false)]);
        assert_eq!(lengths(&[100; 3], 0), [(3, false)]);
        assert_eq!(lengths(&[400; 5], 0), [(2, true), (2, true), (1, false)]);
        assert_eq!(lengths(&[400; 5], 2), [(2, true), (1, false)]);
        assert_eq!(lengths(&[400; 5], 9), [(0, false)]);
        // A change that is larger than a piece goes alone.
        assert_eq!(lengths(&[5000, 10, 5000], 0), [(1, true), (1, true), (1, false)]);
    }

    #[test]
    fn bytes_for_which_there_is_no_room_are_left_out_and_said_to_be() {
        let are_told = |sizes: &[usize], asked, message| {
            let room = Room::of_request(asked, message);
            let pieces: Vec<Commit> = in_pieces(entry(sizes), 0, usize::MAX, room).collect();
            let is_told = |change: &Change| match change.after.as_ref().and_then(|image| image.state.as_ref()) {
                Some(State::Value(_)) => true,
                Some(State::Omitted(omitted)) if omitted.why() == Why::TooLarge => false,
                state => panic!("{state:?}"),
            };
            pieces[0].changes.iter().map(is_told).collect::<Vec<_>>()
        };
        assert_eq!(are_told(&[10 * FRAME, 10], None, 8 * FRAME), [false, true], "a message has no room");
        assert_eq!(are_told(&[IMAGE, IMAGE + 1], None, 8 * IMAGE), [true, false], "nothing is asked for");
        assert_eq!(are_told(&[IMAGE + 1, 7 * IMAGE], Some(6 * IMAGE as u64), 8 * IMAGE), [true, false]);
        assert_eq!(are_told(&[7 * IMAGE, 8 * IMAGE], Some(u64::MAX), 8 * IMAGE), [true, false]);
        assert_eq!(are_told(&[1, 100], Some(0), 8 * IMAGE), [false, false], "no bytes are asked for");
    }

    #[test]
    fn what_does_not_fit_into_an_answer_is_counted() {
        let texts: Vec<String> = (0..10).map(|_| "x".repeat(196)).collect();
        // A text of 196 bytes is a remark of 199, in a field of 202.
        let (told, more) = remarks(texts.iter(), 1010);
        assert_eq!((told.len(), more), (5, 5));
        assert_eq!(remarks(texts.iter(), 2020).1, 0);
        assert_eq!(remarks(texts.iter(), 100).1, 10);
    }

    #[test]
    fn a_filter_has_bounds() {
        let text = |length| Some("x".repeat(length));
        let names = |number| Filter { names: vec!["x".to_owned(); number], ..Filter::default() };
        let kinds = |number| Filter { kinds: vec![Kind::Entity.into(); number], ..Filter::default() };
        assert!([names(1000), kinds(12)].into_iter().all(|fits| filter(Some(fits)).is_ok()));
        let of_project = |length| Filter { project: text(length), ..Filter::default() };
        assert!(filter(Some(of_project(1024))).is_ok());
        for (beyond, said) in [
            (names(1001), "has 1001 names, and 1000 is the limit"),
            (kinds(13), "has 13 kinds, and 12 is the limit"),
            (of_project(1025), "has 1025 bytes in a project, and 1024 is the limit"),
            (Filter { author: text(1025), ..Filter::default() }, "has 1025 bytes in an author"),
            (Filter { names: text(1025).into_iter().collect(), ..Filter::default() }, "has 1025 bytes in a name"),
        ] {
            let error = filter(Some(beyond)).expect_err("it is too much");
            assert!(error.to_string().contains(said), "{error}");
        }
    }

    #[test]
    fn kinds_are_those_of_the_registry() {
        for number in 1..=12 {
            assert_eq!(i32::from(kind(kind_of(number).expect("a kind"))), number);
        }
        assert!(kind_of(0).is_err() && kind_of(13).is_err());
    }
}
