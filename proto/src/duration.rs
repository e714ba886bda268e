//! Durations as people write them, in manifests, config files and flags: `90s`, `1h30m`, `500ms`, `30d`. Calendar time is
//! not dealt with: a day is 24 hours.

use std::time::Duration;

use crate::excerpt::excerpt;

const MAX_LEN: usize = 64;

/// Largest first, as they are written one after the other.
const UNITS: [(&str, u128); 7] = [
    ("w", 7 * 86_400_000_000_000),
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
];

/// What protobuf allows: about 10,000 years.
const MAX_SECONDS: u64 = 315_576_000_000;

/// Why a text is no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a duration like `90s`, `1h30m` or `500ms`, found `{found}`{problem}")]
pub struct Error {
    found: String,
    problem: String,
}

/// Numbers with units, from the largest unit to the smallest, without blanks; the last may have a fraction.
pub fn parse(text: &str) -> Result<Duration, Error> {
    let error = |problem: String| Error {
        found: excerpt(text),
        problem,
    };
    if text.len() > MAX_LEN {
        return Err(error(", which is too long".to_owned()));
    }
    if text.starts_with('-') {
        return Err(error("; it cannot be negative".to_owned()));
    }
    let mut rest = text;
    let mut units = UNITS.iter();
    let mut nanos: u128 = 0;
    let mut fraction = false;
    while !rest.is_empty() || nanos == 0 && rest.len() == text.len() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (whole, after) = rest.split_at(digits);
        let part = after
            .strip_prefix('.')
            .map_or("", |part| &part[..part.bytes().take_while(u8::is_ascii_digit).count()]);
        let after = if part.is_empty() {
            after
        } else {
            &after[1 + part.len()..]
        };
        if digits == 0 || fraction {
            return Err(error(String::new()));
        }
        let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, after) = after.split_at(letters);
        if unit.is_empty() {
            let rest_is_number = after.is_empty();
            let meant = if rest_is_number {
                // After hours the next smaller unit: `1h30` is a time of 1h30m.
                let unit = units
                    .next()
                    .filter(|_| rest.len() < text.len())
                    .map_or("s", |(unit, _)| unit);
                format!(", which has no unit; did you mean `{text}{unit}`?")
            } else {
                String::new()
            };
            return Err(error(meant));
        }
        // The iterator goes on after the last unit found: each comes once, and they come in order.
        let Some((_, factor)) = units.find(|(name, _)| *name == unit) else {
            return Err(error(unit_problem(unit)));
        };
        nanos = scaled(whole, part, *factor)
            .and_then(|more| nanos.checked_add(more))
            .ok_or_else(|| error(", which is too long".to_owned()))?;
        fraction = !part.is_empty();
        rest = after;
    }
    u64::try_from(nanos / 1_000_000_000)
        .ok()
        .filter(|seconds| *seconds <= MAX_SECONDS)
        .map(|seconds| Duration::new(seconds, (nanos % 1_000_000_000) as u32))
        .ok_or_else(|| error(", which is too long".to_owned()))
}

