//! The records of one link that are not acknowledged yet, lane by lane: what the windows allow, when an acknowledgement may go,
//! and what has to be sent again since the disk had no room for it. Knows nothing of what is in records; how much there is for
//! everybody is in `ingest::quotas`.

use std::collections::VecDeque;

use muster_proto::v1::{self, Lane, LaneWindow};
use prost::Message as _;

use super::{Close, Effect, Frame, Received, send};
use crate::{
    clock::{MINUTE, Micros, SECOND},
    disk::Level,
    ingest::{Done, LANES, Share, SpoolId, lane_index},
};

/// Records of one frame; an agent's frame of 64 KiB holds far fewer.
const MAX_RECORDS: usize = 8_192;
/// What a record counts in the window beside its bytes, as agents count it.
const RECORD_OVERHEAD: u64 = 4;
/// How long a window that was taken back may still be used: by what was on its way.
const LINGERS: Micros = 2 * MINUTE;
/// Acknowledgements that wait for times closer than this go together.
const TOGETHER: Micros = SECOND / 10;
/// Records that are older than this when they come have waited with the agent; not behind a link that was cut for a moment.
const WAITED: Micros = MINUTE;
/// Spools of which that is remembered: an agent sends two at a time.
const MAX_WAITED: usize = 4;

#[derive(Debug)]
pub(super) struct Intake {
    share: Share,
    /// How full the disk is.
    room: Level,
    /// The agent has the capability "resend".
    resends: bool,
    lanes: [OfLane; LANES.len()],
}

#[derive(Debug, Default)]
struct OfLane {
    /// As the agent was told last; 0 is told when the disk has no room, and is not among these.
    window: u64,
    /// The larger one before, until it lingers no longer.
    before: (u64, Micros),
    /// Came and was not acknowledged.
    unacked: u64,
    /// The most of it since the window was given.
    peak: u64,
    /// When what came may be acknowledged: of frames in the order in which they came.
    paid: VecDeque<Micros>,
    /// Committed, but not paid for yet.
    waiting: VecDeque<Waiting>,
    /// How often the agent was told to send again what is not acknowledged. What it sent before it heard of the last time is
    /// dropped, or records would be stored that others come before.
    resends: u32,
    /// Bytes that were dropped since.
    dropped: u64,
    /// Spools that records have waited in, as long as anything is under way: what comes after those must not overtake them.
    waited: Vec<SpoolId>,
}

#[derive(Debug)]
struct Waiting {
    /// Of the first and of the last that go with it.
    from: Micros,
    due: Micros,
    bytes: u64,
    spool: SpoolId,
    done: Done,
}

impl Intake {
    pub fn new(share: Share) -> Self {
        Self {
            share,
            room: Level::Ample,
            resends: false,
            lanes: Default::default(),
        }
    }

    /// What is known of the agent and the disk when the link becomes active; the windows for Welcome.
    pub fn begin(&mut self, room: Level, resends: bool, now: Micros) -> Vec<LaneWindow> {
        self.room = room;
        self.resends = resends;
        let window = |lane: Lane| LaneWindow {
            lane: lane.into(),
            window_bytes: self.window(lane, now),
        };
        LANES.map(window).into()
    }

