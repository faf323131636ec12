//! Who may read, write and stop a registry in a local file, on a machine with other users.

#![cfg(unix)]

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use feast_registry_core::config::SchemaMode;
use feast_registry_core::proto::core::{Entity, EntitySpecV2};
use feast_registry_core::{Error, ErrorKind, Registry, RegistryOptions};
use feast_registry_file::FileBackend;

mod this_program;

use this_program::this_program;

const LOCK: &str = ".registry.db.lock";

/// Users and a group that need not exist.
const NOBODY: u32 = 65534;
const ALICE: u32 = 64001;
const BOB: u32 = 64002;
const TEAM: u32 = 64010;

/// Applies an entity, in this process.
fn apply(file: &Path, name: &str, bytes: usize) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let registry =
            Registry::open(Arc::new(FileBackend::local(file, SchemaMode::Auto)), RegistryOptions::default()).await?;
        let description = "d".repeat(bytes);
        let spec = EntitySpecV2 { name: name.to_owned(), join_key: name.to_owned(), description, ..Default::default() };
        registry.apply("p", &Entity { spec: Some(spec), meta: None }).await.map(drop)
    })
}

/// A process of another user: it applies an entity.
#[test]
fn writer() {
    let Ok(job) = std::env::var("REGISTRY_FILE_ACCESS") else { return };
    let (name, file) = job.split_once(' ').expect("a name and a file");
    apply(Path::new(file), name, 10).expect("an apply");
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).expect("a file").mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("permissions");
}

/// Whether this process may become another user; where not, modes are all that can be checked, which CI must not do.
fn can_be_others() -> bool {
    let is_root = Command::new("true").uid(NOBODY).gid(NOBODY).status().is_ok_and(|status| status.success());
    if !is_root {
        assert!(std::env::var_os("CI").is_none(), "NOT CHECKED: what other users can do; run this test as root");
        eprintln!("NOT CHECKED: what other users can do, only modes; run this test as root");
    }
    is_root
}

fn succeeds_as(user: u32, program: &str, args: &[&str]) -> bool {
    let mut command = Command::new(program);
    let status = command.args(args).uid(user).gid(user).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.unwrap_or_else(|error| panic!("{program} cannot be run: {error}")).success()
}

#[test]
fn a_new_registry_is_its_owners_alone_and_so_is_what_it_is_written_to() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("registry.db");
    apply(&file, "0", 3_000_000).expect("an apply");
    assert_eq!((mode(&file), mode(&folder.path().join(LOCK))), (0o600, 0o600));
    let is_over = AtomicBool::new(false);
    let seen: BTreeSet<u32> = std::thread::scope(|scope| {
        let look = || {
            let mut seen = BTreeSet::new();
            while !is_over.load(Ordering::SeqCst) {
                for entry in fs::read_dir(&folder).expect("a folder").flatten() {
                    if entry.file_name().as_encoded_bytes().ends_with(b".tmp")
                        && let Ok(metadata) = entry.metadata()
                    {
                        seen.insert(metadata.mode() & 0o777);
                    }
                }
            }
            seen
        };
        let looking = scope.spawn(look);
        let applied: Result<Vec<()>, Error> = (1..40).map(|number| apply(&file, &number.to_string(), 10)).collect();
        is_over.store(true, Ordering::SeqCst);
        applied.expect("applies");
        looking.join().expect("looks")
    });
    assert_eq!(seen, [0o600].into(), "the modes in which temporary files were seen");
    assert_eq!(mode(&file), 0o600);
}

#[test]
fn who_may_only_read_cannot_hold_the_lock() {
    let folder = tempfile::tempdir().expect("a folder");
    set_mode(folder.path(), 0o755);
    let (file, lock) = (folder.path().join("registry.db"), folder.path().join(LOCK));
    // As an earlier version left it.
    fs::write(&lock, "").expect("a lock file");
    set_mode(&lock, 0o644);
    apply(&file, "0", 10).expect("an apply");
    for (registry, expected) in [(0o600, 0o600), (0o644, 0o600), (0o664, 0o660), (0o660, 0o660), (0o666, 0o666)] {
        set_mode(&file, registry);
        apply(&file, "1", registry as usize).expect("an apply");
        assert_eq!((mode(&file), mode(&lock)), (registry, expected), "of a registry with {registry:o}");
    }
    set_mode(&file, 0o644);
    apply(&file, "2", 10).expect("an apply");
    if can_be_others() {
        let path = |path: &Path| path.display().to_string();
        assert!(succeeds_as(NOBODY, "cat", &[&path(&file)]), "they may read the registry");
        assert!(!succeeds_as(NOBODY, "flock", &["-n", &path(&lock), "true"]), "they can hold its lock");
        assert!(succeeds_as(0, "flock", &["-n", &path(&lock), "true"]), "so can nobody");
    }
}

