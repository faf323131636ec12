//! `feast-registry migrate`.

use anyhow::Result;
use clap::Args;

use super::location::Location;
use super::{Cli, output, text};

/// Bring old tables of a registry up to date, without a change of what is in them.
///
/// MySQL and MariaDB registries that an older Feast made keep an object only up to 64 KB, and take names like `driver` and
/// `Driver` for one. This widens the columns and makes the tables tell names apart; Feast goes on reading and writing them.
/// Each table is rewritten, and locked meanwhile. Other storages have nothing to bring up to date.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  feast-registry migrate -c feature_store.yaml --dry-run     what there is to do
  feast-registry migrate -c feature_store.yaml")]
pub(crate) struct Migrate {
    /// Say what there is to do, and do nothing.
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    location: Location,
}

impl Migrate {
    pub(super) async fn run(self, cli: &Cli) -> Result<()> {
        let config = self.location.read(cli, output::warn)?.registry;
        let lines =
            if self.dry_run { cli.schemes.problems(&config).await? } else { cli.schemes.migrate(&config).await? };
        if lines.is_empty() {
            // For its errors alone: that nothing is old is no answer where there is nothing.
            cli.schemes.open_read_only(&config).await?;
            output::note(&format!("There is nothing to migrate in {}.", config.url));
        }
        for line in lines {
            output::print(format!("{}\n", text::clean(&line)).as_bytes())?;
        }
        Ok(())
    }
}
