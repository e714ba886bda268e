//! A backup of a controller that is busy is of one moment.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use muster_server::store::{Db, History};
use muster_tests::{
    Controller,
    poll::{self, SECOND},
    postgres::Database,
};
use serde_json::json;

use super::from_database;

#[test]
fn a_backup_while_everything_is_written_is_of_one_moment() {
    let mut controller = Controller::start_with("link: { heartbeat: 1s }");
    for n in 0..20 {
        controller.apply(
            &json!({
                "apiVersion": "muster/v1", "kind": "Check", "metadata": { "name": format!("check-{n}") },
                "spec": { "selector": "*", "schedule": { "interval": "1s" }, "run": { "command": ["/bin/true"] } },
            })
            .to_string(),
        );
    }
    let agents: Vec<_> = controller
        .fleet("host", 3)
        .into_iter()
        .map(|setup| setup.start())
        .collect();
    for n in 1..=3 {
        poll::until("results", 60 * SECOND, || {
            controller.ctl().state(&format!("host-{n}"), "check-0")
        });
    }
    let stop = AtomicBool::new(false);
    let backups = thread::scope(|scope| {
        let ctl = controller.ctl();
        let stop = &stop;
        let writer = scope.spawn(move || {
            let mut made = 0;
            while !stop.load(Ordering::Relaxed) {
                ctl.ok(&["token", "create"]);
                let id = format!("00000000-0000-4000-8000-{made:012}");
                ctl.ok(&[
                    "agent",
                    "preregister",
                    "--id",
                    &id,
                    "--name",
                    &format!("expected-{made}"),
                ]);
                made += 1;
            }
            made
        });
        let backups: Vec<_> = (0..3).map(|n| controller.backup(&format!("backup-{n}"))).collect();
        stop.store(true, Ordering::Relaxed);
        assert!(writer.join().expect("the writer") > 0, "nothing was written meanwhile");
        backups
    });
    drop(agents);
    controller.stop();

    let mut sizes = BTreeSet::new();
    for backup in backups {
        controller.restore(&backup, Database::create());
        sizes.insert(from_database(&controller, check).to_owned());
    }
    assert!(sizes.len() > 1, "the backups are all the same: {sizes:?}");
}

/// What every transaction leaves as it found it. Gives the number of results.
async fn check(db: &Db) -> usize {
    let agents: BTreeSet<String> = db
        .agent_list()
        .await
        .expect("agents")
        .into_iter()
        .map(|row| row.id)
        .collect();
    let certificates = db.agent_certificate_list_live().await.expect("certificates");
    assert!(certificates.len() >= 3);
    for certificate in &certificates {
        assert!(agents.contains(&certificate.agent_id), "{certificate:?} is of nobody");
    }
    let states = db.state_list().await.expect("states");
    for state in &states {
        assert!(agents.contains(&state.agent_id), "{state:?} is of nobody");
    }
    let mut results = 0;
    for agent in &agents {
        for n in 0..20 {
            results += db
                .result_list(agent, &format!("check-{n}"))
                .await
                .expect("results")
                .len();
        }
    }
    let usage = db.history_usage(History::Results).await.expect("usage");
    assert_eq!(
        usage.row_count, results as i64,
        "results and their count are of two moments"
    );
    // The revision is above that of every row.
    let revision = db.revision_current().await.expect("a revision");
    assert!(states.iter().all(|state| state.revision < revision));
    assert!(db.policy_list().await.expect("policies").len() == 20);
    results
}
