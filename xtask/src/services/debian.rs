//! Servers from Debian packages, unpacked below target/: nothing is installed, so no root is needed and the machine stays
//! as it is.
//!
//! apt works in folders of its own here, with the system's mirror and keys, and as if nothing were installed: a system with
//! packages that do not fit together is no obstacle. So packages bring all that they need, but for the C library: those of
//! the system's own release use the system's, and those of sid run with the loader of theirs.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::steps::{in_path, read};

/// The archive's keys, as Debian installs them.
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Which release the packages come from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Release {
    /// The one that the system is.
    Own,
    /// Debian's unstable one, which alone has MySQL 9.
    Sid,
}

/// Packages that are unpacked, with all that they need.
pub(crate) struct Unpacked {
    pub(crate) root: PathBuf,
    release: Release,
}

impl Unpacked {
    /// Unpacks into `folder`/`name`, unless that was done before: then nothing is asked of the network.
    pub(crate) fn packages(folder: &Path, name: &str, release: Release, packages: &[&str]) -> Result<Self> {
        let folder = folder.join(name);
        let unpacked = Self { root: folder.join("root"), release };
        let recipe = packages.join("\n");
        let stamp = folder.join("made-from.txt");
        if fs::read_to_string(&stamp).is_ok_and(|made_from| made_from == recipe) {
            return Ok(unpacked);
        }
        ensure!(in_path("apt-get") && in_path("dpkg"), "Debian's packages need Debian's tools");
        let sources = sources(release)?;
        println!("downloading {} for {}", packages.join(", "), folder.display());
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        }
        let apt = folder.join("apt");
        for below in ["lists/partial", "archives/partial"] {
            fs::create_dir_all(apt.join(below))?;
        }
        fs::create_dir_all(&unpacked.root)?;
        fs::write(apt.join("sources.list"), sources)?;
        fs::write(apt.join("status"), "")?;
        run(apt_get(&apt).arg("update")).context("apt-get cannot update its lists")?;
        run(apt_get(&apt).args(["install", "--yes", "--no-install-recommends", "--download-only"]).args(packages))
            .with_context(|| format!("apt-get cannot download {}", packages.join(", ")))?;
        for entry in fs::read_dir(apt.join("archives"))? {
            let entry = entry?;
            let archive = entry.path();
            let of_the_system = release == Release::Own && entry.file_name().to_string_lossy().starts_with("libc6_");
            if archive.extension().is_some_and(|extension| extension == "deb") && !of_the_system {
                read(Command::new("dpkg").arg("-x").arg(archive).arg(&unpacked.root))?;
            }
        }
        fs::remove_dir_all(apt)?;
        // Last, so that it is there only if all went well.
        fs::write(stamp, recipe)?;
        Ok(unpacked)
    }

    /// A command that runs one of its programs, as `usr/sbin/mysqld`, with its own libraries.
    pub(crate) fn command(&self, program: &str) -> Result<Command> {
        let program = self.root.join(program);
        ensure!(program.is_file(), "the package has no {}", program.display());
        let mut libraries = Vec::new();
        for below in ["usr/lib", "lib"] {
            libraries.extend(folders_in(&self.root.join(below), "-linux-gnu"));
        }
        let path = env::join_paths(&libraries)?;
        if self.release == Release::Own {
            let mut command = Command::new(program);
            command.env("LD_LIBRARY_PATH", path);
            return Ok(command);
        }
        // Another C library than the system's: its loader must be the one to load it.
        let loader = libraries.iter().find_map(|folder| loader_in(folder)).context("the packages have no loader")?;
        let mut command = Command::new(loader);
        command.arg("--library-path").arg(path).arg(program);
        Ok(command)
    }
}

/// Runs apt-get. Its errors say enough: the command is long, and not one to repeat by hand.
fn run(command: &mut Command) -> Result<()> {
    let output = command.output().context("cannot start apt-get")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; "));
    Ok(())
}

