//! One lane on one connection: what is on its way, and what the window still has room for. What waits is the queue's.

use std::collections::VecDeque;

use muster_proto::v1::{self, connect_request::Frame};

use super::super::queue::Lanes;

/// Records in one frame, so that the frame stays within 64 KiB with all that is around them.
const BATCH_BYTES: usize = 64 * 1024 - 256;

#[derive(Debug, Default)]
pub(super) struct Flow {
    pub window: u64,
    /// The last sequence number that was sent, or found acknowledged, on this connection.
    pub through: u64,
    /// The frames not yet acknowledged: last sequence number, bytes.
    in_flight: VecDeque<(u64, usize)>,
    in_flight_bytes: usize,
}

impl Flow {
    /// The next records that the window has room for. A window above zero always has room for one record when nothing is
    /// on its way, or a record larger than the window would stay for ever.
    pub fn next(&mut self, lane: v1::Lane, lanes: &mut Lanes) -> Option<Frame> {
        let room = usize::try_from(self.window)
            .unwrap_or(usize::MAX)
            .saturating_sub(self.in_flight_bytes);
        let first = lanes.lane(lane).next_size(self.through)?;
        if self.window == 0 || (first > room && !self.in_flight.is_empty()) {
            return None;
        }
        let batch = lanes.lane_mut(lane).take_batch(self.through, room.min(BATCH_BYTES))?;
        self.through = batch.last_seq;
        self.in_flight.push_back((batch.last_seq, batch.bytes));
        self.in_flight_bytes += batch.bytes;
        Some(Frame::Records(v1::Records {
            lane: lane.into(),
            spool_id: lanes.spool_id().to_owned(),
            first_seq: batch.first_seq,
            records: batch.records,
        }))
    }

    pub fn acked(&mut self, through: u64) {
        while let Some((_, bytes)) = self.in_flight.pop_front_if(|(last, _)| *last <= through) {
            self.in_flight_bytes -= bytes;
        }
    }
}
