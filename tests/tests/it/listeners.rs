//! The listeners under strangers, floods and shortages, and the lease that lets one controller at a time have them.

use std::{io::Read as _, net::TcpStream, time::Duration};

use muster_tests::{
    Controller, Process, binaries,
    ctl::Outcome,
    poll::{self, SECOND},
    process,
};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

#[test]
fn older_tls_is_refused_by_both_listeners() {
    let controller = Controller::start();
    for address in [controller.api(), controller.endpoint()] {
        let mut command = process::clean_command("curl", "/".as_ref());
        command.args([
            "--silent",
            "--show-error",
            "--insecure",
            "--tls-max",
            "1.2",
            &format!("https://{address}/"),
        ]);
        let outcome = Outcome::of(command);
        // CURLE_SSL_CONNECT_ERROR.
        assert_eq!(outcome.code, 35, "{outcome}");
    }
}

#[test]
fn a_connection_that_says_nothing_is_closed() {
    let controller = Controller::start();
    for port in [controller.agents_port, controller.api_port] {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .expect("a time-out");
        let read = stream.read(&mut [0; 16]);
        let closed = match &read {
            Ok(bytes) => *bytes == 0,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        };
        assert!(closed, "{read:?}");
    }
}

#[test]
fn a_controller_without_file_descriptors_keeps_its_agents_and_recovers() {
    let mut controller = Controller::start_with("link: { heartbeat: 1s }");
    let _agent = controller.agent("web-01").start();
    controller.wait_for_agent("web-01", "ONLINE");

    let pid = Pid::from_raw(i32::try_from(controller.process().pid()).expect("a pid")).expect("a pid");
    let open = std::fs::read_dir(format!("/proc/{}/fd", controller.process().pid()))
        .expect("a process")
        .count();
    let limit = Rlimit {
        current: Some(open as u64 + 5),
        maximum: getrlimit(Resource::Nofile).maximum,
    };
    prlimit(Some(pid), Resource::Nofile, limit).expect("the limit is set");
    let flood: Vec<TcpStream> = (0..100)
        .filter_map(|_| TcpStream::connect(("127.0.0.1", controller.api_port)).ok())
        .collect();
    assert!(flood.len() > 10, "{} connections", flood.len());
    poll::until("no descriptor is left", 10 * SECOND, || {
        let open = std::fs::read_dir(format!("/proc/{pid}/fd"))
            .map_err(|error| error.to_string())?
            .count() as u64;
        if Some(open) >= limit.current {
            Ok(())
        } else {
            Err(format!("{open} of {:?}", limit.current))
        }
    });

    drop(flood);
    poll::until("operators are let in again", 30 * SECOND, || {
        controller.ctl().items(&["agent", "list"])
    });
    let agent = controller
        .ctl()
        .agent_is("web-01", "ONLINE")
        .expect("the agent is there");
    let connected = agent["connection"]["sessionId"].clone();
    assert!(controller.is_running(), "{connected}");
    assert_eq!(
        controller.log().matches("agent connected").count(),
        1,
        "the agent had to connect again"
    );
}

#[test]
fn a_second_controller_on_the_same_database_waits_until_the_first_is_gone() {
    let mut controller = Controller::start();
    let _agent = controller.agent("web-01").start();
    controller.wait_for_agent("web-01", "ONLINE");

    let mut command = process::clean_command(binaries::path("muster-server"), "/".as_ref());
    command.args(["run", "--config"]).arg(controller.config());
    let mut standby = Process::start("standby", command, controller.path("standby.log"));
    poll::until("the second controller waits", 20 * SECOND, || {
        assert!(standby.is_running(), "it ended:\n{}", standby.output());
        let log = standby.output();
        if log.contains("standby") || log.contains("waiting") {
            Ok(())
        } else {
            Err(log)
        }
    });
    controller.ctl().ok(&["agent", "list"]);

    controller.kill();
    poll::until("the second controller takes over", 30 * SECOND, || {
        assert!(standby.is_running(), "it ended:\n{}", standby.output());
        controller.ctl().items(&["agent", "list"])
    });
    controller.wait_for_agent("web-01", "ONLINE");
    assert!(standby.stop().success(), "{}", standby.output());
}
