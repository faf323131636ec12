//! `feast-registry serve`.

use std::time::{Duration, Instant};

use super::*;

/// A running server; it is killed if the test fails.
pub(super) struct Server {
    child: Child,
    /// `None` once nobody reads it any more.
    log: Option<BufReader<std::process::ChildStderr>>,
    /// What it said before the start-up line, and that line.
    pub(super) before: String,
    started: String,
}

impl Server {
    pub(super) fn start(fixture: &Fixture, arguments: &[&str]) -> Self {
        Self::run(&mut fixture.command(&[&["serve", "--port", "0"], arguments].concat()))
    }

    pub(super) fn run(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let mut log = BufReader::new(child.stderr.take().expect("stderr"));
        let (mut before, mut started) = (String::new(), String::new());
        while log.read_line(&mut started).expect("a line") > 0 && !started.contains("serving ") {
            before += &std::mem::take(&mut started);
        }
        Self { child, log: Some(log), before, started }
    }

    /// The address that the start-up line names.
    pub(super) fn address(&self) -> &str {
        self.started.trim_end().rsplit(' ').next().expect("an address")
    }

    /// Asks it to end as a supervisor does.
    fn signal(&self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs").success());
    }

    /// Has it end; its exit code and the rest of its log.
    pub(super) fn stop(self) -> (Option<i32>, String) {
        self.signal();
        self.wait()
    }

