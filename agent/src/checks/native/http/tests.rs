//! Against a server of a few lines, that answers each connection with a given text.

use std::collections::BTreeMap;

use muster_certs::Identity;
use muster_certs::ca::{self, Ca};
use muster_certs::key::KeyPair;
use muster_certs::tls::{self, ServerCertificate};
use muster_certs::tokio_rustls::TlsAcceptor;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

const LONG: Duration = Duration::from_secs(60);

struct Server {
    listener: TcpListener,
    url: String,
}

impl Server {
    async fn new() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        Server { listener, url }
    }

    fn run(&self) -> HttpRun {
        HttpRun {
            url: self.url.clone(),
            ..HttpRun::default()
        }
    }

    /// Runs the check while answering one connection after the other; gives what the last request was, too.
    async fn check(&self, run: &HttpRun, answers: &[String]) -> (Finding, String) {
        let mut last = String::new();
        let finding = tokio::select! {
            finding = super::run(run, LONG) => finding,
            () = self.answer(answers, &mut last) => unreachable!(),
        };
        (finding, last)
    }

    async fn answer(&self, answers: &[String], last: &mut String) {
        let mut open = Vec::new();
        for answer in answers {
            let (mut stream, _) = self.listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0, "the request broke off");
            }
            *last = String::from_utf8(request).unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
            open.push(stream);
        }
        std::future::pending::<()>().await;
    }
}

