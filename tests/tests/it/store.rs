//! The store on the database of this run: SQLite or, when one is given, PostgreSQL. What holds here holds on both.

mod history;

use std::collections::BTreeSet;

use muster_proto::{ids::AgentId, v1::Lane};
use muster_server::store::{
    AgentPart, AgentUpdate, Change, ChangeKind, Db, MarkRow, NewAgent, NewCertificate, NewRedemption,
    NewUserCertificate, Op, PolicyRow, Source, StateRow, TokenRow,
};
use muster_tests::postgres::Database;

/// A fresh database, and what has to live as long as it.
pub struct Fresh {
    pub db: Db,
    pub source: Source,
    _postgres: Option<Database>,
    _folder: tempfile::TempDir,
}

pub async fn fresh() -> Fresh {
    let folder = tempfile::tempdir().expect("a folder");
    let postgres = Database::create();
    let source = match &postgres {
        Some(database) => Source::Postgres(database.url()),
        None => Source::Sqlite(folder.path().to_owned()),
    };
    let db = Db::open(&source).await.expect("a database");
    Fresh {
        db,
        source,
        _postgres: postgres,
        _folder: folder,
    }
}

/// Puts an agent on file.
pub async fn enroll(db: &Db, name: &str) -> AgentId {
    let id = AgentId::random();
    let mut tx = db.begin().await.expect("begin");
    let revision = tx
        .change_add(1, ChangeKind::Agent, &id.to_string(), Op::Put)
        .await
        .expect("change");
    let agent = NewAgent {
        id,
        name,
        agent_labels: "{}",
        token_labels: r#"{"env":"prod"}"#,
        version: "0.1.0",
        now: 1,
        revision,
    };
    assert!(tx.agent_insert(agent).await.expect("insert"));
    tx.agent_certificate_insert(NewCertificate {
        agent_id: &id.to_string(),
        serial: &format!("serial-{id}"),
        not_after: 99,
        public_key: "sha256:of-a-key",
        ca: "0123456789abcdef",
        predecessor: "",
        certificate: b"der",
        now: 1,
    })
    .await
    .expect("certificate");
    tx.commit().await.expect("commit");
    id
}

fn token(id: &str, uses: i64) -> TokenRow {
    TokenRow {
        id: id.into(),
        secret_hash: vec![1; 32],
        description: "for the tests".into(),
        labels: "{}".into(),
        uses,
        uses_left: uses,
        creator: "admin".into(),
        created_at: 1,
        expires_at: 1_000,
        revision: 1,
        agent_id: String::new(),
        source: String::new(),
        allow_reenroll: false,
        ephemeral: 0,
        on_clone: String::new(),
        revoked_at: 0,
        cas: String::new(),
        revoke_reason: String::new(),
        scope: "env=dev".into(),
    }
}

#[tokio::test]
async fn opening_twice_keeps_what_is_there() {
    let fresh = fresh().await;
    let id = enroll(&fresh.db, "db-01").await;
    let again = Db::open(&fresh.source).await.expect("opens again");
    let agents = again.agent_list().await.expect("agents");
    assert_eq!(agents.len(), 1);
    assert_eq!(agents[0].id, id.to_string());
    let certificates = again.agent_certificate_list_live().await.expect("certificates");
    assert_eq!(certificates.len(), 1);
    assert_eq!(certificates[0].serial, format!("serial-{id}"));
    assert_eq!(agents[0].status, "pending");
    again.close().await;
}

#[tokio::test]
async fn a_token_of_ten_uses_is_used_ten_times_by_fifty_at_once() {
    let fresh = fresh().await;
    let mut tx = fresh.db.begin().await.expect("begin");
    tx.token_insert(&token("t", 10)).await.expect("insert");
    tx.commit().await.expect("commit");
    let attempts = (0..50).map(|n| {
        let db = fresh.db.clone();
        async move {
            let mut tx = db.begin().await.expect("begin");
            let taken = tx.token_use("t", 1, 100 + n, 500).await.expect("use");
            tx.commit().await.expect("commit");
            taken
        }
    });
    let mut set = tokio::task::JoinSet::new();
    attempts.for_each(|attempt| {
        set.spawn(attempt);
    });
    let taken = set.join_all().await.into_iter().filter(|taken| *taken).count();
    assert_eq!(taken, 10);
    assert_eq!(fresh.db.token_get("t").await.expect("get").expect("there").uses_left, 0);
}

