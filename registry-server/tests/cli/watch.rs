//! `feast-registry watch`.

use super::*;

/// A watch under way; it is killed if the test fails.
struct Watching {
    child: Child,
    /// `None` once nobody reads it any more.
    lines: Option<BufReader<std::process::ChildStdout>>,
    notes: BufReader<std::process::ChildStderr>,
}

impl Watching {
    /// Begins it, and waits until it says that it has begun.
    fn start(fixture: &Fixture, arguments: &[&str]) -> Self {
        let mut command = fixture.command(&[&["watch"], arguments].concat());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let lines = child.stdout.take().map(BufReader::new);
        let mut notes = BufReader::new(child.stderr.take().expect("stderr"));
        let mut begun = String::new();
        notes.read_line(&mut begun).expect("a line");
        assert!(begun.starts_with("Watching sqlite:///"), "{begun}");
        Self { child, lines, notes }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.as_mut().expect("it is read").read_line(&mut line).expect("a line");
        line
    }

    /// Interrupts it, as Ctrl-C does; its exit code and what it says.
    fn interrupt(self) -> (Option<i32>, String) {
        self.end("-INT")
    }

    fn end(mut self, signal: &str) -> (Option<i32>, String) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().expect("kill runs").success());
        let mut notes = String::new();
        self.notes.read_to_string(&mut notes).expect("it ends");
        (self.child.wait().expect("it ends").code(), notes)
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[tokio::test]
async fn what_is_committed_is_a_line_each_and_an_interrupt_says_how_to_go_on() {
    let fixture = Fixture::filled().await;
    let registry = fixture.open().await;
    let mut watching = Watching::start(&fixture, &["--project", "shop", "--kind", "entity"]);
    apply(&registry, "rides", &entity("rider", "Who rides")).await;
    apply(&registry, "shop", &entity("cashier", "Who is paid")).await;
    let line = watching.line();
    assert!(line.contains("cashier") && line.contains("shop"), "{line}");
    let revision = line.split_whitespace().next().expect("a revision").to_owned();
    let (code, notes) = watching.interrupt();
    assert_eq!((code, notes), (Some(0), format!("To go on from here: --after {revision}\n")));

    apply(&registry, "shop", &entity("cleaner", "Who cleans")).await;
    let mut watching = Watching::start(&fixture, &["--after", &revision, "-o", "json", "--name", "cleaner"]);
    let told: Json = serde_json::from_str(&watching.line()).expect("a line of JSON");
    assert_eq!(told["changes"][0]["name"], "cleaner", "{told}");
    assert_eq!(watching.interrupt().0, Some(0));
    let mut watching = Watching::start(&fixture, &["--after", &revision, "-o", "yaml"]);
    assert_eq!(watching.line(), "---\n");
    assert!(watching.line().starts_with("revision: "));
}

/// What is told has filled the pipe, so that a line of it waits for a reader that never reads.
#[tokio::test]
async fn a_watch_that_nobody_reads_can_be_ended() {
    for ending in ["-INT", "-TERM"] {
        let fixture = Fixture::filled().await;
        let registry = fixture.open().await;
        let newest = fixture.json(&["log", "-n", "1", "-o", "json"])[0]["revision"].as_str().expect("it").to_owned();
        let watching = Watching::start(&fixture, &["-o", "json", "--kind", "entity"]);
        apply(&registry, "shop", &entity("cashier", &"x".repeat(1 << 20))).await;
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        let began = std::time::Instant::now();
        let (code, notes) = watching.end(ending);
        assert_eq!((code, notes), (Some(0), format!("To go on from here: --after {newest}\n")));
        assert!(began.elapsed() < std::time::Duration::from_secs(20), "{:?}", began.elapsed());
    }
}

#[tokio::test]
async fn a_watch_ends_when_nobody_reads_it_and_when_its_place_is_gone() {
    let fixture = Fixture::filled().await;
    let registry = fixture.open().await;
    let mut watching = Watching::start(&fixture, &[]);
    watching.lines = None;
    apply(&registry, "shop", &entity("cashier", "Who is paid")).await;
    assert_eq!(watching.child.wait().expect("it ends").code(), Some(0));

    let error = fixture.error(&["watch", "--after", "1"]);
    assert!(error.contains("without --after"), "{error}");
}
