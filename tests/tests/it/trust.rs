//! The trust in agents as the inventory and the database keep it: issued, used, superseded, revoked, deleted, readmitted.
//! What an agent and its operator see of it is in `certificates`.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use muster_certs::{
    identity::Identity,
    tls::{PeerCertificate, Standing},
};
use muster_proto::{ids::AgentId, v1::AgentStatus};
use muster_server::{
    agents::{Agents, Certificate, Ending, Error},
    changes::Changes,
    clock::{DAY, HOUR},
    store::{EventFilter, NewCertificate},
};

use tokio_util::sync::CancellationToken;

use crate::store::{Fresh, enroll, fresh};

const NOW: i64 = 1_700_000_000_000_000;
const OPERATOR: Ending<'_> = Ending {
    by: "admin",
    reason: "stolen",
};

struct Part {
    fresh: Fresh,
    agents: Arc<Agents>,
    id: AgentId,
}

impl Part {
    /// With one agent that has its first certificate.
    async fn start() -> Self {
        let fresh = fresh().await;
        let id = enroll(&fresh.db, "db-01").await;
        let agents = load(&fresh).await;
        Self { fresh, agents, id }
    }

    fn first(&self) -> String {
        format!("serial-{}", self.id)
    }

    /// What is on file of the agent's renewal, in both places.
    async fn issue(&self, serial: &str) {
        let agent_id = self.id.to_string();
        let mut tx = self.fresh.db.begin().await.expect("begin");
        let new = NewCertificate {
            agent_id: &agent_id,
            serial,
            not_after: NOW + DAY,
            public_key: "sha256:of-another-key",
            ca: "0123456789abcdef",
            predecessor: "",
            certificate: b"der",
            now: NOW,
        };
        tx.agent_certificate_insert(new).await.expect("insert");
        tx.commit().await.expect("commit");
        let certificate = Certificate {
            serial: serial.to_owned(),
            not_after: NOW + DAY,
            issued_at: NOW,
            ..Certificate::default()
        };
        self.agents.certificate_issued(self.id, certificate);
    }

    /// The serial that is in use, and the one that waits for its first use.
    fn serials(&self) -> (String, Option<String>) {
        let entry = self.agents.get(self.id).expect("an agent");
        (entry.certificate.serial, entry.next.map(|next| next.serial))
    }

    fn counts(&self, serial: &str) -> Option<Standing> {
        let peer = PeerCertificate {
            identity: Identity::agent(&muster_tests::dial::trust_domain(), self.id.uuid()),
            serial: serial.to_owned(),
            not_before: SystemTime::UNIX_EPOCH,
            not_after: SystemTime::UNIX_EPOCH + Duration::from_secs(1_000),
        };
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(500);
        self.agents.standing(self.id, &peer, now)
    }

    /// What waits to be written is.
    async fn flush(&self) {
        let stopped = CancellationToken::new();
        stopped.cancel();
        self.agents.run_persist(stopped).await;
    }

    async fn events(&self) -> Vec<String> {
        let filter = EventFilter::newest(100);
        let events = self.fresh.db.event_list(&filter).await.expect("events");
        events.into_iter().map(|event| event.reason).collect()
    }
}

async fn load(fresh: &Fresh) -> Arc<Agents> {
    let changes = Changes::new(fresh.db.clone()).await.expect("changes");
    Arc::new(Agents::load(fresh.db.clone(), changes, NOW).await.expect("agents"))
}

#[tokio::test]
async fn the_first_use_of_the_next_certificate_supersedes_the_one_before_and_is_kept() {
    let part = Part::start().await;
    let first = part.first();
    part.agents.certificate_used(part.id, &first, NOW);
    part.issue("second").await;
    assert_eq!(part.serials(), (first.clone(), Some("second".into())));
    // Until it is used, both count.
    assert_eq!(part.counts(&first), Some(Standing::Valid));
    assert_eq!(part.counts("second"), Some(Standing::Valid));
    assert_eq!(part.counts(""), None);

    part.agents.certificate_used(part.id, "second", NOW + 1);
    assert_eq!(part.serials(), ("second".into(), None));
    assert_eq!(part.counts(&first), None, "memory knows no longer why");
    part.agents.certificate_used(part.id, &first, NOW + 2);
    assert_eq!(part.serials(), ("second".into(), None), "there is no way back");

    part.flush().await;
    let row = part.fresh.db.agent_certificate_get(&first).await.expect("a row");
    assert_eq!(row.map(|row| row.superseded_at), Some(NOW + 1));
    let again = load(&part.fresh).await.get(part.id).expect("an agent");
    assert_eq!((again.certificate.serial.as_str(), again.next), ("second", None));
}

#[tokio::test]
async fn one_that_was_not_used_yet_is_found_as_such_after_a_restart() {
    let part = Part::start().await;
    part.agents.certificate_used(part.id, &part.first(), NOW);
    part.flush().await;
    part.issue("second").await;
    let again = load(&part.fresh).await.get(part.id).expect("an agent");
    assert_eq!(again.certificate.serial, part.first());
    assert_eq!(again.next.map(|next| next.serial).as_deref(), Some("second"));
}

