//! Who may read and write the files beside the registry, and the new one in place of the old.

use std::fs::{self, File, OpenOptions};
use std::io;

/// The owner, the group and the permissions that a file is to have.
#[cfg(unix)]
pub(super) struct Access {
    owner: u32,
    group: u32,
    mode: u32,
}

#[cfg(unix)]
impl Access {
    /// Those of a file: who could read it can read the one that takes its place.
    pub(super) fn of(file: &fs::Metadata) -> Self {
        use std::os::unix::fs::MetadataExt as _;
        Self { owner: file.uid(), group: file.gid(), mode: file.mode() & 0o777 }
    }

    /// Those of the lock of such a file. Who can open a lock file can hold its lock and stop all writers, so it is
    /// for those who may write the registry.
    pub(super) fn of_lock(registry: &fs::Metadata) -> Self {
        let Self { owner, group, mode } = Self::of(registry);
        let writers = mode & 0o022;
        Self { owner, group, mode: 0o600 | writers | (writers << 1) }
    }

    /// Gives a file this access, as far as this process may; never more than that to anybody.
    ///
    /// Proved by `a_new_owner_or_group_widens_nothing`.
    pub(super) fn give_to(&self, file: &File) -> io::Result<()> {
        use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
        let now = file.metadata()?;
        let mut mode = self.mode;
        // The group first: who has given a file away cannot change it any more. Only an administrator can give one away;
        // everybody can to a group of his own.
        if now.gid() != self.group && fchown(file, None, Some(self.group)).is_err() {
            // What the group could do, the members of another one must not; and what the others could do, the members of
            // the old group, who are others now, perhaps could not.
            let both = (mode >> 3) & mode & 0o7;
            mode = (mode & 0o700) | (both << 3) | both;
        }
        if now.uid() != self.owner {
            // If it fails, the file is ours from now on, as that of any other writer was before.
            let _ = fchown(file, Some(self.owner), None);
        }
        // Where a file system has no permissions of its own, they are right already, and cannot be set.
        if now.mode() & 0o777 != mode {
            file.set_permissions(fs::Permissions::from_mode(mode))?;
        }
        Ok(())
    }
}

/// Other systems let a file inherit its access from its folder.
#[cfg(not(unix))]
pub(super) struct Access;

#[cfg(not(unix))]
impl Access {
    pub(super) fn of(_: &fs::Metadata) -> Self {
        Self
    }

    pub(super) fn of_lock(_: &fs::Metadata) -> Self {
        Self
    }

    pub(super) fn give_to(&self, _: &File) -> io::Result<()> {
        Ok(())
    }
}

/// To make a file that nobody else can open, wherever the umask stands.
pub(super) fn make_private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options.create_new(true)
}

/// To open a file by its own name: not what a symbolic link leads to, and without waiting for the other end of a pipe.
pub(super) fn follow_nothing(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(options, libc::O_NOFOLLOW | libc::O_NONBLOCK);
    options
}

/// Whether a file has this one name alone, and is not linked to from elsewhere.
pub(super) fn has_one_name(file: &fs::Metadata) -> bool {
    #[cfg(unix)]
    return std::os::unix::fs::MetadataExt::nlink(file) == 1;
    #[cfg(not(unix))]
    return true;
}
