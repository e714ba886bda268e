//! Declares agents late and offline, and writes down when they were last heard of.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    agents::{Agents, liveness::Rules},
    clock,
};

const FLUSH_EVERY: Duration = Duration::from_secs(30);

pub async fn run(agents: Arc<Agents>, heartbeat: Duration, shutdown: CancellationToken) {
    let rules = Rules {
        heartbeat: clock::from_duration(heartbeat),
        started_at: agents.started_at(),
    };
    let mut ticks = tokio::time::interval((heartbeat / 4).clamp(Duration::from_millis(50), Duration::from_secs(5)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut flushed = Instant::now();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            _ = ticks.tick() => {}
        }
        agents.review_liveness(rules, clock::now());
        if flushed.elapsed() >= FLUSH_EVERY {
            flushed = Instant::now();
            flush(&agents).await;
        }
    }
    flush(&agents).await;
}

async fn flush(agents: &Agents) {
    if let Err(error) = agents.flush_last_seen().await {
        warn!(
            error = &error as &dyn std::error::Error,
            "failed to write when agents were last heard of"
        );
    }
}
