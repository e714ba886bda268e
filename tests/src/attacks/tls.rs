//! Below HTTP: what is not TLS, is TLS of another time, or begins a handshake and never goes on.

use std::time::Duration;

use muster_certs::rustls::version::{TLS12, TLS13};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::timeout,
};

use super::{
    ENROLL, Form, Ground,
    dialer::{Call, Dialer, PATIENCE, ending},
    forge::Credentials,
    frames::{PREFACE, SETTINGS, frame},
    report::Category,
};

const NETWORK: u8 = 15;
/// The head of a record of a handshake with 512 bytes.
const RECORD_HEAD: &[u8] = &[22, 3, 1, 2, 0];
const ALERTS: [(u8, &str); 9] = [
    (10, "UnexpectedMessage"),
    (22, "RecordOverflow"),
    (40, "HandshakeFailure"),
    (47, "IllegalParameter"),
    (50, "DecodeError"),
    (70, "ProtocolVersion"),
    (80, "InternalError"),
    (109, "MissingExtension"),
    (120, "NoApplicationProtocol"),
];

pub async fn attack(form: Form, ground: &Ground, category: &mut Category) {
    let from = ground.dialer.from(NETWORK, 1);
    for port in from.ports() {
        not_tls(from, port, category).await;
        old_versions(from, port, category).await;
        protocols(ground, from, port, category).await;
        after_the_handshake(ground, from, port, category).await;
    }
    slow(form, ground, category).await;
}

