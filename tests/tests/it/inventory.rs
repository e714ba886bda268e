//! What the controller keeps in memory beside its database: nobody is told what cannot be read, nobody waits for ever.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use muster_certs::{csr, key::KeyPair};
use muster_proto::{
    ids::AgentId,
    v1::{AgentStatus, Freshness},
};
use muster_server::{
    access::scope::Scopes,
    agents::{Agents, Connection, Hello, liveness::Rules},
    changes::Changes,
    clock::{self, DAY, MINUTE, SECOND},
    enroll::{self, Enroller},
    idempotency::Once,
    link::Links,
    policies::{Compiled, Policies},
    states::{Entry, States},
    store::{ChangeKind, Db, Op},
    tokens::{self, NewToken},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    ingest::{pki, policy},
    store::{Fresh, enroll, fresh},
};

const NOW: i64 = 1_700_000_000_000_000;
const RULES: Rules = Rules {
    heartbeat: 30 * SECOND,
    started_at: NOW - DAY,
};

/// The parts of a controller that keep the inventory.
struct Part {
    fresh: Fresh,
    changes: Changes,
    agents: Arc<Agents>,
    policies: Arc<Policies>,
    states: Arc<States>,
    enroller: Enroller,
    _folder: tempfile::TempDir,
}

impl Part {
    async fn start(agents: usize) -> (Self, Vec<AgentId>) {
        let (fresh, folder) = (fresh().await, tempfile::tempdir().expect("a folder"));
        let mut ids = Vec::new();
        for n in 0..agents {
            ids.push(enroll(&fresh.db, &format!("host-{n}")).await);
        }
        let pki = pki(folder.path());
        let changes = Changes::new(fresh.db.clone()).await.expect("changes");
        let agents = Agents::load(fresh.db.clone(), changes.clone(), NOW - DAY).await;
        let agents = Arc::new(agents.expect("agents"));
        let policies = Policies::load(fresh.db.clone(), changes.clone(), pki.clone()).await;
        let policies = Arc::new(policies.expect("policies"));
        let states = States::load(fresh.db.clone(), changes.clone(), agents.clone(), policies.clone()).await;
        let states = Arc::new(states.expect("states"));
        let links = Arc::new(Links::new(Duration::from_secs(30)));
        let enroller = Enroller::new(
            fresh.db.clone(),
            changes.clone(),
            pki,
            agents.clone(),
            Arc::default(),
            links,
        );
        let part = Self {
            fresh,
            changes,
            agents,
            policies,
            states,
            enroller,
            _folder: folder,
        };
        (part, ids)
    }

    fn db(&self) -> &Db {
        &self.fresh.db
    }

    fn connect(&self, id: AgentId, now: i64) {
        let connection = Connection::new("s", "192.0.2.1:1", now);
        let hello = Hello {
            version: "0.1.0".into(),
            labels: BTreeMap::new(),
            warnings: Vec::new(),
        };
        self.agents.connected(id, connection, hello, now);
    }

    fn status(&self, id: AgentId) -> AgentStatus {
        self.agents.get(id).expect("an agent").status
    }
}

#[tokio::test]
async fn an_agent_that_was_silent_only_to_a_frozen_controller_is_online_again_with_its_next_frame() {
    let (part, ids) = Part::start(1).await;
    part.connect(ids[0], NOW);
    part.agents.review_liveness(RULES, NOW + 10 * MINUTE);
    assert_eq!(part.status(ids[0]), AgentStatus::Offline);
    // The link was there all the time.
    part.agents.seen(ids[0], NOW + 10 * MINUTE + SECOND);
    part.agents.review_liveness(RULES, NOW + 10 * MINUTE + 2 * SECOND);
    assert_eq!(part.status(ids[0]), AgentStatus::Online);
    // One that has left is not.
    part.agents.disconnected(ids[0], "s", "goodbye", NOW + 11 * MINUTE);
    part.agents.review_liveness(RULES, NOW + 11 * MINUTE);
    assert_eq!(part.status(ids[0]), AgentStatus::Offline);
}

