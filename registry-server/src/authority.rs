//! What clients call a server that is at a Unix socket.
//!
//! gRPC's C core, and so Feast's client, sends the path of the socket as `:authority`, percent-encoded: `run%2Ffeast%2Fregistry.sock`. By
//! RFC 3986 that may be the name of a host, but the parser of the crate `http` does not take it, and h2 resets the stream before anybody sees
//! the request. So on these connections the `%` of an authority becomes `-`, before h2 reads it. Nothing depends on what it is. An authority in Huffman's
//! code, or in a frame of its own (CONTINUATION), stays as it is: the C core sends neither.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

/// What a client of HTTP/2 says first (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How many bytes the head of a frame has: length (3), type, flags, stream (4).
const HEAD: usize = 9;
/// The type of frames that begin the headers of a request, and their flags that have something stand before these.
const HEADERS: u8 = 1;
const PADDED: u8 = 0x08;
const PRIORITY: u8 = 0x20;
/// The largest frame that is looked into: what a client may send unless it is told otherwise, and it is not.
const LARGEST_FRAME: usize = 16 * 1024;
/// Of the static table of HPACK (RFC 7541, appendix A).
const AUTHORITY_INDEX: usize = 1;
const AUTHORITY: &[u8] = b":authority";

/// What is read of a connection, with authorities put right.
#[derive(Debug)]
pub(crate) struct Authorities {
    reads: Reads,
    /// What was read of what is looked at as a whole.
    held: Vec<u8>,
    /// How many bytes of `held` have been handed on, once it is whole.
    handed_on: Option<usize>,
}

/// What comes next.
#[derive(Debug, Clone, Copy)]
enum Reads {
    /// The first words, as many bytes as are compared already.
    Preface,
    /// The head of a frame.
    Head,
    /// A frame with headers, and its head, of so many bytes.
    Headers(usize),
    /// So many bytes of a frame that nobody looks at.
    Other(usize),
    /// It is no HTTP/2.
    Anything,
}

impl Authorities {
    pub(crate) fn new() -> Self {
        Self { reads: Reads::Preface, held: Vec::new(), handed_on: None }
    }

    /// Reads from this connection, as [`AsyncRead`] does.
    pub(crate) fn poll_read(
        &mut self,
        mut connection: Pin<&mut impl AsyncRead>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            if let Some(from) = self.handed_on {
                let rest = &self.held[from..];
                let now = rest.len().min(buffer.remaining());
                buffer.put_slice(&rest[..now]);
                self.handed_on = Some(from + now).filter(|until| *until < self.held.len());
                if self.handed_on.is_none() {
                    self.held.clear();
                }
                return Poll::Ready(Ok(()));
            }
            let whole = match self.reads {
                Reads::Anything => return connection.as_mut().poll_read(cx, buffer),
                Reads::Other(0) => {
                    self.reads = Reads::Head;
                    continue;
                }
                Reads::Other(left) => {
                    let room = buffer.remaining().min(left);
                    let mut part = ReadBuf::new(buffer.initialize_unfilled_to(room));
                    ready!(connection.as_mut().poll_read(cx, &mut part))?;
                    let read = part.filled().len();
                    buffer.advance(read);
                    self.reads = Reads::Other(left - read);
                    return Poll::Ready(Ok(()));
                }
                Reads::Preface => PREFACE.len(),
                Reads::Head => HEAD,
                Reads::Headers(length) => length,
            };
            let before = self.held.len();
            self.held.resize(whole, 0);
            let mut part = ReadBuf::new(&mut self.held[before..]);
            let polled = connection.as_mut().poll_read(cx, &mut part);
            let read = part.filled().len();
            self.held.truncate(before + read);
            ready!(polled)?;
            if read == 0 {
                // The client has left in the middle of it, and whoever reads sees that.
                self.reads = Reads::Anything;
                self.handed_on = Some(0).filter(|_| before > 0);
                if before == 0 {
                    return Poll::Ready(Ok(()));
                }
            } else if self.look() {
                self.handed_on = Some(0);
            }
        }
    }

    /// Looks at what is held after more of it has come: is it to be handed on?
    fn look(&mut self) -> bool {
        let next = match self.reads {
            Reads::Preface if !PREFACE.starts_with(&self.held) => Reads::Anything,
            Reads::Preface if self.held.len() == PREFACE.len() => Reads::Head,
            Reads::Head if self.held.len() == HEAD => {
                let length =
                    usize::from(self.held[0]) << 16 | usize::from(self.held[1]) << 8 | usize::from(self.held[2]);
                if self.held[3] == HEADERS && length <= LARGEST_FRAME {
                    self.reads = Reads::Headers(HEAD + length);
                    return self.look();
                }
                Reads::Other(length)
            }
            Reads::Headers(length) if self.held.len() == length => {
                let (head, payload) = self.held.split_at_mut(HEAD);
                put_right(payload, head[4]);
                Reads::Head
            }
            _ => return false,
        };
        self.reads = next;
        true
    }
}

