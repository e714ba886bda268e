use std::path::Path;

use muster_certs::sign::SigningKey;
use muster_proto::policy_set;
use prost::Message as _;

use super::*;

const DOMAIN: &str = "example.muster";

struct Signer {
    key: SigningKey,
}

impl Signer {
    fn new() -> Self {
        Self {
            key: SigningKey::generate().unwrap(),
        }
    }

    fn trust(&self) -> Trust {
        let key = v1::PolicyKey {
            key_id: self.key.key_id(),
            public_key: self.key.public_key_der(),
        };
        let bundle = v1::TrustBundle {
            version: 1,
            trust_domain: DOMAIN.into(),
            roots: vec![vec![1]],
            policy_keys: vec![key],
        };
        Trust::new(&bundle).unwrap()
    }

    fn sign(&self, payload: &v1::PolicyPayload) -> v1::Signed {
        let bytes = payload.encode_to_vec();
        let signature = self.key.sign(&policy_set::dsse_type(&payload.kind), &bytes);
        v1::Signed {
            payload: bytes.into(),
            key_id: self.key.key_id(),
            signature,
        }
    }

    fn check(&self, name: &str, version: i64) -> v1::Signed {
        self.sign(&payload(name, version))
    }

    fn policies(&self, dir: &Path) -> Policies {
        Policies::load(dir.join("policies.pb"), self.trust(), Allow::default())
    }
}

fn payload(name: &str, version: i64) -> v1::PolicyPayload {
    let run = v1::Run {
        disk: Some(v1::DiskRun::default()),
        ..Default::default()
    };
    let check = v1::Check {
        selector: "*".into(),
        run: Some(run),
        ..Default::default()
    };
    v1::PolicyPayload {
        trust_domain: DOMAIN.into(),
        kind: "Check".into(),
        name: name.into(),
        version,
        selector: "*".into(),
        features: vec!["check".into(), "run.disk".into()],
        body: check.encode_to_vec(),
    }
}

fn digest_of(policies: &[v1::Signed]) -> String {
    let payloads: Vec<_> = policies
        .iter()
        .map(|signed| (v1::PolicyPayload::decode(signed.payload.clone()).unwrap(), signed))
        .collect();
    policy_set::digest(
        payloads
            .iter()
            .map(|(it, signed)| (&*it.kind, &*it.name, it.version, &*signed.payload)),
    )
}

/// The whole set at once.
fn full(policies: &[v1::Signed]) -> v1::PolicySync {
    v1::PolicySync {
        set_digest: digest_of(policies),
        added: policies.to_vec(),
        ..Default::default()
    }
}

fn running(policies: &Policies) -> Vec<(String, i64)> {
    policies
        .active()
        .borrow()
        .values()
        .map(|check| (check.name.clone(), check.version))
        .collect()
}

fn report(policies: &Policies, name: &str) -> (v1::PolicyOutcome, String) {
    let status = policies.status();
    let status = status.borrow();
    let report = status
        .policies
        .iter()
        .find(|report| report.name == name)
        .expect("the policy is reported");
    (report.outcome(), report.reason.clone())
}

/// Applies one policy and says what became of it.
fn outcome(signed: v1::Signed, signer: &Signer) -> (v1::PolicyOutcome, String) {
    let dir = tempfile::tempdir().unwrap();
    let policies = signer.policies(dir.path());
    policies.apply(full(&[signed])).unwrap();
    let (outcome, reason) = report(&policies, "a");
    assert_eq!(
        running(&policies).is_empty(),
        outcome != v1::PolicyOutcome::Applied,
        "{reason}"
    );
    (outcome, reason)
}

