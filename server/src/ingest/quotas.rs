//! How much agents may have on its way: the windows of their lanes, against one budget for all that was received and is not
//! committed, and how fast each agent may go. Bookkeeping in memory; knows neither frames nor the store.
//!
//! Half of the budget is divided among all agents on file: a lane always has its part, so that nobody who connects takes from
//! another. The other half is lent to lanes that use what they have, metrics up to half of it, logs up to a quarter, and is taken
//! back when they do not, or when much waits to be stored. What is granted is never more than the budget, as long as that has
//! 20 KiB for each agent; what is held is never more than the budget whatever agents do.
//!
//! While the store of a lane takes longer than [`PROMPT`] for what comes in, its windows are smaller by as much: what waits
//! from an outage then waits with the agents, and what is new does not come behind it here.

mod pace;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
};

use muster_proto::{
    ids::AgentId,
    v1::{Lane, Record},
};

pub use self::pace::Pace;
use super::{LANES, lane_index};
use crate::clock::{Micros, SECOND};

/// A lane may always have this much under way, or it could not learn that it may have more.
const LEAST: u64 = 4 << 10;
/// Part of a lane that is idle, when the fleet is small.
const IDLE: u64 = 64 << 10;
/// A new link has one so many times smaller until its first acknowledgement: nobody knows yet whether the whole fleet has come
/// with all that an outage has left.
const FIRST: u64 = 8;
pub const MOST: u64 = 1 << 20;
/// Of what a lane has, logs have half.
const PARTS: u64 = 5;
/// From when a frame is received until it is committed, when all is well.
const PROMPT: Micros = SECOND / 4;
/// From this many on, those that say nothing any longer are dropped whenever there are twice as many as are left.
const MIN_PACES: usize = 1_024;
/// What a frame takes in memory beside its records, until it is committed and acknowledged.
const FRAME_COST: u64 = 512;
/// The same of a record beside its bytes.
const RECORD_COST: u64 = size_of::<Record>() as u64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Received and not committed.
    pub bytes: u64,
    /// Of one lane of one agent, each.
    pub agent_records_per_second: u64,
    pub agent_bytes_per_second: u64,
    /// Series of metrics that an agent did not have before; 0: as many as it likes.
    pub agent_new_series_per_minute: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes: 256 << 20,
            agent_records_per_second: 2_000,
            agent_bytes_per_second: 4 << 20,
            agent_new_series_per_minute: 1_000,
        }
    }
}

/// Those of all links. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Quotas(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limits: Limits,
    /// Agents on file.
    fleet: AtomicU64,
    held: AtomicU64,
    lent: AtomicU64,
    /// By lane, how long the oldest frame of the last commit had waited for its end.
    delays: [AtomicI64; LANES.len()],
    paces: Mutex<Paces>,
}

/// Of agents whose links have ended: who connects anew is no other agent.
#[derive(Debug)]
struct Paces {
    of: HashMap<AgentId, [Pace; LANES.len()]>,
    /// From how many on to look for those that say nothing any longer.
    tidy_at: usize,
    /// When the last link began.
    now: Micros,
}

impl Paces {
    fn keep(&mut self, agent: AgentId, paces: &[Pace; LANES.len()]) {
        let kept = self.of.entry(agent).or_default();
        for (kept, pace) in kept.iter_mut().zip(paces) {
            kept.merge(pace);
        }
        if self.of.len() >= self.tidy_at {
            self.of
                .retain(|_, paces| paces.iter().any(|pace| pace.matters(self.now)));
            self.tidy_at = (2 * self.of.len()).max(MIN_PACES);
        }
    }
}

impl Quotas {
    pub fn new(limits: Limits) -> Self {
        Self(Arc::new(Shared {
            limits,
            fleet: AtomicU64::new(1),
            held: AtomicU64::new(0),
            lent: AtomicU64::new(0),
            delays: Default::default(),
            paces: Mutex::new(Paces {
                of: HashMap::new(),
                tidy_at: MIN_PACES,
                now: 0,
            }),
        }))
    }

    /// For one link. `fleet` is how many agents there are.
    pub fn share(&self, agent: AgentId, fleet: usize, now: Micros) -> Share {
        self.0.fleet.store(fleet.max(1) as u64, Ordering::Relaxed);
        let mut paces = self.0.paces.lock().unwrap_or_else(PoisonError::into_inner);
        paces.now = now;
        let paces = paces.of.get(&agent).copied().unwrap_or_default();
        Share {
            agent,
            shared: self.0.clone(),
            lent: [0; LANES.len()],
            owes: paces.map(|pace| pace.due() > now),
            paces,
        }
    }

    /// Bytes that were received and are not committed.
    pub fn held(&self) -> u64 {
        self.0.held.load(Ordering::Relaxed)
    }

    /// A commit has ended; its oldest frame was received so long before.
    pub(super) fn committed(&self, lane: Lane, delay: Micros) {
        self.0.delays[lane_index(lane)].store(delay, Ordering::Relaxed);
    }

