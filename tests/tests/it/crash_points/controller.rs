//! The controller is killed before each part of the commit of an enrollment or a renewal: while it writes, before it syncs,
//! and before it answers. The machine waits, and asks again.

use std::time::SystemTime;

use muster_certs::identity_file::IdentityFile;
use muster_tests::{
    Agent, Controller, Process, ServerYaml,
    agent::Setup,
    poll::{self, SECOND},
    strace::Strace,
};
use rustix::process::Signal;

use super::{assert_enrolled_once, assert_no_copies};

/// Between one crash and the next, in calls: a commit writes two of the first for each page.
const SQLITE: [(&str, usize); 2] = [("pwrite64", 7), ("fsync,fdatasync", 1)];
/// What it says to the database.
const POSTGRES: [(&str, usize); 1] = [("sendto", 1)];
/// What it says to the machine.
const ANSWER: (&str, usize) = ("writev", 2);

const MANY: usize = 200;

#[test]
fn a_controller_killed_at_any_step_of_a_commit_enrolls_the_machine_when_it_is_back_with_one_use() {
    let mut controller = Controller::start();
    let Some(strace) = Strace::find(&controller.path("")) else {
        return;
    };
    let mut setups = Vec::new();
    for (call, step) in calls(&controller) {
        let before = setups.len();
        for nth in (1..MANY).step_by(step) {
            let name = call.split(',').next().unwrap_or_default();
            let setup = controller.agent(&format!("{name}-{nth}"));
            let was_killed = enroll_while_it_is_killed(&mut controller, &strace, &setup, call, nth);
            setups.push(setup);
            if !was_killed {
                break;
            }
        }
        println!("killed at {} of {call}", setups.len() - before - 1);
        assert!(setups.len() - before > 1, "nobody was killed at {call}");
    }
    assert_enrolled_once(&controller, &setups);
}

/// All that a commit and its answer are made of.
fn calls(controller: &Controller) -> Vec<(&'static str, usize)> {
    let database = match controller.database_url() {
        Some(_) => &POSTGRES[..],
        None => &SQLITE[..],
    };
    database.iter().chain([&ANSWER]).copied().collect()
}

/// Stops following, if it can: strace may hang over a process that its own kill has reached at this very moment.
fn leave(follower: &mut Process) {
    follower.signal(Signal::TERM);
    let gone = || if follower.is_running() { Err("it runs") } else { Ok(()) };
    let _ = poll::attempt(10 * SECOND, gone);
}

/// Has a controller that answers, once nobody follows it. A kill from which strace was torn away may end it a moment later.
fn wake(controller: &mut Controller) {
    poll::until("the controller answers", 60 * SECOND, || {
        if !controller.is_running() {
            controller.run();
        }
        controller.ctl().items(&["agent", "list"])
    });
}

/// Whether it was killed before the machine was enrolled.
fn enroll_while_it_is_killed(
    controller: &mut Controller,
    strace: &Strace,
    setup: &Setup,
    call: &str,
    nth: usize,
) -> bool {
    let mut follower = strace.kill_running(controller.process(), call, nth);
    let mut enroll = Process::start("enroll", setup.command(&["enroll"]), setup.path("enroll.log"));
    poll::until("it is enrolled or the controller is dead", 60 * SECOND, || {
        match enroll.is_running() && controller.is_running() {
            true => Err("neither"),
            false => Ok(()),
        }
    });
    let was_killed = enroll.is_running();
    if !was_killed {
        leave(&mut follower);
    }
    drop(follower);
    wake(controller);
    let ended = enroll.wait(60 * SECOND);
    assert!(ended.success(), "{}", enroll.output());
    was_killed
}

#[test]
fn a_controller_killed_at_any_step_of_a_renewal_renews_the_certificate_when_it_is_back() {
    let settings = ServerYaml::new().agent_certificates("10s").heartbeat("2s");
    let mut controller = Controller::start_with(&settings.to_string());
    let Some(strace) = Strace::find(&controller.path("")) else {
        return;
    };
    // Their certificates have ended when they start: the first that they do is to renew.
    let mut machines = controller.fleet("web", 30);
    for machine in &machines {
        machine.enroll().expect_code(0);
    }
    poll::until("all certificates have ended", 30 * SECOND, || {
        let youngest = machines.iter().map(|it| identity(it).not_after()).max();
        match youngest < Some(SystemTime::now()) {
            true => Ok(()),
            false => Err("not yet"),
        }
    });
    let mut kills = 0;
    for (call, step) in calls(&controller) {
        let before = kills;
        // Farther between than for enrollments: each takes a machine of its own.
        for nth in (1..MANY).step_by(step + 2) {
            let machine = machines.pop().expect("another machine");
            if !renew_while_it_is_killed(&mut controller, &strace, machine, call, nth) {
                break;
            }
            kills += 1;
        }
        println!("killed at {} of {call}", kills - before);
        assert!(kills > before, "nobody was killed at {call}");
    }
    assert_no_copies(&controller);
}

/// Whether it was killed before the certificate was renewed.
fn renew_while_it_is_killed(
    controller: &mut Controller,
    strace: &Strace,
    machine: Setup,
    call: &str,
    nth: usize,
) -> bool {
    let old = identity(&machine).serial().to_owned();
    let is_renewed = |agent: &Agent| identity(agent.setup()).serial() != old;
    let mut follower = strace.kill_running(controller.process(), call, nth);
    let mut agent = machine.start();
    let was_killed = poll::until("it has renewed or the controller is dead", 60 * SECOND, || {
        match (controller.is_running(), is_renewed(&agent)) {
            (false, _) => Ok(true),
            (true, true) => Ok(false),
            (true, false) => Err("neither"),
        }
    });
    if !was_killed {
        leave(&mut follower);
    }
    drop(follower);
    wake(controller);
    poll::until("it has renewed and is connected", 60 * SECOND, || {
        let status = agent.status()?;
        match is_renewed(&agent) && status["connection"]["state"] == "connected" {
            true => Ok(()),
            false => Err(format!("{status}\n{}", agent.log())),
        }
    });
    agent.stop();
    was_killed
}

fn identity(machine: &Setup) -> IdentityFile {
    IdentityFile::load(&machine.path("state/identity.pem")).expect("an identity")
}
