//! What a server asks of its callers: Feast's block `auth`, and our own, `registry_server`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use feast_registry_core::access::{Admins, Unprotected};
use feast_registry_core::config::{KubernetesConfig, OidcConfig};

use super::block::Block;
use super::read::LONGEST;
use super::yaml::Value;

/// How callers of a server say who they are (Feast: the block `auth`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum AuthConfig {
    /// They do not.
    #[default]
    NoAuth,
    /// By tokens of an identity provider.
    Oidc(Box<OidcConfig>),
    /// By tokens that a Kubernetes cluster reviews.
    Kubernetes(Box<KubernetesConfig>),
}

/// What a server is told in the block `registry_server`, which Feast passes over. What it does not say is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerConfig {
    /// With what connections are encrypted.
    pub tls: Option<TlsConfig>,
    /// A file of tokens.
    pub tokens: Option<PathBuf>,
    /// What is allowed in a project without permissions.
    pub default: Option<Unprotected>,
    /// Whether everybody may make a project.
    pub lets_anyone_create_projects: Option<bool>,
    /// Who may do everything.
    pub admins: Admins,
    /// Where it is noted who was allowed to do what.
    pub audit: Option<AuditConfig>,
    /// How many calls one caller may have under way.
    pub max_calls: Option<usize>,
    /// How many bytes one caller may have under way.
    pub max_bytes: Option<usize>,
}

/// With what connections are encrypted.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsConfig {
    /// The file of the certificate, with those that lead to its authority (PEM).
    pub cert: PathBuf,
    /// The file of its private key (PEM).
    pub key: PathBuf,
    /// The file of the authorities that clients' certificates must be of.
    pub client_ca: Option<PathBuf>,
    /// Whether a client's certificate says who it is.
    pub client_cert_identity: bool,
}

/// Where it is noted who was allowed to do what.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuditConfig {
    /// The file; `-` is standard output.
    pub path: PathBuf,
    /// Whether nothing is written that cannot be noted.
    pub is_required: bool,
}

/// What is allowed in a project without permissions, as a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Choice(Unprotected);

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0 == Unprotected::Allow { "allow" } else { "deny" })
    }
}

impl std::str::FromStr for Choice {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, ()> {
        [Unprotected::Allow, Unprotected::Deny]
            .map(Choice)
            .into_iter()
            .find(|choice| choice.to_string() == word)
            .ok_or(())
    }
}

/// What a server has of an identity provider.
const OIDC: [&str; 10] = [
    "type",
    "auth_discovery_url",
    "client_id",
    "ui_client_id",
    "verify_ssl",
    "ca_cert_path",
    "audience",
    "issuer",
    "jwks_cache_lifespan_seconds",
    "jwks_request_timeout_seconds",
];

/// What a client has besides (Feast: `OidcClientAuthConfig`).
const OIDC_CLIENT: [&str; 6] =
    ["username", "password", "client_secret", "token", "token_env_var", "token_refresh_margin_seconds"];

/// Reads the block `auth`. Of one that is wrong nothing is taken, and that is an error: a server must not be open by a mistake.
pub(super) fn auth(file: &Block<'_>, folder: &Path) -> AuthConfig {
    let block = match file.get("auth") {
        None | Some(Value::Null) => return AuthConfig::NoAuth,
        Some(Value::Str(kind)) => {
            return match kind {
                "no_auth" => AuthConfig::NoAuth,
                "kubernetes" => AuthConfig::Kubernetes(Box::default()),
                "oidc" => {
                    file.wrong("auth", "is `oidc`, which needs a block with `type: oidc` and `auth_discovery_url`");
                    AuthConfig::NoAuth
                }
                other => {
                    file.must_be("auth", "`no_auth`, `oidc` or `kubernetes`", Value::Str(other));
                    AuthConfig::NoAuth
                }
            };
        }
        Some(Value::Mapping(entries)) => file.inner("auth", "auth.", entries),
        Some(other) => {
            file.must_be("auth", "a block of settings", other);
            return AuthConfig::NoAuth;
        }
    };
    match block.get("type") {
        None if block.keys().next().is_some() => {
            block.wrong("type", "is missing; it is `oidc`, `kubernetes` or `no_auth`");
            AuthConfig::NoAuth
        }
        None | Some(Value::Str("no_auth")) => {
            block.only(&["type"], &[], |_| "");
            AuthConfig::NoAuth
        }
        Some(Value::Str("kubernetes")) => AuthConfig::Kubernetes(Box::new(kubernetes(&block, folder))),
        Some(Value::Str("oidc")) => {
            oidc(&block, folder).map_or(AuthConfig::NoAuth, |oidc| AuthConfig::Oidc(Box::new(oidc)))
        }
        Some(other) => {
            block.must_be("type", "`no_auth`, `oidc` or `kubernetes`", other);
            AuthConfig::NoAuth
        }
    }
}

