//! Renewal: an agent proves with its certificate that it is itself, and gets another one for a new key. Which certificates
//! are good for that is decided here, by pure rules; what a certificate is worth otherwise, `access` says.

mod lost;
mod rules;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use muster_certs::{csr, tls::Standing};
use muster_proto::{
    ids::AgentId,
    v1::{AgentStatus, EventSeverity},
};

pub use rules::{Facts, Refusal, Special};

use crate::{
    agents::{Agents, Certificate, Entry, OnClone},
    clock::{self, Micros},
    clones::{self, Party},
    events::{self, Event},
    link::Links,
    pki::{self, Pki},
    store::{self, Db, NewCertificate},
};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the certificate request is not acceptable")]
    Csr(#[from] csr::Error),
    #[error("the certificate does not renew")]
    Refused(Refusal),
    #[error("another machine is connected as this agent")]
    Clone(Box<clones::Refusal>),
    #[error("failed to issue the certificate")]
    Pki(#[from] pki::Error),
    #[error("failed to store the renewal")]
    Store(#[from] store::Error),
}

/// What an agent asks with.
#[derive(Clone, Debug)]
pub struct Request {
    pub agent: AgentId,
    /// The certificate of the connection.
    pub serial: String,
    pub standing: Standing,
    pub not_before: Micros,
    pub not_after: Micros,
    pub csr: Vec<u8>,
    /// The machine and process that ask.
    pub party: Party,
}

#[derive(Debug)]
pub struct Renewer {
    pub db: Db,
    pub pki: Arc<Pki>,
    pub agents: Arc<Agents>,
    pub links: Arc<Links>,
    /// How long after its end a certificate still renews.
    pub grace: Micros,
    /// What happens to copies, where nothing else is said.
    pub on_clone: OnClone,
    /// The backup that was restored last, if any.
    pub restored: Option<store::Restored>,
    /// Agents that it does not know.
    lost: lost::Lost,
    /// Held over an issue, so that a repeated request gets the same answer.
    writing: tokio::sync::Mutex<()>,
}

impl Renewer {
    pub async fn new(
        db: Db,
        pki: Arc<Pki>,
        agents: Arc<Agents>,
        links: Arc<Links>,
        grace: Micros,
        on_clone: OnClone,
    ) -> Result<Self, store::Error> {
        Ok(Self {
            restored: db.restored().await?,
            db,
            pki,
            agents,
            links,
            grace,
            on_clone,
            lost: lost::Lost::default(),
            writing: tokio::sync::Mutex::default(),
        })
    }

    /// The new certificate, DER.
    pub async fn renew(&self, request: Request, now: Micros) -> Result<Vec<u8>, Error> {
        let key = csr::verify(&request.csr)?;
        let public_key = key.fingerprint();
        let id = request.agent;
        // One that is merely expected has never been here, as far as this database knows.
        let is_expected = |entry: &Entry| entry.status == AgentStatus::Expected;
        if self.agents.with(id, is_expected).unwrap_or(true) {
            return Err(self.not_on_file(&request, now).await);
        }
        // Another process that holds the agent's link, and answers, is the agent. One that has lost it a moment ago may be.
        let holder = self.links.holder(id);
        let is_other = match &holder {
            Some(holder) => !holder.is_same_process(&request.party) && self.links.probe(id).await,
            None => request.party.was_refused && !self.agents.is_gone(id, self.links.absence(), now),
        };
        if is_other {
            let refusal = self
                .agents
                .clone_refused(id, holder.as_deref(), &request.party, self.on_clone, now)
                .ok_or(Error::Refused(Refusal::Unknown))?;
            return Err(Error::Clone(Box::new(refusal)));
        }

        let _writing = self.writing.lock().await;
        let entry = self.agents.get(id).ok_or(Error::Refused(Refusal::Unknown))?;
        let facts = Facts {
            standing: request.standing,
            not_before: request.not_before,
            not_after: request.not_after,
            is_trusted: entry.is_trusted(),
            readmit_until: entry.readmit_until,
            // One that nobody has shown yet may never have arrived.
            last_issued_at: entry.certificate.issued_at,
            grace: self.grace,
            restored: self.restored,
        };
        let special = rules::decide(&facts, now).map_err(Error::Refused)?;
        let live = [Some(&entry.certificate), entry.next.as_ref()];
        let repeated = live.into_iter().flatten().find(|known| known.public_key == public_key);
        if let Some(known) = repeated
            && let Some(der) = self.db.agent_certificate_der(&known.serial).await?
        {
            return Ok(der);
        }

        let issued = self.pki.issue_agent(id.uuid(), &key, clock::to_system(now))?;
        let not_after = clock::from_system(issued.not_after);
        let agent_id = id.to_string();
        let mut tx = self.db.begin().await?;
        if !tx.agent_may_be_issued(&agent_id, entry.epoch, &request.serial).await? {
            return Err(Error::Refused(Refusal::Revoked));
        }
        if let Some(unused) = &entry.next {
            tx.agent_certificate_supersede(&unused.serial, now).await?;
        }
        tx.agent_certificate_insert(NewCertificate {
            agent_id: &agent_id,
            serial: &issued.serial,
            not_after,
            public_key: &public_key,
            ca: &issued.ca,
            predecessor: &request.serial,
            certificate: &issued.der,
            now,
        })
        .await?;
        if let Some(special) = special {
            let event = event(special, &entry.name, &request, now);
            tx.event_insert_all(&[event.into_row()]).await?;
        }
        tx.commit().await?;
        self.agents.certificate_issued(
            id,
            Certificate {
                serial: issued.serial,
                not_after,
                issued_at: now,
                ca: issued.ca,
                public_key,
                is_used: false,
            },
        );
        Ok(issued.der.to_vec())
    }
}

impl Renewer {
    async fn not_on_file(&self, request: &Request, now: Micros) -> Error {
        if !self.agents.is_deleted(request.agent)
            && let Some(event) = self.lost.event(request, self.restored, now)
        {
            events::record(&self.db, vec![event]).await;
        }
        Error::Refused(Refusal::Unknown)
    }
}

fn event(special: Special, name: &str, request: &Request, now: Micros) -> Event {
    let ended = clock::to_text(request.not_after);
    let (reason, text) = match special {
        Special::InGrace => (
            "AGENT_RENEWED_IN_GRACE",
            format!("{name} renewed a certificate that had expired at {ended}"),
        ),
        Special::Readmitted => (
            "AGENT_READMITTED",
            format!("{name} was readmitted; its certificate had expired at {ended}"),
        ),
        Special::Snapshot => (
            "AGENT_SNAPSHOT_RESTORED",
            format!(
                "{name} came back with an older certificate while the newer one was silent: a snapshot was put back"
            ),
        ),
        Special::AfterRestore => (
            "AGENT_RENEWED_AFTER_RESTORE",
            format!(
                "{name} renewed a certificate that was issued after the backup that this controller was restored from"
            ),
        ),
    };
    Event::new(reason, Some(request.agent), text, now)
        .severity(EventSeverity::Warning)
        .with("serial", &request.serial)
        .with("not_after", ended)
}
