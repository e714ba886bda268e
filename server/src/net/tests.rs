mod proxies;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use ::http::{Request, Response, StatusCode};
use axum::body::Body;
use axum::routing::get;
use axum::{Extension, Router};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use muster_certs::CertificateDer;
use muster_certs::identity::TrustDomain;
use muster_certs::identity_file::IdentityFile;
use muster_certs::tls::{self, ServerCertificate};
use muster_certs::tokio_rustls::TlsConnector;
use muster_certs::tokio_rustls::client::TlsStream;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::accept::Source;
use super::admission::Admission;
use super::http::{Serving, drive};
use super::*;
use crate::clock;
use crate::pki::Pki;
use crate::telemetry::Telemetry;

/// A listener on a free port with its own CA.
struct Rig {
    addr: SocketAddr,
    pki: Pki,
    /// What its own certificate stands on, which stays the first one.
    roots: Vec<CertificateDer<'static>>,
    telemetry: Telemetry,
    shutdown: CancellationToken,
    tasks: TaskTracker,
    _folder: tempfile::TempDir,
}

fn quick() -> Limits {
    Limits {
        grace: Duration::from_secs(1),
        ..Limits::default()
    }
}

fn api() -> Limits {
    Limits {
        promote_within: None,
        http1: true,
        ..quick()
    }
}

impl Rig {
    fn start(limits: Limits, router: Router) -> Self {
        Self::start_behind(&[], limits, router)
    }

    fn start_behind(proxies: &[&str], limits: Limits, router: Router) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let domain: TrustDomain = "example.muster".parse().unwrap();
        let pki = Pki::create(&folder.path().join("pki"), &domain, SystemTime::now()).unwrap();
        let own = pki.issue_controller("controller1", SystemTime::now()).unwrap();
        let certificate = ServerCertificate::new(own.chain, &own.key).unwrap();
        let tls = if limits.http1 {
            tls::api_listener
        } else {
            tls::agent_listener
        };
        let tls = tls(&certificate, pki.agents_clients(), &domain).unwrap();
        let tcp = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = tcp.local_addr().unwrap();
        let telemetry = Telemetry::new();
        let listener = Listener {
            name: "test",
            tcp,
            threads: None,
            tls,
            limits,
            proxies: proxies.iter().map(|network| network.parse().unwrap()).collect(),
            metrics: telemetry.listener("test"),
            distrust: Some(pki.watch_distrust()),
        };
        let (shutdown, tasks) = (CancellationToken::new(), TaskTracker::new());
        tasks.spawn(serve(listener, router, shutdown.clone()));
        Self {
            addr,
            roots: pki.roots(),
            pki,
            telemetry,
            shutdown,
            tasks,
            _folder: folder,
        }
    }

    async fn tcp(&self) -> TcpStream {
        TcpStream::connect(self.addr).await.unwrap()
    }

    async fn tls(&self, identity: Option<&IdentityFile>, alpn: &[u8]) -> TlsStream<TcpStream> {
        self.tls_over(self.tcp().await, identity, alpn).await.unwrap()
    }

    async fn tls_over(
        &self,
        tcp: TcpStream,
        identity: Option<&IdentityFile>,
        alpn: &[u8],
    ) -> io::Result<TlsStream<TcpStream>> {
        let config = tls::operator(&self.roots, self.pki.trust_domain(), identity).unwrap();
        let mut config = muster_certs::rustls::ClientConfig::clone(&config);
        config.alpn_protocols = vec![alpn.to_vec()];
        let connector = TlsConnector::from(Arc::new(config));
        connector.connect(tls::server_name("localhost"), tcp).await
    }

    async fn http2(&self, identity: Option<&IdentityFile>) -> Client {
        client(&self.tasks, self.tls(identity, b"h2").await).await
    }

    /// Waits until a line of the metrics is there; fails with all of them if it never is.
    async fn counted(&self, line: &str) {
        for _ in 0..1000 {
            if self.telemetry.render().lines().any(|l| l == line) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{line} is missing from\n{}", self.telemetry.render());
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

type Client = SendRequest<String>;

async fn client<I>(tasks: &TaskTracker, io: I) -> Client
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(io))
        .await
        .unwrap();
    tasks.spawn(async move {
        let _ = connection.await;
    });
    sender
}

