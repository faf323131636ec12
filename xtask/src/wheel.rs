//! `cargo xtask wheel`: the Python package `feast-registry`, with the binary in it.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::Project;
use crate::python::{Environment, Python};
use crate::steps::run as run_command;

/// The C compiler and linker of `--zig`.
const ZIG: &str = "ziglang==0.17.1";

/// Which wheel to make. Without a flag it is one for tests on this machine, with the binary of `cargo build`.
#[derive(clap::Args, Default)]
pub(crate) struct Args {
    /// As it is published: optimized, stripped, and well compressed. Takes as long as a release build
    #[arg(long)]
    release: bool,

    /// For each Linux with glibc 2.28 or newer, whatever this one has; zig compiles C and links
    #[arg(long)]
    zig: bool,
}

pub(crate) fn run(project: &Project, args: &Args) -> Result<()> {
    let wheel = build(project, &Python::find()?, args)?;
    let kilobytes = fs::metadata(&wheel)?.len() / 1000;
    println!("{} has {kilobytes} KB", wheel.display());
    Ok(())
}

/// Makes the wheel and says where it is.
pub(crate) fn build(project: &Project, python: &Python, args: &Args) -> Result<PathBuf> {
    let requirements = project.root.join("xtask/wheel-requirements.txt");
    let environment = Environment::new(project.root.join("target/wheel-venv"), python, requirements)?;
    if !environment.is_ready() {
        environment.make(python)?;
    }
    let folder = project.root.join("target/wheels");
    let mut maturin = project.command("maturin");
    environment.activate(&mut maturin)?;
    maturin.current_dir(project.root.join("python")).args(["build", "--locked", "--out"]).arg(&folder);
    if args.release {
        maturin.args(["--release", "--strip", "--compression-level", "9"]);
    } else {
        // A binary with debug information is large, and the wheel is unpacked at once.
        maturin.args(["--compression-method", "stored"]);
    }
    if args.zig {
        run_command(Command::new(environment.python()).args(["-m", "pip", "install", "--quiet", ZIG]))?;
        maturin.args(["--zig", "--compatibility", "manylinux_2_28"]);
    } else if !args.release {
        maturin.args(["--compatibility", "linux"]);
    }
    run_command(&mut maturin)?;
    let wheels = fs::read_dir(&folder)?.collect::<Result<Vec<_>, _>>()?;
    let newest = wheels
        .iter()
        .map(fs::DirEntry::path)
        .filter(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .max_by_key(|path| path.metadata().and_then(|found| found.modified()).ok());
    newest.with_context(|| format!("maturin has left no wheel in {}", folder.display()))
}
