//! Forks: a copy of an agent that was refused becomes an agent of its own, with the labels that a token gave the other one
//! and a certificate of its own. Only where that is allowed, and only for who holds a certificate of the parent. Knows no
//! transport.

use std::{collections::BTreeMap, sync::Arc};

use muster_certs::{csr, tls::Standing};
use muster_proto::{error::FieldViolation, ids::AgentId, v1::EventSeverity};

use crate::{
    agents::{self, Agents, Certificate, Entry, OnClone},
    changes::Changes,
    clock::{self, Micros},
    clones::{self, Party},
    enroll,
    events::Event,
    pki::{self, Pki},
    store::{self, ChangeKind, Db, NewAgent, NewCertificate, NewRedemption, Op},
};

/// Copies of one agent that become agents of their own within an hour. More are an accident: an image that starts in a loop.
const FORKS_PER_HOUR: u32 = 1_000;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the request is not valid")]
    Invalid(Vec<FieldViolation>),
    #[error("the certificate request is not acceptable")]
    Csr(#[from] csr::Error),
    #[error("a certificate that is {0} does not fork")]
    Standing(Standing),
    #[error("copies of agent {0} are refused")]
    NotAllowed(AgentId),
    #[error("no other machine is connected as agent {0}")]
    NoConflict(AgentId),
    #[error("the id {0} is taken")]
    IdTaken(AgentId),
    #[error("the id {0} belonged to an agent that was deleted")]
    Deleted(AgentId),
    #[error("too many copies of agent {0} became agents within an hour")]
    TooMany(AgentId),
    #[error("the key is that of agent {0}, and a copy needs its own")]
    SameKey(AgentId),
    #[error("failed to issue the certificate")]
    Pki(#[from] pki::Error),
    #[error(transparent)]
    Agents(#[from] agents::Error),
    #[error("failed to store the fork")]
    Store(#[from] store::Error),
}

/// What a copy asks with.
#[derive(Clone, Debug)]
pub struct Request {
    pub parent: AgentId,
    /// Of the certificate that it shows, and what that is worth.
    pub serial: String,
    pub standing: Standing,
    pub not_after: Micros,
    /// Of the new agent, made by the machine.
    pub id: AgentId,
    pub csr: Vec<u8>,
    pub name: String,
    /// Claims.
    pub labels: BTreeMap<String, String>,
    pub version: String,
    pub party: Party,
}

#[derive(Clone, Debug)]
pub struct Forked {
    pub name: String,
    /// DER.
    pub certificate: Vec<u8>,
    /// False: the same request had been answered before.
    pub is_new: bool,
}

#[derive(Debug)]
pub struct Forks {
    db: Db,
    changes: Changes,
    pki: Arc<Pki>,
    agents: Arc<Agents>,
    /// How long after its end a certificate still forks.
    grace: Micros,
    /// What happens to copies unless somebody says otherwise.
    on_clone: OnClone,
    /// Held over a fork, so that a request that is repeated while it is under way gets the same answer.
    writing: tokio::sync::Mutex<()>,
}

impl Forks {
    pub fn new(db: Db, changes: Changes, pki: Arc<Pki>, agents: Arc<Agents>, grace: Micros, on_clone: OnClone) -> Self {
        Self {
            db,
            changes,
            pki,
            agents,
            grace,
            on_clone,
            writing: tokio::sync::Mutex::default(),
        }
    }

    pub async fn fork(&self, request: Request, now: Micros) -> Result<Forked, Error> {
        let is_good = match request.standing {
            Standing::Valid | Standing::Superseded => true,
            Standing::Expired => now <= request.not_after.saturating_add(self.grace),
            Standing::None | Standing::Revoked | Standing::Unknown => false,
        };
        if !is_good {
            return Err(Error::Standing(request.standing));
        }
        let violations = enroll::violations(&request.name, &request.labels, &request.version);
        if !violations.is_empty() {
            return Err(Error::Invalid(violations));
        }
        let key = csr::verify(&request.csr)?;
        let public_key = key.fingerprint();

        let _writing = self.writing.lock().await;
        let token = format!("fork:{}", request.serial);
        if let Some(forked) = self.repeated(&request, &token, &public_key).await? {
            return Ok(forked);
        }
        let _held = self.changes.hold().await;
        // Under the hold: whoever ends the trust in the parent holds it too.
        let parent = self
            .agents
            .get(request.parent)
            .filter(Entry::is_trusted)
            .ok_or(Error::Standing(Standing::Revoked))?;
        self.check(&parent, &request, &public_key, now).await?;

        let issued = self.pki.issue_agent(request.id.uuid(), &key, clock::to_system(now))?;
        let not_after = clock::from_system(issued.not_after);
        let id = request.id.to_string();
        let mut tx = self.db.begin().await?;
        let revision = tx.change_add(now, ChangeKind::Agent, &id, Op::Put).await?;
        // The certificate may have been revoked since the door let its holder in.
        let parent_id = request.parent.to_string();
        if !tx.agent_may_fork(&parent_id, parent.epoch, &request.serial).await? {
            return Err(Error::Standing(Standing::Revoked));
        }
        let token_labels = serde_json::json!(parent.token_labels).to_string();
        let agent = NewAgent {
            id: request.id,
            name: &request.name,
            agent_labels: &serde_json::json!(request.labels).to_string(),
            token_labels: &token_labels,
            version: &request.version,
            now,
            revision,
        };
        if !tx.agent_insert(agent.clone()).await? {
            return Err(Error::IdTaken(request.id));
        }
        let on_clone = parent.on_clone.map_or("", OnClone::as_str);
        tx.agent_set_parent(&id, &parent_id, on_clone, parent.ephemeral).await?;
        tx.agent_certificate_insert(NewCertificate {
            agent_id: &id,
            serial: &issued.serial,
            not_after,
            public_key: &public_key,
            ca: &issued.ca,
            predecessor: &request.serial,
            certificate: &issued.der,
            now,
        })
        .await?;
        tx.redemption_put_all(&[NewRedemption {
            token_id: &token,
            public_key: &public_key,
            agent_id: &id,
            certificate: &issued.der,
            source: &request.party.remote,
            now,
        }])
        .await?;
        tx.event_insert_all(&[event(&parent, &request, now).into_row()]).await?;
        tx.commit().await?;

        let mut entry = Entry::from(&agent);
        entry.on_clone = parent.on_clone;
        entry.ephemeral = parent.ephemeral;
        entry.forked_from = Some(request.parent);
        entry.certificate = Certificate {
            serial: issued.serial,
            not_after,
            issued_at: now,
            ca: issued.ca,
            public_key,
            is_used: false,
        };
        self.agents.inserted(entry);
        Ok(Forked {
            name: request.name,
            certificate: issued.der.to_vec(),
            is_new: true,
        })
    }

    /// A lost reply is given again: by what was shown and asked with, or, when the copy shows another certificate by now, by
    /// the agent and its key.
    async fn repeated(&self, request: &Request, token: &str, public_key: &str) -> Result<Option<Forked>, Error> {
        let forked = |entry: Entry, certificate| Forked {
            name: entry.name,
            certificate,
            is_new: false,
        };
        let entry = self
            .agents
            .get(request.id)
            .filter(|entry| entry.forked_from == Some(request.parent) && entry.is_trusted());
        let Some(entry) = entry else { return Ok(None) };
        if let Some(row) = self.db.redemption_get(token, public_key).await?
            && row.agent_id == request.id.to_string()
        {
            return Ok(Some(forked(entry, row.certificate)));
        }
        let known = [Some(&entry.certificate), entry.next.as_ref()];
        let serial = known
            .into_iter()
            .flatten()
            .find(|known| known.public_key == public_key)
            .map(|known| known.serial.clone());
        let Some(serial) = serial else { return Ok(None) };
        let der = self.db.agent_certificate_der(&serial).await?;
        Ok(der.map(|der| forked(entry, der)))
    }

    async fn check(&self, parent: &Entry, request: &Request, public_key: &str, now: Micros) -> Result<(), Error> {
        if clones::on_clone(parent.fork_until, parent.on_clone, self.on_clone, now) != OnClone::Fork {
            return Err(Error::NotAllowed(parent.id));
        }
        if !parent.conflict.is_open(now) {
            return Err(Error::NoConflict(parent.id));
        }
        let of_parent = [Some(&parent.certificate), parent.next.as_ref()];
        if of_parent
            .into_iter()
            .flatten()
            .any(|known| known.public_key == public_key)
        {
            return Err(Error::SameKey(parent.id));
        }
        if self.agents.with(request.id, |_| ()).is_some() {
            return Err(Error::IdTaken(request.id));
        }
        if self.db.agent_was_deleted(&request.id.to_string()).await? {
            return Err(Error::Deleted(request.id));
        }
        if !self.agents.count_fork(parent.id, FORKS_PER_HOUR, now) {
            return Err(Error::TooMany(parent.id));
        }
        Ok(())
    }

    /// An operator lets copies become agents for a while; durable when it returns.
    pub async fn open_window(&self, id: AgentId, window: Micros, now: Micros) -> Result<Entry, Error> {
        let _held = self.changes.hold().await;
        let name = self
            .agents
            .with(id, |entry| entry.name.clone())
            .ok_or_else(|| agents::Error::NotFound(id.to_string()))?;
        let until = now.saturating_add(window);
        let mut tx = self.db.begin().await?;
        let revision = tx.change_add(now, ChangeKind::Agent, &id.to_string(), Op::Put).await?;
        tx.agent_set_fork_until(&id.to_string(), until, revision).await?;
        let text = format!(
            "copies of {name} may become agents of their own until {}",
            clock::to_text(until)
        );
        let event = Event::new("AGENT_FORK_OPENED", Some(id), text, now);
        tx.event_insert_all(&[event.into_row()]).await?;
        tx.commit().await?;
        let entry = self
            .agents
            .fork_opened(id, until, revision)
            .ok_or_else(|| agents::Error::NotFound(id.to_string()))?;
        self.changes.committed();
        Ok(entry)
    }
}

fn event(parent: &Entry, request: &Request, now: Micros) -> Event {
    let text = format!(
        "{} was a copy of {} and is an agent of its own now: {}",
        request.name,
        parent.name,
        request.party.describe()
    );
    Event::new("AGENT_FORKED", Some(request.id), text, now)
        .severity(EventSeverity::Info)
        .with("forked_from", parent.id)
        .with("serial", &request.serial)
        .with("remote", &request.party.remote)
        .with("machine_id", &request.party.machine)
        .with("boot_id", &request.party.boot)
}
