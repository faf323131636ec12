//! The text of a `feature_store.yaml` with another registry in it, and all else as it was.

use std::ops::Range;

use feast_registry_core::{Error, Result};
use serde_json::{Value as Json, json};
use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle};

use super::yaml;

const REGISTRY: &str = "registry";
const REFERRED_TO: &str = "something else in it refers to it by an anchor (`*`)";

/// The text of a `feature_store.yaml` in which the registry is the server at this address (`registry_type: remote`), such as
/// `unix:///run/feast/registry.sock`. All else stays as it is written, environment variables and comments too.
///
/// # Errors
/// [`InvalidConfig`](feast_registry_core::ErrorKind::InvalidConfig): the text is no mapping in YAML, or something else in it refers to
/// the registry (by an anchor).
pub fn with_remote_registry(text: &str, address: &str) -> Result<String> {
    let remote = json!({ "registry_type": "remote", "path": address });
    let (rest_before, _) = apart(read(text)?);
    let rewritten = rewritten(text, &remote.to_string()).ok_or_else(|| problem("it is not a mapping in YAML"))?;
    match apart(read(&rewritten).map_err(|_| problem(REFERRED_TO))?) {
        (rest, Some(registry)) if registry == remote && rest == rest_before => Ok(rewritten),
        (_, Some(registry)) if registry == remote => Err(problem(REFERRED_TO)),
        _ => Err(problem("it is written in a form that is not known")),
    }
}

/// Whether a `feature_store.yaml` has Feast's client call other servers besides that of the registry: its online or its offline store is
/// `remote`.
pub fn has_remote_stores(text: &str) -> bool {
    let Ok(document) = read(text) else { return false };
    let is_remote = |store: &&str| {
        let store = &document[*store];
        [store, &store["type"]].into_iter().any(|kind| kind.as_str() == Some("remote"))
    };
    ["online_store", "offline_store"].iter().any(is_remote)
}

fn problem(why: &str) -> Error {
    Error::config(format!("the registry in the feature_store.yaml cannot be replaced by another: {why}"))
}

fn read(text: &str) -> Result<Json> {
    let document = yaml::load(text, &[]).map_err(|found| {
        let line = found.line.map(|line| format!("line {line}: ")).unwrap_or_default();
        // Feast puts the values of variables in first, and reads YAML then.
        let hint = if text.contains("${") { "; within `{}` or `[]`, write \"${NAME}\" in quotes" } else { "" };
        problem(&format!("{line}{}{hint}", found.message))
    })?;
    Ok(document.json())
}

/// All else that a document says, and its registry.
fn apart(mut document: Json) -> (Json, Option<Json>) {
    let registry = document.as_object_mut().and_then(|fields| fields.shift_remove(REGISTRY));
    (document, registry)
}

/// The text with another value for `registry`. None of a text that is no mapping.
fn rewritten(text: &str, value: &str) -> Option<String> {
    let mut events = Parser::new_from_str(text).filter(|event| !matches!(event, Ok((Event::Comment(..), _))));
    let start = loop {
        match events.next()?.ok()? {
            (Event::StreamStart | Event::DocumentStart(..), _) => {}
            (Event::MappingStart(..), span) => break span.byte_range()?.start,
            _ => return None,
        }
    };
    let mut first = None;
    loop {
        let (key, span) = events.next()?.ok()?;
        if key == Event::MappingEnd {
            break;
        }
        first.get_or_insert((span.byte_range()?.start, span.start.col()));
        let is_registry = matches!(&key, Event::Scalar(name, ..) if name == REGISTRY);
        let key_ends = node(&mut events, key, span.byte_range()?)?.end;
        let (event, span) = events.next()?.ok()?;
        let is_block_scalar = matches!(&event, Event::Scalar(_, ScalarStyle::Literal | ScalarStyle::Folded, ..));
        let Range { mut start, end } = node(&mut events, event, span.byte_range()?)?;
        if is_block_scalar {
            // It is found after its `|` or `>`.
            start = key_ends + text.get(key_ends..)?.find(['|', '>'])?;
        }
        if is_registry {
            let line_break =
                if text.get(start..end)?.ends_with('\n') || text.get(..end)?.ends_with('\n') { "\n" } else { "" };
            return Some(format!("{}{value}{line_break}{}", text.get(..start)?, text.get(end..)?));
        }
    }
    match first {
        Some((key, column)) if !text.get(start..)?.starts_with('{') => {
            Some(format!("{}{REGISTRY}: {value}\n{:column$}{}", text.get(..key)?, "", text.get(key..)?))
        }
        _ => Some(format!("{}{{{REGISTRY}: {value}, {}", text.get(..start)?, text.get(start + 1..)?)),
    }
}

