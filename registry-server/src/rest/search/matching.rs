//! Whether and how well a query matches something (Feast: `rest_utils.filter_search_results_and_match_score`).

use crate::rest::resources::Described;

/// A similarity below this is none.
const THRESHOLD: f64 = 0.75;

const IN_NAME: u8 = 100;
const IN_DESCRIPTION: u8 = 80;
const IN_TAG: u8 = 60;

/// How well something matches.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Score {
    /// Nothing was looked for, so everything matches.
    Unscored,
    /// The query stands in it.
    Exact(u8),
    /// It is made of about the same characters: a percentage.
    Similar(f64),
}

impl Score {
    pub(super) fn value(self) -> f64 {
        match self {
            Score::Unscored => 0.0,
            Score::Exact(score) => f64::from(score),
            Score::Similar(score) => score,
        }
    }
}

/// A query, made ready to be looked for in many texts without regard to case. To look for it costs the length of the text: the
/// query counts only in texts that are at least as long.
#[derive(Debug)]
pub(super) struct Needle {
    /// In lower case, as Python and Rust make it: by Unicode's rules, the final sigma included.
    text: String,
    characters: Characters,
    /// The text that is looked at, in lower case.
    lower: String,
    /// Those of the text that is looked at.
    other: Characters,
}

/// The characters that a text is made of, each once.
#[derive(Debug, Default)]
struct Characters {
    ascii: u128,
    /// The others, sorted.
    wide: Vec<char>,
}

impl Characters {
    fn set(&mut self, text: &str) {
        self.ascii = 0;
        self.wide.clear();
        for character in text.chars() {
            if character.is_ascii() {
                self.ascii |= 1 << u32::from(character);
            } else {
                self.wide.push(character);
            }
        }
        self.wide.sort_unstable();
        self.wide.dedup();
    }

    fn count(&self) -> usize {
        self.ascii.count_ones() as usize + self.wide.len()
    }

    /// How many characters two sets share.
    fn shared(&self, other: &Self) -> usize {
        let wide = other.wide.iter().filter(|character| self.wide.binary_search(character).is_ok());
        (self.ascii & other.ascii).count_ones() as usize + wide.count()
    }
}

impl Needle {
    pub(super) fn new(query: &str) -> Self {
        let text = query.to_lowercase();
        let mut characters = Characters::default();
        characters.set(&text);
        Self { text, characters, lower: String::new(), other: Characters::default() }
    }

    /// How well something matches; `None` when it does not. A match in the name comes before one in the description, then come
    /// tags, then what is similar.
    pub(super) fn score(&mut self, described: &Described<'_>) -> Option<Score> {
        if self.text.is_empty() {
            return Some(Score::Unscored);
        }
        if self.is_in(described.name) {
            return Some(Score::Exact(IN_NAME));
        }
        if self.is_in(described.description) {
            return Some(Score::Exact(IN_DESCRIPTION));
        }
        let mut best = 0.0_f64;
        for (tag, value) in &described.tags {
            match self.score_tag(tag, value) {
                Some(Score::Similar(similarity)) => best = best.max(similarity),
                Some(exact) => return Some(exact),
                None => {}
            }
        }
        if best >= THRESHOLD {
            return Some(Score::Similar(best * 100.0));
        }
        self.set_lower(described.name);
        let similarity = self.similarity();
        (similarity >= THRESHOLD).then_some(Score::Similar(similarity * 100.0))
    }

    /// Whether a tag is one of those that a match is shown with.
    pub(super) fn matches_tag(&mut self, tag: &str, value: &str) -> bool {
        self.text.is_empty() || self.score_tag(tag, value).is_some()
    }

    /// How well a tag matches; similarity is a part of one here.
    fn score_tag(&mut self, tag: &str, value: &str) -> Option<Score> {
        self.set_lower(tag);
        self.lower.push('=');
        push_lower(value, &mut self.lower);
        if self.lower.contains(&self.text) {
            return Some(Score::Exact(IN_TAG));
        }
        let similarity = self.similarity();
        (similarity >= THRESHOLD).then_some(Score::Similar(similarity))
    }