#[test]
fn a_good_policy_runs_with_its_defaults_and_is_reported_as_applied() {
    let dir = tempfile::tempdir().unwrap();
    let signer = Signer::new();
    let policies = signer.policies(dir.path());
    assert_eq!(policies.digest(), "");
    let set = [signer.check("a", 3), signer.check("b", 4)];
    policies.apply(full(&set)).unwrap();
    assert_eq!(running(&policies), [("a".into(), 3), ("b".into(), 4)]);
    assert_eq!(policies.digest(), digest_of(&set));
    assert_eq!(report(&policies, "a"), (v1::PolicyOutcome::Applied, String::new()));
    let status = policies.status();
    let status = status.borrow();
    assert_eq!(status.policy_set_digest, digest_of(&set));
    assert!(status.digest.starts_with("sha256:"));
    let active = policies.active();
    let active = active.borrow();
    assert_eq!(active["a"].check.schedule.unwrap().attempts, 1);
    assert_eq!(active["a"].check.timeout, None, "agent.yaml says it");
}

#[test]
fn a_difference_changes_adds_and_removes() {
    let dir = tempfile::tempdir().unwrap();
    let signer = Signer::new();
    let policies = signer.policies(dir.path());
    let before = [signer.check("a", 1), signer.check("b", 1)];
    policies.apply(full(&before)).unwrap();
    let after = [signer.check("b", 2), signer.check("c", 1)];
    let sync = v1::PolicySync {
        base_digest: digest_of(&before),
        set_digest: digest_of(&after),
        added: after.to_vec(),
        removed: vec![v1::PolicyRef {
            kind: "Check".into(),
            name: "a".into(),
        }],
    };
    policies.apply(sync).unwrap();
    assert_eq!(running(&policies), [("b".into(), 2), ("c".into(), 1)]);
}

#[test]
fn an_empty_set_is_not_the_same_as_none() {
    let dir = tempfile::tempdir().unwrap();
    let signer = Signer::new();
    let policies = signer.policies(dir.path());
    policies.apply(full(&[])).unwrap();
    assert_eq!(policies.digest(), digest_of(&[]));
    drop(policies);
    assert_eq!(signer.policies(dir.path()).digest(), digest_of(&[]));
}

#[test]
fn a_set_that_does_not_come_out_right_changes_nothing_and_asks_for_the_whole() {
    let dir = tempfile::tempdir().unwrap();
    let signer = Signer::new();
    let policies = signer.policies(dir.path());
    let set = [signer.check("a", 1)];
    policies.apply(full(&set)).unwrap();

    let wrong_base = v1::PolicySync {
        base_digest: "sha256:0".into(),
        ..full(&[signer.check("b", 1)])
    };
    assert!(matches!(policies.apply(wrong_base), Err(Differs::Base)));
    assert_eq!(running(&policies), [("a".into(), 1)]);
    assert_eq!(policies.digest(), "");

    let wrong_digest = v1::PolicySync {
        set_digest: "sha256:0".into(),
        ..full(&[signer.check("b", 1)])
    };
    assert!(matches!(policies.apply(wrong_digest), Err(Differs::Digest { .. })));
    assert_eq!(running(&policies), [("a".into(), 1)]);

    policies.apply(full(&[signer.check("b", 1)])).unwrap();
    assert_eq!(running(&policies), [("b".into(), 1)]);
}

#[test]
fn a_payload_that_cannot_be_read_refuses_the_whole_change() {
    let dir = tempfile::tempdir().unwrap();
    let signer = Signer::new();
    let policies = signer.policies(dir.path());
    for payload in [&b"\xff\xff"[..], b""] {
        let signed = v1::Signed {
            payload: payload.to_vec().into(),
            ..signer.check("a", 1)
        };
        let sync = v1::PolicySync {
            added: vec![signed],
            ..Default::default()
        };
        assert!(matches!(policies.apply(sync), Err(Differs::Unreadable(_))));
    }
}

#[test]
fn a_tampered_policy_is_refused() {
    let signer = Signer::new();
    let mut signed = signer.check("a", 1);
    signed.payload = v1::PolicyPayload {
        version: 2,
        ..payload("a", 1)
    }
    .encode_to_vec()
    .into();
    assert_eq!(
        outcome(signed, &signer),
        (v1::PolicyOutcome::Refused, "its signature does not fit".into())
    );
    let mut signed = signer.check("a", 1);
    signed.signature[0] ^= 1;
    assert_eq!(outcome(signed, &signer).0, v1::PolicyOutcome::Refused);
}

