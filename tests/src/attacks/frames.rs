//! HTTP/2 frame by frame, in whatever order and size: what no client library would send, and what the other side said to
//! it. Headers go out as HPACK literals; those that come in are not decoded.

use std::{collections::BTreeSet, time::Duration};

use muster_certs::tokio_rustls::client::TlsStream;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;
pub const END_HEADERS: u8 = 4;
pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
const ERRORS: [&str; 14] = [
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
];
/// A flood is over after this, however much of it has gone out.
const FLOOD: Duration = Duration::from_secs(20);

/// Bytes for one connection: first `once`, then `again` so many times.
#[derive(Clone, Debug)]
pub struct Flood {
    pub name: &'static str,
    pub once: Vec<u8>,
    pub again: Vec<u8>,
    pub times: usize,
    /// Whether the attacker takes what is said to it.
    pub reads: bool,
    /// After all is sent, how long it waits for the connection to end.
    pub patience: Duration,
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    frame_of(payload.len(), kind, flags, stream, payload)
}

/// With a length that need not be that of the payload.
pub fn frame_of(length: usize, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (length as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

pub fn setting(id: u16, value: u32) -> Vec<u8> {
    let mut setting = id.to_be_bytes().to_vec();
    setting.extend(value.to_be_bytes());
    setting
}

/// The headers of a call of gRPC, in literals without an index.
pub fn headers(path: &str, extra: &[(&str, &str)]) -> Vec<u8> {
    let fields = [
        (":method", "POST"),
        (":scheme", "https"),
        (":authority", "controller"),
        (":path", path),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    let mut block = Vec::new();
    for (name, value) in fields.iter().chain(extra) {
        block.push(0);
        string(&mut block, name);
        string(&mut block, value);
    }
    block
}

/// A literal that stays in the table of the other side.
pub fn remembered(name: &str, value: &str) -> Vec<u8> {
    let mut block = vec![0x40];
    string(&mut block, name);
    string(&mut block, value);
    block
}

fn string(block: &mut Vec<u8>, text: &str) {
    integer(block, 0x7f, text.len());
    block.extend(text.as_bytes());
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

/// Opens HTTP/2 on a connection and floods it. What became of the connection.
pub async fn flood(stream: TlsStream<TcpStream>, flood: &Flood, settings: &[u8]) -> String {
    let deadline = Instant::now() + FLOOD;
    let (mut reader, mut writer) = tokio::io::split(stream);
    let opening = [PREFACE, &frame(SETTINGS, 0, 0, settings), &flood.once].concat();
    let mut said = Said::default();
    let mut buffer = vec![0; 64 << 10];
    let mut broken = false;
    for chunk in std::iter::once(&opening).chain(std::iter::repeat_n(&flood.again, flood.times)) {
        let mut left = chunk.as_slice();
        while !left.is_empty() && !broken {
            tokio::select! {
                sent = timeout_at(deadline, writer.write(left)) => match sent {
                    Ok(Ok(bytes)) => left = &left[bytes..],
                    // It is not taken any more.
                    Ok(Err(_)) | Err(_) => broken = true,
                },
                read = reader.read(&mut buffer), if flood.reads => match read {
                    Ok(0) | Err(_) => broken = true,
                    Ok(bytes) => said.take(&buffer[..bytes]),
                },
            }
        }
    }
    let _ = timeout(Duration::from_secs(1), writer.flush()).await;
    let is_over = Instant::now() + flood.patience;
    let ended = loop {
        match timeout_at(is_over, reader.read(&mut buffer)).await {
            Ok(Ok(0) | Err(_)) => break true,
            Ok(Ok(bytes)) => said.take(&buffer[..bytes]),
            Err(_) => break false,
        }
        if said.goaway.is_some() {
            break true;
        }
    };
    said.verdict(ended)
}

/// What the other side said, frame by frame.
#[derive(Debug, Default)]
struct Said {
    rest: Vec<u8>,
    kinds: BTreeSet<u8>,
    reset: Option<u32>,
    goaway: Option<u32>,
}

impl Said {
    fn take(&mut self, bytes: &[u8]) {
        self.rest.extend(bytes);
        while let [a, b, c, kind, ..] = *self.rest {
            let length = 9 + u32::from_be_bytes([0, a, b, c]) as usize;
            if self.rest.len() < length {
                return;
            }
            let frame: Vec<u8> = self.rest.drain(..length).collect();
            self.kinds.insert(kind);
            let code = |at: usize| {
                frame
                    .get(at..at + 4)
                    .map(|code| u32::from_be_bytes([code[0], code[1], code[2], code[3]]))
            };
            match kind {
                RST_STREAM => self.reset = self.reset.or(code(9)),
                // The first one may only announce that the connection is to end.
                GOAWAY if code(13) != Some(0) => self.goaway = self.goaway.or(code(13)),
                _ => {}
            }
        }
    }

    fn verdict(&self, ended: bool) -> String {
        let name = |code: u32| ERRORS.get(code as usize).copied().unwrap_or("an unknown error");
        match (self.goaway, self.reset, ended) {
            (Some(code), _, _) => format!("GOAWAY {}", name(code)),
            (None, Some(code), _) => format!("RST_STREAM {}", name(code)),
            (None, None, true) => "closed".to_owned(),
            (None, None, false) if self.kinds.contains(&DATA) => "open: answered with DATA".to_owned(),
            (None, None, false) if self.kinds.contains(&HEADERS) => "open: answered with HEADERS".to_owned(),
            (None, None, false) => "open: took it".to_owned(),
        }
    }
}
