//! `feast-registry diff`.

use anyhow::{Context, Result};
use clap::Args;
use clap::error::ErrorKind;
use feast_registry::{Change, Difference, Key, Revision, StoredDifference, Target, Timestamp};
use serde_json::Value as Json;

use super::journal::{self, Narrowing};
use super::location::{Location, Opened};
use super::output::{self, Format, TextFormat};
use super::{Cli, changes, log, moment};

/// Say what differs between two revisions, between a moment and now, or between two registries, field by field.
///
/// Of what was changed several times, what it came to is told; what was changed back is not. A line of a field begins with `+` where it
/// is only there afterwards, or only in the second registry, with `-` where it is only there before, and with `~` where it differs.
///
/// What is not of a definition (timestamps, materialization intervals, states) is left out unless `--all` is given; between
/// registries, so is what differs in nothing else.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  feast-registry diff 1764464000123456..1764464000987654     what the commits after the first one, up to the second, came to
  feast-registry diff 1764464000123456..                     what has been changed since a revision
  feast-registry diff --since 2d --kind feature-view
  feast-registry diff sqlite:///staging.db sqlite:///production.db --project rides
  feast-registry diff -c feature_store.yaml sqlite:///other.db

A password in a URL can be read by everybody on this machine; the registry of -c, --registry or FEAST_REGISTRY_URL is compared with
one URL.
It exits with 0 whether anything differs or not.")]
pub(crate) struct Diff {
    /// Two revisions as A..B, either of which may be left out; or the URLs of one or two registries.
    #[arg(value_name = "A..B|URL", num_args = 0..=2)]
    of: Vec<String>,

    /// From this moment: 2026-11-30T08:00:00Z, 2026-11-30, or how long ago, as 90m, 3h, 2d.
    #[arg(long, value_name = "TIME", value_parser = moment::parse)]
    since: Option<Timestamp>,

    /// Up to this moment.
    #[arg(long, value_name = "TIME", value_parser = moment::parse)]
    until: Option<Timestamp>,

    #[command(flatten)]
    narrowing: Narrowing,

    /// Also what is not of a definition.
    #[arg(long)]
    all: bool,

    /// The output format.
    #[arg(short, long, value_enum, default_value_t = TextFormat::Text)]
    output: TextFormat,

    #[command(flatten)]
    location: Location,
}

const NO_JOURNAL: &str = "there is no journal to compare by";

/// Two revisions, the second of which counts.
type Range = (Option<Revision>, Option<Revision>);

impl Diff {
    pub(super) async fn run(self, cli: &Cli) -> Result<()> {
        let is_timed = self.since.is_some() || self.until.is_some();
        match self.of.as_slice() {
            [] if is_timed => {
                let opened = self.location.open_history(cli).await?;
                let range = self.range_of_time(&opened).await?;
                self.between_revisions(&opened, range).await
            }
            [] => cli.refuse(ErrorKind::MissingRequiredArgument, "say what to compare: A..B, --since TIME, or URLs"),
            _ if is_timed => {
                cli.refuse(ErrorKind::ArgumentConflict, "--since and --until go without revisions and URLs")
            }
            [one] if !one.contains("://") => {
                let range = range(one).unwrap_or_else(|error| cli.refuse(ErrorKind::ValueValidation, &error));
                self.between_revisions(&self.location.open_history(cli).await?, Some(range)).await
            }
            [other] => {
                let other = Location::of_url(other.clone(), "the URL to compare with").open(cli).await?;
                self.between_registries(&self.location.open(cli).await?, &other).await
            }
            [one, other, ..] => {
                let open = async |url: &String, called| Location::of_url(url.clone(), called).open(cli).await;
                self.between_registries(&open(one, "the first URL").await?, &open(other, "the second URL").await?).await
            }
        }
    }

    /// The last revisions that were made at these moments or earlier; nothing when all that there is came later.
    async fn range_of_time(&self, opened: &Opened) -> Result<Option<Range>> {
        let registry = &opened.registry;
        let until = match &self.until {
            Some(until) => match registry.revision_at(until).await.context(NO_JOURNAL)? {
                Some(until) => Some(until),
                None => return Ok(None),
            },
            None => None,
        };
        let Some(since) = &self.since else { return Ok(Some((None, until))) };
        let after = registry.revision_at(since).await.context(NO_JOURNAL)?;
        if after.is_none()
            && let Some(span) = registry.journal_span().await?
        {
            output::note(&journal::beginning(&span));
        }
        Ok(Some((after, until)))
    }

