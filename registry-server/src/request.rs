//! A request on its way in.
//!
//! It is received whole, and unpacked, before any service sees it. So nobody makes room for what is only announced, a request
//! that is broken off has no effect, and a call is one message and no more. Large ones share a budget, of bytes that have come or
//! were unpacked: what finds no room is refused, since it could not wait without keeping from the rest of its connection what
//! that needs. When as many calls are under way as there may be, those whose requests have been coming for longest make way.

mod json;

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::BytesMut;
use feast_registry_core::{CallOptions, Error, Registry};
use flate2::read::{GzDecoder, ZlibDecoder};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, timeout_at};
use tonic::Status;
use tonic::codegen::Bytes;
use tonic::codegen::http::{HeaderMap, Method};

use crate::complaints::Complaint;
use crate::heavy::many;
use crate::protocol::Protocol;
use crate::record::Identity;
use crate::status::status;
use crate::tenants::Memory;

/// What takes no more bytes than this is not counted.
const SMALL: usize = 64 * 1024;
/// How many bytes of requests may wait for their answers: that have come, whole or in part, or were unpacked.
const BUDGET: usize = 256 * 1024 * 1024;
/// What the budget is counted in.
const UNIT: usize = 1024;
/// What unpacks to more is not unpacked on a thread that answers calls.
const UNPACKED_AT_ONCE: usize = 1024 * 1024;
/// The largest request that stores nothing: as much as Feast's own server takes.
const LARGEST_QUESTION: usize = 4 * 1024 * 1024;
/// How many times larger one becomes when it is decoded, at the most: maps of tags of a few bytes. What is to be stored is
/// handed on as it is.
const QUESTION_GROWS: usize = 16;
/// Of so many bytes of JSON the memory is counted in the time that one object of a list takes.
const WEIGHED_AS_ONE: usize = 4 * 1024;
/// The largest body of JSON.
const LARGEST_JSON: usize = 32 * 1024 * 1024;
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
    room: Arc<Semaphore>,
    /// How many bytes there is room for if nothing has any.
    all_room: usize,
    /// The largest message that is accepted.
    max_message_size: usize,
    /// Whose threads unpack large requests.
    registry: Registry,
}

/// What is asked for, as far as it matters to what a request may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Allowance {
    /// The largest that it may be, unpacked.
    most: usize,
    /// What it takes when it is read.
    weight: Weight,
}

/// What a request takes when it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weight {
    /// So many times its size.
    Times(usize),
    /// What its values take ([`json::memory`]).
    OfJson,
}

impl Allowance {
    /// What has no place among the calls, and no room.
    pub(crate) fn of_up_to(most: usize) -> Self {
        Self { most, weight: Weight::Times(1) }
    }
}

/// The room that a request has, until this is dropped.
#[derive(Debug, Default)]
pub(crate) struct Room {
    permit: Option<OwnedSemaphorePermit>,
    /// Of the caller's own memory, if callers are known.
    of_caller: Option<OwnedSemaphorePermit>,
    caller: Option<Memory>,
}

impl Room {
    /// None yet, of somebody's.
    fn of(caller: Option<Memory>) -> Self {
        Self { permit: None, of_caller: None, caller }
    }

    fn units(&self) -> usize {
        self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits)
    }
}

impl RequestLimits {
    pub(crate) fn new(max_message_size: usize, registry: Registry) -> Self {
        // The largest has room, packed and unpacked, if nothing else has.
        let all_room = BUDGET.max(max_message_size.saturating_mul(2).saturating_add(SMALL));
        let room = Arc::new(Semaphore::new(all_room.div_ceil(UNIT)));
        Self { room, all_room, max_message_size, registry }
    }

    /// Of a call with this path.
    pub(crate) fn allowance(&self, path: &str) -> Allowance {
        let method = path.rsplit('/').next().unwrap_or_default();
        match method.starts_with("Apply") || method.starts_with("Update") {
            true => Allowance { most: self.max_message_size, weight: Weight::Times(1) },
            false => {
                Allowance { most: self.max_message_size.min(LARGEST_QUESTION), weight: Weight::Times(QUESTION_GROWS) }
            }
        }
    }

