//! What a registry in an object store promises beyond the suite: what it costs, what becomes of a write whose answer is lost,
//! and which stores it refuses.

mod log;
mod stores;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use feast_registry_core::config::{ObjectStoreConfig, SchemaMode};
use feast_registry_core::proto::core::{
    Entity, EntitySpecV2, FeatureView, FeatureViewSpec, OnDemandFeatureView, OnDemandFeatureViewSpec,
    Registry as RegistryMessage,
};
use feast_registry_core::{
    ApplyOptions, Backend as _, CallOptions, Deadline, ErrorKind, Freshness, Kind, ListFilter,
    Object as RegistryObject, Registry, RegistryOptions,
};
use feast_registry_file::FileBackend;
use http::StatusCode;
use prost::Message as _;
use prost_types::Timestamp;
use tokio::net::TcpListener;

use crate::log::Log;
use crate::stores::s3::{Conditions, S3};
use crate::stores::{Counts, Object, Server, gcs, open_as};

fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(test)
}

fn patience() -> Deadline {
    Deadline::after(std::time::Duration::from_secs(60))
}

fn entity(name: &str) -> Entity {
    let spec = EntitySpecV2 { name: name.to_owned(), join_key: name.to_owned(), ..Default::default() };
    Entity { spec: Some(spec), meta: None }
}

fn view(name: &str) -> FeatureView {
    let spec = FeatureViewSpec { name: name.to_owned(), entities: vec!["driver".to_owned()], ..Default::default() };
    FeatureView { spec: Some(spec), meta: None }
}

/// A backend and a registry on it.
async fn open(object: &Object) -> (Arc<FileBackend>, Registry) {
    let backend = Arc::new(object.backend(SchemaMode::Auto).expect("a backend"));
    let registry = Registry::open(Arc::clone(&backend) as Arc<_>, RegistryOptions::default()).await;
    (backend, registry.expect("a registry"))
}

async fn names(registry: &Registry, kind: Kind) -> BTreeSet<String> {
    let objects = registry.list(kind, Some("p"), &ListFilter::default(), Freshness::Stored).await.expect("a list");
    objects.iter().map(|object| object.name().expect("a name")).collect()
}

/// A server of each kind and an object on it.
fn each() -> [(Server, Object, Option<S3>); 2] {
    let s3 = S3::start(Conditions::Atomic);
    let (object, gcs) = (s3.object(), gcs::start());
    let on_gcs = gcs::object(&gcs);
    [(s3.server.clone(), object, Some(s3)), (gcs, on_gcs, None)]
}

#[test]
fn an_apply_of_many_is_one_write_and_what_is_unchanged_is_not_read() {
    for (server, object, _s3) in each() {
        run(async {
            let (_, registry) = open(&object).await;
            let (writes, reads) = (Counts::get(&server.counts.writes), Counts::get(&server.counts.reads));
            let objects = (0..200).map(|number| RegistryObject::encode(&view(&number.to_string()))).collect();
            registry.apply_all("p", objects, ApplyOptions::default()).await.expect("an apply");
            assert_eq!(Counts::get(&server.counts.writes) - writes, 1, "{}: 200 objects are one write", object.url);
            for _ in 0..20 {
                assert_eq!(names(&registry, Kind::FeatureView).await.len(), 200);
            }
            assert_eq!(Counts::get(&server.counts.reads), reads, "{}: nothing had changed", object.url);
            assert!(Counts::get(&server.counts.unchanged) >= 20, "{}: and each read asked", object.url);
        });
    }
}

