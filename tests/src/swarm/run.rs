//! One run of a swarm from enrollment to the books: its phases in order, with what the controller used of the machine in each.

mod once;

use std::{
    collections::HashSet,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, bail};
use muster_agent::link::queue::Lanes;
use muster_proto::v1::AgentStatus;
use serde_json::{Map, Value, json};
use tokio::time::{sleep, timeout};

use super::{
    account,
    agent::Agent,
    ask::Api,
    chaos::{Chaos, restart},
    cli::{FleetArgs, RunArgs},
    enrolling::{self, Plan},
    figure::{per_second, rounded, seconds},
    fleet::Fleet,
    progress::say,
    target::Target,
    traffic,
};

/// Longer than the longest wait of an agent, twice.
const PATIENCE: Duration = Duration::from_secs(150);
/// What has just happened has an echo.
const SETTLE: Duration = Duration::from_secs(2);
/// Before memory is taken after traffic: allocators give pages back some seconds after they were used.
const CALM: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(20);
/// The label that agents of a swarm claim.
const LABEL: &str = "swarm";
/// Agents whose queues are on disk: each has its files.
const MOST_ON_DISK: u32 = 2_000;

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    pub document: Value,
    /// Nothing lost, nothing doubled, nobody declared offline.
    pub is_right: bool,
}

/// A swarm and its controller, while a run is under way.
pub struct Run<'a> {
    args: &'a RunArgs,
    target: &'a mut Target,
    fleet: Arc<Fleet>,
    agents: Vec<Arc<Agent>>,
    name: String,
    selector: String,
    began: SystemTime,
    document: Map<String, Value>,
}

/// # Errors
/// When the controller does not answer, or agents do not come in.
pub async fn run(args: &RunArgs, target: &mut Target) -> anyhow::Result<Outcome> {
    if args.fleet.disk_spool.is_some() && args.fleet.agents > MOST_ON_DISK {
        bail!("--disk-spool is for up to {MOST_ON_DISK} agents: each has files that are open");
    }
    let name = format!("swarm-{:06x}", rand::random::<u32>() >> 8);
    let label = (LABEL.to_owned(), name.clone());
    let mut run = Run {
        args,
        target,
        fleet: Fleet::new(args.load.clone(), label),
        agents: Vec::new(),
        selector: format!("{LABEL}={name}"),
        name,
        began: SystemTime::now(),
        document: Map::new(),
    };
    let outcome = run.all().await;
    if outcome.is_err() {
        say(&format!("the controller has said at last:\n{}", run.target.log_tail()));
        say(&format!("connections have ended: {:?}", run.fleet.reasons()));
    }
    run.fleet.stop.cancel();
    run.fleet.tasks.close();
    // Those that do not come to their end are dropped with the runtime.
    let _ = timeout(Duration::from_secs(20), run.fleet.tasks.wait()).await;
    outcome
}

