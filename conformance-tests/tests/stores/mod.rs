//! Object stores for tests, in this process: an HTTP server that counts, and loses answers when told to.

#![allow(dead_code, reason = "each test program uses a part of it")]

pub(crate) mod azure;
pub(crate) mod gcs;
pub(crate) mod s3;

#[path = "../databases/proxy.rs"]
mod proxy;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use feast_registry_conformance::{Exception, Factory, Link, Storage};
use feast_registry_core::config::{ObjectStoreConfig, RegistryUrl, SchemaMode};
use feast_registry_core::{Backend, Result};
use feast_registry_file::FileBackend;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use proxy::Proxy;

type Answer = Pin<Box<dyn Future<Output = Response<Bytes>> + Send>>;
type Handler = Arc<dyn Fn(Request<Bytes>) -> Answer + Send + Sync>;

/// What was asked of a store, and what it is to do wrong.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Writes that were done.
    pub(crate) writes: AtomicUsize,
    /// Writes that were refused because the object was not in the expected state.
    pub(crate) conflicts: AtomicUsize,
    /// Reads that were answered with the object.
    pub(crate) reads: AtomicUsize,
    /// Reads of an object that had not changed.
    pub(crate) unchanged: AtomicUsize,
    /// How many writes are still to be done, and then answered as if the server had failed.
    pub(crate) lose: AtomicUsize,
    /// Whether these are not answered yet, and how many of them wait for that.
    pub(crate) hold: AtomicBool,
    pub(crate) held: AtomicUsize,
    /// How many writes are still to be refused, without being done, and with which status.
    pub(crate) refuse: Mutex<(usize, StatusCode)>,
    /// Whether deletions are refused, as for lack of rights.
    pub(crate) refuses_deletions: AtomicBool,
    /// Of objects whose path contains this (nothing: of none), reads are refused, as for lack of rights.
    pub(crate) hidden: Mutex<String>,
    /// The headers of the last write, and the path that it was sent to.
    pub(crate) headers: Mutex<HeaderMap>,
    pub(crate) path: Mutex<String>,
}

impl Counts {
    pub(crate) fn get(counter: &AtomicUsize) -> usize {
        counter.load(Ordering::SeqCst)
    }
}

/// A server for one kind of store. It runs on a thread of its own until the process ends.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) counts: Arc<Counts>,
}

impl Server {
    pub(crate) fn start(handler: Handler) -> Self {
        let counts = Arc::new(Counts::default());
        let (sender, receiver) = std::sync::mpsc::channel();
        let handler = counting(handler, Arc::clone(&counts));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
                sender.send(listener.local_addr().expect("an address")).expect("the test waits");
                loop {
                    let (socket, _) = listener.accept().await.expect("a connection");
                    let handler = Arc::clone(&handler);
                    tokio::spawn(async move {
                        let service = service_fn(move |request: Request<Incoming>| {
                            let handler = Arc::clone(&handler);
                            async move { Ok::<_, Infallible>(answer(&handler, request).await) }
                        });
                        // Clients go away as they like.
                        let _ = hyper::server::conn::http1::Builder::new()
                            .serve_connection(TokioIo::new(socket), service)
                            .await;
                    });
                }
            });
        });
        Self { address: receiver.recv().expect("the server starts"), counts }
    }
}

async fn answer(handler: &Handler, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (parts, body) = request.into_parts();
    let Ok(body) = body.collect().await else { return status(StatusCode::BAD_REQUEST).map(Full::new) };
    handler(Request::from_parts(parts, body.to_bytes())).await.map(Full::new)
}

pub(crate) fn status(status: StatusCode) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = status;
    response
}

