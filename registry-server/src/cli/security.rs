//! What `serve` asks of its callers: from options and the configuration.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, ValueEnum};
use feast_registry::access::{AccessRules, Admins, Unprotected};
use feast_registry::config::{AuthConfig, FeatureStoreConfig, ServerConfig, TlsConfig};

use crate::{AuditLog, Authentication, AuthenticationBuilder, Security, TenantLimits, Tls, TlsFiles};

/// Feast's environment variable with the secret that the parts of an installation share.
pub(super) const INTERNAL_SECRET: &str = "INTRA_COMMUNICATION_BASE64";

/// What is asked of callers. Each option has the place of what the block `registry_server` of the feature_store.yaml says; how callers
/// say who they are is in its block `auth`, as in Feast.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Who may do what")]
pub(crate) struct SecurityArgs {
    /// Take the bearer tokens of this file; whoever has none of them, and no other that is taken, is refused.
    ///
    /// `feast-registry tokens new` makes tokens, and says what goes into the file. It is read anew when it changes.
    #[arg(long, value_name = "FILE")]
    tokens: Option<PathBuf>,

    #[command(flatten)]
    rules: RuleArgs,

    /// Append to this file who was allowed to do what, and who was not, as lines of JSON; `-` is standard output.
    #[arg(long, value_name = "FILE")]
    audit_log: Option<PathBuf>,

    /// Do nothing that cannot be written to the audit log.
    #[arg(long, requires = "audit_log")]
    audit_required: bool,

    /// How many calls one caller may have under way.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    max_calls_per_caller: Option<u32>,

    /// How many bytes of large requests and answers one caller may have under way.
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    max_bytes_per_caller: Option<u64>,
}

/// What holds besides the permissions that are stored. Each option has the place of what the block `registry_server` says.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Who may do what")]
pub(crate) struct RuleArgs {
    /// What callers may do in projects that have no permissions.
    ///
    /// With `allow`, everything, as in Feast; with `deny`, nothing, but for administrators and who made the project. Default: allow.
    #[arg(long, value_enum, value_name = "RULE")]
    default: Option<Rule>,

    /// Who may make projects, which are then theirs. Default: anyone.
    #[arg(long, value_enum, value_name = "WHO")]
    create_projects: Option<Who>,

    /// Somebody who may do everything, by name; `role:NAME` and `group:NAME` are all who have it. May be given several times.
    #[arg(long = "admin", value_name = "NAME")]
    admins: Vec<String>,
}

impl RuleArgs {
    /// The rules that these options and this configuration come to.
    pub(super) fn of(&self, server: &ServerConfig) -> Result<AccessRules> {
        let anyone = match self.create_projects {
            Some(who) => who == Who::Anyone,
            None => server.lets_anyone_create_projects.unwrap_or(true),
        };
        Ok(AccessRules::default()
            .with_unprotected(self.unprotected(server).unwrap_or_default())
            .with_anyone_creating_projects(anyone)
            .with_admins(self.admins(server)?))
    }

    fn unprotected(&self, server: &ServerConfig) -> Option<Unprotected> {
        match self.default {
            Some(Rule::Allow) => Some(Unprotected::Allow),
            Some(Rule::Deny) => Some(Unprotected::Deny),
            None => server.default,
        }
    }

