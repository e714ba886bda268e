//! Machines that want to be another one: by its id in every spelling, by a copy of its identity, and by the id of one that
//! was shown the door.

use std::time::Duration;

use muster_certs::{csr, key::KeyPair};
use muster_proto::v1::{
    ConnectRequest, DeleteAgentRequest, Fingerprint, ForkRequest, Hello, RenewRequest, RevokeAgentRequest,
    agent_service_client::AgentServiceClient, connect_request,
};
use prost::Message as _;

use super::{
    Ground, dialer::Call, enroll, enrollment, forge::Credentials, ground::HEALTHY, report::Category,
    standings::agent_id,
};
use crate::dial;

const NETWORK: u8 = 14;
const TAKEN: &str = "ALREADY_EXISTS AGENT_ALREADY_ENROLLED";
const BAD: &str = "INVALID_ARGUMENT INVALID_FIELD";
const CLONE: &str = "ALREADY_EXISTS CLONE_DETECTED";

pub async fn attack(ground: &Ground, category: &mut Category) {
    let token = ground.controller.token(&["--uses", "20"]).secret;
    let id = ground.agents[0].id().expect("an id");
    spelled(ground, category, &token, &id).await;
    expected(ground, category, &token).await;
    shown_out(ground, category, &token).await;
    copied(ground, category, &id).await;
    let agents = ground.inventory();
    let thieves = agents.iter().filter(|agent| agent["name"] == "thief").count();
    category.one("agents with a stolen id", format!("{thieves} agents"), &["0 agents"]);
    let names: Vec<_> = agents
        .iter()
        .filter(|agent| agent["id"] == id)
        .map(|agent| agent["name"].clone())
        .collect();
    let kept = if names == [HEALTHY[0]] { "kept" } else { "changed" };
    category.one("the entry of the agent that was attacked", kept.to_owned(), &["kept"]);
}

async fn spelled(ground: &Ground, category: &mut Category, token: &str, id: &str) {
    let cases = [
        ("as it is", id.to_owned(), TAKEN),
        ("in capitals", id.to_uppercase(), TAKEN),
        ("in braces", format!("{{{id}}}"), BAD),
        ("as a URN", format!("urn:uuid:{id}"), BAD),
        ("without hyphens", id.replace('-', ""), BAD),
        ("with a blank before it", format!(" {id}"), BAD),
        ("with a line after it", format!("{id}\n"), BAD),
        ("with a zero byte after it", format!("{id}\0"), BAD),
        ("with a path before it", format!("../agent/{id}"), BAD),
        ("percent-encoded", format!("%{:02x}{}", id.as_bytes()[0], &id[1..]), BAD),
        ("with hyphens of another kind", id.replace('-', "\u{2010}"), BAD),
        ("in digits of full width", id.chars().map(wide).collect(), BAD),
        (
            "in digits of mathematics",
            id.replace('1', "\u{1d7cf}")
                .replace('2', "\u{1d7d0}")
                .replace('a', "\u{430}"),
            BAD,
        ),
        ("with a mark that turns it around", format!("\u{202e}{id}"), BAD),
        ("nobody's: a path", "../../etc/passwd".to_owned(), BAD),
        ("nobody's: an absolute path", "/etc/passwd".to_owned(), BAD),
        ("nobody's: SQL", "' OR 1=1 --".to_owned(), BAD),
        (
            "nobody's: zeros",
            "00000000-0000-0000-0000-000000000000".to_owned(),
            BAD,
        ),
        ("nobody's: a name", HEALTHY[0].to_owned(), BAD),
        ("nobody's: 50 KB", "a".repeat(50_000), BAD),
    ];
    for (at, (what, spelled, accepted)) in cases.into_iter().enumerate() {
        let mut request = enrollment(token, "thief");
        request.agent_id = spelled;
        let got = enroll(ground.dialer.from(NETWORK, 1 + at as u8), &request).await;
        category.one(format!("id: {what}"), got, &[accepted]);
    }
}

fn wide(character: char) -> char {
    match character {
        '0'..='9' => char::from_u32(u32::from(character) + 0xff10 - 0x30).unwrap_or(character),
        other => other,
    }
}

/// The id of a machine that an operator has announced and that has not come yet.
async fn expected(ground: &Ground, category: &mut Category, token: &str) {
    let id = "2b9c51c2-9f0e-4b57-a3a1-5e1f0c7b8d21";
    let announce = [
        "agent",
        "preregister",
        "--id",
        id,
        "--name",
        "announced",
        "--label",
        "tier=gold",
    ];
    ground.controller.ctl().ok(&announce);
    let from = ground.dialer.from(NETWORK, 90);
    for labels in [&[][..], &[("tier", "gold")]] {
        // A claim is no right to what an operator has announced.
        let mut request = enrollment(token, "thief");
        request.agent_id = id.to_owned();
        request.labels = labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        let got = enroll(from, &request).await;
        let name = format!("id: announced by an operator, with {} claims", labels.len());
        category.one(
            name,
            got,
            &[
                "ALREADY_EXISTS",
                "PERMISSION_DENIED",
                "FAILED_PRECONDITION",
                "UNAUTHENTICATED TOKEN_INVALID",
            ],
        );
    }
    let agents = ground.inventory();
    let kept = agents
        .iter()
        .any(|agent| agent["id"] == id && agent["name"] == "announced");
    category.one("the entry that was announced", kept.to_string(), &["true"]);
}

