//! What a project holds, and how its objects are described: what is read of them without decoding them.

use std::borrow::Cow;

use feast_registry_core::{Error, ErrorKind, Kind, Object, Result, wire};

/// A project and its objects, in the order in which the registry lists those of each kind.
#[derive(Debug, Clone, Default)]
pub(crate) struct Resources {
    pub(crate) name: String,
    /// The project's own description.
    pub(crate) description: String,
    /// Objects of any kinds; what a function has no use for, it passes over.
    pub(crate) objects: Vec<Object>,
}

impl Resources {
    /// The objects of a kind.
    pub(crate) fn of(&self, kind: Kind) -> impl Iterator<Item = &Object> {
        self.objects.iter().filter(move |object| object.kind == kind)
    }
}

/// The kinds of view that Feast lists as feature views: all but label views, in the order of its listings.
pub(crate) const FEATURE_VIEWS: [Kind; 3] = [Kind::FeatureView, Kind::StreamFeatureView, Kind::OnDemandFeatureView];

/// The definition of an object: its sub-message `spec`, or itself where it has none.
pub(crate) fn spec(object: &Object) -> Result<Cow<'_, [u8]>> {
    match object.kind.layout().spec {
        None => Ok(Cow::Borrowed(&object.bytes)),
        Some(spec) => Ok(wire::sub_message(&object.bytes, spec)?.unwrap_or_default()),
    }
}

/// Whether a view is of an entity.
pub(crate) fn has_entity(view: &Object, entity: &str) -> Result<bool> {
    let number = if view.kind == Kind::OnDemandFeatureView { 13 } else { 3 };
    for field in wire::fields(&spec(view)?) {
        let field = field?;
        if field.number == number && field.content == entity.as_bytes() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The name of a view's batch source, if it has one.
pub(crate) fn batch_source_of(view: &Object) -> Result<Option<String>> {
    let number = match view.kind {
        Kind::FeatureView => 7,
        Kind::StreamFeatureView => 10,
        _ => return Ok(None),
    };
    let (spec, name) = (spec(view)?, Kind::DataSource.layout().name);
    let source = wire::sub_message(&spec, number)?.unwrap_or_default();
    let name = name.map_or(Ok(""), |name| wire::text(&source, name))?;
    Ok((!name.is_empty()).then(|| name.to_owned()))
}

/// The numbers of the fields that describe something.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields {
    pub(crate) name: Option<u32>,
    pub(crate) description: Option<u32>,
    pub(crate) tags: Option<u32>,
}

impl Fields {
    /// Those in the spec of a kind of object.
    pub(crate) fn of(kind: Kind) -> Self {
        let layout = kind.layout();
        Self { name: layout.name, description: layout.description, tags: layout.tags }
    }

    /// Those in the specification of a feature.
    pub(crate) const OF_FEATURE: Self = Self { name: Some(1), description: Some(4), tags: Some(3) };
}

/// How something is described. It can be filled again and again, so that reading many costs no memory.
#[derive(Debug, Default)]
pub(crate) struct Described<'a> {
    pub(crate) name: &'a str,
    pub(crate) description: &'a str,
    /// Each key once, in the order of the keys.
    pub(crate) tags: Vec<(&'a str, &'a str)>,
}

impl<'a> Described<'a> {
    /// Reads how a message is described, in one pass over its fields.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] when the bytes are not an encoded message.
    pub(crate) fn read(&mut self, message: &'a [u8], numbers: Fields) -> Result<()> {
        let (mut name, mut description) = (&[][..], &[][..]);
        self.tags.clear();
        for field in wire::fields(message) {
            let field = field?;
            let number = Some(field.number);
            if number == numbers.name {
                name = field.content;
            } else if number == numbers.description {
                description = field.content;
            } else if number == numbers.tags {
                self.tags.push((wire::text(field.content, 1)?, wire::text(field.content, 2)?));
            }
        }
        self.name = text(name)?;
        self.description = text(description)?;
        // Of a key that is there twice, the later value counts.
        self.tags.reverse();
        self.tags.sort_by_key(|(key, _)| *key);
        self.tags.dedup_by_key(|(key, _)| *key);
        Ok(())
    }
}

