//! `cargo xtask test`: all tests, with nothing set up beforehand.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Result, bail, ensure};
use clap::ValueEnum;

use crate::Project;
use crate::backend::Backend;
use crate::conformance::{self, Report};
use crate::python::{Environment, Python};
use crate::runner::Runner;
use crate::services::{Choice, Service, Services};
use crate::steps::{Steps, in_path, read, run as run_command};
use crate::wheel;

/// What to test.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run one half only
    #[arg(long, value_enum)]
    only: Option<Half>,

    /// Leave a database server out, with its tests (may be repeated; not with CI=true)
    #[arg(long, value_enum, value_name = "SERVICE")]
    without: Vec<Service>,

    /// Run the tests of one backend alone, on a server that need not be of the usual version
    #[arg(long, value_enum, value_name = "BACKEND", conflicts_with_all = ["only", "without"])]
    backend: Option<Backend>,

    /// Arguments for the test runner, with --only: nextest's (or `cargo test`'s), or pytest's
    #[arg(last = true, requires = "only", value_name = "ARGS")]
    extra: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Half {
    /// Unit, property, conformance and documentation tests
    Rust,
    /// Feast's Python SDK and command line against the built server
    Interop,
}

pub(crate) fn run(project: &Project, args: &Args) -> Result<()> {
    let plan = Plan::new(project, args)?;
    println!("test will use:\n  {}", plan.uses.join("\n  "));

    let mut tests = Tests {
        project,
        args,
        strict: project.ci && args.extra.is_empty(),
        steps: Steps::new("test"),
        closing: Vec::new(),
        used: plan.uses,
        services: plan.services,
    };
    tests.services();
    if let Some(backend) = args.backend {
        tests.backend(backend);
    } else if args.only != Some(Half::Interop) {
        tests.rust(plan.nextest);
    }
    if let Some((python, environment)) = &plan.interop
        && let Some(server) = tests.steps.step("server", || build_server(project, args.only.is_none()))
        && let Some(wheel) = tests.steps.step("wheel", || wheel(project, python, &server, args.only.is_none()))
    {
        tests.interop(python, environment, &server, &wheel);
    }
    tests.finish()
}

/// What the tests use: settled and said before anything that takes long.
struct Plan {
    /// Whether nextest runs the Rust tests, or `cargo test` because it is not installed.
    nextest: bool,
    /// For the interop tests, unless they are not asked for.
    interop: Option<(Python, Environment)>,
    /// The database servers, which stop when this goes, and a browser.
    services: Services,
    /// All of it in words.
    uses: Vec<String>,
}

impl Plan {
    fn new(project: &Project, args: &Args) -> Result<Self> {
        let mut uses = vec![read(&mut project.cargo("--version"))?];
        let nextest = in_path("cargo-nextest");
        if let Some(backend) = args.backend {
            uses.push(format!("cargo test, with the tests of `{}` alone", backend.service().name()));
        } else if args.only != Some(Half::Interop) {
            uses.push(if nextest {
                let version = read(&mut project.cargo("nextest --version"))?;
                version.lines().next().unwrap_or_default().to_owned()
            } else {
                "cargo test (cargo-nextest is not installed)".to_owned()
            });
        }
        let mut interop = None;
        if args.only != Some(Half::Rust) && args.backend.is_none() {
            let python = Python::find()?;
            let folder = project.root.join("target/interop-venv");
            let environment = Environment::new(folder, &python, project.root.join("interop/requirements.txt"))?;
            uses.push(format!("Python {} ({})", python.version, python.executable.display()));
            uses.push(if environment.is_ready() {
                "packages in target/interop-venv".to_owned()
            } else {
                "packages in target/interop-venv, newly installed".to_owned()
            });
            interop = Some((python, environment));
        }
        let choice = match args.backend {
            Some(backend) => Choice::Only(backend.service()),
            None => Choice::AllBut(&args.without),
        };
        if args.backend.is_none() {
            uses.push("SQLite (built in)".to_owned());
        }
        let services = Services::settle(project, choice)?;
        uses.extend(services.uses.iter().cloned());
        Ok(Self { nextest, interop, services, uses })
    }
}

/// Makes the Python package that the interop tests install, with the binary that they start.
fn wheel(project: &Project, python: &Python, server: &Path, is_built: bool) -> Result<PathBuf> {
    wheel::build(project, python, &wheel::Args::default(), is_built.then_some(server))
}

/// The binary that the interop tests start, with the program of the example beside it. After the Rust tests it is the one that was built for them, with the features
/// that the whole workspace asks of its dependencies: to build these once more takes longer than many a test.
fn build_server(project: &Project, is_built: bool) -> Result<PathBuf> {
    let line = match is_built {
        true => "test --workspace --no-run",
        false => "build --package feast-registry-server --package feast-registry-redb --bins",
    };
    run_command(&mut project.cargo(line))?;
    // Cargo puts it where it put us, whatever the target folder is.
    let server = env::current_exe()?.with_file_name(format!("feast-registry{}", env::consts::EXE_SUFFIX));
    ensure!(server.is_file(), "it was built, but it is not at {}", server.display());
    Ok(server)
}

/// How many processes test at once. Most of them wait half of the time: for what they start, for the disk, for deadlines.
fn at_once() -> usize {
    2 * thread::available_parallelism().map_or(1, usize::from)
}

