//! Opens one connection to a controller: TCP or a tunnel of a proxy, our TLS, HTTP/2. Tries once; when to try again and where
//! else is the caller's business.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use muster_certs::{
    rustls::ClientConfig,
    tls,
    tokio_rustls::{TlsConnector, client::TlsStream},
};
use muster_proto::{error::Problem, v1::ErrorReason};
use rustix::net::sockopt;
use tokio::{
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tonic::{
    Code, Status,
    transport::{self, Channel},
};

pub use self::error::{Error, Way};
use crate::config::{Endpoint, proxy::Proxying};

mod error;
mod race;
mod tunnel;

/// For name resolution, TCP, a proxy and TLS together.
const CONNECT: Duration = Duration::from_secs(10);

/// After so long without a word the other side is asked for one, and has so long to answer: a link that carries nothing is
/// left before it has missed its second heartbeat. A little more than the time of a heartbeat, since who answers that need not
/// be asked.
const PING: Duration = Duration::from_secs(32);
const PING_ANSWER: Duration = Duration::from_secs(12);
/// Bytes that nobody acknowledges for so long end the connection.
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

/// An open connection; when it breaks, all calls on it fail.
pub async fn dial(endpoint: &Endpoint, proxying: &Proxying, tls: Arc<ClientConfig>) -> Result<Channel, Error> {
    let way = Way {
        endpoint: endpoint.clone(),
        proxy: proxying.of(endpoint).cloned(),
    };
    let stream = match timeout(CONNECT, secure(&way, proxying, tls)).await {
        Ok(stream) => stream?,
        Err(_) => return Err(Error::Timeout { way }),
    };
    // tonic wants to connect by itself. It is given the one stream there is, so that errors keep their kind and a broken
    // connection is not mended behind the back of the session.
    let stream = Mutex::new(Some(TokioIo::new(stream)));
    let connector = tower::service_fn(move |_: http::Uri| {
        let stream = stream.lock().unwrap_or_else(PoisonError::into_inner).take();
        async { stream.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)) }
    });
    let failed = |source| Error::Http2 {
        way: way.clone(),
        source,
    };
    transport::Endpoint::from_static("http://controller")
        // Of a way that carries nothing, whoever acknowledges the bytes on it.
        .http2_keep_alive_interval(PING)
        .keep_alive_timeout(PING_ANSWER)
        .keep_alive_while_idle(true)
        .user_agent(concat!("muster-agent/", env!("CARGO_PKG_VERSION")))
        .map_err(failed)?
        .connect_with_connector(connector)
        .await
        .map_err(failed)
}

async fn secure(way: &Way, proxying: &Proxying, tls: Arc<ClientConfig>) -> Result<TlsStream<TcpStream>, Error> {
    let endpoint = &way.endpoint;
    let stream = match &way.proxy {
        None => connect(way, endpoint).await?,
        Some(proxy) => {
            let credentials = proxying.credentials().map_err(|source| Error::Credentials {
                way: way.clone(),
                source,
            })?;
            let mut stream = connect(way, proxy.endpoint()).await?;
            let opened = tunnel::open(&mut stream, endpoint, credentials.as_ref()).await;
            opened.map_err(|source| Error::Tunnel {
                way: way.clone(),
                with_credentials: credentials.is_some(),
                source,
            })?;
            stream
        }
    };
    TlsConnector::from(tls)
        .connect(tls::server_name(endpoint.host()), stream)
        .await
        .map_err(|source| Error::Tls {
            way: way.clone(),
            source,
        })
}

/// To the first that answers of all addresses that the host has.
async fn connect(way: &Way, to: &Endpoint) -> Result<TcpStream, Error> {
    let failed = |source| Error::Connect {
        way: way.clone(),
        source,
    };
    let addresses = addresses(to).await.map_err(failed)?;
    let stream = race::race(addresses, TcpStream::connect).await.map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    keep_alive(&stream).map_err(|errno| failed(errno.into()))?;
    Ok(stream)
}

async fn addresses(of: &Endpoint) -> io::Result<Vec<SocketAddr>> {
    match of.host().parse::<IpAddr>() {
        Ok(address) => Ok(vec![SocketAddr::new(address, of.port())]),
        Err(_) => Ok(race::interleave(lookup_host((of.host(), of.port())).await?)),
    }
}

/// Heartbeats find a dead link; this keeps the entry of a quiet one alive in the tables of firewalls.
fn keep_alive(stream: &TcpStream) -> rustix::io::Result<()> {
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, Duration::from_secs(60))?;
    sockopt::set_tcp_keepintvl(stream, Duration::from_secs(15))?;
    sockopt::set_tcp_keepcnt(stream, 4)?;
    let patience = u32::try_from(UNACKNOWLEDGED.as_millis()).unwrap_or(u32::MAX);
    sockopt::set_tcp_user_timeout(stream, patience)
}

/// Why a call came to nothing: as the controller put it, or, where the connection broke before it had said all of it, in words
/// for a person.
pub fn problem(status: &Status) -> Problem {
    Problem::from_status(status).unwrap_or_else(|| match std::error::Error::source(status) {
        // What the controller sends has no source.
        Some(source) => {
            tracing::debug!(error = causes(source), "a call came to nothing");
            let why = tls::describe(source).unwrap_or_else(|| "the connection ended before the answer came".to_owned());
            Problem::new(Code::Unavailable, ErrorReason::Unspecified, why)
        }
        None => Problem::new(status.code(), ErrorReason::Unspecified, status.message()),
    })
}

/// An error and what caused it, in one line. Layers that repeat the text of the layer below are said once.
pub fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}
