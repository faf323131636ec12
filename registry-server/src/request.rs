//! A request on its way in.
//!
//! It is received whole, and unpacked, before any service sees it. So nobody makes room for what is only announced, a request
//! that is broken off has no effect, and a call is one message and no more. Large ones share budgets: one of bytes that have
//! come, where what finds no room is refused, since it could not wait without keeping from the rest of its connection what
//! that needs; and one of what they unpack to, where they wait once they have come.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use feast_registry_core::{CallOptions, Error, Registry};
use flate2::read::{GzDecoder, ZlibDecoder};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};
use tonic::Status;
use tonic::codegen::http::HeaderMap;
use tonic::codegen::{Bytes, http};

use crate::complaints::Complaint;
use crate::record::Identity;
use crate::status::status;

/// Requests of up to so many bytes are not counted.
const SMALL: usize = 64 * 1024;
/// How many bytes of requests that have come, whole or in part, may wait for their answers.
const ARRIVED: usize = 256 * 1024 * 1024;
/// How many bytes of memory compressed requests may unpack to at once. One that takes more goes alone.
const UNPACKED: usize = 128 * 1024 * 1024;
/// What the budgets are counted in.
const UNIT: usize = 1024;
/// What may unpack to more is not unpacked on a thread that answers calls.
const UNPACKED_AT_ONCE: usize = 1024 * 1024;
/// What a message begins with: whether it is compressed, and its length.
const PREFIX: usize = 5;
/// In pieces of so many bytes a request is kept whose client sends it in crumbs, and what one unpacks to.
const PIECE: usize = 64 * 1024;
/// A piece of so many bytes is kept as it is.
const LARGE_PIECE: usize = 4 * 1024;
/// The largest window that a zstd frame may want to have kept (RFC 8878 recommends this one), as a power of two.
const ZSTD_WINDOW_LOG: u32 = 23;

const ENCODING: &str = "grpc-encoding";

/// What the requests of a server share.
#[derive(Clone)]
pub(crate) struct RequestLimits {
    arrived: Arc<Semaphore>,
    unpacked: Arc<Semaphore>,
    /// The largest message that is accepted.
    max_message_size: usize,
    /// How long a request may take to come, at the most.
    pub(crate) arrives_within: Duration,
    /// Whose threads unpack large requests.
    registry: Registry,
}

/// The room that a request has, until this is dropped.
#[derive(Debug, Default)]
pub(crate) struct Room {
    arrived: Option<OwnedSemaphorePermit>,
    unpacked: Option<OwnedSemaphorePermit>,
}

impl RequestLimits {
    pub(crate) fn new(max_message_size: usize, arrives_within: Duration, registry: Registry) -> Self {
        // The largest has room, if nothing else has.
        let arrived = Arc::new(Semaphore::new(ARRIVED.max(max_message_size + SMALL).div_ceil(UNIT)));
        let unpacked = Arc::new(Semaphore::new(UNPACKED.div_ceil(UNIT)));
        Self { arrived, unpacked, max_message_size, arrives_within, registry }
    }

    /// Receives a request, of at most so many bytes and until a certain moment, and unpacks it.
    ///
    /// # Errors
    /// When it is too large, does not come in time or not to its end, or has no room; nothing of it was done.
    pub(crate) async fn receive(
        &self,
        request: http::Request<Incoming>,
        most: usize,
        began: Instant,
        until: Instant,
        identity: &Identity,
    ) -> Result<(http::Request<Received>, Room), Status> {
        let (mut parts, body) = request.into_parts();
        let most = self.max_message_size.min(most);
        let (mut received, mut room) =
            timeout_at(until, self.arrival(body, most, identity)).await.map_err(|_| {
                let seconds = (until - began).as_secs_f64();
                Status::deadline_exceeded(format!(
                    "the request did not come whole within {seconds} s; nothing was done"
                ))
            })??;
        if received.is_compressed_whole()
            && let Some(encoding) = Encoding::of(&parts.headers)
        {
            (received, room) = self.unpack(received, encoding, room, until, parts.uri.path()).await?;
            parts.headers.remove(ENCODING);
        }
        Ok((http::Request::from_parts(parts, received), room))
    }

    /// A request, once all of it has come.
    async fn arrival(&self, mut body: Incoming, most: usize, identity: &Identity) -> Result<(Received, Room), Status> {
        let (mut received, mut room) = (Received::default(), Room::default());
        while let Some(frame) = body.frame().await {
            // To whoever is still there: a client that broke its call off reads no answer.
            let frame = frame.map_err(|error| {
                Status::cancelled(format!("the request was broken off ({error}); nothing was done"))
            })?;
            // What follows the message means nothing in a request of gRPC.
            let Ok(data) = frame.into_data() else { continue };
            let arrived = identity.receives(data.len());
            self.make_room(arrived, &mut room)?;
            received.push(data);
            let Some(Prefix { length, .. }) = received.prefix else { continue };
            if length > most {
                return Err(Status::resource_exhausted(format!(
                    "the request has {length} bytes, and at most {most} are taken (--max-message-size); nothing was done"
                )));
            }
            if arrived > PREFIX + length {
                return Err(Status::internal("the request has more than one message; nothing was done"));
            }
        }
        Ok((received, room))
    }

