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

/// Why there can be no registry at a path for this process: there is no file, and none can be made, or it cannot be read.
pub(crate) fn absence(path: &Path) -> Option<String> {
    let Ok(found) = path.canonicalize() else {
        // Where a symbolic link leads to, it is for SQLite to find out.
        if path.symlink_metadata().is_ok() {
            return None;
        }
        let folder = path.parent()?;
        let error = denied(folder)?;
        return Some(format!(
            "there is no file `{}`, and none can be made, since the folder `{}` cannot be written by this process ({error}); \
             give it write access, or name a file that is there",
            path.display(),
            folder.display()
        ));
    };
    let error = unreadable(&found)?;
    Some(format!("the file `{}` cannot be read by this process ({error}); give it read access", found.display()))
}

#[cfg(unix)]
fn unreadable(path: &Path) -> Option<std::io::Error> {
    use rustix::fs::{Access, AtFlags, CWD, accessat};
    accessat(CWD, path, Access::READ_OK, AtFlags::EACCESS).err().map(Into::into)
}

#[cfg(not(unix))]
fn unreadable(_: &Path) -> Option<std::io::Error> {
    None
}

/// Why what is read of a file may not be all of it, though nothing is wrong with the file: writers know it by another name, or
/// in another folder, and keep there what is not yet in it.
pub(crate) fn separation(path: &Path) -> Option<String> {
    let path = path.canonicalize().ok()?;
    let file = path.display();
    let unseen = "what others commit is beside the file, where they have it, and would not be seen here";
    if is_mounted_alone(&path) {
        return Some(format!(
            "`{file}` is mounted by itself, without its folder, and cannot be written here: {unseen}. Mount its folder instead, \
             or serve it where it can be written"
        ));
    }
    (links(&path) > 1).then(|| {
        format!(
            "`{file}` has more than one name (hard links), and cannot be written here: {unseen} if they use another name. Give \
             it a single name, as a copy has that sqlite3 makes with `.backup`, or serve it where it can be written"
        )
    })
}

/// Whether the folder of a file is in another mount than the file.
#[cfg(target_os = "linux")]
fn is_mounted_alone(path: &Path) -> bool {
    use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
    let mount = |path: &Path| {
        let found = statx(CWD, path, AtFlags::empty(), StatxFlags::MNT_ID).ok()?;
        (found.stx_mask & StatxFlags::MNT_ID.bits() != 0).then_some(found.stx_mnt_id)
    };
    let Some(folder) = path.parent() else { return false };
    match (mount(path), mount(folder)) {
        (Some(of_file), Some(of_folder)) => of_file != of_folder,
        // Before Linux 5.8, or in a sandbox.
        _ => is_on_another_device(path, folder),
    }
}

#[cfg(all(unix, not(target_os = "linux")))]
fn is_mounted_alone(path: &Path) -> bool {
    path.parent().is_some_and(|folder| is_on_another_device(path, folder))
}

#[cfg(not(unix))]
fn is_mounted_alone(_: &Path) -> bool {
    false
}

#[cfg(unix)]
fn is_on_another_device(path: &Path, folder: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let device = |path: &Path| path.metadata().ok().map(|metadata| metadata.dev());
    device(path) != device(folder)
}

/// How many names a file has.
#[cfg(unix)]
fn links(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    path.metadata().map_or(1, |metadata| metadata.nlink())
}

#[cfg(not(unix))]
fn links(_: &Path) -> u64 {
    1
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
