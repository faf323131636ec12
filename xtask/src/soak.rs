//! `cargo xtask soak`: a long load with restarts, and a look at what was lost.

use anyhow::Result;

use crate::Project;
use crate::bench::{build, interpreter_with_feast};
use crate::services::{Choice, Services};
use crate::steps::run as run_command;

pub(crate) fn run(project: &Project, minutes: f64) -> Result<()> {
    let python = interpreter_with_feast(project)?;
    let services = Services::settle(project, Choice::AllBut(&[]))?;
    let server = build(project, "feast-registry-server", "feast-registry")?;
    let mut command = project.command(python);
    command.arg("interop/soak.py").arg("--minutes").arg(minutes.to_string()).env("FEAST_REGISTRY_BIN", server);
    services.give_to(&mut command);
    run_command(&mut command)
}
