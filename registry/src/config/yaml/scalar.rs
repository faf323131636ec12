//! What a scalar is to PyYAML: a string, a number, a boolean, …
//!
//! Two rarities of YAML 1.1 are strings here: a date with a time of day, and a fraction of a number of the base 60.

use super::Value;

pub(super) const TAGGED: &str = "a value with a YAML tag that has no meaning here";

/// What a scalar is. `tag` is the name of its tag, if it has one.
pub(super) fn resolve<'a>(text: &'a str, plain: bool, tag: Option<&str>) -> Value<'a> {
    match tag {
        None | Some("!") if plain => implicit(text),
        None | Some("!" | "str") => Value::Str(text),
        Some("null") => Value::Null,
        Some("bool") => boolean(text).map_or(Value::Other(TAGGED), Value::Bool),
        Some("int") => integer(text).map_or(Value::Other(TAGGED), Value::Int),
        Some("float") => match (float(text), text.parse()) {
            (Some(number), _) | (None, Ok(number)) => Value::Float(number),
            _ => Value::Other(TAGGED),
        },
        Some(_) => Value::Other(TAGGED),
    }
}

fn implicit(text: &str) -> Value<'_> {
    if matches!(text, "" | "~" | "null" | "Null" | "NULL") {
        Value::Null
    } else if let Some(value) = boolean(text) {
        Value::Bool(value)
    } else if let Some(number) = integer(text) {
        Value::Int(number)
    } else if let Some(number) = float(text) {
        Value::Float(number)
    } else if is_date(text) {
        Value::Other("a date")
    } else if matches!(text, "=" | "<<") {
        Value::Other("a sign that has a meaning of its own in YAML")
    } else {
        Value::Str(text)
    }
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Some(true),
        "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Some(false),
        _ => None,
    }
}

/// Splits off a sign, and says whether it is a minus.
fn sign(text: &str) -> (bool, &str) {
    match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    }
}

/// `_` may stand between digits, and `0` before a number makes it octal. `1:30` is 90.
fn integer(text: &str) -> Option<i128> {
    let (negative, text) = sign(text);
    let number = if let Some(digits) = text.strip_prefix("0b") {
        in_radix(digits, 2)?
    } else if let Some(digits) = text.strip_prefix("0x") {
        in_radix(digits, 16)?
    } else if text == "0" {
        0
    } else if let Some(digits) = text.strip_prefix('0') {
        in_radix(digits, 8)?
    } else {
        let mut parts = text.split(':');
        let mut number = in_radix(parts.next().filter(|first| first.starts_with(|c: char| c.is_ascii_digit()))?, 10)?;
        for part in parts {
            number = number.saturating_mul(60).saturating_add(sixtieths(part)?);
        }
        number
    };
    Some(if negative { number.saturating_neg() } else { number })
}

fn in_radix(digits: &str, radix: u32) -> Option<i128> {
    if digits.is_empty() {
        return None;
    }
    digits.chars().filter(|&c| c != '_').try_fold(0i128, |number, c| {
        Some(number.saturating_mul(radix.into()).saturating_add(c.to_digit(radix)?.into()))
    })
}

/// A part of a number of the base 60.
fn sixtieths(text: &str) -> Option<i128> {
    let digits = (1..=2).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|&number| digits && number < 60)
}

/// Needs a dot, and a sign after an `e`: `1e3` is none.
fn float(text: &str) -> Option<f64> {
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_');
    let (negative, unsigned) = sign(text);
    let number = match unsigned {
        ".inf" | ".Inf" | ".INF" => f64::INFINITY,
        ".nan" | ".NaN" | ".NAN" if text == unsigned => f64::NAN,
        _ => {
            let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
                Some((mantissa, exponent)) => (mantissa, exponent.strip_prefix('-').or(exponent.strip_prefix('+'))),
                None => (unsigned, Some("0")),
            };
            let (whole, fraction) = mantissa.split_once('.')?;
            // A number that begins with a dot has a digit after it, and no sign before it.
            let first = if whole.is_empty() && text == unsigned { fraction } else { whole };
            if !first.starts_with(|c: char| c.is_ascii_digit()) || !digits(whole) || !digits(fraction) {
                return None;
            }
            exponent.filter(|exponent| !exponent.is_empty() && digits(exponent) && !exponent.contains('_'))?;
            unsigned.replace('_', "").parse().ok()?
        }
    };
    Some(if negative { -number } else { number })
}

