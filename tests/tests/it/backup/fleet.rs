//! A backup that is older than what the fleet has been through is restored, and no agent is lost.

use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt as _, time::Duration};

use muster_proto::v1::CheckResult;
use muster_tests::{Agent, Controller, ServerYaml, poll, postgres::Database};
use prost::Message as _;
use serde_json::{Value, json};

use super::from_database;

const CHECK: &str = "counter";
/// Of certificates: short, and long enough for a machine that has much else to do.
const LIFE: Duration = Duration::from_secs(20);
/// For whatever the whole fleet has to do.
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn a_backup_restored_under_a_living_fleet_loses_no_agent() {
    let settings = ServerYaml::new()
        .agent_certificates(&format!("{}s", LIFE.as_secs()))
        .heartbeat("1s");
    let mut controller = Controller::start_with(&settings.to_string());
    apply(&controller, CHECK, "1s");
    let agents: Vec<Agent> = controller
        .fleet("host", 5)
        .into_iter()
        .map(|setup| setup.start())
        .collect();
    let applied = |controller: &Controller, count: usize| {
        poll::until("all have their policies", PATIENCE, || {
            all_applied(controller, 5, count)
        });
    };
    applied(&controller, 1);
    for n in 1..=5 {
        poll::until("all have a result", PATIENCE, || {
            controller.ctl().state(&format!("host-{n}"), CHECK)
        });
    }
    let unused = controller.token(&["--uses", "3"]);
    let unused_id = controller.ctl().items(&["token", "list"]).expect("tokens")[0]["id"].clone();

    let backup = controller.backup("yesterday");

    // What the backup does not know: certificates, policies, results, a revocation, an agent.
    let before: Vec<usize> = agents.iter().map(renewals).collect();
    poll::until("all have renewed", PATIENCE, || all_renewed(&agents, &before, 1));
    apply(&controller, CHECK, "2s");
    apply(&controller, "later", "1s");
    applied(&controller, 2);
    let newcomer = controller.agent("newcomer").start();
    controller.wait_for_agent("newcomer", "ONLINE");
    controller
        .ctl()
        .ok(&["agent", "revoke", "host-5", "--reason", "stolen"]);
    poll::until("host-5 is cut", PATIENCE, || {
        controller.ctl().agent_is("host-5", "REVOKED")
    });
    let acknowledged: Vec<u64> = agents.iter().map(acknowledged).collect();
    assert!(acknowledged.iter().all(|count| *count > 0), "{acknowledged:?}");
    controller.kill();
    let renewed: Vec<usize> = agents.iter().map(renewals).collect();

    let said = controller.restore(&backup, Database::create()).stdout;
    assert!(
        said.contains("tokens          1 void") && said.contains("policies        1 signed again"),
        "{said}"
    );
    controller.run();

    // All of them are back by themselves, also the one whose revocation is forgotten, and stay.
    poll::until("all are connected", PATIENCE, || all_connected(&controller, 5));
    applied(&controller, 1);
    poll::until("all renew as before", PATIENCE, || all_renewed(&agents, &renewed, 2));
    poll::until("all are connected", PATIENCE, || all_connected(&controller, 5));
    let policy = controller.ctl().json(&["policy", "get", CHECK]);
    assert_eq!(policy["spec"]["schedule"]["interval"], "1s", "{policy}");
    assert_eq!(controller.ctl().items(&["policy", "list"]).expect("policies").len(), 1);

    let events = |reason: &str| controller.ctl().events(reason).expect("events");
    let restored = events("BACKUP_RESTORED");
    assert_eq!(restored.len(), 1, "{restored:?}");
    assert_eq!(restored[0]["metadata"]["epoch"], "1", "{restored:?}");
    assert_eq!(
        of_agents(&events("AGENT_RENEWED_AFTER_RESTORE")),
        ids(&agents),
        "each of them renewed once more"
    );
    poll::until("what is missing is told", PATIENCE, || {
        let missing = of_agents(&controller.ctl().events("AGENT_RECORDS_MISSING")?);
        if missing == ids(&agents) {
            Ok(())
        } else {
            Err(format!("{missing:?}"))
        }
    });

    // A token of before is void, and says so.
    let token = controller
        .ctl()
        .json(&["token", "get", unused_id.as_str().expect("an id")]);
    assert_eq!(token["status"], "TOKEN_STATUS_REVOKED", "{token}");
    assert!(
        token["revokeReason"]
            .as_str()
            .is_some_and(|why| why.contains("restored")),
        "{token}"
    );
    let refused = muster_tests::agent::Setup::new("late", unused).enroll_once();
    refused.expect_code(4).says(&["TOKEN_INVALID"]);

    // Whom the backup does not know is told of, and comes back with a token.
    let id = newcomer.id().expect("an id");
    poll::until("the unknown agent is told of", PATIENCE, || {
        let told = of_agents(&controller.ctl().events("AGENT_NOT_ON_FILE")?);
        if told.contains(&id) {
            Ok(())
        } else {
            Err(format!("{told:?}"))
        }
    });
    let token = controller.token(&["--agent-id", &id]);
    newcomer.setup().write_token(&token.secret);
    poll::until("the unknown agent is back", PATIENCE, || all_connected(&controller, 6));

    stop(agents, newcomer);
    controller.stop();
    assert_no_result_is_double(&controller);
}

