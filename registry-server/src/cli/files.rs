//! How many files the process may have open.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Open files that are no connections: the storage's, its journal's, the log's, and some to spare.
const RESERVE: u64 = 128;

/// How many connections leave room for other files. The process may have as many files as the system lets it have: the soft
/// limit is there for old programs, which break when they have more than 1,024, and this is none.
pub(super) fn room_for_connections() -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current < limit.maximum || limit.maximum.is_none() {
        let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
        if setrlimit(Resource::Nofile, raised).is_ok() {
            limit = raised;
        }
    }
    let Some(files) = limit.current else { return usize::MAX };
    usize::try_from(files.saturating_sub(RESERVE).max(files / 2)).unwrap_or(usize::MAX)
}
