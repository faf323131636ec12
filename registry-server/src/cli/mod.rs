//! The command line `feast-registry`, as a library: a program with backends of other crates has all of its commands.
//!
//! This is the whole of such a program, but for its backend:
//!
//! ```no_run
//! use std::process::ExitCode;
//!
//! use feast_registry::Schemes;
//! use feast_registry_server::cli::Cli;
//! # use feast_registry::MemoryScheme as RedbScheme;
//!
//! fn main() -> ExitCode {
//!     Cli::new("feast-registry-redb", env!("CARGO_PKG_VERSION")).with_schemes(Schemes::default().with(RedbScheme)).run()
//! }
//! ```
//!
//! Help and completions then have the program's name, and the examples of its schemes.

mod ask;
mod changes;
mod client;
mod completions;
mod config;
mod describe;
mod diff;
mod feast;
mod files;
mod get;
mod health;
mod history;
mod journal;
mod list;
mod listen;
mod location;
mod log;
mod log_filter;
mod memory;
mod message;
mod migrate;
mod missing;
mod moment;
mod origin;
mod output;
mod permissions;
mod private;
mod program;
mod project;
mod protect;
mod prune;
mod rest;
mod restore;
mod revert;
mod run;
mod security;
mod selection;
mod self_test;
mod serve;
mod settings;
mod show;
mod status;
mod teardown;
mod telemetry;
mod text;
mod tokens;
mod undo;
mod unused;
mod watch;

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Error, Result};
use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use feast_registry::Schemes;
use tokio::signal::unix::{SignalKind, signal};

/// A program with the commands of `feast-registry`.
#[derive(Debug, Clone)]
pub struct Cli {
    name: String,
    version: String,
    build: Option<String>,
    schemes: Schemes,
}

impl Cli {
    /// A program of this name and version, with the backends that are compiled in.
    pub fn new(name: impl Into<String>, version: impl Into<String>) -> Self {
        Self { name: name.into(), version: version.into(), build: None, schemes: Schemes::default() }
    }

    /// The same with what `--version` says besides, such as the commit that it was built from.
    #[must_use]
    pub fn with_build(mut self, build: impl Into<String>) -> Self {
        self.build = Some(build.into());
        self
    }

    /// The same with these schemes, and no others.
    #[must_use]
    pub fn with_schemes(mut self, schemes: Schemes) -> Self {
        self.schemes = schemes;
        self
    }

    /// Does what the command line of this process says, and returns what the process is to end with. Blocks until that is
    /// done; for `serve`, until the process is told to end. Called once, from `main`: it starts a runtime, catches signals, and
    /// with `serve` sets up the process's log.
    ///
    /// A command line that cannot be understood, and `--help`, end the process.
    pub fn run(self) -> ExitCode {
        let matches = self.command().get_matches();
        let done = match Arguments::from_arg_matches(&matches) {
            Ok(arguments) => self.execute(arguments.command),
            // What clap knows of its own matches, it has checked.
            Err(error) => error.exit(),
        };
        done.unwrap_or_else(|error| fail(&error))
    }

    /// The same under the name of Feast's own command, `feast`: serves a registry as `feast serve_registry` does, and becomes the next
    /// `feast` in PATH for anything else. Does what [`run`](Self::run) does.
    pub fn run_as_feast(self) -> ExitCode {
        feast::run(&self)
    }

    /// What can be said on the command line of this program.
    fn command(&self) -> clap::Command {
        program::adapt(Arguments::command(), &self.name, &self.schemes)
            .name(self.name.clone())
            .version(self.whole_version())
            .long_version(self.long_version())
    }

    fn whole_version(&self) -> String {
        match &self.build {
            Some(build) => format!("{} ({build})", self.version),
            None => self.version.clone(),
        }
    }

    /// The version, and what is compiled in.
    fn long_version(&self) -> String {
        let features = [
            ("oidc", cfg!(feature = "oidc")),
            ("otlp", cfg!(feature = "otlp")),
            ("file", cfg!(feature = "file")),
            ("s3", cfg!(feature = "s3")),
            ("gcs", cfg!(feature = "gcs")),
            ("azure", cfg!(feature = "azure")),
            ("sqlite", cfg!(feature = "sqlite")),
            ("postgres", cfg!(feature = "postgres")),
            ("mysql", cfg!(feature = "mysql")),
        ];
        let features: Vec<&str> = features.into_iter().filter_map(|(name, is_in)| is_in.then_some(name)).collect();
        let schemes: Vec<&str> = self.schemes.names().collect();
        format!("{}\nfeatures: {}\nschemes: {}", self.whole_version(), features.join(" "), schemes.join(" "))
    }

    /// Ends the process as clap does for a command line that cannot be understood.
    fn refuse(&self, kind: ErrorKind, problem: &str) -> ! {
        self.command().error(kind, problem).exit()
    }

