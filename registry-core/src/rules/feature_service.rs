//! The projections of a feature service, completed from the views that they are of
//! (Feast: `FeatureService.prepare_for_apply`, `FeatureViewProjection.from_feature_view_definition`).

use std::borrow::Cow;

use prost::Message;

use crate::backend::Key;
use crate::draft::Draft;
use crate::encoded::Object;
use crate::error::{Error, ErrorKind, Result};
use crate::kind::Kind;
use crate::proto::core::{
    DataSource, FeatureService, FeatureSpecV2, FeatureView, FeatureViewProjection, LabelView, OnDemandFeatureView,
    StreamFeatureView, data_source::SourceType,
};
use crate::proto::types::value_type::Enum as ValueType;
use crate::rules::versions;
use crate::wire;

/// The field of `FeatureServiceSpec` that holds the projections.
const PROJECTIONS: u32 = 3;

/// Whether a projection says all that there is to say. One from Feast's SDK does; one that was put together from names
/// alone (`FeatureService.build_apply_request`, a UI) does not.
fn is_resolved(projection: &FeatureViewProjection) -> bool {
    !projection.feature_columns.is_empty()
        && projection.feature_columns.iter().all(|feature| feature.value_type != ValueType::Invalid as i32)
}

fn projections(service: &Object) -> Result<Vec<FeatureViewProjection>> {
    Ok(service.decode::<FeatureService>()?.spec.unwrap_or_default().features)
}

/// The views that must be looked at to resolve a service; none when it is resolved.
pub(crate) fn unresolved_views(project: &str, service: &Object) -> Result<Vec<Key>> {
    let projections = projections(service)?;
    if projections.iter().all(is_resolved) {
        return Ok(Vec::new());
    }
    let views = projections
        .iter()
        .flat_map(|projection| Kind::VIEWS.map(|kind| Key::object(kind, project, &projection.feature_view_name)));
    Ok(views.collect())
}

/// The service with every projection complete. As in Feast, one that is complete in all its projections is taken as it
/// is, and otherwise each is checked against its view.
///
/// # Errors
/// `FeatureNotFound` when a view is not there, `InvalidArgument` when it has no such feature.
pub(crate) fn resolve<'a>(draft: &mut Draft<'_>, project: &str, service: &'a Object) -> Result<Cow<'a, Object>> {
    let projections = projections(service)?;
    if projections.iter().all(is_resolved) {
        return Ok(Cow::Borrowed(service));
    }
    let mut spec = wire::retain(&service.spec()?, |field| field != PROJECTIONS)?;
    for projection in projections {
        wire::put(&mut spec, PROJECTIONS, &complete(draft, project, projection)?.encode_to_vec());
    }
    let bytes = wire::set(&service.bytes, 1, &spec)?;
    Ok(Cow::Owned(Object::new(Kind::FeatureService, bytes)))
}

fn complete(
    draft: &mut Draft<'_>,
    project: &str,
    mut projection: FeatureViewProjection,
) -> Result<FeatureViewProjection> {
    let name = &projection.feature_view_name;
    let view = Source::find(draft, project, name)?.ok_or_else(|| {
        Error::new(
            ErrorKind::FeatureNotFound,
            format!("the feature service refers to the view `{name}`, which project `{project}` does not have"),
        )
    })?;
    if !projection.feature_columns.is_empty() && projection.feature_columns.iter().all(|f| view.features.contains(f)) {
        return Ok(projection);
    }
    projection.feature_columns = if projection.feature_columns.is_empty() {
        view.features
    } else {
        let find = |wanted: &FeatureSpecV2| {
            view.features.iter().find(|feature| feature.name == wanted.name).cloned().ok_or_else(|| {
                Error::invalid(format!(
                    "the feature service asks for `{name}:{}`, and that view has no such feature",
                    wanted.name
                ))
            })
        };
        projection.feature_columns.iter().map(find).collect::<Result<_>>()?
    };
    if let Some(source) = view.batch_source {
        // Feast takes the timestamp field from the created timestamp column.
        projection.timestamp_field = source.created_timestamp_column.clone();
        projection.created_timestamp_column = source.created_timestamp_column.clone();
        projection.date_partition_column = source.date_partition_column.clone();
        projection.batch_source = Some(source);
    }
    projection.view_type = if view.kind == Kind::LabelView { "labelView" } else { "featureView" }.to_owned();
    if projection.version_tag.is_none() {
        projection.version_tag = view.pinned;
    }
    Ok(projection)
}

/// What a projection takes from a view.
struct Source {
    kind: Kind,
    features: Vec<FeatureSpecV2>,
    batch_source: Option<DataSource>,
    pinned: Option<i32>,
}

impl Source {
    fn find(draft: &mut Draft<'_>, project: &str, name: &str) -> Result<Option<Self>> {
        for kind in Kind::VIEWS {
            if let Some(view) = draft.object(kind, project, name)? {
                return Ok(Some(Self::of(&view)?));
            }
        }
        Ok(None)
    }

    fn of(view: &Object) -> Result<Self> {
        let (features, batch_source) = match view.kind {
            Kind::StreamFeatureView => {
                let spec = view.decode::<StreamFeatureView>()?.spec.unwrap_or_default();
                (spec.features, spec.batch_source)
            }
            Kind::OnDemandFeatureView => {
                let spec = view.decode::<OnDemandFeatureView>()?.spec.unwrap_or_default();
                (spec.features, None)
            }
            Kind::LabelView => {
                let spec = view.decode::<LabelView>()?.spec.unwrap_or_default();
                (spec.features, spec.source.map(batch_source_of))
            }
            _ => {
                let spec = view.decode::<FeatureView>()?.spec.unwrap_or_default();
                (spec.features, spec.batch_source)
            }
        };
        Ok(Self { kind: view.kind, features, batch_source, pinned: versions::pinned(view)? })
    }
}

/// The batch source of a label view: the one behind its push source, or its source itself.
fn batch_source_of(source: DataSource) -> DataSource {
    match (SourceType::try_from(source.r#type), source.batch_source) {
        (Ok(SourceType::PushSource), Some(batch)) => *batch,
        (_, batch_source) => DataSource { batch_source, ..source },
    }
}
