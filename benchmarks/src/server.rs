//! The two servers, each in a process of its own.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use feast_registry_server::proto::ListProjectsRequest;
use feast_registry_server::proto::registry_server_client::RegistryServerClient;
use tokio::process::{Child, Command};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::{machine, rest};

/// A client of one server.
pub(crate) type Client = RegistryServerClient<InterceptedService<Channel, Credentials>>;

/// What has a server ask its callers who they are, and what they then say.
#[derive(Debug, Clone)]
pub(crate) struct Guard {
    /// Blocks of a feature_store.yaml.
    pub(crate) settings: String,
    pub(crate) authorization: MetadataValue<Ascii>,
}

/// What a client says of itself with each call, if anything.
#[derive(Debug, Clone)]
pub(crate) struct Credentials(Option<MetadataValue<Ascii>>);

impl Interceptor for Credentials {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(authorization) = &self.0 {
            request.metadata_mut().insert("authorization", authorization.clone());
        }
        Ok(request)
    }
}

/// How long a server may take to answer its first call.
const START_UP: Duration = Duration::from_secs(120);

/// Large enough for any answer here.
const MAX_MESSAGE_SIZE: usize = 1 << 30;

/// Whose server it is, and how to start it.
#[derive(Debug, Clone)]
pub(crate) enum Contender {
    Feast { python: PathBuf, script: PathBuf, rest_script: PathBuf },
    Ours { binary: PathBuf },
}

impl Contender {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Contender::Feast { .. } => "Feast",
            Contender::Ours { .. } => "ours",
        }
    }

    /// Its program with a command.
    pub(crate) fn command(&self, name: &str) -> Command {
        let mut command = match self {
            Contender::Feast { python, script, .. } => {
                let mut command = Command::new(python);
                command.args(["-W", "ignore"]).arg(script).env("FEAST_USAGE", "False");
                command
            }
            Contender::Ours { binary } => {
                let mut command = Command::new(binary);
                command.env_remove("FEAST_REGISTRY_URL").env_remove("RUST_LOG");
                command
            }
        };
        command.arg(name);
        command
    }

    /// Starts its server on the registry of a URL and waits until it answers; `folder` is its own.
    pub(crate) async fn start(&self, folder: &Path, url: &str) -> Result<Server> {
        self.start_guarded(folder, url, None).await
    }

    /// The same with callers who have to say who they are.
    pub(crate) async fn start_guarded(&self, folder: &Path, url: &str, guard: Option<Guard>) -> Result<Server> {
        self.start_with(folder, url, guard, Protocol::Grpc).await
    }

    /// Starts its REST server, which does not serve gRPC.
    pub(crate) async fn start_rest(&self, folder: &Path, url: &str) -> Result<Server> {
        self.start_with(folder, url, None, Protocol::Rest).await
    }

    async fn start_with(&self, folder: &Path, url: &str, guard: Option<Guard>, protocol: Protocol) -> Result<Server> {
        let config = folder.join("feature_store.yaml");
        let settings = guard.as_ref().map_or("", |guard| &guard.settings);
        std::fs::write(&config, feature_store_yaml(url) + settings)?;
        let address = free_address()?;
        let port = address.rsplit(':').next().unwrap_or_default();
        let mut command = self.command("serve");
        match (self, protocol) {
            (Contender::Feast { .. }, Protocol::Grpc) => {
                command.arg(folder).arg(port);
            }
            (Contender::Feast { python, rest_script, .. }, Protocol::Rest) => {
                command = Command::new(python);
                command.args(["-W", "ignore"]).arg(rest_script).arg(&config).arg(port).env("FEAST_USAGE", "False");
            }
            (Contender::Ours { .. }, Protocol::Grpc) => {
                command.arg("--config").arg(&config).args(["--port", port]);
            }
            (Contender::Ours { .. }, Protocol::Rest) => {
                command.arg("--config").arg(&config).args(["--rest-api", "--no-grpc", "--rest-port", port]);
            }
        }
        let log = folder.join("server.log");
        let output = std::fs::File::create(&log)?;
        let began = Instant::now();
        let child = command
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start the server of {}", self.name()))?;
        let credentials = Credentials(guard.map(|guard| guard.authorization));
        let mut server =
            Server { name: self.name(), child, address, log, credentials, protocol, start_up: Duration::ZERO };
        server.wait_until_it_answers(began).await?;
        server.start_up = began.elapsed();
        Ok(server)
    }
}

/// Feast's file, which both servers read: one registry, one time to live of the cache.
fn feature_store_yaml(url: &str) -> String {
    format!(
        "project: {project}\n\
         provider: local\n\
         registry:\n  \
           registry_type: sql\n  \
           path: {url}\n  \
           cache_ttl_seconds: 600\n\
         online_store:\n  \
           type: sqlite\n  \
           path: online.db\n\
         entity_key_serialization_version: 3\n",
        project = crate::sample::PROJECT,
    )
}

/// An address of this machine that nobody listens on.
fn free_address() -> Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

/// A running server. Dropping it kills the process.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) name: &'static str,
    /// From the start of the process to its first answer.
    pub(crate) start_up: Duration,
    child: Child,
    address: String,
    log: PathBuf,
    credentials: Credentials,
    protocol: Protocol,
}

/// What a server is called over.
#[derive(Debug, Clone, Copy)]
enum Protocol {
    Grpc,
    Rest,
}

impl Server {
    /// Connects anew: each caller has its own connection, as each of Feast's clients is a process of its own.
    pub(crate) async fn connect(&self) -> Result<Client> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address))?
            .connect_timeout(Duration::from_secs(5))
            .tcp_nodelay(true)
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(4 << 20);
        let channel = endpoint.connect().await?;
        Ok(RegistryServerClient::with_interceptor(channel, self.credentials.clone())
            .max_decoding_message_size(MAX_MESSAGE_SIZE)
            .max_encoding_message_size(MAX_MESSAGE_SIZE))
    }

    /// Connects to a REST server.
    pub(crate) async fn connect_rest(&self) -> Result<rest::Client> {
        rest::Client::connect(&self.address).await
    }

    /// The memory of the process that is in RAM, in MB.
    pub(crate) fn memory(&self) -> Result<f64> {
        let id = self.child.id().with_context(|| format!("the server of {} is gone", self.name))?;
        machine::memory_of(id)
    }

    /// The most memory that the process had in RAM so far, in MB, where the system tells.
    pub(crate) fn peak_memory(&self) -> Option<f64> {
        machine::peak_memory_of(self.child.id()?)
    }

    /// The processor time that the process has used so far, where the system tells.
    pub(crate) fn processor_time(&self) -> Option<Duration> {
        machine::processor_time_of(self.child.id()?)
    }

    /// Ends the process and waits until it is gone.
    pub(crate) async fn stop(mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }

    async fn wait_until_it_answers(&mut self, began: Instant) -> Result<()> {
        loop {
            let Err(error) = self.ask().await else { return Ok(()) };
            if let Some(status) = self.child.try_wait()? {
                bail!("the server of {} ended with {status}:\n{}", self.name, self.end_of_log());
            }
            if began.elapsed() > START_UP {
                let name = self.name;
                return Err(error.context(format!("the server of {name} does not answer:\n{}", self.end_of_log())));
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    async fn ask(&self) -> Result<()> {
        match self.protocol {
            Protocol::Grpc => drop(self.connect().await?.list_projects(ListProjectsRequest::default()).await?),
            Protocol::Rest => drop(self.connect_rest().await?.get("/projects", None).await?),
        }
        Ok(())
    }

    /// The last lines of what the server wrote.
    pub(crate) fn end_of_log(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}
