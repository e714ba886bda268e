//! A controller below the operator's own PKI.

use std::{fs, time::SystemTime};

use muster_certs::{
    Identity,
    ca::{self, Ca},
    identity_file::IdentityFile,
    key::KeyPair,
    pem,
    pin::Pin,
};
use muster_tests::{
    Controller, ServerYaml, binaries,
    ctl::Outcome,
    dial,
    poll::{self, SECOND},
    process,
};
use serde_json::Value;

use super::{ca as ca_in, ctl_with, openssl::Pki, refused, status, step};

fn start(pki: &Pki) -> Controller {
    pki.issuing("root", "fleet");
    let chain = pki.bundle("fleet-chain.pem", &["fleet", "root"]);
    let settings = ServerYaml::new().agent_certificates("20s").heartbeat("1s");
    let key = pki.text_path("fleet-key.pem");
    let mut controller = Controller::set_up_by(&settings.to_string(), &["--ca-cert", &chain, "--ca-key", &key]);
    controller.run();
    controller
}

/// A user's certificate by a CA of this PKI, with a serial that nobody has on file.
fn user(pki: &Pki, issuing: &str, name: &str) -> IdentityFile {
    let chain = pki.read(&format!("{issuing}.pem")) + &pki.read("root.pem");
    let chain = pem::certificates(&chain).expect("certificates");
    let ca = Ca::load_foreign(&chain, &pki.read(&format!("{issuing}-key.pem")), &dial::trust_domain()).expect("a CA");
    let key = KeyPair::generate().expect("a key");
    let identity = Identity::user(&dial::trust_domain(), name).expect("a name");
    let validity = ca::backdated(SystemTime::now(), ca::USER_LIFETIME);
    let issued = ca.issue(&identity, &key.public_key(), validity).expect("a certificate");
    IdentityFile::new(key, vec![issued.der, chain[0].clone()]).expect("an identity")
}

#[test]
fn certificates_of_the_pki_that_the_controller_did_not_issue_open_nothing() {
    let Some(pki) = Pki::create() else { return };
    let controller = start(&pki);
    let ctl = |issuing: &str| {
        ctl_with(
            &controller,
            "foreign.json",
            &user(&pki, issuing, "tester"),
            &pki.read("root.pem"),
            None,
        )
    };

    // Of the same root, and not of the controller's issuing CA: TLS says no.
    pki.issuing("root", "sister");
    let outcome = ctl("sister").run(&["agent", "list"]);
    assert_eq!(outcome.code, 3, "{outcome}");
    assert!(outcome.stderr.contains("refused the certificate"), "{outcome}");
    // Of the issuing CA itself, which somebody has used elsewhere: nobody knows that serial.
    let outcome = ctl("fleet").run(&["agent", "list"]);
    assert_eq!(outcome.code, 4, "{outcome}");
    controller.ctl().ok(&["agent", "list"]);
}

#[test]
fn a_fleet_below_another_pki_goes_over_to_the_next_ca_of_it() {
    let Some(pki) = Pki::create() else { return };
    let controller = start(&pki);
    let token = controller.token(&["--uses", "2"]);
    let root = pem::certificates(&pki.read("root.pem"))
        .expect("a certificate")
        .remove(0);
    assert_eq!(token.pin, Pin::of_certificate(&root).expect("a pin").to_string());
    let _agent = muster_tests::agent::Setup::new("host", token.clone()).start();
    controller.wait_for_agent("host", "ONLINE");
    let first = ca_in(&status(&controller), "ACTIVE").expect("a CA");
    assert_eq!(status(&controller)["items"][0]["isExternal"], Value::Bool(true));

    // The controller has no root of its own, and says where the next CA comes from.
    refused(&controller, &["prepare"])
        .says(&["muster-server ca import"])
        .explains();
    let import = |chain: &str, key: &str| controller.server(&["ca", "import", "--ca-cert", chain, "--ca-key", key]);
    // Of a root that no agent knows: not without a word of the present one.
    pki.root("strange", "Strange Root CA");
    pki.issuing("strange", "next");
    let key = pki.text_path("next-key.pem");
    let outcome = import(&pki.bundle("next-chain.pem", &["next", "strange"]), &key);
    assert_eq!(outcome.code, 1, "{outcome}");
    outcome.says(&["Example Root CA", "Strange Root CA"]);
    assert_eq!(ca_in(&status(&controller), "PREPARED"), None);

    let cross = pki.cross("root", "strange");
    assert!(cross.contains("BEGIN CERTIFICATE"));
    let chain = pki.bundle("next-chain.pem", &["next", "strange", "cross"]);
    let outcome = import(&chain, &key).expect_code(0);
    let second = poll::until("the controller has it", 20 * SECOND, || {
        ca_in(&status(&controller), "PREPARED").ok_or("not yet")
    });
    assert!(outcome.stdout.contains(&second), "{outcome}");
    step(&controller, &["activate"]);
    // Who joins with the pin of the first root.
    let _late = muster_tests::agent::Setup::new("late", token).start();
    controller.wait_for_agent("late", "ONLINE");
    let after = step(&controller, &["retire"]);
    assert_eq!(ca_in(&after, "RETIRED"), Some(first));
    assert_eq!(ca_in(&after, "ACTIVE"), Some(second));
    controller.wait_for_agent("host", "ONLINE");
    assert_eq!(controller.ctl().events("CA_PREPARED").expect("events").len(), 1);
}

#[test]
fn what_is_wrong_with_a_ca_is_told_before_anything_is_made() {
    let Some(pki) = Pki::create() else { return };
    pki.issuing("root", "fleet");
    pki.issuing("root", "other");
    let leaf = "basicConstraints = CA:FALSE\nkeyUsage = digitalSignature\n";
    pki.below("root", "leaf", "Example Server", leaf);
    let init = |chain: &[&str], key: &str| -> Outcome {
        let data = pki.path("data");
        let mut command = process::clean_command(binaries::path("muster-server"), &pki.path("."));
        command.args(["init", "--name", "c", "--trust-domain", "example.muster", "--data-dir"]);
        command
            .arg(&data)
            .args(["--ca-cert", &pki.bundle("try.pem", chain), "--ca-key"]);
        command.arg(pki.path(&format!("{key}-key.pem")));
        let outcome = Outcome::of(command);
        assert_eq!(outcome.code, 1, "{outcome}");
        assert!(!data.exists(), "nothing was made");
        outcome
    };
    init(&["fleet"], "fleet").says(&["Example Root CA", "missing", "try.pem"]);
    init(&["fleet", "root"], "other").says(&["does not belong", "Example Fleet CA"]);
    init(&["leaf", "root"], "leaf").says(&["Example Server", "CA:TRUE"]);
    init(&["root"], "root").says(&["is a root"]);
    fs::remove_file(pki.path("other-key.pem")).expect("the key is there");
    init(&["fleet", "root"], "other").says(&["other-key.pem"]);
}
