//! Tokens of an identity provider, which is a real HTTP server here.

use std::convert::Infallible;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Instant, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use ring::rand::SystemRandom;
use ring::rsa::{KeyPair as RsaKeyPair, PublicKeyComponents as RsaPublicKeyComponents};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA384,
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::*;

const RSA: &[u8] = include_bytes!("rsa.der");
const RSA_PEM: &str = include_str!("rsa.pub.pem");
const SECRET: &str = "a secret that is long enough to be one, 32 bytes";

fn text(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// An identity provider that signs with what it is told to, and answers as it is told to.
struct Provider {
    url: String,
    keys: Mutex<Vec<Value>>,
    /// How often it was asked for its keys, and how often for anything.
    asked: AtomicUsize,
    requests: AtomicUsize,
    hangs: AtomicBool,
    fails: AtomicBool,
    rsa: RsaKeyPair,
    ec: EcdsaKeyPair,
    ed: Ed25519KeyPair,
}

impl Provider {
    async fn start() -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let random = SystemRandom::new();
        let ec = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("a key");
        let ed = Ed25519KeyPair::generate_pkcs8(&random).expect("a key");
        let this = Arc::new(Self {
            url,
            keys: Mutex::default(),
            asked: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            hangs: AtomicBool::new(false),
            fails: AtomicBool::new(false),
            rsa: RsaKeyPair::from_pkcs8(RSA).expect("a key"),
            ec: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, ec.as_ref(), &random).expect("a key"),
            ed: Ed25519KeyPair::from_pkcs8(ed.as_ref()).expect("a key"),
        });
        *this.keys.lock().expect("not poisoned") = vec![this.rsa_key("rsa"), this.ec_key("ec"), this.ed_key("ed")];
        let answering = Arc::clone(&this);
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let this = Arc::clone(&answering);
                let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
                    let this = Arc::clone(&this);
                    async move { Ok::<_, Infallible>(this.answer(request.uri().path()).await) }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(connection), service),
                );
            }
        });
        this
    }

    async fn answer(&self, path: &str) -> hyper::Response<Full<Bytes>> {
        self.requests.fetch_add(1, Ordering::SeqCst);
        if self.hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        let answer = match path {
            "/discovery" => json!({
                "issuer": format!("{}/issuer", self.url),
                "jwks_uri": format!("{}/keys", self.url),
                "token_endpoint": format!("{}/token", self.url),
                "authorization_endpoint": format!("{}/authorize", self.url),
            }),
            _ => {
                self.asked.fetch_add(1, Ordering::SeqCst);
                json!({ "keys": *self.keys.lock().expect("not poisoned") })
            }
        };
        let status = if self.fails.load(Ordering::SeqCst) { 500 } else { 200 };
        hyper::Response::builder().status(status).body(Full::from(answer.to_string())).expect("an answer")
    }

    fn rsa_numbers(&self) -> RsaPublicKeyComponents<Vec<u8>> {
        RsaPublicKeyComponents::from(self.rsa.public())
    }

    fn rsa_key(&self, id: &str) -> Value {
        let RsaPublicKeyComponents { n, e } = self.rsa_numbers();
        json!({"kty": "RSA", "use": "sig", "kid": id, "n": text(n), "e": text(e)})
    }

    fn ec_key(&self, id: &str) -> Value {
        let point = self.ec.public_key().as_ref();
        json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "kid": id, "x": text(&point[1..33]), "y": text(&point[33..])})
    }

    fn ed_key(&self, id: &str) -> Value {
        json!({"kty": "OKP", "crv": "Ed25519", "kid": id, "x": text(self.ed.public_key().as_ref())})
    }

    fn config(&self) -> OidcConfig {
        let mut config = OidcConfig::new(format!("{}/discovery", self.url));
        config.audience = Some("registry".to_owned());
        config.jwks_request_timeout = Duration::from_millis(300);
        config
    }

    fn authentication(&self) -> Authentication {
        Authentication::builder().oidc(self.config()).expect("settings").build()
    }

    fn claims(&self) -> Value {
        json!({
            "iss": format!("{}/issuer", self.url), "aud": ["registry", "other"], "sub": "1", "preferred_username": "ann",
            "exp": from_now(60), "iat": from_now(-1), "groups": ["team"],
        })
    }

    fn signed(&self, header: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", text(header.to_string()), text(claims.to_string()));
        let random = SystemRandom::new();
        let rsa = |padding| {
            let mut signature = vec![0; self.rsa.public().modulus_len()];
            self.rsa.sign(padding, &random, message.as_bytes(), &mut signature).expect("signed");
            signature
        };
        let signature = match header["alg"].as_str() {
            Some("RS256") => rsa(&RSA_PKCS1_SHA256),
            Some("PS384") => rsa(&RSA_PSS_SHA384),
            Some("ES256") => self.ec.sign(&random, message.as_bytes()).expect("signed").as_ref().to_vec(),
            Some("EdDSA") => self.ed.sign(message.as_bytes()).as_ref().to_vec(),
            _ => Vec::new(),
        };
        format!("{message}.{}", text(signature))
    }

    fn good(&self) -> String {
        self.signed(&json!({"alg": "RS256", "kid": "rsa", "typ": "JWT"}), &self.claims())
    }
}

