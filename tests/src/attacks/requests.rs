//! Certificate requests that ask for more than a key, or are none. From machines with a good token: nobody else gets as far.

use std::time::Duration;

use muster_certs::{certificate::Certificate, csr, identity::Identity, key::KeyPair, tls::peer_certificate};
use muster_proto::v1::{EnrollRequest, EnrollResponse, enrollment_service_client::EnrollmentServiceClient};

use super::{
    Form, Ground, enroll, enrollment,
    forge::{SEQUENCE, SIGNS, extension, request, sequence, tlv},
    report::Category,
};
use crate::dial;

const REFUSED: &str = "INVALID_ARGUMENT CSR_INVALID";
const NETWORK: u8 = 11;

pub async fn attack(form: Form, ground: &Ground, category: &mut Category) {
    let token = ground.controller.token(&["--uses", "100"]).secret;
    wishes(ground, category, &token).await;
    for (at, (what, csr)) in spoiled(form).into_iter().enumerate() {
        let mut request = enrollment(&token, "spoiled");
        request.csr = csr;
        let got = enroll(ground.dialer.from(NETWORK, 1 + (at % 250) as u8), &request).await;
        let accepted: &[&str] = if request.csr.len() > 1 << 20 {
            &["OUT_OF_RANGE PROTOCOL_VIOLATION", "closed"]
        } else {
            &[REFUSED]
        };
        category.one(what, got, accepted);
    }
    let spoiled = ground
        .inventory()
        .iter()
        .filter(|agent| agent["name"] == "spoiled")
        .count();
    category.one("agents by spoiled requests", format!("{spoiled} agents"), &["0 agents"]);
    reused(ground, category, &token).await;
}

/// What a request asks for is not in the certificate.
async fn wishes(ground: &Ground, category: &mut Category, token: &str) {
    let uri = |uri: &str| extension(17, true, &sequence(&[&tlv(0x86, uri.as_bytes())]));
    let purpose = |last: u8| extension(37, false, &sequence(&[&tlv(6, &[0x2b, 6, 1, 5, 5, 7, 3, last])]));
    let constraints = extension(
        30,
        true,
        &sequence(&[&tlv(0xa0, &sequence(&[&tlv(0x86, b"example.org")]))]),
    );
    let wishes = [
        ("the name of the operator", uri("spiffe://example.muster/user/tester")),
        (
            "the name of a controller",
            uri("spiffe://example.muster/controller/controller1"),
        ),
        (
            "another trust domain",
            uri("spiffe://example.org/agent/7d0c51c2-9f0e-4b57-a3a1-5e1f0c7b8d21"),
        ),
        (
            "a host name",
            extension(17, false, &sequence(&[&tlv(0x82, b"controller")])),
        ),
        (
            "to be a CA",
            extension(19, true, &sequence(&[b"\x01\x01\xff", b"\x02\x01\x05"])),
        ),
        ("to sign certificates", extension(15, true, b"\x03\x02\x01\x06")),
        ("to be a server", purpose(1)),
        ("to sign code", purpose(3)),
        (
            "every purpose",
            extension(37, false, &sequence(&[b"\x06\x04\x55\x1d\x25\x00"])),
        ),
        ("constraints on names", constraints),
        ("an extension of which nobody knows", extension(113, true, b"\x05\x00")),
        ("nothing but what it gets", extension(15, true, SIGNS)),
    ];
    let all: Vec<Vec<u8>> = wishes.iter().map(|(_, wish)| wish.clone()).collect();
    let single = wishes.iter().map(|(what, wish)| (*what, vec![wish.clone()]));
    for (what, extensions) in single.chain([("all of it", all)]) {
        let key = KeyPair::generate().expect("a key");
        let mut asked = enrollment(token, "greedy");
        asked.csr = request(&key, &key, &extensions);
        let got = match issued(ground, asked).await {
            Ok(answer) => judge(&key, &answer),
            Err(refusal) => refusal,
        };
        category.one(format!("wish: {what}"), got, &["a plain certificate", REFUSED]);
    }
}

async fn issued(ground: &Ground, request: EnrollRequest) -> Result<EnrollResponse, String> {
    let channel = dial::channel(&ground.controller, ground.controller.agents_port, None).await;
    let channel = channel.map_err(|error| error.to_string())?;
    let answer = EnrollmentServiceClient::new(channel).enroll(request).await;
    answer
        .map(tonic::Response::into_inner)
        .map_err(|status| super::dialer::text(&status))
}

/// Whether a certificate is exactly what policy gives an agent.
fn judge(key: &KeyPair, answer: &EnrollResponse) -> String {
    let chain: Vec<_> = answer
        .certificates
        .iter()
        .cloned()
        .map(muster_certs::CertificateDer::from)
        .collect();
    let (Some(leaf), Ok(Some(peer))) = (chain.first(), peer_certificate(Some(&chain))) else {
        return "a certificate of no peer".to_owned();
    };
    let Ok(read) = Certificate::parse(leaf) else {
        return "a certificate that cannot be read".to_owned();
    };
    let is_agent = matches!(&peer.identity, Identity::Agent { id, .. } if id.to_string() == answer.agent_id);
    let has_names = read.uris.len() == 1
        && !leaf
            .windows(10)
            .any(|window| window == b"controller" || window == b"example.or");
    let is_plain = is_agent
        && has_names
        && !read.is_ca
        && !read.signs_certificates
        && !read.server_auth
        && read.client_auth
        && read.public_key_der == key.public_key().der()
        && read
            .not_after
            .duration_since(read.not_before)
            .is_ok_and(|life| life < Duration::from_secs(400 * 24 * 3600));
    if is_plain {
        "a plain certificate"
    } else {
        "a certificate that it should not get"
    }
    .to_owned()
}

