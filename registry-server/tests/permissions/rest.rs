//! The same of the REST API: each route, each caller, what is there and what is not.

#[path = "../rest/client.rs"]
#[allow(dead_code, reason = "not all tests that share this use all of it")]
mod client;

use std::collections::BTreeSet;

use client::{Ask as Request, BOTH, Reply, Version};
use serde_json::{Value, json};

use crate::fixture::{Fixture, SECRET, Who, World};
use crate::rpcs::{Ask, NOUNS, ROWS};
use crate::{NOT_THERE, is_shown, leaked};

/// Of each of [`Who::ALL`].
type Statuses = [u16; 5];

const FINE: Statuses = [200; 5];
const READS: Statuses = [403, 200, 403, 200, 200];
const WRITES: Statuses = [403, 403, 403, 200, 200];
const ADMIN: Statuses = [403, 403, 403, 403, 200];

/// How something is asked for.
#[derive(Clone)]
struct Row {
    method: &'static str,
    /// With `NAME`, `PROJECT` and `CACHED` in it.
    path: String,
    body: Option<fn(&Row, &Ask) -> Value>,
    if_match: Option<&'static str>,
    noun: &'static str,
    /// Whether it is the project that is not there, of what is not.
    is_of_project: bool,
    of_hidden: Statuses,
    of_absent: Statuses,
    changes: bool,
    shows: Vec<String>,
}

fn get(path: impl Into<String>, noun: &'static str) -> Row {
    Row {
        method: "GET",
        path: path.into(),
        body: None,
        if_match: None,
        noun,
        is_of_project: false,
        of_hidden: READS,
        of_absent: [403, 404, 403, 404, 404],
        changes: false,
        shows: vec![format!("hidden_{noun}")],
    }
}

fn list(path: impl Into<String>, shows: &[&str]) -> Row {
    let shows = shows.iter().map(|words| (*words).to_owned()).collect();
    Row { is_of_project: true, of_hidden: FINE, of_absent: FINE, shows, ..get(path, "entity") }
}

/// What is answered alike to everybody.
fn refused(status: u16, row: Row) -> Row {
    Row { of_hidden: [status; 5], of_absent: [status; 5], ..row }
}

fn write(method: &'static str, path: impl Into<String>, noun: &'static str, body: fn(&Row, &Ask) -> Value) -> Row {
    let body = Some(body);
    Row { method, body, of_hidden: WRITES, of_absent: WRITES, changes: true, shows: Vec::new(), ..get(path, noun) }
}

fn delete(path: impl Into<String>, noun: &'static str) -> Row {
    Row {
        method: "DELETE",
        body: None,
        of_absent: [403, 403, 403, 404, 404],
        ..write("", path, noun, |_, _| json!({}))
    }
}

/// The kinds that have routes: what they are called here, where they are, and in which field a request of gRPC has them.
const KINDS: [(&str, &str, &str); 9] = [
    ("entity", "entities", "entity"),
    ("source", "data_sources", "dataSource"),
    ("view", "feature_views", "featureView"),
    ("stream", "feature_views", "streamFeatureView"),
    ("demand", "feature_views", "onDemandFeatureView"),
    ("label", "feature_views", "labelView"),
    ("service", "feature_services", "featureService"),
    ("dataset", "saved_datasets", "savedDataset"),
    ("permission", "permissions", "permission"),
];

/// The object that a request of gRPC applies.
fn object(noun: &str, ask: &Ask) -> Value {
    let row = ROWS.iter().find(|row| row.noun == noun && row.applies()).expect("it can be applied");
    let request = (row.request)(ask);
    let fields = request.as_object().expect("an object");
    fields.values().find(|value| value.is_object()).expect("an object in it").clone()
}

fn put(row: &Row, ask: &Ask) -> Value {
    let mut object = object(row.noun, ask);
    if let Some((.., field)) = KINDS.iter().find(|(noun, path, _)| *noun == row.noun && *path == "feature_views") {
        object["type"] = json!(field);
    }
    object
}

fn kind_of(noun: &str) -> &'static str {
    match noun {
        "source" => "data_source",
        "view" => "feature_view",
        "stream" => "stream_feature_view",
        "demand" => "on_demand_feature_view",
        "label" => "label_view",
        "service" => "feature_service",
        "dataset" => "saved_dataset",
        "reference" => "validation_reference",
        "permission" => "permission",
        _ => "entity",
    }
}

