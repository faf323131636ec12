//! Lists as Feast's server makes them, for all that answers with lists.

use std::collections::BTreeMap;

use feast_registry_core::proto::core::{
    self, FeatureService, FeatureView, LabelView, OnDemandFeatureView, SavedDataset, StreamFeatureView,
};
use feast_registry_core::{
    ErrorKind, Feature, Freshness, Kind, Lineage, ListFilter, Object, ObjectType, Registry, Relation, Result,
};
use prost_types::Timestamp;

use crate::listing::{Sortable, page};
use crate::proto::{PaginationMetadata, PaginationParams, SortingParams};

/// The lists of a registry, as its handle may see them. They are read, and may be made anew.
#[derive(Clone, Copy)]
pub(crate) struct Lists<'a>(pub(crate) &'a Registry);

/// Which objects of a project are wanted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    pub(crate) project: String,
    pub(crate) allow_cache: bool,
    /// All of these tags.
    pub(crate) tags: BTreeMap<String, String>,
}

impl Wanted {
    pub(crate) fn of(project: impl Into<String>, allow_cache: bool) -> Self {
        Self { project: project.into(), allow_cache, tags: BTreeMap::new() }
    }

    fn filter(&self) -> ListFilter {
        ListFilter::all().with_tags(self.tags.clone())
    }

    fn freshness(&self) -> Freshness {
        Freshness::allow_cache(self.allow_cache)
    }
}

/// Which views are wanted, by what they are made of. What is empty asks for nothing.
#[derive(Debug, Clone, Default)]
pub(crate) struct ViewFilter {
    pub(crate) entity: String,
    pub(crate) feature: String,
    pub(crate) feature_service: String,
    pub(crate) data_source: String,
    pub(crate) updated_since: Option<Timestamp>,
}

/// Which features are wanted. What is empty asks for nothing.
#[derive(Debug, Clone, Default)]
pub(crate) struct FeatureFilter {
    /// `feature` or `label`.
    pub(crate) kind: String,
    pub(crate) feature_view: String,
    pub(crate) name: String,
}

impl Lists<'_> {
    /// A page of a list, which is sorted if that is asked for.
    pub(crate) async fn page<T: Sortable + Send + 'static>(
        &self,
        items: Vec<T>,
        pagination: Option<PaginationParams>,
        sorting: Option<&SortingParams>,
    ) -> Result<(Vec<T>, PaginationMetadata)> {
        // Without sorting it is cheap.
        let count = if sorting.is_some() { items.len() } else { 0 };
        let sorting = sorting.cloned();
        self.0.compute(count, move || Ok(page(items, pagination, sorting.as_ref()))).await
    }

    /// The objects that are to be kept.
    async fn filtered(
        &self,
        objects: Vec<Object>,
        keep: impl Fn(&Object) -> Result<bool> + Send + 'static,
    ) -> Result<Vec<Object>> {
        let count = objects.len();
        let filtered = move || {
            let mut kept = Vec::with_capacity(objects.len());
            for object in objects {
                if keep(&object)? {
                    kept.push(object);
                }
            }
            Ok(kept)
        };
        self.0.compute(count, filtered).await
    }

    pub(crate) async fn of_kind(&self, kind: Kind, wanted: &Wanted) -> Result<Vec<Object>> {
        self.0.list(kind, Some(&wanted.project), &wanted.filter(), wanted.freshness()).await
    }

    /// All projects but those that are protected.
    pub(crate) async fn projects(&self, tags: BTreeMap<String, String>, allow_cache: bool) -> Result<Vec<Object>> {
        let filter = ListFilter::all().with_tags(tags);
        let projects = self.0.list(Kind::Project, None, &filter, Freshness::allow_cache(allow_cache)).await?;
        self.filtered(projects, |project| Ok(!project.is_protected()?)).await
    }

    /// The feature services, if `view` is not empty those that have features of it.
    pub(crate) async fn feature_services(&self, wanted: &Wanted, view: &str) -> Result<Vec<Object>> {
        let services = self.of_kind(Kind::FeatureService, wanted).await?;
        if view.is_empty() {
            return Ok(services);
        }
        let view = view.to_owned();
        self.filtered(services, move |service| Ok(views_of(service)?.contains(&view))).await
    }

    /// The saved datasets, of a namespace and a collection if these are not empty.
    pub(crate) async fn saved_datasets(
        &self,
        wanted: &Wanted,
        namespace: &str,
        collection: &str,
    ) -> Result<Vec<Object>> {
        let datasets = self.of_kind(Kind::SavedDataset, wanted).await?;
        if namespace.is_empty() && collection.is_empty() {
            return Ok(datasets);
        }
        let (namespace, collection) = (namespace.to_owned(), collection.to_owned());
        let keep = move |dataset: &Object| {
            let spec = dataset.decode::<SavedDataset>()?.spec.unwrap_or_default();
            Ok((namespace.is_empty() || spec.namespace == namespace)
                && (collection.is_empty() || spec.collection == collection))
        };
        self.filtered(datasets, keep).await
    }

    /// Only the views that they may be of are decoded.
    pub(crate) async fn features(&self, wanted: &Wanted, filter: &FeatureFilter) -> Result<Vec<Feature>> {
        fn is(wanted: &str, value: &str) -> bool {
            wanted.is_empty() || wanted == value
        }
        let mut views = self.0.list_views(&wanted.project, &ListFilter::all(), wanted.freshness()).await?;
        views.retain(|view| is(&filter.kind, name_of_kind(view.kind == Kind::LabelView)));
        if !filter.feature_view.is_empty() {
            let wanted = filter.feature_view.clone();
            views = self.filtered(views, move |view| Ok(view.name()? == wanted)).await?;
        }
        let (count, name) = (views.len(), filter.name.clone());
        let features = move || {
            let mut all = Vec::new();
            for view in &views {
                all.extend(Feature::of_view(view)?.into_iter().filter(|feature| is(&name, &feature.name)));
            }
            Ok(all)
        };
        self.0.compute(count, features).await
    }

    /// All views but label views, by what they are made of.
    pub(crate) async fn views(&self, wanted: &Wanted, made_of: &ViewFilter) -> Result<Vec<Object>> {
        let mut filter = wanted.filter();
        filter.updated_since = made_of.updated_since;
        let mut views = self.0.list_views(&wanted.project, &filter, wanted.freshness()).await?;
        views.retain(|view| view.kind != Kind::LabelView);
        if !made_of.feature_service.is_empty() {
            // A service that is not there has no views.
            let service =
                self.0.get(Kind::FeatureService, &wanted.project, &made_of.feature_service, wanted.freshness());
            let used = match service.await {
                Err(error) if matches!(error.kind(), ErrorKind::NotFound(_)) => Vec::new(),
                service => views_of(&service?)?,
            };
            views = self.filtered(views, move |view| Ok(used.contains(&view.name()?))).await?;
        }
        if [&made_of.entity, &made_of.feature, &made_of.data_source].iter().any(|wanted| !wanted.is_empty()) {
            let wanted = [&made_of.entity, &made_of.feature, &made_of.data_source].map(String::clone);
            let is_made_of_them = move |view: &Object| {
                let made_of = MadeOf::of(view)?;
                let names = [&made_of.entities, &made_of.features, &made_of.data_sources];
                Ok(wanted.iter().zip(names).all(|(wanted, names)| wanted.is_empty() || names.contains(wanted)))
            };
            views = self.filtered(views, is_made_of_them).await?;
        }
        Ok(views)
    }

    /// The lineage of a project; if both are not empty, what in it involves an object of this type and name.
    pub(crate) async fn lineage(&self, wanted: &Wanted, object_type: &str, name: &str) -> Result<Lineage> {
        let mut lineage = self.0.lineage(&wanted.project, wanted.freshness()).await?;
        if !object_type.is_empty() && !name.is_empty() {
            // As in Feast, a type that there is none of filters everything out.
            let object_type = object_type.parse::<ObjectType>().ok();
            for relations in [&mut lineage.direct, &mut lineage.indirect] {
                relations.retain(|relation| object_type.is_some_and(|wanted| relation.involves(wanted, name)));
            }
        }
        Ok(lineage)
    }

    /// What an object is related to.
    pub(crate) async fn relationships(
        &self,
        wanted: &Wanted,
        object: (ObjectType, &str),
        include_indirect: bool,
    ) -> Result<Vec<Relation>> {
        let lineage = self.0.lineage(&wanted.project, wanted.freshness()).await?;
        let mut relations = lineage.direct;
        if include_indirect {
            relations.extend(lineage.indirect);
        }
        relations.retain(|relation| relation.involves(object.0, object.1));
        Ok(relations)
    }
}