#[tokio::test]
async fn silence_counts_from_when_the_clock_was_set_back() {
    let (part, ids) = Part::start(1).await;
    part.connect(ids[0], NOW + DAY);
    part.agents.review_liveness(RULES, NOW);
    assert_eq!(part.status(ids[0]), AgentStatus::Online);
    part.agents.review_liveness(RULES, NOW + 2 * MINUTE);
    assert_eq!(part.status(ids[0]), AgentStatus::Offline);
}

#[tokio::test]
async fn nobody_is_told_of_a_change_that_cannot_be_read_yet() {
    let (part, _) = Part::start(0).await;
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    tasks.spawn(part.changes.clone().run(stop.clone()));
    tasks.close();
    let mut follower = part.changes.follow();
    let is_readable = AtomicBool::new(false);
    let write = async {
        let held = part.changes.hold().await;
        let mut tx = part.db().begin().await.expect("begin");
        tx.change_add(NOW, ChangeKind::Policy, "Check/a", Op::Put)
            .await
            .expect("change");
        tx.commit().await.expect("commit");
        // Another commit's nudge, while memory does not follow this one yet.
        part.changes.committed();
        for _ in 0..50 {
            part.db().revision_current().await.expect("revision");
        }
        is_readable.store(true, Ordering::SeqCst);
        drop(held);
    };
    let read = async {
        let change = follower.next().await.expect("a change");
        assert!(is_readable.load(Ordering::SeqCst), "told too early of {}", change.id);
    };
    tokio::join!(write, read);
    stop.cancel();
    tasks.wait().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_told_is_never_behind_the_revision_that_watches_begin_with() {
    const COUNT: i64 = 5_000;
    let (part, _) = Part::start(0).await;
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    tasks.spawn(part.changes.clone().run(stop.clone()));
    tasks.close();
    let mut follower = part.changes.follow();
    let changes: Vec<_> = (0..COUNT)
        .map(|n| (ChangeKind::State, format!("a/{n}"), Op::Put))
        .collect();
    let mut tx = part.db().begin().await.expect("begin");
    tx.changes_add(NOW, &changes).await.expect("changes");
    tx.commit().await.expect("commit");
    part.changes.committed();
    for _ in 0..COUNT {
        let change = follower.next().await.expect("a change");
        let revision = part.changes.revision();
        assert!(
            revision >= change.revision,
            "{} was told at {revision}",
            change.revision
        );
    }
    stop.cancel();
    tasks.wait().await;
}

#[tokio::test]
async fn every_assignment_of_a_large_fleet_gets_its_entry_in_one_go() {
    let (part, ids) = Part::start(1_100).await;
    part.policies
        .apply(vec![policy()], &Scopes::all(), "user/tester", NOW)
        .await
        .expect("applied");
    part.states.reconcile_once(NOW).await.expect("reconciled");
    let has_entry = |id: &&AgentId| part.states.get(**id, "disk").is_some();
    assert_eq!(ids.iter().filter(has_entry).count(), ids.len());
    part.policies
        .delete(
            &muster_server::policies::Key::check("disk"),
            0,
            &Scopes::all(),
            "user/tester",
            NOW,
        )
        .await
        .expect("deleted");
    part.states.reconcile_once(NOW).await.expect("reconciled");
    assert_eq!(ids.iter().filter(has_entry).count(), 0);
    assert!(part.db().state_list().await.expect("states").is_empty());
}

#[tokio::test]
async fn readers_and_writers_of_agents_and_states_never_wait_for_each_other_in_a_circle() {
    let (part, ids) = Part::start(20).await;
    part.policies
        .apply(vec![policy()], &Scopes::all(), "user/tester", NOW)
        .await
        .expect("applied");
    part.states.reconcile_once(NOW).await.expect("reconciled");
    let (done, ended) = mpsc::sync_channel(4);
    let stop = Arc::new(AtomicBool::new(false));
    let spin = |work: Box<dyn Fn() + Send>| {
        let (stop, done) = (stop.clone(), done.clone());
        thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                work();
            }
            done.send(()).expect("the test waits");
        });
    };
    let compiled: Arc<Compiled> = part.policies.current();
    let (agents, states) = (part.agents.clone(), part.states.clone());
    spin(Box::new(move || {
        agents.each(|agent| drop(states.views(agent, &compiled, NOW)))
    }));
    let (agents, id) = (part.agents.clone(), ids[0]);
    spin(Box::new(move || agents.seen(id, NOW)));
    let (states, id) = (part.states.clone(), ids[0]);
    spin(Box::new(move || {
        states.committed([(id, "other".to_owned(), Entry::pending(NOW))])
    }));
    let states = part.states.clone();
    let reconcile = async move {
        for _ in 0..100 {
            states.reconcile_once(NOW).await.expect("reconciled");
        }
    };
    let runtime = tokio::runtime::Handle::current();
    let reconciled = done.clone();
    thread::spawn(move || {
        runtime.block_on(reconcile);
        stop.store(true, Ordering::Relaxed);
        reconciled.send(()).expect("the test waits");
    });
    let wait = tokio::task::spawn_blocking(move || (0..4).all(|_| ended.recv_timeout(Duration::from_secs(30)).is_ok()));
    assert!(wait.await.expect("no panic"), "they stand still");
}

