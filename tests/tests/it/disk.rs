//! The controller on a disk that fills: what it takes less of, what operators can still do, and that nothing is lost.

mod agent;
mod postgresql;

use std::{
    fs,
    os::unix::fs::{FileExt as _, PermissionsExt as _},
};

use muster_tests::{Agent, Controller, ServerYaml, SmallDisk, poll, small_disk};
use serde_json::{Value, json};

use super::counting;

const FILE: &str = "host";
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// A controller on a small disk of its own with one agent that counts.
fn start(settings: &ServerYaml) -> (Controller, SmallDisk, Agent) {
    let (mut controller, disk) = Controller::set_up_on("size=64m", &settings.to_string());
    controller.run();
    counting::apply(&controller, FILE);
    let agent = controller.agent("host").start();
    controller.wait_for_agent("host", "ONLINE");
    stored(&agent, 2);
    (controller, disk, agent)
}

/// What the doctor says while all is well, and the controller runs or not.
fn nothing_is_wrong(controller: &Controller, is_running: bool) {
    let report = findings(controller, 0);
    for area in [
        "configuration",
        "disk",
        "retention",
        "database",
        "certificates",
        "clock",
        "files",
        "lease",
    ] {
        let (level, text) = finding(&report, area);
        assert_ne!(level, "problem", "{area}: {text}");
    }
    let (_, lease) = finding(&report, "lease");
    assert_eq!(!lease.contains("no controller"), is_running, "{lease}");
}

/// Until so many more results are acknowledged than now.
fn stored(agent: &Agent, more: u64) {
    let acknowledged = || Ok::<u64, String>(counting::results(&agent.status()?, "acknowledged"));
    let before = poll::until("the agent has a status", PATIENCE, acknowledged);
    poll::until("results are stored", PATIENCE, || {
        let now = acknowledged()?;
        if now >= before + more {
            Ok(())
        } else {
            Err(now.to_string())
        }
    });
}

fn waiting(agent: &Agent, queue: &str) -> Result<u64, String> {
    let status = agent.status()?;
    let queues = status["queues"].as_array().ok_or("no queues")?;
    let queue = queues.iter().find(|it| it["name"] == queue).ok_or("no such queue")?;
    queue["records"].as_u64().ok_or_else(|| status.to_string())
}

/// With patience for several looks: the agent writes down every quarter of a minute how much waits, and as long as PostgreSQL
/// finds room in the pages that it has, what waited is taken whenever the controller tries again.
fn more_wait(agent: &Agent, queue: &str, count: u64) {
    poll::until(&format!("{queue} wait with the agent"), 4 * PATIENCE, || {
        let now = waiting(agent, queue)?;
        if now >= count { Ok(()) } else { Err(now.to_string()) }
    });
}

fn told(controller: &Controller, reason: &str) -> Value {
    poll::until(&format!("the event {reason}"), PATIENCE, || {
        let events = controller.ctl().events(reason)?;
        events.first().cloned().ok_or_else(|| "not yet".to_owned())
    })
}

fn all_arrived(controller: &Controller, mut agent: Agent) {
    for queue in ["results", "metrics"] {
        poll::until(&format!("nothing of {queue} waits any longer"), PATIENCE, || {
            let now = waiting(&agent, queue)?;
            if now <= 1 { Ok(()) } else { Err(now.to_string()) }
        });
    }
    agent.stop();
    let stored = counting::stored(controller, &agent.id().expect("an id"));
    let mut once = stored.clone();
    once.dedup();
    assert_eq!(stored, once, "nothing is there twice");
    // The run that the agent's end has cut off has no result.
    let made = counting::runs(controller, FILE);
    let missing: Vec<u64> = (1..made).filter(|count| !stored.contains(count)).collect();
    assert!(missing.is_empty(), "{missing:?} of {made} are missing");
}

fn findings(controller: &Controller, exit: i32) -> Value {
    let outcome = controller.server(&["doctor", "-o", "json"]).expect_code(exit);
    serde_json::from_str(&outcome.stdout).expect("JSON")
}

/// What is said of one area, and how bad it is.
fn finding(report: &Value, area: &str) -> (String, String) {
    let findings = report["findings"].as_array().expect("findings");
    let finding = findings.iter().find(|finding| finding["area"] == area);
    let finding = finding.unwrap_or_else(|| panic!("nothing of {area} in {report}"));
    let text = |key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    (
        text("level"),
        format!("{} {} {}", text("what"), text("why"), text("do")),
    )
}