    /// Of a request of the REST API, with the method that it asks in for something that there is: a body is for what is to be stored.
    pub(crate) fn allowance_of_rest(&self, method: Option<&Method>) -> Allowance {
        match method {
            Some(&Method::POST | &Method::PUT) => {
                Allowance { most: self.max_message_size.min(LARGEST_JSON), weight: Weight::OfJson }
            }
            _ => Allowance::of_up_to(SMALL),
        }
    }

    /// A request, once all of it has come.
    ///
    /// # Errors
    /// When it is too large, does not come to its end, or has no room; nothing of it was done.
    pub(crate) async fn arrival(
        &self,
        mut body: Incoming,
        protocol: Protocol,
        Allowance { most, .. }: Allowance,
        identity: &Identity,
        caller: Option<Memory>,
    ) -> Result<(Received, Room), Status> {
        let (mut received, mut room) = (Received::default(), Room::of(caller));
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
            if protocol == Protocol::Rest {
                if arrived > most {
                    return Err(Status::out_of_range(format!(
                        "the body is larger than {most} bytes; nothing was done"
                    )));
                }
                continue;
            }
            let Some(Prefix { length, .. }) = received.prefix else { continue };
            if length > most {
                return Err(too_large(&format!("has {length} bytes"), most));
            }
            if arrived > PREFIX + length {
                return Err(Status::internal("the request has more than one message; nothing was done"));
            }
        }
        Ok((received, room))
    }

    /// Takes the room that is missing to so many bytes, unless they are few.
    fn make_room(&self, bytes: usize, room: &mut Room) -> Result<(), Status> {
        if bytes <= SMALL {
            return Ok(());
        }
        let missing = bytes.div_ceil(UNIT).saturating_sub(room.units());
        if missing > 0 {
            let missing = u32::try_from(missing).map_err(|_| no_room())?;
            if let Some(caller) = &room.caller
                && !caller.add(&mut room.of_caller, bytes)
            {
                return Err(Status::resource_exhausted(
                    "the caller's other requests and answers take all the memory that one caller may have; nothing was done: try again later",
                ));
            }
            let more = Arc::clone(&self.room).try_acquire_many_owned(missing).map_err(|_| no_room())?;
            match &mut room.permit {
                Some(has) => has.merge(more),
                has => *has = Some(more),
            }
        }
        Ok(())
    }

    /// A body of JSON that has come, with room for what it becomes when it is read.
    ///
    /// # Errors
    /// When it has no room: OUT_OF_RANGE if it never has; nothing of it was done.
    async fn weighed(
        &self,
        received: Received,
        mut room: Room,
        (path, options): (&str, CallOptions),
    ) -> Result<(Received, Room), Status> {
        let pieces: Vec<Bytes> = received.pieces.iter().cloned().collect();
        let count = received.length / WEIGHED_AS_ONE;
        let weigh = move || Ok(json::memory(pieces.iter().map(|piece| &**piece)));
        let memory =
            self.registry.with_call(options).compute(count, weigh).await.map_err(|error| status(path, error))?;
        if memory > self.all_room {
            return Err(Status::out_of_range(format!(
                "the body has so many values that it would take {} MiB when it is read, and there are {} MiB for all requests; \
                 nothing was done: send it in parts",
                memory >> 20,
                self.all_room >> 20
            )));
        }
        self.make_room(memory, &mut room)?;
        Ok((received, room))
    }

    /// A request that has come, unpacked if it is compressed. It then has room for what it becomes when it is decoded.
    ///
    /// # Errors
    /// When it cannot be unpacked, is too large, or has no room; nothing of it was done.
    pub(crate) async fn unpacked(
        &self,
        mut received: Received,
        protocol: Protocol,
        mut room: Room,
        headers: &mut HeaderMap,
        allowance: Allowance,
        call: (&str, CallOptions),
    ) -> Result<(Received, Room), Status> {
        received.end_last();
        let Allowance { most, weight } = allowance;
        let Weight::Times(weight) = weight else { return self.weighed(received, room, call).await };
        let is_compressed = protocol == Protocol::Grpc && received.is_compressed_whole();
        let encoding = if is_compressed { Encoding::of(headers) } else { None };
        let Some(encoding) = encoding else {
            self.make_room(received.length.saturating_mul(weight), &mut room)?;
            return Ok((received, room));
        };
        headers.remove(ENCODING);
        // Most end here.
        let at_once = most.min(UNPACKED_AT_ONCE);
        if let Some(unpacked) = encoding.unpack(received.clone().into_message(), at_once)? {
            let caller = room.caller.take();
            drop(room);
            let mut room = Room::of(caller);
            self.make_room(unpacked.length.saturating_mul(weight), &mut room)?;
            return Ok((unpacked, room));
        }
        let (limits, packed) = (self.clone(), received.length);
        let work = move || {
            // Once to know how large it becomes, and then, if there is room, to have it.
            let Some(length) = encoding.measure(received.clone().into_message(), most)? else {
                return Err(too_large("unpacks to more", most));
            };
            let mut unpacked_room = Room::of(room.caller.clone());
            limits.make_room(length.saturating_mul(weight), &mut unpacked_room)?;
            let unpacked = encoding.unpack(received.into_message(), most)?;
            // The room goes along, since the work goes on to its end when its caller leaves.
            drop(room);
            let unpacked = unpacked.ok_or_else(|| Status::internal("the request unpacks in two ways"))?;
            Ok((unpacked, unpacked_room))
        };
        let (path, options) = call;
        let work = move || Ok::<_, Error>(work());
        self.registry.with_call(options).compute(many(packed), work).await.map_err(|error| status(path, error))?
    }
}

