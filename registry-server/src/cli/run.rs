//! `feast-registry run`.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use feast_registry::config::{AuthConfig, FeatureStoreConfig, has_remote_stores, with_remote_registry};
use futures_util::FutureExt as _;
use rustix::process::{Pid, Signal as Number, getpgrp, kill_process};
use rustix::termios::tcgetpgrp;
use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::feast::{self, Feast};
use super::location::{Location, PATH_VARIABLE, YAML_VARIABLE};
use super::private::{PrivateFolder, PrivateServer};
use super::security::INTERNAL_SECRET;
use super::telemetry::Telemetry;
use super::{Cli, NOT_FOUND, fail, one_line};
use crate::{ServeOptions, new_token};

/// The variable with what belongs into `path` of a feature_store.yaml.
const ADDRESS_VARIABLE: &str = "FEAST_REGISTRY_PATH";

/// How long the server waits for calls that are under way when its command has ended, which has left them behind.
const GRACE: Duration = Duration::from_secs(5);

/// The exit code of what is there and cannot be started, as shells have it.
const NOT_EXECUTABLE: u8 = 126;
/// What is added to the number of the signal by which a command has ended.
const BY_SIGNAL: i32 = 128;

/// Serve a registry to one command, as `feast apply`, for as long as it runs.
///
/// The registry is that of the feature_store.yaml, with `registry_type: sql` or `file`, which stays as it is. It is served on a socket that
/// only the command knows: FEAST_FS_YAML_FILE_PATH of its environment names a copy of the file in which `registry` is that socket, and
/// FEAST_REGISTRY_PATH is its address, as unix:///…. Any number of commands may run at once, and lose nothing of each other's.
///
///   feast-registry run -- feast apply
///   feast-registry run -- feast -c feature_repo materialize-incremental 2026-01-01T00:00:00
///   feast-registry run --registry postgresql://feast@db/feast -- python train.py
///
/// The registry is the first of these that is there: -c or --registry; FEAST_REGISTRY_URL; FEATURE_STORE_YAML_BASE64;
/// FEAST_FS_YAML_FILE_PATH; the feature_store.yaml of this folder (of a `feast -c FOLDER` command, of that folder).
///
/// Signals are passed on to the command (Ctrl-C reaches it by itself). Exit code: the command's; 128 and its number when a signal has ended it; 127 and 126 when
/// it is not there and when it cannot be run; 1 when the registry cannot be served.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, about = "Serve a registry to one command, as `feast apply`, for as long as it runs")]
#[command(mut_arg("log", |log| log.default_value("warn")))]
pub(crate) struct Run {
    #[command(flatten)]
    location: Location,

    #[command(flatten)]
    telemetry: Telemetry,

    /// The command and its arguments, after all options of `run`; `--` before it says where it begins.
    #[arg(trailing_var_arg = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

impl Run {
    pub(super) async fn run(self, cli: &Cli) -> Result<ExitCode> {
        // From before anything is made that has to be removed.
        let mut signals = Signals::caught()?;
        let mut telemetry = self.telemetry.start()?;
        let done = self.serve_command(cli, &mut signals).await;
        telemetry.end_traces().await;
        let (code, failure) = match done {
            Ok(code) => (code, None),
            Err(error) => (ExitCode::FAILURE, Some(error)),
        };
        telemetry.end_log(failure).await;
        Ok(code)
    }

    async fn serve_command(self, cli: &Cli, signals: &mut Signals) -> Result<ExitCode> {
        let feast = Self::feast(&self.command)?;
        let repository = feast.as_ref().map(Feast::repository).unwrap_or_default();
        let location = self.location.or_of_repository(&repository);
        let config = location.read(cli, |warning| tracing::warn!("{warning}"))?;
        let feature_store = location.feature_store(&repository)?;

        let folder = PrivateFolder::new()?;
        let socket = folder.listen()?;
        let address = socket.address();
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]).env(ADDRESS_VARIABLE, &address);
        if let Some((text, origin)) = feature_store {
            let text = with_remote_registry(&text, &address).context(origin)?;
            let path = folder.path().join("feature_store.yaml");
            let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
            let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
            written.with_context(|| format!("{} cannot be written", path.display()))?;
            command.env_remove(YAML_VARIABLE).env(PATH_VARIABLE, path);
            if !has_remote_stores(&text) {
                authorize(&mut command, &config)?;
            }
        }
        let registry = tokio::select! {
            opened = cli.schemes.open(&config.registry) => opened?,
            number = signals.next() => return Ok(ended_by(number.as_raw())),
        };
        // Who asked it to end before there was a command does not want one.
        if let Some(number) = signals.next().now_or_never() {
            return Ok(ended_by(number.as_raw()));
        }
        let server = PrivateServer::start(registry, socket, ServeOptions { grace: GRACE, ..ServeOptions::default() });
        let code = match command.spawn() {
            Ok(child) => signals.pass_on_to(child).await.map(code_of),
            Err(error) => {
                let code = if error.kind() == ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTABLE };
                let problem = anyhow::Error::new(error);
                fail(&problem.context(format!("cannot run `{}`", self.command[0].display())));
                Ok(ExitCode::from(code))
            }
        };
        // The command has ended as it has, whatever became of the server.
        if let Err(error) = server.stop().await {
            tracing::error!(error = one_line(&error), "the server has failed");
        }
        code
    }

    /// What the command says, if it is Feast's.
    fn feast(command: &[OsString]) -> Result<Option<Feast>> {
        if Path::new(&command[0]).file_name() != Some(OsStr::new(feast::NAME)) {
            return Ok(None);
        }
        let feast = Feast::read(command);
        if feast.as_ref().is_some_and(|feast| feast.feature_store_yaml.is_some()) {
            bail!(
                "`feast -f` would have the command use its own registry: leave it out, and name the file with `feast-registry run -c`"
            );
        }
        Ok(feast)
    }
}

