//! Who makes a call, and what they may do: from the credentials of a call to what the registry judges it by.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use feast_registry_core::access::{Access, AccessRules, Identity};
use tokio::time::{Instant, sleep_until};
use tonic::Status;
use tonic::codegen::http::HeaderMap;
use tonic::codegen::http::header::{AUTHORIZATION, HeaderValue};

use crate::audit::{self, AuditLog, CallSource};
use crate::authentication::{Authentication, Unauthenticated};
use crate::complaints::Complaint;
use crate::connections::Activity;
use crate::metrics;
use crate::origin;
use crate::protocol::Protocol;
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

    /// Reads the file of tokens anew, if there is one, and opens the audit log anew, after it was moved away. Blocks for a moment, or
    /// for as long as a disk does not answer: not for a thread that answers calls.
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
    /// What says who they are: what goes on for as long as its caller likes ends with it.
    pub(crate) credentials: Credentials,
    pub(crate) share: Share,
}

/// How often it is looked whether credentials are still good.
const LOOKS_EVERY: Duration = Duration::from_secs(5);

/// What says who makes a call, for as long as that goes on. It has no `Debug`, so that nothing shows the token.
#[derive(Clone)]
pub(crate) struct Credentials {
    /// When they are good no longer, if that is known.
    until: Option<Instant>,
    /// A token, and whose it was; not of a client certificate, which is its connection's.
    token: Option<(Authentication, HeaderValue, Arc<Identity>)>,
    looks_at: Instant,
}

impl Credentials {
    /// Completes when they are no longer good, or say something else of their caller than they did. That they cannot be verified now
    /// does not count. Cancel-safe.
    pub(crate) async fn end(&mut self) {
        loop {
            let until = async {
                match self.until {
                    Some(until) => sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = until => return,
                () = sleep_until(self.looks_at) => {}
            }
            if let Some((authentication, token, identity)) = &self.token {
                let headers = HeaderMap::from_iter([(AUTHORIZATION, token.clone())]);
                match authentication.identify(&headers).await {
                    Ok(known) if known.identity == *identity => {}
                    Err(Unauthenticated::Unavailable(_)) => {}
                    Ok(_) | Err(_) => return,
                }
            }
            self.looks_at = Instant::now() + LOOKS_EVERY;
        }
    }
}

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
        protocol: Protocol,
        call: impl FnOnce() -> (String, String),
    ) -> Result<Caller, Status> {
        let source = |call: (String, String), auth_type| {
            let (request_id, path) = call;
            let (peer, is_encrypted) = (connection.peer(), connection.is_encrypted());
            CallSource { request_id, path, peer, protocol, is_encrypted, auth_type }
        };
        let certificate = connection.certificate().filter(|_| !headers.contains_key(AUTHORIZATION));
        let (identity, is_internal, method, until) = match certificate {
            Some(identity) => (Arc::clone(identity), false, "certificate", None),
            None => match self.authentication.identify(headers).await {
                Ok(known) => (known.identity, known.is_internal, known.method, known.until),
                Err(why) => return Err(self.refused(&source(call(), "none"), &why)),
            },
        };
        let token = headers.remove(AUTHORIZATION);
        let token = token.map(|token| (self.authentication.clone(), token, Arc::clone(&identity)));
        let looks_at = Instant::now() + LOOKS_EVERY;
        let credentials = Credentials { until: until.and_then(expires), token, looks_at };
        let share = self.tenants.begin(&identity.username)?;
        let mut access = Access::new(identity, Arc::clone(&self.rules));
        if is_internal {
            access = access.as_admin();
        }
        if let Some(audit) = &self.audit {
            access = access.with_witness(audit::witness(audit, source(call(), method)));
        }
        Ok(Caller { access, credentials, share })
    }

    fn refused(&self, source: &CallSource, why: &Unauthenticated) -> Status {
        static REFUSED: Complaint = Complaint::new();
        metrics::unauthenticated_calls(1);
        REFUSED.say(|more| {
            let CallSource { path, peer, .. } = source;
            let why = origin::cleaned(why.to_string().as_bytes(), origin::MAX_REASON).unwrap_or_default();
            tracing::warn!(path, address = %peer, "a call was refused: {why}{more}");
        });
        if let Some(audit) = &self.audit {
            audit.note_refused(source, &why.to_string());
        }
        why.status()
    }
}

fn expires(until: SystemTime) -> Option<Instant> {
    // What is over already was refused.
    let left = until.duration_since(SystemTime::now()).unwrap_or_default();
    Instant::now().checked_add(left)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tokio::time::timeout;

    use super::*;
    use crate::authentication::{TokenEntry, new_token};
    use crate::peer::Peer;

    #[tokio::test(start_paused = true)]
    async fn a_watch_ends_when_its_token_is_taken_away_or_says_something_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("tokens.yaml");
        let token = new_token().expect("a token");
        let mut reader = TokenEntry::new("ann", &token);
        reader.roles = vec!["reader".to_owned()];
        let write = |entries: &[TokenEntry]| {
            fs::write(&path, serde_saphyr::to_string(&entries.to_vec()).expect("YAML")).expect("written");
        };
        let others = TokenEntry::new("bob", &new_token().expect("a token"));
        for after in [vec![others.clone()], vec![TokenEntry::new("ann", &token)]] {
            write(&[reader.clone()]);
            let callers = Callers::new(Security::new(Authentication::builder().tokens(&path).expect("a file").build()));
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, format!("Bearer {token}").parse().expect("a header"));
            let connection = Activity::new(Peer::Address([127, 0, 0, 1].into()));
            let call = || (String::new(), String::new());
            let Ok(caller) = callers.identify(&mut headers, &connection, Protocol::Grpc, call).await else {
                panic!("it is in the file")
            };
            assert!(headers.is_empty(), "the token is taken from the headers");
            let mut credentials = caller.credentials;
            timeout(Duration::from_secs(600), credentials.end()).await.expect_err("they go on being good");
            write(&after);
            callers.authentication.reload().expect("it is understood");
            timeout(LOOKS_EVERY, credentials.end()).await.expect("they are no longer the same");
        }
    }
}
