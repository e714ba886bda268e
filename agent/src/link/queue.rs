//! The records that the controller has not acknowledged yet: a bounded queue on disk for each lane, drop-oldest, with counters
//! that a user can see and a record of every gap. Knows nothing of connections; what is on its way is the session's business.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use muster_proto::v1;
use tokio::sync::Notify;

pub use self::{
    directory::Directory,
    lane::{Depth, Lane},
    spool::Batch,
};
use self::{lane::Why, segment::Synced, spool::Loss};
use crate::clock::unix_micros;

mod directory;
mod frame;
pub mod keeper;
mod lane;
mod segment;
mod spool;

/// Spools of one lane that Hello names; of more, the controller learns when it gets their records.
const SPOOLS_TOLD: usize = 8;

/// How much the lanes may hold before their oldest records are dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Of one lane, on disk and in memory together.
    pub bytes: usize,
    /// Of one lane in memory, while the disk takes nothing.
    pub memory: usize,
}

impl Limits {
    /// How far a segment grows. Records are dropped by the segment, so a small lane has small ones.
    fn segment(&self) -> usize {
        (self.bytes / 16).clamp(1, 256 * 1024)
    }
}

impl Default for Limits {
    fn default() -> Self {
        let bytes = 8 * 1024 * 1024;
        Self { bytes, memory: bytes }
    }
}

/// Where the agent's parts leave what they have to report. Cheap to clone; waits for nothing but the page cache.
#[derive(Debug, Clone)]
pub struct Recorder(Arc<Shared>);

/// The link's end of the queue.
#[derive(Debug)]
pub struct Queue(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    lanes: Mutex<Lanes>,
    waiting: Notify,
    /// A result is in a file, and shall be on the disk.
    unsynced: Notify,
}

impl Recorder {
    /// Puts a record at the end of its lane. When the lane is full its oldest records are dropped and counted.
    pub fn record(&self, lane: v1::Lane, record: v1::Record) {
        self.0.lock().push(lane, &record, unix_micros(SystemTime::now()));
        self.0.waiting.notify_one();
        if lane == v1::Lane::Results {
            self.0.unsynced.notify_one();
        }
    }
}

impl Queue {
    pub fn new(lanes: Lanes) -> Self {
        Self(Arc::new(Shared {
            lanes: Mutex::new(lanes),
            waiting: Notify::new(),
            unsynced: Notify::new(),
        }))
    }

    pub fn recorder(&self) -> Recorder {
        Recorder(self.0.clone())
    }

