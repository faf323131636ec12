//! What a registry in a local file promises beyond the suite: no reader sees half a file, whatever happens to a writer; and
//! what cannot be a registry is refused and left as it was.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use feast_registry_core::config::SchemaMode;
use feast_registry_core::proto::core::{
    Entity, EntitySpecV2, FeatureView, FeatureViewSpec, Registry as RegistryMessage,
};
use feast_registry_core::{
    ApplyOptions, Backend as _, Deadline, ErrorKind, Freshness, Kind, ListFilter, Object, Registry, RegistryOptions,
    Result,
};
use feast_registry_file::FileBackend;
use prost::Message as _;

mod this_program;

use this_program::this_program;

/// Where a writer finds the file, the first number that it writes, and how many bytes it writes with each.
const JOB: &str = "REGISTRY_FILE_WRITER";

fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(test)
}

async fn open(file: &Path) -> Result<Registry> {
    Registry::open(Arc::new(FileBackend::local(file, SchemaMode::Auto)), RegistryOptions::default()).await
}

fn entity(name: &str, description: String) -> Entity {
    let spec = EntitySpecV2 { name: name.to_owned(), join_key: name.to_owned(), description, ..Default::default() };
    Entity { spec: Some(spec), meta: None }
}

/// Fills a registry with so many views of 2.5 KB.
async fn fill(registry: &Registry, views: usize) {
    let view = |number| {
        let spec = FeatureViewSpec {
            name: format!("view {number}"),
            entities: vec!["driver".to_owned()],
            description: "d".repeat(1250),
            ..Default::default()
        };
        Object::encode(&FeatureView { spec: Some(spec), meta: None })
    };
    let views = (0..views).map(view).collect();
    registry.apply_all("p", views, ApplyOptions::default()).await.expect("an apply of many views");
}

async fn numbers(registry: &Registry) -> BTreeSet<usize> {
    let entities = registry.list(Kind::Entity, Some("p"), &ListFilter::default(), Freshness::Stored).await;
    entities.expect("a list").iter().map(|entity| entity.name().expect("a name").parse().expect("a number")).collect()
}

/// The process that is killed: it writes entities until it is, and says which were acknowledged.
#[test]
fn writer() {
    let Ok(job) = std::env::var(JOB) else { return };
    let mut words = job.splitn(3, ' ');
    let mut number = || words.next().and_then(|word| word.parse::<usize>().ok()).expect("a number");
    let (first, bytes) = (number(), number());
    let file = words.next().expect("a file").to_owned();
    run(async {
        let registry = open(Path::new(&file)).await.expect("a registry");
        for number in first.. {
            let outcome = registry.apply("p", &entity(&number.to_string(), "d".repeat(bytes))).await;
            let said = match outcome {
                Ok(_) => format!("\nacknowledged {number} .\n"),
                Err(error) => format!("\nfailed {:?} {error} .\n", error.kind()),
            };
            std::io::stdout().lock().write_all(said.as_bytes()).expect("somebody listens");
            if said.starts_with("\nfailed") {
                return;
            }
        }
    });
}

fn writer_command(file: &Path, first: usize, bytes: usize) -> Command {
    let mut command = this_program("writer");
    command.env(JOB, format!("{first} {bytes} {}", file.display())).stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

/// Whether there is a file that a writer has begun.
fn has_temporary(folder: &Path) -> bool {
    let mut entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("a file").file_name());
    entries.any(|name| name.as_encoded_bytes().ends_with(b".tmp"))
}

/// What is between a word at the beginning of a line and its end.
fn said<'a>(line: &'a str, word: &str) -> Option<&'a str> {
    line.strip_prefix(word)?.strip_suffix(" .")
}

