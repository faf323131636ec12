//! Words for people: safe to print, and short.

pub(super) use feast_registry::words::{between, duration, moment, second};

use crate::origin::is_unsafe;

/// Text on one line that cannot command a terminal: names and descriptions are whatever somebody stored.
pub(super) fn clean(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\r' | '\t' => clean.push(' '),
            c if is_unsafe(c) => clean.extend(c.escape_unicode()),
            c => clean.push(c),
        }
    }
    clean
}

/// Several lines, each of them [`clean`] and after this much room.
pub(super) fn indented(text: &str, indent: &str) -> String {
    text.lines()
        .map(|line| format!("{indent}{}", clean(&line.replace('\t', "    "))).trim_end().to_owned() + "\n")
        .collect()
}

/// A number of things: `1 entity`, `2 entities`.
pub(super) fn count(number: usize, kind: feast_registry::Kind) -> String {
    let name = if number == 1 { kind.label().to_owned() } else { kind.plural().replace('_', " ") };
    format!("{number} {name}")
}

/// Names in a sentence: the first ones, and how many more there are.
pub(super) fn names<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    const SHOWN: usize = 20;
    let names: Vec<_> = names.into_iter().map(|name| format!("`{}`", clean(name))).collect();
    let more = names.len().saturating_sub(SHOWN);
    let shown = names[..names.len() - more].join(", ");
    if more > 0 { format!("{shown} and {more} more") } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_command_a_terminal() {
        assert_eq!(clean("a\nb\x1b[31mred\u{202e}"), "a b\\u{1b}[31mred\\u{202e}");
        for hidden in ['\u{61c}', '\u{200b}', '\u{200d}', '\u{2060}', '\u{2064}', '\u{feff}'] {
            assert_eq!(clean(&format!("a{hidden}b")), format!("a{}b", hidden.escape_unicode()));
        }
        assert_eq!(clean("fahrer ü 中 🚗"), "fahrer ü 中 🚗");
        assert_eq!(indented("def f():\n\treturn 1\n\n", "  "), "  def f():\n      return 1\n\n");
    }

    #[test]
    fn many_names_are_counted() {
        assert_eq!(names(["a", "b"]), "`a`, `b`");
        assert!(names(std::iter::repeat_n("x", 23)).ends_with("`x` and 3 more"));
    }
}
