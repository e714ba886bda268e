//! What one commit shall contain: pure bookkeeping over records, marks and states. Duplicates are dropped by their place in
//! the spool, bad records are rejected, states follow results.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use muster_proto::{
    ids::AgentId,
    v1::{self, Lane, record::Body},
};
use prost::Message as _;
use tokio::sync::oneshot;

use super::{Done, Held, Job, Lost, SpoolId, lane_name, validate};
use crate::{
    clock::{self, Micros},
    policies::PolicySet,
    states::{Entry, States, entry::Arrival},
    store::{ChangeKind, EventRow, LogRow, MarkRow, MetricRow, Op, ResultRow},
};

/// A job with its records numbered and the bad ones sorted out.
#[derive(Debug)]
pub struct Work {
    pub agent: AgentId,
    pub spool: SpoolId,
    pub records: Vec<Numbered>,
    pub rejected: Vec<v1::Rejected>,
    pub through_seq: u64,
    received_at: Micros,
    /// See `Job`.
    pub lost: Lost,
    /// Until it is dropped.
    _held: Option<Held>,
    /// Set by `finish`.
    pub done: Option<Done>,
}

#[derive(Clone, Debug)]
pub struct Numbered {
    pub seq: u64,
    pub record: v1::Record,
}

impl Work {
    /// The sender is for the answer when the work is committed.
    pub fn new(lane: Lane, job: Job) -> (Self, oneshot::Sender<Done>) {
        let mut work = Self {
            agent: job.agent,
            spool: job.spool,
            records: Vec::with_capacity(job.records.len()),
            rejected: Vec::new(),
            through_seq: job.first_seq.saturating_add(job.records.len() as u64).saturating_sub(1),
            received_at: job.received_at,
            lost: job.lost,
            _held: Some(job.held),
            done: None,
        };
        for (index, record) in job.records.into_iter().enumerate() {
            let seq = job.first_seq.saturating_add(index as u64);
            match validate::check(lane, &record) {
                Ok(()) => work.records.push(Numbered { seq, record }),
                Err(reason) => work.rejected.push(v1::Rejected { seq, reason }),
            }
        }
        (work, job.done)
    }

    /// Of what it came with, good or not.
    pub fn first_seq(&self) -> u64 {
        let good = self.records.first().map(|record| record.seq);
        let bad = self.rejected.first().map(|rejected| rejected.seq);
        good.into_iter().chain(bad).min().unwrap_or(self.through_seq)
    }

    /// `admit` takes samples out of a batch that has not been stored yet, and says how many, and of how many. The agent is told of
    /// each batch; one of which nothing is left is not stored. How many samples that were.
    pub fn admit_series(
        &mut self,
        mark: u64,
        mut admit: impl FnMut(AgentId, &mut v1::MetricBatch) -> (usize, usize),
    ) -> u64 {
        let (agent, rejected, mut sum) = (self.agent, &mut self.rejected, 0);
        self.records.retain_mut(|Numbered { seq, record }| {
            let Some(Body::Metrics(batch)) = record.body.as_mut().filter(|_| *seq > mark) else {
                return true;
            };
            let (refused, all) = admit(agent, batch);
            if refused > 0 {
                let reason = format!(
                    "{refused} of its {all} samples are of new series beyond limits.agent_new_series_per_minute, and not stored"
                );
                rejected.push(v1::Rejected { seq: *seq, reason });
                sum += refused as u64;
            }
            refused == 0 || refused < all
        });
        self.rejected.sort_by_key(|rejected| rejected.seq);
        sum
    }

    /// The same work with one record only.
    pub fn with_record(&self, record: Numbered) -> Self {
        Self {
            agent: self.agent,
            spool: self.spool.clone(),
            through_seq: record.seq,
            records: vec![record],
            rejected: Vec::new(),
            received_at: self.received_at,
            lost: self.lost.clone(),
            _held: None,
            done: None,
        }
    }