fn from_now(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    i64::try_from(now).expect("a time") + seconds
}

fn hs256(secret: &[u8], header: &Value, claims: &Value) -> String {
    let message = format!("{}.{}", text(header.to_string()), text(claims.to_string()));
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret);
    format!("{message}.{}", text(ring::hmac::sign(&key, message.as_bytes())))
}

#[tokio::test]
async fn each_algorithm_is_taken_with_its_key() {
    let provider = Provider::start().await;
    let authentication = provider.authentication();
    for header in [
        json!({"alg": "RS256", "kid": "rsa"}),
        json!({"alg": "PS384", "kid": "rsa"}),
        json!({"alg": "ES256", "kid": "ec"}),
        json!({"alg": "EdDSA", "kid": "ed"}),
        // There is one key that this can be of.
        json!({"alg": "ES256"}),
    ] {
        let token = provider.signed(&header, &provider.claims());
        let known = authentication.identify(&bearer(&token)).await.unwrap_or_else(|why| panic!("{header}: {why}"));
        assert_eq!(*known.identity, Identity::new("ann").with_groups(["team"]));
        assert_eq!((known.is_internal, known.method), (false, "oidc"));
        let again = authentication.identify(&bearer(&token)).await.expect("it was verified");
        assert!(Arc::ptr_eq(&known.identity, &again.identity));
    }
    assert_eq!(provider.asked.load(Ordering::SeqCst), 1, "once for all");
}

#[tokio::test]
async fn a_token_that_says_the_wrong_thing_is_refused() {
    let provider = Provider::start().await;
    let authentication = provider.authentication();
    let with = |change: &dyn Fn(&mut Value)| {
        let mut claims = provider.claims();
        change(&mut claims);
        provider.signed(&json!({"alg": "RS256", "kid": "rsa"}), &claims)
    };
    let set = |claim: &'static str, value: Value| with(&move |claims| claims[claim] = value.clone());
    let without =
        |claim: &'static str| with(&move |claims| drop(claims.as_object_mut().expect("an object").remove(claim)));
    let identify = async |token: String| authentication.identify(&bearer(&token)).await;
    identify(set("exp", json!(from_now(-5)))).await.expect("clocks differ a little");
    for (what, token) in [
        ("expired", set("exp", json!(from_now(-15)))),
        ("without an end", without("exp")),
        ("an end that is text", set("exp", json!(from_now(60).to_string()))),
        ("an end that is huge", set("exp", json!(1e300))),
        ("an end that is negative", set("exp", json!(-1))),
        ("not yet", set("nbf", json!(from_now(60)))),
        ("another audience", set("aud", json!("other"))),
        ("no audience", without("aud")),
        ("another issuer", set("iss", json!("https://evil.example"))),
        ("no issuer", without("iss")),
        ("of Kubernetes", set("kubernetes.io", json!({"namespace": "kube-system"}))),
    ] {
        let taken = identify(token).await;
        assert!(matches!(taken, Err(Unauthenticated::Refused(_))), "{what}: {taken:?}");
    }
    let nobody = with(&|claims| {
        claims["preferred_username"] = json!({"a": 1});
        claims["sub"] = json!(7);
    });
    assert!(refused(identify(nobody).await).contains("whose"));
}