#[test]
fn a_group_that_may_write_goes_on_writing() {
    if !can_be_others() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    chown(folder.path(), Some(ALICE), Some(TEAM)).expect("a folder of the team's");
    set_mode(folder.path(), 0o2770);
    let (file, lock) = (folder.path().join("registry.db"), folder.path().join(LOCK));
    let write = |user: u32, name: &str| {
        let mut command = this_program("writer");
        command.env("REGISTRY_FILE_ACCESS", format!("{name} {}", file.display())).uid(user).gid(TEAM);
        let output = command.output().expect("a writer");
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        output.status.success().then_some(()).ok_or(text)
    };
    write(ALICE, "0").expect("the first");
    assert_eq!((mode(&file), mode(&lock)), (0o600, 0o600));
    assert!(write(BOB, "1").expect_err("it is Alice's alone").contains("Permission denied"));
    set_mode(&file, 0o660);
    for (round, user) in [ALICE, BOB, ALICE, BOB, BOB, ALICE].into_iter().enumerate() {
        write(user, &round.to_string().repeat(2)).unwrap_or_else(|text| panic!("round {round}, user {user}: {text}"));
        let metadata = fs::metadata(&file).expect("the file");
        assert_eq!((metadata.uid(), metadata.gid(), mode(&file)), (user, TEAM, 0o660), "round {round}");
        assert_eq!((fs::metadata(&lock).expect("the lock").gid(), mode(&lock)), (TEAM, 0o660), "round {round}");
    }
    // An administrator takes nothing away from them.
    fs::remove_file(&lock).expect("the lock");
    apply(&file, "admin", 10).expect("an apply");
    let metadata = fs::metadata(&file).expect("the file");
    assert_eq!((metadata.uid(), metadata.gid(), mode(&file)), (ALICE, TEAM, 0o660));
    write(BOB, "last").expect("the last");
}

#[test]
fn what_is_in_the_way_does_no_harm() {
    let folder = tempfile::tempdir().expect("a folder");
    let in_folder = |name: &str| folder.path().join(name);
    let file = in_folder("registry.db");
    let id = "00000000-0000-4000-8000-000000000000";
    let leftovers = [".registry.db.tmp".to_owned(), format!(".registry.db.{id}.tmp")];
    let others = [
        "registry.db.tmp".to_owned(),
        ".registry.db.notes.tmp".to_owned(),
        format!(".other.db.{id}.tmp"),
        format!(".registry.db.{id}.tmp2"),
    ];
    for name in leftovers.iter().chain(&others) {
        fs::write(in_folder(name), "left").expect("a file");
    }
    apply(&file, "0", 10).expect("an apply");
    for name in &leftovers {
        assert!(!in_folder(name).exists(), "{name} is left over");
        fs::create_dir(in_folder(name)).expect("a folder in the way");
    }
    apply(&file, "1", 10).expect("an apply");
    fs::write(in_folder("mine"), "mine").expect("a file");
    for name in &leftovers {
        fs::remove_dir(in_folder(name)).expect("it is left as it is");
        symlink("mine", in_folder(name)).expect("a link in the way");
    }
    apply(&file, "2", 10).expect("an apply");
    assert_eq!(fs::read(in_folder("mine")).expect("the file"), b"mine");
    for name in &others {
        assert_eq!(fs::read(in_folder(name)).expect("it is not ours"), b"left", "{name}");
    }
}

#[test]
fn no_link_is_followed_to_the_lock() {
    let folder = tempfile::tempdir().expect("a folder");
    let (file, lock) = (folder.path().join("registry.db"), folder.path().join(LOCK));
    let mine = folder.path().join("mine");
    for is_dangling in [true, false] {
        if !is_dangling {
            fs::write(&mine, "mine").expect("a file");
            set_mode(&mine, 0o644);
        }
        symlink("mine", &lock).expect("a link");
        let error = apply(&file, "0", 10).expect_err("the lock is a link");
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
        assert!(error.to_string().contains(LOCK) && error.to_string().contains("remove it"), "{error}");
        assert!(!file.exists() && mine.exists() != is_dangling, "nothing is made");
        fs::remove_file(&lock).expect("the link");
    }
    // A file that somebody has under another name is locked, and left as it is.
    fs::hard_link(&mine, &lock).expect("a second name");
    apply(&file, "0", 10).expect("an apply");
    assert_eq!((fs::read(&mine).expect("the file"), mode(&mine)), (b"mine".to_vec(), 0o644));
}
