//! The address that a server listens on.

use std::io::ErrorKind;

use anyhow::{Result, anyhow};
use tokio::net::{TcpListener, lookup_host};

/// Listens on a port of a host. An IPv6 address may have the brackets that it has in a URL.
pub(super) async fn listen(host: &str, port: u16) -> Result<TcpListener> {
    let addresses: Vec<_> = match lookup_host((host.trim_matches(['[', ']']), port)).await {
        Ok(addresses) => addresses.collect(),
        Err(error) => {
            let advice = "name an address of this machine, or 0.0.0.0 or :: for all of them";
            return Err(anyhow!(error).context(format!("--host: there is no address for the name `{host}`; {advice}")));
        }
    };
    TcpListener::bind(&*addresses).await.map_err(|error| {
        let advice = match error.kind() {
            ErrorKind::AddrInUse => "; is another server running there?",
            ErrorKind::AddrNotAvailable => "; it is no address of this machine",
            ErrorKind::PermissionDenied => "; a port below 1024 may need rights that this user does not have",
            _ => "",
        };
        anyhow!(error).context(format!("cannot listen on {host}:{port}{advice}"))
    })
}
