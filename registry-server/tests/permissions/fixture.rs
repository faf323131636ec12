//! A server with two teams, and who calls it.
//!
//! Project `alpha` has two objects of each kind, `hidden_…` and `open_…`, whose texts begin with [`SECRET`]. `beta` has one of each,
//! `own_…`. Of `lobby` everybody sees all, so a watcher that is told of it has been told all that came before.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;

use feast_registry_core::access::{AccessRules, Admins, Unprotected};
use feast_registry_core::{
    Backend, Deadline, JournalQuery, Kind, MemoryBackend, Query, Record, Registry, RegistryOptions,
};
use feast_registry_server::{Authentication, Ports, RestOptions, Security, ServeOptions, TokenEntry, new_token, serve};
use prost::Message;
use prost_reflect::{DescriptorPool, MethodDescriptor};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use crate::provider::{Provider, from_now};
use crate::rpcs::{Ask, NOUNS, ROWS};
use crate::wire::{self, Answer, End};

/// What the texts of `alpha` begin with: whoever may not see an object must not be told its text.
pub(crate) const SECRET: &str = "SECRET";
pub(crate) const LAST: &str = "lobby_entity";

/// Somebody with good credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    /// Sees what is called `open_…` of `alpha`.
    Picky,
    /// Sees all of `alpha`.
    Reader,
    /// May do everything in `beta`, and has nothing to do with `alpha`.
    Stranger,
    /// May do everything in `alpha`.
    Writer,
    Admin,
}

impl Who {
    /// In the order in which the table has what they are told.
    pub(crate) const ALL: [Who; 5] = [Who::Picky, Who::Reader, Who::Stranger, Who::Writer, Who::Admin];

    fn name(self) -> &'static str {
        ["pia", "rob", "eve", "wim", "root"][self as usize]
    }

    fn role(self) -> &'static str {
        ["alpha-picky", "alpha-reader", "beta-writer", "alpha-writer", "registry-admin"][self as usize]
    }
}

/// What servers are started with, and what callers show.
pub(crate) struct World {
    folder: TempDir,
    provider: Provider,
    /// Of each [`Who`], a token of the file.
    tokens: Vec<String>,
    expired: String,
}

impl World {
    pub(crate) async fn new() -> Self {
        let token = || new_token().expect("a token");
        let (tokens, expired): (Vec<String>, String) = (Who::ALL.map(|_| token()).into(), token());
        let entry = |who: Who, token: &str| {
            let mut entry = TokenEntry::new(who.name(), token);
            entry.roles = vec![who.role().to_owned()];
            entry
        };
        let mut entries: Vec<_> = Who::ALL.into_iter().zip(&tokens).map(|(who, token)| entry(who, token)).collect();
        let mut over = entry(Who::Admin, &expired);
        over.expires = Some("2020-01-01T00:00:00Z".to_owned());
        entries.push(over);
        let folder = TempDir::new().expect("a folder");
        let text = serde_json::to_string(&entries).expect("it is encoded");
        fs::write(folder.path().join("tokens.yaml"), text).expect("a file");
        Self { folder, provider: Provider::start().await, tokens, expired }
    }

    /// What somebody shows: a token of the file, and one of the identity provider.
    pub(crate) fn credentials(&self, who: Who) -> [String; 2] {
        let signed = self.provider.signed(&self.provider.claims(who.name(), who.role()));
        [&self.tokens[who as usize], &signed].map(|token| format!("Bearer {token}"))
    }

    /// What somebody shows who may be that for so many seconds.
    pub(crate) fn expiring(&self, who: Who, seconds: i64) -> String {
        let mut claims = self.provider.claims(who.name(), who.role());
        claims["exp"] = json!(from_now(seconds));
        format!("Bearer {}", self.provider.signed(&claims))
    }

