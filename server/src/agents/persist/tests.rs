use muster_proto::v1::{PolicyReport, PolicyStatus};

use super::*;
use crate::{
    agents::{Connection, Hello, Labels, OnClone, Told},
    changes::Changes,
    clones::{Decision, Party},
    store::{
        Db, NewAgent, Source,
        scratch::{Scratch, postgres_url},
    },
};

type Change = fn(&Agents, AgentId, Micros);

fn hello(version: &str, labels: &[(&str, &str)], warning: &str) -> Hello {
    Hello {
        version: version.into(),
        labels: map(labels),
        warnings: vec![warning.into()],
    }
}

fn map(pairs: &[(&str, &str)]) -> Labels {
    pairs
        .iter()
        .map(|(key, value)| ((*key).into(), (*value).into()))
        .collect()
}

fn connected(agents: &Agents, id: AgentId, hello: Hello, now: Micros) {
    agents.connected(id, Connection::new("s1", "192.0.2.1:1", now), hello, now);
}

fn policy_status(digest: &str) -> PolicyStatus {
    PolicyStatus {
        digest: digest.into(),
        policies: vec![PolicyReport::default()],
        ..PolicyStatus::default()
    }
}

fn machine(boot: &str) -> Party {
    Party {
        machine: "m1".into(),
        boot: boot.into(),
        ..Party::default()
    }
}

/// All that happens to an agent and is written behind its back.
const CHANGES: &[(&str, Change)] = &[
    ("connected", |agents, id, now| {
        connected(agents, id, hello("1", &[("a", "b")], "w1"), now);
    }),
    ("another version", |agents, id, now| {
        connected(agents, id, hello("2", &[("a", "b")], "w1"), now);
    }),
    ("other labels", |agents, id, now| {
        connected(agents, id, hello("2", &[("a", "c")], "w1"), now);
    }),
    ("another warning", |agents, id, now| {
        connected(agents, id, hello("2", &[("a", "c")], "w2"), now);
    }),
    ("facts", |agents, id, _| {
        let facts = map(&[("os.id", "debian")]);
        let digest = muster_proto::digest::of_map(&facts);
        agents.set_facts(id, facts, digest);
    }),
    ("policy status", |agents, id, _| {
        agents.set_policy_status(id, policy_status("d1"));
    }),
    ("trust bundle", |agents, id, _| agents.set_bundle_version(id, 3)),
    ("machine", |agents, id, now| {
        agents.machine_admitted(id, Decision::Admit, None, &machine("b1"), now);
    }),
    ("another machine takes its place", |agents, id, now| {
        agents.machine_admitted(id, Decision::Displace, Some(&machine("b1")), &machine("b2"), now);
    }),
    ("a copy", |agents, id, now| {
        agents.clone_refused(id, Some(&machine("b2")), &machine("b1"), OnClone::Refuse, now);
    }),
    ("slowed down", |agents, id, now| agents.throttled(id, "results", now)),
    ("invents series", |agents, id, now| {
        agents.new_series_refused(id, 7, now)
    }),
    ("first use of a certificate", |agents, id, now| {
        let serial = agents.get(id).unwrap().certificate.serial;
        agents.certificate_used(id, &serial, now);
    }),
    ("late", |agents, id, now| {
        agents.set_status(id, now, |_| Some((AgentStatus::Late, liveness::SILENT)));
    }),
    ("several at once", |agents, id, _| {
        agents.set_policy_status(id, policy_status("d2"));
        agents.set_bundle_version(id, 4);
        agents.set_facts(id, Labels::new(), String::new());
    }),
    ("goodbye", |agents, id, now| {
        agents.disconnected(id, "s1", liveness::GOODBYE, now);
    }),
    // Nothing of it is in the row at once, and it may be there from before.
    ("enrolled again", |agents, id, now| agents.insert(new(id, now))),
];

fn new_agent(id: AgentId, now: Micros) -> NewAgent<'static> {
    NewAgent {
        id,
        name: "web-01",
        agent_labels: "{}",
        token_labels: "{}",
        version: "",
        now,
        revision: 0,
    }
}

fn new(id: AgentId, now: Micros) -> Entry {
    Entry::from(&new_agent(id, now))
}

/// What of an entry is in its row.
fn on_file(agents: &Agents, id: AgentId) -> String {
    let entry = agents.get(id).unwrap();
    let blank = new(id, 0);
    let on_file = Entry {
        certificate: blank.certificate,
        next: blank.next,
        connection: blank.connection,
        clock_skew: blank.clock_skew,
        heard: blank.heard,
        leave_reason: blank.leave_reason,
        conflict: blank.conflict,
        throttled: blank.throttled,
        refused_series: blank.refused_series,
        // Made of the facts.
        facts_digest: String::new(),
        // Written by the enrollment.
        enrolled_at: 0,
        ..entry
    };
    format!("{on_file:#?}")
}

