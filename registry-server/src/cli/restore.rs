//! `feast-registry restore`.

use anyhow::{Result, anyhow};
use clap::Args;
use clap::error::ErrorKind as UsageError;
use feast_registry::{AsOf, ErrorKind, Registry, Revision, Undo, UndoPlan};

use super::location::Opened;
use super::selection::{self, Selection};
use super::undo::Manner;
use super::{Cli, moment, project};

/// Have an object, or a whole project, be again as it was.
///
/// It says what will change and asks; then it is one commit. What is gone comes back as it was, with its history; what is there
/// gets the definition that it had. Of a project, what was made since is deleted. What was materialized stays recorded, unless
/// that is asked for.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  feast-registry restore feature-view driver_stats --at 411  as it was after revision 411
  feast-registry restore --project rides --at 2h             everything in a project, deleted or not, as it was 2 hours ago
  feast-registry restore --project rides --at 2026-11-30T08:00:00Z --dry-run")]
pub(crate) struct Restore {
    /// What kind of object; without it, the whole project.
    #[arg(value_parser = selection::of_one(), ignore_case = true, hide_possible_values = true, requires = "name")]
    kind: Option<Selection>,

    /// The object's name.
    name: Option<String>,

    /// The project. Of an object by default the one that the feature_store.yaml is for, or the only one there is.
    #[arg(short, long, value_name = "NAME", required_unless_present = "kind")]
    project: Option<String>,

    /// After which revision, or when: a moment as 2026-11-30T08:00:00Z, a day, or how long ago, as 90m, 3h, 2d.
    #[arg(long, value_name = "REV|TIME", value_parser = as_of)]
    at: AsOf,

    #[command(flatten)]
    manner: Manner,
}

fn as_of(text: &str) -> Result<AsOf, String> {
    match text.parse() {
        Ok(number) => Ok(AsOf::Revision(Revision::new(number))),
        Err(_) => moment::parse(text).map(AsOf::Time),
    }
}

impl Restore {
    pub(super) async fn run(self, cli: &Cli) -> Result<()> {
        let object = match (self.kind, self.name.clone()) {
            (Some(kind), Some(name)) => Some((kind, name)),
            (None, None) => None,
            // What clap was told, it has checked.
            _ => cli.refuse(UsageError::MissingRequiredArgument, "KIND and NAME go together"),
        };
        let opened = self.manner.open(cli).await?;
        let plan = match (object, self.project.clone()) {
            (None, Some(project)) => {
                let undo = Undo::RestoreProject { project, at: self.at };
                opened.registry.plan_undo(&undo, self.manner.options()).await?
            }
            (None, None) => cli.refuse(UsageError::MissingRequiredArgument, "say what to restore"),
            (Some((kind, name)), project) => self.plan_object(&opened, kind, name, project).await?,
        };
        self.manner.run(opened, &plan).await
    }

    async fn plan_object(
        &self,
        opened: &Opened,
        kind: Selection,
        name: String,
        project: Option<String>,
    ) -> Result<UndoPlan> {
        let project = match project {
            // It may be gone.
            Some(project) => project,
            None if kind == Selection::One(feast_registry::Kind::Project) => name.clone(),
            None => project::choose(opened, None).await?,
        };
        let mut missing = None;
        for kind in kind.kinds() {
            let undo = Undo::RestoreObject { kind, project: project.clone(), name: name.clone(), at: self.at };
            match self.plan(&opened.registry, &undo).await {
                Err(error) if matches!(error.kind(), ErrorKind::NotFound(_)) => missing = Some(error),
                planned => return Ok(planned?),
            }
        }
        Err(missing.map_or_else(|| anyhow!("there is no such kind of object"), Into::into))
    }

    async fn plan(&self, registry: &Registry, undo: &Undo) -> feast_registry::Result<UndoPlan> {
        registry.plan_undo(undo, self.manner.options()).await
    }
}