fn response(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn redirect(to: &str) -> String {
    format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}

#[tokio::test]
async fn a_good_answer_is_ok_and_measured() {
    let server = Server::new().await;
    let (finding, request) = server.check(&server.run(), &[response("200 OK", "hello")]).await;
    assert_eq!(finding.state, CheckState::Ok, "{finding:?}");
    assert!(
        finding.summary.starts_with("HTTP OK - HTTP/1.1 200 OK - 5 bytes in "),
        "{finding:?}"
    );
    let labels: Vec<&str> = finding.perfdata.iter().map(|value| value.label.as_str()).collect();
    assert_eq!(labels, ["time", "size"]);
    assert!(request.starts_with("GET / HTTP/1.1\r\n"), "{request}");
    assert!(
        request.to_lowercase().contains("user-agent: muster-agent/"),
        "{request}"
    );
}

#[tokio::test]
async fn method_and_headers_are_sent() {
    let server = Server::new().await;
    let headers = BTreeMap::from([
        ("X-Probe".to_owned(), "yes".to_owned()),
        ("Host".to_owned(), "a.example".to_owned()),
    ]);
    let run = HttpRun {
        method: "HEAD".to_owned(),
        headers,
        ..server.run()
    };
    let (finding, request) = server.check(&run, &[response("204 No Content", "")]).await;
    assert_eq!(finding.state, CheckState::Ok, "{finding:?}");
    assert!(request.starts_with("HEAD / HTTP/1.1\r\n"), "{request}");
    let request = request.to_lowercase();
    assert!(
        request.contains("x-probe: yes\r\n") && request.contains("host: a.example\r\n"),
        "{request}"
    );
}

#[tokio::test]
async fn another_status_is_critical() {
    let server = Server::new().await;
    let (finding, _) = server
        .check(&server.run(), &[response("503 Service Unavailable", "")])
        .await;
    assert_eq!(finding.state, CheckState::Critical);
    assert_eq!(
        finding.summary,
        "HTTP CRITICAL - HTTP/1.1 503 Service Unavailable, expected 2xx, 3xx"
    );
    let run = HttpRun {
        expect_status: vec!["401".to_owned(), "5xx".to_owned()],
        ..server.run()
    };
    for (status, state) in [
        ("401 Unauthorized", CheckState::Ok),
        ("503 X", CheckState::Ok),
        ("200 OK", CheckState::Critical),
    ] {
        assert_eq!(
            server.check(&run, &[response(status, "")]).await.0.state,
            state,
            "{status}"
        );
    }
}

#[tokio::test]
async fn a_body_that_lacks_what_is_expected_is_critical() {
    let server = Server::new().await;
    let run = HttpRun {
        expect_body: "healthy".to_owned(),
        ..server.run()
    };
    assert_eq!(
        server.check(&run, &[response("200 OK", "all healthy")]).await.0.state,
        CheckState::Ok
    );
    let (finding, _) = server.check(&run, &[response("200 OK", "sick")]).await;
    assert_eq!(
        finding.summary,
        "HTTP CRITICAL - HTTP/1.1 200 OK, but the body of 4 bytes lacks \"healthy\""
    );
}

#[tokio::test]
async fn no_more_than_the_first_mebibyte_of_a_body_is_read() {
    let server = Server::new().await;
    let run = HttpRun {
        expect_body: "end".to_owned(),
        ..server.run()
    };
    let (finding, _) = server
        .check(&run, &[response("200 OK", &format!("{}end", "x".repeat(MAX_BODY)))])
        .await;
    assert_eq!(finding.state, CheckState::Critical, "{finding:?}");
    assert_eq!(finding.perfdata[1].value, Some(MAX_BODY as f64));
}

#[tokio::test]
async fn redirects_are_followed_but_not_for_ever() {
    let server = Server::new().await;
    let mut answers = vec![redirect("/next"); MAX_REDIRECTS];
    answers.push(response("200 OK", "there"));
    let (finding, request) = server.check(&server.run(), &answers).await;
    assert_eq!(finding.state, CheckState::Ok, "{finding:?}");
    assert!(request.starts_with("GET /next "), "{request}");
    let (finding, _) = server
        .check(&server.run(), &vec![redirect("/next"); MAX_REDIRECTS + 2])
        .await;
    assert_eq!(finding.state, CheckState::Critical);
    assert!(
        finding
            .summary
            .starts_with("HTTP CRITICAL - more than 5 redirects, the last to 127.0.0.1:"),
        "{finding:?}"
    );
}

#[tokio::test]
async fn a_refused_connection_is_critical_and_says_so_without_the_url() {
    let server = Server::new().await;
    let address = server.listener.local_addr().unwrap();
    drop(server.listener);
    let run = HttpRun {
        url: format!("http://user:secret@{address}/"),
        ..HttpRun::default()
    };
    let finding = super::run(&run, LONG).await;
    assert_eq!(finding.state, CheckState::Critical);
    assert!(
        finding
            .summary
            .starts_with(&format!("HTTP CRITICAL - connecting to {address} failed: ")),
        "{finding:?}"
    );
    assert!(finding.summary.contains("Connection refused"), "{finding:?}");
    assert!(!finding.summary.contains("secret"), "{finding:?}");
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_critical() {
    let run = HttpRun {
        url: "http://no-such-host.invalid/".to_owned(),
        ..HttpRun::default()
    };
    let finding = super::run(&run, LONG).await;
    assert_eq!(finding.state, CheckState::Critical);
    assert!(
        finding
            .summary
            .contains("connecting to no-such-host.invalid:80 failed: "),
        "{finding:?}"
    );
}

#[tokio::test]
async fn a_server_that_does_not_speak_tls_is_critical() {
    let server = Server::new().await;
    let run = HttpRun {
        url: server.url.replace("http:", "https:"),
        ..HttpRun::default()
    };
    let answer = async {
        let (mut stream, _) = server.listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        std::future::pending::<()>().await;
    };
    let finding = tokio::select! {
        finding = super::run(&run, LONG) => finding,
        () = answer => unreachable!(),
    };
    assert_eq!(finding.state, CheckState::Critical);
    assert!(finding.summary.contains("connecting to 127.0.0.1:"), "{finding:?}");
}

/// A server with a certificate of a CA that no system knows.
fn private_tls() -> TlsAcceptor {
    let now = std::time::SystemTime::now();
    let root = Ca::create_root(&"example.muster".parse().unwrap(), now).unwrap();
    let issuing = Ca::create_issuing(&root, now).unwrap();
    let identity = Identity::controller(root.trust_domain(), "controller1").unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = issuing
        .issue(&identity, &key.public_key(), ca::backdated(now, LONG))
        .unwrap();
    let trusted = [issuing.certificate_der().clone()];
    let certificate =
        ServerCertificate::new(vec![leaf.der, trusted[0].clone(), root.certificate_der().clone()], &key).unwrap();
    let trusted = tls::ClientAuthorities::new(&trusted).unwrap();
    TlsAcceptor::from(tls::api_listener(&certificate, &trusted, root.trust_domain()).unwrap())
}

#[tokio::test]
async fn a_certificate_that_the_system_does_not_trust_is_critical_unless_that_is_asked_for() {
    let server = Server::new().await;
    let acceptor = private_tls();
    let answer = async {
        loop {
            let (stream, _) = server.listener.accept().await.unwrap();
            // The client that does not trust us ends the handshake.
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") && stream.read_buf(&mut request).await.is_ok_and(|read| read > 0) {}
            let _ = stream.write_all(response("200 OK", "private").as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    };
    let strict = HttpRun {
        url: server.url.replace("http:", "https:"),
        ..HttpRun::default()
    };
    let insecure = HttpRun {
        insecure: true,
        ..strict.clone()
    };
    let (strict, insecure) = tokio::select! {
        findings = async { (super::run(&strict, LONG).await, super::run(&insecure, LONG).await) } => findings,
        () = answer => unreachable!(),
    };
    assert_eq!(strict.state, CheckState::Critical, "{strict:?}");
    assert!(strict.summary.contains("invalid peer certificate"), "{strict:?}");
    assert_eq!(insecure.state, CheckState::Ok, "{insecure:?}");
    assert!(
        insecure.summary.starts_with("HTTP OK - HTTP/1.1 200 OK - 7 bytes"),
        "{insecure:?}"
    );
}

#[tokio::test]
async fn a_server_that_does_not_answer_in_time_is_critical() {
    let server = Server::new().await;
    let finding = super::run(&server.run(), Duration::from_millis(50)).await;
    assert_eq!(finding.state, CheckState::Critical);
    assert_eq!(finding.summary, "HTTP CRITICAL - no answer after 50ms");
}

#[tokio::test]
async fn a_request_that_cannot_be_made_is_unknown() {
    let header = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
    let runs = [
        (
            HttpRun {
                url: "not a url".to_owned(),
                ..HttpRun::default()
            },
            "url: ",
        ),
        (
            HttpRun {
                url: "http://x/".to_owned(),
                method: "G T".to_owned(),
                ..HttpRun::default()
            },
            "method: \"G T\" is none",
        ),
        (
            HttpRun {
                url: "http://x/".to_owned(),
                headers: header("a b", "c"),
                ..HttpRun::default()
            },
            "headers: \"a b\" is not a header's name",
        ),
        (
            HttpRun {
                url: "http://x/".to_owned(),
                headers: header("a", "b\nc"),
                ..HttpRun::default()
            },
            "headers: the value of a has characters",
        ),
    ];
    for (run, expected) in runs {
        let finding = super::run(&run, LONG).await;
        assert_eq!(finding.state, CheckState::Unknown, "{finding:?}");
        assert!(finding.summary.contains(expected), "{finding:?}");
    }
}
