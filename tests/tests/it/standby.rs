//! Two controllers on one database: the second takes the agents over, however the first one ends.

use muster_tests::{
    Agent, Controller,
    poll::{self, SECOND},
    postgres::Server,
};
use serde_json::json;

use super::{counting, drain::transitions};

const AGENTS: usize = 4;

/// A controller with its agents, which know both, and one that waits.
struct Pair {
    first: Controller,
    second: Controller,
    agents: Vec<Agent>,
}

impl Pair {
    fn start(settings: &str) -> Option<Self> {
        Self::of(Controller::start_with(settings))
    }

    fn of(first: Controller) -> Option<Self> {
        let mut second = first.standby()?;
        // Its checks are named by the processes of their agents, each of which counts for itself.
        counting::apply(&first, "$PPID");
        let agents = first.fleet("host", AGENTS).into_iter().map(|mut setup| {
            setup.config["server"]["endpoints"] = json!([first.endpoint(), second.endpoint()]);
            setup.start()
        });
        let agents = agents.collect();
        all_are_online(&first);
        second.stand_by();
        Some(Self { first, second, agents })
    }

    fn runs(&mut self) -> Vec<(String, u64)> {
        let runs = self.agents.iter_mut().map(|agent| {
            let file = agent.process().pid().to_string();
            (agent.id().expect("an id"), counting::runs(&self.first, &file))
        });
        runs.collect()
    }

    fn each_has_run(&mut self, more: u64) {
        let before = self.runs();
        poll::until("checks run", 60 * SECOND, || {
            let now = self.runs();
            let all = now.iter().zip(&before).all(|(now, before)| now.1 >= before.1 + more);
            if all { Ok(()) } else { Err(format!("{now:?}")) }
        });
    }

    /// Every run of every agent is stored, once.
    fn nothing_is_lost(mut self) {
        for agent in &self.agents {
            poll::until("all that waited is stored", 60 * SECOND, || {
                let status = agent.status()?;
                let connected = status["connection"]["state"] == "connected";
                if connected && counting::results(&status, "records") <= 1 {
                    Ok(())
                } else {
                    Err(status.to_string())
                }
            });
        }
        let before = self.runs();
        for agent in &mut self.agents {
            agent.stop();
        }
        for (id, runs) in before {
            let stored = counting::stored(&self.first, &id);
            let expected: Vec<u64> = (1..=stored.len() as u64).collect();
            assert_eq!(stored, expected, "of {id} each is there once");
            // The last one may have been cut off by the agent's end.
            assert!(stored.len() as u64 + 1 >= runs, "{} of {runs} are stored", stored.len());
        }
    }
}

fn all_are_online(controller: &Controller) {
    poll::until("all agents are online", 120 * SECOND, || {
        let agents = controller.ctl().items(&["agent", "list"])?;
        let online = agents
            .iter()
            .filter(|agent| agent["status"] == "AGENT_STATUS_ONLINE" && agent["statusUnconfirmed"].is_null());
        if online.count() == AGENTS {
            Ok(())
        } else {
            Err(format!("{agents:?}"))
        }
    });
}

/// The second one is active, has all agents, and nobody was anything but online meanwhile.
fn took_over(pair: &mut Pair, before: &[serde_json::Value]) {
    poll::until("the second controller answers", 60 * SECOND, || {
        assert!(pair.second.is_running(), "the second one ended:\n{}", pair.second.log());
        pair.second.ctl().items(&["agent", "list"])
    });
    all_are_online(&pair.second);
    let shown = pair.second.ctl().json(&["controller", "get"]);
    assert_eq!(
        (&shown["name"], &shown["database"]),
        (&"controller2".into(), &"DATABASE_KIND_POSTGRES".into()),
        "{shown}"
    );
    let agent = &pair.second.ctl().items(&["agent", "list"]).expect("agents")[0];
    assert_eq!(agent["connection"]["controller"], "controller2", "{agent}");
    assert_eq!(transitions(&pair.second), before, "nobody was late or offline");
}