fn too_large(what_it_does: &str, most: usize) -> Status {
    Status::resource_exhausted(format!(
        "the request {what_it_does}, and at most {most} bytes are taken (--max-message-size; less, where nothing is to be stored); \
         nothing was done"
    ))
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

    /// The message that this unpacks to; `None` if that has more than so many bytes.
    fn unpack(self, packed: Message, limit: usize) -> Result<Option<Received>, Status> {
        self.with(packed, |unpacking| read_all(unpacking, limit))
    }

    /// How many bytes this unpacks to; `None` if they are more than so many.
    fn measure(self, packed: Message, limit: usize) -> Result<Option<usize>, Status> {
        self.with(packed, |unpacking| {
            let length = io::copy(&mut unpacking.take(limit as u64 + 1), &mut io::sink())?;
            Ok(usize::try_from(length).ok().filter(|length| *length <= limit))
        })
    }

    fn with<T>(self, packed: Message, read: impl FnOnce(&mut dyn Read) -> io::Result<T>) -> Result<T, Status> {
        let done = match self {
            Self::Gzip => read(&mut GzDecoder::new(packed)),
            Self::Deflate => read(&mut ZlibDecoder::new(packed)),
            Self::Zstd => zstd::Decoder::new(packed).and_then(|mut decoder| {
                decoder.window_log_max(ZSTD_WINDOW_LOG)?;
                read(&mut decoder)
            }),
        };
        done.map_err(|error| Status::internal(format!("the request cannot be unpacked ({error}); nothing was done")))
    }
}

/// An uncompressed message of all that there is to read; `None` if that is more than so many bytes.
fn read_all(unpacking: &mut dyn Read, limit: usize) -> io::Result<Option<Received>> {
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
#[derive(Debug, Clone, Default)]
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
#[derive(Debug, Clone, Default)]
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

/// Which requests are coming. When there are too many calls, the one that has been coming for longest makes way: one that a client
/// means to send to its end is rarely that.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    /// Numbered as they began.
    coming: Mutex<BTreeMap<u64, Arc<Notify>>>,
    began: AtomicU64,
}

/// A request that is coming, until this is dropped.
pub(crate) struct Arriving<'a> {
    arrivals: &'a Arrivals,
    number: u64,
    makes_way: Arc<Notify>,
}

