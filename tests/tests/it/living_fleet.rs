//! A fleet whose certificates are good for seconds, over what takes years elsewhere: every agent renews many times, the CA is
//! rotated as a whole, and the controller restarts in each phase of it. Nobody who should get in is refused, nothing that was
//! acknowledged is lost, and no agent is ever shown as anything but online.
//!
//! Small here; `tests/prove.sh identity` runs it in full and shows the counts.

mod log;

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

use muster_tests::{
    Agent, Controller, ServerYaml,
    poll::{self, SECOND},
    settings, turn,
};
use serde_json::{Value, json};

use super::counting;

type Step = fn(&mut Fleet);

/// How much of it.
struct Plan {
    agents: usize,
    life: Duration,
    /// Of each agent.
    renewals: usize,
}

impl Plan {
    fn of_environment() -> Self {
        match settings::fleet() {
            Some(agents) => Self {
                agents,
                life: 20 * SECOND,
                renewals: 30,
            },
            None => Self {
                agents: 8,
                life: 10 * SECOND,
                renewals: 5,
            },
        }
    }
}

#[test]
fn a_fleet_lives_through_renewals_a_rotation_of_the_ca_and_restarts_in_each_phase() {
    let _turn = turn::of_heavy_tests();
    let plan = Plan::of_environment();
    let settings = ServerYaml::new().agent_certificates(&format!("{}s", plan.life.as_secs()));
    let mut fleet = Fleet::start(&plan, &settings);

    let stages: [(&str, Step); 4] = [
        ("one CA", |_| {}),
        ("prepared", Fleet::prepare),
        ("activated", Fleet::activate),
        ("retired", Fleet::retire),
    ];
    for (index, (phase, enter)) in stages.into_iter().enumerate() {
        enter(&mut fleet);
        fleet.restart();
        // An even share of the renewals in each phase, and two for every agent in any case.
        fleet.wait_for_renewals(phase, (plan.renewals * (index + 1) / stages.len()).max(2 * index + 1));
    }
    let report = fleet.end(&plan);
    println!("{}", serde_json::to_string_pretty(&report.json).expect("JSON"));
    assert!(report.broken.is_empty(), "{:#?}\n{}", report.broken, report.json);
}

struct Fleet {
    controller: Controller,
    agents: Vec<Agent>,
    /// What each agent's log had when the port was closed, and when it was open again.
    closed: Vec<Vec<(usize, usize)>>,
    rotations: usize,
    restarts: usize,
    /// The CA that the fleet started with.
    first_ca: String,
    /// What the controller counted before each of its ends.
    refusals: BTreeMap<String, u64>,
    life: Duration,
    start: Instant,
}

struct Report {
    json: Value,
    /// Promises that did not hold.
    broken: Vec<String>,
}

impl Fleet {
    fn start(plan: &Plan, settings: &ServerYaml) -> Self {
        let controller = Controller::start_with(&settings.to_string());
        // Each agent is one process to the end.
        counting::apply(&controller, "$PPID");
        let agents: Vec<Agent> = controller
            .fleet("host", plan.agents)
            .into_iter()
            .map(|mut setup| {
                setup.config["logging"] = json!({ "format": "json" });
                setup.start()
            })
            .collect();
        let first_ca = controller.ctl().json(&["ca", "status"])["items"][0]["id"].clone();
        let fleet = Self {
            first_ca: first_ca.as_str().expect("an id").to_owned(),
            closed: vec![Vec::new(); agents.len()],
            controller,
            agents,
            rotations: 0,
            restarts: 0,
            refusals: BTreeMap::new(),
            life: plan.life,
            start: Instant::now(),
        };
        poll::until("all are online", 60 * SECOND, || fleet.all_online());
        fleet
    }

    fn all_online(&self) -> Result<(), String> {
        let agents = self.controller.ctl().items(&["agent", "list"])?;
        let online = agents.iter().filter(|agent| agent["status"] == "AGENT_STATUS_ONLINE");
        match online.count() {
            online if online == self.agents.len() => Ok(()),
            online => Err(format!("{online} of {}", self.agents.len())),
        }
    }

    fn prepare(&mut self) {
        self.ca(&["prepare"]);
    }

    fn activate(&mut self) {
        // Refused until every agent has said that it trusts the new one.
        self.ca(&["activate"]);
        // The operator's certificate is of the old CA as well.
        let context = self.controller.path("tester.yaml");
        fs::remove_file(&context).expect("the context file is there");
        self.controller.create_admin("tester", "tester.yaml").expect_code(0);
    }

    fn retire(&mut self) {
        // Refused until no agent needs the old one any longer.
        self.ca(&["retire"]);
        self.rotations += 1;
    }

    /// A step of the rotation, as soon as the controller agrees.
    fn ca(&self, step: &[&str]) {
        let arguments = [&["ca"], step, &["--yes"]].concat();
        poll::until(&format!("ca {step:?}"), 6 * self.life, || {
            let outcome = self.controller.ctl().run(&arguments);
            if outcome.code == 0 {
                Ok(())
            } else {
                Err(outcome.to_string())
            }
        });
    }