impl Run<'_> {
    async fn all(&mut self) -> anyhow::Result<Outcome> {
        self.describe();
        let empty = self.target.memory();
        self.enroll().await?;
        let checks = self.checks();
        if checks > 0 {
            self.api()
                .await?
                .assign(&self.name, &self.selector, checks, "first")
                .await?;
        }
        if let Some(outage) = self.args.chaos.outage {
            say(&format!("each agent remembers {} s", outage.as_secs()));
            for agent in &self.agents {
                agent.remember(&self.fleet, outage).await;
            }
        }
        sleep(SETTLE).await;
        let enrolled = self.target.memory();
        self.connect().await?;
        sleep(SETTLE).await;
        self.memory("idle", empty, enrolled);
        if self.args.broadcast {
            self.broadcast().await?;
        }
        self.load().await?;
        self.calm_down().await?;
        self.memory("after_traffic", empty, enrolled);
        if let Some(factor) = self.args.load.burst {
            self.burst(factor).await?;
            self.calm_down().await?;
            self.memory("after_burst", empty, enrolled);
        }
        if self.args.cold_restart {
            self.cold_restart().await?;
            self.drain().await?;
        }
        let is_right = self.close_books().await?;
        if checks > 0 {
            self.api().await?.withdraw(&self.name, checks).await?;
        }
        Ok(Outcome {
            document: Value::Object(std::mem::take(&mut self.document)),
            is_right,
        })
    }

    fn describe(&mut self) {
        let RunArgs { fleet, load, chaos, .. } = self.args;
        self.put("agents", json!(fleet.agents));
        self.put("profile", json!(load.profile.name()));
        self.put("database", json!(self.target.database()));
        self.put(
            "queues",
            json!(if fleet.disk_spool.is_some() { "disk" } else { "memory" }),
        );
        let mut chosen = Map::new();
        chosen.insert("cut_percent_per_second".to_owned(), json!(chaos.cut));
        chosen.insert(
            "restart_every_s".to_owned(),
            json!(chaos.restart_controller.map(seconds)),
        );
        chosen.insert("skew_s".to_owned(), json!(seconds(chaos.skew)));
        chosen.insert("outage_s".to_owned(), json!(chaos.outage.map(seconds)));
        self.put("chaos", Value::Object(chosen));
    }

    async fn enroll(&mut self) -> anyhow::Result<()> {
        let FleetArgs {
            agents,
            sources,
            disk_spool,
            ..
        } = &self.args.fleet;
        say(&format!("{agents} agents enroll as {}", self.name));
        let plan = Plan {
            controller: self.target.address,
            host: self.target.host.clone(),
            pins: self.target.pins.clone(),
            token: self.target.token.clone(),
            count: *agents as usize,
            run: self.name.clone(),
            label: self.fleet.label.clone(),
            sources: sources.unwrap_or((agents / 200).clamp(1, 250) as u8),
            skew: self.args.chaos.skew,
            spool: disk_spool.clone(),
        };
        let (start, before) = (Instant::now(), self.target.cpu());
        self.agents = enrolling::enroll_all(Arc::new(plan)).await?;
        let cpu = self.spent_since(before);
        self.put(
            "enroll",
            json!({
                "seconds": seconds(start.elapsed()),
                "cpu_seconds": cpu.map(seconds),
                "per_cpu_second": cpu.map(|cpu| per_second(self.agents.len(), cpu)),
            }),
        );
        Ok(())
    }

    async fn connect(&mut self) -> anyhow::Result<()> {
        let count = self.agents.len();
        let ramp = self
            .args
            .fleet
            .ramp
            .unwrap_or(Duration::from_secs_f64(count as f64 / 250.0));
        say(&format!("they connect within {:.0} s", ramp.as_secs_f64()));
        let (start, before) = (Instant::now(), self.target.cpu());
        for (index, agent) in self.agents.iter().enumerate() {
            let delay = ramp.mul_f64(index as f64 / count as f64);
            self.fleet.tasks.spawn(agent.clone().live(self.fleet.clone(), delay));
        }
        self.wait_for_all(ramp + PATIENCE).await?;
        let took = start.elapsed();
        let cpu = self.spent_since(before);
        self.put(
            "connect",
            json!({
                "seconds": seconds(took),
                "cpu_seconds": cpu.map(seconds),
                "per_cpu_second": cpu.map(|cpu| per_second(count, cpu)),
            }),
        );
        Ok(())
    }

    async fn wait_for_all(&self, patience: Duration) -> anyhow::Result<()> {
        let start = Instant::now();
        let mut told = Instant::now();
        while self.up() < self.agents.len() as u64 {
            if start.elapsed() > patience {
                bail!(
                    "after {} s only {} of {} links are up",
                    patience.as_secs(),
                    self.up(),
                    self.agents.len()
                );
            }
            if told.elapsed() > Duration::from_secs(5) {
                say(&format!("{} of {} links are up", self.up(), self.agents.len()));
                told = Instant::now();
            }
            sleep(LOOK).await;
        }
        Ok(())
    }

    async fn load(&mut self) -> anyhow::Result<()> {
        let load = &self.args.load;
        say(&format!("they report for {} s", load.duration.as_secs()));
        self.fleet.counts.acks.clear();
        self.fleet.counts.lateness.clear();
        let steady = self.report_at(1.0, load.duration).await?;
        self.put("load", steady);
        Ok(())
    }

    async fn burst(&mut self, factor: u32) -> anyhow::Result<()> {
        let length = self.args.load.burst_duration;
        say(&format!(
            "they report {factor} times as often for {} s",
            length.as_secs()
        ));
        self.fleet.counts.acks.clear();
        let burst = self.report_at(f64::from(factor), length).await?;
        self.put("burst", burst);
        Ok(())
    }

    /// They record nothing more, until all that they have recorded is stored and the controller has had time to tidy up.
    async fn calm_down(&mut self) -> anyhow::Result<()> {
        self.fleet.order(0.0);
        self.drain().await?;
        sleep(CALM).await;
        Ok(())
    }

    async fn report_at(&mut self, rate: f64, length: Duration) -> anyhow::Result<Value> {
        let mut chaos = Chaos::new(&self.args.chaos, self.agents.len());
        let (start, before, made) = (Instant::now(), self.target.cpu(), self.made());
        self.fleet.order(rate);
        let mut told = Instant::now();
        while start.elapsed() < length {
            sleep(Duration::from_millis(100).min(length)).await;
            chaos.cut(&self.agents, start.elapsed());
            if chaos.is_restart_due(start.elapsed()) {
                restart(self.target)?;
            }
            if told.elapsed() > Duration::from_secs(10) {
                let (waiting, up) = (self.waiting(), self.up());
                say(&format!(
                    "{:.0} s: {up} links are up, {waiting} records wait",
                    start.elapsed().as_secs_f64()
                ));
                told = Instant::now();
            }
        }
        let took = start.elapsed();
        let cpu = self.spent_since(before);
        let now = self.made();
        let [results, batches, logs] = std::array::from_fn(|lane| now[lane] - made[lane]);
        let samples = batches * u64::from(self.args.load.series);
        let per = |count: u64| rounded(count as f64 / took.as_secs_f64());
        Ok(json!({
            "seconds": seconds(took),
            "results_per_second": per(results),
            "metric_batches_per_second": per(batches),
            "samples_per_second": per(samples),
            "log_entries_per_second": per(logs * u64::from(traffic::LINES)),
            "cpu_percent_of_a_core": cpu.map(|cpu| rounded(cpu.as_secs_f64() / took.as_secs_f64() * 100.0)),
            "acks": self.fleet.counts.acks.to_json(),
            "waiting_at_the_end": self.waiting(),
            "cuts": chaos.cuts(),
            "restarts": chaos.restarts(),
        }))
    }

    /// Until nothing waits any longer.
    async fn drain(&mut self) -> anyhow::Result<()> {
        let start = Instant::now();
        // As long as it gets less there is hope.
        let (mut least, mut since) = (u64::MAX, Instant::now());
        loop {
            let waiting = self.waiting();
            if waiting == 0 {
                break;
            }
            if waiting < least {
                (least, since) = (waiting, Instant::now());
            } else if since.elapsed() > PATIENCE {
                bail!("{waiting} records wait, and are not taken");
            }
            sleep(LOOK).await;
        }
        self.wait_for_all(PATIENCE).await?;
        self.put("drain_s", json!(seconds(start.elapsed())));
        Ok(())
    }

    async fn close_books(&mut self) -> anyhow::Result<bool> {
        say("the API is asked what has arrived");
        let api = self.api().await?;
        let account = account::account(&api, &self.selector, &self.agents).await?;
        let ids: HashSet<String> = self.agents.iter().map(|agent| agent.id.to_string()).collect();
        let events = api.offline_events(&ids, self.began).await?;
        let statuses = api.statuses(&self.selector).await?;
        let online = statuses
            .values()
            .filter(|status| **status == AgentStatus::Online)
            .count();
        let missing = ids.len().saturating_sub(online) as u64;
        let false_offline = events.max(missing);
        let counts = &self.fleet.counts;
        let rejected = counts.rejected.load(Ordering::Relaxed);
        let links = json!({
            "welcomes": counts.welcomes.count(),
            "ended": counts.failures.load(Ordering::Relaxed),
            "told_to_come_later": self.refused(),
            "sent_away": counts.sent_away.load(Ordering::Relaxed),
            "why": self.fleet.reasons(),
        });
        let lateness = counts.lateness.to_json();
        let is_right = account.is_right() && false_offline == 0 && rejected == 0;
        self.put("account", account.to_json());
        self.put("rejected", json!(rejected));
        self.put("false_offline", json!(false_offline));
        self.put("lateness_of_live_records", lateness);
        self.put("links", links);
        Ok(is_right)
    }

    fn checks(&self) -> u64 {
        match self.args.load.profile.has_checks() {
            true => u64::from(self.args.load.checks),
            // One is needed to be changed.
            false => u64::from(self.args.broadcast),
        }
    }

    /// Anew for each use, since the controller may have been killed.
    async fn api(&self) -> anyhow::Result<Api> {
        let start = Instant::now();
        loop {
            match Api::connect(&self.target.context).await {
                Ok(api) => return Ok(api),
                Err(error) if start.elapsed() > PATIENCE => return Err(error).context("the API does not answer"),
                Err(_) => sleep(LOOK).await,
            }
        }
    }

    fn up(&self) -> u64 {
        self.fleet.counts.up.load(Ordering::Relaxed)
    }

    fn refused(&self) -> u64 {
        self.fleet.counts.refused.load(Ordering::Relaxed)
    }

    fn waiting(&self) -> u64 {
        let of_agent = |agent: &Arc<Agent>| agent.depths().iter().map(|depth| depth.records).sum::<u64>();
        self.agents.iter().map(of_agent).sum()
    }

    /// Records of each lane.
    fn made(&self) -> [u64; 3] {
        Lanes::ALL.map(|lane| self.agents.iter().map(|agent| agent.made(lane).count()).sum())
    }

    fn spent_since(&self, before: Option<Duration>) -> Option<Duration> {
        Some(self.target.cpu()?.saturating_sub(before?))
    }

    fn put(&mut self, key: &str, value: Value) {
        self.document.insert(key.to_owned(), value);
    }
}
