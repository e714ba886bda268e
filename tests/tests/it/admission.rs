//! Everybody at once, and one that has gone mad: the controller lets links in by turns, and an agent beyond its limits hurts
//! itself alone.

mod proxied;

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use muster_proto::{
    error::Problem,
    v1::{
        CheckResult, CheckState, Hello, Lane, LaneWindow, Record, Records, connect_request::Frame, connect_response,
        record::Body,
    },
};
use muster_tests::{
    Controller,
    agent::Setup,
    link::Link,
    peer::{self, Peer},
    poll::{self, SECOND},
    turn,
};
use prost::Message as _;
use tonic::Code;

#[test]
fn a_crowd_is_told_when_to_come_and_comes_in_by_turns() {
    let _turn = turn::of_heavy_tests();
    let controller = Controller::start_with("limits: { links_per_second: 1 }");
    let crowd = 10;
    let token = controller.token(&["--uses", &crowd.to_string()]).secret;
    let identities: Vec<_> = (0..crowd)
        .map(|n| {
            let peer = Peer::new(&format!("host-{n}"));
            let enrolled = peer.enroll(&controller, &token).expect("enrolled");
            peer.identity(enrolled.certificates)
        })
        .collect();

    let mut links = Vec::new();
    let mut waiting = Vec::new();
    for identity in &identities {
        match peer::Link::connect(&controller, identity) {
            Ok(link) => links.push(link),
            Err(status) => {
                let problem = Problem::from_status(&status).expect("a problem of ours");
                assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
                assert_eq!(peer::reason(&status), "RATE_LIMITED");
                let after = problem.retry_after.expect("it is told when to come");
                assert!(after >= SECOND && after <= 60 * SECOND, "{after:?}");
                waiting.push((identity, Instant::now(), after));
            }
        }
    }
    assert!(
        !links.is_empty() && waiting.len() > 2,
        "{} were let in at once",
        links.len()
    );
    let turned_away = waiting.len() as u64;
    let turns: Vec<Instant> = waiting.iter().map(|(_, asked, after)| *asked + *after).collect();
    assert!(turns.is_sorted(), "{turns:?}");
    for (identity, asked, after) in waiting {
        poll::until("its turn", 90 * SECOND, || match asked.elapsed() {
            waited if waited >= after => Ok(()),
            waited => Err(format!("{waited:?} of {after:?}")),
        });
        links.push(peer::Link::connect(&controller, identity).expect("it came when it was told to"));
    }
    assert_eq!(links.len(), crowd);
    assert_eq!(
        controller.metric("muster_controller_links_turned_away_total"),
        turned_away
    );
    assert_eq!(
        controller.metric("muster_controller_links_admitted_total"),
        crowd as u64
    );
}

#[test]
fn real_agents_come_in_by_turns_and_a_small_fleet_at_once() {
    let _turn = turn::of_heavy_tests();
    let controller = Controller::start_with("limits: { links_per_second: 1 }");
    let agents: Vec<_> = controller.fleet("web", 5).into_iter().map(Setup::start).collect();
    let all_online = || match controller.ctl().items(&["agent", "list"])? {
        items
            if items
                .iter()
                .filter(|item| item["status"] == "AGENT_STATUS_ONLINE")
                .count()
                == 5 =>
        {
            Ok(())
        }
        items => Err(format!("{items:?}")),
    };
    poll::until("all are online", 90 * SECOND, all_online);
    drop(agents);

    let controller = Controller::start();
    let agents: Vec<_> = controller.fleet("web", 5).into_iter().map(Setup::start).collect();
    for n in 1..=5 {
        controller.wait_for_agent(&format!("web-{n}"), "ONLINE");
    }
    assert_eq!(controller.metric("muster_controller_links_turned_away_total"), 0);
    drop(agents);
}

const MAD: u64 = 12_000;
const FRAME: u64 = 50;

