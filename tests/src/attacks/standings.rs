//! A client of every standing that a certificate can have, each with real keys: on file, run out, replaced, revoked, or of
//! a CA that only looks like ours.

use std::time::{Duration, SystemTime};

use muster_certs::{csr, identity_file::IdentityFile, key::KeyPair};
use muster_proto::v1::{
    GetTrustBundleRequest, RenewRequest, RevokeAgentRequest, agent_service_client::AgentServiceClient,
    enrollment_service_client::EnrollmentServiceClient,
};

use super::{
    Ground,
    forge::{Credentials, Draft},
};
use crate::dial;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    None,
    Valid,
    Expired,
    Superseded,
    Revoked,
    /// Of our CA, with a serial number that is not on file.
    Unknown,
    /// Of a CA with the name and the key identifier of ours.
    Foreign,
    User,
    UserExpired,
    UserUnknown,
}

pub type Client = (Standing, Option<Credentials>);

/// One client for each standing. Makes agents in the inventory, and revokes one of them.
pub async fn all(ground: &Ground) -> Vec<Client> {
    let ca = ground.ca();
    let valid = ground.stolen("attack-valid");
    let late = ground.stolen("attack-expired");
    let operator = ground.operator();
    // The serial number of a real one, and a life that is over: what the holder of a real one has after its end.
    let past = |identity: &IdentityFile| {
        let now = SystemTime::now();
        let draft = Draft::new(identity.identity().to_string()).with_serial(identity.serial());
        ca.issue(&draft.lasting(now - Duration::from_secs(600), now - Duration::from_secs(1)))
    };
    let unknown = |identity: &IdentityFile| ca.issue(&Draft::new(identity.identity().to_string()));
    let foreign = ca
        .imposter()
        .issue(&Draft::new(valid.identity().to_string()).with_serial(valid.serial()));
    vec![
        (Standing::None, None),
        (Standing::Valid, Some(Credentials::of(&valid))),
        (Standing::Expired, Some(past(&late))),
        (Standing::Superseded, Some(superseded(ground).await)),
        (Standing::Revoked, Some(revoked(ground).await)),
        (Standing::Unknown, Some(unknown(&valid))),
        (Standing::Foreign, Some(foreign)),
        (Standing::User, Some(Credentials::of(&operator))),
        (Standing::UserExpired, Some(past(&operator))),
        (Standing::UserUnknown, Some(unknown(&operator))),
    ]
}

/// The certificate before the one that is in use.
async fn superseded(ground: &Ground) -> Credentials {
    let before = ground.stolen("attack-superseded");
    let port = ground.controller.agents_port;
    let key = KeyPair::generate().expect("a key");
    let request = RenewRequest {
        csr: csr::create(&key).expect("a request"),
        ..RenewRequest::default()
    };
    let channel = dial::channel(&ground.controller, port, Some(&before))
        .await
        .expect("a connection");
    let renewed = EnrollmentServiceClient::new(channel)
        .renew(request)
        .await
        .expect("a renewal")
        .into_inner();
    let chain = renewed.certificates.into_iter().map(Into::into).collect();
    let after = IdentityFile::new(key, chain).expect("an identity");
    let channel = dial::channel(&ground.controller, port, Some(&after))
        .await
        .expect("a connection");
    let used = EnrollmentServiceClient::new(channel)
        .get_trust_bundle(GetTrustBundleRequest {})
        .await;
    used.expect("the new certificate is good");
    Credentials::of(&before)
}

async fn revoked(ground: &Ground) -> Credentials {
    let identity = ground.stolen("attack-revoked");
    let operator = ground.operator();
    let channel = dial::channel(&ground.controller, ground.controller.api_port, Some(&operator)).await;
    let request = RevokeAgentRequest {
        agent: agent_id(&identity),
        reason: "stolen".to_owned(),
    };
    let revoked = AgentServiceClient::new(channel.expect("a connection"))
        .revoke_agent(request)
        .await;
    revoked.expect("the agent is revoked");
    Credentials::of(&identity)
}

pub fn agent_id(identity: &IdentityFile) -> String {
    identity
        .identity()
        .to_string()
        .rsplit('/')
        .next()
        .unwrap_or_default()
        .to_owned()
}
