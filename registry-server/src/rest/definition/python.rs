//! Values as Python's `repr` prints them.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Write as _};

/// A text, in quotes.
pub(super) fn text(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut printed = String::with_capacity(text.len() + 2);
    printed.push(quote);
    for character in text.chars() {
        match character {
            '\\' => printed.push_str("\\\\"),
            '\n' => printed.push_str("\\n"),
            '\r' => printed.push_str("\\r"),
            '\t' => printed.push_str("\\t"),
            _ if character == quote => printed.extend(['\\', quote]),
            _ if is_printable(character) => printed.push(character),
            _ => push_number(&mut printed, character.into()),
        }
    }
    printed.push(quote);
    printed
}

/// A character as its number, in the shortest of the forms that Python has.
fn push_number(printed: &mut String, number: u32) {
    // Writing to a string does not fail.
    let _ = match number {
        0..=0xff => write!(printed, "\\x{number:02x}"),
        0x100..=0xffff => write!(printed, "\\u{number:04x}"),
        _ => write!(printed, "\\U{number:08x}"),
    };
}

/// Whether Python prints a character as it is (`str.isprintable`): all do that are no control, format, surrogate,
/// private or unassigned character and no separator, apart from the space.
///
/// That is also what Rust's debug form goes by, with the Unicode version of its own standard library. It escapes an accent
/// that comes first too, as it does one by itself, so those are looked at behind another character.
fn is_printable(character: char) -> bool {
    match character {
        ' '..='~' => true,
        '\0'..='\x7f' => false,
        _ => character.escape_debug().len() == 1 || format!("-{character}").escape_debug().nth(1) == Some(character),
    }
}

/// A list of texts.
pub(super) fn list<'a>(texts: impl IntoIterator<Item = &'a String>) -> String {
    let texts: Vec<String> = texts.into_iter().map(|entry| text(entry)).collect();
    format!("[{}]", texts.join(", "))
}

/// A dictionary of texts, in the order of its keys.
pub(super) fn dict(entries: &BTreeMap<String, String>) -> String {
    let mut dict = Dict::default();
    for (key, value) in entries {
        dict.insert(key, &text(value));
    }
    dict.to_string()
}

/// A dictionary, printed as it is filled.
#[derive(Debug, Default)]
pub(super) struct Dict {
    entries: String,
}

impl Dict {
    /// Adds a key and its value, which is printed already.
    pub(super) fn insert(&mut self, key: &str, printed: &str) -> &mut Self {
        if !self.entries.is_empty() {
            self.entries += ", ";
        }
        self.entries += &text(key);
        self.entries += ": ";
        self.entries += printed;
        self
    }

    /// Adds a text unless it is empty.
    pub(super) fn insert_text(&mut self, key: &str, value: &str) -> &mut Self {
        if value.is_empty() { self } else { self.insert(key, &text(value)) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl Display for Dict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{}}}", self.entries)
    }
}

/// A `float` of a message, as Python has it after protobuf's JSON: the value of its shortest decimal form, of six digits
/// at least; and a text when it is no number.
pub(super) fn float(value: f32) -> String {
    if value.is_nan() {
        return text("NaN");
    }
    if value.is_infinite() {
        return text(if value < 0.0 { "-Infinity" } else { "Infinity" });
    }
    let rounded = |decimals: usize| format!("{value:.decimals$e}").parse::<f64>().ok();
    let is_same = |rounded: &f64| *rounded as f32 == value;
    double((5..=8).filter_map(rounded).find(is_same).unwrap_or(f64::from(value)))
}

/// Rust's debug form changes over to exponents where Python does, but writes them shorter.
fn double(value: f64) -> String {
    let printed = format!("{value:?}");
    match printed.split_once('e') {
        None => printed,
        Some((digits, exponent)) => match exponent.strip_prefix('-') {
            Some(exponent) => format!("{digits}e-{exponent:0>2}"),
            None => format!("{digits}e+{exponent:0>2}"),
        },
    }
}