/// As in Feast, anything else may stand there; it is told of.
fn kubernetes(block: &Block<'_>, folder: &Path) -> KubernetesConfig {
    block.warn_of_others(&["type", "api_server", "service_account_dir", "audience"], &["user_token"]);
    let mut config = KubernetesConfig::default();
    config.api_server = text(block, "api_server").filter(|url| is_url(block, "api_server", url));
    config.service_account_dir = path(block, "service_account_dir", folder);
    config.audience = text(block, "audience");
    config
}

fn text(block: &Block<'_>, key: &str) -> Option<String> {
    block.nullable_string(key).filter(|text| !text.is_empty()).map(str::to_owned)
}

fn is_url(block: &Block<'_>, key: &str, text: &str) -> bool {
    let is_url = text.starts_with("https://") || text.starts_with("http://");
    if !is_url {
        block.wrong(key, "must be an https:// URL");
    }
    is_url
}

fn oidc(block: &Block<'_>, folder: &Path) -> Option<OidcConfig> {
    block.only(&OIDC, &OIDC_CLIENT, |_| "");
    let seconds = |key, usual: Duration| {
        let seconds = block.read(key, "a number of seconds, more than 0", |value| match value {
            Value::Int(seconds) if (1..=LONGEST).contains(&seconds) => {
                u64::try_from(seconds).ok().map(Duration::from_secs)
            }
            Value::Float(seconds) if seconds > 0.0 => Duration::try_from_secs_f64(seconds).ok(),
            _ => None,
        });
        seconds.unwrap_or(usual)
    };
    let mut config = OidcConfig::new(text(block, "auth_discovery_url").unwrap_or_default());
    config.client_id = text(block, "client_id");
    config.ui_client_id = text(block, "ui_client_id");
    config.verify_ssl = block.boolean("verify_ssl").unwrap_or(config.verify_ssl);
    config.ca_cert_path = path(block, "ca_cert_path", folder);
    config.audience = text(block, "audience");
    config.issuer = text(block, "issuer");
    config.jwks_cache_lifespan = seconds("jwks_cache_lifespan_seconds", config.jwks_cache_lifespan);
    config.jwks_request_timeout = seconds("jwks_request_timeout_seconds", config.jwks_request_timeout);
    if !config.auth_discovery_url.is_empty() {
        warn_of_strangers(block, &config);
        return is_url(block, "auth_discovery_url", &config.auth_discovery_url).then_some(config);
    }
    if OIDC_CLIENT.iter().any(|key| block.get(key).is_some()) {
        block.wrong(
            "auth_discovery_url",
            "is missing; without it, the block is one of a client, and a server cannot use it",
        );
        return None;
    }
    if matches!(block.get("auth_discovery_url"), None | Some(Value::Null | Value::Str(_))) {
        block.wrong(
            "auth_discovery_url",
            "is missing; it names the provider's discovery document, as `https://idp/realms/feast/.well-known/openid-configuration`",
        );
    }
    None
}

/// Says where somebody else could be taken for the identity provider, or somebody else's token for one that is for here.
fn warn_of_strangers(block: &Block<'_>, config: &OidcConfig) {
    if config.audience.is_none() {
        block.warn("audience", "is not set, so tokens for any client of the identity provider are taken");
    }
    if !config.verify_ssl {
        block.warn("verify_ssl", "is `false`, so whoever is between here and the identity provider can let anybody in");
    }
    let host =
        config.auth_discovery_url.strip_prefix("http://").map(|rest| rest.split(['/', ':']).next().unwrap_or_default());
    if host.is_some_and(|host| !matches!(host, "localhost" | "127.0.0.1" | "[")) {
        block.warn("auth_discovery_url", "has no TLS, so whoever is between can let anybody in; use an https:// URL");
    }
}

