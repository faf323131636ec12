//! The settings of a feature_store.yaml that are in force, without secrets.

use std::path::Path;

use feast_registry::RegistryConfig;
use feast_registry::access::{Admins, Unprotected};
use feast_registry::config::{AuthConfig, FeatureStoreConfig, ServerConfig};
use serde_json::{Value as Json, json};

use crate::TenantLimits;

type Setting = (&'static str, Json);

/// Those that have an effect, by their full names, in the order in which they are shown.
pub(super) fn all(config: &FeatureStoreConfig) -> Vec<Setting> {
    let RegistryConfig { url, read_url, schema_mode, cache, pool, object_store, .. } = &config.registry;
    let is_file = url.is_file();
    let mut settings = vec![
        ("project", json!(config.project)),
        ("registry.registry_type", json!(if is_file || url.scheme() == "memory" { "file" } else { "sql" })),
        ("registry.path", json!(url.to_string())),
    ];
    settings.extend(read_url.as_ref().map(|url| ("registry.read_path", json!(url.to_string()))));
    settings.extend([
        ("registry.schema_mode", json!(schema_mode.as_str())),
        ("registry.cache_mode", json!(cache.mode.as_str())),
        ("registry.cache_ttl_seconds", json!(cache.ttl.as_secs())),
        ("registry.purge_feast_metadata", json!(config.registry.purge_feast_metadata)),
        ("registry.keep_tables", json!(config.registry.keep_tables)),
        ("registry.journal_retention_days", json!(config.registry.journal.age.as_secs() / 86_400)),
        ("registry.journal_max_commits", json!(config.registry.journal.commits)),
    ]);
    if is_file {
        settings.push(("registry.history", json!(config.registry.history.as_str())));
    }
    if is_file && url.scheme() != "file" {
        let names = object_store.s3_additional_kwargs.iter().map(|(name, _)| (name.clone(), json!("***")));
        settings.push(("registry.s3_additional_kwargs", Json::Object(names.collect())));
        settings.push(("registry.allow_unconditional_writes", json!(object_store.allow_unconditional_writes)));
    }
    if matches!(url.scheme(), "postgresql" | "mysql" | "mariadb") {
        let overflow = if pool.max_overflow == u32::MAX { -1 } else { i64::from(pool.max_overflow) };
        let recycle = pool.recycle.and_then(|age| i64::try_from(age.as_secs()).ok()).unwrap_or(-1);
        settings.extend([
            ("registry.sqlalchemy_config_kwargs.pool_size", json!(pool.size)),
            ("registry.sqlalchemy_config_kwargs.max_overflow", json!(overflow)),
            ("registry.sqlalchemy_config_kwargs.pool_timeout", json!(pool.timeout.as_secs_f64())),
            ("registry.sqlalchemy_config_kwargs.pool_recycle", json!(recycle)),
            ("registry.sqlalchemy_config_kwargs.pool_pre_ping", json!(pool.pre_ping)),
            ("registry.sqlalchemy_config_kwargs.echo", json!(pool.echo)),
        ]);
        if pool.serializable {
            settings.push(("registry.sqlalchemy_config_kwargs.isolation_level", json!("SERIALIZABLE")));
        }
    }
    settings.extend(of_auth(&config.auth));
    settings.extend(of_server(&config.server));
    settings
}

/// How callers of a server say who they are.
fn of_auth(auth: &AuthConfig) -> Vec<Setting> {
    let file =
        |path: &Option<std::path::PathBuf>| json!(path.as_deref().map(Path::display).map(|path| path.to_string()));
    match auth {
        AuthConfig::Oidc(oidc) => vec![
            ("auth.type", json!("oidc")),
            ("auth.auth_discovery_url", json!(oidc.auth_discovery_url)),
            ("auth.client_id", json!(oidc.client_id)),
            ("auth.ui_client_id", json!(oidc.ui_client_id)),
            ("auth.audience", json!(oidc.audience)),
            ("auth.issuer", json!(oidc.issuer)),
            ("auth.verify_ssl", json!(oidc.verify_ssl)),
            ("auth.ca_cert_path", file(&oidc.ca_cert_path)),
            ("auth.jwks_cache_lifespan_seconds", json!(oidc.jwks_cache_lifespan.as_secs_f64())),
            ("auth.jwks_request_timeout_seconds", json!(oidc.jwks_request_timeout.as_secs_f64())),
        ],
        AuthConfig::Kubernetes(cluster) => vec![
            ("auth.type", json!("kubernetes")),
            ("auth.api_server", json!(cluster.api_server)),
            ("auth.service_account_dir", file(&cluster.service_account_dir)),
            ("auth.audience", json!(cluster.audience)),
        ],
        _ => vec![("auth.type", json!("no_auth"))],
    }
}

/// What else a server asks of them.
fn of_server(server: &ServerConfig) -> Vec<Setting> {
    let file = |path: &Path| json!(path.display().to_string());
    let usual = TenantLimits::default();
    let mut settings = vec![("registry_server.tokens", json!(server.tokens.as_deref().map(file)))];
    if let Some(tls) = &server.tls {
        settings.extend([
            ("registry_server.tls.cert", file(&tls.cert)),
            ("registry_server.tls.key", file(&tls.key)),
            ("registry_server.tls.client_ca", json!(tls.client_ca.as_deref().map(file))),
            ("registry_server.tls.client_cert_identity", json!(tls.client_cert_identity)),
        ]);
    }
    let unprotected = match server.default.unwrap_or_default() {
        Unprotected::Allow => "allow",
        Unprotected::Deny => "deny",
    };
    let creators = if server.lets_anyone_create_projects.unwrap_or(true) { "anyone" } else { "admins" };
    settings.extend([
        ("registry_server.default", json!(unprotected)),
        ("registry_server.create_projects", json!(creators)),
        ("registry_server.admins", json!(names_of(&server.admins))),
    ]);
    if let Some(audit) = &server.audit {
        settings.extend([
            ("registry_server.audit.path", file(&audit.path)),
            ("registry_server.audit.required", json!(audit.is_required)),
        ]);
    }
    settings.extend([
        ("registry_server.limits.calls", json!(server.max_calls.unwrap_or(usual.calls))),
        ("registry_server.limits.bytes", json!(server.max_bytes.unwrap_or(usual.bytes))),
    ]);
    settings
}

fn names_of(admins: &Admins) -> Vec<String> {
    let roles = admins.roles.iter().map(|name| format!("role:{name}"));
    let groups = admins.groups.iter().map(|name| format!("group:{name}"));
    admins.users.iter().cloned().chain(roles).chain(groups).collect()
}
