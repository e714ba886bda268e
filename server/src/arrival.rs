//! Whether a record came when it was made, by its own time and the controller's. Says nothing of which record is current: that
//! is its place in its spool.

use muster_proto::v1::Arrival;

use crate::clock::{MINUTE, Micros};

/// Clocks differ, and links are cut for a moment: up to here a record has come on time.
const TOLERANCE: Micros = 5 * MINUTE;

pub fn of(at: Micros, received_at: Micros) -> Arrival {
    match received_at.saturating_sub(at) {
        late if late > TOLERANCE => Arrival::Late,
        ahead if ahead < -TOLERANCE => Arrival::Ahead,
        _ => Arrival::OnTime,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_late_or_ahead_after_five_minutes() {
        let cases = [
            (0, Arrival::OnTime),
            (5 * MINUTE, Arrival::OnTime),
            (5 * MINUTE + 1, Arrival::Late),
            (-5 * MINUTE, Arrival::OnTime),
            (-5 * MINUTE - 1, Arrival::Ahead),
        ];
        for (later, expected) in cases {
            assert_eq!(of(1_000, 1_000 + later), expected, "received {later} µs later");
        }
        assert_eq!(of(i64::MIN, i64::MAX), Arrival::Late);
        assert_eq!(of(i64::MAX, i64::MIN), Arrival::Ahead);
    }
}
