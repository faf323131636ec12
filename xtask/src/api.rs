//! `cargo api`: a listing of the public API that backends are written against. It is committed, so that a change is seen in
//! review.
//!
//! The listing is made from rustdoc's JSON. That format is not stable yet: it is asked for by the switch that has a stable
//! compiler take unstable options, and read by the version of `public-api` that knows the format of this toolchain.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use public_api::Builder;

use crate::Project;
use crate::steps::run as run_command;

/// The libraries that others write backends against, each with its folder.
const LIBRARIES: [(&str, &str); 2] = [("feast-registry-core", "registry-core"), ("feast-registry-sql", "registry-sql")];

/// Generated from .proto files: the listing of a message is the .proto file.
const GENERATED: &str = "feast_registry_core::proto";

/// Writes the listings, or with `check` fails when what is committed is not what they would be.
pub(crate) fn run(project: &Project, check: bool) -> Result<()> {
    let mut stale = Vec::new();
    for (package, folder) in LIBRARIES {
        let listing = listing(project, package)?;
        let file = project.root.join(folder).join("public-api.txt");
        if check {
            let committed = fs::read_to_string(&file).unwrap_or_default();
            if let Some(difference) = difference(&committed, &listing) {
                stale.push(format!("{}\n{difference}", shown(&project.root, &file)));
            }
        } else {
            fs::write(&file, listing).with_context(|| format!("cannot write {}", file.display()))?;
        }
    }
    if !stale.is_empty() {
        bail!("the public API is not what is committed: run `cargo api` and commit the result\n{}", stale.join("\n"));
    }
    Ok(())
}

fn listing(project: &Project, package: &str) -> Result<String> {
    let rustdoc = format!("rustdoc --quiet --package {package} --lib");
    let unstable = ["--", "-Z", "unstable-options", "--output-format", "json", "--cap-lints", "allow"];
    let mut rustdoc = project.cargo(&rustdoc);
    // In a folder of its own: what else is built would be built anew for the switch, and once more without it.
    rustdoc.args(unstable).env("RUSTC_BOOTSTRAP", "1").env("CARGO_TARGET_DIR", target(project));
    run_command(&mut rustdoc)?;
    let json = json(project, package);
    let api = Builder::from_rustdoc_json(&json)
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .omit_auto_derived_impls(true)
        .build()
        .with_context(|| format!("{} is not of the format that Rust 1.95 writes", json.display()))?;
    let mut text = String::new();
    for item in api.items() {
        let line = item.to_string();
        if !line.contains(&format!("{GENERATED}::")) {
            writeln!(text, "{line}")?;
        }
    }
    Ok(text)
}

fn target(project: &Project) -> PathBuf {
    project.root.join("target/api")
}

fn json(project: &Project, package: &str) -> PathBuf {
    target(project).join("doc").join(format!("{}.json", package.replace('-', "_")))
}

fn shown(root: &Path, file: &Path) -> String {
    file.strip_prefix(root).unwrap_or(file).display().to_string()
}

/// The lines that only one of the two has.
fn difference(committed: &str, now: &str) -> Option<String> {
    let (old, new): (BTreeSet<&str>, BTreeSet<&str>) = (committed.lines().collect(), now.lines().collect());
    let gone = old.difference(&new).map(|line| format!("- {line}"));
    let come = new.difference(&old).map(|line| format!("+ {line}"));
    let lines: Vec<String> = gone.chain(come).collect();
    (committed != now).then(|| lines.join("\n"))
}
