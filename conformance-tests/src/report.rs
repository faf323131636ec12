//! What became of tests, for programs: a file with one line of JSON for each test.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::run::Test;

/// The environment variable that names the file. It is an environment variable, and what is written is added to the file in
/// lines, because some test runners start a process for each test, and none of them passes arguments on to one suite only.
pub(crate) const REPORT: &str = "FEAST_REGISTRY_CONFORMANCE_REPORT";

/// What became of a test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It passed, in this time.
    Passed(Duration),
    /// It failed, after this time, and said why.
    Failed(Duration, String),
    /// It was not run, since the backend cannot pass it by its nature, for this reason.
    Excepted(String),
    /// It was not run, since this run does without the storage, for this reason.
    LeftOut(String),
}

/// Adds what became of a test to the file that the environment names, if it names one.
pub(crate) fn add(suite: &str, trial: &str, test: &Test, outcome: &Outcome) {
    if let Some(file) = std::env::var_os(REPORT)
        && let Err(error) = append(Path::new(&file), &line(suite, trial, test, outcome))
    {
        eprintln!("{suite}: {REPORT}={}: {error}", Path::new(&file).display());
    }
}

/// In one call, so that lines of several processes do not mix.
fn append(file: &Path, line: &str) -> io::Result<()> {
    OpenOptions::new().create(true).append(true).open(file)?.write_all(line.as_bytes())
}

fn line(suite: &str, trial: &str, test: &Test, outcome: &Outcome) -> String {
    let (word, reason, took) = match outcome {
        Outcome::Passed(took) => ("passed", None, Some(took)),
        Outcome::Failed(took, reason) => ("failed", Some(reason), Some(took)),
        Outcome::Excepted(reason) => ("excepted", Some(reason), None),
        Outcome::LeftOut(reason) => ("left out", Some(reason), None),
    };
    let line = json!({
        "suite": suite,
        "version": env!("CARGO_PKG_VERSION"),
        "test": test.name,
        "trial": trial,
        "theme": test.theme(),
        "promise": test.promise,
        "outcome": word,
        "reason": reason,
        "milliseconds": took.map(|took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX)),
    });
    format!("{line}\n")
}
