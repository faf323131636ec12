//! What was stored before a change, kept as what tells it from what is stored after it: for backends that keep a journal.
//!
//! Of an object that is changed most stays as it is: a materialization adds one interval to a view of many kilobytes. So the
//! value before is compressed with the value after as its dictionary, which leaves some bytes of it.

use bytes::Bytes;
use lz4_flex::block::{compress_with_dict, decompress_with_dict};

/// Less is not worth it.
const LEAST: usize = 256;
/// LZ4 finds nothing that is farther away.
const MOST: usize = 64 * 1024;
/// The most bytes that one byte of LZ4 stands for.
const MOST_FROM_A_BYTE: usize = 255;

/// A value in little room, and its length in bytes. `None` where that would not be at most half of it.
pub fn pack(before: &[u8], after: &[u8]) -> Option<(Bytes, i32)> {
    if !(LEAST..=MOST).contains(&before.len()) || after.len() > MOST {
        return None;
    }
    let packed = compress_with_dict(before, after);
    let length = i32::try_from(before.len()).ok()?;
    (packed.len() <= before.len() / 2).then(|| (packed.into(), length))
}

/// The value of a length in bytes again; `None` if it was not packed with this one. Takes memory in proportion to what is packed,
/// whatever the length is said to be.
pub fn unpack(packed: &[u8], length: i32, after: &[u8]) -> Option<Bytes> {
    let length = usize::try_from(length).ok().filter(|length| *length <= MOST_FROM_A_BYTE * packed.len())?;
    let value = decompress_with_dict(packed, length, after).ok()?;
    (value.len() == length).then(|| value.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A view with so many intervals.
    fn view(intervals: u32) -> Vec<u8> {
        let spec = (0..2_000_u32).map(|number| (number * 7919 % 251) as u8);
        spec.chain((0..intervals).flat_map(|number| (number * 3_600).to_be_bytes())).collect()
    }

    #[test]
    fn what_is_packed_comes_back_and_takes_little() {
        for intervals in [0, 1, 100, 5_000] {
            let (before, after) = (view(intervals), view(intervals + 1));
            let (packed, length) = pack(&before, &after).expect("it is worth it");
            assert!(packed.len() < 200, "{} bytes for {length}", packed.len());
            assert_eq!(unpack(&packed, length, &after).expect("it comes back"), before);
            assert_eq!(unpack(&packed, length + 1, &after), None);
            assert_eq!(unpack(&packed, i32::MAX, &after), None);
            assert_eq!(unpack(&packed, -1, &after), None);
            assert_ne!(unpack(&packed, length, b"another"), Some(before.into()));
        }
    }

    #[test]
    fn what_would_not_be_smaller_or_is_far_away_is_left_as_it_is() {
        let noise: Vec<u8> = (0..1_000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        assert_eq!(pack(&noise, b"after"), None);
        assert_eq!(pack(b"short", b"short"), None);
        let large = vec![7; MOST + 1];
        assert_eq!(pack(&large, &large), None);
        assert_eq!(pack(&view(1), &large), None);
    }

    #[test]
    fn what_is_stored_and_no_such_thing_is_nothing() {
        for garbage in [&b""[..], b"\0", b"\xff\xff\xff\xff\xff", b"\x0f\xff\xff"] {
            for length in [0, 1, 300, 1_000_000] {
                assert!(unpack(garbage, length, b"after").is_none_or(|value| value.len() == length as usize));
            }
        }
    }
}
