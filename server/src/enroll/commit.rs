//! The commit of enrollments: what came while one commit ran goes into the next, so that a fleet that boots at once does not
//! wait for one disk write each. Every request is judged by itself; durable before it is answered.

use std::collections::{BTreeMap, BTreeSet};

use muster_certs::ca::Issued;
use muster_proto::ids::AgentId;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{
    Enrolled, Enroller, Error, Request,
    matching::{self, Grant, Match, OnFile},
    rows,
};
use crate::{
    access::{labels, scope::Scopes},
    agents::{Certificate, Entry, OnClone},
    clock::{self, Micros},
    link::Close,
    store::{ChangeKind, Op, Reenrollment, TokenRow, Tx},
};

/// Enrollments of one commit.
const BATCH: usize = 64;

/// A request whose token and key are good.
#[derive(Debug)]
pub(super) struct Job {
    pub request: Request,
    pub id: AgentId,
    pub token: TokenRow,
    pub grant: Grant,
    /// Fingerprint.
    pub public_key: String,
    pub issued: Issued,
    /// The key is that of a certificate of the agent.
    pub has_old_key: bool,
    /// The token was redeemed with this key before: that use counts.
    pub is_repeated: bool,
    pub done: oneshot::Sender<Result<Enrolled, Error>>,
}

/// A job of which the commit is under way.
#[derive(Debug)]
pub(super) struct Stored {
    pub job: Job,
    pub found: Match,
    pub entry: Entry,
    /// JSON.
    pub agent_labels: String,
    /// There is a row of the agent already.
    pub is_on_file: bool,
}

impl Enroller {
    /// Works until `shutdown`, then commits what is queued.
    pub(super) async fn store_all(&self, mut queue: mpsc::Receiver<Job>, shutdown: CancellationToken) {
        let mut waiting: Vec<Job> = Vec::new();
        loop {
            if waiting.is_empty() {
                let first = tokio::select! {
                    biased;
                    job = queue.recv() => job,
                    () = shutdown.cancelled() => {
                        queue.close();
                        queue.recv().await
                    }
                };
                let Some(first) = first else { return };
                waiting.push(first);
            }
            while waiting.len() < BATCH {
                let Ok(job) = queue.try_recv() else { break };
                waiting.push(job);
            }
            waiting = self.commit(waiting, clock::now()).await;
        }
    }

