//! Floods and lies in frames of HTTP/2, at both listeners. Each has to end its own connection, or to be taken at no cost.

use std::{sync::Arc, time::Duration};

use tokio::{sync::Semaphore, task::JoinSet};

use super::{
    ENROLL, Form, Ground,
    forge::Credentials,
    frames::{
        ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, Flood, GOAWAY, HEADERS, PING, PRIORITY, PUSH_PROMISE,
        RST_STREAM, SETTINGS, WINDOW_UPDATE, flood, frame, frame_of, headers, remembered, setting,
    },
    report::Category,
};

const NETWORK: u8 = 16;
const AT_A_TIME: usize = 12;
const LIST: &str = "/muster.v1.AgentService/ListAgents";
const CALM: &str = "GOAWAY ENHANCE_YOUR_CALM";
const PROTOCOL: &str = "GOAWAY PROTOCOL_ERROR";
/// The connection is over, whatever the last word was.
const OVER: &[&str] = &["GOAWAY", "closed"];
/// It cost nothing, or it is over.
const HARMLESS: &[&str] = &["open", "GOAWAY", "closed", "RST_STREAM"];

pub async fn attack(form: Form, ground: &Ground, category: &mut Category) {
    let mut cases = floods(form);
    cases.extend(lies());
    // Several at a time: most of it is waiting whether a connection ends.
    let turns = Arc::new(Semaphore::new(AT_A_TIME));
    let mut attackers = JoinSet::new();
    for (attack, accepted) in cases {
        for (at, port) in ground.dialer.ports().into_iter().enumerate() {
            let (from, attack, turns) = (ground.dialer.from(NETWORK, 1 + at as u8), attack.clone(), turns.clone());
            attackers.spawn(async move {
                let _turn = turns.acquire_owned().await;
                let got = match from.tls(port, None).await {
                    Ok(stream) => flood(stream, &attack, &[]).await,
                    Err(end) => end,
                };
                (format!("{}, to {port}", attack.name), got, accepted)
            });
        }
    }
    for (name, got, accepted) in attackers.join_all().await {
        category.one(name, got, accepted);
    }
    windows(ground, category).await;
    many_connections(form, ground, category).await;
}

fn base(name: &'static str) -> Flood {
    Flood {
        name,
        once: Vec::new(),
        again: Vec::new(),
        times: 0,
        reads: true,
        patience: Duration::from_millis(400),
    }
}

