//! The records that the controller has not acknowledged yet: one bounded queue in memory for each lane, drop-oldest, with
//! counters that a user can see. Knows nothing of connections; what is on its way is the session's business.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use muster_proto::v1;
use prost::Message as _;
use tokio::sync::Notify;

/// The largest record there may be.
const RECORD_BYTES: usize = 256 * 1024;

/// What a record costs in a frame beside itself: its tag and its length.
const RECORD_OVERHEAD: usize = 4;

/// How much a lane may hold before its oldest records are dropped.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub bytes: usize,
    pub records: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes: 8 * 1024 * 1024,
            records: 65_536,
        }
    }
}

/// Where the agent's parts leave what they have to report. Cheap to clone, never blocks.
#[derive(Debug, Clone)]
pub struct Recorder(Arc<Shared>);

/// The link's end of the queue.
#[derive(Debug)]
pub struct Queue(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    lanes: Mutex<Lanes>,
    waiting: Notify,
}

impl Recorder {
    /// Puts a record at the end of its lane. When the lane is full its oldest records are dropped and counted.
    pub fn record(&self, lane: v1::Lane, record: v1::Record) {
        self.0.lock().lane_mut(lane).push(&record, Instant::now());
        self.0.waiting.notify_one();
    }
}

impl Queue {
    /// `spool_id` must never have been used before: it is what makes a sequence number unique.
    pub fn new(spool_id: String, limits: Limits) -> Self {
        let lanes = Mutex::new(Lanes::new(spool_id, limits));
        Self(Arc::new(Shared {
            lanes,
            waiting: Notify::new(),
        }))
    }

    pub fn recorder(&self) -> Recorder {
        Recorder(self.0.clone())
    }

    /// The lanes themselves; hold them for a moment only.
    pub fn lock(&self) -> MutexGuard<'_, Lanes> {
        self.0.lock()
    }

    /// Returns when a record has come since the last call.
    pub async fn recorded(&self) {
        self.0.waiting.notified().await;
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Both lanes, under one spool id.
#[derive(Debug)]
pub struct Lanes {
    spool_id: String,
    results: Lane,
    metrics: Lane,
}

impl Lanes {
    /// In order of priority.
    pub const ALL: [v1::Lane; 2] = [v1::Lane::Results, v1::Lane::Metrics];

    pub fn new(spool_id: String, limits: Limits) -> Self {
        Self {
            spool_id,
            results: Lane::new(limits),
            metrics: Lane::new(limits),
        }
    }

    pub fn spool_id(&self) -> &str {
        &self.spool_id
    }

    /// Goes on under a new spool id: what is not acknowledged is numbered from 1 again.
    pub fn start_spool(&mut self, spool_id: String) {
        self.spool_id = spool_id;
        self.results.renumber();
        self.metrics.renumber();
    }

    pub fn lane(&self, lane: v1::Lane) -> &Lane {
        match lane {
            v1::Lane::Metrics => &self.metrics,
            v1::Lane::Results | v1::Lane::Unspecified => &self.results,
        }
    }

    pub fn lane_mut(&mut self, lane: v1::Lane) -> &mut Lane {
        match lane {
            v1::Lane::Metrics => &mut self.metrics,
            v1::Lane::Results | v1::Lane::Unspecified => &mut self.results,
        }
    }

    /// What Hello says of the queues.
    pub fn spools(&self) -> Vec<v1::SpoolState> {
        let state = |lane: v1::Lane| {
            let (first_seq, last_seq) = self.lane(lane).range().unwrap_or_default();
            v1::SpoolState {
                spool_id: self.spool_id.clone(),
                lane: lane.into(),
                first_seq,
                last_seq,
            }
        };
        Self::ALL.map(state).into()
    }
}

/// One lane. Sequence numbers start at 1 and are never given twice within a spool.
#[derive(Debug)]
pub struct Lane {
    limits: Limits,
    /// In order of `seq`.
    entries: VecDeque<Entry>,
    bytes: usize,
    next_seq: u64,
    /// The highest number that was ever in a frame.
    sent: u64,
    dropped: u64,
    rejected: u64,
    acknowledged: u64,
}

#[derive(Debug)]
struct Entry {
    seq: u64,
    /// Encoded, which takes a fraction of the memory of the message and is exactly what the limit speaks of.
    record: Box<[u8]>,
    recorded: Instant,
}

/// Consecutive records.
#[derive(Debug, PartialEq)]
pub struct Batch {
    pub first_seq: u64,
    pub last_seq: u64,
    pub bytes: usize,
    pub records: Vec<v1::Record>,
}

/// How full a lane is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depth {
    pub records: usize,
    pub bytes: usize,
    pub dropped: u64,
    pub rejected: u64,
    /// Records that the controller has taken or refused.
    pub acknowledged: u64,
    pub oldest_age: Duration,
}

