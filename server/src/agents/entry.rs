//! One agent of the inventory, and how it is read from its row.

use std::collections::BTreeMap;

use muster_proto::{
    ids::AgentId,
    selector::Selector,
    v1::{AgentStatus, Label, LabelSource, PolicyStatus},
};
use prost::Message as _;

use super::{Certificate, Connection, Hello, new_series::RefusedSeries};
use crate::{
    access::scope::Scopes,
    clock::Micros,
    clones::{Conflict, Machines},
    policies::Labelled,
    store::{self, AgentRow},
};

pub type Labels = BTreeMap<String, String>;

#[derive(Clone, Debug)]
pub struct Entry {
    pub id: AgentId,
    pub name: String,
    pub agent_labels: Labels,
    pub token_labels: Labels,
    pub operator_labels: Labels,
    pub status: AgentStatus,
    pub status_reason: String,
    pub status_since: Micros,
    /// 0: never.
    pub last_seen: Micros,
    pub version: String,
    pub facts: BTreeMap<String, String>,
    pub facts_digest: String,
    pub warnings: Vec<String>,
    pub policy_status: PolicyStatus,
    pub enrolled_at: Micros,
    /// The newest that was used, or the first when none was yet.
    pub certificate: Certificate,
    /// Issued and not used yet.
    pub next: Option<Certificate>,
    pub connection: Option<Connection>,
    /// Its clock minus the controller's, as heard last: a link that has just begun has not told yet.
    pub clock_skew: Option<Micros>,
    pub revision: i64,
    /// Whether it has connected since the controller started; until then its status is that from before.
    pub heard: bool,
    /// Why the last link ended.
    pub leave_reason: &'static str,
    /// Raised by whatever ends the trust in the agent; issuing requires it unchanged.
    pub epoch: i64,
    /// None: as configured.
    pub on_clone: Option<OnClone>,
    /// It is deleted once it was offline this long; 0: never.
    pub ephemeral: Micros,
    /// 0: not open.
    pub readmit_until: Micros,
    pub fork_until: Micros,
    /// The agent it was a copy of.
    pub forked_from: Option<AgentId>,
    /// Version of the trust bundle it has acknowledged.
    pub bundle_version: i64,
    pub preregistered: bool,
    /// Those that it was seen on.
    pub machines: Machines,
    /// What copies of it have tried since the controller started.
    pub conflict: Conflict,
    /// When it was slowed down last, and in which lane.
    pub throttled: Option<(&'static str, Micros)>,
    /// Of its metrics.
    pub refused_series: RefusedSeries,
}

/// What happens to a machine that shows the identity of an agent that is connected from another machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnClone {
    Refuse,
    Fork,
}

impl OnClone {
    /// As it stands in the database and in configurations; empty: none.
    pub fn parse(text: &str) -> Result<Option<Self>, String> {
        match text {
            "" => Ok(None),
            "refuse" => Ok(Some(Self::Refuse)),
            "fork" => Ok(Some(Self::Fork)),
            other => Err(format!("`{other}` is neither `refuse` nor `fork`")),
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::Fork => "fork",
        }
    }
}

impl Entry {
    pub(super) fn from_row(row: AgentRow) -> Result<Self, store::Error> {
        let corrupt = |problem: String| store::Error::Corrupt {
            table: "agents",
            id: row.id.clone(),
            problem,
        };
        let json = |text: &str| serde_json::from_str::<Labels>(text).map_err(|error| corrupt(error.to_string()));
        let facts = json(&row.facts)?;
        Ok(Self {
            id: row.id.parse().map_err(|_| corrupt("the id is not a UUID".into()))?,
            name: row.name.clone(),
            agent_labels: json(&row.agent_labels)?,
            token_labels: json(&row.token_labels)?,
            operator_labels: json(&row.operator_labels)?,
            status: parse_status(&row.status).ok_or_else(|| corrupt(format!("status {}", row.status)))?,
            status_reason: row.status_reason.clone(),
            status_since: row.status_since,
            last_seen: row.last_seen,
            version: row.version.clone(),
            facts_digest: muster_proto::digest::of_map(&facts),
            facts,
            warnings: serde_json::from_str(&row.warnings).map_err(|error| corrupt(error.to_string()))?,
            policy_status: PolicyStatus::decode(row.policy_status.as_slice())
                .map_err(|error| corrupt(error.to_string()))?,
            enrolled_at: row.enrolled_at,
            certificate: Certificate::default(),
            next: None,
            connection: None,
            clock_skew: None,
            revision: row.revision,
            heard: false,
            leave_reason: "",
            epoch: row.epoch,
            on_clone: OnClone::parse(&row.on_clone).map_err(corrupt)?,
            ephemeral: row.ephemeral,
            readmit_until: row.readmit_until,
            fork_until: row.fork_until,
            forked_from: row.forked_from.parse().ok(),
            bundle_version: row.bundle_version,
            preregistered: row.preregistered,
            machines: Machines::from_json(&row.fingerprint).map_err(|error| corrupt(error.to_string()))?,
            conflict: Conflict::default(),
            throttled: None,
            refused_series: RefusedSeries::default(),
        })
    }

