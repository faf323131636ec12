//! Who makes a call, and what they may do: from the credentials of a call to what the registry judges it by.

use std::sync::Arc;
use std::time::SystemTime;

use feast_registry_core::access::{Access, AccessRules};
use tokio::time::Instant;
use tonic::Status;
use tonic::codegen::http::HeaderMap;
use tonic::codegen::http::header::AUTHORIZATION;

use crate::audit::{self, AuditLog, CallSource};
use crate::authentication::{Authentication, Unauthenticated};
use crate::complaints::Complaint;
use crate::connections::Activity;
use crate::metrics;
use crate::tenants::{Share, TenantLimits, Tenants};

/// What a server asks of its callers. Without it, everybody who can connect may do everything.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Security {
    /// How callers say who they are. Those who have a client certificate that says so need nothing else.
    pub authentication: Authentication,
    /// What holds besides the permissions that are stored.
    pub rules: AccessRules,
    /// Where it is noted who was allowed to do what. Default: nowhere.
    pub audit: Option<AuditLog>,
    /// What each caller may have under way.
    pub limits: TenantLimits,
}

impl Security {
    /// The usual rules: permissions are enforced as Feast does, and nothing is noted.
    pub fn new(authentication: Authentication) -> Self {
        Self { authentication, rules: AccessRules::default(), audit: None, limits: TenantLimits::default() }
    }

    /// Reads the file of tokens anew, if there is one, and opens the audit log anew, after it was moved away. Blocks for a moment.
    pub fn read_anew(&self) {
        if let Err(error) = self.authentication.reload() {
            tracing::error!(%error, "the previous tokens stay in force");
        }
        if let Some(audit) = &self.audit {
            audit.reopen();
        }
    }
}

/// All callers of a server.
pub(crate) struct Callers {
    authentication: Authentication,
    rules: Arc<AccessRules>,
    audit: Option<AuditLog>,
    tenants: Tenants,
}

/// Who makes a call, and what they may.
pub(crate) struct Caller {
    pub(crate) access: Access,
    /// When what says who they are is good no longer: what goes on for as long as its caller likes ends then.
    pub(crate) expires: Option<Expires>,
    pub(crate) share: Share,
}

/// When the credentials of a call are good no longer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expires(pub(crate) Instant);

impl Callers {
    pub(crate) fn new(security: Security) -> Self {
        let Security { authentication, rules, audit, limits } = security;
        Self { authentication, rules: Arc::new(rules), audit, tenants: Tenants::new(limits) }
    }

    /// Who makes a call with these headers on this connection. The credentials are taken from the headers, so that nothing that
    /// shows them shows those.
    ///
    /// # Errors
    /// UNAUTHENTICATED when that cannot be said, UNAVAILABLE when it cannot be found out now, RESOURCE_EXHAUSTED when they have as much under
    /// way as they may. Nothing was done.
    pub(crate) async fn identify(
        &self,
        headers: &mut HeaderMap,
        connection: &Activity,
        call: impl FnOnce() -> (String, String),
    ) -> Result<Caller, Status> {
        let source = |call: (String, String), auth_type| {
            let (request_id, path) = call;
            CallSource { request_id, path, ip: connection.peer(), is_encrypted: connection.is_encrypted(), auth_type }
        };
        let certificate = connection.certificate().filter(|_| !headers.contains_key(AUTHORIZATION));
        let (identity, is_internal, method, until) = match certificate {
            Some(identity) => (Arc::clone(identity), false, "certificate", None),
            None => match self.authentication.identify(headers).await {
                Ok(known) => (known.identity, known.is_internal, known.method, known.until),
                Err(why) => return Err(self.refused(&source(call(), "none"), &why)),
            },
        };
        while headers.remove(AUTHORIZATION).is_some() {}
        let share = self.tenants.begin(&identity.username)?;
        let mut access = Access::new(identity, Arc::clone(&self.rules));
        if is_internal {
            access = access.as_admin();
        }
        if let Some(audit) = &self.audit {
            access = access.with_witness(audit::witness(audit, source(call(), method)));
        }
        Ok(Caller { access, expires: until.and_then(expires), share })
    }

    fn refused(&self, source: &CallSource, why: &Unauthenticated) -> Status {
        static REFUSED: Complaint = Complaint::new();
        metrics::unauthenticated_calls(1);
        REFUSED.say(|more| {
            let CallSource { path, ip, .. } = source;
            tracing::warn!(path, address = %ip.to_canonical(), "a call was refused: {why}{more}");
        });
        if let Some(audit) = &self.audit {
            audit.note_refused(source, &why.to_string());
        }
        why.status()
    }
}

fn expires(until: SystemTime) -> Option<Expires> {
    // What is over already was refused.
    let left = until.duration_since(SystemTime::now()).unwrap_or_default();
    Instant::now().checked_add(left).map(Expires)
}
