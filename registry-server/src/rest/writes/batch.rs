//! Many changes of a project as one commit.

use feast_registry_core::{Edit, Kind};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tonic::codegen::http::StatusCode;

use super::super::answer::Answer;
use super::super::call::Call;
use super::super::error::{RestError, Result};
use super::conditions::Conditions;
use super::replace;

/// How many changes one batch may have.
const MOST: usize = 1000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BatchBody {
    edits: Vec<EditBody>,
}

/// A change: what is applied, or what is deleted.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EditBody {
    /// As `entity` or `feature_views`.
    kind: String,
    /// Of what is deleted; of what is applied it may be left to the object.
    #[serde(default)]
    name: String,
    /// What is applied, in protobuf's JSON.
    apply: Option<Map<String, Value>>,
    #[serde(default)]
    delete: bool,
    if_match: Option<String>,
    if_none_match: Option<String>,
}

impl EditBody {
    fn edit(self) -> Result<(Kind, String, Edit)> {
        let kind: Kind = self.kind.parse()?;
        let (name, edit) = match (self.apply, self.delete) {
            (Some(fields), false) => {
                let object = replace::object(kind, fields)?;
                let object = if self.name.is_empty() { object } else { replace::named(object, &self.name)? };
                (object.name()?, Edit::apply_known(object))
            }
            (None, true) => (self.name.clone(), Edit::delete(kind, self.name)),
            _ => {
                return Err(RestError::invalid_request("an edit has either `apply` with an object, or `delete: true`"));
            }
        };
        if name.is_empty() && kind != Kind::Infra {
            return Err(RestError::invalid_request(format!("an edit of a {kind} says no name")));
        }
        let conditions = Conditions::of(self.if_match.as_deref(), self.if_none_match.as_deref())?;
        Ok((kind, name, conditions.on(edit)))
    }
}

impl Call {
    /// `POST /batch`.
    pub(crate) async fn batch(self) -> Result<Answer> {
        if !self.conditions()?.are_none() {
            return Err(RestError::invalid_request(
                "conditions of a batch stand in its edits, as `if_match` and `if_none_match`: its headers are about no object",
            ));
        }
        let body: BatchBody = self.body()?;
        if body.edits.len() > MOST {
            return Err(RestError::invalid_request(format!("`edits` has more than {MOST} changes")));
        }
        let mut named = Vec::new();
        let mut edits = Vec::new();
        for (number, edit) in body.edits.into_iter().enumerate() {
            let (kind, name, edit) = edit.edit().map_err(|error| error.within(&format!("edits[{number}]")))?;
            named.push((kind, name));
            edits.push(edit);
        }
        let project = self.given.project();
        let edited = self.edit(project, edits).await?;
        let told = named.iter().zip(&edited).map(|((kind, name), edited)| {
            json!({ "kind": kind.label(), "name": name, "changed": edited.has_changed, "version": edited.version })
        });
        let told = json!({ "project": project, "status": "applied", "edits": told.collect::<Vec<_>>() });
        let first = edited.iter().find(|edited| edited.has_changed).or(edited.first());
        self.done(told, first, StatusCode::OK)
    }
}
