//! Certificates for tests.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair,
};

/// Who signs certificates.
pub(crate) type Issuer = CertifiedIssuer<'static, KeyPair>;

/// A certificate and its key, in PEM.
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Pair {
    /// Writes it as `NAME.crt` and `NAME.key`.
    pub(crate) fn write(&self, folder: &Path, name: &str) -> (PathBuf, PathBuf) {
        let paths = (folder.join(format!("{name}.crt")), folder.join(format!("{name}.key")));
        fs::write(&paths.0, &self.certificate).expect("a file");
        fs::write(&paths.1, &self.key).expect("a file");
        paths
    }
}

fn issuer_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

/// Who signs for themselves.
pub(crate) fn issuer(name: &str) -> Issuer {
    CertifiedIssuer::self_signed(issuer_params(name), KeyPair::generate().expect("a key")).expect("an issuer")
}

/// Who signs for another.
pub(crate) fn intermediate(name: &str, issuer: &Issuer) -> Issuer {
    CertifiedIssuer::signed_by(issuer_params(name), KeyPair::generate().expect("a key"), issuer).expect("an issuer")
}

/// A certificate that is as `change` has it.
pub(crate) fn pair(issuer: &Issuer, change: impl FnOnce(&mut CertificateParams)) -> Pair {
    let key = KeyPair::generate().expect("a key");
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let mut params = CertificateParams::new(names).expect("names");
    params.distinguished_name = DistinguishedName::new();
    change(&mut params);
    let certificate = params.signed_by(&key, issuer).expect("a certificate").pem();
    Pair { certificate, key: key.serialize_pem() }
}

/// That of a server on this machine.
pub(crate) fn server(issuer: &Issuer) -> Pair {
    pair(issuer, |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth])
}

/// That of a client with a name and a group.
pub(crate) fn client(issuer: &Issuer, name: &str, group: &str) -> Pair {
    pair(issuer, |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.distinguished_name.push(DnType::CommonName, name);
        params.distinguished_name.push(DnType::OrganizationName, group);
    })
}
