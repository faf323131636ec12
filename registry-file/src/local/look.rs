//! Looking at the file: whether it is still as it was, and reading it.
//!
//! No clock is compared with another one: a file's time may come from another machine, lie in the future after a restore, or
//! have been set back. A file is told from another by what it says of itself, and how long it has been left alone is
//! measured by this process, by its own monotonic clock, from its first look at it.
//!
//! On NFS a look is as fresh as opening a file makes it, which asks the server.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use feast_registry_core::{Error, ErrorKind, Result, wire};

use super::{LocalFile, locked};
use crate::store::Loaded;

/// How long Feast's file must have been left alone before it counts as written: it may be between two steps of a write.
/// Proved by `feasts_file_is_believed_once_it_is_left_alone_whatever_its_time_says`.
const SETTLED: Duration = Duration::from_millis(20);

/// How long what is not whole must have been left alone before it counts as broken, rather than as half written by Feast,
/// which truncates a file before it serializes what it then writes.
const HALF_WRITTEN: Duration = Duration::from_secs(1);

/// How long a read waits for somebody who changes the file all the time.
const KEEPS_CHANGING: Duration = Duration::from_secs(5);

const PAUSE: Duration = Duration::from_millis(2);

/// The field of a registry that holds its `version_id`, which is another one after each write, Feast's too.
const VERSION_ID: u32 = 4;

/// How a `version_id` of 36 characters begins: its field's key, and its length.
const MARK: [u8; 2] = [0x22, 36];
const MARK_BYTES: usize = 38;

/// A state of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct State {
    file: Identity,
    /// `None` in a file that neither this library nor Feast wrote.
    mark: Option<Mark>,
}

impl State {
    /// The state of a file that holds these bytes.
    pub(super) fn new(file: Identity, bytes: &[u8]) -> Self {
        Self { file, mark: Mark::find(bytes) }
    }
}

/// What the file system knows a state of a file by. Two writes of Feast's may have the same one: file systems keep times in
/// steps of some milliseconds, some in steps of seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    file: (u64, u64),
    bytes: u64,
    modified: Option<SystemTime>,
    /// When anything about the file was changed, which no tool can set as it can the other time.
    changed: (i64, i64),
}

impl Identity {
    pub(super) fn of(metadata: &fs::Metadata) -> Self {
        #[cfg(unix)]
        let (file, changed) = {
            use std::os::unix::fs::MetadataExt as _;
            ((metadata.dev(), metadata.ino()), (metadata.ctime(), metadata.ctime_nsec()))
        };
        #[cfg(not(unix))]
        let (file, changed) = ((0, 0), (0, 0));
        Self { file, bytes: metadata.len(), modified: metadata.modified().ok(), changed }
    }

    /// Whether it is one file, in whichever state.
    pub(super) fn is_same_file(&self, other: &Self) -> bool {
        self.file == other.file
    }
}

/// The `version_id` and where it stands: no two writes have the same.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mark {
    offset: u64,
    bytes: [u8; MARK_BYTES],
}

impl Mark {
    fn find(bytes: &[u8]) -> Option<Self> {
        let mut offset = 0;
        for field in wire::fields(bytes) {
            let field = field.ok()?;
            if field.number == VERSION_ID {
                let bytes: [u8; MARK_BYTES] = field.raw.try_into().ok()?;
                return Some(Self { offset, bytes });
            }
            offset += field.raw.len() as u64;
        }
        None
    }