    /// What nobody is let in with, each with a name. All of it would be an administrator's if it was good.
    pub(crate) fn bad_credentials(&self) -> Vec<(&'static str, Vec<String>)> {
        let admin = self.provider.claims(Who::Admin.name(), Who::Admin.role());
        let claiming = |claim: &str, value: Value| {
            let mut claims = admin.clone();
            claims[claim] = value;
            self.provider.signed(&claims)
        };
        let [good, signed] = self.credentials(Who::Admin);
        let bearer = |token: String| vec![format!("Bearer {token}")];
        vec![
            ("none", vec![]),
            ("an empty one", vec![String::new()]),
            ("no token after `Bearer`", vec!["Bearer ".to_owned()]),
            ("another scheme", vec![good.replace("Bearer", "Basic")]),
            ("more than a token", vec![format!("{good} x")]),
            ("two", vec![good.clone(), good.clone()]),
            ("no token of the file", bearer(new_token().expect("a token"))),
            ("a token that is cut off", vec![good[..good.len() - 1].to_owned()]),
            ("a token of the file that has expired", bearer(self.expired.clone())),
            ("no token of anybody", bearer("x.y.z".to_owned())),
            ("a signed token that is cut off", vec![signed[..signed.len() - 4].to_owned()]),
            ("a signed token that has expired", bearer(claiming("exp", json!(from_now(-60))))),
            ("one that is not good yet", bearer(claiming("nbf", json!(from_now(600))))),
            ("one for another audience", bearer(claiming("aud", json!("other")))),
            ("one of another issuer", bearer(claiming("iss", json!("https://elsewhere.example")))),
            ("one that somebody else signed", bearer(self.provider.forged(&admin))),
            ("one that nobody signed", bearer(Provider::unsigned(&admin))),
        ]
    }

    fn security(&self, anyone_makes_projects: bool) -> Security {
        let authentication = Authentication::builder().tokens(&self.folder.path().join("tokens.yaml")).expect("tokens");
        let authentication = authentication.oidc(self.provider.settings()).expect("settings").build();
        let mut admins = Admins::default();
        admins.roles.insert(Who::Admin.role().to_owned());
        let mut security = Security::new(authentication);
        security.rules = AccessRules::default()
            .with_unprotected(Unprotected::Deny)
            .with_anyone_creating_projects(anyone_makes_projects)
            .with_admins(admins);
        security
    }
}

/// All that is stored, and how much the journal has.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Snapshot {
    records: Vec<Record>,
    commits: usize,
}

impl Snapshot {
    /// What is of one project, byte for byte.
    pub(crate) fn of(&self, project: &str) -> Vec<&Record> {
        self.records.iter().filter(|record| record.key.project() == project).collect()
    }
}

/// A running server.
pub(crate) struct Fixture {
    backend: Arc<MemoryBackend>,
    /// Past all permissions.
    pub(crate) registry: Registry,
    pub(crate) channel: Channel,
    /// Of the port, which has the REST API too.
    pub(crate) address: SocketAddr,
    pub(crate) pool: DescriptorPool,
    /// The revision before that with which `alpha` begins.
    pub(crate) began: u64,
    /// The commit that changed `hidden_entity`.
    pub(crate) changed: u64,
}

impl Fixture {
    /// A server where administrators alone make projects, so that nobody else can find out which there are.
    pub(crate) async fn start(world: &World) -> Self {
        Self::start_with(world, false, RegistryOptions::default()).await
    }

    /// A server where everybody may make projects, as is usual.
    pub(crate) async fn start_open(world: &World) -> Self {
        Self::start_with(world, true, RegistryOptions::default()).await
    }

    /// A server where what is applied may wait for a commit, as it does where the registry is a file.
    pub(crate) async fn start_waiting(world: &World) -> Self {
        Self::start_with(world, false, RegistryOptions::default().with_defers(true)).await
    }

    async fn start_with(world: &World, anyone_makes_projects: bool, options: RegistryOptions) -> Self {
        let backend = Arc::new(MemoryBackend::new());
        let opened = Registry::open(Arc::clone(&backend) as Arc<dyn Backend>, options).await;
        let registry = opened.expect("a registry");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let url = format!("http://{address}");
        let mut options = ServeOptions::default();
        options.security = Some(world.security(anyone_makes_projects));
        let ports = Ports::Shared(listener, RestOptions::default());
        tokio::spawn(serve(registry.clone(), ports, options, std::future::pending()));
        let channel = Endpoint::from_shared(url).expect("a URL").connect().await.expect("a connection");
        let pool = wire::descriptors(&channel).await;
        let mut fixture = Self { backend, registry, channel, address, pool, began: 0, changed: 0 };
        fixture.fill(&world.credentials(Who::Admin)[0]).await;
        fixture
    }

