//! Feast's own command `feast`, as far as it serves a registry: in images and pods that run `feast serve_registry`, this program is put
//! before Feast's in PATH under that name. It serves the registry itself, and leaves all else to Feast's.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command as Process, ExitCode};

use anyhow::{Context, Result, anyhow};
use clap::{ArgAction, Args, FromArgMatches, Parser, Subcommand};

use super::location::Location;
use super::serve::Serve;
use super::{Cli, Command, NOT_FOUND, fail};
use crate::{DEFAULT_PORT, DEFAULT_REST_PORT};

/// The name of Feast's command.
pub(super) const NAME: &str = "feast";
/// What of it is done here.
const SERVE_REGISTRY: &str = "serve_registry";
/// Feast's variable with the folder of the repository. An empty one is none.
const FOLDER: &str = "FEATURE_REPO_DIR_ENV_VAR";
/// The variable with the number of the process that was handed over last.
const HANDED_OVER: &str = "FEAST_REGISTRY_HANDED_OVER";

/// What Feast's command takes before its subcommand.
#[derive(Debug, Parser)]
#[command(name = NAME, disable_help_flag = true, disable_version_flag = true, disable_help_subcommand = true, args_override_self = true)]
pub(super) struct Feast {
    #[arg(short, long)]
    chdir: Option<PathBuf>,

    #[arg(long, default_value = "warning")]
    log_level: String,

    #[arg(short, long)]
    pub(super) feature_store_yaml: Option<PathBuf>,

    #[command(subcommand)]
    command: Subcommands,
}

#[derive(Debug, Subcommand)]
enum Subcommands {
    #[command(name = SERVE_REGISTRY, disable_help_flag = true)]
    ServeRegistry(Box<ServeRegistry>),
    #[command(external_subcommand)]
    /// Which one, and with what, is for Feast's command to read.
    Other(#[expect(dead_code, reason = "clap takes external subcommands with their words alone")] Vec<OsString>),
}

/// Serve the registry of the repository, as Feast's command does: with feast-registry, whose `serve` has more options.
#[derive(Debug, Args)]
#[command(args_override_self = true)]
struct ServeRegistry {
    /// The port for gRPC.
    #[arg(short, long, default_value_t = DEFAULT_PORT)]
    port: u16,

    /// The port of the REST API.
    #[arg(long, default_value_t = DEFAULT_REST_PORT)]
    rest_port: u16,

    /// Encrypt with TLS: the private key of the certificate.
    #[arg(short, long, default_value = "", hide_default_value = true)]
    key: String,

    /// Encrypt with TLS: the server's certificate.
    #[arg(short, long, default_value = "", hide_default_value = true)]
    cert: String,

    /// Serve gRPC, which is the default.
    #[arg(long, overrides_with = "no_grpc")]
    grpc: bool,

    /// Serve the REST API alone.
    #[arg(long)]
    no_grpc: bool,

    /// Serve the REST API too.
    #[arg(short, long)]
    rest_api: bool,

    /// The address that the REST API listens on; gRPC listens on all.
    #[arg(short = 'h', long, default_value = ALL)]
    host: String,

    /// Print this.
    #[arg(long, action = ArgAction::HelpLong)]
    help: Option<bool>,
}

const ALL: &str = "::";

impl Feast {
    /// What a command line of Feast's says, if it is one that is understood here. Its first word is the name of the program.
    pub(super) fn read(line: &[OsString]) -> Option<Self> {
        Self::try_parse_from(line).ok()
    }

    /// The folder of the repository.
    pub(super) fn repository(&self) -> PathBuf {
        let variable = || env::var_os(FOLDER).map(PathBuf::from);
        self.chdir.clone().or_else(variable).unwrap_or_default()
    }

