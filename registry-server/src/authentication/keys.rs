//! The keys of a provider (JSON Web Keys, RFC 7517), and what they have signed.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};
use serde_json::{Map, Value as Json};

/// How many keys of a provider are looked at.
const KEYS: usize = 100;
/// What `ring` takes, too: shorter ones can be broken, and longer ones take long.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// How a token is signed, so that whoever checks it can sign none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    EdDsa,
}

impl Algorithm {
    /// The algorithm of this name, which is told from others by its case, too.
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "RS256" => Self::Rs256,
            "RS384" => Self::Rs384,
            "RS512" => Self::Rs512,
            "PS256" => Self::Ps256,
            "PS384" => Self::Ps384,
            "PS512" => Self::Ps512,
            "ES256" => Self::Es256,
            "ES384" => Self::Es384,
            "EdDSA" | "Ed25519" => Self::EdDsa,
            _ => return None,
        })
    }
}

/// A key that signatures are checked with.
#[derive(Clone, PartialEq, Eq)]
struct Key {
    id: Option<String>,
    /// The only algorithm that it is for, if it says so.
    algorithm: Option<Algorithm>,
    material: Material,
}

#[derive(Clone, PartialEq, Eq)]
enum Material {
    Rsa {
        modulus: Vec<u8>,
        exponent: Vec<u8>,
    },
    /// A point, uncompressed.
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

impl Key {
    /// A key that signatures can be checked with, if it is one.
    fn read(key: &Map<String, Json>) -> Option<Self> {
        let text = |name: &str| key.get(name).and_then(Json::as_str);
        let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?.trim_end_matches('=')).ok();
        let is_for_signatures = key.get("use").is_none_or(|purpose| purpose == "sig")
            && key.get("key_ops").is_none_or(|purposes| {
                purposes.as_array().is_some_and(|purposes| purposes.iter().any(|purpose| purpose == "verify"))
            });
        if !is_for_signatures {
            return None;
        }
        let algorithm = match key.get("alg") {
            None => None,
            Some(name) => Some(name.as_str().and_then(Algorithm::named)?),
        };
        let point = |size: usize| {
            let (x, y) = (bytes("x")?, bytes("y")?);
            (x.len() == size && y.len() == size).then(|| [&[4][..], &x, &y].concat())
        };
        let material = match (text("kty")?, text("crv")) {
            ("RSA", _) => {
                let without_zeros = |number: Vec<u8>| number.iter().copied().skip_while(|byte| *byte == 0).collect();
                let (modulus, exponent): (Vec<u8>, _) = (without_zeros(bytes("n")?), without_zeros(bytes("e")?));
                let bits = modulus.len() * 8 - modulus.first()?.leading_zeros() as usize;
                if !RSA_BITS.contains(&bits) {
                    return None;
                }
                Material::Rsa { modulus, exponent }
            }
            ("EC", Some("P-256")) => Material::P256(point(32)?),
            ("EC", Some("P-384")) => Material::P384(point(48)?),
            ("OKP", Some("Ed25519")) => Material::Ed25519(bytes("x").filter(|key| key.len() == 32)?),
            _ => return None,
        };
        let id = text("kid").map(str::to_owned);
        let key = Self { id, algorithm, material };
        key.algorithm.is_none_or(|algorithm| key.is_of(algorithm)).then_some(key)
    }

    /// Whether keys like this one sign by this algorithm.
    fn is_of(&self, algorithm: Algorithm) -> bool {
        use Algorithm::{EdDsa, Es256, Es384, Ps256, Ps384, Ps512, Rs256, Rs384, Rs512};
        match self.material {
            Material::Rsa { .. } => matches!(algorithm, Rs256 | Rs384 | Rs512 | Ps256 | Ps384 | Ps512),
            Material::P256(_) => algorithm == Es256,
            Material::P384(_) => algorithm == Es384,
            Material::Ed25519(_) => algorithm == EdDsa,
        }
    }

