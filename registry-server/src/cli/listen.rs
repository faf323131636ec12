//! The address that a server listens on.

use std::io::{self, ErrorKind};

use anyhow::{Result, anyhow};
use tokio::net::{TcpListener, lookup_host};

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
