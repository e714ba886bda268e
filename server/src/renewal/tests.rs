//! Renewal with a database under it. Which certificates renew is tested with the rules, the way over the wire in the tests of
//! the whole.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use muster_certs::key::KeyPair;

use super::*;
use crate::{
    access::{rights::RightsOfAll, scope::Scopes},
    agents::Preregistration,
    changes::Changes,
    clock::{DAY, HOUR},
    store::{EventFilter, Restored, Source},
};

#[tokio::test]
async fn whom_a_restored_backup_only_expects_is_told_of_as_one_that_it_does_not_know() {
    let folder = tempfile::tempdir().unwrap();
    let domain = "example.muster".parse().unwrap();
    let pki = Arc::new(Pki::create(&folder.path().join("pki"), &domain, SystemTime::now()).unwrap());
    let db = Db::open(&Source::Sqlite(folder.path().to_owned())).await.unwrap();
    let now = clock::now();
    let restored = Restored {
        restored_at: now - HOUR,
        backup_at: now - DAY,
    };
    let mut tx = db.begin().await.unwrap();
    tx.epoch_begin(1, restored).await.unwrap();
    tx.commit().await.unwrap();
    let changes = Changes::new(db.clone()).await.unwrap();
    let agents = Arc::new(Agents::load(db.clone(), changes, now).await.unwrap());
    let wanted = Preregistration {
        id: AgentId::random(),
        name: "db-01".to_owned(),
        labels: BTreeMap::new(),
        adopt: false,
        revive: false,
    };
    let id = agents
        .preregister(wanted, &Scopes::all(), &RightsOfAll::default(), "admin", now)
        .await
        .unwrap()
        .id;
    let links = Arc::new(Links::new(Duration::from_secs(30)));
    let renewer = Renewer::new(db.clone(), pki, agents, links, 90 * DAY, OnClone::Refuse);
    let renewer = renewer.await.unwrap();

    // It has enrolled after the backup and before the restore.
    let request = Request {
        agent: id,
        serial: "01".to_owned(),
        standing: Standing::Unknown,
        not_before: now - 12 * HOUR,
        not_after: now + 12 * HOUR,
        csr: csr::create(&KeyPair::generate().unwrap()).unwrap(),
        party: Party::new(None, "01", "192.0.2.1:1"),
    };
    let error = renewer.renew(request, now).await.unwrap_err();
    assert!(matches!(error, Error::Refused(Refusal::Unknown)), "{error:?}");
    let filter = EventFilter {
        agent_id: id.to_string(),
        reasons: vec!["AGENT_NOT_ON_FILE".to_owned()],
        ..EventFilter::newest(100)
    };
    assert_eq!(db.event_list(&filter).await.unwrap().len(), 1);
}