#[test]
fn one_mad_agent_is_slowed_down_and_the_others_are_not() {
    let controller = Controller::start_with("limits: { agent_records_per_second: 500, ingest_bytes: 16MiB }");
    let [mad, healthy] = ["mad", "healthy"].map(|name| {
        let setup = controller.agent(name);
        setup.enroll().expect_code(0);
        setup
    });
    let (is_done, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            let _done = Done(&is_done);
            let mut sender = Sender::connect(&controller, &mad);
            while sender.acked < MAD {
                while sender.sent < MAD && sender.has_room() {
                    sender.send(FRAME);
                }
                sender.hear();
            }
        });
        let mut sender = Sender::connect(&controller, &healthy);
        while !is_done.load(Ordering::SeqCst) {
            sender.send(1);
            while sender.acked < sender.sent {
                sender.hear();
            }
            answered.fetch_add(1, Ordering::SeqCst);
            // As one that keeps its limits.
            let _ = poll::attempt(Duration::from_millis(20), || Err::<(), _>("not yet"));
        }
    });
    // It needs 14 s by its limits, and an answer to the other one a commit.
    let answered = answered.into_inner();
    assert!(answered >= 20, "{answered} answers while the other was mad");
    let stored = controller.metric("muster_controller_records_total{lane=\"results\",fate=\"stored\"}");
    assert_eq!(stored, MAD + answered, "all of it is stored, once");

    let throttled = controller.metric("muster_controller_agents_throttled_total{lane=\"results\"}");
    assert_eq!(throttled, 1, "one episode");
    let event = || match controller.ctl().events("AGENT_THROTTLED")?.as_slice() {
        [event] => Ok(event["agentId"].clone()),
        events => Err(format!("{events:?}")),
    };
    let agent = poll::until("an event", 20 * SECOND, event);
    let mad = controller.ctl().json(&["agent", "get", "mad"]);
    assert_eq!(agent, mad["id"]);
    let warnings = mad["warnings"].to_string();
    assert!(warnings.contains("slowed down"), "{mad}");
    let healthy = controller.ctl().json(&["agent", "get", "healthy"]);
    assert!(!healthy["warnings"].to_string().contains("slowed down"), "{healthy}");
}

/// Tells however its thread ends.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_window_is_a_part_of_the_budget_and_who_ignores_it_is_cut() {
    // Nothing is acknowledged beyond the first records, so that what is under way adds up.
    let controller = Controller::start_with("limits: { ingest_bytes: 16MiB, agent_records_per_second: 1 }");
    let setup = controller.agent("host");
    setup.enroll().expect_code(0);
    let mut sender = Sender::connect(&controller, &setup);
    assert_eq!(
        sender.window,
        8 << 10,
        "a part for a lane, and of that an eighth to begin with"
    );
    while sender.sent < 100_000 && sender.try_send(FRAME).is_ok() {}
    let status = poll::until("an end", 20 * SECOND, || match sender.link.receive() {
        Ok(frame) => Err(format!("{frame:?}")),
        Err(end) => Ok(end),
    });
    assert!(status.contains("window"), "{status}");
}

/// An agent's end of a link, which sends results of a check that nobody knows.
struct Sender {
    link: Link,
    sent: u64,
    acked: u64,
    window: u64,
    in_flight: VecDeque<(u64, u64)>,
}

impl Sender {
    fn connect(controller: &Controller, setup: &Setup) -> Self {
        let mut link = poll::until("a link", 20 * SECOND, || Link::connect(controller, setup));
        let id = std::fs::read_to_string(setup.path("agent-id")).expect("an id");
        let hello = Hello {
            agent_id: id.trim().to_owned(),
            agent_version: "0.1.0".to_owned(),
            protocol_version: 1,
            ..Hello::default()
        };
        link.send(Frame::Hello(hello)).expect("the controller takes a hello");
        let connect_response::Frame::Welcome(welcome) = link.receive().expect("a frame") else {
            panic!("the first frame is no welcome");
        };
        let of_results = |window: &&LaneWindow| window.lane() == Lane::Results;
        Self {
            link,
            sent: 0,
            acked: 0,
            window: welcome.windows.iter().find(of_results).expect("a window").window_bytes,
            in_flight: VecDeque::new(),
        }
    }

    fn has_room(&self) -> bool {
        let under_way: u64 = self.in_flight.iter().map(|(_, bytes)| bytes).sum();
        under_way == 0 || under_way + 100 * FRAME <= self.window
    }

    fn send(&mut self, count: u64) {
        self.try_send(count).expect("the controller takes records");
    }

    fn try_send(&mut self, count: u64) -> Result<(), String> {
        let records = Records {
            lane: Lane::Results.into(),
            spool_id: "1-spool".to_owned(),
            first_seq: self.sent + 1,
            records: (0..count).map(|n| result(self.sent + 1 + n)).collect(),
            ..Records::default()
        };
        self.sent += count;
        let bytes = records
            .records
            .iter()
            .map(|record| record.encoded_len() as u64 + 4)
            .sum();
        self.in_flight.push_back((self.sent, bytes));
        self.link.send(Frame::Records(records))
    }

    fn hear(&mut self) {
        let connect_response::Frame::Ack(ack) = self.link.receive().expect("a frame") else {
            return;
        };
        assert!(ack.rejected.is_empty(), "{ack:?}");
        assert!(ack.through_seq <= self.sent && ack.window_bytes > 0, "{ack:?}");
        self.acked = self.acked.max(ack.through_seq);
        self.window = ack.window_bytes;
        self.in_flight.retain(|(last, _)| *last > self.acked);
    }
}

fn result(number: u64) -> Record {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970");
    Record {
        time_unix_micros: i64::try_from(since.as_micros()).expect("a time in range"),
        body: Some(Body::CheckResult(CheckResult {
            check: "flood".to_owned(),
            state: CheckState::Ok.into(),
            output: format!("result {number}"),
            ..CheckResult::default()
        })),
    }
}
