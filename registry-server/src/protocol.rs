//! What requests are said in.

use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http;

use crate::rest::RestError;

/// What a request is said in, and so how it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Grpc,
    /// Feast's REST API, and the pages beside it.
    Rest,
}

impl Protocol {
    /// Of a request on a port that takes both. What is said in HTTP/1.1 is not gRPC, whatever it says of itself: a page in a browser can
    /// say it, and is kept from changing anything by the REST API alone.
    pub(crate) fn of<B>(request: &http::Request<B>) -> Self {
        let content_type = request.headers().get(http::header::CONTENT_TYPE);
        let is_grpc = content_type.is_some_and(|of| of.as_bytes().starts_with(b"application/grpc"));
        if is_grpc && request.version() == http::Version::HTTP_2 { Self::Grpc } else { Self::Rest }
    }

    /// The answer to a call that was not done, or of which this is all that is known.
    pub(crate) fn refusal(self, status: Status) -> http::Response<Body> {
        match self {
            Self::Grpc => status.into_http(),
            Self::Rest => RestError::from(status).into_response(),
        }
    }
}
