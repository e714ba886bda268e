//! Both clocks at one moment: the one that only moves forward, for waiting, and what the world calls the time, for
//! records. Logic that depends on time takes this as an argument.

use std::time::{Duration, Instant, SystemTime};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    pub instant: Instant,
    /// Since 1970, UTC.
    pub unix_micros: i64,
}

impl Now {
    pub fn read() -> Now {
        // The tests of tokio move its clock.
        Now {
            instant: tokio::time::Instant::now().into_std(),
            unix_micros: unix_micros(SystemTime::now()),
        }
    }

    /// The same moment of both clocks, later.
    pub fn after(self, time: Duration) -> Now {
        let micros = i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
        Now {
            instant: self.instant + time,
            unix_micros: self.unix_micros.saturating_add(micros),
        }
    }
}

/// 0 for a clock before 1970.
pub fn unix_micros(time: SystemTime) -> i64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}
