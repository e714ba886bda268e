use super::*;
use crate::clock::{HOUR, SECOND};

fn party(machine: &str, boot: &str, process: &str) -> Party {
    Party {
        machine: machine.into(),
        boot: boot.into(),
        process: process.into(),
        serial: "s1".into(),
        remote: "192.0.2.1:1".into(),
        ..Party::default()
    }
}

/// An agent, the machine that is connected, and a clock.
#[derive(Default)]
struct Bench {
    machines: Machines,
    live: Option<Party>,
    now: Micros,
    suspicions: Vec<Suspicion>,
    /// Nothing was heard of the agent for a while.
    is_gone: bool,
}

impl Bench {
    /// A newcomer comes; `answers` is what the live session would say to a probe.
    fn comes(&mut self, newcomer: &Party, answers: bool) -> Decision {
        self.now += SECOND;
        let decide = |bench: &Self, probe| {
            let live = bench.live.as_ref().map(|party| Live { party, probe });
            bench.machines.decide(live, bench.is_gone, newcomer, bench.now)
        };
        let decision = match decide(self, Probe::Open) {
            Decision::Probe if answers => decide(self, Probe::Answered),
            Decision::Probe => decide(self, Probe::Silent),
            decision => decision,
        };
        let suspicion = self.machines.decided(decision, self.live.as_ref(), newcomer, self.now);
        self.suspicions.extend(suspicion);
        if matches!(decision, Decision::Admit | Decision::Displace) {
            self.live = Some(newcomer.clone());
        }
        decision
    }

    /// The live session is seen to end.
    fn ends(&mut self) {
        self.live = None;
    }
}

#[test]
fn a_machine_alone_is_let_in_however_it_comes_back() {
    let before = party("m1", "b1", "p1");
    // What comes after `before`, whether the old session was seen to end, and what happens.
    let cases = [
        (
            "killed and started again",
            party("m1", "b1", "p2"),
            true,
            Decision::Admit,
        ),
        ("rebooted", party("m1", "b2", "p2"), true, Decision::Admit),
        ("power lost", party("m1", "b2", "p2"), false, Decision::Displace),
        (
            "the network went and came",
            party("m1", "b1", "p1"),
            false,
            Decision::Admit,
        ),
        ("migrated while it ran", party("m1", "b1", "p1"), false, Decision::Admit),
        (
            "moved to other hardware",
            party("m2", "b2", "p2"),
            true,
            Decision::Admit,
        ),
        (
            "restored elsewhere, the old one is lost",
            party("m2", "b2", "p2"),
            false,
            Decision::Displace,
        ),
        (
            "an agent that says nothing of its machine",
            Party::default(),
            false,
            Decision::Displace,
        ),
    ];
    for (what, newcomer, ended, expected) in cases {
        let mut bench = Bench::default();
        assert_eq!(bench.comes(&before, false), Decision::Admit, "{what}");
        if ended {
            bench.ends();
        }
        assert_eq!(bench.comes(&newcomer, false), expected, "{what}");
        assert_eq!(bench.suspicions, [], "{what}");
    }
}

#[test]
fn a_session_that_answers_is_not_disturbed_whoever_comes() {
    let original = party("m1", "b1", "p1");
    let copies = [
        ("another machine", party("m2", "b2", "p2")),
        ("a copy of the machine with its machine id", party("m1", "b2", "p2")),
        (
            "a copy of the state directory on the same machine",
            party("m1", "b1", "p2"),
        ),
        ("a machine copied with its memory", party("m1", "b1", "p1")),
        ("one that says nothing of itself", Party::default()),
    ];
    for (what, copy) in copies {
        let mut bench = Bench::default();
        bench.comes(&original, true);
        for _ in 0..300 {
            assert_eq!(bench.comes(&copy, true), Decision::Refuse, "{what}");
        }
        assert_eq!(bench.live.as_ref(), Some(&original), "{what}");
    }
}

#[test]
fn a_copy_that_was_refused_does_not_slip_in_while_the_agent_connects_again() {
    let original = party("m1", "b1", "p1");
    let refused = Party {
        was_refused: true,
        ..party("m1", "b1", "p2")
    };
    let mut bench = Bench::default();
    bench.comes(&original, true);
    bench.ends();
    assert_eq!(bench.comes(&refused, true), Decision::Refuse);
    // The agent itself comes, restarted or not.
    assert_eq!(bench.comes(&party("m1", "b1", "p3"), true), Decision::Admit);
    bench.ends();
    bench.is_gone = true;
    assert_eq!(bench.comes(&refused, true), Decision::Admit, "now it is needed");
}

#[test]
fn the_same_process_with_a_renewed_certificate_takes_its_own_place_unasked() {
    let mut bench = Bench::default();
    let before = party("m1", "b1", "p1");
    bench.comes(&before, true);
    let renewed = Party {
        serial: "s2".into(),
        ..before
    };
    assert_eq!(bench.comes(&renewed, true), Decision::Admit);
    assert!(!bench.machines.is_suspected(bench.now));
    let other_process = Party {
        serial: "s3".into(),
        ..party("m1", "b1", "p2")
    };
    assert_eq!(bench.comes(&other_process, true), Decision::Refuse);
}

