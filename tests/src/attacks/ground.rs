//! A controller under attack with two healthy agents beside it, and what "unharmed" means: the agents report, operators are
//! answered, memory, CPU and open files are back at base, nothing has panicked.

use std::{
    fmt::Display,
    fs,
    time::{Duration, Instant},
};

use muster_certs::identity_file::IdentityFile;
use serde_json::{Value, json};

use super::{
    dialer::Dialer,
    forge::{Credentials, Signer},
    report::Recovery,
};
use crate::{
    Agent, Controller, dial,
    poll::{self, SECOND},
};

pub const HEALTHY: [&str; 2] = ["healthy-1", "healthy-2"];
/// How much larger than before the first attack the controller may be after one. What an attack holds while it lasts is
/// bounded by its connections; the rest is what the allocator keeps.
const MIB_OF_GROWTH: u64 = 96;
/// Of one core, for all that two agents and an operator ask.
const CPU_PERCENT: u64 = 25;
/// Connections of operators come and go.
const FILES_OF_GROWTH: usize = 16;
/// A connection that was let in and shows nothing is closed after 30 s; handshakes end after 10.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub struct Ground {
    pub controller: Controller,
    pub agents: Vec<Agent>,
    pub dialer: Dialer,
    base: Size,
}

#[derive(Debug, Clone, Copy)]
struct Size {
    mib: u64,
    files: usize,
}

impl Ground {
    pub fn start() -> Self {
        let controller = Controller::start();
        let pulse = json!({
            "apiVersion": "muster/v1", "kind": "Check", "metadata": { "name": "pulse" },
            "spec": { "selector": "role=healthy", "schedule": { "interval": "1s" }, "timeout": "1s", "run": { "memory": {} } },
        });
        controller.apply(&pulse.to_string());
        let agents: Vec<Agent> = HEALTHY
            .iter()
            .map(|name| controller.agent(name).label("role", "healthy").start())
            .collect();
        for name in HEALTHY {
            poll::until("a healthy agent reports", 30 * SECOND, || {
                controller.ctl().state(name, "pulse")
            });
        }
        let dialer = Dialer {
            agents_port: controller.agents_port,
            api_port: controller.api_port,
            source: [127, 0, 0, 1].into(),
        };
        let mut ground = Self {
            controller,
            agents,
            dialer,
            base: Size { mib: 0, files: 0 },
        };
        ground.base = ground.size();
        ground
    }

    /// The key of the controller's issuing CA, as only whoever took its disk has it: to try what an honest CA never signs.
    pub fn ca(&self) -> Signer {
        let pki = self.controller.data_dir().join("pki");
        Signer::load(&pki.join("issuing.pem"), &pki.join("issuing-key.pem"))
    }

    /// The operator's identity.
    pub fn operator(&self) -> IdentityFile {
        dial::operator(&self.controller.path("tester.yaml"))
    }

    /// A machine of the fleet that is in the hands of the attacker: its certificate is good, until somebody notices.
    pub fn stolen(&self, name: &str) -> IdentityFile {
        let setup = self.controller.agent(name);
        setup.enroll().expect_code(0);
        IdentityFile::load(&setup.path("state/identity.pem")).expect("an identity")
    }

    pub fn healthy(&self) -> Credentials {
        let path = self.agents[0].setup().path("state/identity.pem");
        Credentials::of(&IdentityFile::load(&path).expect("an identity"))
    }

    /// The inventory as operators see it.
    pub fn inventory(&self) -> Vec<Value> {
        poll::until("operators are answered", 20 * SECOND, || {
            self.controller.ctl().items(&["agent", "list"])
        })
    }

    /// Waits until all is as before the attack, or says what is not.
    pub fn recovered(&mut self) -> Result<Recovery, String> {
        let start = Instant::now();
        let mut seen = HEALTHY.map(|_| Vec::new());
        wait("the healthy agents report", || {
            for (name, runs) in HEALTHY.iter().zip(&mut seen) {
                let state = self.controller.ctl().state(name, "pulse")?;
                let run = state["lastRun"].as_str().unwrap_or_default().to_owned();
                if runs.last() != Some(&run) {
                    runs.push(run);
                }
            }
            // The second new one began after the attack for certain.
            let reported = seen.iter().all(|runs| runs.len() > 2);
            if reported {
                Ok(())
            } else {
                Err(format!("results of {seen:?}"))
            }
        })?;
        for name in HEALTHY {
            self.controller.ctl().agent_is(name, "ONLINE")?;
        }
        let log = self.controller.log();
        if let Some(line) = log.lines().find(|line| line.contains("panicked")) {
            return Err(format!("a panic: {line}"));
        }
        for agent in &self.agents {
            let connected = agent.log().matches("INFO connected ").count();
            if connected != 1 {
                return Err(format!("a healthy agent had to connect {connected} times"));
            }
        }
        let base = self.base;
        let mut used = (Instant::now(), self.controller.process().cpu_ticks());
        wait("the controller is back at base", || {
            let now = self.size();
            let elapsed = used.0.elapsed();
            if elapsed < SECOND {
                return Err("the use of CPU is measured over a second".to_owned());
            }
            let ticks = self.controller.process().cpu_ticks();
            // A tick is a hundredth of a second.
            let cpu_percent = (ticks - used.1) * 1000 / elapsed.as_millis() as u64;
            used = (Instant::now(), ticks);
            let is_at_base = now.mib <= base.mib + MIB_OF_GROWTH
                && cpu_percent <= CPU_PERCENT
                && now.files <= base.files + FILES_OF_GROWTH;
            if !is_at_base {
                return Err(format!("{now:?} from {base:?}, {cpu_percent} % of a core"));
            }
            Ok(Recovery {
                base_mib: base.mib,
                mib: now.mib,
                cpu_percent,
                open_files: now.files,
                seconds: start.elapsed().as_secs(),
            })
        })
    }

    fn size(&mut self) -> Size {
        let pid = self.controller.process().pid();
        let maps = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("the controller runs");
        // Of its own: what it shares with others of its kind depends on how many of them run.
        let own = ["Pss_Anon:", "SwapPss:"].map(|field| {
            let line = maps
                .lines()
                .find_map(|line| line.strip_prefix(field))
                .expect("a field of the kernel");
            line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number")
        });
        let kib: u64 = own.iter().sum();
        let files = fs::read_dir(format!("/proc/{pid}/fd"))
            .expect("the controller runs")
            .count();
        Size { mib: kib / 1024, files }
    }
}

fn wait<T, E: Display>(what: &str, condition: impl FnMut() -> Result<T, E>) -> Result<T, String> {
    poll::attempt(PATIENCE, condition).map_err(|status| format!("waited for: {what}; last status: {status}"))
}