    fn fits(&self, algorithm: Algorithm) -> bool {
        self.is_of(algorithm) && self.algorithm.is_none_or(|only| only == algorithm)
    }

    /// Whether this key has signed it.
    fn has_signed(&self, algorithm: Algorithm, signed: &[u8], signature: &[u8]) -> bool {
        let verifies = |by: &'static dyn signature::VerificationAlgorithm, key: &[u8]| {
            UnparsedPublicKey::new(by, key).verify(signed, signature).is_ok()
        };
        match (&self.material, algorithm) {
            (Material::Rsa { modulus, exponent }, _) => {
                let by = match algorithm {
                    Algorithm::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
                    Algorithm::Rs384 => &signature::RSA_PKCS1_2048_8192_SHA384,
                    Algorithm::Rs512 => &signature::RSA_PKCS1_2048_8192_SHA512,
                    Algorithm::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
                    Algorithm::Ps384 => &signature::RSA_PSS_2048_8192_SHA384,
                    Algorithm::Ps512 => &signature::RSA_PSS_2048_8192_SHA512,
                    Algorithm::Es256 | Algorithm::Es384 | Algorithm::EdDsa => return false,
                };
                RsaPublicKeyComponents { n: modulus, e: exponent }.verify(by, signed, signature).is_ok()
            }
            (Material::P256(key), Algorithm::Es256) => verifies(&signature::ECDSA_P256_SHA256_FIXED, key),
            (Material::P384(key), Algorithm::Es384) => verifies(&signature::ECDSA_P384_SHA384_FIXED, key),
            (Material::Ed25519(key), Algorithm::EdDsa) => verifies(&signature::ED25519, key),
            _ => false,
        }
    }
}

/// The keys of a provider that signatures can be checked with.
#[derive(Clone, Default)]
pub(super) struct Keys(Vec<Key>);

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} keys", self.0.len())
    }
}

/// What keys say about a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// One of them has made it.
    Genuine,
    /// The one that is named has not.
    Forged,
    /// There is none that is named so and fits the algorithm.
    NoKey,
    /// It names none, and there are several that might have made it.
    Ambiguous,
}

impl Keys {
    /// The keys of a document, of which those are left out that cannot be used. Without any it is an error.
    pub(super) fn read(document: &Map<String, Json>) -> Result<Self, String> {
        let Some(Json::Array(all)) = document.get("keys") else {
            return Err("it has no list `keys`".to_owned());
        };
        if all.len() > KEYS {
            tracing::warn!("the identity provider has {} keys, of which the first {KEYS} are looked at", all.len());
        }
        let keys: Vec<Key> = all.iter().take(KEYS).filter_map(Json::as_object).filter_map(Key::read).collect();
        if keys.is_empty() {
            return Err(format!(
                "none of its {} keys can be used: RSA of 2048 to 8192 bits, P-256, P-384 or Ed25519, for signatures",
                all.len()
            ));
        }
        Ok(Self(keys))
    }

    /// Whether all of these keys are among the others.
    pub(super) fn are_among(&self, others: &Self) -> bool {
        self.0.iter().all(|key| others.0.contains(key))
    }

    /// Whether a signature is one of these keys'.
    pub(super) fn judge(&self, algorithm: Algorithm, id: Option<&str>, signed: &[u8], signature: &[u8]) -> Verdict {
        let fitting = self.0.iter().filter(|key| key.fits(algorithm));
        let named: Vec<&Key> = fitting.filter(|key| id.is_none() || key.id.as_deref() == id).collect();
        match (&*named, id) {
            ([], _) => Verdict::NoKey,
            ([_, _, ..], None) => Verdict::Ambiguous,
            _ if named.iter().any(|key| key.has_signed(algorithm, signed, signature)) => Verdict::Genuine,
            _ => Verdict::Forged,
        }
    }
}
