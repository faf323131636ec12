//! Texts that Feast itself has written (`golden.json`, which `interop/printed_definitions.py` makes), and objects that Feast has no
//! text for.

use std::collections::BTreeSet;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use feast_registry_core::proto::core::data_source::SourceType;
use feast_registry_core::proto::core::{DataSource, FeatureSpecV2, FeatureView, FeatureViewSpec, Project};
use feast_registry_core::proto::types::value_type::Enum as ValueType;
use feast_registry_core::{ErrorKind, Freshness, Kind, MemoryBackend, Object, Registry, RegistryOptions, wire};
use proptest::prelude::*;
use prost_types::Duration;
use serde::Deserialize;

use super::{of_feature, of_object, python};

/// An object, or a feature of a view, and Feast's text for it.
#[derive(Debug, Clone, Deserialize)]
struct Golden {
    title: String,
    kind: String,
    proto: String,
    feature: Option<String>,
    text: String,
}

impl Golden {
    fn all() -> Vec<Self> {
        serde_json::from_str(include_str!("golden.json")).expect("cases")
    }

    fn object(&self) -> Object {
        let bytes = BASE64_STANDARD.decode(&self.proto).expect("base64");
        Object::new(self.kind.parse().expect("a kind"), bytes)
    }
}

/// The text of a feature, as a registry lists it.
async fn feature_text(view: Object, name: &str) -> String {
    let options = RegistryOptions::default();
    let registry = Registry::open(Arc::new(MemoryBackend::new()), options).await.expect("a registry");
    registry.apply("p", view).await.expect("the view is stored");
    let features = registry.list_features("p", Freshness::Stored).await.expect("features");
    of_feature(features.iter().find(|feature| feature.name == name).expect("the feature"))
}

#[tokio::test]
async fn texts_are_feasts() {
    let mut kinds = BTreeSet::new();
    for case in Golden::all() {
        let text = match &case.feature {
            Some(feature) => feature_text(case.object(), feature).await,
            None => of_object(&case.object()).expect("a message").expect("a text"),
        };
        assert_eq!(text, case.text, "{}", case.title);
        kinds.insert((case.kind, case.feature.is_some()));
    }
    // Eight kinds of object, and features and labels.
    assert_eq!(kinds.len(), 10, "{kinds:?}");
}

#[test]
fn some_objects_have_no_text() {
    let views = [Kind::FeatureView, Kind::StreamFeatureView, Kind::OnDemandFeatureView, Kind::LabelView];
    // A view without a spec; and what there is no template for, whatever it contains.
    for kind in views.into_iter().chain([Kind::Project, Kind::ValidationReference, Kind::Permission, Kind::Infra]) {
        assert_eq!(of_object(&Object::new(kind, Vec::new())).expect("a message"), None, "{kind}");
    }
    assert_eq!(of_object(&Object::encode(&Project::default())).expect("a message"), None);
}

#[test]
fn what_is_no_message_is_an_error() {
    for kind in [Kind::Entity, Kind::DataSource, Kind::OnDemandFeatureView, Kind::SavedDataset] {
        let error = of_object(&Object::new(kind, vec![0xff])).expect_err("no message");
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{kind}");
    }
}

fn field(name: &str, value_type: i32) -> FeatureSpecV2 {
    FeatureSpecV2 { name: name.to_owned(), value_type, ..Default::default() }
}

fn view_text(spec: FeatureViewSpec) -> String {
    of_object(&Object::encode(&FeatureView { spec: Some(spec), meta: None })).expect("a message").expect("a text")
}