#[tokio::test]
async fn no_trick_with_the_header_or_the_signature_works() {
    let provider = Provider::start().await;
    let authentication = Authentication::builder()
        .oidc(provider.config())
        .expect("settings")
        .internal_secret(SECRET)
        .expect("a secret")
        .build();
    let identify = async |token: String| authentication.identify(&bearer(&token)).await;
    let good = provider.good();
    identify(good.clone()).await.expect("it is good");
    let claims = provider.claims();
    let (signed_part, signature) = good.rsplit_once('.').expect("a signature");
    let (_, payload) = signed_part.split_once('.').expect("a payload");
    let with_header = |header: Value| format!("{}.{payload}.{signature}", text(header.to_string()));

    for algorithm in ["none", "None", "NONE", "nOnE", "", "HS256", "HS384", "RS512", "ES256", "EdDSA", "XX"] {
        refused(identify(with_header(json!({"alg": algorithm, "kid": "rsa"}))).await);
        refused(identify(format!("{}.{payload}.", text(json!({"alg": algorithm}).to_string()))).await);
    }
    // The public key, in whatever form, taken for the secret of HS256.
    let header = json!({"alg": "HS256", "kid": "rsa"});
    let der = provider.rsa.public().as_ref().to_vec();
    let n = provider.rsa_numbers().n;
    for secret in [RSA_PEM.as_bytes(), RSA_PEM.trim().as_bytes(), &der, &n, b"", SECRET.as_bytes()] {
        refused(identify(hs256(secret, &header, &claims)).await);
    }
    // What is told of a token is nothing that stands in it: it could be a line of the log.
    let forged = text(json!({"alg": "x\n2026-01-01T00:00:00Z INFO forged", "kid": "rsa"}).to_string());
    let why = refused(identify(format!("{forged}.{payload}.{signature}")).await);
    assert!(!why.contains("forged") && !why.contains('\n'), "{why}");
    // Keys that the token brings along, or says where to find.
    let own = provider.rsa_key("own");
    for extra in ["jwk", "jku", "x5u", "x5c"] {
        let value = match extra {
            "jwk" => own.clone(),
            "x5c" => json!([text(&der)]),
            _ => json!(format!("{}/keys", provider.url)),
        };
        let mut header = json!({"alg": "RS256", "kid": "unknown"});
        header[extra] = value;
        refused(identify(provider.signed(&header, &claims)).await);
    }
    for kid in ["../../dev/null", "' OR 1=1 --", "", "rsa\u{0}", "RSA", "ec"] {
        refused(identify(provider.signed(&json!({"alg": "RS256", "kid": kid}), &claims)).await);
    }
    refused(identify(provider.signed(&json!({"alg": "RS256", "kid": ["rsa"]}), &claims)).await);
    refused(
        identify(provider.signed(&json!({"alg": "RS256", "kid": "rsa", "crit": ["exp"], "exp": 1}), &claims)).await,
    );
    // What was signed, with other claims; what is cut off, put together, or no token at all.
    let mut root = claims.clone();
    root["preferred_username"] = json!("root");
    let head = good.split('.').next().expect("a header");
    for token in [
        format!("{head}.{}.{signature}", text(root.to_string())),
        format!("{head}.{payload}."),
        format!("{head}.{payload}"),
        format!("{head}..{signature}"),
        format!("{good}.x"),
        format!("{good}="),
        good[..good.len() - 4].to_owned(),
        "..".to_owned(),
        "x".to_owned(),
        text("{".repeat(5000)) + ".e30.e30",
    ] {
        refused(identify(token).await);
    }
    assert!(provider.asked.load(Ordering::SeqCst) <= 2, "made-up keys do not have the provider asked again and again");
}