/// No requests, or not for keys that are certified, or without proof of the key.
fn spoiled(form: Form) -> Vec<(String, Vec<u8>)> {
    let key = KeyPair::generate().expect("a key");
    let good = csr::create(&key).expect("a request");
    let changed = |at: usize, bit: u8| {
        let mut changed = good.clone();
        changed[at] ^= 1 << bit;
        changed
    };
    let deep = |depth: usize| (0..depth).fold(Vec::new(), |inner, _| tlv(SEQUENCE, &inner));
    let indefinite = [SEQUENCE, 0x80].repeat(5000);
    let mut cases: Vec<(String, Vec<u8>)> = [
        ("an RSA key of 1024 bits", include_bytes!("csr/rsa.csr").to_vec()),
        ("a key of P-224", include_bytes!("csr/p224.csr").to_vec()),
        ("the key of another", include_bytes!("csr/stolen_key.csr").to_vec()),
        (
            "signed by another key",
            request(&key, &KeyPair::generate().expect("a key"), &[]),
        ),
        ("nothing", Vec::new()),
        ("one byte", vec![SEQUENCE]),
        ("zeros", vec![0; 300]),
        ("heads without content", vec![SEQUENCE; 300]),
        ("text", b"-----BEGIN CERTIFICATE REQUEST-----".repeat(20)),
        ("more after it", [good.as_slice(), b"\0"].concat()),
        ("itself twice", good.repeat(2)),
        (
            "a length of 4 GiB",
            [&[SEQUENCE, 0x84, 0xff, 0xff, 0xff, 0xff], good.as_slice()].concat(),
        ),
        (
            "a length of 2^63 bytes",
            [
                &[SEQUENCE, 0x88, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
                good.as_slice(),
            ]
            .concat(),
        ),
        (
            "a length that is longer than it need be",
            [&[SEQUENCE, 0x84, 0, 0, 0, good.len() as u8], &good[3..]].concat(),
        ),
        (
            "an indefinite length",
            [&[SEQUENCE, 0x80], &good[3..], &[0, 0]].concat(),
        ),
        ("2,000 sequences in each other", deep(2000)),
        ("5,000 sequences without an end", indefinite),
        (
            "a request in 500 sequences",
            (0..500).fold(good.clone(), |inner, _| tlv(SEQUENCE, &inner)),
        ),
        ("deep attributes", request(&key, &key, &[deep(1500)])),
        ("16 KiB and a byte", vec![SEQUENCE; 16 * 1024 + 1]),
        (
            "60 KB",
            [&[SEQUENCE, 0x82, 0xff, 0xff], vec![0; 60_000].as_slice()].concat(),
        ),
        (
            "a valid one of 20 KB",
            request(&key, &key, &[extension(113, false, &vec![0; 20_000])]),
        ),
        ("2 MiB", vec![SEQUENCE; 2 << 20]),
    ]
    .into_iter()
    .map(|(what, csr)| (format!("request: {what}"), csr))
    .collect();
    for cut in 1..form.pick(8, 64) {
        cases.push((
            "request: cut off".to_owned(),
            good[..good.len() * cut / 64.max(cut + 1)].to_vec(),
        ));
    }
    // Within what is signed: the version, the name, the key.
    for at in 0..form.pick(8, 64) {
        cases.push(("request: one bit changed".to_owned(), changed(6 + at, (at % 8) as u8)));
    }
    cases
}

/// A public key is no secret: whoever has seen one can have it certified only with its private half, and then only as what
/// the token says.
async fn reused(ground: &Ground, category: &mut Category, token: &str) {
    let healthy = crate::attacks::ground::HEALTHY[0];
    let path = ground.agents[0].setup().path("state/identity.pem");
    let identity = muster_certs::identity_file::IdentityFile::load(&path).expect("an identity");
    let mut asked = enrollment(token, "reuser");
    asked.csr = request(&KeyPair::generate().expect("a key"), identity.key(), &[]);
    let got = enroll(ground.dialer.from(NETWORK, 251), &asked).await;
    category.one("request: signed by an agent's key for another", got, &[REFUSED]);
    // With the key of a healthy agent, stolen: another agent, never that one.
    asked.csr = csr::create(identity.key()).expect("a request");
    let got = match issued(ground, asked).await {
        Ok(answer) if identity.identity().to_string().ends_with(&answer.agent_id) => "the other's identity".to_owned(),
        Ok(answer) => judge(identity.key(), &answer),
        Err(refusal) => refusal,
    };
    category.one(
        format!("request: with the key of {healthy}"),
        got,
        &["a plain certificate", "ALREADY_EXISTS", REFUSED],
    );
}
