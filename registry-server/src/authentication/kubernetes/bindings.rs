//! What roles a cluster has bound to whom.
//!
//! They are read when they are needed and then used for some seconds by all, so that many callers ask no more than one.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::REVIEWED_FOR;
use super::cluster::Cluster;

/// How many bindings are read in all.
const MOST: usize = 50_000;
/// How many are asked for at once.
const PAGE: usize = 500;
/// How soon the cluster is asked again after it did not answer.
const ASKS_AGAIN_AFTER: std::time::Duration = std::time::Duration::from_secs(2);
/// What says that a namespace is a project of the dashboard, and how the bindings of its members are called (Feast: the same).
const DASHBOARD: &str = "opendatahub.io/dashboard";
const DASHBOARD_MEMBERS: &str = "dashboard-permissions-";

/// Where bindings are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// In the server's own namespace.
    Own,
    /// In none: they are of the whole cluster.
    Cluster,
    /// In any namespace.
    Everywhere,
}

/// The bindings of a cluster.
pub(super) struct Bindings {
    own: Listed,
    cluster: Listed,
    everywhere: Listed,
}

/// Those of one scope, as they were last read.
struct Listed {
    path: String,
    read: Arc<Mutex<Option<(Instant, Read)>>>,
}

type Read = Result<Arc<Vec<Binding>>, String>;

/// A RoleBinding or a ClusterRoleBinding.
#[derive(Debug, Clone)]
pub(super) struct Binding {
    /// Empty if it is of the cluster.
    pub(super) namespace: String,
    /// The name of the role that it gives.
    pub(super) role: String,
    is_of_members: bool,
    subjects: Vec<Subject>,
}

#[derive(Debug, Clone, Deserialize)]
struct Subject {
    kind: String,
    name: String,
    #[serde(default)]
    namespace: Option<String>,
}

impl Bindings {
    /// Those that a server in this namespace asks for.
    pub(super) fn new(namespace: &str) -> Self {
        let listed = |path: String| Listed { path, read: Arc::default() };
        let api = "/apis/rbac.authorization.k8s.io/v1";
        Self {
            own: listed(format!("{api}/namespaces/{namespace}/rolebindings")),
            cluster: listed(format!("{api}/clusterrolebindings")),
            everywhere: listed(format!("{api}/rolebindings")),
        }
    }

    /// Those of a scope, which may be some seconds old. One asks for all, in a task of its own: if who began it leaves, the others have
    /// what it reads. Cancel-safe.
    pub(super) async fn read(&self, cluster: &Arc<Cluster>, scope: Scope) -> Read {
        let listed = match scope {
            Scope::Own => &self.own,
            Scope::Cluster => &self.cluster,
            Scope::Everywhere => &self.everywhere,
        };
        let mut read = Arc::clone(&listed.read).lock_owned().await;
        if let Some((at, read)) = &*read
            && at.elapsed() < if read.is_ok() { REVIEWED_FOR } else { ASKS_AGAIN_AFTER }
        {
            return read.clone();
        }
        let (cluster, path) = (Arc::clone(cluster), listed.path.clone());
        let reading = tokio::spawn(async move {
            let now = list(&cluster, &path).await.map(Arc::new);
            *read = Some((Instant::now(), now.clone()));
            now
        });
        reading.await.unwrap_or_else(|error| Err(error.to_string()))
    }
}

async fn list(cluster: &Cluster, path: &str) -> Result<Vec<Binding>, String> {
    let (mut bindings, mut more) = (Vec::new(), String::new());
    loop {
        let mut query = vec![("limit", PAGE.to_string())];
        if !more.is_empty() {
            query.push(("continue", more));
        }
        let mut page = cluster.get(path, &query).await?;
        let Value::Array(items) = page["items"].take() else { return Err(format!("{path} has no list of bindings")) };
        bindings.extend(items.iter().filter_map(Binding::of));
        more = page["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
        if more.is_empty() {
            return Ok(bindings);
        }
        if bindings.len() >= MOST {
            return Err(format!("{path} has more than {MOST} bindings"));
        }
    }
}

impl Binding {
    fn of(item: &Value) -> Option<Self> {
        let (metadata, role) = (&item["metadata"], &item["roleRef"]);
        let (name, role_name) = (metadata["name"].as_str()?, role["name"].as_str()?);
        // One that says something else of a subject names nobody by it.
        let subjects = item["subjects"].as_array().into_iter().flatten();
        let is_dashboard = metadata["labels"][DASHBOARD].as_str() == Some("true");
        Some(Self {
            namespace: metadata["namespace"].as_str().unwrap_or_default().to_owned(),
            is_of_members: (is_dashboard && name.starts_with(DASHBOARD_MEMBERS))
                || (role["kind"] == "ClusterRole" && role_name == "admin"),
            role: role_name.to_owned(),
            subjects: subjects.filter_map(|subject| Subject::deserialize(subject).ok()).collect(),
        })
    }

    /// Whether it is for this service account.
    pub(super) fn names_account(&self, namespace: &str, account: &str) -> bool {
        self.subjects.iter().any(|subject| {
            let of = subject.namespace.as_deref().unwrap_or(&self.namespace);
            subject.kind == "ServiceAccount" && subject.name == account && of == namespace
        })
    }

    /// Whether it is for this user, or for one of these groups.
    pub(super) fn names_user(&self, user: &str, groups: &[String]) -> bool {
        self.subjects.iter().any(|subject| match subject.kind.as_str() {
            "User" => subject.name == user,
            "Group" => groups.contains(&subject.name),
            _ => false,
        })
    }

    /// Whether it says that its namespace is this user's.
    pub(super) fn makes_a_member(&self, user: &str) -> bool {
        self.is_of_members && self.names_user(user, &[])
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_binding_is_for_those_that_it_names() {
        let item = json!({
            "metadata": {"name": "dashboard-permissions-x", "namespace": "team", "labels": {DASHBOARD: "true"}},
            "roleRef": {"kind": "Role", "name": "reader"},
            "subjects": [
                {"kind": "User", "name": "ann"}, {"kind": "Group", "name": "ops"}, {"kind": "ServiceAccount", "name": "job"},
                {"kind": "ServiceAccount", "name": "far", "namespace": "other"}, {"kind": "User"},
            ],
        });
        let binding = Binding::of(&item).expect("a binding");
        assert_eq!((binding.role.as_str(), binding.namespace.as_str(), binding.subjects.len()), ("reader", "team", 4));
        assert!(binding.names_account("team", "job") && binding.names_account("other", "far"));
        assert!(!binding.names_account("other", "job") && !binding.names_account("team", "ann"));
        assert!(binding.names_user("ann", &[]) && binding.names_user("bob", &["ops".to_owned()]));
        assert!(!binding.names_user("ops", &["ann".to_owned()]) && !binding.names_user("job", &[]));
        assert!(binding.makes_a_member("ann") && !binding.makes_a_member("bob"));
        let mut plain = item.clone();
        plain["metadata"]["labels"] = json!({});
        assert!(!Binding::of(&plain).expect("a binding").makes_a_member("ann"));
        plain["roleRef"] = json!({"kind": "ClusterRole", "name": "admin"});
        assert!(Binding::of(&plain).expect("a binding").makes_a_member("ann"));
        for odd in [json!({}), json!({"metadata": {"name": "x"}}), json!(7)] {
            assert!(Binding::of(&odd).is_none());
        }
    }
}
