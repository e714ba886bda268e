//! What a run measures once: memory at a moment, a frame to all agents, all links after the controller was killed.

use std::time::Instant;

use anyhow::bail;
use serde_json::json;
use tokio::time::sleep;

use super::{LOOK, PATIENCE, Run, SETTLE};
use crate::swarm::{
    figure::{per_second, rounded, seconds},
    progress::say,
    traffic,
};

impl Run<'_> {
    /// What the controller has at this moment, and KiB of it for each agent: of the link alone, and with what is kept of an agent
    /// that is not connected.
    pub(super) fn memory(&mut self, when: &str, empty: Option<u64>, enrolled: Option<u64>) {
        let now = self.target.memory();
        let agents = self.agents.len() as f64;
        let each = |before: Option<u64>| Some(rounded((now? as f64 - before? as f64) / agents / 1024.0));
        self.put(
            &format!("memory_{when}"),
            json!({
                "controller_mib": now.map(|bytes| rounded(bytes as f64 / 1048576.0)),
                "kib_per_link": each(enrolled),
                "kib_per_agent": each(empty),
            }),
        );
    }

    /// A frame to all and an answer from each: a change of the policies that all have.
    pub(super) async fn broadcast(&mut self) -> anyhow::Result<()> {
        let api = self.api().await?;
        let counts = &self.fleet.counts;
        let (synced, answered) = (counts.synced.count(), counts.answered.count());
        let all = self.agents.len() as u64;
        let before = self.target.cpu();
        let (start, begun) = (self.fleet.started.elapsed(), Instant::now());
        api.assign(&self.name, &self.selector, 1, "second").await?;
        while self.fleet.counts.answered.count() < answered + all {
            if begun.elapsed() > PATIENCE {
                let came = self.fleet.counts.synced.count() - synced;
                bail!("a change of the policies came to {came} of {all} agents");
            }
            sleep(LOOK).await;
        }
        // What was answered is on its way.
        sleep(SETTLE).await;
        let (cpu, took) = (self.spent_since(before), begun.elapsed());
        // What the links take in as much time anyway is not of this.
        let before = self.target.cpu();
        sleep(took).await;
        let anyway = self.spent_since(before);
        let cpu = cpu.and_then(|cpu| Some(cpu.saturating_sub(anyway?)));
        let counts = &self.fleet.counts;
        let (last_frame, last_answer) = (counts.synced.last(), counts.answered.last());
        let applied = api.applied(&traffic::check_name(&self.name, 0)).await?;
        self.put(
            "broadcast",
            json!({
                "to_last_frame_s": seconds(last_frame.saturating_sub(start)),
                "to_last_answer_s": seconds(last_answer.saturating_sub(start)),
                "cpu_us_per_agent": cpu.map(|cpu| rounded(cpu.as_secs_f64() * 1e6 / all as f64)),
                "applied_on": applied,
            }),
        );
        Ok(())
    }

    /// `kill -9`, and how long it takes until all are back.
    pub(super) async fn cold_restart(&mut self) -> anyhow::Result<()> {
        say("the controller is killed and started again");
        let welcomes = self.fleet.counts.welcomes.count();
        let refused = self.refused();
        let killed = Instant::now();
        self.target.kill();
        self.target.launch()?;
        let (outage, listening, before) = (killed.elapsed(), self.fleet.started.elapsed(), self.target.cpu());
        let all = self.agents.len();
        let patience = Instant::now();
        while self.fleet.counts.welcomes.count() < welcomes + all as u64 || self.up() < all as u64 {
            if patience.elapsed() > PATIENCE {
                bail!("{} of {all} links are back", self.up());
            }
            sleep(LOOK).await;
        }
        let cpu = self.spent_since(before);
        let back = self.fleet.counts.welcomes.last().saturating_sub(listening);
        let attempts = self.refused() - refused;
        self.put(
            "cold_restart",
            json!({
                "outage_s": seconds(outage),
                "all_back_s": seconds(back),
                "cpu_seconds": cpu.map(seconds),
                "links_per_cpu_second": cpu.map(|cpu| per_second(all, cpu)),
                "told_to_come_later": attempts,
            }),
        );
        Ok(())
    }
}
