//! Emulators of cloud services that tests need, installed under `target/` from where their makers publish them.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::Project;
use crate::steps::{in_path, run as run_command};

/// The version is pinned, so that tests do not begin to fail by themselves.
const AZURITE: &str = "azurite@3.37.0";

/// Says in a command's environment where the emulators are that its tests need, unless somebody has said so already.
pub(crate) fn provide(project: &Project, command: &mut Command) -> Result<()> {
    if std::env::var_os(VARIABLE).is_none() {
        command.env(VARIABLE, azurite(project)?);
    }
    Ok(())
}

/// What `conformance-tests` takes for where Azurite is.
const VARIABLE: &str = "AZURITE";

/// Where Azurite's program for blobs is: Microsoft's emulator of Azure Storage. It is installed with npm, once.
fn azurite(project: &Project) -> Result<PathBuf> {
    let folder = project.root.join("target/emulators");
    let program = folder.join("node_modules/azurite/dist/src/blob/main.js");
    if !program.is_file() {
        ensure!(in_path("npm"), "npm is needed to install {AZURITE}; `{VARIABLE}=none` does without its tests");
        std::fs::create_dir_all(&folder)?;
        run_command(
            project.command("npm").args(["install", "--no-audit", "--no-fund", "--prefix"]).arg(&folder).arg(AZURITE),
        )?;
        ensure!(program.is_file(), "{AZURITE} was installed, but it is not at {}", program.display());
    }
    Ok(program)
}
