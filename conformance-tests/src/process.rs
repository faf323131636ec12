//! Workers in processes of their own, as the tests see them.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::store::Store;
use crate::worker::{JOB, Job, STORAGE, SUITE, Said};

/// The longest that a worker may be silent.
const PATIENCE: Duration = Duration::from_secs(60);

/// A worker that a test kills has not ended in another way before, as by a panic or an abort of its backend.
fn assert_was_killed(status: ExitStatus) {
    #[cfg(unix)]
    {
        const SIGKILL: i32 = 9;
        let signal = std::os::unix::process::ExitStatusExt::signal(&status);
        assert_eq!(signal, Some(SIGKILL), "a worker ended by itself before it was killed: {status}");
    }
    #[cfg(not(unix))]
    let _ = status;
}

/// A worker in a process of its own. Dropping it kills it.
pub(crate) struct Process {
    child: Child,
    stdin: ChildStdin,
    said: UnboundedReceiver<Said>,
}

impl Process {
    /// Starts a worker, which opens the storage and waits to be told to go.
    pub(crate) fn start(store: &Store, job: Job) -> Self {
        Self::start_job(store, &job.to_text())
    }

    /// Starts a worker that does the job of a text.
    pub(crate) fn start_job(store: &Store, job: &str) -> Self {
        let address = store.address();
        let mut command = Command::from(store.factory.worker());
        command.env(JOB, job).env(SUITE, &*store.suite).env(STORAGE, address);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?} cannot be started: {error}"));
        let stdin = child.stdin.take().expect("a pipe was asked for");
        let stdout = child.stdout.take().expect("a pipe was asked for");
        let (sender, said) = unbounded_channel();
        tokio::spawn(async move {
            let mut lines = BufReader::new(stdout).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some(said) = Said::parse(&line)
                    && sender.send(said).is_err()
                {
                    break;
                }
            }
        });
        Self { child, stdin, said }
    }

    /// What the worker says next; `None` when it has ended.
    pub(crate) async fn next(&mut self) -> Option<Said> {
        let said = tokio::time::timeout(PATIENCE, self.said.recv()).await;
        match said.unwrap_or_else(|_| panic!("a worker said nothing for {} s", PATIENCE.as_secs())) {
            Some(Said::Failed(error)) => panic!("a worker failed: {error}"),
            said => said,
        }
    }

    /// Waits until the worker has opened the storage.
    pub(crate) async fn ready(&mut self) {
        let said = self.next().await;
        assert_eq!(said, Some(Said::Ready), "a worker first says that it is ready; is its command right?");
    }

    pub(crate) async fn go(&mut self) {
        self.stdin.write_all(b"go\n").await.expect("a worker that is ready listens");
    }

    /// Waits until the worker, which has written everything, has ended by itself.
    pub(crate) async fn end(mut self) {
        let said = self.next().await;
        assert!(matches!(said, Some(Said::Done { .. })), "a worker that has written everything says so: {said:?}");
        let status = self.child.wait().await.expect("a process that is done ends");
        assert!(status.success(), "a worker that has written everything ends well: {status}");
    }

    /// Kills the worker with a signal that it cannot catch, and returns what it had said until then.
    pub(crate) async fn kill(mut self) -> Vec<Said> {
        self.child.start_kill().expect("a worker that is at work can be killed");
        let status = self.child.wait().await.expect("a process that was killed ends");
        // If it failed, it has said why.
        let said = self.rest().await;
        assert!(!status.success(), "a worker that was to be killed ended by itself: {status}");
        assert_was_killed(status);
        said
    }

    /// Kills the worker, unless it is done, and returns what it had said until then.
    pub(crate) async fn kill_or_done(mut self) -> Vec<Said> {
        self.child.start_kill().expect("a worker that has not been waited for can be killed");
        let status = self.child.wait().await.expect("a process that was killed ends");
        let said = self.rest().await;
        if !status.success() {
            assert_was_killed(status);
        }
        said
    }

    /// What the worker says until it ends.
    async fn rest(&mut self) -> Vec<Said> {
        let mut said = Vec::new();
        while let Some(more) = self.next().await {
            said.push(more);
        }
        said
    }
}
