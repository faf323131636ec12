//! Entries of the journal in words, and for programs.

use std::collections::HashSet;
use std::net::IpAddr;

use anyhow::Result;
use clap::Args;
use feast_registry::{
    Change, Difference, ErrorKind, Image, JournalEntry, JournalFilter, JournalSpan, Key, Kind, Registry, Target,
};
use serde_json::{Value as Json, json};

use super::location::Opened;
use super::selection::{self, Selection};
use super::{changes, output, text};
use crate::peer::Peer;

/// The room before the fields of something.
pub(super) const INDENT: &str = "  ";

/// How many of the things that a commit changed are named in its line.
const NAMED: usize = 3;

/// Which objects the journal is looked through for.
#[derive(Debug, Args)]
pub(super) struct Narrowing {
    /// Only what was changed in this project, which need not be there any more.
    #[arg(short, long, value_name = "NAME")]
    project: Option<String>,

    /// What was changed in all projects, also with `-c`.
    #[arg(short = 'A', long, conflicts_with = "project")]
    all_projects: bool,

    /// Only objects of this kind; `view` is a view of any of the four kinds.
    #[arg(short, long, value_name = "KIND", ignore_case = true, value_parser = selection::of_one())]
    kind: Option<Selection>,

    /// Only objects of this name.
    #[arg(short = 'N', long, value_name = "NAME")]
    name: Option<String>,
}

impl Narrowing {
    /// The one project that is looked at; `None` for all.
    pub(super) fn project<'a>(&'a self, opened: &'a Opened) -> Option<&'a str> {
        let configured = opened.project.as_deref().filter(|_| !self.all_projects);
        self.project.as_deref().or(configured)
    }

    /// What of the journal is looked at.
    pub(super) fn filter(&self, opened: &Opened) -> JournalFilter {
        let mut filter = JournalFilter::new();
        if let Some(project) = self.project(opened) {
            filter = filter.with_project(project);
        }
        if let Some(selection) = self.kind {
            filter = filter.with_kinds(selection.kinds());
        }
        filter.with_names(self.name.as_ref())
    }

    /// Whether a key is of what is looked at, but for its project.
    pub(super) fn is_of(&self, key: &Key) -> bool {
        let (kind, name) = match key {
            Key::Object { kind, name, .. } => (Some(*kind), name),
            Key::UserMetadata { kind, view, .. } => (Some(*kind), view),
            Key::Version { view, .. } => (None, view),
            Key::Metadata { .. } => return self.kind.is_none() && self.name.is_none(),
        };
        let is_of_kind = |selection: Selection| match kind {
            Some(kind) => selection.kinds().contains(&kind),
            None => selection.kinds().iter().any(|kind| kind.is_view()),
        };
        self.kind.is_none_or(is_of_kind) && self.name.as_ref().is_none_or(|wanted| wanted == name)
    }
}

/// What happened to one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Created,
    Changed,
    /// A view was materialized, and nothing else about it changed.
    Materialized,
    Deleted,
}

impl Action {
    /// What a change did, as far as its images tell.
    pub(super) fn of(change: &Change) -> Self {
        match (&change.before, &change.after) {
            (_, Image::Absent) => Action::Deleted,
            (Image::Absent, _) => Action::Created,
            _ if difference(change).is_some_and(|difference| changes::is_materialization(&difference)) => {
                Action::Materialized
            }
            _ => Action::Changed,
        }
    }

    pub(super) fn word(self) -> &'static str {
        match self {
            Action::Created => "created",
            Action::Changed => "changed",
            Action::Materialized => "materialized",
            Action::Deleted => "deleted",
        }
    }
}

/// What a change of a key came to, where the storage keeps what was there.
pub(super) fn difference(change: &Change) -> Option<Difference> {
    let Target::Key(key) = &change.target else { return None };
    let bytes = |image: &Image| match image {
        Image::Absent => Some(None),
        Image::Value(bytes) => Some(Some(bytes.clone())),
        Image::NotKept => None,
    };
    let (before, after) = (bytes(&change.before)?, bytes(&change.after)?);
    Some(Difference::between(key, before.as_deref(), after.as_deref()))
}

