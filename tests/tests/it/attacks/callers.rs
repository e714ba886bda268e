//! Every method of both listeners, called by everybody: who is refused by name, and who does not get through the handshake.

use std::{fs, time::Duration, time::SystemTime};

use muster_certs::{
    ca::{self, Ca},
    identity::Identity,
    identity_file::IdentityFile,
    key::KeyPair,
};
use muster_proto::error::ErrorReason;
use muster_server::access::{Listener, METHODS, Who};
use muster_tests::{Controller, dial};
use tonic::{Code, Request, Status, client::Grpc};
use tonic_prost::ProstCodec;

use super::{Target, reason, run};

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Calls a method with an empty message on a connection of its own. A stream that opens is an answer like any other.
async fn call(
    controller: &Controller,
    port: u16,
    who: Option<&IdentityFile>,
    path: &'static str,
) -> Result<(), Status> {
    let channel = dial::channel(controller, port, who).await;
    let mut client = Grpc::new(channel.map_err(|error| Status::unknown(error.to_string()))?);
    client
        .ready()
        .await
        .map_err(|error| Status::unknown(error.to_string()))?;
    let codec = ProstCodec::<(), ()>::default();
    let path = http::uri::PathAndQuery::from_static(path);
    let called = client.server_streaming(Request::new(()), path, codec);
    called.await.map(|_| ())
}

fn ports(controller: &Controller) -> [(Listener, u16); 2] {
    [
        (Listener::Agents, controller.agents_port),
        (Listener::Api, controller.api_port),
    ]
}

fn of_nobody(who: Who) -> bool {
    matches!(who, Who::Newcomer | Who::NewcomerOrAgent | Who::Anyone)
}

fn of_agent(who: Who) -> bool {
    matches!(who, Who::Agent | Who::NewcomerOrAgent | Who::Renewer | Who::Anyone)
}

fn of_operator(who: Who) -> bool {
    matches!(who, Who::Operator(_) | Who::AnyOperator | Who::Anyone)
}

#[test]
fn every_method_is_closed_to_every_caller_that_it_is_not_for() {
    let mut target = Target::start();
    let agent = IdentityFile::load(&target.stolen().path("state/identity.pem")).expect("an identity");
    let operator = dial::operator(&target.controller.path("tester.yaml"));
    let callers = [
        ("nobody", None, of_nobody as fn(Who) -> bool),
        ("agent", Some(&agent), of_agent),
        ("operator", Some(&operator), of_operator),
    ];
    let mut calls = 0;
    run(async {
        for (name, identity, may) in &callers {
            for (listener, port) in ports(&target.controller) {
                for method in METHODS.iter().filter(|method| method.is_grpc()) {
                    let answer = call(&target.controller, port, *identity, method.path).await;
                    let refused = match &answer {
                        Ok(()) => false,
                        Err(status) => matches!(
                            reason(status),
                            Some(ErrorReason::MethodNotAllowed | ErrorReason::CertificateRequired)
                        ),
                    };
                    let is_for = method.listener == listener && may(method.who);
                    assert_eq!(
                        refused, !is_for,
                        "{name} calls {} at {listener:?}: {answer:?}",
                        method.path
                    );
                    calls += 1;
                }
            }
        }
    });
    assert!(calls >= 100, "{calls}");
    target.is_unharmed();
}

#[test]
fn names_of_methods_that_are_almost_right_lead_nowhere() {
    let mut target = Target::start();
    let operator = dial::operator(&target.controller.path("tester.yaml"));
    run(async {
        for path in [
            "/muster.v1.AgentService/ListAgents/",
            "//muster.v1.AgentService/ListAgents",
            "/muster.v1.agentservice/listagents",
            "/%6duster.v1.AgentService/ListAgents",
            "/muster.v1.AgentService/",
            "/",
        ] {
            let refusal = call(&target.controller, target.controller.api_port, Some(&operator), path).await;
            let refusal = refusal.expect_err(path);
            assert_eq!(refusal.code(), Code::Unimplemented, "{path}: {refusal}");
        }
    });
    target.is_unharmed();
}

#[test]
fn a_certificate_opens_nothing_unless_it_is_of_a_client_and_on_file() {
    let mut target = Target::start();
    let controller = &target.controller;
    let stolen = target.stolen();
    let agent = IdentityFile::load(&stolen.path("state/identity.pem")).expect("an identity");
    let domain = dial::trust_domain();
    let now = SystemTime::now();
    let pki = |file: &str| fs::read_to_string(controller.data_dir().join("pki").join(file)).expect("a file of the PKI");
    let ours = Ca::load(&pki("issuing.pem"), &pki("issuing-key.pem")).expect("the issuing CA");
    // The same trust domain with other keys.
    let others_root = Ca::create_root(&domain, now).expect("a root");
    let others = Ca::create_issuing(&others_root, now).expect("a CA");

    let issue = |ca: &Ca, identity: &Identity, validity| {
        let key = KeyPair::generate().expect("a key");
        let issued = ca.issue(identity, &key.public_key(), validity).expect("a certificate");
        let chain = vec![issued.der, ca.certificate_der().clone()];
        IdentityFile::new(key, chain).expect("an identity")
    };
    let tester = Identity::user(&domain, "tester").expect("an identity");
    let server = Identity::controller(&domain, "controller1").expect("an identity");
    let valid = || ca::backdated(now, DAY);
    // Within the life of the CA, which begins an hour before it was made.
    let past = now - 30 * MINUTE..now - MINUTE;
    let future = now + 10 * DAY..now + 20 * DAY;

    // Good in the handshake; then the list of serials is asked.
    let api = "/muster.v1.AgentService/ListAgents";
    let link = "/muster.v1.LinkService/Connect";
    let unknown = [
        (api, issue(&ours, &tester, valid()), ErrorReason::CertificateUnknown),
        (
            api,
            issue(&ours, &tester, past.clone()),
            ErrorReason::CertificateExpired,
        ),
        (
            link,
            issue(&ours, agent.identity(), valid()),
            ErrorReason::CertificateUnknown,
        ),
        (
            link,
            issue(&ours, agent.identity(), past),
            // What was never on file has not expired either.
            ErrorReason::CertificateUnknown,
        ),
    ];
    // Not even that.
    let no_clients = [
        ("the certificate of a controller", issue(&ours, &server, valid())),
        ("one from the future", issue(&ours, &tester, future)),
        (
            "one of another installation with the same trust domain",
            issue(&others, &tester, valid()),
        ),
        (
            "an agent of another installation",
            issue(&others, agent.identity(), valid()),
        ),
    ];
    run(async {
        for (path, identity, wanted) in &unknown {
            let port = if *path == api {
                controller.api_port
            } else {
                controller.agents_port
            };
            let refusal = call(controller, port, Some(identity), path)
                .await
                .expect_err("a forged certificate");
            assert_eq!(reason(&refusal), Some(*wanted), "{path}: {refusal}");
        }
        for (what, identity) in &no_clients {
            for (_, port) in ports(controller) {
                let refusal = call(controller, port, Some(identity), api).await.expect_err(what);
                assert_eq!(reason(&refusal), None, "{what} was read: {refusal}");
            }
        }
        // The real ones still open what they did.
        let operator = dial::operator(&controller.path("tester.yaml"));
        call(controller, controller.api_port, Some(&operator), api)
            .await
            .expect("the operator");
    });
    target.is_unharmed();
}