/// Ids of agents that were revoked or deleted.
async fn shown_out(ground: &Ground, category: &mut Category, token: &str) {
    let operator = ground.operator();
    for (what, deleted) in [("revoked", false), ("deleted", true)] {
        let identity = ground.stolen(&format!("attack-{what}-id"));
        let id = agent_id(&identity);
        let channel = dial::channel(&ground.controller, ground.controller.api_port, Some(&operator)).await;
        let mut client = AgentServiceClient::new(channel.expect("a connection"));
        let agent = id.clone();
        if deleted {
            client
                .delete_agent(DeleteAgentRequest { agent, revision: 0 })
                .await
                .expect("it is deleted");
        } else {
            let reason = "stolen".to_owned();
            client
                .revoke_agent(RevokeAgentRequest { agent, reason })
                .await
                .expect("it is revoked");
        }
        let from = ground.dialer.from(NETWORK, 100);
        let mut request = enrollment(token, "thief");
        request.agent_id.clone_from(&id);
        let got = enroll(from, &request).await;
        category.one(
            format!("id: of a {what} agent, with a token"),
            got,
            &["ALREADY_EXISTS", "PERMISSION_DENIED", "FAILED_PRECONDITION"],
        );
        // With the key that it had.
        request.csr = csr::create(identity.key()).expect("a request");
        let got = enroll(from, &request).await;
        category.one(
            format!("id: of a {what} agent, with its key"),
            got,
            &["ALREADY_EXISTS", "PERMISSION_DENIED", "FAILED_PRECONDITION"],
        );
        let credentials = Credentials::of(&identity);
        let refused: &[&str] = &[
            "UNAUTHENTICATED CERTIFICATE_REVOKED",
            "UNAUTHENTICATED CERTIFICATE_UNKNOWN",
        ];
        let got = from.call(from.agents_port, Some(&credentials), hello(&id)).await;
        category.one(format!("identity: of a {what} agent, for a link"), got, refused);
        let got = from.call(from.agents_port, Some(&credentials), renew()).await;
        category.one(format!("identity: of a {what} agent, for renewal"), got, refused);
    }
}

/// The whole identity of a healthy agent, on another machine, while that agent is there.
async fn copied(ground: &Ground, category: &mut Category, id: &str) {
    let from = ground.dialer.from(NETWORK, 110);
    let copy = ground.healthy();
    let own = ground.stolen("attack-liar");
    let own_credentials = Credentials::of(&own);
    let mut links = Vec::new();
    for _ in 0..5 {
        links.push(from.call(from.agents_port, Some(&copy), hello(id)).await);
    }
    category.case("copy: a link beside that of the agent", links, &[CLONE]);
    let got = from.call(from.agents_port, Some(&copy), renew()).await;
    category.one("copy: renewal", got, &[CLONE]);
    let fork = ForkRequest {
        agent_id: "5e1f0c7b-9f0e-4b57-a3a1-7d0c51c28d21".to_owned(),
        csr: csr::create(&KeyPair::generate().expect("a key")).expect("a request"),
        name: "thief".to_owned(),
        fingerprint: Some(elsewhere()),
        ..ForkRequest::default()
    };
    let fork = Call::grpc("/muster.v1.EnrollmentService/Fork", &fork.encode_to_vec());
    let got = from.call(from.agents_port, Some(&copy), fork).await;
    category.one(
        "copy: an identity of its own",
        got,
        &["FAILED_PRECONDITION CLONE_DETECTED", CLONE],
    );
    let got = from.call(from.agents_port, Some(&own_credentials), hello(id)).await;
    category.one(
        "identity: its own, with the id of another in Hello",
        got,
        &["PERMISSION_DENIED", "INVALID_ARGUMENT"],
    );
}

fn elsewhere() -> Fingerprint {
    Fingerprint {
        machine_id: "0123456789abcdef0123456789abcdef".to_owned(),
        boot_id: "7d0c51c2-9f0e-4b57-a3a1-5e1f0c7b8d21".to_owned(),
        process_nonce: "0123456789abcdef".to_owned(),
        host_name: "thief".to_owned(),
        ..Fingerprint::default()
    }
}

fn hello(id: &str) -> Call {
    let hello = Hello {
        agent_id: id.to_owned(),
        protocol_version: 1,
        fingerprint: Some(elsewhere()),
        ..Hello::default()
    };
    let frame = Some(connect_request::Frame::Hello(hello));
    let call = Call::grpc(
        "/muster.v1.LinkService/Connect",
        &ConnectRequest { frame }.encode_to_vec(),
    );
    Call {
        ends: false,
        patience: Duration::from_secs(15),
        ..call
    }
}

fn renew() -> Call {
    let request = RenewRequest {
        csr: csr::create(&KeyPair::generate().expect("a key")).expect("a request"),
        fingerprint: Some(elsewhere()),
        ..RenewRequest::default()
    };
    Call::grpc("/muster.v1.EnrollmentService/Renew", &request.encode_to_vec())
}
