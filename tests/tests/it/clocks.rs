//! Hosts whose clocks are wrong. An hour does no harm; where a year does, both clocks are named.

use muster_tests::{
    Controller, ServerYaml,
    agent::Setup,
    poll::{self, SECOND},
    tools,
};

fn with_clock(setup: Setup, offset: &str) -> Option<Setup> {
    let setup = setup.with_clock(offset);
    if setup.is_none() {
        tools::skipped(
            "an agent whose clock is wrong",
            "libfaketime is not installed (Debian: faketime)",
        );
    }
    setup
}

#[test]
fn a_host_whose_clock_is_an_hour_fast_enrolls_links_and_renews() {
    lives_with("+1h");
}

#[test]
fn a_host_whose_clock_is_an_hour_slow_enrolls_links_and_renews() {
    lives_with("-1h");
}

fn lives_with(offset: &str) {
    let settings = ServerYaml::new().agent_certificates("10s").heartbeat("1s");
    let controller = Controller::start_with(&settings.to_string());
    let Some(setup) = with_clock(controller.agent("host"), offset) else {
        return;
    };
    setup.enroll().expect_code(0);
    let agent = setup.start();
    controller.wait_for_agent("host", "ONLINE");
    poll::until("three renewals", 60 * SECOND, || {
        match agent.log().matches("the certificate was renewed").count() {
            0..3 => Err(agent.log()),
            _ => Ok(()),
        }
    });
    controller.wait_for_agent("host", "ONLINE");
    let complaints: Vec<String> = agent
        .log()
        .lines()
        .filter(|line| line.contains("ERROR"))
        .map(str::to_owned)
        .collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
    poll::until("operators see how far the clock is off", 30 * SECOND, || {
        let host = controller.ctl().agent_is("host", "ONLINE")?;
        let skew = &host["connection"]["clockSkewMicros"];
        let seconds = skew.as_str().and_then(|micros| micros.parse::<i64>().ok()).unwrap_or(0) / 1_000_000;
        if (3590..3610).contains(&seconds.abs()) {
            Ok(())
        } else {
            Err(host.to_string())
        }
    });
    let event = poll::until("an event says that the clock is off", 60 * SECOND, || {
        let events = controller.ctl().events("AGENT_CLOCK_SKEW")?;
        events.first().cloned().ok_or("no event".to_owned())
    });
    assert_eq!(event["agentName"], "host", "{event}");
}

#[test]
fn a_host_whose_clock_is_years_off_is_told_of_both_clocks() {
    let controller = Controller::start();
    for offset in ["+20y", "-20y"] {
        let Some(setup) = with_clock(controller.agent("host"), offset) else {
            return;
        };
        let outcome = setup.enroll_once();
        assert_ne!(outcome.code, 0, "{outcome}");
        for clock in [
            "the clock of this machine says 20",
            "the server's certificate",
            "timedatectl",
        ] {
            assert!(outcome.stderr.contains(clock), "'{clock}' is not said:\n{outcome}");
        }
    }
}
