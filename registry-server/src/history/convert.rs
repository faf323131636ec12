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
    Absent, Change, Commit, FactTarget, Filter, Image, Kind, ObjectTarget, Omitted, ProjectTarget, RestoreRequest,
    UserMetadataTarget, VersionTarget, VersionsTarget,
};

/// About what a message takes besides the two images of a change.
const FRAME: usize = 64 * 1024;

/// A filter as the registry has it.
///
/// # Errors
/// `InvalidArgument` for a kind that there is not.
pub(super) fn filter(filter: Option<Filter>) -> Result<JournalFilter> {
    let Filter { project, kinds, names, author } = filter.unwrap_or_default();
    let kinds: Vec<_> = kinds.into_iter().map(kind_of).collect::<Result<_>>()?;
    let mut filter = JournalFilter::new().with_kinds(kinds).with_names(names);
    (filter.project, filter.author) = (project, author);
    Ok(filter)
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

/// A commit, divided into messages of about so many bytes; what a single change has more than `most` for is left out. The last of
/// them says that there is no more. `skipped` of its changes are left out.
pub(super) fn in_pieces(
    entry: Arc<JournalEntry>,
    skipped: usize,
    bytes: usize,
    most: usize,
) -> impl Iterator<Item = Commit> + Send {
    let mut next = Some(skipped.min(entry.changes.len()));
    std::iter::from_fn(move || {
        let begin = next?;
        let (changes, has_more) = piece(&entry.changes[begin..], bytes, most);
        next = has_more.then_some(begin + changes.len());
        Some(Commit { changes, has_more, ..head(&entry) })
    })
}

/// The first of some changes, of about so many bytes together, and whether there are more. What a single one has more than `most`
/// for is left out.
pub(super) fn piece(of: &[core::Change], bytes: usize, most: usize) -> (Vec<Change>, bool) {
    let (mut changes, mut size) = (Vec::new(), 0);
    for change in of {
        let change = told(change, most);
        size += size_of(&change);
        if size > bytes && !changes.is_empty() {
            return (changes, true);
        }
        changes.push(change);
    }
    (changes, false)
}

/// What an undo changes. When it has more than so many bytes, the rest is told without.
pub(super) fn planned(changes: &[PlannedChange], bytes: usize) -> Vec<Change> {
    let mut left = bytes;
    let planned = changes.iter().map(|PlannedChange { key, before, after, .. }| {
        let change = core::Change::of_key(key.clone(), before.clone().into(), after.clone().into());
        let change = told(&change, left.saturating_add(FRAME));
        left = left.saturating_sub(size_of(&change));
        change
    });
    planned.collect()
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
        let change = told(change, usize::MAX);
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

fn told(change: &core::Change, most: usize) -> Change {
    let room = most.saturating_sub(FRAME);
    let before = image(&change.before, room);
    let left = room.saturating_sub(size_of(&before));
    Change { target: Some(target(&change.target)), before: Some(before), after: Some(image(&change.after, left)) }
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
        let pieces = in_pieces(entry(sizes), skipped, 1000, usize::MAX);
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
    fn bytes_for_which_no_message_has_room_are_left_out_and_said_to_be() {
        let pieces: Vec<Commit> = in_pieces(entry(&[10 * FRAME, 10]), 0, usize::MAX, 8 * FRAME).collect();
        let after = |number: usize| pieces[0].changes[number].after.as_ref().and_then(|image| image.state.clone());
        let Some(State::Omitted(omitted)) = after(0) else { panic!("{:?}", pieces[0].revision) };
        assert_eq!(omitted.why(), Why::TooLarge);
        assert!(matches!(after(1), Some(State::Value(_))));
    }

    #[test]
    fn kinds_are_those_of_the_registry() {
        for number in 1..=12 {
            assert_eq!(i32::from(kind(kind_of(number).expect("a kind"))), number);
        }
        assert!(kind_of(0).is_err() && kind_of(13).is_err());
    }
}
