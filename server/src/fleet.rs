//! What concerns an agent as a whole, in all places at once: inventory, states and link. Durable when it returns, and its link
//! is told to end by then.

use std::sync::Arc;

use muster_proto::ids::AgentId;

use crate::{
    agents::{Agents, Ending, Entry, Error},
    clock::Micros,
    link::{Close, Links},
    states::States,
    store::CertificateRow,
};

#[derive(Clone, Debug)]
pub struct Fleet {
    pub agents: Arc<Agents>,
    pub states: Arc<States>,
    pub links: Arc<Links>,
}

impl Fleet {
    /// Ends the trust in an agent.
    pub async fn revoke(&self, id: AgentId, ending: Ending<'_>, now: Micros) -> Result<Entry, Error> {
        let entry = self.agents.revoke(id, ending, now).await?;
        self.links.cut(id, Close::Revoked);
        Ok(entry)
    }

    /// Ends the trust in one certificate of an agent; none: there is no such certificate.
    pub async fn revoke_certificate(
        &self,
        serial: &str,
        ending: Ending<'_>,
        now: Micros,
    ) -> Result<Option<CertificateRow>, Error> {
        let Some(row) = self.agents.revoke_certificate(serial, ending, now).await? else {
            return Ok(None);
        };
        if let Ok(id) = row.agent_id.parse() {
            self.links.cut_certificate(id, serial, Close::Revoked);
        }
        Ok(Some(row))
    }

    /// Ends the trust in an agent and takes it out of the inventory. `seen`: the revision that the caller knows; 0: whatever it is.
    pub async fn delete(&self, id: AgentId, seen: i64, ending: Ending<'_>, now: Micros) -> Result<(), Error> {
        // Nobody may write a state of it meanwhile: it would outlive the agent.
        let _writing = self.states.writing.lock().await;
        let checks = self.states.checks_of(id);
        self.agents.delete(id, seen, &checks, ending, now).await?;
        self.states.forget(id);
        self.links.cut(id, Close::Revoked);
        Ok(())
    }
}
