//! What is asked of others over HTTP: an identity provider, a Kubernetes cluster.

use reqwest::{Response, Url};
use serde_json::Value;

/// Whether a URL stays on this machine, where nobody is between.
pub(super) fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// An answer as JSON, if it has no more than so many bytes.
pub(super) async fn json(mut response: Response, largest: usize) -> Result<Value, String> {
    let mut content = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(said)? {
        content.extend_from_slice(&chunk);
        if content.len() > largest {
            return Err(format!("it has more than {largest} bytes"));
        }
    }
    serde_json::from_slice(&content).map_err(|error| format!("it is not JSON ({error})"))
}

/// What an error says, but for the URL, whose query may have a secret in it.
pub(super) fn said(error: reqwest::Error) -> String {
    chain(&error.without_url())
}

/// An error with what caused it, which reqwest's own text leaves out.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}
