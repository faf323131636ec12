//! YAML as PyYAML's `safe_load` reads it, with the line of every key.
//!
//! Feast reads its configuration with PyYAML, which is of YAML 1.1: `off` is a boolean and `1_000` a number, while
//! `1e3` is a string. What a scalar is depends on how it is written, so this works on the events of the parser.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use serde_saphyr::granit_parser::{Event, Options, Parser, ScalarStyle, Span, StrInput, Tag};

use super::env::Unset;
use super::findings::{Problem, shown};

mod scalar;

/// What a key has for its value.
#[derive(Debug)]
pub(super) enum Node {
    Scalar {
        text: String,
        plain: bool,
        tag: Option<String>,
        /// The references to environment variables in it that do not exist.
        unset: Vec<Unset>,
    },
    Sequence {
        items: Vec<Rc<Node>>,
        tag: Option<String>,
    },
    Mapping {
        entries: Vec<Entry>,
        tag: Option<String>,
    },
}

/// A key and its value.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: Rc<Node>,
    pub(super) value: Rc<Node>,
    /// Where the key is, counted from 1.
    pub(super) line: usize,
}

/// What a node is to Python.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value<'a> {
    Null,
    Bool(bool),
    /// Numbers beyond an `i128` are its greatest or its least.
    Int(i128),
    Float(f64),
    Str(&'a str),
    Sequence,
    Mapping(&'a [Entry]),
    /// Something that no setting is, in words.
    Other(&'static str),
}

impl Node {
    /// Whether the value is unknown, because it is that of an environment variable which does not exist.
    pub(super) fn is_unknown(&self) -> bool {
        matches!(self, Self::Scalar { text, unset, .. }
            if unset.iter().any(|unset| unset.is_braced || *text == unset.written()))
    }

    pub(super) fn value(&self) -> Value<'_> {
        match self {
            Self::Scalar { text, plain, tag, .. } => scalar::resolve(text, *plain, tag.as_deref()),
            Self::Sequence { tag, .. } if untagged_or(tag, "seq") => Value::Sequence,
            Self::Mapping { entries, tag } if untagged_or(tag, "map") => Value::Mapping(entries),
            Self::Sequence { .. } | Self::Mapping { .. } => Value::Other(scalar::TAGGED),
        }
    }
}

impl Node {
    /// The same as JSON, for settings that are told and not understood here. What JSON has no form for is null. The parser limits how
    /// deep nodes can be in each other, and so this recursion.
    pub(super) fn json(&self) -> serde_json::Value {
        match self {
            Self::Sequence { items, .. } => items.iter().map(|item| item.json()).collect(),
            Self::Mapping { entries, .. } => {
                let field = |entry: &Entry| match entry.key.value() {
                    Value::Str(name) => Some((name.to_owned(), entry.value.json())),
                    _ => None,
                };
                serde_json::Value::Object(entries.iter().filter_map(field).collect())
            }
            Self::Scalar { .. } => match self.value() {
                Value::Bool(is) => is.into(),
                Value::Int(number) => i64::try_from(number).map_or(serde_json::Value::Null, Into::into),
                Value::Float(number) => number.into(),
                Value::Str(text) => text.into(),
                _ => serde_json::Value::Null,
            },
        }
    }
}

fn untagged_or(tag: &Option<String>, name: &str) -> bool {
    tag.as_ref().is_none_or(|tag| tag == name || tag == "!")
}

/// Reads a text of one document. One without any is a null. `unset` is what the text refers to and does not exist.
pub(super) fn load(text: &str, unset: &[Unset]) -> Result<Rc<Node>, Problem> {
    let mut options = Options::default();
    options.set_emit_comments(false);
    options.block_scalar_eof_without_line_feed = true;
    let parser = Parser::new_from_str_with_options(text, options);
    let mut composer = Composer { parser, unset, anchors: HashMap::new() };
    let mut root = None;
    loop {
        match composer.next()? {
            (Event::StreamEnd, _) => break,
            (Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd, _) => {}
            (_, span) if root.is_some() => {
                return Err(problem(&span, "a second YAML document begins; only one is read"));
            }
            (event, span) => root = Some(composer.node(event, &span)?),
        }
    }
    Ok(root.unwrap_or_else(|| Rc::new(Node::Scalar { text: String::new(), plain: true, tag: None, unset: Vec::new() })))
}

fn problem(span: &Span, message: impl Into<String>) -> Problem {
    Problem { line: Some(span.start.line()), message: message.into() }
}

struct Composer<'a> {
    parser: Parser<'a, StrInput<'a>>,
    unset: &'a [Unset],
    anchors: HashMap<usize, Rc<Node>>,
}