    /// The label of the highest precedence for each key: operator, token, agent.
    pub fn labels(&self) -> Vec<Label> {
        let mut labels: BTreeMap<&str, (&str, LabelSource)> = BTreeMap::new();
        for (map, source) in [
            (&self.agent_labels, LabelSource::Agent),
            (&self.token_labels, LabelSource::Token),
            (&self.operator_labels, LabelSource::Operator),
        ] {
            for (key, value) in map {
                labels.insert(key, (value, source));
            }
        }
        labels
            .into_iter()
            .map(|(key, (value, source))| Label {
                key: key.into(),
                value: value.into(),
                source: source as i32,
            })
            .collect()
    }

    /// The labels that do not rest on the agent's word.
    pub fn authoritative_labels(&self) -> Vec<Label> {
        self.labels()
            .into_iter()
            .filter(|label| label.source != LabelSource::Agent as i32)
            .collect()
    }

    /// The value a selector sees for a key: a label or, under `fact.`, a fact.
    pub fn value(&self, key: &str) -> Option<&str> {
        if let Some(fact) = key.strip_prefix("fact.") {
            return self.facts.get(fact).map(String::as_str);
        }
        [&self.operator_labels, &self.token_labels, &self.agent_labels]
            .into_iter()
            .find_map(|labels| labels.get(key))
            .map(String::as_str)
    }

    /// The value that does not rest on the agent's word.
    pub fn authoritative(&self, key: &str) -> Option<&str> {
        [&self.operator_labels, &self.token_labels]
            .into_iter()
            .find_map(|labels| labels.get(key))
            .map(String::as_str)
    }

    /// All labels that do not rest on the agent's word.
    pub fn authoritative_map(&self) -> Labels {
        self.authoritative_with(&self.operator_labels)
    }

    /// The same, if those of operators were these.
    pub fn authoritative_with(&self, operator_labels: &Labels) -> Labels {
        let mut labels = self.token_labels.clone();
        labels.extend(operator_labels.clone());
        labels
    }

    /// Whether it is there for somebody who reaches this.
    pub fn is_in(&self, scopes: &Scopes) -> bool {
        scopes.covers(|key| self.authoritative(key))
    }

    pub fn matches(&self, selector: &Selector) -> bool {
        selector.matches(|key| self.value(key))
    }

    /// Whether the status is that from before the controller's start.
    pub fn is_unconfirmed(&self) -> bool {
        !self.heard && matches!(self.status, AgentStatus::Online | AgentStatus::Late)
    }

    pub(super) fn set_hello(&mut self, hello: Hello) -> bool {
        let changed =
            self.version != hello.version || self.agent_labels != hello.labels || self.warnings != hello.warnings;
        self.version = hello.version;
        self.agent_labels = hello.labels;
        self.warnings = hello.warnings;
        changed
    }
}

/// An agent that has just enrolled.
impl Labelled for Entry {
    fn value(&self, key: &str) -> Option<&str> {
        Entry::value(self, key)
    }

    fn authoritative(&self, key: &str) -> Option<&str> {
        Entry::authoritative(self, key)
    }
}

impl From<&store::NewAgent<'_>> for Entry {
    fn from(agent: &store::NewAgent<'_>) -> Self {
        let labels = |text: &str| serde_json::from_str(text).unwrap_or_default();
        Self {
            id: agent.id,
            name: agent.name.to_owned(),
            agent_labels: labels(agent.agent_labels),
            token_labels: labels(agent.token_labels),
            operator_labels: Labels::new(),
            status: AgentStatus::Pending,
            status_reason: String::new(),
            status_since: agent.now,
            last_seen: 0,
            version: agent.version.to_owned(),
            facts: BTreeMap::new(),
            facts_digest: String::new(),
            warnings: Vec::new(),
            policy_status: PolicyStatus::default(),
            enrolled_at: agent.now,
            certificate: Certificate::default(),
            next: None,
            connection: None,
            clock_skew: None,
            revision: agent.revision,
            heard: false,
            leave_reason: "",
            epoch: 0,
            on_clone: None,
            ephemeral: 0,
            readmit_until: 0,
            fork_until: 0,
            forked_from: None,
            bundle_version: 0,
            preregistered: false,
            machines: Machines::default(),
            conflict: Conflict::default(),
            throttled: None,
            refused_series: RefusedSeries::default(),
        }
    }
}

pub fn labels_to_json(labels: &Labels) -> String {
    serde_json::json!(labels).to_string()
}

pub(super) const STATUS_NAMES: [(AgentStatus, &str); 6] = [
    (AgentStatus::Pending, "pending"),
    (AgentStatus::Online, "online"),
    (AgentStatus::Late, "late"),
    (AgentStatus::Offline, "offline"),
    (AgentStatus::Expected, "expected"),
    (AgentStatus::Revoked, "revoked"),
];

pub(super) fn status_name(status: AgentStatus) -> &'static str {
    STATUS_NAMES
        .into_iter()
        .find(|(known, _)| *known == status)
        .map_or("pending", |(_, name)| name)
}

fn parse_status(text: &str) -> Option<AgentStatus> {
    STATUS_NAMES
        .into_iter()
        .find(|(_, name)| *name == text)
        .map(|(status, _)| status)
}
