//! Where a server listens.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use clap::Args;
use tokio::net::{TcpListener, lookup_host};

use super::unused::Unused;
use crate::UnixSocket;

/// Who may connect to a socket: its user alone.
const OWNER_ALONE: u32 = 0o600;

/// A Unix socket instead of a port.
#[derive(Debug, Args)]
pub(super) struct SocketArgs {
    /// Serve gRPC on a Unix socket of this machine instead of a port, as unix:/run/feast/registry.sock.
    ///
    /// Clients name it in feature_store.yaml as `path: unix:///run/feast/registry.sock`. Nothing is encrypted on it. There is one server
    /// at a socket: it holds a lock on the file PATH.lock, which ends with it, so that a socket left by a server that was killed is replaced.
    #[arg(long, value_name = "unix:PATH", value_parser = socket_path)]
    listen: Option<PathBuf>,

    /// Who may use the socket of --listen, as the octal permissions of a file: 660 lets its group in.
    #[arg(long, value_name = "MODE", default_value = "600", requires = "listen", value_parser = permissions)]
    listen_mode: u32,

    /// Stop once nobody has used the socket of --listen for so many seconds.
    ///
    /// Whoever uses it holds a shared lock (flock) on the file PATH.users meanwhile, and touches it first, as the Python package feast-registry
    /// does.
    #[arg(long, value_name = "SECONDS", requires = "listen", value_parser = super::serve::some_seconds)]
    until_unused: Option<f64>,
}

impl SocketArgs {
    /// Listens on the socket, if there is to be one.
    pub(super) fn listen(&self) -> Result<Option<UnixSocket>> {
        let Some(path) = &self.listen else { return Ok(None) };
        let listening = UnixSocket::bind(path, self.listen_mode);
        let failed = || format!("--listen: cannot listen on unix:{}", path.display());
        listening.map(Some).with_context(failed)
    }

    /// What tells that nobody has used the socket for as long as asked for, if that is to be told.
    pub(super) fn until_unused(&self) -> Option<Result<Unused>> {
        let (path, seconds) = (self.listen.as_deref()?, self.until_unused?);
        Some(Unused::after(path, Duration::from_secs_f64(seconds)).context("--until-unused"))
    }
}

/// The path of a socket, in the forms in which clients of gRPC write it.
fn socket_path(text: &str) -> Result<PathBuf, String> {
    let path = text.strip_prefix("unix://").or_else(|| text.strip_prefix("unix:"));
    let path = path.filter(|path| !path.is_empty()).map(Path::new);
    path.map(Path::to_owned).ok_or_else(|| "it must be unix:PATH, as unix:/run/feast/registry.sock".to_owned())
}

fn permissions(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777 && mode & OWNER_ALONE == OWNER_ALONE);
    mode.ok_or_else(|| "it must be octal permissions with which the owner may read and write, as 600 or 660".to_owned())
}

/// Listens on a port of a host, which these options name. An IPv6 address may have the brackets that it has in a URL.
pub(super) async fn listen([host_option, port_option]: [&str; 2], host: &str, port: u16) -> Result<TcpListener> {
    let addresses = lookup_host((host.trim_matches(['[', ']']), port)).await.map_err(|error| {
        let advice = "name an address of this machine, or 0.0.0.0 or :: for all of them";
        anyhow!(error).context(format!("{host_option}: there is no address for the name `{host}`; {advice}"))
    })?;
    let mut failed = io::Error::other("the name has no address");
    for address in addresses {
        match crate::listen(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => failed = error,
        }
    }
    let advice = match failed.kind() {
        ErrorKind::AddrInUse => "; is another server running there?",
        ErrorKind::AddrNotAvailable => "; it is no address of this machine",
        ErrorKind::PermissionDenied => "; a port below 1024 may need rights that this user does not have",
        _ => "",
    };
    let option = if failed.kind() == ErrorKind::AddrNotAvailable { host_option } else { port_option };
    Err(anyhow!(failed).context(format!("{option}: cannot listen on {host}:{port}{advice}")))
}
