//! The end of trust: of an agent, of one certificate, of both with the entry; and the list of it for other programs.

use std::{fs, process::Command};

use muster_certs::pem;
use muster_tests::{
    Controller,
    ctl::Outcome,
    peer::{self, Link, Peer},
    poll::{self, SECOND},
    process, tools,
};
use serde_json::json;

use super::{controller, enrolled, event, identity, listed, wait_for_end, wait_for_log};

#[track_caller]
fn assert_revoked<T: std::fmt::Debug>(answer: Result<T, tonic::Status>, what: &str) {
    let status = answer.expect_err(what);
    assert_eq!(peer::reason(&status), "CERTIFICATE_REVOKED", "{what}: {status}");
}

#[test]
fn a_revoked_agent_is_cut_at_once_and_refused_until_a_token_for_its_id_brings_it_back() {
    let controller = controller("1h");
    let agent = controller.agent("web-01").start();
    let id = controller.wait_for_agent("web-01", "ONLINE")["id"].clone();
    let id = id.as_str().expect("an id");
    let revoked = controller
        .ctl()
        .json(&["agent", "revoke", "web-01", "--reason", "the laptop was stolen"]);
    assert_eq!(revoked["status"], "AGENT_STATUS_REVOKED", "{revoked}");
    assert_eq!(revoked["statusReason"], "the laptop was stolen", "{revoked}");
    poll::until("it has no connection", 5 * SECOND, || {
        let agent = controller.ctl().json(&["agent", "get", "web-01"]);
        match agent["connection"].is_null() {
            true => Ok(()),
            false => Err(agent.to_string()),
        }
    });
    poll::until("it says why, and what would help", 20 * SECOND, || {
        let status = agent.status()?;
        let error = status["connection"]["lastError"].as_str().unwrap_or_default();
        match error.contains("CERTIFICATE_REVOKED") && error.contains("musterctl token create --agent-id") {
            true => Ok(()),
            false => Err(status.to_string()),
        }
    });
    let told = event(&controller, "AGENT_REVOKED");
    assert_eq!(told["metadata"]["reason"], "the laptop was stolen", "{told}");

    // Not within the grace either, and no operator opens a window for it.
    let before = identity(&agent);
    wait_for_end(&before, 0);
    assert_revoked(peer::renew(&controller, &before), "renewal of an expired one");
    let readmit = controller.ctl().run(&["agent", "readmit", "web-01"]);
    assert_ne!(readmit.code, 0, "{readmit}");
    readmit.explains();
    let renewed = agent.log().matches("the certificate was renewed").count();
    wait_for_log(&agent, "CERTIFICATE_REVOKED", 3);
    assert_eq!(agent.log().matches("the certificate was renewed").count(), renewed);

    // Nobody starts it anew: it finds the token by itself.
    agent.setup().write_token(&controller.token(&["--agent-id", id]).secret);
    let back = controller.wait_for_agent("web-01", "ONLINE");
    assert_eq!(back["id"], id, "{back}");
    assert_revoked(peer::renew(&controller, &before), "what was revoked stays so");
}

#[test]
fn a_link_of_a_revoked_agent_ends_with_the_reason_and_no_other_opens() {
    let controller = Controller::start();
    let identity = enrolled(&controller, "db-01");
    let link = Link::connect(&controller, &identity).expect("a link");
    controller.ctl().ok(&["agent", "revoke", "db-01"]);
    assert_revoked::<()>(Err(link.end().expect("a reason")), "the link");
    assert_revoked(Link::connect(&controller, &identity).map(drop), "another link");
    assert_revoked(peer::use_certificate(&controller, &identity), "another call");
    assert_revoked(peer::renew(&controller, &identity), "renewal");
    // Once more is no error, and changes nothing.
    controller.ctl().ok(&["agent", "revoke", "db-01", "--reason", "again"]);
    assert_eq!(controller.ctl().events("AGENT_REVOKED").expect("events").len(), 1);
}

#[test]
fn a_deleted_agent_is_cut_and_its_id_stays_taken() {
    let controller = Controller::start();
    let machine = Peer::new("db-01");
    let answer = machine.enroll(&controller, &controller.token(&[]).secret);
    let answer = answer.expect("it enrolls");
    let (id, identity) = (answer.agent_id, machine.identity(answer.certificates));
    let link = Link::connect(&controller, &identity).expect("a link");
    controller.ctl().ok(&["agent", "delete", "db-01"]);
    assert_revoked::<()>(Err(link.end().expect("a reason")), "the link");
    assert_revoked(Link::connect(&controller, &identity).map(drop), "another link");
    assert!(controller.ctl().items(&["agent", "list"]).expect("a list").is_empty());

    let token = controller.token(&[]);
    let setup = muster_tests::agent::Setup::new("db-01", token.clone());
    setup.write("agent-id", &id);
    let refused = setup.enroll_once();
    assert_ne!(refused.code, 0, "{refused}");
    refused.explains().says(&["AGENT_DELETED", "not used up", "--revive"]);
    let refused = machine
        .enroll_as(&controller, &token.secret, &id)
        .expect_err("its old key is no way");
    assert_eq!(peer::reason(&refused), "AGENT_DELETED", "{refused}");
    // Somebody who knows of it gives the id out again.
    let bound = controller.token(&["--agent-id", &id]).secret;
    Peer::new("db-02")
        .enroll_as(&controller, &bound, &id)
        .expect("it enrolls");
    assert_eq!(controller.ctl().json(&["agent", "get", &id])["name"], "db-02");
}

