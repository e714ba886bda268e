//! Microseconds since 1970 UTC, the unit of time in the domain and the store, and the one place that reads the clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Microseconds since 1970 UTC.
pub type Micros = i64;

pub const SECOND: Micros = 1_000_000;
pub const MINUTE: Micros = 60 * SECOND;
pub const HOUR: Micros = 60 * MINUTE;
pub const DAY: Micros = 24 * HOUR;

pub fn now() -> Micros {
    from_system(SystemTime::now())
}

pub fn from_system(time: SystemTime) -> Micros {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => from_duration(since),
        Err(before) => -from_duration(before.duration()),
    }
}

pub fn to_system(time: Micros) -> SystemTime {
    if time >= 0 {
        UNIX_EPOCH + Duration::from_micros(time as u64)
    } else {
        UNIX_EPOCH - Duration::from_micros(time.unsigned_abs())
    }
}

pub fn from_duration(duration: Duration) -> Micros {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

pub fn to_timestamp(time: Micros) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: time.div_euclid(SECOND),
        nanos: (time.rem_euclid(SECOND) * 1000) as i32,
    }
}

pub fn to_duration(span: Micros) -> prost_types::Duration {
    prost_types::Duration {
        seconds: span / SECOND,
        nanos: (span % SECOND * 1000) as i32,
    }
}

/// None for 0, which the store uses for "never".
pub fn to_optional_timestamp(time: Micros) -> Option<prost_types::Timestamp> {
    (time != 0).then(|| to_timestamp(time))
}

/// RFC 3339 with seconds, for people.
pub fn to_text(time: Micros) -> String {
    match jiff::Timestamp::from_microsecond(time) {
        Ok(time) => time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        Err(_) => format!("{time} µs"),
    }
}

/// "12m", "1h", "45s": one unit, for people.
pub fn to_span(micros: Micros) -> String {
    let seconds = micros.max(0) / SECOND;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}