fn rows() -> Vec<Row> {
    let everything: Vec<&str> = vec!["hidden_entity", "hidden_source", "hidden_view", "hidden_service", "open_view"];
    let mut rows = vec![
        list("/projects?allow_cache=CACHED", &["SECRET of alpha"]),
        Row {
            is_of_project: true,
            of_absent: [403, 403, 403, 403, 404],
            shows: vec!["SECRET of alpha".to_owned()],
            ..get("/projects/PROJECT?allow_cache=CACHED", "project")
        },
        list("/features?project=PROJECT&allow_cache=CACHED", &["hidden_view_feature", "open_view_feature"]),
        list("/features/all?limit=100&allow_cache=CACHED", &["hidden_view_feature", "open_view_feature"]),
        list("/labels?project=PROJECT&allow_cache=CACHED", &["hidden_label_feature", "open_label_feature"]),
        list("/labels/all?limit=100&allow_cache=CACHED", &["hidden_label_feature", "open_label_feature"]),
        Row {
            of_hidden: [404, 200, 404, 200, 200],
            of_absent: [404; 5],
            ..get("/features/NAME/NAME_feature?project=PROJECT&allow_cache=CACHED&include_relationships=true", "view")
        },
        Row {
            of_absent: [403, 200, 403, 200, 200],
            shows: vec!["hidden_view".to_owned()],
            ..get("/feature_views?project=PROJECT&feature_service=NAME&allow_cache=CACHED", "service")
        },
        list("/lineage/registry?project=PROJECT&allow_cache=CACHED", &everything),
        list("/lineage/registry/all?allow_cache=CACHED", &everything),
        list("/lineage/complete?project=PROJECT&allow_cache=CACHED", &everything),
        list("/lineage/complete/all?allow_cache=CACHED", &everything),
        Row {
            noun: "view",
            is_of_project: false,
            ..list(
                "/lineage/objects/featureView/NAME?project=PROJECT&include_indirect=true&allow_cache=CACHED",
                &["hidden_service"],
            )
        },
        Row {
            is_of_project: true,
            of_absent: ADMIN,
            ..write(
                "PUT",
                "/projects/PROJECT",
                "project",
                |_, ask| json!({"spec": {"name": ask.project, "description": format!("{} of {}", ask.text, ask.project)}}),
            )
        },
        write(
            "POST",
            "/entities",
            "entity",
            |_, ask| json!({"name": ask.name, "project": ask.project, "description": ask.text}),
        ),
        list("/version", &[]),
        list("/search?query=&projects=PROJECT&allow_cache=CACHED", &everything),
        list(
            "/search?query=hidden&allow_cache=CACHED",
            &["hidden_entity", "hidden_source", "hidden_view", "hidden_service"],
        ),
        list("/metrics/resource_counts?allow_cache=CACHED", &[]),
        list("/metrics/resource_counts?project=PROJECT&allow_cache=CACHED", &[]),
        list("/metrics/popular_tags?allow_cache=CACHED", &[]),
        list("/metrics/popular_tags?project=PROJECT&allow_cache=CACHED", &[]),
        list("/metrics/recently_visited", &[]),
        list("/metrics/recently_visited?project=PROJECT", &[]),
        list("/compute_engines?project=PROJECT&allow_cache=CACHED", &["hidden_view", "open_view"]),
        list("/compute_engines/all?allow_cache=CACHED", &[]),
        list("/materialization_jobs?project=PROJECT&allow_cache=CACHED", &[]),
        list("/saved_datasets/jobs?project=PROJECT", &[]),
        refused(404, list("/saved_datasets/jobs/NAME", &[])),
        refused(501, list("/saved_datasets/data/NAME?project=PROJECT", &[])),
        refused(503, list("/monitoring/views?project=PROJECT", &[])),
        get("/webhook/config/NAME?project=PROJECT", "label"),
        get("/annotation-config/NAME?project=PROJECT", "label"),
        Row { of_hidden: [404, 200, 404, 200, 200], of_absent: [404; 5], ..get("/webhook/config/NAME", "label") },
        Row { of_hidden: [404, 200, 404, 200, 200], of_absent: [404; 5], ..get("/annotation-config/NAME", "label") },
        Row {
            of_hidden: ADMIN,
            of_absent: ADMIN,
            changes: false,
            ..write("POST", "/registry/refresh", "entity", |_, _| json!({}))
        },
        write(
            "POST",
            "/data_sources",
            "source",
            |_, ask| json!({"name": ask.name, "project": ask.project, "type": 1, "description": ask.text}),
        ),
        write(
            "POST",
            "/feature_views",
            "view",
            |_, ask| json!({"name": ask.name, "project": ask.project, "entities": ["hidden_entity"], "description": ask.text}),
        ),
        write(
            "POST",
            "/feature_services",
            "service",
            |_, ask| json!({"name": ask.name, "project": ask.project, "features": [], "description": ask.text}),
        ),
        write("POST", "/permissions", "permission", |_, ask| {
            let policy = json!({"role_based_policy": {"roles": [ask.text]}});
            json!({"name": ask.name, "project": ask.project, "actions": ["DESCRIBE"], "policy": policy})
        }),
        write(
            "POST",
            "/saved_datasets",
            "dataset",
            |_, ask| json!({"name": ask.name, "project": ask.project, "storage_path": ask.text, "allow_override": true}),
        ),
    ];
    let label_view = "/label_views/NAME?project=PROJECT";
    rows.push(get(format!("{label_view}&allow_cache=CACHED"), "label"));
    rows.push(write("PUT", label_view, "label", put));
    rows.push(delete(label_view, "label"));
    for (path, status) in [
        ("/monitoring/jobs", 503),
        ("/saved_datasets/create", 501),
        ("/push", 501),
        ("/batch-push", 501),
        ("/get-online-labels", 501),
        ("/list-labels", 501),
        ("/label-quality", 501),
        ("/active-learning/candidates", 501),
        ("/training-dataset/export", 501),
        ("/webhook/label-ingest", 501),
    ] {
        rows.push(refused(status, Row { changes: false, ..write("POST", path, "entity", |_, _| json!({})) }));
    }
    for (noun, path, _) in KINDS {
        let one = format!("/{path}/NAME?project=PROJECT");
        rows.push(get(format!("{one}&allow_cache=CACHED&include_relationships=true"), noun));
        rows.push(write("PUT", one.clone(), noun, put));
        rows.push(delete(one.clone(), noun));
        rows.push(Row { changes: false, ..write("PUT", format!("{one}&dry_run=true"), noun, put) });
        rows.push(Row { changes: false, ..delete(format!("{one}&dry_run=true"), noun) });
        // Whether a condition holds is for those who may do it.
        let late = [403, 403, 403, 412, 412];
        let if_match = Some("\"other\"");
        rows.push(Row {
            changes: false,
            if_match,
            of_hidden: late,
            of_absent: late,
            ..write("PUT", one.clone(), noun, put)
        });
        rows.push(Row { changes: false, if_match, of_hidden: late, ..delete(one, noun) });
    }
    for (path, noun) in [
        ("entities", "entity"),
        ("data_sources", "source"),
        ("feature_views", "demand"),
        ("label_views", "label"),
        ("feature_services", "service"),
        ("saved_datasets", "dataset"),
    ] {
        let shows = [&*format!("hidden_{noun}"), &*format!("open_{noun}")].map(str::to_owned);
        let shows: Vec<&str> = shows.iter().map(String::as_str).collect();
        let list_of = |path: String| list(path, &shows);
        rows.push(list_of(format!("/{path}?project=PROJECT&allow_cache=CACHED&include_relationships=true")));
        rows.push(list_of(format!("/{path}?project=PROJECT&allow_cache=CACHED&page=1&limit=100&sort_by=name")));
        rows.push(list_of(format!("/{path}/all?limit=100&allow_cache=CACHED&include_relationships=true")));
    }
    rows.push(list(
        "/permissions?project=PROJECT&allow_cache=CACHED",
        &["hidden_permission", "open_permission", "picky"],
    ));
    for noun in NOUNS {
        rows.push(write("POST", "/batch?project=PROJECT", noun, |row, ask| {
            json!({"edits": [{"kind": kind_of(row.noun), "name": ask.name, "apply": object(row.noun, ask)}]})
        }));
        let of_absent = [403, 403, 403, 404, 404];
        rows.push(Row {
            of_absent,
            ..write(
                "POST",
                "/batch?project=PROJECT",
                noun,
                |row, ask| json!({"edits": [{"kind": kind_of(row.noun), "name": ask.name, "delete": true}]}),
            )
        });
    }
    rows
}

