//! What all parts of the benchmark share: the two servers, the registries they start from, and how long to measure.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use tempfile::TempDir;
use tokio::process::Command;

use crate::Arguments;
use crate::machine;
use crate::sample::Sample;
use crate::server::{Contender, Server};

/// Feature views in the registry that most is measured on.
pub(crate) const VIEWS: usize = 200;

/// Feast's side, which any interpreter that has Feast can run.
const FEAST_SIDE: &str = include_str!("../feast_side.py");

/// Feast's REST server, as the interop tests start it.
const FEAST_REST: &str = include_str!("../../interop/feast_rest.py");

/// See the module's documentation.
pub(crate) struct Setup {
    pub(crate) feast: Contender,
    pub(crate) ours: Contender,
    /// How often each cell is measured.
    pub(crate) rounds: u32,
    /// How long a cell is measured.
    pub(crate) cell: Duration,
    pub(crate) is_quick: bool,
    /// The objects of the registry that most is measured on.
    pub(crate) sample: Arc<Sample>,
    /// The sizes of the registries that there are, in feature views.
    pub(crate) sizes: Vec<usize>,
    /// In words: the machine and the versions.
    pub(crate) facts: Vec<String>,
    folder: TempDir,
}

impl Setup {
    /// Finds out about the machine and has Feast fill the registries; of other sizes too if those are wanted.
    pub(crate) async fn make(arguments: &Arguments, with_sizes: bool) -> Result<Self> {
        let Arguments { python, server, folder, quick, rounds, seconds, .. } = arguments;
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let folder = tempfile::Builder::new().prefix("run-").tempdir_in(folder)?;
        let script = folder.path().join("feast_side.py");
        std::fs::write(&script, FEAST_SIDE)?;
        let rest_script = folder.path().join("feast_rest.py");
        std::fs::write(&rest_script, FEAST_REST)?;
        let feast = Contender::Feast { python: absolute(python)?, script, rest_script };
        let ours = Contender::Ours { binary: absolute(server)? };

        let mut facts = machine::facts(folder.path())?;
        facts.push(read(feast.command("versions")).await?);
        let version = read(ours.command("--version")).await?;
        // What is compiled in follows.
        let version = version.lines().next().unwrap_or_default();
        facts.push(format!("{version}, SQLite {}", rusqlite::version()));
        facts.iter().for_each(|fact| eprintln!("{fact}"));

        let sizes = match (with_sizes, quick) {
            (false, _) => vec![VIEWS],
            (true, true) => vec![20, VIEWS],
            (true, false) => vec![20, VIEWS, 2000],
        };
        eprintln!("Feast fills registries of {sizes:?} feature views");
        let mut seed = feast.command("seed");
        for &views in &sizes {
            let mut target = seed_file(folder.path(), views).into_os_string();
            target.push(format!(":{views}"));
            seed.arg(target);
        }
        read(seed).await?;
        let sample = Sample::read(&seed_file(folder.path(), VIEWS))?;
        ensure!(sample.views.len() == VIEWS, "Feast stored {} of {VIEWS} feature views", sample.views.len());

        let seconds = seconds.unwrap_or(if *quick { 0.5 } else { 2.0 });
        Ok(Self {
            feast,
            ours,
            rounds: rounds.unwrap_or(if *quick { 1 } else { 3 }),
            cell: Duration::try_from_secs_f64(seconds).context("--seconds")?,
            is_quick: *quick,
            sample: Arc::new(sample),
            sizes,
            facts,
            folder,
        })
    }

    /// A new copy of the registry with so many feature views; with none, a file yet to be made.
    pub(crate) fn registry(&self, views: usize) -> Result<PathBuf> {
        let file = self.new_folder()?.join("registry.db");
        if views > 0 {
            std::fs::copy(seed_file(self.folder.path(), views), &file)?;
        }
        Ok(file)
    }

    /// Starts a server on a new copy of the registry with so many feature views.
    pub(crate) async fn start(&self, contender: &Contender, views: usize) -> Result<Server> {
        let file = self.registry(views)?;
        let folder = file.parent().context("a registry file without a folder")?;
        contender.start(folder, &format!("sqlite:///{}", file.display())).await
    }

    /// Starts both servers, each on a new copy of the registry with so many feature views: Feast's, and ours.
    pub(crate) async fn start_both(&self, views: usize) -> Result<[Server; 2]> {
        Ok([self.start(&self.feast, views).await?, self.start(&self.ours, views).await?])
    }

    /// Starts both REST servers, each on a new copy of the registry with so many feature views: Feast's, and ours.
    pub(crate) async fn start_both_rest(&self, views: usize) -> Result<[Server; 2]> {
        let mut servers = Vec::new();
        for contender in [&self.feast, &self.ours] {
            let file = self.registry(views)?;
            let folder = file.parent().context("a registry file without a folder")?;
            servers.push(contender.start_rest(folder, &format!("sqlite:///{}", file.display())).await?);
        }
        servers.try_into().map_err(|_| anyhow!("not two servers"))
    }

    /// Starts both servers, each on the registry of a URL.
    pub(crate) async fn start_both_at(&self, feast: &str, ours: &str) -> Result<[Server; 2]> {
        let feast = self.feast.start(&self.new_folder()?, feast).await?;
        Ok([feast, self.ours.start(&self.new_folder()?, ours).await?])
    }

    fn new_folder(&self) -> Result<PathBuf> {
        Ok(tempfile::Builder::new().tempdir_in(self.folder.path())?.keep())
    }
}

/// The order of two contenders in a round: each is the first in half of the rounds.
pub(crate) fn turns(round: u32) -> [usize; 2] {
    if round.is_multiple_of(2) { [0, 1] } else { [1, 0] }
}

fn seed_file(folder: &Path, views: usize) -> PathBuf {
    folder.join(format!("seed-{views}.db"))
}

/// Symbolic links stay: an environment's interpreter is one, and knows its environment by it.
fn absolute(path: &Path) -> Result<PathBuf> {
    ensure!(path.is_file(), "there is no file {}", path.display());
    Ok(std::path::absolute(path)?)
}

/// What a command writes to its standard output.
pub(crate) async fn read(mut command: Command) -> Result<String> {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await;
    let output = output.with_context(|| format!("cannot start {program}"))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} ended with {}: {}", output.status, stderr.trim());
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
