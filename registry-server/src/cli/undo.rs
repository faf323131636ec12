//! What `revert` and `restore` have in common: what would change is shown and asked for, and then done.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use clap::Args;
use feast_registry::{Difference, ErrorKind, Key, Kind, PlannedChange, UndoOptions, UndoPlan};

use super::location::{Location, Opened};
use super::origin::Origin;
use super::{Cli, ask, changes, output, text};

/// Of so many objects at the most it is shown what changes, field by field.
const MOST_IN_FULL: usize = 20;

/// What is said when nothing was done.
const NOTHING_DONE: &str = "Nothing was changed";

/// How something is undone.
#[derive(Debug, Args)]
pub(crate) struct Manner {
    /// Also what others have changed since.
    #[arg(long)]
    force: bool,

    /// Also take back what has been recorded of materializations; otherwise that stays as it is.
    #[arg(long)]
    with_materializations: bool,

    /// Only show what would change.
    #[arg(long)]
    dry_run: bool,

    /// Do not ask.
    #[arg(short, long, conflicts_with = "dry_run")]
    yes: bool,

    #[command(flatten)]
    origin: Origin,

    #[command(flatten)]
    location: Location,
}

impl Manner {
    /// Opens the registry to plan. If its tables went with its last project, doing what is planned makes them anew.
    pub(super) async fn open(&self, cli: &Cli) -> Result<Opened> {
        let opened = self.location.open_history(cli).await?;
        if !self.dry_run && opened.is_read_only()? {
            bail!("the registry {} is configured to be read only. {NOTHING_DONE}", opened.registry.location());
        }
        Ok(opened)
    }

    /// The options of a plan.
    pub(super) fn options(&self) -> UndoOptions {
        UndoOptions::default().with_force(self.force).with_materializations(self.with_materializations)
    }

    /// Shows a plan, asks, and does it.
    pub(super) async fn run(&self, opened: Opened, plan: &UndoPlan) -> Result<()> {
        let what = text::clean(&plan.reason());
        if !plan.refusals.is_empty() {
            return refuse(plan);
        }
        if plan.is_empty() {
            let text = format!("{} has nothing to change.\n{}", capitalized(&what), remarks(plan));
            return output::print(text.as_bytes());
        }
        let shown = format!(
            "{} changes in {}:\n{}{}{}",
            capitalized(&what),
            opened.registry.location(),
            lines(plan),
            fields(plan),
            remarks(plan)
        );
        if self.dry_run {
            return output::print(shown.as_bytes());
        }
        output::note(shown.trim_end());
        if !self.yes {
            ask::ask("yes", NOTHING_DONE)?;
        }
        let registry = opened.into_writable().await?.with_call(self.origin.call());
        let done = match registry.undo(plan).await? {
            Some(revision) => format!("Done: {what}, as revision {revision}.\n"),
            None => format!("Done: {what}.\n"),
        };
        output::print(done.as_bytes())
    }
}

/// Says of everything that cannot be undone why.
fn refuse(plan: &UndoPlan) -> Result<()> {
    for refusal in &plan.refusals {
        output::note(&text::clean(&refusal.reason));
    }
    let count = match plan.refusals.len() {
        1 => "this".to_owned(),
        count => format!("{count} reasons"),
    };
    let remedy = if plan.refusals.iter().any(|refusal| refusal.kind == ErrorKind::Changed) {
        "; `--force` also undoes what others have changed since"
    } else {
        ""
    };
    bail!("the {} is refused for {count}{remedy}. {NOTHING_DONE}", text::clean(&plan.reason()))
}

/// What becomes of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    ComesBack,
    Changes,
    Goes,
}

impl Fate {
    fn of(change: &PlannedChange) -> Self {
        match (&change.before, &change.after) {
            (None, _) => Fate::ComesBack,
            (Some(_), None) => Fate::Goes,
            (Some(_), Some(_)) => Fate::Changes,
        }
    }

    fn in_words(self) -> &'static str {
        match self {
            Fate::ComesBack => "put back",
            Fate::Changes => "changed",
            Fate::Goes => "deleted",
        }
    }
}

/// What is changed: the names of each kind.
fn lines(plan: &UndoPlan) -> String {
    type Names<'a> = BTreeMap<(Fate, &'a str, Kind), Vec<&'a str>>;
    let mut objects = Names::new();
    let mut metadata = Names::new();
    let mut versions: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for change in &plan.changes {
        match &change.key {
            Key::Object { kind, project, name } => {
                objects.entry((Fate::of(change), project, *kind)).or_default().push(name);
            }
            Key::UserMetadata { kind, project, view } => {
                metadata.entry((Fate::of(change), project, *kind)).or_default().push(view);
            }
            Key::Version { project, view, .. } if change.after.is_some() => {
                *versions.entry((project, view)).or_default() += 1;
            }
            Key::Version { .. } | Key::Metadata { .. } => {}
        }
    }
    let mut lines = String::new();
    for (of, named) in [("", &objects), ("user metadata of ", &metadata)] {
        for ((fate, project, kind), names) in named {
            let project = text::clean(project);
            let what = text::count(names.len(), *kind);
            lines += &match kind {
                Kind::Project => format!("  {}: project `{project}`\n", fate.in_words()),
                _ => format!(
                    "  {}: {of}{what} of project `{project}`: {}\n",
                    fate.in_words(),
                    text::names(names.iter().copied())
                ),
            };
        }
    }
    if !versions.is_empty() {
        let count: usize = versions.values().sum();
        let names = text::names(versions.keys().map(|(_, view)| *view));
        let noun = if count == 1 { "version" } else { "versions" };
        lines += &format!("  added: {count} {noun} in the history of {names}\n");
    }
    lines
}

/// What changes of the definitions of what is there, field by field: of so many objects that somebody may read it.
fn fields(plan: &UndoPlan) -> String {
    let changed: Vec<&PlannedChange> = plan
        .changes
        .iter()
        .filter(|change| matches!(change.key, Key::Object { .. }) && Fate::of(change) == Fate::Changes)
        .collect();
    if changed.len() > MOST_IN_FULL {
        return String::new();
    }
    let mut text = String::new();
    for PlannedChange { key, before, after, .. } in changed {
        let difference = Difference::between(key, before.as_deref(), after.as_deref());
        text += &format!("  {}\n", text::clean(&key.to_string()));
        text += &changes::lines(&difference, false, "    ");
    }
    text
}

/// What is not changed, or not as one may expect.
fn remarks(plan: &UndoPlan) -> String {
    let line = |(key, remark): &(Key, String)| format!("  {}: {remark}\n", text::clean(&key.to_string()));
    plan.remarks.iter().map(line).collect()
}

fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}
