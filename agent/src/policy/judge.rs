//! Judges one signed policy: is it genuine, is it not older than what was seen, does this agent know all that it means, and
//! does the machine's owner allow it. Pure: what it needs to know is given.

use std::{fmt, sync::Arc};

use muster_certs::sign;
use muster_proto::{check, ids, json, policy_set, v1};
use prost::Message as _;

use super::{ActiveCheck, unknown::has_unknown_fields};
use crate::{config::Allow, identity::Trust};

/// What this agent can do for a policy, in the words of `PolicyPayload.features`.
pub const FEATURES: [&str; 8] = [
    "check",
    "run.command",
    "run.disk",
    "run.load",
    "run.memory",
    "run.process",
    "run.tcp",
    "run.http",
];

const CHECK: &str = "Check";

/// What the payload says of itself, genuine or not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub kind: String,
    pub name: String,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Verdict {
    Applied(Arc<ActiveCheck>),
    Refused(String),
    NotSupported(String),
}

#[derive(Debug)]
pub(super) struct Judgement {
    /// Signed by a key that is trusted, for this trust domain, and not older than seen: its version counts as seen.
    pub genuine: bool,
    pub verdict: Verdict,
}

/// A payload without a kind, a name or a version cannot even be refused by name.
#[derive(Debug, thiserror::Error)]
#[error("a policy whose payload cannot be read")]
pub struct Unreadable;

pub(super) fn payload(signed: &v1::Signed) -> Result<(Key, v1::PolicyPayload), Unreadable> {
    let payload = v1::PolicyPayload::decode(signed.payload.clone()).map_err(|_| Unreadable)?;
    let key = Key {
        kind: payload.kind.clone(),
        name: payload.name.clone(),
    };
    let readable = !key.kind.is_empty() && key.kind.len() <= 63 && ids::name_is_valid(&key.name);
    if readable { Ok((key, payload)) } else { Err(Unreadable) }
}

/// `seen` is the highest version of this kind and name that ever was genuine.
pub(super) fn judge(
    signed: &v1::Signed,
    payload: &v1::PolicyPayload,
    trust: &Trust,
    allow: Allow,
    seen: Option<i64>,
) -> Judgement {
    match authentic(signed, payload, trust, seen) {
        Err(why) => Judgement {
            genuine: false,
            verdict: Verdict::Refused(why),
        },
        Ok(()) => {
            let verdict = understood(signed, payload, allow);
            Judgement {
                genuine: true,
                verdict: verdict.map_or_else(|no| no, Verdict::Applied),
            }
        }
    }
}

fn authentic(signed: &v1::Signed, payload: &v1::PolicyPayload, trust: &Trust, seen: Option<i64>) -> Result<(), String> {
    let key = trust.policy_key(&signed.key_id).ok_or_else(|| {
        format!(
            "it is signed with {}, which this agent does not trust",
            shown(&signed.key_id)
        )
    })?;
    sign::verify(
        key,
        &policy_set::dsse_type(&payload.kind),
        &signed.payload,
        &signed.signature,
    )
    .map_err(|_| "its signature does not fit".to_owned())?;
    if payload.trust_domain != trust.trust_domain().as_str() {
        return Err(format!(
            "it is for trust domain {}, this agent belongs to {}",
            shown(&payload.trust_domain),
            trust.trust_domain()
        ));
    }
    match seen {
        Some(seen) if payload.version < seen => Err(format!(
            "its version {} is older than version {seen}, which this agent has seen",
            payload.version
        )),
        _ => Ok(()),
    }
}

fn understood(signed: &v1::Signed, payload: &v1::PolicyPayload, allow: Allow) -> Result<Arc<ActiveCheck>, Verdict> {
    if payload.kind != CHECK {
        return Err(Verdict::NotSupported(format!(
            "this agent does not know the kind {}",
            shown(&payload.kind)
        )));
    }
    if !allow.checks {
        return Err(Verdict::Refused(
            "agent.yaml of this machine does not allow checks (allow.checks: false)".to_owned(),
        ));
    }
    let missing: Vec<String> = payload
        .features
        .iter()
        .filter(|feature| !FEATURES.contains(&feature.as_str()))
        .map(|feature| shown(feature).to_string())
        .collect();
    if !missing.is_empty() {
        let release = env!("CARGO_PKG_VERSION");
        return Err(Verdict::NotSupported(format!(
            "agent {release} does not have: {}",
            missing.join(", ")
        )));
    }
    let unreadable = |_| Verdict::Refused("its body cannot be decoded".to_owned());
    let unknown = has_unknown_fields(json::descriptor::<v1::PolicyPayload>(), &*signed.payload).map_err(unreadable)?
        || has_unknown_fields(json::descriptor::<v1::Check>(), &*payload.body).map_err(unreadable)?;
    if unknown {
        let release = env!("CARGO_PKG_VERSION");
        return Err(Verdict::NotSupported(format!(
            "it has fields that agent {release} does not know"
        )));
    }
    let mut body = v1::Check::decode(&*payload.body).map_err(unreadable)?;
    if let Some(violation) = check::validate(&body).first() {
        return Err(Verdict::NotSupported(violation.to_string()));
    }
    // No timeout is for agent.yaml to fill in.
    let timeout = body.timeout;
    check::normalize(&mut body);
    body.timeout = timeout;
    Ok(Arc::new(ActiveCheck {
        name: payload.name.clone(),
        version: payload.version,
        check: body,
    }))
}

/// A text of unknown origin as it may stand in a report.
fn shown(text: &str) -> impl fmt::Display {
    let mut shown: String = text.chars().take(80).flat_map(char::escape_debug).collect();
    if shown.is_empty() {
        shown.push_str("nothing");
    }
    shown
}
