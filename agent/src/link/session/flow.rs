//! One lane on one connection: what is on its way, and what the window still has room for. What waits is the queue's.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use muster_proto::v1::{self, connect_request::Frame};

use super::super::queue::Lanes;

/// Records in one frame, so that it stays within 8 KiB with all that is around them: the controller keeps a buffer for each
/// link that is as large as the largest frame that ever came. A record larger than that goes alone.
const BATCH_BYTES: usize = 8 * 1024 - 256;

/// After an acknowledgement of what waited comes a pause that is so many times as long as the acknowledgement took. A fleet that
/// comes back from an outage waits in its queues then and not in those of a network and a controller that are busy with it.
const PAUSE: u32 = 4;
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(super) struct Flow {
    pub window: u64,
    /// How often the controller has given up what was on its way.
    resends: u32,
    /// Of each spool, the last sequence number that was sent, or found acknowledged, on this connection.
    through: BTreeMap<Arc<str>, u64>,
    /// The frames not yet acknowledged.
    in_flight: VecDeque<InFlight>,
    /// What waited goes on then.
    pause: Option<Instant>,
}

#[derive(Debug)]
struct InFlight {
    spool: Arc<str>,
    last_seq: u64,
    bytes: usize,
    /// When, if it is of what waited.
    waited_until: Option<Instant>,
}

impl Flow {
    /// The next records that the window has room for: what is recorded now, and what waits from before with up to half of the
    /// window, so that it does not hold up the other. Of spools from before one goes at a time, so that however many an agent
    /// has, the controller need not know more than that one and the one that grows. A window above zero always has room for
    /// one record when nothing is on its way, or a record larger than the window would stay for ever; and for one that is
    /// recorded now beside what waited, or that would be in its way after all.
    pub fn next(&mut self, lane: v1::Lane, lanes: &mut Lanes, now: Instant) -> Option<Frame> {
        if self.window == 0 {
            return None;
        }
        let window = usize::try_from(self.window).unwrap_or(usize::MAX);
        let lane_of = lanes.lane_mut(lane);
        let spools: Vec<Arc<str>> = lane_of.spools().take(2).map(|spool| spool.id().clone()).collect();
        for (index, spool) in spools.into_iter().enumerate() {
            let has_waited = index > 0;
            if has_waited && self.pause.is_some_and(|until| until > now) {
                return None;
            }
            let through = self.through.get(&spool).copied().unwrap_or(0);
            let Some(first) = lane_of.next_size(&spool, through) else {
                continue;
            };
            let on_way = self.bytes(|_| true);
            let from_before = self.bytes(|it| &*it.spool != lane_of.live_id());
            let room = window.saturating_sub(on_way);
            let (room, may_exceed) = match has_waited {
                true => (room.min((window / 2).saturating_sub(from_before)), on_way == 0),
                // The controller takes what comes as long as no more than two windows are on their way.
                false => (room, on_way == from_before && on_way <= 2 * window),
            };
            if first > room && !may_exceed {
                return None;
            }
            let batch = lane_of.take_batch(&spool, through, room.min(BATCH_BYTES))?;
            self.through.insert(spool.clone(), batch.last_seq);
            self.in_flight.push_back(InFlight {
                spool: spool.clone(),
                last_seq: batch.last_seq,
                bytes: batch.bytes,
                waited_until: has_waited.then_some(now),
            });
            return Some(Frame::Records(v1::Records {
                lane: lane.into(),
                spool_id: spool.to_string(),
                first_seq: batch.first_seq,
                records: batch.records,
                resends: self.resends,
            }));
        }
        None
    }

    pub fn acked(&mut self, spool: &str, through: u64, now: Instant) {
        let is_acked = |it: &InFlight| &*it.spool == spool && it.last_seq <= through;
        let sent_at = self
            .in_flight
            .iter()
            .filter(|it| is_acked(it))
            .find_map(|it| it.waited_until);
        if let Some(sent_at) = sent_at {
            let took = now.saturating_duration_since(sent_at);
            self.pause = Some(now + took.saturating_mul(PAUSE).min(LONGEST_PAUSE));
        }
        self.in_flight.retain(|it| !is_acked(it));
    }

    /// When there is something to send again that is held back now.
    pub fn deadline(&self) -> Option<Instant> {
        self.pause
    }

    pub fn tick(&mut self, now: Instant) {
        self.pause = self.pause.filter(|until| *until > now);
    }

    /// The controller had no room for what was on its way: all that is not acknowledged is sent again, as soon as the window
    /// is open.
    pub fn given_up(&mut self, resends: u32) {
        if resends > self.resends {
            self.resends = resends;
            self.in_flight.clear();
            self.through.clear();
        }
    }

    /// Whether records of this spool went out on this connection.
    pub fn knows(&self, spool: &str) -> bool {
        self.through.contains_key(spool)
    }

    /// On the way.
    fn bytes(&self, which: impl Fn(&InFlight) -> bool) -> usize {
        self.in_flight.iter().filter(|it| which(it)).map(|it| it.bytes).sum()
    }
}
