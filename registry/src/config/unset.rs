//! References to environment variables that do not exist, in settings that are used.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::block::Block;
use super::env::{Expanded, Unset};
use super::findings::{Findings, Problem, shown};
use super::yaml::{Entry, Node, Value};

/// Blocks whose values are passed on as they are: a `$` in them may belong to a password.
const FREE: [&str; 2] = ["registry.s3_additional_kwargs", "registry.sqlalchemy_config_kwargs.connect_args"];

/// Looks through these settings and all that is in them. Notes references to variables that do not exist, and returns the
/// line of each setting, by its full name.
pub(super) fn look_through(file: &Block<'_>, settings: &[&str]) -> BTreeMap<String, usize> {
    let mut lines = BTreeMap::new();
    for entry in file.entries {
        if let Value::Str(name) = entry.key.value()
            && settings.contains(&name)
        {
            look_at(entry, name, false, file.findings, &mut lines);
        }
    }
    lines
}

fn look_at(entry: &Entry, name: &str, is_free: bool, findings: &Findings, lines: &mut BTreeMap<String, usize>) {
    lines.insert(name.to_owned(), entry.line);
    let is_free = is_free || FREE.contains(&name);
    note(&entry.value, name, is_free, entry.line, findings);
    // The parser limits how deep blocks can be in each other, and so this recursion.
    let Value::Mapping(entries) = entry.value.value() else { return };
    for inner in entries {
        note(&inner.key, &format!("the name of a setting in `{name}`"), false, inner.line, findings);
        let key = match inner.key.value() {
            Value::Str(key) if shown(key).starts_with('`') => key,
            _ => "…",
        };
        look_at(inner, &format!("{name}.{key}"), is_free, findings, lines);
    }
}

fn note(node: &Node, name: &str, is_free: bool, line: usize, findings: &Findings) {
    let Node::Scalar { text, unset, .. } = node else { return };
    let name = if name.contains(' ') { name.to_owned() } else { format!("`{name}`") };
    // What is a variable beyond doubt may be named; anything else may be a part of a password.
    let is_certain = |unset: &&Unset| unset.is_braced || (!is_free && *text == unset.written());
    let certain: Vec<&Unset> = unset.iter().filter(is_certain).collect();
    for unset in &certain {
        let message = format!("{name} needs the environment variable {}, which is not set", shown(&unset.name));
        findings.error(Problem { line: Some(line), message });
    }
    if certain.len() < unset.len() {
        let message = format!(
            "{name} has a `$` in it, and what follows is not the name of an environment variable that is set, so it stays \
             as it is written; if a variable is meant, set it, and write it as `${{NAME}}`"
        );
        findings.warning(Problem { line: Some(line), message });
    }
}

/// Adds to an error of YAML's that its line refers to a variable that does not exist: with its value it may be right.
pub(super) fn explain(mut problem: Problem, expanded: &Expanded) -> Problem {
    let line_of = |unset: &&Unset| expanded.text[..unset.range.start].matches('\n').count() + 1;
    let in_line = |unset: &&Unset| unset.is_braced && Some(line_of(unset)) == problem.line;
    if let Some(unset) = expanded.unset.iter().find(in_line) {
        let name = shown(&unset.name);
        // Writing to a string does not fail.
        let _ = write!(problem.message, "; the environment variable {name}, which is in this line, is not set");
    }
    problem
}
