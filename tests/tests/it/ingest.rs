//! Records on their way into the store: each is stored once, in whatever order and however often it comes.

use std::sync::Arc;

use muster_proto::{
    ids::AgentId,
    v1::{self, CheckState, Lane, record::Body},
};
use muster_server::{
    access::scope::Scopes,
    agents::Agents,
    changes::Changes,
    disk::Disk,
    ingest::{self, Done, Handle, Ingest, Job},
    pki::Pki,
    policies::Policies,
    states::States,
    store::{Db, History},
    telemetry::Telemetry,
};
use tokio::sync::oneshot;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::store::{enroll, fresh};

const NOW: i64 = 1_700_000_000_000_000;

/// The part of a controller that stores.
struct Part {
    db: Db,
    agents: Arc<Agents>,
    policies: Arc<Policies>,
    states: Arc<States>,
    handle: Handle,
    /// Of the one link that all records come by.
    lost: ingest::Lost,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Part {
    async fn start(db: &Db, pki: Arc<Pki>) -> Self {
        let changes = Changes::new(db.clone()).await.expect("changes");
        let agents = Arc::new(Agents::load(db.clone(), changes.clone(), NOW).await.expect("agents"));
        let policies = Arc::new(
            Policies::load(db.clone(), changes.clone(), pki)
                .await
                .expect("policies"),
        );
        let states = States::load(db.clone(), changes.clone(), agents.clone(), policies.clone()).await;
        let states = Arc::new(states.expect("states"));
        let deps = ingest::Deps {
            db: db.clone(),
            changes,
            agents: agents.clone(),
            states: states.clone(),
            telemetry: Telemetry::new(),
            disk: Disk::default(),
            limits: ingest::Limits::default(),
        };
        let (ingest, handle) = Ingest::load(deps).await.expect("ingest");
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        tasks.spawn(ingest.run(stop.clone()));
        tasks.close();
        Self {
            db: db.clone(),
            agents,
            policies,
            states,
            handle,
            lost: ingest::Lost::default(),
            stop,
            tasks,
        }
    }

    async fn stop(self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }

    async fn send(&self, agent: AgentId, spool: &str, first_seq: u64, records: Vec<v1::Record>) -> Done {
        self.send_later(agent, spool, first_seq, records).await.expect("stored")
    }

    fn send_later(
        &self,
        agent: AgentId,
        spool: &str,
        first_seq: u64,
        records: Vec<v1::Record>,
    ) -> oneshot::Receiver<Done> {
        let (done, wait) = oneshot::channel();
        let spool = spool.parse().expect("a spool id");
        let job = Job {
            agent,
            spool,
            first_seq,
            bytes: 100 * records.len(),
            records,
            received_at: NOW,
            has_waited: false,
            lost: self.lost.clone(),
            held: self.handle.quotas().share(agent, 1, NOW).hold(100, 1).expect("room"),
            done,
        };
        self.handle.submit(Lane::Results, job).expect("it is taken");
        wait
    }

    async fn stored(&self, agent: AgentId) -> Vec<String> {
        let results = self.db.result_list(&agent.to_string(), "disk").await.expect("results");
        results.iter().map(|bytes| decode(bytes).output).collect()
    }
}

fn decode(bytes: &[u8]) -> v1::CheckResult {
    prost::Message::decode(bytes).expect("a result")
}

fn result(at: i64, output: &str, state: CheckState) -> v1::Record {
    let output = output.to_owned();
    let result = v1::CheckResult {
        check: "disk".into(),
        state: state as i32,
        output,
        ..Default::default()
    };
    v1::Record {
        time_unix_micros: NOW + at,
        body: Some(Body::CheckResult(result)),
    }
}

pub fn pki(folder: &std::path::Path) -> Arc<Pki> {
    let domain = "test.muster".parse().expect("a trust domain");
    Arc::new(Pki::create(&folder.join("pki"), &domain, std::time::SystemTime::now()).expect("keys"))
}

pub fn policy() -> v1::Policy {
    let run = v1::Run {
        memory: Some(v1::MemoryRun::default()),
        ..Default::default()
    };
    let check = v1::Check {
        selector: "env=prod".into(),
        run: Some(run),
        ..Default::default()
    };
    v1::Policy {
        metadata: Some(v1::PolicyMetadata {
            name: "disk".into(),
            ..Default::default()
        }),
        spec: Some(v1::policy::Spec::Check(check)),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_record_that_comes_again_is_stored_once_even_after_a_restart() {
    let (fresh, folder) = (fresh().await, tempfile::tempdir().expect("a folder"));
    let (agent, pki) = (enroll(&fresh.db, "db-01").await, pki(folder.path()));
    let part = Part::start(&fresh.db, pki.clone()).await;
    let records = |range: std::ops::Range<i64>| -> Vec<v1::Record> {
        range.map(|n| result(n, &n.to_string(), CheckState::Ok)).collect()
    };
    assert_eq!(part.send(agent, "1-a", 1, records(1..4)).await.through_seq, 3);
    // A frame that was sent again, and one that overlaps it.
    assert_eq!(part.send(agent, "1-a", 1, records(1..4)).await.through_seq, 3);
    assert_eq!(part.send(agent, "1-a", 2, records(2..6)).await.through_seq, 5);
    part.stop().await;

    let part = Part::start(&fresh.db, pki).await;
    let spool = "1-a".parse().expect("a spool id");
    assert_eq!(part.handle.mark(agent, Lane::Results, &spool), 5, "what Welcome says");
    assert_eq!(part.send(agent, "1-a", 4, records(4..7)).await.through_seq, 6);
    // Another spool has its own numbers.
    part.send(agent, "2-b", 1, records(7..8)).await;
    assert_eq!(part.stored(agent).await, ["1", "2", "3", "4", "5", "6", "7"]);
    part.stop().await;
}

#[tokio::test]
async fn many_links_share_commits_and_nothing_is_lost() {
    let (fresh, folder) = (fresh().await, tempfile::tempdir().expect("a folder"));
    let pki = pki(folder.path());
    let mut agents = Vec::new();
    for n in 0..20 {
        agents.push(enroll(&fresh.db, &format!("host-{n}")).await);
    }
    let part = Part::start(&fresh.db, pki).await;
    let mut waits = Vec::new();
    for seq in 1..=25_u64 {
        for agent in &agents {
            let record = result(seq as i64, &seq.to_string(), CheckState::Ok);
            waits.push((seq, part.send_later(*agent, "1-a", seq, vec![record])));
        }
    }
    for (seq, wait) in waits {
        assert_eq!(wait.await.expect("stored").through_seq, seq);
    }
    let expected: Vec<String> = (1..=25).map(|seq| seq.to_string()).collect();
    for agent in agents {
        assert_eq!(part.stored(agent).await, expected);
    }
    assert_eq!(
        part.db.history_usage(History::Results).await.expect("usage").row_count,
        500
    );
    part.stop().await;
}

#[tokio::test]
async fn a_record_that_cannot_be_stored_is_rejected_and_holds_up_no_other() {
    let (fresh, folder) = (fresh().await, tempfile::tempdir().expect("a folder"));
    let agent = enroll(&fresh.db, "db-01").await;
    let part = Part::start(&fresh.db, pki(folder.path())).await;
    let unknown = v1::Record {
        time_unix_micros: NOW,
        body: None,
    };
    let records = vec![
        result(1, "one", CheckState::Ok),
        result(2, "bad \0 text", CheckState::Ok),
        unknown,
        result(4, "four", CheckState::Ok),
    ];
    let done = part.send(agent, "1-a", 1, records).await;
    assert_eq!(done.through_seq, 4);
    assert_eq!(
        done.rejected.iter().map(|rejected| rejected.seq).collect::<Vec<_>>(),
        [2, 3]
    );
    assert_eq!(part.stored(agent).await, ["one", "four"]);
    part.stop().await;
}

#[tokio::test]
async fn the_state_follows_the_newest_place_in_the_spools_and_not_the_clock() {
    let (fresh, folder) = (fresh().await, tempfile::tempdir().expect("a folder"));
    let agent = enroll(&fresh.db, "db-01").await;
    let part = Part::start(&fresh.db, pki(folder.path())).await;
    part.policies
        .apply(vec![policy()], &Scopes::all(), "user/tester", NOW)
        .await
        .expect("applied");
    let output = || part.states.get(agent, "disk").map(|entry| entry.last_result().output);

    part.send(agent, "2-b", 1, vec![result(50, "newer start", CheckState::Critical)])
        .await;
    // What an older start of the agent left over comes later, and from a clock that was ahead.
    part.send(agent, "1-a", 9, vec![result(9_999, "left over", CheckState::Ok)])
        .await;
    assert_eq!(output().as_deref(), Some("newer start"));
    assert_eq!(part.stored(agent).await.len(), 2, "the history has both");

    part.send(agent, "2-b", 2, vec![result(10, "clock set back", CheckState::Ok)])
        .await;
    assert_eq!(output().as_deref(), Some("clock set back"));
    assert_eq!(part.agents.count(), 1);
    part.stop().await;

    let rows = fresh.db.state_list().await.expect("states");
    assert_eq!(
        decode(&rows[0].result).output,
        "clock set back",
        "the database says the same"
    );
}

#[tokio::test]
async fn what_follows_a_lost_record_in_its_link_is_not_stored_either() {
    let (fresh, folder) = (fresh().await, tempfile::tempdir().expect("a folder"));
    let (agent, pki) = (enroll(&fresh.db, "db-01").await, pki(folder.path()));
    let mut part = Part::start(&fresh.db, pki.clone()).await;
    // The database goes away, and with it what is on its way.
    fresh.db.close().await;
    let first = part.send_later(agent, "1-a", 1, vec![result(1, "one", CheckState::Ok)]);
    assert!(first.await.is_err(), "nothing is acknowledged");
    let lost = part.lost.clone();
    part.stop().await;

    // It is back before the link has noticed, and the next frame is stored: its mark would speak for the first.
    let db = Db::open(&fresh.source).await.expect("opens again");
    part = Part::start(&db, pki).await;
    let link = std::mem::replace(&mut part.lost, lost);
    let second = part.send_later(agent, "1-a", 2, vec![result(2, "two", CheckState::Ok)]);
    assert!(second.await.is_err(), "nothing is acknowledged");
    let spool = "1-a".parse().expect("a spool id");
    assert_eq!(part.handle.mark(agent, Lane::Results, &spool), 0, "what Welcome says");

    part.lost = link;
    let both = vec![result(1, "one", CheckState::Ok), result(2, "two", CheckState::Ok)];
    assert_eq!(part.send(agent, "1-a", 1, both).await.through_seq, 2);
    assert_eq!(part.stored(agent).await, ["one", "two"]);
    part.stop().await;
    db.close().await;
}
