//! The rules of the policy kind `Check` that all ends share: defaults, limits, validation, parameters and timing. Nothing
//! here runs a check.

mod expand;
mod runs;
#[cfg(test)]
mod tests;
mod validate;

use std::time::Duration;

pub use expand::expand;
pub use validate::validate;

use crate::{duration, v1};

pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(60);
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
/// How many parameters a check may have, and how many elements its command.
pub const MAX_PARAMETERS: usize = 64;
pub const MAX_ARGUMENTS: usize = 64;
/// What is longest for a parameter's value, an element of a command and any other text in a run, in bytes.
pub const MAX_TEXT: usize = 4 * 1024;
/// How large the encoded message may be.
pub const MAX_ENCODED: usize = 64 * 1024;

/// When a check runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timings {
    pub interval: Duration,
    pub retry_interval: Duration,
    pub timeout: Duration,
    pub attempts: u32,
}

/// The timings of a check, with defaults where it says nothing. What is out of range is taken as it is, save that an
/// interval is never shorter than a second: a scheduler must not spin, whatever it is told.
pub fn timings(check: &v1::Check) -> Timings {
    let second = Duration::from_secs(1);
    let read = |value: &Option<prost_types::Duration>| value.as_ref().and_then(duration::from_proto);
    let schedule = check.schedule.unwrap_or_default();
    let interval = read(&schedule.interval).unwrap_or(DEFAULT_INTERVAL).max(second);
    Timings {
        interval,
        retry_interval: read(&schedule.retry_interval).unwrap_or(interval).max(second),
        timeout: read(&check.timeout).unwrap_or(DEFAULT_TIMEOUT.min(interval)),
        attempts: schedule.attempts.max(1),
    }
}

/// How old the last result may be before the state is stale.
pub fn stale_after(timings: &Timings) -> Duration {
    timings.interval.saturating_mul(2).saturating_add(timings.timeout)
}

/// Writes the defaults into what is not set. A timeout that is not set is 30 s, or the interval when that is shorter.
pub fn normalize(check: &mut v1::Check) {
    let timings = timings(check);
    let schedule = check.schedule.get_or_insert_default();
    schedule.interval.get_or_insert(duration::to_proto(timings.interval));
    schedule
        .retry_interval
        .get_or_insert(duration::to_proto(timings.retry_interval));
    schedule.attempts = timings.attempts;
    check.timeout.get_or_insert(duration::to_proto(timings.timeout));
    if let Some(run) = &mut check.run {
        runs::normalize(run);
    }
}

/// What an agent must know to run it: `check` and one `run.<kind>`.
pub fn features(check: &v1::Check) -> Vec<String> {
    let kinds = check.run.as_ref().map(runs::kinds).unwrap_or_default();
    std::iter::once("check".to_owned())
        .chain(kinds.into_iter().map(|kind| format!("run.{kind}")))
        .collect()
}
