//! `feast-registry journal prune`.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use feast_registry::{IDENTITY_KEPT_FOR, JournalEntry, JournalQuery, Registry, Retention, Timestamp};

use super::location::Location;
use super::{Cli, ask, moment, output, text};

/// What is said when nothing was done.
const NOTHING_DONE: &str = "Nothing was removed";
/// How many entries are read at once, without what they changed.
const PAGE: usize = 1000;

/// Look after the journal, in which the registry keeps who changed what and when.
#[derive(Debug, Args)]
pub(crate) struct Journal {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Prune(Prune),
}

/// Remove old entries of the journal.
///
/// It says what will be removed and asks. A registry does this by itself, now and then, for what its configuration says
/// (journal_retention_days and journal_max_commits). What is of the last day is not removed by either, and neither is the newest
/// entry; a database keeps a few hundred of the newest besides. A registry in a file keeps no more than fits into the room that the
/// file has for its journal: with each commit what is beyond that goes, however young it is.
///
/// What is removed can no longer be shown, watched or taken back. What the registry stores stays as it is.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  feast-registry journal prune --dry-run                     what is beyond what the configuration says
  feast-registry journal prune --keep-age 7d --yes
  feast-registry journal prune --keep-commits 1000")]
struct Prune {
    /// Remove what is older: 7d, 36h, 2w; at least a day. Default: what the configuration says, else 30 days.
    #[arg(long, value_name = "AGE", value_parser = age)]
    keep_age: Option<Duration>,

    /// Remove the oldest until so many commits are left. Default: what the configuration says, else 100,000.
    #[arg(long, value_name = "NUMBER")]
    keep_commits: Option<u64>,

    /// Only say what would be removed.
    #[arg(long)]
    dry_run: bool,

    /// Do not ask.
    #[arg(short, long, conflicts_with = "dry_run")]
    yes: bool,

    #[command(flatten)]
    location: Location,
}

fn age(text: &str) -> Result<Duration, String> {
    let seconds = moment::ago(text).and_then(|seconds| u64::try_from(seconds).ok());
    match seconds.map(Duration::from_secs) {
        Some(age) if age >= IDENTITY_KEPT_FOR => Ok(age),
        Some(_) => Err("only what is older than a day is removed: that is 1d at the least".to_owned()),
        None => Err(format!("`{text}` is no age; it is one as 7d, 36h or 2w")),
    }
}

impl Journal {
    pub(super) async fn run(self, cli: &Cli) -> Result<()> {
        let Command::Prune(prune) = self.command;
        prune.run(cli).await
    }
}

impl Prune {
    async fn run(self, cli: &Cli) -> Result<()> {
        let opened = self.location.open_history(cli).await?;
        let location = opened.registry.location();
        if !self.dry_run && opened.is_read_only()? {
            bail!("the registry {location} is configured to be read only. {NOTHING_DONE}");
        }
        let configured = opened.retention();
        let retention =
            Retention::new(self.keep_age.unwrap_or(configured.age), self.keep_commits.unwrap_or(configured.commits));
        let Some(removable) = look(&opened.registry, &retention).await? else {
            return output::print(format!("There is nothing to remove from the journal of {location}.\n").as_bytes());
        };
        let shown = format!("This removes from the journal of {location}, for good: {removable}");
        if self.dry_run {
            return output::print(format!("{shown}\n").as_bytes());
        }
        output::note(&shown);
        if !self.yes {
            ask::ask("yes", NOTHING_DONE)?;
        }
        let registry = opened.into_writable().await?;
        let mut removed = 0;
        loop {
            let pruned = registry.prune_journal(&retention).await;
            match pruned.with_context(|| format!("removed {removed} so far, and then no more"))? {
                0 => break,
                more => removed += more,
            }
        }
        let what = if removed == 1 { "1 entry".to_owned() } else { format!("{removed} entries") };
        output::print(format!("Removed {what} from the journal of {location}.\n").as_bytes())
    }
}

/// The entries of a journal that need not be kept, in words: as far as the times tell that commits have, which a database does not
/// go by. `None` if there are none.
async fn look(registry: &Registry, retention: &Retention) -> Result<Option<String>> {
    let mut seconds = Vec::new();
    let (mut query, mut oldest) = (JournalQuery::after(None, PAGE).without_images(), None);
    loop {
        let page = registry.journal(&query).await?;
        oldest = oldest.or_else(|| page.first().cloned());
        seconds.extend(page.iter().map(|entry| entry.at.seconds));
        match page.last() {
            Some(last) if page.len() == PAGE => query = JournalQuery::after(last.revision, PAGE).without_images(),
            _ => break,
        }
    }
    let count = removable(&seconds, retention, &Timestamp::from(SystemTime::now()));
    let Some(oldest) = oldest.filter(|_| count > 0) else { return Ok(None) };
    let end = |entry: &JournalEntry| format!("revision {} of {}", entry.revision, text::second(&entry.at));
    let until = seconds.get(count - 1).map(|seconds| text::second(&Timestamp { seconds: *seconds, nanos: 0 }));
    let (total, until) = (seconds.len(), until.unwrap_or_default());
    Ok(Some(format!("about {count} of {total} entries, from {} to those of {until}", end(&oldest))))
}

/// How many of the oldest need not be kept, of entries that were made in these seconds.
fn removable(seconds: &[i64], retention: &Retention, now: &Timestamp) -> usize {
    let (too_old, old_enough) = retention.bounds(now);
    let beyond = seconds.len().saturating_sub(usize::try_from(retention.commits).unwrap_or(usize::MAX));
    let is_removable =
        |(index, second): &(usize, &i64)| **second < too_old || (**second < old_enough && *index < beyond);
    seconds.iter().enumerate().take(seconds.len().saturating_sub(1)).take_while(is_removable).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_old_or_beyond_a_number_goes_and_the_newest_and_the_young_stay() {
        const DAY: i64 = 24 * 3600;
        let now = Timestamp { seconds: 100 * DAY, nanos: 0 };
        let of = |days_ago: &[i64], days: u64, commits| {
            let seconds: Vec<i64> = days_ago.iter().map(|days| now.seconds - days * DAY).collect();
            removable(&seconds, &Retention::new(Duration::from_secs(days * DAY as u64), commits), &now)
        };
        assert_eq!(of(&[40, 35, 20, 0], 30, 100), 2);
        assert_eq!(of(&[40, 35, 20, 0], 60, 3), 1);
        assert_eq!(of(&[5, 4, 3], 1, 0), 2, "the newest stays");
        assert_eq!(of(&[0, 0, 0], 1, 0), 0, "what is young stays");
        assert_eq!(of(&[], 1, 0), 0);
    }

    #[test]
    fn ages_are_read_and_a_day_is_the_least() {
        assert_eq!(age("7d"), Ok(Duration::from_secs(7 * 24 * 3600)));
        assert!(age("1h").is_err_and(|error| error.contains("1d at the least")));
        assert!(age("soon").is_err_and(|error| error.contains("no age")));
    }
}