#[test]
fn one_certificate_is_revoked_the_superseded_one_without_harm_and_the_present_one_with_its_link() {
    let controller = Controller::start();
    let first = enrolled(&controller, "db-01");
    peer::use_certificate(&controller, &first).expect("it counts");
    let second = peer::renew(&controller, &first).expect("a renewal");
    let link = Link::connect(&controller, &second).expect("a link");
    let statuses = |first_is: &str, second_is: &str| {
        let expected = [(second.serial(), second_is), (first.serial(), first_is)];
        let expected = expected.map(|(serial, status)| (serial.to_owned(), format!("CERTIFICATE_STATUS_{status}")));
        poll::until("the list", 10 * SECOND, || match listed(&controller, "db-01") {
            list if list == expected => Ok(()),
            list => Err(format!("{list:?}")),
        });
    };
    statuses("SUPERSEDED", "ACTIVE");

    let revoke = |serial: &str| controller.ctl().json(&["cert", "revoke", serial, "--reason", "copied"]);
    let revoked = revoke(first.serial());
    assert_eq!(revoked["revokeReason"], "copied", "{revoked}");
    statuses("REVOKED", "ACTIVE");
    assert_revoked(peer::renew(&controller, &first), "a superseded one that was revoked");
    peer::use_certificate(&controller, &second).expect("the present one counts");

    revoke(second.serial());
    assert_revoked::<()>(Err(link.end().expect("a reason")), "the link");
    assert_revoked(Link::connect(&controller, &second).map(drop), "another link");
    assert_revoked(peer::renew(&controller, &second), "renewal");
    statuses("REVOKED", "REVOKED");
    // The agent itself is as it was, and its way back is as short as any.
    assert_ne!(
        controller.ctl().json(&["agent", "get", "db-01"])["status"],
        json!("AGENT_STATUS_REVOKED")
    );
    let unknown = controller.ctl().run(&["cert", "revoke", "00"]);
    unknown.expect_code(5);
}

#[test]
fn programs_of_others_find_what_is_revoked_in_a_list_that_openssl_reads() {
    if tools::find("openssl").is_none() {
        return tools::skipped("the revocation list", "openssl is not installed (Debian: openssl)");
    }
    let controller = Controller::start();
    let (bad, good) = (enrolled(&controller, "bad"), enrolled(&controller, "good"));
    controller.ctl().ok(&["cert", "revoke", bad.serial()]);
    let file = |name: &str| controller.path(name).display().to_string();
    let run = |program: &str, arguments: &[&str]| {
        let mut command: Command = process::clean_command(program, &controller.path("."));
        command.args(arguments);
        Outcome::of(command)
    };
    // It is made anew every five seconds.
    let url = format!("https://{}/crl", controller.api());
    let wanted = bad.serial().to_uppercase();
    let wanted = wanted.trim_start_matches('0');
    let text = poll::until("the serial is on the list", 20 * SECOND, || {
        run(
            "curl",
            &["--silent", "--insecure", "--fail", "--output", &file("crl.der"), &url],
        )
        .expect_code(0);
        let text = run(
            "openssl",
            &["crl", "-inform", "DER", "-in", &file("crl.der"), "-noout", "-text"],
        );
        match text.code == 0 && text.stdout.contains(wanted) {
            true => Ok(text),
            false => Err(text.to_string()),
        }
    });
    assert!(
        text.stdout.contains("Version 2") && text.stdout.contains("CRL Number"),
        "{text}"
    );
    assert!(!text.stdout.contains(&good.serial().to_uppercase()), "{text}");

    run(
        "openssl",
        &[
            "crl",
            "-inform",
            "DER",
            "-in",
            &file("crl.der"),
            "-out",
            &file("crl.pem"),
        ],
    )
    .expect_code(0);
    let pki = controller.data_dir().join("pki");
    let (root, issuing) = (pki.join("root.pem"), pki.join("issuing.pem"));
    for (name, identity) in [("bad.pem", &bad), ("good.pem", &good)] {
        let leaf = pem::encode_certificates(&identity.chain()[..1]);
        fs::write(controller.path(name), leaf).expect("a certificate");
    }
    let (root, issuing) = (root.display().to_string(), issuing.display().to_string());
    let verify = |name: &str| {
        let files = [
            "-CAfile",
            &root,
            "-untrusted",
            &issuing,
            "-CRLfile",
            &file("crl.pem"),
            &file(name),
        ];
        run("openssl", &[&["verify", "-crl_check"], &files[..]].concat())
    };
    verify("good.pem").expect_code(0);
    let refused = verify("bad.pem");
    assert_ne!(refused.code, 0, "{refused}");
    refused.says(&["certificate revoked"]);
}