/// Reads the block `registry_server`.
pub(super) fn server(file: &Block<'_>, folder: &Path) -> ServerConfig {
    // What is meant to close a server must not be passed over as what is of others.
    for key in file.keys().filter(|key| *key != "registry_server") {
        let letters: String = key.chars().filter(char::is_ascii_alphabetic).collect();
        if letters.eq_ignore_ascii_case("registryserver") {
            file.wrong(
                key,
                "is no setting; the block with what a server asks of its callers is called `registry_server`",
            );
        }
    }
    let Some(block) = file.nullable_block("registry_server", "registry_server.") else {
        return ServerConfig::default();
    };
    block.only(&["tls", "tokens", "default", "create_projects", "admins", "audit", "limits"], &[], |_| "");
    let mut config = ServerConfig {
        tokens: file_of(&block, "tokens", folder),
        default: block.choice("default", &[Unprotected::Allow, Unprotected::Deny].map(Choice)).map(|choice| choice.0),
        ..ServerConfig::default()
    };
    config.lets_anyone_create_projects = block.read("create_projects", "`anyone` or `admins`", |value| match value {
        Value::Str("anyone") => Some(true),
        Value::Str("admins") => Some(false),
        _ => None,
    });
    for name in block.texts("admins") {
        if let Err(error) = config.admins.add(&name) {
            block.wrong("admins", format_args!("has an entry that cannot be: {error}"));
        }
    }
    if config.lets_anyone_create_projects == Some(false) && config.admins.is_empty() {
        block.warn("create_projects", "leaves nobody who may make projects, since there are no `admins`");
    }
    if let Some(tls) = block.nullable_block("tls", "registry_server.tls.") {
        tls.only(&["cert", "key", "client_ca", "client_cert_identity"], &[], |_| "");
        let files = [("cert", "key"), ("key", "cert")].map(|(key, other)| {
            let file = file_of(&tls, key, folder);
            if file.is_none() && tls.get(key).is_none() {
                tls.wrong(key, format_args!("is missing; it goes with `{other}`"));
            }
            file
        });
        let client_ca = file_of(&tls, "client_ca", folder);
        let client_cert_identity = tls.boolean("client_cert_identity").unwrap_or_default();
        if client_cert_identity && client_ca.is_none() {
            tls.wrong("client_cert_identity", "needs `client_ca`, which says whose certificates are believed");
        }
        if let [Some(cert), Some(key)] = files {
            config.tls = Some(TlsConfig { cert, key, client_ca, client_cert_identity });
        }
    }
    if let Some(audit) = block.nullable_block("audit", "registry_server.audit.") {
        audit.only(&["path", "required"], &[], |_| "");
        let is_required = audit.boolean("required").unwrap_or_default();
        match audit.string("path") {
            Some("") => audit.wrong("path", "is empty; it is a file, or `-` for standard output"),
            Some("-") => config.audit = Some(AuditConfig { path: "-".into(), is_required }),
            Some(path) => config.audit = Some(AuditConfig { path: folder.join(path), is_required }),
            None if audit.get("path").is_none() => {
                audit.wrong("path", "is missing; it is a file, or `-` for standard output")
            }
            None => {}
        }
    }
    if let Some(limits) = block.nullable_block("limits", "registry_server.limits.") {
        limits.only(&["calls", "bytes"], &[], |_| "");
        config.max_calls = limits.integer("calls", 1..=u32::MAX.into(), " of calls of one caller");
        config.max_bytes = limits.integer("bytes", 1..=i64::MAX.into(), " of bytes of one caller");
    }
    config
}

/// A file that must be named if the setting is there: an empty name, as of a variable that is not set, must not leave a server open.
fn file_of(block: &Block<'_>, key: &str, folder: &Path) -> Option<PathBuf> {
    if matches!(block.get(key), Some(Value::Str(""))) {
        block.wrong(key, "is empty; it names a file");
    }
    path(block, key, folder)
}