#[test]
fn a_policy_signed_by_a_stranger_is_refused_even_under_the_id_of_a_trusted_key() {
    let (signer, stranger) = (Signer::new(), Signer::new());
    let (verdict, why) = outcome(stranger.check("a", 1), &signer);
    assert_eq!(verdict, v1::PolicyOutcome::Refused);
    assert!(why.contains("does not trust"), "{why}");
    let disguised = v1::Signed {
        key_id: signer.key.key_id(),
        ..stranger.check("a", 1)
    };
    assert_eq!(outcome(disguised, &signer).0, v1::PolicyOutcome::Refused);
}

#[test]
fn a_signature_over_another_type_of_payload_is_refused() {
    let signer = Signer::new();
    let bytes = payload("a", 1).encode_to_vec();
    let signature = signer.key.sign("muster.v1/Job", &bytes);
    let signed = v1::Signed {
        payload: bytes.into(),
        key_id: signer.key.key_id(),
        signature,
    };
    assert_eq!(outcome(signed, &signer).0, v1::PolicyOutcome::Refused);
}

#[test]
fn a_policy_of_another_trust_domain_is_refused() {
    let signer = Signer::new();
    let signed = signer.sign(&v1::PolicyPayload {
        trust_domain: "other.muster".into(),
        ..payload("a", 1)
    });
    let (verdict, why) = outcome(signed, &signer);
    assert_eq!(verdict, v1::PolicyOutcome::Refused);
    assert!(why.contains("other.muster"), "{why}");
}

#[test]
fn a_version_older_than_one_seen_is_refused_even_after_the_policy_was_removed_and_the_agent_restarted() {
    let dir = tempfile::tempdir().unwrap();
    let signer = Signer::new();
    let policies = signer.policies(dir.path());
    policies.apply(full(&[signer.check("a", 5)])).unwrap();
    policies.apply(full(&[signer.check("a", 4)])).unwrap();
    let (verdict, why) = report(&policies, "a");
    assert_eq!(verdict, v1::PolicyOutcome::Refused);
    assert!(why.contains("version 4 is older than version 5"), "{why}");
    policies.apply(full(&[])).unwrap();
    drop(policies);

    let policies = signer.policies(dir.path());
    policies.apply(full(&[signer.check("a", 4)])).unwrap();
    assert_eq!(report(&policies, "a").0, v1::PolicyOutcome::Refused);
    policies.apply(full(&[signer.check("a", 5)])).unwrap();
    assert_eq!(running(&policies), [("a".into(), 5)]);
}

#[test]
fn a_forged_version_does_not_lock_out_genuine_ones() {
    let dir = tempfile::tempdir().unwrap();
    let (signer, stranger) = (Signer::new(), Signer::new());
    let policies = signer.policies(dir.path());
    policies.apply(full(&[stranger.check("a", i64::MAX)])).unwrap();
    policies.apply(full(&[signer.check("a", 1)])).unwrap();
    assert_eq!(running(&policies), [("a".into(), 1)]);
}

#[test]
fn the_local_ceiling_refuses_checks_and_lets_them_run_again_when_it_is_lifted() {
    let dir = tempfile::tempdir().unwrap();
    let signer = Signer::new();
    let policies = signer.policies(dir.path());
    policies.apply(full(&[signer.check("a", 1)])).unwrap();
    let mut active = policies.active();
    policies.set_allow(Allow {
        checks: false,
        ..Allow::default()
    });
    assert!(active.has_changed().unwrap());
    assert!(active.borrow_and_update().is_empty());
    let (verdict, why) = report(&policies, "a");
    assert_eq!(verdict, v1::PolicyOutcome::Refused);
    assert!(why.contains("allow.checks"), "{why}");
    policies.set_allow(Allow::default());
    assert_eq!(running(&policies), [("a".into(), 1)]);
}

