//! `feast-registry teardown`.

use std::io::{BufRead, IsTerminal, Write};

use anyhow::{Context, Result, bail};
use clap::Args;
use feast_registry::{Freshness, Kind};

use super::location::{Location, Opened};
use super::{Cli, output, project, text};

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
    location: Location,
}

impl Teardown {
    pub(super) async fn run(self, cli: &Cli) -> Result<()> {
        let opened = self.location.open(cli).await?;
        let present = project::names(&opened.registry).await?;
        let doomed = self.choose(&opened, &present).await?;
        if doomed.is_empty() {
            output::note(&format!("There are no projects in {}.", opened.registry.location()));
            return Ok(());
        }
        refuse_protected(&opened, &doomed).await?;
        let leaves_none = doomed.len() == present.len() && opened.removes_storage();
        output::note(&plan(&opened, &doomed, leaves_none).await?);
        if !self.yes {
            ask(&doomed)?;
        }
        delete(opened, &doomed).await?;
        if leaves_none {
            output::print(b"No project is left: the tables of the registry are removed.\n")?;
        }
        Ok(())
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
}

async fn refuse_protected(opened: &Opened, doomed: &[String]) -> Result<()> {
    let (key, value) = PROTECTED;
    let (key, value) = (key.to_owned(), value.to_owned());
    for project in doomed {
        let object = opened.registry.get(Kind::Project, project, project, Freshness::Stored).await?;
        if object.has_tags([(&key, &value)])? {
            bail!(
                "project `{}` is protected by its tag {key}={value}; take the tag away first. Nothing was deleted",
                text::clean(project)
            );
        }
    }
    Ok(())
}

/// What will be deleted, in words.
async fn plan(opened: &Opened, doomed: &[String], leaves_none: bool) -> Result<String> {
    let mut plan = format!("This deletes from {}, for good:", opened.registry.location());
    for project in doomed {
        let counts = project::counts(&opened.registry, project).await?;
        let counts: Vec<String> = counts.into_iter().map(|(kind, number)| text::count(number, kind)).collect();
        let content = if counts.is_empty() { "nothing in it".to_owned() } else { counts.join(", ") };
        plan += &format!("\n  project `{}`: {content}", text::clean(project));
    }
    if leaves_none {
        plan += "\n  and the registry's tables, since no project will be left";
    }
    Ok(plan)
}

/// Asks the one at the terminal.
fn ask(doomed: &[String]) -> Result<()> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        bail!("there is no terminal to ask on; `--yes` skips the question. Nothing was deleted");
    }
    let phrase = match doomed {
        [one] => one.clone(),
        many => format!("delete {} projects", many.len()),
    };
    if confirm(&phrase, &mut stdin.lock(), &mut std::io::stderr())? {
        return Ok(());
    }
    bail!("that was not `{}`. Nothing was deleted", text::clean(&phrase))
}

/// Whether the answer is the phrase that was asked for.
fn confirm(phrase: &str, answers: &mut impl BufRead, questions: &mut impl Write) -> Result<bool> {
    write!(questions, "Type `{}` to go on: ", text::clean(phrase)).context("cannot ask")?;
    questions.flush().context("cannot ask")?;
    let mut answer = String::new();
    answers.read_line(&mut answer).context("cannot read the answer")?;
    Ok(answer.trim() == phrase.trim())
}

async fn delete(opened: Opened, doomed: &[String]) -> Result<()> {
    let registry = opened.into_writable().await?;
    for project in doomed {
        registry.delete_project(project).await?;
        output::print(format!("Deleted project `{}`.\n", text::clean(project)).as_bytes())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_phrase_confirms() {
        for (answer, is_yes) in [("rides\n", true), (" rides ", true), ("Rides\n", false), ("y\n", false), ("", false)]
        {
            let mut question = Vec::new();
            assert_eq!(
                confirm("rides", &mut answer.as_bytes(), &mut question).expect("an answer"),
                is_yes,
                "{answer:?}"
            );
            assert_eq!(question, b"Type `rides` to go on: ");
        }
    }
}
