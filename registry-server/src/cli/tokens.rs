//! `feast-registry tokens`.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use feast_registry::Timestamp;

use super::output;
use crate::{TokenEntry, new_token};

/// Make bearer tokens for callers that have no identity provider.
#[derive(Debug, Args)]
pub(crate) struct Tokens {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    New(New),
}

/// Make a token: print it, and what goes into the file of tokens.
///
/// The token is shown this once, on standard output; the file has its digest alone. Callers send it as Feast's client does with
/// `auth: {type: oidc, token: …}`, or with `token_env_var`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  feast-registry tokens new deploy --role writer --file tokens.yaml
  feast-registry tokens new dashboard --role reader --expires-days 90 --file tokens.yaml
  feast-registry serve --tokens tokens.yaml")]
struct New {
    /// Who has the token: the name that permissions, the journal and the audit log know them by.
    name: String,

    /// A role of theirs. May be given several times.
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<String>,

    /// A group of theirs. May be given several times.
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<String>,

    /// After how many days it is good no longer. Without, it is until it is taken out of the file.
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u64).range(1..=36_500))]
    expires_days: Option<u64>,

    /// Append the entry to this file, which is made, readable by its owner alone, if it is not there. Without, it is shown on standard error.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

impl Tokens {
    pub(super) fn run(self) -> Result<()> {
        match self.command {
            Command::New(new) => new.run(),
        }
    }
}

impl New {
    fn run(self) -> Result<()> {
        if self.name.trim().is_empty() {
            bail!("the token needs the name of who has it");
        }
        let token = new_token()?;
        let mut entry = TokenEntry::new(self.name.trim(), &token);
        (entry.roles, entry.groups) = (self.roles, self.groups);
        if let Some(days) = self.expires_days {
            let moment = SystemTime::now() + Duration::from_secs(days * 86_400);
            let seconds = moment.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
            entry.expires =
                Some(Timestamp { seconds: i64::try_from(seconds).unwrap_or(i64::MAX), nanos: 0 }.to_string());
        }
        let yaml = serde_saphyr::to_string(&vec![entry]).context("the entry has no YAML form")?;
        match &self.file {
            Some(path) => {
                let mut options = OpenOptions::new();
                options.append(true).create(true);
                #[cfg(unix)]
                std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
                let mut file = options.open(path).with_context(|| format!("{} cannot be written", path.display()))?;
                // At once, so that a server that reads it meanwhile finds all of it or nothing.
                file.write_all(yaml.as_bytes())
                    .and_then(|()| file.sync_all())
                    .with_context(|| path.display().to_string())?;
            }
            None => eprint!("{yaml}"),
        }
        output::print(format!("{token}\n").as_bytes())
    }
}
