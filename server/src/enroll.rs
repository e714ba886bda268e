//! Enrollment: a token and a certificate request become an entry of the inventory and a certificate, in one transaction.
//! What is not enrollable leaves nothing behind and uses nothing up. Whom a request is for is in `matching`, how many of them
//! are stored at once in `commit`.

mod commit;
pub mod matching;
mod rows;

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex},
};

use muster_certs::csr;
use muster_proto::{error::FieldViolation, ids::AgentId, label};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use self::{commit::Job, matching::Mismatch};
use crate::{
    access::rights::RightsOfAll,
    agents::{Agents, Certificate},
    changes::Changes,
    clock::{self, MINUTE, Micros},
    link::Links,
    net::source_of,
    pki::{self, Pki},
    store::{self, Db},
    tokens,
};

const MAX_NAME: usize = label::MAX_VALUE;
/// Refused attempts of one source within a minute before it has to wait; successes do not count, since a whole fleet behind
/// one address may boot at once.
const FAILURES_PER_MINUTE: u32 = 30;
/// Sources remembered.
const MAX_SOURCES: usize = 16_384;
/// Requests that wait for a commit; whoever finds the queue full waits to get in.
const QUEUE: usize = 1_024;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the request is not valid")]
    Invalid(Vec<FieldViolation>),
    #[error("the token is unknown, wrong, expired or used up")]
    TokenRefused,
    #[error("the certificate request is not acceptable")]
    Csr(#[from] csr::Error),
    #[error("the id {0} is not for this machine")]
    Mismatch(AgentId, Mismatch),
    #[error("too many refused attempts from this address")]
    RateLimited,
    #[error("failed to issue the certificate")]
    Pki(#[from] pki::Error),
    #[error("failed to store the enrollment")]
    Store(#[from] store::Error),
    #[error("the enrollment was not stored")]
    NotStored,
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
    db: Db,
    changes: Changes,
    pki: Arc<Pki>,
    agents: Arc<Agents>,
    rights: Arc<RightsOfAll>,
    links: Arc<Links>,
    failures: Mutex<HashMap<IpAddr, (Micros, u32)>>,
    recent: tokens::Recent,
    jobs: mpsc::Sender<Job>,
    queue: Mutex<Option<mpsc::Receiver<Job>>>,
}

impl Enroller {
    pub fn new(
        db: Db,
        changes: Changes,
        pki: Arc<Pki>,
        agents: Arc<Agents>,
        rights: Arc<RightsOfAll>,
        links: Arc<Links>,
    ) -> Self {
        let (jobs, queue) = mpsc::channel(QUEUE);
        Self {
            db,
            changes,
            pki,
            agents,
            rights,
            links,
            failures: Mutex::default(),
            recent: tokens::Recent::default(),
            jobs,
            queue: Mutex::new(Some(queue)),
        }
    }

    /// Stores enrollments until `shutdown`; nothing is enrolled without it.
    pub async fn run(&self, shutdown: CancellationToken) {
        let queue = self
            .queue
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .take();
        if let Some(queue) = queue {
            self.store_all(queue, shutdown).await;
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
        let token = tokens::check(
            &self.db,
            &self.recent,
            &request.token,
            request.source,
            request.agent_id,
            now,
        )
        .await
        .map_err(|error| match error {
            tokens::Error::Store(error) => Error::Store(error),
            _ => Error::TokenRefused,
        })?;
        let violations = violations(&request.name, &request.labels, &request.version);
        if !violations.is_empty() {
            return Err(Error::Invalid(violations));
        }
        let key = csr::verify(&request.csr)?;
        let public_key = key.fingerprint();
        let grant = tokens::grant(&token).map_err(|_| Error::TokenRefused)?;
        // Of a token that is bound to an agent, the id need not be told.
        let asked = request.agent_id.or(grant.agent);

        // A lost reply burns nothing: the same token with the same key gets the same certificate again, or, where that does not
        // count any longer, another one.
        let is_on_file = |id| self.agents.with(id, |_| ()).is_some();
        let repeated = match asked {
            Some(id) if !is_on_file(id) => None,
            _ => self.db.redemption_get(&token.id, &public_key).await?,
        };
        let mut before = None;
        if let Some(row) = repeated
            && let Some(entry) = row.agent_id.parse().ok().and_then(|id| self.agents.get(id))
            && asked.is_none_or(|id| id == entry.id)
            && entry.is_trusted()
        {
            // No use is taken of it, so nothing else asks whether it was revoked a moment ago.
            let token = self.db.token_get(&token.id).await?;
            if token.is_none_or(|token| token.revoked_at > 0) {
                return Err(Error::TokenRefused);
            }
            // What the redemption has stored may be superseded: the machine has enrolled again since, with another token.
            let is_good = |it: &&Certificate| it.public_key == public_key && it.not_after > now;
            let newest = [entry.next.as_ref(), Some(&entry.certificate)];
            if let Some(known) = newest.into_iter().flatten().find(is_good)
                && let Some(certificate) = self.db.agent_certificate_der(&known.serial).await?
            {
                return Ok(Enrolled {
                    agent_id: entry.id,
                    name: entry.name,
                    certificate,
                    is_new: false,
                });
            }
            before = Some(entry.id);
        } else if token.uses_left == 0 {
            return Err(Error::TokenRefused);
        }

        let id = asked.or(before).unwrap_or_else(|| AgentId::of_key(&key.digest()));
        let has_old_key = is_on_file(id) && self.db.agent_certificate_has_key(&id.to_string(), &public_key).await?;
        let issued = self.pki.issue_agent(id.uuid(), &key, clock::to_system(now))?;
        let (done, answer) = oneshot::channel();
        let job = Job {
            id,
            token,
            grant,
            public_key,
            issued,
            has_old_key,
            is_repeated: before.is_some(),
            request,
            done,
        };
        self.jobs.send(job).await.map_err(|_| Error::NotStored)?;
        answer.await.unwrap_or(Err(Error::NotStored))
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