fn text(content: &[u8]) -> Result<&str> {
    std::str::from_utf8(content)
        .map_err(|error| Error::new(ErrorKind::Corrupt, "a name or a description is not UTF-8").with_source(error))
}

#[cfg(test)]
mod tests {
    use feast_registry_core::proto::DESCRIPTORS;
    use feast_registry_core::proto::core::{
        DataSource, Entity, EntitySpecV2, FeatureView, FeatureViewSpec, LabelView, LabelViewSpec, OnDemandFeatureView,
        OnDemandFeatureViewSpec, StreamFeatureView, StreamFeatureViewSpec,
    };
    use proptest::prelude::*;
    use prost::Message;

    use super::*;

    #[test]
    fn the_fields_of_a_feature_are_those_of_its_message() {
        let feature = DESCRIPTORS.get_message_by_name("feast.core.FeatureSpecV2").expect("a message");
        let number = |name: &str| feature.get_field_by_name(name).map(|field| field.number());
        let Fields { name, description, tags } = Fields::OF_FEATURE;
        assert_eq!((name, description, tags), (number("name"), number("description"), number("tags")));
    }

    /// The numbers of the fields are held against what is encoded with them.
    #[test]
    fn what_a_view_is_of_is_read_undecoded() {
        let entities = || vec!["driver".to_owned(), "rider".to_owned()];
        let source = || Some(DataSource { name: "table".into(), ..Default::default() });
        let batch = FeatureViewSpec { entities: entities(), batch_source: source(), ..Default::default() };
        let stream = StreamFeatureViewSpec { entities: entities(), batch_source: source(), ..Default::default() };
        let on_demand = OnDemandFeatureViewSpec { entities: entities(), ..Default::default() };
        let labels = LabelViewSpec { entities: entities(), source: source(), ..Default::default() };
        let views = [
            (Object::encode(&FeatureView { spec: Some(batch), meta: None }), Some("table")),
            (Object::encode(&StreamFeatureView { spec: Some(stream), meta: None }), Some("table")),
            (Object::encode(&OnDemandFeatureView { spec: Some(on_demand), meta: None }), None),
            (Object::encode(&LabelView { spec: Some(labels), meta: None }), None),
        ];
        for (view, source) in &views {
            for (entity, has_it) in [("driver", true), ("rider", true), ("table", false), ("", false)] {
                assert_eq!(has_entity(view, entity).expect("well-formed"), has_it, "{view:?}: {entity}");
            }
            assert_eq!(batch_source_of(view).expect("well-formed").as_deref(), *source, "{view:?}");
        }
        let empty = Object::encode(&FeatureView::default());
        assert!(!has_entity(&empty, "driver").expect("well-formed"));
        assert_eq!(batch_source_of(&empty).expect("well-formed"), None);
    }

    proptest! {
        #[test]
        fn a_description_is_read_as_it_was_written(
            name in ".*",
            description in ".*",
            tags in prop::collection::btree_map(".{0,3}", ".{0,3}", 0..6),
            older in prop::collection::btree_map(".{0,1}", ".{0,3}", 0..6),
        ) {
            let spec = EntitySpecV2 { tags: older.clone().into_iter().collect(), ..Default::default() };
            let newer = EntitySpecV2 {
                name: name.clone(),
                description: description.clone(),
                tags: tags.clone().into_iter().collect(),
                ..Default::default()
            };
            // Two occurrences of a sub-message merge; of two values of a key, the later counts.
            let mut bytes = Entity { spec: Some(spec), meta: None }.encode_to_vec();
            bytes.extend(Entity { spec: Some(newer), meta: None }.encode_to_vec());
            let object = Object::new(Kind::Entity, bytes);
            let spec = spec_of(&object);
            let mut described = Described::default();
            described.read(&spec, Fields::of(Kind::Entity)).expect("well-formed");
            prop_assert_eq!((described.name, described.description), (&*name, &*description));
            let mut expected = older;
            expected.extend(tags);
            let expected: Vec<_> = expected.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
            prop_assert_eq!(&described.tags, &expected);
        }
    }

    fn spec_of(object: &Object) -> Cow<'_, [u8]> {
        spec(object).expect("well-formed")
    }
}