async fn load(db: &Db) -> Agents {
    Agents::load(db.clone(), Changes::new(db.clone()).await.unwrap(), 1)
        .await
        .unwrap()
}

async fn enroll(db: &Db) -> AgentId {
    let id = AgentId::random();
    let mut tx = db.begin().await.unwrap();
    assert!(tx.agent_insert(new_agent(id, 1)).await.unwrap());
    tx.commit().await.unwrap();
    id
}

async fn all_is_written(source: &Source) {
    let db = Db::open(source).await.unwrap();
    let (id, other) = (enroll(&db).await, enroll(&db).await);
    let agents = load(&db).await;
    let untouched = on_file(&agents, other);
    for (now, (what, change)) in (10..).zip(CHANGES) {
        let before = agents.get(id).unwrap().revision;
        change(&agents, id, now);
        agents.flush().await.unwrap();
        let again = load(&db).await;
        assert_eq!(on_file(&again, id), on_file(&agents, id), "{what}");
        assert_eq!(on_file(&again, other), untouched, "{what}");
        assert!(agents.get(id).unwrap().revision > before, "watchers hear of it: {what}");
        assert!(agents.lock_dirty().is_empty(), "{what}");
    }
    db.close().await;
}

#[tokio::test]
async fn whatever_changes_of_an_agent_is_in_its_row_on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    all_is_written(&Source::Sqlite(folder.path().to_owned())).await;
}

#[tokio::test]
async fn whatever_changes_of_an_agent_is_in_its_row_on_postgresql() {
    let Some(server) = postgres_url("rows of agents on PostgreSQL") else {
        return;
    };
    let scratch = Scratch::create(&server, "agents").await;
    all_is_written(&scratch.source).await;
    scratch.drop().await;
}

#[tokio::test]
async fn agents_that_have_changed_in_different_ways_are_written_together() {
    let folder = tempfile::tempdir().unwrap();
    let db = Db::open(&Source::Sqlite(folder.path().to_owned())).await.unwrap();
    let mut ids = Vec::new();
    for _ in CHANGES {
        ids.push(enroll(&db).await);
    }
    let agents = load(&db).await;
    for (id, (_, change)) in ids.iter().zip(CHANGES) {
        change(&agents, *id, 10);
    }
    agents.flush().await.unwrap();
    let again = load(&db).await;
    for (id, (what, _)) in ids.iter().zip(CHANGES) {
        assert_eq!(on_file(&again, *id), on_file(&agents, *id), "{what}");
    }
}

#[tokio::test]
async fn what_could_not_be_written_stays_marked_beside_what_changes_then() {
    let folder = tempfile::tempdir().unwrap();
    let db = Db::open(&Source::Sqlite(folder.path().to_owned())).await.unwrap();
    let id = enroll(&db).await;
    let agents = load(&db).await;
    agents.set_bundle_version(id, 3);
    db.close().await;
    agents.flush().await.unwrap_err();
    agents.set_policy_status(id, policy_status("d1"));
    agents.flush().await.unwrap_err();
    let both = Parts::BUNDLE | Parts::POLICY_STATUS;
    assert_eq!(*agents.lock_dirty(), BTreeMap::from([(id, both)]));
}

/// All events of an agent, in order of their time.
async fn all_told(db: &Db, id: AgentId) -> Vec<EventRow> {
    let all = EventFilter {
        agent_id: id.to_string(),
        ..EventFilter::newest(100)
    };
    let mut events = db.event_list(&all).await.unwrap();
    events.sort_by_key(|event| event.at);
    events
}

#[tokio::test]
async fn what_a_commit_has_told_without_saying_so_is_not_told_again() {
    let folder = tempfile::tempdir().unwrap();
    let db = Db::open(&Source::Sqlite(folder.path().to_owned())).await.unwrap();
    let id = enroll(&db).await;
    let agents = load(&db).await;
    let late = |now| agents.set_status(id, now, |_| Some((AgentStatus::Late, liveness::SILENT)));
    let online = |now| agents.set_status(id, now, |_| Some((AgentStatus::Online, liveness::HEARD)));
    let told = async || all_told(&db, id).await;
    let times = async || told().await.iter().map(|event| event.at).collect::<Vec<_>>();
    for (was_stored, expected) in [(true, vec![10, 11]), (false, vec![10, 11, 12, 13])] {
        let first = expected[expected.len() - 2];
        late(first);
        let put_back = agents.lock_transitions().take();
        if was_stored {
            agents.lock_transitions().put_back(put_back.clone());
            agents.flush().await.unwrap();
        }
        let mut event = told().await.pop().unwrap();
        event.at = first;
        *agents.lock_unsure() = Some(Unsure {
            event,
            transitions: put_back.len(),
            notices: 0,
        });
        agents.lock_transitions().put_back(put_back);
        online(first + 1);
        agents.flush().await.unwrap();
        assert_eq!(times().await, expected, "{was_stored}");
        assert!(agents.lock_unsure().is_none());
    }
}

