//! `feast-registry watch`.

use std::pin::Pin;
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow};
use clap::Args;
use feast_registry::{ErrorKind, JournalEntry, JournalQuery, Revision, WatchEvent};
use futures_util::StreamExt;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

use super::journal::{self, Narrowing};
use super::location::{Location, Opened};
use super::output::{self, Format, TextFormat};
use super::{Cli, log};

/// How long a watch that was interrupted tries to say how to go on.
const NOTED_WITHIN: Duration = Duration::from_secs(1);

/// Follow what is changed, as it happens: a line for each commit, whoever makes it.
///
/// The lines are those of `log`, oldest first. It goes on until it is interrupted, or an error ends it: then it says with which
/// `--after` it can go on and miss nothing.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  feast-registry watch                                       what is changed from now on
  feast-registry watch --after 411 --kind feature-view       also what was changed since revision 411
  feast-registry watch -o json | while read -r commit; do …  a line of JSON for each commit

A server tells the same to programs, by gRPC: feast_registry.v1.History/Watch.")]
pub(crate) struct Watch {
    #[command(flatten)]
    narrowing: Narrowing,

    /// Begin with what comes after this revision, instead of now.
    #[arg(long, value_name = "REVISION", value_parser = log::revision)]
    after: Option<Revision>,

    /// Only what is changed by somebody with this in their name.
    #[arg(long, value_name = "WHO")]
    by: Option<String>,

    /// The output format: JSON has a line for each commit, and YAML a document.
    #[arg(short, long, value_enum, default_value_t = TextFormat::Text)]
    output: TextFormat,

    #[command(flatten)]
    location: Location,
}

impl Watch {
    pub(super) async fn run(self, cli: &Cli) -> Result<()> {
        // Before anything is said, so that whoever has read it may interrupt.
        let mut interrupts = signal(SignalKind::interrupt()).context("signals cannot be caught")?;
        let mut endings = signal(SignalKind::terminate()).context("signals cannot be caught")?;
        let mut told = Told { revision: self.after, telling: None };
        let watching = async {
            // Why there is nothing to watch is not told as the end of a watch.
            let opened = self.location.open_history(cli).await?;
            Ok::<_, Error>(self.follow(&opened, &mut told).await)
        };
        let ended = tokio::select! {
            ended = watching => ended?,
            _ = interrupts.recv() => Ok(()),
            _ = endings.recv() => Ok(()),
        };
        let told = told.settled().await;
        if let Some(told) = told
            && ended.is_ok()
        {
            let told = output::note_apart(format!("To go on from here: --after {told}"));
            // Nobody may read stderr either.
            drop(timeout(NOTED_WITHIN, told).await);
        }
        ended.map_err(|error| explained(error, told))
    }

    /// Returns when nobody reads what is told.
    async fn follow(&self, opened: &Opened, told: &mut Told) -> Result<()> {
        let mut filter = self.narrowing.filter(opened);
        if let Some(author) = &self.by {
            filter = filter.with_author(author);
        }
        if told.revision.is_none() {
            let newest = opened.registry.journal(&JournalQuery::before(None, 1).without_images()).await?;
            told.revision = newest.first().map(|entry| entry.revision);
        }
        let mut events = opened.registry.watch(told.revision, filter).await?;
        output::note_apart(format!("Watching {}; Ctrl-C ends it.", opened.registry.location())).await;
        while let Some(event) = events.next().await {
            match event? {
                WatchEvent::Commit(entry) => {
                    let is_read = told.tell(entry.revision, self.rendered(&entry)?).await?;
                    if !is_read {
                        return Ok(());
                    }
                }
                WatchEvent::Bookmark(revision) => told.revision = Some(revision),
                // What a later version tells besides.
                _ => {}
            }
        }
        Ok(())
    }

    fn rendered(&self, entry: &JournalEntry) -> Result<String> {
        Ok(match self.output.of_program() {
            None => log::lines(std::slice::from_ref(entry)),
            Some(Format::Yaml) => {
                let yaml = serde_saphyr::to_string(&journal::to_json(entry, true)).context("this has no YAML form")?;
                format!("---\n{}\n", yaml.trim_end())
            }
            Some(_) => serde_json::to_string(&journal::to_json(entry, true))? + "\n",
        })
    }
}

/// How far a watch has told.
struct Told {
    /// The last revision that was told whole, or need not be told.
    revision: Option<Revision>,
    /// What is being told, on a thread that goes on when the watch is interrupted.
    telling: Option<(Revision, Telling)>,
}

type Telling = Pin<Box<dyn Future<Output = Result<bool>>>>;

impl Told {
    /// Tells a commit, and says whether anybody reads it.
    async fn tell(&mut self, revision: Revision, text: String) -> Result<bool> {
        let telling = output::tell_apart(text.into_bytes());
        let (_, telling) = self.telling.insert((revision, Box::pin(telling)));
        let is_read = telling.await;
        self.telling = None;
        if matches!(is_read, Ok(true)) {
            self.revision = Some(revision);
        }
        is_read
    }

    /// How far it has told once what was being told has been, if that is read. Whoever has read a line and interrupts then is not told
    /// to begin with that line again (`what_is_committed_is_a_line_each_and_an_interrupt_says_how_to_go_on`).
    async fn settled(self) -> Option<Revision> {
        if let Some((revision, telling)) = self.telling
            && matches!(timeout(NOTED_WITHIN, telling).await, Ok(Ok(true)))
        {
            return Some(revision);
        }
        self.revision
    }
}

/// Why a watch ended, with how to go on.
fn explained(error: Error, told: Option<Revision>) -> Error {
    let is_compacted = |error: &feast_registry::Error| error.kind() == ErrorKind::Compacted;
    if error.downcast_ref().is_some_and(is_compacted) {
        return error.context(
            "the journal no longer has what was to be watched; look at what there is, and watch without --after",
        );
    }
    match told {
        Some(told) => error.context(format!("the watch has ended; it goes on with --after {told}")),
        None => error.context(anyhow!("the watch has ended")),
    }
}
