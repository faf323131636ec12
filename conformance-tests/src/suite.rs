//! The suite as a program: what `main` of a test with `harness = false` calls.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, FormatSetting, Trial};

use crate::factory::Factory;
use crate::list::PLAIN;
use crate::report::{self, Outcome};
use crate::run::{Test, check_exceptions, exception_to, runtime, unproven};
use crate::worker;

/// How long it may take to look for the reason of a failure.
const SEARCH_LIMIT: Duration = Duration::from_secs(30);

/// What a test runner takes for a failure of tests.
const FAILED: u8 = 101;

/// The tests, all of them, on the storages of one factory.
pub struct Suite {
    name: Arc<str>,
    factory: Arc<dyn Factory>,
    left_out: Option<String>,
    is_one_test: bool,
}

impl Suite {
    /// The tests on what this factory makes. The name is in the names of the tests, `name::theme::test`, and in reports; the
    /// suites of one program have different ones.
    pub fn new(name: impl Into<String>, factory: impl Factory) -> Self {
        Self { name: name.into().into(), factory: Arc::new(factory), left_out: None, is_one_test: false }
    }

    /// The same, but if there is a reason (a server that is not to be had), then no test is run. That is told of each test, and
    /// is no exception: nothing is known of the backend.
    #[must_use]
    pub fn left_out(mut self, reason: Option<String>) -> Self {
        self.left_out = reason;
        self
    }

    /// The same as a single test, `name::suite`, which runs one after the other: for storages whose server takes long to start,
    /// since nextest starts a process for each test. Reports still have a line for each.
    #[must_use]
    pub fn as_one_test(mut self) -> Self {
        self.is_one_test = true;
        self
    }

    /// Why a test is not run, if it is not.
    fn not_run(&self, test: &Test) -> Option<Outcome> {
        if let Some(reason) = &self.left_out {
            return Some(Outcome::LeftOut(reason.clone()));
        }
        exception_to(&*self.factory, test).map(|exception| Outcome::Excepted(exception.reason))
    }
}

