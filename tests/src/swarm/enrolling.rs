//! How the agents of a swarm become agents: each with a key of its own, on a connection of its own, as machines do.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, anyhow, bail};
use http::Uri;
use muster_agent::identity::Trust;
use muster_certs::{csr, identity_file::IdentityFile, key::KeyPair, pin::Pin, rustls::ClientConfig, tls};
use muster_proto::{
    error::Problem,
    ids::AgentId,
    v1::{EnrollRequest, EnrollResponse, Fingerprint, enrollment_service_client::EnrollmentServiceClient},
};
use tokio::{task::JoinSet, time::sleep};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    agent::{Agent, Parts},
    wire::{self, Route},
};

/// More are waited for all the same.
const PARALLEL: usize = 32;
const ATTEMPTS: u32 = 5;

/// What the agents of a swarm enroll with.
#[derive(Debug)]
pub struct Plan {
    pub controller: SocketAddr,
    pub host: String,
    pub pins: Vec<Pin>,
    pub token: String,
    pub count: usize,
    /// The name of the swarm, which those of its agents begin with.
    pub run: String,
    pub label: (String, String),
    /// Source addresses.
    pub sources: u8,
    /// Clocks are off by up to this.
    pub skew: Duration,
    /// Where queues lie.
    pub spool: Option<PathBuf>,
}

impl Plan {
    /// The n-th agent's address: one of several where the controller is on this machine, since a controller has limits for
    /// each address.
    fn source(&self, index: usize) -> IpAddr {
        match self.controller.ip() {
            IpAddr::V4(address) if address.is_loopback() => {
                let part = index % usize::from(self.sources.max(1));
                IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2 + part as u8))
            }
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
        }
    }

    fn route(&self, index: usize, tls: Arc<ClientConfig>) -> Route {
        Route {
            to: self.controller,
            host: self.host.clone(),
            from: self.source(index),
            tls,
        }
    }
}

/// All of them, in the order of their numbers.
pub async fn enroll_all(plan: Arc<Plan>) -> anyhow::Result<Vec<Arc<Agent>>> {
    let tls = tls::enrolling(&plan.pins, &[])?;
    let next = Arc::new(AtomicUsize::new(0));
    let mut workers = JoinSet::new();
    for _ in 0..PARALLEL.min(plan.count) {
        let (plan, tls, next) = (plan.clone(), tls.clone(), next.clone());
        workers.spawn(async move {
            let mut agents = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= plan.count {
                    return anyhow::Ok(agents);
                }
                agents.push((index, enroll(&plan, index, &tls).await?));
            }
        });
    }
    let mut agents = Vec::new();
    while let Some(enrolled) = workers.join_next().await {
        agents.extend(enrolled??);
    }
    agents.sort_by_key(|(index, _)| *index);
    Ok(agents.into_iter().map(|(_, agent)| agent).collect())
}

async fn enroll(plan: &Plan, index: usize, tls: &Arc<ClientConfig>) -> anyhow::Result<Arc<Agent>> {
    let id = AgentId::random();
    let name = format!("{}-{:05}", plan.run, index + 1);
    let machine = id.uuid().simple().to_string();
    let fingerprint = Fingerprint {
        machine_id: machine.clone(),
        boot_id: machine,
        process_nonce: format!("{:016x}", rand::random::<u64>()),
        host_name: name.clone(),
        ..Fingerprint::default()
    };
    let key = KeyPair::generate()?;
    let request = EnrollRequest {
        token: plan.token.clone(),
        agent_id: id.to_string(),
        csr: csr::create(&key)?,
        name: name.clone(),
        labels: [plan.label.clone()].into(),
        fingerprint: Some(fingerprint.clone()),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let answer = ask(&plan.route(index, tls.clone()), &request)
        .await
        .with_context(|| format!("{name} could not enroll"))?;
    let bundle = answer
        .trust_bundle
        .ok_or_else(|| anyhow!("the answer has no trust bundle"))?;
    let trust = Trust::new(&bundle)?;
    let chain = answer.certificates.into_iter().map(Into::into).collect();
    let identity = IdentityFile::new(key, chain)?;
    let tls = tls::link(trust.roots(), trust.trust_domain(), &identity)?;
    let skew = plan.skew.as_micros() as f64 * (rand::random::<f64>() * 2.0 - 1.0);
    Agent::new(Parts {
        id,
        route: plan.route(index, tls),
        fingerprint,
        bundle_version: bundle.version,
        skew: skew as i64,
        home: plan.spool.as_ref().map(|spool| spool.join(&name)),
        name,
    })
}

/// Again and again while that may help: the same request with the same key uses nothing up.
async fn ask(route: &Route, request: &EnrollRequest) -> anyhow::Result<EnrollResponse> {
    let mut attempt = 1;
    loop {
        let tasks = TaskTracker::new();
        let call = async {
            let (wire, running) = wire::open(route, CancellationToken::new(), &tasks).await?;
            let mut client = EnrollmentServiceClient::with_origin(wire, Uri::from_static("http://controller"));
            let answer = tokio::select! {
                answer = client.enroll(request.clone()) => answer,
                () = running => bail!("the connection ended"),
            };
            anyhow::Ok(answer)
        };
        let wait = match call.await {
            Ok(Ok(answer)) => return Ok(answer.into_inner()),
            Ok(Err(status)) => match Problem::from_status(&status) {
                Some(problem) if problem.retry_after.is_none() => bail!("{}", problem.message),
                Some(problem) => problem.retry_after,
                None => None,
            },
            Err(error) if attempt >= ATTEMPTS => return Err(error),
            Err(_) => None,
        };
        if attempt >= ATTEMPTS {
            bail!("the controller does not let it in");
        }
        sleep(
            wait.unwrap_or(Duration::from_secs(1))
                .mul_f64(0.5 + rand::random::<f64>()),
        )
        .await;
        attempt += 1;
    }
}
