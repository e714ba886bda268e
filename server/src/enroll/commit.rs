//! The commit of enrollments: what came while one commit ran goes into the next, so that a fleet that boots at once does not
//! wait for one disk write each. Every request is judged by itself; durable before it is answered.

use std::collections::BTreeSet;

use muster_certs::ca::Issued;
use muster_proto::ids::AgentId;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{
    Enrolled, Enroller, Error, Request,
    matching::{self, Grant, Match, OnFile},
};
use crate::{
    agents::{Certificate, Entry, OnClone},
    clock::{self, Micros},
    events::Event,
    link::Close,
    store::{ChangeKind, NewAgent, NewCertificate, Op, Reenrollment, TokenRow, Tx},
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

    /// One commit. Back come those that have to wait for another one of it: two requests for one agent.
    async fn commit(&self, jobs: Vec<Job>, now: Micros) -> Vec<Job> {
        let mut ids = BTreeSet::new();
        let (jobs, later): (Vec<_>, Vec<_>) = jobs.into_iter().partition(|job| ids.insert(job.id));
        let _writing = self.agents.writing.lock().await;
        let mut matched = Vec::new();
        for job in jobs {
            match self.answered_meanwhile(&job).await {
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
                for (job, entry, is_again) in stored {
                    let enrolled = Enrolled {
                        agent_id: entry.id,
                        name: entry.name.clone(),
                        certificate: job.issued.der.to_vec(),
                        is_new: true,
                    };
                    let id = entry.id;
                    self.agents.insert(entry);
                    if is_again {
                        self.links.cut(id, Close::Replaced);
                    }
                    answer(job, Ok(enrolled));
                }
                self.agents.assignments.notify_one();
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
    async fn answered_meanwhile(&self, job: &Job) -> Result<Option<Enrolled>, crate::store::Error> {
        let Some(entry) = self.agents.get(job.id) else {
            return Ok(None);
        };
        if entry.certificate.public_key != job.public_key {
            return Ok(None);
        }
        let row = self.db.redemption_get(&job.token.id, &job.public_key).await?;
        Ok(row.map(|row| Enrolled {
            agent_id: entry.id,
            name: entry.name,
            certificate: row.certificate,
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
        matching::decide(Some(job.id), on_file, &job.grant, job.has_old_key)
            .map_err(|mismatch| Error::Mismatch(job.id, mismatch))
    }

    /// What was committed, with the entries as they are then. Those whose token had no use left are answered here.
    async fn store(
        &self,
        matched: Vec<(Job, Match)>,
        now: Micros,
    ) -> Result<Vec<(Job, Entry, bool)>, crate::store::Error> {
        let tokens: BTreeSet<String> = matched.iter().map(|(job, _)| job.token.id.clone()).collect();
        let changes: Vec<_> = matched
            .iter()
            .map(|(job, _)| (ChangeKind::Agent, job.id.to_string(), Op::Put))
            .chain(tokens.into_iter().map(|id| (ChangeKind::Token, id, Op::Put)))
            .collect();
        let mut tx = self.db.begin().await?;
        let first = tx.changes_add(now, &changes).await?;
        let last = first + changes.len() as i64 - 1;
        let (mut stored, mut refused, mut events) = (Vec::new(), Vec::new(), Vec::new());
        for (index, (job, found)) in matched.into_iter().enumerate() {
            if !job.is_repeated && !tx.token_use(&job.token.id, last, now).await? {
                refused.push(job);
                continue;
            }
            let entry = self.store_one(&mut tx, &job, found, first + index as i64, now).await?;
            events.push(event(&job, &entry, found, now).into_row());
            stored.push((job, entry, found == Match::Again));
        }
        tx.event_insert_all(&events).await?;
        tx.commit().await?;
        for job in refused {
            answer(job, Err(Error::TokenRefused));
        }
        Ok(stored)
    }

    async fn store_one(
        &self,
        tx: &mut Tx,
        job: &Job,
        found: Match,
        revision: i64,
        now: Micros,
    ) -> Result<Entry, crate::store::Error> {
        let (id, request) = (job.id.to_string(), &job.request);
        let agent = NewAgent {
            id: job.id,
            name: &request.name,
            agent_labels: &serde_json::json!(request.labels).to_string(),
            token_labels: &job.token.labels,
            version: &request.version,
            now,
            revision,
        };
        let mut entry = Entry::from(&agent);
        match (found, self.agents.get(job.id)) {
            (Match::Expected | Match::Again, Some(old)) => {
                tx.agent_certificate_supersede_all(&id, now).await?;
                let name = if old.name.is_empty() { &request.name } else { &old.name };
                tx.agent_reenroll(&Reenrollment {
                    agent: &agent,
                    name,
                    ephemeral: job.token.ephemeral,
                    on_clone: &job.token.on_clone,
                })
                .await?;
                entry.name.clone_from(name);
                entry.operator_labels = old.operator_labels;
                entry.epoch = old.epoch + 1;
                entry.facts = old.facts;
                entry.facts_digest = old.facts_digest;
                entry.preregistered = old.preregistered;
                entry.forked_from = old.forked_from;
                entry.last_seen = old.last_seen;
            }
            _ => {
                tx.agent_revive(&id).await?;
                tx.agent_insert(&agent).await?;
                if job.token.ephemeral > 0 || !job.token.on_clone.is_empty() {
                    tx.agent_set_terms(&id, job.token.ephemeral, &job.token.on_clone)
                        .await?;
                }
            }
        }
        entry.ephemeral = job.token.ephemeral;
        entry.on_clone = OnClone::parse(&job.token.on_clone).unwrap_or_default();
        let not_after = clock::from_system(job.issued.not_after);
        tx.agent_certificate_insert(&NewCertificate {
            agent_id: &id,
            serial: &job.issued.serial,
            not_after,
            public_key: &job.public_key,
            ca: &job.issued.ca,
            predecessor: "",
            certificate: &job.issued.der,
            now,
        })
        .await?;
        tx.redemption_put(
            &job.token.id,
            &job.public_key,
            &id,
            &job.issued.der,
            &request.source.to_string(),
            now,
        )
        .await?;
        entry.certificate = Certificate {
            serial: job.issued.serial.clone(),
            not_after,
            issued_at: now,
            ca: job.issued.ca.clone(),
            public_key: job.public_key.clone(),
            is_used: false,
        };
        Ok(entry)
    }
}

fn event(job: &Job, entry: &Entry, found: Match, now: Micros) -> Event {
    let (reason, what) = match found {
        Match::New | Match::Expected => ("AGENT_ENROLLED", "enrolled"),
        Match::Again => ("AGENT_REENROLLED", "enrolled again"),
    };
    let text = format!("{} {what} with token {}", entry.name, job.token.id);
    Event::new(reason, Some(entry.id), text, now)
        .with("token", &job.token.id)
        .with("source", job.request.source)
        .with("serial", &job.issued.serial)
}

fn answer(job: Job, result: Result<Enrolled, Error>) {
    // The caller may be gone; its next attempt finds what was stored.
    let _ = job.done.send(result);
}
