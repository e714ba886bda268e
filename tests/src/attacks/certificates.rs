//! Certificates that almost open a door: of the wrong time, the wrong CA, the wrong use, or with a name that breaks the
//! rules of SPIFFE. Those of our own CA are made with its key, to try what it never signs.

use std::time::{Duration, SystemTime};

use muster_certs::CertificateDer;
use muster_proto::v1::RenewRequest;
use prost::Message as _;

use super::{
    Ground,
    dialer::Call,
    forge::{CERTIFIES, Credentials, Draft, SEQUENCE, Signer, tlv},
    report::Category,
    rotated,
    standings::{self, Standing},
};

const NO_HANDSHAKE: &str = "TLS alert";
const EXPIRED: &str = "UNAUTHENTICATED CERTIFICATE_EXPIRED";
const UNKNOWN: &str = "UNAUTHENTICATED CERTIFICATE_UNKNOWN";
const LINK: &str = "/muster.v1.LinkService/Connect";
const LIST: &str = "/muster.v1.AgentService/ListAgents";
const RENEW: &str = "/muster.v1.EnrollmentService/Renew";
const AGENT: &str = "spiffe://example.muster/agent/7d0c51c2-9f0e-4b57-a3a1-5e1f0c7b8d21";

pub async fn attack(ground: &Ground, category: &mut Category) {
    for (what, credentials, accepted) in drafts(ground) {
        at_both(ground, category, what, &credentials, accepted).await;
    }
    for (what, credentials) in without_a_ca(ground) {
        at_both(ground, category, what, &credentials, NO_HANDSHAKE).await;
    }
    for (uri, accepted) in uris() {
        let credentials = ground.ca().issue(&Draft::new(uri.as_str()));
        let shown: String = uri.chars().take(80).collect();
        at_both(ground, category, &format!("the name {shown:?}"), &credentials, accepted).await;
    }
    renewals(ground, category).await;
    rotated::attack(category).await;
}

/// At the listener for which its name would be meant; at the other one it is refused as well, there perhaps by its kind.
async fn at_both(ground: &Ground, category: &mut Category, what: &str, credentials: &Credentials, accepted: &str) {
    let from = ground.dialer.from(13, 1);
    for (port, path) in [(from.agents_port, LINK), (from.api_port, LIST)] {
        let got = from.call(port, Some(credentials), Call::grpc(path, &[])).await;
        let accepted: &[&str] = if accepted == NO_HANDSHAKE {
            &[NO_HANDSHAKE, "closed"]
        } else {
            &[accepted, "PERMISSION_DENIED METHOD_NOT_ALLOWED"]
        };
        category.one(format!("certificate: {what}, for {path}"), got, accepted);
    }
}

