//! Whether anybody uses a socket: who does holds a shared lock on a file beside it.
//!
//! A lock goes with its process, however that ends, and forked processes share it. So nobody has to say that they are gone.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::Duration;
use std::{future, thread};

use anyhow::{Context, Result};
use tokio::sync::oneshot;

use crate::socket::{beside, lock_file};

/// Tells when nobody has used a socket for a while.
pub(super) struct Unused(oneshot::Receiver<io::Result<File>>);

impl Unused {
    /// Begins to look. A thread waits for the locks, since nothing else tells that they are gone.
    pub(super) fn after(socket: &Path, time: Duration) -> Result<Self> {
        let path = beside(socket, ".users");
        let file = lock_file(&path).with_context(|| format!("the file {} cannot be locked", path.display()))?;
        let (tell, told) = oneshot::channel();
        let wait = move || drop(tell.send(wait(file, time)));
        thread::Builder::new().name("until-unused".to_owned()).spawn(wait).context("a thread cannot be started")?;
        Ok(Self(told))
    }
}

/// Completes when nobody has used the socket for as long as was said, if anything was said, with the lock that keeps others waiting until
/// they may start another server. Cancel-safe.
pub(super) async fn or_never(unused: Option<Unused>) -> File {
    let Some(Unused(told)) = unused else { return future::pending().await };
    match told.await {
        Ok(Ok(file)) => file,
        Ok(Err(error)) => {
            tracing::error!(%error, "it cannot be seen whether anybody uses the server, which therefore goes on");
            future::pending().await
        }
        // The thread sends something in any case.
        Err(_) => future::pending().await,
    }
}

/// Waits until nobody has held the lock for so long. Who has held it meanwhile has touched the file.
fn wait(file: File, apart: Duration) -> io::Result<File> {
    loop {
        match file.lock() {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        let touched = file.metadata()?.modified()?;
        file.unlock()?;
        thread::sleep(apart);
        match file.try_lock() {
            Ok(()) if file.metadata()?.modified()? != touched => file.unlock()?,
            Ok(()) => return Ok(file),
            Err(std::fs::TryLockError::WouldBlock) => {}
            Err(std::fs::TryLockError::Error(error)) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Instant, SystemTime};

    use tokio::time::timeout;

    use super::*;

    const SHORT: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn a_socket_is_unused_when_the_last_lock_is_gone_for_a_while() {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("registry.sock");
        let users = beside(&socket, ".users");
        let user = move || {
            let file = lock_file(&users).expect("a file");
            file.lock_shared().expect("a lock");
            file
        };
        let (first, second) = (user(), user());
        let looks = Unused::after(&socket, SHORT).expect("it looks");
        let mut unused = Box::pin(or_never(Some(looks)));
        drop(first);
        timeout(SHORT * 4, &mut unused).await.expect_err("the second is there");
        let last = Instant::now();
        drop(second);
        // Who comes and goes within the time is a user too.
        thread::sleep(SHORT / 2);
        let third = user();
        third.set_modified(SystemTime::now()).expect("touched");
        drop(third);
        let held = unused.await;
        assert!(last.elapsed() >= SHORT * 3 / 2, "{:?}", last.elapsed());
        // Who comes now waits for the server to be gone.
        let comes = thread::spawn(user);
        thread::sleep(SHORT);
        assert!(!comes.is_finished());
        drop(held);
        comes.join().expect("it has the lock");
    }
}