#[tokio::test]
async fn an_expired_token_gives_no_use_and_a_rolled_back_one_takes_none() {
    let fresh = fresh().await;
    let mut tx = fresh.db.begin().await.expect("begin");
    tx.token_insert(&token("t", 1)).await.expect("insert");
    tx.commit().await.expect("commit");
    let mut tx = fresh.db.begin().await.expect("begin");
    assert!(
        !tx.token_use("t", 1, 2, 1_000).await.expect("use"),
        "it expires at 1000"
    );
    assert!(!tx.token_use("t", 2, 2, 999).await.expect("use"), "it has one left");
    assert!(tx.token_use("t", 1, 2, 999).await.expect("use"));
    drop(tx);
    assert_eq!(fresh.db.token_get("t").await.expect("get").expect("there").uses_left, 1);
}

#[tokio::test]
async fn revisions_are_given_in_the_order_of_commits_without_a_hole() {
    let fresh = fresh().await;
    let mut set = tokio::task::JoinSet::new();
    for n in 0..30_i64 {
        let db = fresh.db.clone();
        set.spawn(async move {
            let mut tx = db.begin().await.expect("begin");
            let changes: Vec<_> = (0..=n % 3)
                .map(|k| (ChangeKind::State, format!("{n}/{k}"), Op::Put))
                .collect();
            tx.changes_add(n, &changes).await.expect("changes");
            // Every third is given up: its revisions must not be missing later.
            if n % 3 != 0 {
                tx.commit().await.expect("commit");
            }
        });
    }
    set.join_all().await;
    let changes = fresh.db.changes_after(0, 1_000).await.expect("changes");
    let revisions: Vec<i64> = changes.iter().map(|change| change.revision).collect();
    assert_eq!(
        revisions,
        (1..=50).collect::<Vec<i64>>(),
        "10 × 2 and 10 × 3 changes were committed"
    );
    assert_eq!(fresh.db.revision_current().await.expect("revision"), 50);
    assert_eq!(fresh.db.changes_oldest().await.expect("oldest"), 1);
    assert_eq!(fresh.db.changes_after(48, 1).await.expect("changes").len(), 1);
}

#[tokio::test]
async fn trimmed_changes_are_known_to_be_gone() {
    let fresh = fresh().await;
    for at in [10, 20, 30] {
        let mut tx = fresh.db.begin().await.expect("begin");
        tx.change_add(at, ChangeKind::Policy, "Check/a", Op::Delete)
            .await
            .expect("change");
        tx.commit().await.expect("commit");
    }
    assert_eq!(fresh.db.changes_trim(30).await.expect("trim"), 2);
    assert_eq!(fresh.db.changes_oldest().await.expect("oldest"), 3);
    let last = Change {
        revision: 3,
        kind: ChangeKind::Policy,
        id: "Check/a".into(),
        op: Op::Delete,
    };
    assert_eq!(fresh.db.changes_after(0, 10).await.expect("changes"), [last]);
    fresh.db.changes_trim(99).await.expect("trim");
    assert_eq!(
        fresh.db.changes_oldest().await.expect("oldest"),
        4,
        "one above the current revision"
    );
}

#[tokio::test]
async fn the_latest_changes_are_kept_however_many_there_were() {
    let fresh = fresh().await;
    let mut tx = fresh.db.begin().await.expect("begin");
    let change = (ChangeKind::State, "a/disk".to_owned(), Op::Put);
    tx.changes_add(10, &vec![change; 500]).await.expect("changes");
    tx.commit().await.expect("commit");
    assert_eq!(fresh.db.changes_trim_to(100).await.expect("trim"), 400);
    assert_eq!(fresh.db.changes_oldest().await.expect("oldest"), 401);
    assert_eq!(fresh.db.changes_trim_to(100).await.expect("trim"), 0);
}

#[tokio::test]
async fn a_clock_that_was_set_back_leaves_no_hole_in_the_changes() {
    let fresh = fresh().await;
    for at in [1_000, 10, 20, 30] {
        let mut tx = fresh.db.begin().await.expect("begin");
        tx.change_add(at, ChangeKind::Policy, "Check/a", Op::Put)
            .await
            .expect("change");
        tx.commit().await.expect("commit");
    }
    // The first is the oldest, whatever the clock said then.
    fresh.db.changes_trim(30).await.expect("trim");
    let left = fresh.db.changes_after(0, 10).await.expect("changes");
    assert_eq!(left.iter().map(|change| change.revision).collect::<Vec<_>>(), [4]);
}

