//! Tokens that a cluster reviews, which is a real HTTPS server here and checks what it is asked.

use std::convert::Infallible;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::authentication::kubernetes::REVIEWED_FOR;
use crate::tls::tests::certificates::{self, Issuer};

const OWN: &str = "the server's own token";

/// Answers over HTTPS on this machine; returns the URL.
pub(super) async fn https<A, F>(issuer: &Issuer, answer: A) -> String
where
    A: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let pair = certificates::server(issuer);
    let certificate = CertificateDer::from_pem_slice(pair.certificate.as_bytes()).expect("a certificate");
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("a certificate and its key");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("https://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            let (acceptor, answer) = (acceptor.clone(), answer.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(connection).await else { return };
                let service = service_fn(move |request| {
                    let answered = answer(request);
                    async move { Ok::<_, Infallible>(answered.await) }
                });
                drop(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
            });
        }
    });
    url
}

/// A cluster that knows some tokens, and says who may list what.
#[derive(Default)]
struct Api {
    /// What it says of a token.
    reviews: Mutex<Vec<(String, Value)>>,
    bindings: Mutex<Vec<(&'static str, Vec<Value>)>>,
    asked: Mutex<Vec<String>>,
    reviewed: AtomicUsize,
    is_away: AtomicBool,
    hangs: AtomicBool,
}

impl Api {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let answer = |status: u16, body: &Value| {
            Response::builder().status(status).body(Full::from(body.to_string())).expect("an answer")
        };
        if self.hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        if self.is_away.load(Ordering::SeqCst) {
            return answer(503, &json!({}));
        }
        let authorization = request.headers().get("authorization").and_then(|value| value.to_str().ok());
        if authorization != Some(&format!("Bearer {OWN}")) {
            return answer(401, &json!({}));
        }
        let (method, uri) = (request.method().clone(), request.uri().clone());
        self.asked.lock().expect("not poisoned").push(format!("{method} {uri}"));
        if method == "POST" && uri.path() == "/apis/authentication.k8s.io/v1/tokenreviews" {
            self.reviewed.fetch_add(1, Ordering::SeqCst);
            assert_eq!(request.headers()["content-type"], "application/json");
            let body = request.into_body().collect().await.expect("a body").to_bytes();
            let review: Value = serde_json::from_slice(&body).expect("JSON");
            assert_eq!(
                (&review["apiVersion"], &review["kind"]),
                (&json!("authentication.k8s.io/v1"), &json!("TokenReview"))
            );
            let reviews = self.reviews.lock().expect("not poisoned");
            let known = reviews.iter().find(|(token, _)| review["spec"]["token"] == **token);
            let mut status = known.map_or(json!({"user": {}, "error": "unknown token"}), |(_, status)| status.clone());
            if let Some(asked) = review["spec"]["audiences"].as_array() {
                let has = status["audiences"].as_array().cloned().unwrap_or_default();
                status["audiences"] = asked.iter().filter(|audience| has.contains(audience)).cloned().collect();
            }
            return answer(201, &json!({"kind": "TokenReview", "status": status}));
        }
        let path = uri.path().strip_prefix("/apis/rbac.authorization.k8s.io/v1/").unwrap_or_default();
        let bindings = self.bindings.lock().expect("not poisoned");
        let Some((_, items)) = bindings.iter().find(|(at, _)| *at == path) else { return answer(403, &json!({})) };
        // In pages of one.
        let at = uri
            .query()
            .unwrap_or_default()
            .split('&')
            .find_map(|part| part.strip_prefix("continue=")?.parse().ok())
            .unwrap_or(0);
        let next = if at + 1 < items.len() { (at + 1).to_string() } else { String::new() };
        let page: Vec<&Value> = items.iter().skip(at).take(1).collect();
        answer(200, &json!({"metadata": {"continue": next}, "items": page}))
    }

    fn knows(&self, token: &str, user: &str, groups: &[&str]) {
        let status =
            json!({"authenticated": true, "user": {"username": user, "groups": groups}, "audiences": ["feast"]});
        self.reviews.lock().expect("not poisoned").push((token.to_owned(), status));
    }

