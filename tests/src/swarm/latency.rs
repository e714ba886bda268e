//! Times in buckets that grow with them, so that millions fit into a few KiB and a percentile is off by a sixteenth at most.
//! Knows no clock.

use std::{
    array,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use serde_json::{Value, json};

/// Buckets for each doubling.
const PARTS: usize = 16;
/// Doublings: 2^40 µs are twelve days.
const DOUBLINGS: usize = 40;

#[derive(Debug)]
pub struct Latency(Box<[AtomicU64; PARTS * DOUBLINGS]>);

impl Default for Latency {
    fn default() -> Self {
        Self(Box::new(array::from_fn(|_| AtomicU64::new(0))))
    }
}

impl Latency {
    pub fn add(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.0[bucket(micros)].fetch_add(1, Ordering::Relaxed);
    }

    pub fn clear(&self) {
        self.0.iter().for_each(|count| count.store(0, Ordering::Relaxed));
    }

    pub fn count(&self) -> u64 {
        self.0.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// The upper end of the bucket that so many of a hundred lie in or below; nothing when there are none.
    pub fn percentile(&self, percent: f64) -> Option<Duration> {
        let wanted = (self.count() as f64 * percent / 100.0).ceil().max(1.0);
        let mut below = 0;
        let index = self.0.iter().position(|count| {
            below += count.load(Ordering::Relaxed);
            below as f64 >= wanted
        })?;
        Some(Duration::from_micros(upper_end(index)))
    }

    /// In milliseconds.
    pub fn to_json(&self) -> Value {
        let at = |percent| {
            let time = self.percentile(percent)?;
            Some((time.as_secs_f64() * 1e6).round() / 1e3)
        };
        json!({
            "count": self.count(),
            "p50_ms": at(50.0),
            "p90_ms": at(90.0),
            "p99_ms": at(99.0),
            "max_ms": at(100.0),
        })
    }
}

fn bucket(micros: u64) -> usize {
    if micros < PARTS as u64 {
        return micros as usize;
    }
    // The highest bit says which doubling, the four below it which part.
    let doubling = micros.ilog2() as usize;
    let part = (micros >> (doubling - 4)) as usize & (PARTS - 1);
    ((doubling - 3) * PARTS + part).min(PARTS * DOUBLINGS - 1)
}

fn upper_end(bucket: usize) -> u64 {
    let (doubling, part) = (bucket / PARTS, (bucket % PARTS) as u64);
    match doubling {
        0 => part,
        _ => ((PARTS as u64 + part + 1) << (doubling - 1)) - 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_no_more_than_a_sixteenth_around_its_times() {
        for micros in (0..100_000).chain([1 << 30, (1 << 39) - 1]) {
            let end = upper_end(bucket(micros));
            assert!(
                end >= micros && end as f64 <= micros as f64 * 17.0 / 16.0,
                "{micros} {end}"
            );
        }
        assert_eq!(bucket(u64::MAX), PARTS * DOUBLINGS - 1);
    }

    #[test]
    fn percentiles_are_those_of_what_was_added() {
        let latency = Latency::default();
        assert_eq!(latency.percentile(50.0), None);
        for micros in 1..=10 {
            latency.add(Duration::from_micros(micros));
        }
        let at = |percent| latency.percentile(percent).map(|time| time.as_micros());
        assert_eq!((at(50.0), at(90.0), at(100.0)), (Some(5), Some(9), Some(10)));
        latency.clear();
        assert_eq!(latency.count(), 0);
    }
}