/// Feast answers 500 to each of these, to a null 422.
#[test]
fn what_feast_cannot_print_has_a_text() {
    let features = vec![field("", 2), field("pdf", 30), field("new", 99), field("null", ValueType::Null as i32)];
    let ttl = Some(Duration { seconds: i64::MAX, nanos: 0 });
    let text = view_text(FeatureViewSpec { name: "v".to_owned(), features, ttl, ..Default::default() });
    for line in [
        "from feast.types import String, PdfBytes, ValueType(99), Null\n",
        "        Field(name=\"\", dtype=String),\n        Field(name=\"pdf\", dtype=PdfBytes),\n",
        "        Field(name=\"new\", dtype=ValueType(99)),\n        Field(name=\"null\", dtype=Null),\n",
        "    ttl=timedelta(seconds=9223372036854775807),\n",
    ] {
        assert!(text.contains(line), "{text}");
    }
    let source = DataSource { name: "s".to_owned(), r#type: 77, ..Default::default() };
    assert!(SourceType::try_from(source.r#type).is_err());
    let text = of_object(&Object::encode(&source)).expect("a message").expect("a text");
    assert!(text.starts_with("from feast import FileSource\n\ns = FileSource(\n"), "{text}");
}

#[test]
fn a_length_of_time_that_is_not_one_is_a_day() {
    for (seconds, nanos) in [(1, -1), (1, i32::MAX), (i64::MIN, i32::MIN)] {
        let text = view_text(FeatureViewSpec { ttl: Some(Duration { seconds, nanos }), ..Default::default() });
        assert!(text.contains("    ttl=timedelta(days=1),\n"), "{text}");
    }
}

/// A stack of 1 MB is half of what a worker of the server has.
#[test]
fn views_of_views_do_not_end_the_process() {
    let nested = |depth| {
        let mut spec = Vec::new();
        for _ in 0..depth {
            let inner = std::mem::take(&mut spec);
            wire::put(&mut spec, 1, b"v");
            wire::put(&mut spec, 14, &inner);
        }
        let mut view = Vec::new();
        wire::put(&mut view, 1, &spec);
        Object::new(Kind::FeatureView, view)
    };
    let print = move || {
        let text = of_object(&nested(50)).expect("a message").expect("a text");
        assert!(text.contains("    source=[v],\n"), "{text}");
        assert_eq!(of_object(&nested(1_000)).expect_err("too deep").kind(), ErrorKind::Corrupt);
    };
    std::thread::Builder::new().stack_size(1 << 20).spawn(print).expect("a thread").join().expect("no panic");
}

#[test]
fn a_type_is_imported_once() {
    let features = [(0, "a"), (2, "b"), (99, "c"), (4, "d"), (2, "e"), (99, "f")].map(|(of, name)| field(name, of));
    let text = view_text(FeatureViewSpec { features: features.into(), ..Default::default() });
    assert!(text.contains("from feast.types import String, ValueType(99), Int64\n"), "{text}");
}

proptest! {
    /// Damaged objects come closer to a text than random bytes do.
    #[test]
    fn no_bytes_panic(
        case in prop::sample::select(Golden::all()),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        kind in prop::sample::select(Kind::ALL.to_vec()),
        random in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let mut damaged = case.object();
        let mut bytes = damaged.bytes.to_vec();
        for (index, byte) in damage.iter().filter(|_| !case.proto.is_empty()) {
            let place = index.index(bytes.len());
            bytes[place] = *byte;
        }
        damaged.bytes = bytes.into();
        for object in [damaged, Object::new(kind, random)] {
            // An error or none: the test is that there is an answer.
            if let Err(error) = of_object(&object) {
                prop_assert_eq!(error.kind(), ErrorKind::Corrupt);
            }
        }
    }

    /// A text is within one pair of quotes, whatever it contains, and on one line.
    #[test]
    fn texts_do_not_leave_their_quotes(text in any::<String>()) {
        let printed = python::text(&text);
        let quote = printed.chars().next().expect("a quote");
        let inner = printed.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote)).expect("quotes");
        let mut rest = inner.chars();
        while let Some(character) = rest.next() {
            prop_assert!(character != quote && !character.is_control());
            if character == '\\' {
                prop_assert!(rest.next().is_some());
            }
        }
    }

    /// Both are other spellings of the same number.
    #[test]
    fn floats_are_read_back(value in prop::num::f32::NORMAL | prop::num::f32::SUBNORMAL | prop::num::f32::ZERO) {
        let printed = python::float(value);
        prop_assert_eq!(printed.parse::<f64>().expect("a number") as f32, value);
    }
}
