//! How the objects of a project depend on each other (Feast: `feast.lineage.registry_lineage`).
//!
//! As through Feast's registry server, saved datasets are not part of it. Unlike Feast's, a view without a batch source
//! is not linked to a made-up source named after the hash of nothing.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::str::FromStr;

use crate::encoded::Object;
use crate::error::{Error, ErrorKind, Result};
use crate::kind::{FeastObject, Kind};
use crate::proto::core::{
    DataSource, FeatureService, FeatureView, LabelView, OnDemandFeatureView, StreamFeatureView,
    on_demand_source::Source,
};

/// What lineage tells apart, in Feast's spelling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ObjectType {
    /// A data source.
    DataSource,
    /// An entity.
    Entity,
    /// A feature view, stream feature view or on demand feature view.
    FeatureView,
    /// A label view.
    LabelView,
    /// A feature service.
    FeatureService,
    /// A single feature.
    Feature,
    /// A saved dataset.
    SavedDataset,
}

impl ObjectType {
    const ALL: [(ObjectType, &'static str); 7] = [
        (ObjectType::DataSource, "dataSource"),
        (ObjectType::Entity, "entity"),
        (ObjectType::FeatureView, "featureView"),
        (ObjectType::LabelView, "labelView"),
        (ObjectType::FeatureService, "featureService"),
        (ObjectType::Feature, "feature"),
        (ObjectType::SavedDataset, "savedDataset"),
    ];
}

impl fmt::Display for ObjectType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.iter().find(|(of, _)| of == self).map(|(_, name)| *name);
        f.write_str(name.unwrap_or_default())
    }
}

impl FromStr for ObjectType {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.iter().find(|(_, name)| *name == text).map(|(of, _)| *of).ok_or_else(|| {
            let known = Self::ALL.map(|(_, name)| name).join(", ");
            Error::invalid(format!("`{text}` is not a type of object in lineage; the types are {known}"))
        })
    }
}

/// One end of a relation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    /// What it is.
    pub object_type: ObjectType,
    /// Its name.
    pub name: String,
}

impl Reference {
    /// To an object of this type and name.
    pub fn new(object_type: ObjectType, name: impl Into<String>) -> Self {
        Self { object_type, name: name.into() }
    }
}

/// That one object is made from another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Relation {
    /// What is used.
    pub source: Reference,
    /// What uses it.
    pub target: Reference,
}

impl Relation {
    /// Whether this is one of the relation's ends.
    pub fn involves(&self, object_type: ObjectType, name: &str) -> bool {
        [&self.source, &self.target].iter().any(|end| end.object_type == object_type && end.name == name)
    }
}

/// All relations within a project.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lineage {
    /// What an object's own definition says.
    pub direct: Vec<Relation>,
    /// What follows: the sources of a service's views for the service, the sources of a view for its entities.
    pub indirect: Vec<Relation>,
}

impl Lineage {
    /// Finds the relations between these objects of one project.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) when there are too many to be held.
    pub fn of(objects: &[Object]) -> Result<Self> {
        let services = services(objects)?;
        let direct = direct(objects, &services)?;
        let indirect = indirect(&direct, &services, MAX_INDIRECT)?;
        Ok(Self { direct, indirect })
    }
}

/// The kinds of object whose definitions speak of others.
pub(crate) const KINDS: [Kind; 5] =
    [Kind::FeatureService, Kind::FeatureView, Kind::OnDemandFeatureView, Kind::StreamFeatureView, Kind::LabelView];

/// The most relations that are found indirectly. Feast has one for each projection of a service and each source of its
/// view, and for each entity and each data source of a view: a few definitions with long lists would make more of them than
/// there is memory for. An answer of the server, which is 128 MiB at the most, holds fewer.
const MAX_INDIRECT: usize = 4_000_000;

fn services(objects: &[Object]) -> Result<Vec<Service>> {
    let mut services = Vec::new();
    each(objects, |service: FeatureService| {
        let spec = service.spec.unwrap_or_default();
        let views = spec.features.into_iter().map(|projection| Projection {
            is_of_labels: projection.view_type == "labelView",
            view: projection.feature_view_name,
        });
        services.push(Service { views: views.collect(), name: spec.name });
    })?;
    Ok(services)
}

/// What matters of a feature service.
struct Service {
    name: String,
    views: Vec<Projection>,
}

struct Projection {
    view: String,
    is_of_labels: bool,
}

/// Decodes the objects of a kind one after the other: all of them at once would take many times their size.
fn each<T: FeastObject>(objects: &[Object], mut then: impl FnMut(T)) -> Result<()> {
    objects.iter().filter(|object| object.kind == T::KIND).try_for_each(|object| {
        then(object.decode()?);
        Ok(())
    })
}

