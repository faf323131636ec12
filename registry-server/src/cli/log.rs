//! `feast-registry log`.

use anyhow::{Context, Result};
use clap::Args;
use feast_registry::{JournalEntry, LogQuery, Revision, Timestamp};
use serde_json::Value as Json;

use super::journal::{self, Narrowing};
use super::location::{Location, Opened};
use super::output::{self, TextFormat};
use super::{Cli, moment, text};

/// Say who changed what and when, newest first: a line for each commit.
///
/// Each line has the revision, the time (UTC, by the clock of who made the change), who made it, what was changed, and why, if that
/// was said. Without a project, the changes of all projects are listed; with `-c`, those of the project that the
/// feature_store.yaml is for.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  feast-registry log
  feast-registry log --kind feature-view --name driver_stats --since 2d
  feast-registry log --by alice --since 2026-11-01 --until 2026-11-30 -n 100
  feast-registry log -o json | jq -r '.[].revision'

Who is user@host for this command line, and the address and the program of a client for a server. Changes that were made without
this registry's journal, as by Feast itself, are by `outside`, as far as a server has seen them.
What one revision changed: `feast-registry show REVISION`.")]
pub(crate) struct Log {
    #[command(flatten)]
    narrowing: Narrowing,

    /// Only what was changed at this moment or later: 2026-11-30T08:00:00Z, 2026-11-30, or how long ago, as 90m, 3h, 2d.
    #[arg(long, value_name = "TIME", value_parser = moment::parse)]
    since: Option<Timestamp>,

    /// Only what was changed at this moment or earlier.
    #[arg(long, value_name = "TIME", value_parser = moment::parse)]
    until: Option<Timestamp>,

    /// Only what was changed by somebody with this in their name.
    #[arg(long, value_name = "WHO")]
    by: Option<String>,

    /// Only what comes before this revision: what follows the last line of another log.
    #[arg(long, value_name = "REVISION", value_parser = revision)]
    before: Option<Revision>,

    /// At most so many commits.
    #[arg(short = 'n', long, value_name = "NUMBER", default_value_t = 20, value_parser = number)]
    number: usize,

    /// Also commits from outside that changed nothing but when a project was last updated.
    #[arg(long)]
    all: bool,

    /// The output format.
    #[arg(short, long, value_enum, default_value_t = TextFormat::Text)]
    output: TextFormat,

    #[command(flatten)]
    location: Location,
}

/// Reads the number of a revision.
pub(super) fn revision(text: &str) -> Result<Revision, String> {
    text.parse().map(Revision::new).map_err(|_| format!("`{text}` is no revision; `log` lists them"))
}

/// Reads how many commits are to be told.
pub(super) fn number(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("at least 1 is to be told".to_owned()),
        Ok(number) => Ok(number),
        Err(_) => Err("it is no number of commits, as 1 or 100".to_owned()),
    }
}

impl Log {
    pub(super) async fn run(self, cli: &Cli) -> Result<()> {
        let opened = self.location.open_history(cli).await?;
        let mut filter = self.narrowing.filter(&opened);
        if let Some(author) = &self.by {
            filter = filter.with_author(author);
        }
        let query = LogQuery::new(filter.clone(), self.number)
            .since(self.since)
            .until(self.until)
            .before(self.before)
            .with_outside_facts(self.all);
        let mut entries = opened.registry.log(&query).await.context("there is no log")?;
        for entry in &mut entries {
            if journal::may_be_materialization(entry) {
                *entry = journal::with_images(&opened.registry, entry, &filter).await?;
            }
        }
        if let Some(format) = self.output.of_program() {
            return output::print_json(
                &Json::Array(entries.iter().map(|entry| journal::to_json(entry, false)).collect()),
                format,
            );
        }
        if entries.is_empty() {
            note_empty(&opened, query != LogQuery::new(Default::default(), self.number)).await?;
            return Ok(());
        }
        output::print(lines(&entries).as_bytes())
    }
}

/// Says that there is nothing, and where there is something, how much the journal has.
pub(super) async fn note_empty(opened: &Opened, is_narrowed: bool) -> Result<()> {
    let location = opened.registry.location();
    let note = match opened.registry.journal_span().await? {
        None => format!("The journal of {location} is empty."),
        Some(span) if is_narrowed => format!(
            "There is nothing of this in the journal of {location}, which begins at {} with revision {}.",
            text::second(&span.oldest.at),
            span.oldest.revision
        ),
        Some(_) => format!("There is nothing but facts in the journal of {location}; `--all` shows them."),
    };
    output::note(&note);
    Ok(())
}

/// A line for each commit, with columns as wide as they have to be.
pub(super) fn lines(entries: &[JournalEntry]) -> String {
    const WIDEST: usize = 40;
    let revisions: Vec<String> = entries.iter().map(|entry| entry.revision.to_string()).collect();
    let authors: Vec<String> = entries.iter().map(journal::author).collect();
    let width = |cells: &[String]| cells.iter().map(|cell| cell.chars().count()).max().unwrap_or_default();
    let (wide, wide_author) = (width(&revisions), width(&authors).min(WIDEST));
    let mut lines = String::new();
    for ((entry, revision), author) in entries.iter().zip(revisions).zip(authors) {
        lines += &format!(
            "{revision:<wide$}  {}  {author:<wide_author$}  {}",
            journal::time(entry),
            journal::sentence(entry)
        );
        if let Some(reason) = &entry.reason {
            lines += &format!(": {}", text::clean(reason));
        }
        lines.push('\n');
    }
    lines
}
