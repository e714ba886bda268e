//! What it costs the controller to say what other configuration would do to a large fleet: time until the plan is there, CPU, and
//! the memory that it takes meanwhile. Beside a bare call that carries as many bytes, and with what the plan has to say checked
//! against the labels that the agents were given.

use std::time::Instant;

use anyhow::ensure;
use muster_proto::{
    manifest,
    v1::{
        self, ListEventsRequest, Plan, PlanManifestsRequest, PlannedAction, event_service_client::EventServiceClient,
        manifest_service_client::ManifestServiceClient,
    },
};
use prost::Message as _;
use serde_json::{Value, json};

use crate::{
    Controller,
    api_latency::{Floor, LIMITS, fill},
    operators::{Operator, Service},
    swarm::{figure::rounded, latency::Latency, usage},
};

const OWNER: &str = "bench";
const RUNS: usize = 5;
/// A reader of plans that are larger than what gRPC takes by itself.
const MAX_PLAN: usize = 64 << 20;

type Client = ManifestServiceClient<Service>;

/// # Errors
/// When a call fails, or a plan says something else than what the labels of the agents mean.
pub fn measure(agents: usize, policies: usize) -> anyhow::Result<Value> {
    let mut controller = Controller::start_with(LIMITS);
    let pid = controller.process().pid();
    tokio::runtime::Runtime::new()?.block_on(async {
        let admin = Operator::admin(&controller).await;
        fill(&admin, agents).await?;
        let mut client = Client::new(admin.service()).max_decoding_message_size(MAX_PLAN);
        let floor = Floor::start()?;
        let expected: usize = (0..policies).map(|policy| selected(policy, agents)).sum();

        let new = wanted(policies, 60, false)?;
        let created = planned(&mut client, &new, pid, &floor).await?;
        ensure!(created.counts(|change| change.starts) == expected, "{:?}", created.plan);
        ensure!(created.plan.agents_touched as usize == agents, "{:?}", created.plan);

        let start = Instant::now();
        let request = v1::ApplyManifestsRequest {
            manifests: new.manifests.clone(),
            digest: created.plan.digest.clone(),
            ..v1::ApplyManifestsRequest::default()
        };
        client.apply_manifests(request).await?;
        let applied = start.elapsed();

        let same = planned(&mut client, &new, pid, &floor).await?;
        ensure!(
            same.plan
                .changes
                .iter()
                .all(|change| change.action() == PlannedAction::Unchanged)
        );
        let updated = planned(&mut client, &wanted(policies, 30, false)?, pid, &floor).await?;
        ensure!(
            updated.counts(|change| change.updates) == expected,
            "{:?}",
            updated.plan
        );
        let deleted = planned(&mut client, &wanted(0, 0, true)?, pid, &floor).await?;
        ensure!(deleted.counts(|change| change.stops) == expected, "{:?}", deleted.plan);
        Ok(json!({
            "agents": agents,
            "policies": policies,
            "database": if controller.database_url().is_some() { "postgresql" } else { "sqlite" },
            "assignments": expected,
            "create": created.to_json(),
            "apply_ms": rounded(applied.as_secs_f64() * 1e3),
            "unchanged": same.to_json(),
            "update": updated.to_json(),
            "delete": deleted.to_json(),
        }))
    })
}

/// One kind of plan.
struct Planned {
    plan: Plan,
    latency: Latency,
    floor: Latency,
    cpu_ms: f64,
    memory: u64,
}

impl Planned {
    fn counts(&self, of: impl Fn(&v1::PlannedChange) -> i32) -> usize {
        self.plan.changes.iter().map(|change| of(change) as usize).sum()
    }

    fn to_json(&self) -> Value {
        let median = |latency: &Latency| latency.percentile(50.0).unwrap_or_default().as_secs_f64();
        json!({
            "latency": self.latency.to_json(),
            "cpu_ms": self.cpu_ms,
            "peak_memory_bytes": self.memory,
            "bytes": self.plan.encoded_len(),
            "floor": self.floor.to_json(),
            "ratio_to_floor": rounded(median(&self.latency) / median(&self.floor)),
        })
    }
}

async fn planned(
    client: &mut Client,
    request: &PlanManifestsRequest,
    pid: u32,
    floor: &Floor,
) -> anyhow::Result<Planned> {
    let plan = client.plan_manifests(request.clone()).await?.into_inner();
    let plan = plan.plan.unwrap_or_default();
    let (latency, before, peak) = (Latency::default(), usage::cpu(pid)?, usage::Peak::from_now(pid)?);
    for _ in 0..RUNS {
        let start = Instant::now();
        client.plan_manifests(request.clone()).await?;
        latency.add(start.elapsed());
    }
    let (cpu, memory) = (usage::cpu(pid)? - before, peak.grown()?);
    Ok(Planned {
        floor: bare(floor, plan.encoded_len()).await?,
        plan,
        latency,
        cpu_ms: rounded(cpu.as_secs_f64() * 1e3 / RUNS as f64),
        memory,
    })
}

async fn bare(floor: &Floor, bytes: usize) -> anyhow::Result<Latency> {
    let mut client = EventServiceClient::new(floor.channel().await?).max_decoding_message_size(MAX_PLAN);
    let request = ListEventsRequest {
        page_size: i32::try_from(bytes)?,
        ..ListEventsRequest::default()
    };
    client.list_events(request.clone()).await?;
    let latency = Latency::default();
    for _ in 0..RUNS {
        let start = Instant::now();
        client.list_events(request.clone()).await?;
        latency.add(start.elapsed());
    }
    Ok(latency)
}

fn wanted(policies: usize, interval: u32, prune: bool) -> anyhow::Result<PlanManifestsRequest> {
    let text: Vec<String> = (0..policies).map(|policy| check(policy, interval)).collect();
    let found = match text.is_empty() {
        true => Vec::new(),
        false => manifest::parse("bench", &text.join("---\n"))
            .map_err(|errors| anyhow::anyhow!("{}", errors.first().map(ToString::to_string).unwrap_or_default()))?,
    };
    Ok(PlanManifestsRequest {
        manifests: found.into_iter().map(|manifest| manifest.document).collect(),
        owner: if prune { OWNER.to_owned() } else { String::new() },
        prune,
        ..PlanManifestsRequest::default()
    })
}

/// Everything, an environment, a zone, or both: as `fill` gives them.
fn check(policy: usize, interval: u32) -> String {
    let zone = policy / 4 % 8;
    let selector = match policy % 4 {
        0 => "*".to_owned(),
        1 => "env=prod".to_owned(),
        2 => format!("zone=zone-{zone}"),
        _ => format!("env=prod,zone=zone-{zone}"),
    };
    format!(
        "apiVersion: muster/v1\nkind: Check\nmetadata: {{ name: check-{policy:04}, owner: {OWNER} }}\nspec:\n  \
         selector: \"{selector}\"\n  schedule: {{ interval: {interval}s }}\n  run: {{ command: [/bin/true] }}\n"
    )
}

/// How many agents that means.
fn selected(policy: usize, agents: usize) -> usize {
    let zone = policy / 4 % 8;
    let is_in = |agent: &usize| match policy % 4 {
        0 => true,
        1 => agent.is_multiple_of(3),
        2 => agent % 8 == zone,
        _ => agent.is_multiple_of(3) && agent % 8 == zone,
    };
    (0..agents).filter(is_in).count()
}