/// What `feast apply` does through the server: one object after the other, then a commit.
#[test]
fn applies_that_wait_for_a_commit_are_a_handful_of_writes() {
    for (server, object, _s3) in each() {
        run(async {
            let options = || {
                let mut options = RegistryOptions::default();
                options.defers = true;
                options
            };
            let open = async || {
                Registry::open(Arc::new(object.backend(SchemaMode::Auto).expect("a backend")), options()).await
            };
            let registry = open().await.expect("a registry");
            let before = Counts::get(&server.counts.writes);
            for number in 0..200 {
                registry.apply_later("p", &view(&number.to_string())).await.expect("an apply");
            }
            registry.commit().await.expect("a commit");
            let writes = Counts::get(&server.counts.writes) - before;
            assert!(writes <= 5, "{}: 200 applies and a commit took {writes} writes", object.url);
            let other = open().await.expect("a registry");
            assert_eq!(
                names(&other, Kind::FeatureView).await.len(),
                200,
                "{}: what is committed is durable",
                object.url
            );

            // What waits is seen, by name, in lists and from the cache; and what the rules refuse is refused at once.
            registry.apply_later("p", &entity("driver")).await.expect("an apply");
            assert_eq!(names(&registry, Kind::Entity).await, ["driver".to_owned()].into(), "{}", object.url);
            registry.apply_later("p", &entity("rider")).await.expect("an apply");
            let cached = registry.get(Kind::Entity, "p", "rider", Freshness::Cached).await;
            assert_eq!(cached.expect("it is there").name().expect("a name"), "rider");
            let spec = OnDemandFeatureViewSpec { name: "7".to_owned(), ..Default::default() };
            let taken = OnDemandFeatureView { spec: Some(spec), meta: None };
            let error = registry.apply_later("p", &taken).await.expect_err("another view has the name");
            assert_eq!(error.kind(), ErrorKind::ConflictingFeatureViewNames);
            registry.commit().await.expect("nothing that was accepted has failed");

            // Without a commit it is written after a moment.
            registry.apply_later("p", &entity("late")).await.expect("an apply");
            let began = std::time::Instant::now();
            while !names(&other, Kind::Entity).await.contains("late") {
                assert!(began.elapsed().as_secs() < 30, "{}: it was never written", object.url);
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        });
    }
}

#[test]
fn writers_who_wait_share_a_write() {
    for (server, object, _s3) in each() {
        run(async {
            let (_, registry) = open(&object).await;
            let before = Counts::get(&server.counts.writes);
            let apply = |number: usize| {
                let registry = registry.clone();
                tokio::spawn(async move { registry.apply("p", &entity(&number.to_string())).await })
            };
            for task in (0..64).map(apply).collect::<Vec<_>>() {
                task.await.expect("a task").expect("an apply");
            }
            let writes = Counts::get(&server.counts.writes) - before;
            assert_eq!(names(&registry, Kind::Entity).await.len(), 64);
            assert!(writes <= 16, "{}: 64 applies at once took {writes} writes", object.url);
        });
    }
}

#[test]
fn processes_conflict_and_lose_nothing() {
    for (server, object, _s3) in each() {
        run(async {
            let mut backends = Vec::new();
            let mut tasks = Vec::new();
            for process in 0..4 {
                let (backend, registry) = open(&object).await;
                backends.push(backend);
                tasks.push(tokio::spawn(async move {
                    for number in 0..15 {
                        registry.apply("p", &entity(&format!("{process} {number}"))).await.expect("an apply");
                    }
                }));
            }
            for task in tasks {
                task.await.expect("a writer");
            }
            assert_eq!(names(&open(&object).await.1, Kind::Entity).await.len(), 60, "{}", object.url);
            let conflicts: u64 = backends.iter().map(|backend| backend.statistics().conflicts).sum();
            assert!(conflicts > 0, "{}: four writers at once must meet", object.url);
            let refused = Counts::get(&server.counts.conflicts) as u64;
            assert!(refused >= conflicts, "{}: {conflicts} conflicts, of which the store knows {refused}", object.url);
        });
    }
}

/// An interval is what would be recorded twice if a write were repeated that had been done.
#[test]
fn a_write_whose_answer_is_lost_is_not_repeated() {
    let second = |seconds| Some(Timestamp { seconds, nanos: 0 });
    for (server, object, _s3) in each() {
        run(async {
            let (backend, registry) = open(&object).await;
            registry.apply("p", &view("view")).await.expect("an apply");
            for number in 1..=5 {
                server.counts.lose.store(1, Ordering::SeqCst);
                let (start, end) = (second(number * 10), second(number * 10 + 10));
                registry.apply_materialization("p", "view", start, end).await.expect("it was written");
                assert_eq!(Counts::get(&server.counts.lose), 0, "{}: an answer was lost", object.url);
            }
            assert_eq!(backend.statistics().recovered, 5, "{}: each was found to be done", object.url);
            let stored: FeatureView =
                open(&object).await.1.get_message("p", "view", Freshness::Stored).await.expect("a view");
            let intervals = stored.meta.expect("its meta").materialization_intervals;
            assert_eq!(intervals.len(), 5, "{}: each interval is there once", object.url);
        });
    }
}

/// What was certainly not written is said to be so, and at once; what a store has no time for is tried again.
#[test]
fn a_write_that_the_store_refuses_is_not_in_doubt() {
    for (server, object, _s3) in each() {
        run(async {
            let (backend, registry) = open(&object).await;
            registry.apply("p", &entity("first")).await.expect("an apply");
            let refuse = |count, status| *server.counts.refuse.lock().expect("no handler panics") = (count, status);

            refuse(usize::MAX, StatusCode::BAD_REQUEST);
            let began = Instant::now();
            let error = registry.apply("p", &entity("bad")).await.expect_err("it is refused");
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{}: {error}", object.url);
            assert!(began.elapsed() < Duration::from_secs(4), "{}: {:?}", object.url, began.elapsed());

            refuse(2, StatusCode::TOO_MANY_REQUESTS);
            registry.apply("p", &entity("second")).await.expect("it is tried again");

            refuse(usize::MAX, StatusCode::TOO_MANY_REQUESTS);
            let hurried = registry.with_call(CallOptions::new().with_timeout(Duration::from_secs(1)));
            let error = hurried.apply("p", &entity("late")).await.expect_err("it is refused");
            assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{}: {error}", object.url);
            let refused = usize::MAX - server.counts.refuse.lock().expect("no handler panics").0;
            assert!(refused < 12, "{}: it was asked {refused} times in a second", object.url);

            refuse(0, StatusCode::OK);
            let expected = ["first", "second"].map(str::to_owned).into();
            assert_eq!(names(&registry, Kind::Entity).await, expected, "{}", object.url);
            assert_eq!(backend.statistics().recovered, 0, "{}: nothing was in doubt", object.url);
        });
    }
}

/// The same of a store that nothing listens for.
#[test]
fn a_write_that_finds_no_store_is_not_in_doubt() {
    for (server, object, _s3) in each() {
        run(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let through = listener.local_addr().expect("an address").to_string();
            let address = server.address;
            let way = tokio::spawn(async move {
                let mut connections = tokio::task::JoinSet::new();
                while let Ok((mut client, _)) = listener.accept().await {
                    let mut server = tokio::net::TcpStream::connect(address).await.expect("the store");
                    connections.spawn(async move { tokio::io::copy_bidirectional(&mut client, &mut server).await });
                }
            });
            let settings = object.settings.iter();
            let settings =
                settings.map(|(name, value)| (name.clone(), value.replace(&address.to_string(), &through))).collect();
            let object = Object { url: object.url, settings, server: address };
            let (_, registry) = open(&object).await;
            registry.apply("p", &entity("first")).await.expect("an apply");
            way.abort();
            while tokio::net::TcpStream::connect(&through).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let error = registry.apply("p", &entity("second")).await.expect_err("there is no store");
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{}: {error}", object.url);
        });
    }
}