fn counting(inner: Handler, counts: Arc<Counts>) -> Handler {
    Arc::new(move |request| {
        let (inner, counts) = (Arc::clone(&inner), Arc::clone(&counts));
        Box::pin(async move {
            let add = |counter: &AtomicUsize| {
                counter.fetch_add(1, Ordering::SeqCst);
            };
            let method = request.method().clone();
            let known = request.headers().get(header::IF_NONE_MATCH).filter(|_| method == Method::GET).cloned();
            // S3 has a request for many, too, which its client also sends for one.
            let is_deletion = method == Method::DELETE
                || method == Method::POST && request.uri().query().is_some_and(|query| query.starts_with("delete"));
            if is_deletion && counts.refuses_deletions.load(Ordering::SeqCst) {
                return self::status(StatusCode::FORBIDDEN);
            }
            let hidden = counts.hidden.lock().expect("no handler panics").clone();
            if method == Method::GET && !hidden.is_empty() && request.uri().path().contains(&hidden) {
                return self::status(StatusCode::FORBIDDEN);
            }
            if method == Method::PUT {
                *counts.path.lock().expect("no handler panics") = request.uri().path().to_owned();
                *counts.headers.lock().expect("no handler panics") = request.headers().clone();
                let (left, status) = &mut *counts.refuse.lock().expect("no handler panics");
                if *left > 0 {
                    *left -= 1;
                    return self::status(*status);
                }
            }
            let response = inner(request).await;
            match (&method, response.status()) {
                (&Method::PUT, status) if status.is_success() => {
                    add(&counts.writes);
                    let lost = counts.lose.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
                    if lost.is_ok() {
                        while counts.hold.load(Ordering::SeqCst) {
                            counts.held.fetch_max(1, Ordering::SeqCst);
                            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                        }
                        return self::status(StatusCode::SERVICE_UNAVAILABLE);
                    }
                }
                (&Method::PUT, StatusCode::PRECONDITION_FAILED | StatusCode::CONFLICT) => add(&counts.conflicts),
                (&Method::GET, status) if status.is_success() => {
                    // Not every server of tests does this by itself.
                    if known.is_some() && known.as_ref() == response.headers().get(header::ETAG) {
                        add(&counts.unchanged);
                        return self::status(StatusCode::NOT_MODIFIED);
                    }
                    add(&counts.reads);
                }
                _ => {}
            }
            response
        })
    })
}

/// One object in a store: the storage of one test.
pub(crate) struct Object {
    pub(crate) url: String,
    pub(crate) settings: Vec<(String, String)>,
    /// The server, whose address is in the settings.
    pub(crate) server: SocketAddr,
}

impl Object {
    pub(crate) fn backend(&self, mode: SchemaMode) -> Result<FileBackend> {
        open_as(&self.url, ObjectStoreConfig::new(self.settings.clone()), mode)
    }
}

/// Opens the registry at a URL.
pub(crate) fn open_as(url: &str, config: ObjectStoreConfig, mode: SchemaMode) -> Result<FileBackend> {
    FileBackend::in_object_store(&url.parse::<RegistryUrl>()?, &config, mode)
}

#[async_trait]
impl Storage for Object {
    async fn open(&self, mode: SchemaMode) -> Result<Arc<dyn Backend>> {
        Ok(Arc::new(self.backend(mode)?))
    }

    async fn open_with_link(&self, mode: SchemaMode) -> Result<Option<(Arc<dyn Backend>, Arc<dyn Link>)>> {
        let proxy = Proxy::start(self.server).await;
        let through = format!("127.0.0.1:{}", proxy.port);
        let settings = self.settings.iter();
        let settings =
            settings.map(|(name, value)| (name.clone(), value.replace(&self.server.to_string(), &through))).collect();
        let config = ObjectStoreConfig::new(settings);
        Ok(Some((Arc::new(open_as(&self.url, config, mode)?), Arc::new(proxy))))
    }

    /// The URL, and the settings of the store: lines of a name, `=` and a value.
    fn address(&self) -> Option<String> {
        let settings = self.settings.iter().map(|(name, value)| format!("\n{name}={value}"));
        Some(self.url.clone() + &settings.collect::<String>())
    }

    async fn remove(&self) {}
}

/// Storages that are objects of one store.
pub(crate) struct Objects<F>(pub(crate) F);

#[async_trait]
impl<F: Fn() -> Object + Send + Sync + 'static> Factory for Objects<F> {
    async fn create(&self) -> Arc<dyn Storage> {
        Arc::new((self.0)())
    }

    fn exceptions(&self) -> Vec<Exception> {
        Vec::new()
    }

    async fn open_at(&self, address: &str) -> Result<Arc<dyn Backend>> {
        let (url, settings) = address.split_once('\n').unwrap_or((address, ""));
        let settings = settings.lines().filter_map(|line| line.split_once('='));
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Ok(Arc::new(open_as(url, ObjectStoreConfig::new(settings), SchemaMode::Auto)?))
    }
}

/// A number that no other test of this process has.
pub(crate) fn number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    NEXT.fetch_add(1, Ordering::SeqCst)
}