impl Row {
    fn request(&self, fixture: &Fixture, ask: &Ask, version: Version) -> Request {
        let cached = ask.cached.to_string();
        let path = self.path.replace("NAME", &ask.name).replace("PROJECT", &ask.project).replace("CACHED", &cached);
        let mut request = Request::new(fixture.address, self.method, &path).over(version);
        if let Some(tags) = self.if_match {
            request = request.header("if-match", tags);
        }
        match self.body {
            Some(body) => request.json(&body(self, ask)),
            None => request,
        }
    }

    /// Whether somebody is to be told this. Lists across projects are of those that they see, as in Feast.
    fn is_to_show(&self, who: Who, words: &str) -> bool {
        let is_across = self.path.contains("/all?") || self.path.starts_with("/search?");
        is_shown(who, words) && !(who == Who::Picky && is_across)
    }

    fn name(&self) -> String {
        let condition = self.if_match.map(|tags| format!(" if {tags}")).unwrap_or_default();
        format!("{} {} of {}{condition}", self.method, self.path, self.noun)
    }
}

/// All that a caller is told, but for what differs from request to request.
fn text(reply: &Reply) -> String {
    let mut text = format!("{} {}", reply.status, String::from_utf8_lossy(&reply.body));
    for (name, value) in &reply.headers {
        if !["x-request-id", "date", "content-length", "etag"].contains(&name.as_str()) {
            text += &format!("\n{name}: {}", String::from_utf8_lossy(value.as_bytes()));
        }
    }
    text
}

