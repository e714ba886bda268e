//! Which series each agent has, so that one that invents new ones without end is stopped and nobody else is: a label whose value
//! never repeats fills the store of everybody. Four bytes for each series, and nothing for an agent without metrics. Knows
//! nothing of what is stored, and nothing of links.
//!
//! New series are paid for at the rate of the limit, and as many as of [`BURST`] may come at once: after a start of the
//! controller all series of the fleet are new to it.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, Hash as _, Hasher as _, RandomState},
    sync::{
        Mutex,
        atomic::{AtomicI64, Ordering},
    },
};

use muster_proto::{
    ids::AgentId,
    v1::{MetricBatch, MetricLabel},
};

use crate::clock::{HOUR, MINUTE, Micros};

/// How often it is looked for agents that are gone, and for series that one at its limit no longer has.
const TIDY: Micros = 5 * MINUTE;
/// What may come at once after a while without new ones.
const BURST: Micros = 10 * MINUTE;
/// A series that was not there for so long is forgotten, and would be new again.
const FORGET: Micros = HOUR;
/// That an agent may have at a time, whatever the limit: 80 KiB for one that has as many.
pub const MOST: usize = 20_000;

/// Those of all agents.
#[derive(Debug)]
pub struct Series {
    per_minute: u64,
    hasher: RandomState,
    agents: Mutex<HashMap<AgentId, Known>>,
    tidied_at: AtomicI64,
}

/// Those of one agent.
#[derive(Debug)]
struct Known {
    /// In order, each with its lowest bit set when it was there since `looked_at`: 31 bits of a hash. That two series have one
    /// lets one of them in for nothing, and is rare.
    hashes: Box<[u32]>,
    looked_at: Micros,
    /// When all new ones are paid for.
    paid: Micros,
}

const SEEN: u32 = 1;

impl Series {
    /// `per_minute`: of each agent; 0: there is no limit.
    pub fn new(per_minute: u64) -> Self {
        Self {
            per_minute,
            hasher: RandomState::new(),
            agents: Mutex::default(),
            tidied_at: AtomicI64::new(0),
        }
    }

    /// Takes the samples of new series out of a batch that are too many. How many that were, and of how many.
    pub fn admit(&self, agent: AgentId, batch: &mut MetricBatch, now: Micros) -> (usize, usize) {
        let all = count(batch);
        if self.per_minute == 0 {
            return (0, all);
        }
        let mut agents = self.agents.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let known = agents.entry(agent).or_insert_with(|| Known::new(now));
        known.begin(now);
        let mut new: Vec<u32> = Vec::new();
        let job = std::mem::take(&mut batch.job);
        for family in &batch.families {
            for sample in &family.samples {
                let hash = self.hash(&job, &family.name, &sample.labels);
                if !known.has(hash) {
                    new.push(hash);
                }
            }
        }
        new.sort_unstable();
        new.dedup();
        let refused = known.learn(new, self.per_minute, now);
        if !refused.is_empty() {
            for family in &mut batch.families {
                let (name, samples) = (&family.name, &mut family.samples);
                samples.retain(|sample| refused.binary_search(&self.hash(&job, name, &sample.labels)).is_err());
            }
            batch.families.retain(|family| !family.samples.is_empty());
        }
        batch.job = job;
        (all - count(batch), all)
    }

    /// Forgets agents that are gone, now and then.
    pub fn tidy(&self, now: Micros, is_there: impl Fn(AgentId) -> bool) {
        if (now - self.tidied_at.load(Ordering::Relaxed)).abs() < TIDY {
            return;
        }
        self.tidied_at.store(now, Ordering::Relaxed);
        let mut agents = self.agents.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        agents.retain(|agent, _| is_there(*agent));
    }

    /// With the bit for `SEEN` set.
    fn hash(&self, job: &str, name: &str, labels: &[MetricLabel]) -> u32 {
        let mut hasher = self.hasher.build_hasher();
        (job, name).hash(&mut hasher);
        for label in labels {
            (&label.name, &label.value).hash(&mut hasher);
        }
        hasher.finish() as u32 | SEEN
    }
}

impl Known {
    fn new(now: Micros) -> Self {
        Self {
            hashes: Box::default(),
            looked_at: now,
            paid: now - BURST,
        }
    }

    fn begin(&mut self, now: Micros) {
        // A clock that was set back is no reason to wait for it.
        if (now - self.looked_at).abs() >= FORGET {
            self.forget(now);
        }
        self.paid = self.paid.clamp(now - BURST, now);
    }

    /// Drops what was not there since the last time.
    fn forget(&mut self, now: Micros) {
        let hashes = std::mem::take(&mut self.hashes).into_vec();
        let seen = hashes.into_iter().filter(|hash| hash & SEEN == SEEN);
        self.hashes = seen.map(|hash| hash & !SEEN).collect();
        self.looked_at = now;
    }

    fn has(&mut self, hash: u32) -> bool {
        match self.hashes.binary_search_by_key(&(hash | SEEN), |known| known | SEEN) {
            Ok(place) => {
                self.hashes[place] |= SEEN;
                true
            }
            Err(_) => false,
        }
    }

