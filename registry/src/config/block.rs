//! A block of settings, whose values are checked as strictly as Feast checks them: a number in quotes is no number.
//!
//! What is wrong is noted, and is as if it were not there for whoever reads on.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::str::FromStr;

use super::findings::{Findings, Problem, shown};
use super::yaml::{Entry, Node, Value};

/// A mapping of settings to their values. What a setting is not given for is `None`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block<'a> {
    /// What the name of a setting begins with in errors, as `registry.`.
    pub(super) prefix: &'static str,
    /// Where the block begins, for what is missing in it. `None` for the whole file.
    pub(super) line: Option<usize>,
    pub(super) entries: &'a [Entry],
    pub(super) findings: &'a Findings,
}

impl<'a> Block<'a> {
    fn entry(&self, key: &str) -> Option<&'a Entry> {
        self.entries.iter().find(|entry| matches!(entry.key.value(), Value::Str(name) if name == key))
    }

    pub(super) fn get(&self, key: &str) -> Option<Value<'a>> {
        self.entry(key).map(|entry| entry.value.value())
    }

    /// A setting as JSON, whatever it is.
    pub(super) fn json(&self, key: &str) -> Option<serde_json::Value> {
        self.entry(key).map(|entry| entry.value.json())
    }

    /// Notes that something is wrong with a setting. `text` goes on from its name.
    pub(super) fn wrong(&self, key: &str, text: impl Display) {
        // What is wrong with a value that is unknown is that it is unknown, which is noted by itself.
        if self.entry(key).is_none_or(|entry| !entry.value.is_unknown()) {
            self.findings.error(self.problem(key, text));
        }
    }

    /// Notes what the author of a setting may not know. `text` goes on from its name.
    pub(super) fn warn(&self, key: &str, text: impl Display) {
        self.findings.warning(self.problem(key, text));
    }

    fn problem(&self, key: &str, text: impl Display) -> Problem {
        Problem {
            line: self.entry(key).map(|entry| entry.line).or(self.line),
            message: format!("`{}{key}` {text}", self.prefix),
        }
    }

    /// Notes that a setting has a value that is not what is expected of it.
    pub(super) fn must_be(&self, key: &str, expected: impl Display, value: Value<'_>) {
        self.wrong(key, format_args!("must be {expected}; it is {}", describe(value)));
    }

    /// Notes what else is in the block than these settings. Of them, those that are `known` are named to whoever writes others.
    pub(super) fn only(&self, known: &[&str], tolerated: &[&str], hint: impl Fn(&str) -> &'static str) {
        for entry in self.entries {
            let (described, hint) = match entry.key.value() {
                Value::Str(key) if known.contains(&key) || tolerated.contains(&key) => continue,
                Value::Str(key) => (shown(key), hint(key)),
                other => (format!("that is {}", describe(other)), ""),
            };
            self.about(
                entry,
                format_args!("has no setting {described}{hint}; its settings are `{}`", known.join("`, `")),
            );
        }
    }

    /// The names of the settings.
    pub(super) fn keys(&self) -> impl Iterator<Item = &'a str> {
        self.entries.iter().filter_map(|entry| if let Value::Str(key) = entry.key.value() { Some(key) } else { None })
    }

    /// Notes what else is in the block than these settings, and is passed over. Of them, those that are `known` are named.
    pub(super) fn warn_of_others(&self, known: &[&str], tolerated: &[&str]) {
        for key in self.keys().filter(|key| !known.contains(key) && !tolerated.contains(key)) {
            self.warn(key, format_args!("has no effect; the settings that have one are `{}`", known.join("`, `")));
        }
    }

    /// The settings of a block that holds nothing but strings.
    pub(super) fn strings(&self) -> Vec<(String, String)> {
        let string = |entry: &Entry, value: Value<'_>| match value {
            Value::Str(text) => Some(text.to_owned()),
            other => {
                self.about(entry, format_args!("holds strings; this is {}", describe(other)));
                None
            }
        };
        let both = |entry: &Entry| Some((string(entry, entry.key.value())?, string(entry, entry.value.value())?));
        self.entries.iter().filter_map(both).collect()
    }

    fn about(&self, entry: &Entry, text: impl Display) {
        if !entry.key.is_unknown() {
            let message = format!("`{}` {text}", self.prefix.trim_end_matches('.'));
            self.findings.error(Problem { line: Some(entry.line), message });
        }
    }

    /// The value of a setting as `read` reads it, unless that is something else than `expected`.
    pub(super) fn read<T>(
        &self,
        key: &str,
        expected: impl Display,
        read: impl FnOnce(Value<'a>) -> Option<T>,
    ) -> Option<T> {
        let value = self.get(key)?;
        let read = read(value);
        if read.is_none() {
            self.must_be(key, expected, value);
        }
        read
    }

    pub(super) fn string(&self, key: &str) -> Option<&'a str> {
        self.read(key, "a string", |value| if let Value::Str(text) = value { Some(text) } else { None })
    }

    /// A string that may also be left empty.
    pub(super) fn nullable_string(&self, key: &str) -> Option<&'a str> {
        if self.is_null(key) { None } else { self.string(key) }
    }

    /// A list of strings; empty if there is none.
    pub(super) fn texts(&self, key: &str) -> Vec<String> {
        let Some(entry) = self.entry(key) else { return Vec::new() };
        let text = |item: &Rc<Node>| if let Value::Str(text) = item.value() { Some(text.to_owned()) } else { None };
        let texts = match (&*entry.value, entry.value.value()) {
            (_, Value::Null) => Some(Vec::new()),
            (Node::Sequence { items, .. }, Value::Sequence) => items.iter().map(text).collect(),
            _ => None,
        };
        texts.unwrap_or_else(|| {
            self.must_be(key, "a list of strings", entry.value.value());
            Vec::new()
        })
    }

    pub(super) fn boolean(&self, key: &str) -> Option<bool> {
        self.read(key, "`true` or `false`", |value| if let Value::Bool(value) = value { Some(value) } else { None })
    }

    /// A whole number within `range`. `what` says of what, and what its ends mean.
    pub(super) fn integer<T: TryFrom<i128>>(&self, key: &str, range: RangeInclusive<i128>, what: &str) -> Option<T> {
        let expected = format!("a whole number{what}, from {} to {}", range.start(), range.end());
        self.read(key, expected, |value| match value {
            Value::Int(number) if range.contains(&number) => T::try_from(number).ok(),
            _ => None,
        })
    }

    /// One of several words.
    pub(super) fn choice<T: FromStr + Display>(&self, key: &str, all: &[T]) -> Option<T> {
        let words: Vec<_> = all.iter().map(|choice| format!("`{choice}`")).collect();
        self.read(key, words.join(" or "), |value| if let Value::Str(text) = value { text.parse().ok() } else { None })
    }

    /// The block that a setting has for its value. `prefix` is as in [`Block`].
    pub(super) fn inner(&self, key: &str, prefix: &'static str, entries: &'a [Entry]) -> Block<'a> {
        Block { prefix, line: self.entry(key).map(|entry| entry.line), entries, findings: self.findings }
    }

    /// A block inside of this one.
    pub(super) fn block(&self, key: &str, prefix: &'static str) -> Option<Block<'a>> {
        self.read(key, "a block of settings", |value| match value {
            Value::Mapping(entries) => Some(self.inner(key, prefix, entries)),
            _ => None,
        })
    }

    /// A block inside of this one, that may also be left empty.
    pub(super) fn nullable_block(&self, key: &str, prefix: &'static str) -> Option<Block<'a>> {
        if self.is_null(key) { None } else { self.block(key, prefix) }
    }

    fn is_null(&self, key: &str) -> bool {
        matches!(self.get(key), Some(Value::Null))
    }
}

/// What a value is, in words.
pub(super) fn describe(value: Value<'_>) -> String {
    match value {
        Value::Null => "empty".to_owned(),
        Value::Bool(value) => format!("the boolean `{value}`"),
        Value::Int(number) => format!("the number `{number}`"),
        Value::Float(number) => format!("the number `{number:?}`"),
        Value::Str(text) => format!("the string {}", shown(text)),
        Value::Sequence => "a list".to_owned(),
        Value::Mapping(_) => "a block of settings".to_owned(),
        Value::Other(what) => what.to_owned(),
    }
}