/// All signed by the real CA.
fn drafts(ground: &Ground) -> Vec<(&'static str, Credentials, &'static str)> {
    let ca = ground.ca();
    let now = SystemTime::now();
    let seconds = Duration::from_secs;
    let operator = ground.operator();
    let user = || Draft::new(operator.identity().to_string()).with_serial(operator.serial());
    let healthy = ground.stolen("attack-dated");
    let agent = || Draft::new(healthy.identity().to_string()).with_serial(healthy.serial());
    let changed = |change: &dyn Fn(&mut Draft)| {
        let mut draft = agent();
        change(&mut draft);
        ca.issue(&draft)
    };
    let over = (now - seconds(600), now - seconds(1));
    vec![
        (
            "an agent's, expired by a second",
            ca.issue(&agent().lasting(over.0, over.1)),
            EXPIRED,
        ),
        (
            "a user's, expired by a second",
            ca.issue(&user().lasting(over.0, over.1)),
            EXPIRED,
        ),
        (
            "not valid for another minute",
            ca.issue(&agent().lasting(now + seconds(60), now + seconds(600))),
            NO_HANDSHAKE,
        ),
        (
            "a user's, not valid yet",
            ca.issue(&user().lasting(now + seconds(60), now + seconds(600))),
            NO_HANDSHAKE,
        ),
        (
            "valid backwards",
            ca.issue(&agent().lasting(now + seconds(600), now - seconds(600))),
            NO_HANDSHAKE,
        ),
        (
            "with the serial of another agent",
            ca.issue(&Draft::new(AGENT).with_serial(healthy.serial())),
            UNKNOWN,
        ),
        (
            "with a serial that nobody gave",
            changed(&|draft| draft.serial = vec![0x42; 16]),
            UNKNOWN,
        ),
        ("with the serial 0", changed(&|draft| draft.serial = vec![0]), UNKNOWN),
        ("that may be a CA", changed(&|draft| draft.is_ca = true), NO_HANDSHAKE),
        (
            "that may sign certificates",
            changed(&|draft| draft.key_usage = Some(CERTIFIES)),
            NO_HANDSHAKE,
        ),
        (
            "for encipherment",
            changed(&|draft| draft.key_usage = Some(b"\x03\x02\x05\x20")),
            NO_HANDSHAKE,
        ),
        (
            "without key usage",
            changed(&|draft| draft.key_usage = None),
            NO_HANDSHAKE,
        ),
        (
            "of a server",
            changed(&|draft| (draft.client_auth, draft.server_auth) = (false, true)),
            NO_HANDSHAKE,
        ),
        (
            "without extended key usage",
            changed(&|draft| draft.client_auth = false),
            NO_HANDSHAKE,
        ),
        ("without a name", changed(&|draft| draft.uris.clear()), NO_HANDSHAKE),
        (
            "with two names",
            changed(&|draft| draft.uris.push(AGENT.to_owned())),
            NO_HANDSHAKE,
        ),
        (
            "with the same name twice",
            changed(&|draft| draft.uris.push(draft.uris[0].clone())),
            NO_HANDSHAKE,
        ),
        (
            "with an extension that must be understood",
            changed(&|draft| draft.critical_unknown = true),
            NO_HANDSHAKE,
        ),
        (
            "with a host name alone",
            changed(&|draft| (draft.dns, draft.uris) = (vec!["a.example".into()], vec![])),
            NO_HANDSHAKE,
        ),
        (
            "with 60 KB of names",
            changed(&|draft| draft.dns = vec!["a.example".into(); 6000]),
            NO_HANDSHAKE,
        ),
    ]
}

/// All for a name that is good.
fn without_a_ca(ground: &Ground) -> Vec<(&'static str, Credentials)> {
    let ca = ground.ca();
    let pki = ground.controller.data_dir().join("pki");
    let root = Signer::load(&pki.join("root.pem"), &pki.join("root-key.pem"));
    let stolen = ground.stolen("attack-leaf");
    let leaf = Credentials::of(&stolen);
    let draft = Draft::new(stolen.identity().to_string()).with_serial(stolen.serial());
    let user = Draft::new("spiffe://example.muster/user/tester");
    let below_leaf = |draft: &Draft| {
        let mut forged = Signer::new(leaf.chain[0].clone(), leaf.key.clone()).issue(draft);
        forged.chain.push(ca.certificate.clone());
        forged
    };
    let mut self_signed = Draft::new("spiffe://example.muster");
    self_signed.is_ca = true;
    let other = ca.imposter();
    let mut with_ours = other.issue(&draft);
    with_ours.chain = vec![with_ours.chain[0].clone(), ca.certificate.clone()];
    let with = |chain: Vec<CertificateDer<'static>>| Credentials { chain, ..leaf.clone() };
    let mut flipped = leaf.chain[0].to_vec();
    let last = flipped.len() - 1;
    flipped[last] ^= 1;
    vec![
        ("of a CA with the same subject and key identifier", other.issue(&draft)),
        ("of that CA, with our CA's certificate beside it", with_ours),
        ("of that CA, a user's", other.issue(&user)),
        ("the CA of that CA itself", other.issue(&self_signed)),
        ("of the root, without the issuing CA", root.issue(&draft)),
        ("of an agent that plays CA", below_leaf(&draft)),
        ("of an agent that plays CA for users", below_leaf(&user)),
        (
            "the CA's own certificate, without its key",
            with(vec![ca.certificate.clone()]),
        ),
        ("of another, without its key", with(ground.healthy().chain)),
        (
            "an operator's, without its key",
            with(Credentials::of(&ground.operator()).chain),
        ),
        ("with one bit of its signature changed", with(vec![flipped.into()])),
        ("that is no certificate", with(vec![vec![SEQUENCE; 500].into()])),
        ("that is empty", with(vec![vec![].into()])),
        (
            "of 5,000 sequences in each other",
            with(vec![
                (0..5000).fold(Vec::new(), |inner, _| tlv(SEQUENCE, &inner)).into(),
            ]),
        ),
        (
            "with 100 others after it, of a foreign CA",
            with(std::iter::repeat_n(other.certificate.clone(), 100).collect()),
        ),
        (
            "with a byte after it",
            with(vec![[leaf.chain[0].as_ref(), b"\0"].concat().into()]),
        ),
    ]
}