#[tokio::test]
async fn keys_that_are_no_good_are_not_used() {
    let provider = Provider::start().await;
    let secret = text("a secret that is published is none, whatever it says");
    let mut encryption = provider.rsa_key("rsa");
    encryption["use"] = json!("enc");
    let mut other_algorithm = provider.rsa_key("rsa");
    other_algorithm["alg"] = json!("RS512");
    let mut short = provider.rsa_key("rsa");
    short["n"] = json!(text([0xff; 128]));
    *provider.keys.lock().expect("not poisoned") = vec![
        json!({"kty": "oct", "kid": "oct", "k": secret}),
        encryption,
        other_algorithm,
        short,
        json!({"kty": "new", "kid": "rsa"}),
        json!(7),
        provider.ec_key("ec"),
    ];
    let authentication = provider.authentication();
    let identify = async |token: String| authentication.identify(&bearer(&token)).await;
    refused(identify(provider.good()).await);
    let header = json!({"alg": "HS256", "kid": "oct"});
    refused(
        identify(hs256(b"a secret that is published is none, whatever it says", &header, &provider.claims())).await,
    );
    identify(provider.signed(&json!({"alg": "ES256", "kid": "ec"}), &provider.claims()))
        .await
        .expect("that one is good");
}

#[tokio::test]
async fn a_new_key_is_found_and_an_old_one_dies() {
    let provider = Provider::start().await;
    let mut config = provider.config();
    config.jwks_cache_lifespan = Duration::from_millis(400);
    let oidc = Oidc::new(config).expect("settings");
    let verify = async |token: &str| oidc.verify(token, signatures::algorithm_of(token)?).await;
    *provider.keys.lock().expect("not poisoned") = vec![provider.ec_key("old")];
    let old = provider.signed(&json!({"alg": "ES256", "kid": "old"}), &provider.claims());
    verify(&old).await.expect("it is good");
    *provider.keys.lock().expect("not poisoned") = vec![provider.ed_key("new")];
    let new = provider.signed(&json!({"alg": "EdDSA", "kid": "new"}), &provider.claims());
    // Not at once, or whoever makes keys up would have the provider asked each time.
    refused(verify(&new).await);
    assert_eq!(provider.asked.load(Ordering::SeqCst), 1);
    oidc.may_ask_again();
    verify(&new).await.expect("it is found");
    refused(verify(&old).await);
    // While the provider is away, its keys are good for twice their lifespan, and no longer.
    provider.fails.store(true, Ordering::SeqCst);
    oidc.may_ask_again();
    tokio::time::sleep(Duration::from_millis(500)).await;
    verify(&new).await.expect("they are used while others are asked for");
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(matches!(verify(&new).await, Err(Unauthenticated::Unavailable(_))));
}

#[tokio::test]
async fn a_key_that_was_taken_back_while_nobody_called_lets_nobody_in() {
    let provider = Provider::start().await;
    let mut config = provider.config();
    config.jwks_cache_lifespan = Duration::from_millis(400);
    let oidc = Oidc::new(config).expect("settings");
    let verify = async |token: &str| oidc.verify(token, signatures::algorithm_of(token)?).await;
    let token = provider.signed(&json!({"alg": "EdDSA", "kid": "ed"}), &provider.claims());
    verify(&token).await.expect("it is good");
    *provider.keys.lock().expect("not poisoned") = vec![provider.ec_key("ec")];
    tokio::time::sleep(Duration::from_millis(500)).await;
    oidc.may_ask_again();
    refused(verify(&token).await);
}