/// As above, while others write more than any list of the last writes would hold: the interval is still there once, and a
/// deletion that was done is not said to find nothing.
#[test]
fn a_write_whose_answer_is_lost_is_not_repeated_however_many_others_wrote_since() {
    let second = |seconds| Some(Timestamp { seconds, nanos: 0 });
    for (server, object, _s3) in each() {
        run(async {
            let (backend, registry) = open(&object).await;
            let (_, other) = open(&object).await;
            registry.apply("p", &view("view")).await.expect("an apply");
            registry.apply("p", &entity("gone")).await.expect("an apply");
            let others_write = async |round: &str| {
                while Counts::get(&server.counts.held) == 0 {
                    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                }
                for number in 0..24 {
                    other.apply("p", &entity(&format!("{round} {number}"))).await.expect("an apply");
                }
                server.counts.hold.store(false, Ordering::SeqCst);
            };
            let lose_an_answer = || {
                server.counts.held.store(0, Ordering::SeqCst);
                server.counts.hold.store(true, Ordering::SeqCst);
                server.counts.lose.store(1, Ordering::SeqCst);
            };
            lose_an_answer();
            let (recorded, ()) = tokio::join!(
                registry.apply_materialization("p", "view", second(10), second(20)),
                others_write("first")
            );
            recorded.expect("it was written");
            lose_an_answer();
            let (deleted, ()) = tokio::join!(registry.delete(Kind::Entity, "p", "gone"), others_write("second"));
            deleted.expect("it was written");
            assert_eq!(backend.statistics().recovered, 2, "{}: both were found to be done", object.url);
            let stored: FeatureView =
                open(&object).await.1.get_message("p", "view", Freshness::Stored).await.expect("a view");
            assert_eq!(stored.meta.expect("its meta").materialization_intervals.len(), 1, "{}", object.url);
        });
    }
}

