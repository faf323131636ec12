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

/// A kind as batches spell it, among others that they take: `feature_view`.
pub(crate) fn kind_name(kind: Kind) -> String {
    kind.label().replace(' ', "_")
}

/// What each edit is about, and the edits.
type Edits = (Vec<(Kind, String)>, Vec<Edit>);

impl BatchBody {
    /// Those of a project.
    fn edits(self, project: &str) -> Result<Edits> {
        if self.edits.is_empty() || self.edits.len() > MOST {
            let number = self.edits.len();
            return Err(RestError::invalid_request(format!("`edits` has {number} changes: a batch has 1 to {MOST}")));
        }
        let (mut named, mut edits) = (Vec::new(), Vec::new());
        for (number, edit) in self.edits.into_iter().enumerate() {
            let edit = edit.edit(project).map_err(|error| error.within(&format!("edits[{number}]")));
            let (kind, name, edit) = edit?;
            named.push((kind, name));
            edits.push(edit);
        }
        Ok((named, edits))
    }
}

impl EditBody {
    fn edit(self, project: &str) -> Result<(Kind, String, Edit)> {
        let kind: Kind = self.kind.parse()?;
        let (name, edit) = match (self.apply, self.delete) {
            (Some(fields), false) => {
                let object = replace::object(kind, project, fields)?;
                let object = if self.name.is_empty() { object } else { replace::named(object, &self.name)? };
                (object.name()?, Edit::apply_known(object))
            }
            (None, true) => (self.name.clone(), Edit::delete(kind, self.name)),
            _ => {
                return Err(RestError::invalid_request("an edit has either `apply` with an object, or `delete: true`"));
            }
        };
        if name.is_empty() && kind != Kind::Infra {
            return Err(RestError::invalid_request("`name` is missing"));
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
                "conditions of a batch stand in its edits, as `if_match` and `if_none_match`: they cannot be given as headers",
            ));
        }
        let project = self.given.project();
        let of = project.to_owned();
        let (named, edits) = self.read(move |body: BatchBody| body.edits(&of)).await?;
        let edited = self.edit(project, edits).await?;
        let told = named.iter().zip(&edited).map(|((kind, name), edited)| {
            json!({ "kind": kind_name(*kind), "name": name, "changed": edited.has_changed, "version": edited.version })
        });
        let told = json!({ "project": project, "status": "applied", "edits": told.collect::<Vec<_>>() });
        let first = edited.iter().find(|edited| edited.has_changed).or(edited.first());
        self.done(told, first, StatusCode::OK)
    }
}
