//! What Hello may say: every part of it bounded before anything is done with it.

use muster_proto::{ids::AgentId, label, v1};

use super::{Admission, Close};
use crate::{agents, ingest::SpoolId, tokens};

/// The only version of the protocol there is.
const PROTOCOL_VERSION: u32 = 1;
const MAX_SPOOLS: usize = 64;
const MAX_WARNINGS: usize = 32;
const MAX_CAPABILITIES: usize = 64;
const MAX_WARNING: usize = 1_024;
/// Of an agent's version.
const MAX_VERSION: usize = 64;

pub(super) fn check(hello: v1::Hello, agent: AgentId) -> Result<Admission, Close> {
    let protocol = |what: &str| Err(Close::Protocol(what.to_owned()));
    if hello.protocol_version != PROTOCOL_VERSION {
        return Err(Close::Version {
            wanted: hello.protocol_version,
        });
    }
    if hello.agent_id.parse() != Ok(agent) {
        return protocol("the agent id of Hello is not that of the certificate");
    }
    if hello.spools.len() > MAX_SPOOLS || hello.warnings.len() > MAX_WARNINGS {
        return protocol("Hello has too many spools or warnings");
    }
    if hello.capabilities.len() > MAX_CAPABILITIES {
        return protocol("Hello has too many capabilities");
    }
    let has_version = hello.agent_version.len() <= MAX_VERSION && label::value_is_valid(&hello.agent_version);
    if !tokens::label_violations("labels", &hello.labels).is_empty() || !has_version {
        return protocol("the labels or the version of Hello are not valid");
    }
    let mut spools = Vec::new();
    for spool in &hello.spools {
        match spool.spool_id.parse::<SpoolId>() {
            Ok(id) => spools.push((id, spool.lane())),
            Err(error) => return protocol(&error.to_string()),
        }
    }
    Ok(Admission {
        spools,
        fingerprint: hello.fingerprint,
        hello: agents::Hello {
            version: hello.agent_version,
            labels: hello.labels,
            warnings: hello.warnings.into_iter().map(|text| cut(text, MAX_WARNING)).collect(),
        },
    })
}

/// At most `max` bytes of a text.
fn cut(mut text: String, max: usize) -> String {
    text.truncate(text.floor_char_boundary(max));
    text
}