/// apt-get with nothing of the system's but its configuration.
fn apt_get(apt: &Path) -> Command {
    let mut command = Command::new("apt-get");
    let option = |name: &str, value: &Path| {
        let mut option = OsString::from(format!("{name}="));
        option.push(value);
        option
    };
    for (name, value) in [
        ("Dir::State::lists", "lists"),
        ("Dir::Cache", "."),
        ("Dir::Cache::archives", "archives"),
        ("Dir::Etc::sourcelist", "sources.list"),
        ("Dir::State::status", "status"),
    ] {
        command.arg("-o").arg(option(name, &apt.join(value)));
    }
    for setting in [
        "Dir::Etc::sourceparts=/dev/null",
        "Dir::Etc::preferences=/dev/null",
        "Dir::Etc::preferencesparts=/dev/null",
        "Acquire::Languages=none",
        "Acquire::Retries=3",
        // For root apt becomes another user to download, who may not write here.
        "APT::Sandbox::User=root",
        // Ours alone; and for others than root the system's is not to be had.
        "Debug::NoLocking=true",
    ] {
        command.args(["-o", setting]);
    }
    command.arg("-qq");
    command
}

/// A sources.list for a release, with the mirror that the system uses.
fn sources(release: Release) -> Result<String> {
    let system = fs::read_to_string("/etc/os-release").context("this is no Debian")?;
    let configured = read(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(COMPONENT)|$(RELEASE)|$(REPO_URI)",
        "Created-By: Packages",
    ]))?;
    let debian = field(&system, "ID") == Some("debian");
    let keys = if debian && Path::new(KEYS).is_file() { format!("[signed-by={KEYS}] ") } else { String::new() };
    let own = own_sources(&configured, field(&system, "VERSION_CODENAME").unwrap_or("sid"));
    let Some((uri, ..)) = own.first() else {
        bail!("apt is not told where the packages of this release are");
    };
    if release == Release::Own {
        return Ok(own
            .iter()
            .map(|(uri, release, component)| format!("deb {keys}{uri} {release} {component}\n"))
            .collect());
    }
    ensure!(debian, "its packages are Debian's, and this is another system");
    Ok(format!("deb {keys}{uri} sid main\n"))
}

/// Of all that apt is told to use, the distribution's own: URI, release and component, the release itself first.
fn own_sources<'a>(configured: &'a str, codename: &str) -> Vec<(&'a str, &'a str, &'a str)> {
    let mut own = Vec::new();
    for line in configured.lines() {
        if let [component, release, uri] = line.split('|').collect::<Vec<_>>()[..]
            && ["main", "universe"].contains(&component)
            && (release.split('-').next() == Some(codename)
                || ["stable", "testing", "unstable", "sid"].contains(&release))
        {
            own.push((uri, release, component));
        }
    }
    // "bookworm" before "bookworm-security", whose mirror has no sid.
    own.sort_by_key(|(_, release, _)| release.contains('-'));
    own
}

/// A field of /etc/os-release.
fn field<'a>(system: &'a str, name: &str) -> Option<&'a str> {
    system.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix('=')?.trim_matches('"')))
}

/// The folders in a folder whose names end so.
pub(crate) fn folders_in(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut folders: Vec<_> = entries
        .map(|entry| entry.path())
        .filter(|path| path.is_dir() && path.to_string_lossy().ends_with(ending))
        .collect();
    folders.sort();
    folders
}

fn loader_in(folder: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).ok()?.flatten();
    let mut loaders = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("ld-linux"));
    loaders.next().map(|entry| entry.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distribution_s_own_mirror_is_taken() {
        let configured = "\
stable|bookworm|https://download.example/docker/
main|bookworm-security|http://mirror.example/debian-security/
main|bookworm|http://mirror.example/debian/
contrib|bookworm|http://mirror.example/debian/
main|nodistro|https://node.example/";
        assert_eq!(
            own_sources(configured, "bookworm"),
            [
                ("http://mirror.example/debian/", "bookworm", "main"),
                ("http://mirror.example/debian-security/", "bookworm-security", "main"),
            ]
        );
        assert!(own_sources(configured, "noble").is_empty());
    }

    #[test]
    fn the_system_says_what_it_is() {
        let system = "PRETTY_NAME=\"Debian GNU/Linux 12\"\nVERSION_ID=\"12\"\nID=debian\nVERSION_CODENAME=bookworm\n";
        assert_eq!(field(system, "ID"), Some("debian"));
        assert_eq!(field(system, "VERSION_ID"), Some("12"));
        assert_eq!(field(system, "VERSION_CODENAME"), Some("bookworm"));
        assert_eq!(field(system, "NAME"), None);
    }
}