/// SPIFFE ID, sections 2.1 to 2.3, and what only we ask for.
fn uris() -> Vec<(String, &'static str)> {
    let id = "7d0c51c2-9f0e-4b57-a3a1-5e1f0c7b8d21";
    let mut uris: Vec<(String, &str)> = [
        format!("spiffe://example.org/agent/{id}"),
        format!("spiffe://EXAMPLE.muster/agent/{id}"),
        format!("SPIFFE://example.muster/agent/{id}"),
        format!("https://example.muster/agent/{id}"),
        format!("spiffe://example.muster:8443/agent/{id}"),
        format!("spiffe://user@example.muster/agent/{id}"),
        format!("spiffe:///agent/{id}"),
        format!("spiffe://example.muster//agent/{id}"),
        format!("spiffe://example.muster/agent/{id}/"),
        format!("spiffe://example.muster/agent/./{id}"),
        format!("spiffe://example.muster/agent/../agent/{id}"),
        format!("spiffe://example.muster/agent/{id}?admin=1"),
        format!("spiffe://example.muster/agent/{id}#admin"),
        format!("spiffe://example.muster/agent/%37{}", &id[1..]),
        format!("spiffe://example.muster/agent/{}", id.to_uppercase()),
        format!("spiffe://example.muster/agent/{}", id.replace('-', "")),
        format!("spiffe://example.muster/agent/{id}\0"),
        format!("spiffe://example.muster/agent/{id}/user/tester"),
        format!("spiffe://ex\u{e4}mple.muster/agent/{id}"),
        "spiffe://example.muster".to_owned(),
        "spiffe://example.muster/".to_owned(),
        "spiffe://example.muster/user/".to_owned(),
        "spiffe://example.muster/user/..".to_owned(),
        "spiffe://example.muster/admin/tester".to_owned(),
        "spiffe://example.muster/User/tester".to_owned(),
        format!("spiffe://example.muster/user/{}", "x".repeat(254)),
        format!("spiffe://example.muster/user/{}", "x".repeat(2048)),
        format!("spiffe://{}/user/tester", "x".repeat(256)),
        String::new(),
    ]
    .map(|uri| (uri, NO_HANDSHAKE))
    .into();
    // Names by the rules, of nobody.
    uris.push((AGENT.to_owned(), UNKNOWN));
    uris.push(("spiffe://example.muster/user/nobody".to_owned(), UNKNOWN));
    uris.push(("spiffe://example.muster/user/TESTER".to_owned(), UNKNOWN));
    // A controller is no client, whatever it calls.
    uris.push((
        "spiffe://example.muster/controller/controller1".to_owned(),
        "PERMISSION_DENIED METHOD_NOT_ALLOWED",
    ));
    uris
}

/// Who may not link any more asks for a certificate that is good again.
async fn renewals(ground: &Ground, category: &mut Category) {
    let from = ground.dialer.from(13, 2);
    let key = muster_certs::key::KeyPair::generate().expect("a key");
    let request = RenewRequest {
        csr: muster_certs::csr::create(&key).expect("a request"),
        ..RenewRequest::default()
    };
    for (standing, credentials) in standings::all(ground).await {
        let accepted: &[&str] = match standing {
            Standing::None => &["UNAUTHENTICATED CERTIFICATE_REQUIRED"],
            // Within the grace, the second: its holder is its agent.
            Standing::Valid | Standing::Expired => &["OK"],
            // The newer one has no link that would answer.
            Standing::Superseded => &["OK", "UNAUTHENTICATED CERTIFICATE_SUPERSEDED"],
            Standing::Revoked => &["UNAUTHENTICATED CERTIFICATE_REVOKED"],
            Standing::Unknown => &[UNKNOWN],
            Standing::Foreign => &[NO_HANDSHAKE, "closed"],
            Standing::User | Standing::UserExpired | Standing::UserUnknown | Standing::UserRevoked => {
                &["PERMISSION_DENIED METHOD_NOT_ALLOWED"]
            }
        };
        let got = from
            .call(
                from.agents_port,
                credentials.as_ref(),
                Call::grpc(RENEW, &request.encode_to_vec()),
            )
            .await;
        category.one(format!("renewal: {standing:?}"), got, accepted);
    }
}