#[tokio::test]
async fn a_check_that_a_label_assigns_starts_pending_and_not_late() {
    let (part, ids) = Part::start(1).await;
    let mut wanted = policy();
    if let Some(muster_proto::v1::policy::Spec::Check(check)) = &mut wanted.spec {
        check.selector = "role=db".into();
    }
    part.policies
        .apply(vec![wanted], &Scopes::all(), "user/tester", NOW - DAY)
        .await
        .expect("applied");
    part.connect(ids[0], NOW - DAY);
    part.states.reconcile_once(NOW).await.expect("reconciled");
    assert!(part.states.get(ids[0], "disk").is_none());
    let label = BTreeMap::from([("role".to_owned(), "db".to_owned())]);
    part.agents
        .update_labels(ids[0], &label, &[], 0, |_, _| Ok(()), NOW)
        .await
        .expect("labelled");
    part.states.reconcile_once(NOW).await.expect("reconciled");
    let entry = part.states.get(ids[0], "disk").expect("assigned");
    assert_eq!(entry.freshness, Freshness::Fresh);
}

#[tokio::test]
async fn an_enrollment_that_is_repeated_while_it_is_under_way_gets_the_same_certificate() {
    let (part, _) = Part::start(0).await;
    let now = clock::now();
    let new = NewToken::new("first");
    let once = Once::plain(|_| ());
    let (_, token) = tokens::create(part.db(), &part.changes, new, "0123456789abcdef", once, now)
        .await
        .expect("a token");
    let request = enroll::Request {
        token: token.expose().to_string(),
        agent_id: Some(AgentId::random()),
        csr: csr::create(&KeyPair::generate().expect("a key")).expect("a request"),
        name: "db-01".into(),
        labels: BTreeMap::new(),
        version: "0.1.0".into(),
        source: IpAddr::V4(Ipv4Addr::LOCALHOST),
    };
    let stop = CancellationToken::new();
    let both = async {
        let answers = tokio::join!(
            part.enroller.enroll(request.clone(), now),
            part.enroller.enroll(request, now)
        );
        stop.cancel();
        answers
    };
    let ((first, second), ()) = tokio::join!(both, part.enroller.run(stop.clone()));
    let (first, second) = (first.expect("enrolled"), second.expect("enrolled"));
    assert_eq!(first.certificate, second.certificate);
    assert_eq!(
        [first.is_new, second.is_new].iter().filter(|is_new| **is_new).count(),
        1
    );
}
