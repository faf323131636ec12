//! The projections of a feature service, completed from the views that they are of
//! (Feast: `FeatureService.prepare_for_apply`, `FeatureViewProjection.from_feature_view_definition`).

use std::borrow::Cow;
use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet};

use prost::Message;

use crate::access::Judges;
use crate::backend::Key;
use crate::draft::Draft;
use crate::encoded::Object;
use crate::error::{Error, ErrorKind, Result};
use crate::kind::Kind;
use crate::proto::core::{DataSource, FeatureService, FeatureSpecV2, FeatureViewProjection, data_source::SourceType};
use crate::proto::types::value_type::Enum as ValueType;
use crate::rules::pin;
use crate::rules::stored::readable;
use crate::rules::structure::check_structure;
use crate::wire;

/// The field of `FeatureServiceSpec` that holds the projections.
const PROJECTIONS: u32 = 3;

/// The most bytes that a service may grow to when it is completed: no more than the server sends in one message. A short
/// list of views that have many features would otherwise take any amount of memory.
const MAX_RESOLVED: usize = 128 << 20;

/// Whether a projection says all that there is to say. One from Feast's SDK does; one that was put together from names
/// alone (`FeatureService.build_apply_request`, a UI) does not.
fn is_resolved(projection: &FeatureViewProjection) -> bool {
    !projection.feature_columns.is_empty()
        && projection.feature_columns.iter().all(|feature| feature.value_type != ValueType::Invalid as i32)
}

fn projections(service: &Object) -> Result<Vec<FeatureViewProjection>> {
    Ok(service.decode::<FeatureService>()?.spec.unwrap_or_default().features)
}

/// The names of the views that a service takes features from.
///
/// # Errors
/// `Corrupt` when it cannot be decoded.
pub(crate) fn views_of(service: &Object) -> Result<BTreeSet<String>> {
    Ok(projections(service)?.into_iter().map(|projection| projection.feature_view_name).collect())
}

/// The views that must be looked at to resolve a service; none when it is resolved.
pub(crate) fn unresolved_views(project: &str, service: &Object) -> Result<Vec<Key>> {
    let projections = projections(service)?;
    if projections.iter().all(is_resolved) {
        return Ok(Vec::new());
    }
    let views: BTreeSet<&str> = projections.iter().map(|projection| projection.feature_view_name.as_str()).collect();
    Ok(views
        .into_iter()
        .flat_map(|view| Kind::VIEWS.iter().copied().map(move |kind| Key::object(kind, project, view)))
        .collect())
}

/// The service with every projection complete. As in Feast, one that is complete in all its projections is taken as it
/// is, and otherwise each is checked against its view. Fields that are not known stay as they are, also those that come
/// from the views.
///
/// # Errors
/// `FeatureNotFound` when a view is not there, `InvalidArgument` when it has no such feature, or all that it takes is too much.
pub(crate) fn resolve<'a>(
    draft: &mut Draft<'_>,
    judges: &mut Judges,
    project: &str,
    service: &'a Object,
) -> Result<Cow<'a, Object>> {
    if projections(service)?.iter().all(is_resolved) {
        return Ok(Cow::Borrowed(service));
    }
    let spec = service.spec()?;
    let mut resolved = wire::retain(&spec, |field| field != PROJECTIONS)?;
    // Each view is read once, however many projections are of it.
    let mut views = HashMap::new();
    for field in wire::fields(&spec) {
        let field = field?;
        if field.number == PROJECTIONS {
            wire::put(&mut resolved, PROJECTIONS, &complete(draft, judges, project, &mut views, field.content)?);
            if resolved.len() > MAX_RESOLVED {
                return Err(Error::invalid(format!(
                    "with all features of its views, the feature service `{}` of project `{project}` has more than \
                     {MAX_RESOLVED} bytes; name the features that it takes from each view",
                    service.name()?
                )));
            }
        }
    }
    let resolved = Object::new(Kind::FeatureService, wire::set(&service.bytes, 1, &resolved)?);
    check_structure(&resolved, project)?;
    Ok(Cow::Owned(resolved))
}

/// An encoded projection, completed.
fn complete(
    draft: &mut Draft<'_>,
    judges: &mut Judges,
    project: &str,
    views: &mut HashMap<String, Source>,
    encoded: &[u8],
) -> Result<Vec<u8>> {
    let projection = FeatureViewProjection::decode(encoded).map_err(|error| {
        Error::new(ErrorKind::Corrupt, "a projection of a feature service cannot be decoded").with_source(error)
    })?;
    let view = match views.entry(projection.feature_view_name.clone()) {
        Entry::Occupied(known) => known.into_mut(),
        Entry::Vacant(unknown) => {
            let view = Source::find(draft, judges, project, unknown.key())?.ok_or_else(|| {
                let name = unknown.key();
                Error::new(
                    ErrorKind::FeatureNotFound,
                    format!("the feature service refers to the view `{name}`, which project `{project}` does not have"),
                )
            })?;
            unknown.insert(view)
        }
    };
    let wanted = &projection.feature_columns;
    let mut completed = if !wanted.is_empty() && wanted.iter().all(|feature| view.has(feature)) {
        encoded.to_vec()
    } else {
        complete_from(view, &projection, encoded)?
    };
    if let Some(version) = view.pinned.filter(|_| projection.version_tag.is_none()) {
        // A version tag says something also when it is 0, so it is written even then.
        const VERSION_TAG: u32 = 10;
        prost::encoding::int32::encode(VERSION_TAG, &version, &mut completed);
    }
    Ok(completed)
}

