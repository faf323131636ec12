//! The argument KIND: which kinds of object a command is about.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use feast_registry::{Error, Kind};

/// What a KIND stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Selection {
    /// One kind.
    One(Kind),
    /// The four kinds of view.
    Views,
    /// Every kind.
    All,
}

impl Selection {
    /// The kinds, in the order in which they are shown.
    pub(super) fn kinds(self) -> Vec<Kind> {
        match self {
            Selection::One(kind) => vec![kind],
            Selection::Views => Kind::VIEWS.to_vec(),
            Selection::All => Kind::ALL.to_vec(),
        }
    }

    /// What it is called, in the plural.
    pub(super) fn plural(self) -> String {
        match self {
            Selection::One(Kind::Infra) => "infrastructure".to_owned(),
            Selection::One(kind) => kind.plural().replace('_', " "),
            Selection::Views => "views".to_owned(),
            Selection::All => "objects".to_owned(),
        }
    }

    fn parse(text: &str) -> Result<Self, Error> {
        match text.to_lowercase().as_str() {
            "views" | "view" => Ok(Selection::Views),
            "all" => Ok(Selection::All),
            _ => Ok(Selection::One(text.parse()?)),
        }
    }
}

/// Reads the KIND of one object.
pub(super) fn of_one() -> impl TypedValueParser<Value = Selection> {
    PossibleValuesParser::new(kinds().chain([views()])).try_map(|text| Selection::parse(&text))
}

/// Reads the KIND of a list.
pub(super) fn of_many() -> impl TypedValueParser<Value = Selection> {
    PossibleValuesParser::new(kinds().chain([views(), PossibleValue::new("all")]))
        .try_map(|text| Selection::parse(&text))
}

/// Every kind by its plural, and as [`Kind::from_str`](std::str::FromStr::from_str) reads it.
fn kinds() -> impl Iterator<Item = PossibleValue> {
    Kind::ALL.iter().copied().map(|kind| {
        let words = [kind.plural().replace('_', " "), kind.label().to_owned()];
        let spellings =
            words.iter().flat_map(|words| [words.clone(), words.replace(' ', "-"), words.replace(' ', "_")]);
        PossibleValue::new(kind.plural().replace('_', "-")).aliases(spellings)
    })
}

fn views() -> PossibleValue {
    PossibleValue::new("views").alias("view")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_that_is_offered_is_understood() {
        for value in kinds().chain([views()]) {
            for text in value.get_name_and_aliases() {
                for text in [text.to_owned(), text.to_uppercase()] {
                    assert!(value.matches(&text, true), "{text}");
                    assert!(Selection::parse(&text).is_ok(), "{text}");
                }
            }
        }
    }
}
