//! A machine that was stolen holds a link and sends on it what no agent does. It may lie about itself; it must not get
//! anything else wrong.

use std::collections::BTreeMap;

use muster_certs::identity_file::IdentityFile;
use muster_proto::v1::{
    AgentEvent, CheckResult, CheckState, Facts, Heartbeat, Hello, Lane, MetricBatch, MetricFamily, MetricLabel,
    PolicyStatus, Record, Records, Sample, SpoolState, connect_request::Frame, connect_response, record::Body,
};
use muster_tests::{agent::Setup, link::Link};

use super::{HEALTHY, Target};

const NOW: i64 = 1_800_000_000_000_000;

fn hello(stolen: &Setup) -> Hello {
    let identity = IdentityFile::load(&stolen.path("state/identity.pem")).expect("an identity");
    let uri = identity.identity().to_string();
    Hello {
        agent_id: uri.rsplit('/').next().expect("an id").to_owned(),
        protocol_version: 1,
        ..Hello::default()
    }
}

fn active(target: &Target, stolen: &Setup) -> Link {
    let mut link = Link::connect(&target.controller, stolen).expect("a link");
    link.send(Frame::Hello(hello(stolen))).expect("it goes out");
    let welcome = link.receive();
    assert!(
        matches!(welcome, Ok(connect_response::Frame::Welcome(_))),
        "{welcome:?}"
    );
    link
}

fn records(spool: &str, first_seq: u64, records: Vec<Record>) -> Frame {
    Frame::Records(Records {
        lane: Lane::Results as i32,
        spool_id: spool.to_owned(),
        first_seq,
        records,
        resends: 0,
    })
}

fn event(message: &str) -> Record {
    Record {
        time_unix_micros: NOW,
        body: Some(Body::Event(AgentEvent {
            reason: "TEST".into(),
            message: message.to_owned(),
            ..AgentEvent::default()
        })),
    }
}

fn result(output: &str) -> CheckResult {
    CheckResult {
        check: "pulse".into(),
        state: CheckState::Ok as i32,
        output: output.to_owned(),
        ..CheckResult::default()
    }
}

/// All that comes until the link ends, and with what it ends.
fn end_of(link: &mut Link) -> String {
    loop {
        if let Err(end) = link.receive() {
            return end;
        }
    }
}

#[test]
fn a_link_begins_with_an_honest_hello_or_not_at_all() {
    let mut target = Target::start();
    let stolen = target.stolen();
    let agents = target.controller.ctl().items(&["agent", "list"]).expect("a list");
    let healthy = agents.iter().find(|agent| agent["name"] == HEALTHY).expect("an agent");
    let true_hello = || hello(&stolen);
    let spool = SpoolState {
        spool_id: "1-a".into(),
        ..SpoolState::default()
    };
    let bad_spool = SpoolState {
        spool_id: "../1".into(),
        ..SpoolState::default()
    };
    let labels = [("role", HEALTHY), ("fact.os.id", "x"), ("a", "\u{1b}[2J")];
    let mut hellos = vec![
        Hello {
            agent_id: healthy["id"].as_str().expect("an id").to_owned(),
            ..true_hello()
        },
        Hello {
            agent_id: String::new(),
            ..true_hello()
        },
        Hello {
            protocol_version: u32::MAX,
            ..true_hello()
        },
        Hello {
            agent_version: "1\0".into(),
            ..true_hello()
        },
        Hello {
            spools: vec![spool; 1000],
            ..true_hello()
        },
        Hello {
            spools: vec![bad_spool],
            ..true_hello()
        },
        Hello {
            warnings: vec![String::new(); 1000],
            ..true_hello()
        },
    ];
    hellos.extend(labels[1..].iter().map(|(key, value)| Hello {
        labels: BTreeMap::from([((*key).to_owned(), (*value).to_owned())]),
        ..true_hello()
    }));
    for hello in hellos {
        let mut link = Link::connect(&target.controller, &stolen).expect("a link");
        link.send(Frame::Hello(hello.clone())).expect("it goes out");
        let answer = link.receive();
        assert!(answer.is_err(), "{hello:?} was welcome");
    }
    for first in [
        records("1-a", 1, vec![event("x")]),
        Frame::Heartbeat(Heartbeat::default()),
    ] {
        let mut link = Link::connect(&target.controller, &stolen).expect("a link");
        link.send(first).expect("it goes out");
        let end = end_of(&mut link);
        assert!(end.contains("first frame must be Hello"), "{end}");
    }
    let mut link = active(&target, &stolen);
    link.send(Frame::Hello(hello(&stolen))).expect("it goes out");
    let end = end_of(&mut link);
    assert!(end.contains("twice"), "{end}");
    target.is_unharmed();
}

