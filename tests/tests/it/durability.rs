//! What is acknowledged is on disk: the controller is killed in the middle of a stream of records, again and again.

use std::{
    fs,
    time::{SystemTime, UNIX_EPOCH},
};

use muster_proto::v1::{
    AckedSpool, CheckResult, CheckState, Hello, Lane, Record, Records, RunEnd, SpoolState, connect_request::Frame,
    connect_response, record::Body,
};
use muster_tests::{
    Controller,
    agent::Setup,
    link::Link,
    poll::{self, SECOND},
};

const SPOOL: &str = "1-spool";
const CHECK: &str = "counted";
const ROUNDS: u64 = 6;
/// All results are critical, so that the attempt of the state counts them; it stops at 100.
const RESULTS: u64 = 90;
/// So many records are on their way when the controller is killed.
const IN_FLIGHT: u64 = 10;

#[test]
fn an_acknowledged_record_survives_every_kill_and_counts_once() {
    let mut controller = Controller::start();
    controller.apply(
        "apiVersion: muster/v1\nkind: Check\nmetadata: { name: counted }\nspec:\n  selector: \"*\"\n  schedule: { \
         interval: 1h, attempts: 100 }\n  run: { load: { warning: \"1\" } }\n",
    );
    let version = controller.ctl().json(&["policy", "get", CHECK])["metadata"]["version"].clone();
    let version = version
        .as_str()
        .and_then(|version| version.parse().ok())
        .expect("a version");
    let setup = controller.agent("host");
    setup.enroll().expect_code(0);

    let mut acked = 0;
    for round in 1..=ROUNDS {
        let mut sender = Sender::connect(&controller, &setup, version, acked);
        assert!(
            sender.acked >= acked,
            "round {round}: {acked} was acknowledged, and {} is stored",
            sender.acked
        );
        if sender.acked > 0 {
            let state = controller.ctl().state("host", CHECK).expect("a state");
            assert_eq!(state["attempt"], sender.acked, "{state}");
            assert_eq!(state["output"], format!("result {}", sender.acked), "{state}");
        }
        sender.stream(RESULTS * round / ROUNDS);
        acked = sender.acked;
        if round < ROUNDS {
            controller.kill();
            controller.run();
        }
    }
    assert_eq!(acked, RESULTS);
    let state = controller.ctl().state("host", CHECK).expect("a state");
    assert_eq!(
        state["attempt"], RESULTS,
        "a result is missing, or counted twice: {state}"
    );
}

struct Sender {
    link: Link,
    version: i64,
    sent: u64,
    acked: u64,
}

impl Sender {
    /// Says hello as an agent that holds everything after `acked`, and goes on where the controller says.
    fn connect(controller: &Controller, setup: &Setup, version: i64, acked: u64) -> Self {
        let mut link = poll::until("a link", 20 * SECOND, || Link::connect(controller, setup));
        let id = fs::read_to_string(setup.path("agent-id")).expect("an id");
        let hello = Hello {
            agent_id: id.trim().to_owned(),
            agent_version: "0.1.0".to_owned(),
            protocol_version: 1,
            spools: vec![SpoolState {
                spool_id: SPOOL.to_owned(),
                lane: Lane::Results.into(),
                first_seq: acked + 1,
                last_seq: acked + IN_FLIGHT,
            }],
            time_unix_micros: now(),
            ..Hello::default()
        };
        link.send(Frame::Hello(hello)).expect("the controller takes a hello");
        let connect_response::Frame::Welcome(welcome) = link.receive().expect("a frame") else {
            panic!("the first frame is no welcome");
        };
        let is_ours = |spool: &&AckedSpool| spool.spool_id == SPOOL && spool.lane() == Lane::Results;
        let stored = welcome.acked.iter().find(is_ours).map_or(0, |spool| spool.through_seq);
        Self {
            link,
            version,
            sent: stored,
            acked: stored,
        }
    }

    /// Sends results, some ahead of what is acknowledged, until `target` is.
    fn stream(&mut self, target: u64) {
        while self.acked < target {
            while self.sent < (self.acked + IN_FLIGHT).min(RESULTS) {
                self.sent += 1;
                let records = Records {
                    lane: Lane::Results.into(),
                    spool_id: SPOOL.to_owned(),
                    first_seq: self.sent,
                    records: vec![result(self.version, self.sent)],
                    resends: 0,
                };
                self.link
                    .send(Frame::Records(records))
                    .expect("the controller takes records");
            }
            if let connect_response::Frame::Ack(ack) = self.link.receive().expect("a frame") {
                assert!(ack.rejected.is_empty(), "{ack:?}");
                assert!(
                    ack.through_seq <= self.sent,
                    "more is acknowledged than was sent: {ack:?}"
                );
                self.acked = self.acked.max(ack.through_seq);
            }
        }
    }
}

fn result(version: i64, number: u64) -> Record {
    Record {
        time_unix_micros: now(),
        body: Some(Body::CheckResult(CheckResult {
            check: CHECK.to_owned(),
            version,
            state: CheckState::Critical.into(),
            end: RunEnd::Exited.into(),
            exit_code: 2,
            output: format!("result {number}"),
            ..CheckResult::default()
        })),
    }
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970");
    i64::try_from(since.as_micros()).expect("a time in range")
}
