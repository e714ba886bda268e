//! What is known of an agent's link while it is there: from its heartbeats, and from nothing else. Not written down.

use muster_proto::v1::{Lane, LaneDepth};

use crate::clock::{MINUTE, Micros, SECOND};

/// A queue from which nothing has gone for so long is stuck; short of that it is slow.
const STALLED_AFTER: Micros = 5 * MINUTE;
/// By how much the time of the oldest record may differ between two heartbeats, and it is the same one: clocks are adjusted,
/// and heartbeats travel.
const SAME: Micros = 2 * SECOND;

/// A link that is active now.
#[derive(Clone, Debug)]
pub struct Connection {
    pub session_id: String,
    pub connected_at: Micros,
    pub remote: String,
    pub report: Option<Report>,
    /// It was told to leave.
    pub leaving: bool,
    /// For each lane that holds records: the oldest of them, and since when it has been that one.
    oldest: Vec<Oldest>,
}

/// What the last heartbeat told.
#[derive(Clone, Debug)]
pub struct Report {
    pub round_trip: Option<Micros>,
    /// The agent's clock minus the controller's.
    pub skew: Option<Micros>,
    pub lanes: Vec<LaneDepth>,
}

#[derive(Clone, Copy, Debug)]
struct Oldest {
    lane: i32,
    /// When it was recorded, more or less.
    at: Micros,
    since: Micros,
}

impl Connection {
    pub fn new(session_id: &str, remote: &str, now: Micros) -> Self {
        Self {
            session_id: session_id.to_owned(),
            connected_at: now,
            remote: remote.to_owned(),
            report: None,
            leaving: false,
            oldest: Vec::new(),
        }
    }

    pub(super) fn reported(&mut self, report: Report, now: Micros) {
        let before = std::mem::take(&mut self.oldest);
        for depth in report.lanes.iter().filter(|depth| depth.records > 0) {
            let at = now.saturating_sub(depth.oldest_age_micros.max(0));
            let same = before
                .iter()
                .find(|oldest| oldest.lane == depth.lane && (oldest.at.saturating_sub(at)).saturating_abs() <= SAME);
            self.oldest.push(Oldest {
                lane: depth.lane,
                // Kept as it was first seen, or many small differences would add up.
                at: same.map_or(at, |oldest| oldest.at),
                since: same.map_or(now, |oldest| oldest.since),
            });
        }
        self.report = Some(report);
    }

    /// Since when a queue has not moved though records wait in it; none: they all move, if slowly.
    pub fn stalled_since(&self, now: Micros) -> Option<(Lane, Micros)> {
        self.oldest
            .iter()
            .filter(|oldest| now.saturating_sub(oldest.since) >= STALLED_AFTER)
            .min_by_key(|oldest| oldest.since)
            .map(|oldest| (Lane::try_from(oldest.lane).unwrap_or_default(), oldest.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(records: u64, oldest_age_micros: Micros) -> Report {
        let lane = Lane::Results.into();
        Report {
            round_trip: None,
            skew: None,
            lanes: vec![LaneDepth {
                lane,
                records,
                oldest_age_micros,
                ..LaneDepth::default()
            }],
        }
    }

    /// What the connection says after a heartbeat each half minute, the age of the oldest record in each given in seconds.
    fn after(ages: &[(u64, i64)]) -> Option<Micros> {
        let mut connection = Connection::new("s1", "", 0);
        let mut now = 0;
        for (records, age) in ages {
            connection.reported(report(*records, age * SECOND), now);
            now += 30 * SECOND;
        }
        connection.stalled_since(now).map(|(_, since)| since)
    }

    #[test]
    fn a_queue_whose_oldest_record_stays_the_same_is_stuck() {
        let stuck: Vec<_> = (0..12).map(|n| (7, 100 + 30 * n)).collect();
        assert_eq!(after(&stuck), Some(0));
        assert_eq!(after(&stuck[..8]), None, "not for so long");
    }

    #[test]
    fn one_that_sends_what_has_waited_is_not_stuck_however_old_that_is() {
        let moving: Vec<_> = (0..40).map(|n| (9_000 - 200 * n, 86_400 - 60 * n as i64)).collect();
        assert_eq!(after(&moving), None);
        let live: Vec<_> = (0..40).map(|_| (1, 1)).collect();
        assert_eq!(after(&live), None);
    }

    #[test]
    fn one_that_moves_again_or_is_empty_is_stuck_no_longer() {
        let mut ages: Vec<_> = (0..12).map(|n| (7, 100 + 30 * n)).collect();
        ages.push((7, 3));
        assert_eq!(after(&ages), None);
        ages.pop();
        ages.push((0, 0));
        assert_eq!(after(&ages), None);
    }

    #[test]
    fn whatever_an_agent_says_of_its_queue_nothing_overflows() {
        let mut connection = Connection::new("s1", "", 0);
        for age in [i64::MIN, -1, i64::MAX, 0] {
            let mut odd = report(1, age);
            odd.lanes[0].lane = 77;
            connection.reported(odd, 5);
            let _ = connection.stalled_since(i64::MAX);
        }
    }
}
