//! Test runners: run one with its output passed through as it comes, and keep the lines it closes with.
//!
//! The closing lines serve twice. They are repeated at the very end, where whoever reads a long log looks first; and
//! they tell whether tests ran at all and whether some were skipped, which an exit code alone does not.

use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, anyhow, bail};

use crate::steps::show;

/// A program that runs tests.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Runner {
    Nextest,
    CargoTest,
    Pytest,
}

/// What a run of tests came to.
pub(crate) struct Outcome {
    /// The runner's own closing lines, but for those that say that nothing ran.
    pub(crate) closing: Vec<String>,
    /// Why the run did not pass, if it did not.
    pub(crate) failure: Option<anyhow::Error>,
}

impl Runner {
    /// Runs the command, which starts this runner. `strict`: a skipped test is a failure, but for so many as `excepted` says
    /// when the run is over.
    pub(crate) fn run(
        self,
        command: &mut Command,
        strict: bool,
        excepted: impl FnOnce() -> Result<u64>,
    ) -> Result<Outcome> {
        // The runner writes to a pipe, so it must be told that there is a terminal behind it.
        if io::stdout().is_terminal() {
            match self {
                Self::Nextest | Self::CargoTest => command.env("CARGO_TERM_COLOR", "always"),
                Self::Pytest => command.arg("--color=yes"),
            };
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start `{}`", show(command)))?;
        let stdout = child.stdout.take().context("no standard output")?;
        let stderr = child.stderr.take().context("no standard error")?;
        let stderr = thread::spawn(move || self.pass_through(stderr, io::stderr()));
        let mut closing = self.pass_through(stdout, io::stdout())?;
        closing.extend(stderr.join().map_err(|_| anyhow!("the thread that copies standard error panicked"))??);
        let status = child.wait()?;

        let failure = if status.success() {
            excepted().and_then(|excepted| self.judge(&closing, strict, excepted)).err()
        } else {
            Some(anyhow!("`{}` ended with {status}", show(command)))
        };
        Ok(Outcome { closing, failure })
    }

    /// Copies what the runner writes as it comes, in the middle of a line too, and returns its closing lines.
    fn pass_through(self, from: impl Read, mut to: impl Write) -> io::Result<Vec<String>> {
        let mut from = BufReader::new(from);
        let mut closing = Vec::new();
        let mut line = Vec::new();
        loop {
            let chunk = from.fill_buf()?;
            if chunk.is_empty() {
                closing.extend(self.closing_line(&line));
                return Ok(closing);
            }
            to.write_all(chunk)?;
            to.flush()?;
            for &byte in chunk {
                if byte == b'\n' {
                    closing.extend(self.closing_line(&line));
                    line.clear();
                } else {
                    line.push(byte);
                }
            }
            let length = chunk.len();
            from.consume(length);
        }
    }

    fn closing_line(self, line: &[u8]) -> Option<String> {
        let text = without_colours(&String::from_utf8_lossy(line));
        let text = text.trim();
        self.closes_with(text).then(|| text.to_owned())
    }

    fn closes_with(self, line: &str) -> bool {
        match self {
            Self::Nextest => line.starts_with("Summary ["),
            // One per test binary. Those without tests would drown the others.
            Self::CargoTest => line.starts_with("test result:") && ran(line) > 0,
            Self::Pytest => {
                let inner = line.trim_matches(['=', ' ']);
                inner.starts_with(|first: char| first.is_ascii_digit())
                    && inner.contains(" in ")
                    && ["passed", "failed", "error", "skipped"].iter().any(|word| inner.contains(word))
            }
        }
    }

    /// Decides, for a run that its runner calls passed, whether it did.
    fn judge(self, closing: &[String], strict: bool, excepted: u64) -> Result<()> {
        // Documentation may hold no tests; nextest and pytest fail by themselves when there is nothing to run.
        if closing.is_empty() && self != Self::CargoTest {
            bail!("the tests ended without a closing line: did any run?");
        }
        let skipped: u64 = closing.iter().map(|line| count(line, "skipped") + count(line, "ignored")).sum();
        // Fewer than were excepted would mean that these are not what was skipped.
        if strict && skipped != excepted {
            bail!("{skipped} skipped, of which {excepted} are exceptions, and with CI=true nothing else may be");
        }
        Ok(())
    }
}

/// How many tests a closing line says were run.
fn ran(line: &str) -> u64 {
    ["passed", "failed", "ignored"].iter().map(|word| count(line, word)).sum()
}

/// The number before a word: 3 for `skipped` in "2 passed, 3 skipped in 0.1s".
fn count(line: &str, word: &str) -> u64 {
    let mut previous = "";
    for token in line.split_whitespace() {
        if token.trim_end_matches([',', ';']) == word {
            return previous.parse().unwrap_or(0);
        }
        previous = token;
    }
    0
}

/// The text without the escape sequences that colour it.
fn without_colours(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        if char == '\u{1b}' {
            // "ESC [ parameters letter"
            chars.by_ref().find(char::is_ascii_alphabetic);
        } else {
            plain.push(char);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEXTEST: &str = "Summary [   0.412s] 12 tests run: 12 passed, 1 skipped";
    const CARGO: &str = "test result: ok. 3 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.01s";
    const PYTEST: &str = "=================== 5 passed, 2 skipped in 75.32s (0:01:15) ====================";

    #[test]
    fn closing_lines_are_recognized() {
        assert!(Runner::Nextest.closes_with(NEXTEST));
        assert!(Runner::CargoTest.closes_with(CARGO));
        assert!(Runner::Pytest.closes_with(PYTEST));
        assert!(Runner::Pytest.closes_with("1 failed, 4 passed in 0.12s"));
        assert!(Runner::Pytest.closes_with("== 1 error in 0.12s =="));
    }

    #[test]
    fn other_lines_are_not() {
        assert!(!Runner::CargoTest.closes_with("test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured"));
        assert!(!Runner::Pytest.closes_with("=========== test session starts ==========="));
        assert!(!Runner::Pytest.closes_with("test_apply.py::test_apply PASSED [ 10%]"));
        assert!(!Runner::Pytest.closes_with("SKIPPED [1] test_apply.py:3: no server in 5 s"));
    }

    #[test]
    fn a_skipped_test_fails_a_strict_run_only() {
        for (runner, line) in [(Runner::Nextest, NEXTEST), (Runner::CargoTest, CARGO), (Runner::Pytest, PYTEST)] {
            let closing = [line.to_owned()];
            assert!(runner.judge(&closing, false, 0).is_ok());
            assert!(runner.judge(&closing, true, 0).is_err());
        }
        let clean = ["Summary [   0.412s] 12 tests run: 12 passed, 0 skipped".to_owned()];
        assert!(Runner::Nextest.judge(&clean, true, 0).is_ok());
    }

    #[test]
    fn exactly_what_is_excepted_may_be_skipped() {
        let closing = [CARGO.to_owned(), CARGO.to_owned()];
        for (excepted, is_ok) in [(4, true), (3, false), (5, false)] {
            assert_eq!(Runner::CargoTest.judge(&closing, true, excepted).is_ok(), is_ok, "{excepted}");
        }
    }

    #[test]
    fn a_run_that_says_nothing_is_no_pass() {
        assert!(Runner::Nextest.judge(&[], false, 0).is_err());
        assert!(Runner::Pytest.judge(&[], false, 0).is_err());
        assert!(Runner::CargoTest.judge(&[], false, 0).is_ok());
    }

    #[test]
    fn output_passes_through_unchanged() {
        let output = b"\x1b[32;1m   Summary\x1b[0m [   0.4s] 1 test run: \x1b[1m1\x1b[0m passed, 0 skipped\nlast \xff";
        let mut copy = Vec::new();
        let closing = Runner::Nextest.pass_through(&output[..], &mut copy).unwrap();
        assert_eq!(copy, output);
        assert_eq!(closing, ["Summary [   0.4s] 1 test run: 1 passed, 0 skipped"]);
    }
}