impl Arrivals {
    fn coming(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Notify>>> {
        self.coming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn begin(&self) -> Arriving<'_> {
        let makes_way = Arc::new(Notify::new());
        let number = self.began.fetch_add(1, Ordering::Relaxed);
        self.coming().insert(number, Arc::clone(&makes_way));
        Arriving { arrivals: self, number, makes_way }
    }

    /// Has the oldest make way; `false` if none is coming.
    pub(crate) fn end_oldest(&self) -> bool {
        let oldest = self.coming().pop_first();
        oldest.map(|(_, makes_way)| makes_way.notify_one()).is_some()
    }
}

impl Arriving<'_> {
    /// Completes when it has to make way.
    pub(crate) async fn makes_way(&self) {
        self.makes_way.notified().await;
    }
}

impl Drop for Arriving<'_> {
    fn drop(&mut self) {
        self.arrivals.coming().remove(&self.number);
    }
}

/// The request of a call that is a conversation. It may have a little, and a while.
///
/// It is received whatever becomes of the answers: else what one client does not read would keep from all others of its
/// connection, which may be a proxy's, the room to send anything.
pub(crate) struct Conversation(mpsc::UnboundedReceiver<Bytes>);

impl Conversation {
    pub(crate) fn new(mut body: Incoming, identity: Arc<Identity>, until: Instant) -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        tokio::spawn(timeout_at(until, async move {
            loop {
                let frame = tokio::select! {
                    frame = body.frame() => frame,
                    () = sender.closed() => break,
                };
                let Some(Ok(frame)) = frame else { break };
                let Ok(data) = frame.into_data() else { continue };
                if identity.receives(data.len()) > SMALL || sender.send(data).is_err() {
                    break;
                }
            }
        }));
        Self(receiver)
    }
}

impl http_body::Body for Conversation {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.0.poll_recv(cx).map(|data| data.map(|data| Ok(Frame::data(data))))
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
            let packed = packed(encoding);
            let of = |packed: &[u8]| {
                let mut received = Received::default();
                received.push(message(true, packed).into());
                received.into_message()
            };
            let unpacked = encoding.unpack(of(&packed), bytes.len()).expect("it is sound").expect("it has room");
            assert_eq!(unpacked.length, bytes.len());
            assert_eq!(encoding.measure(of(&packed), bytes.len()).expect("it is sound"), Some(bytes.len()));
            assert!(bytes_of(unpacked) == message(false, &bytes), "{encoding:?}");
            assert!(encoding.unpack(of(&packed), bytes.len() - 1).expect("it is sound").is_none(), "{encoding:?}");
            assert!(encoding.measure(of(&packed), bytes.len() - 1).expect("it is sound").is_none(), "{encoding:?}");
            let cut = encoding.unpack(of(&packed[..20]), bytes.len()).expect_err("it is cut");
            assert_eq!(cut.code(), tonic::Code::Internal);
        }
    }

    #[tokio::test]
    async fn the_oldest_that_is_still_coming_makes_way() {
        let arrivals = Arrivals::default();
        assert!(!arrivals.end_oldest(), "none is coming");
        let (first, second) = (arrivals.begin(), arrivals.begin());
        drop(first);
        assert!(arrivals.end_oldest());
        second.makes_way().await;
        let third = arrivals.begin();
        drop(second);
        assert!(arrivals.end_oldest(), "the third is coming still");
        third.makes_way().await;
    }

    /// Fault: a megabyte that unpacks to a gigabyte wants a window of as much, before a byte of it is written.
    #[test]
    fn a_zstd_frame_that_wants_much_memory_is_refused() {
        let mut encoder = zstd::Encoder::new(Vec::new(), 3).expect("an encoder");
        encoder.window_log(27).expect("a window of 128 MiB");
        encoder.write_all(b"small").expect("it is compressed");
        let mut received = Received::default();
        received.push(message(true, &encoder.finish().expect("it is compressed")).into());
        let status = Encoding::Zstd.unpack(received.into_message(), 1 << 20).expect_err("it wants too much");
        assert_eq!(status.code(), tonic::Code::Internal);
    }
}