/// Collects the relations to one target.
struct To<'a> {
    target: Reference,
    relations: &'a mut Vec<Relation>,
}

impl<'a> To<'a> {
    fn new(relations: &'a mut Vec<Relation>, object_type: ObjectType, name: &str) -> Self {
        Self { target: Reference::new(object_type, name), relations }
    }

    fn link(&mut self, object_type: ObjectType, name: impl Into<String>) {
        let source = Reference::new(object_type, name);
        self.relations.push(Relation { source, target: self.target.clone() });
    }

    fn link_all(&mut self, object_type: ObjectType, names: impl IntoIterator<Item = String>) {
        names.into_iter().for_each(|name| self.link(object_type, name));
    }

    fn link_source(&mut self, source: Option<&DataSource>) {
        if let Some(source) = source.filter(|source| !source.name.is_empty()) {
            self.link(ObjectType::DataSource, &source.name);
        }
    }
}

fn direct(objects: &[Object], services: &[Service]) -> Result<Vec<Relation>> {
    let label_views = objects.iter().filter(|object| object.kind == Kind::LabelView);
    let label_names: HashSet<String> = label_views.map(Object::name).collect::<Result<_>>()?;
    let mut relations = Vec::new();
    for service in services {
        let mut to = To::new(&mut relations, ObjectType::FeatureService, &service.name);
        for Projection { view, is_of_labels } in &service.views {
            let is_labels = *is_of_labels || label_names.contains(view);
            to.link(if is_labels { ObjectType::LabelView } else { ObjectType::FeatureView }, view);
        }
    }
    each(objects, |view: FeatureView| {
        let view = view.spec.unwrap_or_default();
        let mut to = To::new(&mut relations, ObjectType::FeatureView, &view.name);
        to.link_all(ObjectType::Entity, view.entities);
        to.link_all(ObjectType::Feature, view.features.into_iter().map(|feature| feature.name));
        to.link_source(view.batch_source.as_ref());
    })?;
    // Those to the sources of on demand views come after all of theirs to entities and features.
    let mut to_sources = Vec::new();
    each(objects, |view: OnDemandFeatureView| {
        let view = view.spec.unwrap_or_default();
        let mut to = To::new(&mut relations, ObjectType::FeatureView, &view.name);
        to.link_all(ObjectType::Entity, view.entities);
        to.link_all(ObjectType::Feature, view.features.into_iter().map(|feature| feature.name));
        let mut to = To::new(&mut to_sources, ObjectType::FeatureView, &view.name);
        for source in view.sources.values() {
            match &source.source {
                Some(Source::RequestDataSource(source)) => to.link_source(Some(source)),
                Some(Source::FeatureViewProjection(projection)) if !projection.feature_view_name.is_empty() => {
                    to.link(ObjectType::FeatureView, &projection.feature_view_name);
                }
                _ => {}
            }
        }
    })?;
    relations.append(&mut to_sources);
    each(objects, |view: StreamFeatureView| {
        let view = view.spec.unwrap_or_default();
        let mut to = To::new(&mut relations, ObjectType::FeatureView, &view.name);
        to.link_source(view.stream_source.as_ref());
        to.link_source(view.batch_source.as_ref());
    })?;
    each(objects, |view: LabelView| {
        let view = view.spec.unwrap_or_default();
        let mut to = To::new(&mut relations, ObjectType::LabelView, &view.name);
        to.link_all(ObjectType::Entity, view.entities);
        to.link_source(view.source.as_ref());
        to.link_source(view.source.as_ref().and_then(|source| source.batch_source.as_deref()));
    })?;
    Ok(relations)
}

fn indirect(direct: &[Relation], services: &[Service], most: usize) -> Result<Vec<Relation>> {
    let is_view = |end: &Reference| matches!(end.object_type, ObjectType::FeatureView | ObjectType::LabelView);
    let mut sources_of: HashMap<&str, Sources<'_>> = HashMap::new();
    for relation in direct.iter().filter(|relation| is_view(&relation.target)) {
        let sources = sources_of.entry(&relation.target.name).or_default();
        sources.all.push(&relation.source);
        if relation.source.object_type == ObjectType::DataSource {
            sources.data_sources.push(&relation.source);
        }
    }
    let mut relations = Vec::new();
    let mut add = |sources: &[&Reference], relation: &dyn Fn(&Reference) -> Relation| {
        if relations.len() + sources.len() > most {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "the lineage of this project has more than {most} indirect relations, which is more than is kept in \
                     memory for an answer; feature services that have many projections of one view, and views with many \
                     entities and many sources, make them"
                ),
            ));
        }
        relations.extend(sources.iter().map(|source| relation(source)));
        Ok(())
    };
    for service in services {
        for sources in service.views.iter().filter_map(|of| sources_of.get(of.view.as_str())) {
            let target = || Reference::new(ObjectType::FeatureService, &service.name);
            add(&sources.all, &|source| Relation { source: source.clone(), target: target() })?;
        }
    }
    for relation in direct {
        if relation.source.object_type == ObjectType::Entity
            && is_view(&relation.target)
            && let Some(sources) = sources_of.get(relation.target.name.as_str())
        {
            let entity = &relation.source;
            add(&sources.data_sources, &|source| Relation { source: entity.clone(), target: source.clone() })?;
        }
    }
    Ok(relations)
}

