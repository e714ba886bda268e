//! Every method at both listeners with a client of every standing, against a table of its own of what each may call. What
//! gets through the door is a message that cannot be read, so that nothing is done.

use muster_proto::json::descriptor_pool;

use super::{
    Ground,
    dialer::Call,
    report::Category,
    standings::{self, Standing},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    Agents,
    Api,
}

/// Who is meant to call a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    Newcomer,
    NewcomerOrAgent,
    Agent,
    /// An agent in any standing but revoked; the method decides.
    Renewer,
    Admin,
    Anyone,
}

/// Two bytes that begin no message.
const UNREADABLE: &[u8] = &[0xff, 0xff];
const NOT_ALLOWED: &[&str] = &[
    "UNIMPLEMENTED METHOD_NOT_ALLOWED",
    "PERMISSION_DENIED METHOD_NOT_ALLOWED",
];
const THROUGH: &[&str] = &["INVALID_ARGUMENT PROTOCOL_VIOLATION"];
/// Methods that are not ours say it in their own way.
const THROUGH_TO_OTHERS: &[&str] = &["INVALID_ARGUMENT", "UNIMPLEMENTED PROTOCOL_VIOLATION", "INTERNAL", "OK"];
const NO_HANDSHAKE: &[&str] = &["TLS alert", "closed"];

/// All methods: those of the contract by their service, and those of others.
pub fn table() -> Vec<(String, Listener, Who)> {
    let mut table = Vec::new();
    for service in descriptor_pool()
        .services()
        .filter(|service| service.package_name() == "muster.v1")
    {
        for method in service.methods() {
            let (listener, who) = match (service.name(), method.name()) {
                ("EnrollmentService", "Enroll") => (Listener::Agents, Who::Newcomer),
                ("EnrollmentService", "GetTrustBundle") => (Listener::Agents, Who::NewcomerOrAgent),
                ("EnrollmentService", _) => (Listener::Agents, Who::Renewer),
                ("LinkService", _) => (Listener::Agents, Who::Agent),
                _ => (Listener::Api, Who::Admin),
            };
            table.push((format!("/{}/{}", service.full_name(), method.name()), listener, who));
        }
    }
    let others = [
        ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Who::Admin),
        (
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            Who::Admin,
        ),
        ("/grpc.health.v1.Health/Check", Who::Anyone),
        ("/grpc.health.v1.Health/Watch", Who::Admin),
        ("/grpc.health.v1.Health/List", Who::Anyone),
    ];
    table.extend(others.map(|(path, who)| (path.to_owned(), Listener::Api, who)));
    table
}

pub async fn attack(ground: &Ground, category: &mut Category) {
    let clients = standings::all(ground).await;
    let table = table();
    for (standing, credentials) in &clients {
        for (called, port) in [
            (Listener::Agents, ground.dialer.agents_port),
            (Listener::Api, ground.dialer.api_port),
        ] {
            for (path, served, who) in &table {
                let call = Call::grpc(path, UNREADABLE);
                let got = ground.dialer.from(12, 1).call(port, credentials.as_ref(), call).await;
                let mut accepted = expected(called == *served, *who, *standing);
                if accepted == THROUGH && path.starts_with("/grpc.") {
                    accepted = THROUGH_TO_OTHERS;
                }
                category.one(format!("{standing:?} calls {path} at {called:?}"), got, accepted);
            }
        }
    }
}

fn expected(is_served: bool, who: Who, standing: Standing) -> &'static [&'static str] {
    match (who, standing) {
        (_, Standing::Foreign) => NO_HANDSHAKE,
        _ if !is_served => NOT_ALLOWED,
        (Who::Anyone, _)
        | (Who::Newcomer | Who::NewcomerOrAgent, Standing::None)
        | (Who::NewcomerOrAgent | Who::Agent, Standing::Valid)
        | (Who::Renewer, Standing::Valid | Standing::Expired | Standing::Superseded | Standing::Unknown)
        | (Who::Admin, Standing::User) => THROUGH,
        (_, Standing::None) => &["UNAUTHENTICATED CERTIFICATE_REQUIRED"],
        (Who::NewcomerOrAgent | Who::Agent, Standing::Expired) | (Who::Admin, Standing::UserExpired) => {
            &["UNAUTHENTICATED CERTIFICATE_EXPIRED"]
        }
        (Who::NewcomerOrAgent | Who::Agent, Standing::Superseded) => &["UNAUTHENTICATED CERTIFICATE_SUPERSEDED"],
        (Who::NewcomerOrAgent | Who::Agent | Who::Renewer, Standing::Revoked) | (Who::Admin, Standing::UserRevoked) => {
            &["UNAUTHENTICATED CERTIFICATE_REVOKED"]
        }
        (Who::NewcomerOrAgent | Who::Agent, Standing::Unknown) | (Who::Admin, Standing::UserUnknown) => {
            &["UNAUTHENTICATED CERTIFICATE_UNKNOWN"]
        }
        _ => NOT_ALLOWED,
    }
}
