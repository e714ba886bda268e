//! Times as people read them: ages like `41d`, moments like `2026-11-18T22:40:11Z`, spans like `1m30s`.
//! The present is always a parameter.

use std::time::Duration;

use jiff::{Timestamp, tz::TimeZone};
use muster_proto::{duration, v1};

/// How long ago `then` was, in its largest unit. A moment ahead of `now`, as clocks differ, is "0s" ago.
pub fn since(now: Timestamp, then: Option<&prost_types::Timestamp>) -> Option<String> {
    let then = timestamp(then?)?;
    Some(short(elapsed(then, now)))
}

/// How far ahead `then` is, to the nearest minute once it is hours; `None` when it has passed.
pub fn until(now: Timestamp, then: Option<&prost_types::Timestamp>) -> Option<String> {
    let then = timestamp(then?)?;
    let left = elapsed(now, then);
    // What was just set to an hour is "1h" away, and not "59m".
    let rounding = Duration::from_secs(if left > Duration::from_secs(59 * 60) { 30 } else { 0 });
    (then > now).then(|| short(left + rounding))
}

/// The largest unit alone, rounded down: "4s", "14m", "5h", "41d".
pub fn short(age: Duration) -> String {
    match age.as_secs() {
        seconds @ 0..60 => format!("{seconds}s"),
        seconds @ 60..3_600 => format!("{}m", seconds / 60),
        seconds @ 3_600..86_400 => format!("{}h", seconds / 3_600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

/// A span of a message; one that is negative or out of range, which nothing of ours sends, is "0s".
pub fn span_of(length: &prost_types::Duration) -> String {
    duration::format(duration::from_proto(length).unwrap_or_default())
}

/// A length of microseconds with two or three digits that matter: "830us", "12.4ms", "3.1s".
pub fn precise(micros: i64) -> String {
    let sign = if micros < 0 { "-" } else { "" };
    let amount = micros.unsigned_abs();
    match amount {
        0..1_000 => format!("{sign}{amount}us"),
        1_000..1_000_000 => format!("{sign}{:.1}ms", amount as f64 / 1e3),
        1_000_000..60_000_000 => format!("{sign}{:.1}s", amount as f64 / 1e6),
        _ => format!("{sign}{}", duration::format(Duration::from_secs(amount / 1_000_000))),
    }
}

/// RFC 3339 in UTC, whole seconds.
pub fn moment(then: Option<&prost_types::Timestamp>) -> Option<String> {
    let zoned = timestamp(then?)?.to_zoned(TimeZone::UTC);
    Some(zoned.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// Both: "2026-11-18T22:40:11Z (2d ago)".
pub fn dated(now: Timestamp, then: Option<&prost_types::Timestamp>) -> Option<String> {
    Some(format!("{} ({} ago)", moment(then)?, since(now, then)?))
}

/// A word for what did not come when it was made.
pub fn arrival(arrival: v1::Arrival) -> Option<&'static str> {
    match arrival {
        v1::Arrival::Late => Some("came late"),
        v1::Arrival::Ahead => Some("clock ahead"),
        v1::Arrival::OnTime | v1::Arrival::Unspecified => None,
    }
}

fn timestamp(message: &prost_types::Timestamp) -> Option<Timestamp> {
    Timestamp::new(message.seconds, message.nanos).ok()
}

fn elapsed(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> prost_types::Timestamp {
        prost_types::Timestamp { seconds, nanos: 0 }
    }

    fn now() -> Timestamp {
        Timestamp::from_second(1_795_000_000).unwrap()
    }

    #[test]
    fn an_age_is_shown_in_its_largest_unit_rounded_down() {
        for (seconds, text) in [
            (0, "0s"),
            (4, "4s"),
            (59, "59s"),
            (60, "1m"),
            (14 * 60 + 59, "14m"),
            (3_599, "59m"),
            (3_600, "1h"),
            (86_399, "23h"),
            (2 * 86_400, "2d"),
            (41 * 86_400 + 5, "41d"),
            (1_000 * 86_400, "1000d"),
        ] {
            assert_eq!(since(now(), Some(&at(1_795_000_000 - seconds))).unwrap(), text);
        }
    }

    #[test]
    fn a_moment_ahead_of_our_clock_has_no_negative_age() {
        assert_eq!(since(now(), Some(&at(1_795_000_090))).unwrap(), "0s");
        assert_eq!(until(now(), Some(&at(1_795_000_090))).unwrap(), "1m");
        assert_eq!(until(now(), Some(&at(1_794_999_999))), None);
    }

    #[test]
    fn a_moment_an_hour_ahead_is_an_hour_away_a_second_later_too() {
        let until = |seconds: i64| until(now(), Some(&at(1_795_000_000 + seconds))).unwrap();
        assert_eq!(
            (until(3_599).as_str(), until(3_500).as_str(), until(86_399).as_str()),
            ("1h", "58m", "1d")
        );
    }

    #[test]
    fn no_time_and_impossible_times_have_no_age() {
        assert_eq!(since(now(), None), None);
        assert_eq!(since(now(), Some(&at(i64::MAX))), None);
        assert_eq!(moment(Some(&at(i64::MIN))), None);
    }

    #[test]
    fn a_moment_is_rfc_3339_without_fractions() {
        let then = prost_types::Timestamp {
            seconds: 1_795_000_000,
            nanos: 987_654_321,
        };
        assert_eq!(moment(Some(&then)).unwrap(), "2026-11-18T11:06:40Z");
    }

    #[test]
    fn a_span_is_written_as_manifests_write_it() {
        assert_eq!(
            span_of(&prost_types::Duration {
                seconds: 90,
                nanos: 500_000_000
            }),
            "1m30s500ms"
        );
        assert_eq!(span_of(&prost_types::Duration { seconds: -1, nanos: 0 }), "0s");
    }

    #[test]
    fn a_precise_length_keeps_its_sign_and_its_scale() {
        assert_eq!(precise(830), "830us");
        assert_eq!(precise(-12_400), "-12.4ms");
        assert_eq!(precise(3_100_000), "3.1s");
        assert_eq!(precise(-3_600_000_000), "-1h");
        assert_eq!(precise(i64::MIN).chars().next(), Some('-'));
    }
}
