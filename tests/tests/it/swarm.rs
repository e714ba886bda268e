//! A small swarm against the real controller: every record it makes is accounted for by asking the API, whatever is done to
//! the links and to the controller. Times are for `tests/prove.sh link`.

use std::process::Command;

use muster_tests::{binaries, ctl::Outcome, process, turn};
use serde_json::Value;

/// The program with a controller of its own.
fn swarm(arguments: &[&str]) -> Value {
    let mut command: Command = process::command(binaries::path("swarm"));
    command.arg("--start-controller").args(arguments);
    let directory = binaries::path("swarm");
    command.env(
        "MUSTER_TEST_BIN_DIR",
        directory.parent().expect("it lies in a directory"),
    );
    let outcome = Outcome::of(command);
    let said = outcome.expect_code(0);
    serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{said}\nnot JSON: {error}"))
}

fn assert_all_is_accounted_for(document: &Value) {
    let account = &document["account"];
    for kind in ["results", "metric_batches", "log_entries"] {
        let of_kind = &account[kind];
        assert!(of_kind["made"].as_u64() > Some(0), "nothing was reported: {document:#}");
        assert_eq!(of_kind["made"], of_kind["stored"], "{document:#}");
    }
    for never in ["lost", "doubled", "dropped"] {
        assert_eq!(account[never], 0, "{never}: {document:#}");
    }
    assert_eq!(document["false_offline"], 0, "{document:#}");
    assert_eq!(document["rejected"], 0, "{document:#}");
}

#[test]
fn a_fleet_whose_links_are_cut_and_whose_controller_is_killed_loses_and_doubles_nothing() {
    let _turn = turn::of_heavy_tests();
    let document = swarm(&[
        "--agents",
        "120",
        "--profile",
        "all",
        "--logs-interval",
        "2s",
        "--duration",
        "12s",
        "--series",
        "20",
        "--metrics-interval",
        "2s",
        "--checks",
        "60",
        "--cut",
        "5",
        "--restart-controller",
        "5s",
        "--skew",
        "10m",
    ]);
    assert_all_is_accounted_for(&document);
    assert!(document["load"]["cuts"].as_u64() > Some(20), "{document:#}");
    assert_eq!(document["load"]["restarts"], 2, "{document:#}");
    // All have come once, and again after the last restart.
    assert!(document["links"]["welcomes"].as_u64() >= Some(240), "{document:#}");
}

#[test]
fn what_a_fleet_recorded_alone_for_an_hour_arrives_once_beside_what_comes_meanwhile() {
    let _turn = turn::of_heavy_tests();
    let document = swarm(&[
        "--agents",
        "20",
        "--profile",
        "all",
        "--duration",
        "5s",
        "--outage",
        "1h",
        "--series",
        "20",
    ]);
    assert_all_is_accounted_for(&document);
    let made = document["account"]["results"]["made"].as_u64();
    assert!(made >= Some(20 * 600), "{document:#}");
}

#[test]
fn a_fleet_with_its_queues_on_disk_is_accounted_for_and_a_frame_to_all_comes_back_from_all() {
    let _turn = turn::of_heavy_tests();
    let dir = tempfile::tempdir().expect("a directory");
    let spool = dir.path().to_str().expect("a path in UTF-8");
    let document = swarm(&[
        "--agents",
        "30",
        "--profile",
        "all",
        "--logs-interval",
        "1s",
        "--duration",
        "4s",
        "--series",
        "10",
        "--metrics-interval",
        "1s",
        "--checks",
        "60",
        "--disk-spool",
        spool,
        "--broadcast",
        "--cold-restart",
        "--floor",
    ]);
    assert_all_is_accounted_for(&document);
    assert_eq!(document["broadcast"]["applied_on"], 30, "{document:#}");
    assert_eq!(document["floor"]["links"], 30, "{document:#}");
    assert!(document["ratio_to_floor"]["memory_idle"].is_number(), "{document:#}");
    assert!(document["cold_restart"]["all_back_s"].is_number(), "{document:#}");
}
