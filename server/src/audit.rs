//! The audit log: who changed what, and who was refused. One writer ties each entry to the one before it and signs, every minute
//! and every thousand entries, how far the log is; what is wrong with a log is found out by whoever reads it, with
//! `muster_proto::audit`. What is worth an entry is decided in `access`.

mod kept;

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use muster_proto::{
    audit::{self, Hash, Head, NOTHING},
    v1::{self, AuditEntry, AuditOutcome, EventSeverity},
};
use prost::Message as _;
use tokio::{
    sync::{mpsc, oneshot},
    time::MissedTickBehavior,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use kept::Kept;

use crate::{
    clock::{self, Micros, to_timestamp},
    events::{self, Event},
    pki::Pki,
    store::{self, AuditHeadRow, AuditRow, Db},
};

/// Entries that wait for the writer; calls wait beyond that.
const QUEUE: usize = 1_024;
/// Entries in one commit.
const TOGETHER: usize = 256;
const SIGN_EVERY: i64 = 1_000;
const SIGN_AFTER: Duration = Duration::from_secs(60);
/// Callers and addresses whose refusals are counted each for itself in a minute; the rest share an entry.
const MAX_STRANGERS: usize = 1_024;
/// Refusals of one caller in a minute that are entries of their own.
const ONE_BY_ONE: i64 = 60;
/// Texts that come from a caller.
const MAX_TEXT: usize = 256;

/// The log could not be written, so that what it would have told of must not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotWritten {
    #[error("there is no room for the audit log")]
    Full,
    #[error("the audit log cannot be written")]
    Failed,
}

struct Write {
    entry: AuditEntry,
    done: oneshot::Sender<Result<(), NotWritten>>,
}

/// Hands entries to the writer. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Audit {
    writer: mpsc::Sender<Write>,
    refusals: Arc<Refusals>,
}

impl Audit {
    /// Returns when the entry is on disk. Number and time are the writer's.
    pub async fn write(&self, entry: AuditEntry) -> Result<(), NotWritten> {
        let (done, written) = oneshot::channel();
        let write = Write {
            entry: bounded(entry),
            done,
        };
        self.writer.send(write).await.map_err(|_| NotWritten::Failed)?;
        written.await.unwrap_or(Err(NotWritten::Failed))
    }

    /// Of a caller that is known. From a number a minute on they are only counted.
    pub async fn refused(&self, source: IpAddr, entry: AuditEntry) -> Result<(), NotWritten> {
        match self.refusals.one_by_one(source, &entry) {
            true => self.write(entry).await,
            false => Ok(()),
        }
    }

    /// Counts a refusal of somebody who is nobody, or only says who it is; an entry for each of them, address and minute tells
    /// how many there were.
    pub fn stranger(&self, source: IpAddr, claimed: Option<&str>, method: &str, reason: &str) {
        self.refusals
            .count(source, claimed.unwrap_or("anonymous"), method, reason);
    }
}

/// What costs no more than a counter: refusals of those who are not known, and of those who are from a number on.
#[derive(Debug, Default)]
struct Refusals(Mutex<HashMap<Option<(IpAddr, String)>, Refused>>);

#[derive(Debug, Default)]
struct Refused {
    /// Those that are not entries of their own.
    count: i64,
    written: i64,
    /// The last of them.
    method: String,
    reason: String,
}

impl Refusals {
    fn one_by_one(&self, source: IpAddr, entry: &AuditEntry) -> bool {
        let is_written = self.with(source, &entry.caller, |refused| {
            refused.written += 1;
            refused.written <= ONE_BY_ONE
        });
        if !is_written {
            self.count(source, &entry.caller, &entry.method, &entry.reason);
        }
        is_written
    }

    fn count(&self, source: IpAddr, who: &str, method: &str, reason: &str) {
        self.with(source, who, |refused| {
            refused.count += 1;
            method.clone_into(&mut refused.method);
            reason.clone_into(&mut refused.reason);
        });
    }

    fn with<T>(&self, source: IpAddr, who: &str, change: impl FnOnce(&mut Refused) -> T) -> T {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = Some((source, who.to_owned()));
        let is_known = all.contains_key(&key);
        let key = key.filter(|_| is_known || all.len() < MAX_STRANGERS);
        change(all.entry(key).or_default())
    }

