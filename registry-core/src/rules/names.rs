//! Which names an object may have (Feast: `BaseFeatureView.ensure_valid`, and the widths of the SQL registry's columns).

use crate::backend::Limits;
use crate::encoded::Object;
use crate::error::{Error, Result};
use crate::kind::Kind;

/// Checks the name of an object and of its project.
///
/// Stricter than Feast in two points: nothing may be without a name (Feast asserts this for some kinds only), and a NUL
/// character is refused everywhere, since PostgreSQL cannot store it and SQLite's own tools stop reading at it.
pub(crate) fn check_names(object: &Object, project: &str, limits: &Limits) -> Result<()> {
    check("project", project, limits)?;
    if object.kind == Kind::Infra {
        return Ok(());
    }
    let name = object.name()?;
    check(object.kind.label(), &name, limits)?;
    if object.kind.is_view() {
        for (reserved, purpose) in
            [('@', "it marks a version, as in `view@v2`"), (':', "it separates a view from a feature")]
        {
            if name.contains(reserved) {
                let kind = object.kind;
                return Err(Error::invalid(format!(
                    "the {kind} name `{name}` must not contain `{reserved}`: {purpose}"
                )));
            }
        }
    }
    Ok(())
}

fn check(what: &str, name: &str, limits: &Limits) -> Result<()> {
    if name.is_empty() {
        return Err(Error::invalid(format!("the name of the {what} is empty; it needs one")));
    }
    if name.contains('\0') {
        return Err(Error::invalid(format!("the {what} name {name:?} must not contain a NUL character")));
    }
    if let Some(limit) = limits.name_chars {
        let length = name.chars().count();
        if length > limit {
            let start: String = name.chars().take(40).collect();
            return Err(Error::invalid(format!(
                "the {what} name `{start}…` has {length} characters, and this registry stores at most {limit}"
            )));
        }
    }
    Ok(())
}
