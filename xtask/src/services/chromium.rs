//! Chromium without a window, in which tests use Feast's web UI.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::debian::{Release, Unpacked, folders_in};
use super::{Folder, shell_line, write_script};
use crate::steps::read;

/// As distributions and Google call it.
const NAMES: [&str; 5] =
    ["chromium-headless-shell", "chromium", "google-chrome", "google-chrome-stable", "chromium-browser"];

const LIBRARIES: &str = "LD_LIBRARY_PATH";

/// A program that runs it: the system's, else that of Debian's packages.
pub(super) fn program(folder: &Folder) -> Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders: Vec<_> = env::split_paths(&path).collect();
    let mut installed = NAMES.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    match installed.find(|program| program.is_file() && runs(program).is_ok()) {
        Some(program) => Ok(program),
        None => unpacked(folder),
    }
}

/// Asks, since Ubuntu's `chromium-browser` may be a stub that only says where the real one is.
fn runs(program: &Path) -> Result<()> {
    read(Command::new(program).arg("--version")).map(drop)
}

/// The part of Debian's package that knows no windows, and so needs fewer libraries.
fn unpacked(folder: &Folder) -> Result<PathBuf> {
    let unpacked = Unpacked::packages(&folder.path, "chromium", Release::Own, &["chromium-headless-shell"])?;
    let mut browser = unpacked.command("usr/lib/chromium/chromium-headless-shell")?;
    // A library of PulseAudio's looks for another where the package would have put it.
    let given = browser.get_envs().find(|(name, _)| *name == OsStr::new(LIBRARIES)).and_then(|(_, value)| value);
    let mut libraries: Vec<_> = given.iter().flat_map(env::split_paths).collect();
    libraries
        .extend(folders_in(&unpacked.root.join("usr/lib"), "-linux-gnu").iter().map(|path| path.join("pulseaudio")));
    browser.env(LIBRARIES, env::join_paths(libraries)?);
    // The package's fonts and what configures them, whatever the system has.
    browser.env("FONTCONFIG_SYSROOT", &unpacked.root);
    let script = folder.path.join("chromium-headless-shell");
    write_script(&script, &format!("#!/bin/sh\nexec {} \"$@\"\n", shell_line(&browser)))?;
    runs(&script).context("Debian's package does not run here")?;
    Ok(script)
}
