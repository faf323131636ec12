//! Large answers, encoded part by part while they are sent.
//!
//! Encoded as a whole, a list of 30 MB would take that much memory for each client until the client has read it, while its
//! objects are shared with the cache. Protobuf lets it be done in parts: messages of one type that follow one another are
//! one message with all their repeated fields. So a list goes out as many short lists, each made when HTTP/2 asks for it.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use feast_registry_core::Encoded;
use http_body::{Frame, SizeHint};
use prost::Message;
use tokio::sync::OwnedSemaphorePermit;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http;

use crate::proto::*;

/// About how many bytes a part has, unless one object has more.
const PART: usize = 64 * 1024;

/// A message that can be divided.
pub(crate) trait InParts: Message + Default + Send + 'static {
    /// Messages that together, one after the other, are this one.
    fn parts(self) -> impl Iterator<Item = Self> + Send + 'static;

    /// How many objects it has.
    fn len(&self) -> usize;
}

macro_rules! in_parts {
    ($($message:ident { $($field:ident),+ })*) => {
        $(impl InParts for $message {
            fn parts(mut self) -> impl Iterator<Item = Self> + Send + 'static {
                std::iter::empty()
                    $(.chain(short_lists(std::mem::take(&mut self.$field)).map(|$field| Self { $field, ..Self::default() })))+
                    .chain(std::iter::once_with(move || self))
            }

            fn len(&self) -> usize {
                0 $(+ self.$field.len())+
            }
        })*
    };
}

in_parts! {
    ListEntitiesResponse { entities }
    ListDataSourcesResponse { data_sources }
    ListFeatureViewsResponse { feature_views }
    ListStreamFeatureViewsResponse { stream_feature_views }
    ListOnDemandFeatureViewsResponse { on_demand_feature_views }
    ListLabelViewsResponse { label_views }
    ListAllFeatureViewsResponse { feature_views }
    ListFeatureServicesResponse { feature_services }
    ListSavedDatasetsResponse { saved_datasets }
    ListValidationReferencesResponse { validation_references }
    ListPermissionsResponse { permissions }
    ListProjectsResponse { projects }
    ListFeaturesResponse { features }
    GetRegistryLineageResponse { relationships, indirect_relationships }
    GetObjectRelationshipsResponse { relationships }
}

/// What is serialized already may be divided anywhere.
impl<T: Send + 'static> InParts for Encoded<T> {
    fn parts(self) -> impl Iterator<Item = Self> + Send + 'static {
        let mut rest = self.into_bytes();
        std::iter::from_fn(move || {
            let part = rest.split_to(rest.len().min(PART));
            (!part.is_empty()).then(|| Self::from_bytes(part))
        })
    }

    fn len(&self) -> usize {
        1
    }
}

fn short_lists<T: Message>(objects: Vec<T>) -> impl Iterator<Item = Vec<T>> {
    let mut objects = objects.into_iter();
    std::iter::from_fn(move || {
        let (mut list, mut size) = (Vec::new(), 0);
        while size < PART
            && let Some(object) = objects.next()
        {
            size += object.encoded_len();
            list.push(object);
        }
        (!list.is_empty()).then_some(list)
    })
}

/// An answer in parts, on its way from the service to [`send`] as an extension of an empty one.
#[derive(Clone)]
pub(crate) struct Divided(Arc<Mutex<Option<DividedBody>>>);

impl Divided {
    /// Divides an answer of so many bytes, which takes room until it is sent.
    pub(crate) fn new(answer: impl InParts, size: u32, room: Option<OwnedSemaphorePermit>) -> Self {
        let mut prefix = BytesMut::with_capacity(5);
        // Not compressed.
        prefix.put_u8(0);
        prefix.put_u32(size);
        let parts = answer.parts().map(|part| Bytes::from(part.encode_to_vec()));
        let body = DividedBody { prefix: Some(prefix.freeze()), parts: Some(Box::new(parts)), _room: room };
        Self(Arc::new(Mutex::new(Some(body))))
    }
}