    fn execute(&self, command: Command) -> Result<ExitCode> {
        let catches_signals = matches!(command, Command::Serve(_) | Command::Run(_) | Command::Watch(_));
        let has_limit = matches!(command, Command::Health(_));
        if matches!(command, Command::Serve(_)) {
            memory::give_back_what_is_freed();
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start")?;
        let done = runtime.block_on(async {
            survive_file_size_limit().context("SIGXFSZ cannot be caught")?;
            let done = match command {
                Command::Config(config) => return config.run(self).await,
                Command::Run(run) => return run.run(self).await,
                Command::Serve(serve) => return serve.run(self).await,
                Command::Status(status) => return status.run(self).await,
                Command::Permissions(permissions) => return permissions.run(self).await,
                Command::List(list) => list.run(self).await,
                Command::Get(get) => get.run(self).await,
                Command::Describe(describe) => describe.run(self).await,
                Command::Revert(revert) => revert.run(self).await,
                Command::Restore(restore) => restore.run(self).await,
                Command::Log(log) => log.run(self).await,
                Command::Show(show) => show.run(self).await,
                Command::Diff(diff) => diff.run(self).await,
                Command::History(history) => history.run(self).await,
                Command::Watch(watch) => watch.run(self).await,
                Command::Journal(journal) => journal.run(self).await,
                Command::Teardown(teardown) => teardown.run(self).await,
                Command::Migrate(migrate) => migrate.run(self).await,
                Command::Tokens(tokens) => tokens.run(),
                Command::Health(health) => health.run().await,
                Command::SelfTest(test) => test.run(self).await,
                Command::Completions(completions) => completions.run(self),
            };
            done.map(|()| ExitCode::SUCCESS)
        });
        if catches_signals {
            // Signals end nothing any more, so whoever hangs, as on a disk that does not answer or an output that nobody reads, must
            // not be waited for.
            runtime.shutdown_timeout(LEFT_OVERS_END_WITHIN);
        } else if has_limit {
            // The system may still look for the address of a host.
            runtime.shutdown_background();
        }
        done
    }
}

/// A registry for the Feast feature store that loses nothing.
#[derive(Debug, Parser)]
#[command(name = "feast-registry", arg_required_else_help = true, after_help = AFTER_HELP)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Examples:
  feast-registry serve                                       serve ./registry.db on port 6570
  feast-registry serve -c feature_store.yaml                 serve the registry that Feast is configured with
  feast-registry run -- feast apply                          the same for one command, without a server to operate
  feast-registry status                                      where the registry is, what is in it, and how far its journal goes
  feast-registry list feature-views --tag team=ml            a table of what has this tag
  feast-registry list all -o json | jq '.featureViews[].spec.name'
  feast-registry get entity driver --project rides           one object, as YAML
  feast-registry describe view driver_stats                  the same for people, with its history and its users
  feast-registry revert 412                                  take back what one commit did, after asking
  feast-registry restore --project rides --at 2h             have all of a project be as it was
  feast-registry log --since 2d                              who changed what and when
  feast-registry history view driver_stats                   what became of one object
  feast-registry diff --since 2d                             what it came to, field by field
  feast-registry watch                                       the same as it happens
  feast-registry teardown --project rides                    delete a project, after asking
  feast-registry config check -c feature_store.yaml          what is wrong with a configuration
  feast-registry permissions check --as bob delete project rides    whether somebody may do something, and why

All but `serve`, `run`, `health` and `self-test` read the registry itself, also while a server serves it (unless its storage lets in one process alone). Which
registry: that of the first of these that is there.
  -c FILE, or --registry URL
  FEAST_REGISTRY_URL            environment variable: a URL
  FEATURE_STORE_YAML_BASE64     environment variable, Feast's: a whole feature_store.yaml
  FEAST_FS_YAML_FILE_PATH       environment variable, Feast's: the path of a feature_store.yaml
  sqlite:///registry.db (of `run`: the feature_store.yaml of the folder)

Exit codes: 0 done, 1 an error, which is on stderr, 2 a command line that cannot be understood,
3 `permissions check` says no.";

#[derive(Debug, Subcommand)]
enum Command {
    Serve(Box<serve::Serve>),
    Run(run::Run),
    Status(status::Status),
    List(list::List),
    Get(get::Get),
    Describe(describe::Describe),
    Revert(revert::Revert),
    Restore(restore::Restore),
    Log(log::Log),
    Show(show::Show),
    Diff(diff::Diff),
    History(history::History),
    Watch(watch::Watch),
    Journal(prune::Journal),
    Teardown(teardown::Teardown),
    Migrate(migrate::Migrate),
    Config(config::Config),
    Permissions(permissions::Permissions),
    Tokens(tokens::Tokens),
    Health(health::Health),
    SelfTest(self_test::SelfTest),
    Completions(completions::Completions),
}

/// The exit code of a command that is not there, as shells have it.
const NOT_FOUND: u8 = 127;

/// How long the process of a server or a watch that has ended waits for what it left under way.
const LEFT_OVERS_END_WITHIN: Duration = Duration::from_secs(2);

/// Has a write beyond the file size limit of the process (`ulimit -f`) fail, as one on a full disk does. Without a handler
/// the system ends the process instead: `interop/test_hostile.py` runs a server under such a limit.
///
/// The handler does nothing, and stays until the process ends.
fn survive_file_size_limit() -> std::io::Result<()> {
    /// The same number on Linux, macOS and the BSDs; on MIPS it is another signal's.
    const SIGXFSZ: i32 = 25;
    drop(signal(SignalKind::from_raw(SIGXFSZ))?);
    Ok(())
}

/// Says what went wrong, in one line on stderr.
pub(crate) fn fail(error: &Error) -> ExitCode {
    // When stderr is closed there is nobody to tell.
    drop(writeln!(std::io::stderr(), "error: {}", one_line(error)));
    ExitCode::FAILURE
}

/// An error with its causes, but for those whose words an earlier one has repeated.
fn one_line(error: &Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let cause = text::clean(&cause.to_string());
        if line.is_empty() {
            line = cause;
        } else if !line.contains(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::new("feast-registry", "1.2.3").command().debug_assert();
    }

    #[test]
    fn an_error_is_one_line_and_repeats_nothing() {
        let error = anyhow!("disk\nfull").context("file x (disk full)").context("cannot open");
        assert_eq!(one_line(&error), "cannot open: file x (disk full)");
    }
}
