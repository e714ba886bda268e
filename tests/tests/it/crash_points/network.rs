//! The network is cut, or falls silent, after so many bytes of an enrollment, each way. Some of the cuts come when the
//! controller has enrolled the machine already and the answer is on its way.

use std::thread;

use muster_tests::{Controller, Proxy, agent::Setup, ctl::Outcome, proxy::Fault};

use super::assert_enrolled_once;

/// Bytes from one cut to the next: a prime, so that cuts are anywhere in frames.
const STEP: usize = 151;

const UNREACHABLE: i32 = 3;
const TOO_LONG: i32 = 6;

#[test]
fn an_enrollment_whose_network_is_cut_anywhere_is_whole_after_the_next_with_the_use_it_had() {
    let controller = Controller::start();
    let mut setups = Vec::new();
    let mut lost_answers = 0;
    for (way, fault) in [("up", Fault::CutUp as fn(u64) -> Fault), ("down", Fault::CutDown)] {
        let proxy = Proxy::to(&controller.endpoint());
        for bytes in (0..).step_by(STEP) {
            let setup = controller.agent(&format!("{way}-{bytes}")).through(&proxy.endpoint());
            proxy.set(fault(bytes));
            let outcome = setup.enroll_once();
            let was_cut = outcome.code != 0;
            if was_cut {
                outcome.expect_code(UNREACHABLE).explains();
                let after = controller.ctl().items(&["agent", "list"]).expect("agents").len();
                lost_answers += after - setups.len();
            }
            proxy.set(Fault::Forward);
            setup.enroll_once().expect_code(0);
            setups.push(setup);
            if !was_cut {
                break;
            }
        }
    }
    assert!(setups.len() > 20, "{} cuts", setups.len());
    assert!(lost_answers > 0, "no answer of a controller that had enrolled was lost");
    println!(
        "cut at {} places, {lost_answers} of them in the answer",
        setups.len() - 2
    );
    assert_enrolled_once(&controller, &setups);
}

#[test]
fn an_enrollment_whose_network_falls_silent_is_whole_after_the_next_with_the_use_it_had() {
    let controller = Controller::start();
    let places = [0, 1, 1000, 1300, 1500, 2000, 2500, 3000];
    let faults: Vec<Fault> = places
        .into_iter()
        .flat_map(|bytes| [Fault::StallUp(bytes), Fault::StallDown(bytes)])
        .collect();
    let controller = &controller;
    let setups: Vec<(Setup, bool)> = thread::scope(|scope| {
        let silent: Vec<_> = faults
            .iter()
            .map(|&fault| scope.spawn(move || falls_silent(controller, fault)))
            .collect();
        silent.into_iter().map(|it| it.join().expect("no panic")).collect()
    });
    let (setups, was_silent): (Vec<_>, Vec<_>) = setups.into_iter().unzip();
    assert!(was_silent.iter().filter(|it| **it).count() > 6, "{was_silent:?}");
    assert_enrolled_once(controller, &setups);
}

/// Whether that kept the machine from enrolling in time.
fn falls_silent(controller: &Controller, fault: Fault) -> (Setup, bool) {
    let proxy = Proxy::to(&controller.endpoint());
    proxy.set(fault);
    let setup = controller.agent(&format!("{fault:?}")).through(&proxy.endpoint());
    let outcome = Outcome::of(setup.command(&["enroll", "--timeout", "2s"]));
    let was_silent = outcome.code != 0;
    if was_silent {
        outcome.expect_code(TOO_LONG).explains();
    }
    proxy.set(Fault::Forward);
    setup.enroll().expect_code(0);
    (setup, was_silent)
}
