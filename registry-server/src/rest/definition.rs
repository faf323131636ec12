//! Placeholder until the branch is merged.
use feast_registry_core::{Feature, Object, Result};
pub(crate) fn of_object(_: &Object) -> Result<Option<String>> {
    Ok(None)
}
pub(crate) fn of_feature(_: &Feature) -> String {
    String::new()
}
