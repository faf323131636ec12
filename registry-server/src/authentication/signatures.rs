//! The signatures of tokens (JWS), verified by ring.
//!
//! `jsonwebtoken` reads tokens and decides; what it is given here does the arithmetic, with the library that TLS is done with too.

use std::sync::Once;

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::signature::{self, Verifier};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, EncodingKey, decode_header};
use ring::hmac;
use ring::signature as ring_signature;
use ring::signature::{RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm};

use super::Unauthenticated;

/// The algorithms that an identity provider may sign with.
pub(super) const ASYMMETRIC: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// Why a token is not taken, without anything that stands in it.
pub(super) fn in_words(error: &Error) -> String {
    match error.kind() {
        ErrorKind::ExpiredSignature => "it has expired".to_owned(),
        ErrorKind::ImmatureSignature => "it is not valid yet".to_owned(),
        ErrorKind::InvalidAudience => "it is for another audience".to_owned(),
        ErrorKind::InvalidIssuer => "it is of another issuer".to_owned(),
        ErrorKind::InvalidSignature => "its signature is wrong".to_owned(),
        ErrorKind::MissingRequiredClaim(claim) => format!("it has no `{claim}`"),
        ErrorKind::InvalidClaimFormat(claim) => format!("its `{claim}` is of another type"),
        _ => "it cannot be understood".to_owned(),
    }
}

/// The algorithm that a token says that it is signed with. Nothing else of it is believed yet.
pub(super) fn algorithm_of(token: &str) -> Result<Algorithm, Unauthenticated> {
    // The error is not told: it quotes the token.
    let header = decode_header(token)
        .map_err(|_| Unauthenticated::Refused("its token is no signed JWT of an algorithm that is known".to_owned()))?;
    let is_taken = ASYMMETRIC.contains(&header.alg) || header.alg == Algorithm::HS256;
    is_taken.then_some(header.alg).ok_or_else(|| {
        Unauthenticated::Refused(format!("its token is signed with {:?}, which is not taken", header.alg))
    })
}

pub(super) fn is_symmetric(algorithm: Algorithm) -> bool {
    algorithm.family() == AlgorithmFamily::Hmac
}

/// Has `jsonwebtoken` verify with ring in this process, unless it has something to verify with already.
pub(super) fn install() {
    static INSTALLED: Once = Once::new();
    static PROVIDER: CryptoProvider =
        CryptoProvider { signer_factory: signer, verifier_factory: verifier, key_utils: KeyUtils::new_unimplemented() };
    INSTALLED.call_once(|| {
        let _ = PROVIDER.install_default();
    });
}

/// The server signs nothing.
fn signer(_: &Algorithm, _: &EncodingKey) -> Result<Box<dyn JwtSigner>, Error> {
    Err(ErrorKind::UnsupportedAlgorithm.into())
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, Error> {
    // A public key must never be taken for the secret of another algorithm.
    if key.family() != algorithm.family() {
        return Err(ErrorKind::InvalidAlgorithm.into());
    }
    let scheme = match algorithm {
        Algorithm::HS256 => Scheme::Secret(hmac::Key::new(hmac::HMAC_SHA256, key.try_get_as_bytes()?)),
        Algorithm::RS256 => Scheme::rsa(&ring_signature::RSA_PKCS1_2048_8192_SHA256, key)?,
        Algorithm::RS384 => Scheme::rsa(&ring_signature::RSA_PKCS1_2048_8192_SHA384, key)?,
        Algorithm::RS512 => Scheme::rsa(&ring_signature::RSA_PKCS1_2048_8192_SHA512, key)?,
        Algorithm::PS256 => Scheme::rsa(&ring_signature::RSA_PSS_2048_8192_SHA256, key)?,
        Algorithm::PS384 => Scheme::rsa(&ring_signature::RSA_PSS_2048_8192_SHA384, key)?,
        Algorithm::PS512 => Scheme::rsa(&ring_signature::RSA_PSS_2048_8192_SHA512, key)?,
        Algorithm::ES256 => Scheme::point(&ring_signature::ECDSA_P256_SHA256_FIXED, key)?,
        Algorithm::ES384 => Scheme::point(&ring_signature::ECDSA_P384_SHA384_FIXED, key)?,
        Algorithm::EdDSA => Scheme::point(&ring_signature::ED25519, key)?,
        _ => return Err(ErrorKind::UnsupportedAlgorithm.into()),
    };
    Ok(Box::new(RingVerifier { algorithm: *algorithm, scheme }))
}

struct RingVerifier {
    algorithm: Algorithm,
    scheme: Scheme,
}

enum Scheme {
    Secret(hmac::Key),
    Rsa { parameters: &'static RsaParameters, key: RsaPublicKeyComponents<Vec<u8>> },
    Point(UnparsedPublicKey<Vec<u8>>),
}

impl Scheme {
    fn rsa(parameters: &'static RsaParameters, key: &DecodingKey) -> Result<Self, Error> {
        match key.kind() {
            DecodingKeyKind::RsaModulusExponent { n, e } => {
                Ok(Scheme::Rsa { parameters, key: RsaPublicKeyComponents { n: n.clone(), e: e.clone() } })
            }
            DecodingKeyKind::SecretOrDer(_) => Err(ErrorKind::InvalidKeyFormat.into()),
        }
    }

    fn point(algorithm: &'static dyn VerificationAlgorithm, key: &DecodingKey) -> Result<Self, Error> {
        Ok(Scheme::Point(UnparsedPublicKey::new(algorithm, key.try_get_as_bytes()?.to_vec())))
    }
}

impl Verifier<Vec<u8>> for RingVerifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        let verified = match &self.scheme {
            Scheme::Secret(key) => hmac::verify(key, message, signature),
            Scheme::Rsa { parameters, key } => key.verify(parameters, message, signature),
            Scheme::Point(key) => key.verify(message, signature),
        };
        verified.map_err(|_| signature::Error::new())
    }
}

impl JwtVerifier for RingVerifier {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}