    fn admins(&self, server: &ServerConfig) -> Result<Admins> {
        if self.admins.is_empty() {
            return Ok(server.admins.clone());
        }
        let mut admins = Admins::default();
        self.admins.iter().try_for_each(|name| admins.add(name)).context("--admin")?;
        Ok(admins)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Rule {
    Allow,
    Deny,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Who {
    Anyone,
    Admins,
}

impl SecurityArgs {
    /// What is asked of callers; `None`: nothing. Certificates may say who they are.
    pub(super) fn of(&self, config: &FeatureStoreConfig, by_certificates: bool) -> Result<Option<Security>> {
        let server = &config.server;
        let tokens = self.tokens.as_deref().or(server.tokens.as_deref());
        let audit = match (&self.audit_log, &server.audit) {
            (Some(path), _) => Some((path.as_path(), self.audit_required)),
            (None, Some(audit)) => Some((audit.path.as_path(), audit.is_required)),
            (None, None) => None,
        };
        let Some(authentication) = authentication(&config.auth, tokens, by_certificates)? else {
            self.refuse_without_callers(server)?;
            return Ok(None);
        };
        let mut security = Security::new(authentication);
        security.rules = self.rules.of(server)?;
        if security.rules.unprotected == Unprotected::Allow {
            tracing::warn!(
                "projects without permissions are open to every caller, as in Feast; `default: deny` (--default deny) closes them"
            );
        }
        security.audit = audit.map(|(path, is_required)| AuditLog::open(path, is_required)).transpose()?;
        security.limits = TenantLimits {
            calls: self
                .max_calls_per_caller
                .map(|calls| calls as usize)
                .or(server.max_calls)
                .unwrap_or(security.limits.calls),
            bytes: self
                .max_bytes_per_caller
                .map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX))
                .or(server.max_bytes)
                .unwrap_or(security.limits.bytes),
        };
        Ok(Some(security))
    }

    /// Refuses what cannot be kept where nobody is asked who they are.
    fn refuse_without_callers(&self, server: &ServerConfig) -> Result<()> {
        let has_limits = self.max_calls_per_caller.map(u64::from).or(self.max_bytes_per_caller).is_some()
            || server.max_calls.or(server.max_bytes).is_some();
        let set: Vec<&str> = [
            ("`default: deny`", self.rules.unprotected(server) == Some(Unprotected::Deny)),
            ("`create_projects`", self.rules.create_projects.is_some() || server.lets_anyone_create_projects.is_some()),
            ("`admins`", !self.rules.admins(server)?.is_empty()),
            ("`audit`", self.audit_log.is_some() || server.audit.is_some()),
            ("`limits`", has_limits),
        ]
        .into_iter()
        .filter_map(|(name, is_set)| is_set.then_some(name))
        .collect();
        if !set.is_empty() {
            bail!(
                "{} cannot be kept without knowing who calls, and the server would be open to everybody: set `auth` in the \
                 feature_store.yaml, give it a file of tokens (`registry_server.tokens`, --tokens), or take who clients are from \
                 their certificates (--client-cert-identity)",
                set.join(", ")
            );
        }
        Ok(())
    }
}

/// What keeps a server from asking of its callers what a configuration says, each with the setting that it is about. Nothing is made,
/// and nobody is asked.
pub(super) fn problems(config: &FeatureStoreConfig) -> Vec<(&'static str, anyhow::Error)> {
    let FeatureStoreConfig { auth, server, .. } = config;
    let mut problems = Vec::new();
    let by_certificates = server.tls.as_ref().is_some_and(|tls| tls.client_cert_identity);
    match authentication(auth, None, by_certificates || server.tokens.is_some()) {
        Ok(Some(_)) => {}
        Ok(None) => {
            problems
                .extend(SecurityArgs::default().refuse_without_callers(server).err().map(|no| ("registry_server", no)));
        }
        Err(error) => problems.push(("auth", error)),
    }
    if let Some(tokens) = &server.tokens {
        let read = Authentication::builder().tokens(tokens);
        problems.extend(read.err().map(|error| ("registry_server.tokens", error.into())));
    }
    if let Some(tls) = &server.tls {
        let read = Tls::open(tls_files(tls));
        problems.extend(read.err().map(|error| ("registry_server.tls", error.into())));
    }
    if let Some(audit) = server.audit.as_ref().filter(|audit| audit.path != Path::new("-")) {
        let folder = audit.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if audit.path.is_dir() || !folder.is_dir() {
            let problem = anyhow!("the audit log {} cannot be a file there", audit.path.display());
            problems.push(("registry_server.audit.path", problem));
        }
    }
    problems
}

/// What connections are encrypted with.
pub(super) fn tls_files(tls: &TlsConfig) -> TlsFiles {
    let mut files = TlsFiles::new(&tls.cert, &tls.key);
    files.client_ca.clone_from(&tls.client_ca);
    files.client_certificate_is_identity = tls.client_cert_identity;
    files
}

fn authentication(auth: &AuthConfig, tokens: Option<&Path>, by_certificates: bool) -> Result<Option<Authentication>> {
    let builder = match auth {
        AuthConfig::NoAuth if tokens.is_none() && !by_certificates => return Ok(None),
        AuthConfig::NoAuth => Authentication::builder(),
        _ => signed(auth)?,
    };
    let builder = match tokens {
        Some(path) => builder.tokens(path)?,
        None => builder,
    };
    Ok(Some(builder.build()))
}

/// Takes tokens that others have signed.
#[cfg(feature = "oidc")]
fn signed(auth: &AuthConfig) -> Result<AuthenticationBuilder> {
    use feast_registry::config::KubernetesConfig;

    let builder = Authentication::builder();
    let builder = match auth {
        AuthConfig::Oidc(oidc) => {
            let builder = builder.oidc(oidc.as_ref().clone())?;
            let cluster = KubernetesConfig::default();
            // As in Feast, its own service accounts are known there too.
            if Authentication::is_in_cluster(&cluster) { builder.kubernetes(&cluster)? } else { builder }
        }
        AuthConfig::Kubernetes(cluster) => builder.kubernetes(cluster)?,
        _ => bail!("the type of `auth` is not served"),
    };
    let Some(secret) = std::env::var(INTERNAL_SECRET).ok().filter(|secret| !secret.is_empty()) else {
        return Ok(builder);
    };
    // Charts set it without being asked, so that it is no good must not keep the server from starting.
    match Authentication::builder().internal_secret(&secret) {
        Ok(_) => Ok(builder.internal_secret(&secret)?),
        Err(why) => {
            tracing::warn!("internal tokens are not taken: {why}");
            Ok(builder)
        }
    }
}

#[cfg(not(feature = "oidc"))]
fn signed(_: &AuthConfig) -> Result<AuthenticationBuilder> {
    bail!("this type of `auth` is not served by this build, which has no feature `oidc`")
}