async fn not_tls(from: Dialer, port: u16, category: &mut Category) {
    let hello_of = |length: usize| {
        let mut hello = vec![1];
        hello.extend(&(length as u32).to_be_bytes()[1..]);
        hello
    };
    // Fragments of 16 KiB that belong to one ClientHello.
    let huge: Vec<u8> = (0..64)
        .flat_map(|n| {
            let mut content = if n == 0 { hello_of(0xff_ffff) } else { Vec::new() };
            content.resize(16 << 10, 0);
            record(22, &content)
        })
        .collect();
    let noise: [(&str, Vec<u8>); 9] = [
        ("HTTP/1.1 in the clear", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        ("HTTP/2 in the clear", [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()),
        ("SSH", b"SSH-2.0-OpenSSH_9.6\r\n".to_vec()),
        ("bytes without a meaning", vec![0xa5; 5000]),
        (
            "a record longer than records are",
            [22, 3, 1, 0xff, 0xff].into_iter().chain(vec![1; 70_000]).collect(),
        ),
        ("application data before a handshake", record(23, &[0; 100])),
        ("an alert", record(21, &[2, 40])),
        ("empty records of a handshake", record(22, &[]).repeat(2000)),
        ("a ClientHello of 16 MiB", huge),
    ];
    for (what, bytes) in noise {
        let got = raw(from, port, &bytes).await;
        category.one(format!("{what}, to {port}"), got, &["alert", "closed"]);
    }
}

/// By hand, since no library of today offers them: a ClientHello without the extension that names TLS 1.3.
async fn old_versions(from: Dialer, port: u16, category: &mut Category) {
    for (name, minor) in [("SSL 3.0", 0), ("TLS 1.0", 1), ("TLS 1.1", 2), ("TLS 1.2", 3)] {
        let mut hello = vec![3, minor];
        hello.extend([7; 32]);
        // No session; the suites of that time; no compression.
        hello.extend([0, 0, 8, 0xc0, 0x2b, 0xc0, 0x2f, 0xc0, 0x13, 0, 0x2f, 1, 0]);
        // Groups, formats of points, signatures.
        let extensions: &[u8] = &[
            0, 10, 0, 4, 0, 2, 0, 23, 0, 11, 0, 2, 1, 0, 0, 13, 0, 6, 0, 4, 4, 3, 8, 4,
        ];
        hello.extend((extensions.len() as u16).to_be_bytes());
        hello.extend(extensions);
        let mut message = vec![1, 0];
        message.extend((hello.len() as u16).to_be_bytes());
        message.extend(hello);
        let got = raw(from, port, &record(22, &message)).await;
        category.one(
            format!("{name}, to {port}"),
            got,
            &["alert ProtocolVersion", "alert HandshakeFailure"],
        );
    }
    let got = from
        .tls_with(port, None, &[&TLS12], &[b"h2"])
        .await
        .map(|_| "connected".to_owned());
    category.one(
        format!("a client of TLS 1.2, to {port}"),
        got.unwrap_or_else(|end| end),
        &["TLS alert ProtocolVersion", "TLS alert HandshakeFailure"],
    );
}

async fn protocols(ground: &Ground, from: Dialer, port: u16, category: &mut Category) {
    for wrong in ["h3", "http/1.0", "acme-tls/1", "H2", "grpc"] {
        let got = from
            .tls_with(port, None, &[&TLS13], &[wrong.as_bytes()])
            .await
            .map(|_| "connected".to_owned());
        let got = got.unwrap_or_else(|end| end);
        category.one(
            format!("ALPN {wrong}, to {port}"),
            got,
            &["TLS alert NoApplicationProtocol"],
        );
    }
    let many: Vec<Vec<u8>> = (0..2000).map(|n| format!("protocol-{n}").into_bytes()).collect();
    let many: Vec<&[u8]> = many.iter().map(Vec::as_slice).collect();
    let got = from
        .tls_with(port, None, &[&TLS13], &many)
        .await
        .map(|_| "connected".to_owned());
    category.one(
        format!("ALPN with 2,000 names, to {port}"),
        got.unwrap_or_else(|end| end),
        &["TLS alert NoApplicationProtocol"],
    );
    // Without ALPN the agents' listener speaks HTTP/2 and the API HTTP/1.1: neither takes the other.
    let is_agents = port == ground.dialer.agents_port;
    for (what, request) in [
        (
            "HTTP/1.1",
            b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".to_vec(),
        ),
        ("HTTP/2", [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()),
    ] {
        let got = match from.tls_with(port, None, &[&TLS13], &[]).await {
            Ok(stream) => spoken(stream, &request).await,
            Err(end) => end,
        };
        let accepted: &[&str] = match (is_agents, what) {
            (true, "HTTP/1.1") => &["closed", "HTTP/2, then closed"],
            (true, _) => &["HTTP/2"],
            (false, "HTTP/1.1") => &["HTTP/1.1 200"],
            (false, _) => &["HTTP/1.1 4", "closed"],
        };
        category.one(format!("no ALPN, and {what}, to {port}"), got, accepted);
    }
}

async fn spoken(mut stream: muster_certs::tokio_rustls::client::TlsStream<TcpStream>, request: &[u8]) -> String {
    if let Err(error) = stream.write_all(request).await {
        return ending(&error);
    }
    let mut said = vec![0; 4096];
    let mut all = Vec::new();
    let mut is_open = true;
    while let Ok(read) = timeout(Duration::from_secs(2), stream.read(&mut said)).await {
        match read {
            Ok(bytes @ 1..) => all.extend(&said[..bytes]),
            Ok(0) | Err(_) => {
                is_open = false;
                break;
            }
        }
    }
    match all.as_slice() {
        [] => "closed".to_owned(),
        [b'H', b'T', b'T', b'P', ..] => String::from_utf8_lossy(&all[..all.len().min(12)]).into_owned(),
        // The first frame is SETTINGS.
        [_, _, _, 4, ..] if is_open => "HTTP/2".to_owned(),
        [_, _, _, 4, ..] => "HTTP/2, then closed".to_owned(),
        _ => "bytes".to_owned(),
    }
}

async fn after_the_handshake(ground: &Ground, from: Dialer, port: u16, category: &mut Category) {
    // TLS 1.3 has no renegotiation: a second ClientHello is a record in the clear among protected ones.
    for (what, bytes) in [
        ("a second ClientHello", record(22, &[1, 0, 0, 4, 3, 3, 0, 0])),
        ("bytes that nobody protected", record(23, &[0; 64])),
        ("a change of cipher", record(20, &[1]).repeat(40)),
    ] {
        let got = match from.tls(port, None).await {
            Ok(mut stream) => {
                // Past the handshake on both sides.
                let opened = stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await;
                let mut said = [0; 1024];
                let read = stream.read(&mut said).await;
                match (opened, read) {
                    (Ok(()), Ok(1..)) => sent(stream.get_mut().0, &bytes).await,
                    _ => "not opened".to_owned(),
                }
            }
            Err(end) => end,
        };
        category.one(
            format!("{what} after the handshake, to {port}"),
            got,
            &["bytes, then closed", "closed", "alert"],
        );
    }
    let mut halves = Vec::new();
    for _ in 0..20 {
        halves.push(match from.tls(port, Some(&Credentials::of(&ground.operator()))).await {
            // Our half is closed, with the goodbye of TLS and then of TCP; what is said to it is read.
            Ok(mut stream) => match stream.shutdown().await {
                Ok(()) => sent(stream.get_mut().0, &[]).await,
                Err(error) => ending(&error),
            },
            Err(end) => end,
        });
    }
    category.case(
        format!("half-closed after the handshake, to {port}"),
        halves,
        &["bytes, then closed", "closed"],
    );
}

/// Handshakes that are begun and left, while others go on.
async fn slow(form: Form, ground: &Ground, category: &mut Category) {
    let mut dripped = JoinSet::new();
    dripped.spawn(drip(ground.dialer.from(NETWORK, 42)));
    let sources = form.pick(2, 5);
    let each = form.pick(150, 800);
    for (what, bytes) in [("nothing is sent", &[][..]), ("the head of a record", RECORD_HEAD)] {
        let mut left = Vec::new();
        let mut refused = 0;
        for source in 0..sources {
            let from = ground.dialer.from(NETWORK, 50 + source as u8);
            for _ in 0..each {
                match begun(from, bytes).await {
                    Some(stream) => left.push(stream),
                    None => refused += 1,
                }
            }
        }
        let got = format!("{} begun, {refused} refused", left.len());
        let all = format!("{} begun, 0 refused", sources * each);
        category.one(format!("slow handshakes: {what}"), got, &[&all]);
        // Somebody who comes now is let in, and does not wait for the time-outs of those before.
        let honest = ground.dialer.from(NETWORK, 40);
        let got = honest.call(honest.agents_port, None, Call::grpc(ENROLL, &[])).await;
        category.one(
            format!("an honest machine beside them: {what}"),
            got,
            &["UNAUTHENTICATED TOKEN_INVALID"],
        );
        let mut ended = JoinSet::new();
        for stream in left {
            ended.spawn(closed(stream));
        }
        category.case(
            format!("slow handshakes, in the end: {what}"),
            ended.join_all().await,
            &["closed", "alert"],
        );
    }
    // One address cannot take all places.
    let from = ground.dialer.from(NETWORK, 60);
    let mut greedy = Vec::new();
    for _ in 0..1024 + form.pick(50, 500) {
        if let Ok(stream) = from.tcp(from.agents_port).await {
            greedy.push(stream);
        }
    }
    let count = greedy.len();
    let honest = ground.dialer.from(NETWORK, 41);
    let got = honest.call(honest.agents_port, None, Call::grpc(ENROLL, &[])).await;
    category.one(
        format!("an honest machine beside {count} connections of one address"),
        got,
        &["UNAUTHENTICATED TOKEN_INVALID"],
    );
    let got = from.call(from.agents_port, None, Call::grpc(ENROLL, &[])).await;
    category.one("one more of that address", got, &["closed"]);
    drop(greedy);
    category.case("a handshake byte by byte", dripped.join_all().await, &["closed"]);
}

async fn begun(from: Dialer, bytes: &[u8]) -> Option<TcpStream> {
    let mut stream = from.tcp(from.agents_port).await.ok()?;
    stream.write_all(bytes).await.ok()?;
    Some(stream)
}

async fn closed(mut stream: TcpStream) -> String {
    sent(&mut stream, &[]).await
}

/// A handshake of which a byte comes now and then: the time for it is counted from its beginning.
async fn drip(from: Dialer) -> String {
    let Ok(mut stream) = from.tcp(from.agents_port).await else {
        return "not connected".to_owned();
    };
    let hello = record(22, &[&[1, 0, 0x3f, 0], [0; 16_000].as_slice()].concat());
    let mut beat = tokio::time::interval(Duration::from_millis(500));
    let mut said = [0; 64];
    for byte in hello.chunks(1).take(60) {
        beat.tick().await;
        if stream.write_all(byte).await.is_err() {
            return "closed".to_owned();
        }
        match stream.try_read(&mut said) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            // An alert, the end, or a reset.
            _ => return "closed".to_owned(),
        }
    }
    "still open".to_owned()
}

fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    let mut record = vec![kind, 3, 3];
    record.extend((content.len() as u16).to_be_bytes());
    record.extend(content);
    record
}

async fn raw(from: Dialer, port: u16, bytes: &[u8]) -> String {
    match from.tcp(port).await {
        Ok(mut stream) => sent(&mut stream, bytes).await,
        Err(error) => ending(&error),
    }
}

/// Sends it and reads to the end: an alert in the clear is named.
async fn sent(stream: &mut TcpStream, bytes: &[u8]) -> String {
    let mut said = Vec::new();
    let exchange = async {
        let (mut reader, mut writer) = stream.split();
        let write = async {
            // It is cut in the middle when the other side has had enough.
            let _ = writer.write_all(bytes).await;
        };
        let read = async {
            let _ = reader.read_to_end(&mut said).await;
        };
        tokio::join!(write, read);
    };
    let ended = timeout(2 * PATIENCE, exchange).await.is_ok();
    match (ended, said.as_slice()) {
        (false, _) => "still open".to_owned(),
        (true, []) => "closed".to_owned(),
        (true, [21, 3, _, 0, 2, _, alert, ..]) => {
            let name = ALERTS.iter().find(|(code, _)| code == alert);
            name.map_or_else(|| format!("alert {alert}"), |(_, name)| format!("alert {name}"))
        }
        (true, _) => "bytes, then closed".to_owned(),
    }
}
