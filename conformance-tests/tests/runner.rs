//! How the suite is run: what a factory says is believed, checked and printed, and nothing is left out in silence.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use feast_registry_conformance::{Exception, Factory, Storage, all, tests};
use feast_registry_core::config::SchemaMode;
use feast_registry_core::{Backend, ErrorKind, MemoryBackend, Result};

/// Makes storages in memory and counts them.
#[derive(Default)]
struct Counting {
    exceptions: Vec<Exception>,
    /// Whether storages cannot be opened.
    is_broken: bool,
    made: Arc<AtomicUsize>,
    removed: Arc<AtomicUsize>,
}

struct Counted {
    backend: Arc<MemoryBackend>,
    is_broken: bool,
    removed: Arc<AtomicUsize>,
}

#[async_trait]
impl Factory for Counting {
    async fn create(&self) -> Arc<dyn Storage> {
        self.made.fetch_add(1, Ordering::SeqCst);
        let removed = Arc::clone(&self.removed);
        Arc::new(Counted { backend: Arc::default(), is_broken: self.is_broken, removed })
    }

    fn exceptions(&self) -> Vec<Exception> {
        self.exceptions.clone()
    }
}

#[async_trait]
impl Storage for Counted {
    async fn open(&self, _: SchemaMode) -> Result<Arc<dyn Backend>> {
        if self.is_broken {
            return Err(feast_registry_core::Error::new(ErrorKind::Unavailable, "nobody answers"));
        }
        Ok(Arc::clone(&self.backend) as Arc<dyn Backend>)
    }

    fn worker(&self) -> Option<Command> {
        None
    }

    async fn remove(&self) {
        self.removed.fetch_add(1, Ordering::SeqCst);
    }
}

/// What `all` says when it fails.
async fn failure(factory: Counting) -> String {
    let error = tokio::spawn(all(Arc::new(factory))).await.expect_err("it fails");
    *error.into_panic().downcast::<String>().expect("it says why")
}

/// Exceptions to all themes but these.
fn only(themes: &[&str]) -> Vec<Exception> {
    let mut all: Vec<&str> = tests().iter().map(|test| test.name.split("::").next().unwrap_or_default()).collect();
    all.dedup();
    all.retain(|theme| !themes.contains(theme));
    all.into_iter().map(|theme| Exception::new(theme, "not here")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_excepted_is_reported_with_the_reason() {
    let mut exceptions = only(&["values"]);
    exceptions.push(Exception::new("values::values_of_megabytes", "too large for this test"));
    let factory = Arc::new(Counting { exceptions, ..Default::default() });
    let report = all(Arc::clone(&factory) as Arc<dyn Factory>).await;
    let passed: Vec<&str> = report.passed.iter().map(|(name, _)| *name).collect();
    let expected: Vec<&str> =
        tests().iter().map(|test| test.name).filter(|name| name.starts_with("values::")).collect();
    let expected: Vec<&str> = expected.into_iter().filter(|name| *name != "values::values_of_megabytes").collect();
    assert_eq!(passed, expected);
    assert_eq!(report.excepted.len() + passed.len(), tests().len(), "passed or excepted: there is nothing else");
    let printed = report.to_string();
    assert!(printed.contains("EXCEPTION values::values_of_megabytes: too large for this test"), "{printed}");
    assert!(printed.contains("EXCEPTION processes::every_entity_is_there: not here"), "{printed}");
    let (made, removed) = (factory.made.load(Ordering::SeqCst), factory.removed.load(Ordering::SeqCst));
    assert_eq!((made, removed), (passed.len(), passed.len()), "each test has a storage of its own, removed after it");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exception_must_name_a_test_and_a_reason() {
    for (exception, expected) in [
        (Exception::new("reads::no_such_test", "a reason"), "names neither a test nor a theme"),
        (Exception::new("read", "a reason"), "names neither a test nor a theme"),
        (Exception::new("", "a reason"), "names neither a test nor a theme"),
        (Exception::new("reads", " "), "gives no reason"),
    ] {
        let mut exceptions = only(&[]);
        exceptions.push(exception);
        let message = failure(Counting { exceptions, ..Default::default() }).await;
        assert!(message.contains(expected), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storage_without_a_worker_must_be_an_exception() {
    let message = failure(Counting { exceptions: only(&["processes"]), ..Default::default() }).await;
    let count = tests().iter().filter(|test| test.name.starts_with("processes::")).count();
    assert!(message.contains(&format!("{count} of the suite's tests failed")), "{message}");
    assert!(message.contains("lists `processes` among its exceptions"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_failure_is_named_and_what_was_made_is_removed() {
    let exceptions = only(&["expectations", "cache"]);
    let factory = Counting { exceptions, is_broken: true, ..Default::default() };
    let (made, removed) = (Arc::clone(&factory.made), Arc::clone(&factory.removed));
    let message = failure(factory).await;
    for test in
        tests().iter().filter(|test| test.name.starts_with("expectations::") || test.name.starts_with("cache::"))
    {
        let expected =
            format!("{}: opening a new handle on the storage failed: nobody answers (Unavailable)", test.name);
        assert!(message.contains(&expected), "`{expected}` is not in:\n{message}");
    }
    let (made, removed) = (made.load(Ordering::SeqCst), removed.load(Ordering::SeqCst));
    assert!(made > 0 && made == removed, "{made} storages were made, and {removed} removed");
}

#[test]
fn every_test_has_a_name_of_its_own() {
    let mut names: Vec<&str> = tests().iter().map(|test| test.name).collect();
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count);
    assert!(count > 70, "the list has {count} tests");
}