/// A thing in a sentence: `feature view driver_stats`.
pub(super) fn thing(target: &Target) -> String {
    match target {
        Target::Key(Key::Object { kind: Kind::Infra, .. }) => "infrastructure".to_owned(),
        Target::Key(Key::Object { kind, name, .. }) => format!("{kind} {}", text::clean(name)),
        Target::Key(Key::Version { view, number, .. }) => format!("version v{number} of view {}", text::clean(view)),
        Target::Key(Key::UserMetadata { kind, view, .. }) => format!("user metadata of {kind} {}", text::clean(view)),
        Target::Key(Key::Metadata { name, .. }) => format!("fact {}", text::clean(name)),
        Target::Versions { view, .. } => format!("history of view {}", text::clean(view)),
        Target::Project { project } => format!("project {}", text::clean(project)),
    }
}

/// Whether this is a project itself, which says what project it is.
fn is_project(target: &Target) -> bool {
    matches!(target, Target::Project { .. } | Target::Key(Key::Object { kind: Kind::Project, .. }))
}

/// A thing with its project: `feature view driver_stats of project rides`.
pub(super) fn thing_of_project(target: &Target) -> String {
    let of = if is_project(target) { String::new() } else { format!(" of project {}", text::clean(target.project())) };
    thing(target) + &of
}

/// What became of one thing, with its fields if that is wanted: those of the definition, and with `all` those beside it too.
pub(super) fn section(change: &Change, with_fields: bool, all: bool) -> String {
    let action = Action::of(change);
    let heading = format!("{} {}\n", thing_of_project(&change.target), action.word());
    // A version repeats its view, which was changed with it.
    let is_version = matches!(change.target, Target::Key(Key::Version { .. })) && action != Action::Changed;
    match difference(change) {
        Some(difference) if with_fields && !is_version => heading + &changes::lines(&difference, all, INDENT),
        _ => heading,
    }
}

/// What a commit did, in one line.
pub(super) fn sentence(entry: &JournalEntry) -> String {
    let told = worth_telling(entry);
    let projects: HashSet<&str> = told.iter().map(|change| change.target.project()).collect();
    let is_one_project = projects.len() == 1;
    let parts = told.iter().take(NAMED).map(|change| {
        let named = if is_one_project { thing(&change.target) } else { thing_of_project(&change.target) };
        match (&change.target, Action::of(change)) {
            (Target::Key(Key::Object { name, .. }), Action::Materialized) if is_one_project => {
                format!("materialized {}", text::clean(name))
            }
            (Target::Project { project }, _) => named + " deleted" + &contents(entry, project),
            (Target::Key(Key::Object { name, .. }), action) => {
                named + " " + action.word() + &version_beside(entry, change.target.project(), name)
            }
            (_, action) => named + " " + action.word(),
        }
    });
    let mut sentence = parts.collect::<Vec<_>>().join(", ");
    if told.len() > NAMED {
        sentence += &format!(" +{} more", told.len() - NAMED);
    }
    match told.first() {
        None => "nothing changed".to_owned(),
        Some(first) if is_one_project && !told.iter().take(NAMED).any(|change| is_project(&change.target)) => {
            format!("{sentence} (project {})", text::clean(first.target.project()))
        }
        Some(_) => sentence,
    }
}

/// The changes of a commit but for those that follow from others of it: what goes with a project or a view, a version that comes
/// with a change of its view, and facts unless there is nothing else.
fn worth_telling(entry: &JournalEntry) -> Vec<&Change> {
    let removed: HashSet<&str> = entry
        .changes
        .iter()
        .filter_map(|change| match &change.target {
            Target::Project { project } => Some(project.as_str()),
            _ => None,
        })
        .collect();
    let objects: HashSet<(&str, &str)> = entry
        .changes
        .iter()
        .filter_map(|change| match &change.target {
            Target::Key(Key::Object { project, name, .. }) => Some((project.as_str(), name.as_str())),
            _ => None,
        })
        .collect();
    let deleted: HashSet<(&str, &str)> = entry
        .changes
        .iter()
        .filter_map(|change| match (&change.target, &change.after) {
            (Target::Key(Key::Object { project, name, .. }), Image::Absent) => Some((project.as_str(), name.as_str())),
            _ => None,
        })
        .collect();
    let follows = |change: &Change| {
        match &change.target {
        Target::Project { .. } => false,
        target if removed.contains(target.project()) && change.after == Image::Absent => true,
        Target::Versions { project, view } => deleted.contains(&(project, view)),
        Target::Key(Key::Version { project, view, .. }) => objects.contains(&(project, view)) || entry.changes.iter().any(|other| {
            matches!(&other.target, Target::Versions { project: of, view: name } if of == project && name == view)
        }),
        Target::Key(Key::UserMetadata { project, view, .. }) => deleted.contains(&(project, view)),
        Target::Key(Key::Object { .. } | Key::Metadata { .. }) => false,
    }
    };
    let is_fact = |change: &&Change| matches!(change.target, Target::Key(Key::Metadata { .. }));
    let (facts, mut told): (Vec<&Change>, Vec<&Change>) =
        entry.changes.iter().filter(|change| !follows(change)).partition(is_fact);
    // That a project was made with its first object is the least of it.
    told.sort_by_key(|change| matches!(change.target, Target::Key(Key::Object { kind: Kind::Project, .. })));
    if told.is_empty() { facts } else { told }
}

