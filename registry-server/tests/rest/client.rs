//! A client that sends what it is told to, and hands on all that it is answered.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::{http1, http2};
use hyper::{Method, Request};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::codegen::http::HeaderMap;

/// An answer that takes longer has gone wrong.
const SOON: Duration = Duration::from_secs(30);

/// The version of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    One,
    Two,
}

pub(crate) const BOTH: [Version; 2] = [Version::One, Version::Two];

/// An answer.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// A header, empty if it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().expect("text")).unwrap_or_default()
    }

    pub(crate) fn tag(&self) -> String {
        let tag = self.header("etag").to_owned();
        assert!(tag.starts_with('"') || tag.starts_with("W/\""), "{self:?}");
        tag
    }

    /// That it is an error as all are.
    #[track_caller]
    pub(crate) fn assert_error(&self, status: u16, error_type: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), "application/json");
        let told = self.json();
        assert_eq!((&told["status_code"], &told["error_type"]), (&status.into(), &error_type.into()), "{told}");
        assert!(told["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{told}");
    }
}

/// What is asked, and of whom.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    address: SocketAddr,
    version: Version,
    method: Method,
    path: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Bytes,
}

impl Ask {
    pub(crate) fn new(address: SocketAddr, method: &str, path: &str) -> Self {
        let method = method.parse().expect("a method");
        Self { address, version: Version::One, method, path: path.to_owned(), headers: Vec::new(), body: Bytes::new() }
    }

    pub(crate) fn over(self, version: Version) -> Self {
        Self { version, ..self }
    }

    pub(crate) fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    pub(crate) fn json(self, body: &Value) -> Self {
        self.header("content-type", "application/json").bytes(body.to_string())
    }

    pub(crate) fn bytes(self, body: impl Into<Bytes>) -> Self {
        Self { body: body.into(), ..self }
    }

    pub(crate) async fn send(self) -> Reply {
        self.try_send().await.expect("an answer")
    }

    /// Sends it on a connection of its own.
    pub(crate) async fn try_send(self) -> Result<Reply, String> {
        let Self { address, version, method, path, headers, body } = self;
        let io = TokioIo::new(TcpStream::connect(address).await.map_err(|error| error.to_string())?);
        let mut request = Request::builder().method(method);
        request = match version {
            Version::One => request.uri(path).header("host", address.to_string()),
            Version::Two => request.uri(format!("http://{address}{path}")),
        };
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(body)).expect("a request");
        let exchange = async {
            let answer = match version {
                Version::One => {
                    let (mut sender, driver) = http1::handshake(io).await?;
                    tokio::spawn(driver);
                    sender.send_request(request).await?
                }
                Version::Two => {
                    let (mut sender, driver) = http2::handshake(TokioExecutor::new(), io).await?;
                    tokio::spawn(driver);
                    sender.send_request(request).await?
                }
            };
            let (head, body) = answer.into_parts();
            let body = body.collect().await?.to_bytes();
            Ok::<_, hyper::Error>(Reply { status: head.status.as_u16(), headers: head.headers, body })
        };
        match timeout(SOON, exchange).await {
            Ok(answered) => answered.map_err(|error| format!("{error:?}")),
            Err(_) => Err("no answer came".to_owned()),
        }
    }
}