    fn is_in(&self, file: &mut File) -> io::Result<bool> {
        let mut found = [0; MARK_BYTES];
        file.seek(SeekFrom::Start(self.offset))?;
        match file.read_exact(&mut found) {
            Ok(()) => Ok(found == self.bytes),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// A file's identity, and since when this process has found no other.
pub(super) struct Watched {
    file: Identity,
    since: Instant,
}

impl LocalFile {
    /// Opens the file to read it. `None` when there is none.
    pub(super) fn open(&self) -> Result<Option<(File, Identity)>> {
        let kind = |metadata: fs::Metadata| {
            if metadata.is_dir() {
                return Err(Error::config(format!("the registry file {} is a folder", self.path.display())));
            }
            if !metadata.is_file() {
                // To open a pipe would wait for somebody to write to it.
                return Err(Error::config(format!("the registry file {} is not a regular file", self.path.display())));
            }
            Ok(())
        };
        let opened = || {
            kind(fs::metadata(&self.path).map_err(|error| self.unreadable(error))?)?;
            let file = File::open(&self.path).map_err(|error| self.unreadable(error))?;
            let metadata = file.metadata().map_err(|error| self.unreadable(error))?;
            Ok((file, Identity::of(&metadata)))
        };
        match opened() {
            Ok(opened) => Ok(Some(opened)),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether the file is in a state, without reading all of it.
    pub(super) fn is_in(&self, state: &State) -> Result<bool> {
        let Some((mut file, identity)) = self.open()? else { return Ok(false) };
        if identity != state.file {
            return Ok(false);
        }
        match &state.mark {
            Some(mark) => mark.is_in(&mut file).map_err(|error| self.unreadable(error)),
            None => Ok(true),
        }
    }

    /// Reads the file, unless it is in the state that is known.
    pub(super) fn load_now(&self, known: Option<&State>) -> Result<Loaded> {
        if let Some(state) = known
            && self.is_in(state)?
        {
            return Ok(Loaded::Unchanged);
        }
        let began = Instant::now();
        loop {
            let looked = Instant::now();
            let Some((file, identity)) = self.open()? else { return Ok(Loaded::Absent(self.left())) };
            let left_alone = looked.saturating_duration_since(self.watch(&identity));
            if let Some(bytes) = self.read(file, &identity, left_alone).map_err(|error| self.unreadable(error))? {
                let state = State::new(identity, &bytes);
                return Ok(Loaded::Changed(bytes.into(), Arc::new(state)));
            }
            if began.elapsed() > KEEPS_CHANGING {
                let (path, seconds) = (self.path.display(), KEEPS_CHANGING.as_secs());
                let text =
                    format!("another program has kept changing the registry file {path} for {seconds} s; try again");
                return Err(Error::new(ErrorKind::Unavailable, text));
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Reads a file that has been left alone for so long. `None` while it may be half written.
    pub(super) fn read(
        &self,
        mut file: File,
        identity: &Identity,
        left_alone: Duration,
    ) -> io::Result<Option<Vec<u8>>> {
        let mut bytes = Vec::new();
        file.by_ref().take(MARK_BYTES as u64).read_to_end(&mut bytes)?;
        // This library never writes in place.
        let is_ours = bytes.starts_with(&MARK) && bytes.len() == MARK_BYTES;
        if !is_ours && left_alone < SETTLED {
            return Ok(None);
        }
        bytes.reserve_exact(usize::try_from(identity.bytes).unwrap_or_default().saturating_sub(bytes.len()));
        file.read_to_end(&mut bytes)?;
        let is_torn = Identity::of(&file.metadata()?) != *identity || (left_alone < HALF_WRITTEN && !is_whole(&bytes));
        Ok((!is_torn).then_some(bytes))
    }

    /// Since when the file, which now has this identity, has not been seen with another one.
    fn watch(&self, file: &Identity) -> Instant {
        let mut watched = locked(&self.shared.watched);
        match &*watched {
            Some(watched) if watched.file == *file => watched.since,
            _ => {
                let since = Instant::now();
                *watched = Some(Watched { file: file.clone(), since });
                since
            }
        }
    }

    fn unreadable(&self, error: io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::PermissionDenied => Error::new(
                ErrorKind::InvalidConfig,
                format!("the registry file {} cannot be read: {error}", self.path.display()),
            )
            .with_source(error),
            _ => self.error("read", error),
        }
    }
}

fn is_missing(error: &Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
    source.is_some_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Whether bytes are whole fields, and any.
fn is_whole(bytes: &[u8]) -> bool {
    !bytes.is_empty() && wire::fields(bytes).all(|field| field.is_ok())
}
