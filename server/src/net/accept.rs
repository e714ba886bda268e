//! Takes connections from the listening socket, sees them through the TLS handshake and hands them to `http`. It goes on
//! through every error of the socket, and ends only at shutdown.

use std::convert::Infallible;
use std::io;
use std::net::{self, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ::http::{Request, Response};
use futures_util::future::BoxFuture;
use hyper::body::{Body, Incoming};
use muster_certs::rustls::Error as TlsError;
use muster_certs::tls::{describe, peer_certificate};
use muster_certs::tokio_rustls::TlsAcceptor;
use muster_certs::tokio_rustls::server::TlsStream;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;

use super::admission::{Admission, Refusal, Slot};
use super::http::{self, Serving};
use super::{Connection, Limits, Listener, Network, Peer, proxy};
use crate::telemetry::ListenerMetrics;

/// How long to wait when the system has no more file descriptors or memory for a connection.
const BACK_OFF: Duration = Duration::from_millis(100);
/// How long a handshake keeps its turn. Peers that begin handshakes and go silent make the others wait for at most this, as
/// often as `max_handshakes` goes into `max_connections`: 8 s of the 10 s of a handshake, unless configured otherwise.
const TURN: Duration = Duration::from_millis(500);

/// Serves a listener until `shutdown`, then lets requests that are under way end within the grace.
pub async fn serve<S, B>(listener: Listener, service: S, shutdown: CancellationToken)
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let Listener {
        name,
        tcp,
        threads,
        tls,
        limits,
        proxies,
        metrics,
        distrust,
    } = listener;
    let admission = Admission::new(limits.max_connections, limits.max_per_source);
    let grace = limits.grace;
    let tracker = TaskTracker::new();
    let gone = CancellationToken::new();
    let shared = Arc::new(Shared {
        name,
        acceptor: TlsAcceptor::from(tls),
        handshakes: Semaphore::new(limits.max_handshakes),
        limits,
        proxies,
        metrics,
        distrust,
        shutdown: shutdown.clone(),
        gone: gone.clone(),
        tracker: tracker.clone(),
    });

    let mut source = Source {
        name,
        accept: || async {
            let (stream, addr) = tcp.accept().await?;
            // It is told of what it waits for by the thread that it lives on.
            Ok((stream.into_std()?, addr))
        },
        metrics: shared.metrics.clone(),
        failing: false,
    };
    while let Some((stream, addr)) = shutdown.run_until_cancelled(source.next()).await {
        let admitted = match shared.is_proxy(addr) {
            true => admission.admit_unknown(),
            false => admission.admit(addr.ip()),
        };
        match admitted {
            Ok(slot) => {
                shared.metrics.accepted();
                let connection = connection(Arc::clone(&shared), service.clone(), stream, addr, slot);
                match &threads {
                    Some(threads) => tracker.spawn_on(connection, threads.next()),
                    None => tracker.spawn(connection),
                };
            }
            Err(refusal) => {
                shared.metrics.refused(refusal.reason());
                tracing::debug!(listener = name, peer = %addr, reason = refusal.reason(), "refused a connection");
            }
        }
    }

    drop(tcp);
    tracker.close();
    if tokio::time::timeout(grace, tracker.wait()).await.is_err() {
        tracing::debug!(
            listener = name,
            left = tracker.len(),
            "dropped connections that did not end within the grace"
        );
        gone.cancel();
        tracker.wait().await;
    }
}

/// What the tasks of one listener's connections have in common.
struct Shared {
    name: &'static str,
    acceptor: TlsAcceptor,
    handshakes: Semaphore,
    limits: Limits,
    proxies: Vec<Network>,
    metrics: ListenerMetrics,
    distrust: Option<watch::Receiver<()>>,
    shutdown: CancellationToken,
    /// The grace is over: drop everything.
    gone: CancellationToken,
    tracker: TaskTracker,
}

impl Shared {
    fn is_proxy(&self, addr: SocketAddr) -> bool {
        self.proxies.iter().any(|network| network.contains(addr.ip()))
    }
}

/// The listening socket, as a source of connections that has no errors.
pub(super) struct Source<A> {
    pub(super) name: &'static str,
    pub(super) accept: A,
    pub(super) metrics: ListenerMetrics,
    /// The last attempt failed; the failure has been logged.
    pub(super) failing: bool,
}

impl<A, F> Source<A>
where
    A: FnMut() -> F,
    F: Future<Output = io::Result<(net::TcpStream, SocketAddr)>>,
{
    pub(super) async fn next(&mut self) -> (net::TcpStream, SocketAddr) {
        loop {
            match (self.accept)().await {
                Ok(accepted) => {
                    if std::mem::take(&mut self.failing) {
                        tracing::info!(listener = self.name, "takes connections again");
                    }
                    return accepted;
                }
                Err(error) if is_of_connection(&error) => {
                    tracing::debug!(listener = self.name, %error, "a connection was gone before it was taken");
                }
                Err(error) => {
                    self.metrics.accept_failed();
                    // Once for a burst: at this moment there are more important uses of the disk.
                    if !std::mem::replace(&mut self.failing, true) {
                        tracing::error!(
                            listener = self.name, %error,
                            "cannot take connections; trying again every 100 ms (too many open files? see LimitNOFILE)"
                        );
                    }
                    tokio::time::sleep(BACK_OFF).await;
                }
            }
        }
    }
}

/// Errors that `accept` hands on from a connection that has ended already; the socket itself is well.
fn is_of_connection(error: &io::Error) -> bool {
    use io::ErrorKind::*;
    matches!(
        error.kind(),
        ConnectionAborted
            | ConnectionReset
            | ConnectionRefused
            | TimedOut
            | Interrupted
            | NetworkUnreachable
            | HostUnreachable
    )
}