#[test]
fn a_standby_has_all_agents_after_the_active_controller_is_killed() {
    let Some(mut pair) = Pair::start("") else { return };
    pair.each_has_run(3);
    let before = transitions(&pair.first);
    pair.first.kill();
    took_over(&mut pair, &before);
    pair.each_has_run(3);
    pair.nothing_is_lost();
}

#[test]
fn a_standby_has_all_agents_after_the_active_controller_is_stopped_and_gives_them_back() {
    let Some(mut pair) = Pair::start("") else { return };
    pair.each_has_run(3);
    let before = transitions(&pair.first);
    pair.first.stop();
    took_over(&mut pair, &before);
    // The one that was active is the standby now.
    pair.first.launch();
    poll::until("the first one is standby", 60 * SECOND, || {
        let log = pair.first.log();
        if log.contains("waiting as standby") {
            Ok(())
        } else {
            Err(log)
        }
    });
    pair.second.stop();
    poll::until("the first controller answers", 60 * SECOND, || {
        pair.first.ctl().items(&["agent", "list"])
    });
    all_are_online(&pair.first);
    assert_eq!(transitions(&pair.first), before);
    pair.nothing_is_lost();
}

#[test]
fn keys_that_were_brought_to_a_standby_while_it_waited_are_those_that_it_uses() {
    let Some(mut pair) = Pair::start("") else { return };
    let active = |controller: &Controller| {
        let status = controller.ctl().json(&["ca", "status"]);
        let items = status["items"].as_array().expect("CAs").clone();
        let active = items.into_iter().find(|ca| ca["phase"] == "CA_PHASE_ACTIVE");
        active.expect("an active CA")["id"].clone()
    };
    let old = active(&pair.first);
    pair.first.ctl().ok(&["ca", "prepare", "--yes"]);
    poll::until("all agents trust the next CA", 60 * SECOND, || {
        let outcome = pair.first.ctl().run(&["ca", "activate", "--yes"]);
        if outcome.code == 0 {
            Ok(())
        } else {
            Err(outcome.to_string())
        }
    });
    let new = active(&pair.first);
    assert_ne!(new, old);
    pair.second.copy_keys(&pair.first);
    let before = transitions(&pair.first);
    pair.first.kill();
    took_over(&mut pair, &before);
    assert_eq!(active(&pair.second), new);
}

#[test]
fn a_standby_with_old_keys_says_so_when_it_takes_over() {
    let Some(mut pair) = Pair::start("") else { return };
    pair.first.ctl().ok(&["ca", "prepare", "--yes"]);
    poll::until("all agents trust the next CA", 60 * SECOND, || {
        let status = pair.first.ctl().json(&["ca", "status"]);
        if status["agentsAcknowledged"] == AGENTS {
            Ok(())
        } else {
            Err(status.to_string())
        }
    });
    // What the agents have said last is not on file yet.
    pair.first.kill();
    poll::until("the second controller tells", 60 * SECOND, || {
        let events = pair.second.ctl().events("CONTROLLER_KEYS_OLD")?;
        if events.len() == 1 {
            Ok(())
        } else {
            Err(format!("{events:?}"))
        }
    });
    // Bringing them is enough.
    pair.second.copy_keys(&pair.first);
    poll::until("they are taken over", 60 * SECOND, || {
        let status = pair.second.ctl().json(&["ca", "status"]);
        let prepared = status["items"].as_array().is_some_and(|items| items.len() == 2);
        if prepared { Ok(()) } else { Err(status.to_string()) }
    });
}

#[test]
fn a_standby_takes_over_when_postgresql_is_started_again() {
    let Some(server) = Server::start("PostgreSQL that is started again") else {
        return;
    };
    let mut first = Controller::set_up_at(&server, "");
    first.run();
    let Some(mut pair) = Pair::of(first) else { return };
    pair.each_has_run(3);
    let before = transitions(&pair.first);
    server.restart();
    took_over(&mut pair, &before);
    poll::until("the one that was active has ended", 60 * SECOND, || {
        if pair.first.is_running() {
            Err(pair.first.log())
        } else {
            Ok(())
        }
    });
    pair.each_has_run(3);
    pair.nothing_is_lost();
}