/// `1h30m`, `90ms`, `0s`: what [`parse`] reads, exact to the microsecond.
pub fn format(duration: Duration) -> String {
    let mut rest = duration.as_nanos();
    let mut text = String::new();
    for (unit, factor) in &UNITS[1..] {
        let count = rest / factor;
        if count > 0 {
            text.push_str(&format!("{count}{unit}"));
            rest %= factor;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// A regular expression that matches all that [`parse`] reads, and little else: where a fraction may stand it does not say.
pub fn pattern() -> String {
    let units = UNITS.map(|(unit, _)| format!(r"([0-9]+(\.[0-9]+)?{unit})?"));
    format!("^{}$", units.concat())
}

/// None when it is negative or malformed.
pub fn from_proto(duration: &prost_types::Duration) -> Option<Duration> {
    let in_range = (0..=MAX_SECONDS as i64).contains(&duration.seconds) && (0..1_000_000_000).contains(&duration.nanos);
    in_range.then(|| Duration::new(duration.seconds.unsigned_abs(), duration.nanos.unsigned_abs()))
}

/// What is longer than protobuf allows becomes the longest it allows.
pub fn to_proto(duration: Duration) -> prost_types::Duration {
    let seconds = duration.as_secs().min(MAX_SECONDS);
    prost_types::Duration {
        seconds: seconds as i64,
        nanos: duration.subsec_nanos() as i32,
    }
}

fn scaled(whole: &str, part: &str, factor: u128) -> Option<u128> {
    let mut nanos = whole.parse::<u128>().ok()?.checked_mul(factor)?;
    let mut scale = factor;
    for digit in part.bytes() {
        scale /= 10;
        nanos += u128::from(digit - b'0') * scale;
    }
    Some(nanos)
}

fn unit_problem(unit: &str) -> String {
    if UNITS.iter().any(|(name, _)| *name == unit) {
        return format!("; `{unit}` comes twice or after a smaller unit");
    }
    let meant = match unit.to_ascii_lowercase().as_str() {
        "s" | "sec" | "secs" | "second" | "seconds" => Some("s"),
        "m" | "min" | "mins" | "minute" | "minutes" => Some("m"),
        "h" | "hr" | "hrs" | "hour" | "hours" => Some("h"),
        "d" | "day" | "days" => Some("d"),
        "w" | "week" | "weeks" => Some("w"),
        "ms" | "msec" | "millis" | "milliseconds" => Some("ms"),
        _ => None,
    };
    match meant {
        Some(meant) => format!("; did you mean the unit `{meant}`?"),
        None => format!("; `{unit}` is no unit, the units are w, d, h, m, s, ms and us"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_numbers_with_units() {
        for (text, millis) in [
            ("90s", 90_000),
            ("1h30m", 5_400_000),
            ("500ms", 500),
            ("1.5s", 1_500),
            ("0.25h", 900_000),
            ("2d", 172_800_000),
            ("1w", 604_800_000),
            ("0s", 0),
            ("60.000s", 60_000),
            ("1m0.5s", 60_500),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(parse("7us"), Ok(Duration::from_micros(7)));
    }

    #[test]
    fn what_is_no_duration_says_what_was_meant() {
        for (text, hint) in [
            ("", "expected a duration"),
            ("60", "did you mean `60s`?"),
            ("1h30", "did you mean `1h30m`?"),
            ("5m30", "did you mean `5m30s`?"),
            ("1.5", "did you mean `1.5s`?"),
            ("5min", "did you mean the unit `m`?"),
            ("5M", "did you mean the unit `m`?"),
            ("10 s", "expected a duration"),
            ("-5s", "cannot be negative"),
            ("30m1h", "`h` comes twice or after a smaller unit"),
            ("1s1s", "comes twice"),
            ("1.5h3m", "expected a duration"),
            ("5y", "`y` is no unit"),
            ("s", "expected a duration"),
            ("1.s", "expected a duration"),
            ("99999999999999999999w", "too long"),
            ("600000w", "too long"),
        ] {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.contains(hint), "{text}: {error}");
        }
    }

    #[test]
    fn a_negative_or_malformed_duration_of_a_peer_is_none() {
        for (seconds, nanos) in [(-1, 0), (0, -1), (0, 1_000_000_000), (i64::MAX, 0)] {
            assert_eq!(from_proto(&prost_types::Duration { seconds, nanos }), None);
        }
        assert_eq!(to_proto(Duration::MAX).seconds, MAX_SECONDS as i64);
    }

    proptest! {
        #[test]
        fn a_duration_is_shown_so_that_it_parses_back(micros in 0..u64::MAX / 64) {
            let duration = Duration::from_micros(micros);
            prop_assert_eq!(parse(&format(duration)), Ok(duration));
            prop_assert_eq!(from_proto(&to_proto(duration)), Some(duration));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in any::<String>(), near in "[0-9.]{0,30}[hmsduw]{0,3}[0-9.hms]{0,9}") {
            let _ = parse(&text);
            let _ = parse(&near);
        }
    }
}