fn masked(reply: &Reply, ask: &Ask) -> String {
    text(reply).replace(&ask.name, "…").replace(&ask.project, "…")
}

/// Whether a path is one of those that a route has, whose parameters stand in braces.
fn is_of(route: &str, path: &str) -> bool {
    let path = path.split('?').next().unwrap_or_default();
    let (of_route, of_path): (Vec<_>, Vec<_>) = (route.split('/').collect(), path.split('/').collect());
    of_route.len() == of_path.len()
        && of_route.iter().zip(of_path).all(|(part, given)| part.starts_with('{') || *part == given)
}

#[tokio::test]
async fn the_table_has_each_route_that_the_server_has() {
    let fixture = Fixture::start(&World::new().await).await;
    let document = Request::new(fixture.address, "GET", "/openapi.json").send().await.json();
    let paths = document["paths"].as_object().expect("paths");
    let rows = rows();
    // The more particular route is the one that is asked.
    let of = |row: &Row| {
        let matching = paths.keys().filter(|route| is_of(route, &row.path));
        matching.min_by_key(|route| route.matches('{').count()).cloned()
    };
    let in_table: BTreeSet<(String, String)> =
        rows.iter().filter_map(|row| Some((of(row)?, row.method.to_ascii_lowercase()))).collect();
    let mut served = 0;
    for (route, verbs) in paths {
        for (verb, operation) in verbs.as_object().expect("methods") {
            let is_open = operation["security"] == json!([]);
            assert_eq!(is_open, ["/", "/docs", "/openapi.json"].contains(&route.as_str()), "{verb} {route}");
            let is_there = in_table.contains(&(route.clone(), verb.clone()));
            assert!(is_open || is_there, "{verb} {route} has no row");
            served += 1;
        }
    }
    assert!(served > 70, "{served} routes");
}

