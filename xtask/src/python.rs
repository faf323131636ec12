//! The Python that drives the interop tests: which interpreter, and the environment with Feast's SDK in it.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::steps::{read, run};

/// The oldest Python that Feast's SDK supports.
const OLDEST: (u32, u32) = (3, 10);

/// Prints version, whether environments can be made, and the interpreter's own path, on a line each.
const PROBE: &str = "\
import sys
from importlib.util import find_spec
print('.'.join(map(str, sys.version_info[:3])))
print(find_spec('venv') is not None and find_spec('ensurepip') is not None)
print(sys.executable)";

/// A Python interpreter that can make environments.
pub(crate) struct Python {
    pub(crate) version: String,
    pub(crate) executable: PathBuf,
}

impl Python {
    /// The interpreter that the variable PYTHON names, else the first in PATH that is new enough.
    pub(crate) fn find() -> Result<Self> {
        if let Some(program) = env::var_os("PYTHON") {
            return Self::probe(&program.to_string_lossy()).context("PYTHON names an interpreter that does not do");
        }
        Self::probe("python3").or_else(|error| Self::probe("python").map_err(|_| error)).map_err(|error| {
            let (major, minor) = OLDEST;
            anyhow!(
                "{error:#}. The interop tests need Python {major}.{minor} or newer: install it, or name one with the \
                 variable PYTHON, or run the Rust tests alone with `cargo xtask test --only rust`"
            )
        })
    }

    fn probe(program: &str) -> Result<Self> {
        let answer = read(Command::new(program).args(["-c", PROBE]))?;
        let [version, can_make_environments, executable] = answer.lines().collect::<Vec<_>>()[..] else {
            bail!("`{program}` does not answer as Python does: {answer}");
        };
        let mut numbers = version.split('.').map(|number| number.parse().unwrap_or(0));
        let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        ensure!(found >= OLDEST, "`{program}` is Python {version}");
        ensure!(
            can_make_environments == "True",
            "`{program}` (Python {version}) lacks the module venv: on Debian and Ubuntu, `apt install python3-venv`"
        );
        Ok(Self { version: version.to_owned(), executable: executable.into() })
    }
}

/// An environment that holds exactly what a requirements file asks for.
pub(crate) struct Environment {
    folder: PathBuf,
    /// What the environment is made from. It is written into the folder last, so it is there only if all went well.
    recipe: String,
    requirements: PathBuf,
}

impl Environment {
    pub(crate) fn new(folder: PathBuf, python: &Python, requirements: PathBuf) -> Result<Self> {
        let packages =
            fs::read_to_string(&requirements).with_context(|| format!("cannot read {}", requirements.display()))?;
        // The folder is part of it: scripts in an environment carry its absolute path.
        let Python { version, executable } = python;
        let recipe = format!("{}\n{} {version}\n{packages}", folder.display(), executable.display());
        Ok(Self { folder, recipe, requirements })
    }

    /// Whether it was made from this very recipe.
    pub(crate) fn is_ready(&self) -> bool {
        fs::read_to_string(self.stamp()).is_ok_and(|made_from| made_from == self.recipe)
    }

    /// Makes it anew: an environment with packages that nobody asks for any more can hide a missing requirement.
    pub(crate) fn make(&self, python: &Python) -> Result<()> {
        if self.folder.exists() {
            fs::remove_dir_all(&self.folder).with_context(|| format!("cannot remove {}", self.folder.display()))?;
        }
        println!("making {}; a first install takes a few minutes", self.folder.display());
        run(Command::new(&python.executable).args(["-m", "venv"]).arg(&self.folder))?;
        let mut pip = Command::new(self.python());
        pip.args(["-m", "pip", "install", "--disable-pip-version-check", "-r"]).arg(&self.requirements);
        run(&mut pip)?;
        fs::write(self.stamp(), &self.recipe)?;
        Ok(())
    }

    /// The installed version of a package.
    pub(crate) fn version_of(&self, package: &str) -> Result<String> {
        let code =
            "import sys, importlib.metadata as m; print(*(d.version for d in m.distributions(name=sys.argv[1])))";
        let version = read(Command::new(self.python()).args(["-c", code, package]))?;
        ensure!(!version.is_empty(), "{} does not ask for {package}", self.requirements.display());
        Ok(version)
    }

    /// Makes a command run as in the activated environment: its programs, such as `feast`, come first.
    pub(crate) fn activate(&self, command: &mut Command) -> Result<()> {
        let inherited = env::var_os("PATH").unwrap_or_default();
        let path = env::join_paths([self.programs()].into_iter().chain(env::split_paths(&inherited)))?;
        command.env("PATH", path).env("VIRTUAL_ENV", &self.folder).env_remove("PYTHONHOME");
        Ok(())
    }

    /// The environment's interpreter.
    pub(crate) fn python(&self) -> PathBuf {
        self.programs().join(format!("python{}", env::consts::EXE_SUFFIX))
    }

    fn programs(&self) -> PathBuf {
        self.folder.join(if cfg!(windows) { "Scripts" } else { "bin" })
    }

    fn stamp(&self) -> PathBuf {
        self.folder.join("made-from.txt")
    }
}
