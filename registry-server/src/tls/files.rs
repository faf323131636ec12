//! What the files hold.

use std::fs::File;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use feast_registry_core::{Error, Result};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, ServerConfig, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{InconsistentKeys, RootCertStore};

use super::TlsFiles;
use super::identity::{self, Validity};

/// The largest file that is read, in bytes: all issuers of the world have a quarter of it.
const MAX_FILE: u64 = 1 << 20;

const CERT: &str = "--cert";
const KEY: &str = "--key";
const CLIENT_CA: &str = "--client-ca";

/// What files hold at one moment.
pub(super) struct Contents {
    certificate: io::Result<Vec<u8>>,
    key: io::Result<Vec<u8>>,
    client_ca: Option<io::Result<Vec<u8>>>,
}

impl Contents {
    /// Waits for the disk.
    pub(super) fn read(files: &TlsFiles) -> Self {
        Self {
            certificate: read(&files.certificate),
            key: read(&files.key),
            client_ca: files.client_ca.as_deref().map(read),
        }
    }

    /// What tells contents that differ apart, for as long as the process lives. The key cannot be had from it.
    pub(super) fn fingerprint(&self, state: &RandomState) -> u64 {
        let mut hasher = state.build_hasher();
        for file in [Some(&self.certificate), Some(&self.key), self.client_ca.as_ref()] {
            match file {
                Some(Ok(bytes)) => bytes.hash(&mut hasher),
                Some(Err(error)) => (error.kind(), error.raw_os_error()).hash(&mut hasher),
                None => {}
            }
        }
        hasher.finish()
    }
}

fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(file)?.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    Ok(bytes)
}

/// What connections are made with.
pub(super) struct Loaded {
    pub(super) grpc: Arc<ServerConfig>,
    pub(super) http: Arc<ServerConfig>,
    pub(super) either: Arc<ServerConfig>,
    /// From when until when clients accept the server's certificate; unknown of one that is odd.
    pub(super) validity: Option<Validity>,
}

impl Loaded {
    pub(super) fn new(files: &TlsFiles, contents: Contents) -> Result<Self> {
        let provider = Arc::new(ring::default_provider());
        let chain = certificates(CERT, &files.certificate, contents.certificate)?;
        let key = private_key(&files.key, contents.key)?;
        let validity = chain.first().and_then(|own| identity::validity(own));
        warn_of_gaps(&files.certificate, &chain);
        let certified = Arc::new(SingleCertAndKey::from(certified_key(files, chain, key, &provider)?));

        let failed = |error: rustls::Error| Error::internal("TLS cannot be set up").with_source(error);
        let builder = || {
            ServerConfig::builder_with_provider(Arc::clone(&provider))
                .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
                .map_err(failed)
        };
        let mut http = builder()?.with_no_client_auth().with_cert_resolver(Arc::clone(&certified) as _);
        http.alpn_protocols = vec![b"http/1.1".to_vec()];
        let mut grpc = match (&files.client_ca, contents.client_ca) {
            (Some(file), Some(bytes)) => {
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots(file, bytes)?), Arc::clone(&provider))
                        .build()
                        .map_err(|error| {
                            Error::config(format!("{CLIENT_CA}: {} cannot be used", file.display())).with_source(error)
                        })?;
                let mut grpc = builder()?.with_client_cert_verifier(verifier).with_cert_resolver(certified);
                // A session that is taken up again would have its client's certificate verified no more, for a day: it may have
                // expired by then.
                grpc.session_storage = Arc::new(NoServerSessionStorage {});
                grpc.send_tls13_tickets = 0;
                grpc
            }
            _ => builder()?.with_no_client_auth().with_cert_resolver(certified),
        };
        let mut either = grpc.clone();
        grpc.alpn_protocols = vec![b"h2".to_vec()];
        either.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { grpc: Arc::new(grpc), http: Arc::new(http), either: Arc::new(either), validity })
    }
}

fn unreadable(option: &str, file: &Path, error: io::Error) -> Error {
    Error::config(format!("{option}: {} cannot be read: {error}", file.display())).with_source(error)
}

fn certificates(option: &str, file: &Path, bytes: io::Result<Vec<u8>>) -> Result<Vec<CertificateDer<'static>>> {
    let bytes = bytes.map_err(|error| unreadable(option, file, error))?;
    let shown = file.display();
    let found: Vec<_> =
        CertificateDer::pem_slice_iter(&bytes).collect::<std::result::Result<_, _>>().map_err(|_| {
            // What is wrong with it is not repeated: it may be a key, all in one line.
            Error::config(format!("{option}: {shown} is damaged: it does not hold whole PEM sections"))
        })?;
    if found.is_empty() {
        let holds = match Holds::of(&bytes) {
            Holds::Key | Holds::EncryptedKey => "it holds a private key, which belongs to --key",
            Holds::Request => "it holds a request for a certificate: give what the issuer made of it",
            Holds::Nothing => "it is empty",
            Holds::Certificate | Holds::Other => "PEM is text with a line `-----BEGIN CERTIFICATE-----`",
        };
        return Err(Error::config(format!("{option}: there is no PEM certificate in {shown}: {holds}")));
    }
    Ok(found)
}