    fn forgets(&self, token: &str) {
        self.reviews.lock().expect("not poisoned").retain(|(known, _)| known != token);
    }
}

struct Cluster {
    api: Arc<Api>,
    config: KubernetesConfig,
    folder: TempDir,
}

async fn cluster() -> Cluster {
    let (api, issuer, folder) =
        (Arc::new(Api::default()), certificates::issuer("the cluster"), TempDir::new().expect("a folder"));
    let answering = Arc::clone(&api);
    let url = https(&issuer, move |request| Arc::clone(&answering).answer(request)).await;
    write(folder.path(), "token", &format!("{OWN}\n"));
    write(folder.path(), "namespace", "feast");
    write(folder.path(), "ca.crt", &issuer.pem());
    let mut config = KubernetesConfig::default();
    (config.api_server, config.service_account_dir) = (Some(url), Some(folder.path().to_owned()));
    Cluster { api, config, folder }
}

fn write(folder: &Path, name: &str, content: &str) {
    fs::write(folder.join(name), content).expect("a file");
}

fn authentication(config: &KubernetesConfig) -> Authentication {
    Authentication::builder().kubernetes(config).expect("settings").build()
}

fn binding(name: &str, namespace: &str, role: &str, subjects: Value) -> Value {
    json!({"metadata": {"name": name, "namespace": namespace}, "roleRef": {"kind": "Role", "name": role}, "subjects": subjects})
}

/// A token that says of itself what it likes.
fn jwt(claims: &Value) -> String {
    let text = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.signature", text(&json!({"alg": "RS256", "kid": "k"})), text(claims))
}

#[tokio::test]
async fn service_accounts_have_the_roles_of_the_servers_namespace() {
    let Cluster { api, config, folder: _folder } = cluster().await;
    let job = json!([{"kind": "ServiceAccount", "name": "job", "namespace": "team"}]);
    *api.bindings.lock().expect("not poisoned") = vec![(
        "namespaces/feast/rolebindings",
        vec![
            binding("a", "feast", "writer", job.clone()),
            binding("b", "feast", "admin", json!([{"kind": "ServiceAccount", "name": "job", "namespace": "other"}])),
            binding("c", "feast", "reader", job),
        ],
    )];
    let end = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() + 600;
    let token = jwt(&json!({"sub": "system:serviceaccount:kube-system:root", "exp": end}));
    api.knows(&token, "system:serviceaccount:team:job", &["system:serviceaccounts", "system:serviceaccounts:team"]);
    let authentication = authentication(&config);
    let known = authentication.identify(&bearer(&token)).await.expect("it is known");
    let job = Identity::new("system:serviceaccount:team:job")
        .with_roles(["reader", "writer"])
        .with_groups(["system:serviceaccounts", "system:serviceaccounts:team"])
        .with_namespaces(["team"]);
    assert_eq!((&*known.identity, known.is_internal, known.method), (&job, false, "kubernetes"));
    assert_eq!(known.until, Some(UNIX_EPOCH + Duration::from_secs(end)));
    let again = authentication.identify(&bearer(&token)).await.expect("it was reviewed");
    assert!(Arc::ptr_eq(&known.identity, &again.identity));
    assert_eq!(api.reviewed.load(Ordering::SeqCst), 1);
    let asked = api.asked.lock().expect("not poisoned").clone();
    assert_eq!(asked.len(), 1 + 3, "{asked:?}");
}

#[tokio::test]
async fn users_have_the_roles_of_the_servers_namespace_and_the_cluster_and_no_others() {
    let Cluster { api, config, folder: _folder } = cluster().await;
    let ann = || json!([{"kind": "User", "name": "ann"}]);
    let mut member = binding("dashboard-permissions-1", "sales", "view", ann());
    member["metadata"]["labels"] = json!({"opendatahub.io/dashboard": "true"});
    *api.bindings.lock().expect("not poisoned") = vec![
        (
            "namespaces/feast/rolebindings",
            vec![binding("a", "feast", "reader", json!([{"kind": "Group", "name": "data"}]))],
        ),
        ("clusterrolebindings", vec![binding("b", "", "auditor", ann())]),
        ("rolebindings", vec![member, binding("c", "elsewhere", "admin-of-feast", ann())]),
    ];
    api.knows("sha256~opaque", "ann", &["data", "system:serviceaccounts:ops"]);
    let known = authentication(&config).identify(&bearer("sha256~opaque")).await.expect("it is known");
    let expected = Identity::new("ann")
        .with_roles(["auditor", "reader"])
        .with_groups(["data", "system:serviceaccounts:ops"])
        .with_namespaces(["ops", "sales"]);
    assert_eq!(*known.identity, expected);
    let left = known.until.expect("an end").duration_since(SystemTime::now()).expect("later");
    assert!(left <= Duration::from_secs(3600), "it is reviewed anew some time");
}

