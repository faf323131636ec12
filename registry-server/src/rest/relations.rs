//! Relationships: what depends on what, as objects tell of themselves and as lineage has all of it.

use std::collections::HashMap;
use std::sync::Arc;

use feast_registry_core::{Lineage, ObjectType, Reference, Relation};
use serde_json::{Value, json};

use super::document::{Identifier, Item};

/// A relation of an answer.
#[derive(Debug, Clone)]
pub(crate) struct Related {
    pub(crate) relation: Relation,
    /// Where lists go across projects.
    pub(crate) project: Option<Arc<str>>,
}

impl Related {
    pub(crate) fn all(relations: Vec<Relation>) -> Vec<Self> {
        relations.into_iter().map(|relation| Self { relation, project: None }).collect()
    }

    fn value(&self) -> Value {
        let mut value = relation_value(&self.relation);
        if let Some(project) = &self.project {
            value["project"] = json!(**project);
        }
        value
    }
}

pub(crate) fn relation_value(Relation { source, target, .. }: &Relation) -> Value {
    let end = |end: &Reference| json!({ "type": end.object_type.to_string(), "name": end.name });
    json!({ "source": end(source), "target": end(target) })
}

impl Item for Related {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.value().to_string().as_bytes());
    }

    fn identify(&self, to: &mut Identifier) {
        identify(&self.relation, to);
        to.add(self.project.as_deref().unwrap_or_default().as_bytes());
    }

    fn own_size(&self) -> usize {
        self.relation.source.name.len() + self.relation.target.name.len()
    }

    fn size(&self) -> usize {
        self.own_size() + 90
    }
}

fn identify(relation: &Relation, to: &mut Identifier) {
    for end in [&relation.source, &relation.target] {
        to.add(end.object_type.to_string().as_bytes());
        to.add(end.name.as_bytes());
    }
}

/// All relations of a project, by what they involve.
#[derive(Debug)]
pub(crate) struct Relations {
    all: Vec<Relation>,
    by_end: HashMap<Reference, Vec<usize>>,
}

impl Relations {
    /// Direct ones first, then indirect ones.
    pub(crate) fn of(lineage: Lineage) -> Arc<Self> {
        let mut all = lineage.direct;
        all.extend(lineage.indirect);
        let mut by_end: HashMap<Reference, Vec<usize>> = HashMap::new();
        for (index, relation) in all.iter().enumerate() {
            by_end.entry(relation.source.clone()).or_default().push(index);
            if relation.target != relation.source {
                by_end.entry(relation.target.clone()).or_default().push(index);
            }
        }
        Arc::new(Self { all, by_end })
    }

    /// Those that involve something, in their order.
    pub(crate) fn of_object(&self, object_type: ObjectType, name: &str) -> impl Iterator<Item = &Relation> {
        let found = self.by_end.get(&Reference::new(object_type, name));
        found.into_iter().flatten().filter_map(|index| self.all.get(*index))
    }
}

/// What an object of a list is related to, as a field that has its name.
#[derive(Debug)]
pub(crate) struct OfObject {
    pub(crate) relations: Arc<Relations>,
    /// None of what lineage does not have.
    pub(crate) object_type: Option<ObjectType>,
    pub(crate) name: String,
}

impl OfObject {
    fn related(&self) -> impl Iterator<Item = &Relation> {
        self.object_type.into_iter().flat_map(|of| self.relations.of_object(of, &self.name))
    }
}

impl Item for OfObject {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(json!(self.name).to_string().as_bytes());
        out.extend_from_slice(b":[");
        for (index, relation) in self.related().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            out.extend_from_slice(relation_value(relation).to_string().as_bytes());
        }
        out.push(b']');
    }

    fn identify(&self, to: &mut Identifier) {
        to.add(self.name.as_bytes());
        self.related().for_each(|relation| identify(relation, to));
    }

    fn own_size(&self) -> usize {
        self.name.len()
    }

    fn size(&self) -> usize {
        self.name.len() + 150 * self.related().count()
    }
}
