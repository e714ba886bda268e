//! Which parts of an entry differ from its row, so that no more is written of it.

use std::ops::{BitOr, BitOrAssign};

use prost::Message as _;

use super::{
    Entry,
    entry::{labels_to_json, status_name},
};
use crate::store::{AgentPart, AgentUpdate};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Parts(u8);

impl Parts {
    pub const NONE: Self = Self(0);
    /// Nothing that is written here, but watchers are shown something else.
    pub const SHOWN: Self = Self(1);
    /// With its reason and since when.
    pub const STATUS: Self = Self(1 << 1);
    /// Version, labels and warnings, as the agent has told them.
    pub const HELLO: Self = Self(1 << 2);
    pub const FACTS: Self = Self(1 << 3);
    pub const POLICY_STATUS: Self = Self(1 << 4);
    pub const MACHINES: Self = Self(1 << 5);
    pub const BUNDLE: Self = Self(1 << 6);
    pub const ALL: Self = Self((1 << 7) - 1);

    pub fn when(self, differs: bool) -> Self {
        if differs { self } else { Self::NONE }
    }

    pub fn has(self, part: Self) -> bool {
        self.0 & part.0 != 0
    }

    /// What of the row is to be written.
    pub fn of(self, entry: &Entry) -> AgentUpdate {
        let mut parts = Vec::new();
        if self.has(Self::STATUS) {
            parts.push(AgentPart::Status {
                status: status_name(entry.status),
                reason: entry.status_reason.clone(),
                since: entry.status_since,
            });
        }
        if self.has(Self::HELLO) {
            parts.push(AgentPart::Hello {
                version: entry.version.clone(),
                labels: labels_to_json(&entry.agent_labels),
                warnings: serde_json::json!(entry.warnings).to_string(),
            });
        }
        if self.has(Self::FACTS) {
            parts.push(AgentPart::Facts(labels_to_json(&entry.facts)));
        }
        if self.has(Self::POLICY_STATUS) {
            parts.push(AgentPart::PolicyStatus(entry.policy_status.encode_to_vec()));
        }
        if self.has(Self::MACHINES) {
            parts.push(AgentPart::Fingerprint(entry.machines.to_json()));
        }
        if self.has(Self::BUNDLE) {
            parts.push(AgentPart::BundleVersion(entry.bundle_version));
        }
        AgentUpdate {
            id: entry.id,
            last_seen: entry.last_seen,
            parts,
            revision: entry.revision,
        }
    }
}

impl BitOr for Parts {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Parts {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}