#[test]
fn a_backup_of_either_database_is_restored_into_either() {
    let mut controller = Controller::start_with("link: { heartbeat: 1s }");
    apply(&controller, CHECK, "1s");
    let agent = controller.agent("host-1").start();
    let result = |controller: &Controller| {
        poll::until("a result", PATIENCE, || all_applied(controller, 1, 1));
        poll::until("a result", PATIENCE, || controller.ctl().state("host-1", CHECK))
    };
    result(&controller);
    // Out of the one that this run is about, into SQLite, and back; where there is no other, it is SQLite each time.
    for (round, database) in [(1, None), (2, Database::create())] {
        let backup = controller.backup(&format!("backup-{round}"));
        let before = counts(&controller, &backup);
        controller.kill();
        controller.restore(&backup, database);
        let again = controller.backup(&format!("again-{round}"));
        let after = counts(&controller, &again);
        for table in [
            "agents",
            "agent_certificates",
            "policies",
            "states",
            "results",
            "users",
            "redemptions",
        ] {
            assert_eq!(before.get(table), after.get(table), "{table} in round {round}");
        }
        controller.run();
        poll::until("the agent is back", PATIENCE, || all_connected(&controller, 1));
        let first = result(&controller)["lastRun"].clone();
        poll::until("and reports", PATIENCE, || {
            let state = controller.ctl().state("host-1", CHECK)?;
            if state["lastRun"] == first {
                Err(state.to_string())
            } else {
                Ok(())
            }
        });
        let restored = controller.ctl().events("BACKUP_RESTORED").expect("events");
        assert_eq!(restored.len(), round, "{restored:?}");
        assert_eq!(restored[0]["metadata"]["epoch"], round.to_string(), "{restored:?}");
    }
    drop(agent);
}

/// Rows of each table, as `backup verify` tells them.
fn counts(
    controller: &Controller,
    backup: &muster_tests::controller::Backup,
) -> std::collections::BTreeMap<String, u64> {
    let said = backup.verify().expect_code(0).stdout;
    let line = said.lines().find_map(|line| line.strip_prefix("rows")).expect("rows");
    assert!(!line.is_empty(), "{}", controller.log());
    line.trim()
        .split(", ")
        .map(|pair| {
            let (table, count) = pair.split_once(' ').expect("a table and a number");
            (table.to_owned(), count.parse().expect("a number"))
        })
        .collect()
}

fn stop(agents: Vec<Agent>, newcomer: Agent) {
    for mut agent in agents.into_iter().chain([newcomer]) {
        agent.stop();
    }
}

/// Each run of the check says a number that it said never before.
fn assert_no_result_is_double(controller: &Controller) {
    let inventory = from_database(controller, async |db| {
        let mut all = Vec::new();
        for agent in db.agent_list().await.expect("agents") {
            let rows = db.result_list(&agent.id, CHECK).await.expect("results");
            all.push((agent.name, rows));
        }
        all
    });
    for (name, rows) in inventory {
        let outputs: Vec<String> = rows
            .iter()
            .map(|row| CheckResult::decode(row.as_slice()).expect("a result").output)
            .collect();
        let distinct: BTreeSet<&String> = outputs.iter().collect();
        assert_eq!(outputs.len(), distinct.len(), "{name}: {outputs:?}");
        assert!(name == "newcomer" || outputs.len() > 2, "{name}: {outputs:?}");
    }
}

fn all_connected(controller: &Controller, count: usize) -> Result<(), String> {
    let agents = controller.ctl().items(&["agent", "list"])?;
    let connected = |agent: &&Value| agent["status"] == "AGENT_STATUS_ONLINE" && !agent["connection"].is_null();
    match agents.iter().filter(connected).count() {
        connected if connected == count => Ok(()),
        _ => Err(json!(agents).to_string()),
    }
}

/// Every agent has been told to run `count` policies, and runs them.
fn all_applied(controller: &Controller, agents: usize, count: usize) -> Result<(), String> {
    all_connected(controller, agents)?;
    for agent in controller.ctl().items(&["agent", "list"])? {
        let name = agent["name"].as_str().unwrap_or_default();
        let agent = controller.ctl().try_json(&["agent", "get", name])?;
        let policies = &agent["policies"];
        if policies["assigned"] != count || policies["applied"] != count {
            return Err(format!("{name}: {policies}"));
        }
    }
    Ok(())
}

fn renewals(agent: &Agent) -> usize {
    agent.log().matches("the certificate was renewed").count()
}

fn all_renewed(agents: &[Agent], before: &[usize], times: usize) -> Result<(), String> {
    let now: Vec<usize> = agents.iter().map(renewals).collect();
    if now.iter().zip(before).all(|(now, before)| *now >= before + times) {
        Ok(())
    } else {
        Err(format!("{now:?} after {before:?}"))
    }
}

/// Results that the controller has taken from an agent.
fn acknowledged(agent: &Agent) -> u64 {
    let status = agent.status().expect("a status");
    let queues = status["queues"].as_array().expect("queues");
    let queue = queues.iter().find(|queue| queue["name"] == "results");
    queue.and_then(|queue| queue["acknowledged"].as_u64()).unwrap_or(0)
}

fn ids(agents: &[Agent]) -> BTreeSet<String> {
    agents.iter().map(|agent| agent.id().expect("an id")).collect()
}

fn of_agents(events: &[Value]) -> BTreeSet<String> {
    let id = |event: &Value| event["agentId"].as_str().map(str::to_owned);
    events.iter().filter_map(id).collect()
}

/// A check whose output is another one with every run.
fn apply(controller: &Controller, name: &str, interval: &str) {
    let script = controller.path("moment");
    if !script.exists() {
        fs::write(&script, "#!/bin/sh\nexec date +%s.%N\n").expect("a script");
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("a mode");
    }
    controller.apply(
        &json!({
            "apiVersion": "muster/v1", "kind": "Check", "metadata": { "name": name },
            "spec": { "selector": "*", "schedule": { "interval": interval }, "run": { "command": [script] } },
        })
        .to_string(),
    );
}
