//! The frames that change an agent's policy set from what it holds to what it shall hold: pure.

use muster_proto::v1::{ConnectResponse, PolicyBody, PolicyRef, PolicySync, Signed, connect_response::Frame};
use prost::Message as _;

use crate::policies::PolicySet;

/// Bodies that fit into the `PolicySync` itself; the rest travels before it. Well under the limit of a frame.
const INLINE: usize = 512 << 10;

/// `base` is the set that the agent is known to hold; without one it gets the full list.
pub(super) fn frames(base: Option<&PolicySet>, target: &PolicySet) -> Vec<ConnectResponse> {
    let is_held = |key, version| {
        base.and_then(|base| base.policies.get(key))
            .is_some_and(|policy| policy.version == version)
    };
    let mut frames = Vec::new();
    let mut added: Vec<Signed> = Vec::new();
    let mut bytes = 0;
    for policy in target
        .policies
        .values()
        .filter(|policy| !is_held(&policy.key, policy.version))
    {
        let size = policy.signed.encoded_len() + 8;
        if bytes + size > INLINE {
            let body = PolicyBody {
                policy: Some(policy.signed.clone()),
            };
            frames.push(ConnectResponse {
                frame: Some(Frame::PolicyBody(body)),
            });
        } else {
            bytes += size;
            added.push(policy.signed.clone());
        }
    }
    let removed = base
        .into_iter()
        .flat_map(|base| base.policies.keys())
        .filter(|key| !target.policies.contains_key(key))
        .map(|key| PolicyRef {
            kind: key.kind.clone(),
            name: key.name.clone(),
        })
        .collect();
    let base_digest = base.map(|base| base.digest.clone()).unwrap_or_default();
    let sync = PolicySync {
        base_digest,
        set_digest: target.digest.clone(),
        added,
        removed,
    };
    frames.push(ConnectResponse {
        frame: Some(Frame::PolicySync(sync)),
    });
    frames
}
