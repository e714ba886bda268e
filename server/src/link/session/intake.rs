//! The records of one link that are not committed yet, lane by lane, against its windows. Knows nothing of what is in them.

use std::collections::BTreeMap;

use muster_proto::v1::{self, Lane};
use prost::Message as _;

use super::{Effect, protocol};
use crate::ingest::SpoolId;

/// Bytes of records that an agent may have unacknowledged in a lane.
pub(super) const WINDOW_BYTES: u64 = 1 << 20;
/// Records of one frame; an agent's frame of 64 KiB holds far fewer.
const MAX_RECORDS: usize = 8_192;
/// What a record counts in the window beside its bytes: an empty one is two bytes on the wire and hundreds in memory.
const RECORD_COST: u64 = 32;

#[derive(Debug, Default)]
pub(super) struct Intake {
    unacked: BTreeMap<i32, u64>,
}

impl Intake {
    pub fn records(&mut self, records: v1::Records) -> Vec<Effect> {
        let lane = records.lane();
        if !matches!(lane, Lane::Results | Lane::Metrics) {
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
        let unacked = self.unacked.entry(lane as i32).or_default();
        // A frame may lie over the edge of the window, but not windows of them.
        if *unacked > 2 * WINDOW_BYTES {
            return protocol("more records than the window allows");
        }
        *unacked += bytes;
        vec![Effect::Ingest {
            lane,
            spool,
            first_seq: records.first_seq,
            records: records.records,
            bytes,
        }]
    }

    pub fn committed(&mut self, lane: Lane, bytes: u64) {
        let unacked = self.unacked.entry(lane as i32).or_default();
        *unacked = unacked.saturating_sub(bytes);
    }
}
