//! The service `feast_registry.v1.History`, on a real server over an SQLite file that others write too.

use std::time::{Duration, Instant};

use feast_registry::proto::core::{Entity, EntitySpecV2, FeatureSpecV2, FeatureView, FeatureViewSpec};
use feast_registry::{CallOptions, Encoded, Freshness, Kind as CoreKind, Object, Registry, RegistryConfig};
use feast_registry_server::proto::history::change::Target;
use feast_registry_server::proto::history::history_client::HistoryClient;
use feast_registry_server::proto::history::image::State;
use feast_registry_server::proto::history::omitted::Why;
use feast_registry_server::proto::history::restore_request::{AsOf, Target as Restored};
use feast_registry_server::proto::history::watch_response::Event;
use feast_registry_server::proto::history::{
    Change, Commit, DiffRequest, Filter, GetRequest, Kind, ListVersionsRequest, LogRequest, ProjectTarget,
    RestoreRequest, RevertRequest, UndoOptions, WatchRequest, WatchResponse,
};
use feast_registry_server::proto::registry_server_client::RegistryServerClient;
use feast_registry_server::proto::{ApplyEntityRequest, GetEntityRequest};
use feast_registry_server::{ServeOptions, serve};
use prost::Message;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};

const SOON: Duration = Duration::from_secs(20);

/// A server, and a handle of another process, as it were, on the same registry.
struct Fixture {
    _folder: TempDir,
    other: Registry,
    address: String,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

impl Fixture {
    async fn start() -> Self {
        Self::with(ServeOptions::default()).await
    }

    async fn with(options: ServeOptions) -> Self {
        let folder = TempDir::new().expect("a folder");
        let url = format!("sqlite:///{}", folder.path().join("registry.db").display());
        let config = RegistryConfig::new(url.parse().expect("a URL"));
        let served = feast_registry::open(&config).await.expect("a registry");
        let other = feast_registry::open(&config).await.expect("a registry");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let (stop, has_stopped) = oneshot::channel();
        let serving = tokio::spawn(async move {
            serve(served, listener, options, async { drop(has_stopped.await) }).await.expect("it serves");
        });
        Self { _folder: folder, other, address, stop, serving }
    }

    async fn channel(&self) -> Channel {
        Endpoint::from_shared(self.address.clone()).expect("a URL").connect().await.expect("a connection")
    }

    async fn client(&self) -> HistoryClient<Channel> {
        HistoryClient::new(self.channel().await)
    }

    async fn apply(&self, project: &str, name: &str, description: &str) {
        self.other.apply(project, entity(name, description)).await.expect("an apply");
    }

