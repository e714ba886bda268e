//! Who may use the API, from the first certificate to the last.

use std::time::SystemTime;

use muster_certs::{certificate::Certificate, key::KeyPair};
use proptest::prelude::*;
use tokio::time::timeout;

use super::*;
use crate::{
    admin,
    grants::{self, Grants},
    idempotency::Once,
    store::Source,
};

const HOUR: Duration = Duration::from_secs(3600);

struct Rig {
    users: Arc<Users>,
    grants: Grants,
    changes: Changes,
    db: Db,
    pki: Arc<Pki>,
    _folder: tempfile::TempDir,
}

impl Rig {
    async fn new() -> Rig {
        let folder = tempfile::tempdir().unwrap();
        let domain = "example.muster".parse().unwrap();
        let pki = Arc::new(Pki::create(&folder.path().join("pki"), &domain, SystemTime::now()).unwrap());
        let db = Db::open(&Source::Sqlite(folder.path().to_owned())).await.unwrap();
        let rights = Arc::new(Grants::load(&db).await.unwrap());
        let changes = Changes::new(db.clone()).await.unwrap();
        let users = Users::load(db.clone(), changes.clone(), pki.clone(), rights.clone(), clock::now()).await;
        let users = Arc::new(users.unwrap());
        let rig = Rig {
            grants: Grants::new(db.clone(), changes.clone(), rights, users.clone()),
            changes,
            users,
            db,
            pki,
            _folder: folder,
        };
        rig.on_host("admin").await;
        rig
    }

    /// By another process, on the controller's host: the serial.
    async fn on_host(&self, name: &str) -> String {
        admin::create(&self.db, &self.pki, name, HOUR, SystemTime::now())
            .await
            .unwrap();
        self.db.user_certificate_list(name).await.unwrap()[0].serial.clone()
    }

    /// An admin.
    async fn create(&self, name: &str) -> Result<Issued, Error> {
        self.make(request(name), false, "admin").await
    }

    async fn make(&self, request: Request, reinstate: bool, by: &str) -> Result<Issued, Error> {
        let by = self.by(by).await;
        self.make_by(request, reinstate, &by, clock::now()).await
    }

    async fn make_by(&self, request: Request, reinstate: bool, by: &By, now: Micros) -> Result<Issued, Error> {
        let first = Some((ADMIN.to_owned(), String::new()));
        let made = self
            .grants
            .create_user(request, first, reinstate, Once::plain(Issued::clone), by, now)
            .await;
        made.map(|done| done.answer).map_err(|error| match error {
            grants::Error::Users(error) => error,
            other => panic!("{other}"),
        })
    }

    async fn by(&self, name: &str) -> By {
        let subject = Subject::User(name.to_owned());
        By {
            rights: self.grants.refreshed(&subject).await.unwrap(),
            subject: Some(subject),
            ended: None,
        }
    }

    async fn revoke(&self, name: &str) -> Result<User, Error> {
        self.users
            .revoke(name, "left", &self.by("admin").await, clock::now())
            .await
    }

    /// The token of a certificate that is good.
    async fn live(&self, name: &str, serial: &str) -> Option<CancellationToken> {
        match self.users.standing(name, serial).await.unwrap() {
            Standing::Live(ended) => Some(ended),
            Standing::Revoked | Standing::Unknown => None,
        }
    }

    /// What users have come to, without what was granted.
    async fn reasons(&self) -> Vec<String> {
        let filter = store::EventFilter::newest(100);
        let events = self.db.event_list(&filter).await.unwrap();
        let reasons = events.into_iter().rev().map(|event| event.reason);
        reasons.filter(|reason| reason != "GRANT_CREATED").collect()
    }
}

fn request(name: &str) -> Request {
    Request {
        name: name.to_owned(),
        csr: csr::create(&KeyPair::generate().unwrap()).unwrap(),
        ttl: None,
    }
}

fn serial(issued: &Issued) -> String {
    Certificate::parse(&issued.chain[0]).unwrap().serial
}