#[test]
fn a_frame_that_breaks_the_protocol_ends_the_link_with_the_reason() {
    let mut target = Target::start();
    let stolen = target.stolen();
    let facts = |count: usize, value: usize| {
        Frame::Facts(Facts {
            facts: (0..count).map(|n| (format!("fact{n}"), "x".repeat(value))).collect(),
            digest: String::new(),
        })
    };
    let lane = |lane: i32| {
        Frame::Records(Records {
            lane,
            spool_id: "1-a".into(),
            first_seq: 1,
            records: vec![event("x")],
            resends: 0,
        })
    };
    let frames = [
        (lane(0), "lane"),
        (lane(99), "lane"),
        (records("", 1, vec![event("x")]), "spool id"),
        (records("1-a\n", 1, vec![event("x")]), "spool id"),
        (
            records(&format!("1-{}", "a".repeat(100)), 1, vec![event("x")]),
            "spool id",
        ),
        (records("../1-a", 1, vec![event("x")]), "spool id"),
        (records("1-a", 0, vec![event("x")]), "sequence numbers"),
        (records("1-a", u64::MAX, vec![event("x")]), "sequence numbers"),
        // Two bytes each on the wire, hundreds in memory.
        (records("1-a", 1, vec![Record::default(); 500_000]), "in one frame"),
        (records("1-a", 1, vec![event(&"x".repeat(1 << 20))]), "cannot be read"),
        (facts(60_000, 1), "facts"),
        (facts(900, 900), "facts"),
        (
            Frame::PolicyStatus(PolicyStatus {
                digest: "x".repeat(100_000),
                ..PolicyStatus::default()
            }),
            "digest",
        ),
    ];
    for (frame, why) in frames {
        let mut link = active(&target, &stolen);
        link.send(frame).expect("it goes out");
        let end = end_of(&mut link);
        assert!(end.contains(why), "{why:?} is not why: {end}");
    }
    target.is_unharmed();
}

#[test]
fn an_agent_that_does_not_wait_for_acknowledgements_gets_them_or_is_cut() {
    let mut target = Target::start();
    let stolen = target.stolen();
    let mut link = active(&target, &stolen);
    let large = Record {
        time_unix_micros: NOW,
        body: Some(Body::CheckResult(result(&"x".repeat(200_000)))),
    };
    // Forty windows, as fast as the connection takes them.
    let last = 200;
    let sent = (1..=last).try_for_each(|seq| link.send(records("1-a", seq, vec![large.clone()])));
    let mut through = 0;
    let end = loop {
        match link.receive() {
            Ok(connect_response::Frame::Ack(ack)) => {
                assert_eq!(ack.rejected, [], "{}", ack.through_seq);
                through = ack.through_seq;
            }
            Ok(_) => {}
            Err(end) => break end,
        }
        if through == last {
            break "all is stored".to_owned();
        }
    };
    let is_cut = end.contains("window");
    assert!(is_cut || (sent.is_ok() && through == last), "after {through}: {end}");
    target.is_unharmed();
}

