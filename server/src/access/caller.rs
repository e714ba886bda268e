//! Who is calling, as far as it was proved, and the context that every operator's call carries.

use std::net::SocketAddr;

use muster_proto::ids::AgentId;

/// A peer that was let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Without a certificate.
    Anonymous,
    Agent(AgentId),
    User {
        name: String,
    },
}

/// In the extensions of every request that was let in.
#[derive(Clone, Debug)]
pub struct OpCtx {
    pub caller: Caller,
    pub source: SocketAddr,
    /// In the log and in every error, so that the two can be brought together.
    pub request_id: String,
}

impl OpCtx {
    /// The operator's name; empty for others.
    pub fn user(&self) -> &str {
        match &self.caller {
            Caller::User { name } => name,
            Caller::Anonymous | Caller::Agent(_) => "",
        }
    }
}