/// What a view is made of.
#[derive(Default)]
struct Sources<'a> {
    all: Vec<&'a Reference>,
    data_sources: Vec<&'a Reference>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::core::{self, FeatureServiceSpec, FeatureViewProjection, FeatureViewSpec};

    #[test]
    fn a_service_depends_on_the_sources_of_its_views() {
        let view = FeatureView {
            spec: Some(FeatureViewSpec {
                name: "stats".into(),
                entities: vec!["driver".into()],
                batch_source: Some(DataSource { name: "table".into(), ..Default::default() }),
                ..Default::default()
            }),
            meta: None,
        };
        let projection = FeatureViewProjection { feature_view_name: "stats".into(), ..Default::default() };
        let service = FeatureService {
            spec: Some(FeatureServiceSpec { name: "model".into(), features: vec![projection], ..Default::default() }),
            meta: None,
        };
        let found = Lineage::of(&[Object::encode(&view), Object::encode(&service)]).expect("lineage");
        let end = Reference::new;
        let relation =
            |source: &Reference, target: &Reference| Relation { source: source.clone(), target: target.clone() };
        let (driver, table) = (end(ObjectType::Entity, "driver"), end(ObjectType::DataSource, "table"));
        let (stats, model) = (end(ObjectType::FeatureView, "stats"), end(ObjectType::FeatureService, "model"));
        assert_eq!(found.direct, [relation(&stats, &model), relation(&driver, &stats), relation(&table, &stats)]);
        assert_eq!(found.indirect, [relation(&driver, &model), relation(&table, &model), relation(&driver, &table)]);
    }

    #[test]
    fn a_view_without_a_source_has_no_made_up_one() {
        let view =
            FeatureView { spec: Some(FeatureViewSpec { name: "stats".into(), ..Default::default() }), meta: None };
        assert_eq!(Lineage::of(&[Object::encode(&view)]).expect("lineage"), Lineage::default());
    }
    /// 20,000 entities have one source each, and 20,000 features none: what they are not related to costs nothing.
    #[test]
    fn a_view_of_very_many_entities_and_features_costs_its_length() {
        const MANY: usize = 20_000;
        let features = (0..MANY).map(|i| core::FeatureSpecV2 { name: format!("f{i}"), ..Default::default() });
        let spec = FeatureViewSpec {
            name: "stats".into(),
            entities: (0..MANY).map(|i| format!("e{i}")).collect(),
            features: features.collect(),
            batch_source: Some(DataSource { name: "table".into(), ..Default::default() }),
            ..Default::default()
        };
        let found = Lineage::of(&[Object::encode(&FeatureView { spec: Some(spec), meta: None })]).expect("lineage");
        assert_eq!((found.direct.len(), found.indirect.len()), (2 * MANY + 1, MANY));
    }

    #[test]
    fn lineage_that_would_fill_the_memory_is_refused_before_it_does() {
        const MANY: usize = 200;
        let features = (0..MANY).map(|i| core::FeatureSpecV2 { name: format!("f{i}"), ..Default::default() });
        let view = FeatureViewSpec { name: "stats".into(), features: features.collect(), ..Default::default() };
        let projection = FeatureViewProjection { feature_view_name: "stats".into(), ..Default::default() };
        let spec = FeatureServiceSpec { name: "model".into(), features: vec![projection; MANY], ..Default::default() };
        let service = FeatureService { spec: Some(spec), meta: None };
        let objects = [Object::encode(&FeatureView { spec: Some(view), meta: None }), Object::encode(&service)];
        let services = services(&objects).expect("well-formed");
        let direct = direct(&objects, &services).expect("well-formed");
        let all = MANY * MANY;
        assert_eq!(indirect(&direct, &services[..0], all).expect("nothing").len(), 0);
        let error = indirect(&direct, &services, all / 2).expect_err("twice as many relations");
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    }
}
