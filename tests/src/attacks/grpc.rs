//! Calls of gRPC that lie about themselves: in their length, compression, path, headers, content, or by never ending.

use std::time::Duration;

use tokio::task::JoinSet;

use super::{ENROLL, Form, Ground, dialer::Call, forge::Credentials, report::Category};

const NETWORK: u8 = 17;
const VIOLATION: &str = "INVALID_ARGUMENT PROTOCOL_VIOLATION";
const TOO_LARGE: &str = "OUT_OF_RANGE PROTOCOL_VIOLATION";
const COMPRESSED: &str = "UNIMPLEMENTED PROTOCOL_VIOLATION";
const NO_TOKEN: &str = "UNAUTHENTICATED TOKEN_INVALID";
const NO_METHOD: &str = "UNIMPLEMENTED METHOD_NOT_ALLOWED";
const LINK: &str = "/muster.v1.LinkService/Connect";

pub async fn attack(form: Form, ground: &Ground, category: &mut Category) {
    // They take half a minute to be shown out, beside everything else.
    let mut endless = endless(form, ground);
    for (at, (what, call, accepted)) in messages().into_iter().chain(metadata()).enumerate() {
        let from = ground.dialer.from(NETWORK, 1 + (at % 200) as u8);
        let got = from.call(from.agents_port, None, call).await;
        category.one(what, got, accepted);
    }
    paths(form, ground, category).await;
    let mut ended = Vec::new();
    while let Some(answer) = endless.join_next().await {
        ended.push(answer.unwrap_or_else(|error| error.to_string()));
    }
    category.case(
        "streams that never end",
        ended,
        &[
            "closed",
            "DEADLINE_EXCEEDED",
            "INVALID_ARGUMENT",
            "CANCELLED",
            "UNAVAILABLE",
        ],
    );
}

