//! What is shown of the limits: links that were turned away, agents that were slowed down, what waits to be stored.

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

use super::{Counters, Telemetry};

#[derive(Debug)]
pub(super) struct Metrics {
    admitted: Counter,
    turned_away: Counter,
    throttled: Counters<1>,
    ingest_bytes: Gauge,
}

impl Metrics {
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            admitted: Counter::default(),
            turned_away: Counter::default(),
            throttled: Counters::default(),
            ingest_bytes: Gauge::default(),
        };
        registry.register("links_admitted", "Links that were let in", metrics.admitted.clone());
        registry.register(
            "links_turned_away",
            "Links that were told to come later, since too many began at once",
            metrics.turned_away.clone(),
        );
        registry.register(
            "agents_throttled",
            "Times that an agent was slowed down, since it sent more than its limits",
            metrics.throttled.clone(),
        );
        registry.register(
            "ingest_bytes",
            "Bytes of records that were received and are not stored yet, against limits.ingest_bytes",
            metrics.ingest_bytes.clone(),
        );
        metrics
    }
}

impl Telemetry {
    pub fn link_admitted(&self) {
        self.0.limits.admitted.inc();
    }

    pub fn link_turned_away(&self) {
        self.0.limits.turned_away.inc();
    }

    pub fn throttled(&self, lane: &'static str) {
        self.0.limits.throttled.get_or_create(&[("lane", lane)]).inc();
    }

    pub fn ingest_bytes(&self, held: u64) {
        self.0.limits.ingest_bytes.set(i64::try_from(held).unwrap_or(i64::MAX));
    }
}