#[tokio::test]
async fn what_changes_of_an_agent_is_read_back() {
    let fresh = fresh().await;
    let id = enroll(&fresh.db, "web-07").await;
    let update = AgentUpdate {
        id,
        last_seen: 4,
        parts: vec![
            AgentPart::Status {
                status: "late",
                reason: "eof".into(),
                since: 5,
            },
            AgentPart::Hello {
                version: "0.2.0".into(),
                labels: r#"{"a":"b"}"#.into(),
                warnings: r#"["careful"]"#.into(),
            },
            AgentPart::Facts(r#"{"os.id":"debian"}"#.into()),
            AgentPart::PolicyStatus(vec![1, 2, 3]),
            AgentPart::Fingerprint(r#"{"machine":"m1"}"#.into()),
            AgentPart::BundleVersion(7),
        ],
        revision: 7,
    };
    let other = enroll(&fresh.db, "web-08").await;
    let of_other = AgentUpdate {
        id: other,
        last_seen: 3,
        parts: vec![AgentPart::Facts(r#"{"os.id":"alpine"}"#.into())],
        revision: 6,
    };
    let mut tx = fresh.db.begin().await.expect("begin");
    tx.agent_update_all(vec![update, of_other]).await.expect("update");
    tx.agent_set_operator_labels(&id.to_string(), r#"{"rack":"r1"}"#, 8)
        .await
        .expect("labels");
    tx.commit().await.expect("commit");
    for seen in [9, 3] {
        let seen = [(id.to_string(), seen)];
        fresh.db.agent_flush_last_seen(&seen).await.expect("flush");
    }
    let mut rows = fresh.db.agent_list().await.expect("agents");
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    let row = rows.remove(0);
    assert_eq!(
        (row.status.as_str(), row.status_reason.as_str(), row.status_since),
        ("late", "eof", 5)
    );
    assert_eq!((row.last_seen, row.version.as_str(), row.revision), (9, "0.2.0", 8));
    assert_eq!(
        (row.facts.as_str(), row.warnings.as_str()),
        (r#"{"os.id":"debian"}"#, r#"["careful"]"#)
    );
    assert_eq!(
        (row.token_labels.as_str(), row.operator_labels.as_str()),
        (r#"{"env":"prod"}"#, r#"{"rack":"r1"}"#)
    );
    assert_eq!(row.policy_status, [1, 2, 3]);
    assert_eq!(row.fingerprint, r#"{"machine":"m1"}"#);
    assert_eq!((row.agent_labels.as_str(), row.bundle_version), (r#"{"a":"b"}"#, 7));
    let row = rows.remove(0);
    assert_eq!((row.facts.as_str(), row.last_seen), (r#"{"os.id":"alpine"}"#, 3));
    assert_eq!((row.status.as_str(), row.version.as_str()), ("pending", "0.1.0"));
}

#[tokio::test]
async fn an_id_enrolls_once() {
    let fresh = fresh().await;
    let id = enroll(&fresh.db, "db-01").await;
    let mut tx = fresh.db.begin().await.expect("begin");
    let again = NewAgent {
        id,
        name: "other",
        agent_labels: "{}",
        token_labels: "{}",
        version: "",
        now: 2,
        revision: 2,
    };
    assert!(!tx.agent_insert(again).await.expect("insert"));
}

#[tokio::test]
async fn a_redemption_is_found_by_token_and_key() {
    let fresh = fresh().await;
    let mut tx = fresh.db.begin().await.expect("begin");
    let redemption = NewRedemption {
        token_id: "t",
        public_key: "sha256:aa",
        agent_id: "agent",
        certificate: b"der",
        source: "192.0.2.1",
        now: 1,
    };
    tx.redemption_put_all(&[redemption]).await.expect("insert");
    tx.commit().await.expect("commit");
    let row = fresh
        .db
        .redemption_get("t", "sha256:aa")
        .await
        .expect("get")
        .expect("there");
    assert_eq!(
        (row.agent_id.as_str(), row.certificate.as_slice()),
        ("agent", &b"der"[..])
    );
    assert!(fresh.db.redemption_get("t", "sha256:bb").await.expect("get").is_none());
}

#[tokio::test]
async fn the_version_of_a_policy_outlives_it() {
    let fresh = fresh().await;
    let row = PolicyRow {
        kind: "Check".into(),
        name: "disk".into(),
        version: 41,
        labels: "{}".into(),
        payload: vec![0, 1, 255],
        key_id: "sha256:k".into(),
        signature: vec![9; 64],
        created_at: 1,
        updated_at: 2,
        revision: 3,
        scope: "env=dev".into(),
        owner: "base".into(),
    };
    let mut tx = fresh.db.begin().await.expect("begin");
    assert_eq!(tx.policy_version("Check", "disk").await.expect("version"), 0);
    tx.policy_put(&row).await.expect("put");
    tx.policy_put(&PolicyRow {
        version: 42,
        updated_at: 5,
        ..row.clone()
    })
    .await
    .expect("put again");
    tx.commit().await.expect("commit");
    let read = fresh.db.policy_list().await.expect("policies").remove(0);
    assert_eq!(
        (read.version, read.created_at, read.updated_at, read.payload),
        (42, 1, 5, vec![0, 1, 255])
    );
    let mut tx = fresh.db.begin().await.expect("begin");
    assert!(tx.policy_delete("Check", "disk").await.expect("delete"));
    assert!(!tx.policy_delete("Check", "disk").await.expect("delete again"));
    assert_eq!(tx.policy_version("Check", "disk").await.expect("version"), 42);
    tx.commit().await.expect("commit");
    assert!(fresh.db.policy_list().await.expect("policies").is_empty());
}

fn state(check: &str, state: i64) -> StateRow {
    StateRow {
        agent_id: "a".into(),
        check_name: check.into(),
        state,
        hard: state == 2,
        attempt: 1,
        state_since: 10,
        freshness: 1,
        freshness_since: 11,
        last_run: 12,
        last_received: 13,
        generation: 3,
        seq: 4,
        result: vec![0, 200],
        revision: 5,
    }
}

#[tokio::test]
async fn states_are_put_replaced_and_removed() {
    let fresh = fresh().await;
    // More rows than one statement has parameters for.
    let many: Vec<StateRow> = (0..2_500).map(|n| state(&format!("check-{n}"), 2)).collect();
    let mut tx = fresh.db.begin().await.expect("begin");
    tx.state_put_all(&many).await.expect("put");
    tx.state_put_all(&[state("check-7", 4)]).await.expect("replace");
    tx.state_delete("a", "check-8").await.expect("delete");
    tx.commit().await.expect("commit");
    let rows = fresh.db.state_list().await.expect("states");
    assert_eq!(rows.len(), 2_499);
    let row = rows.iter().find(|row| row.check_name == "check-7").expect("there");
    assert_eq!(
        (row.state, row.hard, row.generation, row.seq, row.result.as_slice()),
        (4, false, 3, 4, &[0, 200][..])
    );
}

#[tokio::test]
async fn marks_are_kept_by_spool_in_each_lane() {
    let fresh = fresh().await;
    for (lane, seq) in [
        (Lane::Results, 5),
        (Lane::Results, 9),
        (Lane::Metrics, 2),
        (Lane::Logs, 7),
    ] {
        let mark = MarkRow {
            agent_id: "a".into(),
            spool_id: "1-x".into(),
            seq,
        };
        let mut tx = fresh.db.begin_lane(lane).await.expect("begin");
        tx.mark_put_all(lane, &[mark], 100).await.expect("put");
        tx.commit().await.expect("commit");
    }
    let seqs = async |lane| -> BTreeSet<i64> {
        fresh
            .db
            .mark_list(lane)
            .await
            .expect("marks")
            .iter()
            .map(|mark| mark.seq)
            .collect()
    };
    assert_eq!(seqs(Lane::Results).await, [9].into());
    assert_eq!(seqs(Lane::Metrics).await, [2].into());
    assert_eq!(seqs(Lane::Logs).await, [7].into());
    fresh.db.mark_trim(100).await.expect("trim");
    assert_eq!(seqs(Lane::Results).await.len(), 1, "used at 100, so not before it");
    fresh.db.mark_trim(101).await.expect("trim");
    assert!(seqs(Lane::Results).await.is_empty() && seqs(Lane::Metrics).await.is_empty());
    assert!(seqs(Lane::Logs).await.is_empty());
}

#[tokio::test]
async fn marks_are_listed_in_the_order_of_their_use() {
    let fresh = fresh().await;
    for lane in [Lane::Results, Lane::Metrics, Lane::Logs] {
        // The first is used again after the others.
        for (used_at, n) in [(1, 1), (2, 2), (3, 3), (4, 1)] {
            let mark = MarkRow {
                agent_id: "a".into(),
                spool_id: format!("{n}-x"),
                seq: n,
            };
            let mut tx = fresh.db.begin_lane(lane).await.expect("begin");
            tx.mark_put_all(lane, &[mark], used_at).await.expect("put");
            tx.commit().await.expect("commit");
        }
        let marks = fresh.db.mark_list(lane).await.expect("marks");
        let order: Vec<i64> = marks.iter().map(|mark| mark.seq).collect();
        assert_eq!(order, [2, 3, 1], "{lane:?}");
    }
}

#[tokio::test]
async fn of_an_agent_that_claims_to_start_without_end_the_last_marks_are_kept() {
    let fresh = fresh().await;
    for lane in [Lane::Results, Lane::Metrics, Lane::Logs] {
        for (agent, spools) in [("busy", 100), ("calm", 2)] {
            for n in 1..=spools {
                let mark = MarkRow {
                    agent_id: agent.into(),
                    spool_id: format!("{n}-x"),
                    seq: n,
                };
                let mut tx = fresh.db.begin_lane(lane).await.expect("begin");
                tx.mark_put_all(lane, &[mark], 1_000 + n).await.expect("put");
                tx.commit().await.expect("commit");
            }
        }
        fresh.db.mark_trim_to(3).await.expect("trim");
        let marks = fresh.db.mark_list(lane).await.expect("marks");
        let of = |agent: &str| -> BTreeSet<i64> {
            let marks = marks.iter().filter(|mark| mark.agent_id == agent);
            marks.map(|mark| mark.seq).collect()
        };
        assert_eq!(
            (of("busy"), of("calm")),
            ([98, 99, 100].into(), [1, 2].into()),
            "{lane:?}"
        );
    }
}

#[tokio::test]
async fn refused_data_is_told_from_a_database_at_fault() {
    let fresh = fresh().await;
    let mut tx = fresh.db.begin().await.expect("begin");
    tx.token_insert(&token("t", 1)).await.expect("insert");
    let error = tx.token_insert(&token("t", 1)).await.expect_err("twice");
    assert!(error.is_about_data(), "{error:?}");
    drop(tx);
    fresh.db.close().await;
    let error = fresh.db.agent_list().await.expect_err("closed");
    assert!(!error.is_about_data(), "{error:?}");
}

async fn with_certificate(db: &Db, name: &str, serial: &str, not_after: i64) {
    let mut tx = db.begin().await.expect("begin");
    tx.user_insert(name, "admin", 1).await.expect("insert");
    tx.user_reinstate(name).await.expect("reinstate");
    tx.user_certificate_insert(NewUserCertificate {
        serial,
        user_name: name,
        not_after,
        ca: "c1",
        now: 1,
    })
    .await
    .expect("insert");
    tx.commit().await.expect("commit");
}

#[tokio::test]
async fn the_certificates_of_a_user_are_revoked_together_and_one_that_comes_later_is_good() {
    let fresh = fresh().await;
    for (name, serial, not_after) in [("first", "01", 100), ("first", "02", 50), ("second", "03", 100)] {
        with_certificate(&fresh.db, name, serial, not_after).await;
    }
    let live = async |now| {
        let rows = fresh.db.user_certificate_list_live(now).await.expect("list");
        rows.into_iter().map(|row| row.serial).collect::<Vec<_>>()
    };
    assert_eq!(live(60).await, ["01", "03"]);

    let mut tx = fresh.db.begin().await.expect("begin");
    assert!(tx.user_revoke("first", 7).await.expect("revoke"));
    assert!(!tx.user_revoke("first", 8).await.expect("once more"));
    tx.user_certificate_revoke_all("first", "left", 7)
        .await
        .expect("revoke");
    tx.commit().await.expect("commit");
    assert_eq!(live(1).await, ["03"]);
    let row = fresh.db.user_get("first").await.expect("get").expect("a row");
    assert_eq!((row.created_at, row.revoked_at), (1, 7));

    with_certificate(&fresh.db, "first", "04", 100).await;
    assert_eq!(live(1).await, ["03", "04"]);
    let row = fresh.db.user_get("first").await.expect("get").expect("a row");
    assert_eq!(row.revoked_at, 0);
    let of_first = fresh.db.user_certificate_list("first").await.expect("list");
    assert_eq!(of_first.len(), 3);
    let revoked = fresh.db.certificate_list_revoked("c1", 40).await.expect("list");
    assert_eq!(revoked, [("01".to_owned(), 7), ("02".to_owned(), 7)]);
    assert_eq!(fresh.db.user_certificate_trim(60).await.expect("trim"), 1);
    assert_eq!(fresh.db.user_certificate_list("").await.expect("list").len(), 3);
}
