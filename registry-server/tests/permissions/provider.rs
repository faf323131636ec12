//! An identity provider, as small as one can be: a discovery document, one key, and tokens that are signed with it or with another.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use feast_registry_core::config::OidcConfig;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// Whom its tokens have to be for.
const AUDIENCE: &str = "registry";

pub(crate) struct Provider {
    url: String,
    key: Ed25519KeyPair,
    /// One that nobody knows of.
    other_key: Ed25519KeyPair,
}

impl Provider {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let this = Self { url, key: key(), other_key: key() };
        let (discovery, keys) = (
            Arc::new(json!({"issuer": this.issuer(), "jwks_uri": format!("{}/keys", this.url)}).to_string()),
            Arc::new(json!({"keys": [this.public_key()]}).to_string()),
        );
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let (discovery, keys) = (Arc::clone(&discovery), Arc::clone(&keys));
                let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
                    let document = if request.uri().path() == "/discovery" { &discovery } else { &keys };
                    let body = Full::new(Bytes::from(String::clone(document)));
                    async move { Ok::<_, Infallible>(hyper::Response::new(body)) }
                });
                let http = hyper::server::conn::http1::Builder::new();
                tokio::spawn(http.serve_connection(TokioIo::new(connection), service));
            }
        });
        this
    }

    pub(crate) fn settings(&self) -> OidcConfig {
        let mut settings = OidcConfig::new(format!("{}/discovery", self.url));
        settings.audience = Some(AUDIENCE.to_owned());
        settings
    }

    fn issuer(&self) -> String {
        format!("{}/issuer", self.url)
    }

    fn public_key(&self) -> Value {
        let public = URL_SAFE_NO_PAD.encode(self.key.public_key());
        json!({"kty": "OKP", "crv": "Ed25519", "kid": "key", "x": public})
    }

    /// What a good token of somebody says.
    pub(crate) fn claims(&self, name: &str, role: &str) -> Value {
        json!({
            "iss": self.issuer(), "aud": AUDIENCE, "sub": name, "preferred_username": name, "roles": [role],
            "exp": from_now(3600), "iat": from_now(-1),
        })
    }

    pub(crate) fn signed(&self, claims: &Value) -> String {
        signed_with(&self.key, claims)
    }

    /// Signed by somebody else, who gives the key the same name.
    pub(crate) fn forged(&self, claims: &Value) -> String {
        signed_with(&self.other_key, claims)
    }

    /// Not signed at all, and says so.
    pub(crate) fn unsigned(claims: &Value) -> String {
        format!("{}.", message(&json!({"alg": "none", "kid": "key"}), claims))
    }
}

fn key() -> Ed25519KeyPair {
    let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("a key");
    Ed25519KeyPair::from_pkcs8(key.as_ref()).expect("a key")
}

fn message(header: &Value, claims: &Value) -> String {
    let encoded = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
    format!("{}.{}", encoded(header), encoded(claims))
}

fn signed_with(key: &Ed25519KeyPair, claims: &Value) -> String {
    let message = message(&json!({"alg": "EdDSA", "kid": "key", "typ": "JWT"}), claims);
    let signature = URL_SAFE_NO_PAD.encode(key.sign(message.as_bytes()));
    format!("{message}.{signature}")
}

pub(crate) fn from_now(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    i64::try_from(now).expect("a time") + seconds
}
