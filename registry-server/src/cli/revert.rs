//! `feast-registry revert`.

use anyhow::Result;
use clap::Args;
use feast_registry::{Revision, Undo};

use super::Cli;
use super::undo::Manner;

/// Take back what one commit did, in a commit of its own.
///
/// It says what will change and asks. What the commit deleted comes back as it was, with its history; what it changed gets the
/// definition that it had; what it created is deleted. What was materialized stays recorded, unless that is asked for.
///
/// Nothing is done if something has been changed since; then all of that is named.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  feast-registry revert 412 --dry-run                        what would change
  feast-registry revert 412 --reason \"wrong branch\"
  feast-registry revert 412 --yes                            without asking, for scripts")]
pub(crate) struct Revert {
    /// The revision of the commit, as `log` shows it.
    #[arg(value_name = "REV")]
    revision: u64,

    #[command(flatten)]
    manner: Manner,
}

impl Revert {
    pub(super) async fn run(self, cli: &Cli) -> Result<()> {
        let opened = self.manner.open(cli).await?;
        let undo = Undo::Revert(Revision::new(self.revision));
        let plan = opened.registry.plan_undo(&undo, self.manner.options()).await?;
        self.manner.run(opened, &plan).await
    }
}
