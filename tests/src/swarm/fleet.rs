//! What all agents of a swarm have in common: how they are told what to do, and what they are counted by. Knows no protocol.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{cli::LoadArgs, latency::Latency, policies::Sets};

/// Different reasons that are kept.
const MAX_REASONS: usize = 20;

/// Handed to every agent.
#[derive(Debug)]
pub struct Fleet {
    pub started: Instant,
    pub load: LoadArgs,
    /// Claimed by every agent, so that policies can be for this swarm alone.
    pub label: (String, String),
    pub sets: Sets,
    pub orders: watch::Sender<Orders>,
    /// Agents say goodbye.
    pub stop: CancellationToken,
    /// All tasks of the swarm.
    pub tasks: TaskTracker,
    pub counts: Counts,
    reasons: Mutex<BTreeMap<String, u64>>,
}

/// What the agents do now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Orders {
    /// Of what the profile says; 0: they report nothing.
    pub rate: f64,
}

/// Counted by all agents together.
#[derive(Debug, Default)]
pub struct Counts {
    /// Links that are up.
    pub up: AtomicU64,
    pub welcomes: Moments,
    /// Links that did not come about, or broke.
    pub failures: AtomicU64,
    /// Links that the controller has ended, for them to come anew.
    pub sent_away: AtomicU64,
    /// Those told to come later.
    pub refused: AtomicU64,
    /// Policy sets that came, and answers to them.
    pub synced: Moments,
    pub answered: Moments,
    /// From when a frame of records is given to the connection to its acknowledgement.
    pub acks: Latency,
    /// From when something was recorded, with the link up, to its acknowledgement.
    pub lateness: Latency,
    pub rejected: AtomicU64,
}

/// Things that happen, and when the last one did.
#[derive(Debug, Default)]
pub struct Moments {
    count: AtomicU64,
    last: AtomicU64,
}

impl Moments {
    pub fn happened(&self, since: Instant) {
        let micros = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.last.fetch_max(micros, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Since the start that it was counted from.
    pub fn last(&self) -> Duration {
        Duration::from_micros(self.last.load(Ordering::Relaxed))
    }
}

impl Fleet {
    pub fn new(load: LoadArgs, label: (String, String)) -> Arc<Self> {
        Arc::new(Self {
            started: Instant::now(),
            load,
            label,
            sets: Sets::default(),
            orders: watch::Sender::new(Orders { rate: 0.0 }),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            counts: Counts::default(),
            reasons: Mutex::default(),
        })
    }

    pub fn order(&self, rate: f64) {
        self.orders.send_replace(Orders { rate });
    }

    /// Why a connection ended; the first of each kind are kept, for people.
    pub fn note(&self, why: &str) {
        let mut reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = reasons.get_mut(why) {
            *count += 1;
        } else if reasons.len() < MAX_REASONS {
            reasons.insert(why.to_owned(), 1);
        }
    }

    /// Why connections ended, and how often.
    pub fn reasons(&self) -> BTreeMap<String, u64> {
        self.reasons.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
