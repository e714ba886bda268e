//! Why there is no connection, in words for a person, and what to do about it. What is tried next is decided elsewhere.

use std::{fmt, io};

use muster_certs::{
    rustls,
    tls::{self, Seen},
};
use tonic::transport;

use super::{CONNECT, causes, tunnel};
use crate::config::{
    Endpoint,
    proxy::{CredentialsError, Proxy},
};

/// Where a connection leads, and through what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    pub endpoint: Endpoint,
    pub proxy: Option<Proxy>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to connect to {way}")]
    Connect { way: Way, source: io::Error },
    #[error("failed to connect to {way} within {} s", CONNECT.as_secs())]
    Timeout { way: Way },
    #[error("failed to connect to {way}: the user and password for it cannot be read")]
    Credentials { way: Way, source: CredentialsError },
    #[error("failed to connect to {way}")]
    Tunnel {
        way: Way,
        with_credentials: bool,
        source: tunnel::Error,
    },
    #[error("failed to agree on TLS with {way}")]
    Tls { way: Way, source: io::Error },
    #[error("failed to start HTTP/2 with {way}")]
    Http2 { way: Way, source: transport::Error },
}

impl Error {
    /// The cause in words for a person.
    pub fn cause(&self) -> String {
        match self {
            Error::Connect { way, source } => match &way.proxy {
                Some(_) => format!("the proxy cannot be reached: {source}"),
                None => source.to_string(),
            },
            Error::Timeout { .. } => "no answer".to_owned(),
            Error::Credentials { source, .. } => causes(source),
            Error::Tunnel { source, .. } => causes(source),
            Error::Tls { source, .. } => tls::describe(source).unwrap_or_else(|| match source.kind() {
                io::ErrorKind::UnexpectedEof => "the other side closed the connection during the handshake".to_owned(),
                _ => source.to_string(),
            }),
            Error::Http2 { source, .. } => tls::describe(source).unwrap_or_else(|| causes(source)),
        }
    }

    /// What to do where that is more than to see that the controller runs.
    pub fn advice(&self) -> Option<String> {
        let endpoint = &self.way().endpoint;
        match self {
            Error::Tunnel {
                source: tunnel::Error::Refused { status, .. },
                with_credentials,
                ..
            } => Some(match (status, with_credentials) {
                (407, false) => {
                    "the proxy wants user and password: put them as user:password into a file of mode 0600, \
                                 and name it in agent.yaml (server.proxy_credentials_file)"
                        .to_owned()
                }
                (407, true) => {
                    "the proxy does not take the user and password of server.proxy_credentials_file; they are read \
                                again with each attempt"
                        .to_owned()
                }
                (403, _) => format!("have the proxy permit CONNECT to {endpoint}"),
                _ => format!(
                    "see that the proxy can reach {endpoint}, or name it in server.no_proxy if no proxy is needed for it"
                ),
            }),
            Error::Tunnel {
                source: tunnel::Error::NotHttp,
                ..
            } => Some("see that server.proxy names an HTTP proxy and its port".to_owned()),
            Error::Credentials { .. } => Some(
                "put them as user:password on one line into the file of server.proxy_credentials_file, with mode 0600"
                    .to_owned(),
            ),
            _ => self.inspected().map(|_| {
                format!(
                    "if something between inspects TLS (a firewall, a proxy), have it let {endpoint} pass uninspected"
                )
            }),
        }
    }

    /// What was shown where a controller should be, when that was nothing of Muster: something between, most likely.
    pub fn inspected(&self) -> Option<&Seen> {
        match self {
            Error::Tls { source, .. } => tls::seen(source).filter(|seen| !seen.is_muster),
            _ => None,
        }
    }

    pub fn way(&self) -> &Way {
        match self {
            Error::Connect { way, .. }
            | Error::Timeout { way }
            | Error::Credentials { way, .. }
            | Error::Tunnel { way, .. }
            | Error::Tls { way, .. }
            | Error::Http2 { way, .. } => way,
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

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.proxy {
            Some(proxy) => write!(f, "{} through the proxy {proxy}", self.endpoint),
            None => self.endpoint.fmt(f),
        }
    }
}
