//! A server for this process and those that it starts, for as long as a command runs: on a socket in a folder that is for this user alone.

use std::env;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow};
use feast_registry::Registry;
use rustix::process::geteuid;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::socket::{beside, lock_file};
use crate::{ServeOptions, UnixSocket, serve};

/// What begins the names of the folders.
const PREFIX: &str = "feast-registry-run-";
const SOCKET: &str = "registry.sock";
/// Who may use the socket: the user.
const OWNER_ALONE: u32 = 0o600;

/// After which time a folder without a server is one that was left: a younger one may be in the making.
const LEFT_AFTER: Duration = Duration::from_secs(60);

/// A folder for this user alone, which is removed when it is dropped.
pub(super) struct PrivateFolder(TempDir);

impl PrivateFolder {
    /// Makes a folder in which there is room for a socket, and removes those of processes that were killed.
    pub(super) fn new() -> Result<Self> {
        let runtime = env::var_os("XDG_RUNTIME_DIR").filter(|path| !path.is_empty()).map(PathBuf::from);
        let parents = runtime.into_iter().chain([env::temp_dir(), PathBuf::from("/tmp")]);
        let mut failed = None;
        for parent in parents {
            remove_left_overs(&parent);
            let mut folder = tempfile::Builder::new();
            match folder.prefix(PREFIX).permissions(Permissions::from_mode(0o700)).tempdir_in(&parent) {
                Ok(folder) if UnixSocket::has_room(&folder.path().join(SOCKET)) => return Ok(Self(folder)),
                // Its path is too long for a socket.
                Ok(_) => {}
                Err(error) => {
                    let problem = format!("cannot make a folder in {} (TMPDIR names another)", parent.display());
                    failed.get_or_insert(Error::new(error).context(problem));
                }
            }
        }
        Err(failed.unwrap_or_else(|| anyhow!("the paths of all temporary folders are too long for a socket")))
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Listens on a socket in it.
    pub(super) fn listen(&self) -> Result<UnixSocket> {
        UnixSocket::bind(&self.path().join(SOCKET), OWNER_ALONE)
            .with_context(|| format!("cannot listen in {}", self.path().display()))
    }
}

/// A registry that is served by this process.
pub(super) struct PrivateServer {
    registry: Registry,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<feast_registry::Result<()>>,
}

impl PrivateServer {
    /// Serves until [`stop`](Self::stop) is called.
    pub(super) fn start(registry: Registry, socket: UnixSocket, options: ServeOptions) -> Self {
        let (stop, is_stopped) = oneshot::channel();
        let serving = serve(registry.clone(), socket, options, async { drop(is_stopped.await) });
        Self { registry, stop, serving: tokio::spawn(serving) }
    }

    /// Finishes the calls that are under way, and closes the registry.
    ///
    /// # Errors
    /// When it was not served until now.
    pub(super) async fn stop(self) -> Result<()> {
        // Nobody listens if it has ended by itself.
        self.stop.send(()).ok();
        let served = self.serving.await;
        // What waited has been written by now, or logged.
        drop(self.registry.close().await);
        Ok(served.context("the server ended early")??)
    }
}

/// Removes folders of this kind whose servers are gone: their locks have ended with them.
fn remove_left_overs(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX)) {
        let path = entry.path();
        let Ok(found) = fs::symlink_metadata(&path) else { continue };
        let age = found.modified().ok().and_then(|modified| modified.elapsed().ok()).unwrap_or_default();
        if !found.is_dir() || found.uid() != geteuid().as_raw() || age < LEFT_AFTER {
            continue;
        }
        let lock = beside(&path.join(SOCKET), ".lock");
        // One that was killed early has left no lock.
        if !lock.exists() || lock_file(&lock).is_ok_and(|lock| lock.try_lock().is_ok()) {
            fs::remove_dir_all(&path).ok();
        }
    }
}