/// Puts the authorities in the payload of a frame right. What is not understood stays for h2, which refuses it.
fn put_right(payload: &mut [u8], flags: u8) {
    let skipped = usize::from(flags & PADDED != 0) + if flags & PRIORITY != 0 { 5 } else { 0 };
    let Some(block) = payload.get_mut(skipped..) else { return };
    let mut reader = Reader { block, at: 0 };
    while let Some(value) = reader.next_value() {
        let Some(Text { is_authority: true, start, end }) = value else { continue };
        for byte in &mut reader.block[start..end] {
            if *byte == b'%' {
                *byte = b'-';
            }
        }
    }
}

/// The value of a header, where it is written as it is.
struct Text {
    is_authority: bool,
    start: usize,
    end: usize,
}

/// Reads the form of a block of headers (RFC 7541, 6), without its tables.
struct Reader<'a> {
    block: &'a mut [u8],
    at: usize,
}

impl Reader<'_> {
    /// The value of the next header, or `None` in it if the header has none here. `None` at the end.
    fn next_value(&mut self) -> Option<Option<Text>> {
        let first = *self.block.get(self.at)?;
        let name_bits = match first {
            0x80.. => {
                self.number(7)?;
                return Some(None);
            }
            0x40.. => 6,
            0x20.. => {
                self.number(5)?;
                return Some(None);
            }
            _ => 4,
        };
        let is_authority = match self.number(name_bits)? {
            0 => {
                let (start, end, is_plain) = self.string()?;
                is_plain && self.block[start..end] == *AUTHORITY
            }
            index => index == AUTHORITY_INDEX,
        };
        let (start, end, is_plain) = self.string()?;
        Some(Some(Text { is_authority: is_authority && is_plain, start, end }))
    }

    /// Where a string begins and ends, and whether it is written as it is (without Huffman's code).
    fn string(&mut self) -> Option<(usize, usize, bool)> {
        let is_plain = self.block.get(self.at)? & 0x80 == 0;
        let length = self.number(7)?;
        let start = self.at;
        let end = start.checked_add(length).filter(|end| *end <= self.block.len())?;
        self.at = end;
        Some((start, end, is_plain))
    }

    /// A number whose first byte has so many bits for it (RFC 7541, 5.1).
    fn number(&mut self, bits: u32) -> Option<usize> {
        let most = (1 << bits) - 1;
        let mut number = usize::from(*self.block.get(self.at)?) & most;
        self.at += 1;
        if number < most {
            return Some(number);
        }
        for shift in [0, 7, 14, 21] {
            let byte = *self.block.get(self.at)?;
            self.at += 1;
            number += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use proptest::prelude::*;

    use super::*;

    /// A connection on which this comes, in pieces of these sizes, again and again.
    struct Pieces {
        bytes: Vec<u8>,
        sizes: Vec<usize>,
        piece: usize,
    }

    impl AsyncRead for Pieces {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            let size = self.sizes[self.piece % self.sizes.len()].min(buffer.remaining()).min(self.bytes.len());
            self.piece += 1;
            let rest = self.bytes.split_off(size);
            buffer.put_slice(&self.bytes);
            self.bytes = rest;
            Poll::Ready(Ok(()))
        }
    }

    fn read(bytes: &[u8], sizes: &[usize], room: usize) -> Vec<u8> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let mut connection = Pieces { bytes: bytes.to_vec(), sizes: sizes.to_vec(), piece: 0 };
            let (mut authorities, mut all, mut buffer) = (Authorities::new(), Vec::new(), vec![0; room]);
            loop {
                let mut buffer = ReadBuf::new(&mut buffer);
                let read = poll_fn(|cx| authorities.poll_read(Pin::new(&mut connection), cx, &mut buffer)).await;
                read.expect("it does not fail");
                match buffer.filled() {
                    [] => return all,
                    read => all.extend_from_slice(read),
                }
            }
        })
    }

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).expect("a short one").to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    /// `:method: POST` from the table, an authority by its name or its number in the table, and another header with the same value.
    fn headers(authority: &str, by_name: bool) -> Vec<u8> {
        let value = |text: &str| {
            let mut bytes = match text.len() {
                length @ ..127 => vec![u8::try_from(length).expect("short")],
                length => vec![127, u8::try_from(length - 127).expect("short enough")],
            };
            bytes.extend_from_slice(text.as_bytes());
            bytes
        };
        let name = if by_name { [vec![0x40], value(":authority")].concat() } else { vec![0x41] };
        [vec![0x83], name, value(authority), vec![0x40], value("x-path"), value(authority), vec![0x3f, 0xe1, 0x1f]]
            .concat()
    }

    fn conversation(authority: &str, by_name: bool) -> Vec<u8> {
        let padded = [vec![3], headers(authority, by_name), vec![0; 3]].concat();
        let prioritized = [vec![0; 5], headers(authority, by_name)].concat();
        [
            PREFACE.to_vec(),
            frame(4, 0, &[]),
            frame(HEADERS, 4, &headers(authority, by_name)),
            frame(0, 0, &headers("tmp%2Fdata", false)),
            frame(HEADERS, 4 | PADDED, &padded),
            frame(HEADERS, 4 | PRIORITY, &prioritized),
            // No block of headers, and the end of a connection in the middle of one.
            frame(HEADERS, 4, &[0x41, 0xff]),
            frame(HEADERS, 4, &[0x41, 5, b'a'])[..10].to_vec(),
        ]
        .concat()
    }

    /// What is expected of a conversation: only values of authorities differ.
    fn put_right_in(bytes: &[u8], authority: &str) -> Vec<u8> {
        let mut text = bytes.to_vec();
        let wanted = authority.as_bytes();
        for at in 0..text.len().saturating_sub(wanted.len()) {
            let is_value = text[at..].starts_with(wanted);
            let before = text[..at].iter().rev().skip(if wanted.len() < 127 { 1 } else { 2 });
            let before: Vec<u8> = before.take(10).rev().copied().collect();
            if is_value && (before.ends_with(&[0x41]) || before == AUTHORITY) {
                text[at..at + wanted.len()].copy_from_slice(authority.replace('%', "-").as_bytes());
            }
        }
        text
    }

    #[test]
    fn an_authority_is_put_right_and_nothing_else() {
        for by_name in [false, true] {
            for authority in ["run%2Fr.sock", "localhost:6570", &"d%2F".repeat(50)] {
                let said = conversation(authority, by_name);
                let expected = put_right_in(&said, authority);
                assert_eq!(expected != said, authority.contains('%'), "the expectation expects something");
                assert_eq!(read(&said, &[usize::MAX], 1 << 16), expected, "{authority}");
            }
        }
    }

    proptest! {
        #[test]
        fn it_is_the_same_in_pieces_of_any_size(
            sizes in prop::collection::vec(1..40_usize, 1..8), room in 1..50_usize, by_name: bool,
        ) {
            let said = conversation("run%2Ffeast%2Fr.sock", by_name);
            prop_assert_eq!(read(&said, &sizes, room), put_right_in(&said, "run%2Ffeast%2Fr.sock"));
        }

        #[test]
        fn what_is_no_http2_comes_as_it_is(
            said in prop::collection::vec(any::<u8>(), 0..200), sizes in prop::collection::vec(1..40_usize, 1..8), begins: bool,
        ) {
            let said = if begins { [PREFACE[..10].to_vec(), said].concat() } else { said };
            prop_assume!(!said.starts_with(PREFACE));
            prop_assert_eq!(read(&said, &sizes, 64), said);
        }

        #[test]
        fn any_frames_keep_their_lengths(said in prop::collection::vec(any::<u8>(), 0..400), flags: u8) {
            let said = [PREFACE.to_vec(), frame(HEADERS, flags, &said), frame(0, 0, b"%")].concat();
            let read = read(&said, &[usize::MAX], 1 << 16);
            prop_assert_eq!(read.len(), said.len());
            let differs = |(one, other): (&u8, &u8)| one != other && (*one, *other) != (b'%', b'-');
            prop_assert!(!said.iter().zip(&read).any(differs));
        }
    }
}