#[test]
fn a_disk_that_fills_is_given_less_and_less_and_gets_everything_when_there_is_room() {
    small_disk::alone("a controller on a disk that fills", || {
        let (controller, disk, agent) = start(&ServerYaml::new().heartbeat("1s"));
        let mut leaver = controller.agent("leaver");
        leaver.config["allow"] = json!({ "checks": false });
        let _leaver = leaver.start();
        controller.wait_for_agent("leaver", "ONLINE");
        let ballast = controller.data_dir().join("ballast");
        assert!(ballast.exists());

        disk.leave_free(8.0);
        let low = told(&controller, "DISK_LOW");
        assert_eq!(low["severity"], "EVENT_SEVERITY_WARNING", "{low}");
        more_wait(&agent, "metrics", 2);
        stored(&agent, 3);

        disk.leave_free(3.0);
        told(&controller, "DISK_FULL");
        more_wait(&agent, "results", 5);
        controller.wait_for_agent("host", "ONLINE");
        let report = findings(&controller, 1);
        let (level, text) = finding(&report, "disk");
        assert!(
            level == "problem" && text.contains("nothing is taken"),
            "{level}: {text}"
        );
        let uses = report["uses"].as_array().expect("uses");
        let filler = uses.iter().find(|used| used["what"] == "filler (not the controller's)");
        assert!(
            filler.and_then(|used| used["bytes"].as_u64()) > Some(30 << 20),
            "{report}"
        );

        disk.leave_free(0.0);
        poll::until("the ballast is given up", PATIENCE, || match ballast.exists() {
            true => Err("it is there"),
            false => Ok(()),
        });
        controller
            .ctl()
            .ok(&["agent", "revoke", "leaver", "--reason", "the disk is full"]);
        controller.token(&["--uses", "1"]);

        disk.make_room();
        told(&controller, "DISK_OK");
        all_arrived(&controller, agent);
        assert!(ballast.exists());
        let log = controller.log();
        let ended: Vec<&str> = log.lines().filter(|line| line.contains("agent disconnected")).collect();
        let planned = ended.iter().filter(|line| line.contains("Goodbye")).count();
        assert_eq!((ended.len(), planned), (2, 1), "links stay: {log}");
    });
}

#[test]
fn writes_that_find_no_room_acknowledge_nothing_and_are_not_tried_again_and_again() {
    small_disk::alone("a controller on a full disk", || {
        let settings = ServerYaml::new()
            .heartbeat("1s")
            .line("disk: { refuse_metrics_below: 0%, refuse_results_below: 0%, ballast: none }");
        let (controller, disk, agent) = start(&settings);
        if controller.database_url().is_some() {
            // PostgreSQL writes elsewhere: the run on SQLite is the one that fills the disk of the database.
            return;
        }
        disk.leave_free(0.0);
        more_wait(&agent, "results", 8);
        controller.wait_for_agent("host", "ONLINE");
        let attempts = controller.log().matches("nothing was acknowledged").count();
        assert!(
            (1..=6).contains(&attempts),
            "{attempts} attempts:\n{}",
            controller.log()
        );
        let refused = poll::until("a change finds no room", PATIENCE, || {
            let outcome = controller.ctl().run(&["token", "create", "--ttl", "1h"]);
            if outcome.code == 0 { Err(outcome) } else { Ok(outcome) }
        });
        refused.explains().says(&["DISK_FULL", "muster-server doctor"]);

        disk.make_room();
        let full = told(&controller, "DISK_FULL");
        assert!(
            full["message"]
                .as_str()
                .is_some_and(|text| text.contains("found no room")),
            "{full}"
        );
        told(&controller, "DISK_OK");
        all_arrived(&controller, agent);
        let log = controller.log();
        assert_eq!(log.matches("agent disconnected").count(), 1, "the link stays: {log}");
        assert!(!log.contains("panicked"), "{log}");
        let (level, text) = finding(&findings(&controller, 0), "database");
        assert_eq!(level, "ok", "{text}");
    });
}

#[test]
fn a_controller_that_starts_on_a_full_disk_gives_up_its_ballast_for_that() {
    small_disk::alone("a controller that starts on a full disk", || {
        let (mut controller, disk, agent) = start(&ServerYaml::new().heartbeat("1s"));
        controller.stop();
        disk.leave_free(0.0);
        controller.run();
        controller.wait_for_agent("host", "ONLINE");
        more_wait(&agent, "results", 3);
        disk.make_room();
        told(&controller, "DISK_OK");
        all_arrived(&controller, agent);
    });
}

#[test]
fn the_doctor_finds_nothing_wrong_with_a_controller_that_runs_or_not_and_says_what_is() {
    let mut controller = Controller::start();
    for is_running in [true, false] {
        nothing_is_wrong(&controller, is_running);
        if is_running {
            controller.stop();
        }
    }
    let names: Vec<_> = files(&controller);
    let key = controller.data_dir().join("pki/policy-key.pem");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("a mode");
    let outcome = controller.server(&["doctor"]).expect_code(1);
    for text in ["problem  files", "policy-key.pem", "why ", "do ", "chmod 600"] {
        assert!(outcome.stdout.contains(text), "'{text}' is not said:\n{outcome}");
    }
    assert_eq!(files(&controller), names, "it leaves nothing behind");

    if controller.database_url().is_none() {
        let database = controller.data_dir().join("control.db");
        let file = fs::File::options().write(true).open(&database).expect("the database");
        file.write_all_at(&[0xff; 8192], 4096).expect("damaged");
        let (level, text) = finding(&findings(&controller, 1), "database");
        assert_eq!(level, "problem", "{text}");
    }
}

fn files(controller: &Controller) -> Vec<String> {
    let entries = fs::read_dir(controller.data_dir())
        .expect("the data directory")
        .flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}