#[test]
fn a_writer_that_is_killed_200_times_tears_nothing_and_loses_nothing() {
    const KILLS: usize = 200;
    const VIEWS: usize = 2000;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("registry.db");
    run(async { fill(&open(&file).await.expect("a registry"), VIEWS).await });
    assert!(fs::metadata(&file).expect("a file").len() > 5_000_000, "a registry of 5 MB");

    let is_over = AtomicBool::new(false);
    let polls = AtomicUsize::new(0);
    let mut acknowledged = BTreeSet::new();
    let mut cut_short = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::SeqCst) {
                let bytes = fs::read(&file).expect("there is always a file");
                let registry = RegistryMessage::decode(&*bytes).expect("the file is always whole");
                assert_eq!(registry.feature_views.len(), VIEWS, "no reader misses a view");
                polls.fetch_add(1, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let kill = |kill: usize| {
            let mut child = writer_command(&file, kill * 10_000, 10).spawn().expect("a writer");
            let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
            let mut next = || lines.next().map(|line| line.expect("a line"));
            // It is at work once it has acknowledged something; then at another moment of a write each time.
            let mut read = Vec::new();
            while let Some(line) = next() {
                read.extend(said(&line, "acknowledged ").map(|number| number.parse::<usize>().expect("a number")));
                if !read.is_empty() {
                    break;
                }
            }
            std::thread::sleep(Duration::from_micros(kill as u64 * 173 % 25_000));
            child.kill().expect("a writer at work can be killed");
            while let Some(line) = next() {
                read.extend(said(&line, "acknowledged ").map(|number| number.parse::<usize>().expect("a number")));
            }
            child.wait().expect("it ends");
            assert!(!read.is_empty(), "a writer that wrote nothing was killed before its time");
            read
        };
        let killed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for number in 0..KILLS {
                acknowledged.extend(kill(number));
                cut_short += usize::from(has_temporary(folder.path()));
            }
        }));
        is_over.store(true, Ordering::SeqCst);
        if let Err(panic) = killed {
            std::panic::resume_unwind(panic);
        }
    });
    let found = run(async { numbers(&open(&file).await.expect("a registry")).await });
    let lost: Vec<_> = acknowledged.difference(&found).collect();
    eprintln!(
        "{KILLS} kills, {cut_short} of them in the middle of a write; {} polls, none torn; {} acknowledged, {} lost",
        polls.load(Ordering::SeqCst),
        acknowledged.len(),
        lost.len()
    );
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    assert!(polls.load(Ordering::SeqCst) > KILLS, "the reader was there all along");
    assert!(cut_short > KILLS / 20, "only {cut_short} of {KILLS} kills hit a write");
    // What killed writers left is cleaned up by the next.
    run(async { open(&file).await.expect("a registry").apply("p", &entity("1", String::new())).await })
        .expect("an apply");
    let left: BTreeSet<_> =
        fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("a file").file_name()).collect();
    assert_eq!(left, [".registry.db.lock", "registry.db"].map(Into::into).into(), "what is in the folder");
}

#[test]
fn a_write_that_finds_no_room_leaves_the_old_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("registry.db");
    run(async { fill(&open(&file).await.expect("a registry"), 40).await });
    let before = fs::read(&file).expect("a file");
    // The shell's unit is 512 or 1024 bytes; a file of this size may be read, and a larger one cannot be written.
    let writer = writer_command(&file, 0, 1_000_000);
    let mut limited = Command::new("sh");
    limited
        .args(["-c", "trap '' XFSZ; ulimit -f 300; exec \"$0\" \"$@\""])
        .arg(writer.get_program())
        .args(writer.get_args());
    limited.envs(writer.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = limited.output().expect("a shell");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let failed = text.lines().find_map(|line| said(line, "failed ")).unwrap_or_else(|| panic!("no failure in {text}"));
    assert!(failed.starts_with("Unavailable") && failed.contains("make room"), "{failed}");
    assert_eq!(fs::read(&file).expect("a file"), before, "the old file is as it was");
    assert!(!has_temporary(folder.path()), "the half of the new one is gone");
}

/// A real file system that is full, which takes an administrator and Linux to make; the limit above is for everybody.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_leaves_the_old_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=512k", "none"]).arg(folder.path()).output();
    if !mount.is_ok_and(|output| output.status.success()) {
        return not_checked("a full disk: only an administrator can mount a small one");
    }
    let file = folder.path().join("registry.db");
    let found = std::panic::catch_unwind(|| {
        run(async { fill(&open(&file).await.expect("a registry"), 40).await });
        let before = fs::read(&file).expect("a file");
        run(async {
            let registry = open(&file).await.expect("a registry");
            let error = registry.apply("p", &entity("1", "d".repeat(600_000))).await.expect_err("there is no room");
            let text = error.to_string();
            assert!(error.kind() == ErrorKind::Unavailable && text.contains("make room"), "{text}");
            assert_eq!(fs::read(&file).expect("a file"), before, "the old file is as it was");
            assert!(!has_temporary(folder.path()), "the half of the new one is gone");
            registry.apply("p", &entity("2", String::new())).await.expect("there is room for this one");
        });
    });
    let unmounted = Command::new("umount").arg(folder.path()).status();
    assert!(unmounted.is_ok_and(|status| status.success()), "the small disk stays mounted");
    found.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

