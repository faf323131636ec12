//! Who tells a server who its callers are (Feast: the block `auth`). A registry itself asks nobody.

use std::path::PathBuf;
use std::time::Duration;

/// An identity provider that speaks OpenID Connect. Made with [`new`](Self::new), and changed field by field.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OidcConfig {
    /// Where its discovery document is. Without TLS (`http://`), whoever is between can let anybody in.
    pub auth_discovery_url: String,
    /// The client whose roles count (`resource_access.<client_id>.roles`). Default: none.
    pub client_id: Option<String>,
    /// The client as which the pages of the web UI ask people to log in. Default: `client_id`.
    pub ui_client_id: Option<String>,
    /// Whether its certificate is verified; if not, whoever is between can let anybody in. Default: yes.
    pub verify_ssl: bool,
    /// A file of certificate authorities (PEM) that may have signed it, besides the system's.
    pub ca_cert_path: Option<PathBuf>,
    /// What tokens must be for (`aud`). Without it, those for any client of the provider are taken.
    pub audience: Option<String>,
    /// Who must have issued tokens (`iss`). Default: the issuer of the discovery document.
    pub issuer: Option<String>,
    /// How old its keys may become. Default: five minutes.
    #[doc(alias("jwks_cache_lifespan_seconds"))]
    pub jwks_cache_lifespan: Duration,
    /// How long it may take to answer. Default: 10 s.
    #[doc(alias("jwks_request_timeout_seconds"))]
    pub jwks_request_timeout: Duration,
}

impl OidcConfig {
    /// The provider with this discovery document, all else at its default.
    pub fn new(auth_discovery_url: impl Into<String>) -> Self {
        Self {
            auth_discovery_url: auth_discovery_url.into(),
            client_id: None,
            ui_client_id: None,
            verify_ssl: true,
            ca_cert_path: None,
            audience: None,
            issuer: None,
            jwks_cache_lifespan: Duration::from_secs(300),
            jwks_request_timeout: Duration::from_secs(10),
        }
    }
}

/// A Kubernetes cluster that reviews tokens. By default the one that the process runs in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct KubernetesConfig {
    /// The URL of its API. Default: `KUBERNETES_SERVICE_HOST` and `KUBERNETES_SERVICE_PORT` of the environment.
    pub api_server: Option<String>,
    /// The folder with the server's own `token`, its `namespace` and the `ca.crt` of the API. Default: where Kubernetes puts them.
    pub service_account_dir: Option<PathBuf>,
    /// What tokens must be for. Default: the API itself.
    pub audience: Option<String>,
}