/// Where the node is that begins with this event, to its end.
fn node<'a, E>(
    events: &mut impl Iterator<Item = std::result::Result<(Event<'a>, serde_saphyr::granit_parser::Span), E>>,
    first: Event<'a>,
    mut range: Range<usize>,
) -> Option<Range<usize>> {
    let is_start = |event: &Event<'_>| matches!(event, Event::MappingStart(..) | Event::SequenceStart(..));
    let mut depth = usize::from(is_start(&first));
    while depth > 0 {
        let (event, span) = events.next()?.ok()?;
        depth += usize::from(is_start(&event));
        depth -= usize::from(matches!(event, Event::MappingEnd | Event::SequenceEnd));
        range.end = span.byte_range()?.end;
    }
    Some(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: &str = "unix:///run/r.sock";
    const REMOTE: &str = r#"{"registry_type":"remote","path":"unix:///run/r.sock"}"#;

    #[test]
    fn the_registry_is_another_and_all_else_is_as_it_was() {
        for (text, expected) in [
            ("project: p\nregistry: data/registry.db\nprovider: local\n", "project: p\nregistry: R\nprovider: local\n"),
            (
                "project: p\nregistry:\n  registry_type: sql # ours\n  path: ${URL}\n\n# the rest\nprovider: local",
                "project: p\nregistry:\n  R\nprovider: local",
            ),
            ("registry:\n    registry_type: sql\n    path: x", "registry:\n    R"),
            ("registry:\n    registry_type: sql\n    path: x\n", "registry:\n    R\n"),
            ("{project: p, registry: {path: x}, provider: local}", "{project: p, registry: R, provider: local}"),
            (r#"{"project": "p", "registry": "x"}"#, r#"{"project": "p", "registry": R}"#),
            ("project: p\nprovider: ${P}\n", "registry: R\nproject: p\nprovider: ${P}\n"),
            (
                "---\n# first\n  project: p\n  provider: q\n",
                "---\n# first\n  registry: R\n  project: p\n  provider: q\n",
            ),
            ("{project: p}", "{registry: R, project: p}"),
            ("{}", "{registry: R, }"),
            ("a: &x {path: y}\nregistry: *x\nb: *x\n", "a: &x {path: y}\nregistry: R\nb: *x\n"),
            ("base: &b {registry: x}\n<<: *b\n", "registry: R\nbase: &b {registry: x}\n<<: *b\n"),
            ("registry: >-\n  data/\n  x.db\nproject: p\n", "registry: R\nproject: p\n"),
            ("über: {registry: x}\nregistry: 'y'\n...\n", "über: {registry: x}\nregistry: R\n...\n"),
        ] {
            let rewritten = with_remote_registry(text, AT).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(rewritten.replace(REMOTE, "R"), expected, "{text}");
        }
    }

    #[test]
    fn other_servers_are_those_of_the_stores() {
        for (text, is) in [
            ("online_store: {type: remote, path: 'http://x'}", true),
            ("offline_store: remote", true),
            ("online_store: {type: sqlite}\nregistry: {registry_type: remote}\nauth: {type: oidc}", false),
            ("project: p", false),
        ] {
            assert_eq!(has_remote_stores(text), is, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_rewritten_is_an_error() {
        for (text, why) in [
            ("", "not a mapping"),
            ("[registry]", "not a mapping"),
            ("registry: &r {path: x}\nother: *r\n", "something else in it refers to it"),
            ("registry: x\nregistry: y\n", "line 2: the key `registry` is there for the second time"),
            ("registry: [", "this is not YAML"),
            ("online_store: {path: ${X}}\n", "write \"${NAME}\" in quotes"),
        ] {
            let error = with_remote_registry(text, AT).expect_err(text).to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
