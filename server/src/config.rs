//! What the controller is told by `server.yaml`, with the default of everything that has one. Reading and checking it is in
//! `config/parse`, writing the first one in `config/render`. Starts nothing.

mod parse;
mod render;
mod value;

use std::fmt;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use muster_certs::identity::TrustDomain;

use crate::access::rates::PerSecond;
use crate::agents::OnClone;
use crate::disk;
use crate::ingest;
use crate::net;
use crate::pki::Lifetimes;
use crate::store;

pub use render::render;
pub use value::check_endpoint;

/// A configuration file is never larger.
const MAX_BYTES: u64 = 1024 * 1024;

#[derive(Debug, Clone)]
pub struct Config {
    /// The controller's name, in its certificate: `spiffe://<trust-domain>/controller/<name>`.
    pub name: String,
    pub trust_domain: TrustDomain,
    /// Keys, lock and, with SQLite, the database. Absolute.
    pub data_dir: PathBuf,
    pub agent_listen: SocketAddr,
    pub api_listen: SocketAddr,
    /// Proxies in front of `agent_listen`: see [`net::Listener`].
    pub agent_proxy_protocol: Vec<net::Network>,
    /// Where agents reach this controller and those that stand by for it, `host:port`. Agents are told, and keep it. Empty: they
    /// are told nothing, and see [`Config::endpoints`].
    pub advertise: Vec<String>,
    pub database: Database,
    pub link: Link,
    pub limits: Limits,
    pub disk: Disk,
    pub retention: Retention,
    pub certificates: Lifetimes,
    pub enrollment: Enrollment,
    pub api_certificate: Option<ApiCertificate>,
    pub logging: Logging,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Database {
    /// Files in the data directory.
    Sqlite,
    Postgres(DatabaseUrl),
}

/// A PostgreSQL URL, which may hold a password: it is shown without.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(String);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// An agent is late after two of these and offline after four.
    pub heartbeat: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// These three hold for each listener: see [`net::Limits`].
    pub connections: usize,
    pub connections_per_source: usize,
    pub handshakes: usize,
    /// See [`crate::link::arrivals`].
    pub links_per_second: usize,
    /// Of each operator.
    pub calls: PerSecond,
    pub ingest: ingest::Limits,
}

/// What happens when the file system of the data directory fills.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Disk {
    /// What is free below which less is taken of agents.
    pub limits: disk::Limits,
    /// Bytes that are set aside for operators' changes, at most a hundredth of the file system; 0: none.
    pub ballast: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    pub results: Keep,
    pub events: Keep,
    pub metrics: Keep,
    pub logs: Keep,
    /// How long the id of an agent that was deleted stays taken.
    pub deleted_agents: Duration,
    pub audit: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Enrollment {
    /// What happens to a machine that shows the identity of an agent that is connected from another one. A token may say
    /// otherwise of its agents.
    pub on_clone: OnClone,
}

/// A certificate with host names for the listener of operators, as PEM files. Whoever knows the controller's own CA gets the
/// controller's own certificate all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiCertificate {
    /// The server's certificate, then those above it.
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// How much of one kind of history is kept: what is older goes, and what is more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    pub age: Duration,
    pub bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Logging {
    pub level: tracing::Level,
    pub format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to read {}{}", path.display(), way_out(source))]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is larger than 1 MiB; that is no configuration", path.display())]
    TooLarge { path: PathBuf },
    /// All that is wrong, in order of lines.
    #[error("{}", Mistake::list(.0))]
    Invalid(Vec<Mistake>),
}

fn way_out(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => " (`muster-server init` writes one, --config FILE names another)",
        _ => "",
    }
}

/// One thing that is wrong in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    pub file: String,
    pub line: usize,
    pub message: String,
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const GIB: u64 = 1024 * 1024 * 1024;

