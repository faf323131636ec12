//! Whether this process may write a file, found out before anything is tried.
//!
//! The file is not opened for that: to close it again would take away all locks that SQLite has on it in this process.

use std::path::Path;

/// Why a registry file that is there cannot be written by this process; `None` if it can, as far as is known, or if there
/// is no file yet.
pub(crate) fn refusal(path: &Path) -> Option<String> {
    // SQLite keeps its other files beside the one that symbolic links lead to.
    let path = path.canonicalize().ok()?;
    let refusal = |path: &Path, what: &str| {
        let error = denied(path)?;
        Some(format!("{what} `{}` cannot be written by this process ({error})", path.display()))
    };
    if let Some(refusal) = refusal(&path, "the file") {
        return Some(refusal);
    }
    let beside = ["-wal", "-shm"].map(|suffix| super::files::beside(&path, suffix));
    for file in beside.iter().filter(|file| file.exists()) {
        if let Some(refusal) = refusal(file, "the file") {
            return Some(refusal);
        }
    }
    // Nothing has to be made in the folder while both are there.
    if beside.iter().all(|file| file.exists()) {
        return None;
    }
    refusal(path.parent()?, "its folder")
}

/// Why a file or folder cannot be written, if it is for lack of rights or because its file system is read-only.
#[cfg(unix)]
fn denied(path: &Path) -> Option<std::io::Error> {
    use rustix::fs::{Access, AtFlags, CWD, accessat};
    use rustix::io::Errno;
    let wanted = if path.is_dir() { Access::WRITE_OK | Access::EXEC_OK } else { Access::WRITE_OK };
    let error = accessat(CWD, path, wanted, AtFlags::EACCESS).err()?;
    [Errno::ACCESS, Errno::ROFS, Errno::PERM].contains(&error).then(|| error.into())
}

/// Elsewhere it shows when something is written.
#[cfg(not(unix))]
fn denied(_: &Path) -> Option<std::io::Error> {
    None
}
