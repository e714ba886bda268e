//! What an attacker on the network, a stolen machine or a hostile plugin can send, in small. An attack has to get its
//! refusal, and in every case a healthy agent beside it goes on reporting, the controller keeps its size and nothing panics.

mod callers;
mod enrollment;
mod frames;
mod output;
mod suite;
mod transport;

use std::{fs, future::Future};

use muster_proto::{
    error::{ErrorReason, Problem},
    v1::{EnrollRequest, EnrollResponse, enrollment_service_client::EnrollmentServiceClient},
};
use muster_tests::{
    Agent, Controller, dial,
    poll::{self, SECOND},
};
use serde_json::json;
use tonic::Status;

const HEALTHY: &str = "healthy";
/// How much larger than before the controller may be after an attack. An attack that works takes far more.
const MIB_OF_GROWTH: u64 = 192;

/// A controller under attack, with an agent that must notice nothing of it.
pub struct Target {
    pub controller: Controller,
    pub agent: Agent,
    mib_before: u64,
}

impl Target {
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// With these lines in `server.yaml`.
    pub fn start_with(settings: &str) -> Self {
        let mut controller = Controller::start_with(settings);
        let pulse = json!({
            "apiVersion": "muster/v1", "kind": "Check", "metadata": { "name": "pulse" },
            "spec": { "selector": "role=healthy", "schedule": { "interval": "1s" }, "timeout": "1s", "run": { "memory": {} } },
        });
        controller.apply(&pulse.to_string());
        let agent = controller.agent(HEALTHY).label("role", "healthy").start();
        poll::until("the healthy agent reports", 20 * SECOND, || {
            controller.ctl().state(HEALTHY, "pulse")
        });
        let mib_before = mib(&mut controller);
        Self {
            controller,
            agent,
            mib_before,
        }
    }

    /// Fails unless all is as before the attack.
    #[track_caller]
    pub fn is_unharmed(&mut self) {
        let last_run = |controller: &Controller| {
            let state = controller.ctl().state(HEALTHY, "pulse")?;
            Ok::<_, String>(state["lastRun"].as_str().unwrap_or_default().to_owned())
        };
        let before = poll::until("operators are answered", 20 * SECOND, || last_run(&self.controller));
        // The second one began after the attack for certain.
        let mut seen = vec![before];
        poll::until("the healthy agent reports", 20 * SECOND, || {
            let run = last_run(&self.controller)?;
            if seen.last() != Some(&run) {
                seen.push(run);
            }
            if seen.len() > 2 {
                Ok(())
            } else {
                Err(format!("{seen:?}"))
            }
        });
        let log = self.controller.log();
        assert!(!log.contains("panicked"), "{log}");
        let connected = self.agent.log().matches("INFO connected ").count();
        assert_eq!(connected, 1, "the agent had to connect again:\n{}", self.agent.log());
        let mib = mib(&mut self.controller);
        assert!(
            mib < self.mib_before + MIB_OF_GROWTH,
            "{mib} MiB, from {} MiB",
            self.mib_before
        );
    }

    /// An attacker that has a certificate: a machine that was enrolled and is no longer ours.
    pub fn stolen(&self) -> muster_tests::agent::Setup {
        let setup = self.controller.agent("stolen");
        setup.enroll().expect_code(0);
        setup
    }

    /// What the controller answers to a request for enrollment.
    pub async fn enroll(&self, request: EnrollRequest) -> Result<EnrollResponse, Status> {
        let channel = dial::channel(&self.controller, self.controller.agents_port, None).await;
        let channel = channel.map_err(|error| Status::unknown(error.to_string()))?;
        let answer = EnrollmentServiceClient::new(channel).enroll(request).await;
        answer.map(tonic::Response::into_inner)
    }
}

/// Resident memory.
fn mib(controller: &mut Controller) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", controller.process().pid())).expect("a process");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .expect("VmRSS");
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib / 1024
}

pub fn run<T>(attack: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(attack)
}

/// The reason of a refusal, as scripts see it.
pub fn reason(status: &Status) -> Option<ErrorReason> {
    Problem::from_status(status).map(|problem| problem.reason)
}
