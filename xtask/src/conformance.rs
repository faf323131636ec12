//! What the conformance suites report of themselves: which tests of theirs are exceptions, which test runners only call skipped.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

/// The environment variable that tells the suites where to report to.
pub(crate) const VARIABLE: &str = "FEAST_REGISTRY_CONFORMANCE_REPORT";

/// The reports of all suites of a run.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// How many tests of each suite have each outcome.
    suites: BTreeMap<String, BTreeMap<String, u64>>,
    /// The tests, as test runners know them, that are exceptions.
    excepted: BTreeSet<String>,
    /// How many tests of a theme of a suite are exceptions for which reason.
    reasons: BTreeMap<(String, String, String), u64>,
}

impl Report {
    /// Reads the file, which no suite has made if none ran.
    pub(crate) fn read(file: &Path) -> Result<Self> {
        match fs::read_to_string(file) {
            Ok(text) => Self::parse(&text).with_context(|| format!("in {}", file.display())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
        }
    }

    fn parse(text: &str) -> Result<Self> {
        // A test runner that lists the tests twice reports what is excepted twice.
        let mut outcomes = BTreeMap::new();
        for line in text.lines() {
            let line: Value = serde_json::from_str(line).with_context(|| format!("`{line}`"))?;
            let field =
                |name: &str| line[name].as_str().map(str::to_owned).with_context(|| format!("`{line}`: {name}"));
            let (suite, test) = (field("suite")?, field("test")?);
            let reason = line["reason"].as_str().unwrap_or_default().to_owned();
            outcomes.insert((suite, test), (field("trial")?, field("outcome")?, reason));
        }
        let mut report = Self::default();
        for ((suite, test), (trial, outcome, reason)) in outcomes {
            // What is part of a larger test is nothing that a test runner skips.
            if outcome == "excepted" && trial == format!("{suite}::{test}") {
                report.excepted.insert(trial);
            }
            if outcome == "excepted" {
                let theme = test.split("::").next().unwrap_or_default().to_owned();
                *report.reasons.entry((suite.clone(), theme, reason)).or_default() += 1;
            }
            *report.suites.entry(suite).or_default().entry(outcome).or_default() += 1;
        }
        Ok(report)
    }

    /// How many tests that a test runner calls skipped are exceptions. What a suite was left out for is none: that nobody has
    /// run it proves nothing.
    pub(crate) fn excepted(&self) -> u64 {
        self.excepted.len() as u64
    }

    /// Lines for the end: what is excepted and why, then how much of each suite; none if no suite ran.
    pub(crate) fn closing(&self) -> Vec<String> {
        let in_words = |(suite, counts): (&String, &BTreeMap<String, u64>)| {
            let mut counts: Vec<_> = counts.iter().map(|(outcome, count)| format!("{count} {outcome}")).collect();
            counts.sort_by_key(|count| !count.ends_with(" passed"));
            format!("{suite} {}", counts.join(" "))
        };
        let suites: Vec<String> = self.suites.iter().map(in_words).collect();
        let excepted: u64 = self.suites.values().filter_map(|counts| counts.get("excepted")).sum();
        let reason = |((suite, theme, reason), count): (&(String, String, String), &u64)| {
            let tests = if *count == 1 { "test" } else { "tests" };
            format!("conformance: {suite} excepts {count} {tests} of {theme}: {reason}")
        };
        let mut closing: Vec<String> = self.reasons.iter().map(reason).collect();
        if !suites.is_empty() {
            closing.push(format!("conformance: {excepted} tests excepted: {}", suites.join(", ")));
        }
        closing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(suite: &str, test: &str, trial: &str, outcome: &str) -> String {
        let (who, what) = (format!(r#""suite":"{suite}","test":"{test}""#), format!(r#""trial":"{trial}""#));
        format!("{{{who},{what},\"outcome\":\"{outcome}\",\"reason\":\"why\"}}\n")
    }

    #[test]
    fn each_test_that_is_excepted_counts_once() {
        let text = line("memory", "reads::a", "memory::reads::a", "passed")
            + &line("memory", "network::b", "memory::network::b", "excepted")
            + &line("memory", "network::b", "memory::network::b", "excepted")
            + &line("azure", "network::b", "azure::suite", "excepted")
            + &line("mysql", "reads::a", "mysql::reads::a", "left out");
        let report = Report::parse(&text).unwrap();
        assert_eq!(report.excepted(), 1);
        let expected = [
            "conformance: azure excepts 1 test of network: why",
            "conformance: memory excepts 1 test of network: why",
            "conformance: 2 tests excepted: azure 1 excepted, memory 1 passed 1 excepted, mysql 1 left out",
        ];
        assert_eq!(report.closing(), expected);
    }

    #[test]
    fn a_run_without_suites_has_nothing_excepted() {
        let report = Report::read(Path::new("there is no such file")).unwrap();
        assert_eq!((report.excepted(), report.closing()), (0, vec![]));
        assert!(Report::parse("{}\n").is_err());
    }
}