#[test]
fn a_store_that_ignores_conditions_is_refused_unless_that_is_allowed() {
    let s3 = S3::start(Conditions::Ignored);
    let object = s3.object();
    run(async {
        let backend = object.backend(SchemaMode::Auto).expect("a backend");
        let error = backend.prepare(&patience()).await.expect_err("it does not do conditional writes");
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        let text = error.to_string();
        assert!(text.contains("If-None-Match") && text.contains("allow_unconditional_writes"), "{text}");
        // Nothing of a registry was made, and the probe is gone.
        let verified = object.backend(SchemaMode::Verify).expect("a backend").prepare(&patience()).await;
        assert_eq!(verified.expect_err("there is none").kind(), ErrorKind::SchemaMissing);

        let mut config = ObjectStoreConfig::new(object.settings.clone());
        config.allow_unconditional_writes = true;
        let backend = Arc::new(open_as(&object.url, config, SchemaMode::Auto).expect("a backend"));
        let registry = Registry::open(backend, RegistryOptions::default()).await.expect("it is allowed");
        registry.apply("p", &entity("driver")).await.expect("an apply");
        assert_eq!(names(&registry, Kind::Entity).await, ["driver".to_owned()].into());
        // Who only verified finds it out at the first write.
        let late = Arc::new(object.backend(SchemaMode::Verify).expect("a backend"));
        let registry = Registry::open(late, RegistryOptions::default()).await.expect("it is there");
        let error = registry.apply("p", &entity("rider")).await.expect_err("a write");
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    });
}

const PROBE: &str = "registry.db.feast-registry-probe";

/// What has the name of the probe and is none stays as it is, whether or not it may be looked at.
fn other_at_the_probes_name_stays(is_hidden: bool) {
    for conditions in [Conditions::Atomic, Conditions::Ignored] {
        let s3 = S3::start(conditions);
        let (object, other) = (s3.object(), "precious");
        s3.put(&object, PROBE, other);
        if is_hidden {
            *s3.server.counts.hidden.lock().expect("the server is well") = PROBE.to_owned();
        }
        run(async {
            let prepared = object.backend(SchemaMode::Auto).expect("a backend").prepare(&patience()).await;
            assert_eq!(prepared.is_ok(), conditions == Conditions::Atomic, "{prepared:?}");
        });
        assert!(s3.names(&object).iter().all(|name| name == PROBE || name == "registry.db"), "what was tried is gone");
        let beside = Object { url: object.url.replace("registry.db", PROBE), ..object };
        assert_eq!(s3.bytes(&beside), other.as_bytes(), "{conditions:?}");
    }
}

/// Fault: whatever had the name of the probe was written over, and deleted.
#[test]
fn what_is_not_a_probe_is_not_touched() {
    other_at_the_probes_name_stays(false);
}

