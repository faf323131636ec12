//! Replacing and removing the file, so that it survives a crash of the machine once that is acknowledged.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use feast_registry_core::{Error, ErrorKind, Result};
use uuid::Uuid;

use super::access::{self, Access};
use super::look::{Identity, State};
use super::{LocalFile, beside, folder_of, locked};
use crate::store::{Failure, Removal, Swapped};

/// How the name of the file ends that has what is left of a registry that was removed.
const LEFT: &str = ".removed";

/// How often the folder is synced when that fails, and the pauses in between.
const SYNCS: u32 = 4;
const SYNC_PAUSE: Duration = Duration::from_millis(10);

impl LocalFile {
    /// Replaces the file. The lock must be held.
    pub(super) fn swap_now(&self, expected: Option<&State>, bytes: &[u8]) -> Result<Swapped, Failure> {
        let target = self.target().map_err(Failure::certain)?;
        let written = self.write_temporary(&target, bytes);
        let (folder, temporary) = written.map_err(|error| Failure::certain(self.error("written", error)))?;
        // The last look, as late as can be: Feast takes no lock.
        let is_as_expected = match expected {
            Some(state) => self.is_in(state),
            None => self.open().map(|found| found.is_none()),
        };
        if !is_as_expected.map_err(Failure::certain)? {
            return Ok(Swapped::Changed);
        }
        let file = temporary.rename(&target).map_err(|error| Failure::certain(self.error("replaced", error)))?;
        // What was left of an earlier registry is in this one.
        let _ = fs::remove_file(beside(&target, LEFT));
        // From here on the file is the new one; a crash of the machine may still bring back the old one.
        let in_doubt = |error| Failure { error, is_in_doubt: true };
        self.sync(&folder).map_err(in_doubt)?;
        let identity = file.metadata().map_err(|error| in_doubt(self.error("synced to the disk", error)))?;
        let identity = Identity::of(&identity);
        *locked(&self.shared.durable) = Some(Some(identity.clone()));
        Ok(Swapped::Done(Arc::new(State::new(identity, bytes))))
    }

    /// Writes what will take the place of the file, and returns the open folder with it. That is opened first: once the file
    /// is replaced, it would be too late to find out that its folder cannot be synced.
    fn write_temporary(&self, target: &Path, bytes: &[u8]) -> io::Result<(Option<File>, Temporary)> {
        let folder = open_folder(target)?;
        remove_leftovers(target);
        let mut temporary = Temporary::make(target)?;
        temporary.file.write_all(bytes)?;
        // A new registry stays its owner's alone.
        if let Ok(old) = fs::metadata(target) {
            Access::of(&old).give_to(&temporary.file)?;
        }
        temporary.file.sync_all()?;
        Ok((folder, temporary))
    }

    /// Removes the file, and keeps what is to be left of it. The lock must be held.
    pub(super) fn remove_now(&self, expected: &State, left: &[u8]) -> Result<Removal> {
        let target = self.target()?;
        let folder = open_folder(&target).map_err(|error| self.error("removed", error))?;
        if !self.is_in(expected)? {
            return Ok(Removal::Changed);
        }
        if let Err(error) = self.keep_left(&target, left) {
            // A full disk is no reason not to remove anything.
            tracing::warn!(registry = %self.path.display(), %error, "the journal of the registry is removed with it");
            let _ = fs::remove_file(beside(&target, LEFT));
        }
        fs::remove_file(&target).map_err(|error| self.error("removed", error))?;
        self.sync(&folder)?;
        *locked(&self.shared.durable) = Some(None);
        Ok(Removal::Done)
    }

    fn keep_left(&self, target: &Path, left: &[u8]) -> io::Result<()> {
        let (_, temporary) = self.write_temporary(target, left)?;
        temporary.rename(&beside(target, LEFT)).map(drop)
    }

