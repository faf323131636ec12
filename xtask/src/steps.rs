//! A chore is a list of steps: each is announced, timed and reported in one line, and the last line sums them up.

use std::env;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// The steps of one chore. A step that fails does not stop those after it, so that one run shows all that is wrong.
pub(crate) struct Steps {
    chore: &'static str,
    started: Instant,
    passed: usize,
    failed: Vec<String>,
    left_out: Vec<String>,
}

impl Steps {
    pub(crate) fn new(chore: &'static str) -> Self {
        Self { chore, started: Instant::now(), passed: 0, failed: Vec::new(), left_out: Vec::new() }
    }

    /// Does one step. What it returns is there for the next steps if it succeeded.
    pub(crate) fn step<T>(&mut self, name: &str, work: impl FnOnce() -> Result<T>) -> Option<T> {
        println!("==> {name}");
        let started = Instant::now();
        let done = work();
        let seconds = started.elapsed().as_secs_f64();
        match done {
            Ok(value) => {
                println!("==> {name}: ok, {seconds:.1} s");
                self.passed += 1;
                Some(value)
            }
            Err(error) => {
                println!("==> {name}: FAILED, {seconds:.1} s: {error:#}");
                self.failed.push(name.to_owned());
                None
            }
        }
    }

    /// Runs one command as a step; its output goes where ours goes.
    pub(crate) fn run(&mut self, name: &str, command: &mut Command) -> bool {
        self.step(name, || run(command)).is_some()
    }

    /// Says that a step is left out, and what to do about it.
    pub(crate) fn leave_out(&mut self, name: &str, why: &str) {
        println!("==> {name}: left out: {why}");
        self.left_out.push(name.to_owned());
    }

    /// Sums up; an error if any step failed.
    pub(crate) fn finish(self) -> Result<()> {
        let Self { chore, started, passed, failed, left_out } = self;
        let seconds = started.elapsed().as_secs_f64();
        if !failed.is_empty() {
            bail!("{chore} failed after {seconds:.0} s: {}", failed.join(", "));
        }
        print!("{chore}: all {passed} steps passed in {seconds:.0} s");
        if !left_out.is_empty() {
            print!("; left out: {}", left_out.join(", "));
        }
        println!();
        Ok(())
    }
}

/// Runs a command to its end; an error names the command, so that it can be run again by hand.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start `{}`", show(command)))?;
    if !status.success() {
        bail!("`{}` ended with {status}", show(command));
    }
    Ok(())
}

/// Runs a command to its end and returns what it wrote to its standard output.
pub(crate) fn read(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot start `{}`", show(command)))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` ended with {}: {}", show(command), output.status, stderr.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// A command as one would type it, but for the program's folder and for arguments of many lines.
pub(crate) fn show(command: &Command) -> String {
    let name = Path::new(command.get_program()).file_stem().unwrap_or(command.get_program());
    let mut line = name.to_string_lossy().into_owned();
    for arg in command.get_args() {
        let arg = arg.to_string_lossy();
        line.push(' ');
        line.push_str(if arg.contains('\n') { "…" } else { &arg });
    }
    line
}

/// The program of a name, if it is in PATH.
pub(crate) fn in_path(program: &str) -> bool {
    let file = format!("{program}{}", env::consts::EXE_SUFFIX);
    env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(|folder| folder.join(&file).is_file()))
}