/// Fault: what may not be read was taken for nothing. S3 says the same of what is not there, to who may not list the bucket.
#[test]
fn what_may_not_be_looked_at_is_not_touched() {
    other_at_the_probes_name_stays(true);
}

/// Fault: each write tried the store out anew, and left another object where nothing may be deleted.
#[test]
fn a_flaw_is_remembered_for_some_minutes() {
    let s3 = S3::start(Conditions::Ignored);
    let object = s3.object();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut config = ObjectStoreConfig::new(object.settings.clone());
        config.allow_unconditional_writes = true;
        let backend = open_as(&object.url, config, SchemaMode::Auto).expect("a backend");
        backend.prepare(&patience()).await.expect("it is allowed");
        s3.server.counts.refuses_deletions.store(true, Ordering::SeqCst);

        let backend = Arc::new(object.backend(SchemaMode::Verify).expect("a backend"));
        let registry = Registry::open(backend, RegistryOptions::default()).await.expect("it is there");
        let write = async |name: &str| registry.apply("p", &entity(name)).await.map(drop).map_err(|error| error.kind());
        let refused = Err(ErrorKind::Unsupported);
        let (first, second) = tokio::join!(write("first"), write("second"));
        assert_eq!((first, second), (refused, refused));
        let tried = Counts::get(&s3.server.counts.writes);
        assert_eq!(write("third").await, refused);
        assert_eq!(Counts::get(&s3.server.counts.writes), tried, "nothing is tried out again so soon");
        let minutes_pass = async || {
            tokio::time::pause();
            tokio::time::advance(Duration::from_secs(301)).await;
            tokio::time::resume();
        };
        minutes_pass().await;
        assert_eq!(write("fourth").await, refused);
        assert!(Counts::get(&s3.server.counts.writes) > tried, "it is tried out again");
        let names = s3.names(&object);
        assert!(names.len() == 3 && names[..2] == ["registry.db", PROBE], "one of its own, used again: {names:?}");

        s3.mend();
        minutes_pass().await;
        assert_eq!(write("fifth").await, Ok(()));
    });
}