    /// How our own server is told to serve what this command line asks for; `None` if it is for Feast's command.
    fn serve(&self, cli: &Cli) -> Result<Option<Serve>, clap::Error> {
        let Subcommands::ServeRegistry(asked) = &self.command else { return Ok(None) };
        let mut words = vec!["feast-registry", "serve", "--host", ALL, "--log", level(&self.log_level)];
        let (port, rest_port) = (asked.port.to_string(), asked.rest_port.to_string());
        words.extend(["--port", &port]);
        if asked.rest_api {
            words.extend(["--rest-api", "--rest-port", &rest_port, "--rest-host", &asked.host]);
        }
        if asked.no_grpc {
            words.push("--no-grpc");
        }
        for (option, file) in [("--cert", &asked.cert), ("--key", &asked.key)] {
            if !file.is_empty() {
                words.extend([option, file]);
            }
        }
        let matches = cli.command().try_get_matches_from(words)?;
        let Command::Serve(mut serve) = super::Arguments::from_arg_matches(&matches)?.command else {
            return Ok(None);
        };
        serve.location = Location::of_repository(self.repository(), self.feature_store_yaml.clone());
        Ok(Some(*serve))
    }
}

/// The level of our log for one of Python's.
fn level(name: &str) -> &'static str {
    match name.to_ascii_uppercase().as_str() {
        "NOTSET" => "trace",
        "DEBUG" => "debug",
        "INFO" => "info",
        "ERROR" | "CRITICAL" | "FATAL" => "error",
        _ => "warn",
    }
}

/// Does what the command line of this process says, as Feast's command.
pub(super) fn run(cli: &Cli) -> ExitCode {
    let line: Vec<OsString> = env::args_os().collect();
    // A command line for the server that is not understood is an error: Feast's would serve instead, and nobody would notice.
    let read = match Feast::try_parse_from(&line) {
        Ok(read) => read.serve(cli),
        Err(error) if line.iter().any(|word| word == SERVE_REGISTRY) => Err(error),
        Err(_) => Ok(None),
    };
    match read {
        Ok(Some(serve)) => cli.execute(Command::Serve(Box::new(serve))).unwrap_or_else(|error| fail(&error)),
        Ok(None) => {
            fail(&hand_over(&line));
            ExitCode::from(NOT_FOUND)
        }
        Err(error) => error.exit(),
    }
}

/// Becomes Feast's own command. Returns only if that fails, with why.
fn hand_over(line: &[OsString]) -> anyhow::Error {
    // The number of a process stays the same when it becomes another program: what comes back here would do so for ever.
    let process_id = std::process::id().to_string();
    if env::var(HANDED_OVER).is_ok_and(|before| before == process_id) {
        return anyhow!(
            "each `{NAME}` in PATH leads back to feast-registry: Feast's own is not there, or behind a copy of this program"
        );
    }
    let own = env::current_exe().and_then(|path| path.canonicalize());
    let path = env::var_os("PATH").unwrap_or_default();
    let feast = own.context("this program cannot be found").and_then(|own| {
        next(&path, &own).ok_or_else(|| {
            anyhow!("this is feast-registry under the name `{NAME}`, and there is no other `{NAME}` in PATH")
        })
    });
    match feast {
        Ok(feast) => {
            let mut process = Process::new(&feast);
            anyhow!(process.env(HANDED_OVER, process_id).args(&line[1.min(line.len())..]).exec())
                .context(format!("{} cannot be run", feast.display()))
        }
        Err(error) => error,
    }
}

