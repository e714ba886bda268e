//! Metrics of this machine under the names, labels and units of Prometheus' node_exporter, so that its dashboards and
//! rules work. One file for each collector; this one runs them, at the same pace, and hands on what they found.
//! Knows nothing of the link but where records go, and nothing of checks.
//!
//! A collector that hangs in the kernel or fails does not hold up the others: it is missing from that round, which
//! `node_scrape_collector_success` says, and is not started again before its call has returned.

pub mod cpu;
mod disk;
mod families;
mod filesystem;
mod kernel;
pub mod load;
mod md;
pub mod memory;
mod netstat;
mod network;
mod pressure;
mod sockets;
mod source;
pub mod uptime;

use std::time::{Duration, Instant, SystemTime};

use muster_proto::v1::{Lane, Record, record};
use tokio::sync::oneshot;
use tokio::time::{self, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::warn;

pub use families::Families;
pub use source::Error;

use crate::link::queue::Recorder;
use crate::{clock, detached, splay};

/// The label `job` of what is measured of the machine, and of what the agent measures of itself.
const JOB: &str = "node";
const OWN_JOB: &str = "muster-agent";
/// A collector that takes longer than this is missing from the round.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a collector is: reads, and adds what it found. May block for as long as the kernel does.
type Collect = fn(&mut Families) -> Result<(), Error>;

const COLLECTORS: [(&str, Collect); 11] = [
    ("cpu", cpu::collect),
    ("diskstats", disk::collect),
    ("loadavg", load::collect),
    ("mdadm", md::collect),
    ("meminfo", memory::collect),
    ("netdev", network::collect),
    ("netstat", netstat::collect),
    ("pressure", pressure::collect),
    ("sockstat", sockets::collect),
    ("stat", kernel::collect),
    ("time", uptime::collect),
];

/// Gathers every `period` until `shutdown`, at the point of the period that belongs to `agent_id`; each time with what `own`
/// tells of the agent itself.
pub async fn run(
    agent_id: &str,
    period: Duration,
    own: impl Fn() -> Families,
    recorder: Recorder,
    shutdown: CancellationToken,
) {
    let mut collectors = Collectors::default();
    // One round at once, so that a new agent shows something; the others where the fleet's rounds are spread to.
    let start = time::Instant::now() + splay::point(&[agent_id, "collect"], period);
    let mut ticks = time::interval_at(start, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut is_first = true;
    let rounds = async {
        loop {
            if !std::mem::take(&mut is_first) {
                ticks.tick().await;
            }
            let time_unix_micros = clock::unix_micros(SystemTime::now());
            let machine = collectors.gather().await.into_batches(JOB);
            for batch in machine.into_iter().chain(own().into_batches(OWN_JOB)) {
                recorder.record(
                    Lane::Metrics,
                    Record {
                        time_unix_micros,
                        body: Some(record::Body::Metrics(batch)),
                    },
                );
            }
        }
    };
    shutdown.run_until_cancelled(rounds).await;
}

/// The collectors, and how they fared so far.
#[derive(Debug)]
pub struct Collectors {
    kernel: Vec<Collector>,
    filesystem: Fate,
}

#[derive(Debug)]
struct Collector {
    collect: Collect,
    /// Of an earlier round, in which it took too long.
    late: Option<oneshot::Receiver<Outcome>>,
    fate: Fate,
}

/// So that a failure that stays is logged once.
#[derive(Debug)]
struct Fate {
    name: &'static str,
    failed: bool,
}

type Outcome = (Result<Families, Error>, Duration);

impl Default for Collectors {
    fn default() -> Collectors {
        Collectors::new(&COLLECTORS)
    }
}

impl Collectors {
    fn new(collectors: &[(&'static str, Collect)]) -> Collectors {
        let kernel = collectors
            .iter()
            .map(|&(name, collect)| Collector::new(name, collect))
            .collect();
        Collectors {
            kernel,
            filesystem: Fate::new("filesystem"),
        }
    }

    /// One round of all collectors.
    pub async fn gather(&mut self) -> Families {
        let mut all = Families::default();
        let patience = time::Instant::now() + PATIENCE;
        let calls: Vec<_> = self.kernel.iter_mut().map(Collector::start).collect();
        let started = Instant::now();
        let mounts = filesystem::collect().await;
        self.filesystem.add((mounts, started.elapsed()), &mut all);
        for (collector, call) in self.kernel.iter_mut().zip(calls) {
            let outcome = match call {
                Ok(call) => collector.finish(call, patience).await,
                Err(error) => (Err(error), Duration::ZERO),
            };
            collector.fate.add(outcome, &mut all);
        }
        all
    }
}

impl Collector {
    fn new(name: &'static str, collect: Collect) -> Collector {
        Collector {
            collect,
            late: None,
            fate: Fate::new(name),
        }
    }

    fn start(&mut self) -> Result<oneshot::Receiver<Outcome>, Error> {
        if let Some(late) = &mut self.late {
            match late.try_recv() {
                Err(oneshot::error::TryRecvError::Empty) => return Err(Error::Hangs),
                // What it found belongs to a round that is over.
                Ok(_) | Err(oneshot::error::TryRecvError::Closed) => self.late = None,
            }
        }
        let collect = self.collect;
        Ok(detached::call(move || {
            let started = Instant::now();
            let mut families = Families::default();
            let result = collect(&mut families).map(|()| families);
            (result, started.elapsed())
        })?)
    }

    async fn finish(&mut self, mut call: oneshot::Receiver<Outcome>, patience: time::Instant) -> Outcome {
        match time::timeout_at(patience, &mut call).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => (Err(Error::Panicked), Duration::ZERO),
            Err(_) => {
                self.late = Some(call);
                (Err(Error::Hangs), PATIENCE)
            }
        }
    }
}

impl Fate {
    fn new(name: &'static str) -> Fate {
        Fate { name, failed: false }
    }

    fn add(&mut self, (result, took): Outcome, all: &mut Families) {
        let labels = [("collector", self.name)];
        all.gauge(
            "node_scrape_collector_success",
            &labels,
            f64::from(u8::from(result.is_ok())),
        );
        all.gauge("node_scrape_collector_duration_seconds", &labels, took.as_secs_f64());
        let failed = result.is_err();
        match result {
            Ok(families) => all.extend(families),
            Err(error) if !self.failed => {
                warn!(
                    collector = self.name,
                    error = &error as &dyn std::error::Error,
                    "metrics are missing"
                );
            }
            Err(_) => {}
        }
        self.failed = failed;
    }
}

#[cfg(test)]
mod tests;
