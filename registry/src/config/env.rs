//! Environment variables in the text of a configuration file.

use std::ops::Range;

/// A text whose variables have been replaced.
#[derive(Debug)]
pub(super) struct Expanded {
    pub(super) text: String,
    /// The references that stay as they are written, in their order.
    pub(super) unset: Vec<Unset>,
    /// For each line of `text`, the line of the file that its beginning comes from, counted from 1. They differ once a
    /// value holds a line break, and a user is told of the line in the file.
    lines: Vec<usize>,
}

/// A reference to a variable that does not exist.
#[derive(Debug, Clone)]
pub(super) struct Unset {
    /// Where the reference is in the expanded text, in bytes.
    pub(super) range: Range<usize>,
    pub(super) name: String,
    /// `${NAME}`, where a variable is meant beyond doubt. `$name` may as well be a part of a password.
    pub(super) is_braced: bool,
}

impl Unset {
    /// The reference as it is written.
    pub(super) fn written(&self) -> String {
        if self.is_braced { format!("${{{}}}", self.name) } else { format!("${}", self.name) }
    }
}

impl Expanded {
    /// The line of the file that line `line` of the text comes from, both counted from 1.
    pub(super) fn line_in_file(&self, line: usize) -> usize {
        let index = line.saturating_sub(1).min(self.lines.len().saturating_sub(1));
        self.lines.get(index).copied().unwrap_or(1)
    }
}

/// Replaces `$NAME` and `${NAME}` as Python's `os.path.expandvars` does: a name is ASCII letters, digits and `_`, or
/// anything in braces. A variable that does not exist stays as it is written, and what a variable brings in is not
/// looked through again.
pub(super) fn expand(text: &str, env: impl Fn(&str) -> Option<String>) -> Expanded {
    let mut expanded = Expanded { text: String::with_capacity(text.len()), unset: Vec::new(), lines: vec![1] };
    let mut line = 1;
    let mut rest = text;
    while !rest.is_empty() {
        let (name, length) = match rest.strip_prefix('$') {
            Some(reference) => variable(reference),
            None => (None, rest.find('$').unwrap_or(rest.len())),
        };
        let (written, after) = rest.split_at(length);
        let value = name.and_then(&env);
        if let (Some(name), None) = (name, &value) {
            let start = expanded.text.len();
            let is_braced = written.starts_with("${");
            expanded.unset.push(Unset { range: start..start + length, name: name.to_owned(), is_braced });
        }
        for c in written.chars() {
            line += usize::from(c == '\n');
            if value.is_none() {
                expanded.text.push(c);
                if c == '\n' {
                    expanded.lines.push(line);
                }
            }
        }
        if let Some(value) = value {
            expanded.lines.extend(value.matches('\n').map(|_| line));
            expanded.text.push_str(&value);
        }
        rest = after;
    }
    expanded
}

/// What follows a `$`: the name of a variable, if there is one, and the length of it all, with the `$`.
fn variable(text: &str) -> (Option<&str>, usize) {
    if let Some((name, _)) = text.strip_prefix('{').and_then(|text| text.split_once('}')) {
        return (Some(name), name.len() + 3);
    }
    let length = text.bytes().take_while(|&byte| byte.is_ascii_alphanumeric() || byte == b'_').count();
    (Some(&text[..length]).filter(|name| !name.is_empty()), length + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "A" => Some("1".to_owned()),
            "A_1" => Some("$A".to_owned()),
            "a b" | "" => Some("spaced".to_owned()),
            "LINES" => Some("x\ny\n".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    /// What Python 3.11 makes of the same texts and variables.
    #[test]
    fn expands_as_python() {
        for (text, expected) in [
            ("", ""),
            ("no variable", "no variable"),
            ("$A${A}$A", "111"),
            ("$A_1", "$A"),
            ("$A-1", "1-1"),
            ("${a b}", "spaced"),
            ("${}", "spaced"),
            ("[$EMPTY]", "[]"),
            ("$MISSING ${MISSING}", "$MISSING ${MISSING}"),
            ("$", "$"),
            ("$$A", "$1"),
            ("pa$$word", "pa$$word"),
            ("${A", "${A"),
            ("${$A}", "${$A}"),
            ("$é$A", "$é1"),
            ("$Aé", "1é"),
            ("\\$A '$A' # $A", "\\1 '1' # 1"),
            ("é$A\r\n", "é1\r\n"),
        ] {
            assert_eq!(expand(text, env).text, expected, "{text}");
        }
    }

    #[test]
    fn references_to_what_is_not_set_are_found() {
        let expanded = expand("é$A $MISSING ${MISSING}${} $$x ${A", env);
        let found: Vec<_> =
            expanded.unset.iter().map(|unset| (&expanded.text[unset.range.clone()], unset.is_braced)).collect();
        assert_eq!(found, [("$MISSING", false), ("${MISSING}", true), ("$x", false)]);
        for unset in &expanded.unset {
            assert_eq!(unset.written(), &expanded.text[unset.range.clone()]);
        }
    }

    #[test]
    fn lines_are_those_of_the_file() {
        let expanded = expand("1\n$LINES 2\n${LINES}${MISSING\n}4\n5", env);
        assert_eq!(expanded.text, "1\nx\ny\n 2\nx\ny\n${MISSING\n}4\n5");
        let lines: Vec<_> = (1..=9).map(|line| expanded.line_in_file(line)).collect();
        assert_eq!(lines, [1, 2, 2, 2, 3, 3, 3, 4, 5]);
        assert_eq!((expanded.line_in_file(0), expanded.line_in_file(99)), (1, 5));
        assert_eq!(expand("", env).line_in_file(7), 1);
    }
}
