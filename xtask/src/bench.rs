//! `cargo xtask bench`: Feast's registry server and ours, side by side, with nothing set up beforehand.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::Project;
use crate::python::{Environment, Python};
use crate::steps::run as run_command;

/// How to measure.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// About a minute: one round of short cells, and no large registries
    #[arg(long)]
    quick: bool,

    /// A Python interpreter that has Feast, in place of the one in target/interop-venv
    #[arg(long, value_name = "PROGRAM")]
    python: Option<PathBuf>,

    /// Arguments for the program that measures, as `--rounds 5` or `--only growth`; `--help` lists them
    #[arg(last = true, value_name = "ARGS")]
    extra: Vec<String>,
}

pub(crate) fn run(project: &Project, args: &Args) -> Result<()> {
    let python = match &args.python {
        // Not canonicalized: an environment's interpreter is a link, and knows its environment by it.
        Some(python) => std::path::absolute(python)?,
        None => interpreter_with_feast(project)?,
    };
    // Each alone: built in one go, the server would get the features that the program which measures asks of their
    // common dependencies, and would not be the server that users have.
    let server = build(project, "feast-registry-server", "feast-registry")?;
    let benchmarks = build(project, "benchmarks", "benchmarks")?;
    let mut command = project.command(benchmarks);
    command.arg("--python").arg(python).arg("--server").arg(server);
    command.arg("--folder").arg(project.root.join("target/bench"));
    if args.quick {
        command.arg("--quick");
    }
    replace_this_process(command.args(&args.extra))
}

/// The environment of the interop tests, made if it is not there.
pub(crate) fn interpreter_with_feast(project: &Project) -> Result<PathBuf> {
    let python = Python::find()?;
    let folder = project.root.join("target/interop-venv");
    let environment = Environment::new(folder, &python, project.root.join("interop/requirements.txt"))?;
    if !environment.is_ready() {
        environment.make(&python)?;
    }
    Ok(environment.python())
}

/// Builds a program as users have it.
pub(crate) fn build(project: &Project, package: &str, program: &str) -> Result<PathBuf> {
    run_command(&mut project.cargo(&format!("build --release --package {package} --bin {program}")))?;
    // Cargo puts it beside the folder it put us in, whatever the target folder is.
    let ours = env::current_exe()?;
    let target = ours.parent().and_then(Path::parent).context("this program is in no target folder")?;
    let built = target.join(format!("release/{program}{}", env::consts::EXE_SUFFIX));
    ensure!(built.is_file(), "it was built, but it is not at {}", built.display());
    Ok(built)
}

/// The program that measures is then the one that Ctrl-C and signals reach, and it cleans up after itself.
#[cfg(unix)]
fn replace_this_process(command: &mut Command) -> Result<()> {
    use std::os::unix::process::CommandExt;

    let error = command.exec();
    Err(error).with_context(|| format!("cannot start `{}`", crate::steps::show(command)))
}

#[cfg(not(unix))]
fn replace_this_process(command: &mut Command) -> Result<()> {
    run_command(command)
}