/// `2024-01-31`.
fn is_date(text: &str) -> bool {
    text.len() == 10
        && text
            .bytes()
            .enumerate()
            .all(|(at, byte)| if at == 4 || at == 7 { byte == b'-' } else { byte.is_ascii_digit() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What PyYAML 6.0 makes of the same scalars.
    #[test]
    fn plain_scalars_are_what_they_are_to_pyyaml() {
        for (kind, texts) in [
            ("Null", "~ null Null NULL"),
            ("Bool(true)", "yes Yes YES true True TRUE on On ON"),
            ("Bool(false)", "no No NO false False FALSE off Off OFF"),
            ("Int(0)", "0 -0 +0 00 0x0 0b0_"),
            ("Int(600)", "600 +600 6_00 600_ 01130 0x258 0b1001011000 10:00"),
            ("Int(-90)", "-90 -1:30 -0x5a"),
            ("Int(5025)", "1:23:45"),
            ("Float(1.5)", "1.5 +1.5 1_.5_ 1.5e+0 15.E-1"),
            ("Float(0.5)", ".5 .5_0 0.5"),
            ("Float(-1.0)", "-1."),
            ("Float(inf)", ".inf +.Inf"),
            ("Float(-inf)", "-.INF"),
            ("Float(NaN)", ".nan .NaN"),
            ("Other(\"a date\")", "2024-01-31"),
            ("Other(\"a sign that has a meaning of its own in YAML\")", "= <<"),
        ] {
            for text in texts.split(' ') {
                assert_eq!(format!("{:?}", resolve(text, true, None)), kind, "{text}");
            }
        }
        assert!(matches!(resolve("", true, None), Value::Null));
        for text in [
            "y",
            "n",
            "yEs",
            "tRUE",
            "nULL",
            "08",
            "0o17",
            "0X258",
            "0b2",
            "0x",
            "_1",
            "1:60",
            "1:5:600",
            "1:",
            "+",
            "-",
            "1e3",
            "1.5e3",
            "1.5e+",
            "-.5",
            "._5",
            ".",
            "+.nan",
            ".iNf",
            "inf",
            "1.5_e+1.",
            "1,5",
            "2024-1-31",
            "v1",
            "sqlite:///registry.db",
            "é",
        ] {
            let value = resolve(text, true, None);
            assert!(matches!(value, Value::Str(same) if same == text), "{text}: {value:?}");
        }
    }

    #[test]
    fn numbers_without_end_do_not_overflow() {
        for text in ["9".repeat(99), format!("0x{}", "f".repeat(99)), format!("9{}", ":59".repeat(99))] {
            assert!(matches!(resolve(&text, true, None), Value::Int(i128::MAX)), "{text}");
        }
        assert!(matches!(resolve(&format!("-{}", "9".repeat(99)), true, None), Value::Int(number) if number < 0));
        assert!(matches!(resolve(&format!("{}.0", "9".repeat(999)), true, None), Value::Float(f64::INFINITY)));
    }

    #[test]
    fn quotes_and_tags_decide_before_the_text_does() {
        for (text, plain, tag, expected) in [
            ("600", false, None, "Str(\"600\")"),
            ("", false, None, "Str(\"\")"),
            ("600", true, Some("str"), "Str(\"600\")"),
            ("600", true, Some("!"), "Int(600)"),
            ("600", false, Some("int"), "Int(600)"),
            ("600", true, Some("float"), "Float(600.0)"),
            ("on", false, Some("bool"), "Bool(true)"),
            ("x", true, Some("null"), "Null"),
        ] {
            assert_eq!(format!("{:?}", resolve(text, plain, tag)), expected, "{text} {tag:?}");
        }
        for (text, tag) in [("x", "int"), ("x", "float"), ("x", "bool"), ("x", "binary"), ("x", "!mine")] {
            assert!(matches!(resolve(text, true, Some(tag)), Value::Other(TAGGED)), "{tag}");
        }
    }
}
