//! What a connection is told whose certificate does not count: each reason by its own name, with what the agent needs to
//! tell its people.

use std::{
    fs,
    time::{Duration, SystemTime},
};

use muster_certs::{
    ca::{self, Ca},
    identity_file::IdentityFile,
    key::KeyPair,
};
use muster_proto::error::Problem;
use muster_tests::{
    Controller, ServerYaml,
    peer::{self, Link},
};
use tonic::Status;

use super::{controller, enrolled, wait_for_end};

/// A certificate of the controller's own CA that it never issued.
fn unknown(controller: &Controller, like: &IdentityFile) -> IdentityFile {
    let read =
        |name: &str| fs::read_to_string(controller.data_dir().join("pki").join(name)).expect("a file of the PKI");
    let ca = Ca::load(&read("issuing.pem"), &read("issuing-key.pem")).expect("the CA");
    let key = KeyPair::generate().expect("a key");
    let validity = ca::backdated(SystemTime::now(), Duration::from_secs(3_600));
    let issued = ca
        .issue(like.identity(), &key.public_key(), validity)
        .expect("a certificate");
    IdentityFile::new(key, vec![issued.der, ca.certificate_der().clone()]).expect("an identity")
}

/// Refused for a link and for any other call, by the same reason.
#[track_caller]
fn assert_refused(controller: &Controller, identity: &IdentityFile, reason: &str) {
    let link: Result<(), Status> = Link::connect(controller, identity).map(drop);
    for answer in [link, peer::use_certificate(controller, identity).map(drop)] {
        let status = answer.expect_err(reason);
        assert_eq!(peer::reason(&status), reason, "{status}");
        let problem = Problem::from_status(&status).expect("a problem");
        assert_eq!(
            problem.metadata.get("serial").map(String::as_str),
            Some(identity.serial())
        );
        for both in ["controller_time", "not_after", "standing"] {
            assert!(problem.metadata.contains_key(both), "{both}: {problem:?}");
        }
    }
}

#[test]
fn revoked_expired_unknown_and_superseded_are_told_apart() {
    let controller = controller("1h");
    let lasting = enrolled(&controller, "lasting");
    assert_refused(&controller, &unknown(&controller, &lasting), "CERTIFICATE_UNKNOWN");

    let old = enrolled(&controller, "renewed");
    let new = peer::renew(&controller, &old).expect("a renewal");
    peer::use_certificate(&controller, &old).expect("until the new one is used the old one counts");
    peer::use_certificate(&controller, &new).expect("the new one counts");
    assert_refused(&controller, &old, "CERTIFICATE_SUPERSEDED");

    let stolen = enrolled(&controller, "stolen");
    controller.ctl().ok(&["agent", "revoke", "stolen"]);
    assert_refused(&controller, &stolen, "CERTIFICATE_REVOKED");

    wait_for_end(&lasting, 0);
    assert_refused(&controller, &lasting, "CERTIFICATE_EXPIRED");
    // Each stays what it is when its time is over as well.
    wait_for_end(&stolen, 0);
    assert_refused(&controller, &stolen, "CERTIFICATE_REVOKED");
    assert_refused(&controller, &old, "CERTIFICATE_SUPERSEDED");
}

#[test]
fn a_link_does_not_outlive_its_certificate_and_a_renewed_one_goes_on_by_another_link() {
    // Slow heartbeats: this link is as silent as it is, and not ended for that.
    let settings = ServerYaml::new().agent_certificates("10s").heartbeat("6s");
    let controller = Controller::start_with(&settings.to_string());
    let first = enrolled(&controller, "db-01");
    let link = Link::connect(&controller, &first).expect("a link");
    let ended = link.end().expect("a reason");
    assert_eq!(peer::reason(&ended), "CERTIFICATE_EXPIRED", "{ended}");
    assert!(SystemTime::now() >= first.not_after(), "not before its time");
    assert_refused(&controller, &first, "CERTIFICATE_EXPIRED");

    let second = peer::renew(&controller, &first).expect("within the grace");
    let link = Link::connect(&controller, &second).expect("a link");
    drop(link);
}