/// Gives a response the body that its service has divided, if it has.
pub(crate) fn send(mut response: http::Response<Body>) -> http::Response<Body> {
    let divided: Option<Divided> = response.extensions_mut().remove();
    let body = divided.and_then(|Divided(body)| body.lock().unwrap_or_else(PoisonError::into_inner).take());
    match body {
        Some(body) => response.map(|_| Body::new(body)),
        None => response,
    }
}

/// The body of a gRPC response of one message: a prefix with its length, the message, and trailers.
struct DividedBody {
    prefix: Option<Bytes>,
    /// `None` once the trailers were sent.
    parts: Option<Box<dyn Iterator<Item = Bytes> + Send>>,
    _room: Option<OwnedSemaphorePermit>,
}

impl http_body::Body for DividedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(prefix) = self.prefix.take() {
            return Poll::Ready(Some(Ok(Frame::data(prefix))));
        }
        let Some(parts) = self.parts.as_mut() else { return Poll::Ready(None) };
        if let Some(part) = parts.next() {
            return Poll::Ready(Some(Ok(Frame::data(part))));
        }
        self.parts = None;
        let mut trailers = http::HeaderMap::new();
        Status::ok("").add_header(&mut trailers)?;
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.parts.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use http_body::Body as _;

    use super::*;

    fn sent(answer: impl InParts) -> Vec<u8> {
        let size = answer.encoded_len() as u32;
        let Divided(body) = Divided::new(answer, size, None);
        let mut body = body.lock().expect("not poisoned").take().expect("a body");
        let (mut sent, mut is_over) = (Vec::new(), false);
        while let Poll::Ready(Some(frame)) =
            Pin::new(&mut body).poll_frame(&mut Context::from_waker(std::task::Waker::noop()))
        {
            match frame.expect("a frame").into_data() {
                Ok(data) => {
                    assert!(data.len() <= 2 * PART, "{} bytes at once", data.len());
                    sent.extend_from_slice(&data);
                }
                Err(frame) => {
                    assert_eq!(frame.into_trailers().expect("trailers")["grpc-status"], "0");
                    is_over = true;
                }
            }
        }
        assert!(is_over && body.is_end_stream());
        sent
    }

    fn whole(answer: &impl Message) -> Vec<u8> {
        let message = answer.encode_to_vec();
        let mut whole = vec![0];
        whole.put_u32(message.len() as u32);
        whole.extend_from_slice(&message);
        whole
    }

    /// To a client nothing tells it from an answer that was encoded as a whole.
    #[test]
    fn what_is_sent_in_parts_is_the_message_byte_for_byte() {
        let entity = |size: usize| Encoded::from_bytes(Bytes::from(vec![7; size]));
        for sizes in [vec![], vec![0, 1], vec![40_000; 20], vec![100; 5_000], vec![100_000, 3, 100_000]] {
            let entities = sizes.into_iter().map(entity).collect();
            let pagination = Some(PaginationMetadata { total_count: 7, ..Default::default() });
            let answer = ListEntitiesResponse { entities, pagination };
            assert_eq!(sent(answer.clone()), whole(&answer));
        }
        let relation = |name: &str| EntityRelation {
            source: Some(EntityReference { r#type: "Entity".to_owned(), name: name.to_owned() }),
            target: None,
        };
        let lineage = GetRegistryLineageResponse {
            relationships: vec![relation("direct"); 10_000],
            indirect_relationships: vec![relation("indirect"); 10_000],
            relationships_pagination: Some(PaginationMetadata::default()),
            indirect_relationships_pagination: None,
        };
        assert_eq!(sent(lineage.clone()), whole(&lineage));
        let registry: Encoded<feast_registry_core::proto::core::Registry> =
            Encoded::from_bytes((0..200_000).map(|number| number as u8).collect::<Vec<u8>>().into());
        assert_eq!(sent(registry.clone()), whole(&registry));
    }
}
