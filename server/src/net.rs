//! The accept loop of both listeners: TCP, limits, TLS, HTTP/2 (and 1.1 where wanted), one task for each connection, an
//! orderly end. It knows who a peer is by its certificate and tells each request; what a peer may do is not decided here.

mod accept;
mod admission;
mod connection;
mod http;
mod network;
mod proxy;
#[cfg(test)]
mod tests;
mod threads;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use muster_certs::tls::PeerCertificate;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;

pub use accept::serve;
pub use admission::source_of;
pub use connection::Connection;
pub use network::Network;
pub use threads::Threads;

/// Who sent a request; in the extensions of each.
#[derive(Debug, Clone)]
pub struct Peer {
    pub addr: SocketAddr,
    /// Verified, but perhaps expired; none when the peer did not show one.
    pub certificate: Option<PeerCertificate>,
    pub connection: Connection,
}

/// A listening socket with all that serving it needs.
#[derive(Debug)]
pub struct Listener {
    /// The label of its metrics and log lines: "agents" or "api".
    pub name: &'static str,
    pub tcp: TcpListener,
    /// Where its connections live. None: where they are taken.
    pub threads: Option<Threads>,
    pub tls: Arc<muster_certs::rustls::ServerConfig>,
    pub limits: Limits,
    /// Proxies, which say whose connection they pass on: from them a header of the PROXY protocol is demanded, from others none
    /// is read.
    pub proxies: Vec<Network>,
    pub metrics: crate::telemetry::ListenerMetrics,
    /// Told when certificates no longer count that opened a connection before: all that have shown one end then, and may come
    /// again. None: somebody else sees to it.
    pub distrust: Option<watch::Receiver<()>>,
}

/// How much of everything a listener takes.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections that are open and not promoted.
    pub max_connections: usize,
    /// The same from one source: an IPv4 address or an IPv6 /64.
    pub max_per_source: usize,
    /// Handshakes that are worked on at a time; others wait for their turn within their time-out.
    pub max_handshakes: usize,
    /// From accepting a connection to the end of its handshake.
    pub handshake_timeout: Duration,
    /// After its handshake a connection is closed unless it is promoted within this time. Without it, a connection that
    /// begins no request for 30 s is.
    pub promote_within: Option<Duration>,
    pub max_concurrent_streams: u32,
    /// HTTP/1.1 beside HTTP/2.
    pub http1: bool,
    /// At shutdown, how long requests that are under way may take to end.
    pub grace: Duration,
}

impl Default for Limits {
    /// What the listener of agents uses.
    fn default() -> Self {
        Self {
            max_connections: 4096,
            max_per_source: 1024,
            max_handshakes: 256,
            handshake_timeout: Duration::from_secs(10),
            promote_within: Some(Duration::from_secs(30)),
            max_concurrent_streams: 4,
            http1: false,
            grace: Duration::from_secs(3),
        }
    }
}

/// Listens on an address. Must be called within a Tokio runtime.
pub fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = match addr {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // A controller that is started again must not wait for connections of the last one to fade out.
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    // A whole fleet comes back at once; the kernel caps this at net.core.somaxconn.
    socket.listen(4096)
}

/// Where a listener is reached on this machine: one that takes every address is reached on the loopback one.
pub fn reachable(listening: SocketAddr) -> SocketAddr {
    let ip = match listening.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listening.port())
}
