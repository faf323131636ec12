//! Encryption: what connections are encrypted with, read anew when its files change, and who a client is by its certificate.
//!
//! A connection is made with what is in force when it begins, and keeps that until it ends: what is read anew counts for
//! connections that come after.

mod files;
mod handshake;
mod identity;
mod refresh;

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use feast_registry_core::{Error, Result};
use rustls::ServerConfig;

use files::{Contents, Loaded};
use refresh::Seen;

pub(crate) use handshake::{FIRST_BYTE, complain_of_tls_without_it, waits_for_first_byte};

/// The files that connections are encrypted with, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsFiles {
    /// The server's certificate, and after it those of its issuers that clients do not have.
    pub certificate: PathBuf,
    /// The private key of the certificate, which is not encrypted.
    pub key: PathBuf,
    /// The certificates that those of clients must be signed by. Default: none, and clients need no certificate.
    pub client_ca: Option<PathBuf>,
    /// The certificate of a client says who it is: its subject's common name is the name, its organizations are the groups, as in
    /// Kubernetes. It needs `client_ca`. Default: no.
    pub client_certificate_is_identity: bool,
}

impl TlsFiles {
    /// A certificate and its key, for clients that need none.
    pub fn new(certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        let (certificate, key) = (certificate.into(), key.into());
        Self { certificate, key, client_ca: None, client_certificate_is_identity: false }
    }

    /// The same for clients that need a certificate which is signed by one of this file.
    #[must_use]
    pub fn with_client_ca(mut self, file: impl Into<PathBuf>) -> Self {
        self.client_ca = Some(file.into());
        self
    }

    /// The same where the certificate of a client says who it is.
    #[must_use]
    pub fn with_identities(mut self) -> Self {
        self.client_certificate_is_identity = true;
        self
    }
}

/// What connections are encrypted with (TLS 1.2 and 1.3). Cloning gives another handle on the same.
///
/// A server that is given one ([`ServeOptions::tls`](crate::ServeOptions::tls)) looks every few seconds whether the files have
/// changed, and takes what they hold for the connections that come after.
#[derive(Clone)]
pub struct Tls(Arc<Shared>);

struct Shared {
    files: TlsFiles,
    in_force: RwLock<Arc<Loaded>>,
    seen: tokio::sync::Mutex<Seen>,
    /// Held by the one that looks whether the files have changed.
    watch: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("files", &self.0.files).finish_non_exhaustive()
    }
}

/// What a port speaks once a connection is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speaks {
    /// gRPC, to clients who have a certificate if they need one.
    Http2,
    /// HTTP/1.1, to probes and Prometheus, which need no certificate.
    Http1,
    /// HTTP/2 or HTTP/1.1: the REST API, alone or beside gRPC, to clients who have a certificate if they need one.
    Either,
}

impl Tls {
    /// Reads the files, which are small; waits for the disk.
    ///
    /// # Errors
    /// When a file cannot be read or holds something else than it should, or when the key is not the certificate's. The message
    /// names the option of `feast-registry serve`, the file and the remedy.
    pub fn open(files: TlsFiles) -> Result<Self> {
        if files.client_certificate_is_identity && files.client_ca.is_none() {
            return Err(Error::config(
                "--client-cert-identity needs --client-ca: a certificate that nobody has verified says nothing of who has it",
            ));
        }
        let contents = Contents::read(&files);
        let seen = tokio::sync::Mutex::new(Seen::new(&contents));
        let in_force = RwLock::new(Arc::new(Loaded::new(&files, contents)?));
        Ok(Self(Arc::new(Shared { files, in_force, seen, watch: tokio::sync::Mutex::new(()) })))
    }

    /// Whether clients need a certificate.
    pub fn is_mutual(&self) -> bool {
        self.0.files.client_ca.is_some()
    }

    fn in_force(&self) -> Arc<Loaded> {
        Arc::clone(&self.0.in_force.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn put_in_force(&self, loaded: Arc<Loaded>) {
        *self.0.in_force.write().unwrap_or_else(PoisonError::into_inner) = loaded;
    }

    fn config(&self, speaks: Speaks) -> Arc<ServerConfig> {
        let loaded = self.in_force();
        Arc::clone(match speaks {
            Speaks::Http2 => &loaded.grpc,
            Speaks::Http1 => &loaded.http,
            Speaks::Either => &loaded.either,
        })
    }
}

#[cfg(test)]
pub(crate) mod tests;