    fn take(&self) -> Vec<AuditEntry> {
        let all = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let counted = all.into_iter().filter(|(_, refused)| refused.count > 0);
        let entry = |(from, refused): (Option<(IpAddr, String)>, Refused)| {
            let (source, caller) = match from {
                Some((source, caller)) => (source.to_string(), caller),
                None => ("many".to_owned(), "many".to_owned()),
            };
            bounded(AuditEntry {
                caller,
                source,
                method: refused.method,
                outcome: AuditOutcome::Refused.into(),
                reason: refused.reason,
                count: refused.count,
                ..AuditEntry::default()
            })
        };
        counted.map(entry).collect()
    }
}

/// The writer.
#[derive(Debug)]
pub struct Keeper {
    db: Db,
    pki: Arc<Pki>,
    queue: mpsc::Receiver<Write>,
    refusals: Arc<Refusals>,
    /// How long entries are kept.
    keep: Micros,
    kept: Kept,
    last: Head,
    signed: i64,
}

impl Keeper {
    /// Tells, once and in an event, when the log is not the one that was signed last.
    pub async fn load(db: Db, pki: Arc<Pki>, keep: Duration, kept: Kept) -> Result<(Self, Audit), store::Error> {
        if let Some(text) = kept.contradiction(&db, &pki).await? {
            warn!("{text}");
            let event = Event::new("AUDIT_LOG_ALTERED", None, text, clock::now()).severity(EventSeverity::Error);
            events::record(&db, vec![event]).await;
        }
        let (writer, queue) = mpsc::channel(QUEUE);
        let refusals = Arc::new(Refusals::default());
        let keeper = Self {
            last: last(&db).await?,
            signed: db.audit_head_last().await?.map_or(0, |head| head.seq),
            db,
            pki,
            queue,
            refusals: refusals.clone(),
            keep: clock::from_duration(keep),
            kept,
        };
        Ok((keeper, Audit { writer, refusals }))
    }

    /// Until `shutdown`, then writes what is queued.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut ticks = tokio::time::interval(SIGN_AFTER);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                first = self.queue.recv() => match first {
                    Some(first) => self.write_with(first).await,
                    None => break,
                },
                _ = ticks.tick() => self.minute().await,
                () = shutdown.cancelled() => {
                    self.queue.close();
                    while let Some(first) = self.queue.recv().await {
                        self.write_with(first).await;
                    }
                    break;
                }
            }
        }
        self.minute().await;
    }

    async fn write_with(&mut self, first: Write) {
        let mut writes = vec![first];
        while writes.len() < TOGETHER
            && let Ok(write) = self.queue.try_recv()
        {
            writes.push(write);
        }
        let (entries, waiting): (Vec<_>, Vec<_>) = writes.into_iter().map(|write| (write.entry, write.done)).unzip();
        let written = self.write_all(entries).await;
        for done in waiting {
            // The call may be gone; its entry is there.
            let _ = done.send(written);
        }
        if self.last.seq - self.signed >= SIGN_EVERY {
            self.sign().await;
        }
    }

    /// All of it or nothing.
    async fn write_all(&mut self, entries: Vec<AuditEntry>) -> Result<(), NotWritten> {
        let (rows, last) = self.chain(entries, clock::now());
        let written = async {
            let mut tx = self.db.begin().await?;
            tx.audit_insert_all(&rows).await?;
            tx.commit().await
        };
        match written.await {
            Ok(()) => {
                self.last = last;
                Ok(())
            }
            Err(error) => {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "failed to write the audit log"
                );
                // A commit that nobody has heard of may be one all the same.
                if let Ok(last) = self::last(&self.db).await {
                    self.last = last;
                }
                Err(match error.is_full() {
                    true => NotWritten::Full,
                    false => NotWritten::Failed,
                })
            }
        }
    }

    fn chain(&self, entries: Vec<AuditEntry>, now: Micros) -> (Vec<AuditRow>, Head) {
        let mut last = self.last;
        let rows = entries.into_iter().map(|entry| {
            let seq = last.seq + 1;
            let entry = AuditEntry {
                seq,
                time: Some(to_timestamp(now)),
                ..entry
            };
            let bytes = entry.encode_to_vec();
            last = Head {
                seq,
                hash: audit::hash(&last.hash, seq, &bytes),
            };
            AuditRow {
                hash: last.hash.to_vec(),
                entry: bytes,
                ..row_of(&entry, now)
            }
        });
        (rows.collect(), last)
    }

    async fn minute(&mut self) {
        let refusals = self.refusals.take();
        if !refusals.is_empty() {
            // What is wrong has been said, and they are only numbers.
            let _ = self.write_all(refusals).await;
        }
        if let Err(error) = self.trim(clock::now()).await {
            warn!(
                error = &error as &dyn std::error::Error,
                "failed to remove old audit entries"
            );
        }
        if self.last.seq > self.signed {
            self.sign().await;
        }
    }

    /// Removes what is too old. An entry that stays says so first, and is signed with the rest.
    async fn trim(&mut self, now: Micros) -> Result<(), store::Error> {
        let Some(end) = self.db.audit_last_before(now - self.keep).await? else {
            return Ok(());
        };
        // The last entry stays, so that there is always one to go on from.
        if end.seq >= self.last.seq {
            return Ok(());
        }
        let stub = AuditEntry {
            caller: "controller".to_owned(),
            outcome: AuditOutcome::Trimmed.into(),
            trimmed_through_seq: end.seq,
            trimmed_through_hash: end.hash,
            ..AuditEntry::default()
        };
        let (rows, last) = self.chain(vec![stub], now);
        let mut tx = self.db.begin().await?;
        tx.audit_insert_all(&rows).await?;
        let removed = tx.audit_trim(end.seq).await?;
        tx.commit().await?;
        self.last = last;
        info!(entries = removed, through = end.seq, "old audit entries removed");
        Ok(())
    }

    /// Into the database, and into the log of the process, which is somewhere else.
    async fn sign(&mut self) {
        let now = clock::now();
        let signed = sign(&self.pki, self.last, now);
        let row = AuditHeadRow {
            seq: self.last.seq,
            at: now,
            payload: signed.payload.to_vec(),
            key_id: signed.key_id.clone(),
            signature: signed.signature.clone(),
        };
        let stored = async {
            let mut tx = self.db.begin().await?;
            tx.audit_head_insert(&row).await?;
            tx.commit().await
        };
        match stored.await {
            Ok(()) => {
                self.signed = self.last.seq;
                self.kept.write(&signed);
                let head = BASE64_STANDARD.encode(signed.encode_to_vec());
                info!(seq = self.signed, head, "audit log signed");
            }
            Err(error) => warn!(error = &error as &dyn std::error::Error, "failed to sign the audit log"),
        }
    }
}