/// Who makes keys up and leaves at once must not have the provider asked each time.
#[tokio::test]
async fn callers_who_leave_do_not_have_the_provider_asked_again() {
    let provider = Provider::start().await;
    let oidc = Oidc::new(provider.config()).expect("settings");
    provider.hangs.store(true, Ordering::SeqCst);
    for number in 0..10 {
        let token = provider.signed(&json!({"alg": "RS256", "kid": number.to_string()}), &provider.claims());
        let verified = oidc.verify(&token, signatures::algorithm_of(&token).expect("one"));
        tokio::time::timeout(Duration::from_millis(20), verified).await.expect_err("the caller leaves");
    }
    assert_eq!(provider.requests.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_provider_that_hangs_holds_up_few_and_not_for_long() {
    let provider = Provider::start().await;
    let authentication = provider.authentication();
    let good = provider.good();
    authentication.identify(&bearer(&good)).await.expect("it is good");
    provider.hangs.store(true, Ordering::SeqCst);
    let fresh = provider.authentication();
    let waiting: Vec<_> = (0..300)
        .map(|number| {
            let (fresh, mut claims) = (fresh.clone(), provider.claims());
            claims["sub"] = json!(number.to_string());
            let token = provider.signed(&json!({"alg": "RS256", "kid": "rsa"}), &claims);
            tokio::spawn(async move { fresh.identify(&bearer(&token)).await })
        })
        .collect();
    let began = Instant::now();
    // Whoever is known needs nobody.
    authentication.identify(&bearer(&good)).await.expect("it was verified");
    assert!(began.elapsed() < Duration::from_millis(200));
    let mut too_many = 0;
    for call in waiting {
        match call.await.expect("it ends") {
            Err(Unauthenticated::Unavailable(why)) => too_many += usize::from(why.contains("wait for")),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(too_many, 300 - 256);
}

#[tokio::test]
async fn internal_tokens_are_signed_with_a_secret() {
    assert!(
        Authentication::builder().internal_secret("aW50cmEtc2VydmVyLWNvbW11bmljYXRpb24=").is_err(),
        "everybody knows it"
    );
    assert!(Authentication::builder().internal_secret(" aW50cmEtc2VydmVyLWNvbW11bmljYXRpb24=\n").is_err());
    assert!(Authentication::builder().internal_secret("short").is_err());
    let authentication = Authentication::builder().internal_secret(SECRET).expect("a secret").build();
    let identify = async |token: String| authentication.identify(&bearer(&token)).await;
    let header = json!({"alg": "HS256"});
    for claims in [
        json!({"preferred_username": SECRET, "exp": from_now(60)}),
        json!({"sub": format!(":::{SECRET}"), "exp": from_now(60)}),
    ] {
        let known = identify(hs256(SECRET.as_bytes(), &header, &claims)).await.expect("it is signed");
        assert!(known.is_internal);
        refused(identify(hs256(b"another secret that is long enough", &header, &claims)).await);
        refused(identify(format!("{}.{}.", text(r#"{"alg":"none"}"#), text(claims.to_string()))).await);
    }
    for claims in [
        json!({"preferred_username": SECRET}),
        json!({"preferred_username": SECRET, "exp": from_now(7200)}),
        json!({"preferred_username": SECRET, "exp": from_now(-60)}),
        json!({"preferred_username": "root", "exp": from_now(60)}),
    ] {
        refused(identify(hs256(SECRET.as_bytes(), &header, &claims)).await);
    }
    assert!(!format!("{authentication:?}").contains(SECRET));
}

#[tokio::test]
async fn what_a_provider_signs_for_other_purposes_lets_nobody_in() {
    let provider = Provider::start().await;
    let authentication = provider.authentication();
    let identify = async |token: String| authentication.identify(&bearer(&token)).await;
    let typed = |typ: &str| provider.signed(&json!({"alg": "RS256", "kid": "rsa", "typ": typ}), &provider.claims());
    for typ in ["JWT", "jwt", "at+jwt", "application/at+JWT"] {
        identify(typed(typ)).await.unwrap_or_else(|why| panic!("{typ}: {why}"));
    }
    for typ in ["logout+jwt", "dpop+jwt", "secevent+jwt", "JWE", ""] {
        assert!(refused(identify(typed(typ)).await).contains("type"), "{typ}");
    }
    let issued = |iat: Value| {
        let mut claims = provider.claims();
        claims["iat"] = iat;
        provider.signed(&json!({"alg": "RS256", "kid": "rsa"}), &claims)
    };
    identify(issued(json!(from_now(5)))).await.expect("clocks differ a little");
    for iat in [json!(from_now(60)), json!(from_now(-60).to_string()), json!(null)] {
        assert!(refused(identify(issued(iat.clone())).await).contains("iat"), "{iat}");
    }

    let mut encrypts = provider.rsa_key("rsa");
    encrypts.as_object_mut().expect("an object").remove("use");
    let mut verifies = encrypts.clone();
    (encrypts["key_ops"], verifies["key_ops"]) = (json!(["encrypt", "wrapKey"]), json!(["verify"]));
    *provider.keys.lock().expect("not poisoned") = vec![encrypts, provider.ec_key("ec")];
    refused(provider.authentication().identify(&bearer(&provider.good())).await);
    *provider.keys.lock().expect("not poisoned") = vec![verifies];
    provider.authentication().identify(&bearer(&provider.good())).await.expect("it is for that");
}
