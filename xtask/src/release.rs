//! `cargo xtask release-check` and `release-notes`: what must agree before a release, and what its page says.

use std::fs;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::Project;
use crate::steps::read;

/// That of the workspace.
const VERSION: &str = env!("CARGO_PKG_VERSION");

const CHANGELOG: &str = "CHANGELOG.md";
/// Files with the version, and what stands before it there.
const ELSEWHERE: [(&str, &str); 3] = [
    ("deploy/charts/feast-registry/Chart.yaml", "version:"),
    ("deploy/charts/feast-registry/Chart.yaml", "appVersion:"),
    ("deploy/image/feature-server.Dockerfile", "ARG VERSION="),
];
const WHEEL: &str = "python/pyproject.toml";

/// The section of what no version has yet.
const UNRELEASED: &str = "Unreleased";

/// Prints the notes of a version.
pub(crate) fn notes(project: &Project, version: &str) -> Result<()> {
    let changelog = text(project, CHANGELOG)?;
    let reference = if version == UNRELEASED { "HEAD".to_owned() } else { format!("v{version}") };
    let base = format!("{}/blob/{reference}/", env!("CARGO_PKG_REPOSITORY"));
    println!("{}", page(&section(&changelog, version)?, &base));
    Ok(())
}

/// Fails unless everything that has a version has the same one; with a tag, unless that is the tag of this version and there are notes.
pub(crate) fn check(project: &Project, tag: Option<&str>) -> Result<()> {
    let metadata = read(&mut project.cargo("metadata --no-deps --format-version 1 --locked"))?;
    let mut wrong = crates(VERSION, &serde_json::from_str(&metadata)?);
    for (path, key) in ELSEWHERE {
        wrong.extend(elsewhere(VERSION, key, &text(project, path)?).map(|found| format!("{path} has {found}")));
    }
    wrong.extend(wheel(VERSION, &text(project, WHEEL)?));
    if let Some(tag) = tag {
        if tag != format!("v{VERSION}") {
            wrong.push(format!("the tag is {tag}"));
        }
        wrong.extend(section(&text(project, CHANGELOG)?, VERSION).err().map(|error| error.to_string()));
    }
    if !wrong.is_empty() {
        bail!("the workspace has version {VERSION}, but {}", wrong.join("; "));
    }
    Ok(())
}

fn text(project: &Project, path: &str) -> Result<String> {
    fs::read_to_string(project.root.join(path)).with_context(|| format!("cannot read {path}"))
}

/// What is wrong with the crates that are published, and with what crates of the workspace ask of each other. Cargo accepts 0.1.0 there
/// when the version is 0.1.1, and a user may then get crates that were never tested together.
fn crates(version: &str, metadata: &Value) -> Vec<String> {
    let items = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut wrong = Vec::new();
    for package in items(&metadata["packages"]) {
        let name = package["name"].as_str().unwrap_or_default();
        // Of a package that is not published, `publish` is the empty list of registries.
        if package["publish"].is_null() && package["version"] != version {
            wrong.push(format!("{name} has {}", package["version"]));
        }
        for dependency in items(&package["dependencies"]) {
            let asked = &dependency["req"];
            if dependency["path"].is_string() && *asked != format!("^{version}") && asked != "*" {
                wrong.push(format!("{name} asks for {} {asked}", dependency["name"]));
            }
        }
    }
    wrong
}

/// What a file has instead of the version, on the line that begins with this key.
fn elsewhere(version: &str, key: &str, text: &str) -> Option<String> {
    let value = text.lines().find_map(|line| line.strip_prefix(key)).map(|value| value.trim().trim_matches('"'));
    (value != Some(version)).then(|| format!("{key} {}", value.unwrap_or("nowhere")))
}

/// What is wrong with the version of the wheel, which maturin takes from the crate if the project lets it.
fn wheel(version: &str, project: &str) -> Option<String> {
    let table = project.lines().skip_while(|line| *line != "[project]").skip(1);
    let table: Vec<&str> = table.take_while(|line| !line.starts_with('[')).collect();
    let value = |key: &str| table.iter().find_map(|line| line.strip_prefix(key)?.trim_start().strip_prefix('='));
    match (value("version"), value("dynamic")) {
        (Some(own), _) if own.trim().trim_matches('"') == version => None,
        (None, Some(dynamic)) if dynamic.contains("\"version\"") => None,
        (own, _) => Some(format!("{WHEEL} has {}", own.unwrap_or("none").trim())),
    }
}