    /// Takes room for bytes that have come, so many in all.
    fn make_room(&self, arrived: usize, room: &mut Room) -> Result<(), Status> {
        if arrived <= SMALL {
            return Ok(());
        }
        let has = room.arrived.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let missing = units(arrived).saturating_sub(u32::try_from(has).unwrap_or(u32::MAX));
        if missing > 0 {
            let more = Arc::clone(&self.arrived).try_acquire_many_owned(missing).map_err(|_| no_room())?;
            match &mut room.arrived {
                Some(arrived) => arrived.merge(more),
                arrived => *arrived = Some(more),
            }
        }
        Ok(())
    }

    /// Unpacks a compressed request. It has room for the most that it may become, and then for what it has become.
    async fn unpack(
        &self,
        packed: Received,
        encoding: Encoding,
        mut room: Room,
        until: Instant,
        call: &str,
    ) -> Result<(Received, Room), Status> {
        let limit = self.max_message_size;
        let most = packed.length.saturating_mul(encoding.most_unpacked()).min(limit);
        if most > SMALL {
            let permit = Arc::clone(&self.unpacked).acquire_many_owned(units(most.min(UNPACKED)));
            let permit = timeout_at(until, permit).await.map_err(|_| no_room())?;
            room.unpacked = permit.ok();
        }
        // The room goes along, since the work goes on to its end when its caller leaves.
        let work = move || {
            let unpacked = encoding.unpack(packed, limit)?;
            room.arrived = None;
            room.keep_unpacked(unpacked.length);
            Ok((unpacked, room))
        };
        if most <= UNPACKED_AT_ONCE {
            return work();
        }
        let registry = self.registry.with_call(CallOptions::new().with_deadline(until));
        let work = move || Ok::<_, Error>(work());
        registry.compute(usize::MAX, work).await.map_err(|error| status(call, error))?
    }
}

impl Room {
    /// Gives back what is not needed for so many bytes.
    fn keep_unpacked(&mut self, bytes: usize) {
        if let Some(unpacked) = &mut self.unpacked {
            let needed = if bytes > SMALL { bytes.div_ceil(UNIT) } else { 0 };
            drop(unpacked.split(unpacked.num_permits().saturating_sub(needed)));
        }
    }
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX)
}

fn no_room() -> Status {
    static REFUSED: Complaint = Complaint::new();
    REFUSED.say(|more| tracing::warn!("a large request was refused: others take all the memory for them{more}"));
    Status::resource_exhausted(
        "this server has no memory left for large requests, since others are coming or being done; nothing was done: try again later",
    )
}

/// How a message may be compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Gzip,
    Deflate,
    Zstd,
}

impl Encoding {
    /// `None`: it is not, or in another way, about which its service says what it takes.
    fn of(headers: &HeaderMap) -> Option<Self> {
        match headers.get(ENCODING)?.as_bytes() {
            b"gzip" => Some(Self::Gzip),
            b"deflate" => Some(Self::Deflate),
            b"zstd" => Some(Self::Zstd),
            _ => None,
        }
    }

    /// How many times larger a message may become.
    fn most_unpacked(self) -> usize {
        match self {
            // 258 bytes are two bits at the least.
            Self::Gzip | Self::Deflate => 1032,
            // A block of 128 KiB has four bytes at the least.
            Self::Zstd => 32 * 1024,
        }
    }

    fn unpack(self, packed: Received, limit: usize) -> Result<Received, Status> {
        let packed = packed.into_message();
        let unpacked = match self {
            Self::Gzip => read_all(GzDecoder::new(packed), limit),
            Self::Deflate => read_all(ZlibDecoder::new(packed), limit),
            Self::Zstd => zstd::Decoder::new(packed).and_then(|mut decoder| {
                decoder.window_log_max(ZSTD_WINDOW_LOG)?;
                read_all(decoder, limit)
            }),
        };
        match unpacked {
            Ok(Some(unpacked)) => Ok(unpacked),
            Ok(None) => Err(Status::resource_exhausted(format!(
                "the request unpacks to more than {limit} bytes, and no more are taken (--max-message-size); nothing was done"
            ))),
            Err(error) => Err(Status::internal(format!("the request cannot be unpacked ({error}); nothing was done"))),
        }
    }
}

