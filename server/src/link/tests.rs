//! The session of the controller's end, as tables of events and what follows from them.

mod drain;
mod expiry;
mod intake;
mod probes;
mod rate;
mod room;

use std::{
    collections::BTreeMap,
    sync::{Arc, Barrier, Mutex},
    time::Duration,
};

use muster_proto::{
    ids::AgentId,
    v1::{self, AgentConfig, ConnectRequest, ConnectResponse, Lane, PolicySync, connect_request, connect_response},
};

use super::{
    Close, Config, Links, policy_sync,
    session::{Admitted, Effect, Event, Session},
};
use crate::{
    access::scope::Scope,
    agents::OnClone,
    clock::SECOND,
    clones::Party,
    ingest::{Done, Limits, Quotas, Share, SpoolId},
    policies::{Key, Policy, PolicySet},
};

const HEARTBEAT: i64 = 30 * SECOND;

fn agent() -> AgentId {
    "7d0c51c2-9f0e-4b57-a3a1-5e1f0c7b8d21".parse().expect("a UUID")
}

fn share() -> Share {
    Quotas::new(Limits::default()).share(agent(), 1, 0)
}

fn session() -> Session {
    let config = Config {
        heartbeat: HEARTBEAT,
        controller_name: "c1".into(),
        on_clone: OnClone::Refuse,
    };
    Session::new(agent(), config, i64::MAX, share(), 0)
}

fn frame(frame: connect_request::Frame) -> Event {
    Event::Frame(Box::new(ConnectRequest { frame: Some(frame) }))
}

fn hello() -> v1::Hello {
    v1::Hello {
        agent_id: agent().to_string(),
        protocol_version: 1,
        ..v1::Hello::default()
    }
}

fn admitted(policies: &Arc<PolicySet>) -> Event {
    Event::Admitted(Box::new(Admitted {
        trust_bundle: 1,
        session_id: "s1".into(),
        acked: Vec::new(),
        facts_digest: String::new(),
        policy_status_digest: String::new(),
        config: AgentConfig {
            name: "db-01".into(),
            ..AgentConfig::default()
        },
        policies: Some(policies.clone()),
        highest_generation: 0,
    }))
}

/// A session that is active, with an empty set.
fn active() -> Session {
    let mut session = session();
    session.handle(frame(connect_request::Frame::Hello(hello())), 0);
    session.handle(admitted(&Arc::new(PolicySet::default())), 0);
    session
}

fn heartbeat(echo: i64) -> Event {
    frame(connect_request::Frame::Heartbeat(v1::Heartbeat {
        echo_unix_micros: echo,
        ..v1::Heartbeat::default()
    }))
}

fn records(first_seq: u64, count: usize) -> connect_request::Frame {
    let record = v1::Record {
        time_unix_micros: 1,
        body: None,
    };
    connect_request::Frame::Records(v1::Records {
        lane: Lane::Results as i32,
        spool_id: "1-abc".into(),
        first_seq,
        records: vec![record; count],
        resends: 0,
    })
}

fn closes(effects: &[Effect]) -> Option<&Close> {
    effects.iter().find_map(|effect| match effect {
        Effect::Close(close) => Some(close),
        _ => None,
    })
}

fn sent(effects: &[Effect]) -> Vec<&connect_response::Frame> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Send(ConnectResponse { frame }) => frame.as_ref(),
            _ => None,
        })
        .collect()
}

fn policy(name: &str, version: i64, payload: usize) -> Arc<Policy> {
    let check = v1::Check::default();
    Arc::new(Policy {
        key: Key::check(name),
        version,
        labels: BTreeMap::new(),
        selector: muster_proto::selector::Selector::all(),
        scope: Scope::ALL,
        owner: String::new(),
        timings: muster_proto::check::timings(&check),
        check,
        signed: v1::Signed {
            payload: vec![7; payload].into(),
            ..v1::Signed::default()
        },
        created_at: 0,
        updated_at: 0,
        revision: 1,
    })
}

fn set(digest: &str, policies: &[Arc<Policy>]) -> Arc<PolicySet> {
    let policies = policies
        .iter()
        .map(|policy| (policy.key.clone(), policy.clone()))
        .collect();
    Arc::new(PolicySet {
        digest: digest.into(),
        policies,
    })
}

#[test]
fn nothing_but_hello_opens_a_link_and_only_once() {
    let mut early = session();
    let effects = early.handle(frame(connect_request::Frame::Heartbeat(v1::Heartbeat::default())), 0);
    assert!(matches!(closes(&effects), Some(Close::Protocol(_))), "{effects:?}");

    let mut twice = active();
    let effects = twice.handle(frame(connect_request::Frame::Hello(hello())), 0);
    assert!(matches!(closes(&effects), Some(Close::Protocol(_))), "{effects:?}");
}