    pub fn records(&mut self, records: v1::Records, now: Micros) -> Result<Option<Effect>, Close> {
        let protocol = |what: &str| Err(Close::Protocol(what.to_owned()));
        let lane = records.lane();
        if !LANES.contains(&lane) {
            return protocol("records of a lane that does not exist");
        }
        let Ok(spool) = records.spool_id.parse::<SpoolId>() else {
            return protocol("records without a valid spool id");
        };
        let count = records.records.len();
        if count == 0 {
            return Ok(None);
        }
        if records.first_seq == 0 || records.first_seq.checked_add(count as u64).is_none() {
            return protocol("sequence numbers are from 1 to 2^64 - 1");
        }
        if count > MAX_RECORDS {
            return protocol(&format!("more than {MAX_RECORDS} records in one frame"));
        }
        let each = |record: &v1::Record| record.encoded_len() as u64 + RECORD_OVERHEAD;
        let bytes = records.records.iter().map(each).sum();
        let of = &mut self.lanes[lane_index(lane)];
        let largest = of.largest(now);
        if records.resends < of.resends {
            if of.dropped > 3 * largest {
                return protocol("more records than the window allows");
            }
            of.dropped += bytes;
            return Ok(None);
        }
        if records.resends > of.resends {
            return protocol("records are sent again that nobody has asked for again");
        }
        // A frame may lie over the edge of the window, but not windows of them.
        if !self.room.takes(lane) || of.unacked > 2 * largest {
            return protocol("more records than the window allows");
        }
        let Some(held) = self.share.hold(bytes, count) else {
            return Err(Close::Overloaded);
        };
        let Some(paid) = self.share.spend(lane, bytes, count, now) else {
            return Err(Close::Overloaded);
        };
        let first_at = records.records.first().map_or(now, |record| record.time_unix_micros);
        let has_waited = of.has_waited(&spool, now.saturating_sub(first_at));
        of.unacked += bytes;
        of.peak = of.peak.max(of.unacked);
        of.paid.push_back(paid);
        Ok(Some(Effect::Ingest(Box::new(Received {
            lane,
            spool,
            first_seq: records.first_seq,
            records: records.records,
            bytes,
            has_waited,
            resends: records.resends,
            held,
        }))))
    }

    /// A frame is committed. What may be acknowledged at once is.
    pub fn committed(&mut self, lane: Lane, spool: SpoolId, bytes: u64, done: Done, now: Micros) -> Vec<Effect> {
        let of = &mut self.lanes[lane_index(lane)];
        let due = of.paid.pop_front().unwrap_or(now);
        match of.waiting.back_mut() {
            Some(last) if last.spool == spool && due - last.from < TOGETHER => {
                last.due = due;
                last.bytes += bytes;
                last.done.through_seq = last.done.through_seq.max(done.through_seq);
                last.done.rejected.extend(done.rejected);
            }
            _ => of.waiting.push_back(Waiting {
                from: due,
                due,
                bytes,
                spool,
                done,
            }),
        }
        let mut effects = self.acknowledge(now);
        if due > now && self.share.throttled(lane, now) {
            effects.push(Effect::Throttled(lane));
        }
        effects
    }

    /// What has been paid for meanwhile.
    pub fn acknowledge(&mut self, now: Micros) -> Vec<Effect> {
        let mut effects = Vec::new();
        for lane in LANES {
            while let Some(ready) = self.lanes[lane_index(lane)].ready(now) {
                effects.push(self.ack(lane, ready.into(), now));
            }
        }
        effects
    }

    /// Takes back what was lent to lanes that have nothing under way since they were told their window.
    pub fn take_back(&mut self, now: Micros) -> Vec<Effect> {
        let mut effects = Vec::new();
        for lane in LANES {
            let is_idle = self.lanes[lane_index(lane)].peak == 0;
            // Of an acknowledgement of nothing others take no notice.
            if is_idle && self.resends && self.room.takes(lane) && self.share.has_lent(lane) {
                effects.push(self.ack(lane, v1::Ack::default(), now));
            }
        }
        effects
    }

    /// When to come back to [`Self::acknowledge`].
    pub fn deadline(&self) -> Option<Micros> {
        let due = |of: &OfLane| of.waiting.front().map(|waiting| waiting.due);
        self.lanes.iter().filter_map(due).min()
    }

    /// There was no room for records that were sent after the agent was told to send again so often.
    pub fn not_taken(&mut self, lane: Lane, bytes: u64, resends: u32, now: Micros) -> Vec<Effect> {
        let of = &mut self.lanes[lane_index(lane)];
        of.paid.pop_front();
        of.unacked = of.unacked.saturating_sub(bytes);
        // Those that were under way with them are sent again just as well.
        match of.resends == resends {
            true => self.again(lane, now),
            false => Vec::new(),
        }
    }