/// Has Feast's client call without a token of the identity provider, which nobody asks for on this socket. It makes one by itself out of
/// the secret that the parts of an installation share; so it would for other servers, where the configuration has any.
fn authorize(command: &mut Command, config: &FeatureStoreConfig) -> Result<()> {
    let has_secret = env::var_os(INTERNAL_SECRET).is_some_and(|secret| !secret.is_empty());
    if config.auth != AuthConfig::NoAuth && !has_secret {
        command.env(INTERNAL_SECRET, new_token()?);
    }
    Ok(())
}

/// The signals that end a process or tell it something, for as long as they are passed on.
struct Signals {
    caught: Vec<(Signal, Number)>,
}

impl Signals {
    fn caught() -> Result<Self> {
        let kinds = [
            (SignalKind::hangup(), Number::HUP),
            (SignalKind::interrupt(), Number::INT),
            (SignalKind::quit(), Number::QUIT),
            (SignalKind::terminate(), Number::TERM),
            (SignalKind::user_defined1(), Number::USR1),
            (SignalKind::user_defined2(), Number::USR2),
        ];
        let ignored = ignored();
        let is_heeded = |(_, number): &(SignalKind, Number)| ignored & (1 << (number.as_raw() - 1)) == 0;
        let catch = |(kind, number)| Ok((signal(kind)?, number));
        let caught = kinds
            .into_iter()
            .filter(is_heeded)
            .map(catch)
            .collect::<std::io::Result<_>>()
            .context("signals cannot be caught")?;
        Ok(Self { caught })
    }

    async fn next(&mut self) -> Number {
        if self.caught.is_empty() {
            return std::future::pending().await;
        }
        let all = self.caught.iter_mut().map(|(signal, number)| {
            Box::pin(async {
                signal.recv().await;
                *number
            })
        });
        futures_util::future::select_all(all).await.0
    }

    /// Waits for a process to end, and sends it the signals that come meanwhile.
    async fn pass_on_to(&mut self, mut child: Child) -> Result<ExitStatus> {
        let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        loop {
            let number = tokio::select! {
                status = child.wait() => return status.context("the command cannot be waited for"),
                number = self.next() => number,
            };
            // The terminal has sent these to the command too, and twice would be a second Ctrl-C.
            let is_of_terminal = matches!(number, Number::INT | Number::QUIT) && is_in_foreground();
            if let Some(pid) = pid.filter(|_| !is_of_terminal) {
                // It may have ended just now.
                kill_process(pid, number).ok();
            }
        }
    }
}

/// The signals that whoever started this process has it ignore, as `nohup` does, a bit for each: they are ignored by the command too, unless
/// somebody catches them. None are known where there is no `/proc`.
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default()
}

/// Whether this process is one of those that a terminal sends Ctrl-C to.
fn is_in_foreground() -> bool {
    let terminal = fs::File::open("/dev/tty");
    terminal.is_ok_and(|terminal| tcgetpgrp(&terminal).is_ok_and(|group| group == getpgrp()))
}

/// What a process ends with whose command has ended like this.
fn code_of(status: ExitStatus) -> ExitCode {
    let code = status.code().unwrap_or_else(|| BY_SIGNAL + status.signal().unwrap_or_default());
    ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
}

fn ended_by(number: i32) -> ExitCode {
    ExitCode::from(u8::try_from(BY_SIGNAL + number).unwrap_or(u8::MAX))
}
