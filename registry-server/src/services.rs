//! What a port answers: Feast's gRPC service and our own, Feast's REST API, or both.

use std::convert::Infallible;
use std::task::{Context, Poll};

use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::codegen::{BoxFuture, Service};
use tonic::service::Routes;

use crate::protocol::Protocol;
use crate::rest::{Asking, Rest};

/// The services of a port.
#[derive(Clone)]
pub(crate) enum Services {
    Grpc(Routes),
    Rest(Rest),
    Both(Routes, Rest),
}

impl Services {
    /// What a request is said in, as far as this port is concerned.
    pub(crate) fn protocol<B>(&self, request: &Request<B>) -> Protocol {
        match self {
            Self::Grpc(_) => Protocol::Grpc,
            Self::Rest(_) => Protocol::Rest,
            Self::Both(..) => Protocol::of(request),
        }
    }

    /// The REST API, if this port has it.
    pub(crate) fn rest(&self) -> Option<&Rest> {
        match self {
            Self::Grpc(_) => None,
            Self::Rest(rest) | Self::Both(_, rest) => Some(rest),
        }
    }

    /// Whether clients may speak HTTP/1.1.
    pub(crate) fn takes_http1(&self) -> bool {
        self.rest().is_some()
    }

    /// Adds to the answer of a request what its protocol has in every answer.
    pub(crate) fn finish(&self, protocol: Protocol, to: &Asking, answer: &mut Response<Body>) {
        if let (Protocol::Rest, Some(rest)) = (protocol, self.rest()) {
            rest.finish(to, answer);
        }
    }
}

impl Service<Request<Body>> for Services {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Both are ready always.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let protocol = self.protocol(&request);
        match self {
            Self::Both(routes, _) if protocol == Protocol::Grpc => Box::pin(routes.call(request)),
            Self::Grpc(routes) => Box::pin(routes.call(request)),
            Self::Rest(rest) | Self::Both(_, rest) => {
                let rest = rest.clone();
                Box::pin(async move { Ok(rest.answer(request).await) })
            }
        }
    }
}
