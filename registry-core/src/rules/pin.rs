//! The version that a view asks for (Feast: `feast.version_utils`).

use crate::backend::Key;
use crate::encoded::Object;
use crate::error::{Error, Result};
use crate::kind::Kind;
use crate::wire;

/// The version that a view asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// Whatever comes next.
    Latest,
    /// This one.
    Pinned(i32),
}

impl Version {
    /// Reads `latest`, `vN` or `versionN`, in any case; empty is `latest`.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let lower = text.to_lowercase();
        if lower.is_empty() || lower == "latest" {
            return Ok(Version::Latest);
        }
        let digits = lower
            .strip_prefix("version")
            .or_else(|| lower.strip_prefix('v'))
            .filter(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
            .ok_or_else(|| {
                Error::invalid(format!("`{text}` is not a version: it is `latest`, or as `v2` or `version2`"))
            })?;
        // All that can be wrong with digits is that there are too many.
        digits.parse().map(Version::Pinned).map_err(|_| {
            Error::invalid(format!("there is no version `{text}`: the highest that can be made is v{HIGHEST_NEW_PIN}"))
        })
    }
}

/// The highest version that a view may ask for which is not in its history yet. Each change of the schema adds one to the
/// highest number that was ever given, so one near the end of `i32` would leave no room for the next changes.
pub(crate) const HIGHEST_NEW_PIN: i32 = 1_000_000_000;

/// The field of a view's spec that says which version it asks for; label views have none.
pub(crate) fn version_field(kind: Kind) -> Option<u32> {
    match kind {
        Kind::FeatureView => Some(18),
        Kind::StreamFeatureView => Some(21),
        Kind::OnDemandFeatureView => Some(17),
        _ => None,
    }
}

/// The version that a view pins, if it does.
pub(crate) fn pinned(view: &Object) -> Result<Option<i32>> {
    let Some(field) = version_field(view.kind) else { return Ok(None) };
    match Version::parse(wire::text(&view.spec()?, field)?)? {
        Version::Latest => Ok(None),
        Version::Pinned(number) => Ok(Some(number)),
    }
}

/// Where a version is stored.
pub(crate) fn key(project: &str, view: &str, number: i32) -> Key {
    Key::Version { project: project.to_owned(), view: view.to_owned(), number }
}
