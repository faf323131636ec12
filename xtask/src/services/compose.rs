//! The servers of compose.yaml, where a docker engine answers.

use std::process::Command;

use anyhow::{Result, bail};

use super::process::Running;
use super::{Folder, Found, Service, find};
use crate::Project;
use crate::steps::read;

/// Removes the service when it is told to end.
const KEEPER: &str = r#"
trap 'trap "" TERM; docker compose rm --force --stop --volumes "$0"; exit' TERM
while :; do sleep 1; done
"#;

/// Brings the service up; one that was not up before goes down at the end.
pub(super) fn start(project: &Project, folder: &Folder, service: Service) -> Result<Found> {
    // As compose.yaml has them: beside the usual ones, which other servers may have.
    let port = match service {
        Service::Postgres => 55432,
        Service::Mariadb => 53306,
        Service::Mysql => 53307,
        Service::Pgbouncer => bail!("compose.yaml has no PgBouncer"),
    };
    let name = service.name();
    if read(project.command("docker").args(["info", "--format", "{{.ServerVersion}}"])).is_err() {
        bail!("no docker engine answers");
    }
    let up = read(project.command("docker").args(["compose", "ps", "--quiet", name]))?;
    let running = if up.is_empty() {
        let mut keeper = Command::new("sh");
        keeper.args(["-c", KEEPER, name]).env("COMPOSE_FILE", project.root.join("compose.yaml"));
        // Before it is brought up, so that it goes down too when that fails or is interrupted.
        let run = folder.of_run(name)?;
        Some(Running::start(service.label(), "TERM", &keeper, &run, folder.log(name))?)
    } else {
        None
    };
    read(project.command("docker").args(["compose", "up", "--detach", "--wait", name]))?;
    let found = find::on_port(service, port, "docker compose")?;
    Ok(Found { running, ..found })
}