    /// A stream of what another process commits from now on, once that is known to have begun.
    async fn watch(&self, filter: Filter) -> Streaming<WatchResponse> {
        watch(&mut self.client().await, None, filter).await.expect("a stream")
    }
}

fn entity(name: &str, description: &str) -> Object {
    let (name, description) = (name.to_owned(), description.to_owned());
    let spec = EntitySpecV2 { name, description, join_key: "id".to_owned(), ..Default::default() };
    Object::from(&Entity { spec: Some(spec), meta: None })
}

async fn watch(
    client: &mut HistoryClient<Channel>,
    after: Option<u64>,
    filter: Filter,
) -> Result<Streaming<WatchResponse>, Status> {
    Ok(client.watch(WatchRequest { after, filter: Some(filter), max_image_bytes: None }).await?.into_inner())
}

async fn next(events: &mut Streaming<WatchResponse>) -> Result<Event, Status> {
    let next = timeout(SOON, events.message()).await.expect("an event comes");
    Ok(next?.and_then(|response| response.event).expect("an event"))
}

/// The next commit.
async fn commit(events: &mut Streaming<WatchResponse>) -> Commit {
    loop {
        if let Event::Commit(commit) = next(events).await.expect("an event") {
            return commit;
        }
    }
}

/// How a stream ends.
async fn end(events: &mut Streaming<WatchResponse>) -> Status {
    loop {
        if let Err(status) = next(events).await {
            return status;
        }
    }
}

/// The names of the objects of a kind that a commit changes.
fn changed(commit: &Commit, kind: Kind) -> Vec<String> {
    let name = |target: &Option<Target>| match target {
        Some(Target::Object(object)) if object.kind() == kind => Some(object.name.clone()),
        _ => None,
    };
    commit.changes.iter().filter_map(|change| name(&change.target)).collect()
}

fn entities(commit: &Commit) -> Vec<String> {
    changed(commit, Kind::Entity)
}

#[tokio::test]
async fn a_watcher_is_told_what_another_process_commits_with_who_and_why_and_the_bytes() {
    let fixture = Fixture::start().await;
    fixture.apply("rides", "driver", "before").await;
    let mut events = fixture.watch(Filter::default()).await;
    let Event::Bookmark(begin) = next(&mut events).await.expect("an event") else { panic!("it says where it begins") };
    let call = CallOptions::new().with_author("alice@laptop").with_reason("a better text");
    fixture.other.with_call(call).apply("rides", entity("driver", "after")).await.expect("an apply");
    let told = commit(&mut events).await;
    assert!(told.revision > begin && !told.has_more);
    assert_eq!((told.author.as_deref(), told.reason.as_deref()), (Some("alice@laptop"), Some("a better text")));
    assert_eq!(entities(&told), ["driver"]);
    let change = told.changes.iter().find(|change| matches!(change.target, Some(Target::Object(_)))).expect("a change");
    let description = |image: &Option<feast_registry_server::proto::history::Image>| {
        let Some(State::Value(bytes)) = image.as_ref().and_then(|image| image.state.clone()) else {
            panic!("{image:?}")
        };
        Entity::decode(bytes).expect("an entity").spec.expect("a spec").description
    };
    assert_eq!((description(&change.before), description(&change.after)), ("before".to_owned(), "after".to_owned()));
    // A deletion has nothing after it.
    fixture.other.delete(CoreKind::Entity, "rides", "driver").await.expect("a deletion");
    let told = commit(&mut events).await;
    let change = told.changes.iter().find(|change| matches!(change.target, Some(Target::Object(_)))).expect("a change");
    assert!(
        matches!(change.after.as_ref().and_then(|image| image.state.as_ref()), Some(State::Absent(_))),
        "{change:?}"
    );
}

#[tokio::test]
async fn who_is_cut_off_goes_on_where_it_was_without_loss_or_repetition() {
    const COMMITS: usize = 60;
    let fixture = Fixture::start().await;
    let mut client = fixture.client().await;
    let mut events = watch(&mut client, None, Filter::default()).await.expect("a stream");
    let writer = fixture.other.clone();
    let writing = tokio::spawn(async move {
        for number in 0..COMMITS {
            writer.apply("rides", entity(&format!("e{number}"), "")).await.expect("an apply");
        }
    });
    let (mut seen, mut last, mut told) = (Vec::new(), 0, 0);
    while seen.len() < COMMITS {
        let commit = commit(&mut events).await;
        assert!(commit.revision > last, "{} after {last}", commit.revision);
        last = commit.revision;
        seen.extend(entities(&commit));
        told += 1;
        if told % 7 == 0 {
            drop(events);
            events = watch(&mut client, Some(last), Filter::default()).await.expect("a stream");
        }
    }
    writing.await.expect("it wrote");
    assert_eq!(seen, (0..COMMITS).map(|number| format!("e{number}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_watcher_that_reads_nothing_holds_up_neither_watchers_nor_calls_of_its_own_connection() {
    const COMMITS: usize = 40;
    let fixture = Fixture::start().await;
    let channel = fixture.channel().await;
    let mut client = HistoryClient::new(channel.clone());
    let mut slow = watch(&mut client, None, Filter::default()).await.expect("a stream");
    let mut quick = fixture.watch(Filter::default()).await;
    let large = "x".repeat(200_000);
    for number in 0..COMMITS {
        fixture.apply("rides", &format!("e{number}"), &large).await;
    }
    let mut seen = Vec::new();
    while seen.len() < COMMITS {
        seen.extend(entities(&commit(&mut quick).await));
    }
    let get = GetEntityRequest { project: "rides".to_owned(), name: "e1".to_owned(), allow_cache: false };
    let mut caller = RegistryServerClient::new(channel);
    timeout(SOON, caller.get_entity(get)).await.expect("in time").expect("an entity");
    // And it has missed nothing when it gets around to it.
    let mut seen = Vec::new();
    while seen.len() < COMMITS {
        seen.extend(entities(&commit(&mut slow).await));
    }
    assert_eq!(seen.first().map(String::as_str), Some("e0"));
}

#[tokio::test]
async fn a_revision_that_the_journal_does_not_have_is_out_of_range_with_what_to_do() {
    let fixture = Fixture::start().await;
    fixture.apply("rides", "driver", "").await;
    let mut client = fixture.client().await;
    let status = watch(&mut client, Some(1), Filter::default()).await.expect_err("there is none");
    assert_eq!(status.code(), Code::OutOfRange);
    assert!(status.message().contains("watch from now on"), "{status:?}");
    let status = client.get(GetRequest { revision: 1, ..GetRequest::default() }).await.expect_err("there is none");
    assert_eq!(status.code(), Code::OutOfRange);
    let status =
        client.get(GetRequest { revision: u64::MAX, ..GetRequest::default() }).await.expect_err("there is none");
    assert_eq!(status.code(), Code::InvalidArgument);
}

/// The revision after which a status says that one may go on.
fn resume_after(status: &Status) -> u64 {
    let said = status.metadata().get("x-registry-resume-after").expect("it is said").to_str().expect("text");
    assert!(status.message().contains(&format!("resume after revision {said}")), "{status:?}");
    said.parse().expect("a number")
}

#[tokio::test]
async fn a_server_that_stops_says_where_to_go_on_and_waits_for_no_watcher() {
    let fixture = Fixture::start().await;
    let mut events = fixture.watch(Filter::default()).await;
    fixture.apply("rides", "driver", "").await;
    let last = loop {
        let told = commit(&mut events).await;
        if entities(&told) == ["driver"] {
            break told.revision;
        }
    };
    let began = Instant::now();
    fixture.stop.send(()).expect("it serves");
    let status = end(&mut events).await;
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("shutting down"), "{status:?}");
    assert!(resume_after(&status) >= last);
    timeout(SOON, fixture.serving).await.expect("it ends").expect("in order");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_watch_lives_on_beyond_the_time_of_a_call_and_ends_with_its_connection_or_its_clients_deadline() {
    let mut options = ServeOptions::default();
    options.request_timeout = Duration::from_secs(1);
    options.max_connection_age = Some(Duration::from_secs(4));
    let fixture = Fixture::with(options).await;
    fixture.apply("rides", "driver", "").await;
    let mut events = fixture.watch(Filter::default()).await;
    let mut request = Request::new(WatchRequest::default());
    request.metadata_mut().insert("grpc-timeout", "2S".parse().expect("a value"));
    let mut bounded = fixture.client().await.watch(request).await.expect("a stream").into_inner();
    let status = end(&mut bounded).await;
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    let began = resume_after(&status);
    fixture.apply("rides", "rider", "").await;
    assert_eq!(entities(&commit(&mut events).await), ["rider"], "it still goes on");
    let status = end(&mut events).await;
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert!(resume_after(&status) > began);
}

#[tokio::test]
async fn filters_let_through_what_they_say() {
    let fixture = Fixture::start().await;
    fixture.apply("rides", "driver", "").await;
    let project = |name: &str| Filter { project: Some(name.to_owned()), ..Filter::default() };
    let mut of_shop = fixture.watch(project("shop")).await;
    let names = Filter { names: vec!["rider".to_owned()], ..project("rides") };
    let mut of_rider = fixture.watch(names).await;
    let views = Filter { kinds: vec![Kind::FeatureView.into()], ..Filter::default() };
    let mut of_views = fixture.watch(views).await;
    let mut of_bob = fixture.watch(Filter { author: Some("BOB".to_owned()), ..Filter::default() }).await;
    fixture.apply("rides", "driver", "other").await;
    let bob = fixture.other.with_call(CallOptions::new().with_author("bob@desk"));
    bob.apply("rides", entity("rider", "")).await.expect("an apply");
    fixture.apply("shop", "customer", "").await;
    fixture.other.apply("rides", view("stats", 1)).await.expect("an apply");
    assert_eq!(entities(&commit(&mut of_shop).await), ["customer"]);
    assert_eq!(entities(&commit(&mut of_rider).await), ["rider"]);
    assert_eq!(changed(&commit(&mut of_views).await, Kind::FeatureView), ["stats"]);
    assert_eq!(entities(&commit(&mut of_bob).await), ["rider"]);
    let odd = Filter { kinds: vec![99], ..Filter::default() };
    for odd in [odd, Filter { names: vec![String::new(); 1001], ..Filter::default() }] {
        let mut client = fixture.client().await;
        let status = watch(&mut client, None, odd.clone()).await.expect_err("no kind, or too many names");
        assert_eq!(status.code(), Code::InvalidArgument);
        let log = LogRequest { filter: Some(odd), ..LogRequest::default() };
        assert_eq!(client.log(log).await.expect_err("as with a watch").code(), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn watchers_are_so_many_and_a_place_comes_back() {
    let mut options = ServeOptions::default();
    options.max_watchers = 2;
    let fixture = Fixture::with(options).await;
    let mut client = fixture.client().await;
    let first = watch(&mut client, None, Filter::default()).await.expect("a stream");
    let _second = watch(&mut client, None, Filter::default()).await.expect("a stream");
    let status = watch(&mut client, None, Filter::default()).await.expect_err("there is no place");
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("--max-watchers"), "{status:?}");
    // Calls have other places.
    client.log(LogRequest::default()).await.expect("a log");
    drop(first);
    let began = Instant::now();
    while let Err(status) = watch(&mut client, None, Filter::default()).await {
        assert!(began.elapsed() < SOON, "{status:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn one_connection_keeps_streams_for_calls() {
    let fixture = Fixture::start().await;
    let mut client = fixture.client().await;
    let mut open = Vec::new();
    let status = loop {
        match watch(&mut client, None, Filter::default()).await {
            Ok(events) => open.push(events),
            Err(status) => break status,
        }
        assert!(open.len() < 128);
    };
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("another connection"), "{status:?}");
    client.log(LogRequest::default()).await.expect("a log");
    fixture.watch(Filter::default()).await;
}

fn view(name: &str, features: usize) -> Object {
    let feature = |number: usize| FeatureSpecV2 { name: format!("f{number}"), value_type: 3, ..Default::default() };
    let features = (0..features).map(feature).collect();
    let spec =
        FeatureViewSpec { name: name.to_owned(), features, entities: vec!["__dummy".to_owned()], ..Default::default() };
    Object::from(&FeatureView { spec: Some(spec), meta: None })
}

#[tokio::test]
async fn the_log_is_read_newest_first_page_by_page_and_an_entry_with_its_bytes() {
    let fixture = Fixture::start().await;
    for number in 0..25 {
        fixture.apply("rides", &format!("e{number}"), "").await;
    }
    let mut client = fixture.client().await;
    let filter = Some(Filter { kinds: vec![Kind::Entity.into()], ..Filter::default() });
    let (mut seen, mut before, mut newest) = (Vec::new(), None, None);
    loop {
        let request = LogRequest { filter: filter.clone(), before, page_size: 10, ..LogRequest::default() };
        let page = client.log(request).await.expect("a log").into_inner();
        assert!(page.commits.len() <= 10);
        newest = newest.or(page.commits.first().cloned());
        seen.extend(page.commits.iter().flat_map(entities));
        before = page.next_before;
        if before.is_none() {
            break;
        }
    }
    assert_eq!(seen, (0..25).rev().map(|number| format!("e{number}")).collect::<Vec<_>>());
    let newest = newest.expect("a commit");
    let after = |commit: &Commit| commit.changes[0].after.as_ref().and_then(|image| image.state.clone());
    assert!(matches!(after(&newest), Some(State::Omitted(_))), "a log has no bytes");
    let get = GetRequest { revision: newest.revision, ..GetRequest::default() };
    let whole = client.get(get).await.expect("a commit").into_inner().commit.expect("a commit");
    assert_eq!(whole.id, newest.id);
    let time = newest.time;
    let count = async |since, until| {
        let request = LogRequest { filter: filter.clone(), since, until, ..LogRequest::default() };
        fixture.client().await.log(request).await.expect("a log").into_inner().commits.len()
    };
    assert_eq!((count(time, None).await, count(None, time).await), (1, 25));
}

#[tokio::test]
async fn a_large_commit_comes_in_pieces_that_any_client_takes() {
    const VIEWS: usize = 40;
    let fixture = Fixture::start().await;
    let large = "x".repeat(200_000);
    let mut events = fixture.watch(Filter::default()).await;
    for number in 0..VIEWS {
        fixture.apply("rides", &format!("e{number}"), &large).await;
        while entities(&commit(&mut events).await).is_empty() {}
    }
    fixture.other.delete(CoreKind::Project, "rides", "rides").await.expect("a deletion");
    let (mut seen, mut pieces) = (Vec::new(), Vec::new());
    loop {
        let piece = commit(&mut events).await;
        assert!(piece.encoded_len() < 4 * 1024 * 1024);
        seen.extend(entities(&piece));
        let has_more = piece.has_more;
        pieces.push(piece);
        if !has_more {
            break;
        }
    }
    seen.sort_unstable();
    seen.dedup();
    assert!(seen.len() == VIEWS && pieces.len() > 4, "{} in {}", seen.len(), pieces.len());
    assert!(pieces.iter().all(|piece| piece.revision == pieces[0].revision));
    // The same, asked for.
    let (mut client, mut changes) = (fixture.client().await, Vec::new());
    loop {
        let get =
            GetRequest { revision: pieces[0].revision, skip_changes: changes.len() as u64, ..GetRequest::default() };
        let piece = client.get(get).await.expect("a commit").into_inner().commit.expect("a commit");
        changes.extend(piece.changes);
        if !piece.has_more {
            break;
        }
    }
    assert_eq!(changes, pieces.into_iter().flat_map(|piece| piece.changes).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_change_of_something_large_is_one_that_any_client_takes_and_one_that_takes_more_is_told_all() {
    const LARGE: usize = 2_200_000;
    let fixture = Fixture::start().await;
    fixture.apply("rides", "driver", &"x".repeat(LARGE)).await;
    let filter = || Filter { kinds: vec![Kind::Entity.into()], ..Filter::default() };
    let mut events = fixture.watch(filter()).await;
    let Ok(Event::Bookmark(first)) = next(&mut events).await else { panic!("it says where it begins") };
    fixture.apply("rides", "driver", &"y".repeat(LARGE)).await;
    let told = |changes: &[Change]| {
        let [Change { before: Some(before), after: Some(after), .. }] = changes else { panic!("{}", changes.len()) };
        [before, after].map(|image| match &image.state {
            Some(State::Value(bytes)) => bytes.len() > LARGE,
            Some(State::Omitted(omitted)) if omitted.why() == Why::TooLarge => false,
            state => panic!("{state:?}"),
        })
    };
    let changed = commit(&mut events).await;
    assert_eq!(told(&changed.changes), [false; 2]);
    fixture.apply("rides", "rider", "").await;
    assert_eq!(entities(&commit(&mut events).await), ["rider"], "it goes on");
    let mut client = fixture.client().await.max_decoding_message_size(16 << 20);
    let get = GetRequest { revision: changed.revision, ..GetRequest::default() };
    let diff = DiffRequest { after: Some(first), until: Some(changed.revision), ..DiffRequest::default() };
    let diff = DiffRequest { filter: Some(filter()), ..diff };
    for (max_image_bytes, are_told) in [(None, false), (Some(0), false), (Some(4 << 20), true)] {
        let get = client.get(GetRequest { max_image_bytes, ..get }).await.expect("a commit").into_inner();
        let mut changes = get.commit.expect("a commit").changes;
        changes.retain(|change| matches!(change.target, Some(Target::Object(_))));
        assert_eq!(told(&changes), [are_told; 2]);
        let request = DiffRequest { max_image_bytes, ..diff.clone() };
        let changes = client.diff(request).await.expect("a diff").into_inner().changes;
        assert_eq!(told(&changes), [are_told; 2]);
        let request = WatchRequest { after: Some(first), filter: Some(filter()), max_image_bytes };
        let mut events = client.watch(request).await.expect("a stream").into_inner();
        assert_eq!(told(&commit(&mut events).await.changes), [are_told; 2]);
    }
}

#[tokio::test]
async fn what_an_undo_changes_is_told_as_far_as_any_client_takes_it() {
    const OBJECTS: usize = 600;
    let fixture = Fixture::start().await;
    let long = "x".repeat(8000);
    for number in 0..OBJECTS {
        fixture.apply("rides", &format!("{number}{long}"), "").await;
    }
    fixture.other.delete(CoreKind::Project, "rides", "rides").await.expect("a deletion");
    let mut client = fixture.client().await;
    let log = client.log(LogRequest { page_size: 1, ..LogRequest::default() }).await.expect("a log").into_inner();
    let revision = log.commits[0].revision;
    for dry_run in [true, false] {
        let options = Some(UndoOptions { dry_run, ..UndoOptions::default() });
        let undone = client.revert(RevertRequest { revision, options }).await.expect("an answer").into_inner();
        assert!(undone.encoded_len() <= 2 << 20 && undone.encoded_len() > 1 << 20, "{}", undone.encoded_len());
        assert!(undone.changes.len() as u64 + undone.more_changes >= OBJECTS as u64 && undone.more_changes > 0);
        assert_eq!(undone.committed.is_some(), !dry_run);
    }
}

#[tokio::test]
async fn the_versions_of_a_view_are_listed() {
    let fixture = Fixture::start().await;
    for features in 1..=3 {
        fixture.other.apply("rides", view("stats", features)).await.expect("an apply");
    }
    let request = ListVersionsRequest { project: "rides".to_owned(), view: "stats".to_owned() };
    let versions = fixture.client().await.list_versions(request).await.expect("versions").into_inner().versions;
    let stored = fixture.other.list_versions("rides", "stats").await.expect("versions");
    assert!(stored.len() > 1);
    let told: Vec<_> = versions.iter().map(|version| (version.number, version.version_id.clone())).collect();
    assert_eq!(told, stored.iter().map(|version| (version.number, version.version_id.clone())).collect::<Vec<_>>());
    assert!(versions.iter().zip(&stored).all(|(told, stored)| told.view == stored.view.bytes));
    assert!(versions.iter().all(|version| version.kind() == Kind::FeatureView));
}

/// Whoever wants to know who changed something looks into the journal, which many may read.
#[tokio::test]
async fn the_journal_has_who_called_and_why_and_no_secret() {
    const SECRET: &str = "Bearer s3cr3t";
    let fixture = Fixture::start().await;
    let endpoint = Endpoint::from_shared(fixture.address.clone()).expect("a URL");
    let endpoint = endpoint.user_agent("feast-sdk/0.67").expect("a user agent");
    let mut client = RegistryServerClient::new(endpoint.connect().await.expect("a connection"));
    let spec = EntitySpecV2 { name: "driver".to_owned(), ..Default::default() };
    let entity = Encoded::new(&Entity { spec: Some(spec), meta: None });
    let request = ApplyEntityRequest { project: "rides".to_owned(), entity: Some(entity), commit: true };
    let mut request = Request::new(request);
    for (name, value) in [
        ("x-registry-reason", "r".repeat(5000).as_str()),
        ("authorization", SECRET),
        ("x-forwarded-for", "203.0.113.7"),
        ("cookie", SECRET),
    ] {
        request.metadata_mut().insert(name, value.parse().expect("a value"));
    }
    client.apply_entity(request).await.expect("an apply");
    let log = fixture.client().await.log(LogRequest::default()).await.expect("a log").into_inner();
    let author = log.commits[0].author.as_deref().expect("an author");
    assert!(author.starts_with("127.0.0.1 feast-sdk/0.67"), "{author}");
    assert_eq!(log.commits[0].reason.as_ref().map(|reason| reason.chars().count()), Some(1024));
    let everything = format!("{log:?}");
    assert!(!everything.contains("s3cr3t") && !everything.contains("203.0.113.7"), "{everything}");
}

#[tokio::test]
async fn two_revisions_are_compared_and_what_one_did_is_taken_back() {
    let fixture = Fixture::start().await;
    fixture.apply("rides", "driver", "first").await;
    let mut client = fixture.client().await;
    let newest = async || {
        let log = fixture.client().await.log(LogRequest { page_size: 1, ..LogRequest::default() }).await;
        log.expect("a log").into_inner().commits[0].revision
    };
    let first = newest().await;
    fixture.apply("rides", "driver", "second").await;
    let second = newest().await;
    fixture.apply("rides", "rider", "").await;
    fixture.other.delete(CoreKind::Entity, "rides", "rider").await.expect("a deletion");
    let filter = Filter { kinds: vec![Kind::Entity.into()], ..Filter::default() };
    let request = DiffRequest { after: Some(first), filter: Some(filter), ..DiffRequest::default() };
    let diff = client.diff(request.clone()).await.expect("a diff").into_inner();
    assert_eq!((diff.changes.len(), diff.has_more), (1, false), "what came and went is not told: {diff:?}");
    assert_eq!(diff.until, Some(newest().await), "it says how far it reaches");
    let rest = DiffRequest { skip_changes: 1, until: diff.until, ..request };
    let rest = client.diff(rest).await.expect("a diff").into_inner();
    assert!(rest.changes.is_empty() && rest.until == diff.until);
    let request = DiffRequest { after: Some(u64::MAX), ..DiffRequest::default() };
    let status = client.diff(request).await.expect_err("there is none");
    assert!(status.message().contains(&format!("has no revision {}", u64::MAX)), "{status:?}");

    let options = |dry_run| Some(UndoOptions { dry_run, ..UndoOptions::default() });
    let description = async || {
        let entity =
            fixture.other.get(CoreKind::Entity, "rides", "driver", Freshness::Stored).await.expect("an entity");
        Entity::decode(entity.bytes).expect("an entity").spec.expect("a spec").description
    };
    let shown = client.revert(RevertRequest { revision: second, options: options(true) }).await.expect("a plan");
    assert!(shown.get_ref().committed.is_none() && !shown.get_ref().changes.is_empty(), "{shown:?}");
    assert_eq!(description().await, "second", "it was only shown");
    let mut request = Request::new(RevertRequest { revision: second, options: options(false) });
    request.metadata_mut().insert("x-registry-reason", "it was better".parse().expect("a value"));
    let done = client.revert(request).await.expect("it is done").into_inner();
    assert_eq!(description().await, "first");
    let log = client.log(LogRequest { page_size: 1, ..LogRequest::default() }).await.expect("a log").into_inner();
    assert_eq!(Some(log.commits[0].revision), done.committed);
    assert_eq!(log.commits[0].reason.as_deref(), Some("it was better"));
    assert!(log.commits[0].author.as_deref().is_some_and(|author| author.starts_with("127.0.0.1 ")), "{log:?}");

    // What others have changed since is named, and nothing is done.
    fixture.apply("rides", "driver", "third").await;
    let status = client.revert(RevertRequest { revision: first, options: None }).await.expect_err("it has changed");
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("driver"), "{status:?}");

    fixture.other.delete(CoreKind::Project, "rides", "rides").await.expect("a deletion");
    let target = Restored::WholeProject(ProjectTarget { project: "rides".to_owned() });
    let request = RestoreRequest { target: Some(target), as_of: Some(AsOf::Revision(second)), options: None };
    client.restore(request.clone()).await.expect("it comes back");
    assert_eq!(description().await, "second");
    for request in [RestoreRequest { target: None, ..request.clone() }, RestoreRequest { as_of: None, ..request }] {
        let status = client.restore(request).await.expect_err("it does not say what");
        assert_eq!(status.code(), Code::InvalidArgument);
    }
}