async fn ask(client: &mut Client, path: &str) -> Result<Response<Incoming>, hyper::Error> {
    client.ready().await?;
    client
        .send_request(
            Request::get(format!("https://localhost{path}"))
                .body(String::new())
                .unwrap(),
        )
        .await
}

/// Ends when the other side has closed the connection.
async fn read_to_end(mut io: impl AsyncRead + Unpin) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = io.read_to_end(&mut bytes).await;
    bytes
}

fn hello() -> Router {
    Router::new().route("/", get(async || "hello"))
}

#[tokio::test]
async fn a_request_knows_the_certificate_and_the_address_of_its_peer() {
    let who = async |Extension(peer): Extension<Peer>| match &peer.certificate {
        Some(certificate) => format!("{} {}", certificate.identity, peer.addr.ip()),
        None => "nobody".to_owned(),
    };
    let rig = Rig::start(quick(), Router::new().route("/", get(who)));
    let operator = rig
        .pki
        .issue_user("oncall", SystemTime::now(), Duration::from_secs(600))
        .unwrap();
    let identity = IdentityFile::new(operator.key, operator.chain).unwrap();

    let named = ask(&mut rig.http2(Some(&identity)).await, "/").await.unwrap();
    assert_eq!(text(named).await, "spiffe://example.muster/user/oncall 127.0.0.1");
    let anonymous = ask(&mut rig.http2(None).await, "/").await.unwrap();
    assert_eq!(text(anonymous).await, "nobody");
    rig.stop().await;
}

#[tokio::test]
async fn a_connection_that_a_certificate_opened_ends_when_its_ca_is_in_other_hands() {
    let rig = Rig::start(api(), hello());
    let now = SystemTime::now();
    let operator = rig.pki.issue_user("oncall", now, Duration::from_secs(600)).unwrap();
    let identity = IdentityFile::new(operator.key, operator.chain).unwrap();
    let (mut named, mut anonymous) = (rig.http2(Some(&identity)).await, rig.http2(None).await);
    let rotate = |next| rig.pki.set_authorities(next).unwrap();
    rotate(rig.pki.authorities().with_prepared(rig.pki.dir(), now).unwrap());
    rotate(rig.pki.authorities().with_activated(clock::now()).unwrap());
    assert!(ask(&mut named, "/").await.is_ok(), "trusted as before");
    rotate(rig.pki.authorities().with_retired(true, 0, clock::now()).unwrap());
    let ended = async { while ask(&mut named, "/").await.is_ok() {} };
    tokio::time::timeout(Duration::from_secs(10), ended)
        .await
        .expect("it ends");
    assert!(ask(&mut anonymous, "/").await.is_ok());

    // Who comes with a certificate of the new one stays.
    let operator = rig.pki.issue_user("oncall", now, Duration::from_secs(600)).unwrap();
    let identity = IdentityFile::new(operator.key, operator.chain).unwrap();
    let mut named = rig.http2(Some(&identity)).await;
    for _ in 0..10 {
        assert!(ask(&mut named, "/").await.is_ok());
    }
    rig.stop().await;
}