impl<'a> Composer<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), Problem> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(Problem {
                line: Some(error.marker().line()),
                message: format!("this is not YAML: {}", error.info()),
            }),
            None => Err(Problem { line: None, message: "the YAML ends too early".to_owned() }),
        }
    }

    /// What a scalar refers to and does not exist. A comment beside it may refer to anything.
    fn unset_within(&self, span: &Span, text: &str) -> Vec<Unset> {
        let Some(range) = span.byte_range() else { return Vec::new() };
        let is_within = |unset: &&Unset| range.start <= unset.range.start && unset.range.end <= range.end;
        let within = self.unset.iter().filter(is_within);
        within.filter(|unset| text.contains(&unset.written())).cloned().collect()
    }

    /// The node that begins with `event`. The parser limits how deep nodes can be in each other, and so this recursion.
    fn node(&mut self, event: Event<'a>, span: &Span) -> Result<Rc<Node>, Problem> {
        let (anchor, node) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain;
                let unset = self.unset_within(span, &text);
                (anchor, Node::Scalar { text: text.into_owned(), plain, tag: tag.as_deref().map(tag_name), unset })
            }
            Event::SequenceStart(_, anchor, tag) => {
                let mut items = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => break,
                        (event, span) => items.push(self.node(event, &span)?),
                    }
                }
                (anchor, Node::Sequence { items, tag: tag.as_deref().map(tag_name) })
            }
            Event::MappingStart(_, anchor, tag) => {
                (anchor, Node::Mapping { entries: self.entries()?, tag: tag.as_deref().map(tag_name) })
            }
            Event::Alias(anchor) => {
                let node = self.anchors.get(&anchor).cloned();
                return node.ok_or_else(|| problem(span, "an alias (`*`) is inside of what it stands for"));
            }
            _ => return Err(problem(span, "this is not YAML: there is no value here")),
        };
        let node = Rc::new(node);
        if anchor != 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        Ok(node)
    }

    /// The rest of a mapping.
    fn entries(&mut self) -> Result<Vec<Entry>, Problem> {
        let mut own = Vec::new();
        let mut merged = Vec::new();
        let mut names = HashSet::new();
        loop {
            let (event, span) = match self.next()? {
                (Event::MappingEnd, _) => break,
                next => next,
            };
            let key = self.node(event, &span)?;
            let value = {
                let (event, span) = self.next()?;
                self.node(event, &span)?
            };
            let Node::Scalar { text, plain, tag, .. } = &*key else {
                return Err(problem(&span, "a key is a list or a mapping, where it can only be a scalar"));
            };
            if text == "<<" && *plain && tag.is_none() {
                if !merge(&value, &mut merged) {
                    return Err(problem(&span, "`<<` takes a mapping or a list of mappings"));
                }
                continue;
            }
            // PyYAML would take the last one, and whoever wrote the other would believe that it holds.
            if !names.insert(text.clone()) {
                return Err(problem(&span, format!("the key {} is there for the second time", shown(text))));
            }
            own.push(Entry { key, value, line: span.start.line() });
        }
        if merged.is_empty() {
            return Ok(own);
        }
        // As in a Python dictionary that is filled from left to right.
        merged.extend(own);
        let mut seen = HashSet::new();
        merged.reverse();
        merged.retain(|entry| match &*entry.key {
            Node::Scalar { text, .. } => seen.insert(text.clone()),
            _ => false,
        });
        merged.reverse();
        Ok(merged)
    }
}

/// `<<`: takes in the entries of other mappings; of a list of them, the first has precedence. `false`: they are none.
fn merge(value: &Node, merged: &mut Vec<Entry>) -> bool {
    match value {
        Node::Mapping { entries, .. } => merged.extend(entries.iter().cloned()),
        Node::Sequence { items, .. } => {
            for item in items.iter().rev() {
                let Node::Mapping { entries, .. } = &**item else { return false };
                merged.extend(entries.iter().cloned());
            }
        }
        Node::Scalar { .. } => return false,
    }
    true
}

