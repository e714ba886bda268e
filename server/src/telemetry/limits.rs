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
    samples_refused: Counter,
    ingest_bytes: Gauge,
}

impl Metrics {
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            admitted: Counter::default(),
            turned_away: Counter::default(),
            throttled: Counters::default(),
            samples_refused: Counter::default(),
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
            "samples_refused",
            "Samples that were not stored, since their agents had more new series than limits.agent_new_series_per_minute",
            metrics.samples_refused.clone(),
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

    /// Samples of new series beyond an agent's limit.
    pub fn samples_refused(&self, count: u64) {
        self.0.limits.samples_refused.inc_by(count);
    }

    pub fn ingest_bytes(&self, held: u64) {
        self.0.limits.ingest_bytes.set(i64::try_from(held).unwrap_or(i64::MAX));
    }
}