    /// The lanes themselves; hold them for a moment only.
    pub fn lock(&self) -> MutexGuard<'_, Lanes> {
        self.0.lock()
    }

    /// As [`Lanes::renumber`]; the keeper syncs what has come of it.
    pub fn renumber(&self, spool_id: &str, now: i64) {
        self.lock().renumber(spool_id, now);
        self.0.unsynced.notify_one();
    }

    /// Returns when a record has come since the last call.
    pub async fn recorded(&self) {
        self.0.waiting.notified().await;
    }

    /// Returns when what has come since the last call is to be synced at once.
    async fn unsynced(&self) {
        self.0.unsynced.notified().await;
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All lanes. New records of all of them go under one spool id.
#[derive(Debug)]
pub struct Lanes {
    spool_id: Arc<str>,
    results: Lane,
    metrics: Lane,
    logs: Lane,
}

/// An acknowledgement of what was never sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("records through {through} were acknowledged, but only {sent} were ever sent")]
pub struct NeverSent {
    pub through: u64,
    pub sent: u64,
}

impl Lanes {
    /// In order of priority.
    pub const ALL: [v1::Lane; 3] = [v1::Lane::Results, v1::Lane::Metrics, v1::Lane::Logs];

    /// Without a disk. `spool_id` must never have been used before: it is what makes a sequence number unique.
    pub fn in_memory(spool_id: &str, limits: Limits) -> Self {
        let spool_id: Arc<str> = spool_id.into();
        let lane = || Lane::in_memory(spool_id.clone(), limits);
        Self {
            results: lane(),
            metrics: lane(),
            logs: lane(),
            spool_id,
        }
    }

    pub fn spool_id(&self) -> &str {
        &self.spool_id
    }

    /// Goes on under a new spool id. What waits is sent under the ids that it has, behind what comes now.
    pub fn start_spool(&mut self, spool_id: &str) {
        self.spool_id = spool_id.into();
        for lane in Self::ALL {
            let id = self.spool_id.clone();
            self.lane_mut(lane).start_spool(id);
        }
    }

    /// Goes on under a new spool id with what waits under the present one, since another agent has used that too.
    pub fn renumber(&mut self, spool_id: &str, now: i64) {
        self.spool_id = spool_id.into();
        for lane in Self::ALL {
            let id = self.spool_id.clone();
            if let Some(error) = self.lane_mut(lane).renumber(id) {
                self.tell_in_memory(lane, &error, now);
            }
        }
        self.tell_losses(now);
    }

    /// Of all spools but the one that grows; 0: there are none.
    pub fn highest_generation_before(&self) -> u64 {
        let spools = Self::ALL.into_iter().flat_map(|lane| self.lane(lane).spools().skip(1));
        spools.filter_map(|spool| generation(spool.id())).max().unwrap_or(0)
    }

    pub fn lane(&self, lane: v1::Lane) -> &Lane {
        match lane {
            v1::Lane::Metrics => &self.metrics,
            v1::Lane::Logs => &self.logs,
            v1::Lane::Results | v1::Lane::Unspecified => &self.results,
        }
    }

    pub fn lane_mut(&mut self, lane: v1::Lane) -> &mut Lane {
        match lane {
            v1::Lane::Metrics => &mut self.metrics,
            v1::Lane::Logs => &mut self.logs,
            v1::Lane::Results | v1::Lane::Unspecified => &mut self.results,
        }
    }

    /// `now`: microseconds since 1970.
    pub fn push(&mut self, lane: v1::Lane, record: &v1::Record, now: i64) {
        if let Some(error) = self.lane_mut(lane).push(record, now) {
            self.tell_in_memory(lane, &error, now);
        }
        self.tell_losses(now);
    }

    /// What was written did not reach the disk itself.
    pub fn sync_failed(&mut self, lane: v1::Lane, error: &io::Error, now: i64) {
        self.lane_mut(lane).synced(Synced::Failed);
        if self.lane_mut(lane).disk_failed(error) {
            self.tell_in_memory(lane, error, now);
        }
    }

    fn tell_in_memory(&mut self, lane: v1::Lane, error: &io::Error, now: i64) {
        tracing::error!(lane = lane_name(lane), %error, "the disk does not take the queue; it stays in memory");
        let text = format!("records of lane {} stay in memory: {error}", lane_name(lane));
        self.tell("AGENT_QUEUE_IN_MEMORY", v1::EventSeverity::Error, text, lane, now);
    }

    /// Every loss becomes a record, as reliable as the results beside it.
    pub fn tell_losses(&mut self, now: i64) {
        // Telling may need room, which may be another loss; there is less to lose every time.
        loop {
            let mut gaps = Vec::new();
            for lane in Self::ALL {
                let losses = self.lane_mut(lane).take_losses();
                gaps.extend(losses.into_iter().map(|(loss, why)| gap(lane, loss, why, now)));
            }
            if gaps.is_empty() {
                return;
            }
            for gap in gaps {
                self.results.push(&gap, now);
            }
        }
    }

    /// Something that happened to the queue of a lane.
    fn tell(&mut self, reason: &str, severity: v1::EventSeverity, message: String, lane: v1::Lane, now: i64) {
        let event = v1::AgentEvent {
            reason: reason.to_owned(),
            severity: severity.into(),
            message,
            metadata: [("lane".to_owned(), lane_name(lane).to_owned())].into(),
        };
        let record = v1::Record {
            time_unix_micros: now,
            body: Some(v1::record::Body::Event(event)),
        };
        self.results.push(&record, now);
    }

    /// Tries a disk again that failed.
    pub fn settle(&mut self, now: i64) {
        for lane in Self::ALL {
            if self.lane_mut(lane).settle() {
                let text = format!("records of lane {} are on disk again", lane_name(lane));
                tracing::info!("{text}");
                self.tell("AGENT_QUEUE_ON_DISK", v1::EventSeverity::Info, text, lane, now);
            }
        }
    }

    /// What Hello says of the queues.
    pub fn spools(&self) -> Vec<v1::SpoolState> {
        let of_lane = |lane: v1::Lane| {
            self.lane(lane).spools().take(SPOOLS_TOLD).map(move |spool| {
                let (first_seq, last_seq) = spool.range().unwrap_or_default();
                v1::SpoolState {
                    spool_id: spool.id().to_string(),
                    lane: lane.into(),
                    first_seq,
                    last_seq,
                }
            })
        };
        Self::ALL.into_iter().flat_map(of_lane).collect()
    }
}

fn gap(lane: v1::Lane, loss: Loss, why: Why, now: i64) -> v1::Record {
    tracing::warn!(
        lane = lane_name(lane),
        spool = &*loss.spool,
        records = loss.records(),
        "records were dropped"
    );
    let reason = match why {
        Why::Full => v1::GapReason::Full,
        Why::Old => v1::GapReason::Old,
        Why::Unreadable => v1::GapReason::Unreadable,
    };
    v1::Record {
        time_unix_micros: now,
        body: Some(v1::record::Body::Gap(v1::Gap {
            lane: lane.into(),
            spool_id: loss.spool.to_string(),
            first_seq: loss.first_seq,
            last_seq: loss.last_seq,
            from_unix_micros: loss.from,
            to_unix_micros: loss.to,
            reason: reason.into(),
        })),
    }
}

/// The name of a lane in files, logs and status.
pub fn lane_name(lane: v1::Lane) -> &'static str {
    match lane {
        v1::Lane::Metrics => "metrics",
        v1::Lane::Logs => "logs",
        v1::Lane::Results | v1::Lane::Unspecified => "results",
    }
}

/// Of a spool id "<generation>-<random>".
pub fn generation(spool_id: &str) -> Option<u64> {
    let (generation, random) = spool_id.split_once('-')?;
    let is_plain = !random.is_empty() && random.bytes().all(|byte| byte.is_ascii_alphanumeric());
    generation.parse().ok().filter(|_| is_plain)
}

#[cfg(test)]
mod tests;