    fn is_in(&mut self, text: &str) -> bool {
        self.set_lower(text);
        self.lower.contains(&self.text)
    }

    fn set_lower(&mut self, text: &str) {
        self.lower.clear();
        push_lower(text, &mut self.lower);
    }

    /// The Jaccard index of the characters of the query and those of `lower`.
    fn similarity(&mut self) -> f64 {
        if self.text.is_empty() || self.lower.is_empty() {
            return 0.0;
        }
        self.other.set(&self.lower);
        let shared = self.characters.shared(&self.other);
        shared as f64 / (self.characters.count() + self.other.count() - shared) as f64
    }
}

fn push_lower(text: &str, to: &mut String) {
    if text.is_ascii() {
        let start = to.len();
        to.push_str(text);
        to[start..].make_ascii_lowercase();
    } else {
        to.push_str(&text.to_lowercase());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    /// As Feast computes it.
    fn similarity_by_sets(one: &str, other: &str) -> f64 {
        let (one, other): (HashSet<char>, HashSet<char>) = (one.chars().collect(), other.chars().collect());
        if one.is_empty() || other.is_empty() {
            return 0.0;
        }
        one.intersection(&other).count() as f64 / one.union(&other).count() as f64
    }

    /// As Feast decides it.
    fn score_by_steps(query: &str, name: &str, description: &str, tags: &[(&str, &str)]) -> Option<Score> {
        let query = query.to_lowercase();
        let tags: Vec<String> =
            tags.iter().map(|(tag, value)| format!("{}={}", tag.to_lowercase(), value.to_lowercase())).collect();
        if query.is_empty() {
            Some(Score::Unscored)
        } else if name.to_lowercase().contains(&query) {
            Some(Score::Exact(100))
        } else if description.to_lowercase().contains(&query) {
            Some(Score::Exact(80))
        } else if tags.iter().any(|tag| tag.contains(&query)) {
            Some(Score::Exact(60))
        } else {
            let similar = |text: &str| Some(similarity_by_sets(&query, text)).filter(|of| *of >= 0.75);
            let of_tags = tags
                .iter()
                .filter_map(|tag| similar(tag))
                .fold(None, |best: Option<f64>, of| Some(best.map_or(of, |best| best.max(of))));
            of_tags.or_else(|| similar(&name.to_lowercase())).map(|of| Score::Similar(of * 100.0))
        }
    }

    /// Texts of few characters, so that they match; some change their length or their neighbours with their case.
    const TEXT: &str = "[abAB=ΣσςİıßẞÀ運]{0,6}";

    proptest! {
        #[test]
        fn scores_are_those_of_the_plain_rule(
            query in TEXT,
            name in TEXT,
            description in TEXT,
            tags in prop::collection::vec((TEXT, TEXT), 0..3),
        ) {
            let tags: Vec<(&str, &str)> = tags.iter().map(|(tag, value)| (tag.as_str(), value.as_str())).collect();
            let mut needle = Needle::new(&query);
            let described = Described { name: &name, description: &description, tags: tags.clone() };
            let score = score_by_steps(&query, &name, &description, &tags);
            prop_assert_eq!(needle.score(&described), score);
            // What was looked at before leaves nothing behind.
            prop_assert_eq!(needle.score(&described), score);
        }

        #[test]
        fn no_text_panics(query in ".*", name in ".*", tag in ".*") {
            let described = Described { name: &name, description: "", tags: vec![(&tag, &name)] };
            Needle::new(&query).score(&described);
        }
    }

    #[test]
    fn case_is_folded_as_by_python() {
        // What `str.lower` makes of these in Python 3.11.
        for (text, lower) in
            [("ΣΑΣ", "σας"), ("İ", "i\u{307}"), ("ẞ", "ß"), ("Ǆ", "ǆ"), ("ΑΣ.", "ας."), ("ΑΣ'Β", "ασ'β"), ("Ⅷ", "ⅷ")]
        {
            assert_eq!(Needle::new(text).text, lower);
            let mut pushed = String::new();
            push_lower(text, &mut pushed);
            assert_eq!(pushed, lower);
        }
    }
}
