//! Emulators of cloud services that tests need.

use std::process::Command;

use anyhow::{Context, Result};

use crate::{Project, npm};

/// Microsoft's emulator of Azure Storage. The version is pinned, so that tests do not begin to fail by themselves.
const AZURITE: &str = "azurite@3.37.0";

/// What `conformance-tests` takes for where Azurite's program for blobs is.
const VARIABLE: &str = "AZURITE";

/// Says in a command's environment where the emulators are that its tests need, unless somebody has said so already.
pub(crate) fn provide(project: &Project, command: &mut Command) -> Result<()> {
    if std::env::var_os(VARIABLE).is_none() {
        let program = npm::install(project, AZURITE, "dist/src/blob/main.js");
        command.env(VARIABLE, program.with_context(|| format!("`{VARIABLE}=none` does without its tests"))?);
    }
    Ok(())
}
