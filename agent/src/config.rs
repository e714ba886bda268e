//! `agent.yaml`: what it may hold, the defaults, and mistakes with their line. A misspelt key must not keep an agent from
//! starting, so it is a warning; a value that cannot be understood, and anything odd under `allow`, is an error. Nothing
//! is looked up here: files that the configuration names are read by those who need them.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    io::Read as _,
    path::{Path, PathBuf},
    time::Duration,
};

use muster_certs::{pin::Pin, token::Token};
use muster_proto::v1;
use tracing::level_filters::LevelFilter;

pub(crate) use self::read::check_name;
use self::{proxy::Proxying, srv::SrvName};
pub use muster_proto::endpoint::Endpoint;

pub mod proxy;
mod read;
pub mod srv;

pub const DEFAULT_PATH: &str = "/etc/muster/agent.yaml";

const MAX_BYTES: u64 = 1024 * 1024;

/// All settings of an agent.
#[derive(Debug, Clone, Default)]
pub struct Config {
    pub server: Server,
    pub agent: Agent,
    pub checks: Checks,
    pub queue: Queue,
    pub logs: Logs,
    pub logging: Logging,
    pub allow: Allow,
    /// Keys that mean nothing, which `config check` refuses and `run` tells of.
    pub warnings: Vec<Finding>,
}

/// Where the controller is, and what an agent needs to join it.
#[derive(Debug, Clone)]
pub struct Server {
    /// In order of preference.
    pub endpoints: Vec<Endpoint>,
    /// Names further ones in DNS, which come after all others.
    pub srv: Option<SrvName>,
    pub proxying: Proxying,
    /// How long the link to another endpoint has to hold before a better one is looked for.
    pub fail_back: Duration,
    pub ca_pin: Vec<Pin>,
    /// CA certificates in PEM, instead of pins.
    pub ca_cert: Option<PathBuf>,
    /// Removed after use; that it is not there is no mistake.
    pub token_file: Option<PathBuf>,
    /// A token that came another way than through a file; never part of `agent.yaml`.
    pub token: Option<Token>,
}

#[derive(Debug, Clone)]
pub struct Agent {
    pub id_file: PathBuf,
    pub state_dir: PathBuf,
    /// Empty: the host name.
    pub name: String,
    /// What the machine says of itself.
    pub labels: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checks {
    /// For checks whose policy gives none.
    pub default_timeout: Duration,
    pub max_concurrent: usize,
}

/// What may wait for the controller, on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    /// Bytes.
    pub results: u64,
    pub metrics: u64,
    pub logs: u64,
    /// What is older is dropped.
    pub max_age: Duration,
    pub sync: Sync,
}

/// How soon results and events are on the disk itself, where no loss of power takes them. Metrics and logs are within a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    /// At once, each of them.
    Always,
    /// Within a second as well: for disks that wear, or are slow.
    Second,
}

/// What goes to the controller as logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Logs {
    /// Of the agent's own log, from which level on.
    pub agent: LevelFilter,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Logging {
    pub level: tracing::Level,
    pub format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
}

/// The ceiling that nothing remote lifts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allow {
    pub checks: bool,
    /// Be told by the controller where else controllers are.
    pub endpoints: bool,
}

/// One mistake in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file's name as it was given.
    pub source: String,
    pub line: usize,
    pub message: String,
    pub suggestion: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is larger than 1 MiB", path.display())]
    TooLarge { path: PathBuf },
    /// All that is wrong, in order of lines.
    #[error("{}", lines(.0))]
    Invalid(Vec<Finding>),
}

impl Config {
    /// Reads a file. One that is not there is an error as any other that cannot be read.
    pub fn load(path: &Path) -> Result<Config, Error> {
        let failed = |source| Error::Read {
            path: path.to_owned(),
            source,
        };
        let mut text = String::new();
        fs::File::open(path)
            .map_err(failed)?
            .take(MAX_BYTES + 1)
            .read_to_string(&mut text)
            .map_err(failed)?;
        if text.len() as u64 > MAX_BYTES {
            return Err(Error::TooLarge { path: path.to_owned() });
        }
        Config::parse(&path.display().to_string(), &text)
    }

    /// `source` is what mistakes are reported under.
    pub fn parse(source: &str, text: &str) -> Result<Config, Error> {
        read::config(source, text).map_err(Error::Invalid)
    }
}

impl Error {
    /// Whether the file is just not there.
    pub fn is_missing(&self) -> bool {
        matches!(self, Error::Read { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

impl Default for Server {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            srv: None,
            proxying: Proxying::default(),
            fail_back: Duration::from_secs(15 * 60),
            ca_pin: Vec::new(),
            ca_cert: None,
            token_file: Some("/etc/muster/join-token".into()),
            token: None,
        }
    }
}

impl Default for Agent {
    fn default() -> Self {
        Self {
            id_file: "/etc/muster/agent-id".into(),
            state_dir: "/var/lib/muster-agent".into(),
            name: String::new(),
            labels: BTreeMap::new(),
        }
    }
}

impl Default for Checks {
    fn default() -> Self {
        Self {
            default_timeout: Duration::from_secs(30),
            max_concurrent: 10,
        }
    }
}

impl Queue {
    /// Bytes of a lane.
    pub fn of(self, lane: v1::Lane) -> u64 {
        match lane {
            v1::Lane::Metrics => self.metrics,
            v1::Lane::Logs => self.logs,
            v1::Lane::Results | v1::Lane::Unspecified => self.results,
        }
    }
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            results: 64 << 20,
            metrics: 128 << 20,
            logs: 64 << 20,
            max_age: Duration::from_secs(7 * 24 * 3600),
            sync: Sync::Always,
        }
    }
}

impl Default for Logs {
    fn default() -> Self {
        Self {
            agent: LevelFilter::WARN,
        }
    }
}

impl Default for Logging {
    fn default() -> Self {
        Self {
            level: tracing::Level::INFO,
            format: Format::Text,
        }
    }
}

impl Default for Allow {
    fn default() -> Self {
        Self {
            checks: true,
            endpoints: true,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.source, self.line, self.message)?;
        match &self.suggestion {
            Some(word) => write!(f, "; did you mean \"{word}\"?"),
            None => Ok(()),
        }
    }
}

fn lines(findings: &[Finding]) -> String {
    findings.iter().map(Finding::to_string).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests;