/// A forged token says whose it is as well as a real one.
#[tokio::test]
async fn what_the_cluster_does_not_know_is_refused_whatever_it_says_of_itself() {
    let Cluster { api, mut config, folder } = cluster().await;
    *api.bindings.lock().expect("not poisoned") = vec![("namespaces/feast/rolebindings", Vec::new())];
    let account = "system:serviceaccount:feast:feast";
    let forged = jwt(&json!({"sub": account, "kubernetes.io": {"namespace": "feast"}}));
    api.knows("good", account, &[]);
    let nobody = json!({"authenticated": true, "user": {"username": ""}});
    let unsure = json!({"authenticated": false, "user": {"username": account}, "error": "expired"});
    api.reviews.lock().expect("not poisoned").extend([("nobody".to_owned(), nobody), ("unsure".to_owned(), unsure)]);
    let plain = authentication(&config);
    plain.identify(&bearer("good")).await.expect("it is known");
    for token in [&forged, "unsure", "nobody", "x", "..", &format!("{forged}.x")] {
        refused(plain.identify(&bearer(token)).await);
        // It is not reviewed again at once: whoever makes tokens up must not have the cluster asked each time.
        let reviewed = api.reviewed.load(Ordering::SeqCst);
        refused(plain.identify(&bearer(token)).await);
        assert_eq!(api.reviewed.load(Ordering::SeqCst), reviewed, "{token}");
    }
    config.audience = Some("another".to_owned());
    assert!(refused(authentication(&config).identify(&bearer("good")).await).contains("`another`"));
    config.audience = Some("feast".to_owned());
    authentication(&config).identify(&bearer("good")).await.expect("it is for that");
    config.audience = None;

    // What cannot be asked lets nobody in: no answer, no right to ask, another certificate.
    let unavailable = async || match authentication(&config).identify(&bearer("good")).await {
        Err(Unauthenticated::Unavailable(why)) => why,
        other => panic!("{other:?}"),
    };
    api.is_away.store(true, Ordering::SeqCst);
    assert!(unavailable().await.contains("503"));
    api.is_away.store(false, Ordering::SeqCst);
    api.bindings.lock().expect("not poisoned").clear();
    assert!(unavailable().await.contains("docs/security.md"));
    write(folder.path(), "token", "no longer good");
    assert!(unavailable().await.contains("own token"));
    write(folder.path(), "token", OWN);
    write(folder.path(), "ca.crt", &certificates::issuer("another").pem());
    assert!(unavailable().await.contains("certificate"));
}

#[tokio::test]
async fn files_that_kubernetes_renews_are_read_anew() {
    let Cluster { api, config, folder } = cluster().await;
    *api.bindings.lock().expect("not poisoned") = vec![("namespaces/feast/rolebindings", Vec::new())];
    api.knows("one", "system:serviceaccount:a:one", &[]);
    let authorities = fs::read_to_string(folder.path().join("ca.crt")).expect("a file");
    write(folder.path(), "ca.crt", &certificates::issuer("the next").pem());
    write(folder.path(), "token", "not yet");
    let authentication = authentication(&config);
    assert!(matches!(authentication.identify(&bearer("one")).await, Err(Unauthenticated::Unavailable(_))));
    write(folder.path(), "ca.crt", &authorities);
    write(folder.path(), "token", OWN);
    authentication.identify(&bearer("one")).await.expect("with the new ones");
}

