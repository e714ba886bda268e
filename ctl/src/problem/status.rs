//! From a status of the controller to a problem: the reason decides; where there is none, as from a proxy, the code.
//! Nothing here looks at the text of a message.

use muster_proto::{
    duration,
    error::{self, ErrorReason},
};
use tonic::{Code, Status};

use super::Problem;
use crate::exit::Exit;

/// What was asked of the controller, so that a refusal can say what to type instead.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    what: String,
    list: Option<&'static str>,
    command: Option<String>,
    /// Fields of the request with a grammar of their own, and what was written into them.
    texts: Vec<(&'static str, String)>,
}

impl Asked {
    /// A fragment in the imperative: "get agent db-01".
    pub fn new(what: impl Into<String>) -> Asked {
        Asked {
            what: what.into(),
            ..Asked::default()
        }
    }

    /// The command that lists what there is, for when the thing is not there.
    pub fn listed_by(mut self, command: &'static str) -> Asked {
        self.list = Some(command);
        self
    }

    /// The command without its last argument, for when that means several things.
    pub fn by_command(mut self, command: impl Into<String>) -> Asked {
        self.command = Some(command.into());
        self
    }

    pub fn with_selector(self, selector: impl Into<String>) -> Asked {
        self.with_text("selector", selector)
    }

    /// Remembers what a field holds, so that a mistake in it can be pointed at.
    pub fn with_text(mut self, field: &'static str, text: impl Into<String>) -> Asked {
        self.texts.push((field, text.into()));
        self
    }

    pub fn what(&self) -> &str {
        &self.what
    }
}

/// `server` is how the context calls the controller.
pub fn problem(server: &str, asked: &Asked, status: &Status) -> Problem {
    let said = error::Problem::from_status(status);
    let code = error::code_name(status.code());
    let reason = said.as_ref().map_or(ErrorReason::Unspecified, |said| said.reason);
    let request = said.as_ref().and_then(|said| said.request_id().map(str::to_owned));

    let mut headline = format!("{server} says {code}");
    if reason != ErrorReason::Unspecified && error::reason_name(reason) != code {
        headline.push_str(&format!(" {}", error::reason_name(reason)));
    }
    if let Some(request) = &request {
        headline.push_str(&format!(" (request {request})"));
    }
    let mut problem = Problem::new(exit(status.code(), reason), headline)
        .what(&asked.what)
        .why(why(status));
    problem.code = Some(code);
    problem.reason = (reason != ErrorReason::Unspecified).then(|| error::reason_name(reason).to_owned());
    if let Some(said) = said {
        if said.fields.len() > 1 {
            problem.why = said
                .fields
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("\n");
        }
        problem.steps = steps(asked, reason, status.code(), &said, request.as_deref());
        problem.details = caret(asked, &said);
        problem.fields = said
            .fields
            .into_iter()
            .map(|field| (field.field, field.description))
            .collect();
        problem.metadata = said.metadata;
    } else {
        let nothing = error::Problem::new(status.code(), reason, "");
        problem.steps = steps(asked, reason, status.code(), &nothing, request.as_deref());
    }
    problem.request = request;
    problem
}

fn exit(code: Code, reason: ErrorReason) -> Exit {
    match reason {
        ErrorReason::CertificateRequired
        | ErrorReason::CertificateExpired
        | ErrorReason::CertificateUnknown
        | ErrorReason::CertificateRevoked
        | ErrorReason::MethodNotAllowed => return Exit::Denied,
        ErrorReason::Unavailable | ErrorReason::ShuttingDown | ErrorReason::ControllerDraining => {
            return Exit::Unreachable;
        }
        ErrorReason::AmbiguousName | ErrorReason::AgentAlreadyEnrolled => return Exit::Conflict,
        _ => {}
    }
    match code {
        Code::Ok => Exit::Success,
        Code::InvalidArgument => Exit::Usage,
        Code::Unavailable => Exit::Unreachable,
        Code::Unauthenticated | Code::PermissionDenied => Exit::Denied,
        Code::NotFound => Exit::NotFound,
        Code::DeadlineExceeded => Exit::DeadlinePassed,
        Code::AlreadyExists | Code::Aborted | Code::FailedPrecondition => Exit::Conflict,
        Code::Cancelled
        | Code::Unknown
        | Code::ResourceExhausted
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Internal
        | Code::DataLoss => Exit::Failure,
    }
}

fn why(status: &Status) -> String {
    if !status.message().is_empty() {
        return status.message().to_owned();
    }
    format!("the controller gave no more than {}", error::code_name(status.code()))
}

