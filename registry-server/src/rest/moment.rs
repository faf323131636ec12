//! Moments in a query.

use prost_types::Timestamp;

/// Reads a moment as Python's `datetime.fromisoformat` does the usual forms: a day, or a moment in a day, in UTC unless it says
/// otherwise.
pub(crate) fn read(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    let is_like_a_day = text.get(..10).is_some_and(|day| {
        day.bytes().enumerate().all(|(at, byte)| if at == 4 || at == 7 { byte == b'-' } else { byte.is_ascii_digit() })
    });
    if !is_like_a_day {
        return None;
    }
    let time = &text[10..];
    if time.is_empty() {
        return format!("{text}T00:00:00Z").parse().ok();
    }
    // A blank stands for a `+` of which the client forgot that a query has blanks for it.
    let time = time.replace(' ', "+");
    let time = time.strip_prefix(['T', 't', '+'])?;
    let has_offset = time.ends_with(['Z', 'z']) || time.contains(['+', '-']);
    let offset = if has_offset { "" } else { "Z" };
    let clock = time.split(['+', '-', 'Z', 'z']).next().unwrap_or_default();
    let seconds = if clock.matches(':').count() == 1 { ":00" } else { "" };
    let rest = &time[clock.len()..];
    format!("{}T{clock}{seconds}{rest}{offset}", &text[..10]).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_as_python_reads_them() {
        let seconds = |text: &str| read(text).map(|moment| moment.seconds);
        for text in [
            "1970-01-02",
            "1970-01-02T00:00",
            "1970-01-02T00:00:00",
            "1970-01-02 00:00:00",
            "1970-01-02T00:00:00Z",
            "1970-01-02T00:00:00.000000+00:00",
            "1970-01-02T01:00:00+01:00",
            "1970-01-02T01:00:00 01:00",
            "1970-01-01T23:00:00-01:00",
        ] {
            assert_eq!(seconds(text), Some(86_400), "{text}");
        }
        for text in [
            "",
            "yesterday",
            "1970-13-01",
            "1970-01-02X00:00",
            "1970-01-0é",
            "1970-01-02T",
            "12",
            "1970-01-02T25:00:00",
        ] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }
}