#[tokio::test]
async fn a_token_that_is_taken_away_is_good_for_seconds_and_many_calls_ask_once() {
    let Cluster { api, config, folder: _folder } = cluster().await;
    *api.bindings.lock().expect("not poisoned") = vec![("namespaces/feast/rolebindings", Vec::new())];
    api.knows("job", "system:serviceaccount:a:job", &[]);
    let authentication = authentication(&config);
    let calls = (0..200).map(|_| {
        let authentication = authentication.clone();
        tokio::spawn(async move { authentication.identify(&bearer("job")).await.map(drop) })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.expect("it ends").expect("it is known");
    }
    assert!(api.reviewed.load(Ordering::SeqCst) <= 8, "{:?}", api.reviewed);
    api.forgets("job");
    authentication.identify(&bearer("job")).await.expect("it was reviewed a moment ago");
    let token = Token::of(&bearer("job")).map(|token| *token.digest()).expect("a token");
    let later = SystemTime::now() + REVIEWED_FOR;
    assert!(authentication.inner.remembered.get(&token, later).is_none(), "it is to be reviewed then");

    // A cluster that hangs holds up few.
    api.hangs.store(true, Ordering::SeqCst);
    let waiting: Vec<_> = (0..300)
        .map(|number| {
            let authentication = authentication.clone();
            tokio::spawn(async move { authentication.identify(&bearer(&format!("t{number}"))).await })
        })
        .collect();
    authentication.identify(&bearer("job")).await.expect("whoever is known needs nobody");
    tokio::time::sleep(Duration::from_millis(200)).await;
    let ended = waiting.iter().filter(|call| call.is_finished()).count();
    assert_eq!(ended, 300 - 256 - 8, "the others are told to come later");
    for call in waiting {
        call.abort();
    }
}

#[test]
fn settings_that_cannot_be_are_refused_at_once() {
    let folder = TempDir::new().expect("a folder");
    let mut config = KubernetesConfig::default();
    let error = |config: &KubernetesConfig| match Authentication::builder().kubernetes(config) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("{config:?}"),
    };
    config.service_account_dir = Some(folder.path().to_owned());
    for (url, part) in
        [(None, "KUBERNETES_SERVICE_HOST"), (Some("http://10.0.0.1"), "https://"), (Some("::"), "no URL")]
    {
        config.api_server = url.map(str::to_owned);
        assert!(error(&config).contains(part), "{}", error(&config));
    }
    config.api_server = Some("https://127.0.0.1:1".to_owned());
    for (name, bad, part) in
        [("namespace", "../x", "namespace"), ("token", "t", "ca.crt"), ("ca.crt", "no PEM", "ca.crt")]
    {
        assert!(error(&config).contains(name), "{}", error(&config));
        write(folder.path(), name, bad);
        assert!(error(&config).contains(part), "{}", error(&config));
        if name == "namespace" {
            write(folder.path(), name, "feast\n");
        }
    }
}

/// Whoever can answer for the provider over a plain connection could let anybody in.
#[tokio::test]
async fn a_provider_over_tls_is_not_left_for_one_without() {
    let issuer = certificates::issuer("the provider");
    let folder = TempDir::new().expect("a folder");
    write(folder.path(), "ca.crt", &issuer.pem());
    let plain = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let target = format!("http://{}/discovery", plain.local_addr().expect("an address"));
    let url = https(&issuer, move |_| {
        let redirection = Response::builder().status(302).header("location", &target).body(Full::default());
        async move { redirection.expect("an answer") }
    })
    .await;
    let mut config = OidcConfig::new(url);
    config.ca_cert_path = Some(folder.path().join("ca.crt"));
    let authentication = Authentication::builder().oidc(config).expect("settings").build();
    let token = jwt(&json!({"sub": "ann"}));
    match authentication.identify(&bearer(&token)).await {
        Err(Unauthenticated::Unavailable(why)) => assert!(why.contains("leaves TLS"), "{why}"),
        other => panic!("{other:?}"),
    }
    let connected = tokio::time::timeout(Duration::from_millis(100), plain.accept()).await;
    assert!(connected.is_err(), "nothing was asked there");
}
