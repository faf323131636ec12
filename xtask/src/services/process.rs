//! Servers that live no longer than this process, however it ends.
//!
//! Each runs under a small shell that reads from a pipe whose other end is ours. At our end, be it a return, a panic,
//! Ctrl-C or `kill -9`, the system closes the pipe, and the shell stops the server and removes its folder. So there is no
//! signal to handle here, and nothing stays behind.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// The longest wait until a server that was started answers.
const PATIENCE: Duration = Duration::from_secs(60);

/// `$1` is the signal that stops the server, `$2` the folder to remove at the end, the rest is the server's command. The
/// signal is sent every second, for there are servers that wait for their clients until they are told a second time. After
/// 20 seconds the server is killed.
const KEEPER: &str = r#"
signal=$1
folder=$2
shift 2
exec 3<&0
"$@" </dev/null 3<&- &
server=$!
{
    read -r line <&3
    i=0
    while [ $i -lt 20 ]; do kill -s "$signal" "$server"; sleep 1; i=$((i + 1)); done
    kill -9 "$server"
} &
watch=$!
exec 3<&-
wait "$server"
status=$?
kill "$watch"
rm -rf "$folder"
# The run's own, once it is empty.
rmdir "$(dirname "$folder")" 2>/dev/null
exit $status
"#;

/// A server that was started here; dropping it stops it.
pub(crate) struct Running {
    name: String,
    keeper: Child,
    log: PathBuf,
}

impl Running {
    /// Starts a server whose own folder is `folder`, which goes when the server does; the signal `stop` ends it.
    pub(crate) fn start(name: &str, stop: &str, server: &Command, folder: &Path, log: PathBuf) -> Result<Self> {
        let out = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut keeper = Command::new("sh");
        keeper.args(["-c", KEEPER, "keeper", stop]).arg(folder).arg(server.get_program()).args(server.get_args());
        for (variable, value) in server.get_envs() {
            match value {
                Some(value) => keeper.env(variable, value),
                None => keeper.env_remove(variable),
            };
        }
        keeper.stdin(Stdio::piped()).stdout(out.try_clone()?).stderr(out);
        // Ctrl-C in a terminal goes to a whole group: a server in ours would stop before those who use it.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut keeper, 0);
        let keeper = keeper.spawn().with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name: name.to_owned(), keeper, log })
    }

    /// Waits until the server answers.
    pub(crate) fn wait_for<T>(&mut self, mut answers: impl FnMut() -> Result<T>) -> Result<T> {
        let started = Instant::now();
        loop {
            let error = match answers() {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if let Some(status) = self.keeper.try_wait()? {
                bail!("{} ended with {status}: {}", self.name, last_lines(&self.log));
            }
            ensure!(
                started.elapsed() < PATIENCE,
                "{} does not answer ({error:#}): {}",
                self.name,
                last_lines(&self.log)
            );
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        // The shell sees to it that this ends.
        let _ = self.keeper.wait();
    }
}

/// A port that nobody listens on. Somebody might before the server does; then the server says so and ends.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// What a log ends with, for an error.
fn last_lines(log: &Path) -> String {
    let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    let last = lines[lines.len().saturating_sub(5)..].join("\n  ");
    format!("{} ends with\n  {last}", log.display())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("xtask-process-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder for temporary files");
        folder
    }

    #[test]
    fn dropping_stops_the_server_and_removes_its_folder() {
        let (data, logs) = (folder("data"), folder("logs"));
        let mut server = Command::new("sh");
        server.args(["-c", "echo $$ > \"$0/pid\"; exec sleep 600"]).arg(&data);
        let mut running = Running::start("a server", "TERM", &server, &data, logs.join("log")).unwrap();
        let pid = running.wait_for(|| {
            let pid = fs::read_to_string(data.join("pid"))?;
            ensure!(pid.ends_with('\n'));
            Ok(pid.trim().to_owned())
        });
        let pid = pid.unwrap();
        let lives = || Command::new("sh").args(["-c", "kill -0 $0 2>/dev/null", &pid]).status().unwrap().success();
        assert!(lives());
        drop(running);
        assert!(!lives());
        assert!(!data.exists());
        fs::remove_dir_all(logs).unwrap();
    }

    #[test]
    fn a_server_that_ends_says_why() {
        let (data, logs) = (folder("ends"), folder("ends-logs"));
        let mut server = Command::new("sh");
        server.args(["-c", "echo no such option; exit 7"]);
        let mut running = Running::start("a server", "TERM", &server, &data, logs.join("log")).unwrap();
        let error = running.wait_for(|| -> Result<()> { bail!("not yet") }).unwrap_err().to_string();
        assert!(error.contains("exit status: 7") && error.contains("no such option"), "{error}");
        fs::remove_dir_all(logs).unwrap();
    }
}
