//! What it costs to ask callers who they are and what they may: cached reads of two servers of ours, one open to everybody, one with
//! tokens of an identity provider and permissions.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use feast_registry::proto::core::policy::PolicyType;
use feast_registry::proto::core::{Permission, PermissionSpec, Policy, RoleBasedPolicy};
use feast_registry::{ApplyOptions, Encoded, Kind, Object, RegistryConfig};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::cells::{CALLERS, Cells};
use crate::operation::Operation;
use crate::report::Report;
use crate::sample::PROJECT;
use crate::server::{Guard, Server};
use crate::setup::{Setup, VIEWS};

/// Permissions of the project, and of how many the caller has the role: all but the last are about other names.
const PERMISSIONS: usize = 200;
const OWN: usize = 50;
/// The number that Feast's messages have for the action DESCRIBE.
const DESCRIBE: i32 = 1;
const OPERATIONS: [Operation; 2] =
    [Operation::GetFeatureView { allow_cache: true }, Operation::ListFeatureViews { allow_cache: true }];

pub(crate) async fn measure(setup: &Setup, report: &mut Report) -> Result<()> {
    eprintln!("servers without authentication, and with it and {PERMISSIONS} permissions");
    let provider = Provider::start().await?;
    let mut cells = Cells::new(["open", "guarded"], &OPERATIONS, &CALLERS);
    for round in 0..setup.rounds {
        let servers = [start(setup, None).await?, start(setup, Some(provider.guard()?)).await?];
        for index in 0..cells.operations().len() {
            cells.measure(index, round, &servers, setup, report).await;
        }
        for server in servers {
            server.stop().await?;
        }
    }
    let about =
        format!(", without authentication and with it (OIDC, {PERMISSIONS} permissions, {OWN} of them the caller's)");
    cells.report(&about, report);
    Ok(())
}

/// Starts a server on a registry with permissions.
async fn start(setup: &Setup, guard: Option<Guard>) -> Result<Server> {
    let file = setup.registry(VIEWS)?;
    let url = format!("sqlite:///{}", file.display());
    grant(&url).await?;
    let folder = file.parent().context("a registry file without a folder")?;
    setup.ours.start_guarded(folder, &url, guard).await
}

/// Stores the permissions.
async fn grant(url: &str) -> Result<()> {
    let registry = feast_registry::open(&RegistryConfig::new(url.parse()?)).await?;
    let permission = |number: usize| {
        let pattern = if number == OWN - 1 { ".*".to_owned() } else { format!("team_{number:03}_.*") };
        let policy = PolicyType::RoleBasedPolicy(RoleBasedPolicy { roles: vec![role(number)] });
        let spec = PermissionSpec {
            name: format!("permission_{number:03}"),
            name_patterns: vec![pattern],
            actions: vec![DESCRIBE],
            policy: Some(Policy { policy_type: Some(policy), ..Default::default() }),
            ..Default::default()
        };
        Object::new(Kind::Permission, Encoded::new(&Permission { spec: Some(spec), meta: None }).into_bytes())
    };
    registry.apply_all(PROJECT, (0..PERMISSIONS).map(permission).collect(), ApplyOptions::default()).await?;
    registry.close().await?;
    Ok(())
}

fn role(number: usize) -> String {
    format!("role_{number:03}")
}

/// An identity provider with one key. Dropping it ends it.
struct Provider {
    url: String,
    key: Ed25519KeyPair,
    _answering: JoinSet<()>,
}

impl Provider {
    async fn start() -> Result<Self> {
        let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| anyhow!("no randomness"))?;
        let key = Ed25519KeyPair::from_pkcs8(key.as_ref()).map_err(|error| anyhow!("{error}"))?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let x = URL_SAFE_NO_PAD.encode(key.public_key().as_ref());
        // One document is both that of its discovery and that of its keys.
        let document = json!({
            "issuer": url, "jwks_uri": url, "keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "key", "x": x}],
        });
        let body = document.to_string();
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
        let mut answering = JoinSet::new();
        answering.spawn(async move {
            while let Ok((mut connection, _)) = listener.accept().await {
                let mut request = [0; 4096];
                if connection.read(&mut request).await.is_ok() {
                    drop(connection.write_all(answer.as_bytes()).await);
                }
            }
        });
        Ok(Self { url, key, _answering: answering })
    }

    /// What has a server ask for its tokens, and one.
    fn guard(&self) -> Result<Guard> {
        let text = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let end = (SystemTime::now() + Duration::from_secs(3600)).duration_since(UNIX_EPOCH)?.as_secs();
        let roles: Vec<String> = (0..OWN).map(role).collect();
        let claims = json!({"iss": self.url, "aud": "feast", "sub": "caller", "exp": end, "roles": roles});
        let message = format!("{}.{}", text(&json!({"alg": "EdDSA", "kid": "key", "typ": "JWT"})), text(&claims));
        let signature = URL_SAFE_NO_PAD.encode(self.key.sign(message.as_bytes()));
        let settings = format!(
            "auth:\n  type: oidc\n  auth_discovery_url: {url}\n  audience: feast\nregistry_server:\n  default: deny\n",
            url = self.url
        );
        Ok(Guard { settings, authorization: format!("Bearer {message}.{signature}").parse()? })
    }
}
