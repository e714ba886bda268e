//! The collectors together, and what each of their tests looks at samples with.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use super::*;
use crate::link::queue::{self, Queue};

/// Values by "name{label=value,...}", with labels in order of their names.
pub(super) fn samples(families: &Families) -> BTreeMap<String, f64> {
    let mut samples = BTreeMap::new();
    for family in families.iter() {
        for sample in &family.samples {
            let labels: BTreeMap<&str, &str> = sample
                .labels
                .iter()
                .map(|label| (label.name.as_str(), label.value.as_str()))
                .collect();
            let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let key = if labels.is_empty() {
                family.name.clone()
            } else {
                format!("{}{{{}}}", family.name, labels.join(","))
            };
            assert!(samples.insert(key.clone(), sample.value).is_none(), "{key} comes twice");
        }
    }
    samples
}

/// What dashboards use most, of what any Linux has.
const EVERYWHERE: [&str; 30] = [
    "node_boot_time_seconds",
    "node_context_switches_total",
    "node_cpu_seconds_total",
    "node_filefd_allocated",
    "node_filefd_maximum",
    "node_forks_total",
    "node_intr_total",
    "node_load1",
    "node_load15",
    "node_load5",
    "node_memory_Buffers_bytes",
    "node_memory_Cached_bytes",
    "node_memory_MemAvailable_bytes",
    "node_memory_MemFree_bytes",
    "node_memory_MemTotal_bytes",
    "node_memory_SReclaimable_bytes",
    "node_memory_Slab_bytes",
    "node_memory_SwapFree_bytes",
    "node_memory_SwapTotal_bytes",
    "node_network_info",
    "node_network_receive_bytes_total",
    "node_network_receive_drop_total",
    "node_network_transmit_errs_total",
    "node_network_up",
    "node_procs_running",
    "node_scrape_collector_success",
    "node_sockstat_TCP_inuse",
    "node_time_seconds",
    "node_uname_info",
    "node_vmstat_pgmajfault",
];

#[tokio::test]
async fn this_machine_has_the_metrics_that_every_machine_has() {
    let families = Collectors::default().gather().await;
    let samples = samples(&families);
    let names: BTreeSet<&str> = families.iter().map(|family| family.name.as_str()).collect();
    for name in EVERYWHERE {
        assert!(names.contains(name), "{name} is missing");
    }
    for (collector, _) in COLLECTORS {
        let key = format!("node_scrape_collector_success{{collector={collector}}}");
        assert_eq!(samples[&key], 1.0, "{collector} failed");
    }
    assert!(samples.values().all(|value| value.is_finite()));
    for family in families.iter() {
        let is_counter = family.r#type() == muster_proto::v1::MetricType::Counter;
        let name = family.name.as_str();
        let is_gauge = ["node_netstat_Ip_Forwarding", "node_netstat_Tcp_CurrEstab"].contains(&name);
        let by_name = ["node_vmstat_", "node_netstat_"]
            .iter()
            .any(|start| name.starts_with(start));
        assert_eq!(is_counter, name.ends_with("_total") || by_name && !is_gauge, "{name}");
    }
}

#[tokio::test]
async fn a_collector_that_fails_or_panics_is_missing_and_the_others_are_there() {
    fn works(families: &mut Families) -> Result<(), Error> {
        families.gauge("works", &[], 1.0);
        Ok(())
    }
    fn fails(families: &mut Families) -> Result<(), Error> {
        families.gauge("half", &[], 1.0);
        source::read("/no/such/file").map(|_| ())
    }
    fn panics(_: &mut Families) -> Result<(), Error> {
        panic!("on purpose")
    }
    let mut collectors = Collectors::new(&[("fails", fails), ("panics", panics), ("works", works)]);
    let samples = samples(&collectors.gather().await);
    assert_eq!(samples["works"], 1.0);
    assert!(!samples.contains_key("half"));
    let success =
        ["fails", "panics", "works"].map(|name| samples[&format!("node_scrape_collector_success{{collector={name}}}")]);
    assert_eq!(success, [0.0, 0.0, 1.0]);
}

#[tokio::test]
async fn a_collector_that_hangs_is_not_started_again_before_it_comes_back() {
    use std::sync::mpsc::{Receiver, sync_channel};
    static HANG: Mutex<Option<Receiver<()>>> = Mutex::new(None);
    fn hangs(families: &mut Families) -> Result<(), Error> {
        let hang = HANG.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(hang) = hang {
            let _ = hang.recv();
        }
        families.gauge("back", &[], 1.0);
        Ok(())
    }
    let (release, hang) = sync_channel(0);
    *HANG.lock().unwrap() = Some(hang);
    let mut collector = Collector::new("hangs", hangs);
    let call = collector.start().unwrap();
    let (result, _) = collector.finish(call, time::Instant::now()).await;
    assert!(matches!(result, Err(Error::Hangs)), "{result:?}");
    assert!(matches!(collector.start(), Err(Error::Hangs)));
    release.send(()).unwrap();
    let call = loop {
        match collector.start() {
            Ok(call) => break call,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    let (result, _) = collector
        .finish(call, time::Instant::now() + Duration::from_secs(60))
        .await;
    assert_eq!(samples(&result.unwrap())["back"], 1.0);
}

#[tokio::test]
async fn rounds_are_recorded_at_their_pace_as_batches_of_one_time() {
    let queue = Queue::new(queue::Lanes::in_memory("1-test", queue::Limits::default()));
    let shutdown = CancellationToken::new();
    let own = || {
        let mut families = Families::default();
        families.gauge("muster_agent_x", &[], 1.0);
        families
    };
    let period = Duration::from_millis(20);
    let rounds = run("agent", period, own, queue.recorder(), shutdown.clone());
    let look = async {
        loop {
            queue.recorded().await;
            let batch = queue
                .lock()
                .lane_mut(Lane::Metrics)
                .take_batch("1-test", 0, usize::MAX)
                .unwrap();
            let times: BTreeSet<i64> = batch.records.iter().map(|record| record.time_unix_micros).collect();
            if times.len() >= 3 {
                return batch.records;
            }
        }
    };
    let records = tokio::select! {
        () = rounds => panic!("it stopped"),
        records = time::timeout(Duration::from_secs(60), look) => records.expect("no rounds came"),
    };
    let mut jobs = BTreeSet::new();
    for record in records {
        match record.body {
            Some(record::Body::Metrics(batch)) => {
                assert!(!batch.families.is_empty());
                let is_own = batch.families.iter().any(|family| family.name == "muster_agent_x");
                assert_eq!(is_own, batch.job == "muster-agent", "{}", batch.job);
                jobs.insert(batch.job);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(jobs.into_iter().collect::<Vec<_>>(), ["muster-agent", "node"]);
    shutdown.cancel();
    run("agent", Duration::from_secs(3600), own, queue.recorder(), shutdown).await;
}
