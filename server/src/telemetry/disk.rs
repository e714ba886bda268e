//! What `/metrics` says of the controller's disk.

use std::sync::atomic::AtomicU64;

use muster_proto::v1::Lane;
use prometheus_client::{
    metrics::gauge::Gauge,
    registry::{Registry, Unit},
};

use super::{Gauges as Family, Telemetry};
use crate::{disk::Space, ingest::lane_name};

#[derive(Debug)]
pub(super) struct Gauges {
    free: Gauge,
    size: Gauge,
    ratio: Gauge<f64, AtomicU64>,
    ballast: Gauge,
    refused: Family<1>,
}

impl Gauges {
    pub fn register(registry: &mut Registry) -> Self {
        let gauges = Self {
            free: Gauge::default(),
            size: Gauge::default(),
            ratio: Gauge::default(),
            ballast: Gauge::default(),
            refused: Family::default(),
        };
        let mut bytes = |name: &str, help: &str, gauge: &Gauge| {
            registry.register_with_unit(name, help, Unit::Bytes, gauge.clone());
        };
        bytes(
            "disk_free",
            "Free on the file system of the data directory",
            &gauges.free,
        );
        bytes(
            "disk_size",
            "Size of the file system of the data directory",
            &gauges.size,
        );
        bytes(
            "disk_ballast",
            "Set aside for operators' changes on a full disk; 0: given to them, or none is configured",
            &gauges.ballast,
        );
        registry.register(
            "disk_free_ratio",
            "Free part of the file system of the data directory, from 0 to 1",
            gauges.ratio.clone(),
        );
        registry.register(
            "lane_refused",
            "1: records of the lane are not taken of agents, since the disk is too full",
            gauges.refused.clone(),
        );
        gauges
    }
}

impl Telemetry {
    pub fn disk(&self, space: Space, ballast: u64) {
        let number = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let gauges = &self.0.disk;
        gauges.free.set(number(space.free));
        gauges.size.set(number(space.size));
        gauges.ratio.set(space.ratio());
        gauges.ballast.set(number(ballast));
    }

    pub fn lane_refused(&self, lane: Lane, is_refused: bool) {
        let gauge = self.0.disk.refused.get_or_create(&[("lane", lane_name(lane))]);
        gauge.set(i64::from(is_refused));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_room_ballast_and_refused_lanes_are_shown() {
        let telemetry = Telemetry::new();
        telemetry.disk(Space { size: 400, free: 100 }, 7);
        telemetry.lane_refused(Lane::Metrics, true);
        telemetry.lane_refused(Lane::Results, false);
        let text = telemetry.render();
        for line in [
            "muster_controller_disk_free_bytes 100",
            "muster_controller_disk_size_bytes 400",
            "muster_controller_disk_free_ratio 0.25",
            "muster_controller_disk_ballast_bytes 7",
            "muster_controller_lane_refused{lane=\"metrics\"} 1",
            "muster_controller_lane_refused{lane=\"results\"} 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing from\n{text}");
        }
    }
}