    /// More jobs never wait than would fill the budget by themselves.
    pub(super) fn max_jobs(&self) -> usize {
        usize::try_from(self.0.limits.bytes / FRAME_COST)
            .unwrap_or(usize::MAX)
            .clamp(1_024, tokio::sync::Semaphore::MAX_PERMITS)
    }
}

/// What one link has of it.
#[derive(Debug)]
pub struct Share {
    agent: AgentId,
    shared: Arc<Shared>,
    /// By lane, beyond its part.
    lent: [u64; LANES.len()],
    paces: [Pace; LANES.len()],
    /// By lane, whether it still owes what it owed when the link began.
    owes: [bool; LANES.len()],
}

impl Share {
    /// The window that a lane gets now, after `window`, of which it had at most `used` under way; both 0 to begin with.
    pub fn window(&mut self, lane: Lane, window: u64, used: u64, now: Micros) -> u64 {
        let (shared, index) = (&self.shared, lane_index(lane));
        let total = shared.limits.bytes;
        // What may be granted at least and what is a lane's part are half as much for logs.
        let weight = if lane == Lane::Logs { 1 } else { 2 };
        let least = LEAST * weight / 2;
        let part = total / 2 * weight / PARTS / shared.fleet.load(Ordering::Relaxed);
        let part = part.clamp(least, IDLE);
        let delay = shared.delays[index].load(Ordering::Relaxed);
        let part = match delay > PROMPT {
            true => (part * PROMPT.unsigned_abs() / delay.unsigned_abs()).max(least),
            false => part,
        };
        let held = shared.held.load(Ordering::Relaxed);
        // Logs give way first, then metrics.
        let (tight, full, lendable) = match lane {
            Lane::Logs => (total / 8, total / 4, total / 8),
            Lane::Metrics => (total / 4, total / 2, total / 4),
            Lane::Results | Lane::Unspecified => (total / 4 * 3, total / 8 * 7, total / 2),
        };
        // A quarter: of what waits from before, agents send no more than half a window at a time.
        let wanted = match window > 0 && used >= window / 4 {
            true => (2 * window).min(MOST),
            false => window / 2,
        };
        let is_slow = held >= tight || delay > PROMPT;
        let wanted = if is_slow { 0 } else { wanted.saturating_sub(part) };
        let before = self.lent[index];
        let change = |lent: u64| {
            let others = lent.saturating_sub(before);
            Some(others + wanted.min(lendable.saturating_sub(others)))
        };
        let others = match shared.lent.fetch_update(Ordering::Relaxed, Ordering::Relaxed, change) {
            Ok(lent) | Err(lent) => lent.saturating_sub(before),
        };
        self.lent[index] = wanted.min(lendable.saturating_sub(others));
        // Who connects again while it is beyond its limits would have a window for nothing each time.
        let is_late = window == 0 && self.paces[index].due() > now;
        match (held >= full || is_late, window) {
            (true, _) => least,
            (false, 0) => (part / FIRST).max(least),
            (false, _) => part + self.lent[index],
        }
    }

    /// Whether a lane has more than its part.
    pub fn has_lent(&self, lane: Lane) -> bool {
        self.lent[lane_index(lane)] > 0
    }

    /// Takes room for a frame of records until the guard is dropped. None: there is none.
    pub fn hold(&self, bytes: u64, records: usize) -> Option<Held> {
        let bytes = bytes + FRAME_COST + RECORD_COST * records as u64;
        let (held, total) = (&self.shared.held, self.shared.limits.bytes);
        let add = |held: u64| Some(held + bytes).filter(|sum| *sum <= total);
        held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).ok()?;
        Some(Held {
            shared: self.shared.clone(),
            bytes,
        })
    }

    /// Counts what came in a lane. When that may be acknowledged; not later than now, as long as the agent keeps its limits.
    /// None: it was beyond them when it connected, and goes on as if it had not been.
    pub fn spend(&mut self, lane: Lane, bytes: u64, records: usize, now: Micros) -> Option<Micros> {
        let (limits, index) = (&self.shared.limits, lane_index(lane));
        let pace = &mut self.paces[index];
        self.owes[index] &= pace.due() > now;
        if self.owes[index] && pace.is_beyond(limits, bytes, records as u64, now) {
            return None;
        }
        Some(pace.spend(limits, bytes, records as u64, now))
    }

    /// An acknowledgement had to wait. True: for the first time in a while.
    pub fn throttled(&mut self, lane: Lane, now: Micros) -> bool {
        self.paces[lane_index(lane)].throttled(now)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let lent: u64 = self.lent.iter().sum();
        self.shared.lent.fetch_sub(lent, Ordering::Relaxed);
        if self.paces.iter().any(Pace::was_used) {
            let mut paces = self.shared.paces.lock().unwrap_or_else(PoisonError::into_inner);
            paces.keep(self.agent, &self.paces);
        }
    }
}

/// Room in the budget, until dropped.
#[derive(Debug)]
pub struct Held {
    shared: Arc<Shared>,
    bytes: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shared.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