fn floods(form: Form) -> Vec<(Flood, &'static [&'static str])> {
    let open = |n: u32, flags: u8| frame(HEADERS, flags, 2 * n + 1, &headers(ENROLL, &[]));
    let each = |count: usize, make: &dyn Fn(u32) -> Vec<u8>| (0..count as u32).flat_map(make).collect::<Vec<u8>>();
    let much = form.pick(2_000, 50_000);
    let times = form.pick(100, 5_000);
    let junk = [0_u8, 4]
        .iter()
        .chain(b"junk")
        .chain(&[4])
        .chain(b"junk")
        .copied()
        .collect::<Vec<u8>>()
        .repeat(1400);
    let begin = frame(HEADERS, 0, 1, &headers(ENROLL, &[]));
    let patient = |name| Flood {
        patience: Duration::from_secs(3),
        ..base(name)
    };
    let again = |name, once: &[u8], again: Vec<u8>| Flood {
        once: once.to_vec(),
        again,
        times,
        ..patient(name)
    };
    let opened = open(0, END_HEADERS);
    vec![
        (
            Flood {
                once: each(much, &|n| {
                    [
                        open(n, END_HEADERS),
                        frame(RST_STREAM, 0, 2 * n + 1, &8_u32.to_be_bytes()),
                    ]
                    .concat()
                }),
                ..patient("rapid resets")
            },
            &[CALM, "closed"],
        ),
        (
            Flood {
                // The other side is made to reset them: an increment of 0 is an error of the stream.
                once: each(much, &|n| {
                    [open(n, END_HEADERS), frame(WINDOW_UPDATE, 0, 2 * n + 1, &[0; 4])].concat()
                }),
                ..patient("resets that the other side must make")
            },
            &["GOAWAY", "closed"],
        ),
        (
            Flood {
                once: each(much, &|n| {
                    [
                        open(n, END_HEADERS | END_STREAM),
                        frame(DATA, END_STREAM, 2 * n + 1, b"x"),
                    ]
                    .concat()
                }),
                ..patient("data after the end of a stream")
            },
            OVER,
        ),
        (
            Flood {
                once: each(form.pick(500, 20_000), &|n| open(n, END_HEADERS)),
                ..patient("more streams than are allowed")
            },
            &["RST_STREAM REFUSED_STREAM", "GOAWAY", "closed"],
        ),
        (
            again("CONTINUATION without an end", &begin, frame(CONTINUATION, 0, 1, &junk)),
            OVER,
        ),
        (
            again("empty CONTINUATION", &begin, frame(CONTINUATION, 0, 1, &[]).repeat(500)),
            OVER,
        ),
        (again("PING", &[], frame(PING, 0, 0, b"01234567").repeat(500)), HARMLESS),
        (
            Flood {
                reads: false,
                ..again(
                    "PING whose answers nobody reads",
                    &[],
                    frame(PING, 0, 0, b"01234567").repeat(500),
                )
            },
            HARMLESS,
        ),
        (
            again("SETTINGS", &[], frame(SETTINGS, 0, 0, &setting(4, 65_535)).repeat(500)),
            HARMLESS,
        ),
        (
            Flood {
                reads: false,
                ..again(
                    "SETTINGS whose answers nobody reads",
                    &[],
                    frame(SETTINGS, 0, 0, &setting(4, 65_535)).repeat(500),
                )
            },
            HARMLESS,
        ),
        (
            again(
                "SETTINGS with 2,000 entries",
                &[],
                frame(SETTINGS, 0, 0, &setting(0x99, 1).repeat(2000)),
            ),
            HARMLESS,
        ),
        (
            again(
                "SETTINGS that were never sent, acknowledged",
                &[],
                frame(SETTINGS, ACK, 0, &[]).repeat(500),
            ),
            HARMLESS,
        ),
        (
            again(
                "PRIORITY",
                &[],
                each(500, &|n| frame(PRIORITY, 0, 2 * n + 1, &[0, 0, 0, 0, 1])),
            ),
            HARMLESS,
        ),
        (
            again(
                "frames of kinds that nobody knows",
                &[],
                frame(0x77, 0xff, 0, &[7; 64]).repeat(200),
            ),
            HARMLESS,
        ),
        (
            again("empty DATA", &opened, frame(DATA, 0, 1, &[]).repeat(500)),
            HARMLESS,
        ),
        (
            again("DATA without an end", &opened, frame(DATA, 0, 1, &vec![0; 16 << 10])),
            HARMLESS,
        ),
        (
            again(
                "DATA of padding alone",
                &opened,
                frame(DATA, 8, 1, &[&[200], [0; 200].as_slice()].concat()).repeat(50),
            ),
            HARMLESS,
        ),
        (
            again(
                "windows opened byte by byte",
                &opened,
                frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes()).repeat(500),
            ),
            HARMLESS,
        ),
    ]
}

