//! Below the calls: TLS that is begun and left, and HTTP/2 frames that no client library would send.

use std::{io, time::Duration};

use muster_certs::tokio_rustls::client::TlsStream;
use muster_proto::v1::EnrollRequest;
use muster_tests::dial;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::{Target, reason, run};

const PATIENCE: Duration = Duration::from_secs(20);
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;
const END_STREAM: u8 = 1;
const ENROLL: &str = "/muster.v1.EnrollmentService/Enroll";

/// What it is called, what is sent once, what is sent again and again, how often, and the answer.
type Flood<'a> = (&'a str, Vec<u8>, Vec<u8>, usize, u8);
/// What it is called, its bytes, and the headers of its call.
type Message<'a> = (&'a str, Vec<u8>, Vec<(&'a str, &'a str)>);

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short payload");
    let mut frame = length.to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The headers of a call, in literals without an index.
fn headers(extra: &[(&str, &str)]) -> Vec<u8> {
    let fields = [
        (":method", "POST"),
        (":scheme", "https"),
        (":authority", "x"),
        (":path", ENROLL),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    let mut block = Vec::new();
    for (name, value) in fields.iter().chain(extra) {
        block.push(0);
        for text in [name, value] {
            integer(&mut block, 0x7f, text.len());
            block.extend(text.as_bytes());
        }
    }
    block
}

/// An integer of HPACK with a prefix of this many ones.
fn integer(block: &mut Vec<u8>, prefix: usize, number: usize) {
    if number < prefix {
        block.push(number as u8);
        return;
    }
    block.push(prefix as u8);
    let mut rest = number - prefix;
    while rest > 127 {
        block.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    block.push(rest as u8);
}

async fn http2(target: &Target, port: u16) -> TlsStream<TcpStream> {
    let mut stream = dial::tls(&target.controller, port, None).await.expect("TLS");
    let opening = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    stream.write_all(&opening).await.expect("the connection is open");
    stream
}

/// Sends until all is sent or the controller has had enough; then what it said, up to a frame of one of these kinds or the end.
async fn flood(stream: TlsStream<TcpStream>, chunk: &[u8], times: usize, until: &[u8]) -> Vec<u8> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut said = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    for _ in 0..times {
        tokio::select! {
            sent = writer.write_all(chunk) => if sent.is_err() { break },
            read = reader.read(&mut buffer) => match read {
                Ok(0) | Err(_) => return said,
                Ok(bytes) => said.extend(&buffer[..bytes]),
            },
        }
    }
    while !kinds(&said).iter().any(|kind| until.contains(kind))
        && let Ok(Ok(bytes @ 1..)) = timeout(PATIENCE, reader.read(&mut buffer)).await
    {
        said.extend(&buffer[..bytes]);
    }
    said
}

/// The kinds of frames in what was said.
fn kinds(said: &[u8]) -> Vec<u8> {
    let mut kinds = Vec::new();
    let mut rest = said;
    while let [a, b, c, kind, ..] = *rest {
        kinds.push(kind);
        let length = 9 + u32::from_be_bytes([0, a, b, c]) as usize;
        rest = rest.get(length..).unwrap_or_default();
    }
    kinds
}

#[test]
fn handshakes_that_are_begun_and_left_do_not_keep_others_out() {
    // Shorter than the whole wait for the time-outs of those before: with the turns of handshakes all taken, an honest peer
    // would find nobody at home.
    let mut target = Target::start_with("limits: { handshakes: 4 }");
    let port = target.controller.agents_port;
    run(async {
        let mut left = Vec::new();
        for _ in 0..32 {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("a connection");
            // The head of a TLS record, and nothing after it.
            stream
                .write_all(&[22, 3, 1, 2, 0])
                .await
                .expect("the connection is open");
            left.push(stream);
        }
        let refusal = target.enroll(EnrollRequest::default()).await.expect_err("no token");
        assert!(reason(&refusal).is_some(), "{refusal}");
        // It did not have to wait for the time-out of those that came before it: they are all there.
        for stream in &left {
            let read = stream.try_read(&mut [0; 1]);
            let is_open = matches!(&read, Err(error) if error.kind() == io::ErrorKind::WouldBlock);
            assert!(is_open, "{read:?}");
        }
    });
    target.is_unharmed();
}

#[test]
fn what_is_not_tls_is_turned_away() {
    let mut target = Target::start();
    run(async {
        for port in [target.controller.agents_port, target.controller.api_port] {
            let noise: [&[u8]; 4] = [
                b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
                PREFACE,
                &[0xa5; 5000],
                &[22, 3, 1, 0xff, 0xff, 0, 0, 0, 0, 0],
            ];
            for bytes in noise {
                let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("a connection");
                stream.write_all(bytes).await.expect("the connection is open");
                let mut said = Vec::new();
                // Either it ends, or it is reset with bytes unread.
                let _ = stream.read_to_end(&mut said).await;
                // At most an alert of TLS.
                assert!(said.is_empty() || said[0] == 21, "{said:?}");
            }
        }
    });
    target.is_unharmed();
}

#[test]
fn floods_of_frames_end_their_own_connection_or_nothing() {
    let mut target = Target::start();
    let junk = [(0..900).flat_map(|_| *b"\0\x04junk\x04junk").collect::<Vec<u8>>()].concat();
    let begin = frame(HEADERS, 0, 1, &headers(&[]));
    let resets: Vec<u8> = (0..2000_u32)
        .flat_map(|n| {
            let stream = 2 * n + 1;
            let opened = frame(HEADERS, END_HEADERS, stream, &headers(&[]));
            [opened, frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat()
        })
        .collect();
    let floods: [Flood<'_>; 6] = [
        ("rapid resets", resets, Vec::new(), 1, GOAWAY),
        (
            "endless headers",
            begin.clone(),
            frame(CONTINUATION, 0, 1, &junk),
            500,
            GOAWAY,
        ),
        (
            "empty continuations",
            begin,
            frame(CONTINUATION, 0, 1, &[]).repeat(500),
            100,
            GOAWAY,
        ),
        (
            "windows beyond their size",
            Vec::new(),
            frame(WINDOW_UPDATE, 0, 0, &0x7fff_ffff_u32.to_be_bytes()),
            3,
            GOAWAY,
        ),
        (
            "pings",
            Vec::new(),
            frame(PING, 0, 0, b"01234567").repeat(500),
            100,
            PING,
        ),
        (
            "settings",
            Vec::new(),
            frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff]).repeat(500),
            100,
            SETTINGS,
        ),
    ];
    run(async {
        for (what, once, again, times, answer) in &floods {
            for port in [target.controller.agents_port, target.controller.api_port] {
                let mut stream = http2(&target, port).await;
                if stream.write_all(once).await.is_err() {
                    continue;
                }
                let said = flood(stream, again, *times, &[*answer]).await;
                assert!(kinds(&said).contains(answer), "{what}: {:?}", kinds(&said));
            }
        }
    });
    target.is_unharmed();
}

