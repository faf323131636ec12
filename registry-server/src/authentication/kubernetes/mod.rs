//! Tokens that a Kubernetes cluster reviews.
//!
//! Nothing of a token is believed that the cluster has not said itself: a token that it does not know is refused, and while it does
//! not answer, nobody is let in by one. What roles somebody has is said by the bindings of the server's own namespace and of the
//! cluster, and not by those of other namespaces, whose administrators would hand out roles of the registry.

mod bindings;
mod cluster;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use feast_registry_core::Result;
use feast_registry_core::access::Identity;
use feast_registry_core::config::KubernetesConfig;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::claims::{self, Claims};
use super::{Authenticated, Unauthenticated};
use bindings::{Binding, Bindings, Scope};
use cluster::Cluster;

pub(super) use cluster::is_there;

/// For how long a token is not reviewed again, and so for how long at the most one is taken that was taken away.
pub(super) const REVIEWED_FOR: Duration = Duration::from_secs(10);
/// Streams end after so long, if the token is good for longer: it is reviewed anew then.
const GOOD_FOR: Duration = Duration::from_secs(3600);
/// How many reviews may be under way, and how many calls may wait for theirs; the same again for tokens that were good a while ago, so
/// that whoever makes tokens up keeps nobody out.
const REVIEWING: usize = 8;
const WAITING: usize = 256;
const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
/// What the names of service accounts begin with, and the groups of all those of a namespace.
const ACCOUNT: &str = "system:serviceaccount:";
const ACCOUNTS: &str = "system:serviceaccounts:";

/// See the module's documentation.
pub(super) struct Kubernetes {
    cluster: Arc<Cluster>,
    audience: Option<String>,
    /// `None`: roles are not asked for.
    bindings: Option<Bindings>,
    of_known: Turns,
    of_others: Turns,
}

/// Turns to have a token reviewed.
struct Turns {
    reviewing: Semaphore,
    waiting: Semaphore,
}

impl Turns {
    fn new() -> Self {
        Self { reviewing: Semaphore::new(REVIEWING), waiting: Semaphore::new(WAITING) }
    }
}

/// What the cluster says of a token.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    authenticated: bool,
    user: User,
    audiences: Vec<String>,
    error: String,
}

/// Who has a token, as the cluster says.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct User {
    username: String,
    groups: Vec<String>,
}

impl Kubernetes {
    /// The cluster of these settings, of which nothing is asked yet. With `with_roles`, bindings say what roles callers have.
    ///
    /// # Errors
    /// `InvalidConfig` when there is no cluster, or the server's own account cannot be read.
    pub(super) fn new(config: &KubernetesConfig, with_roles: bool) -> Result<Self> {
        let cluster = Arc::new(Cluster::new(config)?);
        Ok(Self {
            bindings: with_roles.then(|| Bindings::new(cluster.namespace())),
            cluster,
            audience: config.audience.clone(),
            of_known: Turns::new(),
            of_others: Turns::new(),
        })
    }

    /// Whether a token says that it is one of a cluster (Feast: the claim `kubernetes.io`). It is not believed in anything else.
    pub(super) fn has_issued(token: &str) -> bool {
        unverified(token).is_some_and(|claims| claims.get("kubernetes.io").is_some_and(Value::is_object))
    }

    /// A turn to have a token reviewed, which was good before or was not. Cancel-safe.
    ///
    /// # Errors
    /// `Unavailable` when too many wait for theirs.
    pub(super) async fn turn(&self, is_known: bool) -> Result<SemaphorePermit<'_>, Unauthenticated> {
        let unavailable = |why: &str| Unauthenticated::Unavailable(why.to_owned());
        let turns = if is_known { &self.of_known } else { &self.of_others };
        let _waiting = turns
            .waiting
            .try_acquire()
            .map_err(|_| unavailable(&format!("{WAITING} calls wait for the Kubernetes API already")))?;
        turns.reviewing.acquire().await.map_err(|_| unavailable("the server ends"))
    }

    /// Whose a token is.
    pub(super) async fn review(&self, token: &str) -> Result<Authenticated, Unauthenticated> {
        let mut spec = json!({ "token": token });
        if let Some(audience) = &self.audience {
            spec["audiences"] = json!([audience]);
        }
        let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec});
        let mut answer = self.cluster.create(REVIEWS, &review).await.map_err(Unauthenticated::Unavailable)?;
        let status: Status = serde_json::from_value(answer["status"].take())
            .map_err(|error| Unauthenticated::Unavailable(format!("the review cannot be understood: {error}")))?;
        let refused = |why: &str| Err(Unauthenticated::Refused(format!("Kubernetes does not take its token: {why}")));
        if !status.authenticated {
            return refused(if status.error.is_empty() { "it says nothing more" } else { &status.error });
        }
        if let Some(audience) = &self.audience
            && !status.audiences.contains(audience)
        {
            return refused(&format!("it is not for `{audience}`"));
        }
        let identity = self.identity(&status.user).await?;
        let longest = SystemTime::now() + GOOD_FOR;
        // The cluster has verified the token, and so what it says of its end.
        let end = unverified(token).and_then(|claims| claims::end(&claims));
        let until = Some(end.map_or(longest, |end| longest.min(end)));
        Ok(Authenticated { identity: Arc::new(identity), is_internal: false, method: "kubernetes", until })
    }

    /// The name is that of the review, also of service accounts: no user can have one of theirs (Feast: `NAMESPACE:ACCOUNT`, as a user
    /// may be called too).
    async fn identity(&self, user: &User) -> Result<Identity, Unauthenticated> {
        let identity = claims::name(&user.username)?.with_groups(user.groups.iter().cloned());
        let read = async |bindings: &Bindings, scope| {
            bindings.read(&self.cluster, scope).await.map_err(Unauthenticated::Unavailable)
        };
        let role = |binding: &Binding| binding.role.clone();
        if let Some((namespace, account)) = user.username.strip_prefix(ACCOUNT).and_then(|name| name.split_once(':')) {
            let identity = identity.with_namespaces([namespace]);
            let Some(bindings) = &self.bindings else { return Ok(identity) };
            let own = read(bindings, Scope::Own).await?;
            return Ok(identity.with_roles(own.iter().filter(|own| own.names_account(namespace, account)).map(role)));
        }
        let identity = identity.with_namespaces(user.groups.iter().filter_map(|group| group.strip_prefix(ACCOUNTS)));
        let Some(bindings) = &self.bindings else { return Ok(identity) };
        let (own, of_cluster) = (read(bindings, Scope::Own).await?, read(bindings, Scope::Cluster).await?);
        let all = read(bindings, Scope::Everywhere).await?;
        let names = |binding: &&Binding| binding.names_user(&user.username, &user.groups);
        let namespaces = all.iter().filter(|binding| binding.makes_a_member(&user.username));
        Ok(identity
            .with_roles(own.iter().chain(of_cluster.iter()).filter(names).map(role))
            .with_namespaces(namespaces.map(|binding| binding.namespace.clone())))
    }
}

/// The claims of a token that is a JWT, of which nothing is verified.
fn unverified(token: &str) -> Option<Claims> {
    let mut parts = token.split('.');
    let (_, claims, _) = (parts.next()?, parts.next()?, parts.next()?);
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()
}