/// `str` for `!!str`, and what PyYAML would call it for a tag that is not YAML's own.
fn tag_name(tag: &Tag) -> String {
    match tag.suffix_in_namespace("tag:yaml.org,2002:") {
        Some(name) => name.into_owned(),
        None => format!("{}{}", tag.handle(), tag.suffix()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A node as Python would print it, more or less, with the lines of keys.
    fn show(node: &Node) -> String {
        match (node.value(), node) {
            (Value::Mapping(entries), _) => {
                let entries =
                    entries.iter().map(|Entry { key, value, line }| format!("{}@{line}: {}", show(key), show(value)));
                format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
            }
            (Value::Sequence, Node::Sequence { items, .. }) => {
                format!("[{}]", items.iter().map(|item| show(item)).collect::<Vec<_>>().join(", "))
            }
            (Value::Str(text), _) => text.to_owned(),
            (other, _) => format!("{other:?}"),
        }
    }

    #[test]
    fn reads_yaml_with_the_lines_of_keys() {
        for (text, expected) in [
            ("", "Null"),
            ("# nothing\n", "Null"),
            ("---\n", "Null"),
            ("a: b\n...\n", "{a@1: b}"),
            ("%YAML 1.1\n---\na: yes", "{a@3: Bool(true)}"),
            ("\u{feff}a: 1", "{a@1: Int(1)}"),
            (
                "a:\n  b: [1, '2',\n   {c: ~}]\n  d: |\n    e\n    f\n  g: h\n",
                "{a@1: {b@2: [Int(1), 2, {c@3: Null}], d@4: e\nf\n, g@7: h}}",
            ),
            ("a: |\n  b", "{a@1: b}"),
            ("a: 'b\n  c'\r\nd: >-\r\n  e\r\n  f\r\n", "{a@1: b c, d@3: e f}"),
            (
                "a: &x {b: 1}\nc: *x\nd: &x 2\ne: *x",
                "{a@1: {b@1: Int(1)}, c@2: {b@1: Int(1)}, d@3: Int(2), e@4: Int(2)}",
            ),
            ("'<<': {a: 1}", "{<<@1: {a@1: Int(1)}}"),
            ("a: !!str 1\nb: !!map {}\nc: !!seq []\nd: ! 1", "{a@1: 1, b@2: {}, c@3: [], d@4: Int(1)}"),
            ("a: !mine {}", "{a@1: Other(\"a value with a YAML tag that has no meaning here\")}"),
            ("? a\n: b", "{a@1: b}"),
        ] {
            assert_eq!(show(&load(text, &[]).unwrap()), expected, "{text}");
        }
    }

    #[test]
    fn merges_as_pyyaml() {
        let text = "a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}\nc: {<<: [{x: 5}, {x: 6, z: 7}], <<: {z: 8}}";
        let expected =
            "{a@1: {x@1: Int(1), y@1: Int(2)}, b@2: {y@1: Int(2), x@2: Int(3)}, c@3: {x@3: Int(5), z@3: Int(8)}}";
        assert_eq!(show(&load(text, &[]).unwrap()), expected);
    }

    #[test]
    fn problems_have_a_line() {
        for (text, line, message) in [
            ("a: 1\nb: {c: 1,\n c: 2}", 3, "the key `c` is there for the second time"),
            ("a: 1\n'a': 2", 2, "the key `a` is there for the second time"),
            ("a: 1\n? [b]\n: c", 2, "a key is a list or a mapping"),
            ("a:\n  <<: b", 2, "`<<` takes a mapping"),
            ("a:\n  <<: [{}, b]", 2, "`<<` takes a mapping"),
            ("a: b\n---\nc: d", 3, "a second YAML document"),
            ("a: b\n---\n", 2, "a second YAML document"),
            ("a: &x [1,\n *x]", 2, "an alias (`*`) is inside of what it stands for"),
            ("a: 1\nb: *x", 2, "this is not YAML"),
            ("a: 1\nb: c: d", 2, "this is not YAML"),
            ("a: 1\nb: @", 2, "this is not YAML"),
        ] {
            let problem = load(text, &[]).unwrap_err();
            assert!(problem.message.starts_with(message), "{text}: {problem:?}");
            assert_eq!(problem.line, Some(line), "{text}: {problem:?}");
        }
        assert!(load("a: [", &[]).is_err());
        assert!(load(&"[".repeat(100_000), &[]).is_err());
        assert!(load(&"- ".repeat(100_000), &[]).is_err());
    }
}
