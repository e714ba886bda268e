//! The records of one link that are not committed yet, lane by lane, against its windows, and what has to be sent again since
//! the disk had no room for it. Knows nothing of what is in them.

use muster_proto::v1::{self, Lane};
use prost::Message as _;

use super::{Close, Effect, Frame, protocol, send};
use crate::{
    disk::Level,
    ingest::{Done, SpoolId},
};

/// Bytes of records that an agent may have unacknowledged in a lane.
const WINDOW_BYTES: u64 = 1 << 20;
/// Records of one frame; an agent's frame of 64 KiB holds far fewer.
const MAX_RECORDS: usize = 8_192;
/// What a record counts in the window beside its bytes: an empty one is two bytes on the wire and hundreds in memory.
const RECORD_COST: u64 = 32;
const LANES: [Lane; 2] = [Lane::Results, Lane::Metrics];

#[derive(Debug, Default)]
pub(super) struct Intake {
    /// How full the disk is.
    room: Level,
    /// The agent has the capability "resend".
    resends: bool,
    results: OfLane,
    metrics: OfLane,
}

#[derive(Debug, Default)]
struct OfLane {
    unacked: u64,
    /// How often the agent was told to send again what is not acknowledged. What it sent before it heard of the last time is
    /// dropped, or records would be stored that others come before.
    resends: u32,
    /// Bytes that were dropped since.
    dropped: u64,
}

impl Intake {
    pub fn new(room: Level, resends: bool) -> Self {
        Self {
            room,
            resends,
            ..Self::default()
        }
    }

    pub fn windows(&self) -> Vec<v1::LaneWindow> {
        let window = |lane: Lane| v1::LaneWindow {
            lane: lane.into(),
            window_bytes: self.window(lane),
        };
        LANES.map(window).into()
    }

    pub fn records(&mut self, records: v1::Records) -> Vec<Effect> {
        let lane = records.lane();
        if !LANES.contains(&lane) {
            return protocol("records of a lane that does not exist");
        }
        let Ok(spool) = records.spool_id.parse::<SpoolId>() else {
            return protocol("records without a valid spool id");
        };
        if records.records.is_empty() {
            return Vec::new();
        }
        if records.first_seq == 0 || records.first_seq.checked_add(records.records.len() as u64).is_none() {
            return protocol("sequence numbers are from 1 to 2^64 - 1");
        }
        if records.records.len() > MAX_RECORDS {
            return protocol(&format!("more than {MAX_RECORDS} records in one frame"));
        }
        let bytes = records.encoded_len() as u64 + RECORD_COST * records.records.len() as u64;
        let is_open = self.room.takes(lane);
        let of = self.of(lane);
        if records.resends < of.resends {
            of.dropped += bytes;
            if of.dropped > 3 * WINDOW_BYTES {
                return protocol("more records than the window allows");
            }
            return Vec::new();
        }
        if records.resends > of.resends {
            return protocol("records are sent again that nobody has asked for again");
        }
        // A frame may lie over the edge of the window, but not windows of them.
        if !is_open || of.unacked > 2 * WINDOW_BYTES {
            return protocol("more records than the window allows");
        }
        of.unacked += bytes;
        vec![Effect::Ingest {
            lane,
            spool,
            first_seq: records.first_seq,
            records: records.records,
            bytes,
            resends: records.resends,
        }]
    }

    pub fn committed(&mut self, lane: Lane, spool: &SpoolId, bytes: u64, done: Done) -> Vec<Effect> {
        self.free(lane, bytes);
        vec![self.ack(
            lane,
            v1::Ack {
                spool_id: spool.to_string(),
                through_seq: done.through_seq,
                rejected: done.rejected,
                ..v1::Ack::default()
            },
        )]
    }

    /// There was no room for records that were sent after the agent was told to send again so often.
    pub fn not_taken(&mut self, lane: Lane, bytes: u64, resends: u32) -> Vec<Effect> {
        self.free(lane, bytes);
        // Those that were under way with them are sent again just as well.
        match self.of(lane).resends == resends {
            true => self.again(lane),
            false => Vec::new(),
        }
    }

    /// The disk has become fuller or emptier.
    pub fn room(&mut self, room: Level) -> Vec<Effect> {
        let before = std::mem::replace(&mut self.room, room);
        let mut effects = Vec::new();
        for lane in LANES {
            match (before.takes(lane), room.takes(lane)) {
                (true, false) => effects.extend(self.again(lane)),
                (false, true) if self.resends => effects.push(self.ack(lane, v1::Ack::default())),
                (false, true) => effects.push(Effect::Close(Close::StoreFailed)),
                _ => {}
            }
        }
        effects
    }

    /// All that is not acknowledged shall be sent again, as soon as the window is open. Who does not know how, connects again.
    fn again(&mut self, lane: Lane) -> Vec<Effect> {
        if !self.resends {
            return vec![Effect::Close(Close::StoreFailed)];
        }
        let of = self.of(lane);
        of.resends += 1;
        of.dropped = 0;
        vec![self.ack(lane, v1::Ack::default())]
    }

    fn ack(&mut self, lane: Lane, ack: v1::Ack) -> Effect {
        let window_bytes = self.window(lane);
        send(Frame::Ack(v1::Ack {
            lane: lane.into(),
            window_bytes,
            resends: self.of(lane).resends,
            ..ack
        }))
    }

    fn window(&self, lane: Lane) -> u64 {
        if self.room.takes(lane) { WINDOW_BYTES } else { 0 }
    }

    fn free(&mut self, lane: Lane, bytes: u64) {
        let of = self.of(lane);
        of.unacked = of.unacked.saturating_sub(bytes);
    }

    fn of(&mut self, lane: Lane) -> &mut OfLane {
        match lane {
            Lane::Metrics => &mut self.metrics,
            Lane::Results | Lane::Unspecified => &mut self.results,
        }
    }
}