#[test]
fn hello_must_name_the_agent_of_the_certificate_and_a_version_that_is_spoken() {
    let other = v1::Hello {
        agent_id: AgentId::random().to_string(),
        ..hello()
    };
    let effects = session().handle(frame(connect_request::Frame::Hello(other)), 0);
    assert!(
        matches!(closes(&effects), Some(Close::Protocol(text)) if text.contains("certificate")),
        "{effects:?}"
    );

    let newer = v1::Hello {
        protocol_version: 2,
        ..hello()
    };
    let effects = session().handle(frame(connect_request::Frame::Hello(newer)), 0);
    assert_eq!(closes(&effects), Some(&Close::Version { wanted: 2 }));
}

#[test]
fn welcome_is_the_first_answer_and_frames_that_came_early_follow_it() {
    let mut session = session();
    let effects = session.handle(frame(connect_request::Frame::Hello(hello())), 0);
    assert!(matches!(effects[..], [Effect::Admit(_)]), "{effects:?}");
    assert!(
        session.handle(frame(records(1, 2)), 0).is_empty(),
        "waits for the register"
    );

    let effects = session.handle(admitted(&Arc::new(PolicySet::default())), 0);
    assert!(matches!(sent(&effects)[0], connect_response::Frame::Welcome(welcome) if welcome.session_id == "s1"));
    assert!(
        effects
            .iter()
            .any(|effect| matches!(effect, Effect::Ingest(frame) if frame.first_seq == 1)),
        "{effects:?}"
    );
}

#[test]
fn records_are_acknowledged_only_when_they_are_committed() {
    let mut session = active();
    let effects = session.handle(frame(records(5, 3)), 1);
    assert!(sent(&effects).is_empty(), "no answer before the commit: {effects:?}");
    let spool: SpoolId = "1-abc".parse().expect("a spool");
    let rejected = vec![v1::Rejected {
        seq: 6,
        reason: "too large".into(),
    }];
    let done = Done {
        through_seq: 7,
        rejected: rejected.clone(),
    };
    let effects = session.handle(
        Event::Committed {
            lane: Lane::Results,
            spool,
            bytes: 10,
            done,
        },
        2,
    );
    match sent(&effects)[..] {
        [connect_response::Frame::Ack(ack)] => {
            assert_eq!((ack.through_seq, &ack.rejected), (7, &rejected));
            assert_eq!(ack.spool_id, "1-abc");
        }
        ref other => panic!("{other:?}"),
    }
}

#[test]
fn a_store_that_fails_ends_the_link_without_an_acknowledgement() {
    let mut session = active();
    session.handle(frame(records(1, 1)), 1);
    let effects = session.handle(Event::StoreFailed, 2);
    assert!(sent(&effects).is_empty());
    assert_eq!(closes(&effects), Some(&Close::StoreFailed));
    assert!(
        session.handle(Event::Tick, 3).is_empty(),
        "a closed session says nothing more"
    );
}

#[test]
fn an_agent_that_ignores_its_window_is_cut() {
    let mut session = active();
    let big = v1::Record {
        time_unix_micros: 1,
        body: Some(v1::record::Body::CheckResult(v1::CheckResult {
            output: "x".repeat(3_750),
            ..Default::default()
        })),
    };
    let mut frames = 0;
    let cut = loop {
        frames += 1;
        let records = v1::Records {
            lane: Lane::Results as i32,
            spool_id: "1-abc".into(),
            first_seq: frames,
            records: vec![big.clone()],
            resends: 0,
        };
        let effects = session.handle(frame(connect_request::Frame::Records(records)), 1);
        if let Some(close) = closes(&effects) {
            break close.clone();
        }
        assert!(frames < 100, "never cut");
    };
    assert!(matches!(cut, Close::Protocol(text) if text.contains("window")));
    assert_eq!(frames, 6, "two first windows of 8 KiB, and what lies over the edge");
}

#[test]
fn heartbeats_go_out_on_time_and_silence_ends_the_link() {
    let mut session = active();
    assert!(session.handle(Event::Tick, HEARTBEAT - 1).is_empty());
    let effects = session.handle(Event::Tick, HEARTBEAT);
    assert!(
        matches!(sent(&effects)[..], [connect_response::Frame::Heartbeat(_)]),
        "{effects:?}"
    );
    session.handle(
        frame(connect_request::Frame::Heartbeat(v1::Heartbeat::default())),
        HEARTBEAT,
    );
    assert_eq!(closes(&session.handle(Event::Tick, 5 * HEARTBEAT - 1)), None);
    assert_eq!(
        closes(&session.handle(Event::Tick, 5 * HEARTBEAT)),
        Some(&Close::Silent)
    );
}

