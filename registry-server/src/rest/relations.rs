//! Relationships: what depends on what, as objects tell of themselves and as lineage has all of it.

use std::collections::HashMap;
use std::io::Write;
use std::sync::Arc;

use feast_registry_core::{Lineage, ObjectType, Relation};

use super::document::{Identifier, Item};
use super::json;

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
}

/// Writes a relation, as one of a project if that is to be said.
fn write(relation: &Relation, project: Option<&str>, out: &mut Vec<u8>) {
    out.push(b'{');
    for (name, end) in [("source", &relation.source), ("target", &relation.target)] {
        json::member(name, out);
        out.push(b'{');
        json::member("type", out);
        // To memory it is written always; nothing in the name of a type has to be escaped.
        drop(write!(out, "\"{}\"", end.object_type));
        json::member("name", out);
        json::text(&end.name, out);
        out.push(b'}');
    }
    if let Some(project) = project {
        json::member("project", out);
        json::text(project, out);
    }
    out.push(b'}');
}

impl Item for Related {
    fn write(&self, out: &mut Vec<u8>) {
        write(&self.relation, self.project.as_deref(), out);
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
        to.add(&[end.object_type as u8]);
        to.add(end.name.as_bytes());
    }
}

/// What an object of a list is related to, as a field that has its name.
#[derive(Debug)]
pub(crate) struct OfObject {
    pub(crate) name: String,
    /// Those of all objects of the list.
    all: Arc<Vec<Relation>>,
    /// Which of them are the object's, in their order.
    own: Vec<usize>,
}

/// What objects of a type are related to: directly first, then indirectly. Of two with one name there is one, and an object of no
/// type is related to nothing.
pub(crate) fn of_objects(lineage: Lineage, object_type: Option<ObjectType>, names: Vec<String>) -> Vec<OfObject> {
    let mut objects: Vec<(String, Vec<usize>)> = Vec::with_capacity(names.len());
    let mut by_name: HashMap<String, usize> = HashMap::with_capacity(names.len());
    for name in names {
        by_name.entry(name).or_insert_with_key(|name| {
            objects.push((name.clone(), Vec::new()));
            objects.len() - 1
        });
    }
    let mut all = Vec::new();
    for relation in lineage.direct.into_iter().chain(lineage.indirect) {
        let index = all.len();
        let mut is_told = false;
        for end in [&relation.source, &relation.target].into_iter().filter(|end| Some(end.object_type) == object_type) {
            if let Some(object) = by_name.get(&end.name)
                // One of an object with itself is told once.
                && objects[*object].1.last() != Some(&index)
            {
                objects[*object].1.push(index);
                is_told = true;
            }
        }
        if is_told {
            all.push(relation);
        }
    }
    let all = Arc::new(all);
    objects.into_iter().map(|(name, own)| OfObject { name, all: Arc::clone(&all), own }).collect()
}

impl OfObject {
    fn related(&self) -> impl Iterator<Item = &Relation> {
        self.own.iter().filter_map(|index| self.all.get(*index))
    }
}

impl Item for OfObject {
    fn write(&self, out: &mut Vec<u8>) {
        json::text(&self.name, out);
        out.extend_from_slice(b":[");
        for (index, relation) in self.related().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            write(relation, None, out);
        }
        out.push(b']');
    }

    fn identify(&self, to: &mut Identifier) {
        to.add(self.name.as_bytes());
        to.add(&(self.own.len() as u64).to_le_bytes());
        self.related().for_each(|relation| identify(relation, to));
    }

    fn own_size(&self) -> usize {
        self.name.len() + self.own.len() * size_of::<usize>()
    }

    fn size(&self) -> usize {
        self.name.len() + 150 * self.own.len()
    }
}

#[cfg(test)]
mod tests {
    use feast_registry_core::Reference;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn objects_have_the_relations_that_involve_them_in_their_order() {
        let end = |name: &str| Reference::new(ObjectType::FeatureView, name);
        let relation = |source: &str, target: &str| Relation { source: end(source), target: end(target) };
        let entity = Relation { source: Reference::new(ObjectType::Entity, "a"), target: end("b") };
        let lineage = Lineage {
            direct: vec![relation("b", "a"), relation("a", "a"), entity],
            indirect: vec![relation("a", "c")],
        };
        let names = || ["a", "b", "a", "none"].map(String::from).to_vec();
        let told = |object_type| {
            let objects = of_objects(lineage.clone(), object_type, names());
            let mut text = Vec::new();
            let texts = objects.iter().map(|of_object| {
                text.clear();
                text.push(b'{');
                of_object.write(&mut text);
                text.push(b'}');
                serde_json::from_slice::<Value>(&text).expect("it is JSON")
            });
            texts.collect::<Vec<_>>()
        };
        let end = |of: &str, name: &str| json!({ "type": of, "name": name });
        let view = |name: &str| end("featureView", name);
        let related = |source: Value, target: Value| json!({ "source": source, "target": target });
        let (ba, aa, ac) =
            (related(view("b"), view("a")), related(view("a"), view("a")), related(view("a"), view("c")));
        let eb = related(end("entity", "a"), view("b"));
        let expected = [json!({ "a": [ba, aa, ac] }), json!({ "b": [ba, eb] }), json!({ "none": [] })];
        assert_eq!(told(Some(ObjectType::FeatureView)), expected);
        assert_eq!(told(Some(ObjectType::Entity)), [json!({ "a": [eb] }), json!({ "b": [] }), json!({ "none": [] })]);
        assert_eq!(told(None), [json!({ "a": [] }), json!({ "b": [] }), json!({ "none": [] })]);
    }
}