/// The life of one connection. It holds the room that its present needs, and neither that of its past nor of its future: so
/// what it goes through is in boxes, and their results too.
async fn connection<S, B>(shared: Arc<Shared>, service: S, stream: net::TcpStream, addr: SocketAddr, slot: Slot)
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let _open = Open::new(&shared.metrics);
    let Some(served) = Box::pin(begin(&shared, service, stream, addr, slot)).await else {
        return;
    };
    if let Err(error) = served.await {
        let error = describe(error.as_ref()).unwrap_or_else(|| error.to_string());
        tracing::debug!(listener = shared.name, peer = %addr, error, "connection broke");
    }
}

/// From the first byte to where requests are served. None: it did not come so far.
async fn begin<S, B>(
    shared: &Shared,
    service: S,
    stream: net::TcpStream,
    mut addr: SocketAddr,
    mut slot: Slot,
) -> Option<BoxFuture<'_, Result<(), http::Error>>>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    // Before the handshake, so that no change falls between it and what follows.
    let mut distrust = shared.distrust.clone();
    distrust.iter_mut().for_each(watch::Receiver::mark_unchanged);
    // Nothing of the peer's is under way before the handshake is done, so shutdown needs no grace here.
    let handshake = handshake(shared, stream, &mut addr, &mut slot);
    let tls = match shared.shutdown.run_until_cancelled(handshake).await? {
        Ok(tls) => tls,
        Err(failure) => {
            shared.metrics.handshake_failed(failure.reason());
            tracing::debug!(listener = shared.name, peer = %addr, reason = failure.reason(), error = %failure, "handshake failed");
            return None;
        }
    };
    let session = tls.get_ref().1;
    let certificate = match peer_certificate(session.peer_certificates()) {
        Ok(certificate) => certificate,
        Err(error) => {
            shared.metrics.handshake_failed("certificate");
            tracing::debug!(listener = shared.name, peer = %addr, %error, "certificate that cannot be read");
            return None;
        }
    };
    let http1 = shared.limits.http1 && session.alpn_protocol() != Some(b"h2");
    let peer = Peer {
        addr,
        certificate,
        connection: Connection::new(slot),
    };
    let serving = Serving {
        limits: &shared.limits,
        http1,
        distrust: distrust.filter(|_| peer.certificate.is_some()),
        shutdown: &shared.shutdown,
        gone: &shared.gone,
        tracker: &shared.tracker,
    };
    Some(http::drive(tls, peer, service, serving))
}

/// `addr` is the peer's, and becomes that of whom a proxy says it is.
async fn handshake(
    shared: &Shared,
    stream: net::TcpStream,
    addr: &mut SocketAddr,
    slot: &mut Slot,
) -> Result<TlsStream<TcpStream>, Failure> {
    let deadline = Instant::now() + shared.limits.handshake_timeout;
    let handshake = async {
        let mut stream = TcpStream::from_std(stream).map_err(Failure::Io)?;
        http::tune(&stream).map_err(Failure::Io)?;
        if shared.is_proxy(*addr) {
            if let Some(source) = proxy::read(&mut stream).await? {
                *addr = source;
            }
            slot.comes_from(addr.ip()).map_err(Failure::Refused)?;
        }
        // A peer that sends nothing takes no turn from those that do.
        stream.readable().await.map_err(Failure::Io)?;
        let Ok(turn) = shared.handshakes.acquire().await else {
            return Err(Failure::TimedOut);
        };
        let mut accepted = std::pin::pin!(shared.acceptor.accept(stream).into_fallible());
        // One that waits for its peer all this time has had the work it needs, and must not keep the others waiting.
        let at_once = timeout(TURN, accepted.as_mut()).await;
        drop(turn);
        let accepted = match at_once {
            Ok(accepted) => accepted,
            Err(_) => accepted.await,
        };
        match accepted {
            Ok(stream) => Ok(stream),
            Err((error, stream)) => {
                http::show_out(stream).await;
                Err(Failure::Io(error))
            }
        }
    };
    timeout_at(deadline, handshake).await.unwrap_or(Err(Failure::TimedOut))
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("the peer did not complete the handshake in time")]
    TimedOut,
    #[error(transparent)]
    Proxy(#[from] proxy::Error),
    #[error("too many connections of one source")]
    Refused(Refusal),
    #[error("{}", describe(.0).unwrap_or_else(|| .0.to_string()))]
    Io(io::Error),
}

impl Failure {
    /// The label of its counter.
    fn reason(&self) -> &'static str {
        let error = match self {
            Failure::TimedOut => return "timeout",
            Failure::Proxy(_) => return "proxy_header",
            Failure::Refused(refusal) => return refusal.reason(),
            Failure::Io(error) => error,
        };
        match error.get_ref().and_then(|e| e.downcast_ref::<TlsError>()) {
            None => "closed",
            Some(TlsError::InvalidMessage(_)) => "not_tls",
            Some(TlsError::InvalidCertificate(_) | TlsError::NoCertificatesPresented) => "certificate",
            // The peer refused us.
            Some(TlsError::AlertReceived(_)) => "alert",
            Some(_) => "protocol",
        }
    }
}

/// Counts a connection as open for as long as its task lives, however that ends.
struct Open<'a>(&'a ListenerMetrics);

impl<'a> Open<'a> {
    fn new(metrics: &'a ListenerMetrics) -> Self {
        metrics.opened();
        Self(metrics)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.closed();
    }
}
