//! What is shown of the links: how many there are in which state, how they end, and what waits at the agents by their own
//! word. The last is added up when somebody looks.

use std::sync::atomic::AtomicU64;

use prometheus_client::{metrics::gauge::Gauge, registry::Registry};

use super::{Counters, Gauges, Telemetry};
use crate::agents::Links;

#[derive(Debug)]
pub(super) struct Metrics {
    open: Gauge,
    states: Gauges<1>,
    ended: Counters<1>,
    stalled: Gauge,
    queue_records: Gauges<1>,
    queue_bytes: Gauges<1>,
    queue_dropped: Gauges<1>,
    queue_age: Gauge<f64, AtomicU64>,
    draining: Gauge,
    active: Gauge,
}

impl Metrics {
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            open: Gauge::default(),
            states: Gauges::default(),
            ended: Counters::default(),
            stalled: Gauge::default(),
            queue_records: Gauges::default(),
            queue_bytes: Gauges::default(),
            queue_dropped: Gauges::default(),
            queue_age: Gauge::default(),
            draining: Gauge::default(),
            active: Gauge::default(),
        };
        registry.register("links", "Agents that hold a link now", metrics.open.clone());
        registry.register(
            "link_states",
            "Links by state: active, silent (nothing is heard), leaving (told to go elsewhere)",
            metrics.states.clone(),
        );
        registry.register("links_ended", "Links that have ended, by reason", metrics.ended.clone());
        registry.register(
            "links_stalled",
            "Links whose agents have records waiting of which none was acknowledged for five minutes",
            metrics.stalled.clone(),
        );
        registry.register(
            "agent_queue_records",
            "Records that wait at connected agents, by their last heartbeats",
            metrics.queue_records.clone(),
        );
        registry.register(
            "agent_queue_bytes",
            "Bytes of these records",
            metrics.queue_bytes.clone(),
        );
        registry.register(
            "agent_queue_dropped",
            "Records that connected agents have given up since their start",
            metrics.queue_dropped.clone(),
        );
        registry.register(
            "agent_queue_oldest_age_seconds",
            "Age of the oldest record that waits at a connected agent",
            metrics.queue_age.clone(),
        );
        registry.register(
            "draining",
            "Whether links are sent away and no new ones are taken",
            metrics.draining.clone(),
        );
        registry.register(
            "active",
            "Whether this controller holds the lease of its database",
            metrics.active.clone(),
        );
        metrics
    }
}

impl Telemetry {
    pub fn link_opened(&self) {
        self.0.links.open.inc();
    }

    /// `reason` is a word of `liveness`.
    pub fn link_closed(&self, reason: &'static str) {
        self.0.links.open.dec();
        self.0.links.ended.get_or_create(&[("reason", reason)]).inc();
    }

    /// What is known of all links now.
    pub fn links(&self, links: &Links) {
        let metrics = &self.0.links;
        let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        for (state, count) in [
            ("active", links.active),
            ("silent", links.silent),
            ("leaving", links.leaving),
        ] {
            metrics
                .states
                .get_or_create(&[("state", state)])
                .set(number(count as u64));
        }
        metrics.stalled.set(number(links.stalled as u64));
        let mut oldest = 0;
        for (lane, queue) in &links.queues {
            let lane = [("lane", *lane)];
            metrics.queue_records.get_or_create(&lane).set(number(queue.records));
            metrics.queue_bytes.get_or_create(&lane).set(number(queue.bytes));
            metrics.queue_dropped.get_or_create(&lane).set(number(queue.dropped));
            oldest = oldest.max(queue.oldest_age);
        }
        metrics.queue_age.set(oldest as f64 / 1e6);
    }

    pub fn draining(&self, is_so: bool) {
        self.0.links.draining.set(is_so.into());
    }

    pub fn active(&self, is_so: bool) {
        self.0.links.active.set(is_so.into());
    }
}
