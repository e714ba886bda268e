//! What the agent measures of itself, beside what it measures of the machine: how its certificate stands, what waits in its
//! queues and what became of the rest.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::{
    collect::Families,
    identity::Holder,
    link::queue::{Lanes, Queue, lane_name},
    logs::OwnLog,
};

pub(super) fn families(identity: &Holder, queue: &Queue, log: &OwnLog) -> Families {
    let now = SystemTime::now();
    let mut families = certificate(identity.current().expires(), identity.is_behind(now));
    queues(&queue.lock(), &mut families);
    families.counter("muster_agent_log_lines_dropped_total", &[], log.dropped() as f64);
    families
}

fn queues(lanes: &Lanes, families: &mut Families) {
    for lane in Lanes::ALL {
        let depth = lanes.lane(lane).depth(0);
        let labels = [("lane", lane_name(lane))];
        families.gauge("muster_agent_queue_records", &labels, depth.records as f64);
        families.gauge("muster_agent_queue_bytes", &labels, depth.bytes as f64);
        for (name, count) in [
            ("muster_agent_queue_acknowledged_total", depth.acknowledged),
            ("muster_agent_queue_dropped_total", depth.dropped),
            ("muster_agent_queue_rejected_total", depth.rejected),
        ] {
            families.counter(name, &labels, count as f64);
        }
    }
}

fn certificate(expires: SystemTime, is_behind: bool) -> Families {
    let expires = expires.duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut families = Families::default();
    families.gauge(
        "muster_agent_certificate_not_after_timestamp_seconds",
        &[],
        expires.as_secs_f64(),
    );
    families.gauge(
        "muster_agent_certificate_renewal_behind",
        &[],
        f64::from(u8::from(is_behind)),
    );
    families
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_end_of_the_certificate_is_told_in_seconds_and_that_it_is_late_as_one() {
        let values = |is_behind| {
            let families = certificate(UNIX_EPOCH + Duration::from_secs(1_800_000_000), is_behind);
            let values: Vec<(String, f64)> = families
                .iter()
                .map(|family| (family.name.clone(), family.samples[0].value))
                .collect();
            values
        };
        let (end, behind) = (
            "muster_agent_certificate_not_after_timestamp_seconds",
            "muster_agent_certificate_renewal_behind",
        );
        assert_eq!(
            values(false),
            [(end.to_owned(), 1_800_000_000.0), (behind.to_owned(), 0.0)]
        );
        assert_eq!(values(true)[1], (behind.to_owned(), 1.0));
    }
}
