//! How the suite is run: what a factory says is believed, checked and printed, and nothing is left out in silence.
//!
//! This program is also the one whose output is looked at: it then is a suite, as the environment says.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use feast_registry_conformance::{Exception, Factory, Storage, Suite, all, run, tests};
use feast_registry_core::config::SchemaMode;
use feast_registry_core::{Backend, ErrorKind, MemoryBackend, Result};
use libtest_mimic::{Arguments, Trial};
use serde_json::Value;

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

    async fn remove(&self) {
        self.removed.fetch_add(1, Ordering::SeqCst);
    }
}

/// Says which suite this program is to be.
const SUITE: &str = "RUNNER_TEST_SUITE";

fn main() -> ExitCode {
    if let Ok(name) = std::env::var(SUITE) {
        return run(suites(&name));
    }
    let trial = |name: &str, test: fn()| {
        Trial::test(name, move || {
            test();
            Ok(())
        })
    };
    let waits = |name: &str, test: fn() -> std::pin::Pin<Box<dyn Future<Output = ()>>>| {
        Trial::test(name, move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
            runtime.expect("a runtime").block_on(test());
            Ok(())
        })
    };
    macro_rules! trials {
        ($([$how:ident] $($test:ident),* $(,)?;)*) => { vec![$($(trials!(@ $how $test)),*),*] };
        (@ trial $test:ident) => { trial(stringify!($test), $test) };
        (@ waits $test:ident) => { waits(stringify!($test), || Box::pin($test())) };
    }
    let trials = trials! {
        [waits]
            what_is_excepted_is_reported_with_the_reason,
            an_exception_must_name_a_test_and_a_reason,
            a_storage_without_an_address_must_be_an_exception,
            every_failure_is_named_and_what_was_made_is_removed;
        [trial]
            every_test_has_a_name_of_its_own,
            an_exception_tells_what_stays_unproven,
            excepted_tests_are_in_the_closing_lines,
            a_theme_is_picked_by_its_name,
            runners_of_single_tests_find_what_is_ignored,
            a_report_has_a_line_for_each_test,
            a_failure_points_to_the_plainest_one,
            what_a_run_does_without_is_no_exception,
            a_suite_may_be_one_test,
            suites_that_cannot_be_are_refused;
    };
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// The suites that this program is, by a name.
fn suites(name: &str) -> Vec<Suite> {
    let mut exceptions = only(&["values", "writes"]);
    exceptions.push(Exception::new("values::values_of_megabytes", "too large for this test"));
    let counting = |exceptions: &[Exception], is_broken| Counting {
        exceptions: exceptions.to_vec(),
        is_broken,
        ..Default::default()
    };
    let ordinary = || counting(&exceptions, false);
    match name {
        "ordinary" => vec![Suite::new("one", ordinary()), Suite::new("other", counting(&only(&["writes"]), false))],
        "broken" => vec![Suite::new("broken", counting(&exceptions, true))],
        "left out" => vec![Suite::new("absent", ordinary()).left_out(Some("there is no server".to_owned()))],
        "one test" => vec![Suite::new("single", ordinary()).as_one_test()],
        "one broken test" => vec![Suite::new("single", counting(&exceptions, true)).as_one_test()],
        "twice" => vec![Suite::new("one", ordinary()), Suite::new("one", ordinary())],
        "odd name" => vec![Suite::new("one::other", ordinary())],
        "typing error" => vec![Suite::new("one", counting(&[Exception::new("value", "a reason")], false))],
        other => panic!("there is no suite {other}"),
    }
}

/// What a run of this program as a suite came to: its status, and what it wrote.
fn ran(suite: &str, arguments: &[&str], report: Option<&Path>) -> (i32, String) {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(arguments).env(SUITE, suite).stderr(Stdio::piped());
    command.env_remove(REPORT).envs(report.map(|file| (REPORT, file)));
    let output = command.output().expect("this program runs");
    let text = String::from_utf8(output.stdout).expect("text") + &String::from_utf8_lossy(&output.stderr);
    (output.status.code().expect("an end of its own"), text)
}

const REPORT: &str = "FEAST_REGISTRY_CONFORMANCE_REPORT";

/// The lines of a report.
fn lines(report: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(report).expect("a report");
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

/// How many tests have each outcome.
fn outcomes(report: &Path) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for line in lines(report) {
        *counts.entry(line["outcome"].as_str().expect("an outcome").to_owned()).or_default() += 1;
    }
    counts
}

