//! Opens one connection to a controller: TCP, our TLS, HTTP/2. Tries once; when to try again and where else is the
//! caller's business.

use std::{
    error, io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use muster_certs::{
    rustls::{self, ClientConfig},
    tls,
    tokio_rustls::{TlsConnector, client::TlsStream},
};
use muster_proto::{error::Problem, v1::ErrorReason};
use rustix::net::sockopt;
use tokio::{net::TcpStream, time::timeout};
use tonic::{
    Code, Status,
    transport::{self, Channel},
};

use crate::config::Endpoint;

/// For name resolution, TCP and TLS together.
const CONNECT: Duration = Duration::from_secs(10);

/// After so long without a word the other side is asked for one, and has so long to answer: a link that carries nothing is
/// left before it has missed its second heartbeat.
const PING: Duration = Duration::from_secs(20);
const PING_ANSWER: Duration = Duration::from_secs(20);
/// Bytes that nobody acknowledges for so long end the connection.
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to connect to {endpoint}")]
    Connect { endpoint: Endpoint, source: io::Error },
    #[error("failed to connect to {endpoint} within {} s", CONNECT.as_secs())]
    Timeout { endpoint: Endpoint },
    #[error("failed to agree on TLS with {endpoint}")]
    Tls { endpoint: Endpoint, source: io::Error },
    #[error("failed to start HTTP/2 with {endpoint}")]
    Http2 {
        endpoint: Endpoint,
        source: transport::Error,
    },
}

impl Error {
    /// The cause in words for a person.
    pub fn cause(&self) -> String {
        match self {
            Error::Connect { source, .. } => source.to_string(),
            Error::Timeout { .. } => "no answer".to_owned(),
            Error::Tls { source, .. } => tls::describe(source).unwrap_or_else(|| match source.kind() {
                io::ErrorKind::UnexpectedEof => "the other side closed the connection during the handshake".to_owned(),
                _ => source.to_string(),
            }),
            Error::Http2 { source, .. } => tls::describe(source).unwrap_or_else(|| causes(source)),
        }
    }

    /// Whether the other side is not the controller that was expected; trying again will not change that.
    pub fn is_distrust(&self) -> bool {
        self.certificate().is_some() && !self.is_of_time()
    }

    /// Whether the certificate and the clock of this machine disagree. A clock may be set at any moment, by NTP for example.
    pub fn is_of_time(&self) -> bool {
        use rustls::CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
        matches!(
            self.certificate(),
            Some(Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. })
        )
    }

    /// What is wrong with the certificate of the other side.
    fn certificate(&self) -> Option<&rustls::CertificateError> {
        let Error::Tls { source, .. } = self else { return None };
        let inner = source.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match inner {
            Some(rustls::Error::InvalidCertificate(error)) => Some(error),
            _ => None,
        }
    }
}

/// An open connection; when it breaks, all calls on it fail.
pub async fn dial(endpoint: &Endpoint, tls: Arc<ClientConfig>) -> Result<Channel, Error> {
    let stream = timeout(CONNECT, secure(endpoint, tls))
        .await
        .map_err(|_| Error::Timeout {
            endpoint: endpoint.clone(),
        })??;
    // tonic wants to connect by itself. It is given the one stream there is, so that errors keep their kind and a broken
    // connection is not mended behind the back of the session.
    let stream = Mutex::new(Some(TokioIo::new(stream)));
    let connector = tower::service_fn(move |_: http::Uri| {
        let stream = stream.lock().unwrap_or_else(PoisonError::into_inner).take();
        async { stream.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)) }
    });
    transport::Endpoint::from_static("http://controller")
        // Of a way that carries nothing, whoever acknowledges the bytes on it.
        .http2_keep_alive_interval(PING)
        .keep_alive_timeout(PING_ANSWER)
        .keep_alive_while_idle(true)
        .user_agent(concat!("muster-agent/", env!("CARGO_PKG_VERSION")))
        .map_err(|source| Error::Http2 {
            endpoint: endpoint.clone(),
            source,
        })?
        .connect_with_connector(connector)
        .await
        .map_err(|source| Error::Http2 {
            endpoint: endpoint.clone(),
            source,
        })
}

async fn secure(endpoint: &Endpoint, tls: Arc<ClientConfig>) -> Result<TlsStream<TcpStream>, Error> {
    let failed = |source| Error::Connect {
        endpoint: endpoint.clone(),
        source,
    };
    let stream = TcpStream::connect((endpoint.host(), endpoint.port()))
        .await
        .map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    keep_alive(&stream).map_err(|errno| failed(errno.into()))?;
    TlsConnector::from(tls)
        .connect(tls::server_name(endpoint.host()), stream)
        .await
        .map_err(|source| Error::Tls {
            endpoint: endpoint.clone(),
            source,
        })
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
    Problem::from_status(status).unwrap_or_else(|| match error::Error::source(status) {
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
pub fn causes(error: &dyn error::Error) -> String {
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
