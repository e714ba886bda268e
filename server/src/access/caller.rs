//! Who is calling, as far as it was proved, and the context that every operator's call carries.

use std::{net::SocketAddr, time::SystemTime};

use muster_certs::tls::Standing;
use muster_proto::ids::AgentId;
use tokio_util::sync::CancellationToken;

/// A peer that was let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Without a certificate.
    Anonymous,
    Agent(AgentId),
    /// An agent by name of its certificate, whatever that is worth: for the methods that judge this themselves.
    Renewer(Renewer),
    User {
        name: String,
    },
}

/// An agent's certificate, proved by the handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewer {
    pub agent: AgentId,
    pub serial: String,
    pub standing: Standing,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
}

/// In the extensions of every request that was let in.
#[derive(Clone, Debug)]
pub struct OpCtx {
    pub caller: Caller,
    pub source: SocketAddr,
    /// In the log and in every error, so that the two can be brought together.
    pub request_id: String,
    /// Cancelled when the trust in the caller ends, though the call is under way. None: nobody tells.
    pub ended: Option<CancellationToken>,
}

impl OpCtx {
    /// The operator's name; empty for others.
    pub fn user(&self) -> &str {
        match &self.caller {
            Caller::User { name } => name,
            Caller::Anonymous | Caller::Agent(_) | Caller::Renewer(_) => "",
        }
    }

    /// Resolves when the caller is no longer trusted.
    pub async fn distrusted(&self) {
        match &self.ended {
            Some(ended) => ended.cancelled().await,
            None => std::future::pending().await,
        }
    }
}
