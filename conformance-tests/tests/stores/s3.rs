//! An S3 server: `s3s` with `s3s-fs`, which checks signatures and conditions, but checks and writes in two steps. A lock
//! makes them one.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use http::Method;
use http_body_util::BodyExt as _;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use tempfile::TempDir;
use tokio::sync::RwLock;

use super::{Object, Server, number, status};

const KEY: &str = "key";
const SECRET: &str = "secret";
const BUCKET: &str = "bucket";

/// A server, and the folder that its bucket is in.
pub(crate) struct S3 {
    pub(crate) server: Server,
    conditions: Conditions,
    ignores: Arc<AtomicBool>,
    folder: TempDir,
}

/// How well it does conditional writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Conditions {
    Atomic,
    /// As some stores do, and proxies before others: the headers mean nothing to it.
    Ignored,
}

impl S3 {
    pub(crate) fn start(conditions: Conditions) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the bucket");
        std::fs::create_dir(folder.path().join(BUCKET)).expect("a bucket");
        let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(folder.path()).expect("a file system"));
        // Headers that are to be ignored are signed, so what is signed cannot be had without them.
        if conditions == Conditions::Atomic {
            builder.set_auth(SimpleAuth::from_single(KEY, SECRET));
        }
        let service = builder.build();
        let lock = Arc::new(RwLock::new(()));
        let ignores = Arc::new(AtomicBool::new(conditions == Conditions::Ignored));
        let ignores_now = Arc::clone(&ignores);
        let server = Server::start(Arc::new(move |mut request| {
            let (service, lock, ignores) = (service.clone(), Arc::clone(&lock), Arc::clone(&ignores_now));
            let answered = async move {
                let is_write = request.method() != Method::GET;
                let _writing = if is_write { Some(lock.write().await) } else { None };
                let _reading = if is_write { None } else { Some(lock.read().await) };
                if ignores.load(Ordering::SeqCst) {
                    request.headers_mut().remove("if-none-match");
                    request.headers_mut().remove("if-match");
                }
                let Ok(response) = service.call(request.map(s3s::Body::from)).await else {
                    return status(http::StatusCode::INTERNAL_SERVER_ERROR);
                };
                let (parts, body) = response.into_parts();
                match body.collect().await {
                    Ok(body) => http::Response::from_parts(parts, body.to_bytes()),
                    Err(_) => status(http::StatusCode::INTERNAL_SERVER_ERROR),
                }
            };
            // In a task of its own: a client that is killed would end it between its steps, and let go of the lock while a file is still
            // being moved into its place.
            Box::pin(async move {
                tokio::spawn(answered).await.unwrap_or_else(|_| status(http::StatusCode::INTERNAL_SERVER_ERROR))
            })
        }));
        Self { server, conditions, ignores, folder }
    }

    /// Has it do conditional writes from now on.
    pub(crate) fn mend(&self) {
        self.ignores.store(false, Ordering::SeqCst);
    }

    /// The bytes of an object.
    pub(crate) fn bytes(&self, object: &Object) -> Vec<u8> {
        let path = object.url.trim_start_matches("s3://");
        std::fs::read(self.folder.path().join(path)).expect("the object is there")
    }

    /// Puts an object beside another one.
    pub(crate) fn put(&self, object: &Object, name: &str, bytes: &str) {
        let path = self.folder.path().join(object.url.trim_start_matches("s3://"));
        let folder = path.parent().expect("a folder");
        std::fs::create_dir_all(folder).and_then(|()| std::fs::write(folder.join(name), bytes)).expect("an object");
    }

    /// The names of the objects that are beside an object, its own included.
    pub(crate) fn names(&self, object: &Object) -> Vec<String> {
        let path = self.folder.path().join(object.url.trim_start_matches("s3://"));
        let Ok(entries) = std::fs::read_dir(path.parent().expect("a folder")) else { return Vec::new() };
        let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
        // The server keeps what it knows of an object in files beside it.
        let mut names: Vec<String> = names.filter(|name| !name.starts_with('.')).collect();
        names.sort();
        names
    }

    /// A new object.
    pub(crate) fn object(&self) -> Object {
        let setting = |name: &str, value: String| (name.to_owned(), value);
        Object {
            url: format!("s3://{BUCKET}/tests/{}/registry.db", number()),
            settings: vec![
                setting("FEAST_S3_ENDPOINT_URL", format!("http://{}", self.server.address)),
                setting("AWS_ACCESS_KEY_ID", KEY.to_owned()),
                setting("AWS_SECRET_ACCESS_KEY", SECRET.to_owned()),
                setting("AWS_SKIP_SIGNATURE", (self.conditions == Conditions::Ignored).to_string()),
                setting("AWS_REGION", "us-east-1".to_owned()),
            ],
            server: self.server.address,
        }
    }
}

/// The server that the tests of this process share.
pub(crate) fn shared() -> &'static S3 {
    static SHARED: OnceLock<S3> = OnceLock::new();
    SHARED.get_or_init(|| S3::start(Conditions::Atomic))
}