#[tokio::test]
async fn each_caller_of_the_rest_api_is_told_and_may_do_what_the_table_says() {
    let world = World::new().await;
    let mut fixture = Fixture::start(&world).await;
    let mut faults = Vec::new();
    for (number, row) in rows().into_iter().enumerate() {
        for who in Who::ALL {
            // What writers may, administrators may: that of gRPC has it, and each change costs a server.
            if who == Who::Admin && row.changes && row.of_hidden == WRITES {
                continue;
            }
            let credentials = &world.credentials(who)[number % 2];
            let (has_changed, told) = check(&fixture, &row, who, credentials, BOTH[(number / 2) % 2]).await;
            faults.extend(told.into_iter().map(|fault| format!("{} by {who:?}: {fault}", row.name())));
            if has_changed {
                fixture = Fixture::start(&world).await;
            }
        }
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

async fn check(fixture: &Fixture, row: &Row, who: Who, credentials: &str, version: Version) -> (bool, Vec<String>) {
    let mut faults = Vec::new();
    let mut has_changed = false;
    for cached in [false, true] {
        if cached && !row.path.contains("CACHED") {
            continue;
        }
        let hidden = Ask { cached, ..Ask::of("alpha", &format!("hidden_{}", row.noun), "said by the caller") };
        let absent = match row.is_of_project {
            true => Ask { project: NOT_THERE.1.to_owned(), ..hidden.clone() },
            false => Ask { name: hidden.name.replace("hidden", NOT_THERE.0), ..hidden.clone() },
        };
        let mut told = Vec::new();
        // What is not there comes first: what is there may be deleted.
        for (is_there, ask, statuses) in [(false, &absent, row.of_absent), (true, &hidden, row.of_hidden)] {
            let before = fixture.snapshot().await;
            let reply = row.request(fixture, ask, version).header("authorization", credentials).send().await;
            let changed = fixture.snapshot().await != before;
            has_changed = has_changed || changed;
            let text = text(&reply);
            let mut wrong = |what: &str| {
                faults.push(format!("{what}, there: {is_there}, cached: {cached}: {}", text.escape_debug()))
            };
            let status = if reply.status == 201 { 200 } else { reply.status };
            if status != statuses[who as usize] {
                wrong(&format!("not {}", statuses[who as usize]));
            }
            if changed && (status != 200 || !row.changes) {
                wrong("something was changed");
            }
            if row.changes && status == 200 && !changed {
                wrong("nothing was changed");
            }
            if is_there && status == 200 {
                for words in
                    row.shows.iter().filter(|words| row.is_to_show(who, words) && !text.contains(words.as_str()))
                {
                    wrong(&format!("`{words}` is not in it"));
                }
            }
            // What they have said themselves they may be told.
            for words in leaked(who, &text, &ask.name) {
                wrong(&format!("`{words}` is in it"));
            }
            if let (200, Some(count)) = (status, miscounted(&reply)) {
                wrong(&format!("{count} are counted"));
            }
            told.push(masked(&reply, ask));
        }
        let is_blind = matches!(who, Who::Stranger | Who::Picky);
        if is_blind && told[0] != told[1] && !told[0].starts_with("200") {
            faults.push(format!("what is there is told from what is not: {told:?}"));
        }
    }
    (has_changed, faults)
}

/// How many a list says that there are, if it has fewer on its only page.
fn miscounted(reply: &Reply) -> Option<u64> {
    if reply.body.is_empty() {
        return None;
    }
    let told = reply.json();
    let count = told["pagination"]["totalCount"].as_u64()?;
    let length = told.as_object()?.values().filter_map(Value::as_array).map(Vec::len).max().unwrap_or_default();
    (u64::try_from(length) != Ok(count)).then_some(count)
}

#[tokio::test]
async fn what_may_be_seen_does_not_tell_of_what_may_not() {
    let world = World::new().await;
    let fixture = Fixture::start(&world).await;
    let [credentials, _] = world.credentials(Who::Picky);
    for row in rows()
        .into_iter()
        .filter(|row| row.method == "GET" && row.path.contains("NAME") && row.of_hidden[Who::Admin as usize] == 200)
    {
        for cached in [false, true] {
            let ask = Ask { cached, ..Ask::of("alpha", &format!("open_{}", row.noun), "") };
            let reply = row.request(&fixture, &ask, Version::One).header("authorization", &credentials).send().await;
            assert_eq!(reply.status, 200, "{}: {reply:?}", row.name());
            let text = text(&reply);
            assert!(text.contains("open_"), "{}: {text}", row.name());
            assert_eq!(leaked(Who::Picky, &text, &ask.name), Vec::<&str>::new(), "{}: {text}", row.name());
        }
    }
}

#[tokio::test]
async fn who_does_not_say_who_they_are_is_told_nothing_over_http() {
    let world = World::new().await;
    let fixture = Fixture::start(&world).await;
    let before = fixture.snapshot().await;
    for (what, credentials) in world.bad_credentials() {
        for row in rows() {
            let ask = Ask::of("alpha", &format!("hidden_{}", row.noun), "said by the caller");
            let mut request = row.request(&fixture, &ask, Version::One);
            for value in &credentials {
                request = request.header("authorization", value);
            }
            let reply = request.send().await;
            let text = text(&reply);
            assert_eq!(
                (reply.status, reply.header("www-authenticate")),
                (401, "Bearer"),
                "{} with {what}: {text}",
                row.name()
            );
            for words in [SECRET, "hidden_", "open_"] {
                assert!(!text.contains(words), "{} with {what}: {text}", row.name());
            }
        }
    }
    assert_eq!(fixture.snapshot().await, before);
}