    /// Waits until it has ended; its exit code and the rest of its log.
    pub(super) fn wait(mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        if let Some(log) = &mut self.log {
            log.read_to_string(&mut rest).expect("the log ends");
        }
        (self.child.wait().expect("it ends").code(), rest)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn serve_says_what_it_serves_and_ends_in_order() {
    let fixture = Fixture::empty();
    let server = Server::start(&fixture, &[]);
    assert!(
        server.started.contains("serving sqlite:///")
            && server.started.contains("registry.db without TLS and without authentication on 127.0.0.1:")
    );
    assert!(!server.started.contains('\u{1b}'), "{}", server.started);
    assert!(
        server.before.lines().count() == 1 && server.before.contains("WARN made a new registry"),
        "{}",
        server.before
    );
    std::net::TcpStream::connect(server.address()).expect("it listens");
    assert!(fixture.path("registry.db").exists());
    // What looks into the registry may do so while it is served.
    assert!(fixture.run(&["list", "projects"]).stderr.starts_with("There are no projects"));
    let (code, log) = server.stop();
    assert!(code == Some(0) && log.contains("stopped"), "{code:?} {log}");
}

#[test]
fn serve_goes_on_when_nobody_reads_its_log() {
    let fixture = Fixture::empty();
    let mut server = Server::start(&fixture, &["--log", "trace"]);
    server.log = None;
    std::net::TcpStream::connect(server.address()).expect("it listens");
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert!(server.child.try_wait().expect("it is a child").is_none(), "it has ended");
    assert_eq!(server.stop().0, Some(0));
}

/// A server whose stdout and stderr are one pipe that nobody reads any more, and which has more to say than there is room for.
fn start_stuck(fixture: &Fixture, arguments: &[&str]) -> (Server, std::io::PipeReader) {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let mut command = fixture.command(&[&["serve", "--port", "0", "--log", "trace"], arguments].concat());
    let mut filler = writer.try_clone().expect("another end");
    let child = command.stdout(writer.try_clone().expect("another end")).stderr(writer).spawn().expect("it starts");
    let mut log = BufReader::new(reader);
    let mut started = String::new();
    while !started.contains("serving ") {
        started.clear();
        assert!(log.read_line(&mut started).expect("a line") > 0, "it has not started");
    }
    let server = Server { child, log: None, before: String::new(), started };
    // Each frame is some lines: the pipe is full after a thousand, and then so is the queue before it.
    let mut client = std::net::TcpStream::connect(server.address()).expect("it listens");
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let priority = [0, 0, 5, 2, 0, 0, 0, 0, 1, 0, 0, 0, 3, 16];
    let frames = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &settings[..], &priority.repeat(20_000)].concat();
    std::io::Write::write_all(&mut client, &frames).expect("it is sent");
    std::thread::sleep(Duration::from_secs(2));
    // A short line may still have room where a long one had none.
    std::thread::spawn(move || while std::io::Write::write_all(&mut filler, b".").is_ok() {});
    std::thread::sleep(Duration::from_millis(200));
    (server, log.into_inner())
}

/// Fault: it never ended, since what hands over the rest of the log said on stdout that nobody takes it.
#[test]
fn serve_ends_when_its_log_is_stuck() {
    let fixture = Fixture::empty();
    let (server, _reader) = start_stuck(&fixture, &[]);
    server.signal();
    assert_eq!(ends_within(server, Duration::from_secs(10)), Some(0));
}

#[test]
fn a_second_signal_ends_serve_whose_log_is_stuck() {
    let fixture = Fixture::empty();
    let (server, _reader) = start_stuck(&fixture, &["--drain", "600"]);
    server.signal();
    std::thread::sleep(Duration::from_millis(500));
    server.signal();
    assert_eq!(ends_within(server, Duration::from_secs(6)), Some(1));
}

/// The exit code of a server that has been told to end.
fn ends_within(mut server: Server, limit: Duration) -> Option<i32> {
    let until = Instant::now() + limit;
    loop {
        if let Some(status) = server.child.try_wait().expect("it is a child") {
            return status.code();
        }
        assert!(Instant::now() < until, "it is still there");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Fault: what filters may name was refused.
#[test]
fn a_target_may_be_named_by_a_word_alone() {
    let fixture = Fixture::empty();
    let server = Server::start(&fixture, &["--log", "info,tower"]);
    assert!(server.before.contains("WARN --log: `tower` is no level"), "{}", server.before);
    assert_eq!(server.stop().0, Some(0));
    let error = fixture.error(&["serve", "--log", "inof"]);
    assert!(error.contains("--log: there is no level `inof`; did you mean `info`?"), "{error}");
}

/// Fault: with `--log trace`, each attempt to send traces was logged with the URL as it is. The collector was not told the name and
/// the password either.
#[cfg(feature = "otlp")]
#[test]
fn no_log_tells_the_password_of_a_collector() {
    let fixture = Fixture::empty();
    let collector = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = collector.local_addr().expect("an address").port();
    let url = format!("http://us%65r:s3%5Ecret@127.0.0.1:{port}/there/");
    let mut command = fixture.command(&["serve", "--port", "0", "--log", "trace", "--otlp-endpoint", &url]);
    let server = Server::run(command.env("OTEL_BSP_SCHEDULE_DELAY", "100").env_remove("OTEL_EXPORTER_OTLP_HEADERS"));
    let (client, _) = collector.accept().expect("a connection");
    let head: Vec<String> =
        BufReader::new(&client).lines().map(|line| line.expect("text")).take_while(|line| !line.is_empty()).collect();
    assert_eq!(head[0], "POST /there/v1/traces HTTP/1.1");
    // That is `user:s3^cret`.
    assert!(head.iter().any(|line| line == "authorization: Basic dXNlcjpzM15jcmV0"), "{head:?}");
    // What fails is logged too.
    drop((client, collector));
    std::thread::sleep(Duration::from_millis(300));
    let before = server.before.clone();
    let (code, log) = server.stop();
    assert!(code == Some(0) && log.contains("/there/v1/traces"), "{code:?} {log}");
    for secret in ["s3%5E", "s3^", "dXNlcj"] {
        assert!(!log.contains(secret) && !before.contains(secret), "{secret}: {before}{log}");
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[test]
fn serve_has_memory_given_back_unless_told_otherwise() {
    let fixture = Fixture::empty();
    let threshold = |server: &Server| {
        let environment = std::fs::read(format!("/proc/{}/environ", server.child.id())).expect("it runs");
        let found = environment.split(|byte| *byte == 0).find_map(|line| line.strip_prefix(b"MALLOC_MMAP_THRESHOLD_="));
        found.map(|value| String::from_utf8_lossy(value).into_owned())
    };
    let server = Server::start(&fixture, &[]);
    assert_eq!(threshold(&server).as_deref(), Some("1048576"));
    let name = std::fs::read_to_string(format!("/proc/{}/comm", server.child.id())).expect("it runs");
    assert_eq!(name.trim(), "feast-registry");
    assert_eq!(server.stop().0, Some(0));
    // It starts once more at the most, also where glibc hides what it is told, and as whoever it was.
    let told = [
        ("MALLOC_MMAP_THRESHOLD_", "4096"),
        ("GLIBC_TUNABLES", "glibc.malloc.arena_max=2"),
        ("FEAST_REGISTRY_HAS_STARTED_AGAIN", "1"),
    ];
    for (name, value) in told {
        let mut command = fixture.command(&["serve", "--port", "0"]);
        let server = Server::run(command.env(name, value));
        assert_eq!(threshold(&server).is_some_and(|value| value == "4096"), name == "MALLOC_MMAP_THRESHOLD_");
        assert_eq!(server.stop().0, Some(0));
    }
}

#[test]
fn serve_takes_a_feature_store_yaml() {
    let fixture = Fixture::empty();
    let url = format!("sqlite:///{}", fixture.path("other.db").display());
    let file = feature_store(&fixture, &url, "rides");
    let server = Server::start(&fixture, &["-c", &file, "--host", "[::1]"]);
    assert!(server.started.contains("other.db without TLS and without authentication on [::1]:"), "{}", server.started);
    assert_eq!(server.stop().0, Some(0));
    assert!(fixture.path("other.db").exists() && !fixture.path("registry.db").exists());
}

#[test]
fn an_empty_filter_is_none() {
    let fixture = Fixture::empty();
    let server = Server::run(fixture.command(&["serve", "--port", "0"]).env("RUST_LOG", ""));
    assert!(server.started.contains("serving sqlite:///"), "{}", server.started);
    assert_eq!(server.stop().0, Some(0));
}

#[test]
fn serve_warns_in_its_log_before_it_serves() {
    let fixture = Fixture::empty();
    let url = format!("sqlite:///{}", fixture.path("other.db").display());
    let text =
        format!("registry:\n  registry_type: sql\n  path: {url}\n  sqlalchemy_config_kwargs: {{future: true}}\n");
    std::fs::write(fixture.path("feature_store.yaml"), text).expect("a file");
    let server = Server::start(&fixture, &["-c", "."]);
    let first = server.before.lines().next().expect("a line");
    assert!(first.contains("WARN") && first.contains("line 4: `registry.sqlalchemy_config_kwargs.future`"), "{first}");
    let (code, log) = server.stop();
    assert!(code == Some(0) && !log.contains("WARN"), "{log}");
}

#[test]
fn serve_says_why_it_cannot() {
    let fixture = Fixture::empty();
    let server = Server::start(&fixture, &[]);
    let port = server.address().rsplit(':').next().expect("a port");
    let elsewhere = format!("sqlite:///{}", fixture.path("other.db").display());
    let error = fixture.error(&["serve", "--port", port, "--registry", &elsewhere]);
    assert!(!fixture.path("other.db").exists(), "a start that fails makes no registry");
    assert!(error.contains(&format!("127.0.0.1:{port}")) && error.contains("another server"), "{error}");
    assert_eq!(server.stop().0, Some(0));

    let error = fixture.error(&["serve", "--port", "0", "--host", "no such host"]);
    assert!(error.contains("--host: there is no address for the name `no such host`"), "{error}");
    assert!(!error.contains("another server"), "{error}");
    // Of a network that is for documents only.
    let error = fixture.error(&["serve", "--port", "0", "--host", "192.0.2.1"]);
    assert!(error.contains("no address of this machine") && !error.contains("another server"), "{error}");

    let error = fixture.error(&["serve", "--log", "a=b=c"]);
    assert!(error.contains("--log: `a=b=c` is not a filter"), "{error}");
    let error = fixture.error(&["serve", "--registry", "sqlite:///no/such/folder.db"]);
    assert!(error.contains("no folder"), "{error}");
    std::fs::write(fixture.path("bad.yaml"), "registry:\n  registry_type: sql\n  pfad: x\n").expect("a file");
    let error = fixture.error(&["serve", "-c", "bad.yaml"]);
    // All that is wrong is said.
    assert!(error.contains("bad.yaml, line 1: `registry.path` is missing"), "{error}");
    assert!(error.contains("; also, line 3: ") && error.contains("pfad"), "{error}");
}

/// Fault: each of these had SIGTERM wait for half a minute, after which Kubernetes kills.
#[test]
fn serve_ends_soon_whoever_is_connected() {
    let fixture = Fixture::empty();
    let server = Server::start(&fixture, &[]);
    let mut silent = std::net::TcpStream::connect(server.address()).expect("it listens");
    let _speechless = std::net::TcpStream::connect(server.address()).expect("it listens");
    std::io::Write::write_all(&mut silent, b"PRI * HTTP/2.0\r\n").expect("it is sent");
    std::thread::sleep(Duration::from_millis(200));
    let began = Instant::now();
    assert_eq!(server.stop().0, Some(0));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[test]
fn a_second_signal_ends_serve_at_once() {
    let fixture = Fixture::empty();
    let mut server = Server::start(&fixture, &["--drain", "600"]);
    server.signal();
    let mut line = String::new();
    server.log.as_mut().expect("a log").read_line(&mut line).expect("a line");
    assert!(line.contains("stopping in 600 s"), "{line}");
    // It still takes connections.
    std::net::TcpStream::connect(server.address()).expect("it listens");
    let (code, log) = server.stop();
    assert!(code == Some(1) && log.contains("second signal"), "{code:?} {log}");
}

/// Fault: the loop that takes connections span, and nothing was logged.
#[cfg(target_os = "linux")]
#[test]
fn serve_out_of_files_says_so_and_goes_on() {
    use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

    let fixture = Fixture::empty();
    let mut server = Server::start(&fixture, &[]);
    let pid = Pid::from_raw(server.child.id().try_into().expect("a number"));
    let files = || std::fs::read_dir(format!("/proc/{}/fd", server.child.id())).expect("it runs").count() as u64;
    let limit = |files: u64| {
        let limit = Rlimit { current: Some(files), maximum: getrlimit(Resource::Nofile).maximum };
        prlimit(pid, Resource::Nofile, limit).expect("a limit")
    };
    // Until the storage has been asked for the first time, which opens files too.
    std::thread::sleep(Duration::from_millis(500));
    let before = files();
    let found = limit(before + 2);
    let connections: Vec<_> =
        (0..8).map(|_| std::net::TcpStream::connect(server.address()).expect("it listens")).collect();
    let log = server.log.as_mut().expect("a log");
    let mut lines = log.by_ref().lines().map(|line| line.expect("a line"));
    let line = lines.find(|line| line.contains("ulimit -n")).expect("it says so");
    assert!(line.contains("WARN"), "{line}");
    let processor = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", server.child.id())).expect("it runs");
        let ticks = stat.split_whitespace().skip(13).take(2).map(|ticks| ticks.parse::<u64>().expect("a number"));
        ticks.sum::<u64>()
    };
    let began = processor();
    std::thread::sleep(Duration::from_secs(1));
    let ticks = processor() - began;
    assert!(ticks < 50, "it was busy for {ticks} of 100 ticks");
    prlimit(pid, Resource::Nofile, found).expect("a limit");
    drop(connections);
    let until = Instant::now() + Duration::from_secs(10);
    // The storage may have opened files of its own meanwhile.
    while files() >= before + 6 {
        assert!(Instant::now() < until, "connections of before are open");
        std::thread::sleep(Duration::from_millis(50));
    }
    std::net::TcpStream::connect(server.address()).expect("it listens");
    assert_eq!(server.stop().0, Some(0));
}

/// As Feast's charts have it.
#[tokio::test]
async fn the_environment_protects_the_configured_project() {
    let fixture = Fixture::filled().await;
    let file = feature_store(&fixture, &fixture.url(), "rides");
    let with = |value: &str| {
        let mut command = fixture.command(&["serve", "--port", "0", "-c", &file]);
        Server::run(command.env("FEAST_PROTECTED_PROJECT", value))
    };
    let before = stored(&fixture.open().await, Kind::Project, "rides", "rides").await;
    for (value, is_protected) in [("true", true), ("", true), ("false", false), ("TRUE", true)] {
        assert_eq!(with(value).stop().0, Some(0));
        let project = stored(&fixture.open().await, Kind::Project, "rides", "rides").await;
        assert_eq!(project.is_protected().expect("a project"), is_protected, "{value}");
        assert_eq!(project.created_timestamp().expect("a project"), before.created_timestamp().expect("a project"));
    }
    let deleted = fixture.open().await.delete_project("rides").await.expect_err("it is protected");
    assert_eq!(deleted.kind(), feast_registry::ErrorKind::Protected);
    let ran = Ran::of(
        fixture.command(&["serve", "--port", "0"]).env("FEAST_PROTECTED_PROJECT", "true").output().expect("it runs"),
    );
    assert!(ran.code == 1 && ran.stderr.contains("-c"), "{}", ran.stderr);
}