/// It is not done with it: nobody sees yet what it tells.
async fn what_a_commit_is_about_to_tell_is_not_told_again(source: &Source) {
    let db = Db::open(source).await.unwrap();
    let id = enroll(&db).await;
    let agents = load(&db).await;
    agents.set_status(id, 10, |_| Some((AgentStatus::Online, liveness::HEARD)));
    let told = agents.lock_transitions().take();
    let event = told[0].to_event(11);
    let mut under_way = db.begin().await.unwrap();
    under_way.event_insert_all(std::slice::from_ref(&event)).await.unwrap();
    *agents.lock_unsure() = Some(Unsure {
        event: event.clone(),
        transitions: told.len(),
        notices: 0,
    });
    agents.lock_transitions().put_back(told);
    let ends = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        under_way.commit().await.unwrap();
    };
    let (flushed, ()) = tokio::join!(agents.flush(), ends);
    flushed.unwrap();
    assert_eq!(all_told(&db, id).await, [event]);
    db.close().await;
}

#[tokio::test]
async fn what_a_commit_is_about_to_tell_is_not_told_again_on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    what_a_commit_is_about_to_tell_is_not_told_again(&Source::Sqlite(folder.path().to_owned())).await;
}

#[tokio::test]
async fn what_a_commit_is_about_to_tell_is_not_told_again_on_postgresql() {
    let Some(server) = postgres_url("events of agents whose commit was not answered, on PostgreSQL") else {
        return;
    };
    let scratch = Scratch::create(&server, "told").await;
    what_a_commit_is_about_to_tell_is_not_told_again(&scratch.source).await;
    scratch.drop().await;
}

#[tokio::test]
async fn the_newest_trust_bundle_is_the_newest_on_file_or_told_of_since() {
    let folder = tempfile::tempdir().unwrap();
    let db = Db::open(&Source::Sqlite(folder.path().to_owned())).await.unwrap();
    let [one, other] = [enroll(&db).await, enroll(&db).await];
    let agents = load(&db).await;
    agents.set_bundle_version(one, 3);
    agents.flush().await.unwrap();

    let agents = load(&db).await;
    let mut newest = agents.newest_bundle();
    assert_eq!(*newest.borrow(), Some(Told { version: 3, by: one }));
    agents.set_bundle_version(other, 3);
    agents.set_bundle_version(one, 2);
    agents.set_bundle_version(one, i64::MAX);
    assert!(!newest.has_changed().unwrap());
    agents.set_bundle_version(other, 4);
    assert_eq!(*newest.borrow_and_update(), Some(Told { version: 4, by: other }));
}

#[tokio::test]
async fn a_rush_goes_into_one_commit_but_is_not_waited_out_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let db = Db::open(&Source::Sqlite(folder.path().to_owned())).await.unwrap();
    let agents = load(&db).await;
    tokio::time::pause();
    // Comes before the look at what has come.
    let rush = async |rounds: usize| {
        for _ in 0..rounds {
            (0..RUSH).for_each(|_| agents.mark_dirty(AgentId::random(), Parts::SHOWN));
            tokio::time::sleep(GATHER).await;
        }
    };
    let gathered = async |rounds| {
        agents.lock_dirty().clear();
        tokio::select! {
            biased;
            () = async { rush(rounds).await; std::future::pending().await } => {}
            () = agents.gather() => {}
        }
        agents.lock_dirty().len() / RUSH
    };
    assert_eq!(gathered(3).await, 3);
    let most = GATHER_AT_MOST.div_duration_f64(GATHER) as usize;
    assert!((most..most + 2).contains(&gathered(100).await));

    agents.lock_dirty().clear();
    agents.mark_dirty(AgentId::random(), Parts::SHOWN);
    let start = tokio::time::Instant::now();
    agents.gather().await;
    assert!(start.elapsed() < 2 * GATHER, "one change waits for no others");
}
