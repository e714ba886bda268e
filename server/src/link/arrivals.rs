//! How many links may begin each second. A newcomer beyond that is given a place in a row, and told when it will be its turn,
//! so that a fleet comes back in order and not as one storm. Knows agents by their ids, and neither streams nor clocks.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use muster_proto::ids::AgentId;

use crate::clock::{self, Micros, SECOND};

/// As many links as of one second may begin at once, so that a fleet that is no larger is never turned away.
const BURST: Micros = SECOND;
/// Nobody is sent away for longer.
const HORIZON: Micros = 60 * SECOND;
/// Nor for less: it has to make another connection.
const LEAST: Micros = SECOND;
/// How long a place is kept for an agent that comes late.
const KEPT: Micros = 30 * SECOND;
/// When nobody was turned away for so long, the next one begins another rush.
const CALM: Micros = 60 * SECOND;

#[derive(Debug)]
pub struct Arrivals {
    /// Times are counted from here, since the clock of the host may be set.
    began: Instant,
    /// From one link to the next.
    interval: Micros,
    row: Mutex<Row>,
}

/// Come again after this time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Later {
    pub after: Duration,
    /// The first one of this rush.
    pub is_first: bool,
}

#[derive(Debug)]
struct Row {
    /// When the next link may begin that nobody waits for yet. Behind now: there is room for a burst.
    tail: Micros,
    places: HashMap<AgentId, Micros>,
    /// All places that were given, in their order; some of them may have been used.
    order: VecDeque<(Micros, AgentId)>,
    /// Where the next one comes that has no place, since the row is too long.
    beyond: Micros,
    turned_away: Option<Micros>,
}

impl Arrivals {
    pub fn new(links_per_second: usize, now: Instant) -> Self {
        Self {
            began: now,
            interval: (SECOND / Micros::try_from(links_per_second).unwrap_or(SECOND)).max(1),
            row: Mutex::new(Row {
                tail: -BURST,
                places: HashMap::new(),
                order: VecDeque::new(),
                beyond: 0,
                turned_away: None,
            }),
        }
    }

    /// Whether a link of this agent may begin now. Who asks again before its turn keeps its place: it neither moves up nor
    /// makes the row longer.
    pub fn knock(&self, agent: AgentId, now: Instant) -> Result<(), Later> {
        let now = clock::from_duration(now.saturating_duration_since(self.began));
        let mut row = self.row();
        row.forget(now - KEPT);
        let wait = match row.places.get(&agent).copied() {
            Some(place) if place <= now => {
                row.places.remove(&agent);
                return Ok(());
            }
            Some(place) => place - now,
            None => {
                let place = row.tail.max(now - BURST);
                if place <= now {
                    row.tail = place + self.interval;
                    return Ok(());
                }
                if place - now > HORIZON {
                    row.beyond = (row.beyond + self.interval) % (HORIZON / 2);
                    HORIZON / 2 + row.beyond
                } else {
                    row.tail = place + self.interval;
                    row.places.insert(agent, place);
                    row.order.push_back((place, agent));
                    place - now
                }
            }
        };
        let before = row.turned_away.replace(now);
        Err(Later {
            after: Duration::from_micros(wait.clamp(LEAST, HORIZON).unsigned_abs()),
            is_first: before.is_none_or(|before| now - before > CALM),
        })
    }

