//! Conditions of a change (RFC 9110): `If-Match` and `If-None-Match`, which hold at the moment of its commit.

use feast_registry_core::{Condition, Edit, Object};
use tonic::codegen::http::header::{HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH};

use super::super::call::Call;
use super::super::error::{RestError, Result};
use super::super::tag::{ANY, object_part, object_tag, tags};

/// What must be so for an object to be changed.
#[derive(Debug, Clone, Default)]
pub(super) struct Conditions(Vec<Condition>);

impl Conditions {
    /// Those of the headers, or the fields, of these names.
    pub(super) fn of(if_match: Option<&str>, if_none_match: Option<&str>) -> Result<Self> {
        let mut conditions = Vec::new();
        if let Some(text) = if_match {
            conditions.push(match text.trim() == ANY {
                true => Condition::present(),
                false => is_one_of(text),
            });
        }
        if let Some(text) = if_none_match {
            if text.trim() != ANY {
                return Err(RestError::invalid_request(
                    "`If-None-Match` of a change can be `*` alone: that the object is not there yet; `If-Match` names the state that is to be changed",
                ));
            }
            conditions.push(Condition::absent());
        }
        Ok(Self(conditions))
    }

    pub(super) fn are_none(&self) -> bool {
        self.0.is_empty()
    }

    /// An edit that is done only if they hold.
    pub(super) fn on(self, edit: Edit) -> Edit {
        self.0.into_iter().fold(edit, Edit::when)
    }
}

fn is_one_of(text: &str) -> Condition {
    let wanted: Vec<String> = tags(text).map(|tag| object_part(tag).to_owned()).collect();
    let otherwise = format!("has none of the tags {text}: it has been changed or deleted since they were read");
    let has = move |object: &Object| wanted.contains(&object_tag(object));
    Condition::new(otherwise, move |object| object.is_some_and(&has))
}

impl Call {
    /// The conditions of the request's headers.
    pub(super) fn conditions(&self) -> Result<Conditions> {
        let header = |name: HeaderName| {
            let all: std::result::Result<Vec<&str>, _> =
                self.headers.get_all(&name).iter().map(HeaderValue::to_str).collect();
            // What cannot be read is not to be taken for no condition.
            let all = all.map_err(|_| RestError::invalid_request(format!("the header `{name}` is no text")))?;
            Ok::<_, RestError>((!all.is_empty()).then(|| all.join(", ")))
        };
        Conditions::of(header(IF_MATCH)?.as_deref(), header(IF_NONE_MATCH)?.as_deref())
    }
}
