//! `cargo xtask wheel`: the Python package `feast-registry`, with the binary in it.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use serde_json::json;

use crate::Project;
use crate::python::{Environment, Python};
use crate::steps::{read, run as run_command};

/// The C compiler and linker of `--zig`.
const ZIG: &str = "ziglang==0.17.1";

/// The variable that says that this program is run in place of cargo, with the server that is built already.
const BUILT: &str = "FEAST_REGISTRY_XTASK_BUILT";
/// And the one with the real cargo.
const REAL_CARGO: &str = "FEAST_REGISTRY_XTASK_CARGO";
const PACKAGE: &str = "feast-registry-server";

/// Which wheel to make. Without a flag it is one for tests on this machine, with the binary of `cargo build`.
#[derive(clap::Args, Default)]
pub(crate) struct Args {
    /// As it is published: with Cargo's profile `dist`, stripped and well compressed. Slow to build
    #[arg(long)]
    release: bool,

    /// For each Linux with glibc 2.28 or newer, whatever this one has; zig compiles C and links
    #[arg(long)]
    zig: bool,
}

pub(crate) fn run(project: &Project, args: &Args) -> Result<()> {
    let wheel = build(project, &Python::find()?, args, None)?;
    let kilobytes = fs::metadata(&wheel)?.len() / 1000;
    println!("{} has {kilobytes} KB", wheel.display());
    Ok(())
}

/// Makes the wheel and says where it is. With a server that is built already, cargo is not asked to build one: beside the tests of the
/// workspace it would compile almost all of it a second time, since these ask for more features of what the server depends on.
pub(crate) fn build(project: &Project, python: &Python, args: &Args, built: Option<&Path>) -> Result<PathBuf> {
    let requirements = project.root.join("xtask/wheel-requirements.txt");
    let environment = Environment::new(project.root.join("target/wheel-venv"), python, requirements)?;
    if !environment.is_ready() {
        environment.make(python)?;
    }
    let folder = project.root.join("target/wheels");
    let mut maturin = project.command("maturin");
    environment.activate(&mut maturin)?;
    maturin.current_dir(project.root.join("python")).args(["build", "--locked", "--out"]).arg(&folder);
    if let Some(server) = built {
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        maturin.env("CARGO", env::current_exe()?).env(REAL_CARGO, cargo).env(BUILT, server);
    }
    if args.release {
        maturin.args(["--profile", "dist", "--strip", "--compression-level", "9"]);
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

/// Does what cargo would, if this program is run in its place: tells maturin of the server that is built already, as cargo does of one that
/// it has found to be fresh, and leaves all else to cargo.
pub(crate) fn instead_of_cargo() -> Option<ExitCode> {
    let (server, cargo) = (env::var_os(BUILT)?, env::var_os(REAL_CARGO)?);
    let arguments: Vec<_> = env::args_os().skip(1).collect();
    let answered = match arguments.first().is_some_and(|first| first == "rustc") {
        true => tell_of(&server, &cargo),
        false => Command::new(cargo).args(arguments).status().map(|status| status.success()).map_err(Into::into),
    };
    match answered {
        Ok(true) => Some(ExitCode::SUCCESS),
        Ok(false) => Some(ExitCode::FAILURE),
        Err(error) => {
            println!("error: {error:#}");
            Some(ExitCode::FAILURE)
        }
    }
}

/// The messages of cargo about a build of the server that had nothing to do.
fn tell_of(server: &OsStr, cargo: &OsStr) -> Result<bool> {
    let id = read(Command::new(cargo).args(["pkgid", "--package", PACKAGE]))?;
    let manifest = env::current_dir()?.join("../registry-server/Cargo.toml");
    let server = server.to_string_lossy();
    let artifact = json!({
        "reason": "compiler-artifact",
        "package_id": id,
        "manifest_path": manifest,
        "target": {
            "name": "feast-registry", "kind": ["bin"], "crate_types": ["bin"], "edition": "2024", "doc": false, "doctest": false,
            "test": true, "src_path": manifest.with_file_name("src/main.rs"),
        },
        "profile": {
            "opt_level": "0", "debuginfo": 1, "debug_assertions": true, "overflow_checks": true, "test": false,
        },
        "features": [],
        "filenames": [server],
        "executable": server,
        "fresh": true,
    });
    println!("{artifact}\n{}", json!({ "reason": "build-finished", "success": true }));
    Ok(true)
}