fn lies() -> Vec<(Flood, &'static [&'static str])> {
    let once = |name, once: Vec<u8>| Flood { once, ..base(name) };
    let call = |block: &[u8]| {
        let (first, rest) = block.split_at(block.len().min(16_000));
        if rest.is_empty() {
            return frame(HEADERS, END_HEADERS | END_STREAM, 1, block);
        }
        [
            frame(HEADERS, END_STREAM, 1, first),
            frame(CONTINUATION, END_HEADERS, 1, rest),
        ]
        .concat()
    };
    let with = |extra: &[(&str, &str)]| call(&headers(ENROLL, extra));
    let entry = "x".repeat(4000);
    // One entry of 4 KB in the table, then named by a byte each.
    let mut bomb = headers(ENROLL, &[]);
    bomb.extend(remembered("x-bomb", &entry));
    bomb.extend(vec![0x80 | 62; 11_000]);
    let long = "y".repeat(9_000);
    let integer = vec![0xff; 40];
    vec![
        (
            once("HPACK: a bomb of 44 MB", call(&bomb)),
            &["open: answered with HEADERS", "RST_STREAM", "GOAWAY", "closed"],
        ),
        (
            once("HPACK: an index that is not there", call(&[0x80 | 100])),
            &["GOAWAY COMPRESSION_ERROR", PROTOCOL, "closed"],
        ),
        (
            once("HPACK: the index 0", call(&[0x80])),
            &["GOAWAY COMPRESSION_ERROR", PROTOCOL, "closed"],
        ),
        (
            once("HPACK: a number without an end", call(&integer)),
            &["GOAWAY COMPRESSION_ERROR", PROTOCOL, "closed"],
        ),
        (
            once("HPACK: a table of 4 GiB", call(&[0x3f, 0xe1, 0xff, 0xff, 0xff, 0x0f])),
            &["GOAWAY COMPRESSION_ERROR", PROTOCOL, "closed"],
        ),
        (
            once(
                "HPACK: a string longer than its block",
                call(&[0, 0x7f, 0xff, 0xff, 3, b'x']),
            ),
            &["GOAWAY COMPRESSION_ERROR", PROTOCOL, "closed"],
        ),
        (
            once("HPACK: bad Huffman", call(&[0, 0x84, 0xff, 0xff, 0xff, 0xff, 1, b'x'])),
            &["GOAWAY COMPRESSION_ERROR", PROTOCOL, "closed"],
        ),
        (
            once("headers of 18 KB", with(&[("x-long", &long), ("x-long", &long)])),
            &["open: answered with HEADERS", "RST_STREAM", "GOAWAY", "closed"],
        ),
        (
            once("a name in capitals", with(&[("X-Upper", "a")])),
            &["RST_STREAM PROTOCOL_ERROR", PROTOCOL, "closed"],
        ),
        (
            once("a line end in a value", with(&[("x-line", "a\r\nx: b")])),
            &["RST_STREAM PROTOCOL_ERROR", PROTOCOL, "closed"],
        ),
        (
            once("a header of HTTP/1.1", with(&[("transfer-encoding", "chunked")])),
            &["RST_STREAM PROTOCOL_ERROR", PROTOCOL, "closed"],
        ),
        (
            once("a second path", with(&[(":path", LIST)])),
            &["RST_STREAM PROTOCOL_ERROR", PROTOCOL, "closed"],
        ),
        (
            once("a pseudo-header that nobody knows", with(&[(":admin", "1")])),
            &["RST_STREAM PROTOCOL_ERROR", PROTOCOL, "closed"],
        ),
        (
            once(
                "a length that is not that of the body",
                with(&[("content-length", "5")]),
            ),
            &["RST_STREAM PROTOCOL_ERROR", PROTOCOL, "closed"],
        ),
        (
            once("no headers at all", call(&[])),
            &["RST_STREAM PROTOCOL_ERROR", PROTOCOL, "closed"],
        ),
        (
            once("an even stream", frame(HEADERS, END_HEADERS, 2, &headers(ENROLL, &[]))),
            &[PROTOCOL, "closed"],
        ),
        (
            once(
                "headers of no stream",
                frame(HEADERS, END_HEADERS, 0, &headers(ENROLL, &[])),
            ),
            &[PROTOCOL, "closed"],
        ),
        (
            once("data of an idle stream", frame(DATA, END_STREAM, 7, b"x")),
            &[PROTOCOL, "GOAWAY STREAM_CLOSED", "closed"],
        ),
        (
            once(
                "a stream that is its own parent",
                frame(
                    HEADERS,
                    END_HEADERS | 0x20,
                    1,
                    &[&[0, 0, 0, 1, 9], headers(ENROLL, &[]).as_slice()].concat(),
                ),
            ),
            &["RST_STREAM PROTOCOL_ERROR", PROTOCOL, "open", "closed"],
        ),
        (
            once("a frame of 16 MiB", frame_of(0xff_ffff, DATA, 0, 1, &[0; 1024])),
            &["GOAWAY FRAME_SIZE_ERROR", "closed"],
        ),
        (
            once("a PING of 3 bytes", frame(PING, 0, 0, b"abc")),
            &["GOAWAY FRAME_SIZE_ERROR", PROTOCOL, "closed"],
        ),
        (
            once("more padding than frame", frame(DATA, 8, 1, &[255, 0])),
            &[PROTOCOL, "closed"],
        ),
        (
            once(
                "a promise from a client",
                frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2]),
            ),
            &[PROTOCOL, "closed"],
        ),
        (
            once(
                "headers between headers",
                [
                    frame(HEADERS, 0, 1, &headers(ENROLL, &[])),
                    frame(PING, 0, 0, b"01234567"),
                ]
                .concat(),
            ),
            &[PROTOCOL, "closed"],
        ),
        (
            once("CONTINUATION of nothing", frame(CONTINUATION, END_HEADERS, 1, &[])),
            &[PROTOCOL, "closed"],
        ),
        (
            once(
                "a window beyond its size",
                frame(WINDOW_UPDATE, 0, 0, &0x7fff_ffff_u32.to_be_bytes()).repeat(3),
            ),
            &["GOAWAY FLOW_CONTROL_ERROR", PROTOCOL, "closed"],
        ),
        (
            once("a window of 2^31", frame(SETTINGS, 0, 0, &setting(4, 0x8000_0000))),
            &["GOAWAY FLOW_CONTROL_ERROR", PROTOCOL, "closed"],
        ),
        (
            once("frames of one byte at most", frame(SETTINGS, 0, 0, &setting(5, 1))),
            &[PROTOCOL, "closed"],
        ),
        (
            once(
                "an acknowledgement with settings",
                frame(SETTINGS, ACK, 0, &setting(4, 1)),
            ),
            &["GOAWAY FRAME_SIZE_ERROR", PROTOCOL, "closed"],
        ),
        (once("its own end first", frame(GOAWAY, 0, 0, &[0; 8])), HARMLESS),
    ]
}

