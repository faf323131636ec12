//! `feast-registry health`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use clap::Args;
use tonic::codegen::http::uri::PathAndQuery;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::client::{Address, call};
use super::{output, serve};
use crate::DEFAULT_PORT;

const CHECK: &str = "/grpc.health.v1.Health/Check";

/// Ask a server whether it is ready. Exit code: 0 if it is, 1 if it is not.
///
/// For health checks where there is no shell and no other client, as in the container image. It asks grpc.health.v1.Health.
#[derive(Debug, Args)]
pub(crate) struct Health {
    /// The server: host:port (6570 if it has no port), unix:PATH, or https://host:port.
    #[arg(value_name = "SERVER", default_value_t = format!("localhost:{DEFAULT_PORT}"))]
    server: String,

    /// Ask whether it is alive, even if its storage is away.
    #[arg(long)]
    live: bool,

    /// The server encrypts, and this is the CA that has signed its certificate, in PEM.
    #[arg(long, value_name = "FILE")]
    cert: Option<PathBuf>,

    /// How many seconds it may take to answer.
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0, value_parser = serve::some_seconds)]
    timeout: f64,
}

impl Health {
    pub(super) async fn run(self) -> Result<()> {
        let within = Duration::from_secs_f64(self.timeout);
        let address = Address { server: &self.server, ca: self.cert.as_deref(), within };
        let service = if self.live { "liveness" } else { "" }.to_owned();
        let channel = address.connect().await?;
        let answer: HealthCheckResponse =
            call(&channel, PathAndQuery::from_static(CHECK), HealthCheckRequest { service })
                .await
                .map_err(|status| anyhow!("{} does not say whether it is ready: {}", self.server, status.message()))?;
        match answer.status() {
            ServingStatus::Serving => output::print(b"SERVING\n"),
            status => bail!("{} is not ready: it says {}", self.server, status.as_str_name()),
        }
    }
}