/// How much went with a project.
fn contents(entry: &JournalEntry, removed: &str) -> String {
    let went = entry.changes.iter().filter(|change| {
        matches!(&change.target, Target::Key(Key::Object { kind, project, .. }) if project == removed && *kind != Kind::Project)
            && change.after == Image::Absent
    });
    match went.count() {
        0 => String::new(),
        1 => " with 1 object".to_owned(),
        count => format!(" with {count} objects"),
    }
}

/// The version that a commit made with a view.
fn version_beside(entry: &JournalEntry, project: &str, view: &str) -> String {
    let number = entry.changes.iter().find_map(|change| match &change.target {
        Target::Key(Key::Version { project: of, view: name, number }) if of == project && name == view => {
            (Action::of(change) == Action::Created).then_some(number)
        }
        _ => None,
    });
    number.map(|number| format!(" (version v{number})")).unwrap_or_default()
}

/// Who made a commit, in a line: of a client of a server, its address and the first part of its user-agent.
pub(super) fn author(entry: &JournalEntry) -> String {
    let Some(author) = entry.author.as_deref() else { return "-".to_owned() };
    let mut words = author.split(' ');
    match (words.next(), words.next()) {
        (Some(address), Some(agent)) if is_address(address) => text::clean(&format!("{address} {agent}")),
        _ => text::clean(author),
    }
}

/// Whether it is what a server notes of where a client is: its address or, of one that came by a Unix socket, its user.
fn is_address(text: &str) -> bool {
    let user = text.strip_prefix(Peer::USER);
    text.parse::<IpAddr>().is_ok() || user.is_some_and(|number| number.parse::<u32>().is_ok())
}

/// When a commit was made.
pub(super) fn time(entry: &JournalEntry) -> String {
    text::second(&entry.at).replace('T', " ")
}

/// The entry with what a filter lets through, and with images where the storage keeps them.
pub(super) async fn with_images(
    registry: &Registry,
    entry: &JournalEntry,
    filter: &JournalFilter,
) -> Result<JournalEntry> {
    let whole = match registry.journal_entry(entry.revision).await {
        Ok(whole) => whole,
        // It was removed since it was listed.
        Err(error) if error.kind() == ErrorKind::Compacted => return Ok(entry.clone()),
        Err(error) => return Err(error.into()),
    };
    Ok(filter.narrow(whole.into()).map_or_else(|| entry.clone(), |narrowed| (*narrowed).clone()))
}

/// Whether a commit without images may have materialized a view, which only images tell.
pub(super) fn may_be_materialization(entry: &JournalEntry) -> bool {
    entry.changes.iter().any(|change| {
        matches!(&change.target, Target::Key(Key::Object { kind: Kind::FeatureView | Kind::StreamFeatureView, .. }))
            && Action::of(change) == Action::Changed
    })
}

/// A note for who may miss what is older.
pub(super) fn beginning(span: &JournalSpan) -> String {
    let (at, revision) = (text::second(&span.oldest.at), span.oldest.revision);
    format!("note: the journal begins at {at}, with revision {revision}; what was before that is not in it")
}

/// Tells once that what was stored is not kept, if it is not.
pub(super) fn note_not_kept<'a>(registry: &Registry, changes: impl IntoIterator<Item = &'a Change>) {
    let is_lost = |change: &Change| {
        matches!(change.target, Target::Key(_)) && [&change.before, &change.after].contains(&&Image::NotKept)
    };
    if changes.into_iter().any(is_lost) {
        output::note(&format!(
            "note: the journal of {} does not have what was stored, only what was changed; a file registry keeps it from when it is \
             given the option `history: full`",
            registry.location()
        ));
    }
}

