//! `cargo xtask package`: the crates as they are published, each a package that stands by itself.

use anyhow::{Result, bail, ensure};

use crate::Project;
use crate::lint::{Package, packages};
use crate::steps::{Steps, read};

/// What every package must have, whatever else.
const NEEDED: [&str; 3] = ["Cargo.toml", "LICENSE", "README.md"];

pub(crate) fn run(project: &Project) -> Result<()> {
    let mut steps = Steps::new("package");
    let packages = packages(project)?;
    steps.step("packages", || check(project, &packages));
    // In the order of their dependencies, each on those that were packaged before it. A dirty work tree is the business of
    // the one who publishes: without `--dry-run`, cargo refuses it.
    steps.run("packages, built", &mut project.cargo("publish --workspace --dry-run --locked --allow-dirty"));
    steps.finish()
}

/// Looks at what would be in each package that is published, without building it.
pub(crate) fn check(project: &Project, packages: &[Package]) -> Result<()> {
    let mut wrong = Vec::new();
    for Package { name, .. } in packages.iter().filter(|package| package.is_published) {
        let list = read(&mut project.cargo(&format!("package --list --allow-dirty --quiet --package {name}")))?;
        let problems = problems(&list);
        if !problems.is_empty() {
            wrong.push(format!("{name} {}", problems.join(", ")));
        }
    }
    ensure!(!packages.is_empty(), "the workspace has no packages");
    if !wrong.is_empty() {
        bail!("{}", wrong.join("; "));
    }
    Ok(())
}

/// What is wrong with a list of files.
fn problems(list: &str) -> Vec<String> {
    let files: Vec<&str> = list.lines().collect();
    let missing = NEEDED.iter().filter(|needed| !files.contains(needed)).map(|needed| format!("lacks {needed}"));
    // What else lies in a crate's folder is ours alone.
    let is_ours = |file: &&&str| file.starts_with("public-api") || file.starts_with("tests/databases");
    let needless = files.iter().filter(is_ours).map(|file| format!("has {file}"));
    missing.chain(needless).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_package_lacks_or_has_too_much_is_told() {
        let whole = "Cargo.toml\nLICENSE\nREADME.md\nsrc/lib.rs";
        assert!(problems(whole).is_empty());
        assert_eq!(problems(&whole.replace("LICENSE\n", "")), ["lacks LICENSE"]);
        assert_eq!(problems(&format!("{whole}\npublic-api.txt")), ["has public-api.txt"]);
    }
}