/// The lines of the changelog under the heading of a version.
fn section<'a>(changelog: &'a str, version: &str) -> Result<Vec<&'a str>> {
    let heading = format!("## [{version}]");
    let mut lines = changelog.lines().skip_while(|line| !line.starts_with(&heading));
    ensure!(lines.next().is_some(), "{CHANGELOG} has no section {heading}");
    let section: Vec<&str> = lines.take_while(|line| !line.starts_with("## ")).collect();
    let is_text = |line: &&str| !line.is_empty() && !line.starts_with('#');
    ensure!(section.iter().any(is_text), "the section {heading} of {CHANGELOG} is empty");
    Ok(section)
}

/// Markdown for the page of a release. There each end of a line is shown as one, and links that are relative lead nowhere.
fn page(section: &[&str], base: &str) -> String {
    let mut page = String::new();
    let mut is_open = false;
    for line in section {
        if is_open && !line.is_empty() && !line.trim_start().starts_with("- ") {
            page.push(' ');
            page.push_str(line.trim_start());
        } else {
            page.push('\n');
            page.push_str(line);
        }
        is_open = !line.is_empty() && !line.starts_with('#');
    }
    let mut parts = page.trim().split("](");
    let mut linked = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let is_relative = !part.starts_with("https://") && !part.starts_with('#');
        linked.push_str("](");
        linked.push_str(if is_relative { base } else { "" });
        linked.push_str(part);
    }
    linked
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHANGES: &str = "# Changelog\n\n## [Unreleased]\n\n## [0.2.0] - 2026-02-01\n\n### Added\n\n- One thing\n  in two lines: [how](docs/how.md).\n- \
                           Another.\n\n## [0.1.0] - 2026-01-01\n\n- [All](https://example.org) of it.\n";

    #[test]
    fn notes_are_the_section_of_a_version() {
        let notes = |version| page(&section(CHANGES, version).unwrap(), "base/");
        assert_eq!(notes("0.2.0"), "### Added\n\n- One thing in two lines: [how](base/docs/how.md).\n- Another.");
        assert_eq!(notes("0.1.0"), "- [All](https://example.org) of it.");
    }

    #[test]
    fn a_version_without_notes_is_an_error() {
        let error = |version| section(CHANGES, version).unwrap_err().to_string();
        assert_eq!(error("0.3.0"), "CHANGELOG.md has no section ## [0.3.0]");
        assert_eq!(error("Unreleased"), "the section ## [Unreleased] of CHANGELOG.md is empty");
        assert!(section("## [1.0.0]\n\n### Added\n", "1.0.0").is_err(), "headings alone say nothing");
        assert!(section("## [1.0.0-rc.1]\n\n- Text.\n", "1.0.0").is_err(), "that is another version");
    }

    #[test]
    fn crates_that_disagree_are_named() {
        let packages = |version: &str, asked: &str| {
            serde_json::json!({"packages": [
                {"name": "core", "version": version, "publish": null, "dependencies": [{"name": "serde", "req": "^1"}]},
                {"name": "template", "version": "9.0.0", "publish": [], "dependencies": [
                    {"name": "core", "req": asked, "path": "/core"},
                    {"name": "other", "req": "*", "path": "/other"},
                ]},
            ]})
        };
        assert!(crates("0.1.1", &packages("0.1.1", "^0.1.1")).is_empty());
        let wrong = crates("0.1.1", &packages("0.1.0", "^0.1.0"));
        assert_eq!(wrong, ["core has \"0.1.0\"", "template asks for \"core\" \"^0.1.0\""]);
    }

    #[test]
    fn a_version_elsewhere_is_found_by_its_key() {
        let text = "dependencies:\n  - version: 3.0.0\nversion: 0.1.0\nappVersion: \"0.1.0\"\n";
        assert_eq!(elsewhere("0.1.0", "version:", text), None);
        assert_eq!(elsewhere("0.1.0", "appVersion:", text), None);
        assert_eq!(elsewhere("0.2.0", "version:", text).as_deref(), Some("version: 0.1.0"));
        assert_eq!(elsewhere("0.1.0", "ARG VERSION=", text).as_deref(), Some("ARG VERSION= nowhere"));
    }

    #[test]
    fn a_wheel_has_the_version_of_its_crate_or_the_same() {
        let is_right = |line: &str| wheel("0.1.0", &format!("[project]\n{line}\n[tool]\nversion = \"3\"\n")).is_none();
        assert!(is_right("dynamic = [\"version\"]") && is_right("version = \"0.1.0\""));
        assert!(
            !is_right("version = \"0.1.1\"") && !is_right("name = \"feast-registry\"") && !is_right("dynamic = []")
        );
    }
}
