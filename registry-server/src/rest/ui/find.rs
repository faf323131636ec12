//! Where the installed `feast` package is, which has the bundle.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use feast_registry_core::{Error, Result};

/// Where the bundle is in the package.
const BUILD: &str = "ui/build";

/// Says where the package is, without importing it, which would take seconds.
const ASK: &str = "
import importlib.util
found = importlib.util.find_spec('feast')
for place in (found and found.submodule_search_locations) or ():
    print(place)
";

pub(super) fn bundle() -> Result<PathBuf> {
    bundle_of(&interpreters())
}

/// That of the first interpreter that has one.
fn bundle_of(interpreters: &[PathBuf]) -> Result<PathBuf> {
    let mut asked = Vec::new();
    for python in interpreters {
        match ask(python) {
            Ok(bundle) => return Ok(bundle),
            Err(why) => asked.push(format!("{}: {why}", python.display())),
        }
    }
    let asked = if asked.is_empty() { "there is no Python in PATH".to_owned() } else { asked.join("; ") };
    Err(Error::config(format!(
        "--ui auto: no installed feast with its web UI is found ({asked}): `pip install feast`, or name the folder with --ui FOLDER"
    )))
}

/// The bundle in the package that an interpreter would import.
fn ask(python: &Path) -> std::result::Result<PathBuf, String> {
    let mut command = Command::new(python);
    // Elsewhere than in this folder: a folder `feast` in it is not the package.
    command.args(["-c", ASK]).current_dir("/").env("PYTHONDONTWRITEBYTECODE", "1");
    let output = command.output().map_err(|error| error.to_string())?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        return Err(stderr.lines().last().unwrap_or("it failed").to_owned());
    }
    let stdout = String::from_utf8_lossy(&output.stdout);
    let mut bundles = stdout.lines().map(|place| Path::new(place).join(BUILD));
    match bundles.find(|bundle| bundle.join(super::INDEX).is_file()) {
        Some(bundle) => Ok(bundle),
        None if stdout.trim().is_empty() => Err("it has no package feast".to_owned()),
        None => Err(format!("its feast has no {BUILD}")),
    }
}

/// Whom to ask, in this order: the active virtual environment, the one whose `feast` would be run, and the usual ones.
fn interpreters() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = env::split_paths(&path).collect();
    let in_path = |name: &str| folders.iter().map(|folder| folder.join(name)).find(|program| program.is_file());
    let active = env::var_os("VIRTUAL_ENV").map(|folder| PathBuf::from(folder).join("bin/python"));
    let of_feast = in_path("feast").and_then(|script| interpreter_of(&fs::read(script).ok()?));
    let mut found = Vec::new();
    for python in [active, of_feast, in_path("python3"), in_path("python")].into_iter().flatten() {
        if python.is_file() && !found.contains(&python) {
            found.push(python);
        }
    }
    found
}

/// The Python that a script says it is for. Where the path of it is too long for the first line, pip has `sh` run it.
fn interpreter_of(script: &[u8]) -> Option<PathBuf> {
    let start = String::from_utf8_lossy(&script[..script.len().min(1024)]).into_owned();
    let mut lines = start.lines();
    let first = lines.next()?.strip_prefix("#!")?.trim();
    let line = if first == "/bin/sh" { lines.next()?.strip_prefix("'''exec' ")? } else { first };
    let path = match line.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next()?,
        None => line.split(' ').next()?,
    };
    Path::new(path).file_name()?.to_str()?.starts_with("python").then(|| PathBuf::from(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    fn executable(path: &Path, text: &str) {
        use std::os::unix::fs::PermissionsExt;
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("a script");
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("it can be run");
    }

    #[test]
    fn a_script_says_which_python_it_is_for() {
        for (script, python) in [
            ("#!/opt/venv/bin/python\nimport sys", Some("/opt/venv/bin/python")),
            ("#!/opt/venv/bin/python3.11 -E\n", Some("/opt/venv/bin/python3.11")),
            ("#!/bin/sh\n'''exec' /long/bin/python \"$0\" \"$@\"\n' '''", Some("/long/bin/python")),
            ("#!/bin/sh\n'''exec' \"/with space/bin/python\" \"$0\" \"$@\"\n", Some("/with space/bin/python")),
            ("#!/bin/sh\nexec /usr/bin/other", None),
            ("#!/usr/bin/env bash\n", None),
            ("\u{7f}ELF", None),
            ("", None),
        ] {
            assert_eq!(interpreter_of(script.as_bytes()), python.map(PathBuf::from), "{script}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn the_first_that_has_the_bundle_is_taken() {
        let folder = tempfile::tempdir().expect("a folder");
        let package = folder.path().join("site/feast");
        fs::create_dir_all(package.join(BUILD)).expect("a folder");
        let [none, without, has] = ["none", "without", "has"].map(|name| folder.path().join(name).join("python"));
        executable(&none, "#!/bin/sh\necho 'No module' >&2\nexit 1\n");
        executable(&without, &format!("#!/bin/sh\necho {}\n", folder.path().display()));
        executable(&has, &format!("#!/bin/sh\necho {}\n", package.display()));
        let all = [none, without, has];

        let error = bundle_of(&all).expect_err("there is no index.html yet").to_string();
        assert!(
            error.contains("none/python: No module; ") && error.contains("has/python: its feast has no"),
            "{error}"
        );
        fs::write(package.join(BUILD).join("index.html"), "").expect("a page");
        assert_eq!(bundle_of(&all).expect("it is there"), package.join(BUILD));
        assert!(bundle_of(&[]).expect_err("nobody to ask").to_string().contains("--ui FOLDER"));
    }
}