#[test]
fn what_this_agent_does_not_know_is_not_supported() {
    let signer = Signer::new();
    let unknown_field = [payload("a", 1).body, vec![0x98, 0x06, 0x01]].concat();
    let no_run = v1::Check {
        selector: "*".into(),
        ..Default::default()
    }
    .encode_to_vec();
    for (odd, why) in [
        (
            v1::PolicyPayload {
                kind: "Script".into(),
                ..payload("a", 1)
            },
            "does not know the kind Script",
        ),
        (
            v1::PolicyPayload {
                features: vec!["check".into(), "run.snmp".into()],
                ..payload("a", 1)
            },
            "run.snmp",
        ),
        (
            v1::PolicyPayload {
                body: unknown_field,
                ..payload("a", 1)
            },
            "fields that agent",
        ),
        (
            v1::PolicyPayload {
                body: no_run,
                ..payload("a", 1)
            },
            "run",
        ),
    ] {
        let (verdict, reason) = outcome(signer.sign(&odd), &signer);
        assert_eq!(verdict, v1::PolicyOutcome::NotSupported, "{reason}");
        assert!(reason.contains(why), "{reason}");
    }
}

#[test]
fn an_unknown_field_of_the_payload_itself_is_not_supported() {
    let signer = Signer::new();
    let bytes = [payload("a", 1).encode_to_vec(), vec![0x98, 0x06, 0x01]].concat();
    let signature = signer.key.sign("muster.v1/Check", &bytes);
    let signed = v1::Signed {
        payload: bytes.into(),
        key_id: signer.key.key_id(),
        signature,
    };
    assert_eq!(outcome(signed, &signer).0, v1::PolicyOutcome::NotSupported);
}

#[test]
fn policies_on_disk_run_at_the_next_start_and_are_verified_again_there() {
    let dir = tempfile::tempdir().unwrap();
    let (signer, successor) = (Signer::new(), Signer::new());
    let set = [signer.check("a", 1)];
    signer.policies(dir.path()).apply(full(&set)).unwrap();

    let restarted = signer.policies(dir.path());
    assert_eq!(running(&restarted), [("a".into(), 1)]);
    assert_eq!(restarted.digest(), digest_of(&set));

    // The key is no longer trusted: what it signed does not run, whatever lies on the disk.
    let path = dir.path().join("policies.pb");
    let distrusting = Policies::load(path, successor.trust(), Allow::default());
    assert_eq!(running(&distrusting), []);
    assert_eq!(report(&distrusting, "a").0, v1::PolicyOutcome::Refused);
}

#[test]
fn a_broken_file_of_policies_is_as_good_as_none() {
    let dir = tempfile::tempdir().unwrap();
    let signer = Signer::new();
    muster_certs::file::write_secret(&dir.path().join("policies.pb"), b"\xff\xff\xff").unwrap();
    let policies = signer.policies(dir.path());
    assert_eq!((policies.digest(), running(&policies)), (String::new(), vec![]));
    policies.apply(full(&[signer.check("a", 1)])).unwrap();
    assert_eq!(running(&signer.policies(dir.path())), [("a".into(), 1)]);
}

#[test]
fn followers_hear_of_changes_only() {
    let dir = tempfile::tempdir().unwrap();
    let signer = Signer::new();
    let policies = signer.policies(dir.path());
    let set = [signer.check("a", 1)];
    policies.apply(full(&set)).unwrap();
    let (mut active, mut status) = (policies.active(), policies.status());
    active.mark_unchanged();
    status.mark_unchanged();
    policies.apply(full(&set)).unwrap();
    assert!(!active.has_changed().unwrap() && !status.has_changed().unwrap());
    policies.apply(full(&[signer.check("a", 2)])).unwrap();
    assert!(active.has_changed().unwrap() && status.has_changed().unwrap());
}