fn path(block: &Block<'_>, key: &str, folder: &Path) -> Option<PathBuf> {
    block.nullable_string(key).filter(|path| !path.is_empty()).map(|path| folder.join(path))
}

#[cfg(test)]
mod tests {
    use super::super::FeatureStoreConfig;
    use super::*;

    fn read(blocks: &str) -> Result<FeatureStoreConfig, String> {
        let text = format!("project: p\nregistry: r.db\n{blocks}");
        FeatureStoreConfig::parse(&text, "repo/feature_store.yaml", |name| {
            (name == "URL").then(|| "https://idp/d".to_owned())
        })
        .map_err(|error| error.to_string())
    }

    fn parse(blocks: &str) -> FeatureStoreConfig {
        read(blocks).unwrap_or_else(|error| panic!("{blocks}: {error}"))
    }

    #[test]
    fn who_calls_is_said_as_in_feast() {
        for open in ["", "auth:", "auth: no_auth", "auth: {type: no_auth}", "auth: {}"] {
            assert_eq!(parse(open).auth, AuthConfig::NoAuth, "{open}");
        }
        for kubernetes in ["auth: kubernetes", "auth: {type: kubernetes, user_token: x, anything: 1}"] {
            assert_eq!(parse(kubernetes).auth, AuthConfig::Kubernetes(Box::default()));
        }
        let AuthConfig::Kubernetes(cluster) = parse(
            "auth: {type: kubernetes, api_server: \"https://k8s:6443\", service_account_dir: account, audience: feast}",
        )
        .auth
        else {
            panic!("it is Kubernetes")
        };
        assert_eq!(cluster.api_server.as_deref(), Some("https://k8s:6443"));
        assert_eq!(cluster.service_account_dir.as_deref(), Some(Path::new("repo/account")));
        assert_eq!(cluster.audience.as_deref(), Some("feast"));
        let AuthConfig::Oidc(oidc) =
            parse("auth: {type: oidc, auth_discovery_url: \"${URL}\", client_secret: x, client_id: c}").auth
        else {
            panic!("it is OIDC")
        };
        assert_eq!(
            (oidc.auth_discovery_url.as_str(), oidc.client_id.as_deref(), oidc.verify_ssl),
            ("https://idp/d", Some("c"), true)
        );
        assert_eq!((oidc.jwks_cache_lifespan.as_secs(), oidc.jwks_request_timeout.as_secs()), (300, 10));
        let AuthConfig::Oidc(oidc) = parse(
            "auth:\n  type: oidc\n  auth_discovery_url: http://localhost:8080/d\n  verify_ssl: false\n  ca_cert_path: ca.pem\n  audience: a\n  \
             issuer: i\n  jwks_cache_lifespan_seconds: 60\n  jwks_request_timeout_seconds: 0.5\n  ui_client_id: ui\n",
        )
        .auth
        else {
            panic!("it is OIDC")
        };
        assert_eq!(oidc.ca_cert_path.as_deref(), Some(Path::new("repo/ca.pem")));
        assert_eq!((oidc.audience.as_deref(), oidc.issuer.as_deref()), (Some("a"), Some("i")));
        assert_eq!((oidc.jwks_cache_lifespan.as_secs(), oidc.jwks_request_timeout.as_millis()), (60, 500));
    }