/// Says that something cannot be checked here, which CI must be able to.
#[cfg(target_os = "linux")]
fn not_checked(what: &str) {
    assert!(std::env::var_os("CI").is_none(), "NOT CHECKED: {what}");
    eprintln!("NOT CHECKED: {what}");
}

/// The kind of error that a registry at a path fails with, and its text.
fn refusal(file: &Path) -> (ErrorKind, String) {
    run(async {
        let opened = async { open(file).await?.apply("p", &entity("driver", String::new())).await }.await;
        let error = opened.expect_err("this cannot be a registry");
        (error.kind(), error.to_string())
    })
}

#[test]
fn what_is_no_registry_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("registry.db");
    let cases: [(&str, &[u8]); 6] = [
        ("an empty file", b""),
        ("text", b"project: driver_ranking\n"),
        ("JSON", b"{\"entities\": []}"),
        ("SQLite", b"SQLite format 3\0\x10\x00\x01\x01\0\x40\x20\x20"),
        ("a torn registry", &[0x0a, 0x7f, 0x0a, 0x02]),
        ("a message of something else", &[0xfa, 0x3f, 0x01, 0x61]),
    ];
    for (what, bytes) in cases {
        fs::write(&file, bytes).expect("a file");
        let (kind, text) = refusal(&file);
        assert_eq!(kind, ErrorKind::Corrupt, "{what}: {text}");
        assert!(text.contains("registry.db") && text.contains("left as it is"), "{what}: {text}");
        assert_eq!(fs::read(&file).expect("the file"), bytes, "{what} is left as it is");
    }
}

#[test]
fn a_folder_or_a_missing_or_read_only_one_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let (kind, text) = refusal(folder.path());
    assert_eq!(kind, ErrorKind::InvalidConfig, "{text}");
    assert!(text.contains("is a folder"), "{text}");
    let (kind, text) = refusal(&folder.path().join("not/there/registry.db"));
    assert_eq!(kind, ErrorKind::InvalidConfig, "{text}");
    assert!(text.contains("its folder must be there"), "{text}");
    // One that is missing alone is made, as Feast does.
    let made = folder.path().join("data/registry.db");
    run(async { fill(&open(&made).await.expect("a registry"), 1).await });
    assert!(made.is_file());
    // A folder in which not even the administrator can make a file.
    let (kind, text) = refusal(Path::new("/sys/kernel/registry.db"));
    assert_eq!(kind, ErrorKind::ReadOnly, "{text}");
    assert!(text.contains("must be writable"), "{text}");
}

#[cfg(unix)]
#[test]
fn a_symbolic_link_stays_one_and_permissions_stay_too() {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    let folder = tempfile::tempdir().expect("a folder");
    let real = folder.path().join("real");
    fs::create_dir(&real).expect("a folder");
    let (file, link) = (real.join("target.db"), folder.path().join("registry.db"));
    symlink("real/target.db", &link).expect("a link");
    run(async {
        // It leads nowhere yet.
        let registry = open(&link).await.expect("a registry");
        registry.apply("p", &entity("1", String::new())).await.expect("an apply");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).expect("permissions");
        registry.apply("p", &entity("2", String::new())).await.expect("an apply");
    });
    assert!(fs::symlink_metadata(&link).expect("a link").is_symlink(), "the link is still one");
    assert_eq!(fs::metadata(&file).expect("a file").permissions().mode() & 0o777, 0o640);
    assert_eq!(run(async { numbers(&open(&file).await.expect("a registry")).await }), [1, 2].into());
    symlink("loop.db", folder.path().join("loop.db")).expect("a link");
    let (kind, text) = refusal(&folder.path().join("loop.db"));
    assert!(kind == ErrorKind::InvalidConfig || kind == ErrorKind::Unavailable, "{text}");
}