impl Config {
    /// Everything but these three has a default.
    pub fn new(name: impl Into<String>, trust_domain: TrustDomain, data_dir: PathBuf) -> Self {
        Self {
            name: name.into(),
            trust_domain,
            data_dir,
            agent_listen: SocketAddr::from(([0, 0, 0, 0], 8443)),
            api_listen: SocketAddr::from(([127, 0, 0, 1], 9443)),
            agent_proxy_protocol: Vec::new(),
            advertise: Vec::new(),
            database: Database::Sqlite,
            link: Link {
                heartbeat: Duration::from_secs(30),
            },
            limits: Limits {
                connections: 8192,
                connections_per_source: 1024,
                handshakes: 256,
                // A crowd is let in over some seconds, and what connected agents send goes on meanwhile.
                links_per_second: 2_500,
                calls: PerSecond::default(),
                ingest: ingest::Limits::default(),
            },
            disk: Disk {
                limits: disk::Limits::default(),
                ballast: 64 << 20,
            },
            retention: Retention {
                results: Keep {
                    age: 30 * DAY,
                    bytes: 4 * GIB,
                },
                events: Keep {
                    age: 90 * DAY,
                    bytes: GIB,
                },
                metrics: Keep {
                    age: 2 * DAY,
                    bytes: 4 * GIB,
                },
                logs: Keep {
                    age: 14 * DAY,
                    bytes: 2 * GIB,
                },
                deleted_agents: 365 * DAY,
                audit: 400 * DAY,
            },
            certificates: Lifetimes::default(),
            enrollment: Enrollment {
                on_clone: OnClone::Refuse,
            },
            api_certificate: None,
            logging: Logging {
                level: tracing::Level::INFO,
                format: LogFormat::Text,
            },
        }
    }

    /// Reads a file.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Read {
            path: path.to_owned(),
            source,
        };
        let mut text = String::new();
        let file = std::fs::File::open(path).map_err(failed)?;
        file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(failed)?;
        if text.len() as u64 > MAX_BYTES {
            return Err(Error::TooLarge { path: path.to_owned() });
        }
        Self::parse(&path.display().to_string(), &text)
    }

    /// Reads a text; `file` is what mistakes call it. Opens the file that `database_url_file` names, and nothing else.
    pub fn parse(file: &str, text: &str) -> Result<Self, Error> {
        parse::parse(file, text).map_err(Error::Invalid)
    }

    pub fn pki_dir(&self) -> PathBuf {
        self.data_dir.join("pki")
    }

    pub fn source(&self) -> store::Source {
        match &self.database {
            Database::Sqlite => store::Source::Sqlite(self.data_dir.clone()),
            Database::Postgres(url) => store::Source::Postgres(url.expose().to_owned()),
        }
    }

    /// Where agents reach a controller that listens on `listening`: what is advertised, else that address, else, when it
    /// is every address of the machine, the machine's name.
    pub fn endpoints(&self, listening: SocketAddr) -> Vec<String> {
        if !self.advertise.is_empty() {
            return self.advertise.clone();
        }
        if !listening.ip().is_unspecified() {
            return vec![listening.to_string()];
        }
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let name = match name.trim() {
            "" => "localhost",
            name => name,
        };
        vec![format!("{name}:{}", listening.port())]
    }

    /// Limits of the listener of agents.
    pub fn agent_limits(&self) -> net::Limits {
        net::Limits {
            max_connections: self.limits.connections,
            max_per_source: self.limits.connections_per_source,
            max_handshakes: self.limits.handshakes,
            ..net::Limits::default()
        }
    }

    /// Limits of the listener of operators.
    pub fn api_limits(&self) -> net::Limits {
        net::Limits {
            promote_within: None,
            max_concurrent_streams: 100,
            http1: true,
            ..self.agent_limits()
        }
    }
}

impl DatabaseUrl {
    /// `postgres://...` or `postgresql://...`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            Ok(Self(text.to_owned()))
        } else {
            Err("must be `sqlite` or a URL like postgres://user@host/database".to_owned())
        }
    }

    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether it holds a password, which has no place in a file that many may read.
    pub fn has_password(&self) -> bool {
        let rest = self.0.split_once("://").map_or("", |(_, rest)| rest);
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        let in_authority = authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':'));
        let in_query = rest
            .split_once('?')
            .is_some_and(|(_, query)| query.split('&').any(|p| p.starts_with("password=")));
        in_authority || in_query
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("postgres://[redacted]")
    }
}

impl Mistake {
    fn list(mistakes: &[Self]) -> String {
        mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.message)
    }
}

#[cfg(test)]
mod tests;