type Attack = (&'static str, Call, &'static [&'static str]);

fn framed(flag: u8, length: u32, message: &[u8]) -> Call {
    Call::framed(ENROLL, [&[flag], length.to_be_bytes().as_slice(), message].concat())
}

fn messages() -> Vec<Attack> {
    let whole = |flag: u8, message: &[u8]| framed(flag, message.len() as u32, message);
    let nested = |depth: usize| (0..depth).fold(vec![0x0a, 0], |inner, _| length_delimited(6, &inner));
    let fewer = |call: Call, ends: bool| Call {
        ends,
        patience: Duration::from_secs(5),
        ..call
    };
    vec![
        ("4 GiB are announced", framed(0, u32::MAX, &[7; 64]), &[TOO_LARGE]),
        ("2 GiB are announced", framed(0, 1 << 31, &[7; 64]), &[TOO_LARGE]),
        (
            "a byte more than is taken",
            framed(0, (4 << 20) + 1, &[7; 64]),
            &[TOO_LARGE],
        ),
        ("8 MiB, in full", whole(0, &vec![0; 8 << 20]), &[TOO_LARGE, "closed"]),
        (
            "a gzip bomb of 100 MiB",
            whole(1, &gzip_bomb(100 << 20)).header("grpc-encoding", "gzip"),
            &[COMPRESSED],
        ),
        (
            "a zstd bomb of 16 GiB",
            whole(1, &zstd_bomb(16 << 30)).header("grpc-encoding", "zstd"),
            &[COMPRESSED],
        ),
        (
            "an encoding that nobody knows",
            whole(1, &[0; 64]).header("grpc-encoding", "bzip2"),
            &[COMPRESSED],
        ),
        (
            "compressed, it says, by nothing",
            whole(1, &[0; 64]),
            &[VIOLATION, COMPRESSED],
        ),
        ("a flag that nobody knows", whole(7, &[0; 64]), &[VIOLATION]),
        (
            "20,000 groups in each other",
            whole(0, &[0x9b, 0x06].repeat(20_000)),
            &[VIOLATION],
        ),
        (
            "300 messages in each other",
            whole(0, &nested(300)),
            &[VIOLATION, NO_TOKEN],
        ),
        (
            "20,000 groups that end without a beginning",
            whole(0, &[0x9c, 0x06].repeat(20_000)),
            &[VIOLATION],
        ),
        ("noise", whole(0, &[0xff; 64]), &[VIOLATION]),
        ("a number without an end", whole(0, &[0x80; 64]), &[VIOLATION]),
        (
            "a field longer than its message",
            whole(0, &[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f, 0]),
            &[VIOLATION],
        ),
        (
            "a field of 2^63 bytes",
            whole(0, &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]),
            &[VIOLATION],
        ),
        ("text that is no UTF-8", whole(0, &[0x0a, 2, 0xc3, 0x28]), &[VIOLATION]),
        ("a field of another type", whole(0, &[0x08, 1]), &[VIOLATION]),
        ("the field 0", whole(0, &[0x02, 0]), &[VIOLATION]),
        (
            "a million empty labels",
            whole(0, &[0x2a, 0].repeat(1 << 20)),
            &[NO_TOKEN, TOO_LARGE],
        ),
        (
            "20,000 unknown fields",
            whole(0, &[0xf8, 0x07, 1].repeat(20_000)),
            &[NO_TOKEN],
        ),
        (
            "a message that breaks off",
            fewer(framed(0, 100, &[0x0a, 5]), true),
            &[VIOLATION, "closed", "no answer"],
        ),
        ("a head that breaks off", Call::framed(ENROLL, vec![0, 0]), &[VIOLATION]),
        ("nothing", Call::framed(ENROLL, Vec::new()), &[VIOLATION]),
        (
            "two messages in one call",
            Call::framed(ENROLL, vec![0; 10]),
            &[NO_TOKEN, VIOLATION],
        ),
        (
            "2,000 empty messages in one call",
            Call::framed(ENROLL, vec![0; 10_000]),
            &[NO_TOKEN, VIOLATION],
        ),
    ]
}

fn metadata() -> Vec<Attack> {
    let call = || Call::grpc(ENROLL, &[]);
    let text = |name: &str, value: &str| call().header(name, value);
    let many = (0..200).fold(call(), |call, n| call.header(&format!("x-{n}"), "x"));
    let thousands = (0..2000).fold(call(), |call, n| call.header(&format!("x-{n}"), "x"));
    let method = |method| Call { method, ..call() };
    // A browser sends these to another site without asking it first, with the certificate of whoever uses it.
    const REFUSED: &[&str] = &["HTTP 415", "HTTP 405"];
    vec![
        (
            "content-type: application/json",
            text("content-type", "application/json"),
            REFUSED,
        ),
        ("content-type: text/plain", text("content-type", "text/plain"), REFUSED),
        (
            "content-type: application/grpc-web",
            text("content-type", "application/grpc-web"),
            REFUSED,
        ),
        (
            "content-type: application/grpc+json",
            text("content-type", "application/grpc+json"),
            &[NO_TOKEN, "HTTP 415"],
        ),
        ("content-type: nothing", text("content-type", ""), REFUSED),
        ("content-type: 8 KB", text("content-type", &"x".repeat(8000)), REFUSED),
        ("the method GET", method("GET"), REFUSED),
        ("the method PUT", method("PUT"), REFUSED),
        ("the method CONNECT-ME", method("CONNECT-ME"), REFUSED),
        (
            "no te",
            Call {
                headers: vec![("content-type".into(), b"application/grpc".to_vec())],
                ..call()
            },
            &[NO_TOKEN],
        ),
        (
            "a deadline of nothing",
            text("grpc-timeout", "0n"),
            &[NO_TOKEN, "DEADLINE_EXCEEDED", "CANCELLED"],
        ),
        ("a deadline that is no number", text("grpc-timeout", "-1S"), &[NO_TOKEN]),
        (
            "a deadline of 100 digits",
            text("grpc-timeout", &format!("{}H", "9".repeat(100))),
            &[NO_TOKEN],
        ),
        (
            "a deadline of 11,000 years",
            text("grpc-timeout", "99999999H"),
            &[NO_TOKEN],
        ),
        ("binary that is no base64", text("x-attack-bin", "%%%%"), &[NO_TOKEN]),
        (
            "bytes that are no text",
            call().header("x-attack", [0xff, 0xfe, 0x80]),
            &[NO_TOKEN],
        ),
        ("a status from a client", text("grpc-status", "0"), &[NO_TOKEN]),
        (
            "details from a client",
            text("grpc-status-details-bin", "AAAA"),
            &[NO_TOKEN],
        ),
        (
            "an authority that is somebody else",
            text("host", "localhost:1"),
            &[NO_TOKEN, "RST_STREAM", "closed"],
        ),
        (
            "an address from a client",
            text("x-forwarded-for", "127.0.0.1"),
            &[NO_TOKEN],
        ),
        (
            "a certificate in a header",
            text("x-forwarded-client-cert", "URI=spiffe://example.muster/user/tester"),
            &[NO_TOKEN],
        ),
        (
            "a bearer token",
            text("authorization", "Bearer spiffe://example.muster/user/tester"),
            &[NO_TOKEN],
        ),
        ("200 headers", many, &[NO_TOKEN]),
        (
            "2,000 headers",
            thousands,
            &["HTTP 431", "RST_STREAM", "closed", "GOAWAY"],
        ),
        (
            "a header of 60 KB",
            text("x-long", &"x".repeat(60_000)),
            &["HTTP 431", "RST_STREAM", "closed", "GOAWAY"],
        ),
    ]
}

async fn paths(form: Form, ground: &Ground, category: &mut Category) {
    let operator = Credentials::of(&ground.operator());
    let from = ground.dialer.from(NETWORK, 201);
    let mut almost: Vec<String> = [
        "/muster.v1.AgentService/ListAgents/",
        "//muster.v1.AgentService/ListAgents",
        "/muster.v1.AgentService//ListAgents",
        "/muster.v1.agentservice/listagents",
        "/muster.v1.AgentService/ListAgents%00",
        "/%6duster.v1.AgentService/ListAgents",
        "/muster.v1.AgentService%2fListAgents",
        "/../muster.v1.AgentService/ListAgents",
        "/x/../muster.v1.AgentService/ListAgents",
        "/muster.v1.AgentService/ListAgents;x",
        "/muster.v1.AgentService/",
        "/muster.v1.AgentService",
        "/muster.v2.AgentService/ListAgents",
        "/ListAgents",
        "/",
        "/metrics/",
        "/healthz/../metrics",
        "/grpc.channelz.v1.Channelz/GetServers",
        "/grpc.reflection.v2.ServerReflection/ServerReflectionInfo",
    ]
    .map(str::to_owned)
    .into();
    almost.push(format!("/{}", "a/".repeat(3000)));
    for path in almost {
        let shown: String = path.chars().take(60).collect();
        let answers = [
            from.call(from.api_port, Some(&operator), Call::grpc(&path, &[])).await,
            from.call(from.agents_port, None, Call::grpc(&path, &[])).await,
        ];
        category.case(format!("the path {shown}"), answers, &[NO_METHOD]);
    }
    let mut answers = Vec::new();
    for n in 0..form.pick(60, 6000) {
        let (port, client) = match n % 2 {
            0 => (from.api_port, Some(&operator)),
            _ => (from.agents_port, None),
        };
        let call = Call::grpc(&format!("/muster.v1.AgentService/Method{n}"), &[]);
        answers.push(from.call(port, client, call).await);
    }
    category.case("methods that are not there", answers, &[NO_METHOD]);
    // A query is no part of the path: whoever may call the method may, and nobody else.
    let query = Call::grpc("/muster.v1.AgentService/ListAgents?admin=1", &[]);
    let answers = [from.call(from.api_port, Some(&operator), query.clone()).await];
    category.case("a query after the path, of an operator", answers, &["OK", NO_METHOD]);
    let answers = [from.call(from.api_port, None, query).await];
    category.case(
        "a query after the path, of nobody",
        answers,
        &["UNAUTHENTICATED CERTIFICATE_REQUIRED", NO_METHOD],
    );
}

/// Calls whose bodies begin and do not go on: of strangers, and of a machine whose link never says hello.
fn endless(form: Form, ground: &Ground) -> JoinSet<String> {
    let stolen = Credentials::of(&ground.stolen("attack-endless"));
    let mut calls = JoinSet::new();
    for n in 0..form.pick(40, 600) {
        let from = ground.dialer.from(NETWORK, 210 + (n % 4) as u8);
        let client = (n % 4 == 0).then(|| stolen.clone());
        let (path, body) = match n % 4 {
            0 => (LINK, Vec::new()),
            1 => (ENROLL, vec![0, 0, 0, 0x10, 0]),
            2 => (ENROLL, vec![0]),
            _ => (ENROLL, Vec::new()),
        };
        let call = Call {
            ends: false,
            patience: Duration::from_secs(60),
            ..Call::framed(path, body)
        };
        calls.spawn(async move { from.call(from.agents_port, client.as_ref(), call).await });
    }
    calls
}

fn length_delimited(field: u8, inner: &[u8]) -> Vec<u8> {
    let mut message = vec![field << 3 | 2];
    let mut rest = inner.len();
    while rest > 127 {
        message.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    message.push(rest as u8);
    message.extend(inner);
    message
}

/// Zeros in one block of deflate with the fixed code: a literal, then copies of 258 bytes from a distance of 1.
fn gzip_bomb(bytes: usize) -> Vec<u8> {
    let mut bits = Bits::default();
    bits.push(0b1, 1);
    bits.push(0b10, 2);
    // Codes go out from their highest bit: 0 is 00110000, 285 is 11000101, the distance 1 is 00000.
    bits.push(0b0000_1100, 8);
    for _ in 0..bytes / 258 {
        bits.push(0b1010_0011, 8);
        bits.push(0, 5);
    }
    bits.push(0, 7);
    let head = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
    [&head, bits.bytes.as_slice(), &[bits.last], &[0; 8]].concat()
}

#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    last: u8,
    used: u8,
}

impl Bits {
    fn push(&mut self, bits: u8, count: u8) {
        for at in 0..count {
            self.last |= (bits >> at & 1) << self.used;
            self.used += 1;
            if self.used == 8 {
                self.bytes.push(std::mem::take(&mut self.last));
                self.used = 0;
            }
        }
    }
}

/// Blocks of 128 KiB that are one byte each.
fn zstd_bomb(bytes: u64) -> Vec<u8> {
    const BLOCK: u32 = 128 << 10;
    // The magic number, a window of 128 KiB.
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 0x38];
    let blocks = bytes / u64::from(BLOCK);
    for block in 1..=blocks {
        let head = BLOCK << 3 | 1 << 1 | u32::from(block == blocks);
        frame.extend(&head.to_le_bytes()[..3]);
        frame.push(0);
    }
    frame
}
