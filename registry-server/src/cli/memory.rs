//! What the allocator does with memory that is freed.

#[cfg(all(target_os = "linux", target_env = "gnu"))]
use std::os::unix::process::CommandExt;

/// Has glibc give large pieces of memory back to the system when they are freed, however many there were.
///
/// glibc has them from the system one by one, until the first is freed: from then on it keeps pieces of that size to itself,
/// in a heap for each thread, whose holes the next lists do not fit. With lists of 30 MB and clients who leave, a server then
/// had three times the memory that it used. Whoever names a size turns that off; it is only read when a program starts, so this
/// one starts once more, as the same process. Nothing is done where that is not possible, or the size is named already.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(super) fn give_back_what_is_freed() {
    const THRESHOLD: &str = "MALLOC_MMAP_THRESHOLD_";
    const ONE_MEGABYTE: &str = "1048576";
    // A program with the rights of another user, or with capabilities, does not get to see what glibc is told: without a mark
    // of its own it would start for ever.
    const HAS_STARTED_AGAIN: &str = "FEAST_REGISTRY_HAS_STARTED_AGAIN";
    let is_named = |variable| std::env::var_os(variable).is_some();
    let mut arguments = std::env::args_os();
    let (Ok(program), Some(name)) = (std::env::current_exe(), arguments.next()) else { return };
    // A program that was started through the dynamic loader would start the loader.
    let is_loader = program.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"ld-"));
    if is_loader || [HAS_STARTED_AGAIN, THRESHOLD, "GLIBC_TUNABLES"].into_iter().any(is_named) {
        return;
    }
    let mut again = std::process::Command::new(program);
    // It returns only if it fails, and then all is as before.
    drop(again.arg0(name).args(arguments).env(THRESHOLD, ONE_MEGABYTE).env(HAS_STARTED_AGAIN, "1").exec());
}

/// Other allocators need not be told.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(super) fn give_back_what_is_freed() {}
