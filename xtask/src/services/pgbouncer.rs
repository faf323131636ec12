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
    let (mut command, how) = if in_path("pgbouncer") {
        (Command::new("pgbouncer"), "started for the tests")
    } else {
        let unpacked = Unpacked::packages(&folder.path, "pgbouncer", Release::Own, &["pgbouncer"])?;
        (unpacked.command("usr/sbin/pgbouncer")?, "Debian's package, started for the tests")
    };
    // "PgBouncer 1.18.0" and lines about its libraries.
    let said = read(command.arg("--version"))?;
    let version = said.lines().next().and_then(|line| line.split(' ').nth(1)).unwrap_or_default().to_owned();

    let run = folder.of_run("pgbouncer")?;
    let port = free_port()?;
    let url = postgres.moved_to(port);
    let settings = run.join("pgbouncer.ini");
    write_private(&settings, &configuration(postgres, port, is_root())?)?;
    let mut server = Command::new(command.get_program());
    server.args(command.get_args().filter(|argument| *argument != "--version")).arg(&settings);
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
}
