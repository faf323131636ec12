//! The server as a process of its own, whose memory can be looked at.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStderr, Command, Stdio};

use feast_registry_server::proto::registry_server_client::RegistryServerClient;
use tonic::transport::{Channel, Endpoint};

/// A running server; it is killed when this is dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: String,
    _log: BufReader<ChildStderr>,
}

impl Server {
    pub(crate) fn start(url: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_feast-registry"));
        command.args(["serve", "--port", "0", "--registry", url]).env_remove("RUST_LOG");
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts");
        let mut log = BufReader::new(child.stderr.take().expect("stderr"));
        let mut started = String::new();
        // It may warn before.
        while log.read_line(&mut started).expect("a line") > 0 && !started.contains("serving ") {
            started.clear();
        }
        let address = started.trim_end().rsplit(' ').next().expect("an address").to_owned();
        Self { child, address, _log: log }
    }

    pub(crate) async fn client(&self) -> RegistryServerClient<Channel> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).expect("a URL");
        let channel = endpoint.connect().await.expect("a connection");
        RegistryServerClient::new(channel).max_decoding_message_size(usize::MAX)
    }

    /// The most memory that it ever had, in bytes.
    pub(crate) fn peak(&self) -> usize {
        self.status("VmHWM:")
    }

    /// How much of its address space is taken, in bytes.
    #[allow(dead_code, reason = "not all tests that share this look at it")]
    pub(crate) fn address_space(&self) -> usize {
        self.status("VmSize:")
    }

    fn status(&self, name: &str) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find(|line| line.starts_with(name)).expect("it is there");
        let kilobytes: usize = line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number");
        kilobytes * 1024
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
