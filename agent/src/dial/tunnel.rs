//! HTTP CONNECT: asks a proxy for a way to an endpoint, on a connection that is open. What the proxy answers is read up to a
//! bound and nothing behind it, since what follows belongs to the controller. Opens no connection, keeps no time.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::config::{Endpoint, proxy::Credentials};

/// Of the answer's head.
const MAX_HEAD: usize = 16 * 1024;

/// Of the words behind the status, which people get to see.
const MAX_REASON: usize = 80;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the proxy broke off")]
    Io(#[from] io::Error),
    #[error("what the proxy answered is not HTTP")]
    NotHttp,
    #[error("the head of the proxy's answer is longer than {} KiB", MAX_HEAD / 1024)]
    TooLong,
    #[error("the proxy answered {status}{}{reason}", if reason.is_empty() { "" } else { " " })]
    Refused { status: u16, reason: String },
}

/// Returns when the proxy says that what is sent from now on goes to the endpoint.
pub(super) async fn open<S>(stream: &mut S, endpoint: &Endpoint, credentials: Option<&Credentials>) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let authorization = credentials.map_or_else(String::new, |it| format!("Proxy-Authorization: {}\r\n", it.expose()));
    let request = format!(
        "CONNECT {endpoint} HTTP/1.1\r\nHost: {endpoint}\r\nUser-Agent: muster-agent/{}\r\n{authorization}\r\n",
        env!("CARGO_PKG_VERSION")
    );
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let head = read_head(stream).await?;
    let (status, reason) = status_line(&head)?;
    if (200..300).contains(&status) {
        Ok(())
    } else {
        Err(Error::Refused { status, reason })
    }
}

/// Byte by byte: it is read once for each connection, and not a byte too much.
async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>, Error> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            // A server of another protocol may say a word and hang up.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && !head.is_empty() => {
                return Err(Error::NotHttp);
            }
            Err(error) => return Err(error.into()),
        }
        let so_far = head.len().min(5);
        if head[..so_far] != b"HTTP/"[..so_far] {
            return Err(Error::NotHttp);
        }
        if head.len() > MAX_HEAD {
            return Err(Error::TooLong);
        }
    }
    Ok(head)
}

/// Of "HTTP/1.1 407 Proxy Authentication Required": the number, and the words as they may stand in a message.
fn status_line(head: &[u8]) -> Result<(u16, String), Error> {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let mut parts = line.splitn(3, ' ');
    let (version, status) = (parts.next(), parts.next().unwrap_or_default());
    let is_number = status.len() == 3 && status.bytes().all(|byte| byte.is_ascii_digit());
    match (version, status.parse()) {
        (Some("HTTP/1.1" | "HTTP/1.0"), Ok(status)) if is_number => {
            let reason = parts.next().unwrap_or_default().trim();
            let reason = reason.chars().filter(|c| !c.is_control()).take(MAX_REASON).collect();
            Ok((status, reason))
        }
        _ => Err(Error::NotHttp),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::duplex;

    use super::*;

    /// What comes of this answer, what was asked, and what of the answer was left.
    async fn ask(answer: &[u8]) -> (Result<(), Error>, String, Vec<u8>) {
        let (mut near, mut far) = duplex(64 * 1024);
        far.write_all(answer).await.unwrap();
        let endpoint: Endpoint = "[2001:db8::1]:8443".parse().unwrap();
        let outcome = {
            let (mut reading, mut writing) = tokio::io::split(far);
            let opening = open(&mut near, &endpoint, None);
            let end = async {
                // Nothing more will come.
                let _ = writing.shutdown().await;
                let mut request = vec![0; 1024];
                let count = reading.read(&mut request).await.unwrap();
                String::from_utf8(request[..count].to_vec()).unwrap()
            };
            tokio::join!(opening, end)
        };
        let mut left = Vec::new();
        let _ = near.read_to_end(&mut left).await;
        (outcome.0, outcome.1, left)
    }

    #[tokio::test]
    async fn the_endpoint_is_asked_for_and_what_follows_the_answer_is_left() {
        let (outcome, request, left) = ask(b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n\x16\x03").await;
        outcome.unwrap();
        assert!(request.starts_with("CONNECT [2001:db8::1]:8443 HTTP/1.1\r\nHost: [2001:db8::1]:8443\r\n"));
        assert!(
            request.ends_with("\r\n\r\n") && !request.contains("Authorization"),
            "{request}"
        );
        assert_eq!(left, b"\x16\x03");
    }

    #[tokio::test]
    async fn a_refusal_tells_status_and_words_without_what_moves_a_terminal() {
        let (outcome, ..) = ask(b"HTTP/1.1 407 Proxy\x1b[2J Authentication Required\r\n\r\n").await;
        let error = outcome.unwrap_err();
        assert!(matches!(error, Error::Refused { status: 407, .. }), "{error:?}");
        assert_eq!(
            error.to_string(),
            "the proxy answered 407 Proxy[2J Authentication Required"
        );
        let (outcome, ..) = ask(b"HTTP/1.0 502\r\n\r\n").await;
        assert_eq!(outcome.unwrap_err().to_string(), "the proxy answered 502");
    }

    #[tokio::test]
    async fn what_is_no_proxy_is_told_from_one_that_broke_off() {
        for answer in [
            &b"220 mail.example ESMTP\r\n"[..],
            b"HTTP/1.1",
            b"HTTP/2 200 OK\r\n\r\n",
            b"HTTP/1.1 +20 OK\r\n\r\n",
        ] {
            let (outcome, ..) = ask(answer).await;
            assert!(matches!(outcome, Err(Error::NotHttp)), "{outcome:?}");
        }
        let (outcome, ..) = ask(b"").await;
        assert!(matches!(outcome, Err(Error::Io(_))), "{outcome:?}");
        let endless = [&b"HTTP/1.1 200 OK\r\nX: "[..], &[b'a'; MAX_HEAD]].concat();
        let (outcome, ..) = ask(&endless).await;
        assert!(matches!(outcome, Err(Error::TooLong)), "{outcome:?}");
    }

    proptest! {
        #[test]
        fn any_head_is_refused_or_has_a_status_of_three_digits(head in "(HTTP/1.[01] )?[0-9]{0,4}[ -~\\r\\n\u{1b}]{0,40}") {
            if let Ok((status, reason)) = status_line(head.as_bytes()) {
                prop_assert!(status < 1000);
                prop_assert!(!reason.chars().any(char::is_control));
            }
        }
    }
}