    /// It has been committed.
    pub fn finish(&mut self) {
        self.done = Some(Done {
            through_seq: self.through_seq,
            rejected: std::mem::take(&mut self.rejected),
        });
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub stored: u64,
    pub duplicates: u64,
    pub rejected: u64,
}

#[derive(Debug)]
pub struct Plan<'a> {
    states: &'a States,
    pub results: Vec<ResultRow>,
    pub events: Vec<EventRow>,
    pub metrics: Vec<MetricRow>,
    pub logs: Vec<LogRow>,
    pub counts: Counts,
    marks: BTreeMap<(AgentId, SpoolId), u64>,
    entries: BTreeMap<(AgentId, String), Entry>,
    changed: Vec<(AgentId, String)>,
    seen: HashSet<(AgentId, String)>,
}

impl<'a> Plan<'a> {
    pub fn new(states: &'a States) -> Self {
        Self {
            states,
            results: Vec::new(),
            events: Vec::new(),
            metrics: Vec::new(),
            logs: Vec::new(),
            counts: Counts::default(),
            marks: BTreeMap::new(),
            entries: BTreeMap::new(),
            changed: Vec::new(),
            seen: HashSet::new(),
        }
    }

    /// How far the work's spool will be stored with what is planned already.
    pub fn mark(&self, work: &Work) -> Option<u64> {
        self.marks.get(&(work.agent, work.spool.clone())).copied()
    }

    /// Adds the records that lie behind `mark`.
    pub fn add(&mut self, work: &Work, mark: u64) {
        let mut set = None;
        for Numbered { seq, record } in &work.records {
            if *seq <= mark {
                self.counts.duplicates += 1;
                continue;
            }
            self.counts.stored += 1;
            match &record.body {
                Some(Body::CheckResult(result)) => {
                    let set = set.get_or_insert_with(|| self.states.assigned(work.agent));
                    self.add_result(work, *seq, record.time_unix_micros, result, set.as_deref());
                }
                Some(Body::Event(event)) => self.events.push(EventRow {
                    at: record.time_unix_micros,
                    received_at: work.received_at,
                    agent_id: work.agent.to_string(),
                    reason: event.reason.clone(),
                    severity: event.severity.into(),
                    message: event.message.clone(),
                    metadata: serde_json::json!(event.metadata).to_string(),
                }),
                Some(Body::Gap(gap)) => self.events.push(gap_event(work, record.time_unix_micros, gap)),
                Some(Body::Metrics(batch)) => self.metrics.push(MetricRow {
                    agent_id: work.agent.to_string(),
                    at: record.time_unix_micros,
                    received_at: work.received_at,
                    payload: batch.encode_to_vec(),
                    samples: batch.families.iter().map(|family| family.samples.len() as i64).sum(),
                }),
                Some(Body::Logs(batch)) => self
                    .logs
                    .extend(batch.entries.iter().map(|entry| log_row(work, &batch.source, entry))),
                None => {}
            }
        }
        self.counts.rejected += work.rejected.len() as u64;
        let mark = mark.max(work.through_seq);
        self.marks.insert((work.agent, work.spool.clone()), mark);
    }

    fn add_result(&mut self, work: &Work, seq: u64, at: Micros, result: &v1::CheckResult, set: Option<&PolicySet>) {
        let encoded = Bytes::from(result.encode_to_vec());
        self.results.push(ResultRow {
            agent_id: work.agent.to_string(),
            check_name: result.check.clone(),
            at,
            received_at: work.received_at,
            state: result.state.into(),
            result: encoded.to_vec(),
        });
        // A check that is no longer assigned has a history, but no state.
        let Some(policy) = set.and_then(|set| set.check(&result.check)) else {
            return;
        };
        let key = (work.agent, result.check.clone());
        let known = self
            .entries
            .get(&key)
            .cloned()
            .or_else(|| self.states.get(work.agent, &result.check));
        let is_new = known.is_none();
        let known = known.unwrap_or_else(|| Entry::pending(work.received_at));
        let (generation, place) = (work.spool.generation(), i64::try_from(seq).unwrap_or(i64::MAX));
        if known.is_ahead_of(generation, place) {
            return;
        }
        let (entry, transition) = known.after(Arrival {
            result,
            encoded,
            at,
            received_at: work.received_at,
            generation,
            seq: place,
            attempts: policy.timings.attempts,
        });
        if (transition || is_new) && self.seen.insert(key.clone()) {
            self.changed.push(key.clone());
        }
        self.entries.insert(key, entry);
    }