#[test]
fn what_no_database_can_take_is_refused_record_by_record() {
    let mut target = Target::start();
    let stolen = target.stolen();
    let mut link = active(&target, &stolen);
    let of = |result: CheckResult| Record {
        time_unix_micros: NOW,
        body: Some(Body::CheckResult(result)),
    };
    let at = |time: i64| Record {
        time_unix_micros: time,
        ..event("x")
    };
    let bad = [
        Record::default(),
        at(0),
        at(i64::MIN),
        at(i64::MAX),
        event("a\0b"),
        event(&"x".repeat(100_000)),
        of(result("a\0b")),
        of(result(&"x".repeat(300_000))),
        of(CheckResult {
            check: "../pulse".into(),
            ..result("")
        }),
        of(CheckResult {
            state: 99,
            ..result("")
        }),
        of(CheckResult {
            duration_micros: -1,
            ..result("")
        }),
        of(CheckResult {
            metrics: vec![Default::default(); 20_000],
            ..result("")
        }),
    ];
    let mut seq = 1;
    for record in bad {
        // Each between two good ones, which it must not hold up.
        let about = format!("{record:?}").chars().take(80).collect::<String>();
        link.send(records("1-a", seq, vec![event("before"), record, event("after")]))
            .expect("it goes out");
        let ack = loop {
            match link.receive().expect("an answer") {
                connect_response::Frame::Ack(ack) => break ack,
                _ => continue,
            }
        };
        assert_eq!(ack.through_seq, seq + 2, "{about}");
        let rejected: Vec<u64> = ack.rejected.iter().map(|rejected| rejected.seq).collect();
        assert_eq!(rejected, [seq + 1], "{about}");
        seq += 3;
    }
    target.is_unharmed();
}

#[test]
fn times_and_numbers_from_nowhere_are_lies_about_oneself_only() {
    let mut target = Target::start();
    let stolen = target.stolen();
    let mut link = active(&target, &stolen);
    for (echo_unix_micros, echo_age_micros, time_unix_micros) in [
        (i64::MAX, i64::MAX, i64::MIN),
        (1, 0, i64::MIN),
        (1, i64::MAX, i64::MAX),
        (i64::MIN, i64::MIN, i64::MIN),
    ] {
        let heartbeat = Heartbeat {
            echo_unix_micros,
            echo_age_micros,
            time_unix_micros,
            lanes: Vec::new(),
        };
        link.send(Frame::Heartbeat(heartbeat)).expect("it goes out");
    }
    let label = |name: &str, value: &str| MetricLabel {
        name: name.into(),
        value: value.into(),
    };
    // Claims to be of the healthy agent.
    let labels = vec![
        label("instance", HEALTHY),
        label("agent_id", "7d0c51c2"),
        label("x", "\u{1b}[2J\u{9b}31m"),
    ];
    let samples = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MIN_POSITIVE].map(|value| Sample {
        labels: labels.clone(),
        value,
    });
    let family = MetricFamily {
        name: "attack".into(),
        samples: samples.into(),
        ..MetricFamily::default()
    };
    let batch = MetricBatch {
        job: "\u{1b}[2J".into(),
        families: vec![family],
    };
    // Not after the controller's own time, whatever the clock of this machine says.
    let time_unix_micros = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(NOW, |since| since.as_micros() as i64);
    link.send(Frame::Records(Records {
        lane: Lane::Metrics as i32,
        spool_id: "1-a".into(),
        first_seq: 1,
        records: vec![Record {
            time_unix_micros,
            body: Some(Body::Metrics(batch)),
        }],
        resends: 0,
    }))
    .expect("it goes out");
    let ack = loop {
        match link.receive().expect("the link is still there") {
            connect_response::Frame::Ack(ack) => break ack,
            _ => continue,
        }
    };
    assert_eq!((ack.through_seq, ack.rejected.len()), (1, 0));

    let ctl = target.controller.ctl();
    let values = ctl.items(&["metric", "query", "attack"]).expect("values");
    assert!(!values.is_empty());
    for value in &values {
        assert_eq!(value["labels"]["instance"], "stolen", "{value}");
    }
    for format in ["table", "wide", "json", "yaml", "name"] {
        for command in [
            &["metric", "query", "attack"][..],
            &["agent", "list"],
            &["agent", "get", "stolen"],
        ] {
            let outcome = ctl.ok(&[command, &["-o", format]].concat());
            super::output::assert_inert(&outcome.stdout);
        }
    }
    target.is_unharmed();
}
