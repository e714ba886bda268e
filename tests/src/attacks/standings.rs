//! A client of every standing that a certificate can have, each with real keys: on file, run out, replaced, revoked, or of
//! a CA that only looks like ours.

use std::time::{Duration, SystemTime};

use muster_certs::{csr, identity_file::IdentityFile, key::KeyPair};
use muster_proto::v1::{
    CreateUserRequest, GetTrustBundleRequest, RenewRequest, RevokeAgentRequest, RevokeUserRequest,
    agent_service_client::AgentServiceClient, enrollment_service_client::EnrollmentServiceClient,
    user_service_client::UserServiceClient,
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
    UserRevoked,
}

pub type Client = (Standing, Option<Credentials>);

/// One client for each standing. Makes agents in the inventory and an operator, and revokes one of them and the
/// operator.
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
        (Standing::UserRevoked, Some(revoked_user(ground).await)),
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

/// An operator who had a good certificate until a moment ago.
async fn revoked_user(ground: &Ground) -> Credentials {
    let operator = ground.operator();
    let channel = dial::channel(&ground.controller, ground.controller.api_port, Some(&operator)).await;
    let mut users = UserServiceClient::new(channel.expect("a connection"));
    let key = KeyPair::generate().expect("a key");
    let name = "attack-revoked";
    let create = CreateUserRequest {
        name: name.to_owned(),
        csr: csr::create(&key).expect("a request"),
        // Who attacks once more finds the one of before.
        reinstate: true,
        ..CreateUserRequest::default()
    };
    let created = users.create_user(create).await.expect("a user").into_inner();
    let revoke = RevokeUserRequest {
        name: name.to_owned(),
        reason: "stolen".to_owned(),
    };
    users.revoke_user(revoke).await.expect("the user is revoked");
    let chain = created.certificates.into_iter().map(Into::into).collect();
    Credentials::of(&IdentityFile::new(key, chain).expect("an identity"))
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
