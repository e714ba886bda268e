//! Certificates of CAs that do not issue: the one that is prepared, the one before, the one that nobody trusts any longer.
//! On a controller of their own, whose CA is rotated between the attacks; the one that is attacked otherwise keeps its CA.

use std::path::Path;

use muster_certs::{csr, identity_file::IdentityFile, key::KeyPair};
use muster_proto::v1::{RenewRequest, enrollment_service_client::EnrollmentServiceClient};
use prost::Message as _;
use serde_json::Value;

use super::{
    dialer::{Call, Dialer},
    forge::{Credentials, Draft, Signer},
    report::Category,
};
use crate::{Controller, dial, peer};

const NO_HANDSHAKE: &[&str] = &["TLS alert", "closed"];
const GOOD: &[&str] = &["OK"];
const UNKNOWN: &[&str] = &["UNAUTHENTICATED CERTIFICATE_UNKNOWN"];
const SUPERSEDED: &[&str] = &["UNAUTHENTICATED CERTIFICATE_SUPERSEDED"];
const BUNDLE: &str = "/muster.v1.EnrollmentService/GetTrustBundle";
const RENEW: &str = "/muster.v1.EnrollmentService/Renew";
const LIST: &str = "/muster.v1.AgentService/ListAgents";

pub async fn attack(category: &mut Category) {
    let controller = Controller::start();
    let field = Field {
        dialer: Dialer {
            agents_port: controller.agents_port,
            api_port: controller.api_port,
            source: [127, 0, 0, 1].into(),
        },
        controller,
    };
    let first = field.signer("issuing.pem", "issuing-key.pem");
    let (keeps, renews) = (field.enrolled("attack-keeps"), field.enrolled("attack-renews"));
    let operator = Credentials::of(&dial::operator(&field.controller.path("tester.yaml")));

    let prepared = field.step("prepare", &[]);
    let next = field.signer(
        &format!("{prepared}/issuing.pem"),
        &format!("{prepared}/issuing-key.pem"),
    );
    // Whose certificates it would be is not the question of TLS, and none of its serials is on file.
    let forged = next.issue(&Draft::new(keeps.identity().to_string()));
    field
        .agents(category, "of the CA that is prepared", &forged, UNKNOWN, UNKNOWN)
        .await;

    field.step("activate", &["--force"]);
    let old = Credentials::of(&keeps);
    field
        .agents(category, "of the CA before, on file", &old, GOOD, GOOD)
        .await;
    let forged = first.issue(&Draft::new(keeps.identity().to_string()));
    field
        .agents(category, "of the CA before, not on file", &forged, UNKNOWN, UNKNOWN)
        .await;
    let before = Credentials::of(&renews);
    let after = field.renewed(&renews).await;
    field
        .agents(category, "of the CA that issues now", &after, GOOD, GOOD)
        .await;
    // The newer one is silent, so a renewal would be that of a snapshot.
    let got = field.call(field.dialer.agents_port, &before, BUNDLE, &[]).await;
    category.one("certificate: of the CA before, renewed since", got, SUPERSEDED);

    field.step("retire", &["--leave-behind", "attack-keeps,attack-renews"]);
    field
        .agents(category, "of a CA that is retired", &old, NO_HANDSHAKE, NO_HANDSHAKE)
        .await;
    let forged = first.issue(&Draft::new(renews.identity().to_string()));
    field
        .agents(
            category,
            "of a CA that is retired, not on file",
            &forged,
            NO_HANDSHAKE,
            NO_HANDSHAKE,
        )
        .await;
    field
        .agents(category, "of the CA that took its place", &after, GOOD, GOOD)
        .await;
    let got = field.call(field.dialer.api_port, &operator, LIST, &[]).await;
    category.one("certificate: an operator's, of a CA that is retired", got, GOOD);
    let got = field.call(field.dialer.agents_port, &operator, BUNDLE, &[]).await;
    category.one(
        "certificate: an operator's, of a CA that is retired, at the agents' door",
        got,
        NO_HANDSHAKE,
    );
}

struct Field {
    controller: Controller,
    dialer: Dialer,
}

impl Field {
    fn signer(&self, certificate: &str, key: &str) -> Signer {
        let pki = self.controller.data_dir().join("pki");
        Signer::load(&pki.join(Path::new(certificate)), &pki.join(key))
    }

    fn enrolled(&self, name: &str) -> IdentityFile {
        let setup = self.controller.agent(name);
        setup.enroll().expect_code(0);
        peer::load(&setup.path("state/identity.pem"))
    }

    /// The id of the newest CA afterwards.
    fn step(&self, step: &str, arguments: &[&str]) -> String {
        let all = [&["ca", step, "--yes"], arguments].concat();
        let status: Value = self.controller.ctl().json(&all);
        status["items"][0]["id"].as_str().expect("an id").to_owned()
    }

    /// With a certificate of the CA that issues now, which has been used.
    async fn renewed(&self, identity: &IdentityFile) -> Credentials {
        let key = KeyPair::generate().expect("a key");
        let request = RenewRequest {
            csr: csr::create(&key).expect("a request"),
            ..RenewRequest::default()
        };
        let port = self.controller.agents_port;
        let channel = dial::channel(&self.controller, port, Some(identity))
            .await
            .expect("a connection");
        let renewed = EnrollmentServiceClient::new(channel)
            .renew(request)
            .await
            .expect("a renewal");
        let chain = renewed.into_inner().certificates.into_iter().map(Into::into).collect();
        let credentials = Credentials::of(&IdentityFile::new(key, chain).expect("an identity"));
        let used = self.call(port, &credentials, BUNDLE, &[]).await;
        assert_eq!(used, "OK", "the new certificate counts");
        credentials
    }

    /// A call that any certificate that counts may make, and a renewal.
    async fn agents(&self, category: &mut Category, what: &str, shown: &Credentials, call: &[&str], renewal: &[&str]) {
        let port = self.dialer.agents_port;
        let got = self.call(port, shown, BUNDLE, &[]).await;
        category.one(format!("certificate: {what}"), got, call);
        let key = KeyPair::generate().expect("a key");
        let request = RenewRequest {
            csr: csr::create(&key).expect("a request"),
            ..RenewRequest::default()
        };
        let got = self.call(port, shown, RENEW, &request.encode_to_vec()).await;
        category.one(format!("renewal: {what}"), got, renewal);
    }

    async fn call(&self, port: u16, shown: &Credentials, path: &str, message: &[u8]) -> String {
        self.dialer.call(port, Some(shown), Call::grpc(path, message)).await
    }
}