    async fn between_revisions(&self, opened: &Opened, range: Option<Range>) -> Result<()> {
        let changes = match range {
            Some((after, until)) => {
                opened.registry.changes_between(after, until, &self.narrowing.filter(opened)).await?
            }
            None => Vec::new(),
        };
        if let Some(format) = self.output.of_program() {
            output::print_json(
                &Json::Array(changes.iter().map(|change| journal::change_to_json(change, true)).collect()),
                format,
            )?;
        } else {
            let sections: String = changes.iter().filter_map(|change| self.section(change)).collect();
            if sections.is_empty() {
                output::note("Nothing differs.");
            }
            output::print(sections.as_bytes())?;
        }
        journal::note_not_kept(&opened.registry, &changes);
        Ok(())
    }

    /// What became of one thing. Facts are worth telling only with all the rest.
    fn section(&self, change: &Change) -> Option<String> {
        let is_fact = matches!(&change.target, Target::Key(Key::Metadata { .. }));
        if is_fact && !self.all {
            return None;
        }
        Some(journal::section(change, true, self.all))
    }

    async fn between_registries(&self, one: &Opened, other: &Opened) -> Result<()> {
        let mut contrast = one.registry.contrast(&other.registry, self.narrowing.project(one));
        let locations = (one.registry.location(), other.registry.location());
        let mut for_programs = Vec::new();
        let mut is_first = true;
        while let Some(found) = contrast.next().await? {
            if !self.narrowing.is_of(&found.key) {
                continue;
            }
            let difference = Difference::between(&found.key, found.one.as_deref(), found.other.as_deref());
            let is_both = found.one.is_some() && found.other.is_some();
            if is_both && !self.all && !difference.is_of_definition() {
                continue;
            }
            if self.output == TextFormat::Text {
                if std::mem::take(&mut is_first) {
                    output::print(format!("--- {}\n+++ {}\n", locations.0, locations.1).as_bytes())?;
                }
                output::print(self.contrasted(found, &difference).as_bytes())?;
            } else {
                for_programs.push(contrasted_to_json(&found, &difference));
            }
        }
        match self.output.of_program() {
            Some(format @ (Format::Json | Format::Yaml)) => output::print_json(&Json::Array(for_programs), format)?,
            _ if is_first => output::note("Nothing differs."),
            _ => {}
        }
        Ok(())
    }

    /// What differs of one thing. What only one registry has is only named.
    fn contrasted(&self, found: StoredDifference, difference: &Difference) -> String {
        let mark = match (&found.one, &found.other) {
            (Some(_), None) => "-",
            (None, Some(_)) => "+",
            _ => "~",
        };
        let heading = format!("{mark} {}\n", journal::thing_of_project(&Target::Key(found.key)));
        if mark == "~" { heading + &changes::lines(difference, self.all, journal::INDENT) } else { heading }
    }
}

fn contrasted_to_json(found: &StoredDifference, difference: &Difference) -> Json {
    let mut json = journal::target_to_json(&Target::Key(found.key.clone()));
    json["in"] = match (&found.one, &found.other) {
        (Some(_), None) => "first",
        (None, Some(_)) => "second",
        _ => "both",
    }
    .into();
    changes::add_to_json(&mut json, difference);
    json
}

/// Reads `A..B`.
fn range(text: &str) -> Result<Range, String> {
    let Some((after, until)) = text.split_once("..") else {
        return Err(format!("`{text}` is neither two revisions, as A..B, nor the URL of a registry"));
    };
    let end = |text: &str| if text.is_empty() { Ok(None) } else { log::revision(text).map(Some) };
    Ok((end(after)?, end(until)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_may_be_open() {
        let revision = |number| Some(Revision::new(number));
        assert_eq!(range("3..7"), Ok((revision(3), revision(7))));
        assert_eq!(
            (range("3.."), range("..7"), range("..")),
            (Ok((revision(3), None)), Ok((None, revision(7))), Ok((None, None)))
        );
        for text in ["3", "a..b", "3...7", "-1..2", ""] {
            assert!(range(text).is_err(), "{text}");
        }
    }
}
