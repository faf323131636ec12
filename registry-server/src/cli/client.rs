//! What commands ask of a server, over gRPC.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use percent_encoding::percent_decode_str;
use prost::Message;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{IntoRequest as _, Status};
use tonic_prost::ProstCodec;

use crate::DEFAULT_PORT;

/// How a server is reached.
pub(super) struct Address<'a> {
    /// `host:port`, `unix:PATH`, or `https://host:port`.
    pub(super) server: &'a str,
    /// The certificate that its own is signed by, in PEM, where it encrypts.
    pub(super) ca: Option<&'a Path>,
    /// How long an answer may take.
    pub(super) within: Duration,
}

impl Address<'_> {
    /// Connects to it.
    pub(super) async fn connect(&self) -> Result<Channel> {
        let Self { server, ca, within } = *self;
        let is_url = server.contains("://");
        let scheme = if ca.is_some() { "https" } else { "http" };
        // As other clients of gRPC have it, the path of a socket is one of a URI.
        let decoded = percent_decode_str(server).decode_utf8();
        let url = match server.rsplit_once(':') {
            _ if server.starts_with("unix:") => {
                decoded.with_context(|| format!("`{server}` is no path of UTF-8"))?.into_owned()
            }
            _ if is_url => server.to_owned(),
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => format!("{scheme}://{server}"),
            None if !server.is_empty() => format!("{scheme}://{server}:{DEFAULT_PORT}"),
            _ => bail!("`{server}` is no address of a server: it must be host:port, unix:PATH, or https://host:port"),
        };
        let is_encrypted = url.starts_with("https://");
        let mut endpoint =
            Endpoint::from_shared(url).with_context(|| format!("`{server}` is no address of a server"))?;
        if is_encrypted {
            let ca = ca.context("--cert: name the file of the CA that has signed the server's certificate")?;
            let pem = std::fs::read(ca).with_context(|| format!("--cert: {} cannot be read", ca.display()))?;
            endpoint = endpoint.tls_config(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)))?;
        }
        let endpoint = endpoint.connect_timeout(within).timeout(within);
        match tokio::time::timeout(within, endpoint.connect()).await {
            Ok(Ok(channel)) => Ok(channel),
            Ok(Err(error)) => Err(anyhow!(error).context(format!("there is no server at {server}"))),
            Err(_) => {
                Err(anyhow!("there is no server at {server}: it does not answer within {} s", within.as_secs_f64()))
            }
        }
    }
}

/// Makes one call, by the path of its method.
pub(super) async fn call<Q, A>(channel: &Channel, method: PathAndQuery, request: Q) -> Result<A, Status>
where
    Q: Message + Send + Sync + 'static,
    A: Message + Default + Send + Sync + 'static,
{
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let answer = grpc.unary(request.into_request(), method, ProstCodec::<Q, A>::default());
    answer.await.map(tonic::Response::into_inner)
}