    /// One commit. Back come those that have to wait for the next: a second request for an agent, or of a key.
    async fn commit(&self, jobs: Vec<Job>, now: Micros) -> Vec<Job> {
        let (mut ids, mut keys) = (BTreeSet::new(), BTreeSet::new());
        let (jobs, later): (Vec<_>, Vec<_>) = jobs
            .into_iter()
            .partition(|job| ids.insert(job.id) & keys.insert(job.public_key.clone()));
        let _writing = self.agents.writing.lock().await;
        let mut matched = Vec::new();
        for job in jobs {
            match self.answered_meanwhile(&job, now).await {
                Ok(None) => {}
                Ok(Some(enrolled)) => {
                    answer(job, Ok(enrolled));
                    continue;
                }
                Err(error) => {
                    answer(job, Err(error.into()));
                    continue;
                }
            }
            match self.judge(&job) {
                Ok(found) => matched.push((job, found)),
                Err(error) => answer(job, Err(error)),
            }
        }
        if matched.is_empty() {
            return later;
        }
        let _held = self.changes.hold().await;
        match self.store(matched, now).await {
            Ok(stored) => {
                self.agents
                    .assignments
                    .changed(stored.iter().map(|stored| stored.entry.id));
                for Stored { job, found, entry, .. } in stored {
                    let enrolled = Enrolled {
                        agent_id: entry.id,
                        name: entry.name.clone(),
                        certificate: job.issued.der.to_vec(),
                        is_new: true,
                    };
                    let id = entry.id;
                    self.agents.insert(entry);
                    if found == Match::Again {
                        self.links.cut(id, Close::Replaced);
                    }
                    answer(job, Ok(enrolled));
                }
                self.changes.committed();
            }
            // Nothing was stored, and nobody gets an answer: as if the connection had broken.
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "failed to store enrollments; nothing was used up"
            ),
        }
        later
    }

    /// The same request was under way twice, and the other one was first.
    async fn answered_meanwhile(&self, job: &Job, now: Micros) -> Result<Option<Enrolled>, crate::store::Error> {
        let Some(entry) = self.agents.get(job.id) else {
            return Ok(None);
        };
        // Of one that is revoked or has expired another one is issued, or none.
        let is_good = entry.is_trusted() && entry.certificate.not_after > now;
        if !is_good || entry.certificate.public_key != job.public_key {
            return Ok(None);
        }
        if self.db.redemption_get(&job.token.id, &job.public_key).await?.is_none() {
            return Ok(None);
        }
        let certificate = self.db.agent_certificate_der(&entry.certificate.serial).await?;
        Ok(certificate.map(|certificate| Enrolled {
            agent_id: entry.id,
            name: entry.name,
            certificate,
            is_new: false,
        }))
    }

    fn judge(&self, job: &Job) -> Result<Match, Error> {
        let entry = self.agents.get(job.id);
        let on_file = match &entry {
            Some(entry) => OnFile::Entry(entry),
            None if self.agents.is_deleted(job.id) => OnFile::Deleted,
            None => OnFile::Nothing,
        };
        let mismatch = |mismatch| Error::Mismatch(job.id, mismatch);
        let matched = matching::decide(Some(job.id), on_file, &job.grant, job.has_old_key).map_err(mismatch)?;
        // Labels decide who reaches an agent, and grants may be others than when the token was made.
        let before = entry.as_ref().map(Entry::authoritative_map).unwrap_or_default();
        let mut after = job.grant.labels.clone();
        after.extend(entry.into_iter().flat_map(|entry| entry.operator_labels));
        let scopes = Scopes::of(job.grant.scope.clone());
        match labels::check(&scopes, &self.rights, &before, &after) {
            Ok(()) => Ok(matched),
            Err(_) => Err(mismatch(matching::Mismatch::OutOfScope)),
        }
    }

    /// What was committed. Those whose token had no use left are answered here.
    async fn store(&self, matched: Vec<(Job, Match)>, now: Micros) -> Result<Vec<Stored>, crate::store::Error> {
        let tokens: BTreeSet<String> = matched.iter().map(|(job, _)| job.token.id.clone()).collect();
        let changes: Vec<_> = matched
            .iter()
            .map(|(job, _)| (ChangeKind::Agent, job.id.to_string(), Op::Put))
            .chain(tokens.into_iter().map(|id| (ChangeKind::Token, id, Op::Put)))
            .collect();
        let mut tx = self.db.begin().await?;
        let first = tx.changes_add(now, &changes).await?;
        let last = first + changes.len() as i64 - 1;
        let matched = (first..)
            .zip(matched)
            .map(|(revision, (job, found))| (revision, job, found))
            .collect();
        let (matched, refused) = take_uses(&mut tx, matched, last, now).await?;
        let mut stored = Vec::with_capacity(matched.len());
        for (revision, job, found) in matched {
            stored.push(self.attach(&mut tx, job, found, revision, now).await?);
        }
        rows::insert(&mut tx, &stored, now).await?;
        tx.commit().await?;
        for job in refused {
            answer(job, Err(Error::TokenRefused));
        }
        Ok(stored)
    }

    /// The entry that a machine gets. What only adds rows is left to the batch.
    async fn attach(
        &self,
        tx: &mut Tx,
        job: Job,
        found: Match,
        revision: i64,
        now: Micros,
    ) -> Result<Stored, crate::store::Error> {
        let agent_labels = serde_json::json!(job.request.labels).to_string();
        let agent = rows::agent(&job, &agent_labels, revision, now);
        let mut entry = Entry::from(&agent);
        let old = match found {
            Match::New => None,
            Match::Expected | Match::Again => self.agents.get(job.id),
        };
        let is_on_file = old.is_some();
        if let Some(old) = old {
            tx.agent_certificate_supersede_all(&job.id.to_string(), now).await?;
            if !old.name.is_empty() {
                entry.name = old.name;
            }
            tx.agent_reenroll(&Reenrollment {
                agent: &agent,
                name: &entry.name,
                ephemeral: job.token.ephemeral,
                on_clone: &job.token.on_clone,
            })
            .await?;
            entry.operator_labels = old.operator_labels;
            entry.epoch = old.epoch + 1;
            entry.facts = old.facts;
            entry.facts_digest = old.facts_digest;
            entry.preregistered = old.preregistered;
            entry.forked_from = old.forked_from;
            entry.last_seen = old.last_seen;
        } else if self.agents.is_deleted(job.id) {
            tx.agent_revive(&job.id.to_string()).await?;
        }
        entry.ephemeral = job.token.ephemeral;
        entry.on_clone = OnClone::parse(&job.token.on_clone).unwrap_or_default();
        entry.certificate = Certificate {
            serial: job.issued.serial.clone(),
            not_after: clock::from_system(job.issued.not_after),
            issued_at: now,
            ca: job.issued.ca.clone(),
            public_key: job.public_key.clone(),
            is_used: false,
        };
        Ok(Stored {
            job,
            found,
            entry,
            agent_labels,
            is_on_file,
        })
    }
}

type Matched = Vec<(i64, Job, Match)>;

/// Takes a use for each that needs one; of a token with too few left, those that came first have them. Back come those that
/// got one, and those that did not.
async fn take_uses(
    tx: &mut Tx,
    matched: Matched,
    revision: i64,
    now: Micros,
) -> Result<(Matched, Vec<Job>), crate::store::Error> {
    let mut wanted: BTreeMap<String, i64> = BTreeMap::new();
    for (_, job, _) in matched.iter().filter(|(_, job, _)| !job.is_repeated) {
        *wanted.entry(job.token.id.clone()).or_default() += 1;
    }
    let mut too_many = BTreeSet::new();
    for (token, uses) in wanted {
        if !tx.token_use(&token, uses, revision, now).await? {
            too_many.insert(token);
        }
    }
    let (mut taken, mut refused) = (Vec::with_capacity(matched.len()), Vec::new());
    for (own, job, found) in matched {
        let is_taken = job.is_repeated
            || !too_many.contains(&job.token.id)
            || tx.token_use(&job.token.id, 1, revision, now).await?;
        if is_taken {
            taken.push((own, job, found));
        } else {
            refused.push(job);
        }
    }
    Ok((taken, refused))
}

fn answer(job: Job, result: Result<Enrolled, Error>) {
    // The caller may be gone; its next attempt finds what was stored.
    let _ = job.done.send(result);
}