    /// What is left of a registry that was removed, if anything is.
    pub(super) fn left(&self) -> Option<Bytes> {
        let path = beside(&self.target().ok()?, LEFT);
        let mut file = access::follow_nothing(OpenOptions::new().read(true)).open(path).ok()?;
        let mut bytes = Vec::new();
        let is_file = file.metadata().ok()?.is_file();
        (is_file && file.read_to_end(&mut bytes).is_ok()).then(|| bytes.into())
    }

    /// Makes sure that what is there survives a crash of the machine, before anything is decided from it: whoever wrote it
    /// may have been killed before that, or have failed to. The lock must be held.
    ///
    /// Proved by `nothing_is_acknowledged_until_the_folder_is_synced`.
    pub(super) fn make_durable(&self, target: &Path) -> Result<()> {
        let opened = self.open()?;
        let identity = opened.as_ref().map(|(_, identity)| identity.clone());
        if locked(&self.shared.durable).as_ref() == Some(&identity) {
            return Ok(());
        }
        if let Some((file, _)) = opened
            && cfg!(unix)
        {
            file.sync_all().map_err(|error| self.error("synced to the disk", error))?;
        }
        self.sync(&open_folder(target).map_err(|error| self.error("synced to the disk", error))?)?;
        *locked(&self.shared.durable) = Some(identity);
        Ok(())
    }

    fn sync(&self, folder: &Option<File>) -> Result<()> {
        let Some(folder) = folder else { return Ok(()) };
        let mut tries = 0;
        loop {
            tries += 1;
            match (self.shared.sync_folder)(folder) {
                Ok(()) => return Ok(()),
                Err(_) if tries < SYNCS => std::thread::sleep(SYNC_PAUSE * tries),
                Err(error) => {
                    let text = format!(
                        "the folder of the registry file {} cannot be synced to the disk: {error}; what was written last \
                         is in place, but may not survive a crash of the machine, and nothing more is accepted until \
                         the disk can be synced",
                        self.path.display()
                    );
                    return Err(Error::new(ErrorKind::Unavailable, text).with_source(error));
                }
            }
        }
    }
}

/// Windows cannot open a folder, and need not.
fn open_folder(path: &Path) -> io::Result<Option<File>> {
    if cfg!(unix) { File::open(folder_of(path)).map(Some) } else { Ok(None) }
}

/// A new file that is removed again unless it takes its place. Nobody else can open it before that, nor foretell its name.
struct Temporary {
    path: Option<PathBuf>,
    file: File,
}

impl Temporary {
    fn make(target: &Path) -> io::Result<Self> {
        let path = beside(target, &format!(".{}.tmp", Uuid::new_v4()));
        let file = access::make_private(OpenOptions::new().write(true)).open(&path)?;
        Ok(Self { path: Some(path), file })
    }

    fn rename(mut self, target: &Path) -> io::Result<File> {
        if let Some(path) = &self.path {
            fs::rename(path, target)?;
        }
        self.path = None;
        self.file.try_clone()
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // If this fails too, the next writer removes it.
            let _ = fs::remove_file(path);
        }
    }
}

/// Removes what writers left that were killed. Only who holds the lock has a temporary file, and this is called before one
/// is made: all that are there are left over.
fn remove_leftovers(target: &Path) {
    let Ok(entries) = fs::read_dir(folder_of(target)) else { return };
    let Some(name) = target.file_name() else { return };
    for entry in entries.flatten() {
        let is_ours = is_temporary(entry.file_name().as_encoded_bytes(), name.as_encoded_bytes());
        // The entry's own type: not that of what a link leads to.
        if is_ours && entry.file_type().is_ok_and(|kind| kind.is_file()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Whether this is the name of a temporary file for a registry of that name.
fn is_temporary(name: &[u8], registry: &[u8]) -> bool {
    let between = || name.strip_prefix(b".")?.strip_prefix(registry)?.strip_suffix(b".tmp");
    match between() {
        // As earlier versions called it.
        Some(b"") => true,
        Some([b'.', id @ ..]) => id.len() == 36 && Uuid::try_parse_ascii(id).is_ok(),
        _ => false,
    }
}
