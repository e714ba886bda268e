//! Enrollment: a token and a certificate request become an entry of the inventory and a certificate, in one transaction.
//! What is not enrollable leaves nothing behind and uses nothing up.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex},
};

use muster_certs::csr;
use muster_proto::{error::FieldViolation, ids::AgentId, label};

use crate::{
    agents::{Agents, Certificate, Entry},
    changes::Changes,
    clock::{self, MINUTE, Micros},
    net::source_of,
    pki::{self, Pki},
    store::{self, ChangeKind, Db, NewAgent, NewCertificate, Op},
    tokens,
};

const MAX_NAME: usize = label::MAX_VALUE;
/// Refused attempts of one source within a minute before it has to wait; successes do not count, since a whole fleet behind
/// one address may boot at once.
const FAILURES_PER_MINUTE: u32 = 30;
/// Sources remembered.
const MAX_SOURCES: usize = 16_384;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the request is not valid")]
    Invalid(Vec<FieldViolation>),
    #[error("the token is unknown, wrong, expired or used up")]
    TokenRefused,
    #[error("the certificate request is not acceptable")]
    Csr(#[from] csr::Error),
    #[error("the id {0} is already enrolled, and this request does not prove that it is the same machine")]
    AlreadyEnrolled(AgentId),
    #[error("too many refused attempts from this address")]
    RateLimited,
    #[error("failed to issue the certificate")]
    Pki(#[from] pki::Error),
    #[error("failed to store the enrollment")]
    Store(#[from] store::Error),
}

/// What a machine asks with.
#[derive(Clone, Debug)]
pub struct Request {
    pub token: String,
    /// None: the controller makes one.
    pub agent_id: Option<AgentId>,
    pub csr: Vec<u8>,
    pub name: String,
    /// Claims.
    pub labels: BTreeMap<String, String>,
    pub version: String,
    pub source: IpAddr,
}

#[derive(Clone, Debug)]
pub struct Enrolled {
    pub agent_id: AgentId,
    pub name: String,
    /// DER.
    pub certificate: Vec<u8>,
    /// False: the same request had been answered before.
    pub is_new: bool,
}

#[derive(Debug)]
pub struct Enroller {
    pub db: Db,
    pub changes: Changes,
    pub pki: Arc<Pki>,
    pub agents: Arc<Agents>,
    failures: Mutex<HashMap<IpAddr, (Micros, u32)>>,
    /// Held over an enrollment, so that a request that is repeated while it is under way gets the same answer.
    writing: tokio::sync::Mutex<()>,
}

impl Enroller {
    pub fn new(db: Db, changes: Changes, pki: Arc<Pki>, agents: Arc<Agents>) -> Self {
        Self {
            db,
            changes,
            pki,
            agents,
            failures: Mutex::default(),
            writing: tokio::sync::Mutex::default(),
        }
    }

    pub async fn enroll(&self, request: Request, now: Micros) -> Result<Enrolled, Error> {
        let source = source_of(request.source);
        if self.failures_of(source, now) >= FAILURES_PER_MINUTE {
            return Err(Error::RateLimited);
        }
        let result = self.try_enroll(request, now).await;
        if matches!(result, Err(Error::TokenRefused | Error::Csr(_))) {
            self.count_failure(source, now);
        }
        result
    }

    async fn try_enroll(&self, request: Request, now: Micros) -> Result<Enrolled, Error> {
        // The token first: who has none learns nothing about the rest of the request.
        let token = tokens::check(&self.db, &request.token, now)
            .await
            .map_err(|error| match error {
                tokens::Error::Store(error) => Error::Store(error),
                _ => Error::TokenRefused,
            })?;
        let violations = violations(&request.name, &request.labels, &request.version);
        if !violations.is_empty() {
            return Err(Error::Invalid(violations));
        }
        let public_key = csr::verify(&request.csr)?;
        let fingerprint = public_key.fingerprint();

        let _writing = self.writing.lock().await;
        // A lost reply burns nothing: the same token with the same key gets the same certificate again.
        if let Some(row) = self.db.redemption_get(&token.id, &fingerprint).await?
            && let Some(entry) = row.agent_id.parse().ok().and_then(|id| self.agents.get(id))
            && request.agent_id.is_none_or(|id| id == entry.id)
        {
            return Ok(Enrolled {
                agent_id: entry.id,
                name: entry.name,
                certificate: row.certificate,
                is_new: false,
            });
        }

        let id = request.agent_id.unwrap_or_else(AgentId::random);
        let issued = self.pki.issue_agent(id.uuid(), &public_key, clock::to_system(now))?;
        let not_after = clock::from_system(issued.not_after);

        let _held = self.changes.hold().await;
        let mut tx = self.db.begin().await?;
        let changes = [
            (ChangeKind::Agent, id.to_string(), Op::Put),
            (ChangeKind::Token, token.id.clone(), Op::Put),
        ];
        let revision = tx.changes_add(now, &changes).await?;
        if !tx.token_use(&token.id, revision + 1, now).await? {
            return Err(Error::TokenRefused);
        }
        let agent = NewAgent {
            id,
            name: &request.name,
            agent_labels: &serde_json::json!(request.labels).to_string(),
            token_labels: &token.labels,
            version: &request.version,
            now,
            revision,
        };
        if !tx.agent_insert(&agent).await? {
            return Err(Error::AlreadyEnrolled(id));
        }
        tx.agent_certificate_insert(&NewCertificate {
            agent_id: &id.to_string(),
            serial: &issued.serial,
            not_after,
            public_key: &fingerprint,
            ca: &issued.ca,
            predecessor: "",
            certificate: &issued.der,
            now,
        })
        .await?;
        tx.redemption_insert(&token.id, &fingerprint, &id.to_string(), &issued.der, now)
            .await?;
        tx.commit().await?;

        let mut entry = Entry::from(&agent);
        entry.certificate = Certificate {
            serial: issued.serial,
            not_after,
            issued_at: now,
            ca: issued.ca,
            public_key: fingerprint,
            is_used: false,
        };
        self.agents.inserted(entry);
        Ok(Enrolled {
            agent_id: id,
            name: request.name,
            certificate: issued.der.to_vec(),
            is_new: true,
        })
    }

    fn failures_of(&self, source: IpAddr, now: Micros) -> u32 {
        let failures = self.failures.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        failures
            .get(&source)
            .filter(|(since, _)| (now - since).abs() < MINUTE)
            .map_or(0, |(_, count)| *count)
    }

    fn count_failure(&self, source: IpAddr, now: Micros) {
        let mut failures = self.failures.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if failures.len() >= MAX_SOURCES {
            failures.retain(|_, (since, _)| (now - *since).abs() < MINUTE);
            if failures.len() >= MAX_SOURCES {
                return;
            }
        }
        let entry = failures.entry(source).or_insert((now, 0));
        if (now - entry.0).abs() >= MINUTE {
            *entry = (now, 0);
        }
        entry.1 += 1;
    }
}

/// What a machine says of itself has to be fit for tables, terminals and the database.
pub fn violations(name: &str, labels: &BTreeMap<String, String>, version: &str) -> Vec<FieldViolation> {
    let mut violations = tokens::label_violations("labels", labels);
    // As for values of labels: nothing that a terminal or a table would act on, and not blanks alone.
    if name.is_empty() || !label::value_is_valid(name) {
        let text = format!("must be 1 to {MAX_NAME} bytes without control characters and without blanks at its ends");
        violations.push(FieldViolation::new("name", text));
    }
    if version.len() > 64 || !label::value_is_valid(version) {
        let text = "must be at most 64 bytes without control characters";
        violations.push(FieldViolation::new("agent_version", text));
    }
    violations
}
