//! Why something is as it is: the steps by which it was decided, as a tree. Each evaluator says what it found through the same
//! functions that decide; nothing is decided here a second time. Knows no transport.

use muster_proto::{
    selector::Selector,
    v1::{AgentStatus, LabelSource, PolicyOutcome},
};

use crate::{
    access::{
        METHODS, Method,
        permission::{self, Permission, Permissions, Reach},
        rights::{Grant, RightsOfAll, Subject},
    },
    agents::Entry,
    clock,
    policies::{Freeze, Policy},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    Yes,
    No,
    /// Said beside, and decides nothing.
    Note,
}

/// One step, and those that it rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    pub text: String,
    pub found: Found,
    pub parts: Vec<Trace>,
}

impl Trace {
    fn of(holds: bool, text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            found: if holds { Found::Yes } else { Found::No },
            parts: Vec::new(),
        }
    }

    fn note(text: impl Into<String>) -> Self {
        Self {
            found: Found::Note,
            ..Self::of(true, text)
        }
    }

    fn with(self, parts: Vec<Trace>) -> Self {
        Self { parts, ..self }
    }

    pub fn holds(&self) -> bool {
        self.found != Found::No
    }
}

/// Whether an agent shall run a check, and how far that has come.
pub fn check(policy: &Policy, agent: &Entry, freeze: Option<&Freeze>) -> Trace {
    let selector = selector("the selector", &policy.selector, agent, Entry::value);
    let mut parts = vec![selector];
    if let Some(scope) = policy.scope.selector() {
        parts.push(self::selector(
            "the scope of the policy",
            scope,
            agent,
            Entry::authoritative,
        ));
    }
    let is_assigned = parts.iter().all(Trace::holds);
    let name = &policy.key;
    if !is_assigned {
        let text = format!("{name} is not for {}", agent.name);
        return Trace::of(false, text).with(parts);
    }
    parts.extend(delivery(policy, agent, freeze));
    let runs = parts.iter().all(Trace::holds);
    let text = match runs {
        true => format!("{name} runs on {}", agent.name),
        false => format!("{name} is for {}, and does not run there as it is now", agent.name),
    };
    Trace::of(runs, text).with(parts)
}

fn delivery(policy: &Policy, agent: &Entry, freeze: Option<&Freeze>) -> Vec<Trace> {
    let mut parts = Vec::new();
    let reports = &agent.policy_status.policies;
    let report = reports
        .iter()
        .find(|report| report.kind == policy.key.kind && report.name == policy.key.name);
    let has_it = report.is_some_and(|report| report.version == policy.version);
    match report {
        Some(report) if has_it => parts.push(match report.outcome() {
            PolicyOutcome::Applied => Trace::of(true, format!("the agent has applied version {}", policy.version)),
            PolicyOutcome::Refused => Trace::of(false, format!("the agent refuses it: {}", report.reason)),
            PolicyOutcome::NotSupported => {
                Trace::of(false, format!("the agent does not support it: {}", report.reason))
            }
            PolicyOutcome::Unspecified => Trace::of(false, "the agent says nothing that is understood of it"),
        }),
        Some(report) => parts.push(Trace::of(
            false,
            format!(
                "the agent has version {}; the latest is {}",
                report.version, policy.version
            ),
        )),
        None => parts.push(Trace::of(
            false,
            format!(
                "the agent has not said that it has it; the latest is version {}",
                policy.version
            ),
        )),
    }
    if !has_it && let Some(freeze) = freeze {
        let text = format!(
            "nothing is delivered since {}, stopped by {}{}",
            clock::to_text(freeze.at),
            freeze.caller,
            of_reason(&freeze.reason)
        );
        parts.push(Trace::of(false, text));
    }
    let status = status(agent.status);
    parts.push(match has_it || agent.connection.is_some() {
        true => Trace::note(format!("the agent is {status}")),
        false => Trace::of(false, format!("the agent is {status}, and gets it when it is back")),
    });
    parts
}

fn of_reason(reason: &str) -> String {
    match reason {
        "" => String::new(),
        reason => format!(": {reason}"),
    }
}

fn status(status: AgentStatus) -> &'static str {
    match status {
        AgentStatus::Online => "online",
        AgentStatus::Late => "late",
        AgentStatus::Offline => "offline",
        AgentStatus::Pending => "pending: it has never been connected",
        AgentStatus::Revoked => "revoked",
        _ => "in no status that is known",
    }
}

/// What of an agent is looked at for a key.
type Value = for<'e> fn(&'e Entry, &str) -> Option<&'e str>;

/// Whether a selector takes an agent, term by term. `value`: what it sees of the agent.
fn selector(what: &str, selector: &Selector, agent: &Entry, value: Value) -> Trace {
    let terms: Vec<Trace> = selector
        .explain(|key| value(agent, key))
        .map(|(term, key, holds)| Trace::of(holds, format!("{term}: {}", said(agent, key, value(agent, key)))))
        .collect();
    let holds = terms.iter().all(Trace::holds);
    let text = match (selector.is_all(), holds) {
        (true, _) => format!("{what} is *: every agent"),
        (false, true) => format!("{what} {selector} matches"),
        (false, false) => format!("{what} {selector} does not match"),
    };
    Trace::of(holds, text).with(terms)
}

