//! What others are asked over HTTP, within bounds.

use std::path::Path;
use std::time::Duration;

use feast_registry_core::{Error, Result};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, ClientBuilder, RequestBuilder, StatusCode};
use tokio::time::timeout;

/// How many redirections are followed.
const REDIRECTIONS: usize = 5;

/// What a client begins with.
pub(super) fn builder() -> ClientBuilder {
    // With two providers in one program rustls wants one to be chosen. If one has been, so be it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
        .user_agent(concat!("feast-registry/", env!("CARGO_PKG_VERSION")))
        .pool_max_idle_per_host(4)
        .pool_idle_timeout(Duration::from_secs(30))
}

/// Follows a few redirections, and none from an encrypted place to one that is not.
pub(super) fn redirections() -> Policy {
    Policy::custom(|attempt| {
        let was_encrypted = attempt.previous().iter().any(|url| url.scheme() == "https");
        if attempt.previous().len() > REDIRECTIONS {
            attempt.error("it redirects too often")
        } else if was_encrypted && attempt.url().scheme() != "https" {
            attempt.error("it redirects to a place that is not encrypted")
        } else {
            attempt.follow()
        }
    })
}

/// The certificates in a file.
///
/// # Errors
/// `InvalidConfig` when it cannot be read or has none; `setting` is what names it.
pub(super) fn certificates(path: &Path, setting: &str) -> Result<Vec<Certificate>> {
    let named = |why: &dyn std::fmt::Display| {
        Error::config(format!("{setting}: the certificates in {} cannot be used: {why}", path.display()))
    };
    let bytes = std::fs::read(path).map_err(|error| named(&error))?;
    let certificates = Certificate::from_pem_bundle(&bytes).map_err(|error| named(&error))?;
    if certificates.is_empty() {
        return Err(named(&"there is no certificate in PEM in it"));
    }
    Ok(certificates)
}

/// Sends a request, and returns its answer, if that comes in time and is not larger than `most` bytes.
pub(super) async fn send(
    request: RequestBuilder,
    within: Duration,
    most: usize,
) -> std::result::Result<(StatusCode, Vec<u8>), String> {
    let answered = async {
        let mut response = request.send().await.map_err(reason)?;
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(reason)? {
            if bytes.len() + chunk.len() > most {
                return Err(format!("its answer is larger than {most} bytes"));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok((response.status(), bytes))
    };
    timeout(within, answered).await.map_err(|_| format!("it has not answered within {} s", within.as_secs_f64()))?
}

/// An error with its causes, and without the URL, which is told elsewhere.
fn reason(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
