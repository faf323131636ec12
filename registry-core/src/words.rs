//! Moments and lengths of time in words for people.

use prost_types::{Duration, Timestamp};

/// A moment in UTC. What protobuf does not allow is shown as it is.
pub fn moment(moment: &Timestamp) -> String {
    // The first and the last second of the years 1 to 9999.
    if (-62_135_596_800..=253_402_300_799).contains(&moment.seconds) && (0..1_000_000_000).contains(&moment.nanos) {
        moment.to_string()
    } else {
        format!("{} s + {} ns since 1970", moment.seconds, moment.nanos)
    }
}

/// A moment in UTC, to the second.
pub fn second(at: &Timestamp) -> String {
    moment(&Timestamp { nanos: 0, ..*at })
}

/// A length of time in days, hours, minutes and seconds: `1d 12h`.
pub fn duration(duration: &Duration) -> String {
    span(i128::from(duration.seconds) * NANOS + i128::from(duration.nanos))
}

/// How long it is from one moment to another.
pub fn between(start: &Timestamp, end: &Timestamp) -> String {
    let nanos = |moment: &Timestamp| i128::from(moment.seconds) * NANOS + i128::from(moment.nanos);
    span(nanos(end) - nanos(start))
}

const NANOS: i128 = 1_000_000_000;

fn span(nanos: i128) -> String {
    let (seconds, fraction) = (nanos.abs() / NANOS, nanos.abs() % NANOS);
    let mut parts = Vec::new();
    for (count, unit) in
        [(seconds / 86_400, "d"), (seconds / 3600 % 24, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")]
    {
        if unit == "s" && fraction > 0 {
            parts.push(format!("{count}.{fraction:09}").trim_end_matches('0').to_owned() + "s");
        } else if count > 0 {
            parts.push(format!("{count}{unit}"));
        }
    }
    match (parts.is_empty(), nanos < 0) {
        (true, _) => "0s".to_owned(),
        (false, sign) => format!("{}{}", if sign { "-" } else { "" }, parts.join(" ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short_and_any_can_be_shown() {
        let at = |seconds, nanos| Timestamp { seconds, nanos };
        assert_eq!(moment(&at(1_700_000_000, 0)), "2023-11-14T22:13:20Z");
        assert_eq!(moment(&at(1_700_000_000, 500_000_000)), "2023-11-14T22:13:20.500Z");
        assert_eq!(second(&at(1_700_000_000, 500_000_000)), "2023-11-14T22:13:20Z");
        assert_eq!(moment(&at(i64::MAX, -1)), "9223372036854775807 s + -1 ns since 1970");
        assert_eq!(between(&at(0, 0), &at(129_600, 0)), "1d 12h");
        assert_eq!(between(&at(61, 500_000_000), &at(0, 0)), "-1m 1.5s");
        assert_eq!(between(&at(i64::MIN, 0), &at(i64::MAX, 0)), "213503982334601d 7h 15s");
        assert_eq!(duration(&Duration::default()), "0s");
    }
}
