//! What is there for a caller with a scope: what is about agents in it, and what was made in exactly that scope.

use muster_proto::error::{ErrorReason, Problem};
use tonic::Code;

use super::{Api, problem::invalid_field};
use crate::access::{
    OpCtx, labels,
    scope::{Scope, Scopes, Unclear},
};

impl Api {
    /// Whether what is about this agent is there for a caller; of an agent that is gone, for who has no scope: which labels it had
    /// nobody knows any longer.
    pub(super) fn reaches(&self, scopes: &Scopes, agent_id: &str) -> bool {
        let is_in = |id| self.agents.with(id, |entry| entry.is_in(scopes)) == Some(true);
        scopes.is_all() || agent_id.parse().is_ok_and(is_in)
    }
}

/// Whether a resource of this scope is there for the caller.
pub fn has_scope(ctx: &OpCtx, scope: &str) -> bool {
    Scope::parse(scope).is_ok_and(|scope| ctx.scopes().has(&scope))
}

/// The scope of what the caller makes now: as it says, or the only one it has.
pub fn scope_for_new(scopes: &Scopes, asked: &str) -> Result<Scope, Problem> {
    let asked = Scope::parse(asked).map_err(|error| invalid_field("scope", error.to_string()))?;
    scopes.for_new(&asked).map_err(|unclear| {
        let own: Vec<String> = scopes.iter().map(ToString::to_string).collect();
        let own = own.join(" or ");
        match unclear {
            Unclear::Several => invalid_field("scope", format!("is missing, and may be {own}")),
            Unclear::Foreign => out_of_scope(format!("the scope {asked} is none of the caller's, which are {own}")),
        }
    })
}

pub fn out_of_scope(text: String) -> Problem {
    Problem::new(Code::PermissionDenied, ErrorReason::OutOfScope, text)
}

impl From<labels::Refusal> for Problem {
    fn from(refusal: labels::Refusal) -> Self {
        out_of_scope(refusal.to_string())
    }
}
