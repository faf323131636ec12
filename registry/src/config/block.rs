//! A block of settings, whose values are checked as strictly as Feast checks them: a number in quotes is no number.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use super::problem::{Problem, shown};
use super::yaml::{Entry, Value};

/// A mapping of settings to their values. What a setting is not given for is `None`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block<'a> {
    /// What the name of a setting begins with in errors, as `registry.`.
    pub(super) prefix: &'static str,
    /// Where the block begins, for what is missing in it. `None` for the whole file.
    pub(super) line: Option<usize>,
    pub(super) entries: &'a [Entry],
}

impl<'a> Block<'a> {
    fn entry(&self, key: &str) -> Option<&'a Entry> {
        self.entries.iter().find(|entry| matches!(entry.key.value(), Value::Str(name) if name == key))
    }

    pub(super) fn get(&self, key: &str) -> Option<Value<'a>> {
        self.entry(key).map(|entry| entry.value.value())
    }

    /// That something is wrong with a setting. `text` goes on from its name.
    pub(super) fn wrong(&self, key: &str, text: impl Display) -> Problem {
        Problem {
            line: self.entry(key).map(|entry| entry.line).or(self.line),
            message: format!("`{}{key}` {text}", self.prefix),
        }
    }

    /// That a setting has a value that is not what is expected of it.
    pub(super) fn must_be(&self, key: &str, expected: impl Display, value: Value<'_>) -> Problem {
        self.wrong(key, format_args!("must be {expected}; it is {}", describe(value)))
    }

    /// That nothing else is in the block than these settings.
    pub(super) fn only(&self, known: &[&str], hint: impl Fn(&str) -> &'static str) -> Result<(), Problem> {
        for entry in self.entries {
            let key = match entry.key.value() {
                Value::Str(key) if known.contains(&key) => continue,
                other => other,
            };
            let (described, hint) = match key {
                Value::Str(key) => (shown(key), hint(key)),
                other => (format!("that is {}", describe(other)), ""),
            };
            return Err(self.about(
                entry,
                format_args!("has no setting {}{hint}; its settings are `{}`", described, known.join("`, `")),
            ));
        }
        Ok(())
    }

    /// The settings of a block that holds nothing but strings.
    pub(super) fn strings(&self) -> Result<Vec<(String, String)>, Problem> {
        let string = |entry: &Entry, value: Value<'_>| match value {
            Value::Str(text) => Ok(text.to_owned()),
            other => Err(self.about(entry, format_args!("holds strings; this is {}", describe(other)))),
        };
        let both = |entry: &Entry| Ok((string(entry, entry.key.value())?, string(entry, entry.value.value())?));
        self.entries.iter().map(both).collect()
    }

    fn about(&self, entry: &Entry, text: impl Display) -> Problem {
        Problem { line: Some(entry.line), message: format!("`{}` {text}", self.prefix.trim_end_matches('.')) }
    }

    pub(super) fn string(&self, key: &str) -> Result<Option<&'a str>, Problem> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Str(text)) => Ok(Some(text)),
            Some(other) => Err(self.must_be(key, "a string", other)),
        }
    }

    /// A string that may also be left empty.
    pub(super) fn nullable_string(&self, key: &str) -> Result<Option<&'a str>, Problem> {
        match self.get(key) {
            Some(Value::Null) => Ok(None),
            _ => self.string(key),
        }
    }

    pub(super) fn boolean(&self, key: &str) -> Result<Option<bool>, Problem> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(value)),
            Some(other) => Err(self.must_be(key, "`true` or `false`", other)),
        }
    }

    /// A whole number within `range`. `what` says of what, and what its ends mean.
    pub(super) fn integer<T: TryFrom<i128>>(
        &self,
        key: &str,
        range: RangeInclusive<i128>,
        what: &str,
    ) -> Result<Option<T>, Problem> {
        let Some(value) = self.get(key) else { return Ok(None) };
        if let Value::Int(number) = value
            && range.contains(&number)
            && let Ok(number) = T::try_from(number)
        {
            return Ok(Some(number));
        }
        let (least, most) = range.into_inner();
        Err(self.must_be(key, format_args!("a whole number{what}, from {least} to {most}"), value))
    }

    /// One of several words.
    pub(super) fn choice<T: FromStr + Display>(&self, key: &str, all: &[T]) -> Result<Option<T>, Problem> {
        let Some(value) = self.get(key) else { return Ok(None) };
        if let Value::Str(text) = value
            && let Ok(choice) = text.parse()
        {
            return Ok(Some(choice));
        }
        let all: Vec<_> = all.iter().map(|choice| format!("`{choice}`")).collect();
        Err(self.must_be(key, all.join(" or "), value))
    }

    /// The block that a setting has for its value. `prefix` is as in [`Block`].
    pub(super) fn inner(&self, key: &str, prefix: &'static str, entries: &'a [Entry]) -> Block<'a> {
        Block { prefix, line: self.entry(key).map(|entry| entry.line), entries }
    }

    /// A block inside of this one.
    pub(super) fn block(&self, key: &str, prefix: &'static str) -> Result<Option<Block<'a>>, Problem> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Mapping(entries)) => Ok(Some(self.inner(key, prefix, entries))),
            Some(other) => Err(self.must_be(key, "a block of settings", other)),
        }
    }

    /// A block inside of this one, that may also be left empty.
    pub(super) fn nullable_block(&self, key: &str, prefix: &'static str) -> Result<Option<Block<'a>>, Problem> {
        match self.get(key) {
            Some(Value::Null) => Ok(None),
            _ => self.block(key, prefix),
        }
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