#[tokio::test]
async fn a_revoked_agent_has_no_certificate_that_counts_and_once_more_changes_nothing() {
    let part = Part::start().await;
    part.issue("second").await;
    let before = part.agents.get(part.id).expect("an agent");
    let after = part.agents.revoke(part.id, OPERATOR, NOW).await.expect("revoked");
    assert_eq!(
        (after.status, after.status_reason.as_str()),
        (AgentStatus::Revoked, "stolen")
    );
    assert_eq!(after.epoch, before.epoch + 1);
    for serial in [&part.first(), "second"] {
        assert_eq!(part.counts(serial), None, "{serial}");
        let row = part.fresh.db.agent_certificate_get(serial).await.expect("a row");
        assert_eq!(row.map(|row| row.revoked_at), Some(NOW), "{serial}");
    }
    let again = part.agents.revoke(part.id, OPERATOR, NOW + 1).await.expect("revoked");
    assert_eq!((again.epoch, again.revision), (after.epoch, after.revision));
    assert_eq!(part.events().await, ["AGENT_REVOKED"]);
    let refused = part.agents.readmit(part.id, NOW + HOUR, "admin", NOW).await;
    assert!(matches!(refused, Err(Error::Revoked(_))), "{refused:?}");
}

#[tokio::test]
async fn of_two_certificates_the_one_that_is_not_revoked_takes_its_place() {
    for (revoked, left) in [("first", "second"), ("second", "first")] {
        let part = Part::start().await;
        part.issue("second").await;
        let named = |name: &str| match name {
            "first" => part.first(),
            other => other.to_owned(),
        };
        let row = part.agents.revoke_certificate(&named(revoked), OPERATOR, NOW).await;
        assert_eq!(row.expect("revoked").map(|row| row.revoked_at), Some(NOW), "{revoked}");
        assert_eq!(part.serials(), (named(left), None), "{revoked}");
        let again = part.agents.revoke_certificate(&named(revoked), OPERATOR, NOW + 1).await;
        assert_eq!(
            again.expect("once more").map(|row| row.revoked_at),
            Some(NOW),
            "{revoked}"
        );
        assert_eq!(part.events().await, ["AGENT_CERTIFICATE_REVOKED"], "{revoked}");
    }
    let part = Part::start().await;
    let unknown = part.agents.revoke_certificate("nobody's", OPERATOR, NOW).await;
    assert!(unknown.expect("no error").is_none());
}

#[tokio::test]
async fn nothing_is_issued_on_the_strength_of_trust_that_has_ended_meanwhile() {
    let may = async |part: &Part, epoch: i64, shown: &str| {
        let id = part.id.to_string();
        let mut tx = part.fresh.db.begin().await.expect("begin");
        let renews = tx.agent_may_be_issued(&id, epoch, shown).await.expect("an answer");
        let forks = tx.agent_may_fork(&id, epoch, shown).await.expect("an answer");
        (renews, forks)
    };
    let part = Part::start().await;
    part.issue("second").await;
    let epoch = part.agents.get(part.id).expect("an agent").epoch;
    assert_eq!(may(&part, epoch, &part.first()).await, (true, true));
    assert_eq!(may(&part, epoch, "lost by a restore").await, (true, true));
    // One certificate: who read the entry before is too late, and so is who has shown that certificate.
    let row = part.agents.revoke_certificate(&part.first(), OPERATOR, NOW).await;
    row.expect("revoked");
    assert_eq!(may(&part, epoch, "second").await, (false, false));
    assert_eq!(may(&part, epoch + 1, &part.first()).await, (false, false));
    assert_eq!(may(&part, epoch + 1, "second").await, (true, true));
    // All of them.
    part.agents.revoke(part.id, OPERATOR, NOW).await.expect("revoked");
    assert_eq!(may(&part, epoch + 2, "second").await, (false, false));
}

#[tokio::test]
async fn a_window_is_closed_by_whatever_is_issued_and_by_the_end_of_trust() {
    let part = Part::start().await;
    let open = async || {
        let entry = part.agents.readmit(part.id, NOW + HOUR, "admin", NOW).await;
        assert_eq!(entry.expect("an agent").readmit_until, NOW + HOUR);
    };
    let until = async || {
        let memory = part.agents.get(part.id).expect("an agent").readmit_until;
        let rows = part.fresh.db.agent_list().await.expect("agents");
        (memory, rows[0].readmit_until)
    };
    open().await;
    assert_eq!(until().await, (NOW + HOUR, NOW + HOUR));
    let mut tx = part.fresh.db.begin().await.expect("begin");
    let may = tx.agent_may_be_issued(&part.id.to_string(), 0, &part.first()).await;
    assert!(may.expect("an answer"));
    tx.commit().await.expect("commit");
    part.issue("second").await;
    assert_eq!(until().await, (0, 0));

    open().await;
    part.agents.revoke(part.id, OPERATOR, NOW).await.expect("revoked");
    assert_eq!(until().await, (0, 0));
}

#[tokio::test]
async fn the_id_of_a_deleted_agent_stays_taken_for_as_long_as_that_is_kept() {
    let part = Part::start().await;
    let seen = part.agents.get(part.id).expect("an entry").revision;
    let other = part.agents.delete(part.id, seen + 1, &[], OPERATOR, NOW).await;
    assert!(matches!(other, Err(Error::Conflict { .. })), "{other:?}");
    part.agents
        .delete(part.id, seen, &[], OPERATOR, NOW)
        .await
        .expect("deleted");
    assert!(part.agents.get(part.id).is_none());
    assert_eq!(part.counts(&part.first()), None);
    assert!(part.agents.is_deleted(part.id));
    let missing = part.agents.delete(part.id, 0, &[], OPERATOR, NOW).await;
    assert!(matches!(missing, Err(Error::NotFound(_))), "{missing:?}");

    part.agents.forget_deleted(NOW).await.expect("trimmed");
    assert!(load(&part.fresh).await.is_deleted(part.id), "not before its time");
    part.agents.forget_deleted(NOW + 1).await.expect("trimmed");
    assert!(!part.agents.is_deleted(part.id), "in memory");
    assert!(!load(&part.fresh).await.is_deleted(part.id), "on file");
}
