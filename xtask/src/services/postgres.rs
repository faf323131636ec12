//! PostgreSQL from Debian's packages, and its programs for tests that run servers of their own.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::debian::{Release, Unpacked, folders_in};
use super::process::{Running, free_port};
use super::{Folder, Found, Service, find, is_root, shell_line, write_script};
use crate::steps::read;

/// Starts one on a free port, with data of its own.
pub(super) fn start(folder: &Folder) -> Result<Found> {
    let programs = programs(folder)?;
    let run = folder.of_run("postgres")?;
    let data = run.join("data");
    let mut initdb = Command::new(programs.join("initdb"));
    initdb.args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "-D"]).arg(&data);
    read(&mut initdb).context("PostgreSQL cannot make its data")?;
    let port = free_port()?;
    let mut server = Command::new(programs.join("postgres"));
    server.arg("-D").arg(data).args(["-p", &port.to_string(), "-c", "listen_addresses=127.0.0.1"]);
    server.args(["-c", "unix_socket_directories=", "-c", "max_connections=500"]);
    // INT does not wait for clients, as TERM does.
    let mut running = Running::start("PostgreSQL", "INT", &server, &run, folder.log("postgres"))?;
    let how = "Debian's package, started for the tests";
    let found = running.wait_for(|| find::on_port(Service::Postgres, port, how))?;
    Ok(Found { running: Some(running), ..found })
}

/// A folder with initdb, postgres and pg_ctl.
///
/// They refuse to run as root. So root gets scripts of the same names, which run them in a user namespace: there the user is
/// another, and outside the files are still root's.
pub(super) fn programs(folder: &Folder) -> Result<PathBuf> {
    let (programs, unpacked) = match installed() {
        Some(programs) => (programs, None),
        None => {
            let unpacked = Unpacked::packages(&folder.path, "postgresql", Release::Own, &["postgresql"])?;
            let programs = newest(&unpacked.root.join("usr/lib/postgresql"));
            (programs.context("the package has no programs")?, Some(unpacked))
        }
    };
    if unpacked.is_none() && !is_root() {
        return Ok(programs);
    }
    let scripts = folder.path.join("postgresql-bin");
    fs::create_dir_all(&scripts)?;
    let (user, group) = namespace_user();
    if is_root() {
        let mut probe = Command::new("unshare");
        probe.args(["--user", &format!("--map-user={user}"), &format!("--map-group={group}"), "true"]);
        read(&mut probe).context("PostgreSQL does not run as root, and this root may make no user namespace")?;
    }
    for program in ["initdb", "postgres", "pg_ctl"] {
        let path = programs.join(program);
        let command = match &unpacked {
            Some(unpacked) => unpacked.command(&path.strip_prefix(&unpacked.root)?.to_string_lossy())?,
            None => Command::new(path),
        };
        let line = shell_line(&command);
        let namespace = format!("unshare --user --map-user={user} --map-group={group} -- {line}");
        let text = format!("#!/bin/sh\n[ \"$(id -u)\" != 0 ] || exec {namespace} \"$@\"\nexec {line} \"$@\"\n");
        write_script(&scripts.join(program), &text)?;
    }
    Ok(scripts)
}

/// The ids of a user that the system knows: initdb asks for its name.
fn namespace_user() -> (String, String) {
    let id = |flag: &str| read(Command::new("id").args([flag, "postgres"]));
    match (id("-u"), id("-g")) {
        (Ok(user), Ok(group)) => (user, group),
        _ => ("65534".to_owned(), "65534".to_owned()),
    }
}

/// Debian keeps them out of PATH.
fn installed() -> Option<PathBuf> {
    let told = read(Command::new("pg_config").arg("--bindir")).ok().map(PathBuf::from);
    let path = env::var_os("PATH").unwrap_or_default();
    let in_path = env::split_paths(&path).find(|folder| complete(folder));
    told.filter(|folder| complete(folder)).or(in_path).or_else(|| newest(Path::new("/usr/lib/postgresql")))
}

fn complete(folder: &Path) -> bool {
    ["initdb", "postgres", "pg_ctl"].iter().all(|program| folder.join(program).is_file())
}

/// The programs of the newest version below a folder that has one folder for each.
fn newest(versions: &Path) -> Option<PathBuf> {
    let mut folders = folders_in(versions, "");
    folders.retain(|folder| complete(&folder.join("bin")));
    let number = |folder: &PathBuf| folder.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok());
    folders.into_iter().max_by_key(number).map(|folder| folder.join("bin"))
}