#[test]
fn a_heartbeat_answers_a_heartbeat_and_no_other_goes_out_meanwhile() {
    let mut session = active();
    for beat in 1..5 {
        let now = beat * HEARTBEAT;
        let effects = session.handle(heartbeat(0), now);
        assert!(
            matches!(sent(&effects)[..], [connect_response::Frame::Heartbeat(_)]),
            "{effects:?}"
        );
        let at_once = session.handle(heartbeat(0), now + 1);
        assert!(
            sent(&at_once).is_empty(),
            "who talks all the time is not answered all the time"
        );
        assert!(session.deadline() > now + HEARTBEAT, "the next one is the agent's");
    }
}

#[test]
fn a_clock_that_is_set_back_stops_no_heartbeat() {
    let mut session = active();
    session.handle(Event::Tick, HEARTBEAT);
    for tick in [-9 * HEARTBEAT, -8 * HEARTBEAT] {
        let effects = session.handle(Event::Tick, tick);
        assert!(
            matches!(sent(&effects)[..], [connect_response::Frame::Heartbeat(_)]),
            "{effects:?}"
        );
    }
}

#[test]
fn a_heartbeat_tells_round_trip_and_skew() {
    let mut session = active();
    // Sent at 1,000,000 by the controller; 40 ms on the way in all; held 500 ms; the agent's clock is 2 s ahead.
    let heartbeat = v1::Heartbeat {
        echo_unix_micros: 1_000_000,
        echo_age_micros: 500_000,
        time_unix_micros: 3_520_000,
        lanes: Vec::new(),
    };
    let effects = session.handle(frame(connect_request::Frame::Heartbeat(heartbeat)), 1_540_000);
    let report = effects.iter().find_map(|effect| match effect {
        Effect::Report(report) => Some((report.round_trip, report.skew)),
        _ => None,
    });
    assert_eq!(report, Some((Some(40_000), Some(2_000_000))));
}

#[test]
fn an_agent_that_holds_the_set_already_is_sent_nothing() {
    let mut session = session();
    let policies = set("sha256:held", &[policy("disk", 1, 10)]);
    let held = v1::Hello {
        policy_set_digest: "sha256:held".into(),
        ..hello()
    };
    session.handle(frame(connect_request::Frame::Hello(held)), 0);
    let effects = session.handle(admitted(&policies), 0);
    assert!(
        !sent(&effects)
            .iter()
            .any(|frame| matches!(frame, connect_response::Frame::PolicySync(_))),
        "{effects:?}"
    );
}

#[test]
fn a_change_travels_as_a_difference_to_what_was_sent() {
    let mut session = active();
    let (disk, load) = (policy("disk", 1, 10), policy("load", 1, 10));
    session.handle(Event::Policies(set("one", &[disk.clone(), load])), 1);
    let effects = session.handle(Event::Policies(set("two", &[disk, policy("memory", 1, 10)])), 2);
    match sent(&effects)[..] {
        [
            connect_response::Frame::PolicySync(PolicySync {
                base_digest,
                set_digest,
                added,
                removed,
            }),
        ] => {
            assert_eq!((base_digest.as_str(), set_digest.as_str()), ("one", "two"));
            assert_eq!(added.len(), 1);
            assert_eq!(removed[0].name, "load");
        }
        ref other => panic!("{other:?}"),
    }
}

