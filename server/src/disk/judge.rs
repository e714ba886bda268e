//! From what a file system says, and from writes that failed, to what is taken. Pure: `now` is an argument. Knows no disk.

use muster_proto::threshold::Amount;

use super::{Level, Space};
use crate::clock::{Micros, SECOND};

/// After a write that found no room nothing is tried for so long, and longer each time that the next one fails as well.
const HOLD: Micros = 5 * SECOND;
const MAX_HOLD: Micros = 30 * SECOND;

/// What is free below which less is taken. The second is not above the first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    pub metrics: Amount,
    pub results: Amount,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            metrics: Amount::Percent(10.0),
            results: Amount::Percent(5.0),
        }
    }
}

#[derive(Debug)]
pub struct Judge {
    limits: Limits,
    level: Level,
    /// A write has failed, and nothing is tried until then.
    hold: Option<Micros>,
    /// How long the next one is.
    next_hold: Micros,
    /// When the last one ended.
    held_until: Micros,
}

impl Judge {
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            level: Level::Ample,
            hold: None,
            next_hold: HOLD,
            held_until: Micros::MIN,
        }
    }

    /// What is taken from now on.
    pub fn look(&mut self, space: Space, now: Micros) -> Level {
        if let Some(until) = self.hold {
            // Also when the clock was set back.
            if now < until && until - now <= MAX_HOLD {
                return self.level;
            }
            self.hold = None;
            self.held_until = now;
        }
        let is_below = |limit: Amount, was_below: bool| {
            let limit = bytes(limit, space.size);
            let back = if was_below { margin(limit, space.size) } else { 0 };
            space.free < limit.saturating_add(back)
        };
        self.level = if is_below(self.limits.results, self.level == Level::Full) {
            Level::Full
        } else if is_below(self.limits.metrics, self.level >= Level::Low) {
            Level::Low
        } else {
            Level::Ample
        };
        self.level
    }

    /// A write has found no room.
    pub fn failed(&mut self, now: Micros) -> Level {
        if self.hold.is_none() {
            // Long ago: it begins anew.
            if now.saturating_sub(self.held_until) > MAX_HOLD {
                self.next_hold = HOLD;
            }
            self.hold = Some(now + self.next_hold);
            self.next_hold = (2 * self.next_hold).min(MAX_HOLD);
        }
        self.level = Level::Full;
        self.level
    }

    /// Whether there is room for so much more without less being taken than of a disk that is merely low.
    pub fn has_room_for(&self, more: u64, space: Space) -> bool {
        let limit = bytes(self.limits.results, space.size);
        let needed = limit.saturating_add(margin(limit, space.size)).saturating_add(more);
        self.hold.is_none() && space.free >= needed
    }
}

fn bytes(amount: Amount, size: u64) -> u64 {
    match amount {
        Amount::Bytes(bytes) => bytes,
        Amount::Percent(percent) => (size as f64 * percent / 100.0) as u64,
    }
}

/// How far above its limit a disk counts as free again: a hundredth of it, and less where the limit is small.
fn margin(limit: u64, size: u64) -> u64 {
    (size / 100).min(limit / 5)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn space(percent: f64) -> Space {
        Space {
            size: 1000 * MIB,
            free: (1000.0 * percent / 100.0) as u64 * MIB,
        }
    }

    #[test]
    fn less_is_taken_below_each_limit_and_more_again_a_hundredth_above_it() {
        let mut judge = Judge::new(Limits::default());
        let levels =
            [50.0, 10.0, 9.9, 10.9, 11.0, 9.9, 5.0, 4.9, 5.9, 6.0, 10.5, 11.0].map(|free| judge.look(space(free), 0));
        use Level::{Ample, Full, Low};
        assert_eq!(
            levels,
            [Ample, Ample, Low, Low, Ample, Low, Low, Full, Full, Low, Low, Ample]
        );
    }

    #[test]
    fn a_limit_in_bytes_is_one_on_a_disk_of_any_size() {
        let limits = Limits {
            metrics: Amount::Bytes(100 * MIB),
            results: Amount::Bytes(10 * MIB),
        };
        let mut judge = Judge::new(limits);
        let mut of = |free: u64| {
            let size = 1 << 43;
            judge.look(Space { size, free: free * MIB }, 0)
        };
        assert_eq!([of(100), of(99), of(119), of(120), of(9), of(11), of(12)], {
            use Level::{Ample, Full, Low};
            [Ample, Low, Low, Ample, Full, Full, Low]
        });
    }

    #[test]
    fn after_a_write_that_failed_nothing_is_tried_for_a_while_and_longer_each_time() {
        let mut judge = Judge::new(Limits::default());
        let mut now = 0;
        let mut holds = Vec::new();
        for _ in 0..6 {
            assert_eq!(judge.failed(now), Level::Full);
            // Others that fail meanwhile were under way already.
            judge.failed(now + SECOND);
            let start = now;
            while judge.look(space(50.0), now) == Level::Full {
                now += SECOND;
            }
            holds.push((now - start) / SECOND);
        }
        assert_eq!(holds, [5, 10, 20, 30, 30, 30]);
        now += MAX_HOLD + 1;
        judge.failed(now);
        assert_eq!(judge.look(space(50.0), now + HOLD), Level::Ample);
    }

    #[test]
    fn a_clock_that_was_set_back_does_not_hold_it_for_ever() {
        let mut judge = Judge::new(Limits::default());
        judge.failed(1_000_000 * SECOND);
        assert_eq!(judge.look(space(50.0), 5 * SECOND), Level::Ample);
    }

    proptest! {
        #[test]
        fn whatever_it_was_before_a_disk_below_a_limit_is_and_one_well_above_is_not(
            frees in prop::collection::vec(0u64..=1000, 1..40),
        ) {
            let mut judge = Judge::new(Limits::default());
            for free in frees {
                let level = judge.look(Space { size: 1000 * MIB, free: free * MIB }, 0);
                prop_assert!(free >= 50 || level == Level::Full);
                prop_assert!(free >= 100 || level >= Level::Low);
                prop_assert!(free < 60 || level <= Level::Low);
                prop_assert!(free < 110 || level == Level::Ample);
            }
        }
    }
}