    // Every change leaves the row whole, so a poisoned lock is taken all the same.
    fn row(&self) -> MutexGuard<'_, Row> {
        self.row.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Row {
    /// Places from before that time, whose agents did not come.
    fn forget(&mut self, before: Micros) {
        while let Some((place, agent)) = self.order.front().copied()
            && place < before
        {
            self.order.pop_front();
            // It may have come, and may have been given another one since.
            if self.places.get(&agent) == Some(&place) {
                self.places.remove(&agent);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn agent(n: u128) -> AgentId {
        AgentId::from(uuid::Uuid::from_u128(n))
    }

    const RATE: usize = 10;

    #[test]
    fn a_fleet_of_one_second_is_never_turned_away_however_often_it_comes() {
        let start = Instant::now();
        let arrivals = Arrivals::new(RATE, start);
        for second in 1..100 {
            for n in 0..RATE {
                let now = start + Duration::from_secs(second);
                assert_eq!(arrivals.knock(agent(n as u128), now), Ok(()), "{n} in second {second}");
            }
        }
    }

    #[test]
    fn a_crowd_comes_in_by_its_order_and_everybody_at_the_second_knock() {
        let start = Instant::now();
        let arrivals = Arrivals::new(RATE, start);
        let mut waiting = Vec::new();
        for n in 0..300 {
            if let Err(later) = arrivals.knock(agent(n), start) {
                assert_eq!(later.is_first, waiting.is_empty());
                waiting.push((n, later.after));
            }
        }
        assert!(waiting.len() >= 300 - RATE - 1, "{}", waiting.len());
        assert!(waiting.is_sorted_by_key(|(_, after)| *after), "{waiting:?}");
        assert!(waiting.last().expect("some").1 <= Duration::from_secs(30));
        for (n, after) in waiting {
            assert_eq!(arrivals.knock(agent(n), start + after), Ok(()), "{n} after {after:?}");
        }
    }

    #[test]
    fn who_knocks_without_end_stands_where_it_stood_and_holds_up_nobody() {
        let start = Instant::now();
        let arrivals = Arrivals::new(RATE, start);
        while arrivals.knock(AgentId::random(), start).is_ok() {}
        let (mad, other) = (agent(1), agent(2));
        let first = arrivals.knock(mad, start).expect_err("too many");
        for _ in 0..1_000 {
            assert_eq!(arrivals.knock(mad, start).expect_err("too many").after, first.after);
        }
        let after = arrivals.knock(other, start).expect_err("too many").after;
        assert!(after <= first.after + Duration::from_secs(1), "{after:?}");
    }

    #[test]
    fn who_does_not_come_back_is_forgotten_and_its_place_is_free() {
        let start = Instant::now();
        let arrivals = Arrivals::new(RATE, start);
        let turned_away = (0..100).filter(|n| arrivals.knock(agent(*n), start).is_err()).count();
        assert!(turned_away > 80, "{turned_away}");
        assert!(!arrivals.row().places.is_empty());
        let later = start + Duration::from_secs(120);
        assert_eq!(arrivals.knock(agent(1_000), later), Ok(()));
        let row = arrivals.row();
        assert_eq!((row.places.len(), row.order.len()), (0, 0));
    }

    #[test]
    fn a_crowd_that_is_too_large_for_the_row_is_spread_all_the_same() {
        let start = Instant::now();
        let arrivals = Arrivals::new(RATE, start);
        let mut after: Vec<Duration> = (0..2_000)
            .filter_map(|n| arrivals.knock(agent(n), start).err())
            .map(|later| later.after)
            .collect();
        assert!(after.iter().all(|after| *after <= Duration::from_secs(60)));
        let beyond = after.split_off(700);
        let (first, last) = (beyond.iter().min(), beyond.iter().max());
        assert!(first < Some(&Duration::from_secs(35)) && last > Some(&Duration::from_secs(55)));
        assert!(arrivals.row().places.len() <= 61 * RATE, "the row is bounded");
    }

    proptest! {
        /// Whoever comes, whenever: over any time no more are let in than the rate allows, beside one burst and those that
        /// were promised a place and came late.
        #[test]
        fn the_rate_holds(knocks in proptest::collection::vec((0u128..200, 0u64..200), 1..2_000)) {
            let start = Instant::now();
            let arrivals = Arrivals::new(RATE, start);
            let (mut now, mut admitted) = (start, 0.0);
            for (who, millis) in knocks {
                now += Duration::from_millis(millis);
                match arrivals.knock(agent(who), now) {
                    Ok(()) => admitted += 1.0,
                    Err(later) => prop_assert!(later.after >= Duration::from_secs(1) && later.after <= Duration::from_secs(60)),
                }
                let allowed = (now - start).as_secs_f64() * RATE as f64 + RATE as f64 + 1.0;
                prop_assert!(admitted <= allowed, "{admitted} of {allowed}");
                prop_assert!(arrivals.row().order.len() <= 91 * RATE);
            }
        }
    }
}