#[test]
fn no_frame_of_a_large_set_comes_near_the_limit() {
    let policies: Vec<Arc<Policy>> = (0..60).map(|n| policy(&format!("p{n}"), 1, 60 << 10)).collect();
    let frames = policy_sync::frames(None, &set("big", &policies));
    let sizes: Vec<usize> = frames.iter().map(prost::Message::encoded_len).collect();
    assert!(sizes.iter().all(|size| *size < 900 << 10), "{sizes:?}");
    let inline = match &frames.last().expect("a sync").frame {
        Some(connect_response::Frame::PolicySync(sync)) => sync.added.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!(inline + frames.len() - 1, 60, "every policy travels once");
}

#[test]
fn unknown_frames_are_ignored_and_counted() {
    let mut session = active();
    assert!(
        session
            .handle(Event::Frame(Box::new(ConnectRequest { frame: None })), 1)
            .is_empty()
    );
    assert_eq!(session.ignored_frames(), 1);
}

#[test]
fn a_goodbye_is_told_from_a_cut() {
    let mut session = active();
    let effects = session.handle(frame(connect_request::Frame::Goodbye(v1::Goodbye::default())), 1);
    assert_eq!(closes(&effects).map(Close::status_reason), Some("goodbye"));
    let mut session = active();
    let goodbye = v1::Goodbye {
        reason: v1::GoodbyeReason::Restarting.into(),
    };
    let effects = session.handle(frame(connect_request::Frame::Goodbye(goodbye)), 1);
    assert_eq!(closes(&effects).map(Close::status_reason), Some("restarting"));
    let mut session = active();
    assert_eq!(
        closes(&session.handle(Event::Ended, 1)).map(Close::status_reason),
        Some("eof")
    );
}

#[test]
fn a_heartbeat_with_impossible_times_is_no_more_than_a_strange_report() {
    for (echo_unix_micros, echo_age_micros, time_unix_micros) in [
        (i64::MAX, i64::MAX, i64::MIN),
        (1, i64::MAX, i64::MAX),
        (1, 0, i64::MIN),
        (i64::MIN, i64::MIN, 0),
    ] {
        let heartbeat = v1::Heartbeat {
            echo_unix_micros,
            echo_age_micros,
            time_unix_micros,
            lanes: Vec::new(),
        };
        let effects = active().handle(
            frame(connect_request::Frame::Heartbeat(heartbeat)),
            1_700_000_000_000_000,
        );
        assert!(
            effects.iter().any(|effect| matches!(effect, Effect::Report(_))),
            "{effects:?}"
        );
    }
}

#[test]
fn what_an_agent_says_of_itself_is_bounded() {
    use connect_request::Frame;
    let long = "x".repeat(60_000);
    let facts = |value: &str| v1::Facts {
        facts: (0..2).map(|n| (format!("fact{n}"), value.to_owned())).collect(),
        digest: String::new(),
    };
    let refused = [
        Frame::Facts(facts(&long)),
        Frame::Facts(v1::Facts {
            digest: long.clone(),
            ..v1::Facts::default()
        }),
        Frame::PolicyStatus(v1::PolicyStatus {
            digest: long.clone(),
            ..v1::PolicyStatus::default()
        }),
    ];
    for said in refused {
        let effects = active().handle(frame(said), 1);
        assert!(matches!(closes(&effects), Some(Close::Protocol(_))), "{effects:?}");
    }
    assert_eq!(closes(&active().handle(frame(Frame::Facts(facts("debian"))), 1)), None);

    // PostgreSQL takes no NUL, and one row that it refuses would hold up those of all the others.
    let version = v1::Hello {
        agent_version: "1\0".into(),
        ..hello()
    };
    let effects = session().handle(frame(Frame::Hello(version)), 0);
    assert!(matches!(closes(&effects), Some(Close::Protocol(_))), "{effects:?}");

    let warned = v1::Hello {
        warnings: vec![long],
        ..hello()
    };
    let effects = session().handle(frame(Frame::Hello(warned)), 0);
    let [Effect::Admit(admission)] = &effects[..] else {
        panic!("{effects:?}")
    };
    assert_eq!(
        admission.hello.warnings[0].len(),
        1_024,
        "cut, since it is only for people"
    );
}

#[test]
fn records_of_no_bytes_count_in_the_window_all_the_same() {
    let effects = active().handle(frame(records(1, 500_000)), 1);
    assert!(
        matches!(closes(&effects), Some(Close::Protocol(text)) if text.contains("in one frame")),
        "{:?}",
        closes(&effects)
    );

    let mut session = active();
    let mut first_seq = 1;
    while closes(&session.handle(frame(records(first_seq, 8_000)), 1)).is_none() {
        first_seq += 8_000;
        assert!(first_seq < 100_000, "never cut");
    }
}

#[test]
fn two_sessions_of_one_agent_reach_the_inventory_in_the_order_of_the_register() {
    let (links, inventory) = (Links::new(Duration::from_secs(30)), Mutex::new(Vec::new()));
    let entered = Barrier::new(2);
    let older = std::thread::scope(|scope| {
        let older = scope.spawn(|| {
            links.register(agent(), "older", Party::default(), None, || {
                entered.wait();
                // The newer one has every chance to come between.
                std::thread::yield_now();
                inventory.lock().expect("no panic").push("older");
            })
        });
        entered.wait();
        let newer = || inventory.lock().expect("no panic").push("newer");
        let registered = links.register(agent(), "newer", Party::default(), Some("older"), newer);
        assert!(registered.is_some());
        older.join().expect("no panic").expect("it was the first")
    });
    assert_eq!(*inventory.lock().expect("no panic"), ["older", "newer"]);
    assert!(older.replaced.is_cancelled());
}

#[test]
fn who_decided_by_a_session_that_is_gone_is_not_registered() {
    let links = Links::new(Duration::from_secs(30));
    let register = |session: &str, expected: Option<&str>| {
        let mut connected = false;
        let registered = links.register(agent(), session, Party::default(), expected, || connected = true);
        assert_eq!(registered.is_some(), connected);
        connected
    };
    assert!(register("s1", None));
    assert!(!register("s2", None), "s1 has come meanwhile");
    assert!(register("s2", Some("s1")));
    assert!(!register("s3", Some("s1")), "s2 has come meanwhile");
    links.unregister(agent(), "s2");
    assert!(!register("s3", Some("s2")), "s2 has gone meanwhile");
    assert!(register("s3", None));
}
