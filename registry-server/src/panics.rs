//! A panic in a call is that call's error: INTERNAL, and a line in the log that names the call.
//!
//! Without this a panic would unwind through the task of the connection, and every call on it would be lost. What a panic
//! leaves behind is safe to go on with: the registry's locks are not poisoned by one, and a commit is all or nothing.

use std::any::Any;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use http_body::{Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Bytes, Service, http};

use crate::parts;
use crate::protocol::Protocol;

/// Runs a future to its end, or to its panic, which is returned as text.
pub(crate) async fn caught<T>(future: impl Future<Output = T>) -> Result<T, String> {
    let mut future = pin!(future);
    poll_fn(|cx| match catch(|| future.as_mut().poll(cx)) {
        Ok(Poll::Ready(value)) => Poll::Ready(Ok(value)),
        Ok(Poll::Pending) => Poll::Pending,
        Err(panic) => Poll::Ready(Err(panic)),
    })
    .await
}

fn catch<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| text_of(&*panic))
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "it says nothing".to_owned())
}

/// Logs a panic, and says what the caller is told.
fn status(call: &str, panic: &str) -> Status {
    tracing::error!(call, panic, "a call panicked; its caller is answered INTERNAL");
    Status::internal(
        "this call failed by a defect of the server, whose log says more; whether it changed anything is not known",
    )
}

/// Services whose calls may panic: see the documentation of the module. It never blocks, and a call may be cancelled as one of the
/// service itself.
#[derive(Debug, Clone)]
pub(crate) struct Isolated<S> {
    pub(crate) service: S,
    /// How a call that has panicked is answered.
    pub(crate) protocol: Protocol,
}

impl<S> Service<http::Request<Body>> for Isolated<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let call = request.uri().path().to_owned();
        let protocol = self.protocol;
        let future = catch(|| self.service.call(request));
        Box::pin(async move {
            let answer = match future {
                Ok(future) => caught(future).await,
                Err(panic) => Err(panic),
            };
            match answer {
                Ok(Ok(response)) => {
                    Ok(parts::send(response).map(|body| Body::new(IsolatedBody { body: Some(body), call, protocol })))
                }
                Err(panic) => Ok(protocol.refusal(status(&call, &panic))),
            }
        })
    }
}

/// The answer of a call, which is encoded while it is sent.
struct IsolatedBody {
    /// `None` after a panic, and after the end.
    body: Option<Body>,
    call: String,
    protocol: Protocol,
}

impl http_body::Body for IsolatedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(body) = self.body.as_mut() else { return Poll::Ready(None) };
        match catch(|| Pin::new(body).poll_frame(cx)) {
            Ok(polled) => polled,
            Err(panic) => {
                self.body = None;
                if self.protocol == Protocol::Rest {
                    // Half an answer that was said to be whole is not: the connection ends.
                    return Poll::Ready(Some(Err(status(&self.call, &panic))));
                }
                let mut trailers = http::HeaderMap::new();
                status(&self.call, &panic).add_header(&mut trailers)?;
                Poll::Ready(Some(Ok(Frame::trailers(trailers))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(http_body::Body::size_hint).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use tokio::net::TcpListener;
    use tokio::sync::Semaphore;
    use tokio_stream::wrappers::TcpListenerStream;
    use tonic::Code;
    use tonic::server::NamedService;
    use tonic::transport::{Channel, Endpoint, Server};

    use super::*;
    use crate::proto::registry_server_client::RegistryServerClient;
    use crate::proto::{GetEntityRequest, RefreshRequest};

    impl<S: NamedService> NamedService for Isolated<S> {
        const NAME: &'static str = S::NAME;
    }

    /// In place of the registry's service: each call panics at another moment, and `Commit` waits for a permit.
    #[derive(Clone)]
    struct Panicking {
        permits: Arc<Semaphore>,
    }

    impl NamedService for Panicking {
        const NAME: &'static str = "feast.registry.RegistryServer";
    }

    /// An answer that panics when it is sent.
    struct PanickingBody;

    impl http_body::Body for PanickingBody {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            panic!("at the answer")
        }
    }

    impl Service<http::Request<Body>> for Panicking {
        type Response = http::Response<Body>;
        type Error = Infallible;
        type Future = BoxFuture<Self::Response, Infallible>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: http::Request<Body>) -> Self::Future {
            let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
            assert!(method != "Refresh", "at once");
            let permits = Arc::clone(&self.permits);
            Box::pin(async move {
                tokio::task::yield_now().await;
                match method.as_str() {
                    "GetEntity" => std::panic::panic_any("later".to_owned()),
                    "Proto" => {
                        let response = http::Response::builder().header("content-type", "application/grpc");
                        Ok(response.body(Body::new(PanickingBody)).expect("a response"))
                    }
                    _ => {
                        permits.acquire().await.expect("open").forget();
                        Ok(Status::aborted("the permit came").into_http())
                    }
                }
            })
        }
    }

    /// What is logged meanwhile.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("a log").extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    async fn connected(permits: &Arc<Semaphore>) -> RegistryServerClient<Channel> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let service = Isolated { service: Panicking { permits: Arc::clone(permits) }, protocol: Protocol::Grpc };
        tokio::spawn(Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener)));
        let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("a URL");
        RegistryServerClient::new(endpoint.connect().await.expect("a connection"))
    }

    #[tokio::test]
    async fn a_panic_is_the_error_of_its_call_and_of_no_other_on_the_connection() {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        let _guard = tracing::subscriber::set_default(subscriber);
        let permits = Arc::new(Semaphore::new(0));
        let client = connected(&permits).await;
        let mut other = client.clone();
        let under_way = tokio::spawn(async move { other.commit(()).await });

        let mut refreshing = client.clone();
        let at_once = refreshing.refresh(RefreshRequest::default()).await.map(drop);
        let mut getting = client.clone();
        let later = getting.get_entity(GetEntityRequest::default()).await.map(drop);
        let mut asking = client.clone();
        let while_sent = asking.proto(()).await.map(drop);
        for (call, text, answer) in
            [("Refresh", "at once", at_once), ("GetEntity", "later", later), ("Proto", "at the answer", while_sent)]
        {
            let status = answer.expect_err("a panic");
            assert_eq!(status.code(), Code::Internal, "{call}: {status:?}");
            assert!(status.message().contains("defect of the server"), "{call}: {status:?}");
            let log = String::from_utf8(log.0.lock().expect("a log").clone()).expect("text");
            let line = log.lines().find(|line| line.contains(&format!("RegistryServer/{call}")));
            assert!(line.is_some_and(|line| line.contains("ERROR") && line.contains(text)), "{call}: {log}");
        }

        // The call that was under way all the time is on the same connection.
        permits.add_permits(1);
        let status = under_way.await.expect("no panic here").expect_err("what the service says");
        assert_eq!((status.code(), status.message()), (Code::Aborted, "the permit came"));
    }
}
