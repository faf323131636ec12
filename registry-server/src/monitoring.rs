//! What supervisors and Prometheus ask for, over HTTP: `/livez`, `/readyz` and `/metrics`.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use crate::connections::PAUSES_FOR;
use crate::metrics::{Metrics, UPKEEP_EVERY, measure_readiness};
use crate::peer::Peer;
use crate::tls::{self, Speaks, Tls};

/// How many connections there may be at once. Each is for one request; one too many takes the place of the oldest, so those
/// that never ask keep nobody out.
const CONNECTIONS: usize = 256;
/// Within which time a request must have come, and its answer have gone.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);

const TEXT: &str = "text/plain; charset=utf-8";
/// Prometheus's text format.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

const HELP: &str = "This is a feast-registry server.
/livez    200 while the process lives
/readyz   200 while it is ready, 503 otherwise
/metrics  for Prometheus
";

/// Whether a server is ready, and what it has measured, to be served over HTTP. Cloning gives another handle on the same.
#[derive(Debug, Clone)]
pub struct Monitoring {
    metrics: Option<Metrics>,
    tls: Option<Tls>,
    /// Why the server is not ready, if it is not.
    readiness: Arc<watch::Sender<Result<(), &'static str>>>,
}

impl Monitoring {
    /// Of a server that has not started yet. Without metrics, `/metrics` is not found.
    pub fn new(metrics: Option<Metrics>) -> Self {
        measure_readiness(false);
        Self { metrics, tls: None, readiness: Arc::new(watch::Sender::new(Err("it is starting"))) }
    }

    /// The same over HTTPS. Clients need no certificate for it, whatever they need elsewhere: probes have none.
    #[must_use]
    pub fn with_tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Says why the server has not started yet.
    pub fn is_waiting(&self, why: &'static str) {
        self.set_ready(Err(why));
    }

    pub(crate) fn set_ready(&self, ready: Result<(), &'static str>) {
        measure_readiness(ready.is_ok());
        // What it was before does not matter.
        let _ = self.readiness.send_replace(ready);
    }

    /// Answers requests until it is dropped; with TLS, looks meanwhile whether its files have changed.
    pub async fn serve(self, listener: TcpListener) {
        let mut open: VecDeque<AbortHandle> = VecDeque::new();
        let upkeep = async {
            loop {
                sleep(UPKEEP_EVERY).await;
                self.metrics.iter().for_each(Metrics::upkeep);
            }
        };
        let accept = async {
            loop {
                let Ok((connection, peer)) = listener.accept().await else {
                    sleep(PAUSES_FOR).await;
                    continue;
                };
                open.retain(|connection| !connection.is_finished());
                if open.len() == CONNECTIONS
                    && let Some(oldest) = open.pop_front()
                {
                    oldest.abort();
                }
                let this = self.clone();
                let answering = tokio::spawn(async move {
                    drop(timeout(ANSWERS_WITHIN, this.serve_one(connection, Peer::Address(peer.ip()))).await);
                });
                open.push_back(answering.abort_handle());
            }
        };
        let fresh = async {
            match &self.tls {
                Some(tls) => match tls.keep_fresh().await {},
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = upkeep => {}
            () = accept => {}
            () = fresh => {}
        }
    }

    async fn serve_one(self, connection: TcpStream, peer: Peer) {
        if let Some(tls) = &self.tls {
            if let Some(encrypted) = tls.accept(connection, peer, Speaks::Http1, ANSWERS_WITHIN).await {
                self.serve_on(encrypted).await;
            }
            return;
        }
        if tls::waits_for_first_byte(&connection).await == Some(tls::FIRST_BYTE) {
            return tls::complain_of_tls_without_it(peer, Speaks::Http1);
        }
        self.serve_on(connection).await;
    }

    async fn serve_on(&self, connection: impl AsyncRead + AsyncWrite + Unpin) {
        let service = service_fn(|request: Request<Incoming>| {
            let answer = self.answer(request.method(), request.uri().path());
            async move { Ok::<_, Infallible>(answer) }
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(ANSWERS_WITHIN)
            .keep_alive(false)
            .serve_connection(TokioIo::new(connection), service)
            .await;
        if let Err(error) = served {
            tracing::debug!(%error, "a request for health or metrics was not answered");
        }
    }

    fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            return response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET is answered here\n");
        }
        match (path, &self.metrics) {
            ("/livez", _) => response(StatusCode::OK, TEXT, "ok\n"),
            ("/readyz", _) => match *self.readiness.borrow() {
                Ok(()) => response(StatusCode::OK, TEXT, "ok\n"),
                Err(why) => response(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("not ready: {why}\n")),
            },
            ("/metrics", Some(metrics)) => response(StatusCode::OK, METRICS, metrics.render()),
            ("/", _) => response(StatusCode::OK, TEXT, HELP),
            _ => response(StatusCode::NOT_FOUND, TEXT, HELP),
        }
    }
}

fn response(status: StatusCode, content_type: &'static str, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, hyper::header::HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[test]
    fn supervisors_are_told_life_and_readiness_apart() {
        let monitoring = Monitoring::new(None);
        let status = |path: &str| monitoring.answer(&Method::GET, path).status().as_u16();
        assert_eq!((status("/livez"), status("/readyz"), status("/metrics")), (200, 503, 404));
        monitoring.set_ready(Ok(()));
        assert_eq!((status("/livez"), status("/readyz"), status("/")), (200, 200, 200));
        monitoring.set_ready(Err("it is stopping"));
        assert_eq!((status("/livez"), status("/readyz")), (200, 503));
        assert_eq!(monitoring.answer(&Method::POST, "/livez").status().as_u16(), 405);
    }

    #[tokio::test]
    async fn connections_that_never_ask_keep_nobody_out() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let serving = tokio::spawn(Monitoring::new(None).serve(listener));
        let mut idle = Vec::new();
        for _ in 0..CONNECTIONS + 50 {
            idle.push(TcpStream::connect(address).await.expect("a connection"));
        }
        let mut asking = TcpStream::connect(address).await.expect("a connection");
        asking.write_all(b"GET /livez HTTP/1.1\r\nHost: here\r\n\r\n").await.expect("a request");
        let mut answer = String::new();
        asking.read_to_string(&mut answer).await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        serving.abort();
    }
}
