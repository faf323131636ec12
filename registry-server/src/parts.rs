//! Large answers, encoded part by part while they are sent.
//!
//! Encoded as a whole, a list of 30 MB would take that much memory for each client until the client has read it, while its
//! objects are shared with the cache. Protobuf lets it be done in parts: messages of one type that follow one another are
//! one message with all their repeated fields. So a list goes out as many short lists, each made when HTTP/2 asks for it.

use std::io::{self, Write};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use feast_registry_core::Encoded;
use flate2::Compression;
use flate2::write::GzEncoder;
use http_body::{Frame, SizeHint};
use prost::Message;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http;

use crate::proto::*;

/// About how many bytes a part has, unless one object has more.
const PART: usize = 64 * 1024;

/// The encoding of compressed answers, which every client of grpc-core, grpc-go and grpc-java offers.
pub(crate) const GZIP: &str = "gzip";

/// How long a client may leave an answer unread, before it is given up, or all answers of a connection, before that is closed.
/// It takes up to twice as long to notice.
pub(crate) const READ_WITHIN: Duration = Duration::from_secs(30);

/// Room for an answer: that which it need not wait for, if there was any; memory; and of its caller's own, if callers are known.
pub(crate) type Room = (Option<OwnedSemaphorePermit>, OwnedSemaphorePermit, Option<OwnedSemaphorePermit>);

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
        pieces(self.into_bytes()).map(Self::from_bytes)
    }

    fn len(&self) -> usize {
        1
    }
}

/// Bytes in pieces.
fn pieces(mut rest: Bytes) -> impl Iterator<Item = Bytes> + Send {
    std::iter::from_fn(move || {
        let piece = rest.split_to(rest.len().min(PART));
        (!piece.is_empty()).then_some(piece)
    })
}

/// An answer as gzip, part by part, so that it is never there as a whole. It takes the processor for a while.
///
/// # Errors
/// None that memory does not have.
pub(crate) fn compress(answer: impl InParts) -> io::Result<Bytes> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    for part in answer.parts() {
        encoder.write_all(&part.encode_to_vec())?;
    }
    encoder.finish().map(Bytes::from)
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
    /// Divides an answer of so many bytes, which takes room until it is sent, or is given up since nobody reads it. It must be
    /// called within a runtime.
    pub(crate) fn new(answer: impl InParts, size: u32, room: Room) -> Self {
        Self::of(answer.parts().map(|part| Bytes::from(part.encode_to_vec())), size, false, room)
    }

    /// The same of an answer that was compressed ([`compress`]), to so many bytes.
    pub(crate) fn compressed(message: Bytes, size: u32, room: Room) -> Self {
        Self::of(pieces(message), size, true, room)
    }

    fn of(parts: impl Iterator<Item = Bytes> + Send + 'static, size: u32, is_compressed: bool, room: Room) -> Self {
        let mut prefix = BytesMut::with_capacity(5);
        prefix.put_u8(is_compressed.into());
        prefix.put_u32(size);
        let body = DividedBody::new(Some(prefix.freeze()), parts, Some(is_compressed), room);
        Self(Arc::new(Mutex::new(Some(body))))
    }
}

/// Gives a response the body that its service has divided, if it has.
pub(crate) fn send(mut response: http::Response<Body>) -> http::Response<Body> {
    let divided: Option<Divided> = response.extensions_mut().remove();
    match divided.and_then(|Divided(body)| lock(&body).take()) {
        Some(body) => {
            if body.grpc == Some(true) {
                response.headers_mut().insert("grpc-encoding", http::HeaderValue::from_static(GZIP));
            }
            response.map(|_| Body::new(body))
        }
        None => response,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A body of these parts, which takes room until it is sent, or is given up since nobody reads it. It must be called within a
/// runtime.
pub(crate) fn body_of(parts: impl Iterator<Item = Bytes> + Send + 'static, room: Room) -> Body {
    Body::new(DividedBody::new(None, parts, None, room))
}

/// A body in parts. Of a gRPC response of one message it is a prefix with its length, the message, and trailers.
struct DividedBody {
    /// `None` once it was given up.
    unsent: Arc<Mutex<Option<Unsent>>>,
    watch: JoinHandle<()>,
    /// Of a gRPC response, whether its message is compressed.
    grpc: Option<bool>,
}

impl DividedBody {
    fn new(
        prefix: Option<Bytes>,
        parts: impl Iterator<Item = Bytes> + Send + 'static,
        grpc: Option<bool>,
        room: Room,
    ) -> Self {
        let unsent = Unsent { prefix, parts: Some(Box::new(parts)), read: 0, _room: room };
        let unsent = Arc::new(Mutex::new(Some(unsent)));
        let watch = tokio::spawn(give_up_when_unread(Arc::downgrade(&unsent)));
        Self { unsent, watch, grpc }
    }
}

/// What has not been sent of an answer.
struct Unsent {
    prefix: Option<Bytes>,
    /// `None` once all was sent.
    parts: Option<Box<dyn Iterator<Item = Bytes> + Send>>,
    /// How many frames its client has made room for.
    read: usize,
    _room: Room,
}

/// HTTP/2 asks for no part before its client has read the last, so nothing else would notice.
async fn give_up_when_unread(unsent: Weak<Mutex<Option<Unsent>>>) {
    let mut read_before = 0;
    loop {
        tokio::time::sleep(READ_WITHIN).await;
        let Some(unsent) = unsent.upgrade() else { return };
        let mut unsent = lock(&unsent);
        let Some(read) = unsent.as_ref().map(|unsent| unsent.read) else { return };
        if read == read_before {
            tracing::warn!(
                "an answer was given up, since its client has read nothing of it for {} s",
                READ_WITHIN.as_secs()
            );
            *unsent = None;
            return;
        }
        read_before = read;
    }
}

impl Drop for DividedBody {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl http_body::Body for DividedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut unsent = lock(&self.unsent);
        let Some(unsent) = unsent.as_mut() else {
            return Poll::Ready(Some(Err(Status::deadline_exceeded("the answer was given up, since nobody read it"))));
        };
        unsent.read += 1;
        if let Some(prefix) = unsent.prefix.take() {
            return Poll::Ready(Some(Ok(Frame::data(prefix))));
        }
        let Some(parts) = unsent.parts.as_mut() else { return Poll::Ready(None) };
        if let Some(part) = parts.next() {
            return Poll::Ready(Some(Ok(Frame::data(part))));
        }
        unsent.parts = None;
        if self.grpc.is_none() {
            return Poll::Ready(None);
        }
        let mut trailers = http::HeaderMap::new();
        Status::ok("").add_header(&mut trailers)?;
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        lock(&self.unsent).as_ref().is_some_and(|unsent| unsent.parts.is_none())
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
        let memory = Arc::new(tokio::sync::Semaphore::new(1)).try_acquire_owned().expect("a permit");
        let Divided(body) = Divided::new(answer, size, (None, memory, None));
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
    #[tokio::test]
    async fn what_is_sent_in_parts_is_the_message_byte_for_byte() {
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
