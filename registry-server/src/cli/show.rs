//! `feast-registry show`.

use anyhow::Result;
use clap::Args;
use feast_registry::{Image, JournalEntry, Revision, Target};

use super::journal;
use super::location::Location;
use super::output::{self, TextFormat};
use super::{Cli, log, text};

/// Show one commit: who made it, when and why, and what it changed, field by field.
///
/// A line begins with `+` for a field that was not there before, with `-` for one that is not there since, and with `~` for one that
/// was changed. Of elements with a name, as features, each is compared with the one of its name.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  feast-registry show 1764464000123456
  feast-registry show 1764464000123456 -o json | jq '.changes[].fields'

`feast-registry log` lists the revisions.")]
pub(crate) struct Show {
    /// The commit's revision, as `log` lists it.
    #[arg(value_name = "REVISION", value_parser = log::revision)]
    revision: Revision,

    /// The output format.
    #[arg(short, long, value_enum, default_value_t = TextFormat::Text)]
    output: TextFormat,

    #[command(flatten)]
    location: Location,
}

impl Show {
    pub(super) async fn run(self, cli: &Cli) -> Result<()> {
        let opened = self.location.open_history(cli).await?;
        let entry = opened.registry.journal_entry(self.revision).await?;
        match self.output.of_program() {
            Some(format) => output::print_json(&journal::to_json(&entry, true), format)?,
            None => output::print(page(&entry).as_bytes())?,
        }
        journal::note_not_kept(&opened.registry, &entry.changes);
        Ok(())
    }
}

/// Everything about a commit.
fn page(entry: &JournalEntry) -> String {
    let mut page = format!("revision {}\n", entry.revision);
    let facts = [
        ("time", Some(text::moment(&entry.at).replace('T', " "))),
        ("author", entry.author.as_deref().map(text::clean)),
        ("reason", entry.reason.as_deref().map(text::clean)),
    ];
    for (label, value) in facts {
        if let Some(value) = value {
            page += &format!("  {label:<6}  {value}\n");
        }
    }
    let is_whole = entry.changes.iter().any(|change| matches!(change.target, Target::Project { .. }));
    for change in &entry.changes {
        page.push('\n');
        // What went with a whole project is only named.
        let is_told = !(is_whole && change.after == Image::Absent);
        page += &journal::section(change, is_told, true);
    }
    page
}
