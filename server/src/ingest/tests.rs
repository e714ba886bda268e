//! The worker of a lane, on a database.

use std::time::{Duration, SystemTime};

use muster_proto::v1::policy::Spec;

use super::*;
use crate::{
    access::scope::Scopes,
    pki::Pki,
    policies::Policies,
    store::{
        NewAgent, Source,
        scratch::{Scratch, postgres_url},
    },
};

const NOW: Micros = 20_000 * clock::DAY;

struct Rig {
    db: Db,
    pki: Arc<Pki>,
    _folder: tempfile::TempDir,
}

impl Rig {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = Source::Sqlite(folder.path().to_owned());
        Self::at(&source, folder).await
    }

    async fn at(source: &Source, folder: tempfile::TempDir) -> Self {
        let domain = "example.muster".parse().unwrap();
        let pki = Arc::new(Pki::create(&folder.path().join("pki"), &domain, SystemTime::now()).unwrap());
        let db = Db::open(source).await.unwrap();
        let changes = Changes::new(db.clone()).await.unwrap();
        let policies = Policies::load(db.clone(), changes, pki.clone()).await.unwrap();
        let check = v1::Check {
            selector: "*".into(),
            run: Some(v1::Run {
                memory: Some(v1::MemoryRun::default()),
                ..Default::default()
            }),
            ..Default::default()
        };
        let policy = v1::Policy {
            metadata: Some(v1::PolicyMetadata {
                name: "memory".into(),
                ..Default::default()
            }),
            spec: Some(Spec::Check(check)),
            ..Default::default()
        };
        let applied = policies.apply(vec![policy], &Scopes::all(), "user/ann", NOW).await;
        assert_eq!(applied.unwrap().len(), 1);
        Self {
            db,
            pki,
            _folder: folder,
        }
    }

    async fn enroll(&self) -> AgentId {
        let id = AgentId::random();
        let agent = NewAgent {
            id,
            name: "web-01",
            agent_labels: "{}",
            token_labels: "{}",
            version: "",
            now: NOW,
            revision: 0,
        };
        let mut tx = self.db.begin().await.unwrap();
        assert!(tx.agent_insert(agent).await.unwrap());
        tx.commit().await.unwrap();
        id
    }

    /// With what is on file now.
    async fn worker(&self) -> Worker {
        let db = self.db.clone();
        let changes = Changes::new(db.clone()).await.unwrap();
        let agents = Arc::new(Agents::load(db.clone(), changes.clone(), NOW).await.unwrap());
        let policies = Policies::load(db.clone(), changes.clone(), self.pki.clone());
        let policies = Arc::new(policies.await.unwrap());
        let states = States::load(db.clone(), changes.clone(), agents.clone(), policies);
        let deps = Deps {
            states: Arc::new(states.await.unwrap()),
            db,
            changes,
            agents,
            telemetry: Telemetry::new(),
            disk: Disk::default(),
            limits: Limits::default(),
        };
        let (ingest, _) = Ingest::load(deps).await.unwrap();
        ingest.worker(Lane::Results)
    }

    async fn results_of(&self, agent: AgentId) -> i64 {
        let agent = agent.to_string();
        let usage = self.db.result_usage(&agent, &agent).await.unwrap();
        usage.iter().map(|usage| usage.records).sum()
    }
}

/// Results of one check, from the first on.
async fn store(worker: &Worker, agent: AgentId, count: i64) -> Option<Done> {
    let result = |n| v1::Record {
        time_unix_micros: NOW + n,
        body: Some(v1::record::Body::CheckResult(v1::CheckResult {
            check: "memory".into(),
            state: v1::CheckState::Critical.into(),
            ..Default::default()
        })),
    };
    let (done, mut answer) = oneshot::channel();
    let job = Job {
        agent,
        spool: "1-a".parse().expect("a spool"),
        first_seq: 1,
        records: (0..count).map(result).collect(),
        received_at: NOW,
        bytes: 1,
        has_waited: false,
        lost: Lost::default(),
        held: worker.quotas.share(agent, 1, NOW).hold(1, 1).expect("room"),
        done,
    };
    worker.commit_all(vec![job]).await;
    answer.try_recv().ok()
}

/// The database has taken them and could not say so any more. The one that asked is played by a worker that knows of nothing.
#[tokio::test]
async fn what_a_commit_has_stored_without_saying_so_is_not_stored_again() {
    let rig = Rig::new().await;
    let agent = rig.enroll().await;
    let (asked, database) = (rig.worker().await, rig.worker().await);
    assert_eq!(store(&database, agent, 2).await.unwrap().through_seq, 2);

    asked.is_unsure.store(true, Ordering::Relaxed);
    assert_eq!(store(&asked, agent, 3).await.unwrap().through_seq, 3);
    assert_eq!(rig.results_of(agent).await, 3);
    let since = |worker: &Worker| worker.deps.states.get(agent, "memory").unwrap().state_since;
    assert_eq!(since(&asked), since(&database));
    assert!(!asked.is_unsure.load(Ordering::Relaxed));
}

/// It has taken two, and is not done with it: nobody sees them yet.
async fn what_a_commit_is_about_to_store_is_not_stored_again(rig: Rig) {
    let agent = rig.enroll().await;
    let asked = rig.worker().await;
    let mark = MarkRow {
        agent_id: agent.to_string(),
        spool_id: "1-a".into(),
        seq: 2,
    };
    let mut under_way = rig.db.begin_lane(Lane::Results).await.unwrap();
    under_way.mark_put_all(Lane::Results, &[mark], NOW).await.unwrap();
    asked.is_unsure.store(true, Ordering::Relaxed);
    let ends = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        under_way.commit().await.unwrap();
    };
    let (done, ()) = tokio::join!(store(&asked, agent, 3), ends);
    assert_eq!(done.unwrap().through_seq, 3);
    assert_eq!(rig.results_of(agent).await, 1, "the third alone");
    rig.db.close().await;
}

#[tokio::test]
async fn what_a_commit_is_about_to_store_is_not_stored_again_on_sqlite() {
    what_a_commit_is_about_to_store_is_not_stored_again(Rig::new().await).await;
}

#[tokio::test]
async fn what_a_commit_is_about_to_store_is_not_stored_again_on_postgresql() {
    let Some(server) = postgres_url("commits of records whose answer is lost, on PostgreSQL") else {
        return;
    };
    let scratch = Scratch::create(&server, "ingest").await;
    let rig = Rig::at(&scratch.source, tempfile::tempdir().unwrap()).await;
    what_a_commit_is_about_to_store_is_not_stored_again(rig).await;
    scratch.drop().await;
}

#[tokio::test]
async fn marks_of_agents_that_are_gone_are_forgotten() {
    let rig = Rig::new().await;
    let (stays, goes) = (rig.enroll().await, rig.enroll().await);
    let worker = rig.worker().await;
    let spool: SpoolId = "1-a".parse().unwrap();
    worker.marks.set(goes, Lane::Metrics, spool.clone(), 7);
    for agent in [stays, goes] {
        store(&worker, agent, 2).await.unwrap();
    }
    let mut tx = rig.db.begin().await.unwrap();
    tx.agent_delete(&goes.to_string(), "web-01", "user/ann", NOW)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let without = rig.worker().await.deps.agents;
    worker.marks.tidy(Lane::Results, &without);
    let mark = |agent, lane| worker.marks.get(agent, lane, &spool);
    assert_eq!((mark(stays, Lane::Results), mark(goes, Lane::Results)), (2, 0));
    assert_eq!(mark(goes, Lane::Metrics), 7, "another worker's");
}