/// An uncompressed message of all that there is to read; `None` if that is more than so many bytes.
fn read_all(mut unpacking: impl Read, limit: usize) -> io::Result<Option<Received>> {
    let (mut pieces, mut length) = (VecDeque::new(), 0);
    // Its place is the first one, once its length is known.
    pieces.push_back(Bytes::new());
    loop {
        let mut piece = BytesMut::zeroed(PIECE);
        let mut filled = 0;
        while filled < PIECE {
            match unpacking.read(&mut piece[filled..])? {
                0 => break,
                more => filled += more,
            }
        }
        length += filled;
        if length > limit {
            return Ok(None);
        }
        piece.truncate(filled);
        pieces.push_back(piece.freeze());
        if filled < PIECE {
            break;
        }
    }
    let Ok(announced) = u32::try_from(length) else { return Ok(None) };
    pieces[0] = Bytes::copy_from_slice(&[&[0][..], &announced.to_be_bytes()].concat());
    let prefix = Some(Prefix { is_compressed: false, length });
    Ok(Some(Received { pieces, prefix, length, ..Received::default() }))
}

/// What has come of a request: the pieces of a message, with what it begins with.
#[derive(Debug, Default)]
pub(crate) struct Received {
    pieces: VecDeque<Bytes>,
    /// The last of them, while small ones are added to it.
    last: BytesMut,
    beginning: Beginning,
    prefix: Option<Prefix>,
    /// How many bytes of the message itself have come.
    length: usize,
}

/// The first bytes of a message, as far as they have come.
#[derive(Debug, Default)]
struct Beginning {
    bytes: [u8; PREFIX],
    length: usize,
}

/// What a message begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Prefix {
    is_compressed: bool,
    length: usize,
}

impl Beginning {
    /// Takes what is missing of it; returns what it says when it becomes complete.
    fn add(&mut self, data: &[u8]) -> Option<Prefix> {
        let missing = data.len().min(PREFIX - self.length);
        if missing == 0 {
            return None;
        }
        self.bytes[self.length..self.length + missing].copy_from_slice(&data[..missing]);
        self.length += missing;
        let [compressed, length @ ..] = self.bytes;
        // Any other number is an error, which the service tells.
        let prefix = Prefix { is_compressed: compressed == 1, length: u32::from_be_bytes(length) as usize };
        (self.length == PREFIX).then_some(prefix)
    }
}

impl Received {
    /// Adds what has come. Crumbs are put together: each by itself would take many times its size.
    fn push(&mut self, data: Bytes) {
        let before = self.beginning.length;
        self.prefix = self.prefix.or(self.beginning.add(&data));
        self.length += data.len() - (self.beginning.length - before);
        let is_first = self.pieces.is_empty() && self.last.is_empty();
        if is_first || data.len() >= LARGE_PIECE {
            self.end_last();
            self.pieces.push_back(data);
        } else {
            self.last.extend_from_slice(&data);
            if self.last.len() >= PIECE {
                self.end_last();
            }
        }
    }

    fn end_last(&mut self) {
        if !self.last.is_empty() {
            self.pieces.push_back(self.last.split().freeze());
        }
    }

    fn is_compressed_whole(&self) -> bool {
        self.prefix.is_some_and(|prefix| prefix.is_compressed && prefix.length == self.length)
    }

    /// The message, without what it begins with.
    fn into_message(mut self) -> Message {
        self.end_last();
        let mut rest = PREFIX;
        for piece in &mut self.pieces {
            let taken = rest.min(piece.len());
            drop(piece.split_to(taken));
            rest -= taken;
        }
        Message(self.pieces)
    }
}

/// A message to be read, which is let go as it is.
struct Message(VecDeque<Bytes>);

impl Read for Message {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while let Some(piece) = self.0.front_mut() {
            if piece.is_empty() {
                self.0.pop_front();
                continue;
            }
            let taken = piece.len().min(into.len());
            into[..taken].copy_from_slice(&piece.split_to(taken));
            return Ok(taken);
        }
        Ok(0)
    }
}

impl http_body::Body for Received {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.end_last();
        Poll::Ready(self.pieces.pop_front().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty() && self.last.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        let pieces: usize = self.pieces.iter().map(Bytes::len).sum();
        SizeHint::with_exact((pieces + self.last.len()) as u64)
    }
}

/// The request of a call that goes on for as long as its client likes. It may have a little, and a while.
pub(crate) struct Conversation {
    body: Incoming,
    identity: Arc<Identity>,
    is_over: Pin<Box<Sleep>>,
}

impl Conversation {
    pub(crate) fn new(body: Incoming, identity: Arc<Identity>, until: Instant) -> Self {
        Self { body, identity, is_over: Box::pin(sleep_until(until)) }
    }
}

