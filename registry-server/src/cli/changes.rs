//! What differs between two states of something, in lines.

use feast_registry::{Difference, FieldChange};
use serde_json::{Value as Json, json};

use super::text;

/// The field with the intervals that a view was materialized for.
const INTERVALS: &str = "meta.materialization_intervals";
/// The longest value that is shown in one line, in characters.
const VALUE: usize = 300;
/// How many lines of a text are shown that differ.
const LINES: usize = 40;
/// How many fields a short summary names.
const NAMED: usize = 3;

/// Whether a view was materialized, and nothing of its definition changed.
pub(super) fn is_materialization(difference: &Difference) -> bool {
    !difference.is_of_definition() && difference.changes.iter().any(|change| change.path == INTERVALS)
}

/// The fields that differ, a line or more for each: those of the definition, and with `all` those beside it too.
pub(super) fn lines(difference: &Difference, all: bool, indent: &str) -> String {
    if difference.encoding_only {
        return format!("{indent}the same fields, encoded otherwise\n");
    }
    let (definition, beside): (Vec<_>, Vec<_>) = difference.changes.iter().partition(|change| change.in_definition);
    let mut lines: String = definition.iter().map(|change| line(change, indent)).collect();
    if all {
        lines.extend(beside.iter().map(|change| line(change, indent)));
    } else if definition.is_empty() && !beside.is_empty() {
        let paths: Vec<String> = beside.iter().map(|change| path(change)).collect();
        lines += &format!("{indent}not the definition: {}\n", named(&paths));
    }
    if difference.left_out > 0 {
        lines += &format!("{indent}and {} more fields\n", difference.left_out);
    }
    lines
}

/// The fields that differ in one line, those of the definition if any do: `spec.ttl 1d -> 2d, spec.tags[team] added`.
pub(super) fn short(difference: &Difference) -> String {
    if difference.encoding_only {
        return "the same fields, encoded otherwise".to_owned();
    }
    if is_materialization(difference) {
        return intervals(difference);
    }
    let is_told = |change: &&FieldChange| change.in_definition || !difference.is_of_definition();
    let short = |change: &FieldChange| {
        let path = path(change);
        match (&change.before, &change.after) {
            (None, Some(_)) => format!("{path} added"),
            (Some(_), None) => format!("{path} removed"),
            (Some(before), Some(after)) if before.len() + after.len() <= 60 && !is_long(before) && !is_long(after) => {
                format!("{path} {} -> {}", value(before), value(after))
            }
            _ => format!("{path} changed"),
        }
    };
    named(&difference.changes.iter().filter(is_told).map(short).collect::<Vec<_>>())
}

/// The intervals that a view was materialized for, or was not any more.
fn intervals(difference: &Difference) -> String {
    let in_words = |interval: &str| text::clean(&interval.replace("start_time=", "").replace(", end_time=", " to "));
    let of = |change: &FieldChange| match (&change.before, &change.after) {
        (None, Some(after)) => format!("materialized {}", in_words(after)),
        (Some(before), None) => format!("no longer materialized {}", in_words(before)),
        _ => "materialized".to_owned(),
    };
    named(&difference.changes.iter().filter(|change| change.path == INTERVALS).map(of).collect::<Vec<_>>())
}

fn named(all: &[String]) -> String {
    let more = all.len().saturating_sub(NAMED);
    let named = all[..all.len() - more].join(", ");
    if more > 0 { format!("{named} +{more} more") } else { named }
}

fn line(change: &FieldChange, indent: &str) -> String {
    let path = path(change);
    match (&change.before, &change.after) {
        (Some(before), Some(after)) if is_long(before) || is_long(after) => {
            format!("{indent}~ {path}:\n{}", text_lines(before, after, &format!("{indent}    ")))
        }
        (Some(before), Some(after)) => format!("{indent}~ {path}: {} -> {}\n", value(before), value(after)),
        (Some(before), None) => format!("{indent}- {path}: {}\n", value(before)),
        (None, Some(after)) => format!("{indent}+ {path}: {}\n", value(after)),
        (None, None) => String::new(),
    }
}

/// Which field; what is stored as a whole has none.
fn path(change: &FieldChange) -> String {
    if change.path.is_empty() { "content".to_owned() } else { text::clean(&change.path) }
}

fn value(words: &str) -> String {
    if words.is_empty() { "\"\"".to_owned() } else { shortened(&text::clean(words)) }
}

fn shortened(line: &str) -> String {
    match line.char_indices().nth(VALUE) {
        None => line.to_owned(),
        Some((end, _)) => format!("{}… ({} characters)", &line[..end], line.chars().count()),
    }
}

fn is_long(text: &str) -> bool {
    text.trim_end().contains('\n')
}

/// The lines of two texts but for those at the beginning and at the end that are the same.
fn text_lines(before: &str, after: &str, indent: &str) -> String {
    let (one, other): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    let same = |(one, other): &(&&str, &&str)| one == other;
    let start = one.iter().zip(&other).take_while(same).count();
    let end = one[start..].iter().rev().zip(other[start..].iter().rev()).take_while(same).count();
    let mut lines = String::new();
    for (mark, changed) in [("-", &one[start..one.len() - end]), ("+", &other[start..other.len() - end])] {
        for line in changed.iter().take(LINES) {
            // What a tab means to a terminal depends on where it stands.
            let line = shortened(&text::clean(&line.replace('\t', "    ")));
            lines += &format!("{}\n", format!("{indent}{mark} {line}").trim_end());
        }
        if changed.len() > LINES {
            lines += &format!("{indent}{mark} and {} more lines\n", changed.len() - LINES);
        }
    }
    if lines.is_empty() { format!("{indent}other line breaks\n") } else { lines }
}

/// Adds the fields that differ to what is told to programs.
pub(super) fn add_to_json(json: &mut Json, difference: &Difference) {
    let field = |change: &FieldChange| {
        json!({
            "path": change.path,
            "before": change.before,
            "after": change.after,
            "inDefinition": change.in_definition,
        })
    };
    json["fields"] = difference.changes.iter().map(field).collect();
    if difference.left_out > 0 {
        json["fieldsLeftOut"] = difference.left_out.into();
    }
    if difference.encoding_only {
        json["encodingOnly"] = true.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_text_the_lines_that_differ_are_shown() {
        let lines = text_lines("def f():\n\treturn 1\n# end\n", "def f():\n\tx = 2\n\treturn x\n# end\n", "  ");
        assert_eq!(lines, "  -     return 1\n  +     x = 2\n  +     return x\n");
        assert_eq!(text_lines("a\nb\n", "a\r\nb\n", ""), "other line breaks\n");
        let many: String = (0..100).map(|line| format!("{line}\n")).collect();
        assert!(text_lines("a\n", &many, "").ends_with("+ 39\n+ and 60 more lines\n"));
    }

    #[test]
    fn values_cannot_command_a_terminal_and_are_short() {
        assert_eq!(value("\u{1b}[31m"), "\\u{1b}[31m");
        assert!(value(&"x".repeat(1000)).ends_with("x… (1000 characters)"));
        assert_eq!(value(""), "\"\"");
    }
}