/// How many tests are in a theme.
fn count(theme: &str) -> usize {
    tests().iter().filter(|test| test.theme() == theme).count()
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

async fn what_is_excepted_is_reported_with_the_reason() {
    let mut exceptions = only(&["values"]);
    exceptions.push(Exception::new("values::values_of_megabytes", "too large for this test"));
    let factory = Arc::new(Counting { exceptions, ..Default::default() });
    let report = all(Arc::clone(&factory) as Arc<dyn Factory>).await;
    let passed: Vec<&str> = report.passed.iter().map(|(test, _)| test.name).collect();
    let expected: Vec<&str> =
        tests().iter().map(|test| test.name).filter(|name| name.starts_with("values::")).collect();
    let expected: Vec<&str> = expected.into_iter().filter(|name| *name != "values::values_of_megabytes").collect();
    assert_eq!(passed, expected);
    assert_eq!(report.excepted.len() + passed.len(), tests().len(), "passed or excepted: there is nothing else");
    let printed = report.to_string();
    let unproven = "too large for this test — unproven: The longest serialized object, in bytes.";
    assert!(printed.contains(&format!("EXCEPTION values::values_of_megabytes: {unproven}")), "{printed}");
    assert!(
        printed.contains("EXCEPTION processes::every_entity_is_there: not here — unproven: Every write"),
        "{printed}"
    );
    let (made, removed) = (factory.made.load(Ordering::SeqCst), factory.removed.load(Ordering::SeqCst));
    assert_eq!((made, removed), (passed.len(), passed.len()), "each test has a storage of its own, removed after it");
}

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

async fn a_storage_without_an_address_must_be_an_exception() {
    let themes = ["durability", "processes"];
    let message = failure(Counting { exceptions: only(&themes), ..Default::default() }).await;
    let count = tests().iter().filter(|test| themes.contains(&test.theme())).count();
    assert!(message.contains(&format!("{count} of the suite's tests failed")), "{message}");
    assert!(message.contains("lists `durability` and `processes` among its exceptions"), "{message}");
}

async fn every_failure_is_named_and_what_was_made_is_removed() {
    let exceptions = only(&["expectations", "cache"]);
    let factory = Counting { exceptions, is_broken: true, ..Default::default() };
    let (made, removed) = (Arc::clone(&factory.made), Arc::clone(&factory.removed));
    let message = failure(factory).await;
    for test in
        tests().iter().filter(|test| test.name.starts_with("expectations::") || test.name.starts_with("cache::"))
    {
        let expected = format!(
            "{}: broken promise: {}\nopening a new handle on the storage failed: nobody answers (Unavailable)",
            test.name, test.promise
        );
        assert!(message.contains(&expected), "`{expected}` is not in:\n{message}");
    }
    let (made, removed) = (made.load(Ordering::SeqCst), removed.load(Ordering::SeqCst));
    assert!(made > 0 && made == removed, "{made} storages were made, and {removed} removed");
}

fn every_test_has_a_name_of_its_own() {
    let mut names: Vec<&str> = tests().iter().map(|test| test.name).collect();
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count);
    assert!(count > 70, "the list has {count} tests");
}

fn an_exception_tells_what_stays_unproven() {
    let text = Exception::new("values", "no values").to_string();
    assert!(text.starts_with("values: no values — unproven: An object: its serialized message."), "{text}");
    assert!(text.contains("| The longest serialized object, in bytes."), "{text}");
}

fn excepted_tests_are_in_the_closing_lines() {
    let (status, text) = ran("ordinary", &[], None);
    assert_eq!(status, 0, "{text}");
    let (passed, all) = (count("values") + count("writes") - 1, tests().len());
    let (_, closing) = text.split_once("test result: ok. ").unwrap_or_else(|| panic!("no closing line in {text}"));
    let excepted = "one: excepted values::values_of_megabytes: too large for this test — unproven: The longest serialized \
                    object, in bytes.\n";
    assert!(closing.contains(excepted), "{closing}");
    assert!(closing.contains(&format!("\none: {passed} passed, 0 failed, {} excepted\n", all - passed)), "{closing}");
    let passed = count("writes");
    assert!(
        closing.ends_with(&format!("\nother: {passed} passed, 0 failed, {} excepted\n", all - passed)),
        "{closing}"
    );
    // One character for each test, and the same at the end.
    let (status, text) = ran("ordinary", &["--quiet", "one::"], None);
    assert!(status == 0 && text.contains(excepted), "{text}");
}

fn a_theme_is_picked_by_its_name() {
    let (status, text) = ran("ordinary", &["one::values"], None);
    assert_eq!(status, 0, "{text}");
    assert!(text.contains("test one::values::every_byte_comes_back") && !text.contains("writes::"), "{text}");
    assert!(text.contains(&format!("one: {} passed, 0 failed, 1 excepted\n", count("values") - 1)), "{text}");
    // Whoever asks for what is excepted sees it run.
    let (status, text) = ran("ordinary", &["--ignored", "--exact", "one::values::values_of_megabytes"], None);
    assert!(status == 0 && text.contains("one: 1 passed, 0 failed, 0 excepted\n"), "{text}");
}

