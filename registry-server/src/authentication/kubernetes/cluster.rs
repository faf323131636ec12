//! The API of a Kubernetes cluster, asked as the server's own service account.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use feast_registry_core::Result;
use feast_registry_core::config::KubernetesConfig;
use reqwest::{Certificate, Client, RequestBuilder, StatusCode, Url};
use serde_json::Value;

use super::super::http::{self, chain, is_loopback};
use super::super::invalid;

/// Where Kubernetes puts what a process needs to ask.
const ACCOUNT_DIR: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// How long it may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The largest answer that is read, in bytes.
const LARGEST: usize = 16 << 20;

/// See the module's documentation.
pub(super) struct Cluster {
    url: Url,
    account: PathBuf,
    namespace: String,
    /// The client, and the authorities that it was made for: both are renewed in place.
    client: Mutex<(Vec<u8>, Client)>,
}

impl Cluster {
    /// The cluster of these settings.
    ///
    /// # Errors
    /// `InvalidConfig` when there is none, or the server's own account cannot be read.
    pub(super) fn new(config: &KubernetesConfig) -> Result<Self> {
        // Whoever has installed another has TLS too.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let url = match &config.api_server {
            Some(url) => url.clone(),
            None => of_environment().ok_or_else(|| {
                invalid(
                    "`auth: {type: kubernetes}` asks the cluster that the server runs in, and KUBERNETES_SERVICE_HOST is not set: \
                     run it in the cluster, or set `api_server` and `service_account_dir` in the block `auth`",
                )
            })?,
        };
        let url = Url::parse(&url).map_err(|error| invalid(format!("`api_server` is no URL: {error}")))?;
        if url.scheme() != "https" && !is_loopback(&url) {
            return Err(invalid("`auth.api_server` must begin with https://, since tokens are sent there"));
        }
        let account = config.service_account_dir.clone().unwrap_or_else(|| ACCOUNT_DIR.into());
        let read = |name: &str| {
            let path = account.join(name);
            fs::read(&path).map_err(|error| {
                invalid(format!(
                    "the server's own service account (`auth.service_account_dir`) cannot be read: {}: {error}",
                    path.display()
                ))
            })
        };
        let namespace = String::from_utf8_lossy(&read("namespace")?).trim().to_owned();
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if namespace.is_empty() || !namespace.chars().all(is_name) {
            return Err(invalid(format!("{} has no name of a namespace", account.join("namespace").display())));
        }
        read("token")?;
        let authorities = read("ca.crt")?;
        let client = client(&authorities).map_err(|error| {
            invalid(format!("the authorities in {} cannot be used: {error}", account.join("ca.crt").display()))
        })?;
        Ok(Self { url, account, namespace, client: Mutex::new((authorities, client)) })
    }

    /// The namespace that the server runs in.
    pub(super) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Has the cluster make something, which is its answer.
    pub(super) async fn create(&self, path: &str, object: &Value) -> Result<Value, String> {
        let (client, token) = self.client().await?;
        // Of reqwest's features, the one for JSON is left out.
        let request = client.post(self.at(path)).header("content-type", "application/json").body(object.to_string());
        ask(path, request, &token).await
    }

    /// What is at a path.
    pub(super) async fn get(&self, path: &str, query: &[(&str, String)]) -> Result<Value, String> {
        let (client, token) = self.client().await?;
        let mut url = self.at(path);
        url.query_pairs_mut().extend_pairs(query);
        ask(path, client.get(url), &token).await
    }

    fn at(&self, path: &str) -> Url {
        let mut url = self.url.clone();
        url.set_path(&format!("{}{path}", self.url.path().trim_end_matches('/')));
        url
    }

    /// A client, and the server's own token: Kubernetes renews the files of both while the server runs.
    async fn client(&self) -> Result<(Client, String), String> {
        let read = async |name: &str| {
            let path = self.account.join(name);
            let content = tokio::fs::read(&path).await;
            content.map_err(|error| {
                format!("the server's own service account cannot be read: {}: {error}", path.display())
            })
        };
        let token = String::from_utf8_lossy(&read("token").await?).trim().to_owned();
        let authorities = read("ca.crt").await?;
        let mut held = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if held.0 != authorities {
            let client =
                client(&authorities).map_err(|error| format!("the authorities in ca.crt cannot be used: {error}"))?;
            *held = (authorities, client);
        }
        Ok((held.1.clone(), token))
    }
}

/// The URL of the API of the cluster that this process runs in, if it runs in one.
fn of_environment() -> Option<String> {
    let host = std::env::var("KUBERNETES_SERVICE_HOST").ok().filter(|host| !host.is_empty())?;
    let port = std::env::var("KUBERNETES_SERVICE_PORT").ok().filter(|port| !port.is_empty());
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    Some(format!("https://{host}:{}", port.as_deref().unwrap_or("443")))
}

/// Whether this process runs in a cluster, as one of its service accounts.
pub(in crate::authentication) fn is_there(config: &KubernetesConfig) -> bool {
    let account = config.service_account_dir.as_deref().unwrap_or(Path::new(ACCOUNT_DIR));
    (config.api_server.is_some() || of_environment().is_some()) && account.join("token").exists()
}

fn client(authorities: &[u8]) -> Result<Client, String> {
    let authorities = Certificate::from_pem_bundle(authorities).map_err(|error| chain(&error))?;
    if authorities.is_empty() {
        return Err("there are no certificates in PEM".to_owned());
    }
    let builder = Client::builder()
        .timeout(TIMEOUT)
        // It would be sent the token.
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .user_agent(concat!("feast-registry/", env!("CARGO_PKG_VERSION")))
        .tls_certs_only(authorities);
    builder.build().map_err(|error| chain(&error))
}

async fn ask(path: &str, request: RequestBuilder, token: &str) -> Result<Value, String> {
    let said = |why: String| format!("the Kubernetes API: {path}: {why}");
    let response = request.bearer_auth(token).send().await.map_err(|error| said(http::said(error)))?;
    let status = response.status();
    if !status.is_success() {
        return Err(said(format!("it answers {status}{}", remedy(status))));
    }
    http::json(response, LARGEST).await.map_err(said)
}

fn remedy(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => ": the server's own token is no good",
        StatusCode::FORBIDDEN => {
            ": the server's service account may not do that; docs/security.md has the roles that it needs"
        }
        _ => "",
    }
}
