//! Who is calling, as far as it was proved, and the context that every operator's call carries.

use std::{net::SocketAddr, sync::Arc, time::SystemTime};

use muster_certs::tls::Standing;
use muster_proto::ids::AgentId;
use tokio_util::sync::CancellationToken;

use super::{
    note::Note,
    rights::{Rights, Subject},
    scope::Scopes,
};

/// A peer that was let in.
#[derive(Clone, Debug)]
pub enum Caller {
    /// Without a certificate.
    Anonymous,
    Agent(AgentId),
    /// An agent by name of its certificate, whatever that is worth: for the methods that judge this themselves.
    Renewer(Renewer),
    Operator(Operator),
}

/// A user, or whoever has an API key.
#[derive(Clone, Debug)]
pub struct Operator {
    pub subject: Subject,
    pub rights: Arc<Rights>,
    /// For what the permission counts that the method needs.
    pub scopes: Scopes,
    /// Cancelled when the trust in the certificate or the key ends, though the call is under way.
    pub ended: CancellationToken,
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

/// Why a call that is under way does not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distrust {
    /// The certificate or the key.
    Ended,
    /// What was granted has changed, and what may be seen with it.
    OtherRights,
}

/// In the extensions of every request that was let in.
#[derive(Clone, Debug)]
pub struct OpCtx {
    pub caller: Caller,
    pub source: SocketAddr,
    /// In the log and in every error, so that the two can be brought together.
    pub request_id: String,
    /// What the audit log shall say of it beside who called what.
    pub note: Note,
}

impl OpCtx {
    pub fn operator(&self) -> Option<&Operator> {
        match &self.caller {
            Caller::Operator(operator) => Some(operator),
            Caller::Anonymous | Caller::Agent(_) | Caller::Renewer(_) => None,
        }
    }

    /// For texts and logs: the name of a user, "apikey/<id>"; empty for others.
    pub fn user(&self) -> String {
        match self.operator().map(|operator| &operator.subject) {
            Some(Subject::User(name)) => name.clone(),
            _ => self.who(),
        }
    }

    /// For the audit log: "user/<name>", "apikey/<id>"; empty for others.
    pub fn who(&self) -> String {
        self.operator()
            .map(|operator| operator.subject.to_string())
            .unwrap_or_default()
    }

    /// For what the caller may do this. Who is no operator reaches nothing.
    pub fn scopes(&self) -> Scopes {
        self.operator()
            .map(|operator| operator.scopes.clone())
            .unwrap_or_default()
    }

    /// Resolves when the caller is no longer trusted, or may no longer do what it could.
    pub async fn distrusted(&self) -> Distrust {
        match self.operator() {
            Some(operator) => tokio::select! {
                () = operator.ended.cancelled() => Distrust::Ended,
                () = operator.rights.changed().cancelled() => Distrust::OtherRights,
            },
            None => std::future::pending().await,
        }
    }
}
