//! Why an agent has no identity, and how that is told to a person. Which of these are worth another try is decided here;
//! when, elsewhere.

use std::path::PathBuf;

use muster_certs::{csr, file, identity_file, key, tls, token};
use muster_proto::{
    error::{Problem, reason_name},
    ids::AgentId,
    v1::ErrorReason,
};
use tonic::Code;

use super::{id_file, trust};
use crate::{
    config::{Endpoint, srv::SrvName},
    dial::{self, causes},
    endpoints::srv,
    failure::{Exit, Failure},
};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    File(#[from] file::Error),
    #[error("failed to read the agent's identity")]
    Identity(#[source] identity_file::Error),
    #[error("failed to read what the agent trusts from {}", path.display())]
    Trust { path: PathBuf, source: trust::Error },
    #[error("{} holds the identity {identity}, which is not that of an agent of the trust domain in trust.json", path.display())]
    NotAnAgent { path: PathBuf, identity: String },
    #[error("no token to enroll with")]
    NoToken { path: Option<PathBuf> },
    #[error("failed to read the token")]
    TokenFile(#[source] file::Error),
    #[error("{} does not hold a token", path.display())]
    Token { path: PathBuf, source: token::Error },
    #[error("no controller to enroll at")]
    NoEndpoint,
    #[error(transparent)]
    LookUp(#[from] srv::Error),
    #[error("DNS names no controller: {0} has no record")]
    NoneNamed(SrvName),
    #[error("nothing to know the controller by")]
    NoPin,
    #[error("failed to read the CA certificate {}: {why}", path.display())]
    CaCert { path: PathBuf, why: String },
    #[error("failed to set up TLS")]
    Tls(#[source] tls::Error),
    #[error(transparent)]
    IdFile(#[from] id_file::Error),
    #[error("failed to make or read the enrolling key {}", path.display())]
    Key { path: PathBuf, source: key::Error },
    #[error("failed to make a certificate request")]
    Request(#[source] csr::Error),
    #[error(transparent)]
    Dial(#[from] dial::Error),
    #[error("enrollment refused by {endpoint}: {}", name(problem))]
    Refused {
        endpoint: Endpoint,
        id: AgentId,
        id_file: PathBuf,
        problem: Box<Problem>,
    },
    #[error("the answer of {endpoint} cannot be used: {why}")]
    Answer { endpoint: Endpoint, why: String },
}

impl Error {
    /// Whether the same attempt may succeed later without anybody doing anything.
    pub fn is_transient(&self) -> bool {
        match self {
            Error::Dial(error) => !error.is_distrust(),
            Error::LookUp(_) | Error::NoneNamed(_) => true,
            Error::Refused { problem, .. } => matches!(
                problem.code,
                Code::Unavailable
                    | Code::DeadlineExceeded
                    | Code::ResourceExhausted
                    | Code::Aborted
                    | Code::Cancelled
                    | Code::Unknown
                    | Code::Internal
            ),
            _ => false,
        }
    }

    /// Whether something is missing that an attempt needs: nothing was tried.
    pub fn is_incomplete(&self) -> bool {
        matches!(self, Error::NoToken { .. } | Error::NoEndpoint | Error::NoPin)
    }

    /// What the controller said, when it was that which ended it.
    pub fn refusal(&self) -> Option<&Problem> {
        match self {
            Error::Refused { problem, .. } => Some(problem),
            _ => None,
        }
    }

    pub fn failure(&self) -> Failure {
        let too_open = match self {
            Error::TokenFile(error) => Failure::too_open(error, "enroll this machine"),
            Error::Identity(identity_file::Error::File(error)) => Failure::too_open(error, "load the agent's identity"),
            Error::File(error) => Failure::too_open(error, "keep what enrollment needs in the state directory"),
            _ => None,
        };
        if let Some(failure) = too_open {
            return failure;
        }
        match self {
            Error::NoToken { path } => {
                let looked = path.as_ref().map(|path| format!("; {} does not exist", path.display()));
                Failure::new(Exit::Usage, self.to_string())
                    .what("enroll this machine")
                    .why(format!("it has no identity yet, and no token was given{}", looked.unwrap_or_default()))
                    .remedy("on the controller:  musterctl token create --ttl 1h")
                    .remedy("here:               muster-agent enroll --server HOST:PORT --ca-pin sha256:... --token-file FILE")
                    .remedy("                    (or put the token into the environment variable MUSTER_TOKEN)")
            }
            Error::TokenFile(source) => Failure::new(Exit::Failure, self.to_string())
                .what("enroll this machine")
                .why(causes(source))
                .remedy("make the token file readable for the agent's user alone (mode 0600)"),
            Error::Token { source, .. } => Failure::new(Exit::Usage, self.to_string())
                .what("enroll this machine")
                .why(source.to_string())
                .remedy("put the token, exactly as `musterctl token create` printed it, into the file"),
            Error::NoEndpoint => Failure::new(Exit::Usage, self.to_string())
                .what("enroll this machine")
                .why("no endpoint of a controller is known")
                .remedy("give --server HOST:PORT, or server.endpoints or server.srv in agent.yaml"),
            Error::LookUp(error) => Failure::new(Exit::Unreachable, self.to_string())
                .what("find a controller by DNS (server.srv in agent.yaml)")
                .why(causes(error))
                .remedy("see that the name servers of /etc/resolv.conf answer, or give server.endpoints too"),
            Error::NoneNamed(name) => Failure::new(Exit::Unreachable, self.to_string())
                .what("find a controller by DNS (server.srv in agent.yaml)")
                .why("there is no such name, or it has no SRV record with a host and a port")
                .remedy(format!("look at what others see:  dig SRV {name}"))
                .remedy("or give server.endpoints too"),
            Error::NoPin => Failure::new(Exit::Usage, self.to_string())
                .what("enroll this machine")
                .why("without a pin or a CA certificate the token could be sent to anybody")
                .remedy("give --ca-pin sha256:... as `musterctl token create` printed it, or --ca-cert FILE")
                .remedy("(in agent.yaml: server.ca_pin or server.ca_cert)"),
            Error::CaCert { path, .. } => Failure::new(Exit::Failure, self.to_string())
                .what("know the controller by its CA certificate")
                .why("without it the token could be sent to anybody")
                .remedy(format!(
                    "put the CA certificate in PEM into {}, or give a pin instead",
                    path.display()
                )),
            Error::IdFile(error) => id_failure(error),
            Error::Dial(error) => dial_failure(error),
            Error::Refused { .. } => self.refused(),
            Error::Answer { .. } => Failure::new(Exit::Failure, self.to_string())
                .what("enroll this machine")
                .why("the certificate was issued, but something in the answer does not fit")
                .remedy("run the same again; if that does not help, the controller's log tells more"),
            Error::Identity(_) | Error::Trust { .. } | Error::NotAnAgent { .. } | Error::Key { .. } => {
                Failure::new(Exit::Failure, self.to_string())
                    .what("load the agent's identity")
                    .why(std::error::Error::source(self).map_or_else(|| self.to_string(), causes))
                    .remedy("put the file back from a backup, or remove the state directory and the id file")
                    .remedy("and enroll again as a new agent")
            }
            Error::File(source) => Failure::new(Exit::Failure, self.to_string())
                .what("keep what enrollment needs in the state directory")
                .why(
                    std::error::Error::source(source)
                        .map(causes)
                        .unwrap_or_else(|| source.to_string()),
                )
                .remedy("see that the agent's user may write there and that the disk has room"),
            Error::Tls(source) => Failure::new(Exit::Failure, self.to_string())
                .what("connect to the controller")
                .why(causes(source))
                .remedy("give a pin, or a file with the controller's CA certificate"),
            Error::Request(source) => Failure::new(Exit::Failure, self.to_string())
                .what("enroll this machine")
                .why(causes(source))
                .remedy("run the same again; if that does not help, it is a defect of the agent"),
        }
    }

    fn refused(&self) -> Failure {
        let Error::Refused {
            id, id_file, problem, ..
        } = self
        else {
            return Failure::new(Exit::Failure, self.to_string());
        };
        let request = problem
            .request_id()
            .map(|id| format!(" (request {id})"))
            .unwrap_or_default();
        let failure = Failure::new(exit(problem.code), format!("{self}{request}"))
            .what(format!("enroll as agent {id} (from {})", id_file.display()))
            .refused(problem);
        match problem.reason {
            ErrorReason::TokenInvalid => failure
                .why("the token is unknown, wrong, expired or used up; the controller does not say which")
                .remedy("ask for a new one:  musterctl token create --ttl 1h"),
            ErrorReason::AgentAlreadyEnrolled => failure
                .why("that id is already enrolled, and this machine does not have its key; the token was not used up")
                .remedy(format!(
                    "the same machine, set up anew:  musterctl token create --agent-id {id}"
                ))
                .remedy("                                and enroll with that token")
                .remedy(format!(
                    "a new agent:                    rm {}  and run the same again",
                    id_file.display()
                )),
            ErrorReason::AgentPreregistered => failure
                .why(&problem.message)
                .remedy(format!(
                    "for this machine alone:  musterctl token create --agent-id {id}"
                ))
                .remedy(
                    "for several like it:     musterctl token create --label KEY=VALUE, with all labels of the entry",
                ),
            ErrorReason::AgentDeleted => failure
                .why(&problem.message)
                .remedy(format!("to take it back:  musterctl token create --agent-id {id}"))
                .remedy(format!(
                    "             or:  musterctl agent preregister --id {id} --revive"
                ))
                .remedy(format!(
                    "a new agent:      rm {}  and run the same again",
                    id_file.display()
                )),
            ErrorReason::MethodNotAllowed => failure
                .why("this address does not enroll agents; it may be the one for operators")
                .remedy("give the address for agents, which `musterctl token create` prints"),
            ErrorReason::RateLimited => failure
                .why(&problem.message)
                .remedy("wait a minute; too many attempts from this address have failed"),
            _ => {
                let fields: Vec<String> = problem
                    .fields
                    .iter()
                    .map(|field| format!("{}: {}", field.field, field.description))
                    .collect();
                let why = if fields.is_empty() {
                    problem.message.clone()
                } else {
                    fields.join("\n")
                };
                failure
                    .why(why)
                    .remedy("see the controller's log for more; the token is good for another try")
            }
        }
    }
}

fn id_failure(error: &id_file::Error) -> Failure {
    let failure = Failure::new(Exit::Failure, error.to_string()).what("learn the id of this agent");
    let failure = match std::error::Error::source(error) {
        Some(source) => failure.why(causes(source)),
        None => failure,
    };
    match error {
        id_file::Error::Content { path, .. } => failure
            .remedy(format!(
                "write a UUID into it:  cat /proc/sys/kernel/random/uuid > {}",
                path.display()
            ))
            .remedy("or remove the file, and the agent makes one"),
        id_file::Error::Read { .. } | id_file::Error::Directory { .. } | id_file::Error::Write(_) => {
            failure.remedy("run as root, or choose another place with --id-file FILE (agent.yaml: agent.id_file)")
        }
    }
}

fn dial_failure(error: &dial::Error) -> Failure {
    let failure = Failure::new(Exit::Unreachable, error.to_string()).why(error.cause());
    if error.is_of_time() {
        failure
            .what("know the controller before the token is sent; it was not sent")
            .remedy("set the clock of this machine, or that of the controller:  timedatectl")
    } else if error.is_distrust() {
        let failure = failure
            .what("know the controller before the token is sent; it was not sent")
            .remedy("compare the pin with the one that `musterctl token create` prints, and the address with the controller's");
        match error.advice() {
            Some(advice) => failure.remedy(advice),
            None => failure.remedy("if both are right, somebody else answers at that address"),
        }
    } else {
        let failure = failure.what("connect to the controller");
        match error.advice() {
            Some(advice) => failure.remedy(advice),
            None => failure
                .remedy("see that the address is right, that the controller runs and that no firewall is between"),
        }
    }
}

/// "ALREADY_EXISTS AGENT_ALREADY_ENROLLED".
fn name(problem: &Problem) -> String {
    let code = muster_proto::error::code_name(problem.code);
    match problem.reason {
        ErrorReason::Unspecified => code.to_owned(),
        reason => format!("{code} {}", reason_name(reason)),
    }
}

fn exit(code: Code) -> Exit {
    match code {
        Code::Unavailable | Code::DeadlineExceeded => Exit::Unreachable,
        Code::Unauthenticated | Code::PermissionDenied => Exit::Denied,
        Code::AlreadyExists => Exit::Conflict,
        Code::InvalidArgument => Exit::Usage,
        Code::NotFound => Exit::NotFound,
        _ => Exit::Failure,
    }
}
