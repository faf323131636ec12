//! PgBouncer in transaction pooling mode, before the PostgreSQL that was found.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::debian::{Release, Unpacked};
use super::process::{Running, free_port};
use super::url::Url;
use super::{Folder, Found, is_root, postgres_wire};
use crate::steps::{in_path, read};

pub(super) fn start(folder: &Folder, postgres: &Url) -> Result<Found> {
    let installed = in_path("pgbouncer").then(|| version(&mut Command::new("pgbouncer"))).transpose()?;
    let (command, version, how) = match installed {
        Some(version) if bears_cancel_requests(&version) => {
            (Command::new("pgbouncer"), version, "started for the tests")
        }
        _ => {
            let unpacked = Unpacked::packages(&folder.path, "pgbouncer", Release::Sid, &["pgbouncer"])?;
            let mut command = unpacked.command("usr/sbin/pgbouncer")?;
            let version = version(&mut command)?;
            (unpacked.command("usr/sbin/pgbouncer")?, version, "Debian sid's package, started for the tests")
        }
    };

    let run = folder.of_run("pgbouncer")?;
    let port = free_port()?;
    let url = postgres.moved_to(port);
    let settings = run.join("pgbouncer.ini");
    write_private(&settings, &configuration(postgres, port, is_root())?)?;
    let mut server = Command::new(command.get_program());
    server.args(command.get_args()).arg(&settings);
    server.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut running = Running::start("PgBouncer", "TERM", &server, &run, folder.log("pgbouncer"))?;
    let address = url.address();
    running.wait_for(|| {
        let mut connection = postgres_wire::Connection::open(&address, &url.user, &url.database)?;
        ensure!(connection.query("SELECT 1")?.as_deref() == Some("1"), "no answer through it");
        Ok(())
    })?;
    // Who connects needs no password here, and there is none to hand on.
    let url = Url { password: String::new(), ..url };
    Ok(Found { version, how: format!("{how}, transaction pooling"), url: Some(url), address, running: Some(running) })
}

/// What `--version` says first: "PgBouncer 1.25.0".
fn version(command: &mut Command) -> Result<String> {
    let said = read(command.arg("--version"))?;
    Ok(said.lines().next().and_then(|line| line.split(' ').nth(1)).unwrap_or_default().to_owned())
}

/// Before 1.20 a cancel request can end the whole process ("server in bad state: 11", PgBouncer's issue 822), and tests send
/// many of them. Debian 12 has 1.18.
fn bears_cancel_requests(version: &str) -> bool {
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().unwrap_or_default());
    (numbers.next(), numbers.next()) >= (Some(1), Some(20))
}

/// Whoever connects, from this machine alone, is the user of the URL.
fn configuration(postgres: &Url, port: u16, root: bool) -> Result<String> {
    let Url { user, password, host, port: behind, .. } = postgres;
    let mut target = format!("host={} port={behind} user={}", quote(host)?, quote(user)?);
    if !password.is_empty() {
        target.push_str(&format!(" password={}", quote(password)?));
    }
    // It refuses to be root, and becomes another once it has read this.
    let user = if root { "user = nobody\n" } else { "" };
    Ok(format!(
        "[databases]\n* = {target}\n\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
         auth_type = any\npool_mode = transaction\nmax_client_conn = 1000\ndefault_pool_size = 20\n{user}"
    ))
}

/// A value in a connection string: in single quotes, which are doubled within.
fn quote(value: &str) -> Result<String> {
    ensure!(!value.contains(['\n', '\r']), "a line break cannot be in pgbouncer.ini");
    Ok(format!("'{}'", value.replace('\'', "''")))
}

/// The password may be in it.
fn write_private(path: &std::path::Path, text: &str) -> Result<()> {
    fs::write(path, "").with_context(|| format!("cannot write {}", path.display()))?;
    #[cfg(unix)]
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    fs::write(path, text)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_connects_as_the_url_says() {
        let url = Url::parse("postgresql://me:it's@db:6000/feast", 5432).unwrap();
        let text = configuration(&url, 7000, false).unwrap();
        assert!(text.contains("* = host='db' port=6000 user='me' password='it''s'\n"), "{text}");
        assert!(text.contains("listen_port = 7000\n") && text.contains("pool_mode = transaction\n"));
        assert!(!text.contains("user = nobody"));
        let hostile = Url { user: "me\nuser = root".to_owned(), ..url };
        assert!(configuration(&hostile, 7000, true).is_err());
    }

    #[test]
    fn one_that_cancel_requests_end_is_not_taken() {
        for (version, bears) in [("1.18.0", false), ("1.9.0", false), ("", false), ("1.20.1", true), ("2.0.0", true)] {
            assert_eq!(bears_cancel_requests(version), bears, "{version}");
        }
    }
}
