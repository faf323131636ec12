//! Running tests: one of them, or all in one call.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinError;

use crate::factory::{Exception, Factory, Storage};
use crate::shown::shortened;
use crate::store::Store;

/// The longest that one test may take. A backend that hangs fails.
const TIME_LIMIT: Duration = Duration::from_secs(180);

/// One test of the suite.
#[derive(Clone, Copy)]
pub struct Test {
    /// Its name: `theme::test`.
    pub name: &'static str,
    /// The promise that it proves, in the words in which the documentation of [`Backend`](feast_registry_core::Backend) or of
    /// [`Registry`](feast_registry_core::Registry) makes it.
    pub promise: &'static str,
    /// Whether the promise is a quotation.
    #[cfg_attr(not(test), expect(dead_code, reason = "a unit test looks the quotations up"))]
    pub(crate) is_quoted: bool,
    pub(crate) body: fn(Setup) -> Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl fmt::Debug for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// What became of the tests that [`all`] ran. All of them passed.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// The tests that passed, each with the time that it took.
    pub passed: Vec<(Test, Duration)>,
    /// The tests that did not run, each with the exception that says why.
    pub excepted: Vec<(Test, Exception)>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (test, took) in &self.passed {
            writeln!(f, "passed    {} ({} ms)", test.name, took.as_millis())?;
        }
        for (test, exception) in &self.excepted {
            writeln!(f, "EXCEPTION {}", unproven(test, &exception.reason))?;
        }
        write!(f, "{} passed, {} excepted", self.passed.len(), self.excepted.len())
    }
}

/// What is said of a test that does not run.
pub(crate) fn unproven(test: &Test, reason: &str) -> String {
    format!("{}: {reason} — unproven: {}", test.name, test.promise)
}

/// What a test gets: storages, as many as it asks for.
#[derive(Clone)]
pub(crate) struct Setup {
    factory: Arc<dyn Factory>,
    /// The name of the suite, which workers look for.
    suite: Arc<str>,
    made: Arc<Mutex<Vec<Arc<dyn Storage>>>>,
}

impl Setup {
    /// A new, empty storage.
    pub(crate) async fn store(&self) -> Store {
        let storage = self.factory.create().await;
        self.made.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&storage));
        Store::new(storage, Arc::clone(&self.factory), Arc::clone(&self.suite))
    }

    async fn remove_all(&self) {
        let made = std::mem::take(&mut *self.made.lock().unwrap_or_else(PoisonError::into_inner));
        for storage in made {
            storage.remove().await;
        }
    }
}

impl Test {
    /// The theme that it is of.
    pub fn theme(&self) -> &'static str {
        self.name.split_once("::").map_or(self.name, |(theme, _)| theme)
    }

    /// Runs this test alone, on the runtime that calls it, which must be one of several threads; `Err` says which promise
    /// is broken, and what the test said when it failed. The factory's exceptions are not asked for.
    pub async fn run(self, factory: Arc<dyn Factory>) -> Result<(), String> {
        self.run_in("", factory, Duration::MAX).await
    }

    /// Runs this test of a suite, for no longer than this.
    pub(crate) async fn run_in(self, suite: &str, factory: Arc<dyn Factory>, limit: Duration) -> Result<(), String> {
        let setup = Setup { factory, suite: suite.into(), made: Arc::default() };
        let limit = limit.min(TIME_LIMIT + crate::history::soak().unwrap_or_default());
        let mut task = tokio::spawn((self.body)(setup.clone()));
        let outcome = match tokio::time::timeout(limit, &mut task).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(text_of(error)),
            Err(_) => {
                task.abort();
                Err(format!("it was not finished after {} s: the backend hangs", limit.as_secs()))
            }
        };
        setup.remove_all().await;
        outcome.map_err(|text| format!("broken promise: {}\n{}", self.promise, shortened(&text)))
    }
}

/// What a task panicked with.
fn text_of(error: JoinError) -> String {
    let Ok(panic) = error.try_into_panic() else { return "it was cancelled".to_owned() };
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "it panicked without a message".to_owned())
}

pub(crate) fn exception_to(factory: &dyn Factory, test: &Test) -> Option<Exception> {
    factory.exceptions().into_iter().find(|exception| exception.covers(test.name))
}

/// What is wrong with the exceptions of a factory, if anything is: those of tests that do not exist would hide a typing
/// error.
pub(crate) fn check_exceptions(factory: &dyn Factory) -> Result<(), String> {
    for Exception { tests, reason } in &factory.exceptions() {
        if !crate::tests().iter().any(|test| Exception::new(tests, reason).covers(test.name)) {
            return Err(format!("the exception `{tests}: {reason}` names neither a test nor a theme of the suite"));
        }
        if reason.trim().is_empty() {
            return Err(format!("the exception of `{tests}` gives no reason"));
        }
    }
    Ok(())
}

/// Runs every test in turn, on the runtime that calls it, which must be one of several threads: for test runners of another
/// sort than [`run`](crate::run) is one of.
///
/// # Panics
/// When a test fails, after all have run; the message lists every one that did. Also when an exception of the factory
/// names no test.
pub async fn all(factory: Arc<dyn Factory>) -> Report {
    check_exceptions(&*factory).unwrap_or_else(|error| panic!("{error}"));
    let mut report = Report::default();
    let mut failed = Vec::new();
    for test in crate::tests() {
        if let Some(exception) = exception_to(&*factory, &test) {
            eprintln!("EXCEPTION {}", unproven(&test, &exception.reason));
            report.excepted.push((test, exception));
            continue;
        }
        let began = Instant::now();
        match test.run(Arc::clone(&factory)).await {
            Ok(()) => report.passed.push((test, began.elapsed())),
            Err(text) => failed.push(format!("{}: {text}", test.name)),
        }
    }
    assert!(failed.is_empty(), "{} of the suite's tests failed:\n{}", failed.len(), failed.join("\n"));
    report
}

/// More threads than small machines have processors: tests that race want to be interrupted.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .expect("a tokio runtime for the test")
}