#[tokio::test]
async fn who_watches_is_told_of_the_grants_that_go_with_a_user() {
    let rig = Rig::new().await;
    let shutdown = CancellationToken::new();
    let told = async || {
        let revision = rig.db.revision_current().await.unwrap();
        let all = async {
            while rig.changes.revision() < revision {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(HOUR / 60, all).await.expect("nobody is told");
        revision
    };
    let changing = async {
        rig.create("alice").await.unwrap();
        let with_alice = told().await;
        rig.revoke("alice").await.unwrap();
        assert!(told().await > with_alice);
        shutdown.cancel();
    };
    tokio::join!(changing, rig.changes.clone().run(shutdown.clone()));
}

#[tokio::test]
async fn a_certificate_opens_the_api_for_its_own_user_alone() {
    let rig = Rig::new().await;
    let alice = serial(&rig.create("alice").await.unwrap());
    assert!(rig.live("alice", &alice).await.is_some());
    assert!(rig.live("admin", &alice).await.is_none());
    assert!(matches!(
        rig.users.standing("alice", "00").await.unwrap(),
        Standing::Unknown
    ));
}

#[tokio::test]
async fn who_was_made_on_the_host_while_the_controller_runs_is_known_at_once() {
    let rig = Rig::new().await;
    let serial = rig.on_host("oncall").await;
    assert!(rig.live("oncall", &serial).await.is_some());
}

#[tokio::test]
async fn a_revocation_ends_all_certificates_and_tells_who_waits_for_it() {
    let rig = Rig::new().await;
    let first = serial(&rig.create("alice").await.unwrap());
    let renewed = rig
        .users
        .renew(request("alice"), &rig.by("alice").await, clock::now())
        .await;
    let second = serial(&renewed.unwrap());
    let third = rig.on_host("alice").await;
    let token = rig.live("alice", &first).await.unwrap();
    assert!(!token.is_cancelled());

    let user = rig.revoke("alice").await.unwrap();
    assert!(token.is_cancelled());
    assert!(user.row.revoked_at > 0);
    assert!(user.certificates.iter().all(|row| row.revoke_reason == "left"));
    // The third was never seen by this process before.
    for serial in [first, second, third] {
        let standing = rig.users.standing("alice", &serial).await.unwrap();
        assert!(matches!(standing, Standing::Revoked), "{serial} {standing:?}");
    }
    assert!(rig.revoke("alice").await.is_ok(), "once more is no error");
    let told = [
        "USER_CREATED",
        "USER_CREATED",
        "USER_RENEWED",
        "USER_RENEWED",
        "USER_REVOKED",
    ];
    assert_eq!(rig.reasons().await, told);
    let of_ca = rig
        .db
        .certificate_list_revoked(&rig.pki.active_id(), clock::now())
        .await;
    assert_eq!(of_ca.unwrap().len(), 3);
}

#[tokio::test]
async fn a_revoked_user_gets_no_certificate_until_somebody_says_so() {
    let rig = Rig::new().await;
    let before = serial(&rig.create("alice").await.unwrap());
    rig.revoke("alice").await.unwrap();
    let now = clock::now();
    let renewed = rig.users.renew(request("alice"), &rig.by("admin").await, now).await;
    assert!(matches!(renewed, Err(Error::Revoked { is_new: false, .. })));
    let created = rig.create("alice").await;
    assert!(matches!(created, Err(Error::Revoked { is_new: true, .. })));

    let issued = rig.make(request("alice"), true, "admin").await;
    let issued = issued.unwrap();
    assert_eq!(issued.user.row.revoked_at, 0);
    assert!(rig.live("alice", &serial(&issued)).await.is_some());
    assert!(rig.live("alice", &before).await.is_none(), "what was revoked stays so");
}

#[tokio::test]
async fn who_has_the_keys_of_the_controller_is_never_locked_out() {
    let rig = Rig::new().await;
    rig.create("alice").await.unwrap();
    let old = rig.db.user_certificate_list("admin").await.unwrap()[0].serial.clone();
    rig.users
        .revoke("admin", "", &rig.by("alice").await, clock::now())
        .await
        .unwrap();
    let serial = rig.on_host("admin").await;
    assert!(rig.live("admin", &serial).await.is_some());
    assert!(rig.live("admin", &old).await.is_none());
    assert_eq!(rig.users.get("admin").await.unwrap().row.revoked_at, 0);
}

#[tokio::test]
async fn the_last_who_can_use_the_api_is_not_revoked() {
    let rig = Rig::new().await;
    assert!(matches!(rig.revoke("admin").await, Err(Error::LastAdmin(name)) if name == "admin"));
    // Another whose certificates have ended is nobody.
    let short = Request {
        ttl: Some(Duration::from_secs(60)),
        ..request("alice")
    };
    let past = clock::now() - clock::HOUR;
    let admin = rig.by("admin").await;
    rig.make_by(short, false, &admin, past).await.unwrap();
    assert!(matches!(rig.revoke("admin").await, Err(Error::LastAdmin(_))));
    assert!(rig.revoke("alice").await.is_ok(), "who cannot use it may go");

    rig.on_host("bob").await;
    assert!(rig.revoke("admin").await.is_ok());
    assert!(matches!(rig.revoke("bob").await, Err(Error::LastAdmin(_))));
}

#[tokio::test]
async fn certificates_of_a_ca_in_other_hands_make_nobody_an_admin() {
    let rig = Rig::new().await;
    let now = SystemTime::now();
    let set = |next| rig.pki.set_authorities(next).unwrap();
    set(rig.pki.authorities().with_prepared(rig.pki.dir(), now).unwrap());
    set(rig.pki.authorities().with_activated(clock::now()).unwrap());
    rig.create("alice").await.unwrap();
    set(rig.pki.authorities().with_retired(true, 0, clock::now()).unwrap());
    assert!(matches!(rig.revoke("alice").await, Err(Error::LastAdmin(_))));
}

#[tokio::test]
async fn who_was_revoked_while_the_call_was_under_way_changes_nothing() {
    let rig = Rig::new().await;
    let alice = serial(&rig.create("alice").await.unwrap());
    let alice = By {
        ended: rig.live("alice", &alice).await,
        ..rig.by("alice").await
    };
    rig.revoke("alice").await.unwrap();
    let now = clock::now();
    let refused = |result: Result<Issued, Error>| matches!(result, Err(Error::CallerRevoked));
    assert!(refused(rig.make_by(request("mallory"), false, &alice, now).await));
    assert!(refused(rig.make_by(request("alice"), true, &alice, now).await));
    assert!(refused(rig.users.renew(request("admin"), &alice, now).await));
    let revoked = rig.users.revoke("admin", "", &alice, now).await;
    assert!(matches!(revoked, Err(Error::CallerRevoked)));
}

#[tokio::test]
async fn a_certificate_lasts_as_long_as_was_asked_for_within_the_bounds() {
    let rig = Rig::new().await;
    let now = clock::now();
    let with = async |name: &str, ttl: Duration| {
        let request = Request {
            ttl: Some(ttl),
            ..request(name)
        };
        let admin = rig.by("admin").await;
        rig.make_by(request, false, &admin, now).await
    };
    let (minute, year) = (Duration::from_secs(60), Duration::from_secs(365 * 24 * 3600));
    for ttl in [minute - Duration::from_nanos(1_000), year + minute, Duration::MAX] {
        let refused = with("never", ttl).await;
        assert!(
            matches!(&refused, Err(Error::Invalid(fields)) if fields[0].field == "ttl"),
            "{refused:?}"
        );
    }
    for (name, ttl) in [("short", minute), ("long", year)] {
        let issued = with(name, ttl).await.unwrap();
        let lasts = issued.user.certificates[0].not_after - now;
        // Whole seconds stand in a certificate.
        assert!(
            (lasts - clock::from_duration(ttl)).abs() <= clock::SECOND,
            "{name}: {lasts}"
        );
    }
    assert!(rig.create("default").await.is_ok());
}

#[tokio::test]
async fn only_the_key_of_a_request_counts_and_it_has_to_be_proved() {
    let rig = Rig::new().await;
    let key = KeyPair::generate().unwrap();
    let mut csr = csr::create(&key).unwrap();
    let wanted = Request {
        csr: csr.clone(),
        ..request("alice")
    };
    let issued = rig.make(wanted, false, "admin").await.unwrap();
    let leaf = Certificate::parse(&issued.chain[0]).unwrap();
    assert_eq!(leaf.public_key_der, key.public_key().der());
    assert_eq!(leaf.uris, ["spiffe://example.muster/user/alice"]);

    *csr.last_mut().unwrap() ^= 1;
    let forged = Request { csr, ..request("bob") };
    let refused = rig.make(forged, false, "admin").await;
    assert!(matches!(refused, Err(Error::Csr(_))), "{refused:?}");
    assert!(matches!(rig.users.get("bob").await, Err(Error::NotFound(_))));
    assert!(matches!(rig.create("alice").await, Err(Error::Exists(_))));
    let renewed = rig
        .users
        .renew(request("nobody"), &rig.by("admin").await, clock::now())
        .await;
    assert!(matches!(renewed, Err(Error::NotFound(_))));
}

#[tokio::test]
async fn what_has_ended_is_forgotten_with_its_connections() {
    let rig = Rig::new().await;
    let alice = serial(&rig.create("alice").await.unwrap());
    let end = rig.users.get("alice").await.unwrap().certificates[0].not_after;
    let token = rig.live("alice", &alice).await.unwrap();
    rig.users.trim(end, end - 1).await.unwrap();
    assert!(rig.users.known("alice", &alice).is_some() && !token.is_cancelled());
    rig.users.trim(end + 1, end + 1).await.unwrap();
    assert!(rig.users.known("alice", &alice).is_none());
    assert!(token.is_cancelled(), "nobody could end its connections any longer");
    assert!(rig.users.get("alice").await.unwrap().certificates.is_empty());
}

#[tokio::test]
async fn nobody_gets_a_certificate_of_somebody_who_may_do_more() {
    let rig = Rig::new().await;
    let wanted = |name: &str| request(name);
    let viewer = Some(("viewer".to_owned(), String::new()));
    let admin = rig.by("admin").await;
    let made = rig.grants.create_user(
        wanted("carol"),
        viewer,
        false,
        Once::plain(|_| ()),
        &admin,
        clock::now(),
    );
    made.await.unwrap();
    let carol = rig.by("carol").await;
    let refused = rig.users.renew(wanted("admin"), &carol, clock::now()).await;
    assert!(matches!(refused, Err(Error::Missing("users.write"))), "{refused:?}");
    assert!(rig.users.renew(wanted("carol"), &carol, clock::now()).await.is_ok());
    assert!(rig.users.renew(wanted("carol"), &admin, clock::now()).await.is_ok());
}

#[tokio::test]
async fn a_grant_is_deleted_by_who_knows_its_revision_or_names_none() {
    let rig = Rig::new().await;
    rig.create("alice").await.unwrap();
    let admin = rig.by("admin").await;
    let delete = |seen| rig.grants.delete("admin-alice", seen, &admin, clock::now());
    let revision = rig.grants.rights().grant("admin-alice").unwrap().revision;
    let refused = delete(revision + 1).await;
    assert!(
        matches!(refused, Err(grants::Error::Conflict { seen, is }) if (seen, is) == (revision + 1, revision)),
        "{refused:?}"
    );
    delete(revision).await.unwrap();
    assert!(rig.grants.rights().grant("admin-alice").is_none());
}

proptest! {
    #[test]
    fn a_name_is_taken_exactly_when_an_identity_can_have_it(name in prop_oneof![
        any::<String>(),
        "[a-zA-Z0-9._-]{0,260}",
        "[.a/@ \u{0}]{0,4}",
    ]) {
        let domain = "example.muster".parse().unwrap();
        let fits = muster_certs::Identity::user(&domain, &name).is_ok();
        let request = Request { name, csr: Vec::new(), ttl: None };
        prop_assert_eq!(violations(&request).is_empty(), fits);
    }
}