    /// As many of these, which are in order, as are paid for and have room; the others are given back, in order.
    fn learn(&mut self, mut new: Vec<u32>, per_minute: u64, now: Micros) -> Vec<u32> {
        if new.is_empty() {
            return new;
        }
        if self.hashes.len() + new.len() > MOST && (now - self.looked_at).abs() >= TIDY {
            self.forget(now);
        }
        let price = (MINUTE.unsigned_abs() / per_minute).max(1);
        let credit = (now - self.paid).max(0).unsigned_abs() / price;
        let room = MOST.saturating_sub(self.hashes.len());
        let count = new.len().min(room).min(usize::try_from(credit).unwrap_or(usize::MAX));
        let refused = new.split_off(count);
        if count > 0 {
            self.paid = self.paid.saturating_add_unsigned(price * count as u64);
            let known = std::mem::take(&mut self.hashes).into_vec();
            new.extend(known);
            new.sort_unstable();
            self.hashes = new.into_boxed_slice();
        }
        refused
    }
}

fn count(batch: &MetricBatch) -> usize {
    batch.families.iter().map(|family| family.samples.len()).sum()
}

#[cfg(test)]
mod tests {
    use muster_proto::v1::{MetricFamily, Sample};

    use super::*;
    use crate::clock::SECOND;

    /// Series of these numbers.
    fn batch(numbers: std::ops::Range<usize>) -> MetricBatch {
        let sample = |number: usize| Sample {
            labels: vec![MetricLabel {
                name: "id".to_owned(),
                value: number.to_string(),
            }],
            value: 1.0,
        };
        MetricBatch {
            job: "node".to_owned(),
            families: vec![MetricFamily {
                name: "requests_total".to_owned(),
                samples: numbers.map(sample).collect(),
                ..Default::default()
            }],
        }
    }

    const START: Micros = 1_000 * HOUR;

    #[test]
    fn a_fleet_that_is_new_to_a_controller_is_taken_as_a_whole() {
        let series = Series::new(1_000);
        for _ in 0..1_000 {
            assert_eq!(series.admit(AgentId::random(), &mut batch(0..100), START), (0, 100));
        }
        let agents = series.agents.lock().expect("nobody panicked");
        assert!(
            agents.values().all(|known| known.hashes.len() == 100),
            "four bytes for each"
        );
    }

    #[test]
    fn an_agent_that_invents_series_keeps_those_it_has_and_gets_new_ones_at_the_rate_of_the_limit() {
        let series = Series::new(60);
        let (mad, good) = (AgentId::random(), AgentId::random());
        assert_eq!(series.admit(mad, &mut batch(0..100), START), (0, 100));
        let mut now = START;
        let (mut refused, mut asked) = (0, 0);
        for round in 1..=600 {
            now += SECOND;
            let first = round * 1_000;
            let mut invented = batch(first..first + 50);
            invented.families.extend(batch(0..100).families);
            let (out, all) = series.admit(mad, &mut invented, now);
            assert_eq!(all, 150);
            assert_eq!(count(&invented), all - out);
            let own = &invented.families[invented.families.len() - 1];
            assert_eq!(own.samples.len(), 100, "what was known goes on");
            refused += out;
            asked += 50;
            assert_eq!(series.admit(good, &mut batch(0..100), now).0, 0);
        }
        // Ten minutes' worth at once, of which 100 were used before, and one each second.
        let taken = asked - refused;
        assert!((1_095..=1_105).contains(&taken), "{taken}");
    }

    #[test]
    fn what_is_refused_whole_leaves_nothing_and_what_is_free_of_a_limit_everything() {
        let series = Series::new(1);
        let mad = AgentId::random();
        assert_eq!(series.admit(mad, &mut batch(0..10), START), (0, 10));
        let mut more = batch(10..20);
        assert_eq!(series.admit(mad, &mut more, START), (10, 10));
        assert!(more.families.is_empty());
        assert_eq!(Series::new(0).admit(mad, &mut batch(0..9_999), START), (0, 9_999));
    }

    #[test]
    fn an_agent_never_takes_more_than_its_room_and_what_it_no_longer_has_makes_some() {
        let series = Series::new(1_000_000);
        let agent = AgentId::random();
        let admit = |numbers, now| series.admit(agent, &mut batch(numbers), now);
        let of_agent = || series.agents.lock().expect("nobody panicked")[&agent].hashes.len();
        for part in 0..4 {
            assert_eq!(admit(part * 5_000..(part + 1) * 5_000, START), (0, 5_000));
        }
        // A few have the hash of another, here as everywhere below: they come in for nothing.
        let refused = admit(20_000..20_500, START).0;
        assert!((490..=500).contains(&refused), "{refused}");
        assert!((MOST - 10..=MOST).contains(&of_agent()), "{}", of_agent());
        assert!(admit(30_000..30_100, START).0 >= 90);
        // All that is there was seen before.
        assert!(admit(30_000..30_100, START + TIDY).0 >= 90);
        // Of most of it the agent says nothing any longer.
        assert_eq!(admit(0..5_000, START + TIDY).0, 0);
        assert_eq!(admit(30_000..30_100, START + 2 * TIDY), (0, 100));
        assert!((5_090..=5_100).contains(&of_agent()), "{}", of_agent());
        series.tidy(START, |_| false);
        assert!(series.agents.lock().expect("nobody panicked").is_empty());
    }

    #[test]
    fn a_series_that_was_away_for_long_is_new_again() {
        let series = Series::new(1);
        let agent = AgentId::random();
        assert_eq!(series.admit(agent, &mut batch(0..10), START).0, 0);
        assert_eq!(series.admit(agent, &mut batch(0..5), START + FORGET).0, 0);
        assert_eq!(series.admit(agent, &mut batch(0..5), START + 2 * FORGET).0, 0);
        let agents = series.agents.lock().expect("nobody panicked");
        assert_eq!(agents[&agent].hashes.len(), 5);
    }
}