/// A run of the tests, as far as it has come.
struct Tests<'a> {
    project: &'a Project,
    args: &'a Args,
    /// Whether a skipped test is a failure. Not when arguments pick tests: runners call the others skipped.
    strict: bool,
    steps: Steps,
    /// The closing lines of the test runners.
    closing: Vec<String>,
    /// In words, what was used.
    used: Vec<String>,
    services: Services,
}

impl Tests<'_> {
    /// Accounts for the database servers and the browser: what could not be had is told at the end again, and on a CI machine it is a
    /// failure. So it is where nothing else was asked for.
    fn services(&mut self) {
        for service in &self.args.without {
            self.steps.leave_out(service.label(), "as --without says");
        }
        for (label, why) in self.services.not_there() {
            if self.project.ci || self.args.backend.is_some() {
                self.steps.step(label, || -> Result<()> { bail!("{why}") });
            } else {
                self.steps.leave_out(label, why);
            }
        }
    }

    fn backend(&mut self, backend: Backend) {
        if !self.services.missing.is_empty() {
            return;
        }
        let mut tests = backend.tests(self.project);
        self.services.give_to(&mut tests);
        let report = self.report(&mut tests);
        self.steps.step(&format!("tests of `{}`", backend.service().name()), || {
            let excepted = || Ok(Report::read(&report)?.excepted());
            let outcome = Runner::CargoTest.run(&mut tests, self.strict, excepted)?;
            let checked = outcome.failure.map_or_else(|| backend.check_closing_lines(&outcome.closing), Err);
            self.closing.extend(outcome.closing);
            checked
        });
        self.closing.extend(Report::read(&report).map(|report| report.closing()).unwrap_or_default());
    }

    /// Where the conformance suites of these tests report to.
    fn report(&mut self, tests: &mut Command) -> PathBuf {
        let report = self.project.root.join("target/conformance-report.jsonl");
        // What an earlier run has left there is not of this one.
        if report.exists() {
            self.steps
                .step("the last report of the conformance suites is removed", || Ok(std::fs::remove_file(&report)?));
        }
        tests.env(conformance::VARIABLE, &report);
        report
    }

    fn rust(&mut self, nextest: bool) {
        let (runner, line) = if nextest {
            (Runner::Nextest, "nextest run --workspace --no-fail-fast")
        } else {
            (Runner::CargoTest, "test --workspace --no-fail-fast --lib --bins --tests")
        };
        let mut tests = self.project.cargo(line);
        if nextest {
            tests.env("NEXTEST_TEST_THREADS", at_once().to_string());
        }
        tests.args(&self.args.extra);
        self.steps.step("emulators", || crate::emulators::provide(self.project, &mut tests));
        let report = self.report(&mut tests);
        self.run_with("Rust tests", runner, &mut tests, || Ok(Report::read(&report)?.excepted()));
        self.closing.extend(Report::read(&report).map(|report| report.closing()).unwrap_or_default());

        // nextest cannot run the examples in the documentation.
        let name = "documentation tests";
        if self.args.extra.is_empty() {
            self.run(name, Runner::CargoTest, &mut self.project.cargo("test --workspace --no-fail-fast --doc"));
        } else {
            self.steps.leave_out(name, "the arguments are for the Rust tests");
        }
    }

    fn interop(&mut self, python: &Python, environment: &Environment, server: &Path, wheel: &Path) {
        let ready = self.steps.step("Python packages", || {
            if !environment.is_ready() {
                environment.make(python)?;
            }
            let mut pytest = self.project.command(environment.python());
            environment.activate(&mut pytest)?;
            Ok((pytest, environment.version_of("feast")?))
        });
        if let Some((mut pytest, feast)) = ready {
            self.used.push(format!("feast {feast}"));
            // -ra: a failed or skipped test is named again at the end, with its reason.
            pytest.current_dir(self.project.root.join("interop")).args(["-m", "pytest", "-ra"]);
            // A file of tests shares its servers, so it stays together.
            pytest.args(["-n", &at_once().to_string(), "--dist", "loadfile"]).args(&self.args.extra);
            // Python holds back what it writes to a pipe unless told not to.
            pytest.env("PYTHONUNBUFFERED", "1").env("FEAST_REGISTRY_BIN", server);
            pytest.env("FEAST_REGISTRY_TEST_WHEEL", wheel);
            self.run("interop tests", Runner::Pytest, &mut pytest);
        }
    }

    fn run(&mut self, name: &str, runner: Runner, command: &mut Command) {
        self.run_with(name, runner, command, || Ok(0));
    }

    /// Runs tests of which so many may be skipped as `excepted` says when they are over.
    fn run_with(&mut self, name: &str, runner: Runner, command: &mut Command, excepted: impl FnOnce() -> Result<u64>) {
        self.services.give_to(command);
        self.steps.step(name, || {
            let outcome = runner.run(command, self.strict, excepted)?;
            self.closing.extend(outcome.closing);
            outcome.failure.map_or(Ok(()), Err)
        });
    }

    /// The last lines are the test runners' own: that is where one looks in a long log.
    fn finish(self) -> Result<()> {
        println!("test used: {}", self.used.join("; "));
        let result = self.steps.finish();
        for line in self.closing {
            println!("{line}");
        }
        result
    }
}