/// The place, signed now.
pub fn sign(pki: &Pki, head: Head, now: Micros) -> v1::Signed {
    let payload = v1::AuditHeadPayload {
        trust_domain: pki.trust_domain().to_string(),
        seq: head.seq,
        hash: head.hash.to_vec(),
        time: Some(to_timestamp(now)),
    };
    pki.sign_policy(audit::HEAD, payload.encode_to_vec().into())
}

/// How a row would be found, if nobody had touched it.
pub fn is_relabelled(row: &AuditRow) -> bool {
    match AuditEntry::decode(row.entry.as_slice()) {
        Ok(entry) => {
            let expected = AuditRow {
                entry: row.entry.clone(),
                hash: row.hash.clone(),
                ..row_of(&entry, row.at)
            };
            expected != *row || entry.time != Some(to_timestamp(row.at))
        }
        Err(_) => true,
    }
}

/// Without entry and hash.
fn row_of(entry: &AuditEntry, at: Micros) -> AuditRow {
    AuditRow {
        seq: entry.seq,
        at,
        caller: entry.caller.clone(),
        method: entry.method.clone(),
        resource: entry.resource.clone(),
        agent_id: entry.agent_id.clone(),
        outcome: i64::from(entry.outcome),
        request_id: entry.request_id.clone(),
        entry: Vec::new(),
        hash: Vec::new(),
    }
}

async fn last(db: &Db) -> Result<Head, store::Error> {
    let nothing = Head { seq: 0, hash: NOTHING };
    Ok(match db.audit_last().await? {
        None => nothing,
        Some(row) => Head {
            seq: row.seq,
            // One of another length was written by somebody else; the chain shows it.
            hash: Hash::try_from(row.hash.as_slice()).unwrap_or(NOTHING),
        },
    })
}

/// Texts of callers are as long as they like, and hold what no database takes.
fn bounded(mut entry: AuditEntry) -> AuditEntry {
    for text in [
        &mut entry.caller,
        &mut entry.source,
        &mut entry.method,
        &mut entry.resource,
        &mut entry.reason,
        &mut entry.request_id,
    ] {
        text.truncate(text.floor_char_boundary(MAX_TEXT));
        text.retain(|c| c != '\0');
    }
    entry
}