impl http_body::Body for Conversation {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame.map(|frame| {
                let frame =
                    frame.map_err(|error| Status::cancelled(format!("the request was broken off ({error})")))?;
                let arrived = self.identity.receives(frame.data_ref().map_or(0, Bytes::len));
                if arrived > SMALL {
                    return Err(Status::resource_exhausted(format!(
                        "no more than {SMALL} bytes are taken on one stream"
                    )));
                }
                Ok(frame)
            }));
        }
        ready!(self.is_over.as_mut().poll(cx));
        Poll::Ready(Some(Err(Status::deadline_exceeded("the stream has been open for long enough; begin a new one"))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn message(is_compressed: bool, bytes: &[u8]) -> Vec<u8> {
        let length = u32::try_from(bytes.len()).expect("a length").to_be_bytes();
        [&[u8::from(is_compressed)][..], &length, bytes].concat()
    }

    fn bytes_of(received: Received) -> Vec<u8> {
        let mut message = received;
        message.end_last();
        message.pieces.iter().flat_map(|piece| piece.to_vec()).collect()
    }

    #[test]
    fn a_message_may_come_in_pieces_of_any_size() {
        let bytes: Vec<u8> = (0..300_000_u32).map(|number| number as u8).collect();
        let whole = message(true, &bytes);
        for size in [1, 4, 5, 6, 1000, LARGE_PIECE, 100_000, whole.len()] {
            let mut received = Received::default();
            for piece in whole.chunks(size) {
                assert!(!received.is_compressed_whole(), "not before its last piece");
                received.push(Bytes::copy_from_slice(piece));
            }
            assert!(received.is_compressed_whole());
            assert_eq!(received.prefix, Some(Prefix { is_compressed: true, length: bytes.len() }));
            assert!(received.pieces.len() <= 1 + whole.len() / LARGE_PIECE + 1, "crumbs are put together");
            let mut read = Vec::new();
            received.into_message().read_to_end(&mut read).expect("it is in memory");
            assert!(read == bytes, "in pieces of {size}");
        }
    }

    #[test]
    fn what_is_unpacked_is_an_uncompressed_message() {
        let bytes = "long and dull ".repeat(20_000).into_bytes();
        let packed = |encoding: Encoding| match encoding {
            Encoding::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(&bytes).expect("it is compressed");
                encoder.finish().expect("it is compressed")
            }
            Encoding::Deflate => {
                let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(&bytes).expect("it is compressed");
                encoder.finish().expect("it is compressed")
            }
            Encoding::Zstd => zstd::encode_all(&*bytes, 3).expect("it is compressed"),
        };
        for encoding in [Encoding::Gzip, Encoding::Deflate, Encoding::Zstd] {
            let received = || {
                let mut received = Received::default();
                received.push(message(true, &packed(encoding)).into());
                received
            };
            let unpacked = encoding.unpack(received(), bytes.len()).expect("it has room");
            assert_eq!(unpacked.length, bytes.len());
            assert!(bytes_of(unpacked) == message(false, &bytes), "{encoding:?}");
            let status = encoding.unpack(received(), bytes.len() - 1).expect_err("it has no room");
            assert_eq!(status.code(), tonic::Code::ResourceExhausted, "{encoding:?}");
            let mut cut = Received::default();
            cut.push(message(true, &packed(encoding)[..20]).into());
            assert_eq!(encoding.unpack(cut, bytes.len()).expect_err("it is cut").code(), tonic::Code::Internal);
            // As much as there can be, and no more than is reckoned with.
            let zeroes = vec![0; 64 << 20];
            let smallest = match encoding {
                Encoding::Zstd => zstd::encode_all(&*zeroes, 19).expect("it is compressed").len(),
                _ => {
                    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
                    encoder.write_all(&zeroes).expect("it is compressed");
                    encoder.finish().expect("it is compressed").len()
                }
            };
            assert!(zeroes.len() / smallest <= encoding.most_unpacked(), "{encoding:?}: {smallest}");
        }
    }

    /// Fault: a megabyte that unpacks to a gigabyte wants a window of as much, before a byte of it is written.
    #[test]
    fn a_zstd_frame_that_wants_much_memory_is_refused() {
        let mut encoder = zstd::Encoder::new(Vec::new(), 3).expect("an encoder");
        encoder.window_log(27).expect("a window of 128 MiB");
        encoder.write_all(b"small").expect("it is compressed");
        let mut received = Received::default();
        received.push(message(true, &encoder.finish().expect("it is compressed")).into());
        let status = Encoding::Zstd.unpack(received, 1 << 20).expect_err("it wants too much");
        assert_eq!(status.code(), tonic::Code::Internal);
    }
}
