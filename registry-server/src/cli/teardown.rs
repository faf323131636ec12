//! `feast-registry teardown`.

use anyhow::{Context, Result, bail};
use clap::Args;
use feast_registry::{ErrorKind, Freshness, Kind, Object, Registry, StorageRemoval};

use super::location::{Location, Opened};
use super::origin::Origin;
use super::{Cli, ask, output, project, text};

/// The tag that keeps a project from being torn down (Feast: `PROTECTED_PROJECT_TAG`).
const PROTECTED: (&str, &str) = ("feast.dev/protected-project", "true");

/// Delete whole projects from the registry: their objects, and the history of their views.
///
/// It says what will be deleted and asks. When no project is left, the tables of the registry are removed too. Projects
/// with the tag feast.dev/protected-project=true are refused, as by Feast.
///
/// The tables of online stores are not touched: for those, run `feast teardown` instead, or before.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  feast-registry teardown --project rides
  feast-registry teardown --all --yes                        without asking, for scripts")]
pub(crate) struct Teardown {
    /// A project to delete; may be given several times. Default: the one that the feature_store.yaml is for, or the only
    /// one there is.
    #[arg(short, long = "project", value_name = "NAME")]
    projects: Vec<String>,

    /// All projects.
    #[arg(long, conflicts_with = "projects")]
    all: bool,

    /// Do not ask.
    #[arg(short, long)]
    yes: bool,

    #[command(flatten)]
    origin: Origin,

    #[command(flatten)]
    location: Location,
}

impl Teardown {
    pub(super) async fn run(self, cli: &Cli) -> Result<()> {
        let opened = self.location.open(cli).await?;
        if opened.is_read_only()? {
            bail!("the registry {} is configured to be read only. Nothing was deleted", opened.registry.location());
        }
        let present = project::names(&opened.registry).await?;
        let doomed = self.choose(&opened, &present).await?;
        if doomed.is_empty() {
            output::note(&format!("There are no projects in {}.", opened.registry.location()));
            return Ok(());
        }
        let seen = look_at(&opened, &doomed).await?;
        refuse_protected(&seen)?;
        let leaves_none = doomed.len() == present.len() && opened.removes_storage();
        let shown = contents(&opened, &doomed).await?;
        output::note(&plan(&opened, &shown, leaves_none));
        if self.yes {
            return self.delete(opened, &seen).await;
        }
        ask::ask(&phrase(&doomed), "Nothing was deleted")?;
        // That may have taken long.
        let opened =
            opened.look_again().await.context("what is there by now cannot be looked at. Nothing was deleted")?;
        // To open a registry for writing makes what is missing, which is not to be done when all is gone.
        let present = project::names(&opened.registry).await?;
        if present.iter().all(|name| !doomed.contains(name)) {
            bail!("somebody else has deleted all of this meanwhile. Nothing was deleted");
        }
        for ((name, before), (_, now)) in shown.iter().zip(contents(&opened, &doomed).await?) {
            if present.contains(name) && *before != now {
                let name = text::clean(name);
                bail!("what is in project `{name}` has changed meanwhile: now {now}. Nothing was deleted; start again");
            }
        }
        self.delete(opened, &seen).await
    }

    async fn choose(&self, opened: &Opened, present: &[String]) -> Result<Vec<String>> {
        if self.all {
            return Ok(present.to_vec());
        }
        if self.projects.is_empty() {
            return Ok(vec![project::choose(opened, None).await?]);
        }
        self.projects.iter().try_for_each(|project| project::check(opened, present, project))?;
        Ok(present.iter().filter(|project| self.projects.contains(project)).cloned().collect())
    }

    /// Deletes them in the name of who runs this.
    async fn delete(&self, opened: Opened, seen: &[Seen]) -> Result<()> {
        delete(&opened.into_writable().await?.with_call(self.origin.call()), seen).await
    }
}

/// A project that is to be deleted, as it is now.
struct Seen {
    name: String,
    object: Object,
}

async fn look_at(opened: &Opened, doomed: &[String]) -> Result<Vec<Seen>> {
    let mut seen = Vec::with_capacity(doomed.len());
    for name in doomed {
        let object = opened.registry.get(Kind::Project, name, name, Freshness::Stored).await?;
        seen.push(Seen { name: name.clone(), object });
    }
    Ok(seen)
}

fn refuse_protected(seen: &[Seen]) -> Result<()> {
    let (key, value) = PROTECTED;
    let (key, value) = (key.to_owned(), value.to_owned());
    for Seen { name, object } in seen {
        if object.has_tags([(&key, &value)])? {
            bail!(
                "project `{}` is protected by its tag {key}={value}; take the tag away first. Nothing was deleted",
                text::clean(name)
            );
        }
    }
    Ok(())
}

/// What is in projects, in words.
async fn contents(opened: &Opened, projects: &[String]) -> Result<Vec<(String, String)>> {
    let mut contents = Vec::with_capacity(projects.len());
    for project in projects {
        let counts = project::counts(&opened.registry, project).await?;
        let counts: Vec<String> = counts.into_iter().map(|(kind, number)| text::count(number, kind)).collect();
        let content = if counts.is_empty() { "nothing in it".to_owned() } else { counts.join(", ") };
        contents.push((project.clone(), content));
    }
    Ok(contents)
}

/// What will be deleted, in words.
fn plan(opened: &Opened, contents: &[(String, String)], leaves_none: bool) -> String {
    let mut plan = format!("This deletes from {}, for good:", opened.registry.location());
    for (project, content) in contents {
        plan += &format!("\n  project `{}`: {content}", text::clean(project));
    }
    if leaves_none {
        plan += "\n  and the registry's tables, since no project will be left";
    }
    plan
}

/// What whoever is asked has to type.
fn phrase(doomed: &[String]) -> String {
    match doomed {
        [one] => one.clone(),
        many => format!("delete {} projects", many.len()),
    }
}

/// Deletes the projects that are still as they were seen, one after the other.
async fn delete(registry: &Registry, seen: &[Seen]) -> Result<()> {
    for (index, Seen { name, object }) in seen.iter().enumerate() {
        let storage = match registry.delete_project_as_seen(object).await {
            Ok(storage) => storage,
            Err(error) if error.kind() == ErrorKind::NotFound(Kind::Project) => {
                output::note(&format!("Project `{}` was gone already.", text::clean(name)));
                continue;
            }
            Err(error) => {
                // Of this one, the error says what is known.
                let from = if error.is_outcome_unknown() { index + 1 } else { index };
                let left: Vec<String> =
                    seen[from..].iter().map(|seen| format!("`{}`", text::clean(&seen.name))).collect();
                let left = if left.is_empty() { "none".to_owned() } else { left.join(", ") };
                let context = format!("stopped at project `{}`; not deleted: {left}", text::clean(name));
                return Err(anyhow::Error::new(error).context(context));
            }
        };
        output::print(format!("Deleted project `{}`.\n", text::clean(name)).as_bytes())?;
        match storage {
            StorageRemoval::Removed => output::print(b"No project is left: the tables of the registry are removed.\n")?,
            StorageRemoval::Failed(error) => {
                output::warn(&format!(
                    "the tables of the registry could not be removed with its last project: {error}"
                ));
            }
            _ => {}
        }
    }
    Ok(())
}