fn private_key(file: &Path, bytes: io::Result<Vec<u8>>) -> Result<PrivateKeyDer<'static>> {
    let bytes = bytes.map_err(|error| unreadable(KEY, file, error))?;
    let shown = file.display();
    let holds = Holds::of(&bytes);
    if holds == Holds::EncryptedKey {
        return Err(Error::config(format!(
            "{KEY}: the private key in {shown} is encrypted, and there is nobody to ask for its password: decrypt it \
             (openssl pkey -in ENCRYPTED -out KEY), and let nobody but the server read it"
        )));
    }
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| {
        let holds = match holds {
            Holds::Key | Holds::EncryptedKey => "it is damaged",
            Holds::Certificate => "it holds a certificate, which belongs to --cert",
            Holds::Request => "it holds a request for a certificate",
            Holds::Nothing => "it is empty",
            Holds::Other => "PEM is text with a line `-----BEGIN PRIVATE KEY-----`",
        };
        Error::config(format!("{KEY}: there is no PEM private key in {shown}: {holds}"))
    })
}

/// What a file seems to hold, for who gave the wrong one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holds {
    EncryptedKey,
    Key,
    Certificate,
    Request,
    Nothing,
    Other,
}

impl Holds {
    fn of(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        // The old form names what it is encrypted with in a header of its own.
        if text.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----") || text.contains("Proc-Type: 4,ENCRYPTED") {
            Self::EncryptedKey
        } else if text.contains("PRIVATE KEY-----") {
            Self::Key
        } else if text.contains("-----BEGIN CERTIFICATE-----") {
            Self::Certificate
        } else if text.contains("CERTIFICATE REQUEST-----") {
            Self::Request
        } else if text.trim().is_empty() {
            Self::Nothing
        } else {
            Self::Other
        }
    }
}

fn certified_key(
    files: &TlsFiles,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    provider: &CryptoProvider,
) -> Result<CertifiedKey> {
    let (certificate, key_file) = (files.certificate.display(), files.key.display());
    let key = provider.key_provider.load_private_key(key).map_err(|error| {
        Error::config(format!(
            "{KEY}: the private key in {key_file} is damaged, or of a kind that is not supported: take RSA of 2048 to 8192 \
             bits, ECDSA on P-256 or P-384, or Ed25519"
        ))
        .with_source(error)
    })?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        // Of a key that cannot tell its public part, clients will find out.
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
        Err(rustls::Error::InconsistentKeys(_)) => {
            let is_of = |own: &CertificateDer<'static>| {
                CertifiedKey::new(vec![own.clone()], Arc::clone(&certified.key)).keys_match().is_ok()
            };
            Err(Error::config(match certified.cert.iter().position(is_of) {
                Some(before) => format!(
                    "{CERT}: the server's own certificate is number {} in {certificate}: it must be the first, and each after \
                     it must be that of the issuer of the one before",
                    before + 1
                ),
                None => format!(
                    "{KEY}: the private key in {key_file} is not that of the certificate in {certificate} ({CERT}): give the \
                     two that were made together"
                ),
            }))
        }
        Err(error) => {
            let message = format!("{CERT}: the first certificate in {certificate} is damaged: {error}");
            Err(Error::config(message).with_source(error))
        }
    }
}

/// Warns of a chain that some clients do not follow.
fn warn_of_gaps(file: &Path, chain: &[CertificateDer<'static>]) {
    let gap = chain.windows(2).position(|pair| identity::is_issued_by(&pair[0], &pair[1]) == Some(false));
    if let Some(gap) = gap {
        tracing::warn!(
            "{CERT}: in {}, certificate {} is not issued by certificate {}: clients may refuse the server; put each before that of \
             its issuer",
            file.display(),
            gap + 1,
            gap + 2
        );
    }
}

fn roots(file: &Path, bytes: io::Result<Vec<u8>>) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for (before, certificate) in certificates(CLIENT_CA, file, bytes)?.into_iter().enumerate() {
        roots.add(certificate).map_err(|error| {
            let message =
                format!("{CLIENT_CA}: certificate {} in {} cannot be used: {error}", before + 1, file.display());
            Error::config(message).with_source(error)
        })?;
    }
    Ok(roots)
}
