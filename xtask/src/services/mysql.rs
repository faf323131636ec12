//! MariaDB and MySQL 9 from Debian's packages.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::debian::{Release, Unpacked};
use super::process::{Running, free_port};
use super::{Folder, Found, Service, find, shell_line, write_script};
use crate::steps::read;

/// A server that can be started.
pub(super) struct Server {
    service: Service,
    /// Runs the server, or with `--initialize-insecure` as the first argument makes the folder that `--datadir` names,
    /// where root has no password. Options of the system are not read.
    pub(super) script: PathBuf,
    how: &'static str,
}

/// MySQL 9, which of Debian's releases only sid has.
pub(super) fn mysql(folder: &Folder) -> Result<Server> {
    let unpacked = Unpacked::packages(&folder.path, "mysql", Release::Sid, &["mysql-server-core"])?;
    let mut server = unpacked.command("usr/sbin/mysqld")?;
    // It looks for its files where the package would have put them. There is no folder that it may write exports to.
    server.arg("--no-defaults").arg(option("--basedir", &unpacked.root.join("usr")));
    server.arg(option("--lc-messages-dir", &unpacked.root.join("usr/share/mysql")));
    server.arg(option("--character-sets-dir", &unpacked.root.join("usr/share/mysql/charsets")));
    server.arg(option("--plugin-dir", &unpacked.root.join("usr/lib/mysql/plugin")));
    server.args(["--secure-file-priv=NULL", "--mysqlx=0"]);
    let script = folder.path.join("mysqld");
    write_script(&script, &format!("#!/bin/sh\n{ROOT}exec {} \"$@\"\n", shell_line(&server)))?;
    Ok(Server { service: Service::Mysql, script, how: "Debian sid's package, started for the tests" })
}

/// The system's MariaDB, or that of the system's release.
pub(super) fn mariadb(folder: &Folder) -> Result<Server> {
    let installed = ["/usr/sbin/mariadbd", "/usr/bin/mariadbd", "/usr/local/bin/mariadbd"];
    let (server, install) = match installed.iter().find(|path| Path::new(path).is_file()) {
        Some(path) => (Command::new(path), Command::new("mariadb-install-db")),
        None => {
            let packages = ["mariadb-server-core", "mariadb-client-core"];
            let unpacked = Unpacked::packages(&folder.path, "mariadb", Release::Own, &packages)?;
            let mut server = unpacked.command("usr/sbin/mariadbd")?;
            server.arg("--no-defaults").arg(option("--basedir", &unpacked.root.join("usr")));
            let mut install = unpacked.command("usr/bin/mariadb-install-db")?;
            install.arg("--no-defaults").arg(option("--basedir", &unpacked.root.join("usr")));
            (server, install)
        }
    };
    let script = folder.path.join("mariadbd");
    let no_defaults = |command: &Command| {
        let given = command.get_args().next().is_some();
        format!("{}{}", shell_line(command), if given { "" } else { " --no-defaults" })
    };
    let text = format!(
        "#!/bin/sh\n# MySQL's way to make a data folder.\nif [ \"$1\" = --initialize-insecure ]; then\n    shift\n{ROOT}    \
         exec {} --auth-root-authentication-method=normal \"$@\"\nfi\n{ROOT}exec {} \"$@\"\n",
        no_defaults(&install),
        no_defaults(&server)
    );
    write_script(&script, &text)?;
    Ok(Server { service: Service::Mariadb, script, how: "Debian's package, started for the tests" })
}

/// Both refuse to run as root unless told to.
const ROOT: &str = "[ \"$(id -u)\" != 0 ] || set -- \"$@\" --user=root\n";

/// Starts it on a free port, with a new and empty database `test`.
pub(super) fn start(folder: &Folder, server: &Server) -> Result<Found> {
    let name = server.service.name();
    let run = folder.of_run(name)?;
    let data = run.join("data");
    read(Command::new("cp").arg("-R").arg(template(folder, server)?).arg(&data))?;
    // The copy is a server of its own, not the template's twin.
    let _ = fs::remove_file(data.join("auto.cnf"));
    let port = free_port()?;
    let mut command = Command::new(&server.script);
    command.arg(option("--datadir", &data)).arg(format!("--port={port}"));
    // The socket's path is relative to the data: an absolute one may be too long.
    command.args(["--bind-address=127.0.0.1", "--socket=server.sock", "--max-connections=500"]);
    command.arg(option("--pid-file", &data.join("server.pid")));
    let mut running = Running::start(server.service.label(), "TERM", &command, &run, folder.log(name))?;
    let found = running.wait_for(|| find::on_port(server.service, port, server.how))?;
    Ok(Found { running: Some(running), ..found })
}

/// A data folder as it is before the first start, made once: that takes longer than everything else together.
fn template(folder: &Folder, server: &Server) -> Result<PathBuf> {
    let template = folder.path.join(format!("{}-data", server.service.name()));
    let made_by = template.join("made-by.txt");
    let recipe = fs::read_to_string(&server.script)?;
    if fs::read_to_string(&made_by).is_ok_and(|made| made == recipe) {
        return Ok(template.join("data"));
    }
    if template.exists() {
        fs::remove_dir_all(&template)?;
    }
    fs::create_dir_all(&template)?;
    let data = template.join("data");
    read(Command::new(&server.script).arg("--initialize-insecure").arg(option("--datadir", &data)))
        .with_context(|| format!("{} cannot make its data", server.service.label()))?;
    ensure!(data.is_dir(), "{} made no data", server.service.label());
    fs::write(made_by, recipe)?;
    Ok(data)
}

fn option(name: &str, value: &Path) -> String {
    format!("{name}={}", value.display())
}