/// What Feast does: it reads, and later truncates and writes the file in place, without a lock.
#[test]
fn a_write_of_feasts_between_two_of_ours_is_seen() {
    let folder = tempfile::tempdir().expect("a folder");
    let file: PathBuf = folder.path().join("registry.db");
    run(async {
        let registry = open(&file).await.expect("a registry");
        registry.apply("p", &entity("0", String::new())).await.expect("an apply");
        for number in 1..40 {
            let mut message = RegistryMessage::decode(&*fs::read(&file).expect("a file")).expect("a registry");
            let mut theirs = entity(&(1000 + number).to_string(), String::new());
            theirs.spec.get_or_insert_default().project = "p".to_owned();
            message.entities.push(theirs);
            message.version_id = format!("00000000-0000-4000-8000-{number:012}");
            fs::write(&file, message.encode_to_vec()).expect("a write in place");
            registry.apply("p", &entity(&number.to_string(), String::new())).await.expect("an apply");
        }
        let found = numbers(&registry).await;
        let expected: BTreeSet<usize> = (0..40).chain(1001..1040).collect();
        assert_eq!(found, expected, "all of Feast's and all of ours");
    });
}

#[test]
fn commits_that_wait_share_a_write() {
    let folder = tempfile::tempdir().expect("a folder");
    run(async {
        let backend = Arc::new(FileBackend::local(folder.path().join("registry.db"), SchemaMode::Auto));
        backend.prepare(&Deadline::after(Duration::from_secs(60))).await.expect("a registry");
        let registry = Registry::open(Arc::clone(&backend) as Arc<_>, RegistryOptions::default()).await.expect("open");
        fill(&registry, 400).await;
        let before = backend.statistics();
        let writers = (0..64).map(|number| {
            let registry = registry.clone();
            tokio::spawn(async move { registry.apply("p", &entity(&number.to_string(), String::new())).await })
        });
        for writer in writers.collect::<Vec<_>>() {
            writer.await.expect("a task").expect("an apply");
        }
        let after = backend.statistics();
        let (commits, writes) = (after.commits - before.commits, after.writes - before.writes);
        assert_eq!((numbers(&registry).await.len(), commits), (64, 64));
        assert!(writes <= 16, "64 commits at once took {writes} writes of the file");
    });
}

/// The process whose memory is measured: it reads a registry, and changes it until it has been read in anew.
#[cfg(target_os = "linux")]
#[test]
fn reader() {
    let Ok(file) = std::env::var("REGISTRY_FILE_READER") else { return };
    let peak = || {
        let status = fs::read_to_string("/proc/self/status").expect("Linux says what a process takes");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    };
    run(async {
        // What the program takes by itself, with a registry that is hardly one.
        let small = Path::new(&file).with_file_name("small.db");
        open(&small).await.expect("a registry").apply("p", &entity("1", String::new())).await.expect("an apply");
        let before = peak();
        let registry = open(Path::new(&file)).await.expect("a registry");
        for round in 0..4 {
            fill(&registry, 1000 + round * 500).await;
            assert!(numbers(&registry).await.is_empty());
        }
        let message = format!("\npeak {} .\n", peak() - before);
        std::io::stdout().lock().write_all(message.as_bytes()).expect("somebody listens");
    });
}

#[cfg(target_os = "linux")]
#[test]
fn memory_is_at_most_three_times_the_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("registry.db");
    run(async { fill(&open(&file).await.expect("a registry"), 5_000).await });
    let mut reader = this_program("reader");
    let output = reader.env("REGISTRY_FILE_READER", &file).output().expect("a reader");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let peak = text.lines().find_map(|line| said(line, "peak ")).unwrap_or_else(|| panic!("no peak in {text}"));
    let (peak, size) = (peak.parse::<u64>().expect("a number"), fs::metadata(&file).expect("a file").len());
    eprintln!("the file has {size} bytes; reading and changing it took {peak} at the most");
    assert!(size > 12_000_000, "a registry of 13 MB");
    assert!(peak < 3 * size, "a file of {size} bytes took {peak}");
}