fn steps(asked: &Asked, reason: ErrorReason, code: Code, said: &error::Problem, request: Option<&str>) -> Vec<String> {
    let one = |step: &str| vec![step.to_owned()];
    match reason {
        ErrorReason::Internal => vec![
            match request {
                Some(request) => format!("on the controller: journalctl -u muster-server | grep {request}"),
                None => "on the controller: journalctl -u muster-server".to_owned(),
            },
            "this is a defect; please report it with those lines".to_owned(),
        ],
        ErrorReason::Unavailable | ErrorReason::ShuttingDown | ErrorReason::ControllerDraining => {
            one("try again in a few seconds")
        }
        ErrorReason::InvalidField => one("correct what is named above; --help shows the form of every option"),
        ErrorReason::InvalidSelector => {
            one("write it like env=prod,role!=db or 'zone in (eu,us)' or gpu,!spot; * is every agent")
        }
        ErrorReason::NotFound => vec![match asked.list {
            Some(list) => format!("see what there is: {list}"),
            None => "check the name".to_owned(),
        }],
        ErrorReason::AmbiguousName => ambiguous(asked, said),
        ErrorReason::MethodNotAllowed => one("use the context of an admin: --context NAME"),
        ErrorReason::CertificateExpired => vec![
            "another operator can make a new one: musterctl user renew NAME --out FILE".to_owned(),
            "or, on the controller's host, as its owner: muster-server admin create NAME".to_owned(),
            "then use the file it writes: musterctl --config FILE".to_owned(),
        ],
        ErrorReason::CaInUse => vec![
            "give them time, and see how far they are: musterctl ca status".to_owned(),
            "give up those that are lost: musterctl agent delete AGENT".to_owned(),
            "or keep them, to come back with a token: musterctl ca retire --yes --leave-behind AGENT".to_owned(),
        ],
        ErrorReason::UserRevoked => one("let the user in again: musterctl user create NAME --reinstate"),
        ErrorReason::DiskFull => vec![
            "try again in a few seconds: room that was set aside for this is given up when the disk is full".to_owned(),
            "make room; what uses it says, on the controller's host: muster-server doctor".to_owned(),
            "or keep less: retention in server.yaml, then restart the controller".to_owned(),
        ],
        ErrorReason::LastAdmin => one("make another one first: musterctl user create NAME --role admin"),
        ErrorReason::PermissionMissing => vec![
            "see what you may do: musterctl whoami".to_owned(),
            format!(
                "an admin can give you a role that has {}: musterctl grant create --role ROLE --user NAME",
                permission(said)
            ),
            "or be somebody who may: --context NAME".to_owned(),
        ],
        ErrorReason::Escalation => vec![
            "see what you may do, and for which machines: musterctl whoami".to_owned(),
            format!(
                "ask somebody who has {} for everything, such as an admin",
                permission(said)
            ),
        ],
        ErrorReason::OutOfScope => vec![
            "see your scopes: musterctl whoami".to_owned(),
            "stay in one of them, or ask somebody who has no scope".to_owned(),
        ],
        ErrorReason::Conflict => vec![
            "look at what it has become, and decide again".to_owned(),
            match said.metadata.get("revision") {
                Some(revision) => format!("then do it for that revision: --revision {revision}"),
                None => "then run the same command again".to_owned(),
            },
        ],
        ErrorReason::BuiltIn => one("make a role of your own: musterctl role create NAME --permission PERMISSION"),
        ErrorReason::InUse => vec![
            "see who has it: musterctl grant list --role ROLE".to_owned(),
            "take it back from them first: musterctl grant delete ID".to_owned(),
        ],
        ErrorReason::ApiKeyInvalid => vec![
            "use the key that you mean: MUSTER_API_KEY comes before the context's own, --api-key-file before both"
                .to_owned(),
            "an admin sees whether it is still good, and from where: musterctl apikey list --all".to_owned(),
            "or makes another: musterctl apikey create --role ROLE".to_owned(),
        ],
        ErrorReason::RightsChanged => one("run the same command again; what you may do now: musterctl whoami"),
        ErrorReason::CertificateRequired | ErrorReason::CertificateUnknown | ErrorReason::CertificateRevoked => vec![
            "on the controller's host, as its owner: muster-server admin create NAME".to_owned(),
            "then use the file it writes: musterctl --config FILE".to_owned(),
        ],
        ErrorReason::RateLimited => vec![match said.retry_after {
            Some(after) => format!("try again in {}", duration::format(after)),
            None => "try again in a minute".to_owned(),
        }],
        _ => match code {
            Code::Unimplemented => one("the controller may be older than this musterctl: musterctl version"),
            Code::DeadlineExceeded => one("allow more time: --timeout 2m"),
            Code::Unauthenticated | Code::PermissionDenied => one("use the context of an admin: --context NAME"),
            Code::ResourceExhausted | Code::Aborted | Code::Unavailable => one("try again in a few seconds"),
            Code::Unknown | Code::Internal | Code::DataLoss => one("on the controller: journalctl -u muster-server"),
            _ => one("change what stands in the way, then try again"),
        },
    }
}

/// That the caller lacks.
fn permission(said: &error::Problem) -> &str {
    said.metadata.get("permission").map_or("the permission", String::as_str)
}

fn ambiguous(asked: &Asked, said: &error::Problem) -> Vec<String> {
    let ids = said.metadata.get("ids").map(String::as_str).unwrap_or_default();
    let command = asked.command.as_deref().unwrap_or("use");
    let mut steps = vec!["name one of them by its id:".to_owned()];
    steps.extend(
        ids.split(',')
            .filter(|id| !id.is_empty())
            .map(|id| format!("  {command} {}", id.trim())),
    );
    steps
}

/// The selector or expression with a caret under the byte at which the controller noticed the mistake.
fn caret(asked: &Asked, said: &error::Problem) -> Vec<String> {
    let field = said
        .fields
        .first()
        .map_or("selector", |violation| violation.field.as_str());
    let text = asked
        .texts
        .iter()
        .find(|(name, _)| *name == field)
        .map(|(_, text)| text);
    let position = said
        .metadata
        .get("position")
        .and_then(|position| position.parse::<usize>().ok());
    match (text, position) {
        (Some(text), Some(position)) if text.is_char_boundary(position) && !text.contains(char::is_control) => {
            let column = crate::output::text::width(&text[..position]);
            vec![format!("    {text}\n    {}^", " ".repeat(column))]
        }
        _ => Vec::new(),
    }
}

/// Whether a status has this reason.
pub fn has_reason(status: &Status, reason: ErrorReason) -> bool {
    error::Problem::from_status(status).is_some_and(|said| said.reason == reason)
}

#[cfg(test)]
mod tests;