/// Fault: what a probe had made stayed there when its caller had no more time.
#[test]
fn a_probe_whose_caller_has_left_takes_away_what_it_made() {
    let s3 = S3::start(Conditions::Atomic);
    let object = s3.object();
    let counts = &s3.server.counts;
    run(async {
        counts.hold.store(true, Ordering::SeqCst);
        counts.lose.store(1, Ordering::SeqCst);
        let backend = object.backend(SchemaMode::Auto).expect("a backend");
        let error = backend.prepare(&Deadline::after(Duration::from_millis(500))).await.expect_err("it takes longer");
        assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{error}");
        assert_eq!(s3.names(&object), [PROBE]);
        counts.hold.store(false, Ordering::SeqCst);
        let until = Instant::now() + Duration::from_secs(20);
        while !s3.names(&object).is_empty() {
            assert!(Instant::now() < until, "{:?} is still there", s3.names(&object));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        backend.prepare(&patience()).await.expect("the store does conditional writes");
        assert_eq!(s3.names(&object), ["registry.db"]);
    });
}

/// Fault: those who met on the probe each left an object of their own.
#[test]
fn servers_that_start_at_once_where_nothing_may_be_deleted_share_a_probe() {
    let s3 = S3::start(Conditions::Atomic);
    s3.server.counts.refuses_deletions.store(true, Ordering::SeqCst);
    let object = s3.object();
    run(async {
        let starts = (0..6).map(|_| {
            let backend = object.backend(SchemaMode::Auto).expect("a backend");
            tokio::spawn(async move { backend.prepare(&patience()).await })
        });
        for start in starts.collect::<Vec<_>>() {
            start.await.expect("no panic").expect("the store does conditional writes");
        }
        assert_eq!(s3.names(&object), ["registry.db", PROBE]);
    });
}

/// Fault: each start made another object, which stayed where it could not be deleted, and nobody was told.
#[test]
fn a_probe_that_cannot_be_deleted_is_told_and_used_again() {
    let s3 = S3::start(Conditions::Atomic);
    let object = s3.object();
    s3.server.counts.refuses_deletions.store(true, Ordering::SeqCst);
    run(async {
        for start in 1..=3 {
            let log = Log::default();
            let _guard = log.catch();
            let backend = object.backend(SchemaMode::Auto).expect("a backend");
            backend.prepare(&patience()).await.expect("the store does conditional writes");
            assert_eq!(s3.names(&object), ["registry.db", PROBE], "start {start}");
            let told = log.with("cannot be deleted");
            let says = |what: &str| told.len() == 1 && told[0].contains(what);
            assert!(says("s3:DeleteObject") && says("used again"), "start {start}: {told:?}");
        }
        s3.server.counts.refuses_deletions.store(false, Ordering::SeqCst);
        object.backend(SchemaMode::Auto).expect("a backend").prepare(&patience()).await.expect("a registry");
        assert_eq!(s3.names(&object), ["registry.db"]);
    });
    // What was left there hides nothing.
    let s3 = S3::start(Conditions::Ignored);
    s3.server.counts.refuses_deletions.store(true, Ordering::SeqCst);
    let object = s3.object();
    run(async {
        for _ in 0..2 {
            let log = Log::default();
            let _guard = log.catch();
            let refused = object.backend(SchemaMode::Auto).expect("a backend").prepare(&patience()).await;
            assert_eq!(refused.expect_err("conditions are ignored").kind(), ErrorKind::Unsupported);
            let told = log.with("No other process uses it again: delete it");
            assert!(told.len() == 1 && told[0].contains(&format!("{PROBE}-")), "{told:?}");
        }
    });
}

/// They write and delete the same probe; none of them takes what another one does for a flaw of the store.
#[test]
fn servers_that_start_at_once_do_not_take_each_other_for_a_flaw() {
    let s3 = S3::start(Conditions::Atomic);
    run(async {
        for _ in 0..10 {
            let object = s3.object();
            let starts = (0..12).map(|_| {
                let backend = object.backend(SchemaMode::Auto).expect("a backend");
                tokio::spawn(async move { backend.prepare(&patience()).await })
            });
            for start in starts.collect::<Vec<_>>() {
                start.await.expect("no panic").expect("the store does conditional writes");
            }
            assert_eq!(s3.names(&object), ["registry.db"]);
        }
    });
}

/// Fault: such keys, which Feast reads and writes as they are, were refused.
#[test]
fn a_key_with_an_empty_part_is_asked_for_as_it_is() {
    for (server, mut object, _s3) in each() {
        object.url = object.url.replace("/registry.db", "//registry.db");
        run(async {
            let (_, registry) = open(&object).await;
            registry.apply("p", &entity("driver")).await.expect("an apply");
            assert_eq!(names(&registry, Kind::Entity).await, ["driver".to_owned()].into(), "{}", object.url);
            if object.url.starts_with("s3:") {
                let path = server.counts.path.lock().expect("the server is well").clone();
                assert!(path.ends_with("//registry.db"), "{path}");
            }
        });
    }
}

/// Fault: «ETag Header missing» was all that was said about the address of a console.
#[test]
fn a_server_that_is_no_store_is_said_to_be_none() {
    for status in [StatusCode::OK, StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED] {
        let console = Server::start(Arc::new(move |_| {
            let page = "<!DOCTYPE html><html><title>Console</title></html>";
            let mut response = http::Response::new(page.as_bytes().into());
            *response.status_mut() = status;
            Box::pin(async { response })
        }));
        let mut object = S3::start(Conditions::Atomic).object();
        let address = format!("http://me:secret@{}", console.address);
        object.settings.push(("FEAST_S3_ENDPOINT_URL".to_owned(), address));
        run(async {
            for mode in [SchemaMode::Auto, SchemaMode::Verify] {
                let error = object.backend(mode).expect("a backend").prepare(&patience()).await.expect_err("no store");
                let text = error.to_string();
                // For that a page was not found is no reason to say that there is no registry.
                assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{status}: {text}");
                for part in [&console.address.to_string(), "does not answer as an object store does", "console"] {
                    assert!(text.contains(part), "{status}: {text}");
                }
                assert!(!text.contains("secret") && !text.contains("<html"), "{status}: {text}");
            }
        });
    }
}

#[test]
fn every_write_to_s3_asks_for_the_encryption_that_is_configured() {
    let s3 = S3::start(Conditions::Atomic);
    let object = s3.object();
    let with = |kwargs: &[(&str, &str)]| {
        let mut config = ObjectStoreConfig::new(object.settings.clone());
        config.s3_additional_kwargs =
            kwargs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        config
    };
    run(async {
        let config =
            with(&[("ServerSideEncryption", "aws:kms"), ("SSEKMSKeyId", "my-key"), ("CacheControl", "no-store")]);
        let backend = open_as(&object.url, config, SchemaMode::Auto).expect("a backend");
        backend.prepare(&patience()).await.expect("a registry");
        let headers = s3.server.counts.headers.lock().expect("the server is well").clone();
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        assert_eq!(header("x-amz-server-side-encryption").as_deref(), Some("aws:kms"));
        assert_eq!(header("x-amz-server-side-encryption-aws-kms-key-id").as_deref(), Some("my-key"));
        assert_eq!(header("cache-control").as_deref(), Some("no-store"));
    });
    let error = open_as(&object.url, with(&[("ACL", "public-read")]), SchemaMode::Auto)
        .expect_err("it cannot be passed on")
        .to_string();
    assert!(error.contains("`ACL`") && error.contains("ServerSideEncryption"), "{error}");
}

#[test]
fn what_is_wrong_with_a_store_is_said() {
    let s3 = S3::start(Conditions::Atomic);
    run(async {
        let mut object = s3.object();
        object.settings.push(("FEAST_S3_ENDPOINT_URL".to_owned(), "http://127.0.0.1:1".to_owned()));
        let error = object
            .backend(SchemaMode::Auto)
            .expect("a backend")
            .prepare(&patience())
            .await
            .expect_err("nobody listens");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.to_string().contains(&object.url), "{error}");
        let mut object = s3.object();
        object.settings.push(("AWS_SECRET_ACCESS_KEY".to_owned(), "wrong".to_owned()));
        let error =
            object.backend(SchemaMode::Auto).expect("a backend").prepare(&patience()).await.expect_err("a wrong key");
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
        assert!(error.to_string().contains("credentials") && !error.to_string().contains("wrong"), "{error}");
    });
    for url in ["s3://bucket", "s3:///key", "gs://bucket/", "az://container"] {
        let config = ObjectStoreConfig::new(vec![("AZURE_STORAGE_ACCOUNT_NAME".to_owned(), "account".to_owned())]);
        let opened =
            url.parse().and_then(|url| FileBackend::in_object_store(&url, &config, SchemaMode::Auto).map(drop));
        assert_eq!(opened.expect_err("it names no object").kind(), ErrorKind::InvalidConfig, "{url}");
    }
}

/// The object of a registry that was removed says so, and to Feast it is a registry with nothing in it.
#[test]
fn a_removed_registry_is_an_empty_one_to_feast() {
    let s3 = S3::start(Conditions::Atomic);
    let object = s3.object();
    run(async {
        let backend = object.backend(SchemaMode::Auto).expect("a backend");
        backend.prepare(&patience()).await.expect("a registry");
        assert!(backend.remove_if_empty(&patience()).await.expect("a removal"));
        let left = RegistryMessage::decode(&*s3.bytes(&object)).expect("a message");
        assert_eq!((left.registry_schema_version.as_str(), left.projects.len()), ("1", 0));
        let verified = object.backend(SchemaMode::Verify).expect("a backend").prepare(&patience()).await;
        assert_eq!(verified.expect_err("there is none").kind(), ErrorKind::SchemaMissing);
        let (_, registry) = open(&object).await;
        registry.apply("p", &entity("driver")).await.expect("it is made again");
        let made = RegistryMessage::decode(&*s3.bytes(&object)).expect("a message");
        assert_eq!((made.projects.len(), made.entities.len()), (1, 1));
        assert_ne!(made.version_id, left.version_id);
    });
}