    async fn fill(&mut self, admin: &str) {
        for project in ["lobby", "alpha", "beta"] {
            if project == "alpha" {
                self.began = self.newest().await;
            }
            let text = if project == "alpha" { SECRET } else { "text" };
            let make = async |noun, name: &str| self.apply(admin, noun, project, name, text).await;
            make("project", project).await;
            make("infra", project).await;
            let prefixes: &[&str] = if project == "alpha" { &["hidden", "open"] } else { &["own"] };
            for noun in NOUNS.iter().filter(|_| project != "lobby") {
                for prefix in prefixes {
                    make(noun, &format!("{prefix}_{noun}")).await;
                }
            }
            match project {
                "lobby" => self.grant(project, "all", None, &[], None, &["DESCRIBE"]).await,
                "alpha" => {
                    self.grant(project, "picky", Some(Who::Picky), &[], Some("open_.*"), &["DESCRIBE"]).await;
                    self.grant(project, "readers", Some(Who::Reader), &[], None, &["DESCRIBE"]).await;
                    self.grant(project, "writers", Some(Who::Writer), &[], None, ALL_ACTIONS).await;
                }
                _ => self.grant(project, "writers", Some(Who::Stranger), &[], None, ALL_ACTIONS).await,
            }
        }
        // There is something to undo, and a view has versions.
        self.apply(admin, "entity", "alpha", "hidden_entity", "SECRET, changed,").await;
        self.changed = self.newest().await;
        for noun in ["view", "stream", "demand"] {
            for prefix in ["hidden", "open"] {
                self.apply(admin, noun, "alpha", &format!("{prefix}_{noun}"), "SECRET, versioned,").await;
            }
        }
        self.apply(admin, "entity", "lobby", LAST, "text").await;
    }

    async fn apply(&self, admin: &str, noun: &str, project: &str, name: &str, text: &str) {
        let row = ROWS.iter().find(|row| row.noun == noun && row.applies()).expect("it can be applied");
        let ask = Ask::of(project, name, text);
        let answer = self.call(row.rpc, (row.request)(&ask), &[admin], End::Servers).await;
        assert_eq!(answer.code, Code::Ok, "{}: {ask:?}: {}", row.rpc, answer.text());
    }

    /// Stores a permission for somebody, or for everybody.
    pub(crate) async fn grant(
        &self,
        project: &str,
        name: &str,
        who: Option<Who>,
        types: &[&str],
        pattern: Option<&str>,
        actions: &[&str],
    ) {
        let policy = who.map(|who| json!({"roleBasedPolicy": {"roles": [who.role()]}}));
        let patterns: Vec<&str> = pattern.into_iter().collect();
        let permission = json!({"spec": {
            "name": name, "project": project, "types": types, "namePatterns": patterns, "actions": actions, "policy": policy,
        }});
        let method = self.method("feast.registry.RegistryServer/ApplyPermission");
        let request = wire::message(&method, json!({"permission": permission, "project": project, "commit": true}));
        let field = request.get_field_by_name("permission").expect("a field");
        let bytes = field.as_message().expect("a message").encode_to_vec();
        let object = feast_registry_core::Object::new(Kind::Permission, bytes);
        self.registry.apply(project, object).await.expect("an apply");
    }

    pub(crate) fn method(&self, path: &str) -> MethodDescriptor {
        let found = wire::methods(&self.pool).into_iter().find(|method| wire::path_of(method) == path);
        found.unwrap_or_else(|| panic!("there is no {path}"))
    }

    pub(crate) async fn call(&self, path: &str, request: Value, authorization: &[&str], end: End) -> Answer {
        let message = wire::message(&self.method(path), request).encode_to_vec();
        wire::call(&self.channel, path, message, authorization, end).await
    }

    pub(crate) async fn newest(&self) -> u64 {
        let newest = self.registry.journal(&JournalQuery::before(None, 1)).await.expect("the journal");
        newest.first().map_or(0, |entry| entry.revision.number())
    }

    /// Of histories and user metadata the journal tells: nothing changes without a commit.
    pub(crate) async fn snapshot(&self) -> Snapshot {
        let deadline = Deadline::after(std::time::Duration::from_secs(10));
        let mut queries: Vec<Query> = Kind::ALL.iter().map(|kind| Query::objects(*kind, None)).collect();
        queries.push(Query::Metadata { project: None });
        let records = self.backend.read(&queries, &deadline).await.expect("a read").into_iter().flatten().collect();
        let journal = JournalQuery::after(None, usize::MAX).without_images();
        let commits = self.backend.journal(&journal, &deadline).await.expect("the journal").len();
        Snapshot { records, commits }
    }
}

const ALL_ACTIONS: &[&str] = &["CREATE", "DESCRIBE", "UPDATE", "DELETE", "WRITE_ONLINE"];
