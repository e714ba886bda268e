//! Moments on the command line: `--since` and `--until`, the same wherever something has a time.

use std::time::Duration;

use jiff::{Timestamp, ToSpan as _, civil::Date, tz::TimeZone};
use muster_proto::duration;

const FORMS: &str = "write how long ago, such as 15m, 2h30m or 1d, or a moment, such as 2026-11-20T00:00:00Z, 2026-11-20, today or yesterday";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    Ago(Duration),
    At(Timestamp),
    /// Midnight, UTC, so many days ago.
    DaysAgo(u8),
}

/// A span of time, each end of which may be open.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct PeriodArgs {
    /// Not older than this: 15m, 2h30m, 1d, yesterday, 2026-11-20T00:00:00Z
    #[arg(long, value_name = "WHEN", value_parser = parse)]
    since: Option<When>,
    /// Older than this, in the same forms
    #[arg(long, value_name = "WHEN", value_parser = parse)]
    until: Option<When>,
}

impl PeriodArgs {
    pub fn since(&self, now: Timestamp) -> Option<prost_types::Timestamp> {
        self.since.and_then(|when| when.before(now))
    }

    pub fn until(&self, now: Timestamp) -> Option<prost_types::Timestamp> {
        self.until.and_then(|when| when.before(now))
    }

    /// How many are shown when nothing is said: all of a span that has a beginning, else `usual` of what may be millions.
    pub fn usual(&self, usual: usize) -> Option<usize> {
        self.since.is_none().then_some(usual)
    }
}

impl When {
    pub fn before(self, now: Timestamp) -> Option<prost_types::Timestamp> {
        let at = match self {
            When::Ago(age) => now.checked_sub(age).ok()?,
            When::At(at) => at,
            When::DaysAgo(days) => {
                let today = now.to_zoned(TimeZone::UTC).start_of_day().ok()?;
                today.checked_sub(i64::from(days).days()).ok()?.timestamp()
            }
        };
        Some(prost_types::Timestamp {
            seconds: at.as_second(),
            nanos: 0,
        })
    }
}

pub fn parse(text: &str) -> Result<When, String> {
    match text {
        "now" => return Ok(When::Ago(Duration::ZERO)),
        "today" => return Ok(When::DaysAgo(0)),
        "yesterday" => return Ok(When::DaysAgo(1)),
        _ => {}
    }
    if let Ok(age) = duration::parse(text) {
        return Ok(When::Ago(age));
    }
    if let Ok(at) = text.parse() {
        return Ok(When::At(at));
    }
    // Of more than a date, jiff would take the date alone.
    let day = text.parse::<Date>().ok().filter(|_| text.len() == "2026-11-20".len());
    day.and_then(|day| day.to_zoned(TimeZone::UTC).ok())
        .map(|day| When::At(day.timestamp()))
        .ok_or_else(|| FORMS.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_an_age_a_moment_or_a_day() {
        let now = Timestamp::from_second(1_795_000_000).unwrap();
        let seconds = |text: &str| parse(text).map(|when| when.before(now).unwrap().seconds);
        for (text, wanted) in [
            ("1h", 1_794_996_400),
            ("2h30m", 1_794_991_000),
            ("1d", 1_794_913_600),
            ("now", 1_795_000_000),
            ("2026-11-18T11:06:40Z", 1_795_000_000),
            ("2026-11-18T12:06:40+01:00", 1_795_000_000),
            ("2026-11-18", 1_794_960_000),
            ("today", 1_794_960_000),
            ("yesterday", 1_794_873_600),
        ] {
            assert_eq!(seconds(text), Ok(wanted), "{text}");
        }
        for wrong in ["", "tomorrow", "5", "2026-11", "2026-11-18T11:06:40"] {
            assert_eq!(parse(wrong), Err(FORMS.to_owned()), "{wrong}");
        }
    }

    #[test]
    fn a_span_without_a_beginning_is_not_shown_as_a_whole() {
        let mut period = PeriodArgs::default();
        assert_eq!(period.usual(100), Some(100));
        period.since = Some(When::DaysAgo(1));
        assert_eq!(period.usual(100), None);
    }
}
