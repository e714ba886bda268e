//! The frame that the floor sends to all, and its answer: such as a controller sends when a policy has changed, and an agent
//! answers. They say nothing.

use muster_proto::{
    digest,
    v1::{
        self, ConnectRequest, ConnectResponse, connect_request::Frame as FromAgent,
        connect_response::Frame as FromController,
    },
};
use prost::Message as _;

const KIND: &str = "Check";
const NAME: &str = "swarm-000000-check-0";

pub fn to_all() -> ConnectResponse {
    let check = v1::Check {
        description: "second".to_owned(),
        selector: "swarm=swarm-000000".to_owned(),
        run: Some(v1::Run {
            memory: Some(v1::MemoryRun::default()),
            ..Default::default()
        }),
        ..Default::default()
    };
    let payload = v1::PolicyPayload {
        trust_domain: "muster.internal".to_owned(),
        kind: KIND.to_owned(),
        name: NAME.to_owned(),
        version: i64::MAX,
        selector: check.selector.clone(),
        body: check.encode_to_vec(),
        ..Default::default()
    };
    let digest = digest::of_bytes(b"");
    let sync = v1::PolicySync {
        base_digest: digest.clone(),
        set_digest: digest.clone(),
        added: vec![v1::Signed {
            payload: payload.encode_to_vec().into(),
            key_id: digest,
            signature: vec![0; 64],
        }],
        removed: Vec::new(),
    };
    ConnectResponse {
        frame: Some(FromController::PolicySync(sync)),
    }
}

pub fn answer() -> ConnectRequest {
    let status = v1::PolicyStatus {
        policy_set_digest: digest::of_bytes(b""),
        policies: vec![v1::PolicyReport {
            kind: KIND.to_owned(),
            name: NAME.to_owned(),
            version: i64::MAX,
            outcome: v1::PolicyOutcome::Applied.into(),
            reason: String::new(),
        }],
        digest: digest::of_bytes(b""),
    };
    ConnectRequest {
        frame: Some(FromAgent::PolicyStatus(status)),
    }
}