/// The first `feast` in a search path that is another program than this one.
fn next(path: &OsStr, own: &Path) -> Option<PathBuf> {
    let is_other = |file: &PathBuf| {
        let Ok(found) = file.canonicalize() else { return false };
        found != own && found.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    env::split_paths(path).map(|folder| folder.join(NAME)).find(is_other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Option<Result<Option<Serve>, clap::Error>> {
        let cli = Cli::new("feast-registry", "1.2.3");
        let words: Vec<OsString> = line.split(' ').map(Into::into).collect();
        Feast::read(&words).map(|feast| feast.serve(&cli))
    }

    #[test]
    fn every_command_line_that_starts_feasts_registry_server_starts_this_one() {
        let of_operator = [
            "feast serve_registry --grpc -p 6570",
            "feast --log-level DEBUG serve_registry --grpc -p 6570",
            "feast --log-level INFO serve_registry --grpc --rest-api --rest-port 6572 -p 6570",
            "feast --log-level WARNING serve_registry --no-grpc --rest-api --rest-port 6572 -p 6570",
            "feast --log-level ERROR serve_registry --grpc --rest-api --rest-port 6573 --key /tls/registry/tls.key --cert /tls/registry/tls.crt -p 6571",
            "feast --log-level CRITICAL serve_registry --no-grpc --rest-api --rest-port 6573 --key /tls/registry/tls.key --cert /tls/registry/tls.crt -p 6571",
            "feast serve_registry --grpc --key /tls/registry/a.key --cert /tls/registry/a.crt -p 6571",
        ];
        let of_chart = ["feast --log-level WARNING serve_registry", "feast --log-level warning serve_registry"];
        let of_people = [
            "feast serve_registry",
            "feast -c repo serve_registry -p 80",
            "feast --chdir=repo -f other.yaml serve_registry -p80 -r -h 127.0.0.1",
            "feast serve_registry -k a.key -c a.crt --host 0.0.0.0 --rest-api",
            "feast serve_registry --no-grpc --grpc",
            "feast serve_registry --port 1 --port 2",
        ];
        for line in of_operator.iter().chain(&of_chart).chain(&of_people) {
            match read(line) {
                Some(Ok(Some(_))) => {}
                other => panic!("{line}: {other:?}"),
            }
        }
    }

    #[test]
    fn what_is_asked_for_is_served() {
        let shown = |line: &str| match read(line) {
            Some(Ok(Some(serve))) => format!("{serve:?}"),
            other => panic!("{line}: {other:?}"),
        };
        let whole = shown(
            "feast --log-level INFO -c repo serve_registry --no-grpc -r --rest-port 6573 -h 10.0.0.1 -k a.key -c a.crt -p 6571",
        );
        for part in [
            r#"host: "::""#,
            "port: 6571",
            r#"rest_host: Some("10.0.0.1")"#,
            "rest_port: 6573",
            "no_grpc: true",
            "rest_api: true",
            r#"cert: Some("a.crt")"#,
            r#"key: Some("a.key")"#,
            r#"log: "info""#,
            r#"repository: Some("repo")"#,
        ] {
            assert!(whole.contains(part), "{part} is not in {whole}");
        }
        let usual = shown("feast serve_registry");
        for part in [
            "port: 6570",
            "rest_api: false",
            "no_grpc: false",
            r#"log: "warn""#,
            r#"repository: Some("")"#,
            "cert: None",
        ] {
            assert!(usual.contains(part), "{part} is not in {usual}");
        }
    }

    #[test]
    fn what_is_wrong_is_refused_as_feast_does_and_all_else_is_feasts() {
        for line in
            ["feast serve_registry --key a.key", "feast serve_registry --cert a.crt", "feast serve_registry --no-grpc"]
        {
            assert!(matches!(read(line), Some(Err(_))), "{line}: {:?}", read(line));
        }
        for line in [
            "feast serve_registry --help",
            "feast serve_registry --nonsense",
            "feast serve_registry -p x",
            "feast --version",
            "feast",
        ] {
            assert!(read(line).is_none(), "{line}: {:?}", read(line));
        }
        for line in [
            "feast apply",
            "feast -c repo materialize-incremental 2026-01-01T00:00:00",
            "feast serve --workers 8 -h 0.0.0.0",
            "feast version",
        ] {
            assert!(matches!(read(line), Some(Ok(None))), "{line}: {:?}", read(line));
        }
    }

    #[test]
    fn the_next_feast_is_another_program() {
        let folder = tempfile::tempdir().expect("a folder");
        let program = |name: &str, mode| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            std::fs::write(&path, "").expect("written");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("set");
            path.canonicalize().expect("it is there")
        };
        let own = program("a/feast-registry", 0o755);
        for link in ["a", "b"] {
            std::fs::create_dir_all(folder.path().join(link)).expect("made");
            std::os::unix::fs::symlink(&own, folder.path().join(link).join(NAME)).expect("a link");
        }
        program("c/feast", 0o644);
        let path = |names: &[&str]| env::join_paths(names.iter().map(|name| folder.path().join(name))).expect("a path");
        assert_eq!(next(&path(&["a", "b", "c", "d"]), &own), None);
        let feasts = program("d/feast", 0o755);
        assert_eq!(next(&path(&["a", "b", "c", "d"]), &own), Some(folder.path().join("d/feast")));
        assert_eq!(next(&path(&["d", "a"]), &own).and_then(|path| path.canonicalize().ok()), Some(feasts));
    }
}
