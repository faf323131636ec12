//! Encryption, with rustls: libpq's `sslmode`, `sslrootcert`, `sslcert` and `sslkey`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use feast_registry_core::{Error, Result};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::options::{Options, Verify};

/// What connections are encrypted with, if they are.
pub(crate) fn connector(options: &Options) -> Result<MakeRustlsConnect> {
    let provider = Arc::new(ring::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match options.verify {
        Verify::Nothing => Arc::new(Lenient { provider: Arc::clone(&provider), issuer: None }),
        verify => {
            let roots = Arc::new(roots(options.root_certificate.as_deref())?);
            let strict =
                WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider)).build().map_err(|error| {
                    Error::config("sslrootcert holds no certificate that can be used").with_source(error)
                })?;
            match verify {
                Verify::Host => strict,
                _ => Arc::new(Lenient { provider: Arc::clone(&provider), issuer: Some(strict) }),
            }
        }
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::internal("TLS cannot be set up").with_source(error))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let config = match &options.identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = certificates("sslcert", Path::new(certificate))?;
            let key = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable("sslkey", Path::new(key), error))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| Error::config("sslcert and sslkey do not belong together").with_source(error))?
        }
    };
    Ok(MakeRustlsConnect::new(config))
}

/// The certificates that a server's must be signed by.
fn roots(file: Option<&str>) -> Result<RootCertStore> {
    let default = || std::env::home_dir().map(|home| home.join(".postgresql/root.crt")).filter(|file| file.exists());
    let mut roots = RootCertStore::empty();
    match file.filter(|file| *file != "system").map(PathBuf::from).or_else(|| default().filter(|_| file.is_none())) {
        Some(file) => {
            for certificate in certificates("sslrootcert", &file)? {
                roots.add(certificate).map_err(|error| {
                    Error::config(format!("sslrootcert: {} holds no usable certificate", file.display()))
                        .with_source(error)
                })?;
            }
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
            if roots.is_empty() {
                return Err(Error::config(
                    "sslmode asks for the server's certificate to be verified, and this system has no certificates \
                     to verify it against; name a file with sslrootcert",
                ));
            }
        }
    }
    Ok(roots)
}

fn certificates(option: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = read.map_err(|error| unreadable(option, file, error))?;
    if certificates.is_empty() {
        return Err(Error::config(format!("{option}: there is no PEM certificate in {}", file.display())));
    }
    Ok(certificates)
}

fn unreadable(option: &str, file: &Path, error: rustls::pki_types::pem::Error) -> Error {
    Error::config(format!("{option}: {} cannot be read: {error}", file.display())).with_source(error)
}

/// Checks less than the whole: nothing, or everything but the host's name.
#[derive(Debug)]
struct Lenient {
    provider: Arc<CryptoProvider>,
    issuer: Option<Arc<WebPkiServerVerifier>>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(issuer) = &self.issuer else { return Ok(ServerCertVerified::assertion()) };
        match issuer.verify_server_cert(certificate, intermediates, name, ocsp, now) {
            // The name is looked at last.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