    /// A server must not be open by a mistake.
    #[test]
    fn a_mistake_is_an_error() {
        for (block, part) in [
            ("auth: oidc", "auth_discovery_url"),
            ("auth: OIDC", "`no_auth`, `oidc` or `kubernetes`"),
            ("auth: [oidc]", "a block of settings"),
            ("auth: true", "a block of settings"),
            ("auth: {type: Kubernetes}", "`no_auth`, `oidc` or `kubernetes`"),
            ("auth: {type: oidc}", "auth_discovery_url"),
            ("auth: {type: oidc, auth_discovery_url: idp}", "https://"),
            ("auth: {type: oidc, auth_discovery_url: https://i, audiance: x}", "audiance"),
            ("auth: {type: oidc, auth_discovery_url: https://i, verify_ssl: 'no'}", "verify_ssl"),
            (
                "auth: {type: oidc, auth_discovery_url: https://i, jwks_cache_lifespan_seconds: 0}",
                "jwks_cache_lifespan_seconds",
            ),
            ("auth: {auth_discovery_url: https://i}", "`auth.type` is missing"),
            ("auth: {type: oidc, token: t}", "one of a client"),
            ("registry_server: {tokens: ''}", "is empty"),
            ("registry_server: {audit: {path: ''}}", "is empty"),
            ("registry_server: {admins: ['roles:x']}", "`role:NAME`"),
            ("registry_server: {admins: ['role: ']}", "no name"),
            ("registry-server: {default: deny}", "called `registry_server`"),
            ("registryServer: {}", "called `registry_server`"),
            ("auth: {type: kubernetes, api_server: k8s}", "https://"),
            ("auth: {type: kubernetes, audience: 1}", "audience"),
            ("registry_server: {tokns: x}", "tokns"),
            ("registry_server: [x]", "a block of settings"),
            ("registry_server: {default: open}", "`allow` or `deny`"),
            ("registry_server: {create_projects: nobody}", "`anyone` or `admins`"),
            ("registry_server: {admins: alice}", "a list of strings"),
            ("registry_server: {admins: [1]}", "a list of strings"),
            ("registry_server: {tls: {cert: c.pem}}", "tls.key"),
            ("registry_server: {tls: {cert: c, key: k, client_cert_identity: true}}", "client_ca"),
            ("registry_server: {audit: {required: true}}", "audit.path"),
            ("registry_server: {limits: {calls: 0}}", "calls"),
        ] {
            let error = read(block).expect_err(block);
            assert!(error.contains(part) && error.contains("line 3"), "{block}: {error}");
        }
    }

    #[test]
    fn what_may_not_be_meant_is_told() {
        let odd = |blocks: &str| {
            let warnings = parse(blocks).warnings;
            warnings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
        };
        for (block, part) in [
            ("auth: {type: kubernetes, audiance: feast}", "audiance"),
            ("auth: {type: oidc, auth_discovery_url: https://i}", "any client"),
            ("auth: {type: oidc, auth_discovery_url: https://i, audience: a, verify_ssl: false}", "verify_ssl"),
            ("auth: {type: oidc, auth_discovery_url: 'http://i/d', audience: a}", "no TLS"),
            ("registry_server: {create_projects: admins}", "nobody"),
        ] {
            assert!(odd(block).contains(part), "{block}: {}", odd(block));
        }
        for block in [
            "auth: {type: kubernetes, user_token: x}",
            "auth: {type: oidc, auth_discovery_url: 'http://localhost:8080/d', audience: a}",
            "registry_server: {create_projects: admins, admins: [alice]}",
        ] {
            assert_eq!(odd(block), "", "{block}");
        }
    }

    #[test]
    fn a_server_is_told_what_it_asks_of_callers() {
        assert_eq!(parse("registry_server:").server, ServerConfig::default());
        let server = parse(
            "registry_server:
  tls: {cert: c.pem, key: /k.pem, client_ca: ca.pem, client_cert_identity: true}
  tokens: tokens.yaml
  default: deny
  create_projects: admins
  admins: [alice, 'group:platform']
  audit: {path: audit.jsonl, required: true}
  limits: {calls: 8, bytes: 1000000}
",
        )
        .server;
        let tls = TlsConfig {
            cert: "repo/c.pem".into(),
            key: "/k.pem".into(),
            client_ca: Some("repo/ca.pem".into()),
            client_cert_identity: true,
        };
        let mut admins = Admins::default();
        (admins.users, admins.groups) = (["alice".to_owned()].into(), ["platform".to_owned()].into());
        let expected = ServerConfig {
            tls: Some(tls),
            tokens: Some("repo/tokens.yaml".into()),
            default: Some(Unprotected::Deny),
            lets_anyone_create_projects: Some(false),
            admins,
            audit: Some(AuditConfig { path: "repo/audit.jsonl".into(), is_required: true }),
            max_calls: Some(8),
            max_bytes: Some(1_000_000),
        };
        assert_eq!(server, expected);
        let stdout = parse("registry_server: {audit: {path: '-'}}").server.audit.expect("it is said");
        assert_eq!(stdout.path, Path::new("-"));
    }
}