    pub fn transitions(&self) -> Vec<(ChangeKind, String, Op)> {
        self.changed
            .iter()
            .map(|(agent, check)| (ChangeKind::State, format!("{agent}/{check}"), Op::Put))
            .collect()
    }

    /// Gives the changed states their revisions, `first` and those after it.
    pub fn set_revisions(&mut self, first: i64) {
        for (index, key) in self.changed.iter().enumerate() {
            if let Some(entry) = self.entries.get_mut(key) {
                entry.revision = first + index as i64;
            }
        }
    }

    pub fn state_rows(&self) -> Vec<crate::store::StateRow> {
        self.entries
            .iter()
            .map(|((agent, check), entry)| entry.to_row(*agent, check))
            .collect()
    }

    pub fn mark_rows(&self) -> Vec<MarkRow> {
        self.marks
            .iter()
            .map(|((agent, spool), seq)| MarkRow {
                agent_id: agent.to_string(),
                spool_id: spool.to_string(),
                seq: i64::try_from(*seq).unwrap_or(i64::MAX),
            })
            .collect()
    }

    pub fn marks(&self) -> impl Iterator<Item = ((AgentId, SpoolId), u64)> + '_ {
        self.marks.iter().map(|(key, seq)| (key.clone(), *seq))
    }

    pub fn into_entries(self) -> impl Iterator<Item = (AgentId, String, Entry)> {
        self.entries
            .into_iter()
            .map(|((agent, check), entry)| (agent, check, entry))
    }
}

fn log_row(work: &Work, source: &str, entry: &v1::LogEntry) -> LogRow {
    LogRow {
        agent_id: work.agent.to_string(),
        at: entry.time_unix_micros,
        received_at: work.received_at,
        severity: entry.severity.into(),
        source: source.to_owned(),
        unit: entry.unit.clone(),
        message: entry.message.clone(),
        fields: match entry.fields.is_empty() {
            true => String::new(),
            false => serde_json::json!(entry.fields).to_string(),
        },
    }
}

/// What an agent gave up, as something that happened to it.
fn gap_event(work: &Work, at: Micros, gap: &v1::Gap) -> EventRow {
    let records = gap.last_seq - gap.first_seq + 1;
    let lane = lane_name(gap.lane());
    let why = match gap.reason() {
        v1::GapReason::Old => "older than the agent keeps records",
        v1::GapReason::Unreadable => "not readable on the agent's disk",
        v1::GapReason::Full | v1::GapReason::Unspecified => "no room for them in the agent's queue",
    };
    let metadata = [
        ("lane", lane.to_owned()),
        ("records", records.to_string()),
        ("spool", gap.spool_id.clone()),
        ("first_seq", gap.first_seq.to_string()),
        ("last_seq", gap.last_seq.to_string()),
        ("from", clock::to_text(gap.from_unix_micros)),
        ("to", clock::to_text(gap.to_unix_micros)),
    ];
    EventRow {
        at,
        received_at: work.received_at,
        agent_id: work.agent.to_string(),
        reason: "AGENT_RECORDS_DROPPED".to_owned(),
        severity: i64::from(i32::from(v1::EventSeverity::Warning)),
        message: format!("{records} records of lane {lane} were dropped: {why}"),
        metadata: serde_json::json!(BTreeMap::from(metadata)).to_string(),
    }
}
