//! `feast-registry tokens`.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use feast_registry::Timestamp;

use super::{moment, output};
use crate::{Authentication, TokenEntry, new_token};

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
  feast-registry tokens new dashboard --role reader --expires-in 90d --file tokens.yaml
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

    /// After how long it is good no longer, as 12h or 90d. Without, it is until it is taken out of the file.
    #[arg(long, value_name = "TIME", value_parser = time_to_come)]
    expires_in: Option<Duration>,

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
        if let Some(time) = self.expires_in {
            entry.expires = Some(Timestamp { nanos: 0, ..Timestamp::from(SystemTime::now() + time) }.to_string());
        }
        let yaml = serde_saphyr::to_string(&vec![entry]).context("the entry has no YAML form")?;
        match &self.file {
            Some(path) => {
                let before = match fs::read(path) {
                    Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
                    read => read.with_context(|| format!("{} cannot be read", path.display()))?,
                };
                if !before.is_empty() {
                    // What is no list of tokens would not become one by another.
                    drop(Authentication::builder().tokens(path)?);
                }
                let yaml = if before.last().is_some_and(|byte| *byte != b'\n') { format!("\n{yaml}") } else { yaml };
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

/// A time of a second to a hundred years.
fn time_to_come(text: &str) -> Result<Duration, String> {
    const LONGEST: i64 = 36_500 * 86_400;
    let seconds = moment::ago(text).filter(|seconds| (1..=LONGEST).contains(seconds));
    let seconds = seconds.and_then(|seconds| u64::try_from(seconds).ok());
    seconds
        .map(Duration::from_secs)
        .ok_or_else(|| format!("`{text}` is no time; it is one as 12h, 90d or 52w, up to 36500d"))
}
