//! Waiting times between attempts to reach the controller: full jitter, from one second up to one minute, so that a
//! fleet that lost its controller does not come back in one wave; or as the controller says. Knows no clock and no
//! randomness; both are given.

use std::time::Duration;

use muster_proto::error::Problem;
use tonic::Code;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// What has held this long was healthy: the next failure starts the waiting times afresh.
const HEALTHY: Duration = Duration::from_secs(60);

/// Who is told to come back sooner or later than this comes back then.
const SHORTEST_TOLD: Duration = Duration::from_millis(100);
const LONGEST_TOLD: Duration = Duration::from_secs(600);

/// How long a controller that has too much to do wants the agent to stay away. It is the right one: to try others would bring
/// them all to those.
pub fn told_by_busy(problem: &Problem) -> Option<Duration> {
    problem.retry_after.filter(|_| problem.code == Code::ResourceExhausted)
}

/// No less than was told, and a tenth more at most, so that those who were told the same do not come together.
fn told(wait: Duration, random: f64) -> Duration {
    let wait = wait.clamp(SHORTEST_TOLD, LONGEST_TOLD);
    wait + wait.mul_f64(random.clamp(0.0, 1.0) / 10.0)
}

/// The waiting times of one thing that is tried again and again.
#[derive(Debug, Clone, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The next waiting time: a part, `random` in `0..1`, of a ceiling that doubles with each call.
    pub fn next(&mut self, random: f64) -> Duration {
        let ceiling = self.ceiling();
        self.failures = self.failures.saturating_add(1);
        ceiling.mul_f64(random.clamp(0.0, 1.0))
    }

    /// The next one after the controller has refused: as long as it says when it has too much to do, else no less than it says.
    pub fn after(&mut self, problem: &Problem, random: f64) -> Duration {
        match (told_by_busy(problem), problem.retry_after) {
            (Some(wait), _) => told(wait, random),
            (None, Some(wait)) => self.next(random).max(told(wait, random)),
            (None, None) => self.next(random),
        }
    }

    /// The longest that [`Backoff::next`] may give now.
    pub fn ceiling(&self) -> Duration {
        // 2^6 s is above the longest already; more would overflow in the end.
        FIRST.saturating_mul(1 << self.failures.min(6)).min(LONGEST)
    }

    /// What was tried has worked for this long before it ended.
    pub fn held(&mut self, duration: Duration) {
        if duration >= HEALTHY {
            self.failures = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use muster_proto::v1::ErrorReason;

    use super::*;

    #[test]
    fn who_is_told_when_to_come_back_comes_then_or_a_little_later() {
        let busy = |wait| Problem::new(Code::ResourceExhausted, ErrorReason::RateLimited, "").with_retry_after(wait);
        let mut backoff = Backoff::default();
        let wait = Duration::from_secs(20);
        assert_eq!(backoff.after(&busy(wait), 0.0), wait);
        assert_eq!(backoff.after(&busy(wait), 1.0), Duration::from_secs(22));
        assert_eq!(backoff.after(&busy(Duration::MAX), 0.0), LONGEST_TOLD);
        assert_eq!(backoff.after(&busy(Duration::ZERO), 0.0), SHORTEST_TOLD);
        assert_eq!(backoff.ceiling(), FIRST, "none of that is a failure");
    }

    #[test]
    fn who_is_told_to_stay_away_for_another_reason_waits_longer_and_longer_all_the_same() {
        let leaving = Problem::new(Code::Unavailable, ErrorReason::ShuttingDown, "");
        let told = leaving.clone().with_retry_after(Duration::from_secs(3));
        let mut backoff = Backoff::default();
        let waits: Vec<u64> = (0..4).map(|_| backoff.after(&told, 1.0).as_millis() as u64).collect();
        assert_eq!(waits, [3300, 3300, 4000, 8000]);
        assert_eq!(backoff.after(&leaving, 0.0), Duration::ZERO);
    }

    #[test]
    fn the_ceiling_doubles_from_one_second_to_one_minute_and_stays_there() {
        let mut backoff = Backoff::default();
        let ceilings: Vec<u64> = (0..9).map(|_| backoff.next(1.0).as_secs()).collect();
        assert_eq!(ceilings, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        backoff.failures = u32::MAX;
        assert_eq!(backoff.next(1.0), LONGEST);
    }

    #[test]
    fn the_jitter_is_full_so_a_wait_may_be_any_part_of_the_ceiling() {
        let mut backoff = Backoff { failures: 5 };
        assert_eq!(backoff.clone().next(0.0), Duration::ZERO);
        assert_eq!(backoff.next(0.25), Duration::from_secs(8));
    }

    #[test]
    fn only_a_minute_of_health_starts_the_waiting_times_afresh() {
        let mut backoff = Backoff { failures: 4 };
        backoff.held(Duration::from_secs(59));
        assert_eq!(backoff.ceiling(), Duration::from_secs(16));
        backoff.held(Duration::from_secs(60));
        assert_eq!(backoff.ceiling(), FIRST);
    }
}