    fn restart(&mut self) {
        self.count_refusals();
        let before: Vec<usize> = self.agents.iter().map(|agent| agent.log().len()).collect();
        self.controller.stop();
        self.controller.run();
        self.restarts += 1;
        poll::until("all are connected again", 90 * SECOND, || self.all_connected());
        for (closed, (agent, before)) in self.closed.iter_mut().zip(self.agents.iter().zip(before)) {
            closed.push((before, agent.log().len()));
        }
    }

    /// By what the controller counts: after a restart the status of all is what it was.
    fn all_connected(&self) -> Result<(), String> {
        match self.controller.metric("muster_controller_links") {
            links if links == self.agents.len() as u64 => Ok(()),
            links => Err(format!("{links} links")),
        }
    }

    fn wait_for_renewals(&self, phase: &str, least: usize) {
        let patience = self.life * u32::try_from(least).expect("few") + 60 * SECOND;
        poll::until(&format!("{phase}: {least} renewals of each agent"), patience, || {
            let few = self.agents.iter().map(log::renewals).min().expect("an agent");
            if few >= least {
                Ok(())
            } else {
                Err(format!("{few} of one"))
            }
        });
    }

    /// Those that the controller has counted since its start are added up.
    fn count_refusals(&mut self) {
        for (name, count) in log::refusals(&self.controller.metrics()) {
            *self.refusals.entry(name).or_default() += count;
        }
    }

    /// Ends everything in order, and then counts.
    fn end(mut self, plan: &Plan) -> Report {
        let seconds = self.start.elapsed().as_secs();
        self.all_online().expect("all are online to the end");
        self.count_refusals();
        let changes = ["AGENT_LATE", "AGENT_OFFLINE"]
            .iter()
            .map(|reason| self.controller.ctl().events(reason).expect("events").len())
            .sum::<usize>();
        let cas = self.controller.ctl().json(&["ca", "status"]);
        let statuses: Vec<Value> = self
            .agents
            .iter()
            .map(|agent| agent.status().expect("a status"))
            .collect();
        self.agents.iter_mut().for_each(Agent::stop);
        self.controller.stop();

        let renewals: Vec<usize> = self.agents.iter().map(log::renewals).collect();
        let complaints: Vec<String> = self
            .agents
            .iter()
            .zip(&self.closed)
            .flat_map(|(agent, closed)| log::complaints(&agent.log(), closed))
            .collect();
        let (stored, lost) = self.records(&statuses);
        let dropped: u64 = statuses.iter().map(|status| counting::results(status, "dropped")).sum();
        let refused: u64 = self.refusals.values().sum::<u64>() + complaints.len() as u64;

        let fewest = renewals.iter().copied().min().unwrap_or(0);
        let mut broken = Vec::new();
        let mut promise = |holds: bool, text: String| {
            if !holds {
                broken.push(text);
            }
        };
        let ca = |phase: &str| {
            let items = cas["items"].as_array().cloned().unwrap_or_default();
            items.into_iter().find(|ca| ca["phase"] == phase).unwrap_or_default()
        };
        let (active, retired) = (ca("CA_PHASE_ACTIVE"), ca("CA_PHASE_RETIRED"));
        promise(
            active["agents"] == self.agents.len() && retired["id"] == *self.first_ca,
            format!("the CA was not rotated: {cas}"),
        );
        promise(
            refused == 0,
            format!("{refused} refusals: {:?} {complaints:?}", self.refusals),
        );
        promise(lost.is_empty(), format!("acknowledged records were lost: {lost:?}"));
        promise(dropped == 0, format!("{dropped} records were dropped"));
        promise(changes == 0, format!("{changes} changes of status"));
        promise(fewest >= plan.renewals, format!("an agent renewed {fewest} times only"));
        Report {
            json: json!({
                "agents": self.agents.len(),
                "certificate_seconds": plan.life.as_secs(),
                "seconds": seconds,
                "renewals_per_agent": {
                    "min": fewest,
                    "max": renewals.iter().max(),
                    "total": renewals.iter().sum::<usize>(),
                },
                "ca_rotations": self.rotations,
                "controller_restarts": self.restarts,
                "refused_while_the_port_was_open": refused,
                "refusals": self.refusals,
                "complaints_of_agents": complaints,
                "records_stored": stored,
                "acknowledged_records_lost": lost.len(),
                "records_dropped": dropped,
                "status_changes": changes,
            }),
            broken,
        }
    }

    /// How many results are stored, and where one is missing: each agent's counter goes up by one, and never twice.
    fn records(&self, statuses: &[Value]) -> (usize, Vec<String>) {
        let (mut stored, mut lost) = (0, Vec::new());
        for (agent, status) in self.agents.iter().zip(statuses) {
            let id = agent.id().expect("an id");
            let counts = counting::stored(&self.controller, &id);
            let whole = counts.iter().copied().eq(1..=counts.len() as u64);
            let acknowledged = counting::results(status, "acknowledged");
            if !whole || (counts.len() as u64) < acknowledged {
                lost.push(format!("{id}: {acknowledged} acknowledged, stored {counts:?}"));
            }
            stored += counts.len();
        }
        (stored, lost)
    }
}
