//! Says of which commit the program is, for `feast-registry --version`.

use std::path::Path;
use std::process::Command;
use std::{env, fs};

/// The commit, where there is no repository, as in a container that builds from an archive.
const COMMIT: &str = "FEAST_REGISTRY_COMMIT";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={COMMIT}");
    let build = match env::var("PROFILE").as_deref() {
        Ok("release") => {
            let commit = env::var(COMMIT).ok().filter(|commit| !commit.is_empty());
            commit.or_else(of_package).or_else(of_repository).unwrap_or_else(|| "commit unknown".to_owned())
        }
        // While somebody works on it, each commit would have it be built anew.
        _ => "development build".to_owned(),
    };
    println!("cargo::rustc-env=FEAST_REGISTRY_BUILD={build}");
}

/// What cargo notes in a package that is published.
fn of_package() -> Option<String> {
    let text = fs::read_to_string(".cargo_vcs_info.json").ok()?;
    let (_, rest) = text.split_once("\"sha1\":")?;
    rest.split('"').nth(1).and_then(|hash| hash.get(..12)).map(str::to_owned)
}

/// The commit that is checked out, and its day.
fn of_repository() -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
        String::from_utf8(output.stdout).ok().map(|text| text.trim().to_owned())
    };
    // The repository that this file belongs to, and not one around a package that was unpacked.
    git(&["ls-files", "--error-unmatch", "build.rs"])?;
    for file in ["HEAD", "logs/HEAD"] {
        let path = git(&["rev-parse", "--git-path", file])?;
        if Path::new(&path).exists() {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    git(&["log", "-1", "--format=%h %cs", "--abbrev=12"])
}