/// An entry for programs, with the fields that changed if that is wanted and there are images.
pub(super) fn to_json(entry: &JournalEntry, with_fields: bool) -> Json {
    json!({
        "revision": entry.revision.to_string(),
        "id": entry.id.to_string(),
        "at": text::moment(&entry.at),
        "author": entry.author,
        "reason": entry.reason,
        "changes": entry.changes.iter().map(|change| change_to_json(change, with_fields)).collect::<Vec<_>>(),
    })
}

/// A change for programs.
pub(super) fn change_to_json(change: &Change, with_fields: bool) -> Json {
    let mut json = target_to_json(&change.target);
    json["action"] = Action::of(change).word().into();
    if with_fields && let Some(difference) = difference(change) {
        changes::add_to_json(&mut json, &difference);
    }
    json
}

/// What a change is of, for programs.
pub(super) fn target_to_json(target: &Target) -> Json {
    let project = target.project();
    match target {
        Target::Key(Key::Object { kind, name, .. }) => {
            json!({"what": "object", "kind": kind.plural(), "project": project, "name": name})
        }
        Target::Key(Key::Version { view, number, .. }) => {
            json!({"what": "version", "project": project, "name": view, "version": number})
        }
        Target::Key(Key::UserMetadata { kind, view, .. }) => {
            json!({"what": "userMetadata", "kind": kind.plural(), "project": project, "name": view})
        }
        Target::Key(Key::Metadata { name, .. }) => json!({"what": "fact", "project": project, "name": name}),
        Target::Versions { view, .. } => json!({"what": "history", "project": project, "name": view}),
        Target::Project { .. } => json!({"what": "project", "project": project, "name": project}),
    }
}

#[cfg(test)]
mod tests {
    use feast_registry::{CommitId, Revision, Timestamp};

    use super::*;

    fn entry(changes: Vec<Change>) -> JournalEntry {
        let mut entry = JournalEntry::new(Revision::new(7), CommitId::from_bytes([0; 16]), Timestamp::default());
        entry.changes = changes;
        entry
    }

    fn created(kind: Kind, project: &str, name: &str) -> Change {
        Change::of_key(Key::object(kind, project, name), Image::Absent, Image::NotKept)
    }

    fn fact(project: &str) -> Change {
        Change::of_key(Key::metadata(project, Key::LAST_UPDATED), Image::NotKept, Image::NotKept)
    }

    #[test]
    fn of_many_things_the_first_are_named_and_the_rest_counted() {
        let names = ["a", "b", "c", "d", "e"];
        let mut changes: Vec<Change> = names.iter().map(|name| created(Kind::Entity, "rides", name)).collect();
        changes.push(fact("rides"));
        let told = sentence(&entry(changes.clone()));
        assert_eq!(told, "entity a created, entity b created, entity c created +2 more (project rides)");
        changes.truncate(1);
        changes.push(created(Kind::Entity, "shop", "a\u{1b}"));
        let told = sentence(&entry(changes));
        assert_eq!(told, "entity a of project rides created, entity a\\u{1b} of project shop created");
    }

    #[test]
    fn facts_are_told_when_there_is_nothing_else() {
        assert_eq!(sentence(&entry(vec![fact("rides")])), "fact last_updated_timestamp changed (project rides)");
        assert_eq!(sentence(&entry(vec![])), "nothing changed");
    }

    #[test]
    fn what_goes_with_a_view_or_a_project_is_not_told_again() {
        let deleted = |key| Change::of_key(key, Image::NotKept, Image::Absent);
        let (project, view) = ("rides".to_owned(), "stats".to_owned());
        let version = Key::Version { project: project.clone(), view: view.clone(), number: 0 };
        let of_view = vec![
            deleted(Key::object(Kind::FeatureView, "rides", "stats")),
            deleted(Key::UserMetadata { kind: Kind::FeatureView, project: project.clone(), view: view.clone() }),
            Change::removal(Target::Versions { project: project.clone(), view }),
            deleted(version),
            fact("rides"),
        ];
        assert_eq!(sentence(&entry(of_view.clone())), "feature view stats deleted (project rides)");
        let mut of_project = vec![Change::removal(Target::Project { project })];
        of_project.extend(of_view.into_iter().take(4));
        assert_eq!(sentence(&entry(of_project)), "project rides deleted with 1 object");
    }
}