/// What Feast calls a feature of a view, and a label of a label view.
pub(crate) fn kind_of(feature: &Feature) -> &'static str {
    name_of_kind(feature.is_label)
}

fn name_of_kind(is_label: bool) -> &'static str {
    if is_label { "label" } else { "feature" }
}

/// The names of the views that a feature service has projections of.
fn views_of(service: &Object) -> Result<Vec<String>> {
    let spec = service.decode::<FeatureService>()?.spec.unwrap_or_default();
    Ok(spec.features.into_iter().map(|projection| projection.feature_view_name).collect())
}

/// The names of the entities of a view.
pub(crate) fn entities_of(view: &Object) -> Result<Vec<String>> {
    Ok(MadeOf::of(view)?.entities)
}

/// What a view is made of, by name.
#[derive(Default)]
struct MadeOf {
    entities: Vec<String>,
    features: Vec<String>,
    data_sources: Vec<String>,
}

impl MadeOf {
    fn of(view: &Object) -> Result<Self> {
        let names = |features: Vec<core::FeatureSpecV2>| features.into_iter().map(|feature| feature.name).collect();
        let sources =
            |sources: [Option<core::DataSource>; 2]| sources.into_iter().flatten().map(|source| source.name).collect();
        Ok(match view.kind {
            Kind::FeatureView => {
                let spec = view.decode::<FeatureView>()?.spec.unwrap_or_default();
                Self {
                    entities: spec.entities,
                    features: names(spec.features),
                    data_sources: sources([spec.batch_source, spec.stream_source]),
                }
            }
            Kind::StreamFeatureView => {
                let spec = view.decode::<StreamFeatureView>()?.spec.unwrap_or_default();
                Self {
                    entities: spec.entities,
                    features: names(spec.features),
                    data_sources: sources([spec.batch_source, spec.stream_source]),
                }
            }
            Kind::OnDemandFeatureView => {
                let spec = view.decode::<OnDemandFeatureView>()?.spec.unwrap_or_default();
                let request_sources = spec.sources.into_values().filter_map(|source| match source.source {
                    Some(core::on_demand_source::Source::RequestDataSource(source)) => Some(source.name),
                    _ => None,
                });
                Self {
                    entities: spec.entities,
                    features: names(spec.features),
                    data_sources: request_sources.collect(),
                }
            }
            Kind::LabelView => {
                let spec = view.decode::<LabelView>()?.spec.unwrap_or_default();
                Self {
                    entities: spec.entities,
                    features: names(spec.features),
                    data_sources: sources([spec.source, None]),
                }
            }
            _ => Self::default(),
        })
    }
}