/// Runs suites as `cargo test` and `cargo nextest` expect it of a test program, with the arguments of this process: filters,
/// `--list`, `--exact`, `--ignored` and the like (`--help` tells). Also what a process does that tests have started as a worker.
///
/// Exceptions are ignored tests; `--ignored` runs them. The last lines say how many tests passed, failed and were excepted, and
/// of each exception the reason and the promise that stays unproven. If the environment variable
/// `FEAST_REGISTRY_CONFORMANCE_REPORT` names a file, a line of JSON for each test is added to it: `suite`, `version` (of this
/// crate), `test`, `trial` (the name that the test runner knows), `theme`, `promise`, `outcome` (`passed`, `failed`,
/// `excepted`, `left out`), `reason` and `milliseconds`. The file is only added to, and whoever lists what is ignored adds the
/// exceptions, as nextest does: remove it before a run, and take the last line of a test.
pub fn run(suites: impl IntoIterator<Item = Suite>) -> ExitCode {
    let suites: Vec<Arc<Running>> = suites.into_iter().map(Running::new).map(Arc::new).collect();
    if let Some(name) = worker::suite_of_worker() {
        match suites.iter().find(|running| *running.suite.name == *name) {
            Some(running) => worker::work(&*running.suite.factory),
            None => worker::fail(format!("this program has no suite `{name}`"), 2),
        }
    }
    if let Err(error) = check(&suites) {
        eprintln!("{error}");
        return ExitCode::from(FAILED);
    }
    let arguments = Arguments::from_args();
    let trials: Vec<Trial> = suites.iter().flat_map(trials).collect();
    let selected = |running: &Running, test: &Test| {
        trials.iter().any(|trial| trial.name() == running.trial_of(test) && !arguments.is_filtered_out(trial))
    };
    // What is ignored is never started, so it is told of here. nextest starts nothing but single tests, with `--exact`; it lists
    // what is ignored before.
    let is_run = !arguments.list && !arguments.ignored && !arguments.include_ignored;
    if is_run || arguments.list && arguments.ignored {
        for running in &suites {
            for test in crate::tests().into_iter().filter(|test| selected(running, test)) {
                if let Some(outcome) = running.suite.not_run(&test) {
                    running.became(&test, outcome);
                }
            }
        }
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    if !arguments.list {
        let closing: String = suites.iter().map(|running| running.closing()).collect();
        // Programs read the other format from the standard output.
        let is_json = matches!(arguments.format, Some(FormatSetting::Json));
        let written = if is_json {
            io::stderr().write_all(closing.as_bytes())
        } else {
            io::stdout().write_all(closing.as_bytes())
        };
        if written.is_err() {
            return ExitCode::from(FAILED);
        }
    }
    conclusion.exit_code()
}

/// What is wrong with the suites, if anything is.
fn check(suites: &[Arc<Running>]) -> Result<(), String> {
    for (index, Running { suite, .. }) in suites.iter().map(|running| &**running).enumerate() {
        let is_plain = |char: char| char.is_ascii_alphanumeric() || char == '_' || char == '-';
        if suite.name.is_empty() || !suite.name.chars().all(is_plain) {
            return Err(format!("`{}` is no name for a suite: letters, digits, `_` and `-` are", suite.name));
        }
        if suites[..index].iter().any(|other| other.suite.name == suite.name) {
            return Err(format!("two suites have the name `{}`", suite.name));
        }
        check_exceptions(&*suite.factory).map_err(|error| format!("{}: {error}", suite.name))?;
    }
    Ok(())
}

/// A suite, and what has become of its tests.
struct Running {
    suite: Suite,
    outcomes: Mutex<Vec<(Test, Outcome)>>,
    /// The plainest test that fails, once somebody has looked for it.
    broken: OnceLock<Option<&'static str>>,
}

impl Running {
    fn new(suite: Suite) -> Self {
        Self { suite, outcomes: Mutex::default(), broken: OnceLock::new() }
    }

    /// The name of the trial that runs a test.
    fn trial_of(&self, test: &Test) -> String {
        let of_suite = if self.suite.is_one_test { "suite" } else { test.name };
        format!("{}::{of_suite}", self.suite.name)
    }

    fn became(&self, test: &Test, outcome: Outcome) {
        report::add(&self.suite.name, &self.trial_of(test), test, &outcome);
        self.outcomes.lock().unwrap_or_else(PoisonError::into_inner).push((*test, outcome));
    }

    fn run(&self, test: &Test) -> Result<(), Failed> {
        if let Some(reason) = &self.suite.left_out {
            return Err(reason.into());
        }
        let began = Instant::now();
        let outcome = runtime().block_on(test.run_in(&self.suite.name, Arc::clone(&self.suite.factory), Duration::MAX));
        let took = began.elapsed();
        let Err(mut text) = outcome else {
            self.became(test, Outcome::Passed(took));
            return Ok(());
        };
        if let Some(broken) = self.beneath(test) {
            text.push_str(&format!("\nthis fails because `{broken}` fails, on which it rests: see there first"));
        }
        self.became(test, Outcome::Failed(took, text.clone()));
        Err(text.into())
    }

    fn run_all(&self) -> Result<(), Failed> {
        let tests = crate::tests().into_iter().filter(|test| self.suite.not_run(test).is_none());
        let failed: Vec<String> = tests
            .filter_map(|test| self.run(&test).err().map(|failed| (test, failed)))
            .map(|(test, failed)| format!("{}: {}", test.name, failed.message().unwrap_or_default()))
            .collect();
        if failed.is_empty() { Ok(()) } else { Err(failed.join("\n\n").into()) }
    }

    /// The plainest test that fails, if it comes before this one.
    fn beneath(&self, test: &Test) -> Option<&'static str> {
        let broken = (*self.broken.get_or_init(|| self.search()))?;
        let tests = crate::tests();
        let place = |name: &str| tests.iter().position(|test| test.name == name);
        (place(broken) < place(test.name)).then_some(broken)
    }

    /// Runs the tests of the plain themes, until one of them fails or it takes too long.
    fn search(&self) -> Option<&'static str> {
        let began = Instant::now();
        let runs = |test: &Test| PLAIN.contains(&test.theme()) && self.suite.not_run(test).is_none();
        crate::tests().into_iter().filter(runs).find_map(|test| {
            let left = SEARCH_LIMIT.checked_sub(began.elapsed())?;
            let run = test.run_in(&self.suite.name, Arc::clone(&self.suite.factory), left);
            // What had to be broken off proves nothing.
            (runtime().block_on(run).is_err() && began.elapsed() < SEARCH_LIMIT).then_some(test.name)
        })
    }

    /// The closing lines.
    fn closing(&self) -> String {
        let outcomes = self.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        let count = |is: fn(&Outcome) -> bool| outcomes.iter().filter(|(_, outcome)| is(outcome)).count();
        let name = &self.suite.name;
        let mut text = String::new();
        for (test, outcome) in &*outcomes {
            if let Outcome::Excepted(reason) = outcome {
                text.push_str(&format!("{name}: excepted {}\n", unproven(test, reason)));
            }
        }
        let left_out = count(|outcome| matches!(outcome, Outcome::LeftOut(_)));
        let passed = count(|outcome| matches!(outcome, Outcome::Passed(_)));
        let failed = count(|outcome| matches!(outcome, Outcome::Failed(..)));
        let excepted = count(|outcome| matches!(outcome, Outcome::Excepted(_)));
        text.push_str(&format!("{name}: {passed} passed, {failed} failed, {excepted} excepted"));
        if let Some(reason) = self.suite.left_out.as_ref().filter(|_| left_out > 0) {
            text.push_str(&format!(", {left_out} LEFT OUT: {reason}"));
        }
        text.push('\n');
        text
    }
}

/// The tests of a suite as trials. Those that are not run are ignored.
fn trials(running: &Arc<Running>) -> Vec<Trial> {
    if running.suite.is_one_test {
        let is_ignored = running.suite.left_out.is_some();
        let (name, running) = (format!("{}::suite", running.suite.name), Arc::clone(running));
        return vec![Trial::test(name, move || running.run_all()).with_ignored_flag(is_ignored)];
    }
    let trial = |test: Test| {
        let is_ignored = running.suite.not_run(&test).is_some();
        let name = running.trial_of(&test);
        let running = Arc::clone(running);
        Trial::test(name, move || running.run(&test)).with_ignored_flag(is_ignored)
    };
    crate::tests().into_iter().map(trial).collect()
}