/// As nextest does it: it lists all tests, then those that are ignored, and starts the others one by one.
fn runners_of_single_tests_find_what_is_ignored() {
    let list = |arguments: &[&str]| {
        let (status, text) = ran("ordinary", arguments, None);
        assert_eq!(status, 0, "{text}");
        text.lines().map(|line| line.strip_suffix(": test").expect(line).to_owned()).collect::<Vec<_>>()
    };
    let (all, ignored) = (list(&["--list", "--format", "terse"]), list(&["--list", "--format", "terse", "--ignored"]));
    assert_eq!(
        (all.len(), all[0].as_str()),
        (2 * tests().len(), "one::reads::an_acknowledged_write_is_seen_by_every_handle")
    );
    assert_eq!(all.len() - ignored.len(), count("values") - 1 + 2 * count("writes"));
    let of_tests = |list: &[String]| list.iter().filter(|name| name.contains("::values::")).count();
    assert_eq!((of_tests(&all), of_tests(&ignored)), (2 * count("values"), count("values") + 1));
    let folder = tempfile::tempdir().expect("a folder");
    let report = folder.path().join("report.jsonl");
    ran("ordinary", &["--list", "--format", "terse"], Some(&report));
    ran("ordinary", &["--list", "--format", "terse", "--ignored"], Some(&report));
    ran("ordinary", &["--exact", "one::values::empty_values_are_values", "--nocapture"], Some(&report));
    assert_eq!(outcomes(&report), [("excepted".to_owned(), ignored.len()), ("passed".to_owned(), 1)].into());
}

fn a_report_has_a_line_for_each_test() {
    let folder = tempfile::tempdir().expect("a folder");
    let report = folder.path().join("report.jsonl");
    assert_eq!(ran("ordinary", &["one::"], Some(&report)).0, 0);
    let lines = lines(&report);
    let names = |line: &Value| line["test"].as_str().expect("a name").to_owned();
    let mut found: Vec<String> = lines.iter().map(names).collect();
    let mut expected: Vec<&str> = tests().iter().map(|test| test.name).collect();
    found.sort();
    expected.sort_unstable();
    assert_eq!(found, expected);
    for line in &lines {
        let test = tests().into_iter().find(|test| test.name == names(line)).expect("a test of the suite");
        assert_eq!((&line["suite"], &line["version"]), (&"one".into(), &env!("CARGO_PKG_VERSION").into()));
        assert_eq!((&line["theme"], &line["promise"]), (&test.theme().into(), &test.promise.into()));
        let is_run = ["values", "writes"].contains(&test.theme()) && test.name != "values::values_of_megabytes";
        assert_eq!(line["outcome"], if is_run { "passed" } else { "excepted" }, "{line}");
        assert_eq!((line["milliseconds"].is_u64(), line["reason"].is_string()), (is_run, !is_run), "{line}");
    }
}

fn a_failure_points_to_the_plainest_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let report = folder.path().join("report.jsonl");
    let (status, text) = ran("broken", &[], Some(&report));
    assert_eq!(status, 101, "{text}");
    let failed = count("values") + count("writes") - 1;
    assert!(text.contains(&format!("broken: 0 passed, {failed} failed, ")), "{text}");
    let points = "this fails because `values::every_byte_comes_back` fails, on which it rests: see there first";
    assert_eq!(text.matches(points).count(), failed - 1, "all but that one say so: {text}");
    for line in lines(&report).iter().filter(|line| line["outcome"] == "failed") {
        let reason = line["reason"].as_str().expect("a reason");
        assert!(
            reason.starts_with(&format!("broken promise: {}\n", line["promise"].as_str().expect("a promise"))),
            "{line}"
        );
        assert_eq!(reason.ends_with(points), line["test"] != "values::every_byte_comes_back", "{line}");
    }
}

fn what_a_run_does_without_is_no_exception() {
    let folder = tempfile::tempdir().expect("a folder");
    let report = folder.path().join("report.jsonl");
    let (status, text) = ran("left out", &[], Some(&report));
    let closing = format!("absent: 0 passed, 0 failed, 0 excepted, {} LEFT OUT: there is no server\n", tests().len());
    assert!(status == 0 && text.ends_with(&closing), "{text}");
    assert_eq!(outcomes(&report), [("left out".to_owned(), tests().len())].into());
}

fn a_suite_may_be_one_test() {
    let folder = tempfile::tempdir().expect("a folder");
    let report = folder.path().join("report.jsonl");
    assert_eq!(ran("one test", &["--list"], None).1.lines().next(), Some("single::suite: test"));
    let (status, text) = ran("one test", &["--exact", "single::suite"], Some(&report));
    let passed = count("values") + count("writes") - 1;
    assert!(status == 0 && text.contains(&format!("single: {passed} passed, 0 failed, ")), "{text}");
    let expected = [("excepted".to_owned(), tests().len() - passed), ("passed".to_owned(), passed)];
    assert_eq!(outcomes(&report), expected.into());
    let (status, text) = ran("one broken test", &[], None);
    assert!(status == 101 && text.contains("writes::writes_are_done_in_their_order: broken promise: "), "{text}");
}

fn suites_that_cannot_be_are_refused() {
    for (suite, expected) in [
        ("twice", "two suites have the name `one`"),
        ("odd name", "`one::other` is no name for a suite"),
        ("typing error", "one: the exception `value: a reason` names neither a test nor a theme of the suite"),
    ] {
        for arguments in [&[][..], &["--list"]] {
            let (status, text) = ran(suite, arguments, None);
            assert!(status == 101 && text.contains(expected), "{suite}: {text}");
        }
    }
}