/// "env is prod, by the token".
fn said(agent: &Entry, key: &str, value: Option<&str>) -> String {
    let Some(value) = value else {
        // A scope does not look at what the machine says of itself.
        return match agent.value(key) {
            Some(claim) => format!("{key} is {claim}, which only the machine says"),
            None => format!("there is no {key}"),
        };
    };
    if key.starts_with("fact.") {
        return format!("{key} is {value}, as the machine says");
    }
    let source = agent
        .labels()
        .into_iter()
        .find(|label| label.key == key)
        .map(|label| label.source());
    let by = match source {
        Some(LabelSource::Operator) => ", by an operator",
        Some(LabelSource::Token) => ", by the token",
        Some(LabelSource::Agent) => ", as the machine says",
        _ => "",
    };
    format!("{key} is {value}{by}")
}

/// What a question about access is about.
#[derive(Debug)]
pub enum Wanted {
    Method(&'static Method),
    Permission(&'static Permission),
}

impl Wanted {
    /// "AgentService/ListAgents", with or without what is before it, or "agents.read".
    pub fn find(text: &str) -> Option<Self> {
        let method = text.trim_start_matches('/');
        let method = method.strip_prefix("muster.v1.").unwrap_or(method);
        let is_meant = |it: &&Method| it.path.strip_prefix("/muster.v1.").is_some_and(|path| path == method);
        let permission = || permission::ALL.iter().copied().find(|it| it.name == text);
        METHODS
            .iter()
            .find(is_meant)
            .map(Self::Method)
            .or_else(|| permission().map(Self::Permission))
    }
}

/// Whether somebody may, as far as roles and grants go. `usable`: None when the subject is there and trusted, else why not.
pub fn access(
    subject: &Subject,
    wanted: &Wanted,
    agent: Option<&Entry>,
    rights: &RightsOfAll,
    unusable: Option<String>,
) -> Trace {
    let (what, permission) = match wanted {
        Wanted::Method(method) => (
            method.path.trim_start_matches("/muster.v1.").to_owned(),
            method.permission(),
        ),
        Wanted::Permission(permission) => (permission.name.to_owned(), Some(*permission)),
    };
    let mut parts = Vec::new();
    let is_usable = unusable.is_none();
    if let Some(why) = unusable {
        parts.push(Trace::of(false, why));
    }
    let of_agent = agent.map(|agent| format!(" for {}", agent.name)).unwrap_or_default();
    let is_granted = match permission {
        None => {
            parts.push(Trace::note("every operator may call it, whatever is granted"));
            true
        }
        Some(permission) => {
            let reach = match permission.reach {
                Reach::Scoped => "which a grant with a scope gives for what is in it",
                Reach::Whole => "which only a grant for everything gives",
            };
            parts.push(Trace::note(format!("it takes {}, {reach}", permission.name)));
            let grants = rights.of(subject);
            let traces: Vec<Trace> = grants
                .grants
                .iter()
                .map(|grant| of_grant(grant, permission, agent, rights))
                .collect();
            let is_granted = traces.iter().any(Trace::holds);
            if traces.is_empty() {
                parts.push(Trace::of(false, format!("nothing is granted to {subject}")));
            }
            parts.extend(traces);
            is_granted
        }
    };
    let may = is_usable && is_granted;
    let verb = if may { "may" } else { "may not" };
    Trace::of(may, format!("{subject} {verb} {what}{of_agent}")).with(parts)
}

fn of_grant(grant: &Grant, permission: &Permission, agent: Option<&Entry>, rights: &RightsOfAll) -> Trace {
    let role = rights.role(&grant.role);
    let permissions = role.map(|role| role.permissions).unwrap_or_default();
    let mut parts = vec![of_role(&grant.role, &permissions, permission)];
    match (grant.scope.selector(), permission.reach, agent) {
        (None, _, _) => parts.push(Trace::of(true, "it counts for everything")),
        (Some(_), Reach::Whole, _) => parts.push(Trace::of(
            false,
            format!(
                "{} is about more than agents, and the grant has a scope",
                permission.name
            ),
        )),
        (Some(scope), Reach::Scoped, Some(agent)) => {
            parts.push(selector("its scope", scope, agent, Entry::authoritative));
        }
        (Some(scope), Reach::Scoped, None) => parts.push(Trace::of(true, format!("for agents with {scope}"))),
    }
    let holds = parts.iter().all(Trace::holds);
    let scope = match grant.scope.is_all() {
        true => String::new(),
        false => format!(" for {}", grant.scope),
    };
    let text = format!("grant {}: role {}{scope}", grant.id, grant.role);
    Trace::of(holds, text).with(parts)
}

fn of_role(name: &str, permissions: &Permissions, permission: &Permission) -> Trace {
    match permissions.allowing(permission) {
        Some(by) if by == permission.name => Trace::of(true, format!("role {name} has {by}")),
        Some(by) => Trace::of(
            true,
            format!("role {name} has {by}, which includes {}", permission.name),
        ),
        None => Trace::of(false, format!("role {name} has no {}", permission.name)),
    }
}
