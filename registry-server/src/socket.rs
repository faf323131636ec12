//! A Unix socket to serve on: only for this machine, guarded by the rights of a file, and without a port.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::{fs, path};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use rustix::fs::{Mode, OFlags, fchmod};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, listen, socket};
use tokio::net::UnixListener;

/// How many bytes the path of a socket may have: what all systems have room for, but for the zero at its end.
const LONGEST_PATH: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// How many connections the system keeps until they are taken, if it allows so many.
pub(crate) const BACKLOG: u16 = 4096;

/// A Unix socket that listens. The socket file is removed when this is dropped.
///
/// A lock on the file `PATH.lock` says that somebody listens at `PATH`. It ends with its process however that ends, so a socket
/// file without it is one that a killed server has left, and is replaced. The lock file stays: to remove it would let two
/// servers hold locks on two files of one name.
#[derive(Debug)]
pub struct UnixSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Which file it is: device and number.
    file: (u64, u64),
    _lock: File,
}

impl UnixSocket {
    /// Listens at a path, for those whom these permissions let write to the file, such as 0o600. Called within a runtime.
    ///
    /// # Errors
    /// [`AddrInUse`](ErrorKind::AddrInUse): another server listens there. [`AlreadyExists`](ErrorKind::AlreadyExists): there is a
    /// file that is no socket. [`InvalidInput`](ErrorKind::InvalidInput): the path is too long for a socket. Else as the file system says.
    pub fn bind(path: &Path, mode: u32) -> io::Result<Self> {
        let path = path::absolute(path)?;
        if !Self::has_room(&path) {
            let (shown, length) = (path.display(), path.as_os_str().len());
            let problem = format!("the path of a socket has at most {LONGEST_PATH} bytes, and {shown} has {length}");
            return Err(io::Error::new(ErrorKind::InvalidInput, problem));
        }
        let lock = lock(&path)?;
        make_room(&path)?;
        let socket = socket(AddressFamily::UNIX, SocketType::STREAM, None)?;
        // A program that is started by this one would keep it open, and clients would wait for answers when this one is gone.
        fcntl_setfd(&socket, FdFlags::CLOEXEC)?;
        // Before there is a file that somebody else could open. Where the system does not heed it, it counts from the next step on.
        fchmod(&socket, Mode::from_raw_mode(mode as _)).ok();
        bind(&socket, &SocketAddrUnix::new(&path)?)?;
        let found = fs::symlink_metadata(&path)?;
        if found.permissions().mode() & 0o777 != mode {
            fs::set_permissions(&path, Permissions::from_mode(mode))?;
        }
        listen(&socket, BACKLOG.into())?;
        let listener = std::os::unix::net::UnixListener::from(socket);
        listener.set_nonblocking(true)?;
        Ok(Self { listener: UnixListener::from_std(listener)?, file: (found.dev(), found.ino()), path, _lock: lock })
    }

    /// Whether a socket can have this absolute path: the system has room for about a hundred bytes.
    pub fn has_room(path: &Path) -> bool {
        path.as_os_str().len() <= LONGEST_PATH
    }

    /// Where it is, from the root on.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What clients of gRPC call it: `unix://` and its path, in which `%` stands before what a URI may not have.
    pub fn address(&self) -> String {
        /// What a path in a URI may have as it is (RFC 3986, 3.3), and what gRPC takes for something else if it does.
        const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
            .remove(b'/')
            .remove(b'-')
            .remove(b'_')
            .remove(b'.')
            .remove(b'~')
            .remove(b'+')
            .remove(b'@')
            .remove(b':');
        format!("unix://{}", percent_encode(self.path.as_os_str().as_bytes(), ENCODED))
    }

    pub(crate) fn listener(&self) -> &UnixListener {
        &self.listener
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        // Somebody may have put something else there meanwhile.
        let is_ours = fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.file);
        if is_ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(%error, "the socket {} cannot be removed", self.path.display());
        }
    }
}

/// The path with something after it.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut beside = path.as_os_str().to_owned();
    beside.push(suffix);
    beside.into()
}

/// Opens a file to lock, which is made if it is not there, for its user alone.
pub(crate) fn lock_file(path: &Path) -> io::Result<File> {
    // In a folder that others may write to, a link could lead to a file that is not to be touched.
    let no_link = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or_default();
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(no_link).open(path)
}

fn lock(path: &Path) -> io::Result<File> {
    let lock_path = beside(path, ".lock");
    let explained = |error: io::Error| {
        io::Error::new(error.kind(), format!("the lock file {} cannot be had: {error}", lock_path.display()))
    };
    let file = lock_file(&lock_path).map_err(explained)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(in_use(path)),
        Err(fs::TryLockError::Error(error)) => Err(explained(error)),
    }
}

fn in_use(path: &Path) -> io::Error {
    io::Error::new(ErrorKind::AddrInUse, format!("another server listens on {}", path.display()))
}

/// Removes a socket that nobody listens at.
fn make_room(path: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !found.file_type().is_socket() {
        let problem = format!("{} is there already and is no socket; it was left as it is", path.display());
        return Err(io::Error::new(ErrorKind::AlreadyExists, problem));
    }
    // It may be that of another program, which knows nothing of the lock.
    match StdUnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Err(in_use(path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("it is there").permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn a_socket_is_one_servers_and_goes_with_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("registry.sock");
        let socket = UnixSocket::bind(&path, 0o640).expect("a socket");
        assert_eq!((mode(&path), mode(&beside(&path, ".lock"))), (0o640, 0o600));
        StdUnixStream::connect(&path).expect("it listens");
        let second = UnixSocket::bind(&path, 0o600).expect_err("one is enough");
        assert_eq!(second.kind(), ErrorKind::AddrInUse);
        assert_eq!(mode(&path), 0o640, "the second has changed nothing");
        drop(socket);
        assert!(!path.exists());
        drop(UnixSocket::bind(&path, 0o600).expect("the place is free again"));
    }

    #[tokio::test]
    async fn what_a_killed_server_has_left_is_replaced_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("registry.sock");
        // Its file stays, as after kill -9.
        drop(std::os::unix::net::UnixListener::bind(&path).expect("a socket"));
        let socket = UnixSocket::bind(&path, 0o600).expect("nobody listens");
        StdUnixStream::connect(&path).expect("it listens");

        // Another program has taken the place: it is not removed.
        fs::remove_file(&path).expect("removed");
        let other = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
        drop(socket);
        StdUnixStream::connect(&path).expect("the other listens");
        assert_eq!(UnixSocket::bind(&path, 0o600).expect_err("it is taken").kind(), ErrorKind::AddrInUse);
        drop(other);

        let file = folder.path().join("notes.txt");
        fs::write(&file, "kept").expect("written");
        assert_eq!(UnixSocket::bind(&file, 0o600).expect_err("no socket").kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&file).expect("it is there"), "kept");
    }

    #[tokio::test]
    async fn an_address_is_a_uri() {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = UnixSocket::bind(&folder.path().join("a%41 b?#ü.sock"), 0o600).expect("a socket");
        assert_eq!(socket.address(), format!("unix://{}/a%2541%20b%3F%23%C3%BC.sock", folder.path().display()));
    }

    #[tokio::test]
    async fn a_path_that_is_too_long_is_named_with_the_bound() {
        let path = Path::new("/tmp").join("x".repeat(LONGEST_PATH));
        let error = UnixSocket::bind(&path, 0o600).expect_err("too long");
        assert!(error.to_string().contains(&format!("at most {LONGEST_PATH} bytes")), "{error}");
    }
}
