//! How deep the messages of an object may be within each other.

use prost_reflect::{Kind as FieldKind, MessageDescriptor};

use crate::encoded::Object;
use crate::error::{Error, Result};
use crate::proto::DESCRIPTORS;
use crate::wire;

/// How many messages an object may have within each other, its own not counted.
///
/// Feast's clients read 100 (both implementations of protobuf for Python do), and the answers of the server wrap an object
/// in up to two: `ListAllFeatureViewsResponse` and `AnyFeatureView`. What is deeper could be stored and read by nobody:
/// `interop/test_hostile.py` holds this number against Feast's client.
pub(crate) const MAX_DEPTH: usize = 98;

/// Checks that Feast's clients can read the object in any answer.
///
/// # Errors
/// `InvalidArgument` when its messages are deeper within each other than [`MAX_DEPTH`].
pub(crate) fn check_depth(object: &Object, project: &str) -> Result<()> {
    let descriptor = DESCRIPTORS.get_message_by_name(&format!("feast.core.{}", object.kind.message_name()));
    if is_deeper(descriptor.as_ref(), &object.bytes, MAX_DEPTH)? {
        return Err(Error::invalid(format!(
            "the {} `{}` of project `{project}` has messages within messages, more than {MAX_DEPTH} of them, and Feast's \
             clients could not read it",
            object.kind,
            object.name()?
        )));
    }
    Ok(())
}

/// Whether a message has more than so many levels below it: of sub-messages, of entries of maps (which are messages too),
/// and of groups. It recurses once a level, so `levels` bounds its own depth.
fn is_deeper(of: Option<&MessageDescriptor>, message: &[u8], levels: usize) -> Result<bool> {
    for field in wire::fields(message) {
        let field = field?;
        let kind = of.and_then(|of| of.get_field(field.number)).map(|known| known.kind());
        let (inner, content) = match (field.group(), kind) {
            (Some(group), _) => (None, group),
            (None, Some(FieldKind::Message(inner))) if field.is_length_delimited() => (Some(inner), field.content),
            _ => continue,
        };
        if levels == 0 || is_deeper(inner.as_ref(), content, levels - 1)? {
            return Ok(true);
        }
    }
    Ok(false)
}