    /// The disk has become fuller or emptier.
    pub fn room(&mut self, room: Level, now: Micros) -> Vec<Effect> {
        let before = std::mem::replace(&mut self.room, room);
        let mut effects = Vec::new();
        for lane in LANES {
            match (before.takes(lane), room.takes(lane)) {
                (true, false) => effects.extend(self.again(lane, now)),
                (false, true) if self.resends => effects.push(self.ack(lane, v1::Ack::default(), now)),
                (false, true) => effects.push(Effect::Close(Close::StoreFailed)),
                _ => {}
            }
        }
        effects
    }

    /// All that is not acknowledged shall be sent again, as soon as the window is open. Who does not know how, connects again.
    /// What is stored need not be sent again for having to wait.
    fn again(&mut self, lane: Lane, now: Micros) -> Vec<Effect> {
        if !self.resends {
            return vec![Effect::Close(Close::StoreFailed)];
        }
        let of = &mut self.lanes[lane_index(lane)];
        let stored: Vec<Waiting> = of.waiting.drain(..).collect();
        of.unacked = of
            .unacked
            .saturating_sub(stored.iter().map(|waiting| waiting.bytes).sum());
        let mut effects: Vec<Effect> = stored
            .into_iter()
            .map(|waiting| self.ack(lane, waiting.into(), now))
            .collect();
        let of = &mut self.lanes[lane_index(lane)];
        of.resends += 1;
        of.dropped = 0;
        effects.push(self.ack(lane, v1::Ack::default(), now));
        effects
    }

    fn ack(&mut self, lane: Lane, ack: v1::Ack, now: Micros) -> Effect {
        let window_bytes = self.window(lane, now);
        send(Frame::Ack(v1::Ack {
            lane: lane.into(),
            window_bytes,
            resends: self.lanes[lane_index(lane)].resends,
            ..ack
        }))
    }

    fn window(&mut self, lane: Lane, now: Micros) -> u64 {
        if !self.room.takes(lane) {
            return 0;
        }
        let of = &mut self.lanes[lane_index(lane)];
        let window = self.share.window(lane, of.window, of.peak, now);
        if window < of.window && of.window >= of.largest_before(now) {
            of.before = (of.window, now + LINGERS);
        }
        of.window = window;
        of.peak = of.unacked;
        window
    }
}

impl From<Waiting> for v1::Ack {
    fn from(waiting: Waiting) -> Self {
        Self {
            spool_id: waiting.spool.to_string(),
            through_seq: waiting.done.through_seq,
            rejected: waiting.done.rejected,
            ..Self::default()
        }
    }
}

impl OfLane {
    /// The next that may be acknowledged, which is then no longer under way. A clock that was set back keeps nobody waiting.
    fn ready(&mut self, now: Micros) -> Option<Waiting> {
        let first = self.waiting.front()?;
        if first.due > now && first.due - now <= MINUTE {
            return None;
        }
        let ready = self.waiting.pop_front()?;
        self.unacked = self.unacked.saturating_sub(ready.bytes);
        Some(ready)
    }

    /// Whether a frame of this spool, whose first record is so old, goes behind what is new.
    fn has_waited(&mut self, spool: &SpoolId, age: Micros) -> bool {
        if self.unacked == 0 {
            self.waited.clear();
        }
        let is_known = self.waited.len() >= MAX_WAITED || self.waited.contains(spool);
        if !is_known && age > WAITED {
            self.waited.push(spool.clone());
        }
        is_known || age > WAITED
    }

    fn largest(&self, now: Micros) -> u64 {
        self.window.max(self.largest_before(now))
    }

    fn largest_before(&self, now: Micros) -> u64 {
        let (window, until) = self.before;
        if now < until { window } else { 0 }
    }
}
