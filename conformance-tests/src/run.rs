//! Running tests: one by one for a test runner, or all of them in one call.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinError;

use crate::factory::{Exception, Factory, Storage};
use crate::store::Store;

/// The longest that one test may take. A backend that hangs fails.
const TIME_LIMIT: Duration = Duration::from_secs(180);

/// One test of the suite.
#[derive(Clone, Copy)]
pub struct Test {
    /// Its name: `theme::test`.
    pub name: &'static str,
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
    pub passed: Vec<(&'static str, Duration)>,
    /// The tests that did not run, each with the exception that says why.
    pub excepted: Vec<(&'static str, Exception)>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (test, took) in &self.passed {
            writeln!(f, "passed    {test} ({} ms)", took.as_millis())?;
        }
        for (test, exception) in &self.excepted {
            writeln!(f, "EXCEPTION {test}: {}", exception.reason)?;
        }
        write!(f, "{} passed, {} excepted", self.passed.len(), self.excepted.len())
    }
}

/// What a test gets: storages, as many as it asks for.
#[derive(Clone)]
pub(crate) struct Setup {
    factory: Arc<dyn Factory>,
    made: Arc<Mutex<Vec<Arc<dyn Storage>>>>,
}

impl Setup {
    fn new(factory: Arc<dyn Factory>) -> Self {
        Self { factory, made: Arc::default() }
    }

    /// A new, empty storage.
    pub(crate) async fn store(&self) -> Store {
        let storage = self.factory.create().await;
        self.made.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&storage));
        Store::new(storage)
    }

    async fn remove_all(&self) {
        let made = std::mem::take(&mut *self.made.lock().unwrap_or_else(PoisonError::into_inner));
        for storage in made {
            storage.remove().await;
        }
    }
}

impl Test {
    /// Runs this test alone, on the runtime that calls it, which must be one of several threads; `Err` is what the test
    /// said when it failed. The factory's exceptions are not asked for.
    pub async fn run(self, factory: Arc<dyn Factory>) -> Result<(), String> {
        let setup = Setup::new(factory);
        let mut task = tokio::spawn((self.body)(setup.clone()));
        let limit = TIME_LIMIT + crate::history::soak().unwrap_or_default();
        let outcome = match tokio::time::timeout(limit, &mut task).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(text_of(error)),
            Err(_) => {
                task.abort();
                Err(format!("it was not finished after {} s: the backend hangs", limit.as_secs()))
            }
        };
        setup.remove_all().await;
        outcome
    }
}

/// What a task panicked with.
fn text_of(error: JoinError) -> String {
    let Ok(panic) = error.try_into_panic() else { return "it was cancelled".to_owned() };
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "it panicked without a message".to_owned())
}

fn exception_to(factory: &dyn Factory, test: Test) -> Option<Exception> {
    factory.exceptions().into_iter().find(|exception| exception.covers(test.name))
}

/// Exceptions of tests that do not exist would hide a typing error.
fn check_exceptions(factory: &dyn Factory) {
    for exception in factory.exceptions() {
        let is_known = crate::tests().iter().any(|test| exception.covers(test.name));
        assert!(is_known, "the exception `{exception}` names neither a test nor a theme of the suite");
        assert!(!exception.reason.trim().is_empty(), "the exception of `{}` gives no reason", exception.tests);
    }
}

/// Runs every test in turn, on the runtime that calls it, which must be one of several threads. See
/// [`conformance_tests!`](crate::conformance_tests) for tests that a test runner sees one by one.
///
/// # Panics
/// When a test fails, after all have run; the message lists every one that did. Also when an exception of the factory
/// names no test.
pub async fn all(factory: Arc<dyn Factory>) -> Report {
    check_exceptions(&*factory);
    let mut report = Report::default();
    let mut failed = Vec::new();
    for test in crate::tests() {
        if let Some(exception) = exception_to(&*factory, test) {
            eprintln!("EXCEPTION {}: {}", test.name, exception.reason);
            report.excepted.push((test.name, exception));
            continue;
        }
        let began = Instant::now();
        match test.run(Arc::clone(&factory)).await {
            Ok(()) => report.passed.push((test.name, began.elapsed())),
            Err(text) => failed.push(format!("{}: {text}", test.name)),
        }
    }
    assert!(failed.is_empty(), "{} of the suite's tests failed:\n{}", failed.len(), failed.join("\n"));
    report
}

/// What the functions made by [`conformance_tests!`](crate::conformance_tests) call.
#[doc(hidden)]
pub fn run_one(factory: Arc<dyn Factory>, name: &str) {
    let test = crate::tests().into_iter().find(|test| test.name == name);
    let test = test.unwrap_or_else(|| panic!("the suite has no test `{name}`"));
    check_exceptions(&*factory);
    if let Some(exception) = exception_to(&*factory, test) {
        eprintln!("EXCEPTION {}: {}", test.name, exception.reason);
        return;
    }
    if let Err(text) = runtime().block_on(test.run(factory)) {
        panic!("{name}: {text}");
    }
}

/// More threads than small machines have processors: tests that race want to be interrupted.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .expect("a tokio runtime for the test")
}