#[test]
fn messages_that_lie_about_themselves_are_refused_before_they_are_read() {
    let mut target = Target::start();
    let depth = 20_000;
    let messages: [Message<'_>; 4] = [
        (
            "4 GiB are announced",
            [&[0, 0xff, 0xff, 0xff, 0xff], [7; 64].as_slice()].concat(),
            vec![],
        ),
        (
            "a compressed one",
            [&[1, 0, 0, 0, 64], [7; 64].as_slice()].concat(),
            vec![("grpc-encoding", "gzip")],
        ),
        (
            "groups in groups",
            [&[0, 0, 0, 0x9c, 0x40], [0x9b, 0x06].repeat(depth).as_slice()].concat(),
            vec![],
        ),
        ("noise", [&[0, 0, 0, 0, 64], [0xff; 64].as_slice()].concat(), vec![]),
    ];
    run(async {
        for (what, message, extra) in &messages {
            let mut stream = http2(&target, target.controller.agents_port).await;
            let mut call = frame(HEADERS, END_HEADERS, 1, &headers(extra));
            for part in message.chunks(16 << 10) {
                call.extend(frame(DATA, 0, 1, part));
            }
            call.extend(frame(DATA, END_STREAM, 1, &[]));
            stream.write_all(&call).await.expect("the connection is open");
            // Answered with a status in HEADERS, and not with a certificate in DATA.
            let said = flood(stream, &[], 0, &[HEADERS]).await;
            let kinds = kinds(&said);
            assert!(kinds.contains(&HEADERS) && !kinds.contains(&DATA), "{what}: {kinds:?}");
        }
        let mut stream = http2(&target, target.controller.agents_port).await;
        let long = "x".repeat(8_000);
        let many: Vec<_> = [("x-long", long.as_str()); 2].into();
        let fits = frame(HEADERS, END_HEADERS | END_STREAM, 1, &headers(&many));
        stream.write_all(&fits).await.expect("the connection is open");
        let said = flood(stream, &[], 0, &[HEADERS, RST_STREAM, GOAWAY]).await;
        assert!(!kinds(&said).contains(&DATA), "headers of 16 KiB: {:?}", kinds(&said));
    });
    target.is_unharmed();
}