#[test]
fn a_process_that_others_took_over_from_gives_itself_away_when_it_comes_back() {
    let (one, two) = (party("m1", "b1", "p1"), party("m1", "b1", "p2"));
    let mut bench = Bench::default();
    bench.comes(&one, true);
    assert_eq!(bench.comes(&two, false), Decision::Displace);
    assert!(!bench.machines.is_suspected(bench.now), "once may be a dead connection");
    // The second does not answer either, but the first is no dead machine.
    assert_eq!(bench.comes(&one, false), Decision::Refuse);
    assert_eq!(bench.suspicions, [Suspicion::CameBack]);
    assert!(bench.machines.is_suspected(bench.now));
    // As long as that is fresh, silence is not enough for anybody.
    assert_eq!(bench.comes(&party("m3", "b3", "p3"), false), Decision::Refuse);
    // One whose session has timed out does not keep the agent away for good.
    bench.ends();
    assert_eq!(bench.comes(&one, false), Decision::Admit);
}

#[test]
fn a_boot_that_others_took_over_from_gives_itself_away_though_its_agent_was_restarted() {
    let mut bench = Bench::default();
    bench.comes(&party("m1", "b1", "p1"), true);
    assert_eq!(bench.comes(&party("m2", "b2", "p2"), false), Decision::Displace);
    bench.ends();
    assert_eq!(bench.comes(&party("m1", "b1", "p9"), false), Decision::Admit);
    assert_eq!(bench.suspicions, [Suspicion::CameBack]);
    // It is the agent now: that it comes again is nothing new.
    bench.ends();
    assert_eq!(bench.comes(&party("m1", "b1", "p10"), false), Decision::Admit);
    assert_eq!(bench.suspicions.len(), 1);
}

#[test]
fn three_displacements_in_ten_minutes_are_suspicious_and_calm_down() {
    let machine = |n: u32| party("m1", &format!("b{n}"), &format!("p{n}"));
    let mut bench = Bench::default();
    bench.comes(&machine(0), true);
    for n in 1..=3 {
        assert_eq!(bench.comes(&machine(n), false), Decision::Displace);
    }
    assert_eq!(bench.suspicions, [Suspicion::Displacements]);
    assert_eq!(bench.comes(&machine(4), false), Decision::Refuse);
    bench.now += WINDOW;
    assert_eq!(bench.comes(&machine(4), false), Decision::Displace);
    assert!(!bench.machines.is_suspected(bench.now));
}

#[test]
fn a_machine_that_loses_its_power_once_an_hour_is_never_suspected() {
    let mut bench = Bench::default();
    bench.comes(&party("m1", "b0", "p0"), true);
    for n in 1..100 {
        bench.now += HOUR;
        let rebooted = party("m1", &format!("b{n}"), &format!("p{n}"));
        assert_eq!(bench.comes(&rebooted, false), Decision::Displace);
    }
    assert_eq!(bench.suspicions, []);
    assert!(bench.machines.boots.len() <= BOOTS && bench.machines.displaced.len() <= BOOTS);
}

#[test]
fn what_is_known_of_machines_survives_the_database() {
    let mut bench = Bench::default();
    bench.comes(&party("m1", "b1", "p1"), true);
    bench.comes(&party("m2", "b2", "p2"), false);
    let loaded = Machines::from_json(&bench.machines.to_json()).expect("JSON");
    assert_eq!(loaded, bench.machines);
    assert_eq!(Machines::from_json("{}").expect("as in a new row"), Machines::default());
    // After a restart of the controller too, the first machine is known for one that was replaced.
    bench.machines = loaded;
    bench.ends();
    bench.comes(&party("m1", "b1", "p1"), false);
    assert_eq!(bench.suspicions, [Suspicion::CameBack]);
}

#[test]
fn refusals_become_one_event_a_minute_with_their_number() {
    let mut conflict = Conflict::default();
    let copy = party("m2", "b2", "p2");
    let start = HOUR;
    let told: Vec<Option<u64>> = (0..300).map(|n| conflict.refused(&copy, start + n)).collect();
    assert_eq!(told[0], Some(1));
    assert!(told[1..].iter().all(Option::is_none));
    assert_eq!(conflict.refused(&copy, start + MINUTE), Some(300));
    let warning = conflict
        .warning(&Machines::default(), start + MINUTE)
        .expect("a warning");
    assert!(warning.contains("refused 301 times"), "{warning}");
    assert!(warning.contains("machine id m2"), "{warning}");
    assert!(conflict.is_open(start + 5 * MINUTE));
    assert_eq!(conflict.warning(&Machines::default(), start + HOUR), None);
    assert!(!conflict.is_open(start + HOUR));
}

#[test]
fn forks_of_an_agent_are_bounded_by_the_hour() {
    let mut conflict = Conflict::default();
    let allowed = (0..10).filter(|n| conflict.count_fork(4, 10 * HOUR + n)).count();
    assert_eq!(allowed, 4);
    assert!(conflict.count_fork(4, 11 * HOUR + MINUTE));
}

#[test]
fn an_operators_window_goes_before_the_token_and_the_token_before_the_configuration() {
    use OnClone::{Fork, Refuse};
    let table = [
        (0, None, Refuse, Refuse),
        (0, None, Fork, Fork),
        (0, Some(Refuse), Fork, Refuse),
        (0, Some(Fork), Refuse, Fork),
        (101, Some(Refuse), Refuse, Fork),
        (100, Some(Refuse), Refuse, Refuse),
    ];
    for (until, token, configured, expected) in table {
        assert_eq!(
            on_clone(until, token, configured, 100),
            expected,
            "{until} {token:?} {configured:?}"
        );
    }
}

#[test]
fn what_a_machine_says_of_itself_is_short_and_printable() {
    let party = Party::new(
        Some(v1::Fingerprint {
            machine_id: "m\u{1b}[31m\n1".into(),
            host_name: "h".repeat(10_000),
            ..v1::Fingerprint::default()
        }),
        "s1",
        "192.0.2.1:1",
    );
    assert_eq!(party.machine, "m[31m1");
    assert_eq!(party.host.len(), MAX_TEXT);
}
