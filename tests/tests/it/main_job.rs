//! `muster-server dev`, the first command of the README: from nothing to an agent and its states.

use std::{collections::BTreeSet, fs, os::unix::fs::MetadataExt as _};

use muster_tests::{
    Dev, binaries,
    ctl::Outcome,
    poll::{self, SECOND},
    process,
};
use rustix::process::Signal;

#[test]
fn dev_has_an_online_agent_and_five_states_soon_after_it_is_ready() {
    let dev = Dev::start();
    let endpoints = dev.endpoints().expect("dev is ready");
    for listener in ["agents", "api"] {
        let address = endpoints[listener].as_str().expect("an address");
        assert!(
            address.starts_with("127.0.0.1:") && !address.ends_with(":0"),
            "{endpoints}"
        );
    }

    let agent = poll::until("the one agent is online", 10 * SECOND, || {
        let agents = dev.ctl().items(&["agent", "list"])?;
        match agents.as_slice() {
            [agent] if agent["status"] == "AGENT_STATUS_ONLINE" => Ok(agent.clone()),
            _ => Err(format!("{agents:?}")),
        }
    });
    let states = poll::until("five states are not pending", 30 * SECOND, || {
        let states = dev.ctl().items(&["state", "list"])?;
        let ready = states
            .iter()
            .filter(|state| state["state"] != "CHECK_STATE_PENDING")
            .count();
        if ready >= 5 {
            Ok(states)
        } else {
            Err(format!("{ready} of {states:?}"))
        }
    });
    for state in &states {
        assert_eq!(state["agentName"], agent["name"]);
        // The example policies need no plugin and nothing special of a host: whatever they find, they can find out.
        assert_ne!(state["state"], "CHECK_STATE_UNKNOWN", "{state}");
    }
    let applied = poll::until("the agent has said what became of its policies", 10 * SECOND, || {
        let agents = dev.ctl().items(&["agent", "list"])?;
        let policies = agents[0]["policies"].clone();
        if policies["applied"] == policies["assigned"] {
            Ok(policies)
        } else {
            Err(policies.to_string())
        }
    });
    assert!(applied["applied"].as_i64() >= Some(7), "{applied}");
}

#[test]
fn dev_shows_metrics_of_this_host_under_the_names_of_node_exporter() {
    let dev = Dev::start();
    let names: BTreeSet<&str> = [
        "node_load1",
        "node_memory_MemAvailable_bytes",
        "node_cpu_seconds_total",
        "node_filesystem_avail_bytes",
        "node_network_receive_bytes_total",
        "node_boot_time_seconds",
    ]
    .into();
    for name in names {
        let values = poll::until(name, 30 * SECOND, || {
            let values = dev.ctl().items(&["metric", "query", name])?;
            if values.is_empty() {
                Err("no value yet".to_owned())
            } else {
                Ok(values)
            }
        });
        assert_eq!(values[0]["name"], name);
        assert_eq!(values[0]["labels"]["job"], "node");
        assert!(values[0]["labels"]["instance"].is_string() && values[0]["labels"]["agent_id"].is_string());
    }
}

#[test]
fn what_dev_writes_is_for_its_owner_alone() {
    let dev = Dev::start();
    let mode = |path: &std::path::Path| fs::metadata(path).expect("it is there").mode() & 0o777;
    assert_eq!(mode(&dev.data_dir()), 0o700);
    assert_eq!(mode(&dev.data_dir().join("admin.yaml")), 0o600);
}

#[test]
fn dev_stops_in_order_at_the_first_signal() {
    let mut dev = Dev::start();
    dev.process.signal(Signal::TERM);
    let status = dev.process.wait(5 * SECOND);
    assert!(status.success(), "{status}\n{}", dev.process.output());
}

#[test]
fn dev_ends_at_once_at_the_second_signal() {
    let mut dev = Dev::start();
    dev.process.signal(Signal::INT);
    dev.process.signal(Signal::INT);
    // Whether the first one was enough already or not: it is over.
    dev.process.wait(2 * SECOND);
}

#[test]
fn dev_opens_itself_to_other_machines_only_when_told_so() {
    let home = tempfile::tempdir().expect("a directory");
    let mut command = process::clean_command(binaries::path("muster-server"), home.path());
    command
        .args(["dev", "--agent-listen", "0.0.0.0:0", "--data-dir"])
        .arg(home.path().join("data"));
    let outcome = Outcome::of(command);
    assert_ne!(outcome.code, 0, "{outcome}");
    outcome.says(&["--agent-listen", "--allow-remote"]);
    assert!(!home.path().join("data").exists(), "it made its directory all the same");
}