/// Answers that nobody takes are not made: an operator's connection, since only there are they large.
async fn windows(ground: &Ground, category: &mut Category) {
    let operator = Credentials::of(&ground.operator());
    let closed = setting(4, 0);
    let one = setting(4, 1);
    let list = |n: u32| {
        let call = frame(HEADERS, END_HEADERS, 2 * n + 1, &headers(LIST, &[]));
        [call, frame(DATA, END_STREAM, 2 * n + 1, &[0; 5])].concat()
    };
    let calls: Vec<u8> = (0..100).flat_map(list).collect();
    for (name, settings) in [
        ("large answers into closed windows", closed),
        ("large answers byte by byte", one),
    ] {
        let attack = Flood {
            once: calls.clone(),
            patience: Duration::from_secs(2),
            ..base(name)
        };
        let from = ground.dialer.from(NETWORK, 3);
        let got = match from.tls(from.api_port, Some(&operator)).await {
            Ok(stream) => flood(stream, &attack, &settings).await,
            Err(end) => end,
        };
        category.one(name, got, HARMLESS);
    }
}

/// The same from many connections at once.
async fn many_connections(form: Form, ground: &Ground, category: &mut Category) {
    let resets: Vec<u8> = (0..500_u32)
        .flat_map(|n| {
            let opened = frame(HEADERS, END_HEADERS, 2 * n + 1, &headers(ENROLL, &[]));
            [opened, frame(RST_STREAM, 0, 2 * n + 1, &8_u32.to_be_bytes())].concat()
        })
        .collect();
    let attack = Flood {
        once: resets,
        ..base("rapid resets on many connections")
    };
    let from = ground.dialer.from(NETWORK, 4);
    let mut attackers = JoinSet::new();
    for _ in 0..form.pick(40, 800) {
        let attack = attack.clone();
        attackers.spawn(async move {
            match from.tls(from.agents_port, None).await {
                Ok(stream) => flood(stream, &attack, &[]).await,
                Err(end) => end,
            }
        });
    }
    category.case(
        attack.name,
        attackers.join_all().await,
        &[CALM, "closed", "RST_STREAM", "open"],
    );
}