async fn text(response: Response<Incoming>) -> String {
    let bytes = axum::body::to_bytes(Body::new(response.into_body()), 1024)
        .await
        .unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn operators_may_speak_http_1_and_agents_may_not() {
    let rig = Rig::start(api(), hello());
    let mut stream = rig.tls(None, b"http/1.1").await;
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let answer = String::from_utf8(read_to_end(stream).await).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"),
        "{answer}"
    );
    rig.stop().await;

    let rig = Rig::start(quick(), hello());
    let config = tls::operator(&rig.pki.roots(), rig.pki.trust_domain(), None).unwrap();
    let mut config = muster_certs::rustls::ClientConfig::clone(&config);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let connector = TlsConnector::from(Arc::new(config));
    assert!(
        connector
            .connect(tls::server_name("localhost"), rig.tcp().await)
            .await
            .is_err()
    );
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_finish_its_handshake_is_cut() {
    let rig = Rig::start(quick(), hello());
    let silent = rig.tcp().await;
    let mut slow = rig.tcp().await;
    // The head of a TLS record of 512 bytes, and nothing after it.
    slow.write_all(&[22, 3, 1, 2, 0]).await.unwrap();
    assert_eq!(read_to_end(silent).await, b"");
    read_to_end(slow).await;
    rig.counted("muster_controller_handshake_failures_total{listener=\"test\",reason=\"timeout\"} 2")
        .await;
    rig.stop().await;
}

#[tokio::test]
async fn peers_that_begin_handshakes_and_go_silent_do_not_keep_others_waiting() {
    // With a patience this long, a turn that is only given back at the time-out is given back too late for this test.
    let patience = Duration::from_secs(3600);
    let rig = Rig::start(
        Limits {
            max_handshakes: 2,
            handshake_timeout: patience,
            ..quick()
        },
        hello(),
    );
    let mut stalled = Vec::new();
    for _ in 0..6 {
        let mut slow = rig.tcp().await;
        slow.write_all(&[22, 3, 1, 2, 0]).await.unwrap();
        stalled.push(slow);
    }
    let served = async { ask(&mut rig.http2(None).await, "/").await.unwrap().status() };
    let status = tokio::time::timeout(Duration::from_secs(60), served).await;
    assert_eq!(status.expect("it gets its turn"), StatusCode::OK);
    drop(stalled);
    rig.stop().await;
}

#[tokio::test]
async fn a_client_without_tls_is_turned_away_and_others_are_served() {
    let rig = Rig::start(quick(), hello());
    let mut plain = rig.tcp().await;
    plain
        .write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await
        .unwrap();
    read_to_end(plain).await;
    rig.counted("muster_controller_handshake_failures_total{listener=\"test\",reason=\"not_tls\"} 1")
        .await;
    assert_eq!(
        ask(&mut rig.http2(None).await, "/").await.unwrap().status(),
        StatusCode::OK
    );
    rig.stop().await;
}

#[tokio::test]
async fn one_source_cannot_take_all_connections() {
    let rig = Rig::start(
        Limits {
            max_per_source: 1,
            ..quick()
        },
        hello(),
    );
    let first = rig.tcp().await;
    rig.counted("muster_controller_connections_open{listener=\"test\"} 1")
        .await;
    assert_eq!(read_to_end(rig.tcp().await).await, b"");
    rig.counted("muster_controller_connections_refused_total{listener=\"test\",reason=\"per_source\"} 1")
        .await;

    drop(first);
    rig.counted("muster_controller_connections_open{listener=\"test\"} 0")
        .await;
    assert_eq!(
        ask(&mut rig.http2(None).await, "/").await.unwrap().status(),
        StatusCode::OK
    );
    rig.stop().await;
}

#[tokio::test]
async fn a_promoted_connection_no_longer_counts_against_its_source() {
    let promote = async |Extension(peer): Extension<Peer>| peer.connection.promote();
    let rig = Rig::start(
        Limits {
            max_per_source: 1,
            ..quick()
        },
        Router::new().route("/", get(promote)),
    );
    let mut link = rig.http2(None).await;
    ask(&mut link, "/").await.unwrap();
    let mut second = rig.http2(None).await;
    assert_eq!(ask(&mut second, "/").await.unwrap().status(), StatusCode::OK);
    assert_eq!(ask(&mut link, "/").await.unwrap().status(), StatusCode::OK);
    rig.stop().await;
}

#[tokio::test]
async fn a_handler_that_panics_takes_nothing_with_it() {
    let router = hello().route("/panic", get(async || -> StatusCode { panic!("on purpose") }));
    let rig = Rig::start(quick(), router);
    let mut same = rig.http2(None).await;
    let mut other = rig.http2(None).await;
    assert!(ask(&mut same, "/panic").await.is_err());
    assert_eq!(ask(&mut same, "/").await.unwrap().status(), StatusCode::OK);
    assert_eq!(ask(&mut other, "/").await.unwrap().status(), StatusCode::OK);
    rig.stop().await;
}

#[tokio::test]
async fn a_request_under_way_at_shutdown_gets_its_answer() {
    let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let waiting = {
        let (begun, go_on) = (begun.clone(), go_on.clone());
        async move || {
            begun.notify_one();
            go_on.notified().await;
            "done"
        }
    };
    let limits = Limits {
        grace: Duration::from_secs(60),
        ..quick()
    };
    let rig = Rig::start(limits, Router::new().route("/", get(waiting)));
    let mut client = rig.http2(None).await;
    let (answer, ()) = tokio::join!(ask(&mut client, "/"), async {
        begun.notified().await;
        rig.shutdown.cancel();
        // Nobody new is let in.
        while TcpStream::connect(rig.addr).await.is_ok() {
            tokio::task::yield_now().await;
        }
        go_on.notify_one();
    });
    assert_eq!(text(answer.unwrap()).await, "done");
    rig.stop().await;
}

#[tokio::test]
async fn a_request_that_never_ends_is_dropped_after_the_grace() {
    let begun = Arc::new(Notify::new());
    let dropped = CancellationToken::new();
    let endless = {
        let (begun, dropped) = (begun.clone(), dropped.clone());
        async move || {
            let _guard = dropped.drop_guard();
            begun.notify_one();
            std::future::pending::<()>().await;
        }
    };
    let limits = Limits {
        grace: Duration::from_millis(50),
        ..quick()
    };
    let rig = Rig::start(limits, Router::new().route("/", get(endless)));
    let mut client = rig.http2(None).await;
    let (answer, ()) = tokio::join!(ask(&mut client, "/"), async {
        begun.notified().await;
        rig.shutdown.cancel();
    });
    assert!(answer.is_err());
    dropped.cancelled().await;
    rig.stop().await;
}

/// `drive` over a pipe in memory, so that the paused clock is all the time there is.
struct Driven {
    connection: Connection,
    tasks: TaskTracker,
    admission: Arc<Admission>,
    served: tokio::task::JoinHandle<()>,
    shutdown: CancellationToken,
}

fn driven(limits: Limits, router: Router) -> (Driven, DuplexStream) {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let addr: SocketAddr = "192.0.2.1:4711".parse().unwrap();
    let admission = Admission::new(1, 1);
    let connection = Connection::new(admission.admit(addr.ip()).unwrap());
    let peer = Peer {
        addr,
        certificate: None,
        connection: connection.clone(),
    };
    let (tasks, shutdown, gone) = (TaskTracker::new(), CancellationToken::new(), CancellationToken::new());
    let served = tasks.spawn({
        let (tracker, shutdown) = (tasks.clone(), shutdown.clone());
        async move {
            let http1 = limits.http1;
            let serving = Serving {
                limits: &limits,
                http1,
                distrust: None,
                shutdown: &shutdown,
                gone: &gone,
                tracker: &tracker,
            };
            drive(ours, peer, router, serving).await.unwrap();
        }
    });
    (
        Driven {
            connection,
            tasks,
            admission,
            served,
            shutdown,
        },
        theirs,
    )
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_does_not_become_a_link_is_closed() {
    let (driven, io) = driven(quick(), hello());
    let mut client = client(&driven.tasks, io).await;
    ask(&mut client, "/").await.unwrap();
    driven.served.await.unwrap();
    assert!(ask(&mut client, "/").await.is_err());
    assert!(
        driven.admission.admit("192.0.2.1".parse().unwrap()).is_ok(),
        "its place is free"
    );
    drop(driven.connection);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_a_link_stays() {
    let (driven, io) = driven(quick(), hello());
    let mut client = client(&driven.tasks, io).await;
    driven.connection.promote();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(ask(&mut client, "/").await.unwrap().status(), StatusCode::OK);
    assert!(!driven.served.is_finished());
    assert!(
        driven.admission.admit("192.0.2.1".parse().unwrap()).is_ok(),
        "a link takes no place"
    );
    driven.shutdown.cancel();
    driven.served.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_operators_connection_must_begin_with_a_request_and_may_then_idle() {
    let limits = Limits { http1: false, ..api() };
    let (silent, io) = driven(limits.clone(), hello());
    silent.served.await.unwrap();
    drop(io);

    let (asked, io) = driven(limits, hello());
    let mut client = client(&asked.tasks, io).await;
    ask(&mut client, "/").await.unwrap();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(ask(&mut client, "/").await.unwrap().status(), StatusCode::OK);
    asked.shutdown.cancel();
    asked.served.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_a_request_closes_still_carries_the_answer() {
    let refuse = async |Extension(peer): Extension<Peer>| {
        peer.connection.close();
        tokio::task::yield_now().await;
        StatusCode::FORBIDDEN
    };
    let (driven, io) = driven(quick(), Router::new().route("/", get(refuse)));
    let mut client = client(&driven.tasks, io).await;
    assert_eq!(ask(&mut client, "/").await.unwrap().status(), StatusCode::FORBIDDEN);
    driven.served.await.unwrap();
    assert!(ask(&mut client, "/").await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_connection_ends_within_a_second_of_what_it_ends_with_whatever_is_under_way() {
    let token = CancellationToken::new();
    let given = token.clone();
    let endless = async move |Extension(peer): Extension<Peer>| {
        peer.connection.end_with(&given);
        Body::from_stream(futures_util::stream::pending::<io::Result<Vec<u8>>>())
    };
    let (driven, io) = driven(quick(), Router::new().route("/", get(endless)));
    let mut client = client(&driven.tasks, io).await;
    let _under_way = ask(&mut client, "/").await.unwrap();
    driven.connection.promote();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(!driven.served.is_finished());
    token.cancel();
    let begin = tokio::time::Instant::now();
    driven.served.await.unwrap();
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    assert!(ask(&mut client, "/").await.is_err());
}

#[tokio::test(start_paused = true)]
async fn the_accept_loop_outlives_a_process_without_file_descriptors() {
    const EMFILE: i32 = 24;
    let tcp = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = tcp.local_addr().unwrap();
    let telemetry = Telemetry::new();
    let attempts = AtomicUsize::new(0);
    let accept = || async {
        match attempts.fetch_add(1, Ordering::Relaxed) {
            0..20 => Err(io::Error::from_raw_os_error(EMFILE)),
            20 => Err(io::ErrorKind::ConnectionAborted.into()),
            _ => {
                let (stream, addr) = tcp.accept().await?;
                Ok((stream.into_std()?, addr))
            }
        }
    };
    let mut source = Source {
        name: "test",
        accept,
        metrics: telemetry.listener("test"),
        failing: false,
    };
    let (accepted, client) = tokio::join!(source.next(), TcpStream::connect(addr));
    assert_eq!(accepted.1, client.unwrap().local_addr().unwrap());
    assert!(!source.failing);
    let text = telemetry.render();
    assert!(
        text.contains("muster_controller_accept_errors_total{listener=\"test\"} 20\n"),
        "{text}"
    );
}
