//! `feast-registry history`.

use anyhow::{Context, Result, bail};
use clap::Args;
use feast_registry::{Change, Image, JournalEntry, JournalFilter, Key, Kind, LogQuery, Target};
use serde_json::{Value as Json, json};

use super::get::Which;
use super::journal::{self, Action};
use super::location::{Location, Opened};
use super::output::{self, Table, TextFormat};
use super::{Cli, changes, log, project, text};

/// Tell the life of one object, newest first: when it was made, changed, materialized and deleted, by whom and why, and the versions
/// of a view.
///
/// The object need not be there any more. Times are UTC.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  feast-registry history feature-view driver_stats
  feast-registry history view driver_stats --project rides -n 10
  feast-registry history entity driver -o json

What one revision changed: `feast-registry show REVISION`. The journal is kept for a time; a view's versions stay.")]
pub(crate) struct History {
    #[command(flatten)]
    which: Which,

    /// At most so many commits.
    #[arg(short = 'n', long, value_name = "NUMBER", default_value_t = 50, value_parser = log::number)]
    number: usize,

    /// The output format.
    #[arg(short, long, value_enum, default_value_t = TextFormat::Text)]
    output: TextFormat,

    #[command(flatten)]
    location: Location,
}

impl History {
    pub(super) async fn run(self, cli: &Cli) -> Result<()> {
        self.which.require_name(cli);
        let opened = self.location.open_history(cli).await?;
        let kinds = self.which.kinds();
        let (project, name) = self.place(&opened, &kinds).await?;
        let mut filter = JournalFilter::new().with_project(&project).with_kinds(kinds.clone());
        if kinds != [Kind::Infra] {
            filter = filter.with_names([&name]);
        }
        let query = LogQuery::new(filter.clone(), self.number);
        let mut entries = opened.registry.log(&query).await.context("there is no journal to look into")?;
        for entry in &mut entries {
            *entry = journal::with_images(&opened.registry, entry, &filter).await?;
            if kinds == [Kind::Project] {
                entry.changes.retain(is_of_project);
            }
            keep_own(&mut entry.changes);
        }
        entries.retain(|entry| !entry.changes.is_empty());
        let is_view = kinds.iter().any(|kind| kind.is_view());
        let versions = if is_view { opened.registry.list_versions(&project, &name).await? } else { Vec::new() };
        if let Some(format) = self.output.of_program() {
            let version = |version: &feast_registry::FeatureViewVersion| {
                json!({
                    "version": version.number,
                    "created": text::moment(&version.created_timestamp),
                    "description": version.description,
                    "id": version.version_id,
                })
            };
            let mut json =
                json!({"commits": entries.iter().map(|entry| journal::to_json(entry, true)).collect::<Vec<_>>()});
            if is_view {
                json["versions"] = Json::Array(versions.iter().map(version).collect());
            }
            return output::print_json(&json, format);
        }
        if entries.is_empty() && versions.is_empty() {
            self.explain_nothing(&opened).await?;
            return Ok(());
        }
        let mut page: String = entries.iter().map(line).collect();
        if !versions.is_empty() {
            let mut table = Table::new(["VERSION", "MADE", "DESCRIPTION"]);
            for version in &versions {
                let number = format!("v{}", version.number);
                table.push([number, text::second(&version.created_timestamp), text::clean(&version.description)]);
            }
            let gap = if page.is_empty() { "" } else { "\n" };
            page += &format!("{gap}Versions\n{}", table.render("  "));
        }
        output::print(page.as_bytes())?;
        self.note_beginning(&opened, &entries).await?;
        journal::note_not_kept(&opened.registry, entries.iter().flat_map(|entry| &entry.changes));
        Ok(())
    }

    /// The project and the name of the object, which may both be gone.
    async fn place(&self, opened: &Opened, kinds: &[Kind]) -> Result<(String, String)> {
        let (name, project) = self.which.asked();
        let project = match (project, name) {
            (Some(project), _) => project.to_owned(),
            (None, Some(name)) if kinds == [Kind::Project] => name.to_owned(),
            (None, _) => project::choose(opened, None).await?,
        };
        let name = if kinds == [Kind::Project] { project.clone() } else { name.unwrap_or_default().to_owned() };
        Ok((project, name))
    }

    /// Fails if there is no such object either.
    async fn explain_nothing(&self, opened: &Opened) -> Result<()> {
        let location = opened.registry.location();
        match self.which.find(opened).await {
            Ok(_) => output::note(&format!("The journal of {location} has nothing of this.")),
            Err(error) => bail!("the journal of {location} has nothing of this, and {error}"),
        }
        Ok(())
    }

    /// Says that there was more, where the first that is told is not how the object came to be.
    async fn note_beginning(&self, opened: &Opened, entries: &[JournalEntry]) -> Result<()> {
        let is_whole = entries.last().is_some_and(|entry| {
            entry.changes.iter().any(|change| {
                matches!(change.target, Target::Key(Key::Object { .. })) && Action::of(change) == Action::Created
            })
        });
        if entries.len() == self.number && !is_whole {
            output::note(&format!("note: these are the newest {} commits; `-n` shows more", self.number));
        } else if let (false, Some(span)) = (is_whole, opened.registry.journal_span().await?) {
            output::note(&journal::beginning(&span));
        }
        Ok(())
    }
}

/// Of what has the project, only the project itself.
fn is_of_project(change: &Change) -> bool {
    matches!(change.target, Target::Project { .. } | Target::Key(Key::Object { kind: Kind::Project, .. }))
}

/// Leaves out what follows from another change: what goes with the object goes without saying.
fn keep_own(changes: &mut Vec<Change>) {
    let is_deleted = changes.iter().any(|change| match &change.target {
        Target::Project { .. } => true,
        Target::Key(Key::Object { .. }) => change.after == Image::Absent,
        _ => false,
    });
    if is_deleted {
        changes.retain(|change| {
            matches!(change.target, Target::Project { .. } | Target::Key(Key::Object { .. }))
                || change.after != Image::Absent
        });
    }
    // The removal of the project says it all.
    if changes.iter().any(|change| matches!(change.target, Target::Project { .. })) {
        changes.retain(|change| change.after != Image::Absent || matches!(change.target, Target::Project { .. }));
    }
}

/// What a commit did to the object.
fn line(entry: &JournalEntry) -> String {
    let what: Vec<String> = entry.changes.iter().map(event).collect();
    let reason = entry.reason.as_deref().map(|reason| format!(": {}", text::clean(reason))).unwrap_or_default();
    format!("{}  {}  {}  {}{reason}\n", entry.revision, journal::time(entry), journal::author(entry), what.join("; "))
}

/// What a change was to the object.
fn event(change: &Change) -> String {
    let action = Action::of(change);
    let difference = journal::difference(change);
    match (&change.target, action) {
        (Target::Project { .. }, _) => "deleted with its project".to_owned(),
        (Target::Key(Key::Object { .. }), Action::Changed | Action::Materialized) => match (difference, action) {
            (Some(difference), Action::Materialized) => changes::short(&difference),
            (Some(difference), _) => format!("changed: {}", changes::short(&difference)),
            (None, action) => action.word().to_owned(),
        },
        (Target::Key(Key::Object { .. }), action) => action.word().to_owned(),
        (Target::Key(Key::Version { number, .. }), action) => format!("version v{number} {}", action.word()),
        (Target::Key(Key::UserMetadata { .. }), action) => format!("user metadata {}", action.word()),
        (Target::Versions { .. }, _) => "history removed".to_owned(),
        (target, action) => format!("{} {}", journal::thing(target), action.word()),
    }
}
