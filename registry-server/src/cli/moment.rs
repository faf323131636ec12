//! Moments on the command line.

use std::time::SystemTime;

use feast_registry::Timestamp;

/// Reads a moment: RFC 3339, a day, or how long ago it was, as `2d`.
pub(super) fn parse(text: &str) -> Result<Timestamp, String> {
    read(text, &Timestamp::from(SystemTime::now())).ok_or_else(|| {
        format!(
            "`{text}` is no moment; it is one as 2026-11-30T08:00:00Z, 2026-11-30 (its beginning in UTC), or how long ago, as 90m, \
             3h, 2d or 1w"
        )
    })
}

fn read(text: &str, now: &Timestamp) -> Option<Timestamp> {
    if let Some(ago) = ago(text) {
        return Some(Timestamp { seconds: now.seconds.checked_sub(ago)?, ..*now });
    }
    let is_day = text.len() == 10 && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    let is_whole = text.len() > 10 && text.as_bytes().get(10).is_some_and(|byte| b"Tt ".contains(byte));
    match (is_day, is_whole) {
        (true, _) => format!("{text}T00:00:00Z").parse().ok(),
        (_, true) => text.parse().ok(),
        _ => None,
    }
}

/// A number of seconds, as `90m` or `2d`.
pub(super) fn ago(text: &str) -> Option<i64> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        _ => return None,
    };
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { number.parse::<i64>().ok()?.checked_mul(seconds) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_as_people_write_them() {
        let now = Timestamp { seconds: 1_000_000, nanos: 5 };
        let seconds = |text: &str| read(text, &now).map(|moment| moment.seconds);
        assert_eq!(seconds("2d"), Some(1_000_000 - 172_800));
        assert_eq!((seconds("90m"), seconds("0s"), seconds("1w")), (Some(994_600), Some(1_000_000), Some(395_200)));
        assert_eq!(seconds("1970-01-02"), Some(86_400));
        assert_eq!(seconds("1970-01-01T01:00:00Z"), Some(3600));
        assert_eq!(seconds("1970-01-01 01:00:00Z"), Some(3600));
        assert_eq!(seconds("1970-01-01T01:00:00+01:00"), Some(0));
        for text in ["", "d", "-2d", "+2d", "2 d", "2y", "yesterday", "1970-13-01", "99999999999999999d", "12", "ü"] {
            assert_eq!(seconds(text), None, "{text}");
        }
        assert!(parse("yesterday").is_err_and(|error| error.contains("2026-11-30")));
    }
}