/// An acknowledgement of what was never sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("records through {through} were acknowledged, but only {sent} were ever sent")]
pub struct NeverSent {
    pub through: u64,
    pub sent: u64,
}

impl Lane {
    fn new(limits: Limits) -> Self {
        Self {
            limits,
            entries: VecDeque::new(),
            bytes: 0,
            next_seq: 1,
            sent: 0,
            dropped: 0,
            rejected: 0,
            acknowledged: 0,
        }
    }

    /// A record that no frame could carry is dropped at once and takes no number.
    pub fn push(&mut self, record: &v1::Record, now: Instant) {
        let record = record.encode_to_vec().into_boxed_slice();
        let size = record.len() + RECORD_OVERHEAD;
        if record.len() > RECORD_BYTES || size > self.limits.bytes {
            self.dropped += 1;
            tracing::warn!(
                bytes = record.len(),
                "a record was dropped: it is larger than any record may be"
            );
            return;
        }
        while self.entries.len() >= self.limits.records || self.bytes + size > self.limits.bytes {
            let Some(oldest) = self.entries.pop_front() else { break };
            self.bytes -= oldest.size();
            self.dropped += 1;
        }
        self.bytes += size;
        self.entries.push_back(Entry {
            seq: self.next_seq,
            record,
            recorded: now,
        });
        self.next_seq += 1;
    }

    /// The records after `seq`, as many as follow each other without a gap and fit into `max_bytes`, but at least one.
    /// They count as sent.
    pub fn take_batch(&mut self, seq: u64, max_bytes: usize) -> Option<Batch> {
        let start = self.entries.partition_point(|entry| entry.seq <= seq);
        let first_seq = self.entries.get(start)?.seq;
        let mut batch = Batch {
            first_seq,
            last_seq: first_seq,
            bytes: 0,
            records: Vec::new(),
        };
        for (entry, expected) in self.entries.range(start..).zip(first_seq..) {
            let full = !batch.records.is_empty() && batch.bytes + entry.size() > max_bytes;
            if full || entry.seq != expected {
                break;
            }
            batch
                .records
                .push(v1::Record::decode(&*entry.record).unwrap_or_default());
            batch.bytes += entry.size();
            batch.last_seq = entry.seq;
        }
        self.sent = self.sent.max(batch.last_seq);
        Some(batch)
    }

    /// What the next record after `seq` would take of a window.
    pub fn next_size(&self, seq: u64) -> Option<usize> {
        let start = self.entries.partition_point(|entry| entry.seq <= seq);
        self.entries.get(start).map(Entry::size)
    }

    /// Forgets what the controller has stored. One that acknowledges more than was sent speaks of another queue than
    /// this, so nothing is forgotten.
    pub fn ack(&mut self, through: u64) -> Result<(), NeverSent> {
        if through > self.sent {
            return Err(NeverSent {
                through,
                sent: self.sent,
            });
        }
        while let Some(entry) = self.entries.pop_front_if(|entry| entry.seq <= through) {
            self.bytes -= entry.size();
            self.acknowledged += 1;
        }
        Ok(())
    }

    pub fn count_rejected(&mut self) {
        self.rejected += 1;
    }

    /// First and last sequence number not yet acknowledged.
    pub fn range(&self) -> Option<(u64, u64)> {
        Some((self.entries.front()?.seq, self.entries.back()?.seq))
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn depth(&self, now: Instant) -> Depth {
        let oldest_age = self
            .entries
            .front()
            .map(|entry| now.saturating_duration_since(entry.recorded));
        Depth {
            records: self.entries.len(),
            bytes: self.bytes,
            dropped: self.dropped,
            rejected: self.rejected,
            acknowledged: self.acknowledged,
            oldest_age: oldest_age.unwrap_or_default(),
        }
    }

    fn renumber(&mut self) {
        for (entry, seq) in self.entries.iter_mut().zip(1..) {
            entry.seq = seq;
        }
        self.next_seq = self.entries.len() as u64 + 1;
        self.sent = 0;
    }
}

impl Entry {
    fn size(&self) -> usize {
        self.record.len() + RECORD_OVERHEAD
    }
}

#[cfg(test)]
mod tests;
