//! How fast one lane of one agent goes: what it sent is paid for at the rates of its limits, and acknowledged when it is paid
//! for. A time for each rate says all of it.

use super::Limits;
use crate::clock::{MINUTE, Micros, SECOND};

/// What may come at once after a while of silence, so that an outage is made up for quickly.
const BURST: Micros = 10 * SECOND;
/// An acknowledgement never waits longer, whatever the limits and the clock of the host.
const LONGEST: Micros = MINUTE;
/// An agent that is slowed down again within this time is so in the same episode.
const EPISODE: Micros = 10 * MINUTE;

#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// When all records are paid for, and when all bytes are.
    records: Micros,
    bytes: Micros,
    /// When it was slowed down last.
    throttled: Option<Micros>,
}

impl Default for Pace {
    /// Of an agent that has sent nothing for long.
    fn default() -> Self {
        Self {
            records: Micros::MIN,
            bytes: Micros::MIN,
            throttled: None,
        }
    }
}

impl Pace {
    /// When it is paid for.
    pub(super) fn spend(&mut self, limits: &Limits, bytes: u64, records: u64, now: Micros) -> Micros {
        let (records, bytes) = self.after(limits, bytes, records, now);
        self.records = records.min(now + LONGEST);
        self.bytes = bytes.min(now + LONGEST);
        self.due()
    }

    /// Whether the agent would owe more than it is ever made to wait for.
    pub(super) fn is_beyond(&self, limits: &Limits, bytes: u64, records: u64, now: Micros) -> bool {
        let (records, bytes) = self.after(limits, bytes, records, now);
        records.max(bytes) > now + LONGEST
    }

    fn after(&self, limits: &Limits, bytes: u64, records: u64, now: Micros) -> (Micros, Micros) {
        let pay = |due: Micros, count: u64, per_second: u64| {
            let cost = count.saturating_mul(1_000_000) / per_second.max(1);
            due.max(now - BURST).saturating_add_unsigned(cost)
        };
        (
            pay(self.records, records, limits.agent_records_per_second),
            pay(self.bytes, bytes, limits.agent_bytes_per_second),
        )
    }

    /// What both owe, of two links of one agent.
    pub(super) fn merge(&mut self, other: &Self) {
        self.records = self.records.max(other.records);
        self.bytes = self.bytes.max(other.bytes);
        self.throttled = self.throttled.max(other.throttled);
    }

    pub(super) fn due(&self) -> Micros {
        self.records.max(self.bytes)
    }

    pub(super) fn throttled(&mut self, now: Micros) -> bool {
        let before = self.throttled.replace(now);
        before.is_none_or(|before| (now - before).abs() > EPISODE)
    }

    pub(super) fn was_used(&self) -> bool {
        self.due() > Micros::MIN
    }

    /// Whether it would be another pace for a link that begins now.
    pub(super) fn matters(&self, now: Micros) -> bool {
        self.due().saturating_add(BURST) > now || self.throttled.is_some_and(|throttled| now - throttled <= EPISODE)
    }
}
