//! What of an object an undo takes back: its definition, and of what has been materialized only what is asked for.

use std::collections::HashMap;

use prost_types::Timestamp;

use crate::encoded::Object;
use crate::error::Result;
use crate::rules::definition::{self, Closeness};
use crate::rules::meta::Meta;

/// Whether two objects are defined in the same way. One that cannot be decoded is only the same as itself.
pub(super) fn is_same_definition(one: &Object, other: &Object) -> bool {
    one.bytes == other.bytes || definition::is_same(one, other, Closeness::Exact).unwrap_or(false)
}

/// Whether two objects say the same but for what the registry notes by itself: moments, versions, materializations.
pub(super) fn is_same(one: &Object, other: &Object) -> bool {
    let own = |object: &Object| Meta::of(object).map(Meta::into_applied).ok();
    one.bytes == other.bytes || (is_same_definition(one, other) && own(one) == own(other))
}

/// The object with what somebody who applies it says, without what the registry notes by itself.
pub(super) fn applied(object: &Object) -> Result<Object> {
    object.check()?;
    Meta::of(object)?.into_applied().put_into(object)
}

/// How many intervals of a view have been recorded; none where that cannot be read.
pub(super) fn intervals(view: &Object) -> usize {
    Meta::of(view).map_or(0, |meta| meta.intervals.len())
}

/// A view as it is stored, but that what commits changed of its materializations is taken back: what is between `left` and
/// `to`. What others have recorded since stays. `None` if that changes nothing.
///
/// At this moment (UTC). Where it is not known what was left, all that has been materialized goes back to what it was.
pub(super) fn rematerialized(
    stored: &Object,
    left: Option<&Object>,
    to: &Object,
    at: &Timestamp,
) -> Result<Option<Object>> {
    let (now, to) = (Meta::of(stored)?, Meta::of(to)?);
    let left = left.map(Meta::of).transpose()?;
    let mut meta = now.clone();
    if left.as_ref().is_none_or(|left| left.state == now.state) {
        meta.state = to.state;
    }
    meta.intervals = match left {
        Some(left) if left.intervals != now.intervals => {
            let mut intervals = beyond(&now.intervals, &beyond(&left.intervals, &to.intervals));
            intervals.extend(beyond(&to.intervals, &left.intervals));
            intervals
        }
        _ => to.intervals,
    };
    if meta == now {
        return Ok(None);
    }
    meta.touch(at);
    meta.put_into(stored).map(Some)
}

/// The intervals without the others: of those that are equal, the last ones go.
fn beyond(intervals: &[Vec<u8>], others: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut gone: HashMap<&[u8], usize> = HashMap::new();
    for other in others {
        *gone.entry(other).or_default() += 1;
    }
    let mut is_kept = |interval: &[u8]| match gone.get_mut(interval) {
        Some(left) if *left > 0 => {
            *left -= 1;
            false
        }
        _ => true,
    };
    let mut kept: Vec<Vec<u8>> = intervals.iter().rev().filter(|interval| is_kept(interval)).cloned().collect();
    kept.reverse();
    kept
}