fn complete_from(view: &Source, projection: &FeatureViewProjection, encoded: &[u8]) -> Result<Vec<u8>> {
    const FEATURE_COLUMNS: u32 = 2;
    const TIMESTAMP_FIELD: u32 = 5;
    const DATE_PARTITION_COLUMN: u32 = 6;
    const CREATED_TIMESTAMP_COLUMN: u32 = 7;
    const BATCH_SOURCE: u32 = 8;
    const VIEW_TYPE: u32 = 11;
    let from_source = [TIMESTAMP_FIELD, DATE_PARTITION_COLUMN, CREATED_TIMESTAMP_COLUMN, BATCH_SOURCE];
    let mut completed = wire::retain(encoded, |field| {
        field != FEATURE_COLUMNS && field != VIEW_TYPE && (view.batch_source.is_none() || !from_source.contains(&field))
    })?;
    if projection.feature_columns.is_empty() {
        view.features.iter().for_each(|feature| wire::put(&mut completed, FEATURE_COLUMNS, feature));
    }
    for wanted in &projection.feature_columns {
        let feature = view.feature(&wanted.name).ok_or_else(|| {
            let (view, feature) = (&projection.feature_view_name, &wanted.name);
            Error::invalid(format!(
                "the feature service asks for `{view}:{feature}`, and that view has no such feature"
            ))
        })?;
        wire::put(&mut completed, FEATURE_COLUMNS, feature);
    }
    if let Some((source, bytes)) = &view.batch_source {
        let text = [
            // Feast takes the timestamp field from the created timestamp column.
            (TIMESTAMP_FIELD, &source.created_timestamp_column),
            (DATE_PARTITION_COLUMN, &source.date_partition_column),
            (CREATED_TIMESTAMP_COLUMN, &source.created_timestamp_column),
        ];
        for (field, text) in text.into_iter().filter(|(_, text)| !text.is_empty()) {
            wire::put(&mut completed, field, text.as_bytes());
        }
        wire::put(&mut completed, BATCH_SOURCE, bytes);
    }
    let view_type = if view.kind == Kind::LabelView { "labelView" } else { "featureView" };
    wire::put(&mut completed, VIEW_TYPE, view_type.as_bytes());
    Ok(completed)
}

/// What a projection takes from a view, as bytes with their meaning.
struct Source {
    kind: Kind,
    /// As they are stored, in their order.
    features: Vec<Vec<u8>>,
    /// Where among them the first of each name is.
    by_name: HashMap<String, usize>,
    /// As this registry encodes them: the same definition gives the same bytes, without fields that are not known.
    known: HashSet<Vec<u8>>,
    batch_source: Option<(DataSource, Vec<u8>)>,
    pinned: Option<i32>,
}

/// The fields of a view's spec that hold its features and its source.
fn fields_of(kind: Kind) -> (u32, Option<u32>) {
    match kind {
        Kind::StreamFeatureView => (4, Some(10)),
        Kind::OnDemandFeatureView => (3, None),
        _ => (4, Some(7)),
    }
}

impl Source {
    /// A view that whoever applies the service may see.
    fn find(draft: &mut Draft<'_>, judges: &mut Judges, project: &str, name: &str) -> Result<Option<Self>> {
        for &kind in Kind::VIEWS {
            if let Some(view) = readable(draft, kind, project, name)?
                && judges.sees(project, &view)?
            {
                return Ok(Some(Self::of(&view)?));
            }
        }
        Ok(None)
    }

    fn of(view: &Object) -> Result<Self> {
        let (features_field, source_field) = fields_of(view.kind);
        let spec = view.spec()?;
        let (mut features, mut by_name, mut known) = (Vec::new(), HashMap::new(), HashSet::new());
        for field in wire::fields(&spec) {
            let field = field?;
            if field.number == features_field {
                let feature = decode::<FeatureSpecV2>(field.content)?;
                known.insert(feature.encode_to_vec());
                by_name.entry(feature.name).or_insert(features.len());
                features.push(field.content.to_vec());
            }
        }
        let source = match source_field {
            Some(field) => wire::sub_message(&spec, field)?.map(Cow::into_owned),
            None => None,
        };
        let batch_source = match source {
            Some(source) if view.kind == Kind::LabelView => Some(batch_source_of(source)?),
            other => other,
        };
        let batch_source = batch_source.map(|bytes| Ok((decode::<DataSource>(&bytes)?, bytes))).transpose()?;
        Ok(Self { kind: view.kind, features, by_name, known, batch_source, pinned: pin::pinned(view)? })
    }

    fn has(&self, feature: &FeatureSpecV2) -> bool {
        self.known.contains(&feature.encode_to_vec())
    }

    /// The first feature of this name, as it is stored.
    fn feature(&self, name: &str) -> Option<&[u8]> {
        self.by_name.get(name).map(|index| self.features[*index].as_slice())
    }
}

fn decode<T: Message + Default>(bytes: &[u8]) -> Result<T> {
    T::decode(bytes)
        .map_err(|error| Error::new(ErrorKind::Corrupt, "a part of a view cannot be decoded").with_source(error))
}

/// The batch source of a label view: the one behind its push source, or its source itself.
fn batch_source_of(source: Vec<u8>) -> Result<Vec<u8>> {
    const BATCH_SOURCE: u32 = 26;
    if decode::<DataSource>(&source)?.r#type == SourceType::PushSource as i32
        && let Some(batch_source) = wire::sub_message(&source, BATCH_SOURCE)?
    {
        return Ok(batch_source.into_owned());
    }
    Ok(source)
}
